"""The parts of a data set for training, validation and test, by the settings of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xpnet import datasets
from xpnet.commands.config.settings import Config
from xpnet.data.checks import check_nonnegative, in_one_unit
from xpnet.data.dataset import Dataset, select_rows
from xpnet.data.encoder import Encoder
from xpnet.data.images import layout
from xpnet.data.preparation import default_scaling, split, standardize
from xpnet.data.table import Table
from xpnet.data.unfit import refuse_words_among_numbers
from xpnet.data.user_files import has_test_part
from xpnet.errors import DataError, UsageError, listed
from xpnet.losses import LOSSES
from xpnet.models.model import Model
from xpnet.parallel.group import ALONE, Group

__all__ = ["Parts", "data_lines", "load_parts"]


class Parts(NamedTuple):
    """The three parts of a data set; val is None without --val-fraction.

    `encoder` made the features of all three, if the data are a table; `columns` has a row for each
    of its columns, see `Encoder.describe`, and `notes` say what you should know of them.
    """

    train: Dataset
    val: Dataset | None
    test: Dataset
    encoder: Encoder | None = None
    columns: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()


def load_parts(config: Config, model: Model | None = None, group: Group = ALONE) -> Parts:
    """Load the data, split it (by class, from the seed), and find the training part's scaling.

    The data for a trained model are encoded, scaled and named as it knows them. The ranks of a
    group share the reading of what stays in files; all of them call this.
    """
    if config.data is not None:
        train, test = _from_files(config, config.data, model, group)
    else:
        train, test = datasets.load(config.dataset, config.data_dir)
    if model is not None and (train.classes is not None) != model.classifies:
        kind = "classes" if model.classifies else "a regression's targets"
        raise DataError(f"{config.data or config.dataset}: the model expects {kind}")
    classes = train.classes is not None
    nonnegative = config.loss != "auto" and getattr(LOSSES[config.loss], "nonnegative", False)
    if nonnegative and not classes:
        for data, file in (
            (train, config.labels or config.data), (test, config.test_labels or config.test_data),
        ):  # fmt: skip
            if data is not None:
                check_nonnegative(data.t, str(file))
    if isinstance(train.x, Table) and model is None:
        refuse_words_among_numbers(train.x)  # now, since a part may have none of them
    if test is None:
        rest, rows = split(train.t, config.test_fraction, (config.seed, 1), stratify=classes)
        train, test = _part(train, rest), _part(train, rows)
    val = None
    if config.val_fraction:
        rest, rows = split(train.t, config.val_fraction, (config.seed, 2), stratify=classes)
        train, val = _part(train, rest), _part(train, rows)
    parts = _encoded(Parts(train, val, test), config, model)
    if config.data is None or not config.standardize or model is not None:
        return parts
    train, scaling, target_scaling = parts.train, parts.train.scaling, None
    if parts.encoder is None:
        scaling = default_scaling(train.x, str(config.data), group=group) or scaling
    if not (classes or nonnegative):  # a mean of 0 would make negative targets
        target_scaling = standardize(train.t, "targets")
    return parts._replace(train=replace(train, scaling=scaling, target_scaling=target_scaling))


def _part(data: Dataset, rows: np.ndarray) -> Dataset:
    return replace(data, x=select_rows(data.x, rows), t=data.t[rows])


def _from_files(
    config: Config, file: Path, model: Model | None, group: Group
) -> tuple[Dataset, Dataset | None]:
    """Read the training file, and the test file or the test part of an NPZ file."""
    train = datasets.load_file(
        file,
        as_table=True,
        labels=config.labels,
        label_column=config.label_column,
        task=config.task if model is None or model.classifies else "regression",
        classes=None if model is None else model.classes,
        header=config.header,
        columns=config.columns,
        drop=config.drop,
        id_column=config.id,
        features=() if model is None or model.encoder is None else model.encoder.columns,
        group=group,
    )
    rules: dict[str, Any] = {
        "task": "regression" if train.classes is None else "classification",
        "classes": train.classes,
        "group": group,
    }
    if config.test_data is None:
        if config.labels is None and has_test_part(file):
            test = datasets.load_file(file, part="test", **rules)
            _check_shapes(test, train, str(file), config)
            return train, test
        return train, None
    if isinstance(train.x, Table):  # the same columns, wherever they stand
        rules |= {
            "label_column": config.label_column or train.label_column or None,
            "header": config.header,
            "features": train.x.names,
        }
    test = datasets.load_file(config.test_data, as_table=True, labels=config.test_labels, **rules)
    _check_shapes(test, train, str(config.test_data), config)
    if not isinstance(train.x, Table):
        same = in_one_unit(test.x, str(train.x.dtype), str(config.test_data))
        test = replace(test, x=same)
    return train, test


def _check_shapes(test: Dataset, train: Dataset, file: str, config: Config) -> None:
    if test.t.shape[1:] != train.t.shape[1:]:
        raise DataError(
            f"{config.test_labels or file}: got {test.t.shape[1]} targets a sample, expected "
            f"{train.t.shape[1]}"
        )
    if isinstance(test.x, Table) != isinstance(train.x, Table):
        raise UsageError(f"{file}: expected a file of the kind of {config.data}")
    if not isinstance(test.x, Table) and test.x.shape[1:] != train.x.shape[1:]:
        raise DataError(
            f"{file}: got samples of shape {test.x.shape[1:]}; expected those of {config.data}, "
            f"{train.x.shape[1:]}"
        )


def _encoded(parts: Parts, config: Config, model: Model | None) -> Parts:
    """Make features of tables, as the training part's columns are, or as the model knows them."""
    train = parts.train
    if not isinstance(train.x, Table):
        return parts
    if model is None:
        encoder = Encoder.of(train.x, standardize=config.standardize)
    elif model.encoder is None:
        raise DataError(
            f"{config.data}: is a table, but the model was trained on arrays; give it .npz or .npy"
        )
    else:
        encoder = model.encoder
    columns = tuple(encoder.describe(train.x))

    def encoded(data: Dataset) -> Dataset:
        x = encoder.encode(data.x)
        return replace(data, x=x, columns=encoder.names, scaling=encoder.scaling)

    val = None if parts.val is None else encoded(parts.val)
    return Parts(encoded(train), val, encoded(parts.test), encoder, columns, encoder.notes)


# -- In words ------------------------------------------------------------------------------


def data_lines(config: Config, parts: Parts) -> list[str]:
    """Return lines about the data of a run: samples, labels, columns."""
    train = parts.train
    sizes = " + ".join(f"{len(part):,}" for part in parts[:3] if part is not None)
    names = "train + val + test" if parts.val is not None else "train + test"
    kinds = f"{len(train.classes)} classes" if train.classes is not None else "regression"
    source = config.dataset if config.data is None else str(config.data)
    return [
        f"data      {source}: {sizes} samples ({names}), {kinds}",
        *(f"          {note}" for note in (*train.notes, *parts.notes)),
        *(_labels(parts) if config.data is not None else ()),
        *_features(parts),
    ]


def _features(parts: Parts) -> list[str]:
    """Say what becomes of a table's columns, or how images are taken."""
    if parts.encoder is None:
        images = layout(parts.train.x.shape)
        return [f"samples   {images}"] if images else []
    encoder = parts.encoder
    features = "1 feature" if encoder.width == 1 else f"{encoder.width:,} features"
    return [f"columns   {listed(encoder.columns, 10)}: {features}"]


def _labels(parts: Parts) -> list[str]:
    """Say which labels xpnet found in your own file, so that you can check them."""
    data = parts.train
    names = listed(data.classes or (), 10)
    if not data.label_column:
        return [f"labels    {names}"] if names else []
    header = "header line" if parts.encoder and parts.encoder.named else "no header line"
    column = listed([data.label_column])
    return [f"labels    column {column}{names and f': {names}'} ({header})"]
