"""The node of a graph, and the operators that let a graph be written as a formula."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xpnet.array_gates import Index, Key, MatMul, Transpose
from xpnet.gates import Add, Div, Gate, Mul, Neg, Power, Reciprocal, Scale, Shift, Sub

if TYPE_CHECKING:
    from xpnet.graph import Graph

__all__ = ["Node"]

Names = str | Iterable["str | Node"]


@dataclass(frozen=True, eq=False)
class Node:
    """A named value of a graph: an input (``gate`` is None) or the output of a gate.

    Nodes are written like numbers: ``+ - * / @ **``, ``-x``, ``x[1:3]``, ``x.T`` add the gate
    of that name to the graph. Beside another node stands a Python number; an array has to be
    an input of the graph. Further functions are in `xpnet.functions`.
    """

    graph: Graph = field(repr=False)
    name: str
    gate: Gate | None = None
    inputs: tuple[str, ...] = ()
    optional: bool = False

    __array_ufunc__ = None  # array + node is for the node to refuse, not an array of nodes
    __iter__ = None  # without it, Python would try node[0], node[1], ... for ever

    def __add__(self, other: Node | float) -> Node:
        number = _number("+", other)
        return self._to(Add(), other) if number is None else self._to(Shift(number))

    __radd__ = __add__

    def __sub__(self, other: Node | float) -> Node:
        number = _number("-", other)
        return self._to(Sub(), other) if number is None else self._to(Shift(-number))

    def __rsub__(self, other: float) -> Node:
        return -self + other

    def __mul__(self, other: Node | float) -> Node:
        number = _number("*", other)
        return self._to(Mul(), other) if number is None else self._to(Scale(number))

    __rmul__ = __mul__

    def __truediv__(self, other: Node | float) -> Node:
        number = _number("/", other)
        return self._to(Div(), other) if number is None else self._to(Scale(1.0 / number))

    def __rtruediv__(self, other: float) -> Node:
        number = _number("/", other)
        inverse = self._to(Reciprocal())
        return inverse if number == 1 else inverse * other

    def __pow__(self, exponent: float) -> Node:
        number = _number("**", exponent)
        if number is None:
            raise TypeError("an exponent is a number here; for x ** y, write exp(y * log(x))")
        return self._to(Power(number))

    def __matmul__(self, other: Node) -> Node:
        if _number("@", other) is not None:
            raise TypeError(f"{self.name} @ {other}: to multiply by a number, use *")
        return self._to(MatMul(), other)

    def __rmatmul__(self, other: Any) -> Node:
        return self.__matmul__(other)  # an array or a number: refused, with the way out

    def __neg__(self) -> Node:
        return self._to(Neg())

    def __getitem__(self, key: Key | tuple[Key, ...]) -> Node:
        return self._to(Index(key))

    @property
    def T(self) -> Node:  # noqa: N802
        """The transpose: all axes in reverse order."""
        return self._to(Transpose())

    def _to(self, gate: Gate, *others: Any) -> Node:
        return self.graph.apply(gate, self, *others)


def _number(operator: str, operand: Any) -> float | None:
    """The operand if it is a number, None if it is a node; anything else is refused."""
    if isinstance(operand, Node):
        return None
    if isinstance(operand, int | float):
        return operand
    raise TypeError(
        f"{operator} between a node and {type(operand).__name__}: expected a node or a Python "
        "number; for an array, declare an input of the graph and give the array to forward"
    )


def names_of(nodes: Names) -> Iterator[str]:
    """Names of nodes, given as nodes, as names, or as one text of names with spaces."""
    words = nodes.split() if isinstance(nodes, str) else nodes
    return (word if isinstance(word, str) else word.name for word in words)
