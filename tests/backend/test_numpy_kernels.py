"""NumPy's kernels for a step, against the lines that they replace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xpnet import select
from xpnet.arrays import ops
from xpnet.arrays.dispatch import with_kernels
from xpnet.losses import classification
from xpnet.optim.clipping import scaled_norm

KERNELS = select("cpu").kernels
RNG = np.random.default_rng(0)
X = RNG.standard_normal((33, 7))
BESIDE = np.concatenate([X, np.full((33, 1), -np.inf)], axis=1)
T = RNG.integers(0, 7, 33)
WEIGHT = RNG.random((33, 1))
LIMITS = np.array([-np.inf, -1e4, -745.0, -700.0, -87.0, -1.0, 0.0, 1.0, 1e4, np.inf, np.nan])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (ops.sigmoid, (10 * X,)),
        (ops.sigmoid, (LIMITS,)),
        (ops.sigmoid, (np.asarray(-3.0),)),
        (ops.masked, (X, X > 0)),
        (ops.masked, (X.T, X.T > 0)),
        (ops.masked, (LIMITS, np.arange(11) % 2 == 0)),
        (ops.masked, (np.asarray(np.inf), np.asarray(False))),
        (classification.softmax_cross_entropy, (X, T, 0.1)),
        (classification.softmax_cross_entropy, (BESIDE, T.astype(np.uint8), WEIGHT)),
        (classification.softmax_cross_entropy, (X.reshape(3, 11, 7), T.reshape(3, 11), 0.1)),
        (classification.softmax_cross_entropy, (np.asfortranarray(X), T, 0.1)),
        (classification.softmax_cross_entropy, (X, np.eye(7)[T], 0.1)),
        (classification.softmax_cross_entropy, (X[:, :1], np.ones(33, int), 0.1)),
        (ops.squares, (X,)),
        (ops.squares, (np.asfortranarray(X),)),
        (ops.squares, (X[:, ::2],)),
        (classification.target_scores, (BESIDE, T, np.eye(8)[T])),
        (classification.target_scores, (X, np.eye(7)[T], np.eye(7)[T])),
    ],
)
def test_agree_with_the_lines(function: Any, arguments: Any, dtype: str) -> None:
    given = [
        a.astype(dtype, order="K") if isinstance(a, np.ndarray) and a.dtype == np.float64 else a
        for a in arguments
    ]
    with np.errstate(all="ignore"):  # as in a step
        expected, got = function(*given), with_kernels(function, KERNELS)(*given)
    pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
    limits = np.finfo(dtype)
    for one, other in pairs:
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=8 * limits.eps, atol=4 * limits.tiny)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e20])
def test_norms_agree_with_the_lines(size: float, dtype: str) -> None:
    arrays = [(size * X).astype(dtype), (size * X.T).astype(dtype), (size * T).astype(dtype)]
    for floor in (1e-30, 1e-3, 1e30):
        with np.errstate(all="ignore"):
            lines = scaled_norm(arrays, floor)
            kernel = with_kernels(scaled_norm, KERNELS)(arrays, floor)
        norm, other = (float(n) * float(unit) for n, unit in (lines, kernel))
        np.testing.assert_allclose(max(other, floor), max(norm, floor), rtol=1e-6)
