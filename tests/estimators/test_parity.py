"""The same numbers as scikit-learn's classes, with the same random_state."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from conftest import Library

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from scipy import sparse
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor

from xpnet.sklearn import MLPClassifier, MLPRegressor
from xpnet.sklearn.arrays import to_host

EPOCHS = 25
N = 53  # no batch size below divides it
RNG = np.random.default_rng(0)
X, CLASSES = make_classification(N, 6, n_informative=4, n_classes=3, random_state=0)
_, VALUES = make_regression(N, 6, n_targets=2, random_state=0)
VALUES /= 100
DATA: dict[str, tuple[Any, Any]] = {
    "multiclass": (X, CLASSES),
    "binary": (X, np.array(["no", "yes"])[(CLASSES == 1).astype(int)]),
    "regression": (X, VALUES),
}
MULTILABEL = (X, np.stack([CLASSES == 0, CLASSES > 0, X[:, 0] > 0], axis=1).astype(int))
WEIGHT = RNG.integers(0, 3, N).astype(float)
WEIGHT[:20] += 1.0

SOLVERS: dict[str, dict[str, Any]] = {
    "adam": {"learning_rate_init": 0.01},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.02},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.2},
    "adaptive": {
        "solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.1, "tol": 0.05,
        "n_iter_no_change": 1,
    },
    "not nesterov": {"solver": "sgd", "learning_rate_init": 0.02, "nesterovs_momentum": False},
    "no momentum": {"solver": "sgd", "learning_rate_init": 0.02, "momentum": 0.0},
    "momentum 1": {"solver": "sgd", "learning_rate_init": 0.001, "momentum": 1.0},
    "lbfgs": {"solver": "lbfgs"},
}  # fmt: skip
ATTRIBUTES = (
    "n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "classes_", "n_features_in_",
    "loss_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "coefs_",
    "intercepts_",
)  # fmt: skip


def classes_for(y: Any) -> tuple[type[Any], type[Any]]:
    if y.dtype.kind == "f":
        return MLPRegressor, TheirRegressor
    return MLPClassifier, TheirClassifier


def pair(y: Any, **options: Any) -> list[Any]:
    given = {"hidden_layer_sizes": (7,), "batch_size": 20, "max_iter": EPOCHS, "random_state": 3}
    return [kind(**given | options) for kind in classes_for(y)]


def fit(estimator: Any, *data: Any, **more: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(*data, **more)


def assert_same(ours: Any, theirs: Any, x: Any, y: Any, rtol: float = 1e-12) -> None:
    """Compare all that a fit leaves, and what the estimators answer."""

    def close(mine: Any, other: Any, name: str) -> None:
        if other is None or np.asarray(other).dtype.kind not in "fc":
            np.testing.assert_array_equal(mine, other, err_msg=name)
        else:
            mine, other = to_host(mine), np.asarray(other)
            assert mine is not None, name
            scale = max(np.abs(other[np.isfinite(other)]).max(initial=0.0), 1e-300)
            np.testing.assert_allclose(mine, other, rtol, rtol * scale, err_msg=name)

    for name in ATTRIBUTES:
        assert hasattr(ours, name) == hasattr(theirs, name), name
        mine, other = getattr(ours, name, None), getattr(theirs, name, None)
        if name in ("coefs_", "intercepts_"):
            for a, b in zip(mine, other, strict=True):
                assert str(a.dtype) == str(b.dtype), name
                close(a, b, name)
        else:
            close(mine, other, name)
    if hasattr(theirs, "predict_proba"):
        # Small ones have fewer digits in theirs: it subtracts probabilities from 1.
        likely = theirs.predict_proba(x) > 0.01
        with np.errstate(divide="ignore"):
            mine, other = ours.predict_log_proba(x), theirs.predict_log_proba(x)
        close(mine[likely], other[likely], "predict_log_proba")
    for method in ("predict", "predict_proba"):
        if hasattr(theirs, method):
            mine, other = getattr(ours, method)(x), getattr(theirs, method)(x)
            assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
            close(mine, other, method)
    close(ours.score(x, y), theirs.score(x, y), "score")


def tolerance(solver: str) -> float:
    return 1e-6 if solver == "lbfgs" else 1e-11


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weights"])
@pytest.mark.parametrize("early", [False, True], ids=["", "early stopping"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_fit(solver: str, early: bool, weighted: bool, data: str) -> None:
    x, y = DATA[data]
    more = {"sample_weight": WEIGHT} if weighted else {}
    ours, theirs = (fit(e, x, y, **more) for e in pair(y, early_stopping=early, **SOLVERS[solver]))
    if solver != "lbfgs":
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, 1e-12)
        assert len(ours.loss_curve_) > 2
    assert_same(ours, theirs, x, y, tolerance(solver))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_warm_start(solver: str, data: str) -> None:
    x, y = DATA[data]
    ours, theirs = pair(y, warm_start=True, **SOLVERS[solver] | {"max_iter": 8})
    for _ in range(3):
        fit(ours, x, y)
        fit(theirs, x, y)
        assert_same(ours, theirs, x, y, tolerance(solver))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "lbfgs"])
def test_partial_fit(solver: str, data: str) -> None:
    x, y = DATA[data]
    ours, theirs = pair(y, **SOLVERS[solver])
    more = {"classes": np.unique(y)} if hasattr(theirs, "predict_proba") else {}
    for part in (slice(0, 30), slice(20, N), slice(5, 27)):
        for estimator in (ours, theirs):
            estimator.partial_fit(x[part], y[part], sample_weight=WEIGHT[part] + 0.5, **more)
        assert_same(ours, theirs, x, y)


CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "multilabel": (*MULTILABEL, {}),
    "multilabel early stopping": (*MULTILABEL, {"early_stopping": True}),
    "multilabel lbfgs": (*MULTILABEL, {"solver": "lbfgs"}),
    "csr": (sparse.csr_matrix(np.where(X > 0, X, 0)), CLASSES, {}),
    "csc": (sparse.csc_matrix(np.where(X > 0, X, 0)), CLASSES, {}),
    "csr array": (sparse.csr_array(np.where(X > 0, X, 0)), VALUES, {"solver": "lbfgs"}),
    "sparse early stopping": (sparse.csr_matrix(X), CLASSES, {"early_stopping": True}),
    "not shuffled": (X, CLASSES, {"shuffle": False}),
    "one batch": (X, CLASSES, {"batch_size": "auto"}),
    "batches of one": (X, CLASSES, {"batch_size": 1, "max_iter": 5}),
    "no hidden layer": (X, CLASSES, {"hidden_layer_sizes": ()}),
    "two hidden layers": (X, VALUES, {"hidden_layer_sizes": (7, 5)}),
    "logistic": (X, CLASSES, {"activation": "logistic", "hidden_layer_sizes": (7, 5)}),
    "tanh": (X, CLASSES, {"activation": "tanh", "hidden_layer_sizes": (7, 5)}),
    "identity": (X, VALUES, {"activation": "identity"}),
    "poisson": (X, np.abs(VALUES).round(1), {"loss": "poisson"}),
    "poisson lbfgs": (X, np.abs(VALUES[:, 0]), {"loss": "poisson", "solver": "lbfgs"}),
    "one column": (X, VALUES[:, 0], {"early_stopping": True}),
    "saturated": (100 * X, CLASSES, {"alpha": 1.0}),
    "saturated binary": (100 * X, DATA["binary"][1], {"solver": "sgd", "learning_rate_init": 0.1}),
    "saturated multilabel": (100 * X, MULTILABEL[1], {}),
    "no tolerance": (X, CLASSES, {"n_iter_no_change": np.inf}),
    "one class": (X, np.zeros(N, int), {}),
    "a random state": (X, CLASSES, {"random_state": np.random.RandomState(1).randint(100)}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weights"])
def test_a_case(case: str, weighted: bool) -> None:
    x, y, options = CASES[case]
    weight = WEIGHT + 1.0 if weighted else None
    ours, theirs = (fit(e, x, y, sample_weight=weight) for e in pair(y, **options))
    assert_same(ours, theirs, x, y, tolerance(options.get("solver", "")))


@pytest.mark.parametrize("case", ["multilabel", "csr", "two hidden layers", "poisson", "saturated"])
def test_float32(case: str) -> None:
    x, y, options = CASES[case]
    ours, theirs = (fit(e, x.astype(np.float32), y) for e in pair(y, **options))
    assert ours.coefs_[0].dtype == np.float32
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, 1e-4)
    assert_same(ours, theirs, x.astype(np.float32), y, 1e-3)


@pytest.mark.parametrize(
    ("solver", "data"), [("adam", "multiclass"), ("adaptive", "regression"), ("lbfgs", "binary")]
)
def test_on_other_libraries(solver: str, data: str, backend: Any) -> None:
    x, y = DATA[data]
    options = SOLVERS[solver] | {"max_iter": 8}
    ours, theirs = pair(y, **options)
    ours.set_params(backend=backend.library, device=backend.device)
    fit(theirs, x, y, sample_weight=WEIGHT)
    fit(ours, x, y, sample_weight=WEIGHT)
    assert_same(ours, theirs, x, y, 1e-6 if solver == "lbfgs" else 1e-10)


def test_arrays_of_other_libraries(library: Library) -> None:
    if not library.float64:
        pytest.skip("this device has no float64")
    x, y = DATA["multiclass"]
    ours, theirs = pair(y, early_stopping=True)
    fit(theirs, x, y, sample_weight=WEIGHT)
    fit(ours, library.asarray(x), library.asarray(y), sample_weight=library.asarray(WEIGHT))
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, 1e-11)
    np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_)


@pytest.mark.parametrize("data", DATA)
def test_a_loss_that_diverges(data: str) -> None:
    x, y = DATA[data]
    options = {"solver": "sgd", "learning_rate_init": 1e6, "max_iter": 20, "batch_size": 20}
    answers = []
    for estimator in pair(y, **options):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                estimator.fit(x, y)
                answers.append("fitted")
            except ValueError as error:
                answers.append(str(error))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}, SOLVERS["adaptive"]], ids=str)
def test_verbose_prints_the_same_lines(
    options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for estimator in pair(CLASSES, **options, verbose=True):
        fit(estimator, X, CLASSES)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "Iteration 1, loss = " in printed[0]
