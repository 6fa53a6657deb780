"""What a training needs of its data: checked, split, weighted, and with the scalings found."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xpnet.data.checks import check_scaling, checked_weights, host
from xpnet.data.dataset import Scaling
from xpnet.data.labels import labels_of
from xpnet.data.preparation import class_weights, default_scaling, standardize
from xpnet.errors import UsageError
from xpnet.models.model import Model
from xpnet.parallel.group import ALONE, Group
from xpnet.trainer.validation import Pair, rows_of, split_off

__all__ = ["Prepared", "prepare"]


class Prepared(NamedTuple):
    """The data of a training, all of it checked.

    Attributes
    ----------
    x, t : array
        Features and targets of the training part, on the host.
    held : (x, t) or None
        Those of the validation part.
    weights : tuple of array
        The sample weights, if there are any.
    scaling, target_scaling : Scaling or None
        Those that the model has, or those that were found.
    """

    x: Any
    t: np.ndarray
    held: Pair | None
    weights: tuple[np.ndarray, ...]
    scaling: Scaling | None
    target_scaling: Scaling | None


def prepare(
    model: Model,
    x: Any,
    t: Any,
    *,
    pair: Pair | None,
    share: float | None,
    seed: int,
    sample_weight: Any,
    class_weight: Any,
    finds: tuple[bool, bool],
    group: Group = ALONE,
) -> Prepared:
    """Check the data of a training, and find what depends on it.

    The model learns the names of columns and classes, and forgets them where the data is refused.

    Parameters
    ----------
    model : Model
    x, t, sample_weight, class_weight
        As `xpnet.Trainer.fit` takes them.
    pair, share
        From `xpnet.trainer.validation.checked_validation`.
    seed : int
        Of the trainer, for the share.
    finds : (bool, bool)
        Whether the scalings of samples and of targets are still to be found.
    group : Group
        The ranks that share the reading of what stays in a file; all of them call this.

    Raises
    ------
    DataError, UsageError
        The data does not fit the network, or an option does not fit the data.
    """
    if sample_weight is not None:
        sample_weight = host(labels_of(sample_weight, "sample_weight"), "sample_weight")
    mean = model.network.loss_gate.reduction == "mean"
    with model.learning_names(x if share is None else None, t, standardize=finds[0]):
        labels, held = t, pair
        if share is None:
            x, t = model.checked_pair(x, t, group=group)
        else:
            x, t, held, rest = split_off(
                model, x, t, share, seed, standardize=finds[0], group=group
            )
            if sample_weight is not None:
                checked_weights(sample_weight, len(t) + len(held[1]), mean, model.dtype)
                sample_weight = sample_weight[rest]
            labels = rows_of(labels, rest)
        if class_weight is not None:
            if not model.classifies:
                raise UsageError("class_weight needs classes; this is a regression")
            each = class_weights(labels_of(labels, "t"), class_weight, sample_weight)
            sample_weight = each if sample_weight is None else sample_weight * each
        scaling, target_scaling = _scalings(model, x, t, finds, group)
        if pair is not None:
            what = " of the validation set"
            held = model.checked_pair(*pair, what=what, trained_on=x.dtype, group=group)
        weights: tuple[np.ndarray, ...] = ()
        if sample_weight is not None:
            weights = (checked_weights(sample_weight, len(x), mean, model.dtype),)
    return Prepared(x, t, held, weights, scaling, target_scaling)


def _scalings(
    model: Model, x: Any, t: np.ndarray, finds: tuple[bool, bool], group: Group
) -> tuple[Scaling | None, Scaling | None]:
    """Return the scalings of samples and targets: those of the model, or found from the data."""
    scaling, target_scaling = model.feed.scaling, model.feed.target_scaling
    rows = t.reshape(len(t), -1)
    if finds[0]:
        images = len(model.network.input_shape or ()) == 3
        if model.encoder:
            scaling = model.encoder.scaling
        else:
            scaling = default_scaling(x, images=images, group=group)
    if finds[1] and not model.evaluation.classifies(t):
        positive = getattr(model.network.loss_gate, "nonnegative", False)
        target_scaling = None if positive else standardize(rows, "t")
    check_scaling(scaling, x)
    check_scaling(target_scaling, rows, "target_scaling")
    return scaling, target_scaling
