"""Plot the scores of a sweep against its settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.show.plots.figure import (
    GREY,
    INK,
    SMALL,
    TEXT,
    TRAIN,
    VAL,
    dress,
    heading,
    new_figure,
    note_legend,
    said,
    save,
    short,
)

__all__ = ["Dot", "sweep", "sweep_figure"]

LIGHT = "#B5B5B5"
PANELS = 6  # settings with a panel each
COLUMNS = 3
TICKS = 12  # values with a label each
FAR = 4.0


@dataclass(frozen=True)
class Dot:
    """A model of a sweep.

    Attributes
    ----------
    settings : mapping
        Its values of what was swept, without the seed.
    score : float
        NaN if it failed.
    seed : int
    fold : int or None
    """

    settings: Mapping[str, Any]
    score: float
    seed: int = 0
    fold: int | None = None


def sweep(dots: Sequence[Dot], path: Path, **options: Any) -> None:
    """Draw `sweep_figure` into a file; the suffix says the format."""
    save(sweep_figure(dots, **options), path)


def sweep_figure(
    dots: Sequence[Dot],
    *,
    best: Mapping[str, Any],
    chosen: int | None = None,
    metric: str = "accuracy",
    part: str = "validation",
    title: str = "Sweep",
    falls: bool = False,
) -> Any:
    """Plot the score of every model against each setting, and the means through the best one.

    In the panel of a setting, the blue dots are the models whose other settings are those of the
    best; the line joins their means, and bars show a standard deviation. All others are grey. A
    sweep over seeds or folds alone has one panel. Up to six settings have a panel each.

    Parameters
    ----------
    dots : sequence of Dot
    best : mapping
        The best settings.
    chosen : int, optional
        The number of the model that was kept.
    metric : str
        What the scores are.
    part : str
        Where they were measured: validation or held-out.
    title : str
    falls : bool
        Whether a smaller score is better.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> dots = [Dot({"lr": lr}, 1 - lr, seed) for lr in (0.1, 0.01) for seed in (0, 1)]
    >>> [axes.get_xlabel() for axes in sweep_figure(dots, best={"lr": 0.01}).axes]
    ['lr']
    """
    names = [*best]
    shown = names[:PANELS] or ["fold" if dots[0].fold is not None else "seed"]
    columns = 2 if len(shown) == 4 else min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(max(6.4, 4.0 * columns), 3.6 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    limits = _limits(dots, falls)
    for axes, name in zip(grid.flat, shown, strict=False):
        dress(axes, name.replace("_", " "))
        _panel(axes, dots, name, best, chosen, limits)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel(f"{part} {said(metric)}", fontsize=TEXT, color=INK)
    failed = sum(math.isnan(dot.score) for dot in dots)
    count = f"{len(dots):,} models" + (f", {failed:,} failed" if failed else "")
    heading(figure, f"{title}: {count}")
    _legend(figure)
    return figure


def _over(dots: Sequence[Dot]) -> str:
    """Return what a deviation is over: seeds, folds, or both."""
    counts = (("seeds", len({d.seed for d in dots})), ("folds", len({d.fold for d in dots})))
    return " and ".join(words for words, count in counts if count > 1)


def _legend(figure: Any) -> None:
    lines: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        lines |= dict(zip(labels, handles, strict=True))
    columns = 4 if len(figure.axes) > 2 else 2
    note_legend(figure, handles=[*lines.values()], labels=[*lines], ncols=columns, frameon=False,
                loc="outside lower center")  # fmt: skip


def _limits(dots: Sequence[Dot], falls: bool) -> tuple[float, float]:
    """Return the range of the axis: a few bad models must not hide how the others differ.

    From the best score it goes four times as far as the median, if some models are still worse.
    """
    scores = np.array([dot.score for dot in dots])
    scores = scores[np.isfinite(scores)]
    if not scores.size:
        return 0.0, 1.0
    low, high = scores.min(), scores.max()
    ranked = np.sort(scores if falls else -scores)
    steps = (np.quantile(ranked, share) - ranked[0] for share in (0.5, 0.75, 0.9))
    step = next((step for step in steps if step > 0), 0.0)  # many may be equally good
    if falls and step:
        high = min(high, low + FAR * step)
    elif step:
        low = max(low, high - FAR * step)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    # Words about what is not in the picture stand at the bottom.
    words = any(not low <= dot.score <= high for dot in dots)
    return float(low - room * (2 if words else 1)), float(high + room)


def _panel(
    axes: Any,
    dots: Sequence[Dot],
    name: str,
    best: Mapping[str, Any],
    chosen: int | None,
    limits: tuple[float, float],
) -> None:
    def value_of(dot: Dot) -> Any:
        return dot.settings[name] if name in best else getattr(dot, name)

    values = _ordered([value_of(dot) for dot in dots])
    index = [values.index(value_of(dot)) for dot in dots]
    others = {other: value for other, value in best.items() if other != name}
    near = np.array([all(dot.settings[o] == v for o, v in others.items()) for dot in dots])
    scores = np.array([dot.score for dot in dots])
    places = np.where(near, _spread(index, near, 0.1), _spread(index, ~near, 0.26))
    for rows, color, label, layer in (
        (~near, LIGHT, "other models", 2),
        (near, TRAIN, "models that differ from the best in this alone" if others else "models", 3),
    ):
        if rows.any():
            axes.scatter(places[rows], scores[rows], s=16, color=color, alpha=0.6, linewidths=0,
                         label=label, zorder=layer)  # fmt: skip
    mean = f"mean ± standard deviation over {over}" if (over := _over(dots)) else "mean"
    if name in best:
        means = _means(axes, scores, near, index, len(values), mean)
    else:
        _band(axes, scores, mean)
    if chosen is None and name in best:
        place = values.index(best[name])
        axes.plot([place], [means.get(place, np.nan)], "o", color=VAL, markersize=7,
                  markeredgecolor="white", zorder=6, label="the best setting")  # fmt: skip
    elif chosen is not None:
        axes.plot([places[chosen]], [scores[chosen]], "o", color=VAL, markersize=7,
                  markeredgecolor="white", zorder=6, label="the run's model")  # fmt: skip
    _outside(axes, scores, index, limits)
    axes.set_ylim(*limits)
    axes.set_xlim(-0.5, len(values) - 0.5)
    every = -(-len(values) // TICKS)
    labels = {i: _label(values[i]) for i in range(0, len(values), every)}
    axes.set_xticks([*labels], [*labels.values()])
    for text in axes.get_xticklabels():
        text.set_parse_math(False)
    if sum(map(len, labels.values())) > 40:
        axes.tick_params(axis="x", rotation=30)


def _means(
    axes: Any, scores: np.ndarray, near: np.ndarray, index: Sequence[int], count: int, label: str
) -> dict[int, float]:
    """Join the means of the blue dots, by place; a bar shows a standard deviation."""
    means: dict[int, float] = {}
    deviations = []
    for place in range(count):
        own = scores[near & (np.array(index) == place)]
        own = own[np.isfinite(own)]
        if own.size:
            means[place] = float(own.mean())
            deviations.append(own.std(ddof=1) if own.size > 1 else 0.0)
    axes.errorbar([*means], [*means.values()], deviations, color=TRAIN, linewidth=1.4, capsize=3,
                  marker="_", markersize=11, markeredgewidth=2.0, zorder=4,
                  label=label)  # fmt: skip
    return means


def _band(axes: Any, scores: np.ndarray, label: str) -> None:
    """Show the mean of all models as a line, and a standard deviation around it."""
    own = scores[np.isfinite(scores)]
    if own.size:
        mean, deviation = own.mean(), own.std(ddof=1) if own.size > 1 else 0.0
        axes.axhspan(mean - deviation, mean + deviation, color=TRAIN, alpha=0.1, linewidth=0)
        axes.axhline(mean, color=TRAIN, linewidth=1.4, label=label)


def _outside(
    axes: Any, scores: np.ndarray, index: Sequence[int], limits: tuple[float, float]
) -> None:
    """Say how many models of each value are not in the picture."""
    for place in {*index}:
        own = scores[np.array(index) == place]
        counts = {
            "failed": np.isnan(own).sum(),
            "below": (own < limits[0]).sum(),
            "above": (own > limits[1]).sum(),
        }
        if words := [f"{count} {what}" for what, count in counts.items() if count]:
            top = bool(counts["above"])
            axes.annotate(", ".join(words), (place, 1 if top else 0), fontsize=SMALL, color=GREY,
                          xycoords=("data", "axes fraction"), xytext=(0, -12 if top else 4),
                          textcoords="offset points", ha="center", zorder=7,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0,
                                "alpha": 0.8})  # fmt: skip


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Each value once: numbers rise, others stay as they were given."""
    found = list(dict.fromkeys(values))
    if all(isinstance(value, int | float) for value in found):
        found.sort()
    return found


def _spread(index: Sequence[int], rows: np.ndarray, width: float) -> np.ndarray:
    """Move the dots of these rows that have one place apart, alike in every picture."""
    places = np.array(index)
    found = places.astype(np.float64)
    for place in {*index}:
        own = np.flatnonzero((places == place) & rows)
        if len(own) > 1:
            found[own] += width * np.linspace(-1, 1, len(own))
    return found


def _label(value: Any) -> str:
    if isinstance(value, list | tuple):
        return short(",".join(map(str, value)) or "none", 16)
    return f"{value:g}" if isinstance(value, float) else short(str(value).lower(), 16)
