"""``python -m benchmarks.many`` times the training of many networks at once.

The time is that of a model-step: a step of K models takes K of them. Each contender has its own
process for all cases. First each contender prepares its cases and takes a provisional turn in each;
then, case by case, they take turns, so that a drift of the machine's speed affects all alike. A
contender's time counts only if its first models' losses follow those of a float64 run. The file
gets each result at once.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro

import xpnet
from benchmarks.interrupts import orderly
from benchmarks.many_contenders import (
    ALONE,
    CONTENDERS,
    STACKS,
    TWO_PROCESSES,
    ManyProblem,
    at_once,
    batches,
    many_problem,
    one_by_one,
    reference,
)
from benchmarks.problems import Case, Epoch, Problem
from benchmarks.results import Measurement, Recorder, numbers, recording
from benchmarks.timing import quartiles, ratio, settle, turns
from benchmarks.train_step import CHECKED_STEPS, check
from benchmarks.worker import LIMIT_SECONDS, Failed, Skipped, Worker, stop
from xpnet.errors import NotCapturedWarning

__all__ = ["Verdict", "alone_of", "main", "serve", "verdicts"]

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CHECKED_MODELS = 4  # a float64 run of all would take longer than the measurement
GPU_STEPS = 64  # a multiple of the steps in a graph, and of those in a scan
FASTER = {"20-32-2/32": 8.0, "64-100-10/100": 1.3}  # asked of NumPy for 16 models or more
FROM = 16
LEVEL = 0.95
# Asked on a GPU: a step of so many networks takes less than so many times the step of one.
GPU_NETWORK, GPU_MODELS, GPU_MOST = "S", 64, 3.0


@dataclass(frozen=True)
class Arguments:
    """Time a model-step of many networks at once, beside the same networks one by one."""

    networks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = (
        "20-32-2/32", "64-100-10/100", "S",
    )  # fmt: skip
    """Networks of `benchmarks.train_step`: S = 784-50-10 batch 100, or sizes and batch."""
    models: tuple[int, ...] = (1, 4, 16, 64, 256)
    """Numbers of models, one after the other; put the most important first."""
    optimizers: tuple[Literal["sgd", "adam"], ...] = ("sgd",)
    """Optimizers, one after the other."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device; each has its own contenders."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Measure only these contenders (names in quotes); by default all that are installed."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder with the MNIST files; without it, random images take their place."""
    rounds: int = 7
    """Number of turns of each contender."""
    seconds: float = 0.1
    """Shortest length of a turn; as many steps run as fill it."""
    clock: Literal["wall", "cpu"] = "wall"
    """cpu counts the seconds of each contender's process, for a machine that others use too. Let
    every library run one thread then (OMP_NUM_THREADS=1, OPENBLAS_NUM_THREADS=1, taskset -c 0)."""
    limit: float = LIMIT_SECONDS
    """Most seconds for an answer of a contender. A slower contender is ended, and the others
    continue."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results into this file as JSON lines: the machine, then one per measurement."""


# -- In the process of a contender -----------------------------------------------------


class Ready(NamedTuple):
    """A contender that has a case; `models` says how many it trains."""

    many: ManyProblem
    epoch: Epoch
    models: int

    def order(self, steps: int) -> np.ndarray:
        return batches(self.many.problem, self.many.models, steps)[:, : self.models]


def serve(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Serve a contender: "begin" a case and return its first losses, "prepare" returns the number
    of steps in a turn, "time" times a turn, "run" trains one model."""
    if setup["device"] == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"  # even if there is a GPU
    # Otherwise each of JAX's processes takes three quarters of a GPU's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # A step in the plain loop would look like a slow captured step, so it must fail.
    warnings.simplefilter("error", NotCapturedWarning)
    name = setup["contender"]
    _library(name, setup["device"])
    make = CONTENDERS[setup["device"]][name]
    problems: dict[str, Problem] = {}
    ready: dict[str, Ready] = {}
    orders: dict[str, np.ndarray] = {}
    multiple = 1 if setup["device"] == "cpu" else GPU_STEPS
    clock = CLOCKS[setup.get("clock", "wall")]

    def seconds_of(now: Ready, order: np.ndarray) -> float:
        began = clock()
        now.epoch(order)
        return clock() - began

    def many_of(question: dict[str, Any]) -> ManyProblem:
        # The data of a network is the same for any number of models.
        key = json.dumps(question["case"])
        if key not in problems:
            problems[key] = Case(**question["case"]).problem()
        return many_problem(problems[key], question["models"])

    def begin(key: str, question: dict[str, Any]) -> dict[str, Any]:
        many = many_of(question)
        try:
            epoch = make(many)
        except Skipped as reason:
            return {"skipped_case": str(reason)}
        chunk = at_once(many, STACKS[name]) if name in STACKS else None
        models = min(chunk or ALONE.get(name, many.models), many.models)
        now = ready[key] = Ready(many, epoch, models)
        began = clock()
        losses = epoch(now.order(CHECKED_STEPS))[:, :CHECKED_MODELS]
        seconds = clock() - began
        return {"losses": losses.tolist(), "seconds": seconds, "at_once": chunk}

    def prepare(key: str, seconds: float) -> dict[str, Any]:
        now = ready[key]
        steps = multiple * max(1, CHECKED_STEPS // multiple)
        first = seconds_of(now, now.order(steps))  # compiles, captures
        each = seconds_of(now, now.order(steps)) / steps
        steps = multiple * math.ceil(max(seconds / each, 2) / multiple)
        orders[key] = now.order(steps)
        now.epoch(orders[key])  # JAX compiles for each number of steps
        return {"steps": steps, "seconds": first}

    def run(key: str, question: dict[str, Any]) -> dict[str, Any]:
        if key not in ready:
            one = slice(question["model"], question["model"] + 1)
            many = many_of(question)
            ready[key] = Ready(many, one_by_one(many.part(one), "numpy"), 1)
        order = batches(ready[key].many.problem, question["models"], question["steps"])
        own = np.ascontiguousarray(order[:, question["model"], None])
        return {"losses": ready[key].epoch(own).tolist()}

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        key = json.dumps([question["case"], question["models"]])
        match question["do"]:
            case "begin":
                return begin(key, question)
            case "prepare":
                return prepare(key, question["seconds"])
            case "run":
                return run(key, question)
        now, order = ready[key], orders[key]
        settle(partial(now.epoch, order))
        return {"seconds": seconds_of(now, order) / len(order) / now.models}

    return answer


def _library(contender: str, device: str) -> None:
    """Import what the contender needs; raise DeviceError or ModuleNotFoundError if it cannot be."""
    first, *words = contender.split()
    if first == "xpnet":
        xpnet.select(device, words[0])
    elif first in ("jax", "torch"):
        importlib.import_module(first)


# -- The rounds ------------------------------------------------------------------------


class Lot(NamedTuple):
    """A case with a number of models."""

    case: Case
    models: int

    def __str__(self) -> str:
        return f"{self.case}: {self.models} model{'s' if self.models > 1 else ''}"

    def fields(self) -> dict[str, Any]:
        """Return what identifies it in a file of results."""
        return {**self.case.fields(), "models": self.models}


def alone_of(contender: str) -> str:
    """Return the contender that trains the same networks one by one on the same library."""
    words = contender.split()
    library = words[1] if words[0] == "xpnet" else {"by": "numpy"}.get(words[0], words[0])
    return f"xpnet {library} one by one"


class Rounds:
    """Collect and record, at once, what is measured; a provisional turn counts until a real one."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.known: dict[tuple[Lot, str], dict[str, Any]] = {}
        self._values: dict[tuple[Lot, str], list[float]] = {}
        self._real: set[tuple[Lot, str]] = set()

    def begin(self, lot: Lot, name: str, seconds: float) -> None:
        self._values[lot, name] = [seconds]
        self._recorder.put(*self.of(lot))

    def add(self, lot: Lot, name: str, seconds: float) -> None:
        if (lot, name) not in self._real:
            self._real.add((lot, name))
            self._values[lot, name] = []
        self._values[lot, name].append(seconds)
        self._recorder.put(*self.of(lot))

    def of(self, lot: Lot) -> list[Measurement]:
        return [self._measurement(*key) for key in self._values if key[0] == lot]

    def _measurement(self, lot: Lot, name: str) -> Measurement:
        values = self._values[lot, name]
        found = {
            "case": lot.fields(),
            "contender": name,
            "unit": "us/model-step",
            **quartiles([1e6 * value for value in values]),
            **{key: value for key, value in self.known[lot, name].items() if value is not None},
        }
        if (lot, name) not in self._real:
            found["provisional"] = True
        alone = self._values.get((lot, alone_of(name)))
        if alone is not None:
            # How many times as fast as the same networks one by one on the same library.
            found["times_alone"] = ratio(alone, values)["median"]
        return found


class Expected:
    """The losses of float64 runs of the first models, made when they are first asked for."""

    def __init__(self) -> None:
        self._found: dict[Lot, tuple[np.ndarray, np.ndarray]] = {}

    def of(self, lot: Lot) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses of the training, and those of the initial weights."""
        if lot not in self._found:
            many = many_problem(lot.case.problem(), lot.models)
            order = batches(many.problem, lot.models, CHECKED_STEPS)[:, :CHECKED_MODELS]
            some = many.part(slice(CHECKED_MODELS))
            still = some._replace(lrs=np.zeros_like(some.lrs))
            self._found[lot] = reference(some)(order), reference(still)(order)
        return self._found[lot]


def measure(
    lots: Sequence[Lot], arguments: Arguments, recorder: Recorder
) -> tuple[Rounds, list[str]]:
    """Run all rounds; return what was measured and the names of contenders that failed."""
    names = arguments.only or tuple(CONTENDERS[arguments.device])
    if arguments.clock == "cpu":  # it would miss the seconds of other processes
        names = tuple(name for name in names if name != TWO_PROCESSES)
    rounds, expected = Rounds(recorder), Expected()
    failed: list[str] = []
    # Start them at the same time, since some imports take many seconds.
    workers = {
        name: Worker(
            "benchmarks.many",
            {"contender": name, "device": arguments.device, "clock": arguments.clock},
            arguments.limit,
        )
        for name in names
    }

    def fails(name: str, why: str) -> None:
        print(f"{name}: FAILED, {why}", flush=True)
        failed.append(name)
        if name in workers and not workers[name].alive:
            workers.pop(name).stop()

    def ask(lot: Lot, name: str, **question: Any) -> dict[str, Any]:
        return workers[name].ask(case=asdict(lot.case), models=lot.models, **question)

    def first(lot: Lot, name: str) -> None:
        begun = ask(lot, name, do="begin")
        if "skipped_case" in begun:
            print(f"{lot}, {name}: skipped, {begun['skipped_case']}", flush=True)
            return
        losses = np.array(begun["losses"])
        own, untrained = (each[:, : losses.shape[1]] for each in expected.of(lot))
        error = check(losses, own, untrained)  # type: ignore[arg-type]
        prepared = ask(lot, name, do="prepare", seconds=arguments.seconds)
        rounds.known[lot, name] = {
            "loss_error": error,
            "first_seconds": begun["seconds"] + prepared["seconds"],
            "steps": prepared["steps"],
            "at_once": begun["at_once"],
        }
        rounds.begin(lot, name, ask(lot, name, do="time")["seconds"])

    try:
        for name in names:
            try:
                workers[name].ready()
            except Skipped as reason:
                print(f"{name}: skipped, {reason}", flush=True)
                workers.pop(name).stop()
            except Failed as reason:
                fails(name, str(reason))
            for lot in lots:
                if name not in workers:
                    break
                try:
                    first(lot, name)
                except Failed as reason:
                    fails(name, f"{lot}: {reason}")
            if name in workers and arguments.device != "cpu":
                print(f"{name}: ready", flush=True)
        for lot in lots:
            having = [name for name in names if (lot, name) in rounds.known]
            for name in turns(having, arguments.rounds):
                if name in workers and (lot, name) in rounds.known:
                    try:
                        rounds.add(lot, name, ask(lot, name, do="time")["seconds"])
                    except Failed as reason:  # its earlier measurements stay
                        fails(name, f"{lot}: {reason}")
            if having:
                print(f"\n{lot}\n{table(rounds.of(lot))}", flush=True)
    finally:
        stop(workers.values())
    return rounds, failed


def table(measurements: Sequence[Measurement]) -> str:
    """Write one case's measurements as a table for the terminal."""
    lines = [f"{'us a model-step':<28}{'median':>9}{'q1':>9}{'q3':>9}{'x alone':>9}{'stack':>7}"]
    for m in measurements:
        times = f"{m['times_alone']:.2f}" if "times_alone" in m else ""
        lines.append(
            f"{m['contender']:<28}{m['median']:>9.1f}{m['q1']:>9.1f}{m['q3']:>9.1f}{times:>9}"
            f"{m.get('at_once', ''):>7}"
        )
    return "\n".join(lines)


# -- What was asked --------------------------------------------------------------------


class Verdict(NamedTuple):
    """What was asked of a case, and what was measured, as times as fast (or as slow)."""

    what: str
    asked: float
    measured: float
    most: bool = False  # whether `asked` is the largest that holds, not the smallest

    @property
    def holds(self) -> bool:
        return self.measured < self.asked if self.most else self.measured >= self.asked


def verdicts(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    """Yield what was asked of the cases that were measured."""
    known = {(json.dumps(m["case"]), m["contender"]): m for m in measurements}
    for key, case in {json.dumps(m["case"]): m["case"] for m in measurements}.items():
        network, models = case["network"], case["models"]
        ours = known.get((key, "xpnet numpy"))
        where = f"{network} {case['optimizer']}, {models} models"
        if ours and "times_alone" in ours:
            least = FASTER.get(network, LEVEL) if models >= FROM else LEVEL
            yield Verdict(f"{where}: xpnet numpy, one by one", least, ours["times_alone"])
        pair = [known.get((key, name)) for name in ("jax vmap", "xpnet jax")]
        if pair[0] and pair[1] and "device" not in case:
            faster = ratio(pair[0]["values"], pair[1]["values"])["median"]
            yield Verdict(f"{where}: xpnet jax, jax.vmap", LEVEL, faster)
        ours, one = (known.get((key, name)) for name in ("xpnet cupy", "xpnet cupy one by one"))
        if ours and one and (network, models) == (GPU_NETWORK, GPU_MODELS):
            slower = models * ratio(ours["values"], one["values"])["median"]
            what = f"{where}: step of all, step of one"
            yield Verdict(what, GPU_MOST, slower, most=True)


def verdict_lines(found: Iterable[Verdict]) -> list[str]:
    """Write the verdicts as lines of a report."""
    return [
        f"{v.what:<60}{'< ' if v.most else '>= '}{v.asked:<6g}{v.measured:>8.2f}"
        f"  {'yes' if v.holds else 'NO'}"
        for v in found
    ]


@orderly
def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.many")
    known = CONTENDERS[arguments.device]
    unknown = set(arguments.only) - known.keys()
    if arguments.clock == "cpu" and arguments.device != "cpu":
        print("python -m benchmarks.many: --clock cpu: expected wall on a GPU", file=sys.stderr)
        return 2
    if unknown:
        text = f"--only {', '.join(sorted(unknown))}: expected some of {', '.join(known)}"
        print(f"python -m benchmarks.many: {text}", file=sys.stderr)
        return 2
    lots = [
        Lot(Case(network, "sigmoid", optimizer, "", arguments.device), models)
        for optimizer, network, models in product(
            arguments.optimizers, arguments.networks, arguments.models
        )
    ]
    data_dir = str(arguments.data_dir or "")
    if data_dir:  # only networks of MNIST's size can have it
        lots = [
            lot._replace(case=Case(**{**asdict(lot.case), "data_dir": data_dir}))
            if lot.case.size.sizes[0] == 784 and lot.case.size.sizes[-1] >= 10
            else lot
            for lot in lots
        ]
    try:
        numbers(arguments)
        for lot in lots:
            lot.case.problem()
    except (ValueError, OSError) as error:
        print(f"python -m benchmarks.many: {error}", file=sys.stderr)
        return 2
    settings = {
        "data": "mnist" if data_dir else "random",
        "rounds": arguments.rounds,
        "device": arguments.device,
        "clock": arguments.clock,
    }
    with recording("many", arguments.out, **settings) as recorder:
        _, failed = measure(lots, arguments, recorder)
        print("\n".join(["", *verdict_lines(verdicts(recorder.measurements))]), flush=True)
    if not recorder.measurements:
        print("python -m benchmarks.many: no contender is left", file=sys.stderr)
        return 3
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
