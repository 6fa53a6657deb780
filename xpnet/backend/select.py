"""Choose the array library, the device and the precision."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

from xpnet.backend.cpu import cpu_flags, multiplies_bfloat16
from xpnet.backend.gpu import has_gpu
from xpnet.backend.interface import Backend
from xpnet.errors import DeviceError, UsageError, shown

__all__ = ["LIBRARIES", "PRECISIONS", "select"]


LIBRARIES = ("numpy", "cupy", "torch", "jax", "strict")


# Precisions of a training step's matrix products. Weights and all else have the run's dtype.
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")


# The libraries that multiply in a precision below float32, on each kind of device.
LOWER: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {"bfloat16": ("torch", "jax")},
    "cuda": dict.fromkeys(PRECISIONS[1:], ("cupy", "torch", "jax")),
}


class _NotInstalledError(DeviceError):
    """A library is not installed."""


def select(
    device: str = "auto",
    library: str | None = None,
    dtype: str = "float32",
    quiet: bool = False,
    precision: str = "float32",
) -> Backend:
    """Choose an array library and a device, and check that they work.

    Parameters
    ----------
    device : str
        "cpu", "cuda", "cuda:N" or "auto". "auto" takes cuda if it is usable, else cpu, and prints
        its choice on stderr.
    library : str, optional
        "numpy", "cupy", "torch", "jax" or "strict" (array-api-strict: slow, checks that code
        follows the standard). By default numpy on the CPU and cupy on CUDA.
    dtype : str
        With library "jax", "float64" turns on JAX's 64-bit mode for the whole process. Otherwise
        `select` only checks that it agrees with `precision`.
    quiet : bool
        Do not print the choice of "auto".
    precision : str
        "float32", "tf32", "bfloat16" or "float16". A training step rounds the operands of its
        matrix products to it (torch also rounds 16-bit results). Weights, all other operations
        and evaluation use float32. GPUs support it with cupy, torch and jax. Processors with
        bfloat16 instructions support bfloat16, with torch and jax.

    Returns
    -------
    Backend

    Raises
    ------
    UsageError
        A name is unknown, or the library does not support this device or precision.
    DeviceError
        The library is missing or the device is unusable; the message says what to do.

    Examples
    --------
    >>> select("cpu").library
    'numpy'
    """
    kind, index = _parse(device)
    if library is not None and not _is_one(library, LIBRARIES):
        raise UsageError(f"backend {shown(library)}: expected one of {', '.join(LIBRARIES)}")
    if kind == "cuda" and library in ("numpy", "strict"):
        raise UsageError(f"{library} runs on the CPU only: use device cpu, or backend cupy")
    if kind == "cpu" and library == "cupy":
        raise UsageError("cupy runs on CUDA only: use device cuda, or backend numpy")
    if not _is_one(precision, PRECISIONS):
        raise UsageError(f"precision {shown(precision)}: expected one of {', '.join(PRECISIONS)}")
    if precision != "float32" and dtype != "float32":
        raise UsageError(
            f"precision {precision} keeps weights in float32; got dtype {dtype}: leave out one of "
            "the two"
        )
    if library == "jax" and dtype == "float64":
        os.environ["JAX_ENABLE_X64"] = "1"  # JAX reads it on import
        if "jax" in sys.modules:
            sys.modules["jax"].config.update("jax_enable_x64", True)
    if kind != "auto":
        name = library or {"cpu": "numpy", "cuda": "cupy"}[kind]
        if precision != "float32" and name not in LOWER[kind].get(precision, ()):
            raise UsageError(_without(precision, name, kind))
        return _open(name, kind, index, precision)

    candidates = {
        None: [("cupy", "cuda"), ("numpy", "cpu")],
        "cupy": [("cupy", "cuda")],
        "numpy": [("numpy", "cpu")],
        "strict": [("strict", "cpu")],
    }.get(library, [(library or "", "cuda"), (library or "", "cpu")])
    last = candidates[-1]
    if precision != "float32":
        candidates = [c for c in candidates if c[0] in LOWER[c[1]].get(precision, ())]
        if not candidates:
            raise UsageError(_without(precision, *last))
    note = ""
    for name, where in candidates[:-1]:
        try:
            backend = _open(name, where, 0, precision)
            break
        except DeviceError as error:
            # Give the reason without the advice: if you want the GPU, you ask for it by name.
            # Where no GPU is, nobody misses a library for it.
            note = ""
            if not isinstance(error, _NotInstalledError) or has_gpu():
                note = "not on cuda: " + _reason(error)
    else:
        try:
            backend = _open(*candidates[-1], 0, precision)
            backend.note = note
        except DeviceError as error:
            if candidates[-1] == last:
                raise
            raise DeviceError(
                f"{_without(precision, *last)}; not on cuda: {_reason(error)}"
            ) from None
    if not quiet:
        print(f"device auto: {backend}" + (f"; {note}" if note else ""), file=sys.stderr)
    return backend


def _reason(error: DeviceError) -> str:
    """Return the reason of an error without its advice."""
    return re.split(r";|: pip| \[", str(error))[0]


def _without(precision: str, library: str, kind: str) -> str:
    there = LOWER[kind].get(precision)
    if there is None:
        return f"precision {precision} is for GPUs: use device cuda, backend cupy, torch or jax"
    return f"{library} has no products in {precision}: use backend {' or '.join(there)}"


def _is_one(name: Any, known: tuple[str, ...]) -> bool:
    return isinstance(name, str) and name in known


def _parse(device: str) -> tuple[str, int]:
    text = device.strip().lower() if isinstance(device, str) else ""
    match = re.fullmatch(r"(cpu|auto)|cuda(?::(\d+))?", text)
    if not match:
        raise UsageError(f"device {shown(device)}: expected cpu, cuda, cuda:N or auto")
    return (match[1], 0) if match[1] else ("cuda", int(match[2] or 0))


# The module and the class of each library; the class takes (kind, index, precision).
_CLASSES = {
    "numpy": ("numpy", "NumPy"),
    "strict": ("numpy", "Strict"),
    "cupy": ("cupy", "CuPy"),
    "torch": ("torch", "Torch"),
    "jax": ("jax", "JAX"),
}


# How to install each library, by the name of its package.
_PACKAGES = {
    "array_api_strict": "pip install array-api-strict",
    "cupy": "pip install 'cupy-cuda13x[ctk]' (driver 580 or newer; else 'cupy-cuda12x[ctk]')",
    "torch": "pip install torch",
    "jax": "pip install jax",
}


def _open(library: str, kind: str, index: int, precision: str) -> Backend:
    if precision != "float32" and kind == "cpu" and not multiplies_bfloat16():
        why = "has no instructions for it" if cpu_flags() else "does not list its instructions"
        raise DeviceError(
            f"precision {precision}: this processor {why} (avx512_bf16, amx_bf16, or Arm's bf16 in "
            "/proc/cpuinfo); use precision float32"
        )
    try:
        module, name = _CLASSES[library]
        made = getattr(importlib.import_module(f"xpnet.backend.{module}"), name)
        backend: Backend = made(kind, index, precision)
        return backend
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise DeviceError(f"{library} cannot be imported: {error}") from error
        raise _NotInstalledError(f"{library} is not installed: {_PACKAGES[error.name]}") from None
    except ImportError as error:
        # CuPy reports a missing shared library in many lines, and the first are lines of "=".
        lines = (line.strip(" =") for line in str(error).splitlines())
        reason = next((line for line in lines if line), "no reason given")
        raise DeviceError(f"{library} is installed but cannot be imported: {reason}") from error
