"""Fill a gate's formulas with the names of a network's variables."""

from __future__ import annotations

from typing import Any

from xpnet import gates, layers
from xpnet.show.notes import note_of

__all__ = ["gradient_of", "value_of"]


def value_of(gate: Any, inputs: list[str], y: str, samples: int) -> str:
    """Return the formula of a gate's output; for an unknown gate, its call.

    In `inputs`, an empty text stands for an input without a value.
    """
    if isinstance(gate, layers.Dropout) and not inputs[1]:
        return inputs[0]  # without a step, dropout is the identity
    given = ", ".join(name for name in inputs if name)
    form = note_of(gate).value or f"{type(gate).__name__}({given})"
    return _fill(form, gate, inputs, y, "", samples)


def gradient_of(gate: Any, i: int, inputs: list[str], y: str, d: str, samples: int) -> str:
    """Return the formula of the gradient that a gate sends to its i-th input."""
    if isinstance(gate, layers.Dropout) and not inputs[1]:
        return d
    forms = note_of(gate).gradients
    form = forms[i] if i < len(forms) else f"{type(gate).__name__}.backward({{d}})[{i}]"
    formula = _fill(form, gate, inputs, y, d, samples)
    # The gradient of a loss is 1, unless another gate uses the loss.
    return f"{formula} · {d}" if "{d}" not in form and d != "1" else formula


def _fill(form: str, gate: Any, inputs: list[str], y: str, d: str, samples: int) -> str:
    if isinstance(gate, gates.Transpose) and gate.axes is not None:
        form = form.replace("ᵀ", f", axes {gate.axes}" if not d else ", axes undone")
    mean = getattr(gate, "reduction", "") == "mean"
    weight = inputs[2] if "{N}" in form and len(inputs) > 2 else ""
    share = f" · {weight}" if weight else ""
    if mean:
        share += f" / Σ {weight}" if weight else f" / {samples}"
    axis = getattr(gate, "axis", None)
    over = "" if axis is None else f" over axis {axis}"
    power = getattr(gate, "exponent", 1) - 1
    return form.format(*inputs, y=y, d=d, g=gate, N=share, A=over, P=power)
