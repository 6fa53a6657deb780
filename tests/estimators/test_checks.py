"""scikit-learn's own checks of an estimator, on ours and on variants."""

from __future__ import annotations

import os
from typing import Any

import pytest
from conftest import usable_cupy

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.utils import estimator_checks

from xpnet.sklearn import MLPClassifier, MLPRegressor

# Most fits of the checks end before they converge, and say so.
pytestmark = pytest.mark.filterwarnings("ignore")

# Small networks that learn fast: the checks ask for scores, not for these parameters.
SMALL: dict[str, Any] = {"hidden_layer_sizes": 10, "learning_rate_init": 0.03, "max_iter": 40}
BOTH = (MLPClassifier, MLPRegressor)
WHOLE: list[dict[str, Any]] = [{}, {"solver": "sgd"}, {"solver": "lbfgs", "max_iter": 20}]
PARTLY: list[dict[str, Any]] = [{"dropout": 0.2}, {"backend": "torch"}, {"backend": "jax"}]
ESTIMATORS = [kind(**SMALL | options) for options in WHOLE for kind in BOTH]
ESTIMATORS.append(MLPClassifier(**SMALL, class_weight="balanced"))
ESTIMATORS += [kind(**SMALL | options) for options in PARTLY for kind in BOTH]

# Dropout and another library change what a fit computes; the checks of parameters, X and y are the
# same code. JAX compiles anew for each shape: all checks would take a minute.
OF_A_FIT = (
    "check_dict_unchanged",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_fit_idempotent",
    "check_methods_sample_order_invariance",
    "check_readonly_memmap_input",
    "check_sample_weight",
)

ONE_DRAW_A_SAMPLE = (
    "each row draws, so that a row of weight 2 is not two rows; scikit-learn's class fails where "
    "rows draw their batches"
)


def expected_failures(estimator: Any) -> dict[str, str]:
    kinds = ("dense", "sparse") if estimator.dropout else ()
    return {f"check_sample_weight_equivalence_on_{k}_data": ONE_DRAW_A_SAMPLE for k in kinds}


def _checks() -> list[Any]:
    found = []
    for estimator in ESTIMATORS:
        pairs = estimator_checks.estimator_checks_generator(
            estimator, expected_failed_checks=expected_failures(estimator), mark="xfail"
        )
        partly = estimator.dropout or estimator.backend is not None
        for pair in pairs:
            _, check = getattr(pair, "values", pair)
            if not partly or name_of(check).startswith(OF_A_FIT):
                found.append(pair)
    return found


def name_of(check: Any) -> str:
    return getattr(check, "func", check).__name__


def libraries_of(check: Any) -> set[str]:
    """Return the libraries whose arrays a check makes, with their devices."""
    options = getattr(check, "keywords", {})
    places = [(options.get("array_namespace"), options.get("device_name"))]
    places += [options.get("X_ns_and_device"), options.get("other_ns_and_device")]
    return {f"{xp} on {device}" for xp, device in filter(None, places) if xp is not None}


def name_for_pytest(value: Any) -> str | None:
    return estimator_checks._get_check_estimator_ids(value)


@pytest.mark.parametrize(("estimator", "check"), _checks(), ids=name_for_pytest)
def test_check(estimator: Any, check: Any) -> None:
    if estimator.backend is not None:
        pytest.importorskip(estimator.backend)
    if any(place.startswith("cupy") for place in libraries_of(check)):
        usable_cupy()
    check(estimator)


def test_the_checks_of_arrays_run() -> None:
    # Without SCIPY_ARRAY_API, scikit-learn skips them.
    assert os.environ.get("SCIPY_ARRAY_API") == "1"
    places = set().union(*(libraries_of(getattr(c, "values", c)[1]) for c in _checks()))
    expected = {"numpy on None", "array_api_strict on device1", "torch on cpu"}
    assert expected <= places


@pytest.mark.parametrize("theirs", [TheirClassifier, TheirRegressor])
def test_scikit_learns_classes_fail_too_where_rows_draw(theirs: Any) -> None:
    estimator = theirs(**SMALL, batch_size=5)
    # Where all samples of a batch have weight 0, it divides by zero.
    with pytest.raises((AssertionError, ZeroDivisionError)):
        estimator_checks.check_sample_weight_equivalence_on_dense_data(theirs.__name__, estimator)
