"""Graphs written as formulas: operators, functions, order of building, what is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from conftest import Library

from xpnet import functions as fn
from xpnet import gates, layers
from xpnet.gradcheck import check
from xpnet.graph import Graph
from xpnet.node import Node

RNG = np.random.default_rng(0)
X, Y = RNG.uniform(0.5, 2.0, (3, 4)), RNG.uniform(-2.0, -0.5, (3, 4))
INDEX, LABELS = np.array([2, 0, 2]), np.array([1, 0, 3])

FORMULAS: list[tuple[str, Any, Any]] = [
    ("x + y", lambda x, y: x + y, X + Y),
    ("x + 2", lambda x, y: x + 2, X + 2),
    ("2 + x", lambda x, y: 2 + x, 2 + X),
    ("x - y", lambda x, y: x - y, X - Y),
    ("x - 2", lambda x, y: x - 2, X - 2),
    ("2 - x", lambda x, y: 2 - x, 2 - X),
    ("x * y", lambda x, y: x * y, X * Y),
    ("3 * x", lambda x, y: 3 * x, 3 * X),
    ("x / y", lambda x, y: x / y, X / Y),
    ("x / 4", lambda x, y: x / 4, X / 4),
    ("1 / x", lambda x, y: 1 / x, 1 / X),
    ("5 / x", lambda x, y: 5 / x, 5 / X),
    ("-x", lambda x, y: -x, -X),
    ("x ** 3", lambda x, y: x**3, X**3),
    ("x ** -0.5", lambda x, y: x**-0.5, X**-0.5),
    ("x @ y.T", lambda x, y: x @ y.T, X @ Y.T),
    ("x[1]", lambda x, y: x[1], X[1]),
    ("x[..., ::2]", lambda x, y: x[..., ::2], X[..., ::2]),
    ("x[0:2, -1]", lambda x, y: x[0:2, -1], X[0:2, -1]),
    ("exp", lambda x, y: fn.exp(x), np.exp(X)),
    ("log", lambda x, y: fn.log(x), np.log(X)),
    ("sqrt", lambda x, y: fn.sqrt(x), np.sqrt(X)),
    ("square", lambda x, y: fn.square(y), Y**2),
    ("maximum", lambda x, y: fn.maximum(x, -y), np.maximum(X, -Y)),
    ("maximum 0", lambda x, y: fn.maximum(0, x + y), np.maximum(0, X + Y)),
    ("sigmoid", lambda x, y: fn.sigmoid(y), 1 / (1 + np.exp(-Y))),
    ("sigmoid, its chain", lambda x, y: 1 / (1 + fn.exp(-1 * y)), 1 / (1 + np.exp(-Y))),
    ("tanh", lambda x, y: fn.tanh(y), np.tanh(Y)),
    ("relu", lambda x, y: fn.relu(x + y), np.maximum(0, X + Y)),
    ("sum", lambda x, y: fn.sum(x), X.sum()),
    ("mean", lambda x, y: fn.mean(x, axis=0), X.mean(axis=0)),
    ("squared_norm", lambda x, y: fn.squared_norm(x), (X**2).sum()),
    ("matmul", lambda x, y: fn.matmul(x.T, y), X.T @ Y),
    ("transpose", lambda x, y: fn.transpose(x), X.T),
    ("reshape", lambda x, y: fn.reshape(x, (2, -1)), X.reshape(2, 6)),
    ("softmax of the rows", lambda x, y: fn.exp(x) / fn.sum(fn.exp(x), 1, True),
     np.exp(X) / np.exp(X).sum(1, keepdims=True)),
    ("fan-out", lambda x, y: x * x * y + x, X * X * Y + X),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write", "expected"), FORMULAS, ids=[f[0] for f in FORMULAS])
def test_formulas(name: str, write: Any, expected: Any, library: Library) -> None:
    graph = Graph()
    x, y = graph.inputs("x y")
    f = write(x, y)
    if not library.float64:
        pytest.skip("float64 is compared")
    inputs = {"x": library.asarray(X), "y": library.asarray(Y)}
    value, _ = library.jit(lambda inputs: graph.forward(inputs, f)[0])(inputs), None
    np.testing.assert_allclose(library.to_numpy(value), expected, rtol=1e-13)
    used = [name for name in ("x", "y") if any(name in n.inputs for n in graph.nodes.values())]
    rows = check(graph, {"x": X, "y": Y}, f, used, asarray=library.asarray,
                 to_numpy=library.to_numpy)  # fmt: skip
    assert max(row.error for row in rows) < 1e-8


def test_gather_and_pick(library: Library) -> None:
    graph = Graph()
    x, index, t = graph.inputs("x index t")
    gathered, picked = fn.gather(x, index), fn.pick(x, t)
    dtype = "float64" if library.float64 else "float32"
    inputs = {"x": library.asarray(X.astype(dtype)), "index": library.asarray(INDEX)}
    (a, b), _ = graph.forward({**inputs, "t": library.asarray(LABELS)}, gathered, picked)
    np.testing.assert_array_equal(library.to_numpy(a), X[INDEX].astype(dtype))
    np.testing.assert_array_equal(library.to_numpy(b), X[np.arange(3), LABELS].astype(dtype))


def test_losses_as_functions() -> None:
    graph = Graph()
    x, W, b, t = graph.inputs("x W b t")
    scores = fn.affine(x, W, b)
    values = {"x": X, "W": Y.T, "b": np.ones(3), "t": np.array([0, 2, 1])}
    for write, gate in (
        (fn.softmax_with_loss, "SoftmaxWithLoss1"),
        (fn.sigmoid_with_loss, "SigmoidWithLoss1"),
        (fn.squared_loss, "SquaredLoss1"),
        (fn.hinge_loss, "HingeLoss1"),
    ):
        node = write(scores, t)
        assert node.name == gate
        assert check(graph, values, node, ["x", "W", "b"])[0].error < 1e-8


def test_any_order_of_building() -> None:
    """f uses q before q is there, and q uses x before x is there."""
    graph = Graph()
    graph.apply(gates.Mul(), "q", "z", name="f")
    graph.apply(gates.Add(), "x", "y", name="q")
    graph.inputs("z y x")
    value, tape = graph.forward({"x": -2, "y": 5, "z": -4}, "f")
    assert value == -12
    assert graph.backward(tape, "x y z q") == {"x": -4, "y": -4, "z": 3, "q": -4}
    assert [node.name for node in graph.nodes_topologically_sorted("f")] == [
        "x",
        "y",
        "q",
        "z",
        "f",
    ]


def test_every_node_comes_after_its_inputs_in_a_random_graph() -> None:
    rng = np.random.default_rng(1)
    graph = Graph()
    order = rng.permutation(200)
    for i in order:
        if i < 10:
            graph.input(f"n{i}")
        else:
            a, b = rng.integers(0, i, 2)
            graph.apply(gates.Add(), f"n{a}", f"n{b}", name=f"n{i}")
    seen: set[str] = set()
    for node in graph.nodes_topologically_sorted("n199"):
        assert set(node.inputs) <= seen
        seen.add(node.name)
    # and its value, and the gradient of a sum: how many ways lead from an input to the output
    value, tape = graph.forward({f"n{i}": 1.0 for i in range(10)}, "n199")
    assert sum(float(g) for g in graph.backward(tape).values()) == value


def test_ten_thousand_operators_deep() -> None:
    graph = Graph()
    x = graph.input("x")
    node: Node = x
    for _ in range(10_000):
        node = node + 1
    value, tape = graph.forward({"x": 0.0}, node)
    assert value == 10_000
    assert graph.backward(tape) == {"x": 1}


def test_numbers_become_arrays_like_the_others(library: Library) -> None:
    graph = Graph()
    x, c = graph.inputs("x c")
    f = x * c
    value, tape = graph.forward({"x": library.asarray(np.ones(3, np.float32)), "c": 2}, f)
    assert library.to_numpy(value).dtype == np.float32
    np.testing.assert_array_equal(library.to_numpy(value), [2, 2, 2])
    assert float(graph.backward(tape, "c", [library.asarray(np.ones(3, np.float32))])["c"]) == 3


def test_gradients_of_all_inputs_by_default() -> None:
    """Labels, and inputs that the output does not depend on, have none."""
    graph = Graph()
    x, W, b, t, _ = graph.inputs("x W b t unused")
    loss = fn.softmax_with_loss(fn.affine(x, W, b), t)
    values = {"x": X, "W": Y.T, "b": np.ones(3), "t": np.array([0, 2, 1])}
    _, tape = graph.forward(values, loss)
    assert list(graph.backward(tape)) == ["x", "W", "b"]


def test_trace_keeps_every_value_and_flow() -> None:
    graph = Graph()
    x, y = graph.inputs("x y")
    square = graph.apply(gates.Mul(), x, x, name="square")
    f = square + x * y
    trace = graph.trace({"x": 3, "y": 5})
    assert trace.output == f.name
    assert trace.values == {"x": 3, "y": 5, "square": 9, "Mul1": 15, "Add1": 24}
    assert trace.grads == {"x": 11, "y": 3, "square": 1, "Mul1": 1, "Add1": 1}
    assert trace.flows["square", 0] == trace.flows["square", 1] == 3
    assert trace.flows["Mul1", 0] == 5
    assert trace.flows["Add1", 0] == 1


def test_names_that_users_take_are_skipped() -> None:
    graph = Graph()
    x = graph.input("x")
    graph.apply(gates.Neg(), x, name="Neg1")
    assert (-x).name == "Neg2"


def test_derivative_of_a_zeroth_power_at_zero_is_zero() -> None:
    """0 times 0⁻¹ would be a NaN."""
    _, cache = gates.Power(0).forward(np.zeros(2))
    np.testing.assert_array_equal(gates.Power(0).backward(cache, np.ones(2))[0], [0, 0])


# -- Refused -------------------------------------------------------------------------------


def xyz() -> tuple[Graph, Node, Node, Node]:
    graph = Graph()
    x, y, z = graph.inputs("x y z")
    return graph, x, y, z


def cycle() -> Graph:
    graph = Graph()
    graph.input("x")
    graph.apply(gates.Add(), "x", "b", name="a")
    graph.apply(gates.Neg(), "a", name="b")
    return graph


def ring(n: int) -> Graph:
    graph = Graph()
    for i in range(n):
        graph.apply(gates.Neg(), f"n{(i + 1) % n}", name=f"n{i}")
    return graph


def run(write: Any, **inputs: Any) -> Any:
    graph, *nodes = xyz()
    return graph.forward(inputs, write(*nodes))


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: run(lambda x, y, z: x + y, x=1.0, Y=2.0), KeyError, "no input is named 'Y'; the"),
    (lambda: run(lambda x, y, z: x + y, x=1.0), KeyError, "input 'y' has no value; given: x"),
    (lambda: run(lambda x, y, z: fn.exp(x), x=np.array([1, 2])), ValueError,
     "input 'x' has dtype int64; the gates that use it need real numbers"),
    (lambda: run(lambda x, y, z: fn.exp(x), x=np.array([True])), ValueError, "dtype bool"),
    (lambda: run(lambda x, y, z: fn.exp(x), x=[1.0]), ValueError,
     "input 'x' is a list; expected an array"),
    (lambda: run(lambda x, y, z: x + y, x=np.ones(3), y=np.ones(4)), ValueError,
     "Add1(x (3,), y (4,)): "),
    (lambda: run(lambda x, y, z: x @ y, x=np.ones((2, 3)), y=np.ones((2, 3))), ValueError,
     "MatMul1(x (2, 3), y (2, 3)): shapes (2, 3) and (2, 3) do not fit: 3 columns against 2 rows"),
    (lambda: run(lambda x, y, z: x @ y, x=1.0, y=np.ones(3)), ValueError, "use *"),
    (lambda: run(lambda x, y, z: x[5], x=np.ones(3)), ValueError, "Index1(x (3,)): "),
    (lambda: run(lambda x, y, z: fn.reshape(x, (2, 2)), x=np.ones(3)), ValueError, "Reshape1(x"),
    (lambda: run(lambda x, y, z: fn.gather(x, y), x=np.ones(3), y=np.ones(2)), ValueError,
     "Gather1(x (3,), y (2,)): index has shape (2,) and dtype float64"),
    (lambda: run(lambda x, y, z: fn.pick(x, y), x=np.ones((3, 2)), y=np.array([0])), ValueError,
     "expected whole numbers, one per row, shape (3,)"),
    (lambda: cycle().forward({"x": 1.0}), ValueError, "the graph has a cycle: b <- a <- b"),
    (lambda: ring(1).forward({}), ValueError, "the graph has a cycle: n0 <- n0"),
    (lambda: ring(5000).forward({}), ValueError, "n4999 <- n0 <- n1 <- n2 <- ... <- n4996 <-"),
    (lambda: Graph().apply(gates.Neg(), "q").graph.forward({}), ValueError,
     "Neg1 uses 'q', which is not in the graph"),
    (lambda: Graph().forward({}), ValueError, "the graph has no nodes"),
    (lambda: xyz()[0].forward({"x": 1.0}, "q"), ValueError, "no node named q; the graph has x"),
    (lambda: xyz()[0].forward({"x": 1.0}, xyz()[1]), ValueError, "no node named x"),
    (lambda: xyz()[0].backward(None, "x"), ValueError,  # type: ignore[arg-type]
     "backward needs the tape that forward has returned, got NoneType"),
    (lambda: xyz()[1] + np.ones(3), TypeError, "declare an input of the graph"),
    (lambda: np.ones(3) + xyz()[1], TypeError, "declare an input of the graph"),
    (lambda: xyz()[1] @ 2, TypeError, "use *"),
    (lambda: xyz()[1] ** xyz()[2], TypeError, "exp(y * log(x))"),
    (lambda: xyz()[1][np.array([0, 1])], TypeError, "use gather"),
    (lambda: xyz()[1][::-1], ValueError, "expected a positive step"),
    (lambda: xyz()[1] + xyz()[1], ValueError, "a node of another graph"),
    (lambda: list(xyz()[1]), TypeError, "not iterable"),
    (lambda: fn.maximum(xyz()[1], 3), TypeError, "expected two nodes, or a node and 0"),
]  # fmt: skip


@pytest.mark.parametrize(("act", "error", "words"), REFUSED, ids=[r[2][:40] for r in REFUSED])
def test_refused_in_one_line(act: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_misfits_name_the_node_on_every_library(library: Library) -> None:
    """PyTorch and JAX raise errors of their own kinds, some of many lines."""
    graph, x, y, _ = xyz()
    f = fn.sigmoid(graph.apply(gates.Add(), x, y, name="q"))
    inputs = {
        "x": library.asarray(np.ones(3, np.float32)),
        "y": library.asarray(np.ones(4, np.float32)),
    }
    with pytest.raises(ValueError, match=r"^q\(x \(3,\), y \(4,\)\): .") as caught:
        graph.forward(inputs, f)
    assert "\n" not in str(caught.value)


def test_integers_are_refused_on_every_library(library: Library) -> None:
    graph, x, *_ = xyz()
    with pytest.raises(ValueError, match=r"input 'x' has dtype .*int32; the gates"):
        graph.forward({"x": library.asarray(np.array([1, 2], np.int32))}, fn.exp(x))


def test_bad_starts_of_a_backward() -> None:
    graph, x, y, z = xyz()
    a, b = x * y, x + z
    _, tape = graph.forward({"x": np.ones(3), "y": 2.0, "z": 1.0}, a, b)
    for douts, words in (
        ([1.0], "got 1 douts for 2 outputs"),
        ([np.ones(3), np.ones(2)], "dout of Add1 has shape (2,); expected (3,)"),
        ([1.0, 1.0], "dout of Mul1 has shape (); expected (3,)"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            graph.backward(tape, "x", douts)
    with pytest.raises(ValueError, match="got one of another graph"):
        xyz()[0].backward(tape, "x")
    # refused calls have changed nothing
    np.testing.assert_array_equal(graph.backward(tape, "x", [np.ones(3), None])["x"], [2, 2, 2])


def test_a_gate_may_say_which_inputs_are_integers() -> None:
    class Lookup(layers.Identity):
        """Rows of a table; its first input is an index."""

        integers = (0,)

        def forward(self, index: Any) -> Any:
            return np.eye(3)[index], None

    graph = Graph()
    i = graph.input("i")
    value, _ = graph.forward({"i": np.array([2, 0])}, graph.apply(Lookup(), i))
    np.testing.assert_array_equal(value, [[0, 0, 1], [1, 0, 0]])
