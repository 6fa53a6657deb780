"""The encoder of a table: columns of numbers, true / false and text become features of a network.

It is fitted on the training rows, once, on the host, and then is part of the model. It holds plain
data: names, texts and numbers. It computes by float64 arithmetic of single elements, so the
features of a row are the same bits on every machine.
"""

from __future__ import annotations

import math
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from xpnet.data.checks import host
from xpnet.data.coding import (
    BOOLEAN,
    CATEGORIES,
    LEFT_OUT,
    MOST_CATEGORIES,
    NUMBER,
    Coding,
    frequencies,
    numbers_of,
    places_of,
    refuse_infinite,
)
from xpnet.data.dataset import Scaling
from xpnet.data.description import described
from xpnet.data.preparation import standardize
from xpnet.data.table import Column, Table
from xpnet.data.unfit import columns_have, counts_rows, refuse_unfit
from xpnet.errors import DataError, counted, listed, one_line, shown, whole

__all__ = ["Encoder"]

MOST_COLUMNS = 1_000_000
BLOCK_BYTES = 4 << 20


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
        refuse_unfit(table)
        for column in table.columns:
            refuse_infinite(column, table)
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
        columns, features = len(self.columns), self.width
        return f"<Encoder of {counted(columns, 'column')} into {counted(features, 'feature')}>"

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
        given, table = table, _as_table(table)
        texts = [coding.name for coding in self._used if coding.kind == CATEGORIES]
        if texts and given is not table and not table.named:
            raise DataError(
                f"x: got {type(given).__name__}, expected a data frame with columns by name: "
                f"{columns_have(texts)} text"
            )
        columns = self._columns_of(table)
        numbers, places, surprises, start = [], [], [], 0
        for coding, column in zip(self._used, columns, strict=True):
            if coding.kind == CATEGORIES:
                place, said = places_of(coding, column)
                places.append((start, place))
            else:
                filled, gaps, said = numbers_of(coding, column, table)
                numbers.append((start, filled))
                if coding.missing:
                    numbers.append((start + 1, gaps))
            surprises += said
            start += coding.width
        x = np.zeros((len(table), self.width))
        _write(x, numbers, places)
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
        return {"named": self.named, "columns": [coding.plain() for coding in self.codings]}

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
        codings = []
        for i, part in enumerate(columns):
            try:
                codings.append(Coding.from_plain(part))
            except ValueError as error:
                raise ValueError(f"column {i}: {error}") from None
        encoder = cls(tuple(codings), plain["named"])
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
        used = dict(zip(self.columns, self._columns_of(table), strict=True))
        others = {column.name: column for column in table.columns} if table.named else {}
        return [described(c, used.get(c.name, others.get(c.name))) for c in self.codings]


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


def _coding(column: Column, most: int) -> Coding:
    name, gaps = column.name, column.missing
    missing = bool(gaps.any())
    if gaps.all():
        return Coding(name, LEFT_OUT, reason="all missing")
    if column.numbers is None:
        values = tuple(frequencies(column))
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
    filled = [numbers_of(coding, column, table)[0] for coding, column in pairs]
    x = np.empty((len(table), len(pairs)))
    _write(x, [*enumerate(filled)])
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
        elif coding.kind == NUMBER and counts_rows(column.numbers):
            drop = shlex.quote(coding.name)
            notes.append(
                f"column {name} counts the rows; if it is no more than their number: --drop {drop}"
            )
    return tuple(one_line(note) for note in notes)


def _write(
    x: np.ndarray,
    numbers: Sequence[tuple[int, np.ndarray]],
    places: Sequence[tuple[int, np.ndarray]] = (),
) -> None:
    """Write features into x: columns of numbers, and a 1 at each place from a first feature on.

    It goes block by block, since each column of a large x touches all its memory.
    """
    width = x.shape[1]
    size = max(1, BLOCK_BYTES // (width * x.itemsize))
    starts = np.array([start for start, _ in places])
    for begin in range(0, len(x), size):
        block = x[begin : begin + size]
        for i, column in numbers:
            block[:, i] = column[begin : begin + size]
        if places:
            at = np.stack([place[begin : begin + size] for _, place in places], axis=1)
            ones = at + (starts + width * np.arange(len(block))[:, None])
            block.reshape(-1)[ones[at >= 0] if (at < 0).any() else ones.reshape(-1)] = 1.0


def _unique(name: str, taken: set[str]) -> str:
    """Return the name, with a number if it is taken, and enter it in `taken`."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name} ({count})"
    taken.add(free)
    return free
