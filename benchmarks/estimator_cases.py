"""Define what `benchmarks.estimators` measures: data, settings and targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

import xpnet

__all__ = ["CASES", "GPU_CASES", "Case", "data_of", "named"]

MNIST_SAMPLES = 60_000


class Case(NamedTuple):
    """One comparison; both estimators get the same data and settings.

    The settings are those that differ from scikit-learn's defaults. `max_iter` makes a fit last
    about half a second, so that a pair of turns takes one or two.
    """

    title: str
    data: str
    settings: dict[str, Any]
    least: Mapping[str, float] = {}
    """By dtype, how many times as fast as scikit-learn xpnet should at least be on the CPU."""
    what: Literal["fit", "search", "batched", "predict", "memory"] = "fit"
    backend: str = "numpy"
    """xpnet's array library on the CPU."""


def _least(float64: float, float32: float) -> dict[str, float]:
    return {"float64": float64, "float32": float32}


_LEVEL, _ABOUT_LEVEL = _least(1.0, 1.0), _least(1.0, 1.05)
_SMALL = {"hidden_layer_sizes": (50,), "solver": "sgd", "batch_size": 100, "max_iter": 10}
_WIDE = {"hidden_layer_sizes": (256,), "batch_size": 200, "max_iter": 4}
_FITS = {
    "iris": Case("iris, 150 x 4", "iris", {"max_iter": 200}, _least(1.2, 1.3)),
    "digits": Case("digits, 1,797 x 64", "digits", {"max_iter": 100}, _least(1.1, 1.2)),
    "classification": Case(
        "classification, 20,000 x 20", "classification", {"max_iter": 15}, _least(1.3, 1.4)
    ),
    "regression": Case("regression, 20,000 x 20", "regression", {"max_iter": 15}),
    "mnist-50": Case(
        "MNIST 10,000, 50 wide, batch 100, SGD", "mnist 10000", _SMALL, _least(1.0, 1.05)
    ),
    "mnist-256": Case("MNIST 10,000, 256 wide, batch 200", "mnist 10000", _WIDE, _ABOUT_LEVEL),
    "text": Case("sparse text, 2,000 x 5,000", "text", {"max_iter": 20}),
}
CASES: dict[str, Case] = {
    **_FITS,
    "mnist-60000": Case(
        "MNIST 60,000", "mnist 60000", {"max_iter": 3}, _least(1.4, 1.4), backend="jax"
    ),
    "search": Case(
        "GridSearchCV on iris, 24 fits", "iris", {"max_iter": 50}, _least(1.2, 1.2), "search"
    ),
    "batched-search": Case(
        "BatchedGridSearchCV on iris, 24 fits and the refit, beside GridSearchCV(n_jobs=2)",
        "iris",
        {"max_iter": 50},
        _least(5.0, 5.0),
        "batched",
    ),
    **{
        f"predict-{name}": _FITS[name]._replace(what="predict", least=_LEVEL)
        for name in ("iris", "digits", "classification", "regression", "mnist-256", "text")
    },
    **{
        f"memory-{name}": _FITS[name]._replace(what="memory", least=_LEVEL)
        for name in ("classification", "regression", "mnist-50", "mnist-256", "text")
    },
}
# A GPU is for large data and wide layers. The most important comes first.
GPU_CASES = ("mnist-60000", "mnist-256", "classification")


def named(name: str) -> str:
    """Return what a table calls a case; a case that is no longer measured keeps its name."""
    if name not in CASES:
        return name
    words = {"fit": "fit ", "predict": "predict ", "memory": "memory of a fit, "}
    return words.get(CASES[name].what, "") + CASES[name].title


def data_of(case: Case, dtype: str, data_dir: str = "") -> tuple[Any, np.ndarray]:
    """Return X and y; without `data_dir`, random images take MNIST's place.

    X has the dtype, and so has the target of a regression.
    """
    from sklearn import datasets

    name, _, rows = case.data.partition(" ")
    x: Any
    if name == "iris":
        x, y = datasets.load_iris(return_X_y=True)
    elif name == "digits":
        x, y = datasets.load_digits(return_X_y=True)
        x = x / 16
    elif name == "classification":
        x, y = datasets.make_classification(20_000, 20, n_informative=10, random_state=0)
    elif name == "regression":
        x, y = datasets.make_regression(20_000, 20, noise=10, random_state=0)
        y = (y / y.std()).astype(dtype)
    elif name == "mnist":
        x, y = _images(data_dir)
        x, y = x[: int(rows)] / 255, y[: int(rows)]
    else:
        x, y = _text()
    return x.astype(dtype), y


def _images(data_dir: str) -> tuple[np.ndarray, np.ndarray]:
    if data_dir:
        data, _ = xpnet.datasets.load("mnist", Path(data_dir))
        return data.x.reshape(len(data.x), -1), data.t
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (MNIST_SAMPLES, 784), dtype=np.uint8)
    return x, rng.integers(0, 10, MNIST_SAMPLES)


def _text(documents: int = 2_000, words: int = 5_000, length: int = 50) -> tuple[Any, np.ndarray]:
    """Return counts of words as a sparse matrix, and a subject for which most of the words vote."""
    from scipy import sparse

    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(documents), length)
    columns = rng.integers(0, words, documents * length)
    x = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (documents, words))
    votes = np.eye(4)[rng.integers(0, 4, words)]
    return x, np.argmax(x @ votes, axis=1)
