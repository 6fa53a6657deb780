"""The book's optimizers (``common/optimizer.py``), over the rules of `xpnet.optim`.

``optimizer.update(params, grads)`` changes the arrays of `params` in place, so a layer that holds
them sees the change; the arrays may be NumPy's, CuPy's or PyTorch's. A number in `params` is
replaced, as in chapter 6. What the optimizer keeps of each parameter (v, h, m) is None before the
first update, then a dict with the same keys, whose arrays are changed in place too.

Every update reads the settings, so a script may change ``optimizer.lr`` between two of them. An
update that must fail, by a gradient that is missing or misshapen, fails before it changes anything.

The traces are the book's up to rounding: `Adam` adds 1e-7 to the root before the correction, unlike
`xpnet.optim.Adam`. In float32 this `Adam` computes in float32; the book's computes its steps in
float64 and then rounds them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj
from array_api_compat import numpy as np_

from xpnet import optim
from xpnet.arrays.ops import Array, namespace
from xpnet.book.gradient import check_movable
from xpnet.errors import real, shown

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "np"]

EPS = 1e-7  # the book's, in all of them
Params = MutableMapping[Any, Any]
Slots = dict[Any, Array]


class SGD:
    """p ← p - lr g.

    Examples
    --------
    >>> params = {"x": np.array([1.0])}
    >>> SGD(lr=0.1).update(params, {"x": np.array([2.0])})
    >>> params["x"].tolist()
    [0.8]
    """

    def __init__(self, lr: float = 0.01) -> None:
        _check_rate(lr)
        self.lr = lr

    def update(self, params: Params, grads: Mapping[Any, Any]) -> None:
        """Change each of `params` by its gradient of the same key."""
        _check(params, grads)
        _apply(_rule(optim.SGD), float(self.lr), params, grads)


class Momentum:
    """v ← μ v - lr g; p ← p + v, with μ = `momentum`.

    Examples
    --------
    >>> params, optimizer = {"x": 1.0}, Momentum(lr=0.1)
    >>> optimizer.update(params, {"x": 2.0})
    >>> print(params["x"], optimizer.v["x"])
    0.8 -0.2
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        _check_rate(lr)
        self.lr, self.momentum = lr, momentum
        self.v: Slots | None = None

    def update(self, params: Params, grads: Mapping[Any, Any]) -> None:
        """Change each of `params` by its gradient of the same key."""
        rule = _rule(optim.Momentum, float(self.momentum))
        _check(params, grads)
        self.v = _slots(self.v, params)
        _apply(rule, float(self.lr), params, grads, self.v)


class Nesterov:
    """p ← p + μ² v - (1 + μ) lr g; v ← μ v - lr g, with μ = `momentum`.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> Nesterov(lr=0.1).update(params, {"x": 2.0})
    >>> print(round(params["x"], 3))
    0.62
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        _check_rate(lr)
        self.lr, self.momentum = lr, momentum
        self.v: Slots | None = None

    def update(self, params: Params, grads: Mapping[Any, Any]) -> None:
        """Change each of `params` by its gradient of the same key."""
        rule = _rule(optim.Nesterov, float(self.momentum))
        _check(params, grads)
        self.v = _slots(self.v, params)
        _apply(rule, float(self.lr), params, grads, self.v)


class AdaGrad:
    """h ← h + g²; p ← p - lr g / (√h + 1e-7).

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> AdaGrad(lr=0.1).update(params, {"x": 2.0})
    >>> print(round(params["x"], 3))
    0.9
    """

    def __init__(self, lr: float = 0.01) -> None:
        _check_rate(lr)
        self.lr = lr
        self.h: Slots | None = None

    def update(self, params: Params, grads: Mapping[Any, Any]) -> None:
        """Change each of `params` by its gradient of the same key."""
        _check(params, grads)
        self.h = _slots(self.h, params)
        _apply(_rule(optim.AdaGrad, EPS), float(self.lr), params, grads, self.h)


class RMSprop:
    """h ← ρ h + (1 - ρ) g²; p ← p - lr g / (√h + 1e-7), with ρ = `decay_rate`.

    Examples
    --------
    >>> params = {"x": 1.0}
    >>> RMSprop(lr=0.1).update(params, {"x": 2.0})
    >>> print(round(params["x"], 3))  # 1 - 0.1 * 2 / 0.2
    0.0
    """

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        _check_rate(lr)
        self.lr, self.decay_rate = lr, decay_rate
        self.h: Slots | None = None

    def update(self, params: Params, grads: Mapping[Any, Any]) -> None:
        """Change each of `params` by its gradient of the same key."""
        rule = _rule(optim.RMSProp, float(self.decay_rate), EPS)
        _check(params, grads)
        self.h = _slots(self.h, params)
        _apply(rule, float(self.lr), params, grads, self.h)


class Adam:
    """m ← m + (1 - β₁)(g - m); v ← v + (1 - β₂)(g² - v); p ← p - lr √c₂ / c₁ · m / (√v + 1e-7).

    cᵢ = 1 - βᵢᵏ in update k = `iter`. The paper's algorithm 1 adds its ε to the corrected root, √(v
    / c₂), as `xpnet.optim.Adam` does; this is the faster form at the end of its section 2.

    Examples
    --------
    >>> params, optimizer = {"x": 1.0}, Adam(lr=0.1)
    >>> optimizer.update(params, {"x": 2.0})
    >>> print(round(params["x"], 3), optimizer.iter)  # the first step moves x by lr
    0.9 1
    """

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        _check_rate(lr)
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.iter = 0
        self.m: Slots | None = None
        self.v: Slots | None = None

    def update(self, params: Params, grads: Mapping[Any, Any]) -> None:
        """Change each of `params` by its gradient of the same key."""
        rule = _rule(optim.Adam, float(self.beta1), float(self.beta2))
        _check(params, grads)
        if self.m is None:
            self.v = None
        self.m, self.v = _slots(self.m, params), _slots(self.v, params)
        self.iter += 1
        rate = float(rule.rates(float(self.lr), np.float64(self.iter))[0])
        _apply(rule, (rate, EPS), params, grads, self.m, self.v)


@functools.lru_cache
def _rule(kind: Any, *settings: float) -> Any:
    """Return xpnet's rule with these settings; it is told the rate at each update."""
    return kind(1.0, *settings)


def _check_rate(lr: Any) -> None:
    real("lr", lr, -math.inf)  # of either sign: a script may climb


def _check(params: Params, grads: Mapping[Any, Any]) -> None:
    """Raise ValueError unless each parameter can be changed and has a gradient that fits it."""
    both: tuple[tuple[str, Any], ...] = (("params", params), ("grads", grads))
    for name, given in both:
        if not isinstance(given, Mapping):
            hint = ", as in network.params" if hasattr(given, "params") else ""
            raise ValueError(
                f"{name} is of type {type(given).__name__}; expected a dict of arrays{hint}"
            )
    for key, p in params.items():
        g = grads.get(key)
        if not (  # NumPy's arrays, in a third of a microsecond
            type(p) is type(g) is np.ndarray
            and p.shape == g.shape
            and p.dtype.kind == "f"
            and g.dtype.kind in "fiub"
            and p.flags.writeable
        ):
            _check_one(key, p, g)


def _check_one(key: Any, p: Any, g: Any) -> None:
    name = f"[{key!r}]"
    if g is None:
        raise ValueError(f"grads{name} is missing; expected a gradient of each of params")
    if isinstance(g, list | tuple):
        raise ValueError(
            f"grads{name} is a {type(g).__name__}; expected an array: np.array(grads{name}, float)"
        )
    if not (is_array_api_obj(g) and _is_real(g)) and not isinstance(g, int | float):
        got = f"holds {g.dtype}" if hasattr(g, "dtype") else f"is {shown(g)}"
        raise ValueError(f"grads{name} {got}; expected real numbers, as many as params{name}")
    if not _is_number(p):
        check_movable(f"params{name}", p)
    if is_array_api_obj(g) and namespace(g) is not (np_ if _is_number(p) else namespace(p)):
        library = "a number" if _is_number(p) else f"one of {namespace(p).__name__}"
        raise ValueError(
            f"grads{name} is an array of {namespace(g).__name__}, params{name} {library}; "
            "expected both of one library"
        )
    if _shape(p) != _shape(g):
        raise ValueError(
            f"grads{name} has shape {_shape(g)}; expected that of params{name}, {_shape(p)}"
        )


def _is_real(g: Array) -> bool:
    return bool(namespace(g).isdtype(g.dtype, ("bool", "integral", "real floating")))


def _is_number(p: Any) -> bool:
    return isinstance(p, int | float | np.generic)


def _shape(p: Any) -> tuple[int, ...]:
    return tuple(getattr(p, "shape", ()))


def _slots(slots: Slots | None, params: Params) -> Slots:
    """Return the slots, with zeros for what has none yet."""
    slots = {} if slots is None else slots
    for key, p in params.items():
        kept = slots.get(key)
        if kept is not None and type(p) is not type(kept) and not _is_number(p):
            before, now = namespace(kept).__name__, namespace(p).__name__
            if before != now:
                raise ValueError(
                    f"params[{key!r}] is an array of {now}, and was one of {before} at the update "
                    "before; expected the same: make a new optimizer"
                )
        if kept is None:
            slots[key] = np.zeros(()) if _is_number(p) else namespace(p).zeros_like(p)
        elif _shape(p) != tuple(kept.shape):
            raise ValueError(
                f"params[{key!r}] has shape {_shape(p)}, and had {tuple(kept.shape)} at the "
                "update before; expected the same: make a new optimizer"
            )
    return slots


def _apply(rule: Any, rates: Any, params: Params, grads: Mapping[Any, Any], *slots: Slots) -> None:
    """Apply a rule to each parameter. It writes into arrays, so only a number is replaced."""
    step = rule.rule
    for key, p in params.items():
        g = grads[key]
        if type(p) is not np.ndarray and getattr(p, "requires_grad", False):
            p, g = p.detach(), g.detach()  # of the same memory
        if not slots:
            new = step(p, g, rates)[0]
        elif len(slots) == 1:
            new = step(p, g, rates, slots[0][key])[0]
        else:
            new = step(p, g, rates, *[slot[key] for slot in slots])[0]
        if new is not p:
            params[key] = new
