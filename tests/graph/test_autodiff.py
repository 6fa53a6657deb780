"""What the two passes do at once where a backend has kernels for it, and where they must not.

On NumPy, with kernels that call the plain lines and write down that they were asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import xpnet
from xpnet import layers, losses
from xpnet.arrays.dispatch import with_kernels
from xpnet.arrays.ops import namespace
from xpnet.gates import Mul
from xpnet.graph import Graph, autodiff

RNG = np.random.default_rng(0)


class Asked:
    """Kernels, and what they were asked for."""

    def __init__(self) -> None:
        self.functions: list[str] = []
        self.sums: list[int] = []  # how many arrays each time
        self.kernels = {"elementwise": self._elementwise, "sum_rows": self._sum_rows}

    def _elementwise(self, function: Any, *args: Any) -> Any:
        self.functions.append(function.__name__)
        return function(*args)

    def _sum_rows(self, arrays: Any) -> Any:
        self.sums.append(len(arrays))
        return [namespace(a).sum(a, axis=tuple(range(a.ndim - 1))) for a in arrays]


def both(
    graph: Graph, inputs: Mapping[str, Any], *ends: Any, wrt: Any = None, douts: Any = None
) -> tuple[Any, dict[str, Any], Asked]:
    """Value and gradients with kernels, after a check that they are what they are without."""

    def run() -> tuple[Any, dict[str, Any]]:
        value, tape = graph.forward(inputs, *ends)
        return value, graph.backward(tape, wrt, douts)

    asked = Asked()
    value, grads = run()
    again, grads_again = with_kernels(run, asked.kernels)()
    np.testing.assert_array_equal(again, value)
    assert list(grads_again) == list(grads)
    for name, gradient in grads.items():
        np.testing.assert_array_equal(grads_again[name], gradient, err_msg=name)
    return value, grads, asked


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "leaky_relu"])
def test_bias_and_activation_are_one_and_bias_gradients_are_one(activation: str) -> None:
    network = xpnet.mlp([6, 5, 4, 3], activation, init=0.5)
    inputs = {**network.params, "x": normal(7, 6), "t": RNG.integers(0, 3, 7)}
    _, _, asked = both(network.graph, inputs, network.loss, wrt=network.params)
    assert asked.functions.count("add_bias_then") == 2  # the last layer has no activation
    assert asked.sums == [3]


def test_dropout_between_layers_leaves_them_joined() -> None:
    network = xpnet.mlp([6, 5, 4, 3], "relu", dropout=0.5)
    inputs = {**network.params, "x": normal(7, 6), "t": RNG.integers(0, 3, 7)}
    inputs["step"] = np.zeros(1, np.int32)
    _, _, asked = both(network.graph, inputs, network.loss, wrt=network.params)
    assert asked.functions.count("add_bias_then") == 2
    assert asked.sums == [3]


def layer(graph: Graph, x: Any, W: Any, b: Any) -> Any:
    return graph.apply(layers.Affine(), x, W, b)


def test_an_output_before_the_activation_is_kept() -> None:
    graph = Graph()
    x, W, b = graph.inputs("x W b")
    a = layer(graph, x, W, b)
    y = graph.apply(layers.Sigmoid(), a)
    inputs = {"x": normal(4, 3), "W": normal(3, 2), "b": normal(2)}
    (before, after), tape = with_kernels(graph.forward, Asked().kernels)(inputs, a, y)
    np.testing.assert_array_equal(before, inputs["x"] @ inputs["W"] + inputs["b"])
    np.testing.assert_array_equal(after, layers.Sigmoid().forward(before)[0])
    douts = [normal(4, 2), normal(4, 2)]
    _, tape = graph.forward(inputs, a, y)
    expected = graph.backward(tape, "W b", douts)
    asked = Asked()
    found = with_kernels(graph.backward, asked.kernels)(tape, "W b", douts)
    assert asked.functions.count("add_bias_then") == 0
    for name in "Wb":
        np.testing.assert_array_equal(found[name], expected[name])


def test_an_output_that_two_gates_use_is_not_joined() -> None:
    graph = Graph()
    x, W, b = graph.inputs("x W b")
    a = layer(graph, x, W, b)
    y = graph.apply(layers.Sigmoid(), a) + graph.apply(layers.Tanh(), a)
    inputs = {"x": normal(4, 3), "W": normal(3, 2), "b": normal(2)}
    _, _, asked = both(graph, inputs, y, wrt="W b", douts=[normal(4, 2)])
    assert "add_bias_then" not in asked.functions
    assert asked.sums == [1]


def test_an_elementwise_gate_of_two_inputs_is_not_joined() -> None:
    class Product(Mul):
        elementwise = True

    graph = Graph()
    x, W, b, c = graph.inputs("x W b c")
    y = graph.apply(Product(), layer(graph, x, W, b), c)
    inputs = {"x": normal(4, 3), "W": normal(3, 2), "b": normal(2), "c": normal(4, 2)}
    _, _, asked = both(graph, inputs, y, wrt="W b c", douts=[normal(4, 2)])
    assert "add_bias_then" not in asked.functions


class Doubled(layers.Affine):
    """2 (x W + b): what its base says of the bias does not hold."""

    def forward(self, x: Any, W: Any, b: Any) -> Any:
        y, cache = super().forward(x, W, b)
        return 2.0 * y, cache

    def backward(self, cache: Any, dout: Any, needs: Any = (True, True, True)) -> Any:
        return super().backward(cache, 2.0 * dout, needs)


class SlowBias(layers.Affine):
    def backward(self, cache: Any, dout: Any, needs: Any = (True, True, True)) -> Any:
        dx, dW, db = super().backward(cache, dout, needs)
        return dx, dW, 0.1 * db


class Renamed(layers.Affine):
    """All that its base says holds."""


@pytest.mark.parametrize(("gate", "joined"), [(Doubled, 0), (SlowBias, 0), (Renamed, 1)])
def test_a_subclass_keeps_what_it_does_not_override(gate: type, joined: int) -> None:
    graph = Graph()
    x, W, b = graph.inputs("x W b")
    y = graph.apply(layers.Tanh(), graph.apply(gate(), x, W, b))
    inputs = {"x": normal(4, 3), "W": normal(3, 2), "b": normal(2)}
    _, _, asked = both(graph, inputs, y, wrt="W b", douts=[normal(4, 2)])
    assert asked.functions.count("add_bias_then") == joined
    assert asked.sums == [1] * joined


class Cubed(layers.Tanh):
    def forward(self, x: Any) -> Any:
        return x * x * x, x

    def backward(self, cache: Any, dout: Any, needs: Any = (True,)) -> Any:
        return (3.0 * cache * cache * dout,)


class Slope:
    """An elementwise gate that can be changed: a kernel would keep what it was."""

    elementwise = True

    def __init__(self, a: float) -> None:
        self.a = a

    def forward(self, x: Any) -> Any:
        return x * self.a, None

    def backward(self, cache: Any, dout: Any, needs: Any = (True,)) -> Any:
        return (dout * self.a,)


@pytest.mark.parametrize("gate", [Cubed(), Slope(0.5)], ids=lambda gate: type(gate).__name__)
def test_a_gate_that_may_break_its_promise_is_not_joined(gate: Any) -> None:
    graph = Graph()
    x, W, b = graph.inputs("x W b")
    y = graph.apply(gate, layer(graph, x, W, b))
    inputs = {"x": normal(4, 3), "W": normal(3, 2), "b": normal(2)}
    _, _, asked = both(graph, inputs, y, wrt="W b", douts=[normal(4, 2)])
    assert "add_bias_then" not in asked.functions
    assert asked.sums == [1]


def of_images(*gates: Any, first: Any = None) -> tuple[list[Any], Asked]:
    """The values with kernels, by `Asked`, of gates after a convolution."""
    graph = Graph()
    x, W, b = graph.inputs("x W b")
    y = graph.apply(first or layers.Convolution(padding=1), x, W, b)
    for gate in gates:
        y = graph.apply(gate, y)
    inputs = {"x": normal(2, 3, 6, 5), "W": normal(5, 2), "b": normal(2)}
    if first is None:
        inputs |= {"W": normal(4, 3, 3, 3), "b": normal(4)}
    value, _ = graph.forward(inputs, y)
    values, _, asked = both(graph, inputs, y, wrt="W b", douts=[normal(*value.shape)])
    return values, asked


@pytest.mark.parametrize("pools", [0, 1, 2])
def test_the_bias_of_channels_is_added_after_the_pool(pools: int) -> None:
    _, asked = of_images(*[layers.MaxPool(2, 1, 1)] * pools, layers.ReLU())
    assert asked.functions.count("add_bias_then") == 1
    assert asked.sums == []  # its gradient is no sum of rows


@pytest.mark.parametrize(
    "gates",
    [
        [layers.AveragePool(2), layers.ReLU()],  # its padding gets no bias
        [layers.MaxPool(2)],
        [layers.MaxPool(2), layers.Flatten(), layers.ReLU()],
    ],
    ids=len,
)
def test_a_bias_that_would_be_another_is_not_moved(gates: list[Any]) -> None:
    _, asked = of_images(*gates)
    assert "add_bias_then" not in asked.functions


def test_the_bias_of_rows_is_not_moved_past_a_pool() -> None:
    _, asked = of_images(layers.MaxPool((2, 1)), layers.ReLU(), first=layers.Affine())
    assert "add_bias_then" not in asked.functions
    _, asked = of_images(layers.ReLU(), first=layers.Affine())
    assert asked.functions.count("add_bias_then") == 1


def test_a_pooled_output_that_is_asked_for_has_its_bias() -> None:
    graph = Graph()
    x, W, b = graph.inputs("x W b")
    pooled = graph.apply(layers.MaxPool(2), graph.apply(layers.Convolution(), x, W, b))
    y = graph.apply(layers.ReLU(), pooled)
    inputs = {"x": normal(2, 3, 6, 5), "W": normal(4, 3, 3, 3), "b": normal(4)}
    expected, _ = graph.forward(inputs, pooled, y)
    found, _ = with_kernels(graph.forward, Asked().kernels)(inputs, pooled, y)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@dataclass(frozen=True)
class Boom:
    elementwise: ClassVar[bool] = True

    def forward(self, x: Any) -> Any:
        raise ValueError("this gate cannot do it")

    def backward(self, cache: Any, dout: Any, needs: Any = (True,)) -> Any:
        return (dout,)


def test_an_error_names_its_own_gate() -> None:
    graph = Graph()
    x, W, b = graph.inputs("x W b")
    graph.apply(Boom(), layer(graph, x, W, b))
    inputs = {"x": normal(4, 3), "W": normal(3, 2), "b": normal(2)}
    words = r"^Boom1\(Affine1 \(4, 2\)\): this gate cannot do it$"
    with pytest.raises(ValueError, match=words):
        graph.forward(inputs)
    with pytest.raises(ValueError, match=words):
        with_kernels(graph.forward, Asked().kernels)(inputs)


def test_a_bias_that_two_layers_share_is_summed_by_its_gates() -> None:
    graph = Graph()
    x, W, V, b = graph.inputs("x W V b")
    y = layer(graph, graph.apply(layers.Sigmoid(), layer(graph, x, W, b)), V, b)
    inputs = {"x": normal(4, 2), "W": normal(2, 2), "V": normal(2, 2), "b": normal(2)}
    _, grads, asked = both(graph, inputs, y, wrt="x W V b", douts=[normal(4, 2)])
    assert asked.sums == []
    assert grads["b"].shape == (2,)


def test_a_bias_that_is_computed_is_needed_before_the_end() -> None:
    graph = Graph()
    x, W, c = graph.inputs("x W c")
    y = layer(graph, x, W, 2.0 * c)
    dout = normal(4, 2)
    inputs = {"x": normal(4, 3), "W": normal(3, 2), "c": normal(2)}
    _, grads, asked = both(graph, inputs, y, wrt="c", douts=[dout])
    np.testing.assert_allclose(grads["c"], 2.0 * dout.sum(axis=0))
    assert asked.sums == []


def test_a_bias_that_is_an_output_too_has_both_gradients() -> None:
    graph = Graph()
    x, W, b = graph.inputs("x W b")
    y = layer(graph, x, W, b)
    inputs = {"x": normal(4, 3), "W": normal(3, 2), "b": normal(2)}
    douts = [normal(4, 2), normal(2)]
    _, tape = graph.forward(inputs, y, b)
    found = with_kernels(graph.backward, Asked().kernels)(tape, "b", douts)
    np.testing.assert_allclose(found["b"], douts[0].sum(axis=0) + douts[1])


def test_rows_of_more_than_a_matrix_are_summed() -> None:
    graph = Graph()
    x, W, b = graph.inputs("x W b")
    y = graph.apply(layers.ReLU(), layer(graph, x, W, b))
    inputs = {"x": normal(4, 5, 3), "W": normal(3, 2), "b": normal(2)}
    _, _, asked = both(graph, inputs, y, wrt="b", douts=[normal(4, 5, 2)])
    assert asked.sums == [1]


def test_what_is_held_for_the_sums_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient lives until its rows are summed: of a deep network that would be all of them."""
    monkeypatch.setattr(autodiff, "MOST_HELD", 60)
    network = xpnet.mlp([6, 5, 4, 5, 3], "tanh")
    inputs = {**network.params, "x": normal(7, 6), "t": RNG.integers(0, 3, 7)}
    _, _, asked = both(network.graph, inputs, network.loss, wrt=network.params)
    assert asked.sums == [3, 1]  # 21 + 35 + 28 elements, then 35


def test_a_trace_has_every_gradient_and_every_flow() -> None:
    network = xpnet.mlp([6, 5, 3], "tanh")
    inputs = {**network.params, "x": normal(7, 6), "t": RNG.integers(0, 3, 7)}
    plain = network.graph.trace(inputs, network.loss)
    asked = Asked()
    found = with_kernels(network.graph.trace, asked.kernels)(inputs, network.loss)
    assert asked.sums == []
    assert found.values.keys() == plain.values.keys()
    assert found.flows.keys() == plain.flows.keys()
    assert found.grads.keys() == plain.grads.keys()


@pytest.mark.parametrize("shape", [(3,), (4, 2), (1,), ()])
def test_a_bias_that_does_not_fit_is_refused_as_ever(shape: tuple[int, ...]) -> None:
    graph = Graph()
    x, W, b = graph.inputs("x W b")
    graph.apply(layers.Sigmoid(), layer(graph, x, W, b))
    inputs = {"x": normal(4, 3), "W": normal(3, 2), "b": normal(*shape)}
    with pytest.raises(ValueError, match=r"Affine1\(x .*W has shape \(3, 2\) and b") as plain:
        graph.forward(inputs)
    with pytest.raises(ValueError, match="Affine1") as joined:
        with_kernels(graph.forward, Asked().kernels)(inputs)
    assert str(joined.value) == str(plain.value)


LOSSES = [kind() for kind in losses.LOSSES.values()]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_number_1_starts_as_an_array_of_it_does(
    loss: Any, reduction: str, weighted: bool
) -> None:
    gate = type(loss)(reduction=reduction)
    t = RNG.integers(0, 3, 7)
    weight = RNG.random(7) if weighted else None
    _, cache = gate.forward(normal(7, 3), t, weight)
    one = gate.backward(cache, np.ones(()), (True, False, False))[0]
    np.testing.assert_array_equal(gate.backward(cache, 1.0, (True, False, False))[0], one)
    for factor in (-0.5, np.asarray(-0.5)):
        other = gate.backward(cache, factor, (True, False, False))[0]
        np.testing.assert_allclose(other, -0.5 * one, rtol=1e-15)


def test_no_array_is_made_to_start_from(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    ones_like = autodiff.ones_like
    monkeypatch.setattr(autodiff, "ones_like", lambda y: made.append(y) or ones_like(y))
    network = xpnet.mlp([6, 5, 3])
    inputs = {**network.params, "x": normal(7, 6), "t": RNG.integers(0, 3, 7)}
    value, tape = network.graph.forward(inputs, network.loss)
    network.graph.backward(tape, network.params)
    assert not made
    name = network.loss.name
    assert network.graph.backward(tape, [name, "W1"])[name] == 1.0  # asked for: an array
    assert network.graph.backward(tape, [name, "W1"])[name].dtype == value.dtype
    assert len(made) == 2


class OldLoss:
    """A loss of a user's own that knows only of arrays."""

    def forward(self, x: Any, t: Any) -> Any:
        return namespace(x).sum(x), x

    def backward(self, cache: Any, dout: Any, needs: Any = (True, False)) -> Any:
        return namespace(dout).zeros_like(cache) + dout, None


class Steeper(losses.SquaredLoss):
    """Overrides a pass of a loss that takes a number."""

    def backward(self, cache: Any, dout: Any, needs: Any = (True, False, False)) -> Any:
        dx, *rest = super().backward(cache, dout, needs)
        return (dx * dout[None, None], *rest)


@pytest.mark.parametrize(("loss", "expected"), [(OldLoss(), 1.0), (Steeper("sum"), 0.5)])
def test_a_loss_that_takes_no_number_is_given_an_array(loss: Any, expected: float) -> None:
    graph = Graph()
    x, t = graph.inputs("x t")
    graph.apply(loss, x, t)
    _, tape = graph.forward({"x": np.full((2, 3), 0.5), "t": np.zeros((2, 3))})
    np.testing.assert_array_equal(graph.backward(tape, "x")["x"], np.full((2, 3), expected))
