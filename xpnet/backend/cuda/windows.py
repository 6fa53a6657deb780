"""Kernels of `xpnet.arrays.windows` in CUDA C: pooling and padding, one kernel each.

A thread computes one element of the result, in the order of the lines, so that repeated runs give
the same bits. Neighbouring threads have neighbouring elements.
"""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from xpnet.arrays.windows import Edges, Pair, stops
from xpnet.backend.cuda.fuse import C_TYPES
from xpnet.backend.cuda.source import REALS, Source, launch

__all__ = ["WindowKernels"]

Array = Any

PAD = r"""
extern "C" __global__ void xpnet_pad(
        const T* __restrict__ x, T* __restrict__ y, long long count,
        int height, int width, int rows, int columns, int top, int left, T value) {
    const INDEX i = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const int size = rows * columns, pixel = i % size;
    const int h = pixel / columns - top, w = pixel % columns - left;
    const bool inside = h >= 0 && h < height && w >= 0 && w < width;
    y[i] = inside ? x[i / size * (height * width) + h * width + w] : value;
}
"""

# With the largest value of a window, its place: backward then reads neither x nor y. As in the
# lines, the first of equal values counts; as in PyTorch, the last NaN.
MAX_POOL = r"""
extern "C" __global__ void xpnet_max_pool(
        const T* __restrict__ x, T* __restrict__ y, PLACE* __restrict__ places, long long count,
        int height, int width, int oh, int ow) {
    const INDEX i = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const int pixels = oh * ow, pixel = i % pixels;
    x += i / pixels * (height * width) + pixel / ow * SH * width + pixel % ow * SW;
    T largest = x[0];
    int place = 0;
    for (int r = 0; r < KH; r++)
        for (int c = 0; c < KW; c++) {
            const T value = x[r * width + c];
            if (value > largest || value != value) {
                largest = value;
                place = r * KW + c;
            }
        }
    y[i] = largest;
    places[i] = place;
}
"""

MAX_POOL_BACKWARD = r"""
extern "C" __global__ void xpnet_max_pool_backward(
        const PLACE* __restrict__ places, const T* __restrict__ dout, T* __restrict__ dx,
        long long count, int oh, int ow, int rows, int columns, int top, int left) {
    const INDEX i = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const int size = rows * columns, pixel = i % size;
    const int h = pixel / columns + top, w = pixel % columns + left;
    places += i / size * (oh * ow);
    dout += i / size * (oh * ow);
    T sum = 0;
    for (int a = h < KH ? 0 : (h - KH) / SH + 1; a < oh && a * SH <= h; a++)
        for (int b = w < KW ? 0 : (w - KW) / SW + 1; b < ow && b * SW <= w; b++)
            if (places[a * ow + b] == (h - a * SH) * KW + w - b * SW) sum += dout[a * ow + b];
    dx[i] = sum;
}
"""

AVERAGE_POOL = r"""
extern "C" __global__ void xpnet_average_pool(
        const T* __restrict__ x, T* __restrict__ y, long long count,
        int height, int width, int oh, int ow, T share) {
    const INDEX i = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const int pixels = oh * ow, pixel = i % pixels;
    x += i / pixels * (height * width) + pixel / ow * SH * width + pixel % ow * SW;
    T sum = 0;
    for (int r = 0; r < KH; r++)
        for (int c = 0; c < KW; c++) sum += x[r * width + c];
    y[i] = sum * share;
}
"""

AVERAGE_POOL_BACKWARD = r"""
extern "C" __global__ void xpnet_average_pool_backward(
        const T* __restrict__ dout, T* __restrict__ dx, long long count,
        int oh, int ow, int rows, int columns, int top, int left, T share) {
    const INDEX i = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const int size = rows * columns, pixel = i % size;
    const int h = pixel / columns + top, w = pixel % columns + left;
    dout += i / size * (oh * ow);
    T sum = 0;
    for (int a = h < KH ? 0 : (h - KH) / SH + 1; a < oh && a * SH <= h; a++)
        for (int b = w < KW ? 0 : (w - KW) / SW + 1; b < ow && b * SW <= w; b++)
            sum += dout[a * ow + b] * share;
    dx[i] = sum;
}
"""


class WindowKernels:
    """Pooling and padding: one method for each function of `xpnet.arrays.windows`."""

    def __init__(self) -> None:
        self._pad = Source(PAD, "xpnet_pad")
        self._max_pool = Source(MAX_POOL, "xpnet_max_pool")
        self._max_pool_backward = Source(MAX_POOL_BACKWARD, "xpnet_max_pool_backward")
        self._average_pool = Source(AVERAGE_POOL, "xpnet_average_pool")
        self._average_pool_backward = Source(AVERAGE_POOL_BACKWARD, "xpnet_average_pool_backward")

    def pad(self, x: Array, edges: Edges, value: float = 0.0) -> Any:
        (top, bottom), (left, right) = edges
        size = x.shape[2] + top + bottom, x.shape[3] + left + right
        if edges == ((0, 0), (0, 0)) or not _computable(x) or min(size) < 1:
            return NotImplemented
        y = cupy.empty((*x.shape[:2], *size), x.dtype)
        numbers = *_whole(*x.shape[2:], *size, top, left), x.dtype.type(value)
        launch(self._pad, x.dtype, y.size, (_dense(x), y), numbers, {})
        return y

    def max_pool(self, x: Array, size: Pair, stride: Pair) -> Any:
        fits = _fits(x, size, stride)
        if not _computable(x) or min(fits) < 1:
            return NotImplemented
        shape = *x.shape[:2], *fits
        y, places = cupy.empty(shape, x.dtype), cupy.empty(shape, _place(size))
        numbers = _whole(*x.shape[2:], *fits)
        arrays = _dense(x), y, places
        launch(self._max_pool, x.dtype, y.size, arrays, numbers, _constants(size, stride))
        return y, places

    def max_pool_backward(
        self, x: Array, y: Array, places: Array | None, dout: Array, size: Pair, stride: Pair,
        edges: Edges,
    ) -> Any:  # fmt: skip
        if not _computable(x, dout):
            return NotImplemented
        if places is None:  # y is not from here
            _, places = self.max_pool(x, size, stride)
        (top, bottom), (left, right) = edges
        images = x.shape[2] - top - bottom, x.shape[3] - left - right
        dx = cupy.empty((*x.shape[:2], *images), x.dtype)
        numbers = _whole(*y.shape[2:], *images, top, left)
        arrays = places, _dense(dout), dx
        launch(self._max_pool_backward, x.dtype, dx.size, arrays, numbers, _constants(size, stride))
        return dx

    def average_pool(self, x: Array, size: Pair, stride: Pair) -> Any:
        fits = _fits(x, size, stride)
        if not _computable(x) or min(fits) < 1:
            return NotImplemented
        y = cupy.empty((*x.shape[:2], *fits), x.dtype)
        numbers = *_whole(*x.shape[2:], *fits), _share(x, size)
        arrays = _dense(x), y
        launch(self._average_pool, x.dtype, y.size, arrays, numbers, _constants(size, stride))
        return y

    def average_pool_backward(
        self, dout: Array, images: Pair, size: Pair, stride: Pair, edges: Edges
    ) -> Any:
        if not _computable(dout):
            return NotImplemented
        dx = cupy.empty((*dout.shape[:2], *images), dout.dtype)
        numbers = *_whole(*dout.shape[2:], *images, edges[0][0], edges[1][0]), _share(dout, size)
        arrays = _dense(dout), dx
        launch(
            self._average_pool_backward, dout.dtype, dx.size, arrays, numbers,
            _constants(size, stride),
        )  # fmt: skip
        return dx


def _fits(x: Array, size: Pair, stride: Pair) -> Pair:
    """Return how often a window fits into the rows and the columns of padded images."""
    rows, columns = (stops(x.shape[2 + axis], size[axis], stride[axis], 0) for axis in (0, 1))
    return rows, columns


def _computable(*arrays: Array) -> bool:
    """Say whether there are kernels for such arrays: of one real dtype, and not empty."""
    dtype = arrays[0].dtype
    return dtype.name in REALS and all(a.dtype == dtype and a.size for a in arrays)


def _share(x: Array, size: Pair) -> Any:
    return x.dtype.type(1.0 / math.prod(size))


def _constants(size: Pair, stride: Pair) -> dict[str, int | str]:
    sizes = {"KH": size[0], "KW": size[1], "SH": stride[0], "SW": stride[1]}
    return {**sizes, "PLACE": C_TYPES[_place(size)]}


def _place(size: Pair) -> str:
    """Return the dtype of a place within a window."""
    return "uint8" if math.prod(size) <= 256 else "int32"


def _whole(*numbers: int) -> list[np.int32]:
    return [np.int32(n) for n in numbers]


def _dense(x: Array) -> Array:
    return cupy.ascontiguousarray(x)
