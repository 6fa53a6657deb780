"""The trainings of K. Saitoh's *Deep Learning from Scratch*, chapters 4, 5, 7 and 8, plain NumPy.

Written anew, in the book's style: layers with forward and backward, in float64, whatever the
images have; the layers of `benchmarks.im2col` are among them. `xpnet.book` must end with the same
numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.im2col import Affine, Convolution, Flatten, Grads, Pooling, Relu

__all__ = ["Adam", "Layered", "Sigmoidal", "Trainer", "network"]

Samples = tuple[np.ndarray, np.ndarray]  # images and targets
TINY = 1e-7  # added to probabilities in the loss, and to Adam's roots


def sigmoid(x: np.ndarray) -> np.ndarray:
    y: np.ndarray = 1 / (1 + np.exp(-x))
    return y


def softmax(x: np.ndarray) -> np.ndarray:
    y = np.exp(x - np.max(x, axis=-1, keepdims=True))
    y /= np.sum(y, axis=-1, keepdims=True)
    return np.asarray(y)


def cross_entropy(y: np.ndarray, t: np.ndarray) -> Any:
    labels = np.argmax(t, axis=1) if t.size == y.size else t
    return -np.sum(np.log(y[np.arange(len(y)), labels] + TINY)) / len(y)


def right(scores: np.ndarray, t: np.ndarray) -> Any:
    labels = np.argmax(t, axis=1) if t.ndim != 1 else t
    return np.sum(np.argmax(scores, axis=1) == labels)


class Sigmoidal:
    """Chapter 4: two layers with a sigmoid between them, line by line."""

    def __init__(self, params: Grads) -> None:
        self.params = params

    def predict(self, x: np.ndarray) -> np.ndarray:
        z = sigmoid(np.dot(x, self.params["W1"]) + self.params["b1"])
        return softmax(np.dot(z, self.params["W2"]) + self.params["b2"])

    def loss(self, x: np.ndarray, t: np.ndarray) -> Any:
        return cross_entropy(self.predict(x), t)

    def accuracy(self, x: np.ndarray, t: np.ndarray) -> float:
        return float(right(self.predict(x), t) / float(len(x)))

    def gradient(self, x: np.ndarray, t: np.ndarray) -> Grads:
        a = np.dot(x, self.params["W1"]) + self.params["b1"]
        z = sigmoid(a)
        y = softmax(np.dot(z, self.params["W2"]) + self.params["b2"])
        dy = (y - t) / len(x)
        grads = {"W2": np.dot(z.T, dy), "b2": np.sum(dy, axis=0)}
        da = (1 - sigmoid(a)) * sigmoid(a) * np.dot(dy, self.params["W2"].T)
        return grads | {"W1": np.dot(x.T, da), "b1": np.sum(da, axis=0)}


class Dropout:
    """Of chapter 6: it scales when it predicts."""

    ratio = 0.5

    def forward(self, x: np.ndarray, training: bool) -> np.ndarray:
        if not training:
            return x * (1.0 - self.ratio)
        self.mask = np.random.rand(*x.shape) > self.ratio
        out: np.ndarray = x * self.mask
        return out

    def backward(self, dout: np.ndarray, grads: Grads) -> np.ndarray:
        dx: np.ndarray = dout * self.mask
        return dx


class Layered:
    """Layers one after the other, then softmax and cross-entropy: chapters 5, 7 and 8."""

    def __init__(
        self, params: Grads, layers: list[Any], batch: int | None = None, trains: bool = False
    ) -> None:
        self.params, self.layers = params, layers
        self.batch = batch  # `accuracy` predicts so many at once
        self.trains = trains  # whether `loss` is the one in training

    def predict(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        for layer in self.layers:
            x = layer.forward(x, training) if isinstance(layer, Dropout) else layer.forward(x)
        return x

    def loss(self, x: np.ndarray, t: np.ndarray) -> Any:
        self.y, self.t = softmax(self.predict(x, self.trains)), t
        return cross_entropy(self.y, t)

    def accuracy(self, x: np.ndarray, t: np.ndarray) -> float:
        size = self.batch or len(x)
        parts = [slice(start, start + size) for start in range(0, len(x), size)]
        return float(sum(right(self.predict(x[part]), t[part]) for part in parts) / len(x))

    def gradient(self, x: np.ndarray, t: np.ndarray) -> Grads:
        self.loss(x, t)
        if t.size == self.y.size:
            dout = (self.y - t) / len(x)
        else:
            dout = self.y.copy()
            dout[np.arange(len(x)), t] -= 1
            dout = dout / len(x)
        grads: Grads = {}
        for layer in reversed(self.layers):
            dout = layer.backward(dout, grads)
        return grads


class Adam:
    """Of chapter 6, with the rate as it is there by default."""

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self.lr, self.beta1, self.beta2, self.iter = lr, beta1, beta2, 0
        self.m: Grads = {}
        self.v: Grads = {}

    def update(self, params: Grads, grads: Grads) -> None:
        if not self.iter:
            self.m = {key: np.zeros_like(p) for key, p in params.items()}
            self.v = {key: np.zeros_like(p) for key, p in params.items()}
        self.iter += 1
        root = np.sqrt(1.0 - self.beta2**self.iter)
        rate = self.lr * root / (1.0 - self.beta1**self.iter)
        for key, p in params.items():
            g = grads[key]
            self.m[key] += (1 - self.beta1) * (g - self.m[key])
            self.v[key] += (1 - self.beta2) * (g**2 - self.v[key])
            p -= rate * self.m[key] / (np.sqrt(self.v[key]) + TINY)


class Trainer:
    """One step of the book's Trainer: gradient, update, and the loss again on the same batch."""

    def __init__(
        self, network: Any, train: Samples, test: Samples, batch: int, evaluated: int
    ) -> None:
        self.network, self.train, self.test = network, train, test
        self.batch, self.evaluated = batch, evaluated
        self.optimizer, self.count = Adam(), 0
        self.losses: list[Any] = []

    def step(self) -> None:
        rows = np.random.choice(len(self.train[0]), self.batch)
        x, t = self.train[0][rows], self.train[1][rows]
        self.optimizer.update(self.network.params, self.network.gradient(x, t))
        self.losses.append(self.network.loss(x, t))
        if self.count % (len(self.train[0]) // self.batch) == 0:
            for x, t in (self.train, self.test):
                self.network.accuracy(x[: self.evaluated], t[: self.evaluated])
        self.count += 1


def network(chapter: str, params: Grads) -> Any:
    """Return the network of a chapter: "ch04", "ch05", "ch07" or "ch08"."""

    def affine(i: int) -> Affine:
        return Affine(str(i), params)

    def convolution(i: int, padding: int) -> Convolution:
        return Convolution(str(i), params, padding, np.float64)

    match chapter:
        case "ch04":
            return Sigmoidal(params)
        case "ch05":
            return Layered(params, [affine(1), Relu(), affine(2)])
        case "ch07":
            first = [convolution(1, 0), Relu(), Pooling(), Flatten()]
            return Layered(params, [*first, affine(2), Relu(), affine(3)], 100)
    layers: list[Any] = []
    for i, padding in enumerate((1, 1, 1, 2, 1, 1), 1):
        layers += [convolution(i, padding), Relu(), *([Pooling()] if i % 2 == 0 else [])]
    layers += [Flatten(), affine(7), Relu(), Dropout(), affine(8), Dropout()]
    return Layered(params, layers, 100, trains=True)
