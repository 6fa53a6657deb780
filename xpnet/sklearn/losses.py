"""Losses that report what scikit-learn reports; their gradients are those of `xpnet.losses`."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from xpnet.arrays.ops import Array, namespace, targets_like, within
from xpnet.losses import SigmoidWithLoss, SoftmaxWithLoss, SquaredLoss
from xpnet.losses.classification import binary_cross_entropy, softmax_cross_entropy
from xpnet.losses.samples import counted, sample_factors, weighted_sum

__all__ = ["AveragedSquares", "BinaryLogLoss", "LogLoss"]


def _clipped(losses: Array) -> Array:
    """Return -log p as if p were clipped to [ε, 1 - ε], with ε of the dtype."""
    eps = 2.0**-23 if losses.dtype == namespace(losses).float32 else 2.0**-52
    return within(losses, -math.log1p(-eps), -math.log(eps))


class LogLoss(SoftmaxWithLoss):
    """Softmax and cross-entropy; probabilities are clipped in the loss, not in its gradient."""

    takes_number: ClassVar[bool] = True

    def forward(self, x: Array, t: Array, weight: Array | None = None) -> tuple[Array, Array]:
        factor = sample_factors(x, weight, self.reduction)
        losses, gradient = softmax_cross_entropy(counted(x, factor), t, factor)
        return weighted_sum(_clipped(losses), factor), gradient


class BinaryLogLoss(SigmoidWithLoss):
    """Sigmoid and cross-entropy of each output; probabilities are clipped as in `LogLoss`."""

    takes_number: ClassVar[bool] = True

    def forward(self, x: Array, t: Array, weight: Array | None = None) -> tuple[Array, Array]:
        factor = sample_factors(x, weight, self.reduction)
        losses, gradient = binary_cross_entropy(counted(x, factor), targets_like(t, x), factor)
        losses = namespace(x).sum(_clipped(losses), axis=-1)
        return weighted_sum(losses, factor), gradient


class AveragedSquares(SquaredLoss):
    """½ (y - t)², averaged over the outputs; its gradient is that of the sum over the outputs."""

    takes_number: ClassVar[bool] = True

    def forward(self, y: Array, t: Array, weight: Array | None = None) -> tuple[Array, Any]:
        loss, cache = super().forward(y, t, weight)
        return loss / y.shape[-1], cache
