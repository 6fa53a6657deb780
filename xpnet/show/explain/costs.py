"""Count what each gate costs: parameters, floating-point operations, bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from xpnet.arrays.ops import Array, namespace
from xpnet.graph.autodiff import make_backward_plan
from xpnet.graph.node import Node, Trace
from xpnet.show.notes import note_of

__all__ = ["Cost", "costs_of", "flops"]


class Cost(NamedTuple):
    """The cost of one gate.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Shape of its output.
    parameters : int
        Number of trained numbers. A parameter that several gates share counts at the first.
    forward, backward : int
        Floating-point operations; a multiplication with an addition counts as two.
    parameter_bytes, output_bytes : int
        Memory of the parameters (their gradients need as much again) and of the output.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    forward: int
    backward: int
    parameter_bytes: int
    output_bytes: int


def flops(
    gate: Any, shapes: list[tuple[int, ...]], output: tuple[int, ...], needs: list[bool]
) -> tuple[int, int]:
    """Count the floating-point operations of a gate's forward and backward pass.

    Parameters
    ----------
    gate : Gate
    shapes : list of tuple of int
        Shapes of the inputs that have a value.
    output : tuple of int
        Shape of the output.
    needs : list of bool
        Which inputs need a gradient; the others cost nothing in the backward pass.

    Returns
    -------
    forward, backward : int
    """
    if not shapes:
        return 0, 0  # a constant
    note, size = note_of(gate), math.prod(output)
    if note.inference and len(shapes) <= max(gate.integers):  # the step has no value
        note = note.inference
    if note.depth:
        products = 2 * size * note.depth(shapes[1])
        bias = size if len(shapes) > 2 else 0
        backward = products * (needs[0] + needs[1])
        return products + bias, backward + (bias if bias and needs[2] else 0)
    if callable(note.flops):
        forward, back = note.flops(gate)
    else:
        size = max(size, math.prod(shapes[0]))
        forward, back = note.flops
    return forward * size, back * size * any(needs)


def costs_of(nodes: list[Node], trace: Trace, params: Mapping[str, Any]) -> list[Cost]:
    """Return the cost of each gate, in the order of `nodes`.

    `params` are the trained ones; statistics cost no gradient.
    """
    # A training step computes only the gradients on the path to a parameter.
    backward = {back.node.name: back.needs for back in make_backward_plan(nodes, tuple(params))}
    costs: list[Cost] = []
    counted: set[str] = set()
    for node in nodes:
        if node.gate is None:
            continue
        value = trace.values[node.name]
        own = [p for name in set(node.inputs) - counted if (p := params.get(name)) is not None]
        counted.update(node.inputs)
        shapes = [tuple(trace.values[s].shape) for s in node.inputs if s in trace.values]
        needs = backward.get(node.name, [False] * len(node.inputs))
        count = sum(math.prod(p.shape) for p in own)
        costs.append(
            Cost(
                node.name,
                tuple(value.shape),
                count,
                *flops(node.gate, shapes, tuple(value.shape), needs),
                sum(math.prod(p.shape) * _item_bytes(p) for p in own),
                math.prod(value.shape) * _item_bytes(value),
            )
        )
    return costs


def _item_bytes(array: Array) -> int:
    xp = namespace(array)
    if xp.isdtype(array.dtype, "bool"):
        return 1
    limits = xp.iinfo if xp.isdtype(array.dtype, "integral") else xp.finfo
    return int(limits(array.dtype).bits) // 8
