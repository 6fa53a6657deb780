"""What labels mean: classes with their names, or the targets of a regression.

These rules hold for text (CSV, text arrays) and for numbers (NPZ, NPY), for training and for test
files:

1. A missing label is refused: it is neither a class nor a number.
2. Labels that are all numbers, some of them not whole, are the targets of a regression. All others
   are classes.
3. Where all labels are plain numbers, a class has one name: 1 for 1, 1.0 and 1.000e+00. Otherwise
   the labels are codes or words, and their names are what the file says: 01, 1E2, a. No label
   passes through a float, so no two classes become one.
4. What contradicts itself is refused: words among numbers that are not whole, one number spelled
   in two ways, more classes than a classification is likely to have.
5. One-hot rows stand for the number of their column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from xpnet.data.cells import (
    DECIMAL_COMMA,
    advice,
    canonical,
    is_gap,
    is_missing,
    is_number,
    is_plain,
    shown,
)
from xpnet.data.checks import check_numbers, check_targets, is_one_hot
from xpnet.data.frames import frame_table, is_frame, is_series, series_values
from xpnet.errors import DataError, listed

__all__ = ["array_targets", "class_index", "labels_of", "text_targets"]

Targets = tuple[np.ndarray, tuple[str, ...] | None]

# Fewer rows to a class than this, and more classes than MANY_CLASSES: the task has to be said.
MANY_CLASSES = 20
ROWS_OF_A_NUMBER, ROWS_OF_A_WORD = 10, 2


def labels_of(t: Any, name: str) -> Any:
    """Return text labels as a list of str, and other targets as they are, a series as an array.

    Parameters
    ----------
    t : array, list or series
        Numbers or text.
    name : str
        What t is called in messages.

    Raises
    ------
    DataError
        A label is missing, or is neither text nor a number.
    """
    if is_frame(t):
        table = frame_table(t, name)
        if len(table.columns) > 1:  # the targets of a regression, or one-hot rows
            return table.matrix()
    if is_series(t) or is_frame(t):
        t = series_values(t, name)
    if isinstance(t, list | tuple):
        # A list may hold rows of numbers of different lengths; `host` says what is wrong with it.
        if not any(isinstance(label, str | bytes) for label in t):
            return tuple(t)
        labels = list(t)
    elif isinstance(t, np.ndarray) and t.dtype.kind in "USO" and t.size and t.ndim:
        if t.size != len(t):
            raise DataError(f"{name}: got text of shape {t.shape}, expected one label a sample")
        labels = np.ma.filled(t, None).reshape(len(t)).tolist()
        if not any(isinstance(label, str | bytes) for label in labels):
            return t
    else:
        return t
    for row, label in enumerate(labels):
        if not isinstance(label, str | bytes):
            raise DataError(f"{name}: row {row}: got {shown(repr(label))}, expected text")
    return _texts(labels, name)


def class_index(label: str, index: Mapping[str, int]) -> int | None:
    """A label's class: by what the file says, else by the name of the number; None if unknown."""
    return index.get(label, index.get(canonical(label)))


def text_targets(
    labels: Sequence[str],
    task: str,
    classes: Sequence[str] | None,
    name: str,
    place: Callable[[int], str],
) -> Targets:
    """The targets that a column of text means, by the rules above.

    Parameters
    ----------
    labels : sequence of str
        Without white space around them.
    task : {"auto", "classification", "regression"}
    classes : sequence of str, optional
        The classes of the training file. A label outside is refused.
    name : str
        File and column, for messages.
    place : callable
        From a row to file, line and column, for messages.

    Returns
    -------
    t : array
        Class indices, int32, shape=(N,); or float64, shape=(N, 1).
    classes : tuple of str, or None
        None for a regression.

    Raises
    ------
    DataError
    """
    first: dict[str, int] = {}
    for row, label in enumerate(labels):
        first.setdefault(label, row)
    numbers = [label for label in first if is_number(label)]
    words = [label for label in first if not is_number(label)]
    real = task == "regression" or (task == "auto" and not all(map(_is_whole, numbers)))
    for word in words:
        where = f"{place(first[word])}: got {shown(word)}"
        if is_missing(word) or (numbers and is_gap(word)):
            raise DataError(
                f"{where}, a missing label: fill it in, leave the row out, or rename the class"
            )
        if DECIMAL_COMMA.fullmatch(word):
            raise DataError(f"{where}{advice(word)}")
        if real:
            raise DataError(
                f"{where}, expected a number; if the labels are classes, say --task classification "
                "(in Python, a loss for classes)"
            )
    if real:
        t = np.array([float(label) for label in labels])
        if not (finite := np.isfinite(t)).all():
            row = int(np.argmin(finite))
            raise DataError(f"{place(row)}: got {shown(labels[row])}, expected a finite number")
        return t[:, None], None
    if classes is None:
        classes = _classes_of(numbers, words, name)
        rows = ROWS_OF_A_NUMBER if numbers else ROWS_OF_A_WORD
        _check_class_count(len(classes), len(labels), rows, task, name)
    index = {label: i for i, label in enumerate(classes)}
    found = {label: class_index(label, index) for label in first}
    for label, i in found.items():
        if i is None:
            raise DataError(
                f"{place(first[label])}: got {shown(label)}, expected one of {listed(classes)}"
            )
    return np.array([found[label] for label in labels], np.int32), tuple(classes)


def _is_whole(number: str) -> bool:
    value = Decimal(number)
    return value == value.to_integral_value()


def _classes_of(numbers: list[str], words: list[str], name: str) -> tuple[str, ...]:
    """The names of the classes in a column: numbers in their order, words in theirs."""
    if not words and all(map(is_plain, numbers)):
        return tuple(sorted(set(map(canonical, numbers)), key=Decimal))
    spelled: dict[Decimal, str] = {}
    for number in numbers:
        if (other := spelled.setdefault(Decimal(number), number)) != number:
            raise DataError(
                f"{name}: got {shown(other)} and {shown(number)}, one number in two spellings; "
                "write it in one way, or put a letter before codes"
            )
    return tuple(sorted(words + numbers) if words else sorted(numbers, key=Decimal))


def array_targets(
    t: np.ndarray, n: int, task: str, classes: Sequence[str] | None, name: str
) -> Targets:
    """The targets that an array means, by the rules above.

    Parameters
    ----------
    t : array, shape=(N,), (N, 1) or (N, M)
        Numbers or text; with M columns, one-hot rows, probabilities or targets of a regression.
    n : int
        How many samples there are.
    task, classes, name
        As for `text_targets`.

    Returns
    -------
    t : array
        Class indices, int32, shape=(N,); or float64, shape=(N, M).
    classes : tuple of str, or None

    Raises
    ------
    DataError
    """
    if t.dtype.kind in "US" and t.ndim and t.size:
        _check_shape(t, n, name)
        if t.size != n:
            raise DataError(f"{name}: got text of shape {t.shape}, expected one label a sample")
        return text_targets(
            _texts(t.reshape(n).tolist(), name),
            task,
            classes,
            name,
            lambda row: f"{name}: row {row}",
        )
    check_numbers(t, name)
    _check_shape(t, n, name)
    named = None
    if t.ndim == 2 and t.shape[1] > 1:
        if task == "auto":
            task = _task_of_rows(t, name)
        if task == "regression":
            return t.astype(np.float64), None
        named = tuple(map(str, range(t.shape[1])))
        if classes is not None and len(classes) != len(named):
            raise DataError(f"{name}: got rows of {len(named)}, expected {len(classes)} classes")
        check_targets(t, n, len(named), "probabilities", name)
        t = np.argmax(t, axis=1)
    t = t.reshape(n)
    if task == "regression" or (task == "auto" and not _all_whole(t)):
        return t[:, None].astype(np.float64), None
    values, first, inverse = np.unique(t, return_index=True, return_inverse=True)
    names = [_name(value) for value in values]
    if classes is None:
        classes = named or tuple(names)
        if named is None:
            _check_class_count(len(classes), n, ROWS_OF_A_NUMBER, task, name)
    index = {label: i for i, label in enumerate(classes)}
    for value, row in zip(names, first, strict=True):
        if value not in index:
            raise DataError(f"{name}: row {row}: got {value}, expected one of {listed(classes)}")
    return np.array([index[value] for value in names], np.int32)[inverse], tuple(classes)


def _check_shape(t: np.ndarray, n: int, name: str) -> None:
    if len(t) != n:
        raise DataError(f"{name}: got {len(t)} targets for {n} samples, expected one each")
    if t.ndim > 2:
        raise DataError(f"{name}: got shape {t.shape}, expected one target or one row a sample")


def _texts(labels: Sequence[str | bytes], name: str) -> list[str]:
    try:
        return [
            (label if isinstance(label, bytes) else label.encode()).decode().strip()
            for label in labels
        ]
    except UnicodeError as error:  # no output takes half of a surrogate pair
        raise DataError(f"{name}: is not text in UTF-8: {error}") from error


def _all_whole(t: np.ndarray) -> bool:
    return t.dtype.kind != "f" or bool((t == np.floor(t)).all())


def _task_of_rows(t: np.ndarray, name: str) -> str:
    """Rows that are all one-hot are classes; rows of other whole numbers could be either."""
    if not _all_whole(t):
        return "regression"
    if is_one_hot(t):
        return "classification"
    raise DataError(
        f"{name}: got rows of {t.shape[1]} whole numbers that are not one-hot; if they are the "
        'targets of a regression, say --task regression (in Python, loss="squared")'
    )


def _name(value: Any) -> str:
    """A class's name as a text file would have it: 1 for 1.0 and True."""
    if not isinstance(value, np.floating):
        return str(int(value))
    return np.format_float_positional(value + 0.0, trim="-")  # + 0.0: no class is called -0


def _check_class_count(distinct: int, n: int, rows: int, task: str, name: str) -> None:
    """Numbers that were meant as targets of a regression make many classes of few samples."""
    if distinct < 2:
        raise DataError(f"{name}: got {distinct} class, expected at least two")
    if task == "auto" and distinct > max(MANY_CLASSES, n // rows):
        raise DataError(
            f"{name}: got {distinct} distinct labels in {n} rows; are they classes or numbers? Say "
            '--task classification, or --task regression (in Python, loss="softmax" or '
            'loss="squared")'
        )
