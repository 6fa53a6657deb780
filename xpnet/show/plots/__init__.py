"""Plot a run and the network that it trained. Plots need matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xpnet.data.dataset import Dataset, read_rows
from xpnet.layers.activations import ACTIVATIONS
from xpnet.layers.affine import Affine
from xpnet.layers.convolution import Convolution
from xpnet.layers.normalization import BatchNorm
from xpnet.models.model import Model
from xpnet.models.network import Network
from xpnet.models.summary import sizes_of
from xpnet.show.plots.confusion import confusion
from xpnet.show.plots.curves import curves, curves_figure
from xpnet.show.plots.figure import require
from xpnet.show.plots.images import in_colour, mistakes
from xpnet.show.plots.network import SAMPLES, activations, feature_maps, weights
from xpnet.show.plots.probabilities import calibration, precision_recall, roc
from xpnet.show.plots.scores import draw_scores
from xpnet.show.plots.sweep import Dot, sweep, sweep_figure
from xpnet.show.plots.values import predictions, residuals
from xpnet.trainer.history import History

__all__ = [
    "Dot", "activations", "calibration", "confusion", "curves", "curves_figure", "draw_all",
    "draw_scores", "feature_maps", "mistakes", "precision_recall", "predictions", "require",
    "residuals", "roc", "sweep", "sweep_figure", "weights",
]  # fmt: skip

MOST_NUMBERS = 1 << 24  # of hidden outputs, which the histograms show


def draw_all(folder: Path, history: History, model: Model, test: Dataset) -> list[Path]:
    """Draw every plot that suits the data.

    Parameters
    ----------
    folder : Path
        An existing folder for the PNG files.
    history : History
    model : Model
    test : Dataset

    Returns
    -------
    list of Path
        The files that were drawn.
    """
    classes = test.classes
    drawn = [folder / "curves.png"]
    metric = "r2" if classes is None else "accuracy"
    curves(history, drawn[0], metric, title=_named(model.network))
    first = model.network.first_weights
    if first and weights(model.to_host()[first], folder / "weights.png", test):
        drawn.append(folder / "weights.png")
    one = model.hidden(test.x[:1])
    if one:
        # Outputs of convolutions are large: fewer samples do, of so many places each.
        most = min(SAMPLES, max(1, MOST_NUMBERS // sum(y.size for y in one.values())))
        hidden = model.hidden(test.x[:: -(-len(test) // most)])
        drawn.append(folder / "activations.png")
        activations(hidden, [_kind(node.gate) for node in model.network.hidden], drawn[-1])
    if any(y.ndim == 4 for y in one.values()):
        drawn.append(folder / "maps.png")
        feature_maps(_picture(model.network, test), one, drawn[-1])
    scores = model.scores(test.x)
    if classes is None:
        # A file without names numbers its columns.
        column = test.label_column
        targets = (column,) if column and not column.isdecimal() else ()
        return [*drawn, *draw_scores(folder, test.t, model.values(scores), targets=targets)]
    predicted = model.decide(scores)
    drawn += draw_scores(folder, test.t, predicted, model.probabilities(scores), classes)
    if mistakes(test, scores, predicted, folder / "mistakes.png"):
        drawn.append(folder / "mistakes.png")
    return drawn


def _named(network: Network) -> str:
    """Name a network by its sizes and activations, or by its parameters if you built it by hand."""
    sizes = sizes_of(network.arguments)
    if not sizes:
        return f"Network of {sum(p.size for p in network.params.values()):,} parameters"
    kinds = [_kind(node.gate) for node in network.hidden]
    words = kinds[:1] if len({*kinds}) == 1 else kinds
    words += ["batch norm"] if network.arguments.get("batch_norm") else []
    between = "-" if all(map(str.isdecimal, sizes)) else " - "
    return ", ".join([f"Network {between.join(sizes)}", *words])


def _picture(network: Network, data: Dataset) -> np.ndarray:
    """Return the first sample as an image, shape=(H, W) or (H, W, 3)."""
    shape = data.image_shape or network.input_shape or ()
    sample = np.asarray(read_rows(data.x, np.array([0])))
    if data.image_shape is None and len(shape) == 3 and shape[0] != 3:
        sample, shape = sample.reshape(shape)[:1], shape[1:]  # the first channel
    image: np.ndarray = in_colour(sample, shape)[0]
    return image


def _kind(gate: Any) -> str:
    """Return the name of a hidden layer's activation; identity if the layer has none."""
    names = {kind: name for name, kind in ACTIVATIONS.items()}
    summed = isinstance(gate, Affine | Convolution | BatchNorm)
    return "identity" if summed else names.get(type(gate), type(gate).__name__)
