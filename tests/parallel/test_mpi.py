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


CHILDREN = """
import os, subprocess, sys
import numpy as np
import xpnet
from xpnet.errors import UsageError

group = xpnet.parallel.world(20)
x = np.eye(2).repeat(8, axis=0)
t = np.repeat([0, 1], 8)

def fit(group):
    trainer = xpnet.Trainer(xpnet.mlp([2, 2], seed=0), xpnet.optim.SGD(0.1), group=group)
    return trainer.fit(x, t, epochs=2, batch_size=4)

if group.rank == 0:
    child = os.fork()
    if child == 0:
        try:
            fit(group)
        except UsageError as error:
            os._exit(7 if "a child of rank 0" in str(error) and xpnet.parallel.world().size == 1
                     and len(fit(xpnet.parallel.world()).epochs) == 2 else 1)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    code = "import xpnet; print(xpnet.parallel.world().size)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"1\\n"
fit(group)
print("done")
"""


@needs_mpi
@pytest.mark.slow
def test_a_child_of_a_rank_is_none(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(CHILDREN)
    status, out, err = run(2, sys.executable, tmp_path / "script.py")
    assert (status, out.split()) == (0, ["done", "done"]), err


DIFFERING = """
import sys
import numpy as np
import xpnet

group = xpnet.parallel.world(20)
np.save(f"{sys.argv[2]}/{group.rank}.npy", np.eye(4).repeat(8, axis=0))
x, library = np.load(f"{sys.argv[2]}/{group.rank}.npy"), "numpy"
if group.rank and sys.argv[1] == "memory":
    x = np.load(f"{sys.argv[2]}/1.npy", mmap_mode="r")
if group.rank and sys.argv[1] == "library":
    library = "strict"
backend = xpnet.select("cpu", library)
trainer = xpnet.Trainer(xpnet.mlp([4, 2], seed=0), backend=backend, scaling=None, group=group)
trainer.fit(x, np.arange(32) % 2, epochs=2, batch_size=8)
"""


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"), [("memory", "memory-mapped samples"), ("library", "library")]
)
def test_ranks_that_would_meet_at_other_moments_are_refused(
    what: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(DIFFERING)
    status, _, err = run(2, sys.executable, tmp_path / "script.py", what, tmp_path)
    assert status == 1
    assert f"UsageError: rank 1 and rank 0 differ in {said}; start all ranks" in err
