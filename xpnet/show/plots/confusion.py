"""Plot which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xpnet.show.plots.figure import (
    INK,
    SHADES,
    SMALL,
    TEXT,
    caption,
    color_bar,
    dress,
    heading,
    new_figure,
    save,
    short,
)

__all__ = ["confusion"]

NAMED = 30  # so many classes have their names and numbers
COUNTED = 12  # so many have counts, too


def confusion(
    matrix: np.ndarray, classes: Sequence[str], path: Path, *, name: str = "test"
) -> None:
    """Plot a confusion matrix: true classes in rows, predicted classes in columns.

    Shade and percentage show the share within the row, so that rare classes are visible; at the
    right stands each class's recall.

    Parameters
    ----------
    matrix : integer array, shape=(C, C)
        From `xpnet.metrics.confusion_matrix`.
    classes : sequence of str
    path : path
    name : str
        What the samples are, for the title.
    """
    n = len(matrix)
    rows = matrix.sum(axis=1)
    share = matrix / np.maximum(rows[:, None], 1)
    right = int(np.trace(matrix))
    title = (
        f"Confusion matrix, {name}: {right:,} of {int(rows.sum()):,} right "
        f"({right / max(rows.sum(), 1):.1%})"
    )
    if n > NAMED:
        _large_confusion(share, rows, classes, path, title)
        return
    names = [short(c) for c in classes] + [str(i) for i in range(len(classes), n)]
    long = max(map(len, names))
    cell = max(0.72, 2.4 / n) if n <= COUNTED else 0.4  # inches
    slanted = 0.085 * long > cell
    figure = new_figure(
        max(n * cell + 2.2 + 0.08 * long, 5.6), n * cell + 1.5 + 0.06 * long * slanted
    )
    axes = figure.subplots()
    axes.imshow(share, cmap=SHADES, vmin=0, vmax=1)
    for i, j in np.argwhere(matrix):
        percent = _percent(share[i, j])
        if n <= COUNTED:
            text, fontsize = f"{matrix[i, j]:,}\n{percent} %", 8
        else:
            text, fontsize = percent, 7
        color = "white" if share[i, j] > 0.5 else INK
        axes.text(j, i, text, ha="center", va="center", fontsize=fontsize, color=color)
    dress(axes, "predicted class", "true class", grid=False)
    edges = np.arange(n - 1) + 0.5  # thin lines lead the eye to the names
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.6, linestyle="-", alpha=1.0)
    axes.tick_params(which="minor", length=0)
    small = {"fontsize": SMALL, "parse_math": False}  # a name may contain a $
    axes.set_xticks(range(n), names, rotation=45 if slanted else 0,
                    ha="right" if slanted else "center", rotation_mode="anchor" if slanted
                    else "default", **small)  # fmt: skip
    axes.set_yticks(range(n), names, **small)
    recalls = axes.secondary_yaxis("right")
    labels = [
        f"{_percent(share[i, i])} % of {rows[i]:,}" if rows[i] else "no samples" for i in range(n)
    ]
    recalls.set_yticks(range(n), labels, **small)
    recalls.tick_params(length=0, labelcolor=INK)
    recalls.spines["right"].set_color(INK)
    recalls.set_ylabel("recall", fontsize=TEXT, color=INK)
    counted = "number and % of the true class" if n <= COUNTED else "% of the true class"
    heading(figure, title)
    caption(figure, f"Each cell: {counted}; the shade shows the same share")
    save(figure, path)


def _large_confusion(
    share: np.ndarray, rows: np.ndarray, classes: Sequence[str], path: Path, title: str
) -> None:
    """As shades alone, and the classes of the lowest recall by name."""
    figure = new_figure(8.5, 7.5)
    axes = figure.subplots()
    image = axes.imshow(share, cmap=SHADES, vmin=0, vmax=1)
    dress(axes, "predicted class (its number, from 0)", "true class (its number, from 0)",
          grid=False)  # fmt: skip
    recalls = np.where(rows > 0, np.diag(share), np.inf)
    worst = [i for i in np.argsort(recalls, kind="stable")[:5] if rows[i]]
    listed = ", ".join(f"{short(classes[i], 12)}: {_percent(share[i, i])} %" for i in worst)
    heading(figure, title)
    caption(figure, f"Lowest recall: {listed}")
    color_bar(figure, image, "share of the true class", shrink=0.8)
    save(figure, path)


def _percent(share: float) -> str:
    """Whole percents; of what is neither none nor all, never 0 or 100."""
    percent = f"{100 * share:.0f}"
    if percent == "0" and share > 0.0:
        return "<1"
    return ">99" if percent == "100" and share < 1.0 else percent
