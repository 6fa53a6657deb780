"""Plot what a network has learned: its first weights, and the outputs of its hidden units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.show.plots.figure import new_figure

__all__ = ["SAMPLES", "activations", "weights"]

SAMPLES = 2000  # about how many samples the histograms show
UNITS = 64  # at most so many units are shown
BAR = "#1f77b4"
# A bounded activation is saturated within a twentieth of its range from either end.
SATURATED = {"sigmoid": (0.05, 0.95), "tanh": (-0.9, 0.9)}


def weights(W: np.ndarray, path: Path, data: Dataset) -> int:
    """Plot the first layer's weights: one image per unit, or one column if x is not images.

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
    shown = np.sort(np.argsort(-np.abs(W).max(axis=0), kind="stable")[:UNITS])
    title = f"weights of the first layer: {len(shown)} of {W.shape[1]} units"
    if data.image_shape is None:
        return _columns(W[:, shown], shown, path, data.columns, title)
    columns = min(10, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = new_figure(max(1.1 * columns + 0.3, 7.0), 1.3 * rows + 0.7)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, unit in zip(panels, shown, strict=False):
        largest = np.abs(W[:, unit]).max()
        image = W[:, unit].reshape(data.image_shape)
        axes.imshow(image, cmap="RdBu_r", vmin=-(largest or 1), vmax=largest or 1)
        axes.set_title(f"{unit}  ±{largest:.2g}", fontsize=8)
    for axes in figure.axes:
        axes.axis("off")
    figure.suptitle(f"{title} (red positive, blue negative; ± its largest)", fontsize=10)
    figure.savefig(path, dpi=120)
    return len(shown)


def _columns(
    W: np.ndarray, units: np.ndarray, path: Path, names: tuple[str, ...], title: str
) -> int:
    if len(W) > UNITS:
        return 0
    figure = new_figure(max(4.0 + 0.16 * len(units), 6.0), 1.8 + 0.22 * len(W))
    axes = figure.subplots()
    largest = np.abs(W).max() or 1.0
    image = axes.imshow(W, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto")
    labels = [name if len(name) <= 24 else f"{name[:23]}…" for name in names]
    if len(labels) != len(W):
        labels = [str(i) for i in range(len(W))]
    axes.set_yticks(range(len(W)), labels, fontsize=8, parse_math=False)
    marks = np.arange(0, len(units), max(1, len(units) // 10))
    axes.set_xticks(marks, [str(units[i]) for i in marks], fontsize=8)
    axes.set_xlabel("unit")
    axes.set_ylabel("feature")
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, label="weight")
    figure.savefig(path, dpi=120)
    return len(units)


def activations(hidden: dict[str, np.ndarray], kinds: Sequence[str], path: Path) -> None:
    """Plot a histogram of each hidden layer's outputs, with its share of saturated or zero outputs.

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
    figure = new_figure(max(3.6 * columns, 4.5), 3.0 * rows + 0.4)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[len(hidden) :]:
        axes.axis("off")
    for i, (axes, y) in enumerate(zip(panels, hidden.values(), strict=False)):
        axes.hist(y.ravel(), bins=50, color=BAR, weights=np.full(y.size, 100.0 / y.size))
        axes.set_title(
            f"layer {i + 1}: {y.shape[1]} {kinds[i]}\n{_remark(y, kinds[i])}", fontsize=9
        )
        axes.set_xlabel("output of a unit")
        axes.set_ylabel("% of outputs")
        axes.grid(alpha=0.3)
    count = len(next(iter(hidden.values())))
    figure.suptitle(f"hidden layers on {count:,} test samples", fontsize=10)
    figure.savefig(path, dpi=120)


def _remark(y: np.ndarray, kind: str) -> str:
    """Summarize a layer's outputs: how many are saturated or zero, else mean and deviation."""
    if kind in SATURATED:
        low, high = SATURATED[kind]
        return f"saturated (below {low} or above {high}): {((y < low) | (y > high)).mean():.0%}"
    if kind == "relu":
        return f"zero: {(y == 0).mean():.0%}, units always zero: {(y == 0).all(axis=0).sum()}"
    return f"mean {y.mean():.3g}, deviation {y.std():.3g}"
