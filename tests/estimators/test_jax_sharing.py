"""On JAX, the fits of a grid search share what is compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("jax", reason="jax is not installed")
from sklearn.model_selection import GridSearchCV

from xpnet import MLPClassifier, Network, optim
from xpnet.backend import jax as backend_module

pytestmark = pytest.mark.filterwarnings("ignore:.*converge")
RNG = np.random.default_rng(0)
X, Y = RNG.random((60, 4)), np.arange(60) % 3


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each time that JAX traces a step or a prediction."""
    backend_module._compiled_loop.cache_clear()
    backend_module._compiled.cache_clear()
    seen: list[str] = []
    update, predict = optim.update, Network.predict

    def counted_update(*args: Any) -> Any:
        seen.append("step")
        return update(*args)

    def counted_predict(*args: Any) -> Any:
        seen.append("predict")
        return predict(*args)

    monkeypatch.setattr(optim, "update", counted_update)
    monkeypatch.setattr(Network, "predict", counted_predict)
    return seen


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_a_grid_search_compiles_once(traces: list[str], solver: str) -> None:
    grid = {"alpha": [0.1, 0.01], "learning_rate_init": [0.1, 0.01], "random_state": [0, 1]}
    est = MLPClassifier(4, solver=solver, learning_rate="adaptive", max_iter=4, backend="jax")
    est.set_params(batch_size=40)
    search = GridSearchCV(est, grid, cv=3, return_train_score=True).fit(X, Y)
    # Shapes: batches of 40 in folds of 40, of 40 and 20 in the last fit with all samples; scores of
    # 20 and 40 samples.
    assert traces.count("step") == 3
    assert traces.count("predict") == 2
    assert len(set(search.cv_results_["mean_test_score"])) > 1


def test_another_network_compiles_anew(traces: list[str]) -> None:
    for hidden in (3, 5, 3):
        MLPClassifier(hidden, max_iter=2, backend="jax").fit(X, Y)
    assert traces.count("step") == 2
