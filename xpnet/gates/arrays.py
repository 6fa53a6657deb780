"""Gates that work on whole arrays: sums, matrix products, changes of shape, indexing.

`xpnet.gates.Gate` describes their protocol. `Gather` and `Pick` use one-hot rows, because the
Array API standard has no scatter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, ClassVar

from xpnet.arrays.ops import Array, device, is_real, matmul, namespace, one_hot, unbroadcast
from xpnet.gates.protocol import BOTH, ONE, Grads

__all__ = [
    "Gather", "Index", "MatMul", "Mean", "Pick", "Reshape", "SquaredNorm", "Sum", "Transpose",
]  # fmt: skip

Axis = int | tuple[int, ...] | None
Key = int | slice | EllipsisType
FIRST = (True, False)


def _kept(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """Return the shape with 1 in place of each summed axis."""
    axes = range(len(shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
    summed = {a % len(shape) for a in axes} if shape else set()
    return tuple(1 if i in summed else n for i, n in enumerate(shape))


def _spread(dout: Array, shape: tuple[int, ...], axis: Axis) -> Array:
    """Repeat the gradient of a sum along the summed axes; return a new array."""
    xp = namespace(dout)
    return xp.asarray(xp.broadcast_to(xp.reshape(dout, _kept(shape, axis)), shape), copy=True)


@dataclass(frozen=True)
class Sum:
    """y = Σ x over `axis` (None: all axes); each summand receives dout."""

    axis: Axis = None
    keepdims: bool = False

    def forward(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        return namespace(x).sum(x, axis=self.axis, keepdims=self.keepdims), x.shape

    def backward(self, cache: tuple[int, ...], dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (_spread(dout, cache, self.axis),)


@dataclass(frozen=True)
class Mean:
    """y = Σ x / n over `axis` (None: all axes); each of the n values receives dout / n."""

    axis: Axis = None
    keepdims: bool = False

    def forward(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        return namespace(x).mean(x, axis=self.axis, keepdims=self.keepdims), x.shape

    def backward(self, cache: tuple[int, ...], dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        count = math.prod(cache) // max(math.prod(_kept(cache, self.axis)), 1)
        return (_spread(dout * (1.0 / max(count, 1)), cache, self.axis),)


class SquaredNorm:
    """y = ‖x‖² = Σ x² over all elements of x; dx = 2 x dout."""

    def forward(self, x: Array) -> tuple[Array, Array]:
        return namespace(x).sum(x * x), x

    def backward(self, cache: Array, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (cache * (2.0 * dout),)


class MatMul:
    r"""y = a b, the matrix product.

    Inputs
    ------
    a : array, shape=(..., N, K) or (K,)
    b : array, shape=(..., K, M) or (K,)
        Leading axes broadcast. A vector a is a row and a vector b is a column; the output does
        not have their axis.

    Notes
    -----
    With $y_{nm} = \sum_k a_{nk} b_{km}$ and G the gradient with respect to y,

    $$da = G b^T, \quad db = a^T G.$$
    """

    def forward(self, a: Array, b: Array) -> tuple[Array, Any]:
        if a.ndim == 0 or b.ndim == 0:
            raise ValueError(
                f"a matrix product needs axes; got shapes {tuple(a.shape)} and "
                f"{tuple(b.shape)}: to multiply by a number, use *"
            )
        rows = a if a.ndim > 1 else a[None, :]
        columns = b if b.ndim > 1 else b[:, None]
        if rows.shape[-1] != columns.shape[-2]:
            raise ValueError(
                f"shapes {tuple(a.shape)} and {tuple(b.shape)} do not fit: "
                f"{rows.shape[-1]} columns against {columns.shape[-2]} rows"
            )
        y = matmul(rows, columns)
        shape = y.shape
        if a.ndim == 1:
            y = y[..., 0, :]
        if b.ndim == 1:
            y = y[..., 0]
        return y, (rows, columns, shape, a.shape, b.shape)

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = BOTH) -> Grads:
        rows, columns, shape, a_shape, b_shape = cache
        xp = namespace(dout)
        dout = xp.reshape(dout, shape)
        da = db = None
        if needs[0]:
            da = unbroadcast(matmul(dout, xp.matrix_transpose(columns)), rows.shape)
            da = xp.reshape(da, a_shape)
        if needs[1]:
            if columns.ndim == 2 and rows.ndim > 2:  # one product is faster than a stack of them
                stack = math.prod(rows.shape[:-1])
                rows = xp.reshape(rows, (stack, rows.shape[-1]))
                dout = xp.reshape(dout, (stack, dout.shape[-1]))
            db = unbroadcast(matmul(xp.matrix_transpose(rows), dout), columns.shape)
            db = xp.reshape(db, b_shape)
        return da, db


@dataclass(frozen=True)
class Transpose:
    """y = x with its axes in the order `axes` (None: reversed); dx has x's order again."""

    axes: tuple[int, ...] | None = None

    moves: ClassVar[bool] = True

    def _order(self, ndim: int) -> tuple[int, ...]:
        axes = tuple(reversed(range(ndim))) if self.axes is None else self.axes
        order = tuple(axis + ndim * (axis < 0) for axis in axes)  # JAX refuses negative axes here
        if sorted(order) != list(range(ndim)):
            raise ValueError(f"axes are {self.axes}; expected each of {ndim} axes once")
        return order

    def forward(self, x: Array) -> tuple[Array, None]:
        return namespace(x).permute_dims(x, self._order(x.ndim)), None

    def backward(self, cache: None, dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        order = self._order(dout.ndim)
        inverse = tuple(sorted(range(dout.ndim), key=order.__getitem__))
        return (namespace(dout).permute_dims(dout, inverse),)


@dataclass(frozen=True)
class Reshape:
    """y = x in another shape with the same number of elements; dx has x's shape.

    One size may be -1: it follows from the others.
    """

    shape: tuple[int, ...]

    moves: ClassVar[bool] = True

    def forward(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        return namespace(x).reshape(x, self.shape), x.shape

    def backward(self, cache: tuple[int, ...], dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        return (namespace(dout).reshape(dout, cache),)


@dataclass(frozen=True)
class Index:
    """y = x[key] for integers, slices and ``...``; dx is dout at these elements, 0 elsewhere."""

    key: Key | tuple[Key, ...]

    moves: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for k in self.key if isinstance(self.key, tuple) else (self.key,):
            if isinstance(k, bool) or not isinstance(k, int | slice | EllipsisType):
                raise TypeError(
                    f"index {k!r}: expected whole numbers, slices or ...; for an array of "
                    "indices, use gather"
                )
            if isinstance(k, slice):
                if not all(
                    end is None or isinstance(end, int) for end in (k.start, k.stop, k.step)
                ):
                    raise TypeError(f"index {k!r}: expected whole numbers")
                if k.step is not None and k.step < 1:
                    raise ValueError(
                        f"index {k!r}: expected a positive step; PyTorch has no others"
                    )

    def _whole(self, shape: tuple[int, ...]) -> tuple[int | slice, ...]:
        """Return one entry per axis, within its bounds: some libraries do not check them."""
        key = self.key if isinstance(self.key, tuple) else (self.key,)
        at = next((i for i, k in enumerate(key) if k is ...), len(key))
        before, after = key[:at], key[at + 1 :]
        between = len(shape) - len(before) - len(after)
        if between < 0 or ... in after:
            raise ValueError(f"index {self.key!r} is too long for an array of {len(shape)} axes")
        whole: list[int | slice] = []
        for k, n in zip((*before, *[slice(None)] * between, *after), shape, strict=True):
            if isinstance(k, slice):
                start, stop, step = k.indices(n)
                whole.append(slice(start, max(start, stop), step))
            elif isinstance(k, int) and -n <= k < n:
                whole.append(k)
            else:
                raise ValueError(f"index {k} is out of range for an axis of size {n}")
        return tuple(whole)

    def forward(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        return x[self._whole(x.shape)], x.shape

    def backward(self, cache: tuple[int, ...], dout: Array, needs: Sequence[bool] = ONE) -> Grads:
        # Arrays may be immutable, so this inserts zeros between and around instead of assigning.
        xp = namespace(dout)
        for axis, (k, n) in enumerate(zip(self._whole(cache), cache, strict=True)):
            if isinstance(k, int):
                dout = xp.expand_dims(dout, axis=axis)
                k = slice(k % n, k % n + 1, 1)
            m, step = dout.shape[axis], k.step
            if step > 1 and m:
                dout = xp.expand_dims(dout, axis=axis + 1)
                dout = _padded(dout, axis + 1, 0, step - 1)
                shape = (*cache[:axis], m * step, *dout.shape[axis + 2 :])
                last = (m - 1) * step + 1  # x has no place for the zeros after it
                dout = xp.reshape(dout, shape)[(*[slice(None)] * axis, slice(0, last), ...)]
            dout = _padded(dout, axis, k.start, n - k.start - dout.shape[axis])
        return (dout,)


def _padded(x: Array, axis: int, before: int, after: int) -> Array:
    """Return x with `before` and `after` zeros around it along an axis."""
    xp = namespace(x)
    zeros = [
        xp.zeros((*x.shape[:axis], n, *x.shape[axis + 1 :]), dtype=x.dtype, device=device(x))
        for n in (before, after)
    ]
    return xp.concat([zeros[0], x, zeros[1]], axis=axis)


@dataclass(frozen=True)
class Gather:
    """y = x at integer indices along an axis; dx sums the gradients that each entry receives.

    Inputs
    ------
    x : array, shape=(..., n, ...), n along `axis`
    index : integer array, shape=(k,)
        From -n to n - 1, in any order; an index may occur more than once. An index out of range
        raises an error on NumPy and PyTorch, and gives NaN on the other libraries.
    """

    axis: int = 0
    integers: ClassVar[tuple[int, ...]] = (1,)
    moves: ClassVar[bool] = True

    def forward(self, x: Array, index: Array) -> tuple[Array, Any]:
        xp = namespace(x)
        n = x.shape[self.axis]
        if index.ndim != 1 or not xp.isdtype(index.dtype, "integral"):
            raise ValueError(
                f"index has shape {tuple(index.shape)} and dtype {index.dtype}; expected "
                "whole numbers, shape (k,)"
            )
        index = xp.astype(index, xp.int32)
        index = xp.where(index < 0, index + n, index)
        index = xp.where(index < 0, n, index)  # still negative: out of range
        y = xp.take(x, index, axis=self.axis)
        if not is_real(x):
            return y, (index, x.shape)
        # NumPy and PyTorch refuse an index out of range; the other libraries take some row.
        shape = tuple(-1 if a == self.axis % x.ndim else 1 for a in range(x.ndim))
        return xp.where(xp.reshape(index < n, shape), y, xp.nan), (index, x.shape)

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = FIRST) -> Grads:
        index, shape = cache
        xp = namespace(dout)
        rows = xp.moveaxis(dout, self.axis, 0)
        hits = one_hot(index, shape[self.axis], dout.dtype)
        dx = matmul(hits.T, xp.reshape(rows, (index.shape[0], math.prod(rows.shape[1:]))))
        dx = xp.reshape(dx, (shape[self.axis], *rows.shape[1:]))
        return xp.moveaxis(dx, 0, self.axis), None


class Pick:
    """y = x[..., t], one entry per row; that entry receives dout.

    Inputs
    ------
    x : array, shape=(..., C)
    t : integer array, shape=(...)
        A label outside [0, C) picks 0.
    """

    integers: ClassVar[tuple[int, ...]] = (1,)

    def forward(self, x: Array, t: Array) -> tuple[Array, Array]:
        xp = namespace(x)
        if t.shape != x.shape[:-1] or not xp.isdtype(t.dtype, "integral"):
            raise ValueError(
                f"labels have shape {tuple(t.shape)} and dtype {t.dtype}; expected whole "
                f"numbers, one per row, shape {tuple(x.shape[:-1])}"
            )
        hits = one_hot(t, x.shape[-1], x.dtype)
        # x * hits would give NaN where another entry of the row is infinite.
        return xp.sum(xp.where(hits > 0, x, 0.0), axis=-1), hits

    def backward(self, cache: Array, dout: Array, needs: Sequence[bool] = FIRST) -> Grads:
        return namespace(dout).where(cache > 0, dout[..., None], 0.0), None
