"""What a command says of a model's quality: printed, and in the files of a run."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

import xpnet
from xpnet.commands.config.settings import Config
from xpnet.metrics import lines as per_class_lines
from xpnet.metrics import per_class_table
from xpnet.models.evaluation import class_indices
from xpnet.models.model import Model
from xpnet.trainer import words
from xpnet.trainer.history import Epoch, History, finite_or_none

__all__ = ["epoch_record", "figure", "measured_lines", "report", "summary_of"]


def report(
    model: Model, x: Any, t: Any, measured: Mapping[str, float | None], name: str = "test"
) -> list[str]:
    """Return lines: every metric, and for classes precision, recall and F1 of each.

    Parameters
    ----------
    model : Model
    x, t : array
        Features and targets.
    measured : mapping
        What `Model.evaluate` returned for them.
    name : str
        Of the part, at most nine characters.
    """
    lines = measured_lines(measured, name)
    if not model.evaluation.classifies(t):
        return lines
    predicted = model.decide(model.scores(x))
    names = model.classes or tuple(map(str, range(max(model.network.outputs or 0, 2))))
    if model.threshold is not None:
        lines.append(f"{'':<9} {names[1]} is predicted from a probability of {model.threshold:.4g}")
    table = per_class_lines({}, per_class_table(class_indices(t), predicted, names))
    return [*lines, *(f"{'':<9} {line}" for line in table)]


def measured_lines(measured: Mapping[str, float | None], name: str) -> list[str]:
    """Return every metric, four in a line, after a name of at most nine characters."""
    words = [f"{key.replace('_', ' ')} {figure(v)}" for key, v in measured.items() if v is not None]
    return [
        f"{'' if i else name:<9} {', '.join(words[i : i + 4])}" for i in range(0, len(words), 4)
    ]


def figure(value: float) -> str:
    """Return a metric with four decimals, or four digits where it is large or tiny."""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e3 or value == 0 else f"{value:.4g}"


def epoch_record(epoch: Epoch, score: str, metric: str | None) -> str:
    """Return an epoch's line of metrics.jsonl; the parameters are those of `words.fields`."""
    return json.dumps(words.fields(epoch, score, metric), allow_nan=False) + "\n"


def summary_of(
    config: Config,
    model: Model,
    history: History,
    result: Mapping[str, float | None],
    samples: int,
    ranks: int = 1,
) -> dict[str, Any]:
    """Return what summary.json says of a run.

    Parameters
    ----------
    config : Config
        Settled.
    model : Model
    history : History
        Of the model's training.
    result : mapping
        What `Model.evaluate` returned for the test part.
    samples : int
        Of the training part.
    ranks : int
        How many processes trained.
    """
    seconds = sum(epoch.seconds for epoch in history.epochs)
    return {
        **{f"test_{name}": finite_or_none(value) for name, value in result.items()},
        **({} if model.threshold is None else {"threshold": model.threshold}),
        "epochs": len(history.epochs),
        "lr": config.lr,
        "best_epoch": history.best_epoch or None,
        "ended_by": history.reason,
        "steps": history.steps,
        "train_seconds": seconds,
        "samples_per_second": samples * len(history.epochs) / seconds if seconds else None,
        "backend": model.backend.library,
        "precision": model.backend.precision,
        "device": model.backend.device,
        "device_name": model.backend.device_name,
        "ranks": ranks,
        "seed": config.seed,
        "versions": {
            "xpnet": xpnet.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            model.backend.library: model.backend.version,
        },
    }
