"""What a step asks where several processes, the ranks, each compute on some rows of a batch.

Gates know no ranks. Where a sum is over all rows of a batch, or a row's number matters, they call
these functions. Alone, a process has the whole batch, and they return what they are given. A
training on several ranks puts its own in their place, as a backend does with kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

from xpnet.arrays.dispatch import Array, replaceable

__all__ = ["place_in_batch", "sum_over_ranks"]


@replaceable
def sum_over_ranks(arrays: Sequence[Array]) -> list[Array]:
    """Return the sum of each array over all ranks; alone, the arrays themselves.

    All ranks call it in the same order, with arrays of the same shapes and of one dtype.

    Examples
    --------
    >>> import numpy as np
    >>> [a.tolist() for a in sum_over_ranks([np.ones(2)])]
    [[1.0, 1.0]]
    """
    return list(arrays)


@replaceable
def place_in_batch(rows: int) -> tuple[int, int]:
    """Return where these rows lie: the number of the first of them, and the rows of the batch.

    Examples
    --------
    >>> place_in_batch(32)
    (0, 32)
    """
    return 0, rows
