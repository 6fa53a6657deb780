"""Optimizers, learning-rate schedules, penalties on weights and gradient clipping.

An optimizer defines the update of one parameter: ``rule(p, g, lr, *slots)`` returns the new
parameter and its new slots (the velocity, the moments). `init` and `update` apply the rule to flat
dicts. A rule consumes the parameter and the slots: it writes into them if arrays are mutable, and
creates new arrays if they are not. A rule only reads gradients, because two parameters may share
one gradient array. An optimizer that needs the step number also defines ``rates(lr, step)``:
`update` calls it once per step and passes the result to ``rule`` instead of lr. ``squares`` names
slots that sum squares: a file in which one is negative is refused.

Symbols: p is a parameter, g its gradient, lr the learning rate, and k = 1, 2, ... the step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

from xpnet.arrays.dispatch import elementwise, for_each, replaceable, underflowing
from xpnet.arrays.ops import Array, add_scaled, device, namespace
from xpnet.errors import UsageError, real
from xpnet.optim.plateaus import Watch
from xpnet.optim.schedules import RATES, Schedule, rate_after

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "PerModel",
    "RMSProp",
    "init",
    "update",
]

Params = dict[str, Array]


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


@dataclass(frozen=True)
class PerModel:
    """The rule of K models at once: their parameters have a first axis of models.

    A setting that differs between the models is an array of shape (K,) in the optimizer's state,
    under "each." and its name. So rules of other values are equal, and share what is compiled.

    Parameters
    ----------
    optimizer : Optimizer
        The rule of one model, a frozen dataclass of this module.
    varied : tuple of str
        The settings that the state holds: "momentum", "lr"; or, of a schedule, "lr.steps".

    Examples
    --------
    >>> import numpy as np
    >>> rule = PerModel(SGD(1.0), ("lr",))
    >>> params, grads = {"W": np.ones((2, 1, 1))}, {"W": np.ones((2, 1, 1))}
    >>> state = init(rule, params) | {"each.lr": np.array([0.1, 0.5])}
    >>> update(rule, grads, state, params)[0]["W"].ravel().tolist()
    [0.9, 0.5]
    """

    optimizer: Any
    varied: tuple[str, ...] = ()

    @property
    def lr(self) -> Any:
        """The rate, or the schedule, of the first model."""
        return self.optimizer.lr

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the rule's arrays."""
        slots: tuple[str, ...] = self.optimizer.slots
        return slots

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the varied settings in the state."""
        return tuple(f"each.{path}" for path in self.varied)

    @functools.cached_property
    def _inner(self) -> tuple[str, ...]:
        return tuple(path for path in self.varied if path.partition(".")[0] != "lr")

    @functools.cached_property
    def _alike(self) -> Any:
        rule = _unchecked(self.optimizer)
        if isinstance(rule, AdamW):
            rule.__dict__["model_axes"] = 1
        return rule

    def _with(self, paths: tuple[str, ...], values: Sequence[Any]) -> Any:
        """Return the rule with arrays for some of its settings."""
        rule = _unchecked(self._alike) if paths else self._alike
        for path, value in zip(paths, values, strict=True):
            *owners, name = path.split(".")
            holder = rule
            for owner in owners:
                holder.__dict__[owner] = _unchecked(getattr(holder, owner))
                holder = getattr(holder, owner)
            holder.__dict__[name] = value
        return rule

    def settings_and_rates(self, state: Params, dtype: Any) -> Any:
        """Return what `rule` takes as its rates: the varied settings, and the rates."""
        settings = tuple([state[name] for name in self.names])
        inner = tuple([state[f"each.{path}"] for path in self._inner])
        lr = state.get("lr")
        if lr is None and not callable(self.lr) and not hasattr(self.optimizer, "rates"):
            rates = state.get("each.lr", self.lr)
        else:
            level = state.get("level")
            rates = _rates_per_model(self, lr, level, state["step"], dtype, *settings)
        return inner, rates

    def rule(self, p: Array, g: Array, rates: Any, *slots: Array) -> tuple[Array, ...]:
        settings, rates = rates
        rule = self._with(self._inner, settings) if settings else self._alike
        updated: tuple[Array, ...] = rule.rule(p, g, rates, *slots)
        return updated


def _unchecked(settings: Any) -> Any:
    """Copy a frozen dataclass; its copy may hold what `_check_settings` refuses."""
    copy = object.__new__(type(settings))
    copy.__dict__.update(settings.__dict__)
    return copy


@elementwise
def _rates_per_model(
    rule: PerModel, lr: Any, level: Array | None, step: Array, dtype: Any, *settings: Array
) -> Any:
    k = namespace(step).astype(step, dtype)
    optimizer = rule._with(rule.varied, settings)
    lr = rate_after(optimizer.lr, level, k) if lr is None else lr
    return optimizer.rates(lr, k + 1.0) if hasattr(optimizer, "rates") else lr


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


def init(optimizer: Optimizer, params: Mapping[str, Array]) -> Params:
    """Return the optimizer state before the first step.

    Parameters
    ----------
    optimizer : Optimizer
    params : mapping of str to array

    Returns
    -------
    dict of str to array
        "step" is a 0-d int32 zero. "W1.v", ...: for each parameter and each slot of the rule, an
        array of zeros with the parameter's shape and dtype. Under `plateau` also "level", 1 at
        first: the part that is left of the rate, 0-d, or shape=(K,) for K models.

    Examples
    --------
    >>> import numpy as np
    >>> sorted(init(Momentum(0.1), {"W": np.array([1.0])}))
    ['W.v', 'step']
    """
    first = next(iter(params.values()))
    xp = namespace(first)
    state = {"step": xp.zeros((), dtype=xp.int32, device=device(first))}
    for name, p in params.items():
        for slot in optimizer.slots:
            state[f"{name}.{slot}"] = xp.zeros_like(p)
    if Watch.of(optimizer.lr) is not None:
        shape = first.shape[:1] if isinstance(optimizer, PerModel) else ()
        state["level"] = xp.ones(shape, dtype=first.dtype, device=device(first))
    return state


@replaceable
@underflowing
def update(
    optimizer: Optimizer, grads: Params, state: Params, params: Params
) -> tuple[Params, Params]:
    """Update all parameters by one step.

    Parameters
    ----------
    optimizer : Optimizer
    grads : dict of str to array
        One gradient per parameter. `update` only reads them.
    state : dict of str to array
        The result of `init` or of the previous step. `update` consumes it. If you add an entry
        "lr", a 0-d array of the parameters' dtype, it replaces the optimizer's rate: so you can
        change the rate between two steps, and a compiled or captured step stays valid.
    params : dict of str to array
        `update` consumes them.

    Returns
    -------
    params, state : dict of str to array
        Use these from now on: the arrays that you passed may have been overwritten.

    Raises
    ------
    UsageError
        `state` is not one of an optimizer.

    Examples
    --------
    >>> import numpy as np
    >>> params, grads = {"W": np.array([1.0])}, {"W": np.array([2.0])}
    >>> params, state = update(SGD(0.1), grads, init(SGD(0.1), params), params)
    >>> params["W"].tolist(), int(state["step"])
    ([0.8], 1)
    """
    if "step" not in state:
        raise UsageError(
            'state has no "step"; expected update(optimizer, grads, state, params), in this order, '
            "with the state of init(optimizer, params)"
        )
    if isinstance(optimizer, PerModel):
        lr: Any = optimizer.settings_and_rates(state, next(iter(params.values())).dtype)
    else:
        lr = state.get("lr", optimizer.lr)
        if callable(lr) or hasattr(optimizer, "rates"):
            dtype = next(iter(params.values())).dtype
            lr = _rates(optimizer, state.get("lr"), state.get("level"), state["step"], dtype)
    rows: list[tuple[Array, ...]] = [(p, grads[name]) for name, p in params.items()]
    if optimizer.slots:
        named = [[f"{name}.{slot}" for slot in optimizer.slots] for name in params]
        rows = [(*row, *[state[n] for n in names]) for row, names in zip(rows, named, strict=True)]
    updated, step = for_each(optimizer.rule, lr, rows, state["step"])
    new_params = {name: values[0] for name, values in zip(params, updated, strict=True)}
    new_state: Params = {"step": step}
    new_state |= {name: state[name] for name in ("lr", "level") if name in state}
    if isinstance(optimizer, PerModel):
        new_state.update((name, state[name]) for name in optimizer.names)
    if optimizer.slots:
        for names, values in zip(named, updated, strict=True):
            new_state.update(zip(names, values[1:], strict=True))
    return new_params, new_state


@elementwise
def _rates(optimizer: Any, lr: Any, level: Array | None, step: Array, dtype: Any) -> Any:
    """Return the lr of this step, or the rates that the optimizer computes from it."""
    k = namespace(step).astype(step, dtype)  # the number of finished steps
    lr = rate_after(optimizer.lr, level, k) if lr is None else lr
    return optimizer.rates(lr, k + 1.0) if hasattr(optimizer, "rates") else lr
