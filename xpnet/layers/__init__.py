"""Layers: gates with parameters or an activation, hand-derived.

Each is a gate (see `xpnet.gates`): ``forward(*inputs) -> (output, cache)`` beside
``backward(cache, dout, needs) -> one gradient per input``. Letters of shapes: N batch, D
inputs, M outputs.
"""

from xpnet.layers.activations import ACTIVATIONS, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from xpnet.layers.affine import Affine
from xpnet.layers.dropout import Dropout

__all__ = [
    "ACTIVATIONS",
    "Affine",
    "Dropout",
    "Identity",
    "LeakyReLU",
    "ReLU",
    "Sigmoid",
    "Tanh",
]
