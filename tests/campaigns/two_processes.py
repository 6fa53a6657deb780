"""Two processes that start at the same moment: into one folder, on one run, in one second.

One of them trains, the other is refused in one line or finds the work done; the run holds the bits
of an undisturbed one, and runs without --out get a folder each.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from campaign import (
    SIZE,
    TRAININGS,
    Broken,
    Trial,
    run,
    same,
    start,
    status_of,
    training,
    undisturbed,
    whole,
    words_of,
)  # fmt: skip

from xpnet.commands.train import main as train

OUT, RESUME, SECOND = "one --out", "one --resume", "one second without --out"


def pair(trial: Trial, kind: str, command: Callable[[], int], gap: float) -> tuple[list[int], str]:
    """Two forks of this process with a command: their statuses, and what they said."""
    homes = [trial.folder / name for name in ("first", "second")]
    pids = []
    for home in homes:
        home.mkdir()
        pids.append(start(command, home))
        time.sleep(gap)
    statuses = [status_of(kind, pid) for pid in pids]
    return statuses, "".join(words_of(kind, home) for home in homes)


def one_folder(trial: Trial, kind: str, settings: tuple[str, ...], gap: float) -> None:
    folder = trial.folder / "run"
    if kind == RESUME:  # of a run that ended before its last epoch
        settings = (*settings, "--schedule", "constant")  # others depend on the last epoch
        pid = start(lambda: training(folder, (*settings, "--epochs", "1")), trial.folder)
        status_of(kind, pid)
        command = ["--resume", str(folder), "--epochs", "2", "--quiet"]
    else:
        command = ["--out", str(folder), *SIZE, *settings]
    statuses, words = pair(trial, kind, lambda: train(command), gap)
    refused = statuses.count(2)
    if set(statuses) - {0, 2} or refused == 2 or len(words.splitlines()) < refused:
        raise Broken(kind, f"end in {statuses}: {words}")
    if kind == OUT and not refused:
        raise Broken(kind, "both have trained into one folder")
    whole(kind, folder)
    same(kind, folder, settings)


def one_second(trial: Trial, settings: tuple[str, ...], gap: float) -> None:
    def command() -> int:
        os.chdir(trial.folder)
        return train([*SIZE, *settings])

    statuses, words = pair(trial, SECOND, command, gap)
    runs = list(Path(trial.folder, "runs").iterdir())
    if statuses != [0, 0] or len(runs) != 2:
        raise Broken(SECOND, f"{len(runs)} folders, end in {statuses}: {words}")
    for folder in runs:
        same(SECOND, folder, settings)


def attempt(trial: Trial) -> Iterator[str]:
    kind = trial.one_of(OUT, RESUME, SECOND)
    # A resumed run's patience and schedule depend on where it was stopped: the plain one only.
    settings = TRAININGS[0] if kind == RESUME else trial.one_of(*TRAININGS)
    _, seconds = undisturbed(settings)
    gap = trial.one_of(0.0, trial.rng.uniform(0, seconds / 2))
    if kind == SECOND:
        one_second(trial, settings, gap)
    else:
        one_folder(trial, kind, settings, gap)
    yield kind


if __name__ == "__main__":
    sys.exit(run(attempt))
