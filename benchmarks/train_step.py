"""``python -m benchmarks.train_step`` times a whole training step of several libraries.

A step gathers, runs forward and backward, and updates. Each contender has its own process, which
waits while the others run. They take turns, one window each, so that a drift of the machine's speed
affects all alike. A contender's time counts only if its losses follow those of a float64 run. The
file gets each result at once: first a provisional turn of each contender as soon as it is prepared,
then every turn of the rounds.

With ``--device cuda``, the contenders are those of a GPU, lane by lane: in the lane float32, all
multiply in float32; in the lane tf32, all in tf32. A time is wall-clock time from the call until
the losses are on the host.
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

# Few steps, before the training amplifies rounding: with sigmoid and a large rate, L's loss swings
# for a while, and with products in bfloat16 it is a fifth off after 30 steps, in PyTorch as in
# xpnet.
CHECKED_STEPS = 10
# The largest distance of a loss from that of the float64 run, relative to the mean loss. tf32 and
# float16 round to 11 bits, bfloat16 to 8.
TOLERANCE = {"float32": 5e-3, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2}
BASELINE = "pytorch eager"
# The book's whole training of 17 epochs takes this many steps of this network.
BOOK_NETWORK, BOOK_STEPS = "S", 10_000


@dataclass(frozen=True)
class Arguments:
    """Time a training step in xpnet and in the libraries that you could use instead."""

    networks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ("S", "M", "L", "D")
    """S = 784-50-10 batch 100, M = 784-256-10 batch 128, L = 784-1024-10 batch 256,
    D = 784-512-512-512-10 batch 128; or sizes and batch, such as 64-8-10/32."""
    activations: tuple[Literal["sigmoid", "relu", "tanh"], ...] = ("sigmoid",)
    """Activations of the hidden layers, one after the other."""
    optimizers: tuple[Literal["sgd", "adam"], ...] = ("sgd",)
    """Optimizers; each is measured with each activation."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device; each has its own contenders."""
    precisions: tuple[Literal["float32", "tf32", "bfloat16", "float16"], ...] = ("float32",)
    """Precisions of the matrix products, one after the other; only for cuda. On the CPU, bfloat16
    contenders are measured beside the others."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Measure only these contenders (names in quotes); by default all that are installed."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder with the MNIST files; without it, the steps train on random images of this size."""
    rounds: int = 11
    """Number of turns of each contender."""
    seconds: float = 0.1
    """Shortest length of a turn; as many steps run as fill it."""
    limit: float = LIMIT_SECONDS
    """Most seconds for an answer of a contender, to import its library, to compile or to train a
    turn. A slower contender is ended, and the others continue."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results into this file as JSON lines: the machine, then one per measurement."""


def serve(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Serve a contender: "check" returns losses, "prepare" the number of steps in a turn, "time"
    times a turn, "book" a whole training."""
    case = Case(**setup["case"])
    if case.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"  # even if there is a GPU
    # Otherwise each of JAX's processes takes three quarters of a GPU's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # A step in the plain loop would look like a slow captured step, so it must fail.
    warnings.simplefilter("error", NotCapturedWarning)
    epoch = CONTENDERS[case.device][setup["contender"]](case.problem())
    multiple = 1 if case.device == "cpu" else STEPS_PER_GRAPH
    order = np.empty(0)

    def whole(steps: float) -> int:
        """Round the number of steps up to whole graphs."""
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
                # JAX compiles for each number of steps, so only the very first time is used.
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
    """Return the largest difference of the losses from the expected ones, relative to their mean.

    Raise `Failed` if it is large, or more than a tenth of what the training has changed.
    `untrained` holds the losses of the initial weights on the same batches.
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
    """Start all processes at the same time, since some imports take many seconds."""
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
    """Collect and record, at once, what is measured of one case's contenders.

    A contender's provisional turn counts until it has a turn in the rounds. `fields` identifies
    the case in the file, and `batch` is the number of samples in a step.
    """

    def __init__(self, fields: dict[str, Any], batch: int, recorder: Recorder) -> None:
        self._fields, self._batch, self._recorder = fields, batch, recorder
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
        # Record all of them, since a turn of the baseline changes every ratio.
        self._recorder.put(*self.measurements())

    def measurements(self) -> list[Measurement]:
        return [self._measurement(name) for name in self._provisional]

    def _values(self, name: str) -> list[float]:
        return self._seconds.get(name) or [self._provisional[name]]

    def _measurement(self, name: str) -> Measurement:
        values = self._values(name)
        known = self.known[name]
        measurement = {
            "case": self._fields,
            "contender": name,
            "unit": "us/step",
            **quartiles([1e6 * value for value in values]),
            "samples_per_second": self._batch / quartiles(values)["median"],
            **{key: value for key, value in known.items() if value is not None and value != []},
        }
        if name not in self._seconds:
            measurement["provisional"] = True
        if BASELINE in self._provisional:
            # How many times as fast as PyTorch.
            measurement["times_pytorch"] = ratio(self._values(BASELINE), values)["median"]
        return measurement


def measure(
    case: Case, arguments: Arguments, recorder: Recorder
) -> tuple[list[Measurement], list[str]]:
    """Run the rounds of one case; return the measurements and the names of failed contenders."""
    names = arguments.only or tuple(CONTENDERS[case.device])
    problem, order = case.problem(), batches(case, CHECKED_STEPS)
    expected = reference(problem)(order)
    untrained = reference(problem._replace(lr=0.0))(order)
    failed: list[str] = []
    started = start(case, names, arguments.limit)
    workers = {name: w for name, w in started.items() if isinstance(w, Worker)}
    rounds = Rounds(case.fields(), case.size.batch, recorder)

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
                # The first calls, in which libraries compile and capture; disk caches may be cold.
                first_seconds += prepared["seconds"]
                rounds.known[name] = {
                    "loss_error": error,
                    "first_seconds": first_seconds,
                    "steps": prepared["steps"],
                    "fallbacks": prepared["fallbacks"],
                }
                # Measure at once, since the next contender may take minutes to compile, or hang.
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
                except Failed as reason:  # its turns may still work
                    print(f"{name}: a whole training FAILED, {reason}", flush=True)
                    failed.append(name)
        for name in turns(tuple(workers), arguments.rounds):
            if name in workers:
                try:
                    rounds.add(name, turn(name))
                except Failed as reason:  # its earlier measurements stay
                    fails(name, reason)
    finally:
        stop(workers.values())
    return rounds.measurements(), failed


def not_fused(name: str, fallbacks: Sequence[str]) -> str:
    """Write a line for each function of a contender's step that is not fused, with the reason."""
    lines = [f"{name} is slower than it could be: these functions ({len(fallbacks)}) are not fused"]
    return "\n".join([*lines, *(f"  {line}" for line in fallbacks)])


def cost(case: Case) -> str:
    """Write the work of the step's products; divided by the machine's rates, it bounds the time."""
    shapes = products(*case.size)
    flops = sum(2 * m * k * n for m, k, n in shapes)
    moved = ITEM_BYTES[case.precision] * sum(m * k + k * n + m * n for m, k, n in shapes)
    return f"products: {flops / 1e6:.1f} MFLOP a step, {moved / 1e6:.2f} MB (operands once)"


def table(measurements: Sequence[Measurement]) -> str:
    """Write one case's measurements as a table for the terminal."""
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
            f"--precisions {' '.join(lower)}: expected float32 on the CPU, where bfloat16 has its "
            f"own contenders ({', '.join(BFLOAT16)}); use --device cuda"
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
