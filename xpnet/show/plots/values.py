"""Plot how good the values of a regression are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet import metrics
from xpnet.show.plots.figure import (
    GREY,
    MANY,
    SHADES,
    TRAIN,
    caption,
    dress,
    heading,
    new_figure,
    number,
    save,
    short,
)

__all__ = ["predictions", "residuals"]

TARGETS = 6  # so many targets have a panel each
COLUMNS = 3


def predictions(
    t: np.ndarray,
    predicted: np.ndarray,
    path: Path,
    *,
    name: str = "test",
    targets: Sequence[str] = (),
) -> None:
    """Plot predicted against true values of a regression, one panel per target, at most 6.

    Points of a perfect prediction lie on the diagonal. Of more than 5,000 samples, shades show how
    many there are at each place.

    Parameters
    ----------
    t, predicted : array, shape=(N,) or (N, outputs)
    path : path
    name : str
        What the samples are, for the title.
    targets : sequence of str, optional
        Names of the targets.
    """
    pairs = [*_by_target(t, predicted, targets)]
    columns = min(COLUMNS, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    figure = new_figure(max(4.1 * columns, 5.0), 4.2 * rows + 0.5)
    panels = [*figure.subplots(rows, columns, squeeze=False).flat]
    for axes in panels[len(pairs) :]:
        axes.axis("off")
    for axes, (target, true, found) in zip(panels, pairs, strict=False):
        low, high = min(true.min(), found.min()), max(true.max(), found.max())
        margin = 0.03 * (high - low) or 1.0
        low, high = low - margin, high + margin
        _points(axes, true, found, (low, high, low, high))
        axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle="--")
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal")
        scores = metrics.regression_scores(true, found)
        words = f"R² {number(scores['r2'])}, RMSE {number(scores['rmse'])}"
        dress(axes, "true", "predicted", f"{target}: {words}" if target else words)
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_major_locator().set_params(nbins=5)  # so that large numbers do not meet
    heading(figure, f"Predicted against true values, {len(t):,} {name} samples{_left_out(t)}")
    caption(figure, "Dashed: a perfect prediction" + _darker(t))
    save(figure, path)


def residuals(
    t: np.ndarray,
    predicted: np.ndarray,
    path: Path,
    *,
    name: str = "test",
    targets: Sequence[str] = (),
) -> None:
    """Plot what is left of each target after the prediction, in the targets' units.

    One row per target, at most 6: residuals against predictions, and their histogram. Parameters
    are those of `predictions`.
    """
    pairs = [*_by_target(t, predicted, targets)]
    figure = new_figure(8.5, 3.6 * len(pairs) + 0.5)
    panels = figure.subplots(len(pairs), 2, sharey="row", squeeze=False, width_ratios=[3, 1])
    for (left, right), (target, true, found) in zip(panels, pairs, strict=True):
        rest = true - found
        varies = np.ptp(rest) > 1e-9 * np.abs(rest).max()  # else there are no bins
        ends = [min(rest.min(), 0.0), max(rest.max(), 0.0)]
        margin = 0.04 * (ends[1] - ends[0]) or 1.0
        wide = 0.03 * np.ptp(found) or 1.0
        _points(left, found, rest, (
            found.min() - wide, found.max() + wide, ends[0] - margin, ends[1] + margin
        ), (64, 18))  # fmt: skip
        right.hist(rest, bins=40 if varies else 1, orientation="horizontal", color=TRAIN)
        scores = metrics.regression_scores(true, found)
        words = f"MAE {number(scores['mae'])}, RMSE {number(scores['rmse'])}"
        dress(left, "predicted", "residual: true - predicted",
              f"{target}: {words}" if target else words)  # fmt: skip
        dress(right, "samples")
        for axes in (left, right):
            axes.axhline(0.0, color=GREY, linewidth=1, linestyle="--")
        right.xaxis.get_major_locator().set_params(integer=True, nbins=3)
    heading(figure, f"Residuals, {len(t):,} {name} samples{_left_out(t)}")
    caption(figure, "Above the dashed line the prediction is too low, below it too high"
            + _darker(t))  # fmt: skip
    save(figure, path)


def _by_target(
    t: np.ndarray, predicted: np.ndarray, targets: Sequence[str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, true and predicted values; a target alone needs no name."""
    t, predicted = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (t, predicted))
    for j in range(min(t.shape[1], TARGETS)):
        alone = "" if t.shape[1] == 1 else f"target {j}"
        yield short(targets[j]) if j < len(targets) else alone, t[:, j], predicted[:, j]


def _points(
    axes: Any,
    x: np.ndarray,
    y: np.ndarray,
    extent: tuple[float, ...],
    cells: tuple[int, int] = (50, 29),
) -> None:
    """Draw dots; of many samples, shades of how many there are at each place."""
    if len(x) > MANY:
        # The palest shade must differ from the paper, so the shades begin below one sample.
        axes.hexbin(x, y, gridsize=cells, extent=extent, bins="log", mincnt=1, vmin=0.2,
                    cmap=SHADES, linewidths=0.1)  # fmt: skip
    else:
        axes.plot(x, y, "o", color=TRAIN, markersize=4, alpha=0.5, markeredgewidth=0)


def _darker(t: np.ndarray) -> str:
    return "; the darker, the more samples (log scale)" if len(t) > MANY else ""


def _left_out(t: np.ndarray) -> str:
    outputs = t.size // max(len(t), 1)
    return f" (the first {TARGETS} of {outputs} targets)" if outputs > TARGETS else ""
