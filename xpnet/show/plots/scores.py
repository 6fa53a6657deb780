"""Plot how good answers are: confusion, ROC, precision-recall, calibration, residuals.

Each takes plain arrays on the host: targets, and class indices, probabilities or values.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet import metrics
from xpnet.errors import one_line
from xpnet.show.plots.figure import new_figure
from xpnet.show.plots.run import TRAIN, VAL, predictions

__all__ = ["calibration", "confusion", "draw_scores", "precision_recall", "residuals", "roc"]

CURVES = 10  # so many classes have a curve each
CELLS = 30  # so many classes have their names and numbers in the confusion matrix
COUNTS = 12  # so many have counts there too
POINTS = 20_000  # so many points a scatter plot shows
TARGETS = 6  # so many targets of a regression have a row each


def draw_scores(
    folder: Path,
    t: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    *,
    name: str = "test",
    targets: Sequence[str] = (),
) -> list[Path]:
    """Draw every plot that suits the answers.

    Parameters
    ----------
    folder : Path
        An existing folder for the PNG files.
    t, predicted : array
        Class indices, shape=(N,); of a regression the values, shape=(N,) or (N, outputs).
    probabilities : array, shape=(N, C) or (N,), optional
    classes : sequence of str, optional
        Names of the classes; None for a regression.
    name : str
        What the samples are, for the titles.
    targets : sequence of str, optional
        Names of a regression's targets.

    Returns
    -------
    list of Path
        The files that were drawn. A curve of one class alone is left out: it is undefined.
    """
    if classes is None:
        targets = [_short(target) for target in targets]
        predictions(t, predicted, folder / "predictions.png", name=name, targets=targets)
        residuals(t, predicted, folder / "residuals.png", name=name, targets=targets)
        return [folder / "predictions.png", folder / "residuals.png"]
    drawn = [folder / "confusion.png"]
    matrix = metrics.confusion_matrix(t, predicted, len(classes))
    confusion(matrix, classes, drawn[0], name=name)
    if probabilities is None:
        return drawn
    for function, file in ((roc, "roc.png"), (precision_recall, "precision_recall.png")):
        if function(t, probabilities, classes, folder / file, predicted=predicted, name=name):
            drawn.append(folder / file)
    calibration(t, probabilities, classes, folder / "calibration.png", name=name)
    return [*drawn, folder / "calibration.png"]


# -- Classes ---------------------------------------------------------------------------


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
    title = f"{name}: {right:,} of {int(rows.sum()):,} right ({right / max(rows.sum(), 1):.1%})"
    if n > CELLS:
        _large_confusion(share, rows, classes, path, title)
        return
    names = [_short(c) for c in classes] + [str(i) for i in range(len(classes), n)]
    long = max(map(len, names))
    cell = max(0.72, 2.4 / n) if n <= COUNTS else 0.4  # inches
    slanted = 0.085 * long > cell
    figure = new_figure(
        max(n * cell + 2.2 + 0.08 * long, 5.0), n * cell + 1.2 + 0.06 * long * slanted
    )
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.argwhere(matrix):
        percent = _percent(share[i, j])
        if n <= COUNTS:
            text, fontsize = f"{matrix[i, j]:,}\n{percent} %", 8
        else:
            text, fontsize = percent, 7
        color = "white" if share[i, j] > 0.5 else "black"
        axes.text(j, i, text, ha="center", va="center", fontsize=fontsize, color=color)
    edges = np.arange(n - 1) + 0.5  # thin lines lead the eye to the names
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    small = {"fontsize": 9 if n <= COUNTS else 8, "parse_math": False}  # a name may contain a $
    axes.set_xticks(range(n), names, rotation=45 if slanted else 0,
                    ha="right" if slanted else "center", rotation_mode="anchor" if slanted
                    else "default", **small)  # fmt: skip
    axes.set_yticks(range(n), names, **small)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    recalls = axes.secondary_yaxis("right")
    labels = [
        f"{_percent(share[i, i])} % of {rows[i]:,}" if rows[i] else "no samples" for i in range(n)
    ]
    recalls.set_yticks(range(n), labels, **small)
    recalls.tick_params(length=0)
    recalls.set_ylabel("recall")
    counted = "number and % of the true class" if n <= COUNTS else "% of the true class"
    axes.set_title(f"{title}\neach cell: {counted}", fontsize=10)
    figure.savefig(path, dpi=120)


def _large_confusion(
    share: np.ndarray, rows: np.ndarray, classes: Sequence[str], path: Path, title: str
) -> None:
    """As shades alone, and the classes of the lowest recall by name."""
    figure = new_figure(8.5, 7.5)
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted (number of the class, from 0)")
    axes.set_ylabel("true (number of the class, from 0)")
    recalls = np.where(rows > 0, np.diag(share), np.inf)
    worst = [i for i in np.argsort(recalls, kind="stable")[:5] if rows[i]]
    listed = ", ".join(f"{_short(classes[i], 12)}: {_percent(share[i, i])} %" for i in worst)
    axes.set_title(f"{title}\nlowest recall: {listed}", fontsize=10, parse_math=False)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    figure.savefig(path, dpi=120)


# -- Curves ----------------------------------------------------------------------------


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
    areas = {
        c: metrics.roc_auc(t == c, columns[:, c])
        for c in _one_against_rest(t, two)
        if 0 < np.count_nonzero(t == c) < len(t)
    }
    if not areas:
        return 0
    shown = sorted(areas, key=areas.__getitem__)[:CURVES]
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    for i, c in enumerate(sorted(shown)):
        curve = metrics.roc_curve(t, columns, positive=c)
        axes.plot(curve.false, curve.true, label=f"{areas[c]:.3f}  {_short(classes[c])}",
                  **_line(i, len(shown)))  # fmt: skip
    if two and predicted is not None:
        no, yes = metrics.confusion_matrix(t, predicted, 2)
        _mark(axes, no[1] / no.sum(), yes[1] / yes.sum())
    axes.set_xlabel("false positive rate: share of the others taken for the class")
    axes.set_ylabel("true positive rate: share of the class that is found")
    _legend(axes, "AUC    class", "lower right")
    mean = f", mean AUC {np.mean([*areas.values()]):.3f}" if len(areas) > 1 else ""
    which = "ROC" if two else "ROC, each class against the rest"
    axes.set_title(f"{name}: {which}{mean}{_left_out(shown, areas, 'AUC')}", fontsize=10)
    figure.savefig(path, dpi=120)
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

    A dashed line shows the share of the class among the samples: the precision of a guess.
    Parameters are those of `roc`.

    Returns
    -------
    int
        Number of curves: at most 10, those of the lowest average precision. It is 0, and nothing
        is drawn, if no sample is of such a class.
    """
    columns, two = _columns(probabilities)
    averages = {
        c: metrics.average_precision(t == c, columns[:, c])
        for c in _one_against_rest(t, two)
        if np.any(t == c)
    }
    if not averages:
        return 0
    shown = sorted(averages, key=averages.__getitem__)[:CURVES]
    figure, axes = _square()
    for i, c in enumerate(sorted(shown)):
        curve = metrics.precision_recall_curve(t, columns, positive=c)
        line = _line(i, len(shown))
        axes.plot(curve.recall, curve.precision, drawstyle="steps-post",
                  label=f"{averages[c]:.3f}  {_short(classes[c])}", **line)  # fmt: skip
        base = np.mean(t == c)
        alone = len(shown) == 1
        axes.axhline(base, color="grey" if alone else line["color"], linewidth=1 if alone else 0.7,
                     linestyle="--", alpha=1.0 if alone else 0.6,
                     label=f"{base:.3g}  share of the class" if alone else "_")  # fmt: skip
    if two and predicted is not None and np.any(predicted == 1):
        right = np.count_nonzero((t == 1) & (predicted == 1))
        _mark(axes, right / np.count_nonzero(t == 1), right / np.count_nonzero(predicted == 1))
    axes.set_xlabel("recall: share of the class that is found")
    axes.set_ylabel("precision: share of the found that are of the class")
    high = np.mean([averages[c] for c in shown]) > 0.5
    _legend(axes, "AP       class", "lower left" if high else "upper right")
    mean = f", mean AP {np.mean([*averages.values()]):.3f}" if len(averages) > 1 else ""
    which = "precision and recall" + ("" if two else ", each class (dashed: its share)")
    axes.set_title(f"{name}: {which}{mean}{_left_out(shown, averages, 'AP')}", fontsize=10)
    figure.savefig(path, dpi=120)
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
        p, hit, what = columns[:, 1], t == 1, f"of {_short(classes[1])}"
    else:
        p, hit, what = columns.max(axis=1), t == columns.argmax(axis=1), "of the predicted class"
    curve = metrics.calibration_curve(hit, p)
    low, high = _wilson(curve.observed, curve.samples)
    figure = new_figure(5.6, 6.4)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--", label="calibrated")
    top.vlines(curve.predicted, low, high, color=TRAIN, linewidth=1, label="95 % interval")
    top.plot(curve.predicted, curve.observed, color=TRAIN, marker="o", markersize=5,
             label="observed")  # fmt: skip
    top.set_xlim(-0.02, 1.02)
    top.set_ylim(-0.02, 1.02)
    top.set_ylabel("share that is of the class" if two else "share that is right")
    top.legend(loc="upper left", fontsize=9)
    top.grid(alpha=0.3)
    heights, _, _ = bottom.hist(p, bins=np.linspace(0.0, 1.0, 21), color=TRAIN)
    bottom.set_xlabel(f"probability {what}", parse_math=False)
    bottom.set_ylabel("samples")
    bottom.grid(alpha=0.3)
    if heights.max() > 100 * heights[heights > 0].min():
        bottom.set_yscale("log")  # else the rare ones cannot be seen
    else:
        bottom.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    score = metrics.brier(t, columns)
    top.set_title(f"{name}: calibration, {len(t):,} samples, Brier score {score:.3g}", fontsize=10)
    figure.savefig(path, dpi=120)


# -- Values ----------------------------------------------------------------------------


def residuals(
    t: np.ndarray,
    predicted: np.ndarray,
    path: Path,
    *,
    name: str = "test",
    targets: Sequence[str] = (),
) -> None:
    """Plot what is left of each target after the prediction, in the targets' units.

    One row per target, at most 6: residuals against predictions, at most 20,000 points, and their
    histogram.

    Parameters
    ----------
    t, predicted : array, shape=(N,) or (N, outputs)
    path : path
    name : str
        What the samples are, for the title.
    targets : sequence of str, optional
        Names of the targets.
    """
    t, predicted = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (t, predicted))
    shown = min(t.shape[1], TARGETS)
    figure = new_figure(8.5, 3.8 * shown + 0.2)
    every = slice(None, None, -(-len(t) // POINTS))
    panels = figure.subplots(shown, 2, sharey="row", squeeze=False, width_ratios=[3, 1])
    for j, (left, right) in enumerate(panels):
        rest = t[:, j] - predicted[:, j]
        many = len(rest[every]) > 2000
        left.plot(predicted[every, j], rest[every], ".", color=TRAIN, markersize=2 if many else 4,
                  alpha=0.25 if many else 0.6)  # fmt: skip
        varies = np.ptp(rest) > 1e-9 * np.abs(rest).max()  # else 40 bins have no width
        right.hist(rest, bins=40 if varies else 1, orientation="horizontal", color=TRAIN)
        for axes in (left, right):
            axes.axhline(0.0, color="grey", linewidth=1)
            axes.grid(alpha=0.3)
        scores = metrics.regression_scores(t[:, j], predicted[:, j])
        r2 = "undefined" if scores["r2"] is None else f"{scores['r2']:.3f}"
        target = f", {_short(targets[j])}" if j < len(targets) else ""
        left.set_title(
            f"{name}{target}: MAE {scores['mae']:.4g}, RMSE {scores['rmse']:.4g}, R² {r2}",
            fontsize=10, parse_math=False,
        )  # fmt: skip
        left.set_xlabel("predicted")
        left.set_ylabel("residual: true - predicted")
        right.set_xlabel("samples")
        right.xaxis.get_major_locator().set_params(integer=True, nbins=3)
    figure.savefig(path, dpi=120)


# -- Parts -----------------------------------------------------------------------------


def _short(name: str, most: int = 24) -> str:
    name = one_line(str(name))
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _percent(share: float) -> str:
    """Whole percents; of what is neither none nor all, never 0 or 100."""
    if 0.0 < share < 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1.0 else f"{100 * share:.0f}"


def _columns(probabilities: np.ndarray) -> tuple[np.ndarray, bool]:
    """One column per class, and whether there are two."""
    p = np.asarray(probabilities, np.float64).reshape(len(probabilities), -1)
    if p.shape[1] == 1:
        p = np.concatenate([1.0 - p, p], axis=1)
    return p, p.shape[1] == 2


def _one_against_rest(t: np.ndarray, two: bool) -> list[int]:
    return [1] if two else [int(c) for c in np.unique(t)]


def _line(i: int, count: int) -> dict[str, Any]:
    """Colours and dashes that tell up to ten lines apart, also for the colour-blind."""
    if count == 1:
        return {"color": TRAIN, "linewidth": 1.8}
    return {"color": f"C{i}", "linewidth": 1.3, "linestyle": "-" if i < 5 else (0, (5, 1.5))}


def _square() -> tuple[Any, Any]:
    figure = new_figure(6.0, 5.8)
    axes = figure.subplots()
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    return figure, axes


def _mark(axes: Any, x: float, y: float) -> None:
    axes.plot([x], [y], "o", color=VAL, markersize=7, label="the model's answers", zorder=5)


def _legend(axes: Any, title: str, place: str) -> None:
    legend = axes.legend(title=title, loc=place, fontsize=9, title_fontsize=9,
                         alignment="left")  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may contain a $


def _left_out(shown: Sequence[int], all_: dict[int, float], what: str) -> str:
    if len(shown) == len(all_):
        return ""
    return f"\nthe {len(shown)} of {len(all_)} classes with the lowest {what}"


def _wilson(share: np.ndarray, n: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """The interval of shares p with |share - p| ≤ z sqrt(p (1 - p) / n)."""
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)
