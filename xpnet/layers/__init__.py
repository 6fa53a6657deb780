"""Layers: affine, activations and dropout, with hand-derived gradients.

Each layer is a gate (see `xpnet.gates.Gate`): ``forward(*inputs)`` returns (output, cache), and
``backward(cache, dout, needs)`` returns one gradient per input. In shapes, N is the batch size, D
the number of inputs and M the number of outputs.
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
