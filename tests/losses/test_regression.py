"""Losses of a regression, against PyTorch's values and autograd and scikit-learn's metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Library

import xpnet
from xpnet import optim
from xpnet.data import Scaling, standardize
from xpnet.errors import DataError, UsageError
from xpnet.graph.gradcheck import check
from xpnet.losses import AbsoluteLoss, HuberLoss, PoissonLoss, QuantileLoss, SquaredLoss

INF = np.inf
RNG = np.random.default_rng(0)
# Ties too: errors of 0, and of ±1, where Huber's two cases meet.
Y = np.concatenate([RNG.standard_normal((40, 3)) * 3, [[0.0, 1.0, -1.0], [2.0, 1.0, 0.0]]])
T = np.concatenate([RNG.poisson(1.5, (40, 3)) * 1.0, [[0.0, 0.0, 0.0], [2.0, 2.0, 1.0]]])
WEIGHT = RNG.uniform(0.5, 2.0, len(Y))


def pinball(y: Any, t: Any, **options: Any) -> Any:
    import torch

    e = t - y
    # Where the two are equal, `maximum` halves the gradient; ours is 0, so the tie is left out.
    return torch.where(e > 0, 0.9 * e, torch.where(e < 0, -0.1 * e, 0.0 * e.detach()))


def deviance(x: Any, t: Any, **options: Any) -> Any:
    import torch

    return torch.special.xlogy(t, t) - t * x - t + torch.exp(x)


def in_torch(name: str, **options: Any) -> Callable[..., Any]:
    def call(y: Any, t: Any) -> Any:
        from torch.nn import functional

        return getattr(functional, name)(y, t, reduction="none", **options)

    return call


PAIRS: list[tuple[Any, Callable[..., Any]]] = [
    (SquaredLoss, lambda y, t: 0.5 * in_torch("mse_loss")(y, t)),
    (AbsoluteLoss, in_torch("l1_loss")),
    (HuberLoss, in_torch("huber_loss")),
    (lambda reduction: HuberLoss(0.3, reduction), in_torch("huber_loss", delta=0.3)),
    (lambda reduction: QuantileLoss(0.9, reduction), pinball),
    (PoissonLoss, deviance),
]
NAMES = ["squared", "absolute", "huber", "huber 0.3", "quantile 0.9", "poisson"]


@pytest.mark.parametrize(("make", "theirs"), PAIRS, ids=NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_agree_with_autograd(
    make: Any, theirs: Any, dtype: str, reduction: str, weighted: bool
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    gate = make(reduction=reduction)
    y, t, w = (a.astype(dtype) for a in (Y, T, WEIGHT if weighted else np.ones(len(Y))))
    loss, cache = gate.forward(y, t, w if weighted else None)
    dy = gate.backward(cache, 1.0)[0]
    assert loss.dtype == dy.dtype == dtype

    leaf = torch.tensor(y, dtype=torch.float64, requires_grad=True)
    each = theirs(leaf, torch.tensor(t, dtype=torch.float64)).sum(dim=1)
    factors = torch.tensor(w, dtype=torch.float64)
    expected = (each * factors).sum() / (factors.sum() if reduction == "mean" else 1.0)
    expected.backward()
    rtol = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(float(loss), expected.item(), rtol=rtol)
    np.testing.assert_allclose(dy, leaf.grad.numpy(), rtol=rtol, atol=rtol / 10)


def test_agree_with_the_metrics_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    outputs = Y.shape[1]
    for quantile in (0.1, 0.5, 0.9):
        loss, _ = QuantileLoss(quantile).forward(Y, T, WEIGHT)
        expected = metrics.mean_pinball_loss(T, Y, sample_weight=WEIGHT, alpha=quantile)
        assert float(loss) / outputs == pytest.approx(expected, rel=1e-13)
    loss, _ = AbsoluteLoss().forward(Y, T)
    assert float(loss) / outputs == pytest.approx(metrics.mean_absolute_error(T, Y), rel=1e-13)
    loss, _ = PoissonLoss().forward(Y, T, WEIGHT)
    rates, t, w = PoissonLoss().predictions(Y).ravel(), T.ravel(), np.repeat(WEIGHT, outputs)
    expected = metrics.mean_poisson_deviance(t, rates, sample_weight=w) / 2
    assert float(loss) / outputs == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("make", [AbsoluteLoss, HuberLoss, QuantileLoss, SquaredLoss])
def test_no_gradient_at_a_tie_and_both_formulas_receive_one(make: Any) -> None:
    gate = make()
    _, cache = gate.forward(T, T)
    np.testing.assert_array_equal(gate.backward(cache, 1.0)[0], 0.0)
    graph = xpnet.Graph()
    x, V = graph.inputs("x V")
    error = graph.apply(make(), x @ V, xpnet.functions.tanh(x))
    values = {"x": RNG.standard_normal((5, 3)), "V": RNG.standard_normal((3, 3))}
    assert max(row.error for row in check(graph, values, error, ["x", "V"])) < 1e-7


@pytest.mark.parametrize(
    ("gate", "y", "t", "expected"),
    [
        (AbsoluteLoss(), -INF, 1.0, INF),
        (HuberLoss(), INF, 1.0, INF),
        (HuberLoss(), -INF, 1.0, INF),
        (QuantileLoss(0.1), INF, 1.0, INF),
        (QuantileLoss(0.1), -INF, 1.0, INF),
        (PoissonLoss(), -INF, 0.0, 0.0),
        (PoissonLoss(), -INF, 2.0, INF),
        (PoissonLoss(), INF, 0.0, INF),
        (PoissonLoss(), INF, 2.0, INF),
        (PoissonLoss(), np.nan, 2.0, np.nan),
        (PoissonLoss(), -1e4, 3.0, 3 * np.log(3) + 3e4 - 3),
        (PoissonLoss(), np.log(1e6), 1e6, 0.0),
    ],
)
def test_infinite_and_huge_outputs(
    gate: Any, y: float, t: float, expected: float, library: Library
) -> None:
    dtype = np.float64 if library.float64 else np.float32
    arrays = (library.asarray(np.array([[value]], dtype)) for value in (y, t))
    value, cache = gate.forward(*arrays)
    got = float(library.to_numpy(value))
    # A loss of 0 is the difference of numbers as large as t log t.
    size = 1e6 * np.log(1e6) * np.finfo(dtype).eps * 10
    assert got == pytest.approx(expected, rel=1e-6, abs=size, nan_ok=True)
    if np.isfinite(expected):
        assert np.isfinite(library.to_numpy(gate.backward(cache, 1.0)[0])).all()


@pytest.mark.parametrize("bad", [INF, -INF, np.nan])
@pytest.mark.parametrize("loss", xpnet.losses.LOSSES.values(), ids=xpnet.losses.LOSSES)
def test_samples_of_weight_0_do_not_count_whatever_they_are(
    loss: Any, bad: float, library: Library
) -> None:
    dtype = np.float64 if library.float64 else np.float32
    gate = loss()
    x = np.array([[0.5, -1.0, 2.0], [0.0, bad, 1.0]], dtype)
    t = np.array([[0.0, 1.0, 0.0]] * 2, dtype)
    weight = np.array([2.0, 0.0], dtype)
    value, cache = gate.forward(*map(library.asarray, (x, t, weight)))
    dx = library.to_numpy(gate.backward(cache, 1.0)[0])
    alone, cache = gate.forward(x[:1], t[:1])
    assert float(library.to_numpy(value)) == pytest.approx(float(alone), rel=1e-6)
    np.testing.assert_allclose(dx[:1], gate.backward(cache, 1.0)[0], rtol=1e-6)
    np.testing.assert_array_equal(dx[1], 0.0)


def test_a_rate_too_large_warns_as_an_exponential_does() -> None:
    for call in (PoissonLoss().predictions, lambda x: PoissonLoss().forward(x, x * 0)):
        with pytest.warns(RuntimeWarning, match="overflow encountered in exp"):
            call(np.array([[1000.0]]))


# -- Trained -------------------------------------------------------------------------------


def fitted(loss: Any, t: np.ndarray, **options: Any) -> xpnet.Trainer:
    """A constant answer: a network without a feature that says anything."""
    trainer = xpnet.Trainer(
        xpnet.mlp([1, 1], loss=loss, init=0.0), optim.Adam(optim.exponential(0.1, 1500)),
        dtype="float64", **options,
    )  # fmt: skip
    trainer.fit(np.zeros((len(t), 1)), t, epochs=1500, batch_size=len(t))
    return trainer


@pytest.mark.filterwarnings("ignore:no better than guessing")  # which is right
def test_the_best_constants_are_known() -> None:
    t = RNG.exponential(2.0, 101)
    for loss, expected in (
        ("absolute", np.median(t)),
        (QuantileLoss(0.9), np.quantile(t, 0.9)),
        (HuberLoss(1e3), t.mean()),
        ("poisson", t.mean()),
    ):
        answer = fitted(loss, t).predict(np.zeros((1, 1)))
        assert answer.shape == (1, 1)
        assert answer[0, 0] == pytest.approx(expected, abs=0.02)


def test_rates_scores_and_r2_are_in_the_units_of_the_targets(backend: Any) -> None:
    x = RNG.standard_normal((300, 2))
    t = RNG.poisson(np.exp(0.5 + x @ [0.8, -0.3])).astype(float)
    trainer = xpnet.Trainer(xpnet.mlp([2, 1], loss="poisson"), optim.Adam(0.05), backend=backend)
    trainer.fit(x, t, epochs=10)
    rates = trainer.predict(x)
    np.testing.assert_allclose(rates, np.exp(trainer.model.scores(x)), rtol=1e-6)
    expected = 1 - ((rates[:, 0] - t) ** 2).sum() / ((t - t.mean()) ** 2).sum()
    measured = trainer.evaluate(x, t)
    assert measured["r2"] == pytest.approx(expected, abs=1e-5)
    assert measured["r2"] > 0.3
    deviance = PoissonLoss().forward(trainer.model.scores(x).astype(float), t[:, None])[0]
    assert measured["loss"] == pytest.approx(float(deviance), rel=1e-5)


@pytest.mark.filterwarnings("ignore:no better than guessing")  # which is right
def test_a_scaling_may_change_the_unit_of_counts_but_not_their_zero() -> None:
    t = RNG.exponential(2000.0, 60)
    trainer = fitted("poisson", t, target_scaling=Scaling(0.0, 1e-3))
    assert trainer.predict(np.zeros((1, 1)))[0, 0] == pytest.approx(t.mean(), rel=0.01)
    assert trainer.evaluate(np.zeros((60, 1)), t)["r2"] == pytest.approx(0.0, abs=1e-3)
    network = xpnet.mlp([1, 1], loss="poisson")
    for scaling in (standardize(t[:, None]), Scaling(1.0, 1.0), Scaling(0.0, -1.0)):
        with pytest.raises(UsageError, match="target_scaling: PoissonLoss needs targets >= 0; exp"):
            xpnet.Model(network, target_scaling=scaling)


@pytest.mark.parametrize("t", [[1.0, -0.5, 2.0], [[1], [-1], [2]]])
def test_negative_counts_are_refused(t: Any) -> None:
    trainer = xpnet.Trainer(xpnet.mlp([1, 1], loss="poisson"))
    with pytest.raises(DataError, match=r"t: row 1: got .*, expected targets >= 0 for this loss"):
        trainer.fit(np.zeros((3, 1)), np.array(t))
    with pytest.raises(DataError, match="t of the validation set: row 1"):
        trainer.fit(np.zeros((1, 1)), np.ones(1), validation=(np.zeros((3, 1)), np.array(t)))
    xpnet.Trainer(xpnet.mlp([1, 1], loss="huber")).fit(np.zeros((3, 1)), np.array(t), epochs=1)
