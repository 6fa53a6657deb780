"""A network's ReLU and pool run together; both layers then answer as after a forward alone."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet.book.ch07 import SimpleConvNet
from xpnet.book.layers import Affine, Pooling, Relu


def images(dtype: type = np.float64) -> np.ndarray:
    """Many equal values in a window, and windows without a positive one."""
    rng = np.random.default_rng(0)
    return rng.integers(-3, 2, (6, 3, 8, 6)).astype(dtype)


@pytest.mark.parametrize("windows", [(2, 2, 2), (3, 2, 1), (2, 3, 3)])
def test_together_they_compute_what_they_compute_alone(windows: tuple[int, int, int]) -> None:
    alone, together = ((Relu(), Pooling(*windows)) for _ in range(2))
    x = images()
    expected = alone[1].forward(alone[0].forward(x))
    dout = np.random.default_rng(1).standard_normal(expected.shape)
    y = together[1].forward_after(together[0], x)
    np.testing.assert_array_equal(y, expected)
    dx = together[1].backward_with_relu(dout)
    np.testing.assert_array_equal(dx, alone[0].backward(alone[1].backward(dout)))
    np.testing.assert_array_equal(x, images())


@pytest.mark.parametrize("question", ["x", "arg_max", "backward", "relu"])
def test_each_layer_answers_as_alone(question: str) -> None:
    alone, together = ((Relu(), Pooling(2, 2, 2)) for _ in range(2))
    x = images()
    shape = alone[1].forward(alone[0].forward(x)).shape
    together[1].forward_after(together[0], x)
    for (relu, pool), other in ((together, alone),):
        match question:
            case "x" | "arg_max":
                found, expected = getattr(pool, question), getattr(other[1], question)
            case "backward":
                found, expected = (p.backward(np.ones(shape)) for p in (pool, other[1]))
            case _:
                np.testing.assert_array_equal(relu.mask, other[0].mask)
                found, expected = (r.backward(np.ones(x.shape)) for r in (relu, other[0]))
        np.testing.assert_array_equal(found, expected)


def test_a_network_answers_as_its_layers_alone() -> None:
    network = SimpleConvNet((1, 12, 12), {"filter_num": 4, "filter_size": 3, "pad": 1, "stride": 1})
    x = np.random.default_rng(0).standard_normal((5, 1, 12, 12))
    t = np.arange(5)
    grads = {name: g.copy() for name, g in network.gradient(x, t).items()}
    pool, relu = network.layers["Pool1"], network.layers["Relu1"]
    assert pool.relu is relu
    h = network.layers["Conv1"].forward(x)
    np.testing.assert_array_equal(pool.x, np.maximum(h, 0))
    np.testing.assert_array_equal(relu.mask, h <= 0)
    y, dout = x, None
    for layer in network.layers.values():
        y = layer.forward(y)
    network.last_layer.forward(y, t)
    dout = network.last_layer.backward()
    for layer in reversed(network.layers.values()):
        dout = layer.backward(dout)
    np.testing.assert_allclose(network.layers["Conv1"].dW, grads["W1"], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(network.layers["Conv1"].db, grads["b1"], rtol=1e-12, atol=1e-15)


def test_a_pool_needs_a_forward() -> None:
    with pytest.raises(RuntimeError, match=r"Pooling\.backward needs a forward first"):
        Pooling(2, 2).backward_with_relu(np.ones((1, 1, 2, 2)))


def test_many_rows_of_another_dtype() -> None:
    """They are converted a thousand at a time, and give what they give at once."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2_300, 7)).astype(np.float32)
    W, b = rng.standard_normal((7, 3)), rng.standard_normal(3)
    dout = rng.standard_normal((2_300, 3))
    layer = Affine(W, b)
    y = layer.forward(x)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, x.astype(np.float64) @ W + b, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(layer.backward(dout), dout @ W.T, rtol=1e-12)
    np.testing.assert_allclose(layer.dW, x.T.astype(np.float64) @ dout, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(layer.x, x)
    assert layer.original_x_shape == (2_300, 7)
