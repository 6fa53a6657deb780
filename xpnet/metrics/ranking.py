"""How well probabilities rank the samples, and where to cut: ROC, precision-recall, thresholds.

Each is found from one sort of the probabilities, O(N log N). Samples of equal probability are one
step: no threshold tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from xpnet.errors import DataError, UsageError, shown
from xpnet.metrics.inputs import Classes, Probabilities, probabilities

__all__ = [
    "PrecisionRecall", "Roc", "areas", "average_precision", "best_threshold",
    "precision_recall_curve", "roc_auc", "roc_curve",
]  # fmt: skip

ThresholdMetric = Literal["f1", "balanced_accuracy"]


class Roc(NamedTuple):
    """A receiver operating characteristic: `false` and `true` positive rates by threshold.

    Examples
    --------
    >>> found = roc_curve([0, 1], [0.2, 0.7])
    >>> found.true.tolist(), found.false.tolist()
    ([0.0, 1.0, 1.0], [0.0, 0.0, 1.0])
    """

    false: np.ndarray
    true: np.ndarray
    thresholds: np.ndarray


class PrecisionRecall(NamedTuple):
    """Precision and recall by threshold; one point, (1, 0), belongs to none.

    Examples
    --------
    >>> found = precision_recall_curve([0, 1], [0.2, 0.7])
    >>> found.recall.tolist()
    [1.0, 1.0, 0.0]
    """

    precision: np.ndarray
    recall: np.ndarray
    thresholds: np.ndarray


class Steps(NamedTuple):
    """From the highest probability down: positives and negatives at or above each threshold."""

    true: np.ndarray
    false: np.ndarray
    thresholds: np.ndarray


# -- Areas -----------------------------------------------------------------------------


def roc_auc(
    t: Any, probabilities: Any, *, classes: Classes = None, sample_weight: Any = None
) -> float:
    r"""Return the area under the ROC curve.

    It is the probability that a positive sample gets a higher score than a negative one, where a
    tie counts half: $P(s_+ > s_-) + \frac{1}{2} P(s_+ = s_-)$.

    Parameters
    ----------
    t : integer array, shape=(N,)
        Class indices, or labels that are text.
    probabilities : array, shape=(N,) or (N, C)
        Of one column, that of the second class. Any scores will do: only their order counts.
    classes : int or sequence of str, optional
        The classes of the columns; by default as many as there are, and of labels the sorted ones.
    sample_weight : array, shape=(N,), optional
        How much each sample counts, 0 or more.

    Returns
    -------
    float
        For more than two classes, the mean over the classes of each against the rest, of those
        that have samples on both sides. NaN if none has.

    Raises
    ------
    DataError
        The lengths differ, there are no samples, or a probability is not finite.

    Notes
    -----
    Source: Hanley and McNeil, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve", 1982; Fawcett, "An introduction to ROC analysis", 2006.

    Examples
    --------
    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return _over_classes(_ranked(t, probabilities, classes, sample_weight), _area)[0]


def average_precision(
    t: Any, probabilities: Any, *, classes: Classes = None, sample_weight: Any = None
) -> float:
    r"""Return the average precision, $\sum_k (R_k - R_{k-1}) P_k$.

    The sum is over the thresholds, from the highest down, with precision P and recall R at each.
    Random scores give the share of positive samples. Parameters and errors are those of `roc_auc`.

    Returns
    -------
    float
        For more than two classes, the mean over the classes that occur in `t`. NaN for two classes
        without a positive sample.

    Notes
    -----
    Source: Davis and Goadrich, "The relationship between precision-recall and ROC curves", 2006;
    a sum of steps, since lines between the points would be too optimistic.

    Examples
    --------
    >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.8333
    """
    return _over_classes(_ranked(t, probabilities, classes, sample_weight), _average)[0]


def areas(t: Any, probabilities: Any, classes: Classes, sample_weight: Any) -> list[float]:
    """Return `roc_auc` and `average_precision`, from one sort per class."""
    return _over_classes(_ranked(t, probabilities, classes, sample_weight), _area, _average)


# -- Curves ----------------------------------------------------------------------------


def roc_curve(t: Any, probabilities: Any, *, positive: int = 1, sample_weight: Any = None) -> Roc:
    r"""Return the points of the ROC curve, $(FP / N_-, TP / N_+)$ by threshold.

    Parameters
    ----------
    t, probabilities, sample_weight
        As for `roc_auc`.
    positive : int
        The class that stands against the rest.

    Returns
    -------
    Roc
        (false, true, thresholds), each of shape=(K + 1,) for K different probabilities, from the
        threshold infinity down. A rate is NaN where its side has no samples.

    Raises
    ------
    DataError
        As for `roc_auc`.
    UsageError
        There is no class `positive`.

    Notes
    -----
    Source: Fawcett, 2006, algorithm 1.

    Examples
    --------
    >>> false, true, thresholds = roc_curve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    >>> false.tolist(), true.tolist()
    ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    steps = _steps(_ranked(t, probabilities, None, sample_weight), positive)
    rates = []
    for count in (steps.false, steps.true):
        rate = count / count[-1] if count[-1] > 0 else np.full(len(count), np.nan)
        rates.append(np.concatenate([[0.0], rate]))
    return Roc(rates[0], rates[1], np.concatenate([[np.inf], steps.thresholds]))


def precision_recall_curve(
    t: Any, probabilities: Any, *, positive: int = 1, sample_weight: Any = None
) -> PrecisionRecall:
    """Return precision and recall by threshold.

    Parameters
    ----------
    t, probabilities, sample_weight
        As for `roc_auc`.
    positive : int
        The class that stands against the rest.

    Returns
    -------
    PrecisionRecall
        (precision, recall, thresholds), from the lowest threshold up. Precision and recall have one
        number more, for no predictions at all: 1 and 0. Recall is NaN without positive samples.

    Raises
    ------
    DataError
        As for `roc_auc`.
    UsageError
        There is no class `positive`.

    Notes
    -----
    Source: Davis and Goadrich, 2006.

    Examples
    --------
    >>> precision, recall, _ = precision_recall_curve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    >>> precision.round(2).tolist(), recall.tolist()
    ([0.5, 0.67, 0.5, 1.0, 1.0], [1.0, 1.0, 0.5, 0.5, 0.0])
    """
    steps = _steps(_ranked(t, probabilities, None, sample_weight), positive)
    precision = (steps.true / (steps.true + steps.false))[::-1]
    total = steps.true[-1]
    recall = (steps.true / total if total > 0 else np.full(len(steps.true), np.nan))[::-1]
    return PrecisionRecall(
        np.append(precision, 1.0), np.append(recall, 0.0), steps.thresholds[::-1].copy()
    )


# -- Thresholds ------------------------------------------------------------------------


def best_threshold(
    t: Any, p_positive: Any, metric: ThresholdMetric = "f1", *, sample_weight: Any = None
) -> float:
    r"""Return the threshold on the second class's probability that is best for a metric.

    "The second class" is to be answered where its probability is at least the threshold.

    Parameters
    ----------
    t : integer array, shape=(N,)
        0 or 1.
    p_positive : array, shape=(N,) or (N, 2)
        Probabilities of the second class.
    metric : {"f1", "balanced_accuracy"}
        The best balanced accuracy is Youden's: $TP / N_+ - FP / N_-$ is largest.
    sample_weight : array, shape=(N,), optional

    Returns
    -------
    float
        In the middle between two neighbouring probabilities, or between 0 and the lowest one: so
        few new samples fall between. Of several that are equally good, the one nearest 0.5. The
        probabilities' dtype holds it exactly, so that a device compares as the host does.
        From 0 to 1, both included: 0 if all samples count and the lowest probability is 0, and 1
        if only those of probability 1 count and nothing lies between them and the next.

    Raises
    ------
    DataError
        `t` has samples of one class only, or the data are unfit for `roc_auc`.
    UsageError
        The metric is unknown.

    Notes
    -----
    Each threshold between probabilities is tried, from one sort. Source: Lipton, Elkan and
    Naryanaswamy, "Optimal thresholding of classifiers to maximize F1 measure", 2014; Youden,
    "Index for rating diagnostic tests", 1950.

    Examples
    --------
    >>> best_threshold([0, 0, 1, 1], [0.25, 0.5, 0.75, 1.0])
    0.625
    """
    if metric not in THRESHOLDS:
        raise UsageError(f"metric is {shown(metric)}; expected one of {', '.join(THRESHOLDS)}")
    ranked = probabilities(t, p_positive, 2, sample_weight)
    steps = _steps(ranked, 1)
    positives, negatives = steps.true[-1], steps.false[-1]
    if not (positives > 0 and negatives > 0):
        raise DataError(
            f"t: got samples of class {int(positives > 0)} only; a threshold needs both classes"
        )
    scores = THRESHOLDS[metric](steps.true, steps.false)
    cuts = _middles(steps.thresholds, ranked.dtype)[scores == scores.max()]
    return float(cuts[np.argmin(np.abs(cuts - 0.5))])


def _f1(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    shares: np.ndarray = 2 * true / (true[-1] + true + false)
    return shares


def _youden(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    # By multiplication, not of two quotients: whole numbers then tie exactly.
    differences: np.ndarray = true * false[-1] - false * true[-1]
    return differences


THRESHOLDS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "f1": _f1,
    "balanced_accuracy": _youden,
}


def _middles(thresholds: np.ndarray, dtype: Any) -> np.ndarray:
    """Between each probability and the next lower one, in their dtype; below the last one, 0."""
    high = thresholds.astype(dtype)
    low = np.append(high[1:], np.zeros(1, dtype))
    middle = low + (high - low) / 2
    # Two neighbours in the dtype have nothing between them.
    return np.where((low < middle) & (middle <= high), middle, high).astype(np.float64)


# -- Parts -----------------------------------------------------------------------------


def _ranked(t: Any, scores: Any, classes: Classes, sample_weight: Any) -> Probabilities:
    return probabilities(t, scores, classes, sample_weight, unit=False)


def _steps(ranked: Probabilities, positive: int) -> Steps:
    """Count positives and negatives at or above each different probability of class `positive`."""
    if not 0 <= positive < ranked.p.shape[1]:
        raise UsageError(
            f"positive is {shown(positive)}; expected a class from 0 to {ranked.p.shape[1] - 1}"
        )
    p = ranked.p[:, positive]
    order = np.argsort(-p, kind="stable")
    p, hit = p[order], (ranked.t == positive)[order]
    last = np.append(np.flatnonzero(p[1:] != p[:-1]), len(p) - 1)
    if ranked.weight is None:  # whole numbers, so that the sums are exact
        return Steps(np.cumsum(hit)[last], np.cumsum(~hit)[last], p[last])
    weight = ranked.weight[order]
    return Steps(np.cumsum(weight * hit)[last], np.cumsum(weight * ~hit)[last], p[last])


def _over_classes(ranked: Probabilities, *kinds: Callable[[Steps], float]) -> list[float]:
    """The second class's numbers if there are two, else the means over those that have one."""
    classes = [1] if ranked.p.shape[1] == 2 else np.unique(ranked.t).tolist()
    steps = (_steps(ranked, c) for c in classes)
    found = np.array([[kind(step) for kind in kinds] for step in steps])
    return [
        float(np.mean(column[~np.isnan(column)])) if not np.isnan(column).all() else float("nan")
        for column in found.T
    ]


def _area(steps: Steps) -> float:
    """The trapezoids' sum; of whole numbers it is exact, up to the division."""
    true = np.append(0, steps.true)
    false = np.append(0, steps.false)
    whole = float(true[-1]) * float(false[-1])
    if whole == 0.0:
        return float("nan")
    return float(np.sum(np.diff(false) * (true[1:] + true[:-1]))) / (2.0 * whole)


def _average(steps: Steps) -> float:
    if not steps.true[-1] > 0:
        return float("nan")
    gained = np.diff(steps.true, prepend=0)
    return float(np.sum(gained * (steps.true / (steps.true + steps.false)))) / float(steps.true[-1])
