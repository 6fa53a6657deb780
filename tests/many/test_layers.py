"""Every layer with a first axis of models, against the single models one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.cases import CASES, Case
from tests.conftest import Library
from xpnet import layers, losses
from xpnet.graph.autodiff import promise
from xpnet.layers.dropout import Dropout, DropoutPerModel

LOSSES = tuple(losses.LOSSES.values())


def stackable(case: Case) -> bool:
    """Layers on matrices, activations, dropout and losses; of the losses, on batches of rows."""
    if case.name == "SoftmaxWithLoss sequence" or "inference" in case.name:
        return False
    if isinstance(case.gate, layers.Affine):
        return case.name == "Affine"
    elementwise = bool(promise(case.gate, "elementwise")) or case.name == "Identity"
    return elementwise or isinstance(case.gate, (*LOSSES, Dropout))


TABLE = [case for case in CASES if stackable(case)]


def per_model(gate: Any) -> Any:
    """The gate that takes the axis of models."""
    if isinstance(gate, LOSSES):
        return replace(gate, per_model=True)
    return DropoutPerModel() if isinstance(gate, Dropout) else gate


def ran(gate: Any, inputs: list[Any], dout: Any) -> list[Any]:
    y, cache = gate.forward(*inputs)
    needs = [a is not None and "float" in str(a.dtype) for a in inputs]
    return [y, *gate.backward(cache, dout(y), needs)]


def combinations() -> list[Any]:
    """Each case with the inputs that models may share: data of a layer, targets of a loss."""
    found = []
    for case in TABLE:
        if isinstance(case.gate, LOSSES):
            choices: list[tuple[int, ...]] = [(), (1, 2)]
        else:
            choices = [(), (0,)] if isinstance(case.gate, layers.Affine | Dropout) else [()]
        found += [pytest.param(case, own, id=f"{case.name} {own or ''}") for own in choices]
    return found


# Three models on each library, one on NumPy; of JAX compiled only, which is faster.
RUNS = [
    ("numpy-readonly", 1),
    ("numpy", 3),
    ("strict", 3),
    ("torch", 3),
    ("jax-jit", 3),
    pytest.param("cupy", 3, marks=pytest.mark.gpu),
]


@pytest.mark.parametrize(("library", "models"), RUNS, indirect=["library"])
@pytest.mark.parametrize(("case", "shared"), combinations())
def test_each_model_is_what_it_is_alone(
    case: Case, shared: tuple[int, ...], models: int, library: Library
) -> None:
    dtype = "float64" if library.float64 else "float32"
    drawn = [case.inputs(np.random.default_rng(seed)) for seed in range(models)]
    gates = [case.gate] * models
    if isinstance(case.gate, Dropout):
        gates = [Dropout(0.2 + 0.2 * seed, seed, 1) for seed in range(models)]
    arrays = [
        [a if a is None or a.dtype.kind != "f" else a.astype(dtype) for a in own] for own in drawn
    ]
    for own in arrays:
        for place in shared:
            own[place : place + 1] = arrays[0][place : place + 1]
    stack: list[Any] = []
    for place, first in enumerate(arrays[0]):
        if first is None:
            stack.append(None)
            continue
        alike = place in shared or (isinstance(case.gate, Dropout) and place == 1)
        stack.append(library.asarray(first if alike else np.stack([a[place] for a in arrays])))
    if isinstance(case.gate, Dropout):
        stack += [
            library.asarray(np.array([gate.key for gate in gates], np.int32)),
            library.asarray(np.array([gate.limit for gate in gates], np.int32)),
            library.asarray(np.array([gate.scale for gate in gates], dtype)),
        ]
    wrt_loss = isinstance(case.gate, LOSSES)

    def dout(y: Any) -> Any:
        """For a loss 1, as at the end of a graph; else numbers that are not all one."""
        if wrt_loss:
            return 1.0
        return library.asarray(
            np.cos(np.arange(int(np.prod(y.shape)))).reshape(y.shape)[...].astype(dtype)
        )

    found = library.jit(lambda *inputs: ran(per_model(case.gate), list(inputs), dout))(*stack)
    eps = float(np.finfo(dtype).eps)
    slices = np.array(library.to_numpy(found[0]))
    for k in range(models):
        own = [None if a is None else library.asarray(a) for a in arrays[k]]
        part = np.cos(np.arange(slices.size)).reshape(slices.shape).astype(dtype)
        alone = ran(
            gates[k], own, lambda y, part=part, k=k: 1.0 if wrt_loss else library.asarray(part[k])
        )
        for place, (mine, expected) in enumerate(zip(found, alone, strict=False)):
            if mine is None or expected is None:
                assert mine is None or place - 1 in shared
                continue
            got, want = np.array(library.to_numpy(mine)), np.array(library.to_numpy(expected))
            if place and place - 1 in shared:
                continue  # of what is shared, the gradients add up: see below
            scale = max(1.0, float(np.abs(want).max(initial=0.0)))
            np.testing.assert_allclose(got[k], want, rtol=0, atol=case.ulps * eps * scale)


def test_what_models_share_gets_the_sum_of_their_gradients() -> None:
    rng = np.random.default_rng(0)
    x, W, b = rng.standard_normal((4, 5)), rng.standard_normal((3, 5, 2)), np.zeros((3, 2))
    y, cache = layers.Affine().forward(x, W, b)
    dout = rng.standard_normal(y.shape)
    dx = layers.Affine().backward(cache, dout)[0]
    np.testing.assert_allclose(dx, sum(dout[k] @ W[k].T for k in range(3)), rtol=1e-13)


@pytest.mark.parametrize(
    ("x", "W", "b"),
    [
        ((4, 5), (3, 4, 2), (3, 2)),
        ((2, 4, 5), (3, 5, 2), (3, 2)),
        ((4, 5), (3, 5, 2), (2,)),
        ((3, 1, 4, 5), (3, 5, 2), (3, 2)),
    ],
)
def test_stacks_that_do_not_fit(x: Any, W: Any, b: Any) -> None:
    with pytest.raises(ValueError, match=r"expected W \(K, D, M\), b \(K, M\)"):
        layers.Affine().forward(np.zeros(x), np.zeros(W), np.zeros(b))


def test_labels_of_all_models_and_rows_that_look_alike() -> None:
    """K = N = C: whole numbers are each model's labels, others are rows that all share."""
    scores = np.random.default_rng(0).standard_normal((3, 3, 3))
    labels = np.array([[0, 1, 2], [2, 1, 0], [0, 0, 0]])
    gate = losses.SoftmaxWithLoss(per_model=True)
    each = [losses.SoftmaxWithLoss().forward(scores[k], labels[k])[0] for k in range(3)]
    np.testing.assert_allclose(gate.forward(scores, labels)[0], each, rtol=1e-14)
    rows = np.full((3, 3), 1 / 3)
    each = [losses.SoftmaxWithLoss().forward(scores[k], rows)[0] for k in range(3)]
    np.testing.assert_allclose(gate.forward(scores, rows)[0], each, rtol=1e-14)


@pytest.mark.parametrize("per_model", [False, True])
def test_a_batch_without_weight_is_0(per_model: bool) -> None:
    gate = losses.SoftmaxWithLoss(per_model=per_model)
    x, t, weight = np.ones((2, 4, 3)), np.zeros((2, 4), int), np.zeros((2, 4))
    weight[0] = 1.0
    parts = (x, t, weight) if per_model else (x[1], t[1], weight[1])
    loss, cache = gate.forward(*parts)
    gradient = gate.backward(cache, 1.0)[0]
    assert np.atleast_1d(loss)[-1] == 0.0
    assert np.abs(gradient if not per_model else gradient[1]).max() == 0.0
    assert not per_model or loss[0] == pytest.approx(np.log(3.0))
