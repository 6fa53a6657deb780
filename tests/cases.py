"""The one table of gates: every gate with inputs that show it, its kinks left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet import gates, layers, losses


@dataclass(frozen=True)
class Case:
    """A gate, how to make its inputs, and how exactly libraries must agree on it.

    ``ulps`` is the largest difference from NumPy in units of the last place at the size of
    the largest value compared: a sum of 50 products is rounded 50 times, in any order.
    """

    name: str
    gate: Any
    inputs: Callable[[np.random.Generator], list[np.ndarray | None]]
    ulps: float = 8


def normal(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.standard_normal(shape)


def apart(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    """Numbers at least 0.1 from 0, where a rectifier has its kink."""
    return lambda rng: (rng.uniform(0.1, 2.0, shape)) * rng.choice([-1.0, 1.0], shape)


def positive(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.uniform(0.5, 2.0, shape)


def labels(classes: int, *shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.integers(0, classes, shape).astype(np.int32)


def one_hot(n: int, classes: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: np.eye(classes)[rng.integers(0, classes, n)]


def fixed(value: Any, dtype: Any = np.int32) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: np.asarray(value, dtype)


def none(rng: np.random.Generator) -> None:
    return None


def case(name: str, gate: Any, *makers: Callable[..., Any], ulps: float = 8) -> Case:
    return Case(name, gate, lambda rng: [make(rng) for make in makers], ulps)


def _spread(n: int, classes: int) -> Callable[[np.random.Generator], np.ndarray]:
    """Scores whose differences keep away from the hinge's kinks at 0 and at the margin 1."""
    return lambda rng: np.stack(
        [rng.permutation(classes) * 0.7 + rng.uniform(0, 0.05, classes) for _ in range(n)]
    )


CASES = [
    case("Add", gates.Add(), normal(3, 4), normal(3, 4)),
    case("Add broadcast", gates.Add(), normal(3, 4), normal(4)),
    case("Mul", gates.Mul(), normal(3, 4), normal(3, 4)),
    case("Mul broadcast", gates.Mul(), normal(2, 1, 4), normal(3, 1)),
    case("Max", gates.Max(), normal(3, 4), normal(3, 4)),
    case("Exp", gates.Exp(), normal(3, 4)),
    case("Reciprocal", gates.Reciprocal(), apart(3, 4)),
    case("Affine", layers.Affine(), normal(6, 5), normal(5, 3), normal(3), ulps=32),
    case("Affine vector", layers.Affine(), normal(5), normal(5, 3), normal(3), ulps=32),
    case("Affine images", layers.Affine(), normal(4, 2, 3, 3), normal(18, 5), normal(5), ulps=64),
    case("Affine sequence", layers.Affine(), normal(2, 3, 5), normal(5, 4), normal(4), ulps=32),
    case("Sigmoid", layers.Sigmoid(), normal(3, 4)),
    case("Tanh", layers.Tanh(), normal(3, 4)),
    case("ReLU", layers.ReLU(), apart(3, 4)),
    case("LeakyReLU", layers.LeakyReLU(0.1), apart(3, 4)),
    case("Identity", layers.Identity(), normal(3, 4)),
    case("Dropout", layers.Dropout(0.4, seed=3, layer=2), normal(20, 5), fixed([7])),
    case("Dropout 0-d step", layers.Dropout(0.4), normal(20, 5), fixed(7)),
    case("Dropout inference", layers.Dropout(0.4), normal(3, 4), none),
]
for name, reduction in (("mean", "mean"), ("sum", "sum")):
    for weighted, weight in (("", none), (" weighted", positive(6))):
        CASES += [
            case(f"SoftmaxWithLoss indices {name}{weighted}", losses.SoftmaxWithLoss(reduction),
                 normal(6, 4), labels(4, 6), weight, ulps=16),
            case(f"SoftmaxWithLoss one-hot {name}{weighted}", losses.SoftmaxWithLoss(reduction),
                 normal(6, 4), one_hot(6, 4), weight, ulps=16),
            case(f"SquaredLoss {name}{weighted}", losses.SquaredLoss(reduction),
                 normal(6, 3), normal(6, 3), weight, ulps=16),
            case(f"SquaredLoss indices {name}{weighted}", losses.SquaredLoss(reduction),
                 normal(6, 3), labels(3, 6), weight, ulps=16),
            case(f"SigmoidWithLoss {name}{weighted}", losses.SigmoidWithLoss(reduction),
                 normal(6, 3), one_hot(6, 3), weight, ulps=16),
            case(f"SigmoidWithLoss binary {name}{weighted}", losses.SigmoidWithLoss(reduction),
                 normal(6, 1), labels(2, 6), weight, ulps=16),
            case(f"HingeLoss {name}{weighted}", losses.HingeLoss(1.0, reduction),
                 _spread(6, 4), labels(4, 6), weight, ulps=16),
        ]  # fmt: skip
CASES.append(
    case("SoftmaxWithLoss sequence", losses.SoftmaxWithLoss(), normal(2, 3, 4), labels(4, 2, 3),
         ulps=16)
)  # fmt: skip
