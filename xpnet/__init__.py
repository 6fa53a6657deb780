"""xpnet: a neural-network trainer written once against the Python Array API."""

from xpnet import data, datasets, functions, gates, layers, losses, optim
from xpnet.backend import Backend
from xpnet.backend.select import select
from xpnet.book import lecture, two_layer_net
from xpnet.graph import Graph
from xpnet.graph.jacobian import jacobian
from xpnet.models import Network, mlp
from xpnet.show.explain import explain
from xpnet.trainer import History, Trainer

__version__ = "0.1.0"
__all__ = [
    "Backend",
    "Graph",
    "History",
    "Network",
    "Trainer",
    "data",
    "datasets",
    "explain",
    "functions",
    "gates",
    "jacobian",
    "layers",
    "lecture",
    "losses",
    "mlp",
    "optim",
    "select",
    "two_layer_net",
]
