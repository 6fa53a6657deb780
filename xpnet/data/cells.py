"""What one cell of text means: a number, a missing value, or a word.

Every reader of text asks these functions, so that a training file and a test file, a feature and a
label are read by the same rules.
"""

from __future__ import annotations

import re
from decimal import Decimal

from xpnet.errors import shortened

__all__ = [
    "advice",
    "canonical",
    "is_gap",
    "is_missing",
    "is_number",
    "is_plain",
    "shown",
]

# float() also takes 1_000, nan, inf and the digits of other scripts; these patterns do not.
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
# How programs write a number: 1, 1.0, .5, 1.000e+00; but 01 and 1E2 may be codes.
PLAIN = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+|\d\.\d+[eE][+-]?\d{1,3})", re.ASCII)
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)

MISSING = frozenset(("", "?", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null"))
# A class may be called so, "-" beside "+" for example; among numbers these mean no value.
UNCERTAIN = frozenset(("none", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"))


def is_number(cell: str) -> bool:
    """Whether the cell is written as a number: 1, -2.5, 1e-3, 007; not 1_000, nan or inf."""
    return NUMBER.fullmatch(cell) is not None


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
