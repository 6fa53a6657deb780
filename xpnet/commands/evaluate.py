"""``xpnet evaluate RUN_OR_MODEL FILE`` measures a trained network on labelled data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from xpnet import datasets
from xpnet.backend.select import select
from xpnet.commands.config.types import Column, File, Float, Library
from xpnet.commands.exits import complain, emit, run, say
from xpnet.commands.predict import class_names, layout_in
from xpnet.commands.report import report
from xpnet.commands.usage import read
from xpnet.data.checks import in_one_unit
from xpnet.data.dataset import Dataset
from xpnet.data.shards import files_of
from xpnet.data.table import Table
from xpnet.data.table_files import is_table_file
from xpnet.errors import UsageError
from xpnet.files import make_folder, sync
from xpnet.models import checkpoint, schema
from xpnet.models.evaluation import class_indices
from xpnet.models.model import Model
from xpnet.show import plots
from xpnet.trainer.history import finite_or_none

__all__ = ["main"]


@dataclass(frozen=True)
class Arguments:
    """Measure a trained network on labelled data: every metric, and a table of the classes.

    Values of a regression are in the units of its targets.
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """Folder of a run, or a model.npz or checkpoint."""
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """A .csv, .tsv (.gz too) or .parquet table with the label column, - for CSV on the standard
    input; .npz with x and t or x_test and y_test; or .npy (or a pattern, 'part-*.npy') with
    --labels."""
    labels: File = None
    """.npy file, or a pattern, with the targets for a .npy file."""
    label_column: Column = None
    """Label column of a table; by default the one of the training."""
    header: Literal["auto", "yes", "no"] = "auto"
    """Whether the first line of a .csv or .tsv file has the names of the columns."""
    threshold: Float = None
    """For two classes: predict the second where its probability is at least this."""
    json: bool = False
    """Print the metrics as JSON."""
    plot: File = None
    """Folder for pictures: confusion, ROC, precision and recall, calibration; or residuals."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto: cuda where it is usable."""
    backend: Library = "auto"
    """Array library; auto is numpy on the CPU and cupy on CUDA."""


def evaluate(arguments: Arguments) -> None:
    if arguments.plot is not None:
        plots.require()
    path = checkpoint.model_file(arguments.model)
    arrays, meta = schema.load(path)
    library = None if arguments.backend == "auto" else arguments.backend
    backend = select(arguments.device, library, meta["dtype"], quiet=True)
    model = Model.unpacked(arrays, meta, path=path, backend=backend)
    if arguments.threshold is not None:
        model.threshold = arguments.threshold
    data = _labelled(arguments, model, meta["extra"])
    x = model.features(data.x)
    if not isinstance(data.x, Table) and model.sample_dtype is not None:
        x = in_one_unit(x, model.sample_dtype, str(arguments.file))
    measured = model.evaluate(x, data.t)
    if arguments.json:
        found = {name: None if v is None else finite_or_none(v) for name, v in measured.items()}
        emit(json.dumps({**found, "samples": len(data)}, indent=2) + "\n")
    else:
        say(
            f"data      {arguments.file}: {len(data):,} samples",
            *report(model, x, data.t, measured, "metrics"),
        )
    if arguments.plot is not None:
        _draw(model, x, data, arguments.plot, arguments.json)


def _labelled(arguments: Arguments, model: Model, extra: dict[str, Any]) -> Dataset:
    """Read samples with their labels, as the model knows them."""
    file = arguments.file
    several = files_of(file) is not None
    table = not several and is_table_file(file)
    if arguments.label_column is not None and not table:
        raise UsageError(f"--label-column goes with a .csv, .tsv or .parquet file, not {file.name}")
    rules: dict[str, Any] = {
        "labels": arguments.labels,
        "task": "classification" if model.classifies else "regression",
        "classes": model.classes if model.classifies else None,
    }
    if table:
        encoder = model.encoder
        named = bool(model.columns) if encoder is None else encoder.named
        columns = model.columns if encoder is None else encoder.columns
        data = datasets.load_file(
            file,
            label_column=arguments.label_column or extra.get("label_column") or None,
            header=arguments.header,
            layout=None if named else layout_in(extra),
            features=columns if named else (),
            as_table=True,
            **rules,
        )
        for note in data.notes:
            complain(note)
        return data
    part = "test" if not several and datasets.has_test_part(file) else "train"
    return datasets.load_file(file, part=part, **rules)


def _draw(model: Model, x: Any, data: Dataset, folder: Path, quiet: bool) -> None:
    scores = model.scores(x)
    made = make_folder(folder)
    try:
        if model.evaluation.classifies(data.t):
            drawn = plots.draw_scores(
                folder,
                class_indices(data.t),
                model.decide(scores),
                model.probabilities(scores),
                class_names(model),
            )
        else:
            t = data.t.reshape(len(data), -1)
            drawn = plots.draw_scores(folder, t, model.values(scores))
    except BaseException:
        for new in reversed(made):
            if not any(new.iterdir()):
                new.rmdir()
        raise
    for path in drawn:
        sync(path)
        if not quiet:
            say(f"drew      {path}")


EXAMPLES = (
    "runs/iris labelled.csv",
    "runs/fraud march.csv --threshold 0.3 --plot pictures",
    "model.npz x.npy --labels t.npy --json",
)


def main(args: Sequence[str] | None = None, prog: str = "python -m xpnet.evaluate") -> int:
    """Run the command; returns the exit status."""

    def command() -> int:
        evaluate(read(Arguments, args, prog, examples=EXAMPLES))
        return 0

    return run(command)
