"""``python -m benchmarks.matmul`` measures the throughput of batched matrix products.

It multiplies (batch, m, k) @ (batch, k, n) in several array libraries, devices and precisions
("lanes"), over a grid of batches and shapes. A time counts only if the result agrees with float64.
Each library has its own process, and they take turns. The same run measures the machine's ceilings:
the rate of a large product and the copy bandwidth.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from benchmarks.interrupts import orderly
from benchmarks.products import LANES, LIBRARIES, Point
from benchmarks.results import Measurement, Recorder, numbers, recording
from benchmarks.timing import WINDOW_SECONDS, quartiles, ratio, turns
from benchmarks.worker import LIMIT_SECONDS, Failed, Skipped, Worker, stop
from xpnet.backend.cpu import cpu_memory

__all__ = ["main"]

# Products of an MLP: some of the networks S and M in benchmarks.train_step.
SKINNY = ("100x784x50", "784x100x50", "100x50x10", "128x784x256", "784x128x256")
LARGEST_FLOPS = {"quick": 1e9, "default": 2e10, "full": 3e11}  # limit for one product


@dataclass(frozen=True)
class Arguments:
    """Time batched matrix products across array libraries, devices and precisions."""

    quick: bool = False
    """Measure a small grid; this takes less than a minute on two cores."""
    full: bool = False
    """Measure a large grid in many rounds; this takes an evening."""
    sizes: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = ()
    """Measure square products n x n x n; with this option, only these and --shapes are measured."""
    shapes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MxKxN ...")] = ()
    """Measure these products, such as 100x784x50; with this option, only these and --sizes."""
    batches: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = ()
    """Numbers of products in a batch; 1 is a product without a batch axis."""
    broadcast: bool = False
    """With --sizes or --shapes: use one right operand for the whole batch."""
    dtypes: tuple[Literal["float32", "float64", "tf32", "float16", "bfloat16"], ...] = ()
    """Precisions; by default all that a library has on the device (with --quick, on the CPU only
    float32 and float64)."""
    libraries: tuple[Literal["numpy", "torch", "jax", "cupy", "cublas"], ...] = tuple(
        LIBRARIES  # type: ignore[arg-type]
    )
    """Libraries; missing ones are skipped and reported. cublas calls cuBLAS through CuPy."""
    devices: tuple[Literal["cpu", "cuda"], ...] = ("cpu", "cuda")
    """Devices; missing ones are skipped and reported."""
    rounds: int | None = None
    """Number of turns of each library; by default 5, with --quick 3, with --full 15."""
    seconds: float = WINDOW_SECONDS
    """Shortest length of a turn."""
    rotate: int | None = None
    """Bytes of operands to cycle through. 0 keeps the operands in the caches, the default on the
    CPU; the default on GPUs is 256 MiB, more than their caches hold."""
    baseline: str = "numpy cpu"
    """Library and device to compare the others with."""
    limit: float = LIMIT_SECONDS
    """Most seconds for an answer of a library, to be imported, to prepare a product or to time it.
    A slower library is ended, and the others continue."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results into this file as JSON lines: the machine, then one per measurement."""
    pictures: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Draw throughput, heat map and roofline as PNG files in this folder; needs matplotlib."""


def points(arguments: Arguments) -> list[Point]:
    """Return the products to measure.

    Raises
    ------
    ValueError
        A shape is not of the form MxKxN, or options contradict each other.
    """
    if arguments.quick and arguments.full:
        raise ValueError("--quick and --full: expected at most one of them")
    if arguments.broadcast and not (arguments.sizes or arguments.shapes):
        raise ValueError("--broadcast needs --sizes or --shapes")
    if arguments.broadcast and 1 in (arguments.batches or (1,)):
        raise ValueError("--broadcast needs --batches of 2 or more")
    contenders = [f"{name} {device}" for name in LIBRARIES for device in LANES]
    if arguments.baseline not in contenders:
        known = ", ".join(contenders)
        raise ValueError(f"--baseline {arguments.baseline!r}: expected one of {known}")
    if arguments.sizes or arguments.shapes:
        kinds = ("broadcast", "broadcast") if arguments.broadcast else ("square", "skinny")
        found = [
            Point(kinds[0], batch, n, n, n)
            for n in arguments.sizes
            for batch in arguments.batches or (1,)
        ]
        found += [
            Point(kinds[1], batch, *_shape(shape))
            for shape in arguments.shapes
            for batch in arguments.batches or (1,)
        ]
        return found
    sizes: tuple[int, ...]
    batches: tuple[int, ...]
    shared: tuple[int, ...]  # batches of the products with an MLP's shape
    if arguments.quick:
        sizes, batches, shared = (32, 128, 512), (1, 16, 128), (16,)
    elif arguments.full:
        sizes = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
        batches, shared = (1, 2, 8, 32, 128, 512, 2048), (2, 32, 512)
    else:
        sizes, batches, shared = (16, 32, 64, 128, 256, 512, 1024), (1, 8, 64, 512), (8, 64)
    batches = arguments.batches or batches
    found = [Point("square", batch, n, n, n) for n in sizes for batch in batches]
    found += [Point("skinny", 1, *_shape(shape)) for shape in SKINNY]
    found += [Point("skinny", batch, *_shape(SKINNY[0])) for batch in shared]
    found += [Point("broadcast", batch, *_shape(SKINNY[0])) for batch in shared]
    largest = LARGEST_FLOPS[size_name(arguments)]
    return [point for point in found if point.flops <= largest]


def size_name(arguments: Arguments) -> str:
    return "quick" if arguments.quick else "full" if arguments.full else "default"


def _shape(text: str) -> tuple[int, int, int]:
    try:
        m, k, n = (int(word) for word in text.split("x"))
    except ValueError:
        m = k = n = 0
    if min(m, k, n) < 1:
        raise ValueError(f"--shapes {text}: expected MxKxN, such as 100x784x50")
    return m, k, n


def start(arguments: Arguments) -> tuple[dict[str, Worker], list[str]]:
    """Start a worker for each library and device; return them and the names of what failed.

    Print what is skipped.
    """
    workers, failed = {}, []
    try:
        for device in arguments.devices:
            for library in arguments.libraries:
                setup = {"library": library, "device": device}
                workers[f"{library} {device}"] = Worker(
                    "benchmarks.products", setup, arguments.limit
                )
        for name, worker in list(workers.items()):
            try:
                worker.ready()
            except Skipped as reason:
                print(f"{name}: skipped, {reason}")
                del workers[name]
            except Failed as reason:
                print(f"{name}: FAILED, {reason}", flush=True)
                failed.append(name)
                del workers[name]
    except BaseException:
        stop(workers.values())
        raise
    return workers, failed


def lanes_of(name: str, arguments: Arguments) -> tuple[str, ...]:
    device = name.split()[1]
    if arguments.dtypes:
        return tuple(lane for lane in LANES[device] if lane in arguments.dtypes)
    return LANES[device][:2] if arguments.quick and device == "cpu" else LANES[device]


Ceilings = dict[str, dict[str, float]]


def ceilings(workers: dict[str, Worker], arguments: Arguments) -> tuple[Ceilings, list[str]]:
    """Measure the machine's limits; return them by device, and the names of what failed.

    A limit is the best library's rate on a large square product in a lane, in GFLOP/s, or, under
    "copy", the best copy bandwidth in GB/s of the libraries that measure it.
    """
    found: Ceilings = {}
    failed = []
    for name, worker in workers.items():
        device = name.split()[1]
        best = found.setdefault(device, {})
        # For n = 8192, the host already needs seconds of random numbers per lane and library.
        n = {"cpu": 2048, "cuda": 8192}[device] // (2 if arguments.quick else 1)
        point = Point("square", 1, n, n, n)
        for lane in (*lanes_of(name, arguments), "copy"):
            try:
                if lane == "copy":
                    rate = worker.ask(do="copy")["bytes_per_second"] or 0.0
                else:
                    ask = {"lane": lane, "point": point, "seconds": 0.05, "rotate": 0}
                    if "without" in worker.ask(do="prepare", **ask):
                        continue
                    rate = point.flops / min(worker.ask(do="time")["seconds"] for _ in range(3))
            except Failed as reason:
                failed.append(_says(f"{name} {lane}, the largest product", reason))
                if not worker.alive:
                    break
            else:
                if rate:
                    best[lane] = max(best.get(lane, 0.0), rate / 1e9)
    return found, failed


def _says(who: str, reason: Failed) -> str:
    print(f"{who}: FAILED, {reason}", flush=True)
    return who


def without_the_dead(workers: dict[str, Worker]) -> dict[str, Worker]:
    """Return the workers that still answer, since the others would fail again at each point."""
    return {name: worker for name, worker in workers.items() if worker.alive}


def measure(
    point: Point,
    lane: str,
    workers: dict[str, Worker],
    arguments: Arguments,
    limits: Ceilings,
    recorder: Recorder,
) -> tuple[list[Measurement], list[str]]:
    """Measure one point in one lane on every library that has it; also return what failed."""
    ready: dict[str, dict[str, Any]] = {}
    failed = []
    for name, worker in workers.items():
        if lane not in lanes_of(name, arguments):
            continue
        try:
            answer = worker.ask(
                do="prepare", lane=lane, point=point, seconds=arguments.seconds,
                rotate=arguments.rotate,
            )  # fmt: skip
        except Failed as reason:
            failed.append(_says(f"{name} {lane} {point.batch}x {point.shape}", reason))
            continue
        if "without" not in answer:
            ready[name] = answer
        elif not answer["without"].endswith("only"):
            print(f"{name} {lane} {point.batch}x {point.shape}: {answer['without']}")

    times: dict[str, list[float]] = {}

    def measurements() -> list[Measurement]:
        return [
            _measurement(point, lane, name, ready[name], times, arguments.baseline, limits)
            for name in times
        ]

    rounds = arguments.rounds or {"quick": 3, "default": 5, "full": 15}[size_name(arguments)]
    lost: set[str] = set()
    for name in turns(tuple(ready), rounds):
        if name in lost:
            continue
        try:
            seconds = workers[name].ask(do="time")["seconds"]
        except Failed as reason:  # its earlier measurements stay
            failed.append(_says(f"{name} {lane} {point.batch}x {point.shape}", reason))
            lost.add(name)
            continue
        times.setdefault(name, []).append(seconds)
        recorder.put(*measurements())
    return measurements(), failed


def _measurement(
    point: Point,
    lane: str,
    name: str,
    ready: dict[str, Any],
    times: dict[str, list[float]],
    baseline: str,
    limits: Ceilings,
) -> Measurement:
    seconds = times[name]
    gflops = point.flops / quartiles(seconds)["median"] / 1e9
    measurement = {
        "case": {**point._asdict(), "lane": lane},
        "contender": name,
        "unit": "us",
        **quartiles([1e6 * value for value in seconds]),
        "gflops": gflops,
        "flops_per_byte": point.flops / point.bytes(lane),
        "error": ready["error"],
        "calls": ready["calls"],
        "operand_sets": ready["copies"],
    }
    best = limits[name.split()[1]]
    if lane in best:
        measurement["share_of_ceiling"] = gflops / best[lane]
        # The roofline: what memory and arithmetic allow for these flops per byte.
        roofline = best.get("copy", math.inf) * measurement["flops_per_byte"]
        measurement["roofline_gflops"] = min(best[lane], roofline)
    if baseline in times:
        measurement["times_baseline"] = ratio(times[baseline], seconds)["median"]
    return measurement


def row(m: Measurement) -> str:
    case = m["case"]
    times = f"{m['times_baseline']:>8.2f}" if "times_baseline" in m else f"{'-':>8}"
    shape = f"{case['m']}x{case['k']}x{case['n']}"
    share = f"{100 * m['share_of_ceiling']:>6.0f} %" if "share_of_ceiling" in m else f"{'-':>8}"
    return (
        f"{case['kind']:<10}{case['batch']:>6} {shape:<16}{case['lane']:<9}{m['contender']:<12}"
        f"{m['median']:>11.1f}{m['q1']:>11.1f}{m['q3']:>11.1f}{m['gflops']:>10.1f}"
        f"{share}{times}"
    )


HEADER = (
    f"{'kind':<10}{'batch':>6} {'m x k x n':<16}{'lane':<9}{'library':<12}{'us':>11}{'q1':>11}"
    f"{'q3':>11}{'GFLOP/s':>10}{'ceiling':>8}{'ratio':>8}"
)


@orderly
def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.matmul")
    try:
        numbers(arguments)
        chosen = points(arguments)
        if arguments.pictures is not None:
            import matplotlib  # noqa: F401 - if it is missing, fail before the work
    except ValueError as error:
        print(f"python -m benchmarks.matmul: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError:
        need = "--pictures needs matplotlib: pip install 'xpnet[bench]'"
        print(f"python -m benchmarks.matmul: {need}", file=sys.stderr)
        return 2
    room = cpu_memory() // 8 or 1 << 30
    fits = [point for point in chosen if point.bytes("float64") <= room]
    if len(fits) < len(chosen):
        print(f"{len(chosen) - len(fits)} points skipped: they are too large for the memory")
    workers, failed = start(arguments)
    try:
        if not any(lanes_of(name, arguments) for name in workers):
            print("python -m benchmarks.matmul: no library is left", file=sys.stderr)
            return 1 if failed else 3
        limits, broken = ceilings(workers, arguments)
        failed += broken
        about = {}
        for name, worker in without_the_dead(workers).items():
            try:
                about[name] = worker.ask(do="about")["about"]
                print(f"{name}: {about[name]}")
            except Failed as reason:
                failed.append(_says(f"{name}, its version", reason))
        for device, best in limits.items():
            rates = [
                f"{k} {v:.1f} GB/s" if k == "copy" else f"{k} {v:.0f} GFLOP/s"
                for k, v in best.items()
            ]
            print(f"ceiling of {device}: {', '.join(rates)}")
        print(
            f"\nratio: times as fast as {arguments.baseline}, the median of the rounds' ratios; it "
            "may differ from the quotient of the medians, since the machine's speed changes from "
            f"round to round\n{HEADER}"
        )
        with recording("matmul", arguments.out, about=about, ceilings=limits) as recorder:
            lanes = dict.fromkeys(lane for name in workers for lane in lanes_of(name, arguments))
            for point in fits:
                for lane in lanes:
                    able = without_the_dead(workers)
                    found, broken = measure(point, lane, able, arguments, limits, recorder)
                    failed += broken
                    for m in found:
                        print(row(m), flush=True)
    finally:
        stop(workers.values())
    if arguments.pictures is not None:
        from benchmarks.pictures import draw_matmul

        for path in draw_matmul(recorder.header, recorder.measurements, arguments.pictures):
            print(f"wrote {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
