"""Data sets from a user's own files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from xpnet.data.checks import check_features, check_numbers, check_targets
from xpnet.data.csv import CsvTable, read_csv
from xpnet.data.dataset import Dataset, Scaling
from xpnet.data.readers import read_npy, read_npz
from xpnet.errors import DataError, UsageError

__all__ = ["load_file"]


def load_file(
    path: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    label_column: str | None = None,
    task: str = "auto",
    classes: tuple[str, ...] | None = None,
    resident_bytes: int | None = None,
) -> Dataset:
    """A data set from a user's file.

    Parameters
    ----------
    path : path
        ``.npz`` with arrays ``x`` and ``t`` (or ``X`` and ``y``); ``.npy`` with the samples,
        beside `labels`; ``.csv`` with a label column.
    labels : path, optional
        ``.npy`` with one target per sample, or a row of them.
    label_column : str, optional
        Of a CSV file: its name or number; by default the last one.
    task : {"auto", "classification", "regression"}
        "auto": integer and text labels are classes, others are regression targets.
    classes : tuple of str, optional
        The classes of the data set that this one belongs to: labels outside are refused.
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
    if suffix == ".csv":
        table = read_csv(path, "-1" if label_column is None else label_column)
        t, classes = _csv_targets(table, task, path, classes)
        return Dataset(table.x, t, classes, columns=table.columns, label_column=table.label_column)
    if suffix == ".npz":
        arrays = read_npz(path)
        x, x_name = _named(arrays, ("x", "X"), path)
        t, t_name = _named(arrays, ("t", "y"), path)
        x_name, t_name = f"{path}: {x_name}", f"{path}: {t_name}"
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
    t, classes = _array_targets(t, len(x), task, t_name, classes)
    image = (x.shape[1], x.shape[2]) if x.ndim == 3 else None
    scaling = Scaling(0.0, 1 / 255) if x.dtype == np.uint8 else Scaling()
    return Dataset(x, t, classes, scaling, image)


def _named(
    arrays: dict[str, np.ndarray], names: tuple[str, ...], path: Path
) -> tuple[np.ndarray, str]:
    for name in names:
        if name in arrays:
            return arrays[name], name
    have = ", ".join(arrays) or "nothing"
    raise DataError(f"{path}: has {have}; expected an array named {' or '.join(names)}")


def _array_targets(
    t: np.ndarray, n: int, task: str, name: str, classes: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    check_numbers(t, name)
    if len(t) != n:
        raise DataError(f"{name}: got {len(t)} targets for {n} samples, expected one each")
    if t.ndim > 2:
        raise DataError(f"{name}: got shape {t.shape}, expected one target or one row a sample")
    task_given = task != "auto"
    if not task_given:
        task = "regression" if t.dtype.kind == "f" else "classification"
    if task == "regression":
        return _columns(t), None
    if t.ndim == 2 and t.shape[1] > 1:  # one-hot rows
        if classes is not None and t.shape[1] != len(classes):
            raise DataError(f"{name}: got rows of {t.shape[1]}, expected {len(classes)} classes")
        check_targets(t, n, t.shape[1], "probabilities", name)
        return np.argmax(t, axis=1).astype(np.int32), tuple(map(str, range(t.shape[1])))
    t = t.reshape(n)
    if (bad := (t != np.floor(t)) | (t < 0)).any():
        row = int(np.argmax(bad))
        raise DataError(f"{name}: row {row}: got {t[row]}, expected a class index, 0 or more")
    if classes is None:  # those that occur, 1 to 3 as well as 0 to 2
        found = np.unique(t).astype(np.int64)
        _check_class_count(len(found), n, task_given, name)
        classes = tuple(map(str, found))
    numbers = np.array([int(c) for c in classes])
    index = np.minimum(np.searchsorted(numbers, t), len(numbers) - 1)
    if (bad := numbers[index] != t).any():
        row = int(np.argmax(bad))
        raise DataError(f"{name}: row {row}: got {t[row]}, expected one of {', '.join(classes)}")
    return index.astype(np.int32), classes


def _csv_targets(
    table: CsvTable, task: str, path: Path, classes: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    labels = table.labels or []
    name = f"{path}: column {table.label_column}"
    try:
        numbers = np.array([float(label) for label in labels])
    except ValueError:
        if task == "regression":
            raise DataError(f"{name}: got text, expected numbers for a regression") from None
        numbers = None
    if numbers is not None and not np.isfinite(numbers).all():
        numbers = None if task == "classification" else numbers
    task_given = task != "auto"
    if not task_given:
        whole = numbers is not None and (numbers == np.floor(numbers)).all()
        task = "classification" if numbers is None or whole else "regression"
    if task == "regression":
        assert numbers is not None
        check_numbers(numbers, name)
        return _columns(numbers), None
    if numbers is not None:  # 1 and 1.0 are one class, and 10 comes after 9
        labels = [str(int(v)) if v.is_integer() else repr(v) for v in numbers.tolist()]
    if classes is None:
        classes = tuple(sorted(set(labels), key=None if numbers is None else float))
        _check_class_count(len(classes), len(labels), task_given or numbers is None, name)
    index = {label: i for i, label in enumerate(classes)}
    for row, label in enumerate(labels):
        if label not in index:
            known = ", ".join(classes)
            raise DataError(f"{name}: row {row}: got {label!r}, expected one of {known}")
    return np.array([index[label] for label in labels], np.int32), classes


def _columns(t: np.ndarray) -> np.ndarray:
    return t.reshape(len(t), -1).astype(np.float64)


def _check_class_count(distinct: int, n: int, task_given: bool, name: str) -> None:
    """Numbers that were meant as targets of a regression make many classes of few samples."""
    if distinct < 2:
        raise DataError(f"{name}: got {distinct} class, expected at least two")
    if not task_given and distinct > max(20, n // 10):
        raise DataError(
            f"{name}: got {distinct} distinct labels in {n} rows; say --task regression "
            "(or --task classification)"
        )
