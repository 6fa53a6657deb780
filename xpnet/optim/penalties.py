"""Penalties on weights, as terms of their gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from xpnet.arrays.dispatch import along, elementwise, underflowing
from xpnet.arrays.ops import Array, namespace

__all__ = ["add_l1", "add_weight_decay"]

Params = dict[str, Array]


def add_weight_decay(
    grads: Params, params: Mapping[str, Array], decay: Any, *, per_model: bool = False
) -> Params:
    """Add the gradient of the L2 term ½ λ ΣW²: g ← g + λ W, where λ is `decay`.

    The term applies to weights (two axes or more), not to biases. With `per_model`, each array has
    a first axis of models, and `decay` may be an array of shape (K,).

    Examples
    --------
    >>> import numpy as np
    >>> params = {"W": np.array([[2.0]]), "b": np.array([2.0])}
    >>> grads = {"W": np.array([[1.0]]), "b": np.array([1.0])}
    >>> {name: g.tolist() for name, g in add_weight_decay(grads, params, 0.1).items()}
    {'W': [[1.2]], 'b': [1.0]}
    """
    return _penalized(_decayed, grads, params, decay, per_model)


def add_l1(
    grads: Params, params: Mapping[str, Array], l1: Any, *, per_model: bool = False
) -> Params:
    """Add the gradient of the L1 term λ Σ|W|: g ← g + λ sign(W), where λ is `l1`.

    The sign of 0 is 0, the subgradient that lets a weight stay there. Weights come close to 0, and
    swing around it by about lr λ; few are 0 exactly. Biases and `per_model` are as for
    `add_weight_decay`. Source: Tibshirani, "Regression shrinkage and selection via the lasso", J.
    R. Statist. Soc. B 58, 1996.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"W": np.array([[2.0, 0.0, -3.0]]), "b": np.array([2.0])}
    >>> grads = {"W": np.array([[1.0, 1.0, 1.0]]), "b": np.array([1.0])}
    >>> {name: g.tolist() for name, g in add_l1(grads, params, 0.5).items()}
    {'W': [[1.5, 1.0, 0.5]], 'b': [1.0]}
    """
    return _penalized(_pulled, grads, params, l1, per_model)


def _penalized(
    term: Callable[..., Array],
    grads: Params,
    params: Mapping[str, Array],
    size: Any,
    per_model: bool,
) -> Params:
    """Apply ``term(g, p, size)`` to the weights; biases have fewer than two axes."""
    return {
        name: term(g, params[name], along(size, g)) if g.ndim - per_model > 1 else g
        for name, g in grads.items()
    }


@elementwise
@underflowing
def _decayed(g: Array, p: Array, decay: Any) -> Array:
    return g + decay * p


@elementwise
@underflowing
def _pulled(g: Array, p: Array, l1: Any) -> Array:
    xp = namespace(p)
    # PyTorch's `sign` writes where NaN is, which a CUDA graph cannot record.
    return g + l1 * (xp.astype(p > 0, p.dtype) - xp.astype(p < 0, p.dtype))
