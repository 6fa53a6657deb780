"""Compute the Jacobian matrix of a graph row by row, with one backward pass per row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from xpnet.arrays.ops import Array, device, namespace
from xpnet.errors import shown
from xpnet.graph.graph import Graph
from xpnet.graph.node import Node

__all__ = ["jacobian"]


def jacobian(
    graph: Graph,
    inputs: Mapping[str, Any],
    output: Node | str,
    wrt: Node | str,
    *,
    diagonal: bool = False,
    batched: bool = False,
) -> Array:
    r"""Return the derivative of every element of `output` by every element of `wrt`.

    Parameters
    ----------
    graph : Graph
    inputs : mapping of str to array
        Values of the inputs, as for `Graph.forward`.
    output, wrt : Node or str
        Of shapes (m...) and (n...).
    diagonal : bool
        Return only $\partial y_i / \partial x_i$; `wrt` and `output` must have the same
        shape. Memory stays small: of each row, only this number is kept.
    batched : bool
        The first axis of both is a batch of independent samples. One backward pass then computes
        a row for every sample. Independence is not checked: if one sample influences another (as
        with batch statistics), the result is the sum over the output's samples.

    Returns
    -------
    array
        Shape (m..., n...), or (n...) with `diagonal`. With `batched` and N samples of shapes
        (m...) and (n...): (N, m..., n...), or (N, n...) with `diagonal`.

    Raises
    ------
    ValueError
        The shapes do not allow `diagonal` or `batched`, or `wrt` has no gradient.

    Notes
    -----
    A backward pass multiplies a row vector by the Jacobian: if it starts from $e_i$, it
    returns row i. The function runs one forward pass, one backward pass to find the shapes, and
    one for each element of the output (with `batched`, of one sample of it).

    Examples
    --------
    >>> import numpy as np
    >>> graph = Graph()
    >>> x = graph.input("x")
    >>> jacobian(graph, {"x": np.array([1.0, 2.0])}, x * x, x)
    array([[2., 0.],
           [0., 4.]])
    """
    if not isinstance(wrt, str | Node):
        raise TypeError(f"wrt is {shown(wrt)}; expected a node or its name")
    value, tape = graph.forward(inputs, output)
    xp = namespace(value)
    wrt_name = wrt if isinstance(wrt, str) else wrt.name
    start = xp.zeros(value.shape, dtype=value.dtype, device=device(value))
    first = graph.backward(tape, [wrt_name], [start])[wrt_name]  # refuses what has no gradient
    lead = 1 if batched else 0
    if batched and (not value.ndim or not first.ndim or value.shape[0] != first.shape[0]):
        raise ValueError(
            f"batched needs the same first axis: the output has shape {tuple(value.shape)}, "
            f"{wrt_name} {tuple(first.shape)}"
        )
    if diagonal and value.shape != first.shape:
        raise ValueError(
            f"a diagonal needs equal shapes: the output has {tuple(value.shape)}, "
            f"{wrt_name} {tuple(first.shape)}"
        )
    batch, shape = value.shape[:lead], value.shape[lead:]
    count = math.prod(shape)
    every = xp.reshape(xp.arange(count, device=device(value)), shape)
    rows = []
    for i in range(count):
        row_start = xp.broadcast_to(xp.astype(every == i, value.dtype), value.shape)
        row = graph.backward(tape, [wrt_name], [row_start])[wrt_name]
        if diagonal:
            row = xp.reshape(row, (*batch, count))[..., i]
        rows.append(row)
    result = value.shape if diagonal else (*batch, *shape, *first.shape[lead:])
    if not rows:
        return xp.zeros(result, dtype=value.dtype, device=device(value))
    return xp.reshape(xp.stack(rows, axis=lead), result)
