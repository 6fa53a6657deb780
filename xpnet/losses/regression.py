"""Losses of a regression; their targets are real numbers.

In all of them y is the network's output and t the target, both of shape=(..., C); class indices
count as one-hot rows. ``reduction="sum"`` adds up the whole batch; "mean" divides that by the
number of samples (not of elements), or by the sum of their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from xpnet.arrays.dispatch import elementwise, underflowing
from xpnet.arrays.ops import Array, at_least, at_most, masked, namespace, targets_like
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

__all__ = ["AbsoluteLoss", "HuberLoss", "PoissonLoss", "QuantileLoss", "SquaredLoss"]


def _forward(
    errors: Callable[..., tuple[Array, Array]],
    y: Array,
    t: Array,
    weight: Array | None,
    reduction: str,
    per_model: bool,
    *settings: float,
) -> tuple[Array, tuple[Array, bool]]:
    """Return the loss of the batch, and the cache of `_backward`.

    ``errors(y, t, factor, *settings)`` returns each output's loss, and its gradient times factor.
    """
    # Targets of y's shape and dtype may be a formula too, as in an autoencoder.
    formula = t.shape == y.shape and t.dtype == y.dtype
    factor = sample_factors(y, weight, reduction, per_model)
    t = for_models(t, y) if per_model else t
    losses, gradient = errors(counted(y, factor), targets_like(t, y), factor, *settings)
    return batch_loss(namespace(y).sum(losses, axis=-1), factor, per_model), (gradient, formula)


def _backward(cache: tuple[Array, bool], dout: Any, needs: Sequence[bool]) -> Grads:
    """Return the gradients of a loss that depends on y - t alone."""
    gradient, formula = cache
    dy = times(gradient, dout)
    return dy, -dy if formula and needs[1] else None, None


@elementwise
@underflowing
def _squared_error(y: Array, t: Array, factor: Any) -> tuple[Array, Array]:
    """Return ½ (y - t)², and its gradient times the sample's factor."""
    difference = y - t
    return (0.5 * difference) * difference, difference * factor


@dataclass(frozen=True)
class SquaredLoss:
    r"""The Euclidean loss $l = \frac12 \sum_j (y_j - t_j)^2$, with dy = y - t, dt = t - y.

    Examples
    --------
    >>> import numpy as np
    >>> float(SquaredLoss().forward(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))[0])
    2.5
    """

    reduction: Reduction = "mean"
    per_model: bool = False
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "real"
    takes_number: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_reduction(self.reduction)

    def forward(self, y: Array, t: Array, weight: Array | None = None) -> tuple[Array, Any]:
        return _forward(_squared_error, y, t, weight, self.reduction, self.per_model)

    def backward(self, cache: Any, dout: Any, needs: Sequence[bool] = SCORES_ONLY) -> Grads:
        return _backward(cache, dout, needs)

    def decide(self, y: Array) -> Array:
        """Return the class of the largest output, shape=(...); for one-hot targets."""
        return namespace(y).argmax(y, axis=-1)


@elementwise
@underflowing
def _absolute_error(y: Array, t: Array, factor: Any) -> tuple[Array, Array]:
    """Return |y - t|, and its gradient times the sample's factor."""
    xp = namespace(y)
    difference = y - t
    sign = xp.astype(difference > 0, y.dtype) - xp.astype(difference < 0, y.dtype)
    return xp.abs(difference), sign * factor


@dataclass(frozen=True)
class AbsoluteLoss:
    r"""The absolute error $l = \sum_j |y_j - t_j|$; its best constant answer is the median.

    The gradient is the sign of y - t: 1, -1, or 0 at a tie. So far outliers pull no more than
    near ones. Source: Laplace's first law of errors, 1774.

    Examples
    --------
    >>> import numpy as np
    >>> float(AbsoluteLoss().forward(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]]))[0])
    3.0
    """

    reduction: Reduction = "mean"
    per_model: bool = False
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "real"
    takes_number: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_reduction(self.reduction)

    def forward(self, y: Array, t: Array, weight: Array | None = None) -> tuple[Array, Any]:
        return _forward(_absolute_error, y, t, weight, self.reduction, self.per_model)

    def backward(self, cache: Any, dout: Any, needs: Sequence[bool] = SCORES_ONLY) -> Grads:
        return _backward(cache, dout, needs)

    def decide(self, y: Array) -> Array:
        """Return the class of the largest output, shape=(...); for one-hot targets."""
        return namespace(y).argmax(y, axis=-1)


@elementwise
@underflowing
def _huber_error(y: Array, t: Array, factor: Any, delta: float) -> tuple[Array, Array]:
    """Return Huber's loss of y - t, and its gradient times the sample's factor."""
    difference = y - t
    slope = at_most(at_least(difference, -delta), delta)
    return slope * (difference - 0.5 * slope), slope * factor


@dataclass(frozen=True)
class HuberLoss:
    r"""Huber's loss: squared near the target, absolute away from it, summed over the outputs.

    With $e = y - t$ it is $\frac12 e^2$ where $|e| \le \delta$, else
    $\delta (|e| - \frac12 \delta)$.

    Notes
    -----
    With s = e, clipped to [-δ, δ], both cases are $s (e - \frac12 s)$, and s is the
    gradient. Source: Huber, "Robust estimation of a location parameter", 1964.

    Examples
    --------
    >>> import numpy as np
    >>> float(HuberLoss(1.0).forward(np.array([[0.5, 3.0]]), np.array([[0.0, 0.0]]))[0])
    2.625
    """

    delta: float = 1.0
    reduction: Reduction = "mean"
    per_model: bool = False
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "real"
    takes_number: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta", real("delta", self.delta, 0.0, ends="()"))
        check_reduction(self.reduction)

    def forward(self, y: Array, t: Array, weight: Array | None = None) -> tuple[Array, Any]:
        return _forward(_huber_error, y, t, weight, self.reduction, self.per_model, self.delta)

    def backward(self, cache: Any, dout: Any, needs: Sequence[bool] = SCORES_ONLY) -> Grads:
        return _backward(cache, dout, needs)

    def decide(self, y: Array) -> Array:
        """Return the class of the largest output, shape=(...); for one-hot targets."""
        return namespace(y).argmax(y, axis=-1)


@elementwise
@underflowing
def _quantile_error(y: Array, t: Array, factor: Any, quantile: float) -> tuple[Array, Array]:
    """Return the pinball loss of y - t, and its gradient times the sample's factor."""
    xp = namespace(y)
    difference = y - t
    above, below = (xp.astype(side, y.dtype) for side in (difference > 0, difference < 0))
    slope = (1.0 - quantile) * above - quantile * below
    return slope * difference, slope * factor


@dataclass(frozen=True)
class QuantileLoss:
    r"""The pinball loss $l = \sum_j \max(q (t_j - y_j), (q - 1) (t_j - y_j))$.

    Its best constant answer is the q-quantile of the targets: a share q of them lies below. The
    gradient is 1 - q above the target, -q below it, and 0 at a tie. At q = ½ this is half of
    `AbsoluteLoss`. Source: Koenker and Bassett, "Regression quantiles", 1978.

    Examples
    --------
    >>> import numpy as np
    >>> y, t = np.array([[1.0], [1.0]]), np.array([[3.0], [0.0]])
    >>> round(float(QuantileLoss(0.9, "sum").forward(y, t)[0]), 4)  # 0.9 · 2 + 0.1 · 1
    1.9
    """

    quantile: float = 0.5
    reduction: Reduction = "mean"
    per_model: bool = False
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "real"
    takes_number: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantile", real("quantile", self.quantile, 0.0, 1.0, "()"))
        check_reduction(self.reduction)

    def forward(self, y: Array, t: Array, weight: Array | None = None) -> tuple[Array, Any]:
        return _forward(
            _quantile_error, y, t, weight, self.reduction, self.per_model, self.quantile
        )

    def backward(self, cache: Any, dout: Any, needs: Sequence[bool] = SCORES_ONLY) -> Grads:
        return _backward(cache, dout, needs)

    def decide(self, y: Array) -> Array:
        """Return the class of the largest output, shape=(...); for one-hot targets."""
        return namespace(y).argmax(y, axis=-1)


@elementwise
@underflowing
def _poisson_deviance(x: Array, t: Array, factor: Any) -> tuple[Array, Array]:
    """Return half the deviance of the rate exp(x), and its gradient times the sample's factor."""
    xp = namespace(x)
    rate, positive = xp.exp(x), t > 0
    # A rate e¹⁰⁰⁰ times t counts alone. The bound changes no digit, and there is no inf - inf.
    behind = at_least(xp.log(xp.where(positive, t, 1.0)) - x, -1000.0)
    return masked(behind, positive) * t - t + rate, (rate - t) * factor


@dataclass(frozen=True)
class PoissonLoss:
    r"""Half the Poisson deviance of counts t >= 0, where the output x is the rate's logarithm.

    $l = \sum_j t_j \log t_j - t_j x_j - t_j + e^{x_j}$, with 0 log 0 = 0;
    $\partial l / \partial x_j = e^{x_j} - t_j$.

    Notes
    -----
    The probability of the count t at the rate $\lambda = e^x$ is
    $\lambda^t e^{-\lambda} / t!$. l is the logarithm of its ratio to that of the best
    rate, λ = t; so l is 0 there and positive elsewhere. An exponential too large for the dtype
    makes the loss infinite. Source: McCullagh and Nelder, "Generalized Linear Models", 1989,
    section 2.3.

    Examples
    --------
    >>> import numpy as np
    >>> loss, _ = PoissonLoss().forward(np.array([[0.0]]), np.array([[3.0]]))
    >>> round(float(loss), 4)  # 3 log 3 - 3 + 1
    1.2958
    >>> PoissonLoss().predictions(np.array([[0.0]]))
    array([[1.]])
    """

    reduction: Reduction = "mean"
    per_model: bool = False
    integers: ClassVar[tuple[int, ...]] = T_AND_WEIGHT
    targets: ClassVar[Targets] = "real"
    nonnegative: ClassVar[bool] = True
    takes_number: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_reduction(self.reduction)

    def forward(self, x: Array, t: Array, weight: Array | None = None) -> tuple[Array, Array]:
        loss, (gradient, _) = _forward(
            _poisson_deviance, x, t, weight, self.reduction, self.per_model
        )
        return loss, gradient

    def backward(self, cache: Array, dout: Any, needs: Sequence[bool] = SCORES_ONLY) -> Grads:
        return times(cache, dout), None, None

    @underflowing
    def predictions(self, x: Array) -> Array:
        """Return the rates exp(x), shape=(..., C)."""
        return namespace(x).exp(x)

    def decide(self, x: Array) -> Array:
        """Return the class of the largest rate, shape=(...); for one-hot targets."""
        return namespace(x).argmax(x, axis=-1)
