"""Rates that fall on a plateau, against PyTorch's and by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from xpnet import optim
from xpnet.arrays.dispatch import with_kernels


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
