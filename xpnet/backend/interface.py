"""Backends: which array library computes, on which device, and how it runs an epoch.

No other package imports CuPy, PyTorch or JAX, and this one imports each only when you select it.
Layers never see a backend: their arrays tell them what they need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from xpnet.errors import DeviceError

__all__ = ["Backend", "Params", "Prepare", "Run", "Shards", "Step", "Upload", "out_of_memory"]

Array = Any
Params = dict[str, Array]
# step(params, state, x, t[, weight]) -> (params, state, loss): fixed shapes, nothing read back
Step = Callable[..., tuple[Params, Params, Array]]
# prepare(x): samples as they lie on the device to what the network takes, element by element
Prepare = Callable[[Array], Array]
# run(params, state, data, order) yields (params, state, losses) after each chunk of steps. `losses`
# is an array of the backend, shape=(steps of the chunk,), which need not be computed yet: store
# `params` and `state` first (a library may have consumed the old ones), and read the losses then,
# with `to_numpy`, which waits for the device.
Run = Callable[[Params, Params, tuple[Array, ...], Array], Iterator[tuple[Params, Params, Array]]]

Shards = Iterator[tuple[np.ndarray, ...]]
# upload(shards): tuples of host arrays to tuples of device arrays
Upload = Callable[[Shards], Iterator[tuple[Array, ...]]]


class Backend:
    """An array library on a device; each library has a subclass.

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
    kernels : mapping of str to callable
        What the library computes better than our own lines during a step, see
        `xpnet.arrays.dispatch.with_kernels`.
    precision : str
        Of the matrix products in a step.
    fallbacks : list of str
        What ran slower than it could have, a line each, with the reason: a step that could not be
        captured, a function that is not one kernel. Grows as a training finds them.
    note : str
        Why "auto" did not choose CUDA, if it did not.
    """

    library: str
    xp: Any

    def __init__(
        self,
        version: str,
        device: str,
        device_name: str,
        memory: int,
        *,
        kernels: Mapping[str, Callable[..., Array]] | None = None,
        precision: str = "float32",
    ) -> None:
        self.version, self.precision = version, precision
        self.device, self.device_name, self.memory = device, device_name, memory
        self.kernels: Mapping[str, Callable[..., Array]] = kernels or {}
        self.fallbacks: list[str] = []
        self.note = ""

    def __str__(self) -> str:
        memory = f", {self.memory / 2**30:.1f} GiB" if self.memory else ""
        lower = f", products in {self.precision}" if self.precision != "float32" else ""
        where = f"{self.device} ({self.device_name}{memory})"
        return f"{self.library} {self.version} on {where}{lower}"

    def asarray(self, array: np.ndarray) -> Array:
        """NumPy array to device array; may share memory with it."""
        raise NotImplementedError

    def to_numpy(self, array: Array) -> np.ndarray:
        """Device array to a NumPy array of its own."""
        return np.array(array)

    def loop(self, step: Step, prepare: Prepare) -> Run:
        """The loop over steps: ``run(params, state, data, order)``, which trains one pass.

        For each row of `order`, an integer array of shape (steps, batch), it gathers those rows
        from each array of `data`, prepares the samples, ``prepare(x)`` of the first array, and
        calls `step`. It yields after each chunk of steps (see `Run`), so that a progress bar
        moves, signals are seen and checkpoints written, while nothing waits for the device in
        between. Whatever a library needs per step (a compiled scan, a captured graph) lives here.
        """
        raise NotImplementedError

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a function of arrays where the library can; elsewhere return it as it is."""
        return function

    def free_memory(self) -> int:
        """Bytes of the device's memory that are free; 0 if unknown, or as good as on the host."""
        return 0

    def uploader(self) -> Upload:
        """A function that brings shards to the device, ahead of their use where that helps.

        An array may be longer than what you gave, and be overwritten once you ask for the next.
        """
        return lambda shards: (tuple(map(self.asarray, arrays)) for arrays in shards)


def out_of_memory(device: str, needed: int, free: int, total: int) -> DeviceError:
    """The error to raise where a device's memory is used up."""
    more = f"{_in_units(needed)} more are" if needed else "more is"
    return DeviceError(
        f"{device} is out of memory: {more} needed, {_in_units(free)} of {_in_units(total)} are "
        "free; lower the batch size or the width of the layers, or end what else uses the GPU"
    )


def _in_units(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 1 << 30 else f"{size / 2**20:.1f} MiB"
