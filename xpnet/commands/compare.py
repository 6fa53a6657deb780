"""``python -m xpnet.compare RUN...`` lists runs beside each other, the best one first."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
import shutil
import statistics
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from xpnet.commands.columns import cell, in_columns
from xpnet.commands.exits import complain, emit, run, say
from xpnet.commands.several import joined
from xpnet.commands.usage import read
from xpnet.errors import DataError, UsageError, listed, one_line, shown
from xpnet.files import open_regular, write_whole

__all__ = ["Run", "main", "read_run"]

# The largest files of a run, in bytes; a record of an epoch has some 250.
LARGEST_FILE = {"config.toml": 1 << 20, "summary.json": 1 << 20, "metrics.jsonl": 64 << 20}
PICTURES = (".png", ".svg", ".pdf")
# Of these, the smaller number is the better one.
LOWER = ("loss", "log_loss", "brier", "mae", "mse", "rmse", "median_absolute_error")
EXAMPLES = (
    "runs/*",
    "runs/lr-0.1 runs/lr-0.01 --metric loss",
    "runs --csv runs.csv --plot runs.png",
)

Name = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]


@dataclass(frozen=True)
class Arguments:
    """Compare runs: the settings that differ, and the scores on the test part, the best one first.

    Runs that differ only in their seed are also listed together, with the mean of their scores.
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")]
    """Folders of runs; a folder that has runs in it stands for all of them."""
    metric: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: accuracy or r2)")
    ] = None
    """Sort by this score on the test part."""
    csv: File = None
    """Also write the table into this file; - prints it as CSV, and nothing else."""
    plot: File = None
    """Also draw the learning curves into this .png, .svg or .pdf file; needs matplotlib."""


# -- Reading -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What the files of a run's folder say.

    Attributes
    ----------
    folder : Path
    settings : dict
        Those of config.toml; a setting that is none is not there. Of a sweep, those of its best
        network.
    summary : dict
        That of summary.json; empty if the run has not ended, or the file is damaged.
    epochs : tuple of dict
        The lines of metrics.jsonl.
    faults : tuple of str
        What is missing or damaged, for messages.
    """

    folder: Path
    settings: Mapping[str, Any]
    summary: Mapping[str, Any]
    epochs: tuple[Mapping[str, Any], ...]
    faults: tuple[str, ...] = ()

    @property
    def kind(self) -> str | None:
        """ "classification", "regression", or None if no file says it."""
        names = {*self.summary, *itertools.chain(*self.epochs[:1])}
        for kind, score in (("classification", "accuracy"), ("regression", "r2")):
            if any(name.endswith(f"_{score}") for name in names):
                return kind
        return None

    @property
    def scores(self) -> dict[str, float | None]:
        """The numbers on the test part by name: {"accuracy": 0.97, ...}."""
        found = {}
        for name, value in self.summary.items():
            if name.startswith("test_") and (value is None or _number(value) is not None):
                found[name.removeprefix("test_")] = _number(value)
        return found


def _number(value: Any) -> float | None:
    """A number of a file as a finite float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def read_run(folder: Path) -> Run:
    """Read what the files of a run's folder say; what is missing or damaged becomes a fault.

    Raises
    ------
    DataError
        It is not the folder of a run.
    """
    if not (folder / "config.toml").exists():
        raise DataError(f"{folder}: is not the folder of a run: it has no config.toml")
    faults: list[str] = []

    def content(name: str, load: Callable[[str], Any], empty: Any) -> Any:
        try:
            found = load(_text(folder / name, LARGEST_FILE[name]))
            if type(found) is not type(empty):
                raise ValueError(f"got {type(found).__name__}, expected {type(empty).__name__}")
            return found
        except FileNotFoundError:
            faults.append(f"{folder}: has no {name}; the run has not ended")
        except OSError as error:
            faults.append(f"{folder / name}: cannot be read: {error.strerror}")
        except (ValueError, RecursionError) as error:
            faults.append(f"{folder / name}: is damaged: {' '.join(str(error).split())}")
        return empty

    settings, summary = (
        content("config.toml", _settings, {}),
        content("summary.json", json.loads, {}),
    )
    sweep = summary.get("sweep")  # its run is the best network
    if isinstance(sweep, dict) and isinstance(best := sweep.get("settings"), dict):
        settings = settings | best
    return Run(
        folder,
        settings,
        summary,
        content("metrics.jsonl", _records, ()),
        tuple(faults),
    )


def _text(path: Path, most: int) -> str:
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"is larger than {most:,} bytes")
    return data.decode("utf-8-sig")


def _settings(text: str) -> dict[str, Any]:
    found = tomllib.loads(text)
    repr(found)  # a ValueError for a number of more digits than Python writes
    return found


def _records(text: str) -> tuple[dict[str, Any], ...]:
    """The lines of metrics.jsonl; the last one may be cut off, where a run was killed."""
    lines = text.splitlines()
    if lines and not text.endswith("\n"):
        lines.pop()
    records = tuple(json.loads(line) for line in lines)
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict) or type(record.get("epoch")) is not int:
            raise ValueError(f"line {number}: expected the record of an epoch")
    return records


def _folders(paths: Iterable[Path]) -> Iterator[Path]:
    """The folders of runs: each one once, and those in a folder that is none itself."""
    seen = set()
    for path in paths:
        inside = [path]
        if path.is_dir() and not (path / "config.toml").exists():
            inside = sorted(file.parent for file in path.glob("*/config.toml")) or [path]
        for folder in inside:
            if (real := os.path.realpath(folder)) not in seen:
                seen.add(real)
                yield folder


def _read_all(paths: Iterable[Path]) -> list[Run]:
    """Read the runs; name what is none, and those that are damaged or unfinished, in a line each.

    Raises
    ------
    DataError
        No run is left, or classifications and regressions are mixed.
    """
    runs = []
    for folder in _folders(paths):
        try:
            found = read_run(folder)
        except DataError as error:
            complain(f"{error}; left out")
            continue
        if found.faults:
            complain(found.faults[0])
        runs.append(found)
    if not runs:
        raise DataError("got no run, expected folders that xpnet train wrote; see runs/")
    of_kind = {run.kind: run.folder for run in reversed(runs) if run.kind is not None}
    if len(of_kind) > 1:
        raise DataError(
            f"{of_kind['classification']} is a classification, {of_kind['regression']} a "
            "regression; expected runs of one kind"
        )
    return runs


# -- Tables --------------------------------------------------------------------------------


def differing(runs: Sequence[Run]) -> list[str]:
    """The names of the settings in which the runs differ, in the order of their files.

    Without "epochs": how many there were has a column anyway. And without "ensemble", which leaves
    a network as it is.
    """
    known = [run.settings for run in runs if run.settings]  # the others' files are damaged
    found = dict.fromkeys(itertools.chain(*known))
    names = [name for name in found if name not in ("epochs", "ensemble")]
    return [n for n in names if any(s.get(n) != known[0].get(n) for s in known)]


def _metric(name: str | None, runs: Sequence[Run]) -> str:
    """The score to sort by.

    Raises
    ------
    UsageError
        No run has it.
    """
    known = dict.fromkeys(score for run in runs for score in run.scores)
    if name is None:
        names = ("r2", "loss") if runs[0].kind == "regression" else ("accuracy", "r2", "loss")
        return next((score for score in names if score in known), "accuracy")
    plain = name.removeprefix("test_").replace("-", "_").lower()
    if plain not in known:
        expected = listed(known) or "no scores; wait until a run has ended"
        raise UsageError(f"--metric is {shown(name)}; the runs have {expected}")
    return plain


def _ordered(runs: Sequence[Run], metric: str) -> list[Run]:
    """The best run first; those without the score last."""
    sign = 1 if metric in LOWER else -1

    def key(run: Run) -> tuple[bool, float, bool]:
        value = run.scores.get(metric)
        return value is None, sign * (value or 0.0), not run.summary

    return sorted(runs, key=key)


def _names(runs: Sequence[Run]) -> list[str]:
    """What to call the runs: their folders, from where these differ."""
    folders = [str(run.folder) for run in runs]
    if len(folders) < 2:
        return folders
    common = os.path.commonpath([os.path.dirname(os.path.abspath(f)) for f in folders])
    short = [os.path.relpath(os.path.abspath(f), common) for f in folders]
    return short if len({*short}) == len(short) else folders


def _rows(runs: Sequence[Run], settings: Sequence[str], scores: Sequence[str]) -> list[list[Any]]:
    """A row per run: name, settings, epochs, best epoch, seconds, scores; None is no value."""
    rows = []
    for name, one in zip(_names(runs), runs, strict=True):
        seconds = [_number(epoch.get("seconds")) or 0.0 for epoch in one.epochs]
        rows.append(
            [
                name,
                *(one.settings.get(setting) for setting in settings),
                one.summary.get("epochs", len(one.epochs)),
                one.summary.get("best_epoch"),
                _number(one.summary.get("train_seconds", sum(seconds))),
                *(one.scores.get(score) for score in scores),
            ]
        )
    return rows


def _wrapped(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """The same; the last columns that a line of this width has no room for stand in further tables.

    Each of these begins with the first column again.
    """
    columns = [*zip(header, *rows, strict=True)]
    first, *rest = columns
    parts = [[first]]
    for column in rest:
        used = sum(max(map(len, map(one_line, c))) + 2 for c in [*parts[-1], column]) - 2
        if used > width and len(parts[-1]) > 1:
            parts.append([first])
        parts[-1].append(column)
    tables = ([*zip(*part, strict=True)] for part in parts)
    return "\n".join(in_columns(head, body) for head, *body in tables)


def _text_of(
    runs: Sequence[Run],
    settings: Sequence[str],
    scores: Sequence[str],
    metric: str,
    width: int,
) -> str:
    """The table of the runs, and the one over their seeds where there is one."""
    count = len(settings)
    rows = []
    for one, row in zip(runs, _rows(runs, settings, scores), strict=True):
        name, epochs, best, seconds = row[0], *row[1 + count : 4 + count]
        rows.append(
            [
                name,
                *map(cell, row[1 : 1 + count]),
                cell(epochs) if one.summary else f"{cell(epochs)}, unfinished",
                cell(best),
                cell(seconds, 1),
                *(cell(score, 4) for score in row[4 + count :]),
            ]
        )
    header = ["run", *settings, "epochs", "best epoch", "seconds", *scores]
    text = f"scores on the test part, the best {metric} first:\n\n{_wrapped(header, rows, width)}"
    if together := _over_seeds(runs, [name for name in settings if name != "seed"], metric):
        text += f"\nover the seeds (mean ± standard deviation):\n\n{together}"
    return text


def _over_seeds(runs: Sequence[Run], settings: Sequence[str], metric: str) -> str:
    """A table of the runs that differ only in their seed; "" if each run stands for itself."""
    groups: dict[str, list[Run]] = {}
    for one in runs:
        if one.scores.get(metric) is not None:
            key = repr([one.settings.get(name) for name in settings])
            groups.setdefault(key, []).append(one)
    if all(len(group) == 1 for group in groups.values()):
        return ""
    found = []
    for group in groups.values():
        values = [value for one in group if (value := one.scores.get(metric)) is not None]
        spread = f"± {cell(statistics.stdev(values), 4)}" if len(values) > 1 else ""
        mean = statistics.fmean(values)
        words = [cell(group[0].settings.get(name)) for name in settings]
        best = min(values) if metric in LOWER else max(values)
        row = [str(len(group)), *words, f"{cell(mean, 4)} {spread}".strip(), cell(best, 4)]
        found.append((mean, row))
    found.sort(key=lambda pair: pair[0], reverse=metric not in LOWER)
    return in_columns(["runs", *settings, metric, "best"], [row for _, row in found])


def _csv_of(runs: Sequence[Run], settings: Sequence[str], scores: Sequence[str]) -> str:
    """The same numbers with all their digits, and whether each run has ended."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    header = ["epochs", "best_epoch", "seconds", *(f"test_{score}" for score in scores)]
    writer.writerow(["run", "finished", *settings, *header])
    for one, row in zip(runs, _rows(runs, settings, scores), strict=True):
        cells = [joined(value) if isinstance(value, list) else value for value in row[1:]]
        writer.writerow([str(one.folder), str(bool(one.summary)).lower(), *cells])
    return stream.getvalue()


# -- Picture -------------------------------------------------------------------------------


def _draw(runs: Sequence[Run], settings: Sequence[str], metric: str, path: Path) -> str:
    """Draw the curves of the best runs; returns a line that says what was drawn.

    The score is the metric, if all of them watched it while they trained.
    """
    from xpnet.show.plots.compare import MOST, Curve, compared

    drawn = [one for one in runs if one.epochs][:MOST]
    if not drawn:
        raise DataError("--plot: no run has a metrics.jsonl that can be read")
    part = "val" if all(_column(one, "val_loss") for one in drawn) else "train"
    score = "r2" if drawn[0].kind == "regression" else "accuracy"
    if metric != "loss" and all(_column(one, f"{part}_{metric}") for one in drawn):
        score = metric
    names = _names(drawn)
    labels = [", ".join(f"{n} {cell(r.settings.get(n))}" for n in settings) for r in drawn]
    if len({*labels}) < len(labels) or max(map(len, labels)) > 40 or not all(labels):
        labels = [cell(name) for name in names]
    curves = [
        Curve(
            label,
            [record["epoch"] for record in one.epochs],
            [_number(record.get(f"{part}_loss")) for record in one.epochs],
            [_number(record.get(f"{part}_{score}")) for record in one.epochs],
            one.summary.get("best_epoch"),
        )
        for label, one in zip(labels, drawn, strict=True)
    ]
    count = "all" if len(drawn) == len(runs) else f"{len(drawn)} of {len(runs)}"
    where = "validation part" if part == "val" else "training part"
    compared(curves, path, score, f"{count} runs on their {where}; dots: best epochs")
    return f"drew {path}: {count} runs on their {where}"


def _column(one: Run, name: str) -> list[float]:
    """The numbers of that name in a run's epochs; empty if there is none."""
    return [value for record in one.epochs if (value := _number(record.get(name))) is not None]


# -- Command -------------------------------------------------------------------------------


def _check(a: Arguments) -> None:
    for option, path in (("csv", a.csv), ("plot", a.plot)):
        if path is not None and str(path) != "-" and not path.parent.is_dir():
            raise UsageError(f"--{option} {path}: the folder {path.parent} does not exist")
    if a.plot is not None:
        if a.plot.suffix.lower() not in PICTURES:
            expected = ", ".join(PICTURES)
            raise UsageError(f"--plot {a.plot}: expected a name that ends with one of {expected}")
        from xpnet.show.plots.figure import require

        require()


def _command(a: Arguments) -> int:
    _check(a)
    found = _read_all(a.runs)
    metric = _metric(a.metric, found)
    runs = _ordered(found, metric)
    settings = differing(runs)
    known = dict.fromkeys(score for one in runs for score in one.scores)
    scores = sorted(known, key=lambda name: name != metric)
    if str(a.csv) == "-":
        emit(_csv_of(runs, settings, scores))
    else:
        # Into a file or a pipe, one table goes whole.
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
        emit(_text_of(runs, settings, scores, metric, width), "replace")
        if a.csv is not None:
            write_whole(a.csv, _csv_of(runs, settings, scores))
            say(f"wrote {a.csv}")
    if a.plot is not None:
        line = _draw(runs, settings, metric, a.plot)
        if str(a.csv) != "-":
            say(line)
    return 0


def main(args: Sequence[str] | None = None, prog: str = "python -m xpnet.compare") -> int:
    """Run the command; return the exit status."""
    return run(lambda: _command(read(Arguments, args, prog, examples=EXAMPLES)))
