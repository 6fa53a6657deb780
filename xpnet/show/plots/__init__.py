"""Pictures of a run, and of the network that it has trained. They need matplotlib."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.show.plots.figure import require
from xpnet.show.plots.network import SAMPLES, activations, weights
from xpnet.show.plots.run import confusion, confusion_matrix, curves, mistakes, predictions
from xpnet.trainer.history import History
from xpnet.trainer.trainer import Trainer

__all__ = [
    "activations", "confusion", "confusion_matrix", "curves", "draw_all", "mistakes",
    "predictions", "require", "weights",
]  # fmt: skip


def draw_all(folder: Path, history: History, trainer: Trainer, test: Dataset) -> list[Path]:
    """The pictures that suit the data; returns the paths of those drawn."""
    classes = test.classes
    drawn = [folder / "curves.png"]
    curves(history, drawn[0], "r2" if classes is None else "accuracy")
    spec = trainer.network.spec
    first = trainer.backend.to_numpy(trainer.params["W1"])
    if weights(first, folder / "weights.png", test):
        drawn.append(folder / "weights.png")
    hidden = trainer.hidden(test.x[:: -(-len(test) // SAMPLES)])
    if hidden:
        drawn.append(folder / "activations.png")
        activations(hidden, spec["activation"], drawn[-1])
    if classes is None:
        drawn.append(folder / "predictions.png")
        predictions(test.t, trainer.predict(test.x), drawn[-1])
        return drawn
    scores = trainer.scores(test.x)
    predicted = np.asarray(trainer.network.loss_gate.decide(scores))
    drawn.append(folder / "confusion.png")
    confusion(confusion_matrix(test.t, predicted, len(classes)), classes, drawn[-1])
    if mistakes(test, scores, predicted, folder / "mistakes.png"):
        drawn.append(folder / "mistakes.png")
    return drawn
