"""Successive halving: drop the worst models while they train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from xpnet.errors import real, whole
from xpnet.many.training import Progress
from xpnet.trainer.history import Epoch, History

__all__ = ["Halving", "halving"]


@dataclass(frozen=True)
class Halving:
    """See `halving`."""

    every: int
    keep: float
    least: int

    def __call__(self, progress: Progress) -> list[int] | None:
        """Return the models to drop after this epoch; None where none is due."""
        if progress.epoch % self.every or len(progress.live) <= self.least:
            return None
        kept = max(self.least, math.ceil(len(progress.live) * self.keep))
        ranked = sorted(progress.live, key=lambda k: _loss(progress.histories[k]))
        return ranked[kept:]


def halving(every: int, keep: float = 0.5, least: int = 1) -> Halving:
    """Return a callback of `xpnet.fit_many` that drops the worst models every so many epochs.

    Models are compared by the validation loss, or by the metric that is watched, of their last
    epoch; without validation data, by the training loss. A dropped model stays in the set with the
    weights it has, and its history ends with the reason "callback".

    Parameters
    ----------
    every : int
        The epochs between two rounds.
    keep : float in (0, 1)
        The share of the models that goes on; rounded up.
    least : int
        So many models always go on.

    Notes
    -----
    Successive halving spends the epochs on the settings that look good early. A setting that is
    slow at first, such as a small rate, may be dropped too soon: then give more epochs before the
    first round.
    Source: Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter
    optimization", 2016; scikit-learn's ``HalvingGridSearchCV`` does the same with samples or
    iterations as its resource, and trains each round anew.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> x = np.random.default_rng(0).standard_normal((60, 2))
    >>> t = (x.sum(axis=1) > 0).astype(int)
    >>> models = xpnet.fit_many(
    ...     xpnet.mlp([2, 8, 2]), (x, t), grid={"lr": [1e-4, 1e-3, 1e-2, 1e-1]}, epochs=4,
    ...     validation=0.2, callbacks=halving(every=1),
    ... )
    >>> sorted(len(history.epochs) for history in models.histories)
    [1, 1, 2, 4]
    """
    return Halving(
        whole("every", every, 1), real("keep", keep, 0.0, 1.0, "()"), whole("least", least, 1)
    )


def _loss(history: History) -> float:
    """Return what is to be small; infinite where it is not a number."""
    if not history.epochs:
        return math.inf
    epoch: Epoch = history.epochs[-1]
    if history.metric:
        value: Any = history.merit(epoch)
        value = None if value is None else -value
    else:
        value = epoch.train_loss if epoch.val_loss is None else epoch.val_loss
    return math.inf if value is None or math.isnan(value) else float(value)
