"""``python -m benchmarks.parallel`` times training on several ranks, and what it is made of.

Steps of xpnet on one rank and on several, beside PyTorch alone and by DistributedDataParallel; the
all-reduce alone; and steps with the same rows on each of 1, 2, 4 and 8 ranks, which a model of the
cost (`benchmarks.scaling`) is checked against. Every rank has one BLAS thread. All contenders of a
case are started once and take turns; those that wait sleep.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro

from benchmarks.interrupts import orderly
from benchmarks.many import Verdict, verdict_lines
from benchmarks.parallel_contenders import CONVNET, IMAGES, Form
from benchmarks.problems import SAMPLES
from benchmarks.results import Measurement, Recorder, numbers, recording
from benchmarks.scaling import (
    LINKS,
    Compute,
    Link,
    fitted_compute,
    fitted_link,
    rows_needed,
    step,
)
from benchmarks.teams import MPI, PLAIN, Team, mpirun, stop
from benchmarks.timing import quartiles, ratio, turns
from benchmarks.worker import LIMIT_SECONDS, Failed, Skipped

__all__ = ["main", "model_section", "section", "steps_section", "verdicts"]

MODULE = "benchmarks.parallel_contenders"
OURS, DDP = "xpnet numpy", "pytorch"  # on several ranks, PyTorch is DistributedDataParallel
CONTENDERS = (OURS, "xpnet torch", "xpnet jax", DDP)
CHECKED_STEPS = 10
TOLERANCE = 1e-4  # of the losses of the first steps, relative
LEAST_STEPS = 10
# A turn counts if others than its ranks used less of the processors, else it is repeated.
QUIET, PAUSE_SECONDS = 0.03, 0.2

ASKED = {"784-50-10/512": 1.5, "784-1024-10/512": 1.6, f"{CONVNET}/100": 1.7}
SIZES = (4, 160_000, 3_300_000, 33_000_000)
SUMS = {"Group.sum": "mpi", "mpi4py": "mpi", "gloo": "gloo"}  # who runs each
FITTED_BYTES = 10_000_000  # larger buffers leave the caches
WEAK_ROWS, WEAK_RANKS, FIT_ROWS = 256, (1, 2, 4, 8), (64, 128, 512)
PAPER_RANKS = (2, 10, 100, 1000)
EFFICIENCY = 0.8


@dataclass(frozen=True)
class Arguments:
    """Time training on several ranks, beside one rank and PyTorch's DistributedDataParallel."""

    parts: tuple[Literal["steps", "sums", "weak"], ...] = ("steps", "sums", "weak")
    """steps: steps of the same batch on one rank and on several. sums: the all-reduce alone.
    weak: as many rows on each of 1, 2, 4 and 8 ranks, for the model of the cost."""
    networks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = (
        "784-50-10/512", "784-1024-10/512", f"{CONVNET}/100", "784-50-10/128", "784-1024-10/128",
    )  # fmt: skip
    """Sizes of layers, or SimpleConvNet; and the batch of all ranks together. weak takes the
    networks without their batch."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = CONTENDERS
    """Contenders, names in quotes."""
    ranks: int = 2
    """Number of ranks of steps and sums."""
    rows: int = WEAK_ROWS
    """Rows of each rank in weak."""
    bytes: tuple[int, ...] = SIZES
    """Sizes of the buffers in sums."""
    samples: int = SAMPLES
    """Number of samples to draw batches from."""
    rounds: int = 11
    """Number of turns of each contender."""
    seconds: float = 0.3
    """Length of a turn, about."""
    patience: float = 10.0
    """Most seconds to repeat a turn in which other processes used the processors too."""
    limit: float = LIMIT_SECONDS
    """Most seconds for an answer of a contender."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results into this file as JSON lines: the machine, then one per measurement."""


# -- The rounds ------------------------------------------------------------------------


def form_of(word: str, samples: int = SAMPLES) -> Form:
    """Return the network and the batch that a word names.

    Examples
    --------
    >>> form_of("784-50-10/512")
    Form(network='784-50-10', batch=512, samples=60000)
    """
    network, _, batch = word.partition("/")
    layers = network.split("-")
    known = network in IMAGES or (len(layers) > 1 and all(n.isdecimal() for n in layers))
    if not known or not batch.isdecimal() or int(batch) < 1:
        raise ValueError(
            f"--networks {word}: expected layers and batch such as 784-50-10/512, or {CONVNET}/100"
        )
    return Form(network, int(batch), samples)


def seconds_of(answers: Sequence[Mapping[str, Any]]) -> float:
    """Return the time of the slowest rank."""
    return max(float(answer["seconds"]) for answer in answers)


class Turn(NamedTuple):
    """The seconds of a turn, what the ranks said, and the share of the machine others took."""

    seconds: float
    answers: Sequence[Mapping[str, Any]]
    others: float


def others_of(answers: Sequence[Mapping[str, Any]], cores: int) -> float:
    """Return the share of all processors that worked for others than these ranks.

    Examples
    --------
    >>> others_of([{"wall": 1.0, "cpu": 0.9, "busy": 1.8}, {"wall": 1.0, "cpu": 0.7}], 2)
    0.1
    """
    busy = answers[0]["busy"]
    own = sum(answer["cpu"] for answer in answers)
    wall = answers[0]["wall"]
    return 0.0 if busy is None else round(max(0.0, busy - own) / (cores * wall), 4)


def quiet_turn(team: Team, patience: float, **question: Any) -> Turn:
    """Ask until nobody else used the processors meanwhile, or for so many seconds.

    Then return the turn that was disturbed least. Ranks wait for each other, so other work that
    takes a core from one of them holds up all.
    """
    until, best = time.monotonic() + patience, None
    cores = len(os.sched_getaffinity(0))
    while True:
        answers = team.ask(**question)
        turn = Turn(seconds_of(answers), answers, others_of(answers, cores))
        if best is None or turn.others < best.others:
            best = turn
        if best.others < QUIET or time.monotonic() > until:
            return best
        time.sleep(PAUSE_SECONDS)


def check(losses: Mapping[tuple[str, int], Sequence[float]]) -> float:
    """Return the largest relative difference from the first; raise `Failed` if it is large."""
    first, *_ = losses.values()
    expected, error = np.array(first), 0.0
    for (name, ranks), found in losses.items():
        apart = float(np.max(np.abs(np.array(found) / expected - 1)))
        if not apart < TOLERANCE:
            raise Failed(f"{name} on {ranks} ranks trains something else: {apart:.1e} off")
        error = max(error, apart)
    if np.ptp(expected) < TOLERANCE:
        raise Failed("nothing was learned")
    return error


def losses_of(name: str, answers: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the losses of the whole batches; PyTorch's ranks have those of their own rows."""
    each = [answer["losses"] for answer in answers]
    return [mean(losses) for losses in zip(*each, strict=True)] if name == DDP else each[0]


def started(
    contenders: Sequence[tuple[str, int, Form]], arguments: Arguments
) -> dict[tuple[str, int], Team]:
    """Start contenders on so many ranks; say which are skipped."""
    teams: dict[tuple[str, int], Team] = {}
    try:
        for name, ranks, form in contenders:
            launcher = MPI if ranks > 1 and name != DDP else PLAIN
            setup = {"contender": name, "ranks": ranks, "form": vars(form)}
            teams[name, ranks] = Team(MODULE, setup, ranks, launcher, arguments.limit)
        for key, team in list(teams.items()):
            try:
                team.ready()
            except Skipped as reason:
                print(f"{key[0]}: skipped, {reason}", flush=True)
                del teams[key]
    except BaseException:
        stop(teams.values())
        raise
    return teams


def timed_rounds(
    teams: Mapping[tuple[str, int], Team], arguments: Arguments
) -> Iterator[dict[tuple[str, int], list[Turn]]]:
    """Yield all turns so far, after each."""
    steps = {}
    for key, team in teams.items():
        each = seconds_of(team.ask(do="time", steps=LEAST_STEPS))
        steps[key] = max(LEAST_STEPS, round(arguments.seconds / each))
    found: dict[tuple[str, int], list[Turn]] = {key: [] for key in teams}
    for key in turns(tuple(teams), arguments.rounds):
        found[key].append(quiet_turn(teams[key], arguments.patience, do="time", steps=steps[key]))
        yield found


def measure_steps(word: str, arguments: Arguments, recorder: Recorder) -> None:
    """Time steps of one network, of all contenders on one rank and on several."""
    form = form_of(word, arguments.samples)
    ranks = arguments.ranks
    teams = started([(name, n, form) for name in arguments.only for n in (1, ranks)], arguments)
    try:
        if not teams:
            return
        losses = {
            key: losses_of(key[0], team.ask(do="check", steps=CHECKED_STEPS))
            for key, team in teams.items()
        }
        error = check(losses)
        for found in timed_rounds(teams, arguments):
            for (name, n), values in found.items():
                if values:
                    case = {"what": "steps", "network": word, "ranks": n}
                    recorder.put(_measurement(case, name, values, loss_error=error))
        _measure_parts(word, teams.get((OURS, ranks)), arguments, recorder)
    finally:
        stop(teams.values())


def _measure_parts(word: str, team: Team | None, arguments: Arguments, recorder: Recorder) -> None:
    """Time the parts of a step of `OURS`; each is the mean of the ranks."""
    if team is None:
        return
    each = seconds_of(team.ask(do="time", steps=LEAST_STEPS))
    steps = max(LEAST_STEPS, round(arguments.seconds / each))
    found: dict[str, list[Turn]] = {}
    for _ in range(arguments.rounds):
        turn = quiet_turn(team, arguments.patience, do="parts", steps=steps)
        for part in turn.answers[0]["parts"]:
            seconds = mean(answer["parts"][part] for answer in turn.answers)
            found.setdefault(part, []).append(turn._replace(seconds=seconds))
    case = {"what": "parts", "network": word, "ranks": team.size}
    recorder.put(*(_measurement(case, part, values) for part, values in found.items()))


def measure_sums(arguments: Arguments, recorder: Recorder) -> None:
    """Time the all-reduce alone."""
    ranks = arguments.ranks
    teams: dict[str, Team] = {}
    try:
        for name in ("mpi", "gloo"):
            setup = {"contender": name, "ranks": ranks}
            launcher = MPI if name == "mpi" else PLAIN
            try:
                teams[name] = Team(MODULE, setup, ranks, launcher, arguments.limit).ready()
            except Skipped as reason:
                print(f"{name}: skipped, {reason}", flush=True)
        names = [name for name, team in SUMS.items() if team in teams]
        for size in arguments.bytes:
            calls, found = {}, dict[str, list[Turn]]()
            for name in names:
                each = seconds_of(teams[SUMS[name]].ask(do="time", of=name, bytes=size, calls=5))
                calls[name] = min(500, max(5, round(arguments.seconds / each)))
            for name in turns(names, arguments.rounds):
                question = {"do": "time", "of": name, "bytes": size, "calls": calls[name]}
                turn = quiet_turn(teams[SUMS[name]], arguments.patience, **question)
                found.setdefault(name, []).append(turn)
            case = {"what": "sums", "bytes": size, "ranks": ranks}
            recorder.put(*(_measurement(case, name, values) for name, values in found.items()))
    finally:
        stop(teams.values())


def measure_weak(network: str, arguments: Arguments, recorder: Recorder) -> None:
    """Time steps with the same rows on each of 1, 2, 4 and 8 ranks, and one rank's other sizes."""
    rows = arguments.rows
    each = [(ranks, rows) for ranks in WEAK_RANKS]
    each += [(1, max(1, rows * n // WEAK_ROWS)) for n in FIT_ROWS]
    teams: dict[tuple[str, int], Team] = {}
    try:
        for ranks, own in each:
            form = Form(network, ranks * own, arguments.samples)
            setup = {"contender": OURS, "ranks": ranks, "form": vars(form)}
            launcher = MPI if ranks > 1 else PLAIN
            teams[str(own), ranks] = Team(MODULE, setup, ranks, launcher, arguments.limit).ready()
        for found in timed_rounds(teams, arguments):
            for (own_rows, ranks), values in found.items():
                if values:
                    case = {
                        "what": "weak", "network": network, "rows": int(own_rows), "ranks": ranks,
                        "bytes": gradient_bytes(network),
                    }  # fmt: skip
                    recorder.put(_measurement(case, OURS, values))
    finally:
        stop(teams.values())


def gradient_bytes(network: str) -> int:
    """Return the bytes of all gradients and the loss, float32.

    Examples
    --------
    >>> gradient_bytes("784-50-10")
    159044
    """
    return 4 * (1 + sum(np.size(p) for p in Form(network, 1).made().params.values()))


def _measurement(
    case: dict[str, Any], contender: str, found: Sequence[Turn], **more: Any
) -> Measurement:
    values = quartiles([1e6 * turn.seconds for turn in found])
    more["others"] = [turn.others for turn in found]
    unit = "us" if case["what"] == "sums" else "us/step"
    return {"case": case, "contender": contender, "unit": unit, **values, **more}


# -- What was asked, and the pages -----------------------------------------------------

Steps = dict[tuple[str, str, int], Measurement]  # by network, contender and ranks


def steps_of(measurements: Sequence[Measurement]) -> Steps:
    return {
        (m["case"]["network"], m["contender"], m["case"]["ranks"]): m
        for m in measurements
        if m["case"]["what"] == "steps"
    }


def faster(found: Steps, slow: tuple[str, str, int], fast: tuple[str, str, int]) -> dict[str, Any]:
    """Return quartiles of how many times as fast; empty if one was not measured."""
    known = slow in found and fast in found
    return ratio(found[slow]["values"], found[fast]["values"]) if known else {}


def verdicts(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    """Yield what was asked of the steps that were measured."""
    found = steps_of(measurements)
    for network in dict.fromkeys(network for network, *_ in found):
        for ranks in sorted({n for name, _, n in found if name == network and n > 1}):
            gain = faster(found, (network, OURS, 1), (network, OURS, ranks))
            if gain and network in ASKED and ranks == 2:
                what = f"{network}: {OURS} on {ranks} ranks, times as fast as on one"
                yield Verdict(what, ASKED[network], gain["median"])
            for name in ("xpnet numpy", "xpnet torch"):
                gain = faster(found, (network, DDP, ranks), (network, name, ranks))
                if gain:
                    what = f"{network}: {name} on {ranks} ranks, times as fast as PyTorch's DDP"
                    yield Verdict(what, 1.0, gain["median"])


def step_lines(measurements: Sequence[Measurement]) -> list[str]:
    """Write µs a step on one rank and on several, and how many times as fast."""
    found = steps_of(measurements)
    ranks = max(n for *_, n in found)
    lines = [
        f"| network, batch | µs a step | 1 rank | {ranks} ranks | times as fast | asked "
        f"| times DDP on {ranks} |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for network, name, n in found:
        if n != ranks:
            continue
        gain = faster(found, (network, name, 1), (network, name, ranks))
        over = faster(found, (network, DDP, ranks), (network, name, ranks))
        asked = ASKED.get(network) if name == OURS and ranks == 2 else None
        cell = f"{gain['median']:.2f} ({gain['q1']:.2f} to {gain['q3']:.2f})" if gain else ""
        if gain and asked is not None and gain["median"] < asked:
            cell = f"**{cell} MISSED**"
        alone = found.get((network, name, 1))
        cells = [
            network.replace("/", ", "), "pytorch, DDP" if name == DDP else name,
            f"{alone['median']:,.0f}" if alone else "", f"{found[network, name, n]['median']:,.0f}",
            cell, f"{asked or ''}", f"{over['median']:.2f}" if over and name != DDP else "",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


PARTS = {
    "compute": "computing", "pack": "packing", "wait": "waiting for the other", "sum": "all-reduce",
    "unpack": "unpacking",
}  # fmt: skip


def part_lines(measurements: Sequence[Measurement]) -> list[str]:
    """Write the parts of a step of `OURS` on several ranks."""
    found = {
        (m["case"]["network"], m["contender"]): m["median"]
        for m in measurements
        if m["case"]["what"] == "parts"
    }
    lines = [
        "| µs a step | " + " | ".join(PARTS.values()) + " |",
        "| --- |" + " ---: |" * len(PARTS),
    ]
    for network in dict.fromkeys(network for network, _ in found):
        cells = [f"{found[network, part]:,.0f}" for part in PARTS]
        lines.append(f"| {network.replace('/', ', ')} | {' | '.join(cells)} |")
    return lines


def sums_of(measurements: Sequence[Measurement]) -> dict[int, dict[str, Measurement]]:
    found: dict[int, dict[str, Measurement]] = {}
    for m in measurements:
        if m["case"]["what"] == "sums":
            found.setdefault(m["case"]["bytes"], {})[m["contender"]] = m
    return found


def sum_lines(measurements: Sequence[Measurement]) -> list[str]:
    """Write µs of the all-reduce alone."""
    found = sums_of(measurements)
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    lines = [
        "| all-reduce, µs | " + " | ".join(names) + " |",
        "| --- |" + " ---: |" * len(names),
    ]
    for size, each in found.items():
        cells = [f"{each[n]['median']:,.3g}" if n in each else "" for n in names]
        lines.append(f"| {_bytes(size)} | {' | '.join(cells)} |")
    return lines


def _bytes(size: int) -> str:
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"


Fit = tuple[Link, dict[str, Compute], dict[str, int]]


def fitted(measurements: Sequence[Measurement]) -> Fit:
    """Return the model's numbers: the link, and each network's work and bytes."""
    sums = {
        size: each["Group.sum"]["median"] * 1e-6
        for size, each in sums_of(measurements).items()
        if "Group.sum" in each and size < FITTED_BYTES
    }
    work: dict[str, dict[int, float]] = {}
    sizes: dict[str, int] = {}
    for m in measurements:
        case = m["case"]
        if case["what"] == "weak" and case["ranks"] == 1:
            work.setdefault(case["network"], {})[case["rows"]] = m["median"] * 1e-6
            sizes[case["network"]] = case["bytes"]
    computes = {network: fitted_compute(seconds) for network, seconds in work.items()}
    return fitted_link(sums), computes, sizes


def weak_lines(measurements: Sequence[Measurement], cores: int) -> list[str]:
    """Write what the model says of the ranks that were measured, beside the measurement."""
    link, computes, sizes = fitted(measurements)
    lines = [
        "| network | ranks x rows | measured µs | model µs | error |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for m in measurements:
        case = m["case"]
        if case["what"] != "weak":
            continue
        network, ranks, rows = case["network"], case["ranks"], case["rows"]
        said = 1e6 * step(computes[network], link, ranks, rows, sizes[network], cores).seconds
        over = ", oversubscribed" if ranks > cores else ""
        lines.append(
            f"| {network} | {ranks} x {rows}{over} | {m['median']:,.0f} | {said:,.0f} "
            f"| {100 * (said / m['median'] - 1):+.0f} % |"
        )
    return lines


def paper_lines(measurements: Sequence[Measurement], rows: int = WEAK_ROWS) -> list[str]:
    """Write where the model sees the time go on up to 1,000 ranks, and the rows that are needed."""
    _, computes, sizes = fitted(measurements)
    lines = [
        "| network | link of a rank | ranks | computing | latency | transfer | efficiency "
        "| 80 % of one rank | 80 % of a large batch |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for network, compute in computes.items():
        for name, link in LINKS.items():
            for ranks in PAPER_RANKS:
                parts = step(compute, link, ranks, rows, sizes[network])
                rows_of = partial(rows_needed, compute, link, ranks, sizes[network], EFFICIENCY)
                least, more = rows_of(), rows_of(fixed_is_lost=True)
                cells = [f"{1e6 * part:,.0f} µs" for part in parts]
                lines.append(
                    f"| {network} | {name} | {ranks:,} | {' | '.join(cells)} "
                    f"| {100 * parts.efficiency:.0f} % | {ranks:,} x {least:,} "
                    f"| {ranks:,} x {more:,} |"
                )
    return lines


def steps_section(header: dict[str, Any], measurements: Sequence[Measurement]) -> list[str]:
    """Write the tables of what was measured, for the pages."""
    rounds = max(len(m["values"]) for m in measurements)
    cores = header["machine"]["cores"]
    return [
        f"Steps of SGD in float32, one BLAS thread a rank, on {cores} cores "
        f"({header['machine']['cpu']}, {header['machine']['date']}): median of {rounds} rounds in "
        "turns, and quartiles of the ratios. The batch is that of all ranks together. DDP is "
        "PyTorch's DistributedDataParallel over gloo. A turn in which other processes took more "
        f"than {100 * QUIET:.0f} % of the processors is repeated for some seconds, and then the "
        f"least disturbed counts{_disturbed(measurements)}. `python -m benchmarks.parallel` "
        "repeats it.",
        "",
        *step_lines(measurements),
        "",
    ]


def _disturbed(measurements: Sequence[Measurement]) -> str:
    shares = [share for m in measurements for share in m.get("others", [])]
    loud = sum(share >= QUIET for share in shares)
    return f" ({loud} of {len(shares)} turns)" if loud else ""


def model_section(header: dict[str, Any], measurements: Sequence[Measurement]) -> list[str]:
    """Write the model of the cost, its check, and what it says of 1,000 ranks."""
    link, computes, _ = fitted(measurements)
    works = "; ".join(
        f"{network}: {1e6 * fixed:.0f} µs + {1e6 * each:.2f} µs a row"
        for network, (fixed, each) in computes.items()
    )
    cores = header["machine"]["cores"]
    return [
        "A model of a step: a rank computes on its rows, then all add up their gradients, "
        "`latency log2(N) + 2 (N - 1) / N bytes / bandwidth`. Fitted here: "
        f"{1e6 * link.latency:.1f} µs, {link.bandwidth / 1e9:.1f} GB/s (shared memory; buffers "
        f"below {_bytes(FITTED_BYTES)}); {works}. More ranks than the {cores} cores "
        "(oversubscribed) take turns, so the model multiplies all by ranks / cores. Against what "
        "was measured:",
        "",
        *weak_lines(measurements, cores),
        "",
        f"On paper, with {WEAK_ROWS} rows a rank, one of these cores and a link of its own for "
        "each rank, "
        + " and ".join(
            f"{name} ({1e6 * latency:.0f} µs, {bandwidth / 1e9:.1f} GB/s)"
            for name, (latency, bandwidth) in LINKS.items()
        )
        + "; no waiting for the slowest, and no reduction while backward still runs. The last "
        "columns are the smallest batches, ranks x rows, that keep 80 % of the speed that one rank "
        "has with as many rows; and that it has with a batch so large that the fixed part of its "
        "steps is negligible:",
        "",
        *paper_lines(measurements),
        "",
    ]


def section(header: dict[str, Any], measurements: Sequence[Measurement]) -> list[str]:
    """Write all tables of a file of results."""
    return [
        *steps_section(header, measurements),
        "Where the time of a step of xpnet numpy goes on 2 ranks, the mean of both. An extra "
        "message before each all-reduce tells waiting and adding up apart:",
        "",
        *part_lines(measurements),
        "",
        "The all-reduce alone, 2 ranks, float32 in place:",
        "",
        *sum_lines(measurements),
        "",
        *model_section(header, measurements),
    ]


# -- The command -----------------------------------------------------------------------


def _report(arguments: Arguments, measurements: Sequence[Measurement]) -> list[str]:
    """Write the tables of the parts that were measured, for the terminal."""
    known = {m["case"]["what"] for m in measurements}
    cores = len(os.sched_getaffinity(0))
    lines: list[str] = []
    if "steps" in known:
        lines += ["", *step_lines(measurements), "", *part_lines(measurements)]
    if "sums" in known:
        lines += ["", *sum_lines(measurements)]
    if {"weak", "sums"} <= known and len(sums_of(measurements)) > 1:
        lines += ["", *weak_lines(measurements, cores)]
        lines += ["", *paper_lines(measurements, arguments.rows)]
    return [*lines, "", *verdict_lines(verdicts(measurements))]


@orderly
def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.parallel")
    prog = "python -m benchmarks.parallel"
    unknown = [name for name in arguments.only if name not in CONTENDERS]
    try:
        numbers(arguments)
        forms = [form_of(word, arguments.samples) for word in arguments.networks]
        if unknown:
            known = ", ".join(CONTENDERS)
            raise ValueError(f"--only {', '.join(unknown)}: expected some of {known}")
        if arguments.ranks < 2:
            raise ValueError(f"--ranks {arguments.ranks}: expected 2 or more")
    except ValueError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    try:
        mpirun(arguments.ranks)
    except Skipped as reason:
        print(f"{prog}: {reason}", file=sys.stderr)
        return 3
    failed = 0

    def attempt(what: str, work: Any, *words: Any) -> None:
        nonlocal failed
        print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)
        try:
            work(*words, arguments, recorder)
        except (Failed, Skipped) as reason:
            print(f"FAILED, {reason}", flush=True)
            failed += 1

    load = [round(x, 2) for x in os.getloadavg()]
    with recording("parallel", arguments.out, ranks=arguments.ranks, load=load) as recorder:
        if "sums" in arguments.parts:
            attempt("all-reduce alone", measure_sums)
        if "weak" in arguments.parts:
            for network in dict.fromkeys(form.network for form in forms):
                if network not in IMAGES:
                    attempt(f"the same rows on each rank, {network}", measure_weak, network)
        if "steps" in arguments.parts:
            for word in arguments.networks:
                attempt(f"steps of {word}", measure_steps, word)
        print("\n".join(_report(arguments, recorder.measurements)), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
