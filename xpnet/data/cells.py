"""What one cell of text means: a number, a missing value, or a word.

Every reader of text asks these functions, so that a training file and a test file, a feature and a
label are read by the same rules.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

from xpnet.errors import shortened

__all__ = [
    "advice",
    "canonical",
    "is_gap",
    "is_misspelt",
    "is_missing",
    "is_number",
    "is_plain",
    "number",
    "shown",
    "truth",
]

# float() also takes 1_000, nan, inf and the digits of other scripts; these patterns do not.
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
# How programs write a number: 1, 1.0, .5, 1.000e+00; but 01 and 1E2 may be codes.
PLAIN = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+|\d\.\d+[eE][+-]?\d{1,3})", re.ASCII)
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)

MISSING = frozenset(("", "?", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null"))
TRUTHS = {"true": 1.0, "false": 0.0}
# A class may be called so, "-" beside "+" for example; among numbers these mean no value.
UNCERTAIN = frozenset(("none", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"))


def is_number(cell: str) -> bool:
    """Whether the cell is written as a number: 1, -2.5, 1e-3, 007; not 1_000, nan or inf."""
    return NUMBER.fullmatch(cell) is not None


def number(cell: str) -> float | None:
    """The number that the cell is, infinite if it is too large; None if it is no number.

    Examples
    --------
    >>> number("1e3"), number("1e999"), number("inf"), number("1_000")
    (1000.0, inf, None, None)
    """
    if not cell.isascii() or "_" in cell:  # float() takes them
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    if math.isnan(value) or (math.isinf(value) and not any(map(str.isdigit, cell))):
        return None
    return value


def truth(cell: str) -> float | None:
    """1.0 for true and 0.0 for false, in capitals or not; None for anything else."""
    return TRUTHS.get(cell.lower())


def is_misspelt(cell: str) -> bool:
    """Whether the cell is a number in a spelling that programs differ about: 1,5 or 1_000 or ٣."""
    if cell.isascii() and "_" not in cell and "," not in cell:
        return False
    if DECIMAL_COMMA.fullmatch(cell):
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return number(cell) is None


def is_plain(cell: str) -> bool:
    """Whether the cell is a number as programs write it, not a code such as 007 or 1E2."""
    return PLAIN.fullmatch(cell) is not None


def is_missing(cell: str) -> bool:
    """Whether the cell says that there is no value, in any column: empty, NA, ? ..."""
    return cell.lower() in MISSING


def is_gap(cell: str) -> bool:
    """Whether the cell says, in a column of numbers, that there is none: also -, inf or none."""
    return is_missing(cell) or cell.lower() in UNCERTAIN or not any(map(str.isalnum, cell))


def canonical(cell: str) -> str:
    """The one name of a plain number (1 for 1, +1, 1.0, 1.000e+00); any other cell as it is."""
    if not is_plain(cell):
        return cell
    text = format(Decimal(cell), "f").lstrip("+")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def advice(cell: str) -> str:
    """What you can do about a cell that is no finite number, in parentheses; may be empty."""
    cell = cell.strip()
    if is_gap(cell):
        return " (a missing value: fill it in, or leave the row out)"
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", cell, re.ASCII):
        return " (write no comma between thousands, and a point before decimals)"
    if DECIMAL_COMMA.fullmatch(cell):
        return " (a decimal comma: write a point)"
    if is_number(cell.replace("_", "")):
        return " (write the digits without _)"
    if any(separator in cell for separator in " ;\t|"):
        return " (separate the columns by comma, semicolon or tab)"
    return " (text: turn it into numbers, or leave the column out)" if cell.isalpha() else ""


def shown(cell: str) -> str:
    """A cell for a message, in quotes and not longer than a line."""
    return repr(shortened(cell))
