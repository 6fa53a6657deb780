"""The computational graph applies gates to named values, evaluates them and differentiates them.

A graph holds no arrays. `Graph.forward` takes a flat dict of inputs and returns the outputs and a
tape of the gates' caches; `Graph.backward` reads the tape. So you can run one graph on several
libraries, trace it with ``jax.jit``, or run it forward twice before you run it backward.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpnet.arrays.ops import Array
from xpnet.errors import listed, shown
from xpnet.files import write_whole
from xpnet.gates.protocol import Gate
from xpnet.graph.autodiff import (
    BackwardPlan,
    Plan,
    Tape,
    check_all_labels,
    evaluate,
    make_backward_plan,
    make_plan,
    ones_like,
    shapes_of,
    sort,
    sweep,
)
from xpnet.graph.node import Names, Node, Trace, names_of

if TYPE_CHECKING:
    from xpnet.show.draw import Picture

__all__ = ["Graph", "Tape"]


class Graph:
    """Gates applied to named inputs.

    Examples
    --------
    >>> graph = Graph()
    >>> x, y, z = graph.inputs("x y z")
    >>> f = (x + y) * z
    >>> output, tape = graph.forward({"x": -2, "y": 5, "z": -4}, f)
    >>> float(output)
    -12.0
    >>> {name: float(g) for name, g in graph.backward(tape, "x y z").items()}
    {'x': -4.0, 'y': -4.0, 'z': 3.0}

    Operators and the functions of `xpnet.functions` call `apply`. It takes any gate:

    >>> from xpnet.gates import Max
    >>> graph.apply(Max(), x, y, name="larger").inputs
    ('x', 'y')
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._inputs: dict[str, Node] = {}
        self._counts: dict[str, int] = {}
        self._plans: dict[tuple[Node | str, ...], Plan] = {}
        # Outputs whose gradients were once checked against the inputs' shapes: that takes time.
        self._checked: set[tuple[Node, ...]] = set()
        self._back: dict[tuple[tuple[str, ...], tuple[Node, ...]], BackwardPlan] = {}

    def input(self, name: str, *, optional: bool = False) -> Node:
        """Declare an input; its gate receives None if it is optional and has no value.

        Raises
        ------
        ValueError
            The name is invalid or taken.
        """
        self._check_names(name)
        return self._add(Node(self, name, optional=optional))

    def inputs(self, names: str | Iterable[str]) -> list[Node]:
        """Declare several inputs: ``x, W, b = graph.inputs("x W b")``.

        Raises
        ------
        ValueError
            A name is invalid or taken; then no input is added.
        """
        names = names.split() if isinstance(names, str) else list(names)
        self._check_names(*names)
        return [self._add(Node(self, name)) for name in names]

    def apply(self, gate: Gate, *inputs: Node | str, name: str | None = None) -> Node:
        """Add a gate.

        Parameters
        ----------
        gate : Gate
        *inputs : Node or str
            You may give the name of a node that you add later.
        name : str, optional
            By default Affine1, Affine2, ... after the gate's class.

        Returns
        -------
        Node
            The gate's output.

        Raises
        ------
        ValueError
            The name is invalid or taken, or a node belongs to another graph.
        TypeError
            `gate` is not a gate, or an input is neither a node nor a name.
        """
        if isinstance(gate, type) or not hasattr(gate, "forward"):
            what = f"the class {gate.__name__}" if isinstance(gate, type) else repr(gate)
            raise TypeError(f"apply takes a gate such as Add(), got {what}")
        kind = type(gate).__name__
        for node in inputs:
            if isinstance(node, Node):
                if node.graph is not self:
                    raise ValueError(f"{kind} is applied to {node.name!r}, a node of another graph")
            elif not isinstance(node, str):
                raise TypeError(
                    f"{kind} is applied to {type(node).__name__}; expected nodes of a graph: "
                    "declare an input, and pass an array to forward as its value"
                )
        if name is not None:
            self._check_names(name)
        while name is None:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            made_up = f"{kind}{self._counts[kind]}"
            name = None if made_up in self.nodes else made_up
        return self._add(Node(self, name, gate, tuple(names_of(inputs))))

    def rename(self, node: Node, name: str) -> Node:
        """Rename a node and return the renamed node; `Node.named` calls this.

        Raises
        ------
        ValueError
            The name is invalid or taken, or a gate already uses the node.
        """
        users = [other.name for other in self.nodes.values() if node.name in other.inputs]
        if users or self.nodes.get(node.name) is not node:
            why = f"{users[0]} uses it" if users else "it has been renamed"
            raise ValueError(f"{node.name} cannot be renamed: {why}")
        self._check_names(name)
        renamed = Node(self, name, node.gate, node.inputs, node.optional)
        for nodes in (self.nodes, self._inputs):
            if nodes.pop(node.name, None) is not None:
                nodes[name] = renamed
        return renamed

    def __repr__(self) -> str:
        gates = len(self.nodes) - len(self._inputs)
        return f"<Graph of {len(self._inputs)} inputs and {gates} gates>"

    def __str__(self) -> str:
        """Write one line per node, in the order in which you added them."""
        return "\n".join(
            f"{node.name} = {type(node.gate).__name__}({', '.join(node.inputs)})"
            if node.gate
            else f"{node.name}: input"
            for node in self.nodes.values()
        )

    def _check_names(self, *names: str) -> None:
        for i, name in enumerate(names):
            # Pictures show names, and spaces separate them in lists.
            if not isinstance(name, str) or not name.isprintable() or name.split() != [name]:
                raise ValueError(
                    f"{shown(name)} is not a valid name; expected a word without spaces"
                )
            if name in self.nodes or name in names[:i]:
                raise ValueError(f"the graph already has a node named {shown(name)}")

    def _add(self, node: Node) -> Node:
        self.nodes[node.name] = node
        if node.gate is None:
            self._inputs[node.name] = node
        return node

    def forward(self, inputs: Mapping[str, Any], *outputs: Node | str) -> tuple[Any, Tape]:
        """Evaluate the outputs, and only the gates that they depend on.

        Parameters
        ----------
        inputs : mapping of input name to array
            Inputs that the outputs do not depend on are ignored. A Python number becomes a 0-d
            array of the library, device and dtype of the first real array given, or a float64
            NumPy array if there is none. (Every call uploads it: in a loop on a GPU, pass an
            array.)
        *outputs : Node or str
            By default the last node of the graph.

        Returns
        -------
        value : array, or a tuple of arrays for several outputs
        tape : Tape
            Pass it to `backward`.

        Raises
        ------
        KeyError
            An input has no value, or a value has no input.
        ValueError
            Shapes or dtypes do not fit, the graph has a cycle, or a gate uses a node that the
            graph lacks. The message names the node.
        """
        self._check_inputs(inputs)
        plan = self._plan(outputs)
        values, caches = evaluate(plan, inputs)
        results = tuple(values[node.name] for node in plan.ends)
        tape = Tape(
            plan.ends, results, caches, None if plan.ends in self._checked else shapes_of(values)
        )
        return (results[0] if len(results) == 1 else results), tape

    def backward(
        self,
        tape: Tape,
        wrt: Names | Node | None = None,
        douts: Iterable[Any] | None = None,
    ) -> dict[str, Array]:
        """Return the gradients of the outputs with respect to any nodes (reverse-mode autodiff).

        Parameters
        ----------
        tape : Tape
            From `forward`. You may use it several times.
        wrt : Node, iterable of Node or str, or one str of names with spaces
            Inputs or inner nodes. By default every input that has a gradient.
        douts : iterable of arrays, optional
            The gradient to start from for each output, of the output's shape; None leaves the
            output out. By default 1 for every element of a single output.

        Returns
        -------
        dict of str to array
            In the order of `wrt`, each of its node's shape. Do not write into these arrays: two
            names may share one array. A gate that depends on no node of `wrt` is not run.

        Raises
        ------
        ValueError
            A name is unknown, the outputs do not depend on it, a gradient would be incomplete,
            or the tape or a dout does not fit.
        """
        names = tuple(self._inputs) if wrt is None else tuple(names_of(wrt))
        if not isinstance(tape, Tape) or tape.outputs[0].graph is not self:
            what = "one of another graph" if isinstance(tape, Tape) else type(tape).__name__
            raise ValueError(f"backward needs the tape that forward returned, got {what}")
        grads = sweep(tape, self._backward_plan(names, tape.outputs), names, douts)
        self._checked.add(tape.outputs)
        if wrt is None:
            return {name: grads[name] for name in names if name in grads}
        try:
            return {name: grads[name] for name in names}
        except KeyError:
            lost = listed(name for name in names if name not in grads)
            ends = listed(node.name for node in tape.outputs)
            raise ValueError(f"{ends} has no gradient with respect to {lost}") from None

    def trace(self, inputs: Mapping[str, Any], output: Node | str | None = None) -> Trace:
        """Run forward and backward, and keep every value and every gradient.

        Parameters
        ----------
        inputs : mapping of str to array
        output : Node or str, optional
            By default the last node. If it is an array, the trace differentiates the sum of its
            elements.

        Returns
        -------
        Trace

        Raises
        ------
        KeyError, ValueError
            As `forward`. It also raises ValueError if a label is out of range. (`forward` and
            `backward` do not check labels, which may be on a GPU; the trainer does, once.)
        """
        (end,) = self._ends(() if output is None else (output,))
        if self.nodes[end].optional and inputs.get(end) is None:
            raise KeyError(f"input {end!r} has no value; given: {listed(sorted(map(str, inputs)))}")
        self._check_inputs(inputs)
        plan = self._plan((end,))
        values, caches = evaluate(plan, inputs, every=True)
        check_all_labels(plan.order, values)
        tape = Tape(plan.ends, (values[end],), caches, shapes_of(values))
        names, flows = tuple(values), dict[tuple[str, int], Array]()
        backward_plan = self._backward_plan(names, plan.ends)
        grads = sweep(tape, backward_plan, names, [ones_like(values[end])], flows)
        return Trace(end, {k: v for k, v in values.items() if v is not None}, grads, flows)

    def draw(
        self,
        path: str | PathLike[str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        output: Node | str | None = None,
        *,
        expand: bool = False,
        graphviz: bool = False,
    ) -> Picture | None:
        """Draw the circuit from left to right, as in the lecture.

        Parameters
        ----------
        path : str or path, optional
            File to write; its suffix is .svg, .dot (Graphviz) or .mmd (Mermaid). Without a path,
            the method returns the picture, and a notebook shows it.
        inputs : mapping of str to array, optional
            With inputs, the graph runs forward and backward. Each wire then shows its value in
            green and its gradient in red: a number, a small array, or the shape and norm.
        output : Node or str, optional
            By default the last node. The picture shows only what it depends on.
        expand : bool
            Draw every gate. By default one box shows a layer with its parameters and its
            activation.
        graphviz : bool
            Let Graphviz's program ``dot`` lay out the SVG.

        Returns
        -------
        Picture or None
            Without a path, the SVG: a str that a notebook shows.

        Raises
        ------
        ValueError
            The suffix is unknown, or the picture would have too many boxes.
        FileNotFoundError
            The program ``dot`` is not installed.
        """
        # Imported here, since most graphs are never drawn, and the pictures import this room.
        from xpnet.show.draw import Picture, picture

        (end,) = self._ends(() if output is None else (output,))
        trace = None if inputs is None else self.trace(inputs, end)
        nodes = self.nodes_topologically_sorted(end)
        suffix = ".svg" if path is None else Path(path).suffix
        text = picture(nodes, trace, suffix, expand=expand, graphviz=graphviz)
        if path is None:
            return Picture(text)
        write_whole(Path(path), text)
        return None

    def _repr_svg_(self) -> str | None:
        """Return the picture of the last node for a notebook, or None if it cannot be drawn."""
        from xpnet.show.draw import picture

        try:
            return picture(self.nodes_topologically_sorted())
        except ValueError:
            return None

    def nodes_topologically_sorted(self, *outputs: Node | str) -> list[Node]:
        """Return the nodes that the outputs depend on, each after its inputs.

        Parameters
        ----------
        *outputs : Node or str
            By default the last node of the graph.

        Raises
        ------
        ValueError
            The graph has a cycle, or a gate uses a name that no node has.
        """
        return sort(self.nodes, self._ends(outputs))

    def _check_inputs(self, inputs: Mapping[str, Any]) -> None:
        if not isinstance(inputs, Mapping):
            raise TypeError(f"inputs are {shown(inputs)}; expected a dict, from names to arrays")
        if not inputs.keys() <= self._inputs.keys():
            unknown = next(name for name in inputs if name not in self._inputs)
            raise KeyError(
                f"no input is named {shown(unknown)}; the graph has {listed(self._inputs)}"
            )

    def _ends(self, outputs: tuple[Node | str, ...]) -> tuple[str, ...]:
        if not self.nodes:
            raise ValueError("the graph has no nodes")
        ends = tuple(names_of(outputs)) or (next(reversed(self.nodes)),)
        for name, node in zip(ends, outputs, strict=False):
            if name not in self.nodes or (isinstance(node, Node) and node.graph is not self):
                raise self._unknown(name)
        return ends

    def _unknown(self, name: str) -> ValueError:
        return ValueError(f"no node named {shown(name)}; the graph has {listed(self.nodes)}")

    def _plan(self, outputs: tuple[Node | str, ...]) -> Plan:
        if not outputs and self.nodes:
            outputs = (next(reversed(self.nodes.values())),)
        try:
            if outputs in self._plans:
                return self._plans[outputs]
        except TypeError:
            pass  # not hashable, so neither a node nor a name: _ends refuses it
        ends = self._ends(outputs)
        self._plans[outputs] = make_plan(self.nodes, ends)
        return self._plans[outputs]

    def _backward_plan(self, wrt: tuple[str, ...], outputs: tuple[Node, ...]) -> BackwardPlan:
        key = (wrt, outputs)
        if key not in self._back:
            unknown = [name for name in wrt if name not in self.nodes]
            if unknown:
                raise self._unknown(unknown[0])
            self._back[key] = make_backward_plan(self._plan(outputs).order, wrt)
        return self._back[key]
