"""What all losses share: how the losses of a batch's samples become one number."""

from __future__ import annotations

import math
from typing import Any, Literal

from xpnet.arrays.dispatch import replaceable
from xpnet.arrays.ops import Array, masked, namespace
from xpnet.errors import UsageError, shown

__all__ = [
    "SCORES_ONLY", "T_AND_WEIGHT", "Reduction", "Targets", "check_reduction", "counted",
    "sample_factors", "times", "weighted_sum",
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


def sample_factors(scores: Array, weight: Array | None, reduction: str) -> Any:
    r"""Return the derivative of the batch's loss with respect to the loss of each sample.

    Parameters
    ----------
    scores : array, shape=(..., C)
        Only their shape and dtype matter.
    weight : array, shape=(...), or None
        How much each sample counts; None means 1 each.
    reduction : str
        mean: $w_i / \sum_k w_k$; sum: $w_i$.

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
        return 1.0 / max(math.prod(shape), 1) if mean else 1.0
    if weight.shape != shape:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}; expected one value per sample, shape {shape}"
        )
    xp = namespace(scores)
    weight = xp.astype(weight, scores.dtype)
    return (weight / xp.sum(weight) if mean else weight)[..., None]


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


def times(gradient: Array, dout: Any) -> Array:
    """Return gradient · dout; at the end of a graph, dout is the Python number 1."""
    return gradient if isinstance(dout, float) and dout == 1.0 else gradient * dout
