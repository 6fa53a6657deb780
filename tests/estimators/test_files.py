"""An estimator from a file goes on as the one that was saved."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from xpnet.errors import CheckpointError
from xpnet.models import checkpoint
from xpnet.sklearn import MLPClassifier, MLPRegressor

X = np.random.default_rng(0).standard_normal((30, 3))
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("settings", [{"solver": "sgd", "momentum": 0.0}, {"solver": "lbfgs"}])
def test_a_loaded_estimator_can_be_fitted_further(
    kind: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Without momentum and shuffling, a fit keeps nothing that the file lacks."""
    est = kind(
        hidden_layer_sizes=(4,),
        warm_start=True,
        shuffle=False,
        max_iter=3,
        random_state=0,
        **settings,
    )
    y = np.arange(30) % 3
    est.fit(X, y).save(tmp_path / "est.npz")
    loaded = kind.load(tmp_path / "est.npz")
    np.testing.assert_array_equal(loaded.predict(X), est.predict(X))
    before = [W.copy() for W in est.coefs_]
    for a, b, c in zip(est.fit(X, y).coefs_, loaded.fit(X, y).coefs_, before, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


@pytest.mark.parametrize("way", ["as it is", "pickle", "file"])
def test_parameters_set_after_a_fit_count_for_the_next_one_alone(tmp_path: Path, way: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((30, 3))
    est = MLPRegressor("poisson", 4, "tanh", solver="lbfgs", random_state=0, max_iter=5)
    est.fit(x, x.sum(axis=1))
    before = est.predict(x)
    est.set_params(hidden_layer_sizes=(3,), activation="relu", loss="squared_error")
    if way == "pickle":
        est = pickle.loads(pickle.dumps(est))
    if way == "file":
        est.save(tmp_path / "est.npz")
        est = MLPRegressor.load(tmp_path / "est.npz")
    np.testing.assert_array_equal(est.predict(x), before)
    assert est.activation == "relu"
    np.testing.assert_allclose(est.model_.predict(x)[:, 0], before)
    est.set_params(warm_start=True)
    with pytest.raises(ValueError, match=r"is \[3\], but the last call fitted \[4\]"):
        est.fit(x, x.sum(axis=1))


def test_text_in_a_file_is_as_wide_as_it_is(tmp_path: Path) -> None:
    """A width that only the file claims would take gigabytes."""
    names = np.array(["no", "yes"])[(X[:, 0] > 0).astype(int)]
    MLPClassifier(4, max_iter=2).fit(X, names).save(tmp_path / "est.npz")
    arrays, meta = checkpoint.load(tmp_path / "est.npz")
    meta["extra"]["sklearn"]["fitted"]["classes"]["array"][0] = "<U500000000"
    checkpoint.save(tmp_path / "est.npz", arrays, meta)
    assert MLPClassifier.load(tmp_path / "est.npz").classes_.tolist() == ["no", "yes"]
    meta["extra"]["sklearn"]["fitted"]["classes"]["array"][0] = "V1000000000"
    checkpoint.save(tmp_path / "est.npz", arrays, meta)
    with pytest.raises(CheckpointError, match="it holds an array of"):
        MLPClassifier.load(tmp_path / "est.npz")
