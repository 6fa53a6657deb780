"""What a layer costs: parameters, floating-point operations, bytes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xpnet import array_gates, layers, losses

__all__ = ["Cost", "flops"]

# Operations per element of the output, forward and backward, of the formulas that the table of
# variables shows; exp, tanh, log count as one.
PER_ELEMENT: dict[type, tuple[int, int]] = {
    layers.Sigmoid: (4, 3),
    layers.Tanh: (1, 3),
    layers.ReLU: (1, 1),
    layers.LeakyReLU: (1, 1),
    layers.Identity: (0, 0),
    layers.Dropout: (2, 2),
}
# Operations per element of the first input, likewise.
PER_SCORE: dict[type, tuple[int, int]] = {
    losses.SoftmaxWithLoss: (7, 2),
    losses.SquaredLoss: (3, 2),
    losses.SigmoidWithLoss: (13, 2),
    losses.HingeLoss: (8, 6),
}


class Cost(NamedTuple):
    """One gate's line.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Of its output.
    parameters : int
        Numbers that are trained.
    forward, backward : int
        Floating-point operations, a multiplication and an addition being two.
    parameter_bytes, output_bytes : int
        Memory of the parameters (their gradients take as much again), and of the output.
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
    """Floating-point operations of a gate's two passes; gradients not needed cost nothing.

    `shapes` are those of the inputs that were given.
    """
    if not shapes or (isinstance(gate, layers.Dropout) and len(shapes) == 1):
        return 0, 0  # a constant; dropout without a step
    kind, size = type(gate), math.prod(output)
    if kind in (layers.Affine, array_gates.MatMul):
        products = 2 * size * (shapes[1][0] if len(shapes[1]) < 3 else shapes[1][-2])
        bias = size if kind is layers.Affine else 0
        backward = products * (needs[0] + needs[1])
        return products + bias, backward + (bias if bias and needs[2] else 0)
    if kind in PER_SCORE:
        forward, back = PER_SCORE[kind]
        return forward * math.prod(shapes[0]), back * math.prod(shapes[0])
    # Of any other gate: one operation per element of what is larger, its input or its output.
    forward, back = PER_ELEMENT.get(kind, (1, 1))
    size = max(size, math.prod(shapes[0]))
    return forward * size, back * size * any(needs)
