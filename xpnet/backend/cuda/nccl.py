"""Sums over the ranks by NCCL, from one GPU's memory into the other's; MPI only carries a name.

A communicator lives as long as the process. NCCL's destroy and its abort both wait until no CUDA
graph is left that holds a sum of the communicator, and nothing says in which order Python would
free them: a process could wait at its end for ever. A process that ends, by whatever means, gives
back all that NCCL has, and so neither is ever called. Not by the watch over the ranks either, which
ends the process.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import cupy
import numpy as np

from xpnet.backend.cuda.fuse import C_TYPES
from xpnet.backend.interface import Array, Ranks, unpacked
from xpnet.errors import DeviceError

__all__ = ["NcclSum", "pack_source"]

PACKED = 64  # one kernel packs at most this many arrays
THREADS = 256
BLOCKS = 528  # four on each of an H100's multiprocessors
# The names of NCCL's types; C_TYPES says which of them a kernel can pack.
TYPES = {"float32": "NCCL_FLOAT32", "float64": "NCCL_FLOAT64"}


class NcclSum:
    """``reduce(arrays)`` returns the sum of each array over all ranks; see `Backend.reducer`.

    It packs the arrays into one buffer, by one kernel, and sums that in place on the current
    stream. A CUDA graph can hold both.

    Parameters
    ----------
    ranks : Ranks
    index : int
        The GPU of this rank.

    Raises
    ------
    DeviceError
        NCCL is missing, or it cannot connect the ranks.
    """

    def __init__(self, ranks: Ranks, index: int) -> None:
        self._size, self._device = ranks.size, f"cuda:{index}"
        self._nccl, self._communicator = _connected(ranks, index)
        self._kernels: dict[str, Any] = {}
        # The first sum connects the ranks: it fails here, and not in the middle of a step.
        (found,) = self([cupy.ones(1, "float32")])
        if float(found[0]) != self._size:
            raise DeviceError(
                f"NCCL sums wrongly: expected {self._size}, got {float(found[0]):g}; see it with "
                "NCCL_DEBUG=WARN"
            )

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        buffer = self._packed(arrays)
        kind = getattr(self._nccl, TYPES[buffer.dtype.name])
        stream = cupy.cuda.get_current_stream()
        address = int(buffer.data.ptr)
        try:
            self._communicator.allReduce(
                address, address, buffer.size, kind, self._nccl.NCCL_SUM, stream.ptr
            )
        except self._nccl.NcclError as error:
            if stream.is_capturing():  # then the step runs in the plain loop
                raise
            raise _failed(f"cannot sum on {self._device}", error) from error
        return unpacked(buffer, arrays)

    def _packed(self, arrays: Sequence[Array]) -> Array:
        """Return all values in one new buffer.

        CuPy's own concatenation sends a table of addresses from the host if there are many arrays.
        """
        dtype = arrays[0].dtype
        if dtype.name not in self._kernels:
            self._kernels[dtype.name] = cupy.RawKernel(pack_source(dtype.name), "xpnet_pack")
        buffer = cupy.empty(sum(array.size for array in arrays), dtype)
        done = 0
        for start in range(0, len(arrays), PACKED):
            part = [cupy.ascontiguousarray(array) for array in arrays[start : start + PACKED]]
            rest = PACKED - len(part)
            sizes = [np.int64(array.size) for array in part] + [np.int64(0)] * rest
            total, largest = sum(a.size for a in part), max(a.size for a in part)
            if total:
                grid = min(BLOCKS, -(-largest // THREADS)), len(part)
                addresses = [*part, *[np.int64(0)] * rest]
                self._kernels[dtype.name](grid, (THREADS,), (buffer[done:], *sizes, *addresses))
            done += total
        return buffer


def pack_source(dtype: str) -> str:
    """Write CUDA C that packs up to `PACKED` arrays; each row of blocks copies one of them."""
    real, numbers = C_TYPES[dtype], range(PACKED)
    return (
        f'extern "C" __global__ void xpnet_pack({real}* out, '
        f"{', '.join(f'long long n{i}' for i in numbers)}, "
        f"{', '.join(f'const {real}* x{i}' for i in numbers)}) {{\n"
        f"    const long long n[] = {{{', '.join(f'n{i}' for i in numbers)}}};\n"
        f"    const {real}* x[] = {{{', '.join(f'x{i}' for i in numbers)}}};\n"
        "    int k = blockIdx.y;\n"
        "    for (int j = 0; j < k; j++) out += n[j];\n"
        "    long long step = (long long)gridDim.x * blockDim.x;\n"
        "    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;\n"
        "    for (; i < n[k]; i += step) out[i] = x[k][i];\n}\n"
    )


def library() -> Any:
    """Return CuPy's module of NCCL.

    Raises
    ------
    DeviceError
        The library is missing.
    """
    with warnings.catch_warnings(action="ignore"):  # CuPy's own words for it take six lines
        from cupy.cuda import nccl
    if not nccl.available:
        major = cupy.cuda.runtime.runtimeGetVersion() // 1000
        raise DeviceError(
            "several ranks on GPUs sum by NCCL, and CuPy finds no libnccl.so.2: "
            f"pip install nvidia-nccl-cu{major}"
        )
    return nccl


@cache
def _connected(ranks: Ranks, index: int) -> tuple[Any, Any]:
    """Return CuPy's module and the communicator of these ranks, one for the whole process."""
    nccl = ranks.together(library)

    def name() -> bytes:
        try:
            found: bytes = nccl.get_unique_id()
        except nccl.NcclError as error:
            raise _failed("cannot listen for the ranks", error) from error
        return found

    given = ranks.first(name)
    try:
        # Not `together`: a rank that fails must end the others, which may wait for it here.
        made = nccl.NcclCommunicator(ranks.size, given, ranks.rank)
    except nccl.NcclError as error:
        what = f"cannot connect rank {ranks.rank} of {ranks.size} on cuda:{index}"
        raise _failed(what, error) from error
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))  # see the top of this file
    return nccl, made


def _failed(what: str, error: Exception) -> DeviceError:
    return DeviceError(f"NCCL {what}: {error}")  # it says how to find out more
