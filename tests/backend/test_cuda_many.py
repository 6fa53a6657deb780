"""K networks in one step on CuPy: kernels of stacks, whole trainings, and what a graph contains.

As `test_cuda`, on a GPU or on the simulator of one.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from conftest import usable_cupy
from on_cuda import rows_of
from stacks import CASES, Stack, alone, together

import xpnet
from benchmarks.contenders import captured_by
from benchmarks.gpu_probe import VERBOSE, nodes_by_type, with_products
from xpnet import losses, optim
from xpnet.arrays import ops
from xpnet.arrays.dispatch import elementwise, with_kernels
from xpnet.backend import Backend
from xpnet.backend.loop import gathering
from xpnet.many.step import make_many_step
from xpnet.models.stack import form_of

pytestmark = pytest.mark.gpu

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def cupy() -> Any:
    return usable_cupy()


@pytest.fixture
def cuda(cupy: Any) -> Backend:
    return xpnet.select("cuda")


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


# -- Products --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 10, 7), (3, 7, 5)),
        ((10, 7), (3, 7, 5)),
        ((3, 10, 7), (7, 5)),
        ((1, 10, 7), (1, 7, 5)),
        ((4, 1, 5), (4, 5, 1)),
        ((2, 5, 1), (2, 1, 5)),
    ],
    ids=str,
)
def test_stacks_of_products_in_every_layout(
    cuda: Backend, a: tuple[int, ...], b: tuple[int, ...], dtype: str
) -> None:
    x, y = normal(*a, dtype=dtype), normal(*b, dtype=dtype)

    def layouts(array: np.ndarray) -> Any:
        yield cuda.asarray(array)
        yield cuda.asarray(np.ascontiguousarray(array.swapaxes(-1, -2))).swapaxes(-1, -2)
        wide = cuda.asarray(np.concatenate([array, array], axis=-1))
        yield wide[..., : array.shape[-1]]  # rows further apart than they are long
        yield cuda.asarray(np.repeat(array, 2, axis=-1))[..., ::2]  # no axis is dense
        if array.ndim > 2:
            yield cuda.asarray(np.ascontiguousarray(array.swapaxes(0, 1))).swapaxes(0, 1)
            yield cuda.asarray(np.repeat(array, 2, axis=0))[::2]
            yield cuda.asarray(np.ascontiguousarray(array[::-1]))[::-1]

    ours, cublas = (
        with_kernels(ops.matmul, kernels)
        for kernels in (cuda.kernels, with_products(cuda.kernels, None))
    )
    exact = x.astype(np.float64) @ y
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for left in layouts(x):
        for right, matmul in itertools.product(layouts(y), (ours, cublas)):
            product = matmul(left, right)
            assert (product.dtype, product.flags.c_contiguous) == (dtype, True)
            np.testing.assert_allclose(
                cuda.to_numpy(product), exact, rtol=tolerance, atol=10 * tolerance
            )


def test_matrices_that_all_share_by_a_view(cuda: Backend, cupy: Any) -> None:
    x, y = normal(5, 7), normal(3, 7, 2)
    view = cupy.broadcast_to(cuda.asarray(x), (3, 5, 7))
    product = with_kernels(ops.matmul, cuda.kernels)(view, cuda.asarray(y))
    np.testing.assert_allclose(cuda.to_numpy(product), x @ y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [64, 128, 256, 512])
def test_small_products_of_stacks(cuda: Backend, threads: int) -> None:
    from xpnet.backend.cuda.products import SmallProducts

    multiply = SmallProducts(threads)
    for rows, terms, columns in ((1, 1, 1), (5, 3, 7), (33, 65, 9), (8, 700, 8)):
        stacks = normal(3, rows, terms), normal(3, terms, columns)
        for x, y in (stacks, (stacks[0][0], stacks[1]), (stacks[0], stacks[1][0])):
            exact = x.astype(np.float64) @ y
            for turned in itertools.product((False, True), repeat=2):
                left, right = (
                    cuda.asarray(np.ascontiguousarray(a.swapaxes(-1, -2))).swapaxes(-1, -2)
                    if turn
                    else cuda.asarray(a)
                    for a, turn in zip((x, y), turned, strict=True)
                )
                product = cuda.to_numpy(multiply(left, right))
                np.testing.assert_allclose(product, exact, rtol=1e-5, atol=1e-6 * np.sqrt(terms))


def test_which_stacks_of_products_are_small(cuda: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    from xpnet.backend.cuda.products import threads_for

    monkeypatch.setattr("xpnet.backend.cuda.products.MOST_OPERATIONS", 1 << 22)
    assert threads_for(20, 16, 5, 132, models=1) == 64
    assert threads_for(20, 16, 5, 132, models=44) == 64
    assert threads_for(20, 16, 5, 132, models=45) is None  # 270 tiles
    assert threads_for(8, 8, 2000, 132, models=32) == 256
    assert threads_for(8, 8, 2000, 132, models=33) is None  # too many operations


@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [("tf32", 0.0, 1e-3), ("bfloat16", 5e-4, 6e-3), ("float16", 5e-5, 1e-3)],
)
def test_lower_precisions_round_each_model_by_itself(
    cupy: Any, precision: str, least: float, most: float
) -> None:
    """Each in its own range of float16, and no model spoils another."""
    backend = xpnet.select("cuda", precision=precision)
    matmul = with_kernels(ops.matmul, backend.kernels)
    scales = np.array([1.0, 1e-9, 1e6, np.nan], np.float32)[:, None, None]
    for x, y in (
        (normal(4, 64, 200), scales * normal(4, 200, 32)),
        (normal(64, 200), scales * normal(4, 200, 32)),
        (scales * normal(4, 64, 200), normal(200, 32)),
        (scales * normal(4, 200, 64).swapaxes(1, 2), normal(4, 32, 200).swapaxes(1, 2)),
    ):
        moved = [
            backend.asarray(a)
            if a.flags.c_contiguous
            else backend.asarray(np.ascontiguousarray(a.swapaxes(1, 2))).swapaxes(1, 2)
            for a in (x, y)
        ]
        product = backend.to_numpy(matmul(*moved))
        exact = x.astype(np.float64) @ y
        for k in range(3):
            error = np.linalg.norm(product[k] - exact[k]) / np.linalg.norm(exact[k])
            assert least < error < most, k
        assert not np.isfinite(product[3]).any()


# -- Sums, the batch, the update -------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels_that_all_models_share_are_read_where_they_lie(
    cuda: Backend, cupy: Any, dtype: str
) -> None:
    """One kernel, and no copy for each model."""
    x, t = normal(4, 9, 5, dtype=dtype), RNG.integers(0, 5, 9).astype(np.int32)
    kernel = cuda.kernels["softmax_cross_entropy"]
    shared = cupy.broadcast_to(cuda.asarray(t), (4, 9))
    function = losses.classification.softmax_cross_entropy
    for factor in (0.1, normal(4, 9, 1, dtype=dtype)):
        given = cuda.asarray(factor) if isinstance(factor, np.ndarray) else factor
        got = kernel(cuda.asarray(x), shared, given)
        assert got is not NotImplemented
        for one, other in zip(got, function(x, np.tile(t, (4, 1)), factor), strict=True):
            np.testing.assert_allclose(
                cuda.to_numpy(one), other, rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-6
            )


WEIGHTS = {"none": (), "one": (normal(50),), "each": (normal(3, 50),)}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("shared", [False, True], ids=["own rows", "shared rows"])
def test_the_batches_of_all_models_are_one_kernel(
    cuda: Backend, cupy: Any, monkeypatch: pytest.MonkeyPatch, weights: str, shared: bool
) -> None:
    from xpnet.backend.cuda.gather import Gather

    x, t = RNG.integers(0, 256, (50, 3, 4)).astype(np.uint8), RNG.integers(0, 9, 50)
    data = tuple(map(cuda.asarray, (x, t.astype(np.int32), *WEIGHTS[weights])))
    rows = np.array([[4, 0, 49, -1], [7, 7, 50, 2], [1, 2, 3, 4]])
    # Of weights of each model, a row out of range would be one of the next model's.
    rows = rows % 50 if weights == "each" else rows
    rows = cuda.asarray(rows[1] if shared else rows)

    def prepare(array: Any) -> Any:
        return ops.namespace(array).astype(array, cupy.float32) * 0.5

    made: list[str] = []
    make = cupy.RawKernel
    monkeypatch.setattr(cupy, "RawKernel", lambda *a: made.append(a[1]) or make(*a))
    fallbacks: list[str] = []
    batch = Gather(prepare, fallbacks)(data, rows)
    assert (made, fallbacks) == (["xpnet_gather"], [])
    plain = gathering(lambda array, index: cupy.take(array, index, axis=0), prepare)(data, rows)
    for one, other in zip(batch, plain, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_array_equal(cuda.to_numpy(one), cuda.to_numpy(other))
    if weights == "each":
        assert batch[2].shape == (3, 4)
        expected = WEIGHTS["each"][0][2, cuda.to_numpy(rows if shared else rows[2]) % 50]
        np.testing.assert_array_equal(cuda.to_numpy(batch[2])[2], expected)


@pytest.mark.parametrize("models", [1, 5, 600])
def test_an_update_of_all_models_is_one_kernel(cuda: Backend, models: int) -> None:
    """Rates, betas and decays of each; more models than blocks, sizes that no block divides."""
    from xpnet.backend.cuda.kernels import make_kernels

    rule = optim.PerModel(optim.AdamW(0.1), ("lr", "weight_decay", "beta1"))
    shapes = {"W": (models, 7, 3), "b": (models, 3), "V": (models, 1, 301)}
    params = {name: normal(*shape) for name, shape in shapes.items()}
    grads = {name: normal(*shape) for name, shape in shapes.items()}
    each = {
        "each.lr": np.linspace(0.01, 0.1, models), "each.weight_decay": np.linspace(0, 1, models),
        "each.beta1": np.linspace(0, 0.9, models),
    }  # fmt: skip
    results = []
    fallbacks: list[str] = []
    for backend in (xpnet.select("cpu"), cuda):
        p, g = (
            {name: backend.asarray(a.copy()) for name, a in arrays.items()}
            for arrays in (params, grads)
        )
        state = optim.init(rule, p)
        state |= {name: backend.asarray(v.astype(np.float32)) for name, v in each.items()}
        kernels = make_kernels("float32", fallbacks) if backend is cuda else backend.kernels
        update = with_kernels(optim.update, kernels)
        with np.errstate(divide="ignore"):  # NumPy's own lines take the logarithm of a beta of 0
            for _ in range(3):
                p, state = update(rule, g, state, p)
        results.append({k: backend.to_numpy(v) for k, v in {**p, **state}.items()})
    assert fallbacks == []
    for name, expected in results[0].items():
        np.testing.assert_allclose(results[1][name], expected, rtol=3e-5, atol=3e-6, err_msg=name)


@elementwise
def of_several_shapes(x: Any, y: Any) -> Any:
    return x * y, 2.0 * y, (x + 1.0, 3.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [((5, 7), (7,)), ((5, 7), (5, 1)), ((4,), ()), ((3, 5, 7), (1, 5, 1)), ((3, 1), (1, 4))],
    ids=str,
)
def test_results_of_several_shapes_come_from_one_kernel(
    cuda: Backend, one: tuple[int, ...], other: tuple[int, ...]
) -> None:
    from xpnet.backend.cuda.kernels import make_kernels

    x, y = normal(*one), np.asarray(normal(*other))
    fallbacks: list[str] = []
    kernels = make_kernels("float32", fallbacks)
    moved = cuda.asarray(x), cuda.asarray(y)
    product, double, (more, three) = with_kernels(of_several_shapes, kernels)(*moved)
    assert fallbacks == []
    for got, expected in ((product, x * y), (double, 2 * y), (more, x + 1), (three, np.array(3.0))):
        assert got.shape == expected.shape
        np.testing.assert_allclose(cuda.to_numpy(got), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="broadcast"):
        with_kernels(of_several_shapes, kernels)(
            cuda.asarray(normal(2, 3)), cuda.asarray(normal(2, 4))
        )


@pytest.mark.parametrize("shape", [(), (1,), (64,), (300,)], ids=str)
@pytest.mark.parametrize("count", [1, 32, 33])
def test_losses_of_any_shape_are_put_side_by_side(
    cuda: Backend, count: int, shape: tuple[int, ...]
) -> None:
    from xpnet.backend.cuda.graphs import CupyGraphs

    graphs = CupyGraphs(0)
    values = normal(count, *shape)
    out = graphs.empty(count + 1, cuda.asarray(values[0]))
    assert out.shape == (count + 1, *shape)
    out[...] = -1.0
    graphs.stack([cuda.asarray(v) for v in values], out[:count])
    np.testing.assert_array_equal(cuda.to_numpy(out)[:count], values)
    assert (cuda.to_numpy(out)[count] == -1.0).all()


# -- Whole trainings -------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_networks_that_train_together_follow_those_that_train_alone(
    cuda: Backend, name: str
) -> None:
    got, found = together(CASES[name], cuda)
    assert cuda.fallbacks == []  # captured, and fused
    for k, (params, expected) in enumerate(alone(CASES[name])):
        np.testing.assert_allclose(found[:, k], expected, rtol=1e-10, atol=1e-12)
        for parameter, p in params.items():
            np.testing.assert_allclose(got[parameter][k], p, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_networks_of_float32_train_together(cupy: Any, precision: str) -> None:
    stack = CASES["dropout"]
    _, found = together(stack, xpnet.select("cuda", precision=precision), "float32")
    for k, (_, expected) in enumerate(alone(stack)):
        np.testing.assert_allclose(
            found[:, k], expected, rtol=1e-3 if precision == "float32" else 0.2
        )


def test_a_model_that_diverges_takes_no_other_with_it(cuda: Backend) -> None:
    rules = optim.SGD(0.1), optim.SGD(1e30), optim.SGD(0.01)
    stack = Stack(rules, loss="squared", activation="identity")
    with np.errstate(all="ignore"):
        _, found = together(stack, cuda)
        assert not np.isfinite(found[-1, 1])
        expected = alone(stack)
    for k in (0, 2):
        np.testing.assert_allclose(found[:, k], expected[k][1], rtol=1e-10)


# -- What a graph contains -------------------------------------------------------------


@pytest.fixture
def graphs(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs that are captured from now on."""
    from xpnet.backend.cuda.graphs import CupyGraphs

    found: list[Any] = []
    capture = CupyGraphs.capture

    def kept(self: CupyGraphs, work: Any) -> Any:
        launch: Any = capture(self, work)
        found.append(launch.__self__)
        return launch

    monkeypatch.setattr(CupyGraphs, "capture", kept)
    return found


def nodes_of_one(graphs: list[Any], backend: Backend, sizes: list[int], rule: Any, k: int) -> int:
    """The nodes in the graph of one step of k networks with rates of their own."""
    network = xpnet.mlp(sizes, "sigmoid")
    step = make_many_step(network, form_of(network), optim.PerModel(rule, ("lr",)))
    params = {
        name: backend.asarray(np.tile(p.astype(np.float32), (k, *[1] * p.ndim)))
        for name, p in network.params.items()
    }
    state = optim.init(step.rule, params)
    state["each.lr"] = backend.asarray(np.linspace(0.01, 0.1, k, dtype=np.float32))
    data = normal(100, sizes[0]), RNG.integers(0, 10, 100).astype(np.int32)
    order = np.array([[RNG.permutation(100) for _ in range(k)]])
    run = backend.loop(step, lambda x: x)
    graphs.clear()
    list(run(params, state, tuple(map(backend.asarray, data)), backend.asarray(order)))
    nodes = nodes_by_type(graphs[0].debug_dot_str(VERBOSE))
    assert "Unknown" not in nodes
    return sum(nodes.values())


def test_the_kernels_of_a_step_of_many(cuda: Backend, cupy: Any, graphs: list[Any]) -> None:
    from xpnet.backend.cuda.graphs import CupyGraphs

    unfused = captured_by(CupyGraphs(0), cuda, fused=False)
    simulated = hasattr(cupy, "simulator")  # it is slow, and the number of networks adds no node
    rows = [row for row in rows_of("network") if "networks of" in row[0]]
    assert len(rows) == 2
    for name, optimizer, *counts in rows:
        models, sizes = name.removesuffix(" at once, sigmoid").split(" networks of ")
        rule = {"SGD": optim.SGD(0.1), "Adam": optim.Adam()}[optimizer]
        for backend, count in zip((unfused, cuda), counts, strict=True):
            k = 2 if simulated else int(models)
            nodes = nodes_of_one(graphs, backend, [*map(int, sizes.split("-"))], rule, k)
            # cuBLAS may cut the sum of a product into parts, and add them up by one more kernel.
            more = 0 if simulated else 5
            assert 0 <= nodes - int(count) <= more, (name, optimizer, nodes)
