"""Scores of a data set, against the formulas in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet.data import Scaling


def r2_of_constant_answers(t: np.ndarray, answers: Any, dtype: str, backend: Any = None) -> Any:
    """R² of a network whose outputs do not depend on x."""
    net = xpnet.mlp([1, t.shape[1]], loss="squared")
    model = xpnet.Model(net, backend=backend, dtype=dtype)
    zero = {"W1": np.zeros((1, t.shape[1])), "b1": np.asarray(answers, float)}
    model.params = model.feed.copies(zero)
    return model.evaluate(np.zeros((len(t), 1)), t)["r2"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_r2_of_targets_with_a_large_mean(dtype: str, offset: float, backend: Any) -> None:
    rng = np.random.default_rng(0)
    t = offset + rng.standard_normal((20_000, 2)) * [1.0, 3.0]
    t = t.astype(np.float32).astype(float)  # what the network sees, so that 0 is the answer
    mean = t.mean(axis=0).astype(dtype).astype(float)
    parts = ((t - mean) ** 2).sum(axis=0) / ((t - t.mean(axis=0)) ** 2).sum(axis=0)
    expected = 1 - parts.mean()
    got = r2_of_constant_answers(t, mean, dtype, backend)
    assert got == pytest.approx(expected, abs=1e-4 if dtype == "float32" else 1e-10)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e15])
def test_r2_has_no_units(size: float) -> None:
    t = np.random.default_rng(0).standard_normal((50, 2)) * size
    expected = 1 - ((t**2).sum(axis=0) / ((t - t.mean(axis=0)) ** 2).sum(axis=0)).mean()
    assert r2_of_constant_answers(t, [0.0, 0.0], "float32") == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", [0.1, 1e6, 1e17])
def test_r2_of_targets_that_do_not_vary(value: float) -> None:
    assert r2_of_constant_answers(np.full((300, 2), value), [0.0, 0.0], "float64") is None


def test_targets_too_large_for_the_dtype_are_named() -> None:
    trainer = xpnet.Trainer(xpnet.mlp([1, 1], loss="squared"), target_scaling=None)
    with pytest.raises(xpnet.errors.DataError, match=r"t: row 1: got .*1e\+60.* the targets"):
        trainer.fit(np.zeros((2, 1)), np.array([0.0, 1e60]))


def test_a_scaling_too_large_for_bytes_is_named() -> None:
    model = xpnet.Model(xpnet.mlp([2, 2]), scaling=Scaling(0.0, 1e45))
    with pytest.raises(xpnet.errors.DataError, match="its scaling is too large for float32"):
        model.predict(np.zeros((2, 2), np.uint8))


def test_hidden_layers_of_a_convolution_network(backend: Any) -> None:
    """What the activations give, images of channels, before they are flattened or dropped."""
    network = xpnet.cnn((2, 6, 5), [[3, 4], 5], [7], 3, batch_norm=True, dropout=0.5, seed=1)
    assert [node.name for node in network.hidden] == ["ReLU1", "ReLU2", "ReLU3", "ReLU4"]
    assert network.first_weights == "W1"
    model = xpnet.Model(network, backend=backend)
    x = np.random.default_rng(0).random((4, 2, 6, 5)).astype(np.float32)
    hidden = model.hidden(x)
    shapes = [(4, 3, 6, 5), (4, 4, 3, 2), (4, 5, 1, 1), (4, 7)]
    assert [y.shape for y in hidden.values()] == shapes
    values = {name: value.astype(np.float32) for name, value in network.values.items()}
    for name, y in hidden.items():
        expected = network.graph.forward({**values, "x": x}, name)[0]
        np.testing.assert_allclose(y, expected, atol=1e-5)


def test_a_channel_that_is_zero_everywhere_is_dead(backend: Any) -> None:
    network = xpnet.cnn((1, 4, 4), [4], [3], 2, seed=0)
    network.params["b1"][:] = [0.1, -1e3, 0.1, 0.1]
    network.params["W1"][2], network.params["b1"][2] = 0.0, 0.0
    network.params["b2"][1] = -1e4
    model = xpnet.Model(network, backend=backend)
    x = np.zeros((2500, 1, 4, 4), np.float32)
    x[2400, 0, 3, 3] = 1.0  # the third batch of three, and there one pixel
    network.params["W1"][3], network.params["b1"][3] = 0.0, 0.0
    network.params["W1"][3, 0, 1, 1] = 1.0
    model.params = model.feed.copies(network.params)
    dead = model.evaluation.dead(model.params, model.feed.samples(x))
    assert dead["ReLU1"].tolist() == [False, True, True, False]
    assert dead["ReLU2"][1]
    assert not dead["ReLU2"].all()


def test_a_network_without_hidden_layers_has_no_dead_units() -> None:
    model = xpnet.Model(xpnet.mlp([3, 2]))
    assert model.evaluation.dead(model.params, model.feed.samples(np.ones((4, 3)))) == {}
