"""The network of the book's chapter 4, in the book's style and in xpnet's."""

from __future__ import annotations

from xpnet.arrays.ops import Array
from xpnet.book.arrays import as_targets
from xpnet.book.functions import cross_entropy_error, softmax
from xpnet.book.layers import Affine, Sigmoid
from xpnet.book.network import LayeredNetwork, drawn, weights_of
from xpnet.models.mlp import mlp
from xpnet.models.network import Network

__all__ = ["TwoLayerNet", "two_layer_net"]


class TwoLayerNet(LayeredNetwork):
    """The book's first network: Affine, Sigmoid, Affine, softmax.

    `predict` returns probabilities, as in the book; the targets may be labels too. The book writes
    its gradient out line by line, with the names ``da1`` and ``dz1`` exchanged: its ``da1`` is the
    gradient of z1, the output of the sigmoid, and its ``dz1`` that of a1, the input.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
    weight_init_std : float
        Standard deviation of the initial weights, from `numpy.random.randn`; biases are 0.

    Attributes
    ----------
    params : dict of str to array
        W1, b1, W2, b2.

    Examples
    --------
    >>> import numpy as np
    >>> network = TwoLayerNet(784, 100, 10)
    >>> network.predict(np.zeros((1, 784))).round(1).tolist()
    [[0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]]
    """

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, weight_init_std: float = 0.01
    ) -> None:
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "output_size": output_size}
        params = drawn(sizes, [weight_init_std] * 2)
        first, second = Affine(params["W1"], params["b1"]), Affine(params["W2"], params["b2"])
        super().__init__(
            params,
            {"Affine1": first, "Sigmoid1": Sigmoid(), "Affine2": second},
            weights_of({1: first, 2: second}),
        )

    def predict(self, x: Array, train_flg: bool = False) -> Array:
        """Return the probabilities of x, shape=(N, output_size)."""
        return softmax(self._scores(x, train_flg))

    def loss(self, x: Array, t: Array, train_flg: bool = False) -> Array:
        """Return the mean cross-entropy of the probabilities; see `LayeredNetwork.loss`."""
        y = self.predict(x, **self._mode(train_flg))
        return cross_entropy_error(y, as_targets(t, y, "loss"))

    def _loss_in_training(self, x: Array, t: Array) -> Array:
        # As in the book, where `gradient` computes the scores by itself.
        return self.last_layer.forward(self._scores(x, True), t)


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
