"""The book's network of any number of layers, with dropout and batch normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.book.layers import Affine, BatchNormalization, Dropout, Relu, Sigmoid
from xpnet.book.network import LayeredNetwork, Link, drawn, weights_of
from xpnet.errors import UsageError, real, shown

__all__ = ["MultiLayerNetExtend"]

_ACTIVATIONS = {"sigmoid": Sigmoid, "relu": Relu}
_GAINS = {"relu": 2.0, "he": 2.0, "sigmoid": 1.0, "xavier": 1.0}


class MultiLayerNetExtend(LayeredNetwork):
    """Affine, BatchNorm, activation, Dropout for each hidden layer; Affine, SoftmaxWithLoss.

    Parameters
    ----------
    input_size : int
    hidden_size_list : sequence of int
    output_size : int
    activation : {"relu", "sigmoid"}
    weight_init_std : float or str
        Standard deviation of the initial weights, from `numpy.random.randn`; biases are 0. "relu"
        or "he": √(2 / fan_in). "sigmoid" or "xavier": √(1 / fan_in).
    weight_decay_lambda : float
        λ of the penalty λ/2 Σ W², of weights only.
    use_dropout : bool
    dropout_ration : float
        The share of values to drop; its name is the book's.
    use_batchnorm : bool

    Attributes
    ----------
    params : dict of str to array
        W1, b1, W2, b2, ...; gamma1, beta1, ...
    layers : dict of str to layer
        Affine1, BatchNorm1, Activation_function1, Dropout1, Affine2, ...
    last_layer : SoftmaxWithLoss

    Raises
    ------
    UsageError
        A setting is unknown.

    Notes
    -----
    `loss` is without dropout, by running statistics, unless you write ``train_flg=True``, as
    `gradient` and `numerical_gradient` do. `gradient` normalizes by the statistics of the batch,
    which it adds to the running ones.

    Examples
    --------
    >>> network = MultiLayerNetExtend(4, [5, 5], 3, use_batchnorm=True, use_dropout=True)
    >>> [*network.layers][:4]
    ['Affine1', 'BatchNorm1', 'Activation_function1', 'Dropout1']
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
    ) -> None:
        if activation not in _ACTIVATIONS:
            raise UsageError(f"activation is {shown(activation)}; expected 'relu' or 'sigmoid'")
        if not np.iterable(hidden_size_list):
            raise UsageError(
                f"hidden_size_list is {shown(hidden_size_list)}; expected a list of sizes: "
                f"[{shown(hidden_size_list)}]"
            )
        self.input_size, self.output_size = input_size, output_size
        self.hidden_size_list = [*hidden_size_list]
        self.hidden_layer_num = len(self.hidden_size_list)
        self.use_dropout, self.use_batchnorm = use_dropout, use_batchnorm
        sizes = [input_size, *self.hidden_size_list, output_size]
        names = ["input_size", *(f"size of layer {i}" for i in range(1, len(sizes) - 1))]
        params = drawn(
            dict(zip([*names, "output_size"], sizes, strict=True)),
            [_std(weight_init_std, fan_in) for fan_in in sizes[:-1]],
        )
        layers: dict[str, Any] = {}
        links: dict[str, Link] = {}
        for i in range(1, len(sizes)):
            affine = layers[f"Affine{i}"] = Affine(params[f"W{i}"], params[f"b{i}"])
            links |= weights_of({i: affine})
            if i == len(sizes) - 1:
                break
            if use_batchnorm:
                gamma = params[f"gamma{i}"] = np.ones(sizes[i])
                beta = params[f"beta{i}"] = np.zeros(sizes[i])
                norm = layers[f"BatchNorm{i}"] = BatchNormalization(gamma, beta)
                links |= {f"gamma{i}": (norm, "gamma"), f"beta{i}": (norm, "beta")}
            layers[f"Activation_function{i}"] = _ACTIVATIONS[activation]()
            if use_dropout:
                layers[f"Dropout{i}"] = Dropout(dropout_ration)
        super().__init__(params, layers, links, weight_decay_lambda)


def _std(weight_init_std: float | str, fan_in: int) -> float:
    if not isinstance(weight_init_std, str):
        return real("weight_init_std", weight_init_std, 0.0)
    if weight_init_std.lower() not in _GAINS:
        raise UsageError(
            f"weight_init_std is {shown(weight_init_std)}; expected a number, or one of "
            f"{', '.join(map(repr, _GAINS))}"
        )
    return math.sqrt(_GAINS[weight_init_std.lower()] / max(fan_in, 1))
