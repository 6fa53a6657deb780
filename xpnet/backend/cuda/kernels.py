"""Kernels that CuPy runs during a step in place of our Python lines; each can be captured.

On a GPU, the number of kernels limits a small network's step, not their work. So each elementwise
function becomes one kernel, an optimizer's rule one kernel for all parameters, and softmax with its
loss one kernel; products call cuBLAS directly. The Python lines remain the definition: tests
compare each kernel with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cupy
import numpy as np

from xpnet.backend.cuda.convolution import Convolutions
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
from xpnet.backend.cuda.sums import Softmax, SumChannels, SumRows, WeightedSum
from xpnet.backend.cuda.update import Update
from xpnet.backend.cuda.windows import WindowKernels

__all__ = ["image_kernels", "make_kernels"]

Array = Any


def make_kernels(precision: str, fallbacks: list[str]) -> dict[str, Callable[..., Any]]:
    """Make the kernels for `xpnet.arrays.dispatch.with_kernels`, on the current device.

    They append to `fallbacks` what they could not fuse; see `Backend.fallbacks`.
    """
    sums, weighted, products = SumRows(), WeightedSum(), Products(precision)
    return {
        "matmul": products,
        "elementwise": _Fused(fallbacks),
        "for_each": Update(fallbacks),
        "softmax_cross_entropy": Softmax(),
        "sum_rows": sums,
        "sum_rows_per_model": sums.per_model,
        "weighted_sum": weighted,
        "weighted_sums": weighted.per_model,
        **image_kernels(products, sums, direct=precision in ("float32", "tf32")),
    }


def image_kernels(
    multiply: Callable[[Array, Array], Array], sums: SumRows, direct: bool = True
) -> dict[str, Callable[..., Any]]:
    """Make the kernels for images, whose products `multiply` computes.

    See `Convolutions` for `direct`.
    """
    convolutions, windows = Convolutions(multiply, direct), WindowKernels()
    return {
        "convolve": convolutions.convolve,
        "convolve_backward_input": convolutions.backward_input,
        "convolve_backward_weights": convolutions.backward_weights,
        "pad": windows.pad,
        "max_pool": windows.max_pool,
        "max_pool_backward": windows.max_pool_backward,
        "average_pool": windows.average_pool,
        "average_pool_backward": windows.average_pool_backward,
        "sum_channels": SumChannels(sums),
    }


# -- Elementwise lines -----------------------------------------------------------------


class _Fused:
    """``fuse(function, *args)`` runs an elementwise function as one kernel."""

    def __init__(self, fallbacks: list[str]) -> None:
        self._kernels: dict[Any, Any] = {}
        self._fallbacks = fallbacks

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        kinds = [_kind(a) for a in args]
        key = function, *(k or (type(a), a) for k, a in zip(kinds, args, strict=True))
        try:
            known = key in self._kernels
        except TypeError:  # an argument is neither an array nor a number, and has no hash
            return NotImplemented
        if not known:
            self._kernels[key] = self._make(function, args, kinds)
        if self._kernels[key] is None:
            return NotImplemented
        kernel, lines = self._kernels[key]
        try:
            parts = _parts(lines, args)
        except ValueError:  # the lines themselves say which shapes do not fit
            return NotImplemented
        results = kernel(*(a for a, kind in zip(args, kinds, strict=True) if kind is not None))
        results = results if isinstance(results, tuple) else (results,)
        if any(parts):
            results = tuple(y[part] if part else y for y, part in zip(results, parts, strict=True))
        return _formed(lines.form, results)

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
    """Return the kind of a kernel's argument, or None for one that goes to the function itself."""
    if isinstance(a, cupy.ndarray):
        return Kind(a.dtype.name, a.ndim)
    return {float: NUMBER, int: WHOLE_NUMBER}.get(type(a))  # not for bool and NumPy's numbers


def _parts(lines: Lines, args: Sequence[Any]) -> list[Any]:
    """Return which part of a kernel's result is each result; () is all of it.

    A kernel's results all have the common shape of its arrays. One that depends on the smaller of
    them only repeats itself along the other axes: so Adam's ε, where the rate alone differs between
    models, or a number.
    """
    shapes = {i: a.shape for i, a in enumerate(args) if isinstance(a, cupy.ndarray)}
    if all(shapes.keys() <= o.sources for o in lines.outputs):
        return [()] * len(lines.outputs)
    whole = np.broadcast_shapes(*shapes.values())
    own = [[s for i, s in shapes.items() if i in o.sources] for o in lines.outputs]
    return [_part(np.broadcast_shapes(*each), whole) for each in own]


def _part(shape: tuple[int, ...], whole: tuple[int, ...]) -> Any:
    """Return the index that makes of an array of shape `whole` one of the smaller `shape`."""
    if shape == whole:
        return ()
    if 0 in whole:
        raise ValueError("there is no element to repeat")
    lead = len(whole) - len(shape)
    rest = [slice(0, 1) if n == 1 else slice(None) for n in shape]
    return (*[0] * lead, *rest, Ellipsis)


def _formed(form: Any, results: tuple[Array, ...]) -> Any:
    if isinstance(form, tuple):
        return tuple(_formed(f, results) for f in form)
    return None if form is None else results[form]


# -- Products --------------------------------------------------------------------------

# Round to the nearest bfloat16, ties to even; it is stored as uint16, since NumPy and CuPy have no
# bfloat16.
TO_BFLOAT16 = """
unsigned u = __float_as_uint(x);
y = x != x ? 0x7fc0 : (unsigned short)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
"""
# Scale as `xpnet.backend.precision.scaled_for_float16` does, then round.
TO_FLOAT16 = "y = x * (32768.0f / (largest > 1e-30f ? largest : 1e-30f));"
FROM_FLOAT16 = """
y = x * ((a > 1e-30f ? a : 1e-30f) / 32768.0f) * ((b > 1e-30f ? b : 1e-30f) / 32768.0f);
"""


class Products:
    """Multiply two real matrices: small ones with xpnet's own kernel, others with cuBLAS.

    Either operand, or both, may be a stack of matrices, shape=(K, ...): one kernel multiplies all.

    Attributes
    ----------
    small : callable or None
        See `SmallProducts`; None leaves all products to cuBLAS.
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
        known = {a.ndim, b.ndim} <= {2, 3} and kind in ("float32", "float64")
        if not known or a.dtype != b.dtype:
            return NotImplemented
        stacks = [x.shape[:-2] for x in (a, b) if x.ndim > 2]
        fits = a.shape[-1] == b.shape[-2] and len(set(stacks)) < 2
        if not fits or 0 in (*a.shape, *b.shape):
            return NotImplemented  # CuPy's own product explains shapes that do not fit
        if self.small and kind == "float32" and self._precision in ("float32", "tf32"):
            product = self.small(a, b)
            if product is not None:
                return product
        a, b = _dense(a), _dense(b)
        out = cupy.empty((*(stacks[0] if stacks else ()), a.shape[-2], b.shape[-1]), a.dtype)
        stream = cupy.cuda.get_current_stream().ptr
        multiply = self._cublas.multiply
        if kind == "float64" or self._precision in ("float32", "tf32"):
            tf32 = self._precision == "tf32" and kind == "float32"
            return multiply(a, b, out, kind, stream, tf32)
        if self._precision == "bfloat16":
            a, b = (_as_it_lies(self._to_bfloat16, x) for x in (a, b))
            return multiply(a, b, out, "bfloat16", stream)
        largest = [_largest(x) for x in (a, b)]
        a, b = (_as_it_lies(self._to_float16, x, m) for x, m in zip((a, b), largest, strict=True))
        multiply(a, b, out, "float16", stream)
        return self._from_float16(out, *largest, out)


def _dense(x: Array) -> Array:
    return x if layout(x) is not None else cupy.ascontiguousarray(x)


def _largest(x: Array) -> Array:
    """Return the largest absolute value, 0-d; of a stack that of each matrix, shape=(K, 1, 1)."""
    axes: dict[str, Any] = {"axis": (1, 2), "keepdims": True} if x.ndim > 2 else {}
    return cupy.max(cupy.abs(x), **axes)


def _as_it_lies(kernel: Callable[..., Array], x: Array, *rest: Array) -> Array:
    """Apply a kernel to x; for a transposed view, keep the view and convert the array below it."""
    transposed, _ = layout(x) or (False, 0)
    if not transposed:
        return kernel(x, *rest)
    return kernel(x.swapaxes(-2, -1), *rest).swapaxes(-2, -1)
