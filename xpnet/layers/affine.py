"""The affine layer. N is the batch size, D the number of inputs, M the number of outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from xpnet.arrays.ops import Array, matmul, namespace, sum_rows_per_model, unbroadcast
from xpnet.gates.protocol import Grads

__all__ = ["Affine"]


class AffineCache(NamedTuple):
    x: Array  # flattened to (N, D)
    W: Array
    x_shape: tuple[int, ...]

    @property
    def stacked(self) -> bool:
        """Whether W has a first axis of models."""
        return len(self.W.shape) == 3


class Affine:
    r"""y = x W + b.

    Inputs
    ------
    x : array, shape=(..., D)
        Images of shape (N, C, H, W) with C·H·W = D are flattened and give (N, M). Otherwise
        the features are the fewest trailing axes whose sizes multiply to D, and the axes before
        them are the batch: (N, T, D) gives (N, T, M), and a single vector (D,) gives (M,).
    W : array, shape=(D, M), or (K, D, M) for K models at once
    b : array, shape=(M,), or (K, M), optional
        The graph leaves it out where it adds the bias itself, see `xpnet.gates.Gate`.

    For K models, x is (N, D), which all of them share, or (K, N, D). The output is (K, N, M), and
    each model's part is what it would compute alone.

    Notes
    -----
    With $y_{nm} = \sum_d x_{nd} W_{dm} + b_m$ and G the gradient with respect to y,

    $$dx = G W^T, \quad dW = x^T G, \quad db_m = \sum_n G_{nm}.$$

    Examples
    --------
    >>> import numpy as np
    >>> Affine().forward(np.ones((1, 2)), np.eye(2), np.array([0.0, 3.0]))[0].tolist()
    [[1.0, 4.0]]
    """

    bias_input: ClassVar[int] = 2

    def forward(self, x: Array, W: Array, b: Array | None = None) -> tuple[Array, AffineCache]:
        x_shape, W_shape = x.shape, W.shape
        if len(W_shape) == 3:
            return _stacked_forward(x, W, b)
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
        if cache.stacked:
            return _stacked_backward(cache, dout, needs)
        if dout.ndim != 2:
            dout = xp.reshape(dout, (x.shape[0], W.shape[1]))
        dx = dW = db = None
        if needs[0]:
            dx = matmul(dout, W.T)
            if dx.shape != x_shape:
                dx = xp.reshape(dx, x_shape)
        if needs[1]:
            dW = matmul(x.T, dout)
        if len(needs) > 2 and needs[2]:
            db = xp.sum(dout, axis=0)
        return dx, dW, db


def _stacked_forward(x: Array, W: Array, b: Array | None) -> tuple[Array, AffineCache]:
    models, fan_in, fan_out = W.shape
    shared = x.ndim == 2
    fits = x.shape[-1:] == (fan_in,) and (shared or (x.ndim == 3 and x.shape[0] == models))
    if not fits or (b is not None and b.shape != (models, fan_out)):
        given = "" if b is None else f" and b {tuple(b.shape)}"
        raise ValueError(
            f"W has shape {tuple(W.shape)}{given}, x {tuple(x.shape)}; expected W (K, D, M), "
            "b (K, M) and x (N, D) or (K, N, D)"
        )
    y = matmul(x, W)
    if b is not None:
        y += b[:, None, :]
    return y, AffineCache(x, W, x.shape)


def _stacked_backward(cache: AffineCache, dout: Array, needs: Sequence[bool]) -> Grads:
    x, W, x_shape = cache
    dx = dW = db = None
    if needs[0]:
        dx = unbroadcast(matmul(dout, W.mT), x_shape)
    if needs[1]:
        dW = matmul(x.mT, dout)
    if len(needs) > 2 and needs[2]:
        (db,) = sum_rows_per_model([dout])
    return dx, dW, db


def _batch_axes(x_shape: tuple[int, ...], W_shape: tuple[int, ...]) -> int:
    """Return the number of leading axes of x that are the batch."""
    if len(x_shape) == 4 and math.prod(x_shape[1:]) == W_shape[0]:
        return 1
    features = 1
    for axis in reversed(range(len(x_shape))):
        features *= x_shape[axis]
        if features == W_shape[0]:
            return axis
    raise ValueError(
        f"x of shape {tuple(x_shape)} does not fit W of shape {tuple(W_shape)}: expected x of "
        f"shape (N, {W_shape[0]}), or with last axes whose sizes multiply to {W_shape[0]}"
    )
