"""The functions that build networks, by the names that files keep."""

from __future__ import annotations

from collections.abc import Callable

from xpnet.models.cnn import cnn
from xpnet.models.mlp import mlp
from xpnet.models.network import Network

__all__ = ["BUILDERS"]

# Each takes the plain arguments that a file stores, and `params`, the arrays to use instead of
# drawing new ones.
BUILDERS: dict[str, Callable[..., Network]] = {"mlp": mlp, "cnn": cnn}
