"""The classes of the book's chapter 5: layers that keep their state, and TwoLayerNet.

The book is K. Saitoh, "Deep Learning from Scratch", 2016. The classes run xpnet's gates and behave
as the book's do, on any array library; `docs/book.md` lists the differences.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet import layers, losses
from xpnet.arrays.ops import Array, check_labels, namespace
from xpnet.book.lecture import StatefulGate
from xpnet.graph.gradcheck import numerical_gradient
from xpnet.models.mlp import mlp
from xpnet.models.network import Network

__all__ = ["Affine", "ReLU", "Relu", "Sigmoid", "SoftmaxWithLoss", "TwoLayerNet", "two_layer_net"]


class ReLU(StatefulGate):
    """max(0, x). Unlike the book's, its backward does not write into `dout`."""

    kind = layers.ReLU


Relu = ReLU  # the book defines one name and uses the other


class Sigmoid(StatefulGate):
    """1 / (1 + e⁻ˣ)."""

    kind = layers.Sigmoid


class Affine(StatefulGate):
    """x W + b, for x of shape (N, D), or (N, C, H, W) with C·H·W = D.

    Parameters
    ----------
    W : array, shape=(D, M)
    b : array, shape=(M,)

    Attributes
    ----------
    W, b : array
        Each forward reads them, so you may replace them.
    dW, db : array or None
        The gradients of W and b, after backward.
    """

    kind = layers.Affine

    def __init__(self, W: Array, b: Array) -> None:
        super().__init__()
        self.W, self.b = W, b
        self.dW: Array | None = None
        self.db: Array | None = None

    def forward(self, x: Array) -> Array:
        return super().forward(x, self.W, self.b)

    def backward(self, dout: Any = 1.0) -> Array:
        dx, self.dW, self.db = super().backward(dout)
        return dx


class SoftmaxWithLoss(StatefulGate):
    """Softmax and cross-entropy of scores x and targets t (class indices or one-hot rows).

    Attributes
    ----------
    loss, y, t : array or None
        The loss, the probabilities and the targets of the last forward.
    """

    kind = losses.SoftmaxWithLoss

    def __init__(self) -> None:
        super().__init__()
        self.loss: Array | None = None
        self.y: Array | None = None
        self.t: Array | None = None

    def forward(self, x: Array, t: Array) -> Array:
        """Return the mean loss of scores x, shape=(N, C).

        Raises
        ------
        ValueError
            The targets do not fit the scores, or a label is not in [0, C).
        """
        if t.ndim == x.ndim - 1:
            check_labels(t, x.shape[-1])
        self.loss = super().forward(x, t)
        self.y, self.t = losses.SoftmaxWithLoss().probabilities(x), t
        return self.loss

    def backward(self, dout: Any = 1.0) -> Array:
        return super().backward(dout)[0]


class TwoLayerNet:
    """The book's network: Affine, ReLU, Affine, SoftmaxWithLoss.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
    weight_init_std : float
        Standard deviation of the initial weights; biases are 0.
    seed : int, optional
        Seed of the initial weights. By default they differ from call to call.

    Attributes
    ----------
    params : dict of str to array
        W1, b1, W2, b2. To train the network, write ``params[name] -= ...`` or put another array,
        of any library, in its place.
    layers : dict of str to layer
        Affine1, Relu1, Affine2.
    lastLayer : SoftmaxWithLoss
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.01,
        seed: int | None = None,
    ) -> None:
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        sizes = [input_size, hidden_size, output_size]
        network = mlp(sizes, "relu", init=float(weight_init_std), seed=seed)
        self.params: dict[str, Array] = {name: p.copy() for name, p in network.params.items()}
        self.layers: dict[str, Any] = {
            "Affine1": Affine(self.params["W1"], self.params["b1"]),
            "Relu1": ReLU(),
            "Affine2": Affine(self.params["W2"], self.params["b2"]),
        }
        self.lastLayer = SoftmaxWithLoss()

    def predict(self, x: Array) -> Array:
        """Return the scores of x, shape=(N, output_size)."""
        for i in ("1", "2"):
            affine = self.layers[f"Affine{i}"]
            affine.W, affine.b = self.params[f"W{i}"], self.params[f"b{i}"]
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x: Array, t: Array) -> Array:
        """Return the mean cross-entropy of a batch; t holds class indices or one-hot rows."""
        return self.lastLayer.forward(self.predict(x), t)

    def accuracy(self, x: Array, t: Array) -> float:
        """Return the share of samples, from 0 to 1, whose largest score is the target's."""
        xp = namespace(x)
        scores = self.predict(x)
        if t.shape not in (scores.shape, scores.shape[:1]):
            raise ValueError(
                f"targets of shape {tuple(t.shape)}; expected labels, {tuple(scores.shape[:1])}, "
                f"or one-hot rows, {tuple(scores.shape)}"
            )
        y = xp.argmax(scores, axis=1)
        t = xp.argmax(t, axis=1) if t.ndim != 1 else t
        right = int(xp.sum(xp.astype(y == t, xp.int32)))
        return right / int(x.shape[0])

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, np.ndarray]:
        """Return the gradients by central differences. This is slow; params must be NumPy arrays.

        Use it to check `gradient`.
        """
        grads = {}
        for name, p in self.params.items():

            def loss_at(moved: np.ndarray, name: str = name) -> float:
                kept, self.params[name] = self.params[name], moved
                try:
                    return float(self.loss(x, t))
                finally:
                    self.params[name] = kept

            grads[name] = numerical_gradient(loss_at, p)
        return grads

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradients by the layers' backward passes, last layer to first."""
        self.loss(x, t)
        dout = self.lastLayer.backward(1.0)
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        first, second = self.layers["Affine1"], self.layers["Affine2"]
        return {"W1": first.dW, "b1": first.db, "W2": second.dW, "b2": second.db}


def two_layer_net(
    input_size: int,
    hidden_size: int,
    output_size: int,
    weight_init_std: float = 0.01,
    seed: int = 0,
) -> Network:
    """Build the network of the book's chapter 4: Affine, Sigmoid, Affine, SoftmaxWithLoss.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
    weight_init_std : float
        Standard deviation of the initial weights; biases are 0.
    seed : int
        Seed of the initial weights.

    Returns
    -------
    Network

    Examples
    --------
    >>> network = two_layer_net(784, 50, 10)
    >>> {name: p.shape for name, p in network.params.items()}
    {'W1': (784, 50), 'b1': (50,), 'W2': (50, 10), 'b2': (10,)}
    """
    return mlp([input_size, hidden_size, output_size], "sigmoid", init=weight_init_std, seed=seed)
