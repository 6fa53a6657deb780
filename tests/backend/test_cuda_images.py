"""Convolution networks on CuPy: kernels in pieces, whole trainings, and what a graph contains.

As `test_cuda`, whose table has the kernels themselves, on a GPU or on the simulator of one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import usable_cupy
from on_cuda import CONVOLUTIONS, rows_of, uncaptured

import xpnet
from benchmarks.gpu_probe import VERBOSE, nodes_by_type
from xpnet import layers, losses, optim
from xpnet.arrays.convolution import convolve, convolve_backward_input, convolve_backward_weights
from xpnet.arrays.dispatch import with_kernels
from xpnet.backend import Backend
from xpnet.models.cnn import PRESETS

pytestmark = pytest.mark.gpu

RNG = np.random.default_rng(0)


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


@pytest.fixture(scope="module")
def cupy() -> Any:
    return usable_cupy()


@pytest.fixture
def cuda(cupy: Any) -> Backend:
    return xpnet.select("cuda")


# -- Pieces of a batch -----------------------------------------------------------------


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_columns_that_do_not_fit_at_once(
    cuda: Backend, monkeypatch: pytest.MonkeyPatch, case: Any
) -> None:
    """Sample by sample, all samples in one sum, or groups of them: the results are the same."""
    from xpnet.backend.cuda import convolution

    shape, W_shape, *settings = case
    x, W = normal(6, *shape[1:], dtype="float64"), normal(*W_shape, dtype="float64")
    dout = normal(*convolve(x, W, None, *settings).shape, dtype="float64")
    calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (convolve, (x, W, None)),
        (convolve_backward_input, (dout, W, shape[2:])),
        (convolve_backward_weights, (x, dout, W_shape[2:])),
    ]
    depth = int(np.prod(W_shape[1:]))
    one = depth * dout[0, 0].size * 8  # bytes of a sample's columns
    monkeypatch.setattr("xpnet.backend.cuda.direct.MOST_FILTERS", 0)
    for most, tiles in ((one, 528), (4 * one, 528), (1 << 30, 1), (1 << 30, 2), (5 * one, 3)):
        monkeypatch.setattr(convolution, "MOST_BYTES", most)
        monkeypatch.setattr(convolution, "MOST_TILES", tiles)
        convolution.together.cache_clear()
        for function, arguments in calls:
            moved = [cuda.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
            found = with_kernels(function, cuda.kernels)(*moved, *settings)
            expected = function(*arguments, *settings)
            np.testing.assert_allclose(cuda.to_numpy(found), expected, rtol=1e-12, atol=1e-12)
    convolution.together.cache_clear()


@pytest.mark.parametrize("least", [1, 10**9], ids=["two pixels", "one pixel"])
@pytest.mark.parametrize("kilobytes", [1, 40])
@pytest.mark.parametrize(
    ("filters", "padding", "stride"), [(16, 1, 1), (17, 4, 1), (5, 0, 1), (3, 2, 2)]
)
def test_few_filters_need_no_columns(
    cuda: Backend, cupy: Any, monkeypatch: pytest.MonkeyPatch, least: int, kilobytes: int,
    filters: int, padding: int, stride: int,
) -> None:  # fmt: skip
    """All weights at once, or channel by channel; padding that is larger than the filter, too."""
    from xpnet.backend.cuda import direct

    monkeypatch.setattr(direct, "LEAST_BLOCKS", least)
    monkeypatch.setattr(direct, "SHARED_BYTES", kilobytes << 10)
    x, W = normal(3, 4, 9, 7, dtype="float64"), normal(filters, 4, 3, 2, dtype="float64")
    b = normal(filters, dtype="float64")
    settings = (stride, stride), (padding, padding), (1, 2)
    y = convolve(x, W, b, *settings)
    dout = normal(*y.shape, dtype="float64")
    device = [cuda.asarray(a) for a in (x, W, b, dout)]
    monkeypatch.setattr("xpnet.backend.cuda.convolution.Convolutions._columns_of", None)
    found = with_kernels(convolve, cuda.kernels)(*device[:3], *settings)
    np.testing.assert_allclose(cuda.to_numpy(found), y, rtol=1e-12, atol=1e-12)
    dx = convolve_backward_input(dout, W, x.shape[2:], *settings)
    found = with_kernels(convolve_backward_input, cuda.kernels)(
        device[3], device[1], x.shape[2:], *settings
    )
    np.testing.assert_allclose(cuda.to_numpy(found), dx, rtol=1e-12, atol=1e-12)
    dW = convolve_backward_weights(x, dout, W.shape[2:], *settings)
    for warps in (1, 5, 4000):  # all samples in one sum, groups of them, each by itself
        monkeypatch.setattr(direct, "WARPS", warps)
        found = with_kernels(convolve_backward_weights, cuda.kernels)(
            device[0], device[3], W.shape[2:], *settings
        )
        np.testing.assert_allclose(cuda.to_numpy(found), dW, rtol=1e-12, atol=1e-12)


def test_large_images_take_no_more_columns_than_the_limit(
    cuda: Backend, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xpnet.backend.cuda import convolution

    made: list[int] = []
    columns_of = convolution.Convolutions._columns_of

    def noted(*args: Any) -> Any:
        columns = columns_of(*args)
        made.append(columns.nbytes)
        return columns

    monkeypatch.setattr(convolution.Convolutions, "_columns_of", noted)
    monkeypatch.setattr("xpnet.backend.cuda.direct.MOST_FILTERS", 0)
    monkeypatch.setattr(convolution, "MOST_BYTES", 100_000)
    x, W = cuda.asarray(normal(10, 3, 20, 20)), cuda.asarray(normal(2, 3, 3, 3))
    with_kernels(convolve, cuda.kernels)(x, W, None, (1, 1), (1, 1), (1, 1))
    assert made == [2 * 27 * 400 * 4] * 5  # two samples each
    with_kernels(convolve, cuda.kernels)(x, W, None, (1, 1), (9, 9), (1, 1))
    assert made[5:] == [27 * 36 * 36 * 4] * 10  # one at least


def test_how_many_samples_a_gradient_sums_over(cuda: Backend) -> None:
    from xpnet.backend.cuda.convolution import together

    assert together(100, 30, 25) == 1  # a product for each sample
    assert together(100, 64, 576) == 2  # 50 of 9 tiles
    assert together(100, 512, 4608) == 100  # one product has tiles enough
    assert together(97, 64, 576) == 97  # a prime number
    assert together(1, 8, 8) == 1


def test_what_no_kernel_computes_runs_as_it_is(cuda: Backend) -> None:
    """An empty batch, and dtypes that differ."""
    x, W = normal(0, 2, 5, 5), normal(3, 2, 3, 3)
    kernels = cuda.kernels
    y = with_kernels(convolve, kernels)(
        cuda.asarray(x), cuda.asarray(W), None, (1, 1), (0, 0), (1, 1)
    )
    assert y.shape == (0, 3, 3, 3)


# -- Trainings -------------------------------------------------------------------------


def of_layers(*gates: Any, channels: int = 2) -> xpnet.Network:
    """A convolution, these gates, and an affine layer, of images (2, 8, 8)."""
    graph = xpnet.Graph()
    x, t, W, b, V, c = graph.inputs("x t W b V c")
    y = graph.apply(layers.Convolution(padding=1), x, W, b)
    for gate in gates:
        y = graph.apply(gate, y)
    rng = np.random.default_rng(1)
    params = {"W": 0.3 * rng.standard_normal((channels, 2, 3, 3)), "b": np.ones(channels)}
    images = {**params, "x": np.ones((1, 2, 8, 8))}
    features = graph.forward(images, y)[0][0].size
    params |= {"V": 0.1 * rng.standard_normal((features, 5)), "c": np.zeros(5)}
    y = graph.apply(layers.Affine(), y, V, c)
    loss = graph.apply(losses.SoftmaxWithLoss(), y, t)
    return xpnet.Network(graph, params, scores=y, loss=loss, outputs=5)


small = partial(xpnet.cnn, (2, 8, 8), outputs=5)
NETWORKS: dict[str, Callable[[], xpnet.Network]] = {
    "simple": lambda: small([4], [10], kernel=5, padding=0),
    "deep": lambda: small([[3, 3], [4, 4]], [6], padding=[[1, 1], [1, 2]], dropout=0.5),
    "normalized": lambda: small([[3, 4]], [6], batch_norm=True),
    "strided": lambda: small([3, 4], stride=2, pool=1, activation="tanh", global_pool=True),
    "features": lambda: xpnet.mlp([128, 10, 5], batch_norm=True),
    "average": lambda: of_layers(layers.AveragePool(3, 2, 1), layers.Sigmoid()),
    "overlapping": lambda: of_layers(layers.MaxPool(3, 2, 1), layers.ReLU()),
    "wide filters": lambda: small([4], [6], kernel=(7, 1), padding=(3, 0)),
}


def train(backend: Backend, network: xpnet.Network, dtype: Any = "float32", **options: Any) -> Any:
    """Two epochs of two full batches and a smaller one."""
    rng = np.random.default_rng(2)
    shape = (128,) if network.builder == "mlp" else (2, 8, 8)
    x, t = rng.standard_normal((50, *shape)), rng.integers(0, 5, 50)
    options.setdefault("optimizer", optim.Momentum(0.05))
    trainer = xpnet.Trainer(network, backend=backend, dtype=dtype, **options)
    found = trainer.fit(x, t, epochs=2, batch_size=20).losses
    return SimpleNamespace(
        losses=np.array(found),
        params={name: backend.to_numpy(p) for name, p in trainer.params.items()},
    )


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "float64") for name in NETWORKS), ("deep", "float32"), ("normalized", "float32")],
)
def test_a_captured_training_is_that_of_numpy(cuda: Backend, name: str, dtype: str) -> None:
    """No warning: they are errors here."""
    on_the_gpu = train(cuda, NETWORKS[name](), dtype)
    on_the_cpu = train(xpnet.select("cpu"), NETWORKS[name](), dtype)
    assert cuda.fallbacks == []
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    np.testing.assert_allclose(on_the_gpu.losses, on_the_cpu.losses, rtol=tolerance)
    assert set(on_the_gpu.params) == set(on_the_cpu.params)  # the statistics too
    for key, expected in on_the_cpu.params.items():
        assert on_the_gpu.params[key].dtype == dtype
        np.testing.assert_allclose(
            on_the_gpu.params[key], expected, rtol=tolerance, atol=tolerance, err_msg=key
        )


@pytest.mark.parametrize("name", ["deep", "normalized"])
def test_a_replayed_graph_computes_what_the_loop_does(cuda: Backend, name: str) -> None:
    """To the bit, the running statistics too."""
    replayed, looped = (train(each, NETWORKS[name]()) for each in (cuda, uncaptured(cuda)))
    np.testing.assert_array_equal(replayed.losses, looped.losses)
    for key, expected in looped.params.items():
        np.testing.assert_array_equal(replayed.params[key], expected, err_msg=key)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("tf32", 2e-3), ("bfloat16", 5e-2), ("float16", 2e-3)]
)
def test_lower_precisions(cupy: Any, precision: str, tolerance: float) -> None:
    """Products of columns are as any others: rounded, and captured."""
    backend = xpnet.select("cuda", precision=precision)
    lower = train(backend, NETWORKS["simple"](), optimizer=optim.SGD(0.05))
    full = train(xpnet.select("cpu"), NETWORKS["simple"](), optimizer=optim.SGD(0.05))
    assert backend.fallbacks == []
    if precision != "tf32":  # which cuBLAS may leave unused
        assert not np.array_equal(lower.losses, full.losses)
    np.testing.assert_allclose(lower.losses, full.losses, rtol=tolerance)


def test_predictions_take_no_more_memory_than_the_limit(
    cuda: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, whatever the precision of the steps is."""
    from xpnet.backend.cuda import convolution

    monkeypatch.setattr(convolution, "MOST_BYTES", 50_000)
    made: list[int] = []
    columns_of = convolution.Convolutions._columns_of

    def noted(*args: Any) -> Any:
        columns = columns_of(*args)
        made.append(columns.nbytes)
        return columns

    monkeypatch.setattr(convolution.Convolutions, "_columns_of", noted)
    monkeypatch.setattr("xpnet.backend.cuda.direct.MOST_FILTERS", 0)
    x, network = normal(30, 2, 8, 8), NETWORKS["deep"]()
    lower = xpnet.select("cuda", precision="bfloat16")
    found, expected = (
        xpnet.Trainer(network, backend=backend).model.predict_proba(x)
        for backend in (lower, xpnet.select("cpu"))
    )
    assert made
    assert max(made) <= 50_000
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_kernels_of_a_step(cuda: Backend, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/gpu.md counts them, for the networks of the book with an eighth of their filters."""
    from xpnet.backend.cuda.graphs import CupyGraphs

    graphs: list[Any] = []
    capture = CupyGraphs.capture

    def kept(self: CupyGraphs, work: Any) -> Any:
        launch: Any = capture(self, work)
        graphs.append(launch.__self__)
        return launch

    monkeypatch.setattr(CupyGraphs, "capture", kept)
    monkeypatch.setattr("xpnet.backend.captured.WARMUP_STEPS", 2)
    x = RNG.integers(0, 256, (2, 1, 28, 28)).astype(np.uint8)
    table = rows_of("convolution network")
    assert [row[0] for row in table] == ["SimpleConvNet", "DeepConvNet", "DeepConvNet, normalized"]
    for network, count, *_ in table:
        preset = PRESETS["cnn" if network == "SimpleConvNet" else "deep-cnn"]
        fewer = {"SimpleConvNet": [4]}.get(network, [[2, 2], [4, 4], [8, 8]])
        made = xpnet.cnn(
            (1, 28, 28), batch_norm="normalized" in network, **{**preset, "channels": fewer}
        )
        trainer = xpnet.Trainer(made, optim.Adam(), backend=cuda)
        graphs.clear()
        trainer.fit(x, np.array([3, 4]), epochs=1, batch_size=2)
        nodes = nodes_by_type(graphs[0].debug_dot_str(VERBOSE))
        # cuBLAS may cut the sum of a product into parts, and add them up by one more kernel.
        more = 0 if hasattr(cupy, "simulator") else int(count) // 3
        assert "Unknown" not in nodes
        assert 0 <= sum(nodes.values()) - int(count) <= more, (network, nodes)
    assert cuda.fallbacks == []
