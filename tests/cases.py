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


def counts(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.poisson(1.5, shape).astype(float)


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


def batch_norms() -> list[Case]:
    """Batch normalization of features and of images, in training and in inference."""
    found = []
    for name, shape in (("features", (6, 3)), ("images", (4, 3, 2, 3)), ("one sample", (1, 3))):
        statistics = normal(3), positive(3)
        for when, step in (("", fixed([2])), (", 0-d step", fixed(2)), (" in inference", none)):
            found.append(
                case(f"BatchNorm {name}{when}", layers.BatchNorm(), normal(*shape), normal(3),
                     normal(3), *statistics, step, ulps=64)
            )  # fmt: skip
    return found


CASES = [
    case("Add", gates.Add(), normal(3, 4), normal(3, 4)),
    case("Add broadcast", gates.Add(), normal(3, 4), normal(4)),
    case("Mul", gates.Mul(), normal(3, 4), normal(3, 4)),
    case("Mul broadcast", gates.Mul(), normal(2, 1, 4), normal(3, 1)),
    case("Mul 0-d", gates.Mul(), normal(), normal(3, 2)),
    case("Sub", gates.Sub(), normal(3, 4), normal(3, 4)),
    case("Sub broadcast", gates.Sub(), normal(4), normal(2, 3, 4)),
    case("Div", gates.Div(), normal(3, 4), apart(3, 4)),
    case("Div broadcast", gates.Div(), normal(2, 1, 4), apart(3, 1)),
    case("Max", gates.Max(), normal(3, 4), normal(3, 4)),
    case("Max broadcast", gates.Max(), normal(3, 4), normal(3, 1)),
    case("AtLeast", gates.AtLeast(0.0), apart(3, 4)),
    case("Neg", gates.Neg(), normal(3, 4)),
    case("Scale", gates.Scale(-2.5), normal(3, 4)),
    case("Over", gates.Over(3.0), normal(3, 4)),
    case("Shift", gates.Shift(0.3), normal(3, 4)),
    case("Power whole", gates.Power(3), apart(3, 4)),
    case("Power root", gates.Power(0.5), positive(3, 4)),
    case("Power negative", gates.Power(-2), positive(3, 4)),
    case("Power 0", gates.Power(0), fixed([-1.0, 0.0, 2.0], float)),
    case("Power 1", gates.Power(1), fixed([-1.0, 0.0, 2.0], float)),
    case("Exp", gates.Exp(), normal(3, 4)),
    case("Log", gates.Log(), positive(3, 4)),
    case("Reciprocal", gates.Reciprocal(), apart(3, 4)),
    case("Reciprocal of another number", gates.Reciprocal(-2.5), apart(3, 4)),
    case("Sum", gates.Sum(), normal(3, 4)),
    case("Sum axis", gates.Sum(-1), normal(2, 3, 4)),
    case("Sum axes", gates.Sum((0, 2)), normal(2, 3, 4)),
    case("Sum keepdims", gates.Sum(1, keepdims=True), normal(2, 3, 4)),
    case("Sum 0-d", gates.Sum(), normal()),
    case("Mean", gates.Mean(), normal(3, 4)),
    case("Mean axis", gates.Mean(0), normal(2, 3, 4)),
    case("Mean keepdims", gates.Mean((-1, 0), keepdims=True), normal(2, 3, 4)),
    case("SquaredNorm", gates.SquaredNorm(), normal(3, 4)),
    case("MatMul", gates.MatMul(), normal(3, 4), normal(4, 2)),
    case("MatMul vector right", gates.MatMul(), normal(3, 4), normal(4)),
    case("MatMul vector left", gates.MatMul(), normal(3), normal(3, 4)),
    case("MatMul vectors", gates.MatMul(), normal(4), normal(4)),
    case("MatMul stacks", gates.MatMul(), normal(2, 3, 4), normal(2, 4, 5)),
    case("MatMul stack broadcast", gates.MatMul(), normal(2, 3, 4), normal(4, 5)),
    case("MatMul stack of nothing", gates.MatMul(), normal(2, 3, 0), normal(0, 4)),
    case("MatMul stack to nothing", gates.MatMul(), normal(2, 3, 4), normal(4, 0)),
    case("MatMul stack vector", gates.MatMul(), normal(2, 3, 4), normal(4)),
    case("Transpose", gates.Transpose(), normal(3, 4)),
    case("Transpose axes", gates.Transpose((2, 0, 1)), normal(2, 3, 4)),
    case("Transpose axes negative", gates.Transpose((-1, 0, 1)), normal(2, 3, 4)),
    case("Reshape", gates.Reshape((2, 6)), normal(3, 4)),
    case("Reshape rest", gates.Reshape((-1,)), normal(3, 4)),
    case("Index", gates.Index(1), normal(3, 4)),
    case("Index slices", gates.Index((slice(0, 3, 2), slice(1, None))), normal(3, 4)),
    case("Index last", gates.Index((..., -1)), normal(2, 3, 4)),
    case("Index nothing", gates.Index(slice(1, 1)), normal(3, 4)),
    case("Index element", gates.Index((2, 0)), normal(3, 4)),
    case("Gather", gates.Gather(), normal(4, 3), fixed([2, 0, 2, -1, 2])),
    case("Gather axis", gates.Gather(-2), normal(2, 4, 3), fixed([1, 1, 0])),
    case("Gather nothing", gates.Gather(), normal(4, 3), fixed([])),
    case("Pick", gates.Pick(), normal(5, 3), labels(3, 5)),
    case("Pick stacks", gates.Pick(), normal(2, 5, 3), labels(3, 2, 5)),
    case("Affine", layers.Affine(), normal(6, 5), normal(5, 3), normal(3), ulps=32),
    case("Affine vector", layers.Affine(), normal(5), normal(5, 3), normal(3), ulps=32),
    case("Affine images", layers.Affine(), normal(4, 2, 3, 3), normal(18, 5), normal(5), ulps=64),
    case("Affine sequence", layers.Affine(), normal(2, 3, 5), normal(5, 4), normal(4), ulps=32),
    case("Sigmoid", layers.Sigmoid(), normal(3, 4)),
    case("Tanh", layers.Tanh(), normal(3, 4)),
    case("ReLU", layers.ReLU(), apart(3, 4)),
    case("LeakyReLU", layers.LeakyReLU(0.1), apart(3, 4)),
    case("Identity", layers.Identity(), normal(3, 4)),
    case(
        "Convolution",
        layers.Convolution(),
        normal(3, 2, 5, 6),
        normal(4, 2, 3, 2),
        normal(4),
        ulps=64,
    ),
    case(
        "Convolution without bias",
        layers.Convolution(),
        normal(2, 1, 4, 4),
        normal(3, 1, 3, 3),
        ulps=64,
    ),
    case(
        "Convolution by rows",
        layers.Convolution(1, 1),
        normal(2, 6, 5, 4),
        normal(3, 6, 3, 3),
        normal(3),
        ulps=128,
    ),
    case(
        "Convolution by rows, dilated",
        layers.Convolution(1, 2, 2),
        normal(2, 8, 7, 6),
        normal(3, 8, 3, 2),
        normal(3),
        ulps=128,
    ),
    case(
        "Convolution of wide padding",
        layers.Convolution(1, (3, 2)),
        normal(2, 2, 3, 3),
        normal(2, 2, 2, 2),
        normal(2),
        ulps=64,
    ),
    case(
        "Convolution stride",
        layers.Convolution(2, 1),
        normal(2, 2, 6, 5),
        normal(3, 2, 3, 3),
        normal(3),
        ulps=64,
    ),
    case(
        "Convolution stride, rest",
        layers.Convolution((3, 2), (1, 0), (1, 2)),
        normal(2, 2, 7, 8),
        normal(3, 2, 2, 3),
        normal(3),
        ulps=64,
    ),
    case(
        "Convolution 1 x 1",
        layers.Convolution(),
        normal(2, 20, 3, 4),
        normal(5, 20, 1, 1),
        normal(5),
        ulps=64,
    ),
    case(
        "Convolution 1 x 1 stride",
        layers.Convolution(2),
        normal(2, 3, 4, 5),
        normal(5, 3, 1, 1),
        normal(5),
        ulps=64,
    ),
    case("MaxPool", layers.MaxPool(), normal(2, 3, 4, 6)),
    case("MaxPool rest", layers.MaxPool(2), normal(2, 2, 5, 3)),
    case("MaxPool overlapping", layers.MaxPool(3, 2, 1), normal(2, 2, 5, 6)),
    case("MaxPool gaps", layers.MaxPool((1, 2), 3), normal(2, 2, 7, 6)),
    case("MaxPool padded", layers.MaxPool(2, padding=1), normal(2, 2, 3, 4)),
    case("AveragePool", layers.AveragePool(), normal(2, 3, 4, 6)),
    case("AveragePool rest", layers.AveragePool((2, 3)), normal(2, 2, 5, 4)),
    case("AveragePool overlapping", layers.AveragePool(3, (1, 2), 1), normal(2, 2, 5, 6)),
    case("AveragePool of one", layers.AveragePool(1), normal(2, 2, 3, 3)),
    case("GlobalAveragePool", layers.GlobalAveragePool(), normal(2, 3, 4, 5)),
    case("Flatten", layers.Flatten(), normal(2, 3, 4, 5)),
    *batch_norms(),
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
            case(f"AbsoluteLoss {name}{weighted}", losses.AbsoluteLoss(reduction),
                 apart(6, 3), fixed(np.zeros((6, 3)), float), weight, ulps=16),
            case(f"HuberLoss {name}{weighted}", losses.HuberLoss(0.7, reduction),
                 _spread(6, 4), fixed(np.zeros((6, 4)), float), weight, ulps=16),
            case(f"QuantileLoss {name}{weighted}", losses.QuantileLoss(0.9, reduction),
                 apart(6, 3), fixed(np.zeros((6, 3)), float), weight, ulps=16),
            case(f"PoissonLoss {name}{weighted}", losses.PoissonLoss(reduction),
                 normal(6, 3), counts(6, 3), weight, ulps=16),
            case(f"PoissonLoss indices {name}{weighted}", losses.PoissonLoss(reduction),
                 normal(6, 3), labels(3, 6), weight, ulps=16),
        ]  # fmt: skip
CASES.append(
    case("SoftmaxWithLoss sequence", losses.SoftmaxWithLoss(), normal(2, 3, 4), labels(4, 2, 3),
         ulps=16)
)  # fmt: skip
