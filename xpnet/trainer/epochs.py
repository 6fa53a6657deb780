"""The training loop over one epoch, without scores, checks, files or printing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from xpnet.arrays.ops import Array
from xpnet.backend.interface import Run
from xpnet.data.dataset import in_several_files
from xpnet.data.loader import Feed, batch_order, lane_order

__all__ = ["Shared", "train_epoch"]

# shared(batch size) -> (loop, the rows of each batch that it takes)
Shared = Callable[[int], tuple[Run, slice]]


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
    shared: Shared | None = None,
) -> Iterator[tuple[dict[str, Array], dict[str, Array], Array]]:
    """Train one epoch, in which each sample is used once.

    Parameters
    ----------
    run : callable
        The loop over steps, from `xpnet.backend.Backend.loop`.
    feed : Feed
    data : tuple of arrays
        Samples, targets and, if you have them, sample weights. All are device arrays, or, if the
        samples are memory-mapped, all are host arrays.
    params, state : dict of str to array
        The loop consumes them; use what it yields instead.
    batch_size : int
    seed, epoch : int
        They determine the order of the samples: `xpnet.data.batch_order`, or, if the samples are
        read from several files, `xpnet.data.loader.lane_order`.
    done : int
        Skip this many steps, to continue an interrupted epoch.
    shared : callable, optional
        On several ranks, the loop and this rank's rows for batches of a size, in place of `run`.

    Yields
    ------
    params, state : dict of str to array
    losses : array of floats, shape=(steps,)
        The losses of the steps since the last yield; the backend chooses how many. First store
        parameters and state, then copy the losses to the host with ``backend.to_numpy``, which
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
    draw = lane_order if in_several_files(data[0]) else batch_order
    for order in draw(data[0].shape[0], batch_size, seed, epoch):
        skipped = min(done, len(order))
        done -= skipped
        loop, own = (run, slice(None)) if shared is None else shared(order.shape[1])
        for part, rows in feed.shards(data, order[skipped:, own], order.shape[1]):
            for chunk in loop(params, state, part, rows):
                params, state, _ = chunk
                yield chunk
