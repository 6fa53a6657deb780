"""Several ranks on GPUs: their sums by NCCL, in captured graphs and outside.

The ranks are threads that take turns on the simulator, whose NCCL refuses a sum in which they
differ. `test_simulator` runs what is marked gpu.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import usable_cupy
from on_cuda import uncaptured
from ranks import on_ranks

import xpnet
from xpnet import optim
from xpnet.backend import captured
from xpnet.errors import NotCapturedWarning
from xpnet.parallel import Group

pytestmark = pytest.mark.gpu


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    cupy = usable_cupy()
    if not hasattr(cupy, "simulator"):
        pytest.skip("ranks that are threads need the simulator of CuPy")
    from xpnet.backend.cuda import nccl

    cupy.simulator.reset()
    monkeypatch.setattr(cupy.simulator, "turn", threading.Lock())
    yield cupy.simulator
    nccl._connected.cache_clear()


def each(simulator: Any, size: int, work: Callable[[Group], Any]) -> list[Any]:
    return on_ranks(size, work, simulator.turn)


def train(group: Group, change: Callable[[Any], Any] = lambda backend: backend, **options: Any):
    """Train on digits: nine full batches and a smaller one, for three epochs."""
    data, _ = xpnet.datasets.load("digits")
    backend = change(xpnet.select("cuda", dtype="float64"))
    network = xpnet.mlp([64, 20, 10], dropout=0.3, batch_norm=True)
    trainer = xpnet.Trainer(
        network, optim.Adam(0.01), backend=backend, dtype="float64", clip_norm=1.0, group=group,
        scaling=data.scaling, **options,
    )  # fmt: skip
    history = trainer.fit(data.x[:437], data.t[:437], epochs=3, batch_size=47, verbose=False)
    params = {name: backend.to_numpy(p) for name, p in trainer.params.items()}
    return np.array(history.losses), params, list(backend.fallbacks)


def check_equal(found: list[Any], expected: Any) -> None:
    for losses, params, _ in found:
        np.testing.assert_array_equal(losses, found[0][0])
        np.testing.assert_allclose(losses, expected[0], rtol=1e-12)
        for name, p in params.items():
            np.testing.assert_array_equal(p, found[0][1][name])
            np.testing.assert_allclose(p, expected[1][name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3])
def test_several_gpus_train_as_one(simulator: Any, size: int) -> None:
    (expected,) = each(simulator, 1, train)
    assert not simulator.nccl_calls
    found = each(simulator, size, train)
    check_equal(found, expected)
    calls = simulator.nccl_calls
    assert all(calls[rank] == calls[0] for rank in range(size))
    assert {how for how, *_ in calls[0]} == {"queued", "captured"}
    assert all(fallbacks == expected[2] for *_, fallbacks in found)


def test_without_capture_the_ranks_sum_as_often(simulator: Any) -> None:
    (expected,) = each(simulator, 1, train)
    check_equal(each(simulator, 2, lambda group: train(group, uncaptured)), expected)
    assert simulator.nccl_calls[0] == simulator.nccl_calls[1]
    assert {how for how, *_ in simulator.nccl_calls[0]} == {"queued"}


def test_ranks_whose_clocks_differ_queue_the_same(
    simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step seems to take 1 ms on rank 0, and 40 ms on rank 1: there are 2 to a graph."""
    now = threading.local()

    def clock() -> float:
        took = 0.04 if threading.current_thread().name == "rank 1" else 0.001
        now.seconds = getattr(now, "seconds", 0.0) + took
        return now.seconds

    lengths: list[list[int]] = [[], []]
    record = captured._record

    def recorded(*arguments: Any) -> Any:
        made = record(*arguments)
        lengths[threading.current_thread().name == "rank 1"].append(made.length)
        return made

    def work(group: Group) -> Any:
        threading.current_thread().name = f"rank {group.rank}"
        return train(group)

    (expected,) = each(simulator, 1, train)
    monkeypatch.setattr(captured, "_record", recorded)
    monkeypatch.setattr(captured, "time", SimpleNamespace(perf_counter=clock))
    check_equal(each(simulator, 2, work), expected)
    assert simulator.nccl_calls[0] == simulator.nccl_calls[1]
    assert lengths == [[2, 1], [2, 1]]  # of full batches, and of the last one


def test_ranks_record_together(simulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 finds its data at a new address in every epoch; rank 0 never does."""
    from xpnet.backend.cuda.graphs import CupyGraphs

    place, asked = CupyGraphs.place, itertools.count()
    made: list[str] = []
    record = captured._record

    def placed(graphs: Any, array: Any) -> Any:
        moves = threading.current_thread().name == "rank 1"
        return (place(graphs, array), next(asked) if moves else 0)

    def work(group: Group) -> Any:
        threading.current_thread().name = f"rank {group.rank}"
        return train(group)

    def recorded(*arguments: Any) -> Any:
        made.append(threading.current_thread().name)
        return record(*arguments)

    (expected,) = each(simulator, 1, train)
    monkeypatch.setattr(CupyGraphs, "place", placed)
    monkeypatch.setattr(captured, "_record", recorded)
    check_equal(each(simulator, 2, work), expected)
    assert simulator.nccl_calls[0] == simulator.nccl_calls[1]
    assert made.count("rank 0") == made.count("rank 1") == 6  # two sizes in each of three epochs


@pytest.mark.parametrize("which", ["one", "all"])
def test_if_one_rank_cannot_capture_none_does(
    simulator: Any, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    from xpnet.backend.cuda.graphs import CupyGraphs

    capture = CupyGraphs.capture

    def refused(graphs: Any, work: Any) -> Any:
        if threading.current_thread().name == "rank 1":
            raise RuntimeError("not on this machine")
        return capture(graphs, work)

    def work(group: Group) -> Any:
        threading.current_thread().name = f"rank {group.rank}"
        return train(group)

    (expected,) = each(simulator, 1, train)
    if which == "one":
        monkeypatch.setattr(CupyGraphs, "capture", refused)
        reasons = ["another rank cannot", "not on this machine"]
    else:
        monkeypatch.setattr(simulator, "nccl_fails", "capture")
        reasons = ["NCCL_ERROR_UNHANDLED_CUDA_ERROR"] * 2
    with pytest.warns(NotCapturedWarning):
        found = each(simulator, 2, work)
    check_equal(found, expected)
    queued = [[call for call in calls if call[0] == "queued"] for calls in each_call(simulator)]
    assert queued[0] == queued[1]
    for (*_, fallbacks), reason in zip(found, reasons, strict=True):
        assert len(fallbacks) == 2  # one for each size of batch
        assert all(reason in line for line in fallbacks)


def each_call(simulator: Any) -> list[list[Any]]:
    return [simulator.nccl_calls[rank] for rank in sorted(simulator.nccl_calls)]


def test_loops_of_one_training_share_their_memory(simulator: Any) -> None:
    backend = xpnet.select("cuda")

    def least(number: int) -> int:
        return number

    first, second = (backend.loop(lambda *a: a, lambda x: x, least) for _ in range(2))
    assert len(backend._graphs) == 1  # type: ignore[attr-defined]
    del first, second
    gc.collect()
    assert len(backend._graphs) == 0  # type: ignore[attr-defined]


# -- Sums ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_of_all_shapes_are_packed_and_only_read(simulator: Any, dtype: str) -> None:
    shapes = [(), (3,), (2, 3), (0, 4), (700, 3), *[(k % 5,) for k in range(130)]]
    values = [
        np.random.default_rng(k).integers(-99, 99, shape).astype(dtype)
        for k, shape in enumerate(shapes)
    ]

    def work(group: Group) -> None:
        backend = xpnet.select("cuda")
        given = [backend.asarray(value * (group.rank + 1)) for value in values]
        given[2] = backend.asarray(np.ascontiguousarray(values[2].T * (group.rank + 1))).T
        found = backend.reducer(group)(given)
        for rank_0, mine, array in zip(values, given, found, strict=True):
            assert array.dtype == dtype
            np.testing.assert_array_equal(backend.to_numpy(array), 3 * rank_0)
            np.testing.assert_array_equal(backend.to_numpy(mine), (group.rank + 1) * rank_0)

    each(simulator, 2, work)
    assert simulator.nccl_calls[0] == [
        ("queued", 1, "float32"), ("queued", sum(v.size for v in values), dtype)
    ]  # fmt: skip


def reducer(group: Group) -> str:
    """Return the words of the error."""
    with pytest.raises(Exception, match="NCCL") as raised:
        xpnet.select("cuda").reducer(group)
    assert "\n" not in str(raised.value)
    return f"{type(raised.value).__name__}: {raised.value}"


def test_what_is_missing_is_said_by_all_ranks(
    simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xpnet.backend.cuda import nccl

    def missing() -> Any:
        if threading.current_thread().name == "rank 1":
            monkeypatch.setattr(importlib.import_module("cupy.cuda.nccl"), "available", False)
        return library()

    def work(group: Group) -> str:
        threading.current_thread().name = f"rank {group.rank}"
        return reducer(group)

    library = nccl.library
    monkeypatch.setattr(nccl, "library", missing)
    first, second = each(simulator, 2, work)
    words = "and CuPy finds no libnccl.so.2: pip install nvidia-nccl-cu13"
    assert second.endswith(words)
    assert second.startswith("DeviceError")
    assert first.endswith(words)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("init", "NCCL cannot connect rank 1 of 2 on cuda:0: NCCL_ERROR_INVALID_USAGE"),
        ("sum", "NCCL cannot sum on cuda:0: NCCL_ERROR_UNHANDLED_CUDA_ERROR"),
    ],
)
def test_what_nccl_refuses_is_one_line(
    simulator: Any, monkeypatch: pytest.MonkeyPatch, stage: str, words: str
) -> None:
    monkeypatch.setattr(simulator, "nccl_fails", stage)
    found = each(simulator, 2, reducer)
    assert found[1].startswith(f"DeviceError: {words}")
    assert all(line.startswith("DeviceError: NCCL cannot") for line in found)


def test_the_communicator_is_one_for_the_process_and_stays(simulator: Any) -> None:
    """The simulator's refuses to be destroyed or aborted, since a real one might wait for ever."""

    def work(group: Group) -> int:
        backend = xpnet.select("cuda")
        one, other = backend.reducer(group), backend.reducer(group)
        return one._communicator is other._communicator  # type: ignore[attr-defined]

    assert each(simulator, 2, work) == [True, True]
