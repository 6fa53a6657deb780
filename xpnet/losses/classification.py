"""Losses of a classification; their targets are class indices, or rows of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from xpnet.arrays.dispatch import elementwise, replaceable, underflowing
from xpnet.arrays.ops import Array, at_least, masked, namespace, sigmoid, targets_like
from xpnet.errors import real
from xpnet.gates.protocol import Grads
from xpnet.losses.samples import (
    SCORES_ONLY,
    T_AND_WEIGHT,
    Reduction,
    Targets,
    batch_loss,
    check_reduction,
    counted,
    for_models,
    sample_factors,
    times,
)

__all__ = ["HingeLoss", "SigmoidWithLoss", "SoftmaxWithLoss"]


def _softmax(x: Array) -> tuple[Array, Array, Array]:
    """Return (x - max x, its exp, the sum of that); the largest exponent is 0: no overflow."""
    xp = namespace(x)
    shifted = x - xp.max(x, axis=-1, keepdims=True)
    exps = xp.exp(shifted)
    return shifted, exps, xp.sum(exps, axis=-1, keepdims=True)


@replaceable
def target_scores(x: Array, t: Array, rows: Array) -> Array:
    """Return Σ_j t_j x_j of each row; for class indices, this is the score of the true class.

    `rows` is ``targets_like(t, x)``. Where it is 0, x counts as 0, even if it is infinite.
    """
    return namespace(x).sum(masked(x, rows != 0) * rows, axis=-1)


@replaceable
@underflowing
def softmax_cross_entropy(x: Array, t: Array, factor: Any) -> tuple[Array, Array]:
    """Return each sample's loss, shape=(...), and (softmax(x) - t) · factor, shape=(..., C)."""
    rows = targets_like(t, x)
    shifted, y, total = _softmax(x)
    losses = namespace(x).log(total)[..., 0] - target_scores(shifted, t, rows)
    y /= total
    y -= rows
    y *= factor
    return losses, y


@dataclass(frozen=True)
class SoftmaxWithLoss:
    r"""Softmax and cross-entropy in one: $l = \log\sum_j e^{x_j} - \sum_j t_j x_j$.

    Notes
    -----
    With $y_j = e^{x_j} / \sum_k e^{x_k}$ and $l = -\sum_j t_j \log y_j$,
    $\partial l / \partial x_j = y_j - t_j$ because $\sum_j t_j = 1$; so the mean
    over N samples has the gradient $(y - t) / N$. The log-sum-exp form never takes
    the logarithm of a probability that underflowed to 0. Instead of one-hot rows you can give
    soft targets: rows of probabilities that add up to 1. Source: Bishop, "Pattern Recognition
    and Machine Learning", 2006, section 4.3.4.

    Examples
    --------
    >>> import numpy as np
    >>> loss, _ = SoftmaxWithLoss().forward(np.array([[2.0, 0.0]]), np.array([0]))
    >>> round(float(loss), 4)  # log(1 + exp(-2))
    0.1269
    """

    reduction: Reduction = "mean"
    per_model: bool = False
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "probabilities"
    takes_number: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_reduction(self.reduction)

    def forward(self, x: Array, t: Array, weight: Array | None = None) -> tuple[Array, Array]:
        factor = sample_factors(x, weight, self.reduction, self.per_model)
        t = for_models(t, x) if self.per_model else t
        losses, gradient = softmax_cross_entropy(counted(x, factor), t, factor)
        return batch_loss(losses, factor, self.per_model), gradient

    def backward(self, cache: Array, dout: Any, needs: Sequence[bool] = SCORES_ONLY) -> Grads:
        return times(cache, dout), None, None

    @underflowing
    def probabilities(self, x: Array) -> Array:
        """Return softmax(x), shape=(..., C)."""
        _, exps, total = _softmax(x)
        exps /= total
        return exps

    def decide(self, x: Array) -> Array:
        """Return the class of the largest score, shape=(...)."""
        return namespace(x).argmax(x, axis=-1)


@elementwise
@underflowing
def binary_cross_entropy(x: Array, t: Array, factor: Any) -> tuple[Array, Array]:
    """Return each output's loss, and its gradient times the sample's factor."""
    xp = namespace(x)
    # x · slope is max(x, 0) - x t. The mask gives 0, not NaN, for an infinite x that t agrees with.
    slope = xp.astype(x > 0, x.dtype) - t
    loss = masked(x, slope != 0) * slope + xp.log1p(xp.exp(-xp.abs(x)))
    return loss, (sigmoid(x) - t) * factor


@dataclass(frozen=True)
class SigmoidWithLoss:
    r"""Sigmoid and binary cross-entropy in one, summed over the outputs.

    $l = \sum_j \max(x_j, 0) - x_j t_j + \log(1 + e^{-|x_j|})$, which is
    $-\sum_j t_j \log y_j + (1 - t_j) \log(1 - y_j)$ with $y = \sigma(x)$, without
    overflow; $\partial l / \partial x_j = y_j - t_j$.

    Examples
    --------
    >>> import numpy as np
    >>> loss, _ = SigmoidWithLoss().forward(np.array([[0.0]]), np.array([1]))
    >>> round(float(loss), 4)  # log 2
    0.6931
    """

    reduction: Reduction = "mean"
    per_model: bool = False
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "unit"
    takes_number: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_reduction(self.reduction)

    def forward(self, x: Array, t: Array, weight: Array | None = None) -> tuple[Array, Array]:
        factor = sample_factors(x, weight, self.reduction, self.per_model)
        t = for_models(t, x) if self.per_model else t
        losses, gradient = binary_cross_entropy(counted(x, factor), targets_like(t, x), factor)
        return batch_loss(namespace(x).sum(losses, axis=-1), factor, self.per_model), gradient

    def backward(self, cache: Array, dout: Any, needs: Sequence[bool] = SCORES_ONLY) -> Grads:
        return times(cache, dout), None, None

    def probabilities(self, x: Array) -> Array:
        """Return sigmoid(x), shape=(..., C); for a single output, those of 0 and 1, (..., 2)."""
        if x.shape[-1] != 1:
            return sigmoid(x)
        return namespace(x).concat([sigmoid(-x), sigmoid(x)], axis=-1)  # 1 - y would cancel

    def decide(self, x: Array) -> Array:
        """Return the class of the largest output; for a single output, 1 where it is positive."""
        xp = namespace(x)
        return xp.astype(x[..., 0] > 0, xp.int32) if x.shape[-1] == 1 else xp.argmax(x, axis=-1)


@dataclass(frozen=True)
class HingeLoss:
    r"""Multiclass SVM: $l = \sum_{j \ne c} \max(0, x_j - x_c + \Delta)$.

    Notes
    -----
    c is the true class, Δ the margin. Each class j that violates the margin has the gradient +1;
    the true class has -1 for each of them. Source: Weston and Watkins, "Support vector machines
    for multi-class pattern recognition", 1999; CS231n, lecture 3.

    Examples
    --------
    >>> import numpy as np
    >>> loss, _ = HingeLoss().forward(np.array([[3.2, 5.1, -1.7]]), np.array([0]))
    >>> round(float(loss), 1)  # the cat of CS231n
    2.9
    """

    margin: float = 1.0
    reduction: Reduction = "mean"
    per_model: bool = False
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "probabilities"
    takes_number: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "margin", real("margin", self.margin, 0.0))
        check_reduction(self.reduction)

    def forward(self, x: Array, t: Array, weight: Array | None = None) -> tuple[Array, Any]:
        xp = namespace(x)
        factor = sample_factors(x, weight, self.reduction, self.per_model)
        t = for_models(t, x) if self.per_model else t
        x = counted(x, factor)
        rows = targets_like(t, x)
        others = 1.0 - rows
        true = target_scores(x, t, rows)[..., None]
        margins = masked(at_least(x - true + self.margin, 0.0), others != 0) * others
        loss = batch_loss(xp.sum(margins, axis=-1), factor, self.per_model)
        return loss, (margins, rows, others, factor)

    def backward(self, cache: Any, dout: Any, needs: Sequence[bool] = SCORES_ONLY) -> Grads:
        margins, rows, others, factor = cache
        xp = namespace(margins)
        violated = xp.astype(margins > 0, margins.dtype) * others
        dx = violated - rows * xp.sum(violated, axis=-1, keepdims=True)
        dx *= factor * dout
        return dx, None, None

    def decide(self, x: Array) -> Array:
        """Return the class of the largest score, shape=(...)."""
        return namespace(x).argmax(x, axis=-1)
