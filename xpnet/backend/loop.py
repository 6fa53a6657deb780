"""The plain epoch loop, for every library that runs a step eagerly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from xpnet.backend import Array, Params, Run, Step

__all__ = ["CHUNK_SECONDS", "plain_loop", "within"]

# Seconds of work between two yields: short enough for Ctrl-C and a progress bar, long
# enough that reading the losses back, which waits for a GPU, costs nothing.
CHUNK_SECONDS = 0.1


def plain_loop(
    step: Step,
    take: Callable[[Array, Array], Array],
    read: Callable[[list[Array]], np.ndarray],
) -> Run:
    """Gather, step, gather, step, ... in Python.

    Parameters
    ----------
    step : Step
    take : callable
        ``take(array, rows)``: some rows of an array.
    read : callable
        A list of 0-d losses to one NumPy array; called once per chunk.
    """

    def run(
        params: Params, state: Params, data: tuple[Any, ...], order: Any
    ) -> Iterator[tuple[Params, Params, np.ndarray]]:
        steps = order.shape[0]
        losses: list[Any] = []
        began = time.perf_counter()
        for i in range(steps):
            rows = order[i, :]
            batch = [take(array, rows) for array in data]
            params, state, loss = step(params, state, *batch)
            losses.append(loss)
            if i == steps - 1 or time.perf_counter() - began > CHUNK_SECONDS:
                yield params, state, read(losses)
                losses = []
                began = time.perf_counter()

    return run


def within(context: Callable[[], AbstractContextManager[None]], run: Run) -> Run:
    """`run`, each of whose turns is taken within a context, and none of its consumer's."""

    def guarded(*args: Any) -> Iterator[tuple[Params, Params, np.ndarray]]:
        chunks = run(*args)
        while True:
            with context():
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    return guarded
