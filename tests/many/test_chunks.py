"""How many models train together: the rule's limits, and its sizes against a step's arrays."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet.many.chunks import MIB, bytes_per_model, even_chunks, models_at_once


@pytest.mark.parametrize(
    ("sizes", "batch", "expected"),
    [([20, 32, 2], 32, 648), ([64, 100, 10], 100, 64), ([784, 50, 10], 100, 23),
     ([784, 1024, 10], 256, 1)],
)  # fmt: skip
def test_small_networks_go_together_and_large_ones_one_by_one(
    sizes: list[int], batch: int, expected: int
) -> None:
    backend = xpnet.select("cpu", "numpy")
    assert models_at_once(xpnet.mlp(sizes), batch, 0, "float32", backend) == expected


def test_more_bytes_per_model_mean_fewer_models() -> None:
    network, backend = xpnet.mlp([784, 50, 10]), xpnet.select("cpu", "numpy")
    plain = models_at_once(network, 100, 0, "float32", backend)
    assert models_at_once(network, 100, 2, "float32", backend) < plain
    assert models_at_once(network, 100, 0, "float64", backend) < plain
    double = bytes_per_model(network, 100, 0, "float64")
    assert double == 2 * bytes_per_model(network, 100, 0, "float32")


def test_a_network_that_no_stack_can_hold_trains_alone() -> None:
    network = replace(xpnet.mlp([4, 3, 2]), statistics={"t": np.zeros(1)})
    assert models_at_once(network, 10, 0, "float32", xpnet.select("cpu", "numpy")) == 1


def test_a_gpu_takes_as_many_as_its_memory_has_room_for() -> None:
    gpu: Any = SimpleNamespace(library="cupy", device="cuda:0", memory=64 * MIB)
    network = xpnet.mlp([20, 32, 2])
    at_once = models_at_once(network, 32, 0, "float32", gpu)
    assert at_once * bytes_per_model(network, 32, 0, "float32") <= 8 * MIB
    assert at_once > 300
    gpu.memory = 0  # unknown
    assert models_at_once(network, 32, 0, "float32", gpu) > at_once


@pytest.mark.parametrize(("models", "most"), [(1, 1), (7, 3), (9, 3), (10, 100), (24, 23)])
def test_even_chunks_cover_all_models(models: int, most: int) -> None:
    chunks = even_chunks(models, most)
    assert sum(chunks) == models
    assert max(chunks) <= most
    assert max(chunks) - min(chunks) <= 1
    assert len(chunks) == -(-models // most)


def test_no_models_make_no_chunks() -> None:
    assert even_chunks(0, 5) == []
