"""What a layer costs: parameters, floating-point operations, bytes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

__all__ = ["Cost", "flops"]

# Operations per element of the output, forward and backward; exp, tanh, log count as one.
PER_ELEMENT = {
    "Sigmoid": (4, 3),
    "Tanh": (1, 4),
    "ReLU": (1, 1),
    "LeakyReLU": (2, 2),
    "Identity": (0, 0),
    "Dropout": (2, 2),
}
# Operations per element of the first input, likewise.
PER_SCORE = {
    "SoftmaxWithLoss": (7, 2),
    "SquaredLoss": (4, 2),
    "SigmoidWithLoss": (10, 2),
    "HingeLoss": (7, 6),
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
    """Floating-point operations of a gate's two passes; gradients not needed cost nothing."""
    kind, size = type(gate).__name__, math.prod(output)
    if kind in ("Affine", "MatMul"):
        products = 2 * size * (shapes[1][0] if len(shapes[1]) < 3 else shapes[1][-2])
        bias = size if kind == "Affine" else 0
        backward = products * (needs[0] + needs[1])
        return products + bias, backward + (bias if kind == "Affine" and needs[2] else 0)
    if kind in PER_SCORE:
        forward, back = PER_SCORE[kind]
        return forward * math.prod(shapes[0]), back * math.prod(shapes[0])
    # Of any other gate: one operation per element of what is larger, its input or its output.
    forward, back = PER_ELEMENT.get(kind, (1, 1))
    size = max(size, math.prod(shapes[0]))
    return forward * size, back * size * any(needs)
