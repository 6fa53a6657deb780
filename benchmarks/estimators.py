"""``python -m benchmarks.estimators`` times xpnet's scikit-learn estimators beside scikit-learn's.

A case fits, searches or predicts with both libraries in one process, in turns, so that a drift of
the machine's speed cancels in the ratio of a round. Both get the same data, settings and random
state. A time counts only if both have the same losses. The memory of a fit is measured in a
process of its own, beyond what the process had before.

With ``--device cuda``, xpnet runs on the GPU with each of its libraries, with NumPy's data and with
data that already lies on the GPU, beside scikit-learn on the CPU. The file gets every turn at once.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro

import xpnet
from benchmarks.estimator_cases import CASES, GPU_CASES, Case, data_of
from benchmarks.growth import peak_mib
from benchmarks.interrupts import orderly
from benchmarks.results import Measurement, Recorder, numbers, recording
from benchmarks.timing import calls_in, quartiles, ratio, settle, timed, turns
from benchmarks.worker import LIMIT_SECONDS, Failed, Skipped, Worker
from xpnet.errors import NotCapturedWarning

__all__ = ["BASELINE", "Pair", "main", "pairs", "serve"]

BASELINE = "scikit-learn"
# The largest relative distance of a loss from scikit-learn's.
TOLERANCE = {"float64": 1e-9, "float32": 1e-3}
# Rounding grows with the steps, and the losses that it is compared with shrink.
COMPARED_EPOCHS = 25
GRID = {"hidden_layer_sizes": [(10,), (50,)], "alpha": [1e-5, 1e-4, 1e-3, 1e-2]}
FOLDS = 3  # 24 fits
JOBS = 2  # of scikit-learn's whole search
GPU_BACKENDS = ("cupy", "torch", "jax")
MEMORY_ROUNDS = 3  # the memory of a fit hardly varies
QUICK_ROUNDS, QUICK_SHARE = 3, 10


@dataclass(frozen=True)
class Arguments:
    """Time fit and predict of xpnet's estimators beside scikit-learn's."""

    cases: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Measure only these cases; by default all that the device has."""
    quick: bool = False
    """Three rounds, each fit with a tenth of the iterations; targets mean little then."""
    device: Literal["cpu", "cuda"] = "cpu"
    """xpnet's device; scikit-learn stays on the CPU."""
    dtypes: tuple[Literal["float64", "float32"], ...] = ("float64", "float32")
    """Dtypes of X, one after the other."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder with the MNIST files; without it, random images of this size take their place."""
    rounds: int = 11
    """Number of turns of each library."""
    seconds: float = 0.3
    """Shortest length of a turn; as many calls as fill it."""
    limit: float = LIMIT_SECONDS
    """Most seconds for an answer of a case's process. A slower case is ended, and the others
    continue."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results into this file as JSON lines: the machine, then one per measurement."""


# -- In the process of a case ----------------------------------------------------------


class Side(NamedTuple):
    """A library's estimator, made anew for each fit, and the data as this side gets it."""

    make: Callable[..., Any]
    x: Any
    y: Any

    def fit(self, **settings: Any) -> Any:
        return self.make(**settings).fit(self.x, self.y)

    def search(self) -> list[float]:
        """Run the grid search; return the last losses of all fits."""
        from sklearn.model_selection import GridSearchCV

        def scores(estimator: Any, x: Any, y: Any) -> dict[str, float]:
            return {"accuracy": estimator.score(x, y), "loss": estimator.loss_}

        search = GridSearchCV(self.make(), GRID, cv=FOLDS, scoring=scores, refit=False)
        found = search.fit(self.x, self.y).cv_results_
        return [loss for fold in range(FOLDS) for loss in found[f"split{fold}_test_loss"].tolist()]

    def whole_search(self) -> list[float]:
        """Run the search with the refit as users do, xpnet's as one batch; return all scores."""
        from sklearn.model_selection import GridSearchCV

        import xpnet.sklearn

        estimator = self.make()
        if isinstance(estimator, xpnet.sklearn.MLPClassifier):
            search = xpnet.sklearn.BatchedGridSearchCV(estimator, GRID, cv=FOLDS)
        else:
            search = GridSearchCV(estimator, GRID, cv=FOLDS, n_jobs=JOBS)  # its pool stays warm
        found = search.fit(self.x, self.y).cv_results_
        return [score for fold in range(FOLDS) for score in found[f"split{fold}_test_score"]]


def sides_of(case: Case, setup: dict[str, Any]) -> dict[str, Callable[[], Side]]:
    """Return a function for each side, since the process of a memory measurement makes only one."""
    name = "MLPRegressor" if case.data == "regression" else "MLPClassifier"
    device, backend, dtype = setup["device"], setup["backend"], setup["dtype"]
    settings = {**case.settings, "max_iter": setup["max_iter"], "random_state": 0}
    x, y = data_of(case, dtype, setup["data_dir"])

    def theirs() -> Side:
        from sklearn import neural_network

        return Side(partial(getattr(neural_network, name), **settings), x, y)

    def ours(**options: Any) -> Side:
        import xpnet.sklearn

        return Side(partial(getattr(xpnet.sklearn, name), **settings, **options), x, y)

    def there() -> Side:
        library = xpnet.select(device, backend, dtype)
        return ours()._replace(x=library.asarray(x), y=library.asarray(y))

    # Without options, X decides, and here it is NumPy's.
    options = {} if backend == "numpy" else {"device": device, "backend": backend}
    sides: dict[str, Callable[[], Side]] = {f"xpnet {backend}": partial(ours, **options)}
    if device != "cpu":
        sides[f"xpnet {backend}, data on {device}"] = there
    return {**sides, BASELINE: theirs}


def serve(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Serve a lane: "check" fits with every side, "prepare" finds the calls of a turn, "time" times
    a side's turn, "memory" measures a side's fit."""
    if setup["device"] == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"  # even if there is a GPU
    # Otherwise JAX takes three quarters of a GPU's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    xpnet.select(setup["device"], setup["backend"], setup["dtype"])  # raises if it cannot be used
    case = CASES[setup["case"]]
    sides = sides_of(case, setup)
    if case.what == "memory":
        _forget_peak()
    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)  # the iterations are few on purpose
    warnings.simplefilter("error", NotCapturedWarning)  # it would look like a slow captured step
    work: dict[str, Callable[[], object]] = {}
    warm_up: dict[str, Callable[[], object]] = {}
    calls = 1

    def check(name: str) -> dict[str, Any]:
        """Do a side's work for the first time; return the seconds, and what both must agree on."""
        side = sides[name]()
        began = time.perf_counter()
        if case.what == "search":
            losses, work[name] = side.search(), side.search
        elif case.what == "batched":
            losses, work[name] = side.whole_search(), side.whole_search
        else:
            fitted = side.fit()
            losses, work[name] = list(map(float, fitted.loss_curve_)), side.fit
        warm_up[name] = partial(side.fit, max_iter=1)
        if case.what == "predict":
            began = time.perf_counter()
            fitted.predict(side.x)
            work[name] = warm_up[name] = partial(fitted.predict, side.x)
        seconds = time.perf_counter() - began
        if case.what == "predict":
            losses.append(float(fitted.score(side.x, side.y)))
        return {"losses": losses, "first_ms": 1e3 * seconds}

    def memory(name: str) -> dict[str, Any]:
        side = sides[name]()
        _forget_peak()
        before = peak_mib()
        losses = list(map(float, side.fit().loss_curve_))
        return {"losses": losses, "value": peak_mib() - before, "process_mib": peak_mib()}

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        match question["do"]:
            case "check":
                return {name: check(name) for name in sides}
            case "prepare":
                calls = calls_in(question["seconds"], partial(timed, work[BASELINE]))
                return {"calls": calls}
            case "memory":
                return memory(question["side"])
        settle(warm_up[question["side"]])
        return {"value": 1e3 * timed(work[question["side"]], calls)}

    return answer


def _forget_peak() -> None:
    """Let the peak of this process's memory be what it uses now; loading the data takes more."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError as error:
        raise Skipped(
            f"this system cannot forget the peak of a process's memory: {error}"
        ) from None


# -- The rounds ------------------------------------------------------------------------


class Lane(NamedTuple):
    """A case in one dtype with one of xpnet's libraries."""

    case: str
    dtype: str
    backend: str
    device: str = "cpu"

    def __str__(self) -> str:
        return " ".join(self.fields().values())

    def fields(self) -> dict[str, str]:
        """Return what identifies the lane in a file of results; no device means the CPU."""
        fields = self._asdict()
        if self.device == "cpu":
            del fields["device"]
        return fields


def check(losses: dict[str, list[float]], dtype: str) -> dict[str, float]:
    """Return the largest relative distance of each side's losses from scikit-learn's.

    Raise `Failed` if it is too large for the dtype: the fits are not the same.
    """
    expected = np.array(losses[BASELINE])
    errors = {}
    for name, own in losses.items():
        if len(own) != len(expected):
            raise Failed(f"{name} has {len(own)} losses, {BASELINE} {len(expected)}")
        apart = np.abs(np.array(own) - expected) / np.abs(expected)
        errors[name] = float(np.max(apart[:COMPARED_EPOCHS]))
        if not errors[name] <= TOLERANCE[dtype]:
            raise Failed(f"{name} trains something else: its losses are {errors[name]:.1e} off")
    return errors


class Rounds:
    """Run the rounds of one lane, and record every turn at once."""

    def __init__(self, lane: Lane, arguments: Arguments, recorder: Recorder) -> None:
        self._lane, self._arguments, self._recorder = lane, arguments, recorder
        self._case = CASES[lane.case]
        self._known: dict[str, dict[str, Any]] = {}
        self._values: dict[str, list[float]] = {}

    def run(self) -> None:
        """Raise `Skipped` or `Failed` with the reason; what was recorded before stays."""
        if self._case.what == "memory":
            self._memory()
        else:
            self._times()

    def measurements(self) -> list[Measurement]:
        return [
            {
                "case": self._lane.fields(),
                "contender": name,
                "unit": "MiB" if self._case.what == "memory" else "ms",
                **quartiles(values),
                **self._known[name],
            }
            for name, values in self._values.items()
        ]

    @contextmanager
    def _process(self) -> Iterator[Worker]:
        arguments, most = self._arguments, self._case.settings["max_iter"]
        setup = {
            **self._lane._asdict(),
            "max_iter": max(1, most // QUICK_SHARE) if arguments.quick else most,
            "data_dir": str(arguments.data_dir or ""),
        }
        worker = Worker("benchmarks.estimators", setup, arguments.limit)
        try:
            yield worker.ready()
        finally:
            worker.stop()

    def _turns(self, most: int) -> Iterator[str]:
        rounds = min(self._arguments.rounds, QUICK_ROUNDS if self._arguments.quick else most)
        return turns(tuple(self._known), rounds)

    def _add(self, name: str, value: float) -> None:
        self._values.setdefault(name, []).append(value)
        self._recorder.put(*self.measurements())

    def _times(self) -> None:
        with self._process() as worker:
            sides = worker.ask(do="check")
            errors = check(
                {name: side.pop("losses") for name, side in sides.items()}, self._lane.dtype
            )
            calls = worker.ask(do="prepare", seconds=self._arguments.seconds)
            self._known = {
                name: {"loss_error": errors[name], **side, **calls} for name, side in sides.items()
            }
            for name in self._turns(self._arguments.rounds):
                self._add(name, worker.ask(do="time", side=name)["value"])

    def _memory(self) -> None:
        self._known = {f"xpnet {self._lane.backend}": {}, BASELINE: {}}
        losses: dict[str, list[float]] = {}
        for name in self._turns(MEMORY_ROUNDS):
            with self._process() as worker:
                found = worker.ask(do="memory", side=name)
            losses[name] = found["losses"]
            if BASELINE in losses:
                check(losses, self._lane.dtype)
            self._known[name] = {"process_mib": found["process_mib"]}
            self._add(name, found["value"])


# -- The table -------------------------------------------------------------------------


class Pair(NamedTuple):
    """xpnet's and scikit-learn's measurement of one lane."""

    ours: Measurement
    theirs: Measurement

    @property
    def times(self) -> dict[str, Any]:
        """Quartiles of how many times as fast xpnet is, or of how much less memory it takes."""
        return ratio(self.theirs["values"], self.ours["values"])

    @property
    def asked(self) -> float | None:
        """The least that `times` should be; None if nothing is asked."""
        fields = self.ours["case"]
        if "device" in fields or fields["case"] not in CASES:
            return None
        return CASES[fields["case"]].least.get(fields["dtype"])

    @property
    def missed(self) -> bool:
        return self.asked is not None and self.times["median"] < self.asked


def pairs(measurements: Sequence[Measurement]) -> list[Pair]:
    """Return each measurement of xpnet with scikit-learn's of the same lane, if both exist."""
    theirs = {json.dumps(m["case"]): m for m in measurements if m["contender"] == BASELINE}
    return [
        Pair(m, theirs[json.dumps(m["case"])])
        for m in measurements
        if m["contender"] != BASELINE and json.dumps(m["case"]) in theirs
    ]


HEADING = (
    f"{'':<26}{'':<9}{'':<28}{'xpnet':>10}{'sklearn':>10}{'':<4}{'times':>7}{'q1':>7}{'q3':>7}"
    f"{'asked':>7}"
)


def row(pair: Pair) -> str:
    """Write a pair as a line of the table for the terminal."""
    ours, theirs, times = pair.ours, pair.theirs, pair.times
    line = (
        f"{ours['case']['case']:<26}{ours['case']['dtype']:<9}{ours['contender']:<28}"
        f"{ours['median']:>10,.1f}{theirs['median']:>10,.1f} {ours['unit']:<3}"
        f"{times['median']:>7.2f}{times['q1']:>7.2f}{times['q3']:>7.2f}"
    )
    if pair.asked is not None:
        line += f"{pair.asked:>7.2f}  {'MISSED' if pair.missed else 'met'}"
    if ours["case"]["backend"] != "numpy" and "first_ms" in ours:
        line += f"  (the first one, which compiles: {ours['first_ms']:,.0f} ms)"
    return line


def lanes(arguments: Arguments) -> Iterator[Lane]:
    """Yield what to measure.

    Raises
    ------
    ValueError
        The device does not have a case of this name.
    """
    known = tuple(CASES) if arguments.device == "cpu" else GPU_CASES
    unknown = [name for name in arguments.cases if name not in known]
    if unknown:
        raise ValueError(f"--cases {' '.join(unknown)}: expected some of {', '.join(known)}")
    for name, dtype in product(arguments.cases or known, arguments.dtypes):
        backends = GPU_BACKENDS if arguments.device == "cuda" else (CASES[name].backend,)
        for backend in backends:
            yield Lane(name, dtype, backend, arguments.device)


@orderly
def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.estimators")
    try:
        numbers(arguments)
        todo = list(lanes(arguments))
        if arguments.data_dir is not None:
            xpnet.datasets.load("mnist", arguments.data_dir)
    except (ValueError, OSError) as error:
        print(f"python -m benchmarks.estimators: {error}", file=sys.stderr)
        return 2
    settings = {
        "data": "mnist" if arguments.data_dir else "random", "rounds": arguments.rounds,
        "quick": arguments.quick, "device": arguments.device,
    }  # fmt: skip
    failed, found = 0, list[Pair]()
    with recording("estimators", arguments.out, **settings) as recorder:
        print(HEADING)
        for lane in todo:
            rounds = Rounds(lane, arguments, recorder)
            try:
                rounds.run()
            except Skipped as reason:
                print(f"{lane}: skipped, {reason}", flush=True)
            except Failed as reason:
                print(f"{lane}: FAILED, {reason}", flush=True)
                failed += 1
            own = pairs(rounds.measurements())
            for pair in own:
                print(row(pair), flush=True)
            found += own
    missed = sum(pair.missed for pair in found)
    print(f"{sum(p.asked is not None for p in found) - missed} targets met, {missed} missed")
    if not found:
        print("python -m benchmarks.estimators: nothing could be measured", file=sys.stderr)
        return 1 if failed else 3
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
