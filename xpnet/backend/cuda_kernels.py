"""What CuPy computes during a step in place of our own lines: few kernels, each safe to capture.

On a GPU a small network's step is bound by the number of kernels, not by their work. So lines of
elementwise operations become one kernel each, an optimizer's rule one for all parameters, softmax
with its loss one; and products go to cuBLAS directly. The lines stay the definition: tests hold
each kernel against them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cupy
import numpy as np

from xpnet.backend.cublas import WORKSPACE_BYTES, Cublas, layout, load
from xpnet.backend.cuda_update import Update
from xpnet.backend.fuse import (
    C_TYPES,
    NUMBER,
    WHOLE_NUMBER,
    Kind,
    Lines,
    Untraceable,
    not_fused,
    trace,
)  # fmt: skip

__all__ = ["make_kernels"]

Array = Any


def make_kernels(precision: str, fallbacks: list[str]) -> dict[str, Callable[..., Any]]:
    """The kernels for `xpnet.kernels.with_kernels`, on the current device.

    They append to `fallbacks` what they could not fuse, see `Backend.fallbacks`.
    """
    return {
        "matmul": _Products(precision),
        "elementwise": _Fused(fallbacks),
        "for_each": Update(fallbacks),
        "softmax_cross_entropy": _Softmax(),
        "sum_rows": _SumRows(),
        "weighted_sum": _WeightedSum(),
    }


# -- Elementwise lines -----------------------------------------------------------------


class _Fused:
    """``fuse(function, *args)``: the function as one kernel."""

    def __init__(self, fallbacks: list[str]) -> None:
        self._kernels: dict[Any, Any] = {}
        self._fallbacks = fallbacks

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        kinds = [_kind(a) for a in args]
        key = function, *(k or (type(a), a) for k, a in zip(kinds, args, strict=True))
        try:
            known = key in self._kernels
        except TypeError:  # an argument that is neither array nor number, and has no hash
            return NotImplemented
        if not known:
            self._kernels[key] = self._make(function, args, kinds)
        if self._kernels[key] is None:
            return NotImplemented
        kernel, lines = self._kernels[key]
        if not _same_shape(lines, args):
            return NotImplemented
        results = kernel(*(a for a, kind in zip(args, kinds, strict=True) if kind is not None))
        return _formed(lines.form, results if isinstance(results, tuple) else (results,))

    def _make(
        self, function: Callable[..., Any], args: Sequence[Any], kinds: Sequence[Kind | None]
    ) -> tuple[Any, Lines] | None:
        if not any(isinstance(a, cupy.ndarray) for a in args):
            return None
        try:
            lines = trace(function, args, kinds)
        except Untraceable as reason:
            not_fused(function, reason, self._fallbacks)
            return None
        inputs = [f"{kind.dtype} x{i}" for i, kind in enumerate(kinds) if kind is not None]
        outputs = [f"{o.dtype} y{i}" for i, o in enumerate(lines.outputs)]
        results = [f"y{i} = {o.name};" for i, o in enumerate(lines.outputs)]
        kernel = cupy.ElementwiseKernel(
            ", ".join(inputs),
            ", ".join(outputs),
            "\n".join([*lines.statements, *results]),
            f"xpnet_{function.__name__.strip('_')}",
        )
        return kernel, lines


def _kind(a: Any) -> Kind | None:
    """What a kernel is given in place of an argument; None for what is passed to the lines."""
    if isinstance(a, cupy.ndarray):
        return Kind(a.dtype.name, a.ndim)
    return {float: NUMBER, int: WHOLE_NUMBER}.get(type(a))  # bool and NumPy's numbers are neither


def _same_shape(lines: Lines, args: Sequence[Any]) -> bool:
    """Whether every result has the shape that all arrays have together, as a kernel's results."""
    shapes = {i: a.shape for i, a in enumerate(args) if isinstance(a, cupy.ndarray)}
    if all(shapes.keys() <= o.sources for o in lines.outputs):
        return True
    try:
        whole = np.broadcast_shapes(*shapes.values())
    except ValueError:
        return False
    return all(
        np.broadcast_shapes(*(s for i, s in shapes.items() if i in o.sources)) == whole
        for o in lines.outputs
    )


def _formed(form: Any, results: tuple[Array, ...]) -> Any:
    if isinstance(form, tuple):
        return tuple(_formed(f, results) for f in form)
    return None if form is None else results[form]


# -- Losses and bias gradients ---------------------------------------------------------

# A warp takes a row, so that its lanes read neighbours, and sums in a fixed order: the same bits
# at every run.
SOFTMAX_CROSS_ENTROPY = r"""
extern "C" __global__ void xpnet_softmax_cross_entropy(
        const T* x, const int* t, const T* factors, T factor, T* losses, T* gradient,
        long long rows, int classes) {
    long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;  // a whole warp
    int lane = threadIdx.x, label = t[row];
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
WARPS = 8

# One block, for a batch is short: each thread takes every so many losses, then the sums of the
# threads are added in a fixed order.
WEIGHTED_SUM = r"""
extern "C" __global__ void xpnet_weighted_sum(
        const T* losses, const T* factors, T factor, T* out, int n) {
    __shared__ T sums[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    T sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        sum += factors ? losses[i] * factors[i] : losses[i];
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, o);
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    if (warp > 0) return;
    sum = lane < blockDim.x / 32 ? sums[lane] : 0;
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, o);
    if (lane == 0) *out = factors ? sum : sum * factor;
}
"""
SUM_THREADS, MOST_SUMMED = 256, 1 << 20

# Blocks of 32 columns by 32 rows: rows in turn, then the 32 partial sums of each column in order.
SUM_ROWS = r"""
__device__ __noinline__ void sum_rows(const T* x, T* out, int rows, int columns) {
    __shared__ T sums[32][33];
    int column = blockIdx.x * 32 + threadIdx.x;
    T sum = 0;
    if (column < columns)
        for (long long i = threadIdx.y; i < rows; i += 32) sum += x[i * columns + column];
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
ARRAYS = 100  # of one kernel, whose parameters may take 4 KiB


class _Softmax:
    """Losses and their gradient, from class indices; not from one-hot and soft targets."""

    def __init__(self) -> None:
        self._kernels = _OfReals(SOFTMAX_CROSS_ENTROPY, "xpnet_softmax_cross_entropy")

    def __call__(self, x: Array, t: Array, factor: Any) -> Any:
        rows, classes = x.size // max(x.shape[-1], 1), x.shape[-1]
        kernel = self._kernels.get(x.dtype.name)
        if (
            kernel is None
            or t.dtype != np.int32
            or t.shape != x.shape[:-1]
            or classes < 2
            or rows == 0
            or not (x.flags.c_contiguous and t.flags.c_contiguous)
        ):
            return NotImplemented
        losses, gradient = cupy.empty(t.shape, x.dtype), cupy.empty(x.shape, x.dtype)
        arguments = (x, t, *_factors(factor, x.dtype), losses, gradient)
        sizes = np.int64(rows), np.int32(classes)
        kernel((-(-rows // WARPS),), (32, WARPS), (*arguments, *sizes))
        return losses, gradient


class _WeightedSum:
    """Σ factor · loss, in one kernel; CuPy's own mean is two, a sum and a division."""

    def __init__(self) -> None:
        self._kernels = _OfReals(WEIGHTED_SUM, "xpnet_weighted_sum")

    def __call__(self, losses: Array, factor: Any) -> Any:
        kernel = self._kernels.get(losses.dtype.name)
        if kernel is None or not losses.flags.c_contiguous or not 0 < losses.size <= MOST_SUMMED:
            return NotImplemented
        out = cupy.empty((), losses.dtype)
        arguments = (losses, *_factors(factor, losses.dtype), out, np.int32(losses.size))
        kernel((1,), (SUM_THREADS,), arguments)
        return out


class _SumRows:
    """The sums of several arrays over their rows, in one kernel."""

    def __init__(self) -> None:
        self._kernels: dict[tuple[str, int], Any] = {}

    def __call__(self, arrays: Sequence[Array]) -> Any:
        dtype = arrays[0].dtype
        shapes = [(a.size // max(a.shape[-1], 1), a.shape[-1]) for a in arrays]
        if dtype.name not in REALS or not all(
            a.dtype == dtype and a.flags.c_contiguous and 0 < n <= MOST_ROWS and m
            for a, (n, m) in zip(arrays, shapes, strict=True)
        ):
            return NotImplemented
        sums = [cupy.empty((m,), dtype) for _, m in shapes]
        for start in range(0, len(arrays), ARRAYS):
            part = slice(start, start + ARRAYS)
            kernel = self._kernel(dtype.name, len(arrays[part]))
            arguments = [
                value
                for a, out, (n, m) in zip(arrays[part], sums[part], shapes[part], strict=True)
                for value in (a, out, np.int32(n), np.int32(m))
            ]
            grid = -(-max(m for _, m in shapes[part]) // 32), len(arrays[part])
            kernel(grid, (32, 32), tuple(arguments))
        return sums

    def _kernel(self, dtype: str, count: int) -> Any:
        key = dtype, count
        if key not in self._kernels:
            parameters = [f"const T* x{k}, T* y{k}, int n{k}, int m{k}" for k in range(count)]
            calls = [
                f"    if (blockIdx.y == {k}) sum_rows(x{k}, y{k}, n{k}, m{k});\n"
                for k in range(count)
            ]
            source = (
                f"#define T {C_TYPES[dtype]}\n{SUM_ROWS}\n"
                f'extern "C" __global__ void xpnet_sum_rows({", ".join(parameters)}) {{\n'
                f"{''.join(calls)}}}\n"
            )
            self._kernels[key] = cupy.RawKernel(source, "xpnet_sum_rows")
        return self._kernels[key]


REALS = ("float32", "float64")


class _OfReals:
    """A kernel's text with T for the type, compiled for each real dtype that it meets."""

    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name
        self._kernels: dict[str, Any] = {}

    def get(self, dtype: str) -> Any:
        """The kernel; None if the dtype is none of those."""
        if dtype not in self._kernels and dtype in REALS:
            source = f"#define T {C_TYPES[dtype]}\n{self._text}"
            self._kernels[dtype] = cupy.RawKernel(source, self._name)
        return self._kernels.get(dtype)


def _factors(factor: Any, dtype: Any) -> tuple[Any, Any]:
    """A factor for all samples or one for each, as a kernel takes them: (address, number)."""
    if isinstance(factor, float):
        return np.int64(0), dtype.type(factor)
    return cupy.ascontiguousarray(factor), dtype.type(0)


# -- Products --------------------------------------------------------------------------

# To the nearest, ties to even, as uint16: NumPy and CuPy have no such dtype of their own.
TO_BFLOAT16 = """
unsigned u = __float_as_uint(x);
y = x != x ? 0x7fc0 : (unsigned short)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
"""
# As `xpnet.ops.scaled_for_float16`, and rounded.
TO_FLOAT16 = "y = x * (32768.0f / (largest > 1e-30f ? largest : 1e-30f));"
FROM_FLOAT16 = """
y = x * ((a > 1e-30f ? a : 1e-30f) / 32768.0f) * ((b > 1e-30f ? b : 1e-30f) / 32768.0f);
"""


class _Products:
    """Products of two matrices of real numbers, by cuBLAS."""

    def __init__(self, precision: str) -> None:
        self._precision = precision
        major = cupy.cuda.runtime.runtimeGetVersion() // 1000
        self._cublas = Cublas(load(major), cupy.cuda.alloc(WORKSPACE_BYTES))
        self._to_bfloat16 = cupy.ElementwiseKernel(
            "float32 x", "uint16 y", TO_BFLOAT16, "xpnet_to_bfloat16"
        )
        self._to_float16 = cupy.ElementwiseKernel(
            "float32 x, float32 largest", "float16 y", TO_FLOAT16, "xpnet_to_float16"
        )
        self._from_float16 = cupy.ElementwiseKernel(
            "float32 x, float32 a, float32 b", "float32 y", FROM_FLOAT16, "xpnet_from_float16"
        )

    def __call__(self, a: Array, b: Array) -> Any:
        kind = a.dtype.name
        if not (a.ndim == b.ndim == 2 and a.dtype == b.dtype and kind in ("float32", "float64")):
            return NotImplemented
        if a.shape[1] != b.shape[0] or 0 in (*a.shape, *b.shape):
            return NotImplemented  # CuPy's own says what does not fit
        a, b = _dense(a), _dense(b)
        out = cupy.empty((a.shape[0], b.shape[1]), a.dtype)
        stream = cupy.cuda.get_current_stream().ptr
        multiply = self._cublas.multiply
        if kind == "float64" or self._precision in ("float32", "tf32"):
            tf32 = self._precision == "tf32" and kind == "float32"
            return multiply(a, b, out, kind, stream, tf32)
        if self._precision == "bfloat16":
            a, b = (_as_it_lies(self._to_bfloat16, x) for x in (a, b))
            return multiply(a, b, out, "bfloat16", stream)
        largest = [cupy.max(cupy.abs(x)) for x in (a, b)]
        a, b = (_as_it_lies(self._to_float16, x, m) for x, m in zip((a, b), largest, strict=True))
        multiply(a, b, out, "float16", stream)
        return self._from_float16(out, *largest, out)


def _dense(x: Array) -> Array:
    return x if layout(x) is not None else cupy.ascontiguousarray(x)


def _as_it_lies(kernel: Callable[..., Array], x: Array, *rest: Array) -> Array:
    """The kernel of x; of a transposed view, the transposed view of the kernel's result."""
    transposed, _ = layout(x) or (False, 0)
    return kernel(x.T, *rest).T if transposed else kernel(x, *rest)
