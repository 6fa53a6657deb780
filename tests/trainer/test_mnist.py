"""The real MNIST, where it is: loading it, and learning from it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.trainer import Trainer

pytestmark = pytest.mark.mnist


def test_the_canonical_bytes(mnist_dir: Path) -> None:
    """MD5 of the uncompressed images, after the 16 bytes of the header, and the first labels."""
    train, test = xpnet.datasets.load("mnist", mnist_dir)
    assert test is not None
    for part, n, md5 in (
        (train, 60_000, "6bbc9ace898e44ae57da46a324031adb"),
        (test, 10_000, "2646ac647ad5339dbf082846283269ea"),
    ):
        header = bytes([0, 0, 8, 3]) + np.array([n, 28, 28], ">u4").tobytes()
        assert hashlib.md5(header + part.x.tobytes()).hexdigest() == md5
        assert part.x.dtype == np.uint8
    assert train.t[:5].tolist() == [5, 0, 4, 1, 9]
    assert test.t[:5].tolist() == [7, 2, 1, 0, 4]


@pytest.mark.parametrize(
    ("activation", "accuracy"), [("sigmoid", 0.91), ("relu", 0.94)], ids=["sigmoid", "relu"]
)
def test_the_book_network_learns(mnist_dir: Path, activation: str, accuracy: float) -> None:
    """Four epochs of the book's training: 784-50-10, SGD, batch 100."""
    train, test = xpnet.datasets.load("mnist", mnist_dir)
    assert test is not None
    trainer = Trainer(xpnet.mlp([784, 50, 10], activation), optim.SGD(0.1), scaling=train.scaling)
    trainer.fit(train.x, train.t, epochs=4, batch_size=100)
    result = trainer.evaluate(test.x, test.t)["accuracy"]
    assert result is not None
    assert result > accuracy


def test_gradient_check_of_the_book(mnist_dir: Path) -> None:
    """Seed 003: three images, mean |numerical - backward| < 1e-9 for every parameter."""
    from xpnet.graph.gradcheck import numerical_gradient

    train, _ = xpnet.datasets.load("mnist", mnist_dir)
    x, t = train.x[:3] / 255.0, train.t[:3]
    net = xpnet.two_layer_net(784, 50, 10)
    _, grads = net.gradient(net.params, x, t)
    rng = np.random.default_rng(0)
    for name, p in net.params.items():
        picked = rng.choice(p.size, min(p.size, 500), replace=False)

        def loss(moved: np.ndarray, name: str = name) -> float:
            return float(net.gradient({**net.params, name: moved}, x, t)[0])

        numerical = numerical_gradient(loss, p, picked)
        assert np.abs(numerical - grads[name].ravel()[picked]).mean() < 1e-9
