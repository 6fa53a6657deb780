"""Models: networks, their first weights, and what is done with trained ones."""

from xpnet.models.mlp import mlp
from xpnet.models.model import Model
from xpnet.models.network import Network

__all__ = ["Model", "Network", "mlp"]
