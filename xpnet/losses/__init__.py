"""Losses: gates whose output is 0-d, and whose targets receive no gradient.

All take ``forward(x, t, weight=None)`` with

- x, shape=(..., C): the network's outputs ("scores"), before any softmax or sigmoid;
- t: class indices, shape=(...), or one-hot rows or real targets, shape=(..., C);
- weight, shape=(...): how much each sample counts; 1 if you leave it out.

Let l_i be the loss of sample i. ``reduction="mean"`` gives Σ w_i l_i / Σ w_i, and "sum" gives
Σ w_i l_i. A loss also reads scores: ``decide`` turns them into class indices, and
``probabilities`` into probabilities. In a regression, ``predictions`` turns them into values in
the units of the targets; a loss without it compares the scores themselves with them. A loss used
by `Trainer` must define ``reduction``, ``targets`` and ``decide``. With ``nonnegative = True``, a
loss refuses targets below 0.

With ``per_model=True`` the first axis of x is one of models: x has shape=(K, N, C), and the loss
shape=(K,). t and weight have the axis too, or all models share them.

A loss is nearly always the end of its graph, where the gradient starts as 1. So most losses
compute their gradient in the forward pass, which needs the same exponentials, and multiply it by
each sample's factor. Their backward pass then has nothing left to do.
"""

from __future__ import annotations

from typing import Any

from xpnet.losses.classification import HingeLoss, SigmoidWithLoss, SoftmaxWithLoss
from xpnet.losses.regression import (
    AbsoluteLoss,
    HuberLoss,
    PoissonLoss,
    QuantileLoss,
    SquaredLoss,
)
from xpnet.losses.samples import Reduction

__all__ = [
    "LOSSES", "AbsoluteLoss", "HingeLoss", "HuberLoss", "PoissonLoss", "QuantileLoss", "Reduction",
    "SigmoidWithLoss", "SoftmaxWithLoss", "SquaredLoss",
]  # fmt: skip

# The names in `mlp` and on the command line.
LOSSES: dict[str, type[Any]] = {
    "softmax": SoftmaxWithLoss,
    "sigmoid": SigmoidWithLoss,
    "hinge": HingeLoss,
    "squared": SquaredLoss,
    "absolute": AbsoluteLoss,
    "huber": HuberLoss,
    "quantile": QuantileLoss,
    "poisson": PoissonLoss,
}
