"""Data sets from your own files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.data.checks import check_features, check_headers
from xpnet.data.dataset import Dataset, Scaling
from xpnet.data.images import image_shape
from xpnet.data.labels import array_targets, text_targets
from xpnet.data.readers import Header, npz_headers, read_npy, read_npz, resident_limit
from xpnet.data.roles import Layout
from xpnet.data.shards import Shards, files_of
from xpnet.data.table_files import is_table_file, read_table
from xpnet.errors import DataError, UsageError, counted, listed, shown
from xpnet.parallel.group import ALONE, Group

__all__ = ["has_test_part", "load_file"]

TASKS = ("auto", "classification", "regression")
Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


# Names of arrays in an NPZ file, by what xpnet's users and Keras's call them.
SAMPLES, TARGETS = ("x", "X", "x_train"), ("t", "y", "y_train")


def load_file(
    path: Files,
    *,
    labels: Files | None = None,
    label_column: str | None = None,
    task: str = "auto",
    classes: tuple[str, ...] | None = None,
    header: str = "auto",
    columns: Sequence[str] = (),
    drop: Sequence[str] = (),
    id_column: str | None = None,
    features: Sequence[str] = (),
    layout: Layout | None = None,
    resident_bytes: int | None = None,
    part: str = "train",
    as_table: bool = False,
    group: Group = ALONE,
) -> Dataset:
    """Read a data set from your own file.

    Parameters
    ----------
    path : path, or sequence of paths
        ``.csv`` or ``.tsv`` (``.gz`` too) or ``.parquet``: a table with a label column. ``.npz``
        with arrays ``x`` and ``t`` (or ``X`` and ``y``, or ``x_train`` and ``y_train``). ``.npy``
        with the samples, beside `labels`. Several ``.npy`` files, one after the other: a list of
        paths; or a pattern or a folder, whose files are taken in natural order (part-2 before
        part-10): ``"part-*.npy"``, ``"parts/"``. They stay on disk, memory-mapped.
    labels : path, or sequence of paths, optional
        ``.npy`` with one label per sample, one-hot rows, or a row of targets per sample. Beside
        several files of samples: one for each, or one with all labels.
    label_column : str, optional
        Name or number of a table's label column; by default the last one.
    task : {"auto", "classification", "regression"}
        "auto": whole numbers, one-hot rows and text are classes, other numbers are the targets of
        a regression, in every kind of file and in every dtype. See `xpnet.data.labels`.
    classes : tuple of str, optional
        The classes of the training file. Labels are looked up among them, and others are refused.
    header : {"auto", "yes", "no"}
        Whether the first line of a text file has the names of the columns.
    columns, drop : sequence of str
        Names or numbers of the columns of a table to use, or to leave out.
    id_column : str, optional
        A column of a table that names its rows and is no feature.
    features : sequence of str
        Names of features that a table must have; a first line that has them all is a header.
    layout : Layout, optional
        Where the columns of a training file without a header line stand, from its `Dataset`.
    resident_bytes : int, optional
        A larger ``.npy`` stays on disk, memory-mapped, and is read batch by batch; by
        default a quarter of the machine's memory.
    part : {"train", "test"}
        "test" reads ``x_test`` and ``y_test`` of an NPZ file.
    as_table : bool
        Return a table of plain numbers as a `Table` too.
    group : Group
        The ranks that share the reading of what stays on disk; all of them call this.

    Returns
    -------
    Dataset
        `x` of a table of plain numbers is an array; of any other it is a `Table`, of which
        `xpnet.data.Encoder` makes features.

    Raises
    ------
    DataError, UsageError

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "flowers.csv")
    ...     _ = path.write_text("length,width,kind\\n5.1,3.5,a\\n6.2,2.9,b\\n", encoding="utf-8")
    ...     data = load_file(path)
    >>> data.x.tolist(), data.t.tolist(), data.classes
    ([[5.1, 3.5], [6.2, 2.9]], [0, 1], ('a', 'b'))
    """
    files = files_of(path)
    path = _told(path)
    table = files is None and is_table_file(path)
    suffix = path.suffix.lower() if files is None else ".npy"
    if labels is not None and suffix != ".npy":
        raise UsageError(f"--labels goes with --data X.npy, not with {path.name}")
    for given, option in (
        (label_column, "--label-column"), (id_column, "--id"), (tuple(columns), "--columns"),
        (tuple(drop), "--drop"), (header != "auto", "--header"),
    ):  # fmt: skip
        if given and not table:
            raise UsageError(f"{option} goes with a .csv, .tsv or .parquet file, not {path.name}")
    if task not in TASKS:
        raise UsageError(f"task is {shown(task)}; expected {', '.join(TASKS)}")
    if classes is not None:
        task = "classification"
    if table:
        read = read_table(
            path, label_column=label_column, header=header, drop=drop, only=columns,
            id_column=id_column, features=features, layout=layout,
        )  # fmt: skip
        if read.labels is None:
            if label_column and label_column in features:
                raise DataError(
                    f"{path}: column {shown(label_column)} is a feature, which the model was "
                    "trained with; expected the labels in --label-column"
                )
            what = f"column {shown(label_column)}" if label_column else "label column"
            raise DataError(
                f"{read.table.name}: has no {what}; name the labels with --label-column"
            )
        column = f"column {listed([read.label_column])}"
        t, classes = text_targets(
            read.labels,
            task,
            classes,
            f"{path}: {column}",
            lambda row: f"{read.table.place(row)}, {column}",
        )
        x: Any = read.table
        features_named: tuple[str, ...] = ()
        if not as_table and not any(c.numbers is None or c.missing.any() for c in x.columns):
            x, features_named = x.matrix(), x.names if x.named else ()
        return Dataset(
            x, t, classes, columns=features_named, label_column=read.label_column,
            id_column=read.id_column, layout=read.layout, notes=read.notes,
        )  # fmt: skip
    if suffix == ".npz":
        headers = npz_headers(path)
        names = (SAMPLES, TARGETS) if part == "train" else (("x_test",), ("y_test",))
        x_key, t_key = (_named(headers, some, path) for some in names)
        x_name, t_name = f"{path}: {x_key}", f"{path}: {t_key}"
        check_headers(headers[x_key], headers[t_key], x_name, t_name)
        x, t = read_npz(path, (x_key, t_key)).values()
    elif suffix == ".npy":
        if labels is None:
            raise UsageError(
                f"{path.name} needs a .npy file with its targets: --labels, or --test-labels"
            )
        x_name, t_name = str(path), str(_told(labels))
        if files is not None:
            x = Shards(files)
        else:
            if resident_bytes is None and group.size > 1:
                # All ranks read it into memory, or none.
                resident_bytes = min(group.gather(resident_limit() // group.local_size))
            x = read_npy(path, resident_bytes)
        t = _labels(labels, x)
    else:
        raise UsageError(
            f"--data {path}: expected a .csv, .tsv, .csv.gz, .parquet, .npz or .npy file"
        )
    check_features(x, x_name, group)
    t, classes = array_targets(t, len(x), task, classes, t_name)
    scaling = Scaling(0.0, 1 / 255) if x.dtype == np.uint8 else Scaling()
    return Dataset(x, t, classes, scaling, image_shape(x.shape))


def _told(files: Files) -> Path:
    """What to call files in messages: the pattern, the folder, or the first of a list."""
    return Path(files[0]) if isinstance(files, list | tuple) else Path(files)  # type: ignore[arg-type]


def _labels(labels: Files, x: Any) -> np.ndarray:
    """Read labels from one file or several; each of several belongs to a file of x."""
    files = files_of(labels)
    if files is None:
        return read_npy(labels)  # type: ignore[arg-type]
    if not isinstance(x, Shards):
        raise UsageError(
            f"--labels {_told(labels)}: got several files for samples in one; expected one .npy "
            "file, or a pattern for --data too"
        )
    if len(files) not in (1, len(x.paths)):
        raise DataError(
            f"{_told(labels)}: got {counted(len(files), 'file')} of labels for "
            f"{counted(len(x.paths), 'file')} of samples; expected one each, or one with all labels"
        )
    parts = [read_npy(file) for file in files]
    for file, part, path, n in zip(files, parts, x.paths, np.diff(x.starts), strict=False):
        if len(files) > 1 and part.shape[:1] != (n,):
            raise DataError(
                f"{file}: got {counted(len(part) if part.ndim else 1, 'label')} for the "
                f"{counted(int(n), 'sample')} of {path}, expected one each"
            )
        if part.shape[1:] != parts[0].shape[1:] or part.dtype.kind != parts[0].dtype.kind:
            raise DataError(
                f"{file}: got labels of shape {part.shape[1:]}, {part.dtype}; expected "
                f"{parts[0].shape[1:]}, {parts[0].dtype}, as in {files[0]}"
            )
    return np.concatenate(parts)


def has_test_part(path: Path) -> bool:
    """Return whether an NPZ file has x_test and y_test beside x_train and y_train.

    Examples
    --------
    >>> has_test_part(Path("passengers.csv"))
    False
    """
    return path.suffix.lower() == ".npz" and {"x_test", "y_test"} <= npz_headers(path).keys()


def _named(headers: Mapping[str, Header], names: tuple[str, ...], path: Path) -> str:
    for name in names:
        if name in headers:
            return name
    have = listed(headers) or "nothing"
    raise DataError(f"{path}: has {have}; expected an array named {' or '.join(names)}")
