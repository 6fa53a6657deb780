"""An estimator from a file goes on as the one that was saved."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

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
