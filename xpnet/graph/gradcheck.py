"""Is backward right? Its gradients against central differences, in float64.

``python -m xpnet.gradcheck --hidden 5,4 --activation sigmoid`` prints the table for a network
and ends with status 1 if any error is above the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xpnet.arrays.ops import Array
from xpnet.graph.graph import Graph
from xpnet.graph.node import Node

__all__ = ["Row", "check", "check_gate", "numerical_gradient"]

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
