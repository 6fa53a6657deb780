"""Train many networks at once: from data and a grid to a set of models."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xpnet import optim
from xpnet.backend.interface import Backend
from xpnet.data.checks import host
from xpnet.data.dataset import Scaling, is_streamed
from xpnet.data.encoder import Encoder
from xpnet.data.labels import labels_of
from xpnet.data.loader import LARGEST_SHARE
from xpnet.errors import DataError, NonFiniteLossError, UsageError, counted, real, shown, whole
from xpnet.many.chunks import bytes_per_model, even_chunks, models_at_once
from xpnet.many.files import SavedSet, identity
from xpnet.many.members import (
    Candidate,
    Training,
    candidates,
    checked_grid,
    checked_seeds,
)
from xpnet.many.model_set import ModelSet
from xpnet.many.parts import (
    Part,
    Rows,
    class_weight_by_index,
    folds_of,
    groups_of,
    prepared_part,
    resampled,
    rows_of_parts,
)
from xpnet.many.rules import unstackable_rule
from xpnet.many.stack import Stack, form
from xpnet.many.training import Callback, Rules, Run, train
from xpnet.models.model import Model
from xpnet.models.network import Network
from xpnet.models.stack import unstackable
from xpnet.trainer.history import History
from xpnet.trainer.progress import tqdm_auto
from xpnet.trainer.trainer import Trainer
from xpnet.trainer.validation import checked_validation
from xpnet.trainer.words import print_lines, quietly

__all__ = ["Plan", "fit_many", "plan"]

# Data of folds or groups that take more than this are trained part by part, not all in one stack.
SHARED_BYTES = 256 << 20


@dataclass(frozen=True)
class Plan:
    """What `fit_many` would train.

    Attributes
    ----------
    models : int
    stacks : list of (int, int)
        For each form of networks: its models, and how many of them train at once.
    bytes : int
        Of parameters, optimizer state, activations and batches of all models.
    one_by_one : dict of str to int
        Why models train one by one, and how many.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> found = plan(xpnet.mlp([2, 2]), (np.zeros((9, 2)), np.arange(9) % 2), seeds=4)
    >>> found.models
    4
    """

    models: int
    stacks: list[tuple[int, int]]
    bytes: int
    one_by_one: dict[str, int]

    def in_words(self) -> list[str]:
        """Return the plan as lines."""
        lines = [f"{counted(self.models, 'model')}, {self.bytes / 2**20:,.1f} MiB"]
        for models, at_once in self.stacks:
            how = "all at once" if at_once >= models else f"{at_once} at once"
            lines.append(f"{counted(models, 'model')} of one form, {how}")
        for reason, models in self.one_by_one.items():
            lines.append(f"{counted(models, 'model')} one by one: {reason}")
        return lines


@dataclass(eq=False)
class _Prepared:
    """Everything that is decided before the first step."""

    chosen: list[Candidate]
    parts: dict[int, Part]
    stacks: list[list[Candidate]]  # each trains at once
    forms: list[tuple[int, int]]
    alone: list[tuple[Candidate, str]]
    bytes: int

    def plan(self) -> Plan:
        reasons: dict[str, int] = {}
        for _, reason in self.alone:
            reasons[reason] = reasons.get(reason, 0) + 1
        return Plan(len(self.chosen), self.forms, self.bytes, reasons)


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
    clip_norm: float | None = None,
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
        of the trainer's (weight_decay, clip_norm, batch_size, epochs, optimizer), of `xpnet.mlp`'s
        (sizes, activation, dropout, init). A number for lr becomes the rate of
        a schedule. weight_decay is the optimizer's own, if it has one.
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
    epochs, batch_size, sample_weight, class_weight, lr, weight_decay, clip_norm
        As for `xpnet.Trainer` and its `fit`.
    validation : (x, t) or float, optional
        As for `xpnet.Trainer.fit`; not with folds.
    patience, metric
        As for `xpnet.Trainer.fit`, for each model.
    callbacks : callable or sequence of callable
        Called with a `xpnet.many.Progress` after each epoch of all models. Return the indices of
        models to drop, or True to end all; `xpnet.many.halving` makes one.
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
        Show a progress bar.

    Returns
    -------
    ModelSet

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
    training = Training(optimizer, lr, weight_decay, clip_norm, epochs, batch_size)
    rules = _rules(patience, metric, callbacks, stop, validation, folds)
    if save_seconds != math.inf:
        save_seconds = real("save_seconds", save_seconds, 0.0)
    if resume and folder is None:
        raise UsageError("resume needs the folder of the checkpoints")
    made = _prepare(
        networks, data, training, grid=grid, seeds=seeds, folds=folds, groups=groups,
        bootstrap=bootstrap, validation=validation, sample_weight=sample_weight,
        class_weight=class_weight, backend=backend, dtype=dtype, scaling=scaling,
        target_scaling=target_scaling, classes=classes, columns=columns, encoder=encoder,
        at_once=at_once, metric=metric,
    )  # fmt: skip
    say: Callable[..., None] = quietly(print_lines) if verbose else _silent
    say(*made.plan().in_words())
    saved = SavedSet(None if folder is None else Path(folder), {})
    if folder is not None:
        saved.identity = identity(made.chosen, made.parts, {"patience": patience, "metric": metric})
    with saved.held():
        shared: dict[Any, Any] = {}
        run = Run.of([Stack(stack, made.parts, shared) for stack in made.stacks], len(made.chosen))
        if not (resume and saved.restore(run)):
            saved.begin()
        _train(run, made, rules, saved, save_seconds, progress, say)
        models = _alone(run, made, training, rules, saved.folder, resume, save_seconds, progress)
    return _finished(run, made, rules, models, say)


def plan(
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
    lr: float | None = None,
    weight_decay: float | None = None,
    clip_norm: float | None = None,
    at_once: int | None = None,
    **options: Any,
) -> Plan:
    """Return what `fit_many` would train with these arguments; train nothing.

    Parameters
    ----------
    networks, data, optimizer, grid, seeds, folds, groups, ...
        As for `fit_many`.

    Examples
    --------
    >>> import xpnet
    >>> x, t = np.zeros((40, 2)), np.arange(40) % 2
    >>> found = plan(xpnet.mlp([2, 8, 2]), (x, t), grid={"lr": [0.1, 0.01]}, folds=5, epochs=2)
    >>> found.models, found.one_by_one
    (10, {})
    """
    kept = (
        "sample_weight", "class_weight", "backend", "dtype", "scaling", "target_scaling",
        "classes", "columns", "encoder", "metric",
    )  # fmt: skip
    training = Training(optimizer, lr, weight_decay, clip_norm, epochs, batch_size)
    return _prepare(
        networks, data, training, grid=grid, seeds=seeds, folds=folds, groups=groups,
        bootstrap=bootstrap, validation=validation, at_once=at_once,
        **{name: value for name, value in options.items() if name in kept},
    ).plan()  # fmt: skip


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


def _prepare(
    networks: Any,
    data: Any,
    training: Training,
    *,
    grid: Any = None,
    seeds: Any = None,
    folds: Any = None,
    groups: Any = None,
    bootstrap: bool = False,
    validation: Any = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    backend: Backend | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    scaling: Any = "auto",
    target_scaling: Any = "auto",
    classes: Any = None,
    columns: Any = None,
    encoder: Any = None,
    at_once: int | None = None,
    metric: str | None = None,
) -> _Prepared:
    """Check all arguments, prepare the parts of the data, and group the models by their form."""
    nets = [networks] if isinstance(networks, Network) else networks
    if isinstance(nets, str) or not isinstance(nets, Iterable):
        raise UsageError(f"networks is {shown(networks)}; expected one such as xpnet.mlp([3, 2])")
    nets = list(nets)
    if not nets:
        raise UsageError("networks is an empty list; expected at least one network")
    for network in nets:
        if not isinstance(network, Network):
            raise UsageError(
                f"a network is {shown(network)}; expected one such as xpnet.mlp([3, 2])"
            )
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise UsageError(f"data is {shown(data)}; expected a pair (x, t)")
    if folds is not None and groups is not None:
        raise UsageError("folds and groups exclude each other; train one set for each group")
    if at_once is not None:
        at_once = whole("at_once", at_once, 1)
    rule = training.optimizer
    known = hasattr(rule, "rule") or callable(rule)
    if rule is not None and (isinstance(rule, type) or not known):
        raise UsageError(
            f"optimizer is {shown(rule)}; expected one such as xpnet.optim.Adam(0.001)"
        )
    points = checked_grid(grid, nets, training)
    given_seeds = checked_seeds(seeds) if seeds is not None else None
    pair, share = checked_validation(validation)

    options: dict[str, Any] = {"backend": backend, "dtype": dtype, "encoder": encoder}
    finds = _is_auto(scaling) and encoder is None, _is_auto(target_scaling)
    fixed: dict[str, Any] = {
        "scaling": None if _is_auto(scaling) else scaling,
        "target_scaling": None if _is_auto(target_scaling) else target_scaling,
    }
    base = Model(nets[0], classes=classes, columns=columns, **options, **fixed)
    if metric is not None:
        base.check_metric(metric)
    x, t = data
    with base.learning_names(x, t, standardize=finds[0]):
        x, t = base.checked_pair(x, t)
    if pair is not None:
        pair = base.checked_pair(*pair, what=" of the validation set", trained_on=x.dtype)
    options |= {"backend": base.backend, "encoder": base.encoder, "classes": base.classes}
    if base.encoder is None:
        options["columns"] = base.columns or None
    if base.encoder is not None and finds[0]:
        finds = False, finds[1]
        fixed["scaling"] = base.encoder.scaling
    weight = None
    if sample_weight is not None:
        weight = host(labels_of(sample_weight, "sample_weight"), "sample_weight")
        if weight.shape != (len(t),):
            raise DataError(
                f"sample_weight: got shape {weight.shape}, expected {(len(t),)}: one a sample"
            )
    class_weight = class_weight_by_index(
        class_weight, base.classes if base.predicts_names else None
    )
    classed = base.evaluation.classifies(t)
    rows = [Rows()]
    if folds is not None:
        rows = folds_of(folds, t, classed)
    elif groups is not None:
        rows = groups_of(groups, len(t))

    parts: dict[int, Part] = {}
    numbers: dict[Any, int] = {}

    def part_of(network: Network, place: int, own: Rows, seed: int) -> int:
        """Return the number of a part, prepared when it is first needed."""
        drawn = seed if share is not None or bootstrap else None
        key = repr(network.loss_gate), network.outputs, network.input_shape, place, drawn
        if key not in numbers:
            model = Model(network, **options, **fixed)
            model.predicts_names = base.predicts_names
            n = len(t) if own.train is None else len(own.train)
            numbers[key] = len(parts)
            parts[numbers[key]] = prepared_part(
                model, x, t, own, pair=pair, sample_weight=weight, class_weight=class_weight,
                finds=finds, counts=resampled(n, seed) if bootstrap else None,
            )  # fmt: skip
        return numbers[key]

    def parts_of(network: Network, seed: int) -> list[tuple[int, int, int | None, Any]]:
        found = []
        for place, own in enumerate(rows_of_parts(rows, t, share, seed, classed)):
            number = part_of(network, place, own, seed)
            found.append((number, len(parts[number].given.x), own.fold, own.group))
        return found

    return _grouped(candidates(nets, points, given_seeds, parts_of, training), parts, at_once)


def _silent(*lines: str) -> None:
    """Print nothing."""


def _is_auto(scaling: Any) -> bool:
    return isinstance(scaling, str) and scaling == "auto"


def _grouped(
    chosen: Sequence[Candidate], parts: Mapping[int, Part], at_once: int | None
) -> _Prepared:
    """Group candidates by their form, and cut each group into stacks that train at once."""
    groups: dict[Any, list[Candidate]] = {}
    alone: list[tuple[Candidate, str]] = []
    needed = sum(part.given.x.nbytes for part in parts.values())
    for each in chosen:
        part = parts[each.part]
        reason = unstackable(each.network) or unstackable_rule(each.rule)
        if not reason and is_streamed(part.given.x):
            reason = "its samples stay in their file"
        free = part.model.backend.free_memory()
        if not reason and free and needed > LARGEST_SHARE * free:
            reason = f"the data needs {needed / 2**20:,.0f} MiB of {part.model.backend.device}"
        if reason:
            alone.append((each, reason))
            continue
        key = form(each, part), each.part if needed > SHARED_BYTES else None
        groups.setdefault(key, []).append(each)
    stacks: list[list[Candidate]] = []
    forms: list[tuple[int, int]] = []
    total = 0
    for group in groups.values():
        first = group[0]
        feed = parts[first.part].model.feed
        slots = len(first.rule.slots)
        each_bytes = bytes_per_model(first.network, first.batch_size, slots, feed.dtype)
        total += each_bytes * len(group)
        most = at_once or models_at_once(
            first.network, first.batch_size, slots, feed.dtype, feed.backend
        )
        sizes = even_chunks(len(group), most)
        ends = list(itertools.accumulate(sizes, initial=0))
        stacks += [group[a:b] for a, b in itertools.pairwise(ends)]
        forms.append((len(group), sizes[0]))
    for each, _ in alone:
        total += bytes_per_model(
            each.network, each.batch_size, len(each.rule.slots), parts[each.part].model.dtype
        )
    return _Prepared(list(chosen), dict(parts), stacks, forms, alone, total)


def _train(
    run: Run,
    made: _Prepared,
    rules: Rules,
    saved: SavedSet,
    save_seconds: float,
    progress: bool,
    say: Callable[..., None],
) -> None:
    written = time.monotonic()

    def save(run: Run) -> None:
        nonlocal written
        if saved.folder is None or time.monotonic() - written < save_seconds:
            return
        try:
            saved.save(run)
        except OSError as error:
            warnings.warn(f"cannot write a checkpoint; training continues: {error}", stacklevel=2)
        written = time.monotonic()

    total = sum(
        stack.steps * len(stack.live) * stack.live[0].epochs for stack in run.stacks if stack.live
    )
    if saved.folder is not None and run.stacks:
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
        train(run, made.parts, rules, saved=save, said=said)
    else:
        with tqdm_auto()(total=total, unit="step", leave=False, dynamic_ncols=True) as bar:
            train(run, made.parts, rules, saved=save, said=said, advance=bar.update)
    if saved.folder is not None and run.stacks:
        saved.save(run)


def _alone(
    run: Run,
    made: _Prepared,
    training: Training,
    rules: Rules,
    folder: Path | None,
    resume: bool,
    save_seconds: float,
    progress: bool,
) -> dict[int, Model]:
    """Train what cannot be stacked, model by model, as `xpnet.Trainer` does."""
    models: dict[int, Model] = {}
    for each, _ in made.alone:
        index, part = each.member.index, made.parts[each.part]
        if run.stopped:
            run.histories[index].reason = "stop"
            continue
        params = each.network.values
        trainer = Trainer(
            part.model.sibling(each.network, params), each.rule, weight_decay=each.weight_decay,
            clip_norm=each.clip_norm, seed=each.member.seed,
        )  # fmt: skip
        given = part.given
        try:
            trainer.fit(
                given.x, given.t, epochs=each.epochs, batch_size=each.batch_size,
                validation=given.held, sample_weight=given.weights[0] if given.weights else None,
                patience=rules.patience, metric=rules.metric, stop=rules.stop,
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


def _finished(
    run: Run, made: _Prepared, rules: Rules, models: Mapping[int, Model], say: Callable[..., None]
) -> ModelSet:
    """Make the set: models that were stopped have the weights that they have now."""
    for stack in run.stacks:
        if not stack.live:
            continue
        held = stack.on_host()
        for place, each in enumerate(stack.live):
            index = each.member.index
            if index not in run.params:
                run.params[index] = {name: p[place].copy() for name, p in held.items()}
                run.histories[index].reason = "stop"
    first = made.parts[made.chosen[0].part].model
    kind = "accuracy" if first.classifies else "r2"
    entries: list[Any] = []
    for each in made.chosen:
        index = each.member.index
        run.histories[index].score = kind
        like = made.parts[each.part].model
        entries.append(models.get(index) or (like, each.network, run.params.get(index)))
    notes = [
        f"{counted(count, 'model')} trained one by one: {reason}"
        for reason, count in made.plan().one_by_one.items()
    ]
    failures = [h.failure for h in run.histories if h.reason == "failed"]
    notes += failures
    if failures:
        warnings.warn(
            f"{counted(len(failures), 'model')} of {len(made.chosen)} failed: {failures[0]}"
            + (f"; and {len(failures) - 1} more (ModelSet.notes)" if len(failures) > 1 else ""),
            RuntimeWarning,
            stacklevel=3,
        )
    found = ModelSet(
        [each.member for each in made.chosen], run.histories, entries, rules.metric or kind, notes
    )
    say(*str(found).splitlines())
    return found
