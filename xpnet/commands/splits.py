"""The parts of a data set for training, validation and test, by the settings of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from xpnet import datasets
from xpnet.commands.config import Config
from xpnet.data.checks import check_nonnegative, warn_of_dtype
from xpnet.data.dataset import Dataset, select_rows
from xpnet.data.preparation import split, standardize
from xpnet.errors import DataError, listed
from xpnet.losses import LOSSES

__all__ = ["Parts", "load_parts"]


class Parts(NamedTuple):
    """The three parts of a data set; val is None without --val-fraction."""

    train: Dataset
    val: Dataset | None
    test: Dataset


def _part(data: Dataset, rows: np.ndarray) -> Dataset:
    return replace(data, x=select_rows(data.x, rows), t=data.t[rows])


def load_parts(config: Config) -> Parts:
    """Load the data, split it (by class, from the seed), and find the training part's scaling."""
    if config.data is not None:
        train = datasets.load_file(
            config.data, labels=config.labels, label_column=config.label_column, task=config.task
        )
        test = None
        if config.test_data is not None:
            label_column = config.label_column
            if config.test_data.suffix.lower() == ".csv":  # the same one, wherever it stands
                label_column = label_column or train.label_column or None
            test = datasets.load_file(
                config.test_data,
                labels=config.test_labels,
                label_column=label_column,
                task="regression" if train.classes is None else "classification",
                classes=train.classes,
            )
            if test.t.shape[1:] != train.t.shape[1:]:
                raise DataError(
                    f"{config.test_labels or config.test_data}: got {test.t.shape[1]} targets a "
                    f"sample, expected {train.t.shape[1]}"
                )
            if test.x.shape[1:] != train.x.shape[1:] or test.columns != train.columns:
                raise DataError(
                    f"{config.test_data}: got samples of shape {test.x.shape[1:]}, columns "
                    f"{listed(test.columns) or 'without names'}; expected those of {config.data}"
                )
            warn_of_dtype(test.x, str(train.x.dtype), str(config.test_data))
    else:
        train, test = datasets.load(config.dataset, config.data_dir)
    classes = train.classes is not None
    nonnegative = config.loss != "auto" and getattr(LOSSES[config.loss], "nonnegative", False)
    if nonnegative and not classes:
        for data, file in (
            (train, config.labels or config.data), (test, config.test_labels or config.test_data),
        ):  # fmt: skip
            if data is not None:
                check_nonnegative(data.t, str(file))
    if test is None:
        rest, rows = split(train.t, config.test_fraction, (config.seed, 1), stratify=classes)
        train, test = _part(train, rest), _part(train, rows)
    val = None
    if config.val_fraction:
        rest, rows = split(train.t, config.val_fraction, (config.seed, 2), stratify=classes)
        train, val = _part(train, rest), _part(train, rows)
    if config.data is not None and config.standardize:
        scaling = train.scaling
        if train.x.dtype != np.uint8:
            scaling = standardize(train.x, str(config.data))
        target_scaling = None
        if not (classes or nonnegative):  # a mean of 0 would make negative targets
            target_scaling = standardize(train.t, "targets")
        train = replace(train, scaling=scaling, target_scaling=target_scaling)
    return Parts(train, val, test)
