"""Trainings on several ranks, disturbed at random moments and started again until they are done.

Up to three times each: kill -9 of a rank or of mpirun, SIGSTOP of a rank, SIGTERM or SIGUSR1 to
mpirun.
All ranks end, every file is whole; in the end the run holds the bits of an undisturbed one, where
each start had the same number of ranks, and its numbers to rounding, where it was drawn.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from campaign import SCRATCH, TRAININGS, Broken, Trial, arguments, result, run, whole

from xpnet.models import schema

# A training of a second or two, that saves after each chunk of steps.
SIZE = ("--epochs", "12", "--dtype", "float64")
TIMEOUT = 4.0
# mpirun and Python need a while to end, on a busy machine.
SECONDS = TIMEOUT + 20.0
COMMAND = """
import functools, sys
from xpnet.backend import loop
from xpnet.commands.train import main
from xpnet.trainer import Trainer
loop.CHUNK_SECONDS = 0.0
Trainer.fit = functools.partialmethod(Trainer.fit, save_seconds=0.0)
sys.exit(main(sys.argv[1:]))
"""
DISTURBED = {
    "rank killed": signal.SIGKILL,
    "rank stopped": signal.SIGSTOP,
    "mpirun killed": signal.SIGKILL,
    "mpirun terminated": signal.SIGTERM,
    "mpirun told to save": signal.SIGUSR1,
}


def started(ranks: int, folder: Path, settings: tuple[str, ...]) -> subprocess.Popen[bytes]:
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = ["mpirun", "--map-by", ":OVERSUBSCRIBE", "-n", str(ranks), sys.executable, "-c"]
    options = [*arguments(folder, (*settings, *SIZE)), "--rank-timeout", str(TIMEOUT)]
    with open(folder.parent / "stderr", "wb") as stderr:
        return subprocess.Popen(
            [*command, COMMAND, *options],
            stdout=subprocess.DEVNULL, stderr=stderr, env={**os.environ, **root},
        )  # fmt: skip


def children(pid: int) -> list[int]:
    """The processes that mpirun has started."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, path.read_text().split())
        except OSError:
            continue
    return sorted(found)


def met(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the ranks have written a checkpoint, or have ended."""
    began = time.time()
    while process.poll() is None:
        try:
            if any(p.stat().st_mtime >= began for p in folder.glob("checkpoints/step-*.npz")):
                return
        except OSError:  # another has taken its place
            continue
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ended(
    kind: str, process: subprocess.Popen[bytes], ranks: list[int], stopped: int = 0,
    marker: Path | None = None,
) -> int:  # fmt: skip
    """The status of mpirun after all ranks have ended; Broken if they do not.

    Who is stopped after the run is done, and after the others, is missed by nobody: it goes on.
    """
    late = time.monotonic() + SECONDS
    while process.poll() is None or any(map(alive, ranks)):
        others = any(alive(pid) for pid in ranks if pid != stopped)
        if stopped and not others and marker is not None and marker.exists():
            os.kill(stopped, signal.SIGCONT)
            stopped = 0
        if time.monotonic() > late:
            left = [pid for pid in (process.pid, *ranks) if alive(pid)]
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            who = ", ".join(
                "mpirun" if p == process.pid else f"rank {ranks.index(p)}" for p in left
            )
            raise Broken(kind, f"{who} of {len(ranks)} ranks do not end in {SECONDS} s")
        time.sleep(0.01)
    return process.wait()


def finished(kind: str, ranks: int, folder: Path, settings: tuple[str, ...]) -> None:
    process = started(ranks, folder, settings)
    if status := ended(kind, process, []):
        words = (folder.parent / "stderr").read_text(errors="replace")
        raise Broken(kind, f"going on with {ranks} ranks ends in {status}: {words}")


@functools.cache
def undisturbed(ranks: int, settings: tuple[str, ...]) -> tuple[dict[str, Any], float]:
    """What the training ends in that nobody disturbs, and the seconds that it takes."""
    with tempfile.TemporaryDirectory(prefix="xpnet-", dir=SCRATCH) as name:
        folder, began = Path(name) / "run", time.monotonic()
        finished("undisturbed", ranks, folder, settings)
        seconds = time.monotonic() - began
        return {**result(folder), "arrays": schema.load(folder / "model.npz")[0]}, seconds


def attempt(trial: Trial) -> Iterator[str]:
    settings, folder, rng = trial.one_of(*TRAININGS), trial.folder / "run", trial.rng
    drawn = bool(rng.integers(2))
    count = int(rng.integers(2, 4))
    expected, seconds = undisturbed(count, settings)
    for _ in range(rng.integers(1, 4)):
        kind = trial.one_of(*DISTURBED)
        count = int(rng.integers(1, 4)) if drawn else count
        process = started(count, folder, settings)
        if kind == "rank stopped":  # before the ranks have met, none is missed
            met(process, folder)
            time.sleep(rng.uniform(0, 0.5))
        else:
            time.sleep(rng.uniform(0.2 * seconds, seconds))
        ranks = children(process.pid)
        target = process.pid
        if kind.startswith("rank") and ranks:
            target = trial.one_of(*ranks)
        try:
            os.kill(target, DISTURBED[kind])
        except ProcessLookupError:
            target = 0  # it was done
        if count == 1 and kind == "rank stopped" and target in ranks:
            os.kill(target, signal.SIGCONT)  # nobody is left to miss it
        stopped = target if kind == "rank stopped" else 0
        marker = folder / "summary.json"
        status = ended(f"{kind}: all end", process, ranks, stopped, marker)
        whole(f"{kind}: files are whole", folder)
        if status == 0 and not (folder / "summary.json").exists():
            raise Broken(f"{kind}: all end", "status 0, though the run is not done")
        yield f"{kind}: all end"
        yield f"{kind}: files are whole"
    count = int(rng.integers(1, 4)) if drawn else count
    kind = "equal to rounding on any number of ranks" if drawn else "equal bits on as many ranks"
    finished(kind, count, folder, settings)
    if drawn:
        arrays = schema.load(folder / "model.npz")[0]
        for name, array in expected["arrays"].items():
            if array.dtype.kind == "f" and not np.allclose(arrays[name], array, 1e-9, 1e-12):
                raise Broken(kind, f"another {name}")
    else:
        found = result(folder)
        if other := [name for name in found if found[name] != expected[name]]:
            raise Broken(kind, f"other bits in {', '.join(other)}")
    yield kind


if __name__ == "__main__":
    if not (shutil.which("mpirun") and importlib.util.find_spec("mpi4py")):
        print("| ranks | skipped: no mpirun, or no mpi4py | 0 | 0 | 0 |")
        sys.exit(0)
    sys.exit(run(attempt))
