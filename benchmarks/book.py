"""``python -m benchmarks.book`` times the book's scripts through `xpnet.book` and in plain NumPy.

Each script trains as the book's chapter does, in place and in float64: gradient, update, and the
loss again on the same batch; accuracies once an epoch. Both contenders draw the same batches and
start from the same weights, and their times count only if their losses agree.

They take turns, each turn continues its own training. They are measured twice: each in a process of
its own, as two readers would run them, where xpnet tells glibc to keep freed memory and plain NumPy
does not; and both in one process, where plain NumPy finds xpnet's setting.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal
from unittest import mock

import numpy as np
import tyro

from benchmarks import book_formulas
from benchmarks.convolution import THREADS
from benchmarks.interrupts import orderly
from benchmarks.many import CLOCKS, Verdict, verdict_lines
from benchmarks.results import Measurement, Recorder, numbers, recording
from benchmarks.timing import quartiles, ratio, turns
from benchmarks.worker import LIMIT_SECONDS, Failed, Skipped, Worker, stop
from xpnet.book import ch04, ch05, ch07, ch08
from xpnet.book.mnist import load_mnist
from xpnet.book.trainer import Trainer

__all__ = ["in_a_line", "main", "section", "serve", "verdicts"]

SAMPLES, TESTED, BATCH = 60_000, 10_000, 100
EVALUATED = 1_000  # samples of each accuracy in chapters 7 and 8
LR = 0.1
CHECKED_STEPS = 10
TOLERANCE = 1e-9  # of the losses of the first steps, relative
BOOK_STEPS = 10_000  # of the scripts of chapters 4 and 5
OURS, PLAIN = "xpnet.book", "plain NumPy"


@dataclass(frozen=True)
class Chapter:
    """A script of the book; a turn is `share` of its epoch."""

    title: str
    make: Callable[[], Any]
    trainer: bool  # the book's Trainer with Adam, or the loop that chapters 4 and 5 write out
    share: float
    rounds: int


CHAPTERS = {
    "ch04": Chapter("sigmoid, 784-50-10", lambda: ch04.TwoLayerNet(784, 50, 10), False, 1.0, 17),
    "ch05": Chapter("ReLU, 784-50-10", lambda: ch05.TwoLayerNet(784, 50, 10), False, 1.0, 17),
    "ch07": Chapter("SimpleConvNet, Adam", ch07.SimpleConvNet, True, 0.1, 7),
    "ch08": Chapter("DeepConvNet, Adam", ch08.DeepConvNet, True, 0.01, 7),
}
ASKED = {"ch05": 1.0, "ch07": 4.0}
STRETCH = {"ch05": 1.15}


@dataclass(frozen=True)
class Arguments:
    """Time the scripts of the book's chapters through xpnet.book, beside plain NumPy."""

    chapters: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = tuple(CHAPTERS)
    """ch04 (sigmoid), ch05 (ReLU), ch07 (SimpleConvNet), ch08 (DeepConvNet)."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder with the MNIST files; without it, random images take their place."""
    rounds: int | None = None
    """Number of turns of each contender; by default 17 in chapters 4 and 5, which are the book's
    10,000 steps and 200 more, and 7 in chapters 7 and 8."""
    share: float | None = None
    """Part of an epoch in a turn; by default 1 in chapters 4 and 5, a tenth in 7, a hundredth
    in 8."""
    clock: Literal["wall", "cpu"] = "wall"
    """cpu counts the seconds of each contender's process, for a machine that others use too."""
    limit: float = LIMIT_SECONDS
    """Most seconds for an answer of a contender."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results into this file as JSON lines: the machine, then one per measurement."""


# -- In the process of a contender -----------------------------------------------------

Part = tuple[np.ndarray, np.ndarray]


def data(chapter: Chapter, share: float, data_dir: str) -> tuple[Part, Part]:
    """Return training and test samples as the chapter's script loads them: a share of each."""
    counts = [max(BATCH, round(share * count)) for count in (SAMPLES, TESTED)]
    flat = not chapter.trainer
    if data_dir:
        parts = load_mnist(flatten=flat, one_hot_label=flat, folder=data_dir)
        return tuple((x[:n], t[:n]) for (x, t), n in zip(parts, counts, strict=True))  # type: ignore[return-value]
    rng = np.random.default_rng(0)
    shape = (784,) if flat else (1, 28, 28)
    found = []
    for n in counts:
        labels = rng.integers(0, 10, n).astype(np.uint8)
        found.append((rng.random((n, *shape), np.float32), np.eye(10)[labels] if flat else labels))
    return found[0], found[1]


class Training:
    """A contender's training, which goes on from turn to turn with its own random numbers."""

    def __init__(self, name: str, key: str, train: Part, test: Part, evaluated: int) -> None:
        chapter = CHAPTERS[key]
        np.random.seed(0)
        network = chapter.make()
        if name == PLAIN:
            params = {key: p.copy() for key, p in network.params.items()}
            network = book_formulas.network(key, params)
        self.network, self.train, self.test, self.count = network, train, test, 0
        self.losses: list[Any] = []
        self.clock, self.scoring = CLOCKS["wall"], 0.0  # seconds of the accuracies in this turn
        self.step = self._in_place
        if chapter.trainer and name == PLAIN:
            plain = book_formulas.Trainer(network, train, test, BATCH, evaluated)
            self.step, self.losses = plain.step, plain.losses
        elif chapter.trainer:
            ours = Trainer(
                network, *train, *test, 1_000, BATCH, "Adam", {"lr": 0.001}, evaluated, False
            )
            self.step, self.losses = ours.train_step, ours.train_loss_list
        self.random = np.random.get_state()

    def _in_place(self) -> None:
        """One iteration of the scripts of chapters 4 and 5."""
        network, (x_train, t_train) = self.network, self.train
        rows = np.random.choice(len(x_train), BATCH)
        x, t = x_train[rows], t_train[rows]
        grads = network.gradient(x, t)
        for key in ("W1", "b1", "W2", "b2"):
            network.params[key] -= LR * grads[key]
        self.losses.append(network.loss(x, t))
        if self.count % (len(x_train) // BATCH) == 0:
            began = self.clock()
            network.accuracy(x_train, t_train)
            network.accuracy(*self.test)
            self.scoring += self.clock() - began
        self.count += 1

    def run(self, steps: int, clock: Callable[[], float]) -> float:
        """Train so many steps; return their seconds."""
        np.random.set_state(self.random)
        self.clock, self.scoring = clock, 0.0
        began = clock()
        for _ in range(steps):
            self.step()
        seconds = clock() - began
        self.random = np.random.get_state()
        return seconds


def serve(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Serve the contenders of one process: "check" returns first losses, "time" times a turn,
    "end" returns the last accuracy."""
    chapter, share, clock = CHAPTERS[setup["chapter"]], setup["share"], CLOCKS[setup["clock"]]
    train, test = data(chapter, share, setup["data_dir"])
    steps, evaluated = len(train[0]) // BATCH, max(1, round(share * EVALUATED))

    def made(name: str) -> Training:
        return Training(name, setup["chapter"], train, test, evaluated)

    running = {name: made(name) for name in setup["contenders"]}

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        name = question["contender"]
        match question["do"]:
            case "check":
                other = made(name)
                other.run(CHECKED_STEPS, clock)
                return {"losses": [float(loss) for loss in other.losses]}
            case "end":
                x, t = test
                accuracy = running[name].network.accuracy(x[:EVALUATED], t[:EVALUATED])
                return {"accuracy": float(accuracy), "loss": float(running[name].losses[-1])}
        turn = running[name]
        seconds = turn.run(steps, clock)
        return {
            "seconds": seconds / steps,
            "loop": (seconds - turn.scoring) / steps if turn.scoring else None,
            "steps": steps,
        }

    return answer


# -- The rounds ------------------------------------------------------------------------


def check(losses: dict[str, list[float]]) -> float:
    """Return the largest relative difference of the contenders' losses; raise Failed if large."""
    ours, plain = (np.array(losses[name]) for name in (OURS, PLAIN))
    error = float(np.max(np.abs(ours - plain) / plain))
    if not error < TOLERANCE or not np.ptp(plain):
        raise Failed(f"the contenders train different networks: the losses are {error:.1e} apart")
    return error


def measure(
    key: str, together: bool, arguments: Arguments, recorder: Recorder
) -> list[Measurement]:
    """Run the rounds of a chapter, in one process or in two."""
    share = arguments.share or CHAPTERS[key].share
    names = (PLAIN, OURS)
    setup = {
        "chapter": key, "share": share, "data_dir": str(arguments.data_dir or ""),
        "clock": arguments.clock,
    }  # fmt: skip
    hosts = [names] if together else [(name,) for name in names]
    with mock.patch.dict(os.environ, dict.fromkeys(THREADS, "1")):
        workers = {
            host: Worker("benchmarks.book", {**setup, "contenders": host}, arguments.limit)
            for host in hosts
        }
    of = {name: workers[host] for host in hosts for name in host}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    known: dict[str, dict[str, Any]] = {name: {} for name in names}
    case = {"chapter": key, "processes": len(hosts)}

    def measurements() -> list[Measurement]:
        return [
            {"case": case, "contender": name, "unit": "us/step",
             **quartiles([1e6 * value for value in seconds[name]]), **known[name]}
            for name in names if seconds[name]
        ]  # fmt: skip

    try:
        for worker in workers.values():
            worker.ready()
        error = check({n: of[n].ask(do="check", contender=n)["losses"] for n in names})
        for name in turns(names, arguments.rounds or CHAPTERS[key].rounds):
            turn = of[name].ask(do="time", contender=name)
            seconds[name].append(turn["seconds"])
            known[name] |= {"steps": turn["steps"], "loss_error": error}
            if turn["loop"]:
                known[name].setdefault("loop", []).append(1e6 * turn["loop"])
            recorder.put(*measurements())
        for name in names:
            known[name] |= of[name].ask(do="end", contender=name)
        recorder.put(*measurements())
    finally:
        stop(workers.values())
    return measurements()


# -- What was asked, and the pages -----------------------------------------------------


def _faster(
    measurements: Sequence[Measurement], key: str, processes: int, values: str = "values"
) -> dict[str, Any]:
    """Return quartiles of how many times as fast xpnet.book is; empty if it was not measured.

    "loop" leaves out the accuracies.
    """
    case = {"chapter": key, "processes": processes}
    found = {m["contender"]: m[values] for m in measurements if m["case"] == case and values in m}
    return ratio(found[PLAIN], found[OURS]) if {PLAIN, OURS} <= found.keys() else {}


def verdicts(measurements: Sequence[Measurement]) -> Iterator[Verdict]:
    """Yield what was asked of the chapters that were measured; in both ways."""
    for asked, word in ((ASKED, ""), (STRETCH, ", hoped for")):
        for key, least in asked.items():
            for values, without in (("values", ""), ("loop", " without accuracies")):
                for processes, where in ((2, "a process each"), (1, "one process")):
                    faster = _faster(measurements, key, processes, values)
                    if faster:
                        what = f"{key}{without}, {where}: {OURS}, times as fast as {PLAIN}{word}"
                        yield Verdict(what, least, faster["median"])


def lines(measurements: Sequence[Measurement]) -> list[str]:
    """Write µs a step of both contenders, and how many times as fast xpnet.book is."""
    table = [
        f"| µs a step | {PLAIN} | {OURS} | times as fast | in one process | asked |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    own = {(m["case"]["chapter"], m["case"]["processes"], m["contender"]): m for m in measurements}
    for key in dict.fromkeys(key for key, *_ in own):
        asked = ASKED.get(key)
        for values, without in (("values", ""), ("loop", ", without accuracies")):
            if not _faster(measurements, key, 2, values):
                continue
            cells = [f"{median(own[key, 2, name][values]):,.0f}" for name in (PLAIN, OURS)]
            for processes in (2, 1):
                faster = _faster(measurements, key, processes, values)
                cell = f"{faster['median']:.2f} ({faster['q1']:.2f} to {faster['q3']:.2f})"
                missed = asked is not None and faster["median"] < asked
                cells.append(f"**{cell} MISSED**" if missed else cell)
            words = f"chapter {int(key[2:])}: {CHAPTERS[key].title}{without}"
            table.append(f"| {words} | {' | '.join(cells)} | {asked or ''} |")
    return table


def section(header: dict[str, Any], measurements: Sequence[Measurement]) -> list[str]:
    """Write the table of a file of results."""
    clock = " of processor time, on a machine that other work kept busy," * (
        header["clock"] == "cpu"
    )
    own = {(m["case"]["chapter"], m["case"]["processes"], m["contender"]): m for m in measurements}
    rounds = " or ".join(str(n) for n in sorted({len(m["values"]) for m in measurements}))
    more = ""
    if ("ch05", 2, OURS) in own:
        plain, ours = (
            f"{BOOK_STEPS * own['ch05', 2, name]['median'] / 1e6:.1f} s" for name in (PLAIN, OURS)
        )
        accuracy = 100 * own["ch05", 2, OURS]["accuracy"]
        more = (
            f" The {BOOK_STEPS:,} steps of chapter 5 take {ours} through xpnet.book and {plain} in "
            f"plain NumPy; both end with {accuracy:.1f} % on the first 1,000 test images."
        )
    return [
        f"The book's scripts on {header['data'].upper()}, in its own style and float64, batch 100: "
        "gradient, update in place, and the loss again on the batch; accuracies once an epoch. "
        f"Microseconds a step{clock} on one thread, median of {rounds} rounds in turns; "
        "a turn is an epoch of 600 steps in chapters 4 and 5, 60 steps in 7 and 6 in 8, with "
        "their share of the accuracies. Times as fast (and quartiles): each contender in a process "
        "of its own; and both in one process, where plain NumPy too finds glibc keeping freed "
        f"memory. The losses of both agree to {TOLERANCE:.0e}.{more} `python -m benchmarks.book` "
        "repeats it.",
        "",
        *lines(measurements),
        "",
    ]


def in_a_line(header: dict[str, Any], measurements: Sequence[Measurement]) -> str:
    """Write how many times as fast chapters 5 and 7 are, each in a process of its own."""
    fifth, seventh = (_faster(measurements, key, 2)["median"] for key in ("ch05", "ch07"))
    return (
        f"The book's loop of chapter 5 runs {fifth:.2f} times as fast through `xpnet.book` as in "
        f"plain NumPy, its ConvNet of chapter 7 {seventh:.1f} times ({header['machine']['date']})."
    )


# -- The command -----------------------------------------------------------------------


@orderly
def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.book")
    unknown = [word for word in arguments.chapters if word not in CHAPTERS]
    try:
        numbers(arguments)
        if unknown:
            expected = ", ".join(CHAPTERS)
            raise ValueError(f"--chapters {', '.join(unknown)}: expected some of {expected}")
    except ValueError as error:
        print(f"python -m benchmarks.book: {error}", file=sys.stderr)
        return 2
    settings = {
        "data": "mnist" if arguments.data_dir else "random",
        "clock": arguments.clock,
        "load": [round(x, 2) for x in os.getloadavg()],
    }
    failed = 0
    with recording("book", arguments.out, **settings) as recorder:
        for key in arguments.chapters:
            for together in (False, True):
                where = "in one process" if together else "each in a process of its own"
                print(f"\n{key}: {CHAPTERS[key].title}, {where}", flush=True)
                try:
                    found = measure(key, together, arguments, recorder)
                except (Failed, Skipped) as reason:
                    print(f"FAILED, {reason}", flush=True)
                    failed += 1
                    continue
                for m in found:
                    print(
                        f"{m['contender']:<14}{m['median']:>12,.1f} us/step, q1 {m['q1']:,.1f}, "
                        f"q3 {m['q3']:,.1f}; loss {m['loss']:.6f}, accuracy {m['accuracy']:.4f}"
                    )
                faster = _faster(found, key, 2 - together)
                print(f"times as fast: {faster['median']:.3f}", flush=True)
        print("\n".join(["", *verdict_lines(verdicts(recorder.measurements))]), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
