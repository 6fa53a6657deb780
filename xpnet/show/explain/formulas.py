"""Each gate's formula and those of its gradients, as text to be filled with names.

{0}, {1}, ... stand for the inputs, {y} for the output (of a loss, for the answer that it compares
with the targets), {d} for the gradient of the output,
{g} for the gate, {N} for the share of a sample in the loss, {A} for the axis that is summed
over, {P} for an exponent less 1.
"""

from __future__ import annotations

from typing import Any

from xpnet import gates, layers, losses

__all__ = ["FORMULAS", "gradient_of", "value_of"]

FORMULAS: dict[type, tuple[str, tuple[str, ...]]] = {
    gates.Add: ("{0} + {1}", ("{d}", "{d}")),
    gates.Sub: ("{0} - {1}", ("{d}", "-{d}")),
    gates.Mul: ("{0} · {1}", ("{d} · {1}", "{d} · {0}")),
    gates.Div: ("{0} / {1}", ("{d} / {1}", "-{d} · {y} / {1}")),
    gates.Max: ("max({0}, {1})", ("{d} where {0} >= {1}, else 0", "{d} where {1} > {0}, else 0")),
    gates.AtLeast: ("max({0}, {g.bound!r})", ("{d} where {0} > {g.bound!r}, else 0",)),
    gates.Neg: ("-{0}", ("-{d}",)),
    gates.Scale: ("{g.factor!r} · {0}", ("{g.factor!r} · {d}",)),
    gates.Over: ("{0} / {g.divisor!r}", ("{d} / {g.divisor!r}",)),
    gates.Shift: ("{0} + {g.offset!r}", ("{d}",)),
    gates.Power: ("{0} ** {g.exponent!r}", ("{d} · {g.exponent!r} · {0} ** {P!r}",)),
    gates.Exp: ("exp({0})", ("{d} · {y}",)),
    gates.Log: ("ln {0}", ("{d} / {0}",)),
    gates.Reciprocal: ("{g.numerator!r} / {0}", ("-{d} · {y} / {0}",)),
    gates.Sum: ("Σ {0}{A}", ("{d}, repeated",)),
    gates.Mean: ("mean of {0}{A}", ("{d} / n, repeated",)),
    gates.SquaredNorm: ("‖{0}‖²", ("2 {0} · {d}",)),
    gates.MatMul: ("{0} {1}", ("{d} {1}ᵀ", "{0}ᵀ {d}")),
    gates.Transpose: ("{0}ᵀ", ("{d}ᵀ",)),
    gates.Reshape: ("{0}, as {g.shape}", ("{d}, in the shape of {0}",)),
    gates.Index: ("{0}[{g.key}]", ("{d} at [{g.key}], else 0",)),
    gates.Gather: ("{0}[{1}]", ("Σ of {d} at each index",)),
    gates.Pick: ("{0}[n, {1}[n]]", ("{d} at the labels, else 0",)),
    layers.Affine: ("{0} {1} + {2}", ("{d} {1}ᵀ", "{0}ᵀ {d}", "Σₙ {d}")),
    layers.Sigmoid: ("1 / (1 + exp(-{0}))", ("{d} · {y} (1 - {y})",)),
    layers.Tanh: ("tanh {0}", ("{d} · (1 - {y}²)",)),
    layers.ReLU: ("max(0, {0})", ("{d} where {0} > 0, else 0",)),
    layers.LeakyReLU: (
        "{0} where {0} > 0, else {g.alpha:g} {0}",
        ("{d} where {0} > 0, else {g.alpha:g} {d}",),
    ),
    layers.Identity: ("{0}", ("{d}",)),
    layers.Dropout: ("{0} m / (1 - {g.ratio:g})", ("{d} m / (1 - {g.ratio:g})",)),
    losses.SoftmaxWithLoss: ("-Σ {1} ln {y}{N}", ("({y} - {1}){N}",)),
    losses.SquaredLoss: ("½ Σ ({y} - {1})²{N}", ("({y} - {1}){N}", "({1} - {y}){N}")),
    losses.SigmoidWithLoss: (
        "-Σ ({1} ln {y} + (1 - {1}) ln(1 - {y})){N}",
        ("({y} - {1}){N}",),
    ),
    losses.HingeLoss: (
        "Σ(j≠t) max(0, {y}ⱼ - {y}ₜ + {g.margin:g}){N}",
        ("(1 where {y}ⱼ - {y}ₜ + {g.margin:g} > 0, j ≠ t; at t, minus their number){N}",),
    ),
}

# Elementwise gates: where an input was repeated, it receives the sum over its copies.
BROADCAST = (gates.Add, gates.Sub, gates.Mul, gates.Div, gates.Max)

# What a loss makes of the scores, in front of it.
OUTPUTS: dict[type, str] = {
    losses.SoftmaxWithLoss: "softmax({0})",
    losses.SigmoidWithLoss: "1 / (1 + exp(-{0}))",
}


def value_of(gate: Any, inputs: list[str], y: str, samples: int) -> str:
    """The formula of a gate's output; of an unknown gate, its call.

    An input that was not given is an empty text among `inputs`.
    """
    if isinstance(gate, layers.Dropout) and not inputs[1]:
        return inputs[0]  # without a step it is not on
    given = ", ".join(name for name in inputs if name)
    form = FORMULAS.get(type(gate), (f"{type(gate).__name__}({given})", ()))[0]
    return _fill(form, gate, inputs, y, "", samples)


def gradient_of(gate: Any, i: int, inputs: list[str], y: str, d: str, samples: int) -> str:
    """The formula of the gradient that a gate sends to its i-th input."""
    if isinstance(gate, layers.Dropout) and not inputs[1]:
        return d
    forms = FORMULAS.get(type(gate), ("", ()))[1]
    form = forms[i] if i < len(forms) else f"{type(gate).__name__}.backward({{d}})[{i}]"
    formula = _fill(form, gate, inputs, y, d, samples)
    # A loss starts from 1, unless something is made of it.
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
