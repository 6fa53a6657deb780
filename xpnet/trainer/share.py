"""The part of each batch that a rank computes, and how the parts add up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from xpnet.arrays.ops import Array, namespace
from xpnet.backend.interface import Reduce

__all__ = ["Share"]


@dataclass(frozen=True)
class Share:
    """A rank's rows of every batch of one size.

    A batch with fewer rows than ranks is not cut: each rank computes all of it, and the results of
    rank 0 count.

    Parameters
    ----------
    rank, size : int
    batch : int
        The rows of the whole batch.
    reduce : callable
        Sums arrays over the ranks, see `xpnet.backend.Backend.reducer`. Shares with the same one
        are equal if the numbers are.

    Examples
    --------
    >>> [Share(rank, 3, 8, list).rows for rank in range(3)]
    [slice(0, 2, None), slice(2, 5, None), slice(5, 8, None)]
    """

    rank: int
    size: int
    batch: int
    reduce: Reduce = field(repr=False)

    @property
    def whole(self) -> bool:
        """Whether each rank computes the whole batch."""
        return self.batch < self.size

    @property
    def rows(self) -> slice:
        """This rank's rows within a batch."""
        if self.whole:
            return slice(0, self.batch)
        first, end = (self.batch * rank // self.size for rank in (self.rank, self.rank + 1))
        return slice(first, end)

    @cached_property
    def kernels(self) -> Mapping[str, Callable[..., Any]]:
        """What takes the place of the functions in `xpnet.arrays.ranks`."""
        place = self.rows.start, self.batch
        reduce = self._of_first if self.whole and self.rank else self.reduce
        return {"sum_over_ranks": reduce, "place_in_batch": lambda rows: place}

    def _of_first(self, arrays: Sequence[Array]) -> list[Array]:
        return self.reduce([namespace(array).zeros_like(array) for array in arrays])
