"""Optimizers against PyTorch's and hand calculation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from xpnet import optim

ALL = [
    optim.SGD(0.1),
    optim.Momentum(0.05),
    optim.Nesterov(0.05),
    optim.AdaGrad(0.1),
    optim.RMSProp(0.01),
    optim.Adam(0.1),
    optim.AdamW(0.1, weight_decay=0.1),
]


def test_every_optimizer_is_in_the_table() -> None:
    """One that is added and not tested, or not to be had by name, fails here."""
    public = [getattr(optim, name) for name in optim.__all__]
    others = (optim.Optimizer, optim.PerModel)  # a protocol; a rule of many models
    rules = {value for value in public if hasattr(value, "rule") and value not in others}
    assert set(optim.OPTIMIZERS.values()) == rules == {type(optimizer) for optimizer in ALL}


def train(optimizer: Any, steps: int, dtype: str = "float64") -> dict[str, np.ndarray]:
    """Minimise x²/20 + y² from (-7, 2), the book's example, with a matrix beside it."""
    params = {"p": np.array([-7.0, 2.0], dtype), "W": np.array([[1.0, -2.0], [0.5, 3.0]], dtype)}
    state = optim.init(optimizer, params)
    for _ in range(steps):
        p, W = params["p"], params["W"]
        grads = {"p": np.array([p[0] / 10, 2 * p[1]], dtype), "W": W * np.asarray(0.3, dtype)}
        params, state = optim.update(optimizer, grads, state, params)
    return params


def torch_optimizer(torch: Any, optimizer: Any, params: list[Any]) -> Any:
    """The same rule in PyTorch's words, where it has the same rule."""
    lr = optimizer.lr
    match optimizer:
        case optim.SGD():
            return torch.optim.SGD(params, lr)
        case optim.Momentum():
            return torch.optim.SGD(params, lr, momentum=optimizer.momentum)
        case optim.Nesterov():
            return torch.optim.SGD(params, lr, momentum=optimizer.momentum, nesterov=True)
        case optim.AdaGrad():
            return torch.optim.Adagrad(params, lr, eps=optimizer.eps)
        case optim.RMSProp():
            return torch.optim.RMSprop(params, lr, alpha=optimizer.decay_rate, eps=optimizer.eps)
        case optim.Adam():
            return torch.optim.Adam(params, lr, eps=optimizer.eps)
        case optim.AdamW():
            # PyTorch decays every tensor of a group: ours only those with two axes
            groups = [{"params": [params[0]], "weight_decay": 0.0}, {"params": [params[1]]}]
            return torch.optim.AdamW(groups, lr, weight_decay=optimizer.weight_decay)
    raise AssertionError(optimizer)


@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: type(o).__name__)
def test_agrees_with_pytorch(optimizer: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    p = torch.tensor([-7.0, 2.0], dtype=torch.float64, requires_grad=True)
    W = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64, requires_grad=True)
    theirs = torch_optimizer(torch, optimizer, [p, W])
    for _ in range(50):
        theirs.zero_grad()
        (p[0] ** 2 / 20 + p[1] ** 2 + 0.15 * (W * W).sum()).backward()
        theirs.step()
    ours = train(optimizer, 50)
    np.testing.assert_allclose(ours["p"], p.detach().numpy(), rtol=1e-11)
    np.testing.assert_allclose(ours["W"], W.detach().numpy(), rtol=1e-11)


@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: type(o).__name__)
def test_first_two_steps_by_hand(optimizer: Any) -> None:
    """The formulas of the docstrings, written out for one number."""
    p, v, m, h = -7.0, 0.0, 0.0, 0.0
    lr = optimizer.lr
    for k in (1, 2):
        g = p / 10
        match optimizer:
            case optim.SGD():
                p = p - lr * g
            case optim.Momentum():
                v = 0.9 * v - lr * g
                p = p + v
            case optim.Nesterov():
                v = 0.9 * v - lr * g
                p = p + 0.9 * v - lr * g
            case optim.AdaGrad():
                h = h + g * g
                p = p - lr * g / (math.sqrt(h) + 1e-7)
            case optim.RMSProp():
                h = 0.99 * h + 0.01 * g * g
                p = p - lr * g / (math.sqrt(h) + 1e-7)
            case _:
                m = 0.9 * m + 0.1 * g
                v = 0.999 * v + 0.001 * g * g
                p = p - lr * (m / (1 - 0.9**k)) / (math.sqrt(v / (1 - 0.999**k)) + 1e-8)
    assert train(optimizer, 2)["p"][0] == pytest.approx(p, rel=1e-13)


@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: type(o).__name__)
def test_float32_follows_float64(optimizer: Any) -> None:
    """Adam's bias correction loses four digits in float32 if it is written as 1 - β^k."""
    single, double = train(optimizer, 30, "float32"), train(optimizer, 30)
    assert single["p"].dtype == np.float32
    np.testing.assert_allclose(single["p"], double["p"], rtol=2e-5, atol=2e-6)


def test_adam_without_memory_of_the_gradient() -> None:
    """β₁ = 0 has no logarithm; with β₂ = 0 too, Adam is the sign of the gradient."""
    assert train(optim.Adam(0.1, beta1=0.0, beta2=0.0), 1)["p"][0] == pytest.approx(-6.9)


def test_gradients_are_only_read() -> None:
    for optimizer in ALL:
        params = {"p": np.ones(2), "W": np.ones((2, 2))}
        grads = {k: np.full_like(v, 0.5) for k, v in params.items()}
        for g in grads.values():
            g.flags.writeable = False
        grads2 = optim.clip_by_global_norm(optim.add_weight_decay(grads, params, 0.1), 0.2)
        assert grads2 is not grads
        optim.update(optimizer, grads, optim.init(optimizer, params), params)
