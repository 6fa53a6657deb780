"""The book's numerical gradients: exact slopes, the book's idiom, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Library, open_library

from xpnet.book import gradient

RNG = np.random.default_rng(0)
# The largest error of a slope near 1, in each dtype.
ERRORS = {np.float64: 1e-8, np.float32: 3e-4, np.float16: 0.1}


@pytest.fixture(params=["numpy", "strict", "torch", pytest.param("cupy", marks=pytest.mark.gpu)])
def mutable(request: pytest.FixtureRequest) -> Library:
    return open_library(request.param)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(), (4,), (3, 2), (2, 3, 2)])
def test_f_may_read_the_array_from_elsewhere(
    mutable: Library, dtype: Any, shape: tuple[int, ...]
) -> None:
    start = RNG.uniform(-1, 1, shape).astype(dtype)
    W = mutable.asarray(start)
    slopes = gradient.numerical_gradient(lambda _: mutable.xp.sum(mutable.xp.sin(W)), W)
    assert type(slopes) is type(W)
    assert (slopes.dtype, slopes.shape) == (W.dtype, W.shape)
    np.testing.assert_allclose(mutable.to_numpy(slopes), np.cos(start), atol=ERRORS[dtype])
    np.testing.assert_array_equal(mutable.to_numpy(W), start)


@pytest.mark.parametrize("dtype", ERRORS)
def test_precision_of_each_dtype(dtype: Any) -> None:
    x = np.array([0.5, -1.0, 2.0, 100.0], dtype)
    weights = np.array([1.0, 1.0, 1.0, 1e-4], dtype)
    slopes = gradient.numerical_gradient(lambda x: (np.cos(x / 2) * weights).sum(), x)
    expected = -np.sin(x.astype(float) / 2) / 2 * weights
    np.testing.assert_allclose(slopes, expected, atol=ERRORS[dtype])


def test_the_steps_are_the_books_in_float64() -> None:
    """The error of a cubic is h², so it shows the step; f(x + h) is asked for first."""
    seen: list[float] = []

    def cubic(x: np.ndarray) -> float:
        seen.append(float(x[0]))
        return float(x[0]) ** 3

    slopes = gradient.numerical_gradient(cubic, np.array([2.0]))
    assert seen == [2.0 + 1e-4, 2.0 - 1e-4]
    assert slopes[0] - 12.0 == pytest.approx(1e-8, rel=1e-2)


def test_a_large_entry_has_a_larger_step() -> None:
    for large in (1e9, 1e15):
        slopes = gradient.numerical_gradient(lambda x: float(3.0 * x[0]), np.array([large]))
        assert slopes[0] == pytest.approx(3.0, rel=1e-6)


def test_what_f_raises_passes_through_and_the_array_is_restored(mutable: Library) -> None:
    x = mutable.asarray(np.array([0.1, 0.2, 0.3]))

    def fails(x: Any) -> float:
        if float(x[1]) != 0.2:
            raise ArithmeticError
        return 0.0

    with pytest.raises(ArithmeticError):
        gradient.numerical_gradient(fails, x)
    assert mutable.to_numpy(x).tolist() == [0.1, 0.2, 0.3]


def test_rows_and_the_gradient_of_each(mutable: Library) -> None:
    X = RNG.uniform(-1, 1, (5, 2))
    expected = np.stack([2 * X[:, 0] * X[:, 1], X[:, 0] ** 2], axis=1)

    def f(row: Any) -> Any:
        assert row.shape == (2,)
        return row[0] ** 2 * row[1]

    for given, slopes in ((X, expected), (X[0], expected[0])):
        found = gradient.numerical_gradient_2d(f, mutable.asarray(given))
        assert type(found) is type(mutable.asarray(given))
        np.testing.assert_allclose(mutable.to_numpy(found), slopes, rtol=1e-7)
    assert gradient.numerical_gradient_2d(f, np.empty((0, 2))).shape == (0, 2)
    np.testing.assert_allclose(gradient._numerical_gradient_1d(f, X[0]), expected[0], rtol=1e-7)


def test_views_are_changed_where_they_lie() -> None:
    whole = np.arange(12.0).reshape(3, 4)
    slopes = gradient.numerical_gradient(lambda _: (whole**2).sum(), whole[::2, 1::2])
    np.testing.assert_allclose(slopes, 2 * whole[::2, 1::2], rtol=1e-7)


def test_a_tensor_that_requires_grad() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    slopes = gradient.numerical_gradient(lambda _: (x**3).sum(), x)
    (x**3).sum().backward()
    np.testing.assert_allclose(slopes, x.grad, rtol=1e-7)
    assert x.tolist() == [[1.0, -2.0]]
    assert not slopes.requires_grad


def test_arrays_that_cannot_be_changed_are_refused(library: Library) -> None:
    x = library.asarray(np.array([1.0, 2.0], np.float32))
    changed = library.name in {"numpy", "torch", "cupy"} or library.name.startswith("strict")
    if changed:
        return
    for find in (gradient.numerical_gradient, gradient.numerical_gradient_2d):
        with pytest.raises(ValueError, match=r"expected an array that can be changed in place"):
            find(lambda x: x.sum(), x)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.array([1, 2]), "x holds int64; expected floating-point numbers"),
        ([1.0, 2.0], "x is a list; expected an array of floating-point numbers"),
        (3.0, "x is a float; expected an array"),
        (np.float64(3.0), "x is a float64; expected an array"),
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused(x: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gradient.numerical_gradient(lambda x: 0.0, x)


def function_1(x: Any) -> Any:
    """The book's example in chapter 4."""
    return 0.01 * x**2 + 0.1 * x


@pytest.mark.parametrize(
    ("f", "x", "printed"),
    [
        (function_1, 5, 0.1999999999990898),
        (function_1, 10, 0.2999999999986347),
        (lambda x: x * x + 4.0**2.0, 3.0, 6.00000000000378),
        (lambda x: 3.0**2.0 + x * x, 4.0, 7.999999999999119),
    ],
)
def test_numerical_diff_prints_the_books_numbers(
    f: Callable[[Any], Any], x: float, printed: float
) -> None:
    assert gradient.numerical_diff(f, x) == pytest.approx(printed, rel=1e-13)


def test_numerical_diff_of_arrays(mutable: Library) -> None:
    for dtype in (np.float64, np.float32, np.int64):
        x = np.array([5, 10, 1000], dtype)
        slopes = gradient.numerical_diff(function_1, mutable.asarray(x))
        np.testing.assert_allclose(mutable.to_numpy(slopes), [0.2, 0.3, 20.1], rtol=1e-4)


def test_star_import_gives_what_scripts_lean_on() -> None:
    names: dict[str, Any] = {}
    exec("from xpnet.book.gradient import *", names)
    assert names["np"] is np
    assert {"numerical_gradient", "numerical_gradient_2d"} < names.keys()
