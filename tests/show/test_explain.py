"""The table of variables: against the document's formulas, by hand, and its own words."""

from __future__ import annotations

import html.parser
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CASES, Case
from conftest import Library
from counted import Counted

import xpnet
from xpnet import functions as fn
from xpnet import gates, layers, losses
from xpnet.commands import explain as command
from xpnet.commands import train
from xpnet.graph import Graph
from xpnet.models import Network
from xpnet.show.explain.formulas import gradient_of, value_of
from xpnet.show.notes import NOTES

RNG = np.random.default_rng(0)
X, LABELS = RNG.random((100, 784)), RNG.integers(0, 10, 100)

# Name in the code, in the theory, and shape at batch 100, as the document lists them.
DOCUMENT = {
    "a1": ("x₁", (100, 50)),
    "z1": ("y₁", (100, 50)),
    "a2": ("x₂", (100, 10)),
    "y": ("y₂", (100, 10)),
    "da1": ("∂E/∂x₂ · w₂₁", (100, 50)),
    "dz1": ("∂E/∂x₁", (100, 50)),
    "dy": ("∂E/∂x₂", (100, 10)),
    "z1.T": ("y₁", (50, 100)),
    "grads['b2']": ("∂E/∂x₂", (10,)),
    "grads['W2']": ("∂E/∂w₂₁", (50, 10)),
    "grads['W1']": ("∂E/∂w₁₀", (784, 50)),
    "grads['b1']": ("∂E/∂x₁", (50,)),
}


def by_hand(p: dict[str, np.ndarray], x: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
    """The book's TwoLayerNet.gradient, chapter 4."""
    v: dict[str, np.ndarray] = {"x": x}
    v["a1"] = x @ p["W1"] + p["b1"]
    v["z1"] = 1 / (1 + np.exp(-v["a1"]))
    v["a2"] = v["z1"] @ p["W2"] + p["b2"]
    v["y"] = np.exp(v["a2"]) / np.exp(v["a2"]).sum(axis=1, keepdims=True)
    v["E"] = -np.log((v["y"] * t).sum(axis=1)).mean()
    v["dy"] = (v["y"] - t) / 100
    v["grads['W2']"] = v["z1"].T @ v["dy"]
    v["grads['b2']"] = v["dy"].sum(axis=0)
    v["da1"] = v["dy"] @ p["W2"].T
    v["dz1"] = v["da1"] * v["z1"] * (1 - v["z1"])
    v["grads['W1']"] = x.T @ v["dz1"]
    v["grads['b1']"] = v["dz1"].sum(axis=0)
    v["z1.T"], v["x.T"] = v["z1"].T, x.T
    return {**v, **p}


@pytest.mark.parametrize("one_hot", [False, True])
def test_the_document_s_table(one_hot: bool) -> None:
    network = xpnet.two_layer_net(784, 50, 10, seed=3)
    t = np.eye(10)[LABELS]
    table = xpnet.explain(network, X, t if one_hot else LABELS)
    expected = by_hand(network.params, X, t)
    assert {v.name for v in table.variables} == expected.keys() | {"t"}
    for name, value in expected.items():
        assert table[name].shape == np.shape(value), name
        np.testing.assert_allclose(table[name].value, value, rtol=1e-9, atol=1e-18, err_msg=name)
    for name, (theory, shape) in DOCUMENT.items():
        assert theory in table[name].theory, name
        assert table[name].shape == shape, name


def test_the_document_s_formulas() -> None:
    table = xpnet.explain(xpnet.two_layer_net(784, 50, 10), X, LABELS)
    formulas = {v.name: v.formula for v in table.variables}
    assert formulas["a1"] == "x W1 + b1"
    assert formulas["z1"] == "1 / (1 + exp(-a1))"
    assert formulas["y"] == "softmax(a2)"
    assert formulas["dy"] == "(y - t) / 100"
    assert formulas["grads['W2']"] == "z1ᵀ dy"
    assert formulas["da1"] == "dy W2ᵀ"
    assert formulas["dz1"] == "da1 · z1 (1 - z1)"


SUPERSCRIPT = str.maketrans({"ᵀ": ".T", "²": "**2"})


def evaluated(formula: str, names: dict[str, Any]) -> Any:
    """A formula of the table as Python: products of matrices are written side by side."""
    text = re.sub(r"grads\['(\w+)'\]", r"grad_\1", formula.translate(SUPERSCRIPT))
    text = re.sub(r"Σₙ (\w+)", r"np.sum(\1, axis=0)", text).replace("·", "*")
    text = re.sub(r"(.*) where (.*), else (.*)", r"np.where(\2, \1, \3)", text)
    text = re.sub(r"exp\(", "np.exp(", text)
    text = re.sub(r"\btanh (\w+)", r"np.tanh(\1)", text)
    text = re.sub(r"\bmax\(", "np.maximum(", text)
    text = re.sub(r"^([\w.]+) ([\w.]+)( \+ \w+)?$", r"\1 @ \2\3", text)
    text = re.sub(r"(\w) \(1 - ", r"\1 * (1 - ", text)
    text = re.sub(r"([\d.]+) (d?[azh]\d)", r"\1 * \2", text)
    return eval(text, {"np": np, "softmax": softmax, **names})


def softmax(a: np.ndarray) -> np.ndarray:
    e: np.ndarray = np.exp(a - a.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("loss", ["softmax", "squared", "sigmoid"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "leaky_relu", "identity"])
def test_every_formula_gives_the_value_beside_it(loss: str, activation: str) -> None:
    network = xpnet.mlp([7, 5, 4, 3], activation, loss=loss, seed=1)
    t = np.eye(3)[LABELS[:6] % 3]
    table = xpnet.explain(network, RNG.standard_normal((6, 7)), t)
    names = {v.name: v.value for v in table.variables if v.name.isidentifier()}
    checked = 0
    for variable in table.variables:
        if variable.name == "E" or variable.formula in ("parameter", "targets", "the batch"):
            continue
        value = evaluated(variable.formula, names)
        np.testing.assert_allclose(variable.value, value, rtol=1e-9, err_msg=variable.name)
        checked += 1
    # a, y, dy, dz, six parameters, three transposes; z and da of both hidden layers
    assert checked == 16 + (4 if activation != "identity" else 0)


def test_weights_and_dropout_are_in_the_formulas() -> None:
    network = xpnet.mlp([7, 5, 3], "tanh", dropout=0.5)
    x, w = RNG.standard_normal((6, 7)), RNG.uniform(0.5, 2.0, 6)
    t = np.eye(3)[LABELS[:6] % 3]
    table = xpnet.explain(network, x, t, weight=w, step=np.array([1], np.int32))
    assert table["dy"].formula == "(y - t) · weight / Σ weight"
    expected = (table["y"].value - t) * (w / w.sum())[:, None]
    np.testing.assert_allclose(table["dy"].value, expected)
    assert table["h1"].formula == "z1 m / (1 - 0.5)"
    assert table["a2"].formula == "h1 W2 + b2"
    assert "da1" in str(table)


def test_a_network_of_one_s_own_keeps_its_names() -> None:
    graph = Graph()
    x, t, W, c = graph.inputs("x t W c")
    y = graph.apply(gates.Mul(), fn.exp(x @ W), c, name="scaled")
    loss = fn.squared_loss(y, t, reduction="sum")
    params = {"W": RNG.standard_normal((4, 2)), "c": np.ones(2)}
    network = Network(graph, params, y, loss)
    table = xpnet.explain(network, RNG.standard_normal((5, 4)), RNG.standard_normal((5, 2)))
    assert table["scaled"].formula == "Exp1 · c"
    assert table["dy"].formula == "(y - t)"
    assert table["grads['c']"].formula == "Σ (dy · Exp1)"
    assert table["dExp1"].formula == "dy · c"
    assert table["grads['W']"].formula == "xᵀ dMatMul1"
    with pytest.raises(KeyError, match="no variable 'q'; there are x, "):
        table["q"]


def test_a_regularizer_beside_the_loss() -> None:
    graph = Graph()
    x, t, W, b = graph.inputs("x t W b")
    scores = x @ W + b
    loss = fn.softmax_with_loss(scores, t) + 0.01 * fn.squared_norm(W)
    params = {"W": RNG.standard_normal((4, 3)), "b": np.zeros(3)}
    table = xpnet.explain(Network(graph, params, scores, loss), RNG.random((5, 4)), LABELS[:5] % 3)
    assert table["y"].formula == "softmax(Add1)"
    np.testing.assert_allclose(table["y"].value.sum(axis=1), 1)
    assert table["dy"].formula == "(y - t) / 5 · dSoftmaxWithLoss1"
    assert table["dSoftmaxWithLoss1"].formula == "1"
    assert table["grads['W']"].formula == "xᵀ dMatMul1 + 2 W · dSquaredNorm1"
    assert table["dSquaredNorm1"].formula == "0.01 · dScale1"
    assert table["dScale1"].formula == "1"
    # the bias was repeated for each sample
    assert table["grads['b']"].formula == "Σ (dy)"
    names = {v.name for v in table.variables}
    for variable in table.variables:
        for name in re.findall(r"\bd[A-Z]\w+", variable.formula):
            assert name in names
    # W, in two gates, is 12 numbers
    assert sum(cost.parameters for cost in table.costs) == 15


def test_two_losses_and_a_fork() -> None:
    """The second loss is about another answer; parts that have commas are in brackets."""
    graph = Graph()
    x, t, W, b, V, c = graph.inputs("x t W b V c")
    a = fn.affine(x, W, b)
    z = fn.relu(a)
    scores = fn.affine(z, V, c)
    loss = fn.squared_loss(scores, t) + 0.3 * fn.squared_loss(a, z)
    params = {"W": RNG.random((4, 3)), "b": np.zeros(3), "V": RNG.random((3, 2)), "c": np.zeros(2)}
    table = xpnet.explain(
        Network(graph, params, scores, loss), RNG.standard_normal((5, 4)), RNG.random((5, 2))
    )
    assert table["SquaredLoss2"].formula == "½ Σ (a1 - z1)² / 5"
    assert table["dz1"].formula == ("(da1 where a1 > 0, else 0) + (a1 - z1) / 5 · dSquaredLoss2")
    assert table["da1"].formula == "dy Vᵀ + (z1 - a1) / 5 · dSquaredLoss2"


def test_a_y_of_the_user_s_and_a_parameter_without_axes() -> None:
    graph = Graph()
    x, t, W, s = graph.inputs("x t W s")
    y = ((x @ W) * s).named("y")
    loss = fn.sigmoid_with_loss(y, t)
    params = {"W": RNG.random((4, 1)), "s": np.asarray(1.3)}
    table = xpnet.explain(Network(graph, params, y, loss), RNG.random((6, 4)), np.arange(6) % 2)
    assert table["E"].formula == "-Σ (t ln answer + (1 - t) ln(1 - answer)) / 6"
    assert table["answer"].formula == "1 / (1 + exp(-y))"
    assert table["t"].formula == "targets"  # not one-hot: there is one output
    assert table["grads['s']"].formula == "Σ (dy · MatMul1)"


def test_dropout_that_is_not_on_does_nothing() -> None:
    network = xpnet.mlp([7, 5, 3], "tanh", dropout=0.5)
    table = xpnet.explain(network, RNG.standard_normal((6, 7)), LABELS[:6] % 3)
    assert (table["h1"].formula, table["da1"].formula) == ("z1", "dh1")
    cost = next(cost for cost in table.costs if cost.name == "Dropout1")
    assert (cost.forward, cost.backward) == (0, 0)


def test_bytes_are_the_parameters_own() -> None:
    network = xpnet.mlp([4, 3])
    params = {name: p.astype("float32") for name, p in network.params.items()}
    (cost, _) = xpnet.explain(network, np.ones((2, 4)), LABELS[:2] % 3, params).costs
    assert cost.parameter_bytes == 4 * 15
    assert cost.output_bytes == 8 * 6


def test_a_gate_without_a_formula_is_shown_as_its_call() -> None:
    class Swish(layers.Tanh):
        pass

    graph = Graph()
    x, t, W = graph.inputs("x t W")
    y = graph.apply(Swish(), x @ W)
    network = Network(graph, {"W": np.ones((4, 2))}, y, fn.squared_loss(y, t))
    table = xpnet.explain(network, np.ones((5, 4)), np.ones((5, 2)))
    assert table["Swish1"].formula == "Swish(MatMul1)"
    assert table["dMatMul1"].formula == "Swish.backward(dy)[0]"


def test_every_gate_has_a_formula_for_each_input() -> None:
    modules = (gates, layers, losses)
    public = [getattr(module, name) for module in modules for name in module.__all__]
    defined = {value for value in public if isinstance(value, type)}
    assert NOTES.keys() == defined - {gates.Gate}


def _evaluate(formula: str, names: dict[str, np.ndarray]) -> Any:
    """As `evaluated`, of the formulas of arithmetic gates."""
    text = formula.translate(SUPERSCRIPT).replace("·", "*")
    text = re.sub(r"(.*) where (.*), else (.*)", r"np.where(\2, \1, \3)", text)
    text = re.sub(r"\bmax\(", "np.maximum(", text)
    text = re.sub(r"^exp\(", "np.exp(", text)
    text = re.sub(r"^ln (\w+)", r"np.log(\1)", text)
    text = re.sub(r"^Σ (\w+)$", r"np.sum(\1)", text)
    text = re.sub(r"^mean of (\w+)$", r"np.mean(\1)", text)
    text = re.sub(r"^‖(\w+)‖", r"(np.sum(\1**2)**.5)", text)
    text = re.sub(r"(.*), repeated$", r"np.ones(a.shape) * \1", text).replace("/ n", "/ a.size")
    text = re.sub(r"^([\w.]+) ([\w.]+)$", r"\1 @ \2", text)
    text = re.sub(r"^2 (\w)", r"2 * \1", text)
    return eval(text, {"np": np, **names})


ARITHMETIC = [
    case
    for case in CASES
    if case.name in ("Add", "Sub", "Mul", "Div", "Max", "AtLeast", "Neg", "Scale", "Over", "Shift",
                     "Power whole", "Power root", "Power negative", "Exp", "Log", "Reciprocal",
                     "Reciprocal of another number", "Sum", "Mean", "SquaredNorm", "MatMul",
                     "Transpose")
]  # fmt: skip


@pytest.mark.parametrize("case", ARITHMETIC, ids=lambda case: case.name)
def test_formulas_of_arithmetic_give_the_gate_s_values(case: Case) -> None:
    inputs = case.inputs(np.random.default_rng(0))
    y, cache = case.gate.forward(*inputs)
    d = RNG.standard_normal(np.shape(y))
    names = {**dict(zip("ab", inputs, strict=False)), "y": y, "d": d}
    letters = list("ab"[: len(inputs)])
    np.testing.assert_allclose(_evaluate(value_of(case.gate, letters, "y", 1), names), y)
    for i, gradient in enumerate(case.gate.backward(cache, d)):
        formula = gradient_of(case.gate, i, letters, "y", "d", 1)
        np.testing.assert_allclose(_evaluate(formula, names), gradient)


@pytest.mark.parametrize("gate", losses.LOSSES.values())
def test_operations_of_losses_are_counted_right(gate: type) -> None:
    """Forward: what NumPy is asked to do, up to a few operations per row."""
    x = RNG.standard_normal((20, 200)).view(Counted)
    t = np.eye(200)[LABELS[:20]].view(Counted)
    Counted.count = 0
    _, cache = gate().forward(x, t)
    assert round(Counted.count / x.size) == NOTES[gate].flops[0]
    Counted.count = 0
    gate().backward(cache, 1.0, (True, False, False))  # as at the end of a graph
    assert round(Counted.count / x.size) == NOTES[gate].flops[1]


def test_costs_by_hand() -> None:
    network = xpnet.mlp([784, 50, 10], "sigmoid")
    params = {name: p.astype("float32") for name, p in network.params.items()}
    first, sigmoid, second, loss = xpnet.explain(network, X.astype("float32"), LABELS, params).costs
    assert (first.parameters, second.parameters) == (784 * 50 + 50, 50 * 10 + 10)
    assert first.parameter_bytes == 4 * 39_250
    assert first.forward == 2 * 100 * 784 * 50 + 100 * 50
    assert first.backward == 2 * 100 * 784 * 50 + 100 * 50  # no gradient of the data
    assert second.backward == 2 * 2 * 100 * 50 * 10 + 100 * 10
    assert (sigmoid.output_bytes, loss.output_bytes) == (4 * 100 * 50, 4)


def test_on_every_library(library: Library) -> None:
    network = xpnet.mlp([6, 5, 3], "tanh")
    params = {name: library.asarray(p.astype("float32")) for name, p in network.params.items()}
    x, t = X[:4, :6].astype("float32"), LABELS[:4].astype("int32") % 3
    table = xpnet.explain(network, library.asarray(x), library.asarray(t), params)
    expected = xpnet.explain(
        network, x, t, {name: p.astype("float32") for name, p in network.params.items()}
    )
    assert table.costs == expected.costs
    for a, b in zip(table.variables, expected.variables, strict=True):
        assert a[:4] == b[:4]
        np.testing.assert_allclose(library.to_numpy(a.value), b.value, atol=1e-5)
    assert len(str(table).splitlines()) == len(str(expected).splitlines())


class Cells(html.parser.HTMLParser):
    """Counts the cells of each row, and minds that elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[int] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append(0)
        self.rows[-1:] = [self.rows[-1] + (tag in ("td", "th"))] if self.rows else []
        if tag not in ("meta", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_text_markdown_and_html_say_the_same() -> None:
    table = xpnet.explain(xpnet.two_layer_net(784, 50, 10), X, LABELS)
    variables, costs = table.tables()
    for words in (str(table), table.markdown(), table._repr_html_()):
        for name in ("a1", "∂E/∂w₂₁", "39,760"):
            assert name in words
    cells = Cells()
    cells.feed(table.html())
    assert cells.open == []
    assert cells.rows == [5] * (1 + len(variables.rows)) + [7] * (1 + len(costs.rows))
    rows = [line for line in table.markdown().splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6, 8}
    lines = str(table).splitlines()
    assert max(map(len, lines[: len(variables.rows) + 2])) == len(lines[1])


# -- The command ---------------------------------------------------------------------------


def test_command(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--hidden", "5,4", "--inputs", "6", "--draw", "net.svg"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "grads['W3']" in out
    assert out.rstrip().endswith("drew net.svg")
    assert Path("net.svg").read_text().startswith("<svg")
    for form, start in (("markdown", "| name |"), ("html", "<!doctype html>"), ("text", "name ")):
        assert command.main(["--format", form, "--out", "t.out"]) == 0
        assert Path("t.out").read_text("utf-8").startswith(start)
        assert capsys.readouterr().out == "wrote t.out\n"


@pytest.mark.parametrize(
    "options",
    [
        ("--loss", "squared", "--outputs", "1", "--hidden", ""),
        ("--loss", "sigmoid", "--outputs", "1"),
        ("--loss", "hinge", "--dropout", "0.5", "--dtype", "float64"),
        ("--activation", "relu,tanh", "--hidden", "9,8", "--batch-size", "1"),
    ],
)
def test_command_takes_every_network(
    options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--inputs", "5", *options]) == 0
    out = capsys.readouterr().out
    assert "grads['W1']" in out
    assert "nan" not in out


def test_command_explains_a_trained_network(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--device", "cpu", "--epochs", "1", "--hidden", "7", "--out", "run",
                       "--quiet"]) == 0  # fmt: skip
    assert command.main(["--model", "run"]) == 0
    out = capsys.readouterr().out
    W1 = xpnet.Trainer.load("run/model.npz").params["W1"]
    norm = f"{math.sqrt(float((W1.astype('float64') ** 2).sum())):.4g}"
    assert re.search(rf"W1 .* \(64, 7\) .* {re.escape(norm)}\n", out)
    Path("run/model.npz").unlink()  # a run that was stopped has checkpoints only
    assert command.main(["--model", "run"]) == 0
    assert capsys.readouterr().out == out
    # on its own data, scaled as it has learned them: digits from 0 to 16 become 0 to 1
    assert command.main(["--model", "run", "--dataset", "digits"]) == 0
    x = xpnet.datasets.load("digits")[0].x[:100].astype("float64") / 16
    out = capsys.readouterr().out
    assert re.search(rf"x .* the batch .* {np.linalg.norm(x):.4g}\n", out)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--inputs", "0"), "--inputs is 0; expected a whole number, from 1 to"),
        (("--outputs", "1"), "--loss softmax needs --outputs 2 or more, got 1"),
        (("--dropout", "1"), "--dropout 1.0: expected 0 <= ratio < 1"),
        (("--activation", "relu,tanh,relu"), "3 activations for 2 layers"),
        (("--draw", "net.png"), "--draw net.png: expected a name ending with .svg, .dot or .mmd"),
        (("--model", "nothing.npz"), "nothing.npz"),
        (("--model", "nothing.npz", "--hidden", "3"), "--model has its own hidden; leave out"),
        (("--model", "nothing.npz", "--dropout", "0.5"), "--model has its own dropout; leave out"),
        (("--dataset", "digits", "--inputs", "3"), "--dataset sets the numbers of inputs"),
        (("--data-dir", "."), "--data-dir needs --dataset mnist"),
        (("--out", "a.svg", "--draw", "a.svg"), "--draw a.svg is also the file of --out"),
        (("--out", "a.txt", "--draw", "no/b.svg"), "the folder no does not exist"),
        (
            ("--out", "a.txt", "--draw", "a.svg", "--expand", "--hidden", ",".join(["2"] * 150)),
            "--draw a.svg: 606 boxes are too many to draw",
        ),
        (
            ("--out", "no/folder/t.txt"),
            "--out no/folder/t.txt: the folder no/folder does not exist",
        ),
    ],
)
def test_command_refuses_in_one_line(
    options: tuple[str, ...], words: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(list(options)) in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("xpnet: ")
    assert words in err
    assert err.count("\n") == 1
    assert not list(in_tmp.iterdir())


@pytest.mark.parametrize("dataset", ["random", "digits"])
def test_command_explains_a_trained_convolution_network(
    dataset: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, _ = xpnet.datasets.load("digits")
    network = xpnet.cnn((1, 8, 8), [3], [5], batch_norm=True)
    trainer = xpnet.Trainer(network, xpnet.optim.SGD(0.01), scaling=data.scaling)
    trainer.fit(data.x[:100], data.t[:100], epochs=1)
    trainer.save("m.npz")
    args = ["--model", "m.npz", "--dataset", dataset, "--batch-size", "6", "--draw", "m.svg"]
    assert command.main(args) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"^x +x +\(6, 1, 8, 8\)", out, re.MULTILINE)
    assert "x ∗ W1 (padding 1)" in out
    assert "statistic of the batches" in out
    assert re.search(r"^BatchNorm1 +\(6, 3, 8, 8\) +6 ", out, re.MULTILINE)  # gamma and beta
    assert "3×1×3×3" in Path("m.svg").read_text("utf-8")
