"""Losses of a regression; their targets are real numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from xpnet.arrays.dispatch import elementwise, underflowing
from xpnet.arrays.ops import Array, namespace, targets_like
from xpnet.gates.protocol import Grads
from xpnet.losses.samples import (
    SCORES_ONLY,
    T_AND_WEIGHT,
    Reduction,
    Targets,
    sample_factors,
    times,
    weighted_sum,
)

__all__ = ["SquaredLoss"]


@elementwise
@underflowing
def _squared_error(y: Array, t: Array, factor: Any) -> tuple[Array, Array]:
    """Return ½ (y - t)², and its gradient times the sample's factor."""
    difference = y - t
    return (0.5 * difference) * difference, difference * factor


@dataclass(frozen=True)
class SquaredLoss:
    r"""The Euclidean loss :math:`l = \frac12 \sum_j (y_j - t_j)^2`, with dy = y - t, dt = t - y.

    ``reduction="sum"`` gives E = ½ Σ (y - t)² over the whole batch; "mean" divides E by the
    number of samples (not of elements). Class indices count as one-hot rows.

    Examples
    --------
    >>> import numpy as np
    >>> float(SquaredLoss().forward(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))[0])
    2.5
    """

    reduction: Reduction = "mean"
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "real"
    takes_number: ClassVar[bool] = True

    def forward(self, y: Array, t: Array, weight: Array | None = None) -> tuple[Array, Any]:
        # Targets of y's shape and dtype may be a formula too, as in an autoencoder.
        formula = t.shape == y.shape and t.dtype == y.dtype
        factor = sample_factors(y, weight, self.reduction)
        errors, gradient = _squared_error(y, targets_like(t, y), factor)
        loss = weighted_sum(namespace(y).sum(errors, axis=-1), factor)
        return loss, (gradient, formula)

    def backward(self, cache: Any, dout: Any, needs: Sequence[bool] = SCORES_ONLY) -> Grads:
        gradient, formula = cache
        dy = times(gradient, dout)
        return dy, -dy if formula and needs[1] else None, None

    def decide(self, y: Array) -> Array:
        """Return the class of the largest output, shape=(...); for one-hot targets."""
        return namespace(y).argmax(y, axis=-1)
