"""The machine and the versions that a result belongs to."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from typing import Any

from xpnet.backend import cpu_memory, cpu_name

__all__ = ["record"]

PACKAGES = ("xpnet", "numpy", "torch", "jax", "jaxlib", "scikit-learn", "cupy-cuda13x")


def record() -> dict[str, Any]:
    """Date, processor, cores that this process may use, memory, versions, BLAS."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(cpu_memory() / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": versions,
        "blas": _blas(),
    }


def _blas() -> list[dict[str, Any]]:
    """NumPy's BLAS, its version and threads; [] if threadpoolctl is not installed."""
    try:
        import threadpoolctl
    except ModuleNotFoundError:
        return []
    keys = ("internal_api", "version", "num_threads", "architecture")
    return [{key: info.get(key) for key in keys} for info in threadpoolctl.threadpool_info()]
