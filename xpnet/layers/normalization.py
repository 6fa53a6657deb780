"""Batch normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from xpnet.arrays.dispatch import elementwise
from xpnet.arrays.ops import Array, namespace, sum_channels
from xpnet.arrays.ranks import place_in_batch, sum_over_ranks
from xpnet.errors import real
from xpnet.gates.protocol import Grads

__all__ = ["BatchNorm"]


class BatchNormCache(NamedTuple):
    normalized: Array
    scale: Array  # gamma / standard deviation, in a shape that fits x
    measured: bool  # whether mean and variance are those of this batch
    statistics: tuple[Array, Array]  # mean and variance as they are after this batch


@dataclass(frozen=True)
class BatchNorm:
    r"""Batch normalization: a feature gets mean 0, variance 1, then a trained scale and shift.

    Inputs
    ------
    x : array, shape=(N, M) or (N, C, H, W)
        M features; or images, whose features are their C channels.
    gamma, beta : array, shape=(M,) or (C,)
        The trained scale and shift.
    mean, var : array, shape=(M,) or (C,)
        Statistics of the network, see `xpnet.models.Network`: running means of the batches' means
        and variances. `observed` returns their new values; they get no gradient.
    step : int32 array with one element, or None
        The training step. None means inference: mean and var normalize x.

    Parameters
    ----------
    momentum : float in [0, 1)
        How much of the running statistics each step keeps. The first batch of a new network, whose
        mean is 0 and variance 1, keeps nothing: so the statistics mean something from the start,
        and a model that is trained on keeps its own.
    eps : float
        Added to the variance.

    Raises
    ------
    ValueError
        The shapes do not fit.

    Notes
    -----
    With n values of a feature in the batch, μ and σ² their mean and variance (divided by n), and
    G the gradient with respect to y,

    $$\hat x = (x - \mu) / \sqrt{\sigma^2 + \epsilon}, \quad y = \gamma \hat x + \beta$$

    $$d\gamma = \sum G \hat x, \quad d\beta = \sum G, \quad dx = \frac{\gamma}{\sqrt{\sigma^2 +
    \epsilon}} (G - \tfrac1n d\beta - \tfrac1n \hat x\, d\gamma)$$

    The running variance takes the unbiased one (divided by n - 1), as in the paper. One value, or
    none, has no variance: such a batch is normalized as in inference, and leaves the statistics
    alone. Do not add a bias before this layer: it subtracts it again. Source: Ioffe and Szegedy,
    "Batch normalization: accelerating deep network training by reducing internal covariate shift",
    2015, algorithms 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> one, zero = np.ones(1), np.zeros(1)
    >>> y, cache = BatchNorm().forward(
    ...     np.array([[1.0], [3.0]]), one, zero, zero, one, np.array([0], np.int32)
    ... )
    >>> y.round(4).tolist(), [s.tolist() for s in BatchNorm().observed(cache)]
    ([[-1.0], [1.0]], [[2.0], [2.0]])
    """

    momentum: float = 0.9
    eps: float = 1e-5
    integers: ClassVar[tuple[int, ...]] = (5,)

    def __post_init__(self) -> None:
        real("momentum", self.momentum, 0.0, 1.0)
        real("eps", self.eps, 0.0, ends="()")

    def forward(
        self,
        x: Array,
        gamma: Array,
        beta: Array,
        mean: Array,
        var: Array,
        step: Array | None = None,
    ) -> tuple[Array, BatchNormCache]:
        if x.ndim not in (2, 4):
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (N, M) or (N, C, H, W)")
        for name, value in (("gamma", gamma), ("beta", beta), ("mean", mean), ("var", var)):
            if value.shape != x.shape[1:2]:
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)}; expected ({x.shape[1]},), one for "
                    f"each {'channel' if x.ndim == 4 else 'feature'} of x {tuple(x.shape)}"
                )
        count = _values(x)
        measured = step is not None and count > 1
        if measured:
            (total,) = sum_over_ranks([sum_channels(x)])
            centered = _centered(x, along_channels(total, x), 1.0 / count)
            (squares,) = sum_over_ranks([sum_channels(centered, centered)])
            inverse, scale, *after = _measured(
                total, squares, gamma, mean, var, 1.0 / count, count / (count - 1), self.momentum,
                self.eps,
            )  # fmt: skip
        else:
            centered, after = x - along_channels(mean, x), [mean, var]
            inverse, scale = _scales(var, gamma, self.eps)
        y, normalized = _normalized(
            centered, *(along_channels(a, x) for a in (inverse, gamma, beta))
        )
        return y, BatchNormCache(
            normalized, along_channels(scale, x), measured, (after[0], after[1])
        )

    def observed(self, cache: BatchNormCache) -> tuple[Array, Array]:
        """Return the running mean and variance after the batch of `cache`."""
        return cache.statistics

    def backward(
        self, cache: BatchNormCache, dout: Array, needs: Sequence[bool] = (True, True, True)
    ) -> Grads:
        normalized, scale, measured, _ = cache
        dx = None
        dbeta, dgamma = sum_channels(dout), sum_channels(dout, normalized)
        if needs[0] and not measured:
            dx = dout * scale
        elif needs[0]:
            dbetas, dgammas = sum_over_ranks([dbeta, dgamma])
            across = along_channels(dbetas, dout), along_channels(dgammas, dout)
            dx = _dx(dout, normalized, scale, *across, 1.0 / _values(dout))
        return dx, dgamma, dbeta, None, None, None


def _values(x: Array) -> int:
    """Return how many values of a feature the whole batch has."""
    values: int = place_in_batch(x.shape[0])[1] * math.prod(x.shape[2:])
    return values


def along_channels(a: Array, x: Array) -> Array:
    """Return an array (C,) in a shape that broadcasts along the channels of x."""
    return a if x.ndim == 2 else a[:, None, None]


@elementwise
def _centered(x: Array, total: Array, share: float) -> Array:
    return x - total * share


@elementwise
def _scales(var: Array, gamma: Array, eps: float) -> tuple[Array, Array]:
    """Return one over the standard deviation, and gamma times that."""
    inverse = 1.0 / namespace(var).sqrt(var + eps)
    return inverse, gamma * inverse


@elementwise
def _normalized(centered: Array, inverse: Array, gamma: Array, beta: Array) -> tuple[Array, Array]:
    normalized = centered * inverse
    y = normalized * gamma
    y += beta
    return y, normalized


@elementwise
def _dx(
    dout: Array, normalized: Array, scale: Array, dbeta: Array, dgamma: Array, share: float
) -> Array:
    dx = normalized * (dgamma * share)
    dx += dbeta * share
    dx = dout - dx
    dx *= scale
    return dx


@elementwise
def _measured(
    total: Array, squares: Array, gamma: Array, mean: Array, var: Array, share: float,
    unbiased: float, momentum: float, eps: float,
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """Return the scales of a batch, and the statistics after it.

    `total` are the sums of a feature's values, and `squares` those of the centred values' squares.
    Times `share` they are the mean and the variance; times `unbiased`, the unbiased one.
    """
    batch_var = squares * share
    inverse, scale = _scales(batch_var, gamma, eps)
    xp = namespace(mean)
    # A mean of exactly 0 and a variance of exactly 1 are those that a network begins with.
    new = xp.astype(mean == 0.0, mean.dtype) * xp.astype(var == 1.0, mean.dtype)
    rate = new * momentum + (1.0 - momentum)
    return (
        inverse, scale,
        mean + rate * (total * share - mean),
        var + rate * (batch_var * unbiased - var),
    )  # fmt: skip
