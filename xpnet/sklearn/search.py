"""A grid search that trains its candidates, on all folds, at once."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import joblib
import numpy as np
from scipy import sparse
from sklearn import get_config
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import indexable
from sklearn.utils._array_api import device, get_namespace
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params

from xpnet.errors import counted, listed, one_line
from xpnet.sklearn.estimators import MLPClassifier, MLPRegressor
from xpnet.sklearn.together import DATA_BYTES, NOT_BEFORE_STEPS, Fit, begun, chunks, train, twin
from xpnet.sklearn.trained import Trained, data_print, fingerprint, known

__all__ = ["BatchedGridSearchCV"]

Settings = Mapping[str, Any]


class BatchedGridSearchCV(GridSearchCV):
    """A `sklearn.model_selection.GridSearchCV` that trains many networks as one.

    For an `MLPClassifier` or `MLPRegressor` of xpnet, alone or at the end of a Pipeline, one step
    trains all candidates of one form on all folds: the same layers, activations, loss, kind of
    solver, batch size and number of samples. Scores, parameters and errors are those of
    GridSearchCV up to rounding; without a `random_state`, the networks draw other numbers, as they
    do each time.

    Fits with solver="lbfgs", a sparse X, callbacks, ``verbose``, ``warm_start=True``, an optimizer
    or a loss given as an object, or any other estimator, run one by one, and so do fits that fail.
    `one_by_one_` says which and why; ``verbose=1`` prints it.

    The constructor is that of GridSearchCV. ``n_jobs`` and ``pre_dispatch`` count for a search
    whose fits all run one by one; another runs in this process alone.

    Attributes
    ----------
    cv_results_, best_estimator_, best_params_, best_score_, best_index_, refit_time_, n_splits_
        As those of GridSearchCV, and so are the others that it has. The fit time of a candidate is
        its share of the time that all took together.
    one_by_one_ : dict of int to str
        For each candidate with fits of its own, by its place in ``cv_results_["params"]``: why.
    together_ : list of int
        How many networks each batch trained.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from xpnet.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> grid = {"alpha": [1e-4, 1e-2], "learning_rate_init": [0.1, 0.01]}
    >>> net = MLPClassifier(10, max_iter=40, tol=0.1, random_state=0)
    >>> search = BatchedGridSearchCV(net, grid, cv=3).fit(X, y)
    >>> search.together_, search.one_by_one_
    ([12], {})
    """

    one_by_one_: dict[int, str]
    together_: list[int]

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Train all candidates on all folds, and the best one on all data.

        Parameters
        ----------
        X, y, **params
            As for GridSearchCV; `params` are passed on to `fit` of the estimator, to the scorer
            and to the splitter, such as `sample_weight` and `groups`.

        Returns
        -------
        self
        """
        self._validate_params()
        X, y = indexable(X, y)
        with warnings.catch_warnings():  # what it warns of, it will again
            warnings.simplefilter("ignore")
            routed = self._get_routed_params_for_fit(_check_method_params(X, params=params))
        settings = list(ParameterGrid(self.param_grid))
        reasons = [self._reason(each, X, routed.estimator.fit) for each in settings]
        self.one_by_one_ = {i: reason for i, reason in enumerate(reasons) if reason}
        self.together_ = []
        self._given, self._seconds = (X, y, routed), np.zeros(0)
        try:
            if all(reasons):
                self._say("")
                return super().fit(X, y, **params)
            # Fits that are trained already would not be known to other processes.
            with joblib.parallel_config(backend="sequential"):
                return super().fit(X, y, **params)
        finally:
            del self._given, self._seconds

    def _reason(self, settings: Settings, X: Any, fit_params: Settings) -> str:
        """Say why a candidate cannot be trained together with others; "" if it can."""
        try:
            est = clone(self.estimator).set_params(**clone(settings, safe=False))
        except Exception as error:  # so that the fit raises it
            return one_line(f"{type(error).__name__}: {error}")
        return _reason_against(est, X, fit_params)

    def _run_search(
        self, evaluate_candidates: Callable[..., Any], *, callback_ctx: Any = None
    ) -> None:
        def evaluate(candidates: Any, **more: Any) -> Any:
            candidates = list(candidates)
            if len(self.one_by_one_) == len(candidates):
                return evaluate_candidates(candidates, **more)
            X, y, routed = self._given
            splits = list(self._checked_cv_orig.split(X, y, **routed.splitter.split))
            fits = self._trained(candidates, splits)
            by_name: dict[str, list[Trained]] = {}
            for fit in fits:
                by_name.setdefault(fit.name, []).append(fit.trained)
            with known(by_name):
                # The same splits again: those of a shuffled cv would differ.
                results = evaluate_candidates(candidates, cv=check_cv(splits), **more)
            for fit in fits:
                if not fit.trained.given:
                    self.one_by_one_.setdefault(fit.candidate, "other data at each fit")
            return results

        super()._run_search(evaluate, callback_ctx=callback_ctx)

    def _trained(self, candidates: list[Settings], splits: list[Any]) -> list[_Known]:
        """Train all fits that can be trained together."""
        start = time.perf_counter()
        X, y, routed = self._given
        found: list[_Known] = []
        size = getattr(X, "nbytes", 0) * len(splits)
        numbers, alone = list(range(len(splits))), set(self.one_by_one_)
        for part in [[i] for i in numbers] if size > DATA_BYTES else [numbers]:
            begun: dict[int, _Known] = {}
            fits: list[Fit] = []
            for split in part:
                fold = _Fold(self.estimator, X, y, routed.estimator.fit, splits[split][0])
                for model, settings in enumerate(candidates):
                    if model in alone:
                        continue
                    try:
                        name, fit = fold.begun(settings)
                    except Exception as error:  # so that the fit raises it
                        self._leave(model, f"{type(error).__name__}: {error}")
                        continue
                    begun[id(fit)] = _Known(model, split, name, fit.trained)
                    fits.append(fit)
            for chunk in chunks(fits):
                if len(chunk) == 1:
                    self._leave(begun[id(chunk[0])].candidate, "alone in its batch")
                    continue
                train(chunk)
                self.together_.append(len(chunk))
                for fit in chunk:
                    known_fit = begun[id(fit)]
                    if fit.failed:
                        self._leave(known_fit.candidate, "all samples of a batch have weight 0")
                    else:
                        found.append(known_fit)
        self._seconds = np.zeros((len(candidates), len(splits)))
        for each in found:
            self._seconds[each.candidate, each.split] = each.trained.seconds
        seconds = time.perf_counter() - start
        self._say(f"trained {sum(self.together_)} networks together, {seconds:.1f} s")
        return found

    def _leave(self, candidate: int, reason: str) -> None:
        self.one_by_one_.setdefault(candidate, one_line(reason))

    def _say(self, text: str) -> None:
        if self.verbose > 0:
            if text:
                print(text)
            by_reason: dict[str, list[int]] = {}
            for candidate, reason in sorted(self.one_by_one_.items()):
                by_reason.setdefault(reason, []).append(candidate)
            for reason, which in by_reason.items():
                print(f"one by one: {counted(len(which), 'candidate')}, {listed(which)}: {reason}")

    def _format_results(
        self, candidate_params: Any, n_splits: int, out: list[dict[str, Any]], *more: Any
    ) -> Any:
        if len(self._seconds):
            pairs = zip(out, self._seconds.ravel(), strict=True)
            out = [{**each, "fit_time": each["fit_time"] + seconds} for each, seconds in pairs]
        return super()._format_results(candidate_params, n_splits, out, *more)


class _Known(NamedTuple):
    """A fit that was trained with others: of which candidate and split, and how it is found."""

    candidate: int
    split: int
    name: str
    trained: Trained


class _Fold:
    """One fold's training data, and the fits on it that have begun."""

    def __init__(self, estimator: Any, X: Any, y: Any, fit_params: Settings, train: Any) -> None:
        xp, _ = get_namespace(X)
        rows = xp.asarray(train, device=device(X))  # as scikit-learn's fits take them
        self.estimator = estimator
        self.X, self.y = _safe_split(estimator, X, y, rows)
        given = _check_method_params(X, params=fit_params, indices=rows)
        self.weight = next(iter(given.values()), None)
        self.transformed: dict[str, tuple[Any, str]] = {}
        self.firsts: dict[str, Fit] = {}

    def begun(self, settings: Settings) -> tuple[str, Fit]:
        """Return a candidate's fingerprint, and its fit before the first step."""
        est = clone(self.estimator).set_params(**clone(settings, safe=False))
        X, data = self._before(est)
        est = est.steps[-1][1] if isinstance(est, Pipeline) else est
        if sparse.issparse(X):
            raise TypeError(SPARSE)
        name = fingerprint(est, data)
        alike = fingerprint(est, data, NOT_BEFORE_STEPS)
        first = self.firsts.get(alike)
        if first is not None and first.source.shares:
            return name, twin(first, est)
        fit = self.firsts[alike] = begun(est, X, self.y, self.weight)
        return name, fit

    def _before(self, est: Any) -> tuple[Any, str]:
        """Return the samples as a pipeline's last step gets them, and a digest of the data."""
        steps = est.steps[:-1] if isinstance(est, Pipeline) else []
        key = joblib.hash(steps) if steps else ""
        if key not in self.transformed:
            X = self.X
            if steps:
                with warnings.catch_warnings():  # the pipeline's own fit will warn
                    warnings.simplefilter("ignore")
                    X = clone(est)[:-1].fit_transform(X, self.y)
            self.transformed[key] = X, data_print(X, self.y, self.weight)
        return self.transformed[key]


SPARSE = "X is sparse"


def _reason_against(est: Any, X: Any, fit_params: Settings) -> str:
    """Say why an estimator cannot be trained together with others; "" if it can."""
    expected = "sample_weight"
    if isinstance(est, Pipeline):
        name, last = est.steps[-1]
        expected = f"{name}__{expected}"
        if get_config()["enable_metadata_routing"]:
            return "metadata is routed through a Pipeline"
    else:
        last = est
    if type(last) not in (MLPClassifier, MLPRegressor):
        return f"{type(last).__name__} is no MLPClassifier or MLPRegressor of xpnet"
    others = [name for name in fit_params if name != expected]
    reasons = {
        SPARSE: sparse.issparse(X),
        f"fit is given {listed(others)}": bool(others),
        "solver='lbfgs' has no steps": isinstance(last.solver, str) and last.solver == "lbfgs",
        "the solver is an object": not isinstance(last.solver, str),
        "the loss is an object": not isinstance(getattr(last, "loss", ""), str),
        "it has callbacks": last.callbacks is not None,
        "verbose prints its epochs": bool(last.verbose),
        "warm_start=True": bool(last.warm_start),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")
