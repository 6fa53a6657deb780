"""Sums over the ranks within a step: right, the same bits on each, and nothing kept for nothing."""

from __future__ import annotations

import os
import subprocess
import sys
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


PENDING = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy as np
import jax, jax.numpy as jnp
import xpnet
from xpnet.parallel import Group
from xpnet.trainer.share import Share
from xpnet.trainer.step import make_step

backend, group = xpnet.select("cpu", "jax"), Group()
trainer = xpnet.Trainer(xpnet.mlp([784, 50, 10]), xpnet.optim.SGD(0.1), backend=backend)
step = make_step(
    trainer.network, trainer.optimizer, share=Share(0, 2, 64, backend.reducer(group))
)
run = backend.loop(step, trainer.feed.prepare, group.least)
data = jnp.zeros((64, 784), jnp.float32), jnp.zeros(64, jnp.int32)
slow = jax.jit(lambda w: w @ w @ w)
w, rows = jnp.ones((500, 500)), jnp.asarray(np.tile(np.arange(32), (100, 1)))
params, state = trainer.params, trainer.state
for _ in range(10):
    order = slow(w)[0, 0].astype(jnp.int32) * 0 + rows  # not there yet
    for params, state, losses in run(params, state, data, order):
        backend.to_numpy(losses)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors cannot be chosen")
def test_jax_with_one_processor_does_not_wait_for_itself() -> None:
    # The callback got a copy that the only thread of XLA, which was waiting for it, was to make.
    pytest.importorskip("jax", reason="jax is not installed")
    subprocess.run([sys.executable, "-c", PENDING], check=True, timeout=60)
