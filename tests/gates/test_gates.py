"""Every gate of the table on every library: gradients, parity, purity."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace, device
from cases import CASES, Case
from conftest import Library, open_library

import xpnet
from xpnet import functions, gates, layers, losses, optim
from xpnet.graph.gradcheck import check_gate
from xpnet.layers import activations

TABLE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def arrays_of(case: Case, dtype: str) -> list[np.ndarray | None]:
    made = case.inputs(np.random.default_rng(0))
    return [a.astype(dtype) if a is not None and a.dtype.kind == "f" else a for a in made]


def evaluate(
    library: Library, case: Case, arrays: list[np.ndarray | None]
) -> tuple[list[Any], list[Any]]:
    """(inputs, [output, gradients...]) as arrays of the library; None where there is none."""
    inputs = [None if a is None else library.asarray(a) for a in arrays]

    def both(*inputs: Any) -> list[Any]:
        y, cache = case.gate.forward(*inputs)
        xp = array_namespace(y)
        # Not all ones: a backward that drops dout must not pass.
        dout = xp.reshape(
            xp.arange(1, 1 + int(np.prod(y.shape)), dtype=y.dtype, device=device(y)), y.shape
        )
        needs = [a is not None and a.dtype.kind == "f" for a in arrays]
        return [y, *case.gate.backward(cache, dout * 0.1, needs)]

    return inputs, library.jit(both)(*inputs)


@TABLE
def test_gradient_agrees_with_central_differences(case: Case, library: Library) -> None:
    if not library.float64:
        pytest.skip("the gradient check needs float64, which this device lacks")
    if library.jit.__name__ == "jit":
        pytest.skip("jit adds nothing to the gradient check: parity runs both passes jitted")
    inputs = arrays_of(case, "float64")
    # One-hot targets are of floating type, but a loss gives targets and weights no gradient.
    wrt = [0] if isinstance(case.gate, LOSS_GATES) else None
    if isinstance(case.gate, layers.BatchNorm):
        wrt = [0, 1, 2]  # the statistics get no gradient
    if isinstance(case.gate, losses.SquaredLoss) and inputs[1].shape == inputs[0].shape:
        wrt = [0, 1]  # but for real targets, which may be a formula too
    rows = check_gate(
        case.gate, *inputs, wrt=wrt, asarray=library.asarray, to_numpy=library.to_numpy
    )
    assert rows
    assert max(row.error for row in rows) < 1e-8


@TABLE
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_agrees_with_numpy_and_leaves_inputs_alone(
    case: Case, library: Library, dtype: str
) -> None:
    if dtype == "float64" and not library.float64:
        pytest.skip("this device has no float64")
    arrays = arrays_of(case, dtype)
    _, expected = evaluate(open_library("numpy"), case, arrays)
    inputs, results = evaluate(library, case, arrays)
    eps = np.finfo(dtype).eps
    for result, reference in zip(results, expected, strict=True):
        if reference is None:
            assert result is None
            continue
        assert array_namespace(result) is array_namespace(inputs[0])
        assert device(result) == device(inputs[0])
        got = library.to_numpy(result)
        assert got.dtype == reference.dtype == dtype
        assert got.shape == reference.shape
        scale = max(1.0, float(np.abs(reference).max(initial=0.0)))
        np.testing.assert_allclose(got, reference, rtol=0, atol=case.ulps * eps * scale)
    for array, kept in zip(inputs, arrays, strict=True):
        if kept is not None:
            np.testing.assert_array_equal(library.to_numpy(array), kept)


@TABLE
def test_backward_leaves_output_and_cache_alone(case: Case) -> None:
    """Run backward twice on writable NumPy arrays: the second must give what the first gave."""
    arrays = arrays_of(case, "float64")
    y, cache = case.gate.forward(*arrays)
    y_before, dout = np.array(y), np.ones_like(y)
    needs = [a is not None and a.dtype.kind == "f" for a in arrays]
    first = [None if g is None else np.array(g) for g in case.gate.backward(cache, dout, needs)]
    second = case.gate.backward(cache, dout, needs)
    np.testing.assert_array_equal(y, y_before)
    np.testing.assert_array_equal(dout, 1.0)
    for a, b in zip(first, second, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a, b)


def test_hinge_gradient_of_soft_rows() -> None:
    rng = np.random.default_rng(0)
    t = rng.dirichlet(np.ones(4), 5)
    rows = check_gate(losses.HingeLoss(), rng.standard_normal((5, 4)), t, wrt=[0])
    assert rows[0].error < 1e-8


SEVERAL = [
    c
    for c in CASES
    if type(c.gate).__name__ in ("Add", "Sub", "Mul", "Div", "Max", "MatMul", "Affine")
]


@pytest.mark.parametrize("case", SEVERAL, ids=lambda case: case.name)
def test_gradients_are_skipped_when_not_needed(case: Case) -> None:
    arrays = arrays_of(case, "float64")
    y, cache = case.gate.forward(*arrays)
    for wanted in range(len(arrays)):
        needs = [i == wanted for i in range(len(arrays))]
        parts = case.gate.backward(cache, np.ones_like(y), needs)
        assert [part is not None for part in parts] == needs


MODULES = (gates, layers, losses)
LOSS_GATES = tuple(losses.LOSSES.values())


def test_every_gate_is_in_the_table() -> None:
    """A gate that is added and not tested fails here, with its name."""
    defined = {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type) and hasattr(value, "backward") and value is not gates.Gate
    }
    assert defined == {type(case.gate) for case in CASES}
    public = {name: getattr(module, name) for module in MODULES for name in module.__all__}
    exported = {name for name, value in public.items() if isinstance(value, type)}
    assert exported == {gate.__name__ for gate in defined} | {"Gate"}


@pytest.mark.parametrize(
    ("module", "table"), [(activations, layers.ACTIVATIONS), (losses, losses.LOSSES)]
)
def test_every_activation_and_loss_is_to_be_had_by_name(module: Any, table: Any) -> None:
    public = [getattr(module, name) for name in module.__all__]
    assert set(table.values()) == {value for value in public if isinstance(value, type)}


def test_layer_code_names_no_library_and_multiplies_through_one_door() -> None:
    """Layers see an array library only through the namespace of their data."""
    folder = Path(xpnet.__file__).parent
    rooms = ("gates", "layers", "losses")
    paths: list[Path] = []
    for room in ("arrays", "gates", "layers", "losses", "graph", "optim"):
        paths += (folder / room).glob("*.py")
    paths.remove(folder / "graph/gradcheck.py")  # compares on the host
    for path in paths:
        name = str(path.relative_to(folder))
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            assert not isinstance(node, ast.MatMult), f"{name} uses @; ops.matmul is the door"
            if isinstance(node, ast.Call) and name.startswith(rooms):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                assert called not in {"float", "bool", "item", "tolist"}, f"{name}: {called}()"
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or node.names[0].name
                assert module.split(".")[0] not in {"numpy", "cupy", "torch", "jax"}, name


class Captured(np.ndarray):
    """An array that refuses what a CUDA graph cannot hold: any look at its values by the host."""

    def _refuse(self, *rest: Any) -> Any:
        raise AssertionError("an array's value was brought to the host")

    __bool__ = __float__ = __int__ = __index__ = item = tolist = _refuse

    def __getitem__(self, key: Any) -> Any:
        for k in key if isinstance(key, tuple) else (key,):
            assert not (isinstance(k, np.ndarray) and k.dtype == bool), "boolean indexing"
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise AssertionError("an element was assigned")


@TABLE
def test_no_gate_looks_at_a_value(case: Case) -> None:
    inputs = [None if a is None else a.view(Captured) for a in arrays_of(case, "float64")]
    y, cache = case.gate.forward(*inputs)
    needs = [a is not None and a.dtype.kind == "f" for a in inputs]
    case.gate.backward(cache, np.ones(np.shape(y)).view(Captured), needs)


# -- Values known from elsewhere -----------------------------------------------------------


def test_sigmoid_is_stable_at_a_thousand() -> None:
    y, _ = layers.Sigmoid().forward(np.array([-1000.0, -30.0, 0.0, 30.0, 1000.0]))
    np.testing.assert_allclose(y, [0, 9.357622968839299e-14, 0.5, 1, 1], atol=2e-16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid_keeps_its_relative_precision(dtype: str, library: Library) -> None:
    """Against mpmath, from where the result is the smallest normal number to where it is 1."""
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
    if dtype == "float64" and not library.float64:
        pytest.skip("this device has no float64")
    low = -87.0 if dtype == "float32" else -708.0
    x = np.concatenate([np.linspace(low, 40, 400), -np.logspace(-30, 1, 50)]).astype(dtype)
    expected = [float(1 / (1 + mpmath.exp(-mpmath.mpf(float(v))))) for v in x]
    y = library.jit(lambda x: layers.Sigmoid().forward(x)[0])(library.asarray(x))
    np.testing.assert_allclose(
        library.to_numpy(y).astype(float), expected, rtol=4 * np.finfo(dtype).eps
    )


def test_sigmoid_beyond_every_exponential() -> None:
    for dtype in ("float32", "float64"):
        x = np.array([-np.inf, -1e30, -1e4, 0.0, 1e4, 1e30, np.inf, np.nan], dtype)
        with np.errstate(all="raise"):
            y, _ = layers.Sigmoid().forward(x)
        np.testing.assert_array_equal(y, [0, 0, 0, 0.5, 1, 1, 1, np.nan])
        assert y.dtype == dtype


def test_probabilities_of_a_single_output_do_not_cancel() -> None:
    p = losses.SigmoidWithLoss().probabilities(np.array([[50.0], [-50.0]]))
    np.testing.assert_allclose(p, [[np.exp(-50), 1], [1, np.exp(-50)]], rtol=1e-14)


INF = np.inf


@pytest.mark.parametrize(
    ("loss", "scores", "targets", "expected"),
    [
        (losses.SoftmaxWithLoss(), [[1.0, -INF, 2.0]], [2], np.log1p(np.exp(-1.0))),
        (losses.SoftmaxWithLoss(), [[-INF, -INF, 2.0]], [2], 0.0),
        (losses.SoftmaxWithLoss(), [[1.0, -INF]], [1], INF),
        (losses.SoftmaxWithLoss(), [[1.0, -INF, 1.0]], [[0.5, 0.0, 0.5]], np.log(2)),
        (losses.HingeLoss(), [[1.0, -INF, 2.0]], [2], 0.0),
        (losses.HingeLoss(), [[1.5, -INF, 2.0]], [[0.0, 0.0, 1.0]], 0.5),
        (losses.HingeLoss(), [[1.0, -INF]], [1], INF),
        (losses.HingeLoss(), [[1.0, INF]], [1], 0.0),
        (losses.SigmoidWithLoss(), [[-INF]], [[0.0]], 0.0),
        (losses.SigmoidWithLoss(), [[INF]], [[1.0]], 0.0),
        (losses.SigmoidWithLoss(), [[-INF]], [[1.0]], INF),
        (losses.SigmoidWithLoss(), [[INF, 0.0]], [[0.0, 1.0]], INF),
        (losses.SquaredLoss(), [[INF, 0.0]], [[0.0, 1.0]], INF),
    ],
)
def test_losses_of_infinite_scores(
    loss: Any, scores: Any, targets: Any, expected: float, library: Library
) -> None:
    dtype = np.float64 if library.float64 else np.float32
    t = np.array(targets)
    arrays = np.array(scores, dtype), t.astype(dtype if t.dtype.kind == "f" else np.int32)
    # An infinite true score leaves inf - inf in its own place, which is then left out.
    with np.errstate(invalid="ignore" if type(loss) is losses.HingeLoss else "warn"):
        value, cache = loss.forward(*map(library.asarray, arrays))
    assert float(library.to_numpy(value)) == pytest.approx(expected, rel=1e-6)
    if np.isfinite(expected):
        dx = library.to_numpy(loss.backward(cache, 1.0)[0])
        assert np.isfinite(dx).all()


@pytest.mark.parametrize(
    ("gate", "inputs", "mask"),
    [
        (layers.ReLU(), [np.array([-1.0, 0.0, 2.0, -INF])], [0, 0, 1, 0]),
        (gates.AtLeast(0.0), [np.array([-1.0, 0.0, 2.0, -INF])], [0, 0, 1, 0]),
        (gates.Max(), [np.array([-1.0, 2.0]), np.array([3.0, -INF])], [0, 1]),
        (layers.Dropout(0.5), [np.ones(64), np.asarray(3, np.int32)], None),
    ],
)
@pytest.mark.parametrize("dout", [INF, -INF, np.nan])
def test_what_is_shut_lets_no_gradient_through(
    gate: Any, inputs: Any, mask: Any, dout: float, library: Library
) -> None:
    inputs = [a.astype(np.float32) if a.dtype == float else a for a in inputs]
    y, cache = gate.forward(*map(library.asarray, inputs))
    if mask is None:
        mask = library.to_numpy(y) > 0
        assert 0 < mask.sum() < mask.size
    filled = library.asarray(np.full(len(mask), dout, np.float32))
    dx = library.to_numpy(gate.backward(cache, filled)[0])
    np.testing.assert_array_equal(dx, np.where(mask, dout, 0.0).astype(np.float32))


def test_dropout_drops_the_infinite() -> None:
    y, _ = layers.Dropout(0.5).forward(np.full(64, INF), np.asarray(3, np.int32))
    assert set(y.tolist()) == {0.0, INF}


@pytest.mark.parametrize(
    "loss", [losses.SoftmaxWithLoss(), losses.SigmoidWithLoss(), losses.HingeLoss()]
)
def test_a_sample_of_weight_0_does_not_count(loss: Any) -> None:
    scores, t = np.array([[3.0, 1.0], [2.0, -INF]]), np.array([1, 1])
    if isinstance(loss, losses.SigmoidWithLoss):
        t = np.eye(2)[t]
    with np.errstate(invalid="ignore"):  # as above
        value, _ = loss.forward(scores, t, np.array([1.0, 0.0]))
    assert float(value) == float(loss.forward(scores[:1], t[:1])[0])


def test_underflow_is_no_error_outside_a_step() -> None:
    x, t = np.array([[1e3, -1e3], [1e-200, -9.0]]), np.array([0, 1])
    graph = xpnet.Graph()
    a, b = graph.inputs("a b")
    with np.errstate(all="raise"):
        for loss in losses.LOSSES.values():
            # exp(1000) is a rate too large, and no rounding.
            scores = -np.abs(x) if hasattr(loss, "predictions") else x
            loss().forward(scores, t)
            for answer in ("probabilities", "predictions"):
                getattr(loss(), answer, abs)(scores)
        for activation in layers.ACTIVATIONS.values():
            _, cache = activation().forward(x * 0.5)
            activation().backward(cache, x * 1e-8)
        _, tape = graph.forward({"a": x, "b": x}, functions.exp(-a * a) * b)
        graph.backward(tape, douts=[x])
        params = {"W": np.full((2, 2), 1e-200)}
        grads = optim.clip_by_global_norm(optim.add_weight_decay(params, params, 1e-200), 1e-3)
        for rule in optim.OPTIMIZERS.values():
            start = {"W": params["W"].copy()}
            optim.update(rule(), grads, optim.init(rule(), start), start)
        with pytest.raises(FloatingPointError, match="overflow"):  # which is not harmless
            graph.forward({"a": x, "b": x}, functions.exp(a) * b)


def test_softmax_of_the_book() -> None:
    """Seed 003's example: softmax output (0.3, 0.2, 0.5), true class 1, gives (0.3, -0.8, 0.5)."""
    scores = np.log(np.array([[0.3, 0.2, 0.5]]))
    loss, cache = losses.SoftmaxWithLoss().forward(scores, np.array([1]))
    assert loss == pytest.approx(-np.log(0.2))
    dx, _, _ = losses.SoftmaxWithLoss().backward(cache, np.ones(()))
    np.testing.assert_allclose(dx, [[0.3, -0.8, 0.5]])


def test_softmax_of_huge_scores_is_finite() -> None:
    scores = np.array([[1e4, -1e4], [-1e4, 1e4]])
    loss, cache = losses.SoftmaxWithLoss().forward(scores, np.array([0, 0]))
    assert loss == pytest.approx(1e4)  # the mean of 0 and 2e4
    dx, _, _ = losses.SoftmaxWithLoss().backward(cache, np.ones(()))
    np.testing.assert_allclose(dx, [[0, 0], [-0.5, 0.5]], atol=1e-15)


def test_relu_of_the_book() -> None:
    x = np.array([[1.0, -0.5], [-2.0, 3.0]])
    y, cache = layers.ReLU().forward(x)
    np.testing.assert_array_equal(y, [[1, 0], [0, 3]])
    np.testing.assert_array_equal(layers.ReLU().backward(cache, x * 0 + 5)[0], [[5, 0], [0, 5]])


def test_lecture_circuit() -> None:
    """Seed 004: f = (x + y) z at -2, 5, -4 is -12, with gradients -4, -4, 3."""
    q, add = gates.Add().forward(np.asarray(-2.0), np.asarray(5.0))
    f, mul = gates.Mul().forward(q, np.asarray(-4.0))
    dq, dz = gates.Mul().backward(mul, np.asarray(1.0))
    assert (f, *gates.Add().backward(add, dq), dz) == (-12, -4, -4, 3)


def test_max_routes_a_tie_to_the_first_input() -> None:
    _, cache = gates.Max().forward(np.array([2.0, 1.0]), np.array([2.0, 3.0]))
    da, db = gates.Max().backward(cache, np.array([5.0, 7.0]))
    np.testing.assert_array_equal([da, db], [[5, 0], [0, 7]])


def test_hinge_of_the_lecture() -> None:
    """CS231n, lecture 3: cat (3.2, 5.1, -1.7), car, frog: losses 2.9, 0, 12.9, mean 5.27."""
    scores = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    loss, _ = losses.HingeLoss().forward(scores, np.array([0, 1, 2]))
    assert loss == pytest.approx((2.9 + 0 + 12.9) / 3)


def test_whole_number_weights_mean_repetition() -> None:
    rng = np.random.default_rng(0)
    x, t, w = rng.standard_normal((4, 3)), np.array([0, 2, 1, 1]), np.array([1, 3, 2, 1])
    for gate in (losses.SoftmaxWithLoss(), losses.HingeLoss(), losses.SquaredLoss()):
        weighted, _ = gate.forward(x, t, w.astype(float))
        repeated, _ = gate.forward(np.repeat(x, w, axis=0), np.repeat(t, w))
        assert weighted == pytest.approx(float(repeated), rel=1e-14)


@pytest.mark.parametrize("gate", [losses.SoftmaxWithLoss(), losses.SigmoidWithLoss()])
def test_probabilities_follow_decisions(gate: Any) -> None:
    x = np.random.default_rng(1).standard_normal((50, 4))
    p = gate.probabilities(x)
    np.testing.assert_array_equal(np.argmax(p, axis=1), gate.decide(x))
    assert ((p > 0) & (p < 1)).all()
    if isinstance(gate, losses.SoftmaxWithLoss):
        np.testing.assert_allclose(p.sum(axis=1), 1.0)


def test_single_output_sigmoid_has_two_classes() -> None:
    x = np.array([[-2.0], [3.0]])
    p = losses.SigmoidWithLoss().probabilities(x)
    np.testing.assert_allclose(p[:, 1], 1 / (1 + np.exp([2.0, -3.0])))
    np.testing.assert_array_equal(losses.SigmoidWithLoss().decide(x), [0, 1])


# -- Dropout -------------------------------------------------------------------------------


def mask(n: int, step: int, seed: int = 0, layer: int = 0, ratio: float = 0.5) -> np.ndarray:
    gate = layers.Dropout(ratio, seed, layer)
    return gate.forward(np.ones(n), np.asarray(step, np.int32))[0] > 0


def test_dropout_bits_are_those_of_the_definition() -> None:
    """Against the same function in plain Python integers, modulo 2^32."""
    m = 0xFFFFFFFF

    def mix(h: int) -> int:
        h = ((h ^ (h >> 16)) * 0x7FEB352D) & m
        h = ((h ^ (h >> 15)) * 0x846CA68B) & m
        return h ^ (h >> 16)

    seed, layer, step, ratio = 12345, 3, 678, 0.3
    key = mix((mix(seed) + layer) & m)
    first = mix((step + key) & m)
    second = mix((first + key) & m)
    bits = [mix((mix((i + first) & m) + second) & m) for i in range(1000)]
    expected = [(h >> 8) >= int(ratio * 2**24) for h in bits]
    np.testing.assert_array_equal(mask(1000, step, seed, layer, ratio), expected)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.8])
def test_dropout_keeps_the_right_share_and_the_expected_value(ratio: float) -> None:
    n = 200_000
    y, _ = layers.Dropout(ratio).forward(np.ones(n), np.asarray(1, np.int32))
    sigma = np.sqrt(ratio * (1 - ratio) / n)
    assert abs((y > 0).mean() - (1 - ratio)) < 5 * sigma
    assert y.mean() == pytest.approx(1.0, abs=5 * sigma / (1 - ratio))


def test_dropout_masks_are_uncorrelated() -> None:
    """Between steps, layers, seeds, and between neighbours, also shifted against each other."""
    n = 100_000
    base = mask(n, 5)
    others = [mask(n, 6), mask(n, 5, layer=1), mask(n, 5, seed=1), np.roll(base, 1)]
    others += [np.roll(mask(n, 6), shift) for shift in (-1, 1, 2)]
    for other in others:
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / np.sqrt(n)


def test_dropout_is_the_same_in_both_passes() -> None:
    gate = layers.Dropout(0.5)
    x = np.ones((10, 10))
    y, cache = gate.forward(x, np.asarray(3, np.int32))
    dx, _ = gate.backward(cache, np.ones_like(x))
    np.testing.assert_array_equal(y, dx)


# -- Errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: layers.Affine().forward(np.ones((2, 3)), np.ones((4, 5)), np.ones(5)), "(2, 3)"),
        (lambda: layers.Dropout(1.0), "ratio is 1.0; expected a finite number >= 0 and < 1"),
        (lambda: losses.SoftmaxWithLoss().forward(np.ones((2, 3)), np.ones(2)), "targets of shape"),
        (lambda: losses.SoftmaxWithLoss().forward(np.ones((2, 3)), np.array([0])), "(2, 3)"),
        (
            lambda: losses.SquaredLoss().forward(np.ones((2, 3)), np.ones((2, 3)), np.ones(3)),
            "weight has shape (3,)",
        ),
    ],
)
def test_misfits_are_named(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        call()
    assert "\n" not in str(caught.value)
