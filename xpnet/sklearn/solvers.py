"""How the parameters of an estimator are found: by steps over batches, or by L-BFGS.

`by_steps` and `by_lbfgs` take an estimator whose parameters are drawn, and leave the fitted
attributes there that scikit-learn leaves. Batches, shuffles and the part that is held out are
scikit-learn's own: `random_state` draws in the same order.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils.fixes import _get_additional_lbfgs_options_dict
from sklearn.utils.optimize import _check_optimize_result
from tqdm import tqdm

from xpnet import optim
from xpnet.arrays.ops import Array, namespace
from xpnet.backend.interface import Backend
from xpnet.sklearn.arrays import rows_of, to_host
from xpnet.sklearn.engine import Engine
from xpnet.trainer.history import Epoch, finite_or_none
from xpnet.trainer.interrupts import held_signals

__all__ = [
    "Course", "EpsilonHatAdam", "Solver", "begin", "by_lbfgs", "by_steps", "check_batches", "cut",
]  # fmt: skip

SMALLEST_RATE = 1e-6  # an adaptive rate that is not larger ends the training


@dataclass(frozen=True)
class EpsilonHatAdam(optim.Adam):
    """Adam with ε beside √v instead of √v̂: p ← p - lr (√c₂ / c₁) m / (√v + ε).

    Kingma and Ba give this form at the end of section 2 of "Adam", and scikit-learn uses it.
    """

    def rates(self, lr: Any, step: Array) -> tuple[Any, Any]:
        return super().rates(lr, step)[0], self.eps


@dataclass
class Solver:
    """An optimizer with its state, and the rate that changes between epochs.

    Attributes
    ----------
    rule : Optimizer
    schedule : {"constant", "invscaling", "adaptive"}
    first_rate, power : float
        invscaling: after k samples, the rate is first_rate / (k + 1)^power.
    learning_rate : float or None
        The current rate; with None, the rule's own rate counts.
    state : dict of str to array
    """

    rule: Any
    schedule: str = "constant"
    first_rate: float | None = None
    power: float = 0.5
    learning_rate: float | None = None
    state: dict[str, Array] = field(default_factory=dict)

    def on_host(self) -> Solver:
        """Return a copy whose state is in NumPy arrays."""
        return replace(self, state={name: to_host(value) for name, value in self.state.items()})

    def epoch_ends(self, samples: int) -> None:
        """Set the rate after so many samples in all."""
        if self.schedule == "invscaling" and self.first_rate is not None:
            self.learning_rate = self.first_rate / (samples + 1) ** self.power

    def lowered(self) -> tuple[bool, str]:
        """Lower an adaptive rate since nothing improves; False ends the training, and why."""
        if self.schedule != "adaptive" or self.learning_rate is None:
            return False, "Stopping."
        if self.learning_rate <= SMALLEST_RATE:
            return False, "Learning rate too small. Stopping."
        self.learning_rate /= 5.0
        return True, f"Setting learning rate to {self.learning_rate:f}"


def solver_of(est: Any) -> Solver:
    """Return the solver that an estimator's parameters describe."""
    if not isinstance(est.solver, str):
        return Solver(est.solver)
    rate = float(est.learning_rate_init)
    if est.solver == "adam":
        rule: Any = EpsilonHatAdam(rate, est.beta_1, est.beta_2, est.epsilon)
    else:
        rule = (optim.Nesterov if est.nesterovs_momentum else optim.Momentum)(rate, est.momentum)
    # The state holds the rate. So rules of all rates are equal, and share what is compiled.
    rule = replace(rule, lr=1.0)
    schedule = est.learning_rate if est.solver == "sgd" else "constant"
    return Solver(rule, schedule, rate, est.power_t, rate)


class Course:
    """What an estimator does between the steps of its epochs: it orders, judges, and stops.

    So the steps may be those of this estimator alone, or of many at once.

    Parameters
    ----------
    est : estimator
        With drawn parameters; the course fills its loss curve, its scores and what belongs to them.
    solver : Solver
    n : int
        Samples to train on.
    weights : array, shape=(n,), optional
    scored : (X, y, weights), optional
        Data to score after each epoch; weights may be None.
    level : int
        For warnings: the number of calls between the user and the caller of this constructor.
    """

    def __init__(
        self,
        est: Any,
        solver: Solver,
        n: int,
        weights: np.ndarray | None,
        scored: tuple[Any, Any, Any] | None,
        level: int,
    ) -> None:
        self.est, self.solver, self.n, self.weights = est, solver, n, weights
        self.scored = scored
        self.size = _batch_size(est, n, level + 2)
        self.order, self.random_state = np.arange(n), est._random_state
        est.n_iter_ = 0

    def next_order(self) -> np.ndarray:
        """Return the order of the next epoch's samples, shape=(n,)."""
        if self.est.shuffle:
            self.order = self.order.copy()
            self.random_state.shuffle(self.order)
        return self.order

    def epoch_ends(
        self, loss: float, scores: Callable[[], np.ndarray], keep: Callable[[], None]
    ) -> bool:
        """Count an epoch and judge it; False ends the training.

        Parameters
        ----------
        loss : float
            The mean over the epoch's samples.
        scores : callable
            Returns the outputs for X of `scored`, on the host.
        keep : callable
            Makes the parameters of this moment the fitted ones.
        """
        est, solver = self.est, self.solver
        est.n_iter_ += 1
        est.t_ += self.n
        est.loss_ = loss
        est.loss_curve_.append(loss)
        _say(est, "Iteration {}, loss = {:.8f}", est.n_iter_, loss)
        if self.scored is not None:
            est.validation_scores_.append(est._score_of(scores(), *self.scored[1:]))
            _say(est, "Validation score: {:f}", est.validation_scores_[-1])
        _judge(est, keep)
        solver.epoch_ends(est.t_)
        return _goes_on(est, solver)

    @property
    def last_words(self) -> str:
        """What to warn of if the training has not ended by itself."""
        return (
            f"Stochastic Optimizer: Maximum iterations ({self.est.max_iter}) reached and the "
            "optimization hasn't converged yet."
        )


def begin(
    est: Any,
    X: Any,
    targets: np.ndarray,
    weights: np.ndarray | None,
    held: tuple[Any, Any] | None,
    incremental: bool,
    level: int,
) -> tuple[Course, tuple[Any, np.ndarray, np.ndarray | None]]:
    """Return an estimator's course, and the data to train on: (X, targets, weights).

    The parameters are as for `by_steps`, and `level` as for `Course`.
    """
    if est.early_stopping and incremental:
        raise ValueError("partial_fit does not support early_stopping=True")
    solver = est._optimizer = (incremental and vars(est).get("_optimizer")) or solver_of(est)
    scored = None if held is None else (*held, None)
    if held is not None:
        est.validation_scores_ = est.validation_scores_ or []
    elif est.early_stopping:
        X, targets, weights, scored = _hold_out(est, X, targets, weights)
    course = Course(est, solver, len(targets), weights, scored, level + 1)
    return course, (X, targets, weights)


def by_steps(
    est: Any,
    backend: Backend,
    X: Any,
    targets: np.ndarray,
    weights: np.ndarray | None,
    held: tuple[Any, Any] | None,
    incremental: bool,
) -> None:
    """Train epoch by epoch until nothing improves; with `incremental`, one epoch.

    Parameters
    ----------
    est : estimator
    backend : Backend
    X : array of the user's library, or sparse matrix
    targets : array, shape=(n_samples, outputs)
    weights : array, shape=(n_samples,), optional
    held : (X, y), optional
        Data to score after each epoch.
    incremental : bool
    """
    course, data = begin(est, X, targets, weights, held, incremental, 4)
    solver, weights = course.solver, course.weights
    params = est._params(backend)
    engine = est._engine = est._engine_on(backend, params, solver.rule)
    backend = engine.backend
    data = est._on_backend(backend, *data)
    samples = None if course.scored is None else est._taken_in(course.scored[0], backend)
    state = engine.begin(params, solver.state, alpha=est.alpha, lr=solver.learning_rate)
    bar = tqdm(total=est.max_iter, unit="epoch", disable=est.verbose != "bar", leave=False)
    try:
        with bar, held_signals() as deliver:
            for _ in range(est.max_iter):
                began = time.perf_counter()
                batches = cut(course.next_order(), course.size)
                if weights is not None:
                    check_batches(weights, batches)
                waiting = []
                for chunk in engine.epoch(params, state, data, batches):
                    params, state, losses = chunk
                    solver.state = state
                    waiting.append(losses)
                    deliver()
                losses = [loss for part in waiting for loss in backend.to_numpy(part).tolist()]
                loss = _mean(losses, batches, course.n)
                seconds = time.perf_counter() - began
                rate = solver.learning_rate
                going = course.epoch_ends(
                    loss,
                    partial(_outputs, engine, params, samples),
                    partial(est._keep, params, backend),
                )
                if solver.learning_rate is not None and solver.learning_rate != rate:
                    state |= engine.numbers(params, lr=solver.learning_rate)
                    solver.state = state
                if not bar.disable:
                    bar.set_postfix_str(f"loss {est.loss_:.4g}", refresh=False)
                    bar.update()
                if est.callbacks is not None:
                    est._keep(params, backend)
                    going = _call_back(est, len(losses), seconds) and going
                    deliver()
                if incremental or not going:
                    break
            else:
                warnings.warn(course.last_words, ConvergenceWarning, stacklevel=5)
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=5)
    finally:
        est._keep(params, backend)  # the loop has consumed the old ones
    if est.early_stopping:
        est.coefs_, est.intercepts_ = est._best


def _outputs(engine: Engine, params: dict[str, Array], X: Any) -> np.ndarray:
    return engine.backend.to_numpy(engine.scores(params, X))


def _hold_out(
    est: Any, X: Any, targets: np.ndarray, weights: np.ndarray | None
) -> tuple[Any, np.ndarray, np.ndarray | None, tuple[Any, Any, Any]]:
    """Hold out a part of the data: (X, targets, weights) without it, and (X, y, weights) of it."""
    stratify = targets if is_classifier(est) and est.n_outputs_ == 1 else None
    train, test = train_test_split(
        np.arange(len(targets)), random_state=est._random_state,
        test_size=est.validation_fraction, stratify=stratify,
    )  # fmt: skip
    if len(test) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your "
            "dataset."
        )
    kept, out = (None, None) if weights is None else (weights[train], weights[test])
    scored = rows_of(X, test), est._labels_of(targets[test]), out
    return rows_of(X, train), targets[train], kept, scored


def _batch_size(est: Any, n: int, level: int) -> int:
    if est.batch_size == "auto":
        return min(200, n)
    if est.batch_size > n:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=level + 1,
        )
    return int(np.clip(est.batch_size, 1, n))


def cut(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut an order into full batches, shape=(steps, size), and a last, smaller one."""
    full = len(order) // size * size
    parts = [order[:full].reshape(-1, size), order[full:].reshape(1, -1)]
    return [part for part in parts if part.size]


def check_batches(weights: np.ndarray, batches: list[np.ndarray]) -> None:
    if any((weights[rows].sum(axis=1) == 0).any() for rows in batches):
        raise ZeroDivisionError(
            "Weights sum to zero, can't be normalized: all samples of a batch have weight 0"
        )


def _mean(losses: list[float], batches: list[np.ndarray], n: int) -> float:
    """Return the mean loss of an epoch's samples from the losses of its batches."""
    sizes = (rows.shape[1] for rows in batches for _ in range(len(rows)))
    return sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / n


def _say(est: Any, text: str, *values: Any) -> None:
    if est.verbose and est.verbose != "bar":
        print(text.format(*values))


def _judge(est: Any, keep: Callable[[], None]) -> None:
    """Count the epochs that did not improve the loss or, with early stopping, the score."""
    if est.early_stopping:
        score = est.validation_scores_[-1]
        worse = score < est.best_validation_score_ + est.tol
        if score > est.best_validation_score_:
            est.best_validation_score_ = score
            keep()
            est._best = est._copies()
    else:
        worse = est.loss_ > est.best_loss_ - est.tol
        est.best_loss_ = (
            min(est.loss_, est.best_loss_) if est.loss_ == est.loss_ else est.best_loss_
        )
    est._no_improvement_count = est._no_improvement_count + 1 if worse else 0


def _goes_on(est: Any, solver: Solver) -> bool:
    """Say whether the training goes on; an adaptive rate falls where nothing improves."""
    if est._no_improvement_count <= est.n_iter_no_change:
        return True
    what = "Validation score" if est.early_stopping else "Training loss"
    goes_on, then = solver.lowered()
    _say(
        est,
        "{} did not improve more than tol={:f} for {} consecutive epochs. {}",
        what,
        est.tol,
        est.n_iter_no_change,
        then,
    )
    if goes_on:
        est._no_improvement_count = 0
    return goes_on


def _call_back(est: Any, steps: int, seconds: float) -> bool:
    """Call the callbacks after an epoch; False ends the training."""
    scores = est.validation_scores_
    epoch = Epoch(
        epoch=est.n_iter_,
        step=est.n_iter_ * steps,
        train_loss=est.loss_,
        train_score=None,
        val_loss=None,
        val_score=finite_or_none(scores[-1]) if scores else None,
        seconds=seconds,
        samples_per_second=est.t_ / est.n_iter_ / seconds,
    )
    called = [est.callbacks] if callable(est.callbacks) else est.callbacks
    asked = [callback(est, epoch) for callback in called]  # call all of them
    return not any(asked)


def by_lbfgs(
    est: Any, backend: Backend, X: Any, targets: np.ndarray, weights: np.ndarray | None
) -> None:
    """Minimize the loss of all samples; SciPy's L-BFGS runs on the host, in float64.

    The parameters are as for `by_steps`.
    """
    params = est._params(backend)
    engine = est._engine = est._engine_on(backend, params)
    backend = engine.backend
    data = est._on_backend(backend, X, targets, weights)
    total = float(len(targets) if weights is None else weights.sum())
    shapes = {name: tuple(p.shape) for name, p in params.items()}
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    n_weights = ends[est.n_layers_ - 2]  # the biases stand behind them, and have no penalty
    dtype = est._opened[2]

    def unpacked(point: np.ndarray) -> dict[str, Array]:
        parts = np.split(point.astype(dtype, copy=False), ends[:-1])
        named = zip(shapes.items(), parts, strict=True)
        return {name: backend.asarray(part.reshape(shape)) for (name, shape), part in named}

    def value_and_gradient(point: np.ndarray) -> tuple[float, np.ndarray]:
        loss, grads = engine.gradient(unpacked(point), data)
        xp = namespace(grads[0])
        flat = backend.to_numpy(xp.concat([xp.reshape(g, (-1,)) for g in grads]))
        gradient: np.ndarray = flat.astype(np.float64, copy=False)
        coefs = point[:n_weights]
        gradient[:n_weights] += est.alpha * coefs
        gradient /= total
        return (loss + 0.5 * est.alpha * float(coefs @ coefs)) / total, gradient

    start = np.concatenate([backend.to_numpy(p).reshape(-1) for p in params.values()])
    verbose = est.verbose is True or (isinstance(est.verbose, int) and est.verbose >= 1)
    options = {
        "maxfun": est.max_fun,
        "maxiter": est.max_iter,
        "gtol": est.tol,
        **_get_additional_lbfgs_options_dict("iprint", 1 if verbose else -1),
    }
    found = minimize(
        value_and_gradient,
        start.astype(np.float64),
        method="L-BFGS-B",
        jac=True,
        options=options,
    )
    est.n_iter_ = _check_optimize_result("lbfgs", found, est.max_iter)
    est.loss_ = float(found.fun)
    est._keep(unpacked(np.array(found.x)), backend)
