"""``python -m benchmarks.convolution`` times the book's convolution networks, and convolutions.

A step gathers a batch of images, runs forward and backward, and updates by Adam; a single
convolution runs forward and backward. Each contender has its own process for each case, which waits
while the others run; they take turns, so that a drift of the machine's speed affects all alike. A
step's time counts only if the contender's losses follow those of a float64 run, dropout left out;
a convolution's, if its four results do. On the CPU every library runs on one thread.

After the rounds, each process reports the memory of a step: the largest resident memory during a
few steps, less that before them, when the pages that earlier steps have freed are given back.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from unittest import mock

import numpy as np
import tyro

from benchmarks import im2col
from benchmarks.contenders import Training
from benchmarks.image_contenders import CONVOLUTIONS, TRAININGS, book_convolution
from benchmarks.image_problems import NETWORKS, SHAPES, ImageCase, Shape, products
from benchmarks.interrupts import orderly
from benchmarks.many import CLOCKS, Verdict, verdict_lines
from benchmarks.problems import STEPS_PER_GRAPH
from benchmarks.results import Measurement, Recorder, numbers, recording
from benchmarks.timing import ratio, settle, turns
from benchmarks.train_step import Rounds, check, not_fused, table
from benchmarks.worker import LIMIT_SECONDS, Failed, Skipped, Worker, stop
from xpnet.errors import NotCapturedWarning

__all__ = ["in_a_line", "main", "section", "serve", "verdicts"]

CHECKED_STEPS = 4
SMALL_BATCH = 2  # runs before the memory is measured, so that no arrays of a large batch are left
# The largest distance of a convolution's results from the float64 ones, relative to the largest.
TOLERANCE = 1e-4
# Variables that say how many threads a library starts.
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
# glibc gives freed memory back from its first arena alone; JAX's threads would have their own.
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
MIB = 2**20


@dataclass(frozen=True)
class Arguments:
    """Time steps of convolution networks, and single convolutions, beside other libraries."""

    networks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = (
        "SimpleConvNet", "DeepConvNet",
    )  # fmt: skip
    """SimpleConvNet (one convolution) and DeepConvNet (six), of the book; tiny is for tests."""
    shapes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = (
        "first", "wide", "middle", "deep",
    )  # fmt: skip
    """Single convolutions, on the CPU only: first, wide, middle and deep, from one channel of
    28 x 28 to 64 of 8 x 8; or tiny."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device; each has its own contenders."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Measure only these contenders (names in quotes); by default all that are installed."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder with the MNIST files; without it, random images take their place."""
    rounds: int = 7
    """Number of turns of each contender."""
    seconds: float = 0.3
    """Shortest length of a turn; as many steps run as fill it."""
    threads: int = 1
    """Threads of each library, and processor cores of each contender, on the CPU."""
    clock: Literal["wall", "cpu"] = "wall"
    """cpu counts the seconds of each contender's process, for a machine that others use too."""
    limit: float = LIMIT_SECONDS
    """Most seconds for an answer of a contender. A slower contender is ended, and the others
    continue."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results into this file as JSON lines: the machine, then one per measurement."""


# -- In the process of a contender -----------------------------------------------------


def serve(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Serve a contender: "check" returns first losses or an error, "prepare" the number of steps in
    a turn, "time" times a turn, "memory" returns the memory of a step."""
    device, name = setup["device"], setup["contender"]
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"  # even if there is a GPU
        if hasattr(os, "sched_setaffinity"):  # JAX starts a thread for each core that it may use
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-setup["threads"] :])
    # Otherwise each of JAX's processes takes three quarters of a GPU's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # A step in the plain loop would look like a slow captured step, so it must fail.
    warnings.simplefilter("error", NotCapturedWarning)
    clock = CLOCKS[setup["clock"]]
    if "shape" in setup:
        return _serve_convolution(SHAPES[setup["shape"]], name, clock)
    return _serve_training(ImageCase(setup["network"], device, setup["data_dir"]), name, clock)


def batches(case: ImageCase, steps: int) -> np.ndarray:
    """Return the rows of each batch, shape=(steps, batch)."""
    rng, samples = np.random.default_rng(1), case.samples
    return rng.integers(0, samples, (steps, case.batch), dtype=np.int32)


def _serve_training(
    case: ImageCase, name: str, clock: Callable[[], float]
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    make, problem = TRAININGS[case.device][name], case.problem()
    multiple = 1 if case.device == "cpu" else STEPS_PER_GRAPH
    epoch, order = make(problem), np.empty(0)

    def seconds_of(order: np.ndarray) -> float:
        began = clock()
        epoch(order)
        return clock() - began

    def prepare(seconds: float) -> dict[str, Any]:
        nonlocal order
        steps = multiple * math.ceil(CHECKED_STEPS / multiple)
        first = seconds_of(batches(case, steps))  # compiles, captures
        each = seconds_of(batches(case, steps)) / steps
        order = batches(case, multiple * math.ceil(seconds / each / multiple))
        epoch(order)  # JAX compiles for each number of steps
        fallbacks = epoch.fallbacks if isinstance(epoch, Training) else []
        return {"steps": len(order), "seconds": first, "fallbacks": fallbacks}

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        match question["do"]:
            case "check":  # two libraries draw different dropout
                return {
                    "losses": make(problem.without_dropout())(batches(case, CHECKED_STEPS)).tolist()
                }
            case "prepare":
                return prepare(question["seconds"])
            case "memory":
                return {"mib": step_mib(epoch, order)}
        settle(partial(epoch, order))
        return {"seconds": seconds_of(order) / len(order)}

    return answer


def _serve_convolution(
    shape: Shape, name: str, clock: Callable[[], float]
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    call, calls = CONVOLUTIONS[name](shape), 1

    def seconds_of(calls: int) -> float:
        began = clock()
        for _ in range(calls):
            call()
        return clock() - began

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        match question["do"]:
            case "check":
                exact = book_convolution(shape, np.float64)()
                pairs = zip(map(np.asarray, call()), exact, strict=True)
                return {
                    "error": max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
                }
            case "prepare":
                first = seconds_of(1)
                calls = math.ceil(question["seconds"] / seconds_of(1))
                return {"steps": calls, "seconds": first, "fallbacks": []}
        settle(call)
        return {"seconds": seconds_of(calls) / calls}

    return answer


def step_mib(epoch: Callable[[np.ndarray], Any], order: np.ndarray) -> float | None:
    """Return the most memory that steps take beyond what is there before, in MiB.

    What stays from the steps before is that of a small batch: caches of layers, freed memory that
    an allocator has kept. None where Linux does not say.
    """
    epoch(order[:, :SMALL_BATCH])
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # give freed pages back
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    except (OSError, AttributeError):
        return None
    before = _resident("VmRSS")
    epoch(order)
    return (_resident("VmHWM") - before) / MIB


def _resident(field: str) -> int:
    """Return a line of /proc/self/status in bytes: VmRSS, resident memory, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


# -- The rounds ------------------------------------------------------------------------

Lot = ImageCase | Shape


def setup_of(lot: Lot, name: str, arguments: Arguments) -> dict[str, Any]:
    common: dict[str, Any] = {
        "contender": name,
        "device": arguments.device,
        "clock": arguments.clock,
    }
    common |= {"threads": arguments.threads}
    if isinstance(lot, Shape):
        return {**common, "shape": next(key for key, shape in SHAPES.items() if shape == lot)}
    return {**common, "network": lot.network, "data_dir": lot.data_dir}


def start(lot: Lot, names: Sequence[str], arguments: Arguments) -> dict[str, Worker]:
    """Start all processes at the same time, since some imports take many seconds."""
    on_cpu = {**dict.fromkeys(THREADS, str(arguments.threads)), **ONE_ARENA}
    with mock.patch.dict(os.environ, on_cpu if arguments.device == "cpu" else {}):
        return {
            name: Worker("benchmarks.convolution", setup_of(lot, name, arguments), arguments.limit)
            for name in names
        }


def checker(lot: Lot) -> Callable[[Worker], float]:
    """Return what asks a contender for first results, and returns how far off they are."""
    if isinstance(lot, Shape):

        def error_of(worker: Worker) -> float:
            error: float = worker.ask(do="check")["error"]
            if not error < TOLERANCE:
                raise Failed(f"computes something else: it is {error:.1e} off")
            return error

        return error_of
    problem, order = lot.problem().without_dropout(), batches(lot, CHECKED_STEPS)
    expected = im2col.train(problem, np.float64)(order)
    untrained = im2col.train(problem._replace(lr=0.0), np.float64)(order)
    return lambda worker: check(worker.ask(do="check")["losses"], expected, untrained)


def measure(
    lot: Lot, arguments: Arguments, recorder: Recorder
) -> tuple[list[Measurement], list[str]]:
    """Run the rounds of a case; return the measurements and the names of failed contenders."""
    known = CONVOLUTIONS if isinstance(lot, Shape) else TRAININGS[arguments.device]
    names = [name for name in known if not arguments.only or name in arguments.only]
    error_of, failed = checker(lot), list[str]()
    rounds = Rounds(lot.fields(), lot.batch, recorder)
    workers = start(lot, names, arguments)

    def fails(name: str, reason: Failed) -> None:
        print(f"{name}: FAILED, {reason}", flush=True)
        failed.append(name)
        workers.pop(name).stop()

    def begin(name: str) -> None:
        worker = workers[name].ready()
        error = error_of(worker)
        prepared = worker.ask(do="prepare", seconds=arguments.seconds)
        rounds.known[name] = {
            "loss_error": error,
            "first_seconds": prepared["seconds"],
            "steps": prepared["steps"],
            "fallbacks": prepared["fallbacks"],
        }
        # Measure at once, since the next contender may take minutes to compile, or hang.
        rounds.begin(name, worker.ask(do="time")["seconds"])
        if lot.fields().get("device"):
            print(f"{name}: ready, first calls {prepared['seconds']:.2f} s", flush=True)
        if prepared["fallbacks"]:
            print(not_fused(name, prepared["fallbacks"]), flush=True)

    try:
        for name in names:
            try:
                begin(name)
            except Skipped as reason:
                print(f"{name}: skipped, {reason}", flush=True)
                workers.pop(name)
            except Failed as reason:
                fails(name, reason)
        for name in turns(tuple(workers), arguments.rounds):
            if name in workers:
                try:
                    rounds.add(name, workers[name].ask(do="time")["seconds"])
                except Failed as reason:  # its earlier measurements stay
                    fails(name, reason)
        if isinstance(lot, ImageCase) and arguments.device == "cpu":
            for name in tuple(workers):
                try:
                    rounds.known[name]["mib"] = workers[name].ask(do="memory")["mib"]
                except Failed as reason:
                    fails(name, reason)
            recorder.put(*rounds.measurements())
    finally:
        stop(workers.values())
    return rounds.measurements(), failed


# -- What was asked --------------------------------------------------------------------

# (network, ours, theirs, times as fast at least); 0.95 is level, up to the spread between runs.
FASTER = (
    ("SimpleConvNet", "xpnet numpy", "book formulas", 4.0),
    ("SimpleConvNet", "xpnet numpy", "pytorch eager", 0.95),
    ("DeepConvNet", "xpnet numpy", "book formulas", 4.0),
)
# (network, ours, theirs, times as long at most)
SLOWER = (
    ("DeepConvNet", "xpnet numpy", "pytorch eager", 2.3),
    ("DeepConvNet", "xpnet torch", "pytorch eager", 1.35),
)


def verdicts(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    """Yield what was asked of the steps that were measured on the CPU."""
    found = {
        (m["case"].get("network"), m["contender"]): m["values"]
        for m in measurements
        if "device" not in m["case"]
    }
    for network, ours, theirs, least in FASTER:
        mine, other = found.get((network, ours)), found.get((network, theirs))
        if mine and other:
            faster = ratio(other, mine)["median"]
            yield Verdict(f"{network}: {ours}, times as fast as {theirs}", least, faster)
    for network, ours, theirs, most in SLOWER:
        mine, other = found.get((network, ours)), found.get((network, theirs))
        if mine and other:
            slower = ratio(mine, other)["median"]
            yield Verdict(f"{network}: {ours}, times as long as {theirs}", most, slower, most=True)


def cost(case: ImageCase) -> str:
    """Write the work of a step's products."""
    flops = [product.flops for product in products(case.form)]
    return f"products: {len(flops)}, {sum(flops) / 1e6:,.0f} MFLOP a step"


# -- The pages -------------------------------------------------------------------------


def step_lines(measurements: Sequence[Measurement]) -> list[str]:
    """Write ms a step with times as fast as PyTorch, and MiB, of each network."""
    own = [m for m in measurements if "network" in m["case"]]
    networks = [*dict.fromkeys(m["case"]["network"] for m in own)]
    found = {(m["case"]["network"], m["contender"]): m for m in own}
    lines = [
        "| |" + "".join(f" {network}, ms | MiB |" for network in networks),
        "| --- |" + " ---: | ---: |" * len(networks),
    ]
    for name in dict.fromkeys(m["contender"] for m in own):
        cells = ""
        for network in networks:
            m = found.get((network, name), {})
            mib = m.get("mib")
            cells += f" {_milliseconds(m)} | {'' if mib is None else f'{mib:.0f}'} |"
        lines.append(f"| {name} |{cells}")
    return lines


def shape_lines(measurements: Sequence[Measurement]) -> list[str]:
    """Write ms of each single convolution, with times as fast as PyTorch."""
    own = [m for m in measurements if "convolution" in m["case"]]
    shapes = [*dict.fromkeys(m["case"]["convolution"] for m in own)]
    found = {(m["case"]["convolution"], m["contender"]): m for m in own}
    lines = [
        "| ms | " + " | ".join(shapes) + " |",
        "| --- |" + " ---: |" * len(shapes),
    ]
    for name in dict.fromkeys(m["contender"] for m in own):
        cells = (_milliseconds(found.get((shape, name), {})) for shape in shapes)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _milliseconds(m: Measurement) -> str:
    if not m:
        return ""
    times = f" ({m['times_pytorch']:.2f})" if "times_pytorch" in m else ""
    ms = m["median"] / 1e3
    digits = 2 if ms < 10 else 1 if ms < 100 else 0
    return f"{'~' if m.get('provisional') else ''}{ms:,.{digits}f}{times}"


def section(header: dict[str, Any], measurements: Sequence[Measurement]) -> list[str]:
    """Write the tables of a file of results."""
    clock = " of processor time, on a machine that other work kept busy," * (
        header["clock"] == "cpu"
    )
    return [
        f"A step of the book's two networks on {header['data'].upper()} (gather, forward, "
        f"backward, Adam), batch 100, float32: milliseconds{clock} on one thread, median of "
        f"{header['rounds']} rounds in turns, in parentheses how many times as fast as PyTorch; "
        "and the memory of a step beyond weights, moments and data. `python -m "
        "benchmarks.convolution` repeats it.",
        "",
        *step_lines(measurements),
        "",
        '("book formulas" is im2col and col2im as K. Saitoh\'s *Deep Learning from Scratch* '
        "derives them, in plain NumPy. All others apply ReLU before a max pool, as the book does; "
        "xpnet applies it after, to a quarter of the values, with the same result.)",
        "",
        "Single convolutions of 100 samples, forward and backward, with the gradients by images, "
        "filters and bias: channels and size of the images, filters and their size.",
        "",
        *shape_lines(measurements),
        "",
    ]


def in_a_line(header: dict[str, Any], measurements: Sequence[Measurement]) -> str:
    """Write a sentence for the README."""
    found = {(m["case"].get("network"), m["contender"]): m["median"] / 1e3 for m in measurements}
    ours, theirs, book = (
        f"{found['SimpleConvNet', name]:.0f}"
        for name in ("xpnet numpy", "pytorch eager", "book formulas")
    )
    return (
        "A step of the book's convolution network (30 filters of 5 x 5, batch 100, Adam) takes "
        f"{ours} ms on NumPy and one core of another machine, {header['machine']['date']}, beside "
        f"{theirs} of PyTorch and {book} of the book's own formulas."
    )


# -- The command -----------------------------------------------------------------------


@orderly
def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.convolution")
    known = {*TRAININGS[arguments.device], *(CONVOLUTIONS if arguments.device == "cpu" else ())}
    text = ""
    for option, words, expected in (
        ("only", arguments.only, known),
        ("networks", arguments.networks, NETWORKS),
        ("shapes", arguments.shapes, SHAPES),
    ):
        if unknown := [word for word in words if word not in expected]:
            text = f"--{option} {', '.join(unknown)}: expected some of {', '.join(expected)}"
    if arguments.clock == "cpu" and arguments.device != "cpu":
        text = "--clock cpu: expected wall on a GPU"
    data_dir = str(arguments.data_dir or "")
    lots: list[Lot] = []
    try:
        numbers(arguments)
        if text:
            raise ValueError(text)
        for network in arguments.networks:
            case = ImageCase(network, arguments.device, data_dir)
            case.problem()
            lots.append(case)
    except (ValueError, OSError) as error:
        print(f"python -m benchmarks.convolution: {error}", file=sys.stderr)
        return 2
    if arguments.device == "cpu":
        lots += [SHAPES[name] for name in arguments.shapes]
    settings = {
        "data": "mnist" if data_dir else "random",
        "rounds": arguments.rounds,
        "device": arguments.device,
        "threads": arguments.threads,
        "clock": arguments.clock,
    }
    failed = 0
    with recording("convolution", arguments.out, **settings) as recorder:
        for lot in lots:
            print(f"\n{lot}", flush=True)
            if isinstance(lot, ImageCase):
                print(cost(lot))
            measurements, broken = measure(lot, arguments, recorder)
            print(table(measurements), flush=True)
            for line in memory_lines(measurements):
                print(line, flush=True)
            failed += len(broken)
        print("\n".join(["", *verdict_lines(verdicts(recorder.measurements))]), flush=True)
    if not recorder.measurements:
        print("python -m benchmarks.convolution: no contender is left", file=sys.stderr)
        return 3
    return 1 if failed else 0


def memory_lines(measurements: Sequence[Measurement]) -> Iterator[str]:
    """Yield the memory of each contender's step."""
    for m in measurements:
        if "mib" in m:
            yield f"{m['contender']:<22}{m['mib']:>9.1f} MiB a step"


if __name__ == "__main__":
    sys.exit(main())
