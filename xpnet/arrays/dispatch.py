"""Let a backend replace functions during a step.

A backend offers kernels under the names of the functions that they replace. It may also offer to
fuse every `elementwise` function: such a function computes each element independently, so a GPU
should run it as one kernel instead of one per operation. Layers do not notice this. Without
kernels, as outside a step, the Python lines run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TypeVar

from array_api_compat import numpy as np

__all__ = [
    "adding_kernels", "along", "elementwise", "for_each", "offered", "replaceable", "underflowing",
    "with_kernels",
]  # fmt: skip

Array = Any  # an array of any library that follows the standard; no static type describes it
Kernels = Mapping[str, Callable[..., Any]]
Function = TypeVar("Function", bound=Callable[..., Any])

# A context variable, so that kernels are set only during a step and only in its thread.
_KERNELS: ContextVar[Kernels] = ContextVar("kernels", default=MappingProxyType({}))


def with_kernels(step: Callable[..., Any], kernels: Kernels) -> Callable[..., Any]:
    """Return a function that runs `step` with a backend's kernels in place of some functions.

    Parameters
    ----------
    step : callable
    kernels : mapping of str to callable
        For each name of a `replaceable` function, the kernel to call instead. It takes the same
        arguments and returns the same result up to rounding, or NotImplemented to let the
        function itself run. The name "elementwise" holds ``fuse(function, *args)``, which runs any
        `elementwise` function. For "for_each", see `for_each`.

    Returns
    -------
    callable
        Takes the arguments of `step`.
    """

    def run(*args: Any) -> Any:
        token = _KERNELS.set(kernels)
        try:
            return step(*args)
        finally:
            _KERNELS.reset(token)

    return run


def adding_kernels(work: Callable[..., Any], kernels: Kernels) -> Callable[..., Any]:
    """Return `work` with these kernels beside those that are in force where it is called."""

    def run(*args: Any) -> Any:
        return with_kernels(work, {**_KERNELS.get(), **kernels})(*args)

    return run


def offered(name: str) -> bool:
    """Say whether the backend of the running step has a kernel of this name."""
    return name in _KERNELS.get()


def replaceable(function: Function) -> Function:
    """Mark a function that a backend may replace by a kernel of the same name."""
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
    """Mark a function that computes each element independently; a GPU runs it as one kernel.

    Parameters
    ----------
    function : callable
        Takes arrays and numbers, broadcasts them, and returns one array or a tuple of arrays. It
        may use operators and functions of `namespace`. It must not depend on values or sizes, and
        must write only to arrays that it made. Define it at the top of a module: its kernel is
        cached, and a function that you define anew for each call is compiled at each call.
    """

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        kernels = _KERNELS.get()
        if "elementwise" not in kernels:
            return function(*args)
        result = kernels["elementwise"](function, *args)
        return function(*args) if result is NotImplemented else result

    return call  # type: ignore[return-value]


def underflowing(work: Function) -> Function:
    """Mark a function in which a number may underflow to 0, whatever `np.seterr` says.

    exp(-1000) is 0, to rounding: nobody needs an error for it. A step ignores underflow anyway, so
    the mark costs nothing there. It stands below the others.
    """
    quiet = np.errstate(under="ignore")(work)

    @functools.wraps(work)
    def call(*args: Any, **options: Any) -> Any:
        return (work if _KERNELS.get() else quiet)(*args, **options)

    return call  # type: ignore[return-value]


def along(rates: Any, p: Array) -> Any:
    """Return nested rates with each array of shape (K,) as (K, 1, ...), to fit p's first axis."""
    if type(rates) is tuple:
        return tuple([along(rate, p) for rate in rates])
    if type(rates) is float or getattr(rates, "ndim", 0) == 0:
        return rates
    return rates[(slice(None), *[None] * (p.ndim - 1))]


def for_each(
    rule: Callable[..., tuple[Array, ...]],
    rates: Any,
    rows: Sequence[tuple[Array, ...]],
    count: Array,
) -> tuple[list[tuple[Array, ...]], Array]:
    """Apply an optimizer's rule to each parameter, and add one to the count of updates.

    Parameters
    ----------
    rule : callable
        ``rule(p, g, rates, *slots)`` returns the new (p, *slots). It computes each element
        independently and consumes p and the slots.
    rates : any
        Tuples of numbers and 0-d arrays. Or of arrays of shape (K,), one value for each of K
        models: these are then the first axis of p, g and the slots.
    rows : sequence of tuple
        (p, g, *slots) of each parameter. A backend may update all rows at once.
    count : 0-d integer array
        The number of updates so far. It is consumed.

    Returns
    -------
    rows : list of tuple
        The new (p, *slots) of each parameter.
    count : 0-d integer array
        The new count.
    """
    kernel = _KERNELS.get().get("for_each")
    result = NotImplemented if kernel is None else kernel(rule, rates, rows, count)
    if result is NotImplemented:
        count += 1
        fitting = {row[0].ndim: row[0] for row in rows}  # parameters of each number of axes
        each = {axes: along(rates, p) for axes, p in fitting.items()}
        return [rule(row[0], row[1], each[row[0].ndim], *row[2:]) for row in rows], count
    updated: tuple[list[tuple[Array, ...]], Array] = result
    return updated
