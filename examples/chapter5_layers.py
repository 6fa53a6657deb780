"""The layers of the book's chapter 5, its TwoLayerNet, gradient check and training on MNIST.

After "深度学习(鱼书)day08–误差反向传播(后三节)". The classes are `xpnet.book`'s: the document's
names and its way of keeping x, dW and db between forward and backward, over xpnet's gates.

    python examples/chapter5_layers.py [FOLDER_OF_THE_MNIST_FILES]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import xpnet
from xpnet.book import TwoLayerNet

ITERS_NUM = 10_000
BATCH_SIZE = 100
LEARNING_RATE = 0.1

Part = tuple[np.ndarray, np.ndarray]


def load_mnist(folder: Path | None = None) -> tuple[Part, Part]:
    """Images as rows of numbers from 0 to 1, labels as one-hot rows."""
    train, test = xpnet.datasets.load("mnist", folder)
    assert test is not None
    (x_train, t_train), (x_test, t_test) = (
        (part.x.reshape(len(part), -1) / 255.0, np.eye(10)[part.t]) for part in (train, test)
    )
    return (x_train, t_train), (x_test, t_test)


def gradient_check(x: np.ndarray, t: np.ndarray, say: Callable[..., None] = print) -> float:
    """Backward against differences on three images; the largest mean difference."""
    np.random.seed(0)
    network = TwoLayerNet(input_size=784, hidden_size=50, output_size=10)
    x_batch, t_batch = x[:3], t[:3]
    grad_numerical = network.numerical_gradient(x_batch, t_batch)
    grad_backprop = network.gradient(x_batch, t_batch)
    worst = 0.0
    for key in grad_numerical:
        diff = np.average(np.abs(grad_backprop[key] - grad_numerical[key]))
        say(f"{key}: {diff}")
        worst = max(worst, float(diff))
    return worst


def train(
    train: Part, test: Part, iters_num: int = ITERS_NUM, say: Callable[..., None] = print
) -> list[tuple[float, float]]:
    """The document's loop; train and test accuracy after every epoch's first step."""
    (x_train, t_train), (x_test, t_test) = train, test
    np.random.seed(0)
    network = TwoLayerNet(input_size=784, hidden_size=50, output_size=10)
    rng = np.random.default_rng(0)
    train_size = x_train.shape[0]
    iter_per_epoch = max(train_size // BATCH_SIZE, 1)
    accuracies = []
    for i in range(iters_num):
        batch_mask = rng.choice(train_size, BATCH_SIZE)
        x_batch, t_batch = x_train[batch_mask], t_train[batch_mask]
        grad = network.gradient(x_batch, t_batch)
        for key in ("W1", "b1", "W2", "b2"):
            network.params[key] -= LEARNING_RATE * grad[key]
        if i % iter_per_epoch == 0:
            train_acc = network.accuracy(x_train, t_train)
            test_acc = network.accuracy(x_test, t_test)
            accuracies.append((train_acc, test_acc))
            say(f"iteration {i:5}  train {train_acc:.4f}  test {test_acc:.4f}")
    return accuracies


def main(folder: Path | None = None, iters_num: int = ITERS_NUM) -> list[tuple[float, float]]:
    parts = load_mnist(folder)
    gradient_check(*parts[0])
    return train(*parts, iters_num)


if __name__ == "__main__":
    if len(sys.argv) > 2 or "--help" in sys.argv:
        sys.exit(__doc__)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
