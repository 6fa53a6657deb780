"""Networks: a graph, its initial parameters, and which of its nodes are scores and loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpnet.gates import Gate
from xpnet.graph import Graph
from xpnet.init import initializer
from xpnet.layers import Affine, Dropout, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from xpnet.losses import HingeLoss, SigmoidWithLoss, SoftmaxWithLoss, SquaredLoss
from xpnet.node import Node

__all__ = ["ACTIVATIONS", "LOSSES", "Network", "mlp", "two_layer_net"]

Array = Any

ACTIVATIONS: dict[str, type] = {
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "identity": Identity,
}
LOSSES: dict[str, type] = {
    "softmax": SoftmaxWithLoss,
    "squared": SquaredLoss,
    "sigmoid": SigmoidWithLoss,
    "hinge": HingeLoss,
}


@dataclass(frozen=True)
class Network:
    """A graph with inputs ``x``, ``t`` (optional: ``weight``, ``step``) and named parameters.

    Attributes
    ----------
    graph : Graph
    params : dict of str to numpy array, float64
        Initial values on the host, in layer order: W1, b1, W2, ... Never written to.
    scores, loss : Node
        The network's output, and the 0-d loss.
    spec : dict
        Arguments of `mlp` that build it anew, as stored in a checkpoint; empty for a graph
        built by hand.
    """

    graph: Graph = field(repr=False)
    params: dict[str, np.ndarray] = field(repr=False)
    scores: Node = field(repr=False)
    loss: Node = field(repr=False)
    spec: dict[str, Any] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """The number of outputs: the last parameter's last axis."""
        return int(next(reversed(self.params.values())).shape[-1])

    @property
    def loss_gate(self) -> Any:
        """The loss, which also knows how to read scores: decide(), probabilities()."""
        return self.loss.gate

    @property
    def hidden(self) -> list[Node]:
        """The outputs of the hidden layers, first to last, before dropout."""
        nodes = []
        for node in self.graph.nodes_topologically_sorted(self.scores):
            if isinstance(node.gate, Affine):
                source = self.graph.nodes[node.inputs[0]]
                if isinstance(source.gate, Dropout):
                    source = self.graph.nodes[source.inputs[0]]
                if source.gate is not None:
                    nodes.append(source)
        return nodes

    def predict(self, params: Mapping[str, Array], x: Array) -> Array:
        """Scores of a batch, in inference mode; shape=(N, outputs)."""
        return self.graph.forward({**params, "x": x}, self.scores)[0]

    def gradient(
        self, params: Mapping[str, Array], x: Array, t: Array, **inputs: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The loss of a batch and its gradients, one per parameter.

        Parameters
        ----------
        params : mapping of str to array
        x, t : array
            A batch and its targets, as the loss takes them.
        **inputs : array
            ``weight``, one per sample; ``step``, which turns dropout on.

        Returns
        -------
        loss : 0-d array
        grads : dict of str to array, in the order of `params`
        """
        loss, tape = self.graph.forward({**params, "x": x, "t": t, **inputs}, self.loss)
        return loss, self.graph.backward(tape, self.params)


def mlp(
    sizes: Sequence[int],
    activation: str | Sequence[str] = "relu",
    *,
    loss: str | Gate = "softmax",
    dropout: float = 0.0,
    init: str | float = "auto",
    seed: int = 0,
) -> Network:
    """A multi-layer perceptron: Affine, activation, ..., Affine, loss.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden layers, outputs: [784, 50, 10].
    activation : str, or one per layer
        Of every hidden layer; or a list of as many as there are hidden layers; or one more,
        for the output too, which has none otherwise. Each of sigmoid, tanh, relu,
        leaky_relu, identity.
    loss : str or gate
        softmax, squared, sigmoid, hinge, or a gate of the same signature.
    dropout : float
        Ratio after each hidden activation.
    init : str or float
        auto, he, xavier, or a standard deviation.
    seed : int
        Of the weights and of the dropout masks.

    Returns
    -------
    Network

    Raises
    ------
    ValueError
        Too few or non-positive sizes, an unknown name, a wrong number of activations.
    """
    sizes = [int(n) for n in sizes]
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes is {sizes}; expected at least two positive numbers")
    layers = len(sizes) - 1
    names = [activation] * (layers - 1) if isinstance(activation, str) else list(activation)
    if len(names) == layers - 1:
        names.append("identity")
    if len(names) != layers:
        raise ValueError(
            f"{len(names)} activations for {layers} layers; expected {layers - 1} (hidden layers) "
            f"or {layers} (with the output)"
        )
    loss_gate = _lookup("loss", loss, LOSSES)() if isinstance(loss, str) else loss

    seed, dropout = int(seed), float(dropout)  # plain numbers: they are stored as JSON
    init = init if isinstance(init, str) else float(init)
    rng = np.random.default_rng(seed)
    graph, params = Graph(), {}
    node = graph.input("x")
    t = graph.input("t")
    weight = graph.input("weight", optional=True)
    step = graph.input("step", optional=True)
    for i, (name, fan_in, fan_out) in enumerate(zip(names, sizes, sizes[1:], strict=False), 1):
        gate = _lookup("activation", name, ACTIVATIONS)()
        W, b = graph.inputs(f"W{i} b{i}")
        params[f"W{i}"] = initializer(init, name)(rng, fan_in, fan_out)
        params[f"b{i}"] = np.zeros(fan_out)
        node = graph.apply(Affine(), node, W, b)
        if name != "identity":
            node = graph.apply(gate, node)
        if dropout and i < layers:
            node = graph.apply(Dropout(dropout, seed, i), node, step)
    spec = {"sizes": sizes, "activation": names, "dropout": dropout, "init": init, "seed": seed}
    return Network(
        graph,
        params,
        scores=node,
        loss=graph.apply(loss_gate, node, t, weight),
        spec={**spec, "loss": loss} if isinstance(loss, str) else {},
    )


def two_layer_net(
    input_size: int,
    hidden_size: int,
    output_size: int,
    weight_init_std: float = 0.01,
    seed: int = 0,
) -> Network:
    """The book's TwoLayerNet: Affine, Sigmoid, Affine, SoftmaxWithLoss, weights N(0, 0.01²)."""
    return mlp([input_size, hidden_size, output_size], "sigmoid", init=weight_init_std, seed=seed)


def _lookup(what: str, name: str, table: dict[str, type]) -> type:
    if name not in table:
        raise ValueError(f"{what} is {name!r}; expected one of {', '.join(table)}")
    return table[name]
