"""Scaling, grid search, confusion matrix and loss curve on the digits, by scikit-learn's tools.

python examples/sklearn_grid_search.py FOLDER draws the picture there (pip install matplotlib).
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay, classification_report
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from xpnet import MLPClassifier

# scikit-learn's perceptrons have no dropout.
GRID = {"mlp__dropout": [0.0, 0.2], "mlp__hidden_layer_sizes": [(20,), (50,)]}


def search() -> GridSearchCV:
    mlp = MLPClassifier(learning_rate_init=0.01, tol=1e-3, n_iter_no_change=3, random_state=0)
    pipeline = Pipeline([("scale", StandardScaler()), ("mlp", mlp)])
    return GridSearchCV(pipeline, GRID, cv=3)


def draw(best: Pipeline, X: Any, y: Any, path: Path) -> None:
    """The confusion matrix on X, y, and the loss of each epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    ConfusionMatrixDisplay.from_estimator(best, X, y, ax=left, cmap="Blues", colorbar=False)
    left.set_title("test samples")
    loss = best.named_steps["mlp"].loss_curve_
    right.semilogy(range(1, len(loss) + 1), loss)
    right.set(title="training", xlabel="epoch", ylabel="loss")
    figure.savefig(path, dpi=100)


def main(folder: Path | None = None) -> float:
    if folder is not None and find_spec("matplotlib") is None:
        raise SystemExit("the picture needs matplotlib: pip install 'xpnet[plot]'")
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)
    found = search().fit(X, y)
    for values, score in zip(
        found.cv_results_["params"], found.cv_results_["mean_test_score"], strict=True
    ):
        print(f"{score:.3f} with {values}")
    print(f"best: {found.best_params_}")
    print(classification_report(y_test, found.predict(X_test), digits=3))
    if folder is not None:
        draw(found.best_estimator_, X_test, y_test, folder / "sklearn_grid_search.png")
    return float(found.score(X_test, y_test))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
