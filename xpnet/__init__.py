"""xpnet: a neural-network trainer written once against the Python Array API."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xpnet import data, gates, layers, losses, optim
from xpnet.backend import Backend
from xpnet.backend.select import select
from xpnet.graph import Graph
from xpnet.models import Model, Network
from xpnet.models.mlp import mlp

if TYPE_CHECKING:
    from xpnet import datasets, functions
    from xpnet.book import lecture, two_layer_net
    from xpnet.graph.jacobian import jacobian
    from xpnet.show.explain import explain
    from xpnet.trainer import History, Trainer

__version__ = "0.2.0"
__all__ = [
    "Backend",
    "Graph",
    "History",
    "Model",
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

# Imported on first use: together they take longer than everything else. Each entry is a module,
# or module:attribute.
_LATER = {
    "History": "xpnet.trainer:History",
    "Trainer": "xpnet.trainer:Trainer",
    "datasets": "xpnet.datasets",
    "explain": "xpnet.show.explain:explain",
    "functions": "xpnet.functions",
    "jacobian": "xpnet.graph.jacobian:jacobian",
    "lecture": "xpnet.book.lecture",
    "two_layer_net": "xpnet.book:two_layer_net",
}


# Hidden from type checkers, for which a module with __getattr__ has every attribute.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, attribute = _LATER[name].partition(":")
        value = import_module(module)
        if attribute:
            value = getattr(value, attribute)
        globals()[name] = value  # found at once from now on
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
