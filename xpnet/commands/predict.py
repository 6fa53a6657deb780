"""``python -m xpnet.predict RUN_OR_CHECKPOINT FILE`` prints what a network predicts, as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from xpnet.backend.select import select
from xpnet.commands.config import Library
from xpnet.commands.exits import complain, emit, run
from xpnet.data.cells import is_gap, is_number, shown
from xpnet.data.checks import warn_of_dtype
from xpnet.data.csv import CsvTable, read_csv
from xpnet.data.labels import class_index
from xpnet.data.readers import idx_shape, npz_headers, read_idx, read_npy, read_npz
from xpnet.errors import DataError, UsageError, listed
from xpnet.files import write_whole
from xpnet.models import checkpoint, schema
from xpnet.models.model import Model

__all__ = ["main"]


@dataclass(frozen=True)
class Arguments:
    """Predict with a trained network; each sample gives one line of CSV.

    After a classification, a line has the predicted class, then the probability of each class
    (softmax and sigmoid loss). After a regression, it has the predicted values, in the units of
    the training data.
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """Folder of a run, or a model.npz or checkpoint."""
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """.csv, .npz (its array x), .npy, or IDX images (.gz too)."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("-")
    """Where to write; - is the standard output."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto: cuda where it is usable."""
    backend: Library = "auto"
    """Array library; auto is numpy on the CPU and cupy on CUDA."""


def _samples(file: Path, model: Model, label_column: str | None) -> Any:
    """Read the samples in a file. A CSV file may have the label column, or leave it out."""
    suffix = file.suffix.lower()
    if suffix == ".csv":
        return _table(file, model, label_column).x
    if suffix == ".npz":
        headers = npz_headers(file)
        for name in ("x", "X"):
            if name in headers:
                model.check_shape(headers[name].shape, f"{file}: {name}")
                return read_npz(file, [name])[name]
        raise DataError(f"{file}: has {listed(headers)}; expected an array named x")
    if suffix == ".npy":
        return read_npy(file)
    if suffix == ".gz" or "idx" in file.name:
        model.check_shape(idx_shape(file), str(file))
        return read_idx(file)
    raise UsageError(f"{file}: expected a .csv, .npz, .npy or IDX file")


def _table(file: Path, model: Model, label_column: str | None) -> CsvTable:
    """Read a CSV file with the features of the training, in their order, and no labels.

    Names tell which column is which. Without them only the place does, so what is taken for the
    labels must look like labels, and a line on stderr says which column that is.
    """
    features = math.prod(model.network.input_shape or ())
    trained = model.columns
    table = read_csv(file, label_column or "-1", features, trained)
    if table.columns and trained:
        if table.columns != trained:
            raise DataError(
                f"{file}: got columns {listed(table.columns)}; "
                f"the network was trained on {listed(trained)}"
            )
        return table
    if table.labels is None:
        return table
    if model.classifies:
        index = {name: i for i, name in enumerate(_class_names(model))}
        expected = f"one of {listed(index)}"
        fits = [is_gap(label) or class_index(label, index) is not None for label in table.labels]
    else:
        expected = "numbers"
        fits = [is_gap(label) or is_number(label) for label in table.labels]
    column = f"column {listed([table.label_column])}"
    if not all(fits):
        row = fits.index(False)
        raise DataError(
            f"{file}: line {table.lines[row]}, {column}: got {shown(table.labels[row])} as the "
            f"label, expected {expected}; the file has one column more than the {features} "
            "features: leave out what is neither a feature nor the label"
        )
    complain(f"{file}: left out {column} as the label")
    return table


def _class_names(model: Model) -> list[str]:
    """The names of the classes; without any, their indices."""
    return [*(model.classes or map(str, range(max(model.network.outputs or 0, 2))))]


def _write(out: Path, header: list[str], rows: Any) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    if str(out) == "-":
        emit(stream.getvalue())
    else:
        write_whole(out, stream.getvalue())


def _numbers(values: np.ndarray, spread: Any = 1.0) -> Iterator[list[str]]:
    """Write rows of numbers with the decimals that show six digits of each column's spread.

    A number of which these would show less than four digits has its shortest exact form: what is
    small is not 0. So has a number with more decimals than a float64 has digits.
    """
    spreads = np.broadcast_to(np.abs(spread), values.shape[1:])
    decimals = [max(0, 6 - math.floor(math.log10(s))) for s in spreads]

    def text(value: np.floating[Any], digits: int) -> str:
        shows_little = value != 0 and abs(value) < 10.0 ** (3 - digits)
        return str(value) if shows_little or digits > 17 else f"{value:.{digits}f}"

    for row in values:
        yield [text(value, digits) for value, digits in zip(row, decimals, strict=True)]


def predict(arguments: Arguments) -> None:
    path = checkpoint.model_file(arguments.model)
    arrays, meta = schema.load(path)
    library = None if arguments.backend == "auto" else arguments.backend
    backend = select(arguments.device, library, meta["dtype"], quiet=True)
    model = Model.unpacked(arrays, meta, path=path, backend=backend)
    label_column = meta["extra"].get("label_column")
    x = _samples(arguments.file, model, label_column)
    if model.sample_dtype is not None:
        warn_of_dtype(x, model.sample_dtype, str(arguments.file))
    if not model.classifies:
        values = model.predict(x)
        names = [f"prediction_{j}" for j in range(values.shape[1])]
        scaling = model.feed.target_scaling
        rows = _numbers(values, 1.0 if scaling is None else 1.0 / np.asarray(scaling.scale))
        _write(arguments.out, ["prediction"] if len(names) == 1 else names, rows)
        return
    scores = model.scores(x)
    gate = model.network.loss_gate
    chosen = gate.decide(scores)
    names = _class_names(model)
    if not hasattr(gate, "probabilities"):
        _write(arguments.out, ["prediction"], ([names[i]] for i in chosen))
        return
    numbers = _numbers(np.asarray(gate.probabilities(scores)))
    table = ([names[i], *row] for i, row in zip(chosen, numbers, strict=True))
    _write(arguments.out, ["prediction", *(f"p_{name}" for name in names)], table)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""

    def command() -> int:
        predict(tyro.cli(Arguments, args=args, prog="python -m xpnet.predict"))
        return 0

    return run(command)
