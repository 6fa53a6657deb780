"""The book's layers and networks: their numbers, their names, and what they refuse."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from conftest import Library

from xpnet import lecture
from xpnet.book import ch05

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "gate", [lecture.MultiplyGate(), ch05.ReLU(), ch05.SoftmaxWithLoss(), ch05.Affine(1.0, 1.0)]
)
def test_backward_before_forward(gate: lecture.StatefulGate) -> None:
    with pytest.raises(
        RuntimeError, match=rf"{type(gate).__name__}\.backward needs a forward first"
    ) as e:
        gate.backward(1.0)
    assert "\n" not in str(e.value)


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
