"""The encoder of a table: columns of numbers, true / false and text become features of a network.

It is fitted on the training rows, once, on the host, and then is part of the model. It holds plain
data: names, texts and numbers. It computes by float64 arithmetic of single elements, so the
features of a row are the same bits on every machine.
"""

from __future__ import annotations

import math
import re
import shlex
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from xpnet.data.cells import is_gap, is_number, is_plain
from xpnet.data.checks import host
from xpnet.data.dataset import Scaling
from xpnet.data.preparation import standardize
from xpnet.data.table import Column, Table
from xpnet.errors import DataError, listed, one_line, shortened, shown, whole

__all__ = ["Coding", "Encoder", "aligned"]

# What a column becomes.
NUMBER, BOOLEAN, CATEGORIES, LEFT_OUT = "number", "boolean", "categories", "left out"

# A text column is refused as an id where at least this share of its texts differ, and as free text
# where half of them do and have four words on average. Of fewer rows nobody can tell.
FEW = 20
ID_SHARE = 0.95
FREE_SHARE, FREE_WORDS = 0.5, 4

MOST_CATEGORIES = 10_000
MOST_COLUMNS = 1_000_000
BLOCK_BYTES = 1 << 20

# In the lookup from a table's texts to the features of a column.
UNSEEN, UNKNOWN = -1, -2


@dataclass(frozen=True)
class Coding:
    """What becomes of one column.

    Attributes
    ----------
    name : str
        The column's.
    kind : {"number", "boolean", "categories", "left out"}
    fill : float
        What stands for a missing number, or truth value.
    missing : bool
        Whether the training rows lacked values: one more feature then says which rows do.
    shift, scale : float
        How the network should see the numbers.
    values : tuple of str
        The categories, the most frequent first.
    other : bool
        Whether one more feature stands for all texts that are not in `values`.
    reason : str
        Why the column is left out.
    """

    name: str
    kind: str
    fill: float = 0.0
    missing: bool = False
    shift: float = 0.0
    scale: float = 1.0
    values: tuple[str, ...] = ()
    other: bool = False
    reason: str = ""

    @property
    def width(self) -> int:
        """The number of features."""
        if self.kind == LEFT_OUT:
            return 0
        own = len(self.values) + self.other if self.kind == CATEGORIES else 1
        return own + self.missing


@dataclass(frozen=True, repr=False)
class Encoder:
    """From the columns of a table to the features of a network; `Encoder.of` makes one.

    - Numbers stay as they are; a missing one becomes the median of the training rows.
    - True and false become 1 and 0; a missing one becomes the more frequent of the two.
    - Each of the most frequent texts of a column becomes a feature that is 1 or 0, "sex = male";
      one more, "sex = other", stands for all other texts where there are too many.
    - Where training rows lack a value, one more feature says so, "age missing".

    Attributes
    ----------
    codings : tuple of Coding
        One for each column of the training table, in its order.
    named : bool
        Whether the columns have names. Otherwise, and in a table without names, their places count.
    notes : tuple of str
        What you should know of the columns: what is left out, and what looks like a row's number.
        They are no part of the encoder's value, nor of `plain`.
    """

    codings: tuple[Coding, ...]
    named: bool = True
    notes: tuple[str, ...] = field(default=(), compare=False)

    # -- Making one --------------------------------------------------------------------

    @classmethod
    def of(cls, table: Any, *, most: int = 50, standardize: bool = True) -> Encoder:
        """Find out how to encode a table, from its training rows.

        Parameters
        ----------
        table : Table, data frame, or array of shape=(N, columns)
            The training rows.
        most : int
            How many categories of a column become features of their own.
        standardize : bool
            Whether `scaling` brings the numbers to mean 0 and standard deviation 1.

        Raises
        ------
        DataError
            A column holds dates or times; or a different text in (nearly) every row: at least 20
            texts of which 95 % differ; or free text: half of them differ, and have four words or
            more on average. The message names all such columns. Or no column is left.
        UsageError
            `most` is out of range.

        Examples
        --------
        >>> from xpnet.data.table import Column, Table
        >>> age = Column("age", np.array([20.0, np.nan, 40.0]))
        >>> Encoder.of(Table((age,))).names
        ('age', 'age missing')
        """
        most = whole("most", most, 1, MOST_CATEGORIES)
        table = _as_table(table)
        if not len(table):
            raise DataError(f"{table.name}: has no rows")
        _refuse(table)
        for column in table.columns:
            _refuse_infinite(column, table)
        codings = tuple(_coding(column, most) for column in table.columns)
        if not any(coding.width for coding in codings):
            why = listed(f"{shown(c.name)} ({c.reason})" for c in codings) or "it has no columns"
            raise DataError(f"{table.name}: has no column to learn from: {why}")
        if standardize:
            codings = _scaled(codings, table)
        return cls(codings, table.named, _notes(codings, table))

    # -- What it makes -----------------------------------------------------------------

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that it uses."""
        return tuple(coding.name for coding in self._used)

    @property
    def width(self) -> int:
        """The number of features."""
        return sum(coding.width for coding in self.codings)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features, each a different one: age, age missing, sex = male ..."""
        taken = {coding.name for coding in self._used if coding.kind != CATEGORIES}
        names = []
        for coding in self._used:
            made = [f"{coding.name} = {value}" for value in coding.values]
            if coding.kind != CATEGORIES:
                names.append(coding.name)
            if coding.other:
                made.append(f"{coding.name} = other")
            if coding.missing:
                made.append(f"{coding.name} missing")
            names += [_unique(name, taken) for name in made]
        return tuple(names)

    @property
    def scaling(self) -> Scaling:
        """How the network should see the features: numbers scaled, all others as they are."""
        shift, scale, start = np.zeros(self.width), np.ones(self.width), 0
        for coding in self._used:
            if coding.kind == NUMBER:
                shift[start], scale[start] = coding.shift, coding.scale
            start += coding.width
        return Scaling(shift, scale)

    @property
    def _used(self) -> list[Coding]:
        return [coding for coding in self.codings if coding.kind != LEFT_OUT]

    def __repr__(self) -> str:
        return f"<Encoder of {len(self.columns)} columns into {self.width} features>"

    # -- Encoding ----------------------------------------------------------------------

    def encode(self, table: Any) -> np.ndarray:
        """Encode a table.

        A text that the training rows did not have is none of the categories: its features are 0,
        but for "other" where there is one. A value that is missing where the training rows lacked
        none counts as the median, the more frequent truth value, or none of the categories.

        Parameters
        ----------
        table : Table, data frame, or array of shape=(N, columns)
            Columns are found by name, in any order, beside others. In a table without names their
            places count, as in an array, which an encoder without categories takes too.

        Returns
        -------
        array, shape=(N, width), float64

        Raises
        ------
        DataError
            A column is missing, or has a text in place of a number.

        Warns
        -----
        RuntimeWarning
            Rows have texts that the training rows did not have, or lack values that none of those
            lacked.

        Examples
        --------
        >>> from xpnet.data.table import Column, Table
        >>> sex = Column("sex", values=("f", "m"), codes=np.array([0, 1, 1], np.int32))
        >>> Encoder.of(Table((sex,))).encode(Table((sex,))).tolist()
        [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]
        """
        is_array = isinstance(table, np.ndarray | list | tuple)
        if is_array and (texts := [c.name for c in self._used if c.kind == CATEGORIES]):
            raise DataError(
                f"x: got {type(table).__name__}, expected a data frame with columns by name: "
                f"{_columns(texts)} text"
            )
        table = _as_table(table)
        columns = self._columns_of(table)
        x = np.zeros((len(table), self.width))
        surprises, numeric, start = [], [], 0
        for coding, column in zip(self._used, columns, strict=True):
            if coding.kind == CATEGORIES:
                surprises += _one_hot(coding, column, x, start)
            else:
                numbers = _numbers(coding, column, table)
                gaps = np.isnan(numbers)
                if count := int(np.count_nonzero(gaps)):
                    numbers = np.where(gaps, coding.fill, numbers)
                    if not coding.missing:
                        surprises.append(_said(coding, count))
                numeric.append((start, numbers))
                if coding.missing:
                    numeric.append((start + 1, gaps))
            start += coding.width
        _interleave(x, numeric)
        if surprises:
            more = f"; and in {len(surprises) - 5} more" if len(surprises) > 5 else ""
            text = one_line(f"{table.name}: {'; '.join(surprises[:5])}{more}")
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        return x

    def _columns_of(self, table: Table) -> list[Column]:
        """The table's column for each one that is used."""
        if not (self.named and table.named):
            found, names = len(table.columns), [coding.name for coding in self.codings]
            if found == len(self.codings):
                pairs = zip(self.codings, table.columns, strict=True)
                return [column for coding, column in pairs if coding.kind != LEFT_OUT]
            if found == len(self.columns):
                return list(table.columns)
            raise DataError(
                f"{table.name}: has {found} columns, expected {len(names)}: {listed(names)}"
            )
        by_name = {column.name: column for column in table.columns}
        if missing := [name for name in self.columns if name not in by_name]:
            near = [get_close_matches(name, by_name, 1) for name in missing]
            hint = f" (is it {shown(near[0][0])}?)" if len(missing) == 1 and near[0] else ""
            noun = "column" if len(missing) == 1 else "columns"
            raise DataError(
                f"{table.name}: has no {noun} {listed(map(shown, missing))}{hint}, which the model "
                f"was trained with; it has {listed(table.names)}"
            )
        return [by_name[name] for name in self.columns]

    # -- As plain data -----------------------------------------------------------------

    def plain(self) -> dict[str, Any]:
        """Return the encoder as values that JSON knows."""
        return {"named": self.named, "columns": [_plain(coding) for coding in self.codings]}

    @classmethod
    def from_plain(cls, plain: Any) -> Encoder:
        """Return the encoder of which `plain` is the plain data.

        Raises
        ------
        ValueError
            It is not as `plain` gives it: a file may hold anything.
        """
        if not isinstance(plain, dict) or plain.keys() != {"named", "columns"}:
            raise ValueError("an encoder is not a table of named and columns")
        if type(plain["named"]) is not bool:
            raise ValueError("named is neither true nor false")
        columns = plain["columns"]
        if not isinstance(columns, list) or not 0 < len(columns) <= MOST_COLUMNS:
            raise ValueError("columns are no list of a possible length")
        encoder = cls(tuple(_from_plain(part, i) for i, part in enumerate(columns)), plain["named"])
        if len({coding.name for coding in encoder.codings}) < len(columns):
            raise ValueError("two columns have the same name")
        if not encoder.width:
            raise ValueError("no column makes a feature")
        return encoder

    # -- As text -----------------------------------------------------------------------

    def describe(self, table: Any) -> list[tuple[str, str, str, str, str]]:
        """Describe the columns, for people: name, kind, values, missing, and what becomes of each.

        Parameters
        ----------
        table : Table, data frame, or array
            What values and missing are told of.

        Raises
        ------
        DataError
            A column that is used is not there.
        """
        table = _as_table(table)
        by_coding = dict(zip(self._used, self._columns_of(table), strict=True))
        by_name = {column.name: column for column in table.columns}
        rows = []
        for coding in self.codings:
            column = by_coding.get(coding, by_name.get(coding.name))
            kind, values, missing = _summary(column, coding)
            becomes = _becomes(coding, constant=kind == "constant")
            rows.append((_printable(coding.name), kind, values, missing, becomes))
        return rows


HEADINGS = ("column", "kind", "values", "missing", "becomes")


def aligned(rows: Sequence[Sequence[str]], width: int = 100) -> list[str]:
    """Return rows of `Encoder.describe` as lines, below headings; longest cells are cut to fit.

    Examples
    --------
    >>> for line in aligned([("age", "number", "0.42 to 80", "177", "standardized")]):
    ...     print(line)
    column  kind    values      missing  becomes
    age     number  0.42 to 80  177      standardized
    """
    table = [HEADINGS, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADINGS))]
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    cut = [[_cut(cell, w) for cell, w in zip(row, widths, strict=True)] for row in table]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cut]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


# -- What comes in ---------------------------------------------------------------------


def _as_table(x: Any) -> Table:
    if isinstance(x, Table):
        return x
    if not isinstance(x, np.ndarray | list | tuple):
        from xpnet.data.frames import frame_table, is_frame  # for frames only: needs narwhals

        if is_frame(x):
            return frame_table(x)
    x = host(x)
    if x.ndim != 2 or x.dtype.kind not in "buif":
        raise DataError(
            f"x: got {x.dtype} of shape {x.shape}, expected a data frame, or numbers of shape "
            "(samples, columns)"
        )
    columns = np.ascontiguousarray(np.asarray(x, np.float64).T)
    return Table(tuple(Column(str(i), c) for i, c in enumerate(columns)), named=False)


# -- What is refused -------------------------------------------------------------------

DAY, MONTH, YEAR = r"(0?[1-9]|[12]\d|3[01])", r"(0?[1-9]|1[0-2])", r"(\d{4}|'?\d{2})"
CLOCK = r"([01]?\d|2[0-4]):[0-5]\d(:[0-6]\d([.,]\d+)?)?( ?[ap]\.?m\.?)?"
TIME = rf"{CLOCK}( ?(z|utc|gmt|[+-]\d\d:?(\d\d)?))?"
NAME = (
    r"(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?"
    r"|nov(ember)?|dec(ember)?)\.?"
)
WEEKDAY = r"((mon|tues?|wed(nes)?|thu(rs)?|fri|sat(ur)?|sun)(day)?\.?,? )?"
DATE = "|".join(
    (
        rf"\d{{4}}([-/.]){MONTH}[-/.]{DAY}",  # 2020-01-31
        rf"(1[5-9]|20)\d\d[-/]{MONTH}",  # 2020-01
        rf"({DAY}([-/.]){MONTH}|{MONTH}([-/.]){DAY})[-/.]{YEAR}",  # 31.1.2020, 1/31/20
        rf"({DAY}(st|nd|rd|th)?[- ])?{NAME},?[- ]{YEAR}",  # 31 Jan 2020, 31-Jan-20, January 2020
        rf"{NAME} {DAY}(st|nd|rd|th)?,? \d{{4}}",  # Jan 31, 2020
    )
)
WHEN = re.compile(rf"{WEEKDAY}({DATE})((t|,? ){TIME})?|{TIME}", re.ASCII | re.IGNORECASE)


def _refuse(table: Table) -> None:
    """Refuse the columns that no encoding makes useful, all in one message.

    Raises
    ------
    DataError
    """
    reasons: dict[str, list[str]] = {}
    for column in table.columns:
        if reason := _unfit(column):
            reasons.setdefault(reason, []).append(column.name)
    if not reasons:
        return
    said = (f"{_columns(names)} {reason}" for reason, names in reasons.items())
    drop = {name for names in reasons.values() for name in names}
    names = [name for name in table.names if name in drop]
    raise DataError(
        f"{table.name}: {'; '.join(said)}; leave out what you cannot turn into numbers or groups: "
        f"--drop {shlex.quote(','.join(names))} (Python: drop the columns from the table)"
    )


def _unfit(column: Column) -> str:
    """Why a network cannot use the column; "" if it can. It ends a sentence on several columns."""
    if column.codes is None:
        return ""
    counts = _counts(column)
    present = [value for value, count in zip(column.values, counts, strict=True) if count]
    rows = int(counts.sum())
    if len(present) < 2:
        return ""  # carries nothing
    if column.date or all(map(WHEN.fullmatch, present)):
        return "dates or times (turn them into numbers, such as the year, or the days since one)"
    if rows < FEW:
        return ""
    if len(present) >= ID_SHARE * rows:
        return "a different text in (nearly) every row, as ids, names and free text have"
    words = sum(len(value.split()) for value in present)
    if len(present) >= FREE_SHARE * rows and words >= FREE_WORDS * len(present):
        return "free text"
    return ""


# -- Finding the codings ---------------------------------------------------------------


def _counts(column: Column) -> np.ndarray:
    """How many rows have each of the column's texts."""
    assert column.codes is not None
    return np.bincount(column.codes + 1, minlength=len(column.values) + 1)[1:]


def _coding(column: Column, most: int) -> Coding:
    name, gaps = column.name, column.missing
    missing = bool(gaps.any())
    if gaps.all():
        return Coding(name, LEFT_OUT, reason="all missing")
    if column.numbers is None:
        counts = _counts(column)
        order = sorted((-n, v) for n, v in zip(counts.tolist(), column.values, strict=True) if n)
        values = tuple(value for _, value in order)
        if len(values) == 1 and not missing:
            return Coding(name, LEFT_OUT, reason=f"always {shown(values[0])}")
        other = len(values) > most
        return Coding(name, CATEGORIES, missing=missing, values=values[:most], other=other)
    numbers = column.numbers[~gaps] if missing else column.numbers
    if column.boolean:
        true = int(np.count_nonzero(numbers))
        if true in (0, len(numbers)) and not missing:
            return Coding(name, LEFT_OUT, reason=f"always {'true' if true else 'false'}")
        return Coding(name, BOOLEAN, float(2 * true > len(numbers)), missing)
    return Coding(name, NUMBER, _median(numbers), missing)


def _median(numbers: np.ndarray) -> float:
    """The median; the mean of two large middle values does not overflow."""
    low, high = (len(numbers) - 1) // 2, len(numbers) // 2
    parts = np.partition(numbers, (low, high))
    a, b = float(parts[low]), float(parts[high])
    return (a + b) / 2 if math.isfinite(a + b) else a / 2 + b / 2


def _scaled(codings: tuple[Coding, ...], table: Table) -> tuple[Coding, ...]:
    """The codings with the scaling that `standardize` finds for the columns of numbers."""
    pairs = [(c, n) for c, n in zip(codings, table.columns, strict=True) if c.kind == NUMBER]
    if not pairs:
        return codings
    x = np.empty((len(table), len(pairs)))
    filled = [np.where(n.missing, c.fill, _numbers(c, n, table)) for c, n in pairs]
    _interleave(x, list(enumerate(filled)))
    try:
        shift, scale = standardize(x, table.name)
    except DataError:
        for coding, numbers in zip((c for c, _ in pairs), filled, strict=True):
            standardize(numbers, f"{table.name}: column {shown(coding.name)}")  # names the column
        raise
    found = zip(shift.tolist(), scale.tolist(), strict=True)
    scales = {c.name: s for (c, _), s in zip(pairs, found, strict=True)}
    return tuple(
        replace(c, shift=scales[c.name][0], scale=scales[c.name][1]) if c.name in scales else c
        for c in codings
    )


def _notes(codings: Sequence[Coding], table: Table) -> tuple[str, ...]:
    notes = []
    for coding, column in zip(codings, table.columns, strict=True):
        name = shown(coding.name)
        if coding.kind == LEFT_OUT:
            notes.append(f"column {name} is left out: {coding.reason}")
        elif coding.kind == NUMBER and _counts_rows(column.numbers):
            drop = shlex.quote(coding.name)
            notes.append(
                f"column {name} counts the rows; if it is no more than their number: --drop {drop}"
            )
    return tuple(one_line(note) for note in notes)


def _counts_rows(numbers: np.ndarray | None) -> bool:
    """Whether whole numbers from 0 or 1 rise with every row; some rows may be in another part."""
    if numbers is None or len(numbers) < FEW:
        return False
    first, last = numbers[0], numbers[-1]
    if not (0 <= first <= FEW and last <= first + 2 * len(numbers)):  # false for NaN too
        return False
    return bool((np.diff(numbers) >= 1).all() and (numbers == np.floor(numbers)).all())


# -- Encoding a column -----------------------------------------------------------------


def _interleave(x: np.ndarray, columns: Sequence[tuple[int, np.ndarray]]) -> None:
    """Write columns into x, block by block: a column of a large x touches all its memory."""
    size = max(1, BLOCK_BYTES // max(1, x.shape[1] * x.itemsize))
    for begin in range(0, len(x), size):
        block = x[begin : begin + size]
        for i, column in columns:
            block[:, i] = column[begin : begin + size]


def _numbers(coding: Coding, column: Column, table: Table) -> np.ndarray:
    """The numbers of a column, NaN where they are missing.

    Raises
    ------
    DataError
        One is text, infinite, or neither true nor false where it has to be.
    """
    truth = coding.kind == BOOLEAN
    if column.numbers is not None:
        _refuse_infinite(column, table)
        numbers = column.numbers
        if not truth or column.boolean:
            return numbers
        wrong = (numbers != 0) & (numbers != 1) & ~np.isnan(numbers)
        if not wrong.any():
            return numbers
        row = int(np.argmax(wrong))
        got = f"{numbers[row]:g}"
    else:
        assert column.codes is not None
        read = [_number(value, truth) for value in column.values]
        wrong = np.array([*(number is None for number in read), False])[column.codes]
        if not wrong.any():
            lookup = np.array([*(math.nan if n is None else n for n in read), math.nan])
            return np.asarray(lookup[column.codes])
        row = int(np.argmax(wrong))
        got = shown(shortened(column.values[column.codes[row]]))
    raise DataError(
        f"{table.place(row)}: column {shown(coding.name)} has {got}, expected "
        f"{'true or false' if truth else 'a number'}, as in the training data; correct it, or "
        "leave it empty if nobody knows it"
    )


def _refuse_infinite(column: Column, table: Table) -> None:
    if column.numbers is None or not (infinite := np.isinf(column.numbers)).any():
        return
    row = int(np.argmax(infinite))
    raise DataError(
        f"{table.place(row)}: column {shown(column.name)} has {column.numbers[row]:g}, expected a "
        "finite number; correct it, or leave it empty if nobody knows it"
    )


def _number(cell: str, truth: bool) -> float | None:
    """The number or truth value of a text, NaN for a gap; None for another text."""
    if truth and cell.lower() in ("true", "false"):
        return float(cell.lower() == "true")
    if is_number(cell) and math.isfinite(number := float(cell)):
        return number if not truth or number in (0.0, 1.0) else None
    return math.nan if is_gap(cell) else None


def _one_hot(coding: Coding, column: Column, x: np.ndarray, start: int) -> list[str]:
    """Write the features of a text column into x, from feature `start`; what is to be said."""
    texts = _as_text(column)
    assert texts.codes is not None
    values, find = coding.values, _finder(coding.values, column.numbers is not None)
    rest = len(values) if coding.other else UNSEEN
    gap = len(values) + coding.other if coding.missing else UNKNOWN
    # The last one is for code -1: missing.
    lookup = np.array([*(find(value, rest) for value in texts.values), gap], np.intp)
    place = lookup[texts.codes]
    rows = np.arange(len(x)) * x.shape[1] + start
    # Where all have a place, which is the rule, nothing needs to be selected.
    lost = bool((lookup < 0).any()) and bool((place < 0).any())
    x.reshape(-1)[(rows + place)[place >= 0] if lost else rows + place] = 1.0
    if not lost:
        return []
    said = []
    if unseen := int(np.count_nonzero(place == UNSEEN)):
        counts = _counts(texts)
        new = [v for v, at, n in zip(texts.values, lookup, counts, strict=False) if n and at < 0]
        said.append(
            f"column {shown(coding.name)}: {_rows(unseen)} a value that the training did not have "
            f"({_few(new)}): {'it counts' if unseen == 1 else 'they count'} as none"
        )
    if gaps := int(np.count_nonzero(place == UNKNOWN)):
        said.append(_said(coding, gaps))
    return said


def _said(coding: Coding, count: int) -> str:
    """Say that values are missing in a column that lacked none in the training."""
    if coding.kind == BOOLEAN:
        stands = "true" if coding.fill else "false"
    else:
        stands = f"the median {coding.fill:.6g}" if coding.kind == NUMBER else "none"
    return (
        f"column {shown(coding.name)}: {_rows(count)} no value, which the training always had: "
        f"{'it counts' if count == 1 else 'they count'} as {stands}"
    )


def _as_text(column: Column) -> Column:
    """A column of numbers or truth values as one of text, 1 for 1.0."""
    if column.numbers is None:
        return column
    numbers, codes = np.unique(column.numbers, return_inverse=True)  # one NaN at most, the last
    texts = tuple(map(_shortest, numbers[~np.isnan(numbers)].tolist()))
    if column.boolean:
        texts = tuple("true" if text == "1" else "false" for text in texts)
    codes = np.where(codes < len(texts), codes, -1).astype(np.int32)
    return Column(column.name, values=texts, codes=codes)


def _shortest(number: float) -> str:
    return f"{number:.0f}" if number.is_integer() and abs(number) < 1e16 else repr(number)


def _finder(values: Sequence[str], numeric: bool) -> Callable[[str, int], int]:
    """Return find(text, otherwise): the place of a text among the values.

    In a column that was read as numbers, or as true and false, nobody knows how they were
    written: 1.0 and 01 are the number 1, True and TRUE are true.
    """
    places = {value: i for i, value in enumerate(values)}
    if not numeric:
        return lambda text, otherwise: places.get(text, otherwise)
    loose: dict[str, int] = {}
    for value in sorted(values, key=is_plain, reverse=True):  # 1.0 before 01
        if is_number(value):
            loose.setdefault(_shortest(float(value)), places[value])
        elif value.lower() in ("true", "false"):
            loose.setdefault(value.lower(), places[value])
    loose |= places
    return lambda text, otherwise: loose.get(text, otherwise)


# -- Plain data ------------------------------------------------------------------------

# What plain data hold of a coding, beside name and kind.
FIELDS = {
    NUMBER: ("fill", "missing", "shift", "scale"),
    BOOLEAN: ("fill", "missing"),
    CATEGORIES: ("values", "other", "missing"),
    LEFT_OUT: ("reason",),
}


def _plain(coding: Coding) -> dict[str, Any]:
    plain = {key: getattr(coding, key) for key in ("name", "kind", *FIELDS[coding.kind])}
    return plain | ({"values": list(coding.values)} if coding.kind == CATEGORIES else {})


def _from_plain(plain: Any, i: int) -> Coding:
    """Return the coding of column i.

    Raises
    ------
    ValueError
    """
    where = f"column {i}"
    kind = plain.get("kind") if isinstance(plain, dict) else None
    if not isinstance(kind, str) or kind not in FIELDS:
        raise ValueError(f"{where} is of no kind that is known")
    if plain.keys() != {"name", "kind", *FIELDS[kind]}:
        raise ValueError(f"{where} has not the keys of {kind}")
    for key, value in plain.items():
        if key in ("name", "kind", "reason"):
            fits = isinstance(value, str)
        elif key in ("missing", "other"):
            fits = type(value) is bool
        elif key == "values":
            fits = isinstance(value, list) and 0 < len(value) <= MOST_CATEGORIES
            fits = fits and all(isinstance(v, str) for v in value)
            fits = fits and len(set(value)) == len(value)
        else:
            fits = _is_float(value) and (key != "scale" or value > 0)
            fits = fits and (kind != BOOLEAN or value in (0, 1))
        if not fits:
            raise ValueError(f"{where}: {key} is {shown(value)}, which cannot be")
    numbers = {key: float(plain[key]) for key in ("fill", "shift", "scale") if key in plain}
    values = {"values": tuple(plain["values"])} if "values" in plain else {}
    return Coding(**(plain | numbers | values))


def _is_float(value: Any) -> bool:
    """Whether it is a finite number that float64 holds; JSON has whole numbers of any size."""
    if type(value) is int:
        return abs(value) <= 2**53
    return type(value) is float and math.isfinite(value)


# -- Words -----------------------------------------------------------------------------


def _unique(name: str, taken: set[str]) -> str:
    """Return the name, with a number if it is taken, and enter it in `taken`."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name} ({count})"
    taken.add(free)
    return free


def _columns(names: Sequence[str]) -> str:
    noun, verb = ("column", "has") if len(names) == 1 else ("columns", "have")
    return f"{noun} {listed(map(shown, names), 10)} {verb}"


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count:,} rows have"


def _few(texts: Sequence[str], most: int = 3) -> str:
    return listed(texts[:most]) + (", ..." if len(texts) > most else "")


def _printable(text: str) -> str:
    return listed([text])


def _summary(column: Column | None, coding: Coding) -> tuple[str, str, str]:
    """Kind, values and missing of a column, as text."""
    if column is None:
        return "", "", ""
    gaps = int(np.count_nonzero(column.missing))
    missing = f"{gaps:,}" if gaps else ""
    if gaps == len(column):
        return "empty", "", missing
    if column.numbers is None:
        counts = _counts(column)
        order = sorted((-n, v) for n, v in zip(counts.tolist(), column.values, strict=True) if n)
        texts = [_printable(value) for _, value in order]
        more = f", ... ({len(texts):,})" if len(texts) > 3 else ""
        kind = "constant" if len(texts) == 1 and not gaps else "categories"
        return kind, ", ".join(texts[:3]) + more, missing
    low, high = float(np.nanmin(column.numbers)), float(np.nanmax(column.numbers))
    if column.boolean:
        words = ["false"] * (low == 0) + ["true"] * (high == 1)
        return (
            "constant" if len(words) == 1 and not gaps else "true/false",
            ", ".join(words),
            missing,
        )
    if low == high:
        return "constant", f"{low:.6g}", missing
    return "number", f"{low:.6g} to {high:.6g}", missing


def _becomes(coding: Coding, *, constant: bool) -> str:
    if coding.kind == LEFT_OUT:
        return f"left out: {coding.reason}"
    if coding.kind == CATEGORIES:
        count = len(coding.values)
        parts = [f"{count} column{'s' * (count > 1)}"]
        parts += ["other"] * coding.other + ["missing"] * coding.missing
        return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    if coding.kind == BOOLEAN:
        text, fill = "0 or 1", "true" if coding.fill else "false"
    elif constant and (coding.shift, coding.scale) == (coding.fill, 1.0):
        return "0: it is constant"
    else:
        scaled = (coding.shift, coding.scale) != (0.0, 1.0)
        text, fill = "standardized" if scaled else "as it is", f"{coding.fill:.6g}"
    return text + (f"; missing: {fill} and 1 column more" if coding.missing else "")
