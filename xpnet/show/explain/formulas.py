"""Fill a gate's formulas with the names of a network's variables."""

from __future__ import annotations

from typing import Any

from xpnet import gates, layers
from xpnet.show.notes import Note, note_of

__all__ = ["gradient_of", "value_of"]


def value_of(gate: Any, inputs: list[str], y: str, samples: int) -> str:
    """Return the formula of a gate's output; for an unknown gate, its call.

    In `inputs`, an empty text stands for an input without a value. `samples` is the number of
    samples that a loss takes the mean over, or batch normalization.
    """
    given = ", ".join(name for name in inputs if name)
    form = _note(gate, inputs, samples).value or f"{type(gate).__name__}({given})"
    return _fill(form, gate, inputs, y, "", samples)


def gradient_of(gate: Any, i: int, inputs: list[str], y: str, d: str, samples: int) -> str:
    """Return the formula of the gradient that a gate sends to its i-th input."""
    forms = _note(gate, inputs, samples).gradients
    form = forms[i] if i < len(forms) else f"{type(gate).__name__}.backward({{d}})[{i}]"
    formula = _fill(form, gate, inputs, y, d, samples)
    # The gradient of a loss is 1, unless another gate uses the loss.
    return f"{formula} · {d}" if "{d}" not in form and d != "1" else formula


def _note(gate: Any, inputs: list[str], samples: int) -> Note:
    """Return the row of the gate as it runs: without a step, in inference mode."""
    note = note_of(gate)
    if note.inference is None:
        return note
    (step,) = gate.integers
    alone = isinstance(gate, layers.BatchNorm) and samples < 2  # one value has no variance
    return note_of(gate, inference=alone or step >= len(inputs) or not inputs[step])


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
    bias = f" + {inputs[2]}" if len(inputs) > 2 and inputs[2] else ""
    return form.format(*inputs, y=y, d=d, g=gate, N=share, A=over, P=power, B=bias,
                       S=_windows(gate), T=_windows(gate, exchanged=True))  # fmt: skip


def _windows(gate: Any, *, exchanged: bool = False) -> str:
    """Return the settings of windows that are not the default: " (stride 2, padding 1)"."""
    words: list[str] = []
    settings: list[tuple[str, Any, Any]] = []  # name, value, the default
    if isinstance(gate, layers.Convolution):
        stride, padding, dilation = gate.settings
        if exchanged:
            stride, dilation = dilation, stride
        settings = [("stride", stride, (1, 1)), ("padding", padding, (0, 0)),
                    ("dilation", dilation, (1, 1))]  # fmt: skip
    elif isinstance(gate, layers.MaxPool | layers.AveragePool):
        settings = [("stride", gate.stride, gate.size), ("padding", gate.padding, (0, 0))]
        words = [_by(gate.size)]
    words += [
        f"{name} {pair[0] if pair[0] == pair[1] else _by(pair)}"
        for name, pair, plain in settings
        if pair != plain
    ]
    return f" ({', '.join(words)})" if words else ""


def _by(pair: Any) -> str:
    """Write rows×columns."""
    return "×".join(map(str, pair))
