"""What the ranks of a set say to each other: arrays in pieces, and what happened in an epoch."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from xpnet.parallel.group import Group
from xpnet.trainer.history import Epoch, History

__all__ = ["News", "from_first", "gathered"]

Arrays = dict[str, np.ndarray]
# The ranks together send so many bytes at a time, or one array each, if it is larger.
PIECE = 64 << 20


@dataclass(frozen=True)
class News:
    """What an epoch was for a model; the other ranks record it in their copy of its history.

    Attributes
    ----------
    index : int
        The model.
    epoch : Epoch or None
        None if it failed before the epoch's end.
    losses : array, shape=(steps,)
    best_epoch : int
    metric, reason, failure : str
        As in the history.
    """

    index: int
    epoch: Epoch | None
    losses: np.ndarray
    best_epoch: int
    metric: str
    reason: str
    failure: str

    def tell(self, history: History) -> None:
        """Record the epoch."""
        if self.epoch is not None:
            history.unfinished = array("d", self.losses.tolist())
            history.close(self.epoch)
        history.best_epoch, history.metric = self.best_epoch, self.metric
        history.reason, history.failure = self.reason, self.failure


def gathered(arrays: Mapping[str, np.ndarray], group: Group, *, keep: bool = True) -> Arrays:
    """Bring together the arrays of all ranks, which have other names on each.

    All ranks get the bytes of all ranks, piece by piece; a rank that does not keep them needs no
    more memory than a piece.

    Parameters
    ----------
    arrays : mapping of str to array
        Those of this rank.
    group : Group
    keep : bool
        Whether this rank wants those of the others.
    """
    if group.size == 1:
        return dict(arrays)
    pieces = [*_pieces(arrays, PIECE // group.size)]
    found: Arrays = {}
    for turn in range(-group.least(-len(pieces))):
        for piece in group.gather(pieces[turn] if turn < len(pieces) else {}):
            if keep:
                found |= piece
    return found


def from_first(arrays: Mapping[str, np.ndarray], group: Group) -> Arrays:
    """Return the arrays of rank 0 on all ranks; what the others give does not matter."""
    if group.size == 1:
        return dict(arrays)
    pieces = [*_pieces(arrays, PIECE)]
    found: Arrays = {}
    for turn in range(group.first(lambda: len(pieces))):
        found |= group.first(partial(pieces.__getitem__, turn))
    return found


def _pieces(arrays: Mapping[str, np.ndarray], most: int) -> Iterator[Arrays]:
    """Yield the arrays in parts of at most so many bytes, or of one array."""
    piece: Arrays = {}
    size = 0
    for name, value in arrays.items():
        if piece and size + value.nbytes > most:
            yield piece
            piece, size = {}, 0
        piece[name] = value
        size += value.nbytes
    if piece:
        yield piece
