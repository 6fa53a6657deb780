"""The names of a book and a lecture that derive backpropagation by hand, over xpnet's gates.

The modules have the names of the book's: what a script imports from ``common.layers`` or
``dataset.mnist`` is in `xpnet.book.layers` and `xpnet.book.mnist`. The classes are here too;
`TwoLayerNet` is that of chapter 5. See docs/book.md.
"""

from xpnet.book import functions, gradient, layers, lecture, mnist, optimizer, trainer, util
from xpnet.book.ch04 import two_layer_net
from xpnet.book.ch05 import TwoLayerNet
from xpnet.book.ch07 import SimpleConvNet
from xpnet.book.ch08 import DeepConvNet
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
from xpnet.book.multi_layer_net import MultiLayerNet
from xpnet.book.multi_layer_net_extend import MultiLayerNetExtend
from xpnet.book.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
from xpnet.book.trainer import Trainer

__all__ = [
    "SGD", "AdaGrad", "Adam", "AddLayer", "Affine", "BatchNormalization", "Convolution",
    "DeepConvNet", "Dropout", "Momentum", "MulLayer", "MultiLayerNet", "MultiLayerNetExtend",
    "Nesterov", "Pooling", "RMSprop", "ReLU", "Relu", "Sigmoid", "SimpleConvNet",
    "SoftmaxWithLoss", "Trainer", "TwoLayerNet", "functions", "gradient", "layers", "lecture",
    "mnist", "optimizer", "trainer", "two_layer_net", "util",
]  # fmt: skip
