"""CuPy: kernels, captured graphs, streaming, errors; on a GPU, or on the simulator of one.

`test_simulator` runs this file, and all else that is marked gpu, with tests/simulator in CuPy's
place. What only the simulator can tell (who waited for whom, say) is tested there alone.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import itertools
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from conftest import usable_cupy
from on_cuda import CONVOLUTIONS, changed, rows_of, taking, uncaptured

import xpnet
from benchmarks.contenders import captured_by
from benchmarks.gpu_probe import VERBOSE, nodes_by_type, with_products
from benchmarks.problems import products as products_of
from xpnet import layers, losses, optim
from xpnet.arrays import ops
from xpnet.arrays.convolution import convolve
from xpnet.arrays.dispatch import elementwise, with_kernels
from xpnet.arrays.windows import max_pool
from xpnet.backend import Backend
from xpnet.data import Scaling
from xpnet.data.loader import Feed
from xpnet.errors import DeviceError, NotCapturedWarning

pytestmark = pytest.mark.gpu

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def cupy() -> Any:
    return usable_cupy()


@pytest.fixture(scope="module")
def cuda(cupy: Any) -> Backend:
    return xpnet.select("cuda")


@pytest.fixture
def simulator(cupy: Any) -> Any:
    if not hasattr(cupy, "simulator"):
        pytest.skip("only the simulator of CuPy can tell")
    cupy.simulator.reset()
    return cupy.simulator


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


# -- Kernels ---------------------------------------------------------------------------


def elementwise_functions() -> dict[str, Callable[..., Any]]:
    """Every function of xpnet that is marked so, wherever it stands."""
    found = {}
    for module in pkgutil.walk_packages(xpnet.__path__, "xpnet."):
        if module.name.endswith("__main__") or module.name.startswith("xpnet.backend."):
            continue
        if module.name.startswith("xpnet.sklearn"):  # needs scikit-learn; tests/estimators has it
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            wrapped = getattr(value, "__wrapped__", None)
            known = wrapped is not None and inspect.isfunction(value)  # not a function's cache
            closure = inspect.getclosurevars(value).nonlocals if known else {}
            if closure.get("function") is wrapped is not None and value.__module__ == module.name:
                found[f"{module.name.removeprefix('xpnet.')}.{name}"] = value
    return found


def convolutions() -> dict[str, list[Any]]:
    """Arguments of the three functions of a convolution."""
    found: dict[str, list[Any]] = {}
    for x, W, *settings in CONVOLUTIONS:
        images, filters = normal(*x), normal(*W)
        y = convolve(images, filters, None, *settings)
        dout = normal(*y.shape)
        for name, arguments in (
            ("convolve", [images, filters, normal(len(filters))]),
            ("convolve_backward_input", [dout, filters, x[2:]]),
            ("convolve_backward_weights", [images, dout, W[2:]]),
        ):
            found.setdefault(f"arrays.convolution.{name}", []).append([*arguments, *settings])
    return found


# Shape of the padded images, size, stride, edges.
POOLINGS = [
    ((3, 2, 6, 6), (2, 2), (2, 2), ((0, 0), (0, 0))),
    ((2, 3, 7, 9), (3, 2), (2, 1), ((1, 1), (0, 1))),
    ((2, 1, 7, 7), (2, 2), (3, 3), ((0, 0), (1, 1))),  # pixels that no window sees
    ((2, 1, 5, 4), (1, 1), (1, 1), ((0, 0), (0, 0))),
    ((1, 2, 4, 5), (4, 5), (4, 5), ((0, 0), (0, 0))),
]


def poolings() -> dict[str, list[Any]]:
    """Arguments of pooling, with windows of equal values, of -inf, and with one of NaN."""
    found: dict[str, list[Any]] = {}
    for shape, size, stride, edges in POOLINGS:
        for values in ("normal", "ties", "infinite", "nan"):
            x = normal(*shape)
            if values == "ties":
                x = np.round(x)
            elif values == "infinite":
                x[:, :, :3, :] = -np.inf
            elif values == "nan":
                x[0, 0, 1, 1] = np.nan
            y, _ = max_pool(x, size, stride)
            dout = normal(*y.shape)
            (top, bottom), (left, right) = edges
            images = shape[2] - top - bottom, shape[3] - left - right
            for name, arguments in (
                ("max_pool", [x, size, stride]),
                ("max_pool_backward", [x, y, None, dout, size, stride, edges]),
                ("average_pool", [x, size, stride]),
                ("average_pool_backward", [dout, images, size, stride, edges]),
            ):
                if (name, values) != ("max_pool_backward", "nan"):  # nobody says who gets it
                    found.setdefault(f"arrays.windows.{name}", []).append(arguments)
    return found


LABELS = RNG.integers(0, 7, 33).astype(np.int32)
# Scores of -inf, none of them of a true class.
BESIDE = np.concatenate([normal(33, 7), np.full((33, 1), -np.inf, np.float32)], axis=1)
# Arguments of each elementwise or replaceable function.
ARGUMENTS: dict[str, list[Any]] = {
    "arrays.ops.sigmoid": [[normal(5, 7)], [np.array([-1000.0, 0.0, 1000.0], np.float32)]],
    "arrays.ops.masked": [
        [normal(5, 7), RNG.random((5, 7)) > 0.5],
        [np.array([np.inf, np.nan, -np.inf, 1.0], np.float32), np.array([False] * 3 + [True])],
    ],
    "arrays.ops.add_scaled": [[normal(5, 7), normal(5, 7), -0.3]],
    "arrays.ops.sum_rows": [[[normal(100, 33), normal(7, 3, 5), normal(1, 1)]], [[normal(40, 70)]]],
    "graph.autodiff.add_bias_then": [
        [normal(5, 7), normal(7), gate]
        for gate in (layers.Sigmoid(), layers.Tanh(), layers.ReLU(), layers.LeakyReLU(0.2))
    ]
    + [[normal(2, 3, 4, 5), normal(3, 1, 1), layers.ReLU()]],
    "arrays.ops.sum_channels": [
        [normal(3, 4, 5, 6)],
        [normal(3, 4, 5, 6), normal(3, 4, 5, 6)],
        [normal(2, 3, 30, 40)],  # more pixels than threads
        [normal(1, 2, 1, 1)],
        [normal(40, 70)],
        [normal(40, 70), normal(40, 70)],
        [normal(0, 3, 2, 2)],
    ],
    **convolutions(),
    **poolings(),
    "arrays.windows.pad": [
        [normal(2, 3, 4, 5), ((1, 2), (0, 3)), -np.inf],
        [normal(2, 3, 4, 5), ((-1, 2), (0, -2))],
        [normal(2, 3, 4, 5), ((0, 0), (0, 0))],
        [normal(0, 3, 4, 5), ((1, 1), (1, 1))],
    ],
    "arrays.windows.spread": [[normal(2, 3, 4, 5), (2, 1)]],
    "arrays.windows.add_windows": [
        [[normal(2, 3, 2, 2)] * 4, (4, 4), (2, 2), (2, 2), ((0, 0), (0, 0))],
    ],
    "layers.normalization._centered": [[normal(3, 4, 5, 6), normal(4, 1, 1), 0.1]],
    "layers.normalization._scales": [
        [RNG.uniform(0.5, 2.0, 4).astype(np.float32), normal(4), 1e-5]
    ],
    "layers.normalization._normalized": [
        [normal(3, 4, 5, 6), normal(4, 1, 1), normal(4, 1, 1), normal(4, 1, 1)],
        [normal(5, 4), normal(4), normal(4), normal(4)],
    ],
    "layers.normalization._dx": [
        [normal(3, 4, 5, 6), normal(3, 4, 5, 6), *(normal(4, 1, 1) for _ in range(3)), 0.1],
    ],
    "layers.normalization._measured": [
        [
            normal(4),
            RNG.uniform(5, 9, 4).astype(np.float32),
            normal(4),
            mean,
            np.array([1, 2, 1, 2], np.float32),
            0.1,
            10 / 9,
            0.9,
            1e-5,
        ]
        # As a network begins, mean 0 and variance 1, in one channel; in none.
        for mean in (np.array([0, 0, 1, 1], np.float32), normal(4))
    ],
    "arrays.ops.sum_rows_per_model": [
        [[normal(4, 100, 33), normal(4, 7, 5), normal(4, 1, 1)]],
        [[normal(1, 40, 70)]],
    ],
    "arrays.ops.at_least": [[normal(5, 7), 0.0], [np.array([np.nan, -1.0, 1.0], np.float32), 0.5]],
    "arrays.ops.at_most": [[normal(5, 7), 0.0], [np.array([np.nan, -1.0, 1.0], np.float32), 0.5]],
    "arrays.ops.within": [
        [normal(5, 7), -0.5, 1.0],
        [np.array([np.nan, -1.0], np.float32), 0.0, 1],
    ],
    "arrays.ops.matmul": [
        [normal(5, 7), normal(7, 3)],
        [normal(7, 5).T, normal(7, 3)],
        [normal(9, 100), normal(3, 100).T],
        [normal(9, 300), normal(300, 3)],
        [normal(3, 5, 7), normal(3, 7, 2)],
        [normal(5, 7), normal(3, 7, 2)],
        [normal(3, 5, 7), normal(7, 2)],
        [normal(3, 7, 5).swapaxes(1, 2), normal(3, 2, 7).swapaxes(1, 2)],
    ],
    "layers.activations.sigmoid_backward": [[normal(5, 7), normal(5, 7)]],
    "layers.activations.tanh_backward": [[normal(5, 7), normal(5, 7)]],
    "layers.activations.relu_backward": [
        [normal(5, 7), normal(5, 7)],
        [normal(7, 5).T, normal(5, 7)],
    ],
    "layers.activations._leaky_relu": [[normal(5, 7), 0.01]],
    "layers.dropout._drop": [
        [normal(5, 7), RNG.integers(-(2**31), 2**31, (5, 7)).astype(np.int32), 1 << 22, 1.5]
    ],
    "arrays.augmentation._moves": [
        [RNG.integers(-(2**31), 2**31, 40).astype(np.int32), 5, 2, mirror] for mirror in (0, 1)
    ],
    "arrays.augmentation._rows": [
        [np.arange(7, dtype=np.int32), RNG.integers(-9, 9, (5, 1)).astype(np.int32), 6, 3]
    ],
    "arrays.augmentation._columns": [
        [
            np.arange(7, dtype=np.int32),
            RNG.integers(-9, 9, (5, 1)).astype(np.int32),
            RNG.integers(0, 2, (5, 1)).astype(np.int32),
            6,
        ]
    ],
    "arrays.augmentation._sum": [
        [np.arange(7, dtype=np.int32), np.arange(5, dtype=np.int32)[:, None], np.int32(3)[None]]
    ],
    "arrays.augmentation.moved": [
        [normal(5, 2, 4, 3), *RNG.integers(-2, 3, (2, 5)).astype(np.int32), np.arange(5) % 2, 2]
    ],
    "arrays.random._bits": [[np.arange(40, dtype=np.int32), np.array([3], np.int32), -123456789]],
    "layers.dropout._kept": [[normal(5, 7), RNG.random((5, 7)) > 0.5, 1.5]],
    "losses.regression._squared_error": [
        [normal(5, 7), normal(5, 7), 0.2],
        [normal(5, 7), normal(5, 7), normal(5, 1)],
    ],
    "losses.regression._absolute_error": [
        [normal(5, 7), normal(5, 7), 0.2],
        [np.array([[1.0, 2.0, 3.0]], np.float32), np.full((1, 3), 2.0), normal(1, 1)],
    ],
    "losses.regression._huber_error": [
        [normal(5, 7), normal(5, 7), 0.2, 0.5],
        [normal(5, 7), normal(5, 7), normal(5, 1), 2.0],
    ],
    "losses.regression._quantile_error": [
        [normal(5, 7), normal(5, 7), 0.2, 0.9],
        [np.array([[1.0, 2.0, 3.0]], np.float32), np.full((1, 3), 2.0), normal(1, 1), 0.1],
    ],
    "losses.regression._poisson_deviance": [
        [normal(5, 7), RNG.poisson(2.0, (5, 7)) * 1.0, 0.2],
        [normal(5, 7), RNG.poisson(2.0, (5, 7)) * 1.0, normal(5, 1)],
        [np.array([[-np.inf, 0.0]], np.float32), np.zeros((1, 2)), 1.0],
    ],
    "losses.classification.binary_cross_entropy": [
        [30 * normal(5, 7), RNG.integers(0, 2, (5, 7)) * 1.0, 0.2],
        [normal(5, 7), RNG.integers(0, 2, (5, 7)) * 1.0, normal(5, 1)],
        [np.array([[np.inf, -np.inf]], np.float32), np.array([[1.0, 0.0]]), 1.0],
    ],
    "losses.classification.target_scores": [
        [BESIDE, LABELS, np.eye(8, dtype=np.float32)[LABELS]],
        [normal(33, 7), np.eye(7, dtype=np.float32)[LABELS], np.eye(7, dtype=np.float32)[LABELS]],
    ],
    "losses.classification.softmax_cross_entropy": [
        [10 * normal(33, 7), LABELS, 0.1],
        [normal(33, 1000), 100 * LABELS, 1.0],
        [normal(33, 33), LABELS - 3, 0.1],  # some of no class
        [normal(3, 11, 7), LABELS.reshape(3, 11), 0.1],
        [normal(33, 7), np.eye(7, dtype=np.float32)[LABELS], 0.1],
        [1000 * normal(33, 2), LABELS // 4, 0.1],
        [normal(33, 7), LABELS, normal(33, 1)],
        [BESIDE, LABELS, 0.1],
        [normal(3, 11, 7), LABELS.reshape(3, 11), normal(3, 11, 1)],
    ],
    "losses.samples.weighted_sum": [
        [normal(100), 0.01],
        [normal(3, 7), 1.0],
        [normal(0), 1.0],
        [normal(1000), normal(1000, 1)],
        [normal(3, 7), normal(3, 7, 1)],
        [np.array([1.0, np.inf], np.float32), np.array([[2.0], [0.0]], np.float32)],
    ],
    "losses.samples.weighted_sums": [
        [normal(4, 100), 0.01],
        [normal(4, 3, 7), 1.0],
        [normal(1, 1000), normal(1, 1000, 1)],
        [normal(5, 300), normal(5, 300, 1)],
        [
            np.array([[1.0, np.inf], [3.0, 4.0]], np.float32),
            np.array([[[2.0], [0.0]]] * 2, np.float32),
        ],
    ],
    "data.loader._scaled": [
        [RNG.integers(0, 256, (5, 7)).astype(np.uint8), np.float32, 1 / 255],
        [RNG.integers(-9, 9, (5, 7)).astype(np.int8), np.float64, normal(7, dtype="float64")],
    ],
    "data.loader._standardized": [
        [RNG.integers(0, 256, (5, 7)).astype(np.uint8), np.float32, normal(7), normal(7)],
        [RNG.integers(0, 256, (5, 7)).astype(np.uint8), np.float32, 3.0, 0.5],
    ],
    "optim.clipping.scaled_norm": [
        [[normal(5, 7), normal(7)], 0.5],
        [[1e20 * normal(5, 7)], 1.0],
        [[normal(5, 7)], 100.0],
    ],
    "optim.penalties._decayed": [[normal(5, 7), normal(5, 7), 0.1]],
    "optim.penalties._pulled": [
        [normal(5, 7), np.where(normal(5, 7) > 0, normal(5, 7), np.float32(0)), 0.1]
    ],
    "optim.updating._rates": [
        [optimizer, lr, level, np.asarray(np.int32(5)), np.float32]
        for optimizer, lr, level in (
            (optim.Adam(0.01), None, None),
            (optim.Adam(0.01), np.asarray(np.float32(0.3)), None),
            (optim.AdamW(0.01), None, None),
            (optim.AdamW(optim.cosine(0.1, 20, warmup=3)), None, None),
            (optim.SGD(optim.step_decay(0.1, 2)), None, None),
            (optim.SGD(optim.exponential(0.1, 20)), None, None),
            (optim.SGD(optim.inverse_time(0.1, 0.5)), None, None),
            (optim.SGD(optim.plateau(0.1)), None, np.asarray(np.float32(0.5))),
            (optim.Adam(optim.plateau(0.1, warmup=9)), None, np.asarray(np.float32(0.5))),
        )
    ],
}


ARGUMENTS["optim.per_model._rates_per_model"] = [
    [optim.PerModel(rule, varied), lr, None, np.asarray(np.int32(5)), np.float32, *settings]
    for rule, varied, lr, settings in (
        (optim.Adam(0.01), ("lr",), None, [np.array([0.1, 0.2])]),
        (optim.Adam(0.01), ("beta1", "beta2"), None, [np.array([0.0, 0.9]), np.array([0.9, 0.99])]),
        (optim.Adam(0.01), ("beta1",), np.asarray(0.3), [np.array([0.0, 0.9])]),
        (optim.AdamW(0.01), ("lr", "weight_decay"), None, [np.array([0.1, 0.2, 0.3])] * 2),
        (optim.Adam(0.01), (), None, []),
        (
            optim.AdamW(optim.cosine(0.1, 20, warmup=3)),
            ("lr.lr", "lr.schedule.lr", "lr.schedule.steps", "eps"),
            None,
            [np.array([0.1, 0.2]), np.array([0.1, 0.2]), np.array([20.0, 4.0]), np.full(2, 1e-7)],
        ),
        (optim.SGD(optim.step_decay(0.1, 2)), ("lr.lr",), None, [np.array([0.1, 0.2])]),
        (optim.SGD(optim.exponential(0.1, 20)), ("lr.rate",), None, [np.array([0.1, 0.2])]),
        (optim.SGD(optim.inverse_time(0.1, 9)), ("lr.decay",), None, [np.array([0.1, 0.2])]),
    )
] + [
    [optim.PerModel(rule, varied), None, np.array([1.0, 0.5]), np.asarray(np.int32(5)), np.float64,
     *settings]
    for rule, varied, settings in (
        (optim.SGD(optim.plateau(0.1)), (), []),
        (optim.Adam(optim.plateau(0.1)), ("lr.lr", "lr.patience"), [np.array([0.1, 0.2])] * 2),
    )
]  # fmt: skip


def aliased(x: Any, y: Any) -> Any:
    """What is written in place is seen by the array's other names, and not by its copy."""
    z = 2.0 * x
    alias, copy = z, +z
    z += y
    alias *= 3.0
    return z, alias, copy


def average(x: Any, y: Any) -> Any:
    """As a function of ops is called, but not that one."""
    return 0.5 * (x + y)


def clipped(x: Any, y: Any) -> Any:
    xp = ops.namespace(x)
    return xp.clip(x, -0.5, 0.5) + xp.clip(y, min=0.0)


@pytest.mark.parametrize("lines", [aliased, average, clipped], ids=lambda f: f.__name__)
def test_lines_of_your_own_are_fused_as_they_mean(
    cuda: Backend, cupy: Any, monkeypatch: pytest.MonkeyPatch, lines: Callable[..., Any]
) -> None:
    x, y = normal(5, 7), normal(5, 7)
    kernels = fresh_kernels(cuda)
    made = watch(cupy, monkeypatch)
    got = with_kernels(elementwise(lines), kernels)(cuda.asarray(x), cuda.asarray(y))
    assert made == [f"xpnet_{lines.__name__}"]
    for one, other in zip(flat(got), flat(lines(x, y)), strict=True):
        np.testing.assert_allclose(cuda.to_numpy(one), other, rtol=1e-6)


def test_a_rule_that_changes_a_dtype_is_refused(cuda: Backend) -> None:
    @dataclass(frozen=True)
    class Doubling:
        lr: float = 0.1
        slots: ClassVar[tuple[str, ...]] = ()

        def rule(self, p: Any, g: Any, lr: Any) -> tuple[Any, ...]:
            xp = ops.namespace(p)
            return (xp.astype(p, xp.float64) - xp.sum(lr * g),)

    with pytest.raises(ValueError, match=r"step returns W1 as .*float64.*; expected it as passed"):
        train(cuda, Doubling())


def flat(value: Any) -> list[Any]:
    return [v for part in value for v in flat(part)] if isinstance(value, tuple | list) else [value]


@elementwise
def with_a_sum(x: Any) -> Any:
    return 2.0 * x, ops.namespace(x).sum(x)


@dataclass(frozen=True)
class Branching:
    """An activation that says it is elementwise, and looks at a value."""

    elementwise: ClassVar[bool] = True

    def forward(self, x: Any) -> Any:
        return (x if x > 0 else -x), None


def test_what_is_not_fused_is_noted_once_and_says_whose_lines_they_are(cuda: Backend) -> None:
    from xpnet.backend.cuda.kernels import make_kernels
    from xpnet.graph.autodiff import add_bias_then

    fallbacks: list[str] = []
    kernels = make_kernels("float32", fallbacks)
    x, one = cuda.asarray(normal(3)), cuda.asarray(normal(1))
    for _ in range(2):
        assert with_kernels(with_a_sum, kernels)(x)[1].shape == ()
        with_kernels(add_bias_then, kernels)(one, one, Branching())
        p, state = {"p": x}, {"step": cuda.asarray(np.zeros((), np.int32))}
        with_kernels(optim.update, kernels)(optim.SGD(np.float64(0.1)), {"p": x}, state, p)
    assert fallbacks == [
        "with_a_sum is not fused: type object 'Functions' has no attribute 'sum'",
        "add_bias_then of Branching is not fused: it branches on a value",
        "SGD.rule is not fused: expected rates that are Python numbers or arrays, and rows of one "
        "dtype",
    ]


def test_a_loss_with_axes_is_refused(cuda: Backend) -> None:
    class Rows(losses.SquaredLoss):
        def forward(self, y: Any, t: Any, weight: Any = None) -> Any:
            loss, cache = super().forward(y, t, weight)
            return loss[None], cache

    network = xpnet.mlp([64, 10], loss=Rows())
    with pytest.raises(ValueError, match=r"the loss has shape \(1,\); expected a 0-d array"):
        xpnet.Trainer(network, backend=cuda).fit(digits().x, np.eye(10)[digits().t], epochs=1)


def test_every_marked_function_is_tested() -> None:
    marked = elementwise_functions()
    assert len(marked) >= 12
    # Only torch has an update of its own, and only NumPy squares: `test_precision` and
    # `test_numpy_kernels` hold them against the lines. Ranks are no matter of a kernel.
    others = {"optim.updating.update", "arrays.ops.squares"}
    others |= {"arrays.ranks.sum_over_ranks", "arrays.ranks.place_in_batch"}
    assert set(marked) - others == set(ARGUMENTS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_kernels_agree_with_the_lines(
    cuda: Backend, cupy: Any, monkeypatch: pytest.MonkeyPatch, name: str, dtype: str
) -> None:
    module, _, attribute = name.rpartition(".")
    function = getattr(importlib.import_module(f"xpnet.{module}"), attribute)
    made = watch(cupy, monkeypatch)
    kernels = fresh_kernels(cuda)
    made.clear()
    for arguments in ARGUMENTS[name]:

        def argument(a: Any, device: bool) -> Any:
            if isinstance(a, type):
                return getattr(cuda.xp if device else np, dtype)
            if isinstance(a, list):
                return [argument(each, device) for each in a]
            if not isinstance(a, np.ndarray):
                return a
            a = a.astype(dtype) if a.dtype.kind == "f" else a.copy()
            if not device:
                return a
            if a.ndim < 2 or a.flags.c_contiguous:
                return cuda.asarray(a)
            return cuda.asarray(np.ascontiguousarray(a.swapaxes(-1, -2))).swapaxes(-1, -2)

        with np.errstate(all="ignore"):
            expected = flat(function(*(argument(a, False) for a in arguments)))
        got = flat(with_kernels(function, kernels)(*(argument(a, True) for a in arguments)))
        eps = float(np.finfo(dtype).eps)
        for one, other in zip(got, expected, strict=True):
            if other is None:  # a hint
                continue
            other = np.asarray(other)
            if isinstance(one, cupy.ndarray):
                assert one.dtype == other.dtype if other.ndim else True
                assert one.shape == other.shape
                one = cuda.to_numpy(one)
            finite = np.abs(other[np.isfinite(other)])
            scale = max(1.0, float(finite.max(initial=0.0)))
            np.testing.assert_allclose(one, other, rtol=20 * eps, atol=20 * eps * scale)
    if name not in (
        "arrays.ops.matmul",
        "arrays.ops.add_scaled",
        "arrays.ops.at_least",
        "arrays.ops.at_most",
        "arrays.windows.spread",
        "arrays.windows.add_windows",
        "losses.classification.target_scores",  # a sum
        "optim.clipping.scaled_norm",
    ):
        # It was a kernel of ours that computed it.
        assert made, f"{name} was not fused"


def fresh_kernels(backend: Backend) -> dict[str, Any]:
    """Kernels that have compiled nothing yet."""
    from xpnet.backend.cuda.kernels import make_kernels

    return make_kernels(backend.precision, [])


def watch(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that are made from now on."""
    made: list[str] = []
    for kind in ("ElementwiseKernel", "RawKernel"):
        make = getattr(cupy, kind)
        monkeypatch.setattr(cupy, kind, lambda *a, make=make: made.append(a[-1]) or make(*a))
    return made


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((100, 784), (784, 50)),
        ((1, 5), (5, 1)),
        ((5, 1), (1, 5)),
        ((64, 3), (3, 1)),
        ((0, 3), (3, 2)),
    ],
    ids=str,
)
def test_products_in_every_layout(
    cuda: Backend, a: tuple[int, int], b: tuple[int, int], dtype: str
) -> None:
    x, y = normal(*a, dtype=dtype), normal(*b, dtype=dtype)

    def layouts(array: np.ndarray) -> Iterator[Any]:
        yield cuda.asarray(array)
        yield cuda.asarray(np.ascontiguousarray(array.T)).T
        wide = cuda.asarray(np.hstack([array, array]))
        yield wide[:, : array.shape[1]]  # rows further apart than they are long
        yield cuda.asarray(np.repeat(array, 2, axis=1))[:, ::2]  # neither rows nor columns dense

    ours, cublas = (
        with_kernels(ops.matmul, kernels)
        for kernels in (cuda.kernels, with_products(cuda.kernels, None))
    )
    exact = x.astype(np.float64) @ y
    for left in layouts(x):
        for right, matmul in itertools.product(layouts(y), (ours, cublas)):
            product = matmul(left, right)
            assert product.dtype == dtype
            tolerance = (
                {"rtol": 1e-5, "atol": 1e-4}
                if dtype == "float32"
                else {"rtol": 1e-12, "atol": 1e-11}
            )
            np.testing.assert_allclose(cuda.to_numpy(product), exact, **tolerance)


@pytest.mark.parametrize("threads", [64, 128, 256, 512])
def test_small_products(cuda: Backend, threads: int) -> None:
    """Sizes that do not fill a tile; sums that do not fit into shared memory at once."""
    from xpnet.backend.cuda.products import SmallProducts

    small, tight = SmallProducts(threads), SmallProducts(threads)
    tight._shared_bytes = threads // 4 * 4 * 65  # the least that a block needs
    for rows, terms, columns in ((1, 1, 1), (5, 3, 7), (33, 65, 9), (8, 1000, 8), (10, 784, 3)):
        x, y = normal(rows, terms), normal(terms, columns)
        exact = x.astype(np.float64) @ y
        a, b = cuda.asarray(x), cuda.asarray(y)
        turned = (cuda.asarray(np.ascontiguousarray(each.T)).T for each in (x, y))
        lefts, rights = zip((a, b), turned, strict=True)
        for left, right, multiply in itertools.product(lefts, rights, (small, tight)):
            product = multiply(left, right)
            assert product is not None
            np.testing.assert_allclose(
                cuda.to_numpy(product), exact, rtol=1e-5, atol=1e-6 * np.sqrt(terms)
            )
            again = multiply(left, right)
            np.testing.assert_array_equal(cuda.to_numpy(again), cuda.to_numpy(product))


def test_which_products_are_small(cuda: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    from xpnet.backend.cuda.products import SmallProducts, threads_for

    monkeypatch.setattr("xpnet.backend.cuda.products.MOST_OPERATIONS", 1 << 22)

    assert threads_for(100, 50, 10, 132) == 64  # rows, columns, terms
    assert threads_for(50, 10, 100, 132) == 128
    assert threads_for(100, 50, 784, 132) == 256
    assert threads_for(784, 50, 100, 132) is None  # too many tiles
    assert threads_for(128, 100, 784, 132) is None  # too many operations
    assert threads_for(100, 50, 10, 20) is None  # too small a GPU
    x = cuda.asarray(normal(20, 20))
    assert SmallProducts()(x[:, ::2], x[:10]) is None
    # What is not a number reaches the row that it belongs to, and no other one.
    holed = normal(9, 70)
    holed[8, 69] = np.nan
    product = SmallProducts()(cuda.asarray(holed), cuda.asarray(normal(70, 9)))
    assert np.isnan(cuda.to_numpy(product)).all(axis=1).tolist() == [False] * 8 + [True]


@pytest.mark.parametrize(
    ("precision", "least", "most"),
    # cuBLAS may multiply in tf32, and need not.
    [("tf32", 0.0, 1e-3), ("bfloat16", 5e-4, 6e-3), ("float16", 5e-5, 1e-3)],
)
def test_lower_precisions_round_the_operands(
    cupy: Any, precision: str, least: float, most: float
) -> None:
    backend = xpnet.select("cuda", precision=precision)
    assert f"products in {precision}" in str(backend)
    matmul = with_kernels(ops.matmul, backend.kernels)
    # Gradients are often below what float16 can hold, and regression targets above.
    for scale in (1.0, 1e-9, 1e6):
        x, y = normal(64, 200), scale * normal(200, 32)
        for left, right in ((x, y), (np.ascontiguousarray(x.T), y)):
            a, b = backend.asarray(left), backend.asarray(right)
            product = matmul(a if left is x else a.T, b)
            assert product.dtype == np.float32
            exact = x.astype(np.float64) @ y
            error = np.linalg.norm(backend.to_numpy(product) - exact) / np.linalg.norm(exact)
            assert least < error < most
    zero = matmul(backend.asarray(np.zeros((3, 4), np.float32)), backend.asarray(normal(4, 5)))
    assert not backend.to_numpy(zero).any()


# -- The batch, and the losses of a graph ------------------------------------------------


def gather_by(prepare: Any, fallbacks: list[str]) -> Any:
    from xpnet.backend.cuda.gather import Gather

    return Gather(prepare, fallbacks)


def prepared_by(cuda: Backend, dtype: str, scaling: Any = None) -> Any:
    return Feed(cuda, dtype, scaling).prepare


DATA = {
    "uint8": RNG.integers(0, 256, (50, 33)).astype(np.uint8),
    "int8": RNG.integers(-9, 9, (50, 33)).astype(np.int8),
    "bool": RNG.integers(0, 2, (50, 33)).astype(bool),
    "float32": normal(50, 33),
    "images": RNG.integers(0, 256, (50, 3, 4, 5)).astype(np.uint8),
    "single": normal(50, 1),
    "wide": normal(50, 1000),
}


@pytest.mark.parametrize("index", ["int32", "int64"])
@pytest.mark.parametrize("scaling", [None, Scaling(3.0, 0.1)], ids=["plain", "scaled"])
@pytest.mark.parametrize("name", DATA)
def test_a_batch_is_one_kernel(
    cuda: Backend, cupy: Any, monkeypatch: pytest.MonkeyPatch, name: str, scaling: Any, index: str
) -> None:
    """Rows of samples, labels and weights at once; some out of range, which wrap around."""
    arrays = (DATA[name], RNG.integers(0, 9, 50).astype(np.int32), normal(50))
    data = tuple(map(cuda.asarray, arrays))
    rows = cuda.asarray(np.array([4, 0, 49, 49, -1, 50, 7], index))
    prepare = prepared_by(cuda, "float32", scaling)
    fallbacks: list[str] = []
    made = watch(cupy, monkeypatch)
    batch = with_kernels(gather_by(prepare, fallbacks), cuda.kernels)(data, rows)
    assert made == ["xpnet_gather"]
    assert fallbacks == []
    for k, (one, other) in enumerate(zip(batch, taking(prepare)(data, rows), strict=True)):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_array_equal(cuda.to_numpy(one), cuda.to_numpy(other), err_msg=str(k))


def test_a_batch_of_what_no_kernel_takes_is_gathered_array_by_array(cuda: Backend) -> None:
    x = cuda.asarray(DATA["uint8"])
    rows = cuda.asarray(np.array([3, 1]))
    by_feature = prepared_by(cuda, "float32", Scaling(0.0, np.linspace(1, 2, 33)))
    fallbacks: list[str] = []
    (batch,) = with_kernels(gather_by(by_feature, fallbacks), cuda.kernels)((x,), rows)
    assert len(fallbacks) == 1
    assert fallbacks[0].startswith("Preparation is not fused: ")
    expected = DATA["uint8"][[3, 1]] * np.linspace(1, 2, 33).astype(np.float32)
    np.testing.assert_allclose(cuda.to_numpy(batch), expected, rtol=1e-6)
    plain = gather_by(prepared_by(cuda, "float32"), [])
    across = cuda.asarray(np.ascontiguousarray(DATA["float32"].T)).T  # columns first
    for data, index in (
        ((across,), rows), ((cuda.asarray(DATA["float32"]),), cuda.asarray(np.arange(0))),
    ):  # fmt: skip
        (batch,) = plain(data, index)
        expected = cuda.to_numpy(data[0])[cuda.to_numpy(index)]
        np.testing.assert_array_equal(cuda.to_numpy(batch), expected)


def test_samples_that_are_their_own_targets(cuda: Backend) -> None:
    """The same array twice: only the first is prepared."""
    x = cuda.asarray(DATA["uint8"])
    rows = cuda.asarray(np.array([3, 1]))
    first, second = gather_by(prepared_by(cuda, "float32"), [])((x, x), rows)
    assert (first.dtype, second.dtype) == (np.float32, np.uint8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 32, 33, 100])
def test_losses_are_put_side_by_side(cuda: Backend, count: int, dtype: str) -> None:
    from xpnet.backend.cuda.graphs import CupyGraphs

    losses = [cuda.asarray(np.asarray(i + 0.5, dtype)) for i in range(count)]
    out = cuda.asarray(np.full(count + 1, -1.0, dtype))
    CupyGraphs(0).stack(losses, out[:count])
    np.testing.assert_array_equal(cuda.to_numpy(out), [*(np.arange(count) + 0.5), -1.0])


@pytest.mark.parametrize(
    ("steps", "most", "length"),
    [(600, 32, 30), (468, 32, 26), (100, 32, 25), (31, 32, 31), (7, 4, 3), (17, 4, 4), (1, 1, 1)],
)
def test_few_steps_are_left_over(steps: int, most: int, length: int) -> None:
    from xpnet.backend.captured import _length

    assert _length(steps, most) == length


RULES = [
    optim.SGD(0.1), optim.Momentum(0.1), optim.Nesterov(0.1), optim.AdaGrad(0.1),
    optim.RMSProp(0.1), optim.Adam(0.1), optim.AdamW(0.1, 0.1), optim.Adam(optim.cosine(0.1, 9)),
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_an_update_of_all_parameters_is_one_kernel(
    cuda: Backend, cupy: Any, monkeypatch: pytest.MonkeyPatch, rule: Any
) -> None:
    made = watch(cupy, monkeypatch)
    # 300 parameters: more than go into one kernel; sizes that no block divides, one of nothing.
    params = {f"p{i}": normal(*((i, 3) if i % 2 else (i,))) for i in range(300)}
    grads = {name: normal(*p.shape) for name, p in params.items()}
    results = []
    for backend in (xpnet.select("cpu"), cuda):
        p = {name: backend.asarray(a.copy()) for name, a in params.items()}
        g = {name: backend.asarray(a.copy()) for name, a in grads.items()}
        state = optim.init(rule, p)
        before = dict(p)
        kernels = fresh_kernels(backend) if backend is cuda else backend.kernels
        update = with_kernels(optim.update, kernels)
        for _ in range(3):
            p, state = update(rule, g, state, p)
        assert all(p[name] is before[name] for name in p)  # written in place
        results.append({k: backend.to_numpy(v) for k, v in {**p, **state}.items()})
    assert 2 <= made.count("xpnet_update") <= 4  # of a hundred parameters or so each
    for name, expected in results[0].items():
        np.testing.assert_allclose(results[1][name], expected, rtol=3e-5, atol=3e-6, err_msg=name)


@dataclass(frozen=True)
class Elsewhere:
    """A rule that is elementwise, but for parameters without axes."""

    lr: float = 0.1
    slots: ClassVar[tuple[str, ...]] = ()

    def rule(self, p: Any, g: Any, lr: Any) -> tuple[Any, ...]:
        if p.ndim == 0:
            p -= lr * ops.namespace(g).sum(g)
            return (p,)
        return (ops.add_scaled(p, g, -lr),)


def test_an_update_is_fused_for_all_parameters_or_for_none(cuda: Backend) -> None:
    params = {f"p{i}": np.zeros(2, np.float32) for i in range(200)}
    params["last"] = np.zeros((), np.float32)
    grads = {name: np.ones_like(p) for name, p in params.items()}
    moved = [{k: cuda.asarray(v) for k, v in each.items()} for each in (params, grads)]
    state = {"step": cuda.asarray(np.zeros((), np.int32))}
    new, _ = with_kernels(optim.update, cuda.kernels)(Elsewhere(), moved[1], state, moved[0])
    for name, p in new.items():
        np.testing.assert_allclose(cuda.to_numpy(p), -0.1, rtol=1e-6, err_msg=name)


class Rates(NamedTuple):
    rate: Any


@dataclass(frozen=True)
class Odd:
    """A rule whose rates are not plain numbers and arrays."""

    form: str
    lr: float = 0.1
    slots: ClassVar[tuple[str, ...]] = ()

    def rates(self, lr: Any, step: Any) -> Any:
        forms = {"named": Rates(lr), "dict": {"rate": lr}, "none": (lr, None), "text": (lr, "x")}
        return forms[self.form]

    def rule(self, p: Any, g: Any, rates: Any) -> tuple[Any, ...]:
        match self.form:
            case "named":
                lr = rates.rate
            case "dict":
                lr = rates["rate"]
            case _:
                lr = rates[0] if rates[1] in (None, "x") else 1e9
        return (ops.add_scaled(p, g, -lr),)


@pytest.mark.parametrize("form", ["named", "dict", "none", "text"])
def test_rates_of_any_form(cuda: Backend, form: str) -> None:
    expected = train(xpnet.select("cpu"), Odd(form), epochs=1).losses
    np.testing.assert_allclose(train(cuda, Odd(form), epochs=1).losses, expected, rtol=1e-4)


@dataclass(frozen=True)
class Centred:
    """A rule that is not elementwise: it subtracts the gradient's mean."""

    lr: float = 0.1
    slots: ClassVar[tuple[str, ...]] = ()

    def rule(self, p: Any, g: Any, lr: Any) -> tuple[Any, ...]:
        p -= lr * (g - ops.namespace(g).mean(g))
        return (p,)


def test_a_schedule_of_another_dtype_is_not_taken_for_the_parameters_own(cuda: Backend) -> None:
    """Of two numbers `where` makes float64: a kernel that reads it as float32 reads something."""

    def schedule(k: Any) -> Any:
        return ops.namespace(k).where(k < 5, 0.5, 0.05)

    rule = optim.SGD(schedule)
    expected = train(xpnet.select("cpu"), rule).losses
    np.testing.assert_allclose(train(cuda, rule).losses, expected, rtol=1e-4)


def test_a_rule_that_cannot_be_fused_runs_as_it_is(cuda: Backend) -> None:
    p, g = normal(4, 3), normal(4, 3)
    update = with_kernels(optim.update, cuda.kernels)
    params = {"W": cuda.asarray(p.copy())}
    new, _ = update(
        Centred(), {"W": cuda.asarray(g)}, {"step": cuda.asarray(np.zeros((), np.int32))}, params
    )
    np.testing.assert_allclose(cuda.to_numpy(new["W"]), p - 0.1 * (g - g.mean()), rtol=1e-5)


# -- Captured graphs -------------------------------------------------------------------


def digits() -> Any:
    return xpnet.datasets.load("digits")[0]


def train(backend: Backend, optimizer: Any = None, epochs: int = 2, **options: Any) -> Any:
    data = digits()
    size = options.pop("batch_size", 100)
    trainer = xpnet.Trainer(
        xpnet.mlp([64, 30, 10], **options),
        optimizer or optim.Adam(optim.cosine(0.02, 40)),
        backend=backend,
        scaling=data.scaling,
    )
    history = trainer.fit(data.x, data.t, epochs=epochs, batch_size=size)
    return SimpleNamespace(
        losses=np.array(history.losses),
        params={name: backend.to_numpy(p) for name, p in trainer.params.items()},
        trainer=trainer,
    )


@pytest.mark.parametrize("length", [1, 4, 100])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_a_replayed_graph_computes_what_the_loop_does(
    cuda: Backend, monkeypatch: pytest.MonkeyPatch, length: int, dropout: float
) -> None:
    """To the bit: warm-up leaves no trace, nothing is frozen that should change."""
    monkeypatch.setattr("xpnet.backend.captured.LONGEST", length)
    monkeypatch.setattr("xpnet.backend.captured.CHUNK_SECONDS", 10.0)
    looped = train(uncaptured(cuda), dropout=dropout)
    replayed = train(cuda, dropout=dropout)
    np.testing.assert_array_equal(replayed.losses, looped.losses)
    for name, p in looped.params.items():
        np.testing.assert_array_equal(replayed.params[name], p)
    on_the_cpu = train(xpnet.select("cpu"), dropout=dropout)
    np.testing.assert_allclose(replayed.losses, on_the_cpu.losses, rtol=1e-3)
    assert replayed.losses[-1] < 0.5 * replayed.losses[0]


def test_every_batch_size_has_its_graph(cuda: Backend) -> None:
    trainer = train(cuda, epochs=1, batch_size=100).trainer
    looped = train(uncaptured(cuda), epochs=1, batch_size=100).trainer
    data = digits()
    for size in (64, 100, 33):
        one, other = (
            t.fit(data.x[:500], data.t[:500], epochs=1, batch_size=size).losses
            for t in (trainer, looped)
        )
        assert one == other


def test_a_short_run_does_not_keep_later_graphs_short(
    cuda: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a run goes on in the middle of an epoch."""
    monkeypatch.setattr("xpnet.backend.captured.CHUNK_SECONDS", 10.0)
    made: list[int] = []
    from xpnet.backend import captured

    record = captured._record
    monkeypatch.setattr(captured, "_record", lambda *a: made.append(record(*a)) or made[-1])
    trainer = train(cuda, epochs=1).trainer
    data = (trainer.feed.samples(digits().x), cuda.asarray(digits().t.astype(np.int32)))
    made.clear()
    for steps in (2, 17, 5, 17):
        order = cuda.asarray(np.arange(100 * steps).reshape(steps, 100))
        list(trainer.run(trainer.params, trainer.state, data, order))
    assert [recording.length for recording in made] == [2, 17]


def test_data_that_lies_otherwise_has_a_graph_of_its_own(cuda: Backend, cupy: Any) -> None:
    """At the same address, in the same shape: rows first or columns first."""
    trainer = train(cuda, epochs=1).trainer
    looped = train(uncaptured(cuda), epochs=1).trainer
    memory = cuda.asarray(normal(64 * 64))
    t = cuda.asarray(RNG.integers(0, 10, 64).astype(np.int32))
    order = cuda.asarray(RNG.permutation(64).reshape(4, 16))
    for x in (memory.reshape(64, 64), memory.reshape(64, 64).T):
        losses = [
            np.concatenate(
                [
                    cuda.to_numpy(chunk)
                    for *_, chunk in each.run(each.params, each.state, (x, t), order)
                ]
            )
            for each in (trainer, looped)
        ]
        np.testing.assert_array_equal(losses[0], losses[1])


def test_parameters_that_were_put_in_anew_are_trained(cuda: Backend) -> None:
    """The graph knows addresses; what a checkpoint brings lies elsewhere."""
    results = []
    for backend in (cuda, uncaptured(cuda)):
        trained = train(backend)
        trained.trainer.params = trained.trainer.feed.copies(trained.trainer.network.params)
        data = digits()
        again = trained.trainer.fit(data.x, data.t, epochs=1, batch_size=100)
        results.append(again.losses)
    assert results[0] == results[1]
    assert results[0][0] > 2.0  # from the first weights


@dataclass(frozen=True)
class Replacing:
    """A rule that writes nothing in place, and hands its old parameter on as a slot."""

    lr: float = 0.1
    slots: ClassVar[tuple[str, ...]] = ("before",)

    def rule(self, p: Any, g: Any, lr: Any, before: Any) -> tuple[Any, ...]:
        return p - lr * g + 0.01 * (p - before) * (before != 0.0), p


def test_a_step_that_returns_new_arrays_is_captured_too(cuda: Backend) -> None:
    plain = changed(cuda, kernels={k: v for k, v in cuda.kernels.items() if k != "for_each"})
    one, other = train(cuda, Replacing()), train(uncaptured(plain), Replacing())
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-4)


def masked(x: Any) -> Any:
    y = +x
    y[y < -1e30] = 0.0
    return y


# By the rows of the table in docs/gpu.md.
BREACHES: list[list[Callable[[Any], Any]]] = [
    [
        lambda x: x * float(ops.namespace(x).isfinite(x).all()),
        lambda x: x * ops.namespace(x).max(x).item() ** 0,
        lambda x: x if ops.namespace(x).any(x > -1e30) else -x,
    ],
    [masked, lambda x: x + 0.0 * x[x > 0][:1], lambda x: x + 0.0 * len(x.nonzero()[0])],
    [
        lambda x: x * ops.namespace(x).asarray([1.0], dtype=x.dtype),
        lambda x: ops.namespace(x).stack([x] * 9, axis=1)[:, 0],
    ],
    [
        lambda x: x + 0.0 * (x @ x.T)[:, :1],
        lambda x: x + 0.0 * ops.namespace(x).matmul(x, x.T)[:, :1],
    ],
]


@pytest.mark.parametrize(("row", "breach"), [(i, b) for i, row in enumerate(BREACHES) for b in row])
def test_a_step_that_cannot_be_captured_is_looped_over_with_a_reason(
    cuda: Backend, row: int, breach: Callable[[Any], Any]
) -> None:
    class Mine(xpnet.layers.Identity):
        def forward(self, x: Any) -> Any:
            return breach(x), None

    graph = xpnet.Graph()
    inputs = graph.inputs("x t W b")
    y = graph.apply(Mine(), graph.apply(xpnet.layers.Affine(), inputs[0], *inputs[2:]))
    params = {"W": normal(64, 10, dtype="float64") * 0.1, "b": np.zeros(10)}
    loss = graph.apply(losses.SoftmaxWithLoss(), y, inputs[1])
    network = xpnet.Network(graph, params, scores=y, loss=loss, outputs=10)
    data = digits()
    x, t = data.x.astype(np.float32) / 16, data.t
    trainer = xpnet.Trainer(network, optim.SGD(0.1), backend=cuda)
    written = rows_of("in `forward` or `backward`")
    assert len(written) == len(BREACHES)
    with pytest.warns(
        NotCapturedWarning, match="capture this step into a CUDA graph: Mine1"
    ) as caught:
        first = trainer.fit(x, t, epochs=1)
    assert written[row][-1] in str(caught[0].message)
    assert str(caught[0].message).split(": ")[1] in cuda.fallbacks[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        second = trainer.fit(x, t, epochs=1)
    assert second.losses[-1] < first.losses[0]


def test_nothing_waits_for_the_host_within_an_epoch(
    cuda: Backend, simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xpnet.backend.captured.LONGEST", 4)
    monkeypatch.setattr("xpnet.backend.captured.CHUNK_SECONDS", 10.0)
    trained = train(cuda)  # captures
    data = digits()
    feed = trained.trainer.feed
    arrays = (feed.samples(data.x), cuda.asarray(data.t.astype(np.int32)))
    order = cuda.asarray(RNG.permutation(1700).reshape(17, 100))
    trainer = trained.trainer
    list(trainer.run(trainer.params, trainer.state, arrays, order))  # of these arrays
    simulator.reset()
    chunks = list(trainer.run(trainer.params, trainer.state, arrays, order))
    assert sum(len(cuda.to_numpy(losses)) for *_, losses in chunks) == 17
    launched = 4 + 1  # four times four steps, and one alone
    assert simulator.graph_launches == launched
    assert simulator.uploads == 0
    # The losses, read once; and a mark for each graph that is two launches behind.
    assert simulator.syncs <= 1 + launched - 2


def test_the_kernels_of_a_step(cuda: Backend, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a microsecond or more, whatever it does: this is what a small step takes."""
    from xpnet.backend.cuda.graphs import CupyGraphs

    graphs: list[Any] = []
    capture = CupyGraphs.capture

    def kept(self: CupyGraphs, work: Any) -> Any:
        launch: Any = capture(self, work)
        graphs.append(launch.__self__)
        return launch

    monkeypatch.setattr(CupyGraphs, "capture", kept)
    unfused = captured_by(CupyGraphs(0), cuda, fused=False)
    x = RNG.integers(0, 256, (100, 784)).astype(np.uint8)
    # `test_cuda_many` counts those of networks that train together.
    table = [row for row in rows_of("network") if "networks of" not in row[0]]
    assert len(table) == 4
    for network, optimizer, *counts in table:
        sizes = [int(n) for n in network.removesuffix(", sigmoid").split("-")]
        for backend, count in zip((unfused, cuda), counts, strict=True):
            rule = {"SGD": optim.SGD(0.1), "Adam": optim.Adam()}[optimizer]
            trainer = xpnet.Trainer(xpnet.mlp(sizes, "sigmoid"), rule, backend=backend)
            graphs.clear()
            trainer.fit(x, np.arange(100) % 10, epochs=1, batch_size=100)
            nodes = nodes_by_type(graphs[0].debug_dot_str(VERBOSE))
            # cuBLAS may cut the sum of a product into parts, and add them up by one more kernel.
            more = 0 if hasattr(cupy, "simulator") else len(products_of(sizes, 100))
            assert "Unknown" not in nodes, (network, optimizer, nodes)
            assert 0 <= sum(nodes.values()) - int(count) <= more, (network, optimizer, nodes)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
def test_training_in_a_lower_precision_learns_as_much(cuda: Backend, precision: str) -> None:
    lower = train(xpnet.select("cuda", precision=precision), epochs=8)
    full = train(cuda, epochs=8)
    data = digits()
    if precision != "tf32":  # which cuBLAS may leave unused
        assert not np.array_equal(lower.losses, full.losses)
    assert all(p.dtype == np.float32 for p in lower.params.values())
    scores = [t.trainer.evaluate(data.x, data.t)["accuracy"] for t in (lower, full)]
    assert abs(scores[0] - scores[1]) < 0.01
    assert min(scores) > 0.9


# -- Data that does not fit, memory that is used up ------------------------------------


def test_a_file_is_streamed_through_two_halves(
    cuda: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = digits()
    np.save(tmp_path / "x.npy", data.x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    monkeypatch.setattr("xpnet.data.loader.SHARD_BYTES", 64 * 500)
    results = []
    for x in (data.x, mapped):
        trainer = xpnet.Trainer(
            xpnet.mlp([64, 30, 10]), optim.SGD(0.1), backend=cuda, scaling=data.scaling
        )
        history = trainer.fit(x, data.t, epochs=3, batch_size=100, sample_weight=1.0 + data.t)
        results.append(np.array(history.losses))
    np.testing.assert_array_equal(results[0], results[1])


def test_an_error_while_reading_ahead_reaches_the_caller(
    cuda: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal(1000, 4, dtype="float64")
    x[900, 1] = 1e300
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setattr("xpnet.data.loader.SHARD_BYTES", 8 * 4 * 100)
    trainer = xpnet.Trainer(xpnet.mlp([4, 3, 2]), backend=cuda, scaling=None)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    with pytest.raises(ValueError, match="too large for float32"):
        trainer.fit(mapped, np.arange(1000) % 2, epochs=1, batch_size=20)


def test_data_that_does_not_fit_stays_on_the_host(
    cuda: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = digits()
    resident = train(cuda).losses
    small = changed(cuda, free_memory=lambda: data.x.nbytes)
    with pytest.warns(RuntimeWarning, match="it stays on the host and is sent in shards"):
        streamed = train(small).losses
    np.testing.assert_array_equal(streamed, resident)


def test_memory_that_is_used_up_is_explained(cuda: Backend, simulator: Any) -> None:
    x, t = normal(200, 64), RNG.integers(0, 10, 200)
    trainer = xpnet.Trainer(xpnet.mlp([64, 30_000, 10]), backend=cuda)
    gc.collect()  # what others have left would make room
    before = simulator.memory
    used = before - cuda.free_memory()
    try:
        simulator.memory = used + 20_000_000
        with pytest.raises(
            DeviceError,
            match=r"cuda:0 is out of memory: [\d.]+ MiB more are needed, [\d.]+ MiB of 80.0 GiB "
            "are free; lower the batch size or the width of the layers",
        ):
            trainer.fit(x, t, epochs=1, batch_size=200)
    finally:
        simulator.memory = before
    assert trainer.fit(x, t, epochs=1, batch_size=200).losses  # and it is usable again


def test_memory_that_is_used_up_while_sending_is_explained(
    cuda: Backend, simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, t = normal(4000, 1000), RNG.integers(0, 10, 4000)
    small = changed(cuda, free_memory=lambda: 1)
    trainer = xpnet.Trainer(xpnet.mlp([1000, 10]), backend=small)
    gc.collect()
    before = simulator.memory
    try:
        simulator.memory = before - cuda.free_memory() + 1_000_000
        with (
            pytest.warns(RuntimeWarning, match="sent in shards"),
            pytest.raises(DeviceError, match="cuda:0 is out of memory"),
        ):
            trainer.fit(x, t, epochs=1, batch_size=200)
    finally:
        simulator.memory = before


@pytest.mark.parametrize(
    ("capability", "precision"), [("75", "tf32"), ("75", "bfloat16"), ("61", "float16")]
)
def test_a_gpu_without_instructions_for_it(simulator: Any, capability: str, precision: str) -> None:
    before = simulator.compute_capability
    try:
        simulator.compute_capability = capability
        with pytest.raises(DeviceError, match=f"cuda:0 has no instructions for {precision}"):
            xpnet.select("cuda", precision=precision)
    finally:
        simulator.compute_capability = before


# -- The command line ------------------------------------------------------------------


@pytest.mark.filterwarnings("always::xpnet.errors.NotCapturedWarning")
def test_the_command_line_says_what_ran_slower_than_it_could(
    cupy: Any, in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from xpnet.backend import captured
    from xpnet.commands import train as command

    def refuse(*args: Any) -> Any:
        raise captured.NotCapturedError("no graphs today")

    monkeypatch.setattr(captured, "_record", refuse)
    words = ["--device", "cuda", "--out", "run", "--hidden", "50", "--epochs", "2"]
    assert command.main(words) == 0
    printed = capsys.readouterr()
    assert "no graphs today; it runs in the plain loop: slower, same results" in printed.err
    said = [line for line in printed.out.splitlines() if line.startswith("slower")]
    assert said == [
        "slower    the step is not captured into a CUDA graph: no graphs today (docs/gpu.md)"
    ]


def test_the_command_line_on_the_gpu(
    cupy: Any, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from xpnet.commands import predict
    from xpnet.commands import train as command

    words = ["--device", "cuda", "--out", "run", "--hidden", "50", "--seed", "1"]
    assert command.main([*words, "--epochs", "3", "--precision", "bfloat16"]) == 0
    assert "products in bfloat16" in capsys.readouterr().out
    assert command.main(["--resume", "run", "--epochs", "5"]) == 0
    assert '"device": "cuda:0"' in (in_tmp / "run/summary.json").read_text()
    np.save("x.npy", digits().x[:5])
    assert predict.main(["run/model.npz", "x.npy", "--device", "cuda"]) == 0
