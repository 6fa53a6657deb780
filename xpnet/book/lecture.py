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
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, ClassVar

from xpnet import gates, layers
from xpnet.arrays.ops import Array, as_array, is_real
from xpnet.graph.autodiff import MISFIT, Tape, one_line
from xpnet.graph.graph import Graph
from xpnet.graph.node import Node
from xpnet.show.draw import picture

__all__ = [
    "AddGate", "ComputationalGraph", "DivideGate", "ExpGate", "L2Gate", "LogGate", "MatMulGate",
    "MaxGate", "MeanGate", "MultiplyGate", "NegateGate", "ReLUGate", "ReciprocalGate",
    "SigmoidGate", "SquareGate", "StatefulGate", "SubtractGate", "SumGate",
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
            if hasattr(x, "dtype") and not (moves or i in integers or is_real(x)):
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


class ComputationalGraph:
    """The lecture's graph object: forward(inputs) returns the loss, backward() the gradients.

    Parameters
    ----------
    output : Node
        The node to evaluate and differentiate; see `xpnet.Graph`.

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
    """

    def __init__(self, output: Node) -> None:
        assert isinstance(output.graph, Graph)  # a node's type names only a protocol
        self.graph, self.output = output.graph, output
        self._inputs: Mapping[str, Any] | None = None
        self._tape: Tape | None = None

    def forward(self, inputs: Mapping[str, Any]) -> Array:
        """Pass the inputs through the gates in topological order; return the output.

        Raises
        ------
        KeyError, ValueError
            As `Graph.forward`.
        """
        self._inputs = self._tape = None  # if this forward fails, backward must not use an earlier
        loss, tape = self.graph.forward(inputs, self.output)
        self._inputs, self._tape = dict(inputs), tape
        return loss

    def backward(self) -> dict[str, Array]:
        """Chain the gates' gradients in reverse order; return those of the inputs.

        Raises
        ------
        RuntimeError
            You have not run forward, or you have already run backward after it.
        """
        if self._tape is None:
            raise RuntimeError(
                f"backward from {self.output.name} needs a forward first: run forward, and run it "
                "again before a second backward"
            )
        input_gradients = self.graph.backward(self._tape)
        self._tape = None
        return input_gradients

    def nodes_topologically_sorted(self) -> list[Node]:
        """Return the nodes that the output depends on, each after its inputs."""
        return self.graph.nodes_topologically_sorted(self.output)

    def draw(self, path: str | PathLike[str], *, expand: bool = False) -> None:
        """Draw the circuit into a file; after a forward, with its values and gradients."""
        self.graph.draw(path, self._inputs, self.output, expand=expand)

    def _repr_svg_(self) -> str:
        trace = None if self._inputs is None else self.graph.trace(self._inputs, self.output)
        return picture(self.nodes_topologically_sorted(), trace)
