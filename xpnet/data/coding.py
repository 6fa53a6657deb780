"""How one column of a table becomes features: what a coding holds, and what it computes."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.data.cells import is_gap, is_number, is_plain
from xpnet.data.table import Column, Table
from xpnet.errors import DataError, listed, shortened, shown

__all__ = [
    "BOOLEAN", "CATEGORIES", "LEFT_OUT", "MOST_CATEGORIES", "NUMBER", "Coding", "figure",
    "frequencies", "numbers_of", "places_of", "refuse_infinite",
]  # fmt: skip

# What a column becomes.
NUMBER, BOOLEAN, CATEGORIES, LEFT_OUT = "number", "boolean", "categories", "left out"

MOST_CATEGORIES = 10_000

# What plain data hold of a coding, beside name and kind.
FIELDS = {
    NUMBER: ("fill", "missing", "shift", "scale"),
    BOOLEAN: ("fill", "missing"),
    CATEGORIES: ("values", "other", "missing"),
    LEFT_OUT: ("reason",),
}

# Places that are none, in the lookup from a table's texts to the features of a column.
UNSEEN, UNKNOWN = -1, -2
NEW, GAP = "a value that the training did not have", "no value, which the training always had"


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

    def plain(self) -> dict[str, Any]:
        """Return the coding as values that JSON knows."""
        keys = ("name", "kind", *FIELDS[self.kind])
        values = {"values": list(self.values)} if self.kind == CATEGORIES else {}
        return {key: getattr(self, key) for key in keys} | values

    @classmethod
    def from_plain(cls, plain: Any) -> Coding:
        """Return the coding of which `plain` is the plain data.

        Raises
        ------
        ValueError
            It is not as `plain` gives it.
        """
        kind = plain.get("kind") if isinstance(plain, dict) else None
        if not isinstance(kind, str) or kind not in FIELDS:
            raise ValueError("it is of no known kind")
        if plain.keys() != {"name", "kind", *FIELDS[kind]}:
            raise ValueError(f"it has not the keys of kind {kind}")
        for key, value in plain.items():
            if not _fits(kind, key, value):
                raise ValueError(f"{key} is {shown(value)}, which cannot be")
        numbers = {key: float(plain[key]) for key in ("fill", "shift", "scale") if key in plain}
        values = {"values": tuple(plain["values"])} if kind == CATEGORIES else {}
        return cls(**(plain | numbers | values))


def _fits(kind: str, key: str, value: Any) -> bool:
    """Whether plain data of this kind may have this value."""
    if key in ("name", "kind", "reason"):
        return isinstance(value, str)
    if key in ("missing", "other"):
        return type(value) is bool
    if key == "values":
        listed = isinstance(value, list) and 0 < len(value) <= MOST_CATEGORIES
        return listed and all(isinstance(v, str) for v in value) and len(set(value)) == len(value)
    # JSON has whole numbers of any size.
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
        return False
    return value > 0 if key == "scale" else kind == NUMBER or value in (0, 1)


def frequencies(column: Column) -> dict[str, int]:
    """How many rows have each text of a column: the most frequent first, then by name."""
    assert column.codes is not None
    counts = np.bincount(column.codes + 1, minlength=len(column.values) + 1)[1:].tolist()
    pairs = sorted((-n, text) for text, n in zip(column.values, counts, strict=True) if n)
    return {text: -n for n, text in pairs}


# -- Encoding a column -----------------------------------------------------------------


def numbers_of(
    coding: Coding, column: Column, table: Table
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The numbers of a column, which rows lack one, and what is to be said of these.

    Raises
    ------
    DataError
        One is text, infinite, or neither true nor false where it has to be.
    """
    numbers = _read(coding, column, table)
    gaps = np.isnan(numbers)
    count = int(np.count_nonzero(gaps))
    if not count:
        return numbers, gaps, []
    said = [] if coding.missing else [_said(coding, count, GAP)]
    return np.where(gaps, coding.fill, numbers), gaps, said


def _read(coding: Coding, column: Column, table: Table) -> np.ndarray:
    """The numbers of a column, NaN where they are missing."""
    truth = coding.kind == BOOLEAN
    if column.numbers is not None:
        refuse_infinite(column, table)
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


def refuse_infinite(column: Column, table: Table) -> None:
    """Refuse an infinite number.

    Raises
    ------
    DataError
    """
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


def places_of(coding: Coding, column: Column) -> tuple[np.ndarray, list[str]]:
    """For each row, the number of the feature that is 1, or -1; and what is to be said of some."""
    texts = _as_text(column)
    assert texts.codes is not None
    find = _finder(coding.values, numeric=column.numbers is not None)
    rest = len(coding.values) if coding.other else UNSEEN
    gap = len(coding.values) + coding.other if coding.missing else UNKNOWN
    # The last one is for code -1: missing.
    lookup = np.array([*(find(value, rest) for value in texts.values), gap], np.int32)
    places = lookup[texts.codes]
    said = []
    # In a selection of rows there may be texts that no row has.
    if (lookup < 0).any() and (places < 0).any():
        if unseen := int(np.count_nonzero(places == UNSEEN)):
            new = [text for text in frequencies(texts) if find(text, rest) == UNSEEN]
            said.append(_said(coding, unseen, f"{NEW} ({_few(new)})"))
        if gaps := int(np.count_nonzero(places == UNKNOWN)):
            said.append(_said(coding, gaps, GAP))
        places = np.maximum(places, -1)
    return places, said


def _said(coding: Coding, count: int, what: str) -> str:
    stands = {
        NUMBER: f"the median {figure(coding.fill)}",
        BOOLEAN: "true" if coding.fill else "false",
        CATEGORIES: "none",
    }[coding.kind]
    rows, counts = (
        ("1 row has", "it counts") if count == 1 else (f"{count:,} rows have", "they count")
    )
    return f"column {shown(coding.name)}: {rows} {what}: {counts} as {stands}"


def _as_text(column: Column) -> Column:
    """A column of numbers or truth values as one of text, 1 for 1.0."""
    if column.numbers is None:
        return column
    # Zero has no sign; of NaN there is one at most, the last.
    numbers, codes = np.unique(column.numbers + 0.0, return_inverse=True)
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


def figure(number: float) -> str:
    """A number for people: six digits, or all of a whole number."""
    return f"{number:.0f}" if number.is_integer() and abs(number) < 1e9 else f"{number:.6g}"


def _few(texts: Sequence[str], most: int = 3) -> str:
    return listed(texts[:most]) + (", ..." if len(texts) > most else "")
