"""A fault at the n-th file operation of a training, open, fsync, rename, remove, lock or write.

At a crash the process is gone at once; at an error the operation fails, and the run ends in one
line, or goes on after a warning. Both times the run then goes on to the bits of an undisturbed one.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from campaign import (
    SCRATCH,
    TRAININGS,
    Broken,
    Trial,
    finish,
    run,
    same,
    start,
    status_of,
    training,
    whole,
    words_of,
)  # fmt: skip

OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "fcntl.flock")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT)


def watched(folder: Path, at: Callable[[str], None]) -> None:
    """Call `at` before each operation on what lies in a folder; for a process of its own."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in OPERATIONS and str(args[0]).startswith(str(folder)):
            at(event)

    fsync = os.fsync

    def watched_fsync(descriptor: int) -> None:
        at("fsync")
        fsync(descriptor)

    os.fsync = watched_fsync  # type: ignore[assignment]
    sys.addaudithook(hook)


def faulty(folder: Path, settings: tuple[str, ...], number: int, fault: Callable[[], None]) -> int:
    """A training in which the operation of this number, counted from 0, ends in a fault."""
    numbers = itertools.count()

    def at(event: str) -> None:
        if next(numbers) == number:
            (folder.parent / "fault").write_text(event)
            fault()

    watched(folder, at)
    return training(folder, settings)


def torn(folder: Path, settings: tuple[str, ...], size: int) -> int:
    """A training that the system ends in the middle of a write, when a file grows beyond a size."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    return training(folder, settings)


@functools.cache
def operations(settings: tuple[str, ...]) -> tuple[int, int]:
    """How many operations a training makes, and the size of its largest file."""
    with tempfile.TemporaryDirectory(prefix="xpnet-", dir=SCRATCH) as name:
        folder, log = Path(name) / "run", Path(name) / "log"

        def counted() -> int:
            with open(log, "w") as file:
                watched(folder, lambda event: print(event, file=file))
                return training(folder, settings)

        status_of("undisturbed", start(counted, folder.parent))
        sizes = [path.stat().st_size for path in folder.glob("**/*.npz")]
        return len(log.read_text().splitlines()), max(sizes)


def attempt(trial: Trial) -> Iterator[str]:
    settings, folder, rng = trial.one_of(*TRAININGS), trial.folder / "run", trial.rng
    count, size = operations(settings)
    kind = trial.one_of("a crash at a file operation", "a failing file operation", "a torn write")
    number, code = int(rng.integers(count)), trial.one_of(*ERRORS)

    def crash() -> None:
        os._exit(99)

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    def command() -> int:
        if kind == "a torn write":
            return torn(folder, settings, int(rng.integers(1, size)))
        return faulty(folder, settings, number, crash if "crash" in kind else fail)

    if rng.random() < 0.5:  # the fault then strikes a run that goes on
        first = int(rng.integers(count))
        status_of(kind, start(lambda: faulty(folder, settings, first, crash), trial.folder))
    (trial.folder / "fault").write_text("was not reached")
    before = set(folder.glob("**/.*.tmp"))
    status = status_of(kind, start(command, trial.folder))
    whole(kind, folder)
    if kind == "a failing file operation":
        event = (trial.folder / "fault").read_text()
        fault = f"{errno.errorcode[code]} at operation {number} ({event})"
        words = words_of(kind, trial.folder)
        if status not in (0, 1, 2) or (status and len(words.splitlines()) > 2):
            raise Broken(kind, f"{fault}: ends in {status}: {words}")
        left = set(folder.glob("**/.*.tmp")) - before
        if left and event != "os.remove":
            raise Broken(kind, f"{fault}: leaves {min(left).name}")
        if status == 0:
            same(kind, folder, settings)
    yield kind
    finish(f"{kind}: equal bits", folder, settings)
    yield f"{kind}: equal bits"


if __name__ == "__main__":
    sys.exit(run(attempt))
