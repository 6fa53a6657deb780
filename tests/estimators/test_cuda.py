"""The estimators on CuPy: NumPy's numbers, in CuPy's arrays, with the step's own kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
from conftest import usable_cupy

from xpnet import MLPClassifier, MLPRegressor, optim

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:.*converge")]

RNG = np.random.default_rng(0)
X = RNG.random((30, 3))
SMALL: dict[str, Any] = {
    "hidden_layer_sizes": 4,
    "batch_size": 12,
    "max_iter": 3,
    "random_state": 0,
}
CLASSES = np.array([0, 2, 5])[(X.sum(axis=1) > 1.4).astype(int) + (X.sum(axis=1) > 1.8)]
FITS = [
    (MLPClassifier, CLASSES, {}),
    (MLPClassifier, CLASSES, {"solver": "sgd", "learning_rate": "invscaling", "dropout": 0.2}),
    (MLPClassifier, CLASSES, {"solver": "lbfgs"}),
    (MLPClassifier, CLASSES == 2, {"class_weight": "balanced", "early_stopping": True}),
    (MLPClassifier, CLASSES, {"solver": optim.AdamW(1e-2), "dtype": "float32"}),
    (MLPRegressor, X[:, :2] ** 2, {}),
    (MLPRegressor, X[:, 0] ** 2, {"loss": "poisson"}),
]


@pytest.mark.parametrize(("kind", "y", "more"), FITS)
def test_a_fit_on_cupy_has_numpys_numbers(kind: Any, y: np.ndarray, more: dict[str, Any]) -> None:
    cupy = usable_cupy()
    on_host = kind(**SMALL, **more).fit(X, y)
    there = kind(**SMALL, **more).fit(cupy.asarray(X), cupy.asarray(y))
    sent = kind(**SMALL, **more, device="cuda").fit(X, y)
    tolerance = 1e-4 if "dtype" in more else 1e-10
    for fitted in (there, sent):
        assert fitted._engine.backend.fallbacks == []
        assert fitted.loss_ == pytest.approx(on_host.loss_, rel=tolerance)
    assert isinstance(sent.coefs_[0], np.ndarray)
    for array in (*there.coefs_, *there.intercepts_, there.predict(cupy.asarray(X))):
        assert isinstance(array, cupy.ndarray)
    np.testing.assert_allclose(
        cupy.asnumpy(there.predict(cupy.asarray(X))), on_host.predict(X), rtol=tolerance
    )
    np.testing.assert_allclose(sent.predict(X), on_host.predict(X), rtol=tolerance)
