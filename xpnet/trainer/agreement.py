"""What the ranks of a training compare: the run that they begin, and the bits that they reach."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from xpnet.errors import RankError, UsageError
from xpnet.parallel.group import Group
from xpnet.trainer.resume import WORDS

__all__ = ["check_same_bits", "check_same_run"]


def check_same_run(group: Group, identity: Mapping[str, Any]) -> None:
    """Refuse ranks that train on other data, or another network, than rank 0.

    Parameters
    ----------
    group : Group
    identity : mapping
        From `xpnet.trainer.resume.identity`.

    Raises
    ------
    UsageError
        On all ranks; it names the rank and what differs.
    """
    each = group.gather(dict(identity))
    for rank, other in enumerate(each):
        for name in each[0] | other:
            if other.get(name) != each[0].get(name):
                what = WORDS.get(name, name).removesuffix(" has changed")
                what = what.removesuffix(" have changed")
                raise UsageError(
                    f"rank {rank} and rank 0 differ in {what}; start all ranks with the same data "
                    "and the same settings"
                )


def check_same_bits(group: Group, arrays: Mapping[str, np.ndarray], step: int) -> None:
    """Refuse to go on where a rank's parameters or state are not, bit for bit, those of rank 0.

    Raises
    ------
    RankError
        On all ranks; it names the rank and the array.
    """
    own = {name: zlib.crc32(np.ascontiguousarray(a).data) for name, a in arrays.items()}
    each = group.gather(own)
    for rank, other in enumerate(each):
        for name, checksum in other.items():
            if checksum != each[0][name]:
                raise RankError(
                    f"rank {rank}: {name} is not that of rank 0 after step {step}: a rank computes "
                    "wrongly, or its MPI gives each rank another sum; the last checkpoint is good"
                )
