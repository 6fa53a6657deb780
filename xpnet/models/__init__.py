"""Networks, their initial weights, and trained models that predict."""

from xpnet.models.model import Model
from xpnet.models.network import Network

__all__ = ["Model", "Network"]
