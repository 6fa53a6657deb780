"""The convolution network of the book's chapter 7."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from xpnet.arrays.ops import Array
from xpnet.book.layers import Affine, Convolution, Pooling, Relu
from xpnet.book.network import (
    LayeredNetwork,
    conv_settings,
    drawn,
    image_sizes,
    size_after,
    weights_of,
)
from xpnet.errors import real

__all__ = ["SimpleConvNet"]

_CONV = {"filter_num": 30, "filter_size": 5, "pad": 0, "stride": 1}


class SimpleConvNet(LayeredNetwork):
    """Convolution, ReLU, max pool, Affine, ReLU, Affine, SoftmaxWithLoss.

    Parameters
    ----------
    input_dim : (int, int, int)
        Channels, rows, columns of the images.
    conv_param : mapping of str to int
        filter_num, filter_size, pad and stride.
    hidden_size, output_size : int
    weight_init_std : float
        Standard deviation of the initial weights, from `numpy.random.randn`; biases are 0.

    Attributes
    ----------
    params : dict of str to array
        W1, b1 of the filters; W2, b2, W3, b3.
    layers : dict of str to layer
        Conv1, Relu1, Pool1, Affine1, Relu2, Affine2.
    last_layer : SoftmaxWithLoss

    Notes
    -----
    The book's own takes square images and needs an even number of rows before the pool; this one
    takes any. The book's `accuracy` leaves out the last samples if `batch_size` does not divide
    their number, but counts them; here they are predicted too.

    Examples
    --------
    >>> network = SimpleConvNet(input_dim=(1, 10, 10), hidden_size=10)
    >>> network.params["W1"].shape, network.params["W2"].shape
    ((30, 1, 5, 5), (270, 10))
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        conv_param: Mapping[str, int] = _CONV,
        hidden_size: int = 100,
        output_size: int = 10,
        weight_init_std: float = 0.01,
    ) -> None:
        channels, size = image_sizes(input_dim)
        filters, kernel, pad, stride = conv_settings("conv_param", conv_param)
        size = size_after(size, "conv_param", kernel, pad, stride)
        rows, columns = size_after(size, "Pool1", 2, 0, 2)
        params = {
            "W1": real("weight_init_std", weight_init_std, -math.inf)
            * np.random.randn(filters, channels, kernel, kernel),
            "b1": np.zeros(filters),
        }
        sizes = {"Pool1": filters * rows * columns, "hidden_size": hidden_size}
        sizes["output_size"] = output_size
        params |= drawn(sizes, [weight_init_std] * 2, first=2)
        conv = Convolution(params["W1"], params["b1"], stride, pad)
        first, second = Affine(params["W2"], params["b2"]), Affine(params["W3"], params["b3"])
        super().__init__(
            params,
            {"Conv1": conv, "Relu1": Relu(), "Pool1": Pooling(2, 2, 2),
             "Affine1": first, "Relu2": Relu(), "Affine2": second},
            weights_of({1: conv, 2: first, 3: second}),
        )  # fmt: skip

    def accuracy(self, x: Array, t: Array, batch_size: int | None = 100) -> float:
        """See `LayeredNetwork.accuracy`; the columns of many images at once would be large."""
        return super().accuracy(x, t, batch_size)
