"""What needs no scikit-learn: arrays of every library, thresholds, what is undefined, refusals."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from conftest import Library

from xpnet import metrics
from xpnet.errors import DataError, UsageError

T = np.array([0, 0, 1, 1, 1, 0])
P = np.array([0.25, 0.5, 0.5, 0.75, 0.125, 0.875], np.float32)
Y = (P >= 0.5).astype(np.int32)


# -- Values known without a library --------------------------------------------------------


def test_by_hand() -> None:
    """3 positives: found 0.5 and 0.75, not 0.125; wrongly found 0.5 and 0.875."""
    assert metrics.confusion_matrix(T, Y).tolist() == [[1, 2], [1, 2]]
    assert metrics.accuracy(T, Y) == 3 / 6
    assert metrics.precision(T, Y) == 2 / 4
    assert metrics.recall(T, Y) == 2 / 3
    assert metrics.f1(T, Y) == 4 / 7
    assert metrics.balanced_accuracy(T, Y) == pytest.approx((1 / 3 + 2 / 3) / 2)
    # 9 pairs: 0.75 beats two, 0.5 beats one and ties with one, 0.125 beats none.
    assert metrics.roc_auc(T, P) == 3.5 / 9
    # One after the other: 0.875 no; 0.75 yes, 1 of 2; 0.5 yes and no, 2 of 4; 0.125 yes, 3 of 6.
    assert metrics.average_precision(T, P) == pytest.approx((1 / 2 + 2 / 4 + 3 / 6) / 3)
    assert metrics.brier(T, P) == pytest.approx(np.mean((P - T) ** 2))


def test_the_area_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    t, p = rng.integers(0, 2, 70), rng.integers(0, 12, 70) / 11
    won = sum(
        (a > b) + (a == b) / 2 for a, b in itertools.product(p[t == 1].tolist(), p[t == 0].tolist())
    )
    assert metrics.roc_auc(t, p) == won / (np.sum(t == 1) * np.sum(t == 0))
    assert metrics.roc_auc(t, 5 * p - 3) == metrics.roc_auc(t, p)  # any scores will do


# -- Arrays --------------------------------------------------------------------------------


def test_arrays_of_every_library(library: Library) -> None:
    """The same bits as on NumPy, as Python floats or host arrays."""
    if str(library.device).split("'")[1:2] not in ([], ["CPU_DEVICE"]):
        pytest.skip("NumPy takes no arrays of the referee's other devices")
    rng = np.random.default_rng(1)
    t = rng.integers(0, 3, 40)
    p = rng.dirichlet(np.ones(3), 40).astype(np.float32)
    y = p.argmax(axis=1).astype(np.int32)
    a, b, c = library.asarray(t), library.asarray(p), library.asarray(y)
    assert metrics.classification_scores(a, c, b) == metrics.classification_scores(t, y, p)
    assert metrics.regression_scores(b, b * b) == metrics.regression_scores(p, p * p)
    each = metrics.f1(a, c, average=None)
    assert isinstance(each, np.ndarray)
    assert all(type(v) is float for v in metrics.classification_scores(a, c, b).values())
    for ours, expected in (
        (metrics.roc_curve(a, b, positive=2), metrics.roc_curve(t, p, positive=2)),
        (metrics.calibration_curve(a, b), metrics.calibration_curve(t, p)),
    ):
        for column, known in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(column, known)


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_series(name: str) -> None:
    frames = pytest.importorskip(name, reason=f"{name} is not installed")
    assert metrics.f1(frames.Series(T), frames.Series(Y)) == metrics.f1(T, Y)
    text = np.array(["no", "yes"])
    assert metrics.f1(frames.Series(text[T]), frames.Series(text[Y])) == metrics.f1(T, Y)


def test_inputs_stay_as_they_are() -> None:
    t, p, weight = T.copy(), P.copy(), np.array([1.0, 2, 0, 3, 1, 1])
    metrics.classification_scores(t, Y, p, sample_weight=weight)
    metrics.best_threshold(t, p, sample_weight=weight)
    metrics.r2(p, p / 2, sample_weight=weight)
    np.testing.assert_array_equal(t, T)
    np.testing.assert_array_equal(p, P)
    assert weight.tolist() == [1, 2, 0, 3, 1, 1]


# -- Thresholds ----------------------------------------------------------------------------


def best_by_trial(t: np.ndarray, p: np.ndarray, metric: str, weight: Any) -> tuple[float, float]:
    """Every cut between two neighbours, in turn: (the best score, the cut nearest 0.5 of those)."""
    levels = [0.0, *sorted(set(p.tolist()))]
    cuts = [(a + b) / 2 for a, b in itertools.pairwise(levels)]
    function: Any = getattr(metrics, metric)
    scores = [function(t, (p >= cut).astype(int), sample_weight=weight) for cut in cuts]
    best = [c for c, s in zip(cuts, scores, strict=True) if s >= max(scores) - 1e-12]
    return max(scores), min(best, key=lambda cut: abs(cut - 0.5))


@pytest.mark.parametrize("metric", ["f1", "balanced_accuracy"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("levels", [3, 20, 10**6])
def test_the_best_threshold(metric: Any, weighted: bool, share: float, levels: int) -> None:
    for seed in range(15):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 60))
        t = (rng.random(n) < share).astype(int)
        t[:2] = 0, 1
        p = np.clip(np.round((0.4 * t + 0.6 * rng.random(n)) * levels) / levels, 0.0, 1.0)
        p = np.maximum(p, 1e-6)  # 0 has nothing below it: see the next test
        weight = rng.uniform(0.1, 2.0, n) if weighted else None
        score, cut = best_by_trial(t, p, metric, weight)
        found = metrics.best_threshold(t, p, metric, sample_weight=weight)
        function: Any = getattr(metrics, metric)
        reached = function(t, (p >= found).astype(int), sample_weight=weight)
        assert reached == pytest.approx(score, abs=1e-12)
        assert abs(found - 0.5) == pytest.approx(abs(cut - 0.5), abs=1e-9)


def test_thresholds_at_the_ends() -> None:
    assert metrics.best_threshold([1, 0], [0.0, 1.0]) == 0.0  # all of them: at least 0
    assert metrics.best_threshold([0, 1], [0.0, 1.0]) == 0.5
    assert metrics.best_threshold([0, 1], [np.nextafter(1.0, 0.0), 1.0]) == 1.0
    assert metrics.best_threshold([0, 1], np.array([[0.5, 0.5], [0.25, 0.75]])) == 0.625


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_threshold_between_neighbours_of_the_dtype(dtype: str) -> None:
    """Their middle is one of them: it must be the upper one, also after rounding to the dtype."""
    low = np.array(0.7, dtype)
    for _ in range(4):
        high = np.nextafter(low, np.array(1.0, dtype))
        found = metrics.best_threshold([0, 1], np.array([low, high], dtype))
        assert low < np.array(found, dtype) <= high
        assert float(np.array(found, dtype)) == found
        low = high


def test_the_sort_is_the_only_cost() -> None:
    rng = np.random.default_rng(0)
    t, p = rng.integers(0, 2, 200_000), rng.random(200_000)
    assert 0.0 <= metrics.best_threshold(t, p) <= 1e-3  # random: all of them are best


@pytest.mark.parametrize("only", [0, 1])
def test_a_threshold_needs_both_classes(only: int) -> None:
    with pytest.raises(DataError, match=f"t: got samples of class {only} only"):
        metrics.best_threshold([only, only], [0.2, 0.4])


# -- What is undefined ---------------------------------------------------------------------


def test_one_class_only() -> None:
    """No warnings (they are errors here): NaN alone, None in a summary."""
    zeros, ones = np.zeros(4, int), np.ones(4, int)
    p = np.linspace(0.1, 0.9, 4)
    for t in (zeros, ones):
        assert math.isnan(metrics.roc_auc(t, p))
        assert metrics.classification_scores(t, t, p)["roc_auc"] is None
        assert metrics.measure("roc_auc", t, t, p) is None
        assert metrics.accuracy(t, t) == metrics.balanced_accuracy(t, t) == 1.0
    assert math.isnan(metrics.average_precision(zeros, p))
    assert metrics.average_precision(ones, p) == 1.0
    assert np.isnan(metrics.roc_curve(zeros, p).true[1:]).all()
    assert np.isnan(metrics.roc_curve(ones, p).false[1:]).all()
    assert metrics.roc_curve(zeros, p).false[-1] == 1.0
    assert np.isnan(metrics.precision_recall_curve(zeros, p).recall[:-1]).all()
    assert metrics.precision(zeros, zeros) == metrics.recall(zeros, zeros) == 0.0
    assert metrics.f1(zeros, zeros) == 0.0
    many = np.full((4, 3), 1 / 3)
    assert math.isnan(metrics.roc_auc(zeros, many))
    assert metrics.classification_scores(zeros, zeros, many)["roc_auc"] is None


def test_a_single_sample() -> None:
    scores = metrics.classification_scores([1], [1], [0.75])
    assert scores["f1"] == scores["average_precision"] == 1.0
    assert scores["roc_auc"] is None
    assert metrics.regression_scores([2.0], [3.0]) == {"r2": None, "mae": 1.0, "rmse": 1.0}


def test_without_probabilities() -> None:
    scores = metrics.classification_scores(T, Y)
    assert [k for k, v in scores.items() if v is None] == [
        "roc_auc", "average_precision", "log_loss",
    ]  # fmt: skip


def test_targets_that_do_not_vary() -> None:
    t = np.array([[1e17, 1.0], [1e17, 2.0], [1e17, 3.0]])
    assert math.isnan(metrics.r2(t[:, 0], t[:, 1]))
    assert metrics.r2(t, t[:, [1, 1]]) == 1.0  # the mean over those that vary


def test_the_summary_counts_the_classes_of_the_columns() -> None:
    """Of three classes the samples have two: no binary numbers then."""
    t, p = [0, 1, 1], np.eye(3)[[0, 0, 1]]
    scores = metrics.classification_scores(t, [0, 0, 1], p)
    assert scores["f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert scores == metrics.classification_scores(t, [0, 0, 1], p, ["a", "b", "c"])
    assert metrics.measure("f1", t, [0, 0, 1], p) == scores["f1"]
    assert metrics.measure("precision", t, [0, 0, 1], classes=3) == 0.75
    assert metrics.measure("precision", t, [0, 0, 1]) == 1.0


# -- By name, and as text ------------------------------------------------------------------


def test_every_metric_by_its_name() -> None:
    for name, metric in metrics.METRICS.items():
        if metric.needs == "values":
            ours = metrics.measure(name, P, P / 2)
        else:
            ours = metrics.measure(name, T, Y, P)
        given = {"values": (P, P / 2), "classes": (T, Y), "probabilities": (T, P)}[metric.needs]
        assert ours == getattr(metrics, name)(*given)
        perfect = metric.function(*(T, T) if metric.needs != "values" else (P, P))
        assert metrics.higher_is_better(name) == (metric.better == "higher") == (perfect == 1.0)


def test_unknown_metrics_get_a_suggestion() -> None:
    with pytest.raises(UsageError, match="'ROC-AUC'; did you mean roc_auc\\? expected accuracy, "):
        metrics.measure("ROC-AUC", T, Y, P)
    with pytest.raises(UsageError, match="there is no metric 'x'; expected accuracy, "):
        metrics.higher_is_better("x")
    with pytest.raises(UsageError, match="log_loss needs probabilities"):
        metrics.measure("log_loss", T, Y)


def test_the_table_at_the_end() -> None:
    table = metrics.per_class_table([0, 0, 1, 2], [0, 0, 1, 1], ["setosa", "a\nb", "x" * 40])
    assert metrics.lines({"accuracy": 0.75, "roc_auc": None}, table) == [
        "accuracy  0.75",
        "roc_auc   undefined",
        "class                     precision  recall      f1  samples",
        "setosa                       1.0000  1.0000  1.0000        2",
        "a\\nb                         0.5000  1.0000  0.6667        1",
        "xxxxxxxxxxxxxxxxxxxxxxx…     0.0000  0.0000  0.0000        1",
    ]


def test_of_many_classes_the_worst_are_shown() -> None:
    t = np.arange(50)
    y = np.where(t < 45, t, 0)
    text = metrics.lines({}, metrics.per_class_table(t, y))
    assert text[0] == "the 20 classes of 50 with the lowest F1:"
    assert len(text) == 22
    assert [line.split()[0] for line in text[2:9]] == ["45", "46", "47", "48", "49", "0", "1"]


# -- Refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.f1([0, 1], [0]), "predicted: got 1 rows for 2 samples"),
        (lambda: metrics.f1([], []), "t: got no samples"),
        (lambda: metrics.f1([0, -1], [0, 1]), "t: row 1: got class -1; expected 0 to 1"),
        (lambda: metrics.f1([0, 3], [0, 1], classes=3), "t: row 1: got class 3; expected 0 to 2"),
        (lambda: metrics.f1(np.eye(2, dtype=int), [0, 1]), r"t.argmax\(axis=1\)"),
        (lambda: metrics.f1([0.0, 1.0], [0, 1]), r"t: got classes as float64; .* t.astype\(int\)"),
        (lambda: metrics.f1(["a", "b"], [0, 1]), r"t: got labels that are text; .*classes=\["),
        (lambda: metrics.f1(["a", "c"], ["a", "b"], classes=["a", "b"]), "t: row 1: got 'c'"),
        (lambda: metrics.f1(np.array([[0], [1]]), [0, 1]), r"one class index a sample: t\[:, 0\]"),
        (lambda: metrics.f1(np.array(["a", None]), ["a", "b"]), "t: row 1: got None; expected a"),
        (lambda: metrics.f1(None, [0]), "t: got NoneType, expected an array"),
        (lambda: metrics.roc_auc([0, 1], [0.1, math.nan]), "probabilities: row 1: got nan"),
        (lambda: metrics.log_loss([0, 1], [0.1, 1.5]), "probabilities: row 1: got 1.5"),
        (lambda: metrics.log_loss([0, 2], [[0.5, 0.5]] * 2), "t: row 1: got class 2"),
        (lambda: metrics.log_loss([0, 1], np.ones((2, 3)) / 3, classes=2), "got 3 columns for 2"),
        (lambda: metrics.log_loss(["a", "b"], np.ones((2, 3)) / 3), "got 2 different labels for 3"),
        (lambda: metrics.roc_auc([0, 1], np.ones((2, 1, 1))), r"got shape \(2, 1, 1\)"),
        (lambda: metrics.r2([1.0, 2.0], [1.0]), "predicted: got 1 rows for 2"),
        (lambda: metrics.r2([1.0], [[1.0, 2.0]]), r"predicted: got shape \(1, 2\); expected \(1,"),
        (lambda: metrics.r2([1.0], [math.inf]), "predicted: row 0: got inf"),
        (lambda: metrics.r2(["a"], [1.0]), "t: got values of type <U1, expected real numbers"),
        (lambda: metrics.f1([0, 1], [0, 1], sample_weight=[1]), "sample_weight: got shape"),
        (lambda: metrics.f1([0, 1], [0, 1], sample_weight=[1, -1]), "sample_weight: row 1"),
        (lambda: metrics.f1([0, 1], [0, 1], sample_weight=[0, 0]), "all weights are 0"),
    ],
)  # fmt: skip
def test_unfit_arrays(call: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.f1([0, 2], [0, 1], average="binary"), "for two classes, got 3"),
        (lambda: metrics.f1(T, Y, average="micro"), "average is 'micro'; expected 'auto'"),
        (lambda: metrics.f1(T, Y, classes="ab"), "classes is 'ab'; expected their number"),
        (lambda: metrics.f1(T, Y, classes=["a", "a"]), "classes: got a, a; expected .* different"),
        (lambda: metrics.roc_curve(T, P, positive=2), "positive is 2; expected a class from 0 to"),
        (lambda: metrics.calibration_curve(T, P, positive=-1), "positive is -1"),
        (lambda: metrics.calibration_curve(T, P, bins=0), "bins is 0"),
        (lambda: metrics.calibration_curve(T, P, strategy="x"), "strategy is 'x'"),
        (lambda: metrics.best_threshold(T, P, "recall"), "metric is 'recall'; expected one of f1"),
    ],
)  # fmt: skip
def test_impossible_options(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()
