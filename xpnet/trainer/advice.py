"""Advice at the end of a training: what the numbers say, and what to do about it.

Each function looks at one thing and returns a sentence, "" if there is nothing to say. The limits
were tried on small data sets (iris, wine, digits, moons, noisy labels ...), trained well and badly:
a run by the defaults gets no advice, and wrong advice is worse than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.data.dataset import read_rows
from xpnet.errors import listed, shortened
from xpnet.metrics import balanced_accuracy
from xpnet.models.evaluation import class_indices
from xpnet.models.model import Model
from xpnet.trainer.history import Epoch, History

__all__ = [
    "advise", "few_of_a_class", "guessing", "no_better_than_guessing", "overfitting", "rising",
    "sampled_rates", "still_falling", "unscaled",
]  # fmt: skip

# A run of fewer steps has barely begun; nobody asks it for results.
FEW_STEPS = 50
# A fifth of the run brought more than this share of the whole fall: it goes on. Where the rate
# falls, less is left to see, and noise that is learned by heart at the end looks the same: then
# the run must also be shorter than any by the defaults.
SHARE_OF_FALL, SHARE_UNDER_A_FALLING_RATE, DEFAULT_STEPS = 0.05, 0.07, 300
# A mean or a deviation above LARGE, or values all below SMALL, are far from mean 0 and deviation 1.
LARGE, SMALL, SMALL_BYTES = 10.0, 0.05, 32
FEW_SAMPLES = 5
# The validation loss rose by this much of its best value: overfitting, if the score fell too (by
# more than two samples), or if the loss doubled and is not tiny.
RISE, SCORE_LOST, LEAST_RISE = 0.25, 0.005, 0.05
RATES = 50  # how many times a schedule is asked
ROWS = 2000  # how many samples the features are measured on


# -- The curves ------------------------------------------------------------------------


def still_falling(
    losses: Sequence[float],
    *,
    rates: Sequence[float] = (),
    score: float | None = None,
    val_losses: Sequence[float | None] = (),
    epochs: int = 0,
) -> str:
    """Say that the loss was still falling when the training ended.

    A schedule that ends at 0 flattens every loss. So the run is divided into fifths not of its
    steps, but of its learning rate's sum; the last two are compared.

    Parameters
    ----------
    losses : sequence of float
        Of steps at equal distances.
    rates : sequence of float
        The learning rate at equal distances over the same run; empty if it is constant.
    score : float or None
        Accuracy or R² at the end.
    val_losses : sequence of float or None
        Per epoch; if there are any, the last one must be about the best.
    epochs : int

    Examples
    --------
    >>> still_falling([1 - 0.005 * step for step in range(100)], epochs=10)
    'the training loss was still falling at the end, by 15 % over the last fifth of the run: \
train for more epochs, 20 or more'
    >>> still_falling([0.9**step for step in range(100)])
    ''
    """
    values = np.asarray(losses, np.float64)
    if len(values) < FEW_STEPS or (score is not None and score > 0.99):
        return ""
    pace = np.interp(
        np.linspace(0, 1, len(values)), np.linspace(0, 1, max(2, len(rates))), rates or [1.0, 1.0]
    )
    if not pace.sum() > 0:
        return ""
    passed = np.cumsum(pace) / pace.sum()
    before, last = values[(passed > 0.6) & (passed <= 0.8)], values[passed > 0.8]
    if min(len(before), len(last)) < 2:
        return ""
    fall = before.mean() - last.mean()
    noise = np.sqrt(before.var() / len(before) + last.var() / len(last))
    whole = values[: max(1, len(values) // 100)].mean() - last.mean()
    falling_rate = pace[-1] < 0.5 * pace.max()
    least = SHARE_UNDER_A_FALLING_RATE if falling_rate else SHARE_OF_FALL
    if (
        fall <= 1.5 * noise
        or whole <= 0
        or fall < least * whole
        or fall < 0.02 * abs(before.mean())
    ):
        return ""
    if falling_rate and len(values) >= DEFAULT_STEPS:
        return ""
    found = [loss for loss in val_losses if loss is not None]
    if found and found[-1] > min(found) + 0.02 * abs(min(found)):
        return ""
    share = f", by {100 * fall / before.mean():.0f} %" if before.mean() > 0 else ""
    more = f", {2 * epochs:,} or more" if epochs else ""
    return (
        f"the training loss was still falling at the end{share} over the last fifth of the run: "
        f"train for more epochs{more}"
    )


def sampled_rates(optimizer: Any, backend: Any, first: int, steps: int) -> list[float]:
    """Return the learning rate at equal distances over a run; empty if it is constant.

    `first` is the number of steps that the optimizer had made before the run.
    """
    if not callable(optimizer.lr):
        return []
    at = first + np.linspace(0, max(0, steps - 1), RATES).round()
    return [float(optimizer.lr(backend.asarray(np.asarray(step, np.float32)))) for step in at]


def overfitting(epochs: Sequence[Epoch], samples: int = 1000, *, images: bool = False) -> str:
    """Say that the validation loss rose while the training loss fell.

    Parameters
    ----------
    epochs : sequence of Epoch
    samples : int
        In the validation part: among few, a loss rises by chance.
    images : bool
        Whether the network takes images, which can be augmented.

    Examples
    --------
    >>> from xpnet.trainer.history import Epoch
    >>> course = [(0.6, 0.7, 0.6), (0.4, 0.6, 0.7), (0.2, 1.3, 0.7), (0.1, 1.3, 0.6)]
    >>> overfitting([
    ...     Epoch(i + 1, i + 1, train, None, val, score, 0.1, 1.0)
    ...     for i, (train, val, score) in enumerate(course)
    ... ])
    'the validation loss rose from 0.6 in epoch 2 to 1.3 while the training loss fell, which is \
overfitting: stop early (patience 10, say), or take more data, weight decay or dropout'
    """
    measured = [e for e in epochs if e.val_loss is not None]
    if len(measured) < 3 or measured[-1] is not epochs[-1]:
        return ""
    best, last = min(measured, key=_val_loss), epochs[-1]
    end = min(_val_loss(last), float(np.median([_val_loss(e) for e in measured[-3:]])))
    rise, size = end - _val_loss(best), abs(_val_loss(best))
    if rise <= RISE * size or last.train_loss >= best.train_loss:
        return ""
    lost = 0.0 if None in (best.val_score, last.val_score) else best.val_score - last.val_score  # type: ignore[operator]
    good = last.val_score is not None and last.val_score >= 0.99
    doubled = rise > max(size, LEAST_RISE) and not good
    if lost <= max(SCORE_LOST, 2.5 / samples) and not doubled:
        return ""
    return (
        f"the validation loss rose from {best.val_loss:.3g} in epoch {best.epoch} to "
        f"{last.val_loss:.3g} while the training loss fell, which is overfitting: stop early "
        f"(patience 10, say), or take more data, {'augmentation, ' if images else ''}weight decay "
        "or dropout"
    )


def rising(losses: Sequence[float | None]) -> str:
    """Say that the training loss rose far above its smallest value.

    Parameters
    ----------
    losses : sequence of float or None
        The training loss of each epoch.

    Examples
    --------
    >>> rising([0.7, 0.2, 0.3, 6.0])
    'the training loss rose from 0.2 in epoch 2 to 6: try a smaller learning rate, or clipped \
gradients'
    >>> rising([0.7, 0.2, 0.25])
    ''
    """
    found = [(loss, epoch) for epoch, loss in enumerate(losses, 1) if loss is not None]
    if not found:
        return ""
    (least, epoch), (last, _) = min(found), found[-1]
    if least < 0 or last <= 3 * least or last <= LEAST_RISE + least:
        return ""
    return (
        f"the training loss rose from {least:.3g} in epoch {epoch} to {last:.3g}: try a smaller "
        "learning rate, or clipped gradients"
    )


def _val_loss(epoch: Epoch) -> float:
    assert epoch.val_loss is not None  # those without are left out
    return epoch.val_loss


# -- The data --------------------------------------------------------------------------


def unscaled(x: Any, columns: Sequence[str] = ()) -> str:
    """Say which features are far from mean 0 and deviation 1, where nothing scales them.

    Parameters
    ----------
    x : array, shape=(N, ...)
        Features as given; uint8 is divided by 255.
    columns : sequence of str
        Names of the features, if they have some.

    Examples
    --------
    >>> unscaled(np.array([[0.1, 500.0], [0.3, 700.0]]), ["ph", "proline"])
    '1 of 2 features is far from mean 0 and deviation 1 (proline: mean 600, deviation 100), and \
nothing scales it: standardize it, as scaling="auto" does'
    """
    rows = read_rows(x, np.linspace(0, len(x) - 1, min(len(x), ROWS)).astype(np.int64))
    if x.dtype == np.uint8:
        if (most := int(rows.max())) >= SMALL_BYTES or not most:
            return ""
        return (
            f"x is uint8 with values up to {most}, and uint8 is divided by 255: give x as floats, "
            f"or scaling=xpnet.data.Scaling(0, 1 / {most})"
        )
    if x.dtype == bool:
        return ""
    values = rows.reshape(len(rows), -1).astype(np.float64)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    sizes = np.maximum(np.abs(mean), deviation)
    worst = int(np.argmax(sizes))
    far = int((sizes > LARGE).sum())
    if not far:
        largest = float(np.abs(values).max())
        if largest == 0.0 or largest >= SMALL:
            return ""
        return (
            f"all features are small (at most {largest:.3g}), and nothing scales them: standardize "
            'them, as scaling="auto" does'
        )
    name = columns[worst] if len(columns) == len(sizes) else f"feature {worst}"
    them = "it" if far == 1 else "them"
    count = f"{far:,} of {len(sizes):,} features {'is' if far == 1 else 'are'}"
    return (
        f"{count} far from mean 0 and deviation 1 ({shortened(name)}: mean {mean[worst]:.4g}, "
        f"deviation {deviation[worst]:.3g}), and nothing scales {them}: standardize {them}, as "
        'scaling="auto" does'
    )


def few_of_a_class(counts: Sequence[int], classes: Sequence[str]) -> str:
    """Say which classes have too few samples in the training part to be learned.

    Examples
    --------
    >>> few_of_a_class([90, 3, 0], ["a", "b", "c"])
    'few samples in the training part of b (3), c (none): collect more, or join or leave out \
these classes'
    """
    few = [
        f"{shortened(name)} ({count or 'none'})"
        for name, count in zip(classes, counts, strict=True)
        if count < FEW_SAMPLES
    ]
    if not few:
        return ""
    return (
        f"few samples in the training part of {listed(few, 5)}: collect more, or join or leave "
        "out these classes"
    )


# -- The answers -----------------------------------------------------------------------


def guessing(score: float, constant: float, measure: str, *, dead: int = 0, units: int = 0) -> str:
    """Return the sentence for a network that learned nothing.

    Parameters
    ----------
    score, constant : float
        The network's, and that of the best constant answer.
    measure : {"accuracy", "R²", "loss"}
    dead, units : int
        Hidden units that are 0 for every sample, and all hidden units.

    Examples
    --------
    >>> guessing(0.0, 0.0, "R²", dead=20, units=20)
    'no better than guessing: R² 0.0000 on the training part, where a constant answer has 0.0000; \
20 of 20 hidden units give 0 for every sample: train anew with a smaller learning rate, or check \
that the features vary, and say something about the targets'
    """
    words = (
        f"no better than guessing: {measure} {score:.4f} on the training part, where a constant "
        f"answer has {constant:.4f}"
    )
    if dead > units / 2:
        every = f"{dead:,} of {units:,} hidden units give 0 for every sample"
        return (
            f"{words}; {every}: train anew with a smaller learning rate, or check that the "
            "features vary, and say something about the targets"
        )
    return (
        f"{words}: scale features and targets, try a learning rate ten times smaller or larger, "
        "train for more epochs, or give a rare class more weight"
    )


def no_better_than_guessing(
    model: Model, x: Any, t: np.ndarray, score: float | None, steps: int
) -> str:
    """Say that a network has learned nothing, and whether its units are dead.

    Parameters
    ----------
    model : Model
    x, t : array
        Training samples from `Model.resident`, so t is scaled if it is a regression's.
    score : float or None
        The accuracy or R² on them.
    steps : int
        How many steps it was trained for; after very few there is nothing to say.
    """
    if score is None or steps < FEW_STEPS:
        return ""
    if model.evaluation.classifies(t):
        classes = class_indices(t)
        shares = np.bincount(classes) / len(classes)
        constant, measure = float(shares.max()), "accuracy"
        if score > constant or constant == 1.0 or _knows_classes(model, x, classes, shares):
            return ""
    else:
        constant, measure = 0.0, "R²"
        if score > constant:
            return ""
        if type(model.network.loss_gate).__name__ != "SquaredLoss":
            # R² is about the mean; a quantile, say, lies far from it and is none the worse.
            score, constant, measure = *_own_loss(model, x, t), "loss"
            if score < constant - 0.02 * abs(constant):
                return ""
    zero = [*model.evaluation.dead(model.params, x).values()]
    units, dead = sum(map(len, zero)), sum(int(layer.sum()) for layer in zero)
    return guessing(score, constant, measure, dead=dead, units=units)


def _knows_classes(model: Model, x: Any, classes: np.ndarray, shares: np.ndarray) -> bool:
    """Whether the answers tell more of the classes than their shares do.

    Class weights cost accuracy, and rare classes need not reach half: the accuracy alone proves
    nothing.
    """
    scores = model.evaluation.scores(model.params, x)
    count = np.count_nonzero(shares)
    balanced = balanced_accuracy(classes, model.decide(scores))
    if balanced > 1 / count + 0.05:
        return True
    probabilities = model.probabilities(scores)
    if probabilities is None:
        return False
    true = np.asarray(probabilities, np.float64)[np.arange(len(classes)), classes]
    log_loss = -np.mean(np.log(np.maximum(true, 1e-300)))
    present = shares[shares > 0]
    return bool(log_loss < 0.98 * -np.sum(present * np.log(present)))


def _own_loss(model: Model, x: Any, t: np.ndarray) -> tuple[float, float]:
    """Return the network's loss, and the smallest loss of a constant answer."""
    gate, loss = model.network.loss_gate, model.evaluation.measure(model.params, x, t)[0]
    rows = t.reshape(len(t), -1).astype(np.float64)
    levels = [rows.mean(axis=0), *np.quantile(rows, np.linspace(0.01, 0.99, 50), axis=0)]
    if getattr(gate, "nonnegative", False):  # the scores are logarithms
        levels = [np.log(np.maximum(level, 1e-6)) for level in levels]
    best = min(
        float(gate.forward(np.broadcast_to(level, rows.shape).copy(), rows)[0]) for level in levels
    ) / (1 if gate.reduction == "mean" else len(t))
    return loss, best


# -- All of it -------------------------------------------------------------------------


def advise(
    model: Model,
    optimizer: Any,
    before: int,
    history: History,
    train: tuple[Any, np.ndarray],
    scored: tuple[Any, np.ndarray],
    held: tuple[Any, np.ndarray] | None,
) -> tuple[list[str], str]:
    """Return all advice on a training, and the part of it that is worth a warning, "" if none is.

    A training that was stopped has not ended, and gets none.

    Parameters
    ----------
    model : Model
    optimizer : Optimizer
    before : int
        The steps that it had made before this training.
    history : History
    train, held : (x, t)
        The training part, and the validation part if there is one, on the host.
    scored : (x, t)
        The samples of the training part that are scored, from `Model.resident`.
    """
    if history.reason == "stop" or not history.epochs:
        return [], ""
    last = history.epochs[history.best_epoch - 1 if history.best_params else -1]
    failure = no_better_than_guessing(model, *scored, last.train_score, history.steps)
    rates = sampled_rates(optimizer, model.backend, before, history.steps)
    images = model.network.convolves
    notes = [failure, *_on_curves(history, rates, 0 if held is None else len(held[1]), images)]
    return [note for note in (*notes, *_on_data(model, *train)) if note], failure


def _on_curves(history: History, rates: Sequence[float], held: int, images: bool) -> list[str]:
    if history.best_params:  # the model has the best epoch's weights
        return []
    notes = [
        overfitting(history.epochs, max(held, 1), images=images),
        rising(history.column("train_loss")),
    ]
    if history.reason == "epochs":
        notes.append(
            still_falling(
                history.losses,
                rates=rates,
                score=history.epochs[-1].train_score,
                val_losses=history.column("val_loss"),
                epochs=len(history.epochs),
            )
        )
    return notes


def _on_data(model: Model, x: Any, t: np.ndarray) -> list[str]:
    notes = [unscaled(x, model.columns)] if model.feed.scaling is None else []
    if model.evaluation.classifies(t):
        count = max(model.network.outputs or 0, 2)
        counts = np.bincount(class_indices(t), minlength=count).tolist()
        notes.append(few_of_a_class(counts, model.classes or [*map(str, range(count))]))
    return notes
