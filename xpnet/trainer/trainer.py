"""The trainer: epochs of steps, evaluation, early stopping, saving."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from xpnet import optim
from xpnet.backend.interface import Backend
from xpnet.backend.select import select
from xpnet.data.dataset import Scaling, is_streamed, select_rows
from xpnet.data.loader import Feed, batch_order
from xpnet.errors import CheckpointError, UsageError
from xpnet.models import checkpoint
from xpnet.models.evaluation import Evaluation
from xpnet.models.mlp import mlp
from xpnet.models.model import check_scaling, checked_pair, checked_samples, checked_weights
from xpnet.models.network import Network
from xpnet.trainer.history import Epoch, History, check_finite_losses, finite_or_none
from xpnet.trainer.resume import SavedRun, identity
from xpnet.trainer.step import make_step

__all__ = ["Trainer"]

# The training score, measured every epoch, is taken on at most so many samples.
TRAIN_SCORE_SAMPLES = 10_000

# Of saved models and checkpoints; a change that old readers cannot read raises it.
FORMAT = 1

Callback = Callable[["Trainer", Epoch], bool | None]


class Trainer:
    """Trains a network, and uses it.

    Parameters
    ----------
    network : Network
        Its initial parameters are copied, never written to.
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
    classes : sequence of str, optional
        Names of the classes, kept with the model.
    weight_decay : float
        λ of the L2 term ½ λ ΣW² (weights, not biases). The reported loss is without it.
    clip_norm : float, optional
        Largest norm of all gradients together.
    seed : int
        Of the batch order.

    Attributes
    ----------
    params, state : dict of str to array
        Parameters and optimizer state, arrays of the backend. Training consumes and
        replaces them: read them anew after each `fit`.
    run : callable
        The backend's epoch loop of this trainer's step, see `xpnet.backend.Backend`.
    classifies : bool
        Whether `predict` answers with classes; after `fit`, as its targets were.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((200, 3))
    >>> t = (x.sum(axis=1) > 0).astype(int)
    >>> trainer = Trainer(mlp([3, 8, 2]), optim.Adam(0.01))
    >>> history = trainer.fit(x, t, epochs=30, batch_size=20)
    >>> trainer.evaluate(x, t)["accuracy"] > 0.95
    True
    """

    def __init__(
        self,
        network: Network,
        optimizer: optim.Optimizer | None = None,
        *,
        backend: Backend | None = None,
        dtype: Literal["float32", "float64"] = "float32",
        scaling: Scaling | None = None,
        target_scaling: Scaling | None = None,
        classes: Sequence[str] | None = None,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        seed: int = 0,
    ) -> None:
        if isinstance(optimizer, str) or isinstance(backend, str):
            raise UsageError(
                "got a name; expected an optimizer such as xpnet.optim.Adam(0.001), "
                "and a backend such as xpnet.select('cpu', 'jax')"
            )
        if dtype not in ("float32", "float64"):
            raise UsageError(f"dtype is {dtype!r}; expected float32 or float64")
        self.network = network
        self.optimizer = optimizer or optim.SGD()
        self.backend = backend or select("cpu")
        self.seed = int(seed)
        self.classes = None if classes is None else tuple(classes)
        self.feed = Feed(self.backend, dtype, scaling, target_scaling, flat=bool(network.spec))
        self.params = self.feed.copies(network.params)
        self.state = self.feed.copies(optim.init(self.optimizer, network.params))
        self.run = self.backend.loop(
            make_step(network, self.optimizer, weight_decay=weight_decay, clip_norm=clip_norm),
            self.feed.prepare,
        )
        self.evaluation = Evaluation(network, self.feed)
        self.classifies = network.loss_gate.targets != "real"

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
            Asked between steps, about ten times a second; True saves and ends.
        folder : path, optional
            Where checkpoints are written: at most every `save_seconds`, and at the end.
            Without `resume` it must hold none.
        resume : bool
            Go on from the newest checkpoint in `folder`, if there is one; on NumPy, to the
            very bits that an undisturbed run reaches.
        extra : mapping, optional
            Put into each checkpoint's meta data, as it is.
        progress : bool
            Show a progress bar on stderr.

        Returns
        -------
        History

        Raises
        ------
        DataError, UsageError
            Before the first step.
        CheckpointError
            The checkpoint is of another network, data set, seed or batch size; or `folder`
            holds one although `resume` is False.
        NonFiniteLossError
            With the epoch and step; the checkpoints on disk are of before.
        """
        if epochs < 1 or batch_size < 1:
            raise UsageError(f"epochs is {epochs}, batch_size {batch_size}; expected at least 1")
        if patience is not None and (validation is None or patience < 1):
            raise UsageError("patience needs validation data, and at least 1 epoch")
        if resume and folder is None:
            raise UsageError("resume needs the folder of the checkpoints")
        x, t = checked_pair(self.network, x, t)
        check_scaling(self.feed.scaling, x)
        batch_size, epochs = int(batch_size), int(epochs)
        callbacks = [callbacks] if callable(callbacks) else list(callbacks)
        if validation is not None:
            if not isinstance(validation, tuple | list) or len(validation) != 2:
                raise UsageError("validation: expected a pair (x, t); see xpnet.data.split")
            validation = checked_pair(self.network, *validation, what=" of the validation set")
        weights = []
        if sample_weight is not None:
            mean = self.network.loss_gate.reduction == "mean"
            weights = [checked_weights(sample_weight, len(x), mean).astype(self.feed.dtype)]

        self.classifies = self.evaluation.classifies(t)
        saved = SavedRun(self, folder, identity(self, x, t, batch_size), extra or {})
        history = saved.restore() if resume else saved.begin()
        if patience is None:
            history.best_params = {}
        elif not history.best_params:  # none was kept: what came before does not count
            history.best_epoch = 0
        held = None if validation is None else self._resident(*validation)
        scored = self._scored_part(x, t)
        targets = self.feed.targets(t, self.classifies)
        data: tuple[Any, ...] = (self.feed.samples_or_file(x), targets, *weights)
        if not is_streamed(data[0]):
            data = (data[0], *map(self.backend.asarray, data[1:]))

        bar = tqdm(
            total=epochs * -(-len(x) // batch_size), initial=len(history.losses), unit="step",
            disable=not progress, leave=False, dynamic_ncols=True,
        )  # fmt: skip
        with bar:
            written = time.monotonic()
            while not history.reason and len(history.epochs) < epochs:
                if patience is not None and history.epochs_since_best >= patience:
                    history.reason = "patience"
                    break
                for losses in self._train_epoch(data, history, batch_size):
                    bar.set_postfix_str(f"loss {losses[-1]:.4g}", refresh=False)
                    bar.update(len(losses))
                    if stop is not None and stop():
                        history.reason = "stop"
                        break
                    if time.monotonic() - written >= save_seconds:
                        saved.save(history)
                        written = time.monotonic()
                if history.reason:
                    break
                record = self._close_epoch(history, len(x), batch_size, scored, held)
                if record.val_loss is not None and record.val_loss < history.best_val_loss:
                    history.best_epoch = record.epoch
                    history.best_params = self._to_host() if patience else {}
                asked = [callback(self, record) for callback in callbacks]  # every one of them
                if any(asked):
                    history.reason = "callback"
        history.reason = history.reason or "epochs"
        saved.save(history, final=True)
        if history.best_params and history.reason != "stop":
            self.params = self.feed.copies(history.best_params)
        return history

    def _train_epoch(
        self, data: tuple[Any, ...], history: History, batch_size: int
    ) -> Iterator[np.ndarray]:
        """Run what is left of an epoch; yields the losses of each chunk of steps."""
        epoch, done = len(history.epochs), history.steps_in_epoch
        began = time.perf_counter()
        for order in batch_order(data[0].shape[0], batch_size, self.seed, epoch):
            skipped = min(done, len(order))
            done -= skipped
            for part, rows in self.feed.shards(data, order[skipped:]):
                for params, state, chunk in self.run(self.params, self.state, part, rows):
                    self.params, self.state = params, state
                    losses = self.backend.to_numpy(chunk)
                    history.seconds_in_epoch += time.perf_counter() - began
                    check_finite_losses(losses, epoch + 1, len(history.losses))
                    history.steps_in_epoch += len(losses)
                    history.losses.extend(losses.tolist())
                    yield losses
                    began = time.perf_counter()

    def _close_epoch(
        self, history: History, n: int, batch_size: int, scored: Any, held: Any
    ) -> Epoch:
        """Measure, and append the epoch's record."""
        losses = np.array(history.losses[-history.steps_in_epoch :])
        sizes = np.full(len(losses), batch_size)
        sizes[-1] = n - batch_size * (len(losses) - 1)
        averages = self.network.loss_gate.reduction == "mean"
        seconds = history.seconds_in_epoch
        val_loss, val_score = self.evaluation.measure(self.params, *held) if held else (None, None)
        train_loss, train_score = self.evaluation.measure(self.params, *scored)
        # The last update of all may be the one that blew up, and no step comes to notice.
        check_finite_losses(
            np.array([train_loss]), len(history.epochs) + 1, len(history.losses) - 1
        )
        record = Epoch(
            epoch=len(history.epochs) + 1,
            step=len(history.losses),
            train_loss=float((losses * (sizes if averages else 1)).sum() / n),
            train_score=finite_or_none(train_score),
            val_loss=finite_or_none(val_loss),
            val_score=finite_or_none(val_score),
            seconds=seconds,
            samples_per_second=n / seconds if seconds else 0.0,
        )
        history.epochs.append(record)
        history.steps_in_epoch, history.seconds_in_epoch = 0, 0.0
        return record

    # -- Checks and conversions --------------------------------------------------------

    def _resident(self, x: Any, t: np.ndarray) -> tuple[Any, np.ndarray]:
        classes = self.evaluation.classifies(t)
        return self.feed.samples_or_file(x), self.feed.targets(t, classes)

    def _scored_part(self, x: Any, t: np.ndarray) -> tuple[Any, np.ndarray]:
        if len(x) > TRAIN_SCORE_SAMPLES:
            rows = np.linspace(0, len(x) - 1, TRAIN_SCORE_SAMPLES).astype(np.int64)
            x, t = select_rows(x, rows), t[rows]
        return self._resident(x, t)

    def _to_host(self) -> dict[str, np.ndarray]:
        return {name: self.backend.to_numpy(value) for name, value in self.params.items()}

    # -- Use ---------------------------------------------------------------------------

    def evaluate(self, x: Any, t: np.ndarray) -> dict[str, float | None]:
        """Loss (per sample) and score on a data set.

        Returns
        -------
        dict
            "loss", and "accuracy" for classification or "r2" for regression (None where
            the targets do not vary).
        """
        x, t = checked_pair(self.network, x, t)
        loss, score = self.evaluation.measure(self.params, *self._resident(x, t))
        return {"loss": loss, "accuracy" if self.evaluation.classifies(t) else "r2": score}

    def scores(self, x: Any) -> np.ndarray:
        """The network's outputs, shape=(N, outputs): logits, margins or regression values."""
        x = self.feed.samples_or_file(checked_samples(self.network, x))
        return self.evaluation.scores(self.params, x)

    def hidden(self, x: Any) -> dict[str, np.ndarray]:
        """The outputs of the hidden layers by node name (ReLU1 ...), each shape=(N, units)."""
        x = self.feed.samples_or_file(checked_samples(self.network, x))
        return self.evaluation.hidden(self.params, x)

    def predict(self, x: Any) -> np.ndarray:
        """Class indices, shape=(N,); after a regression its values, shape=(N, outputs).

        Indices count from 0; ``trainer.classes``, if given, has their names. The values of a
        regression are in the units of its targets.
        """
        scores = self.scores(x)
        if self.classifies:
            return np.asarray(self.network.loss_gate.decide(scores))
        return self.feed.original(scores)

    def predict_proba(self, x: Any) -> np.ndarray:
        """Probabilities of the classes, shape=(N, classes).

        Raises
        ------
        UsageError
            The loss is neither softmax nor sigmoid: its scores are not probabilities.
        """
        gate = self.network.loss_gate
        if not hasattr(gate, "probabilities"):
            raise UsageError(
                f"{type(gate).__name__} gives scores, not probabilities; "
                "train with the softmax or sigmoid loss, or call scores()"
            )
        return np.asarray(gate.probabilities(self.scores(x)))

    # -- Files -------------------------------------------------------------------------

    def packed(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, meta) of the model, for `checkpoint.save`."""
        arrays = {f"params/{name}": value for name, value in self._to_host().items()}
        scalings = {"scaling": self.feed.scaling, "target_scaling": self.feed.target_scaling}
        for name, scaling in scalings.items():
            if scaling is not None:
                arrays[f"{name}/shift"] = np.asarray(scaling.shift, np.float64)
                arrays[f"{name}/scale"] = np.asarray(scaling.scale, np.float64)
        return arrays, {
            "format": FORMAT,
            "spec": self.network.spec,
            "dtype": self.feed.dtype,
            "classifies": self.classifies,
            "classes": self.classes,
        }

    def save(self, path: str | Path, extra: Mapping[str, Any] | None = None) -> None:
        """Save parameters, architecture and scaling as one file that `Trainer.load` reads."""
        arrays, meta = self.packed()
        checkpoint.save(path, arrays, meta | {"extra": dict(extra or {})})

    @classmethod
    def load(cls, path: str | Path, *, network: Network | None = None, **options: Any) -> Trainer:
        """A trainer with the network, parameters and scaling of a saved model or checkpoint.

        A checkpoint's parameters are those of its last step, also under early stopping.

        Parameters
        ----------
        path : path
        network : Network, optional
            Needed for a network that was not built by `mlp`.
        **options
            As for Trainer: optimizer, backend, ...; the optimizer starts afresh.

        Raises
        ------
        CheckpointError
        """
        return cls.unpacked(*checkpoint.load(path), path=path, network=network, **options)

    @classmethod
    def unpacked(
        cls,
        arrays: dict[str, np.ndarray],
        meta: dict[str, Any],
        *,
        path: str | Path,
        network: Network | None = None,
        **options: Any,
    ) -> Trainer:
        """As `load`, from a checkpoint that has been read already; `path` is for messages."""
        if meta.get("format") != FORMAT:
            raise CheckpointError(
                f"{path}: has format {meta.get('format')}, this version of xpnet reads {FORMAT}"
            )
        if network is None:
            if not meta["spec"]:
                raise CheckpointError(f"{path}: holds a network built by hand; pass network=...")
            network = mlp(**meta["spec"])
        kept: dict[str, Any] = {"dtype": meta["dtype"], "classes": meta["classes"]}
        for name in ("scaling", "target_scaling"):
            if f"{name}/shift" in arrays:
                kept[name] = Scaling(arrays[f"{name}/shift"], arrays[f"{name}/scale"])
        trainer = cls(network, **{**kept, **options})
        params = checkpoint.section(arrays, "params/")
        shapes = {name: p.shape for name, p in network.params.items()}
        if {name: p.shape for name, p in params.items()} != shapes:
            raise CheckpointError(f"{path}: its parameters do not fit the network {shapes}")
        trainer.params = trainer.feed.copies(params)
        trainer.classifies = meta["classifies"]
        return trainer
