"""Write a diagram as SVG: the circuit from left to right, values green, gradients red."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise

from xpnet.show.draw.diagram import INK, Diagram, Span
from xpnet.show.draw.layout import Item
from xpnet.show.draw.page import (
    AIM,
    CHARACTER,
    EDGE,
    FONT,
    LANE,
    LINE,
    Page,
    corner,
    line_width,
    width_of,
)

__all__ = ["to_svg"]


def to_svg(drawing: Diagram, width: float = 1100.0) -> str:
    """Return the SVG; columns beyond about `width` pixels continue in a row below."""
    page = Page(drawing, width)
    parts = [part for i in range(len(page.drawing.wires)) for part in _wire(page, i)]
    parts += [part for item in page.rank if item.box for part in _box(page, item)]
    right, bottom = page.edge, page.bottoms[-1] + 6
    for words in _legend(drawing):
        bottom += LINE
        text = f'<text class="plain" style="text-anchor: start" x="{page.side}" y="{bottom:.1f}">'
        parts.append(f"{text}{escape(words)}</text>")
        right = max(right, page.side + width_of(words))
    return _document(parts, right + page.side, bottom + EDGE)


def _wire(page: Page, i: int) -> list[str]:
    """Draw a wire's path, and the words at its end."""
    wire, way, y = page.drawing.wires[i], page.layout.ways[i], page.layout.y
    level = [y[item] for item in way]
    level[-1] += page.ports[i]
    path = [f"M{page.middle(way[0]) + page.sizes[wire.source][0] / 2:.1f},{level[0]:.1f}"]
    for (a, b), (y0, y1) in zip(pairwise(way), pairwise(level), strict=True):
        here, there = page.columns[page.rank[a]], page.columns[page.rank[b]]
        start = there.left - there.words
        if here.row == there.row:
            bend = (here.right + start) / 2
            path.append(
                f"H{here.right:.1f} C{bend:.1f},{y0:.1f} {bend:.1f},{y1:.1f} {start:.1f},{y1:.1f}"
            )
        else:
            lane = LANE * (page.turns[page.rank[a]].index(i) + 1)
            path.append(
                f"H{page.edge + lane:.1f} V{page.bottoms[here.row] + lane:.1f} "
                f"H{page.side - lane:.1f} V{y1:.1f} H{start:.1f}"
            )
    last = page.columns[page.rank[way[-1]]]
    x0, x1 = last.left - AIM, page.middle(way[-1])
    dx, dy = page.rim(wire.target, page.ports[i])
    x1, y1 = x1 - dx, y[way[-1]] + dy
    path.append(f"H{x0:.1f} L{x1:.1f},{y1:.1f}")
    color = page.colors.get(wire.source)
    stroke, fill = (f' style="{what}: {color}"' if color else "" for what in ("stroke", "fill"))
    parts = [f'<path d="{" ".join(path)}"{stroke}/>']
    parts.append(_arrow(x1, y1, x1 - x0, y1 - level[-1], fill))
    middle = last.left - AIM - (last.words - AIM) / 2
    for k, text in enumerate(reversed(wire.value)):
        parts.append(_text(middle, level[-1] - 5 - k * LINE, [(text, "value")]))
    for k, text in enumerate(wire.grad):
        parts.append(_text(middle, level[-1] + LINE - 2 + k * LINE, [(text, "grad")]))
    return parts


def _box(page: Page, item: Item) -> list[str]:
    box = page.drawing.boxes[item.box or ""]
    x, y = page.middle(item), page.layout.y[item]
    width, height = page.sizes[box.name]
    parts = []
    if box.kind in ("gate", "layer"):
        parts.append(
            f'<rect class="{box.kind}" x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" '
            f'width="{width:.1f}" height="{height:.1f}" '
            f'rx="{corner(box, width, height):.1f}"/>'
        )
    first = y - LINE * (len(box.lines) - 1) / 2 + FONT * 0.35
    return parts + [_text(x, first + k * LINE, line) for k, line in enumerate(box.lines)]


def _legend(drawing: Diagram) -> list[str]:
    """Explain the signs that the picture contains."""
    if not drawing.traced:
        return []
    words = [word for wire in drawing.wires for word in wire.value + wire.grad]
    inks = {span for box in drawing.boxes.values() for line in box.lines for span in line}
    last = drawing.wires[-1].value
    return [
        "green: value, red: gradient",
        *(["of an array: its shape and norm"] if any("norm " in word for word in words) else []),
        *(
            ["red Σ: the sum of the gradients that come back"]
            if any(text.startswith("Σ ") and ink == "grad" for text, ink in inks)
            else []
        ),
        *(
            ["the gradients are those of the sum of the output"]
            if len(last) > 1 or last[0].startswith("[")
            else []
        ),
    ]


def _arrow(x: float, y: float, dx: float, dy: float, style: str) -> str:
    """Draw a wire's head at (x, y) in the direction (dx, dy)."""
    length = math.hypot(dx, dy)
    ux, uy = dx / length, dy / length
    bases = [(x - 7 * ux + s * 3.5 * uy, y - 7 * uy - s * 3.5 * ux) for s in (1, -1)]
    corners = " ".join(f"{px:.1f},{py:.1f}" for px, py in [(x, y), *bases])
    return f'<polygon points="{corners}"{style}/>'


def _text(x: float, y: float, line: Sequence[Span]) -> str:
    """Draw a line centred at x. Each span is its own text, since some renderers misplace parts."""
    at = x - line_width(line) / 2
    parts = []
    for text, ink in line:
        wide = width_of(text)
        words = escape(text.replace(" ", "\u00a0"))  # no renderer collapses this space
        parts.append(f'<text class="{ink}" x="{at + wide / 2:.1f}" y="{y:.1f}">{words}</text>')
        at += wide + CHARACTER
    return "".join(parts)


def _document(parts: list[str], width: float, height: float) -> str:
    inks = " ".join(f".{name} {{ fill: {color}; }}" for name, color in INK.items())
    style = (
        "text { font: 13px 'DejaVu Sans Mono', Menlo, Consolas, monospace; "
        f"text-anchor: middle; }} {inks} .name {{ font-weight: bold; }} "
        "path { fill: none; stroke: #8a8a8a; stroke-width: 1.2; } polygon { fill: #8a8a8a; } "
        "rect { fill: #fff; stroke: #333; stroke-width: 1.2; } rect.layer { fill: #f4f6fa; }"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">\n<style>{style}</style>\n'
        '<rect width="100%" height="100%" style="fill: #fff; stroke: none"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
