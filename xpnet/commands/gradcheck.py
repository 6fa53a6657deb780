"""``python -m xpnet.gradcheck`` checks a network's gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import tyro

from xpnet.backend.select import select
from xpnet.commands.config.filters import filters_of, refuse_filters
from xpnet.commands.config.types import Channels, Float, Image, Kernel, Kind, Loss, Padding, Pool
from xpnet.commands.exits import run, say
from xpnet.commands.usage import read
from xpnet.errors import UsageError
from xpnet.graph.gradcheck import TOLERANCE, Row, check
from xpnet.losses import LOSSES
from xpnet.models.kinds import network_of_kind, takes_images
from xpnet.models.network import Network

Hidden = Annotated[
    str | None,
    tyro.conf.arg(metavar="STR", help_behavior_hint="(by default 50, of a cnn 5)"),
]
Activation = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="STR",
        help_behavior_hint=(
            "(by default sigmoid; for images tanh, since the gradients of many sigmoids vanish)"
        ),
    ),
]


@dataclass(frozen=True)
class Arguments:
    """Check a network's gradients against central differences, in float64."""

    model: Kind = "mlp"
    """cnn and deep-cnn have convolutions, here of a few filters, and take small images."""
    inputs: int = 64
    """Number of inputs of an mlp."""
    image: Image = (1, 8, 8)
    """Shape of the images of a cnn: channels, rows, columns."""
    channels: Channels = None
    """Filters of the convolutions of a cnn: 3-3,5-5 has two blocks of two."""
    kernel: Kernel = None
    """Size of the filters."""
    padding: Padding = None
    """Zeros around the images before each convolution; same keeps their size."""
    pool: Pool = None
    """Size of the max pool after each block; 1 for none."""
    batch_norm: bool = False
    """Normalize each hidden layer's values over the batch."""
    hidden: Hidden = None
    """Sizes of the hidden layers, separated by commas."""
    outputs: int = 10
    """Number of outputs."""
    activation: Activation = None
    """One activation for all hidden layers, or one per layer, separated by commas."""
    loss: Loss = "softmax"
    """Loss."""
    dropout: Float = None
    """Share of the hidden values that dropout sets to 0; all differences use the same mask."""
    batch: int = 3
    """Number of samples."""
    entries: int = 1000
    """Compare at most this many entries per parameter; 0 compares all."""
    tolerance: float = TOLERANCE
    """Largest relative error that passes."""
    seed: int = 0
    """Random seed for weights, data and the choice of entries."""
    backend: Literal["numpy", "torch", "jax", "strict"] = "numpy"
    """Array library, on the CPU."""


def _table(rows: Sequence[Row], tolerance: float) -> list[str]:
    lines = [f"{'parameter':<10} {'shape':>14} {'compared':>9} {'relative error':>15}"]
    for row in rows:
        verdict = "ok" if row.error <= tolerance else "WRONG"
        lines.append(
            f"{row.name:<10} {row.shape!s:>14} {row.entries:>9,} {row.error:>15.2e}  {verdict}"
        )
    return lines


def main(args: Sequence[str] | None = None, prog: str = "python -m xpnet.gradcheck") -> int:
    """Run the command; return the exit status, 1 if a gradient is wrong."""
    return run(lambda: _command(read(Arguments, args, prog)))


# The filters of a cnn: few, so that all their entries are compared in a second.
FEW = {"cnn": (3,), "deep-cnn": ("2-2", "3-3", "2-2")}


def _network(a: Arguments) -> Network:
    images = takes_images(a.model)
    if not images:
        refuse_filters(a)
    if images and a.channels is None:
        a = replace(a, channels=FEW[a.model])
    hidden = a.hidden if a.hidden is not None else "5" if images else "50"
    try:
        sizes = [int(n) for n in hidden.split(",") if n]
    except ValueError:
        raise UsageError(f"--hidden {hidden!r}: expected sizes separated by commas") from None
    kinds = (a.activation or ("tanh" if images else "sigmoid")).split(",")
    kinds = kinds * len(sizes) if len(kinds) == 1 and not images else kinds
    return network_of_kind(
        a.model, (a.image or ()) if images else (a.inputs,), a.outputs, hidden=sizes,
        activation=kinds, batch_norm=a.batch_norm, loss=a.loss, dropout=a.dropout, seed=a.seed,
        **filters_of(a),
    )  # fmt: skip


def _command(a: Arguments) -> int:
    if a.batch < 1 or a.entries < 0 or not a.tolerance > 0:
        raise UsageError("expected --batch 1 or more, --entries 0 or more, --tolerance above 0")
    if a.outputs < 2 and LOSSES[a.loss].targets == "probabilities":
        raise UsageError(f"--loss {a.loss} needs --outputs 2 or more, got {a.outputs}")
    network = _network(a)
    backend = select("cpu", a.backend, "float64")
    rng = np.random.default_rng(a.seed)
    # Biases start at 0, the kink of a rectifier, so move them away from it.
    params = {
        name: p if p.ndim > 1 else p + rng.uniform(-0.1, 0.1, p.shape)
        for name, p in network.params.items()
    }
    inputs = {
        **params,
        **network.statistics,
        "x": rng.standard_normal((a.batch, *(network.input_shape or ()))),
        "t": rng.integers(0, max(a.outputs, 2), a.batch).astype(np.int32),
        "step": np.asarray([1], np.int32),
    }
    rows = check(
        network.graph,
        inputs,
        network.loss,
        list(params),
        asarray=backend.asarray,
        to_numpy=backend.to_numpy,
        entries=a.entries or None,
        seed=a.seed,
    )
    say(*_table(rows, a.tolerance))
    worst = max(rows, key=lambda row: row.error if math.isfinite(row.error) else math.inf)
    passed = worst.error <= a.tolerance
    say(
        f"{'passed' if passed else 'FAILED'}: largest relative error {worst.error:.2e} "
        f"({worst.name}), tolerance {a.tolerance:.0e}, {backend}"
    )
    return 0 if passed else 1
