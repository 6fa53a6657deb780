"""Lets a backend replace functions during a step.

A backend offers kernels by the names of the functions that they replace, and one more for every
`elementwise` function: its lines compute each element by itself, so a GPU should run them as one
kernel and not as one per operation. Layers do not see this. Without kernels, as on NumPy, the
lines run as they stand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TypeVar

__all__ = ["elementwise", "for_each", "offered", "replaceable", "with_kernels"]

Array = Any  # "an array of any library that follows the standard"; no static type names that
Kernels = Mapping[str, Callable[..., Any]]
Function = TypeVar("Function", bound=Callable[..., Any])

# Of the context, not of the process: they end with the step.
_KERNELS: ContextVar[Kernels] = ContextVar("kernels", default=MappingProxyType({}))


def with_kernels(step: Callable[..., Any], kernels: Kernels) -> Callable[..., Any]:
    """`step`, during which some functions are a backend's own.

    Parameters
    ----------
    step : callable
    kernels : mapping of str to callable
        By the name of a `replaceable` function: what to call instead, of the same parameters and,
        to rounding, the same result; NotImplemented leaves a call to the lines themselves.
        "elementwise": ``fuse(function, *args)``, for all of that kind. "for_each": see `for_each`.
    """

    def run(*args: Any) -> Any:
        token = _KERNELS.set(kernels)
        try:
            return step(*args)
        finally:
            _KERNELS.reset(token)

    return run


def offered(name: str) -> bool:
    """Whether the backend has a kernel of this name, during the step that is running."""
    return name in _KERNELS.get()


def replaceable(function: Function) -> Function:
    """Mark a function for which a backend may have a kernel."""
    name = function.__name__

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        kernels = _KERNELS.get()
        if not kernels or name not in kernels:
            return function(*args)
        result = kernels[name](*args)
        return function(*args) if result is NotImplemented else result

    return call  # type: ignore[return-value]


def elementwise(function: Function) -> Function:
    """Mark a function of arrays that computes each element by itself: one kernel, where there are.

    Parameters
    ----------
    function : callable
        Of arrays and numbers, which it broadcasts, returning one array or a tuple of them. It may
        use operators and the functions of `namespace`, but look neither at values nor at sizes, and
        write only to arrays that it has made. Define it once, in a module: a kernel is kept for it,
        and one that is made anew at each call is compiled anew.
    """

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        kernels = _KERNELS.get()
        if "elementwise" not in kernels:
            return function(*args)
        result = kernels["elementwise"](function, *args)
        return function(*args) if result is NotImplemented else result

    return call  # type: ignore[return-value]


def for_each(
    rule: Callable[..., tuple[Array, ...]],
    rates: Any,
    rows: Sequence[tuple[Array, ...]],
    count: Array,
) -> tuple[list[tuple[Array, ...]], Array]:
    """An optimizer's rule on each parameter, and one more update counted.

    Parameters
    ----------
    rule : callable
        ``rule(p, g, rates, *slots)``, which computes each element by itself and consumes p and
        slots.
    rates : any
        Numbers and 0-d arrays, in tuples.
    rows : sequence of tuple
        (p, g, *slots) of each parameter. A backend may do all rows at once.
    count : 0-d integer array
        How many updates there were. Consumed.

    Returns
    -------
    rows, count
        What replaces (p, *slots) of each parameter, and the count.
    """
    kernel = _KERNELS.get().get("for_each")
    result = NotImplemented if kernel is None else kernel(rule, rates, rows, count)
    if result is NotImplemented:
        count += 1
        return [rule(row[0], row[1], rates, *row[2:]) for row in rows], count
    updated: tuple[list[tuple[Array, ...]], Array] = result
    return updated
