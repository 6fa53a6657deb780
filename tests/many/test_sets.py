"""Sets of models as objects and as files: tables, ensembles, checkpoints, bad input."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.errors import CheckpointError, DataError, UsageError
from xpnet.many import halving, plan
from xpnet.models import checkpoint

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 4))
T = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
NETWORK = xpnet.mlp([4, 6, 3])
SMALL: dict[str, Any] = {"epochs": 2, "batch_size": 40}


def sets(**options: Any) -> xpnet.ModelSet:
    return xpnet.fit_many(NETWORK, (X, T), optim.Adam(0.01), **{**SMALL, **options})


# -- Objects ---------------------------------------------------------------------------


def test_a_model_of_a_set_is_an_ordinary_model(tmp_path: Path) -> None:
    models = sets(seeds=2)
    model = models[-1]
    assert type(model) is xpnet.Model
    assert model is models[1]
    assert model.network.arguments["seed"] == 1
    model.save(tmp_path / "model.npz")
    found = xpnet.Model.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(found.scores(X), model.scores(X))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.scores(X), model.scores(X))
    before = models[0].scores(X)
    xpnet.Trainer(model, optim.SGD(0.1)).fit(X, T, epochs=1)  # trains on, and no other model
    np.testing.assert_array_equal(models[0].scores(X), before)
    with pytest.raises(IndexError, match="there are 2 models; got the number 2"):
        models[2]


def test_the_best_setting_has_the_best_mean_not_the_luckiest_seed() -> None:
    models = sets(seeds=4, grid={"lr": [1e-5, 0.03]}, validation=0.25)
    table = models.table()
    by_setting = {
        lr: [h.epochs[-1].val_score for m, h in zip(models.members, models.histories, strict=True)
             if m.settings["lr"] == lr]
        for lr in (1e-5, 0.03)
    }  # fmt: skip
    means = {lr: np.mean(scores) for lr, scores in by_setting.items()}
    best = max(means, key=lambda lr: means[lr])
    assert table[0]["settings"] == {"lr": best}
    assert table[0]["mean"] == pytest.approx(means[best])
    assert models.members[models.best_index].settings == {"lr": best}
    assert models.scores[models.best_index] == max(by_setting[best])
    columns = models.to_dict()
    assert list(columns) == ["model", "lr", "seed", "epochs", "ended", "accuracy"]
    assert columns["seed"] == [0, 1, 2, 3] * 2


def test_a_metric_that_is_to_be_small() -> None:
    values = X[:, :1] * 3.0
    models = xpnet.fit_many(
        xpnet.mlp([4, 6, 1], loss="squared"), (X, values), optim.Adam(0.01),
        grid={"lr": [1e-6, 0.03]}, validation=0.25, metric="rmse", **SMALL,
    )  # fmt: skip
    assert models.falls
    assert models.table()[0]["mean"] == min(models.scores)
    assert models.best_index == int(np.argmin(models.scores))


def test_an_ensemble_averages_and_says_how_far_its_models_agree() -> None:
    models = sets(seeds=3)
    ensemble = models.ensemble()
    each = np.stack([model.predict_proba(X) for model in models])
    np.testing.assert_allclose(ensemble.predict_proba(X), each.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(ensemble.spread(X), each.std(axis=0, ddof=1), atol=1e-6)
    np.testing.assert_array_equal(ensemble.predict(X), each.mean(axis=0).argmax(axis=1))
    measured = ensemble.evaluate(X, T)
    assert measured["accuracy"] == np.mean(ensemble.predict(X) == T)
    # The logarithm is concave: the average is never worse than the models' mean.
    losses = [model.evaluate(X, T)["log_loss"] for model in models]
    assert (measured["log_loss"] or 9.0) <= np.mean(losses)
    hinge = xpnet.fit_many(xpnet.mlp([4, 3], loss="hinge"), (X, T), seeds=2, **SMALL)
    with pytest.raises(UsageError, match="HingeLoss gives none; train with the softmax"):
        hinge.ensemble()


def test_an_ensemble_of_values_is_in_the_units_of_the_targets() -> None:
    values = X[:, :1] * 1000.0
    models = xpnet.fit_many(xpnet.mlp([4, 6, 1], loss="squared"), (X, values), seeds=3)
    each = np.stack([model.predict(X) for model in models])
    np.testing.assert_allclose(models.ensemble().predict(X), each.mean(axis=0), rtol=1e-6)
    assert np.abs(models.ensemble().spread(X)).max() > 0.1
    assert (models.ensemble().evaluate(X, values)["r2"] or 0.0) > 0.9


# -- Files -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*failed")
def test_a_set_in_a_file(tmp_path: Path) -> None:
    models = sets(
        grid={"lr": [0.1, 1e9], "sizes": [[4, 3], [4, 5, 3]]}, seeds=2, validation=0.2, patience=1
    )
    models.save(tmp_path / "set.npz")
    found = xpnet.ModelSet.load(tmp_path / "set.npz")
    assert str(found) == str(models)
    assert found.notes == models.notes
    assert [h.reason for h in found.histories] == [h.reason for h in models.histories]
    assert found.succeeded == models.succeeded
    for k in models.succeeded:
        np.testing.assert_array_equal(found[k].scores(X), models[k].scores(X))
    models[0].save(tmp_path / "one.npz")
    with pytest.raises(CheckpointError, match=r"holds a single model: open it with Model\.load"):
        xpnet.ModelSet.load(tmp_path / "one.npz")
    with pytest.raises(CheckpointError, match="holds many models, expected one"):
        xpnet.Model.load(tmp_path / "set.npz")
    content = (tmp_path / "set.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[:-50])
    with pytest.raises(CheckpointError, match="cut short"):
        xpnet.ModelSet.load(tmp_path / "cut.npz")


@pytest.mark.parametrize("after", [1, 7, 16])
def test_a_set_that_was_stopped_goes_on_exactly(tmp_path: Path, after: int) -> None:
    """Within an epoch too; two stacks, one of which has given models back already."""
    arguments: Any = {
        "grid": {"lr": [0.1, 1e-6, 0.01, 1e-7], "sizes": [[4, 3], [4, 6, 3]]}, "seeds": 2,
        "validation": 0.25, "patience": 2, "epochs": 6, "batch_size": 20, "dtype": "float64",
    }  # fmt: skip
    whole = xpnet.fit_many(NETWORK, (X, T), optim.Adam(0.01), **arguments)
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls == after

    stopped = xpnet.fit_many(
        NETWORK, (X, T), optim.Adam(0.01), stop=stop, folder=tmp_path / "run", **arguments
    )
    assert "stop" in {history.reason for history in stopped.histories}
    found = xpnet.fit_many(
        NETWORK, (X, T), optim.Adam(0.01), folder=tmp_path / "run", resume=True, **arguments
    )
    for k in range(len(whole)):
        assert found.histories[k].losses == whole.histories[k].losses
        assert found.histories[k].reason == whole.histories[k].reason
        assert found.histories[k].best_epoch == whole.histories[k].best_epoch
        np.testing.assert_array_equal(found[k].scores(X), whole[k].scores(X))


def test_a_checkpoint_of_another_set_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    sets(seeds=2, folder=folder)
    with pytest.raises(CheckpointError, match="holds the checkpoints of another run"):
        sets(seeds=2, folder=folder)
    with pytest.raises(CheckpointError, match="it had 2 models, now there are 3"):
        sets(seeds=3, folder=folder, resume=True)
    with pytest.raises(CheckpointError, match="model 1: seed was 1, is 2"):
        sets(seeds=[0, 2], folder=folder, resume=True)
    with pytest.raises(CheckpointError, match="the samples have changed"):
        xpnet.fit_many(
            NETWORK, (X + 1.0, T), optim.Adam(0.01), seeds=2, folder=folder, resume=True, **SMALL
        )
    with pytest.raises(CheckpointError, match="batch_size was 40, is 20"):
        sets(seeds=2, folder=folder, resume=True, batch_size=20)
    with pytest.raises(CheckpointError, match="epochs was 2, is 3"):
        sets(seeds=2, folder=folder, resume=True, epochs=3)
    with pytest.raises(CheckpointError, match="the scaling has changed"):
        sets(seeds=2, folder=folder, resume=True, scaling=None)
    single = tmp_path / "single"
    xpnet.Trainer(NETWORK).fit(X, T, epochs=1, folder=single)
    with pytest.raises(CheckpointError, match="is not the checkpoint of a set of models"):
        sets(seeds=2, folder=single, resume=True)
    (path, *_) = checkpoint.numbered(folder)
    with pytest.raises(CheckpointError, match="holds the networks of a sweep that has not ended"):
        xpnet.Model.load(path)


def test_an_interruption_beside_a_callback_loses_no_round(tmp_path: Path) -> None:
    arguments: Any = {
        "grid": {"lr": [0.1, 0.03, 0.01, 0.003]}, "epochs": 5, "batch_size": 20, "validation": 0.3,
        "save_seconds": 0.0,
    }  # fmt: skip
    whole = xpnet.fit_many(NETWORK, (X, T), optim.SGD(0.1), callbacks=halving(2), **arguments)
    for epoch in (2, 4):
        folder = tmp_path / str(epoch)

        def broken(progress: Any, epoch: int = epoch) -> None:
            if progress.epoch == epoch:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            xpnet.fit_many(
                NETWORK, (X, T), optim.SGD(0.1), callbacks=[broken, halving(2)], folder=folder,
                **arguments,
            )  # fmt: skip
        found = xpnet.fit_many(
            NETWORK, (X, T), optim.SGD(0.1), callbacks=halving(2), folder=folder, resume=True,
            **arguments,
        )  # fmt: skip
        for mine, theirs in zip(found.histories, whole.histories, strict=True):
            assert (mine.losses, mine.reason) == (theirs.losses, theirs.reason)


def test_how_many_train_at_once_may_change_on_the_way(tmp_path: Path) -> None:
    arguments: Any = {"seeds": 5, "dtype": "float64", "epochs": 3, "batch_size": 40}
    whole = xpnet.fit_many(NETWORK, (X, T), optim.Adam(0.01), at_once=2, **arguments)
    calls = iter(range(100))
    xpnet.fit_many(
        NETWORK, (X, T), optim.Adam(0.01), at_once=2, folder=tmp_path / "run",
        stop=lambda: next(calls) == 4, **arguments,
    )  # fmt: skip
    found = xpnet.fit_many(
        NETWORK, (X, T), optim.Adam(0.01), at_once=4, folder=tmp_path / "run", resume=True,
        **arguments,
    )  # fmt: skip
    for mine, theirs in zip(found, whole, strict=True):
        np.testing.assert_array_equal(mine.scores(X), theirs.scores(X))


def test_a_stopped_set_has_the_scores_of_the_weights_that_it_has() -> None:
    calls = iter(range(100))
    models = sets(
        seeds=3, epochs=9, patience=8, validation=(X[:40], T[:40]), stop=lambda: next(calls) == 7
    )
    for k, model in enumerate(models):
        assert models.histories[k].reason == "stop"
        last = models.histories[k].epochs[-1].val_score
        assert models.scores[k] == last
        assert model.evaluate(X[:40], T[:40])["accuracy"] is not None


def test_a_set_as_a_frame() -> None:
    pytest.importorskip("pandas")
    frame = sets(grid={"lr": [0.1, 0.01], "sizes": [[4, 3], [4, 5, 3]]}, seeds=2).to_frame("pandas")
    assert list(frame.columns) == ["model", "lr", "sizes", "seed", "epochs", "ended", "accuracy"]
    assert (frame["sizes"][2], frame["ended"][0], frame["epochs"].sum()) == ("4-5-3", "epochs", 16)
    assert str(frame["lr"].dtype) == "float64"


def test_a_refused_set_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        sets(seeds=2, folder=tmp_path / "a" / "b", grid={"lr": [-1.0]})
    assert not (tmp_path / "a").exists()


# -- Bad input -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": {"rate": [0.1]}}, "grid has 'rate'; expected names of "),
        ({"grid": {"lr": []}}, "grid: lr is an empty list"),
        ({"grid": {"lr": 0.1}}, "grid: lr is 0.1; expected a list of values"),
        ({"grid": {"activation": "relu"}}, "grid: activation is 'relu'; expected a list"),
        ({"grid": [0.1]}, r"grid is \[0.1\]; expected a dict of lists"),
        ({"grid": {"lr": [0.1, 0.1]}}, "grid: lr has 0.1 twice"),
        ({"grid": {"lr": [0.1, -1.0]}}, "lr is -1.0; expected"),
        ({"grid": {"lr": ["fast"]}}, "lr is 'fast'; expected"),
        ({"grid": {"momentum": [0.5]}}, "grid has 'momentum'; expected names of .*beta1"),
        ({"grid": {"seed": [1]}}, "grid has 'seed'.*seeds have an argument of their own"),
        ({"grid": {"batch_size": [0]}}, "batch_size is 0; expected"),
        ({"grid": {"optimizer": [optim.SGD]}}, "grid: an optimizer is .*SGD.*expected one such as"),
        ({"grid": {"sizes": [[5, 3]]}}, "expected 5 features"),
        ({"grid": {"sizes": [[4, 2]]}}, "t: .*2"),
        ({"seeds": []}, "seeds is an empty list"),
        ({"seeds": 0}, "seeds is 0; expected"),
        ({"seeds": [1, 1]}, "seeds has 1 twice"),
        ({"seeds": [0.5]}, "each of seeds is 0.5"),
        ({"seeds": "3"}, "seeds is '3'"),
        ({"folds": 1}, "folds is 1; expected"),
        ({"folds": 121}, "folds is 121, but there are 120 samples"),
        ({"folds": [([0, 1], [])]}, "folds: fold 0 has rows of"),
        ({"folds": [([0, 1], [500])]}, "folds: fold 0 has rows from 500 to 500; expected 0 to 119"),
        ({"folds": [3]}, r"folds: fold 0 is 3; expected a pair of row numbers"),
        ({"folds": []}, "folds is an empty list"),
        ({"folds": 3, "validation": 0.2}, "folds and validation exclude each other"),
        ({"folds": 3, "groups": T}, "folds and groups exclude each other"),
        ({"groups": T[:5]}, r"groups: got shape \(5,\), expected \(120,\)"),
        ({"groups": np.r_[0, np.ones(119)], "validation": 0.2}, "group 0.0: validation: a share"),
        ({"patience": 2}, "patience needs validation data or folds"),
        ({"metric": "f1"}, "metric needs validation data or folds"),
        ({"metric": "rmse", "folds": 3}, "metric rmse is for a regression"),
        ({"resume": True}, "resume needs the folder"),
        ({"callbacks": 3}, "a callback is 3; expected a function"),
        ({"at_once": 0}, "at_once is 0; expected"),
        ({"lr": 0.1}, "lr is the optimizer's own"),
        ({"sample_weight": np.ones(3)}, r"sample_weight: got shape \(3,\), expected \(120,\)"),
        ({"epochs": 0}, "epochs is 0; expected"),
        ({"folder": 3}, "folder is 3; expected a path"),
        ({"grid": {"optimizer": []}}, "grid: optimizer is an empty list"),
        ({"grid": {"sizes": [4, 3]}}, "grid: sizes has 4; expected lists of sizes"),
        ({"grid": {"lr": [0.1, np.float64(0.1)]}}, "grid: lr has 0.1 twice"),
    ],
    ids=str,
)
def test_bad_arguments_end_in_one_line_before_any_step(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises((UsageError, DataError), match=message) as caught:
        sets(**arguments)
    assert len(str(caught.value).splitlines()) == 1
    if not {"callbacks", "folder", "resume", "patience", "metric"} & arguments.keys():
        if "folds" in arguments and "validation" in arguments:
            return
        with pytest.raises((UsageError, DataError), match=message):
            plan(NETWORK, (X, T), optim.Adam(0.01), **{**SMALL, **arguments})


@pytest.mark.parametrize(
    ("networks", "data", "message"),
    [
        ([], (X, T), "networks is an empty list"),
        ("mlp", (X, T), "networks is 'mlp'; expected one such as"),
        ([NETWORK, 3], (X, T), "a network is 3; expected one such as"),
        (NETWORK, X, "data is .*; expected a pair"),
        (NETWORK, (X[:, :2], T), "expected 4 features"),
        (NETWORK, (X, T[:3]), "t: "),
        ([NETWORK, xpnet.mlp([3, 3])], (X, T), "expected 3 features"),
    ],
    ids=["none", "text", "number", "no pair", "features", "targets", "second network"],
)
def test_bad_networks_and_data(networks: Any, data: Any, message: str) -> None:
    with pytest.raises((UsageError, DataError), match=message):
        xpnet.fit_many(networks, data, **SMALL)


def test_a_grid_over_a_rate_of_ones_own() -> None:
    with pytest.raises(UsageError, match="the optimizer's rate is a function of your own"):
        xpnet.fit_many(NETWORK, (X, T), optim.SGD(lambda k: 0.1), grid={"lr": [0.1]}, **SMALL)


def test_halving_takes_shares_and_counts() -> None:
    for wrong in ({"every": 0}, {"every": 1, "keep": 1.0}, {"every": 1, "least": 0}):
        with pytest.raises(UsageError):
            halving(**wrong)  # type: ignore[arg-type]
