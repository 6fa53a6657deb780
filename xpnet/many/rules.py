"""The settings of optimizers as flat dicts, so that rules of one form can train together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from xpnet import optim
from xpnet.errors import UsageError, shown

__all__ = ["form_and_numbers", "per_model", "unstackable_rule", "with_setting"]

Numbers = dict[str, float]


def unstackable_rule(rule: Any) -> str:
    """Say why a rule cannot train many models at once; "" if it can.

    A rule of your own may, say, take the norm of a parameter, which then is that of all models.
    """
    if type(rule) in optim.OPTIMIZERS.values():
        return ""
    return f"{type(rule).__name__} is no optimizer of xpnet.optim"


def form_and_numbers(rule: Any) -> tuple[Any, Numbers]:
    """Return what a rule is without its numbers, and its numbers by their path.

    Two rules of an equal form can train together.

    Examples
    --------
    >>> form_and_numbers(optim.Momentum(0.1))[1]
    {'lr': 0.1, 'momentum': 0.9}
    >>> list(form_and_numbers(optim.SGD(optim.cosine(0.1, 100)))[1])
    ['lr.lr', 'lr.steps', 'lr.end']
    """
    form: list[Any] = [type(rule)]
    numbers: Numbers = {}
    for setting in fields(rule):
        value = getattr(rule, setting.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers[setting.name] = float(value)
        elif is_dataclass(value):
            inner, found = form_and_numbers(value)
            form.append((setting.name, inner))
            numbers |= {f"{setting.name}.{path}": number for path, number in found.items()}
        else:
            form.append((setting.name, value))
    return tuple(form), numbers


def per_model(rules: Sequence[Any], dtype: str) -> tuple[optim.PerModel, dict[str, np.ndarray]]:
    """Return the rule of many models, and the arrays of shape (K,) that it needs in its state.

    Parameters
    ----------
    rules : sequence of Optimizer
        One of each model, of one form.
    dtype : str
        Of the parameters.

    Examples
    --------
    >>> rule, state = per_model([optim.SGD(0.1), optim.SGD(0.2)], "float64")
    >>> rule.varied, state["each.lr"].tolist()
    (('lr',), [0.1, 0.2])
    """
    numbers = [form_and_numbers(rule)[1] for rule in rules]
    varied = tuple(path for path in numbers[0] if len({each[path] for each in numbers}) > 1)
    values = {f"each.{path}": np.array([each[path] for each in numbers], dtype) for path in varied}
    base = rules[0]
    # Rules that differ in these numbers alone are equal, and share what JAX compiles.
    for path in varied:
        base = _without(base, path.split("."))
    return optim.PerModel(base, varied), values


def _without(rule: Any, path: Sequence[str]) -> Any:
    """Put 0.5, which every setting allows, in place of a number that the state holds."""
    name, *rest = path
    if rest:
        return _replaced(rule, name, _without(getattr(rule, name), rest))
    return _replaced(rule, name, 0.5)


def _replaced(rule: Any, name: str, value: Any) -> Any:
    return replace(rule, **{name: value})


def with_setting(rule: Any, name: str, value: Any) -> Any:
    """Return a rule with another setting; a number for lr becomes the rate of its schedule.

    Raises
    ------
    UsageError
        The rule has no such setting, the value is out of its range, or its rate is a function of
        yours.

    Examples
    --------
    >>> with_setting(optim.SGD(optim.cosine(0.1, 100)), "lr", 0.5).lr.lr
    0.5
    """
    if name == "lr" and not callable(value) and callable(rule.lr):
        value = _with_rate(rule.lr, value)
    return _replaced(rule, name, value)


def _with_rate(schedule: Any, lr: float) -> Any:
    names = [each.name for each in fields(schedule)] if is_dataclass(schedule) else []
    if "lr" not in names:
        raise UsageError(
            f"grid: lr is {shown(lr)}, but the optimizer's rate is a function of your own; give "
            "schedules of xpnet.optim, or the functions themselves as values of lr"
        )
    inner = {"schedule": _with_rate(schedule.schedule, lr)} if "schedule" in names else {}
    return replace(schedule, lr=optim.constant(lr), **inner)
