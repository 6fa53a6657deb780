"""Losses: gates whose output is 0-d, and whose targets receive no gradient.

All take ``forward(x, t, weight=None)`` with

- x, shape=(..., C): the network's outputs ("scores"), before any softmax or sigmoid;
- t: class indices, shape=(...), or one-hot rows or real targets, shape=(..., C);
- weight, shape=(...): how much each sample counts; 1 if you leave it out.

Let l_i be the loss of sample i. ``reduction="mean"`` gives Σ w_i l_i / Σ w_i, and "sum" gives
Σ w_i l_i. A loss also reads scores: ``decide`` turns them into class indices, and
``probabilities`` into probabilities. A loss used by `Trainer` must define ``reduction``,
``targets`` and ``decide``.

A loss is nearly always the end of its graph, where the gradient starts as 1. So most losses
compute their gradient in the forward pass, which needs the same exponentials, and multiply it by
each sample's factor. Their backward pass then has nothing left to do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xpnet.arrays.dispatch import elementwise, replaceable, underflowing
from xpnet.arrays.ops import Array, at_least, masked, namespace, sigmoid, targets_like
from xpnet.errors import real, shown
from xpnet.gates.protocol import Grads

__all__ = ["LOSSES", "HingeLoss", "SigmoidWithLoss", "SoftmaxWithLoss", "SquaredLoss"]

Reduction = Literal["mean", "sum"]
# The targets that a loss takes besides class indices: "probabilities" are rows that add up to 1,
# "unit" are independent numbers from 0 to 1, and "real" are any real numbers, as in a regression.
Targets = Literal["probabilities", "unit", "real"]
SCORES_ONLY = (True, False, False)
T_AND_WEIGHT = (1, 2)


def sample_factors(scores: Array, weight: Array | None, reduction: str) -> Any:
    r"""Return the derivative of the batch's loss with respect to the loss of each sample.

    Parameters
    ----------
    scores : array, shape=(..., C)
        Only their shape and dtype matter.
    weight : array, shape=(...), or None
        How much each sample counts; None means 1 each.
    reduction : str
        mean: :math:`w_i / \sum_k w_k`; sum: :math:`w_i`.

    Returns
    -------
    float, or array, shape=(..., 1)
        It broadcasts against the scores.

    Raises
    ------
    ValueError
        `reduction` is unknown, or `weight` has a wrong shape.
    """
    mean = reduction == "mean"
    if not mean and reduction != "sum":
        raise ValueError(f"reduction is {shown(reduction)}; expected mean or sum")
    shape = tuple(scores.shape[:-1])
    if weight is None:
        return 1.0 / max(math.prod(shape), 1) if mean else 1.0
    if weight.shape != shape:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}; expected one value per sample, shape {shape}"
        )
    xp = namespace(scores)
    weight = xp.astype(weight, scores.dtype)
    return (weight / xp.sum(weight) if mean else weight)[..., None]


@replaceable
def weighted_sum(losses: Array, factor: Any) -> Array:
    """Return the loss of the batch, 0-d: Σ loss · factor over the samples, shape=(...).

    A sample whose factor is 0 does not count, even if its loss is infinite.
    """
    xp = namespace(losses)
    if isinstance(factor, float):
        return xp.sum(losses) * factor
    factor = factor[..., 0]
    return xp.sum(masked(losses, factor != 0) * factor)


def _times(gradient: Array, dout: Any) -> Array:
    """Return gradient · dout; at the end of a graph, dout is the Python number 1."""
    return gradient if isinstance(dout, float) and dout == 1.0 else gradient * dout


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
    r"""Softmax and cross-entropy in one: :math:`l = \log\sum_j e^{x_j} - \sum_j t_j x_j`.

    Notes
    -----
    With :math:`y_j = e^{x_j} / \sum_k e^{x_k}` and :math:`l = -\sum_j t_j \log y_j`,
    :math:`\partial l / \partial x_j = y_j - t_j` because :math:`\sum_j t_j = 1`; so the mean
    over N samples has the gradient :math:`(y - t) / N`. The log-sum-exp form never takes
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
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "probabilities"
    takes_number: ClassVar[bool] = True

    def forward(self, x: Array, t: Array, weight: Array | None = None) -> tuple[Array, Array]:
        factor = sample_factors(x, weight, self.reduction)
        losses, gradient = softmax_cross_entropy(x, t, factor)
        return weighted_sum(losses, factor), gradient

    def backward(self, cache: Array, dout: Any, needs: Sequence[bool] = SCORES_ONLY) -> Grads:
        return _times(cache, dout), None, None

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
        dy = _times(gradient, dout)
        return dy, -dy if formula and needs[1] else None, None

    def decide(self, y: Array) -> Array:
        """Return the class of the largest output, shape=(...); for one-hot targets."""
        return namespace(y).argmax(y, axis=-1)


@elementwise
@underflowing
def _binary_cross_entropy(x: Array, t: Array, factor: Any) -> tuple[Array, Array]:
    """Return each output's loss, and its gradient times the sample's factor."""
    xp = namespace(x)
    # x · slope is max(x, 0) - x t. The mask gives 0, not NaN, for an infinite x that t agrees with.
    slope = xp.astype(x > 0, x.dtype) - t
    loss = masked(x, slope != 0) * slope + xp.log1p(xp.exp(-xp.abs(x)))
    return loss, (sigmoid(x) - t) * factor


@dataclass(frozen=True)
class SigmoidWithLoss:
    r"""Sigmoid and binary cross-entropy in one, summed over the outputs.

    :math:`l = \sum_j \max(x_j, 0) - x_j t_j + \log(1 + e^{-|x_j|})`, which is
    :math:`-\sum_j t_j \log y_j + (1 - t_j) \log(1 - y_j)` with :math:`y = \sigma(x)`, without
    overflow; :math:`\partial l / \partial x_j = y_j - t_j`.

    Examples
    --------
    >>> import numpy as np
    >>> loss, _ = SigmoidWithLoss().forward(np.array([[0.0]]), np.array([1]))
    >>> round(float(loss), 4)  # log 2
    0.6931
    """

    reduction: Reduction = "mean"
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "unit"
    takes_number: ClassVar[bool] = True

    def forward(self, x: Array, t: Array, weight: Array | None = None) -> tuple[Array, Array]:
        factor = sample_factors(x, weight, self.reduction)
        losses, gradient = _binary_cross_entropy(x, targets_like(t, x), factor)
        return weighted_sum(namespace(x).sum(losses, axis=-1), factor), gradient

    def backward(self, cache: Array, dout: Any, needs: Sequence[bool] = SCORES_ONLY) -> Grads:
        return _times(cache, dout), None, None

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
    r"""Multiclass SVM: :math:`l = \sum_{j \ne c} \max(0, x_j - x_c + \Delta)`.

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
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "probabilities"
    takes_number: ClassVar[bool] = True

    def __post_init__(self) -> None:
        real("margin", self.margin, 0.0)

    def forward(self, x: Array, t: Array, weight: Array | None = None) -> tuple[Array, Any]:
        xp = namespace(x)
        rows = targets_like(t, x)
        others = 1.0 - rows
        true = target_scores(x, t, rows)[..., None]
        margins = masked(at_least(x - true + self.margin, 0.0), others != 0) * others
        factor = sample_factors(x, weight, self.reduction)
        loss = weighted_sum(xp.sum(margins, axis=-1), factor)
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


# The names in `mlp` and on the command line.
LOSSES: dict[str, type[Any]] = {
    "softmax": SoftmaxWithLoss,
    "squared": SquaredLoss,
    "sigmoid": SigmoidWithLoss,
    "hinge": HingeLoss,
}
