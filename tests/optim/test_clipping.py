"""Clipping: by hand, and against float64 at every size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.arrays.dispatch import with_kernels


def test_clipping_by_global_norm() -> None:
    grads = {"W": np.array([[3.0]]), "b": np.array([4.0])}
    clipped = optim.clip_by_global_norm({k: v.copy() for k, v in grads.items()}, 1.0)
    assert clipped["W"][0, 0] == pytest.approx(0.6)
    assert clipped["b"][0] == pytest.approx(0.8)
    kept = optim.clip_by_global_norm({k: v.copy() for k, v in grads.items()}, 10.0)
    assert kept == grads


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e19, 1e20, 1e36])
def test_clipping_neither_overflows_nor_underflows(size: float, backend: Any) -> None:
    """Against the same in float64."""
    rng = np.random.default_rng(0)
    grads = {"W": rng.standard_normal((30, 40)) * size, "b": rng.standard_normal(40) * size}
    norm = math.sqrt(sum(float((g**2).sum()) for g in grads.values()))
    for max_norm in (1e-2 * norm, 0.5 * norm, 2.0 * norm, max(1e-3, 1e-30 * norm)):
        given = {n: backend.asarray(g.astype(np.float32)) for n, g in grads.items()}
        clip = backend.compile(lambda given, most=max_norm: optim.clip_by_global_norm(given, most))
        for name, got in clip(given).items():
            expected = grads[name] * min(1.0, max_norm / norm)
            got = backend.to_numpy(got)
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-38)


def test_clipping_leaves_what_is_small_as_it_is_and_hides_no_infinity() -> None:
    g = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    for kernels in ({}, xpnet.select("cpu").kernels):
        clip = with_kernels(optim.clip_by_global_norm, kernels)
        np.testing.assert_array_equal(clip({"W": g}, 1e3)["W"], g)
        for bad in (np.inf, np.nan):
            with np.errstate(invalid="ignore"):
                assert np.isnan(clip({"W": np.where(g > 1, np.float32(bad), g)}, 1.0)["W"]).any()
