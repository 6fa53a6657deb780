"""How time is taken: steady first, then windows long enough, in turns, summed up by quartiles.

A window is a number of calls that together last long enough for the clock and for the odd
interruption not to matter. Contenders take turns, a window each, so that a machine whose speed
drifts treats them alike; a ratio of two of them is taken round by round.
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
STEADY = 0.1  # two windows in a row that differ by less are steady
PATIENCE_SECONDS = 2.0  # for getting there; a machine that others use may never
# After a wait: the data has left the caches, and the threads of whoever ran before may still
# spin, OpenBLAS's for some 25 ms.
SETTLE_SECONDS = 0.04

Name = TypeVar("Name")


def timed(call: Callable[[], object], calls: int = 1) -> float:
    """Seconds per call, over `calls` of them."""
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls


def calls_in(seconds: float, measure: Callable[[int], float]) -> int:
    """How many calls fill so many seconds, after warming up until two windows agree.

    Parameters
    ----------
    seconds : float
        Of a window.
    measure : callable
        ``measure(calls)``: seconds per call.
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
    """Run untimed, before a window."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        call()


def turns(names: Iterable[Name], rounds: int) -> Iterator[Name]:
    """Whose turn it is: each has one a round, every other round in reverse order."""
    order = list(names)
    for _ in range(rounds):
        yield from order
        order.reverse()


def rounds_of(
    contenders: Mapping[Name, Callable[[], float]], rounds: int
) -> dict[Name, list[float]]:
    """Each contender's windows, in turns."""
    values: dict[Name, list[float]] = {name: [] for name in contenders}
    for name in turns(contenders, rounds):
        values[name].append(contenders[name]())
    return values


def quartiles(values: Sequence[float]) -> dict[str, Any]:
    """q1, median, q3, and the values that they sum up."""
    if len(values) == 1:
        q1 = median = q3 = values[0]
    else:
        q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"q1": q1, "median": median, "q3": q3, "values": list(values)}


def ratio(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """Quartiles of a / b, round by round: a drift of the machine's speed cancels.

    Of a run that was broken off, the rounds that both have.
    """
    return quartiles([x / y for x, y in zip(a, b, strict=False)])
