"""What a backend does in place of our own lines during a step, and what that costs in digits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from conftest import usable_cupy

import xpnet
from xpnet import optim
from xpnet.arrays import augmentation, convolution, ops, windows
from xpnet.arrays.dispatch import with_kernels
from xpnet.backend import Backend, cpu
from xpnet.errors import DeviceError, UsageError
from xpnet.layers import activations
from xpnet.losses import classification, samples
from xpnet.optim import clipping

SHAPES = [(3, 4), (100, 50), (300, 10), (257, 1)]


@pytest.fixture(
    params=["numpy", "strict", "torch", "jax", pytest.param("cupy", marks=pytest.mark.gpu)]
)
def single(request: pytest.FixtureRequest) -> Backend:
    """Each backend in float32."""
    return opened(request.param)


def opened(name: str, precision: str = "float32") -> Backend:
    package = "array_api_strict" if name == "strict" else name
    if name == "cupy":
        usable_cupy()
    pytest.importorskip(package, reason=f"{package} is not installed")
    return xpnet.select("cuda" if name == "cupy" else "cpu", name, precision=precision)


def plain(name: str, *args: Any) -> Any:
    return getattr(ops, name)(*args)


def offered(backend: Backend, name: str, *args: Any) -> Any:
    return with_kernels(getattr(ops, name), backend.kernels)(*args)


def arrays(backend: Backend, *shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [backend.asarray(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]


def test_every_kernel_stands_for_a_function(single: Backend) -> None:
    """A kernel of a misspelt name would never be called."""
    replaceable = {
        name
        for module in (
            ops,
            clipping,
            windows,
            convolution,
            augmentation,
            classification,
            samples,
            activations,
        )
        for name, value in vars(module).items()
        if hasattr(value, "__wrapped__")
    }
    found = set(single.kernels) - {"elementwise", "for_each", "update"}  # see `with_kernels`
    assert found <= replaceable


SCHEDULE = optim.cosine(0.1, 9, warmup=2)


@pytest.mark.parametrize("lr", [0.1, SCHEDULE], ids=["number", "schedule"])
@pytest.mark.parametrize(
    "rule",
    [
        optim.SGD, optim.Momentum, optim.Nesterov, optim.AdaGrad, optim.RMSProp, optim.Adam,
        partial(optim.AdamW, weight_decay=0.3),
    ],
    ids=str,
)  # fmt: skip
def test_an_update_of_all_parameters_at_once_is_the_lines(rule: Any, lr: Any) -> None:
    """PyTorch's fused kernels and lists of arrays, against the rules' lines on NumPy."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng, optimizer = np.random.default_rng(0), rule(lr)
    shapes = {"W": (300, 7), "b": (7,), "scale": (), "V": (7, 3)}
    params = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    grads = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    results = []
    for backend in (xpnet.select("cpu"), xpnet.select("cpu", "torch")):
        p = {name: backend.asarray(np.array(a)) for name, a in params.items()}
        g = {name: backend.asarray(np.array(a)) for name, a in grads.items()}
        if backend.library == "torch":  # as some products lie
            g["W"] = g["W"].T.contiguous().T
        state = optim.init(optimizer, p)
        before = dict(p)
        for _ in range(5):
            p, state = with_kernels(optim.update, backend.kernels)(optimizer, g, state, p)
        assert all(p[name] is before[name] for name in p)  # written in place
        results.append({k: backend.to_numpy(v) for k, v in {**p, **state}.items()})
        if backend.library == "torch":
            assert torch.equal(g["W"], torch.from_numpy(grads["W"]))  # only read
    for name, expected in results[0].items():
        np.testing.assert_allclose(results[1][name], expected, rtol=1e-13, atol=1e-14, err_msg=name)


def test_a_rule_of_ones_own_is_asked_for_each_parameter() -> None:
    """It may do with a parameter what a list of them cannot."""
    torch = pytest.importorskip("torch", reason="torch is not installed")

    class Mine(optim.SGD):
        def rule(self, p: Any, g: Any, lr: Any) -> tuple[Any, ...]:
            p -= lr * g / torch.linalg.norm(g)
            return (p,)

    params = {"W": torch.zeros(3, 2), "b": torch.zeros(2)}
    grads = {"W": torch.ones(3, 2), "b": torch.ones(2)}
    kernels = xpnet.select("cpu", "torch").kernels
    state = optim.init(Mine(0.1), params)
    new, state = with_kernels(optim.update, kernels)(Mine(0.1), grads, state, params)
    np.testing.assert_allclose(new["W"], -0.1 / 6**0.5, rtol=1e-6)
    np.testing.assert_allclose(new["b"], -0.1 / 2**0.5, rtol=1e-6)
    assert int(state["step"]) == 1


def test_a_gradient_of_another_dtype_is_left_to_the_lines() -> None:
    """Before anything is written: the fused kernels would fail half-way."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    params = {"W": torch.ones(3, 2), "b": torch.ones(2)}
    grads = {"W": torch.ones(3, 2, dtype=torch.float64), "b": torch.ones(2)}
    kernels = xpnet.select("cpu", "torch").kernels
    state = optim.init(optim.Adam(0.1), params)
    new, state = with_kernels(optim.update, kernels)(optim.Adam(0.1), grads, state, params)
    np.testing.assert_allclose(new["W"], 0.9, rtol=1e-5)
    assert int(state["step"]) == 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_agree_with_the_plain_lines(single: Backend, shape: tuple[int, int]) -> None:
    x, b, W = arrays(single, shape, shape, (shape[1], 10))
    close: Callable[..., None] = np.testing.assert_allclose
    read = single.to_numpy
    exact = 1 / (1 + np.exp(-read(x).astype(np.float64)))
    close(read(offered(single, "sigmoid", x)), exact, rtol=3e-6)
    close(read(plain("sigmoid", x)), exact, rtol=3e-6)
    for left, right in ((x, W), (x.T, b), (b, x.T)):
        close(
            read(offered(single, "matmul", left, right)),
            read(left).astype(np.float64) @ read(right),
            rtol=1e-5,
            atol=1e-4,
        )
    for name in ("sigmoid", "tanh", "relu"):
        function = getattr(activations, f"{name}_backward")
        y = offered(single, "sigmoid", x) if name == "sigmoid" else x
        found = with_kernels(function, single.kernels)(y, b)
        close(read(found), function(read(y), read(b)), rtol=1e-5, atol=1e-6)
    factors = [-0.25, arrays(single, ())[0]]
    for factor in factors:
        number = factor if isinstance(factor, float) else float(read(factor))
        expected = read(b) + np.float32(number) * read(x)
        _, y = arrays(single, shape, shape)  # another one: it is written to
        close(read(offered(single, "add_scaled", y, x, factor)), expected, rtol=1e-5, atol=1e-6)


def test_kernels_last_as_long_as_the_step() -> None:
    seen = []
    step = with_kernels(lambda: seen.append(ops.sigmoid(0.0)), {"sigmoid": lambda x: "theirs"})
    step()
    assert seen == ["theirs"]
    assert float(ops.sigmoid(np.zeros(()))) == 0.5

    def fail() -> None:
        raise KeyError("in the step")

    with pytest.raises(KeyError):
        with_kernels(fail, {"sigmoid": lambda x: "theirs"})()
    assert float(ops.sigmoid(np.zeros(()))) == 0.5


def needs_bfloat16() -> None:
    if not cpu.multiplies_bfloat16():
        pytest.skip("this processor has no instructions for bfloat16")


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_bfloat16_products_keep_eight_bits_and_float32_results(name: str) -> None:
    needs_bfloat16()
    backend = opened(name, "bfloat16")
    assert "products in bfloat16" in str(backend)
    x, W = arrays(backend, (64, 128), (128, 32))
    y = offered(backend, "matmul", x, W)
    assert y.dtype == x.dtype
    exact = backend.to_numpy(x).astype(np.float64) @ backend.to_numpy(W)
    error = np.linalg.norm(backend.to_numpy(y) - exact) / np.linalg.norm(exact)
    # Rounded to 8 bits: about 2^-9 each; in float32 it would be 1e-7.
    assert 2e-4 < error < 6e-3


def float16_products(name: str) -> tuple[Backend, Callable[..., Any]]:
    backend = opened(name)
    if name == "torch":
        from xpnet.backend.torch import _matmul_float16

        return backend, _matmul_float16
    import jax.numpy as jnp

    from xpnet.backend.jax import _matmul_16

    return backend, partial(_matmul_16, jnp.float16)


@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e6])
def test_float16_products_stay_in_range(name: str, scale: float) -> None:
    """On the CPU, where `select` does not offer them: gradients are small, targets may be large."""
    backend, multiply = float16_products(name)
    x, W = arrays(backend, (64, 300), (300, 32))
    y = multiply(x, W * scale)
    assert y.dtype == x.dtype
    exact = backend.to_numpy(x).astype(np.float64) @ backend.to_numpy(W) * scale
    error = np.linalg.norm(backend.to_numpy(y) - exact) / np.linalg.norm(exact)
    assert 5e-5 < error < 1e-3
    zeros = multiply(x * 0.0, W)
    assert not backend.to_numpy(zeros).any()


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_float16_scales_each_matrix_of_a_stack_by_itself(name: str) -> None:
    """So a model that diverges leaves the others as they are."""
    backend, multiply = float16_products(name)
    rng = np.random.default_rng(0)
    scales = np.array([1.0, 1e-9, 1e6, np.nan], np.float32)[:, None, None]
    for x, y in (((20, 90), (4, 90, 7)), ((4, 20, 90), (4, 90, 7))):
        a = rng.standard_normal(x).astype(np.float32)
        b = scales * rng.standard_normal(y).astype(np.float32)
        product = backend.to_numpy(multiply(backend.asarray(a), backend.asarray(b)))
        exact = a.astype(np.float64) @ b
        for k in range(3):
            np.testing.assert_allclose(product[k], exact[k], atol=2e-2 * float(scales[k, 0, 0]))
        assert np.isnan(product[3]).all()


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_training_in_bfloat16_learns_as_much(name: str) -> None:
    needs_bfloat16()
    data, _ = xpnet.datasets.load("digits")
    histories = []
    for precision in ("float32", "bfloat16"):
        trainer = xpnet.Trainer(
            xpnet.mlp([64, 50, 10], seed=0),
            optim.Adam(0.005),
            backend=opened(name, precision),
            scaling=data.scaling,
        )
        history = trainer.fit(data.x, data.t, epochs=10, batch_size=50)
        assert all(p.dtype == trainer.backend.xp.float32 for p in trainer.params.values())
        histories.append(history)
    full, lower = (history.epochs[-1] for history in histories)
    assert lower.train_loss != full.train_loss
    assert abs(lower.train_score - full.train_score) < 0.01
    assert lower.train_score > 0.97


@pytest.mark.parametrize(
    ("library", "arguments", "error", "message"),
    [
        ("numpy", {"precision": "bfloat16"}, UsageError, "numpy has no products in bfloat16: use"),
        ("strict", {"precision": "bfloat16"}, UsageError, "strict has no products in bfloat16"),
        (
            "numpy",
            {"precision": "tf32"},
            UsageError,
            "precision tf32 is for GPUs: use device cuda",
        ),
        ("torch", {"precision": "float16"}, UsageError, "precision float16 is for GPUs: use"),
        (None, {"precision": "half"}, UsageError, "precision 'half': expected one of float32, t"),
        (
            "torch",
            {"precision": "bfloat16", "dtype": "float64"},
            UsageError,
            "precision bfloat16 keeps weights in float32; got dtype float64",
        ),
    ],
)
def test_a_precision_that_cannot_be(
    library: str | None, arguments: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        xpnet.select("cpu", library, **arguments)  # type: ignore[arg-type]


def test_a_processor_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpnet.backend.select.multiplies_bfloat16", lambda: False)
    with pytest.raises(DeviceError, match="this processor has no instructions for it"):
        xpnet.select("cpu", "torch", precision="bfloat16")


def test_the_command_line_trains_in_bfloat16(
    in_tmp: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from xpnet.commands import train

    needs_bfloat16()
    pytest.importorskip("torch", reason="torch is not installed")
    words = ["--precision", "bfloat16", "--epochs", "2", "--out", "run"]
    assert train.main([*words, "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "numpy has no products in bfloat16: use backend torch or jax" in said
    assert not (in_tmp / "run").exists()
    assert train.main([*words, "--backend", "torch"]) == 0
    assert "products in bfloat16" in capsys.readouterr().out
    assert 'precision = "bfloat16"' in (in_tmp / "run/config.toml").read_text()


def test_torch_gets_weights_that_begin_with_a_cache_line() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    backend = opened("torch")
    space = np.zeros(1000 + 16, np.float32)
    for offset in range(16):
        assert backend.asarray(space[offset : offset + 1000]).data_ptr() % 64 == 0
