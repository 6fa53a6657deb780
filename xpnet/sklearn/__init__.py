"""Estimators with scikit-learn's interface; see docs/sklearn.md."""

from xpnet.sklearn.estimators import MLPClassifier, MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
