"""Plot what a network has learned: its first weights, and the outputs of its hidden units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.show.plots.figure import (
    GREY,
    INK,
    SIGNED,
    SMALL,
    TEXT,
    TRAIN,
    VAL,
    caption,
    color_bar,
    dress,
    dress_ticks,
    heading,
    new_figure,
    save,
    short,
)
from xpnet.show.plots.images import grid, in_colour

__all__ = ["SAMPLES", "activations", "weights"]

SAMPLES = 2000  # about how many samples the histograms show
UNITS = 64  # at most so many units are shown
BINS = 50
# The range of a bounded activation, and where it is saturated: within a twentieth of either end.
BOUNDED = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
SATURATED = {"sigmoid": (0.05, 0.95), "tanh": (-0.9, 0.9)}
ZEROS = 0.01  # with a larger share of zeros, these are a number and not a bar
STEEP = 20.0  # a bar so many times as high as the middle one hides the others


# -- Weights ---------------------------------------------------------------------------


def weights(W: np.ndarray, path: Path, data: Dataset) -> int:
    """Plot the first layer's weights: one image per unit, or one column if x is not images.

    Weights of colour images are shown in colour: 0 is the middle grey, and a pixel that is more
    red means a larger weight of its red.

    Parameters
    ----------
    W : array, shape=(D, M)
    path : path
    data : Dataset
        Says whether the rows of x are images, and gives the features' names.

    Returns
    -------
    int
        Number of units shown: at most 64, those with the largest weights. It is 0, and nothing is
        drawn, if the rows are not images and D exceeds 64.
    """
    units = np.sort(np.argsort(-np.abs(W).max(axis=0), kind="stable")[:UNITS])
    count = (
        f"{len(units)} of {W.shape[1]:,} units"
        if len(units) < W.shape[1]
        else (f"{len(units)} units")
    )
    title = f"Weights of the first layer: {count}"
    if data.image_shape is None:
        return _columns(W[:, units], units, path, data.columns, title)
    figure, panels = grid(len(units), 1.36)
    images = in_colour(W[:, units].T, data.image_shape)
    least = 1e-2 * np.abs(images).max() or 1.0  # weights that have decayed to nothing look like it
    for axes, unit, image in zip(panels, units, images, strict=False):
        largest = max(np.abs(image).max(), least)
        if image.ndim == 3:
            axes.imshow(0.5 + 0.5 * image / largest)
        else:
            axes.imshow(image, cmap=SIGNED, vmin=-largest, vmax=largest)
        axes.set_title(f"{unit}:  ±{np.abs(image).max():.2g}", fontsize=SMALL, color=INK)
    heading(figure, f"{title}{', as colours: 0 is mid grey' if images.ndim == 4 else ''}")
    signs = (
        "more red, green or blue than grey is positive, less is negative"
        if images.ndim == 4
        else "red is positive, blue negative"
    )
    caption(figure, f"Each image: the weights of a unit; {signs}. Above it: the unit's number and "
            "largest weight")  # fmt: skip
    save(figure, path)
    return len(units)


def _columns(
    W: np.ndarray, units: np.ndarray, path: Path, names: tuple[str, ...], title: str
) -> int:
    if len(W) > UNITS:
        return 0
    figure = new_figure(max(4.0 + 0.16 * len(units), 6.0), 1.8 + 0.22 * len(W))
    axes = figure.subplots()
    largest = np.abs(W).max() or 1.0
    image = axes.imshow(W, cmap=SIGNED, vmin=-largest, vmax=largest, aspect="auto")
    labels = [short(name) for name in names]
    if len(labels) != len(W):
        labels = [str(i) for i in range(len(W))]
    dress(axes, "unit", "feature", grid=False)
    axes.set_yticks(range(len(W)), labels, fontsize=SMALL, parse_math=False)
    marks = np.arange(0, len(units), max(1, len(units) // 10))
    axes.set_xticks(marks, [str(units[i]) for i in marks], fontsize=SMALL)
    heading(figure, title)
    color_bar(figure, image, "weight")
    save(figure, path)
    return len(units)


# -- Activations -----------------------------------------------------------------------


def activations(hidden: dict[str, np.ndarray], kinds: Sequence[str], path: Path) -> None:
    """Plot a histogram of each hidden layer's outputs.

    Zeros, of which ReLU makes many, are a number and not a bar, which would hide the others. A unit
    whose outputs are all zero is dead; its share is a number too. Of sigmoid and tanh, the ends are
    shaded where a unit is saturated, and learns slowly.

    Parameters
    ----------
    hidden : dict of str to array, shape=(N, units)
        Outputs of the hidden layers for N samples.
    kinds : sequence of str
        Names of their activations: sigmoid, tanh, relu ...
    path : path
    """
    columns = min(4, len(hidden))
    rows = math.ceil(len(hidden) / columns)
    figure = new_figure(max(3.8 * columns, 5.0), 3.2 * rows + 0.6)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[len(hidden) :]:
        axes.axis("off")
    for i, (axes, y) in enumerate(zip(panels, hidden.values(), strict=False)):
        _histogram(axes, np.asarray(y, np.float64), kinds[i], f"layer {i + 1}")
    count = len(next(iter(hidden.values())))
    heading(figure, f"Outputs of the hidden units, {count:,} test samples")
    if any(kind in SATURATED for kind in kinds):
        caption(figure, "Shaded: saturated, where a unit hardly learns")
    save(figure, path)


def _histogram(axes: Any, y: np.ndarray, kind: str, name: str) -> None:
    zero = y == 0
    apart = zero.mean() > ZEROS and kind not in BOUNDED
    values = y[~zero] if apart else y.ravel()
    title = f"{name}: {y.shape[1]:,} {kind}\n{remark(y, kind)}"
    dress(axes, f"output of a unit{', if not zero' if apart else ''}", "% of all outputs", title)
    if not len(values):
        axes.text(0.5, 0.5, "all outputs are zero", transform=axes.transAxes, ha="center",
                  fontsize=TEXT, color=GREY)  # fmt: skip
        return
    low, high = BOUNDED.get(kind) or _range(values)
    inside = values[(values >= low) & (values <= high)]
    heights, _, _ = axes.hist(inside, bins=BINS, range=(low, high), color=TRAIN,
                              weights=np.full(len(inside), 100.0 / y.size))  # fmt: skip
    if outside := len(values) - len(inside):
        axes.xaxis.label.set_text(
            f"{axes.get_xlabel()} ({100 * outside / y.size:.2g} % lie beyond)"
        )
    if heights.max() > STEEP * np.median(heights[heights > 0]):
        axes.set_yscale("log")
        axes.yaxis.label.set_text("% of all outputs, log")
        dress_ticks(axes)
    if kind in SATURATED:
        below, above = SATURATED[kind]
        for ends in ((low, below), (above, high)):
            axes.axvspan(*ends, color=VAL, alpha=0.2, linewidth=0, zorder=0)
        axes.set_xlim(low, high)
        axes.xaxis.get_major_locator().set_params(nbins=4)


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return the range of the values; without their thousandth farthest out, if these are far."""
    low, high = float(values.min()), float(values.max())
    inner = np.quantile(values, [0.0005, 0.9995])
    if high - low > 2 * (inner[1] - inner[0]) > 0:
        low, high = float(inner[0]), float(inner[1])
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def remark(y: np.ndarray, kind: str) -> str:
    """Summarize a layer's outputs: how many are saturated or zero, else mean and deviation.

    Parameters
    ----------
    y : array, shape=(N, units)
    kind : str
        The name of the activation.

    Examples
    --------
    >>> remark(np.array([[0.0, 2.0], [0.0, 0.0]]), "relu")
    'zero: 75 %; dead units: 1 (50 %)'
    """
    if kind in SATURATED:
        low, high = SATURATED[kind]
        saturated = (y < low) | (y > high)
        return f"saturated: {_percent(saturated)}; units always: {_units(saturated)}"
    if kind == "relu":
        return f"zero: {_percent(y == 0)}; dead units: {_units(y == 0)}"
    return f"mean {y.mean():.3g}, deviation {y.std():.3g}"


def _units(marked: np.ndarray) -> str:
    """How many units are marked on every sample: 3 (6 %)."""
    always = marked.all(axis=0)
    return f"{np.count_nonzero(always)} ({_percent(always)})"


def _percent(marked: Any) -> str:
    percent = 100 * marked.mean()
    return f"{percent:.2g} %" if percent < 1 else f"{percent:.0f} %"
