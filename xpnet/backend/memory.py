"""Memory that a step gives back, kept for the next one."""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_freed_memory"]

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 1 << 30  # the most that is kept
HEAP_BYTES = 32 << 20  # arrays up to this size come from the heap: the most that glibc allows


def keep_freed_memory() -> bool:
    """Let the C library keep what arrays give back, instead of handing it to the system.

    The arrays of a step are freed at its end, and glibc returns a large free block at once: the
    next step asks for the same pages again, which the system has to fetch and clear, one by one.
    On a network of 784-256-10 that was more than half of the time of a step.

    Returns
    -------
    bool
        Whether it was done: not on systems without glibc, whose allocators differ, nor where the
        user has set glibc's own variables.

    Notes
    -----
    Concerns the whole process, whose memory was as large already: it shrinks later, not grows.
    Source: mallopt(3).
    """
    chosen = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    if any(name in os.environ for name in chosen):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function; no library; Windows
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, HEAP_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
