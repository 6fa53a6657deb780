"""Columns of text that no encoding makes useful: ids, dates and times, free text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import numpy as np

from xpnet.data.cells import is_number
from xpnet.data.coding import frequencies
from xpnet.data.table import Column, Table
from xpnet.errors import DataError, listed, shown

__all__ = ["columns_have", "counts_rows", "refuse_unfit", "refuse_words_among_numbers"]

# A text column is refused as an id where at least this share of its texts differ, and as free text
# where half of them do and have four words on average. Of fewer rows nobody can tell.
FEW = 20
ID_SHARE = 0.95
FREE_SHARE, FREE_WORDS = 0.5, 4
# A text column is refused as one of numbers where at least this share of its cells, and at least
# FEW different ones, are numbers.
MOSTLY = 0.8

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
ELAPSED = rf"-?\d+ days?,? [+-]?{CLOCK}"  # 2 days 01:30:00
WHEN = re.compile(rf"{WEEKDAY}({DATE})((t|,? ){TIME})?|{TIME}|{ELAPSED}", re.ASCII | re.IGNORECASE)


def refuse_unfit(table: Table) -> None:
    """Refuse the columns that no encoding makes useful, all in one message.

    Raises
    ------
    DataError
    """
    reasons: dict[str, list[str]] = {}
    refuse_words_among_numbers(table)
    for column in table.columns:
        if reason := _unfit(column):
            reasons.setdefault(reason, []).append(column.name)
    if not reasons:
        return
    said = (f"{columns_have(names)} {reason}" for reason, names in reasons.items())
    drop = {name for names in reasons.values() for name in names}
    names = [name for name in table.names if name in drop]
    raise DataError(
        f"{table.name}: {'; '.join(said)}; leave out what you cannot turn into numbers or groups: "
        f"--drop {shlex.quote(','.join(names))} (Python: drop the columns from the table)"
    )


def refuse_words_among_numbers(table: Table) -> None:
    """Refuse a column of numbers in which some cells are words: it would become categories.

    Raises
    ------
    DataError
    """
    for column in table.columns:
        _refuse_words(column, table)


def _refuse_words(column: Column, table: Table) -> None:
    if column.codes is None or column.date:
        return
    counts = frequencies(column)
    words = {value for value in counts if not is_number(value)}
    number = sum(count for value, count in counts.items() if value not in words)
    if len(counts) - len(words) < FEW or number < MOSTLY * sum(counts.values()) or not words:
        return
    codes = [code for code, value in enumerate(column.values) if value in words]
    row = int(np.argmax(np.isin(column.codes, codes)))
    raise DataError(
        f"{table.place(row)}, column {listed([column.name])}: got "
        f"{shown(column.values[column.codes[row]])}, but {number:,} of "
        f"{sum(counts.values()):,} values are numbers; correct it, or write NA if there is no "
        f"value, or leave the column out: --drop {shlex.quote(column.name)}"
    )


def _unfit(column: Column) -> str:
    """Why a network cannot use the column; "" if it can. It ends a sentence on several columns."""
    if column.codes is None:
        return ""
    counts = frequencies(column)
    present, rows = [*counts], sum(counts.values())
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


def counts_rows(numbers: np.ndarray | None) -> bool:
    """Whether whole numbers from 0 or 1 rise with every row; some rows may be in another part."""
    if numbers is None or len(numbers) < FEW:
        return False
    first, last = numbers[0], numbers[-1]
    if not (0 <= first <= FEW and last <= first + 2 * len(numbers)):  # false for NaN too
        return False
    return bool((np.diff(numbers) >= 1).all() and (numbers == np.floor(numbers)).all())


def columns_have(names: Sequence[str]) -> str:
    noun, verb = ("column", "has") if len(names) == 1 else ("columns", "have")
    return f"{noun} {listed(map(shown, names), 10)} {verb}"
