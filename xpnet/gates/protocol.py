"""The gate: a pair of pure functions, forward and backward.

A gate has no state. ``forward(*inputs)`` returns the output and a cache;
``backward(cache, dout, needs)`` takes that cache and the gradient of the final output with
respect to this gate's output, and returns one gradient per input. Parameters are ordinary
inputs: a layer is a gate with parameters, and a loss is a gate whose output is 0-d. So all of
them share one protocol, one graph, one gradient check and one test table.

A gate never writes into an input array, never branches on an array's value and never copies an
array to the host. ``jax.jit``, CUDA graph capture and array-api-strict all require this.
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
    """The two methods that a graph calls, and the optional class attributes that it reads.

    ``needs`` holds one bool per input: whether the caller needs its gradient. Where it is False,
    backward returns None for that input. This saves work: nobody reads the gradient with respect
    to the data, and to compute it in the first layer takes up to a third of a step.

    A graph refuses arrays of integers, except at the input positions that the attribute
    ``integers`` lists: labels, indices, a step counter. A gate with ``moves = True`` only moves
    elements; it accepts integers if all gates that use its output do.

    A gate with ``takes_number = True``, such as a loss, accepts the Python number 1.0 as dout if
    the graph differentiates its output. So the graph creates no array for it.

    Four more attributes let a graph run two gates in one kernel, if the backend has such kernels.
    A gate with ``elementwise = True`` has one input, computes each element independently in both
    passes, follows the rules of `xpnet.arrays.dispatch.elementwise`, and is immutable (a frozen
    dataclass). A gate with ``bias_input = i`` adds its input i, shape=(M,), along the last axis of
    its output, or along ``bias_axis``: a convolution's is 1, that of the channels. The graph may
    pass None for it, and then adds the bias itself, in one kernel with the elementwise gate that
    follows. A gate with ``passes_bias = True``, such as a max pool, may stand between: it has one
    input, and a number added to a whole channel of it is added to that of the output. A subclass
    that overrides a pass must set these attributes again, if they still hold.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.gates import Mul
    >>> y, cache = Mul().forward(np.array(3.0), np.array(4.0))
    >>> float(y), [float(g) for g in Mul().backward(cache, np.array(1.0))]
    (12.0, [4.0, 3.0])
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        """Return (output, cache); the cache holds what `backward` needs of this call."""
        ...

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = ...) -> Grads:
        """Return one gradient per input, from the cache and the gradient of the output."""
        ...
