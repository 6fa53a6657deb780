"""Measure time: warm up until it is steady, take long windows in turns, report quartiles.

A window is a number of calls that last so long together that the clock's resolution and an
occasional interruption do not matter. Contenders take turns, one window each, so that a drift of
the machine's speed affects all of them alike. A ratio of two contenders is taken round by round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

__all__ = [
    "WINDOW_SECONDS", "calls_in", "quartiles", "ratio", "rounds_of", "settle", "timed", "turns",
]  # fmt: skip

WINDOW_SECONDS = 0.02  # at least
STEADY = 0.1  # times are steady if two windows in a row differ by less than this share
PATIENCE_SECONDS = 2.0  # the longest wait for steady times, which a shared machine may never reach
# Run this long before a window. After a wait, the data has left the caches, and threads of the
# contender before may still spin (OpenBLAS's for some 25 ms).
SETTLE_SECONDS = 0.04

Name = TypeVar("Name")


def timed(call: Callable[[], object], calls: int = 1) -> float:
    """Return seconds per call, over `calls` calls."""
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls


def calls_in(seconds: float, measure: Callable[[int], float]) -> int:
    """Warm up until two windows agree; return the number of calls that fill a window.

    Parameters
    ----------
    seconds : float
        Length of a window.
    measure : callable
        ``measure(calls)`` returns seconds per call.
    """
    began = time.perf_counter()
    calls, before = 1, measure(1)  # the first call may compile, or load a library
    while True:
        each = max(measure(calls), 1e-9)
        if each * calls >= seconds and (
            abs(before / each - 1.0) < STEADY or time.perf_counter() - began > PATIENCE_SECONDS
        ):
            return calls
        if each * calls < seconds:
            calls = max(calls + 1, round(1.2 * seconds / each))
        before = each


def settle(call: Callable[[], object], seconds: float = SETTLE_SECONDS) -> None:
    """Run `call` untimed for a while, before a window."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        call()


def turns(names: Iterable[Name], rounds: int) -> Iterator[Name]:
    """Yield whose turn it is: everyone once per round, in reverse order in every other round."""
    order = list(names)
    for _ in range(rounds):
        yield from order
        order.reverse()


def rounds_of(
    contenders: Mapping[Name, Callable[[], float]], rounds: int
) -> dict[Name, list[float]]:
    """Measure contenders in turns; return the windows of each."""
    values: dict[Name, list[float]] = {name: [] for name in contenders}
    for name in turns(contenders, rounds):
        values[name].append(contenders[name]())
    return values


def quartiles(values: Sequence[float]) -> dict[str, Any]:
    """Return q1, median and q3 of the values, and the values."""
    if len(values) == 1:
        q1 = median = q3 = values[0]
    else:
        q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"q1": q1, "median": median, "q3": q3, "values": list(values)}


def ratio(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """Return quartiles of a / b, taken round by round so that a drift of the machine cancels.

    If a run was interrupted, only the rounds that both have count.
    """
    return quartiles([x / y for x, y in zip(a, b, strict=False)])
