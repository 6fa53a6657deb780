"""The corner of `cupy.cuda` that training needs."""

from cupy import simulator as _simulator
from cupy._memory import MemoryPointer, MemoryPool, alloc, using_allocator
from cupy._stream import Event, Graph, Stream, get_current_stream, get_elapsed_time
from cupy.cuda import device, memory, nvrtc, runtime, stream
from cupy.cuda.device import Device

__all__ = [
    "Device",
    "Event",
    "Graph",
    "MemoryPointer",
    "MemoryPool",
    "Stream",
    "alloc",
    "device",
    "get_current_stream",
    "get_elapsed_time",
    "is_available",
    "memory",
    "nvrtc",
    "runtime",
    "stream",
    "using_allocator",
]


def is_available():
    return _simulator.device_count > 0
