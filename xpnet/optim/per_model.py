"""The rule of many models at once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xpnet.arrays.dispatch import elementwise
from xpnet.arrays.ops import Array, namespace
from xpnet.optim.rules import AdamW
from xpnet.optim.schedules import rate_after

__all__ = ["PerModel"]

Params = dict[str, Array]


@dataclass(frozen=True)
class PerModel:
    """The rule of K models at once: their parameters have a first axis of models.

    A setting that differs between the models is an array of shape (K,) in the optimizer's state,
    under "each." and its name. So rules of other values are equal, and share what is compiled.

    Parameters
    ----------
    optimizer : Optimizer
        The rule of one model, one of `xpnet.optim.OPTIMIZERS`.
    varied : tuple of str
        The settings that the state holds: "momentum", "lr"; or, of a schedule, "lr.steps".

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.optim import SGD, init, update
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
    """Copy a frozen dataclass; its copy may hold settings that the class refuses."""
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
