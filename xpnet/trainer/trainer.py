"""The trainer runs epochs of steps, evaluates, stops early and saves."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from xpnet import optim
from xpnet.arrays.ops import Array
from xpnet.backend.interface import Backend, Run
from xpnet.data.augmentation import Augmentation
from xpnet.data.dataset import Scaling, is_streamed, select_rows
from xpnet.data.encoder import Encoder
from xpnet.data.loader import Feed
from xpnet.errors import CheckpointError, UsageError, counted, real, shown, whole
from xpnet.models import schema
from xpnet.models.fitting import unmeasured
from xpnet.models.model import Model
from xpnet.models.network import Network
from xpnet.models.summary import Summary, in_words
from xpnet.parallel.group import ALONE, Group
from xpnet.trainer.advice import advise
from xpnet.trainer.agreement import (
    check_same_bits,
    check_same_run,
    check_whole_batch,
    unsure_of_rows,
)
from xpnet.trainer.defaults import Defaults, defaults
from xpnet.trainer.epochs import Shared, train_epoch
from xpnet.trainer.history import (
    Epoch,
    History,
    check_finite_losses,
    check_finite_values,
    finite_or_none,
)
from xpnet.trainer.interrupts import held_signals
from xpnet.trainer.preparing import Prepared, prepare
from xpnet.trainer.progress import progress_bar
from xpnet.trainer.resume import SavedRun, identity, optimizer_state, rules
from xpnet.trainer.share import Share
from xpnet.trainer.step import make_step
from xpnet.trainer.validation import checked_validation
from xpnet.trainer.words import Log, described, print_lines, quietly

__all__ = ["Trainer"]

# The trainer measures the training score of an epoch on at most this many samples.
TRAIN_SCORE_SAMPLES = 10_000

# If a step fails, the trainer restores copies of parameters and state. It renews them when they
# are older than this.
KEEP_SECONDS = 1.0

Callback = Callable[["Trainer", Epoch], bool | None]


class Trainer:
    """Train a model, and use it.

    Parameters
    ----------
    network : Network or Model
        The trainer copies a network's initial parameters and never writes to them. It continues to
        train a model: training consumes and replaces the model's parameters. A model has its own
        backend, dtype, scalings and names, so you can pass these options only with a network.
    optimizer : Optimizer, optional
        A rule of `xpnet.optim`. Without one, each `fit` takes a new AdamW, whose rate falls from
        0.01 (0.003 with convolutions) to 0, and whose weight decay suits the size of the data: see
        `xpnet.trainer.defaults.defaults`.
    backend : Backend, optional
        From `xpnet.select`; NumPy by default.
    dtype : {"float32", "float64"}
    scaling : Scaling, "auto" or None
        The scaling of x before it enters the network. auto: the first `fit` finds it from its x.
        It gives each feature mean 0 and standard deviation 1, or all values of images together;
        uint8 values up to 255 are divided by 255. None leaves all but uint8 values as they are.
    target_scaling : Scaling, "auto" or None
        The scaling of the targets of a regression; auto gives each mean 0 and standard deviation 1,
        unless the loss needs targets >= 0. You give targets and get predictions in their own
        units; only losses are in scaled units.
    classes, columns : sequence of str, optional
        Names of the classes and of the features; the model stores them.
    encoder : Encoder, optional
        From `xpnet.data.Encoder.of(frame)`: it makes features of data frames, and scales them.
    lr : float, optional
        Without `optimizer`: the learning rate at the start, in place of 0.01.
    weight_decay : float, optional
        λ of the L2 term ½ λ ΣW² (weights, not biases). The reported loss excludes this term.
        Without `optimizer`, it is AdamW's own λ in place of the one that suits the data.
    l1 : float, optional
        λ of the L1 term λ Σ|W| (weights, not biases): many weights come close to 0. The reported
        loss excludes this term too.
    clip_norm : float, optional
        Largest norm of all gradients together.
    augment : Augmentation or str, optional
        Move and mirror the images of each batch, see `xpnet.data.Augmentation`; "shift=2,flip" says
        the same in text. For networks of images (channels, rows, columns).
    seed : int
        Random seed for the batch order, and for what `augment` does.
    group : Group
        From `xpnet.parallel.world`: the processes that train together. All of them must make the
        same trainer and call `fit` with the same data; each computes on its rows of every batch,
        and rank 0 writes the files. What a trainer does beside `fit` concerns no other rank.

    Attributes
    ----------
    model : Model
        The model that you train: it predicts, evaluates and saves. The trainer's methods of those
        names call the model's.
    history : History or None
        Of the last `fit`.
    params, state : dict of str to array
        The model's parameters and the optimizer state, arrays of the backend. Training consumes
        and replaces them: read them again after each `fit`.
    run : callable
        The backend's epoch loop of this trainer's step, see `xpnet.backend.Backend`.
    rate : float
        The learning rate of the next step.
    classifies : bool
        Whether `predict` returns classes. `fit` sets it from its targets.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> x = np.random.default_rng(0).standard_normal((200, 3))
    >>> t = (x.sum(axis=1) > 0).astype(int)
    >>> trainer = Trainer(xpnet.mlp([3, 8, 2]))
    >>> history = trainer.fit(x, t)
    >>> trainer.evaluate(x, t)["accuracy"] > 0.95
    True
    """

    def __init__(
        self,
        network: Network | Model,
        optimizer: optim.Optimizer | None = None,
        *,
        lr: float | None = None,
        weight_decay: float | None = None,
        l1: float | None = None,
        clip_norm: float | None = None,
        augment: Augmentation | str | None = None,
        seed: int = 0,
        backend: Backend | None = None,
        dtype: Literal["float32", "float64"] = "float32",
        scaling: Scaling | Literal["auto"] | None = "auto",
        target_scaling: Scaling | Literal["auto"] | None = "auto",
        classes: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        encoder: Encoder | None = None,
        group: Group = ALONE,
    ) -> None:
        if not isinstance(network, Network | Model):
            raise UsageError(f"network is {shown(network)}; expected one such as xpnet.mlp([3, 2])")
        known = not isinstance(optimizer, type) and hasattr(optimizer, "rule")
        if optimizer is not None and not known:
            raise UsageError(
                f"optimizer is {shown(optimizer)}; expected one such as xpnet.optim.Adam(0.001)"
            )
        if isinstance(network, Model):
            given = (backend, classes, columns, encoder)
            auto = _is_auto(scaling) and _is_auto(target_scaling)
            if any(option is not None for option in given) or dtype != "float32" or not auto:
                raise UsageError(
                    "backend, dtype, scalings, classes, columns and encoder are the model's own: "
                    "give them to Model.load, or give the trainer a network"
                )
            self.model = network
            self._finds = False, False
        else:
            self._finds = _is_auto(scaling) and encoder is None, _is_auto(target_scaling)
            self.model = Model(
                network, backend=backend, dtype=dtype, classes=classes, columns=columns,
                encoder=encoder, scaling=_given(scaling),
                target_scaling=_given(target_scaling),
            )  # fmt: skip
        self.seed = whole("seed", seed)
        if not isinstance(group, Group):
            raise UsageError(f"group is {shown(group)}; expected xpnet.parallel.world()")
        self.group = group
        self._reduce = self.backend.reducer(group)
        if lr is not None:
            lr = real("lr", lr, 0.0, ends="()")
            if optimizer is not None:
                raise UsageError(f"lr is the optimizer's own: {type(optimizer).__name__}({lr:g})")
        self._lr = lr
        if weight_decay is not None:
            weight_decay = real("weight_decay", weight_decay, 0.0)
        self._rules: dict[str, Any] = {
            "weight_decay": weight_decay,
            "l1": None if l1 is None else real("l1", l1, 0.0),
            "clip_norm": clip_norm,
            "augment": Augmentation.of(augment),
            "seed": self.seed,
        }
        self.history: History | None = None
        self._chooses = optimizer is None
        self._take(optimizer or optim.AdamW(0.01))

    def _take(self, optimizer: optim.Optimizer) -> None:
        """Train by this rule from now on, from a state of zeros."""
        self.optimizer = optimizer
        self.state = self.feed.copies(optim.init(optimizer, self.network.params))
        self.run = self._loop(None)
        self._shared: dict[int, tuple[Run, slice]] = {}

    def _loop(self, share: Share | None) -> Run:
        step = make_step(
            self.network, self.optimizer, **self._beside, augmentation=self._augmentation,
            seed=self.seed, share=share,
        )  # fmt: skip
        agree = None if share is None else self.group.least
        return self.backend.loop(step, self.feed.prepare, agree)

    def _share(self, batch: int) -> tuple[Run, slice]:
        """Return the loop and this rank's rows for batches of this size."""
        if self.group.size == 1:
            return self.run, slice(None)
        if batch not in self._shared:
            share = Share(self.group.rank, self.group.size, batch, self._reduce)
            self._shared[batch] = self._loop(share), share.rows
        return self._shared[batch]

    @property
    def _beside(self) -> dict[str, Any]:
        """What a step does beside the rule; a rule that `fit` chose decays the weights itself."""
        return {
            "weight_decay": 0.0 if self._chooses else self._rules["weight_decay"] or 0.0,
            "l1": self._rules.get("l1") or 0.0,  # the pickles of 0.2.0 have none
            "clip_norm": self._rules["clip_norm"],
        }

    @property
    def _augmentation(self) -> Augmentation | None:
        found: Augmentation | None = self._rules.get("augment")  # the pickles of 0.2.0 have none
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickle or a copy continues from here, with a new compiled loop.
        state = {name: self.backend.to_numpy(value) for name, value in self.state.items()}
        own = {name: getattr(self, name) for name in ("_finds", "_chooses", "_rules", "history")}
        return _revived, (self.model, self.optimizer, own, state)

    # -- Words -------------------------------------------------------------------------

    def __repr__(self) -> str:
        model = repr(self.model).removeprefix("<Model: ").removesuffix(">")
        trained = "" if self.history is None else f"; {self._trained(self.history)}"
        return f"<Trainer: {model}; {self._rule()}{trained}>"

    def summary(self) -> Summary:
        """Return a table of layers, shapes and parameters, and how the trainer trains them.

        Print it; a notebook shows it as HTML. See `Model.summary`.
        """
        made = self.model.summary()
        facts = dict(made.facts)
        where = facts.pop("backend")
        if self._finds[0]:
            facts["scaling"] = "found by the first fit"
        if self._finds[1] and not self.classifies:
            facts["targets"] = "scaling found by the first fit"
        facts["optimizer"] = self._rule()
        if self.history is not None:
            facts["trained"] = self._trained(self.history)
        return replace(made, facts=(*facts.items(), ("backend", where)))

    def _rule(self) -> str:
        """Return the optimizer in words, with what a step does beside its rule."""
        undecided = self._chooses and self.history is None
        words = ["AdamW, by the size of the data" if undecided else in_words(self.optimizer)]
        decay, l1, norm = self._beside.values()
        words += [f"weight decay {decay:g}"] if decay else []
        words += [f"L1 penalty {l1:g}"] if l1 else []
        words += [] if norm is None else [f"gradients clipped to {norm:g}"]
        if self._augmentation is not None:
            words.append(f"images augmented by {self._augmentation}")
        return ", ".join(words)

    @staticmethod
    def _trained(history: History) -> str:
        return f"{counted(len(history.epochs), 'epoch')}, {counted(history.steps, 'step')}"

    # -- What the model is -------------------------------------------------------------

    @property
    def network(self) -> Network:
        """The network that is trained."""
        return self.model.network

    @property
    def backend(self) -> Backend:
        """The library and the device that compute."""
        return self.model.backend

    @property
    def feed(self) -> Feed:
        """What brings samples to the device, scaled."""
        return self.model.feed

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, or None."""
        return self.model.classes

    @property
    def classifies(self) -> bool:
        """Whether the network predicts classes, and not values."""
        return self.model.classifies

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        if "lr" in self.state:
            return float(self.state["lr"])
        lr: Any = self.optimizer.lr
        if callable(lr):
            k = self.backend.asarray(np.asarray(int(self.state["step"]), np.float32))
            lr = f"{float(lr(k)):.7g}"  # float32 has no more digits
        return float(lr) * float(self.state.get("level", 1.0))

    @property
    def params(self) -> dict[str, Array]:
        """The parameters as they are now, arrays of the backend."""
        return self.model.params

    @params.setter
    def params(self, params: dict[str, Array]) -> None:
        self.model.params = params

    # -- Training ----------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        t: Any,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        validation: tuple[Any, Any] | float | None = None,
        sample_weight: Any = None,
        class_weight: str | Mapping[Any, float] | None = None,
        patience: int | None = None,
        metric: str | None = None,
        callbacks: Sequence[Callback] | Callback = (),
        stop: Callable[[], bool] | None = None,
        folder: str | Path | None = None,
        resume: bool = False,
        save_seconds: float = 60.0,
        extra: Mapping[str, Any] | None = None,
        verbose: bool = False,
        progress: bool = False,
    ) -> History:
        """Train the model.

        A second call continues from the weights and the state of your optimizer, but starts a new
        history and counts epochs and batch orders from the beginning.

        Parameters
        ----------
        x : array, shape=(N, ...)
            Features or images, in an array of any library. `fit` copies them to the backend once.
            It reads a memory-mapped array batch by batch, never as a whole. Or a data frame of
            pandas, polars or pyarrow: without `encoder`, its columns must be numbers without gaps,
            or make as many features as the network has inputs. The model remembers the names.
        t : array, list or series
            Class indices, shape=(N,); one-hot rows or real targets, shape=(N, outputs), or
            (N,) if there is one output. Or text labels, one a sample: `predict` returns them.
        epochs, batch_size : int, optional
            By default they suit N, see `xpnet.trainer.defaults.defaults`. The last batch of an
            epoch is smaller if batch_size does not divide N.
        validation : (x, t) or float, optional
            Data to measure after each epoch. Or the share of your data to split off for it, such
            as 0.1: of every class alike, with the random seed (seed, 2) of `xpnet.data.split`.
            Encoder, scaling and class weights then follow from the rest.
        sample_weight : array or series, shape=(N,), optional
            How much each sample counts, relative to the others of its batch.
        class_weight : "balanced" or mapping from class to weight, optional
            How much the samples of each class count, see `xpnet.data.class_weights`; the keys are
            names if t is text, else indices. `sample_weight` multiplies it.
        patience : int, optional
            Stop after this many epochs without a smaller val_loss, or a better `metric`, and
            restore the weights of the best epoch. Needs `validation`.
        metric : str, optional
            A name of `xpnet.metrics.METRICS`, such as "f1": it decides which epoch is the best, in
            place of the loss. Needs `validation`.
        callbacks : callable or sequence of callable
            `fit` calls ``callback(trainer, epoch)`` after each epoch, with its
            `xpnet.trainer.Epoch`. Return True to end the training.
        stop : callable, optional
            `fit` calls it after each chunk of steps (about 0.1 s; on JAX up to 100 steps). Return
            True to save and end.
        folder : path, optional
            Folder for checkpoints: `fit` writes one before the first step, then at most one every
            `save_seconds`, and one at the end. Without `resume`, the folder must not hold a
            checkpoint of a trained step. Only one training at a time can write into it.
        resume : bool
            Continue from the newest checkpoint in `folder`, if there is one. On NumPy the result
            is bit-identical to an uninterrupted run. Data, sample order, sample weights, network,
            loss and scaling must be the same as before. Numbers of the optimizer may change; `fit`
            then prints the old and the new ones.
        extra : mapping, optional
            Meta data to add to each checkpoint, see `Model.save`.
        verbose : bool
            Print what the command line prints: what is trained, the epochs (about 20 of them, if
            there are more), how it ended, and advice.
        progress : bool
            Show a progress bar, on stderr or in the notebook.

        Returns
        -------
        History
            Its `notes` are advice. A network that is no better than guessing is a RuntimeWarning
            too.

        Raises
        ------
        DataError, UsageError
            An argument is wrong, or another process trains into `folder`. Raised before the first
            step.
        CheckpointError
            The checkpoint belongs to another network, data set, seed or batch size; or `folder`
            holds one although `resume` is False.
        OSError
            Before the first step: `fit` cannot write into `folder`. After the last step: it cannot
            write the last checkpoint.
        NonFiniteLossError
            The loss became infinite or NaN; the error has the epoch and the step. The checkpoints
            on disk are from before.
        """
        epochs = None if epochs is None else whole("epochs", epochs, 1)
        batch_size = None if batch_size is None else whole("batch_size", batch_size, 1)
        pair, share = checked_validation(validation)
        if patience is not None:
            patience = whole("patience", patience, 1)
            if validation is None:
                raise UsageError("patience needs validation data")
        if metric is not None:
            if validation is None:
                raise UsageError("metric needs validation data")
            self.model.check_metric(metric)
        if save_seconds != math.inf:
            save_seconds = real("save_seconds", save_seconds, 0.0)
        if resume and folder is None:
            raise UsageError("resume needs the folder of the checkpoints")
        if callable(callbacks) or not isinstance(callbacks, Iterable):
            callbacks = [callbacks]
        callbacks = list(callbacks)
        for called in (*callbacks, *([] if stop is None else [stop])):
            if not callable(called):
                raise UsageError(f"a callback is {shown(called)}; expected a function")
        group = self.group
        # Of ranks that differ in these, one would wait for what another does not do.
        asked = {"epochs": epochs, "patience": patience, "metric": metric, "resume": resume}
        check_same_run(group, {**asked, "validation": pair is not None, "validation_share": share})
        given = group.together(
            lambda: prepare(
                self.model, x, t, pair=pair, share=share, seed=self.seed,
                sample_weight=sample_weight, class_weight=class_weight, finds=self._finds,
                group=group,
            ),
        )  # fmt: skip
        n = len(given.x)
        chosen = defaults(n, batch_size, convolution=self.network.convolves)
        batch_size, epochs = chosen.batch_size, epochs or chosen.epochs
        self._settle(given, chosen, epochs * -(-n // batch_size))
        saved = self._saved(folder, given, batch_size, extra)
        if share is not None:
            saved.identity["validation_share"] = share
        numbers = {name: value for name, value in saved.rules.items() if name != "optimizer"}
        rule = (saved.identity.get("optimizer"), saved.rules.get("optimizer"))
        # Libraries and files take other chunks of steps, and meet the others at other moments.
        place = {"library": self.backend.library, "memory-mapped samples": is_streamed(given.x)}
        check_same_run(group, {**place, **saved.identity, **numbers, "optimizer": rule})
        with ExitStack() as stack:
            group.first(lambda: stack.enter_context(saved.held()))
            self.history = history = self._begun(saved, resume)
            history.score = "accuracy" if self.classifies else "r2"
            self._finds = False, False
            if history.metric != (metric or ""):
                history.metric, history.best_epoch, history.best_params = metric or "", 0, {}
                # They are of another metric: no epoch to come is better or worse than those.
                history.epochs = [replace(epoch, val_metric=None) for epoch in history.epochs]
            if patience is None:
                history.best_params, history.patience_from = {}, None
            elif not history.best_params and history.patience_from is None:
                # No copy of the earlier epochs' weights exists.
                history.best_epoch, history.patience_from = 0, len(history.epochs)
            scored = self._scored_part(given.x, given.t)
            log = None
            if verbose and group.rank == 0:
                log = Log(quietly(print_lines), epochs, history.score, history.metric or None)
                callbacks.insert(0, log.epoch)
                penalties = {name: self._beside[name] for name in ("weight_decay", "l1")}
                log.say(
                    *described(
                        self.model, self.optimizer, given.x, given.t, given.held, epochs,
                        batch_size, **penalties, augmentation=self._augmentation,
                        ranks=group.size,
                    )
                )  # fmt: skip
            begun = history.steps
            shown_bar = progress and group.rank == 0
            with progress_bar(epochs * -(-n // batch_size), begun, shown_bar) as advance:
                self._run(
                    history, given, scored, saved, epochs=epochs, batch_size=batch_size,
                    patience=patience, callbacks=callbacks, stop=stop, advance=advance,
                    save_seconds=save_seconds,
                )  # fmt: skip
            if history.best_params and history.reason != "stop":
                self.params = self.feed.copies(history.best_params)
            elif history.reason == "patience":
                what = f"{history.metric} on the validation set" if metric else "validation loss"
                check = (
                    "check that the validation set has samples of every class, and its targets vary"
                    if metric
                    else "check that you scale validation and training set the same way"
                )
                warnings.warn(
                    f"no epoch had a finite {what}: the model keeps the weights of the "
                    f"last epoch; {check}",
                    RuntimeWarning,
                    stacklevel=2,
                )
            earlier = int(self.backend.to_numpy(self.state["step"])) - history.steps
            history.notes, failure = advise(
                self.model, self.optimizer, earlier, history, given[:2], scored, given.held
            )
            history.failure = failure if history.steps > begun else ""
            if history.failure and group.rank == 0:
                warnings.warn(failure, RuntimeWarning, stacklevel=2)
            if log is not None:
                log.end(history)
            return history

    def _settle(self, given: Prepared, chosen: Defaults, steps: int) -> None:
        """Take what the data has decided: scalings, and the rule if you gave none."""
        before = self.feed.scaling, self.feed.target_scaling
        found = given.scaling, given.target_scaling
        if rescaled := any(new is not old for new, old in zip(found, before, strict=True)):
            self.model.rescale(*found)
        if self._chooses:
            if (decay := self._rules["weight_decay"]) is not None:
                chosen = replace(chosen, weight_decay=decay)
            if self._lr is not None:
                chosen = replace(chosen, lr=self._lr)
            self._take(chosen.rule(steps))
        elif rescaled:  # the loop scales
            state = self.state
            self._take(self.optimizer)
            self.state = state
        self.model.classifies = self.model.evaluation.classifies(given.t)
        self.model.sample_dtype = str(given.x.dtype)

    def _run(
        self,
        history: History,
        given: Prepared,
        scored: Any,
        saved: SavedRun,
        *,
        epochs: int,
        batch_size: int,
        patience: int | None,
        callbacks: Sequence[Callback],
        stop: Callable[[], bool] | None,
        advance: Callable[[np.ndarray], None],
        save_seconds: float,
    ) -> None:
        """Train epoch by epoch until something ends it; save in between, and at the end."""
        group = self.group
        held = None if given.held is None else self.model.resident(*given.held, own=True)
        targets = self.feed.targets(given.t, self.classifies)
        samples = self.feed.samples_or_file(given.x, own=True, group=group)
        data: tuple[Any, ...] = (samples, targets, *given.weights)
        if not is_streamed(samples):
            data = (samples, *map(self.backend.asarray, data[1:]))
        if group.size > 1 and (gates := unsure_of_rows(self.network)):
            alone, together = (
                self._first_loss(data, batch_size, shared) for shared in (None, self._share)
            )
            check_whole_batch(gates, alone, together)
        self._keep()
        begun = history.steps
        watch = optim.Watch.of(self.optimizer.lr)
        if watch is not None:
            watch.catch_up(history.progress(each, held is not None) for each in history.epochs)
        if not _ended(history, epochs, patience):
            # A folder that refuses writes fails now, and a crash finds the current settings.
            self._save(saved, history, required=True)
        written = time.monotonic()
        while not _ended(history, epochs, patience):
            for losses in self._train_epoch(data, history, batch_size):
                advance(losses)
                if group.any(stop is not None and stop()):
                    history.reason = "stop"
                    break
                if group.any(group.rank == 0 and time.monotonic() - written >= save_seconds):
                    self._save(saved, history)
                    written = time.monotonic()
            if history.reason:
                break
            record, best = self._close_epoch(
                history, len(given.x), batch_size, scored, held, given.held and given.held[1]
            )
            if best:
                history.best_epoch = record.epoch
                history.best_params = self.model.to_host() if patience else {}
            # Call all of them, and let no rank go on where one of another fails.
            asked = group.together(partial(_answers, callbacks, self, record))
            if group.any(any(asked)):
                history.reason = "callback"
            if watch is not None and watch.falls(history.progress(record, held is not None)):
                self._lower(watch)
        history.reason = history.reason or _ended(history, epochs, patience)
        if history.steps > begun:
            self._save(saved, history, required=True)

    def _first_loss(self, data: tuple[Any, ...], batch_size: int, shared: Shared | None) -> float:
        """Return the loss of the first batch; the steps change copies alone."""
        params, state = (
            self.feed.copies({name: self.backend.to_numpy(a) for name, a in arrays.items()})
            for arrays in (self.params, self.state)
        )
        chunks = train_epoch(
            self.run, self.feed, data, params, state,
            batch_size=batch_size, seed=self.seed, shared=shared,
        )  # fmt: skip
        _, _, losses = next(chunks)
        return float(self.backend.to_numpy(losses)[0])

    def _saved(
        self,
        folder: str | Path | None,
        given: Prepared,
        batch_size: int,
        extra: Mapping[str, Any] | None,
    ) -> SavedRun:
        """Describe this training for its folder; without a folder, read no data."""
        if folder is None and self.group.size == 1:
            return SavedRun(None, {}, {}, {})
        described = identity(
            self.model, self.optimizer, given.x, given.t, validation=given.held,
            sample_weight=given.weights[0] if given.weights else None,
            batch_size=batch_size, seed=self.seed, augmentation=self._augmentation,
        )  # fmt: skip
        numbers = rules(self.optimizer, self.backend, **self._beside)
        # Rank 0 writes; the others only compare what they train.
        return SavedRun(folder if self.group.rank == 0 else None, described, numbers, extra or {})

    def _train_epoch(
        self, data: tuple[Any, ...], history: History, batch_size: int
    ) -> Iterator[np.ndarray]:
        """Run the remaining steps of an epoch; yield the losses of each chunk of steps."""
        epoch = len(history.epochs)
        began = time.perf_counter()
        chunks = train_epoch(
            self.run, self.feed, data, self.params, self.state,
            batch_size=batch_size, seed=self.seed, epoch=epoch, done=len(history.unfinished),
            shared=self._share,
        )  # fmt: skip
        stepping = True
        try:
            with held_signals() as deliver:
                # Store them before waiting for the losses: the old arrays are consumed.
                for self.params, self.state, on_device in chunks:
                    losses = self.backend.to_numpy(on_device)
                    history.seconds_in_epoch += time.perf_counter() - began
                    check_finite_losses(losses, epoch + 1, history.steps)
                    history.unfinished.extend(losses.tolist())
                    stepping = False
                    deliver()
                    yield losses
                    if time.monotonic() - self._kept[0] > KEEP_SECONDS:
                        self._keep()
                    stepping, began = True, time.perf_counter()
                stepping = False
        except BaseException:
            if stepping:  # a step may have consumed parameters without replacing them
                _, params, state = self._kept
                self.params, self.state = self.feed.copies(params), self.feed.copies(state)
            raise

    def _lower(self, watch: optim.Watch) -> None:
        """Let the rate of a plateau fall."""
        level = watch.lowered(float(self.backend.to_numpy(self.state["level"])))
        self.state |= self.feed.copies({"level": np.asarray(level, self.feed.dtype)})

    def _keep(self) -> None:
        """Copy parameters and state, to restore them if one of the next steps fails."""
        params, state = (
            {name: self.backend.to_numpy(value) for name, value in arrays.items()}
            for arrays in (self.params, self.state)
        )
        self._kept = time.monotonic(), params, state

    def _save(self, saved: SavedRun, history: History, *, required: bool = False) -> None:
        """Write a checkpoint; refuse numbers that are not finite."""
        self._check_finite(history)
        if self.group.size > 1:
            arrays = {name: self.backend.to_numpy(a) for name, a in self._arrays.items()}
            check_same_bits(self.group, arrays, history.steps)
        self.group.first(lambda: saved.save(self.model, self.state, history, required))

    @property
    def _arrays(self) -> dict[str, Array]:
        """Parameters and state."""
        return {**self.params, **self.state}

    def _check_finite(self, history: History) -> None:
        epoch = len(history.epochs) + bool(history.unfinished)
        check_finite_values(self._arrays, epoch, history.steps)

    def _begun(self, saved: SavedRun, resume: bool) -> History:
        """Return the history to go on with; restore what the newest checkpoint holds.

        Rank 0 reads the files. The others get what it found, or its weights: theirs may have been
        drawn without a seed.
        """

        def found() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], History] | None:
            held = saved.restore(self.params, self.state, self.optimizer) if resume else None
            if held is None:
                history = History() if resume else saved.begin()
                if self.group.size == 1:
                    return None
                state = {name: self.backend.to_numpy(value) for name, value in self.state.items()}
                return self.model.to_host(), state, history
            params, _, history = held
            for values in filter(None, (params, history.best_params)):
                if fault := unmeasured(self.network, values):
                    raise CheckpointError(f"{saved.folder}: {fault}")
            return held

        held = self.group.first(found)
        if held is None:
            return History()
        params, state, history = held
        self.params, self.state = self.feed.copies(params), self.feed.copies(state)
        return history

    def _close_epoch(
        self, history: History, n: int, batch_size: int, scored: Any, held: Any, held_t: Any
    ) -> tuple[Epoch, bool]:
        """Measure the epoch, append its record to the history; return it, and if it is the best.

        `held_t` are the targets in `held` as you gave them.
        """
        losses = np.array(history.unfinished)
        sizes = np.full(len(losses), batch_size)
        sizes[-1] = n - batch_size * (len(losses) - 1)
        averages = self.network.loss_gate.reduction == "mean"
        seconds = history.seconds_in_epoch
        measure = self.model.evaluation.measure
        group = self.group
        val_loss, val_score = (
            measure(self.params, held[0], held[1], group) if held else (None, None)
        )
        train_loss, train_score = measure(self.params, scored[0], scored[1], group)
        # The last update may have diverged, and no later step would notice.
        check_finite_losses(np.array([train_loss]), len(history.epochs) + 1, history.steps - 1)
        self._check_finite(history)
        metric = None
        if history.metric:
            metric = self.model.metric(history.metric, held[0], held_t, group)
        record = Epoch(
            epoch=len(history.epochs) + 1,
            step=history.steps,
            train_loss=float((losses * (sizes if averages else 1)).sum() / n),
            train_score=finite_or_none(train_score),
            val_loss=finite_or_none(val_loss),
            val_score=finite_or_none(val_score),
            seconds=seconds,
            samples_per_second=n / seconds if seconds else 0.0,
            val_metric=finite_or_none(metric),
        )
        best = history.is_best(record)  # among those before it
        history.close(record)
        return record, best

    def _scored_part(self, x: Any, t: np.ndarray) -> tuple[Any, np.ndarray]:
        if len(x) > TRAIN_SCORE_SAMPLES:
            rows = np.linspace(0, len(x) - 1, TRAIN_SCORE_SAMPLES).astype(np.int64)
            x, t = select_rows(x, rows), t[rows]
        return self.model.resident(x, t, own=True)

    # -- Use, by the model -------------------------------------------------------------

    def evaluate(self, x: Any, t: Any) -> dict[str, float | None]:
        """Return the loss and the metrics on a data set, see `Model.evaluate`."""
        return self.model.evaluate(x, t)

    def scores(self, x: Any) -> np.ndarray:
        """Return the network's outputs, see `Model.scores`."""
        return self.model.scores(x)

    def hidden(self, x: Any) -> dict[str, np.ndarray]:
        """Return the outputs of the hidden layers, see `Model.hidden`."""
        return self.model.hidden(x)

    def predict(self, x: Any) -> np.ndarray:
        """Return classes or values, see `Model.predict`."""
        return self.model.predict(x)

    def predict_proba(self, x: Any) -> np.ndarray:
        """Return the probabilities of the classes, see `Model.predict_proba`."""
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
        weight_decay: float | None = None,
        l1: float | None = None,
        clip_norm: float | None = None,
        augment: Augmentation | str | None = None,
        seed: int = 0,
        group: Group = ALONE,
        **options: Any,
    ) -> Trainer:
        """Make a trainer from a saved model or checkpoint, to train on.

        From a checkpoint it takes the optimizer state too, if the rule is the one that wrote it and
        the learning rate is a number. Otherwise the state starts at 0.

        Parameters
        ----------
        path, network, **options
            As for `Model.load`: backend, ...
        optimizer, weight_decay, l1, clip_norm, augment, seed, group
            As for `Trainer`.

        Raises
        ------
        CheckpointError
            As `Model.load` raises it.
        """
        arrays, meta = schema.load(path)
        model = Model.unpacked(arrays, meta, path=path, network=network, **options)
        rules: dict[str, Any] = {"weight_decay": weight_decay, "l1": l1, "clip_norm": clip_norm}
        trainer = cls(model, optimizer, **rules, augment=augment, seed=seed, group=group)
        if state := optimizer_state(arrays, meta, trainer.optimizer, trainer.state):
            trainer.state = trainer.feed.copies(state)
        return trainer


def _is_auto(scaling: Any) -> bool:
    return isinstance(scaling, str) and scaling == "auto"  # an array compares by element


def _given(scaling: Any) -> Any:
    return None if _is_auto(scaling) else scaling


def _answers(callbacks: Sequence[Callback], trainer: Trainer, record: Epoch) -> list[Any]:
    return [callback(trainer, record) for callback in callbacks]


def _ended(history: History, epochs: int, patience: int | None) -> str:
    """Return why the training has ended; "" if it has not."""
    if history.reason or len(history.epochs) >= epochs:
        return history.reason or "epochs"
    return "patience" if patience and history.epochs_since_best >= patience else ""


def _revived(
    model: Model, optimizer: optim.Optimizer, own: dict[str, Any], state: dict[str, np.ndarray]
) -> Trainer:
    """Rebuild a trainer from a pickle or for a copy."""
    trainer = Trainer(model, optimizer, **own["_rules"])
    for name, value in own.items():
        setattr(trainer, name, value)
    trainer.history = own["history"]
    trainer._take(optimizer)
    trainer.state = trainer.feed.copies(state)
    return trainer
