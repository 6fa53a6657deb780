"""Train stacks of models epoch by epoch: histories, early stopping, failures, callbacks."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xpnet import optim
from xpnet.errors import UsageError, counted, shown
from xpnet.many.members import Candidate
from xpnet.many.parts import Part
from xpnet.many.sharing import News
from xpnet.many.stack import Stack
from xpnet.metrics import measure
from xpnet.models.evaluation import class_indices
from xpnet.parallel.group import ALONE, Group
from xpnet.trainer.history import Epoch, History, finite_or_none
from xpnet.trainer.interrupts import held_signals

__all__ = ["Callback", "Progress", "Rules", "Run", "asked", "train"]

# The training score is measured on at most this many samples, as by `xpnet.Trainer`.
TRAIN_SCORE_SAMPLES = 10_000
# What a rank says in place of an epoch if all its stacks have ended.
NO_EPOCH = 1 << 62


@dataclass(frozen=True)
class Rules:
    """When models end, and what is watched.

    Attributes
    ----------
    patience : int or None
        As for `xpnet.Trainer.fit`, for each model.
    metric : str or None
    callbacks : tuple of callable
        Called with a `Progress` after each epoch of all models.
    stop : callable or None
    """

    patience: int | None = None
    metric: str | None = None
    callbacks: tuple[Callback, ...] = ()
    stop: Callable[[], bool] | None = None


@dataclass(frozen=True)
class Progress:
    """What a callback sees after an epoch of all models that train together.

    It sees the models that train one by one each by itself, after each of its epochs. On several
    ranks, rank 0 calls it for the models of all; for one that trains by itself, the rank that
    trains it.

    Attributes
    ----------
    epoch : int
        The number of epochs that are done.
    live : list of int
        The models that still train, by their index in the set.
    histories : list of History
        Of all models of the set.

    Examples
    --------
    >>> def drop_what_has_not_learned(progress):
    ...     last = [(k, progress.histories[k].epochs[-1].train_loss) for k in progress.live]
    ...     return [k for k, loss in last if progress.epoch == 5 and loss > 2.0]
    >>> drop_what_has_not_learned(Progress(1, [], []))
    []
    """

    epoch: int
    live: list[int]
    histories: list[History]


# Returns the indices of models to drop, True to end all, or None.
Callback = Callable[[Progress], Any]


@dataclass(eq=False)
class Run:
    """The state of a set's training: what a checkpoint holds.

    Attributes
    ----------
    stacks : list of Stack
        Of several ranks, those that this one trains; so are `done`, `unfinished` and `seconds`.
    histories : list of History
        By the index of the model. Those of other ranks are as old as what they told last.
    params : dict of int to dict
        The parameters of the models that have ended, on the host.
    done : list of int
        For each stack, the epochs that are done.
    layout : list of (int, list of int)
        The stacks of all ranks: the rank that trains it, and its models.
    numbers : list of int
        The places of this rank's stacks in `layout`.
    """

    stacks: list[Stack]
    histories: list[History]
    params: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)
    # Losses of an unfinished epoch of each stack, shape=(steps, K), and its seconds.
    unfinished: list[list[np.ndarray]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stopped: bool = False
    called: int = 0  # the epochs after which the callbacks were called
    watches: dict[int, optim.Watch | None] = field(default_factory=dict)  # by index
    layout: list[tuple[int, list[int]]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    news: list[News] = field(default_factory=list)  # not yet told to the other ranks

    @classmethod
    def of(
        cls, layout: list[tuple[int, list[int]]], rank: int, count: int,
        build: Callable[[list[int]], Stack],
    ) -> Run:  # fmt: skip
        """Return the run of a rank before its first step; `build` makes a stack of its models."""
        numbers = [number for number, (owner, _) in enumerate(layout) if owner == rank]
        stacks = [build(layout[number][1]) for number in numbers]
        return cls(
            stacks, [History() for _ in range(count)], done=[0] * len(stacks),
            unfinished=[[] for _ in stacks], seconds=[0.0] * len(stacks), layout=layout,
            numbers=numbers,
        )  # fmt: skip

    def live(self) -> list[int]:
        """Return the models of all ranks that still train, in the order of the set."""
        members = (index for _, stack in self.layout for index in stack)
        return sorted(index for index in members if not self.histories[index].reason)


def train(
    run: Run,
    parts: Mapping[int, Part],
    rules: Rules,
    *,
    advance: Callable[[int], None] = lambda steps: None,
    saved: Callable[[Run], None] = lambda run: None,
    said: Callable[[Run, int], None] = lambda run, epoch: None,
    group: Group = ALONE,
) -> None:
    """Train all stacks of a run to their end; the run has the results.

    Parameters
    ----------
    run : Run
    parts : mapping of int to Part
    rules : Rules
    advance : callable
        Called with the number of model-steps of each chunk.
    saved : callable
        Called after each chunk and each epoch; it saves the run when it is time.
        On several ranks it is called after each epoch of all stacks alone, and on all of them.
    said : callable
        Called after each epoch of all stacks.
    group : Group
        The ranks that wait for each other after each epoch; by default this one waits for none.

    Notes
    -----
    Ranks have other stacks, so their chunks of steps do not match, and they must not wait for each
    other within an epoch. They meet after each epoch of the set: all of them come to each meeting,
    and none leaves before it, whether it has nothing to train, has been told to stop in the middle
    of its epoch, or has been told nothing. Only there they say who has stopped, and only there all
    of them end. So none waits for a rank that has gone, and what is saved is saved by all. A signal
    that the launcher hands to all ranks ends their epochs at the next chunk; what only one of them
    hears ends the others after the epoch that they are in.
    """
    within = saved if group.size == 1 else _nothing
    # Once for all epochs: to hold the signals takes as long as a few steps.
    with held_signals() as deliver:
        while (epoch := _next_epoch(run, group)) is not None:
            if epoch > run.called:  # after the checkpoint of an epoch, or in its place
                _call_back(run, rules, epoch, group)
                continue
            for number, stack in enumerate(run.stacks):
                if not stack.live or run.done[number] != epoch:
                    continue
                if not _epoch(run, number, rules, advance, within, deliver):
                    run.stopped = True
                    break
                _close(run, number, parts, rules)
                within(run)
            _meet(run, group)
            if run.stopped:
                return
            said(run, epoch + 1)
            _call_back(run, rules, epoch + 1, group)
            saved(run)
            deliver()


def _nothing(run: Run) -> None:
    """Save nothing."""


def _next_epoch(run: Run, group: Group) -> int | None:
    """Return the epoch of the stack that is furthest behind, from 0; None if all have ended."""
    live = (done for done, stack in zip(run.done, run.stacks, strict=True) if stack.live)
    epoch = group.least(min(live, default=NO_EPOCH))
    return None if epoch == NO_EPOCH else epoch


def _meet(run: Run, group: Group) -> None:
    """Tell the other ranks what an epoch was, and whether this one has been told to stop."""
    news, run.news = run.news, []
    if group.size == 1:
        return
    for rank, (stopped, told) in enumerate(group.gather((run.stopped, news))):
        run.stopped = run.stopped or stopped
        for each in told if rank != group.rank else ():
            each.tell(run.histories[each.index])


def _index(candidate: Candidate) -> int:
    return candidate.member.index


def _epoch(
    run: Run,
    number: int,
    rules: Rules,
    advance: Callable[[int], None],
    saved: Callable[[Run], None],
    deliver: Callable[[], None],
) -> bool:
    """Run the rest of an epoch of one stack; False if the caller stops the training."""
    stack = run.stacks[number]
    done = sum(map(len, run.unfinished[number]))
    began = time.perf_counter()
    for on_device in stack.epoch(run.done[number], done):
        losses = stack.backend.to_numpy(on_device)
        run.seconds[number] += time.perf_counter() - began
        run.unfinished[number].append(losses)
        deliver()
        advance(losses.size)
        if rules.stop is not None and rules.stop():
            return False
        saved(run)
        began = time.perf_counter()
    return True


def _close(run: Run, number: int, parts: Mapping[int, Part], rules: Rules) -> None:
    """Record the epoch of each model of a stack, and let those go that have ended."""
    stack = run.stacks[number]
    losses = np.concatenate(run.unfinished[number])
    seconds = run.seconds[number]
    run.unfinished[number], run.seconds[number] = [], 0.0
    run.done[number] += 1
    epoch = run.done[number]
    finite = np.isfinite(losses).all(axis=0) & stack.finite()
    last = epoch >= stack.live[0].epochs
    measured = _measured(stack, parts, rules, last)
    mean = stack.network.loss_gate.reduction == "mean"
    held: dict[str, np.ndarray] = {}
    falling: dict[int, optim.Watch] = {}
    for place, each in enumerate(stack.live):
        history = run.histories[_index(each)]
        if history.reason:
            continue
        if not finite[place]:
            _fail(run, stack, place, losses[:, place], epoch)
            run.news.append(_news(_index(each), history, None, losses[:0, place]))
            continue
        n = len(parts[each.part].given.x)
        sizes = np.full(len(losses), each.batch_size)
        sizes[-1] = n - each.batch_size * (len(losses) - 1)
        val_loss, val_score, metric, train_score = measured[place]
        history.unfinished = array("d", losses[:, place].tolist())
        record = Epoch(
            epoch=epoch,
            step=history.steps,
            train_loss=float((losses[:, place] * (sizes if mean else 1)).sum() / n),
            train_score=finite_or_none(train_score),
            val_loss=finite_or_none(val_loss),
            val_score=finite_or_none(val_score),
            seconds=seconds / len(stack.live),
            samples_per_second=n * len(stack.live) / seconds if seconds else 0.0,
            val_metric=finite_or_none(metric),
        )
        history.metric = rules.metric or ""
        best = history.is_best(record)
        validated = parts[each.part].given.held is not None
        watch = _watch(run, each, validated)
        history.close(record)
        if watch is not None and watch.falls(history.progress(record, validated)):
            falling[place] = watch
        if best:
            history.best_epoch = epoch
            if rules.patience is not None:
                held = held or stack.on_host()
                history.best_params = {name: p[place].copy() for name, p in held.items()}
        if rules.patience is not None and history.epochs_since_best >= rules.patience:
            history.reason = "patience"
        elif last:
            history.reason = "epochs"
        run.news.append(_news(_index(each), history, record, losses[:, place]))
    if falling:
        stack.lower(falling)
    _release(run, number)


def _news(index: int, history: History, record: Epoch | None, losses: np.ndarray) -> News:
    return News(
        index, record, losses, history.best_epoch, history.metric, history.reason, history.failure
    )


def _watch(run: Run, each: Candidate, validated: bool) -> optim.Watch | None:
    """Return what watches a model's plateau; at first it sees the epochs before."""
    index = _index(each)
    if index not in run.watches:
        run.watches[index] = watch = optim.Watch.of(each.rule.lr)
        if watch is not None:
            history = run.histories[index]
            watch.catch_up(history.progress(epoch, validated) for epoch in history.epochs)
    return run.watches[index]


def _fail(run: Run, stack: Stack, place: int, losses: np.ndarray, epoch: int) -> None:
    """End a model whose loss or parameters are no numbers any more; the others go on."""
    each = stack.live[place]
    history = run.histories[_index(each)]
    bad = np.flatnonzero(~np.isfinite(losses))
    step = history.steps + int(bad[0] if bad.size else len(losses) - 1) + 1
    what = f"the loss became {losses[bad[0]]}" if bad.size else "a parameter is not finite"
    history.reason = "failed"
    history.failure = (
        f"model {_index(each)} ({each.member.in_words()}) ended: {what} in epoch {epoch}, step "
        f"{step}; try a smaller learning rate, clipped gradients, or scaled inputs"
    )


def _measured(
    stack: Stack, parts: Mapping[int, Part], rules: Rules, last: bool
) -> dict[int, tuple[float | None, float | None, float | None, float | None]]:
    """Return (loss, score, metric, training score) of each model, by its place in the stack."""
    found: dict[int, Any] = {}
    for part, places in stack.by_part():
        held = stack.held(part)
        losses: Sequence[float | None] = [None] * len(places)
        scores: Sequence[float | None] = losses
        metrics: Sequence[float | None] = losses
        trained: Sequence[float | None] = losses
        if held is not None:
            measured, scores = stack.measure(places, *held)
            losses = measured.tolist()
            if rules.metric is not None:
                metrics = _metrics(stack, parts[part], places, rules.metric, held[0])
        if last:
            trained = stack.measure(places, *stack.trained(part, TRAIN_SCORE_SAMPLES))[1]
        for place, *numbers in zip(places, losses, scores, metrics, trained, strict=True):
            found[place] = tuple(numbers)
    return found


def _metrics(
    stack: Stack, part: Part, places: Sequence[int], name: str, x: Any
) -> list[float | None]:
    model, held = part.model, part.given.held
    assert held is not None
    t = held[1]
    found: list[float | None] = []
    for scores in stack.scores(places, x):
        if not np.isfinite(scores).all():
            found.append(None)
        elif not model.classifies:
            found.append(measure(name, t.reshape(len(t), -1), model.values(scores)))
        else:
            predicted, probabilities = model.decide(scores), model.probabilities(scores)
            count = max(model.network.outputs or 0, 2)
            true = class_indices(t)
            found.append(measure(name, true, predicted, probabilities, classes=count))
    return found


def _release(run: Run, number: int) -> None:
    """Bring the models that have ended to the host; shrink the arrays when half have ended."""
    stack = run.stacks[number]
    ended = [place for place, each in enumerate(stack.live) if run.histories[_index(each)].reason]
    new = [place for place in ended if _index(stack.live[place]) not in run.params]
    if new:
        held = stack.on_host()
        for place in new:
            index = _index(stack.live[place])
            history = run.histories[index]
            params = {name: p[place].copy() for name, p in held.items()}
            run.params[index] = history.best_params or params
    if len(ended) == len(stack.live):
        stack.live = []
    elif 2 * len(ended) >= len(stack.live):
        stack.keep([place for place in range(len(stack.live)) if place not in set(ended)])


def _call_back(run: Run, rules: Rules, epoch: int, group: Group) -> None:
    live = run.live()
    dropped: set[int] = set()
    if rules.callbacks:  # once, since it may print, or count its calls; its answer goes to all
        dropped = group.first(lambda: asked(rules, Progress(epoch, live, run.histories)))
    run.called = epoch
    for index in dropped & {*live}:
        run.histories[index].reason = "callback"
    for number in range(len(run.stacks)):
        _release(run, number)


def asked(rules: Rules, progress: Progress) -> set[int]:
    """Call the callbacks; return the indices of the models that they drop."""
    dropped: set[int] = set()
    for callback in rules.callbacks:
        answer = callback(replace(progress, live=[*progress.live]))
        if answer is True:
            dropped.update(progress.live)
        elif answer is not None and answer is not False:
            dropped.update(_indices(answer, len(progress.histories)))
    return dropped


def _indices(answer: Any, count: int) -> list[int]:
    """Return the models that a callback names."""
    many = isinstance(answer, Iterable) and not isinstance(answer, str)
    named: list[Any] = list(answer) if many else [None]
    for index in named:
        whole = isinstance(index, int | np.integer) and not isinstance(index, bool)
        if not whole or not 0 <= index < count:
            raise UsageError(
                f"a callback returned {shown(answer)}; expected True, None, or the indices of "
                f"models to drop, of {counted(count, 'model')}"
            )
    return [int(index) for index in named]
