"""Write a diagram as text for other programs: Graphviz's DOT, and Mermaid."""

from __future__ import annotations

from html import escape

from xpnet.show.draw.diagram import INK, Box, Diagram, Ink

__all__ = ["to_dot", "to_mermaid"]


def to_dot(drawing: Diagram) -> str:
    """Write the diagram in Graphviz's language; ``dot -Tpdf`` makes a picture of it."""
    lines = [
        "digraph circuit {",
        '  rankdir=LR; node [fontname="monospace", fontsize=11]; '
        'edge [fontname="monospace", fontsize=10, color="#8a8a8a"];',
    ]
    numbers = {name: f"n{i}" for i, name in enumerate(drawing.boxes)}
    shapes = {"input": "plaintext", "gate": "ellipse", "layer": "box", "end": "none"}
    for name, box in drawing.boxes.items():
        size = ", width=0, height=0" if box.kind == "end" else ""
        label = "<br/>".join(
            " ".join(_font(text, INK[ink]) for text, ink in line) for line in box.lines
        )
        quoted = f"<{label}>" if label else '""'
        lines.append(f"  {numbers[name]} [shape={shapes[box.kind]}, label={quoted}{size}];")
    for wire in drawing.wires:
        words = [_font(text, INK["value"]) for text in wire.value]
        words += [_font(text, INK["grad"]) for text in wire.grad]
        label = f" [label=<{'<br/>'.join(words)}>]" if words else ""
        lines.append(f"  {numbers[wire.source]} -> {numbers[wire.target]}{label};")
    return "\n".join([*lines, "}", ""])


def _font(text: str, color: str) -> str:
    return f'<font color="{color}">{escape(text)}</font>'


def to_mermaid(drawing: Diagram) -> str:
    """Write the diagram in Mermaid's language; GitHub and GitLab draw it in Markdown."""
    lines = ["flowchart LR"]
    numbers = {name: f"n{i}" for i, name in enumerate(drawing.boxes)}
    ends = {"input": ("[", "]"), "gate": ("([", "])"), "layer": ("[", "]"), "end": ("((", "))")}
    for name, box in drawing.boxes.items():
        opened, closed = ends[box.kind]
        lines.append(f"  {numbers[name]}{opened}{_label(box)}{closed}")
    for wire in drawing.wires:
        words = [_span(text, "value") for text in wire.value]
        words += [_span(text, "grad") for text in wire.grad]
        label = f'|"{"<br/>".join(words)}"|' if words else ""
        lines.append(f"  {numbers[wire.source]} -->{label} {numbers[wire.target]}")
    return "\n".join([*lines, ""])


def _label(box: Box) -> str:
    lines = (" ".join(_span(text, ink) for text, ink in line) for line in box.lines)
    return f'"{"<br/>".join(lines) or " "}"'


def _span(text: str, ink: Ink) -> str:
    # Mermaid writes a character that has a meaning in labels as #code;
    safe = "".join(c if c.isalnum() or c in " .×" else f"#{ord(c)};" for c in text)
    return safe if ink in ("name", "plain") else f"<span style='color:{INK[ink]}'>{safe}</span>"
