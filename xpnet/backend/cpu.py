"""The processor, its memory, and what the C library does with it."""

from __future__ import annotations

import ctypes
import os
import platform

__all__ = ["cpu_flags", "cpu_memory", "cpu_name", "keep_freed_memory", "multiplies_bfloat16"]

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 1 << 30  # the most that is kept
HEAP_BYTES = 32 << 20  # arrays up to this size come from the heap; glibc allows no more


def _cpuinfo(*keys: str) -> str:
    """The first processor's value of one of these keys in /proc/cpuinfo; "" if there is none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() in keys:
                    return value.strip()
    except OSError:
        pass
    return ""


def cpu_name() -> str:
    """The processor's name as the operating system gives it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """The processor's features by the names that Linux gives them; empty elsewhere."""
    return set(_cpuinfo("flags", "Features").split())


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16 numbers."""
    return not cpu_flags().isdisjoint(("avx512_bf16", "amx_bf16", "bf16", "svebf16"))


def cpu_memory() -> int:
    """Bytes of main memory; 0 if the operating system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def keep_freed_memory() -> bool:
    """Let the C library keep what arrays give back, instead of handing it to the system.

    The arrays of a step are freed at its end, and glibc returns a large free block at once: the
    next step asks for the same pages again, which the system has to fetch and clear, one by one.
    On a network of 784-256-10 that was more than half of the time of a step.

    Returns
    -------
    bool
        Whether glibc was asked: not on other systems, whose allocators differ, nor where the user
        has set glibc's own variables.

    Notes
    -----
    Concerns the whole process: what its main heap has freed, up to KEPT_BYTES, stays with it.
    Arrays larger than HEAP_BYTES are still handed back. Source: mallopt(3).
    """
    chosen = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    if any(name in os.environ for name in chosen):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function; no library; Windows
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, HEAP_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
