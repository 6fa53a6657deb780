"""Ranks as threads of one process: a group without MPI, for tests of what each rank computes."""

from __future__ import annotations

import contextvars
import pickle
import threading
from collections.abc import Callable
from contextlib import nullcontext
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


class Turns(threading.Barrier):
    """A barrier of ranks that work by turns: whoever waits gives up the lock that it holds."""

    def __init__(self, size: int, turn: threading.Lock) -> None:
        super().__init__(size, timeout=60)
        self._turn = turn

    def wait(self, timeout: float | None = None) -> int:
        self._turn.release()
        try:
            return super().wait(timeout)
        finally:
            self._turn.acquire()


def on_ranks(
    size: int, work: Callable[[Group], Any], turn: threading.Lock | None = None
) -> list[Any]:
    """Call ``work(group)`` on so many ranks; return what each of them returns.

    An error on one of them is raised, after the others have been let go. With a lock, one rank
    works at a time: the one that holds it.
    """
    shared: list[Any] = [None] * size
    barrier = threading.Barrier(size, timeout=60) if turn is None else Turns(size, turn)
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            with turn or nullcontext():
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
