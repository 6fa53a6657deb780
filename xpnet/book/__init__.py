"""The classes of the books that derive backpropagation by hand, over the same gates."""

from xpnet.book.ch05 import Affine, ReLU, Relu, Sigmoid, SoftmaxWithLoss, TwoLayerNet, two_layer_net

__all__ = ["Affine", "ReLU", "Relu", "Sigmoid", "SoftmaxWithLoss", "TwoLayerNet", "two_layer_net"]
