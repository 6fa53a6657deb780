"""The classes of Stanford's CS231n, lecture 4: gates and graphs that keep their state.

xpnet's own gates (`xpnet.gates`) are pure functions: they return a cache instead of keeping it, so
you can compile a graph, capture it, or run it twice. The lecture's objects keep the cache. These
classes do the same, over xpnet's gates.

>>> gate = MultiplyGate()
>>> print(gate.forward(3, -4))
-12.0
>>> print(gate.x, gate.y)
3.0 -4.0
>>> dx, dy = gate.backward(1)
>>> print(dx, dy)
-4.0 3.0

A `Circuit` holds the gates of a formula, each wired to the gates before it, so the lecture's loops
``gate.forward()`` and ``gate.backward()`` run on them. `apply` brings in a gate that you wrote.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from os import PathLike
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from xpnet import gates, layers
from xpnet.arrays.dispatch import underflowing
from xpnet.arrays.ops import Array, as_array, is_real, namespace
from xpnet.errors import shown
from xpnet.graph.autodiff import MISFIT, one_line, ones_like
from xpnet.graph.graph import Graph
from xpnet.graph.node import Node

__all__ = [
    "AddGate", "Circuit", "ComputationalGraph", "DivideGate", "ExpGate", "L2Gate", "LogGate",
    "MatMulGate", "MaxGate", "MeanGate", "MultiplyGate", "NegateGate", "ReLUGate",
    "ReciprocalGate", "SigmoidGate", "SquareGate", "StatefulGate", "SubtractGate", "SumGate",
    "WiredGate", "apply",
]  # fmt: skip


class StatefulGate:
    """A gate that stores in forward what backward needs.

    Parameters
    ----------
    *arguments
        Arguments of xpnet's gate: ``SumGate(0)`` sums over axis 0.

    Attributes
    ----------
    x, y : array
        The inputs of the last forward: x alone for a gate with one input; W and x for MatMulGate.
    """

    kind: ClassVar[Callable[..., gates.Gate]]
    names: ClassVar[tuple[str, ...]] = ()  # of the attributes that hold the inputs
    x: Array
    y: Array

    def __init__(self, *arguments: Any) -> None:
        self.gate = self.kind(*arguments)
        self._kept: tuple[Any, Array, int] | None = None

    def forward(self, *inputs: Any) -> Array:
        """Return the output; a Python number becomes a 0-d array.

        Raises
        ------
        ValueError
            An array has integers but the gate needs real numbers, or shapes do not fit.
        """
        self._kept = None  # if this forward fails, backward must not use an earlier one
        integers = getattr(self.gate, "integers", ())
        moves = getattr(self.gate, "moves", False)
        for i, x in enumerate(inputs):
            if not hasattr(x, "dtype") and not isinstance(x, int | float):
                # A gate's other inputs may be left out.
                if x is not None:
                    raise ValueError(
                        f"{self._label()}.forward got {shown(x)}; expected numbers or arrays: "
                        "make an array of a list, np.array(x, float)"
                    )
            elif hasattr(x, "dtype") and not (moves or i in integers or is_real(x)):
                raise ValueError(
                    f"{self._label()}.forward got an array of {x.dtype}; expected real "
                    "numbers: convert it to float64 or float32"
                )
        like = next((x for x in inputs if hasattr(x, "dtype") and is_real(x)), None)
        arrays = [as_array(x, like) if isinstance(x, int | float) else x for x in inputs]
        try:
            output, cache = self.gate.forward(*arrays)
        except MISFIT as error:
            raise ValueError(f"{self._label()}.forward: {one_line(error)}") from error
        self._kept = cache, output, len(arrays)
        for name, x in zip(self.names, arrays, strict=False):
            setattr(self, name, x)
        return output

    def backward(self, dz: Any = 1.0) -> Any:
        """Return the gradient of each input for the output's gradient dz.

        One input gives an array, several inputs give a sequence of arrays. You may call it again,
        with another dz: it only reads what forward stored.

        Raises
        ------
        RuntimeError
            You have not run forward, or the last forward failed.
        ValueError
            dz is not a real array of the output's shape.
        """
        if self._kept is None:
            raise RuntimeError(f"{self._label()}.backward needs a forward first: run forward")
        cache, output, count = self._kept
        dz = as_array(dz, output) if isinstance(dz, int | float) else dz
        if not hasattr(dz, "dtype") or not is_real(dz) or dz.shape != output.shape:
            got = f"{dz.dtype} of shape {tuple(dz.shape)}" if hasattr(dz, "dtype") else repr(dz)
            raise ValueError(
                f"{self._label()}.backward got {got}; expected real numbers of the output's shape, "
                f"{tuple(output.shape)}"
            )
        parts = self.gate.backward(cache, dz, (True,) * count)
        return parts[0] if count == 1 else parts

    def _label(self) -> str:
        """Return what messages call the gate."""
        return type(self).__name__


class AddGate(StatefulGate):
    """x + y; it distributes the gradient: both inputs receive it."""

    kind = gates.Add
    names = ("x", "y")


class SubtractGate(StatefulGate):
    """x - y."""

    kind = gates.Sub
    names = ("x", "y")


class MultiplyGate(StatefulGate):
    """x y; it switches the factors: each input receives the gradient times the other input."""

    kind = gates.Mul
    names = ("x", "y")


class DivideGate(StatefulGate):
    """x / y."""

    kind = gates.Div
    names = ("x", "y")


class MaxGate(StatefulGate):
    """max(x, y); it routes the gradient to the larger input, at a tie to the first."""

    kind = gates.Max
    names = ("x", "y")


class NegateGate(StatefulGate):
    """-x."""

    kind = gates.Neg
    names = ("x",)


class ExpGate(StatefulGate):
    """eˣ."""

    kind = gates.Exp
    names = ("x",)


class LogGate(StatefulGate):
    """ln x."""

    kind = gates.Log
    names = ("x",)


class ReciprocalGate(StatefulGate):
    """1 / x."""

    kind = gates.Reciprocal
    names = ("x",)


class SquareGate(StatefulGate):
    """x²."""

    def __init__(self) -> None:
        super().__init__(2)

    kind = gates.Power
    names = ("x",)


class SigmoidGate(StatefulGate):
    """1 / (1 + e⁻ˣ)."""

    kind = layers.Sigmoid
    names = ("x",)


class ReLUGate(StatefulGate):
    """max(0, x)."""

    kind = layers.ReLU
    names = ("x",)


class MatMulGate(StatefulGate):
    """W x, the matrix product."""

    kind = gates.MatMul
    names = ("W", "x")
    W: Array


class L2Gate(StatefulGate):
    """‖x‖² = x₁² + ... + xₙ²."""

    kind = gates.SquaredNorm
    names = ("x",)


class SumGate(StatefulGate):
    """Σ x over all elements, or over the axis that you give."""

    kind = gates.Sum
    names = ("x",)


class MeanGate(StatefulGate):
    """The mean of x over all elements, or over the axis that you give."""

    kind = gates.Mean
    names = ("x",)


def apply(gate: Any, *inputs: Node, name: str | None = None) -> Node:
    """Add a gate that keeps its state, such as one that you wrote yourself, to a graph.

    Parameters
    ----------
    gate : object
        Its ``forward`` takes one array for each input and returns the output. Its
        ``backward(dz)`` returns one gradient for each input: ``[dx, dy]``, or dx alone. Or a gate
        of `xpnet.gates`, as for `Graph.apply`.
    *inputs : Node
    name : str, optional
        By default MultiplyGate1, MultiplyGate2, ... after the gate's class.

    Returns
    -------
    Node
        The gate's output. Formulas may go on with it, and `Graph.forward`, `Graph.backward` and
        pictures work with it. They run a copy of the gate; only a `Circuit` runs the gate itself.

    Raises
    ------
    TypeError
        The gate's methods do not take such arguments, or an input is not a node.
    ValueError
        As `Graph.apply`.

    Examples
    --------
    >>> from xpnet import Graph
    >>> class MultiplyGate:
    ...     def forward(self, x, y):
    ...         z = x * y
    ...         self.x = x
    ...         self.y = y
    ...         return z
    ...
    ...     def backward(self, dz):
    ...         dx = self.y * dz
    ...         dy = self.x * dz
    ...         return [dx, dy]
    >>> x, y, z = Graph().inputs("x y z")
    >>> f = apply(MultiplyGate(), apply(AddGate(), x, y), z)
    >>> f
    <Node MultiplyGate1 = MultiplyGate(AddGate1, z)>
    >>> print(ComputationalGraph(f).forward({"x": -2, "y": 5, "z": -4}))
    -12.0
    """
    kind = type(gate).__name__
    for node in inputs:
        if not isinstance(node, Node):
            raise TypeError(
                f"{kind} is applied to {shown(node)}; expected nodes: declare inputs with "
                'x, y = Graph().inputs("x y"), and pass their values to forward'
            )
    if not inputs:
        raise TypeError(f"{kind} is applied to nothing; expected apply({kind}(), x, y)")
    if not isinstance(gate, type) and not _is_pure(gate):
        arguments = ", ".join(["x", "y", "z", "..."][: len(inputs)])
        for method, words, given in (("forward", arguments, inputs), ("backward", "dz", (None,))):
            if not _takes(gate, method, *given):
                raise TypeError(
                    f"{kind}.{method} cannot take ({words}); expected a method of the class: "
                    f"def {method}(self, {words})"
                )
        gate = type(kind, (_Copying,), {})(gate)  # messages and pictures show the class's name
    return inputs[0].graph.apply(gate, *inputs, name=name)


def _takes(gate: Any, method: str, *arguments: Any) -> bool:
    """Say whether you can call the gate's method with so many arguments."""
    try:
        inspect.signature(getattr(gate, method)).bind(*arguments)
    except (AttributeError, TypeError):
        return False
    return True


def _is_pure(gate: Any) -> bool:
    """Say whether backward asks for a cache, too."""
    return not _takes(gate, "backward", None) and _takes(gate, "backward", None, None)


class _Copying:
    """A pure gate over an object that keeps its state: each pass has a copy of it, its cache."""

    def __init__(self, kept: Any) -> None:
        self.kept = kept

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        kept = copy(self.kept)
        return _forward(kept, type(self).__name__, inputs), kept

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool]) -> tuple[Array | None, ...]:
        return _backward(cache, type(self).__name__, len(needs), dout)


class _Keeping(StatefulGate):
    """Any gate of xpnet with its state, under the name of its node."""

    names = ("x", "y")

    def __init__(self, gate: gates.Gate, name: str) -> None:
        self.gate, self._name = gate, name
        self._kept = None

    def backward(self, dz: Any = 1.0) -> Any:
        # A gate has a gradient for each input that it may have, and None for one left out.
        parts = super().backward(dz)
        return parts[: self._kept[2]] if isinstance(parts, tuple) and self._kept else parts

    def _label(self) -> str:
        return self._name


@underflowing
def _forward(gate: Any, label: str, inputs: Sequence[Any]) -> Array:
    """Run an object's forward; a Python number that it returns becomes a 0-d array."""
    output = gate.forward(*inputs)
    if hasattr(output, "dtype"):
        return output
    if not isinstance(output, int | float):
        raise ValueError(
            f"{label}.forward returned {shown(output)}; expected an array: end it with return z"
        )
    return as_array(output, next((x for x in inputs if hasattr(x, "dtype") and is_real(x)), None))


@underflowing
def _backward(gate: Any, label: str, count: int, dz: Array) -> tuple[Array | None, ...]:
    """Run an object's backward; return one gradient for each of `count` inputs."""
    if not isinstance(gate, _Keeping):  # it may write into dz, which two gates may share
        dz = namespace(dz).asarray(dz, copy=True)
    returned = gate.backward(dz)
    parts = returned if isinstance(returned, tuple | list) else (returned,)
    if returned is None or len(parts) != count:
        end = "return dx" if count == 1 else f"return [dx, dy{', ...' * (count > 2)}]"
        raise ValueError(
            f"{label}.backward returned {shown(returned)}; expected {count} gradients, one for "
            f"each input: end it with {end}"
        )
    return tuple(as_array(p, dz) if type(p) in (int, float) else p for p in parts)


# By which place a gate's object ran forward last, by its id: two circuits may share one object.
_last: WeakValueDictionary[int, WiredGate] = WeakValueDictionary()


class WiredGate:
    """A gate of a `Circuit`, which knows the gates before it: forward takes no arguments.

    Attributes
    ----------
    name : str
        The name of its node.
    gate : object or None
        The gate that it runs, which keeps its state; None for an input gate.
    inputs : tuple of WiredGate
        The gates whose values it takes.
    value : array or None
        The output, after forward. Set that of an input gate to pass the input.
    gradient : array or None
        The circuit's gradient with respect to the value, after backward: the sum over the places
        where it is used. Do not write into it: two gates may share one array.
    """

    def __init__(self, node: Node, inputs: tuple[WiredGate, ...], circuit: Circuit) -> None:
        self.name, self.inputs = node.name, inputs
        gate: Any = node.gate
        if gate is not None:
            gate = gate.kept if isinstance(gate, _Copying) else _Keeping(gate, node.name)
        self.gate = gate
        self.value: Array | None = None
        self.gradient: Array | None = None
        self._node, self._circuit = node, circuit
        self._users: list[tuple[WiredGate, int]] = []  # last first, and which input it is of each
        self._ran = False
        self._sent: tuple[Array | None, ...] | None = None  # to its inputs, by backward

    def __repr__(self) -> str:
        if self.gate is None:
            return f"<WiredGate {self.name}: input>"
        kind = type(self._node.gate).__name__
        return f"<WiredGate {self.name} = {kind}({', '.join(g.name for g in self.inputs)})>"

    def forward(self) -> None:
        """Compute the value from the values of the inputs; forget the gradient.

        Raises
        ------
        KeyError
            An input gate has no value.
        RuntimeError
            A gate before it has not run forward.
        ValueError
            Shapes or dtypes do not fit, or the gate returned no array.
        """
        self.gradient, self._sent, self._ran = None, None, False
        if self.gate is None:
            circuit = self._circuit  # its graph makes an array of a number, like other inputs
            self.value, _ = circuit.graph.forward(circuit._given(), self._node)
        else:
            for source in self.inputs:
                if not source._ran:
                    raise RuntimeError(
                        f"{self.name}.forward needs {source.name}.forward first: go through the "
                        "gates in the order of nodes_topologically_sorted()"
                    )
            _last[id(self.gate)] = self
            self.value = _forward(self.gate, self.name, [source.value for source in self.inputs])
        self._ran = True

    def backward(self) -> None:
        """Add up the gradients that the gates after it sent, and send those of its inputs.

        The final gate starts with 1. You may run it again after one forward, with the same result.

        Raises
        ------
        RuntimeError
            It has not run forward, or a gate after it has not run backward.
        ValueError
            A gradient has not its input's shape, or is incomplete.
        """
        if not self._ran:
            raise RuntimeError(
                f"{self.name}.backward needs a forward first: run forward of each gate, in order"
            )
        self.gradient = self._received()
        if self.gate is None or self.gradient is None:
            self._sent = (None,) * len(self.inputs)
            return
        if _last.get(id(self.gate), self) is not self:
            raise RuntimeError(
                f"{self.name} is a gate of another circuit too, which has run forward since: run "
                "forward again"
            )
        parts = _backward(self.gate, self.name, len(self.inputs), self.gradient)
        for i, (part, source) in enumerate(zip(parts, self.inputs, strict=True)):
            shape = tuple(getattr(source.value, "shape", ()))  # of a number too, if you set one
            if part is None or (hasattr(part, "dtype") and is_real(part) and part.shape == shape):
                continue
            got = f"{part.dtype} of shape {tuple(part.shape)}" if hasattr(part, "dtype") else part
            raise ValueError(
                f"{self.name}.backward returned {got} for its input {i}, {source.name!r}; "
                f"expected real numbers of that input's shape, {shape}: sum over broadcast axes"
            )
        self._sent = parts

    def _received(self) -> Array | None:
        """Return the gradient of the value: 1 at the end; None if no gate sends one."""
        value: Any = self.value
        if self is self._circuit.final_gate:
            if not is_real(value):
                raise ValueError(f"{self.name} has dtype {value.dtype}; a gradient needs reals")
            return ones_like(value)
        total: Array | None = None
        silent = None
        for user, i in self._users:
            if user._sent is None:
                raise RuntimeError(
                    f"{self.name}.backward needs {user.name}.backward first: go through the gates "
                    "in reversed order"
                )
            part = user._sent[i]
            if part is None:
                silent = user
            else:
                total = part if total is None else total + part  # not in place: gates share arrays
        if silent is not None and total is not None:
            raise ValueError(
                f"{silent.name} gives no gradient to {self.name}, but another gate does: the "
                "gradient would be incomplete"
            )
        return total


class Circuit:
    """The gates that an output depends on, each with its value and its gradient.

    Parameters
    ----------
    output : Node
        A formula of nodes, or the result of `apply`.

    Attributes
    ----------
    input_gates : dict of str to WiredGate
        Set their values, or call `pass_inputs`.
    final_gate : WiredGate
        The gate that outputs the loss.

    Raises
    ------
    ValueError
        Two places of the circuit share one object that keeps its state.

    Examples
    --------
    >>> from xpnet import Graph
    >>> x, y, z = Graph().inputs("x y z")
    >>> circuit = Circuit((x + y) * z)
    >>> circuit.pass_inputs({"x": -2, "y": 5, "z": -4})
    >>> for gate in circuit.nodes_topologically_sorted():
    ...     gate.forward()
    >>> print(gate.value)
    -12.0
    >>> for gate in reversed(circuit.nodes_topologically_sorted()):
    ...     gate.backward()
    >>> for gate in circuit.nodes_topologically_sorted():
    ...     print(gate.name, gate.value, gate.gradient)
    x -2.0 -4.0
    y 5.0 -4.0
    Add1 3.0 -4.0
    z -4.0 3.0
    Mul1 -12.0 1.0
    """

    def __init__(self, output: Node) -> None:
        if not isinstance(output, Node):
            raise TypeError(
                f"the output is {shown(output)}; expected a node, such as the result of a formula"
            )
        assert isinstance(output.graph, Graph)  # a node's type names only a protocol
        self.graph, self.output = output.graph, output
        wired: dict[str, WiredGate] = {}
        places: dict[int, str] = {}
        for node in self.graph.nodes_topologically_sorted(output):
            gate: Any = node.gate
            if isinstance(gate, _Copying):
                first = places.setdefault(id(gate.kept), node.name)
                if first != node.name:
                    raise ValueError(
                        f"{first} and {node.name} are one object, which keeps the state of one "
                        f"place; expected another {type(gate).__name__}() for {node.name}"
                    )
            elif gate is not None and not _is_pure(gate):
                raise ValueError(
                    f"{node.name} keeps its state; expected xpnet.lecture.apply(gate, ...) in "
                    "place of graph.apply(gate, ...)"
                )
            sources = tuple(wired[name] for name in node.inputs)
            wired[node.name] = WiredGate(node, sources, self)
        for user in reversed(wired.values()):
            for i, source in enumerate(user.inputs):
                source._users.append((user, i))
        self._gates = list(wired.values())
        self.final_gate = wired[output.name]
        self.input_gates = {
            name: wired[name]
            for name, node in self.graph.nodes.items()
            if node.gate is None and name in wired
        }

    def __repr__(self) -> str:
        count = len(self._gates) - len(self.input_gates)
        return f"<Circuit of {len(self.input_gates)} inputs and {count} gates>"

    def nodes_topologically_sorted(self) -> list[WiredGate]:
        """Return the gates that the output depends on, input gates too, each after its inputs."""
        return list(self._gates)

    def pass_inputs(self, inputs: Mapping[str, Any]) -> None:
        """Give the input gates their values, and forget the values of all others.

        Raises
        ------
        KeyError, ValueError
            As `Graph.forward`.
        """
        for gate in self._gates:
            gate.value = gate.gradient = gate._sent = None
            gate._ran = False
        nodes = [gate._node for gate in self.input_gates.values()]
        values, _ = self.graph.forward(inputs, *nodes)
        for gate, value in zip(
            self.input_gates.values(), values if len(nodes) > 1 else (values,), strict=True
        ):
            gate.value = value

    def input_gradients(self) -> dict[str, Array]:
        """Return the gradients of the inputs that have one, after backward of each gate.

        Raises
        ------
        RuntimeError
            A gate has not run backward since its forward.
        """
        for gate in self._gates:
            if gate._sent is None:
                raise RuntimeError(
                    f"input_gradients needs {gate.name}.backward first: run backward of each gate, "
                    "in reversed order"
                )
        return {
            name: gate.gradient
            for name, gate in self.input_gates.items()
            if gate.gradient is not None
        }

    def draw(self, path: str | PathLike[str] | None = None, *, expand: bool = False) -> Any:
        """Draw the circuit into a file, or for a notebook; after a forward, with its numbers.

        Returns
        -------
        Picture or None
            As `Graph.draw`.
        """
        given = self._given() if self.final_gate._ran else None
        return self.graph.draw(path, given, self.output, expand=expand)

    def _repr_svg_(self) -> str:
        return str(self.draw())

    def _given(self) -> dict[str, Any]:
        """Return the values of the input gates, as `Graph.forward` takes them."""
        values = {name: gate.value for name, gate in self.input_gates.items()}
        return {name: value for name, value in values.items() if value is not None}


class ComputationalGraph:
    """The lecture's graph object: forward(inputs) returns the loss, backward() the gradients.

    Both methods are the lecture's loops, so you may write them again in a class of your own, over
    a `Circuit` or derived from this class.

    Parameters
    ----------
    output : Node or Circuit
        The node to evaluate and differentiate, see `xpnet.Graph`; or its circuit.

    Attributes
    ----------
    graph : Circuit
        The gates, with their values and gradients.
    output : Node

    Examples
    --------
    >>> from xpnet import Graph
    >>> x, y, z = Graph().inputs("x y z")
    >>> net = ComputationalGraph((x + y) * z)
    >>> print(net.forward({"x": -2, "y": 5, "z": -4}))
    -12.0
    >>> for name, gradient in net.backward().items():
    ...     print(name, gradient)
    x -4.0
    y -4.0
    z 3.0

    The lecture's loops, with what its slide leaves out:

    >>> class MyGraph(ComputationalGraph):
    ...     def forward(self, inputs):
    ...         self.graph.pass_inputs(inputs)
    ...         for gate in self.graph.nodes_topologically_sorted():
    ...             gate.forward()
    ...         loss = gate.value
    ...         return loss  # the final gate in the graph outputs the loss
    ...
    ...     def backward(self):
    ...         for gate in reversed(self.graph.nodes_topologically_sorted()):
    ...             gate.backward()
    ...         return self.graph.input_gradients()
    >>> net = MyGraph((x + y) * z)
    >>> print(net.forward({"x": -2, "y": 5, "z": -4}), net.backward()["z"])
    -12.0 3.0
    """

    def __init__(self, output: Node | Circuit) -> None:
        self.graph = output if isinstance(output, Circuit) else Circuit(output)
        self.output = self.graph.output

    def forward(self, inputs: Mapping[str, Any]) -> Array:
        """Pass the inputs through the gates in topological order; return the output.

        Raises
        ------
        KeyError, ValueError
            As `Graph.forward`.
        """
        self.graph.pass_inputs(inputs)
        for gate in self.graph.nodes_topologically_sorted():
            gate.forward()
        return self.graph.final_gate.value

    def backward(self) -> dict[str, Array]:
        """Chain the gates' gradients in reverse order; return those of the inputs.

        You may call it again after one forward; it returns the same.

        Raises
        ------
        RuntimeError
            You have not run forward, or the last forward failed.
        """
        for gate in reversed(self.graph.nodes_topologically_sorted()):
            gate.backward()
        return self.graph.input_gradients()

    def nodes_topologically_sorted(self) -> list[WiredGate]:
        """Return the gates that the output depends on, input gates too, each after its inputs."""
        return self.graph.nodes_topologically_sorted()

    def draw(self, path: str | PathLike[str], *, expand: bool = False) -> None:
        """Draw the circuit into a file; after a forward, with its values and gradients."""
        self.graph.draw(path, expand=expand)

    def _repr_svg_(self) -> str:
        return self.graph._repr_svg_()
