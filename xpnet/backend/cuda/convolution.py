"""Convolution in CUDA C and by cuBLAS: the windows' values become columns of one matrix product.

A kernel of ours writes the columns, or adds them up to images, and one call of cuBLAS multiplies
the filters with the columns of all samples. The lines of `xpnet.arrays.convolution` copy slices,
which takes more kernels, and CuPy joins more than eight of them by a table from the host, which no
capture allows. Few filters need no columns, see `xpnet.backend.cuda.direct`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import cupy
import numpy as np

from xpnet.arrays.windows import Pair, stops
from xpnet.backend.cuda.direct import Direct
from xpnet.backend.cuda.source import REALS, Source, launch
from xpnet.backend.cuda.sums import SumRows

__all__ = ["Convolutions", "together"]

Array = Any

# A thread copies what one window of a channel sees. Neighbouring threads have neighbouring windows,
# so that they read and write neighbouring elements. The columns of `together` samples stand side by
# side in one matrix: one row for each place of a filter in each channel.
COLUMNS = r"""
extern "C" __global__ void xpnet_columns(
        const T* __restrict__ x, T* __restrict__ columns, long long count, int channels,
        int height, int width, int oh, int ow, int top, int left, int together) {
    const INDEX i = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const int pixels = oh * ow, pixel = i % pixels;
    const INDEX plane = i / pixels, sample = plane / channels, channel = plane % channels;
    const int row = pixel / ow * SH - top, column = pixel % ow * SW - left;
    const INDEX line = (INDEX)together * pixels;
    x += plane * height * width;
    columns += (sample / together * channels + channel) * (KH * KW) * line
        + sample % together * pixels + pixel;
    for (int r = 0; r < KH; r++) {
        #pragma unroll
        for (int c = 0; c < KW; c++) {
            const int h = row + r * DH, w = column + c * DW;
            const bool inside = h >= 0 && h < height && w >= 0 && w < width;
            columns[(r * KW + c) * line] = inside ? x[h * width + w] : (T)0;
        }
    }
}
"""

# The adjoint: a thread adds up, in a fixed order, what its pixel has in all columns.
IMAGES = r"""
extern "C" __global__ void xpnet_images(
        const T* __restrict__ columns, T* __restrict__ x, long long count,
        int height, int width, int oh, int ow, int top, int left) {
    const INDEX i = (INDEX)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const int size = height * width, pixels = oh * ow, pixel = i % size;
    const int row = pixel / width + top, column = pixel % width + left;
    columns += i / size * (KH * KW) * pixels;
    T sum = 0;
    for (int r = 0; r < KH; r++) {
        #pragma unroll
        for (int c = 0; c < KW; c++) {
            const int h = row - r * DH, w = column - c * DW;
            const bool meets = h >= 0 && h % SH == 0 && h / SH < oh
                && w >= 0 && w % SW == 0 && w / SW < ow;
            if (meets) sum += columns[(r * KW + c) * pixels + h / SH * ow + w / SW];
        }
    }
    x[i] = sum;
}
"""

# The columns of so many samples at once: most networks need one piece for a batch, and large images
# no more memory than this. An H100 keeps 50 MB in its cache.
MOST_BYTES = 64 << 20
MOST_SAMPLES = 65535  # as many as `SumRows` adds up
# In the product for dW, a tile of cuBLAS has at most 64 x 64 results: four for each of an H100's
# multiprocessors keep it busy. With fewer tiles it would have to cut the sums itself.
TILE, MOST_TILES = 64, 528


class Windows(NamedTuple):
    """The windows of a convolution, each setting of rows and of columns."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    size: Pair  # of the images
    stops: Pair  # how often a filter fits

    @classmethod
    def of(cls, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Windows:
        settings = tuple(kernel), stride, padding, dilation
        rows, columns = (
            stops(size[axis], *(setting[axis] for setting in settings)) for axis in (0, 1)
        )
        return cls(*settings, tuple(size), (rows, columns))  # type: ignore[arg-type]

    @property
    def pixels(self) -> int:
        return self.stops[0] * self.stops[1]

    @property
    def places(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def turned(self) -> Windows:
        """The windows of the gradient's convolution by the images, where the stride is 1."""
        rows, columns = (
            self.dilation[axis] * (self.kernel[axis] - 1) - self.padding[axis] for axis in (0, 1)
        )
        return self._replace(padding=(rows, columns), size=self.stops, stops=self.size)

    @property
    def copies_nothing(self) -> bool:
        """Whether the images themselves are the columns."""
        return (self.kernel, self.stride, self.padding) == ((1, 1), (1, 1), (0, 0))

    @property
    def constants(self) -> dict[str, int]:
        """What the kernels' loops depend on, by the names in their sources."""
        settings = {"K": self.kernel, "S": self.stride, "D": self.dilation}
        return {f"{name}{a}": v[i] for name, v in settings.items() for i, a in enumerate("HW")}

    @property
    def numbers(self) -> list[np.int32]:
        return [np.int32(n) for pair in (self.size, self.stops, self.padding) for n in pair]


@functools.cache
def together(samples: int, filters: int, depth: int) -> int:
    """Return how many samples one product of dW sums over, a divisor of `samples`.

    Each product gives a matrix (filters, depth), and a kernel adds them up. More of them would cost
    memory; fewer would leave multiprocessors without work.
    """
    tiles = -(-filters // TILE) * -(-depth // TILE)
    divisors = (m for m in range(1, samples) if samples % m == 0)
    return next((m for m in divisors if samples // m * tiles <= MOST_TILES), samples)


class Convolutions:
    """The kernels of `xpnet.arrays.convolution`: one method for each function.

    Parameters
    ----------
    multiply : callable
        Multiplies two real matrices, or stacks of them, in the backend's precision.
    direct : bool
        Whether few filters may be convolved without products, in float32 or float64.
    """

    def __init__(self, multiply: Callable[[Array, Array], Array], direct: bool) -> None:
        self._multiply = multiply
        self._direct = Direct() if direct else None
        self._columns, self._images = (
            Source(COLUMNS, "xpnet_columns"),
            Source(IMAGES, "xpnet_images"),
        )
        self._sum_rows = SumRows()

    def convolve(
        self, x: Array, W: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair
    ) -> Any:
        windows = Windows.of(x.shape[2:], W.shape[2:], stride, padding, dilation)
        if not _computable(windows, x, W):
            return NotImplemented
        x, W = cupy.ascontiguousarray(x), cupy.ascontiguousarray(W)
        y: Any = self._direct.convolve(x, W, b, windows) if self._direct else None
        if y is not None:
            return y
        W = W.reshape(len(W), -1)
        for part in _pieces(windows, x, W):
            product = self._multiply(W, self._columns_of(x[part], windows))
            y = _put(y, len(x), part, product)
        if b is not None:
            y += b[:, None]
        return y.reshape(len(x), len(W), *windows.stops)

    def backward_input(
        self, dout: Array, W: Array, size: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> Any:
        windows = Windows.of(size, W.shape[2:], stride, padding, dilation)
        if not _computable(windows, dout, W):
            return NotImplemented
        channels, dout, W = W.shape[1], cupy.ascontiguousarray(dout), cupy.ascontiguousarray(W)
        dx: Any = None
        if self._direct and stride == (1, 1):
            dx = self._direct.convolve(dout, W, None, windows.turned, turned=True)
            if dx is not None:
                return dx
        W = W.reshape(len(W), -1)
        dout = dout.reshape(len(dout), len(W), windows.pixels)
        for part in _pieces(windows, dout, W):
            columns = self._multiply(W.T, dout[part])
            dx = _put(dx, len(dout), part, self._images_of(columns, channels, windows))
        return dx.reshape(len(dout), channels, *size)

    def backward_weights(
        self, x: Array, dout: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> Any:
        windows = Windows.of(x.shape[2:], kernel, stride, padding, dilation)
        if not _computable(windows, x, dout):
            return NotImplemented
        filters, channels = dout.shape[1], x.shape[1]
        x, dout = cupy.ascontiguousarray(x), cupy.ascontiguousarray(dout)
        dW: Any = self._direct.weights(x, dout, windows) if self._direct else None
        if dW is not None:
            return dW
        dout = dout.reshape(len(x), filters, windows.pixels)
        depth = channels * windows.places
        for part in _pieces(windows, x, None):
            count = len(x[part])
            m = together(count, filters, depth)
            columns = self._columns_of(x[part], windows, m)
            groups = dout[part].reshape(count // m, m, filters, windows.pixels).swapaxes(1, 2)
            groups = cupy.ascontiguousarray(groups).reshape(count // m, filters, -1)
            if count == m:
                added = self._multiply(groups[0], columns[0].T)
            else:
                products = self._multiply(groups, columns.swapaxes(1, 2))
                (added,) = self._sum_rows([products.reshape(count // m, filters * depth)])
            if dW is None:
                dW = added
            else:
                dW += added
        return dW.reshape(filters, channels, *kernel)

    def _columns_of(self, x: Array, windows: Windows, m: int = 1) -> Array:
        """Return the columns of m samples side by side, shape=(N / m, C·KH·KW, m·OH·OW)."""
        n, channels = x.shape[:2]
        if windows.copies_nothing and m == 1:
            return x.reshape(n, channels, windows.pixels)
        shape = n // m, channels * windows.places, m * windows.pixels
        columns = cupy.empty(shape, x.dtype)
        launch(
            self._columns, x.dtype, n * channels * windows.pixels, (x, columns),
            (np.int32(channels), *windows.numbers, np.int32(m)), windows.constants,
        )  # fmt: skip
        return columns

    def _images_of(self, columns: Array, channels: int, windows: Windows) -> Array:
        """Return the images to which the columns add up, shape=(N, C, H, W)."""
        n, shape = len(columns), (channels, *windows.size)
        if windows.copies_nothing:
            return columns.reshape(n, *shape)
        x = cupy.empty((n, *shape), columns.dtype)
        launch(
            self._images, columns.dtype, x.size, (columns, x), windows.numbers, windows.constants
        )
        return x


def _computable(windows: Windows, *arrays: Array) -> bool:
    """Say whether there are kernels for such arrays: of one real dtype, and not empty."""
    dtype = arrays[0].dtype
    return (
        dtype.name in REALS
        and all(a.dtype == dtype and a.ndim == 4 and a.size for a in arrays)
        and min(*windows.stops, *windows.size, *windows.kernel) > 0
    )


def _pieces(windows: Windows, x: Array, W: Array | None) -> Iterator[slice]:
    """Cut a batch into pieces of about one size, so that their columns fit into MOST_BYTES."""
    depth = x.shape[1] * windows.places if W is None else W.shape[1]
    each = 0 if windows.copies_nothing else depth * windows.pixels * x.itemsize
    most = min(MOST_SAMPLES, max(1, MOST_BYTES // max(each, 1)))
    count = -(-len(x) // most)
    ends = [len(x) * k // count for k in range(count + 1)]
    return (slice(start, end) for start, end in pairwise(ends))


def _put(whole: Array | None, samples: int, part: slice, values: Array) -> Array:
    """Put a piece into the whole, which is made with the first one; a piece of all is the whole."""
    if len(values) == samples:
        return values
    if whole is None:
        whole = cupy.empty((samples, *values.shape[1:]), values.dtype)
    whole[part] = values
    return whole
