"""Trainings on a disk with too little room, from none at all on, and words to a full disk.

A run that cannot save says so in one line and leaves no temporary; once there is room it goes on to
the bits of an undisturbed run. A full disk under stdout costs words, never a model. The disk is a
small tmpfs where one may be mounted; elsewhere no file may grow beyond a size.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from campaign import (
    TRAININGS,
    Broken,
    Trial,
    finish,
    run,
    same,
    start,
    status_of,
    training,
    undisturbed,
    whole,
    words_of,
)  # fmt: skip

FULL, WORDS = "a full disk ends a run in one line", "a full stdout loses no model"
ENDED = "there is room again: equal bits"
ROOM = 128 << 10  # about twice what a run takes


def mounted(folder: Path) -> bool:
    """Put a disk of ROOM bytes onto a folder, if that is allowed here."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "xpnet", str(folder)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0


def limited(folder: Path, settings: tuple[str, ...], size: int) -> int:
    """A training of which no file grows beyond a size."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    return training(folder, settings)


def full_stdout(trial: Trial, settings: tuple[str, ...]) -> None:
    folder, loud = trial.folder / "run", (*settings, "--no-quiet")
    status = status_of(WORDS, start(lambda: training(folder, loud), trial.folder, "/dev/full"))
    words_of(WORDS, trial.folder)
    if status not in (0, 1):
        raise Broken(WORDS, f"ends in {status}")
    same(WORDS, folder, settings)


def full_disk(trial: Trial, settings: tuple[str, ...]) -> None:
    disk, room = trial.folder / "disk", int(trial.rng.integers(ROOM))
    disk.mkdir()
    folder, ballast = disk / "run", disk / "ballast"
    is_mounted = mounted(disk)
    try:
        if is_mounted:
            ballast.write_bytes(bytes(ROOM - room))
            pid = start(lambda: training(folder, settings), trial.folder)
        else:
            pid = start(lambda: limited(folder, settings, room), trial.folder)
        status = status_of(FULL, pid)
        words = words_of(FULL, trial.folder)
        whole(FULL, folder)
        if status not in (0, 1):
            raise Broken(FULL, f"{room} bytes: ends in {status}: {words}")
        if left := [path.name for path in folder.glob("**/.*.tmp")]:
            raise Broken(FULL, f"{room} bytes: leaves {', '.join(left)}")
        ballast.unlink(missing_ok=True)
        if status == 0:
            same(FULL, folder, settings)
        finish(ENDED, folder, settings)
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def attempt(trial: Trial) -> Iterator[str]:
    settings = trial.one_of(*TRAININGS)
    undisturbed(settings)
    if trial.rng.random() < 0.2:
        full_stdout(trial, settings)
        yield WORDS
    else:
        full_disk(trial, settings)
        yield FULL
        yield ENDED


if __name__ == "__main__":
    sys.exit(run(attempt))
