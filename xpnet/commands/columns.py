"""Numbers and settings as text in columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpnet.commands.several import joined
from xpnet.errors import one_line

__all__ = ["cell", "in_columns"]

WIDEST_CELL = 28


def cell(value: Any, digits: int | None = None) -> str:
    """A value as text in a line: a setting as in config.toml, a score with some digits."""
    if value is None:
        return "-"
    if isinstance(value, float) and digits is not None:
        return f"{value:.{digits}f}" if 10.0**-digits <= abs(value) < 1e6 else f"{value:.3g}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        value = joined(value)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= WIDEST_CELL else f"...{text[3 - WIDEST_CELL :]}"


def in_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text in columns: the first one from the left, the others to the right."""
    header, *rows = [[one_line(text) for text in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        first, *rest = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"
