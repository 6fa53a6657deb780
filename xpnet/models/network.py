"""Define a network: a graph, its initial parameters, and the nodes of its scores and loss."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np

from xpnet.arrays.ops import Array
from xpnet.errors import counted, listed, shown
from xpnet.graph.graph import Graph, Tape
from xpnet.graph.node import Node
from xpnet.layers.affine import Affine
from xpnet.layers.convolution import Convolution
from xpnet.layers.dropout import Dropout
from xpnet.layers.pooling import AveragePool, Flatten, GlobalAveragePool, MaxPool
from xpnet.models.summary import Summary, activations_of, layers_of, loss_in_words, sizes_of

__all__ = ["Network"]


# The most layers whose sizes stand in a line.
MOST_SIZES = 12
# What stands between a hidden layer's output and the next layer.
BETWEEN = (Dropout, MaxPool, AveragePool, GlobalAveragePool, Flatten)


@dataclass(frozen=True, repr=False)
class Network:
    """A graph with inputs ``x``, ``t`` (optional: ``weight``, ``step``) and named parameters.

    Attributes
    ----------
    graph : Graph
    params : dict of str to numpy array, float64
        Initial values on the host, in layer order: W1, b1, W2, ... xpnet never writes to them.
    scores, loss : Node
        The network's output, and the 0-d loss.
    outputs : int, optional
        The scores' last axis; a `xpnet.Trainer` needs it.
    input_shape : tuple of int, optional
        The shape in which one sample enters the network; xpnet reshapes samples to it. If None,
        samples enter as they are.
    statistics : dict of str to numpy array, float64
        What gates learn beside gradients, such as running means: inputs of the graph, with their
        first values. A gate that takes some has a method ``observed(cache)``, which returns their
        new values in the order of its inputs; a training step stores these. Everywhere else
        parameters and statistics are one flat dict.
    builder, arguments : str, dict
        The function of `BUILDERS` that makes this network, and its arguments, plain values that a
        file keeps; empty for a graph that you built by hand.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.functions import affine, softmax_with_loss
    >>> graph = Graph()
    >>> x, t, W, b = graph.inputs("x t W b")
    >>> scores = affine(x, W, b)
    >>> params = {"W": np.zeros((4, 2)), "b": np.zeros(2)}
    >>> network = Network(graph, params, scores, softmax_with_loss(scores, t), outputs=2)
    >>> network.predict(params, np.ones((1, 4))).tolist()
    [[0.0, 0.0]]
    """

    graph: Graph
    params: dict[str, np.ndarray]
    scores: Node
    loss: Node
    outputs: int | None = None
    input_shape: tuple[int, ...] | None = None
    statistics: dict[str, np.ndarray] = field(default_factory=dict)
    builder: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.statistics:
            if name in self.params or name not in self.graph.nodes:
                raise ValueError(
                    f"statistics has {shown(name)}; expected an input that is no parameter"
                )
            users = [n.name for n in self.graph.nodes.values() if name in n.inputs]
            if len(users) > 1:
                raise ValueError(
                    f"{listed(users)} measure {shown(name)}; expected statistics of their own for "
                    "each gate"
                )

    def __repr__(self) -> str:
        return f"<Network: {self.in_words}>"

    @property
    def in_words(self) -> str:
        """Return what it is in a few words: 64 - 50 - 10, relu, softmax loss, 3,760 parameters.

        Of convolution networks: 1x28x28 - conv 30 - pool - 100 - 10, relu, ...
        """
        parts = [f"{loss_in_words(self.loss_gate)} loss", counted(self.size, "parameter")]
        sizes = sizes_of(self.arguments)
        if not sizes:
            gates = sum(node.gate is not None for node in self.graph.nodes.values())
            outputs = [] if self.outputs is None else [counted(self.outputs, "output")]
            return ", ".join([counted(gates, "gate"), *outputs, *parts])
        hidden, dropout = listed(activations_of(self.arguments)), self.arguments.get("dropout")
        if len(sizes) > MOST_SIZES:
            sizes[5:-2] = [f"... ({len(sizes)} in all)"]
        return ", ".join(
            [
                " - ".join(sizes),
                *([hidden] if hidden else []),
                *(["batch norm"] if self.arguments.get("batch_norm") else []),
                *([f"dropout {dropout:g}"] if dropout else []),
                *parts,
            ]
        )

    @property
    def size(self) -> int:
        """Return the number of its trained numbers."""
        return sum(math.prod(np.shape(value)) for value in self.params.values())

    def summary(self) -> Summary:
        """Return a table of the layers, their output shapes and parameters.

        Print it; a notebook shows it as HTML. N stands for the samples of a batch. A network that
        you built by hand has one line for each of its gates. To find the shapes, the method runs
        batches of two and three zeros.

        Examples
        --------
        >>> from xpnet import mlp
        >>> network = mlp([784, 512, 10])
        >>> network.summary().parameters
        407050
        """
        layers = layers_of(
            self.graph, self.scores, self.loss, self.params, self.statistics, self.input_shape
        )
        facts = [("parameters", f"{self.size:,}")]
        if self.statistics:
            count = sum(math.prod(np.shape(value)) for value in self.statistics.values())
            facts.append(("statistics", f"{count:,}, not trained but measured"))
        if any(layer.output is None for layer in layers):
            how = "pass input_shape=..., the shape of one sample, to xpnet.Network"
            why = how if self.input_shape is None else "a gate refuses a batch of zeros"
            facts.append(("shapes", f"unknown: {why}"))
        facts.append(("loss", loss_in_words(self.loss_gate)))
        return Summary(layers, self.size, tuple(facts))

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Return the initial parameters and statistics in one dict."""
        return {**self.params, **self.statistics}

    @cached_property
    def _observers(self) -> list[tuple[str, Any, list[str]]]:
        """Return (node, gate, names of its statistics) for each gate that takes statistics."""
        found = []
        for node in self.graph.nodes_topologically_sorted(self.loss):
            if names := [name for name in node.inputs if name in self.statistics]:
                found.append((node.name, node.gate, names))
        return found

    def observed(self, tape: Tape) -> dict[str, Array]:
        """Return the new values of the statistics after a forward pass of the loss."""
        found: dict[str, Array] = {}
        for node, gate, names in self._observers:
            found.update(zip(names, gate.observed(tape.caches[node]), strict=True))
        return found

    @property
    def form(self) -> Hashable:
        """A value that is equal for two networks if they compute the same function.

        It holds the builder and its arguments, or the graph itself if you built it by hand.
        """
        arguments = json.dumps(self.arguments, sort_keys=True)
        built = (self.builder, arguments) if self.builder else self.graph
        return type(self), built, self.scores.name, self.loss.name, tuple(self.params)

    @cached_property
    def gates(self) -> list[str]:
        """List what the network computes, gate by gate: ``ReLU1 = ReLU()(Affine1)``.

        A gate that is no dataclass is known by its class alone.
        """
        nodes = self.graph.nodes_topologically_sorted(self.scores, self.loss)
        return [
            f"{node.name} = {_described(node.gate)}({', '.join(node.inputs)})"
            for node in nodes
            if node.gate is not None
        ]

    @property
    def loss_gate(self) -> Any:
        """Return the gate of the loss; it also reads scores, see `xpnet.losses`."""
        return self.loss.gate

    def predictions(self, scores: Array) -> Array:
        """Return the values of a regression that the scores stand for; mostly the scores."""
        gate = self.loss_gate
        return gate.predictions(scores) if hasattr(gate, "predictions") else scores

    @property
    def hidden(self) -> list[Node]:
        """Return the nodes of the hidden layers' outputs, first to last.

        An output is what the activation gives, before dropout and before a pool that follows.
        """
        nodes = []
        for node in self.graph.nodes_topologically_sorted(self.scores):
            if isinstance(node.gate, Affine | Convolution):
                source = self.graph.nodes[node.inputs[0]]
                while isinstance(source.gate, BETWEEN):
                    source = self.graph.nodes[source.inputs[0]]
                if source.gate is not None:
                    nodes.append(source)
        return nodes

    @property
    def convolves(self) -> bool:
        """Whether one of its layers is a convolution."""
        return any(isinstance(node.gate, Convolution) for node in self.graph.nodes.values())

    @property
    def first_weights(self) -> str | None:
        """Return the name of the first layer's weights, or filters; None if no parameter is one."""
        for node in self.graph.nodes_topologically_sorted(self.scores):
            if isinstance(node.gate, Affine | Convolution):
                return node.inputs[1] if node.inputs[1] in self.params else None
        return None

    def predict(self, params: Mapping[str, Array], x: Array) -> Array:
        """Compute the scores of a batch in inference mode, shape=(N, outputs)."""
        return self.graph.forward({**params, "x": x}, self.scores)[0]

    def gradient(
        self, params: Mapping[str, Array], x: Array, t: Array, **inputs: Array
    ) -> tuple[Array, dict[str, Array]]:
        """Compute the loss of a batch, and its gradient with respect to each parameter.

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


def _described(gate: Any) -> str:
    """Name a gate's class and settings, without the memory addresses that a repr may show."""
    settings = []
    if is_dataclass(gate):
        values = ((setting.name, getattr(gate, setting.name)) for setting in fields(gate))
        plain = (str, int, float, tuple, slice, type(None))
        settings = [f"{name}={value!r}" for name, value in values if isinstance(value, plain)]
    return f"{type(gate).__name__}({', '.join(settings)})"
