"""One training of many short steps: memory, open files and checkpoints do not grow with it."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from campaign import MEGABYTE, Broken, Trial, run

import xpnet

MEMORY, FILES = "memory does not grow with the steps", "files do not grow with the steps"
# What an allocator may keep, a history's 1 MiB, and copies of it while a checkpoint is written;
# and, per step, what may be remembered of it.
SLACK, PER_STEP, CHECKPOINT = 4 * MEGABYTE, 8, 16 * MEGABYTE


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def attempt(trial: Trial) -> Iterator[str]:
    x = trial.rng.standard_normal((10_000, 2)).astype(np.float32)
    t = (x[:, 0] > 0).astype(int)
    trainer = xpnet.Trainer(xpnet.mlp([2, 2]), xpnet.optim.SGD(0.01))
    began = time.monotonic()
    seen: list[tuple[float, int, int]] = []  # time, memory and open files after each epoch

    def look() -> bool:
        now = time.monotonic()
        if not seen or now - seen[-1][0] > 0.2:
            seen.append((now, resident(), len(os.listdir("/proc/self/fd"))))
        return now >= trial.ends

    history = trainer.fit(
        x, t, epochs=10**9, batch_size=1, stop=look, folder=trial.folder, save_seconds=1.0
    )
    steps = int(trainer.state["step"])
    settled = [row for row in seen if row[0] > began + (trial.ends - began) / 4] or seen
    growth = settled[-1][1] - settled[0][1]
    if growth > SLACK + PER_STEP * steps:
        raise Broken(MEMORY, f"{growth / MEGABYTE:.1f} MB in the last 3/4 of {steps:,} steps")
    if settled[-1][2] > settled[0][2]:
        raise Broken(MEMORY, f"{settled[-1][2] - settled[0][2]} files more are open")
    yield MEMORY
    sizes = [path.stat().st_size for path in trial.folder.iterdir()]
    if len(sizes) > 2 or max(sizes) > CHECKPOINT:
        raise Broken(FILES, f"{len(sizes)} files, {max(sizes):,} bytes after {steps:,} steps")
    if not np.isfinite(history.losses).all():
        raise Broken(FILES, "a loss is not finite")
    yield FILES


if __name__ == "__main__":
    sys.exit(run(attempt))
