"""Run all training steps in one kernel.

On a small network, the number of kernels determines the time of a captured step. Here one kernel
runs all steps: weights stay in shared memory, each block owns some hidden units, and the blocks
synchronize once per step to add up the scores. It supports one network (bytes, Affine, sigmoid,
Affine, softmax with cross-entropy) and plain SGD. It is not a backend, but shows how fast a step
could be.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["NAME", "Mega", "Shape", "reference", "source"]

NAME = "mlp_steps"

# Compile-time names: INPUTS, HIDDEN, CLASSES, BATCH; UNITS, the hidden units of a block; THREADS of
# a block, a multiple of 32.
TEXT = r"""
#define WARPS (THREADS / 32)
#define ROWS 4  // of the batch that a warp multiplies at a time, each weight read once for all

// Whether a value that another block has written is there: plain loads may be answered by the L1.
__device__ __forceinline__ unsigned load_acquired(const unsigned* p) {
#ifdef __CUDACC_RTC__
    unsigned value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
    return value;
#else
    return *(const volatile unsigned*)p;
#endif
}

// All blocks must run at once: a cooperative launch refuses what does not fit.
__device__ __forceinline__ void wait_for_all_blocks(unsigned* arrived, unsigned target) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrived, 1u);
        while ((int)(load_acquired(arrived) - target) < 0) { }
        __threadfence();
    }
    __syncthreads();
}

__device__ __forceinline__ float sum_of_warp(float value) {
    for (int o = 16; o > 0; o /= 2) value += __shfl_xor_sync(0xffffffffu, value, o);
    return value;
}

__device__ __forceinline__ float largest_of_warp(float value) {
    for (int o = 16; o > 0; o /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, o));
    return value;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) mlp_steps(
        const unsigned char* __restrict__ X, const int* __restrict__ T,
        const int* __restrict__ order, int steps, float* __restrict__ W1, float* __restrict__ b1,
        float* __restrict__ W2, float* __restrict__ b2, float rate, float scale,
        float* __restrict__ partial, unsigned* arrived, float* __restrict__ losses) {
    extern __shared__ __align__(16) unsigned char memory[];
    float* w1 = (float*)memory;                // UNITS x INPUTS, turned over
    float* w2 = w1 + UNITS * INPUTS;           // UNITS x CLASSES
    float* c1 = w2 + UNITS * CLASSES;          // UNITS
    float* c2 = c1 + UNITS;                    // CLASSES, the same in every block
    float* hidden = c2 + CLASSES;              // BATCH x UNITS
    float* dhidden = hidden + BATCH * UNITS;   // BATCH x UNITS
    float* scores = dhidden + BATCH * UNITS;   // BATCH x CLASSES, and then their gradient
    float* each = scores + BATCH * CLASSES;    // BATCH: the samples' losses
    int* labels = (int*)(each + BATCH);        // BATCH
    unsigned char* x = (unsigned char*)(labels + BATCH);  // BATCH x INPUTS
    const int first = blockIdx.x * UNITS, blocks = gridDim.x;
    const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;

    // A unit of the last block that does not exist has weights and outputs of 0, and keeps them.
    for (int e = thread; e < UNITS * INPUTS; e += THREADS) {
        int u = e / INPUTS, d = e % INPUTS;
        w1[e] = first + u < HIDDEN ? W1[d * HIDDEN + first + u] : 0.0f;
    }
    for (int e = thread; e < UNITS * CLASSES; e += THREADS) {
        int u = e / CLASSES;
        w2[e] = first + u < HIDDEN ? W2[(first + u) * CLASSES + e % CLASSES] : 0.0f;
    }
    for (int u = thread; u < UNITS; u += THREADS) c1[u] = first + u < HIDDEN ? b1[first + u] : 0.0f;
    for (int c = thread; c < CLASSES; c += THREADS) c2[c] = b2[c];

    for (int step = 0; step < steps; step++) {
        // The batch.
        const int* rows = order + (long long)step * BATCH;
        for (int i = warp; i < BATCH; i += WARPS) {
            const unsigned char* row = X + (long long)rows[i] * INPUTS;
            for (int d = lane; d < INPUTS; d += 32) x[i * INPUTS + d] = row[d];
            if (lane == 0) labels[i] = T[rows[i]];
        }
        __syncthreads();

        // The hidden units of this block.
        for (int i = warp * ROWS; i < BATCH; i += WARPS * ROWS) {
            float sums[ROWS][UNITS];
            for (int r = 0; r < ROWS; r++)
                for (int u = 0; u < UNITS; u++) sums[r][u] = 0.0f;
            for (int d = lane; d < INPUTS; d += 32) {
                float values[ROWS];
                for (int r = 0; r < ROWS; r++)
                    values[r] = i + r < BATCH ? (float)x[(i + r) * INPUTS + d] : 0.0f;
                for (int u = 0; u < UNITS; u++) {
                    float weight = w1[u * INPUTS + d];
                    for (int r = 0; r < ROWS; r++) sums[r][u] += values[r] * weight;
                }
            }
            for (int r = 0; r < ROWS; r++)
                for (int u = 0; u < UNITS; u++) {
                    float sum = scale * sum_of_warp(sums[r][u]) + c1[u];
                    if (lane == 0 && i + r < BATCH)
                        hidden[(i + r) * UNITS + u] =
                            first + u < HIDDEN ? 1.0f / (1.0f + expf(-sum)) : 0.0f;
                }
        }
        __syncthreads();

        // What they add to the scores. Two buffers take turns: a fast block may be writing the next
        // step's while a slow one reads; it cannot be two steps ahead, for it waits in between.
        float* buffer = partial + (long long)(step & 1) * blocks * BATCH * CLASSES;
        for (int e = thread; e < BATCH * CLASSES; e += THREADS) {
            int i = e / CLASSES, c = e % CLASSES;
            float sum = 0.0f;
            for (int u = 0; u < UNITS; u++) sum += hidden[i * UNITS + u] * w2[u * CLASSES + c];
            buffer[blockIdx.x * BATCH * CLASSES + e] = sum;
        }
        wait_for_all_blocks(arrived, (unsigned)(step + 1) * blocks);

        // The scores, in every block the same, to the bit.
        for (int e = thread; e < BATCH * CLASSES; e += THREADS) {
            float sum = c2[e % CLASSES];
            for (int b = 0; b < blocks; b++) sum += __ldcg(buffer + b * BATCH * CLASSES + e);
            scores[e] = sum;
        }
        __syncthreads();

        // Losses, and the gradient of their mean.
        for (int i = warp; i < BATCH; i += WARPS) {
            float* z = scores + i * CLASSES;
            float largest = z[0], total = 0.0f, chosen = z[labels[i]];
            for (int c = lane; c < CLASSES; c += 32) largest = fmaxf(largest, z[c]);
            largest = largest_of_warp(largest);
            for (int c = lane; c < CLASSES; c += 32) total += expf(z[c] - largest);
            total = sum_of_warp(total);
            if (lane == 0) each[i] = logf(total) + largest - chosen;
            __syncwarp();
            for (int c = lane; c < CLASSES; c += 32)
                z[c] = (expf(z[c] - largest) / total - (c == labels[i] ? 1.0f : 0.0f)) / BATCH;
        }
        __syncthreads();

        // Back to the hidden units.
        for (int e = thread; e < BATCH * UNITS; e += THREADS) {
            int i = e / UNITS, u = e % UNITS;
            float sum = 0.0f, y = hidden[e];
            for (int c = 0; c < CLASSES; c++) sum += scores[i * CLASSES + c] * w2[u * CLASSES + c];
            dhidden[e] = sum * y * (1.0f - y);
        }
        __syncthreads();

        // The update, of what is this block's own.
        for (int d = thread; d < INPUTS; d += THREADS) {
            float sums[UNITS];
            for (int u = 0; u < UNITS; u++) sums[u] = 0.0f;
            for (int i = 0; i < BATCH; i++) {
                float value = (float)x[i * INPUTS + d];
                for (int u = 0; u < UNITS; u++) sums[u] += dhidden[i * UNITS + u] * value;
            }
            for (int u = 0; u < UNITS; u++) w1[u * INPUTS + d] -= rate * scale * sums[u];
        }
        for (int e = thread; e < UNITS * CLASSES; e += THREADS) {
            int u = e / CLASSES, c = e % CLASSES;
            float sum = 0.0f;
            for (int i = 0; i < BATCH; i++) sum += hidden[i * UNITS + u] * scores[i * CLASSES + c];
            w2[e] -= rate * sum;
        }
        for (int u = thread; u < UNITS; u += THREADS) {
            float sum = 0.0f;
            for (int i = 0; i < BATCH; i++) sum += dhidden[i * UNITS + u];
            if (first + u < HIDDEN) c1[u] -= rate * sum;
        }
        for (int c = thread; c < CLASSES; c += THREADS) {
            float sum = 0.0f;
            for (int i = 0; i < BATCH; i++) sum += scores[i * CLASSES + c];
            c2[c] -= rate * sum;
        }
        if (blockIdx.x == 0 && warp == 0) {
            float sum = 0.0f;
            for (int i = lane; i < BATCH; i += 32) sum += each[i];
            sum = sum_of_warp(sum);
            if (lane == 0) losses[step] = sum / BATCH;
        }
        __syncthreads();
    }

    for (int e = thread; e < UNITS * INPUTS; e += THREADS) {
        int u = e / INPUTS, d = e % INPUTS;
        if (first + u < HIDDEN) W1[d * HIDDEN + first + u] = w1[e];
    }
    for (int e = thread; e < UNITS * CLASSES; e += THREADS) {
        int u = e / CLASSES;
        if (first + u < HIDDEN) W2[(first + u) * CLASSES + e % CLASSES] = w2[e];
    }
    for (int u = thread; u < UNITS; u += THREADS)
        if (first + u < HIDDEN) b1[first + u] = c1[u];
    if (blockIdx.x == 0)
        for (int c = thread; c < CLASSES; c += THREADS) b2[c] = c2[c];
}
"""


@dataclass(frozen=True)
class Shape:
    """The network, and its division into blocks."""

    inputs: int
    hidden: int
    classes: int
    batch: int
    units: int
    """Hidden units of a block."""
    threads: int
    """Threads of a block."""

    @property
    def blocks(self) -> int:
        return math.ceil(self.hidden / self.units)

    @property
    def shared_bytes(self) -> int:
        """Bytes of shared memory that a block needs."""
        floats = self.units * (self.inputs + self.classes + 1 + 2 * self.batch) + self.classes
        floats += self.batch * (self.classes + 1)
        return 4 * (floats + self.batch) + self.batch * self.inputs


def source(shape: Shape) -> str:
    """Return the CUDA C source for one shape."""
    defines = [f"#define {name.upper()} {value}\n" for name, value in asdict(shape).items()]
    return "".join(defines) + TEXT


class Mega:
    """The kernel on the current GPU, with its own copy of the parameters.

    Parameters
    ----------
    shape : Shape
    x : array of uint8, shape=(N, inputs)
        On the host, like all other arrays; the kernel divides it by 255.
    t : array of int32, shape=(N,)
    params : dict of arrays
        W1, b1, W2, b2.
    order : array, shape=(steps, batch)
        Rows of each batch.
    rate : float
        The learning rate.

    Raises
    ------
    ValueError
        The GPU has fewer multiprocessors than the shape has blocks.
    """

    def __init__(
        self,
        shape: Shape,
        x: np.ndarray,
        t: np.ndarray,
        params: dict[str, np.ndarray],
        order: np.ndarray,
        rate: float,
    ) -> None:
        import cupy

        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
        # CuPy would only warn and make the grid smaller, which would leave out units.
        if shape.blocks > properties["multiProcessorCount"]:
            raise ValueError(
                f"{shape.blocks} blocks: expected {properties['multiProcessorCount']} at most, one "
                "per multiprocessor; give each block more units"
            )
        self._shape = shape
        self._kernel = cupy.RawKernel(source(shape), NAME, enable_cooperative_groups=True)
        self._kernel.max_dynamic_shared_size_bytes = shape.shared_bytes
        self._data = [cupy.asarray(a) for a in (x, t.astype("int32"), order.astype("int32"))]
        names = ("W1", "b1", "W2", "b2")
        self._params = {name: cupy.asarray(params[name].astype("float32")) for name in names}
        self._partial = cupy.empty(2 * shape.blocks * shape.batch * shape.classes, "float32")
        self._arrived = cupy.zeros(1, "uint32")
        self._losses = cupy.empty(len(order), "float32")
        self._numbers = np.float32(rate), np.float32(1 / 255)

    def run(self, steps: int) -> None:
        """Queue the first `steps` steps in one launch."""
        self._arrived.fill(0)
        arguments = (
            *self._data, np.int32(steps), *self._params.values(), *self._numbers,
            self._partial, self._arrived, self._losses,
        )  # fmt: skip
        shape = self._shape
        grid, block = (shape.blocks,), (shape.threads,)
        self._kernel(grid, block, arguments, shared_mem=shape.shared_bytes)

    def results(self, steps: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the losses of the latest run's first `steps` steps, and the parameters."""
        params: dict[str, Any] = {name: a.get() for name, a in self._params.items()}
        losses: np.ndarray = self._losses.get()[:steps]
        return losses, params


def reference(
    x: np.ndarray, t: np.ndarray, params: dict[str, np.ndarray], order: np.ndarray, rate: float
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the losses and the final parameters of all steps, in float64."""
    W1, b1, W2, b2 = (params[name].astype(np.float64) for name in ("W1", "b1", "W2", "b2"))
    losses = []
    for rows in order:
        batch, labels, every = x[rows] / 255.0, t[rows], np.arange(len(rows))
        hidden = 1 / (1 + np.exp(-(batch @ W1 + b1)))
        scores = hidden @ W2 + b2
        exps = np.exp(scores - scores.max(axis=1, keepdims=True))
        y = exps / exps.sum(axis=1, keepdims=True)
        losses.append(-np.log(y[every, labels]).mean())
        y[every, labels] -= 1
        y /= len(rows)
        dhidden = (y @ W2.T) * hidden * (1 - hidden)
        W1 -= rate * batch.T @ dhidden
        b1 -= rate * dhidden.sum(axis=0)
        W2 -= rate * hidden.T @ y
        b2 -= rate * y.sum(axis=0)
    return np.array(losses), {"W1": W1, "b1": b1, "W2": W2, "b2": b2}
