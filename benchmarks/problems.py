"""What is trained: four networks, two activations, two optimizers; data, batches, first weights."""

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
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # Adam's, everywhere
# On a GPU the opponents that capture have so many steps in one graph; every order that is timed
# there is a multiple, so that they need no second graph for a remainder. xpnet chooses by itself.
STEPS_PER_GRAPH = 100

# Rows of each batch, shape=(steps, batch), to the losses of the steps; trains.
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
    """A training to be measured; ``network`` is S, M, L, D, or sizes and batch: "64-8-10/32"."""

    network: str = "S"
    activation: str = "sigmoid"
    optimizer: str = "sgd"
    data_dir: str = ""
    device: str = "cpu"
    precision: str = "float32"
    """Of the matrix products. On the CPU, contenders in bfloat16 have names of their own."""

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
            raise ValueError(f"network {self.network!r}: expected {known}, or 64-8-10/32, say")
        return size

    def __str__(self) -> str:
        sizes, batch = self.size
        name = f"{self.network} = " if self.network in NETWORKS else ""
        layers = "-".join(map(str, sizes))
        where = "" if self.device == "cpu" else f", {self.precision} on {self.device}"
        return f"{name}{layers} batch {batch}, {self.activation}, {self.optimizer.upper()}{where}"

    def fields(self) -> dict[str, Any]:
        """What identifies the case in a file of results; without a device, it is the CPU."""
        names = ["network", "activation", "optimizer"]
        if self.device != "cpu":
            names += ["device", "precision"]
        return {name: getattr(self, name) for name in names}

    def problem(self) -> Problem:
        """The data and the first weights: MNIST's from a folder, else random images."""
        sizes, batch = self.size
        if self.data_dir:
            if sizes[0] != 784 or sizes[-1] < 10:
                raise ValueError(
                    f"network {self.network!r} has {sizes[0]} inputs and {sizes[-1]} outputs, "
                    "MNIST 784 and 10: leave out --data-dir"
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
    """Softmax with cross-entropy on classes; weights W1, b1, W2, ... as the books write them."""

    case: Case
    sizes: list[int]
    batch: int
    x: np.ndarray  # (N, D), uint8
    t: np.ndarray  # (N,), integers
    params: dict[str, np.ndarray]  # float64
    lr: float


def batches(case: Case, steps: int, seed: int = 1) -> np.ndarray:
    """Rows of each batch, shape=(steps, batch): a shuffled epoch, as often as it takes."""
    batch = case.size.batch
    rng = np.random.default_rng(seed)
    per_epoch = SAMPLES // batch
    epochs = [
        rng.permutation(SAMPLES)[: per_epoch * batch].reshape(per_epoch, batch)
        for _ in range(-(-steps // per_epoch))
    ]
    return np.concatenate(epochs)[:steps]


def products(sizes: list[int], batch: int) -> list[tuple[int, int, int]]:
    """(M, K, N) of each matrix product of a step: forward, dW, and dx but for the data's."""
    shapes = []
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        shapes += [(batch, inputs, outputs), (inputs, batch, outputs)]
        if i:
            shapes.append((batch, outputs, inputs))
    return shapes


def operands(
    sizes: list[int], batch: int, asarray: Callable[[np.ndarray], Any]
) -> list[tuple[Any, Any]]:
    """Left and right of each matrix product of a step, as a library's arrays; normal noise."""
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
