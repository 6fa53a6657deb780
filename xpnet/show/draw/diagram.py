"""Turn a graph into boxes and labelled wires; one box may show a whole layer."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from xpnet.arrays.ops import Array, is_real, namespace, norm
from xpnet.graph.node import Node, Trace
from xpnet.layers.normalization import BatchNorm
from xpnet.show.notes import symbol_of

__all__ = ["INK", "Box", "Diagram", "Span", "Wire", "diagram_of"]

Ink = Literal["name", "plain", "value", "grad"]
Span = tuple[str, Ink]
MOST = 400  # boxes; nobody can read a picture with more

INK: dict[Ink, str] = {
    "name": "#111111", "plain": "#555555", "value": "#176f2c", "grad": "#c0201c",
}  # fmt: skip


@dataclass(frozen=True)
class Box:
    """What the picture shows for one node, or for a layer of several nodes.

    An "input" shows its name, a "gate" a circle, a "layer" a frame. The output's wire leads to an
    "end".
    """

    name: str
    kind: Literal["input", "gate", "layer", "end"]
    lines: list[list[Span]]


@dataclass(frozen=True)
class Wire:
    """A wire from one box to another, with `value` above it and `grad` below.

    The wires to a box are in the order of its inputs.
    """

    source: str
    target: str
    value: list[str]
    grad: list[str]


@dataclass(frozen=True)
class Diagram:
    """Boxes in topological order, and the wires between them."""

    boxes: dict[str, Box]
    wires: list[Wire] = field(default_factory=list)

    @property
    def traced(self) -> bool:
        """Whether a wire shows a value."""
        return any(wire.value for wire in self.wires)


def diagram_of(nodes: list[Node], trace: Trace | None, *, expand: bool = False) -> Diagram:
    """Build the diagram of a graph.

    Parameters
    ----------
    nodes : list of Node
        In topological order; the last node is the output.
    trace : Trace or None
        Values and gradients. Without a trace, the diagram shows only the structure.
    expand : bool
        Draw every gate. By default one box shows a layer, its parameters and its activation.

    Raises
    ------
    ValueError
        The diagram would have too many boxes.
    """
    # An optional input without a value (a weight, the step of dropout) is not drawn.
    given = {n.name for n in nodes if not n.optional} if trace is None else set(trace.values)
    shown = [node for node in nodes if node.name in given or node is nodes[-1]]
    heads = {} if expand else _layers(nodes)
    home = {node.name: heads.get(node.name, node.name) for node in shown}
    if (count := len(set(home.values()))) > MOST:
        raise ValueError(
            f"{count:,} boxes are too many to draw, {MOST} is the most; choose an output that "
            "depends on fewer"
        )
    by_name = {node.name: node for node in nodes}
    members: dict[str, list[Node]] = {}
    for node in shown:
        members.setdefault(home[node.name], []).append(node)
    users = _users(shown)
    boxes = {}
    last = {name: i for i, name in enumerate(home.values())}
    for name in sorted(members, key=last.__getitem__):  # a layer takes its last gate's place
        boxes[name] = _box(name, members[name], by_name[name], users, trace)
    wires = []
    for name, inside in members.items():
        entered = set[str]()  # a step that several gates of a layer take has one wire to its box
        for node in inside:
            for i, source in enumerate(node.inputs):
                if source in home and home[source] != name and source not in entered:
                    entered.update([source] if by_name[source].optional else [])
                    value = trace.values[source] if trace else None
                    grad = trace.flows.get((node.name, i)) if trace else None
                    wires.append(Wire(home[source], name, _words(value), _words(grad, shape=False)))
    end = nodes[-1]
    boxes["\0end"] = Box("\0end", "end", [])
    value = trace.values[end.name] if trace else None
    grad = trace.grads.get(end.name) if trace else None
    wires.append(Wire(home[end.name], "\0end", _words(value), _words(grad, shape=False)))
    return Diagram(boxes, wires)


def _users(nodes: list[Node]) -> dict[str, list[Node]]:
    users: dict[str, list[Node]] = {node.name: [] for node in nodes}
    for node in nodes:
        for source in node.inputs:
            users.setdefault(source, []).append(node)
    return users


def _layers(nodes: list[Node]) -> dict[str, str]:
    """Map each node inside a layer's box to the name of that layer's first gate.

    A layer starts with a gate that has parameters: inputs after the first that no other gate
    uses. It continues with each gate, such as an activation or a pool, that is the only user of
    the gate before; batch normalization brings its parameters and statistics along.
    """
    users = _users(nodes)
    by_name = {node.name: node for node in nodes}
    heads: dict[str, str] = {}
    for node in nodes:
        if not node.inputs or symbol_of(node.gate):
            continue
        rest = [by_name[source] for source in node.inputs[1:]]
        own = [
            source.name
            for source in rest
            if source.gate is None and not source.optional and len(users[source.name]) == 1
        ]
        continues = node.inputs[0] in heads and len(users[node.inputs[0]]) == 1
        if continues and isinstance(node.gate, BatchNorm):
            heads.update(dict.fromkeys([node.name, *own], heads[node.inputs[0]]))
        elif all(source.optional for source in rest):
            heads.update({node.name: heads[node.inputs[0]]} if continues else {})
        elif not hasattr(node.gate, "reduction"):  # a loss is not a layer
            heads.update(dict.fromkeys([node.name, *own], node.name) if own else {})
    return heads


def _box(
    name: str, members: list[Node], head: Node, users: dict[str, list[Node]], trace: Trace | None
) -> Box:
    inside = [node for node in members if node.gate is not None]
    if len(members) > 1:
        lines: list[list[Span]] = [[(node.name, "name")] for node in inside]
        for node in members:
            if node.gate is None:
                lines.append(_parameter(node.name, trace))
        return Box(name, "layer", lines)
    kind = type(head.gate).__name__
    own_name = not re.fullmatch(rf"{kind}\d+", name)  # differs from the name that apply() gives
    symbol = symbol_of(head.gate)
    if head.gate is None or not (own_name or symbol):
        lines = [[(name, "name")]]
    else:
        lines = [[(symbol or kind, "name")]]
        if own_name:
            lines.append([(name, "plain")])
    if trace and len(users[name]) > 1 and name in trace.grads:
        words = _words(trace.grads[name], shape=False)
        lines += [[(("Σ " if i == 0 else "  ") + text, "grad")] for i, text in enumerate(words)]
    return Box(name, "input" if head.gate is None else "gate", lines)


def _parameter(name: str, trace: Trace | None) -> list[Span]:
    line: list[Span] = [(name, "plain")]
    if trace and name in trace.values:
        value = trace.values[name]
        line += [(_shape(value), "plain"), (number(norm(value)), "value")]
        if name in trace.grads:
            line.append((number(norm(trace.grads[name])), "grad"))
    return line


def _words(array: Array | None, *, shape: bool = True) -> list[str]:
    """Write a number in full, a small array row by row, a large one as its shape and norm."""
    if array is None:
        return []
    size = math.prod(array.shape)
    rows, columns = ((1, 1, *array.shape))[-2:]
    if 1 <= columns <= 4 and 1 <= rows <= 3 and array.ndim <= 2:
        flat = namespace(array).reshape(array, (-1,))
        numbers = [number(float(flat[i])) for i in range(size)]
        if array.ndim == 0:
            return numbers
        wide = max(map(len, numbers))
        lines = [numbers[i : i + columns] for i in range(0, size, columns)]
        return ["[" + " ".join(n.rjust(wide) for n in line) + "]" for line in lines]
    size_of = f"norm {number(norm(array))}" if is_real(array) else str(array.dtype).split(".")[-1]
    return [_shape(array), size_of] if shape else [size_of]


def _shape(array: Array) -> str:
    return "×".join(map(str, array.shape)) if array.ndim else "0-d"


def number(value: float) -> str:
    """Write a number with four significant digits: -12, 0.7311, 1.2e-05."""
    return f"{value + 0.0:.4g}"  # + 0.0: no -0
