"""Array functions that the Array API standard lacks, and that the layers need.

Everything here is written against the standard alone: the namespace is taken from the
data, so the same lines run on NumPy, CuPy, PyTorch, JAX and array-api-strict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from array_api_compat import array_namespace, device

from xpnet.arrays.dispatch import Array, elementwise, replaceable

__all__ = [
    "Array",
    "add_scaled",
    "as_array",
    "at_least",
    "at_most",
    "check_labels",
    "device",
    "is_real",
    "matmul",
    "namespace",
    "norm",
    "one_hot",
    "sigmoid",
    "sum_rows",
    "targets_like",
    "unbroadcast",
]


# By type of array. Asking array-api-compat costs 0.7 us, about twenty times a step; a step of a
# small network takes 200.
_NAMESPACES: dict[type, Any] = {}


def namespace(x: Array) -> Any:
    """The Array API namespace of an array's library: ``xp``, from the data."""
    kind = type(x)
    if kind not in _NAMESPACES:
        _NAMESPACES[kind] = array_namespace(x)
    return _NAMESPACES[kind]


# By type of array and dtype, for the same reason.
_REAL: dict[tuple[type, Any], bool] = {}


def is_real(x: Array) -> bool:
    """Whether an array's dtype is real floating: a derivative by it makes sense."""
    kind = type(x), x.dtype
    real = _REAL.get(kind)
    if real is None:
        real = _REAL[kind] = bool(namespace(x).isdtype(x.dtype, "real floating"))
    return real


def check_labels(t: Array, classes: int) -> None:
    """Refuse class indices out of range, which no gate can look for: it would have to wait."""
    if t.shape and math.prod(t.shape):
        low, high = int(namespace(t).min(t)), int(namespace(t).max(t))
        if low < 0 or high >= classes:
            raise ValueError(f"labels go from {low} to {high}; expected 0 to {classes - 1}")


def norm(x: Array) -> float:
    """The root of the sum of squares of a real array, on the host; it does not overflow."""
    xp = namespace(x)
    if x.dtype not in (xp.float32, xp.float64):
        x = xp.astype(x, xp.float32)
    largest = float(xp.max(xp.abs(x))) if math.prod(x.shape) else 0.0
    if not 0.0 < largest < math.inf:
        return largest
    scaled = x / largest
    return largest * math.sqrt(float(xp.sum(scaled * scaled)))


def as_array(number: float, like: Array | None) -> Array:
    """A Python number as a 0-d array of the library, dtype and device of a real array `like`.

    Without one, a NumPy array of float64.
    """
    if like is None:
        from array_api_compat import numpy as xp

        return xp.asarray(float(number), dtype=xp.float64)
    return namespace(like).asarray(float(number), dtype=like.dtype, device=device(like))


@replaceable
def matmul(a: Array, b: Array) -> Array:
    """Matrix product ``a b``: the one door that every product of a layer goes through.

    Parameters
    ----------
    a : array, shape=(..., N, K)
    b : array, shape=(..., K, M)
        Leading axes are broadcast; a layer's products have none.

    Returns
    -------
    array, shape=(..., N, M)

    Notes
    -----
    CuPy refuses its own ``matmul`` while a stream is being captured, and lower precisions
    belong inside the product; both need a single place to be put right.
    """
    return namespace(a).matmul(a, b)


@replaceable
@elementwise
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), a new array.

    Computed as ``(tanh(x / 2) + 1) / 2``, the same function without an exponential that
    could overflow: ±1000 gives 1 and 0, and no warning.
    """
    y = namespace(x).tanh(x * 0.5)
    y *= 0.5
    y += 0.5
    return y


@replaceable
def add_scaled(y: Array, x: Array, factor: Any) -> Array:
    """y + factor x; consumes `y`. The BLAS calls it axpy.

    Parameters
    ----------
    y, x : arrays of one shape
    factor : float or 0-d array
    """
    y += factor * x
    return y


@replaceable
def at_least(x: Array, low: float) -> Array:
    """max(x, low), element by element; what is not a number stays so."""
    return namespace(x).maximum(x, low)


@replaceable
def at_most(x: Array, high: float) -> Array:
    """min(x, high), likewise."""
    return namespace(x).minimum(x, high)


@replaceable
def sum_rows(arrays: Sequence[Array]) -> list[Array]:
    """The sums of several arrays over all axes but the last: (..., M) gives (M,).

    The gradients of biases; a backend may compute all of a network's at once.
    """
    return [namespace(a).sum(a, axis=tuple(range(a.ndim - 1))) for a in arrays]


def unbroadcast(grad: Array, shape: tuple[int, ...]) -> Array:
    """Sum `grad` over the axes along which an operand of shape `shape` was broadcast.

    If ``y = f(x)`` repeats x along an axis, then by the chain rule x receives the sum of
    the gradients of its copies.
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
    """Rows of the identity matrix: ``out[..., j] = 1 if labels[...] == j else 0``.

    Parameters
    ----------
    labels : integer array, shape=(...)
        Class indices; one outside [0, classes) gives a row of zeros.
    classes : int
    dtype
        Of the result.

    Returns
    -------
    array, shape=(..., classes)
    """
    xp = namespace(labels)
    if classes > 127 and xp.iinfo(labels.dtype).max < classes:
        labels = xp.astype(labels, xp.int32)  # else the classes would wrap around
    index = xp.arange(classes, dtype=labels.dtype, device=device(labels))
    return xp.astype(labels[..., None] == index, dtype)


def targets_like(t: Array, y: Array) -> Array:
    """Bring targets into the shape and dtype of the network's output `y`, shape=(..., C).

    Accepted are an array of y's own shape (one-hot rows, or real targets), and one that
    lacks y's last axis: class indices when C > 1, the target itself when C = 1.
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
