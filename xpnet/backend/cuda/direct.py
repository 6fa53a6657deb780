"""Convolution with few filters in CUDA C: kernels that never write columns to memory.

With few filters the columns are far more bytes than the images, and a tile of cuBLAS is not full.
Here each thread reads what it needs of the images through the cache, and keeps many sums.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from xpnet.backend.cuda.source import Source
from xpnet.backend.cuda.sums import SumRows

__all__ = ["Direct"]

Array = Any

# A block's threads have neighbouring pixels and the same FILTERS filters, whose weights for
# `at_once` channels lie in shared memory. A term's weights are neighbours, so that one read takes
# four; the 4 numbers of padding let a warp write to different banks. A bit of a mask says whether a
# place of the filter is inside the image. Each sum has a fixed order.
CONVOLVE = r"""
#define PLACES (KH * KW)
#define PADDED (FILTERS + 4)
#define LANES (THREADS / FILTERS)  // threads that fetch the weights of a filter
extern "C" __global__ void __launch_bounds__(THREADS) xpnet_convolve(
        const T* __restrict__ x, const T* __restrict__ W, const T* __restrict__ b,
        T* __restrict__ y, long long count, int channels, int filters, int height, int width,
        int oh, int ow, int top, int left, long long filters_apart, long long channels_apart,
        int at_once) {
    extern __shared__ __align__(16) T weights[];
    const int first = blockIdx.y * FILTERS, pixels = oh * ow, size = height * width;
    const T* from[PIXELS];
    unsigned inside[PIXELS];
    T sums[PIXELS][FILTERS];
    #pragma unroll
    for (int p = 0; p < PIXELS; p++) {
        const long long i = ((long long)blockIdx.x * PIXELS + p) * THREADS + threadIdx.x;
        const bool there = i < count;
        const int pixel = there ? i % pixels : 0;
        const int row = pixel / ow * SH - top, column = pixel % ow * SW - left;
        from[p] = x + (there ? i / pixels : 0) * channels * size + row * width + column;
        unsigned columns = 0;
        for (int c = 0; c < KW; c++) {
            const int w = column + c * DW;
            columns |= (unsigned)(there && w >= 0 && w < width) << c;
        }
        inside[p] = 0;
        for (int r = 0; r < KH; r++) {
            const int h = row + r * DH;
            if (h >= 0 && h < height) inside[p] |= columns << r * KW;
        }
        #pragma unroll
        for (int f = 0; f < FILTERS; f++)
            sums[p][f] = b && first + f < filters ? b[first + f] : (T)0;
    }
    for (int start = 0; start < channels; start += at_once) {
        const int some = channels - start < at_once ? channels - start : at_once;
        const int terms = some * PLACES;
        if (start) __syncthreads();
        const int f = threadIdx.x / LANES;
        for (int term = threadIdx.x % LANES; term < terms; term += LANES) {
            const int place = term % PLACES;
            T weight = 0;
            if (first + f < filters)
                weight = W[(first + f) * filters_apart + (start + term / PLACES) * channels_apart
                    + (TURNED ? PLACES - 1 - place : place)];
            weights[term * PADDED + f] = weight;
        }
        __syncthreads();
        for (int c = 0; c < some; c++) {
            const T* line = weights + c * PLACES * PADDED;
            #pragma unroll
            for (int place = 0; place < PLACES; place++) {
                const int offset = place / KW * DH * width + place % KW * DW;
                T values[PIXELS];
                #pragma unroll
                for (int p = 0; p < PIXELS; p++)
                    values[p] = inside[p] >> place & 1 ? from[p][offset] : (T)0;
                #pragma unroll
                for (int f = 0; f < FILTERS; f++) {
                    const T weight = line[place * PADDED + f];
                    #pragma unroll
                    for (int p = 0; p < PIXELS; p++) sums[p][f] += weight * values[p];
                }
            }
            #pragma unroll
            for (int p = 0; p < PIXELS; p++) from[p] += size;
        }
    }
    #pragma unroll
    for (int p = 0; p < PIXELS; p++) {
        const long long i = ((long long)blockIdx.x * PIXELS + p) * THREADS + threadIdx.x;
        if (i >= count) continue;
        T* to = y + (i / pixels * filters + first) * pixels + i % pixels;
        #pragma unroll
        for (int f = 0; f < FILTERS; f++)
            if (first + f < filters) to[(long long)f * pixels] = sums[p][f];
    }
}
"""

# The gradient by the filters: a warp has FILTERS filters and one channel of a group of samples. Its
# lanes share the pixels, and each keeps a sum for all places of all these filters, so that a pixel
# of the image and of the gradient is read once for many products. Then the lanes' sums are added.
WEIGHTS = r"""
#define PLACES (KH * KW)
extern "C" __global__ void __launch_bounds__(32) xpnet_convolve_weights(
        const T* __restrict__ x, const T* __restrict__ dout, T* __restrict__ products, int samples,
        int channels, int filters, int height, int width, int oh, int ow, int top, int left,
        int together) {
    const int channel = blockIdx.x, first = blockIdx.y * FILTERS, lane = threadIdx.x;
    const int size = height * width, pixels = oh * ow;
    const int begin = blockIdx.z * together;
    const int count = samples - begin < together ? samples - begin : together;
    x += ((long long)begin * channels + channel) * size;
    dout += ((long long)begin * filters + first) * pixels;
    T sums[FILTERS][PLACES] = {};
    for (int n = 0, pixel = lane;; pixel += 32) {
        while (pixel >= pixels && n < count) {
            pixel -= pixels;
            n++;
        }
        if (n >= count) break;
        const int row = pixel / ow * SH - top, column = pixel % ow * SW - left;
        const T* line = x + (long long)n * channels * size + row * width + column;
        const T* gradient = dout + (long long)n * filters * pixels + pixel;
        T values[PLACES];
        #pragma unroll
        for (int r = 0; r < KH; r++) {
            const bool there = row + r * DH >= 0 && row + r * DH < height;
            #pragma unroll
            for (int c = 0; c < KW; c++) {
                const bool inside = there && column + c * DW >= 0 && column + c * DW < width;
                values[r * KW + c] = inside ? line[c * DW] : (T)0;
            }
            line += DH * width;
        }
        #pragma unroll
        for (int f = 0; f < FILTERS; f++) {
            const T g = FULL || first + f < filters ? *gradient : (T)0;
            gradient += pixels;
            #pragma unroll
            for (int place = 0; place < PLACES; place++) sums[f][place] += g * values[place];
        }
    }
    // In shared memory a row has the lanes' sums; each lane adds up some rows.
    __shared__ T rows[FILTERS * PLACES * 33];
    #pragma unroll
    for (int f = 0; f < FILTERS; f++)
        #pragma unroll
        for (int place = 0; place < PLACES; place++)
            rows[(f * PLACES + place) * 33 + lane] = sums[f][place];
    __syncwarp();
    products += ((long long)blockIdx.z * filters + first) * channels * PLACES + channel * PLACES;
    for (int k = lane; k < FILTERS * PLACES && (FULL || first + k / PLACES < filters); k += 32) {
        T sum = 0;
        for (int i = 0; i < 32; i++) sum += rows[k * 33 + i];
        products[k / PLACES * channels * PLACES + k % PLACES] = sum;
    }
}
"""
THREADS, FILTERS = 128, 16
SHARED_BYTES = 40 << 10  # of a block's weights, below the 48 KiB that need no permission
# More filters fill the tiles of cuBLAS; more places of a filter do not fit into a mask.
MOST_FILTERS, MOST_PLACES = 64, 32
# A thread computes two pixels, which read each weight once, unless there are too few blocks for
# twice an H100's multiprocessors.
LEAST_BLOCKS = 264
# For dW: so many sums of four bytes fit into a thread's registers; fewer places than these share
# too little of what a lane reads; four warps for each scheduler of an H100 keep it busy.
MOST_SUMS, LEAST_PLACES, WARPS = 144, 4, 2112
MOST_LAYERS = 65535  # of blocks in a launch


class Direct:
    """The kernels for convolutions with few filters."""

    def __init__(self) -> None:
        self._convolve = Source(CONVOLVE, "xpnet_convolve")
        self._weights = Source(WEIGHTS, "xpnet_convolve_weights")
        self._sum_rows = SumRows()

    def convolve(
        self, x: Array, W: Array, b: Array | None, windows: Any, *, turned: bool = False
    ) -> Array | None:
        """Convolve dense arrays, or return None to leave it to the product of columns.

        With `turned`, W is (C, F, KH, KW) and turned by 180 degrees, as for the gradient by the
        images.
        """
        filters, channels = W.shape[:2] if not turned else (W.shape[1], W.shape[0])
        places = windows.places
        if filters > MOST_FILTERS or places > MOST_PLACES:
            return None
        count = len(x) * windows.pixels
        y = cupy.empty((len(x), filters, *windows.stops), x.dtype)
        layers = -(-filters // FILTERS)
        blocks = -(-count // (2 * THREADS))
        each = 2 if blocks * layers >= LEAST_BLOCKS else 1
        line = (FILTERS + 4) * x.itemsize * places  # bytes of a channel's weights
        at_once = min(channels, max(1, SHARED_BYTES // line))
        kernel = self._convolve.get(
            x.dtype.name, **windows.constants, FILTERS=FILTERS, THREADS=THREADS, PIXELS=each,
            TURNED=int(turned),
        )  # fmt: skip
        apart = filters * places if turned else channels * places
        strides = (places, apart) if turned else (apart, places)
        kernel(
            (-(-count // (each * THREADS)), layers),
            (THREADS,),
            (
                x, W, np.int64(0) if b is None else b, y, np.int64(count), np.int32(channels),
                np.int32(filters), *windows.numbers, *map(np.int64, strides), np.int32(at_once),
            ),
            shared_mem=at_once * line,
        )  # fmt: skip
        return y

    def weights(self, x: Array, dout: Array, windows: Any) -> Array | None:
        """Return dW, shape=(F, C, KH, KW), or None to leave it to products of columns."""
        samples, channels, filters = len(x), x.shape[1], dout.shape[1]
        places = windows.places
        if filters > MOST_FILTERS or not LEAST_PLACES <= places <= MOST_PLACES:
            return None
        each = max(1, min(FILTERS, MOST_SUMS * 4 // x.itemsize // places))
        layers = -(-filters // each)
        groups = min(samples, MOST_LAYERS, -(-WARPS // (channels * layers)))
        together = -(-samples // groups)
        groups = -(-samples // together)
        products = cupy.empty((groups, filters * channels * places), x.dtype)
        kernel = self._weights.get(
            x.dtype.name, **windows.constants, FILTERS=each, FULL=int(filters % each == 0)
        )
        numbers = np.int32(samples), np.int32(channels), np.int32(filters), *windows.numbers
        arguments = x, dout, products, *numbers, np.int32(together)
        kernel((channels, layers, groups), (32,), arguments)
        (dW,) = self._sum_rows([products]) if groups > 1 else products
        return dW.reshape(filters, channels, *windows.kernel)
