"""Place boxes and wires in columns from left to right, with few crossings and straight wires.

The method follows K. Sugiyama, S. Tagawa, M. Toda, "Methods for visual understanding of
hierarchical system structures", 1981. Each rank has a column. A wire that passes a column has a
placeholder there. Repeated averaging over the neighbours gives the order within columns, and then
the heights.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from xpnet.show.draw.diagram import Diagram

__all__ = ["Item", "Layout", "arrange", "ranked"]

SWEEPS = 12


@dataclass(frozen=True)
class Item:
    """A box, or a placeholder where a wire passes a column."""

    box: str | None  # None for a placeholder of wire `wire`
    wire: int = -1
    rank: int = -1


# Per gap between columns: left item, right item, and how far below its centre the wire meets it.
Links = list[list[tuple[Item, Item, float]]]


@dataclass(frozen=True)
class Layout:
    """The columns of items from top to bottom, the path of each wire, and the items' heights."""

    columns: list[list[Item]]
    ways: list[list[Item]]  # per wire: its source, the placeholders between, its target
    y: dict[Item, float]  # of the item's centre, in pixels downwards


def arrange(
    drawing: Diagram,
    ranks: dict[str, int],
    rows: list[int],
    heights: dict[str, float],
    ports: list[float],
    margin: float,
) -> Layout:
    """Arrange a diagram.

    Parameters
    ----------
    drawing : Diagram
    ranks : dict of str to int
        The column of each box.
    rows : list of int
        The row of each column. Wires between rows do not influence the heights.
    heights : dict of str to float
        The height of each box with the words at its wires, in pixels.
    ports : list of float
        Per wire: how many pixels below its target's centre it ends.
    margin : float
        Pixels between two items of a column, and the height of a placeholder.
    """
    columns: list[list[Item]] = [[] for _ in range(max(ranks.values()) + 1)]
    items = {name: Item(name) for name in drawing.boxes}
    for name, item in items.items():
        columns[ranks[name]].append(item)
    ways = []
    for i, wire in enumerate(drawing.wires):
        between = [Item(None, i, r) for r in range(ranks[wire.source] + 1, ranks[wire.target])]
        for item in between:
            columns[item.rank].append(item)
        ways.append([items[wire.source], *between, items[wire.target]])
    links: Links = [[] for _ in columns]
    rank_of = {item: r for r, column in enumerate(columns) for item in column}
    for way, port in zip(ways, ports, strict=True):
        for left, right in pairwise(way):
            links[rank_of[left]].append((left, right, port if right.box else 0.0))
    columns = _ordered(columns, links)
    for r, (row, below) in enumerate(pairwise(rows)):
        if row != below:
            links[r] = []
    size = {item: heights[item.box] if item.box else margin for item in rank_of}
    return Layout(columns, ways, _heights(columns, links, size, margin))


def ranked(drawing: Diagram) -> dict[str, int]:
    """Return each box's rank: its longest path from an input; an input's is one below its user's.

    If several gates use an input, the one of lowest rank counts.
    """
    incoming: dict[str, list[str]] = {name: [] for name in drawing.boxes}
    for wire in drawing.wires:
        incoming[wire.target].append(wire.source)
    ranks: dict[str, int] = {}
    for name in drawing.boxes:  # in topological order
        ranks[name] = 1 + max((ranks[source] for source in incoming[name]), default=-1)
    for name in drawing.boxes:
        users = [ranks[wire.target] for wire in drawing.wires if wire.source == name]
        if not incoming[name] and users:
            ranks[name] = min(users) - 1
    return ranks


def _ordered(columns: list[list[Item]], links: Links) -> list[list[Item]]:
    """Sweep over the columns several times; return the order with the fewest crossings."""
    best, fewest = columns, _crossings(columns, links)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        columns = [list(column) for column in columns]
        forward = sweep % 2 == 1  # start at the output, since a gate's inputs have an order
        for r in range(len(columns)) if forward else reversed(range(len(columns))):
            near = r - 1 if forward else r + 1
            if not 0 <= near < len(columns):
                continue
            place = {item: float(i) for i, item in enumerate(columns[near])}
            wishes: dict[Hashable, list[float]] = {}
            for left, right, port in links[min(r, near)]:
                mine, other = (right, left) if forward else (left, right)
                # Two wires into one box keep the order of its ports.
                wishes.setdefault(mine, []).append(place[other] + (0 if forward else port * 1e-4))
            columns[r].sort(
                key=lambda item, w=wishes, c=columns[r][:]: (  # type: ignore[misc]
                    sum(w[item]) / len(w[item]) if item in w else float(c.index(item))
                )
            )
        if (count := _crossings(columns, links)) < fewest:
            best, fewest = columns, count
    return best


def _crossings(columns: list[list[Item]], links: Links) -> int:
    place = {item: i for column in columns for i, item in enumerate(column)}
    count = 0
    for gap in links:
        ends = [(place[left], place[right] + port * 1e-4) for left, right, port in gap]
        count += sum((a - c) * (b - d) < 0 for i, (a, b) in enumerate(ends) for c, d in ends[:i])
    return count


def _heights(
    columns: list[list[Item]], links: Links, size: dict[Item, float], margin: float
) -> dict[Item, float]:
    """Return the heights of the items' centres: wires nearly level, and no box overlaps."""
    y: dict[Item, float] = {}
    for column in columns:
        top = 0.0
        for item in column:
            y[item] = top + size[item] / 2
            top += size[item] + margin
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 1
        for r in range(len(columns)) if forward else reversed(range(len(columns))):
            near = r - 1 if forward else r + 1
            if not 0 <= near < len(columns):
                continue
            wishes: dict[Item, list[float]] = {item: [] for item in columns[r]}
            for left, right, port in links[min(r, near)]:
                if forward:
                    wishes[right].append(y[left] - port)
                else:
                    wishes[left].append(y[right] + port)
            wanted = [
                sum(wishes[item]) / len(wishes[item]) if wishes[item] else y[item]
                for item in columns[r]
            ]
            gaps = [(size[a] + size[b]) / 2 + margin for a, b in pairwise(columns[r])]
            y.update(zip(columns[r], _apart(wanted, gaps), strict=True))
    return y


def _apart(wanted: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """Return the places that keep the gaps and are nearest to `wanted` (least squares).

    With the gaps subtracted, places must not decrease (isotonic regression): neighbours that
    would decrease share their mean.
    """
    offsets = [0.0]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    pools: list[tuple[float, int]] = []  # (sum, count)
    for want, offset in zip(wanted, offsets, strict=True):
        total, count = want - offset, 1
        while pools and pools[-1][0] * count > total * pools[-1][1]:
            before = pools.pop()
            total, count = total + before[0], count + before[1]
        pools.append((total, count))
    means = [total / count for total, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]
