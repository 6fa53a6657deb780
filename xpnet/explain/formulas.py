"""Each gate's formula and those of its gradients, as text to be filled with names.

{0}, {1}, ... stand for the inputs, {y} for the output, {d} for the gradient of the output,
{g} for the gate, {N} for the share of a sample in the loss.
"""

from __future__ import annotations

from typing import Any

__all__ = ["FORMULAS", "gradient_of", "value_of"]

FORMULAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Add": ("{0} + {1}", ("{d}", "{d}")),
    "Sub": ("{0} - {1}", ("{d}", "-{d}")),
    "Mul": ("{0} · {1}", ("{d} · {1}", "{d} · {0}")),
    "Div": ("{0} / {1}", ("{d} / {1}", "-{d} · {y} / {1}")),
    "Max": ("max({0}, {1})", ("{d} where {0} >= {1}, else 0", "{d} where {1} > {0}, else 0")),
    "Neg": ("-{0}", ("-{d}",)),
    "Scale": ("{g.factor:g} · {0}", ("{g.factor:g} · {d}",)),
    "Shift": ("{0} {g.offset:+g}", ("{d}",)),
    "Power": ("{0} ** {g.exponent:g}", ("{d} · {g.exponent:g} · {0} ** ({g.exponent:g} - 1)",)),
    "Exp": ("exp({0})", ("{d} · {y}",)),
    "Log": ("ln {0}", ("{d} / {0}",)),
    "Reciprocal": ("1 / {0}", ("-{d} · {y}²",)),
    "Sum": ("Σ {0}", ("{d}, repeated",)),
    "Mean": ("mean of {0}", ("{d} / n, repeated",)),
    "SquaredNorm": ("‖{0}‖²", ("2 {0} · {d}",)),
    "MatMul": ("{0} {1}", ("{d} {1}ᵀ", "{0}ᵀ {d}")),
    "Transpose": ("{0}ᵀ", ("{d}ᵀ",)),
    "Reshape": ("{0}, as {g.shape}", ("{d}, in the shape of {0}",)),
    "Index": ("{0}[{g.key}]", ("{d} at [{g.key}], else 0",)),
    "Gather": ("{0}[{1}]", ("Σ of {d} at each index",)),
    "Pick": ("{0}[n, {1}[n]]", ("{d} at the labels, else 0",)),
    "Affine": ("{0} {1} + {2}", ("{d} {1}ᵀ", "{0}ᵀ {d}", "Σₙ {d}")),
    "Sigmoid": ("1 / (1 + exp(-{0}))", ("{d} · {y} (1 - {y})",)),
    "Tanh": ("tanh {0}", ("{d} · (1 - {y}²)",)),
    "ReLU": ("max(0, {0})", ("{d} where {0} > 0, else 0",)),
    "LeakyReLU": (
        "{0} where {0} > 0, else {g.alpha:g} {0}",
        ("{d} where {0} > 0, else {g.alpha:g} {d}",),
    ),
    "Identity": ("{0}", ("{d}",)),
    "Dropout": ("{0} m / (1 - {g.ratio:g})", ("{d} m / (1 - {g.ratio:g})",)),
    "SoftmaxWithLoss": ("-Σ {1} ln y{N}", ("(y - {1}){N}",)),
    "SquaredLoss": ("½ Σ (y - {1})²{N}", ("(y - {1}){N}",)),
    "SigmoidWithLoss": ("-Σ ({1} ln y + (1 - {1}) ln(1 - y)){N}", ("(y - {1}){N}",)),
    "HingeLoss": (
        "Σ max(0, yⱼ - yₜ + {g.margin:g}){N}",
        ("(1 where yⱼ - yₜ + {g.margin:g} > 0; at t, minus their number){N}",),
    ),
}

# What a loss makes of the scores, in front of it.
OUTPUTS = {"SoftmaxWithLoss": "softmax({0})", "SigmoidWithLoss": "1 / (1 + exp(-{0}))"}


def value_of(gate: Any, inputs: list[str], y: str, samples: int) -> str:
    """The formula of a gate's output; of an unknown gate, its call.

    An input that was not given is an empty text among `inputs`.
    """
    kind = type(gate).__name__
    given = ", ".join(name for name in inputs if name)
    form = FORMULAS.get(kind, (f"{kind}({given})", ()))[0]
    return _fill(form, gate, inputs, y, "", samples)


def gradient_of(gate: Any, i: int, inputs: list[str], y: str, d: str, samples: int) -> str:
    """The formula of the gradient that a gate sends to its i-th input."""
    kind = type(gate).__name__
    forms = FORMULAS.get(kind, ("", ()))[1]
    form = forms[i] if i < len(forms) else f"{kind}.backward({{d}})[{i}]"
    return _fill(form, gate, inputs, y, d, samples)


def _fill(form: str, gate: Any, inputs: list[str], y: str, d: str, samples: int) -> str:
    mean = getattr(gate, "reduction", "") == "mean"
    weight = inputs[2] if "{N}" in form and len(inputs) > 2 else ""
    share = f" · {weight}" if weight else ""
    if mean:
        share += f" / Σ {weight}" if weight else f" / {samples}"
    return form.format(*inputs, y=y, d=d, g=gate, N=share)
