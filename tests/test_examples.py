"""The examples: each document's system against its own numbers, or its formulas in plain NumPy."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import xpnet

FOLDER = Path(__file__).resolve().parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def silent(*words: Any) -> None:
    pass


def test_every_example_is_tested_here() -> None:
    source = Path(__file__).read_text()
    for path in FOLDER.glob("*.py"):
        assert f'load("{path.stem}")' in source, path.name


def test_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("digits").main() > 0.93


def test_tables(tmp_path: Path) -> None:
    """Text, gaps, an id and a name; the score is well above that of the larger class."""
    words: list[Any] = []
    scores = load("tables").main(tmp_path, say=lambda *w: words.extend(w))
    assert scores["roc_auc"] > 0.85
    assert scores["f1"] > 0.65
    assert any("port missing" in str(word) for word in words)
    predicted, true = words[-2:]
    assert {*predicted} | {*true} <= {"yes", "no"}


@pytest.mark.parametrize("loss", ["softmax", "squared"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid", "identity"])
def test_numpy_alone(activation: str, loss: str, tmp_path: Path) -> None:
    example = load("numpy_alone")
    rng = np.random.default_rng(0)
    x = rng.uniform([20, 1e4], [70, 9e4], (50, 2))
    t = x @ [[3.0, 1.0, 2.0], [1.0, 5.0, 2.0]]
    model = xpnet.Model(
        xpnet.mlp([2, 7, 5, 3], activation, loss=loss, seed=1),
        dtype="float64",
        scaling=xpnet.data.standardize(x),
        target_scaling=xpnet.data.standardize(t) if loss == "squared" else None,
    )
    model.save(tmp_path / "model.npz")
    expected = model.predict(x) if loss == "squared" else model.predict_proba(x)
    np.testing.assert_allclose(example.predict(tmp_path / "model.npz", x), expected, rtol=1e-12)


def test_numpy_alone_needs_no_xpnet(tmp_path: Path) -> None:
    """It predicts, to the rounding of float32, in a process that cannot import xpnet."""
    example = load("numpy_alone")
    model, x = example.train(tmp_path)
    np.save(tmp_path / "x.npy", x)
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import runpy, sys; sys.modules['xpnet'] = None; print(runpy.run_path(sys.argv[1])"
            "['predict'](*sys.argv[2:3], __import__('numpy').load(sys.argv[3])).tolist())",
            *map(str, (FOLDER / "numpy_alone.py", model, tmp_path / "x.npy")),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = xpnet.Model.load(model).predict_proba(x)
    np.testing.assert_allclose(json.loads(run.stdout), expected, rtol=1e-5, atol=1e-7)


def test_numpy_alone_reads_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text, truth values, gaps in numbers and categories, and the threshold of a model."""
    example = load("numpy_alone")
    path, model = tmp_path / "passengers.csv", tmp_path / "model.npz"
    load("tables").write_passengers(path)
    data = xpnet.datasets.load_file(path, label_column="survived", drop=["name", "id"])
    encoder = xpnet.data.Encoder.of(data.x, most=2)
    trainer = xpnet.Trainer(xpnet.mlp([encoder.width, 5, 2]), encoder=encoder, classes=data.classes)
    trainer.fit(data.x, data.t, epochs=1)
    trainer.model.threshold = 0.4
    trainer.save(model)
    example.main([str(model), str(path)])
    answers = [line.split() for line in capsys.readouterr().out.splitlines()]
    expected = trainer.predict_proba(data.x)
    np.testing.assert_allclose(
        [[float(p) for p in row[1:]] for row in answers], expected, rtol=2e-3, atol=1e-6
    )
    predicted = [trainer.classes[i] for i in (expected[:, 1] >= 0.4).astype(int)]
    assert [row[0] for row in answers] == predicted


def test_quantiles(tmp_path: Path) -> None:
    """Nine of ten deliveries lie in the interval, on short trips and on long ones."""
    scores = load("quantiles").main(say=silent)
    assert scores["inside"] == pytest.approx(0.9, abs=0.03)
    assert scores["inside, short trips"] == pytest.approx(0.9, abs=0.04)
    assert scores["inside, long trips"] == pytest.approx(0.9, abs=0.04)
    assert scores["below"] + scores["inside"] + scores["above"] == pytest.approx(1)


def test_chapter4_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Its values against the formulas: tests/test_explain.py. Here, what is printed."""
    table = load("chapter4_table").main()
    out = capsys.readouterr().out
    assert table["y"].shape == (100, 10)
    assert out.count("by hand: largest difference") == 7
    assert all(float(line.split()[-1]) < 1e-15 for line in out.splitlines() if "by hand:" in line)


def test_fc_sigmoid_fc() -> None:
    """The δ rules, row by row, in loops over samples, as the document's sums are meant."""
    example = load("fc_sigmoid_fc")
    graph, inputs = example.network(), example.data()
    trace = graph.trace(inputs)
    x, t, W1, b1, W2, b2 = (inputs[n] for n in ("x_input", "y", "W_fc1", "b_fc1", "W_fc2", "b_fc2"))
    E, dW1, db1, dW2, db2 = 0.0, 0 * W1, 0 * b1, 0 * W2, 0 * b2
    for xi, ti in zip(x, t, strict=True):
        sig = 1 / (1 + np.exp(-(xi @ W1 + b1)))
        delta4 = sig @ W2 + b2 - ti
        E += 0.5 * float(delta4 @ delta4)
        up2 = sig * (1 - sig) * (W2 @ delta4)
        dW2 += np.outer(sig, delta4)
        db2 += delta4
        dW1 += np.outer(xi, up2)
        db1 += up2
    assert float(trace.values["SquaredLoss1"]) == pytest.approx(E, rel=1e-14)
    for name, hand in (("W_fc1", dW1), ("b_fc1", db1), ("W_fc2", dW2), ("b_fc2", db2)):
        np.testing.assert_allclose(trace.grads[name], hand, rtol=1e-12, atol=1e-13)
    for name, hand in example.deltas(trace).items():
        np.testing.assert_allclose(trace.grads[name], hand, rtol=1e-14)
    assert example.main(steps=200, say=silent) < 0.2


def test_layer_by_layer() -> None:
    """The document's backward, with samples as columns and W A + b, in plain NumPy."""
    example = load("layer_by_layer")
    x, y = example.data()
    network = example.xpnet.mlp(example.LAYERS, example.ACTIVATIONS, loss="squared", seed=0)
    trace = network.graph.trace({**network.params, "x": x, "t": y}, network.loss)
    g = {
        "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
        "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2),
        "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1, 0.01)),
        "identity": (lambda z: z, lambda z: 1.0),
    }
    L, m = len(example.ACTIVATIONS), len(x)
    A, Z, W = [x.T], [], []
    for layer, kind in enumerate(example.ACTIVATIONS, 1):
        W.append(network.params[f"W{layer}"].T)
        Z.append(W[-1] @ A[-1] + network.params[f"b{layer}"][:, None])
        A.append(g[kind][0](Z[-1]))
    assert float(trace.values["SquaredLoss1"]) == pytest.approx(((A[-1] - y.T) ** 2).sum() / 2 / m)
    dA = A[-1] - y.T
    for layer in range(L, 0, -1):
        np.testing.assert_allclose(trace.values[f"Affine{layer}"], Z[layer - 1].T, atol=1e-14)
        dZ = dA * g[example.ACTIVATIONS[layer - 1]][1](Z[layer - 1])
        np.testing.assert_allclose(trace.grads[f"Affine{layer}"], dZ.T / m, atol=1e-15)
        dW, db = dZ @ A[layer - 1].T / m, dZ.sum(axis=1) / m
        np.testing.assert_allclose(trace.grads[f"W{layer}"], dW.T, atol=1e-14)
        np.testing.assert_allclose(trace.grads[f"b{layer}"], db, atol=1e-14)
        dA = W[layer - 1].T @ dZ
    lines: list[str] = []
    J, steps = example.main((2, 6, 1), ("tanh", "identity"), say=lines.append)
    assert J < 0.01
    assert steps < 100_000  # it has converged
    assert "(40, 6)" in lines[2]
    assert len(lines) == 5


def test_lecture4_circuits(tmp_path: Path) -> None:
    example = load("lecture4_circuits")
    words: list[str] = []
    traces = example.main(tmp_path, steps=20, say=lambda *w: words.append(" ".join(map(str, w))))
    value = {name: float(trace.values[trace.output]) for name, trace in traces.items()}
    assert value["circuit"] == -12
    assert {k: float(traces["circuit"].grads[k]) for k in "xyz"} == {"x": -4, "y": -4, "z": 3}
    # The slide rounds each number to two digits, and goes on with what it has rounded.
    assert value["neuron"] == pytest.approx(0.73, abs=5e-3)
    slide = {"w0": -0.2, "x0": 0.39, "w1": -0.39, "x1": -0.59, "w2": 0.2}
    for name in ("neuron", "neuron_as_one_gate"):
        for variable, gradient in slide.items():
            assert float(traces[name].grads[variable]) == pytest.approx(gradient, abs=5e-3)
    assert value["l2"] == pytest.approx(0.116)
    np.testing.assert_allclose(traces["l2"].grads["W"], [[0.088, 0.176], [0.104, 0.208]])
    np.testing.assert_allclose(traces["l2"].grads["x"], [-0.112, 0.636])
    assert {p.name for p in tmp_path.iterdir()} == {f"{name}.svg" for name in traces}
    assert any("nothing beside it" in line for line in words)


def test_svm_loss_of_the_lecture() -> None:
    """The graph against loops over samples and classes, and against the loss as one gate."""
    example = load("lecture4_circuits")
    graph, inputs = example.svm()
    x, W, t = (inputs[name] for name in "xWt")
    trace = graph.trace(inputs)
    s = x @ W
    loss, dW = 0.0, 0 * W
    for n in range(len(x)):
        for j in range(3):
            if j != t[n] and (margin := s[n, j] - s[n, t[n]] + 1) > 0:
                loss += margin / len(x)
                dW[:, j] += x[n] / len(x)
                dW[:, t[n]] -= x[n] / len(x)
    assert float(trace.values[trace.output]) == pytest.approx(loss + 0.1 * (W**2).sum())
    np.testing.assert_allclose(trace.grads["W"], dW + 0.2 * W)
    gate = example.xpnet.losses.HingeLoss()
    assert float(gate.forward(s, t)[0]) == pytest.approx(loss)


def test_twenty_lines() -> None:
    """The lecture's net: from about 4e4 down to single digits, and step by step as in NumPy."""
    losses = load("lecture4_circuits").twenty_lines()
    assert 2e4 < losses[0] < 8e4
    assert 0.5 < losses[-1] < 10
    assert (np.diff(losses) < 0).mean() > 0.99

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 1000)), rng.standard_normal((64, 10))
    w1, w2 = rng.standard_normal((1000, 100)), rng.standard_normal((100, 10))
    for expected in losses[:100]:
        h = 1 / (1 + np.exp(-x.dot(w1)))
        y_pred = h.dot(w2)
        assert expected == pytest.approx(np.square(y_pred - y).sum(), rel=1e-8)
        grad_y_pred = 2.0 * (y_pred - y)
        grad_w2 = h.T.dot(grad_y_pred)
        grad_h = grad_y_pred.dot(w2.T)
        w1 -= 1e-4 * x.T.dot(grad_h * h * (1 - h))
        w2 -= 1e-4 * grad_w2


def test_sklearn_grid_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert load("sklearn_grid_search").main(tmp_path) > 0.95
    assert (tmp_path / "sklearn_grid_search.png").read_bytes().startswith(b"\x89PNG")
    assert "best: {'mlp__dropout'" in capsys.readouterr().out


def test_sklearn_grid_search_finds_what_scikit_learn_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search without dropout, with the classifier of either library."""
    theirs = pytest.importorskip("sklearn.neural_network", reason="scikit-learn is not installed")
    example = load("sklearn_grid_search")
    X, y = example.load_digits(return_X_y=True)
    monkeypatch.setattr(example, "GRID", {"mlp__alpha": [1.0]})
    ours = example.search().fit(X[:300], y[:300]).cv_results_
    monkeypatch.setattr(example, "MLPClassifier", theirs.MLPClassifier)
    expected = example.search().fit(X[:300], y[:300]).cv_results_
    np.testing.assert_array_equal(ours["mean_test_score"], expected["mean_test_score"])


def test_sklearn_text() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    scores = load("sklearn_text").main(say=silent)
    assert scores["the largest class"] == 0.25
    assert scores["MLPClassifier"] > 0.7


@pytest.mark.mnist
@pytest.mark.slow  # 2,000 steps and four looks at all of MNIST
def test_chapter5_layers(mnist_dir: Path) -> None:
    example = load("chapter5_layers")
    train, test = example.load_mnist(mnist_dir)
    assert train[0].shape == (60_000, 784)
    assert example.gradient_check(*train, say=silent) < 2e-7
    # A fifth of the document's 10,000 iterations; docs/chapter5_layers.md has the whole curve.
    accuracies = example.train(train, test, 2000, say=silent)
    assert len(accuracies) == 4
    assert accuracies[0][1] < 0.3
    assert accuracies[-1][1] > 0.92
