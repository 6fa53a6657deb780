"""The optimizers: rules for one parameter. The top of `xpnet.optim` says what a rule is."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

from xpnet.arrays.ops import Array, add_scaled, namespace
from xpnet.errors import real
from xpnet.optim.schedules import RATES, Schedule

__all__ = [
    "OPTIMIZERS", "SGD", "AdaGrad", "Adam", "AdamW", "Momentum", "Nesterov", "Optimizer", "RMSProp",
]  # fmt: skip


class Optimizer(Protocol):
    """The attributes and the method that `init` and `update` use.

    Examples
    --------
    >>> SGD(0.1).slots, Adam(0.1).slots
    ((), ('m', 'v'))
    """

    @property
    def lr(self) -> float | Schedule:
        """The learning rate, or a schedule that returns it for each step."""
        ...

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the arrays that the rule keeps for each parameter."""
        ...

    def rule(self, p: Array, g: Array, lr: Any, /, *slots: Array) -> tuple[Array, ...]:
        """Return the new parameter and its new slots, from its gradient and the rate."""
        ...


_RANGES: dict[str, tuple[float, float, str]] = {
    "lr": RATES,
    "momentum": (0.0, 1.0, "[]"),
    "decay_rate": (0.0, 1.0, "[)"),
    "beta1": (0.0, 1.0, "[)"),
    "beta2": (0.0, 1.0, "[)"),
    "eps": (0.0, math.inf, "()"),
    "weight_decay": (0.0, math.inf, "[)"),
}


def _check_settings(rule: Any) -> None:
    """Refuse a setting that could never train."""
    for setting in fields(rule):
        value = getattr(rule, setting.name)
        if setting.name in _RANGES and not (setting.name == "lr" and callable(value)):
            real(setting.name, value, *_RANGES[setting.name])


@dataclass(frozen=True)
class SGD:
    """p ← p - lr g. Source: Robbins and Monro, 1951.

    Examples
    --------
    >>> import numpy as np
    >>> SGD(0.1).rule(np.array([1.0]), np.array([2.0]), 0.1)[0].tolist()
    [0.8]
    """

    lr: float | Schedule = 0.01
    slots: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        _check_settings(self)

    def rule(self, p: Array, g: Array, lr: Any) -> tuple[Array, ...]:
        return (add_scaled(p, g, -lr),)


@dataclass(frozen=True)
class Momentum:
    """v ← μ v - lr g; p ← p + v. Source: Polyak, 1964; the book's Momentum.

    Examples
    --------
    >>> import numpy as np
    >>> p, v = Momentum(0.1).rule(np.array([1.0]), np.array([2.0]), 0.1, np.array([0.5]))
    >>> p.tolist(), v.tolist()
    ([1.25], [0.25])
    """

    lr: float | Schedule = 0.01
    momentum: float = 0.9
    slots: ClassVar[tuple[str, ...]] = ("v",)

    def __post_init__(self) -> None:
        _check_settings(self)

    def rule(self, p: Array, g: Array, lr: Any, v: Array) -> tuple[Array, ...]:
        v *= self.momentum
        v = add_scaled(v, g, -lr)
        p += v
        return p, v


@dataclass(frozen=True)
class Nesterov:
    """v ← μ v - lr g; p ← p + μ v - lr g.

    A change of variables lets you compute the gradient at p itself. Source: Nesterov, 1983;
    Sutskever et al., 2013, and Bengio et al., 2013, give this form.

    Examples
    --------
    >>> import numpy as np
    >>> p, v = Nesterov(0.1).rule(np.array([1.0]), np.array([2.0]), 0.1, np.array([0.5]))
    >>> p.round(3).tolist(), v.tolist()
    ([1.025], [0.25])
    """

    lr: float | Schedule = 0.01
    momentum: float = 0.9
    slots: ClassVar[tuple[str, ...]] = ("v",)

    def __post_init__(self) -> None:
        _check_settings(self)

    def rule(self, p: Array, g: Array, lr: Any, v: Array) -> tuple[Array, ...]:
        down = lr * g
        v *= self.momentum
        v -= down
        p -= down
        p += self.momentum * v
        return p, v


@dataclass(frozen=True)
class AdaGrad:
    """h ← h + g²; p ← p - lr g / (√h + ε). Source: Duchi, Hazan, Singer, JMLR 12, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> p, h = AdaGrad(0.1).rule(np.array([1.0]), np.array([2.0]), 0.1, np.array([5.0]))
    >>> p.round(3).tolist(), h.tolist()  # 1 - 0.1 * 2 / 3
    ([0.933], [9.0])
    """

    lr: float | Schedule = 0.01
    eps: float = 1e-7
    slots: ClassVar[tuple[str, ...]] = ("h",)
    squares: ClassVar[tuple[str, ...]] = ("h",)

    def __post_init__(self) -> None:
        _check_settings(self)

    def rule(self, p: Array, g: Array, lr: Any, h: Array) -> tuple[Array, ...]:
        h += g * g
        p -= lr * g / (namespace(h).sqrt(h) + self.eps)
        return p, h


@dataclass(frozen=True)
class RMSProp:
    """h ← ρ h + (1 - ρ) g²; p ← p - lr g / (√h + ε). Source: Tieleman and Hinton, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> p, h = RMSProp(0.1).rule(np.array([1.0]), np.array([2.0]), 0.1, np.array([4.0]))
    >>> p.round(3).tolist(), h.round(3).tolist()  # h does not change: g² is also 4
    ([0.9], [4.0])
    """

    lr: float | Schedule = 0.01
    decay_rate: float = 0.99
    eps: float = 1e-7
    slots: ClassVar[tuple[str, ...]] = ("h",)
    squares: ClassVar[tuple[str, ...]] = ("h",)

    def __post_init__(self) -> None:
        _check_settings(self)

    def rule(self, p: Array, g: Array, lr: Any, h: Array) -> tuple[Array, ...]:
        h *= self.decay_rate
        h += (1.0 - self.decay_rate) * (g * g)
        p -= lr * g / (namespace(h).sqrt(h) + self.eps)
        return p, h


@dataclass(frozen=True)
class Adam:
    """m ← β₁ m + (1 - β₁) g; v ← β₂ v + (1 - β₂) g²; p ← p - lr m̂ / (√v̂ + ε).

    m̂ = m / (1 - β₁ᵏ) and v̂ = v / (1 - β₂ᵏ) correct the bias of moments that start at 0. Source:
    Kingma and Ba, "Adam", 2015, algorithm 1. (The book adds ε = 1e-7 to √v before the correction.)

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.optim import init, update
    >>> params, grads = {"W": np.array([[1.0]])}, {"W": np.array([[-3.0]])}
    >>> params, _ = update(Adam(0.1), grads, init(Adam(0.1), params), params)
    >>> params["W"].round(6).tolist()  # the first step moves W by lr
    [[1.1]]
    """

    lr: float | Schedule = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    slots: ClassVar[tuple[str, ...]] = ("m", "v")
    squares: ClassVar[tuple[str, ...]] = ("v",)

    def __post_init__(self) -> None:
        _check_settings(self)

    def rates(self, lr: Any, step: Array) -> tuple[Any, Any]:
        """Return (lr √c₂ / c₁, ε √c₂) with cᵢ = 1 - βᵢᵏ.

        These two numbers apply the bias corrections without an array operation.
        """
        return _adam_rates(self, lr, step)

    def rule(self, p: Array, g: Array, rates: Any, m: Array, v: Array) -> tuple[Array, ...]:
        return _adam_rule(self, p, g, rates, m, v)


def _adam_rates(rule: Any, lr: Any, step: Array) -> tuple[Any, Any]:
    root = namespace(step).sqrt(_correction(rule.beta2, step))
    return lr * root / _correction(rule.beta1, step), rule.eps * root


def _adam_rule(rule: Any, p: Array, g: Array, rates: Any, m: Array, v: Array) -> tuple[Array, ...]:
    rate, eps = rates
    m *= rule.beta1
    m = add_scaled(m, g, 1.0 - rule.beta1)
    v *= rule.beta2
    v = add_scaled(v, g * g, 1.0 - rule.beta2)
    root = namespace(v).sqrt(v)
    root += eps
    p -= rate * (m / root)
    return p, m, v


def _correction(beta: Any, step: Array) -> Array:
    """Return 1 - βᵏ, as -expm1(k log β): in float32, 1 - 0.999 would keep only 4 digits."""
    xp = namespace(step)
    if not isinstance(beta, int | float):  # one of each model; where β is 0, its logarithm is -inf
        return -xp.expm1(step * xp.log(beta))
    return -xp.expm1(step * math.log(beta)) if beta else xp.ones_like(step)


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay: p ← p - lr λ p, then Adam's step.

    The decay applies to weights (two axes or more), not to biases. Source: Loshchilov and
    Hutter, "Decoupled weight decay regularization", 2019, algorithm 2 (with lr λ for its λ).

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.optim import init, update
    >>> params, grads = {"W": np.array([[1.0]])}, {"W": np.array([[-3.0]])}
    >>> rule = AdamW(0.1, weight_decay=0.5)
    >>> update(rule, grads, init(rule, params), params)[0]["W"].round(6).tolist()  # 0.95 + 0.1
    [[1.05]]
    """

    lr: float | Schedule = 0.001
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    slots: ClassVar[tuple[str, ...]] = ("m", "v")
    squares: ClassVar[tuple[str, ...]] = ("v",)
    model_axes: ClassVar[int] = 0  # `PerModel` sets 1: then p's first axis is one of models

    def __post_init__(self) -> None:
        _check_settings(self)

    def rates(self, lr: Any, step: Array) -> tuple[Any, Any]:
        """Return (lr λ, Adam's rates)."""
        return lr * self.weight_decay, _adam_rates(self, lr, step)

    def rule(self, p: Array, g: Array, rates: Any, m: Array, v: Array) -> tuple[Array, ...]:
        decay, adam = rates
        if p.ndim - self.model_axes > 1:
            p *= 1.0 - decay
        return _adam_rule(self, p, g, adam, m, v)


# The names on the command line. A rule with a `weight_decay` decays the weights itself; for all
# other rules, the command tells the trainer to add the L2 term to the gradients.
OPTIMIZERS: dict[str, type[Any]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSProp,
    "adam": Adam,
    "adamw": AdamW,
}
