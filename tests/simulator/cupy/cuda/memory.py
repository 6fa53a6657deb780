from cupy._errors import OutOfMemoryError
from cupy._memory import Memory, MemoryPointer, MemoryPool, alloc

__all__ = ["Memory", "MemoryPointer", "MemoryPool", "OutOfMemoryError", "alloc"]
