"""The history of a run: losses, a record per epoch, the best weights.

Checkpoints store all of it, so a resumed run ends with the same history as an uninterrupted run,
and not only with the same weights.
"""

from __future__ import annotations

import functools
import math
import operator
import tempfile
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.arrays.ops import Array, is_real, namespace
from xpnet.errors import NonFiniteLossError, UsageError, counted
from xpnet.metrics import higher_is_better
from xpnet.models.checkpoint import section
from xpnet.models.tables import Table
from xpnet.trainer.frames import frame_of

__all__ = [
    "Curves",
    "Epoch",
    "History",
    "check_finite_losses",
    "check_finite_values",
    "finite_or_none",
]


def finite_or_none(value: float | None) -> float | None:
    """Replace infinity and NaN, which JSON does not have, by None."""
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Epoch:
    """The numbers of one epoch.

    Attributes
    ----------
    epoch, step : int
        The epoch, and the last step of it, both counted from 1; steps count over the whole run.
    train_loss : float
        Mean loss of the epoch's samples, each measured before its step's update.
    train_score, val_loss, val_score : float or None
        Measured after the epoch. A score is the accuracy, or R² for a regression; the training
        score uses at most 10,000 evenly spaced samples. None means that there is no data for it,
        or that it is not finite.
    val_metric : float or None
        The metric that `Trainer.fit` watches, on the validation set; None if it watches the loss.
    seconds, samples_per_second : float
        Time and speed of training. They include the reading of memory-mapped data, but not
        evaluation and saving.
    """

    epoch: int
    step: int
    train_loss: float
    train_score: float | None
    val_loss: float | None
    val_score: float | None
    seconds: float
    samples_per_second: float
    val_metric: float | None = None


# Losses of finished epochs that a history keeps at most: 1 MiB, in memory and in each checkpoint.
MOST_KEPT = 1 << 17


# Why a training ended, where it did not simply reach its last epoch.
REASONS = {
    "patience": "ended by patience",
    "callback": "ended by a callback",
    "stop": "stopped",
    "failed": "failed",
}


class Curves(bytes):
    """The learning curves of a history as a PNG picture, which a notebook shows."""

    def _repr_png_(self) -> bytes:
        return bytes(self)

    def __repr__(self) -> str:
        return f"<Curves: PNG of {len(self):,} bytes; a notebook shows it, plot(path) writes it>"

    __str__ = __repr__


@dataclass(repr=False)
class History:
    """The losses, epochs and best weights of a run.

    `repr` says how it went in one line; printed, and in a notebook, it is a table of the first, the
    best and the last epoch.

    Attributes
    ----------
    epochs : list of Epoch
    best_epoch : int
        The epoch with the smallest val_loss, or the best val_metric; 0 if there is none yet.
    best_params : dict of str to numpy array
        The weights of that epoch; empty unless early stopping is on.
    patience_from : int or None
        The number of epochs after which early stopping began to count; None while it is off.
    kept : array, shape=(K,)
        Losses of finished epochs: of every step whose number is a multiple of `every`.
    every : int
        1, until there are more than MOST_KEPT of them; then it doubles, again and again.
    unfinished : array.array of float
        The losses of an unfinished epoch so far, all of them.
    seconds_in_epoch : float
        Seconds of an unfinished epoch so far.
    metric : str
        The name in `xpnet.metrics.METRICS` of what decides which epoch is best; "" for the loss.
    reason : str
        Why `Trainer.fit` returned: "epochs" (all done), "patience", "callback" or "stop"; empty
        during the run. A model of `xpnet.fit_many` may have "failed": it became not a number.
    score : str
        What the scores are, "accuracy" or "r2"; `Trainer.fit` sets it.
    notes : list of str
        Advice on this training, once it has ended; checkpoints do not hold it.
    failure : str
        The one of them that is a warning too: the network is no better than guessing; or why a
        model of `xpnet.fit_many` has failed.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> x = np.linspace(-1, 1, 100)[:, None]
    >>> history = xpnet.fit(x, (x[:, 0] > 0).astype(int), epochs=20).history
    >>> len(history.epochs), history.reason
    (20, 'epochs')
    """

    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_params: dict[str, np.ndarray] = field(default_factory=dict)
    patience_from: int | None = None
    kept: np.ndarray = field(default_factory=lambda: np.zeros(0))
    every: int = 1
    unfinished: array[float] = field(default_factory=lambda: array("d"))
    seconds_in_epoch: float = 0.0
    metric: str = ""
    reason: str = ""
    score: str = "score"
    notes: list[str] = field(default_factory=list)
    failure: str = ""

    @property
    def steps(self) -> int:
        """How many steps there were."""
        return (self.epochs[-1].step if self.epochs else 0) + len(self.unfinished)

    @property
    def losses(self) -> list[float]:
        """The loss of each step of `loss_steps`: of all steps, unless the run is very long."""
        return [*self.kept.tolist(), *self.unfinished]

    @property
    def loss_steps(self) -> np.ndarray:
        """The numbers of these steps, counted from 1."""
        before = self.epochs[-1].step if self.epochs else 0
        return np.concatenate(
            [
                self.every * np.arange(1, len(self.kept) + 1),
                before + np.arange(1, len(self.unfinished) + 1),
            ]
        )

    def close(self, epoch: Epoch) -> None:
        """Append an epoch's record; keep its losses, or every so many, to bound the memory."""
        numbers = self.loss_steps[len(self.kept) :]
        losses = np.array(self.unfinished)[numbers % self.every == 0]
        self.kept = np.concatenate([self.kept, losses])
        while len(self.kept) > MOST_KEPT:
            self.kept, self.every = self.kept[1::2].copy(), 2 * self.every
        self.epochs.append(epoch)
        self.unfinished, self.seconds_in_epoch = array("d"), 0.0

    def column(self, name: str) -> list[float | None]:
        """Return one number of every epoch: ``history.column("val_loss")``."""
        return [getattr(epoch, name) for epoch in self.epochs]

    # -- For people --------------------------------------------------------------------

    def to_dict(self) -> dict[str, list[Any]]:
        """Return one list for each number of `Epoch`, under its name, with a value for each epoch.

        The metric that `Trainer.fit` watched gives its name to val_metric: val_f1, for example. If
        it watched none, the list is left out. A value that an epoch does not have is None.

        Examples
        --------
        >>> History(epochs=[Epoch(1, 18, 0.5, 0.9, None, None, 0.1, 1e5)]).to_dict()["train_loss"]
        [0.5]
        """
        names = {name: name for name in Epoch.__dataclass_fields__}
        names["val_metric"] = f"val_{self.metric}"
        if not self.metric:
            del names["val_metric"]
        return {shown: self.column(name) for name, shown in names.items()}

    def to_frame(self, library: str | None = None) -> Any:
        """Return the epochs as a data frame, one row an epoch; the columns are those of `to_dict`.

        Parameters
        ----------
        library : {"pandas", "polars", "pyarrow"}, optional
            By default the first of them that is installed.

        Returns
        -------
        DataFrame or pyarrow.Table
            What an epoch does not have is NaN in pandas, and null in polars and PyArrow.

        Raises
        ------
        UsageError
            The library is unknown, or not installed; or none of them is installed.

        Examples
        --------
        >>> frame = trainer.history.to_frame()  # doctest: +SKIP
        >>> frame.plot(x="epoch", y=["train_loss", "val_loss"])  # doctest: +SKIP
        """
        return frame_of(self.to_dict(), ("epoch", "step"), library)

    def plot(self, path: str | PathLike[str] | None = None) -> Curves | None:
        """Draw the learning curves: loss and score of each epoch, and the loss of every step.

        Parameters
        ----------
        path : str or path, optional
            File to write; its suffix says the format: .png, .svg, .pdf ... Without a path, the
            method returns the picture, and a notebook shows it.

        Returns
        -------
        Curves or None
            Without a path, the bytes of a PNG that a notebook shows.

        Raises
        ------
        UsageError
            No epoch is finished yet, matplotlib is not installed, or the suffix is unknown.
        OSError
            The file cannot be written.

        Examples
        --------
        >>> trainer.history.plot("curves.png")  # doctest: +SKIP
        """
        # Imported here, since most histories are never drawn, and the pictures import this room.
        from xpnet.show.plots import curves, require

        require("plot()")
        if not self.epochs:
            raise UsageError("plot: no epoch is finished yet; there is nothing to draw")
        if path is None:
            with tempfile.TemporaryDirectory() as folder:
                drawn = Path(folder, "curves.png")
                curves(self, drawn, self.score)
                return Curves(drawn.read_bytes())
        try:
            curves(self, Path(path), self.score)
        except ValueError as error:  # matplotlib knows which formats it can write
            raise UsageError(f"plot: {path}: {' '.join(str(error).split())}") from error
        return None

    def _measured(self) -> dict[str, str]:
        """The numbers that some epoch has, with their words: train accuracy for train_score."""
        names = ["train_loss", "train_score", "val_loss", "val_score"]
        words = {name: name.replace("score", self.score).replace("_", " ") for name in names}
        if self.metric:
            words["val_metric"] = f"val {self.metric.replace('_', ' ')}"
        return {k: v for k, v in words.items() if any(n is not None for n in self.column(k))}

    def __repr__(self) -> str:
        if not self.epochs:
            return f"<History: no epoch yet, {counted(self.steps, 'step')}>"
        last = self.epochs[-1]
        parts = [f"{counted(len(self.epochs), 'epoch')}, {counted(self.steps, 'step')}"]
        numbers = [
            f"{words} {_figure(getattr(last, name))}" for name, words in self._measured().items()
        ]
        parts += [", ".join(numbers)] if numbers else []
        parts += [f"best epoch {self.best_epoch}"] if self.best_epoch else []
        parts += [REASONS[self.reason]] if self.reason in REASONS else []
        return f"<History: {'; '.join(parts)}>"

    def _table(self) -> Table:
        """The first, the best and the last epoch."""
        roles: dict[int, list[str]] = {}
        if self.epochs:
            roles.setdefault(self.epochs[0].epoch, []).append("first")
            if self.best_epoch:
                roles.setdefault(self.best_epoch, []).append("best")
            roles.setdefault(self.epochs[-1].epoch, []).append("last")
        measured = self._measured()
        rows = [
            (
                ", ".join(roles[epoch.epoch]),
                f"{epoch.epoch:,}",
                *(_figure(getattr(epoch, name)) for name in measured),
            )
            for epoch in self.epochs
            if epoch.epoch in roles
        ]
        header = ("", "epoch", *measured.values())
        return Table(header, rows, frozenset(range(1, len(header))))

    def __str__(self) -> str:
        return self._table().text() if self.epochs else repr(self)

    def _repr_html_(self) -> str | None:
        """Return the table for a notebook, or None where there is none: then it shows `repr`."""
        return self._table().html() if self.epochs else None

    # -- The best epoch ----------------------------------------------------------------

    def is_best(self, epoch: Epoch) -> bool:
        """Return whether an epoch is better than all before it, by val_loss or val_metric."""
        value, best = self.merit(epoch), None
        if self.best_epoch:
            best = self.merit(self.epochs[self.best_epoch - 1])
        return value is not None and (best is None or value > best)

    def merit(self, epoch: Epoch) -> float | None:
        """Return what is to be large: the metric that is watched, or minus the validation loss."""
        value = epoch.val_metric if self.metric else epoch.val_loss
        if value is None or (self.metric and higher_is_better(self.metric)):
            return value
        return -value

    def progress(self, epoch: Epoch, validated: bool) -> float | None:
        """Return what a plateau watches: `merit`, or without validation minus the training loss."""
        return self.merit(epoch) if validated else -epoch.train_loss

    @property
    def epochs_since_best(self) -> int:
        """Epochs since the best one; since early stopping began, if there is none yet."""
        return len(self.epochs) - max(self.best_epoch, self.patience_from or 0)

    def pack(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the arrays and the JSON data that a checkpoint stores."""
        arrays = {f"best/{name}": value for name, value in self.best_params.items()}
        arrays["losses"] = np.concatenate([self.kept, self.unfinished])
        return arrays, {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best_epoch": self.best_epoch,
            "metric": self.metric,
            "reason": self.reason if self.reason == "callback" else "",
            "patience_from": self.patience_from,
            "every": self.every,
            "steps_in_epoch": len(self.unfinished),
            "seconds_in_epoch": self.seconds_in_epoch,
        }

    @classmethod
    def unpack(cls, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> History:
        """Return the history that `pack` made these arrays and this metadata of."""
        losses = arrays["losses"]
        kept, unfinished = np.split(losses, [len(losses) - meta["steps_in_epoch"]])
        return cls(
            epochs=[Epoch(**epoch) for epoch in meta["epochs"]],
            best_epoch=meta["best_epoch"],
            best_params=section(arrays, "best/"),
            patience_from=meta["patience_from"],
            kept=kept,
            every=meta["every"],
            unfinished=array("d", unfinished.tolist()),
            seconds_in_epoch=meta["seconds_in_epoch"],
            metric=meta["metric"],
            reason=meta["reason"],
        )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def check_finite_values(arrays: Mapping[str, Array], epoch: int, step: int) -> None:
    """Raise `NonFiniteLossError` for a parameter or an optimizer's state that is not finite.

    The loss may show nothing of it: a rule that divides by an infinite square moves nothing.
    """
    finite = {
        n: namespace(a).all(namespace(a).isfinite(a)) for n, a in arrays.items() if is_real(a)
    }
    if not functools.reduce(operator.and_, finite.values()):  # one look at the device
        name = next(name for name, all_are in finite.items() if not all_are)
        raise NonFiniteLossError(
            f"{name} became infinite or not a number by epoch {epoch}, step {step}: "
            "try a smaller learning rate, clipped gradients, or scaled inputs",
            epoch,
            step,
        )


def check_finite_losses(losses: np.ndarray, epoch: int, before: int) -> None:
    """Raise `NonFiniteLossError` if a loss is infinite or NaN.

    Parameters
    ----------
    losses : array, shape=(steps,)
    epoch : int
        Their epoch, counted from 1, for the message.
    before : int
        Number of the run's steps before these.
    """
    finite = np.isfinite(losses)
    if not finite.all():
        first = int(np.argmin(finite))
        raise NonFiniteLossError(
            f"the loss became {losses[first]} in epoch {epoch}, step {before + first + 1}: "
            "try a smaller learning rate, clipped gradients, or scaled inputs",
            epoch,
            before + first + 1,
        )
