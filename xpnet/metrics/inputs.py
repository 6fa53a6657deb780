"""Bring what you measure to the host: class indices, probabilities, values, weights.

The metrics compute there, in float64: a device may have no float64, and counts and sums are then
the same bits whichever library the arrays come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from xpnet.data.checks import check_numbers, host
from xpnet.errors import DataError, UsageError, listed, shown

__all__ = [
    "Classes", "Pairs", "Probabilities", "mean", "occurring", "on_host", "pairs", "probabilities",
    "values", "weights",
]  # fmt: skip

Classes = int | Sequence[str] | None
SLACK = 1e-6  # a probability in float32 may exceed 1 by its last digit


class Pairs(NamedTuple):
    """The classes of N samples, as int64, and what was predicted."""

    t: np.ndarray
    predicted: np.ndarray
    classes: int
    weight: np.ndarray | None


class Probabilities(NamedTuple):
    """The classes of N samples, as int64, and float64 probabilities, shape=(N, C)."""

    t: np.ndarray
    p: np.ndarray
    weight: np.ndarray | None
    dtype: Any  # the real dtype in which the probabilities came


# -- Public to the room ----------------------------------------------------------------


def pairs(t: Any, predicted: Any, classes: Classes = None, sample_weight: Any = None) -> Pairs:
    """Return checked class indices: of `classes` classes, or up to the largest index, at least 2.

    Raises
    ------
    DataError
        The lengths differ, there are no samples, or an index is outside [0, classes).
    UsageError
        `classes` is neither a number of at least 2 nor names.
    """
    t, predicted = _column(t, "t"), _column(predicted, "predicted")
    _same_length(t, predicted, "predicted")
    if classes is None:
        classes = occurring(t, predicted)
    t, predicted = _indices(t, classes, "t"), _indices(predicted, classes, "predicted")
    count = max(class_count(classes) or 2, 2)
    _check_range(t, count, "t")
    _check_range(predicted, count, "predicted")
    weight, keep = weights(sample_weight, len(t))
    if keep is not None:
        t, predicted = t[keep], predicted[keep]
    return Pairs(t, predicted, count, weight)


def occurring(*given: Any) -> int | list[str] | None:
    """Return the classes of arrays that name none: sorted labels, or the largest index + 1.

    It is None for labels beside indices.
    """
    arrays = [_column(a, "t") for a in given]
    kinds = {a.dtype.kind == "U" for a in arrays}
    if kinds == {True}:
        return sorted({label for a in arrays for label in np.unique(a).tolist()})
    return None if True in kinds else max(2, *(int(a.max()) + 1 for a in arrays))


def probabilities(
    t: Any, p: Any, classes: Classes = None, sample_weight: Any = None, *, unit: bool = True
) -> Probabilities:
    """Return checked class indices and probabilities; (N,) and (N, 1) are those of class 1.

    Parameters
    ----------
    t, p, classes, sample_weight
    unit : bool
        Whether probabilities must lie in [0, 1]; a ranking takes any scores.

    Raises
    ------
    DataError
        As for `pairs`; or a probability is not finite, or outside [0, 1].
    """
    t, p = _column(t, "t"), _numbers(p, "probabilities")
    _same_length(t, p, "probabilities")
    dtype = p.dtype if p.dtype.kind == "f" else np.dtype(np.float64)
    p = p.astype(np.float64)
    if p.ndim == 1:
        p = p[:, None]
    if p.ndim != 2:
        raise DataError(
            f"probabilities: got shape {p.shape}; expected ({len(t)},) or ({len(t)}, classes)"
        )
    if unit:
        bad = (p < -SLACK) | (p > 1.0 + SLACK)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise DataError(
                f"probabilities: row {row}: got {p[row, column]}; expected numbers from 0 to 1"
            )
        p = np.clip(p, 0.0, 1.0)
    if p.shape[1] == 1:
        p = np.concatenate([1.0 - p, p], axis=1)
    if classes is None and t.dtype.kind == "U":
        labels: list[str] = np.unique(t).tolist()
        classes = labels
        if len(labels) != p.shape[1]:
            raise DataError(
                f"t: got {len(labels)} different labels for {p.shape[1]} columns of "
                "probabilities; say which class each column is: classes=[...]"
            )
    count = class_count(classes)
    if count is not None and max(count, 2) != p.shape[1]:
        raise DataError(
            f"probabilities: got {p.shape[1]} columns for {count} classes; expected one each"
        )
    t = _indices(t, classes, "t")
    _check_range(t, p.shape[1], "t")
    weight, keep = weights(sample_weight, len(t))
    if keep is not None:
        t, p = t[keep], p[keep]
    return Probabilities(t, p, weight, dtype)


def values(
    t: Any, predicted: Any, sample_weight: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return targets and predictions as float64, shape=(N, outputs), and weights or None.

    Raises
    ------
    DataError
        The shapes differ, there are no samples, or a value is not finite.
    """
    t, predicted = _numbers(t, "t"), _numbers(predicted, "predicted")
    _same_length(t, predicted, "predicted")
    shape = t.shape
    t, predicted = (a.reshape(len(a), -1).astype(np.float64) for a in (t, predicted))
    if t.shape != predicted.shape:
        raise DataError(f"predicted: got shape {predicted.shape}; expected {shape}, as t has")
    weight, keep = weights(sample_weight, len(t))
    if keep is not None:
        t, predicted = t[keep], predicted[keep]
    return t, predicted, weight


def weights(sample_weight: Any, n: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the weights above 0 as float64, and which they are; (None, None) for no weights.

    A sample of weight 0 is left out, as though you had not given it.

    Raises
    ------
    DataError
        They are not N numbers of at least 0, or all are 0.
    """
    if sample_weight is None:
        return None, None
    weight = _numbers(sample_weight, "sample_weight").astype(np.float64)
    if weight.shape != (n,):
        raise DataError(f"sample_weight: got shape {weight.shape}; expected ({n},)")
    if (bad := weight < 0).any():
        row = int(np.argmax(bad))
        raise DataError(f"sample_weight: row {row}: got {weight[row]}; expected 0 or more")
    keep = weight > 0
    if not keep.any():
        raise DataError("sample_weight: all weights are 0; expected at least one above 0")
    return weight[keep], keep


def class_count(classes: Classes) -> int | None:
    """Return how many classes a number or names say; None for None.

    Raises
    ------
    UsageError
    """
    if classes is None:
        return None
    if isinstance(classes, int | np.integer) and not isinstance(classes, bool):
        if classes >= 1:
            return int(classes)
    elif isinstance(classes, Sequence | np.ndarray) and not isinstance(classes, str | bytes):
        if len(classes) and len({*map(str, classes)}) == len(classes):
            return len(classes)
        raise UsageError(
            f"classes: got {listed(map(str, classes))}; expected one or more different names"
        )
    raise UsageError(f"classes is {shown(classes)}; expected their number, or their names")


def on_host(a: Any, name: str) -> np.ndarray:
    """An array, list or series as NumPy's; text as NumPy's text."""
    if not hasattr(a, "__array_namespace__") and hasattr(a, "to_numpy"):
        a = a.to_numpy()  # a series of pandas or Polars
    array: np.ndarray = host(a, name)
    if array.dtype.kind == "O" and all(isinstance(v, str) for v in array.ravel()):
        array = array.astype(str)
    return array


# -- Parts -----------------------------------------------------------------------------


def _numbers(a: Any, name: str) -> np.ndarray:
    array = on_host(a, name)
    check_numbers(array, name)
    return array


def _column(a: Any, name: str) -> np.ndarray:
    """Class indices or labels, one a sample."""
    array = on_host(a, name)
    if array.ndim != 1:
        advice = ""
        if array.ndim == 2:
            advice = f"{name}[:, 0]" if array.shape[1] == 1 else f"{name}.argmax(axis=1)"
        raise DataError(
            f"{name}: got shape {array.shape}; expected (N,), one class index a sample"
            + (advice and f": {advice}")
        )
    if not len(array):
        raise DataError(f"{name}: got no samples, expected at least one")
    if array.dtype.kind == "S":
        array = array.astype(str)
    if array.dtype.kind == "O":
        row = next(i for i, label in enumerate(array) if not isinstance(label, str))
        raise DataError(
            f"{name}: row {row}: got {shown(array[row])}; expected a label that is text"
        )
    if array.dtype.kind not in "buiU":
        raise DataError(
            f"{name}: got classes as {array.dtype}; expected integers, "
            f"{name}.astype(int), or labels that are text"
        )
    return array


def _same_length(t: np.ndarray, other: np.ndarray, name: str) -> None:
    if len(t) != len(other):
        raise DataError(f"{name}: got {len(other)} rows for {len(t)} samples; expected one each")


def _indices(a: np.ndarray, classes: Classes, name: str) -> np.ndarray:
    """Class indices as int64; those of labels are their places in `classes`."""
    if a.dtype.kind != "U":
        return a.astype(np.int64)
    if classes is None or isinstance(classes, int | np.integer):
        raise DataError(f"{name}: got labels that are text; say which class each is: classes=[...]")
    places = {str(label): i for i, label in enumerate(classes)}
    distinct, inverse = np.unique(a, return_inverse=True)
    found = np.array([places.get(label, -1) for label in distinct.tolist()], np.int64)[inverse]
    if (bad := found < 0).any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{name}: row {row}: got {shown(str(a[row]))}; expected one of {listed(places)}"
        )
    return found


def _check_range(a: np.ndarray, classes: int, name: str) -> None:
    if (bad := (a < 0) | (a >= classes)).any():
        row = int(np.argmax(bad))
        raise DataError(f"{name}: row {row}: got class {a[row]}; expected 0 to {classes - 1}")


def mean(values: np.ndarray, weight: np.ndarray | None) -> float:
    """Return the mean over the samples, weighted if there are weights."""
    if weight is None:
        return float(values.mean())
    weight = weight / weight.max()  # first, since a sum of huge weights is infinite
    return float(values @ (weight / weight.sum()))
