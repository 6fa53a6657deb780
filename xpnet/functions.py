"""Functions of nodes: each adds a gate to the graph of its arguments.

In a loss, the last axis holds the outputs of a sample, and all axes before it are the batch:
scores of shape (N,) are one sample with N outputs; scores of shape (N, 1) are N samples.

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
    "absolute_loss", "affine", "exp", "gather", "hinge_loss", "huber_loss", "log", "matmul",
    "maximum", "mean", "pick", "poisson_loss", "quantile_loss", "relu", "reshape", "sigmoid",
    "sigmoid_with_loss", "softmax_with_loss", "sqrt", "square", "squared_loss", "squared_norm",
    "sum", "tanh", "transpose",
]  # fmt: skip


def _apply(gate: gates.Gate, *nodes: Node) -> Node:
    for node in nodes:
        if isinstance(node, Node):
            return node.graph.apply(gate, *nodes)
    raise TypeError(
        f"{type(gate).__name__}: no argument is a node of a graph; expected one, such as "
        'Graph().input("x")'
    )


def exp(x: Node) -> Node:
    """Return eˣ."""
    return _apply(gates.Exp(), x)


def log(x: Node) -> Node:
    """Return ln x."""
    return _apply(gates.Log(), x)


def sqrt(x: Node) -> Node:
    """Return √x."""
    return _apply(gates.Power(0.5), x)


def square(x: Node) -> Node:
    """Return x², element by element."""
    return _apply(gates.Power(2), x)


def maximum(a: Node | float, b: Node | float) -> Node:
    """Return max(a, b), element by element; one of them may be a Python number.

    Raises
    ------
    TypeError
        Neither is a node, or the other one is neither a node nor a number.
    """
    if isinstance(a, Node) and isinstance(b, Node):
        return _apply(gates.Max(), a, b)
    for node, other in ((a, b), (b, a)):
        if isinstance(node, Node) and isinstance(other, int | float):
            return _apply(gates.AtLeast(float(other)), node)
    raise TypeError("maximum takes two nodes, or a node and a Python number")


def sigmoid(x: Node) -> Node:
    """Return 1 / (1 + e⁻ˣ), as one gate."""
    return _apply(layers.Sigmoid(), x)


def tanh(x: Node) -> Node:
    """Return tanh x."""
    return _apply(layers.Tanh(), x)


def relu(x: Node) -> Node:
    """Return max(0, x)."""
    return _apply(layers.ReLU(), x)


def sum(x: Node, axis: Axis = None, keepdims: bool = False) -> Node:
    """Return Σ x over `axis`, an int or a tuple of ints; None means all axes."""
    return _apply(gates.Sum(axis, keepdims), x)


def mean(x: Node, axis: Axis = None, keepdims: bool = False) -> Node:
    """Return the mean of x over `axis`, an int or a tuple of ints; None means all axes."""
    return _apply(gates.Mean(axis, keepdims), x)


def squared_norm(x: Node) -> Node:
    """Return ‖x‖² = Σ x² over all elements of x."""
    return _apply(gates.SquaredNorm(), x)


def matmul(a: Node, b: Node) -> Node:
    """Return the matrix product; you can also write ``a @ b``."""
    return _apply(gates.MatMul(), a, b)


def transpose(x: Node, axes: tuple[int, ...] | None = None) -> Node:
    """Return x with its axes in the order `axes`; None, like ``x.T``, reverses them."""
    return _apply(gates.Transpose(axes), x)


def reshape(x: Node, shape: tuple[int, ...]) -> Node:
    """Return x in another shape with the same number of elements; one size may be -1."""
    return _apply(gates.Reshape(shape), x)


def gather(x: Node, index: Node, axis: int = 0) -> Node:
    """Return the entries of x at the integers `index`, shape (k,), along an axis.

    For fixed positions, write ``x[1:3]``.
    """
    return _apply(gates.Gather(axis), x, index)


def pick(x: Node, t: Node) -> Node:
    """Return the entry x[..., t] of each row of x, shape (..., C), for the labels t, shape (...).

    A label outside [0, C) picks 0.
    """
    return _apply(gates.Pick(), x, t)


def affine(x: Node, W: Node, b: Node) -> Node:
    """Return x W + b; see `xpnet.layers.Affine` for the shapes."""
    return _apply(layers.Affine(), x, W, b)


def softmax_with_loss(x: Node, t: Node, reduction: losses.Reduction = "mean") -> Node:
    """Return the cross-entropy of softmax(x); t holds class indices or one-hot rows."""
    return _apply(losses.SoftmaxWithLoss(reduction), x, t)


def sigmoid_with_loss(x: Node, t: Node, reduction: losses.Reduction = "mean") -> Node:
    """Return the binary cross-entropy of sigmoid(x); t holds class indices or rows of 0 to 1."""
    return _apply(losses.SigmoidWithLoss(reduction), x, t)


def squared_loss(y: Node, t: Node, reduction: losses.Reduction = "mean") -> Node:
    """Return ½ Σ (y - t)², divided by the number of samples if `reduction` is "mean"."""
    return _apply(losses.SquaredLoss(reduction), y, t)


def hinge_loss(x: Node, t: Node, margin: float = 1.0, reduction: losses.Reduction = "mean") -> Node:
    """Return the multiclass SVM loss Σ max(0, x_j - x_c + margin), j ≠ c; t names the class c."""
    return _apply(losses.HingeLoss(margin, reduction), x, t)


def absolute_loss(y: Node, t: Node, reduction: losses.Reduction = "mean") -> Node:
    """Return Σ |y - t|, divided by the number of samples if `reduction` is "mean"."""
    return _apply(losses.AbsoluteLoss(reduction), y, t)


def huber_loss(y: Node, t: Node, delta: float = 1.0, reduction: losses.Reduction = "mean") -> Node:
    """Return Huber's loss: ½ (y - t)² where that is within ±delta, else it grows linearly."""
    return _apply(losses.HuberLoss(delta, reduction), y, t)


def quantile_loss(
    y: Node, t: Node, quantile: float = 0.5, reduction: losses.Reduction = "mean"
) -> Node:
    """Return the pinball loss of a quantile, Σ max(q (t - y), (q - 1) (t - y))."""
    return _apply(losses.QuantileLoss(quantile, reduction), y, t)


def poisson_loss(x: Node, t: Node, reduction: losses.Reduction = "mean") -> Node:
    """Return half the Poisson deviance of counts t from the rates exp(x)."""
    return _apply(losses.PoissonLoss(reduction), x, t)
