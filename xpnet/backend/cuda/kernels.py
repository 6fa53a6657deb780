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

from xpnet.backend.cuda.cublas import WORKSPACE_BYTES, Cublas, layout, load
from xpnet.backend.cuda.fuse import (
    NUMBER,
    WHOLE_NUMBER,
    Kind,
    Lines,
    Untraceable,
    not_fused,
    trace,
)  # fmt: skip
from xpnet.backend.cuda.products import SmallProducts
from xpnet.backend.cuda.sums import Softmax, SumRows, WeightedSum
from xpnet.backend.cuda.update import Update

__all__ = ["make_kernels"]

Array = Any


def make_kernels(precision: str, fallbacks: list[str]) -> dict[str, Callable[..., Any]]:
    """The kernels for `xpnet.arrays.dispatch.with_kernels`, on the current device.

    They append to `fallbacks` what they could not fuse, see `Backend.fallbacks`.
    """
    return {
        "matmul": Products(precision),
        "elementwise": _Fused(fallbacks),
        "for_each": Update(fallbacks),
        "softmax_cross_entropy": Softmax(),
        "sum_rows": SumRows(),
        "weighted_sum": WeightedSum(),
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
            reason = "one of its results is smaller than the others"
            not_fused(function, reason, self._fallbacks, args)
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
            not_fused(function, reason, self._fallbacks, args)
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


# -- Products --------------------------------------------------------------------------

# To the nearest, ties to even, as uint16: NumPy and CuPy have no such dtype of their own.
TO_BFLOAT16 = """
unsigned u = __float_as_uint(x);
y = x != x ? 0x7fc0 : (unsigned short)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
"""
# As `xpnet.arrays.ops.scaled_for_float16`, and rounded.
TO_FLOAT16 = "y = x * (32768.0f / (largest > 1e-30f ? largest : 1e-30f));"
FROM_FLOAT16 = """
y = x * ((a > 1e-30f ? a : 1e-30f) / 32768.0f) * ((b > 1e-30f ? b : 1e-30f) / 32768.0f);
"""


class Products:
    """Products of two matrices of real numbers: small ones by a kernel of ours, or by cuBLAS.

    Attributes
    ----------
    small : callable or None
        See `SmallProducts`; None leaves all to cuBLAS.
    """

    def __init__(self, precision: str) -> None:
        self._precision = precision
        major = cupy.cuda.runtime.runtimeGetVersion() // 1000
        self._cublas = Cublas(load(major), cupy.cuda.alloc(WORKSPACE_BYTES))
        self.small: SmallProducts | None = SmallProducts()
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
        if self.small and kind == "float32" and self._precision in ("float32", "tf32"):
            product = self.small(a, b)
            if product is not None:
                return product
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
