"""What the ranks of a training compare: the run that they begin, and the bits that they reach."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from xpnet.errors import RankError, UsageError
from xpnet.models.network import Network
from xpnet.parallel.group import Group
from xpnet.trainer.resume import WORDS

__all__ = ["check_same_bits", "check_same_run", "check_whole_batch", "unsure_of_rows"]

# Where these take sums over the rows, they add them up over the ranks.
SURE = ("xpnet.layers.", "xpnet.losses.")
# Losses of a batch further apart than this, of the larger one, differ by more than rounding.
APART = 1e-3


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
        # Other data often make another network: say the cause first.
        for name in sorted(each[0] | other, key=lambda name: name not in WORDS):
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


def unsure_of_rows(network: Network) -> list[str]:
    """Return the gates of a network that may take the rows they see for the whole batch.

    Examples
    --------
    >>> import xpnet
    >>> unsure_of_rows(xpnet.mlp([2, 2], batch_norm=True))
    []
    """
    gates = {type(node.gate) for node in network.graph.nodes.values() if node.gate is not None}
    return sorted(gate.__name__ for gate in gates if not gate.__module__.startswith(SURE))


def check_whole_batch(gates: list[str], alone: float, together: float) -> None:
    """Refuse gates that take a rank's rows for the whole batch.

    Parameters
    ----------
    gates : list of str
        From `unsure_of_rows`.
    alone, together : float
        The loss of the same batch, of all its rows in one process, and added up over the ranks.

    Raises
    ------
    UsageError

    Examples
    --------
    >>> check_whole_batch(["Mean"], 0.69315, 0.69314)
    """
    apart = abs(alone - together)  # NaN says nothing of the ranks
    if math.isfinite(apart) and apart > APART * max(abs(alone), abs(together)):
        raise UsageError(
            f"the first batch has the loss {alone:.6g} in one process, and {together:.6g} on these "
            f"ranks: what takes a sum over the rows ({', '.join(gates)}?) must add it up over the "
            "ranks, by xpnet.arrays.ranks.sum_over_ranks"
        )
