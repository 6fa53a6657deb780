"""Optimizers against PyTorch's and hand calculation; schedules; decay; clipping."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.arrays.dispatch import with_kernels
from xpnet.errors import UsageError

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


def lr_at(schedule: Any, k: int) -> float:
    return float(schedule(np.asarray(k, np.float64))) if callable(schedule) else float(schedule)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (optim.constant(0.5), {0: 0.5, 99: 0.5}),
        (optim.constant(0.5, warmup=5), {0: 0.1, 3: 0.4, 4: 0.5, 50: 0.5}),
        (optim.step_decay(1.0, 10), {0: 1, 9: 1, 10: 0.1, 19: 0.1, 20: 0.01}),
        (optim.step_decay(1.0, 10, 0.5, warmup=4), {1: 0.5, 4: 1, 13: 1, 14: 0.5}),
        (optim.exponential(2.0, 100), {0: 2, 50: 0.2, 100: 0.02}),
        (optim.cosine(1.0, 100), {0: 1, 50: 0.5, 100: 0, 150: 0}),
        (optim.cosine(1.0, 100, end=0.1), {0: 1, 100: 0.1}),
        (optim.cosine(1.0, 90, warmup=10), {0: 0.1, 9: 1, 10: 1, 55: 0.5, 100: 0}),
        (optim.inverse_time(2.0, 0.01), {0: 2, 100: 1, 300: 0.5}),
        (optim.inverse_time(1.0, 1.0, warmup=4), {1: 0.5, 4: 1, 5: 0.5, 8: 0.2}),
        (optim.inverse_time(1.0, 0.0), {99: 1}),
        (optim.plateau(1.0), {0: 1, 99: 1}),
        (optim.plateau(1.0, warmup=4), {0: 0.25, 4: 1, 99: 1}),
    ],
)
def test_schedules(schedule: Any, expected: dict[int, float]) -> None:
    for k, lr in expected.items():
        assert lr_at(schedule, k) == pytest.approx(lr, abs=1e-12)


def test_inverse_time_is_that_of_a_lambda_in_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(theirs, lambda k: 1 / (1 + 0.07 * k))
    for k in range(50):
        expected = theirs.param_groups[0]["lr"]
        assert lr_at(optim.inverse_time(0.3, 0.07), k) == pytest.approx(expected, rel=1e-14)
        theirs.step()
        scheduler.step()


@pytest.mark.parametrize("seed", range(40))
def test_a_plateau_falls_where_that_of_pytorch_does(seed: int) -> None:
    """The same rates, epoch by epoch, over losses or scores that get better and worse."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(seed)
    patience, cooldown = int(rng.integers(1, 6)), int(rng.integers(0, 4))
    numbers = {
        "factor": rng.uniform(0.1, 0.9), "threshold": float(rng.choice([0.0, 1e-4, 0.1])),
        "min_lr": float(rng.choice([0.0, 0.01])),
    }  # fmt: skip
    loss = bool(seed % 2)
    values = np.round(np.exp(-0.02 * np.arange(120)) + rng.normal(0, 0.1, 120) ** 2, 2)
    values[rng.integers(0, 120, 5)] = np.nan
    rule = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        rule, mode="min" if loss else "max", patience=patience - 1, cooldown=cooldown, eps=0.0,
        **numbers,
    )  # fmt: skip
    watch: Any = optim.Watch.of(
        optim.plateau(0.1, patience=patience, cooldown=cooldown, warmup=7, **numbers)
    )
    level, falls = 1.0, 0
    for value in values.tolist():
        theirs.step(value)
        rule.step()
        if watch.falls(None if math.isnan(value) else -value if loss else value):
            level, falls = watch.lowered(level), falls + 1
        assert 0.1 * level == pytest.approx(rule.param_groups[0]["lr"], rel=1e-12)
    assert falls or seed


def test_a_plateau_by_hand() -> None:
    """Minus losses below 0 are merits too: PyTorch's share of a negative best points down."""
    watch: Any = optim.Watch.of(optim.plateau(1.0, 0.1, 2, 0.05, threshold=0.1, cooldown=1))
    merits = [1.0, 1.05, 1.09, 9.0, None, 5.0, 5.0, 5.0]
    assert [watch.falls(m) for m in merits] == [
        False,
        False,
        True,
        *[False] * 2,
        True,
        False,
        False,
    ]
    assert watch.lowered(1.0) == 0.1
    assert watch.lowered(0.1) == 0.05
    assert watch.lowered(0.01) == 0.01  # below min_lr since a grid gave a smaller rate
    below: Any = optim.Watch.of(optim.plateau(1.0, patience=1, threshold=0.1))
    assert [below.falls(m) for m in (-1.0, -0.95, -0.89, -1.2)] == [False, True, False, True]
    assert optim.Watch.of(optim.cosine(0.1, 5)) is None
    assert optim.Watch.of(0.1) is None
    assert optim.Watch.of(lambda k: 0.1) is None


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("kind", [optim.SGD, optim.Momentum, optim.Adam, optim.AdamW])
def test_the_level_of_a_plateau_multiplies_the_rate(kind: Any, warmup: int, backend: Any) -> None:
    """As rules of these rates would go on; the level stays in the state."""
    start, g = np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([[0.3, -0.1], [2.0, 0.7]])

    def train(rules: list[Any], levels: list[float]) -> np.ndarray:
        params = {"W": backend.asarray(start.copy())}
        state = optim.init(rules[0], params)
        for rule, level in zip(rules, levels, strict=True):
            if "level" in state:
                assert state["level"].dtype == params["W"].dtype
                state["level"] = backend.asarray(np.array(level))
            update = with_kernels(optim.update, backend.kernels)
            params, state = update(rule, {"W": backend.asarray(g)}, state, params)
        return backend.to_numpy(params["W"])

    levels = [1.0, 1.0, 0.5, 0.25, 0.25, 0.1]
    rule = kind(optim.plateau(0.1, warmup=warmup))
    rates = [0.1 * lv * min(1.0, (k + 1) / max(1, warmup)) for k, lv in enumerate(levels)]
    found = train([rule] * 6, levels)
    np.testing.assert_allclose(found, train([kind(r) for r in rates], levels), rtol=1e-12)


@pytest.mark.parametrize("every", [41, 47, 55, 61, 82])
def test_steps_fall_at_the_same_step_under_jit(every: int) -> None:
    """XLA divides by multiplying with a rounded reciprocal: 41 / 41 can be less than 1."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    schedule: Any = optim.step_decay(1.0, every)
    k = np.arange(1000, dtype=np.float32)
    got = np.array(jax.jit(jax.vmap(schedule))(k))
    np.testing.assert_allclose(got, 0.1 ** (np.arange(1000) // every), rtol=1e-4)


def test_adam_without_memory_of_the_gradient() -> None:
    """β₁ = 0 has no logarithm; with β₂ = 0 too, Adam is the sign of the gradient."""
    assert train(optim.Adam(0.1, beta1=0.0, beta2=0.0), 1)["p"][0] == pytest.approx(-6.9)


@pytest.mark.parametrize(
    "make", [lambda: optim.step_decay(1, 5, 0.0), lambda: optim.exponential(1, 5, 0.0)]
)
def test_schedules_that_cannot_be(make: Any) -> None:
    with pytest.raises(ValueError, match="expected a finite number > 0 and <= 1"):
        make()


def test_gradients_are_only_read() -> None:
    for optimizer in ALL:
        params = {"p": np.ones(2), "W": np.ones((2, 2))}
        grads = {k: np.full_like(v, 0.5) for k, v in params.items()}
        for g in grads.values():
            g.flags.writeable = False
        grads2 = optim.clip_by_global_norm(optim.add_weight_decay(grads, params, 0.1), 0.2)
        assert grads2 is not grads
        optim.update(optimizer, grads, optim.init(optimizer, params), params)


def test_a_schedule_reaches_the_rule() -> None:
    """lr 1, then 0.1: p = -1 (1 + 0.1 + 0.1) with a constant gradient of 1."""
    optimizer = optim.SGD(optim.step_decay(1.0, 1, 0.1))
    params, state = {"p": np.zeros(1)}, None
    state = optim.init(optimizer, params)
    for _ in range(3):
        params, state = optim.update(optimizer, {"p": np.ones(1)}, state, params)
    assert params["p"][0] == pytest.approx(-1.11)
    assert state["step"] == 3


def test_clipping_by_global_norm() -> None:
    grads = {"W": np.array([[3.0]]), "b": np.array([4.0])}
    clipped = optim.clip_by_global_norm({k: v.copy() for k, v in grads.items()}, 1.0)
    assert clipped["W"][0, 0] == pytest.approx(0.6)
    assert clipped["b"][0] == pytest.approx(0.8)
    kept = optim.clip_by_global_norm({k: v.copy() for k, v in grads.items()}, 10.0)
    assert kept == grads


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e19, 1e20, 1e36])
def test_clipping_neither_overflows_nor_underflows(size: float, backend: Any) -> None:
    """Against the same in float64."""
    rng = np.random.default_rng(0)
    grads = {"W": rng.standard_normal((30, 40)) * size, "b": rng.standard_normal(40) * size}
    norm = math.sqrt(sum(float((g**2).sum()) for g in grads.values()))
    for max_norm in (1e-2 * norm, 0.5 * norm, 2.0 * norm, max(1e-3, 1e-30 * norm)):
        given = {n: backend.asarray(g.astype(np.float32)) for n, g in grads.items()}
        clip = backend.compile(lambda given, most=max_norm: optim.clip_by_global_norm(given, most))
        for name, got in clip(given).items():
            expected = grads[name] * min(1.0, max_norm / norm)
            got = backend.to_numpy(got)
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-38)


def test_clipping_leaves_what_is_small_as_it_is_and_hides_no_infinity() -> None:
    g = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    for kernels in ({}, xpnet.select("cpu").kernels):
        clip = with_kernels(optim.clip_by_global_norm, kernels)
        np.testing.assert_array_equal(clip({"W": g}, 1e3)["W"], g)
        for bad in (np.inf, np.nan):
            with np.errstate(invalid="ignore"):
                assert np.isnan(clip({"W": np.where(g > 1, np.float32(bad), g)}, 1.0)["W"]).any()


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


def test_weight_decay_spares_biases() -> None:
    params = {"W": np.array([[2.0]]), "b": np.array([2.0])}
    grads = optim.add_weight_decay({"W": np.array([[1.0]]), "b": np.array([1.0])}, params, 0.1)
    assert grads == {"W": 1.2, "b": 1.0}


@pytest.mark.parametrize("kind", [optim.SGD, optim.Momentum, optim.Adam, optim.AdamW])
def test_rate_in_the_state_replaces_the_rules(kind: Any, backend: Any) -> None:
    """Two steps at two rates equal two rules of those rates; the compiled step stays the same."""
    start, g = np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([[0.3, -0.1], [2.0, 0.7]])

    def two_steps(rules: list[Any], rates: list[float | None]) -> np.ndarray:
        params = {"W": backend.asarray(start.copy())}
        state = optim.init(rules[0], params)
        for rule, rate in zip(rules, rates, strict=True):
            if rate is not None:
                state["lr"] = backend.asarray(np.array(rate))
            params, state = optim.update(rule, {"W": backend.asarray(g)}, state, params)
        return backend.to_numpy(params["W"])

    found = two_steps([kind(0.7), kind(0.7)], [0.1, 0.02])
    np.testing.assert_allclose(found, two_steps([kind(0.1), kind(0.02)], [None, None]), rtol=1e-12)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize(
    "make",
    [
        lambda w: optim.constant(0.1, warmup=w),
        lambda w: optim.step_decay(0.1, 5, warmup=w),
        lambda w: optim.exponential(0.1, 50, warmup=w),
        lambda w: optim.cosine(0.1, 50, warmup=w),
        lambda w: optim.inverse_time(0.1, 0.5, warmup=w),
        lambda w: optim.plateau(0.1, 0.3, 4, 0.01, threshold=0.0, cooldown=1, warmup=w),
    ],
)
def test_schedules_with_the_same_numbers_are_equal_and_pickles_keep_them(
    make: Any, warmup: int
) -> None:
    schedule = make(warmup)
    assert schedule == make(warmup) == pickle.loads(pickle.dumps(schedule))
    assert schedule != make(warmup + 1)


def test_arguments_in_another_order_are_named() -> None:
    params = {"W": np.ones(2)}
    state = optim.init(optim.Adam(), params)
    with pytest.raises(UsageError, match=r"expected update\(optimizer, grads, state, params\)"):
        optim.update(optim.Adam(), params, {"W": np.ones(2)}, state)
