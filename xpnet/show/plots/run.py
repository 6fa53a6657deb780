"""Plot a run: its learning curves, its worst mistakes, its predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.show.plots.figure import new_figure
from xpnet.trainer.history import History

__all__ = ["TRAIN", "VAL", "curves", "mistakes", "predictions"]

TRAIN, VAL = "#1f77b4", "#d95f02"  # colour-blind readers can tell these apart


def curves(history: History, path: Path, metric: str = "accuracy") -> None:
    """Plot loss and score against the epoch, with the loss of every step as a thin line."""
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    epochs = [epoch.epoch for epoch in history.epochs]
    losses = history.losses
    steps = history.loss_steps / (history.steps / max(len(epochs), 1))
    left.plot(steps, losses, color=TRAIN, alpha=0.4, linewidth=0.6, label="train, each step")
    for axes, name in ((left, "loss"), (right, "score")):
        label = metric if name == "score" else name
        for part, color in (("train", TRAIN), ("val", VAL)):
            values = [np.nan if v is None else v for v in history.column(f"{part}_{name}")]
            if not np.isnan(values).all():
                # The training loss is the epoch's mean, so it belongs to the epoch's middle.
                early = 0.5 if (part, name) == ("train", "loss") else 0.0
                places = np.array(epochs) - early
                axes.plot(places, values, color=color, marker="o", markersize=3, label=part)
        axes.set_xlim(0, max(epochs) + 0.5)
        axes.set_xlabel("epoch")
        axes.set_ylabel({"r2": "R²"}.get(label, label))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    if min(losses) > 0 and max(losses) / min(losses) > 20:
        left.set_yscale("log")
    if history.best_epoch:
        left.axvline(history.best_epoch, color="grey", linestyle=":", linewidth=1)
        left.annotate("best", (history.best_epoch, 1.0), xycoords=("data", "axes fraction"),
                      xytext=(-3, -12), textcoords="offset points", color="grey",
                      ha="right")  # fmt: skip
    figure.savefig(path, dpi=120)


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
    worst = wrong[np.argsort(-margin)][:most]
    columns = min(10, len(worst))
    rows = math.ceil(len(worst) / columns)
    figure = new_figure(1.25 * columns + 0.3, 1.6 * rows + 0.6)
    images = data.x[worst].reshape(-1, *data.image_shape)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, row, image in zip(panels, worst, images, strict=False):
        axes.imshow(image, cmap="gray_r")
        right, taken = data.classes[data.t[row]], data.classes[predicted[row]]
        axes.set_title(f"{right} → {taken}", fontsize=9, parse_math=False)
    for axes in figure.axes:
        axes.axis("off")
    which = "all" if len(worst) == len(wrong) else f"the worst {len(worst)} of"
    figure.suptitle(f"{which} {len(wrong):,} mistakes (true → predicted)", fontsize=10)
    figure.savefig(path, dpi=120)
    return len(worst)


def predictions(
    t: np.ndarray,
    predicted: np.ndarray,
    path: Path,
    *,
    name: str = "test",
    targets: Sequence[str] = (),
) -> None:
    """Plot predicted against true targets of a regression, one panel per target, at most 6.

    Points of a perfect prediction lie on the grey diagonal. `name` says what the samples are, and
    `targets` names the targets.
    """
    t, predicted = (a.reshape(len(a), -1) for a in (t, predicted))
    shown = min(t.shape[1], 6)
    figure = new_figure(4.5 * shown, 4.5)
    for j, axes in enumerate(figure.subplots(1, shown, squeeze=False).flat):
        low, high = (
            min(t[:, j].min(), predicted[:, j].min()),
            max(t[:, j].max(), predicted[:, j].max()),
        )
        many = len(t) > 2000
        axes.plot(t[:, j], predicted[:, j], ".", color=TRAIN, markersize=2 if many else 4,
                  alpha=0.25 if many else 0.6)  # fmt: skip
        axes.plot([low, high], [low, high], color="grey", linewidth=1)
        error = float(np.sqrt(((t[:, j] - predicted[:, j]) ** 2).mean()))
        target = f", {targets[j]}" if j < len(targets) else ""
        axes.set_title(f"{name}{target}: root mean square error {error:.4g}", fontsize=10,
                       parse_math=False)  # fmt: skip
        axes.set_xlabel("true")
        axes.set_ylabel("predicted")
        axes.xaxis.get_major_locator().set_params(nbins=5)  # so that large numbers do not meet
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
