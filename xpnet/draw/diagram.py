"""From a graph to boxes and wires with words on them; a layer may be one box."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from xpnet import array_gates, gates
from xpnet.node import Node
from xpnet.ops import Array, is_real, namespace

if TYPE_CHECKING:
    from xpnet.graph import Trace

__all__ = ["Box", "Diagram", "Span", "Wire", "diagram", "number"]

Ink = Literal["name", "plain", "value", "grad"]
Span = tuple[str, Ink]
MOST = 400  # boxes; beyond it no picture can be read

SYMBOLS: dict[str, Callable[[Any], str]] = {
    "Add": lambda g: "+",
    "Sub": lambda g: "-",
    "Mul": lambda g: "×",
    "Div": lambda g: "/",
    "Max": lambda g: "max",
    "Neg": lambda g: "×-1",
    "Scale": lambda g: f"×{g.factor:.4g}",
    "Shift": lambda g: f"{g.offset:+.4g}",
    "Power": lambda g: {2: "x²", 3: "x³", 0.5: "√x"}.get(g.exponent, f"x^{g.exponent:.4g}"),
    "Exp": lambda g: "exp",
    "Log": lambda g: "log",
    "Reciprocal": lambda g: "1/x",
    "Sum": lambda g: "Σ",
    "Mean": lambda g: "mean",
    "SquaredNorm": lambda g: "‖x‖²",
    "MatMul": lambda g: "@",
    "Transpose": lambda g: "T",
    "Reshape": lambda g: "reshape",
    "Index": lambda g: f"[{_key(g.key)}]",
    "Gather": lambda g: "gather",
    "Pick": lambda g: "pick",
}
ELEMENTARY = {*gates.__all__, *array_gates.__all__}


@dataclass(frozen=True)
class Box:
    """What is drawn for one node, or for a layer of several.

    An "input" is its name, a "gate" a circle, a "layer" a frame; an "end" is where the
    output's wire ends.
    """

    name: str
    kind: Literal["input", "gate", "layer", "end"]
    lines: list[list[Span]]


@dataclass(frozen=True)
class Wire:
    """From a box to the input `port` of another; `value` is written above, `grad` below."""

    source: str
    target: str
    port: int
    value: list[str]
    grad: list[str]


@dataclass(frozen=True)
class Diagram:
    """Boxes in an order of evaluation, and the wires between them."""

    boxes: dict[str, Box]
    wires: list[Wire] = field(default_factory=list)

    @property
    def traced(self) -> bool:
        """Whether any value is shown."""
        return any(wire.value for wire in self.wires)


def diagram(nodes: list[Node], trace: Trace | None, *, expand: bool = False) -> Diagram:
    """What to draw.

    Parameters
    ----------
    nodes : list of Node, in topological order; the last one is the output
    trace : Trace or None
        Values and gradients; without, only the structure is shown.
    expand : bool
        Draw every gate of a layer, instead of one box for a layer, the activation behind it
        and their parameters.

    Raises
    ------
    ValueError
        There is too much to be seen.
    """
    # What was not given takes no part: an optional weight, a step that turns dropout on.
    shown = [n for n in nodes if (n.name in trace.values if trace else not n.optional)]
    heads = {} if expand else _layers(nodes)
    home = {node.name: heads.get(node.name, node.name) for node in shown}
    if (count := len(set(home.values()))) > MOST:
        raise ValueError(
            f"{count:,} boxes are too many to draw, {MOST} is the most; name an output that "
            "depends on fewer"
        )
    by_name = {node.name: node for node in nodes}
    members: dict[str, list[Node]] = {}
    for node in shown:
        members.setdefault(home[node.name], []).append(node)
    users = _users(shown)
    boxes = {}
    for name in sorted(members, key=list(home.values()).index):
        boxes[name] = _box(name, members[name], by_name[name], users, trace)
    wires = []
    for name, inside in members.items():
        port = 0
        for node in inside:
            for i, source in enumerate(node.inputs):
                if source in home and home[source] != name:
                    value = trace.values[source] if trace else None
                    grad = trace.flows.get((node.name, i)) if trace else None
                    wires.append(
                        Wire(home[source], name, port, _words(value), _words(grad, shape=False))
                    )
                    port += 1
    last = nodes[-1]
    boxes["\0end"] = Box("\0end", "end", [])
    value = trace.values[last.name] if trace else None
    grad = trace.grads.get(last.name) if trace else None
    wires.append(Wire(home[last.name], "\0end", 0, _words(value), _words(grad, shape=False)))
    return Diagram(boxes, wires)


def _users(nodes: list[Node]) -> dict[str, list[Node]]:
    users: dict[str, list[Node]] = {node.name: [] for node in nodes}
    for node in nodes:
        for source in node.inputs:
            users.setdefault(source, []).append(node)
    return users


def _layers(nodes: list[Node]) -> dict[str, str]:
    """For each node that is drawn inside a layer's box, the name of that layer's first gate.

    A layer starts with a gate that has parameters: inputs behind the first, of its own, that
    take real numbers. It goes on with gates that only it leads to, such as an activation.
    """
    users = _users(nodes)
    by_name = {node.name: node for node in nodes}
    heads: dict[str, str] = {}
    for node in nodes:
        if node.gate is None or type(node.gate).__name__ in ELEMENTARY:
            continue
        rest = [by_name[source] for source in node.inputs[1:]]
        optional = all(source.optional for source in rest)
        if not optional and not getattr(node.gate, "integers", ()):
            own = [s.name for s in rest if s.gate is None and len(users[s.name]) == 1]
            heads.update(dict.fromkeys([node.name, *own], node.name) if own else {})
        elif optional and node.inputs[0] in heads and len(users[node.inputs[0]]) == 1:
            heads[node.name] = heads[node.inputs[0]]
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
    own_name = not re.fullmatch(rf"{kind}\d+", name)  # not the one that apply() makes up
    if head.gate is None:
        lines = [[(name, "name")]]
    elif kind in SYMBOLS:
        lines = [[(SYMBOLS[kind](head.gate), "name")]]
        if own_name:
            lines.append([(name, "plain")])
    else:
        lines = [[(name, "name")]]
    if trace and len(users[name]) > 1 and name in trace.grads:
        words = _words(trace.grads[name], shape=False)
        lines += [[(("Σ " if i == 0 else "  ") + text, "grad")] for i, text in enumerate(words)]
    return Box(name, "input" if head.gate is None else "gate", lines)


def _parameter(name: str, trace: Trace | None) -> list[Span]:
    line: list[Span] = [(name, "plain")]
    if trace and name in trace.values:
        value = trace.values[name]
        line += [(_shape(value), "plain"), (number(_norm(value)), "value")]
        if name in trace.grads:
            line.append((number(_norm(trace.grads[name])), "grad"))
    return line


def _words(array: Array | None, *, shape: bool = True) -> list[str]:
    """A number as it is, a small array row by row, a large one by its shape and norm."""
    if array is None:
        return []
    size = math.prod(array.shape)
    rows, columns = ((1, 1, *array.shape))[-2:]
    if 1 <= columns <= 4 and 1 <= rows <= 2 and array.ndim <= 2:
        flat = namespace(array).reshape(array, (-1,))
        numbers = [number(float(flat[i])) for i in range(size)]
        if array.ndim == 0:
            return numbers
        wide = max(map(len, numbers))
        lines = [numbers[i : i + columns] for i in range(0, size, columns)]
        return ["[" + " ".join(n.rjust(wide) for n in line) + "]" for line in lines]
    norm = f"norm {number(_norm(array))}" if is_real(array) else str(array.dtype).split(".")[-1]
    return [_shape(array), norm] if shape else [norm]


def _shape(array: Array) -> str:
    return "×".join(map(str, array.shape)) if array.ndim else "0-d"


def _norm(array: Array) -> float:
    xp = namespace(array)
    largest = float(xp.max(xp.abs(array))) if math.prod(array.shape) else 0.0
    if not 0 < largest < math.inf:
        return largest
    scaled = array * (1.0 / largest)  # so that no square overflows
    return largest * math.sqrt(float(xp.sum(scaled * scaled)))


def number(value: float) -> str:
    """Four digits: -12, 0.7311, 1.2e-05."""
    return f"{value:.4g}"


def _key(key: Any) -> str:
    def part(k: Any) -> str:
        if not isinstance(k, slice):
            return "..." if k is ... else str(k)
        ends = [k.start, k.stop] + ([k.step] if k.step else [])
        return ":".join("" if end is None else str(end) for end in ends)

    return ",".join(map(part, key if isinstance(key, tuple) else (key,)))
