"""Many networks of one form as one: each parameter gets a first axis of models.

One step then trains all of them, with batched products in place of products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xpnet.graph.autodiff import promise
from xpnet.graph.graph import Graph
from xpnet.layers.affine import Affine
from xpnet.layers.dropout import Dropout, DropoutPerModel
from xpnet.layers.normalization import BatchNorm
from xpnet.models.network import Network

__all__ = ["dropouts", "form_of", "masks", "stacked", "unstackable"]

# Per dropout layer, one number of each model: inputs of the stacked graph.
MASK = ("key", "limit", "scale")


def unstackable(network: Network) -> str:
    """Say why a network cannot be trained together with others of its form; "" if it can.

    Its gates must be Affine layers of parameters, activations, dropout and a loss of xpnet. Other
    gates would take the axis of models for one of their own.

    Examples
    --------
    >>> from xpnet import mlp
    >>> unstackable(mlp([4, 3, 2])), unstackable(mlp([4, 3, 2], batch_norm=True))
    ('', 'batch normalization cannot be stacked')
    """
    if network.convolves:
        return "convolutions cannot be stacked"
    if network.statistics:
        nodes = network.graph.nodes.values()
        normalizes = any(isinstance(node.gate, BatchNorm) for node in nodes)
        if normalizes:
            return "batch normalization cannot be stacked"
        return "its gates measure statistics"
    values = {"x", "t", "weight", "step"}
    for node in network.graph.nodes_topologically_sorted(network.scores, network.loss):
        gate, what = node.gate, f"its gate {node.name} takes no axis of models"
        if gate is None:
            if node.name not in values and node.name not in network.params:
                return f"it has an input {node.name}"
            continue
        source, *rest = node.inputs
        if source in network.params:
            return what
        if type(gate) is Affine:
            fits = len(rest) == 2 and all(name in network.params for name in rest)
            fits = fits and [np.ndim(network.params[name]) for name in rest] == [2, 1]
        elif type(gate) is Dropout:
            fits = rest in ([], ["step"])
        elif node.name == network.loss.name:
            fits = promise(gate, "per_model") is not None and not set(rest) & {*network.params}
        else:
            fits = bool(promise(gate, "elementwise")) and not rest
        if not fits:
            return what
    return ""


def dropouts(network: Network) -> dict[str, Dropout]:
    """Return the dropout gates by the names of their nodes."""
    nodes = network.graph.nodes_topologically_sorted(network.loss)
    return {node.name: node.gate for node in nodes if type(node.gate) is Dropout}


def form_of(network: Network) -> Any:
    """Return a value that is equal for two networks if they can be one stack.

    Such networks differ in their numbers alone: parameters, and ratios and seeds of dropout.
    """
    gates = []
    for node in network.graph.nodes_topologically_sorted(network.scores, network.loss):
        plain = type(node.gate) in (Affine, Dropout, type(None))
        gates.append((node.name, type(node.gate) if plain else node.gate, node.inputs))
    shapes = tuple((name, tuple(np.shape(p))) for name, p in network.params.items())
    return tuple(gates), shapes, network.scores.name, network.loss.name


def masks(networks: Sequence[Network], dtype: Any) -> dict[str, np.ndarray]:
    """Return the inputs of a stack that make each model's dropout, arrays of shape (K,)."""
    found: dict[str, np.ndarray] = {}
    for name in dropouts(networks[0]):
        gates = [dropouts(network)[name] for network in networks]
        found[f"{name}.key"] = np.array([gate.key for gate in gates], np.int32)
        found[f"{name}.limit"] = np.array([gate.limit for gate in gates], np.int32)
        found[f"{name}.scale"] = np.array([gate.scale for gate in gates], dtype)
    return found


def stacked(network: Network, params: Mapping[str, Any] | None = None) -> Network:
    """Return the network that computes K networks of this form at once.

    Parameters
    ----------
    network : Network
        For which `unstackable` has no reason.
    params : mapping of str to array, shape=(K, ...), optional
        By default the network's own, with a first axis of one model.

    Returns
    -------
    Network
        Its scores have shape=(K, N, outputs), its loss shape=(K,). x, t and weight may have a first
        axis of models, or all models share them. A dropout layer has the inputs that `masks`
        returns, and needs them only in training.

    Examples
    --------
    >>> from xpnet import mlp
    >>> two = stacked(mlp([4, 2]), {"W1": np.zeros((2, 4, 2)), "b1": np.zeros((2, 2))})
    >>> two.predict(two.params, np.ones((1, 4))).shape
    (2, 1, 2)
    """
    graph = Graph()
    drops = dropouts(network)
    for node in network.graph.nodes_topologically_sorted(network.scores, network.loss):
        if node.gate is None:
            graph.input(node.name, optional=node.optional)
        elif node.name in drops:
            extra = [graph.input(f"{node.name}.{each}", optional=True) for each in MASK]
            step = node.inputs[1] if len(node.inputs) > 1 else "step"
            if step not in graph.nodes:
                graph.input(step, optional=True)
            graph.apply(DropoutPerModel(), node.inputs[0], step, *extra, name=node.name)
        elif node.name == network.loss.name:
            gate = replace(node.gate, per_model=True)  # type: ignore[type-var]
            graph.apply(gate, *node.inputs, name=node.name)
        else:
            graph.apply(node.gate, *node.inputs, name=node.name)
    if params is None:
        params = {name: np.asarray(p)[None] for name, p in network.params.items()}
    return Network(
        graph, dict(params), graph.nodes[network.scores.name], graph.nodes[network.loss.name],
        outputs=network.outputs, input_shape=network.input_shape,
    )  # fmt: skip
