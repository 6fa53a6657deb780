"""Sets of networks that cannot be stacked: convolutions, batch normalization, augmented images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.errors import CheckpointError, UsageError
from xpnet.many import ModelSet, Progress, halving, plan

RNG = np.random.default_rng(0)
X = RNG.random((40, 6, 6), np.float32)
T = (X[:, :3].mean(axis=(1, 2)) > X[:, 3:].mean(axis=(1, 2))).astype(int)
RULE = optim.Adam(0.01)


def cnn(**options: Any) -> xpnet.Network:
    return xpnet.cnn((1, 6, 6), [3], [4], 2, **options)


@pytest.mark.parametrize(
    ("network", "augment", "why"),
    [
        (cnn(), None, "convolutions cannot be stacked"),
        (cnn(batch_norm=True), "flip", "convolutions cannot be stacked"),
        (xpnet.mlp([36, 4, 2], batch_norm=True), None, "batch normalization cannot be stacked"),
    ],
)
def test_the_plan_and_the_notes_say_why(network: Any, augment: Any, why: str) -> None:
    found = plan(network, (X, T), RULE, seeds=3, epochs=1, augment=augment)
    assert found.one_by_one == {why: 3}
    assert found.in_words()[-1] == f"3 models one by one: {why}"
    models = xpnet.fit_many(network, (X, T), RULE, seeds=3, epochs=1, augment=augment)
    assert models.notes == [f"3 models trained one by one: {why}"]


def test_each_model_is_the_one_that_a_trainer_trains() -> None:
    network = cnn(batch_norm=True, dropout=0.2)
    models = xpnet.fit_many(
        network, (X, T), RULE, grid={"channels": [[3], [[2, 2]]], "lr": [0.02, 0.01]}, seeds=2,
        epochs=2, batch_size=10, augment="shift=1,flip",
    )  # fmt: skip
    assert len(models) == 8
    for k in (0, 3, 6):
        member = models.members[k]
        own = {"channels": member.settings["channels"], "seed": member.seed}
        trainer = xpnet.Trainer(
            xpnet.cnn(**{**network.arguments, **own}), optim.Adam(member.settings["lr"]),
            seed=member.seed, augment="shift=1,flip",
        )  # fmt: skip
        trainer.fit(X, T, epochs=2, batch_size=10)
        for name, value in trainer.model.to_host().items():
            np.testing.assert_array_equal(models[k].to_host()[name], value)


def test_other_layers_draw_other_weights_and_dropout_leaves_them() -> None:
    own = {name: np.full(v.shape, 0.25) for name, v in cnn(batch_norm=True).values.items()}
    network = cnn(batch_norm=True, params=own)
    still = optim.SGD(1e-30)
    for model in xpnet.fit_many(network, (X, T), still, grid={"dropout": [0.0, 0.5]}, epochs=1):
        assert (model.to_host()["W1"] == 0.25).all()
    models = xpnet.fit_many(
        network, (X, T), still, grid={"kernel": [3, 5], "hidden": [[], [2, 2]]}, epochs=1
    )
    assert [m.to_host()["W1"].shape[2] for m in models] == [3, 3, 5, 5]


def test_augmented_images_train_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # So far, every network of images has a gate that cannot be stacked anyway.
    monkeypatch.setattr("xpnet.many.planning.unstackable", lambda network: "")
    found = plan(cnn(), (X, T), RULE, seeds=2, augment="flip")
    assert found.one_by_one == {"augmented images cannot be stacked": 2}
    with pytest.raises(UsageError, match="this network takes 36 features in a row"):
        plan(xpnet.mlp([36, 2]), (X, T), augment="flip")


def test_callbacks_see_each_model_by_itself() -> None:
    seen: list[tuple[int, list[int], int]] = []

    def callback(progress: Progress) -> Any:
        losses = len(progress.histories[progress.live[0]].epochs)
        seen.append((progress.epoch, progress.live, losses))
        return [1] if progress.epoch == 1 else None

    models = xpnet.fit_many(cnn(), (X, T), RULE, seeds=3, epochs=2, callbacks=callback)
    assert seen == [(1, [0], 1), (2, [0], 2), (1, [1], 1), (1, [2], 1), (2, [2], 2)]
    assert [history.reason for history in models.histories] == ["epochs", "callback", "epochs"]
    assert models.notes[-1] == "callbacks see the models that train one by one each by itself"
    models = xpnet.fit_many(
        cnn(), (X, T), RULE, seeds=3, epochs=3, validation=0.2, callbacks=halving(1)
    )
    assert [len(history.epochs) for history in models.histories] == [3, 3, 3]


def test_a_set_is_saved_averaged_and_gone_on_with(tmp_path: Path) -> None:
    options: dict[str, Any] = {"seeds": 2, "batch_size": 10, "augment": "flip"}
    network = cnn(batch_norm=True)
    whole = xpnet.fit_many(network, (X, T), RULE, epochs=3, **options)
    calls = iter([False, False, True])
    stopped = xpnet.fit_many(
        network,
        (X, T),
        RULE,
        epochs=3,
        folder=tmp_path / "run",
        stop=lambda: next(calls),
        **options,
    )
    assert [history.reason for history in stopped.histories] == ["stop", "stop"]
    resumed = xpnet.fit_many(
        network, (X, T), RULE, epochs=3, folder=tmp_path / "run", resume=True, **options
    )
    whole.save(tmp_path / "set.npz")
    loaded = ModelSet.load(tmp_path / "set.npz")
    for k in range(2):
        for name, value in whole[k].to_host().items():
            np.testing.assert_array_equal(resumed[k].to_host()[name], value)
            np.testing.assert_array_equal(loaded[k].to_host()[name], value)
    assert 0.0 <= (loaded.ensemble().evaluate(X, T)["accuracy"] or 0.0) <= 1.0
    with pytest.raises(CheckpointError, match="augment was flip, is shift=2"):
        xpnet.fit_many(
            network, (X, T), RULE, epochs=3, folder=tmp_path / "run", resume=True,
            **{**options, "augment": "shift"},
        )  # fmt: skip
