"""Describe each gate in one row: symbol, formulas, cost. Pictures and tables read this table.

A formula is a template. {0}, {1}, ... stand for the inputs; {y} for the output, or, for a loss,
for the answer that it compares with the targets; {d} for the gradient of the output; {g} for the
gate; {N} for a sample's share of the loss; {A} for the axis of a sum; {P} for the exponent minus 1;
{B} for the bias with its plus, if there is one; {S} for the settings of windows, {T} for those with
stride and dilation exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from xpnet import gates, layers, losses

__all__ = ["NOTES", "Note", "note_of", "symbol_of"]


@dataclass(frozen=True)
class Note:
    """A gate's row.

    Attributes
    ----------
    value : str
        The formula of the output.
    gradients : tuple of str
        The formula of the gradient for each input that receives one.
    flops : (int, int), or function of the gate
        Operations of `value` and of all `gradients`, per element of the output or of the first
        input, whichever is larger; from a function, per element of the output. exp, tanh and log
        count as one operation each.
    symbol : str or function of the gate
        The text in the circle of an elementary gate; {g} is the gate. Layers and losses have no
        symbol: pictures show their names.
    answer : str
        What a loss computes from the scores, {0}, before it compares them with the targets.
    depth : function of a shape, optional
        How many products each element of the output sums, by the shape of the second input. The
        gate is a product of matrices or a convolution, plus a bias if it has a third input; its
        operations follow from the shapes, not from `flops`.
    broadcast : bool
        Whether the gate may repeat an input along axes. Such an input receives the sum over its
        copies.
    inference : Note, optional
        The row of the gate without its last input, the training step.
    """

    value: str
    gradients: tuple[str, ...]
    flops: tuple[int, int] | Callable[[Any], tuple[int, int]] = (1, 1)
    symbol: str | Callable[[Any], str] = ""
    answer: str = "{0}"
    depth: Callable[[Sequence[int]], int] | None = None
    broadcast: bool = False
    inference: Note | None = None


def _power(gate: gates.Power) -> str:
    return {2: "x²", 3: "x³", 0.5: "√x"}.get(gate.exponent, f"x^{gate.exponent:.4g}")


def _along(word: str) -> Callable[[Any], str]:
    return lambda gate: word if gate.axis is None else f"{word} axis {gate.axis}"


def _index(gate: gates.Index) -> str:
    def part(k: Any) -> str:
        if not isinstance(k, slice):
            return "..." if k is ... else str(k)
        ends = [k.start, k.stop] + ([k.step] if k.step else [])
        return ":".join("" if end is None else str(end) for end in ends)

    return f"[{','.join(map(part, gate.key if isinstance(gate.key, tuple) else (gate.key,)))}]"


def _rows(shape: Sequence[int]) -> int:
    """Return the number of products of matrices: the second one's rows."""
    return shape[0] if len(shape) < 3 else shape[-2]


def _filter(shape: Sequence[int]) -> int:
    """Return the number of products of a convolution: a filter's places in all channels."""
    return math.prod(shape[1:])


NOTES: dict[type, Note] = {
    gates.Add: Note("{0} + {1}", ("{d}", "{d}"), (1, 0), "+", broadcast=True),
    gates.Sub: Note("{0} - {1}", ("{d}", "-{d}"), (1, 1), "-", broadcast=True),
    gates.Mul: Note("{0} · {1}", ("{d} · {1}", "{d} · {0}"), (1, 2), "×", broadcast=True),
    gates.Div: Note("{0} / {1}", ("{d} / {1}", "-{d} · {y} / {1}"), (1, 3), "/", broadcast=True),
    gates.Max: Note(
        "max({0}, {1})",
        ("{d} where {0} >= {1}, else 0", "{d} where {1} > {0}, else 0"),
        symbol="max",
        broadcast=True,
    ),
    gates.AtLeast: Note(
        "max({0}, {g.bound!r})",
        ("{d} where {0} > {g.bound!r}, else 0",),
        symbol="max({g.bound:.6g}, x)",
    ),
    gates.Neg: Note("-{0}", ("-{d}",), symbol="×-1"),
    gates.Scale: Note("{g.factor!r} · {0}", ("{g.factor!r} · {d}",), symbol="×{g.factor:.6g}"),
    gates.Over: Note("{0} / {g.divisor!r}", ("{d} / {g.divisor!r}",), symbol="/{g.divisor:.6g}"),
    gates.Shift: Note("{0} + {g.offset!r}", ("{d}",), (1, 0), "{g.offset:+.6g}"),
    gates.Power: Note(
        "{0} ** {g.exponent!r}", ("{d} · {g.exponent!r} · {0} ** {P!r}",), (1, 3), _power
    ),
    gates.Exp: Note("exp({0})", ("{d} · {y}",), symbol="exp"),
    gates.Log: Note("ln {0}", ("{d} / {0}",), symbol="log"),
    gates.Reciprocal: Note(
        "{g.numerator!r} / {0}", ("-{d} · {y} / {0}",), (1, 3), "{g.numerator:.6g}/x"
    ),
    gates.Sum: Note("Σ {0}{A}", ("{d}, repeated",), (1, 0), _along("Σ")),
    gates.Mean: Note("mean of {0}{A}", ("{d} / n, repeated",), symbol=_along("mean")),
    gates.SquaredNorm: Note("‖{0}‖²", ("2 {0} · {d}",), (2, 1), "‖x‖²"),
    gates.MatMul: Note("{0} {1}", ("{d} {1}ᵀ", "{0}ᵀ {d}"), symbol="@", depth=_rows),
    gates.Transpose: Note("{0}ᵀ", ("{d}ᵀ",), (0, 0), "T"),
    gates.Reshape: Note("{0}, as {g.shape}", ("{d}, in the shape of {0}",), (0, 0), "reshape"),
    gates.Index: Note("{0}[{g.key}]", ("{d} at [{g.key}], else 0",), (0, 0), _index),
    gates.Gather: Note("{0}[{1}]", ("Σ of {d} at each index",), (0, 1), "gather"),
    gates.Pick: Note("{0}[n, {1}[n]]", ("{d} at the labels, else 0",), symbol="pick"),
    layers.Affine: Note("{0} {1}{B}", ("{d} {1}ᵀ", "{0}ᵀ {d}", "Σₙ {d}"), depth=_rows),
    layers.Convolution: Note(
        "{0} ∗ {1}{B}{S}",
        ("full({d}) ∗ turned({1})", "Σₙ {0} ∗ {d}{T}", "Σ {d} over n, rows, columns"),
        depth=_filter,
    ),
    # A window of n places takes n - 1 comparisons or additions, and a mean one division.
    layers.MaxPool: Note(
        "max of each window of {0}{S}",
        ("{d} at the first max of each window, else 0",),
        lambda gate: (math.prod(gate.size) - 1, 1),
    ),
    layers.AveragePool: Note(
        "mean of each window of {0}{S}",
        ("{d} / n at each place of a window",),
        lambda gate: (math.prod(gate.size), math.prod(gate.size)),
    ),
    layers.GlobalAveragePool: Note("mean of each channel of {0}", ("{d} / n, repeated",)),
    layers.Flatten: Note("{0}, a row per sample", ("{d}, in the shape of {0}",), (0, 0)),
    layers.BatchNorm: Note(
        "{1} x̂ + {2}, x̂ = ({0} - μ) / √(σ² + {g.eps:g})",
        (
            "{1} / √(σ² + {g.eps:g}) · ({d} - mean of {d} - x̂ · mean of {d} x̂)",
            "Σ {d} x̂",
            "Σ {d}",
        ),
        (7, 7),
        inference=Note(
            "{1} ({0} - {3}) / √({4} + {g.eps:g}) + {2}",
            (
                "{d} · {1} / √({4} + {g.eps:g})",
                "Σ {d} ({0} - {3}) / √({4} + {g.eps:g})",
                "Σ {d}",
            ),
            (4, 4),
        ),
    ),
    layers.Sigmoid: Note("1 / (1 + exp(-{0}))", ("{d} · {y} (1 - {y})",), (4, 3)),
    layers.Tanh: Note("tanh {0}", ("{d} · (1 - {y}²)",), (1, 3)),
    layers.ReLU: Note("max(0, {0})", ("{d} where {0} > 0, else 0",)),
    layers.LeakyReLU: Note(
        "{0} where {0} > 0, else {g.alpha:g} {0}",
        ("{d} where {0} > 0, else {g.alpha:g} {d}",),
    ),
    layers.Identity: Note("{0}", ("{d}",), (0, 0)),
    layers.Dropout: Note(
        "{0} m / (1 - {g.ratio:g})",
        ("{d} m / (1 - {g.ratio:g})",),
        (2, 2),
        inference=Note("{0}", ("{d}",), (0, 0)),
    ),
    # A loss computes most of its gradient in the forward pass, so its operations count there.
    losses.SoftmaxWithLoss: Note(
        "-Σ {1} ln {y}{N}", ("({y} - {1}){N}",), (9, 0), answer="softmax({0})"
    ),
    losses.SquaredLoss: Note("½ Σ ({y} - {1})²{N}", ("({y} - {1}){N}", "({1} - {y}){N}"), (5, 0)),
    losses.SigmoidWithLoss: Note(
        "-Σ ({1} ln {y} + (1 - {1}) ln(1 - {y})){N}",
        ("({y} - {1}){N}",),
        (15, 0),
        answer="1 / (1 + exp(-{0}))",
    ),
    losses.HingeLoss: Note(
        "Σ(j≠t) max(0, {y}ⱼ - {y}ₜ + {g.margin:g}){N}",
        ("(1 where {y}ⱼ - {y}ₜ + {g.margin:g} > 0, j ≠ t; at t, minus their number){N}",),
        (8, 5),
    ),
    losses.AbsoluteLoss: Note(
        "Σ |{y} - {1}|{N}", ("sign({y} - {1}){N}", "sign({1} - {y}){N}"), (5, 0)
    ),
    losses.HuberLoss: Note(
        "Σ s ({y} - {1} - s / 2){N}, s = {y} - {1} within ±{g.delta:g}",
        (
            "({y} - {1} within ±{g.delta:g}){N}",
            "({1} - {y} within ±{g.delta:g}){N}",
        ),
        (8, 0),
    ),
    losses.QuantileLoss: Note(
        "Σ max({g.quantile:g} ({1} - {y}), ({g.quantile:g} - 1) ({1} - {y})){N}",
        (
            "(1 - {g.quantile:g} where {y} > {1}, -{g.quantile:g} where {y} < {1}){N}",
            "({g.quantile:g} where {y} < {1}, {g.quantile:g} - 1 where {y} > {1}){N}",
        ),
        (7, 0),
    ),
    losses.PoissonLoss: Note(
        "Σ ({1} ln({1} / {y}) - {1} + {y}){N}", ("({y} - {1}){N}",), (10, 0), answer="exp({0})"
    ),
}
UNKNOWN = Note("", ())  # for a user's own gate: no formulas, one operation per element


def note_of(gate: Any, *, inference: bool = False) -> Note:
    """Return the row of a gate, or `UNKNOWN` if it has none."""
    note = NOTES.get(type(gate), UNKNOWN)
    return note.inference if inference and note.inference else note


def symbol_of(gate: Any) -> str:
    """Return the text in an elementary gate's circle, or an empty text for any other gate."""
    symbol = note_of(gate).symbol
    return symbol.format(g=gate) if isinstance(symbol, str) else symbol(gate)
