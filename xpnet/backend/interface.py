"""Backends: which array library computes, on which device, and how it runs an epoch.

This package is the only place that names CuPy, PyTorch or JAX, one file each, imported
when it is selected and not before. Layers never see it: their arrays tell them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpnet.errors import DeviceError

__all__ = ["Backend", "Params", "Prepare", "Run", "Shards", "Step", "out_of_memory"]

Array = Any
Params = dict[str, Array]
# step(params, state, x, t[, weight]) -> (params, state, loss): fixed shapes, nothing read back
Step = Callable[..., tuple[Params, Params, Array]]
# prepare(x): samples as they lie on the device to what the network takes, element by element
Prepare = Callable[[Array], Array]
# run(params, state, data, order) yields (params, state, losses) after each chunk of steps. The
# losses may still be on their way: store the others first, for what was given is consumed, and
# then wait for the losses with np.asarray.
Run = Callable[[Params, Params, tuple[Array, ...], Array], Iterator[tuple[Params, Params, Any]]]

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
        `xpnet.arrays.dispatch.with_kernels`.
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


def out_of_memory(device: str, needed: int, free: int, total: int) -> DeviceError:
    """The error to raise where a device's memory is used up."""
    more = f"{_in_units(needed)} more are" if needed else "more is"
    return DeviceError(
        f"{device} is out of memory: {more} needed, {_in_units(free)} of {_in_units(total)} are "
        "free; lower the batch size or the width of the layers, or end what else uses the GPU"
    )


def _in_units(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 1 << 30 else f"{size / 2**20:.1f} MiB"
