"""From data to a trained network in one call."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from xpnet import optim
from xpnet.backend.interface import Backend
from xpnet.backend.select import select
from xpnet.data.augmentation import Augmentation
from xpnet.data.cells import is_number
from xpnet.data.checks import host
from xpnet.data.dataset import Scaling
from xpnet.data.encoder import Encoder
from xpnet.data.frames import frame_table, is_frame
from xpnet.data.images import channels_first
from xpnet.data.labels import array_targets, labels_of, text_targets
from xpnet.errors import DataError, UsageError, shown
from xpnet.losses import LOSSES
from xpnet.models.kinds import network_of_kind, takes_images
from xpnet.parallel.group import ALONE, Group
from xpnet.trainer.defaults import defaults
from xpnet.trainer.trainer import Trainer
from xpnet.trainer.validation import checked_validation, drawn

__all__ = ["fit"]


def fit(
    x: Any,
    t: Any,
    *,
    model: str = "mlp",
    channels: Sequence[int | Sequence[int]] | None = None,
    kernel: Any = None,
    padding: Any = None,
    pool: int | None = None,
    batch_norm: bool = False,
    hidden: Sequence[int] | None = None,
    activation: str | Sequence[str] | None = None,
    loss: Any = "auto",
    dropout: float | None = None,
    init: str | float = "auto",
    optimizer: optim.Optimizer | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    l1: float | None = None,
    clip_norm: float | None = None,
    augment: Augmentation | str | None = None,
    seed: int = 0,
    device: str = "cpu",
    backend: Backend | str | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    scaling: Scaling | Literal["auto"] | None = "auto",
    target_scaling: Scaling | Literal["auto"] | None = "auto",
    group: Group = ALONE,
    validation: Any = None,
    **training: Any,
) -> Trainer:
    """Build a network for the data, and train it with the defaults for its size.

    Parameters
    ----------
    x : array or data frame
        Features or images, as for `xpnet.Trainer.fit`. The columns of a frame may be numbers, text,
        true / false, and have gaps.
    t : array, list or series
        Text or whole numbers are classes, other numbers are the targets of a regression. For a
        regression on whole numbers, say ``loss="squared"``.
    model : {"mlp", "cnn", "deep-cnn"}
        The kind of network. cnn and deep-cnn take images, shape=(N, rows, columns) or
        (N, channels, rows, columns): they are the convolution networks in chapters 7 and 8 of the
        book, unless you give their channels.
    channels, kernel, padding, pool : optional
        The convolutions of a cnn, as for `xpnet.cnn`; with channels of your own, kernel is 3 and
        padding "same".
    batch_norm : bool
        Normalize the hidden layers' values over the batch.
    hidden : sequence of int, optional
        Sizes of the hidden layers; by default (100, 100), of a cnn (100,), of a deep-cnn (50,).
    activation, init
        As for `xpnet.mlp`.
    dropout : float, optional
        As for `xpnet.mlp` and `xpnet.cnn`; by default 0, of a deep-cnn 0.5.
    loss : str, gate, or (str, mapping)
        As for `xpnet.mlp`; auto is softmax for classes and squared for a regression.
    optimizer, weight_decay, l1, clip_norm, augment, dtype, scaling, target_scaling
        As for `xpnet.Trainer`.
    lr : float, optional
        The learning rate at the start, in place of 0.01 (0.003 with convolutions); `optimizer` has
        its own.
    seed : int
        Random seed for initial weights, dropout, batch order, and a validation part.
    device : str
        cpu, cuda, cuda:N or auto.
    backend : Backend or str, optional
        From `xpnet.select`, or the name of a library.
    group : Group
        From `xpnet.parallel.world`: the processes that train together.
    validation, **training
        As for `xpnet.Trainer.fit`: epochs, batch_size, class_weight, patience, verbose, ...

    Returns
    -------
    Trainer
        It predicts, evaluates, saves and trains on; ``trainer.history`` has the curves. It answers
        with the labels of `t`, also where they are text, or numbers that do not count from 0.

    Raises
    ------
    DataError, UsageError
        As `xpnet.mlp`, `xpnet.Trainer` and `xpnet.Trainer.fit` raise them.

    Examples
    --------
    >>> import xpnet
    >>> x = np.random.default_rng(0).standard_normal((200, 2))
    >>> trainer = xpnet.fit(x, np.where(x.sum(axis=1) > 0, "above", "below"))
    >>> trainer.predict([[2.0, 1.0], [-2.0, -1.0]]).tolist()
    ['above', 'below']
    """
    labels = labels_of(t, "t")
    if not isinstance(labels, list):
        labels = host(labels, "t")
    targets, classes = _targets(labels, loss)
    outputs = targets.shape[1] if classes is None else len(classes)
    if loss == "auto":
        loss = "squared" if classes is None else "softmax"
    encoder = _encoder(x, targets, classes is not None, validation, seed) if is_frame(x) else None
    if encoder is None:
        x = host(x, "x")
    network = network_of_kind(
        model,
        _shape(model, x, encoder),
        1 if _name(loss) == "sigmoid" and outputs == 2 else outputs,
        hidden=None if hidden is None else _sizes(hidden),
        activation=defaults(1).activation if activation is None else activation,
        channels=channels,
        kernel=kernel,
        padding=padding,
        pool=pool,
        batch_norm=batch_norm,
        loss=loss,
        dropout=dropout,
        init=init,
        seed=seed,
    )
    trainer = Trainer(
        network,
        optimizer,
        lr=lr,
        weight_decay=weight_decay,
        l1=l1,
        clip_norm=clip_norm,
        augment=augment,
        seed=seed,
        backend=backend if isinstance(backend, Backend) else select(device, backend, dtype),
        dtype=dtype,
        scaling=scaling,
        target_scaling=target_scaling,
        classes=classes,
        encoder=encoder,
        group=group,
    )
    text = isinstance(labels, list)
    trainer.model.label_dtype = _label_dtype(t, labels, classes)
    trainer.model.flat = classes is None and (text or labels.ndim == 1)
    if text and classes is None:  # numbers, as a file has them
        t = targets
    trainer.fit(x, t, validation=validation, **training)
    return trainer


def _shape(model: str, x: Any, encoder: Encoder | None) -> tuple[int, ...]:
    """Return the shape in which a sample enters the network."""
    if not takes_images(model):
        return (math.prod(x.shape[1:]) if encoder is None else encoder.width,)
    if encoder is not None:
        raise DataError(
            f"x: got a data frame, and model {model} takes images: an array of shape "
            "(N, rows, columns) or (N, channels, rows, columns)"
        )
    return channels_first(x.shape)


def _encoder(x: Any, t: np.ndarray, classes: bool, validation: Any, seed: int) -> Encoder:
    """The encoder of a frame; a share for validation, which `Trainer.fit` splits off, is left out.

    The rows are those that `Trainer.fit` draws, from the same targets and the same seed.
    """
    table, (_, share) = frame_table(x), checked_validation(validation)
    if share is None or len(table) != len(t):  # `Trainer.fit` refuses these
        return Encoder.of(table)
    return Encoder.of(table.rows(drawn(t, share, seed, classes)[0]))


def _name(loss: Any) -> Any:
    return loss[0] if isinstance(loss, tuple | list) and loss else loss


def _sizes(hidden: Any) -> list[Any]:
    if isinstance(hidden, str) or not isinstance(hidden, Iterable):
        raise UsageError(f"hidden is {shown(hidden)}; expected a list of sizes: [100, 100]")
    return list(hidden)


def _targets(labels: Any, loss: Any) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Class indices and the names of the classes; or the targets of a regression, and None."""
    gate = LOSSES.get(name) if isinstance(name := _name(loss), str) else loss
    wanted = getattr(gate, "targets", None)  # None: the targets decide, or `mlp` refuses the loss
    task = "auto" if wanted is None else "regression" if wanted == "real" else "classification"
    if isinstance(labels, list):
        return text_targets(labels, task, None, "t", "t: row {}".format)
    if not labels.ndim or not labels.size:
        raise DataError(f"t: got shape {labels.shape}, expected one target a sample")
    targets, classes = array_targets(labels, len(labels), task, None, "t")
    named = task == "classification" and labels.ndim == 1
    if named and np.any(labels != np.floor(labels)):
        raise DataError(f"t: got numbers that are not whole, expected classes for loss {name}")
    return targets, classes


def _label_dtype(t: Any, labels: Any, classes: tuple[str, ...] | None) -> str:
    """The dtype of labels that are numbers, but not 0, 1, ..., k - 1; else ""."""
    if classes is None:
        return ""
    if isinstance(labels, list):  # text, or the categories of a series, which may be numbers
        values = t.to_list() if hasattr(t, "to_list") else t
        whole = all(type(value) is int for value in values) and all(map(is_number, classes))
        return "int64" if whole else ""
    kind = labels.dtype.kind
    counted = classes == tuple(map(str, range(len(classes)))) and kind in "iu"
    if counted or (labels.ndim == 2 and labels.shape[1] > 1):  # indices, or one-hot rows
        return ""
    return {"b": "bool", "f": "float64", "u": "uint64"}.get(kind, "int64")
