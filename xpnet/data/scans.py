"""Looks at all of a data set before the first step, which ranks share if it stays in its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from xpnet.data.dataset import chunk_starts, chunks, is_streamed
from xpnet.errors import DataError
from xpnet.parallel.group import ALONE, Group

__all__ = ["scan"]

T = TypeVar("T")

# Results of parts are joined in the order of the parts, which depend on no number of ranks: then
# the numbers are those of one process, to the bit. They are sent, so there are not many.
PARTS = 64


def scan(
    x: Any,
    look: Callable[[Iterator[tuple[int, np.ndarray]]], T],
    group: Group = ALONE,
    enough: Callable[[T], bool] = lambda result: False,
) -> list[T]:
    """Return what ``look`` finds in each part of x, in the order of the parts.

    In memory, x is one part, and each rank looks at it. In a file, x has up to 64 parts, and a
    rank reads some that follow each other. All ranks get all results, or the same error.

    Parameters
    ----------
    x : array, shape=(N, ...)
    look : callable
        It gets (first row, rows) of each chunk of a part, as `chunks` yields them.
    group : Group
    enough : callable
        Whether a result makes those that follow needless; a rank then ends its part of the work.

    Raises
    ------
    DataError

    Examples
    --------
    >>> scan(np.arange(6.0), lambda part: sum(rows.sum() for _, rows in part))
    [np.float64(15.0)]
    """
    # It depends on the free memory whether a file is read into it: ranks may differ in that.
    if group.size > 1 and not all(group.gather(is_streamed(x))):
        group = ALONE
    starts = chunk_starts(x)
    count = min(PARTS, len(starts)) if is_streamed(x) else 1
    edges = [len(starts) * k // count for k in range(count + 1)] if count else [0]
    first, end = (count * rank // group.size for rank in (group.rank, group.rank + 1))
    results: list[T] = []
    failed: DataError | None = None
    try:
        for k in range(first, end):
            results.append(look(chunks(x, starts[edges[k] : edges[k + 1]])))
            if enough(results[-1]):
                break
    except DataError as error:
        if group.size == 1:
            raise
        failed = error
    found: list[T] = []
    for theirs, fault in group.gather((results, None if failed is None else str(failed))):
        if fault is not None:
            raise DataError(fault) from failed
        found += theirs
    return found
