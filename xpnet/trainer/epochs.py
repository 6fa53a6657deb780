"""The training loop itself: the chunks of an epoch, without scores, checks, files or printing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xpnet.arrays.ops import Array
from xpnet.backend.interface import Run
from xpnet.data.loader import Feed, batch_order

__all__ = ["train_epoch"]


def train_epoch(
    run: Run,
    feed: Feed,
    data: tuple[Any, ...],
    params: dict[str, Array],
    state: dict[str, Array],
    *,
    batch_size: int,
    seed: int = 0,
    epoch: int = 0,
    done: int = 0,
) -> Iterator[tuple[dict[str, Array], dict[str, Array], Array]]:
    """Train one epoch; each sample is seen once.

    Parameters
    ----------
    run : callable
        A backend's loop of a step, `xpnet.backend.Backend.loop`.
    feed : Feed
    data : tuple of arrays
        Samples, targets and maybe weights: either all are device arrays, or, if the samples are
        memory-mapped, all are host arrays.
    params, state : dict of str to array
        Consumed; read what is yielded in their place.
    batch_size : int
    seed, epoch : int
        The order of the samples is a function of the two.
    done : int
        Leave out so many steps: a resumed epoch goes on where it was.

    Yields
    ------
    params, state : dict of str to array
    losses : array, float, shape=(steps,)
        Of the steps since the last time; the backend decides how many those are. Store parameters
        and state first, and then bring the losses to the host with ``backend.to_numpy``, which
        waits for them.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> from xpnet.trainer import train_epoch
    >>> x, t = np.eye(4, dtype=np.float32), np.arange(4, dtype=np.int32) % 2
    >>> trainer = xpnet.Trainer(xpnet.mlp([4, 2]))
    >>> epoch = train_epoch(
    ...     trainer.run, trainer.feed, (x, t), trainer.params, trainer.state, batch_size=2
    ... )
    >>> [len(losses) for params, state, losses in epoch]
    [2]
    """
    for order in batch_order(data[0].shape[0], batch_size, seed, epoch):
        skipped = min(done, len(order))
        done -= skipped
        for part, rows in feed.shards(data, order[skipped:]):
            for chunk in run(params, state, part, rows):
                params, state, _ = chunk
                yield chunk
