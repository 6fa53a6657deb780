"""The trainer: epochs of steps, evaluation, early stopping, saving."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from xpnet import optim
from xpnet.arrays.ops import Array
from xpnet.backend.interface import Backend
from xpnet.data.checks import check_scaling, checked_weights
from xpnet.data.dataset import Scaling, is_streamed, select_rows
from xpnet.data.loader import Feed
from xpnet.errors import UsageError, real, shown, whole
from xpnet.models.model import Model
from xpnet.models.network import Network
from xpnet.trainer.epochs import train_epoch
from xpnet.trainer.history import (
    Epoch,
    History,
    check_finite_losses,
    check_finite_values,
    finite_or_none,
)
from xpnet.trainer.interrupts import held_signals
from xpnet.trainer.resume import SavedRun, identity, rules
from xpnet.trainer.step import make_step

__all__ = ["Trainer"]

# The training score, measured every epoch, is taken on at most so many samples.
TRAIN_SCORE_SAMPLES = 10_000

# How old the copies of parameters and state may be to which an error in a step goes back.
KEEP_SECONDS = 1.0

Callback = Callable[["Trainer", Epoch], bool | None]


class Trainer:
    """Trains a model, and uses it.

    Parameters
    ----------
    network : Network or Model
        A network's initial parameters are copied, never written to. A model goes on from where it
        is: training consumes and replaces its parameters. It has its own backend, dtype, scalings
        and names, so the options of that kind are for networks.
    optimizer : Optimizer, optional
        A rule of `xpnet.optim`; SGD(0.01) by default.
    backend : Backend, optional
        From `xpnet.select`; NumPy by default.
    dtype : {"float32", "float64"}
    scaling : Scaling, optional
        What is done to x before it enters the network. By default uint8 values are divided
        by 255, and all others left as they are: features of your own want
        ``scaling=xpnet.data.standardize(x)``.
    target_scaling : Scaling, optional
        Likewise for the targets of a regression, ``xpnet.data.standardize(t)``. You give
        targets and get predictions in their own units; only losses are in the scaled ones.
    classes, columns : sequence of str, optional
        Names of the classes and of the features, kept with the model.
    weight_decay : float
        λ of the L2 term ½ λ ΣW² (weights, not biases). The reported loss is without it.
    clip_norm : float, optional
        Largest norm of all gradients together.
    seed : int
        Of the batch order.

    Attributes
    ----------
    model : Model
        What is trained: it predicts, evaluates and saves. The trainer's methods of those names
        call the model's.
    params, state : dict of str to array
        Parameters (the model's) and optimizer state, arrays of the backend. Training consumes and
        replaces them: read them anew after each `fit`.
    run : callable
        The backend's epoch loop of this trainer's step, see `xpnet.backend.Backend`.
    classifies : bool
        Whether `predict` answers with classes; after `fit`, as its targets were.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> x = np.random.default_rng(0).standard_normal((200, 3))
    >>> t = (x.sum(axis=1) > 0).astype(int)
    >>> trainer = Trainer(xpnet.mlp([3, 8, 2]), optim.Adam(0.01))
    >>> history = trainer.fit(x, t, epochs=30, batch_size=20)
    >>> trainer.evaluate(x, t)["accuracy"] > 0.95
    True
    """

    def __init__(
        self,
        network: Network | Model,
        optimizer: optim.Optimizer | None = None,
        *,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        seed: int = 0,
        backend: Backend | None = None,
        dtype: Literal["float32", "float64"] = "float32",
        scaling: Scaling | None = None,
        target_scaling: Scaling | None = None,
        classes: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        if not isinstance(network, Network | Model):
            raise UsageError(f"network is {shown(network)}; expected one such as xpnet.mlp([3, 2])")
        known = not isinstance(optimizer, type) and hasattr(optimizer, "rule")
        if optimizer is not None and not known:
            raise UsageError(
                f"optimizer is {shown(optimizer)}; expected one such as xpnet.optim.Adam(0.001)"
            )
        if isinstance(network, Model):
            given = (backend, scaling, target_scaling, classes, columns)
            if any(option is not None for option in given) or dtype != "float32":
                raise UsageError(
                    "backend, dtype, scalings, classes and columns are the model's own: "
                    "give them to Model.load, or give the trainer a network"
                )
            self.model = network
        else:
            self.model = Model(
                network, backend=backend, dtype=dtype, scaling=scaling,
                target_scaling=target_scaling, classes=classes, columns=columns,
            )  # fmt: skip
        self.optimizer = optimizer or optim.SGD()
        self.seed = whole("seed", seed)
        self._rules: dict[str, Any] = {
            "weight_decay": weight_decay,
            "clip_norm": clip_norm,
            "seed": self.seed,
        }
        self.state = self.feed.copies(optim.init(self.optimizer, self.network.params))
        self.run = self.backend.loop(
            make_step(self.network, self.optimizer, weight_decay=weight_decay, clip_norm=clip_norm),
            self.feed.prepare,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickle or a copy goes on from here; the compiled loop is made anew.
        state = {name: self.backend.to_numpy(value) for name, value in self.state.items()}
        return _revived, (self.model, self.optimizer, self._rules, state)

    # -- What the model is -------------------------------------------------------------

    @property
    def network(self) -> Network:
        return self.model.network

    @property
    def backend(self) -> Backend:
        return self.model.backend

    @property
    def feed(self) -> Feed:
        return self.model.feed

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self.model.classes

    @property
    def classifies(self) -> bool:
        return self.model.classifies

    @property
    def params(self) -> dict[str, Array]:
        return self.model.params

    @params.setter
    def params(self, params: dict[str, Array]) -> None:
        self.model.params = params

    # -- Training ----------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        t: np.ndarray,
        *,
        epochs: int = 10,
        batch_size: int = 100,
        validation: tuple[Any, np.ndarray] | None = None,
        sample_weight: np.ndarray | None = None,
        patience: int | None = None,
        callbacks: Sequence[Callback] | Callback = (),
        stop: Callable[[], bool] | None = None,
        folder: str | Path | None = None,
        resume: bool = False,
        save_seconds: float = 60.0,
        extra: Mapping[str, Any] | None = None,
        progress: bool = False,
    ) -> History:
        """Train.

        A second call goes on from the weights and the optimizer's state, with a history,
        epochs and batch orders of its own.

        Parameters
        ----------
        x : array, shape=(N, ...)
            Features or images, of any array library: they are brought to the backend once.
            A memory-mapped array is read batch by batch, never whole.
        t : array
            Class indices, shape=(N,); one-hot rows or real targets, shape=(N, outputs), or
            (N,) where there is one output.
        epochs, batch_size : int
            The last batch of an epoch is smaller where batch_size does not divide N.
        validation : (x, t), optional
            Measured after each epoch.
        sample_weight : array, shape=(N,), optional
            How much each sample counts, relative to the others of its batch. Class weights:
            ``np.where(t == 1, 5.0, 1.0)``, say.
        patience : int, optional
            Stop when val_loss has not fallen for so many epochs, and restore the weights of
            its best epoch. Needs `validation`.
        callbacks : sequence of callable
            ``callback(trainer, epoch)`` after each epoch, with its `xpnet.trainer.Epoch`; True
            ends the training.
        stop : callable, optional
            Called after each chunk of steps (about 0.1 s; on JAX up to 100 steps); True saves and
            ends.
        folder : path, optional
            Where checkpoints are written: before the first step, at most every `save_seconds`, and
            at the end. Without `resume` it must hold none of a trained step. One training at a time
            writes into it.
        resume : bool
            Go on from the newest checkpoint in `folder`, if there is one; on NumPy, to the
            very bits that an undisturbed run reaches. Data, their order and weights, network, loss
            and scaling must be those of the run; numbers of the optimizer may change, and are
            printed, old and new.
        extra : mapping, optional
            Put into each checkpoint's meta data, see `Model.save`.
        progress : bool
            Show a progress bar on stderr.

        Returns
        -------
        History

        Raises
        ------
        DataError, UsageError
            Before the first step; also if another process trains into `folder`.
        CheckpointError
            The checkpoint is of another network, data set, seed or batch size; or `folder`
            holds one although `resume` is False.
        OSError
            Before the first step, if `folder` cannot be written to; after the last one, if the
            last checkpoint cannot be written.
        NonFiniteLossError
            With the epoch and step; the checkpoints on disk are of before.
        """
        epochs, batch_size = whole("epochs", epochs, 1), whole("batch_size", batch_size, 1)
        if patience is not None:
            patience = whole("patience", patience, 1)
            if validation is None:
                raise UsageError("patience needs validation data")
        if save_seconds != math.inf:
            save_seconds = real("save_seconds", save_seconds, 0.0)
        if resume and folder is None:
            raise UsageError("resume needs the folder of the checkpoints")
        x, t = self.model.checked_pair(x, t)
        check_scaling(self.feed.scaling, x)
        check_scaling(self.feed.target_scaling, t.reshape(len(t), -1), "target_scaling")
        callbacks = [callbacks] if callable(callbacks) else list(callbacks)
        for called in (*callbacks, *([] if stop is None else [stop])):
            if not callable(called):
                raise UsageError(f"a callback is {shown(called)}; expected a function")
        if validation is not None:
            if not isinstance(validation, tuple | list) or len(validation) != 2:
                raise UsageError("validation: expected a pair (x, t); see xpnet.data.split")
            validation = self.model.checked_pair(
                *validation, what=" of the validation set", trained_on=x.dtype
            )
        weights = []
        if sample_weight is not None:
            mean = self.network.loss_gate.reduction == "mean"
            weights = [checked_weights(sample_weight, len(x), mean, self.feed.dtype)]

        self.model.classifies = self.model.evaluation.classifies(t)
        self.model.sample_dtype = str(x.dtype)
        saved = self._saved(folder, (x, t), validation, weights, batch_size, extra)
        with saved.held():
            history = self._restored(saved) if resume else saved.begin()
            if patience is None:
                history.best_params, history.patience_from = {}, None
            elif not history.best_params and history.patience_from is None:
                # The weights of the epochs before were not kept.
                history.best_epoch, history.patience_from = 0, len(history.epochs)
            held = None if validation is None else self.model.resident(*validation, own=True)
            scored = self._scored_part(x, t)
            targets = self.feed.targets(t, self.classifies)
            data: tuple[Any, ...] = (self.feed.samples_or_file(x, own=True), targets, *weights)
            if not is_streamed(data[0]):
                data = (data[0], *map(self.backend.asarray, data[1:]))

            self._keep()
            begun = history.steps
            if not _ended(history, epochs, patience):
                # Whoever cannot write hears of it now, and a crash finds the settings of this part.
                self._save(saved, history, required=True)
            bar = tqdm(
                total=epochs * -(-len(x) // batch_size), initial=history.steps, unit="step",
                disable=not progress, leave=False, dynamic_ncols=True,
            )  # fmt: skip
            with bar:
                written = time.monotonic()
                while not _ended(history, epochs, patience):
                    for losses in self._train_epoch(data, history, batch_size):
                        bar.set_postfix_str(f"loss {losses[-1]:.4g}", refresh=False)
                        bar.update(len(losses))
                        if stop is not None and stop():
                            history.reason = "stop"
                            break
                        if time.monotonic() - written >= save_seconds:
                            self._save(saved, history)
                            written = time.monotonic()
                    if history.reason:
                        break
                    record = self._close_epoch(history, len(x), batch_size, scored, held)
                    if record.val_loss is not None and record.val_loss < history.best_val_loss:
                        history.best_epoch = record.epoch
                        history.best_params = self.model.to_host() if patience else {}
                    asked = [callback(self, record) for callback in callbacks]  # every one of them
                    if any(asked):
                        history.reason = "callback"
            history.reason = history.reason or _ended(history, epochs, patience)
            if history.steps > begun:
                self._save(saved, history, required=True)
            if history.best_params and history.reason != "stop":
                self.params = self.feed.copies(history.best_params)
            elif history.reason == "patience":
                warnings.warn(
                    "no epoch had a finite validation loss: the weights are those of the last one; "
                    "is the validation set scaled as the training set is?",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return history

    def _saved(
        self,
        folder: str | Path | None,
        data: tuple[Any, np.ndarray],
        validation: tuple[Any, np.ndarray] | None,
        weights: Sequence[np.ndarray],
        batch_size: int,
        extra: Mapping[str, Any] | None,
    ) -> SavedRun:
        """This training as a folder knows it; without one, no data is looked at."""
        if folder is None:
            return SavedRun(None, {}, {}, {})
        described = identity(
            self.model, self.optimizer, *data, validation=validation,
            sample_weight=weights[0] if weights else None, batch_size=batch_size, seed=self.seed,
        )  # fmt: skip
        numbers = rules(
            self.optimizer, self.backend,
            weight_decay=self._rules["weight_decay"], clip_norm=self._rules["clip_norm"],
        )  # fmt: skip
        return SavedRun(folder, described, numbers, extra or {})

    def _train_epoch(
        self, data: tuple[Any, ...], history: History, batch_size: int
    ) -> Iterator[np.ndarray]:
        """Run what is left of an epoch; yields the losses of each chunk of steps."""
        epoch = len(history.epochs)
        began = time.perf_counter()
        chunks = train_epoch(
            self.run, self.feed, data, self.params, self.state,
            batch_size=batch_size, seed=self.seed, epoch=epoch, done=len(history.unfinished),
        )  # fmt: skip
        stepping = True
        try:
            with held_signals() as deliver:
                # Stored before the losses are waited for: what came before is consumed.
                for self.params, self.state, on_device in chunks:
                    losses = self.backend.to_numpy(on_device)
                    history.seconds_in_epoch += time.perf_counter() - began
                    check_finite_losses(losses, epoch + 1, history.steps)
                    history.unfinished.extend(losses.tolist())
                    stepping = False
                    yield losses
                    deliver()
                    if time.monotonic() - self._kept[0] > KEEP_SECONDS:
                        self._keep()
                    stepping, began = True, time.perf_counter()
                stepping = False
        except BaseException:
            if stepping:  # it may have consumed some of the parameters, and not replaced them
                _, params, state = self._kept
                self.params, self.state = self.feed.copies(params), self.feed.copies(state)
            raise

    def _keep(self) -> None:
        """Copy parameters and state, for an error in the steps that follow."""
        params, state = (
            {name: self.backend.to_numpy(value) for name, value in arrays.items()}
            for arrays in (self.params, self.state)
        )
        self._kept = time.monotonic(), params, state

    def _save(self, saved: SavedRun, history: History, *, required: bool = False) -> None:
        """Write a checkpoint, of finite numbers only."""
        self._check_finite(history)
        saved.save(self.model, self.state, history, required)

    def _check_finite(self, history: History) -> None:
        epoch = len(history.epochs) + bool(history.unfinished)
        check_finite_values({**self.params, **self.state}, epoch, history.steps)

    def _restored(self, saved: SavedRun) -> History:
        """The history of the newest checkpoint, with parameters and state brought back."""
        found = saved.restore(self.params, self.state)
        if found is None:
            return History()
        params, state, history = found
        self.params, self.state = self.feed.copies(params), self.feed.copies(state)
        return history

    def _close_epoch(
        self, history: History, n: int, batch_size: int, scored: Any, held: Any
    ) -> Epoch:
        """Measure, and append the epoch's record."""
        losses = np.array(history.unfinished)
        sizes = np.full(len(losses), batch_size)
        sizes[-1] = n - batch_size * (len(losses) - 1)
        averages = self.network.loss_gate.reduction == "mean"
        seconds = history.seconds_in_epoch
        measure = self.model.evaluation.measure
        val_loss, val_score = measure(self.params, *held) if held else (None, None)
        train_loss, train_score = measure(self.params, *scored)
        # The last update of all may be the one that blew up, and no step comes to notice.
        check_finite_losses(np.array([train_loss]), len(history.epochs) + 1, history.steps - 1)
        self._check_finite(history)
        record = Epoch(
            epoch=len(history.epochs) + 1,
            step=history.steps,
            train_loss=float((losses * (sizes if averages else 1)).sum() / n),
            train_score=finite_or_none(train_score),
            val_loss=finite_or_none(val_loss),
            val_score=finite_or_none(val_score),
            seconds=seconds,
            samples_per_second=n / seconds if seconds else 0.0,
        )
        history.close(record)
        return record

    def _scored_part(self, x: Any, t: np.ndarray) -> tuple[Any, np.ndarray]:
        if len(x) > TRAIN_SCORE_SAMPLES:
            rows = np.linspace(0, len(x) - 1, TRAIN_SCORE_SAMPLES).astype(np.int64)
            x, t = select_rows(x, rows), t[rows]
        return self.model.resident(x, t, own=True)

    # -- Use, by the model -------------------------------------------------------------

    def evaluate(self, x: Any, t: np.ndarray) -> dict[str, float | None]:
        """Loss and score on a data set, see `Model.evaluate`."""
        return self.model.evaluate(x, t)

    def scores(self, x: Any) -> np.ndarray:
        """The network's outputs, see `Model.scores`."""
        return self.model.scores(x)

    def hidden(self, x: Any) -> dict[str, np.ndarray]:
        """The outputs of the hidden layers, see `Model.hidden`."""
        return self.model.hidden(x)

    def predict(self, x: Any) -> np.ndarray:
        """Classes or values, see `Model.predict`."""
        return self.model.predict(x)

    def predict_proba(self, x: Any) -> np.ndarray:
        """Probabilities of the classes, see `Model.predict_proba`."""
        return self.model.predict_proba(x)

    def save(self, path: str | Path, extra: Mapping[str, Any] | None = None) -> None:
        """Save the model as one file, see `Model.save`."""
        self.model.save(path, extra)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        network: Network | None = None,
        optimizer: optim.Optimizer | None = None,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Trainer:
        """A trainer of a saved model or checkpoint; the optimizer starts afresh.

        Parameters
        ----------
        path, network, **options
            As for `Model.load`: backend, ...
        optimizer, weight_decay, clip_norm, seed
            As for `Trainer`.

        Raises
        ------
        CheckpointError
        """
        model = Model.load(path, network=network, **options)
        return cls(model, optimizer, weight_decay=weight_decay, clip_norm=clip_norm, seed=seed)


def _ended(history: History, epochs: int, patience: int | None) -> str:
    """Why there is nothing left to train; "" while there is."""
    if history.reason or len(history.epochs) >= epochs:
        return history.reason or "epochs"
    return "patience" if patience and history.epochs_since_best >= patience else ""


def _revived(
    model: Model, optimizer: optim.Optimizer, rules: dict[str, Any], state: dict[str, np.ndarray]
) -> Trainer:
    """A trainer out of a pickle or for a copy."""
    trainer = Trainer(model, optimizer, **rules)
    trainer.state = trainer.feed.copies(state)
    return trainer
