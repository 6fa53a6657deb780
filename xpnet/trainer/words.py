"""What a training prints: the same lines for `Trainer.fit` and for the command line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xpnet.backend.interface import Backend
from xpnet.data.augmentation import Augmentation
from xpnet.data.dataset import in_several_files, is_streamed
from xpnet.data.images import layout
from xpnet.errors import one_line
from xpnet.models.model import Model
from xpnet.models.network import Network
from xpnet.optim import Watch
from xpnet.trainer.history import Epoch, History

__all__ = [
    "Log", "backend_line", "data_line", "described", "ended", "epoch_line", "fallback_lines",
    "fields", "is_shown", "network_line", "note_lines", "print_lines", "quietly", "rate",
    "training_line",
]  # fmt: skip

MOST_LINES = 20  # about as many epochs a run prints
SHOWN_FALLBACKS = 5  # the most lines at a time about fallbacks that slow the run down


# -- At the start ----------------------------------------------------------------------


def described(
    model: Model,
    optimizer: Any,
    x: Any,
    t: np.ndarray,
    held: Any,
    epochs: int,
    batch_size: int,
    weight_decay: float,
    l1: float,
    augmentation: Augmentation | None = None,
    ranks: int = 1,
) -> list[str]:
    """Return lines about data, network, training and backend; see the functions below."""
    classes = max(model.network.outputs or 0, 2) if model.classifies else None
    images = layout(x.shape)
    return [
        data_line(x, t, held, classes),
        *([f"samples   {images}"] if images else []),
        network_line(model.network),
        training_line(
            optimizer, epochs, batch_size, model.feed.dtype, weight_decay, l1, augmentation
        ),
        backend_line(model.backend, ranks),
    ]  # fmt: skip


def data_line(x: Any, t: np.ndarray, held: Any, classes: int | None) -> str:
    """Return what `fit` trains on, in one line.

    Parameters
    ----------
    x, t : array
        The training part.
    held : (x, t) or None
        The validation part.
    classes : int or None
        How many there are; None for a regression.

    Examples
    --------
    >>> data_line(np.zeros((80, 4)), np.zeros(80, int), (np.zeros((20, 4)), None), 3)
    'data      80 + 20 samples (train + val), 4 features, 3 classes'
    """
    sizes = f"{len(x):,}" if held is None else f"{len(x):,} + {len(held[0]):,}"
    parts = "" if held is None else " (train + val)"
    shape = (
        " x ".join(map(str, x.shape[1:])) + " values"
        if x.ndim > 2
        else f"{x.shape[1]:,} " + ("feature" if x.shape[1] == 1 else "features")
    )
    kind = "regression" if classes is None else f"{classes} classes"
    if classes is None and t.ndim > 1 and t.shape[1] > 1:
        kind += f" of {t.shape[1]} targets"
    where = ""
    if is_streamed(x):
        where = ", read from files" if in_several_files(x) else ", read from a file"
    return f"data      {sizes} samples{parts}, {shape}{where}, {kind}"


def network_line(network: Network, start: str = "") -> str:
    """Return the layers of a network and its number of parameters; `start` ends the line."""
    count = sum(p.size for p in network.params.values())
    built = network.arguments
    if "channels" in built:
        return f"network   {network.in_words}{start}"
    if "sizes" not in built:
        arrays = f"{len(network.params)} arrays" if len(network.params) != 1 else "1 array"
        return f"network   built by hand, {count:,} parameters in {arrays}{start}"
    loss = built["loss"]
    if not isinstance(loss, str):  # a name with settings
        loss = f"{loss[1]['quantile']:g}-quantile" if "quantile" in loss[1] else loss[0]
    activations = [name for name in built["activation"] if name != "identity"]
    if len(set(activations)) == 1:
        del activations[1:]
    words = [" - ".join(map(str, built["sizes"])), *activations]
    words += [*(["batch norm"] if built.get("batch_norm") else []), f"{loss} loss"]
    return f"network   {', '.join(words)}, {count:,} parameters{start}"


def training_line(
    optimizer: Any,
    epochs: int,
    batch_size: int,
    dtype: str,
    weight_decay: float | None = None,
    l1: float | None = None,
    augmentation: Augmentation | None = None,
) -> str:
    """Return the rule, its rate, how long it trains, and what it does to images, in one line.

    `weight_decay` and `l1` are those of the trainer; AdamW has its own decay.

    Examples
    --------
    >>> from xpnet import optim
    >>> training_line(optim.AdamW(optim.cosine(0.01, 300), weight_decay=0.5), 30, 16, "float32")
    'training  adamw, lr 0.01 cosine, weight decay 0.5, 30 epochs, batch 16, float32'
    """
    decay = getattr(optimizer, "weight_decay", weight_decay)
    words = [
        type(optimizer).__name__.lower(),
        rate(optimizer.lr),
        *([f"weight decay {decay:g}"] if decay else []),
        *([f"l1 {l1:g}"] if l1 else []),
        "1 epoch" if epochs == 1 else f"{epochs} epochs",
        f"batch {batch_size}",
        dtype,
        *([f"augment {augmentation}"] if augmentation is not None else []),
    ]
    return f"training  {', '.join(words)}"


def rate(lr: Any) -> str:
    """Return a learning rate, or its schedule, in words.

    Examples
    --------
    >>> rate(0.1), rate(lambda k: 0.1)
    ('lr 0.1 constant', 'lr by a function')
    """
    if not callable(lr):
        return f"lr {lr:g} constant"
    schedule, warmup = getattr(lr, "schedule", lr), getattr(lr, "warmup", 0)
    if (peak := getattr(schedule, "lr", None)) is None:
        return "lr by a function"
    names = {"_StepDecay": "step", "_InverseTime": "inverse"}
    kind = type(schedule).__name__
    words = names.get(kind, kind.lstrip("_").lower())
    return f"lr {peak:g} {words}" + (f", warmup {warmup:,}" if warmup else "")


def backend_line(backend: Backend, ranks: int = 1) -> str:
    """Return the library and the device, how many ranks use it, and why it is not the GPU."""
    more = f", {ranks:,} ranks" if ranks > 1 else ""
    return f"backend   {backend}{more}{backend.note and f'; {backend.note}'}"


# -- On the way ------------------------------------------------------------------------


def fields(epoch: Epoch, score: str, metric: str | None) -> dict[str, Any]:
    """Return the numbers of an epoch by the names of metrics.jsonl.

    Parameters
    ----------
    epoch : Epoch
    score : {"accuracy", "r2"}
        What the scores are.
    metric : str or None
        What val_metric is; None if the loss decides.
    """
    found = {key.replace("score", score): value for key, value in asdict(epoch).items()}
    watched = found.pop("val_metric")
    return {**found, f"val_{metric}": watched} if metric else found


def epoch_line(
    epoch: Epoch, epochs: int, score: str, metric: str | None = None, rate: float | None = None
) -> str:
    """Return the numbers of an epoch in one line; `rate` was its learning rate, where it is told.

    The other parameters are those of `fields`.
    """
    words = [f"epoch {epoch.epoch:3d}/{epochs}"]
    for name, value in fields(epoch, score, metric).items():
        if name.startswith(("train_", "val_")) and value is not None:
            words.append(f"{name.replace('_', ' ')} {value:.4f}")
    words += [] if rate is None else [f"lr {rate:.4g}"]
    return "  ".join([*words, f"{epoch.samples_per_second:,.0f} samples/s"])


def is_shown(epoch: int, epochs: int) -> bool:
    """Whether an epoch's line is printed: of many epochs the first, the last and every k-th.

    Examples
    --------
    >>> [epoch for epoch in range(1, 101) if is_shown(epoch, 100)]
    [1, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95, 100]
    """
    if epochs <= MOST_LINES:
        return True
    every = next(
        step * 10**power
        for power in range(12)
        for step in (1, 2, 5)
        if epochs <= MOST_LINES * step * 10**power
    )
    return epoch in (1, epochs) or epoch % every == 0


def fallback_lines(found: list[str]) -> list[str]:
    """Return lines about parts that run slower than they could."""
    lines = [f"slower    {line} (docs/gpu.md)" for line in found[:SHOWN_FALLBACKS]]
    if len(found) > SHOWN_FALLBACKS:
        lines.append(f"slower    and {len(found) - SHOWN_FALLBACKS} more like these")
    return lines


# -- At the end ------------------------------------------------------------------------


def ended(history: History) -> list[str]:
    """Return how a training ended, where it is not by its last epoch."""
    words = {
        "patience": "stopped by patience",
        "callback": "stopped by a callback",
        "stop": f"stopped in epoch {len(history.epochs) + 1}, step {history.steps}",
    }.get(history.reason, "")
    if history.best_params and history.reason != "stop":
        best = f"the model has the weights of epoch {history.best_epoch}, the best one"
        words = f"{words}; {best}" if words else best
    return [words] if words else []


def note_lines(history: History) -> list[str]:
    """Return advice as lines; a warning has said the rest."""
    return [f"note      {note}" for note in history.notes if note != history.failure]


# -- Printing --------------------------------------------------------------------------


def print_lines(*lines: str) -> None:
    """Print lines on stdout, above a progress bar if there is one.

    Raises
    ------
    OSError
        stdout is closed, full, or nobody reads it.
    """
    # A terminal that cannot show ∂ shows ? in its place.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = "\n".join(map(one_line, lines)).encode(encoding, "replace").decode(encoding)
    # Only over a bar: in a lock that `tqdm.write` takes, Ctrl-C becomes an AttributeError.
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    write = bars.write if bars is not None and getattr(bars, "_instances", None) else print
    write(text)
    if sys.stdout is not None:
        sys.stdout.flush()


@dataclass
class Log:
    """The lines of one training, printed while it goes on.

    Attributes
    ----------
    say : callable
        Prints lines.
    epochs : int
    score, metric : str, str or None
        As for `fields`.
    """

    say: Callable[..., None]
    epochs: int
    score: str
    metric: str | None = None
    rate: float | None = None  # of the last epoch, if a plateau lowers it
    last: int = 0  # the epoch whose line came last
    told: int = 0  # of the backend's fallbacks

    def epoch(self, trainer: Any, epoch: Epoch) -> None:
        """Print the line of an epoch, or not, if there are many; a callback of `Trainer.fit`."""
        self.fallbacks(trainer.backend)
        if Watch.of(trainer.optimizer.lr) is not None:
            self.rate = trainer.rate
        if is_shown(epoch.epoch, self.epochs):
            self._line(epoch)

    def _line(self, epoch: Epoch) -> None:
        self.last = epoch.epoch
        self.say(epoch_line(epoch, self.epochs, self.score, self.metric, self.rate))

    def fallbacks(self, backend: Backend) -> None:
        """Report what is new among the backend's fallbacks."""
        if lines := fallback_lines(backend.fallbacks[self.told :]):
            self.say(*lines)
        self.told = len(backend.fallbacks)

    def close(self, history: History) -> None:
        """Print the last epoch's line, if no line of it was due."""
        if self.last and history.epochs and history.epochs[-1].epoch != self.last:
            self._line(history.epochs[-1])

    def end(self, history: History) -> None:
        """Print how the training ended, and advice; but not again what is a warning."""
        self.close(history)
        if lines := [*ended(history), *note_lines(history)]:
            self.say(*lines)


def quietly(say: Callable[..., None]) -> Callable[..., None]:
    """Return a `say` that goes on in silence, after a warning, where nothing can be printed."""
    failed = False

    def attempt(*lines: str) -> None:
        nonlocal failed
        if failed:
            return
        try:
            say(*lines)
        except OSError as error:
            failed = True
            reason = error.strerror or error
            warnings.warn(f"cannot print ({reason}); training continues in silence", stacklevel=2)

    return attempt
