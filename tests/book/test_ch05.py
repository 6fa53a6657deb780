"""The lecture's and the book's objects: their numbers, their names, and what they refuse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Library

from xpnet import lecture
from xpnet.book import ch05
from xpnet.graph import Graph

RNG = np.random.default_rng(0)


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
        assert name == "StatefulGate" or f"lecture.{name}" in source, name


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


@pytest.mark.parametrize(
    "gate", [lecture.MultiplyGate(), ch05.ReLU(), ch05.SoftmaxWithLoss(), ch05.Affine(1.0, 1.0)]
)
def test_backward_before_forward(gate: lecture.StatefulGate) -> None:
    with pytest.raises(
        RuntimeError, match=rf"{type(gate).__name__}\.backward needs a forward first"
    ) as e:
        gate.backward(1.0)
    assert "\n" not in str(e.value)


def test_a_second_backward_is_refused_and_another_forward_allows_it() -> None:
    x, y = Graph().inputs("x y")
    net = lecture.ComputationalGraph(x * y)
    for thing, inputs in ((lecture.MultiplyGate(), (3, -4)), (net, ({"x": 3, "y": -4},))):
        thing.forward(*inputs)
        thing.backward()
        with pytest.raises(RuntimeError, match="again before a second backward"):
            thing.backward()
        thing.forward(*inputs)
        thing.backward()


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


def test_integers_are_refused_as_by_a_graph() -> None:
    for gate, inputs in (
        (lecture.MultiplyGate(), (np.array([1, 2, 3]), 2.5)),
        (lecture.NegateGate(), (np.array([200], np.uint8),)),
        (ch05.Affine(np.ones((3, 2)), np.ones(2)), (np.array([[1, 2, 3]]),)),
    ):
        with pytest.raises(
            ValueError, match=f"{type(gate).__name__}.forward got an array of u?int"
        ):
            gate.forward(*inputs)


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


# -- The book ------------------------------------------------------------------------------


def test_relu_of_the_book_leaves_dout_alone() -> None:
    x, dout = np.array([[1.0, -0.5], [-2.0, 3.0]]), np.full((2, 2), 5.0)
    relu = ch05.ReLU()
    np.testing.assert_array_equal(relu.forward(x), [[1, 0], [0, 3]])
    np.testing.assert_array_equal(relu.backward(dout), [[5, 0], [0, 5]])
    np.testing.assert_array_equal(dout, 5)
    assert ch05.Relu is ch05.ReLU


def test_sigmoid_of_the_book() -> None:
    x = RNG.standard_normal((3, 4))
    sigmoid = ch05.Sigmoid()
    out = sigmoid.forward(x)
    np.testing.assert_allclose(out, 1 / (1 + np.exp(-x)))
    np.testing.assert_allclose(sigmoid.backward(x), x * (1 - out) * out)


@pytest.mark.parametrize("shape", [(5, 18), (5, 2, 3, 3)])
def test_affine_of_the_book(shape: tuple[int, ...]) -> None:
    x, W, b = RNG.standard_normal(shape), RNG.standard_normal((18, 4)), RNG.standard_normal(4)
    affine = ch05.Affine(W, b)
    dout = RNG.standard_normal((5, 4))
    np.testing.assert_allclose(affine.forward(x), np.dot(x.reshape(5, -1), W) + b)
    dx = affine.backward(dout)
    assert dx.shape == shape
    np.testing.assert_allclose(dx, np.dot(dout, W.T).reshape(shape))
    np.testing.assert_allclose(affine.dW, np.dot(x.reshape(5, -1).T, dout))
    np.testing.assert_allclose(affine.db, np.sum(dout, axis=0))


@pytest.mark.parametrize("one_hot", [False, True])
def test_softmax_with_loss_of_the_book(one_hot: bool) -> None:
    """The document's examples: (0.3, 0.2, 0.5) and (0.01, 0.99, 0) with class 1 being right."""
    y = np.array([[0.3, 0.2, 0.5], [0.01, 0.99, 1e-300]])
    t = np.array([1, 1])
    layer = ch05.SoftmaxWithLoss()
    loss = layer.forward(np.log(y), np.eye(3)[t] if one_hot else t)
    assert loss == layer.loss == pytest.approx(-(np.log(0.2) + np.log(0.99)) / 2)
    np.testing.assert_allclose(layer.y, y)
    expected = np.array([[0.3, -0.8, 0.5], [0.01, -0.01, 0]]) / 2
    np.testing.assert_allclose(layer.backward(), expected, atol=1e-15)


def reference(params: dict[str, np.ndarray], x: np.ndarray, t: np.ndarray) -> tuple[Any, ...]:
    """Loss and gradients by the document's formulas, in plain NumPy."""
    a1 = x @ params["W1"] + params["b1"]
    z1 = np.where(a1 > 0, a1, 0)
    a2 = z1 @ params["W2"] + params["b2"]
    y = np.exp(a2 - a2.max(axis=1, keepdims=True))
    y /= y.sum(axis=1, keepdims=True)
    dy = (y - t) / len(x)
    da1 = (dy @ params["W2"].T) * (a1 > 0)
    grads = {"W1": x.T @ da1, "b1": da1.sum(0), "W2": z1.T @ dy, "b2": dy.sum(0)}
    return -np.log((y * t).sum(axis=1)).mean(), grads, (y.argmax(1) == t.argmax(1)).mean()


def test_two_layer_net(library: Library) -> None:
    net = ch05.TwoLayerNet(6, 5, 3, weight_init_std=0.5, seed=1)
    assert list(net.params) == ["W1", "b1", "W2", "b2"]
    assert list(net.layers) == ["Affine1", "Relu1", "Affine2"]
    x, labels = RNG.standard_normal((7, 6)), RNG.integers(0, 3, 7)
    loss, grads, accuracy = reference(net.params, x, np.eye(3)[labels])
    for name in net.params:  # arrays of another library may take the place of NumPy's
        net.params[name] = library.asarray(net.params[name].astype("float32"))
    xs = library.asarray(x.astype("float32"))
    for t in (labels, np.eye(3, dtype="float32")[labels]):
        ts = library.asarray(t)
        assert float(net.loss(xs, ts)) == pytest.approx(loss, rel=1e-5)
        assert net.accuracy(xs, ts) == pytest.approx(accuracy)
        for name, gradient in net.gradient(xs, ts).items():
            np.testing.assert_allclose(library.to_numpy(gradient), grads[name], atol=1e-5)


def test_two_layer_net_numerical_gradient_and_update_in_place() -> None:
    net = ch05.TwoLayerNet(6, 5, 3, weight_init_std=0.5, seed=1)
    x, t = RNG.standard_normal((7, 6)), np.eye(3)[RNG.integers(0, 3, 7)]
    before = {name: p.copy() for name, p in net.params.items()}
    numerical, analytic = net.numerical_gradient(x, t), net.gradient(x, t)
    for name, p in net.params.items():
        np.testing.assert_array_equal(p, before[name])
        assert np.abs(numerical[name] - analytic[name]).mean() < 1e-9
    loss = net.loss(x, t)
    for name in net.params:
        net.params[name] -= 0.1 * analytic[name]
    assert net.loss(x, t) < loss


def test_two_layer_net_refuses_what_does_not_fit() -> None:
    net = ch05.TwoLayerNet(6, 5, 3)
    x = RNG.standard_normal((7, 6))
    for t, words in (
        (np.full(7, 3), "labels go from 3 to 3; expected 0 to 2"),
        (np.zeros((7, 2)), "targets of shape (7, 2)"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            net.loss(x, t)
    for t in (np.zeros((7, 1), int), np.zeros(1, int)):
        with pytest.raises(ValueError, match=r"expected labels, \(7,\), or one-hot rows, \(7, 3\)"):
            net.accuracy(x, t)
    with pytest.raises(ValueError, match="each of sizes is 0; expected a whole number"):
        ch05.TwoLayerNet(0, 5, 3)


def test_initial_weights_differ_unless_a_seed_is_given() -> None:
    nets = [ch05.TwoLayerNet(6, 5, 3, seed=seed).params["W1"] for seed in (None, None, 1, 1)]
    assert (nets[0] != nets[1]).all()
    np.testing.assert_array_equal(nets[2], nets[3])
