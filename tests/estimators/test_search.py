"""BatchedGridSearchCV finds what GridSearchCV finds, and says what it cannot train together."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from conftest import Library, usable_cupy

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

import sklearn
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from xpnet import optim
from xpnet.sklearn import BatchedGridSearchCV, MLPClassifier, MLPRegressor
from xpnet.sklearn import search as module
from xpnet.sklearn.together import NOT_BEFORE_STEPS

N = 54
X, CLASSES = make_classification(N, 6, n_informative=4, n_classes=3, random_state=0)
_, VALUES = make_regression(N, 6, n_targets=2, random_state=0)
VALUES /= 100
LABELS = np.array(["b", "c", "a"])[CLASSES]
SEVERAL = np.stack([CLASSES == 0, CLASSES > 0, X[:, 0] > 0], axis=1).astype(int)
WEIGHT = np.random.default_rng(0).integers(1, 4, N).astype(float)
SMALL: dict[str, Any] = {
    "hidden_layer_sizes": 5, "batch_size": 15, "max_iter": 12, "random_state": 3,
}  # fmt: skip
RATES = {"learning_rate_init": [0.1, 0.01, 0.001], "alpha": [1e-4, 1.0]}
ATTRIBUTES = (
    "n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "classes_", "n_features_in_",
    "loss_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "coefs_",
    "intercepts_",
)  # fmt: skip


class Seen:
    """A scorer that keeps the estimators it scores, in the order of the fits."""

    def __init__(self) -> None:
        self.fitted: list[Any] = []

    def __call__(self, est: Any, x: Any, y: Any) -> float:
        self.fitted.append(est.steps[-1][1] if isinstance(est, Pipeline) else est)
        return float(est.score(x, y))


def run(kind: Any, est: Any, grid: Any, *data: Any, **options: Any) -> tuple[Any, Any, list[Any]]:
    """Search; return the search, the fitted estimators, and the kinds of warnings."""
    given = {name: options.pop(name) for name in ("sample_weight", "groups") if name in options}
    seen = Seen()
    options = {"cv": 3, "scoring": seen, **options}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search = kind(est, grid, **options).fit(*data, **given)
    texts = [(each.category.__name__, str(each.message).strip()[:20]) for each in caught]
    return search, seen.fitted, sorted(texts)


def assert_close(ours: Any, theirs: Any, name: str, atol: float) -> None:
    if isinstance(theirs, list) and len(theirs) and np.ndim(theirs[0]):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol, atol, err_msg=name)
    elif theirs is None or np.asarray(theirs).dtype.kind not in "fc":
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    else:
        np.testing.assert_allclose(ours, theirs, atol, atol, err_msg=name)


def assert_same_results(ours: Any, theirs: Any, atol: float = 1e-10) -> None:
    assert ours.cv_results_.keys() == theirs.cv_results_.keys()
    for name, values in theirs.cv_results_.items():
        if name.endswith("_time"):
            assert (ours.cv_results_[name] >= 0).all()
        elif name == "params" or name.startswith("param_"):
            assert list(map(str, ours.cv_results_[name])) == list(map(str, values))
        else:
            np.testing.assert_allclose(ours.cv_results_[name], values, atol, atol, err_msg=name)
    assert ours.best_params_ == theirs.best_params_
    assert ours.best_index_ == theirs.best_index_
    assert ours.n_splits_ == theirs.n_splits_


def compare(
    est: Any, grid: Any, *data: Any, together: int | None = None, alone: int = 0, **options: Any
) -> Any:
    """Search both ways, and compare results, networks and warnings."""
    theirs, expected, warned = run(GridSearchCV, est, grid, *data, **options)
    ours, fitted, kinds = run(BatchedGridSearchCV, est, grid, *data, **options)
    assert_same_results(ours, theirs)
    for a, b in zip(fitted, expected, strict=True):
        for name in ATTRIBUTES:
            assert hasattr(a, name) == hasattr(b, name), name
            if hasattr(b, name):
                assert_close(getattr(a, name), getattr(b, name), name, 1e-10)
    assert kinds == warned
    assert len(ours.one_by_one_) == alone
    if together is not None:
        assert sum(ours.together_) == together
    return ours


CASES: dict[str, tuple[Any, Any, dict[str, Any], Any]] = {
    "adam": (MLPClassifier, LABELS, {}, RATES),
    "two classes": (MLPClassifier, CLASSES == 1, {}, RATES),
    "several labels": (MLPClassifier, SEVERAL, {}, RATES),
    "several labels, early stopping": (
        MLPClassifier, SEVERAL, {"early_stopping": True, "n_iter_no_change": 2}, RATES,
    ),
    "regression": (MLPRegressor, VALUES, {}, RATES),
    "one value": (MLPRegressor, VALUES[:, 0], {"early_stopping": True, "max_iter": 40}, RATES),
    "quantile": (
        MLPRegressor, VALUES[:, 0], {"loss": "quantile"}, {"quantile": [0.1, 0.5]} | RATES,
    ),
    "poisson": (MLPRegressor, np.abs(VALUES).round(1), {"loss": "poisson"}, RATES),
    "early stopping": (
        MLPClassifier, LABELS, {"early_stopping": True, "max_iter": 60, "n_iter_no_change": 4},
        RATES,
    ),
    "tol": (MLPClassifier, LABELS, {"tol": 0.02, "n_iter_no_change": 2, "max_iter": 60}, RATES),
    "sgd": (
        MLPClassifier, LABELS, {"solver": "sgd"},
        {"momentum": [0.0, 0.9], "nesterovs_momentum": [True, False]} | RATES,
    ),
    "adaptive": (
        MLPRegressor, VALUES,
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1,
         "max_iter": 100},
        RATES,
    ),
    "invscaling": (
        MLPClassifier, LABELS, {"solver": "sgd", "learning_rate": "invscaling"},
        {"power_t": [0.5, 0.1]} | RATES,
    ),
    "betas": (
        MLPClassifier, LABELS, {},
        {"beta_1": [0.0, 0.9], "beta_2": [0.99, 0.999], "epsilon": [1e-8, 1e-2]},
    ),
    "solvers and layers": (
        MLPClassifier, LABELS, {},
        {"solver": ["adam", "sgd"], "hidden_layer_sizes": [(), (4,), (5, 3)], "activation": ["tanh",
         "relu"]},
    ),
    "batches": (
        MLPClassifier, LABELS, {},
        {"batch_size": [7, 36, "auto", 100], "shuffle": [True, False]},
    ),
    "epochs": (MLPClassifier, LABELS, {}, {"max_iter": [1, 3, 8], "n_iter_no_change": [1, 5]}),
    "seeds": (MLPClassifier, LABELS, {}, {"random_state": [0, 1, np.random.RandomState(5)]}),
    "dropout": (
        MLPClassifier, LABELS, {"hidden_layer_sizes": (5, 4)},
        {"dropout": [0.0, 0.2, 0.5]} | RATES,
    ),
    "class weights": (
        MLPClassifier, CLASSES, {},
        {"class_weight": [None, "balanced", {0: 1.0, 1: 2.0, 2: 3.0}]} | RATES,
    ),
    "a list of grids": (
        MLPClassifier, LABELS, {},
        [{"alpha": [0.1, 0.2]}, {"solver": ["sgd"], "momentum": [0.5, 0.6]}],
    ),
    "activations by layer": (
        MLPClassifier, LABELS,
        {"hidden_layer_sizes": [4, 4], "activation": ["leaky_relu", "tanh"]}, RATES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_finds_what_grid_search_finds(case: str) -> None:
    kind, y, options, grid = CASES[case]
    ours = compare(kind(**SMALL | options), grid, X, y)
    assert sum(ours.together_) >= 2 * len(ours.cv_results_["params"])


def test_shuffled_folds_and_folds_of_groups() -> None:
    est = MLPClassifier(**SMALL)
    compare(est, RATES, X, LABELS, together=18, cv=KFold(3, shuffle=True, random_state=0))
    compare(est, RATES, X, LABELS, together=18, cv=GroupKFold(3), groups=np.arange(N) % 7)
    folds = [(np.arange(10, N), np.arange(10)), (np.arange(40), np.arange(40, N))]  # two sizes
    ours = compare(est, RATES, X, LABELS, together=12, cv=folds)
    assert ours.together_ == [6, 6]


def test_a_cv_that_shuffles_anew_each_time_is_asked_once() -> None:
    """Else the networks would have been trained on other folds than they are asked for."""
    est = MLPClassifier(**SMALL)
    search, fitted, _ = run(BatchedGridSearchCV, est, RATES, X, LABELS, cv=ShuffleSplit(2))
    assert search.together_ == [12]
    assert len(fitted) == 12
    assert len({id(est._engine) for est in fitted}) == 1  # none was trained by itself


@pytest.mark.parametrize(
    "refit", ["f1_macro", False, lambda results: 2], ids=["name", "none", "function"]
)
def test_several_scores_and_refit(refit: Any) -> None:
    scoring = {"accuracy": "accuracy", "f1_macro": "f1_macro", "loss": "neg_log_loss"}
    options = {"scoring": scoring, "refit": refit, "return_train_score": True, "cv": 3}
    est = MLPClassifier(**SMALL)
    searches = []
    for kind in (GridSearchCV, BatchedGridSearchCV):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            searches.append(kind(est, RATES, **options).fit(X, LABELS))
    theirs, ours = searches
    assert "split2_train_loss" in ours.cv_results_
    assert ours.multimetric_
    assert set(ours.scorer_) == set(scoring)
    assert hasattr(ours, "best_estimator_") == hasattr(theirs, "best_estimator_") == bool(refit)
    for name in ("cv_results_", "best_index_", "best_params_"):
        assert hasattr(ours, name) == hasattr(theirs, name)
    for name, values in theirs.cv_results_.items():
        if "test" in name or "train" in name:
            np.testing.assert_allclose(ours.cv_results_[name], values, 1e-10, err_msg=name)
    if refit:
        assert ours.best_index_ == theirs.best_index_
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), 1e-10)
        np.testing.assert_array_equal(ours.classes_, theirs.classes_)
        assert ours.refit_time_ > 0


@pytest.mark.parametrize(
    "more", [{}, {"early_stopping": True}, {"class_weight": "balanced"}], ids=str
)
def test_sample_weight(more: dict[str, Any]) -> None:
    est = MLPClassifier(**SMALL | more)
    compare(est, RATES, X, LABELS, together=18, sample_weight=WEIGHT)


def test_a_batch_without_weight_fails_as_it_does_alone() -> None:
    weight = WEIGHT.copy()
    weight[:18] = 0.0  # the first fold alone has batches of others only
    est = MLPClassifier(**SMALL | {"batch_size": 4})
    ours = compare(
        est, {"alpha": [0.1, 0.2]}, X, LABELS, together=6, alone=2, sample_weight=weight,
        cv=KFold(3), refit=False,
    )  # fmt: skip
    assert set(ours.one_by_one_.values()) == {"all samples of a batch have weight 0"}


@pytest.mark.parametrize("score", [np.nan, -1.0])
def test_a_candidate_that_fails(score: float) -> None:
    grid = {"alpha": [0.1, -1.0, 0.2]}
    ours = compare(MLPClassifier(**SMALL), grid, X, LABELS, together=6, alone=1, error_score=score)
    assert list(ours.one_by_one_) == [1]
    assert "alpha" in ours.one_by_one_[1]
    assert "\n" not in ours.one_by_one_[1]
    np.testing.assert_array_equal(ours.cv_results_["mean_test_score"][1], score)


def test_a_candidate_that_fails_raises_if_asked() -> None:
    search = BatchedGridSearchCV(
        MLPClassifier(**SMALL), {"alpha": [0.1, -1.0]}, cv=3, error_score="raise"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with pytest.raises(ValueError, match="alpha"):
            search.fit(X, LABELS)
    with pytest.raises(ValueError, match="Invalid parameter 'alhpa'"):
        BatchedGridSearchCV(MLPClassifier(**SMALL), {"alhpa": [0.1, 1.0]}).fit(X, LABELS)
    with pytest.raises(ValueError, match="cv"):
        BatchedGridSearchCV(MLPClassifier(**SMALL), {"alpha": [0.1]}, cv="three").fit(X, LABELS)


def test_a_network_that_diverges_disturbs_no_other() -> None:
    grid = {"learning_rate_init": [0.02, 1e9, 0.01], "solver": ["sgd"], "momentum": [0.9]}
    est = MLPRegressor(**SMALL | {"max_iter": 100, "n_iter_no_change": 300})
    ours = compare(est, grid, X, VALUES, together=9)
    failed = np.isnan(ours.cv_results_["mean_test_score"])
    assert failed.tolist() == [False, True, False]


def test_warnings_come_as_often_and_may_be_errors() -> None:
    grid = {"max_iter": [2, 3], "tol": [0.0]}
    _, _, kinds = run(BatchedGridSearchCV, MLPClassifier(**SMALL), grid, X, LABELS)
    assert len([kind for kind, _ in kinds if kind == "ConvergenceWarning"]) == 7  # one of the refit
    search = BatchedGridSearchCV(MLPClassifier(**SMALL), grid, cv=3, error_score="raise")
    with pytest.raises(ConvergenceWarning):  # the tests run with warnings as errors
        search.fit(X, LABELS)


PIPELINES: list[tuple[Any, Any, int]] = [
    (make_pipeline(StandardScaler(), MLPClassifier(**SMALL)), {}, 18),
    (make_pipeline(StandardScaler(), PCA(3), MLPClassifier(**SMALL)), {}, 18),
    (make_pipeline("passthrough", MLPClassifier(**SMALL)), {}, 18),
    (Pipeline([("mlpclassifier", MLPClassifier(**SMALL))]), {}, 18),
    (
        Pipeline([("scaler", StandardScaler()), ("mlpclassifier", MLPClassifier(**SMALL))]),
        {"scaler": [MinMaxScaler(), StandardScaler(with_mean=False), "passthrough"]},
        54,
    ),
]


@pytest.mark.parametrize(("pipe", "more", "together"), PIPELINES)
def test_pipelines(pipe: Any, more: Any, together: int) -> None:
    grid = {f"mlpclassifier__{name}": values for name, values in RATES.items()} | more
    compare(pipe, grid, X, LABELS, together=together)


def test_weights_of_a_pipelines_last_step() -> None:
    pipe = make_pipeline(StandardScaler(), MLPClassifier(**SMALL))
    for kind in (GridSearchCV, BatchedGridSearchCV):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            search = kind(pipe, {"mlpclassifier__alpha": [0.1, 2.0]}, cv=3)
            search.fit(X, LABELS, mlpclassifier__sample_weight=WEIGHT)
        if kind is GridSearchCV:
            expected = search
    assert search.together_ == [6]
    assert_same_results(search, expected)


ALONE: list[tuple[Any, Any, Any, str]] = [
    (MLPClassifier(**SMALL, solver="lbfgs"), {"alpha": [0.1, 1.0]}, X, "solver='lbfgs' has no"),
    (MLPClassifier(**SMALL, solver=optim.Adam(0.1)), {"alpha": [0.1]}, X, "the solver is an obj"),
    (MLPClassifier(**SMALL, warm_start=True), {"alpha": [0.1]}, X, "warm_start=True"),
    (MLPClassifier(**SMALL, callbacks=print), {"alpha": [0.1]}, X, "it has callbacks"),
    (MLPClassifier(**SMALL, verbose=True), {"alpha": [0.1]}, X, "verbose prints its epochs"),
    (MLPClassifier(**SMALL), {"alpha": [0.1, 1.0]}, sparse.csr_array(X), "X is sparse"),
    (LogisticRegression(), {"C": [0.1, 1.0]}, X, "LogisticRegression is no MLPClassifier"),
    (TheirClassifier(**SMALL), {"alpha": [0.1]}, X, "MLPClassifier is no MLPClassifier or"),
]  # fmt: skip


@pytest.mark.parametrize(("est", "grid", "x", "reason"), ALONE)
def test_what_runs_one_by_one(
    est: Any, grid: Any, x: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    number = len(next(iter(grid.values())))
    ours = compare(est, grid, x, LABELS, together=0, alone=number, verbose=1)
    assert all(text.startswith(reason) for text in ours.one_by_one_.values())
    assert f"one by one: {number} candidate" in capsys.readouterr().out


def test_some_candidates_run_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    grid = [
        {"alpha": [0.1, 1.0]},
        {"solver": ["lbfgs"]},
        {"hidden_layer_sizes": [2], "alpha": [0.1]},
    ]
    ours = compare(MLPClassifier(**SMALL), grid, X, LABELS, alone=1, together=9, verbose=1)
    assert ours.one_by_one_ == {2: "solver='lbfgs' has no steps"}
    printed = capsys.readouterr().out
    assert "one by one: 1 candidate, 2: solver='lbfgs' has no steps" in printed
    assert "trained 9 networks together" in printed


def test_a_fit_param_that_only_one_fit_can_take() -> None:
    search = BatchedGridSearchCV(MLPClassifier(**SMALL), {"alpha": [0.1]}, cv=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(X, LABELS, validation_data=(X, LABELS))
    assert search.one_by_one_ == {0: "fit is given validation_data"}
    assert search.best_estimator_.validation_scores_


def test_without_a_seed_each_network_draws_its_own() -> None:
    est = MLPClassifier(**SMALL | {"random_state": None})
    ours, fitted, _ = run(BatchedGridSearchCV, est, {"alpha": [0.1, 0.1, 0.1]}, X, LABELS)
    assert ours.together_ == [9]
    assert len({est.loss_ for est in fitted}) == 9
    np.random.seed(0)
    first = run(BatchedGridSearchCV, est, {"alpha": [0.1, 0.2]}, X, LABELS)[1]
    np.random.seed(0)
    again = run(BatchedGridSearchCV, est, {"alpha": [0.1, 0.2]}, X, LABELS)[1]
    assert [a.loss_ for a in first] == [b.loss_ for b in again]


def test_metadata_that_is_routed() -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        est = MLPClassifier(**SMALL).set_fit_request(sample_weight=True)
        scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        found = []
        for kind in (GridSearchCV, BatchedGridSearchCV):
            search = kind(est, RATES, cv=GroupKFold(3), scoring=scorer)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                found.append(search.fit(X, LABELS, sample_weight=WEIGHT, groups=np.arange(N) % 5))
        assert_same_results(found[1], found[0])
        assert found[1].one_by_one_ == {}


def test_a_search_is_an_estimator() -> None:
    search = BatchedGridSearchCV(MLPClassifier(**SMALL), {"alpha": [0.1, 1.0]}, cv=3)
    assert clone(search).get_params(deep=False).keys() == search.get_params(deep=False).keys()
    assert (
        search.get_params(deep=False).keys() == GridSearchCV(None, {}).get_params(deep=False).keys()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(X, LABELS)
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
    assert again.together_ == [6]
    assert again.one_by_one_ == {}
    assert search.score(X, LABELS) == search.best_estimator_.score(X, LABELS)


def test_two_processes_are_no_use_but_harm_nothing() -> None:
    est = MLPClassifier(**SMALL, tol=0.5, n_iter_no_change=1)
    searches = [
        kind(est, {"alpha": [0.1, 5.0]}, cv=3, n_jobs=2).fit(X, LABELS)
        for kind in (GridSearchCV, BatchedGridSearchCV)
    ]
    assert_same_results(*searches)
    assert searches[1].together_ == [6]


def test_folds_that_would_take_much_memory_are_trained_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "DATA_BYTES", 2 * X.nbytes)
    ours = compare(MLPClassifier(**SMALL), RATES, X, LABELS, together=18)
    assert ours.together_ == [6, 6, 6]
    monkeypatch.undo()
    monkeypatch.setattr("xpnet.sklearn.together.DATA_BYTES", X.nbytes)
    assert compare(MLPClassifier(**SMALL), RATES, X, LABELS).together_ == [6, 6, 6]


def test_large_networks_are_trained_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpnet.sklearn.together.CACHE_BYTES", 30_000)
    ours = compare(MLPClassifier(**SMALL), RATES, X, LABELS, together=18)
    assert len(ours.together_) > 1
    assert max(ours.together_) - min(ours.together_) <= 1


def test_a_front_step_that_draws_gives_each_fit_other_data() -> None:
    pca = PCA(3, svd_solver="randomized", iterated_power=0, random_state=None)
    pipe = make_pipeline(pca, MLPClassifier(**SMALL))
    ours, _, _ = run(BatchedGridSearchCV, pipe, {"mlpclassifier__alpha": [0.1, 1.0]}, X, LABELS)
    assert set(ours.one_by_one_.values()) == {"other data at each fit"}


def test_one_candidate_on_one_fold_has_no_other_to_train_with() -> None:
    folds = [(np.arange(20, N), np.arange(20))]
    ours = compare(MLPClassifier(**SMALL), {"alpha": [1.0]}, X, LABELS, cv=folds, alone=1)
    assert ours.one_by_one_ == {0: "alone in its batch"}
    assert ours.together_ == []


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames(library: str) -> None:
    frames = pytest.importorskip(library, reason=f"{library} is not installed")
    frame = frames.DataFrame({f"x{i}": X[:, i] for i in range(X.shape[1])})
    ours = compare(MLPClassifier(**SMALL), RATES, frame, LABELS, together=18)
    assert list(ours.feature_names_in_) == list(frame.columns)
    pipe = make_pipeline(StandardScaler(), MLPClassifier(**SMALL))
    compare(pipe, {"mlpclassifier__alpha": [0.1, 1.0]}, frame, LABELS, together=6)


def test_lists() -> None:
    compare(MLPClassifier(**SMALL), RATES, X.tolist(), LABELS.tolist(), together=18)


def test_a_scorer_that_trains_gets_a_training_of_its_own() -> None:
    """What was trained beforehand is found by its data: other data are no fit of the search."""

    def scorer(est: Any, x: Any, y: Any) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return float(clone(est).fit(x, y).loss_)

    compare(MLPClassifier(**SMALL), RATES, X, LABELS, together=18, scoring=scorer)


@pytest.mark.parametrize(
    ("name", "early"), [("torch", False), ("torch", True), ("jax", True), ("strict", False)]
)
def test_on_other_backends(name: str, early: bool) -> None:
    pytest.importorskip({"strict": "array_api_strict"}.get(name, name), reason="not installed")
    more = {"dropout": 0.2} if name != "jax" else {"batch_size": 32}  # one step, soon compiled
    est = MLPClassifier(**SMALL | {"backend": name, "early_stopping": early} | more)
    # Enough of them end early for the others to go on in a smaller stack.
    grid = {"learning_rate_init": [0.1, 0.01], "max_iter": [2, 3, 8]}
    assert compare(est, grid, X, LABELS).together_ == [18]


def test_arrays_of_other_libraries(library: Library) -> None:
    if not library.float64:
        pytest.skip("this device has no float64")
    est = MLPClassifier(**SMALL)
    x = library.asarray(X)
    with sklearn.config_context(array_api_dispatch=True):
        ours, fitted, _ = run(BatchedGridSearchCV, est, RATES, x, CLASSES)
        theirs, expected, _ = run(GridSearchCV, est, RATES, x, CLASSES)
    assert_same_results(ours, theirs)
    assert ours.together_ == [18]
    for a, b in zip(fitted, expected, strict=True):
        assert type(a.coefs_[0]) is type(b.coefs_[0])
        np.testing.assert_allclose(
            library.to_numpy(a.coefs_[0]), library.to_numpy(b.coefs_[0]), 1e-9
        )


@pytest.mark.gpu
def test_on_cupy() -> None:
    usable_cupy()
    est = MLPClassifier(**SMALL | {"max_iter": 3}, device="cuda")
    ours = compare(est, {"alpha": [0.1, 1.0], "dropout": [0.0, 0.2]}, X, LABELS, together=12)
    assert ours.together_ == [6, 6]


def test_what_is_said_to_matter_not_before_the_steps_does_not() -> None:
    """Twins begin with the first one's weights and batches: each parameter must allow that."""
    other: dict[str, Any] = {
        "alpha": 0.5, "beta_1": 0.1, "beta_2": 0.1, "epsilon": 0.1, "learning_rate": "adaptive",
        "learning_rate_init": 0.5, "max_fun": 3, "max_iter": 7, "momentum": 0.1,
        "n_iter_no_change": 3, "nesterovs_momentum": False, "power_t": 0.1, "solver": "sgd",
        "tol": 0.5,
    }  # fmt: skip
    assert set(other) == NOT_BEFORE_STEPS
    first = MLPClassifier(early_stopping=True, random_state=0)
    first._begun(X, LABELS, None, None, False)
    for name, value in other.items():
        second = MLPClassifier(early_stopping=True, random_state=0).set_params(**{name: value})
        second._begun(X, LABELS, None, None, False)
        for key, left in vars(first).items():
            if key not in second.get_params() and key not in ("_random_state", "_label_binarizer"):
                assert str(left) == str(vars(second)[key]), (name, key)
        drawn = [est._random_state.random() for est in (first, second)]
        first._random_state = second._random_state
        assert drawn[0] == drawn[1] or name != "alpha"
