"""Compare the gradients of backward with central differences, in float64.

``python -m xpnet.gradcheck --hidden 5,4 --activation sigmoid`` prints the table for a network,
and exits with status 1 if an error exceeds the tolerance.
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
    """The result of the check for one array.

    Attributes
    ----------
    name : str
    shape : tuple of int
    entries : int
        Number of entries that were compared.
    error : float
        ‖a - n‖ / (‖a‖ + ‖n‖), where a comes from backward and n from central differences; 0 if
        both are 0 up to rounding.
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
    """Return the central differences (f(x + h e_i) - f(x - h e_i)) / 2h, h = 1e-5 max(1, |x_i|).

    Parameters
    ----------
    f : callable
        Takes an array of x's shape and returns a number.
    x : array
        Each entry of a writable float64 NumPy array is changed in place and then restored, so
        that f may read the same array from elsewhere, as in the book. Any other array is copied
        first.
    indices : sequence of int, optional
        Entries of ``x.ravel()`` to differentiate by; all by default.

    Returns
    -------
    array
        Shape of x; with `indices`, shape (len(indices),).

    Notes
    -----
    The truncation error is h² f'''/6, the rounding error about 1e-16 f / h. With h = 1e-5, they
    are about 1e-10 and 1e-11 for f near 1.

    Examples
    --------
    >>> numerical_gradient(lambda x: float((x**2).sum()), np.array([1.0, 3.0])).round(6)
    array([2., 6.])
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
        slopes[place] = (high - low) / (above - below)  # 2h as it was rounded
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
        The inputs named in `wrt` must be float64.
    output : Node
        The check differentiates the sum of its elements, each multiplied by a random number.
    wrt : sequence of str
        Inputs to differentiate by.
    asarray, to_numpy : callable, optional
        Convert an array to another library and back, to check that library.
    entries : int, optional
        Number of random entries of each array to compare; all by default.
    seed : int
        Seed of the random numbers and of the choice of entries.

    Returns
    -------
    list of Row
        In the order of `wrt`.

    Raises
    ------
    ValueError
        A gradient has the wrong shape, or `Graph.forward` or `Graph.backward` refuses its input.

    Examples
    --------
    >>> graph = Graph()
    >>> x, y = graph.inputs("x y")
    >>> rows = check(graph, {"x": np.ones(3), "y": np.full(3, 2.0)}, x * y, ["x", "y"])
    >>> [row.error < 1e-9 for row in rows]
    [True, True]
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
            # Copy, since a library may keep the memory and compute later.
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
    # Both gradients are 0 up to rounding if the output does not react to the array.
    return float(np.linalg.norm(a - n)) / total if total > 1e-9 else 0.0


def check_gate(
    gate: Any,
    *inputs: np.ndarray | None,
    wrt: Sequence[int] | None = None,
    **options: Any,
) -> list[Row]:
    """Check a single gate, as `check` does for a graph.

    Parameters
    ----------
    gate : Gate
    *inputs : NumPy arrays
        None leaves out an optional input.
    wrt : sequence of int, optional
        Positions of the inputs to differentiate by; by default those of a floating dtype.
    **options
        Options of `check`.

    Returns
    -------
    list of Row
        One per input in `wrt`, named ``input0``, ``input1``, ...

    Examples
    --------
    >>> from xpnet.gates import Mul
    >>> [row.name for row in check_gate(Mul(), np.ones(3), np.ones(3))]
    ['input0', 'input1']
    """
    graph = Graph()
    names = [f"input{i}" for i in range(len(inputs))]
    nodes = [graph.input(name, optional=True) for name in names]
    output = graph.apply(gate, *nodes)
    given = {name: a for name, a in zip(names, inputs, strict=True) if a is not None}
    if wrt is None:
        wrt = [i for i, a in enumerate(inputs) if a is not None and a.dtype.kind == "f"]
    return check(graph, given, output, [names[i] for i in wrt], **options)
