"""Define the convolution networks to train, and the convolutions to time by themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import xpnet
from benchmarks.problems import LR, SAMPLES

__all__ = [
    "NETWORKS", "SHAPES", "Conv", "Form", "ImageCase", "ImageProblem", "Layer", "Shape", "layers",
    "products",
]  # fmt: skip

POOL = 2


class Conv(NamedTuple):
    """A convolution with square filters and a stride of 1."""

    filters: int
    kernel: int
    padding: int


class Form(NamedTuple):
    """A network: blocks of convolutions, each block before a max pool, then affine layers."""

    image: tuple[int, int, int]  # channels, height, width
    blocks: tuple[tuple[Conv, ...], ...]
    hidden: int
    outputs: int
    dropout: float
    batch: int


# The first two are those of the book's chapters 7 and 8; dropout of the last layer is left out.
NETWORKS = {
    "SimpleConvNet": Form((1, 28, 28), ((Conv(30, 5, 0),),), 100, 10, 0.0, 100),
    "DeepConvNet": Form(
        (1, 28, 28),
        (
            (Conv(16, 3, 1), Conv(16, 3, 1)),
            (Conv(32, 3, 1), Conv(32, 3, 2)),
            (Conv(64, 3, 1), Conv(64, 3, 1)),
        ),
        50, 10, 0.5, 100,
    ),
    "tiny": Form((1, 8, 8), ((Conv(2, 3, 1), Conv(3, 3, 1)), (Conv(4, 3, 2),)), 5, 3, 0.5, 4),
}  # fmt: skip


class Layer(NamedTuple):
    """A layer of a network; `number` counts those with parameters, from 1."""

    kind: str  # convolution, affine, relu, pool, flatten or dropout
    number: int = 0
    weights: tuple[int, ...] = ()  # the shape of W: (F, C, K, K) or (inputs, outputs)
    padding: int = 0
    size: int = 0  # height and width of the convolution's output


def layers(form: Form) -> Iterator[Layer]:
    """Yield a network's layers, from the images to the scores."""
    channels, size, _ = form.image
    number = 0
    for block in form.blocks:
        for filters, kernel, padding in block:
            number, size = number + 1, size + 2 * padding - kernel + 1
            weights = (filters, channels, kernel, kernel)
            yield Layer("convolution", number, weights, padding, size)
            yield Layer("relu")
            channels = filters
        yield Layer("pool")
        size //= POOL
    yield Layer("flatten")
    yield Layer("affine", number + 1, (channels * size * size, form.hidden))
    yield Layer("relu")
    if form.dropout:
        yield Layer("dropout")
    yield Layer("affine", number + 2, (form.hidden, form.outputs))


class Product(NamedTuple):
    """The matrix product that a layer's forward pass is: (M, K) by (K, N)."""

    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        return 2 * self.m * self.k * self.n


def products(form: Form) -> list[Product]:
    """Return the products of a step: forward, dW, and dx except for the images."""
    found = []
    for layer in layers(form):
        if layer.kind == "convolution":
            filters, *window = layer.weights
            shape = (form.batch * layer.size**2, math.prod(window), filters)
        elif layer.kind == "affine":
            shape = (form.batch, *layer.weights)  # type: ignore[assignment]
        else:
            continue
        m, k, n = shape
        found += [Product(m, k, n), Product(k, m, n)]
        if layer.number > 1:
            found.append(Product(m, n, k))
    return found


@dataclass(frozen=True)
class ImageCase:
    """A training of one of `NETWORKS` with Adam, in float32."""

    network: str
    device: str = "cpu"
    data_dir: str = ""

    @property
    def form(self) -> Form:
        if self.network not in NETWORKS:
            raise ValueError(f"network {self.network!r}: expected one of {', '.join(NETWORKS)}")
        return NETWORKS[self.network]

    @property
    def batch(self) -> int:
        return self.form.batch

    @property
    def samples(self) -> int:
        """MNIST's number, or fewer small ones, so that tests stay light."""
        return SAMPLES if self.form.image[1] == 28 else 100

    def __str__(self) -> str:
        where = "" if self.device == "cpu" else f", on {self.device}"
        return f"{self.network} batch {self.batch}, Adam{where}"

    def fields(self) -> dict[str, Any]:
        """Return what identifies the case in a file of results; no device means the CPU."""
        found = {"network": self.network, "batch": self.batch, "optimizer": "adam"}
        return found if self.device == "cpu" else {**found, "device": self.device}

    def problem(self) -> ImageProblem:
        """Return images and initial weights: MNIST from `data_dir`, otherwise random images."""
        form = self.form
        if self.data_dir:
            if form.image != (1, 28, 28):
                size = " x ".join(map(str, form.image[1:]))
                raise ValueError(
                    f"network {self.network!r} has images of {size}, MNIST of 28 x 28: leave out "
                    "--data-dir"
                )
            data, _ = xpnet.datasets.load("mnist", Path(self.data_dir))
            x, t = data.x.reshape(-1, *form.image), data.t
        else:
            rng = np.random.default_rng(0)
            x = rng.integers(0, 256, (self.samples, *form.image), dtype=np.uint8)
            t = rng.integers(0, form.outputs, self.samples).astype(np.int32)
        rng, params = np.random.default_rng(0), dict[str, np.ndarray]()
        for layer in layers(form):
            if layer.number:
                affine = layer.kind == "affine"
                fan_in = layer.weights[0] if affine else math.prod(layer.weights[1:])
                scale = math.sqrt(2 / fan_in)
                params[f"W{layer.number}"] = scale * rng.standard_normal(layer.weights)
                params[f"b{layer.number}"] = np.zeros(layer.weights[1 if affine else 0])
        return ImageProblem(self, form, x, t, params, LR["adam"])


class ImageProblem(NamedTuple):
    """A classification of images with softmax and cross-entropy."""

    case: ImageCase
    form: Form
    x: np.ndarray  # (N, C, H, W), uint8
    t: np.ndarray  # (N,), integers
    params: dict[str, np.ndarray]  # float64; W1, b1, W2, ... as `layers` numbers them
    lr: float

    def without_dropout(self) -> ImageProblem:
        """Return the same training without chance, in which no two libraries would agree."""
        return self._replace(form=self.form._replace(dropout=0.0))


class Shape(NamedTuple):
    """A single convolution of a batch, forward and backward: gradients by x, W and b."""

    channels: int
    size: int
    conv: Conv
    batch: int = 100

    def __str__(self) -> str:
        filters, kernel, _ = self.conv
        return f"{self.channels}x{self.size}x{self.size}, {filters} of {kernel}x{kernel}"

    def fields(self) -> dict[str, Any]:
        return {"convolution": str(self), "batch": self.batch}

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return x, W, b and the gradient of the output, float32."""
        filters, kernel, padding = self.conv
        out = self.size + 2 * padding - kernel + 1
        rng = np.random.default_rng(0)
        shapes: tuple[tuple[int, ...], ...] = (
            (self.batch, self.channels, self.size, self.size),
            (filters, self.channels, kernel, kernel),
            (filters,),
            (self.batch, filters, out, out),
        )
        x, W, b, dout = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
        return x, W, b, dout


# The convolutions of the two networks, from wide images to many channels.
SHAPES = {
    "first": Shape(1, 28, Conv(30, 5, 0)),
    "wide": Shape(16, 28, Conv(16, 3, 1)),
    "middle": Shape(32, 14, Conv(32, 3, 1)),
    "deep": Shape(64, 8, Conv(64, 3, 1)),
    "tiny": Shape(2, 5, Conv(3, 3, 1), 4),
}
