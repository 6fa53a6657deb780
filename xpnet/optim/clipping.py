"""Gradients whose norm is too large, scaled down."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from xpnet.arrays.dispatch import along, replaceable, underflowing
from xpnet.arrays.ops import Array, at_least, namespace

__all__ = ["clip_by_global_norm", "clip_per_model", "scaled_norm"]

Params = dict[str, Array]


@underflowing
def clip_by_global_norm(grads: Params, max_norm: float) -> Params:
    """Scale all gradients by max_norm / ‖g‖ if ‖g‖, their norm taken together, exceeds max_norm.

    The squares do not overflow, however large the gradients are.

    Source: Pascanu, Mikolov, Bengio, "On the difficulty of training RNNs", 2013, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> grads = {"W": np.array([[3.0]]), "b": np.array([4.0])}
    >>> {name: g.round(3).tolist() for name, g in clip_by_global_norm(grads, 1.0).items()}
    {'W': [[0.6]], 'b': [0.8]}
    """
    norm, unit = scaled_norm(list(grads.values()), max_norm)
    # max(‖g‖, max_norm) is never 0, so this line needs no branch on a value.
    most = max_norm / unit
    scale = most / namespace(norm).maximum(norm, most)
    return {name: g * scale for name, g in grads.items()}


@underflowing
def clip_per_model(grads: Params, max_norm: Any) -> Params:
    """Do what `clip_by_global_norm` does, for each of K models.

    Parameters
    ----------
    grads : dict of str to array, shape=(K, ...)
    max_norm : float, or array, shape=(K,)

    Examples
    --------
    >>> import numpy as np
    >>> grads = {"W": np.array([[3.0], [0.3]]), "b": np.array([[4.0], [0.4]])}
    >>> {name: g.round(3).tolist() for name, g in clip_per_model(grads, 1.0).items()}
    {'W': [[0.6], [0.3]], 'b': [[0.8], [0.4]]}
    """
    arrays = list(grads.values())
    xp = namespace(arrays[0])
    flat = [xp.reshape(g, (g.shape[0], -1)) for g in arrays]
    largest = functools.reduce(xp.maximum, [xp.max(xp.abs(g), axis=1) for g in flat])
    unit = at_least(largest, max_norm)
    total = sum(xp.sum((g / unit[:, None]) ** 2, axis=1) for g in flat)
    most = max_norm / unit
    scale = most / xp.maximum(xp.sqrt(total), most)
    return {name: g * along(scale, g) for name, g in grads.items()}


@replaceable
def scaled_norm(arrays: Sequence[Array], floor: float) -> tuple[Array, Any]:
    """Return (‖a‖ / unit, unit) over all arrays, with a unit so large that no square overflows.

    Parameters
    ----------
    arrays : sequence of array
        All of one dtype.
    floor : float
        The smallest unit. Values much smaller than `floor` may underflow.

    Returns
    -------
    norm : 0-d array
    unit : 0-d array, or float
        The largest |a|, but at least `floor`. A kernel may use 1 if nothing overflows.
    """
    xp = namespace(arrays[0])
    unit = at_least(functools.reduce(xp.maximum, [xp.max(xp.abs(a)) for a in arrays]), floor)
    total = sum(xp.sum((a / unit) ** 2) for a in arrays)
    return xp.sqrt(total), unit
