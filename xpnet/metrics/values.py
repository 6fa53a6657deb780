"""Errors of a regression, in the units of the targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.metrics.inputs import mean, values

__all__ = ["mae", "median_absolute_error", "r2", "rmse"]


def r2(t: Any, predicted: Any, *, sample_weight: Any = None) -> float:
    r"""Return R², $1 - \sum_i (y_i - t_i)^2 / \sum_i (t_i - \bar t)^2$.

    It is 1 for perfect predictions and 0 for those no better than the mean.

    Parameters
    ----------
    t, predicted : array, shape=(N,) or (N, outputs)
        In the same units.
    sample_weight : array, shape=(N,), optional
        How much each sample counts, 0 or more.

    Returns
    -------
    float
        Of several outputs, the mean over those whose targets vary; NaN if none does.

    Raises
    ------
    DataError
        The shapes differ, there are no samples, or a value is not finite.

    Notes
    -----
    Source: Draper and Smith, "Applied Regression Analysis", 3rd edition, 1998, section 1.3.

    Examples
    --------
    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 2.0])
    0.5
    """
    t, predicted, weight = values(t, predicted, sample_weight)
    found = []
    for true, answer in zip(t.T, predicted.T, strict=True):
        # From the first target, and in units of the widest: means of large numbers and squares of
        # small ones stay exact.
        spread = true - true[0]
        unit = np.abs(spread).max()
        if unit > 0:
            spread /= unit
            variation = mean((spread - mean(spread, weight)) ** 2, weight)
            with np.errstate(over="ignore"):  # a prediction far away makes it -inf
                found.append(1.0 - mean(((answer - true) / unit) ** 2, weight) / variation)
    return float(np.mean(found)) if found else float("nan")


def mae(t: Any, predicted: Any, *, sample_weight: Any = None) -> float:
    r"""Return the mean absolute error, $\frac{1}{N} \sum_i |y_i - t_i|$.

    Of several outputs it is the mean over them. Parameters and errors are those of `r2`.

    Notes
    -----
    Source: Willmott and Matsuura, "Advantages of the mean absolute error (MAE) over the root mean
    square error (RMSE) in assessing average model performance", 2005.

    Examples
    --------
    >>> mae([1.0, 2.0, 3.0], [1.0, 2.0, 0.0])
    1.0
    """
    t, predicted, weight = values(t, predicted, sample_weight)
    return mean(np.abs(predicted - t).mean(axis=1), weight)


def rmse(t: Any, predicted: Any, *, sample_weight: Any = None) -> float:
    r"""Return the root of the mean square error, $\sqrt{\frac{1}{N} \sum_i (y_i - t_i)^2}$.

    Of several outputs it is the mean of their roots. Parameters and errors are those of `r2`; the
    source is that of `mae`.

    Examples
    --------
    >>> rmse([1.0, 2.0], [4.0, 6.0]) == 12.5**0.5
    True
    """
    t, predicted, weight = values(t, predicted, sample_weight)
    roots = []
    for errors in np.abs(predicted - t).T:
        unit = errors.max() or 1.0  # so that the squares neither overflow nor vanish
        roots.append(unit * mean((errors / unit) ** 2, weight) ** 0.5)
    return float(np.mean(roots))


def median_absolute_error(t: Any, predicted: Any) -> float:
    r"""Return the median of the absolute errors, $\mathrm{median}_i |y_i - t_i|$.

    A few large errors do not move it. Of several outputs it is the mean of their medians.
    Parameters and errors are those of `r2`; samples have no weights here.

    Notes
    -----
    Source: Hampel, "The influence curve and its role in robust estimation", 1974.

    Examples
    --------
    >>> median_absolute_error([1.0, 2.0, 3.0], [1.0, 2.5, 99.0])
    0.5
    """
    t, predicted, _ = values(t, predicted)
    return float(np.median(np.abs(predicted - t), axis=0).mean())
