"""Models: networks, their first weights, and trained ones that answer."""

from xpnet.models.model import Model
from xpnet.models.network import Network

__all__ = ["Model", "Network"]
