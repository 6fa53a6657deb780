"""Sums in CUDA C: softmax with its loss, the mean over a batch, the gradients of biases.

Each sum has a fixed order, so that repeated runs give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np

from xpnet.backend.cuda.fuse import C_TYPES
from xpnet.backend.cuda.source import REALS, Source

__all__ = ["Softmax", "SumChannels", "SumRows", "WeightedSum"]

Array = Any

# One warp handles a row, so that its lanes read neighbouring elements; it sums in a fixed order.
SOFTMAX_CROSS_ENTROPY = r"""
extern "C" __global__ void xpnet_softmax_cross_entropy(
        const T* x, const int* t, const T* factors, T factor, T* losses, T* gradient,
        long long rows, long long labels, int classes) {
    long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;  // a whole warp
    // Models that share their labels take turns with them.
    int lane = threadIdx.x, label = t[row < labels ? row : row % labels];
    if (factors) factor = factors[row];
    x += row * classes;
    gradient += row * classes;
    T largest = x[0];
    for (int c = lane; c < classes; c += 32) largest = x[c] > largest ? x[c] : largest;
    for (int o = 16; o > 0; o /= 2) {
        T other = __shfl_xor_sync(0xffffffffu, largest, o);
        largest = other > largest ? other : largest;
    }
    T total = 0, chosen = 0;
    for (int c = lane; c < classes; c += 32) {
        T shifted = x[c] - largest;
        total += exp(shifted);
        if (c == label) chosen = shifted;
    }
    for (int o = 16; o > 0; o /= 2) {
        total += __shfl_xor_sync(0xffffffffu, total, o);
        chosen += __shfl_xor_sync(0xffffffffu, chosen, o);
    }
    for (int c = lane; c < classes; c += 32)
        gradient[c] = (exp(x[c] - largest) / total - (T)(c == label)) * factor;
    if (lane == 0) losses[row] = log(total) - chosen;
}
"""
WARPS = 8  # per block

# One block is enough for a batch, that of a model. Each thread sums the losses at a fixed stride,
# then the block adds the threads' sums in a fixed order.
WEIGHTED_SUM = r"""
extern "C" __global__ void xpnet_weighted_sum(
        const T* losses, const T* factors, T factor, T* out, int n) {
    __shared__ T sums[32];
    losses += (long long)blockIdx.x * n;
    if (factors) factors += (long long)blockIdx.x * n;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    T sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        sum += !factors ? losses[i] : factors[i] != 0 ? losses[i] * factors[i] : 0;
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, o);
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    if (warp > 0) return;
    sum = lane < blockDim.x / 32 ? sums[lane] : 0;
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, o);
    if (lane == 0) out[blockIdx.x] = factors ? sum : sum * factor;
}
"""
SUM_THREADS, MOST_SUMMED = 256, 1 << 20

# A block has 32 by 32 threads and sums 32 columns. Each thread adds every 32nd row of a column,
# then a warp adds the column's 32 partial sums in a fixed order. A layer of blocks sums the rows of
# one model. With factors, it sums their products with the rows; only those of one model have any.
SUM_ROWS = r"""
__device__ __noinline__ void sum_rows(
        const T* x, const T* factors, T* out, int rows, int columns) {
    __shared__ T sums[32][33];
    x += (long long)blockIdx.z * rows * columns;
    out += (long long)blockIdx.z * columns;
    int column = blockIdx.x * 32 + threadIdx.x;
    T sum = 0;
    if (column < columns)
        for (long long i = threadIdx.y; i < rows; i += 32) {
            T value = x[i * columns + column];
            sum += factors ? value * factors[i * columns + column] : value;
        }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    // Each warp adds the partial sums of one column.
    sum = sums[threadIdx.x][threadIdx.y];
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, o);
    column = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && column < columns) out[column] = sum;
}
"""
MOST_ROWS = 1 << 16
MOST_MODELS = 65535  # layers of blocks in a launch
ARRAYS = 100  # at most, per kernel, since its parameters may take only 4 KiB

# A block sums the pixels of one channel, those of all images.
SUM_CHANNELS = r"""
extern "C" __global__ void xpnet_sum_channels(
        const T* __restrict__ x, const T* __restrict__ factors, T* __restrict__ out,
        long long count, int channels, int pixels) {
    __shared__ T sums[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    T sum = 0;
    #pragma unroll 4
    for (INDEX i = threadIdx.x; i < count; i += blockDim.x) {
        const INDEX place = (i / pixels * channels + blockIdx.x) * pixels + i % pixels;
        sum += factors ? x[place] * factors[place] : x[place];
    }
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, o);
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    if (warp > 0) return;
    sum = lane < blockDim.x / 32 ? sums[lane] : 0;
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, o);
    if (lane == 0) out[blockIdx.x] = sum;
}
"""
CHANNEL_THREADS = 1024  # at most


class Softmax:
    """Losses and their gradient in one kernel, for class indices (not one-hot or soft targets)."""

    def __init__(self) -> None:
        self._kernels = Source(SOFTMAX_CROSS_ENTROPY, "xpnet_softmax_cross_entropy")

    def __call__(self, x: Array, t: Array, factor: Any) -> Any:
        rows, classes = x.size // max(x.shape[-1], 1), x.shape[-1]
        kernel = self._kernels.get(x.dtype.name)
        if kernel is None or t.dtype != np.int32 or t.shape != x.shape[:-1]:
            return NotImplemented
        if t.ndim > 1 and t.strides[0] == 0:  # the labels that all models share
            t = t[0, ...]
        if classes < 2 or rows == 0 or not (x.flags.c_contiguous and t.flags.c_contiguous):
            return NotImplemented
        losses, gradient = cupy.empty(x.shape[:-1], x.dtype), cupy.empty(x.shape, x.dtype)
        arguments = (x, t, *_factors(factor, x.dtype), losses, gradient)
        sizes = np.int64(rows), np.int64(t.size), np.int32(classes)
        kernel((-(-rows // WARPS),), (32, WARPS), (*arguments, *sizes))
        return losses, gradient


class WeightedSum:
    """Σ factor · loss in one kernel; CuPy's own mean takes two, a sum and a division.

    That of each model's batch too, in the same kernel.
    """

    def __init__(self) -> None:
        self._kernels = Source(WEIGHTED_SUM, "xpnet_weighted_sum")

    def __call__(self, losses: Array, factor: Any) -> Any:
        return self._sums(losses, factor, ())

    def per_model(self, losses: Array, factor: Any) -> Any:
        """Replace `xpnet.losses.samples.weighted_sums`, of losses of shape=(K, ...)."""
        return self._sums(losses, factor, losses.shape[:1])

    def _sums(self, losses: Array, factor: Any, shape: tuple[int, ...]) -> Any:
        kernel = self._kernels.get(losses.dtype.name)
        models = math.prod(shape)
        samples = losses.size // max(models, 1)
        if kernel is None or not losses.flags.c_contiguous or not 0 < samples <= MOST_SUMMED:
            return NotImplemented
        out = cupy.empty(shape, losses.dtype)
        arguments = (losses, *_factors(factor, losses.dtype), out, np.int32(samples))
        kernel((models,), (SUM_THREADS,), arguments)
        return out


class SumRows:
    """The sums over the rows of several arrays, up to `ARRAYS` of them in one kernel.

    Those of each model's rows too.
    """

    def __init__(self) -> None:
        self._kernels: dict[tuple[str, int], Any] = {}

    def __call__(self, arrays: Sequence[Array]) -> Any:
        return self._sums(arrays, ())

    def per_model(self, arrays: Sequence[Array]) -> Any:
        """Replace `xpnet.arrays.ops.sum_rows_per_model`, of arrays of shape=(K, N, M)."""
        models = arrays[0].shape[:1]
        if not 0 < models[0] <= MOST_MODELS or any(a.shape[:1] != models for a in arrays):
            return NotImplemented
        return self._sums(arrays, models)

    def of_products(self, x: Array, factors: Array) -> Any:
        """Sum the rows of x · factors, shape=(N, M)."""
        result = self._sums([x], (), factors)
        return result if result is NotImplemented else result[0]

    def _sums(
        self, arrays: Sequence[Array], models: tuple[int, ...], factors: Array | None = None
    ) -> Any:
        dtype, layers = arrays[0].dtype, math.prod(models)
        shapes = [(a.size // max(layers * a.shape[-1], 1), a.shape[-1]) for a in arrays]
        if dtype.name not in REALS or not all(
            a.dtype == dtype and a.flags.c_contiguous and 0 < n <= MOST_ROWS and m
            for a, (n, m) in zip(arrays, shapes, strict=True)
        ):
            return NotImplemented
        sums = [cupy.empty((*models, m), dtype) for _, m in shapes]
        for start in range(0, len(arrays), ARRAYS):
            part = slice(start, start + ARRAYS)
            kernel = self._kernel(dtype.name, len(arrays[part]))
            others = np.int64(0) if factors is None else factors
            arguments = [
                value
                for a, out, (n, m) in zip(arrays[part], sums[part], shapes[part], strict=True)
                for value in (a, others, out, np.int32(n), np.int32(m))
            ]
            grid = -(-max(m for _, m in shapes[part]) // 32), len(arrays[part]), layers
            kernel(grid, (32, 32), tuple(arguments))
        return sums

    def _kernel(self, dtype: str, count: int) -> Any:
        key = dtype, count
        if key not in self._kernels:
            parameters = [
                f"const T* x{k}, const T* f{k}, T* y{k}, int n{k}, int m{k}" for k in range(count)
            ]
            calls = [
                f"    if (blockIdx.y == {k}) sum_rows(x{k}, f{k}, y{k}, n{k}, m{k});\n"
                for k in range(count)
            ]
            source = (
                f"#define T {C_TYPES[dtype]}\n{SUM_ROWS}\n"
                f'extern "C" __global__ void xpnet_sum_rows({", ".join(parameters)}) {{\n'
                f"{''.join(calls)}}}\n"
            )
            self._kernels[key] = cupy.RawKernel(source, "xpnet_sum_rows")
        return self._kernels[key]


class SumChannels:
    """The sums over the channels of images in one kernel, or those of their products.

    Parameters
    ----------
    sums : SumRows
        For features: their sums are those of rows.
    """

    def __init__(self, sums: SumRows) -> None:
        self._sums = sums
        self._kernels = Source(SUM_CHANNELS, "xpnet_sum_channels")

    def __call__(self, x: Array, factors: Array | None = None) -> Any:
        """Replace `xpnet.arrays.ops.sum_channels`."""
        dtype, size = x.dtype, x.size
        if dtype.name not in REALS or x.ndim < 2 or not size:
            return NotImplemented
        if factors is not None:
            if (factors.dtype, factors.shape) != (dtype, x.shape):
                return NotImplemented
            factors = cupy.ascontiguousarray(factors)
        x = cupy.ascontiguousarray(x)
        channels = x.shape[1]
        pixels = size // (len(x) * channels)
        if pixels == 1:
            x = x.reshape(len(x), channels)
            if factors is not None:
                return self._sums.of_products(x, factors)
            sums = self._sums([x])
            return sums if sums is NotImplemented else sums[0]
        count = len(x) * pixels
        kernel = self._kernels.get(dtype.name, INDEX="int" if size < 1 << 30 else "long long")
        out = cupy.empty(channels, dtype)
        threads = min(CHANNEL_THREADS, 32 * -(-count // 128))  # each adds four or more
        arguments = x, np.int64(0) if factors is None else factors, out, np.int64(count)
        kernel((channels,), (threads,), (*arguments, np.int32(channels), np.int32(pixels)))
        return out


def _factors(factor: Any, dtype: Any) -> tuple[Any, Any]:
    """Return a kernel's two arguments for a factor: (one per sample, or 0; one for all, or 0)."""
    if isinstance(factor, float):
        return np.int64(0), dtype.type(factor)
    return cupy.ascontiguousarray(factor), dtype.type(0)
