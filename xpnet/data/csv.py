"""CSV files: rows of cells, of which each column is numbers or text.

The standard library's csv module splits lines that have quotes; others need no more than a look for
separators, many lines at once. What a cell means is decided by our own rules, in `xpnet.data.cells`
and `xpnet.data.labels`. pandas, polars and NumPy guess a type for each column instead: by default
they read 01 as 1, NA as a value, 9007199254740993 as a float, and a header of numbers as a row. A
library asked for text alone would leave every rule to us, and most of the time: numbers take it,
and `xpnet.data.digits` reads them.

A file is read once, in blocks of rows. Columns that turn out to be text after their beginning was
taken for numbers are read a second time.
"""

from __future__ import annotations

import array
import csv
import gzip
import io
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from xpnet.data.cells import (
    DECIMAL_COMMA,
    advice,
    canonical,
    is_gap,
    is_missing,
    is_misspelt,
    is_number,
    shown,
    truth,
)
from xpnet.data.digits import PAD, Cells, plain_numbers, split
from xpnet.data.gather import Gathered
from xpnet.data.readers import available_memory, existing
from xpnet.data.roles import Layout, Roles, Wish, check_names, check_width, cleaned, roles
from xpnet.data.table import Column, Table, TableFile
from xpnet.errors import DataError, UsageError, listed

__all__ = ["CsvTable", "read_csv", "read_csv_table"]

SEPARATORS = "\t;,"
# The separator is found on the first lines, up to so many characters.
SAMPLE_CHARACTERS = 1 << 16
SAMPLE_CELLS = 1000  # of a row
# A first line whose label stands alone, beside labels of this many rows, may be a header.
FEW = 5
# A longer line is no line of a table; a file of zeros has no other.
LONGEST_LINE = 1 << 26
# Whole lines of so many characters are looked through at once.
CHUNK = 1 << 18
# A block of the csv module has so many cells, but not fewer rows than that.
BLOCK_CELLS = 1 << 16
BLOCK_ROWS = 64
# A column of text of which so many cells in a hundred are numbers is worth a note.
MOSTLY = 90
_Numbers = tuple[np.ndarray, np.ndarray, Callable[[int], str]]
HEADERS = ("auto", "yes", "no")


def read_csv_table(
    path: str | os.PathLike[str], wish: Wish | None = None, header: str = "auto"
) -> TableFile:
    """Read a table of text: a CSV file, which may be gzipped, or the standard input.

    Parameters
    ----------
    path : path
        UTF-8, separated by comma, semicolon or tab; "-" is the standard input.
    wish : Wish, optional
        Which columns are what; by default the last one is the label.
    header : {"auto", "yes", "no"}
        Whether the first line has the names; "auto" tells by what is below.

    Raises
    ------
    DataError
        The message names line and column of a number that is too large, and the line that is too
        short. It also says so if the first line could be a header or a row.
    """
    if header not in HEADERS:
        raise UsageError(f"header is {shown(str(header))}; expected {', '.join(HEADERS)}")
    source = _source(path)
    try:
        with source.open() as file:
            separator = _separator(_first_lines(file, source.name))
        return _read(source, separator, wish or Wish(), header)
    except (UnicodeDecodeError, csv.Error) as error:
        advice = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise DataError(f"{source.name}: is not CSV in UTF-8: {error}{advice}") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise DataError(f"{source.name}: cannot be read: {reason}") from error


# -- Sources -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """Where text comes from, as often as it is opened.

    Attributes
    ----------
    name : str
        For messages.
    bytes : callable
        Opens it.
    room : int
        As many bytes may be read, and as many may the columns take.
    """

    name: str
    bytes: Callable[[], IO[bytes]]
    room: int

    @contextmanager
    def open(self) -> Iterator[IO[str]]:
        with self.bytes() as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            plain: Any = raw
            if zipped:
                plain = io.BufferedReader(_Bounded(gzip.GzipFile(fileobj=raw), self), 1 << 18)
            with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as text:
                yield text


class _Bounded(io.RawIOBase):
    """A file that is refused as soon as it gives more bytes than the memory that is free."""

    def __init__(self, file: Any, source: _Source) -> None:
        self.file, self.source, self.got = file, source, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self.file.readinto(buffer)
        self.got += count
        if self.got > self.source.room:
            raise _too_large(self.source.name)
        return count


def _source(path: str | os.PathLike[str]) -> _Source:
    room = available_memory()
    if str(path) == "-":
        name = "standard input"
        content = _standard_input(name, room)
        return _Source(name, lambda: io.BytesIO(content), room)
    path = existing(Path(path))
    if path.stat().st_size > room:
        raise _too_large(str(path))
    return _Source(str(path), lambda: open(path, "rb"), room)


def _standard_input(name: str, room: int) -> bytes:
    if sys.stdin is None:
        raise DataError(f"{name}: is closed; expected CSV")
    try:
        content: bytes = sys.stdin.buffer.read(room + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: cannot be read: {error}") from error
    if len(content) > room:
        raise _too_large(name)
    return content


def _too_large(name: str) -> DataError:
    return DataError(f"{name}: is larger than the free memory; save it as .npy files")


def _lines(file: IO[str], name: str) -> Iterator[str]:
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise DataError(f"{name}: has a line of {LONGEST_LINE:,} characters; expected a table")
        yield line


def _first_lines(file: IO[str], name: str) -> list[str]:
    lines: list[str] = []
    size = 0
    for line in _lines(file, name):
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


# -- Rows and columns ----------------------------------------------------------------------


class _Rows:
    """The rows of a file that is open: the first, then blocks of rows."""

    def __init__(self, file: IO[str], separator: str, name: str) -> None:
        self.file, self.separator, self.name = file, separator, name
        reader = csv.reader(_lines(file, name), delimiter=separator, strict=True)
        self.first = next(filter(None, reader), [])
        self.line = reader.line_num  # so many have been read
        self.lines = array.array("q", [self.line])  # of each row in the file

    def blocks(self) -> Iterator[_Table | _Lines]:
        """Some rows at a time: lines without quotes by NumPy, others by the csv module."""
        while chunk := self._chunk():
            if lines := self._plain(chunk):
                count = len(lines.cells.ends)
                self.lines.extend(range(self.line + 1, self.line + 1 + count))
                self.line += count
                yield lines
            else:
                yield from self._tables(chunk)

    def _chunk(self) -> str:
        """Some whole lines."""
        chunk = self.file.read(CHUNK)
        if chunk and not chunk.endswith("\n"):
            chunk += next(_lines(self.file, self.name), "")
        return chunk

    def _plain(self, chunk: str) -> _Lines | None:
        """The cells of lines that need no more than a look for separators."""
        width = len(self.first)
        if '"' in chunk or width == 1:  # the only cell of a blank line is none
            return None
        text = chunk.replace("\r\n", "\n") if "\r" in chunk else chunk
        if "\r" in text:
            return None
        data = text.encode() if text.endswith("\n") else text.encode() + b"\n"
        cells = split(data, self.separator, width)
        if cells is None or (cells.ends - cells.starts).max() > csv.field_size_limit():
            return None
        return _Lines(text if text.isascii() else data, cells)

    def _tables(self, chunk: str) -> Iterator[_Table]:
        """The rows of a chunk by the csv module; a quoted cell may end in lines after it."""
        width, before = len(self.first), self.line
        size = max(BLOCK_ROWS, BLOCK_CELLS // width)
        text = io.StringIO(chunk, newline="")
        lines = chain(_lines(text, self.name), _lines(self.file, self.name))
        reader = csv.reader(lines, delimiter=self.separator, strict=True)
        rows: list[list[str]] = []
        while text.tell() < len(chunk) and (cells := next(reader, None)) is not None:
            self.line = before + reader.line_num
            if len(cells) != width:
                if not cells:
                    continue
                raise DataError(
                    f"{self.name}: line {self.line}: got {len(cells)} columns, expected {width}"
                )
            rows.append(cells)
            self.lines.append(self.line)
            if len(rows) == size:
                yield _Table([*zip(*rows, strict=True)])
                rows.clear()
        if rows:
            yield _Table([*zip(*rows, strict=True)])


class _Table(NamedTuple):
    """Rows as the csv module splits them, by column."""

    columns: list[tuple[str, ...]]

    def column(self, i: int) -> Sequence[str]:
        return self.columns[i]

    def numbers(self, which: Sequence[int]) -> Mapping[int, _Numbers]:
        return {}


class _Lines(NamedTuple):
    """Lines without quotes, and where their cells are in the text; in UTF-8 if not all is ASCII."""

    text: str | bytes
    cells: Cells

    def column(self, i: int) -> Sequence[str]:
        places = zip(
            (self.cells.starts[:, i] - PAD).tolist(),
            (self.cells.ends[:, i] - PAD).tolist(),
            strict=True,
        )
        text = self.text
        if isinstance(text, str):
            return [text[start:end] for start, end in places]
        return [text[start:end].decode() for start, end in places]

    def cell(self, i: int, row: int) -> str:
        start, end = self.cells.starts[row, i] - PAD, self.cells.ends[row, i] - PAD
        cell = self.text[start:end]
        return cell if isinstance(cell, str) else cell.decode()

    def numbers(self, which: Sequence[int]) -> Mapping[int, _Numbers]:
        """What is read as numbers in these columns, NaN where a cell is empty."""
        starts, ends, points = (places[:, which].T for places in self.cells[1:])
        shape = starts.shape
        values, sure = plain_numbers(self.cells.data, starts.ravel(), ends.ravel(), points.ravel())
        values[empty := (starts == ends).ravel()] = np.nan
        sure |= empty
        values, sure = values.reshape(shape), sure.reshape(shape)
        return {
            i: (values[k], np.flatnonzero(~sure[k]), partial(self.cell, i))
            for k, i in enumerate(which)
        }


class _Known(dict[str, str]):
    """Cells without white space around them; equal ones share one string."""

    def __missing__(self, cell: str) -> str:
        text = cell.strip()
        text = self[cell] = self.setdefault(text, text)
        return text


def _read(source: _Source, separator: str, wish: Wish, header: str) -> TableFile:
    with source.open() as file:
        rows = _Rows(file, separator, source.name)
        if not rows.first:
            raise DataError(f"{source.name}: got no rows, expected at least one")
        names = [*map(cleaned, rows.first)]
        words = header == "yes" or (header == "auto" and not any(map(is_number, names)))
        found = roles(names, wish, source.name, words)
        columns = {i: Gathered() for i in found.features}
        # All cells must be known to tell a header from a row; until then the first line waits.
        labels = [names[found.label]] if found.label >= 0 else []
        ids = [rows.first[found.id].strip()] if found.id >= 0 else []
        known = _Known()
        pointed = [i for i in found.features if names[i].isdigit()]
        for block in rows.blocks():
            numbers = block.numbers([i for i in columns if columns[i].kind in ("", "number")])
            for i, column in columns.items():
                if not (column.lost or (i in numbers and column.add_numbers(*numbers[i]))):
                    column.add(block.column(i))
            if found.label >= 0:
                labels.extend(map(known.__getitem__, block.column(found.label)))
            if found.id >= 0:
                ids.extend(map(str.strip, block.column(found.id)))
            pointed = [i for i in pointed if _all_pointed(block.column(i))]
            if sum(column.nbytes for column in columns.values()) > source.room:
                raise _too_large(source.name)
    where = f"{source.name}: line {rows.lines[0]}"
    named = header == "yes" or (
        header == "auto"
        and (
            wish.named(names)
            or wish.trained(names)
            or _is_header(names, found, columns, labels, pointed, where)
        )
    )
    start = int(named)
    notes: list[str] = []
    if not named:
        if wish.layout is None:
            check_width(len(names), wish, len(found.features), source.name)
        names = [*map(str, range(len(names)))]
    if len(rows.lines) == start:
        raise DataError(f"{source.name}: got no rows, expected at least one")
    for i, column in columns.items():
        column.end(None if named else rows.first[i])
    if named:
        if 0 in columns and not names[0] and _counts(columns[0]):
            del columns[0]
            found = Roles(tuple(columns), found.label, found.id)
            notes.append(f"{source.name}: left out column 0, which has no name and counts the rows")
        check_names(names, wish, found, where)
    _read_again(source, separator, columns, start, len(rows.lines))
    lines = rows.lines[start:]
    for i, column in columns.items():
        notes += _checked(column, names[i], lines, source.name)
    table = Table(
        tuple(column.column(names[i]) for i, column in columns.items()), source.name, named, lines
    )
    if not columns:
        raise DataError(f"{source.name}: got no features beside the label, expected at least one")
    return TableFile(
        table,
        labels[start:] if found.label >= 0 else None,
        names[found.label] if found.label >= 0 else "",
        ids[start:] if found.id >= 0 else None,
        (names[found.id] or str(found.id)) if found.id >= 0 else "",
        tuple(notes),
        None if named else Layout(len(names), found.features, found.label, found.id),
    )


def _read_again(
    source: _Source, separator: str, columns: dict[int, Gathered], start: int, count: int
) -> None:
    """Read the columns that turned out to be text late once more, as text."""
    late = {i: Gathered(text=True) for i, column in columns.items() if column.lost}
    if not late:
        return
    with source.open() as file:
        rows = _Rows(file, separator, source.name)
        for block in rows.blocks():
            for i, column in late.items():
                column.add(block.column(i))
            if sum(column.nbytes for column in columns.values()) > source.room:
                raise _too_large(source.name)
    if len(rows.lines) != count:
        raise DataError(f"{source.name}: changed while it was read")
    for i, column in late.items():
        column.end(None if start else rows.first[i])
    columns.update(late)


def _all_pointed(cells: Sequence[str]) -> bool:
    return all("." in cell or is_missing(cell.strip()) for cell in cells)


def _counts(column: Gathered) -> bool:
    """Whether the column counts the rows: 0, 1, 2 or 1, 2, 3."""
    if column.kind != "number":
        return False
    numbers = column.column("").numbers
    assert numbers is not None
    return bool((numbers - numbers[0] == np.arange(len(numbers))).all() and numbers[0] in (0, 1))


def _checked(column: Gathered, name: str, lines: Sequence[int], file: str) -> list[str]:
    """Refuse numbers that no float64 holds and those in doubtful spellings; returns notes."""
    if column.overflow >= 0:
        raise DataError(
            f"{file}: line {lines[column.overflow]}, column {listed([name])}: got a number too "
            "large for a float64, expected a finite number"
        )
    if column.kind != "text":
        return []
    counts = column.counts()
    numbers = sum(n for cell, n in counts.items() if is_number(cell))
    others = [cell for cell in counts if not is_number(cell)]
    words = [cell for cell in others if not is_gap(cell)]
    place = _first_place(column, name, lines, file)
    if words and all(map(is_misspelt, words)):
        raise DataError(
            f"{place(words[0])}: got {shown(words[0])}, expected a finite number{advice(words[0])}"
        )
    if words and numbers * 100 >= MOSTLY * sum(counts.values()):
        return [
            f"{place(words[0])}: got {shown(words[0])} among {numbers:,} numbers, so the column "
            "is taken for text"
        ]
    return []


def _first_place(
    column: Gathered, name: str, lines: Sequence[int], file: str
) -> Callable[[str], str]:
    def place(text: str) -> str:
        got = column.column(name)
        assert got.codes is not None
        row = int(np.argmax(got.codes == got.values.index(text)))
        return f"{file}: line {lines[row]}, column {listed([name])}"

    return place


# -- Header lines --------------------------------------------------------------------------


def _is_header(
    names: list[str],
    found: Roles,
    columns: Mapping[int, Gathered],
    labels: list[str],
    pointed: list[int],
    where: str,
) -> bool:
    """Whether the first line has names: a header may have numbers, and a row words.

    Parameters
    ----------
    names, labels : list of str
        The cells of the first line, and the label of each line.
    found : Roles
    columns : mapping from int to Gathered
        The features, without the first line.
    pointed : list of int
        The columns that have a whole number here, and a decimal point in every other line.
    """
    above = _above(names, columns)
    words = above.words
    count = Counter(labels)
    alone = found.label >= 0 and count.pop(labels[0]) == 1
    if found.label >= 0 and _is_word(labels[0]):
        if not words and not alone:
            return False  # a class
        # Labels that have not been filled in yet say nothing.
        words += all(is_number(other) or is_gap(other) for other in count)
    numbers = [canonical(name) for name in names if is_number(name)]
    counted = len(names) > 1 and numbers == [str(i) for i in range(len(numbers))]
    index = not names[0] and (0 not in columns or columns[0].is_distinct())
    alone = alone and min(count.values(), default=0) >= FEW
    if not numbers:
        if words or not (above.known or above.new):
            return words > 0
        if index:
            return True
        if above.known or above.empty:
            return False
        if above.rare or alone:
            return True
        raise _doubt(names, where)
    if words > 1 or (counted and (words or pointed or index)):
        return True
    if above.known and not words:
        return False
    distinct = len(set(names)) == len(names) and all(map(str.isdigit, numbers))
    if not (
        words
        or counted
        or alone
        or len(pointed) == len(found.features) - above.new > 1
        or (above.new and distinct)
    ):
        return False
    raise _doubt(names, where)


class _Above(NamedTuple):
    """What a first line has above its columns.

    Attributes
    ----------
    words : int
        Words above numbers.
    known, new, rare : int
        Texts above texts: those that are there again below; those that are not; and of these,
        those below which every text is there often.
    empty : int
        Gaps.
    """

    words: int
    known: int
    new: int
    rare: int
    empty: int


def _above(names: list[str], columns: Mapping[int, Gathered]) -> _Above:
    words = known = new = rare = empty = 0
    for i, column in columns.items():
        name = names[i]
        if is_missing(name):
            empty += 1
        elif column.kind == "text":
            counts = {} if column.lost else column.counts()
            known += name in counts
            new += name not in counts
            rare += name not in counts and min(counts.values(), default=0) >= FEW
        elif _is_word(name) and not (column.kind == "truth" and truth(name) is not None):
            words += 1
    return _Above(words, known, new, rare, empty)


def _doubt(names: list[str], where: str) -> DataError:
    return DataError(
        f"{where}: is it a header line or a row? It reads {listed(map(shown, names), 5)}; say "
        "--header yes or --header no, or give every column a name that is no number"
    )


def _is_word(name: str) -> bool:
    return not is_number(name) and not is_gap(name)


# -- Tables of numbers ---------------------------------------------------------------------


class CsvTable(NamedTuple):
    """A CSV file of nothing but numbers, and maybe labels.

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
    columns: Sequence[str] = (),
) -> CsvTable:
    """Read a CSV file whose features are all finite numbers.

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
        The message names line and column of what is not a finite number.
    """
    wish = Wish("" if label_column is None else label_column, features=columns, width=features)
    table, labels, label, *_ = read_csv_table(path, wish)
    assert table.lines is not None
    if bad := [place for place in map(_no_number, table.columns) if place]:
        row, name, cell = min(bad)
        raise DataError(
            f"{table.place(row)}, column {listed([name])}: got {shown(cell)}, "
            f"expected a finite number{advice(cell)}"
        )
    x = np.column_stack([c.numbers for c in table.columns if c.numbers is not None])
    return CsvTable(x, labels, table.names if table.named else (), label, table.lines)


def _no_number(column: Column) -> tuple[int, str, str] | None:
    """(row, column, cell) of the first cell that is no number."""
    if column.boolean:
        return 0, column.name, "true or false"
    if column.codes is not None:
        wrong = np.array([not is_number(value) for value in column.values] + [True])[column.codes]
        row = int(np.argmax(wrong))
        return row, column.name, column.values[column.codes[row]] if column.codes[row] >= 0 else ""
    row = int(np.argmax(column.missing))
    return (row, column.name, "") if column.missing[row] else None
