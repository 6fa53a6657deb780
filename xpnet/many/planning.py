"""What a set of models will train: everything is decided and checked before the first step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from xpnet import optim
from xpnet.backend.interface import Backend
from xpnet.data.augmentation import Augmentation
from xpnet.data.checks import host
from xpnet.data.dataset import is_streamed
from xpnet.data.labels import labels_of
from xpnet.data.loader import LARGEST_SHARE
from xpnet.errors import DataError, UsageError, counted, shown, whole
from xpnet.many.chunks import bytes_per_model, dealt, models_at_once
from xpnet.many.members import Candidate, Training, candidates, checked_grid, checked_seeds
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
from xpnet.many.stack import form
from xpnet.models.model import Model
from xpnet.models.network import Network
from xpnet.models.stack import unstackable
from xpnet.parallel.group import ALONE, Group
from xpnet.trainer.validation import checked_validation

__all__ = ["Plan", "PreparedSet", "as_first", "plan", "prepare_set"]

# What `plan` takes beside its own arguments: what `prepare_set` looks at, and what only a training
# needs.
OF_THE_DATA = (
    "sample_weight", "class_weight", "backend", "dtype", "scaling", "target_scaling", "classes",
    "columns", "encoder", "metric",
)  # fmt: skip
OF_THE_RUN = (
    "patience", "callbacks", "stop", "folder", "resume", "save_seconds", "verbose", "progress",
)  # fmt: skip
# Data of folds or groups that take more than this share of the memory are trained part by part, not
# all in one stack, which would copy them.
SHARED, LEAST_SHARED = 8, 256 << 20


@dataclass(frozen=True)
class Plan:
    """What `fit_many` would train.

    Attributes
    ----------
    models : int
    stacks : list of (int, int)
        For each form of networks: its models, and how many of them train at once, on all ranks
        together.
    bytes : int
        Of parameters, optimizer state, activations and batches of all models.
    one_by_one : dict of str to int
        Why models train one by one, and how many.
    parts, data_bytes : int
        The parts of the data that are trained on, and the bytes of their samples: each fold, each
        group, and for each seed what its share for validation leaves.
    ranks : list of int
        How many models each rank trains; empty on one process.

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
    parts: int = 1
    data_bytes: int = 0
    ranks: list[int] = field(default_factory=list)

    def in_words(self) -> list[str]:
        """Return the plan as lines."""
        lines = [f"{counted(self.models, 'model')}, {self.bytes / 2**20:,.1f} MiB"]
        if self.parts > 1:
            size = f"{self.data_bytes / 2**20:,.1f} MiB"
            lines.append(
                f"data in {self.parts} parts, {size}: folds, groups, or a seed's validation"
            )
        for (models, at_once), forms in Counter(self.stacks).items():
            how = "all at once" if at_once >= models else f"{at_once} at once"
            of_form = counted(models, "model")
            if models == 1:
                lines.append(f"{counted(forms, 'model')} of a form of its own, by itself")
            elif forms == 1:
                lines.append(f"{of_form} of one form, {how}")
            else:
                lines.append(f"{forms} forms of {of_form}, {how}")
        for reason, models in self.one_by_one.items():
            lines.append(f"{counted(models, 'model')} one by one: {reason}")
        if self.ranks:
            lines.append(self.ranks_in_words())
        return lines

    def ranks_in_words(self) -> str:
        """Return how many models each rank trains; "" on one process."""
        if not self.ranks:
            return ""
        low, high = min(self.ranks), max(self.ranks)
        each = counted(high, "model") if low == high else f"{low:,} to {high:,} models"
        return f"{len(self.ranks):,} ranks, {each} each"


@dataclass(eq=False)
class PreparedSet:
    """Everything that is decided before the first step."""

    chosen: list[Candidate]
    parts: dict[int, Part]
    groups: list[tuple[list[Candidate], int, float]]  # models of one form, how many at once, work
    stacks: list[list[Candidate]]  # each trains at once
    alone: list[tuple[Candidate, str]]
    bytes: int
    augment: Augmentation | None = None
    ranks: int = 1
    # The ranks that train each stack, and each of `alone`.
    stack_ranks: list[int] = field(default_factory=list)
    alone_ranks: list[int] = field(default_factory=list)

    @property
    def forms(self) -> list[tuple[int, int]]:
        """For each group of models, how many there are, and how many train at once."""
        found = []
        for models, _, _ in self.groups:
            own = {each.member.index for each in models}
            largest: dict[int, int] = {}
            for stack, rank in zip(self.stacks, self.stack_ranks, strict=True):
                if stack[0].member.index in own:
                    largest[rank] = max(largest.get(rank, 0), len(stack))
            found.append((len(models), sum(largest.values())))
        return found

    def models_of_ranks(self) -> list[int]:
        """Return how many models each rank trains."""
        counts = [0] * self.ranks
        for stack, rank in zip(self.stacks, self.stack_ranks, strict=True):
            counts[rank] += len(stack)
        for rank in self.alone_ranks:
            counts[rank] += 1
        return counts

    def plan(self) -> Plan:
        reasons: dict[str, int] = {}
        for _, reason in self.alone:
            reasons[reason] = reasons.get(reason, 0) + 1
        samples = {id(part.given.x): part.given.x.nbytes for part in self.parts.values()}
        size = sum(samples.values())
        ranks = self.models_of_ranks() if self.ranks > 1 else []
        return Plan(len(self.chosen), self.forms, self.bytes, reasons, len(samples), size, ranks)


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
    l1: float | None = None,
    clip_norm: float | None = None,
    augment: Augmentation | str | None = None,
    at_once: int | None = None,
    group: Group = ALONE,
    **options: Any,
) -> Plan:
    """Return what `fit_many` would train with these arguments; train nothing.

    Parameters
    ----------
    networks, data, optimizer, grid, seeds, folds, groups, ...
        As for `fit_many`.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnet
    >>> x, t = np.zeros((40, 2)), np.arange(40) % 2
    >>> found = plan(xpnet.mlp([2, 8, 2]), (x, t), grid={"lr": [0.1, 0.01]}, folds=5, epochs=2)
    >>> found.models, found.one_by_one
    (10, {})
    """
    for name in options.keys() - {*OF_THE_DATA, *OF_THE_RUN}:
        raise TypeError(f"plan() got an unexpected keyword argument {name!r}")
    training = Training(
        optimizer, lr, weight_decay, l1, clip_norm, epochs, batch_size, Augmentation.of(augment)
    )
    return prepare_set(
        networks, data, training, grid=grid, seeds=seeds, folds=folds, groups=groups,
        bootstrap=bootstrap, validation=validation, at_once=at_once, ranks=group.size,
        **{name: value for name, value in options.items() if name in OF_THE_DATA},
    ).plan()  # fmt: skip


def prepare_set(
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
    ranks: int = 1,
) -> PreparedSet:
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
    for network in nets:
        kind = Model(network, **options, **fixed).evaluation.classifies(t)
        if kind != classed:
            raise UsageError(
                f"networks: {network.in_words} {_task(kind)}, and the first {_task(classed)}; "
                "train them as two sets, since their scores differ"
            )
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

    chosen = candidates(nets, points, given_seeds, parts_of, training)
    if training.augment is not None:
        for network in nets:
            training.augment.check(network.input_shape)
    return _grouped(chosen, parts, at_once, training.augment, ranks)


def _task(classes: bool) -> str:
    return "predicts classes" if classes else "predicts values"


def _is_auto(scaling: Any) -> bool:
    return isinstance(scaling, str) and scaling == "auto"


def _grouped(
    chosen: Sequence[Candidate],
    parts: Mapping[int, Part],
    at_once: int | None,
    augment: Augmentation | None,
    ranks: int,
) -> PreparedSet:
    """Group candidates by their form, and cut each group into stacks that train at once."""
    groups: dict[Any, list[Candidate]] = {}
    alone: list[tuple[Candidate, str]] = []
    needed = sum({id(part.given.x): part.given.x.nbytes for part in parts.values()}.values())
    for each in chosen:
        part = parts[each.part]
        reason = unstackable(each.network) or unstackable_rule(each.rule)
        reason = reason or ("augmented images cannot be stacked" if augment is not None else "")
        if not reason and is_streamed(part.given.x):
            reason = "its samples stay in their file"
        free = part.model.backend.free_memory()
        if not reason and free and needed > LARGEST_SHARE * free:
            reason = f"the data needs {needed / 2**20:,.0f} MiB of {part.model.backend.device}"
        if reason:
            alone.append((each, reason))
            continue
        most_shared = max(LEAST_SHARED, part.model.backend.memory // SHARED)
        key = form(each, part), each.part if needed > most_shared else None
        groups.setdefault(key, []).append(each)
    found: list[tuple[list[Candidate], int, float]] = []
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
        found.append((group, most, _work(first, parts)))
    for each, _ in alone:
        total += bytes_per_model(
            each.network, each.batch_size, len(each.rule.slots), parts[each.part].model.dtype
        )
    stacks = dealt(found, ranks)
    singly = dealt((([each], 1, _work(each, parts)) for each, _ in alone), ranks)
    return PreparedSet(
        list(chosen), dict(parts), found, [stack for _, stack in stacks], alone, total, augment,
        ranks, [rank for rank, _ in stacks], [rank for rank, _ in singly],
    )  # fmt: skip


def _work(candidate: Candidate, parts: Mapping[int, Part]) -> float:
    """Return what a model costs to train, next to the others: its products, for each sample."""
    size = sum(math.prod(np.shape(p)) for p in candidate.network.params.values())
    return float(size * len(parts[candidate.part].given.x) * candidate.epochs)


def as_first(made: PreparedSet, group: Group) -> PreparedSet:
    """Return the set with the stacks that rank 0 has decided on.

    All ranks decide alike but for the memory: another machine, or another GPU, may have less.
    """
    if group.size == 1:
        return made

    def indices(models: Iterable[Candidate]) -> list[int]:
        return [each.member.index for each in models]

    groups, stacks, alone, stack_ranks, alone_ranks = group.first(
        lambda: (
            [(indices(models), most, work) for models, most, work in made.groups],
            [*map(indices, made.stacks)],
            [(each.member.index, reason) for each, reason in made.alone],
            made.stack_ranks,
            made.alone_ranks,
        )
    )
    of = made.chosen
    return replace(
        made,
        groups=[([of[i] for i in models], most, work) for models, most, work in groups],
        stacks=[[of[i] for i in stack] for stack in stacks],
        alone=[(of[i], reason) for i, reason in alone],
        stack_ranks=stack_ranks,
        alone_ranks=alone_ranks,
    )
