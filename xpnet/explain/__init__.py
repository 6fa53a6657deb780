"""Every variable of a network in one run: its names, its shape, its formula, its size."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from xpnet.explain.costs import Cost, flops
from xpnet.explain.formulas import BROADCAST, OUTPUTS, gradient_of, value_of
from xpnet.explain.tables import Table
from xpnet.layers import Affine, Dropout, Sigmoid
from xpnet.losses import SigmoidWithLoss, SoftmaxWithLoss
from xpnet.models import ACTIVATIONS, Network
from xpnet.node import Node, Trace
from xpnet.ops import Array, is_real, namespace, norm

__all__ = ["Cost", "Explanation", "Variable", "explain"]

BOOK_NAMES = (
    "da1 is, as in the book, the gradient with respect to z1, and dz1 that with respect to a1; so "
    "in every layer."
)
ROLES = {"x": "the batch", "t": "targets", "weight": "of each sample", "step": "the training step"}
COUNTED = (
    "FLOPs: a multiplication and an addition are two, exp and tanh one; none for the gradient "
    "of the data. Bytes: gradients and optimizer state come on top."
)


class Variable(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    name, theory : str
        In code (a1, z1, dy, grads['W1']) and in the theory (x₁, y₁, ∂E/∂x₂): the input and
        the output of a layer's units are x and y there.
    shape : tuple of int
    formula : str
        In terms of the names.
    value : array
        What it was in the run.
    """

    name: str
    theory: str
    shape: tuple[int, ...]
    formula: str
    value: Array


@dataclass(frozen=True)
class Explanation:
    """What `explain` found; printed, a table of text, in a notebook one of HTML."""

    variables: list[Variable]
    costs: list[Cost]

    def __getitem__(self, name: str) -> Variable:
        """The variable of a name."""
        for variable in self.variables:
            if variable.name == name:
                return variable
        known = ", ".join(variable.name for variable in self.variables)
        raise KeyError(f"no variable {name!r}; there are {known}")

    def tables(self) -> tuple[Table, Table]:
        """The table of variables, and that of costs."""
        rows: list[tuple[str, ...]] = [
            (v.name, v.theory, str(v.shape), v.formula, _norm(v.value)) for v in self.variables
        ]
        variables = Table(("name", "theory", "shape", "formula", "norm"), rows, frozenset({4}))
        lines = [(c.name, str(c.shape), *_numbers(c)) for c in self.costs]
        sums = [sum(column) for column in zip(*(c[2:] for c in self.costs), strict=True)]
        lines.append(("total", "", *(f"{n:,}" for n in sums)))
        header = ("gate", "output", "parameters", "FLOPs forward", "FLOPs backward",
                  "bytes of parameters", "bytes of output")  # fmt: skip
        return variables, Table(header, lines, frozenset(range(2, 7)))

    def _notes(self) -> tuple[str, str]:
        renamed = any(re.fullmatch(r"d[az]\d+", v.name) for v in self.variables)
        return BOOK_NAMES if renamed else "", COUNTED

    def __str__(self) -> str:
        return self._joined(Table.text, "{}")

    def markdown(self) -> str:
        """Both tables in Markdown."""
        return self._joined(Table.markdown, "{}") + "\n"

    def html(self) -> str:
        """Both tables as a piece of an HTML page."""
        return self._joined(Table.html, "<p>{}</p>")

    def _joined(self, form: Callable[[Table], str], note: str) -> str:
        parts = []
        for table, words in zip(self.tables(), self._notes(), strict=True):
            parts += [form(table), *([note.format(words)] if words else [])]
        return "\n\n".join(parts)

    _repr_html_ = html


def explain(
    network: Network,
    x: Array,
    t: Array,
    params: Mapping[str, Array] | None = None,
    **inputs: Array,
) -> Explanation:
    """Run a network forward and backward on a batch, and list every variable.

    Parameters
    ----------
    network : Network
    x, t : array
        A batch and its targets, as the loss takes them.
    params : mapping of str to array, optional
        By default the network's initial ones.
    **inputs : array
        ``step`` turns dropout on, ``weight`` weighs samples.

    Returns
    -------
    Explanation

    Notes
    -----
    The names in the code are those of the book's TwoLayerNet (a: input of a layer's units, z:
    their output); those of the theory are of Rumelhart, Hinton, Williams, "Learning
    representations by back-propagating errors", 1986 (x and y; w₂₁ leads from layer 1 to 2).
    """
    if not isinstance(network, Network):
        raise TypeError(
            f"explain takes a Network, got {type(network).__name__}; of a trainer, give "
            "trainer.network and params=trainer.params; of a graph, "
            "xpnet.Network(graph, params, scores, loss)"
        )
    params = network.params if params is None else params
    trace = network.graph.trace({**params, "x": x, "t": t, **inputs}, network.loss)
    nodes = network.graph.nodes_topologically_sorted(network.loss)
    nodes = [node for node in nodes if node.name in trace.values]
    samples = math.prod(trace.values[network.scores.name].shape[:-1])
    names = _Names(network, nodes, params)
    variables = [
        *_forward(network, nodes, trace, names, samples),
        *_backward(nodes, trace, names, params, samples),
    ]
    return Explanation(variables, _costs(nodes, trace, params))


class _Names:
    """What each node is called, in code and in theory, and what its gradient is called."""

    def __init__(self, network: Network, nodes: list[Node], params: Mapping[str, Any]) -> None:
        self.code = {node.name: node.name for node in nodes}
        self.theory = {node.name: node.name for node in nodes}
        self.grad = {node.name: f"d{node.name}" for node in nodes}
        self.grad.update({name: f"grads[{name!r}]" for name in params})
        layer = 0
        for node in nodes:
            kinds = (Affine, Dropout, *ACTIVATIONS.values())
            if node.gate is None or not isinstance(node.gate, kinds):
                continue
            if isinstance(node.gate, Affine):
                layer += 1
                self._call(node, f"a{layer}", f"x{_small(layer)}", f"dz{layer}")
                comma = "," if layer > 9 else ""
                weight = f"w{_small(layer)}{comma}{_small(layer - 1)}"
                self.theory[node.inputs[1]] = weight
                if len(node.inputs) > 2:
                    self.theory[node.inputs[2]] = f"b{_small(layer)}"
            elif not layer:
                continue  # of no layer: the node keeps its own name
            elif isinstance(node.gate, Dropout):
                self._call(node, f"h{layer}", f"h{_small(layer)}", f"dh{layer}")
            else:
                self._call(node, f"z{layer}", f"y{_small(layer)}", f"da{layer}")
        self.last = layer
        self.grad[network.scores.name] = "dy"
        self.code[network.loss.name] = self.theory[network.loss.name] = "E"
        self.grad[network.loss.name] = "1"
        # The loss itself may be an inner node: beside it there may be a regularizer.
        self.loss_gate = next(
            (
                node
                for node in nodes
                if hasattr(node.gate, "reduction") and node.inputs[0] == network.scores.name
            ),
            None,
        )

    def of_inputs(self, node: Node) -> list[str]:
        """The names in code of a gate's inputs; empty for one that was not given."""
        return [self.code.get(source, "") for source in node.inputs]

    def _call(self, node: Node, code: str, theory: str, grad: str) -> None:
        if code not in self.code.values():  # else a graph of another kind: nodes keep their names
            self.code[node.name], self.theory[node.name] = code, theory
            self.grad[node.name] = grad


def _forward(
    network: Network, nodes: list[Node], trace: Trace, names: _Names, samples: int
) -> list[Variable]:
    rows = []
    for node in nodes:
        value = trace.values[node.name]
        code = names.of_inputs(node)
        if node is names.loss_gate:
            rows.append(_output(network, node, trace, names))
        if node.gate is None:
            formula = "parameter" if node.name in network.params else ROLES.get(node.name, "input")
            if node.name == "t" and not is_real(value) and network.outputs > 1:
                formula += "; an index stands for its one-hot row"
        else:
            formula = value_of(node.gate, code, names.code[node.name], samples)
        rows.append(_variable(names.code[node.name], names.theory[node.name], formula, value))
    return rows


def _output(network: Network, loss: Node, trace: Trace, names: _Names) -> Variable:
    """y, the network's answer, which is hidden inside a softmax loss."""
    scores = trace.values[network.scores.name]
    kind = type(loss.gate)
    y = scores
    if isinstance(loss.gate, SoftmaxWithLoss):
        y = loss.gate.probabilities(scores)
    elif isinstance(loss.gate, SigmoidWithLoss):
        y = Sigmoid().forward(scores)[0]
    formula = OUTPUTS.get(kind, "{0}").format(names.code[network.scores.name])
    name = "y" if "y" not in trace.values else "answer"  # the user's own y keeps its name
    return _variable(name, f"y{_small(names.last)}" if names.last else "y", formula, y)


def _backward(
    nodes: list[Node], trace: Trace, names: _Names, params: Mapping[str, Any], samples: int
) -> list[Variable]:
    """Gradients in the order in which they are found, last layer first."""
    rows = []
    users: dict[str, list[tuple[Node, int]]] = {}
    for node in nodes:
        for i, source in enumerate(node.inputs):
            if (node.name, i) in trace.flows:
                users.setdefault(source, []).append((node, i))
    done = set()
    gates = {node.name for node in nodes if node.gate is not None}  # not the data
    for gate in reversed(nodes):
        # A layer's parameters, then what goes on to the layer before.
        for source in [*gate.inputs[1:], *gate.inputs[:1]]:
            wanted = source in trace.grads and (source in params or source in gates)
            if not wanted or source in done or users[source][0][0] is not gate:
                continue  # found at its first user, when all the others have been seen
            done.add(source)
            for node, i in users[source]:
                if isinstance(node.gate, Affine) and i == 1:
                    x = trace.values[node.inputs[0]]
                    if x.ndim == 2:
                        x_code, x_theory = names.code[node.inputs[0]], names.theory[node.inputs[0]]
                        rows.append(_variable(f"{x_code}.T", f"{x_theory}ᵀ", f"{x_code}ᵀ", x.T))
            parts = []
            for node, i in users[source]:
                code, d = names.code[node.name], names.grad[node.name]
                part = gradient_of(node.gate, i, names.of_inputs(node), code, d, samples)
                repeated = trace.values[source].shape != trace.values[node.name].shape
                summed = repeated and type(node.gate) in BROADCAST
                parts.append(f"Σ ({part})" if summed else part)
            formula = " + ".join(parts)
            symbol = f"∂E/∂{names.theory[source]}"
            if len(users[source]) == 1:
                symbol += _chain(*users[source][0], names)
            rows.append(_variable(names.grad[source], symbol, formula, trace.grads[source]))
    return rows


def _chain(user: Node, i: int, names: _Names) -> str:
    """The chain rule's last link: = ∂E/∂x₂ · w₂₁."""
    outer = f"∂E/∂{names.theory[user.name]}"
    if isinstance(user.gate, Affine):
        links = (f" · {names.theory[user.inputs[1]]}", f" · {names.theory[user.inputs[0]]}", "")
        return f" = {outer}{links[i]}"
    if isinstance(user.gate, tuple(ACTIVATIONS.values())):
        return f" = {outer} · ∂{names.theory[user.name]}/∂{names.theory[user.inputs[0]]}"
    return ""


def _costs(nodes: list[Node], trace: Trace, params: Mapping[str, Any]) -> list[Cost]:
    # The graph computes a gradient only on the way to a parameter.
    reach = set(params)
    for node in nodes:
        if any(source in reach for source in node.inputs):
            reach.add(node.name)
    costs: list[Cost] = []
    counted: set[str] = set()  # a parameter that several gates share is one
    for node in nodes:
        if node.gate is None:
            continue
        value = trace.values[node.name]
        own = [p for name in set(node.inputs) - counted if (p := params.get(name)) is not None]
        counted.update(node.inputs)
        shapes = [tuple(trace.values[s].shape) for s in node.inputs if s in trace.values]
        needs = [source in reach for source in node.inputs]
        count = sum(math.prod(p.shape) for p in own)
        costs.append(
            Cost(
                node.name,
                tuple(value.shape),
                count,
                *flops(node.gate, shapes, tuple(value.shape), needs),
                sum(math.prod(p.shape) * _item_bytes(p) for p in own),
                math.prod(value.shape) * _item_bytes(value),
            )
        )
    return costs


def _variable(name: str, theory: str, formula: str, value: Array) -> Variable:
    return Variable(name, theory, tuple(value.shape), formula, value)


def _item_bytes(array: Array) -> int:
    xp = namespace(array)
    if xp.isdtype(array.dtype, "bool"):
        return 1
    limits = xp.iinfo if xp.isdtype(array.dtype, "integral") else xp.finfo
    return int(limits(array.dtype).bits) // 8


def _norm(array: Array) -> str:
    """Four digits; nothing for integers."""
    return f"{norm(array):.4g}" if is_real(array) else ""


def _numbers(cost: Cost) -> tuple[str, ...]:
    return tuple(f"{n:,}" for n in cost[2:])


def _small(number: int) -> str:
    """A subscript."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
