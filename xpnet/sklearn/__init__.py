"""Estimators with scikit-learn's interface, and a search over them; see docs/sklearn.md."""

try:
    from sklearn import __version__ as _version
except ImportError:  # missing, or a folder of that name
    _version = ""
if not _version or tuple(map(int, _version.split(".")[:2])) < (1, 9):
    raise ImportError(
        f"xpnet.sklearn needs scikit-learn 1.9 or newer, found {_version or 'none'}: "
        "pip install 'xpnet[sklearn]'"
    )

from xpnet.sklearn.estimators import MLPClassifier, MLPRegressor
from xpnet.sklearn.search import BatchedGridSearchCV

__all__ = ["BatchedGridSearchCV", "MLPClassifier", "MLPRegressor"]
