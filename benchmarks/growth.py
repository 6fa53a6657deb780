"""``python -m benchmarks.growth`` checks how time and memory grow with the sizes.

The command measures the time of a step and the memory of the process against hidden width, batch,
depth and number of samples. It compares each slope on log-log axes with the expected one. It also
measures the time to start.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro

import xpnet
from benchmarks.interrupts import orderly
from benchmarks.results import Measurement, Recorder, numbers, recording
from benchmarks.timing import calls_in, quartiles, rounds_of, settle, timed
from benchmarks.worker import Failed, Skipped, Worker, stop
from xpnet.trainer import Trainer

__all__ = ["AXES", "main", "serve", "slope"]

INPUTS, OUTPUTS = 784, 10
# A slope that exceeds the expected one by more than this is reported as STEEPER.
TOLERANCE = 0.25


class Axis(NamedTuple):
    """One size that grows; the others stay at hidden 128, batch 128, depth 1 and 4096 samples."""

    values: tuple[int, ...]
    slope: float  # of the time of a step, for large values
    memory_slope: float


AXES = {
    "hidden": Axis((64, 128, 256, 512, 1024, 2048), 1.0, 1.0),
    "batch": Axis((16, 64, 256, 1024, 4096), 1.0, 1.0),
    "depth": Axis((1, 2, 4, 8, 16, 32), 1.0, 1.0),
    "samples": Axis((4096, 16384, 65536, 262144), 0.0, 1.0),
}
SMALL = 3  # values per axis with --quick
STARTS = {
    "python": ["-c", "pass"],
    "import numpy": ["-c", "import numpy"],
    "import xpnet": ["-c", "import xpnet"],
    "xpnet.train --help": ["-m", "xpnet.train", "--help"],
    "xpnet.train, digits, 1 epoch": ["-m", "xpnet.train", "--epochs", "1", "--quiet"],
}


@dataclass(frozen=True)
class Arguments:
    """Measure time and memory of xpnet's step against the sizes, and the time to start."""

    quick: bool = False
    """Measure only the three smallest values of each axis."""
    backend: Literal["numpy", "torch", "jax"] = "numpy"
    """Array library, on the CPU."""
    axes: tuple[Literal["hidden", "batch", "depth", "samples", "start"], ...] = (
        "hidden", "batch", "depth", "samples", "start",
    )  # fmt: skip
    """Sizes that grow; start measures the start-up time."""
    rounds: int = 7
    """Number of turns of each value."""
    seconds: float = 0.05
    """Shortest length of a turn."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results into this file as JSON lines: the machine, then one per measurement."""


def peak_mib() -> float:
    """Return the largest resident memory that this process has had, in MiB.

    In ru_maxrss, Linux includes the memory of the parent, from before the process became another
    program. VmHWM counts only this program.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(x.split()[1]) for x in file if x.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Serve a trainer of one size: "prepare" warms up, "time" times a turn, "memory" returns the
    memory beyond the imports."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # even if there is a GPU
    backend = xpnet.select("cpu", setup["backend"])
    before = peak_mib()
    sizes = [INPUTS, *[setup["hidden"]] * setup["depth"], OUTPUTS]
    batch, samples = setup["batch"], setup["samples"]
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (samples, INPUTS), dtype=np.uint8)
    t = rng.integers(0, OUTPUTS, samples)
    trainer = Trainer(xpnet.mlp(sizes), xpnet.optim.SGD(1e-4), backend=backend)
    feed = trainer.feed
    data = (feed.samples(x), backend.asarray(feed.targets(t, classes=True)))
    order = rng.integers(0, samples, (64, batch))

    def train(steps: int) -> None:
        rows = backend.asarray(np.resize(order, (steps, batch)))
        for params, state, losses in trainer.run(trainer.params, trainer.state, data, rows):
            trainer.params, trainer.state = params, state
            backend.to_numpy(losses)  # waits for the device

    steps = 1

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        nonlocal steps
        if question["do"] == "prepare":

            def measure(steps: int) -> float:
                train(steps)  # JAX compiles for each number of steps
                return timed(partial(train, steps)) / steps

            steps = calls_in(question["seconds"], measure)
            return {"steps": steps}
        if question["do"] == "memory":
            return {"mib": peak_mib() - before}
        settle(partial(train, -(-steps // 4)))
        return {"seconds": timed(partial(train, steps)) / steps}

    return answer


def slope(values: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of log y against log values, over the larger half of the values."""
    half = len(values) // 2
    fitted = np.polyfit(np.log(values[half:]), np.log(np.maximum(y[half:], 1e-9)), 1)
    return float(fitted[0])


def measure_axis(name: str, arguments: Arguments, recorder: Recorder) -> list[Measurement]:
    """Measure one axis with a worker for each value, in turns."""
    axis = AXES[name]
    base = {"hidden": 128, "batch": 128, "depth": 1, "samples": 4096, "backend": arguments.backend}
    values = axis.values[:SMALL] if arguments.quick else axis.values
    workers: dict[int, Worker] = {}
    try:
        for value in values:
            workers[value] = Worker("benchmarks.growth", {**base, name: value})
            workers[value].ready()
            workers[value].ask(do="prepare", seconds=arguments.seconds)

        def turn(value: int) -> float:
            seconds: float = workers[value].ask(do="time")["seconds"]
            return seconds

        times = rounds_of({value: partial(turn, value) for value in values}, arguments.rounds)
        memory = {value: workers[value].ask(do="memory")["mib"] for value in values}
    finally:
        stop(workers.values())
    measurements = []
    for value, seconds in times.items():
        measurements.append(
            {
                "case": {"axis": name, "value": value},
                "contender": f"xpnet {arguments.backend}",
                "unit": "us/step",
                **quartiles([1e6 * second for second in seconds]),
                "peak_mib": memory[value],
                "expected_slope": axis.slope,
                "expected_memory_slope": axis.memory_slope,
            }
        )
        recorder.put(measurements[-1])
    return measurements


def verdict(found: float, expected: float) -> str:
    return f"{found:.2f} (expected {expected:g}{', STEEPER' * (found > expected + TOLERANCE)})"


def measure_start(rounds: int, recorder: Recorder) -> None:
    """Time whole processes, in turns."""

    def start(words: list[str]) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=folder)
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as folder:
        starts: Mapping[str, Callable[[], float]] = {
            name: partial(start, words) for name, words in STARTS.items()
        }
        for call in starts.values():
            call()  # once untimed, so that the files are in memory
        times = rounds_of(starts, rounds)
    print(f"\n{'start':<32}{'ms':>8}{'q1':>8}{'q3':>8}")
    for name, seconds in times.items():
        measurement = {
            "case": {"start": name},
            "contender": "process",
            "unit": "ms",
            **quartiles([1e3 * second for second in seconds]),
        }
        recorder.put(measurement)
        print(
            f"{name:<32}{measurement['median']:>8.0f}{measurement['q1']:>8.0f}"
            f"{measurement['q3']:>8.0f}"
        )


@orderly
def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.growth")
    try:
        numbers(arguments)
    except ValueError as error:
        print(f"python -m benchmarks.growth: {error}", file=sys.stderr)
        return 2
    with recording("growth", arguments.out, backend=arguments.backend) as recorder:
        for name in AXES:
            if name not in arguments.axes:
                continue
            try:
                found = measure_axis(name, arguments, recorder)
            except Skipped as reason:
                print(f"python -m benchmarks.growth: {reason}", file=sys.stderr)
                return 3
            except Failed as reason:
                print(f"python -m benchmarks.growth: {name}: {reason}", file=sys.stderr)
                return 1
            print(f"\n{name:<10}{'us/step':>10}{'q1':>10}{'q3':>10}{'MiB':>8}")
            for m in found:
                print(
                    f"{m['case']['value']:<10}{m['median']:>10.1f}{m['q1']:>10.1f}"
                    f"{m['q3']:>10.1f}{m['peak_mib']:>8.1f}"
                )
            values = [m["case"]["value"] for m in found]
            for what, key, expected in (
                ("time", "median", AXES[name].slope),
                ("memory", "peak_mib", AXES[name].memory_slope),
            ):
                print(
                    f"slope of {what}: {verdict(slope(values, [m[key] for m in found]), expected)}"
                )
        if "start" in arguments.axes:
            measure_start(arguments.rounds, recorder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
