"""Metrics by name, all that suit a model in one dict, and the table at the end of a run."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from xpnet.errors import UsageError, one_line, shown
from xpnet.metrics.classes import accuracy, balanced_accuracy, counts, f1, precision, recall
from xpnet.metrics.inputs import Classes, occurring, on_host, pairs
from xpnet.metrics.probabilities import brier, log_loss
from xpnet.metrics.ranking import areas, average_precision, roc_auc
from xpnet.metrics.values import mae, median_absolute_error, r2, rmse

__all__ = [
    "METRICS", "ClassRow", "Metric", "classification_scores", "higher_is_better", "lines",
    "measure", "per_class_table", "regression_scores",
]  # fmt: skip

MOST = 20  # so many classes have a line each


@dataclass(frozen=True)
class Metric:
    """A metric by name: its function, which end of it is better, and what it is given.

    Examples
    --------
    >>> METRICS["rmse"].better, METRICS["roc_auc"].needs
    ('lower', 'probabilities')
    """

    function: Callable[..., float]
    better: Literal["higher", "lower"]
    needs: Literal["classes", "probabilities", "values"]


METRICS = {
    "accuracy": Metric(accuracy, "higher", "classes"),
    "balanced_accuracy": Metric(balanced_accuracy, "higher", "classes"),
    "precision": Metric(precision, "higher", "classes"),
    "recall": Metric(recall, "higher", "classes"),
    "f1": Metric(f1, "higher", "classes"),
    "roc_auc": Metric(roc_auc, "higher", "probabilities"),
    "average_precision": Metric(average_precision, "higher", "probabilities"),
    "log_loss": Metric(log_loss, "lower", "probabilities"),
    "brier": Metric(brier, "lower", "probabilities"),
    "r2": Metric(r2, "higher", "values"),
    "mae": Metric(mae, "lower", "values"),
    "rmse": Metric(rmse, "lower", "values"),
    "median_absolute_error": Metric(median_absolute_error, "lower", "values"),
}
# What a summary holds.
OF_CLASSES = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
OF_PROBABILITIES = ("roc_auc", "average_precision", "log_loss")
OF_VALUES = ("r2", "mae", "rmse")


# -- By name ---------------------------------------------------------------------------


def measure(
    name: str,
    t: Any,
    predicted: Any,
    probabilities: Any = None,
    *,
    classes: Classes = None,
) -> float | None:
    """Return one metric by its name in `METRICS`; None where it is undefined.

    Parameters
    ----------
    name : str
    t : array, shape=(N,), or (N, outputs) for a regression
    predicted : array
        Class indices, or the values of a regression.
    probabilities : array, shape=(N,) or (N, C), optional
        What a metric of probabilities reads in place of `predicted`.
    classes : int or sequence of str, optional
        By default as many as there are columns of probabilities.

    Raises
    ------
    UsageError
        There is no such metric, or it needs probabilities and there are none.
    DataError
        The arrays do not fit each other.

    Examples
    --------
    >>> measure("mae", [1.0, 2.0], [1.0, 4.0])
    1.0
    """
    metric = _found(name)
    if metric.needs == "values":
        return _defined(metric.function(t, predicted))
    if metric.needs == "probabilities":
        if probabilities is None:
            raise UsageError(
                f"{name} needs probabilities, which this model does not give; use one of "
                f"{', '.join(OF_CLASSES)}, or train with the loss softmax or sigmoid"
            )
        return _defined(metric.function(t, probabilities, classes=classes))
    classes = _known(t, predicted, probabilities, classes)
    return _defined(metric.function(t, predicted, classes=classes))


def higher_is_better(name: str) -> bool:
    """Whether more is better of a metric in `METRICS`; of a loss or an error, less is.

    Raises
    ------
    UsageError
        There is no such metric.

    Examples
    --------
    >>> higher_is_better("f1"), higher_is_better("rmse")
    (True, False)
    """
    return _found(name).better == "higher"


def _found(name: str) -> Metric:
    if name in METRICS:
        return METRICS[name]
    near = difflib.get_close_matches(str(name).lower().replace("-", "_"), METRICS, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"there is no metric {shown(name)}; {meant}expected {', '.join(METRICS)}")


def _defined(value: float) -> float | None:
    """None in place of NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None


# -- All at once -----------------------------------------------------------------------


def classification_scores(
    t: Any,
    predicted: Any,
    probabilities: Any = None,
    classes: Classes = None,
    *,
    sample_weight: Any = None,
) -> dict[str, float | None]:
    """Return the metrics of a classification by name, for tables and for JSON.

    Parameters
    ----------
    t, predicted : integer array, shape=(N,)
        Class indices, or labels that are text.
    probabilities : array, shape=(N,) or (N, C), optional
        Without them, the metrics of probabilities are None.
    classes : int or sequence of str, optional
        By default as many as there are columns of probabilities, or as `accuracy` finds.
    sample_weight : array, shape=(N,), optional

    Returns
    -------
    dict of str to float or None
        accuracy, balanced_accuracy, precision, recall, f1, roc_auc, average_precision, log_loss.
        Of two classes, precision, recall, F1 and average precision are those of the second; of
        more, the means over the classes. None: undefined.

    Raises
    ------
    DataError, UsageError
        As for `accuracy` and `roc_auc`.

    Examples
    --------
    >>> scores = classification_scores([0, 0, 1], [0, 1, 1], [0.2, 0.6, 0.9])
    >>> scores["recall"], scores["roc_auc"]
    (1.0, 1.0)
    """
    t, predicted = on_host(t, "t"), on_host(predicted, "predicted")  # once, not for each metric
    if probabilities is not None:
        probabilities = on_host(probabilities, "probabilities")
    classes = _known(t, predicted, probabilities, classes)
    options: dict[str, Any] = {"classes": classes, "sample_weight": sample_weight}
    scores = {
        name: _defined(METRICS[name].function(t, predicted, **options)) for name in OF_CLASSES
    }
    if probabilities is None:
        return scores | dict.fromkeys(OF_PROBABILITIES)
    found = [*areas(t, probabilities, **options), log_loss(t, probabilities, **options)]
    return scores | dict(zip(OF_PROBABILITIES, map(_defined, found), strict=True))


def regression_scores(
    t: Any, predicted: Any, *, sample_weight: Any = None
) -> dict[str, float | None]:
    """Return the metrics of a regression by name: r2, mae, rmse, in the units of the targets.

    Parameters and errors are those of `xpnet.metrics.r2`. None: undefined.

    Examples
    --------
    >>> regression_scores([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    {'r2': 1.0, 'mae': 0.0, 'rmse': 0.0}
    """
    return {
        name: _defined(METRICS[name].function(t, predicted, sample_weight=sample_weight))
        for name in OF_VALUES
    }


def _known(t: Any, predicted: Any, probabilities: Any, classes: Classes) -> Classes:
    """The classes that all metrics shall count: those given, or found in the arrays."""
    if classes is not None:
        return classes
    found = occurring(t, predicted)
    if isinstance(found, int) and probabilities is not None and np.ndim(probabilities) == 2:
        return max(2, int(np.shape(probabilities)[1]))
    return found


# -- By class --------------------------------------------------------------------------


class ClassRow(NamedTuple):
    """One class of a table: its name, its metrics, and how many samples it has in `t`.

    Examples
    --------
    >>> row = per_class_table([0, 1, 1], [0, 1, 0], ["no", "yes"])[1]
    >>> row.name, row.precision, row.recall
    ('yes', 1.0, 0.5)
    """

    name: str
    precision: float
    recall: float
    f1: float
    samples: int


def per_class_table(t: Any, predicted: Any, classes: Classes = None) -> list[ClassRow]:
    """Return precision, recall, F1 and the number of samples of each class.

    Parameters
    ----------
    t, predicted, classes
        As for `accuracy`.

    Raises
    ------
    DataError, UsageError
        As for `accuracy`.

    Examples
    --------
    >>> per_class_table([0, 0, 1], [0, 0, 0], ["no", "yes"])[1]
    ClassRow(name='yes', precision=0.0, recall=0.0, f1=0.0, samples=1)
    """
    if classes is None:
        classes = occurring(t, predicted)
    p = pairs(t, predicted, classes)
    names = [str(i) for i in range(p.classes)]
    if classes is not None and not isinstance(classes, int | np.integer):
        names[: len(classes)] = map(str, classes)
    columns = (
        f(p.t, p.predicted, average=None, classes=p.classes) for f in (precision, recall, f1)
    )
    numbers = zip(*(column.tolist() for column in columns), counts(p)[2].tolist(), strict=True)
    return [ClassRow(name, *row) for name, row in zip(names, numbers, strict=True)]


def lines(
    scores: Mapping[str, float | None], table: Sequence[ClassRow] = (), most: int = MOST
) -> list[str]:
    """Return scores, and below them a table of classes, as aligned lines of text.

    Parameters
    ----------
    scores : mapping of str to float or None
        From `classification_scores` or `regression_scores`, say.
    table : sequence of ClassRow, optional
        From `per_class_table`. Of more than `most` classes, those with the lowest F1 are shown.
    most : int

    Examples
    --------
    >>> print(*lines({"accuracy": 0.75, "roc_auc": None}), sep="\\n")
    accuracy  0.75
    roc_auc   undefined
    """
    width = max(map(len, scores), default=0)
    text = [
        f"{name:<{width}}  {'undefined' if score is None else f'{score:.4g}'}"
        for name, score in scores.items()
    ]
    if not table:
        return text
    rows = list(table)
    if len(rows) > most:
        rows = sorted(rows, key=lambda row: row.f1)[:most]
        text.append(f"the {most} classes of {len(table):,} with the lowest F1:")
    cells: list[tuple[str, ...]] = [("class", "precision", "recall", "f1", "samples")]
    for row in rows:
        shares = (f"{share:.4f}" for share in (row.precision, row.recall, row.f1))
        cells.append((_short(row.name), *shares, f"{row.samples:,}"))
    widths = [max(len(row[i]) for row in cells) for i in range(5)]
    for name, *numbers in cells:
        right = (f"{n:>{w}}" for n, w in zip(numbers, widths[1:], strict=True))
        text.append("  ".join([f"{name:<{widths[0]}}", *right]))
    return text


def _short(name: str, most: int = 24) -> str:
    name = one_line(name)
    return name if len(name) <= most else f"{name[: most - 1]}…"
