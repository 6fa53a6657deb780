"""What the launcher (mpirun, srun ...) says of the processes that it started: their environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["MARK", "Launch", "launch", "started_by_a_rank", "threads"]


class Launch(NamedTuple):
    """What a launcher says of this process.

    Attributes
    ----------
    name : str
        Whose variables they are.
    rank, size : int
        The number of this process, and of how many.
    """

    name: str
    rank: int
    size: int


# The variables of rank and size. A batch script of Slurm has SLURM_NTASKS too, although nobody
# started it more than once; only srun sets SLURM_STEP_NUM_TASKS.
VARIABLES = {
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "MPICH": ("PMI_RANK", "PMI_SIZE"),
    "Slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
}


# A rank writes its process number here: whatever it starts inherits the launcher's variables too.
MARK = "XPNET_RANK_PROCESS"


def started_by_a_rank(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a rank started this process, or was forked into it.

    Examples
    --------
    >>> started_by_a_rank({})
    False
    """
    return environment.get(MARK, str(os.getpid())) != str(os.getpid())


def launch(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Return what the launcher says, or None if it did not start this process.

    Examples
    --------
    >>> launch({"PMI_RANK": "1", "PMI_SIZE": "4"})
    Launch(name='MPICH', rank=1, size=4)
    """
    if started_by_a_rank(environment):
        return None
    for name, variables in VARIABLES.items():
        rank, size = (environment.get(variable, "") for variable in variables)
        if rank.isdecimal() and size.isdecimal():
            return Launch(name, int(rank), int(size))
    return None


# How many of the processes are on this machine.
LOCAL_SIZES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE")
# What the libraries of linear algebra read when they are loaded.
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def threads(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return variables that share the processors among the ranks of this machine.

    Each rank would otherwise start a thread for every processor. Empty without a launcher, or if
    you have set one of the variables yourself.

    Examples
    --------
    >>> threads({})
    {}
    """
    local = next((size for name in LOCAL_SIZES if (size := environment.get(name))), "")
    if launch(environment) is None or not local.isdecimal() or int(local) < 2:
        return {}
    if any(name in environment for name in THREADS):
        return {}
    share = max(1, (os.cpu_count() or 1) // int(local))
    if hasattr(os, "sched_getaffinity"):  # the launcher may have bound this process to some
        share = min(share, len(os.sched_getaffinity(0)))
    return dict.fromkeys(THREADS, str(share))
