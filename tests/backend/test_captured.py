"""The captured loop on PyTorch, whose graphs are simulated by a dispatch mode.

What a capture would record is written down, operation by operation, and not computed: results hold
NaN until they are replayed. So anything that would be frozen or left out on a GPU shows here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stacks import CASES, alone, step_of, together

torch: Any = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import xpnet  # noqa: E402
from xpnet import optim  # noqa: E402
from xpnet.arrays.dispatch import with_kernels  # noqa: E402
from xpnet.backend import captured, torch_ranks  # noqa: E402
from xpnet.backend import torch as backend_module  # noqa: E402
from xpnet.backend.captured import captured_loop  # noqa: E402
from xpnet.backend.loop import gathering, on_rows, plain_loop  # noqa: E402
from xpnet.errors import NotCapturedWarning  # noqa: E402


class Recorder(TorchDispatchMode):
    """Writes down what is asked of PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Callable[[], Any]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(function)
        if "_local_scalar_dense" in name or "nonzero" in name or "masked_select" in name:
            raise RuntimeError("operation not permitted when stream is capturing")
        if "lift_fresh" in name or ("_to_copy" in name and kwargs.get("device") is not None):
            raise RuntimeError("Cannot copy between CPU and CUDA tensors during graph capture")
        returned = [r.alias_info for r in function._schema.returns]
        if function._schema.is_mutable:
            self.nodes.append(lambda: function(*args, **kwargs))  # in place
            return kwargs.get("out", args[0]) if returned else None
        if any(info is not None for info in returned) or "detach" in name or "alias" in name:
            return function(*args, **kwargs)  # a view
        result = function(*args, **kwargs)
        results = tensors(result)
        for each in results:
            each.fill_(float("nan") if each.is_floating_point() else 0)

        def again() -> None:
            computed = function(*args, **kwargs)
            for each, value in zip(results, tensors(computed), strict=True):
                each.copy_(value)

        self.nodes.append(again)
        return result


def tensors(result: Any) -> list[Any]:
    """The results of an operation; some may be None, since nobody asked for them."""
    results = result if isinstance(result, list | tuple) else [result]
    return [each for each in results if each is not None]


class Graph:
    """As torch.cuda.CUDAGraph."""

    def __init__(self) -> None:
        self.recorder = Recorder()

    def pool(self) -> int:
        return 1

    def replay(self) -> None:
        for node in self.recorder.nodes:
            node()


@contextmanager
def recorded(
    graph: Graph, pool: Any = None, stream: Any = None, capture_error_mode: str = "global"
) -> Iterator[None]:
    with graph.recorder:
        yield


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`TorchGraphs`, with PyTorch's streams, events and graphs replaced."""
    waiting = SimpleNamespace(synchronize=lambda: None, record=lambda: None)

    @contextmanager
    def nothing(stream: Any) -> Iterator[None]:
        yield

    for name, value in {
        "Stream": lambda device: waiting,
        "Event": lambda: waiting,
        "CUDAGraph": Graph,
        "graph": recorded,
        "stream": nothing,
        "synchronize": lambda device: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return backend_module.TorchGraphs(torch.device("cpu"))


def take(array: Any, rows: Any) -> Any:
    return torch.index_select(array, 0, rows)


def train(
    loop: Any = None,
    optimizer: Any = None,
    clip_norm: float | None = None,
    l1: float | None = None,
    epochs: int = 2,
    **options: Any,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    data, _ = xpnet.datasets.load("digits")
    backend = xpnet.select("cpu", "torch")
    if loop is not None:
        kernels = backend.kernels
        vars(backend).update(
            loop=lambda step, prepare, agree=None: loop(
                torch.no_grad()(with_kernels(on_rows(step, gathering(take, prepare)), kernels))
            )
        )
    trainer = xpnet.Trainer(
        xpnet.mlp([64, 30, 10], **options),
        optimizer or optim.Adam(optim.cosine(0.02, 40)),
        backend=backend,
        scaling=data.scaling,
        clip_norm=clip_norm,
        l1=l1,
    )
    history = trainer.fit(data.x, data.t, epochs=epochs, batch_size=100)
    params = {name: backend.to_numpy(p) for name, p in trainer.params.items()}
    return np.array(history.losses), params


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("activation", ["sigmoid", "relu", "tanh", "leaky_relu"])
def test_replays_are_the_loop_to_the_bit(graphs: Any, activation: str, dropout: float) -> None:
    losses, params = train(
        lambda step: captured_loop(step, graphs, []), activation=activation, dropout=dropout
    )
    expected, expected_params = train(activation=activation, dropout=dropout)
    np.testing.assert_array_equal(losses, expected)
    for name, p in expected_params.items():
        np.testing.assert_array_equal(params[name], p)


SCHEDULES = [
    optim.constant(0.02, warmup=5), optim.step_decay(0.02, 9, warmup=3),
    optim.inverse_time(0.02, 0.1, warmup=3), optim.plateau(0.02, warmup=3),
    optim.exponential(0.02, 40, warmup=3), optim.cosine(0.02, 40, warmup=3),
]  # fmt: skip
RULES = [
    optim.SGD, optim.Momentum, optim.Nesterov, optim.AdaGrad, optim.RMSProp, optim.Adam, optim.AdamW
]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        *({"optimizer": rule(lr)} for rule in RULES for lr in (0.02, SCHEDULES[-1])),
        *({"optimizer": optim.Adam(lr)} for lr in SCHEDULES),
        *({"loss": loss} for loss in ("squared", "sigmoid", "hinge")),
        {"clip_norm": 0.5},
        {"clip_norm": 1e3},
        {"l1": 0.01},
        {"init": 0.01},
    ],
)
def test_every_rule_schedule_and_loss_can_be_captured(graphs: Any, options: dict[str, Any]) -> None:
    losses, _ = train(lambda step: captured_loop(step, graphs, []), **options)
    np.testing.assert_array_equal(losses, train(**options)[0])


@pytest.mark.parametrize("rule", [optim.SGD, optim.Momentum, optim.AdamW])
def test_a_plateau_lowers_the_rate_of_what_is_recorded(
    graphs: Any, rule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At this rate every epoch is a plateau; the graphs of the first epoch serve to the end."""
    made: list[Any] = []
    record = captured._record
    monkeypatch.setattr(captured, "_record", lambda *args: made.append(record(*args)) or made[-1])
    options: dict[str, Any] = {
        "epochs": 5, "optimizer": rule(optim.plateau(0.01, 0.1, 1, threshold=0.9))
    }  # fmt: skip
    losses, params = train(lambda step: captured_loop(step, graphs, []), **options)
    assert len(made) == 2  # of full batches and of the last one
    expected, expected_params = train(**options)
    np.testing.assert_array_equal(losses, expected)
    for name, p in expected_params.items():
        np.testing.assert_array_equal(params[name], p)
    unlowered = train(**options | {"optimizer": rule(0.01)})[0]
    far = np.abs(losses - unlowered) / unlowered > 1e-4
    assert not far[: 2 * 18].any()
    assert far[2 * 18 + 1 :].all()


@pytest.mark.parametrize(
    "options",
    [{"padding": 0, "stride": 2, "pool": 1}, {"batch_norm": True}, {"pool": 3, "dropout": 0.5}],
    ids=lambda options: next(iter(options)),
)
def test_convolution_networks_can_be_captured(graphs: Any, options: dict[str, Any]) -> None:
    """With PyTorch's own kernels; the running statistics too."""
    data, _ = xpnet.datasets.load("digits")
    results = []
    for recorded in (True, False):
        backend, fallbacks = xpnet.select("cpu", "torch"), []

        def loop(
            step: Any,
            prepare: Any,
            agree: Any = None,
            backend: Any = backend,
            said: Any = fallbacks,
        ) -> Any:
            work = with_kernels(on_rows(step, gathering(take, prepare)), backend.kernels)
            return captured_loop(torch.no_grad()(work), graphs, said)

        if recorded:
            vars(backend).update(loop=loop)
        network = xpnet.cnn((1, 8, 8), [[2, 3]], [5], **options)
        trainer = xpnet.Trainer(network, optim.Momentum(0.05), backend=backend)
        x, t = data.x.reshape(-1, 1, 8, 8)[:250], data.t[:250]
        found = trainer.fit(x, t, epochs=2, batch_size=100).losses
        assert fallbacks == []
        results.append({"losses": np.array(found), **trainer.params})
    assert results[0].keys() == results[1].keys()
    for name, expected in results[1].items():
        np.testing.assert_array_equal(results[0][name], expected, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_a_step_of_many_networks_can_be_captured(graphs: Any, name: str) -> None:
    stack, backend, fallbacks = CASES[name], xpnet.select("cpu", "torch"), []
    work = with_kernels(on_rows(step_of(stack), gathering(take, lambda x: x)), backend.kernels)
    captured = captured_loop(torch.no_grad()(work), graphs, fallbacks)
    params, losses = together(stack, backend, run=captured)
    assert fallbacks == []
    expected_params, expected = together(stack, backend)
    np.testing.assert_array_equal(losses, expected)
    for parameter, p in expected_params.items():
        np.testing.assert_array_equal(params[parameter], p)
    for k, (_, single) in enumerate(alone(stack)):
        np.testing.assert_allclose(losses[:, k], single, rtol=1e-10, atol=1e-12)


def test_a_sum_over_ranks_is_captured_with_its_step(
    graphs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks with the same rows: the sum doubles all, and the step halves it."""

    def allreduce(tensors: list[Any]) -> Any:
        tensors[0].mul_(2)
        return SimpleNamespace(wait=lambda: None)

    ranks: Any = SimpleNamespace(rank=0, size=2)
    results = []
    group = SimpleNamespace(allreduce=allreduce)
    monkeypatch.setattr(torch_ranks, "_nccl_group", lambda ranks: group)
    for recorded in (True, False):
        reduce = torch_ranks.nccl_sum(ranks, torch.device("cpu"))

        def step(params: Any, state: Any, x: Any, reduce: Any = reduce) -> Any:
            loss, mean = reduce([(x * params["W"]).sum(), x.mean(0)])
            return {"W": params["W"] - 0.1 * mean}, state, loss / 2

        work = with_kernels(on_rows(step, gathering(take, lambda x: x)), {})
        asked: list[int] = []

        def agree(number: int, asked: list[int] = asked) -> int:
            asked.append(number)
            return number

        run: Any = (
            captured_loop(work, graphs, [], agree)
            if recorded
            else plain_loop(work, torch.stack, agree)
        )
        params = {"W": torch.ones(3)}
        data = (torch.arange(24.0).reshape(8, 3) / 24,)
        losses: list[float] = []
        for _ in range(2):
            order = torch.arange(8).reshape(4, 2)
            for chunk in run(params, {}, data, order):
                params = chunk[0]
                losses += chunk[2].tolist()
        assert asked
        results.append((losses, params["W"].tolist()))
    assert results[0] == results[1]
    assert len(results[0][0]) == 8


def test_a_capture_that_fails_says_why_and_not_that_it_failed(graphs: Any) -> None:
    def step(params: Any, state: Any, x: Any) -> Any:
        return params, state, x.sum() * float(x.sum())

    fallbacks: list[str] = []
    run = captured_loop(on_rows(step, gathering(take, lambda x: x)), graphs, fallbacks)
    with pytest.warns(NotCapturedWarning, match="not permitted when stream is capturing"):
        chunks = list(run({}, {}, (torch.ones(6, 2),), torch.tensor([[0, 1], [2, 3]])))
    assert chunks[-1][2].tolist() == [16.0, 16.0]
    assert len(fallbacks) == 1
    assert "not permitted when stream is capturing" in fallbacks[0]


def test_what_is_recorded_is_not_computed() -> None:
    x = torch.ones(3)
    with Recorder() as recorder:
        y = 2 * x + 1
        x += 5
        z = y[1:]
    assert torch.isnan(y).all()
    assert torch.isnan(z).all()
    assert (x == 1).all()
    assert len(recorder.nodes) == 3
    for node in recorder.nodes:
        node()
    assert (z == 3).all()
    assert (x == 6).all()
    with pytest.raises(RuntimeError, match="capturing"), Recorder():
        float(x.sum())
