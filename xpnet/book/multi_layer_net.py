"""The book's network of any number of layers."""

from __future__ import annotations

from collections.abc import Sequence

from xpnet.book.multi_layer_net_extend import MultiLayerNetExtend

__all__ = ["MultiLayerNet"]


class MultiLayerNet(MultiLayerNetExtend):
    """Affine and activation for each hidden layer; Affine, SoftmaxWithLoss.

    It is `MultiLayerNetExtend` without dropout and batch normalization; see there for parameters
    and attributes.

    Examples
    --------
    >>> network = MultiLayerNet(784, [100, 100], 10, weight_decay_lambda=0.1)
    >>> [*network.layers]
    ['Affine1', 'Activation_function1', 'Affine2', 'Activation_function2', 'Affine3']
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0,
    ) -> None:
        super().__init__(
            input_size, hidden_size_list, output_size, activation, weight_init_std,
            weight_decay_lambda,
        )  # fmt: skip
