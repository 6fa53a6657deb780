"""Plot the learning curves of several runs into one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xpnet.show.plots.figure import (
    COLORS,
    dress,
    heading,
    new_figure,
    note_legend,
    said,
    save,
    style_of,
)

__all__ = ["MOST", "Curve", "compared"]

MOST = 2 * len(COLORS)  # solid lines, then dashed ones


@dataclass(frozen=True)
class Curve:
    """The curves of one run: a number per epoch, None where it has none.

    Attributes
    ----------
    label : str
        What the legend calls the run.
    epochs : sequence of int
    loss, score : sequence of (float or None)
        As long as `epochs`.
    best : int or None
        The epoch with the smallest validation loss, which gets a dot.
    """

    label: str
    epochs: Sequence[int]
    loss: Sequence[float | None]
    score: Sequence[float | None]
    best: int | None = None


def compared(curves: Sequence[Curve], path: Path, metric: str, title: str) -> None:
    """Plot loss and score of up to 10 runs against the epoch, with one legend at the right.

    Parameters
    ----------
    curves : sequence of Curve
    path : path
        Where to write; the suffix says the format.
    metric : str
        What the score is: accuracy or r2.
    title : str

    Raises
    ------
    ValueError
        There are more curves than styles that can be told apart.
    """
    if len(curves) > MOST:
        raise ValueError(f"got {len(curves)} curves, expected at most {MOST}")
    figure = new_figure(11, 4.2)
    left, right = figure.subplots(1, 2)
    for axes, name in ((left, "loss"), (right, "score")):
        for i, curve in enumerate(curves):
            line = style_of(i)
            values = np.array([np.nan if v is None else v for v in getattr(curve, name)], float)
            axes.plot(curve.epochs, values, label=curve.label,
                      marker="o" if len(values) == 1 else None, **line)  # fmt: skip
            best = [j for j, epoch in enumerate(curve.epochs) if epoch == curve.best]
            axes.plot([curve.best] * len(best), values[best], "o", color=line["color"],
                      markersize=6, markeredgecolor="white", zorder=5)  # fmt: skip
        dress(axes, "epoch", said(metric) if name == "score" else name)
        axes.set_xlim(left=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
    losses = [v for curve in curves for v in curve.loss if v is not None]
    if losses and min(losses) > 0 and max(losses) / min(losses) > 20:
        left.set_yscale("log")
    handles, labels = left.get_legend_handles_labels()
    note_legend(figure, handles=handles, labels=labels, loc="outside center right", handlelength=3)
    heading(figure, title)
    save(figure, path)
