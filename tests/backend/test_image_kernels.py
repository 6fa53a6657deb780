"""Kernels for images: against the lines that they replace, and against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import CASES, Case

from xpnet import Graph, Network, layers, losses, select
from xpnet.arrays import convolution
from xpnet.arrays.dispatch import with_kernels
from xpnet.backend import numpy_images
from xpnet.backend.interface import Backend
from xpnet.graph.gradcheck import check_gate

IMAGES = [
    case
    for case in CASES
    if type(case.gate).__name__
    in ("Convolution", "MaxPool", "AveragePool", "GlobalAveragePool", "BatchNorm")
]
LIBRARIES = ("numpy", "torch", "jax")


def opened(library: str, precision: str = "float32") -> Backend:
    if library != "numpy":
        pytest.importorskip(library)
    return select("cpu", library, precision=precision)


def both_passes(case: Case, backend: Backend, dtype: str, kernels: Any) -> list[np.ndarray]:
    """The output and the gradients of a case, each a NumPy array."""
    arrays = [
        a if a is None else backend.asarray(a.astype(dtype) if a.dtype.kind == "f" else a)
        for a in case.inputs(np.random.default_rng(0))
    ]
    rng = np.random.default_rng(1)

    def passes() -> list[Any]:
        y, cache = case.gate.forward(*arrays)
        dout = backend.asarray(rng.standard_normal(tuple(y.shape)).astype(dtype))
        needs = [a is not None and a.dtype == dout.dtype for a in arrays]
        return [y, *(g for g in case.gate.backward(cache, dout, needs) if g is not None)]

    run = with_kernels(passes, kernels)
    if backend.library == "jax":  # one compilation, not one for each operation
        run = backend.compile(run)
    return [backend.to_numpy(a) for a in run()]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("case", IMAGES, ids=lambda case: case.name)
def test_kernels_compute_what_the_lines_compute(case: Case, library: str) -> None:
    backend = opened(library)
    if library == "jax" and not isinstance(case.gate, layers.Convolution):
        pytest.skip("JAX has kernels for convolution alone")
    expected = both_passes(case, select("cpu"), "float32", {})
    with np.errstate(all="ignore"):
        got = both_passes(case, backend, "float32", backend.kernels)
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_convolution_in_16_bits_keeps_their_digits(precision: str) -> None:
    """On any CPU: the kernels are asked, not the backend, which needs the instructions."""
    torch = pytest.importorskip("torch")
    from xpnet.backend import torch_images

    kernels = torch_images.kernels(precision, on_gpu=False)
    rng = np.random.default_rng(0)
    x, W = rng.standard_normal((3, 5, 7, 6)), rng.standard_normal((4, 5, 3, 3))
    dout = 1e-7 * rng.standard_normal((3, 4, 7, 6))  # below what float16 can hold
    settings = ((1, 1), (1, 1), (1, 1))
    exact = [
        convolution.convolve(x, W, None, *settings),
        convolution.convolve_backward_input(dout, W, (7, 6), *settings),
        convolution.convolve_backward_weights(x, dout, (3, 3), *settings),
    ]
    tx, tW, tdout = (torch.from_numpy(a.astype("float32")) for a in (x, W, dout))
    got = [
        kernels["convolve"](tx, tW, None, *settings),
        kernels["convolve_backward_input"](tdout, tW, (7, 6), *settings),
        kernels["convolve_backward_weights"](tx, tdout, (3, 3), *settings),
    ]
    digits = {"bfloat16": 2.0**-8, "float16": 2.0**-11}[precision]
    for one, other in zip(got, exact, strict=True):
        assert one.dtype == torch.float32
        error = np.abs(one.numpy() - other).max() / np.abs(other).max()
        assert 0.0 < error < 4 * digits


@pytest.mark.parametrize(
    ("channels", "size", "filters", "kernel", "stride", "padding", "dilation"),
    [
        (1, (9, 8), 3, (5, 5), (1, 1), (0, 0), (1, 1)),
        (6, (9, 9), 4, (3, 3), (1, 1), (1, 1), (1, 1)),
        (6, (9, 9), 4, (3, 3), (1, 1), (4, 3), (1, 1)),  # more padding than a filter reaches
        (8, (11, 9), 3, (3, 3), (1, 1), (2, 2), (2, 2)),
        (3, (11, 12), 4, (5, 4), (3, 2), (2, 1), (1, 1)),
        (2, (10, 7), 3, (2, 3), (2, 3), (0, 1), (3, 2)),
        (20, (4, 5), 3, (1, 1), (2, 2), (0, 0), (1, 1)),
    ],
)
def test_convolution_is_that_of_pytorch(
    monkeypatch: pytest.MonkeyPatch,
    channels: int,
    size: tuple[int, int],
    filters: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal((5, channels, *size)),
        rng.standard_normal((filters, channels, *kernel)),
        rng.standard_normal(filters),
    ]
    x, W, b = (torch.from_numpy(a).requires_grad_() for a in arrays)
    y = torch.nn.functional.conv2d(x, W, b, stride, padding, dilation)
    dout = rng.standard_normal(tuple(y.shape))
    y.backward(torch.from_numpy(dout))
    gate = layers.Convolution(stride, padding, dilation)

    def passes() -> list[Any]:
        found, cache = gate.forward(*arrays)
        return [found, *gate.backward(cache, dout)]

    for block in (1, 1 << 12, numpy_images.BLOCK):  # one sample in the cache, some, all
        monkeypatch.setattr(numpy_images, "BLOCK", block)
        for kernels in ({}, select("cpu").kernels):
            for got, expected in zip(
                with_kernels(passes, kernels)(), (y.detach(), x.grad, W.grad, b.grad), strict=True
            ):
                np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("library", ["numpy", "torch"])  # JAX runs the lines
@pytest.mark.parametrize("gate", [layers.MaxPool(2), layers.MaxPool(3, 2, 1)], ids=str)
def test_of_equal_maxima_the_first_gets_the_gradient(gate: Any, library: str) -> None:
    """Whole numbers from 0 to 2 have many equal maxima; PyTorch gives to the first too."""
    torch = pytest.importorskip("torch")
    backend = opened(library)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 3, (4, 2, 8, 8)).astype(np.float32)
    images[0, 0, :2, :2] = [[0.0, 1.0], [1.0, 1.0]]  # first in its row, not in its column
    x = torch.from_numpy(images).requires_grad_()
    y = torch.nn.functional.max_pool2d(x, gate.size, gate.stride, gate.padding)
    dout = rng.standard_normal(tuple(y.shape)).astype(np.float32)
    y.backward(torch.from_numpy(dout))

    def passes() -> list[Any]:
        found, cache = gate.forward(backend.asarray(images))
        return [found, *gate.backward(cache, backend.asarray(dout))]

    for kernels in ({}, backend.kernels):
        got, dx = (backend.to_numpy(a) for a in with_kernels(passes, kernels)())
        np.testing.assert_array_equal(got, y.detach().numpy())
        np.testing.assert_allclose(dx, x.grad.numpy(), rtol=0, atol=1e-6)
    assert dx[0, 0, 0, 1] != 0.0


@pytest.mark.parametrize("kernels", [{}, select("cpu").kernels], ids=["lines", "kernels"])
def test_an_infinite_gradient_reaches_no_other_pixel(kernels: Any) -> None:
    x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])

    def passes() -> Any:
        _, cache = layers.MaxPool(2).forward(x)
        return layers.MaxPool(2).backward(cache, np.array([[[[np.inf]]]]))[0]

    assert with_kernels(passes, kernels)().tolist() == [[[[0.0, 0.0], [0.0, np.inf]]]]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("case", IMAGES, ids=lambda case: case.name)
def test_no_sample_is_a_batch_too(case: Case, library: str) -> None:
    backend = opened(library)
    if library == "jax" and not isinstance(case.gate, layers.Convolution):
        pytest.skip("JAX has kernels for convolution alone")
    first, *rest = case.inputs(np.random.default_rng(0))
    assert first is not None
    empty = Case(case.name, case.gate, lambda rng: [first[:0], *rest])
    with np.errstate(all="ignore"):
        y, *gradients = both_passes(empty, backend, "float32", backend.kernels)
    assert y.shape[0] == gradients[0].shape[0] == 0
    assert all(not gradient.any() for gradient in gradients)


def test_batch_norm_is_that_of_pytorch() -> None:
    """In training, in inference, and in what it remembers after one step."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for shape in ((7, 3), (4, 3, 5, 2)):
        x = rng.standard_normal(shape) * 3.0 + 1.0
        gamma, beta, mean = rng.standard_normal((3, 3))
        var = rng.uniform(0.5, 2.0, 3)
        theirs = [torch.from_numpy(a.copy()).requires_grad_() for a in (x, gamma, beta)]
        kept = [torch.from_numpy(a.copy()) for a in (mean, var)]
        gate = layers.BatchNorm(momentum=0.75)
        for step in (np.array([9], np.int32), None):
            before = [a.numpy().copy() for a in kept]
            y = torch.nn.functional.batch_norm(
                theirs[0], *kept, *theirs[1:], training=step is not None, momentum=0.25
            )
            dout = rng.standard_normal(shape)
            grads = torch.autograd.grad(y, theirs, torch.from_numpy(dout))
            got, cache = gate.forward(x, gamma, beta, *before, step)
            parts = gate.backward(cache, dout)[:3]
            for ours, other in zip(
                [got, *parts, *gate.observed(cache)], [y.detach(), *grads, *kept], strict=True
            ):
                np.testing.assert_allclose(ours, other.numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("step", [0, 7])  # a model that is trained on counts from 0 again
def test_only_the_first_batch_of_a_new_network_replaces_the_running_statistics(step: int) -> None:
    batch = np.random.default_rng(0).standard_normal((8, 2)) + 5.0
    own = batch.mean(axis=0), batch.var(axis=0, ddof=1)
    gate, one, zero = layers.BatchNorm(), np.ones(2), np.zeros(2)

    def after(mean: np.ndarray, var: np.ndarray) -> Any:
        _, cache = gate.forward(batch, one, zero, mean, var, np.array([step], np.int32))
        return gate.observed(cache)

    np.testing.assert_allclose(after(zero, one), own, rtol=1e-12)
    kept = np.array([2.0, 3.0]), np.array([1.0, 4.0])
    expected = [0.9 * old + 0.1 * new for old, new in zip(kept, own, strict=True)]
    np.testing.assert_allclose(after(*kept), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int16, np.uint8, np.int64])
def test_padding_of_whole_numbers_is_never_the_largest(dtype: Any) -> None:
    low = np.full((1, 1, 2, 2), 0 if dtype in (bool, np.uint8) else -5, dtype)
    y = layers.MaxPool(2, padding=1).forward(low)[0]
    assert y.dtype == dtype
    assert (y == low[0, 0, 0, 0]).all()


@pytest.mark.parametrize(
    ("gate", "shapes"),
    [
        (layers.AveragePool((1, 4), (1, 2), (0, 2)), [(1, 1, 1, 1)]),
        (layers.AveragePool((1, 4), (1, 3), (0, 2)), [(1, 1, 1, 2)]),
        (layers.AveragePool((5, 4), 1, (2, 0)), [(1, 1, 1, 4)]),
        (layers.MaxPool((5, 4), 1, (2, 0)), [(1, 1, 1, 4)]),
        (layers.Convolution((7, 5), (2, 6)), [(1, 1, 1, 1), (2, 1, 1, 2)]),
        (layers.Convolution((7, 2), (2, 0)), [(1, 1, 2, 3), (2, 1, 1, 2)]),
        (layers.Convolution(5, 2), [(2, 1, 1, 1), (2, 1, 1, 1)]),
    ],
)
@pytest.mark.parametrize("kernels", [{}, select("cpu").kernels], ids=["lines", "kernels"])
def test_images_smaller_than_their_padding_have_gradients(
    gate: Any, shapes: list[tuple[int, ...]], kernels: Any
) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in shapes]

    def rows() -> Any:
        return check_gate(gate, *arrays)

    assert max(row.error for row in with_kernels(rows, kernels)()) < 1e-8


def test_one_sample_is_normalized_as_in_inference() -> None:
    one, mean, var = np.ones(3), np.array([1.0, 2.0, 3.0]), np.array([4.0, 9.0, 16.0])
    gate = layers.BatchNorm()
    x = np.array([[5.0, 5.0, 5.0]])
    y, cache = gate.forward(x, one, 0 * one, mean, var, np.array([3], np.int32))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-12)
    assert all(a is b for a, b in zip(gate.observed(cache), (mean, var), strict=True))


@pytest.mark.parametrize(
    ("gate", "shapes", "words"),
    [
        (layers.Convolution(), [(2, 28, 28, 3), (4, 3, 5, 5)], r"channels last\?.*moveaxis"),
        (layers.Convolution(), [(2, 4, 8, 8), (4, 3, 5, 5)], "4 channels; expected 3 channels"),
        (layers.Convolution(), [(2, 784), (4, 1, 5, 5)], r"expected images, \(N, C, H, W\)"),
        (layers.Convolution(), [(2, 1, 3, 3), (4, 1, 5, 5)], "5 rows do not fit images of 3"),
        (layers.Convolution(1, 0, 3), [(2, 1, 6, 9), (4, 1, 3, 3)], "filters of 7 rows"),
        (layers.Convolution(), [(2, 1, 8, 8), (4, 1, 5, 5), (3,)], r"expected .*\(F,\)"),
        (layers.MaxPool(3), [(2, 1, 4, 2)], "windows of 3 columns do not fit images of 2 columns"),
        (layers.AveragePool(3), [(2, 4)], "expected images"),
        (layers.GlobalAveragePool(), [(2, 4, 0, 3)], "expected at least one pixel"),
        (layers.Flatten(), [(3,)], "expected a batch"),
        (layers.BatchNorm(), [(2, 4), (4,), (4,), (4,), (3,)], "var has shape"),
        (layers.BatchNorm(), [(2, 4, 3), (4,), (4,), (4,), (4,)], "expected .*N, C, H, W"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    gate: Any, shapes: list[tuple[int, ...]], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        gate.forward(*map(np.ones, shapes))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: layers.Convolution(0), "stride is 0"),
        (lambda: layers.Convolution((1, 2, 3)), "one number, or"),
        (lambda: layers.Convolution(padding=-1), "padding is -1"),
        (lambda: layers.MaxPool(2, padding=2), "at most half of the size"),
        (lambda: layers.MaxPool(1.5), "size is 1.5"),
        (lambda: layers.BatchNorm(1.0), "momentum is 1"),
        (lambda: layers.BatchNorm(eps=0.0), "eps is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_statistics_of_two_gates_are_refused() -> None:
    """Each gate would overwrite what the other one measured."""
    graph = Graph()
    x, t, gamma, beta, mean, var = graph.inputs("x t gamma beta mean var")
    step = graph.input("step", optional=True)
    node = x
    for _ in range(2):
        node = graph.apply(layers.BatchNorm(), node, gamma, beta, mean, var, step)
    loss = graph.apply(losses.SoftmaxWithLoss(), node, t)
    one, zero = np.ones(2), np.zeros(2)
    with pytest.raises(ValueError, match="BatchNorm1, BatchNorm2 measure 'mean'"):
        Network(
            graph, {"gamma": one, "beta": zero}, node, loss, outputs=2,
            statistics={"mean": zero, "var": one},
        )  # fmt: skip
