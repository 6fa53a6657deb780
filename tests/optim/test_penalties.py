"""Penalties on weights: by hand, by PyTorch's autograd, by finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.arrays.dispatch import with_kernels


def test_weight_decay_spares_biases() -> None:
    params = {"W": np.array([[2.0]]), "b": np.array([2.0])}
    grads = optim.add_weight_decay({"W": np.array([[1.0]]), "b": np.array([1.0])}, params, 0.1)
    assert grads == {"W": 1.2, "b": 1.0}


def test_l1_pulls_weights_to_0_and_spares_biases() -> None:
    params = {"W": np.array([[2.0, -0.5, 0.0]]), "b": np.array([2.0])}
    grads = {"W": np.array([[1.0, 1.0, 1.0]]), "b": np.array([1.0])}
    found = optim.add_l1(grads, params, 0.1)
    np.testing.assert_array_equal(found["W"], [[1.1, 0.9, 1.0]])
    assert found["b"] == 1.0
    each = {"W": np.array([[[2.0]], [[-3.0]]]), "b": np.ones((2, 1))}
    grads = {"W": np.ones((2, 1, 1)), "b": np.ones((2, 1))}
    found = optim.add_l1(grads, each, np.array([0.1, 0.5]), per_model=True)
    assert found["W"].ravel().tolist() == [1.1, 0.5]
    assert found["b"].ravel().tolist() == [1.0, 1.0]


def problem(backend: Any) -> tuple[xpnet.Network, Any, Any, dict[str, Any]]:
    rng = np.random.default_rng(0)
    net = xpnet.mlp([4, 6, 3], "tanh", init=0.5)
    x, t = rng.standard_normal((20, 4)), rng.integers(0, 3, 20)
    params = {name: np.asarray(p, np.float64) for name, p in net.values.items()}
    params["W1"][0, 0] = 0.0  # where |W| has no derivative, the term has none either
    return net, backend.asarray(x), backend.asarray(t.astype(np.int32)), params


def after_a_step(backend: Any, **penalties: float) -> dict[str, np.ndarray]:
    net, x, t, params = problem(backend)
    on_device = {name: backend.asarray(p.copy()) for name, p in params.items()}
    step = xpnet.trainer.step.make_step(net, optim.SGD(1.0), **penalties)
    state = optim.init(optim.SGD(1.0), on_device)
    moved, _, _ = with_kernels(step, backend.kernels)(on_device, state, x, t)
    return {name: params[name] - backend.to_numpy(moved[name]) for name in params}


def test_l1_in_a_step_is_the_gradient_of_pytorch(backend: Any) -> None:
    """Loss + λ₂ / 2 ΣW² + λ₁ Σ|W|, by autograd; a step of rate 1 moves by the gradient."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    _, x, t, params = problem(xpnet.select("cpu", dtype="float64"))
    p = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
    hidden = torch.tanh(torch.tensor(x) @ p["W1"] + p["b1"])
    scores = hidden @ p["W2"] + p["b2"]
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor(t, dtype=torch.long))
    for name in ("W1", "W2"):
        loss = loss + 0.05 * (p[name] ** 2).sum() + 0.3 * p[name].abs().sum()
    loss.backward()
    for name, g in after_a_step(backend, weight_decay=0.1, l1=0.3).items():
        np.testing.assert_allclose(g, p[name].grad.numpy(), atol=1e-12)


def test_l1_against_finite_differences() -> None:
    numpy = xpnet.select("cpu", dtype="float64")
    net, x, t, params = problem(numpy)

    def penalized(values: dict[str, np.ndarray]) -> float:
        loss, _ = net.graph.forward({**values, "x": x, "t": t}, net.loss)
        return float(loss) + 0.3 * sum(np.abs(values[name]).sum() for name in ("W1", "W2"))

    for name, g in after_a_step(numpy, l1=0.3).items():
        for index in np.ndindex(*g.shape):
            sides = []
            for h in (1e-5, -1e-5):
                moved = {**params, name: params[name].copy()}
                moved[name][index] += h
                sides.append(penalized(moved))
            assert g[index] == pytest.approx((sides[0] - sides[1]) / 2e-5, abs=1e-8)
