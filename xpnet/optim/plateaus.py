"""A rate that falls when training no longer gets better."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xpnet.arrays.ops import Array
from xpnet.errors import real, whole
from xpnet.optim.schedules import Schedule, checked, warmed

__all__ = ["Watch", "plateau"]


def plateau(
    lr: float,
    factor: float = 0.5,
    patience: int = 5,
    min_lr: float = 0.0,
    *,
    threshold: float = 1e-4,
    cooldown: int = 0,
    warmup: int = 0,
) -> Schedule:
    """Return a rate that is multiplied by `factor` when training no longer gets better.

    `xpnet.Trainer.fit` and `xpnet.fit_many` look after each epoch, for each model, at the metric
    that you name, else at the validation loss; without validation data at the training loss. A loop
    of your own asks `Watch`. The level of the rate lies in the optimizer's state, so nothing is
    compiled or captured anew.

    Parameters
    ----------
    lr : float
        The rate at the start.
    factor : float
        From above 0 to below 1.
    patience : int
        After so many epochs without a better one, the rate falls, and the count begins anew.
        PyTorch's ``ReduceLROnPlateau`` tolerates so many: its patience=4 is 5 here, as in Keras.
    min_lr : float
        The rate falls no further.
    threshold : float
        An epoch is better if it improves on the best one by more than this share.
    cooldown : int
        So many epochs after a fall, nothing is counted.
    warmup : int
        As for `constant`.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> from xpnet.optim import SGD
    >>> x, t = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    >>> rule = SGD(plateau(1e-9, patience=2))  # nothing moves at this rate
    >>> trainer = xpnet.Trainer(xpnet.mlp([4, 2]), rule)
    >>> history = trainer.fit(x, t, epochs=6)
    >>> trainer.rate  # fell after epochs 3 and 5
    2.5e-10
    """
    lr, warmup = checked(lr, warmup)
    made = _Plateau(
        lr,
        real("factor", factor, 0.0, 1.0, "()"),
        whole("patience", patience, 1),
        real("min_lr", min_lr, 0.0, lr, "[]"),
        real("threshold", threshold, 0.0, 1.0, "[)"),
        whole("cooldown", cooldown),
    )
    return warmed(made, lr, warmup)


@dataclass
class Watch:
    """Say after each epoch whether the rate of a `plateau` falls.

    The answer follows from the epochs alone, so a training that goes on counts those before first.

    Attributes
    ----------
    schedule : Schedule
        The plateau, without its warmup. `Watch.of` finds it.
    best : float or None
        Of all epochs.
    waited, resting : int
        The epochs without a better one since, and those of the cooldown that are left.

    Examples
    --------
    >>> watch = Watch.of(plateau(0.1, factor=0.5, patience=2))
    >>> [watch.falls(-loss) for loss in (1.0, 0.5, 0.5, 0.6, 0.5)]
    [False, False, False, True, False]
    >>> watch.lowered(1.0)
    0.5
    """

    schedule: _Plateau
    best: float | None = None
    waited: int = 0
    resting: int = 0

    @classmethod
    def of(cls, lr: Any) -> Watch | None:
        """Return a new watch for this rate; None if it is not that of a plateau."""
        schedule = getattr(lr, "schedule", lr)
        return cls(schedule) if isinstance(schedule, _Plateau) else None

    def falls(self, merit: float | None) -> bool:
        """Say whether the rate falls now.

        Parameters
        ----------
        merit : float or None
            Of the epoch, the larger the better: minus its loss, or a metric. None is no better.
        """
        plateau = self.schedule
        if merit is not None and (self.best is None or merit > self._least(self.best)):
            self.best, self.waited = merit, 0
        else:
            self.waited += 1
        if self.resting:
            self.resting, self.waited = self.resting - 1, 0
        if self.waited < plateau.patience:
            return False
        self.resting, self.waited = plateau.cooldown, 0
        return True

    def _least(self, best: float) -> float:
        """Return what a better epoch exceeds, also where the best merit is below 0."""
        return best * (1.0 + math.copysign(self.schedule.threshold, best))

    def catch_up(self, merits: Iterable[float | None]) -> None:
        """Count the epochs before; their falls are in the state already."""
        for merit in merits:
            self.falls(merit)

    def lowered(self, level: float) -> float:
        """Return the level after a fall: state["level"], the part that is left of the rate."""
        plateau = self.schedule
        return min(level, max(level * plateau.factor, plateau.min_lr / plateau.lr))


@dataclass(frozen=True)
class _Plateau:
    """The rate before any fall; what is left of it is in the state."""

    lr: float
    factor: float = 0.5
    patience: int = 5
    min_lr: float = 0.0
    threshold: float = 1e-4
    cooldown: int = 0

    def __call__(self, k: Array) -> float:
        return self.lr
