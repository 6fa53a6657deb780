"""Windows of images: the places under a filter, and what goes back to them.

Images have the shape (N, C, H, W): N samples, C channels, H rows, W columns. A filter of kh x kw
places moves over the rows and the columns. For each of its kh·kw places there is one slice of the
images: what this place sees at every stop of the filter. So convolution and pooling are sums,
products and maxima of whole slices, on every library; no index is ever computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

from xpnet.arrays.dispatch import Array, replaceable
from xpnet.arrays.ops import device, masked, namespace

__all__ = [
    "Edges", "Pair", "add_windows", "average_pool", "average_pool_backward", "largest", "max_pool",
    "max_pool_backward", "pad", "places", "spread", "stops", "windows",
]  # fmt: skip

Pair = tuple[int, int]  # of rows and of columns
Edges = tuple[Pair, Pair]  # (top, bottom), (left, right)
NONE: Edges = ((0, 0), (0, 0))


def stops(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """Return how often a filter fits: (size + 2 padding - span) // stride + 1, or less than 1.

    The span of a filter is dilation · (kernel - 1) + 1.

    Examples
    --------
    >>> stops(28, 5, 1, 0), stops(28, 2, 2, 0), stops(3, 5, 1, 0)
    (24, 14, -1)
    """
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def places(kernel: Pair) -> list[Pair]:
    """Return the places of a filter, row by row."""
    return list(product(range(kernel[0]), range(kernel[1])))


def windows(x: Array, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> list[Array]:
    """Return what each place of a filter sees, in the order of `places`.

    Parameters
    ----------
    x : array, shape=(N, C, H, W)
        Images, padded already.
    kernel, stride, dilation : (int, int)

    Returns
    -------
    list of array, shape=(N, C, OH, OW)
        Slices of x, which share its memory where the library can.
    """
    (sh, sw), (dh, dw) = stride, dilation
    oh = stops(x.shape[2], kernel[0], sh, 0, dh)
    ow = stops(x.shape[3], kernel[1], sw, 0, dw)
    return [
        x[:, :, i : i + sh * (oh - 1) + 1 : sh, j : j + sw * (ow - 1) + 1 : sw]
        for i, j in ((i * dh, j * dw) for i, j in places(kernel))
    ]


@replaceable
def pad(x: Array, edges: Edges, value: float = 0.0) -> Array:
    """Return images with rows and columns of `value` around them; x itself if there are none.

    Negative edges cut rows and columns off: after the others are added, since they may cut off
    more than there is of x.
    """
    for axis, (before, after) in zip((2, 3), edges, strict=True):
        parts = [x]
        for place, width in ((0, before), (2, after)):
            if width > 0:
                shape = [*x.shape]
                shape[axis] = width
                xp = namespace(x)
                parts.insert(place, xp.full(tuple(shape), value, dtype=x.dtype, device=device(x)))
        if len(parts) > 1:
            x = namespace(x).concat(parts, axis=axis)
        if before < 0 or after < 0:
            kept = slice(max(-before, 0), x.shape[axis] - max(-after, 0))
            x = x[:, :, kept, :] if axis == 2 else x[:, :, :, kept]
    return x


@replaceable
def spread(x: Array, stride: Pair) -> Array:
    """Return images with stride - 1 zeros between two rows, and between two columns."""
    xp = namespace(x)
    for axis, step in zip((2, 3), stride, strict=True):
        if step > 1:
            zeros = xp.zeros_like(x)
            size = x.shape[axis]
            shape = [*x.shape]
            shape[axis] = size * step
            x = xp.reshape(xp.stack([x] + [zeros] * (step - 1), axis=axis + 1), tuple(shape))
            end = (size - 1) * step + 1
            x = x[:, :, :end, :] if axis == 2 else x[:, :, :, :end]
    return x


@replaceable
def add_windows(
    parts: Sequence[Array], size: Pair, kernel: Pair, stride: Pair, edges: Edges = NONE
) -> Array:
    """Put slices back where `windows` took them, and add where they overlap.

    Parameters
    ----------
    parts : sequence of array, shape=(N, C, OH, OW)
        One for each of `places(kernel)`.
    size : (int, int)
        Rows and columns of the images without their edges.
    edges : ((int, int), (int, int))
        What was padded around the images, and is cut off again.

    Returns
    -------
    array, shape=(N, C, *size)
    """
    (kh, kw), (sh, sw) = kernel, stride
    (top, bottom), (left, right) = edges
    rows, columns = top + size[0] + bottom, left + size[1] + right
    n, c, oh, ow = parts[0].shape
    xp = namespace(parts[0])
    if kh <= sh and kw <= sw:  # no two windows overlap
        zeros = xp.zeros_like(parts[0]) if (kh, kw) != stride else None
        lines = []
        for i in range(sh):
            line = [parts[i * kw + j] if i < kh and j < kw else zeros for j in range(sw)]
            lines.append(xp.stack(line, axis=4))  # (N, C, OH, OW, sw)
        whole = xp.reshape(xp.stack(lines, axis=3), (n, c, oh * sh, ow * sw))
        return pad(whole, ((-top, rows - oh * sh - bottom), (-left, columns - ow * sw - right)))
    total = None
    for (i, j), part in zip(places(kernel), parts, strict=True):
        part = spread(part, stride)
        after = rows - i - part.shape[2] - bottom, columns - j - part.shape[3] - right
        part = pad(part, ((i - top, after[0]), (j - left, after[1])))
        total = part if total is None else total + part
    return total


@replaceable
def max_pool(x: Array, size: Pair, stride: Pair) -> tuple[Array, Any]:
    """Return the largest value of each window, NaN where a window has one; and a hint.

    Parameters
    ----------
    x : array, shape=(N, C, H, W)
        Images, padded already.
    size, stride : (int, int)

    Returns
    -------
    y : array, shape=(N, C, OH, OW)
    hint : any
        What a backend's `max_pool_backward` would compute again; these lines need none.
    """
    # First within the rows, then between them: kh + kw - 2 maxima in place of kh kw - 1.
    in_rows = largest(x, (1, size[1]), (1, stride[1]))
    return largest(in_rows, (size[0], 1), (stride[0], 1)), None


@replaceable
def max_pool_backward(
    x: Array, y: Array, hint: Any, dout: Array, size: Pair, stride: Pair, edges: Edges
) -> Array:
    """Return dx of `max_pool`: in each window, the first place with the largest value gets dout.

    Parameters
    ----------
    x : array, shape=(N, C, H, W)
        Images, padded already.
    y, dout : array, shape=(N, C, OH, OW)
        The maxima, and the gradient with respect to them.
    hint : any
        From `max_pool`.
    size, stride : (int, int)
    edges : ((int, int), (int, int))
        What was padded around the images.
    """
    in_rows = largest(x, (1, size[1]), (1, stride[1]))
    dout = _to_first(in_rows, y, dout, (size[0], 1), (stride[0], 1))
    dx = _to_first(x, in_rows, dout, (1, size[1]), (1, stride[1]))
    (top, bottom), (left, right) = edges
    return pad(dx, ((-top, -bottom), (-left, -right)))


def largest(x: Array, size: Pair, stride: Pair) -> Array:
    """Return the largest value of each window, which lies in one row or one column."""
    xp = namespace(x)
    y, *rest = windows(x, size, stride)
    for part in rest:
        y = xp.maximum(y, part)
    return y


def _to_first(x: Array, y: Array, dout: Array, size: Pair, stride: Pair) -> Array:
    """Give dout to the first value of each window that is equal to y."""
    parts = []
    for part in windows(x, size, stride)[:-1]:
        first = part == y
        parts.append(masked(dout, first))
        dout = masked(dout, namespace(x).logical_not(first))  # what is left for later places
    return add_windows([*parts, dout], (x.shape[2], x.shape[3]), size, stride)


@replaceable
def average_pool(x: Array, size: Pair, stride: Pair) -> Array:
    """Return the mean of each window, of images that are padded already."""
    first, *rest = windows(x, size, stride)
    y = first * 1.0
    for part in rest:
        y += part
    y *= 1.0 / math.prod(size)
    return y


@replaceable
def average_pool_backward(
    dout: Array, images: Pair, size: Pair, stride: Pair, edges: Edges
) -> Array:
    """Return dx of `average_pool`: each place of a window gets its share of dout.

    Parameters
    ----------
    dout : array, shape=(N, C, OH, OW)
    images : (int, int)
        Rows and columns of the images without their edges.
    size, stride, edges
        As for `max_pool_backward`.
    """
    count = math.prod(size)
    return add_windows([dout * (1.0 / count)] * count, images, size, stride, edges)
