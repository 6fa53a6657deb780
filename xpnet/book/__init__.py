"""The names of a book and a lecture that derive backpropagation by hand, over xpnet's gates.

The modules have the names of the book's: what a script imports from ``common.layers`` or
``dataset.mnist`` is in `xpnet.book.layers` and `xpnet.book.mnist`. See docs/book.md.
"""

from xpnet.book.ch04 import two_layer_net
from xpnet.book.ch05 import TwoLayerNet
from xpnet.book.layers import (
    AddLayer,
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    MulLayer,
    Pooling,
    ReLU,
    Relu,
    Sigmoid,
    SoftmaxWithLoss,
)

__all__ = [
    "AddLayer", "Affine", "BatchNormalization", "Convolution", "Dropout", "MulLayer", "Pooling",
    "ReLU", "Relu", "Sigmoid", "SoftmaxWithLoss", "TwoLayerNet", "two_layer_net",
]  # fmt: skip
