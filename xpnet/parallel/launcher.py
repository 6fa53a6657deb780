"""What the launcher (mpirun, srun ...) says of the processes that it started: their environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Launch", "launch"]


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


def launch(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Return what the launcher says, or None if there is none.

    Examples
    --------
    >>> launch({"PMI_RANK": "1", "PMI_SIZE": "4"})
    Launch(name='MPICH', rank=1, size=4)
    """
    for name, variables in VARIABLES.items():
        rank, size = (environment.get(variable, "") for variable in variables)
        if rank.isdecimal() and size.isdecimal():
            return Launch(name, int(rank), int(size))
    return None
