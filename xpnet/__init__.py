"""xpnet: a neural-network trainer written once against the Python Array API."""

from xpnet import data, datasets, functions, gates, layers, losses, optim
from xpnet.backend import Backend, select
from xpnet.explain import explain
from xpnet.graph import Graph
from xpnet.history import History
from xpnet.jacobian import jacobian
from xpnet.models import Network, mlp, two_layer_net
from xpnet.trainer import Trainer

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
    "losses",
    "mlp",
    "optim",
    "select",
    "two_layer_net",
]
