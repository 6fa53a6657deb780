"""Who trains the book's network: each as its own users would write it, fast.

A contender is a function of the problem that returns ``epoch(order) -> losses``: it trains one
pass over the batches whose rows `order`, shape=(steps, batch), names. All start from the same
weights and see the same batches; x is uint8 on the host and may be brought to any form once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

__all__ = ["CONTENDERS", "Problem"]

Epoch = Callable[[np.ndarray], np.ndarray]


class Problem(NamedTuple):
    """784-50-10, sigmoid, softmax with cross-entropy, SGD."""

    x: np.ndarray  # (N, 784), uint8
    t: np.ndarray  # (N,)
    params: dict[str, np.ndarray]  # float64
    lr: float


def _xpnet(library: str, dtype: str = "float32") -> Callable[[Problem], Epoch]:
    def contender(problem: Problem) -> Epoch:
        import xpnet
        from xpnet.trainer import Trainer

        sizes = [problem.x.shape[1], len(problem.params["b1"]), len(problem.params["b2"])]
        net = replace(xpnet.mlp(sizes, "sigmoid"), params=problem.params)
        trainer = Trainer(
            net,
            xpnet.optim.SGD(problem.lr),
            backend=xpnet.select("cpu", library, dtype),
            dtype=dtype,  # type: ignore[arg-type]
        )
        feed = trainer.feed
        data = (
            feed.samples(problem.x),
            feed.backend.asarray(feed.targets(problem.t, classes=True)),
        )

        def epoch(order: np.ndarray) -> np.ndarray:
            losses = []
            rows = feed.backend.asarray(order)
            for params, state, chunk in trainer.run(trainer.params, trainer.state, data, rows):
                trainer.params, trainer.state = params, state
                losses.append(chunk)
            return np.concatenate(losses)

        return epoch

    return contender


def book(problem: Problem) -> Epoch:
    """The book's training loop in plain NumPy, float32: gradient, update, and the loss again.

    Stateful layers with their own backward, one-hot targets, images scaled beforehand. The
    loss after the update, which the book records, is a second forward pass; the one before
    it is what is compared with the other contenders.
    """
    x = problem.x.astype(np.float32) / np.float32(255)
    t = np.eye(10, dtype=np.float32)[problem.t]
    params = {k: v.astype(np.float32) for k, v in problem.params.items()}

    def forward(x: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        z1 = 1 / (1 + np.exp(-(np.dot(x, params["W1"]) + params["b1"])))
        a2 = np.dot(z1, params["W2"]) + params["b2"]
        a2 = a2 - np.max(a2, axis=-1, keepdims=True)
        y = np.exp(a2) / np.sum(np.exp(a2), axis=-1, keepdims=True)
        return z1, y, float(-np.sum(t * np.log(y + 1e-7)) / len(x))

    def step(x: np.ndarray, t: np.ndarray) -> float:
        z1, y, loss = forward(x, t)
        dy = (y - t) / len(x)
        grads = {"W2": np.dot(z1.T, dy), "b2": np.sum(dy, axis=0)}
        dz1 = np.dot(dy, params["W2"].T)
        da1 = dz1 * (1.0 - z1) * z1
        grads |= {"W1": np.dot(x.T, da1), "b1": np.sum(da1, axis=0)}
        np.dot(da1, params["W1"].T)  # the gradient of the images, which its Affine returns
        for key in ("W1", "b1", "W2", "b2"):
            params[key] -= problem.lr * grads[key]
        forward(x, t)
        return loss

    return lambda order: np.array([step(x[rows], t[rows]) for rows in order])


def pytorch(problem: Problem) -> Epoch:
    """PyTorch, eager: nn.Sequential, autograd, torch.optim.SGD, data as tensors in memory."""
    import torch

    x = torch.from_numpy(problem.x).float() / 255
    t = torch.from_numpy(problem.t).long()
    hidden, outputs = len(problem.params["b1"]), len(problem.params["b2"])
    first, last = torch.nn.Linear(x.shape[1], hidden), torch.nn.Linear(hidden, outputs)
    with torch.no_grad():
        for layer, i in ((first, 1), (last, 2)):
            layer.weight.copy_(torch.from_numpy(problem.params[f"W{i}"].T))
            layer.bias.copy_(torch.from_numpy(problem.params[f"b{i}"]))
    model = torch.nn.Sequential(first, torch.nn.Sigmoid(), last)
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.lr)
    criterion = torch.nn.CrossEntropyLoss()

    def epoch(order: np.ndarray) -> np.ndarray:
        losses = []
        for rows in torch.from_numpy(order):
            optimizer.zero_grad()
            loss = criterion(model(x[rows]), t[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())  # read back once an epoch, as we do
        return np.asarray(torch.stack(losses).numpy())

    return epoch


# The reference that every loss curve is held against.
reference = _xpnet("numpy", "float64")

CONTENDERS: dict[str, Callable[[Problem], Epoch]] = {
    "xpnet numpy": _xpnet("numpy"),
    "xpnet torch": _xpnet("torch"),
    "xpnet jax": _xpnet("jax"),
    "book loop": book,
    "pytorch eager": pytorch,
}
