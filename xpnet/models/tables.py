"""Write tables as plain text, Markdown and HTML."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Table"]


class Table(NamedTuple):
    """Rows of text under a header; `right` holds the indices of right-aligned columns."""

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    right: frozenset[int] = frozenset()

    def text(self) -> str:
        """Write the table with aligned columns, for a terminal."""
        lines = [self.header, *self.rows]
        widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
        rule = ["-" * width for width in widths]
        return "\n".join(
            "  ".join(
                f"{' ' * (width - _width(cell))}{cell}"
                if i in self.right
                else f"{cell}{' ' * (width - _width(cell))}"
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in (self.header, rule, *self.rows)
        )

    def markdown(self) -> str:
        """Write the table in GitHub's Markdown."""
        rule = ["---:" if i in self.right else "---" for i in range(len(self.header))]

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cells) + " |"

        rows = [[_literal(cell) for cell in row] for row in self.rows]
        return "\n".join(map(line, [self.header, rule, *rows]))

    def html(self) -> str:
        """Write the table as an HTML element."""

        # Said for each cell, since notebooks align all cells to the right otherwise.
        sides = ("right" if i in self.right else "left" for i in range(len(self.header)))
        styles = [f' style="text-align: {side}"' for side in sides]

        def line(cells: Sequence[str], tag: str) -> str:
            inside = zip(cells, styles, strict=True)
            words = "".join(f"<{tag}{style}>{escape(cell)}</{tag}>" for cell, style in inside)
            return f"<tr>{words}</tr>"

        body = "\n".join(line(row, "td") for row in self.rows)
        return (
            f"<table>\n<thead>{line(self.header, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n"
            "</table>"
        )


def _width(cell: str) -> int:
    """Return the number of places that a text takes: an accent above a letter takes none."""
    return sum(not unicodedata.combining(character) for character in cell)


def _literal(cell: str) -> str:
    """Escape the characters of a cell that have a meaning in Markdown."""
    return "".join(f"\\{c}" if c in "\\|*_[]<>`" else c for c in cell)
