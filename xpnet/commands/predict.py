"""``python -m xpnet.predict RUN_OR_CHECKPOINT FILE`` prints what a network predicts, as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro

from xpnet.backend.select import select
from xpnet.commands.config.types import IdColumn, Library
from xpnet.commands.exits import complain, emit, run
from xpnet.commands.usage import read
from xpnet.data.cells import is_gap, is_number, shown
from xpnet.data.checks import in_one_unit
from xpnet.data.labels import class_index
from xpnet.data.readers import idx_shape, npz_headers, read_idx, read_npy, read_npz
from xpnet.data.roles import Layout
from xpnet.data.shards import Shards, files_of
from xpnet.data.table import Table, TableFile
from xpnet.data.table_files import is_table_file, read_table
from xpnet.errors import DataError, UsageError, listed
from xpnet.files import write_whole
from xpnet.models import checkpoint, schema
from xpnet.models.model import Model

__all__ = ["Samples", "class_names", "main", "samples"]


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
    """.csv, .tsv (.gz too) or .parquet, - for CSV on the standard input; .npz (its array x), .npy
    (or a pattern, 'part-*.npy'), or IDX images (.gz too)."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("-")
    """Where to write; - is the standard output."""
    id: IdColumn = None
    """Column of the table to print beside each prediction; by default the one of the training."""
    header: Literal["auto", "yes", "no"] = "auto"
    """Whether the first line of a .csv or .tsv file has the names of the columns."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto: cuda where it is usable."""
    backend: Library = "auto"
    """Array library; auto is numpy on the CPU and cupy on CUDA."""


class Samples(NamedTuple):
    """Samples of a file, and what names its rows."""

    x: Any
    ids: list[str] | None = None
    id_column: str = ""


def samples(
    file: Path, model: Model, extra: Mapping[str, Any], id_column: str | None, header: str
) -> Samples:
    """Read the samples in a file. A table may have the label column, or leave it out.

    Raises
    ------
    DataError, UsageError
    """
    suffix = file.suffix.lower()
    if (files := files_of(file)) is None and is_table_file(file):
        return _of_table(file, model, extra, id_column, header)
    if id_column is not None or header != "auto":
        option = "--header" if id_column is None else "--id"
        raise UsageError(f"{option} goes with a .csv, .tsv or .parquet file, not {file.name}")
    if files is not None:
        return Samples(Shards(files))
    if suffix == ".npz":
        headers = npz_headers(file)
        for name in ("x", "X", "x_test"):
            if name in headers:
                model.check_shape(headers[name].shape, f"{file}: {name}")
                return Samples(read_npz(file, [name])[name])
        raise DataError(f"{file}: has {listed(headers)}; expected an array named x")
    if suffix == ".npy":
        return Samples(read_npy(file))
    if suffix == ".gz" or "idx" in file.name:
        model.check_shape(idx_shape(file), str(file))
        return Samples(read_idx(file))
    raise UsageError(f"{file}: expected a .csv, .tsv, .csv.gz, .parquet, .npz, .npy or IDX file")


def _of_table(
    file: Path, model: Model, extra: Mapping[str, Any], id_column: str | None, header: str
) -> Samples:
    """Read a table with the features of the training, by name; without names, by place.

    Without names, what is taken for the labels must look like labels, and a line on stderr says
    which column that is.
    """
    encoder = model.encoder
    known = model.columns if encoder is None else encoder.columns
    named = bool(known) and (encoder is None or encoder.named)
    width = len(known) or math.prod(model.network.input_shape or ())
    found = read_table(
        file,
        label_column="" if named else extra.get("label_column") or None,
        header=header,
        id_column=id_column or (extra.get("id_column") if named else None) or None,
        id_required=id_column is not None,
        features=known if named else (),
        width=None if named else width,
        layout=None if named else layout_in(extra),
    )
    for note in found.notes:
        complain(note)
    if found.labels is not None:
        _check_labels(found, model, file, width)
    return Samples(found.table, found.ids, found.id_column)


def layout_in(extra: Mapping[str, Any]) -> Layout | None:
    """Return where the columns of the training file stand, from the meta data of a model."""
    match extra.get("layout"):
        case [int(columns), [*features], int(label), int(ident)] if features and all(
            type(i) is int and 0 <= i < columns for i in features
        ) and -1 <= label < columns and -1 <= ident < columns:  # fmt: skip
            return Layout(columns, tuple(features), label, ident)
    return None


def _check_labels(read: TableFile, model: Model, file: Path, width: int) -> None:
    """Refuse labels that look like none: a column too many shifts all others."""
    labels = read.labels or []
    if model.classifies:
        index = {name: i for i, name in enumerate(class_names(model))}
        expected = f"one of {listed(index)}"
        fits = [is_gap(label) or class_index(label, index) is not None for label in labels]
    else:
        expected = "numbers"
        fits = [is_gap(label) or is_number(label) for label in labels]
    column = f"column {listed([read.label_column])}"
    if not all(fits):
        row = fits.index(False)
        raise DataError(
            f"{read.table.place(row)}, {column}: got {shown(labels[row])} as the "
            f"label, expected {expected}; the file has one column more than the {width} "
            "features: leave out what is neither a feature nor the label"
        )
    complain(f"{file}: left out {column} as the label")


def class_names(model: Model) -> list[str]:
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
    x, ids, id_column = samples(
        arguments.file, model, meta["extra"], arguments.id, arguments.header
    )
    if isinstance(x, Table):
        x = model.features(x)
    elif model.sample_dtype is not None:
        x = in_one_unit(x, model.sample_dtype, str(arguments.file))
    header, rows = _answers(model, x)
    if ids is not None:
        header = [id_column, *header]
        rows = ([name, *row] for name, row in zip(ids, rows, strict=True))
    _write(arguments.out, header, rows)


def _answers(model: Model, x: Any) -> tuple[list[str], Iterable[Sequence[str]]]:
    """Return the names of the columns, and a row of text for each sample."""
    if not model.classifies:
        values = model.predict(x)
        header = [f"prediction_{j}" for j in range(values.shape[1])]
        scaling = model.feed.target_scaling
        rows = _numbers(values, 1.0 if scaling is None else 1.0 / np.asarray(scaling.scale))
        return ["prediction"] if len(header) == 1 else header, rows
    scores = model.scores(x)
    names = class_names(model)
    chosen = [names[i] for i in model.decide(scores)]
    probabilities = model.probabilities(scores)
    if probabilities is None:
        return ["prediction"], ([name] for name in chosen)
    numbers = zip(chosen, _numbers(probabilities), strict=True)
    return ["prediction", *(f"p_{name}" for name in names)], ([c, *row] for c, row in numbers)


EXAMPLES = (
    "runs/iris new.csv",
    "runs/titanic new.csv --id PassengerId --out predictions.csv",
    "runs/titanic - < new.csv",
)


def main(args: Sequence[str] | None = None, prog: str = "python -m xpnet.predict") -> int:
    """Run the command; returns the exit status."""

    def command() -> int:
        predict(read(Arguments, args, prog, examples=EXAMPLES))
        return 0

    return run(command)
