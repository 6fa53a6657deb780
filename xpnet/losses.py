"""Losses: gates whose output is 0-d, and whose targets receive no gradient.

All take ``forward(x, t, weight=None)`` with

- x, shape=(..., C): the network's outputs ("scores"), before any softmax or sigmoid;
- t: class indices, shape=(...), or one-hot rows or real targets, shape=(..., C);
- weight, shape=(...): how much each sample counts, 1 if left out.

With l_i the loss of sample i, ``reduction="mean"`` gives Σ w_i l_i / Σ w_i and "sum" gives
Σ w_i l_i. A loss also knows how to read the scores that it was trained on: ``decide`` turns
them into class indices, ``probabilities`` into those. Whoever writes a loss for the trainer
gives it ``reduction``, ``targets`` and ``decide`` beside the two passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from xpnet.gates import Grads
from xpnet.kernels import elementwise, replaceable
from xpnet.ops import Array, at_least, namespace, reduce_samples, sigmoid, targets_like

__all__ = ["HingeLoss", "SigmoidWithLoss", "SoftmaxWithLoss", "SquaredLoss"]

Reduction = Literal["mean", "sum"]
# What a loss may be given beside class indices: rows of probabilities, which add up to 1;
# independent numbers from 0 to 1; or any real numbers, as in a regression.
Targets = Literal["probabilities", "unit", "real"]
FIRST = (True, False, False)
T_AND_WEIGHT = (1, 2)


class Residual(NamedTuple):
    """What three of the losses keep: their gradient is y - t times the sample's factor."""

    difference: Array  # y - t
    factor: Any


def _residual_backward(cache: Residual, dout: Array) -> Grads:
    return _scaled(cache.difference, cache.factor, dout), None, None


@elementwise
def _scaled(difference: Array, factor: Any, dout: Array) -> Array:
    return difference * (factor * dout)


def _softmax(x: Array) -> tuple[Array, Array, Array]:
    """(x - max, exp of it, its sum): the largest exponent is 0, so nothing overflows."""
    xp = namespace(x)
    shifted = x - xp.max(x, axis=-1, keepdims=True)
    exps = xp.exp(shifted)
    return shifted, exps, xp.sum(exps, axis=-1, keepdims=True)


@replaceable
def softmax_cross_entropy(x: Array, t: Array) -> tuple[Array, Array]:
    """Each sample's loss, shape=(...), and softmax(x) - t, shape=(..., C)."""
    xp = namespace(x)
    t = targets_like(t, x)
    shifted, y, total = _softmax(x)
    losses = xp.log(total)[..., 0] - xp.sum(shifted * t, axis=-1)
    y /= total
    y -= t
    return losses, y


@dataclass(frozen=True)
class SoftmaxWithLoss:
    r"""Softmax and cross-entropy in one: :math:`l = \log\sum_j e^{x_j} - \sum_j t_j x_j`.

    Notes
    -----
    With :math:`y_j = e^{x_j} / \sum_k e^{x_k}` and :math:`l = -\sum_j t_j \log y_j`,
    :math:`\partial l / \partial x_j = y_j - t_j` because :math:`\sum_j t_j = 1`; so the mean
    over N samples has the gradient :math:`(y - t) / N`. The log-sum-exp form never takes
    the logarithm of an underflown probability. One-hot rows may be soft, but must add up
    to 1. Source: Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.4.
    """

    reduction: Reduction = "mean"
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "probabilities"

    def forward(self, x: Array, t: Array, weight: Array | None = None) -> tuple[Array, Residual]:
        losses, difference = softmax_cross_entropy(x, t)
        loss, factor = reduce_samples(losses, weight, self.reduction)
        return loss, Residual(difference, factor)

    def backward(self, cache: Residual, dout: Array, needs: Sequence[bool] = FIRST) -> Grads:
        return _residual_backward(cache, dout)

    def probabilities(self, x: Array) -> Array:
        """softmax(x), shape=(..., C)."""
        _, exps, total = _softmax(x)
        exps /= total
        return exps

    def decide(self, x: Array) -> Array:
        """The class of the largest score, shape=(...)."""
        return namespace(x).argmax(x, axis=-1)


@dataclass(frozen=True)
class SquaredLoss:
    r"""The Euclidean loss :math:`l = \frac12 \sum_j (y_j - t_j)^2`, with dy = y - t, dt = t - y.

    ``reduction="sum"`` is E = ½ Σ (y - t)² over the whole batch, "mean" the same divided by
    the number of samples (not of elements). Class indices are taken as one-hot rows.
    """

    reduction: Reduction = "mean"
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "real"

    def forward(self, y: Array, t: Array, weight: Array | None = None) -> tuple[Array, Any]:
        # Targets of y's own shape may be a formula too, as in an autoencoder.
        formula = t.shape == y.shape and t.dtype == y.dtype
        t = targets_like(t, y)
        difference = y - t
        losses = 0.5 * namespace(y).sum(difference * difference, axis=-1)
        loss, factor = reduce_samples(losses, weight, self.reduction)
        return loss, (Residual(difference, factor), formula)

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = FIRST) -> Grads:
        residual, formula = cache
        dy: Array = _residual_backward(residual, dout)[0]
        return dy, -dy if formula and needs[1] else None, None

    def decide(self, y: Array) -> Array:
        """For classification with one-hot targets: the class of the largest output."""
        return namespace(y).argmax(y, axis=-1)


@elementwise
def _binary_cross_entropy(x: Array, t: Array) -> Array:
    xp = namespace(x)
    return at_least(x, 0.0) - x * t + xp.log1p(xp.exp(-xp.abs(x)))


@dataclass(frozen=True)
class SigmoidWithLoss:
    r"""Sigmoid and binary cross-entropy in one, summed over the outputs.

    :math:`l = \sum_j \max(x_j, 0) - x_j t_j + \log(1 + e^{-|x_j|})`, which is
    :math:`-\sum_j t_j \log y_j + (1 - t_j) \log(1 - y_j)` with :math:`y = \sigma(x)`, without
    overflow; :math:`\partial l / \partial x_j = y_j - t_j`.
    """

    reduction: Reduction = "mean"
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "unit"

    def forward(self, x: Array, t: Array, weight: Array | None = None) -> tuple[Array, Residual]:
        xp = namespace(x)
        t = targets_like(t, x)
        losses = xp.sum(_binary_cross_entropy(x, t), axis=-1)
        loss, factor = reduce_samples(losses, weight, self.reduction)
        return loss, Residual(sigmoid(x) - t, factor)

    def backward(self, cache: Residual, dout: Array, needs: Sequence[bool] = FIRST) -> Grads:
        return _residual_backward(cache, dout)

    def probabilities(self, x: Array) -> Array:
        """sigmoid(x) per output; for a single output, the two classes 0 and 1, shape=(..., 2)."""
        y = sigmoid(x)
        return namespace(x).concat([1.0 - y, y], axis=-1) if x.shape[-1] == 1 else y

    def decide(self, x: Array) -> Array:
        """Class 1 where a single output is positive; of several outputs, the largest."""
        xp = namespace(x)
        return xp.astype(x[..., 0] > 0, xp.int32) if x.shape[-1] == 1 else xp.argmax(x, axis=-1)


@dataclass(frozen=True)
class HingeLoss:
    r"""Multiclass SVM: :math:`l = \sum_{j \ne c} \max(0, x_j - x_c + \Delta)`.

    Notes
    -----
    c is the true class, Δ the margin. Every class j that violates the margin receives +1,
    the true class -1 for each of them. Source: Weston and Watkins, "Support vector machines
    for multi-class pattern recognition", 1999; CS231n, lecture 3.
    """

    margin: float = 1.0
    reduction: Reduction = "mean"
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "probabilities"

    def forward(self, x: Array, t: Array, weight: Array | None = None) -> tuple[Array, Any]:
        xp = namespace(x)
        t = targets_like(t, x)
        true = xp.sum(x * t, axis=-1, keepdims=True)
        margins = at_least(x - true + self.margin, 0.0) * (1.0 - t)
        loss, factor = reduce_samples(xp.sum(margins, axis=-1), weight, self.reduction)
        return loss, (margins, t, factor)

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = FIRST) -> Grads:
        margins, t, factor = cache
        xp = namespace(dout)
        violated = xp.astype(margins > 0, margins.dtype) * (1.0 - t)
        dx = violated - t * xp.sum(violated, axis=-1, keepdims=True)
        dx *= factor * dout
        return dx, None, None

    def decide(self, x: Array) -> Array:
        """The class of the largest score, shape=(...)."""
        return namespace(x).argmax(x, axis=-1)
