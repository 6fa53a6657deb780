"""onnxruntime gives the answers of the estimators that skl2onnx converts."""

from __future__ import annotations

import doctest
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import onnx  # noqa: E402
from scipy import sparse  # noqa: E402
from skl2onnx import to_onnx  # noqa: E402
from skl2onnx.common import data_types  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.multiclass import OneVsRestClassifier  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from xpnet.errors import UsageError  # noqa: E402
from xpnet.losses import SquaredLoss  # noqa: E402
from xpnet.sklearn import MLPClassifier, MLPRegressor  # noqa: E402
from xpnet.sklearn.onnx import register  # noqa: E402

# A few epochs are enough: the comparison needs no good fit.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 5))
CENTRE = (X[:, 0] > -0.5).astype(int) + (X[:, 1] > 0.5)  # 0, 1 or 2
ARRAYS = {"zipmap": False}
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-12}
LABELS = {
    "three numbers": 7 * CENTRE - 3,
    "three words": np.array(["no", "yes", "peut-être"])[CENTRE],
    "three objects": np.array(["no", "yes", "peut-être"], object)[CENTRE],
    "three bytes": CENTRE.astype(np.uint8),
    "three floats": CENTRE.astype(float),
    "two numbers": 2 * (CENTRE > 0) + 2**40,
    "two words": np.array(["no", "yes"])[(CENTRE > 0).astype(int)],
    "two truths": CENTRE > 0,
    "two labels a sample": np.stack([CENTRE > 0, X[:, 2] > 0], 1).astype(int),
    "three labels a sample": np.stack([CENTRE > 0, CENTRE > 1, X[:, 2] > 0], 1).astype(int),
}


@pytest.fixture(autouse=True)
def registered() -> None:
    register()


def classifier(**settings: Any) -> MLPClassifier:
    return MLPClassifier(**{"hidden_layer_sizes": 8, "max_iter": 5, "random_state": 0} | settings)


def regressor(**settings: Any) -> MLPRegressor:
    return MLPRegressor(**{"hidden_layer_sizes": 8, "max_iter": 5, "random_state": 0} | settings)


def run(model: Any, x: np.ndarray) -> list[Any]:
    """Check the model against ONNX's rules; return its outputs, with the shapes it declares."""
    onnx.checker.check_model(model, full_check=True)
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    outputs = session.run(None, {"X": x})
    for output, declared in zip(outputs, session.get_outputs(), strict=True):
        if isinstance(output, np.ndarray):
            assert [None, *output.shape[1:]] == declared.shape
    return outputs


def assert_same_answers(estimator: Any, x: np.ndarray, **settings: Any) -> None:
    labels, probabilities = run(to_onnx(estimator, x[:1], options=ARRAYS, **settings), x)
    np.testing.assert_array_equal(labels, estimator.predict(x))
    expected = estimator.predict_proba(x)
    assert probabilities.dtype == x.dtype
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=TOLERANCE[x.dtype.type])


def assert_same_values(estimator: Any, x: np.ndarray) -> None:
    (values,) = run(to_onnx(estimator, x[:1]), x)
    expected = estimator.predict(x)
    assert values.dtype == x.dtype
    assert values.shape == (len(x), 1 if expected.ndim == 1 else expected.shape[1])
    difference = values.reshape(expected.shape) - expected
    assert np.abs(difference).max() < TOLERANCE[x.dtype.type]


@pytest.fixture(params=[np.float32, np.float64])
def x(request: pytest.FixtureRequest) -> np.ndarray:
    return X.astype(request.param)


# -- Answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("labels", LABELS)
def test_labels_and_probabilities(x: np.ndarray, labels: str) -> None:
    assert_same_answers(classifier().fit(x, LABELS[labels]), x)


@pytest.mark.parametrize(
    "activation",
    ["identity", "logistic", "tanh", "relu", "leaky_relu", ["leaky_relu", "tanh"]],
    ids=str,
)
def test_activations(x: np.ndarray, activation: Any) -> None:
    network = {"hidden_layer_sizes": (8, 6), "activation": activation}
    assert_same_answers(classifier(**network).fit(x, CENTRE), x)
    assert_same_values(regressor(**network).fit(x, x[:, 0]), x)


def test_without_hidden_layers(x: np.ndarray) -> None:
    assert_same_answers(classifier(hidden_layer_sizes=()).fit(x, CENTRE), x)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("outputs", [1, 2])
def test_regressions(x: np.ndarray, loss: str, outputs: int) -> None:
    y = np.abs(x[:, 0] if outputs == 1 else x[:, :outputs])
    assert_same_values(regressor(loss=loss).fit(x, y), x)


def test_scores_decide_where_probabilities_round() -> None:
    x = np.array([[1e-9], [-1e-9]], np.float32)
    estimator = classifier(hidden_layer_sizes=()).fit(x, ["no", "yes"])
    estimator.coefs_, estimator.intercepts_ = [np.ones((1, 1), "f4")], [np.zeros(1, "f4")]
    assert (estimator.predict_proba(x) == 0.5).all()
    assert estimator.predict(x).tolist() == ["yes", "no"]
    assert_same_answers(estimator, x)


def test_one_sample_and_none(x: np.ndarray) -> None:
    estimator = classifier().fit(x, CENTRE)
    assert_same_answers(estimator, x[:1])
    model = to_onnx(estimator, x[:1], options=ARRAYS)
    assert [output.shape for output in run(model, x[:0])] == [(0,), (0, 3)]


@pytest.mark.parametrize("opset", [13, 18])
def test_older_operator_sets(x: np.ndarray, opset: int) -> None:
    assert_same_answers(classifier().fit(x, CENTRE), x, target_opset=opset)


# -- In other estimators ---------------------------------------------------------------


def test_inside_others(x: np.ndarray) -> None:
    pipeline = make_pipeline(StandardScaler(), classifier())
    assert_same_answers(pipeline.fit(x, LABELS["three words"]), x)
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [1e-4, 1e-2]}, cv=2)
    assert_same_answers(search.fit(x, CENTRE), x)
    assert_same_answers(OneVsRestClassifier(classifier()).fit(x, CENTRE), x)
    assert_same_values(make_pipeline(StandardScaler(), regressor()).fit(x, x[:, :2]), x)


# -- Options ---------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["three numbers", "two words", "three labels a sample"])
def test_probabilities_as_dicts_and_as_columns(labels: str) -> None:
    x = X.astype(np.float32)
    estimator = classifier().fit(x, LABELS[labels])
    expected = estimator.predict_proba(x)
    found, dicts = run(to_onnx(estimator, x[:1]), x)
    np.testing.assert_array_equal(found, estimator.predict(x))
    assert {tuple(row) for row in dicts} == {tuple(estimator.classes_)}
    np.testing.assert_allclose([list(row.values()) for row in dicts], expected, rtol=0, atol=1e-6)
    found, *columns = run(to_onnx(estimator, x[:1], options={"zipmap": "columns"}), x)
    np.testing.assert_array_equal(found, estimator.predict(x))
    np.testing.assert_allclose(np.stack(columns, 1), expected, rtol=0, atol=1e-6)


def test_class_numbers_in_place_of_words(x: np.ndarray) -> None:
    estimator = classifier().fit(x, LABELS["three words"])
    found, _ = run(to_onnx(estimator, x[:1], options=ARRAYS | {"nocl": True}), x)
    np.testing.assert_array_equal(estimator.classes_[found], estimator.predict(x))


# -- Other arrays ----------------------------------------------------------------------


def test_fitted_arrays_of_any_library(backend: Any) -> None:
    x = backend.asarray(X)
    estimator = classifier(activation="leaky_relu").fit(x, CENTRE)
    labels, probabilities = run(to_onnx(estimator, X[:1], options=ARRAYS), X)
    np.testing.assert_array_equal(labels, backend.to_numpy(estimator.predict(x)))
    expected = backend.to_numpy(estimator.predict_proba(x))
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-12)


def test_the_weights_decide_the_precision() -> None:
    wide = (1e4 * X).astype(np.float32)
    double, single = (classifier(dtype=d).fit(wide, CENTRE) for d in ("float64", "float32"))
    assert_same_answers(double, wide)  # float32 cannot sum such scores to 1e-6
    model = to_onnx(single, wide[:1].astype(float), options=ARRAYS)
    types = {constant.data_type for constant in model.graph.initializer}
    assert onnx.TensorProto.DOUBLE not in types
    assert run(model, wide.astype(float))[1].dtype == np.float64


def test_sparse_training_and_integers() -> None:
    counts = RNG.integers(0, 4, (60, 5)).astype(np.uint8)
    estimator = classifier().fit(sparse.csr_array(counts.astype(float)), CENTRE)
    types = [("X", data_types.UInt8TensorType([None, 5]))]
    found, probabilities = run(to_onnx(estimator, initial_types=types, options=ARRAYS), counts)
    np.testing.assert_array_equal(found, estimator.predict(counts))
    np.testing.assert_allclose(probabilities, estimator.predict_proba(counts), rtol=0, atol=1e-6)


# -- Errors ----------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [MLPClassifier(), MLPRegressor()], ids=repr)
def test_not_fitted(estimator: Any) -> None:
    with pytest.raises(NotFittedError, match=r"not fitted yet\. Call 'fit'"):
        to_onnx(estimator, X[:1])


@pytest.mark.parametrize(
    ("types", "got"),
    [
        (
            [("X", data_types.FloatTensorType([None, 4]))],
            r"shape \[None, 5\]; got shape \[None, 4\]",
        ),
        ([("X", data_types.FloatTensorType([5]))], r"shape \[None, 5\]; got shape \[5\]"),
        ([("X", data_types.StringTensorType([None, 5]))], "got text"),
        ([(name, data_types.FloatTensorType([None, 1])) for name in "abcde"], "got 5 inputs"),
    ],
)
def test_inputs_that_do_not_fit(types: Any, got: str) -> None:
    for estimator in (classifier().fit(X, CENTRE), regressor().fit(X, X[:, 0])):
        with pytest.raises(UsageError, match=rf"expects one ONNX input of 5 .*{got}"):
            to_onnx(estimator, initial_types=types)


def test_dicts_of_float64() -> None:
    with pytest.raises(UsageError, match=r"pass options=\{'zipmap': False\}, or give a"):
        to_onnx(classifier().fit(X, CENTRE), X[:1])


def test_classes_that_onnx_does_not_have() -> None:
    with pytest.raises(UsageError, match=r"classes_ is array\(\[0\]\); ONNX expects two or more"):
        to_onnx(classifier().fit(X, 0 * CENTRE), X[:1], options=ARRAYS)
    large = (CENTRE > 0).astype(np.uint64) + np.uint64(2**63)
    with pytest.raises(UsageError, match=r"classes_ is array.*; ONNX expects text or int64"):
        to_onnx(classifier().fit(X, large), X[:1], options=ARRAYS)


def test_a_loss_that_maps_its_predictions() -> None:
    @dataclass(frozen=True)
    class Cubed(SquaredLoss):
        def predictions(self, x: Any) -> Any:
            return x**3

    estimator = regressor(loss=Cubed()).fit(X, X[:, 0])
    with pytest.raises(UsageError, match=r"Cubed.* computes predictions in Python"):
        to_onnx(estimator, X[:1])


def test_skl2onnx_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(UsageError, match=r"^register\(\) needs skl2onnx: .* 'xpnet\[onnx\]'$"):
        register()


def test_the_example_of_the_docstring() -> None:
    failed, attempted = doctest.testmod(sys.modules[register.__module__])
    assert attempted
    assert not failed
