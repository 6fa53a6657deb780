"""Learning-rate schedules: by hand, under JAX, in pickles."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from xpnet import optim


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


@pytest.mark.parametrize("every", [41, 47, 55, 61, 82])
def test_steps_fall_at_the_same_step_under_jit(every: int) -> None:
    """XLA divides by multiplying with a rounded reciprocal: 41 / 41 can be less than 1."""
    jax = pytest.importorskip("jax", reason="jax is not installed")
    schedule: Any = optim.step_decay(1.0, every)
    k = np.arange(1000, dtype=np.float32)
    got = np.array(jax.jit(jax.vmap(schedule))(k))
    np.testing.assert_allclose(got, 0.1 ** (np.arange(1000) // every), rtol=1e-4)


@pytest.mark.parametrize(
    "make", [lambda: optim.step_decay(1, 5, 0.0), lambda: optim.exponential(1, 5, 0.0)]
)
def test_schedules_that_cannot_be(make: Any) -> None:
    with pytest.raises(ValueError, match="expected a finite number > 0 and <= 1"):
        make()


def test_a_schedule_reaches_the_rule() -> None:
    """lr 1, then 0.1: p = -1 (1 + 0.1 + 0.1) with a constant gradient of 1."""
    optimizer = optim.SGD(optim.step_decay(1.0, 1, 0.1))
    params, state = {"p": np.zeros(1)}, None
    state = optim.init(optimizer, params)
    for _ in range(3):
        params, state = optim.update(optimizer, {"p": np.ones(1)}, state, params)
    assert params["p"][0] == pytest.approx(-1.11)
    assert state["step"] == 3


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


def test_pickles_of_when_optim_was_one_module_load() -> None:
    pickled = (
        b"(ccopy_reg\n_reconstructor\np0\n(cxpnet.optim\nAdamW\np1\nc__builtin__\nobject\np2\n"
        b"Ntp3\nRp4\n(dp5\nVlr\np6\ng0\n(cxpnet.optim\n_Warm\np7\ng2\nNtp8\nRp9\n(dp10\n"
        b"Vschedule\np11\ng0\n(cxpnet.optim\n_Cosine\np12\ng2\nNtp13\nRp14\n(dp15\ng6\nF0.1\n"
        b"sVsteps\np16\nI100\nsVend\np17\nF0.0\nsbsg6\nF0.1\nsVwarmup\np18\nI5\nsbs"
        b"Vweight_decay\np19\nF0.01\nsVbeta1\np20\nF0.9\nsVbeta2\np21\nF0.999\nsVeps\np22\n"
        b"F1e-08\nsb."
    )
    assert pickle.loads(pickled) == optim.AdamW(optim.cosine(0.1, 100, warmup=5))
    for kind in (
        "Constant",
        "Cosine",
        "Exponential",
        "InverseTime",
        "Plateau",
        "StepDecay",
        "Warm",
    ):
        assert isinstance(getattr(optim, f"_{kind}"), type)
