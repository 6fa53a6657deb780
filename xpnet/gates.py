"""The gate: a pure pair of functions, forward and backward. Here, those of arithmetic.

A gate has no state of its own. ``forward(*inputs)`` returns the output and a cache;
``backward(cache, dout, needs)`` takes that cache and the gradient of the final output with
respect to this gate's output, and returns one gradient per input. Parameters are inputs
like any other; a layer is a gate with parameters, a loss a gate whose output is 0-d. So
one protocol serves all of them, and one graph, one gradient check and one test table do.

A gate never writes into an array that it was handed, never branches on an array's value
and never brings one to the host: that is what ``jax.jit``, CUDA graph capture and
array-api-strict ask for, alike.

The gates of this module work element by element, and broadcast as NumPy does; an input
that was repeated receives the sum of the gradients of its copies. Sums, products of
matrices and changes of shape are in `xpnet.array_gates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from xpnet.ops import Array, at_least, namespace, unbroadcast

__all__ = [
    "Add", "AtLeast", "Div", "Exp", "Gate", "Log", "Max", "Mul", "Neg", "Over", "Power",
    "Reciprocal", "Scale", "Shift", "Sub",
]  # fmt: skip

Grads = tuple[Array | None, ...]
ONE = (True,)
BOTH = (True, True)


class Gate(Protocol):
    """What a graph asks of a node.

    ``needs`` holds one bool per input: whether its gradient is wanted. Where it is False,
    backward returns None in its place; the gradient of the data with respect to the first
    layer, which nobody reads, is a third of the work of a step.

    A graph refuses arrays of integers, except at the positions that a gate names in an
    attribute ``integers``: labels, indices, a count of steps. A gate with ``moves = True`` only
    moves elements, so that it takes integers where whatever uses its output does.

    A gate with ``takes_number = True``, a loss, takes the Python number 1.0 for dout where its
    output is what the graph differentiates: no array has to be made for it.

    Two more attributes let a graph join gates where a backend has kernels for that. A gate with
    ``elementwise = True`` has one input, computes each element by itself in both passes, follows
    what `xpnet.kernels.elementwise` asks of lines, and never changes (a frozen dataclass). A gate
    with ``bias_input = i`` adds its input i, shape=(M,), to every row of its output, and may be
    given None in its place: the graph then adds the bias itself, in one kernel with the elementwise
    gate that follows. These attributes are of the class; a subclass that overrides a pass gives
    them again, if they still hold.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]: ...

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = ...) -> Grads: ...


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
    """y = a b, the switch: each input receives dout times the other one."""

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
    """y = max(a, b), the router: the larger input receives dout; at a tie, the first one."""

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
    """y = max(x, bound), for a number that is no input; dx = dout where x > bound, else 0."""

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
    """y = factor x, for a number that is no input; dx = factor dout."""

    factor: float

    def forward(self, x: Array) -> tuple[Array, None]:
        return x * self.factor, None

    def backward(self, cache: None, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (dout * self.factor,)


@dataclass(frozen=True)
class Over:
    """y = x / divisor, for a number that is no input; dx = dout / divisor."""

    divisor: float

    def forward(self, x: Array) -> tuple[Array, None]:
        return x / self.divisor, None

    def backward(self, cache: None, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (dout / self.divisor,)


@dataclass(frozen=True)
class Shift:
    """y = x + offset, for a number that is no input; dx = dout."""

    offset: float

    def forward(self, x: Array) -> tuple[Array, None]:
        return x + self.offset, None

    def backward(self, cache: None, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (dout,)


@dataclass(frozen=True)
class Power:
    """y = x to a fixed exponent n; dx = dout n xⁿ⁻¹. A negative x needs a whole n."""

    exponent: float

    def forward(self, x: Array) -> tuple[Array, Array]:
        return x**self.exponent, x

    def backward(self, cache: Array, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        if self.exponent == 0:
            return (namespace(cache).zeros_like(cache),)  # not 0 times an infinite 1 / x
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
    """y = 1 / x, or another number over x; dx = -dout y / x, which for 1 / x is -dout y²."""

    numerator: float = 1.0

    def forward(self, x: Array) -> tuple[Array, Any]:
        y = self.numerator / x
        return y, (y, x)

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        y, x = cache
        return (-dout * (y / x),)
