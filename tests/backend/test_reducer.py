"""Sums over the ranks within a step: right, the same bits on each, and nothing kept for nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpnet
from tests.ranks import on_ranks
from xpnet.parallel import Group

SHAPES = ((3, 4), (4,), ())


def summed(library: str, ranks: int) -> list[list[Any]]:
    pytest.importorskip(library, reason=f"{library} is not installed")
    backend = xpnet.select("cpu", library)

    def work(group: Group) -> list[Any]:
        rng = np.random.default_rng(group.rank)
        arrays = [np.asarray(rng.standard_normal(shape), np.float32) for shape in SHAPES]
        return backend.reducer(group)([backend.asarray(array) for array in arrays])

    return on_ranks(ranks, work)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_sums_are_those_of_all_ranks(library: str) -> None:
    found = [[np.asarray(array) for array in arrays] for arrays in summed(library, 3)]
    rngs = [np.random.default_rng(rank) for rank in range(3)]
    for k, shape in enumerate(SHAPES):
        expected = sum(rng.standard_normal(shape) for rng in rngs)
        assert found[0][k].shape == shape
        np.testing.assert_allclose(found[0][k], expected, rtol=1e-5)
        assert found[0][k].tobytes() == found[1][k].tobytes() == found[2][k].tobytes()


def test_a_loss_does_not_keep_the_buffer_of_its_step() -> None:
    # A loop keeps the losses of some 100 steps.
    for arrays in summed("numpy", 2):
        assert arrays[0].base is not None
        assert arrays[-1].base is None


def test_nor_does_one_of_torch() -> None:
    for arrays in summed("torch", 2):
        assert arrays[0].untyped_storage().nbytes() == 4 * 17
        assert arrays[-1].untyped_storage().nbytes() == 4
