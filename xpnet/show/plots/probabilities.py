"""Plot how good probabilities are: ROC, precision against recall, calibration.

Each takes plain arrays on the host: class indices and probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet import metrics
from xpnet.show.plots.figure import (
    GREY,
    TRAIN,
    VAL,
    caption,
    dress,
    heading,
    new_figure,
    note_legend,
    save,
    short,
    style_of,
)

__all__ = ["calibration", "precision_recall", "roc"]

NEAR = 0.98  # if no area is smaller, the curves would be seen in a corner only
CURVES = 10  # so many classes have a curve each


def roc(
    t: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    path: Path,
    *,
    predicted: np.ndarray | None = None,
    name: str = "test",
) -> int:
    """Plot the ROC curve of two classes, or one of each class against the rest.

    Parameters
    ----------
    t : integer array, shape=(N,)
    probabilities : array, shape=(N, C) or (N,)
    classes : sequence of str
    path : path
    predicted : integer array, shape=(N,), optional
        Marks, for two classes, the point of the answers.
    name : str
        What the samples are, for the title.

    Returns
    -------
    int
        Number of curves: at most 10, those of the lowest areas. It is 0, and nothing is drawn, if
        all samples are of one class.
    """
    columns, two = _columns(probabilities)
    areas = {c: a for c, a in _areas(metrics.roc_auc, t, columns, two).items() if np.any(t != c)}
    if not areas:
        return 0
    shown = _lowest(areas)
    figure, axes = _square("false positive rate: share of the others taken for the class",
                           "true positive rate: share of the class that is found")  # fmt: skip
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle=":", label="_guess")
    for i, c in enumerate(shown):
        curve = metrics.roc_curve(t, columns, positive=c)
        label = f"{areas[c]:.3f}  {short(classes[c])}"
        axes.plot(curve.false, curve.true, label=label, **style_of(i, len(shown)))
    if two and predicted is not None:
        no, yes = metrics.confusion_matrix(t, predicted, 2)
        _mark(axes, no[1] / no.sum(), yes[1] / yes.sum())
    where = _corner(axes, areas, left=True)
    heading(figure, f"ROC, {name}: {_mean(areas, 'AUC')}")
    caption(figure, f"{where}: a guess" + _left_out(shown, areas, "AUC"))
    note_legend(axes, "AUC    class", loc="lower right")
    save(figure, path)
    return len(shown)


def precision_recall(
    t: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    path: Path,
    *,
    predicted: np.ndarray | None = None,
    name: str = "test",
) -> int:
    """Plot precision against recall of the second of two classes, or of each class.

    A dotted line shows the share of the class among the samples: the precision of a guess.
    Parameters are those of `roc`.

    Returns
    -------
    int
        Number of curves: at most 10, those of the lowest average precision. It is 0, and nothing
        is drawn, if no sample is of such a class.
    """
    columns, two = _columns(probabilities)
    areas = _areas(metrics.average_precision, t, columns, two)
    if not areas:
        return 0
    shown = _lowest(areas)
    figure, axes = _square("recall: share of the class that is found",
                           "precision: share of the found that are of the class")  # fmt: skip
    for i, c in enumerate(shown):
        curve = metrics.precision_recall_curve(t, columns, positive=c)
        line = style_of(i, len(shown))
        label = f"{areas[c]:.3f}  {short(classes[c])}"
        axes.plot(curve.recall, curve.precision, label=label, drawstyle="steps-post", **line)
        axes.axhline(np.mean(t == c), color=GREY if two else line["color"], linewidth=1.2,
                     linestyle=":", label="_guess")  # fmt: skip
    if two and predicted is not None and np.any(predicted == 1):
        right = np.count_nonzero((t == 1) & (predicted == 1))
        _mark(axes, right / np.count_nonzero(t == 1), right / np.count_nonzero(predicted == 1))
    heading(figure, f"Precision against recall, {name}: {_mean(areas, 'AP')}")
    share = f"the share of the class, {np.mean(t == 1):.1%}" if two else "the classes' shares"
    where = _corner(axes, areas, left=False)
    caption(figure, f"{where}: a guess, {share}{_left_out(shown, areas, 'AP')}")
    high = np.mean([areas[c] for c in shown]) > 0.5
    note_legend(axes, "AP       class", loc="lower left" if high else "upper right")
    save(figure, path)
    return len(shown)


def calibration(
    t: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    path: Path,
    *,
    name: str = "test",
) -> None:
    """Plot how often a class occurs against its probability, over a histogram of those.

    Of two classes it is the second; of more, the predicted class of each sample: how often the
    answer is right against how sure it is. The bars are 95 % intervals (Wilson, 1927) for the
    number of samples in each bin.

    Parameters
    ----------
    t : integer array, shape=(N,)
    probabilities : array, shape=(N, C) or (N,)
    classes : sequence of str
    path : path
    name : str
        What the samples are, for the title.
    """
    columns, two = _columns(probabilities)
    if two:
        p, hit, what = columns[:, 1], t == 1, f"of {short(classes[1])}"
    else:
        p, hit, what = columns.max(axis=1), t == columns.argmax(axis=1), "of the predicted class"
    curve = metrics.calibration_curve(hit, p)
    low, high = _wilson(curve.observed, curve.samples)
    figure = new_figure(5.6, 6.4)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="calibrated")
    top.vlines(curve.predicted, low, high, color=TRAIN, linewidth=1, label="95 % interval")
    top.plot(curve.predicted, curve.observed, color=TRAIN, marker="o", linewidth=1.5,
             markersize=5, label="observed")  # fmt: skip
    top.set_xlim(-0.02, 1.02)
    top.set_ylim(-0.02, 1.02)
    dress(top, y="share that is of the class" if two else "share that is right")
    note_legend(top, loc="upper left")
    heights, _, _ = bottom.hist(p, bins=np.linspace(0.0, 1.0, 21), color=TRAIN)
    if heights.max() > 100 * heights[heights > 0].min():
        bottom.set_yscale("log")  # else the rare ones cannot be seen
    else:
        bottom.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    dress(bottom, f"probability {what}", "samples")
    score = metrics.brier(t, columns)
    heading(figure, f"Calibration, {len(t):,} {name} samples: Brier score {score:.3g}")
    save(figure, path)


# -- Parts -----------------------------------------------------------------------------


def _columns(probabilities: np.ndarray) -> tuple[np.ndarray, bool]:
    """One column per class, and whether there are two."""
    p = np.asarray(probabilities, np.float64).reshape(len(probabilities), -1)
    if p.shape[1] == 1:
        p = np.concatenate([1.0 - p, p], axis=1)
    return p, p.shape[1] == 2


def _areas(
    measure: Callable[[np.ndarray, np.ndarray], float], t: np.ndarray, p: np.ndarray, two: bool
) -> dict[int, float]:
    """Measure each class that occurs, against the rest; of two classes, the second."""
    return {c: measure(t == c, p[:, c]) for c in np.unique(t).tolist() if c == 1 or not two}


def _lowest(areas: dict[int, float]) -> list[int]:
    return sorted(sorted(areas, key=areas.__getitem__)[:CURVES])


def _mean(areas: dict[int, float], what: str) -> str:
    mean = np.mean([*areas.values()])
    if len(areas) == 1:
        return f"{what} {mean:.3f}"
    return f"{len(areas)} classes, each against the rest, mean {what} {mean:.3f}"


def _corner(axes: Any, areas: dict[int, float], *, left: bool) -> str:
    """Show only the corner where all curves are, if none is far from it; say where a guess is."""
    if min(areas.values()) < NEAR:
        return "Dotted"
    axes.set_xlim(*((-0.005, 0.255) if left else (0.745, 1.005)))
    axes.set_ylim(0.745, 1.005)
    return "The axes show the best corner only; outside it"


def _left_out(shown: Sequence[int], areas: dict[int, float], what: str) -> str:
    if len(shown) == len(areas):
        return ""
    return f"; the {len(shown)} of {len(areas)} classes with the lowest {what}"


def _square(x: str, y: str) -> tuple[Any, Any]:
    figure = new_figure(6.0, 6.1)
    axes = figure.subplots()
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    dress(axes, x, y)
    return figure, axes


def _mark(axes: Any, x: float, y: float) -> None:
    axes.plot([x], [y], "o", color=VAL, markersize=8, markeredgecolor="white", zorder=5,
              label="the model's answers")  # fmt: skip


def _wilson(share: np.ndarray, n: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """The interval of shares p with |share - p| ≤ z sqrt(p (1 - p) / n)."""
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)
