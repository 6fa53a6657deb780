"""Sums over the ranks by PyTorch's process group of NCCL, between GPUs."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist

from xpnet.backend.interface import Array, Ranks, Reduce, unpacked
from xpnet.errors import DeviceError

__all__ = ["connected", "nccl_sum", "packed_sum"]

# Seconds within which the ranks must have met.
MEETING = timedelta(seconds=120)


def nccl_sum(ranks: Ranks, device: torch.device) -> Reduce:
    """Return what sums arrays over all ranks on GPUs, within a CUDA graph or outside.

    Raises
    ------
    DeviceError
        This PyTorch has no NCCL, or NCCL cannot connect the ranks.
    """
    summed = packed_sum(_nccl_group(ranks))

    def reduce(arrays: Sequence[Array]) -> list[Array]:
        try:
            return summed(arrays)
        except dist.DistError as error:
            if torch.cuda.is_current_stream_capturing():  # then the step runs in the plain loop
                raise
            raise DeviceError(
                f"NCCL cannot sum on rank {ranks.rank} of {ranks.size}, {device}: "
                f"{_first_line(error)}; set NCCL_DEBUG=WARN to see why"
            ) from error

    # The first sum connects the ranks: it fails here, and not in the middle of a step.
    total = float(reduce([torch.ones(1, device=device)])[0])
    if total != ranks.size:
        raise DeviceError(f"NCCL sums wrongly: expected {ranks.size}, got {total:g}")
    return reduce


def packed_sum(group: Any) -> Reduce:
    """Return what sums arrays by a process group, in one packed buffer."""

    def reduce(arrays: Sequence[Array]) -> list[Array]:
        buffer = torch.cat([array.reshape(-1) for array in arrays])
        group.allreduce([buffer]).wait()  # on CUDA, the stream waits, not this thread
        return unpacked(buffer, arrays)

    return reduce


def _nccl() -> Any:
    """Return the class of NCCL's process groups."""
    if not dist.is_available() or not dist.is_nccl_available():
        raise DeviceError(
            f"several ranks on GPUs sum by NCCL, and torch {torch.__version__} is built without "
            "it: install a CUDA build for Linux (pytorch.org), or use backend cupy"
        )
    return dist.ProcessGroupNCCL


@cache
def _nccl_group(ranks: Ranks) -> Any:
    """Return the process group of these ranks, one for the whole process.

    It is not PyTorch's default group, which may be your own. Nobody ever destroys it: NCCL would
    wait until no CUDA graph is left that holds one of its sums, and nothing says in which order
    Python would free them.
    """
    kind = ranks.together(_nccl)
    group = connected(ranks, lambda store: kind(store, ranks.rank, ranks.size, kind.Options()))
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
    return group


def connected(ranks: Ranks, make: Callable[[Any], Any]) -> Any:
    """Return ``make(store)``, with a store that all ranks share, on the machine of rank 0.

    Raises
    ------
    DeviceError
        A rank cannot reach rank 0's machine under its name.
    """
    held: list[Any] = []

    def address() -> tuple[str, int]:
        held.append(dist.TCPStore("localhost", 0, None, True, MEETING, wait_for_workers=False))
        one_machine = ranks.local_size == ranks.size
        return "127.0.0.1" if one_machine else socket.gethostname(), held[0].port

    host, port = ranks.first(address)
    try:
        store = held[0] if held else dist.TCPStore(host, port, None, False, MEETING)
    except RuntimeError as error:
        raise DeviceError(
            f"torch on rank {ranks.rank} cannot reach rank 0 at {host}, port {port}: "
            f"{_first_line(error)}; every machine must reach that of rank 0 by this name"
        ) from error
    return make(store)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
