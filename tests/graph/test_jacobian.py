"""Jacobians against central differences, PyTorch, and what is known of them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from conftest import Library

from xpnet import functions as fn
from xpnet.graph import Graph
from xpnet.graph.gradcheck import numerical_gradient
from xpnet.graph.jacobian import jacobian

RNG = np.random.default_rng(0)


def network() -> tuple[Graph, dict[str, Any]]:
    graph = Graph()
    x, W, b, V = graph.inputs("x W b V")
    fn.sigmoid(fn.affine(x, W, b)) @ V
    shapes = {"x": (3, 4), "W": (4, 5), "b": (5,), "V": (5, 2)}
    return graph, {name: RNG.standard_normal(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("wrt", ["x", "W", "b", "V"])
def test_agrees_with_central_differences(wrt: str, library: Library) -> None:
    if not library.float64:
        pytest.skip("differences need float64")
    if library.jit.__name__ == "jit":
        pytest.skip("jit adds nothing here: tests of formulas run jitted")
    graph, values = network()
    inputs = {name: library.asarray(value) for name, value in values.items()}
    J = library.to_numpy(jacobian(graph, inputs, "MatMul1", wrt))
    assert J.shape == (3, 2, *values[wrt].shape)
    for i, j in np.ndindex(3, 2):
        row = numerical_gradient(
            lambda moved, i=i, j=j: float(graph.forward({**values, wrt: moved})[0][i, j]),
            values[wrt],
        )
        np.testing.assert_allclose(J[i, j], row, atol=1e-8)


def test_of_an_inner_node_is_the_second_matrix() -> None:
    graph, values = network()
    J = jacobian(graph, values, "MatMul1", "Sigmoid1")
    expected = np.einsum("ik,jm->imkj", np.eye(3), values["V"])
    np.testing.assert_allclose(J, expected, atol=1e-15)


def test_agrees_with_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    graph, values = network()
    t = {name: torch.tensor(value) for name, value in values.items()}
    reference = torch.autograd.functional.jacobian(
        lambda W: torch.sigmoid(t["x"] @ W + t["b"]) @ t["V"], t["W"]
    )
    np.testing.assert_allclose(jacobian(graph, values, "MatMul1", "W"), reference, atol=1e-13)


def test_batched_is_the_block_diagonal_of_the_whole() -> None:
    graph, values = network()
    whole = jacobian(graph, values, "MatMul1", "x")
    blocks = jacobian(graph, values, "MatMul1", "x", batched=True)
    assert blocks.shape == (3, 2, 4)
    for n in range(3):
        np.testing.assert_allclose(blocks[n], whole[n, :, n], atol=1e-15)
        assert not np.delete(whole[n], n, axis=1).any()


@pytest.mark.parametrize("batched", [False, True])
def test_diagonal_of_max_with_zero(batched: bool) -> None:
    """The lecture: 4096 inputs, a diagonal matrix, which nobody would want to build."""
    graph = Graph()
    x = graph.input("x")
    y = fn.maximum(0, x)
    value = RNG.standard_normal(4096)
    diagonal = jacobian(graph, {"x": value}, y, x, diagonal=True, batched=batched)
    np.testing.assert_array_equal(diagonal, value > 0)


def test_diagonal_is_the_diagonal_where_there_is_more() -> None:
    graph = Graph()
    x, W = graph.inputs("x W")
    y = fn.square(x @ W)
    values = {"x": RNG.standard_normal((2, 3)), "W": RNG.standard_normal((3, 3))}
    whole = jacobian(graph, values, y, x).reshape(6, 6)
    diagonal = jacobian(graph, values, y, x, diagonal=True)
    np.testing.assert_allclose(diagonal.ravel(), np.diag(whole))
    batched = jacobian(graph, values, y, x, diagonal=True, batched=True)
    np.testing.assert_allclose(batched, diagonal)


def test_of_a_number_is_the_gradient() -> None:
    graph = Graph()
    x = graph.input("x")
    J = jacobian(graph, {"x": np.arange(3.0)}, fn.squared_norm(x), x)
    np.testing.assert_array_equal(J, [0, 2, 4])


@pytest.mark.parametrize(
    ("options", "wrt", "words"),
    [
        ({"diagonal": True}, "x", "a diagonal needs equal shapes: the output has (3, 2), x (3, 4)"),
        ({"batched": True}, "W", "the output has shape (3, 2), W (4, 5)"),
        ({}, "q", "no node named 'q'"),
    ],
)
def test_refused(options: dict[str, bool], wrt: str, words: str) -> None:
    graph, values = network()
    with pytest.raises(ValueError, match=re.escape(words)):
        jacobian(graph, values, "MatMul1", wrt, **options)
