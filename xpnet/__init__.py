"""xpnet: a neural-network trainer written once against the Python Array API."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpnet import data, datasets, functions, gates, layers, losses, metrics, optim
    from xpnet.backend import Backend
    from xpnet.backend.select import select
    from xpnet.book import lecture, two_layer_net
    from xpnet.graph import Graph
    from xpnet.graph.jacobian import jacobian
    from xpnet.many import ModelSet, fit_many
    from xpnet.models import Model, Network
    from xpnet.models.cnn import cnn
    from xpnet.models.mlp import mlp
    from xpnet.show.explain import explain
    from xpnet.sklearn import MLPClassifier, MLPRegressor
    from xpnet.trainer import History, Trainer, fit

__version__ = "0.2.0"
__all__ = [
    "Backend",
    "Graph",
    "History",
    "MLPClassifier",
    "MLPRegressor",
    "Model",
    "ModelSet",
    "Network",
    "Trainer",
    "cnn",
    "data",
    "datasets",
    "explain",
    "fit",
    "fit_many",
    "functions",
    "gates",
    "jacobian",
    "layers",
    "lecture",
    "losses",
    "metrics",
    "mlp",
    "optim",
    "select",
    "two_layer_net",
]

# Everything is imported on first use. So `python -m xpnet.train` starts within milliseconds, and
# can say what Ctrl-C does before NumPy is imported. An entry is a module, or module:attribute;
# what is not here is a module of that name.
_LATER = {
    "Backend": "xpnet.backend:Backend",
    "Graph": "xpnet.graph:Graph",
    "History": "xpnet.trainer:History",
    "MLPClassifier": "xpnet.sklearn:MLPClassifier",
    "MLPRegressor": "xpnet.sklearn:MLPRegressor",
    "Model": "xpnet.models:Model",
    "ModelSet": "xpnet.many:ModelSet",
    "Network": "xpnet.models:Network",
    "Trainer": "xpnet.trainer:Trainer",
    "cnn": "xpnet.models.cnn:cnn",
    "explain": "xpnet.show.explain:explain",
    "fit": "xpnet.trainer:fit",
    "fit_many": "xpnet.many:fit_many",
    "jacobian": "xpnet.graph.jacobian:jacobian",
    "lecture": "xpnet.book.lecture",
    "mlp": "xpnet.models.mlp:mlp",
    "select": "xpnet.backend.select:select",
    "two_layer_net": "xpnet.book:two_layer_net",
}


# Hidden from type checkers, for which a module with __getattr__ has every attribute.
if not TYPE_CHECKING:
    if not find_spec("sklearn"):  # so that `from xpnet import *` works without it
        __all__.remove("MLPClassifier")
        __all__.remove("MLPRegressor")

    def __getattr__(name: str) -> Any:
        module, _, attribute = _LATER.get(name, f"xpnet.{name}").partition(":")
        if name.startswith("__") or not find_spec(module):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = import_module(module)
        if attribute:
            value = getattr(value, attribute)
        globals()[name] = value  # found at once from now on
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
