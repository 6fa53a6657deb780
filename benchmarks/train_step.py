"""``python -m benchmarks.train_step``: a whole training step, side by side.

Gather, forward, backward, update. Each contender has a process of its own, which waits while the
others run; they take turns, a window each, so that a machine whose speed drifts treats them
alike. Before its time counts, a contender's losses must follow those of a float64 run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from benchmarks.contenders import BFLOAT16, CONTENDERS, FLOORS, reference
from benchmarks.problems import Case, batches
from benchmarks.results import Measurement, Recorder, numbers, recording
from benchmarks.timing import calls_in, quartiles, ratio, rounds_of, settle, timed
from benchmarks.worker import Failed, Skipped, Worker

__all__ = ["main", "serve"]

# Before rounding is amplified: under sigmoid and a large rate, L's loss swings for a while, and
# products in bfloat16 are a fifth off after 30 steps, PyTorch's own like ours.
CHECKED_STEPS = 10
# How far a loss may be from the float64 run's, relative to the mean loss.
TOLERANCE, TOLERANCE_BFLOAT16 = 5e-3, 5e-2
BASELINE = "pytorch eager"


@dataclass(frozen=True)
class Arguments:
    """Time a training step in xpnet and in what users would pick instead."""

    networks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ("S", "M", "L", "D")
    """S = 784-50-10 batch 100, M = 784-256-10 batch 128, L = 784-1024-10 batch 256,
    D = 784-512-512-512-10 batch 128; or sizes and batch, such as 64-8-10/32."""
    activations: tuple[Literal["sigmoid", "relu", "tanh"], ...] = ("sigmoid",)
    """Of the hidden layers."""
    optimizers: tuple[Literal["sgd", "adam"], ...] = ("sgd",)
    """Each is measured with each activation."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Contenders by name, in quotes; by default all whose libraries are installed."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder with the MNIST files; without it, random images of the same size."""
    rounds: int = 11
    """Turns of each contender."""
    seconds: float = 0.1
    """Length of a turn, at least; as many steps as fill it."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON lines: the machine, then a line per measurement."""


def serve(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A contender's process: "check" gives losses, "prepare" the steps in a turn, "time" one."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # also where there is a GPU
    case = Case(**setup["case"])
    epoch = CONTENDERS[setup["contender"]](case.problem())
    order = np.empty(0)

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        nonlocal order
        if question["do"] == "check":
            return {"losses": epoch(batches(case, CHECKED_STEPS)).tolist()}
        if question["do"] == "prepare":

            def measure(steps: int) -> float:
                order = batches(case, steps)
                epoch(order)  # JAX compiles for each number of steps
                return timed(partial(epoch, order)) / steps

            order = batches(case, calls_in(question["seconds"], measure))
            epoch(order)
            return {"steps": len(order)}
        settle(partial(epoch, order[: -(-len(order) // 4)]))
        return {"seconds": timed(partial(epoch, order)) / len(order)}

    return answer


def check(name: str, losses: Sequence[float], expected: np.ndarray, untrained: np.ndarray) -> float:
    """The largest difference of the losses from the expected ones, relative to their mean.

    Refused if it is large, or more than a tenth of what the training has changed: `untrained`
    are the losses of the first weights on the same batches.
    """
    if len(losses) == 1:  # the mean of the epoch
        expected, untrained = expected.mean(keepdims=True), untrained.mean(keepdims=True)
    error = float(np.max(np.abs(np.array(losses) - expected)) / expected.mean())
    learned = float(np.max(np.abs(untrained - expected)) / expected.mean())
    if not error < min(TOLERANCE_BFLOAT16 if name in BFLOAT16 else TOLERANCE, learned / 10):
        raise Failed(f"trains something else: its losses are {error:.1e} off")
    return error


def measure(
    case: Case, arguments: Arguments, recorder: Recorder
) -> tuple[list[Measurement], list[str]]:
    """The rounds of one case: a measurement for each contender, and the names of who failed."""
    names = arguments.only or tuple(CONTENDERS)
    problem, order = case.problem(), batches(case, CHECKED_STEPS)
    expected = reference(problem)(order)
    untrained = reference(problem._replace(lr=0.0))(order)
    failed: list[str] = []
    workers: dict[str, Worker] = {}
    errors: dict[str, float] = {}
    steps: dict[str, int] = {}
    try:
        for name in names:
            try:
                setup = {"case": asdict(case), "contender": name}
                workers[name] = Worker("benchmarks.train_step", setup)
                if name not in FLOORS:
                    losses = workers[name].ask(do="check")["losses"]
                    errors[name] = check(name, losses, expected, untrained)
                prepared = workers[name].ask(do="prepare", seconds=arguments.seconds)
                steps[name] = prepared["steps"]
            except Skipped as reason:
                print(f"{name}: skipped, {reason}")
            except Failed as reason:
                print(f"{name}: FAILED, {reason}")
                failed.append(name)
                if name in workers:
                    workers.pop(name).stop()

        def turn(name: str) -> float:
            seconds: float = workers[name].ask(do="time")["seconds"]
            return seconds

        seconds = rounds_of({name: partial(turn, name) for name in workers}, arguments.rounds)
    finally:
        for worker in workers.values():
            worker.stop()
    measurements = []
    for name, values in seconds.items():
        measurement = {
            "case": case.fields(),
            "contender": name,
            "unit": "us/step",
            **quartiles([1e6 * value for value in values]),
            "steps": steps[name],
            "samples_per_second": case.size.batch / quartiles(values)["median"],
        }
        if name in errors:
            measurement["loss_error"] = errors[name]
        if BASELINE in seconds:
            # How many times as fast.
            measurement["times_pytorch"] = ratio(seconds[BASELINE], values)["median"]
        recorder.add(measurement)
        measurements.append(measurement)
    return measurements, failed


def table(measurements: Sequence[Measurement]) -> str:
    """One case's measurements for the terminal."""
    lines = [
        f"{'':<22}{'us/step':>9}{'q1':>9}{'q3':>9}{'steps/s':>9}{'samples/s':>12}{'x pytorch':>11}"
    ]
    for m in measurements:
        times = f"{m['times_pytorch']:>11.2f}" if "times_pytorch" in m else ""
        lines.append(
            f"{m['contender']:<22}{m['median']:>9.1f}{m['q1']:>9.1f}{m['q3']:>9.1f}"
            f"{1e6 / m['median']:>9.0f}{m['samples_per_second']:>12,.0f}{times}"
        )
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.train_step")
    unknown = set(arguments.only) - CONTENDERS.keys()
    if unknown:
        text = f"--only {', '.join(sorted(unknown))}: expected some of {', '.join(CONTENDERS)}"
        print(f"python -m benchmarks.train_step: {text}", file=sys.stderr)
        return 2
    data_dir = str(arguments.data_dir or "")
    cases = [
        Case(network, activation, optimizer, data_dir)
        for activation, optimizer, network in product(
            arguments.activations, arguments.optimizers, arguments.networks
        )
    ]
    try:
        numbers(arguments)
        for case in cases:
            case.problem()
    except (ValueError, OSError) as error:
        print(f"python -m benchmarks.train_step: {error}", file=sys.stderr)
        return 2
    data, failed, measured = "mnist" if data_dir else "random", 0, 0
    with recording("train_step", arguments.out, data=data, rounds=arguments.rounds) as recorder:
        for case in cases:
            print(f"\n{case}, {data} data")
            try:
                measurements, broken = measure(case, arguments, recorder)
            except Failed as reason:
                print(f"python -m benchmarks.train_step: {reason}", file=sys.stderr)
                return 1
            print(table(measurements), flush=True)
            failed, measured = failed + len(broken), measured + len(measurements)
    if not measured:
        print("python -m benchmarks.train_step: no contender is left", file=sys.stderr)
        return 3
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
