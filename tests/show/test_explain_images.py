"""The tables of convolution networks: against sums in plain loops, and costs on paper."""

from __future__ import annotations

import itertools
import re
import unicodedata
from typing import Any

import numpy as np
import pytest
from cases import CASES, Case
from counted import Counted

import xpnet
from xpnet import functions as fn
from xpnet import layers
from xpnet.graph import Graph
from xpnet.models import Network
from xpnet.models.cnn import PRESETS
from xpnet.show.explain import Explanation
from xpnet.show.explain.costs import flops
from xpnet.show.explain.formulas import gradient_of, value_of

RNG = np.random.default_rng(0)
STEP = np.array([3], np.int32)


# -- Convolution, pooling and batch normalization in plain loops ------------------------


def conv(
    x: np.ndarray,
    W: np.ndarray,
    stride: Any = (1, 1),
    padding: Any = (0, 0),
    dilation: Any = (1, 1),
) -> np.ndarray:
    """Sum of products at every place where the filters fit."""
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    kh, kw = W.shape[2:]
    rows = range(0, x.shape[2] - dh * (kh - 1), sh)
    columns = range(0, x.shape[3] - dw * (kw - 1), sw)
    y = np.zeros((len(x), len(W), len(rows), len(columns)))
    for n, f, (r, i), (c, j) in itertools.product(
        range(len(x)), range(len(W)), enumerate(rows), enumerate(columns)
    ):
        window = x[n, :, i : i + dh * (kh - 1) + 1 : dh, j : j + dw * (kw - 1) + 1 : dw]
        y[n, f, r, c] = np.sum(window * W[f])
    return y


def first_max(x: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Give d to the first largest number of each window of 2 x 2."""
    dx = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*d.shape):
        window = x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = divmod(int(np.argmax(window)), 2)
        dx[n, c, 2 * i + row, 2 * j + column] += d[n, c, i, j]
    return dx


def by_hand(p: dict[str, np.ndarray], x: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
    """cnn((2, 6, 6), [3], [4], batch_norm=True), forward and backward."""
    v: dict[str, np.ndarray] = {"x": x, **p}

    def normalize(i: int, shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[Any, Any]:
        a = v[f"a{i}"]
        spread = np.sqrt(a.var(axis=axes).reshape(shape) + 1e-5)
        u = (a - a.mean(axis=axes).reshape(shape)) / spread
        v[f"n{i}"] = p[f"gamma{i}"].reshape(shape) * u + p[f"beta{i}"].reshape(shape)
        return u, spread

    def back(i: int, u: Any, spread: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
        d = v[f"dn{i}"]
        v[f"grads['gamma{i}']"], v[f"grads['beta{i}']"] = (d * u).sum(axis=axes), d.sum(axis=axes)
        means = [m.mean(axis=axes).reshape(shape) for m in (d, d * u)]
        v[f"dz{i}"] = p[f"gamma{i}"].reshape(shape) / spread * (d - means[0] - u * means[1])

    image, row = ((1, 3, 1, 1), (0, 2, 3)), ((1, 4), (0,))
    v["a1"] = conv(x, p["W1"], padding=(1, 1))
    u1, spread1 = normalize(1, *image)
    v["p1"] = v["n1"].reshape(len(x), 3, 3, 2, 3, 2).max(axis=(3, 5))
    v["z1"] = np.maximum(v["p1"], 0)
    v["Flatten1"] = v["z1"].reshape(len(x), -1)
    v["a2"] = v["Flatten1"] @ p["W2"]
    u2, spread2 = normalize(2, *row)
    v["z2"] = np.maximum(v["n2"], 0)
    v["a3"] = v["z2"] @ p["W3"] + p["b3"]
    v["y"] = np.exp(v["a3"]) / np.exp(v["a3"]).sum(axis=1, keepdims=True)
    v["E"] = -np.log((v["y"] * t).sum(axis=1)).mean()

    v["dy"] = (v["y"] - t) / len(x)
    v["grads['W3']"], v["grads['b3']"] = v["z2"].T @ v["dy"], v["dy"].sum(axis=0)
    v["da2"] = v["dy"] @ p["W3"].T
    v["dn2"] = v["da2"] * (v["n2"] > 0)
    back(2, u2, spread2, *row)
    v["grads['W2']"] = v["Flatten1"].T @ v["dz2"]
    v["dFlatten1"] = v["dz2"] @ p["W2"].T
    v["da1"] = v["dFlatten1"].reshape(v["z1"].shape)
    v["dp1"] = v["da1"] * (v["p1"] > 0)
    v["dn1"] = first_max(v["n1"], v["dp1"])
    back(1, u1, spread1, *image)
    # The weight's gradient: the images as batches of channels, the gradient as filters.
    v["grads['W1']"] = conv(x.swapaxes(0, 1), v["dz1"].swapaxes(0, 1), padding=(1, 1)).swapaxes(
        0, 1
    )
    return v | {"Flatten1.T": v["Flatten1"].T, "z2.T": v["z2"].T}


def network() -> Network:
    made = xpnet.cnn((2, 6, 6), [3], [4], 3, batch_norm=True, seed=1)
    for name in ("gamma1", "beta1", "gamma2", "beta2", "b3"):
        made.params[name] = RNG.uniform(0.5, 1.5, made.params[name].shape)
    return made


def test_every_value_is_that_of_plain_loops() -> None:
    net, x, t = network(), RNG.standard_normal((5, 2, 6, 6)), np.eye(3)[[0, 2, 1, 1, 0]]
    table = xpnet.explain(net, x, t, step=STEP)
    expected = by_hand(net.params, x, t)
    known = expected.keys() | {"t", "step", *net.statistics}
    assert {v.name for v in table.variables} == known
    for name, value in expected.items():
        np.testing.assert_allclose(table[name].value, value, rtol=1e-8, atol=1e-15, err_msg=name)


FORMULAS = {
    "a1": ("x₁", "x ∗ W1 (padding 1)"),
    "n1": ("n₁", "gamma1 x̂ + beta1, x̂ = (a1 - μ) / √(σ² + 1e-05)"),
    "p1": ("p₁", "max of each window of n1 (2×2)"),
    "z1": ("y₁", "max(0, p1)"),
    "Flatten1": ("Flatten1", "z1, a row per sample"),
    "a2": ("x₂", "Flatten1 W2"),
    "mean1": ("mean1", "statistic of the batches"),
    "gamma1": ("γ₁", "parameter"),
    "da1": ("∂E/∂y₁", "dFlatten1, in the shape of z1"),
    "dp1": ("∂E/∂p₁ = ∂E/∂y₁ · ∂y₁/∂p₁", "da1 where p1 > 0, else 0"),
    "dn1": ("∂E/∂n₁", "dp1 at the first max of each window, else 0"),
    "grads['gamma1']": ("∂E/∂γ₁", "Σ dn1 x̂"),
    "grads['beta1']": ("∂E/∂β₁", "Σ dn1"),
    "dz1": ("∂E/∂x₁", "gamma1 / √(σ² + 1e-05) · (dn1 - mean of dn1 - x̂ · mean of dn1 x̂)"),
    "grads['W1']": ("∂E/∂w₁₀ = ∂E/∂x₁ ∗ x", "Σₙ x ∗ dz1 (padding 1)"),
}  # fmt: skip


def test_the_words_of_every_new_gate() -> None:
    table = xpnet.explain(network(), RNG.random((5, 2, 6, 6)), np.arange(5) % 3, step=STEP)
    assert {name: (table[name].theory, table[name].formula) for name in FORMULAS} == FORMULAS
    text = str(table)
    assert "x ∗ W slides the filters W over the images x" in text
    assert "μ and σ² are mean and variance" in text
    # An accent above a letter takes no place of its own: all norms end in one column.
    lines = text.split("\n\n")[0].splitlines()
    wide = [sum(not unicodedata.combining(c) for c in line) for line in lines]
    assert max(wide) == len(lines[1])
    assert wide[[line.startswith("n1 ") for line in lines].index(True)] == len(lines[1])


def test_in_inference_and_of_one_value_the_statistics_count() -> None:
    net, x = network(), RNG.standard_normal((5, 2, 6, 6))
    net.statistics["mean1"][:], net.statistics["var1"][:] = 0.3, 2.0
    table = xpnet.explain(net, x, np.arange(5) % 3)
    formula = "gamma1 (a1 - mean1) / √(var1 + 1e-05) + beta1"
    assert table["n1"].formula == formula
    gamma, beta = (net.params[name][:, None, None] for name in ("gamma1", "beta1"))
    expected = gamma * (table["a1"].value - 0.3) / np.sqrt(2.0 + 1e-5) + beta
    np.testing.assert_allclose(table["n1"].value, expected)
    assert table["dz1"].formula == "dn1 · gamma1 / √(var1 + 1e-05)"
    d, scale = table["dn1"].value, gamma / np.sqrt(2.0 + 1e-5)
    np.testing.assert_allclose(table["dz1"].value, d * scale)
    assert table["grads['gamma1']"].formula == "Σ dn1 (a1 - mean1) / √(var1 + 1e-05)"
    np.testing.assert_allclose(
        table["grads['gamma1']"].value,
        np.sum(d * (table["a1"].value - 0.3) / np.sqrt(2.0 + 1e-5), axis=(0, 2, 3)),
    )
    assert "μ" not in str(table)
    # One sample is many pixels, but one value for each feature of an affine layer.
    alone = xpnet.explain(net, x[:1], np.array([1]), step=STEP)
    assert alone["n1"].formula.startswith("gamma1 x̂")
    assert alone["n2"].formula == "gamma2 (a2 - mean2) / √(var2 + 1e-05) + beta2"


def test_pools_without_settings_of_their_own_and_layers_without_a_bias() -> None:
    graph = Graph()
    x, t, W, V = graph.inputs("x t W V")
    h = fn.average_pool(fn.tanh(fn.convolution(x, W, stride=2)), 3, 2, 1)
    scores = fn.affine(fn.global_average_pool(h), V)
    params = {"W": RNG.random((4, 2, 3, 3)), "V": RNG.random((4, 3))}
    net = Network(graph, params, scores, fn.softmax_with_loss(scores, t))
    table = xpnet.explain(net, RNG.random((2, 2, 9, 9)), np.array([0, 2]))
    assert table["a1"].formula == "x ∗ W (stride 2)"
    assert table["p1"].formula == "mean of each window of z1 (3×3, stride 2, padding 1)"
    assert table["GlobalAveragePool1"].formula == "mean of each channel of p1"
    assert table["a2"].formula == "GlobalAveragePool1 V"
    assert table["dp1"].formula == "dGlobalAveragePool1 / n, repeated"
    assert table["da1"].formula == "dp1 / n at each place of a window"
    assert table["grads['W']"].formula == "Σₙ x ∗ dz1 (dilation 2)"


# -- Formulas of convolutions, evaluated -----------------------------------------------

CONVOLUTIONS = [case for case in CASES if isinstance(case.gate, layers.Convolution)]


def evaluated(formula: str, names: dict[str, np.ndarray], gate: layers.Convolution) -> np.ndarray:
    """A formula of the table in plain loops: full, turned, and the settings in brackets."""
    settings = {
        name: (int(a), int(b or a))
        for name, a, b in re.findall(r"(stride|padding|dilation) (\d+)(?:×(\d+))?", formula)
    }
    if over := re.fullmatch(r"Σ (\w) over n, rows, columns", formula):
        return names[over[1]].sum(axis=(0, 2, 3))
    x, W, d = (names.get(name, np.zeros(())) for name in "xWd")
    if formula.startswith("full(d) ∗ turned(W)"):
        dilation = gate.settings[2]
        spread = full(d, x.shape, W.shape, gate)
        turned = W[:, :, ::-1, ::-1].swapaxes(0, 1)
        return conv(spread, turned, dilation=dilation)
    if formula.startswith("Σₙ x ∗ d"):
        sums = conv(x.swapaxes(0, 1), d.swapaxes(0, 1), **settings).swapaxes(0, 1)
        return sums[:, :, : W.shape[2], : W.shape[3]]  # a stride may leave out the last rows
    y = conv(x, W, **settings)
    assert formula.startswith("x ∗ W")
    return y + names["b"][:, None, None] if " + b" in formula else y


def full(d: np.ndarray, x: Any, W: Any, gate: layers.Convolution) -> np.ndarray:
    """Zeros between the numbers of d for a stride, and around it, so that x's shape results."""
    stride, padding, dilation = gate.settings
    reach = [dilation[a] * (W[2 + a] - 1) for a in (0, 1)]
    wide = np.zeros((*d.shape[:2], *(x[2 + a] + 2 * padding[a] + reach[a] for a in (0, 1))))
    for i, j in np.ndindex(*d.shape[2:]):
        wide[:, :, reach[0] + i * stride[0], reach[1] + j * stride[1]] = d[:, :, i, j]
    rows, columns = (slice(padding[a], padding[a] + x[2 + a] + reach[a]) for a in (0, 1))
    return wide[:, :, rows, columns]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=lambda case: case.name)
def test_formulas_of_convolutions_give_the_gate_s_values(case: Case) -> None:
    inputs = case.inputs(np.random.default_rng(0))
    y, cache = case.gate.forward(*inputs)
    d = RNG.standard_normal(y.shape)
    letters = list("xWb"[: len(inputs)])
    names: dict[str, Any] = {**dict(zip(letters, inputs, strict=True)), "d": d}
    formula = value_of(case.gate, letters, "y", 1)
    assert (" + b" in formula) == (len(inputs) == 3)
    np.testing.assert_allclose(evaluated(formula, names, case.gate), y, atol=1e-12)
    gradients = case.gate.backward(cache, d, [True] * len(inputs))
    for i, gradient in enumerate(gradients[: len(inputs)]):
        formula = gradient_of(case.gate, i, letters, "y", "d", 1)
        np.testing.assert_allclose(evaluated(formula, names, case.gate), gradient, atol=1e-12)


# -- Costs -----------------------------------------------------------------------------


def costs(table: Explanation) -> dict[str, tuple[int, int]]:
    return {cost.name: (cost.forward, cost.backward) for cost in table.costs}


def test_costs_of_the_book_s_network_on_paper() -> None:
    net = xpnet.cnn((1, 28, 28), **PRESETS["cnn"])
    table = xpnet.explain(net, RNG.random((10, 1, 28, 28)), np.arange(10))
    places = 10 * 30 * 24 * 24
    products = 2 * places * 25  # each output is a sum of 1 x 5 x 5 products
    assert costs(table) == {
        "Convolution1": (products + places, products + places),  # no gradient of the images
        "MaxPool1": (3 * places // 4, places // 4),  # 3 comparisons of 4 numbers
        "ReLU1": (places // 4, places // 4),
        "Flatten1": (0, 0),
        "Affine1": (2 * 10 * 4320 * 100 + 1000, 4 * 10 * 4320 * 100 + 1000),
        "ReLU2": (1000, 1000),
        "Affine2": (2 * 10 * 100 * 10 + 100, 4 * 10 * 100 * 10 + 100),
        "SoftmaxWithLoss1": (900, 0),
    }
    assert [cost.parameters for cost in table.costs[:5]] == [780, 0, 0, 0, 432_100]


def test_a_second_convolution_costs_twice_as_much_backward() -> None:
    net = xpnet.cnn((3, 8, 8), [[4, 6]], (), 2, batch_norm=True)
    table = xpnet.explain(net, RNG.random((7, 3, 8, 8)), np.arange(7) % 2, step=STEP)
    found = costs(table)
    forward = 2 * 7 * 6 * 64 * (4 * 9)  # 2 C KH KW for each element of the output
    assert found["Convolution2"] == (forward, 2 * forward)
    assert found["BatchNorm2"] == (7 * 7 * 6 * 64, 7 * 7 * 6 * 64)
    assert found["MaxPool1"] == (3 * 7 * 6 * 16, 7 * 6 * 16)
    # gamma and beta are trained, mean and variance are not
    assert next(cost.parameters for cost in table.costs if cost.name == "BatchNorm2") == 12
    inference = costs(xpnet.explain(net, RNG.random((7, 3, 8, 8)), np.arange(7) % 2))
    assert inference["BatchNorm2"] == (4 * 7 * 6 * 64, 4 * 7 * 6 * 64)


def test_operations_of_a_convolution_are_those_of_plain_loops() -> None:
    """A multiplication and an addition for each place of each window."""
    x, W, gate = (4, 3, 7, 6), (5, 3, 3, 2), layers.Convolution(2, (0, 1))
    y = gate.forward(np.ones(x), np.ones(W))[0].shape
    stops = (range(0, 7 - 2, 2), range(0, 6 + 2 - 1, 2))
    windows = [*itertools.product(range(4), range(5), *stops)]  # samples, filters, places
    places = [*itertools.product(range(3), range(3), range(2))]  # channels, rows, columns
    forward = 2 * len(windows) * len(places)
    assert flops(gate, [x, W], y, [True, True]) == (forward, 2 * forward)
    assert flops(gate, [x, W, (5,)], y, [False, True, True])[0] == forward + len(windows)


@pytest.mark.parametrize("shape", [(40, 50), (20, 5, 8, 8)])
@pytest.mark.parametrize("step", [STEP, None])
def test_operations_of_batch_normalization_are_counted(shape: Any, step: Any) -> None:
    x = RNG.standard_normal(shape).view(Counted)
    own = [np.ones(shape[1]).view(Counted) for _ in range(4)]
    gate = layers.BatchNorm()
    Counted.count = 0
    y, cache = gate.forward(x, *own, step)
    shapes = [shape, *[(shape[1],)] * 4] + [(1,)] * (step is not None)
    expected = flops(gate, shapes, shape, [True] * 3 + [False] * 3)
    assert round(Counted.count / x.size) == expected[0] // x.size
    Counted.count = 0
    gate.backward(cache, y)
    assert round(Counted.count / x.size) == expected[1] // x.size


@pytest.mark.parametrize(
    "gate",
    [layers.MaxPool(), layers.MaxPool(3), layers.MaxPool((1, 2)), layers.AveragePool(),
     layers.AveragePool(3, 2, 1)],
    ids=str,
)  # fmt: skip
def test_operations_of_pools_are_counted(gate: Any) -> None:
    """Forward: what NumPy is asked to do for each window."""
    x = RNG.standard_normal((5, 4, 12, 12)).view(Counted)
    Counted.count = 0
    y, _ = gate.forward(x)
    copied = y.size if isinstance(gate, layers.AveragePool) else 0  # it adds to a copy
    assert Counted.count - copied == flops(gate, [x.shape], y.shape, [True])[0]
