"""What a gate learns beside its gradient: threaded through steps, kept, restored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import xpnet
from xpnet import layers, losses, optim
from xpnet.arrays.ops import Array, namespace
from xpnet.backend.interface import Backend
from xpnet.graph.gradcheck import check_gate
from xpnet.models import Model

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4)).astype(np.float32) + np.float32(3.0)
T = (X.sum(axis=1) > 12).astype(int)


@dataclass(frozen=True)
class Centred:
    """y = x - mean(x) of the batch in training, x - running elsewhere: half of batch normalisation.

    In training dx = dout - mean(dout), since each x is in the mean with the weight 1/N.
    """

    momentum: float = 0.1
    integers: ClassVar[tuple[int, ...]] = (2,)

    def forward(self, x: Array, running: Array, step: Array | None = None) -> tuple[Array, Any]:
        if step is None:
            return x - running, None
        mean = namespace(x).mean(x, axis=0)
        return x - mean, (mean, running)

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool]) -> tuple[Any, ...]:
        if cache is None:
            return dout, -namespace(dout).sum(dout, axis=0), None
        return dout - namespace(dout).mean(dout, axis=0), None, None

    def observed(self, cache: Any) -> tuple[Array, ...]:
        mean, running = cache
        return (running + self.momentum * (mean - running),)


def network() -> xpnet.Network:
    graph = xpnet.Graph()
    x, t, W, b, running = graph.inputs("x t W b running")
    step = graph.input("step", optional=True)
    y = graph.apply(layers.Affine(), graph.apply(Centred(), x, running, step), W, b)
    params = {"W": np.random.default_rng(1).standard_normal((4, 2)), "b": np.zeros(2)}
    loss = graph.apply(losses.SoftmaxWithLoss(), y, t)
    return xpnet.Network(
        graph, params, y, loss, outputs=2, input_shape=(4,), statistics={"running": np.zeros(4)}
    )


def by_hand(epochs: int, batch_size: int = 20, seed: int = 0) -> np.ndarray:
    from xpnet.data import batch_order

    running = np.zeros(4)
    for epoch in range(epochs):
        for part in batch_order(len(X), batch_size, seed, epoch):
            for rows in part:
                running += 0.1 * (X[rows].astype(np.float64).mean(axis=0) - running)
    return running


def fitted(backend: Backend | None = None, **options: Any) -> xpnet.Trainer:
    trainer = xpnet.Trainer(network(), optim.Adam(0.01), backend=backend, scaling=None)
    trainer.fit(X, T, batch_size=20, **options)
    return trainer


def test_the_gate_s_gradient() -> None:
    x, running = RNG.standard_normal((5, 3)), RNG.standard_normal(3)
    rows = check_gate(Centred(), x, running)
    rows += check_gate(Centred(), x, running, np.array([1], np.int32), wrt=[0])
    assert max(row.error for row in rows) < 1e-8


def test_steps_thread_statistics_through(backend: Backend) -> None:
    trainer = fitted(backend, epochs=3)
    running = trainer.model.to_host()["running"]
    np.testing.assert_allclose(running, by_hand(3), rtol=1e-5)
    assert set(trainer.state) & {"running.m", "running.v"} == set()  # no optimizer has a part in it
    params = trainer.model.to_host()
    scores = (X - running) @ params["W"] + params["b"]
    np.testing.assert_allclose(trainer.scores(X), scores, rtol=1e-4, atol=1e-5)


def test_files_and_checkpoints_keep_statistics(tmp_path: Path) -> None:
    whole = fitted(epochs=4)
    whole.save(tmp_path / "m.npz")
    loaded = Model.load(tmp_path / "m.npz", network=network())
    np.testing.assert_array_equal(loaded.scores(X), whole.scores(X))
    fitted(epochs=2, folder=tmp_path / "run")
    resumed = fitted(epochs=4, folder=tmp_path / "run", resume=True)
    for name, value in whole.model.to_host().items():
        np.testing.assert_array_equal(resumed.model.to_host()[name], value)


def test_early_stopping_restores_statistics() -> None:
    trainer = xpnet.Trainer(network(), optim.SGD(3.0), scaling=None)
    history = trainer.fit(
        X, T, epochs=30, batch_size=20, validation=(X, 1 - T), patience=2
    )  # the validation loss rises from the start
    assert history.best_epoch < len(history.epochs)
    running = trainer.model.to_host()["running"]
    np.testing.assert_allclose(running, by_hand(history.best_epoch), rtol=1e-5)


@pytest.mark.parametrize("name", ["W", "nowhere"])
def test_statistics_are_inputs_that_are_no_parameters(name: str) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match=f"statistics has '{name}'"):
        replace(network(), statistics={name: np.zeros(4)})
