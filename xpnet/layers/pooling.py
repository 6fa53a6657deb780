"""Pooling layers: one number for each window of an image; and flattening."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from xpnet.arrays.convolution import both
from xpnet.arrays.ops import Array, device, is_real, namespace
from xpnet.arrays.windows import (
    Edges,
    Pair,
    average_pool,
    average_pool_backward,
    max_pool,
    max_pool_backward,
    pad,
    stops,
)
from xpnet.errors import UsageError
from xpnet.gates.protocol import ONE, Grads
from xpnet.layers.images import check_images, pair

__all__ = ["AveragePool", "Flatten", "GlobalAveragePool", "MaxPool"]


class MaxPoolCache(NamedTuple):
    x: Array  # padded
    y: Array
    hint: Any


@dataclass(frozen=True)
class MaxPool:
    """y is the largest value of each window; its place gets dout, the first one of equal values.

    Inputs
    ------
    x : array, shape=(N, C, H, W)

    The output has the shape (N, C, OH, OW), with OH = (H + 2 padding - size) // stride + 1, and OW
    alike. Rows and columns that no window reaches are left out.

    Parameters
    ----------
    size : int or (int, int)
        Rows and columns of a window.
    stride : int or (int, int), optional
        From one window to the next; by default `size`, so that no two overlap.
    padding : int or (int, int)
        Minus infinity (of whole numbers: the smallest) on each side of the images, at most half
        of `size`.

    Raises
    ------
    ValueError
        x is no batch of images, or a window is larger than the padded images.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, 4.0], [3.0, 2.0]]]])
    >>> MaxPool(2).forward(x)[0].tolist()
    [[[[4.0]]]]
    """

    size: int | Pair = 2
    stride: int | Pair | None = None
    padding: int | Pair = 0
    passes_bias: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _settle(self)

    def forward(self, x: Array) -> tuple[Array, MaxPoolCache]:
        size, stride, edges = _fitting(self, x)
        x = pad(x, edges, lowest(x))
        y, hint = max_pool(x, size, stride)
        return y, MaxPoolCache(x, y, hint)

    def backward(self, cache: MaxPoolCache, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (max_pool_backward(*cache, dout, *_settings(self)),)


@dataclass(frozen=True)
class AveragePool:
    """y is the mean of each window; each of its n places gets dout / n.

    Inputs and parameters are those of `MaxPool`. The padding is zeros, which count.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, 4.0], [3.0, 2.0]]]])
    >>> AveragePool(2).forward(x)[0].tolist()
    [[[[2.5]]]]
    """

    size: int | Pair = 2
    stride: int | Pair | None = None
    padding: int | Pair = 0

    def __post_init__(self) -> None:
        _settle(self)

    def forward(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        size, stride, edges = _fitting(self, x)
        return average_pool(pad(x, edges), size, stride), x.shape

    def backward(self, cache: tuple[int, ...], dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (average_pool_backward(dout, (cache[2], cache[3]), *_settings(self)),)


class GlobalAveragePool:
    """y is the mean of each channel, shape=(N, C); each of its H·W pixels gets dout / (H·W).

    Source: Lin, Chen, Yan, "Network in network", 2014, section 3.2.
    """

    def forward(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        check_images(x)
        if not x.shape[2] * x.shape[3]:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected at least one pixel")
        return namespace(x).mean(x, axis=(2, 3)), x.shape

    def backward(self, cache: tuple[int, ...], dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        xp = namespace(dout)
        each = dout * (1.0 / (cache[2] * cache[3]))
        ones = xp.ones((1, 1, *cache[2:]), dtype=dout.dtype, device=device(dout))
        return (each[:, :, None, None] * ones,)


class Flatten:
    """(N, C, H, W) becomes (N, C·H·W): a row of features for each sample."""

    moves: ClassVar[bool] = True

    def forward(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        if x.ndim < 2:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected a batch, (N, ...)")
        y = namespace(x).reshape(x, (x.shape[0], math.prod(x.shape[1:])))
        return y, x.shape

    def backward(self, cache: tuple[int, ...], dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (namespace(dout).reshape(dout, cache),)


def lowest(x: Array) -> float:
    """Return a value that is at most as large as any of x's dtype."""
    if is_real(x):
        return -math.inf
    xp = namespace(x)
    return 0 if xp.isdtype(x.dtype, "bool") else int(xp.iinfo(x.dtype).min)


def _settle(gate: Any) -> None:
    """Store the settings of a pooling layer as pairs; refuse those that cannot be."""
    size = pair("size", gate.size, 1)
    stride = size if gate.stride is None else pair("stride", gate.stride, 1)
    padding = pair("padding", gate.padding, 0)
    if any(2 * p > s for p, s in zip(padding, size, strict=True)):
        raise UsageError(f"padding is {padding}; expected at most half of the size {size}")
    for name, value in (("size", size), ("stride", stride), ("padding", padding)):
        object.__setattr__(gate, name, value)


def _settings(gate: Any) -> tuple[Pair, Pair, Edges]:
    """Return size and stride of the windows, and what is padded around the images."""
    return gate.size, gate.stride, both(gate.padding)


def _fitting(gate: Any, x: Array) -> tuple[Pair, Pair, Edges]:
    """Return the settings; refuse images that they do not fit."""
    check_images(x)
    for axis, what in ((0, "rows"), (1, "columns")):
        size, padding = gate.size[axis], gate.padding[axis]
        if stops(x.shape[2 + axis], size, gate.stride[axis], padding) < 1:
            raise ValueError(
                f"windows of {size} {what} do not fit images of {x.shape[2 + axis]} {what}; "
                "expected a smaller size, or larger images"
            )
    return _settings(gate)
