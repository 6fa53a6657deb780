"""What all losses share: how the losses of a batch's samples become one number."""

from __future__ import annotations

import math
from typing import Any, Literal

from xpnet.arrays.dispatch import replaceable
from xpnet.arrays.ops import Array, masked, namespace
from xpnet.arrays.ranks import place_in_batch, sum_over_ranks
from xpnet.errors import UsageError, shown

__all__ = [
    "SCORES_ONLY", "T_AND_WEIGHT", "Reduction", "Targets", "batch_loss", "check_reduction",
    "counted", "for_models", "sample_factors", "times",
]  # fmt: skip

Reduction = Literal["mean", "sum"]
# The targets that a loss takes besides class indices: "probabilities" are rows that add up to 1,
# "unit" are independent numbers from 0 to 1, and "real" are any real numbers, as in a regression.
Targets = Literal["probabilities", "unit", "real"]
SCORES_ONLY = (True, False, False)
T_AND_WEIGHT = (1, 2)


def check_reduction(reduction: Any) -> None:
    """Raise `UsageError` for a reduction that is neither mean nor sum."""
    if not isinstance(reduction, str) or reduction not in ("mean", "sum"):
        raise UsageError(f"reduction is {shown(reduction)}; expected mean or sum")


def for_models(t: Array, scores: Array) -> Array:
    """Return the targets of K models; those that all of them share get the axis of the models.

    Parameters
    ----------
    t : array
        Class indices or values, shape=(N,), or rows, shape=(N, C); or the same with K in front.
    scores : array, shape=(K, N, C)
    """
    one_each = t.shape == scores.shape[:-1] and (
        scores.shape[-1] == 1 or namespace(t).isdtype(t.dtype, "integral")
    )
    return t if t.ndim == scores.ndim or one_each else _repeated(t, scores)


def _repeated(a: Array, scores: Array) -> Array:
    return namespace(a).broadcast_to(a, (scores.shape[0], *a.shape))


def sample_factors(
    scores: Array, weight: Array | None, reduction: str, per_model: bool = False
) -> Any:
    r"""Return the derivative of the batch's loss with respect to the loss of each sample.

    Parameters
    ----------
    scores : array, shape=(..., C)
        Only their shape and dtype matter.
    weight : array, shape=(...), or None
        How much each sample counts; None means 1 each.
    reduction : str
        mean: $w_i / \sum_k w_k$, or 0 in a batch whose weights are all 0; sum: $w_i$.
    per_model : bool
        Whether the first axis is one of models, each with a mean of its own. All of them may share
        one weight, of scores' shape without its first and its last axis.

    Returns
    -------
    float, or array, shape=(..., 1)
        It broadcasts against the scores.

    Raises
    ------
    ValueError
        `reduction` is unknown, or `weight` has a wrong shape.
    """
    check_reduction(reduction)
    mean = reduction == "mean"
    shape = tuple(scores.shape[:-1])
    if weight is None:
        if not mean:
            return 1.0
        _, rows = place_in_batch(shape[per_model] if len(shape) > per_model else 1)
        return 1.0 / max(rows * math.prod(shape[per_model + 1 :]), 1)
    if per_model and weight.ndim < len(shape):
        weight = _repeated(weight, scores)
    if weight.shape != shape:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}; expected one value per sample, shape {shape}"
        )
    xp = namespace(scores)
    weight = xp.astype(weight, scores.dtype)
    if mean:
        axes = tuple(range(int(per_model), weight.ndim))
        (total,) = sum_over_ranks([xp.sum(weight, axis=axes, keepdims=True)])
        weight = weight / xp.where(total == 0, 1.0, total)
    return weight[..., None]


def counted(scores: Array, factor: Any) -> Array:
    """Return the scores, with 0 for samples of factor 0: 0 times what is infinite there is NaN."""
    if isinstance(factor, float):
        return scores
    return namespace(scores).where(factor != 0, scores, 0.0)


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


@replaceable
def weighted_sums(losses: Array, factor: Any) -> Array:
    """Return each model's loss of its batch, shape=(K,), from losses of shape=(K, ...)."""
    xp = namespace(losses)
    axes = tuple(range(1, losses.ndim))
    if isinstance(factor, float):
        return xp.sum(losses, axis=axes) * factor
    factor = factor[..., 0]
    return xp.sum(masked(losses, factor != 0) * factor, axis=axes)


def batch_loss(losses: Array, factor: Any, per_model: bool) -> Array:
    """Return the loss of the batch, 0-d, or that of each model, shape=(K,)."""
    return weighted_sums(losses, factor) if per_model else weighted_sum(losses, factor)


def times(gradient: Array, dout: Any) -> Array:
    """Return gradient · dout; at the end of a graph, dout is the Python number 1."""
    return gradient if isinstance(dout, float) and dout == 1.0 else gradient * dout
