"""Device memory: who owns it, how much there is, and when it is gone.

A `Memory` is one allocation. Arrays and pointers into it share it; when the last of them is
gone, so is the allocation, although the host's bytes may live on in a recorded graph. That is
how a graph notices that it would work on memory which CuPy's pool has handed to others.
"""

import contextlib
import threading
import weakref

import numpy as np

from cupy import simulator
from cupy._errors import CUDARuntimeError, OutOfMemoryError

_local = threading.local()
_live = {}  # address -> weak reference to the Memory that starts there
_total = 0  # bytes of all of them


class MemoryPool:
    """Hands out memory and remembers how much; keeps no free blocks, unlike CuPy's."""

    def __init__(self, allocator=None):
        self._account = {"used": 0, "limit": 0}  # outlives the pool: memory is returned to it
        self._allocator = allocator

    def malloc(self, size):
        reserve(size, self)
        return MemoryPointer(Memory(np.zeros(size, np.uint8), self), 0)

    def used_bytes(self):
        return self._account["used"]

    total_bytes = used_bytes

    def free_bytes(self):
        return 0

    def n_free_blocks(self):
        return 0

    def free_all_blocks(self, stream=None):
        pass

    def set_limit(self, size=None, fraction=None):
        self._account["limit"] = size or int((fraction or 0) * simulator.memory)

    def get_limit(self):
        return self._account["limit"]


default_pool = MemoryPool()


def current_pool():
    return getattr(_local, "pool", None) or default_pool


def get_default_memory_pool():
    return default_pool


@contextlib.contextmanager
def using_allocator(allocator=None):
    pool = getattr(allocator, "__self__", None)
    if not isinstance(pool, MemoryPool):
        raise NotImplementedError("simulator: using_allocator() takes the malloc of a MemoryPool")
    before, _local.pool = getattr(_local, "pool", None), pool
    try:
        yield
    finally:
        _local.pool = before


def reserve(size, pool=None):
    """Refuse what does not fit, before the host's memory is touched."""
    pool = pool or current_pool()
    limit = pool.get_limit()
    if limit and pool.used_bytes() + size > limit:
        raise OutOfMemoryError(size, pool.used_bytes(), limit)
    if pool._allocator is not None:
        pool._allocator(size)  # asked, and let go of: what it raises is what counts
    elif _total + size > simulator.memory:
        raise OutOfMemoryError(size, pool.used_bytes())


class Memory:
    """One allocation on the pretended GPU."""

    def __init__(self, root, pool=None):
        global _total
        if isinstance(root, int):  # so many bytes, asked of the driver
            if _total + root > simulator.memory:
                raise CUDARuntimeError(2)
            root = np.zeros(root, np.uint8)
        self._root = root
        self._pool = pool or current_pool()
        self.ptr, self.size = root.ctypes.data, root.nbytes
        # A block of CuPy's belongs to its pool, but does not keep it alive.
        self.private = self._pool is not default_pool
        self._account, self._pool = self._pool._account, weakref.ref(self._pool)
        self.capture = None  # the capture in which it was allocated
        self.written, self.read = None, {}  # last uses, (stream, number): see _stream
        self._account["used"] += self.size
        _total += self.size
        _live[self.ptr] = weakref.ref(self)

    def __del__(self):
        global _total
        if hasattr(self, "capture"):
            self._account["used"] -= self.size
            _total -= self.size
            if (ref := _live.get(self.ptr)) is not None and ref() in (None, self):
                del _live[self.ptr]

    def _bytes(self):
        """Its bytes, in the order in which they lie."""
        return self._root.ravel(order="K").view(np.uint8)


class MemoryPointer:
    def __init__(self, mem, offset):
        self.mem, self.ptr = mem, mem.ptr + offset

    def __add__(self, offset):
        return MemoryPointer(self.mem, self.ptr + offset - self.mem.ptr)

    def __int__(self):
        return self.ptr


def alloc(size):
    return current_pool().malloc(size)


def find(address):
    """The living allocation that an address points into, or None."""
    for start, ref in _live.copy().items():
        memory = ref()
        if memory is not None and start <= address < start + max(memory.size, 1):
            return memory
    return None


def mem_info():
    """Free and total bytes of the device."""
    return simulator.memory - _total, simulator.memory
