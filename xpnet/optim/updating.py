"""The state of an optimizer, and one step: its rule, applied to flat dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xpnet.arrays.dispatch import elementwise, for_each, replaceable, underflowing
from xpnet.arrays.ops import Array, device, namespace
from xpnet.errors import UsageError
from xpnet.optim.per_model import PerModel
from xpnet.optim.plateaus import Watch
from xpnet.optim.rules import Optimizer
from xpnet.optim.schedules import rate_after

__all__ = ["init", "update"]

Params = dict[str, Array]


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
    >>> from xpnet.optim import Momentum
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
    >>> from xpnet.optim import SGD
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
