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
from xpnet.arrays.windows import Pair
from xpnet.gates.arrays import Axis
from xpnet.graph.node import Node

__all__ = [
    "absolute_loss", "affine", "average_pool", "batch_norm", "convolution", "exp", "flatten",
    "gather", "global_average_pool", "hinge_loss", "huber_loss", "log", "matmul", "max_pool",
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


def _given(node: Node | None) -> tuple[Node, ...]:
    """Return an input that may be left out, as what `_apply` takes."""
    return () if node is None else (node,)


def exp(x: Node) -> Node:
    """Return eˣ.

    Examples
    --------
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> y = exp(graph.input("x"))
    >>> float(graph.forward({"x": 0.0}, y)[0])
    1.0
    """
    return _apply(gates.Exp(), x)


def log(x: Node) -> Node:
    """Return ln x.

    Examples
    --------
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> value, tape = graph.forward({"x": 0.5}, log(graph.input("x")))
    >>> float(graph.backward(tape)["x"])  # 1 / x
    2.0
    """
    return _apply(gates.Log(), x)


def sqrt(x: Node) -> Node:
    """Return √x.

    Examples
    --------
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> value, tape = graph.forward({"x": 9.0}, sqrt(graph.input("x")))
    >>> float(value), round(float(graph.backward(tape)["x"]), 4)
    (3.0, 0.1667)
    """
    return _apply(gates.Power(0.5), x)


def square(x: Node) -> Node:
    """Return x², element by element.

    Examples
    --------
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> value, tape = graph.forward({"x": 3.0}, square(graph.input("x")))
    >>> float(value), float(graph.backward(tape)["x"])
    (9.0, 6.0)
    """
    return _apply(gates.Power(2), x)


def maximum(a: Node | float, b: Node | float) -> Node:
    """Return max(a, b), element by element; one of them may be a Python number.

    Raises
    ------
    TypeError
        Neither is a node, or the other one is neither a node nor a number.

    Examples
    --------
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> value, tape = graph.forward({"x": -2.0}, maximum(0, graph.input("x")))
    >>> float(value), float(graph.backward(tape)["x"])
    (0.0, 0.0)
    """
    if isinstance(a, Node) and isinstance(b, Node):
        return _apply(gates.Max(), a, b)
    for node, other in ((a, b), (b, a)):
        if isinstance(node, Node) and isinstance(other, int | float):
            return _apply(gates.AtLeast(float(other)), node)
    raise TypeError("maximum takes two nodes, or a node and a Python number")


def sigmoid(x: Node) -> Node:
    """Return 1 / (1 + e⁻ˣ), as one gate.

    Examples
    --------
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> value, tape = graph.forward({"x": 0.0}, sigmoid(graph.input("x")))
    >>> float(value), float(graph.backward(tape)["x"])
    (0.5, 0.25)
    """
    return _apply(layers.Sigmoid(), x)


def tanh(x: Node) -> Node:
    """Return tanh x.

    Examples
    --------
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> value, tape = graph.forward({"x": 0.0}, tanh(graph.input("x")))
    >>> float(value), float(graph.backward(tape)["x"])
    (0.0, 1.0)
    """
    return _apply(layers.Tanh(), x)


def relu(x: Node) -> Node:
    """Return max(0, x).

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> value, tape = graph.forward({"x": np.array([-1.0, 2.0])}, relu(graph.input("x")))
    >>> value.tolist(), graph.backward(tape)["x"].tolist()
    ([0.0, 2.0], [0.0, 1.0])
    """
    return _apply(layers.ReLU(), x)


def sum(x: Node, axis: Axis = None, keepdims: bool = False) -> Node:
    """Return Σ x over `axis`, an int or a tuple of ints; None means all axes.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> y = sum(graph.input("x"), axis=1)
    >>> graph.forward({"x": np.array([[1.0, 2.0], [3.0, 4.0]])}, y)[0].tolist()
    [3.0, 7.0]
    """
    return _apply(gates.Sum(axis, keepdims), x)


def mean(x: Node, axis: Axis = None, keepdims: bool = False) -> Node:
    """Return the mean of x over `axis`, an int or a tuple of ints; None means all axes.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> value, tape = graph.forward({"x": np.array([1.0, 2.0, 3.0, 6.0])}, mean(graph.input("x")))
    >>> float(value), graph.backward(tape)["x"].tolist()
    (3.0, [0.25, 0.25, 0.25, 0.25])
    """
    return _apply(gates.Mean(axis, keepdims), x)


def squared_norm(x: Node) -> Node:
    """Return ‖x‖² = Σ x² over all elements of x.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> value, tape = graph.forward({"x": np.array([3.0, 4.0])}, squared_norm(graph.input("x")))
    >>> float(value), graph.backward(tape)["x"].tolist()
    (25.0, [6.0, 8.0])
    """
    return _apply(gates.SquaredNorm(), x)


def matmul(a: Node, b: Node) -> Node:
    """Return the matrix product; you can also write ``a @ b``.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> a, b = graph.inputs("a b")
    >>> values = {"a": np.array([[1.0, 2.0]]), "b": np.array([[3.0], [4.0]])}
    >>> graph.forward(values, matmul(a, b))[0].tolist()
    [[11.0]]
    """
    return _apply(gates.MatMul(), a, b)


def transpose(x: Node, axes: tuple[int, ...] | None = None) -> Node:
    """Return x with its axes in the order `axes`; None, like ``x.T``, reverses them.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> y = transpose(graph.input("x"), (0, 2, 1))
    >>> graph.forward({"x": np.zeros((2, 3, 4))}, y)[0].shape
    (2, 4, 3)
    """
    return _apply(gates.Transpose(axes), x)


def reshape(x: Node, shape: tuple[int, ...]) -> Node:
    """Return x in another shape with the same number of elements; one size may be -1.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> y = reshape(graph.input("x"), (-1, 4))
    >>> graph.forward({"x": np.zeros((3, 2, 2))}, y)[0].shape
    (3, 4)
    """
    return _apply(gates.Reshape(shape), x)


def gather(x: Node, index: Node, axis: int = 0) -> Node:
    """Return the entries of x at the integers `index`, shape (k,), along an axis.

    For fixed positions, write ``x[1:3]``.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> x, i = graph.inputs("x i")
    >>> value, tape = graph.forward(
    ...     {"x": np.array([5.0, 6.0, 7.0]), "i": np.array([2, 0, 2])}, gather(x, i)
    ... )
    >>> value.tolist(), graph.backward(tape, "x")["x"].tolist()  # an entry taken twice adds up
    ([7.0, 5.0, 7.0], [1.0, 0.0, 2.0])
    """
    return _apply(gates.Gather(axis), x, index)


def pick(x: Node, t: Node) -> Node:
    """Return the entry x[..., t] of each row of x, shape (..., C), for the labels t, shape (...).

    A label outside [0, C) picks 0.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> x, t = graph.inputs("x t")
    >>> values = {"x": np.array([[1.0, 2.0], [3.0, 4.0]]), "t": np.array([1, 0])}
    >>> graph.forward(values, pick(x, t))[0].tolist()
    [2.0, 3.0]
    """
    return _apply(gates.Pick(), x, t)


def affine(x: Node, W: Node, b: Node | None = None) -> Node:
    """Return x W + b, or x W without b; see `xpnet.layers.Affine` for the shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> x, W, b = graph.inputs("x W b")
    >>> values = {"x": np.ones((1, 2)), "W": np.array([[1.0], [2.0]]), "b": np.array([10.0])}
    >>> graph.forward(values, affine(x, W, b))[0].tolist()
    [[13.0]]
    """
    return _apply(layers.Affine(), x, W, *_given(b))


def convolution(
    x: Node,
    W: Node,
    b: Node | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
) -> Node:
    """Slide the filters W, shape (F, C, KH, KW), over the images x, shape (N, C, H, W).

    The result has the shape (N, F, OH, OW); see `xpnet.layers.Convolution`. A pair of numbers
    gives rows and columns.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> x, W = graph.inputs("x W")
    >>> values = {"x": np.array([[[[1.0, 2.0, 4.0]]]]), "W": np.array([[[[-1.0, 1.0]]]])}
    >>> graph.forward(values, convolution(x, W))[0].tolist()  # the rise from pixel to pixel
    [[[[1.0, 2.0]]]]
    """
    return _apply(layers.Convolution(stride, padding, dilation), x, W, *_given(b))


def max_pool(
    x: Node, size: int | Pair = 2, stride: int | Pair | None = None, padding: int | Pair = 0
) -> Node:
    """Return the largest value of each window of the images x; see `xpnet.layers.MaxPool`.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> value, tape = graph.forward({"x": np.array([[[[1.0, 4.0], [3.0, 2.0]]]])},
    ...                             max_pool(graph.input("x"), 2))
    >>> value.tolist(), graph.backward(tape)["x"].tolist()  # only the largest one counts
    ([[[[4.0]]]], [[[[0.0, 1.0], [0.0, 0.0]]]])
    """
    return _apply(layers.MaxPool(size, stride, padding), x)


def average_pool(
    x: Node, size: int | Pair = 2, stride: int | Pair | None = None, padding: int | Pair = 0
) -> Node:
    """Return the mean of each window of the images x; see `xpnet.layers.AveragePool`.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> y = average_pool(graph.input("x"), 2)
    >>> graph.forward({"x": np.array([[[[1.0, 4.0], [3.0, 2.0]]]])}, y)[0].tolist()
    [[[[2.5]]]]
    """
    return _apply(layers.AveragePool(size, stride, padding), x)


def global_average_pool(x: Node) -> Node:
    """Return the mean of each channel: (N, C, H, W) becomes (N, C).

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> y = global_average_pool(graph.input("x"))
    >>> graph.forward({"x": np.arange(8.0).reshape(1, 2, 2, 2)}, y)[0].tolist()
    [[1.5, 5.5]]
    """
    return _apply(layers.GlobalAveragePool(), x)


def flatten(x: Node) -> Node:
    """Return each sample as a row: (N, C, H, W) becomes (N, C·H·W).

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> y = flatten(graph.input("x"))
    >>> graph.forward({"x": np.zeros((5, 3, 4, 4))}, y)[0].shape
    (5, 48)
    """
    return _apply(layers.Flatten(), x)


def batch_norm(
    x: Node,
    gamma: Node,
    beta: Node,
    mean: Node,
    var: Node,
    step: Node | None = None,
    momentum: float = 0.9,
    eps: float = 1e-5,
) -> Node:
    """Give each feature, or each channel of images, mean 0 and variance 1; then scale and shift.

    With a value of `step`, mean and variance are those of the batch; without one, they are the
    running statistics `mean` and `var`, which belong to `xpnet.Network`'s ``statistics``. Declare
    the step as ``graph.input("step", optional=True)``. See `xpnet.layers.BatchNorm`.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> y = batch_norm(*graph.inputs("x gamma beta mean var"), graph.input("step", optional=True))
    >>> values = {"x": np.array([[1.0], [3.0]]), "gamma": np.array([2.0]), "beta": np.array([5.0]),
    ...           "mean": np.zeros(1), "var": np.ones(1), "step": np.array([0], np.int32)}
    >>> graph.forward(values, y)[0].round(3).tolist()
    [[3.0], [7.0]]
    """
    gate = layers.BatchNorm(momentum, eps)
    return _apply(gate, x, gamma, beta, mean, var, *_given(step))


def softmax_with_loss(x: Node, t: Node, reduction: losses.Reduction = "mean") -> Node:
    """Return the cross-entropy of softmax(x); t holds class indices or one-hot rows.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> x, t = graph.inputs("x t")
    >>> values = {"x": np.log([[0.3, 0.2, 0.5]]), "t": np.array([1])}
    >>> value, tape = graph.forward(values, softmax_with_loss(x, t))
    >>> graph.backward(tape, "x")["x"].round(2).tolist()  # softmax(x) - t
    [[0.3, -0.8, 0.5]]
    """
    return _apply(losses.SoftmaxWithLoss(reduction), x, t)


def sigmoid_with_loss(x: Node, t: Node, reduction: losses.Reduction = "mean") -> Node:
    """Return the binary cross-entropy of sigmoid(x); t holds class indices or rows of 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> x, t = graph.inputs("x t")
    >>> values = {"x": np.array([[0.0]]), "t": np.array([1])}
    >>> value, tape = graph.forward(values, sigmoid_with_loss(x, t))
    >>> round(float(value), 4), graph.backward(tape, "x")["x"].tolist()  # ln 2
    (0.6931, [[-0.5]])
    """
    return _apply(losses.SigmoidWithLoss(reduction), x, t)


def squared_loss(y: Node, t: Node, reduction: losses.Reduction = "mean") -> Node:
    """Return ½ Σ (y - t)², divided by the number of samples if `reduction` is "mean".

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> y, t = graph.inputs("y t")
    >>> values = {"y": np.array([[1.0], [3.0]]), "t": np.array([[0.0], [0.0]])}
    >>> float(graph.forward(values, squared_loss(y, t))[0])  # (½ · 1 + ½ · 9) / 2
    2.5
    """
    return _apply(losses.SquaredLoss(reduction), y, t)


def hinge_loss(x: Node, t: Node, margin: float = 1.0, reduction: losses.Reduction = "mean") -> Node:
    """Return the multiclass SVM loss Σ max(0, x_j - x_c + margin), j ≠ c; t names the class c.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> x, t = graph.inputs("x t")
    >>> values = {"x": np.array([[3.2, 5.1, -1.7]]), "t": np.array([0])}
    >>> round(float(graph.forward(values, hinge_loss(x, t))[0]), 3)
    2.9
    """
    return _apply(losses.HingeLoss(margin, reduction), x, t)


def absolute_loss(y: Node, t: Node, reduction: losses.Reduction = "mean") -> Node:
    """Return Σ |y - t|, divided by the number of samples if `reduction` is "mean".

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> y, t = graph.inputs("y t")
    >>> values = {"y": np.array([[1.0], [-3.0]]), "t": np.array([[0.0], [0.0]])}
    >>> float(graph.forward(values, absolute_loss(y, t))[0])
    2.0
    """
    return _apply(losses.AbsoluteLoss(reduction), y, t)


def huber_loss(y: Node, t: Node, delta: float = 1.0, reduction: losses.Reduction = "mean") -> Node:
    """Return Huber's loss: ½ (y - t)² where that is within ±delta, else it grows linearly.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> y, t = graph.inputs("y t")
    >>> values = {"y": np.array([[3.0]]), "t": np.array([[0.0]])}
    >>> float(graph.forward(values, huber_loss(y, t))[0])  # 3 - ½ beyond delta = 1
    2.5
    """
    return _apply(losses.HuberLoss(delta, reduction), y, t)


def quantile_loss(
    y: Node, t: Node, quantile: float = 0.5, reduction: losses.Reduction = "mean"
) -> Node:
    """Return the pinball loss of a quantile, Σ max(q (t - y), (q - 1) (t - y)).

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> y, t = graph.inputs("y t")
    >>> values = {"y": np.array([[1.0]]), "t": np.array([[3.0]])}
    >>> float(graph.forward(values, quantile_loss(y, t, 0.9))[0])  # 2 too low costs 0.9 · 2
    1.8
    """
    return _apply(losses.QuantileLoss(quantile, reduction), y, t)


def poisson_loss(x: Node, t: Node, reduction: losses.Reduction = "mean") -> Node:
    """Return half the Poisson deviance of counts t from the rates exp(x).

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet import Graph
    >>> graph = Graph()
    >>> x, t = graph.inputs("x t")
    >>> values = {"x": np.log([[4.0]]), "t": np.array([[4.0]])}
    >>> value, tape = graph.forward(values, poisson_loss(x, t))
    >>> abs(round(float(value), 6)), graph.backward(tape, "x")["x"].round(6).tolist()
    (0.0, [[0.0]])
    """
    return _apply(losses.PoissonLoss(reduction), x, t)
