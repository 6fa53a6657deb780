"""Activations: gates that compute each element independently."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from xpnet.arrays.dispatch import elementwise, replaceable, underflowing
from xpnet.arrays.ops import Array, at_least, masked, namespace, sigmoid
from xpnet.errors import real
from xpnet.gates.protocol import ONE, Grads

__all__ = ["ACTIVATIONS", "Identity", "LeakyReLU", "ReLU", "Sigmoid", "Tanh"]


@dataclass(frozen=True)
class Sigmoid:
    """y = 1 / (1 + exp(-x)); dx = dout y (1 - y)."""

    elementwise: ClassVar[bool] = True

    def forward(self, x: Array) -> tuple[Array, Array]:
        y = sigmoid(x)
        return y, y

    def backward(self, cache: Array, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (sigmoid_backward(cache, dout),)


@replaceable
@elementwise
@underflowing
def sigmoid_backward(y: Array, dout: Array) -> Array:
    dx = 1.0 - y
    dx *= y
    dx *= dout
    return dx


@dataclass(frozen=True)
class Tanh:
    """y = tanh(x); dx = dout (1 - y²)."""

    elementwise: ClassVar[bool] = True

    def forward(self, x: Array) -> tuple[Array, Array]:
        y = namespace(x).tanh(x)
        return y, y

    def backward(self, cache: Array, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (tanh_backward(cache, dout),)


@replaceable
@elementwise
@underflowing
def tanh_backward(y: Array, dout: Array) -> Array:
    dx = y * y
    dx *= -1.0
    dx += 1.0
    dx *= dout
    return dx


@dataclass(frozen=True)
class ReLU:
    """y = max(x, 0); dx = dout where x > 0, else 0 (also at x = 0, as in the books)."""

    elementwise: ClassVar[bool] = True

    def forward(self, x: Array) -> tuple[Array, Array]:
        y = at_least(x, 0.0)
        return y, y

    def backward(self, cache: Array, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (relu_backward(cache, dout),)


@replaceable
@elementwise
def relu_backward(y: Array, dout: Array) -> Array:
    return masked(dout, y > 0)


@dataclass(frozen=True)
class LeakyReLU:
    """y = x where x > 0, else alpha x; dx = dout where x > 0, else alpha dout.

    Source: Maas, Hannun, Ng, "Rectifier nonlinearities improve neural network acoustic
    models", 2013.
    """

    alpha: float = 0.01
    elementwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        real("alpha", self.alpha, -math.inf, ends="()")

    def forward(self, x: Array) -> tuple[Array, Array]:
        both: tuple[Array, Array] = _leaky_relu(x, self.alpha)
        return both

    def backward(self, cache: Array, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (dout * cache,)


@elementwise
def _leaky_relu(x: Array, alpha: float) -> tuple[Array, Array]:
    """Return the output and its slope."""
    positive = namespace(x).astype(x > 0, x.dtype)
    slope = 1.0 - positive
    slope *= alpha
    slope += positive
    return x * slope, slope


class Identity:
    """y = x, dx = dout: for a layer without activation, such as the output of a regression."""

    def forward(self, x: Array) -> tuple[Array, None]:
        return x, None

    def backward(self, cache: None, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (dout,)


# The names in `mlp` and on the command line.
ACTIVATIONS: dict[str, type[Any]] = {
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "identity": Identity,
}
