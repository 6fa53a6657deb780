"""Graphs written as formulas: operators, functions, order of building, what is refused."""

from __future__ import annotations

import re
import weakref
from typing import Any

import numpy as np
import pytest
from conftest import Library

from xpnet import functions as fn
from xpnet import gates, layers, losses
from xpnet.graph import Graph
from xpnet.graph.gradcheck import check
from xpnet.graph.node import Node

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
    ("maximum 1", lambda x, y: fn.maximum(x, 1), np.maximum(X, 1)),
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
        (fn.absolute_loss, "AbsoluteLoss1"),
        (fn.huber_loss, "HuberLoss1"),
        (fn.quantile_loss, "QuantileLoss1"),
        (fn.poisson_loss, "PoissonLoss1"),
    ):
        node = write(scores, t)
        assert node.name == gate
        assert check(graph, values, node, ["x", "W", "b"])[0].error < 1e-8


IMAGES = RNG.uniform(0.5, 2.0, (2, 2, 4, 4))
FILTERS, SHIFTS = RNG.standard_normal((3, 2, 2, 2)), RNG.standard_normal(3)


def windows(x: np.ndarray) -> np.ndarray:
    """The windows of 2 x 2 that do not overlap, one axis each for their rows and columns."""
    return x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2)


def strided(x: np.ndarray) -> np.ndarray:
    """A convolution with stride 2 as a sum over those windows."""
    y: np.ndarray = np.einsum("nchiwj,fcij->nfhw", windows(x), FILTERS)
    return y


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (
            lambda x, W, b: fn.convolution(x, W, b, stride=2),
            strided(IMAGES) + SHIFTS[:, None, None],
        ),
        (lambda x, W, b: fn.convolution(x, W, stride=(2, 2)), strided(IMAGES)),
        (
            lambda x, W, b: fn.convolution(x, W, None, 2, (2, 0)),
            strided(np.pad(IMAGES, ((0, 0), (0, 0), (2, 2), (0, 0)))),
        ),
        (lambda x, W, b: fn.max_pool(x), windows(IMAGES).max(axis=(3, 5))),
        (lambda x, W, b: fn.max_pool(x, (1, 4)), IMAGES.max(axis=3, keepdims=True)),
        (lambda x, W, b: fn.average_pool(x), windows(IMAGES).mean(axis=(3, 5))),
        (lambda x, W, b: fn.average_pool(x, 4, padding=0), IMAGES.mean((2, 3), keepdims=True)),
        (lambda x, W, b: fn.global_average_pool(x), IMAGES.mean(axis=(2, 3))),
        (lambda x, W, b: fn.flatten(x), IMAGES.reshape(2, 32)),
        (
            lambda x, W, b: fn.affine(fn.flatten(x), fn.reshape(W, (32, -1))),
            None,
        ),
    ],
)
def test_functions_of_images(write: Any, expected: Any) -> None:
    graph = Graph()
    y = write(*graph.inputs("x W b"))
    filters = FILTERS if expected is not None else RNG.standard_normal((32, 1))
    inputs = {"x": IMAGES, "W": filters, "b": SHIFTS}
    value, _ = graph.forward(inputs, y)
    np.testing.assert_allclose(
        value, IMAGES.reshape(2, 32) @ filters if expected is None else expected, rtol=1e-12
    )
    used = [name for name in inputs if any(name in n.inputs for n in graph.nodes.values())]
    assert max(row.error for row in check(graph, inputs, y, used)) < 1e-7


@pytest.mark.parametrize("step", [None, np.array([0], np.int32)])
@pytest.mark.parametrize("declared", [True, False])
def test_batch_norm_as_a_function(step: Any, declared: bool) -> None:
    graph = Graph()
    nodes = graph.inputs("x gamma beta mean var")
    last = graph.input("step", optional=True) if declared else None
    y = fn.batch_norm(*nodes, last, momentum=0.5, eps=1e-3)
    inputs = {"x": X, "gamma": Y[0], "beta": X[0], "mean": X[1], "var": X[2], "step": step}
    if step is None or not declared:
        del inputs["step"]
        mean, var = X[1], X[2]
    else:
        mean, var = X.mean(axis=0), X.var(axis=0)
    expected = Y[0] * (X - mean) / np.sqrt(var + 1e-3) + X[0]
    np.testing.assert_allclose(graph.forward(inputs, y)[0], expected)
    assert max(row.error for row in check(graph, inputs, y, ["x", "gamma", "beta"])) < 1e-7


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
    (lambda: xyz()[0].forward({"x": 1.0}, "q"), ValueError, "no node named 'q'; the graph has x"),
    (lambda: xyz()[0].forward({"x": 1.0}, xyz()[1]), ValueError, "no node named 'x'"),
    (lambda: xyz()[0].backward(None, "x"), ValueError,  # type: ignore[arg-type]
     "backward needs the tape that forward returned, got NoneType"),
    (lambda: xyz()[1] + np.ones(3), TypeError, "declare an input of the graph"),
    (lambda: np.ones(3) + xyz()[1], TypeError, "declare an input of the graph"),
    (lambda: xyz()[1] @ 2, TypeError, "use *"),
    (lambda: xyz()[1] ** xyz()[2], TypeError, "exp(y * log(x))"),
    (lambda: xyz()[1][np.array([0, 1])], TypeError, "use gather"),
    (lambda: xyz()[1][::-1], ValueError, "expected a positive step"),
    (lambda: xyz()[1] + xyz()[1], ValueError, "a node of another graph"),
    (lambda: list(xyz()[1]), TypeError, "not iterable"),
    (lambda: fn.maximum(xyz()[1], np.zeros(1)), TypeError, "maximum takes two nodes"),
    (lambda: np.dot(xyz()[1], xyz()[2]), TypeError, "numpy.dot takes arrays, not a node"),
    (lambda: np.asarray(xyz()[1]), TypeError, "'x' is a node of a graph, not an array"),
    (lambda: xyz()[1] / 0, ZeroDivisionError, "x / 0"),
    (lambda: fn.exp(3), TypeError, "Exp: no argument is a node"),  # type: ignore[arg-type]
    (lambda: fn.affine(xyz()[1], 3, 4), TypeError, "Affine is applied to int; expected nodes"),
    (lambda: xyz()[0].apply(gates.Add), TypeError, "a gate such as Add(), got the class Add"),
    (lambda: xyz()[0].apply(None), TypeError, "a gate such as Add(), got None"),
    (lambda: xyz()[0].forward({}, [xyz()[1]]), TypeError, "expected a node of the graph or"),
    (lambda: Graph().input("a b"), ValueError, "'a b' is not a valid name; expected a word"),
    (lambda: Graph().input(""), ValueError, "'' is not a valid name"),
    (lambda: Graph().input("a\x01"), ValueError, "is not a valid name"),
    (lambda: Graph().inputs("a b a"), ValueError, "already has a node named 'a'"),
    (lambda: xyz()[1][5:"y"], TypeError, "expected whole numbers"),
    (lambda: run(lambda x, y, z: x[0, 0], x=np.ones(3)), ValueError, "too long for an array of 1"),
    (lambda: run(lambda x, y, z: fn.transpose(x, (3, 2)), x=np.ones((2, 3))), ValueError,
     "axes are (3, 2); expected each of 2 axes once"),
    (lambda: run(lambda x, y, z: fn.affine(x, y, z), x=np.ones((2, 3)), y=np.ones((3, 4)),
                 z=np.ones((2, 4))), ValueError,
     "W has shape (3, 4) and b (2, 4); expected (D, M) and (M,)"),
    (lambda: run(lambda x, y, z: fn.squared_loss(x, y, "avg"), x=np.ones((2, 3)),
                 y=np.ones((2, 3))), ValueError, "reduction is 'avg'; expected mean or sum"),
    (lambda: fn.maximum(3, 4), TypeError, "maximum takes two nodes, or a node"),
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
        ([np.ones(3, np.uint8), None], "dout of Mul1 is uint8; expected an array of real numbers"),
        ([[1.0] * 3, None], "dout of Mul1 is list; expected an array of real numbers"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            graph.backward(tape, "x", douts)
    with pytest.raises(ValueError, match="got one of another graph"):
        xyz()[0].backward(tape, "x")
    # refused calls have changed nothing
    np.testing.assert_array_equal(graph.backward(tape, "x", [np.ones(3), None])["x"], [2, 2, 2])


def test_what_is_refused_adds_no_node() -> None:
    graph, x, *_ = xyz()
    before = list(graph.nodes)
    for act in (
        lambda: np.float32(2) - np.ones(2) - x,
        lambda: "a" - x,
        lambda: [1] / x,
        lambda: x ** "2",
        lambda: x[1.5],
        lambda: graph.inputs("p q x"),
        lambda: graph.apply(gates.Neg(), x, name="y"),
    ):
        with pytest.raises((TypeError, ValueError)):
            act()
    assert list(graph.nodes) == before


@pytest.mark.parametrize("number", [np.float64(2), np.float32(2), np.int64(2), True + True, 2])
def test_numbers_of_numpy_keep_the_dtype(number: Any, library: Library) -> None:
    graph, x, *_ = xyz()
    f = (number * x - number) / number + number**2 / x
    value, _ = graph.forward({"x": library.asarray(np.full(3, 5, np.float32))}, f)
    assert library.to_numpy(value).dtype == np.float32
    np.testing.assert_allclose(library.to_numpy(value), (2 * 5 - 2) / 2 + 4 / 5, rtol=1e-6)


def test_division_by_a_number_is_a_division() -> None:
    graph, x, *_ = xyz()
    tiny, some = {"x": np.array([1e-310])}, {"x": np.array([5.0, 7.0])}
    assert graph.forward(tiny, x / 1e-310)[0] == 1
    assert graph.forward(tiny, 1e-305 / x)[0] == pytest.approx(1e5)
    np.testing.assert_array_equal(graph.forward(some, x / 3)[0], some["x"] / 3)


@pytest.mark.parametrize("key", [3, -4, (0, 5)])
def test_an_index_out_of_range_is_refused_on_every_library(key: Any, library: Library) -> None:
    graph, x, *_ = xyz()
    with pytest.raises(ValueError, match=r"Index1\(x \(3, 4\)\): index -?\d is out of range"):
        graph.forward({"x": library.asarray(X.astype(np.float32))}, x[key])


def test_slices_may_be_longer_than_the_array(library: Library) -> None:
    graph, x, *_ = xyz()
    f = x[1:100, -7:2]
    value, _ = graph.forward({"x": library.asarray(X.astype(np.float32))}, f)
    np.testing.assert_array_equal(library.to_numpy(value), X.astype(np.float32)[1:100, -7:2])


def test_narrow_labels_of_many_classes(library: Library) -> None:
    """uint8 holds the label 5, not the number of classes, 300: 261 must not become 5."""
    graph, x, t, _ = xyz()
    scores = np.arange(600, dtype=np.float32).reshape(2, 300)
    inputs = {"x": library.asarray(scores), "y": library.asarray(np.array([5, 7], np.uint8))}
    value, tape = graph.forward(inputs, fn.sum(fn.pick(x, t)))
    assert float(value) == 5 + 307
    expected = np.zeros((2, 300))
    expected[0, 5] = expected[1, 7] = 1
    np.testing.assert_array_equal(library.to_numpy(graph.backward(tape, "x")["x"]), expected)
    gathered, _ = graph.forward({"x": library.asarray(scores.T), "y": inputs["y"]}, fn.gather(x, t))
    np.testing.assert_array_equal(library.to_numpy(gathered), scores.T[[5, 7]])


def test_gather_counts_from_the_end_once() -> None:
    graph, x, t, _ = xyz()
    with pytest.raises(ValueError, match="Gather1"):
        graph.forward({"x": np.arange(3.0), "y": np.array([-4])}, fn.gather(x, t))


def test_pick_beside_infinity() -> None:
    graph, x, t, _ = xyz()
    inputs = {"x": np.array([[0.0, -np.inf], [np.nan, 2.0]]), "y": np.array([0, 1])}
    np.testing.assert_array_equal(graph.forward(inputs, fn.pick(x, t))[0], [0, 2])


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


# -- Gradients that would be incomplete ---------------------------------------------------------


def test_squared_loss_of_two_formulas() -> None:
    """½ Σ (2x - 3x)² has the derivative x: its targets are a formula too."""
    graph, x, *_ = xyz()
    f = fn.squared_loss(x * 2, x * 3, reduction="sum")
    value, tape = graph.forward({"x": np.array([1.0, 2.0])}, f)
    assert value == 2.5
    np.testing.assert_array_equal(graph.backward(tape, "x")["x"], [1, 2])


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (
            lambda x, y: fn.softmax_with_loss(x, fn.exp(x)),
            "SoftmaxWithLoss1 gives no gradient to its input 1, 'Exp1', which depends on x",
        ),
        (
            lambda x, y: x.graph.apply(losses.SquaredLoss(), x, y, fn.sum(x, axis=1)),
            "SquaredLoss1 gives no gradient to its input 2, 'Sum1', which depends on x",
        ),
    ],
)
def test_a_part_of_a_gradient_is_refused(write: Any, words: str) -> None:
    graph, x, y, _ = xyz()
    f = write(x, y)
    inputs = {"x": X, "y": Y}
    _, tape = graph.forward({k: v for k, v in inputs.items() if k in "xy"}, f)
    for act in (lambda: graph.backward(tape, "x"), lambda: graph.backward(tape)):
        with pytest.raises(ValueError, match=re.escape(words)):
            act()


def test_targets_that_are_only_moved_have_no_gradient_and_are_no_error() -> None:
    graph, x, t, _ = xyz()
    f = fn.softmax_with_loss(x, t[0:3])
    value, tape = graph.forward({"x": X, "y": np.array([1, 0, 3, 2])}, f)
    assert list(graph.backward(tape)) == ["x"]
    with pytest.raises(ValueError, match="SoftmaxWithLoss1 has no gradient with respect to y"):
        graph.backward(tape, "y")
    reference, _ = graph.forward({"x": X, "y": np.array([1, 0, 3])}, fn.softmax_with_loss(x, t))
    assert value == reference
    with pytest.raises(ValueError, match="dtype int64; the gates that use it need real"):
        graph.forward({"x": X, "y": np.array([1, 0, 3, 2])}, fn.exp(t[0:3]))


class Bad(gates.Mul):
    def backward(self, cache: Any, dout: Any, needs: Any = ()) -> Any:
        return (dout * cache[1],)


class Worse(gates.Mul):
    def backward(self, cache: Any, dout: Any, needs: Any = ()) -> Any:
        raise ValueError("some reason")


@pytest.mark.parametrize(
    ("gate", "words"),
    [(Bad(), "q gave 1 gradients for 2 inputs"), (Worse(), "q, backward from (): some reason")],
)
def test_a_gate_s_wrong_backward_is_named(gate: Any, words: str) -> None:
    graph, x, *_ = xyz()
    _, tape = graph.forward({"x": 3.0}, graph.apply(gate, x, x, name="q"))
    with pytest.raises(ValueError, match=re.escape(words)):
        graph.backward(tape, "x")


def test_backward_lets_go_of_gradients_that_it_has_used() -> None:
    """Else the memory of a backward pass would grow with the depth."""
    alive: list[int] = []
    seen: list[weakref.ref[Any]] = []

    class Watched(layers.Identity):
        def backward(self, cache: Any, dout: Any, needs: Any = ()) -> Any:
            alive.append(sum(ref() is not None for ref in seen))
            dx = dout * 1.0
            seen.append(weakref.ref(dx))
            return (dx,)

    graph, x, *_ = xyz()
    node = x
    for _ in range(10):
        node = graph.apply(Watched(), node)
    _, tape = graph.forward({"x": np.ones(3)}, node)
    graph.backward(tape, "x")
    assert max(alive) <= 2


def test_nodes_may_be_named() -> None:
    graph, x, y, z = xyz()
    q = (x + y).named("q")
    f = q * z
    assert [node.name for node in graph.nodes_topologically_sorted()] == [
        "x",
        "y",
        "q",
        "z",
        "Mul1",
    ]
    assert graph.trace({"x": -2, "y": 5, "z": -4}, f).values["q"] == 3
    assert str(graph).splitlines()[-2:] == ["q = Add(x, y)", "Mul1 = Mul(q, z)"]
    assert repr(graph) == "<Graph of 3 inputs and 2 gates>"
    for act, words in (
        (lambda: q.named("r"), "q cannot be renamed: Mul1 uses it"),
        (lambda: f.named("q"), "already has a node named 'q'"),
        (lambda: (x + y).named("a b"), "is not a valid name"),
    ):
        with pytest.raises(ValueError, match=words):
            act()
    renamed = f.named("f")
    with pytest.raises(ValueError, match="Mul1 cannot be renamed: it has been renamed"):
        f.named("g")
    assert graph.forward({"x": -2, "y": 5, "z": -4}, renamed)[0] == -12


def test_trace_looks_at_labels() -> None:
    graph, x, t, _ = xyz()
    for f in (fn.softmax_with_loss(x, t), fn.hinge_loss(x, t), fn.sum(fn.pick(x, t))):
        with pytest.raises(ValueError, match=r"labels go from -1 to 99; expected 0 to 3"):
            graph.trace({"x": X, "y": np.array([0, 99, -1])}, f)
    graph.trace({"x": X, "y": np.array([0, 2, -1])}, fn.gather(x, t))  # from the end


def test_a_graph_that_cannot_be_drawn_shows_nothing_in_a_notebook() -> None:
    assert cycle()._repr_svg_() is None
    assert Graph().apply(gates.Neg(), "later").graph._repr_svg_() is None


def test_labels_may_be_gathered(library: Library) -> None:
    graph, x, t, i = xyz()
    f = fn.softmax_with_loss(x, fn.gather(t, i))
    labels, index = np.array([0, 1, 2, 3]), np.array([3, 0, -3])
    inputs = {"x": library.asarray(X.astype(np.float32)), "y": library.asarray(labels)}
    value, _ = graph.forward({**inputs, "z": library.asarray(index)}, f)
    reference, _ = graph.forward(
        {"x": X.astype(np.float32), "y": labels[index]}, fn.softmax_with_loss(x, t)
    )
    assert float(value) == pytest.approx(float(reference), rel=1e-6)
