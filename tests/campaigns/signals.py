"""SIGINT, SIGTERM, SIGHUP and SIGUSR1 at random moments, alone or two in a row.

The process ends soon, with the signal's status and without a traceback, in the imports too; what
it leaves goes on to the bits of an undisturbed run.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from campaign import (
    TRAININGS,
    Broken,
    Trial,
    arguments,
    finish,
    run,
    start,
    status_of,
    training,
    undisturbed,
    whole,
    words_of,
)  # fmt: skip

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
QUIET, ENDED = "a signal ends a run in one line", "a stopped run ends in equal bits"
SOON = 10.0  # seconds


def interpreter(args: list[str], folder: Path) -> int:
    """Start a run as a user does, imports included; returns its process."""
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "xpnet.train", *args],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(folder / "stderr"), os.O_WRONLY | os.O_CREAT, 0o600),
        ],
        setsigdef=NUMBERS,
    )


@functools.cache
def seconds_of_interpreter(*args: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, *args], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def attempt(trial: Trial) -> Iterator[str]:
    settings, folder, rng = trial.one_of(*TRAININGS), trial.folder / "run", trial.rng
    number = trial.one_of(*NUMBERS)
    fresh, twice = rng.random() < 0.25, rng.random() < 0.2
    earliest, (_, latest) = 0.0, undisturbed(settings)
    if fresh:
        # Before it has started, Python itself answers.
        earliest = 2 * seconds_of_interpreter("-c", "")
        latest = earliest + seconds_of_interpreter("-m", "xpnet.train", "--help")
        pid = interpreter(arguments(folder, settings), trial.folder)
    else:
        pid = start(lambda: training(folder, settings), trial.folder)
    time.sleep(rng.uniform(earliest, latest))
    for _ in range(1 + twice):
        os.kill(pid, number)
        time.sleep(rng.uniform(0, 0.02))
    status = status_of(QUIET, pid, SOON)
    words = words_of(QUIET, trial.folder)
    if status not in (0, 128 + number, -number) or len(words.splitlines()) > 1:
        raise Broken(QUIET, f"{number.name} ends in {status}: {words}")
    whole(QUIET, folder)
    yield QUIET
    finish(ENDED, folder, settings)
    yield ENDED


if __name__ == "__main__":
    sys.exit(run(attempt))
