"""scikit-learn's own checks of an estimator, on ours and on variants."""

from __future__ import annotations

from typing import Any
from unittest import SkipTest

import pytest
from conftest import usable_cupy

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.utils.estimator_checks import (
    check_sample_weight_equivalence_on_dense_data,
    parametrize_with_checks,
)

from xpnet.sklearn import MLPClassifier, MLPRegressor

# The checks expect and ignore warnings as scikit-learn's own configuration has it.
pytestmark = pytest.mark.filterwarnings("default")

# Small networks that learn fast: the checks ask for scores, not for these parameters.
SMALL = {"hidden_layer_sizes": (20,), "learning_rate_init": 0.02, "max_iter": 40}
VARIANTS = [
    {},
    {"solver": "sgd"},
    {"solver": "lbfgs"},
    {"dropout": 0.2},
    {"backend": "torch"},
]
ESTIMATORS = [kind(**SMALL | options) for options in VARIANTS for kind in (MLPClassifier, MLPRegressor)]
ESTIMATORS.append(MLPClassifier(**SMALL, class_weight="balanced"))

ONE_DRAW_A_SAMPLE = (
    "every row draws its own mask, so a row of weight 2 is not two rows; scikit-learn's class fails "
    "too where rows draw, for their batches"
)


def expected_failures(estimator: Any) -> dict[str, str]:
    kinds = ("dense", "sparse") if estimator.dropout else ()
    return {f"check_sample_weight_equivalence_on_{k}_data": ONE_DRAW_A_SAMPLE for k in kinds}


def _libraries(check: Any) -> set[str]:
    """Return the libraries whose arrays a check makes."""
    options = getattr(check, "keywords", {})
    places = [options.get("X_ns_and_device"), options.get("other_ns_and_device")]
    return {options.get("array_namespace"), *(p.xp for p in places if p is not None)} - {None}


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_check(estimator: Any, check: Any) -> None:
    check(estimator)
