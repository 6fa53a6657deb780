"""The book's layers: against formulas in plain NumPy, xpnet's gates and central differences."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Library

from benchmarks import im2col as reference
from xpnet import layers, losses
from xpnet.book import layers as book
from xpnet.graph.gradcheck import numerical_gradient

RNG = np.random.default_rng(0)


def near(a: Any, b: Any, rtol: float = 1e-12) -> None:
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def make(name: str) -> tuple[Any, np.ndarray]:
    """A layer of each kind, and an input for it."""
    rng = np.random.default_rng(1)
    flat, images = rng.standard_normal((5, 6)), rng.standard_normal((3, 2, 6, 6))
    built: dict[str, tuple[Callable[[], Any], np.ndarray]] = {
        "Relu": (book.Relu, flat),
        "Sigmoid": (book.Sigmoid, flat),
        "Affine": (lambda: book.Affine(rng.standard_normal((6, 4)), rng.standard_normal(4)), flat),
        "Affine of images": (
            lambda: book.Affine(rng.standard_normal((72, 4)), rng.standard_normal(4)), images
        ),
        "BatchNormalization": (
            lambda: book.BatchNormalization(rng.uniform(0.5, 2, 6), rng.standard_normal(6)), flat
        ),
        "BatchNormalization of images": (
            lambda: book.BatchNormalization(rng.uniform(0.5, 2, 72), rng.standard_normal(72)),
            images,
        ),
        "Convolution": (
            lambda: book.Convolution(rng.standard_normal((4, 2, 3, 3)), rng.standard_normal(4)),
            images,
        ),
        "Convolution with stride and pad": (
            lambda: book.Convolution(
                rng.standard_normal((4, 2, 3, 3)), rng.standard_normal(4), stride=2, pad=1
            ),
            images,
        ),
        "Pooling": (lambda: book.Pooling(2, 2), images),
        "Pooling with overlaps and pad": (lambda: book.Pooling(3, 3, stride=2, pad=1), images),
    }  # fmt: skip
    layer, x = built[name]
    return layer(), x


NAMES = [
    "Relu", "Sigmoid", "Affine", "Affine of images", "BatchNormalization",
    "BatchNormalization of images", "Convolution", "Convolution with stride and pad", "Pooling",
    "Pooling with overlaps and pad",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_differences(name: str) -> None:
    layer, x = make(name)
    dout = RNG.standard_normal(layer.forward(x).shape)

    def f(_: np.ndarray) -> float:
        return float((layer.forward(x) * dout).sum())

    arrays = {"dx": x} | {
        f"d{p}": getattr(layer, p) for p in ("W", "b", "gamma", "beta") if hasattr(layer, p)
    }
    numerical = {key: numerical_gradient(f, array) for key, array in arrays.items()}
    layer.forward(x)
    dx = layer.backward(dout)
    for key, expected in numerical.items():
        near(dx if key == "dx" else getattr(layer, key), expected, 1e-5)
    again = layer.backward(dout)  # as in the book, you may
    np.testing.assert_array_equal(again, dx)


@pytest.mark.parametrize("name", NAMES)
def test_layers_on_every_library(name: str, library: Library) -> None:
    layer, x = make(name)
    y = layer.forward(x)
    dout = RNG.standard_normal(y.shape)
    dx = layer.backward(dout)
    other, _ = make(name)
    given = [p for p in ("W", "b", "gamma", "beta") if hasattr(layer, p)]
    for p in given:
        setattr(other, p, library.asarray(getattr(layer, p).astype("float32")))
    near(library.to_numpy(other.forward(library.asarray(x.astype("float32")))), y, 2e-5)
    near(library.to_numpy(other.backward(library.asarray(dout.astype("float32")))), dx, 1e-4)
    for p in given:
        near(library.to_numpy(getattr(other, f"d{p}")), getattr(layer, f"d{p}"), 1e-4)


def test_relu() -> None:
    x, dout = np.array([[1.0, -0.5], [0.0, 3.0]]), np.full((2, 2), 5.0)
    relu = book.Relu()
    np.testing.assert_array_equal(relu.forward(x), [[1, 0], [0, 3]])
    np.testing.assert_array_equal(relu.mask, [[False, True], [True, False]])
    np.testing.assert_array_equal(relu.backward(dout), [[5, 0], [0, 5]])
    np.testing.assert_array_equal(dout, 5)  # the book's writes into it
    assert book.Relu is book.ReLU


def test_sigmoid_keeps_its_output_and_does_not_overflow() -> None:
    x = RNG.standard_normal((3, 4))
    sigmoid = book.Sigmoid()
    out = sigmoid.forward(x)
    near(out, 1 / (1 + np.exp(-x)))
    assert sigmoid.out is out
    near(sigmoid.backward(x), x * (1 - out) * out)
    np.testing.assert_array_equal(sigmoid.forward(np.array([-1000.0, 1000.0])), [0, 1])


@pytest.mark.parametrize("shape", [(5, 18), (5, 2, 3, 3)])
@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_affine(shape: tuple[int, ...], dtype: str) -> None:
    x = RNG.uniform(0, 9, shape).astype(dtype)
    W, b = RNG.standard_normal((18, 4)), RNG.standard_normal(4)
    affine = book.Affine(W, b)
    dout = RNG.standard_normal((5, 4))
    rows = x.reshape(5, -1).astype("float64")
    near(affine.forward(x), np.dot(rows, W) + b)
    np.testing.assert_array_equal(affine.x, rows)
    assert affine.original_x_shape == shape
    near(affine.backward(dout), np.dot(dout, W.T).reshape(shape))
    near(affine.dW, np.dot(rows.T, dout))
    near(affine.db, np.sum(dout, axis=0))
    assert affine.W is W
    assert affine.backward(dout, needs_dx=False) is None


@pytest.mark.parametrize("targets", ["labels", "a column of labels", "one-hot rows"])
def test_softmax_with_loss(targets: str) -> None:
    """The first two rows are the document's: (0.3, 0.2, 0.5), and (0.01, 0.99, 0)."""
    y = np.array([[0.3, 0.2, 0.5], [0.01, 0.99, 1e-300], [1, 1e-300, 1e-300]])
    labels = np.array([1, 1, 2])
    t = {"labels": labels, "one-hot rows": np.eye(3)[labels]}.get(targets, labels[:, None])
    layer = book.SoftmaxWithLoss()
    loss = layer.forward(np.log(y), t)
    assert layer.loss is loss
    assert layer.t is t
    near(loss, -(np.log(0.2 + 1e-7) + np.log(0.99 + 1e-7) + np.log(1e-7)) / 3)
    near(layer.y, y, 1e-14)
    expected = np.array([[0.3, -0.8, 0.5], [0.01, -0.01, 0], [1, 0, -1]]) / 3
    near(layer.backward(), expected, 1e-14)
    near(layer.backward(2), 2 * expected, 1e-14)  # the book's returns the same as for 1


def test_losses_at_the_ends() -> None:
    layer = book.SoftmaxWithLoss()
    scores = np.array([[1000.0, 0.0]])
    assert layer.forward(scores, np.array([0])) == pytest.approx(-9.9999995e-08, rel=1e-6)
    assert layer.forward(scores, np.array([1])) == pytest.approx(16.11809565095832)


def test_softmax_gradient_is_the_gates() -> None:
    x, t = RNG.standard_normal((4, 3)), np.array([0, 2, 1, 1])
    layer = book.SoftmaxWithLoss()
    layer.forward(x, t)
    _, cache = losses.SoftmaxWithLoss().forward(x, t)
    near(layer.backward(), losses.SoftmaxWithLoss().backward(cache, 1.0)[0])


def test_dropout() -> None:
    x, dout = RNG.standard_normal((4, 5)), RNG.standard_normal((4, 5))
    layer = book.Dropout(0.3)
    np.random.seed(3)
    y = layer.forward(x)
    np.random.seed(3)
    mask = np.random.rand(4, 5) > 0.3
    np.testing.assert_array_equal(y, x * mask)
    np.testing.assert_array_equal(layer.mask, mask)
    np.testing.assert_array_equal(layer.backward(dout), dout * mask)
    near(layer.forward(x, train_flg=False), x * 0.7)
    np.testing.assert_array_equal(layer.backward(dout), dout * mask)


def batch_norm(
    rows: np.ndarray, gamma: np.ndarray, beta: np.ndarray, dout: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Output, statistics and dx by one matrix: the derivative of each output by each input."""
    n = len(rows)
    mean, var = rows.mean(0), rows.var(0)
    std = np.sqrt(var + 1e-6)
    xn = (rows - mean) / std
    dx = np.empty_like(rows)
    for j in range(rows.shape[1]):
        jacobian = (np.eye(n) - 1 / n - np.outer(xn[:, j], xn[:, j]) / n) * gamma[j] / std[j]
        dx[:, j] = jacobian @ dout[:, j]
    return gamma * xn + beta, mean, var, xn, std, dx


@pytest.mark.parametrize("shape", [(6, 8), (6, 2, 2, 2)])
def test_batch_normalization(shape: tuple[int, ...]) -> None:
    gamma, beta = RNG.uniform(0.5, 2, 8), RNG.standard_normal(8)
    layer = book.BatchNormalization(gamma, beta, momentum=0.8)
    running_mean, running_var = np.zeros(8), np.zeros(8)
    for _ in range(3):
        x, dout = 2 + 3 * RNG.standard_normal(shape), RNG.standard_normal(shape)
        rows, flat = x.reshape(6, 8), dout.reshape(6, 8)
        y, mean, var, xn, std, dx = batch_norm(rows, gamma, beta, flat)
        near(layer.forward(x), y.reshape(shape))
        near(layer.backward(dout), dx.reshape(shape))
        running_mean = 0.8 * running_mean + 0.2 * mean
        running_var = 0.8 * running_var + 0.2 * var
        near(layer.running_mean, running_mean)
        near(layer.running_var, running_var)
        near(layer.xn, xn)
        near(layer.xc, rows - mean)
        near(layer.std, std)
        near(layer.dgamma, (flat * xn).sum(0))
        near(layer.dbeta, flat.sum(0))
        assert (layer.batch_size, layer.input_shape) == (6, shape)
    x = RNG.standard_normal(shape)
    expected = gamma * (x.reshape(6, 8) - running_mean) / np.sqrt(running_var + 1e-6) + beta
    near(layer.forward(x, train_flg=False), expected.reshape(shape))
    near(layer.running_mean, running_mean)
    near(layer.backward(dout), dx.reshape(shape))  # of the last forward in training


def test_batch_normalization_of_one_sample() -> None:
    """No variance: beta, and no gradient, as in the book."""
    layer = book.BatchNormalization(np.full(3, 2.0), np.arange(3.0))
    x = np.array([[5.0, -1.0, 2.0]])
    np.testing.assert_array_equal(layer.forward(x), [[0, 1, 2]])
    np.testing.assert_array_equal(layer.backward(np.ones((1, 3))), [[0, 0, 0]])
    np.testing.assert_array_equal(layer.dgamma, [0, 0, 0])
    np.testing.assert_array_equal(layer.dbeta, [1, 1, 1])
    near(layer.running_mean, 0.1 * x[0])
    near(layer.running_var, np.zeros(3))


def test_convolution_and_pooling_of_the_reference() -> None:
    x, W, b = (RNG.standard_normal(s) for s in ((3, 2, 7, 7), (4, 2, 3, 3), (4,)))
    ours, theirs = book.Convolution(W, b, pad=1), reference.Convolution("1", {"W1": W, "b1": b}, 1)
    near(ours.forward(x), theirs.forward(x))
    np.testing.assert_array_equal(ours.col, theirs.col)
    np.testing.assert_array_equal(ours.col_W, theirs.col_W)
    assert ours.x is x
    dout, grads = RNG.standard_normal((3, 4, 7, 7)), {}
    near(ours.backward(dout), theirs.backward(dout, grads))
    near(ours.dW, grads["W1"])
    near(ours.db, grads["b1"])
    x = RNG.integers(0, 3, (3, 4, 6, 6)) / 2  # many ties
    pool, reference_pool = book.Pooling(2, 2, 2), reference.Pooling()
    near(pool.forward(x), reference_pool.forward(x))
    np.testing.assert_array_equal(pool.arg_max, reference_pool.largest)
    dout = RNG.standard_normal((3, 4, 3, 3))
    near(pool.backward(dout), reference_pool.backward(dout, {}))


def test_a_number_as_bias_and_images_of_float32() -> None:
    """As in the book's chapter 7, which shows filters without their biases."""
    image, W = RNG.random((1, 1, 6, 6)).astype("float32"), RNG.standard_normal((2, 1, 3, 3))
    y = book.Convolution(W, 0).forward(image)
    near(y, layers.Convolution().forward(image.astype("float64"), W)[0])
    near(book.Convolution(W, 1.5).forward(image), y + 1.5)
    W = RNG.standard_normal((36, 2))
    near(book.Affine(W, 2).forward(image), image.astype("float64").reshape(1, -1) @ W + 2)


def test_the_apple_and_oranges_of_the_book() -> None:
    """Two apples of 100 yen, three oranges of 150, 10 % tax: 715 yen."""
    apples, oranges, total, taxed = (
        book.MulLayer(),
        book.MulLayer(),
        book.AddLayer(),
        book.MulLayer(),
    )
    price = taxed.forward(total.forward(apples.forward(100, 2), oranges.forward(150, 3)), 1.1)
    assert price == pytest.approx(715)
    d_total, d_tax = taxed.backward(1)
    d_apples, d_oranges = total.backward(d_total)
    assert apples.backward(d_apples) == pytest.approx((2.2, 110))
    assert oranges.backward(d_oranges) == pytest.approx((3.3, 165))
    assert d_tax == 650
    assert str(apples.forward(100, 2)) == "200"
    assert (apples.x, apples.y) == (100, 2)


@pytest.mark.parametrize("name", NAMES)
def test_backward_needs_a_forward(name: str) -> None:
    layer, x = make(name)
    words = rf"^{type(layer).__name__}\.backward needs a forward first: run forward$"
    with pytest.raises(RuntimeError, match=words):
        layer.backward(np.ones(1))
    dout = np.ones_like(layer.forward(x))
    with pytest.raises(ValueError, match=r"forward"):
        layer.forward("x" if name in ("Relu", "Sigmoid") else np.ones((2, 1, 1)))
    with pytest.raises(RuntimeError, match=words):  # an earlier forward does not count
        layer.backward(dout)


def test_what_does_not_fit_is_one_line() -> None:
    affine = book.Affine(np.ones((3, 2)), np.ones(2))
    affine.forward(np.ones((4, 3)))
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: affine.backward(np.ones((4, 3))), "Affine.backward got shape (4, 3); expected an"),
        (lambda: affine.forward([[1.0, 2.0, 3.0]]), "Affine.forward got x of type list; expected"),
        (lambda: affine.forward(np.ones((4, 5))), "Affine.forward: x of shape (4, 5) does not fit"),
        (lambda: book.SoftmaxWithLoss().forward(np.ones((2, 3)), np.array([0, 3])), "labels go fr"),
        (lambda: book.SoftmaxWithLoss().forward(np.ones((2, 3)), np.ones((2, 4))), "targets of sh"),
        (lambda: book.Pooling(9, 9).forward(np.ones((1, 1, 4, 4))), "windows of 9 rows do not fit"),
    ]  # fmt: skip
    for call, words in cases:
        with pytest.raises(ValueError, match=re.escape(words)) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_arrays_of_two_libraries_are_refused() -> None:
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    affine = book.Affine(np.ones((3, 2)), np.ones(2))
    with pytest.raises(ValueError, match="got x of array_api_strict and W of numpy; expected one"):
        affine.forward(strict.ones((4, 3)))


def test_the_star_import_brings_the_books_names() -> None:
    names: dict[str, Any] = {}
    exec("from xpnet.book.layers import *", names)
    expected = {
        "Relu",
        "Affine",
        "SoftmaxWithLoss",
        "softmax",
        "cross_entropy_error",
        "im2col",
        "np",
    }
    assert expected <= {*names}


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int64", "float32"])
@pytest.mark.parametrize("rows", [True, False])
def test_targets_of_every_dtype_on_every_library(library: Library, dtype: str, rows: bool) -> None:
    labels = np.array([2, 0, 1, 1])
    if not rows and dtype[0] in "bf":
        pytest.skip("class indices are whole numbers")
    x = np.random.default_rng(3).standard_normal((4, 3))
    plain, other = book.SoftmaxWithLoss(), book.SoftmaxWithLoss()
    loss = plain.forward(x, labels)
    t = library.asarray((np.eye(3)[labels] if rows else labels).astype(dtype))
    got = other.forward(library.asarray(x.astype(np.float32)), t)
    near(library.to_numpy(got), loss, 1e-6)
    near(library.to_numpy(other.backward()), plain.backward(), 1e-6)


def test_targets_of_another_library_are_refused() -> None:
    torch = pytest.importorskip("torch")
    x = np.ones((2, 3))
    for one, two in ((torch.asarray(x), np.array([0, 1])), (x, torch.asarray([0, 1]))):
        with pytest.raises(ValueError, match="expected one library"):
            book.SoftmaxWithLoss().forward(one, two)
    with pytest.raises(ValueError, match="got targets of type list; expected an array"):
        book.SoftmaxWithLoss().forward(x, [0, 1])  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.ones(2) * 1j, np.array([1, None])])
def test_what_is_no_real_number_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=f"got x of dtype {bad.dtype}; expected real numbers"):
        book.Relu().forward(bad)


def test_what_is_no_array_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="got W of type list; expected an array"):
        book.Affine([[1.0]], [0.0]).forward(np.ones((1, 1)))  # type: ignore[arg-type]
    layer = book.BatchNormalization(np.ones(3), np.zeros(3))
    layer.forward(np.ones((2, 3)))
    with pytest.raises(ValueError, match="backward got list; expected an array of the output's"):
        layer.backward([1.0])  # type: ignore[arg-type]


# -- Arrays that change between the passes -------------------------------------------------


def changed(name: str, before: Callable[[Any, Any], None]) -> None:
    """The gradients are those of the forward pass, whatever `before` does to x and y then."""
    layer, x = make(name)
    other, _ = make(name)
    dout = np.random.default_rng(5).standard_normal(other.forward(x.copy()).shape)
    y = layer.forward(x)
    before(x, y)
    near(layer.backward(dout), other.backward(dout))
    for attribute in ("dW", "db", "mask", "arg_max", "col"):
        if hasattr(other, attribute):
            near(getattr(layer, attribute), getattr(other, attribute))


@pytest.mark.parametrize("name", ["Relu", "Pooling", "Pooling with overlaps and pad"])
def test_you_may_change_the_output(name: str) -> None:
    def before(x: np.ndarray, y: np.ndarray) -> None:
        y += 10.0

    changed(name, before)


@pytest.mark.parametrize("name", ["Relu", "Convolution", "Convolution with stride and pad"])
def test_you_may_change_the_input(name: str) -> None:
    def before(x: np.ndarray, y: np.ndarray) -> None:
        x *= -3.0

    changed(name, before)


def test_relu_passes_the_gradient_of_what_is_not_a_number_as_its_mask_says() -> None:
    layer = book.Relu()
    layer.forward(np.array([np.nan, -1.0, 2.0]))
    assert layer.mask.tolist() == [False, True, False]
    assert layer.backward(np.ones(3)).tolist() == [1.0, 0.0, 1.0]


def test_the_two_gradients_of_a_sum_are_two_arrays() -> None:
    layer, dout = book.AddLayer(), np.ones(2)
    layer.forward(np.ones(2), np.ones(2))
    dx, dy = layer.backward(dout)
    dx += 5
    assert dy.tolist() == dout.tolist() == [1, 1]


def test_numbers_stay_pythons_own() -> None:
    layer = book.MulLayer()
    assert repr(layer.forward(2**40, 2**40)) == repr(2**80)
    assert repr(layer.backward(1)) == repr((2**40, 2**40))
    assert type(layer.forward(2, 1.5)) is float
    assert layer.backward(np.float64(2.0)) == (3.0, 4.0)
    assert book.AddLayer().forward([1, 2], 3).tolist() == [4, 5]


def test_a_number_beside_an_array_of_another_library(library: Library) -> None:
    x = library.asarray(np.array([3.0, 4.0], "f4"))
    layer = book.MulLayer()
    assert library.to_numpy(layer.forward(x, 2)).tolist() == [6, 8]
    dx, dy = layer.backward(library.asarray(np.ones(2, "f4")))
    assert library.to_numpy(dx).tolist() == [2, 2]
    assert float(dy) == 7


@pytest.mark.parametrize("name", NAMES)
def test_gradients_in_another_dtype_than_the_output(name: str) -> None:
    """One-hot targets of float64 give those, whatever the network computes with."""
    rng = np.random.default_rng(6)
    for dtype in ("float16", "float32"):
        layer, x = make(name)
        other, _ = make(name)
        for key in ("W", "b", "gamma", "beta"):
            if hasattr(layer, key):
                setattr(layer, key, getattr(layer, key).astype(dtype))
        y = layer.forward(x.astype(dtype))
        dout = rng.standard_normal(y.shape)
        other.forward(x)
        tolerance = 1e-4 if dtype == "float32" else 0.3
        near(layer.backward(dout), other.backward(dout), tolerance)


def test_running_values_follow_parameters_to_another_library(library: Library) -> None:
    """As where a network has predicted before its parameters move to a GPU."""
    x = np.random.default_rng(2).standard_normal((4, 3)).astype("f4")
    ones, zeros = np.ones(3, "f4"), np.zeros(3, "f4")
    layer, other = (book.BatchNormalization(ones, zeros) for _ in range(2))
    for each in (layer, other):
        each.forward(x)
    layer.gamma, layer.beta = library.asarray(ones), library.asarray(zeros)
    for train_flg in (False, True, False):
        y = layer.forward(library.asarray(x), train_flg)
        near(library.to_numpy(y), other.forward(x, train_flg), 1e-5)
    near(library.to_numpy(layer.running_var), other.running_var, 1e-5)


def test_running_values_that_are_numbers_or_one_alone() -> None:
    x, ones = np.random.default_rng(2).standard_normal((4, 3)), np.ones(3)
    layer = book.BatchNormalization(ones, 0 * ones, running_mean=0.5, running_var=3.0)
    near(layer.forward(x, False), (x - 0.5) / np.sqrt(3.0 + 1e-6))
    layer = book.BatchNormalization(ones, 0 * ones, running_mean=ones)
    with pytest.raises(ValueError, match="got running_mean alone; expected running_var too"):
        layer.forward(x, False)
