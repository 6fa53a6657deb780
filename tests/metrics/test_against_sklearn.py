"""Every metric beside scikit-learn's, on data with ties, missing classes and weights."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest

from xpnet import metrics

theirs = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
calibration = pytest.importorskip("sklearn.calibration", reason="scikit-learn is not installed")


def close(value: Any) -> Any:
    return pytest.approx(value, rel=1e-12, abs=1e-14)


def cases() -> list[Any]:
    """(t, probabilities, weight) of 2, 3 and 7 classes: smooth, with ties, of few samples."""
    rng = np.random.default_rng(0)
    found = []
    for classes, n, digits, weighted in itertools.product((2, 3, 7), (8, 400), (1, 9), (0, 1)):
        t = rng.integers(0, classes, n)
        t[:classes] = np.arange(classes)
        scores = rng.standard_normal((n, classes)) + 1.5 * np.eye(classes)[t]
        p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        p = np.round(p, digits)  # one digit: many ties
        p[:, 0] += 1.0 - p.sum(axis=1)
        p = np.abs(p) / np.abs(p).sum(axis=1, keepdims=True)
        weight = rng.uniform(0.1, 3.0, n) if weighted else None
        name = f"{classes} classes, {n}, {digits} digits{', weights' * weighted}"
        found.append(pytest.param(t, p, weight, id=name))
    return found


CASES = pytest.mark.parametrize(("t", "p", "weight"), cases())


@CASES
def test_classes(t: np.ndarray, p: np.ndarray, weight: Any) -> None:
    y = p.argmax(axis=1)
    w: dict[str, Any] = {"sample_weight": weight}
    every: dict[str, Any] = {"labels": range(p.shape[1]), "zero_division": 0, **w}
    assert metrics.accuracy(t, y, **w) == close(theirs.accuracy_score(t, y, **w))
    assert metrics.balanced_accuracy(t, y, **w) == close(theirs.balanced_accuracy_score(t, y, **w))
    np.testing.assert_allclose(
        metrics.confusion_matrix(t, y, p.shape[1], **w),
        theirs.confusion_matrix(t, y, labels=range(p.shape[1]), **w),
        rtol=1e-12,
    )
    functions = [
        (metrics.precision, theirs.precision_score),
        (metrics.recall, theirs.recall_score),
        (metrics.f1, theirs.f1_score),
    ]
    for ours, their in functions:
        expected = their(t, y, average=None, **every)
        np.testing.assert_allclose(
            ours(t, y, average=None, classes=p.shape[1], **w), expected, rtol=1e-12
        )
        macro = close(their(t, y, average="macro", zero_division=0, **w))
        assert ours(t, y, average="macro", **w) == macro
        if p.shape[1] == 2:
            second = close(their(t, y, zero_division=0, **w))
            assert ours(t, y, **w) == ours(t, y, average="binary", **w) == second
        else:
            assert ours(t, y, **w) == macro


@CASES
def test_probabilities(t: np.ndarray, p: np.ndarray, weight: Any) -> None:
    w: dict[str, Any] = {"sample_weight": weight}
    two = p.shape[1] == 2
    assert metrics.log_loss(t, p, **w) == close(
        theirs.log_loss(t, p, labels=range(p.shape[1]), **w)
    )
    assert metrics.brier(t, p, **w) == close(
        theirs.brier_score_loss(t, p[:, 1] if two else p, labels=range(p.shape[1]), **w)
    )
    if two:
        assert metrics.roc_auc(t, p, **w) == close(theirs.roc_auc_score(t, p[:, 1], **w))
        assert metrics.roc_auc(t, p[:, 1], **w) == metrics.roc_auc(t, p[:, 1:], **w)
        assert metrics.roc_auc(t, p, **w) == metrics.roc_auc(t, p[:, 1], **w)
    else:
        expected = theirs.roc_auc_score(t, p, multi_class="ovr", **w)
        assert metrics.roc_auc(t, p, **w) == close(expected)
    scores = p[:, 1] if two else p
    assert metrics.average_precision(t, p, **w) == close(
        theirs.average_precision_score(t, scores, **w)
    )


@CASES
def test_curves(t: np.ndarray, p: np.ndarray, weight: Any) -> None:
    for positive in range(p.shape[1]):
        hit, scores = t == positive, p[:, positive]
        ours: Any = metrics.roc_curve(t, p, positive=positive, sample_weight=weight)
        expected = theirs.roc_curve(hit, scores, sample_weight=weight, drop_intermediate=False)
        for a, b in zip(ours, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
        ours = metrics.precision_recall_curve(t, p, positive=positive, sample_weight=weight)
        expected = theirs.precision_recall_curve(hit, scores, sample_weight=weight)
        for a, b in zip(ours, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


@CASES
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("bins", [1, 5, 10])
def test_calibration(t: Any, p: Any, weight: Any, strategy: Any, bins: int) -> None:
    ours = metrics.calibration_curve(t, p, positive=1, bins=bins, strategy=strategy)
    observed, predicted = calibration.calibration_curve(
        t == 1, p[:, 1], n_bins=bins, strategy=strategy
    )
    np.testing.assert_allclose(ours.observed, observed, rtol=1e-12)
    np.testing.assert_allclose(ours.predicted, predicted, rtol=1e-12)
    assert ours.samples.sum() == len(t)


@pytest.mark.parametrize("outputs", [0, 1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e12])
def test_regressions(outputs: int, weighted: bool, size: float) -> None:
    rng = np.random.default_rng(1)
    shape = (50, outputs) if outputs else (50,)
    t = size * (7.0 + rng.standard_normal(shape))
    y = t + size * 0.3 * rng.standard_normal(shape)
    w: dict[str, Any] = {"sample_weight": rng.uniform(0, 2, 50) if weighted else None}
    assert metrics.r2(t, y, **w) == pytest.approx(theirs.r2_score(t, y, **w), rel=1e-9)
    assert metrics.mae(t, y, **w) == close(theirs.mean_absolute_error(t, y, **w))
    rmse = theirs.root_mean_squared_error(t, y, **w)
    assert metrics.rmse(t, y, **w) == close(rmse)
    assert metrics.median_absolute_error(t, y) == close(theirs.median_absolute_error(t, y))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_log_loss_of_a_sure_mistake(dtype: str) -> None:
    p = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], dtype)
    for given in (p, p[:, 1]):
        expected = theirs.log_loss([1, 1, 0], given)
        assert metrics.log_loss([1, 1, 0], given) == pytest.approx(expected, rel=1e-3)


def test_a_class_that_is_missing() -> None:
    """In t, in what is predicted, or in both: they count the classes that occur."""
    t, y = [0, 0, 2, 2], [0, 1, 2, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs say that a class has no samples
        for name in ("precision", "recall", "f1"):
            their = getattr(theirs, f"{name}_score")
            macro = their(t, y, average="macro", zero_division=0)
            assert getattr(metrics, name)(t, y, classes=5) == close(macro)
            each = their(t, y, average=None, labels=range(5), zero_division=0)
            np.testing.assert_allclose(
                getattr(metrics, name)(t, y, classes=5, average=None), each, rtol=1e-12
            )
        balanced = theirs.balanced_accuracy_score(t, y)
    assert metrics.balanced_accuracy(t, y, classes=5) == close(balanced)
    p = np.random.default_rng(5).dirichlet(np.ones(5), 4)
    hits = [(np.array(t) == c, p[:, c]) for c in (0, 2)]
    areas = [theirs.roc_auc_score(*hit) for hit in hits]
    assert metrics.roc_auc(t, p) == close(np.mean(areas))
    averages = [theirs.average_precision_score(*hit) for hit in hits]
    assert metrics.average_precision(t, p) == close(np.mean(averages))
    assert metrics.log_loss(t, p) == close(theirs.log_loss(t, p, labels=range(5)))


def test_samples_of_weight_0_do_not_count() -> None:
    rng = np.random.default_rng(2)
    t, p = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3), 60)
    weight = rng.uniform(1, 2, 60) * (rng.random(60) < 0.5)
    kept = weight > 0
    y = p.argmax(axis=1)
    for ours, given in ((metrics.f1, y), (metrics.roc_auc, p), (metrics.log_loss, p)):
        f: Any = ours
        assert f(t, given, sample_weight=weight) == close(
            f(t[kept], given[kept], sample_weight=weight[kept])
        )


@pytest.mark.parametrize("labels", [["no", "yes"], ["b", "a", "c"]])
def test_labels_that_are_text(labels: list[str]) -> None:
    rng = np.random.default_rng(3)
    t, y = (np.array(labels)[rng.integers(0, len(labels), 50)] for _ in range(2))
    p = rng.dirichlet(np.ones(len(labels)), 50)
    average = "macro" if len(labels) > 2 else "binary"
    expected = theirs.f1_score(
        t, y, average=average, **({"pos_label": "yes"} if len(labels) == 2 else {})
    )
    assert metrics.f1(t, y) == close(expected)
    assert metrics.f1(t.tolist(), y.astype(object)) == close(expected)
    assert metrics.log_loss(t, p) == close(theirs.log_loss(t, p))  # columns: the sorted labels
    names = labels[::-1]  # or as you say
    np.testing.assert_array_equal(
        metrics.confusion_matrix(t, y, names), theirs.confusion_matrix(t, y, labels=names)
    )


def test_summaries() -> None:
    rng = np.random.default_rng(4)
    t, p = rng.integers(0, 2, 80), rng.random(80)
    y = (p > 0.5).astype(int)
    scores = metrics.classification_scores(t, y, p)
    assert scores == {
        "accuracy": close(theirs.accuracy_score(t, y)),
        "balanced_accuracy": close(theirs.balanced_accuracy_score(t, y)),
        "precision": close(theirs.precision_score(t, y)),
        "recall": close(theirs.recall_score(t, y)),
        "f1": close(theirs.f1_score(t, y)),
        "roc_auc": close(theirs.roc_auc_score(t, p)),
        "average_precision": close(theirs.average_precision_score(t, p)),
        "log_loss": close(theirs.log_loss(t, p)),
    }
    table = metrics.per_class_table(t, y, ["no", "yes"])
    columns = theirs.precision_recall_fscore_support(t, y)
    for i, row in enumerate(table):
        assert row[1:] == close(tuple(column[i] for column in columns))
