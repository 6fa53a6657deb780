"""The Jacobian matrix of a graph, row by row, from backward passes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from xpnet.arrays.ops import Array, device, namespace
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
    r"""The derivatives of every element of `output` by every element of `wrt`.

    Parameters
    ----------
    graph : Graph
    inputs : mapping of str to array
    output, wrt : Node or str
        Of shapes (m...) and (n...).
    diagonal : bool
        Only :math:`\partial y_i / \partial x_i`, for a `wrt` of the output's own shape. The
        matrix is never held: its rows are computed one by one, and one number of each is kept.
    batched : bool
        The first axis of both is a batch whose samples do not see each other, as without
        batch statistics; one pass then serves a row of every sample. This is taken on
        trust: if samples do see each other, what is returned is the sum over them.

    Returns
    -------
    array
        Shape (m..., n...); with `diagonal`, (n...); with `batched`, for N samples of shapes
        (m...) and (n...), (N, m..., n...) or, with both, (N, n...).

    Raises
    ------
    ValueError
        The shapes do not allow for what is asked.

    Notes
    -----
    Backward multiplies a row vector by the Jacobian: started from :math:`e_i`, it gives row
    i. One forward pass and as many backward passes as a sample of the output has elements.
    """
    value, tape = graph.forward(inputs, output)
    xp = namespace(value)
    wrt_name = wrt if isinstance(wrt, str) else wrt.name
    start = xp.zeros(value.shape, dtype=value.dtype, device=device(value))
    first = graph.backward(tape, [wrt_name], [start])[wrt_name]  # names what has no gradient
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
