"""The book's functions (``common/functions.py``): activations, softmax and losses.

They behave as the book's do, on any array library, except for what nobody can want:

- Nothing overflows: ``sigmoid(-1000)`` is 0 without a warning, and precise where it is small.
- Integers become floating-point numbers first. Bytes of an image would wrap around in ``-x``, and
  their exponentials would be float16. `relu`, `relu_grad` and `identity_function` keep the dtype.
- `cross_entropy_error` takes class indices for an output of one column, and refuses targets that
  do not fit; the book's line adds up the wrong elements for labels of shape (N, 1), or for -1.

Kept: `relu_grad` is 1 at 0, where the layer ``Relu`` has 0; `sum_squared_error` does not divide by
the number of samples; and the 1e-7 in `cross_entropy_error`, see there.

``from xpnet.book.functions import *`` gives ``np`` too, as in the book.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.arrays import ops
from xpnet.arrays.ops import Array, at_least, check_labels, device, is_real, namespace, squares
from xpnet.book.arrays import run
from xpnet.layers.activations import sigmoid_backward
from xpnet.losses import SoftmaxWithLoss

__all__ = [
    "cross_entropy_error", "identity_function", "mean_squared_error", "np", "relu", "relu_grad",
    "sigmoid", "sigmoid_grad", "softmax", "softmax_loss", "step_function", "sum_squared_error",
]  # fmt: skip

_SOFTMAX = SoftmaxWithLoss()


def identity_function(x: Any) -> Any:
    """Return x: the output function of a regression.

    Examples
    --------
    >>> identity_function(3)
    3
    """
    return x


def step_function(x: Any) -> Array:
    """Return 1 where x > 0, else 0, as integers.

    Examples
    --------
    >>> step_function(np.array([-1.0, 0.0, 2.0]))
    array([0, 0, 1])
    """
    x = _array(x)
    xp = namespace(x)
    return xp.astype(xp.asarray(x > 0), _default(xp, "integral"))


def sigmoid(x: Any) -> Array:
    """Return 1 / (1 + e⁻ˣ), without overflow.

    Examples
    --------
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    return _number(_sigmoid(x))


def sigmoid_grad(x: Any) -> Array:
    """Return (1 - y) y for y = `sigmoid`(x).

    Examples
    --------
    >>> print(sigmoid_grad(0))
    0.25
    """
    return _number(sigmoid_backward(_sigmoid(x), 1.0))


def relu(x: Any) -> Array:
    """Return max(0, x).

    Examples
    --------
    >>> relu(np.array([-1, 0, 2]))
    array([0, 0, 2])
    """
    return _number(at_least(_array(x), 0))


def relu_grad(x: Any) -> Array:
    """Return 1 where x >= 0, else 0, in x's dtype. The layer ``Relu`` has 0 at x = 0.

    Examples
    --------
    >>> relu_grad(np.array([-1.0, 0.0, 2.0]))
    array([0., 1., 1.])
    """
    x = _array(x)
    xp = namespace(x)
    return xp.astype(xp.asarray(x >= 0), x.dtype)


def softmax(x: Any) -> Array:
    """Return eˣ / Σ eˣ over the last axis, of an array with any number of axes.

    Examples
    --------
    >>> softmax(np.array([0.3, 2.9, 4.0])).round(4)
    array([0.0182, 0.2452, 0.7366])
    """
    return _number(_SOFTMAX.probabilities(floating(x)))


def sum_squared_error(y: Any, t: Any) -> Array:
    """Return ½ Σ (y - t)² over all elements; it does not divide by the number of samples.

    Examples
    --------
    >>> print(sum_squared_error(np.array([0.5, 1.0]), np.array([0, 1])))
    0.125
    """
    difference = floating(y) - floating(t)
    return 0.5 * squares(difference)


mean_squared_error = sum_squared_error  # its name in the first printing


def cross_entropy_error(y: Any, t: Any) -> Array:
    """Return -Σ log(y_c + 1e-7) / N, where y_c is the probability of a sample's class.

    The 1e-7 keeps the logarithm finite: the loss of a perfect answer is -1e-7, below 0, and that of
    a probability of 0 is 16.12.

    Parameters
    ----------
    y : array, shape=(N, C), or (C,) for one sample
        Probabilities.
    t : array or int
        One-hot rows if it has the shape of y, else N integers: class indices, of any shape. Of
        rows that are not one-hot, the largest element counts.

    Raises
    ------
    ValueError
        The targets do not fit, or a class index is outside [0, C).

    Examples
    --------
    >>> y = np.array([[0.1, 0.9], [0.5, 0.5]])
    >>> print(cross_entropy_error(y, np.array([1, 0])).round(4))
    0.3993
    >>> print(cross_entropy_error(y, np.array([[0, 1], [1, 0]])).round(4))
    0.3993
    """
    y, t = floating(y), _array(t)
    xp = np if isinstance(y, np.ndarray) else namespace(y)
    if y.ndim == 1:
        y, t = xp.reshape(y, (1, -1)), xp.reshape(t, (-1,))
        if t.shape == y.shape[1:]:
            t = t[None, :]
    if y.ndim != 2:
        raise ValueError(
            f"y has shape {tuple(y.shape)}; expected probabilities, (N, C), or (C,) for one sample"
        )
    samples, classes = y.shape
    if t.shape == y.shape:
        if not isinstance(t, np.ndarray):  # the other libraries have no argmax of bool
            t = xp.astype(t, y.dtype)
        labels = np.argmax(t, axis=1) if isinstance(t, np.ndarray) else xp.argmax(t, axis=1)
    else:
        labels = _labels(t, samples, classes)
    try:
        true = y[xp.arange(samples, device=device(y)), labels]
    except IndexError:
        check_labels(labels, classes)
        raise
    return -xp.sum(xp.log(true + 1e-7)) / samples


def softmax_loss(X: Any, t: Any) -> Array:
    """Return the `cross_entropy_error` of `softmax`(X).

    Examples
    --------
    >>> print(softmax_loss(np.array([[2.0, 0.0]]), np.array([0])).round(4))
    0.1269
    """
    return cross_entropy_error(softmax(X), t)


def _labels(t: Array, samples: int, classes: int) -> Array:
    """Return class indices, shape=(N,), in a dtype that indexes arrays.

    NumPy's are not too small; other arrays are checked, since some libraries index without checks.
    """
    numpys = isinstance(t, np.ndarray)
    integral = t.dtype.kind in "iu" if numpys else namespace(t).isdtype(t.dtype, "integral")
    if math.prod(t.shape) != samples or not integral:
        raise ValueError(
            f"targets of shape {tuple(t.shape)} and dtype {t.dtype} do not fit probabilities of "
            f"shape {(samples, classes)}; expected {samples} integer class indices, or one-hot "
            f"rows of shape {(samples, classes)}"
        )
    if not numpys:  # to PyTorch, an array of bytes as an index is a mask; of uint16 it has no min
        xp = namespace(t)
        t = xp.astype(t, _default(xp, "indexing"))
    if not numpys or (t.dtype.kind == "i" and t.min(initial=0) < 0):
        check_labels(t, classes)
    return t if t.ndim == 1 else namespace(t).reshape(t, (samples,))


def _sigmoid(x: Array) -> Array:
    x = floating(x)
    return run(ops.sigmoid, x)


def floating(x: Any) -> Array:
    """Return x as an array of real floating-point numbers; one that is one already as it is.

    Examples
    --------
    >>> floating([1, 2])
    array([1., 2.])
    """
    x = _array(x)
    if is_real(x):
        return x
    xp = namespace(x)
    return xp.astype(x, _default(xp, "real floating"))


def _array(x: Any) -> Array:
    """Return an array as it is; of a number or a list, a NumPy array."""
    try:
        namespace(x)
    except TypeError:
        return np.asarray(x)
    return x


def _number(y: Array) -> Array:
    """Return a number in place of NumPy's array of one, as NumPy's own functions do."""
    return y[()] if isinstance(y, np.ndarray) and not y.ndim else y


def _default(xp: Any, kind: str) -> Any:
    """Return the dtype that a library gives to numbers of this kind."""
    return xp.__array_namespace_info__().default_dtypes()[kind]
