"""Draw every plot of how good answers are, for classes or for a regression."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xpnet import metrics
from xpnet.show.plots.confusion import confusion
from xpnet.show.plots.probabilities import calibration, precision_recall, roc
from xpnet.show.plots.values import predictions, residuals

__all__ = ["draw_scores"]


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
