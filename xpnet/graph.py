"""The computational graph: gates in call order, evaluated forward and differentiated backward.

A graph holds no arrays. `Graph.forward` takes a flat dict of inputs and returns the outputs
with a tape of the gates' caches; `Graph.backward` takes the tape. So one graph may run on
several libraries, be traced by ``jax.jit``, or be run twice before it is run backward.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from xpnet.gates import Gate
from xpnet.ops import Array, device, namespace

__all__ = ["Graph", "Node", "Tape"]


@dataclass(frozen=True, eq=False)
class Node:
    """A named value of a graph: an input (``gate`` is None) or the output of a gate."""

    index: int
    name: str
    gate: Gate | None = None
    inputs: tuple[int, ...] = ()
    optional: bool = False


class Tape(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    outputs: tuple[Node, ...]
    values: tuple[Array, ...]  # of the outputs
    caches: dict[int, Any]  # by node index, in the order of evaluation


class Graph:
    """Gates applied to named inputs.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.gates import Add, Mul
    >>> graph = Graph()
    >>> x, y, z = graph.inputs("x y z")
    >>> f = graph.apply(Mul(), graph.apply(Add(), x, y), z)
    >>> values = {k: np.asarray(v) for k, v in dict(x=-2.0, y=5.0, z=-4.0).items()}
    >>> output, tape = graph.forward(values, f)
    >>> float(output)
    -12.0
    >>> {k: float(v) for k, v in graph.backward(tape, "xyz").items()}
    {'x': -4.0, 'y': -4.0, 'z': 3.0}
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._by_name: dict[str, Node] = {}
        self._counts: dict[str, int] = {}
        # A node can only be applied to nodes that exist, and never changes afterwards. So
        # the list is in topological order, and what was derived from it stays true.
        self._orders: dict[tuple[int, ...], list[int]] = {}
        self._reach: dict[tuple[str, ...], set[int]] = {}

    def input(self, name: str, *, optional: bool = False) -> Node:
        """Declare an input; an optional one that is not given reaches its gate as None."""
        return self._add(name, None, (), optional)

    def inputs(self, names: str) -> list[Node]:
        """Declare several inputs: ``x, W, b = graph.inputs("x W b")``."""
        return [self.input(name) for name in names.split()]

    def apply(self, gate: Gate, *inputs: Node, name: str | None = None) -> Node:
        """Add a gate; named Affine1, Affine2, ... after its class, unless `name` is given."""
        for node in inputs:
            if node.index >= len(self.nodes) or self.nodes[node.index] is not node:
                raise ValueError(
                    f"{type(gate).__name__} is applied to {node.name!r}, a node of another graph"
                )
        if name is None:
            kind = type(gate).__name__
            self._counts[kind] = self._counts.get(kind, 0) + 1
            name = f"{kind}{self._counts[kind]}"
        return self._add(name, gate, tuple(node.index for node in inputs), False)

    def _add(self, name: str, gate: Gate | None, inputs: tuple[int, ...], optional: bool) -> Node:
        if name in self._by_name:
            raise ValueError(f"the graph already has a node named {name!r}")
        node = Node(len(self.nodes), name, gate, inputs, optional)
        self.nodes.append(node)
        self._by_name[name] = node
        return node

    def forward(self, inputs: Mapping[str, Array], *outputs: Node) -> tuple[Any, Tape]:
        """Evaluate the outputs, and only the gates that they depend on.

        Parameters
        ----------
        inputs : mapping of input name to array
            Names that the outputs do not depend on are ignored.
        *outputs : Node
            The last node of the graph, if none is given.

        Returns
        -------
        value : array, or a tuple of arrays when several outputs are given
        tape : Tape
            For `backward`.

        Raises
        ------
        KeyError
            An input has no value.
        ValueError
            Shapes do not fit; the message names the node, its inputs and their shapes.
        """
        outputs = outputs or (self.nodes[-1],)
        values: dict[int, Array] = {}
        caches: dict[int, Any] = {}
        for index in self._order(outputs):
            node = self.nodes[index]
            if node.gate is None:
                values[index] = inputs.get(node.name)
                if values[index] is None and not node.optional:
                    raise KeyError(f"input {node.name!r} has no value; given: {sorted(inputs)}")
                continue
            args = [values[i] for i in node.inputs]
            try:
                values[index], caches[index] = node.gate.forward(*args)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{self._call(node, args)}: {error}") from error
        results = tuple(values[node.index] for node in outputs)
        tape = Tape(outputs, results, caches)
        return (results[0] if len(results) == 1 else results), tape

    def backward(
        self, tape: Tape, wrt: Iterable[str], douts: Iterable[Array | None] | None = None
    ) -> dict[str, Array]:
        """Gradients of the outputs with respect to any nodes, by reverse accumulation.

        Parameters
        ----------
        tape : Tape
            From `forward`.
        wrt : iterable of str
            Names of inputs or of inner nodes.
        douts : iterable of arrays, optional
            The gradient to start from, one per output; None for one that is to be left out.
            By default 1, for a single output.

        Returns
        -------
        dict of str to array
            In the order of `wrt`. A gate whose output does not depend on any of them is
            not run backward.

        Raises
        ------
        ValueError
            A name is unknown, or the outputs do not depend on it.
        """
        wrt = tuple(wrt)
        reach = self._reached_from(wrt)
        grads: dict[int, Array] = {}
        if douts is None:
            if len(tape.outputs) != 1:
                raise ValueError(f"{len(tape.outputs)} outputs need douts, one for each of them")
            y = tape.values[0]
            douts = (namespace(y).ones(y.shape, dtype=y.dtype, device=device(y)),)
        for node, dout in zip(tape.outputs, douts, strict=True):
            if dout is not None:
                _accumulate(grads, node.index, dout)
        kept = {self._by_name[name].index for name in wrt}
        for index in reversed(tape.caches):
            if index not in reach or index not in grads:
                continue
            node = self.nodes[index]
            dout = grads[index] if index in kept else grads.pop(index)
            needs = [i in reach for i in node.inputs]
            assert node.gate is not None  # only gates leave a cache
            parts = node.gate.backward(tape.caches[index], dout, needs)
            for i, need, part in zip(node.inputs, needs, parts, strict=False):
                if need and part is not None:
                    _accumulate(grads, i, part)
        try:
            return {name: grads[self._by_name[name].index] for name in wrt}
        except KeyError:
            lost = [name for name in wrt if self._by_name[name].index not in grads]
            ends = ", ".join(node.name for node in tape.outputs)
            raise ValueError(f"{ends} has no gradient with respect to {', '.join(lost)}") from None

    def _order(self, outputs: tuple[Node, ...]) -> list[int]:
        """Indices of the nodes that the outputs depend on, in order of evaluation."""
        key = tuple(node.index for node in outputs)
        if key not in self._orders:
            wanted = set(key)
            for index in range(max(key), -1, -1):  # a loop: recursion would limit the depth
                if index in wanted:
                    wanted.update(self.nodes[index].inputs)
            self._orders[key] = sorted(wanted)
        return self._orders[key]

    def _reached_from(self, wrt: tuple[str, ...]) -> set[int]:
        """Indices of the nodes that depend on any node of `wrt`, these included."""
        size = len(self.nodes)
        key = (*wrt, str(size))
        if key not in self._reach:
            unknown = [name for name in wrt if name not in self._by_name]
            if unknown:
                raise ValueError(
                    f"no node named {', '.join(unknown)}; the graph has {', '.join(self._by_name)}"
                )
            reach = {self._by_name[name].index for name in wrt}
            for node in self.nodes:
                if any(i in reach for i in node.inputs):
                    reach.add(node.index)
            self._reach[key] = reach
        return self._reach[key]

    def _call(self, node: Node, args: list[Any]) -> str:
        """A gate's call in words: ``Affine1(x (100, 64), W1 (784, 50), b1 (50,))``."""
        words = [
            f"{self.nodes[i].name} {'not given' if a is None else tuple(a.shape)}"
            for i, a in zip(node.inputs, args, strict=True)
        ]
        return f"{node.name}({', '.join(words)})"


def _accumulate(grads: dict[int, Array], index: int, part: Array) -> None:
    """Fan-out adds. Never in place: a gate may have handed one array to several inputs."""
    grads[index] = grads[index] + part if index in grads else part
