"""The parts of the data that the models of a set train on: all of it, folds, or groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.data.checks import host
from xpnet.data.dataset import is_streamed, select_rows
from xpnet.data.labels import labels_of
from xpnet.errors import DataError, UsageError, shown, whole
from xpnet.models.evaluation import class_indices
from xpnet.models.model import Model
from xpnet.trainer.preparing import Prepared, prepare
from xpnet.trainer.validation import Pair, drawn

__all__ = [
    "Part", "Rows", "class_weight_by_index", "folds_of", "groups_of", "prepared_part", "resampled",
    "rows_of_parts",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows of the data, ready for a training.

    Attributes
    ----------
    model : Model
        Like those that are trained on it, with the scalings that its rows decide.
    given : Prepared
    """

    model: Model
    given: Prepared


@dataclass(frozen=True, eq=False)
class Rows:
    """Which rows a part has: None for all of them.

    Attributes
    ----------
    train, held : integer array or None
        Rows to train on; rows to measure on.
    fold, group
        As in `xpnet.many.members.Member`.
    """

    train: np.ndarray | None = None
    held: np.ndarray | None = None
    fold: int | None = None
    group: Any = None


def folds_of(folds: Any, t: np.ndarray, classes: bool) -> list[Rows]:
    """Return the folds: a number of them, in which every class has its share, or your own.

    Parameters
    ----------
    folds : int, or iterable of (train, test) integer arrays
        Such as ``sklearn.model_selection.KFold(5).split(x)``. A number of folds is drawn from the
        seed (0, 4): each sample is held out once.
    t : array
        Checked targets.
    classes : bool
        Whether they are classes.

    Raises
    ------
    UsageError, DataError

    Examples
    --------
    >>> parts = folds_of(2, np.array([0, 0, 1, 1]), True)
    >>> [np.sort(np.array([0, 0, 1, 1])[part.held]).tolist() for part in parts]
    [[0, 1], [0, 1]]
    """
    n = len(t)
    if isinstance(folds, Iterable) and not isinstance(folds, str):
        found = []
        for number, pair in enumerate(folds):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise UsageError(
                    f"folds: fold {number} is {shown(pair)}; expected a pair of row numbers: "
                    "(train, test)"
                )
            train, held = (_rows(part, n, number) for part in pair)
            found.append(Rows(train, held, number))
        if not found:
            raise UsageError("folds is an empty list; expected at least one pair (train, test)")
        return found
    count = whole("folds", folds, 2)
    if count > n:
        raise DataError(f"folds is {count}, but there are {n} samples; give at most {n} folds")
    order = np.random.default_rng((0, 4)).permutation(n)
    if classes:  # cards are dealt class by class
        order = order[np.argsort(class_indices(t)[order], kind="stable")]
    fold = np.empty(n, np.int64)
    fold[order] = np.arange(n) % count
    return [
        Rows(np.flatnonzero(fold != number), np.flatnonzero(fold == number), number)
        for number in range(count)
    ]


def _rows(rows: Any, n: int, number: int) -> np.ndarray:
    found = np.asarray(host(rows, f"folds: fold {number}"))
    if found.dtype == bool and found.shape == (n,):
        found = np.flatnonzero(found)
    if found.ndim != 1 or not found.size or found.dtype.kind not in "iu":
        raise UsageError(
            f"folds: fold {number} has rows of {found.dtype}, shape {found.shape}; expected row "
            "numbers, at least one for training and one for testing"
        )
    if found.min() < 0 or found.max() >= n:
        raise UsageError(
            f"folds: fold {number} has rows from {found.min()} to {found.max()}; expected 0 to "
            f"{n - 1}"
        )
    return found.astype(np.int64)


def groups_of(groups: Any, n: int) -> list[Rows]:
    """Return the rows of each group, in the order of their labels.

    Examples
    --------
    >>> [(part.group, part.train.tolist()) for part in groups_of(["b", "a", "b"], 3)]
    [('a', [1]), ('b', [0, 2])]
    """
    labels = labels_of(groups, "groups")
    labels = host(labels, "groups")
    if labels.shape != (n,):
        raise DataError(
            f"groups: got shape {labels.shape}, expected {(n,)}: the group of each sample"
        )
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise DataError("groups: has NaN; expected the group of each sample")
    names, index = np.unique(labels, return_inverse=True)
    return [
        Rows(np.flatnonzero(index == number), group=name)
        for number, name in enumerate(names.tolist())
    ]


def rows_of_parts(
    rows: Sequence[Rows], t: np.ndarray, share: float | None, seed: int, classes: bool
) -> list[Rows]:
    """Split a share off each part for validation, with the rows that a trainer's seed draws."""
    if share is None:
        return list(rows)
    found = []
    for part in rows:
        own = np.arange(len(t)) if part.train is None else part.train
        try:
            train, held = drawn(t[own], share, seed, classes)
        except DataError as error:
            where = "" if part.group is None else f"group {part.group}: "
            raise DataError(f"{where}{error}") from None
        found.append(Rows(own[train], own[held], part.fold, part.group))
    return found


def prepared_part(
    model: Model,
    x: Any,
    t: np.ndarray,
    rows: Rows,
    *,
    pair: Pair | None,
    sample_weight: Any,
    class_weight: Any,
    finds: tuple[bool, bool],
    counts: np.ndarray | None = None,
) -> Part:
    """Check a part of the data, and let the model take what depends on it.

    Parameters
    ----------
    model : Model
        A fresh one, that nothing else uses.
    x, t : array
        Checked, of the whole data.
    rows : Rows
    pair : (x, t) or None
        Validation data for all parts.
    sample_weight, class_weight, finds
        As for `xpnet.trainer.preparing.prepare`.
    counts : array, shape=(N,), optional
        How often a bootstrap sample has each sample of the part; it multiplies the weights.
    """
    here_x, here_t = x, t
    if rows.train is not None:
        here_x, here_t = select_rows(x, rows.train), t[rows.train]
        sample_weight = None if sample_weight is None else sample_weight[rows.train]
    if rows.held is not None:
        pair = select_rows(x, rows.held), t[rows.held]
    try:
        given = prepare(
            model, here_x, here_t, pair=pair, share=None, seed=0,
            sample_weight=sample_weight, class_weight=class_weight, finds=finds,
        )  # fmt: skip
    except DataError as error:
        name = "fold" if rows.fold is not None else "group"
        where = rows.fold if rows.group is None else rows.group
        raise DataError(f"{name} {where}: {error}" if where is not None else str(error)) from None
    found = given.scaling, given.target_scaling
    if any(new is not old for new, old in zip(found, _scalings(model), strict=True)):
        model.rescale(*found)
    model.classifies = model.evaluation.classifies(given.t)
    model.sample_dtype = str(given.x.dtype)
    if counts is not None:
        weights = given.weights[0] if given.weights else 1.0
        given = given._replace(weights=(counts * weights,))
    if not is_streamed(given.x):
        given = given._replace(x=np.ascontiguousarray(given.x))
    return Part(model, given)


def _scalings(model: Model) -> tuple[Any, Any]:
    return model.feed.scaling, model.feed.target_scaling


def resampled(n: int, seed: int) -> np.ndarray:
    """Return how often a bootstrap sample of n has each sample; drawn from the seed (seed, 5).

    Source: Efron, "Bootstrap methods: another look at the jackknife", 1979.

    Examples
    --------
    >>> int(resampled(100, seed=0).sum())
    100
    """
    drawn = np.random.default_rng((seed, 5)).integers(0, n, n)
    return np.bincount(drawn, minlength=n).astype(np.float64)


def class_weight_by_index(class_weight: Any, classes: Sequence[str] | None) -> Any:
    """Return weights of classes by their indices, where you gave them by name."""
    if not isinstance(class_weight, Mapping) or classes is None:
        return class_weight
    places = {name: index for index, name in enumerate(classes)}
    return {places.get(name, name): weight for name, weight in class_weight.items()}
