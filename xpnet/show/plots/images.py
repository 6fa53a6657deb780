"""Plot images: the worst mistakes, and what all pictures of images share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.show.plots.figure import INK, SMALL, caption, heading, new_figure, save, short

__all__ = ["COLUMNS", "greys", "grid", "in_colour", "mistakes", "visible"]

COLUMNS = 10


def in_colour(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return rows of values as images, shape=(N, H, W) or (N, H, W, 3): channels last.

    Parameters
    ----------
    values : array, shape=(N, ...)
    shape : (H, W), (H, W, 3) or (3, H, W)
        As in `xpnet.data.dataset.Dataset.image_shape`.

    Examples
    --------
    >>> in_colour(np.zeros((5, 48)), (3, 4, 4)).shape
    (5, 4, 4, 3)
    """
    images = values.reshape(len(values), *shape)
    return np.moveaxis(images, 1, -1) if len(shape) == 3 and shape[0] == 3 else images


def grid(count: int, height: float) -> tuple[Any, list[Any]]:
    """Make a figure with `count` empty panels, up to 10 in a row, each `height` inches high."""
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = new_figure(max(1.12 * columns + 0.3, 5.0), height * rows + 0.9)
    panels = [*figure.subplots(rows, columns, squeeze=False).flat]
    for axes in panels:
        axes.axis("off")
    return figure, panels


def mistakes(
    data: Dataset, scores: np.ndarray, predicted: np.ndarray, path: Path, most: int = 30
) -> int:
    """Plot the worst mistakes: the wrongly classified images with the largest margin.

    The margin is the predicted class's score minus the true class's score.

    Parameters
    ----------
    data : Dataset
    scores : array, shape=(N, C)
        C is 1 for two classes with one score.
    predicted : integer array, shape=(N,)
    path : path
    most : int
        Show at most this many images.

    Returns
    -------
    int
        Number of images shown; if it is 0, nothing is drawn.
    """
    wrong = np.flatnonzero(predicted != data.t)
    if not len(wrong) or data.image_shape is None or data.classes is None:
        return 0
    if scores.shape[1] == 1:
        margin = np.abs(scores[wrong, 0])
    else:
        margin = scores[wrong, predicted[wrong]] - scores[wrong, data.t[wrong]]
    worst = wrong[np.argsort(-margin, kind="stable")][:most]
    names = [short(name, 10) for name in data.classes]
    lines = max(map(len, names)) > 3  # then the two names have a line each
    figure, panels = grid(len(worst), 1.5 if lines else 1.36)
    images = visible(in_colour(data.x[worst], data.image_shape))
    for axes, row, image in zip(panels, worst, images, strict=False):
        axes.imshow(image, cmap=greys(images), vmin=0, vmax=1)
        right, taken = names[data.t[row]], names[predicted[row]]
        axes.set_title(f"{right}\n→ {taken}" if lines else f"{right} → {taken}", fontsize=SMALL,
                       color=INK, parse_math=False)  # fmt: skip
    many = len(wrong) > len(worst)
    which = (
        f"The worst {len(worst)} of {len(wrong):,} mistakes"
        if many
        else f"All {len(wrong)} mistakes"
    )
    heading(figure, f"{which} among {len(data):,} samples: true → predicted")
    caption(
        figure, "The first one has the largest margin: score of the predicted minus the true class"
    )
    save(figure, path)
    return len(worst)


def visible(images: np.ndarray) -> np.ndarray:
    """Return images with values from 0 to 1: each by its own range if grey, else by its dtype's.

    Colours of values outside 0 to 1 and 0 to 255 are stretched over the range of all images.
    """
    images = images.astype(np.float64)
    if images.ndim == 3:
        low, high = (f(images, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    else:
        low, high = images.min(), images.max()
        if low >= 0:
            low, high = 0.0, 1.0 if high <= 1 else max(255.0, high)
    return np.asarray((images - low) / np.maximum(high - low, 1e-300))


def greys(images: np.ndarray) -> str:
    """Ink on paper, if most of what is shown is ground, as around letters; else as a photograph."""
    return "gray_r" if np.median(images) < 0.1 else "gray"
