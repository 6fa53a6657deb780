"""Data sets from your own files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from xpnet.data.checks import check_features, check_headers
from xpnet.data.csv import read_csv
from xpnet.data.dataset import Dataset, Scaling
from xpnet.data.labels import array_targets, text_targets
from xpnet.data.readers import Header, npz_headers, read_npy, read_npz
from xpnet.errors import DataError, UsageError, listed, shown

__all__ = ["load_file"]

TASKS = ("auto", "classification", "regression")


def load_file(
    path: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    label_column: str | None = None,
    task: str = "auto",
    classes: tuple[str, ...] | None = None,
    resident_bytes: int | None = None,
) -> Dataset:
    """Read a data set from your own file.

    Parameters
    ----------
    path : path
        ``.npz`` with arrays ``x`` and ``t`` (or ``X`` and ``y``); ``.npy`` with the samples,
        beside `labels`; ``.csv`` with a label column.
    labels : path, optional
        ``.npy`` with one label per sample, one-hot rows, or a row of targets per sample.
    label_column : str, optional
        Name or number of a CSV file's label column; by default the last one.
    task : {"auto", "classification", "regression"}
        "auto": whole numbers, one-hot rows and text are classes, other numbers are the targets of
        a regression, in every kind of file and in every dtype. See `xpnet.data.labels`.
    classes : tuple of str, optional
        The classes of the training file. Labels are looked up among them, and others are refused.
    resident_bytes : int, optional
        A larger ``.npy`` stays on disk, memory-mapped, and is read batch by batch; by
        default a quarter of the machine's memory.

    Raises
    ------
    DataError, UsageError
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if labels is not None and suffix != ".npy":
        raise UsageError(f"--labels goes with --data X.npy, not with {path.name}")
    if label_column is not None and suffix != ".csv":
        raise UsageError(f"--label-column goes with a .csv file, not with {path.name}")
    if task not in TASKS:
        raise UsageError(f"task is {shown(task)}; expected {', '.join(TASKS)}")
    if classes is not None:
        task = "classification"
    if suffix == ".csv":
        table = read_csv(path, "-1" if label_column is None else label_column)
        column = f"column {listed([table.label_column])}"
        t, classes = text_targets(
            table.labels or [],
            task,
            classes,
            f"{path}: {column}",
            lambda row: f"{path}: line {table.lines[row]}, {column}",
        )
        return Dataset(table.x, t, classes, columns=table.columns, label_column=table.label_column)
    if suffix == ".npz":
        headers = npz_headers(path)
        x_key, t_key = _named(headers, ("x", "X"), path), _named(headers, ("t", "y"), path)
        x_name, t_name = f"{path}: {x_key}", f"{path}: {t_key}"
        check_headers(headers[x_key], headers[t_key], x_name, t_name)
        x, t = read_npz(path, (x_key, t_key)).values()
    elif suffix == ".npy":
        if labels is None:
            raise UsageError(
                f"{path.name} needs a .npy file with its targets: --labels, or --test-labels"
            )
        x, t = read_npy(path, resident_bytes), read_npy(labels)
        x_name, t_name = str(path), str(labels)
    else:
        raise UsageError(f"--data {path}: expected a .npz, .npy or .csv file")
    check_features(x, x_name)
    t, classes = array_targets(t, len(x), task, classes, t_name)
    image = (x.shape[1], x.shape[2]) if x.ndim == 3 else None
    scaling = Scaling(0.0, 1 / 255) if x.dtype == np.uint8 else Scaling()
    return Dataset(x, t, classes, scaling, image)


def _named(headers: Mapping[str, Header], names: tuple[str, ...], path: Path) -> str:
    for name in names:
        if name in headers:
            return name
    have = listed(headers) or "nothing"
    raise DataError(f"{path}: has {have}; expected an array named {' or '.join(names)}")
