"""The formulas of K. Saitoh's *Deep Learning from Scratch* for convolution networks, plain NumPy.

Written anew: a convolution copies all windows of its images into the rows of one matrix (im2col),
multiplies it by the filters once, and adds the windows' gradients up again (col2im). A max pool
copies its windows in the same way. Every layer keeps what its backward pass needs until its next
forward pass, and the first one also computes the gradient of the images. Adam writes into moments
and parameters. With float64, this is the training that all contenders must match.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.image_problems import POOL, ImageProblem, layers
from benchmarks.problems import BETA1, BETA2, EPS, Epoch

__all__ = [
    "Affine",
    "Convolution",
    "Flatten",
    "Grads",
    "Pooling",
    "Relu",
    "col2im",
    "im2col",
    "train",
]

Grads = dict[str, np.ndarray]


def im2col(x: np.ndarray, kernel: int, stride: int, padding: int, dtype: Any = None) -> np.ndarray:
    """Return the windows of images (N, C, H, W) as rows: shape (N * OH * OW, C * kernel²).

    They have the dtype of x; the book's have always float64.
    """
    n, c, h, w = x.shape
    oh, ow = (h + 2 * padding - kernel) // stride + 1, (w + 2 * padding - kernel) // stride + 1
    around = (padding, padding)
    x = np.pad(x, ((0, 0), (0, 0), around, around))
    windows = np.empty((n, c, kernel, kernel, oh, ow), dtype or x.dtype)
    for i in range(kernel):
        for j in range(kernel):
            rows, columns = slice(i, i + stride * oh, stride), slice(j, j + stride * ow, stride)
            windows[:, :, i, j] = x[:, :, rows, columns]
    return windows.transpose(0, 4, 5, 1, 2, 3).reshape(n * oh * ow, -1)


def col2im(
    col: np.ndarray, shape: tuple[int, ...], kernel: int, stride: int, padding: int
) -> np.ndarray:
    """Add rows of windows up to images of this shape; the adjoint of `im2col`."""
    n, c, h, w = shape
    oh, ow = (h + 2 * padding - kernel) // stride + 1, (w + 2 * padding - kernel) // stride + 1
    windows = col.reshape(n, oh, ow, c, kernel, kernel).transpose(0, 3, 4, 5, 1, 2)
    x = np.zeros((n, c, h + 2 * padding + stride - 1, w + 2 * padding + stride - 1), col.dtype)
    for i in range(kernel):
        for j in range(kernel):
            rows, columns = slice(i, i + stride * oh, stride), slice(j, j + stride * ow, stride)
            x[:, :, rows, columns] += windows[:, :, i, j]
    return x[:, :, padding : padding + h, padding : padding + w]


class Convolution:
    def __init__(self, name: str, params: Grads, padding: int, dtype: Any = None) -> None:
        self.name, self.params, self.padding, self.dtype = name, params, padding, dtype

    def forward(self, x: np.ndarray) -> np.ndarray:
        W, b = self.params[f"W{self.name}"], self.params[f"b{self.name}"]
        filters, _, kernel, _ = W.shape
        n, _, h, w = x.shape
        oh, ow = h + 2 * self.padding - kernel + 1, w + 2 * self.padding - kernel + 1
        self.shape, self.col = x.shape, im2col(x, kernel, 1, self.padding, self.dtype)
        self.col_W = W.reshape(filters, -1).T
        out: np.ndarray = np.dot(self.col, self.col_W) + b
        return out.reshape(n, oh, ow, -1).transpose(0, 3, 1, 2)

    def backward(self, dout: np.ndarray, grads: Grads) -> np.ndarray:
        W = self.params[f"W{self.name}"]
        dout = dout.transpose(0, 2, 3, 1).reshape(-1, len(W))
        grads[f"b{self.name}"] = np.sum(dout, axis=0)
        grads[f"W{self.name}"] = np.dot(self.col.T, dout).T.reshape(W.shape)
        dcol = np.dot(dout, self.col_W.T)
        return col2im(dcol, self.shape, W.shape[-1], 1, self.padding)


class Pooling:
    def forward(self, x: np.ndarray) -> np.ndarray:
        n, c, h, w = x.shape
        oh, ow = (h - POOL) // POOL + 1, (w - POOL) // POOL + 1
        col = im2col(x, POOL, POOL, 0).reshape(-1, POOL * POOL)
        self.shape, self.largest = x.shape, np.argmax(col, axis=1)
        out: np.ndarray = np.max(col, axis=1)
        return out.reshape(n, oh, ow, c).transpose(0, 3, 1, 2)

    def backward(self, dout: np.ndarray, grads: Grads) -> np.ndarray:
        dout = dout.transpose(0, 2, 3, 1)
        n, oh, ow, _ = dout.shape
        dmax = np.zeros((dout.size, POOL * POOL), dout.dtype)
        dmax[np.arange(self.largest.size), self.largest] = dout.reshape(-1)
        return col2im(dmax.reshape(n * oh * ow, -1), self.shape, POOL, POOL, 0)


class Affine:
    def __init__(self, name: str, params: Grads) -> None:
        self.name, self.params = name, params

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x
        out: np.ndarray = np.dot(x, self.params[f"W{self.name}"]) + self.params[f"b{self.name}"]
        return out

    def backward(self, dout: np.ndarray, grads: Grads) -> np.ndarray:
        grads[f"W{self.name}"] = np.dot(self.x.T, dout)
        grads[f"b{self.name}"] = np.sum(dout, axis=0)
        dx: np.ndarray = np.dot(dout, self.params[f"W{self.name}"].T)
        return dx


class Relu:
    def forward(self, x: np.ndarray) -> np.ndarray:
        self.negative = x <= 0
        out = x.copy()
        out[self.negative] = 0
        return out

    def backward(self, dout: np.ndarray, grads: Grads) -> np.ndarray:
        dout[self.negative] = 0
        return dout


class Flatten:
    def forward(self, x: np.ndarray) -> np.ndarray:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dout: np.ndarray, grads: Grads) -> np.ndarray:
        return dout.reshape(self.shape)


class Dropout:
    """Scale in training, as every other library does (the book scales when it predicts)."""

    def __init__(self, ratio: float) -> None:
        self.ratio, self.rng = ratio, np.random.default_rng(2)

    def forward(self, x: np.ndarray) -> np.ndarray:
        kept = self.rng.random(x.shape, dtype=np.float32) > self.ratio
        self.mask = kept.astype(x.dtype) / x.dtype.type(1 - self.ratio)
        out: np.ndarray = x * self.mask
        return out

    def backward(self, dout: np.ndarray, grads: Grads) -> np.ndarray:
        dx: np.ndarray = dout * self.mask
        return dx


def _network(problem: ImageProblem, params: Grads) -> list[Any]:
    found: list[Any] = []
    for layer in layers(problem.form):
        match layer.kind:
            case "convolution":
                found.append(Convolution(str(layer.number), params, layer.padding))
            case "affine":
                found.append(Affine(str(layer.number), params))
            case "dropout":
                found.append(Dropout(problem.form.dropout))
            case kind:
                found.append({"pool": Pooling, "relu": Relu, "flatten": Flatten}[kind]())
    return found


def train(problem: ImageProblem, dtype: Any = np.float32) -> Epoch:
    """Return the training loop: forward, backward, Adam."""
    x = problem.x.astype(dtype) / dtype(255)
    params: Grads = {name: value.astype(dtype) for name, value in problem.params.items()}
    m, v = ({name: np.zeros_like(p) for name, p in params.items()} for _ in range(2))
    network, count = _network(problem, params), 0

    def step(rows: np.ndarray) -> float:
        nonlocal count
        scores, labels = x[rows], problem.t[rows]
        for layer in network:
            scores = layer.forward(scores)
        y = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
        y /= np.sum(y, axis=-1, keepdims=True)
        each = np.arange(len(rows))
        loss = float(-np.sum(np.log(y[each, labels] + dtype(1e-7))) / len(rows))
        y[each, labels] -= 1
        dout, grads = y / len(rows), Grads()
        for layer in reversed(network):
            dout = layer.backward(dout, grads)
        count += 1
        lr = problem.lr * float(np.sqrt(1 - BETA2**count)) / (1 - BETA1**count)
        for name, p in params.items():
            m[name] += (1 - BETA1) * (grads[name] - m[name])
            v[name] += (1 - BETA2) * (grads[name] ** 2 - v[name])
            p -= lr * m[name] / (np.sqrt(v[name]) + dtype(EPS))
        return loss

    return lambda order: np.array([step(rows) for rows in order])
