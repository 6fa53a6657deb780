"""NumPy on the CPU; and array-api-strict, a NumPy that allows only the standard."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
from array_api_compat import numpy as xp

from xpnet.arrays.dispatch import with_kernels
from xpnet.backend import numpy_images
from xpnet.backend.cpu import cpu_flags, cpu_memory, cpu_name, keep_freed_memory
from xpnet.backend.interface import (
    Agree,
    Array,
    Backend,
    Prepare,
    Ranks,
    Reduce,
    Run,
    Step,
    packed,
    unpacked,
)
from xpnet.backend.loop import FLUSH_BELOW, flushing, gathering, on_rows, plain_loop, within

# The trainer reports a loss that overflows, with its step, so NumPy need not warn.
_ignoring = partial(np.errstate, over="ignore", invalid="ignore", divide="ignore", under="ignore")
_quiet = _ignoring()

_WHOLE = {4: np.int32, 8: np.int64}


# -- Kernels: what NumPy computes faster than our lines, where neither overflow nor a look at the
# memory's layout does harm.


# OpenBLAS multiplies small matrices without copying them first, on a processor with AVX-512 and on
# one thread: up to this many products of numbers. So a larger product is faster in parts.
_SMALL_PRODUCT = 1_000_000
_FEWEST_ROWS = 16  # of a part
_FEWEST_TERMS = 64  # that a part adds up


@cache
def _small_products() -> bool:
    """Whether products in parts are faster here."""
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS")
    one = threads == "1" or os.cpu_count() == 1
    built: Any = np.show_config(mode="dicts")
    blas = built.get("Build Dependencies", {}).get("blas", {}).get("name", "")
    return (
        one
        and "openblas" in blas
        and "avx512f" in cpu_flags()
        and "OPENBLAS_CORETYPE" not in os.environ
    )


def _matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # What is no plain array multiplies in its own way: sparse samples, say.
    plain = type(a) is type(b) is np.ndarray and a.ndim == b.ndim == 2
    if plain and a.size * b.shape[1] > _SMALL_PRODUCT and _small_products():
        rows = _rows_of_a_part(len(a), a.shape[1] * b.shape[1])
        if rows:
            parts = a.reshape(-1, rows, a.shape[1])  # a view, also of a matrix that is turned
            y: np.ndarray = np.matmul(parts, b).reshape(len(a), b.shape[1])
            return y
        terms = _SMALL_PRODUCT // (len(a) * b.shape[1])
        if terms >= _FEWEST_TERMS:
            return _in_sums(a, b, terms)
    product: np.ndarray = np.matmul(a, b)
    return product


def _in_sums(a: np.ndarray, b: np.ndarray, terms: int) -> np.ndarray:
    """Return a @ b as the sum of products of so many columns of a and rows of b."""
    terms -= terms % 8  # whole vectors
    total: np.ndarray = np.matmul(a[:, :terms], b[:terms])
    part = np.empty_like(total)
    for start in range(terms, a.shape[1], terms):
        end = start + terms
        total += np.matmul(a[:, start:end], b[start:end], out=part)
    return total


@lru_cache
def _rows_of_a_part(rows: int, each: int) -> int:
    """Return the most rows that divide `rows` and are a small product; 0 if these are too few."""
    most = min(rows, _SMALL_PRODUCT // each)
    found = (n for n in range(most, _FEWEST_ROWS - 1, -1) if rows % n == 0)
    return next(found, 0)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    # In a step overflow is silent, and 1 / (1 + inf) is the right answer: no need of a second case.
    y: np.ndarray = np.exp(-x)
    y += 1.0
    return 1.0 / y  # of a 0-d array NumPy makes a number, which is no place for a result


def _masked(x: np.ndarray, keep: np.ndarray) -> np.ndarray:
    # `where` is ten times as slow on a mask without a pattern, a branch mispredicted for every
    # other element. A whole number times 0 is 0, whatever its bits stand for.
    bits = keep.astype(_WHOLE[x.itemsize])
    bits *= x.view(bits.dtype)
    return bits.view(x.dtype)


def _places(x: np.ndarray, t: np.ndarray) -> np.ndarray | None:
    """Where the scores of the true classes lie in x; None if t holds no class indices."""
    if t.dtype.kind not in "iu" or t.shape != x.shape[:-1] or x.shape[-1] < 2:
        return None
    places: np.ndarray = np.arange(0, x.size, x.shape[-1]).reshape(t.shape) + t
    return places


def _target_scores(x: np.ndarray, t: np.ndarray, rows: np.ndarray) -> Any:
    places = _places(x, t)
    return NotImplemented if places is None else x.take(places)


# With fewer classes, turn the scores, so that the largest score and the sum of the exponentials
# come from long rows: this halves the time for 1000 samples of 2 or 10 classes.
_MOST_TURNED = 32


def _softmax_cross_entropy(x: np.ndarray, t: np.ndarray, factor: Any) -> Any:
    if x.shape[-1] < _MOST_TURNED:
        return _turned_cross_entropy(x, t, factor)
    places = _places(x, t)
    if places is None or not x.flags.c_contiguous:
        return NotImplemented
    shifted = x - x.max(axis=-1, keepdims=True)
    y = np.exp(shifted)
    total = y.sum(axis=-1, keepdims=True)
    losses = np.log(total)[..., 0] - shifted.take(places)
    y /= total
    y.reshape(-1)[places] -= 1.0  # no one-hot rows have to be made
    y *= factor
    return losses, y


def _turned_cross_entropy(x: np.ndarray, t: np.ndarray, factor: Any) -> Any:
    classes = x.shape[-1]
    if t.dtype.kind not in "iu" or t.shape != x.shape[:-1] or classes < 2:
        return NotImplemented
    y = x.reshape(-1, classes).T.copy()  # shape=(C, samples)
    y -= np.maximum.reduce(y)
    places: Any = np.arange(y.shape[1]) + t.reshape(-1) * np.int64(y.shape[1])
    true = y.take(places)
    np.exp(y, out=y)
    total = np.add.reduce(y)
    losses = np.log(total)
    losses -= true
    y /= total
    true = y.take(places)
    true -= 1.0
    y.put(places, true)
    gradient = y.T.reshape(x.shape)  # a copy
    gradient *= factor
    return losses.reshape(t.shape), gradient


def _weighted_sum(losses: np.ndarray, factor: Any) -> Any:
    return losses.sum() * factor if isinstance(factor, float) else NotImplemented


def _weighted_sums(losses: np.ndarray, factor: Any) -> Any:
    if not isinstance(factor, float):
        return NotImplemented
    return losses.reshape(losses.shape[0], -1).sum(axis=1) * factor


def _sum_rows_per_model(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    # A product with ones takes a third of the time of `sum` over an axis between two short ones.
    return [np.matmul(np.ones((1, a.shape[1]), a.dtype), a)[:, 0] for a in arrays]


def _scaled_norm(arrays: Sequence[np.ndarray], floor: float) -> Any:
    # BLAS takes one pass, and the host may look whether the squares were out of range.
    total = sum(np.dot(a, a) for a in (a.ravel(order="K") for a in arrays))
    known = np.isnan(total) or (floor > 1e-12 and np.isfinite(total))
    return (np.sqrt(total), 1.0) if known else NotImplemented


def _squares(x: np.ndarray) -> Any:
    flat = x.ravel(order="K")
    return np.dot(flat, flat)


def _moved(
    x: np.ndarray, down: np.ndarray, right: np.ndarray, mirrored: np.ndarray, reach: int
) -> np.ndarray:
    # Rows are copied as a whole, out of wider ones whose ends repeat: half the time of looking up
    # each pixel.
    n, channels, height, width = x.shape
    wide = np.empty((n, channels, height, width + 2 * reach), x.dtype)
    wide[..., reach : reach + width] = x
    wide[..., :reach] = x[..., :1]
    wide[..., reach + width :] = x[..., -1:]
    rows = np.arange(height) - down[:, None]
    np.clip(rows, 0, height - 1, out=rows)
    starts = np.arange(0, n * channels * height, height).reshape(n, channels, 1) + rows[:, None, :]
    starts *= wide.shape[3]
    starts += (reach - right)[:, None, None]
    pieces = np.lib.stride_tricks.as_strided(
        wide, (wide.size - width + 1, width), (x.itemsize, x.itemsize), writeable=False
    )
    y: np.ndarray = pieces[starts]
    turned = mirrored.astype(bool)
    y[turned] = y[turned][..., ::-1]
    return y


_KERNELS: dict[str, Callable[..., Any]] = {
    "masked": _masked,
    "matmul": _matmul,
    "moved": _moved,
    "scaled_norm": _scaled_norm,
    "sigmoid": _sigmoid,
    "softmax_cross_entropy": _softmax_cross_entropy,
    "squares": _squares,
    "sum_rows_per_model": _sum_rows_per_model,
    "target_scores": _target_scores,
    "weighted_sum": _weighted_sum,
    "weighted_sums": _weighted_sums,
    **numpy_images.KERNELS,
}


class NumPy(Backend):
    library = "numpy"
    xp: Any = xp

    def __init__(self, kind: str, index: int, precision: str = "float32") -> None:
        super().__init__(np.__version__, "cpu", cpu_name(), cpu_memory(), kernels=_KERNELS)

    def asarray(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(array)

    def loop(self, step: Step, prepare: Prepare, agree: Agree | None = None) -> Run:
        keep_freed_memory()
        work = with_kernels(on_rows(step, gathering(_take, prepare, nested=True)), self.kernels)
        return within(_ignoring, plain_loop(flushing(work, _flush), np.array, agree))

    def reducer(self, ranks: Ranks) -> Reduce:
        def reduce(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
            buffer = packed(arrays)
            ranks.sum(buffer)
            return unpacked(buffer, arrays, np.copy)

        return reduce

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _quiet(with_kernels(function, self.kernels))


class Strict(Backend):
    library = "strict"

    def __init__(self, kind: str, index: int, precision: str = "float32") -> None:
        import array_api_strict

        self.xp = array_api_strict
        super().__init__(array_api_strict.__version__, "cpu", cpu_name(), cpu_memory())

    def asarray(self, array: np.ndarray) -> Array:
        return self.xp.asarray(array)

    def loop(self, step: Step, prepare: Prepare, agree: Agree | None = None) -> Run:
        take = partial(self.xp.take, axis=0)
        return plain_loop(_quiet(on_rows(step, gathering(take, prepare))), self.xp.stack, agree)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _quiet(function)


def _flush(array: np.ndarray) -> None:
    if array.dtype.kind == "f" and array.ndim:
        array[np.abs(array) < FLUSH_BELOW * np.finfo(array.dtype).tiny] = 0.0


def _take(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return array.take(rows, axis=0)
