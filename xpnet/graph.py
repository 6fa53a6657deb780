"""The computational graph: gates applied to named values, evaluated forward and differentiated.

A graph holds no arrays. `Graph.forward` takes a flat dict of inputs and returns the outputs
with a tape of the gates' caches; `Graph.backward` takes the tape. So one graph may run on
several libraries, be traced by ``jax.jit``, or be run twice before it is run backward.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from xpnet.draw import picture
from xpnet.files import write_whole
from xpnet.gates import Gate
from xpnet.node import Names, Node, names_of
from xpnet.ops import Array, as_array, device, is_real, namespace

__all__ = ["Graph", "Tape", "Trace"]


class Tape(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    outputs: tuple[Node, ...]
    values: tuple[Array, ...]  # of the outputs
    caches: dict[str, Any]  # by node name, in the order of evaluation


class Trace(NamedTuple):
    """Everything that one run forward and backward has computed, by node name.

    Attributes
    ----------
    output : str
        The node that was differentiated.
    values : dict of str to array
        Of every node that the output depends on.
    grads : dict of str to array
        The output's gradient with respect to each of them, where there is one.
    flows : dict of (str, int) to array
        The part of it that a gate (by its node's name) sent back through its i-th input.
        Where a value goes to several gates, its gradient is the sum of what they send.
    """

    output: str
    values: dict[str, Array]
    grads: dict[str, Array]
    flows: dict[tuple[str, int], Array]


class Plan(NamedTuple):
    """What is found out once for some outputs: a node's ancestors never change."""

    ends: tuple[Node, ...]
    order: list[Node]  # of evaluation
    real: set[str]  # inputs that must not be integers


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

    Operators and the functions of `xpnet.functions` call `apply`, which takes any gate:

    >>> from xpnet.gates import Max
    >>> graph.apply(Max(), x, y, name="larger").inputs
    ('x', 'y')
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._inputs: dict[str, Node] = {}
        self._counts: dict[str, int] = {}
        self._plans: dict[tuple[Node | str, ...], Plan] = {}
        self._reach: dict[tuple[tuple[str, ...], tuple[Node, ...]], set[str]] = {}

    def input(self, name: str, *, optional: bool = False) -> Node:
        """Declare an input; an optional one that is not given reaches its gate as None."""
        return self._add(Node(self, name, optional=optional))

    def inputs(self, names: str) -> list[Node]:
        """Declare several inputs: ``x, W, b = graph.inputs("x W b")``."""
        return [self.input(name) for name in names.split()]

    def apply(self, gate: Gate, *inputs: Node | str, name: str | None = None) -> Node:
        """Add a gate.

        Parameters
        ----------
        gate : Gate
        *inputs : Node or str
            A name may stand for a node that is added later: any order of building will do.
        name : str, optional
            By default Affine1, Affine2, ... after the gate's class.

        Raises
        ------
        ValueError
            The name is taken, or a node belongs to another graph.
        """
        kind = type(gate).__name__
        for node in inputs:
            if not isinstance(node, str) and node.graph is not self:
                raise ValueError(f"{kind} is applied to {node.name!r}, a node of another graph")
        while name is None or (name in self.nodes and name == f"{kind}{self._counts.get(kind)}"):
            self._counts[kind] = self._counts.get(kind, 0) + 1
            name = f"{kind}{self._counts[kind]}"
        return self._add(Node(self, name, gate, tuple(names_of(inputs))))

    def _add(self, node: Node) -> Node:
        if node.name in self.nodes:
            raise ValueError(f"the graph already has a node named {node.name!r}")
        self.nodes[node.name] = node
        if node.gate is None:
            self._inputs[node.name] = node
        return node

    def forward(self, inputs: Mapping[str, Any], *outputs: Node | str) -> tuple[Any, Tape]:
        """Evaluate the outputs, and only the gates that they depend on.

        Parameters
        ----------
        inputs : mapping of input name to array
            Inputs that the outputs do not depend on are ignored. A Python number stands for
            a 0-d array like the others; if there are no others, a NumPy array of float64.
        *outputs : Node or str
            The last node of the graph, if none is given.

        Returns
        -------
        value : array, or a tuple of arrays when several outputs are given
        tape : Tape
            For `backward`.

        Raises
        ------
        KeyError
            An input has no value, or a value has no input.
        ValueError
            Shapes or dtypes do not fit, the graph has a cycle or uses a node that it lacks;
            the message names the node.
        """
        if not inputs.keys() <= self._inputs.keys():
            unknown = ", ".join(map(repr, inputs.keys() - self._inputs.keys()))
            raise KeyError(f"no input is named {unknown}; the graph has {', '.join(self._inputs)}")
        ends, plan, real = self._plan(outputs)
        values: dict[str, Array] = {}
        caches: dict[str, Any] = {}
        for node in plan:
            if node.gate is None:
                values[node.name] = _value(node, inputs, node.name in real)
                continue
            args = [values[name] for name in node.inputs]
            try:
                values[node.name], caches[node.name] = node.gate.forward(*args)
            except (ValueError, TypeError, IndexError, RuntimeError) as error:
                # PyTorch has RuntimeError for shapes that do not fit; its subclasses, such as
                # for memory that is used up, are not about this call.
                if isinstance(error, RuntimeError) and type(error) is not RuntimeError:
                    raise
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise ValueError(f"{_call(node, args)}: {reason}") from error
        results = tuple(values[node.name] for node in ends)
        tape = Tape(ends, results, caches)
        return (results[0] if len(results) == 1 else results), tape

    def backward(
        self,
        tape: Tape,
        wrt: Names | None = None,
        douts: Iterable[Any] | None = None,
    ) -> dict[str, Array]:
        """Gradients of the outputs with respect to any nodes, by reverse accumulation.

        Parameters
        ----------
        tape : Tape
            From `forward`. It may be run backward as often as one likes.
        wrt : iterable of str or Node, or one str of names with spaces
            Inputs or inner nodes. By default every input that has a gradient.
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
            A name is unknown, the outputs do not depend on it, the tape or a dout does not
            fit.
        """
        names = tuple(self._inputs) if wrt is None else tuple(names_of(wrt))
        grads, _ = self._sweep(tape, names, douts)
        if wrt is None:
            return {name: grads[name] for name in names if name in grads}
        try:
            return {name: grads[name] for name in names}
        except KeyError:
            lost = ", ".join(name for name in names if name not in grads)
            ends = ", ".join(node.name for node in tape.outputs)
            raise ValueError(f"{ends} has no gradient with respect to {lost}") from None

    def trace(self, inputs: Mapping[str, Any], output: Node | str | None = None) -> Trace:
        """Run forward and backward, and keep every value and every gradient.

        Parameters
        ----------
        inputs : mapping of str to array
        output : Node or str, optional
            By default the last node. Of an array, the sum of its elements is differentiated.

        Returns
        -------
        Trace
        """
        (end,) = self._ends(() if output is None else (output,))
        names = [node.name for node in self.nodes_topologically_sorted(end)]
        values, tape = self.forward(inputs, *names)
        values = dict(zip(names, values if len(names) > 1 else (values,), strict=True))
        douts = [_ones(values[name]) if name == end else None for name in names]
        grads, flows = self._sweep(tape, tuple(names), douts)
        return Trace(end, {k: v for k, v in values.items() if v is not None}, grads, flows)

    def draw(
        self,
        path: str | PathLike[str],
        inputs: Mapping[str, Any] | None = None,
        output: Node | str | None = None,
        *,
        expand: bool = False,
        graphviz: bool = False,
    ) -> None:
        """Draw the circuit from left to right, as in the lecture.

        Parameters
        ----------
        path : str or path
            Its suffix says what is written: .svg, .dot (Graphviz) or .mmd (Mermaid).
        inputs : mapping of str to array, optional
            With them, the graph is run, and at each wire stands the value in green and
            the gradient in red: a number, a small array, or an array's shape and norm.
        output : Node or str, optional
            By default the last node; what it does not depend on is left out.
        expand : bool
            Draw every gate, instead of one box for a layer with parameters, its activation
            and those parameters.
        graphviz : bool
            Let the program ``dot`` lay out the SVG.

        Raises
        ------
        ValueError
            The suffix is another one, or there are too many boxes to be seen.
        FileNotFoundError
            The program ``dot`` is not installed.
        """
        (end,) = self._ends(() if output is None else (output,))
        trace = None if inputs is None else self.trace(inputs, end)
        nodes = self.nodes_topologically_sorted(end)
        suffix = Path(path).suffix
        write_whole(Path(path), picture(nodes, trace, suffix, expand=expand, graphviz=graphviz))

    def _repr_svg_(self) -> str | None:
        """What a notebook shows: the structure, if there is any."""
        return picture(self.nodes_topologically_sorted()) if self.nodes else None

    def nodes_topologically_sorted(self, *outputs: Node | str) -> list[Node]:
        """The nodes that the outputs depend on, each after its inputs.

        Raises
        ------
        ValueError
            There is a cycle, or a gate uses a name that no node has.
        """
        done: dict[str, Node] = {}
        for end in self._ends(outputs):
            # Depth first, with a path of our own: recursion would limit the depth.
            path: dict[str, Iterator[str]] = {}
            if end not in done:
                path[end] = iter(self.nodes[end].inputs)
            while path:
                name = next(reversed(path))
                for source in path[name]:
                    if source in path:
                        names = list(path)
                        circle = [*names[names.index(source) :], source]
                        middle = ["..."] if len(circle) > 9 else []
                        shown = circle if not middle else [*circle[:4], *middle, *circle[-4:]]
                        raise ValueError(f"the graph has a cycle: {' <- '.join(shown)}")
                    if source not in done:
                        if source not in self.nodes:
                            raise ValueError(f"{name} uses {source!r}, which is not in the graph")
                        path[source] = iter(self.nodes[source].inputs)
                        break
                else:
                    done[name] = self.nodes[name]
                    path.popitem()
        return list(done.values())

    def _sweep(
        self, tape: Tape, wrt: tuple[str, ...], douts: Iterable[Any] | None
    ) -> tuple[dict[str, Array], dict[tuple[str, int], Array]]:
        """Gradients of the nodes `wrt`, and what passed through each input of each gate."""
        if not isinstance(tape, Tape) or tape.outputs[0].graph is not self:
            what = "one of another graph" if isinstance(tape, Tape) else type(tape).__name__
            raise ValueError(f"backward needs the tape that forward has returned, got {what}")
        reach = self._reached_from(wrt, tape)
        grads: dict[str, Array] = {}
        flows: dict[tuple[str, int], Array] = {}
        for node, dout in zip(tape.outputs, _starts(tape, douts), strict=True):
            if dout is not None:
                _accumulate(grads, node.name, dout)
        kept = set(wrt)
        for name in reversed(tape.caches):
            if name not in reach or name not in grads:
                continue
            node = self.nodes[name]
            dout = grads[name] if name in kept else grads.pop(name)
            needs = [source in reach for source in node.inputs]
            assert node.gate is not None  # only gates leave a cache
            parts = node.gate.backward(tape.caches[name], dout, needs)
            for i, (source, need, part) in enumerate(zip(node.inputs, needs, parts, strict=False)):
                if need and part is not None:
                    _accumulate(grads, source, part)
                    flows[name, i] = part
        return grads, flows

    def _ends(self, outputs: tuple[Node | str, ...]) -> tuple[str, ...]:
        if not self.nodes:
            raise ValueError("the graph has no nodes")
        ends = tuple(names_of(outputs)) or (next(reversed(self.nodes)),)
        for name, node in zip(ends, outputs, strict=False):
            if name not in self.nodes or (isinstance(node, Node) and node.graph is not self):
                raise ValueError(f"no node named {name}; the graph has {', '.join(self.nodes)}")
        return ends

    def _plan(self, outputs: tuple[Node | str, ...]) -> Plan:
        if not outputs and self.nodes:
            outputs = (next(reversed(self.nodes.values())),)
        if outputs not in self._plans:
            ends = self._ends(outputs)
            order = self.nodes_topologically_sorted(*ends)
            real = {
                source
                for node in order
                for i, source in enumerate(node.inputs)
                if i not in getattr(node.gate, "integers", ())
            }
            self._plans[outputs] = Plan(tuple(self.nodes[name] for name in ends), order, real)
        return self._plans[outputs]

    def _reached_from(self, wrt: tuple[str, ...], tape: Tape) -> set[str]:
        """Names of the evaluated nodes that depend on any node of `wrt`, these included."""
        key = (wrt, tape.outputs)
        if key not in self._reach:
            unknown = [name for name in wrt if name not in self.nodes]
            if unknown:
                raise ValueError(
                    f"no node named {', '.join(unknown)}; the graph has {', '.join(self.nodes)}"
                )
            reach = set(wrt)
            for node in self._plan(tape.outputs).order:
                if any(source in reach for source in node.inputs):
                    reach.add(node.name)
            self._reach[key] = reach
        return self._reach[key]


def _value(node: Node, inputs: Mapping[str, Any], real: bool) -> Array | None:
    """The value given for an input, refused where it is missing or of the wrong kind."""
    value = inputs.get(node.name)
    if value is None:
        if node.optional:
            return None
        raise KeyError(f"input {node.name!r} has no value; given: {', '.join(sorted(inputs))}")
    if isinstance(value, int | float):
        arrays = (a for a in inputs.values() if hasattr(a, "dtype") and is_real(a))
        return as_array(value, next(arrays, None))
    if not hasattr(value, "dtype"):
        raise ValueError(f"input {node.name!r} is a {type(value).__name__}; expected an array")
    if real and not is_real(value):
        raise ValueError(
            f"input {node.name!r} has dtype {value.dtype}; the gates that use it need real "
            "numbers: convert it to float64 or float32"
        )
    return value


def _starts(tape: Tape, douts: Iterable[Any] | None) -> list[Array | None]:
    """The gradients that backward starts from, one per output."""
    if douts is None:
        if len(tape.outputs) != 1:
            raise ValueError(f"{len(tape.outputs)} outputs need douts, one for each of them")
        return [_ones(tape.values[0])]
    starts = list(douts)
    if len(starts) != len(tape.outputs):
        raise ValueError(f"got {len(starts)} douts for {len(tape.outputs)} outputs")
    for i, (node, value) in enumerate(zip(tape.outputs, tape.values, strict=True)):
        if isinstance(starts[i], int | float):
            starts[i] = as_array(starts[i], value)
        if starts[i] is not None and starts[i].shape != value.shape:
            raise ValueError(
                f"dout of {node.name} has shape {tuple(starts[i].shape)}; expected "
                f"{tuple(value.shape)}, that of its value"
            )
    return starts


def _ones(y: Array) -> Array:
    return namespace(y).ones(y.shape, dtype=y.dtype, device=device(y))


def _call(node: Node, args: list[Any]) -> str:
    """A gate's call in words: ``Affine1(x (100, 64), W1 (784, 50), b1 (50,))``."""
    words = [
        f"{name} {'not given' if a is None else tuple(a.shape)}"
        for name, a in zip(node.inputs, args, strict=True)
    ]
    return f"{node.name}({', '.join(words)})"


def _accumulate(grads: dict[str, Array], name: str, part: Array) -> None:
    """Fan-out adds. Never in place: a gate may have handed one array to several inputs."""
    grads[name] = grads[name] + part if name in grads else part
