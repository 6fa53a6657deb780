"""Place a diagram on a page: break its columns into rows, then place boxes and wires' ends.

All lengths are in pixels.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from xpnet.show.draw.diagram import Box, Diagram, Span, Wire
from xpnet.show.draw.layout import Item, Layout, arrange, ranked

__all__ = [
    "AIM",
    "CHARACTER",
    "COLORS",
    "EDGE",
    "FONT",
    "LANE",
    "LINE",
    "Page",
    "corner",
    "line_width",
    "width_of",
]

FONT = 13
LINE = 16  # from one line of text to the next
CHARACTER = 0.62 * FONT  # width of a character in the widest usual monospaced font
PAD = 8
MARGIN = 12  # between two boxes of a column
CURVE = 32  # the part of a gap in which a wire changes its height
AIM = 14  # the part in which it turns to its target
EDGE = 14  # around the picture
LANE = 10  # between wires that continue in the next row
# Wires that fork, or that continue in the next row, are hard to follow if all are grey.
COLORS = (
    "#3b6fb6", "#d9822b", "#7e57a8", "#2b9484", "#a3623f", "#b8479c", "#6b7a1f", "#1f8fb0",
    "#4d4d9f", "#a88600",
)  # fmt: skip


@dataclass
class Column:
    """The place of a column of boxes; `words` is the room before it for the wires' words."""

    width: float
    words: float
    row: int = 0
    left: float = 0.0

    @property
    def right(self) -> float:
        return self.left + self.width


class Page:
    """The places of all boxes and wires of a diagram; `limit` is the width of a row."""

    def __init__(self, drawing: Diagram, limit: float) -> None:
        drawing, ranks, rows = _broken(drawing, limit)
        self.drawing = drawing
        self.sizes = _sizes(drawing)
        self.ports, self.heights = _ports(drawing, self.sizes)
        self.layout = arrange(drawing, ranks, rows, self.heights, self.ports, MARGIN)
        self.columns = _columns(drawing, ranks, self.sizes, rows)
        self.rank = {item: r for r, items in enumerate(self.layout.columns) for item in items}
        self.turns = _turns(self.layout, self.columns, self.rank)
        self.side = EDGE + LANE * max(map(len, self.turns.values()), default=0)
        self.bottoms = self._place()
        self.edge = max(column.right for column in self.columns)
        self.colors = self._colors()

    def _place(self) -> list[float]:
        """Set the columns' left edges and the items' heights; return the rows' lower ends."""
        x = float(self.side)
        for r, column in enumerate(self.columns):
            if r and column.row != self.columns[r - 1].row:
                x = self.side + LANE
            elif r:
                x += CURVE
            column.left = x + column.words
            x = column.right
        y, bottoms, top = self.layout.y, list[float](), float(EDGE)
        for row in range(self.columns[-1].row + 1):
            items = [item for item, r in self.rank.items() if self.columns[r].row == row]
            half = {item: self.heights[item.box] / 2 if item.box else 0.0 for item in items}
            shift = top - min(y[item] - half[item] for item in items)
            for item in items:
                y[item] += shift
            bottoms.append(max(y[item] + half[item] for item in items))
            leaving = sum(len(w) for r, w in self.turns.items() if self.columns[r].row == row)
            top = bottoms[-1] + LANE * (leaving + 1) + MARGIN
        return bottoms

    def middle(self, item: Item) -> float:
        column = self.columns[self.rank[item]]
        return column.left + column.width / 2

    def _colors(self) -> dict[str, str]:
        """Return a colour for each source whose wires fork or turn beside others.

        One such source alone needs no colour.
        """
        sources = [wire.source for wire in self.drawing.wires]
        turning = {sources[i] for wires in self.turns.values() if len(wires) > 1 for i in wires}
        marked = [n for n in dict.fromkeys(sources) if n in turning or sources.count(n) > 1]
        if len(marked) < 2:
            return {}
        return {name: COLORS[i % len(COLORS)] for i, name in enumerate(marked)}

    def rim(self, name: str, port: float) -> tuple[float, float]:
        """Return where a wire meets its target: how far left of its centre, and how far below."""
        width, height = self.sizes[name]
        radius = corner(self.drawing.boxes[name], width, height)
        # The wires' ends on the rim are closer together than their ports.
        most = max(0.6 * height / 2, height / 2 - 10)
        dy = max(-most, min(most, 0.6 * port))
        over = max(0.0, abs(dy) - (height / 2 - radius))
        return width / 2 - radius + math.sqrt(max(radius**2 - over**2, 0.0)), dy


def width_of(text: str) -> float:
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return CHARACTER * (len(text) + wide)


def line_width(line: Sequence[Span]) -> float:
    return sum(width_of(text) for text, _ in line) + CHARACTER * (len(line) - 1)


def _sizes(drawing: Diagram) -> dict[str, tuple[float, float]]:
    return {name: _size(box) for name, box in drawing.boxes.items()}


def _size(box: Box) -> tuple[float, float]:
    """Return the width and height of a box without the words at its wires."""
    if box.kind == "end":
        return 0.0, 0.0
    width = max(map(line_width, box.lines))
    height = LINE * len(box.lines)
    if box.kind == "input":
        return width + PAD, height + 2
    return max(width + 2 * PAD, 36.0), max(height + 1.5 * PAD, 36.0)


def corner(box: Box, width: float, height: float) -> float:
    """Return the radius of a box's corners; a gate has round ends."""
    return min(18.0, width / 2, height / 2) if box.kind == "gate" else min(6.0, height / 2)


def _ports(
    drawing: Diagram, sizes: dict[str, tuple[float, float]]
) -> tuple[list[float], dict[str, float]]:
    """Return how far below its target's centre each wire ends, and the boxes' full heights.

    A full height includes the words at the wires that arrive.
    """
    arriving: dict[str, list[int]] = {name: [] for name in drawing.boxes}
    for i, wire in enumerate(drawing.wires):
        arriving[wire.target].append(i)
    ports, heights = [0.0] * len(drawing.wires), {name: size[1] for name, size in sizes.items()}
    for name, wires in arriving.items():
        above = [LINE * len(drawing.wires[i].value) + 8 for i in wires]
        below = [LINE * len(drawing.wires[i].grad) + 8 for i in wires]
        if len(wires) == 1:  # a single wire meets the middle
            heights[name] = max(heights[name], 2.0 * max(above[0], below[0]))
            continue
        total = sum(above) + sum(below)
        top = -total / 2
        for i, a, b in zip(wires, above, below, strict=True):
            ports[i] = top + a
            top += a + b
        heights[name] = max(heights[name], float(total))
    return ports, heights


def _columns(
    drawing: Diagram,
    ranks: dict[str, int],
    sizes: dict[str, tuple[float, float]],
    rows: Sequence[int],
) -> list[Column]:
    """Return the columns, each with its width, the room for words before it, and its row."""
    columns = [Column(0.0, 0.0, row) for row in rows]
    for name, r in ranks.items():
        columns[r].width = max(columns[r].width, sizes[name][0])
    for wire in drawing.wires:
        column = columns[ranks[wire.target]]
        longest = max(map(width_of, [*wire.value, *wire.grad]), default=0.0)
        column.words = max(column.words, longest + 8 + AIM)
    return columns


def _broken(drawing: Diagram, limit: float) -> tuple[Diagram, dict[str, int], list[int]]:
    """Break the columns into rows of about `limit`; return the ranks and each column's row too.

    An input that several rows use appears in each of them, so no wire leads from row to row.
    """
    ranks, sizes = ranked(drawing), _sizes(drawing)
    count = max(ranks.values()) + 1
    columns = _columns(drawing, ranks, sizes, [0] * count)
    rows, used = [0], columns[0].width
    for r in range(1, count):
        needed = columns[r].words + columns[r].width + CURVE
        turn = used + needed > limit and r < count - 1  # the output's end gets no row of its own
        rows.append(rows[-1] + turn)
        used = needed if turn else used + needed

    boxes, wires = dict(drawing.boxes), []
    for wire in drawing.wires:
        box, row = boxes[wire.source], rows[ranks[wire.target]]
        # An input in the last column of the row above moves below instead (see the loop below).
        if box.kind == "input" and row > rows[min(ranks[wire.source] + 1, count - 1)]:
            name = f"{box.name}\0{row}"
            boxes[name] = Box(name, "input", box.lines)
            ranks[name] = min(ranks.get(name, count), ranks[wire.target] - 1)
            wire = Wire(name, wire.target, wire.value, wire.grad)
        wires.append(wire)
    drawing = Diagram(boxes, wires)

    # The inputs of a row's first gates belong into that row: they get a column there.
    leading = {wire.target for wire in drawing.wires}
    for r in reversed(range(1, count)):
        moved = [n for n in ranks if ranks[n] == r - 1 and n not in leading]
        moved = [n for n in moved if all(ranks[w.target] >= r for w in wires if w.source == n)]
        if rows[r] != rows[r - 1] and moved:
            ranks = {n: q + 1 if q >= r or n in moved else q for n, q in ranks.items()}
            rows.insert(r, rows[r])
    return drawing, ranks, rows


def _turns(layout: Layout, columns: list[Column], rank: dict[Item, int]) -> dict[int, list[int]]:
    """Return, for each column that ends a row, the wires that continue in the next row."""
    turns: dict[int, list[int]] = {}
    for i, way in enumerate(layout.ways):
        for a, b in pairwise(way):
            if columns[rank[a]].row != columns[rank[b]].row:
                turns.setdefault(rank[a], []).append(i)
    return turns
