"""Trainings that are killed (kill -9) at random moments, up to three times each.

After each kill every file is whole; in the end the run holds the bits of an undisturbed one.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

from campaign import (
    TRAININGS,
    Trial,
    finish,
    run,
    start,
    status_of,
    training,
    undisturbed,
    whole,
)  # fmt: skip

KILLED, ENDED = "files are whole after kill -9", "a killed run ends in equal bits"


def attempt(trial: Trial) -> Iterator[str]:
    settings, folder = trial.one_of(*TRAININGS), trial.folder / "run"
    _, seconds = undisturbed(settings)
    for _ in range(trial.rng.integers(1, 4)):
        pid = start(lambda: training(folder, settings), trial.folder)
        time.sleep(trial.rng.uniform(0, seconds))
        os.kill(pid, signal.SIGKILL)
        status_of(KILLED, pid)
        whole(KILLED, folder)
        yield KILLED
    finish(ENDED, folder, settings)
    yield ENDED


if __name__ == "__main__":
    sys.exit(run(attempt))
