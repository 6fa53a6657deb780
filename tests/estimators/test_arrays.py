"""Arrays in and out, callbacks, pickles, and what a user may do wrong."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Library

import xpnet

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from array_api_compat import array_namespace
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import QuantileRegressor
from sklearn.metrics import mean_pinball_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from xpnet.errors import DeviceError
from xpnet.sklearn import MLPClassifier, MLPRegressor
from xpnet.sklearn.arrays import to_host

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 4))
Y = (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 1)
V = np.stack([X[:, 0] - X[:, 1], np.sin(X[:, 2])], axis=1)
WEIGHT = RNG.uniform(0.5, 2.0, 40)
SMALL: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 8, "random_state": 0}


def kinds() -> list[tuple[Any, np.ndarray]]:
    return [(MLPClassifier, Y), (MLPRegressor, V), (MLPRegressor, V[:, 0])]


# -- X decides ---------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "y"), kinds(), ids=["classes", "two values", "one value"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_are_where_x_is(library: Library, kind: Any, y: Any, dtype: str) -> None:
    if dtype == "float64" and not library.float64:
        pytest.skip("this device has no float64")
    x = library.asarray(X.astype(dtype))
    fitted = kind(**SMALL).fit(x, y)
    expected = kind(**SMALL).fit(X.astype(dtype), y)
    results = [*fitted.coefs_, *fitted.intercepts_, fitted.predict(x)]
    if kind is MLPClassifier:
        results += [fitted.predict_proba(x), fitted.predict_log_proba(x)]
    for array in results:
        assert array_namespace(array) is array_namespace(x)
        assert library.device is None or array.device == library.device
    for a, b in zip(fitted.coefs_, expected.coefs_, strict=True):
        assert str(a.dtype).endswith(dtype)
        np.testing.assert_allclose(
            library.to_numpy(a), b, rtol=1e-9 if dtype == "float64" else 1e-4, atol=1e-6
        )
    found = library.to_numpy(fitted.predict(x))
    np.testing.assert_allclose(found, expected.predict(X.astype(dtype)), rtol=1e-3, atol=1e-5)
    assert fitted.score(x, library.asarray(y.astype(dtype))) == pytest.approx(
        expected.score(X.astype(dtype), y), rel=1e-4
    )


@pytest.mark.parametrize(("kind", "y"), kinds()[:2], ids=["classes", "values"])
def test_tensors_never_visit_the_host(kind: Any, y: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, visited = torch.from_numpy(X), []
    for module in ("arrays", "perceptron", "estimators"):
        monkeypatch.setattr(
            f"xpnet.sklearn.{module}.to_host",
            lambda a: visited.append(getattr(a, "shape", ())) or to_host(a),
        )
    fitted = kind(**SMALL).fit(x, y)
    fitted.predict(x)
    assert x.shape not in visited
    assert all(torch.is_tensor(a) for a in fitted.coefs_ + fitted.intercepts_)


def test_libraries_do_not_mix() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = torch.from_numpy(X)
    for fitted, other, name in (
        (MLPClassifier(**SMALL).fit(x, Y), X, "torch on cpu"),
        (MLPClassifier(**SMALL).fit(X, Y), x, "numpy on cpu"),
    ):
        for method in ("predict", "predict_proba", "predict_log_proba"):
            with pytest.raises(ValueError, match="must use the same namespace") as error:
                getattr(fitted, method)(other)
            assert f"MLPClassifier.{method}()" in str(error.value)
            assert str(error.value).endswith(f"expected {name}.")
        assert fitted.fit(other, Y).predict(other).shape == (40,)  # a new fit may


def test_targets_and_weights_of_another_library(library: Library) -> None:
    expected = MLPClassifier(**SMALL).fit(X, Y, WEIGHT)
    y, weight = library.asarray(Y), library.asarray(WEIGHT.astype("float32"))
    fitted = MLPClassifier(**SMALL).fit(X, y, weight)
    np.testing.assert_allclose(fitted.loss_curve_, expected.loss_curve_, rtol=1e-6)
    assert isinstance(fitted.predict(X), np.ndarray)
    assert fitted.score(X, y, weight) == pytest.approx(expected.score(X, Y, WEIGHT), rel=1e-6)


@pytest.mark.parametrize(
    "labels",
    [np.array(["no", "yes", "maybe"]), np.array([-5, 2, 70]), np.array([False, True])],
    ids=str,
)
def test_labels_come_back(labels: np.ndarray) -> None:
    y = labels[Y % len(labels)]
    ours, theirs = (
        k(**SMALL | {"max_iter": 60}).fit(X, y) for k in (MLPClassifier, TheirClassifier)
    )
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    assert ours.predict(X).dtype == theirs.predict(X).dtype == labels.dtype


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_data_frames(name: str) -> None:
    frames = pytest.importorskip(name, reason=f"{name} is not installed")
    names = ["age", "size", "height", "weight"]
    frame = frames.DataFrame(dict(zip(names, X.T, strict=True)))
    fitted = MLPClassifier(**SMALL).fit(frame, frames.Series(Y), frames.Series(WEIGHT))
    assert fitted.feature_names_in_.tolist() == names
    expected = MLPClassifier(**SMALL).fit(X, Y, WEIGHT)
    np.testing.assert_array_equal(fitted.predict_proba(frame), expected.predict_proba(X))
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(frame[names[::-1]])


# -- scikit-learn's tools ------------------------------------------------------------------


def test_pipeline_and_grid_search() -> None:
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**SMALL))
    found = GridSearchCV(pipeline, {"mlpclassifier__alpha": [1e-4, 1.0]}, n_jobs=2, cv=2).fit(X, Y)
    theirs = make_pipeline(StandardScaler(), TheirClassifier(**SMALL))
    expected = GridSearchCV(theirs, {"mlpclassifier__alpha": [1e-4, 1.0]}, cv=2).fit(X, Y)
    scores = "mean_test_score"
    np.testing.assert_allclose(found.cv_results_[scores], expected.cv_results_[scores])
    np.testing.assert_allclose(
        cross_val_score(MLPRegressor(**SMALL), X, V, cv=3),
        cross_val_score(TheirRegressor(**SMALL), X, V, cv=3),
    )


def by_joblib(estimator: Any, folder: Path) -> Any:
    joblib = importlib.import_module("joblib")
    joblib.dump(estimator, folder / "model.joblib")
    return joblib.load(folder / "model.joblib")


COPIES = {
    "pickle": lambda e, folder: pickle.loads(pickle.dumps(e)),
    "deepcopy": lambda e, folder: copy.deepcopy(e),
    "joblib": by_joblib,
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_answer_and_go_on_alike(library: Library, way: str, tmp_path: Path) -> None:
    x = library.asarray(X.astype("float32"))
    fitted = MLPClassifier(**SMALL).fit(x, Y).partial_fit(x, Y)
    copied = COPIES[way](fitted, tmp_path)
    assert array_namespace(copied.coefs_[0]) is array_namespace(x)
    np.testing.assert_array_equal(*(library.to_numpy(e.predict_proba(x)) for e in (copied, fitted)))
    for estimator in (copied, fitted):
        estimator.partial_fit(x, Y)
    np.testing.assert_array_equal(*(library.to_numpy(e.coefs_[0]) for e in (copied, fitted)))
    with pytest.raises(NotFittedError):
        clone(fitted).predict(x)


def test_a_pickle_opens_where_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = torch.from_numpy(X)
    fitted = MLPClassifier(**SMALL).fit(x, Y)
    stored = pickle.dumps(fitted)

    def without_torch(device: str, library: str, *others: Any, **more: Any) -> Any:
        if library == "torch":
            raise DeviceError("torch is not installed: pip install torch")
        return xpnet.select(device, library, *others, **more)

    monkeypatch.setattr("xpnet.sklearn.perceptron.select", without_torch)
    with pytest.warns(RuntimeWarning, match="torch is not installed"):
        opened = pickle.loads(stored)
    np.testing.assert_allclose(opened.predict_proba(X), fitted.predict_proba(x).numpy(), rtol=1e-12)


# -- During a fit --------------------------------------------------------------------------


@pytest.fixture(params=["numpy", "torch", "jax"])
def ours(request: pytest.FixtureRequest) -> Library:
    from conftest import open_library

    return open_library(request.param)


def test_ctrl_c_keeps_a_model(ours: Library) -> None:
    def stop(estimator: Any, epoch: Any) -> None:
        if epoch.epoch == 3:
            os.kill(os.getpid(), signal.SIGINT)

    x = ours.asarray(X)
    estimator = MLPClassifier(**SMALL | {"max_iter": 50}, callbacks=stop)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        estimator.fit(x, Y)
    assert estimator.n_iter_ == 3
    expected = MLPClassifier(**SMALL | {"max_iter": 3}).fit(x, Y)
    np.testing.assert_array_equal(*(ours.to_numpy(e.coefs_[0]) for e in (estimator, expected)))


def test_a_callback_that_raises_leaves_a_model(ours: Library) -> None:
    def fail(estimator: Any, epoch: Any) -> None:
        if epoch.epoch == 3:
            raise RuntimeError("disk full")

    x = ours.asarray(X)
    estimator = MLPRegressor(**SMALL, callbacks=[fail])
    with pytest.raises(RuntimeError, match="disk full"):
        estimator.fit(x, V)
    expected = MLPRegressor(**SMALL | {"max_iter": 3}).fit(x, V)
    np.testing.assert_array_equal(*(ours.to_numpy(e.predict(x)) for e in (estimator, expected)))


def test_callbacks_see_each_epoch_and_may_stop() -> None:
    seen: list[Any] = []

    def watch(estimator: Any, epoch: Any) -> bool:
        seen.append((epoch.epoch, epoch.train_loss, estimator.predict(X).shape))
        return epoch.epoch == 4

    fitted = MLPClassifier(**SMALL, callbacks=[watch, lambda *_: None]).fit(X, Y)
    assert seen == [(i, loss, (40,)) for i, loss in enumerate(fitted.loss_curve_, 1)]
    assert fitted.n_iter_ == 4


def test_verbose_bar(capsys: pytest.CaptureFixture[str]) -> None:
    MLPClassifier(**SMALL, verbose="bar").fit(X, Y)
    printed = capsys.readouterr()
    assert "0/8" in printed.err  # and perhaps more: it writes ten times a second
    assert not printed.out


def test_validation_data_are_scored() -> None:
    held = X[:15], Y[:15]
    fitted = MLPClassifier(**SMALL).fit(X[15:], Y[15:], validation_data=held)
    plain = MLPClassifier(**SMALL).fit(X[15:], Y[15:])
    assert fitted.loss_curve_ == plain.loss_curve_
    assert len(fitted.validation_scores_) == 8
    assert fitted.validation_scores_[-1] == fitted.score(*held)
    early = MLPClassifier(**SMALL | {"max_iter": 200}, early_stopping=True, n_iter_no_change=3)
    early.fit(X[15:], Y[15:], validation_data=held)
    assert early.n_iter_ < 200
    assert early.score(*held) == early.best_validation_score_ == max(early.validation_scores_)


# -- Beyond scikit-learn -------------------------------------------------------------------


def test_dropout_is_reproducible_and_off_in_predictions() -> None:
    a, b = (MLPClassifier(**SMALL, dropout=0.5).fit(X, Y) for _ in range(2))
    assert a.loss_curve_ == b.loss_curve_
    assert a.loss_curve_ != MLPClassifier(**SMALL).fit(X, Y).loss_curve_
    other = MLPClassifier(**SMALL | {"random_state": 1}, dropout=0.5).fit(X, Y)
    assert a.loss_curve_ != other.loss_curve_
    np.testing.assert_array_equal(a.predict_proba(X), a.predict_proba(X))


def test_an_optimizer_with_a_schedule_against_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rate = xpnet.optim.cosine(0.05, 10)
    rule = xpnet.optim.AdamW(rate, weight_decay=0.1)
    options: dict[str, Any] = {"hidden_layer_sizes": (), "alpha": 0.0, "random_state": 0}
    fitted = MLPRegressor(solver=rule, max_iter=10, **options).fit(X, V[:, 0])
    start = TheirRegressor(max_iter=1, learning_rate_init=1e-300, **options).fit(X, V[:, 0])
    w, b = (torch.tensor(a[0], requires_grad=True) for a in (start.coefs_, start.intercepts_))
    groups = [{"params": [w], "weight_decay": 0.1}, {"params": [b], "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(groups, lr=0.05)
    x, y = torch.tensor(X), torch.tensor(V[:, :1])
    for step, expected in enumerate(fitted.loss_curve_):
        loss = 0.5 * ((x @ w + b - y) ** 2).mean()
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-9)
        for group in theirs.param_groups:
            group["lr"] = float(rate(np.array(float(step))))
        theirs.zero_grad()
        loss.backward()
        theirs.step()


@pytest.mark.parametrize("class_weight", ["balanced", {0: 3.0, 2: 0.5}], ids=str)
def test_class_weights_are_sample_weights(class_weight: Any) -> None:
    ours = MLPClassifier(**SMALL, class_weight=class_weight).fit(X, Y)
    each = compute_sample_weight(class_weight, Y)
    theirs = TheirClassifier(**SMALL).fit(X, Y, sample_weight=each)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-12)


def test_class_weights_of_several_labels() -> None:
    labels = np.stack([Y == 0, Y == 1, X[:, 3] > 0], axis=1).astype(int)
    ours = MLPClassifier(**SMALL, class_weight="balanced").fit(X, labels)
    each = compute_sample_weight("balanced", labels)
    theirs = TheirClassifier(**SMALL).fit(X, labels, sample_weight=each)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-12)
    with pytest.raises(ValueError, match="several labels; expected 'balanced'"):
        MLPClassifier(class_weight={0: 2.0}).fit(X, labels)


def torch_loss(name: str, y: Any, t: Any) -> Any:
    torch = importlib.import_module("torch")
    if name == "absolute_error":
        return (y - t).abs().sum(1).mean()
    if name == "huber":
        return torch.nn.functional.huber_loss(y, t, reduction="none").sum(1).mean()
    return torch.maximum(0.8 * (t - y), 0.2 * (y - t)).sum(1).mean()


@pytest.mark.parametrize("loss", ["absolute_error", "huber", "quantile"])
def test_a_loss_against_autograd(loss: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    options = {"hidden_layer_sizes": (), "alpha": 0.0, "random_state": 0, "max_iter": 6}
    fitted = MLPRegressor(loss, solver=xpnet.optim.SGD(0.3), quantile=0.8, **options).fit(X, V)
    start = TheirRegressor(**options | {"max_iter": 1}, learning_rate_init=1e-300).fit(X, V)
    w, b = (torch.tensor(a[0], requires_grad=True) for a in (start.coefs_, start.intercepts_))
    for found in fitted.loss_curve_:
        value = torch_loss(loss, torch.tensor(X) @ w + b, torch.tensor(V))
        assert float(value.detach()) == pytest.approx(found, rel=1e-9)
        grads = torch.autograd.grad(value, (w, b))
        with torch.no_grad():
            w -= 0.3 * grads[0]
            b -= 0.3 * grads[1]


@pytest.mark.parametrize(
    ("options", "linear"),
    [
        ({"loss": "absolute_error"}, QuantileRegressor(quantile=0.5, alpha=0.0)),
        ({"loss": "quantile", "quantile": 0.8}, QuantileRegressor(quantile=0.8, alpha=0.0)),
    ],
    ids=["absolute_error", "quantile"],
)
def test_a_loss_against_a_linear_model(options: dict[str, Any], linear: Any) -> None:
    y = X @ [1.0, -2.0, 0.5, 0.0] + RNG.standard_t(2, 40)
    rule = xpnet.optim.SGD(xpnet.optim.cosine(0.1, 1500))
    fitted = MLPRegressor(
        hidden_layer_sizes=(), solver=rule, alpha=0.0, max_iter=1500, tol=0.0,
        n_iter_no_change=np.inf, random_state=0, **options,
    ).fit(X, y)  # fmt: skip
    found, best = (
        mean_pinball_loss(y, e.predict(X), alpha=linear.quantile)
        for e in (fitted, linear.fit(X, y))
    )
    assert best <= found <= 1.01 * best


# -- Wrong input -----------------------------------------------------------------------------


def message(call: Any) -> str:
    with pytest.raises(Exception, match=r".") as error:
        call()
    return f"{type(error.value).__name__}: {error.value}"


SPARSE_NAN = sparse.csr_matrix(np.where(X > 1.5, np.nan, X))
WRONG: dict[str, Any] = {
    "NaN": lambda e: e.fit(np.where(X > 1.5, np.nan, X), Y),
    "infinity": lambda e: e.fit(np.where(X > 1.5, np.inf, X), Y),
    "sparse NaN": lambda e: e.fit(SPARSE_NAN, Y),
    "y too short": lambda e: e.fit(X, Y[:-1]),
    "y None": lambda e: e.fit(X, None),
    "y NaN": lambda e: e.fit(X, np.where(Y > 0, np.nan, 1.0)),
    "1-d": lambda e: e.fit(X[:, 0], Y),
    "3-d": lambda e: e.fit(X[:, :, None], Y),
    "empty": lambda e: e.fit(X[:0], Y[:0]),
    "no features": lambda e: e.fit(X[:, :0], Y),
    "strings": lambda e: e.fit([["a", "b"]] * 40, Y),
    "complex": lambda e: e.fit(X + 1j, Y),
    "matrix": lambda e: e.fit(np.matrix(X), Y),
    "too large": lambda e: e.fit(X * 1e308, Y),
    "weights too short": lambda e: e.fit(X, Y, np.ones(3)),
    "weights of two columns": lambda e: e.fit(X, Y, np.ones((40, 2))),
    "weights zero": lambda e: e.fit(X, Y, np.zeros(40)),
    "weights NaN": lambda e: e.fit(X, Y, np.full(40, np.nan)),
    "solver": lambda e: e.set_params(learning_rate="none").fit(X, Y),
    "batch size 0": lambda e: e.set_params(batch_size=0).fit(X, Y),
    "no units": lambda e: e.set_params(hidden_layer_sizes=(3, 0)).fit(X, Y),
    "validation too small": lambda e: e.set_params(
        early_stopping=True, validation_fraction=0.01
    ).fit(X, Y),
    "other columns": lambda e: e.fit(X, Y).predict(X[:, :2]),
    "1 sample 1-d": lambda e: e.fit(X, Y).predict(X[0]),
    "predict NaN": lambda e: e.fit(X, Y).predict(X * np.nan),
    "predict nothing": lambda e: e.fit(X, Y).predict(X[:0]),
    "not fitted": lambda e: e.predict(X),
    "warm start, other columns": lambda e: e.set_params(warm_start=True).fit(X, Y).fit(X[:, :2], Y),
    "early stopping by parts": lambda e: e.set_params(early_stopping=True).partial_fit(
        X, Y, **({"classes": [0, 1, 2]} if hasattr(e, "predict_proba") else {})
    ),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(MLPClassifier, TheirClassifier), (MLPRegressor, TheirRegressor)],
    ids=["classifier", "regressor"],
)
def test_scikit_learns_words(ours: Any, theirs: Any, case: str) -> None:
    assert message(lambda: WRONG[case](ours(**SMALL))) == message(
        lambda: WRONG[case](theirs(**SMALL))
    )


@pytest.mark.parametrize("case", ["NaN", "infinity", "3-d", "empty", "no features", "y too short"])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_the_same_words_for_other_libraries(kind: Any, case: str, library: Library) -> None:
    x, y = {
        "NaN": (np.where(X > 1.5, np.nan, X), Y),
        "infinity": (np.where(X > 1.5, np.inf, X), Y),
        "3-d": (X[:, :, None], Y),
        "empty": (X[:0], Y[:0]),
        "no features": (X[:, :0], Y),
        "y too short": (X, Y[:-1]),
    }[case]
    x = x.astype("float32")
    expected = message(lambda: kind(**SMALL).fit(x, y))
    assert message(lambda: kind(**SMALL).fit(library.asarray(x), y)) == expected


def tensors(change: Any) -> Any:
    def fit(estimator: Any) -> Any:
        torch = pytest.importorskip("torch", reason="torch is not installed")
        return estimator.fit(change(torch.from_numpy(X)), Y)

    return fit


def under_jit(estimator: Any) -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    x = jax.numpy.asarray(X)
    jax.jit(estimator.fit(x, Y).predict)(x)


def option(**given: Any) -> Any:
    return lambda e: e.set_params(**given).fit(X, Y)


OURS: list[tuple[Any, str]] = [
    (tensors(lambda x: x.to_sparse()), "layout torch.sparse_coo on cpu; expected a dense one"),
    (tensors(lambda x: x.to("meta")), "layout torch.strided on meta; expected a dense one"),
    (under_jit, "got a JAX array that is traced.*; expected one on one device"),
    (option(device="tpu"), "device 'tpu': expected cpu, cuda"),
    (option(dtype="float16"), "'dtype' parameter of MLPClassifier must be"),
    (option(precision="half"), "precision 'half': expected one of"),
    (option(backend="numpy", device="cuda"), "numpy runs on the CPU only: use device cpu"),
    (option(activation=["relu", "relu"]), "activation is .*; expected one name, or 1"),
    (option(callbacks=[3]), "a callback is 3; expected a function"),
    (option(solver=xpnet.optim.Adam), "solver is the class Adam; expected an optimizer"),
    (option(solver="lbfgs", dropout=0.5), "solver='lbfgs' has no dropout: leave it out"),
    (option(class_weight={7: 1.0}), "class weights: got one for 7"),
    (lambda e: e.fit(X, Y, validation_data=X), "validation_data: expected a pair"),
    (lambda e: MLPRegressor().fit(X, sparse.csr_matrix(V)), "y: got a sparse matrix; expected"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "words"), OURS, ids=[words for _, words in OURS])
def test_our_words(wrong: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        wrong(MLPClassifier(**SMALL))
    assert len(str(error.value).splitlines()) == 1


def test_layers_beyond_the_memory() -> None:
    with pytest.raises(MemoryError, match="layers of 4, 1000000000"):
        MLPClassifier((10**9, 10**9)).fit(X, Y)


ACCEPTED: dict[str, Any] = {
    "Fortran order": np.asfortranarray(X),
    "every second column": np.repeat(X, 2, axis=1)[:, ::2],
    "big endian": X.astype(">f8"),
    "objects": X.astype(object),
    "long double": X.astype(np.longdouble),
    "lists": X.tolist(),
    "nothing masked": np.ma.masked_array(X),
    "coo": sparse.coo_array(X),
}


@pytest.mark.parametrize("form", ACCEPTED)
def test_all_forms_of_the_same_numbers(form: str) -> None:
    expected = MLPClassifier(**SMALL).fit(X, Y)
    fitted = MLPClassifier(**SMALL).fit(ACCEPTED[form], Y)
    np.testing.assert_allclose(fitted.loss_curve_, expected.loss_curve_, rtol=1e-12)


def test_tensors_of_all_kinds() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = torch.from_numpy(X)
    for given in (x.clone().requires_grad_(), torch.from_numpy(X.T.copy()).T, x.bfloat16()):
        before = given.detach().clone()
        fitted = MLPRegressor(**SMALL).fit(given, V)
        expected = MLPRegressor(**SMALL).fit(before.double().numpy(), V)
        np.testing.assert_allclose(fitted.loss_curve_, expected.loss_curve_, rtol=1e-10)
        assert not fitted.predict(given).requires_grad
        assert torch.equal(given.detach(), before)
    weight = torch.ones(40).bfloat16()  # NumPy has no such type
    fitted = MLPClassifier(**SMALL).fit(x, torch.from_numpy(Y).bfloat16(), weight)
    expected = MLPClassifier(**SMALL).fit(X, Y)
    np.testing.assert_allclose(fitted.loss_curve_, expected.loss_curve_, rtol=1e-10)


def test_validation_targets_that_do_not_fit_are_refused_at_once() -> None:
    x = np.random.default_rng(0).random((20, 3))
    with pytest.raises(ValueError, match="y has 3 outputs, but the training data has 1"):
        MLPRegressor().fit(x, x[:, 0], validation_data=(x, x))
    with pytest.raises(ValueError, match="classes that the training data lacks"):
        MLPClassifier().fit(x, np.arange(20) % 2, validation_data=(x, np.arange(20) % 4))
