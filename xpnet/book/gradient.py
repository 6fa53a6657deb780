"""The book's numerical gradients (``common/gradient.py``, and chapter 4).

The step is the book's, h = 1e-4, in float64; where |x| exceeds 6,700 it is 1.5e-8 |x|, so that
rounding leaves enough of it. In float32, h = 1e-4 drowns in rounding: for the loss of a small
network, the gradients were wrong by 0.4 to 2 percent. There the step is 0.005 max(1, |x|), the cube
root of the precision, and they were wrong by 0.01 to 0.08 percent. In float16 it is 0.1 max(1,
|x|), and they were wrong by 2 to 13 percent.

Each entry of x is changed in place and restored, also if f raises: so f may read the array from
elsewhere, as in ``f = lambda w: net.loss(x, t)``. Arrays of CuPy and PyTorch are changed too. An
array that cannot be changed is refused, as f would not see the change and each slope would be 0;
so are integers, to which the book's 1e-4 adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj

from xpnet.arrays.ops import Array, device, is_real, namespace
from xpnet.book.functions import floating
from xpnet.graph import gradcheck

__all__ = ["np", "numerical_diff", "numerical_gradient", "numerical_gradient_2d"]

H = 1e-4


def numerical_gradient(f: Callable[[Any], Any], x: Array) -> Array:
    """Return the central differences (f(x + h e_i) - f(x - h e_i)) / 2h of each entry of x.

    Parameters
    ----------
    f : callable
        Takes x and returns a number.
    x : array
        Real floating-point numbers, of any shape and library that changes arrays in place. A
        PyTorch tensor may require grad.

    Returns
    -------
    array
        With the shape, dtype and library of x.

    Raises
    ------
    ValueError
        x cannot be changed in place, or does not hold floating-point numbers.

    Examples
    --------
    >>> numerical_gradient(lambda x: x[0] ** 2 + x[1] ** 2, np.array([3.0, 4.0])).round(6)
    array([6., 8.])
    """
    check_movable("x", x)
    xp = namespace(x)
    slopes = gradcheck.numerical_gradient(f, x, h=_step(x))
    return xp.asarray(slopes, dtype=x.dtype, device=device(x))


def numerical_gradient_2d(f: Callable[[Any], Any], X: Array) -> Array:
    """Return the gradient of f at each row of X; X with one axis is a single row.

    Parameters
    ----------
    f : callable
        Takes a row, and returns a number.
    X : array, shape=(N, D), or (D,)

    Returns
    -------
    array
        With the shape, dtype and library of X.

    Raises
    ------
    ValueError
        As for `numerical_gradient`.

    Examples
    --------
    >>> X = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> numerical_gradient_2d(lambda row: row[0] * row[1], X).round(6)
    array([[2., 1.],
           [4., 3.]])
    """
    check_movable("X", X)
    if X.ndim <= 1:
        return numerical_gradient(f, X)
    rows = [gradcheck.numerical_gradient(f, X[i, ...], h=_step(X)) for i in range(X.shape[0])]
    slopes = np.reshape(rows, tuple(X.shape))
    return namespace(X).asarray(slopes, dtype=X.dtype, device=device(X))


_numerical_gradient_1d = numerical_gradient  # the book's function for a single row


def numerical_diff(f: Callable[[Any], Any], x: Any) -> Any:
    """Return (f(x + h) - f(x - h)) / 2h, the slope of a function of one number, as in chapter 4.

    Parameters
    ----------
    f : callable
        Takes a number; or an array, and computes each element by itself.
    x : number or array

    Examples
    --------
    >>> round(numerical_diff(lambda x: 0.01 * x**2 + 0.1 * x, 5), 9)
    0.2
    """
    if hasattr(x, "dtype"):
        x = floating(x)
        if _step(x) is None:
            xp = namespace(x)
            relative = float(xp.finfo(x.dtype).eps) ** (1 / 3)
            h = relative * xp.maximum(xp.abs(x), xp.ones_like(x))
            above, below = x + h, x - h
            return (f(above) - f(below)) / (above - below)
    return (f(x + H) - f(x - H)) / (2 * H)


def _step(x: Array) -> float | None:
    """Return the book's step; None, the cube root of the precision, where that would be lost."""
    return H if x.dtype == namespace(x).float64 else None


def check_movable(name: str, x: Any) -> None:
    """Raise ValueError unless x is an array of real numbers that can be changed in place."""
    if gradcheck.is_movable(x):
        return
    if not is_array_api_obj(x) or isinstance(x, np.generic):
        raise ValueError(
            f"{name} is a {type(x).__name__}; expected an array of floating-point numbers: "
            f"make it one, np.array({name}, float)"
        )
    if not is_real(x):
        raise ValueError(
            f"{name} holds {x.dtype}; expected floating-point numbers: convert it to float64"
        )
    what = "read-only" if isinstance(x, np.ndarray) else f"an array of {namespace(x).__name__}"
    raise ValueError(
        f"{name} is {what}; expected an array that can be changed in place: copy it to one of "
        "NumPy, CuPy or PyTorch"
    )
