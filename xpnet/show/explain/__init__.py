"""List every variable of a network in one run: its names, shape, formula and norm."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from xpnet.arrays.ops import Array, is_real, norm
from xpnet.errors import listed, shown
from xpnet.models.network import Network
from xpnet.models.tables import Table
from xpnet.show.explain.costs import Cost, costs_of
from xpnet.show.explain.variables import Variable, variables_of

__all__ = ["Cost", "Explanation", "Variable", "explain"]

BOOK_NAMES = (
    "As in the book, da1 is the gradient with respect to z1, and dz1 the gradient with respect to "
    "a1. The same holds in every layer."
)
CONVOLVED = (
    "x ∗ W slides the filters W over the images x. turned(W): filters rotated by 180°, channels in "
    "and out exchanged. full(d): d with zeros around it, and between its numbers for a stride, so "
    "that the result has the shape of the images."
)
NORMALIZED = (
    "x̂ is a normalized value; μ and σ² are mean and variance of its feature, or channel, in this "
    "batch."
)
COUNTED = (
    "FLOPs: a multiplication with an addition counts as two, exp and tanh as one each; the "
    "gradient of the data is not counted. Bytes: gradients and optimizer state are not included."
)


@dataclass(frozen=True)
class Explanation:
    """The result of `explain`: print it for text tables; a notebook shows HTML tables."""

    variables: list[Variable]
    costs: list[Cost]

    def __getitem__(self, name: str) -> Variable:
        """Return the variable with this name; raise KeyError if there is none."""
        for variable in self.variables:
            if variable.name == name:
                return variable
        known = listed(variable.name for variable in self.variables)
        raise KeyError(f"no variable {shown(name)}; there are {known}")

    def tables(self) -> tuple[Table, Table]:
        """Return the table of variables and the table of costs."""
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

    def _notes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        renamed = any(re.fullmatch(r"d[az]\d+", v.name) for v in self.variables)
        signs = {sign for sign in "∗μ" if any(sign in v.formula for v in self.variables)}
        notes = [(BOOK_NAMES, renamed), (CONVOLVED, "∗" in signs), (NORMALIZED, "μ" in signs)]
        return tuple(words for words, needed in notes if needed), (COUNTED,)

    def __str__(self) -> str:
        return self._joined(Table.text, "{}")

    def markdown(self) -> str:
        """Write both tables in Markdown."""
        return self._joined(Table.markdown, "{}") + "\n"

    def html(self) -> str:
        """Write both tables as a fragment of an HTML page."""
        return self._joined(Table.html, "<p>{}</p>")

    def _joined(self, form: Callable[[Table], str], note: str) -> str:
        parts = []
        for table, notes in zip(self.tables(), self._notes(), strict=True):
            parts += [form(table), *(note.format(words) for words in notes)]
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
    x : array, shape=(N, ...)
        A batch.
    t : array
        Its targets, in a form that the loss accepts.
    params : mapping of str to array, optional
        By default the network's initial parameters, and statistics.
    **inputs : array
        ``step`` turns dropout and the statistics of the batch on; ``weight`` gives each sample a
        weight.

    Returns
    -------
    Explanation

    Raises
    ------
    TypeError
        `network` is not a Network.
    KeyError, ValueError
        As `Graph.trace`.

    Notes
    -----
    Names in code follow the book's TwoLayerNet: a is the input of a layer's units, z their output.
    Names in theory follow Rumelhart, Hinton, Williams, "Learning representations by
    back-propagating errors", 1986: x and y; w₂₁ leads from layer 1 to layer 2.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.models.mlp import mlp
    >>> table = explain(mlp([4, 3, 2]), np.ones((5, 4)), np.array([0, 1, 0, 1, 0]))
    >>> table["a1"].shape
    (5, 3)
    """
    if not isinstance(network, Network):
        raise TypeError(
            f"explain takes a Network, got {type(network).__name__}; for a trainer, pass "
            "trainer.network and params=trainer.params; for a graph, "
            "xpnet.Network(graph, params, scores, loss)"
        )
    params = network.values if params is None else params
    trace = network.graph.trace({**params, "x": x, "t": t, **inputs}, network.loss)
    nodes = network.graph.nodes_topologically_sorted(network.loss)
    nodes = [node for node in nodes if node.name in trace.values]
    trained = {name: value for name, value in params.items() if name not in network.statistics}
    return Explanation(
        variables_of(network, nodes, trace, trained), costs_of(nodes, trace, trained)
    )


def _norm(array: Array) -> str:
    """Write the norm with four significant digits; leave it empty for integers."""
    return f"{norm(array):.4g}" if is_real(array) else ""


def _numbers(cost: Cost) -> tuple[str, ...]:
    return tuple(f"{n:,}" for n in cost[2:])
