"""Plot the learning curves of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xpnet.errors import UsageError
from xpnet.show.plots.figure import (
    GREY,
    TRAIN,
    VAL,
    dress,
    dress_ticks,
    heading,
    new_figure,
    note_legend,
    said,
    save,
)
from xpnet.trainer.history import History

__all__ = ["curves", "curves_figure"]

MARKED = 50  # up to so many epochs have a dot each
SPAN = 20.0  # losses that differ by more have a log axis
LOWEST_R2 = -1.0  # R² has no lower end, and the first epochs would hide the others


def curves(history: History, path: Path, metric: str = "accuracy", *, title: str = "") -> None:
    """Draw `curves_figure` into a file; the suffix says the format."""
    save(curves_figure(history, metric, title=title), path)


def curves_figure(history: History, metric: str = "accuracy", *, title: str = "") -> Any:
    """Plot loss and score against the epoch, with validation where the run has it.

    The loss of every step is a thin line. A dotted line marks the best epoch, which the loss on
    the validation part decides, or the metric that the run watched; that one has a panel then.

    Parameters
    ----------
    history : History
    metric : str
        What `train_score` and `val_score` are: accuracy or r2.
    title : str
        What was trained.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    UsageError
        No epoch is finished.

    Examples
    --------
    >>> from xpnet.trainer.history import Epoch, History
    >>> history = History(epochs=[Epoch(1, 10, 0.7, 0.8, 0.6, 0.9, 1.0, 100.0)], best_epoch=1)
    >>> [axes.get_title() for axes in curves_figure(history).axes]
    ['validation 0.6 in epoch 1', 'validation 0.9 in epoch 1']
    """
    if not history.epochs:
        raise UsageError("the history has no finished epoch, expected 1 or more; train longer")
    panels = [("loss", "loss"), ("score", metric)]
    if history.metric and history.metric != metric:
        panels.append(("metric", history.metric))
    panels = [panel for panel in panels if any(_values(history, panel[0]).values())]
    figure = new_figure(max(5.2, 4.6 * len(panels)), 4.0)
    for axes, (column, name) in zip(
        figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True
    ):
        _panel(axes, history, column, name)
    counts = ((len(history.epochs), "epoch"), (history.steps, "step"))
    trained = ", ".join(f"{n:,} {what}{'s' * (n > 1)}" for n, what in counts)
    heading(figure, f"{title or 'Learning curves'}: {trained}")
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    lines = {label: line for label, line in lines.items() if not label.startswith("_")}
    note_legend(figure, handles=[*lines.values()], labels=[*lines], ncols=4, frameon=False,
                loc="outside lower center")  # fmt: skip
    return figure


def _values(history: History, column: str) -> dict[str, list[float | None]]:
    """The numbers of each part; a part without any is left out. Only validation has a metric."""
    parts = ("val",) if column == "metric" else ("train", "val")
    found = {part: history.column(f"{part}_{column}") for part in parts}
    return {p: v for p, v in found.items() if any(x is not None for x in v)}


def _panel(axes: Any, history: History, column: str, name: str) -> None:
    parts = {p: np.array(v, np.float64) for p, v in _values(history, column).items()}
    epochs = np.array(history.column("epoch"), np.float64)
    if column == "loss" and len(history.losses) > len(epochs):
        steps = history.loss_steps / (history.steps / len(epochs))
        axes.plot(steps, history.losses, color=TRAIN, alpha=0.3, linewidth=0.6,
                  label="train, each step")  # fmt: skip
    for part, values in parts.items():
        # The training loss is the epoch's mean, so it belongs to the epoch's middle.
        places = epochs - 0.5 if (part, column) == ("train", "loss") else epochs
        label = {"train": "train", "val": "validation"}[part]
        color = TRAIN if part == "train" else VAL
        dots = _dots(values)
        axes.plot(places, values, color=color, marker="o" if dots else "", linewidth=1.5,
                  markersize=3, markevery=dots, label=label)  # fmt: skip
    axes.set_xlim(0, max(epochs) + max(0.5, 0.02 * max(epochs)))
    what = "val" if "val" in parts else "train"
    best = history.best_epoch if what == "val" else 0
    if best:
        axes.axvline(best, color=GREY, linestyle=":", linewidth=1.2,
                     label=f"best epoch, by {said(history.metric or 'loss')}")  # fmt: skip
        axes.plot([best], parts["val"][[best - 1]], "o", color=VAL, markersize=7,
                  markeredgecolor="white", zorder=5, label="_best")  # fmt: skip
    value = parts[what][(best or len(epochs)) - 1]
    shown = f"{value:.4g}" if np.isfinite(value) else "not finite"
    title = f"{'validation' if what == 'val' else 'train'} {shown} in epoch {best or len(epochs)}"
    dress(axes, "epoch", said(name), title)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if column == "loss":
        _loss_axis(axes, parts, np.array(history.losses))
    elif name == "r2" and min(map(np.nanmin, parts.values())) < LOWEST_R2 < value:
        axes.set_ylim(LOWEST_R2, max(map(np.nanmax, parts.values())) + 0.05)
        axes.yaxis.label.set_text(f"R² (the axis begins at {LOWEST_R2:g})")


def _dots(values: np.ndarray) -> list[int]:
    """Which values get a dot: of many, those alone between gaps, which have no line."""
    if len(values) <= MARKED:
        return [*range(len(values))]
    there = np.concatenate([[False], np.isfinite(values), [False]])
    return np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:]).tolist()


def _loss_axis(axes: Any, parts: dict[str, np.ndarray], steps: np.ndarray) -> None:
    """Make it logarithmic if the losses span much; noise of single steps may leave it."""
    means = np.concatenate([*parts.values()])
    means = means[np.isfinite(means)]
    if len(means) and means.min() > 0:
        every = np.concatenate([means, steps[np.isfinite(steps) & (steps > 0)]])
        if every.max() / means.min() > SPAN:
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.8 * max(every.min(), means.min() / 10))
            dress_ticks(axes)
