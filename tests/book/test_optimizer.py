"""The book's optimizers: traces by plain Python, arrays that stay the same objects, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import Library, open_library

from xpnet.book import optimizer

RNG = np.random.default_rng(0)
Trace = Iterator[float]


def sgd(x: float, slope: Callable[[float], float], lr: float) -> Trace:
    while True:
        x = x - lr * slope(x)
        yield x


def momentum(x: float, slope: Callable[[float], float], lr: float, mu: float = 0.9) -> Trace:
    v = 0.0
    while True:
        v = mu * v - lr * slope(x)
        x = x + v
        yield x


def nesterov(x: float, slope: Callable[[float], float], lr: float, mu: float = 0.9) -> Trace:
    """Sutskever's form: the gradient is taken where the velocity leads; x is that place."""
    v, base = 0.0, x
    while True:
        v = mu * v - lr * slope(base + mu * v)
        base = base + v
        yield base + mu * v


def adagrad(x: float, slope: Callable[[float], float], lr: float) -> Trace:
    h = 0.0
    while True:
        g = slope(x)
        h = h + g**2
        x = x - lr * g / (math.sqrt(h) + 1e-7)
        yield x


def rmsprop(x: float, slope: Callable[[float], float], lr: float, rho: float = 0.99) -> Trace:
    h = 0.0
    while True:
        g = slope(x)
        h = rho * h + (1 - rho) * g**2
        x = x - lr * g / (math.sqrt(h) + 1e-7)
        yield x


def adam(
    x: float, slope: Callable[[float], float], lr: float, b1: float = 0.9, b2: float = 0.999
) -> Trace:
    m, v, k = 0.0, 0.0, 0
    while True:
        k, g = k + 1, slope(x)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        x = x - lr * math.sqrt(1 - b2**k) / (1 - b1**k) * m / (math.sqrt(v) + 1e-7)
        yield x


# The rates of the book's comparison in chapter 6, where it has one.
CASES: dict[str, tuple[Callable[..., Trace], list[dict[str, float]]]] = {
    "SGD": (sgd, [{"lr": 0.95}]),
    "Momentum": (momentum, [{"lr": 0.1}, {"lr": 0.05, "momentum": 0.5}]),
    "Nesterov": (nesterov, [{"lr": 0.1}, {"lr": 0.05, "momentum": 0.5}]),
    "AdaGrad": (adagrad, [{"lr": 1.5}]),
    "RMSprop": (rmsprop, [{"lr": 0.3}, {"lr": 0.1, "decay_rate": 0.9}]),
    "Adam": (adam, [{"lr": 0.3}, {"lr": 1e-9, "beta1": 0.5, "beta2": 0.9}]),
}
SLOPES: dict[str, Callable[[Any], Any]] = {"x": lambda x: x / 10.0, "y": lambda y: 2.0 * y}
START = {"x": -7.0, "y": 2.0}
SHAPES = {"W1": (4, 3), "b1": (3,), "scale": ()}

ENDS = [
    ("SGD", {"lr": 0.95}, -0.3503929957523197, 0.0847823165504322),
    ("Momentum", {"lr": 0.1}, 0.896413858493733, 0.08808560171506971),
    ("Nesterov", {"lr": 0.1}, 0.6896149016966209, -0.0006799058361171969),
    ("AdaGrad", {"lr": 1.5}, -0.12016232231416045, 2.486389893984459e-17),
    ("RMSprop", {"lr": 0.3}, -5.351327040428192e-06, 1.5085100037516103e-11),
    ("Adam", {"lr": 0.3}, 0.13600685239498186, 0.31824537553721943),
]


def made(name: str, **settings: float) -> Any:
    return getattr(optimizer, name)(**settings)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", [float, np.float64, np.array], ids=["float", "float64", "array"])
def test_thirty_steps_down_x2_over_20_plus_y2(name: str, kind: Any) -> None:
    formula, cases = CASES[name]
    for settings in cases:
        rule, params = made(name, **settings), {k: kind(v) for k, v in START.items()}
        lr, *rest = settings.values()
        traces = {k: formula(v, SLOPES[k], lr, *rest) for k, v in START.items()}
        for _ in range(30):
            rule.update(params, {k: SLOPES[k](v) for k, v in params.items()})
            for key, trace in traces.items():
                assert float(params[key]) == pytest.approx(next(trace), rel=1e-11, abs=1e-12)


def test_traces_of_the_book() -> None:
    """Where its comparison in chapter 6 ends; computed once by the book's own classes."""
    for name, settings, x, y in ENDS:
        rule, params = made(name, **settings), dict(START)
        for _ in range(30):
            rule.update(params, {k: SLOPES[k](v) for k, v in params.items()})
        assert params["x"] == pytest.approx(x, rel=1e-10)
        assert params["y"] == pytest.approx(y, rel=1e-10)


@pytest.fixture(params=["numpy", "strict", "torch", pytest.param("cupy", marks=pytest.mark.gpu)])
def mutable(request: pytest.FixtureRequest) -> Library:
    return open_library(request.param)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_arrays_are_changed_in_place(name: str, dtype: Any, mutable: Library) -> None:
    """Each element follows its own formula; params and slots keep their arrays and dtypes."""
    formula, cases = CASES[name]
    start = {k: RNG.uniform(-1, 1, s).astype(dtype) for k, s in SHAPES.items()}
    params = {k: mutable.asarray(v) for k, v in start.items()}
    held, rule = dict(params), made(name, **cases[-1])
    slots: list[dict[str, Any]] = []
    lr, *rest = cases[-1].values()
    traces = [formula(float(v), lambda x: 2.0 * x, lr, *rest) for v in start["W1"].ravel()]
    for step in range(5):
        grads = {k: 2.0 * v for k, v in params.items()}
        before = {k: mutable.to_numpy(g) for k, g in grads.items()}
        rule.update(params, grads)
        expected = [next(trace) for trace in traces]
        for k in SHAPES:
            np.testing.assert_array_equal(mutable.to_numpy(grads[k]), before[k])
        if not step:
            slots = [dict(s) for s in vars(rule).values() if isinstance(s, dict)]
    found = mutable.to_numpy(params["W1"])
    assert found.dtype == dtype
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-10 if dtype == np.float64 else 1e-4)
    kept = [s for s in vars(rule).values() if isinstance(s, dict)]
    assert len(kept) == len(slots) == {"SGD": 0, "Adam": 2}.get(name, 1)
    for key, p in held.items():
        assert params[key] is p
        for now, first in zip(kept, slots, strict=True):
            assert now[key] is first[key]
            assert (now[key].shape, now[key].dtype) == (p.shape, p.dtype)


def test_attributes_of_the_book() -> None:
    assert vars(made("SGD")) == {"lr": 0.01}
    assert vars(made("Momentum")) == {"lr": 0.01, "momentum": 0.9, "v": None}
    assert vars(made("Nesterov")) == {"lr": 0.01, "momentum": 0.9, "v": None}
    assert vars(made("AdaGrad")) == {"lr": 0.01, "h": None}
    assert vars(made("RMSprop")) == {"lr": 0.01, "decay_rate": 0.99, "h": None}
    names = {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "iter": 0, "m": None, "v": None}
    assert vars(made("Adam")) == names


@pytest.mark.parametrize("name", CASES)
def test_settings_are_read_at_each_update(name: str) -> None:
    rule, params = made(name, lr=0.1), {"x": np.ones(3)}
    rule.update(params, {"x": np.ones(3)})
    params["x"][...], rule.lr = 1.0, 0.0
    for setting in vars(rule).keys() & {"momentum"}:
        setattr(rule, setting, 0.0)
    rule.update(params, {"x": np.ones(3)})
    assert params["x"].tolist() == [1.0] * 3


def test_rates_that_numpy_drew_keep_float32() -> None:
    rule, params = made("SGD", lr=np.float64(0.1)), {"x": np.ones(2, np.float32)}
    rule.update(params, {"x": np.ones(2, np.float32)})
    assert params["x"].tolist() == [np.float32(0.9)] * 2


@pytest.mark.parametrize("name", CASES)
def test_tensors_that_require_grad(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    W, plain = torch.ones(2, 2, requires_grad=True), {"W": torch.ones(2, 2)}
    rules, params = (made(name), made(name)), {"W": W}
    for _ in range(3):
        (grad,) = torch.autograd.grad((W**2).sum(), W)
        rules[0].update(params, {"W": grad})
        rules[1].update(plain, {"W": 2 * plain["W"]})
    assert params["W"] is W
    assert W.requires_grad
    assert W.tolist() == plain["W"].tolist()


def readonly() -> np.ndarray:
    array = np.ones(2)
    array.flags.writeable = False
    return array


def of_jax() -> Any:
    return pytest.importorskip("jax", reason="jax is not installed").numpy.ones(2)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("p", "g", "words"),
    [
        (np.ones(2), None, r"grads\['W'\] is missing; expected a gradient of each of params"),
        (np.ones(2), np.ones(3), r"grads\['W'\] has shape \(3,\); expected that of params\['W'\]"),
        (np.ones(2), 1.0, r"grads\['W'\] has shape \(\)"),
        (1.0, np.ones(2), r"expected that of params\['W'\], \(\)"),
        (np.array([1, 2]), np.ones(2), r"params\['W'\] holds int64; expected floating-point"),
        ([1.0, 2.0], np.ones(2), r"params\['W'\] is a list"),
        (readonly, np.ones(2), r"params\['W'\] is read-only; expected an array that can be chang"),
        (of_jax, of_jax, r"params\['W'\] is an array of jax.numpy; expected an array that can be"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_changes(
    name: str, p: Any, g: Any, words: str
) -> None:
    p, g = (a() if callable(a) else a for a in (p, g))
    params, grads = {"a": np.ones(2), "W": p}, {"a": np.ones(2)}
    if g is not None:
        grads["W"] = g
    rule = made(name)
    before = dict(vars(rule))
    with pytest.raises(ValueError, match=words):
        rule.update(params, grads)
    assert params["a"].tolist() == [1.0, 1.0]
    assert vars(rule) == before


def test_arrays_of_two_libraries_are_refused() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    words = r"grads\['W'\] is an array of .*numpy, params\['W'\] one of .*torch; expected both of"
    with pytest.raises(ValueError, match=words):
        made("SGD").update({"W": torch.ones(2)}, {"W": np.ones(2)})


def test_another_network_is_refused() -> None:
    rule = made("Adam")
    rule.update({"W": np.ones(2)}, {"W": np.ones(2)})
    params = {"W": np.ones(3)}
    with pytest.raises(ValueError, match=r"has shape \(3,\), and had \(2,\) at the update before"):
        rule.update(params, {"W": np.ones(3)})
    assert (params["W"].tolist(), rule.iter) == ([1.0] * 3, 1)


def test_a_parameter_that_comes_later_starts_at_zero() -> None:
    rule, params = made("Momentum", lr=0.1), {"a": np.ones(1)}
    rule.update(params, {"a": np.ones(1)})
    params["b"] = np.ones(1)
    rule.update(params, {"a": np.ones(1), "b": np.ones(1), "unused": None})
    np.testing.assert_allclose(params["b"], [0.9])


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("Momentum", {"momentum": 1.5}, "momentum is 1.5; expected a finite number >= 0"),
        ("RMSprop", {"decay_rate": -0.1}, "decay_rate is -0.1; expected"),
        ("Adam", {"beta1": 1.0}, "beta1 is 1.0; expected"),
        ("SGD", {"lr": "0.1"}, "lr is '0.1'; expected a finite number"),
        ("Adam", {"lr": float("nan")}, "lr is nan; expected a finite number"),
    ],
)
def test_settings_that_cannot_be(name: str, settings: dict[str, float], words: str) -> None:
    params = {"W": np.ones(2)}
    with pytest.raises(ValueError, match=words):
        made(name, **settings).update(params, {"W": np.ones(2)})
    assert params["W"].tolist() == [1.0, 1.0]


def test_what_is_no_dict_of_arrays_is_named() -> None:
    class Network:
        params = {"W": np.ones(2)}  # noqa: RUF012

    params = {"W": np.ones(2)}
    for given, grads, words in (
        (Network(), params, r"params is of type Network; expected a dict .* as in network\.params"),
        (params, [1.0], "grads is of type list; expected a dict of arrays"),
        (params, {"W": [1.0, 2.0]}, r"grads\['W'\] is a list; expected an array: np\.array"),
    ):
        with pytest.raises(ValueError, match=words):
            made("SGD").update(given, grads)


def test_star_import_gives_what_scripts_lean_on() -> None:
    names: dict[str, Any] = {}
    exec("from xpnet.book.optimizer import *", names)
    assert names["np"] is np
    assert CASES.keys() < names.keys()


@pytest.mark.parametrize("name", ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"])
def test_what_is_no_gradient_is_refused_before_anything_changes(name: str) -> None:
    params = {"a": np.ones(2), "b": np.ones(2)}
    rule = getattr(optimizer, name)(lr=0.1)
    for bad in (np.ones(2) * 1j, np.array(["a", "b"]), [1.0, 2.0], "ab"):
        with pytest.raises(ValueError, match=r"grads\['b'\] .*; expected (real numbers|an array)"):
            rule.update(params, {"a": np.ones(2), "b": bad})
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match=r"params\['b'\] a number; expected both of one library"):
        rule.update({"a": params["a"], "b": 1.0}, {"a": np.ones(2), "b": torch.tensor(1.0)})
    assert params["a"].tolist() == params["b"].tolist() == [1, 1]


def test_parameters_of_another_library_than_before_are_refused() -> None:
    torch = pytest.importorskip("torch")
    arrays = [np.ones(2), torch.ones(2, dtype=torch.float64)]
    for one, two in (arrays, arrays[::-1]):
        rule = optimizer.Momentum()
        rule.update({"a": one}, {"a": one + 0})
        with pytest.raises(ValueError, match="expected the same: make a new optimizer"):
            rule.update({"a": two}, {"a": two + 0})
