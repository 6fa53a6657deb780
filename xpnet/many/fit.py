"""Train many networks at once: from data and a grid to a set of models."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from xpnet import optim
from xpnet.backend.interface import Backend
from xpnet.data.augmentation import Augmentation
from xpnet.data.dataset import Scaling
from xpnet.data.encoder import Encoder
from xpnet.errors import NonFiniteLossError, UsageError, counted, real, shown, whole
from xpnet.many.files import SavedSet, identity
from xpnet.many.members import (
    Training,
)
from xpnet.many.model_set import ModelSet
from xpnet.many.planning import PreparedSet, as_first, prepare_set
from xpnet.many.sharing import gathered
from xpnet.many.stack import Stack
from xpnet.many.training import Callback, Progress, Rules, Run, asked, train
from xpnet.models import checkpoint
from xpnet.models.model import Model
from xpnet.models.network import Network
from xpnet.parallel.group import ALONE, Group
from xpnet.trainer.agreement import check_same_run
from xpnet.trainer.history import Epoch, History
from xpnet.trainer.progress import tqdm_auto
from xpnet.trainer.resume import digest
from xpnet.trainer.trainer import Trainer
from xpnet.trainer.words import print_lines, quietly

__all__ = ["fit_many"]


def fit_many(
    networks: Network | Sequence[Network],
    data: tuple[Any, Any],
    optimizer: optim.Optimizer | Callable[[int], optim.Optimizer] | None = None,
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: int | Sequence[int] | None = None,
    folds: Any = None,
    groups: Any = None,
    bootstrap: bool = False,
    epochs: int | None = None,
    batch_size: int | None = None,
    validation: tuple[Any, Any] | float | None = None,
    sample_weight: Any = None,
    class_weight: str | Mapping[Any, float] | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    l1: float | None = None,
    clip_norm: float | None = None,
    augment: Augmentation | str | None = None,
    patience: int | None = None,
    metric: str | None = None,
    callbacks: Sequence[Callback] | Callback = (),
    stop: Callable[[], bool] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    save_seconds: float = 60.0,
    backend: Backend | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    scaling: Scaling | Literal["auto"] | None = "auto",
    target_scaling: Scaling | Literal["auto"] | None = "auto",
    classes: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    encoder: Encoder | None = None,
    at_once: int | None = None,
    verbose: bool = False,
    progress: bool = False,
    group: Group = ALONE,
) -> ModelSet:
    """Train many networks at once: a grid of settings, seeds, folds, or a model for each group.

    Networks of one form (the same layers and loss, the same kind of optimizer, as many steps)
    train together: each parameter gets a first axis of models, and one step trains all of them.
    Each model follows the training that it would have alone, with the same seed and settings, to
    rounding.

    Parameters
    ----------
    networks : Network or sequence of Network
        Such as ``xpnet.mlp([64, 16, 10])``.
    data : (x, t)
        As for `xpnet.Trainer.fit`.
    optimizer : Optimizer, or function from int, optional
        As for `xpnet.Trainer`: without one, AdamW by the size of the data. A function gets the
        number of steps of a model and returns its optimizer: models may differ in their schedules.
    grid : mapping of str to list, optional
        Values to try, in all combinations: of the optimizer's settings (lr, momentum, beta1 ...),
        of the trainer's (weight_decay, l1, clip_norm, batch_size, epochs, optimizer), of
        `xpnet.mlp`'s (sizes, activation, dropout, init) or `xpnet.cnn`'s (channels, hidden ...). A
        number for lr becomes the rate of a schedule. weight_decay is the optimizer's own, if it has
        one.
    seeds : int or sequence of int, optional
        Seeds, or how many: 3 means 0, 1, 2. A seed decides the initial weights, dropout, the order
        of the batches and a validation part; networks that you built by hand keep their weights.
        Without seeds, networks stay as they are, and the order has seed 0.
    folds : int or iterable of (train, test), optional
        Cross-validation: one model for each fold, measured on the rest.
    groups : array or list, shape=(N,), optional
        The group of each sample: one model for each group, trained on its samples.
    bootstrap : bool
        Draw as many samples as there are, with replacement, for each seed: a sample counts as often
        as it was drawn. Without it, the models of an ensemble differ by their seeds alone.
    epochs, batch_size, sample_weight, class_weight, lr, weight_decay, l1, clip_norm
        As for `xpnet.Trainer` and its `fit`.
    augment : Augmentation or str, optional
        As for `xpnet.Trainer`; the networks then train one by one, as all with convolutions or
        batch normalization do.
    validation : (x, t) or float, optional
        As for `xpnet.Trainer.fit`; not with folds.
    patience, metric
        As for `xpnet.Trainer.fit`, for each model.
    callbacks : callable or sequence of callable
        Called with a `xpnet.many.Progress` after each epoch of all models. Return the indices of
        models to drop, or True to end all that it names; `xpnet.many.halving` makes one.
    stop : callable, optional
        Called after each chunk of steps; True saves and ends.
    folder, resume, save_seconds
        As for `xpnet.Trainer.fit`; the checkpoints hold all models that train together. Those
        that train one by one have folders of their own within it.
    backend, dtype, scaling, target_scaling, classes, columns, encoder
        As for `xpnet.Trainer`. Scalings follow from the samples that each model trains on; the
        encoder of a data frame from all.
    at_once : int, optional
        Train at most so many models together; by default what is fastest, and what the memory
        holds.
    verbose : bool
        Print the plan, some epochs and the table at the end.
    progress : bool
        Show a progress bar; on several ranks that of rank 0.
    group : Group
        The ranks that share the models, from `xpnet.parallel.world`; all of them call `fit_many`
        with the same arguments. Each trains its models as one process would, and at the end all of
        them have the same set. Without callbacks, stop, folder and verbose no rank waits for
        another before that; with one of them, all meet after each epoch. Callbacks are called on
        rank 0, checkpoints are written by rank 0 after an epoch; `resume` may have another number
        of ranks. The folders of models that train one by one are written by the ranks that train
        them, so all machines must see `folder`.

    Returns
    -------
    ModelSet
        The same on all ranks: each of them needs the memory for the parameters of all models.

    Raises
    ------
    DataError, UsageError
        An argument is wrong. Raised before the first step.
    CheckpointError, OSError
        As `xpnet.Trainer.fit` raises them.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> x = np.random.default_rng(0).standard_normal((90, 2))
    >>> t = (x.sum(axis=1) > 0).astype(int)
    >>> models = xpnet.fit_many(xpnet.mlp([2, 8, 2]), (x, t), grid={"lr": [0.1, 1e-6]}, folds=3)
    >>> models.table()[0]["settings"], len(models)
    ({'lr': 0.1}, 6)
    """
    augmentation = Augmentation.of(augment)
    training = Training(
        optimizer, lr, weight_decay, l1, clip_norm, epochs, batch_size, augmentation
    )
    rules = _rules(patience, metric, callbacks, stop, validation, folds)
    if save_seconds != math.inf:
        save_seconds = real("save_seconds", save_seconds, 0.0)
    if resume and folder is None:
        raise UsageError("resume needs the folder of the checkpoints")
    if folder is not None and not isinstance(folder, str | os.PathLike):
        raise UsageError(f"folder is {shown(folder)}; expected a path")
    if not isinstance(group, Group):
        raise UsageError(f"group is {shown(group)}; expected xpnet.parallel.world()")
    made = group.together(
        lambda: prepare_set(
            networks, data, training, grid=grid, seeds=seeds, folds=folds, groups=groups,
            bootstrap=bootstrap, validation=validation, sample_weight=sample_weight,
            class_weight=class_weight, backend=backend, dtype=dtype, scaling=scaling,
            target_scaling=target_scaling, classes=classes, columns=columns, encoder=encoder,
            at_once=at_once, metric=metric, ranks=group.size,
        )
    )  # fmt: skip
    saved = SavedSet(None if folder is None else Path(folder), {}, group)
    if folder is not None or group.size > 1:
        shared_by_all: dict[str, Any] = {"patience": patience, "metric": metric}
        if augmentation is not None:
            shared_by_all["augment"] = str(augmentation)
        saved.identity = identity(made.chosen, made.parts, shared_by_all)
        if group.size > 1:
            check_same_run(group, _brief(saved.identity))
    made = as_first(made, group)
    speaks = verbose and group.rank == 0
    say: Callable[..., None] = quietly(print_lines) if speaks else _silent
    say(*made.plan().in_words())
    # Whoever has nothing to say or to hear between the epochs does not wait for the others.
    meets = bool(rules.callbacks) or stop is not None or folder is not None or verbose
    progress = progress and group.rank == 0
    with saved.held():
        shared: dict[Any, Any] = {}

        def stack_of(members: list[int]) -> Stack:
            return Stack([made.chosen[index] for index in members], made.parts, shared)

        def build(layout: list[tuple[int, list[int]]]) -> Run:
            return Run.of(layout, group.rank, len(made.chosen), stack_of)

        run = saved.restore(build, made.groups) if resume else None
        if run is None:
            saved.begin()
            stacks = ([each.member.index for each in stack] for stack in made.stacks)
            run = build([*zip(made.stack_ranks, stacks, strict=True)])
        _train(run, made, rules, saved, save_seconds, progress, say, group if meets else ALONE)
        models = _alone(run, made, rules, saved.folder, resume, save_seconds, progress, group)
    _name_stopped(run)
    if group.size > 1:
        _share(run, made, models, group)
    return _finished(run, made, rules, models, say, warns=group.rank == 0)


def _brief(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checksum in the place of each value: of thousands of models they are long."""
    texts = {name: json.dumps(value, sort_keys=True) for name, value in described.items()}
    return {name: digest(np.frombuffer(text.encode(), np.uint8)) for name, text in texts.items()}


def _silent(*lines: str) -> None:
    """Print nothing."""


def _rules(
    patience: Any, metric: Any, callbacks: Any, stop: Any, validation: Any, folds: Any
) -> Rules:
    measured = validation is not None or folds is not None
    if patience is not None:
        patience = whole("patience", patience, 1)
        if not measured:
            raise UsageError("patience needs validation data or folds")
    if metric is not None and not measured:
        raise UsageError("metric needs validation data or folds")
    if validation is not None and folds is not None:
        raise UsageError("folds and validation exclude each other: a fold is measured on the rest")
    if callable(callbacks) or not isinstance(callbacks, Iterable):
        callbacks = [callbacks]
    for called in (*callbacks, *([] if stop is None else [stop])):
        if not callable(called):
            raise UsageError(f"a callback is {shown(called)}; expected a function")
    return Rules(patience, metric, tuple(callbacks), stop)


def _train(
    run: Run,
    made: PreparedSet,
    rules: Rules,
    saved: SavedSet,
    save_seconds: float,
    progress: bool,
    say: Callable[..., None],
    group: Group,
) -> None:
    written = time.monotonic()

    def save(run: Run) -> None:
        nonlocal written
        if saved.folder is None:
            return
        if not group.first(lambda: time.monotonic() - written >= save_seconds):
            return
        try:
            saved.save(run)
        except OSError as error:
            if group.rank == 0:
                warnings.warn(
                    f"cannot write a checkpoint; training continues: {error}", stacklevel=2
                )
        written = time.monotonic()

    total = sum(
        stack.steps * len(stack.live) * stack.live[0].epochs for stack in run.stacks if stack.live
    )
    if saved.folder is not None and run.layout:
        saved.save(run)  # a folder that refuses writes fails now
    longest = max((stack[0].epochs for stack in made.stacks), default=0)
    every = max(1, longest // 20)

    def said(run: Run, epoch: int) -> None:
        if epoch % every and epoch != longest:
            return
        losses = [h.epochs[-1].train_loss for h in run.histories if len(h.epochs) == epoch]
        if losses:
            say(
                f"epoch {epoch:>3}/{longest}  {len(losses)} models, train loss "
                f"{min(losses):.4f} to {max(losses):.4f}"
            )

    if not progress:
        train(run, made.parts, rules, saved=save, said=said, group=group)
    else:
        with tqdm_auto()(total=total, unit="step", leave=False, dynamic_ncols=True) as bar:
            train(run, made.parts, rules, saved=save, said=said, advance=bar.update, group=group)
    if saved.folder is not None and run.layout:
        saved.save(run)


def _alone(
    run: Run,
    made: PreparedSet,
    rules: Rules,
    folder: Path | None,
    resume: bool,
    save_seconds: float,
    progress: bool,
    group: Group,
) -> dict[int, Model]:
    """Train what cannot be stacked, model by model, as `xpnet.Trainer` does.

    With `stop`, the ranks meet after each of their models, so that all of them end.
    """
    models: dict[int, Model] = {}
    pairs = [*zip(made.alone, made.alone_ranks, strict=True)]
    own = [each for (each, _), rank in pairs if rank == group.rank]
    for turn in range(max(Counter(made.alone_ranks).values(), default=0)):
        if rules.stop is not None:
            run.stopped = group.any(run.stopped)
        if turn >= len(own):
            continue
        each = own[turn]
        index, part = each.member.index, made.parts[each.part]
        if run.stopped:
            run.histories[index].reason = "stop"
            continue
        params = each.network.values
        trainer = Trainer(
            part.model.sibling(each.network, params), each.rule, weight_decay=each.weight_decay,
            l1=each.l1, clip_norm=each.clip_norm, augment=made.augment, seed=each.member.seed,
        )  # fmt: skip
        given = part.given

        def told(trainer: Trainer, epoch: Epoch, index: int = index) -> bool:
            assert trainer.history is not None
            run.histories[index] = trainer.history
            return index in asked(rules, Progress(epoch.epoch, [index], run.histories))

        try:
            trainer.fit(
                given.x, given.t, epochs=each.epochs, batch_size=each.batch_size,
                validation=given.held, sample_weight=given.weights[0] if given.weights else None,
                patience=rules.patience, metric=rules.metric, callbacks=told, stop=rules.stop,
                folder=None if folder is None else folder / f"model-{index}", resume=resume,
                save_seconds=save_seconds, progress=progress,
            )  # fmt: skip
        except NonFiniteLossError as error:
            history = trainer.history or History()
            history.reason = "failed"
            history.failure = f"model {index} ({each.member.in_words()}) ended: {error}"
        assert trainer.history is not None
        run.histories[index] = trainer.history
        if trainer.history.reason != "failed":
            trainer.history.failure = ""
        models[index] = trainer.model
        run.stopped = trainer.history.reason == "stop"
    return models


def _name_stopped(run: Run) -> None:
    """Give the models that were stopped the weights that they have now."""
    for stack in run.stacks:
        if not stack.live:
            continue
        held = stack.on_host()
        for place, each in enumerate(stack.live):
            index = each.member.index
            if index not in run.params:
                run.params[index] = {name: p[place].copy() for name, p in held.items()}
                run.histories[index].reason = "stop"


def _share(run: Run, made: PreparedSet, models: Mapping[int, Model], group: Group) -> None:
    """Bring the parameters and histories of all ranks to each of them."""
    owners = {index: rank for rank, members in run.layout for index in members}
    owners |= {
        each.member.index: rank
        for (each, _), rank in zip(made.alone, made.alone_ranks, strict=True)
    }
    arrays: dict[str, np.ndarray] = {}
    courses: dict[int, Any] = {}
    for index, history in enumerate(run.histories):
        if owners.get(index, 0) != group.rank:
            continue
        past, course = history.pack()
        params = models[index].to_host() if index in models else run.params.get(index, {})
        kept = bool(history.best_params) and history.reason != "stop"
        if kept:  # they are the model's
            past = {"losses": past["losses"]}
        arrays |= {f"{index}/{name}": value for name, value in past.items()}
        arrays |= {f"{index}/params/{name}": value for name, value in params.items()}
        courses[index] = course, kept, history.reason, history.failure, history.notes
    arrays = gathered(arrays, group)
    every = {index: each for part in group.gather(courses) for index, each in part.items()}
    own: dict[int, dict[str, np.ndarray]] = {index: {} for index in every}
    for name, value in arrays.items():
        number, _, rest = name.partition("/")
        own[int(number)][rest] = value
    for index, (course, kept, reason, failure, notes) in every.items():
        if index in courses:
            continue
        history = History.unpack(own[index], course)
        history.reason, history.failure, history.notes = reason, failure, notes
        params = checkpoint.section(own[index], "params/")
        if params:
            run.params[index] = params
        if kept:
            history.best_params = params
        run.histories[index] = history


def _finished(
    run: Run,
    made: PreparedSet,
    rules: Rules,
    models: Mapping[int, Model],
    say: Callable[..., None],
    warns: bool,
) -> ModelSet:
    """Make the set."""
    first = made.parts[made.chosen[0].part].model
    kind = "accuracy" if first.classifies else "r2"
    entries: list[Any] = []
    for each in made.chosen:
        index = each.member.index
        run.histories[index].score = kind
        like = made.parts[each.part].model
        params = run.params.get(index, each.network.values)  # those of a model that never began
        entries.append(models.get(index) or (like, each.network, params))
    notes = [
        f"{counted(count, 'model')} trained one by one: {reason}"
        for reason, count in made.plan().one_by_one.items()
    ]
    if notes and rules.callbacks:
        notes.append("callbacks see the models that train one by one each by itself")
    failures = [h.failure for h in run.histories if h.reason == "failed"]
    notes += failures
    if failures and warns:
        warnings.warn(
            f"{counted(len(failures), 'model')} of {len(made.chosen)} failed: {failures[0]}"
            + (f"; and {len(failures) - 1} more (ModelSet.notes)" if len(failures) > 1 else ""),
            RuntimeWarning,
            stacklevel=3,
        )
    found = ModelSet(
        [each.member for each in made.chosen], run.histories, entries, rules.metric or kind, notes
    )
    lost = [k for k in found.succeeded if math.isnan(found.scores[k])]
    measured = [k for k in lost if made.parts[made.chosen[k].part].given.held is not None]
    if measured and len(run.histories[measured[0]].epochs):
        found.notes.append(
            f"{found.score_name} is not defined for {counted(len(measured), 'model')}, the first "
            f"is {measured[0]}: what is held out has too few samples, or not every class"
        )
    say(*str(found).splitlines())
    return found
