"""The names of Stanford's CS231n, lecture 4: gates and graphs that remember.

xpnet's own gates are pure functions (`xpnet.gates`): they return a cache instead of keeping
it, which is what lets one graph be compiled, captured, or run twice. The lecture's objects
keep it. Here they are, over the same gates.

>>> gate = MultiplyGate()
>>> print(gate.forward(3, -4))
-12.0
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
    """A gate that keeps between forward and backward what its gradient needs.

    Parameters
    ----------
    *arguments
        Of the gate underneath: ``SumGate(0)`` sums over axis 0.
    """

    kind: ClassVar[Callable[..., gates.Gate]]

    def __init__(self, *arguments: Any) -> None:
        self.gate = self.kind(*arguments)
        self._kept: tuple[Any, Array, int] | None = None

    def forward(self, *inputs: Any) -> Array:
        """The output; a Python number stands for a 0-d array.

        Raises
        ------
        ValueError
            An array of integers where the gate needs real numbers; shapes that do not fit.
        """
        self._kept = None  # whatever comes, backward shall not go through an earlier forward
        integers = getattr(self.gate, "integers", ())
        for i, x in enumerate(inputs):
            if hasattr(x, "dtype") and i not in integers and not is_real(x):
                raise ValueError(
                    f"{type(self).__name__}.forward got an array of {x.dtype}; expected real "
                    "numbers: convert it to float64 or float32"
                )
        like = next((x for x in inputs if hasattr(x, "dtype") and is_real(x)), None)
        arrays = [as_array(x, like) if isinstance(x, int | float) else x for x in inputs]
        try:
            output, cache = self.gate.forward(*arrays)
        except MISFIT as error:
            raise ValueError(f"{type(self).__name__}.forward: {one_line(error)}") from error
        self._kept = cache, output, len(arrays)
        return output

    def backward(self, dz: Any = 1.0) -> Any:
        """The gradient of each input, given that of the output; once per forward.

        Raises
        ------
        RuntimeError
            Forward was not run before.
        ValueError
            dz is no real array of the output's shape.
        """
        name = type(self).__name__
        if self._kept is None:
            raise RuntimeError(
                f"{name}.backward has nothing to go back through: run forward before it, and "
                "again before a second backward"
            )
        cache, output, count = self._kept
        dz = as_array(dz, output) if isinstance(dz, int | float) else dz
        if not hasattr(dz, "dtype") or not is_real(dz) or dz.shape != output.shape:
            got = f"{dz.dtype} of shape {tuple(dz.shape)}" if hasattr(dz, "dtype") else repr(dz)
            raise ValueError(
                f"{name}.backward got {got}; expected real numbers of the output's shape, "
                f"{tuple(output.shape)}"
            )
        self._kept = None
        parts = self.gate.backward(cache, dz, (True,) * count)
        return parts[0] if count == 1 else parts


class AddGate(StatefulGate):
    """x + y, the gradient distributor."""

    kind = gates.Add


class SubtractGate(StatefulGate):
    """x - y."""

    kind = gates.Sub


class MultiplyGate(StatefulGate):
    """x y, the gradient switcher."""

    kind = gates.Mul


class DivideGate(StatefulGate):
    """x / y."""

    kind = gates.Div


class MaxGate(StatefulGate):
    """max(x, y), the gradient router; at a tie the first input receives it."""

    kind = gates.Max


class NegateGate(StatefulGate):
    """-x."""

    kind = gates.Neg


class ExpGate(StatefulGate):
    """eˣ."""

    kind = gates.Exp


class LogGate(StatefulGate):
    """ln x."""

    kind = gates.Log


class ReciprocalGate(StatefulGate):
    """1 / x."""

    kind = gates.Reciprocal


class SquareGate(StatefulGate):
    """x²."""

    def __init__(self) -> None:
        super().__init__(2)

    kind = gates.Power


class SigmoidGate(StatefulGate):
    """1 / (1 + e⁻ˣ)."""

    kind = layers.Sigmoid


class ReLUGate(StatefulGate):
    """max(0, x)."""

    kind = layers.ReLU


class MatMulGate(StatefulGate):
    """W x."""

    kind = gates.MatMul


class L2Gate(StatefulGate):
    """‖q‖² = q₁² + ... + qₙ²."""

    kind = gates.SquaredNorm


class SumGate(StatefulGate):
    """Σ x, over an axis if one is given."""

    kind = gates.Sum


class MeanGate(StatefulGate):
    """The mean of x, over an axis if one is given."""

    kind = gates.Mean


class ComputationalGraph:
    """The lecture's graph object: forward(inputs) gives the loss, backward() the gradients.

    Parameters
    ----------
    output : Node
        The last node of a formula; see `xpnet.Graph`.

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
        assert isinstance(output.graph, Graph)  # a node declares only what it calls
        self.graph, self.output = output.graph, output
        self._inputs: Mapping[str, Any] | None = None
        self._tape: Tape | None = None

    def forward(self, inputs: Mapping[str, Any]) -> Array:
        """Pass the inputs through the gates, in topological order; returns the output."""
        self._inputs = self._tape = None  # backward shall not go through an earlier forward
        loss, tape = self.graph.forward(inputs, self.output)
        self._inputs, self._tape = dict(inputs), tape
        return loss

    def backward(self) -> dict[str, Array]:
        """Chain the gates' gradients in reverse order; returns those of the inputs.

        Raises
        ------
        RuntimeError
            Forward was not run before.
        """
        if self._tape is None:
            raise RuntimeError(
                f"backward from {self.output.name} has nothing to go back through: run forward "
                "before it, and again before a second backward"
            )
        input_gradients = self.graph.backward(self._tape)
        self._tape = None
        return input_gradients

    def nodes_topologically_sorted(self) -> list[Node]:
        """The nodes that the output depends on, each after its inputs."""
        return self.graph.nodes_topologically_sorted(self.output)

    def draw(self, path: str | PathLike[str], *, expand: bool = False) -> None:
        """Draw the circuit with the values and gradients of the last forward, if there was one."""
        self.graph.draw(path, self._inputs, self.output, expand=expand)

    def _repr_svg_(self) -> str:
        trace = None if self._inputs is None else self.graph.trace(self._inputs, self.output)
        return picture(self.nodes_topologically_sorted(), trace)
