"""Right and wrong classes: accuracy, precision, recall, F1, the confusion matrix."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np

from xpnet.errors import UsageError, shown
from xpnet.metrics.inputs import Classes, Pairs, mean, pairs

__all__ = [
    "Average", "accuracy", "balanced_accuracy", "confusion_matrix", "counts", "f1", "precision",
    "recall",
]  # fmt: skip

Average = Literal["auto", "binary", "macro"]


def accuracy(
    t: Any, predicted: Any, *, classes: Classes = None, sample_weight: Any = None
) -> float:
    r"""Return the share of right answers, $\frac{1}{N} \sum_i [y_i = t_i]$.

    Parameters
    ----------
    t, predicted : integer array, shape=(N,)
        Class indices, or labels that are text.
    classes : int or sequence of str, optional
        How many classes there are, or their names. By default as many as the largest index says,
        at least 2; of labels, those that occur, in sorted order.
    sample_weight : array, shape=(N,), optional
        How much each sample counts, 0 or more.

    Raises
    ------
    DataError
        The lengths differ, there are no samples, or a class is outside [0, classes).

    Notes
    -----
    Source: Sokolova and Lapalme, "A systematic analysis of performance measures for
    classification tasks", 2009, table 3.

    Examples
    --------
    >>> accuracy([0, 1, 1, 1], [0, 1, 0, 1])
    0.75
    """
    p = pairs(t, predicted, classes, sample_weight)
    return mean((p.t == p.predicted).astype(np.float64), p.weight)


def balanced_accuracy(
    t: Any, predicted: Any, *, classes: Classes = None, sample_weight: Any = None
) -> float:
    r"""Return the mean of the recalls, $\frac{1}{C} \sum_c TP_c / (TP_c + FN_c)$.

    The mean is over the classes that occur in `t`. Parameters and errors are those of `accuracy`.

    Notes
    -----
    Source: Brodersen, Ong, Stephan and Buhmann, "The balanced accuracy and its posterior
    distribution", 2010.

    Examples
    --------
    >>> balanced_accuracy([0, 0, 0, 1], [0, 0, 0, 0])
    0.5
    """
    right, _, true = counts(pairs(t, predicted, classes, sample_weight))
    occurs = true > 0
    return float((right[occurs] / true[occurs]).mean())


@overload
def precision(
    t: Any, predicted: Any, *, average: Average = ..., classes: Classes = ...,
    sample_weight: Any = ...,
) -> float: ...  # fmt: skip
@overload
def precision(
    t: Any, predicted: Any, *, average: None, classes: Classes = ..., sample_weight: Any = ...
) -> np.ndarray: ...
def precision(
    t: Any,
    predicted: Any,
    *,
    average: Average | None = "auto",
    classes: Classes = None,
    sample_weight: Any = None,
) -> float | np.ndarray:
    r"""Return how many of those predicted as a class are of it, $TP / (TP + FP)$.

    Parameters
    ----------
    t, predicted : integer array, shape=(N,)
        Class indices, or labels that are text.
    average : {"auto", "binary", "macro", None}
        "binary": of the second class, the positive one, of two. "macro": the mean over the classes
        that occur in `t` or in `predicted`. "auto": binary for two classes, else macro.
        None: an array with one number per class.
    classes : int or sequence of str, optional
        As for `accuracy`. Give it where the samples may lack a class.
    sample_weight : array, shape=(N,), optional
        How much each sample counts, 0 or more.

    Returns
    -------
    float, or array of float64, shape=(C,)
        0 where nothing is predicted as the class.

    Raises
    ------
    DataError
        The lengths differ, there are no samples, or a class is outside [0, classes).
    UsageError
        `average` is unknown, or "binary" with more than two classes.

    Notes
    -----
    Source: van Rijsbergen, "Information Retrieval", 2nd edition, 1979, chapter 7.

    Examples
    --------
    >>> precision([0, 0, 1, 1], [0, 1, 1, 1], average=None).round(3).tolist()
    [1.0, 0.667]
    """
    p = pairs(t, predicted, classes, sample_weight)
    right, found, true = counts(p)
    return _averaged(_share(right, found), found + true > 0, average)


@overload
def recall(
    t: Any, predicted: Any, *, average: Average = ..., classes: Classes = ...,
    sample_weight: Any = ...,
) -> float: ...  # fmt: skip
@overload
def recall(
    t: Any, predicted: Any, *, average: None, classes: Classes = ..., sample_weight: Any = ...
) -> np.ndarray: ...
def recall(
    t: Any,
    predicted: Any,
    *,
    average: Average | None = "auto",
    classes: Classes = None,
    sample_weight: Any = None,
) -> float | np.ndarray:
    r"""Return how many of a class are predicted as it, $TP / (TP + FN)$.

    It is 0 for a class without samples. Parameters, errors and source are those of `precision`.

    Examples
    --------
    >>> recall([0, 0, 1, 1], [0, 1, 1, 1], average=None).tolist()
    [0.5, 1.0]
    """
    right, found, true = counts(pairs(t, predicted, classes, sample_weight))
    return _averaged(_share(right, true), found + true > 0, average)


@overload
def f1(
    t: Any, predicted: Any, *, average: Average = ..., classes: Classes = ...,
    sample_weight: Any = ...,
) -> float: ...  # fmt: skip
@overload
def f1(
    t: Any, predicted: Any, *, average: None, classes: Classes = ..., sample_weight: Any = ...
) -> np.ndarray: ...
def f1(
    t: Any,
    predicted: Any,
    *,
    average: Average | None = "auto",
    classes: Classes = None,
    sample_weight: Any = None,
) -> float | np.ndarray:
    r"""Return the harmonic mean of precision and recall, $2 TP / (2 TP + FP + FN)$.

    It is 0 for a class without samples and predictions. Parameters, errors and source are those
    of `precision`.

    Examples
    --------
    >>> f1([0, 0, 1, 1], [0, 1, 1, 1])
    0.8
    """
    right, found, true = counts(pairs(t, predicted, classes, sample_weight))
    return _averaged(_share(2 * right, found + true), found + true > 0, average)


def confusion_matrix(
    t: Any, predicted: Any, classes: Classes = None, *, sample_weight: Any = None
) -> np.ndarray:
    """Count in [i, j] the samples of class i that were predicted as class j.

    Parameters
    ----------
    t, predicted, classes, sample_weight
        As for `accuracy`.

    Returns
    -------
    array, shape=(C, C)
        int64; float64 with weights.

    Raises
    ------
    DataError
        As for `accuracy`.

    Notes
    -----
    Source: Sokolova and Lapalme, 2009, section 2.

    Examples
    --------
    >>> confusion_matrix([0, 0, 1], [0, 1, 1])
    array([[1, 1],
           [0, 1]])
    """
    p = pairs(t, predicted, classes, sample_weight)
    cells = p.t * p.classes + p.predicted
    return np.bincount(cells, p.weight, p.classes**2).reshape(p.classes, p.classes)


def counts(p: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each class how many are right, predicted and true; of weights, their sums."""
    hit = p.predicted == p.t
    weight = None if p.weight is None else p.weight[hit]
    return (
        np.bincount(p.t[hit], weight, p.classes),
        np.bincount(p.predicted, p.weight, p.classes),
        np.bincount(p.t, p.weight, p.classes),
    )


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where whole is 0."""
    share = np.zeros(len(part))
    np.divide(part, whole, out=share, where=whole > 0)
    return share


def _averaged(
    per_class: np.ndarray, occurs: np.ndarray, average: Average | None
) -> float | np.ndarray:
    if average is None:
        return per_class
    two = len(per_class) == 2
    if average == "binary" and not two:
        raise UsageError(
            f"average='binary' is for two classes, got {len(per_class)}; use 'macro' or None"
        )
    if average == "binary" or (average == "auto" and two):
        return float(per_class[1])
    if average in ("auto", "macro"):
        return float(per_class[occurs].mean())
    raise UsageError(f"average is {shown(average)}; expected 'auto', 'binary', 'macro' or None")
