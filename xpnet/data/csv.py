"""CSV files: numbers, and maybe a column of labels."""

from __future__ import annotations

import array
import csv
import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xpnet.data.readers import existing
from xpnet.errors import DataError

__all__ = ["CsvTable", "read_csv"]


MISSING = ("", "?", "-", "na", "n/a", "nan", "null", "none")


class CsvTable(NamedTuple):
    """A CSV file's content.

    Attributes
    ----------
    x : array, float64, shape=(N, D)
    labels : list of str, or None
        The label column's text.
    columns : tuple of str
        Names of the features; () without a header line.
    label_column : str
        The label column's name, or its number without a header line.
    """

    x: np.ndarray
    labels: list[str] | None
    columns: tuple[str, ...]
    label_column: str


def read_csv(
    path: str | os.PathLike[str], label_column: str | None = "-1", features: int | None = None
) -> CsvTable:
    """A CSV file of numbers with, maybe, a label column. A header line is recognised.

    Parameters
    ----------
    path : path
        UTF-8, separated by comma, semicolon or tab.
    label_column : str, optional
        A column's name or its number (negative: from the right). None: all are features.
    features : int, optional
        How many features there must be; a file with just as many columns has no labels.

    Raises
    ------
    DataError
        Names line and column of what is not a finite number, or of a line too short.
    """
    path = existing(Path(path))
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline(1 << 20)
            file.seek(0)
            delimiter = max(",;\t", key=first.count)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            return _table(reader, path, label_column, features)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is not CSV in UTF-8: {error}") from error


def _table(reader: Any, path: Path, label_column: str | None, features: int | None) -> CsvTable:
    header: list[str] | None = None
    width = label = -1
    values, labels, rows = array.array("d"), [], 0
    for cells in reader:
        if not cells:
            continue  # a blank line, often the last one
        if width < 0:
            width = len(cells)
            if not cells[0].strip() and not any(_is_value(cell) for cell in cells[1:]):
                raise DataError(
                    f"{path}: line 1: the first column has no name; if it is an index that was "
                    "saved along, leave it out (pandas: to_csv(index=False))"
                )
            if not any(_is_value(cell) for cell in cells):
                header = [cell.strip() for cell in cells]
                if twice := {name for name in header if header.count(name) > 1}:
                    raise DataError(f"{path}: has two columns named {', '.join(sorted(twice))}")
            if features is not None and width not in (features, features + 1):
                raise DataError(f"{path}: got {width} columns, expected {features} features")
            if width != features:
                label = _column(label_column, header, width, path)
            if header is not None:
                continue
        if len(cells) != width:
            raise DataError(
                f"{path}: line {reader.line_num}: got {len(cells)} columns, expected {width}"
            )
        if label >= 0:
            labels.append(cells.pop(label).strip())
            if not labels[-1]:
                raise DataError(f"{path}: line {reader.line_num}: got an empty label")
        try:
            values.extend(map(float, cells))
            if not all(map(math.isfinite, values[-len(cells) :] if cells else ())):
                raise ValueError
        except ValueError:
            bad = next(i for i, cell in enumerate(cells) if not _is_number(cell))
            i = bad + (0 <= label <= bad)
            name = header[i] if header else str(i)
            raise DataError(
                f"{path}: line {reader.line_num}, column {name}: got {cells[bad]!r}, "
                f"expected a finite number{_advice(cells[bad])}"
            ) from None
        rows += 1
    if rows == 0:
        raise DataError(f"{path}: got no rows, expected at least one")
    if width == (label >= 0):
        raise DataError(f"{path}: got one column, expected features beside the label")
    x = np.frombuffer(values, np.float64).reshape(rows, -1)
    label_name = "" if label < 0 else header.pop(label) if header else str(label)
    return CsvTable(x, labels if label >= 0 else None, tuple(header or ()), label_name)


def _column(wanted: str | None, header: list[str] | None, width: int, path: Path) -> int:
    """The label column's number, counted from 0; -1 if there is none."""
    if wanted is None:
        return -1
    if header and wanted in header:
        return header.index(wanted)
    if re.fullmatch("-?[0-9]+", wanted) and -width <= int(wanted) < width:
        return int(wanted) % width
    have = ", ".join(header) if header else f"numbers 0 to {width - 1} and no header line"
    raise DataError(f"{path}: has no column {wanted!r}; it has {have}")


def _advice(cell: str) -> str:
    """What may be meant by a cell that is no finite number."""
    if cell.strip().lower() in MISSING:
        return " (a missing value: fill it in, or leave the row out)"
    if re.fullmatch(r"\s*-?\d+,\d+\s*", cell):
        return " (a decimal comma: write a point)"
    return " (text: turn it into numbers, or leave the column out)" if cell.isalpha() else ""


def _is_value(cell: str) -> bool:
    """Whether a cell of the first line shows that it is no header: a number, or a missing one."""
    if cell.strip().lower() in MISSING:
        return True
    try:
        float(cell)  # nan and inf too: to be refused as data, not to be swallowed as names
    except ValueError:
        return False
    return True


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
