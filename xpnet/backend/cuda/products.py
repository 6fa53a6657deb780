"""Small matrix products in CUDA C: one kernel each, where cuBLAS is slow.

cuBLAS is made for large matrices. A product of a small network has too few tiles to fill the GPU;
cuBLAS then splits the sums between blocks and adds them up in a second kernel. Here a block takes
a small tile of the result and all terms of its sums, and its threads divide the terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import cupy
import numpy as np

__all__ = ["SmallProducts", "Tile", "tile_for"]

Array = Any

# A thread has 4 x 4 results of a tile and every SLICES-th term of their sums. In shared memory a
# term's elements are neighbours, four of them one read; the 4 floats of padding between terms keep
# the writes of a warp in different banks. The partial sums are added in a fixed order, so that a
# run gives the same bits again.
PRODUCT = r"""
#define SLICE ((ROWS / 4) * (COLUMNS / 4))
#define SLICES (THREADS / SLICE)
#define RESULTS (ROWS * COLUMNS)
#define HELPERS (THREADS > RESULTS ? THREADS / RESULTS : 1)
#define AT_ONCE (THREADS < 512 && RESULTS == 64 ? 8 : 16)
// Which element a thread fetches as its e-th: neighbours in memory are those of one line, eight at
// a time, or those of one term.
#define TERM(e) (TERMS_ARE_NEIGHBOURS ? (e) / (8 * LINES) * 8 + (e) % 8 : (e) / LINES)
#define LINE(e) (TERMS_ARE_NEIGHBOURS ? (e) / 8 % LINES : (e) % LINES)

// Into shared memory: LINES rows of one operand, or columns of the other, from `first` on, and
// `count` of their terms from `start` on. Lines beyond the last are 0. A thread asks for AT_ONCE
// elements before it waits for any.
template <int LINES, bool TERMS_ARE_NEIGHBOURS>
__device__ __forceinline__ void fetch(const float* __restrict__ from, float* __restrict__ to,
        int first, int lines, int start, int count, int terms) {
    const int all = (count + 7) / 8 * 8 * LINES;
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
        __syncwarp();  // or the compiler has the first written before the last is asked for
        #pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int e = begin + i * THREADS, term = TERM(e);
            if (term < count) to[term * (LINES + 4) + LINE(e)] = values[i];
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) xpnet_product(
        const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ out,
        int rows, int columns, int terms, int chunk) {
    extern __shared__ __align__(16) float memory[];
    float* left = memory;
    float* right = memory + chunk * (ROWS + 4);
    const int thread = threadIdx.x, slice = thread / SLICE;
    const int down = thread % SLICE / (COLUMNS / 4) * 4, across = thread % (COLUMNS / 4) * 4;
    const int row = blockIdx.y * ROWS, column = blockIdx.x * COLUMNS;
    float sums[4][4] = {};

    for (int start = 0; start < terms; start += chunk) {
        const int count = terms - start < chunk ? terms - start : chunk;
        if (start) __syncthreads();
        fetch<ROWS, !A_TURNED>(a, left, row, rows, start, count, terms);
        fetch<COLUMNS, B_TURNED>(b, right, column, columns, start, count, terms);
        __syncthreads();
        #pragma unroll 4
        for (int term = slice; term < count; term += SLICES) {
            float u[4], v[4];
            for (int i = 0; i < 4; i++) u[i] = left[term * (ROWS + 4) + down + i];
            for (int j = 0; j < 4; j++) v[j] = right[term * (COLUMNS + 4) + across + j];
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) sums[i][j] += u[i] * v[j];
        }
    }
    __syncthreads();

    // The partial sums: of each slice all results, one float of padding between slices.
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            memory[slice * (RESULTS + 1) + (down + i) * COLUMNS + across + j] = sums[i][j];
    __syncthreads();
    for (int e = thread / HELPERS; e < RESULTS; e += THREADS / HELPERS) {
        float sum = 0.0f;
        for (int s = thread % HELPERS; s < SLICES; s += HELPERS)
            sum += memory[s * (RESULTS + 1) + e];
        for (int o = HELPERS / 2; o > 0; o /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, o);
        int i = row + e / COLUMNS, j = column + e % COLUMNS;
        if (thread % HELPERS == 0 && i < rows && j < columns) out[i * columns + j] = sum;
    }
}
"""
NAME = "xpnet_product"


class Tile(NamedTuple):
    """What a block computes.

    Attributes
    ----------
    rows, columns : int
        Of the result: powers of two, from 8 on.
    threads : int
        A power of two: at least 32 and rows · columns / 16, at most 1024.
    """

    rows: int
    columns: int
    threads: int


def tile_for(rows: int, columns: int, terms: int, processors: int) -> Tile | None:
    """The tile for a product of (rows, terms) and (terms, columns); None leaves it to cuBLAS.

    A large tile reads each element fewer times; small tiles are more, and keep a GPU of so many
    multiprocessors busy.
    """
    if rows * columns * terms > MOST_OPERATIONS:
        return None
    for height, width in ((32, 32), (16, 32), (16, 16)):
        if -(-rows // height) * -(-columns // width) >= processors * 2 // 3:
            return Tile(height, width, 256)
    return Tile(8, 8, min(max(1 << (terms - 1).bit_length(), 64), 512))


MOST_OPERATIONS = 1 << 26


class SmallProducts:
    """The kernels on the current device.

    Parameters
    ----------
    choose : callable
        As `tile_for`.
    """

    def __init__(self, choose: Callable[[int, int, int, int], Tile | None] = tile_for) -> None:
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
        self._processors = properties["multiProcessorCount"]
        self._shared_bytes = properties["sharedMemPerBlockOptin"]
        self._choose = choose
        self._kernels: dict[tuple[Tile, bool, bool], Any] = {}

    def __call__(self, a: Array, b: Array) -> Array | None:
        """a b, of float32; None where cuBLAS is to do it, as for views with gaps."""
        (rows, terms), columns = a.shape, b.shape[1]
        tile = self._choose(rows, columns, terms, self._processors)
        if tile is None or not (_is_dense(a) and _is_dense(b)):
            return None
        a_turned, b_turned = not a.flags.c_contiguous, not b.flags.c_contiguous
        a, b = a.T if a_turned else a, b.T if b_turned else b
        out = cupy.empty((rows, columns), a.dtype)
        line_bytes = 4 * (tile.rows + 4 + tile.columns + 4)
        chunk = math.ceil(terms / math.ceil(terms * line_bytes / self._shared_bytes))
        slices = tile.threads // (tile.rows * tile.columns // 16)
        sums_bytes = 4 * slices * (tile.rows * tile.columns + 1)
        grid = -(-columns // tile.columns), -(-rows // tile.rows)
        sizes = (np.int32(n) for n in (rows, columns, terms, chunk))
        self._kernel(tile, a_turned, b_turned)(
            grid, (tile.threads,), (a, b, out, *sizes),
            shared_mem=max(chunk * line_bytes, sums_bytes),
        )  # fmt: skip
        return out

    def _kernel(self, tile: Tile, a_turned: bool, b_turned: bool) -> Any:
        key = tile, a_turned, b_turned
        if key not in self._kernels:
            names = ("ROWS", "COLUMNS", "THREADS", "A_TURNED", "B_TURNED")
            values = map(int, (*tile, a_turned, b_turned))
            defines = [f"#define {n} {v}\n" for n, v in zip(names, values, strict=True)]
            kernel = cupy.RawKernel("".join(defines) + PRODUCT, NAME)
            kernel.max_dynamic_shared_size_bytes = self._shared_bytes
            self._kernels[key] = kernel
        return self._kernels[key]


def _is_dense(x: Array) -> bool:
    return bool(x.flags.c_contiguous or x.flags.f_contiguous)
