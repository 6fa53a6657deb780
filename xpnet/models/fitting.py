"""What does not fit a network: names, scalings, thresholds, and files of other networks.

Each function returns what is wrong as the end of a message, "" if nothing is; who calls it knows
whether the user or a file is to blame.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.data.dataset import Scaling
from xpnet.errors import CheckpointError
from xpnet.layers.normalization import BatchNorm
from xpnet.models.builders import BUILDERS
from xpnet.models.network import Network

__all__ = [
    "difference", "inputs_of", "misnamed", "misscaled", "rebuilt", "undivided", "unmeasured",
]  # fmt: skip


def inputs_of(network: Network) -> int | None:
    """How many features it takes; None if it takes samples as they are."""
    return None if network.input_shape is None else math.prod(network.input_shape)


def misnamed(network: Network, classes: Sequence[str] | None, columns: Sequence[str]) -> str:
    """Names that are not as many as what they name."""
    outputs, inputs = max(network.outputs or 0, 2), inputs_of(network)
    if classes is not None and len(classes) != outputs:
        return f"has {len(classes)} class names, expected {outputs}"
    if columns and inputs not in (None, len(columns)):
        return f"has {len(columns)} column names, expected {inputs}"
    return ""


def misscaled(network: Network, scaling: Scaling | None) -> str:
    """A scaling that makes negative targets of those that the loss takes."""
    if scaling is None or not getattr(network.loss_gate, "nonnegative", False):
        return ""
    if np.all(np.equal(scaling.shift, 0.0)) and np.all(np.greater(scaling.scale, 0.0)):
        return ""
    return (
        f"{type(network.loss_gate).__name__} needs targets >= 0; expected none, or one with "
        "shift 0 and a scale above 0"
    )


def unmeasured(network: Network, values: Mapping[str, np.ndarray]) -> str:
    """A running variance that none can be."""
    for node in network.graph.nodes.values():
        if isinstance(node.gate, BatchNorm):
            name = node.inputs[4]
            if name in network.statistics and (np.asarray(values[name]) < 0).any():
                return f"{name} is negative; expected a variance"
    return ""


def undivided(network: Network) -> str:
    """Why there are no two classes with probabilities, between which a threshold decides."""
    if network.loss_gate.targets == "real" or max(network.outputs or 0, 2) != 2:
        return "needs two classes"
    if not hasattr(network.loss_gate, "probabilities"):
        return f"{type(network.loss_gate).__name__} gives no probabilities"
    return ""


def difference(meta: Mapping[str, Any], network: Network) -> str:
    """Where the network of a file and another one compute differently; "" if nowhere."""
    # Files of version 1 do not say their gates, and networks built by hand have no arguments.
    if meta["builder"] and network.builder:
        was, now = (json.dumps(v, sort_keys=True) for v in (meta["arguments"], network.arguments))
        if was != now:
            return f"it has {was}, this one {now}"
    for was, now in itertools.zip_longest(meta["gates"], network.gates if meta["gates"] else ()):
        if was != now:
            return f"it has {was!r}, this one {now!r}"
    return ""


def rebuilt(meta: Mapping[str, Any], params: Mapping[str, np.ndarray], path: str | Path) -> Network:
    """The network that a file describes, around its parameters: none are drawn."""
    if not meta["builder"]:
        raise CheckpointError(f"{path}: holds a network built by hand; pass network=...")
    if meta["builder"] not in BUILDERS:
        raise CheckpointError(
            f"{path}: its network is made by {meta['builder']!r}; this version of xpnet "
            f"has {', '.join(BUILDERS)}"
        )
    try:
        return BUILDERS[meta["builder"]](**meta["arguments"], params=params)
    except (ValueError, TypeError, OverflowError) as error:
        words = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its network cannot be made: {words}") from error
