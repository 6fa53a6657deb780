"""N ranks compute what one process computes: threads as ranks, against one, against plain NumPy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import on_ranks

import xpnet
from xpnet import functions, optim
from xpnet.errors import RankError, UsageError
from xpnet.graph.graph import Graph
from xpnet.models import checkpoint
from xpnet.models.network import Network
from xpnet.parallel import ALONE, Group
from xpnet.trainer.agreement import check_same_bits
from xpnet.trainer.share import Share

RNG = np.random.default_rng(20)
X = RNG.standard_normal((157, 6))
T = (X.sum(axis=1) + 0.3 * RNG.standard_normal(157) > 0).astype(np.int64)
WEIGHT = RNG.uniform(0.5, 2.0, 157)
LIBRARIES = ("numpy", "torch", "strict")
EPOCHS = {"strict": 5}  # it is slow


def network(**options: Any) -> xpnet.Network:
    return xpnet.mlp([6, 16, 8, 2], batch_norm=True, dropout=0.3, seed=1, **options)


def trained(
    group: Group,
    *,
    library: str = "numpy",
    dtype: Any = "float64",
    net: xpnet.Network | None = None,
    rule: Any = None,
    x: np.ndarray = X,
    t: np.ndarray = T,
    augment: str | None = None,
    clip_norm: float = 1.0,
    **training: Any,
) -> tuple[dict[str, np.ndarray], xpnet.History]:
    """Train with all that a step can have; return the parameters and the history."""
    trainer = xpnet.Trainer(
        net or network(), rule or optim.Adam(0.01), weight_decay=1e-3, l1=1e-5, clip_norm=clip_norm,
        dtype=dtype, backend=xpnet.select("cpu", library, dtype=dtype), group=group,
        augment=augment,
    )  # fmt: skip
    training = {"epochs": 50, "batch_size": 16, "sample_weight": WEIGHT} | training
    history = trainer.fit(x, t, **training)
    return trainer.model.to_host(), history


def far(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """Return the largest difference, relative to the largest weight."""
    assert a.keys() == b.keys()
    return max(float(np.abs(a[k] - b[k]).max() / max(np.abs(a[k]).max(), 1.0)) for k in a)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_compute_what_one_process_does(library: str, size: int) -> None:
    # 500 steps: batches of 16 rows, of which 3 ranks have 5, 5 and 6, and a last one of 13.
    pytest.importorskip(library if library != "strict" else "array_api_strict")
    epochs = EPOCHS.get(library, 50)
    one, history = trained(ALONE, library=library, epochs=epochs)
    each = on_ranks(size, lambda group: trained(group, library=library, epochs=epochs))
    assert far(one, each[0][0]) < 1e-12
    for params, other in each:
        assert same(params, each[0][0])  # the same bits on all ranks
        losses = [epoch.train_loss for epoch in other.epochs]
        np.testing.assert_allclose(
            losses, [epoch.train_loss for epoch in history.epochs], rtol=1e-12
        )


def test_float32_to_its_rounding_and_again_the_same_bits() -> None:
    rule = optim.Momentum(
        0.01
    )  # Adam divides by roots of tiny numbers, which doubles no error less
    one, _ = trained(ALONE, dtype="float32", rule=rule)
    first = on_ranks(2, lambda group: trained(group, dtype="float32", rule=rule)[0])
    again = on_ranks(2, lambda group: trained(group, dtype="float32", rule=rule)[0])
    assert far(one, first[0]) < 1e-5
    assert same(first[0], again[0])


def test_batches_smaller_than_the_ranks() -> None:
    one, _ = trained(ALONE, epochs=3, batch_size=2)
    each = on_ranks(5, lambda group: trained(group, epochs=3, batch_size=2)[0])
    assert far(one, each[0]) < 1e-12
    assert all(same(params, each[0]) for params in each)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_regressions(reduction: str) -> None:
    t = X[:, :2] @ RNG.standard_normal((2, 3))
    net = xpnet.mlp([6, 9, 3], loss=("squared", {"reduction": reduction}), seed=3)
    rule = optim.Adam(0.02)

    def work(group: Group) -> dict[str, np.ndarray]:
        return trained(
            group, net=net, rule=rule, t=t, epochs=10, validation=0.2, sample_weight=None
        )[0]

    one = work(ALONE)
    assert far(one, on_ranks(3, work)[0]) < 1e-12


def test_images_move_by_their_place_in_the_whole_batch() -> None:
    x = RNG.random((40, 1, 8, 8))
    t = RNG.integers(0, 3, 40)
    net = xpnet.cnn((1, 8, 8), [[4]], [6], 3, batch_norm=True, dropout=0.2, seed=2)

    def work(group: Group) -> dict[str, np.ndarray]:
        return trained(
            group, net=net, x=x, t=t, epochs=6, batch_size=9, augment="shift=2,flip",
            sample_weight=None,
        )[0]  # fmt: skip

    one = work(ALONE)
    each = on_ranks(3, work)
    assert far(one, each[0]) < 1e-12
    assert same(each[0], each[2])


def test_a_mean_loss_is_the_formula_of_the_whole_batch() -> None:
    """One step of softmax regression with weights, by its formula in plain NumPy."""
    x, t, w = X[:10], T[:10], WEIGHT[:10]
    net = xpnet.mlp([6, 2], seed=4)
    W, b = (np.array(net.params[name], np.float64) for name in ("W1", "b1"))
    scores = x @ W + b
    y = np.exp(scores - scores.max(axis=1, keepdims=True))
    y /= y.sum(axis=1, keepdims=True)
    dy = (y - np.eye(2)[t]) * (w / w.sum())[:, None]

    def work(group: Group) -> dict[str, np.ndarray]:
        trainer = xpnet.Trainer(net, optim.SGD(0.5), dtype="float64", scaling=None, group=group)
        trainer.fit(x, t, epochs=1, batch_size=10, sample_weight=w)
        return trainer.model.to_host()

    for params in on_ranks(3, work):
        np.testing.assert_allclose(params["W1"], W - 0.5 * x.T @ dy, atol=1e-13)
        np.testing.assert_allclose(params["b1"], b - 0.5 * dy.sum(axis=0), atol=1e-13)


def test_what_is_measured_is_what_one_process_measures() -> None:
    x, t = np.tile(X, (20, 1)), np.tile(T, 20)  # several batches of 1,000 samples

    def work(group: Group) -> xpnet.History:
        return trained(
            group, x=x, t=t, epochs=3, batch_size=100, validation=0.5, metric="f1", patience=5,
            sample_weight=None,
        )[1]  # fmt: skip

    one = work(ALONE)
    for history in on_ranks(2, work):
        for epoch, other in zip(one.epochs, history.epochs, strict=True):
            for name in ("train_loss", "val_loss", "val_score", "train_score", "val_metric"):
                assert getattr(epoch, name) == pytest.approx(getattr(other, name), rel=1e-12)


def test_a_run_goes_on_with_another_number_of_ranks(tmp_path: Path) -> None:
    one, _ = trained(ALONE, epochs=12)
    folder = tmp_path / "run"
    calls = iter(range(1000))

    def stopped(group: Group) -> str:
        stop = (lambda: next(calls) >= 3) if group.rank == 1 else None  # on one rank alone
        return trained(group, epochs=12, folder=folder, stop=stop, save_seconds=0.0)[1].reason

    assert on_ranks(2, stopped) == ["stop", "stop"]
    assert checkpoint.numbered(folder)[-1].name != "step-00000000.npz"
    on_ranks(3, lambda group: trained(group, epochs=7, folder=folder, resume=True))
    last, history = trained(ALONE, epochs=12, folder=folder, resume=True)
    assert len(history.epochs) == 12
    assert far(one, last) < 1e-12


def test_weights_drawn_without_a_seed_are_those_of_rank_0() -> None:
    def work(group: Group) -> dict[str, np.ndarray]:
        net = network()
        drawn = {k: np.asarray(p) + group.rank for k, p in net.params.items()}
        return trained(group, net=replace(net, params=drawn), epochs=1)[0]

    each = on_ranks(2, work)
    assert same(*each)
    assert far(trained(ALONE, epochs=1)[0], each[0]) < 1e-12


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"x": X + 1.0}, "samples"),
        ({"t": 1 - T}, "targets"),
        ({"batch_size": 17}, "batch_size"),
        ({"sample_weight": WEIGHT[::-1]}, "sample weights"),
        ({"rule": optim.SGD(0.1)}, "optimizer"),
        ({"rule": optim.Adam(0.02)}, "optimizer"),
        ({"clip_norm": 2.0}, "clip_norm"),
    ],
)
def test_ranks_that_train_something_else_are_refused(changed: dict[str, Any], what: str) -> None:
    def work(group: Group) -> None:
        with pytest.raises(UsageError, match=rf"^rank 1 and rank 0 differ in .*{what}; start"):
            trained(group, epochs=1, **(changed if group.rank else {}))

    on_ranks(2, work)


def test_bad_data_on_one_rank_is_an_error_of_all() -> None:
    def work(group: Group) -> str:
        bad = X.copy()
        if group.rank == 1:
            bad[3, 2] = np.nan
        with pytest.raises((xpnet.errors.DataError, RankError)) as error:
            trained(group, x=bad, epochs=1)
        return str(error.value)

    texts = on_ranks(3, work)
    assert texts[1].startswith("x: row 3, column 2: got nan")
    assert texts[0] == texts[2] == f"rank 1: {texts[1]}"


def test_ranks_of_other_bits_do_not_save() -> None:
    def work(group: Group) -> None:
        weights = {"W1": np.ones(3), "b1": np.array([1.0, 2.0 + 1e-15 * group.rank])}
        with pytest.raises(RankError, match=r"^rank 1: b1 is not that of rank 0 after step 7"):
            check_same_bits(group, weights, 7)

    on_ranks(2, work)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("batch", [1, 5, 7, 64, 513])
def test_parts_make_the_batch(size: int, batch: int) -> None:
    shares = [Share(rank, size, batch, list) for rank in range(size)]
    rows = [np.arange(batch)[share.rows] for share in shares]
    if batch < size:
        assert all(len(part) == batch for part in rows)
        return
    assert np.concatenate(rows).tolist() == list(range(batch))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_callbacks_of_one_rank_end_all() -> None:
    def work(group: Group) -> tuple[int, str]:
        def callback(trainer: Any, epoch: Any) -> bool:
            return group.rank == 1 and epoch.epoch == 2

        history = trained(group, epochs=9, callbacks=callback)[1]
        return len(history.epochs), history.reason

    assert on_ranks(2, work) == [(2, "callback"), (2, "callback")]


@dataclass(frozen=True)
class OwnLoss:
    """A loss that divides by the rows that it sees."""

    reduction: str = "mean"
    targets = "real"
    integers = ()

    def forward(self, y: Any, t: Any) -> tuple[Any, Any]:
        d = y - t.reshape(y.shape)
        return (d * d).sum() / len(y), d

    def backward(self, d: Any, dout: Any, needs: Any = None) -> tuple[Any, None]:
        return 2 * d / len(d) * dout, None

    def decide(self, y: Any) -> Any:
        return y


def own_network(kind: str) -> Network:
    """A network of nodes, of which some take their rows for the whole batch."""
    graph = Graph()
    x, t, W, b = graph.inputs("x t W b")
    scores = functions.affine(x, W, b)
    if kind == "centered":
        scores = scores - functions.mean(scores, axis=0)
    elif kind == "rows":
        scores = scores * functions.sigmoid(scores) + 1.0
    loss = (
        graph.apply(OwnLoss(), scores, t)
        if kind == "loss"
        else functions.softmax_with_loss(scores, t)
    )
    outputs = 1 if kind == "loss" else 2
    params = {"W": np.random.default_rng(0).standard_normal((6, outputs)), "b": np.zeros(outputs)}
    return Network(graph, params, scores, loss, outputs=outputs)


@pytest.mark.parametrize(("kind", "gate"), [("loss", "OwnLoss"), ("centered", "Mean")])
def test_what_takes_its_rows_for_the_whole_batch_is_refused(kind: str, gate: str) -> None:
    net = own_network(kind)
    t = X[:, 0] * 2 if kind == "loss" else T

    def work(group: Group) -> None:
        with pytest.raises(UsageError, match=rf"^the first batch has the loss .*\b{gate}\b"):
            trained(group, net=net, t=t, epochs=1, rule=optim.SGD(0.01), sample_weight=None)

    on_ranks(2, work)


def test_what_takes_each_row_by_itself_is_not() -> None:
    def work(group: Group) -> dict[str, np.ndarray]:
        rule = optim.Adam(0.02)
        return trained(group, net=own_network("rows"), epochs=3, rule=rule, sample_weight=None)[0]

    assert far(work(ALONE), on_ranks(2, work)[0]) < 1e-12
