"""Many fits of estimators at once: one step trains all networks of one form."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from xpnet import optim
from xpnet.arrays.ops import Array, namespace
from xpnet.backend.interface import Backend
from xpnet.sklearn.arrays import to_host
from xpnet.sklearn.engine import Engine, Form, Stack
from xpnet.sklearn.solvers import Course, begin, check_batches, cut, solver_of
from xpnet.sklearn.trained import Trained

__all__ = ["DATA_BYTES", "NOT_BEFORE_STEPS", "Fit", "begun", "chunks", "train", "twin"]

# Parameters that change nothing before the first step.
NOT_BEFORE_STEPS = frozenset({
    "alpha", "beta_1", "beta_2", "epsilon", "learning_rate", "learning_rate_init", "max_fun",
    "max_iter", "momentum", "n_iter_no_change", "nesterovs_momentum", "power_t", "solver", "tol",
})  # fmt: skip
# What one step of all models of a chunk touches on a CPU, at most; see `_models_at_once`.
CACHE_BYTES = 4 << 20
# The most bytes of samples of several folds that lie side by side for one chunk.
DATA_BYTES = 256 << 20


@dataclass(frozen=True)
class Source:
    """The data of one fold, as `fit` has checked them, and the batches that come of them.

    Attributes
    ----------
    backend : Backend
    X, targets, weights
        To train on, as for `xpnet.sklearn.solvers.by_steps`.
    course : Course
        Of the first estimator; the batches of all others with this source are the same.
    shares : bool
        Whether other estimators draw the same numbers, so that they can have this source.
    """

    backend: Backend
    X: Any
    targets: np.ndarray
    weights: np.ndarray | None
    course: Course
    shares: bool

    @property
    def block(self) -> Hashable:
        """Equal for two sources with the same data, which then need not lie there twice."""
        return id(self.X) if self.weights is None else id(self)

    def stream(self) -> Course:
        """Return a course that draws the orders of the epochs from the first one on."""
        stream = copy.copy(self.course)
        if self.shares:
            stream.random_state = copy.deepcopy(stream.random_state)
        return stream


@dataclass
class Fit:
    """An estimator before its first step.

    Attributes
    ----------
    est : estimator
    course : Course
    source : Source
    trained : Trained
        What becomes of it.
    failed : bool
        Whether a batch had no weight: a fit of its own then raises the error.
    """

    est: Any
    course: Course
    source: Source
    trained: Trained
    failed: bool = False

    @property
    def form(self) -> Hashable:
        """Equal to another's if one step can train both."""
        form: Form = self.est._form
        source, scored = self.source, self.course.scored
        sizes = self.course.size, self.course.n, scored and tuple(scored[0].shape)
        alike = replace(form, dropout=float(form.dropout > 0), seed=0)
        where = str(source.backend), self.est._opened[2], self.est._origin
        return alike, type(self.course.solver.rule), sizes, source.weights is None, where


def begun(est: Any, X: Any, y: Any, sample_weight: Any = None) -> Fit:
    """Do what `fit` does before the first step."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        est._validate_params()
        backend, X, targets, weights, _ = est._begun(X, y, sample_weight, None, False)
        course, (X, targets, weights) = begin(est, X, targets, weights, None, False, 0)
    shares = est.random_state is not None and est.random_state is not np.random
    source = Source(backend, X, targets, weights, course, shares)
    warned = [(each.message, each.category) for each in caught]
    return Fit(est, course, source, Trained(est, warned, time.perf_counter() - start))


def twin(first: Fit, est: Any) -> Fit:
    """Return what `begun` would for an estimator that differs in NOT_BEFORE_STEPS only."""
    start = time.perf_counter()
    est._validate_params()
    settings = est.get_params(deep=False)
    for name, value in vars(first.est).items():
        if name not in settings:
            setattr(est, name, list(value) if isinstance(value, list) else value)
    est._optimizer = solver_of(est)
    course = copy.copy(first.course)
    course.est, course.solver = est, est._optimizer
    trained = Trained(est, list(first.trained.warned), time.perf_counter() - start)
    return Fit(est, course, first.source, trained)


def chunks(fits: Sequence[Fit]) -> list[list[Fit]]:
    """Cut fits into those to train together: each of one form, and of few folds if possible."""
    by_form: dict[Hashable, dict[Hashable, list[Fit]]] = {}
    for fit in fits:
        by_form.setdefault(fit.form, {}).setdefault(fit.source.block, []).append(fit)
    found: list[list[Fit]] = []
    for by_block in by_form.values():
        first = next(iter(by_block.values()))[0]
        most = _models_at_once(first)
        bytes_each = math.prod(first.source.X.shape) * _itemsize(first)
        alike = [fit for block in by_block.values() for fit in block]
        size = math.ceil(len(alike) / math.ceil(len(alike) / most))  # about equal parts
        chunk: list[Fit] = []
        for fit in alike:
            blocks = {each.source.block for each in (*chunk, fit)}
            if len(chunk) == size or (len(blocks) > 1 and len(blocks) * bytes_each > DATA_BYTES):
                found.append(chunk)
                chunk = []
            chunk.append(fit)
        found.append(chunk)
    return found


def _itemsize(fit: Fit) -> int:
    return np.dtype(fit.est._opened[2]).itemsize


def _models_at_once(fit: Fit) -> int:
    """Return how many models of this form a step trains fastest."""
    if fit.source.backend.device != "cpu":
        return 1024
    sizes = fit.est._form.sizes
    weights = sum(a * b for a, b in pairwise(sizes))
    touched = (fit.course.size * sum(sizes) + 4 * weights) * _itemsize(fit)
    return max(1, CACHE_BYTES // touched)


def train(fits: Sequence[Fit]) -> None:
    """Train fits of one form together; each ends as it would alone, or is `failed`."""
    training = _Training(fits)
    while training.alive:
        training.epoch()


class _Training:
    """The stack of models, and what belongs to each of them.

    A model has a place in the stack. One that has ended keeps it until the stack is made anew of
    those in `alive`.
    """

    def __init__(self, fits: Sequence[Fit]) -> None:
        first = fits[0]
        self.backend, self.origin = first.source.backend, first.est._origin
        self.alive = list(enumerate(fits))
        sources = list({id(fit.source): fit.source for fit in fits}.values())
        blocks = {source.block: source for source in sources}
        self.streams = [source.stream() for source in sources]
        starts = [list(blocks).index(source.block) * first.course.n for source in sources]
        self.starts = np.array(starts)[:, None]
        self.of_source = np.array([_place(sources, fit.source) for fit in fits])
        held = [
            first.est._on_backend(self.backend, source.X, source.targets, source.weights)
            for source in blocks.values()
        ]
        self.data = tuple(map(_joined, zip(*held, strict=True)))
        self.samples = self._samples(sources)
        rules = [fit.course.solver.rule for fit in fits]
        rule, values = _rule_for(rules)
        self.rates = [fit.course.solver.learning_rate for fit in fits]
        values |= {"alpha": [fit.est.alpha for fit in fits], "each.lr": self.rates}
        self.stack = Stack(self.backend, [fit.est._form for fit in fits], rule)
        named = [fit.est._named() for fit in fits]
        self.params = {
            name: self.backend.asarray(np.stack([to_host(each[name]) for each in named]))
            for name in named[0]
        }
        self.state = self.stack.begin(self.params, values)
        self.engine = Engine(self.backend, first.est._form, first.est._params(self.backend))

    def _samples(self, sources: list[Source]) -> Array | None:
        """Return what to score after each epoch, shape=(K, N, D), or (N, D) for all models."""
        if sources[0].course.scored is None:
            return None
        scored = [source.course.scored for source in sources]
        taken = [self.origin.take_in(each[0], self.backend) for each in scored if each]
        if len(taken) == 1:
            return taken[0]
        return namespace(taken[0]).stack([taken[i] for i in self.of_source])

    def epoch(self) -> None:
        """Run the steps of an epoch, judge the models, and let those go that have ended."""
        start = time.perf_counter()
        orders = [stream.next_order() for stream in self.streams]
        self._refuse_empty_batches(orders)
        losses = self._steps(np.stack(orders) + self.starts)
        trained = self.alive
        self.alive = self._judged(losses)
        if self.alive:
            self._set_rates()
            if _worth_it(self.backend, len(self.alive), len(self.of_source)):
                self._leave_others()
        seconds = (time.perf_counter() - start) / max(1, len(trained))
        for _, fit in trained:
            fit.trained.seconds += seconds

    def _refuse_empty_batches(self, orders: list[np.ndarray]) -> None:
        for source, (stream, order) in enumerate(zip(self.streams, orders, strict=True)):
            if stream.weights is None:
                continue
            try:
                check_batches(stream.weights, cut(order, stream.size))
            except ZeroDivisionError:
                for place, fit in self.alive:
                    fit.failed |= bool(self.of_source[place] == source)
        self.alive = [(place, fit) for place, fit in self.alive if not fit.failed]

    def _steps(self, orders: np.ndarray) -> list[float]:
        """Run the steps of one epoch; return each model's mean loss."""
        rows = orders[0] if len(orders) == 1 else orders[self.of_source]
        course, total = self.streams[0], np.zeros(len(self.of_source))
        for order in _cut_each(rows, course.size):
            for chunk in self.stack.epoch(self.params, self.state, self.data, [order]):
                self.params, self.state, losses = chunk
                total += order.shape[-1] * self.backend.to_numpy(losses).sum(axis=0)
        means: list[float] = (total / course.n).tolist()
        return means

    def _judged(self, losses: list[float]) -> list[tuple[int, Fit]]:
        """Tell each estimator that an epoch has ended; return those that go on."""
        params = _once(lambda: {n: self.backend.to_numpy(p) for n, p in self.params.items()})
        scores = _once(lambda: self.stack.scores(self.params, self.samples))
        return [
            (place, fit)
            for place, fit in self.alive
            if self._goes_on(fit, place, losses[place], params, scores)
        ]

    def _goes_on(
        self,
        fit: Fit,
        place: int,
        loss: float,
        params: Callable[[], Any],
        scores: Callable[[], Any],
    ) -> bool:
        est, course = fit.est, fit.course

        def keep() -> None:
            for names, name in (("coefs_", "W"), ("intercepts_", "b")):
                arrays = [params()[f"{name}{i}"][place].copy() for i in range(1, est.n_layers_)]
                setattr(est, names, [self.origin.asarray(array) for array in arrays])

        going = course.epoch_ends(loss, lambda: scores()[place], keep)
        if going and est.n_iter_ < est.max_iter:
            return True
        if going:
            fit.trained.warned.append((course.last_words, ConvergenceWarning))
        keep()
        if est.early_stopping:
            est.coefs_, est.intercepts_ = est._best
        est._engine = self.engine
        return False

    def _set_rates(self) -> None:
        rates = list(self.rates)
        for place, fit in self.alive:
            rates[place] = fit.course.solver.learning_rate
        if rates != self.rates:
            self.rates = rates
            self.state |= self.stack.numbers(self.params, {"each.lr": rates})

    def _leave_others(self) -> None:
        """Make the stack anew of the models that are alive."""
        places = [place for place, _ in self.alive]
        rows = self.backend.asarray(np.array(places))

        def kept(array: Array) -> Array:
            return namespace(array).take(array, rows, axis=0) if array.ndim else array

        self.params = {name: kept(p) for name, p in self.params.items()}
        self.state = {name: kept(value) for name, value in self.state.items()}
        if self.samples is not None and self.samples.ndim == 3:
            self.samples = kept(self.samples)
        self.of_source = self.of_source[places]
        self.rates = [self.rates[place] for place in places]
        self.alive = [(i, fit) for i, (_, fit) in enumerate(self.alive)]


def _place(sources: list[Source], source: Source) -> int:
    return next(i for i, each in enumerate(sources) if each is source)


def _joined(arrays: tuple[Array, ...]) -> Array:
    return arrays[0] if len(arrays) == 1 else namespace(arrays[0]).concat(arrays, axis=0)


def _cut_each(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Do what `cut` does; rows of shape (K, n) give orders of shape (steps, K, size)."""
    n = rows.shape[-1]
    full = n // size * size
    for part, width in ((rows[..., :full], size), (rows[..., full:], n - full)):
        if part.size:
            order = part.reshape(*rows.shape[:-1], -1, width)
            yield order if rows.ndim == 1 else np.ascontiguousarray(order.swapaxes(0, 1))


def _rule_for(rules: list[Any]) -> tuple[optim.PerModel, dict[str, list[Any]]]:
    """Return the rule of all models, and the settings that differ; the rate always may."""
    names = [each.name for each in fields(rules[0]) if each.name != "lr"]
    settings = {name: [getattr(rule, name) for rule in rules] for name in names}
    varied = {name: values for name, values in settings.items() if len(set(values)) > 1}
    values = {f"each.{name}": given for name, given in varied.items()}
    return optim.PerModel(rules[0], ("lr", *varied)), values


def _worth_it(backend: Backend, going: int, models: int) -> bool:
    """Say whether to make the stack anew; libraries that compile a step do so for each size."""
    compiles = backend.library == "jax" or backend.device != "cpu"
    return going <= models // 2 if compiles else going < models


def _once(function: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that computes its result once."""
    found: list[Any] = []

    def call() -> Any:
        if not found:
            found.append(function())
        return found[0]

    return call
