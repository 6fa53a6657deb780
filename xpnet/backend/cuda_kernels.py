"""What CuPy computes during a step in place of our own lines: few kernels, each safe to capture.

On a GPU a small network's step is bound by the number of kernels, not by their work. So lines of
elementwise operations become one kernel each, an optimizer's rule one for all parameters, softmax
with its loss one; and products go to cuBLAS directly. The lines stay the definition: tests hold
each kernel against them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cupy
import numpy as np

from xpnet.backend.cublas import WORKSPACE_BYTES, Cublas, layout, load
from xpnet.backend.fuse import C_TYPES, NUMBER, WHOLE_NUMBER, Kind, Lines, Untraceable, trace

__all__ = ["make_kernels"]

Array = Any
THREADS = 256
BLOCKS = 528  # four on each of an H100's multiprocessors
# A kernel's parameters may take 4 KiB, the rates among them.
PARAMETER_BYTES = 3584


def make_kernels(precision: str) -> dict[str, Callable[..., Any]]:
    """The kernels for `xpnet.kernels.with_kernels`, on the current device."""
    return {
        "matmul": _Products(precision),
        "elementwise": _Fused(),
        "for_each": _Update(),
        "softmax_cross_entropy": _Softmax(),
        "average": _average,
    }


# -- Elementwise lines -----------------------------------------------------------------


class _Fused:
    """``fuse(function, *args)``: the function as one kernel."""

    def __init__(self) -> None:
        self._kernels: dict[Any, Any] = {}

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
        except Untraceable:
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
    return tuple(_formed(f, results) for f in form) if isinstance(form, tuple) else results[form]


# -- An optimizer's rule ---------------------------------------------------------------


class _Update:
    """``for_each(rule, rates, rows)``: all parameters in one kernel, written in place."""

    def __init__(self) -> None:
        self._sources: dict[Any, str | None] = {}
        self._kernels: dict[str | None, Any] = {}

    def __call__(
        self, rule: Callable[..., tuple[Array, ...]], rates: Any, rows: Sequence[tuple[Array, ...]]
    ) -> Any:
        leaves = _leaves(rates)
        if leaves is None or not _of_one_kind(rows, leaves):
            return NotImplemented
        size = PARAMETER_BYTES // (8 * (len(rows[0]) + 1))
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        # All of them first: what has been written cannot be left to the lines.
        sources = [self._source(rule, rates, part) for part in parts]
        if None in sources:
            return NotImplemented
        numbers = [v if isinstance(v, cupy.ndarray) else np.float64(v) for v in leaves]
        for part, source in zip(parts, sources, strict=True):
            if source not in self._kernels:
                self._kernels[source] = cupy.RawKernel(source, "xpnet_update")
            arrays = [
                (np.int64(p.size), p, cupy.ascontiguousarray(g), *slots) for p, g, *slots in part
            ]
            largest = max(p.size for p, *_ in part)
            grid = max(1, min(BLOCKS, -(-largest // THREADS))), len(part)
            self._kernels[source](grid, (THREADS,), (*(a for row in arrays for a in row), *numbers))
        return [(p, *slots) for p, _, *slots in rows]

    def _source(self, rule: Any, rates: Any, rows: Sequence[tuple[Array, ...]]) -> str | None:
        """The kernel's text, found once for a rule and the arrays' axes; None if there is none."""
        dtype, slots = rows[0][0].dtype.name, len(rows[0]) - 2
        ndims = tuple(row[0].ndim for row in rows)
        by_address = tuple(isinstance(v, cupy.ndarray) for v in _leaves(rates) or [])
        key = rule, dtype, ndims, by_address
        if key not in self._sources:
            try:
                lines = {n: _trace_rule(rule, rates, dtype, n, slots) for n in sorted(set(ndims))}
                self._sources[key] = update_source(lines, dtype, ndims, by_address)
            except Untraceable:
                self._sources[key] = None
        return self._sources[key]


def _of_one_kind(rows: Sequence[tuple[Array, ...]], rates: Sequence[Any]) -> bool:
    """Whether all have one real dtype, each row one shape, and what is written lies dense."""
    dtype = rows[0][0].dtype
    arrays = [r for r in rates if isinstance(r, cupy.ndarray)]
    known = dtype.name in ("float32", "float64") and all(
        r.dtype == dtype and r.ndim == 0 for r in arrays
    )
    return known and all(
        a.dtype == dtype and a.shape == p.shape and (a is g or a.flags.c_contiguous)
        for p, g, *slots in rows
        for a in (p, g, *slots)
    )


def _leaves(rates: Any) -> list[Any] | None:
    """The numbers and arrays in nested tuples; None if there is anything else."""
    if type(rates) is not tuple:
        known = type(rates) in (int, float) or isinstance(rates, cupy.ndarray)
        return [rates] if known else None
    parts = [_leaves(part) for part in rates]
    return None if None in parts else [leaf for part in parts for leaf in part or []]


def _trace_rule(rule: Any, rates: Any, dtype: str, ndim: int, slots: int) -> Lines:
    """The rule's lines, whose parameters are x0 = p, x1 = g, then the rates, then the slots."""
    array = Kind(dtype, ndim)
    leaves = [
        Kind(dtype, 0) if isinstance(v, cupy.ndarray) else NUMBER for v in _leaves(rates) or []
    ]
    kinds = [array, array, *leaves, *[array] * slots]
    lines = trace(rule, [None, None, rates, *[None] * slots], kinds)
    if lines.form != tuple(range(1 + slots)) or any(o.dtype != dtype for o in lines.outputs):
        raise Untraceable("a rule that returns something else than p and its slots")
    return lines


def update_source(
    variants: Mapping[int, Lines], dtype: str, ndims: Sequence[int], by_address: Sequence[bool]
) -> str:
    """CUDA C of an update: each row of blocks takes one parameter.

    The rule is not inlined: with 64 parameters that takes five seconds to compile, and 0.15 so.

    Parameters
    ----------
    variants : mapping of int to Lines
        The rule's, by the number of a parameter's axes.
    dtype : str
    ndims : sequence of int
        Of each parameter.
    by_address : sequence of bool
        Of each rate: a number on the device, or one that is passed by its value.
    """
    real = C_TYPES[dtype]
    rates = [f"const {real}* r{i}" if b else f"double r{i}" for i, b in enumerate(by_address)]
    given = [
        f"{real if b else 'double'} x{2 + i} = {'*' * b}r{i};" for i, b in enumerate(by_address)
    ]
    source = []
    slots = 0
    for ndim, lines in variants.items():
        slots = len(lines.outputs) - 1
        names = ["p", *(f"s{i}" for i in range(slots))]
        numbers = [0, *range(2 + len(rates), 2 + len(rates) + slots)]
        arrays = [f"{real}* {name}" for name in names]
        reads = [f"{real} x{k} = {a}[i];" for a, k in zip(names, numbers, strict=True)]
        writes = [f"{a}[i] = {o.name};" for a, o in zip(names, lines.outputs, strict=True)]
        parameters = ["long long n", arrays[0], f"const {real}* g", *arrays[1:], *rates]
        body = "\n        ".join([*reads, f"{real} x1 = g[i];", *lines.statements, *writes])
        source.append(
            f"__device__ __noinline__ void rule_{ndim}({', '.join(parameters)}) {{\n"
            f"    {' '.join(given)}\n"
            "    long long step = (long long)gridDim.x * blockDim.x;\n"
            "    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; "
            f"i += step) {{\n        {body}\n    }}\n}}\n"
        )
    parameters, calls = [], []
    for k, ndim in enumerate(ndims):
        names = [f"n_{k}", f"p_{k}", f"g_{k}", *(f"s{i}_{k}" for i in range(slots))]
        parameters += [
            f"long long {names[0]}", f"{real}* {names[1]}", f"const {real}* {names[2]}",
            *(f"{real}* {name}" for name in names[3:]),
        ]  # fmt: skip
        passed = ", ".join([*names, *(f"r{i}" for i in range(len(rates)))])
        calls.append(f"    if (blockIdx.y == {k}) rule_{ndim}({passed});\n")
    source.append(
        f'extern "C" __global__ void xpnet_update({", ".join([*parameters, *rates])}) {{\n'
        f"{''.join(calls)}}}\n"
    )
    return "\n".join(source)


# -- Softmax with cross-entropy --------------------------------------------------------

# A warp takes a row, so that its lanes read neighbours, and sums in a fixed order: the same bits
# at every run.
SOFTMAX_CROSS_ENTROPY = r"""
extern "C" __global__ void xpnet_softmax_cross_entropy(
        const T* x, const int* t, T* losses, T* difference, long long rows, int classes) {
    long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;  // a whole warp
    int lane = threadIdx.x, label = t[row];
    x += row * classes;
    difference += row * classes;
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
        difference[c] = exp(x[c] - largest) / total - (T)(c == label);
    if (lane == 0) losses[row] = log(total) - chosen;
}
"""
WARPS = 8


class _Softmax:
    """Losses and softmax(x) - t of class indices; not of one-hot and soft targets."""

    def __init__(self) -> None:
        self._kernels: dict[str, Any] = {}

    def __call__(self, x: Array, t: Array) -> Any:
        rows, classes = x.size // max(x.shape[-1], 1), x.shape[-1]
        if (
            t.dtype != np.int32
            or t.shape != x.shape[:-1]
            or classes < 2
            or rows == 0
            or x.dtype.name not in ("float32", "float64")
            or not (x.flags.c_contiguous and t.flags.c_contiguous)
        ):
            return NotImplemented
        name = x.dtype.name
        if name not in self._kernels:
            source = f"#define T {C_TYPES[name]}\n{SOFTMAX_CROSS_ENTROPY}"
            self._kernels[name] = cupy.RawKernel(source, "xpnet_softmax_cross_entropy")
        losses, difference = cupy.empty(t.shape, x.dtype), cupy.empty(x.shape, x.dtype)
        arguments = (x, t, losses, difference, np.int64(rows), np.int32(classes))
        self._kernels[name]((-(-rows // WARPS),), (32, WARPS), arguments)
        return losses, difference


def _average(x: Array) -> Any:
    return x.mean() if x.size else NotImplemented  # one kernel, with the division in it


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
