"""A model of the time of a step on many ranks, fitted to measurements of a few.

A step computes on its rows and then adds up the gradients of all ranks:

    step(N) = fixed + rows * each + latency * log2(N) + 2 (N - 1) / N * bytes / bandwidth

The all-reduce is the usual one: some log2(N) messages one after the other, and each rank sends and
receives its data twice, less the N-th part (Thakur, Rabenseifner and Gropp, 2005).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

__all__ = [
    "LINKS", "Compute", "Link", "Parts", "fitted_compute", "fitted_link", "rows_needed", "step",
]  # fmt: skip


class Link(NamedTuple):
    """What connects two ranks: seconds until a message arrives, and bytes a second."""

    latency: float
    bandwidth: float

    def all_reduce(self, ranks: int, size: float) -> float:
        """Return the seconds to add up so many bytes over so many ranks.

        Examples
        --------
        >>> Link(2e-6, 50e9).all_reduce(1, 1e6)
        0.0
        >>> f"{1e6 * Link(2e-6, 50e9).all_reduce(1024, 1e6):.1f} us"
        '60.0 us'
        """
        return self.latency * math.log2(ranks) + 2 * (ranks - 1) / ranks * size / self.bandwidth


# A rank has a link of its own. Message latencies as MPI programs see them: some 10 us by TCP over
# Ethernet, some 2 us by InfiniBand, software included; bandwidths are those of the line.
LINKS = {
    "100 Gbit/s Ethernet": Link(10e-6, 100e9 / 8),
    "InfiniBand NDR, 400 Gbit/s": Link(2e-6, 400e9 / 8),
}


class Compute(NamedTuple):
    """A rank's own work: seconds of a step, and of each of its rows."""

    fixed: float
    each: float

    def seconds(self, rows: float) -> float:
        return self.fixed + rows * self.each


class Parts(NamedTuple):
    """Where the seconds of a step go."""

    compute: float
    latency: float
    transfer: float

    @property
    def seconds(self) -> float:
        return sum(self)

    @property
    def efficiency(self) -> float:
        """The speed relative to a rank that waits for nobody."""
        return self.compute / self.seconds


def step(
    compute: Compute, link: Link, ranks: int, rows: float, size: float, cores: float = math.inf
) -> Parts:
    """Return the seconds of a step of so many ranks, each with so many rows.

    Parameters
    ----------
    compute : Compute
    link : Link
    ranks : int
    rows : float
        Rows of a rank.
    size : float
        Bytes of all gradients.
    cores : float
        If there are more ranks than cores, they take turns: all takes longer by that factor.

    Examples
    --------
    >>> parts = step(Compute(1e-4, 1e-6), Link(1e-5, 1e9), 2, 300, 1e5)
    >>> [round(1e6 * part) for part in parts]
    [400, 10, 100]
    >>> round(parts.efficiency, 2)
    0.78
    >>> round(1e6 * step(Compute(1e-4, 1e-6), Link(0.0, 1e9), 4, 300, 0.0, cores=2).seconds)
    800
    """
    turns = max(1.0, ranks / cores)
    latency = link.latency * math.log2(ranks)
    transfer = link.all_reduce(ranks, size) - latency
    return Parts(turns * compute.seconds(rows), turns * latency, turns * transfer)


def rows_needed(
    compute: Compute,
    link: Link,
    ranks: int,
    size: float,
    efficiency: float = 0.8,
    fixed_is_lost: bool = False,
) -> int:
    """Return the fewest rows of a rank that keep the efficiency.

    It is relative to one rank with as many rows; or, if `fixed_is_lost`, to one with a batch so
    large that the fixed part of its steps is negligible.

    Examples
    --------
    >>> rows_needed(Compute(0.0, 1e-6), Link(1e-5, 1e9), 2, 1e5)
    440
    >>> rows_needed(Compute(1e-4, 1e-6), Link(1e-5, 1e9), 2, 1e5)
    340
    >>> rows_needed(Compute(1e-4, 1e-6), Link(1e-5, 1e9), 2, 1e5, fixed_is_lost=True)
    840
    """
    factor = efficiency / (1 - efficiency)
    least = link.all_reduce(ranks, size) * factor
    least += compute.fixed * factor if fixed_is_lost else -compute.fixed
    return max(1, math.ceil(round(least / compute.each, 6)))  # rounding must not add a row


def fitted_link(seconds: Mapping[int, float]) -> Link:
    """Return the link of two ranks whose all-reduce takes so long, by bytes.

    The relative errors are smallest, so that small messages count as much as large ones.

    Examples
    --------
    >>> link = fitted_link({4: 2.004e-6, 1000: 3e-6, 10**6: 1.002e-3})
    >>> f"{link.latency:.1e} {link.bandwidth:.1e}"
    '2.0e-06 1.0e+09'
    """
    intercept, slope = _line(seconds)
    return Link(max(intercept, 0.0), 1 / slope)


def fitted_compute(seconds: Mapping[int, float]) -> Compute:
    """Return the work of one rank whose steps take so long, by rows.

    Examples
    --------
    >>> fixed, each = fitted_compute({100: 3e-4, 200: 5e-4, 400: 9e-4})
    >>> f"{fixed:.1e} {each:.1e}"
    '1.0e-04 2.0e-06'
    """
    intercept, slope = _line(seconds)
    return Compute(max(intercept, 0.0), slope)


def _line(seconds: Mapping[int, float]) -> tuple[float, float]:
    """Return intercept and slope of the line with the smallest relative errors."""
    x, y = (np.array(list(values), np.float64) for values in (seconds, seconds.values()))
    unknown = np.stack([1 / y, x / y], axis=1)
    scale = np.abs(unknown).max(axis=0)
    found = np.linalg.lstsq(unknown / scale, np.ones_like(y), rcond=None)[0] / scale
    return float(found[0]), float(found[1])
