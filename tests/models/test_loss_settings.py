"""Losses with settings: a network keeps them, and a file too; what a file says is not trusted."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import losses, mlp, optim
from xpnet.data import Scaling
from xpnet.errors import CheckpointError
from xpnet.models import Model, checkpoint

X = np.random.default_rng(0).standard_normal((40, 3))
T = np.abs(X[:, :2])


@dataclass(frozen=True)
class Steeper(losses.SquaredLoss):
    """A gate of a user's own: its class is not xpnet's."""


GATES: list[tuple[Any, Any]] = [
    (losses.QuantileLoss(0.9), ["quantile", {"quantile": 0.9}]),
    (losses.QuantileLoss(), "quantile"),
    (losses.HuberLoss(np.float32(2.0)), ["huber", {"delta": 2.0}]),  # type: ignore[arg-type]
    (losses.HuberLoss(2, "sum"), ["huber", {"delta": 2.0, "reduction": "sum"}]),
    (losses.HingeLoss(2.0), ["hinge", {"margin": 2.0}]),
    (losses.SoftmaxWithLoss("sum"), ["softmax", {"reduction": "sum"}]),
    (losses.PoissonLoss(), "poisson"),
    *((kind(), name) for name, kind in losses.LOSSES.items()),
]


@pytest.mark.parametrize(("gate", "form"), GATES)
def test_a_gate_a_name_and_a_pair_make_one_network(gate: Any, form: Any, tmp_path: Path) -> None:
    network = mlp([3, 4, 2], loss=gate)
    given = form if isinstance(form, str) else tuple(form)
    assert network.builder == "mlp"
    assert network.arguments["loss"] == form
    for other in (given, form):
        twin = mlp([3, 4, 2], loss=other)
        assert twin.loss_gate == network.loss_gate == gate
        assert (twin.form, twin.gates) == (network.form, network.gates)
    trainer = xpnet.Trainer(network, optim.SGD(1e-3))
    trainer.fit(X, T if gate.targets == "real" else np.eye(2)[(X[:, 0] > 0) * 1], epochs=1)
    trainer.save(tmp_path / "m.npz")
    for model in (
        Model.load(tmp_path / "m.npz"),
        Model.load(tmp_path / "m.npz", network=network),
        pickle.loads(pickle.dumps(trainer.model)),
        copy.deepcopy(trainer.model),
    ):
        assert model.network.loss_gate == gate
        np.testing.assert_array_equal(model.predict(X), trainer.predict(X))
        assert model.network.arguments == network.arguments


@pytest.mark.parametrize("gate", [Steeper(), Steeper("sum")])
def test_a_gate_of_the_users_own_is_built_by_hand(gate: Any, tmp_path: Path) -> None:
    network = mlp([3, 4, 2], loss=gate)
    assert (network.builder, network.arguments) == ("", {})
    Model(network).save(tmp_path / "m.npz")
    with pytest.raises(CheckpointError, match="built by hand; pass network="):
        Model.load(tmp_path / "m.npz")
    assert Model.load(tmp_path / "m.npz", network=network).network.loss_gate is gate


def test_a_gate_that_an_older_version_took_for_one_of_the_users_own(tmp_path: Path) -> None:
    network = mlp([3, 4, 2], loss=losses.HingeLoss(2.0))
    arrays, meta = Model(network).packed()
    older = checkpoint.plain(meta | {"builder": "", "arguments": {}})
    checkpoint.save(tmp_path / "m.npz", arrays, older)
    model = Model.load(tmp_path / "m.npz", network=network)
    np.testing.assert_array_equal(model.scores(X), Model(network).scores(X))
    with pytest.raises(CheckpointError, match=r"it has .*margin=2\.0.*, this one .*margin=3\.0"):
        Model.load(tmp_path / "m.npz", network=mlp([3, 4, 2], loss=losses.HingeLoss(3.0)))


def test_settings_tell_networks_apart(tmp_path: Path) -> None:
    low, high = (mlp([3, 4, 2], loss=losses.QuantileLoss(q)) for q in (0.1, 0.9))
    assert low.form != high.form
    Model(low).save(tmp_path / "m.npz")
    with pytest.raises(CheckpointError, match=r"is of another network: it has .*0\.1"):
        Model.load(tmp_path / "m.npz", network=high)
    trainer = xpnet.Trainer(low, optim.SGD(1e-3))
    trainer.fit(X, T, epochs=1, folder=tmp_path / "run")
    xpnet.Trainer(low, optim.SGD(1e-3)).fit(X, T, epochs=2, folder=tmp_path / "run", resume=True)
    other = xpnet.Trainer(high, optim.SGD(1e-3))
    with pytest.raises(CheckpointError, match=r"belongs to another run: loss was .*0\.1"):
        other.fit(X, T, epochs=3, folder=tmp_path / "run", resume=True)


NESTED: Any = []
for _ in range(200):
    NESTED = [NESTED, {}]


@pytest.mark.parametrize(
    "form",
    [
        None, 1, [], {}, "", "l1", ["huber"], ["huber", 2.0], ["huber", []], ["huber", {}, {}],
        [["huber"], {}], [None, {}], ["l1", {}], [{"huber": 1}, {}], {"huber": {"delta": 2.0}},
        ["huber", {"delta": -1.0}], ["huber", {"delta": "1"}], ["huber", {"delta": True}],
        ["huber", {"delta": None}], ["huber", {"delta": [1.0]}], ["huber", {"delta": 10**400}],
        ["huber", {"more": 1.0}], ["huber", {"self": 1.0}], ["huber", {"x\ny": 1.0}],
        ["huber", {"reduction": "x\ny"}], ["huber", {"reduction": ["mean"]}],
        ["huber", {"__class__": "x"}], ["quantile", {"quantile": 1.5}], ["hinge", {"margin": -1}],
        ["softmax", {"margin": 1.0}], ["poisson", {"nonnegative": False}], NESTED,
        ["huber", {"delta": 1.0}], ["huber", {"delta": 2}],
    ],
    ids=lambda form: repr(form)[:40],
)  # fmt: skip
def test_a_file_with_an_odd_loss_is_refused_in_one_line(tmp_path: Path, form: Any) -> None:
    arrays, meta = Model(mlp([3, 4, 2], loss=losses.HuberLoss(2.0))).packed()
    meta = checkpoint.plain(meta)
    meta["arguments"]["loss"] = form
    checkpoint.save(tmp_path / "m.npz", arrays, meta)
    with pytest.raises(CheckpointError, match=r"its network cannot be|is of another") as caught:
        Model.load(tmp_path / "m.npz")
    assert "\n" not in str(caught.value)


def test_a_file_whose_scaling_makes_negative_counts(tmp_path: Path) -> None:
    model = Model(mlp([3, 4, 2], loss="poisson"), target_scaling=Scaling(0.0, 0.5))
    arrays, meta = model.packed()
    checkpoint.save(tmp_path / "m.npz", arrays, meta)
    np.testing.assert_array_equal(Model.load(tmp_path / "m.npz").predict(X), model.predict(X))
    shifted = {**arrays, "target_scaling/shift": np.asarray(1.0)}
    checkpoint.save(tmp_path / "m.npz", shifted, meta)
    with pytest.raises(CheckpointError, match="target_scaling: PoissonLoss needs targets >= 0"):
        Model.load(tmp_path / "m.npz")
