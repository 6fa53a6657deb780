"""Upload data that is too large for the GPU, while the GPU works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import cupy
import cupyx
import numpy as np

__all__ = ["Uploader"]


class Uploader:
    """Send shards through pinned memory on a separate stream, one ahead of the shard in use.

    Two halves of device memory take turns. Their addresses are fixed, as a captured graph needs.
    `upload` yields a whole half, of which the last shard may fill only a part.
    """

    def __init__(self, on_device: Callable[[], AbstractContextManager[None]]) -> None:
        self._on_device = on_device
        self._stream: Any = None
        self._halves: list[_Half | None] = [None, None]

    def upload(self, shards: Iterator[tuple[np.ndarray, ...]]) -> Iterator[tuple[Any, ...]]:
        if self._stream is None:
            with self._on_device():
                self._stream = cupy.cuda.Stream(non_blocking=True)
        with self._on_device():
            for interrupted in filter(None, self._halves):
                interrupted.used.record()  # an interrupted loop did not record it
        with ThreadPoolExecutor(1) as reader:

            def fetch(turn: int) -> _Half | None:
                arrays = next(shards, None)
                if arrays is None:
                    return None
                with self._on_device():
                    half = self._halves[turn % 2]
                    if half is None or not half.holds(arrays):
                        if half is not None:
                            half.sent.synchronize()  # it may still be on its way, and never used
                        half = self._halves[turn % 2] = _Half(arrays)
                    half.fill(arrays, self._stream)
                return half

            turn, coming = 1, reader.submit(fetch, 0)
            while (half := coming.result()) is not None:
                # The reader fills the next half while the GPU works on this one.
                coming = reader.submit(fetch, turn)
                turn += 1
                with self._on_device():
                    cupy.cuda.get_current_stream().wait_event(half.sent)
                yield half.arrays
                with self._on_device():
                    half.used.record()


class _Half:
    """Pinned memory and device memory, with events that say when each may be overwritten."""

    def __init__(self, arrays: tuple[np.ndarray, ...]) -> None:
        self.pinned = [cupyx.empty_pinned(a.shape, a.dtype) for a in arrays]
        self.arrays = tuple(cupy.empty(a.shape, a.dtype) for a in arrays)
        self.sent, self.used = (cupy.cuda.Event(disable_timing=True) for _ in range(2))
        # The copy stream does not wait for earlier users of this memory, so wait here.
        cupy.cuda.get_current_stream().synchronize()

    def holds(self, arrays: tuple[np.ndarray, ...]) -> bool:
        return len(arrays) == len(self.pinned) and all(
            a.dtype == p.dtype and a.shape[1:] == p.shape[1:] and len(a) <= len(p)
            for a, p in zip(arrays, self.pinned, strict=True)
        )

    def fill(self, arrays: tuple[np.ndarray, ...], stream: Any) -> None:
        self.sent.synchronize()  # wait until the last shard has left the pinned memory
        stream.wait_event(self.used)  # and until the GPU has used the shard on the device
        for array, pinned, there in zip(arrays, self.pinned, self.arrays, strict=True):
            pinned[: len(array)] = array
            there[: len(array)].set(pinned[: len(array)], stream=stream)
        self.sent.record(stream)
