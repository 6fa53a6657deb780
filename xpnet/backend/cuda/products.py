"""Small matrix products in CUDA C: one kernel each, where cuBLAS is slow.

cuBLAS is made for large matrices. A small product has too few of its tiles to fill the GPU, so
cuBLAS divides the sums among blocks and adds them up in a second kernel. Here a block computes a
small tile of the result with all terms of its sums, and its threads divide the terms.
"""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

__all__ = ["SmallProducts", "threads_for"]

Array = Any

# A tile has 8 x 8 results. Four threads, a slice, compute 4 x 4 of them each; THREADS / 4 slices
# divide the terms. In shared memory a term's elements are neighbours, so that one read takes four;
# the 4 floats of padding between terms let a warp write to different banks. The slices' sums are
# added in a fixed order: a run gives the same bits again.
PRODUCT = r"""
#define SIDE 8
#define PADDED (SIDE + 4)
#define RESULTS (SIDE * SIDE)
#define SLICES (THREADS / 4)
#define HELPERS (THREADS / RESULTS)  // threads that add up one result
#define AT_ONCE 8
// Which element a thread fetches as its e-th: neighbours are elements of one line, eight at a time,
// or elements of one term.
#define TERM(e) (TERMS_ARE_NEIGHBOURS ? (e) / (8 * SIDE) * 8 + (e) % 8 : (e) / SIDE)
#define LINE(e) (TERMS_ARE_NEIGHBOURS ? (e) / 8 % SIDE : (e) % SIDE)

// Copies into shared memory SIDE lines (rows of the left operand, columns of the right one) from
// `first` on, and `count` of their terms from `start` on. Lines beyond the last are 0. A thread
// asks for AT_ONCE elements before it waits for any.
template <bool TERMS_ARE_NEIGHBOURS>
__device__ __forceinline__ void fetch(const float* __restrict__ from, float* __restrict__ to,
        int first, int lines, int start, int count, int terms) {
    const int all = (count + 7) / 8 * 8 * SIDE;
    for (int begin = threadIdx.x; begin < all; begin += AT_ONCE * THREADS) {
        float values[AT_ONCE];
        #pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int e = begin + i * THREADS, term = TERM(e), line = LINE(e);
            bool there = term < count && first + line < lines;
            int place = TERMS_ARE_NEIGHBOURS ? (first + line) * terms + start + term
                                             : (start + term) * lines + first + line;
            float value = from[there ? place : 0];
            values[i] = there ? value : 0.0f;
        }
        __syncwarp();  // or the compiler writes the first before it asks for the last
        #pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int e = begin + i * THREADS, term = TERM(e);
            if (term < count) to[term * PADDED + LINE(e)] = values[i];
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) xpnet_product(
        const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ out,
        int rows, int columns, int terms, int chunk, long long a_apart, long long b_apart) {
    // A layer of blocks multiplies one pair of a stack.
    a += blockIdx.z * a_apart;
    b += blockIdx.z * b_apart;
    out += (long long)blockIdx.z * rows * columns;
    extern __shared__ __align__(16) float memory[];
    float* left = memory;
    float* right = memory + chunk * PADDED;
    const int thread = threadIdx.x, slice = thread / 4;
    const int down = thread % 4 / 2 * 4, across = thread % 2 * 4;
    const int row = blockIdx.y * SIDE, column = blockIdx.x * SIDE;
    float sums[4][4] = {};

    for (int start = 0; start < terms; start += chunk) {
        const int count = terms - start < chunk ? terms - start : chunk;
        if (start) __syncthreads();
        fetch<!A_TURNED>(a, left, row, rows, start, count, terms);
        fetch<B_TURNED>(b, right, column, columns, start, count, terms);
        __syncthreads();
        #pragma unroll 4
        for (int term = slice; term < count; term += SLICES) {
            float u[4], v[4];
            for (int i = 0; i < 4; i++) u[i] = left[term * PADDED + down + i];
            for (int j = 0; j < 4; j++) v[j] = right[term * PADDED + across + j];
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) sums[i][j] += u[i] * v[j];
        }
    }
    __syncthreads();

    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            memory[slice * (RESULTS + 1) + (down + i) * SIDE + across + j] = sums[i][j];
    __syncthreads();
    const int result = thread / HELPERS, helper = thread % HELPERS;
    float sum = 0.0f;
    for (int s = helper; s < SLICES; s += HELPERS) sum += memory[s * (RESULTS + 1) + result];
    for (int o = HELPERS / 2; o > 0; o /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, o);
    const int i = row + result / SIDE, j = column + result % SIDE;
    if (helper == 0 && i < rows && j < columns) out[i * columns + j] = sum;
}
"""
NAME, SIDE = "xpnet_product", 8
TERM_BYTES = 4 * 2 * (SIDE + 4)  # of shared memory, for both operands
SUMS_BYTES = 4 * (SIDE * SIDE + 1)  # of a slice
# Measured on an H100: beyond these, cuBLAS is as fast or faster.
MOST_OPERATIONS, MOST_TILES = 1 << 22, 2  # tiles for each multiprocessor
MOST_MODELS = 65535  # layers of blocks in a launch


def threads_for(
    rows: int, columns: int, terms: int, processors: int, models: int = 1
) -> int | None:
    """Return the threads of a block that compute a tile; None leaves the product to cuBLAS.

    What cuBLAS does badly is to fill a GPU by few tiles. So the tiles and the operations of all
    products of a stack count together.

    Parameters
    ----------
    rows, columns, terms : int
        Sizes of a product of (rows, terms) and (terms, columns).
    processors : int
        Number of the GPU's multiprocessors.
    models : int
        Number of such products in a stack.
    """
    tiles = models * -(-rows // SIDE) * -(-columns // SIDE)
    if models * rows * columns * terms > MOST_OPERATIONS or tiles > MOST_TILES * processors:
        return None
    return next((threads for threads in (64, 128) if terms <= threads), 256)


class SmallProducts:
    """The kernel for small products on the current device.

    Parameters
    ----------
    threads : int, optional
        Threads of a block for all products: 64, 128, 256 or 512. By default `threads_for` chooses.
    """

    def __init__(self, threads: int | None = None) -> None:
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
        self._processors = properties["multiProcessorCount"]
        self._most_shared = properties["sharedMemPerBlockOptin"]
        self._shared_bytes = self._most_shared  # of these, what a product's operands may take
        self._threads = threads
        self._kernels: dict[tuple[int, bool, bool], Any] = {}

    def __call__(self, a: Array, b: Array) -> Array | None:
        """Multiply two matrices of float32, or return None to leave the product to cuBLAS.

        Either operand may be a stack, shape=(K, ...). A transposed view costs nothing; a view with
        gaps is left to cuBLAS.
        """
        (rows, terms), columns = a.shape[-2:], b.shape[-1]
        stack = a.shape[:-2] or b.shape[:-2]
        models = math.prod(stack)
        threads = self._threads or threads_for(rows, columns, terms, self._processors, models)
        if threads is None or models > MOST_MODELS or not (_is_dense(a) and _is_dense(b)):
            return None
        a_turned, b_turned = not a.flags.c_contiguous, not b.flags.c_contiguous
        out = cupy.empty((*stack, rows, columns), a.dtype)
        chunk = math.ceil(terms / math.ceil(terms * TERM_BYTES / self._shared_bytes))
        self._kernel(threads, a_turned, b_turned)(
            (-(-columns // SIDE), -(-rows // SIDE), models),
            (threads,),
            (
                _turned(a) if a_turned else a, _turned(b) if b_turned else b, out,
                np.int32(rows), np.int32(columns), np.int32(terms), np.int32(chunk),
                np.int64(rows * terms if a.ndim > 2 else 0),
                np.int64(terms * columns if b.ndim > 2 else 0),
            ),
            shared_mem=max(chunk * TERM_BYTES, threads // 4 * SUMS_BYTES),
        )  # fmt: skip
        return out

    def _kernel(self, threads: int, a_turned: bool, b_turned: bool) -> Any:
        key = threads, a_turned, b_turned
        if key not in self._kernels:
            names = ("THREADS", "A_TURNED", "B_TURNED")
            defines = [f"#define {n} {int(v)}\n" for n, v in zip(names, key, strict=True)]
            kernel = cupy.RawKernel("".join(defines) + PRODUCT, NAME)
            # CuPy compiles equal texts once, so this limit holds for other objects' kernels too.
            kernel.max_dynamic_shared_size_bytes = self._most_shared
            self._kernels[key] = kernel
        return self._kernels[key]


def _is_dense(x: Array) -> bool:
    return bool(x.flags.c_contiguous or _turned(x).flags.c_contiguous)


def _turned(x: Array) -> Array:
    """Return the transposed matrix, or the transposed matrices of a stack."""
    return x.swapaxes(-2, -1)
