"""Losses that report what scikit-learn reports; their gradients are those of `xpnet.losses`."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from xpnet.arrays.dispatch import elementwise
from xpnet.arrays.ops import Array, namespace, sigmoid, targets_like, within
from xpnet.losses import SigmoidWithLoss, SoftmaxWithLoss, SquaredLoss
from xpnet.losses.classification import softmax_cross_entropy
from xpnet.losses.samples import batch_loss, counted, for_models, sample_factors

__all__ = ["AveragedSquares", "BinaryLogLoss", "LogLoss"]


def _eps(x: Array) -> float:
    return 2.0**-23 if x.dtype == namespace(x).float32 else 2.0**-52  # finfo would take 20 µs


def _clipped(losses: Array) -> Array:
    """Return -log p as if p were clipped to [ε, 1 - ε], with ε of the dtype."""
    eps = _eps(losses)
    return within(losses, -math.log1p(-eps), -math.log(eps))


class LogLoss(SoftmaxWithLoss):
    """Softmax and cross-entropy; probabilities are clipped in the loss, not in its gradient."""

    takes_number: ClassVar[bool] = True
    per_model: bool = False

    def forward(self, x: Array, t: Array, weight: Array | None = None) -> tuple[Array, Array]:
        factor = sample_factors(x, weight, self.reduction, self.per_model)
        t = for_models(t, x) if self.per_model else t
        losses, gradient = softmax_cross_entropy(counted(x, factor), t, factor)
        return batch_loss(_clipped(losses), factor, self.per_model), gradient


@elementwise
def _binary_log_loss(x: Array, t: Array, factor: Any, low: float, high: float) -> Any:
    """Return -log of the probability of each answer, and the gradient times the factor.

    1 - p loses digits where p is nearly 1, as it does in scikit-learn, whose curve this is.
    """
    xp = namespace(x)
    p = sigmoid(x)
    answer = xp.where(t > 0.5, p, 1.0 - p)
    return -xp.log(within(answer, low, high)), (p - t) * factor


class BinaryLogLoss(SigmoidWithLoss):
    """Sigmoid and cross-entropy of each output; probabilities are clipped as in `LogLoss`."""

    takes_number: ClassVar[bool] = True
    per_model: bool = False

    def forward(self, x: Array, t: Array, weight: Array | None = None) -> tuple[Array, Array]:
        factor = sample_factors(x, weight, self.reduction, self.per_model)
        t = for_models(t, x) if self.per_model else t
        eps = _eps(x)
        losses, gradient = _binary_log_loss(
            counted(x, factor), targets_like(t, x), factor, eps, 1.0 - eps
        )
        return batch_loss(namespace(x).sum(losses, axis=-1), factor, self.per_model), gradient


class AveragedSquares(SquaredLoss):
    """½ (y - t)², averaged over the outputs; its gradient is that of the sum over the outputs."""

    takes_number: ClassVar[bool] = True
    per_model: bool = False

    def forward(self, y: Array, t: Array, weight: Array | None = None) -> tuple[Array, Any]:
        loss, cache = super().forward(y, t, weight)
        return loss / y.shape[-1], cache
