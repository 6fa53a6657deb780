"""The deep convolution network of the book's chapter 8."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from xpnet.arrays.ops import Array
from xpnet.book.layers import Affine, Convolution, Dropout, Pooling, Relu
from xpnet.book.network import (
    LayeredNetwork,
    Link,
    conv_settings,
    drawn,
    image_sizes,
    size_after,
    weights_of,
)

__all__ = ["DeepConvNet"]

_Conv = Mapping[str, int]


def _conv(filters: int, pad: int = 1) -> _Conv:
    return {"filter_num": filters, "filter_size": 3, "pad": pad, "stride": 1}


_16, _32, _32_WIDE, _64 = _conv(16), _conv(32), _conv(32, pad=2), _conv(64)


class DeepConvNet(LayeredNetwork):
    """Three blocks of (Convolution, ReLU) x 2 and a max pool; Affine, ReLU, Affine.

    Dropout of 0.5 stands after the ReLU of the hidden layer, and after the last Affine, as in the
    book: half of the scores are 0 in training.

    Parameters
    ----------
    input_dim : (int, int, int)
        Channels, rows, columns of the images.
    conv_param_1, ..., conv_param_6 : mapping of str to int
        filter_num, filter_size, pad and stride of each convolution.
    hidden_size, output_size : int

    Attributes
    ----------
    params : dict of str to array
        W1, b1, ... of the six convolutions; W7, b7, W8, b8.
    layers : list of layer
        The 20 layers; those with parameters are 0, 2, 5, 7, 10, 12, 15 and 18.
    last_layer : SoftmaxWithLoss

    Notes
    -----
    The initial weights have the standard deviation √(2 / fan_in) of He et al., "Delving deep into
    rectifiers", 2015; biases are 0. The book computes fan_in for its default sizes only; here it
    follows the sizes. `loss` is the one in training, with dropout, as in the book.

    Examples
    --------
    >>> network = DeepConvNet()
    >>> len(network.layers), network.params["W7"].shape
    (20, (1024, 50))
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        conv_param_1: _Conv = _16,
        conv_param_2: _Conv = _16,
        conv_param_3: _Conv = _32,
        conv_param_4: _Conv = _32_WIDE,
        conv_param_5: _Conv = _64,
        conv_param_6: _Conv = _64,
        hidden_size: int = 50,
        output_size: int = 10,
    ) -> None:
        settings = (
            conv_param_1, conv_param_2, conv_param_3, conv_param_4, conv_param_5, conv_param_6
        )  # fmt: skip
        channels, size = image_sizes(input_dim)
        params: dict[str, Any] = {}
        layers: list[Any] = []
        links: dict[str, Link] = {}
        for i, conv in enumerate(settings, 1):
            filters, kernel, pad, stride = conv_settings(f"conv_param_{i}", conv)
            std = math.sqrt(2.0 / (channels * kernel * kernel))
            W = params[f"W{i}"] = std * np.random.randn(filters, channels, kernel, kernel)
            b = params[f"b{i}"] = np.zeros(filters)
            layer = Convolution(W, b, stride, pad)
            layers += [layer, Relu()]
            links |= weights_of({i: layer})
            channels = filters
            size = size_after(size, f"conv_param_{i}", kernel, pad, stride)
            if i % 2 == 0:
                layers.append(Pooling(2, 2, 2))
                size = size_after(size, f"the pool after conv_param_{i}", 2, 0, 2)
        features = channels * size[0] * size[1]
        sizes = {"pool": features, "hidden_size": hidden_size, "output_size": output_size}
        params |= drawn(sizes, [math.sqrt(2.0 / n) for n in (features, hidden_size)], first=7)
        for i, others in ((7, [Relu(), Dropout(0.5)]), (8, [Dropout(0.5)])):
            affine = Affine(params[f"W{i}"], params[f"b{i}"])
            layers += [affine, *others]
            links |= weights_of({i: affine})
        super().__init__(params, layers, links)

    def loss(self, x: Array, t: Array, train_flg: bool = True) -> Array:
        """See `LayeredNetwork.loss`; by default in training."""
        return super().loss(x, t, train_flg)

    def _loss_in_training(self, x: Array, t: Array) -> Array:
        return self.loss(x, t)

    def accuracy(self, x: Array, t: Array, batch_size: int | None = 100) -> float:
        """See `LayeredNetwork.accuracy`; the columns of many images at once would be large."""
        return super().accuracy(x, t, batch_size)
