"""The folder of a run: which files it may hold, whose it is, and the signals that end the run."""

from __future__ import annotations

import itertools
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xpnet.commands.config.settings import Config
from xpnet.commands.exits import STOPPING, handling
from xpnet.errors import UsageError
from xpnet.files import leftovers, locked, make_folder

__all__ = ["FILES", "check_folder", "claimed", "signals"]

# The files and folders that a run may write into its folder.
FILES = (
    "config.toml", "checkpoints", "metrics.jsonl", "summary.json", "model.npz", "curves.png",
    "confusion.png", "roc.png", "precision_recall.png", "calibration.png", "mistakes.png",
    "predictions.png", "residuals.png", "weights.png", "activations.png", "maps.png", "sweep.csv",
    "sweep.png", "models.npz",
)  # fmt: skip


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collect the signals that stop a run; a second one of a kind ends the process at once."""
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        seen.append(number)
        signal.signal(number, signal.SIG_DFL)

    with handling(STOPPING, note):
        yield seen


def check_folder(config: Config) -> None:
    """Refuse a folder with files that the run would overwrite."""
    if config.resume is not None or config.out is None:
        return
    held = [name for name in FILES if (config.out / name).exists()]
    if "config.toml" in held or "checkpoints" in held:
        raise UsageError(
            f"--out {config.out}: holds a run already; continue it with --resume, or name another "
            "folder"
        )
    if held:
        raise UsageError(
            f"--out {config.out}: has {', '.join(held)}, which the run would overwrite; "
            "name another folder"
        )


@contextmanager
def claimed(config: Config) -> Iterator[Path]:
    """Lock the run's folder against other processes; remove a new folder that stays empty."""
    folder, made = (config.resume, []) if config.resume is not None else _new_folder(config)
    with locked(folder):  # if it is another process's, so are its folders, though still empty
        try:
            check_folder(config)  # again: now nobody else can fill it
            for path in (path for name in FILES for path in leftovers(folder, name)):
                path.unlink(missing_ok=True)
            yield folder
        finally:
            for path in reversed(made):
                with suppress(OSError):  # it is not empty
                    path.rmdir()


def _new_folder(config: Config) -> tuple[Path, list[Path]]:
    """Return (folder, new folders on its path); a folder that xpnet names is always new."""
    if config.out is not None:
        return config.out, make_folder(config.out)
    name = config.dataset if config.data is None else config.data.stem[:40]
    name = re.sub(r"[*?\[\]]+", "", name).strip("-_.") or "data"  # a pattern's
    first = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    made = make_folder(first.parent)
    for number in itertools.count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
        if new := make_folder(folder):
            return folder, [*made, *new]
    raise AssertionError  # count has no end
