"""Classes of a book and a lecture that derive backpropagation by hand, over xpnet's gates."""

from xpnet.book.ch05 import Affine, ReLU, Relu, Sigmoid, SoftmaxWithLoss, TwoLayerNet, two_layer_net

__all__ = ["Affine", "ReLU", "Relu", "Sigmoid", "SoftmaxWithLoss", "TwoLayerNet", "two_layer_net"]
