"""What a command prints of a model's quality: the test line, and the table of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xpnet.metrics import lines as per_class_lines
from xpnet.metrics import per_class_table
from xpnet.models.evaluation import class_indices
from xpnet.models.model import Model

__all__ = ["figure", "report"]


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
    words = [f"{key.replace('_', ' ')} {figure(v)}" for key, v in measured.items() if v is not None]
    lines = [
        f"{'' if i else name:<9} {', '.join(words[i : i + 4])}" for i in range(0, len(words), 4)
    ]
    if not model.evaluation.classifies(t):
        return lines
    predicted = model.decide(model.scores(x))
    names = model.classes or tuple(map(str, range(max(model.network.outputs or 0, 2))))
    if model.threshold is not None:
        lines.append(f"{'':<9} {names[1]} is predicted from a probability of {model.threshold:.4g}")
    table = per_class_lines({}, per_class_table(class_indices(t), predicted, names))
    return [*lines, *(f"{'':<9} {line}" for line in table)]


def figure(value: float) -> str:
    """Return a metric with four decimals, or four digits where it is large or tiny."""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e3 or value == 0 else f"{value:.4g}"
