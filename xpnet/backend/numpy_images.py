"""Convolution and pooling as NumPy computes them fastest: a few samples at a time, in the cache.

The lines of `xpnet.arrays` make the columns of the whole batch, which is up to KH·KW times as large
as its images, and write and read them in main memory. Here a block of samples has its columns in a
buffer that stays in the processor's cache, so a product finds them there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from xpnet.arrays.convolution import by_rows
from xpnet.arrays.windows import Edges, Pair, largest, stops, windows

__all__ = ["KERNELS"]

# Bytes of the columns of a block: half of a processor's second cache, say. From 128 KiB to 1 MiB,
# the time hardly changes (benchmarks/RESULTS.md).
BLOCK = 1 << 19


def _convolve(
    x: np.ndarray,
    W: np.ndarray,
    b: np.ndarray | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> np.ndarray:
    filters = len(W)
    size = _stops(x, W.shape[2:], stride, padding, dilation)
    y = np.empty((len(x), filters, size[0] * size[1]), np.result_type(x, W))
    rows = _filters(W, stride)
    ones = False
    if b is not None and len(rows) == 1:  # b is then one more value of the filters, that sees ones
        ones = True
        rows = [np.concatenate([rows[0], b[:, None]], axis=1)]
    spare = np.empty_like(y[:0])
    for part, columns in _blocks(x, W.shape, stride, padding, dilation, ones):
        into = y[part]
        np.matmul(rows[0], _at(columns, 0, size), out=into)
        if len(rows) > 1 and len(spare) < len(into):
            spare = np.empty_like(into)
        for i, row in enumerate(rows[1:], 1):
            more = spare[: len(into)]
            np.matmul(row, _at(columns, i * dilation[0], size), out=more)
            into += more
        if b is not None and not ones:
            into += b[:, None]
    return y.reshape(len(x), filters, *size)


def _convolve_backward_weights(
    x: np.ndarray, dout: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    shape = dout.shape[1], x.shape[1], *kernel
    size: Pair = dout.shape[2], dout.shape[3]
    dout = dout.reshape(*dout.shape[:2], size[0] * size[1])
    count = kernel[0] if by_rows(shape, stride) else 1
    depth = x.shape[1] * kernel[0] * kernel[1] // count
    dW = np.zeros((count, dout.shape[1], depth), dout.dtype)
    for part, columns in _blocks(x, shape, stride, padding, dilation):
        for i in range(count):
            each = np.matmul(dout[part], _at(columns, i * dilation[0], size).mT)
            dW[i] += each.sum(axis=0)
    if count == 1:
        return dW.reshape(shape)
    return np.ascontiguousarray(dW.reshape(count, *shape[:2], kernel[1]).transpose(1, 2, 0, 3))


def _filters(W: np.ndarray, stride: Pair) -> list[np.ndarray]:
    """Return the filters as matrices: one, or one for each of their rows."""
    if not by_rows(W.shape, stride):
        return [W.reshape(len(W), -1)]
    return [np.ascontiguousarray(W[:, :, i]).reshape(len(W), -1) for i in range(W.shape[2])]


def _stops(
    x: np.ndarray, kernel: Sequence[int], stride: Pair, padding: Pair, dilation: Pair
) -> Pair:
    rows, columns = (
        stops(x.shape[2 + a], kernel[a], stride[a], padding[a], dilation[a]) for a in (0, 1)
    )
    return rows, columns


def _blocks(
    x: np.ndarray,
    W_shape: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ones: bool = False,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield a block of samples and its columns, shape=(b, C·KH·KW, OH, OW), in one buffer.

    With `ones`, each column ends with a 1: (b, C·KH·KW + 1, OH, OW).

    By rows, the columns hold one row of the filters at all heights: (b, C·KW, H + 2 padding, OW).
    """
    _, channels, kh, kw = W_shape
    kernel = (1, kw) if by_rows(W_shape, stride) else (kh, kw)
    size = _stops(x, kernel, stride, padding, dilation)
    depth = channels * kernel[0] * kernel[1]
    height = max(1, min(len(x), BLOCK // (depth * size[0] * size[1] * x.itemsize)))
    # Zeros, since no place of a filter writes to where it sees only the padding.
    buffer = np.zeros((height, depth + ones, *size), x.dtype)
    buffer[:, depth:] = 1.0
    into = buffer[:, :depth].reshape(height, channels, *kernel, *size)  # a view
    if padding == (0, 0):  # all places of the filter at once
        (down, right), (rows, columns) = x.strides[2:], stride
        shape = len(x), channels, *kernel, *size
        far = down * dilation[0], right * dilation[1], down * rows, right * columns
        seen = np.lib.stride_tricks.as_strided(x, shape, (*x.strides[:2], *far), writeable=False)
        for start in range(0, len(x), height):
            part = slice(start, min(start + height, len(x)))
            count = part.stop - start
            into[:count] = seen[part]
            yield part, buffer[:count]
        return
    reach = [
        [
            _seen(x.shape[2 + a], size[a], place * dilation[a] - padding[a], stride[a])
            for place in range(kernel[a])
        ]
        for a in (0, 1)
    ]
    moves = [
        ((..., *place, *to), (..., *there))
        for place in product(*map(range, kernel))
        for to, there in [zip(*(reach[a][place[a]] for a in (0, 1)), strict=True)]
    ]
    for start in range(0, len(x), height):
        images = x[start : start + height]
        for to, there in moves:
            into[: len(images)][to] = images[there]
        yield slice(start, start + len(images)), buffer[: len(images)]


def _seen(size: int, stops: int, first: int, stride: int) -> tuple[slice, slice]:
    """Return at which stops a place of the filter is within the image, and what it sees there.

    At stop 0 it is at pixel `first`, which is negative in the padding.
    """
    low = max(0, -(first // stride))
    high = max(low, min(stops, (size - 1 - first) // stride + 1))
    start = first + low * stride
    return slice(low, high), slice(start, start + max(0, (high - low - 1) * stride + 1), stride)


def _at(columns: np.ndarray, first: int, size: Pair) -> np.ndarray:
    """Return the columns of the windows whose row begins at `first`, as matrices."""
    part = columns[:, :, first : first + size[0]]
    return part.reshape(*part.shape[:2], size[0] * size[1])  # a view: whole rows, one after another


# -- Pooling ----------------------------------------------------------------------------


QUARTERS: Pair = (2, 2)  # windows of so many rows and columns, one beside the other: the usual pool


def _max_pool(x: np.ndarray, size: Pair, stride: Pair) -> tuple[np.ndarray, Any]:
    if size == stride == QUARTERS and x.flags.c_contiguous:
        y = np.empty((*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2), x.dtype)
        for part in _samples(x):
            top, bottom = windows(_largest_in_rows(x[part], 2, 2), (2, 1), (2, 1))
            np.maximum(top, bottom, out=y[part])
        return y, None
    in_rows = _largest_in_rows(x, size[1], stride[1])
    return largest(in_rows, (size[0], 1), (stride[0], 1)), in_rows


def _samples(x: np.ndarray) -> Iterator[slice]:
    """Yield blocks of samples that stay in the cache."""
    height = max(1, BLOCK // max(1, x[:1].nbytes))
    return (slice(start, start + height) for start in range(0, len(x), height))


def _largest_in_rows(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    """Return the largest of `size` neighbours in a row, for each window; a view of all of them.

    The largest of each value and those behind it, over the whole memory at once, takes half the
    time of those of the windows alone: their values lie `stride` apart, for which processors have
    no instructions. Neighbours in two rows are in no window.
    """
    if size == 1 or not x.flags.c_contiguous or x.size < size:
        maxima: np.ndarray = largest(x, (1, size), (1, stride))
        return maxima
    flat = x.reshape(-1)
    count = x.size - size + 1
    maxima = np.empty_like(flat)
    into = np.maximum(flat[:count], flat[1 : count + 1], out=maxima[:count])
    for i in range(2, size):
        np.maximum(into, flat[i : count + i], out=into)
    end = (stops(x.shape[3], size, stride, 0) - 1) * stride + 1
    return maxima.reshape(x.shape)[..., :end:stride]


def _max_pool_backward(
    x: np.ndarray,
    y: np.ndarray,
    in_rows: np.ndarray | None,
    dout: np.ndarray,
    size: Pair,
    stride: Pair,
    edges: Edges,
) -> Any:
    if in_rows is None:
        dx = _to_first_of_quarters(x, y, dout)
    else:
        dout = _to_first(in_rows, y, dout, (size[0], 1), (stride[0], 1))
        dx = _to_first(x, in_rows, dout, (1, size[1]), (1, stride[1]))
    (top, bottom), (left, right) = edges
    return dx[:, :, top : dx.shape[2] - bottom, left : dx.shape[3] - right]


def _to_first_of_quarters(x: np.ndarray, y: np.ndarray, dout: np.ndarray) -> Any:
    """Give dout to the first value of each window of 2 x 2 that is equal to y.

    Each window writes one number, to an index: half of the time of writing all four, two of which
    lie apart in memory.
    """
    dx = np.empty(x.shape, dout.dtype)
    firsts: Any = np.empty(0, np.intp)
    for part in _samples(x):
        images, maxima, into = x[part], y[part], dx[part]
        if len(firsts) < len(images):  # where the windows begin
            firsts = np.arange(images.size).reshape(images.shape)
            firsts = windows(firsts, QUARTERS, QUARTERS)[0].copy()
        upper = np.maximum(*windows(images, QUARTERS, QUARTERS)[:2])
        places: Any = np.multiply(upper != maxima, x.shape[3], dtype=np.intp)  # a row further down
        places += firsts[: len(images)]
        places += images.take(places) != maxima  # a column further right
        into.fill(0.0)
        into.reshape(-1)[places.reshape(-1)] = dout[part].reshape(-1)
    return dx


def _to_first(x: np.ndarray, y: np.ndarray, dout: np.ndarray, size: Pair, stride: Pair) -> Any:
    """Give dout to the first value of each window that is equal to y."""
    overlapping = size[0] > stride[0] or size[1] > stride[1]
    covered = all(n == s * m for n, s, m in zip(x.shape[2:], stride, y.shape[2:], strict=True))
    make = np.empty if covered and size == stride else np.zeros
    dx = make(x.shape, dout.dtype)
    *parts, last = zip(windows(x, size, stride), windows(dx, size, stride), strict=True)
    # A gradient of infinity times 0 would be NaN; its bits, a whole number, times 0 are 0.
    bits = np.dtype(f"i{dout.itemsize}")
    for k, (part, into) in enumerate(parts, 1):
        first = part == y
        if overlapping:
            given = np.multiply(dout.view(bits), first)
            into += given.view(dout.dtype)
            dout = np.bitwise_xor(dout.view(bits), given, out=given).view(dout.dtype)
        else:
            given = np.multiply(dout.view(bits), first, out=into.view(bits))
            # What is left goes to later places: from the last but one straight to the last.
            rest = last[1].view(bits) if k == len(parts) else None
            dout = np.bitwise_xor(dout.view(bits), given, out=rest).view(dout.dtype)
    if overlapping:
        last[1][...] += dout
    elif not parts:
        last[1][...] = dout
    return dx


def _pad(x: np.ndarray, edges: Edges, value: float = 0.0) -> Any:
    if min(map(min, edges)) < 0 or edges == ((0, 0), (0, 0)):
        return NotImplemented
    (top, bottom), (left, right) = edges
    shape = *x.shape[:2], x.shape[2] + top + bottom, x.shape[3] + left + right
    padded = np.full(shape, value, x.dtype)
    padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return padded


def _spread(x: np.ndarray, stride: Pair) -> np.ndarray:
    if stride == (1, 1):
        return x
    shape = *x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True))
    wide = np.zeros(shape, x.dtype)
    wide[:, :, :: stride[0], :: stride[1]] = x
    return wide


def _add_windows(
    parts: Sequence[np.ndarray], size: Pair, kernel: Pair, stride: Pair, edges: Edges
) -> np.ndarray:
    (top, bottom), (left, right) = edges
    n, channels = parts[0].shape[:2]
    shape = n, channels, top + size[0] + bottom, left + size[1] + right
    total = np.zeros(shape, parts[0].dtype)
    for into, part in zip(windows(total, kernel, stride), parts, strict=True):
        into += part
    return total[:, :, top : top + size[0], left : left + size[1]]


def _sum_channels(x: np.ndarray, y: np.ndarray | None = None) -> Any:
    if (
        x.ndim != 4
        or not x.size
        or not (x.flags.c_contiguous and (y is None or y.flags.c_contiguous))
    ):
        return NotImplemented
    rows = x.reshape(x.shape[0] * x.shape[1], -1)
    if y is None:  # a product with ones takes a third of the time of `sum`
        each = rows @ np.ones(rows.shape[1], x.dtype)
    else:
        each = np.vecdot(rows, y.reshape(rows.shape))
    return each.reshape(x.shape[:2]).sum(axis=0)


KERNELS: dict[str, Callable[..., Any]] = {
    "add_windows": _add_windows,
    "convolve": _convolve,
    "convolve_backward_weights": _convolve_backward_weights,
    "max_pool": _max_pool,
    "max_pool_backward": _max_pool_backward,
    "pad": _pad,
    "spread": _spread,
    "sum_channels": _sum_channels,
}
