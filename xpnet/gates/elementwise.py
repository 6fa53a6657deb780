"""Arithmetic gates.

These gates work element by element and broadcast as NumPy does; the gradient of a broadcast
input is the sum over its copies. `xpnet.gates.arrays` has sums, matrix products and changes of
shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xpnet.arrays.ops import Array, at_least, namespace, unbroadcast
from xpnet.gates.protocol import BOTH, ONE, Grads

__all__ = [
    "Add", "AtLeast", "Div", "Exp", "Log", "Max", "Mul", "Neg", "Over", "Power",
    "Reciprocal", "Scale", "Shift", "Sub",
]  # fmt: skip


class Add:
    """y = a + b, the distributor: each input receives dout."""

    def forward(self, a: Array, b: Array) -> tuple[Array, Any]:
        return a + b, (a.shape, b.shape)

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = BOTH) -> Grads:
        return tuple(
            unbroadcast(dout, shape) if need else None
            for shape, need in zip(cache, needs, strict=True)
        )


class Sub:
    """y = a - b; da = dout, db = -dout."""

    def forward(self, a: Array, b: Array) -> tuple[Array, Any]:
        return a - b, (a.shape, b.shape)

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = BOTH) -> Grads:
        a_shape, b_shape = cache
        return (
            unbroadcast(dout, a_shape) if needs[0] else None,
            unbroadcast(-dout, b_shape) if needs[1] else None,
        )


class Mul:
    """y = a b, the switch: each input receives dout times the other input."""

    def forward(self, a: Array, b: Array) -> tuple[Array, Any]:
        return a * b, (a, b)

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = BOTH) -> Grads:
        a, b = cache
        return (
            unbroadcast(dout * b, a.shape) if needs[0] else None,
            unbroadcast(dout * a, b.shape) if needs[1] else None,
        )


class Div:
    """y = a / b; da = dout / b, db = -dout y / b."""

    def forward(self, a: Array, b: Array) -> tuple[Array, Any]:
        y = a / b
        return y, (y, b, a.shape)

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = BOTH) -> Grads:
        y, b, a_shape = cache
        share = dout / b
        return (
            unbroadcast(share, a_shape) if needs[0] else None,
            unbroadcast(-share * y, b.shape) if needs[1] else None,
        )


class Max:
    """y = max(a, b), the router: the larger input receives dout; at a tie, the first one does."""

    def forward(self, a: Array, b: Array) -> tuple[Array, Any]:
        return namespace(a).maximum(a, b), (a >= b, a.shape, b.shape)

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = BOTH) -> Grads:
        first, a_shape, b_shape = cache
        xp = namespace(dout)
        return (
            unbroadcast(xp.where(first, dout, 0.0), a_shape) if needs[0] else None,
            unbroadcast(xp.where(first, 0.0, dout), b_shape) if needs[1] else None,
        )


@dataclass(frozen=True)
class AtLeast:
    """y = max(x, bound) for a constant `bound`; dx = dout where x > bound, else 0."""

    bound: float

    def forward(self, x: Array) -> tuple[Array, Array]:
        return at_least(x, self.bound), x > self.bound

    def backward(self, cache: Array, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (namespace(dout).where(cache, dout, 0.0),)


class Neg:
    """y = -x; dx = -dout."""

    def forward(self, x: Array) -> tuple[Array, None]:
        return -x, None

    def backward(self, cache: None, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (-dout,)


@dataclass(frozen=True)
class Scale:
    """y = factor x for a constant `factor`; dx = factor dout."""

    factor: float

    def forward(self, x: Array) -> tuple[Array, None]:
        return x * self.factor, None

    def backward(self, cache: None, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (dout * self.factor,)


@dataclass(frozen=True)
class Over:
    """y = x / divisor for a constant `divisor`; dx = dout / divisor."""

    divisor: float

    def forward(self, x: Array) -> tuple[Array, None]:
        return x / self.divisor, None

    def backward(self, cache: None, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (dout / self.divisor,)


@dataclass(frozen=True)
class Shift:
    """y = x + offset for a constant `offset`; dx = dout."""

    offset: float

    def forward(self, x: Array) -> tuple[Array, None]:
        return x + self.offset, None

    def backward(self, cache: None, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (dout,)


@dataclass(frozen=True)
class Power:
    """y = xⁿ for a constant `exponent` n; dx = dout n xⁿ⁻¹. A negative x needs a whole n."""

    exponent: float

    def forward(self, x: Array) -> tuple[Array, Array]:
        return x**self.exponent, x

    def backward(self, cache: Array, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        if self.exponent == 0:
            return (namespace(cache).zeros_like(cache),)  # 0 times an infinite 1 / x is NaN
        return (dout * (self.exponent * cache ** (self.exponent - 1)),)


class Exp:
    """y = exp(x); dx = dout y."""

    def forward(self, x: Array) -> tuple[Array, Any]:
        y = namespace(x).exp(x)
        return y, y

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (dout * cache,)


class Log:
    """y = ln x; dx = dout / x."""

    def forward(self, x: Array) -> tuple[Array, Any]:
        return namespace(x).log(x), x

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (dout / cache,)


@dataclass(frozen=True)
class Reciprocal:
    """y = numerator / x for a constant `numerator`; dx = -dout y / x (-dout y² for 1 / x)."""

    numerator: float = 1.0

    def forward(self, x: Array) -> tuple[Array, Any]:
        y = self.numerator / x
        return y, (y, x)

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        y, x = cache
        return (-dout * (y / x),)
