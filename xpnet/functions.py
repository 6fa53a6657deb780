"""Functions of nodes: each adds the gate of its name to the graph of its arguments.

Losses take the last axis for the outputs of a sample, and what is before it for the batch:
scores of shape (N,) are one sample with N outputs, (N, 1) are N samples.

>>> from xpnet import Graph
>>> from xpnet.functions import exp
>>> graph = Graph()
>>> z = graph.input("z")
>>> y = 1 / (1 + exp(-z))
>>> value, tape = graph.forward({"z": 1.0}, y)
>>> print(f"{value:.2f}, {graph.backward(tape)['z']:.2f}")
0.73, 0.20
"""

from __future__ import annotations

from xpnet import gates, layers, losses
from xpnet.gates.arrays import Axis
from xpnet.graph.node import Node

__all__ = [
    "affine", "exp", "gather", "hinge_loss", "log", "matmul", "maximum", "mean", "pick", "relu",
    "reshape", "sigmoid", "sigmoid_with_loss", "softmax_with_loss", "sqrt", "square",
    "squared_loss", "squared_norm", "sum", "tanh", "transpose",
]  # fmt: skip


def _apply(gate: gates.Gate, *nodes: Node) -> Node:
    for node in nodes:
        if isinstance(node, Node):
            return node.graph.apply(gate, *nodes)
    raise TypeError(f"{type(gate).__name__} is applied to no node of a graph; expected one")


def exp(x: Node) -> Node:
    """eˣ."""
    return _apply(gates.Exp(), x)


def log(x: Node) -> Node:
    """ln x."""
    return _apply(gates.Log(), x)


def sqrt(x: Node) -> Node:
    """√x."""
    return _apply(gates.Power(0.5), x)


def square(x: Node) -> Node:
    """x², element by element."""
    return _apply(gates.Power(2), x)


def maximum(a: Node | float, b: Node | float) -> Node:
    """max(a, b), element by element; one of them may be a Python number."""
    if isinstance(a, Node) and isinstance(b, Node):
        return _apply(gates.Max(), a, b)
    for node, other in ((a, b), (b, a)):
        if isinstance(node, Node) and isinstance(other, int | float):
            return _apply(gates.AtLeast(float(other)), node)
    raise TypeError("maximum takes two nodes, or a node and a Python number")


def sigmoid(x: Node) -> Node:
    """1 / (1 + e⁻ˣ), as one gate."""
    return _apply(layers.Sigmoid(), x)


def tanh(x: Node) -> Node:
    """tanh x."""
    return _apply(layers.Tanh(), x)


def relu(x: Node) -> Node:
    """max(0, x)."""
    return _apply(layers.ReLU(), x)


def sum(x: Node, axis: Axis = None, keepdims: bool = False) -> Node:
    """Σ x over `axis`, all by default."""
    return _apply(gates.Sum(axis, keepdims), x)


def mean(x: Node, axis: Axis = None, keepdims: bool = False) -> Node:
    """The mean over `axis`, all by default."""
    return _apply(gates.Mean(axis, keepdims), x)


def squared_norm(x: Node) -> Node:
    """‖x‖² = Σ x², over all of x."""
    return _apply(gates.SquaredNorm(), x)


def matmul(a: Node, b: Node) -> Node:
    """The product of matrices, also written ``a @ b``."""
    return _apply(gates.MatMul(), a, b)


def transpose(x: Node, axes: tuple[int, ...] | None = None) -> Node:
    """x with its axes in the order `axes`; ``x.T`` reverses them."""
    return _apply(gates.Transpose(axes), x)


def reshape(x: Node, shape: tuple[int, ...]) -> Node:
    """x in another shape of as many elements."""
    return _apply(gates.Reshape(shape), x)


def gather(x: Node, index: Node, axis: int = 0) -> Node:
    """x at the integers `index`, shape (k,), along an axis; ``x[1:3]`` is for fixed places."""
    return _apply(gates.Gather(axis), x, index)


def pick(x: Node, t: Node) -> Node:
    """From each row of x, shape (..., C), the entry that its label t, shape (...), names."""
    return _apply(gates.Pick(), x, t)


def affine(x: Node, W: Node, b: Node) -> Node:
    """x W + b."""
    return _apply(layers.Affine(), x, W, b)


def softmax_with_loss(x: Node, t: Node, reduction: losses.Reduction = "mean") -> Node:
    """Softmax and cross-entropy of scores x; t are class indices or one-hot rows."""
    return _apply(losses.SoftmaxWithLoss(reduction), x, t)


def sigmoid_with_loss(x: Node, t: Node, reduction: losses.Reduction = "mean") -> Node:
    """Sigmoid and binary cross-entropy of scores x."""
    return _apply(losses.SigmoidWithLoss(reduction), x, t)


def squared_loss(y: Node, t: Node, reduction: losses.Reduction = "mean") -> Node:
    """½ Σ (y - t)²."""
    return _apply(losses.SquaredLoss(reduction), y, t)


def hinge_loss(x: Node, t: Node, margin: float = 1.0, reduction: losses.Reduction = "mean") -> Node:
    """The multiclass SVM loss Σ max(0, x_j - x_t + margin) of scores x, as one gate."""
    return _apply(losses.HingeLoss(margin, reduction), x, t)
