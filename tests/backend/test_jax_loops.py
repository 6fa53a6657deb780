"""On JAX, trainers of one form share a compiled loop."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import Trainer, mlp, optim
from xpnet.data import Scaling

pytest.importorskip("jax", reason="jax is not installed")

from xpnet.backend import jax as backend_module

X = np.random.default_rng(0).integers(0, 256, (60, 8), dtype=np.uint8)
T = np.random.default_rng(1).integers(0, 3, 60).astype(np.int32)
ORDER = np.arange(60).reshape(6, 10)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that JAX traces a step."""
    backend_module._compiled_loop.cache_clear()
    seen: list[int] = []
    update = optim.update

    def counted(*args: Any) -> Any:
        seen.append(1)
        return update(*args)

    monkeypatch.setattr(optim, "update", counted)
    return seen


def trainer(
    optimizer: Any = None, *, init: str = "he", dropout: float = 0.5, seed: int = 0, **options: Any
) -> Trainer:
    network = mlp([8, 5, 3], dropout=dropout, init=init, seed=seed)
    backend = xpnet.select("cpu", "jax")
    return Trainer(network, optimizer or optim.Adam(0.01), backend=backend, **options)


def chunk(one: Trainer) -> np.ndarray:
    asarray = one.backend.asarray
    losses = []
    for params, state, part in one.run(one.params, one.state, (asarray(X), asarray(T)), ORDER):
        one.params, one.state = params, state
        losses.append(one.backend.to_numpy(part))
    return np.concatenate(losses)


def test_a_second_trainer_does_not_compile_again(traces: list[int]) -> None:
    chunk(trainer())
    first = len(traces)
    chunk(trainer())
    assert len(traces) == first > 0


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"dropout": 0.25},
        {"optimizer": optim.Adam(0.02)},
        {"optimizer": optim.SGD(0.01)},
        {"weight_decay": 0.1},
        {"clip_norm": 1.0},
        {"scaling": Scaling(1.0, 0.5)},
        {"scaling": Scaling(np.arange(8.0), np.ones(8))},
        {"dtype": "float64"},
    ],
    ids=str,
)
def test_what_differs_has_a_loop_of_its_own(traces: list[int], other: dict[str, Any]) -> None:
    chunk(trainer())
    first = len(traces)
    chunk(trainer(**other))
    assert len(traces) > first


def test_trainers_in_turns_equal_trainers_alone(traces: list[int]) -> None:
    alone = [[chunk(each) for _ in range(3)] for each in (trainer(), trainer(classes="abc"))]
    one, two = trainer(), trainer(classes="abc")
    turns = [(chunk(one), chunk(two)) for _ in range(3)]
    np.testing.assert_array_equal(alone, np.swapaxes(np.array(turns), 0, 1))


def test_a_rule_that_may_change_is_compiled_anew(traces: list[int]) -> None:
    class Mine(optim.SGD):
        __dataclass_params__ = None

    chunk(trainer(Mine(0.01)))
    first = len(traces)
    chunk(trainer(Mine(0.01)))
    assert len(traces) > first


def test_few_loops_are_kept(traces: list[int]) -> None:
    for seed in range(backend_module.KEPT_LOOPS + 3):
        trainer(seed=seed)
    assert backend_module._compiled_loop.cache_info().currsize == backend_module.KEPT_LOOPS


def test_nothing_of_a_trainer_is_kept(traces: list[int]) -> None:
    one = trainer()
    chunk(one)
    kept = [weakref.ref(one.params["W1"]), weakref.ref(one.network.params["W1"])]
    del one
    gc.collect()
    assert [ref() for ref in kept] == [None, None]
