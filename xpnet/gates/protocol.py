"""The gate: a pure pair of functions, forward and backward.

A gate has no state of its own. ``forward(*inputs)`` returns the output and a cache;
``backward(cache, dout, needs)`` takes that cache and the gradient of the final output with
respect to this gate's output, and returns one gradient per input. Parameters are inputs
like any other; a layer is a gate with parameters, a loss a gate whose output is 0-d. So
one protocol serves all of them, and one graph, one gradient check and one test table do.

A gate never writes into an array that it was handed, never branches on an array's value
and never brings one to the host: that is what ``jax.jit``, CUDA graph capture and
array-api-strict ask for, alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from xpnet.arrays.ops import Array

__all__ = ["Gate"]


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
    what `xpnet.arrays.dispatch.elementwise` asks of lines, and never changes (a frozen dataclass).
    A gate with ``bias_input = i`` adds its input i, shape=(M,), to every row of its output, and may
    be given None in its place: the graph then adds the bias itself, in one kernel with the
    elementwise gate that follows. These attributes are of the class; a subclass that overrides a
    pass gives them again, if they still hold.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]: ...

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = ...) -> Grads: ...
