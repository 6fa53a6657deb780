"""The plain loop over the steps of an epoch, for libraries that run a step eagerly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from xpnet.arrays.ops import device, namespace
from xpnet.backend.interface import Agree, Array, Params, Prepare, Run, Step

__all__ = [
    "CHUNK_SECONDS", "Gather", "RowStep", "flushing", "gathering", "on_rows", "plain_loop",
    "next_length", "within",
]  # fmt: skip

# gather(data, rows) returns the batch: these rows of each array, with the samples prepared
Gather = Callable[[tuple[Array, ...], Array], Sequence[Array]]
# work(params, state, data, rows) -> (params, state, loss) runs a step on these rows of the data
RowStep = Callable[[Params, Params, tuple[Array, ...], Array], tuple[Params, Params, Array]]

# Seconds of work between two yields: short enough for Ctrl-C and a progress bar, and so long that
# the time to read the losses (which waits for a GPU) is negligible.
CHUNK_SECONDS = 0.1


def gathering(
    take: Callable[[Array, Array], Array], prepare: Prepare, *, nested: bool = False
) -> Gather:
    """Return a gather that calls ``take(array, rows)`` per array and then prepares the samples.

    For K models at once, rows may be of shape (K, batch): the batch of each model. So may be the
    weights, the third array: (K, N), those of each model. The standard's `take` needs rows in one
    axis; `nested` says that this one does not.
    """

    def taken(array: Array, rows: Array) -> Array:
        if nested or rows.ndim == 1:
            return take(array, rows)
        xp = namespace(array)
        found = take(array, xp.reshape(rows, (-1,)))
        return xp.reshape(found, (*rows.shape, *array.shape[1:]))

    def gather(data: tuple[Array, ...], rows: Array) -> Sequence[Array]:
        x, *rest = data
        each = [
            taken(*_flat(a, rows)) if k > 0 and a.ndim == 2 else taken(a, rows)
            for k, a in enumerate(rest)
        ]
        return (prepare(taken(x, rows)), *each)

    return gather


def _flat(weights: Array, rows: Array) -> tuple[Array, Array]:
    """Return weights of shape (K, N) in one row, and where those of each model's batch lie."""
    xp = namespace(weights)
    models, n = weights.shape
    starts = xp.arange(0, models * n, n, dtype=rows.dtype, device=device(rows))
    return xp.reshape(weights, (-1,)), rows + starts[:, None]


def on_rows(step: Step, gather: Gather) -> RowStep:
    """Return a function that gathers a batch and runs the step on it."""

    def work(
        params: Params, state: Params, data: tuple[Array, ...], rows: Array
    ) -> tuple[Params, Params, Array]:
        return step(params, state, *gather(data, rows))

    return work


# After so many steps, numbers that are so many times the smallest normal number become 0.
FLUSH_STEPS, FLUSH_BELOW = 256, 1e13


def flushing(work: RowStep, flush: Callable[[Array], None]) -> RowStep:
    """Return `work`, which now and then sets the tiniest numbers of parameters and state to 0.

    The gradient of a dead unit is 0 from then on, and its momentum shrinks with every step: after
    some 800 steps it is subnormal, and processors are slow on such numbers. A step of 4-100-100-2,
    of which 60 % of the momenta were subnormal, took 1.4 times as long. What is set to 0 is too
    small to move a parameter.

    Parameters
    ----------
    work : callable
        From `on_rows`.
    flush : callable
        Sets to 0 what is below FLUSH_BELOW times the smallest normal number, in place.
    """

    def flushed(
        params: Params, state: Params, data: tuple[Array, ...], rows: Array
    ) -> tuple[Params, Params, Array]:
        params, state, loss = work(params, state, data, rows)
        # By the count of the whole run, so that a resumed run does it at the same steps.
        if "step" in state and int(state["step"]) % FLUSH_STEPS == 0:
            for array in (*params.values(), *state.values()):
                flush(array)
        return params, state, loss

    return flushed


def plain_loop(
    work: RowStep, stack: Callable[[list[Array]], Array], agree: Agree | None = None
) -> Run:
    """Return a `Run` that calls `work` for one step after the other.

    Parameters
    ----------
    work : callable
        From `on_rows`.
    stack : callable
        Joins a list of 0-d losses into one array; called once per chunk.
    agree : callable, optional
        See `Backend.loop`. Without it, each chunk ends by this process's clock.
    """
    length = 1  # of the next chunk, if the ranks agree on it

    def run(
        params: Params, state: Params, data: tuple[Any, ...], order: Any
    ) -> Iterator[tuple[Params, Params, Array]]:
        nonlocal length
        steps = order.shape[0]
        losses: list[Any] = []
        began = time.perf_counter()
        for i in range(steps):
            params, state, loss = work(params, state, data, order[i, ...])
            losses.append(loss)
            if agree is None:
                full = time.perf_counter() - began > CHUNK_SECONDS
            elif full := len(losses) == length:
                length = agree(next_length(length, time.perf_counter() - began))
            if full or i == steps - 1:
                yield params, state, stack(losses)
                losses = []
                began = time.perf_counter()

    return run


def next_length(steps: int, seconds: float) -> int:
    """Return how many steps to take until the next yield, after so many in so many seconds."""
    fitting = int(CHUNK_SECONDS * steps / max(seconds, 1e-9))
    return max(1, min(fitting, 2 * steps))


def within(context: Callable[[], AbstractContextManager[None]], run: Run) -> Run:
    """Return `run` with each of its chunks, but not its caller's work, inside the context."""

    def guarded(*args: Any) -> Iterator[tuple[Params, Params, Array]]:
        chunks = run(*args)
        while True:
            with context():
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    return guarded
