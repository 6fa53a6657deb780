"""What a run has done so far: the losses, a record per epoch, the best weights.

All of it goes into a checkpoint, so that a resumed run ends with the history, and not only
with the weights, of an undisturbed one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from xpnet.errors import NonFiniteLossError
from xpnet.models.checkpoint import section

__all__ = ["Epoch", "History", "check_finite_losses", "finite_or_none"]


def finite_or_none(value: float | None) -> float | None:
    """JSON knows neither infinity nor NaN."""
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Epoch:
    """One epoch's figures.

    Attributes
    ----------
    epoch, step : int
        Counted from 1; steps over the whole run.
    train_loss : float
        Mean over the epoch's samples, each measured before its step's update.
    train_score, val_loss, val_score : float or None
        After the epoch. A score is the accuracy, or R² for a regression; the training one
        is taken on at most 10,000 evenly spaced samples. None: nothing to measure it on, or
        not a finite number.
    seconds, samples_per_second : float
        Of training, reading of memory-mapped data included; without evaluation and saving.
    """

    epoch: int
    step: int
    train_loss: float
    train_score: float | None
    val_loss: float | None
    val_score: float | None
    seconds: float
    samples_per_second: float


@dataclass
class History:
    """The course of a run.

    Attributes
    ----------
    losses : list of float
        One per step.
    epochs : list of Epoch
    best_epoch : int
        The epoch of the smallest val_loss, 0 before the first.
    best_params : dict of str to numpy array
        Its weights, kept for early stopping; empty without it.
    steps_in_epoch, seconds_in_epoch : int, float
        How far an unfinished epoch has got.
    reason : str
        Why `Trainer.fit` returned: "epochs" (all done), "patience", "callback" or "stop";
        empty while it runs.
    """

    losses: list[float] = field(default_factory=list, repr=False)
    epochs: list[Epoch] = field(default_factory=list, repr=False)
    best_epoch: int = 0
    best_params: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    steps_in_epoch: int = 0
    seconds_in_epoch: float = 0.0
    reason: str = ""

    def column(self, name: str) -> list[float | None]:
        """One figure of all epochs: ``history.column("val_loss")``."""
        return [getattr(epoch, name) for epoch in self.epochs]

    @property
    def best_val_loss(self) -> float:
        """Infinity before there is one, so that any first loss is better."""
        best = self.epochs[self.best_epoch - 1].val_loss if self.best_epoch else None
        return math.inf if best is None else best

    @property
    def epochs_since_best(self) -> int:
        """0 while there has been no best epoch."""
        return len(self.epochs) - self.best_epoch if self.best_epoch else 0

    def pack(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, meta) for a checkpoint."""
        arrays = {f"best/{name}": value for name, value in self.best_params.items()}
        arrays["losses"] = np.array(self.losses, np.float64)
        return arrays, {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best_epoch": self.best_epoch,
            "reason": self.reason if self.reason == "callback" else "",
            "steps_in_epoch": self.steps_in_epoch,
            "seconds_in_epoch": self.seconds_in_epoch,
        }

    @classmethod
    def unpack(cls, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> History:
        return cls(
            losses=arrays["losses"].tolist(),
            epochs=[Epoch(**epoch) for epoch in meta["epochs"]],
            best_epoch=meta["best_epoch"],
            best_params=section(arrays, "best/"),
            steps_in_epoch=meta["steps_in_epoch"],
            seconds_in_epoch=meta["seconds_in_epoch"],
            reason=meta["reason"],
        )


def check_finite_losses(losses: np.ndarray, epoch: int, before: int) -> None:
    """Raise `NonFiniteLossError` for the first loss that is not; `before` steps came before."""
    finite = np.isfinite(losses)
    if not finite.all():
        first = int(np.argmin(finite))
        raise NonFiniteLossError(
            f"the loss became {losses[first]} in epoch {epoch}, step {before + first + 1}: "
            "try a smaller learning rate, clipped gradients, or scaled inputs",
            epoch,
            before + first + 1,
        )
