"""The lecture's gates and graphs: their numbers, their state, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CASES, Case
from conftest import Library

from xpnet import lecture
from xpnet.graph import Graph

BASES = {"StatefulGate"}


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
