"""The graph: order, fan-out, several outputs, depth, and what it says when something is wrong."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from xpnet.gates import Add, Exp, Max, Mul, Reciprocal
from xpnet.graph import Graph
from xpnet.layers import Affine, Sigmoid
from xpnet.losses import SoftmaxWithLoss


def scalars(**values: float) -> dict[str, Any]:
    return {name: np.asarray(float(value)) for name, value in values.items()}


def test_sigmoid_neuron_of_the_lecture() -> None:
    """CS231n, lecture 4: 1 / (1 + exp(-(w0 x0 + w1 x1 + w2))) and its gradients, as printed."""
    graph = Graph()
    w0, x0, w1, x1, w2, minus, one = graph.inputs("w0 x0 w1 x1 w2 minus one")
    a = graph.apply(
        Add(),
        graph.apply(Add(), graph.apply(Mul(), w0, x0), graph.apply(Mul(), w1, x1)),
        w2,
    )
    e = graph.apply(Exp(), graph.apply(Mul(), a, minus))
    f = graph.apply(Reciprocal(), graph.apply(Add(), e, one))
    values = scalars(w0=2, x0=-1, w1=-3, x1=-2, w2=-3, minus=-1, one=1)
    y, tape = graph.forward(values, f)
    assert y == pytest.approx(0.73, abs=5e-3)
    grads = graph.backward(tape, ["w0", "x0", "w1", "x1", "w2"])
    printed = {"w0": -0.2, "x0": 0.4, "w1": -0.4, "x1": -0.6, "w2": 0.2}
    for name, value in printed.items():
        # the slide multiplies numbers that it has rounded to two digits: -0.59 became -0.60
        assert grads[name] == pytest.approx(value, abs=0.02)
    # and equal to the sigmoid as one gate
    whole = Graph()
    z = whole.input("z")
    y2, tape2 = whole.forward(scalars(z=1), whole.apply(Sigmoid(), z))
    assert y2 == pytest.approx(float(y))
    assert whole.backward(tape2, ["z"])["z"] == pytest.approx(float(grads["w2"]))


def test_fan_out_adds() -> None:
    graph = Graph()
    x = graph.input("x")
    square = graph.apply(Mul(), x, x)
    f = graph.apply(Add(), square, x)  # x² + x
    _, tape = graph.forward(scalars(x=3), f)
    assert graph.backward(tape, ["x"])["x"] == 7


def test_gradient_of_an_inner_node() -> None:
    graph = Graph()
    x, y = graph.inputs("x y")
    q = graph.apply(Add(), x, y, name="q")
    f = graph.apply(Mul(), q, q)
    _, tape = graph.forward(scalars(x=1, y=2), f)
    assert graph.backward(tape, ["q", "x"]) == {"q": 6, "x": 6}


def test_unused_branches_cost_nothing() -> None:
    class Forbidden:
        def forward(self, x: Any) -> Any:
            raise AssertionError("evaluated")

        def backward(self, cache: Any, dout: Any, needs: Any = None) -> Any:
            raise AssertionError("run backward")

    class NoBackward(Exp):
        def backward(self, cache: Any, dout: Any, needs: Any = None) -> Any:
            raise AssertionError("run backward")

    graph = Graph()
    x, y = graph.inputs("x y")
    graph.apply(Forbidden(), x)
    # y's branch is evaluated, but nobody asks for its gradient
    f = graph.apply(Mul(), x, graph.apply(NoBackward(), y))
    value, tape = graph.forward(scalars(x=2, y=0), f)
    assert value == 2
    assert graph.backward(tape, ["x"])["x"] == 1


def test_several_outputs() -> None:
    graph = Graph()
    x, y = graph.inputs("x y")
    a, b = graph.apply(Mul(), x, y), graph.apply(Add(), x, y)
    (va, vb), tape = graph.forward(scalars(x=2, y=5), a, b)
    assert (va, vb) == (10, 7)
    one = np.asarray(1.0)
    assert graph.backward(tape, "x y", [one, None]) == {"x": 5, "y": 2}
    assert graph.backward(tape, "x y", [one, one]) == {"x": 6, "y": 3}
    with pytest.raises(ValueError, match="2 outputs need douts"):
        graph.backward(tape, "x y")


def test_ten_thousand_gates_deep() -> None:
    graph = Graph()
    x, c = graph.inputs("x c")
    node = x
    for _ in range(10_000):
        node = graph.apply(Add(), node, c)
    value, tape = graph.forward(scalars(x=0, c=1), node)
    assert value == 10_000
    assert graph.backward(tape, "x c") == {"x": 1, "c": 10_000}


def test_two_forwards_before_a_backward_do_not_mix() -> None:
    graph = Graph()
    x = graph.input("x")
    f = graph.apply(Mul(), x, x)
    _, first = graph.forward(scalars(x=3), f)
    _, second = graph.forward(scalars(x=5), f)
    assert graph.backward(first, "x")["x"] == 6
    assert graph.backward(second, "x")["x"] == 10
    assert graph.backward(first, "x")["x"] == 6


def test_a_gate_that_passes_one_array_on_twice_does_not_corrupt() -> None:
    """Add hands the same dout to both inputs; adding to one in place would change the other."""
    graph = Graph()
    x, y = graph.inputs("x y")
    s = graph.apply(Add(), x, y)
    f = graph.apply(Add(), graph.apply(Add(), s, x), x)  # 3x + y
    _, tape = graph.forward({"x": np.ones(2), "y": np.ones(2)}, f)
    grads = graph.backward(tape, "x y", [np.ones(2)])
    np.testing.assert_array_equal(grads["x"], [3, 3])
    np.testing.assert_array_equal(grads["y"], [1, 1])


def network() -> Graph:
    graph = Graph()
    x, W1, b1, t = graph.inputs("x W1 b1 t")
    graph.apply(SoftmaxWithLoss(), graph.apply(Affine(), x, W1, b1), t)
    return graph


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda g: g.forward({"x": np.ones((2, 3))}), KeyError, "input 'W1' has no value"),
        (
            lambda g: g.forward(
                {
                    "x": np.ones((2, 3)),
                    "W1": np.ones((4, 5)),
                    "b1": np.ones(5),
                    "t": np.zeros(2, int),
                }
            ),
            ValueError,
            "Affine1(x (2, 3), W1 (4, 5), b1 (5,)): x of shape (2, 3)",
        ),
        (lambda g: g.input("x"), ValueError, "already has a node named 'x'"),
        (lambda g: g.apply(Max(), Graph().input("q"), g.nodes["x"]), ValueError, "another graph"),
    ],
)
def test_errors_name_the_node(act: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        act(network())


@pytest.mark.parametrize(
    ("name", "words"),
    [("W9", "no node named 'W9'"), ("t", "SoftmaxWithLoss1 has no gradient with respect to t")],
)
def test_gradient_of_what_has_none(name: str, words: str) -> None:
    graph = network()
    inputs = {"x": np.ones((2, 3)), "W1": np.ones((3, 5)), "b1": np.ones(5), "t": np.zeros(2, int)}
    _, tape = graph.forward(inputs)
    with pytest.raises(ValueError, match=words):
        graph.backward(tape, [name])


def test_nodes_added_after_a_backward_are_seen() -> None:
    graph = Graph()
    x = graph.input("x")
    f = graph.apply(Mul(), x, x)
    _, tape = graph.forward(scalars(x=3), f)
    assert graph.backward(tape, "x")["x"] == 6
    g = graph.apply(Mul(), f, x)
    _, tape = graph.forward(scalars(x=3), g)
    assert graph.backward(tape, "x")["x"] == 27


@pytest.mark.parametrize("name", ["\0", "a\nb", "x" * 10_000])
def test_an_unknown_name_is_quoted_in_one_line(name: str) -> None:
    graph = Graph()
    x = graph.input("x")
    y = x * x
    _, tape = graph.forward({"x": 1.0}, y)
    for call in (
        lambda: graph.forward({"x": 1.0}, name),
        lambda: graph.forward({name: 1.0}, y),
        lambda: graph.backward(tape, [name]),
    ):
        with pytest.raises((ValueError, KeyError)) as caught:
            call()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300
