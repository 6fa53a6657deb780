"""The right numbers: metrics of classifications and regressions, from arrays of any library.

Each takes targets and answers, ``f(t, predicted)`` or ``f(t, probabilities)``, of NumPy, CuPy,
PyTorch, JAX or another library of the Python Array API; lists and series of data frames too. It
computes on the host in float64 and returns a Python float, or a NumPy array for values per class
and for curves. NaN says that a number is undefined: of one class only, say. Summaries hold None
there. Nothing here needs scikit-learn; the tests compare with it.
"""

from xpnet.metrics.classes import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    f1,
    precision,
    recall,
)
from xpnet.metrics.probabilities import Calibration, brier, calibration_curve, log_loss
from xpnet.metrics.ranking import (
    PrecisionRecall,
    Roc,
    average_precision,
    best_threshold,
    precision_recall_curve,
    roc_auc,
    roc_curve,
)
from xpnet.metrics.summary import (
    METRICS,
    ClassRow,
    Metric,
    classification_scores,
    higher_is_better,
    lines,
    measure,
    per_class_table,
    regression_scores,
)
from xpnet.metrics.values import mae, median_absolute_error, r2, rmse

__all__ = [
    "METRICS", "Calibration", "ClassRow", "Metric", "PrecisionRecall", "Roc", "accuracy",
    "average_precision", "balanced_accuracy", "best_threshold", "brier", "calibration_curve",
    "classification_scores", "confusion_matrix", "f1", "higher_is_better", "lines", "log_loss",
    "mae", "measure", "median_absolute_error", "per_class_table", "precision",
    "precision_recall_curve", "r2", "recall", "regression_scores", "rmse", "roc_auc", "roc_curve",
]  # fmt: skip
