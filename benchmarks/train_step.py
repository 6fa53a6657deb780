"""``python -m benchmarks.train_step``: a whole training step, side by side.

Gather, forward, backward, update. Each contender has a process of its own, which waits while the
others run; they take turns, a window each, so that a machine whose speed drifts treats them
alike. Before its time counts, a contender's losses must follow those of a float64 run. Whatever
was measured is in the file at once: a provisional turn of each contender as soon as it is
prepared, then every turn of the rounds.

With ``--device cuda`` the opponents are those of a GPU, lane by lane: float32 is float32 for all,
tf32 for all. A time is the clock's, from the call to the losses on the host.
"""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from benchmarks.contenders import BFLOAT16, CONTENDERS, FLOORS, Training, reference
from benchmarks.interrupts import orderly
from benchmarks.problems import STEPS_PER_GRAPH, Case, batches, products
from benchmarks.products import ITEM_BYTES
from benchmarks.results import Measurement, Recorder, numbers, recording
from benchmarks.timing import calls_in, quartiles, ratio, settle, timed, turns
from benchmarks.worker import LIMIT_SECONDS, Failed, Skipped, Worker, stop
from xpnet.errors import NotCapturedWarning

__all__ = ["main", "serve"]

# Before rounding is amplified: under sigmoid and a large rate, L's loss swings for a while, and
# products in bfloat16 are a fifth off after 30 steps, PyTorch's own like ours.
CHECKED_STEPS = 10
# How far a loss may be from the float64 run's, relative to the mean loss. tf32 and float16 round
# to 11 bits, bfloat16 to 8.
TOLERANCE = {"float32": 5e-3, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2}
BASELINE = "pytorch eager"
# A whole training of the book's, 17 epochs: so many steps of this network.
BOOK_NETWORK, BOOK_STEPS = "S", 10_000


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
    device: Literal["cpu", "cuda"] = "cpu"
    """Each has contenders of its own."""
    precisions: tuple[Literal["float32", "tf32", "bfloat16", "float16"], ...] = ("float32",)
    """Of the matrix products, one after the other; with cuda. On the CPU, contenders in bfloat16
    stand beside the others."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Contenders by name, in quotes; by default all whose libraries are installed."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder with the MNIST files; without it, random images of the same size."""
    rounds: int = 11
    """Turns of each contender."""
    seconds: float = 0.1
    """Length of a turn, at least; as many steps as fill it."""
    limit: float = LIMIT_SECONDS
    """Seconds in which a contender has to answer, be it to import its library, to compile or to
    train a turn; else it is ended, and the others go on."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON lines: the machine, then a line per measurement."""


def serve(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A contender's process: "check" gives losses, "prepare" the steps in a turn, "time" one;
    "book" times a whole training."""
    case = Case(**setup["case"])
    if case.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"  # also where there is a GPU
    # Else each of JAX's processes takes three quarters of a GPU's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # A step that runs in the plain loop would pass for a slow captured one.
    warnings.simplefilter("error", NotCapturedWarning)
    epoch = CONTENDERS[case.device][setup["contender"]](case.problem())
    multiple = 1 if case.device == "cpu" else STEPS_PER_GRAPH
    order = np.empty(0)

    def whole(steps: float) -> int:
        """So many steps or more, in whole graphs."""
        return multiple * math.ceil(steps / multiple)

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        nonlocal order
        if question["do"] == "check":
            order = batches(case, CHECKED_STEPS)
            began = time.perf_counter()
            losses = epoch(order).tolist()
            return {"losses": losses, "seconds": time.perf_counter() - began}
        if question["do"] == "book":
            return {"seconds": timed(partial(epoch, batches(case, BOOK_STEPS)))}
        if question["do"] == "prepare":
            first: list[float] = []

            def measure(steps: int) -> float:
                order = batches(case, whole(steps))
                # Untimed, but for the very first: JAX compiles for each number of steps.
                first.append(timed(partial(epoch, order)))
                return timed(partial(epoch, order)) / len(order)

            order = batches(case, whole(calls_in(question["seconds"], measure)))
            for part in (order[: whole(len(order) / 4)], order):
                epoch(part)
            fallbacks = epoch.fallbacks if isinstance(epoch, Training) else []
            return {"steps": len(order), "seconds": first[0], "fallbacks": fallbacks}
        settle(partial(epoch, order[: whole(len(order) / 4)]))
        return {"seconds": timed(partial(epoch, order)) / len(order)}

    return answer


def check(
    losses: Sequence[float], expected: np.ndarray, untrained: np.ndarray, lane: str = "float32"
) -> float:
    """The largest difference of the losses from the expected ones, relative to their mean.

    Refused if it is large, or more than a tenth of what the training has changed: `untrained`
    are the losses of the first weights on the same batches.
    """
    if len(losses) == 1:  # the mean of the epoch
        expected, untrained = expected.mean(keepdims=True), untrained.mean(keepdims=True)
    error = float(np.max(np.abs(np.array(losses) - expected)) / expected.mean())
    learned = float(np.max(np.abs(untrained - expected)) / expected.mean())
    if not error < min(TOLERANCE[lane], learned / 10):
        raise Failed(f"trains something else: its losses are {error:.1e} off")
    return error


def lane_of(case: Case, name: str) -> str:
    return "bfloat16" if name in BFLOAT16 else case.precision


def start(case: Case, names: Sequence[str], limit: float) -> dict[str, Worker | Skipped | Failed]:
    """A process for each, all at once: the imports of some take many seconds."""
    workers = {
        name: Worker("benchmarks.train_step", {"case": asdict(case), "contender": name}, limit)
        for name in names
    }

    def ready(worker: Worker) -> Worker | Skipped | Failed:
        try:
            return worker.ready()
        except (Skipped, Failed) as reason:
            return reason

    try:
        return {name: ready(worker) for name, worker in workers.items()}
    except BaseException:
        stop(workers.values())
        raise


class Rounds:
    """What is known of the contenders of one case, and recorded as it becomes known.

    A contender's provisional turn counts until it has one of the rounds, in which all take turns.
    """

    def __init__(self, case: Case, recorder: Recorder) -> None:
        self._case, self._recorder = case, recorder
        self.known: dict[str, dict[str, Any]] = {}
        self._provisional: dict[str, float] = {}
        self._seconds: dict[str, list[float]] = {}

    def begin(self, name: str, seconds: float) -> None:
        self._provisional[name] = seconds
        self._record()

    def add(self, name: str, seconds: float) -> None:
        self._seconds.setdefault(name, []).append(seconds)
        self._record()

    def _record(self) -> None:
        # All of them: another turn of the baseline changes everybody's ratio.
        self._recorder.put(*self.measurements())

    def measurements(self) -> list[Measurement]:
        return [self._measurement(name) for name in self._provisional]

    def _values(self, name: str) -> list[float]:
        return self._seconds.get(name) or [self._provisional[name]]

    def _measurement(self, name: str) -> Measurement:
        values = self._values(name)
        known = self.known[name]
        measurement = {
            "case": self._case.fields(),
            "contender": name,
            "unit": "us/step",
            **quartiles([1e6 * value for value in values]),
            "samples_per_second": self._case.size.batch / quartiles(values)["median"],
            **{key: value for key, value in known.items() if value is not None and value != []},
        }
        if name not in self._seconds:
            measurement["provisional"] = True
        if BASELINE in self._provisional:
            # How many times as fast.
            measurement["times_pytorch"] = ratio(self._values(BASELINE), values)["median"]
        return measurement


def measure(
    case: Case, arguments: Arguments, recorder: Recorder
) -> tuple[list[Measurement], list[str]]:
    """The rounds of one case: a measurement for each contender, and the names of who failed."""
    names = arguments.only or tuple(CONTENDERS[case.device])
    problem, order = case.problem(), batches(case, CHECKED_STEPS)
    expected = reference(problem)(order)
    untrained = reference(problem._replace(lr=0.0))(order)
    failed: list[str] = []
    started = start(case, names, arguments.limit)
    workers = {name: w for name, w in started.items() if isinstance(w, Worker)}
    rounds = Rounds(case, recorder)

    def fails(name: str, reason: Failed) -> None:
        print(f"{name}: FAILED, {reason}", flush=True)
        failed.append(name)
        if name in workers:
            workers.pop(name).stop()

    def turn(name: str) -> float:
        seconds: float = workers[name].ask(do="time")["seconds"]
        return seconds

    try:
        for name, worker in started.items():
            try:
                if isinstance(worker, Skipped | Failed):
                    raise worker
                error, first_seconds = None, 0.0
                if name not in FLOORS:
                    checked = worker.ask(do="check")
                    error = check(checked["losses"], expected, untrained, lane_of(case, name))
                    first_seconds = checked["seconds"]
                prepared = worker.ask(do="prepare", seconds=arguments.seconds)
                # Until it is steady: the first calls, in which libraries compile and capture
                # (caches on the disk may be cold).
                first_seconds += prepared["seconds"]
                rounds.known[name] = {
                    "loss_error": error,
                    "first_seconds": first_seconds,
                    "steps": prepared["steps"],
                    "fallbacks": prepared["fallbacks"],
                }
                # At once: the next one may take minutes to compile, or hang.
                rounds.begin(name, turn(name))
            except Skipped as reason:
                print(f"{name}: skipped, {reason}", flush=True)
                continue
            except Failed as reason:
                fails(name, reason)
                continue
            if case.device != "cpu":
                print(f"{name}: ready, first calls {first_seconds:.2f} s", flush=True)
            if prepared["fallbacks"]:
                print(not_fused(name, prepared["fallbacks"]), flush=True)
            if name == "xpnet cupy" and case.network == BOOK_NETWORK:
                try:
                    rounds.known[name]["book_seconds"] = worker.ask(do="book")["seconds"]
                except Failed as reason:  # its turns may be had nevertheless
                    print(f"{name}: a whole training FAILED, {reason}", flush=True)
                    failed.append(name)
        for name in turns(tuple(workers), arguments.rounds):
            if name in workers:
                try:
                    rounds.add(name, turn(name))
                except Failed as reason:  # what it has measured so far stays
                    fails(name, reason)
    finally:
        stop(workers.values())
    return rounds.measurements(), failed


def not_fused(name: str, fallbacks: Sequence[str]) -> str:
    """What of a contender's step runs operation by operation, and why: a line each."""
    lines = [f"{name}: {len(fallbacks)} of its functions not fused, slower than it could be"]
    return "\n".join([*lines, *(f"  {line}" for line in fallbacks)])


def cost(case: Case) -> str:
    """What the step's products have to do, whoever does them: divided by the machine's rates,
    a bound."""
    shapes = products(*case.size)
    flops = sum(2 * m * k * n for m, k, n in shapes)
    moved = ITEM_BYTES[case.precision] * sum(m * k + k * n + m * n for m, k, n in shapes)
    return f"products: {flops / 1e6:.1f} MFLOP a step, {moved / 1e6:.2f} MB (operands once)"


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


@orderly
def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.train_step")
    known = CONTENDERS[arguments.device]
    unknown = set(arguments.only) - known.keys()
    lower = [lane for lane in arguments.precisions if lane != "float32"]
    text = ""
    if unknown:
        text = f"--only {', '.join(sorted(unknown))}: expected some of {', '.join(known)}"
    elif arguments.device == "cpu" and lower:
        text = (
            f"--precisions {' '.join(lower)}: expected float32 on the CPU, where those in bfloat16 "
            f"are contenders ({', '.join(BFLOAT16)}); use --device cuda"
        )
    if text:
        print(f"python -m benchmarks.train_step: {text}", file=sys.stderr)
        return 2
    data_dir = str(arguments.data_dir or "")
    cases = [
        Case(network, activation, optimizer, data_dir, arguments.device, precision)
        for precision, activation, optimizer, network in product(
            arguments.precisions, arguments.activations, arguments.optimizers, arguments.networks
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
    settings = {"data": data, "rounds": arguments.rounds, "device": arguments.device}
    with recording("train_step", arguments.out, **settings) as recorder:
        for case in cases:
            print(f"\n{case}, {data} data")
            if case.device != "cpu":
                print(cost(case))
            measurements, broken = measure(case, arguments, recorder)
            print(table(measurements), flush=True)
            failed, measured = failed + len(broken), measured + len(measurements)
    if not measured:
        print("python -m benchmarks.train_step: no contender is left", file=sys.stderr)
        return 3
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
