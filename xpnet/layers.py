"""Layers: Affine, the activations, Dropout.

Each is a gate (see `xpnet.gates`): ``forward(*inputs) -> (output, cache)`` beside
``backward(cache, dout, needs) -> one gradient per input``. Letters of shapes: N batch, D
inputs, M outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from xpnet.gates import ONE, Grads
from xpnet.hashing import hash32, random_bits
from xpnet.kernels import elementwise, replaceable
from xpnet.ops import Array, at_least, matmul, namespace, sigmoid

__all__ = ["Affine", "Dropout", "Identity", "LeakyReLU", "ReLU", "Sigmoid", "Tanh"]


class AffineCache(NamedTuple):
    x: Array  # flattened to (N, D)
    W: Array
    x_shape: tuple[int, ...]


class Affine:
    r"""y = x W + b.

    Inputs
    ------
    x : array, shape=(..., D)
        Images of shape (N, C, H, W) with C·H·W = D are flattened and give (N, M). Otherwise
        the fewest trailing axes whose sizes multiply to D are the features, all before them
        the batch: (N, T, D) gives (N, T, M), a single vector of shape (D,) gives (M,).
    W : array, shape=(D, M)
    b : array, shape=(M,), or None
        None where the graph adds it, see `xpnet.gates.Gate`.

    Notes
    -----
    With :math:`y_{nm} = \sum_d x_{nd} W_{dm} + b_m` and G the gradient with respect to y,

    .. math:: dx = G W^T, \quad dW = x^T G, \quad db_m = \sum_n G_{nm}.
    """

    bias_input: ClassVar[int] = 2

    def forward(self, x: Array, W: Array, b: Array | None) -> tuple[Array, AffineCache]:
        x_shape, W_shape = x.shape, W.shape
        if len(W_shape) != 2 or (b is not None and b.shape != W_shape[1:]):
            given = "" if b is None else f" and b {tuple(b.shape)}"
            raise ValueError(f"W has shape {tuple(W_shape)}{given}; expected (D, M) and (M,)")
        flat = x.ndim == 2 and x_shape[1] == W_shape[0]
        if not flat:
            batch = x_shape[: _batch_axes(x_shape, W_shape)]
            x = namespace(x).reshape(x, (math.prod(batch), W_shape[0]))
        y = matmul(x, W)
        if b is not None:
            y += b
        if not flat:
            y = namespace(y).reshape(y, (*batch, W_shape[1]))
        return y, AffineCache(x, W, x_shape)

    def backward(
        self, cache: AffineCache, dout: Array, needs: Sequence[bool] = (True, True, True)
    ) -> Grads:
        x, W, x_shape = cache
        xp = namespace(dout)
        if dout.ndim != 2:
            dout = xp.reshape(dout, (x.shape[0], W.shape[1]))
        dx = dW = db = None
        if needs[0]:
            dx = matmul(dout, W.T)
            if dx.shape != x_shape:
                dx = xp.reshape(dx, x_shape)
        if needs[1]:
            dW = matmul(x.T, dout)
        if needs[2]:
            db = xp.sum(dout, axis=0)
        return dx, dW, db


def _batch_axes(x_shape: tuple[int, ...], W_shape: tuple[int, ...]) -> int:
    """How many leading axes of x are the batch."""
    if len(x_shape) == 4 and math.prod(x_shape[1:]) == W_shape[0]:
        return 1
    features = 1
    for axis in reversed(range(len(x_shape))):
        features *= x_shape[axis]
        if features == W_shape[0]:
            return axis
    raise ValueError(
        f"x of shape {tuple(x_shape)} does not fit W of shape {tuple(W_shape)}: expected "
        f"trailing axes of x whose sizes multiply to {W_shape[0]}"
    )


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
def tanh_backward(y: Array, dout: Array) -> Array:
    dx = y * y
    dx *= -1.0
    dx += 1.0
    dx *= dout
    return dx


@dataclass(frozen=True)
class ReLU:
    """y = max(x, 0); dx = dout where x > 0, else 0 (so 0 at x = 0, as in the books)."""

    elementwise: ClassVar[bool] = True

    def forward(self, x: Array) -> tuple[Array, Array]:
        y = at_least(x, 0.0)
        return y, y

    def backward(self, cache: Array, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (relu_backward(cache, dout),)


@replaceable
@elementwise
def relu_backward(y: Array, dout: Array) -> Array:
    # Not `where`: on a mask without a pattern it is ten times as slow, a branch mispredicted for
    # every other element.
    dx = namespace(dout).astype(y > 0, dout.dtype)
    dx *= dout
    return dx


@dataclass(frozen=True)
class LeakyReLU:
    """y = x where x > 0, else alpha x; dx = dout, or alpha dout (so also at x = 0).

    Source: Maas, Hannun, Ng, "Rectifier nonlinearities improve neural network acoustic
    models", 2013.
    """

    alpha: float = 0.01
    elementwise: ClassVar[bool] = True

    def forward(self, x: Array) -> tuple[Array, Array]:
        both: tuple[Array, Array] = _leaky_relu(x, self.alpha)
        return both

    def backward(self, cache: Array, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (dout * cache,)


@elementwise
def _leaky_relu(x: Array, alpha: float) -> tuple[Array, Array]:
    """Output and slope."""
    positive = namespace(x).astype(x > 0, x.dtype)
    slope = 1.0 - positive
    slope *= alpha
    slope += positive
    return x * slope, slope


class Identity:
    """y = x: no activation, as at the output of a regression network."""

    def forward(self, x: Array) -> tuple[Array, None]:
        return x, None

    def backward(self, cache: None, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (dout,)


@dataclass(frozen=True)
class Dropout:
    """Inverted dropout: y = x m / (1 - ratio), where m is 0 with probability `ratio`, else 1.

    Inputs
    ------
    x : array, any shape
    step : int32 array with one element, or None
        The training step. None means inference: x passes unchanged.

    Parameters
    ----------
    ratio : float in [0, 1)
        Share of the elements set to zero in training.
    seed, layer : int
        Together with `step` and the element's number they determine the mask: the same
        bits on every library, drawn again in a resumed run, never stored.

    Notes
    -----
    Dividing in training keeps the expected value, so that inference need not know of it.
    Source: Srivastava et al., "Dropout", JMLR 15, 2014 (there, the division is in the test).
    """

    ratio: float = 0.5
    seed: int = 0
    layer: int = 0
    integers: ClassVar[tuple[int, ...]] = (1,)

    def __post_init__(self) -> None:
        if not 0.0 <= self.ratio < 1.0:
            raise ValueError(f"Dropout ratio is {self.ratio}; expected 0 <= ratio < 1")

    def forward(self, x: Array, step: Array | None = None) -> tuple[Array, Array | None]:
        if step is None or self.ratio == 0.0:
            return x, None
        bits = random_bits(math.prod(x.shape), hash32(self.seed, self.layer), step)
        bits = namespace(x).reshape(bits, x.shape)
        dropped: tuple[Array, Array] = _drop(
            x, bits, int(self.ratio * (1 << 24)), 1.0 / (1.0 - self.ratio)
        )
        return dropped

    def backward(
        self, cache: Array | None, dout: Array, needs: Sequence[bool] = (True, False)
    ) -> Grads:
        if cache is None:
            return dout, None
        return dout * cache, None


@elementwise
def _drop(x: Array, bits: Array, limit: int, scale: float) -> tuple[Array, Array]:
    """Output and mask."""
    # 24 of the 32 bits as a number in [0, 2^24), held against the ratio in integers: no rounding
    # that could differ from one library to the next.
    keep = (bits >> 8) & 0xFFFFFF >= limit
    factor = namespace(x).astype(keep, x.dtype)
    factor *= scale
    return x * factor, factor
