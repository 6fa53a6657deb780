"""CSV files: rows of numbers, and maybe a column of labels.

The standard library's csv module splits lines into cells; what a cell means is decided by our own
rules, in `xpnet.data.cells` and `xpnet.data.labels`. pandas, polars and NumPy guess a type for each
column instead: by default they read 01 as 1, NA as a value, 9007199254740993 as a float, and a
header of numbers as a row. A library asked for text alone would save a loop and leave every rule to
us. Numbers take most of the time of reading, and float() is as fast as we need it.
"""

from __future__ import annotations

import array
import csv
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from xpnet.data.cells import DECIMAL_COMMA, advice, canonical, is_gap, is_number, shown
from xpnet.data.readers import available_memory, existing
from xpnet.errors import DataError, listed

__all__ = ["CsvTable", "read_csv"]

SEPARATORS = "\t;,"
# The separator is found on the first lines, up to so many characters.
SAMPLE_CHARACTERS = 1 << 16
SAMPLE_CELLS = 1000  # of a row
# A first line whose label stands alone, beside labels of this many rows, may be a header.
FEW = 5
# A longer line is no line of a table; a file of zeros has no other.
LONGEST_LINE = 1 << 26


class CsvTable(NamedTuple):
    """A CSV file's content.

    Attributes
    ----------
    x : array, float64, shape=(N, D)
    labels : list of str, or None
        The text in the label column, without white space around it; "" where a cell is empty.
    columns : tuple of str
        Names of the features; () without a header line.
    label_column : str
        The label column's name, or its number without a header line.
    lines : sequence of int
        The line of each row in the file, counted from 1.
    """

    x: np.ndarray
    labels: list[str] | None
    columns: tuple[str, ...]
    label_column: str
    lines: Sequence[int]


def read_csv(
    path: str | os.PathLike[str],
    label_column: str | None = "-1",
    features: int | None = None,
    columns: Collection[str] = (),
) -> CsvTable:
    """Read a CSV file of numbers that may have a label column and a header line.

    Parameters
    ----------
    path : path
        UTF-8, separated by comma, semicolon or tab.
    label_column : str, optional
        A column's name or its number (negative: from the right). None: all columns are features.
    features : int, optional
        How many features there must be; a file with just as many columns has no labels.
    columns : collection of str, optional
        Names of features. A first line that has them all is a header.

    Raises
    ------
    DataError
        The message names line and column of what is not a finite number, and the line that is
        too short. It also says so if the first line could be a header or a row.
    """
    path = existing(Path(path))
    if path.stat().st_size > available_memory():
        raise DataError(f"{path}: is larger than the free memory; save it as .npy files")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            separator = _separator(_first_lines(file, path))
            file.seek(0)
            reader = csv.reader(_lines(file, path), delimiter=separator, strict=True)
            return _table(reader, path, label_column, features, columns)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is not CSV in UTF-8: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise DataError(f"{path}: has a line of {LONGEST_LINE:,} characters; expected a table")
        yield line


def _first_lines(file: IO[str], path: Path) -> list[str]:
    lines: list[str] = []
    size = 0
    for line in _lines(file, path):
        lines.append(line)
        size += len(line)
        if size > SAMPLE_CHARACTERS:
            break
    return lines


def _separator(lines: list[str]) -> str:
    """The separator that makes a table of the lines, and of its cells the most numbers.

    Separators within quotes do not count, and a decimal comma makes a number.
    """

    def merit(separator: str) -> tuple[bool, bool, float, int]:
        try:
            rows = [row for row in csv.reader(lines, delimiter=separator) if row]
        except csv.Error:  # a wide table's line is too long for one cell
            return False, False, 0.0, 0
        widths = {len(row) for row in rows}
        cells = [cell.strip() for row in rows for cell in row[:SAMPLE_CELLS]]
        numbers = sum(is_number(cell) or bool(DECIMAL_COMMA.fullmatch(cell)) for cell in cells)
        widest = max(widths, default=1)
        return widest > 1, len(widths) == 1, numbers / max(1, len(cells)), widest

    return max(SEPARATORS, key=merit)


def _table(
    reader: Any,
    path: Path,
    label_column: str | None,
    features: int | None,
    columns: Collection[str],
) -> CsvTable:
    rows = (cells for cells in reader if cells)  # without blank lines, often the last one
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: got no rows, expected at least one")
    names = [_name(cell) for cell in first]
    width = len(names)
    if features is not None and width not in (features, features + 1):
        raise DataError(
            f"{path}: got {width} columns, expected {features} features{_one_column(width)}"
        )
    label = -1 if width == features else _column(label_column, names, path)
    if width == (label >= 0):
        raise DataError(
            f"{path}: got one column, expected features beside the label{_one_column(width)}"
        )

    # All labels must be known to tell a header from a row. Until then the first row is of zeros.
    values = array.array("d", bytes(8 * (width - (label >= 0))))
    lines = array.array("q", [reader.line_num])
    labels = [names[label]] if label >= 0 else []
    known: dict[str, str] = {}  # so that equal labels share one string
    pointed = [i for i, name in enumerate(names) if name.isdigit() and i != label]
    for cells in rows:
        if len(cells) != width:
            raise DataError(
                f"{path}: line {reader.line_num}: got {len(cells)} columns, expected {width}"
            )
        if pointed:
            pointed = [i for i in pointed if "." in cells[i]]
        if label >= 0:
            text = cells.pop(label).strip()
            labels.append(known.setdefault(text, text))
        lines.append(reader.line_num)
        if (row := _numbers(cells)) is None:
            raise _bad_cell(cells, names, label, f"{path}: line {reader.line_num}")
        values.extend(row)

    where = f"{path}: line {lines[0]}"
    named = label_column in names and not _is_position(str(label_column))
    trained = bool(columns) and set(columns) <= set(names)
    if named or trained or _is_header(names, labels, label, pointed, where):
        _check_names(names, label_column, label, where)
        if len(lines) == 1:
            raise DataError(f"{path}: got no rows, expected at least one")
        label_name = names.pop(label) if label >= 0 else ""
        x = np.frombuffer(values, np.float64).reshape(len(lines), -1)[1:]
        return CsvTable(x, labels[1:] if label >= 0 else None, tuple(names), label_name, lines[1:])
    if label >= 0:
        del first[label]
    if (row := _numbers(first)) is None:
        raise _bad_cell(first, (), label, where)
    values[: len(first)] = row
    x = np.frombuffer(values, np.float64).reshape(len(lines), -1)
    return CsvTable(x, labels if label >= 0 else None, (), str(label) if label >= 0 else "", lines)


def _numbers(cells: list[str]) -> array.array[float] | None:
    """The numbers of a row without its label; None if a cell is no finite number."""
    try:
        row = array.array("d", map(float, cells))
    except ValueError:
        return None
    text = "".join(cells)
    # float() takes 1_000 too, and digits of any script.
    plain = ("_" not in text and text.isascii()) or all(is_number(c.strip()) for c in cells)
    return row if plain and all(map(math.isfinite, row)) else None


def _bad_cell(cells: list[str], names: Sequence[str], label: int, where: str) -> DataError:
    """The error that names the first cell that is no finite number."""
    bad = next(i for i, cell in enumerate(cells) if not _is_finite(cell.strip()))
    i = bad + (0 <= label <= bad)
    column = names[i] if names and any(map(str.isalpha, names[i])) else str(i)
    return DataError(
        f"{where}, column {listed([column])}: got {shown(cells[bad])}, expected a finite number"
        f"{advice(cells[bad])}"
    )


def _is_finite(cell: str) -> bool:
    return is_number(cell) and math.isfinite(float(cell))


def _is_header(
    names: list[str], labels: list[str], label: int, pointed: list[int], where: str
) -> bool:
    """Whether the first line has names: a header may have numbers, and a row words.

    Parameters
    ----------
    names, labels : list of str
        The cells of the first line, and the label of each line.
    label : int
        The label's column; -1 if there is none.
    pointed : list of int
        The columns that have a whole number here, and a decimal point in every other line.
    """
    features = [name for i, name in enumerate(names) if i != label]
    words = sum(map(_is_word, features))
    count = Counter(labels)
    alone = label >= 0 and count.pop(labels[0]) == 1
    if label >= 0 and _is_word(labels[0]):
        if not words and not alone:
            return False  # a class
        # Labels that have not been filled in yet say nothing.
        words += all(is_number(other) or is_gap(other) for other in count)
    numbers = [canonical(name) for name in names if is_number(name)]
    if not numbers:
        return words > 0
    counted = len(names) > 1 and numbers == [str(i) for i in range(len(numbers))]
    if words > 1 or (counted and (words or pointed or not names[0])):
        return True
    alone = alone and min(count.values(), default=0) >= FEW
    if not (words or counted or alone or len(pointed) == len(features) > 1):
        return False
    raise DataError(
        f"{where}: is it a header line or a row? It reads {listed(map(shown, names), 5)}; give "
        "every column a name that is no number, or leave the line out (pandas: "
        "to_csv(header=False)); if it is a row, put it below another"
    )


def _check_names(names: list[str], label_column: str | None, label: int, where: str) -> None:
    if "" in names:
        raise DataError(
            f"{where}: column {names.index('')} has no name; if it is an index that was saved "
            "along, leave it out (pandas: to_csv(index=False))"
        )
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(f"{where}: has two columns named {listed(twice)}")
    if label >= 0 and label_column in names and (i := names.index(label_column)) != label:
        raise DataError(
            f"{where}: {shown(str(label_column))} is the name of column {i} and the number of "
            f"column {label}; rename the column"
        )


def _name(cell: str) -> str:
    """A cell of the first line as a name, which messages and files can have in one line."""
    return (cell if cell.isprintable() else " ".join(cell.split())).strip()


def _is_word(name: str) -> bool:
    return not is_number(name) and not is_gap(name)


def _is_position(column: str) -> bool:
    return re.fullmatch("-?[0-9]{1,18}", column) is not None


def _column(wanted: str | None, names: list[str], path: Path) -> int:
    """The label column's number, counted from 0; -1 if there is none."""
    if wanted is None:
        return -1
    width = len(names)
    if _is_position(wanted) and -width <= int(wanted) < width:
        return int(wanted) % width
    if wanted in names:
        return names.index(wanted)
    header = not any(map(is_number, names))
    have = listed(names) if header else f"numbers 0 to {width - 1} and no header line"
    raise DataError(f"{path}: has no column {shown(wanted)}; it has {have}")


def _one_column(width: int) -> str:
    return "; separate them by comma, semicolon or tab" if width == 1 else ""
