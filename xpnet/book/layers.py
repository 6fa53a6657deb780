"""The book's layers: objects that keep in `forward` what `backward` needs, over xpnet's gates.

The book is K. Saitoh, "Deep Learning from Scratch", 2016. Names, attributes and numbers are the
book's, on any array library. Where a class differs, its docstring says so; `docs/book.md` lists
all differences. Common to all:

- Arrays may differ in dtype, as in the book: images of float32 and weights of float64 give
  float64. Whole numbers count as real ones.
- `backward` needs a `forward` before it, and you may call it again. It returns a new array.
- `from xpnet.book.layers import *` brings the names that the book's own module brings: the layers,
  the functions, `im2col`, `col2im` and `np`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from xpnet import gates, layers
from xpnet.arrays.ops import Array, as_array, at_least, masked, namespace, one_hot
from xpnet.book import functions
from xpnet.book.arrays import as_targets, like, real_arrays, run
from xpnet.book.functions import *  # noqa: F403
from xpnet.book.util import col2im, im2col
from xpnet.errors import real
from xpnet.graph.autodiff import MISFIT, one_line
from xpnet.layers.activations import relu_backward

__all__ = [
    "AddLayer", "Affine", "BatchNormalization", "Convolution", "Dropout", "MulLayer", "Pooling",
    "ReLU", "Relu", "Sigmoid", "SoftmaxWithLoss", "col2im", "im2col", *functions.__all__,
]  # fmt: skip


class Layer:
    """What the layers share: a gate, and what its last forward kept."""

    gate: Any

    def __init__(self) -> None:
        self._kept: tuple[Any, Array] | None = None  # the gate's cache, and the output

    def _forward(self, **arrays: Any) -> Array:
        """Run the gate on arrays of one library, in one real dtype."""
        self._kept = None  # if this forward fails, backward must not use an earlier one
        return self._run(*real_arrays(f"{type(self).__name__}.forward", **arrays))

    def _run(self, *inputs: Array) -> Array:
        try:
            output, cache = run(self.gate.forward, *inputs)
        except MISFIT as error:
            raise ValueError(f"{type(self).__name__}.forward: {one_line(error)}") from error
        self._kept = cache, output
        return output

    @property
    def _cache(self) -> Any:
        return None if self._kept is None else self._kept[0]

    def _backward(self, dout: Any, needs: tuple[bool, ...] = (True,)) -> Any:
        """Return the gate's gradients; the sizes of `needs` and of its inputs agree."""
        name = type(self).__name__
        if self._kept is None:
            raise RuntimeError(f"{name}.backward needs a forward first: run forward")
        cache, output = self._kept
        if isinstance(dout, int | float):
            dout = as_array(dout, output)
        if getattr(dout, "shape", None) != output.shape:
            got = f"shape {tuple(dout.shape)}" if hasattr(dout, "shape") else type(dout).__name__
            raise ValueError(
                f"{name}.backward got {got}; expected an array of the output's shape, "
                f"{tuple(output.shape)}"
            )
        dout, _ = real_arrays(f"{name}.backward", dout=dout, output=output)
        # By the output, as forward chose by it: a kernel's backward needs the kernel's cache.
        return run(lambda _, g: self.gate.backward(cache, g, needs), output, dout)


class _ReLU(layers.ReLU):
    """With the mask as its cache: ``y += x`` after it, as around a block, changes the output."""

    def forward(self, x: Array) -> tuple[Array, Array]:
        y, _ = super().forward(x)
        return y, y <= 0

    def backward(
        self, cache: Array, dout: Array, needs: Sequence[bool] = (True,)
    ) -> tuple[Array, ...]:
        return (masked(dout, namespace(cache).logical_not(cache)),)


class ReLU(Layer):
    """max(0, x). Unlike the book's, its backward does not write into `dout`.

    Attributes
    ----------
    mask : bool array or None
        Where x <= 0.

    Examples
    --------
    >>> layer = Relu()
    >>> layer.forward(np.array([-1.0, 2.0])).tolist(), layer.backward(np.ones(2)).tolist()
    ([0.0, 2.0], [0.0, 1.0])
    """

    gate = _ReLU()

    def __init__(self) -> None:
        super().__init__()
        self._later: Array | None = None  # an input that `Pooling.forward_after` has dealt with

    @property
    def mask(self) -> Array | None:
        """Where x <= 0."""
        self._part()
        return self._cache

    def forward(self, x: Array) -> Array:
        """Return the larger one of 0 and x, element by element."""
        self._later = None
        return self._forward(x=x)

    def backward(self, dout: Array) -> Array:
        """Return dout, with 0 where x <= 0."""
        self._part()
        return self._backward(dout)[0]

    def _part(self) -> None:
        """Compute alone what `Pooling.forward_after` has computed together with the pool."""
        if self._later is not None:
            self.forward(self._later)


Relu = ReLU  # the book's name


class Sigmoid(Layer):
    """1 / (1 + e⁻ˣ), without a warning where e⁻ˣ overflows.

    Attributes
    ----------
    out : array or None
        The output of the last forward.
    """

    gate = layers.Sigmoid()

    @property
    def out(self) -> Array | None:
        """The output of the last forward."""
        return None if self._kept is None else self._kept[1]

    def forward(self, x: Array) -> Array:
        """Return 1 / (1 + e⁻ˣ), element by element."""
        return self._forward(x=x)

    def backward(self, dout: Array) -> Array:
        """Return dout y (1 - y)."""
        return self._backward(dout)[0]


class Affine(Layer):
    """x W + b.

    Parameters
    ----------
    W : array, shape=(D, M)
    b : array, shape=(M,), or a number for all

    Attributes
    ----------
    W, b : array
        Each forward reads them, so you may change or replace them.
    x : array, shape=(N, D), or None
        The input of the last forward, as rows, in the dtype of the output; rows by the thousand
        in their own dtype.
    original_x_shape : tuple of int or None
        The shape that the input had.
    dW, db : array or None
        The gradients of W and b, after backward.

    Examples
    --------
    >>> layer = Affine(np.ones((2, 1)), np.zeros(1))
    >>> layer.forward(np.array([[3.0, 4.0]])).tolist(), layer.backward(np.ones((1, 1))).tolist()
    ([[7.0]], [[1.0, 1.0]])
    >>> layer.dW.tolist(), layer.db.tolist()
    ([[3.0], [4.0]], [1.0])
    """

    gate = layers.Affine()

    def __init__(self, W: Array, b: Array) -> None:
        super().__init__()
        self.W, self.b = W, b
        self.x: Array | None = None
        self.original_x_shape: tuple[int, ...] | None = None
        self.dW: Array | None = None
        self.db: Array | None = None

    def forward(self, x: Array) -> Array:
        """Return x W + b for x, shape=(N, D), or (N, C, H, W) with C·H·W = D.

        Raises
        ------
        ValueError
            The shapes do not fit, or the arrays are of several libraries.
        """
        inputs = {"W": self.W, "b": _bias(self.b, self.W, -1)}
        if _is_large(x, self.W):
            # A copy of a whole data set in another dtype takes longer than the product itself.
            parts = (x[start : start + ROWS] for start in range(0, len(x), ROWS))
            y: Array = np.concatenate([self._forward(x=part, **inputs) for part in parts])
            self._kept = self._cache._replace(x=x, x_shape=x.shape), y
        else:
            y = self._forward(x=x, **inputs)
        self.x, self.original_x_shape = self._cache.x, tuple(x.shape)
        return y

    def backward(self, dout: Array, needs_dx: bool = True) -> Array:
        """Return dx = dout Wᵀ in the shape of x, and store dW = xᵀ dout and db = Σ dout.

        With `needs_dx` False, return None: the first layer of a network needs no dx, which there
        takes a third of the backward pass.
        """
        dx, self.dW, self.db = self._backward(dout, (needs_dx, True, True))
        return dx


ROWS = 1_000  # so many rows of another dtype are converted at once


def _is_large(x: Any, W: Any) -> bool:
    """Say whether x has many rows, in a real dtype that is not the one of W."""
    if type(x) is not np.ndarray or type(W) is not np.ndarray or x.dtype == W.dtype:
        return False
    return x.ndim == 2 and len(x) > ROWS and x.dtype.kind == "f"


def _bias(b: Any, W: Any, axis: int) -> Any:
    """Return a number as one bias for each output, along an axis of W."""
    if isinstance(b, int | float) and getattr(W, "shape", None):
        return like(np.full(W.shape[axis], b), W)
    return b


def _copied(x: Any) -> Any:
    return namespace(x).asarray(x, copy=True) if hasattr(x, "dtype") else x


class SoftmaxWithLoss:
    """Softmax and cross-entropy of scores x and targets t.

    The loss is the book's, -Σ log(y + 1e-7) / N: at most 16.118, and of a perfect answer -1e-7.
    The gradient is that of the softmax with the exact cross-entropy, (y - t) / N, as in the book.
    Unlike the book's, backward multiplies it by the `dout` that you give.

    Attributes
    ----------
    loss, y, t : array or None
        The loss, the probabilities and the targets of the last forward.

    Examples
    --------
    >>> layer = SoftmaxWithLoss()
    >>> round(float(layer.forward(np.array([[2.0, 0.0]]), np.array([0]))), 4)
    0.1269
    >>> layer.backward().round(4).tolist()
    [[-0.1192, 0.1192]]
    """

    def __init__(self) -> None:
        self.loss: Array | None = None
        self.y: Array | None = None
        self.t: Array | None = None
        self._targets: Array | None = None  # as labels (N,) or rows (N, C)

    def forward(self, x: Array, t: Array) -> Array:
        """Return the mean loss of scores x, shape=(N, C).

        Parameters
        ----------
        x : array, shape=(N, C)
        t : array, shape=(N,) or (N, C)
            Class indices, or one-hot rows.

        Raises
        ------
        ValueError
            The targets do not fit the scores, or a label is not in [0, C).
        """
        self._targets = None  # if this forward fails, backward must not use an earlier one
        (x,) = real_arrays("SoftmaxWithLoss.forward", x=x)
        self.t = t
        t = as_targets(t, x, "SoftmaxWithLoss.forward")
        self.y = functions.softmax(x)
        self.loss = functions.cross_entropy_error(self.y, t)
        self._targets = t
        return self.loss

    def backward(self, dout: Any = 1.0) -> Array:
        """Return dout (y - t) / N."""
        if self.y is None or self._targets is None:
            raise RuntimeError("SoftmaxWithLoss.backward needs a forward first: run forward")
        t, y = self._targets, self.y
        dx = y - (t if t.shape == y.shape else one_hot(t, y.shape[-1], y.dtype))
        dx *= dout / max(math.prod(y.shape[:-1]), 1)
        return dx


class Dropout(Layer):
    """Set a share of the values to 0 in training, and multiply by 1 - ratio otherwise.

    The first form of dropout, as in the book; xpnet's own (`xpnet.layers.Dropout`) divides in
    training instead. `numpy.random.rand` draws the mask, so `numpy.random.seed` repeats it.

    Parameters
    ----------
    dropout_ratio : float in [0, 1]

    Attributes
    ----------
    mask : bool array or None
        Which values the last forward in training kept.

    Notes
    -----
    After a forward with ``train_flg=False``, backward still uses the mask of the last training
    forward, as in the book. Source: Srivastava et al., "Dropout: a simple way to prevent neural
    networks from overfitting", JMLR 15, 2014.
    """

    gate = gates.Mul()

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        super().__init__()
        self.dropout_ratio = real("dropout_ratio", dropout_ratio, 0.0, 1.0, "[]")
        self.mask: Array | None = None

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        """Return x times a new mask; with `train_flg` False, x (1 - dropout_ratio)."""
        (x,) = real_arrays("Dropout.forward", x=x)
        if not train_flg:
            return x * (1.0 - self.dropout_ratio)
        kept = like(np.random.rand(*x.shape) > self.dropout_ratio, x)
        self.mask = kept != 0
        return self._forward(x=x, mask=kept)

    def backward(self, dout: Array) -> Array:
        """Return dout times the mask."""
        return self._backward(dout, (True, False))[0]


class BatchNormalization(Layer):
    """γ (x - μ) / √(σ² + 1e-6) + β, where each feature has its own γ, β, mean μ and variance σ².

    In training, μ and σ² are those of the batch (σ² divided by N). The layer also keeps running
    means of them, as in the book from 0 on, and uses those where `train_flg` is False. Images are
    flattened, so each pixel of each channel is a feature, as in the book; `xpnet.layers.BatchNorm`
    takes channels.

    Parameters
    ----------
    gamma, beta : array, shape=(D,)
        γ and β.
    momentum : float
        How much of the running values each forward in training keeps.
    running_mean, running_var : array, shape=(D,), optional
        The running values to begin with; by default 0.

    Attributes
    ----------
    input_shape : tuple of int or None
        Shape of the last input.
    running_mean, running_var : array or None
        The running values.
    batch_size : int or None
        Number of samples of the last forward in training.
    xc, xn : array, shape=(N, D), or None
        x - μ, and (x - μ) / √(σ² + 1e-6), of that forward.
    std : array, shape=(D,), or None
        √(σ² + 1e-6), of that forward.
    dgamma, dbeta : array or None
        The gradients of γ and β, after backward.

    Notes
    -----
    `backward` is that of the last forward in training. A batch of one sample has the variance 0:
    its output is β, and all gradients before this layer are 0, so a check by differences on such a
    batch proves nothing. Source: Ioffe and Szegedy, "Batch normalization", 2015.

    Examples
    --------
    >>> layer = BatchNormalization(np.ones(1), np.zeros(1))
    >>> layer.forward(np.array([[1.0], [3.0]])).round(3).tolist()
    [[-1.0], [1.0]]
    >>> layer.running_mean.round(3).tolist()
    [0.2]
    """

    # With the momentum 0 the gate's statistics are those of the batch alone.
    gate = layers.BatchNorm(momentum=0.0, eps=1e-6)

    def __init__(
        self,
        gamma: Array,
        beta: Array,
        momentum: float = 0.9,
        running_mean: Array | None = None,
        running_var: Array | None = None,
    ) -> None:
        super().__init__()
        self.gamma, self.beta = gamma, beta
        self.momentum = momentum
        self.running_mean: Array = running_mean
        self.running_var: Array = running_var
        self.input_shape: tuple[int, ...] | None = None
        self.batch_size: int | None = None
        self.dgamma: Array | None = None
        self.dbeta: Array | None = None
        self._rows: tuple[Array, Array, Array] | None = None  # x, its mean and its variance

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        """Return the normalized x, in training by the statistics of its batch.

        Parameters
        ----------
        x : array, shape=(N, D), or (N, C, H, W) with C·H·W = D
        train_flg : bool
            False normalizes by the running values, and leaves them as they are.

        Raises
        ------
        ValueError
            The shapes do not fit.
        """
        if train_flg:
            self._kept = None  # if this forward fails, backward must not use an earlier one
        x, gamma, beta = real_arrays(
            "BatchNormalization.forward", x=x, gamma=self.gamma, beta=self.beta
        )
        xp = namespace(x)
        self.input_shape = tuple(x.shape)
        rows = xp.reshape(x, (x.shape[0], -1)) if x.ndim != 2 else x
        self._start_running(gamma)
        if train_flg:
            y = self._in_training(rows, gamma, beta)
        else:
            # In the book a forward that only looks leaves alone what a later backward needs.
            kept = self._kept
            y = self._forward(
                x=rows, gamma=gamma, beta=beta, mean=self.running_mean, var=self.running_var
            )
            self._kept = kept
        return xp.reshape(y, self.input_shape)

    def _start_running(self, gamma: Array) -> None:
        """Make running values: zeros, or those that NumPy has, for parameters moved elsewhere."""
        given = self.running_mean, self.running_var
        if given[0] is None:
            given = 0.0, 0.0
        if given[1] is None:
            raise ValueError("BatchNormalization got running_mean alone; expected running_var too")
        moved = []
        for name, a in zip(("running_mean", "running_var"), given, strict=True):
            if isinstance(a, int | float | np.ndarray) and type(a) is not type(gamma):
                a = like(np.full(gamma.shape, a), gamma)
            real_arrays("BatchNormalization.forward", **{name: a, "gamma": gamma})
            moved.append(a)
        self.running_mean, self.running_var = moved

    def _in_training(self, rows: Array, gamma: Array, beta: Array) -> Array:
        n = rows.shape[0]
        xp = namespace(rows)
        mean, var = (rows[0, :], xp.zeros_like(gamma)) if n == 1 else (gamma, gamma)
        step = xp.zeros(1, dtype=xp.int32)
        y = self._run(rows, gamma, beta, mean, var, step)
        if n > 1:
            mean, var = self.gate.observed(self._cache)
            var = var * ((n - 1) / n)  # the gate's is the unbiased one
        keep = self.momentum
        self.running_mean = keep * self.running_mean + (1.0 - keep) * mean
        self.running_var = keep * self.running_var + (1.0 - keep) * var
        self.batch_size, self._rows = n, (rows, mean, var)
        return y

    @property
    def xc(self) -> Array | None:
        """The input minus its mean."""
        return None if self._rows is None else self._rows[0] - self._rows[1]

    @property
    def xn(self) -> Array | None:
        """The normalized input."""
        return None if self._kept is None else self._cache.normalized

    @property
    def std(self) -> Array | None:
        """The standard deviation of each feature, √(variance + 1e-6)."""
        if self._rows is None:
            return None
        return namespace(self._rows[2]).sqrt(self._rows[2] + self.gate.eps)

    def backward(self, dout: Array) -> Array:
        """Return dx in the shape of x, and store dgamma and dbeta."""
        rows = dout
        if self.input_shape is not None and getattr(dout, "shape", None) == self.input_shape:
            rows = namespace(dout).reshape(dout, (self.input_shape[0], -1))
        dx, self.dgamma, self.dbeta, *_ = self._backward(rows, (True, True, True))
        xp = namespace(dx)
        if self.batch_size == 1:
            dx = xp.zeros_like(dx)
        return xp.reshape(dx, tuple(getattr(dout, "shape", dx.shape)))


class Convolution(Layer):
    """Filters slide over images: each output is the sum of a window times a filter, plus b.

    Parameters
    ----------
    W : array, shape=(FN, C, FH, FW)
        FN filters, for images of C channels.
    b : array, shape=(FN,), or a number for all
    stride, pad : int

    Attributes
    ----------
    W, b : array
        Each forward reads them, so you may change or replace them.
    x : array or None
        The input of the last forward.
    col, col_W : array or None
        The windows of x as rows, and the filters as columns, whose product is the convolution in
        the book. xpnet does not need them, and computes them when you ask.
    dW, db : array or None
        The gradients of W and b, after backward.

    Examples
    --------
    >>> layer = Convolution(np.ones((1, 1, 2, 2)), np.zeros(1))
    >>> layer.forward(np.arange(9.0).reshape(1, 1, 3, 3)).tolist()
    [[[[8.0, 12.0], [20.0, 24.0]]]]
    """

    def __init__(self, W: Array, b: Array, stride: int = 1, pad: int = 0) -> None:
        super().__init__()
        self.W, self.b = W, b
        self.stride, self.pad = stride, pad
        self.x: Array | None = None
        self.dW: Array | None = None
        self.db: Array | None = None

    @property
    def gate(self) -> layers.Convolution:
        """The gate of xpnet that computes this layer."""
        return layers.Convolution(self.stride, self.pad)

    @property
    def col(self) -> Array | None:
        """The windows of x, as rows."""
        if self._kept is None:
            return None
        rows, columns = self.W.shape[2:]
        return im2col(self._cache.x, rows, columns, self.stride, self.pad)

    @property
    def col_W(self) -> Array | None:  # noqa: N802
        """The filters, as columns."""
        if self.x is None:
            return None
        return namespace(self.W).reshape(self.W, (self.W.shape[0], -1)).T

    def forward(self, x: Array) -> Array:
        """Return the filtered images, shape=(N, FN, OH, OW).

        OH = (H + 2 pad - FH) // stride + 1, and OW alike.

        Raises
        ------
        ValueError
            The shapes do not fit.
        """
        # The book's windows are copies too, so you may change x before backward.
        y = self._forward(x=_copied(x), W=self.W, b=_bias(self.b, self.W, 0))
        self.x = x
        return y

    def backward(self, dout: Array, needs_dx: bool = True) -> Array:
        """Return dx, and store dW and db; see `Affine.backward` for `needs_dx`."""
        dx, self.dW, self.db = self._backward(dout, (needs_dx, True, True))
        return dx


class Pooling(Layer):
    """The largest value of each window of an image.

    Parameters
    ----------
    pool_h, pool_w : int
        Rows and columns of a window.
    stride : int
    pad : int
        Minus infinity on each side of the images. The book's fails unless this is 0.

    Attributes
    ----------
    x : array or None
        The input of the last forward.
    arg_max : int array or None
        The place of the largest value in each window, counted row by row; windows in the order of
        samples, rows, columns, channels.
    """

    def __init__(self, pool_h: int, pool_w: int, stride: int = 2, pad: int = 0) -> None:
        super().__init__()
        self.pool_h, self.pool_w = pool_h, pool_w
        self.stride, self.pad = stride, pad
        self.relu: ReLU | None = None  # the layer before, if `forward_after` has run it
        self._x: Array | None = None  # the input, or with `relu` the input of that layer

    @property
    def gate(self) -> layers.MaxPool:
        """The gate of xpnet that computes this layer."""
        return layers.MaxPool((self.pool_h, self.pool_w), self.stride, self.pad)

    @property
    def x(self) -> Array | None:
        """The input of the last forward."""
        self._part()
        return self._x

    @property
    def arg_max(self) -> Array | None:
        """The place of the largest value in each window."""
        self._part()
        if self._kept is None:
            return None
        xp = namespace(self._x)
        padded = self._cache.x  # with minus infinity around it, which is never the largest
        col = im2col(padded, self.pool_h, self.pool_w, self.stride)
        return xp.argmax(xp.reshape(col, (-1, self.pool_h * self.pool_w)), axis=1)

    def forward(self, x: Array) -> Array:
        """Return the largest values, shape=(N, C, OH, OW).

        OH = (H + 2 pad - pool_h) // stride + 1, and OW alike.

        Raises
        ------
        ValueError
            x is no batch of images, or a window is larger than they are.
        """
        self.relu = None
        y = self._forward(x=x)
        self._x = x
        return _copied(y)  # backward needs y, and you may change what you get

    def backward(self, dout: Array) -> Array:
        """Return dx: each window's gradient where its largest value is, the first of equal ones."""
        self._part()
        return self._backward(dout)[0]

    def forward_after(self, relu: ReLU, x: Array) -> Array:
        """Return ``self.forward(relu.forward(x))``, but apply ReLU to the maxima alone.

        They are a part of the images, a quarter in the book, and the maximum of what ReLU has
        returned is what ReLU returns of the maximum. Both layers then answer as after their own
        forward.
        """
        self.relu = None
        (x,) = real_arrays("ReLU.forward", x=x)
        maxima = self._forward(x=x)
        self._x, self.relu = x, relu
        relu._later = x
        return run(at_least, maxima, 0.0)

    def backward_with_relu(self, dout: Array) -> Array:
        """Return ``self.relu.backward(self.backward(dout))`` after `forward_after`.

        Where no value of a window is positive, ReLU stops its gradient.
        """
        kept = self._kept
        if kept is None:
            return self._backward(dout)
        return self._backward(run(relu_backward, kept[1], dout))[0]

    def _part(self) -> None:
        """Compute alone what `forward_after` has computed together with ReLU."""
        if self.relu is not None:
            self.forward(run(at_least, self._x, 0.0))


class _OfTwo:
    """A layer with two inputs. Whole numbers stay whole, as in the book."""

    gate: ClassVar[Any]

    def __init__(self) -> None:
        self.x: Any = None
        self.y: Any = None
        self._kept: Any = None

    def forward(self, x: Any, y: Any) -> Any:
        """Return the output for numbers or arrays x and y."""
        self._kept = None  # if this forward fails, backward must not use an earlier one
        output, self._kept = self.gate.forward(_either(x, y), _either(y, x))
        self.x, self.y = x, y
        return _number(output)

    def backward(self, dout: Any) -> Any:
        """Return the gradients of x and y."""
        if self._kept is None:
            raise RuntimeError(f"{type(self).__name__}.backward needs a forward first: run forward")
        other = self.x if hasattr(self.x, "dtype") else self.y
        if isinstance(other, int | float) and isinstance(dout, np.ndarray | np.generic):
            dout = dout.item() if dout.ndim == 0 else dout
        dout = _either(dout, other)
        dx, dy = self.gate.backward(self._kept, dout, (True, True))
        return _number(_copied(dx)), _number(_copied(dy))  # `dx += ...` must not change dy


def _either(a: Any, other: Any) -> Any:
    """Return an array as it is, and a number as an array that computes with the other one.

    Beside a number it keeps Python's own arithmetic: exact whole numbers, and floats.
    """
    if hasattr(a, "dtype"):
        return a
    if not isinstance(a, int | float):
        return np.asarray(a)
    if isinstance(other, int | float):
        return np.array([a], dtype=object)
    numpys = isinstance(other, np.ndarray | np.generic) or not hasattr(other, "dtype")
    return np.asarray(a) if numpys else as_array(a, other)


def _number(y: Any) -> Any:
    """Return Python's number, or NumPy's, in place of an array of one."""
    if not isinstance(y, np.ndarray) or (y.ndim and y.dtype != object):
        return y
    return y.item() if y.dtype == object else y[()]


class MulLayer(_OfTwo):
    """The product of x and y, for numbers or arrays. Each input receives dout times the other one.

    Examples
    --------
    >>> layer = MulLayer()
    >>> print(layer.forward(100, 2), *layer.backward(1.1))
    200 2.2 110.00000000000001
    """

    gate = gates.Mul()


class AddLayer(_OfTwo):
    """The sum of x and y, for numbers or arrays. Both inputs receive dout.

    Examples
    --------
    >>> layer = AddLayer()
    >>> print(layer.forward(200, 450), *layer.backward(1.1))
    650 1.1 1.1
    """

    gate = gates.Add()
