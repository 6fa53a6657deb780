"""``python -m benchmarks.train_step``: a training step of the book's network, side by side.

784-50-10, sigmoid, SGD, batch 100. Each contender has a process of its own, which waits while
the others run; they take turns, an epoch each, so that a machine whose speed drifts treats them
alike. Before its time counts, a contender's losses must follow those of a float64 run.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

import xpnet
from benchmarks import machine
from benchmarks.contenders import CONTENDERS, Problem, reference

__all__ = ["main", "measure"]

BATCH, LR = 100, 0.1
SETTLE = 100  # untimed steps
TOLERANCE = 1e-3  # of a loss in float32, relative, after a few hundred steps


@dataclass(frozen=True)
class Arguments:
    """Time one training step of 784-50-10 in xpnet, in the book's loop and in PyTorch."""

    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder with the MNIST files; without it, random images of the same size."""
    rounds: int = 15
    """Turns of each contender."""
    steps: int = 600
    """Steps per turn."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON file for the results."""
    only: tuple[str, ...] = ()
    """Contenders, by name; by default all whose libraries are installed."""


def problem(data_dir: Path | None) -> Problem:
    if data_dir is not None:
        data, _ = xpnet.datasets.load("mnist", data_dir)
        x, t = data.x, data.t
    else:
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (60_000, 784), dtype=np.uint8)
        t = rng.integers(0, 10, 60_000).astype(np.int32)
    return Problem(x, t, xpnet.mlp([784, 50, 10], "sigmoid", seed=0).params, LR)


def order(steps: int) -> np.ndarray:
    rows: np.ndarray = np.random.default_rng(1).permutation(60_000)[: steps * BATCH]
    return rows.reshape(steps, BATCH)


def work(name: str, data_dir: Path | None, steps: int) -> None:
    """A contender's process: for each line on stdin, train an epoch and answer in JSON.

    On "time", a few untimed steps come first: after a wait its data has left the caches, and
    the threads of whoever ran before may still be spinning.
    """
    epoch = CONTENDERS[name](problem(data_dir))
    rows = order(steps)
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "time":
            epoch(rows[:SETTLE])
        began = time.perf_counter()
        losses = epoch(rows)
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "losses": losses.tolist()}), flush=True)


def measure(arguments: Arguments) -> dict[str, Any]:
    """Run the rounds; returns the results, one entry per contender that could be started."""
    names = arguments.only or tuple(CONTENDERS)
    command = [sys.executable, "-m", "benchmarks.train_step", "--steps", str(arguments.steps)]
    if arguments.data_dir is not None:
        command += ["--data-dir", str(arguments.data_dir)]
    workers: dict[str, subprocess.Popen[str]] = {}
    seconds: dict[str, list[float]] = {}
    skipped: dict[str, str] = {}
    expected = reference(problem(arguments.data_dir))(order(arguments.steps))
    try:
        for name in names:
            worker = subprocess.Popen(
                [*command, "--worker", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            workers[name] = worker
            if "ready" not in _line(worker):
                skipped[name] = worker.communicate()[1].strip().splitlines()[-1]
                del workers[name]
        for turn in range(arguments.rounds + 1):
            for name, worker in workers.items():
                answer = _ask(worker, "check" if turn == 0 else "time")
                if turn == 0:  # the warm-up: compiles, and shows that it trains the same network
                    error = np.max(np.abs(np.array(answer["losses"]) / expected - 1))
                    if not error < TOLERANCE:
                        raise ArithmeticError(f"{name} trains something else: {error:.1e} off")
                else:
                    seconds.setdefault(name, []).append(answer["seconds"])
    finally:
        for worker in workers.values():
            worker.kill()
            worker.communicate()
    steps = arguments.steps
    return {
        "benchmark": "train_step",
        "network": "784-50-10 sigmoid, SGD, batch 100, float32",
        "data": "mnist" if arguments.data_dir else "random",
        "rounds": arguments.rounds,
        "steps_per_round": steps,
        "machine": machine.record(),
        "us_per_step": {
            name: {
                "median": round(statistics.median(values) / steps * 1e6, 2),
                "min": round(min(values) / steps * 1e6, 2),
                "max": round(max(values) / steps * 1e6, 2),
            }
            for name, values in seconds.items()
        },
        # Round by round: a drift of the machine's speed cancels.
        "times_faster_than_pytorch": {
            name: round(
                statistics.median(
                    b / a for a, b in zip(values, seconds["pytorch eager"], strict=True)
                ),
                3,
            )
            for name, values in seconds.items()
            if "pytorch eager" in seconds
        },
        "skipped": skipped,
    }


def _line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline()


def _ask(worker: subprocess.Popen[str], what: str) -> dict[str, Any]:
    assert worker.stdin is not None
    worker.stdin.write(f"{what}\n")
    worker.stdin.flush()
    answer: dict[str, Any] = json.loads(_line(worker))
    return answer


def table(results: dict[str, Any]) -> str:
    lines = [f"{'':<16}{'us/step':>9}{'min':>9}{'max':>9}{'x pytorch':>11}"]
    for name, us in results["us_per_step"].items():
        ratio = results["times_faster_than_pytorch"].get(name)
        last = f"{ratio:>11.2f}" if ratio else ""
        lines.append(f"{name:<16}{us['median']:>9.1f}{us['min']:>9.1f}{us['max']:>9.1f}{last}")
    lines += [f"{name:<16}  skipped: {why}" for name, why in results["skipped"].items()]
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    args = list(sys.argv[1:] if args is None else args)
    if "--worker" in args:
        at = args.index("--worker")
        name = args[at + 1]
        rest = tyro.cli(Arguments, args=args[:at])
        work(name, rest.data_dir, rest.steps)
        return 0
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.train_step")
    results = measure(arguments)
    print(table(results))
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")
        print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
