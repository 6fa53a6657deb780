"""Backends: which array library computes, on which device, and how it runs an epoch.

This package is the only place that names CuPy, PyTorch or JAX, one file each, imported
when it is selected and not before. Layers never see it: their arrays tell them.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xpnet.backend.cpu import cpu_flags, multiplies_bfloat16
from xpnet.errors import DeviceError, UsageError

__all__ = ["LIBRARIES", "PRECISIONS", "Backend", "Prepare", "Run", "Step", "select"]

Array = Any
Params = dict[str, Array]
# step(params, state, x, t[, weight]) -> (params, state, loss): fixed shapes, nothing read back
Step = Callable[..., tuple[Params, Params, Array]]
# prepare(x): samples as they lie on the device to what the network takes, element by element
Prepare = Callable[[Array], Array]
# run(params, state, data, order) yields (params, state, losses) after each chunk of steps
Run = Callable[
    [Params, Params, tuple[Array, ...], Array], Iterator[tuple[Params, Params, np.ndarray]]
]

LIBRARIES = ("numpy", "cupy", "torch", "jax", "strict")
# Of the matrix products in a training step; all else, the weights too, is in the run's dtype.
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
# Who multiplies in less than float32, and where.
LOWER: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {"bfloat16": ("torch", "jax")},
    "cuda": dict.fromkeys(PRECISIONS[1:], ("cupy", "torch", "jax")),
}
# From which compute capabilities on GPUs do.
LEAST_CAPABILITY = {"tf32": "8.0", "bfloat16": "8.0", "float16": "7.0"}
Shards = Iterator[tuple[np.ndarray, ...]]


def _identity(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def _unknown() -> int:
    return 0


@dataclass(frozen=True)
class Backend:
    """An array library on a device.

    Attributes
    ----------
    library, version : str
        "numpy", "cupy", "torch", "jax" or "strict", and its version.
    device, device_name : str
        "cpu", "cuda:0"; and what the hardware calls itself.
    memory : int
        Bytes of the device's memory, in all; 0 if unknown.
    xp : module
        The library's Array API namespace.
    asarray : callable
        NumPy array to device array; may share memory with it.
    to_numpy : callable
        Device array to a NumPy array of its own.
    loop : callable
        ``loop(step, prepare)`` returns ``run(params, state, data, order)``, which trains one
        pass: for each row of `order`, an integer array of shape (steps, batch), it gathers those
        rows from each array of `data`, prepares the samples, ``prepare(x)`` of the first array,
        and calls `step`. It yields parameters, state and the
        losses of the steps done since the last time, so that a progress bar moves, signals
        are seen and checkpoints written, while nothing waits for the device in between.
        Whatever a library needs per step (a compiled scan, a captured graph) lives there.
    compile : callable
        Compiles a function of arrays where the library can; elsewhere returns it as it is.
    kernels : mapping of str to callable
        What the library computes better than our own lines during a step, see
        `xpnet.kernels.with_kernels`.
    precision : str
        Of the matrix products in a step.
    free_memory : callable
        Bytes of the device's memory that are free; 0 if unknown, or as good as on the host.
    uploader : callable, or None
        ``uploader()`` returns ``upload(shards)``: from an iterator of tuples of host arrays one of
        tuples of device arrays, read and sent ahead of their use. An array may be longer than
        what was given, and be written to after the next one has been asked for. None means that
        nothing is gained over `asarray`.
    fallbacks : list of str
        What ran slower than it could have, a line each, with the reason: a step that could not be
        captured, a function that is not one kernel. Grows as a training finds them.
    note : str
        Why "auto" did not choose CUDA, if it did not.
    """

    library: str
    version: str
    device: str
    device_name: str
    memory: int
    xp: Any
    asarray: Callable[[np.ndarray], Array]
    to_numpy: Callable[[Array], np.ndarray]
    loop: Callable[[Step, Prepare], Run]
    compile: Callable[[Callable[..., Any]], Callable[..., Any]] = _identity
    kernels: Mapping[str, Callable[..., Array]] = field(default_factory=dict)
    precision: str = "float32"
    free_memory: Callable[[], int] = _unknown
    uploader: Callable[[], Callable[[Shards], Iterator[tuple[Array, ...]]]] | None = None
    fallbacks: list[str] = field(default_factory=list)
    note: str = ""

    def __str__(self) -> str:
        memory = f", {self.memory / 2**30:.1f} GiB" if self.memory else ""
        lower = f", products in {self.precision}" if self.precision != "float32" else ""
        where = f"{self.device} ({self.device_name}{memory})"
        return f"{self.library} {self.version} on {where}{lower}"


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
            backend = replace(_open(*candidates[-1], 0, precision), note=note)
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


def out_of_memory(device: str, needed: int, free: int, total: int) -> DeviceError:
    """The error to raise where a device's memory is used up."""
    more = f"{_in_units(needed)} more are" if needed else "more is"
    return DeviceError(
        f"{device} is out of memory: {more} needed, {_in_units(free)} of {_in_units(total)} are "
        "free; lower the batch size or the width of the layers, or end what else uses the GPU"
    )


def check_capability(device: str, precision: str, capability: str) -> None:
    """Refuse a GPU that would not multiply in a precision, or only without its tensor cores."""
    least = LEAST_CAPABILITY.get(precision, "0.0")
    if tuple(map(int, capability.split("."))) < tuple(map(int, least.split("."))):
        raise DeviceError(
            f"{device} has no instructions for {precision}: it has compute capability "
            f"{capability}, expected {least} or more; use precision float32"
        )


def _in_units(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 1 << 30 else f"{size / 2**20:.1f} MiB"


def _parse(device: str) -> tuple[str, int]:
    match = re.fullmatch(r"(cpu|auto)|cuda(?::(\d+))?", device.strip().lower())
    if not match:
        raise UsageError(f"device {device!r}: expected cpu, cuda, cuda:N or auto")
    return (match[1], 0) if match[1] else ("cuda", int(match[2] or 0))


# Where each library's `open(kind, index, precision)` stands, and how a user gets the library.
_MODULES = {"numpy": "numpy", "strict": "numpy", "cupy": "cupy", "torch": "torch", "jax": "jax"}
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
        module = importlib.import_module(f"xpnet.backend.{_MODULES[library]}")
        opener = module.open_strict if library == "strict" else module.open
        backend: Backend = opener(kind, index, precision)
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
