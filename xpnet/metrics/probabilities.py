"""How good probabilities are as such: log loss, Brier score, calibration."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from xpnet.errors import UsageError, shown, whole
from xpnet.metrics.inputs import Classes, mean
from xpnet.metrics.inputs import probabilities as checked

__all__ = ["Calibration", "brier", "calibration_curve", "log_loss"]


class Calibration(NamedTuple):
    """For each bin that has samples: mean probability, share of positives, number of samples.

    Examples
    --------
    >>> found = calibration_curve([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], bins=2)
    >>> found.observed.tolist(), found.samples.tolist()
    ([0.0, 1.0], [2, 2])
    """

    predicted: np.ndarray
    observed: np.ndarray
    samples: np.ndarray


def log_loss(
    t: Any, probabilities: Any, *, classes: Classes = None, sample_weight: Any = None
) -> float:
    r"""Return the cross-entropy per sample, $-\frac{1}{N} \sum_i \log p_{i, t_i}$.

    Parameters
    ----------
    t : integer array, shape=(N,)
        Class indices, or labels that are text.
    probabilities : array, shape=(N,) or (N, C)
        Of one column, that of the second class. Rows should add up to 1; they are taken as they
        are.
    classes : int or sequence of str, optional
        The classes of the columns; by default as many as there are, and of labels the sorted ones.
    sample_weight : array, shape=(N,), optional
        How much each sample counts, 0 or more.

    Raises
    ------
    DataError
        The lengths differ, there are no samples, or a probability is outside [0, 1].

    Notes
    -----
    A probability counts as at least ε and at most 1 - ε, the ε of its dtype, as in scikit-learn;
    the loss of the network, from its scores, has no such bound. Source: Good, "Rational
    decisions", 1952.

    Examples
    --------
    >>> round(log_loss([0, 1], [0.5, 0.5]), 4)  # log 2
    0.6931
    """
    given = checked(t, probabilities, classes, sample_weight)
    p = given.p[np.arange(len(given.t)), given.t]
    eps = float(np.finfo(given.dtype).eps)
    return mean(-np.log(np.clip(p, eps, 1.0 - eps)), given.weight)


def brier(
    t: Any, probabilities: Any, *, classes: Classes = None, sample_weight: Any = None
) -> float:
    r"""Return the Brier score, the mean square error of the probabilities.

    For two classes it is $\frac{1}{N} \sum_i (p_{i1} - t_i)^2$, from 0 to 1; for more,
    $\frac{1}{N} \sum_i \sum_c (p_{ic} - [t_i = c])^2$, from 0 to 2. Parameters and errors are
    those of `log_loss`.

    Notes
    -----
    Source: Brier, "Verification of forecasts expressed in terms of probability", 1950.

    Examples
    --------
    >>> brier([0, 1], [0.5, 0.5])
    0.25
    """
    given = checked(t, probabilities, classes, sample_weight)
    if given.p.shape[1] == 2:
        return mean((given.p[:, 1] - given.t) ** 2, given.weight)
    errors = given.p.copy()
    errors[np.arange(len(given.t)), given.t] -= 1.0
    return mean((errors**2).sum(axis=1), given.weight)


def calibration_curve(
    t: Any,
    probabilities: Any,
    *,
    positive: int = 1,
    bins: int = 10,
    strategy: Literal["uniform", "quantile"] = "uniform",
) -> Calibration:
    """Return how often a class occurs among samples of about equal probability.

    Parameters
    ----------
    t, probabilities
        As for `log_loss`.
    positive : int
        The class that stands against the rest.
    bins : int
        Into how many bins the probabilities are put; those without samples are left out.
    strategy : {"uniform", "quantile"}
        Bins of equal width, or of about equal numbers of samples.

    Returns
    -------
    Calibration
        (predicted, observed, samples), each of shape=(bins with samples,).

    Raises
    ------
    DataError
        As for `log_loss`.
    UsageError
        There is no class `positive`, or `bins` or `strategy` is impossible.

    Notes
    -----
    A bin includes its upper end, the first one its lower end too. Source: DeGroot and Fienberg,
    "The comparison and evaluation of forecasters", 1983.

    Examples
    --------
    >>> calibration_curve([0, 1, 1, 1], [0.25, 0.25, 0.75, 1.0], bins=2).observed.tolist()
    [0.5, 1.0]
    """
    given = checked(t, probabilities)
    bins = whole("bins", bins, 1, 10_000)
    if not 0 <= positive < given.p.shape[1]:
        raise UsageError(
            f"positive is {shown(positive)}; expected a class from 0 to {given.p.shape[1] - 1}"
        )
    p, hit = given.p[:, positive], given.t == positive
    if strategy == "uniform":
        edges = np.linspace(0.0, 1.0, bins + 1)
    elif strategy == "quantile":
        edges = np.quantile(p, np.linspace(0.0, 1.0, bins + 1))
    else:
        raise UsageError(f"strategy is {shown(strategy)}; expected 'uniform' or 'quantile'")
    place = np.searchsorted(edges[1:-1], p)
    samples = np.bincount(place, minlength=bins)
    filled = samples > 0
    sums = (np.bincount(place, part, bins)[filled] for part in (p, hit))
    predicted, observed = (part / samples[filled] for part in sums)
    return Calibration(predicted, observed, samples[filled])
