"""What a network can be given, checked before the first step: got, expected, where."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.data.checks import check_features, check_targets, host
from xpnet.data.dataset import Scaling
from xpnet.errors import DataError, UsageError
from xpnet.models.network import Network

__all__ = ["check_scaling", "checked_pair", "checked_samples", "checked_weights"]


def checked_samples(network: Network, x: Any, what: str = "") -> Any:
    """Samples as NumPy's, if they fit the network; `what` goes into the message."""
    x = host(x, f"x{what}")
    check_features(x, f"x{what}")
    sizes = network.spec.get("sizes")
    if sizes and math.prod(x.shape[1:]) != sizes[0]:
        raise DataError(
            f"x{what}: got samples of shape {tuple(x.shape[1:])}, "
            f"expected {sizes[0]} features, as many as the network has inputs"
        )
    return x


def check_scaling(scaling: Scaling | None, x: Any) -> None:
    """Refuse a shift or scale that is not a number or of the shape of a sample."""
    for name, value in zip(Scaling._fields, scaling or (), strict=False):
        shape = np.shape(value)
        if shape not in ((), tuple(x.shape[1:])):
            raise UsageError(
                f"scaling: its {name} has shape {shape}, expected a number or shape {x.shape[1:]}"
            )


def checked_pair(network: Network, x: Any, t: Any, what: str = "") -> tuple[Any, np.ndarray]:
    """Samples and targets as NumPy's, if they fit the network and each other."""
    x = checked_samples(network, x, what)
    t = host(t, f"t{what}")
    check_targets(t, len(x), network.outputs, network.loss_gate.targets, f"t{what}")
    return x, t


def checked_weights(weight: Any, n: int, mean: bool) -> np.ndarray:
    """Sample weights in float64; for a mean loss scaled to mean 1, which changes nothing else."""
    try:
        weights: np.ndarray = np.asarray(weight, np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"sample_weight: {error}") from error
    if weights.shape != (n,) or not ((weights > 0) & np.isfinite(weights)).all():
        raise DataError(
            f"sample_weight: expected {n} positive numbers, one a sample; "
            "leave out those of weight 0"
        )
    if mean:
        weights = weights / weights.max()  # first, since a sum of huge weights is infinite
        weights = weights / weights.mean()
    return weights
