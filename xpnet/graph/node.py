"""The node of a graph, the operators that let a graph be written as a formula, and a trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple, NoReturn, Protocol

from xpnet.arrays.ops import Array
from xpnet.gates.arrays import Index, Key, MatMul, Transpose
from xpnet.gates.elementwise import Add, Div, Mul, Neg, Over, Power, Reciprocal, Scale, Shift, Sub
from xpnet.gates.protocol import Gate

__all__ = ["Builder", "Node", "Trace"]

Names = str | Iterable["str | Node"]


class Builder(Protocol):
    """The part of a `Graph` that its nodes call."""

    def apply(self, gate: Gate, *inputs: Node | str, name: str | None = None) -> Node:
        """Add a gate, and return the node of its output."""
        ...

    def rename(self, node: Node, name: str) -> Node:
        """Give a node another name, and return it under that name."""
        ...


@dataclass(frozen=True, eq=False)
class Node:
    """A named value of a graph: an input (``gate`` is None) or the output of a gate.

    Nodes are written like numbers: ``+ - * / @ **``, ``-x``, ``x[1:3]``, ``x.T`` add the gate
    of that name to the graph. Beside another node stands a Python number; an array has to be
    an input of the graph. Further functions are in `xpnet.functions`.
    """

    graph: Builder = field(repr=False)
    name: str
    gate: Gate | None = None
    inputs: tuple[str, ...] = ()
    optional: bool = False

    __array_ufunc__ = None  # array + node is for the node to refuse, not an array of nodes
    __iter__ = None  # without it, Python would try node[0], node[1], ... for ever

    def __array_function__(self, function: Any, *rest: Any) -> NoReturn:
        raise TypeError(
            f"numpy.{function.__name__} takes arrays, not a node of a graph; see xpnet.functions"
        )

    def __array__(self, *rest: Any, **options: Any) -> NoReturn:
        raise TypeError(f"{self.name!r} is a node of a graph, not an array; forward gives arrays")

    # Each operator looks at its operands before it adds a gate: what is refused adds none.

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
            raise TypeError("an exponent is a number here; for x ** y, write exp(y * log(x))")
        return self._to(Power(int(number) if number.is_integer() else number))

    def __matmul__(self, other: Node) -> Node:
        if _number("@", other) is not None:
            raise TypeError(f"{self.name} @ {other}: to multiply by a number, use *")
        return self._to(MatMul(), other)

    def __rmatmul__(self, other: Any) -> Node:
        return self.__matmul__(other)  # an array or a number: refused, with the way out

    def __rpow__(self, base: float) -> Node:
        raise TypeError(f"{base} ** {self.name}: write exp(log(base) * x), log of a Python number")

    def __neg__(self) -> Node:
        return self._to(Neg())

    def __getitem__(self, key: Key | tuple[Key, ...]) -> Node:
        return self._to(Index(key))

    @property
    def T(self) -> Node:  # noqa: N802
        """The transpose: all axes in reverse order."""
        return self._to(Transpose())

    def named(self, name: str) -> Node:
        """The same node under a name, for pictures and messages: ``q = (x + y).named("q")``."""
        return self.graph.rename(self, name)

    def _to(self, gate: Gate, *others: Any) -> Node:
        return self.graph.apply(gate, self, *others)


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


def _number(operator: str, operand: Any) -> Any:
    """The operand as a Python float if it is a number, None if a node; all else is refused.

    A NumPy scalar would carry its own dtype into the formula.
    """
    if isinstance(operand, Node):
        return None
    if isinstance(operand, Real):
        return float(operand)
    raise TypeError(
        f"{operator} between a node and {type(operand).__name__}: expected a node or a Python "
        "number; for an array, declare an input of the graph and give the array to forward"
    )


def names_of(nodes: Names | Node) -> Iterator[str]:
    """Names of nodes, given as nodes, as names, or as one text of names with spaces."""
    if isinstance(nodes, Node):
        nodes = (nodes,)
    for node in nodes.split() if isinstance(nodes, str) else nodes:
        if isinstance(node, Node):
            yield node.name
        elif isinstance(node, str):
            yield node
        else:
            raise TypeError(f"expected a node of the graph or its name, got {type(node).__name__}")
