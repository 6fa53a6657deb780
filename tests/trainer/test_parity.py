"""Whole networks: 200 steps from one seed, equal on every library and in PyTorch autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.backend import Backend
from xpnet.trainer.step import make_step

STEPS, BATCH = 200, 20


def digits() -> tuple[np.ndarray, np.ndarray]:
    data, _ = xpnet.datasets.load("digits")
    return data.x[:400] / 16.0, data.t[:400]


def order() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(400)[:BATCH] for _ in range(STEPS)])


SETUPS: dict[str, dict[str, Any]] = {
    "book": {"net": {"activation": "sigmoid"}, "optimizer": optim.SGD(0.5)},
    "adam": {
        "net": {"activation": "relu", "dropout": 0.2},
        "optimizer": optim.Adam(optim.cosine(0.01, STEPS, warmup=10)),
        "step": {"clip_norm": 1.0, "weight_decay": 1e-3},
    },
    "hinge": {"net": {"activation": "tanh", "loss": "hinge"}, "optimizer": optim.Nesterov(0.02)},
    "squared": {
        "net": {"activation": ["leaky_relu", "sigmoid"], "loss": "squared"},
        "optimizer": optim.RMSProp(0.002),
    },
    "logistic": {"net": {"activation": "tanh", "loss": "sigmoid"}, "optimizer": optim.AdaGrad(0.1)},
    "weighted": {
        "net": {"activation": "sigmoid"},
        "optimizer": optim.AdamW(0.01),
        "weight": True,
    },
}


def run(backend: Backend, setup: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(final parameters, loss of every step)."""
    x, t = digits()
    net = xpnet.mlp([64, 12, 10], **setup["net"], seed=4)
    step = make_step(net, setup["optimizer"], **setup.get("step", {}))
    params = {name: backend.asarray(np.array(p)) for name, p in net.params.items()}
    state = optim.init(setup["optimizer"], params)
    data = [x, t]
    if setup.get("weight"):
        data.append(np.random.default_rng(1).uniform(0.5, 2.0, len(x)))
    arrays = tuple(backend.asarray(a) for a in data)
    chunks = list(backend.loop(step, lambda x: x)(params, state, arrays, backend.asarray(order())))
    last = {name: backend.to_numpy(value) for name, value in chunks[-1][0].items()}
    return last, np.concatenate([backend.to_numpy(losses) for _, _, losses in chunks])


@pytest.mark.parametrize("name", SETUPS)
def test_two_hundred_steps_agree_with_numpy(backend: Backend, name: str) -> None:
    params, losses = run(backend, SETUPS[name])
    expected, expected_losses = run(xpnet.select("cpu"), SETUPS[name])
    assert len(losses) == STEPS
    assert losses[-20:].mean() < 0.8 * losses[:20].mean()  # it did learn
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-10)
    for key, value in params.items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["book", "squared", "logistic", "weighted"])
def test_two_hundred_steps_agree_with_pytorch_autograd(name: str) -> None:
    """The same network written with torch.nn.functional, its gradients by autograd."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    functional = torch.nn.functional
    setup = SETUPS[name]
    params, losses = run(xpnet.select("cpu"), setup)

    x, t = (torch.tensor(a) for a in digits())
    weight = torch.tensor(np.random.default_rng(1).uniform(0.5, 2.0, len(x)))
    start = xpnet.mlp([64, 12, 10], **setup["net"], seed=4).params
    p = {k: torch.tensor(v, requires_grad=True) for k, v in start.items()}
    W, b = [p["W1"], p["W2"]], [p["b1"], p["b2"]]
    theirs = {
        "book": lambda: torch.optim.SGD(W + b, 0.5),
        "squared": lambda: torch.optim.RMSprop(W + b, 0.002, alpha=0.99, eps=1e-7),
        "logistic": lambda: torch.optim.Adagrad(W + b, 0.1, eps=1e-7),
        "weighted": lambda: torch.optim.AdamW(
            [{"params": W}, {"params": b, "weight_decay": 0.0}], 0.01, weight_decay=0.01
        ),
    }[name]()
    expected = []
    for rows in torch.tensor(order()):
        xb, tb = x[rows], t[rows].long()
        h = xb @ W[0] + b[0]
        h = {
            "book": torch.sigmoid,
            "weighted": torch.sigmoid,
            "logistic": torch.tanh,
            "squared": functional.leaky_relu,
        }[name](h)
        y = h @ W[1] + b[1]
        hot = functional.one_hot(tb, 10).double()
        match name:
            case "book":
                loss = functional.cross_entropy(y, tb)
            case "weighted":
                each = functional.cross_entropy(y, tb, reduction="none")
                loss = (each * weight[rows]).sum() / weight[rows].sum()
            case "logistic":
                loss = functional.binary_cross_entropy_with_logits(y, hot, reduction="sum") / BATCH
            case "squared":
                loss = 0.5 * ((torch.sigmoid(y) - hot) ** 2).sum() / BATCH
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        expected.append(loss.item())
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    for key, value in params.items():
        np.testing.assert_allclose(value, p[key].detach().numpy(), rtol=1e-9, atol=1e-11)


def test_book_gradient_check_on_the_book_network() -> None:
    """Seed 003: mean |numerical - backward| per parameter on three images, in float64."""
    from xpnet.graph.gradcheck import numerical_gradient

    x, t = digits()
    x, t = x[:3], t[:3]
    net = xpnet.two_layer_net(64, 10, 10)
    _, grads = net.gradient(net.params, x, t)
    for name, p in net.params.items():

        def loss(moved: np.ndarray, name: str = name) -> float:
            return float(net.gradient({**net.params, name: moved}, x, t)[0])

        numerical = numerical_gradient(loss, p).reshape(p.shape)
        assert np.abs(numerical - grads[name]).mean() < 1e-9
        assert np.abs(grads[name]).max() > 1e-4  # not both zero
