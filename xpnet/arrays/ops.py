"""Array functions that the layers need and the Array API standard lacks.

They use only functions of the standard, from the namespace of their data. So the same lines run on
NumPy, CuPy, PyTorch, JAX and array-api-strict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from array_api_compat import array_namespace, device
from array_api_compat import numpy as np

from xpnet.arrays.dispatch import Array, elementwise, replaceable, underflowing

__all__ = [
    "Array",
    "add_scaled",
    "as_array",
    "at_least",
    "at_most",
    "check_labels",
    "computes_its_own_way",
    "device",
    "is_real",
    "masked",
    "matmul",
    "namespace",
    "norm",
    "one_hot",
    "sigmoid",
    "squares",
    "sum_channels",
    "sum_rows",
    "sum_rows_per_model",
    "targets_like",
    "unbroadcast",
    "within",
]


# Cached by type of array: array-api-compat takes 0.7 µs to find a namespace, about twenty times per
# step, and a step of a small network takes 200 µs.
_NAMESPACES: dict[type, Any] = {}


def namespace(x: Array) -> Any:
    """Return the Array API namespace of an array's library, usually called ``xp``."""
    kind = type(x)
    if kind not in _NAMESPACES:
        _NAMESPACES[kind] = array_namespace(x)
    return _NAMESPACES[kind]


# Cached by type of array: asked of each input at each step.
_OWN_WAY: dict[type, bool] = {}


def computes_its_own_way(x: Array) -> bool:
    """Whether an array's operators are not those of NumPy's array that its type derives from.

    On an ``np.matrix``, * multiplies matrices; a masked array leaves values out; other types carry
    units.
    """
    kind = type(x)
    if kind not in _OWN_WAY:
        _OWN_WAY[kind] = issubclass(kind, np.ndarray) and any(
            getattr(kind, name) is not getattr(np.ndarray, name)
            for name in ("__mul__", "__array_ufunc__", "__array_function__")
        )
    return _OWN_WAY[kind]


# Cached by type of array and dtype, for the same reason.
_REAL: dict[tuple[type, Any], bool] = {}


def is_real(x: Array) -> bool:
    """Say whether an array has a real floating dtype, so that you can differentiate by it."""
    kind = type(x), x.dtype
    real = _REAL.get(kind)
    if real is None:
        real = _REAL[kind] = bool(namespace(x).isdtype(x.dtype, "real floating"))
    return real


def check_labels(t: Array, classes: int) -> None:
    """Raise ValueError if a class index is outside [0, classes).

    Gates do not check this, since reading values makes a step wait for the device.
    """
    if t.shape and math.prod(t.shape):
        low, high = int(namespace(t).min(t)), int(namespace(t).max(t))
        if low < 0 or high >= classes:
            raise ValueError(f"labels go from {low} to {high}; expected 0 to {classes - 1}")


def norm(x: Array) -> float:
    """Return the Euclidean norm of a real array as a Python float; its squares do not overflow."""
    xp = namespace(x)
    if x.dtype not in (xp.float32, xp.float64):
        x = xp.astype(x, xp.float32)
    largest = float(xp.max(xp.abs(x))) if math.prod(x.shape) else 0.0
    if not 0.0 < largest < math.inf:
        return largest
    scaled = x / largest
    return largest * math.sqrt(float(xp.sum(scaled * scaled)))


def as_array(number: float, like: Array | None) -> Array:
    """Make a 0-d array of a number, with the library, dtype and device of a real array `like`.

    If `like` is None, make a NumPy array of float64.
    """
    if like is None:
        from array_api_compat import numpy as xp

        return xp.asarray(float(number), dtype=xp.float64)
    return namespace(like).asarray(float(number), dtype=like.dtype, device=device(like))


@replaceable
def matmul(a: Array, b: Array) -> Array:
    """Multiply two matrices; every matrix product of a layer calls this function.

    Parameters
    ----------
    a : array, shape=(..., N, K)
    b : array, shape=(..., K, M)
        Leading axes broadcast.

    Returns
    -------
    array, shape=(..., N, M)

    Notes
    -----
    One function for all products lets a backend replace it: CuPy refuses its own ``matmul`` during
    the capture of a stream, and a lower precision is applied within the product.
    """
    return namespace(a).matmul(a, b)


@replaceable
@elementwise
@underflowing
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), a new array, to full relative precision on both sides.

    For a negative x it is exp(x) / (1 + exp(x)), so that no exponential overflows: ±1000 gives 1
    and 0, and no warning.
    """
    xp = namespace(x)
    small = xp.exp(-xp.abs(x))
    y = xp.where(x < 0, small, 1.0)
    y /= small + 1.0
    return y


@replaceable
@elementwise
def masked(x: Array, keep: Array) -> Array:
    """x where `keep` holds, else 0: also where x is infinite or not a number, as no product is.

    Parameters
    ----------
    x : array
    keep : bool array of x's shape
    """
    return namespace(x).where(keep, x, 0.0)


@replaceable
def add_scaled(y: Array, x: Array, factor: Any) -> Array:
    """Return y + factor x (BLAS: axpy). It consumes `y`.

    Parameters
    ----------
    y, x : arrays of the same shape
    factor : float or 0-d array
    """
    y += factor * x
    return y


@replaceable
def at_least(x: Array, low: float) -> Array:
    """Return max(x, low) element by element; NaN stays NaN."""
    return namespace(x).maximum(x, low)


@replaceable
def at_most(x: Array, high: float) -> Array:
    """Return min(x, high) element by element; NaN stays NaN."""
    return namespace(x).minimum(x, high)


@elementwise
def within(x: Array, low: float, high: float) -> Array:
    """Return x, but at least `low` and at most `high`, element by element; NaN stays NaN."""
    return at_most(at_least(x, low), high)


@replaceable
def squares(x: Array) -> Array:
    """Return the sum of the squares of all elements, 0-d."""
    return namespace(x).sum(x * x)


@replaceable
def sum_channels(x: Array, y: Array | None = None) -> Array:
    """Sum x, or the products x y, over all axes but the second: (N, C, ...) gives (C,)."""
    if y is not None:
        x = x * y
    return namespace(x).sum(x, axis=(0, *range(2, x.ndim)))


@replaceable
def sum_rows(arrays: Sequence[Array]) -> list[Array]:
    """Sum each array over all axes but the last: (..., M) gives (M,).

    These sums are the gradients of biases; a backend may compute those of a whole network at once.
    """
    return [namespace(a).sum(a, axis=tuple(range(a.ndim - 1))) for a in arrays]


@replaceable
def sum_rows_per_model(arrays: Sequence[Array]) -> list[Array]:
    """Sum each array of K models over its samples: (K, N, M) gives (K, M)."""
    return [namespace(a).sum(a, axis=1) for a in arrays]


def unbroadcast(grad: Array, shape: tuple[int, ...]) -> Array:
    """Sum `grad` over the axes along which an operand of shape `shape` was broadcast.

    If ``y = f(x)`` repeats x along an axis, the chain rule gives x the sum of the gradients of its
    copies.

    Returns
    -------
    array, shape=shape
    """
    if grad.shape == shape:
        return grad
    xp = namespace(grad)
    lead = grad.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(
        lead + i for i, n in enumerate(shape) if n == 1 and grad.shape[lead + i] != 1
    )
    return xp.reshape(xp.sum(grad, axis=axes), shape)


def one_hot(labels: Array, classes: int, dtype: Any) -> Array:
    """Encode labels as rows of the identity matrix: out[..., j] = 1 if labels[...] == j, else 0.

    Parameters
    ----------
    labels : integer array, shape=(...)
        Class indices; one outside [0, classes) gives a row of zeros.
    classes : int
    dtype
        The dtype of the result.

    Returns
    -------
    array, shape=(..., classes)
    """
    xp = namespace(labels)
    if classes > 127 and xp.iinfo(labels.dtype).max < classes:
        labels = xp.astype(labels, xp.int32)  # else the class numbers would wrap around
    index = xp.arange(classes, dtype=labels.dtype, device=device(labels))
    return xp.astype(labels[..., None] == index, dtype)


def targets_like(t: Array, y: Array) -> Array:
    """Convert targets to the shape and dtype of the network's output `y`, shape=(..., C).

    Parameters
    ----------
    t : array
        Either of y's shape (one-hot rows or real targets), or without y's last axis: integer
        class indices if C > 1, the target itself if C = 1.
    y : array, shape=(..., C)

    Returns
    -------
    array, shape=(..., C)

    Raises
    ------
    ValueError
        The targets have another shape, or class indices are not integers.
    """
    xp = namespace(y)
    if t.shape == y.shape:
        return t if t.dtype == y.dtype else xp.astype(t, y.dtype)
    if t.shape == y.shape[:-1]:
        if y.shape[-1] == 1:
            return xp.astype(t[..., None], y.dtype)
        if xp.isdtype(t.dtype, "integral"):
            return one_hot(t, y.shape[-1], y.dtype)
    raise ValueError(
        f"targets of shape {tuple(t.shape)} and dtype {t.dtype} do not fit outputs of shape "
        f"{tuple(y.shape)}; expected integer class indices of shape {tuple(y.shape[:-1])} "
        f"or an array of shape {tuple(y.shape)}"
    )
