"""Class weights, against scikit-learn's, and in a training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.data import class_weights
from xpnet.errors import DataError, UsageError

LABELS: list[Any] = [
    [0, 1, 1, 2, 2, 2, 2],
    np.array([3, 3, 250, 3], np.uint8),
    [-1, 1, 1],
    ["yes", "no", "no"],
    np.array(["yes", "no", "no"], object),
    np.array([b"b", b"a", b"b"]),
    [True, False, True],
    [1.0, 2.0, 2.0],
    np.array([[1], [0], [1]]),
    [5, 5],
]


def theirs(t: Any, weights: Any) -> Any:
    module = pytest.importorskip("sklearn.utils.class_weight", reason="scikit-learn is missing")
    return module.compute_sample_weight(weights, np.ravel(t))


@pytest.mark.parametrize("t", LABELS, ids=str)
def test_balanced_is_what_scikit_learn_computes(t: Any) -> None:
    weights = class_weights(t)
    np.testing.assert_array_equal(weights, theirs(t, "balanced"))
    assert (weights.dtype, weights.shape) == (np.float64, (len(t),))
    assert weights.mean() == pytest.approx(1.0, rel=1e-15)


@pytest.mark.parametrize(
    ("t", "weights"),
    [
        (["a", "b", "b"], {"a": 2}),
        (["a", "b", "b"], {"b": 0.5, "a": 3.0}),
        (["a", "b", "b"], {"b": 0.5, "a": 3.0, "c": 7.0}),
        (["a", "b", "b"], {}),
        ([0, 1, 1], {np.int64(1): np.float32(2.0)}),
        ([0.0, 1.0, 1.0], {1: 2.0}),
        ([True, False], {True: 2.0, False: 0.0}),
    ],
)
def test_a_weight_for_each_class_as_scikit_learn_takes_it(t: Any, weights: Any) -> None:
    np.testing.assert_array_equal(class_weights(t, weights), theirs(t, weights))


def test_balanced_counts_samples_by_their_weight() -> None:
    module = pytest.importorskip("sklearn.utils.class_weight", reason="scikit-learn is missing")
    t, weight = np.array([0, 0, 1, 2, 2, 2]), np.array([1.0, 2.0, 0.5, 1.0, 0.0, 3.0])
    expected = module.compute_class_weight(
        "balanced", classes=np.arange(3), y=t, sample_weight=weight
    )
    np.testing.assert_allclose(class_weights(t, sample_weight=weight), expected[t], rtol=1e-15)
    kept = weight * (t != 1)  # a class without weight is as if it were not there
    there = class_weights(t, sample_weight=kept)[t != 1]
    np.testing.assert_array_equal(there, class_weights(t[t != 1], sample_weight=kept[t != 1]))


def test_a_misspelt_class_is_refused_as_there() -> None:
    t, weights = ["cat", "dog"], {"Cat": 2.0, "dog": 1.0}
    with pytest.raises(ValueError, match="not in class_weight"):
        theirs(t, weights)
    with pytest.raises(
        UsageError, match=r"got one for 'Cat', .* no class of t, and none for 'cat'"
    ):
        class_weights(t, weights)


def test_one_hot_rows_and_arrays_of_every_library(backend: Any) -> None:
    t = np.array([0, 1, 1, 2], np.int32)
    np.testing.assert_array_equal(class_weights(np.eye(3)[t]), class_weights(t))
    np.testing.assert_array_equal(class_weights(backend.asarray(t)), class_weights(t))


@pytest.mark.parametrize(
    "t",
    [[0.5, 1.0], [np.nan, 1.0], [], 3, np.zeros((3, 2)), np.array([1, "a"], object), [None, 1]],
    ids=str,
)
def test_what_has_no_classes_is_refused(t: Any) -> None:
    with pytest.raises(DataError, match=r"t: (row 0: )?got .*expected") as caught:
        class_weights(t)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:no better than guessing")  # which is right
def test_weights_of_classes_weigh_the_loss() -> None:
    """A constant answer to 9 of one class and 1 of the other: balanced, both are as likely."""
    x, t = np.zeros((10, 1)), np.array([0] * 9 + [1])
    for weights, expected in ((None, 0.1), (class_weights(t), 0.5)):
        trainer = xpnet.Trainer(xpnet.mlp([1, 2]), optim.SGD(1.0))
        trainer.fit(x, t, epochs=200, batch_size=10, sample_weight=weights)
        assert trainer.predict_proba(x[:1])[0, 1] == pytest.approx(expected, abs=1e-3)
