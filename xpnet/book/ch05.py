"""The network of the book's chapter 5, of layers."""

from __future__ import annotations

from xpnet.book.layers import Affine, Relu, SoftmaxWithLoss
from xpnet.book.network import LayeredNetwork, drawn, weights_of

__all__ = ["TwoLayerNet"]


class TwoLayerNet(LayeredNetwork):
    """Affine, ReLU, Affine, SoftmaxWithLoss.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
    weight_init_std : float
        Standard deviation of the initial weights, from `numpy.random.randn`; biases are 0.

    Attributes
    ----------
    params : dict of str to array
        W1, b1, W2, b2. To train the network, write ``params[name] -= ...``, or put another array,
        of any library, in its place.
    layers : dict of str to layer
        Affine1, Relu1, Affine2.
    lastLayer : SoftmaxWithLoss
        The book's later networks call it last_layer; here both names work.

    Examples
    --------
    >>> import numpy as np
    >>> network = TwoLayerNet(input_size=4, hidden_size=5, output_size=3)
    >>> {name: g.shape for name, g in network.gradient(np.ones((2, 4)), np.array([0, 2])).items()}
    {'W1': (4, 5), 'b1': (5,), 'W2': (5, 3), 'b2': (3,)}
    """

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, weight_init_std: float = 0.01
    ) -> None:
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "output_size": output_size}
        params = drawn(sizes, [weight_init_std] * 2)
        first, second = Affine(params["W1"], params["b1"]), Affine(params["W2"], params["b2"])
        super().__init__(
            params,
            {"Affine1": first, "Relu1": Relu(), "Affine2": second},
            weights_of({1: first, 2: second}),
        )

    @property
    def lastLayer(self) -> SoftmaxWithLoss:  # noqa: N802
        """The book's name in this chapter for `last_layer`."""
        return self.last_layer

    @lastLayer.setter
    def lastLayer(self, layer: SoftmaxWithLoss) -> None:  # noqa: N802
        self.last_layer = layer
