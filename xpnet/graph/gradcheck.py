"""Compare the gradients of backward with central differences, in float64.

``python -m xpnet.gradcheck --hidden 5,4 --activation sigmoid`` prints the table for a network,
and exits with status 1 if an error exceeds the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_array_api_obj, is_writeable_array

from xpnet.arrays.ops import Array, is_real, namespace
from xpnet.graph.graph import Graph
from xpnet.graph.node import Node

__all__ = ["Row", "check", "check_gate", "is_movable", "numerical_gradient"]

TOLERANCE = 1e-6
EPS64 = 2.0**-52


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
    f: Callable[[Any], Any],
    x: Array,
    indices: Sequence[int] | np.ndarray | None = None,
    h: float | None = None,
) -> np.ndarray:
    """Return the central differences (f(x + h e_i) - f(x - h e_i)) / 2h.

    Parameters
    ----------
    f : callable
        Takes an array of x's shape and returns a number.
    x : array
        Each entry of a real array of any library is changed in place and then restored, so that f
        may read the same array from elsewhere, as in the book. A PyTorch tensor may require grad.
        What cannot be changed, or holds no floating-point numbers, is copied to NumPy's float64
        first: f must then use the copy that it gets.
    indices : sequence of int, optional
        Entries of the flattened x to differentiate by; all by default.
    h : float, optional
        The step. By default max(1, |x_i|) times 1e-5 in float64, and times the cube root of the
        precision in other dtypes: 0.005 in float32, 0.1 in float16. Yours is raised to √ε |x_i|
        where it is smaller, since rounding would take most of its digits.

    Returns
    -------
    array
        NumPy's float64, of x's shape; with `indices`, shape (len(indices),).

    Raises
    ------
    ValueError
        f returns something else than one number.

    Notes
    -----
    The truncation error is h² f'''/6, the rounding error about ε f / h, with the precision ε of x's
    dtype. In float64 they are about 1e-10 and 1e-11 for f near 1; in float32, both are about 1e-5.
    The difference of f is divided by the distance of the two entries as they were rounded.

    Examples
    --------
    >>> numerical_gradient(lambda x: float((x**2).sum()), np.array([1.0, 3.0])).round(6)
    array([2., 6.])
    """
    if not is_movable(x):
        x = np.array(x, np.float64)
    precision = float(namespace(x).finfo(x.dtype).eps)
    relative = 1e-5 if precision == EPS64 else precision ** (1 / 3)
    moved = x.detach() if getattr(x, "requires_grad", False) else x  # of the same memory
    shape = tuple(x.shape)
    slopes = []
    for i in np.ndindex(shape) if indices is None else _places(indices, shape):
        kept = _entry(moved, i)
        size = abs(float(kept))
        step = relative * max(1.0, size) if h is None else max(h, math.sqrt(precision) * size)
        try:
            moved[i] = kept + step
            above, high = _entry(moved, i), _value(f(x))
            moved[i] = kept - step
            below, low = _entry(moved, i), _value(f(x))
        finally:
            moved[i] = kept
        slopes.append((high - low) / float(above - below))
    return np.array(slopes).reshape(shape if indices is None else (-1,))


def is_movable(x: Any) -> bool:
    """Say whether x is an array of real floating-point numbers that can be changed in place.

    Examples
    --------
    >>> is_movable(np.ones(2)), is_movable(np.ones(2, int)), is_movable(1.0)
    (True, False, False)
    """
    return is_array_api_obj(x) and bool(is_writeable_array(x)) and is_real(x)


def _places(indices: Iterable[int], shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield where the entries of the flattened array stand; -1 is the last one."""
    entries = range(math.prod(shape))
    for i in indices:
        yield tuple([int(place) for place in np.unravel_index(entries[i], shape)])


def _entry(x: Array, i: tuple[int, ...]) -> Any:
    """Return an entry as a number, since another library's is a view that moves along."""
    return x[i] if isinstance(x, np.ndarray) else float(x[i])


def _value(y: Any) -> float:
    """Return what f returned as a number; PyTorch warns of one that still knows its graph."""
    y = y.detach() if getattr(y, "requires_grad", False) else y
    shape = getattr(y, "shape", ())
    if shape and math.prod(shape) == 1:
        y, shape = y[(0,) * len(shape)], ()
    if shape or y is None:
        got = f"an array of shape {tuple(shape)}" if shape else "nothing"
        raise ValueError(f"f returned {got}; expected one number: a sum, or a mean")
    return float(y)


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
