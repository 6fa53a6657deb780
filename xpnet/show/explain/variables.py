"""Find the variables of a run: the name of each in code and in theory, and its formula."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from xpnet.arrays.ops import Array, is_real
from xpnet.graph.node import Node, Trace
from xpnet.layers.activations import ACTIVATIONS, Sigmoid
from xpnet.layers.affine import Affine
from xpnet.layers.convolution import Convolution
from xpnet.layers.dropout import Dropout
from xpnet.layers.normalization import BatchNorm
from xpnet.layers.pooling import AveragePool, GlobalAveragePool, MaxPool
from xpnet.losses import PoissonLoss, SigmoidWithLoss, SoftmaxWithLoss
from xpnet.models.network import Network
from xpnet.show.explain.formulas import gradient_of, value_of
from xpnet.show.notes import note_of

__all__ = ["Variable", "variables_of"]

ROLES = {"x": "the batch", "t": "targets", "weight": "of each sample", "step": "the training step"}
# What stands between two layers' sums, by the letter of its output.
LETTERS: dict[str, tuple[type, ...]] = {
    "n": (BatchNorm,),
    "z": tuple(ACTIVATIONS.values()),
    "p": (MaxPool, AveragePool, GlobalAveragePool),
    "h": (Dropout,),
}
LAYERS = (Affine, Convolution)


class Variable(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    name, theory : str
        The name in code (a1, z1, dy, grads['W1']) and in theory (x₁, y₁, ∂E/∂x₂). In theory, x is
        the input of a layer's units and y their output. n, p and h are normalized, pooled and
        dropped.
    shape : tuple of int
    formula : str
        The formula, with the names in code.
    value : array
        The value in this run.
    """

    name: str
    theory: str
    shape: tuple[int, ...]
    formula: str
    value: Array


def variables_of(
    network: Network, nodes: list[Node], trace: Trace, params: Mapping[str, Array]
) -> list[Variable]:
    """List what the forward pass computes, then all gradients except those of the data.

    Parameters
    ----------
    network : Network
    nodes : list of Node
        In topological order.
    trace : Trace
    params : mapping of str to array
    """
    names = _Names(network, nodes, params)
    return [
        *_forward(network, nodes, trace, names),
        *_backward(nodes, trace, names, params),
    ]


class _Names:
    """The names of each node in code and in theory, and the name of its gradient."""

    def __init__(self, network: Network, nodes: list[Node], params: Mapping[str, Any]) -> None:
        self.code = {node.name: node.name for node in nodes}
        self.theory = {node.name: node.name for node in nodes}
        self.grad = {node.name: f"d{node.name}" for node in nodes}
        self.grad.update({name: f"grads[{name!r}]" for name in params})
        layer = 0
        for node in nodes:
            if isinstance(node.gate, LAYERS):
                layer += 1
                self._call(node, f"a{layer}", f"x{_small(layer)}", f"dz{layer}")
                comma = "," if layer > 9 else ""
                weight = f"w{_small(layer)}{comma}{_small(layer - 1)}"
                self.theory[node.inputs[1]] = weight
                if len(node.inputs) > 2:
                    self.theory[node.inputs[2]] = f"b{_small(layer)}"
            elif not layer:
                continue  # outside of any layer, the node keeps its own name
            elif isinstance(node.gate, LETTERS["z"]):
                self._call(node, f"z{layer}", f"y{_small(layer)}", f"da{layer}")
            else:
                for letter, kinds in LETTERS.items():
                    if isinstance(node.gate, kinds):
                        name = f"{letter}{layer}"
                        self._call(node, name, f"{letter}{_small(layer)}", f"d{name}")
                if isinstance(node.gate, BatchNorm):
                    for sign, source in zip("γβ", node.inputs[1:3], strict=True):
                        self.theory[source] = f"{sign}{_small(layer)}"
        self.last = layer
        self.grad[network.scores.name] = "dy"
        self.code[network.loss.name] = self.theory[network.loss.name] = "E"
        self.grad[network.loss.name] = "1"
        # A node that you named y keeps this name.
        self.answer = "y" if "y" not in self.code else "answer"
        # The loss gate may be an inner node: a regularizer may be added to it.
        self.loss_gate = next(
            (
                node
                for node in nodes
                if hasattr(node.gate, "reduction") and node.inputs[0] == network.scores.name
            ),
            None,
        )

    def output(self, node: Node) -> str:
        """Return the name of a gate's output; for a loss, of the answer that it judges."""
        if not hasattr(node.gate, "reduction"):
            return self.code[node.name]
        if node is self.loss_gate:
            return self.answer
        return note_of(node.gate).answer.format(self.code[node.inputs[0]])

    def of_inputs(self, node: Node) -> list[str]:
        """Return the names in code of a gate's inputs; empty for an input without a value."""
        return [self.code.get(source, "") for source in node.inputs]

    def _call(self, node: Node, code: str, theory: str, grad: str) -> None:
        if code not in self.code.values():  # if the name is taken, the node keeps its own
            self.code[node.name], self.theory[node.name] = code, theory
            self.grad[node.name] = grad


def _forward(network: Network, nodes: list[Node], trace: Trace, names: _Names) -> list[Variable]:
    rows = []
    classes = (trace.values[network.scores.name].shape or (1,))[-1]
    for node in nodes:
        value = trace.values[node.name]
        code = names.of_inputs(node)
        if node is names.loss_gate:
            rows.append(_output(network, node, trace, names))
        if node.gate is None:
            formula = "parameter" if node.name in network.params else ROLES.get(node.name, "input")
            if node.name in network.statistics:
                formula = "statistic of the batches"
            if node.name == "t" and not is_real(value) and classes > 1:
                formula += "; an index stands for its one-hot row"
        else:
            formula = value_of(node.gate, code, names.output(node), _samples(node, trace))
        rows.append(_variable(names.code[node.name], names.theory[node.name], formula, value))
    return rows


def _output(network: Network, loss: Node, trace: Trace, names: _Names) -> Variable:
    """Return the variable y, the network's answer, which a loss such as softmax hides."""
    scores = trace.values[network.scores.name]
    y = scores
    if isinstance(loss.gate, SoftmaxWithLoss):
        y = loss.gate.probabilities(scores)
    elif isinstance(loss.gate, SigmoidWithLoss):
        y = Sigmoid().forward(scores)[0]
    elif isinstance(loss.gate, PoissonLoss):
        y = loss.gate.predictions(scores)
    formula = note_of(loss.gate).answer.format(names.code[network.scores.name])
    return _variable(names.answer, f"y{_small(names.last)}" if names.last else "y", formula, y)


def _backward(
    nodes: list[Node], trace: Trace, names: _Names, params: Mapping[str, Any]
) -> list[Variable]:
    """List the gradients in the order of the backward pass, last layer first."""
    rows = []
    users: dict[str, list[tuple[Node, int]]] = {}
    for node in nodes:
        for i, source in enumerate(node.inputs):
            if (node.name, i) in trace.flows:
                users.setdefault(source, []).append((node, i))
    done = set()
    gates = {node.name for node in nodes if node.gate is not None}
    for gate in reversed(nodes):
        # A layer's parameters come first, then the gradient for the layer before.
        for source in [*gate.inputs[1:], *gate.inputs[:1]]:
            wanted = source in trace.grads and (source in params or source in gates)
            if not wanted or source in done or users[source][0][0] is not gate:
                continue  # complete only at its first user, the last that the pass reaches
            done.add(source)
            for node, i in users[source]:
                if isinstance(node.gate, Affine) and i == 1:
                    x = trace.values[node.inputs[0]]
                    if x.ndim == 2:
                        x_code, x_theory = names.code[node.inputs[0]], names.theory[node.inputs[0]]
                        rows.append(_variable(f"{x_code}.T", f"{x_theory}ᵀ", f"{x_code}ᵀ", x.T))
            parts = []
            for node, i in users[source]:
                y, d, count = names.output(node), names.grad[node.name], _samples(node, trace)
                part = gradient_of(node.gate, i, names.of_inputs(node), y, d, count)
                summed = _is_summed(node, i, trace)
                parts.append(f"Σ ({part})" if summed else part)
            if len(parts) > 1:
                parts = [f"({part})" if ", " in part else part for part in parts]
            formula = " + ".join(parts)
            symbol = f"∂E/∂{names.theory[source]}"
            if len(users[source]) == 1:
                symbol += _chain(*users[source][0], names)
            rows.append(_variable(names.grad[source], symbol, formula, trace.grads[source]))
    return rows


def _samples(node: Node, trace: Trace) -> int:
    """Return the number of samples that a loss, or batch normalization, takes the mean over."""
    if not node.inputs:
        return 1
    shape: tuple[int, ...] = trace.values[node.inputs[0]].shape
    if isinstance(node.gate, BatchNorm):
        return math.prod(shape) // max(shape[1], 1)
    return math.prod(shape[:-1])


def _is_summed(node: Node, i: int, trace: Trace) -> bool:
    """Say whether an input was repeated along axes that its formula does not show."""
    note = note_of(node.gate)
    if note.depth:
        matrices = not isinstance(node.gate, Convolution)  # whose formula shows the sum
        return matrices and i == 1 and trace.values[node.inputs[0]].ndim > 2
    repeated = trace.values[node.inputs[i]].shape != trace.values[node.name].shape
    return repeated and note.broadcast


def _chain(user: Node, i: int, names: _Names) -> str:
    """Write the chain rule's last link: = ∂E/∂x₂ · w₂₁."""
    outer = f"∂E/∂{names.theory[user.name]}"
    if isinstance(user.gate, LAYERS):
        sign = "·" if isinstance(user.gate, Affine) else "∗"
        links = *(f" {sign} {names.theory[user.inputs[k]]}" for k in (1, 0)), ""
        return f" = {outer}{links[i]}"
    if isinstance(user.gate, tuple(ACTIVATIONS.values())):
        return f" = {outer} · ∂{names.theory[user.name]}/∂{names.theory[user.inputs[0]]}"
    return ""


def _variable(name: str, theory: str, formula: str, value: Array) -> Variable:
    return Variable(name, theory, tuple(value.shape), formula, value)


def _small(number: int) -> str:
    """Write a number as a subscript."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
