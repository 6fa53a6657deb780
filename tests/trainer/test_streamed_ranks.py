"""Ranks whose shares differ by a row, or that have more or less memory, take the same shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import on_ranks

import xpnet
from xpnet import optim
from xpnet.data import loader
from xpnet.parallel import Group

RNG = np.random.default_rng(0)
X, T = RNG.standard_normal((97, 16)), RNG.integers(0, 3, 97)


def losses(group: Group, x: Any, full: int | None = None) -> list[float]:
    """Train in batches of 7, of which two ranks take 3 and 4 rows; one rank may have no room."""
    backend = xpnet.select("cpu")
    if full == group.rank:
        backend.free_memory = lambda: 100  # type: ignore[method-assign]
    trainer = xpnet.Trainer(
        xpnet.mlp([16, 5, 3]), optim.Adam(0.01), backend=backend, dtype="float64", scaling=None,
        group=group,
    )  # fmt: skip
    return trainer.fit(x, T, epochs=2, batch_size=7).losses


@pytest.mark.parametrize("size", [2, 3])
def test_shards_end_at_the_same_steps(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "SHARD_BYTES", 3000)  # 3 batches
    np.save(tmp_path / "x.npy", X)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    (expected,) = on_ranks(1, lambda group: losses(group, X))
    for found in on_ranks(size, lambda group: losses(group, x)):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_if_one_rank_has_no_room_all_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "SHARD_BYTES", 3000)
    (expected,) = on_ranks(1, lambda group: losses(group, X))
    with pytest.warns(RuntimeWarning, match="it stays on the host and is sent in shards"):
        each = on_ranks(2, lambda group: losses(group, X, full=1))
    for found in each:
        np.testing.assert_allclose(found, expected, rtol=1e-12)
