"""Plot what a network has learned: its first weights or filters, and the outputs of its layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.errors import counted
from xpnet.models.evaluation import units_last
from xpnet.show.plots.figure import (
    GREY,
    INK,
    LIGHT,
    SHADES,
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
from xpnet.show.plots.images import COLUMNS, greys, grid, in_colour, visible

__all__ = ["SAMPLES", "activations", "feature_maps", "weights"]

SAMPLES = 2000  # about how many samples the histograms show
UNITS = 64  # at most so many units are shown
BINS = 50
# The range of a bounded activation, and where it is saturated: within a twentieth of either end.
BOUNDED = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
SATURATED = {"sigmoid": (0.05, 0.95), "tanh": (-0.9, 0.9)}
ZEROS = 0.01  # with a larger share of zeros, these are a number and not a bar
LAYERS = 6  # at most so many layers of feature maps are shown
STEEP = 20.0  # a bar so many times as high as the middle one hides the others


# -- Weights ---------------------------------------------------------------------------


def weights(W: np.ndarray, path: Path, data: Dataset | None = None) -> int:
    """Plot the first layer's weights: one image per unit, or one column if x is not images.

    Of a convolution, one image per filter. Weights for three colours are shown in colour: 0 is the
    middle grey, and a pixel that is more red means a larger weight of its red.

    Parameters
    ----------
    W : array, shape=(D, M) or (F, C, KH, KW)
    path : path
    data : Dataset, optional
        Says whether the rows of x are images, and gives the features' names. Filters need none.

    Returns
    -------
    int
        Number of units or filters shown: at most 64, those with the largest weights. It is 0, and
        nothing is drawn, if the rows are not images and D exceeds 64.
    """
    if W.ndim == 4:
        return _filters(W, path)
    units = _largest(np.abs(W).max(axis=0))
    title = f"Weights of the first layer: {_some(len(units), W.shape[1], 'unit')}"
    if data is None or data.image_shape is None:
        return _columns(W[:, units], units, path, () if data is None else data.columns, title)
    _pictures(in_colour(W[:, units].T, data.image_shape), units, path, title, "unit")
    return len(units)


def _filters(W: np.ndarray, path: Path) -> int:
    """Plot filters as images, of three channels in colour, else the first channel."""
    filters = _largest(np.abs(W).reshape(len(W), -1).max(axis=1))
    channels, height, width = W.shape[1:]
    size = f"{height} x {width}"
    title = f"Filters of the first layer: {_some(len(filters), len(W), 'filter')} of {size}"
    if height * width == 1:
        names = tuple(f"channel {i}" for i in range(channels))
        return _columns(W[filters, :, 0, 0].T, filters, path, names, title, "filter")
    if channels == 3:
        images = np.moveaxis(W[filters], 1, -1)
    else:
        images = W[filters, 0]
        title += f", channel 0 of {channels}" if channels > 1 else ""
    _pictures(images, filters, path, title, "filter")
    return len(filters)


def _largest(sizes: np.ndarray) -> np.ndarray:
    """Return which units to show: at most 64, those of the largest size, in their order."""
    return np.sort(np.argsort(-sizes, kind="stable")[:UNITS])


def _some(shown: int, of: int, what: str) -> str:
    return f"{shown} of {of:,} {what}s" if shown < of else counted(shown, what)


def _pictures(images: np.ndarray, units: np.ndarray, path: Path, title: str, what: str) -> None:
    """Draw the weights of each unit as an image, shape=(units, H, W) or (units, H, W, 3)."""
    figure, panels = grid(len(units), 1.36)
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
    caption(figure, f"Each image: the weights of a {what}; {signs}. Above it: the {what}'s number "
            "and largest weight")  # fmt: skip
    save(figure, path)


def _columns(
    W: np.ndarray,
    units: np.ndarray,
    path: Path,
    names: tuple[str, ...],
    title: str,
    what: str = "unit",
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
    dress(axes, what, "feature" if what == "unit" else "", grid=False)
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
    hidden : dict of str to array, shape=(N, units) or (N, channels, H, W)
        Outputs of the hidden layers for N samples. The units of a convolution are its channels.
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
        last = units_last(y)
        units = last.reshape(-1, last.shape[-1]).astype(np.float64)
        many = counted(units.shape[1], f"{kinds[i]} channel")
        title = f"layer {i + 1}: {many if y.ndim == 4 else f'{units.shape[1]:,} {kinds[i]}'}"
        _histogram(axes, units, kinds[i], title)
    count = len(next(iter(hidden.values())))
    heading(figure, f"Outputs of the hidden units, {count:,} test samples")
    if any(kind in SATURATED for kind in kinds):
        caption(figure, "Shaded: saturated, where a unit hardly learns")
    save(figure, path)


def _histogram(axes: Any, y: np.ndarray, kind: str, title: str) -> None:
    zero = y == 0
    apart = zero.mean() > ZEROS and kind not in BOUNDED
    values = y[~zero] if apart else y.ravel()
    dress(axes, f"output of a unit{', if not zero' if apart else ''}", "% of all outputs",
          f"{title}\n{remark(y, kind)}")  # fmt: skip
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


# -- Feature maps ----------------------------------------------------------------------


def feature_maps(
    sample: np.ndarray, hidden: dict[str, np.ndarray], path: Path, names: str = ""
) -> int:
    """Plot what the convolutions make of one image: each layer's channels as images.

    Parameters
    ----------
    sample : array, shape=(H, W) or (H, W, 3)
    hidden : dict of str to array, shape=(1, ...)
        Outputs of the hidden layers for this sample, see `xpnet.Model.hidden`; those that are
        images are drawn.
    path : path
    names : str
        What the sample is, for the title.

    Returns
    -------
    int
        Number of layers shown: at most 6, the first and the last ones among them. If it is 0,
        nothing is drawn.
    """
    layers = [(i, y[0]) for i, y in enumerate(hidden.values(), 1) if y.ndim == 4]
    chosen = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), LAYERS)).round())
    layers = [layers[int(i)] for i in chosen]
    if not layers:
        return 0
    columns = min(COLUMNS, max(len(maps) for _, maps in layers))
    figure = new_figure(max(1.12 * columns + 2.4, 5.0), 1.34 * len(layers) + 0.9)
    places = figure.add_gridspec(len(layers), columns + 1, width_ratios=[1.7, *[1] * columns])
    axes = figure.add_subplot(places[:, 0])
    images = visible(sample[None])
    axes.imshow(images[0], cmap=greys(images), vmin=0, vmax=1)
    _frame(axes, "the sample")
    for row, (number, maps) in enumerate(layers):
        height, width = maps.shape[1:]
        label = f"layer {number}\n{height} x {width}"
        strongest = np.sort(np.argsort(-np.abs(maps).max(axis=(1, 2)), kind="stable")[:columns])
        for column, channel in enumerate(strongest, 1):
            axes = figure.add_subplot(places[row, column])
            _map(axes, np.asarray(maps[channel], np.float64), f"{channel}")
            if column == 1:
                axes.set_ylabel(label, fontsize=SMALL, color=INK)
    heading(figure, f"What the filters find in one sample{names and ': '}{names}")
    caption(figure, "Each image: what a filter of this layer gives, place by place, after the "
            "activation; white is 0. Above it: the filter's number and largest value")  # fmt: skip
    save(figure, path)
    return len(layers)


def _map(axes: Any, values: np.ndarray, name: str) -> None:
    """Draw what a filter gives; from white, which is 0, to the largest value."""
    most = np.abs(values).max() or 1.0
    signed = values.min() < 0
    axes.imshow(values, cmap=SIGNED if signed else SHADES, vmin=-most if signed else 0, vmax=most)
    _frame(axes, f"{name}:  {np.abs(values).max():.2g}")


def _frame(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=SMALL, color=INK)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(LIGHT)
