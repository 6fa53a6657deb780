"""What becomes of a table's columns, as text for people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xpnet.data.coding import BOOLEAN, CATEGORIES, LEFT_OUT, Coding, figure, frequencies
from xpnet.data.table import Column
from xpnet.errors import listed, one_line

__all__ = ["aligned", "described"]

HEADINGS = ("column", "kind", "values", "missing", "becomes")


def aligned(rows: Sequence[Sequence[str]], width: int = 100) -> list[str]:
    """Return rows of `Encoder.describe` as lines, below headings; long cells are cut to fit.

    Examples
    --------
    >>> for line in aligned([("age", "number", "0.42 to 80", "177", "standardized")]):
    ...     print(line)
    column  kind    values      missing  becomes
    age     number  0.42 to 80  177      standardized
    """
    table = [HEADINGS, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADINGS))]
    # Values are the easiest to spare, then names; then whatever is longest.
    for i, least in (
        (2, 22),
        (0, 20),
        (2, 12),
        *((i, 12) for i in np.argsort(widths)[::-1].tolist()),
    ):
        excess = sum(widths) + 2 * (len(widths) - 1) - width
        widths[i] = min(widths[i], max(least, widths[i] - max(0, excess)))
    cut = [[_cut(cell, w) for cell, w in zip(row, widths, strict=True)] for row in table]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cut]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def described(coding: Coding, column: Column | None) -> tuple[str, str, str, str, str]:
    """Describe a column: its name, kind, values, how many are missing, and what it becomes."""
    name = listed([coding.name])
    if column is None:
        return name, "", "", "", _becomes(coding, constant=False)
    gaps = int(np.count_nonzero(column.missing))
    kind, values = ("empty", "") if gaps == len(column) else _summary(column, gaps)
    missing = f"{gaps:,}" if gaps else ""
    return name, kind, values, missing, _becomes(coding, constant=kind == "constant")


def _summary(column: Column, gaps: int) -> tuple[str, str]:
    """The kind of a column and its values."""
    if column.numbers is None:
        texts = [*frequencies(column)]
        more = f", ... ({len(texts):,})" if len(texts) > 3 else ""
        kind, values = "categories", [*map(_printable, texts[:3])]
        values[-1] += more
    else:
        low, high = float(np.nanmin(column.numbers)), float(np.nanmax(column.numbers))
        if not column.boolean:
            same = low == high
            return (
                ("constant", figure(low))
                if same
                else ("number", f"{figure(low)} to {figure(high)}")
            )
        kind, values = "true/false", ["false"] * (low == 0) + ["true"] * (high == 1)
    return "constant" if len(values) == 1 and not gaps else kind, ", ".join(values)


def _becomes(coding: Coding, *, constant: bool) -> str:
    if coding.kind == LEFT_OUT:
        return one_line(f"left out: {coding.reason}")
    if coding.kind == CATEGORIES:
        count = len(coding.values)
        parts = [f"{count} column{'s' * (count > 1)}"]
        parts += ["other"] * coding.other + ["missing"] * coding.missing
        return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    if coding.kind == BOOLEAN:
        text, fill = "0 or 1", "true" if coding.fill else "false"
    elif constant and not coding.missing and (coding.shift, coding.scale) == (coding.fill, 1.0):
        return "0: it is constant"
    else:
        scaled = (coding.shift, coding.scale) != (0.0, 1.0)
        text, fill = "standardized" if scaled else "as it is", figure(coding.fill)
    return text + (f"; missing: {fill}, 1 column more" if coding.missing else "")


def _printable(text: str) -> str:
    return listed([text])
