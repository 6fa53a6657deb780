"""Nodes of a graph, with the operators that let you write a graph as a formula; and traces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, NoReturn, Protocol

from xpnet.arrays.ops import Array
from xpnet.gates.arrays import Index, Key, MatMul, Transpose
from xpnet.gates.elementwise import Add, Div, Mul, Neg, Over, Power, Reciprocal, Scale, Shift, Sub
from xpnet.gates.protocol import Gate

__all__ = ["Builder", "Node", "Trace"]

Names = str | Iterable["str | Node"]


class Builder(Protocol):
    """The methods of a `Graph` that its nodes call."""

    def apply(self, gate: Gate, *inputs: Node | str, name: str | None = None) -> Node:
        """Add a gate and return the node of its output."""
        ...

    def rename(self, node: Node, name: str) -> Node:
        """Rename a node and return the renamed node."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """A named value of a graph: an input (``gate`` is None) or the output of a gate.

    You compute with nodes as with numbers: ``+ - * / @ **``, ``-x``, ``x[1:3]`` and ``x.T`` each
    add a gate to the graph. The other operand of ``+ - * /`` is a node or a Python number, that
    of ``@`` a node, an exponent a number; declare an array as an input of the graph.
    `xpnet.functions` has further functions.
    """

    graph: Builder
    name: str
    gate: Gate | None = None
    inputs: tuple[str, ...] = ()
    optional: bool = False

    def __repr__(self) -> str:
        if self.gate is None:
            return f"<Node {self.name}: {'optional input' if self.optional else 'input'}>"
        return f"<Node {self.name} = {type(self.gate).__name__}({', '.join(self.inputs)})>"

    __array_ufunc__ = None  # so array + node reaches the node, which refuses it
    __iter__ = None  # else Python would try node[0], node[1], ... without end

    def __array_function__(self, function: Any, *rest: Any) -> NoReturn:
        raise TypeError(
            f"numpy.{function.__name__} takes arrays, not a node of a graph; see xpnet.functions"
        )

    def __array__(self, *rest: Any, **options: Any) -> NoReturn:
        raise TypeError(
            f"{self.name!r} is a node of a graph, not an array; Graph.forward returns arrays"
        )

    # Each operator checks its operands first, so that a refused formula adds no gate.

    def __add__(self, other: Node | float) -> Node:
        number = _number("+", other)
        return self._to(Add(), other) if number is None else self._to(Shift(number))

    __radd__ = __add__

    def __sub__(self, other: Node | float) -> Node:
        number = _number("-", other)
        return self._to(Sub(), other) if number is None else self._to(Shift(-number))

    def __rsub__(self, other: float) -> Node:
        number = _number("-", other)
        return (-self)._to(Shift(number))

    def __mul__(self, other: Node | float) -> Node:
        number = _number("*", other)
        return self._to(Mul(), other) if number is None else self._to(Scale(number))

    __rmul__ = __mul__

    def __truediv__(self, other: Node | float) -> Node:
        number = _number("/", other)
        if number == 0:
            raise ZeroDivisionError(f"{self.name} / 0")
        return self._to(Div(), other) if number is None else self._to(Over(number))

    def __rtruediv__(self, other: float) -> Node:
        return self._to(Reciprocal(_number("/", other)))

    def __pow__(self, exponent: float) -> Node:
        number = _number("**", exponent)
        if number is None:
            raise TypeError("expected a number as exponent; for x ** y, write exp(y * log(x))")
        return self._to(Power(int(number) if number.is_integer() else number))

    def __matmul__(self, other: Node) -> Node:
        if _number("@", other) is not None:
            raise TypeError(f"{self.name} @ {other}: to multiply by a number, use *")
        return self._to(MatMul(), other)

    def __rmatmul__(self, other: Any) -> Node:
        return self.__matmul__(other)  # refuses an array or a number, and says what to do

    def __rpow__(self, base: float) -> Node:
        raise TypeError(f"for c ** {self.name} with a number c, write exp(math.log(c) * x)")

    def __neg__(self) -> Node:
        return self._to(Neg())

    def __getitem__(self, key: Key | tuple[Key, ...]) -> Node:
        return self._to(Index(key))

    @property
    def T(self) -> Node:  # noqa: N802
        """The transpose: it has all axes in reverse order."""
        return self._to(Transpose())

    def named(self, name: str) -> Node:
        """Name the node, for pictures and messages: ``q = (x + y).named("q")``.

        Returns
        -------
        Node
            Use it from now on; the graph no longer knows the old node.

        Raises
        ------
        ValueError
            The name is invalid or taken, or a gate already uses the node.
        """
        return self.graph.rename(self, name)

    def _to(self, gate: Gate, *others: Any) -> Node:
        return self.graph.apply(gate, self, *others)


class Trace(NamedTuple):
    """All values and gradients of one forward and backward pass, by node name.

    Attributes
    ----------
    output : str
        Name of the node that was differentiated.
    values : dict of str to array
        The value of every node that the output depends on.
    grads : dict of str to array
        The output's gradient with respect to each of these nodes that has one.
    flows : dict of (str, int) to array
        The gradient that a gate (by its node's name) sent back to its i-th input. A node that
        several gates use has the sum of these as its gradient.
    """

    output: str
    values: dict[str, Array]
    grads: dict[str, Array]
    flows: dict[tuple[str, int], Array]


def _number(operator: str, operand: Any) -> Any:
    """Return a number as a Python float and None for a node; refuse everything else.

    The float matters, since a NumPy scalar would bring its own dtype into the formula.
    """
    if isinstance(operand, Node):
        return None
    if isinstance(operand, Real):
        return float(operand)
    raise TypeError(
        f"{operator} between a node and {type(operand).__name__}: expected a node or a Python "
        "number; for an array, declare an input of the graph and pass the array to forward"
    )


def names_of(nodes: Names | Node) -> Iterator[str]:
    """Yield the names of nodes, given as nodes, as names, or as one str of names with spaces."""
    if isinstance(nodes, Node):
        nodes = (nodes,)
    for node in nodes.split() if isinstance(nodes, str) else nodes:
        if isinstance(node, Node):
            yield node.name
        elif isinstance(node, str):
            yield node
        else:
            raise TypeError(f"expected a node of the graph or its name, got {type(node).__name__}")
