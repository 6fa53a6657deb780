"""Fits that a search has trained beforehand, many at once: `fit` finds them by what it is given.

A fit is found by the estimator's class and parameters and by the very data, so whoever asks gets
what a training of its own would give.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import joblib
import numpy as np

from xpnet.sklearn.arrays import to_host

__all__ = ["Trained", "data_print", "fingerprint", "known", "trained_before"]


@dataclass
class Trained:
    """An estimator that was trained beforehand.

    Attributes
    ----------
    est : estimator
    warned : list of (message, category)
        What its fit has to warn of.
    seconds : float
        Its share of the time.
    given : bool
        Whether a fit has taken it.
    """

    est: Any
    warned: list[tuple[Any, type[Warning]]] = field(default_factory=list)
    seconds: float = 0.0
    given: bool = False

    def given_to(self, est: Any) -> Any:
        """Make another estimator what this one is; warn and fail as its own fit would."""
        self.given = True
        for message, category in self.warned:
            warnings.warn(message, category, stacklevel=4)
        settings = est.get_params(deep=False)
        for name, value in vars(self.est).items():
            if name not in settings and name != "_optimizer":
                setattr(est, name, list(value) if isinstance(value, list) else value)
        est.coefs_, est.intercepts_ = self.est._copies()
        est._check_finite()
        return est


# Several fits have one name only without a seed: each of them is then given once.
Fits = Mapping[str, list[Trained]]
_KNOWN: ContextVar[Fits] = ContextVar("known", default=MappingProxyType({}))


@contextmanager
def known(fits: Fits) -> Iterator[None]:
    """Let `fit` take these, by their `fingerprint`, in this thread and this block."""
    token = _KNOWN.set(fits)
    try:
        yield
    finally:
        _KNOWN.reset(token)


def trained_before(est: Any, X: Any, y: Any, sample_weight: Any) -> Trained | None:
    """Return the fit that was trained beforehand, if there is one."""
    fits = _KNOWN.get()
    if not fits:
        return None
    found = fits.get(fingerprint(est, data_print(X, y, sample_weight)), [])
    return found.pop(0) if len(found) > 1 else next(iter(found), None)


def data_print(*data: Any) -> str:
    """Return a digest of the data of a fit: X, y and sample_weight."""
    return " ".join(map(_digest, map(to_host, data)))


def _digest(array: Any) -> str:
    if not isinstance(array, np.ndarray) or array.dtype.hasobject:
        return str(joblib.hash(array))
    digest = hashlib.blake2b(np.ascontiguousarray(array).view(np.uint8).data, digest_size=20)
    return f"{array.dtype} {array.shape} {digest.hexdigest()}"


def fingerprint(est: Any, data: str, without: Container[str] = ()) -> str:
    """Return a digest of an estimator before its fit, its parameters and data."""
    settings = sorted(est.get_params(deep=False).items())
    texts = [f"{name}={_text(value)}" for name, value in settings if name not in without]
    return " ".join([type(est).__name__, data, *texts])


def _text(value: Any) -> str:
    if isinstance(value, np.random.RandomState):
        return str(joblib.hash(value.get_state()))
    return f"{type(value).__name__} {value!r}"
