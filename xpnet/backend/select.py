"""Which array library computes, on which device, in which precision."""

from __future__ import annotations

import importlib
import os
import re
import sys

from xpnet.backend.cpu import cpu_flags, multiplies_bfloat16
from xpnet.backend.interface import Backend
from xpnet.errors import DeviceError, UsageError

__all__ = ["LIBRARIES", "PRECISIONS", "select"]


LIBRARIES = ("numpy", "cupy", "torch", "jax", "strict")


# Of the matrix products in a training step; all else, the weights too, is in the run's dtype.
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")


# Who multiplies in less than float32, and where.
LOWER: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {"bfloat16": ("torch", "jax")},
    "cuda": dict.fromkeys(PRECISIONS[1:], ("cupy", "torch", "jax")),
}


def select(
    device: str = "auto",
    library: str | None = None,
    dtype: str = "float32",
    quiet: bool = False,
    precision: str = "float32",
) -> Backend:
    """Choose an array library and a device, and make sure that they work.

    Parameters
    ----------
    device : str
        "cpu", "cuda", "cuda:N", or "auto": cuda where it is usable, else cpu. With "auto",
        one line on stderr says what was chosen.
    library : str, optional
        "numpy", "cupy", "torch", "jax", or "strict" (array-api-strict, the standard's
        referee: slow). By default numpy on the CPU and cupy on CUDA.
    dtype : str
        "float64" switches on JAX's 64-bit mode, for the process; elsewhere it changes nothing.
    quiet : bool
        Do not say what "auto" chose.
    precision : str
        "float32", "tf32", "bfloat16" or "float16": the operands of a training step's matrix
        products are rounded to it (torch also rounds 16-bit results); weights, all else, and
        evaluation are float32. On GPUs with cupy, torch and jax; bfloat16 also on processors with
        instructions for it, with torch and jax.

    Returns
    -------
    Backend

    Raises
    ------
    UsageError
        An unknown name, or a library that does not run on that device or in that precision.
    DeviceError
        The library is missing, or the device unusable; the message says what to install.
    """
    kind, index = _parse(device)
    if library is not None and library not in LIBRARIES:
        raise UsageError(f"backend {library!r}: expected one of {', '.join(LIBRARIES)}")
    if kind == "cuda" and library in ("numpy", "strict"):
        raise UsageError(f"{library} runs on the CPU only: use device cpu, or backend cupy")
    if kind == "cpu" and library == "cupy":
        raise UsageError("cupy runs on CUDA only: use device cuda, or backend numpy")
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    if precision != "float32" and dtype != "float32":
        raise UsageError(
            f"precision {precision} has weights of float32; got dtype {dtype}: use one of the two"
        )
    if library == "jax" and dtype == "float64":
        os.environ["JAX_ENABLE_X64"] = "1"  # read when JAX is imported
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
            # The reason, without the advice: whoever wants the GPU asks for it by name.
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
    """Why, without the advice."""
    return re.split(r";|: pip| \[", str(error))[0]


def _without(precision: str, library: str, kind: str) -> str:
    there = LOWER[kind].get(precision)
    if there is None:
        return f"precision {precision} is for GPUs: use device cuda, backend cupy, torch or jax"
    return f"{library} has no products in {precision}: use backend {' or '.join(there)}"


def _parse(device: str) -> tuple[str, int]:
    match = re.fullmatch(r"(cpu|auto)|cuda(?::(\d+))?", device.strip().lower())
    if not match:
        raise UsageError(f"device {device!r}: expected cpu, cuda, cuda:N or auto")
    return (match[1], 0) if match[1] else ("cuda", int(match[2] or 0))


# Each library's module and class, made from (kind, index, precision), and how to get the library.
_CLASSES = {
    "numpy": ("numpy", "NumPy"),
    "strict": ("numpy", "Strict"),
    "cupy": ("cupy", "CuPy"),
    "torch": ("torch", "Torch"),
    "jax": ("jax", "JAX"),
}


_PACKAGES = {
    "array_api_strict": "pip install array-api-strict",
    "cupy": "pip install 'cupy-cuda13x[ctk]' (driver 580 or newer; else 'cupy-cuda12x[ctk]')",
    "torch": "pip install torch",
    "jax": "pip install jax",
}


def _open(library: str, kind: str, index: int, precision: str) -> Backend:
    if precision != "float32" and kind == "cpu" and not multiplies_bfloat16():
        why = "has no instructions for it" if cpu_flags() else "does not say what it can do"
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
        raise DeviceError(f"{library} is not installed: {_PACKAGES[error.name]}") from None
    except ImportError as error:
        # CuPy wraps a missing shared library into many lines, the first few of them rules.
        lines = (line.strip(" =") for line in str(error).splitlines())
        reason = next((line for line in lines if line), "no reason given")
        raise DeviceError(f"{library} is installed but cannot be imported: {reason}") from error
