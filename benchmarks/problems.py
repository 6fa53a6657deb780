"""Define the trainings: networks, activations, optimizers, data, batches and initial weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import xpnet

__all__ = [
    "BETA1", "BETA2", "EPS", "NETWORKS", "STEPS_PER_GRAPH", "Case", "Epoch", "Problem", "batches",
    "operands", "products",
]  # fmt: skip

SAMPLES = 60_000  # as many as MNIST has
LR = {"sgd": 0.1, "adam": 1e-3}
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # of Adam, for every contender
# On a GPU, other libraries capture this many steps in one graph. The number of timed steps is a
# multiple of it, so that they need no second graph for a remainder. xpnet chooses its own number.
STEPS_PER_GRAPH = 100

# Trains on the batches whose rows it takes, shape=(steps, batch), and returns the steps' losses.
Epoch = Callable[[np.ndarray], np.ndarray]


class Size(NamedTuple):
    sizes: list[int]
    batch: int


NETWORKS = {
    "S": Size([784, 50, 10], 100),  # the books'
    "M": Size([784, 256, 10], 128),
    "L": Size([784, 1024, 10], 256),
    "D": Size([784, 512, 512, 512, 10], 128),
}


@dataclass(frozen=True)
class Case:
    """A training to measure; ``network`` is S, M, L, D, or sizes and batch: "64-8-10/32"."""

    network: str = "S"
    activation: str = "sigmoid"
    optimizer: str = "sgd"
    data_dir: str = ""
    device: str = "cpu"
    precision: str = "float32"
    """Precision of the matrix products. On the CPU, bfloat16 contenders have their own names."""

    @property
    def size(self) -> Size:
        if self.network in NETWORKS:
            return NETWORKS[self.network]
        try:
            layers, batch = self.network.split("/")
            size = Size([int(n) for n in layers.split("-")], int(batch))
        except ValueError:
            size = Size([], 0)
        if len(size.sizes) < 2 or min(*size.sizes, size.batch) < 1 or size.batch > SAMPLES:
            known = ", ".join(NETWORKS)
            raise ValueError(
                f"network {self.network!r}: expected {known}, or sizes and batch such as 64-8-10/32"
            )
        return size

    def __str__(self) -> str:
        sizes, batch = self.size
        name = f"{self.network} = " if self.network in NETWORKS else ""
        layers = "-".join(map(str, sizes))
        where = "" if self.device == "cpu" else f", {self.precision} on {self.device}"
        return f"{name}{layers} batch {batch}, {self.activation}, {self.optimizer.upper()}{where}"

    def fields(self) -> dict[str, Any]:
        """Return what identifies the case in a file of results; no device means the CPU."""
        names = ["network", "activation", "optimizer"]
        if self.device != "cpu":
            names += ["device", "precision"]
        return {name: getattr(self, name) for name in names}

    def problem(self) -> Problem:
        """Return data and initial weights: MNIST from `data_dir`, otherwise random images."""
        sizes, batch = self.size
        if self.data_dir:
            if sizes[0] != 784 or sizes[-1] < 10:
                raise ValueError(
                    f"network {self.network!r} has {sizes[0]} inputs and {sizes[-1]} outputs, but "
                    "MNIST needs 784 and 10: leave out --data-dir"
                )
            data, _ = xpnet.datasets.load("mnist", Path(self.data_dir))
            x, t = data.x, data.t
        else:
            rng = np.random.default_rng(0)
            x = rng.integers(0, 256, (SAMPLES, sizes[0]), dtype=np.uint8)
            t = rng.integers(0, sizes[-1], SAMPLES).astype(np.int32)
        params = xpnet.mlp(sizes, self.activation, seed=0).params
        return Problem(self, sizes, batch, x.reshape(len(x), -1), t, params, LR[self.optimizer])


class Problem(NamedTuple):
    """A classification with softmax and cross-entropy; weights W1, b1, W2, ... as in the book."""

    case: Case
    sizes: list[int]
    batch: int
    x: np.ndarray  # (N, D), uint8
    t: np.ndarray  # (N,), integers
    params: dict[str, np.ndarray]  # float64
    lr: float


def batches(case: Case, steps: int, seed: int = 1) -> np.ndarray:
    """Return the rows of each batch, shape=(steps, batch), from shuffled epochs."""
    batch = case.size.batch
    rng = np.random.default_rng(seed)
    per_epoch = SAMPLES // batch
    epochs = [
        rng.permutation(SAMPLES)[: per_epoch * batch].reshape(per_epoch, batch)
        for _ in range(-(-steps // per_epoch))
    ]
    return np.concatenate(epochs)[:steps]


def products(sizes: list[int], batch: int) -> list[tuple[int, int, int]]:
    """Return (M, K, N) of each product of a step: forward, dW, and dx except for the data's."""
    shapes = []
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        shapes += [(batch, inputs, outputs), (inputs, batch, outputs)]
        if i:
            shapes.append((batch, outputs, inputs))
    return shapes


def operands(
    sizes: list[int], batch: int, asarray: Callable[[np.ndarray], Any]
) -> list[tuple[Any, Any]]:
    """Return the operands of each product of a step, as a library's arrays of normal noise."""
    rng = np.random.default_rng(0)
    pairs = []
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        x, W, g = (
            asarray(rng.standard_normal(shape, dtype=np.float32))
            for shape in ((batch, inputs), (inputs, outputs), (batch, outputs))
        )
        pairs += [(x, W), (x.T, g)]
        if i:
            pairs.append((g, W.T))
    return pairs
