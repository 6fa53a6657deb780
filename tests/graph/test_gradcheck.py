"""The gradient check finds what it is there to find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import open_library

from xpnet import Graph, Trainer, functions, optim
from xpnet.arrays.ops import namespace
from xpnet.commands import gradcheck as command
from xpnet.graph import gradcheck
from xpnet.layers import Affine, Sigmoid
from xpnet.losses import LOSSES
from xpnet.models import Network
from xpnet.models.mlp import mlp


class WrongSigmoid(Sigmoid):
    def backward(self, cache: Any, dout: Any, needs: Any = (True,)) -> Any:
        return (dout * cache * (1.0 - cache) * 1.0001,)


def test_finds_a_gradient_that_is_off_by_a_ten_thousandth() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4))
    assert gradcheck.check_gate(Sigmoid(), x)[0].error < 1e-9
    assert gradcheck.check_gate(WrongSigmoid(), x)[0].error == pytest.approx(5e-5, rel=0.01)


def test_finds_one_wrong_input_of_several() -> None:
    class NoBias(Affine):
        def backward(self, cache: Any, dout: Any, needs: Any = (True,) * 3) -> Any:
            dx, dW, db = super().backward(cache, dout, needs)
            return dx, dW, db * 0

    rng = np.random.default_rng(0)
    rows = gradcheck.check_gate(
        NoBias(), rng.standard_normal((3, 4)), rng.standard_normal((4, 2)), rng.standard_normal(2)
    )
    assert [row.error < 1e-8 for row in rows] == [True, True, False]


def test_numerical_gradient_of_a_cubic() -> None:
    x = np.array([[1.0, -2.0], [0.0, 3.0]])
    slopes = gradcheck.numerical_gradient(lambda v: float((v**3).sum()), x)
    np.testing.assert_allclose(slopes, 3 * x**2, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_whole_networks_with_every_activation(loss: str) -> None:
    net = mlp([6, 5, 4, 5, 4, 3], ["sigmoid", "tanh", "relu", "leaky_relu"], loss=loss, dropout=0.2)
    rng = np.random.default_rng(0)
    params = {k: rng.uniform(-1, 1, v.shape) for k, v in net.params.items()}
    inputs = {
        **params,
        "x": rng.standard_normal((4, 6)),
        "t": rng.integers(0, 3, 4),
        "weight": rng.uniform(1, 2, 4),
        "step": np.array([5], np.int32),
    }
    rows = gradcheck.check(net.graph, inputs, net.loss, list(params))
    assert [row.name for row in rows] == list(params)
    assert max(row.error for row in rows) < 1e-8


def test_command_prints_a_table_and_passes(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--inputs", "6", "--hidden", "5,4", "--activation", "tanh,relu", "--outputs", "3"]
    assert command.main(args) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:7]] == [
        "W1",
        "b1",
        "W2",
        "b2",
        "W3",
        "b3",
    ]
    assert "passed: largest relative error" in out


def test_command_fails_above_the_tolerance(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--inputs", "4", "--hidden", "3", "--tolerance", "1e-16"]) == 1
    out = capsys.readouterr().out
    assert "WRONG" in out
    assert "FAILED" in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--batch", "0"], "--batch 1 or more"),
        (["--outputs", "1"], "--loss softmax needs --outputs 2 or more, got 1"),
        (["--hidden", "abc"], "--hidden 'abc': expected sizes separated by commas"),
        (["--hidden", "0"], "each of sizes is 0; expected a whole number, 1 or more"),
    ],
)
def test_command_refuses_what_cannot_be(
    capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    assert command.main(args) == 2
    assert words in capsys.readouterr().err


def test_command_refuses_an_unknown_activation(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--activation", "swish"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("xpnet: activation is 'swish'; expected one of sigmoid")
    assert err.count("\n") == 1


def test_numerical_gradient_as_in_the_book() -> None:
    """The book's f takes no notice of its argument, and looks at the array that is moved."""
    W = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    kept = W.copy()
    np.testing.assert_allclose(
        gradcheck.numerical_gradient(lambda _: float((W**2).sum()), W), 2 * kept
    )
    np.testing.assert_array_equal(W, kept)

    def fails(x: np.ndarray) -> float:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        gradcheck.numerical_gradient(fails, W)
    np.testing.assert_array_equal(W, kept)  # put back, whatever happens


def test_numerical_gradient_of_integers_is_that_of_the_numbers() -> None:
    slopes = gradcheck.numerical_gradient(lambda x: float((x**2).sum()), np.array([3, 4]))
    np.testing.assert_allclose(slopes, [6, 8])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", ["numpy", "strict", "torch"])
def test_numerical_gradient_moves_arrays_of_any_library(name: str, dtype: Any) -> None:
    """f reads the array from elsewhere, so a copy that is moved would give zeros."""
    if name == "strict" and dtype == np.float16:
        pytest.skip("the standard has no float16")
    library = open_library(name)
    start = np.array([[0.5, -1.0], [2.0, 1.5]], dtype)
    W = library.asarray(start)
    slopes = gradcheck.numerical_gradient(lambda _: library.xp.sum(W * W), W)
    error = {np.float16: 5e-2, np.float32: 1e-4, np.float64: 1e-9}[dtype]
    np.testing.assert_allclose(slopes, 2.0 * start, rtol=error)
    assert slopes.dtype == np.float64
    np.testing.assert_array_equal(library.to_numpy(W), start)


@pytest.mark.parametrize("name", ["numpy-readonly", "jax"])
def test_numerical_gradient_copies_what_cannot_be_changed(name: str) -> None:
    x = open_library(name).asarray(np.array([3.0, 4.0]))
    slopes = gradcheck.numerical_gradient(lambda x: float((x**2).sum()), x)
    np.testing.assert_allclose(slopes, [6, 8])


def test_numerical_gradient_of_some_entries_with_a_step() -> None:
    x, seen = np.arange(6.0).reshape(2, 3), []

    def f(x: np.ndarray) -> float:
        seen.append(x.copy())
        return float((x**2).sum())

    slopes = gradcheck.numerical_gradient(f, x, [4, -1], h=0.25)
    np.testing.assert_allclose(slopes, [8, 10])
    moves = np.array(seen) - x
    assert moves[0, 1, 1] == moves[2, 1, 2] == 0.25
    assert moves[1, 1, 1] == moves[3, 1, 2] == -0.25
    assert np.count_nonzero(moves) == 4
    with pytest.raises(IndexError):
        gradcheck.numerical_gradient(f, x, [6])
    assert gradcheck.numerical_gradient(f, x, []).shape == (0,)
    scalar = np.array(3.0)
    assert gradcheck.numerical_gradient(lambda x: float(x**2), scalar) == pytest.approx(6)
    assert gradcheck.numerical_gradient(lambda x: float(x**2), scalar, [0]) == pytest.approx([6])


class Scaled:
    """y = x s, s of shape (5,), with a gradient of s that is spoilt by `spoil`."""

    def __init__(self, spoil: Any) -> None:
        self._spoil = spoil

    def forward(self, x: Any, s: Any) -> tuple[Any, Any]:
        return x * s, (x, s)

    def backward(self, cache: Any, dout: Any, needs: Any = (True, True)) -> Any:
        x, s = cache
        return dout * s, self._spoil(namespace(dout).sum(dout * x, axis=0))


SPOILT = {
    "()": (lambda g: g.sum(), r"a gradient of shape \(\)"),
    "(1,)": (lambda g: g.sum()[None], r"a gradient of shape \(1,\)"),
    "(1, 5)": (lambda g: g[None], r"a gradient of shape \(1, 5\)"),
    "(4,)": (lambda g: g[:4], r"a gradient of shape \(4,\)"),
    "integers": (lambda g: g.astype(np.int64), "a gradient of dtype int64"),
    "bools": (lambda g: g > 0, "a gradient of dtype bool"),
    "complex": (lambda g: g + 0j, r"a gradient of dtype complex\d+"),
    "number": (lambda g: 1.0, "a float"),
    "list": (lambda g: g.tolist(), "a list"),
}


def scaled_network(spoil: Any, *, inner: bool) -> Network:
    """The spoilt gradient goes to a parameter, or to what is computed from one."""
    graph = Graph()
    x, t, s, W, b = graph.inputs("x t s W b")
    factor = functions.exp(s) if inner else s
    scores = functions.affine(graph.apply(Scaled(spoil), x, factor), W, b)
    values = {"s": np.ones(5), "W": np.ones((5, 3)), "b": np.zeros(3)}
    return Network(graph, values, scores, functions.softmax_with_loss(scores, t), outputs=3)


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("inner", [False, True])
def test_a_gate_that_breaks_the_contract_is_named(name: str, inner: bool) -> None:
    spoil, words = SPOILT[name]
    match = f"Scaled1, backward: gave {words} for its input 1, '{'Exp1' if inner else 's'}'"
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((60, 5)), rng.integers(0, 3, 60)

    trainer = Trainer(scaled_network(spoil, inner=inner), optim.SGD(0.1))
    before = trainer.model.to_host()
    trainer.evaluate(x, t)  # which shows nothing of it, and must not count as a check
    with pytest.raises(ValueError, match=match):
        trainer.fit(x, t, epochs=1)
    for key, value in before.items():
        np.testing.assert_array_equal(trainer.model.to_host()[key], value)

    network = scaled_network(spoil, inner=inner)
    inputs = {**network.params, "x": x, "t": t}
    with pytest.raises(ValueError, match=match):
        gradcheck.check(network.graph, inputs, network.loss, ["s"])
    with pytest.raises(ValueError, match="Scaled1, backward: gave"):
        gradcheck.check_gate(Scaled(spoil), x, np.ones(5))
    with pytest.raises(ValueError, match=match):
        network.graph.trace(inputs, network.loss)


def test_a_gate_that_keeps_the_contract_trains(backend: Any) -> None:
    network = scaled_network(lambda g: g, inner=False)
    x, t = np.random.default_rng(0).standard_normal((60, 5)), np.arange(60) % 3
    history = Trainer(network, optim.SGD(0.1), backend=backend).fit(x, t, epochs=3)
    assert history.epochs[-1].train_loss < history.epochs[0].train_loss


def test_numerical_gradient_names_what_is_no_number() -> None:
    x = np.array([3.0, 4.0])
    for f, words in (
        (lambda x: x**2, r"f returned an array of shape \(2,\); expected one number"),
        (lambda x: None, "f returned nothing; expected one number"),
    ):
        with pytest.raises(ValueError, match=words):
            gradcheck.numerical_gradient(f, x)
        assert x.tolist() == [3.0, 4.0]
    one = gradcheck.numerical_gradient(lambda x: (x**2).sum(keepdims=True), x)
    np.testing.assert_allclose(one, [6.0, 8.0])
