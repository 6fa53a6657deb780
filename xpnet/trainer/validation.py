"""The validation part of a training: the one that you give, or a share that is split off."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.data.checks import host
from xpnet.data.dataset import select_rows
from xpnet.data.frames import frame_table, is_frame
from xpnet.data.labels import labels_of
from xpnet.data.preparation import split
from xpnet.errors import DataError, UsageError, real, shown
from xpnet.models.evaluation import class_indices
from xpnet.models.model import Model
from xpnet.parallel.group import ALONE, Group

__all__ = ["checked_validation", "drawn", "rows_of", "split_off"]

Pair = tuple[Any, Any]


def checked_validation(validation: Any) -> tuple[Pair | None, float | None]:
    """Return (pair, share) of what a user gives: (x, t), a share of the data, or None.

    Raises
    ------
    UsageError
        It is none of them.

    Examples
    --------
    >>> checked_validation(0.1)
    (None, 0.1)
    """
    if validation is None:
        return None, None
    if isinstance(validation, tuple | list) and len(validation) == 2:
        return (validation[0], validation[1]), None
    try:
        return None, real("validation", validation, 0.0, 1.0, "()")
    except UsageError:
        raise UsageError(
            f"validation is {shown(validation)}; expected a pair (x, t), or a share of the data "
            "above 0 and below 1, such as 0.1"
        ) from None


def split_off(
    model: Model,
    x: Any,
    t: Any,
    share: float,
    seed: int,
    *,
    standardize: bool,
    group: Group = ALONE,
) -> tuple[Any, np.ndarray, Pair, np.ndarray]:
    """Check the data as a whole, and split a share off; columns are learned from the rest alone.

    The checks come first, so that messages name the rows of what you gave.

    Parameters
    ----------
    model : Model
        It knows the names of the classes already.
    x, t : array or data frame; array, list or series
    share : float
    seed : int
    standardize : bool
        As for `Model.learning_names`.
    group : Group
        As for `Model.checked_samples`.

    Returns
    -------
    x, t : array
        Features and targets of the training part.
    validation : (x, t)
        Those of the other part.
    rest : integer array
        The rows of the training part.

    Raises
    ------
    DataError
        x or t does not fit the network, or one of the parts would be empty.
    """
    if not is_frame(x):
        x, t = model.checked_pair(x, t, group=group)
        rest, part = drawn(t, share, seed, model.evaluation.classifies(t))
        return select_rows(x, rest), t[rest], (select_rows(x, part), t[part]), rest
    table = frame_table(x)
    t = model.checked_targets(t, len(table))
    rest, part = drawn(t, share, seed, model.evaluation.classifies(t))
    model.learn_columns(table.rows(rest), standardize=standardize)
    x = model.checked_samples(table.rows(rest))
    held = model.checked_samples(table.rows(part), " of the validation part", x.dtype)
    return x, t[rest], (held, t[part]), rest


def drawn(t: np.ndarray, share: float, seed: int, classes: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draw the rows of the training and of the validation part.

    They are those that `xpnet.data.split` draws from the seed (seed, 2), in which every class has
    its share.

    Parameters
    ----------
    t : array
        Checked targets.
    share : float
    seed : int
    classes : bool
        Whether the targets are classes.

    Raises
    ------
    DataError
        One of the parts would be empty.

    Examples
    --------
    >>> rest, part = drawn(np.array([0, 1] * 50), 0.1, 0, True)
    >>> len(rest), np.bincount(part % 2).tolist()
    (90, [5, 5])
    """
    if not 0 < int(len(t) * share + 0.5) < len(t):
        raise DataError(
            f"validation: a share of {share:g} of {len(t)} samples leaves one part empty; give a "
            "pair (x, t), or more samples"
        )
    return split(class_indices(t) if classes else t, share, (seed, 2), stratify=classes)


def rows_of(labels: Any, rows: np.ndarray) -> Any:
    """Return some of the targets, text or not, as you gave them.

    Examples
    --------
    >>> rows_of(["a", "b", "c"], np.array([0, 2]))
    ['a', 'c']
    """
    labels = labels_of(labels, "t")
    if isinstance(labels, list):
        return [labels[row] for row in rows]
    return host(labels, "t")[rows]
