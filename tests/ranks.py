"""Ranks as threads of one process: a group without MPI, for tests of what each rank computes."""

from __future__ import annotations

import contextvars
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.parallel import Group


class Threads(Group):
    """A group whose ranks are threads; a value that one gives, the others read."""

    def __init__(self, rank: int, size: int, shared: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size = self.local_rank, self.local_size = rank, size
        self._shared, self._barrier = shared, barrier

    def _exchange(self, value: Any) -> list[Any]:
        self._shared[self.rank] = pickle.dumps(value)
        self._barrier.wait()
        found = [pickle.loads(each) for each in self._shared]  # copies, as between processes
        self._barrier.wait()
        return found

    def sum(self, buffer: np.ndarray) -> None:
        assert buffer.flags.c_contiguous
        buffer[...] = sum(self.gather(buffer))

    def least(self, number: int) -> int:
        return min(self.gather(number))

    def any(self, flag: bool) -> bool:
        return any(self.gather(flag))

    def first(self, function: Callable[[], Any]) -> Any:
        outcome: tuple[Any, Exception | None] = (None, None)
        if self.rank == 0:
            try:
                outcome = function(), None
            except Exception as error:
                outcome = None, error
        value, error = self.gather(outcome)[0]
        if error is not None:
            raise error
        return value


def on_ranks(size: int, work: Callable[[Group], Any]) -> list[Any]:
    """Call ``work(group)`` on so many ranks; return what each of them returns.

    An error on one of them is raised, after the others have been let go.
    """
    shared: list[Any] = [None] * size
    barrier = threading.Barrier(size, timeout=60)
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(Threads(rank, size, shared, barrier))
        except BaseException as error:
            if not isinstance(error, threading.BrokenBarrierError):
                errors.append(error)
            barrier.abort()

    contexts = [contextvars.copy_context() for _ in range(size)]
    threads = [
        threading.Thread(target=context.run, args=(run, rank))
        for rank, context in enumerate(contexts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
