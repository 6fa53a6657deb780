"""The book's functions: its formulas in plain NumPy, its quirks, and other libraries."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from conftest import Library

from xpnet.book import functions

RNG = np.random.default_rng(0)
X = RNG.uniform(-5, 5, (4, 3))
ROWS = np.exp(X) / np.exp(X).sum(axis=1, keepdims=True)  # the softmax of X
LABELS = np.array([2, 0, 1, 1])
ONE_HOT = np.eye(3)[LABELS]

FORMULAS: dict[str, Any] = {
    "identity_function": lambda x: x,
    "step_function": lambda x: np.where(x > 0, 1, 0),
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "sigmoid_grad": lambda x: np.exp(-x) / (1.0 + np.exp(-x)) ** 2,
    "relu": lambda x: np.where(x > 0, x, 0),
    "relu_grad": lambda x: np.where(x >= 0, 1, 0),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True),
}


def cross_entropy(y: np.ndarray, labels: np.ndarray) -> float:
    return -sum(np.log(row[c] + 1e-7) for row, c in zip(y, labels, strict=True)) / len(y)


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_on_every_library(name: str, library: Library) -> None:
    for shape in [(5,), (4, 3), (2, 3, 4)]:
        x = RNG.uniform(-5, 5, shape).astype(np.float32)
        y = getattr(functions, name)(library.asarray(x))
        np.testing.assert_allclose(library.to_numpy(y), FORMULAS[name](x), rtol=1e-5, atol=1e-6)
        assert type(y) is type(library.asarray(x))
        if name != "step_function":
            assert library.to_numpy(y).dtype == np.float32


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("x", [3, -1, 0.5, np.float64(-2.0), np.array(1.5), np.array(-3)])
def test_numbers(name: str, x: Any) -> None:
    y = getattr(functions, name)(x)
    np.testing.assert_allclose(y, FORMULAS[name](np.array(x)[None])[0], rtol=1e-12)
    assert np.shape(y) == ()


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint8])
def test_integers_do_not_wrap_around(dtype: Any) -> None:
    x = np.array([[0, 1, 7], [3, 0, 2]], dtype)
    for name in ("sigmoid", "sigmoid_grad", "softmax"):
        y = getattr(functions, name)(x)
        np.testing.assert_allclose(y, FORMULAS[name](x.astype(float)), rtol=1e-12)
        assert y.dtype == np.float64
    assert functions.relu(x).dtype == functions.relu_grad(x).dtype == dtype
    assert functions.sum_squared_error(x, x[::-1]) == 0.5 * (9 + 1 + 25) * 2


def test_nothing_overflows() -> None:
    x = np.array([-1000.0, -30.0, 0.0, 1000.0])
    np.testing.assert_allclose(functions.sigmoid(x), [0, 9.357622968839299e-14, 0.5, 1], rtol=1e-12)
    np.testing.assert_allclose(functions.sigmoid_grad(x)[[0, 2, 3]], [0, 0.25, 0])
    np.testing.assert_allclose(functions.softmax(x), [0, 0, 0, 1])
    with warnings.catch_warnings(), np.errstate(all="raise"):
        functions.sigmoid(x)


def test_a_relu_grad_that_is_1_at_0_and_keeps_nan() -> None:
    assert functions.relu_grad(np.array([-0.0, 0.0])).tolist() == [1.0, 1.0]
    assert np.isnan(functions.relu(np.array([np.nan]))[0])


def test_sum_squared_error_of_the_book() -> None:
    """The two examples of chapter 4: the answer 2 has the probability 0.6, then 0.1."""
    t = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    good = [0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0]
    bad = [0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0]
    for y, squared, entropy in ((good, 0.0975, 0.5108254570993381), (bad, 0.5975, 2.3025840929945)):
        y, labels = np.array(y), np.array(t)
        assert functions.sum_squared_error(y, labels) == pytest.approx(squared, rel=1e-14)
        assert functions.cross_entropy_error(y, labels) == pytest.approx(entropy, rel=1e-13)
    assert functions.mean_squared_error is functions.sum_squared_error


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_cross_entropy_on_every_library(library: Library, dtype: Any) -> None:
    y, expected = library.asarray(ROWS.astype(np.float32)), cross_entropy(ROWS, LABELS)
    for t in (LABELS, LABELS[:, None], ONE_HOT):
        loss = functions.cross_entropy_error(y, library.asarray(t.astype(dtype)))
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        loss = functions.softmax_loss(
            library.asarray(X.astype(np.float32)), library.asarray(t.astype(dtype))
        )
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        assert library.to_numpy(loss).dtype == np.float32


def test_cross_entropy_of_one_sample() -> None:
    for t in (ONE_HOT[0], ONE_HOT[:1], LABELS[0], LABELS[:1], 2):
        loss = functions.cross_entropy_error(ROWS[0], t)
        assert loss == pytest.approx(cross_entropy(ROWS[:1], LABELS[:1]), rel=1e-14)


def test_cross_entropy_keeps_the_constant_of_the_book() -> None:
    y = np.array([[1.0, 0.0]])
    assert functions.cross_entropy_error(y, np.array([0])) == pytest.approx(-9.9999995e-08)
    assert functions.cross_entropy_error(y, np.array([1])) == pytest.approx(16.11809565095832)


def test_cross_entropy_of_one_column() -> None:
    """Here N labels have as many elements as y; they are labels by their shape."""
    y, expected = np.array([[0.5], [0.25]]), -(np.log(0.5) + np.log(0.25)) / 2
    for t in (np.array([0, 0]), np.array([[1], [1]])):
        assert functions.cross_entropy_error(y, t) == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_of_rows_that_are_not_one_hot_takes_the_largest() -> None:
    soft = np.array([[0.2, 0.3, 0.5]])
    assert functions.cross_entropy_error(ROWS[:1], soft) == pytest.approx(-np.log(ROWS[0, 2]), 1e-5)


@pytest.mark.parametrize(
    ("y", "t", "words"),
    [
        (ROWS, LABELS[:3], "expected 4 integer class indices, or one-hot rows of shape"),
        (ROWS, LABELS.astype(float), "and dtype float64 do not fit"),
        (ROWS[:1], ONE_HOT[0], r"targets of shape \(3,\)"),
        (ROWS, LABELS - 1, "labels go from -1 to 1; expected 0 to 2"),
        (ROWS, LABELS + 1, "labels go from 1 to 3; expected 0 to 2"),
        (ROWS[None], LABELS, r"y has shape \(1, 4, 3\); expected probabilities"),
    ],
)
def test_cross_entropy_refuses_what_does_not_fit(y: Any, t: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        functions.cross_entropy_error(y, t)


def test_float16_stays_and_lists_are_read() -> None:
    x = np.array([0.5, -1.0], np.float16)
    for name in FORMULAS.keys() - {"step_function"}:
        assert getattr(functions, name)(x).dtype == np.float16
    np.testing.assert_allclose(functions.softmax([0.0, np.log(3.0)]), [0.25, 0.75])


def test_star_import_gives_what_scripts_lean_on() -> None:
    names: dict[str, Any] = {}
    exec("from xpnet.book.functions import *", names)
    assert names["np"] is np
    assert FORMULAS.keys() < names.keys()
