"""Measure a network on a data set: its loss, its score, its outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.arrays.ops import Array, namespace, targets_like
from xpnet.data.loader import Feed
from xpnet.models.network import Network
from xpnet.parallel.group import ALONE, Group

__all__ = ["Evaluation", "class_indices", "r2_score", "units_last"]


class Evaluation:
    """Measures a network in inference mode, batch by batch.

    Parameters
    ----------
    network : Network
    feed : Feed
    """

    def __init__(self, network: Network, feed: Feed) -> None:
        self.network, self.feed = network, feed
        self._measure = feed.backend.compile(self._measure_batch)
        self._scores = feed.backend.compile(
            lambda params, x: network.predict(params, feed.prepare(x))
        )
        self._hidden_nodes = network.hidden
        self._hidden = feed.backend.compile(self._hidden_batch)

    def classifies(self, t: Array) -> bool:
        """Return whether the targets are classes; real targets of a regression are not."""
        real = self.network.loss_gate.targets == "real"
        return bool(not real or (t.ndim == 1 and self.network.outputs != 1))

    def _measure_batch(self, params: Any, x: Array, t: Array) -> tuple[Array, Array]:
        """Return the loss of a batch, and what its score is made of.

        A classification counts the right answers; a regression keeps the errors.
        """
        net = self.network
        inputs = {**params, "x": self.feed.prepare(x), "t": t}
        (scores, loss), _ = net.graph.forward(inputs, net.scores, net.loss)
        xp = namespace(scores)
        if not self.classifies(t):
            return loss, net.predictions(scores) - targets_like(t, scores)
        if t.ndim > 1:
            t = xp.argmax(t, axis=-1) if t.shape[-1] > 1 else t[:, 0] > 0.5
        right = xp.astype(net.loss_gate.decide(scores), xp.int32) == xp.astype(t, xp.int32)
        return loss, xp.sum(xp.astype(right, scores.dtype))

    def _hidden_batch(self, params: Any, x: Array) -> list[Array]:
        inputs = {**params, "x": self.feed.prepare(x)}
        # The scores as one more output: with a single one, forward returns no tuple.
        nodes = (*self._hidden_nodes, self.network.scores)
        outputs, _ = self.network.graph.forward(inputs, *nodes)
        return list(outputs[:-1])

    def measure(
        self, params: Any, x: Any, t: np.ndarray, group: Group = ALONE
    ) -> tuple[float, float | None]:
        """Return (loss per sample, accuracy or R²) for data that `Feed` brought to the device.

        R² = 1 - Σ(y - t)² / Σ(t - mean t)² is the mean over the outputs whose targets vary, and
        None if none do.

        The host adds up in float64. The ranks of a group share the batches, and all get the result.
        """
        mean = self.network.loss_gate.reduction == "mean"
        to_numpy = self.feed.backend.to_numpy
        on_device = [
            (
                batch.shape[0] if mean else 1,
                *self._measure(params, batch, self.feed.backend.asarray(t[part])),
            )
            for part, batch in self.feed.batches(x, group)
        ]
        # Read back at the end, so that a device is not waited for batch by batch.
        measured = _of_all(
            [(size * float(loss), to_numpy(score)) for size, loss, score in on_device], group
        )
        total = sum(loss for loss, _ in measured)
        if self.classifies(t):
            return total / len(t), sum(float(right) for _, right in measured) / len(t)
        errors = np.concatenate([errors for _, errors in measured])
        return total / len(t), r2_score(errors.reshape(len(t), -1), t.reshape(len(t), -1))

    def hidden(self, params: Any, x: Any) -> dict[str, np.ndarray]:
        """Return the outputs of the hidden layers by node name, each of shape=(N, units).

        Of a convolution, they are images, shape=(N, channels, H, W).
        """
        if not self._hidden_nodes:
            return {}
        to_numpy = self.feed.backend.to_numpy
        batches = [self._hidden(params, batch) for _, batch in self.feed.batches(x)]
        return {
            node.name: np.concatenate([to_numpy(outputs[i]) for outputs in batches])
            for i, node in enumerate(self._hidden_nodes)
        }

    def dead(self, params: Any, x: Any) -> dict[str, np.ndarray]:
        """Return which units of the hidden layers are 0 for all samples, each of shape=(units,).

        A unit of a convolution is a channel: it is dead if it is 0 at each of its pixels.
        """
        found: dict[str, np.ndarray] = {}
        if not self._hidden_nodes:
            return found
        for _, batch in self.feed.batches(x):  # all batches at once could fill the memory
            for node, outputs in zip(self._hidden_nodes, self._hidden(params, batch), strict=True):
                zero = units_last(self.feed.backend.to_numpy(outputs)) == 0
                zero = zero.reshape(-1, zero.shape[-1]).all(axis=0)
                found[node.name] = found.get(node.name, True) & zero
        return found

    def scores(self, params: Any, x: Any, group: Group = ALONE) -> np.ndarray:
        """Return the outputs, shape=(N, outputs), for samples that `Feed` brought.

        The ranks of a group share the batches, and all get the result.
        """
        to_numpy = self.feed.backend.to_numpy
        batches = [
            to_numpy(self._scores(params, batch)) for _, batch in self.feed.batches(x, group)
        ]
        return np.concatenate(_of_all(batches, group))


def _of_all(own: list[Any], group: Group) -> list[Any]:
    """Return what all ranks have for their batches, in the order of the batches."""
    return [found for each in group.gather(own) for found in each]


def units_last(outputs: np.ndarray) -> np.ndarray:
    """Return a hidden layer's outputs with its units, or channels, as the last axis."""
    return np.moveaxis(outputs, 1, -1) if outputs.ndim == 4 else outputs


def class_indices(t: np.ndarray) -> np.ndarray:
    """Return the class of each sample, from indices, one-hot rows or probabilities."""
    if t.ndim == 1:
        return t.astype(np.int64)
    return np.argmax(t, axis=1) if t.shape[1] > 1 else (t[:, 0] > 0.5).astype(np.int64)


def r2_score(errors: np.ndarray, t: np.ndarray) -> float | None:
    """Return R², the mean over the outputs whose t vary; None if none does."""
    found = []
    with np.errstate(all="ignore"):  # what is infinite here shows in the result
        for wrong, true in zip(errors.T, t.astype(np.float64).T, strict=True):
            # From the first row, and in units of the widest: means of large numbers and squares of
            # small ones stay exact.
            spread = true - true[0]
            unit = np.abs(spread).max()
            if unit > 0.0:
                spread /= unit
                variation = np.sum((spread - spread.mean()) ** 2)
                found.append(1.0 - np.sum((wrong.astype(np.float64) / unit) ** 2) / variation)
    return float(np.mean(found)) if found else None
