"""Processes that talk by MPI compute what one of them computes alone."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from mpirun import needs_mpi, run

# Each rank trains with the others, then alone, and prints how far apart the two are.
SCRIPT = """
import sys
import numpy as np
import xpnet
from xpnet import optim
from xpnet.parallel import ALONE, world

library, dtype = sys.argv[1:]
rng = np.random.default_rng(0)
x = rng.standard_normal((157, 6))
t = (x.sum(axis=1) > 0).astype(int)
weight = rng.uniform(0.5, 2.0, 157)
net = xpnet.mlp([6, 16, 8, 2], batch_norm=True, dropout=0.3, seed=1)

def trained(group):
    trainer = xpnet.Trainer(
        net, optim.Adam(0.01), weight_decay=1e-3, clip_norm=1.0, dtype=dtype, group=group,
        backend=xpnet.select("cpu", library, dtype=dtype),
    )
    trainer.fit(x, t, epochs=50, batch_size=16, sample_weight=weight, validation=0.1)
    return trainer.model.to_host()

group = world(60)
each = group.gather(trained(group))
one = trained(ALONE)
far = max(float(np.abs(one[name] - each[0][name]).max()) for name in one)
same = all(np.array_equal(other[name], each[0][name]) for other in each for name in one)
print(f"rank {group.rank} of {group.size}: far {far:.3g} same {same}", flush=True)
"""


def told(ranks: int, folder: Path, *args: str) -> list[tuple[float, str]]:
    """Run the script; return (distance from one process, whether the ranks are equal)."""
    (folder / "script.py").write_text(SCRIPT)
    status, out, err = run(ranks, sys.executable, folder / "script.py", *args)
    assert status == 0, err
    words = [line.split() for line in out.splitlines() if line.startswith("rank ")]
    assert sorted(word[1] for word in words) == [str(rank) for rank in range(ranks)]
    assert {word[3] for word in words} == {f"{ranks}:"}
    return [(float(word[5]), word[7]) for word in words]


@needs_mpi
def test_numpy(tmp_path: Path) -> None:
    for far, same in told(2, tmp_path, "numpy", "float64"):
        assert far < 1e-12
        assert same == "True"


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_other_libraries_and_ranks(tmp_path: Path, library: str, ranks: int) -> None:
    if not importlib.util.find_spec(library):
        pytest.skip(f"{library} is not installed")
    for far, same in told(ranks, tmp_path, library, "float64"):
        assert far < 1e-12
        assert same == "True"


FAILING = """
import sys
import xpnet

group = xpnet.parallel.world(6)
if sys.argv[1] == "all" or group.rank == 1:
    raise ValueError("boom")
group.gather(0)
"""


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("who", ["all", "one"])
def test_a_script_that_fails_shows_one_traceback(tmp_path: Path, who: str) -> None:
    (tmp_path / "script.py").write_text(FAILING)
    status, _, err = run(2, sys.executable, tmp_path / "script.py", who)
    assert status == 1
    assert err.count("Traceback") == 1
    assert err.count("ValueError: boom") == (1 if who == "all" else 2)
    assert ("xpnet: rank 1: ValueError: boom" in err) == (who == "one")
