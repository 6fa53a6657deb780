"""Models: networks, their first weights, and what is done with trained ones."""

from xpnet.models.mlp import mlp
from xpnet.models.network import Network

__all__ = ["Network", "mlp"]
