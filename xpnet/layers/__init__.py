"""Layers: affine, convolution, pooling, normalization, activations, dropout.

Each layer is a gate (see `xpnet.gates.Gate`): ``forward(*inputs)`` returns (output, cache), and
``backward(cache, dout, needs)`` returns one gradient per input, derived by hand. In shapes, N is
the batch size, D the number of inputs and M the number of outputs. Images have the shape
(N, C, H, W): channels, rows, columns.
"""

from xpnet.layers.activations import ACTIVATIONS, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from xpnet.layers.affine import Affine
from xpnet.layers.convolution import Convolution
from xpnet.layers.dropout import Dropout
from xpnet.layers.normalization import BatchNorm
from xpnet.layers.pooling import AveragePool, Flatten, GlobalAveragePool, MaxPool

__all__ = [
    "ACTIVATIONS",
    "Affine",
    "AveragePool",
    "BatchNorm",
    "Convolution",
    "Dropout",
    "Flatten",
    "GlobalAveragePool",
    "Identity",
    "LeakyReLU",
    "MaxPool",
    "ReLU",
    "Sigmoid",
    "Tanh",
]
