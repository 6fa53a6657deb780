"""Describe the processor and its memory, and set how the C library treats freed memory."""

from __future__ import annotations

import ctypes
import os
import platform

__all__ = ["cpu_flags", "cpu_memory", "cpu_name", "keep_freed_memory", "multiplies_bfloat16"]

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 1 << 30  # glibc keeps at most this much freed memory
HEAP_BYTES = 32 << 20  # arrays up to this size come from the heap; glibc allows no larger value


def _cpuinfo(*keys: str) -> str:
    """Return the first value of one of these keys in /proc/cpuinfo, or "" if there is none."""
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
    """Return the processor's name from the operating system."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """Return Linux's names for the processor's features; an empty set on other systems."""
    return set(_cpuinfo("flags", "Features").split())


def multiplies_bfloat16() -> bool:
    """Say whether the processor has instructions for products of bfloat16 numbers."""
    return not cpu_flags().isdisjoint(("avx512_bf16", "amx_bf16", "bf16", "svebf16"))


def cpu_memory() -> int:
    """Return the bytes of main memory; 0 if the operating system does not report them."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def keep_freed_memory() -> bool:
    """Let the C library keep the memory of freed arrays instead of returning it to the system.

    A step frees its arrays at its end, and glibc returns a large free block to the system at once.
    The next step then asks for the same pages again, and the system must map and clear each of
    them. On a network of 784-256-10, this took more than half of a step's time.

    Returns
    -------
    bool
        True if glibc accepted the settings. It is False on systems without glibc, and if you have
        set glibc's own environment variables, which then stay in force.

    Notes
    -----
    The settings hold for the whole process: its main heap keeps up to KEPT_BYTES of freed memory.
    Arrays larger than HEAP_BYTES still return to the system. Source: mallopt(3).
    """
    chosen = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    if any(name in os.environ for name in chosen):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no mallopt; no library; Windows
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, HEAP_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
