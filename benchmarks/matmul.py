"""``python -m benchmarks.matmul``: throughput of batched matrix products.

(batch, m, k) @ (batch, k, n) over array libraries, devices, precisions ("lanes") and a grid of
batches and shapes. A result is checked against float64 before its time counts; libraries, a
process each, take turns; the machine's own ceilings, the largest product's rate and the copy
bandwidth, are measured in the same run.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from benchmarks.products import LANES, LIBRARIES, Point
from benchmarks.results import Measurement, Recorder, numbers, recording
from benchmarks.timing import WINDOW_SECONDS, quartiles, ratio, rounds_of
from benchmarks.worker import Failed, Skipped, Worker
from xpnet.backend.cpu import cpu_memory

__all__ = ["main"]

# An MLP's own products: forward, dW and dx of the networks S and M of benchmarks.train_step.
SKINNY = ("100x784x50", "784x100x50", "100x50x10", "128x784x256", "784x128x256")
LARGEST_FLOPS = {"quick": 1e9, "default": 2e10, "full": 3e11}  # of one product


@dataclass(frozen=True)
class Arguments:
    """Time batched matrix products across array libraries, devices and precisions."""

    quick: bool = False
    """A small grid, under a minute on two cores."""
    full: bool = False
    """A large grid with many rounds: an evening."""
    sizes: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = ()
    """Square products n x n x n; given, nothing else is measured but --shapes."""
    shapes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MxKxN ...")] = ()
    """Other products, such as 100x784x50; given, nothing else is measured but --sizes."""
    batches: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = ()
    """Products in a batch; 1 is a product without a batch axis."""
    broadcast: bool = False
    """With --sizes or --shapes: one right operand for the whole batch."""
    dtypes: tuple[Literal["float32", "float64", "tf32", "float16", "bfloat16"], ...] = ()
    """Precisions; by default all that a library has on the device, with --quick float32 and
    float64 on the CPU."""
    libraries: tuple[Literal["numpy", "torch", "jax", "cupy", "cublas"], ...] = tuple(
        LIBRARIES  # type: ignore[arg-type]
    )
    """Those that are missing are skipped, and said; cublas is CuPy's direct call."""
    devices: tuple[Literal["cpu", "cuda"], ...] = ("cpu", "cuda")
    """Those that are missing are skipped, and said."""
    rounds: int | None = None
    """Turns of each library; by default 5, quick 3, full 15."""
    seconds: float = WINDOW_SECONDS
    """Length of a turn, at least."""
    rotate: int | None = None
    """Bytes of operands to walk through in turn: 0 leaves them in the caches, the default on
    the CPU; on GPUs 256 MiB, more than their caches hold."""
    baseline: str = "numpy cpu"
    """Library and device that the others are compared with."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON lines: the machine, then a line per measurement."""
    pictures: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder for PNG pictures: throughput, heat map, roofline; needs matplotlib."""


def points(arguments: Arguments) -> list[Point]:
    """What is multiplied.

    Raises
    ------
    ValueError
        A shape is not of the form MxKxN, or options do not go together.
    """
    if arguments.quick and arguments.full:
        raise ValueError("--quick and --full: expected one of them")
    if arguments.broadcast and not (arguments.sizes or arguments.shapes):
        raise ValueError("--broadcast: needs --sizes or --shapes")
    if arguments.broadcast and 1 in (arguments.batches or (1,)):
        raise ValueError("--broadcast: needs --batches of 2 or more")
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
    shared: tuple[int, ...]  # of the products of an MLP's shape
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


def start(arguments: Arguments) -> dict[str, Worker]:
    """A worker for each library and device that is there; says what is skipped."""
    workers: dict[str, Worker] = {}
    for device in arguments.devices:
        for library in arguments.libraries:
            try:
                worker = Worker("benchmarks.products", {"library": library, "device": device})
            except Skipped as reason:
                print(f"{library} {device}: skipped, {reason}")
                continue
            except Failed as reason:
                for worker in workers.values():
                    worker.stop()
                raise Failed(f"{library} {device}: {reason}") from None
            workers[f"{library} {device}"] = worker
    return workers


def lanes_of(name: str, arguments: Arguments) -> tuple[str, ...]:
    device = name.split()[1]
    if arguments.dtypes:
        return tuple(lane for lane in LANES[device] if lane in arguments.dtypes)
    return LANES[device][:2] if arguments.quick and device == "cpu" else LANES[device]


Ceilings = dict[str, dict[str, float]]


def ceilings(workers: dict[str, Worker], arguments: Arguments) -> Ceilings:
    """Per device: the best library's rate on a large square product in each lane, in GFLOP/s,
    and "copy", the best copy bandwidth in GB/s, where a library tells it."""
    found: Ceilings = {}
    for name, worker in workers.items():
        device = name.split()[1]
        best = found.setdefault(device, {})
        # On a GPU, 8192 takes seconds of random numbers on the host for each lane and library.
        n = {"cpu": 2048, "cuda": 8192}[device] // (2 if arguments.quick else 1)
        point = Point("square", 1, n, n, n)
        for lane in lanes_of(name, arguments):
            ready = worker.ask(do="prepare", lane=lane, point=point, seconds=0.05, rotate=0)
            if "without" not in ready:
                seconds = min(worker.ask(do="time")["seconds"] for _ in range(3))
                best[lane] = max(best.get(lane, 0.0), point.flops / seconds / 1e9)
        copied = worker.ask(do="copy")["bytes_per_second"]
        if copied is not None:
            best["copy"] = max(best.get("copy", 0.0), copied / 1e9)
    return found


def measure(
    point: Point,
    lane: str,
    workers: dict[str, Worker],
    arguments: Arguments,
    limits: Ceilings,
    recorder: Recorder,
) -> tuple[list[Measurement], list[str]]:
    """One point in one lane, on every library that has it; and the names of who failed."""
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
            print(f"{name} {lane} {point.batch}x {point.shape}: FAILED, {reason}")
            failed.append(name)
            continue
        if "without" not in answer:
            ready[name] = answer
        elif not answer["without"].endswith("only"):
            print(f"{name} {lane} {point.batch}x {point.shape}: {answer['without']}")

    def turn(name: str) -> float:
        seconds: float = workers[name].ask(do="time")["seconds"]
        return seconds

    rounds = arguments.rounds or {"quick": 3, "default": 5, "full": 15}[size_name(arguments)]
    times = rounds_of({name: partial(turn, name) for name in ready}, rounds)
    measurements = []
    for name, seconds in times.items():
        device = name.split()[1]
        middle = quartiles(seconds)["median"]
        gflops = point.flops / middle / 1e9
        peak, intensity = limits[device][lane], point.flops / point.bytes(lane)
        measurement = {
            "case": {**point._asdict(), "lane": lane},
            "contender": name,
            "unit": "us",
            **quartiles([1e6 * value for value in seconds]),
            "gflops": gflops,
            "share_of_ceiling": gflops / peak,
            # What memory and arithmetic allow: the roofline, at flops per byte.
            "flops_per_byte": intensity,
            "roofline_gflops": min(peak, limits[device].get("copy", math.inf) * intensity),
            "error": ready[name]["error"],
            "calls": ready[name]["calls"],
            "operand_sets": ready[name]["copies"],
        }
        if arguments.baseline in times:
            measurement["times_baseline"] = ratio(times[arguments.baseline], seconds)["median"]
        recorder.add(measurement)
        measurements.append(measurement)
    return measurements, failed


def row(m: Measurement) -> str:
    case = m["case"]
    times = f"{m['times_baseline']:>8.2f}" if "times_baseline" in m else f"{'-':>8}"
    shape = f"{case['m']}x{case['k']}x{case['n']}"
    return (
        f"{case['kind']:<10}{case['batch']:>6} {shape:<16}{case['lane']:<9}{m['contender']:<12}"
        f"{m['median']:>11.1f}{m['q1']:>11.1f}{m['q3']:>11.1f}{m['gflops']:>10.1f}"
        f"{100 * m['share_of_ceiling']:>6.0f} %{times}"
    )


HEADER = (
    f"{'kind':<10}{'batch':>6} {'m x k x n':<16}{'lane':<9}{'library':<12}{'us':>11}{'q1':>11}"
    f"{'q3':>11}{'GFLOP/s':>10}{'ceiling':>8}{'ratio':>8}"
)


def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.matmul")
    try:
        numbers(arguments)
        chosen = points(arguments)
        if arguments.pictures is not None:
            import matplotlib  # noqa: F401 - missing, it is said before the work
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
        print(f"{len(chosen) - len(fits)} points left out: too large for this memory")
    workers: dict[str, Worker] = {}
    failed = 0
    try:
        workers = start(arguments)
        if not any(lanes_of(name, arguments) for name in workers):
            print("python -m benchmarks.matmul: no library is left", file=sys.stderr)
            return 3
        limits = ceilings(workers, arguments)
        about = {name: worker.ask(do="about")["about"] for name, worker in workers.items()}
        for name, text in about.items():
            print(f"{name}: {text}")
        for device, best in limits.items():
            rates = [
                f"{k} {v:.1f} GB/s" if k == "copy" else f"{k} {v:.0f} GFLOP/s"
                for k, v in best.items()
            ]
            print(f"ceiling of {device}: {', '.join(rates)}")
        print(f"\nratio: times as fast as {arguments.baseline}\n{HEADER}")
        with recording("matmul", arguments.out, about=about, ceilings=limits) as recorder:
            lanes = dict.fromkeys(lane for name in workers for lane in lanes_of(name, arguments))
            for point in fits:
                for lane in lanes:
                    found, broken = measure(point, lane, workers, arguments, limits, recorder)
                    failed += len(broken)
                    for m in found:
                        print(row(m), flush=True)
    except Failed as reason:
        print(f"python -m benchmarks.matmul: {reason}", file=sys.stderr)
        return 1
    finally:
        for worker in workers.values():
            worker.stop()
    if arguments.pictures is not None:
        from benchmarks.pictures import draw_matmul

        for path in draw_matmul(recorder.header, recorder.measurements, arguments.pictures):
            print(f"wrote {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
