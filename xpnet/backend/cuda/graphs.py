"""CUDA graphs by CuPy, with a memory pool that nothing else uses."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import cupy
import numpy as np

from xpnet.backend.cuda.fuse import C_TYPES

__all__ = ["CupyGraphs", "stack_source"]

OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
STACKED = 32  # one kernel stacks at most this many arrays
THREADS = 256  # at most, per block


class CupyGraphs:
    """CuPy's CUDA graphs; see `xpnet.backend.captured.Graphs`."""

    def __init__(self, index: int) -> None:
        self._device = device = cupy.cuda.Device(index)
        self._stacks: dict[str, Any] = {}
        with device:
            # The null stream cannot be captured, and it would disturb a blocking stream's capture.
            self._stream = cupy.cuda.Stream(non_blocking=True)
            # A graph's temporaries keep their addresses, so nothing else may get their memory.
            self._pool = pool = cupy.cuda.MemoryPool(_allocate)
            pool.set_limit(size=0)  # CUPY_GPU_MEMORY_LIMIT is for the default pool

        def give_back() -> None:
            with device:
                pool.free_all_blocks()  # a deleted pool does not do this by itself

        weakref.finalize(self, give_back).atexit = False

    def join(self, losses: list[Any]) -> Any:
        return cupy.concatenate(losses)

    def stack(self, losses: list[Any], out: Any) -> None:
        # CuPy's own function sends a table of addresses from the host if there are many arrays.
        for start in range(0, len(losses), STACKED):
            part = [cupy.ascontiguousarray(x) for x in losses[start : start + STACKED]]
            name = out.dtype.name
            if name not in self._stacks:
                self._stacks[name] = cupy.RawKernel(stack_source(name), "xpnet_stack")
            rest = [np.int64(0)] * (STACKED - len(part))
            size, total = part[0].size, sum(array.size for array in part)
            threads = min(THREADS, STACKED * -(-total // STACKED))
            numbers = np.int32(total), np.int32(size)
            self._stacks[name](
                (-(-total // threads),), (threads,), (out[start:], *numbers, *part, *rest)
            )

    def copy(self, array: Any) -> Any:
        return array.copy()

    def empty(self, length: int, like: Any) -> Any:
        return cupy.empty((length, *like.shape), like.dtype)

    def place(self, array: Any) -> Hashable:
        return int(array.data.ptr), array.strides

    def memory(self, array: Any) -> Hashable:
        return int(array.data.mem.ptr)

    def mark(self) -> Callable[[], None]:
        event = cupy.cuda.Event(disable_timing=True)
        event.record()
        wait: Callable[[], None] = event.synchronize
        return wait

    @contextmanager
    def aside(self) -> Iterator[None]:
        self._device.synchronize()  # a non-blocking stream does not wait for other streams
        with cupy.cuda.using_allocator(self._pool.malloc), self._stream:
            try:
                yield
            finally:  # interrupted work, too, uses memory that others may get next
                self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        stream = self._stream
        stream.begin_capture()
        try:
            work()
        except BaseException:
            # Otherwise all later work would be captured. Ending a failed capture may raise.
            with suppress(Exception):
                stream.end_capture()
            raise
        graph = stream.end_capture()
        graph.upload(stream)
        launch: Callable[[], None] = graph.launch
        return launch


def stack_source(dtype: str) -> str:
    """Write CUDA C that stacks up to `STACKED` arrays of one size, given their addresses."""
    real, numbers = C_TYPES[dtype], range(STACKED)
    return (
        f'extern "C" __global__ void xpnet_stack({real}* out, int total, int size, '
        f"{', '.join(f'const {real}* x{i}' for i in numbers)}) {{\n"
        f"    const {real}* x[] = {{{', '.join(f'x{i}' for i in numbers)}}};\n"
        "    int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
        "    if (i < total) out[i] = x[i / size][i % size];\n}\n"
    )


def _allocate(size: int) -> Any:
    """Allocate memory from the driver; if there is none, free the default pool and try again.

    On CUDA's own error, a pool frees its unused blocks and asks again. But these blocks hold the
    temporaries of every graph that was recorded with the pool. So this function raises another
    error type, and first frees the unused blocks of the default pool, which no graph uses.
    """
    try:
        return _driver_memory(size)
    except cupy.cuda.memory.OutOfMemoryError:
        cupy.get_default_memory_pool().free_all_blocks()
        return _driver_memory(size)


def _driver_memory(size: int) -> Any:
    try:
        return cupy.cuda.MemoryPointer(cupy.cuda.memory.Memory(size), 0)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if error.status != OUT_OF_MEMORY:
            raise
        used = cupy.get_default_memory_pool().used_bytes()
        raise cupy.cuda.memory.OutOfMemoryError(size, used) from None
