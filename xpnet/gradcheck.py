"""Is backward right? Its gradients against central differences, in float64.

``python -m xpnet.gradcheck --hidden 5,4 --activation sigmoid`` prints the table for a network
and ends with status 1 if any error is above the tolerance.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from xpnet.graph import Graph
from xpnet.node import Node

__all__ = ["Row", "check", "check_gate", "numerical_gradient"]

Array = Any
TOLERANCE = 1e-6


class Row(NamedTuple):
    """One array's result.

    Attributes
    ----------
    name : str
    shape : tuple of int
    entries : int
        How many of its entries were compared.
    error : float
        ‖a - n‖ / (‖a‖ + ‖n‖), a from backward, n numerical; 0 where both are 0.
    """

    name: str
    shape: tuple[int, ...]
    entries: int
    error: float


def numerical_gradient(
    f: Callable[[np.ndarray], float],
    x: np.ndarray,
    indices: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """Central differences (f(x + h e_i) - f(x - h e_i)) / 2h, h = 1e-5 max(1, |x_i|).

    Parameters
    ----------
    f : callable
        From an array of x's shape to a number.
    x : array
        If it is a writable NumPy array of float64, its entries are moved one by one and put
        back, so that f may also read it from elsewhere, as in the book; else a copy is moved.
    indices : sequence of int, optional
        The entries of ``x.ravel()`` to differentiate by; all by default.

    Returns
    -------
    array
        Of x's shape; with `indices`, shape=(len(indices),).

    Notes
    -----
    The truncation error is h² f'''/6, the rounding error about 1e-16 f / h: h = 1e-5 leaves
    1e-10 and 1e-11 for f near 1.
    """
    if not (isinstance(x, np.ndarray) and x.dtype == np.float64 and x.flags.writeable):
        x = np.array(x, np.float64)
    picked = np.arange(x.size) if indices is None else indices
    slopes = np.empty(len(picked))
    for place, i in enumerate(picked):
        kept = x.flat[i]
        h = 1e-5 * max(1.0, abs(kept))
        above, below = kept + h, kept - h
        try:
            x.flat[i] = above
            high = f(x)
            x.flat[i] = below
            low = f(x)
        finally:
            x.flat[i] = kept
        slopes[place] = (high - low) / (above - below)  # the step as rounded, not as meant
    return slopes.reshape(x.shape) if indices is None else slopes


def check(
    graph: Graph,
    inputs: Mapping[str, np.ndarray],
    output: Node,
    wrt: Sequence[str],
    *,
    asarray: Callable[[np.ndarray], Array] = np.asarray,
    to_numpy: Callable[[Array], np.ndarray] = np.asarray,
    entries: int | None = None,
    seed: int = 0,
) -> list[Row]:
    """Compare `Graph.backward` with central differences.

    Parameters
    ----------
    graph : Graph
    inputs : mapping of str to NumPy array
        Those in `wrt` in float64.
    output : Node
        If it is not 0-d, its product with fixed random numbers is differentiated.
    wrt : sequence of str
    asarray, to_numpy : callable, optional
        To another library and back.
    entries : int, optional
        Compare so many random entries of each array; all by default.
    seed : int

    Returns
    -------
    list of Row, in the order of `wrt`
    """
    rng = np.random.default_rng(seed)
    arrays = {name: asarray(value) for name, value in inputs.items()}
    value, tape = graph.forward(arrays, output)
    dout = rng.uniform(0.5, 1.5, value.shape) * rng.choice([-1.0, 1.0], value.shape)
    grads = graph.backward(tape, wrt, [asarray(np.asarray(dout))])
    rows = []
    for name in wrt:
        x = np.array(inputs[name], np.float64)
        picked = np.arange(x.size)
        if entries is not None and entries < x.size:
            picked = np.sort(rng.choice(x.size, entries, replace=False))

        def f(moved: np.ndarray, name: str = name) -> float:
            # A copy: a library may keep the memory, and compute later.
            result, _ = graph.forward({**arrays, name: asarray(moved.copy())}, output)
            return float((to_numpy(result) * dout).sum())

        numerical = numerical_gradient(f, x, picked)
        analytic = to_numpy(grads[name])
        if analytic.shape != x.shape:
            raise ValueError(f"gradient of {name} has shape {analytic.shape}, expected {x.shape}")
        rows.append(Row(name, x.shape, len(picked), _error(analytic.ravel()[picked], numerical)))
    return rows


def _error(a: np.ndarray, n: np.ndarray) -> float:
    total = float(np.linalg.norm(a) + np.linalg.norm(n))
    # Both zero but for rounding: a bias that no path to the output is sensitive to.
    return float(np.linalg.norm(a - n)) / total if total > 1e-9 else 0.0


def check_gate(
    gate: Any,
    *inputs: np.ndarray | None,
    wrt: Sequence[int] | None = None,
    **options: Any,
) -> list[Row]:
    """As `check`, of a single gate.

    Parameters
    ----------
    gate : Gate
    *inputs : NumPy arrays, or None for an optional one
    wrt : sequence of int, optional
        Numbers of the inputs to differentiate by; by default those of floating type.
    **options
        As for `check`.
    """
    graph = Graph()
    names = [f"input{i}" for i in range(len(inputs))]
    nodes = [graph.input(name, optional=True) for name in names]
    output = graph.apply(gate, *nodes)
    given = {name: a for name, a in zip(names, inputs, strict=True) if a is not None}
    if wrt is None:
        wrt = [i for i, a in enumerate(inputs) if a is not None and a.dtype.kind == "f"]
    return check(graph, given, output, [names[i] for i in wrt], **options)


@dataclass(frozen=True)
class Arguments:
    """Check a network's gradients against central differences, in float64."""

    inputs: int = 64
    """Number of inputs."""
    hidden: str = "50"
    """Sizes of the hidden layers, separated by commas."""
    outputs: int = 10
    """Number of outputs."""
    activation: str = "sigmoid"
    """One for all hidden layers, or one each, separated by commas."""
    loss: Literal["softmax", "squared", "sigmoid", "hinge"] = "softmax"
    """Loss."""
    dropout: float = 0.0
    """Ratio of dropout; its mask is the same for all differences."""
    batch: int = 3
    """Samples."""
    entries: int = 1000
    """Most entries compared per parameter; 0 compares all."""
    tolerance: float = TOLERANCE
    """Largest relative error that passes."""
    seed: int = 0
    """Of weights, data and the choice of entries."""
    backend: Literal["numpy", "torch", "jax", "strict"] = "numpy"
    """Array library, on the CPU."""


def _table(rows: Sequence[Row], tolerance: float) -> str:
    lines = [f"{'parameter':<10} {'shape':>14} {'compared':>9} {'relative error':>15}"]
    for row in rows:
        verdict = "ok" if row.error <= tolerance else "WRONG"
        lines.append(
            f"{row.name:<10} {row.shape!s:>14} {row.entries:>9,} {row.error:>15.2e}  {verdict}"
        )
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 1 if a gradient is wrong."""
    import tyro

    from xpnet.cli import run

    return run(lambda: _command(tyro.cli(Arguments, args=args, prog="python -m xpnet.gradcheck")))


def _command(a: Arguments) -> int:
    from xpnet.backend import select
    from xpnet.cli import say
    from xpnet.errors import UsageError
    from xpnet.models import mlp

    if a.batch < 1 or a.entries < 0 or not a.tolerance > 0:
        raise UsageError("expected --batch 1 or more, --entries 0 or more, --tolerance above 0")
    if a.outputs < 2 and a.loss in ("softmax", "hinge"):
        raise UsageError(f"--loss {a.loss} needs --outputs 2 or more, got {a.outputs}")
    try:
        sizes = [a.inputs, *(int(n) for n in a.hidden.split(",") if n), a.outputs]
    except ValueError:
        raise UsageError(f"--hidden {a.hidden!r}: expected sizes separated by commas") from None
    kinds = a.activation.split(",")
    kinds = kinds * (len(sizes) - 2) if len(kinds) == 1 else kinds
    try:
        network = mlp(sizes, kinds, loss=a.loss, dropout=a.dropout, seed=a.seed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    backend = select("cpu", a.backend, "float64")
    rng = np.random.default_rng(a.seed)
    # Biases start at 0, where a rectifier has its kink; anywhere else will do.
    params = {
        name: p if p.ndim > 1 else rng.uniform(-0.1, 0.1, p.shape)
        for name, p in network.params.items()
    }
    inputs = {
        **params,
        "x": rng.standard_normal((a.batch, a.inputs)),
        "t": rng.integers(0, max(a.outputs, 2), a.batch).astype(np.int32),
        "step": np.asarray([1], np.int32),
    }
    rows = check(
        network.graph,
        inputs,
        network.loss,
        list(params),
        asarray=backend.asarray,
        to_numpy=backend.to_numpy,
        entries=a.entries or None,
        seed=a.seed,
    )
    say(_table(rows, a.tolerance))
    worst = max(rows, key=lambda row: row.error if math.isfinite(row.error) else math.inf)
    passed = worst.error <= a.tolerance
    say(
        f"{'passed' if passed else 'FAILED'}: largest relative error {worst.error:.2e} "
        f"({worst.name}), tolerance {a.tolerance:.0e}, {backend}"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
