"""The lecture's gates and graphs: their numbers, their state, and what they refuse."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CASES, Case
from conftest import Library

import xpnet
from xpnet import book, lecture
from xpnet.functions import exp, sigmoid, softmax_with_loss, squared_norm, tanh
from xpnet.functions import sum as fsum
from xpnet.gates import Mul
from xpnet.graph import Graph
from xpnet.graph.node import Node

BASES = {"StatefulGate", "WiredGate"}  # WiredGates are what a Circuit holds


def test_multiply_gate_of_the_lecture() -> None:
    gate = lecture.MultiplyGate()
    assert gate.forward(3, -4) == -12
    assert gate.backward(2) == (-8, 6)


@pytest.mark.parametrize(
    ("gate", "inputs", "output", "gradients"),
    [
        (lecture.AddGate(), (3, -4), -1, (1, 1)),
        (lecture.SubtractGate(), (3, -4), 7, (1, -1)),
        (lecture.DivideGate(), (3, -4), -0.75, (-0.25, -3 / 16)),
        (lecture.MaxGate(), (3, -4), 3, (1, 0)),
        (lecture.NegateGate(), (3,), -3, -1),
        (lecture.ExpGate(), (-1,), np.exp(-1), np.exp(-1)),
        (lecture.LogGate(), (4,), np.log(4), 0.25),
        (lecture.ReciprocalGate(), (1.37,), 1 / 1.37, -1 / 1.37**2),
        (lecture.SquareGate(), (3,), 9, 6),
        (lecture.SigmoidGate(), (0,), 0.5, 0.25),
        (lecture.ReLUGate(), (-3,), 0, 0),
    ],
)
def test_gates_of_numbers(
    gate: lecture.StatefulGate, inputs: Any, output: Any, gradients: Any
) -> None:
    assert gate.forward(*inputs) == pytest.approx(output)
    assert gate.backward() == pytest.approx(gradients)


def test_gates_of_arrays() -> None:
    W, x = np.array([[0.1, 0.5], [-0.3, 0.8]]), np.array([0.2, 0.4])
    dot, l2 = lecture.MatMulGate(), lecture.L2Gate()
    assert l2.forward(dot.forward(W, x)) == pytest.approx(0.116)
    dW, dx = dot.backward(l2.backward())
    np.testing.assert_allclose(dW, [[0.088, 0.176], [0.104, 0.208]])
    np.testing.assert_allclose(dx, [-0.112, 0.636])
    for gate, factor in ((lecture.SumGate(0), 1.0), (lecture.MeanGate(0), 0.5)):
        np.testing.assert_allclose(gate.forward(W), W.sum(0) * factor)
        np.testing.assert_allclose(gate.backward(np.ones(2)), np.full((2, 2), factor))


def test_every_gate_of_the_lecture_is_tested_here() -> None:
    source = Path(__file__).read_text()
    for name in lecture.__all__:
        assert name in BASES or f"lecture.{name}" in source, name


def test_computational_graph_of_the_lecture(library: Library, in_tmp: Path) -> None:
    x, y, z = Graph().inputs("x y z")
    net = lecture.ComputationalGraph((x + y) * z)
    assert [node.name for node in net.nodes_topologically_sorted()] == [
        "x",
        "y",
        "Add1",
        "z",
        "Mul1",
    ]
    inputs = {name: library.asarray(np.asarray(v, np.float32)) for name, v in
              (("x", -2), ("y", 5), ("z", -4))}  # fmt: skip
    assert float(net.forward(inputs)) == -12
    assert {k: float(v) for k, v in net.backward().items()} == {"x": -4, "y": -4, "z": 3}
    net.draw("circuit.svg")
    assert "-12" in Path("circuit.svg").read_text()
    assert "-12" in net._repr_svg_()


def test_gates_remember_their_inputs() -> None:
    two = ["Add", "Subtract", "Multiply", "Divide", "Max"]
    one = ["Negate", "Exp", "Log", "Reciprocal", "Square", "Sigmoid", "ReLU", "L2", "Sum", "Mean"]
    for name in two:
        gate = getattr(lecture, f"{name}Gate")()
        gate.forward(3, 4)
        assert (gate.x, gate.y) == (3, 4)
    for name in one:
        gate, x = getattr(lecture, f"{name}Gate")(), np.array([1.0, 2.0])
        gate.forward(x)
        assert gate.x is x
        assert not hasattr(gate, "y")
    W = np.ones((3, 2))
    dot = lecture.MatMulGate()
    assert not hasattr(dot, "x")
    dot.forward(W, x)
    assert dot.W is W
    assert dot.x is x
    assert {f"{name}Gate" for name in [*one, *two, "MatMul"]} == {
        name for name in lecture.__all__ if name.endswith("Gate") and name not in BASES
    }


def arrays_in(cache: Any) -> Iterator[np.ndarray]:
    if isinstance(cache, np.ndarray):
        yield cache
    elif isinstance(cache, tuple | list):
        for part in cache:
            yield from arrays_in(part)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_backward_leaves_the_cache_as_it_is(case: Case) -> None:
    """So a gate that keeps its state allows a second backward."""
    rng = np.random.default_rng(0)
    inputs = case.inputs(rng)
    y, cache = case.gate.forward(*inputs)
    dout, needs = rng.standard_normal(np.shape(y)), [x is not None for x in inputs]
    before = [array.copy() for array in arrays_in(cache)]
    first = [None if part is None else np.array(part) for part in
             case.gate.backward(cache, dout, needs)]  # fmt: skip
    for array, kept in zip(arrays_in(cache), before, strict=True):
        np.testing.assert_array_equal(array, kept)
    second = case.gate.backward(cache, dout, needs)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_second_backward_reads_the_same_state() -> None:
    gate = lecture.MultiplyGate()
    gate.forward(3, -4)
    assert gate.backward(1) == (-4, 3)
    assert gate.backward(2) == (-8, 6)
    gate.forward(5, 6)
    assert gate.backward(1) == (6, 5)
    x, y = Graph().inputs("x y")
    net = lecture.ComputationalGraph(x * y + x)
    net.forward({"x": 3, "y": -4})
    assert net.backward() == net.backward() == {"x": -3, "y": 3}
    net.forward({"x": 5, "y": 6})
    assert net.backward() == {"x": 7, "y": 5}


def test_an_earlier_forward_is_forgotten_when_the_next_one_fails() -> None:
    gate = lecture.MultiplyGate()
    x, y = Graph().inputs("x y")
    net = lecture.ComputationalGraph(x * y)
    gate.forward(3, -4)
    net.forward({"x": 3, "y": -4})
    with pytest.raises(ValueError, match="shape"):
        gate.forward(np.ones(2), np.ones(3))
    with pytest.raises(KeyError):
        net.forward({"x": 1})
    for thing in (gate, net):
        with pytest.raises(RuntimeError, match="needs a forward first"):
            thing.backward()


def test_shapes_that_do_not_fit_are_one_error_on_every_library(library: Library) -> None:
    a, b = (library.asarray(np.ones(n, np.float32)) for n in (2, 3))
    with pytest.raises(ValueError, match=r"^AddGate.forward: .") as caught:
        lecture.AddGate().forward(a, b)
    assert "\n" not in str(caught.value)


def test_a_dout_that_does_not_fit_is_refused_and_another_may_follow() -> None:
    gate = lecture.AddGate()
    gate.forward(np.ones((2, 3)), np.ones(3))
    with pytest.raises(
        ValueError,
        match=re.escape("AddGate.backward got float64 of shape (3,); expected real numbers of the"),
    ):
        gate.backward(np.ones(3))
    with pytest.raises(ValueError, match=re.escape("AddGate.backward got [1, 1]; expected real")):
        gate.backward([1, 1])
    np.testing.assert_array_equal(gate.backward(np.ones((2, 3)))[1], [2, 2, 2])


# -- The slides' listings, typed: `self`, the inputs and the returned names are the reader's ------


class ComputationalGraph:
    def __init__(self, graph: Any) -> None:
        self.graph = graph

    def forward(self, inputs: Any) -> Any:
        # 1. pass inputs to input gates
        for name in inputs:
            self.graph.input_gates[name].value = inputs[name]
        # 2. forward the computational graph
        for gate in self.graph.nodes_topologically_sorted():
            gate.forward()
        loss = gate.value
        return loss  # noqa: RET504 - the slide: the final gate in the graph outputs the loss

    def backward(self) -> Any:
        for gate in reversed(self.graph.nodes_topologically_sorted()):
            gate.backward()
        gates = self.graph.input_gates
        input_gradients = {name: gates[name].gradient for name in gates}
        return input_gradients  # noqa: RET504 - as on the slide


class Derived(lecture.ComputationalGraph):
    def forward(self, inputs: Any) -> Any:
        self.graph.pass_inputs(inputs)
        for gate in self.graph.nodes_topologically_sorted():
            gate.forward()
        loss = gate.value
        return loss  # noqa: RET504 - as on the slide

    def backward(self) -> Any:
        for gate in reversed(self.graph.nodes_topologically_sorted()):
            gate.backward()
        input_gradients = self.graph.input_gradients()
        return input_gradients  # noqa: RET504 - as on the slide


class MultiplyGate:
    def forward(self, x: Any, y: Any) -> Any:
        z = x * y
        self.x = x
        self.y = y
        return z

    def backward(self, dz: Any) -> Any:
        dx = self.y * dz
        dy = self.x * dz
        return [dx, dy]


STYLES: list[Callable[[Node], Any]] = [
    lambda f: ComputationalGraph(lecture.Circuit(f)),
    Derived,
    lecture.ComputationalGraph,
]
styles = pytest.mark.parametrize("style", STYLES, ids=["typed", "derived", "ready-made"])
multiply_gates = pytest.mark.parametrize("multiply_gate", [MultiplyGate, lecture.MultiplyGate])


@styles
@multiply_gates
def test_circuit_of_the_slides(style: Any, multiply_gate: Any) -> None:
    x, y, z = Graph().inputs("x y z")
    gate = multiply_gate()
    for f in (
        lecture.apply(gate, x + y, z),
        lecture.apply(gate, lecture.apply(lecture.AddGate(), x, y), z),
    ):
        net = style(f)
        assert net.forward({"x": -2, "y": 5, "z": -4}) == -12
        assert net.backward() == {"x": -4, "y": -4, "z": 3}
        assert (gate.x, gate.y) == (3, -4)
        assert net.backward() == {"x": -4, "y": -4, "z": 3}
        assert net.forward({"x": 1, "y": 1, "z": 5}) == 10
        assert net.backward() == {"x": 5, "y": 5, "z": 2}


@styles
@multiply_gates
def test_neuron_of_the_slides(style: Any, multiply_gate: Any) -> None:
    w0, x0, w1, x1, w2 = Graph().inputs("w0 x0 w1 x1 w2")
    mul = [lecture.apply(multiply_gate(), *pair) for pair in ((w0, x0), (w1, x1))]
    net = style(1 / (1 + exp(-1 * (mul[0] + mul[1] + w2))))
    values = {"w0": 2, "x0": -1, "w1": -3, "x1": -2, "w2": -3}
    assert net.forward(values) == pytest.approx(0.73, abs=5e-3)
    # The slide goes on with rounded numbers.
    slide = {"w0": -0.2, "x0": 0.39, "w1": -0.39, "x1": -0.59, "w2": 0.2}
    assert net.backward() == pytest.approx(slide, abs=5e-3)
    circuit = net.graph.nodes_topologically_sorted()
    assert circuit[-1].gradient == 1
    assert [gate.name for gate in circuit[-1].inputs] == ["Shift1"]
    assert circuit[-1].inputs[0].value == pytest.approx(1.37, abs=5e-3)
    assert circuit[-1].inputs[0].gradient == pytest.approx(-0.53, abs=5e-3)


@styles
def test_squared_norm_of_the_slides(style: Any) -> None:
    W, x = Graph().inputs("W x")
    net = style(squared_norm(W @ x))
    values = {"W": np.array([[0.1, 0.5], [-0.3, 0.8]]), "x": np.array([0.2, 0.4])}
    assert net.forward(values) == pytest.approx(0.116)
    gradients = net.backward()
    np.testing.assert_allclose(gradients["W"], [[0.088, 0.176], [0.104, 0.208]])
    np.testing.assert_allclose(gradients["x"], [-0.112, 0.636])


def random_circuit(rng: np.random.Generator, length: int) -> tuple[Node, Callable[..., Any]]:
    """Return a circuit in which most values are used several times, and a function like it."""
    nodes: list[Node] = Graph().inputs("a b c d")
    steps: list[tuple[Any, ...]] = []
    kinds: list[tuple[Any, Any]] = [
        (lambda x, y: x + y, lambda x, y: x + y),
        (lambda x, y: x - y, lambda x, y: x - y),
        (lambda x, y: tanh(x) * y, lambda x, y: np.tanh(x) * y),
        (lambda x, y: lecture.apply(MultiplyGate(), tanh(x), sigmoid(y)),
         lambda x, y: np.tanh(x) / (1 + np.exp(-y))),
        (lambda x, y: lecture.apply(lecture.DivideGate(), x, exp(tanh(y))),
         lambda x, y: x / np.exp(np.tanh(y))),
    ]  # fmt: skip
    for _ in range(length):
        i, j = rng.integers(max(0, len(nodes) - 8), len(nodes), 2)
        on_nodes, on_arrays = kinds[rng.integers(len(kinds))]
        nodes.append(on_nodes(nodes[i], nodes[j]))
        steps.append((on_arrays, i, j))

    def function(*inputs: Any) -> Any:
        values = list(inputs)
        for step, i, j in steps:
            values.append(step(values[i], values[j]))
        return np.sum(values[-8:])

    total = nodes[-8]
    for node in nodes[-7:]:
        total = total + node
    return fsum(total), function


@styles
def test_a_random_circuit(style: Any) -> None:
    """Against `Graph`, to the last bit, and against finite differences of plain NumPy."""
    rng = np.random.default_rng(7)
    f, function = random_circuit(rng, 60)
    values = {name: rng.standard_normal((2, 3)) for name in "abcd"}
    net = style(f)
    loss, gradients = net.forward(values), net.backward()
    graph = f.graph
    assert isinstance(graph, Graph)
    same, tape = graph.forward(values, f)
    assert loss == same
    assert loss == pytest.approx(function(*values.values()))
    for name, gradient in graph.backward(tape).items():
        np.testing.assert_array_equal(gradients[name], gradient)
        numerical = np.empty((2, 3))
        for at in np.ndindex(2, 3):
            ends = []
            for h in (1e-6, -1e-6):
                moved = {**values, name: values[name].copy()}
                moved[name][at] += h
                ends.append(function(*moved.values()))
            numerical[at] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(gradients[name], numerical, rtol=1e-6, atol=1e-6 * abs(loss))


def test_a_network_with_labels_dropout_and_batch_normalization() -> None:
    network = xpnet.mlp([4, 5, 3], "relu", batch_norm=True, dropout=0.3)
    rng = np.random.default_rng(0)
    values = {**network.params, **network.statistics, "x": rng.standard_normal((6, 4)),
              "t": np.array([0, 1, 2, 2, 1, 0]), "step": np.array([3], np.int32)}  # fmt: skip
    for given in (values, {k: v for k, v in values.items() if k != "step"}):
        net = lecture.ComputationalGraph(network.loss)
        loss, gradients = net.forward(given), net.backward()
        same, tape = network.graph.forward(given, network.loss)
        expected = network.graph.backward(tape)
        assert loss == same
        assert list(gradients) == list(expected)
        for name, gradient in expected.items():
            np.testing.assert_array_equal(gradients[name], gradient)


def test_a_typed_gate_on_every_library(library: Library) -> None:
    x, y = Graph().inputs("x y")
    net = ComputationalGraph(lecture.Circuit(lecture.apply(MultiplyGate(), x, y) * 3 + x))
    values = {name: library.asarray(np.array(v, np.float32)) for name, v in
              (("x", [1, 2]), ("y", [3, -4]))}  # fmt: skip
    np.testing.assert_array_equal(library.to_numpy(net.forward(values)), [10, -22])
    gradients = {name: library.to_numpy(g) for name, g in net.backward().items()}
    np.testing.assert_array_equal(gradients["x"], [10, -11])
    np.testing.assert_array_equal(gradients["y"], [3, 6])
    assert net.forward({**values, "y": 2}).dtype == values["x"].dtype


# -- What a reader's own gate may do --------------------------------------------------------------


class ReluInPlace:
    """As some books write it: backward writes into dz."""

    def forward(self, x: Any) -> Any:
        self.mask = x <= 0
        return np.where(self.mask, 0.0, x)

    def backward(self, dz: Any) -> Any:
        dz[self.mask] = 0
        self.dx = dz
        return dz


def test_a_gate_that_writes_into_its_gradient_harms_no_other() -> None:
    x, y = Graph().inputs("x y")
    relu = ReluInPlace()
    f = fsum(lecture.apply(relu, x) + y)
    values = {"x": np.array([-1.0, 2.0]), "y": np.array([3.0, 4.0])}
    net = lecture.ComputationalGraph(f)
    net.forward(values)
    for _ in range(2):
        gradients = net.backward()
        np.testing.assert_array_equal(gradients["x"], [0, 1])
        np.testing.assert_array_equal(gradients["y"], [1, 1])
        np.testing.assert_array_equal(relu.dx, [0, 1])


class ExpOfNumbers:
    """One input, Python's own functions: it returns numbers, and a gradient without a list."""

    def forward(self, x: Any) -> float:
        self.z = math.exp(x)
        return self.z

    def backward(self, dz: Any) -> float:
        return float(dz) * self.z


def test_a_gate_of_python_numbers() -> None:
    x = Graph().input("x")
    net = lecture.ComputationalGraph(2 * lecture.apply(ExpOfNumbers(), x))
    assert net.forward({"x": 1}) == pytest.approx(2 * math.e)
    assert net.backward() == {"x": pytest.approx(2 * math.e)}


def test_a_graph_runs_copies_of_a_gate_and_a_circuit_the_gate() -> None:
    """So one gate may stand in two places of a graph, and two tapes may wait for backward."""
    graph, gate = Graph(), MultiplyGate()
    x, y = graph.inputs("x y")
    f = lecture.apply(gate, lecture.apply(gate, x, y), y)
    assert repr(f) == "<Node MultiplyGate2 = MultiplyGate(MultiplyGate1, y)>"
    tapes = [graph.forward({"x": a, "y": 3}, f)[1] for a in (1, 2)]
    assert [graph.backward(tape)["y"] for tape in tapes] == [6, 12]
    assert not hasattr(gate, "x")
    with pytest.raises(ValueError, match="MultiplyGate1 and MultiplyGate2 are one object"):
        lecture.Circuit(f)
    lecture.ComputationalGraph(lecture.apply(gate, x, y)).forward({"x": 1, "y": 3})
    assert (gate.x, gate.y) == (1, 3)


def test_layers_of_the_book_are_gates_too() -> None:
    rng = np.random.default_rng(0)
    affine = book.Affine(rng.standard_normal((3, 2)), np.zeros(2))
    x = rng.standard_normal((4, 3))
    net = lecture.ComputationalGraph(squared_norm(lecture.apply(affine, Graph().input("x"))))
    assert net.forward({"x": x}) == pytest.approx(np.sum((x @ affine.W) ** 2))
    np.testing.assert_allclose(net.backward()["x"], 2 * x @ affine.W @ affine.W.T)
    np.testing.assert_allclose(affine.dW, 2 * x.T @ x @ affine.W)


def test_pictures_show_a_typed_gate_by_its_name(in_tmp: Path) -> None:
    x, y = Graph().inputs("x y")
    gate = MultiplyGate()
    circuit = lecture.Circuit(lecture.apply(gate, x, y))
    assert "-12" not in circuit._repr_svg_()
    circuit.pass_inputs({"x": 3, "y": -4})
    for wired in circuit.nodes_topologically_sorted():
        wired.forward()
    circuit.draw("circuit.svg")
    for text in (circuit._repr_svg_(), Path("circuit.svg").read_text()):
        assert "MultiplyGate1" in text
        assert "-12" in text
    circuit.final_gate.backward()  # pictures left the gate's state alone
    assert circuit.final_gate.value == -12


# -- What is refused ------------------------------------------------------------------------------


class WithoutSelf:
    def forward(x: Any, y: Any) -> Any:  # noqa: N805 - the slide leaves self out
        return x * y

    def backward(dz: Any) -> Any:  # noqa: N805 - the slide leaves self out
        return [dz, dz]


class BackwardWithoutSelf(MultiplyGate):
    def backward(dz: Any) -> Any:  # noqa: N805 - the slide leaves self out
        return [dz, dz]


class ForwardReturnsNothing(MultiplyGate):
    def forward(self, x: Any, y: Any) -> Any:
        super().forward(x, y)


class BackwardReturnsNothing(MultiplyGate):
    def backward(self, dz: Any) -> Any:
        super().backward(dz)


class OneGradient(MultiplyGate):
    def backward(self, dz: Any) -> Any:
        return super().backward(dz)[:1]


def test_a_gate_that_cannot_be_applied() -> None:
    x, y = Graph().inputs("x y")
    for gate, nodes, words in (
        (WithoutSelf(), (x, y), "WithoutSelf.forward cannot take (x, y); expected a method of the "
         "class: def forward(self, x, y)"),
        (BackwardWithoutSelf(), (x, y), "BackwardWithoutSelf.backward cannot take (dz); "),
        (MultiplyGate(), (x,), "MultiplyGate.forward cannot take (x)"),
        (MultiplyGate(), (x, 3), "MultiplyGate is applied to 3; expected nodes"),
        (MultiplyGate(), (), "MultiplyGate is applied to nothing; expected apply("),
        (MultiplyGate, (x, y), "got the class MultiplyGate"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=re.escape(words)):
            lecture.apply(gate, *nodes)
    with pytest.raises(
        ValueError, match=re.escape("MultiplyGate1 keeps its state; expected xpnet.")
    ):
        lecture.Circuit(x.graph.apply(MultiplyGate(), x, y))
    assert repr(lecture.apply(Mul(), x, y)) == "<Node Mul1 = Mul(x, y)>"


def test_a_gate_that_returns_what_does_not_fit() -> None:
    x, y = Graph().inputs("x y")
    values = {"x": 3, "y": np.array([1.0, 2.0])}
    for gate, words in (
        (ForwardReturnsNothing(), "ForwardReturnsNothing1.forward returned None; expected an arr"),
        (BackwardReturnsNothing(), "returned None; expected 2 gradients, one for each input: end "
         "it with return [dx, dy]"),
        (OneGradient(), "OneGradient1.backward returned [array("),
        (MultiplyGate(), "MultiplyGate1.backward returned float64 of shape (2,) for its input 0, "
         "'x'; expected real numbers of that input's shape, ()"),
    ):  # fmt: skip
        net = lecture.ComputationalGraph(lecture.apply(gate, x, y))
        with pytest.raises(ValueError, match=re.escape(words)) as caught:
            net.forward(values), net.backward()
        assert "\n" not in str(caught.value)


def test_the_order_of_the_loops() -> None:
    x, y, z = Graph().inputs("x y z")
    circuit = lecture.Circuit((x + y) * z)
    gates = circuit.nodes_topologically_sorted()
    with pytest.raises(KeyError, match="input 'x' has no value"):
        gates[0].forward()
    circuit.pass_inputs({"x": -2, "y": 5, "z": -4})
    with pytest.raises(RuntimeError, match=r"Mul1.forward needs Add1.forward first"):
        circuit.final_gate.forward()
    with pytest.raises(RuntimeError, match=r"Mul1.backward needs a forward first"):
        circuit.final_gate.backward()
    for gate in gates:
        gate.forward()
    with pytest.raises(RuntimeError, match=r"x.backward needs Add1.backward first.*reversed"):
        gates[0].backward()
    with pytest.raises(RuntimeError, match=r"input_gradients needs x.backward first"):
        circuit.input_gradients()
    for gate in reversed(gates):
        gate.backward()
    assert circuit.input_gradients() == {"x": -4, "y": -4, "z": 3}
    circuit.final_gate.forward()
    assert circuit.final_gate.gradient is None
    with pytest.raises(RuntimeError, match=r"Add1.backward needs Mul1.backward first"):
        circuit.nodes_topologically_sorted()[2].backward()


def test_an_incomplete_gradient_is_refused_as_by_a_graph() -> None:
    x = Graph().input("x")
    f = softmax_with_loss(x, 2 * x)  # this loss gives its targets no gradient
    values = {"x": np.full((2, 2), 0.25)}
    net = lecture.ComputationalGraph(f)
    net.forward(values)
    with pytest.raises(ValueError, match="the gradient would be incomplete"):
        net.backward()
    _, tape = x.graph.forward(values, f)
    with pytest.raises(ValueError, match="the gradient would be incomplete"):
        x.graph.backward(tape)
    whole = lecture.ComputationalGraph(x[0])
    whole.forward({"x": np.array([1, 2])})
    with pytest.raises(ValueError, match=r"Index1 has dtype int64; a gradient needs reals"):
        whole.backward()


def test_a_gate_needs_a_forward_first() -> None:
    with pytest.raises(RuntimeError, match=r"^MultiplyGate\.backward needs a forward first") as e:
        lecture.MultiplyGate().backward(1.0)
    assert "\n" not in str(e.value)


def test_integers_are_refused_as_by_a_graph() -> None:
    gates: list[tuple[lecture.StatefulGate, tuple[Any, ...]]] = [
        (lecture.MultiplyGate(), (np.array([1, 2, 3]), 2.5)),
        (lecture.NegateGate(), (np.array([200], np.uint8),)),
    ]
    for gate, inputs in gates:
        words = f"{type(gate).__name__}.forward got an array of u?int"
        with pytest.raises(ValueError, match=words):
            gate.forward(*inputs)


def test_two_circuits_with_one_object_do_not_take_each_others_state() -> None:
    class Product:
        def forward(self, x: Any, y: Any) -> Any:
            self.x, self.y = x, y
            return x * y

        def backward(self, dz: Any) -> Any:
            return [self.y * dz, self.x * dz]

    x, y = Graph().inputs("x y")
    output = lecture.apply(Product(), x, y)
    one, two = lecture.ComputationalGraph(output), lecture.ComputationalGraph(output)
    one.forward({"x": 1.0, "y": 2.0})
    two.forward({"x": 10.0, "y": 20.0})
    with pytest.raises(RuntimeError, match="a gate of another circuit too, which has run forward"):
        one.backward()
    assert two.backward() == {"x": 20, "y": 10}
    one.forward({"x": 1.0, "y": 2.0})
    assert one.backward() == {"x": 2, "y": 1}


@pytest.mark.parametrize("bad", [[1.0], "a", (2,)])
def test_what_is_no_array_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"AddGate.forward got .*; expected numbers or arrays"):
        lecture.AddGate().forward(bad, 1.0)


def test_what_is_no_node_is_refused() -> None:
    for bad in (3, Graph()):
        with pytest.raises(TypeError, match="expected a node"):
            lecture.ComputationalGraph(bad)  # type: ignore[arg-type]


def test_a_number_set_after_the_forward_leaves_backward_as_it_was() -> None:
    x, y = Graph().inputs("x y")
    circuit = lecture.Circuit(x * y)
    circuit.pass_inputs({"x": 1.0, "y": 2.0})
    for gate in circuit.nodes_topologically_sorted():
        gate.forward()
    circuit.input_gates["x"].value = 5  # for the next forward
    for gate in reversed(circuit.nodes_topologically_sorted()):
        gate.backward()
    assert circuit.input_gradients() == {"x": 2, "y": 1}


def test_a_graph_of_a_circuit() -> None:
    x, y = Graph().inputs("x y")
    circuit = lecture.Circuit(x * y)
    net = lecture.ComputationalGraph(circuit)
    assert net.graph is circuit
    assert net.forward({"x": 3, "y": -4}) == -12
