"""The interface that every backend implements, and the types of its functions."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np

from xpnet.errors import DeviceError

__all__ = [
    "Agree", "Backend", "Params", "Prepare", "Ranks", "Reduce", "Run", "Shards", "Step", "Upload",
    "check_process", "out_of_memory", "packed", "unpacked",
]  # fmt: skip

Array = Any
Params = dict[str, Array]
# step(params, state, x, t[, weight]) -> (params, state, loss): it keeps shapes and reads no values
Step = Callable[..., tuple[Params, Params, Array]]
# prepare(x) converts samples as the device stores them to the network's input, element by element
Prepare = Callable[[Array], Array]
# run(params, state, data, order) yields (params, state, losses) after each chunk of steps. `losses`
# is an array of the backend, shape=(steps of the chunk,), that may not be computed yet. First store
# `params` and `state`, since the library may have consumed the old ones. Then read the losses with
# `to_numpy`, which waits for the device.
Run = Callable[[Params, Params, tuple[Array, ...], Array], Iterator[tuple[Params, Params, Array]]]

# agree(number) returns the smallest of the numbers that the ranks give
Agree = Callable[[int], int]
# reduce(arrays) returns the sum of each array over all ranks: `xpnet.arrays.ranks.sum_over_ranks`
Reduce = Callable[[Sequence[Array]], list[Array]]

Shards = Iterator[tuple[np.ndarray, ...]]
# upload(shards) yields a tuple of device arrays for each tuple of host arrays
Upload = Callable[[Shards], Iterator[tuple[Array, ...]]]


class Ranks(Protocol):
    """What a backend needs of the processes that train together; `xpnet.parallel.Group` is one."""

    def __hash__(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def local_size(self) -> int: ...
    def sum(self, buffer: np.ndarray) -> None:
        """Replace a contiguous buffer by its sum over all ranks."""

    def first(self, function: Callable[[], Any]) -> Any:
        """Call a function on rank 0 alone; return its result on all ranks."""

    def together(self, function: Callable[[], Any]) -> Any:
        """Call a function on every rank; raise on all of them if it raises on one."""


class Backend:
    """An array library on a device; each library has a subclass.

    Attributes
    ----------
    library, version : str
        "numpy", "cupy", "torch", "jax" or "strict", and its version.
    device, device_name : str
        "cpu" or "cuda:0"; and the name that the hardware reports.
    memory : int
        Total bytes of the device's memory; 0 if unknown.
    xp : module
        The library's Array API namespace.
    kernels : mapping of str to callable
        The library's own functions that replace xpnet's lines during a step; see
        `xpnet.arrays.dispatch.with_kernels`.
    precision : str
        Precision of the matrix products in a step.
    fallbacks : list of str
        One line for each part that runs slower than it could, with the reason: a step that is not
        captured, a function that is not one kernel. It grows during a training.
    note : str
        The reason why "auto" did not choose CUDA; empty if it did.

    Examples
    --------
    >>> import xpnet
    >>> backend = xpnet.select("cpu")
    >>> backend.library, backend.device
    ('numpy', 'cpu')
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

    def __repr__(self) -> str:
        return f"<Backend: {self}>"

    def __str__(self) -> str:
        memory = f", {self.memory / 2**30:.1f} GiB" if self.memory else ""
        lower = f", products in {self.precision}" if self.precision != "float32" else ""
        where = f"{self.device} ({self.device_name}{memory})"
        return f"{self.library} {self.version} on {where}{lower}"

    def asarray(self, array: np.ndarray) -> Array:
        """Convert a NumPy array to a device array, which may share its memory."""
        raise NotImplementedError

    def to_numpy(self, array: Array) -> np.ndarray:
        """Copy a device array into a new NumPy array; this waits for the device."""
        return np.array(array)

    def loop(self, step: Step, prepare: Prepare, agree: Agree | None = None) -> Run:
        """Return the loop over steps, ``run(params, state, data, order)``, which trains one pass.

        `order` is an integer array of shape (steps, batch). For each of its rows, the loop gathers
        these rows from each array of `data`, applies `prepare` to the samples (the first array)
        and calls `step`. It yields after each chunk of steps (see `Run`), so that you can move a
        progress bar, handle signals and write checkpoints. Within a chunk, nothing waits for the
        device. A subclass puts here what its library needs, such as a compiled scan or a captured
        graph.

        With `agree`, the loop yields after the same steps on all ranks: wherever it would look at
        a clock, all of them take the smallest number of steps that one of them wants.
        """
        raise NotImplementedError

    def reducer(self, ranks: Ranks) -> Reduce:
        """Return what sums arrays over all ranks, within a step of `loop`.

        The arrays of a call have one dtype. They are packed into one buffer, since each message
        costs time, and only read.
        """

        def reduce(arrays: Sequence[Array]) -> list[Array]:
            buffer = packed([self.to_numpy(array) for array in arrays])
            ranks.sum(buffer)
            return [self.asarray(part) for part in unpacked(buffer, arrays, np.copy)]

        return reduce

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a function of arrays if the library can; otherwise return it unchanged."""
        return function

    def free_memory(self) -> int:
        """Return the free bytes of the device's memory; 0 if unknown or on the CPU."""
        return 0

    def uploader(self) -> Upload:
        """Return a function that copies shards to the device, ahead of their use if that helps.

        A device array may be longer than its host array. Asking for the next shard may overwrite
        it.
        """
        return lambda shards: (tuple(map(self.asarray, arrays)) for arrays in shards)


def packed(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return all values in one new buffer."""
    return np.concatenate([np.reshape(array, -1) for array in arrays])


def unpacked(
    buffer: Any, arrays: Sequence[Array], copy: Callable[[Any], Any] = lambda part: part
) -> list[Any]:
    """Return the values of each array out of a buffer as `packed` makes it, in its shape.

    An eager library copies a single number, such as the loss: a loop keeps the losses of many
    steps, and each would keep its whole buffer.
    """
    found, start = [], 0
    for array in arrays:
        end = start + math.prod(array.shape)
        part = buffer[start:end].reshape(array.shape)
        found.append(part if array.ndim else copy(part))
        start = end
    return found


def check_process(library: str) -> None:
    """Refuse a process that was forked after its parent had used a library with threads.

    A fork has none of its parent's threads, so the library would wait for them for ever.

    Raises
    ------
    DeviceError
    """
    if _first_process(library) != os.getpid():
        raise DeviceError(
            f"{library} cannot run in a process forked from one that used it; start processes by "
            "multiprocessing.get_context('spawn'), or use backend numpy"
        )


@cache
def _first_process(library: str) -> int:
    return os.getpid()


def out_of_memory(device: str, needed: int, free: int, total: int) -> DeviceError:
    """Return the error to raise if a device is out of memory; all sizes are in bytes.

    `needed` is 0 if the size of the failed allocation is unknown.
    """
    more = f"{_in_units(needed)} more are" if needed else "more is"
    return DeviceError(
        f"{device} is out of memory: {more} needed, {_in_units(free)} of {_in_units(total)} are "
        "free; lower the batch size or the width of the layers, or stop what else uses the GPU"
    )


def _in_units(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 1 << 30 else f"{size / 2**20:.1f} MiB"
