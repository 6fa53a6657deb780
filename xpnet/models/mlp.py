"""The multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xpnet.errors import UsageError, whole
from xpnet.gates.protocol import Gate
from xpnet.models.building import Building, listed_of
from xpnet.models.initializers import check_memory
from xpnet.models.network import Network

__all__ = ["mlp"]


def mlp(
    sizes: Sequence[int],
    activation: str | Sequence[str] = "relu",
    *,
    loss: str | Gate | tuple[str, Mapping[str, Any]] = "softmax",
    batch_norm: bool = False,
    dropout: float = 0.0,
    init: str | float = "auto",
    seed: int = 0,
    params: Mapping[str, np.ndarray] | None = None,
) -> Network:
    """A multi-layer perceptron: Affine, activation, ..., Affine, loss.

    Parameters
    ----------
    sizes : sequence of int
        Sizes of input, hidden layers and output: [784, 50, 10].
    activation : str, or sequence of str
        One of sigmoid, tanh, relu, leaky_relu and identity, for all hidden layers. Or a list with
        one name per hidden layer; one more name adds an activation to the output.
    loss : str, gate, or (str, mapping)
        A name of `xpnet.losses.LOSSES`: softmax, sigmoid, hinge, squared, absolute, huber,
        quantile or poisson; or a gate, such as ``QuantileLoss(0.9)``; or a name with the gate's
        settings, ``("quantile", {"quantile": 0.9})``. A file keeps a gate of xpnet with its
        settings. A network with a gate of your own counts as built by hand.
    batch_norm : bool
        Normalize the inputs of each hidden activation over the batch, see
        `xpnet.layers.BatchNorm`. gamma1, beta1, ... then take the place of biases, and mean1,
        var1, ... are the network's statistics.
    dropout : float
        Ratio of the dropout after each hidden activation.
    init : str or float
        auto, he, xavier, or a standard deviation.
    seed : int
        Random seed for the weights and the dropout masks.
    params : mapping of str to array, optional
        Initial weights and biases, W1, b1, W2, ...; without them, `mlp` draws new ones.

    Returns
    -------
    Network

    Raises
    ------
    ValueError
        There are too few sizes, a size is not positive, a name or a setting is unknown or
        impossible, or the number of activations is wrong; or one of `params` is missing or has a
        wrong shape.

    Examples
    --------
    >>> network = mlp([784, 50, 10], "sigmoid")
    >>> network.params["W1"].shape
    (784, 50)
    """
    sizes = [whole("each of sizes", n, 1) for n in listed_of("sizes", sizes)]
    if len(sizes) < 2:
        raise UsageError(f"sizes is {sizes}; expected at least two whole numbers")
    layers = len(sizes) - 1
    one = isinstance(activation, str)
    names = [activation] * (layers - 1) if one else listed_of("activation", activation)
    if len(names) == layers - 1:
        names.append("identity")
    if len(names) != layers:
        raise UsageError(
            f"{len(names)} activations for {layers} layers; expected {layers - 1} (hidden layers) "
            f"or {layers} (with the output)"
        )
    if params is None:
        check_memory(sizes)
    made = Building(loss, dropout, init, seed, params)
    for i, (name, fan_in, fan_out) in enumerate(zip(names, sizes, sizes[1:], strict=False), 1):
        made.affine(fan_in, fan_out, name, batch_norm and i < layers)
        if i < layers:
            made.drop()
    arguments: dict[str, Any] = {"sizes": sizes, "activation": names}
    if batch_norm:  # files of networks without it do not mention it
        arguments["batch_norm"] = True
    return made.network("mlp", arguments, (sizes[0],), sizes[-1])
