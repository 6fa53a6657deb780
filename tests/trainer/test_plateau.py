"""The plateau schedule in training: rates, resumes, many models, backends, the command line."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.commands import train
from xpnet.models import checkpoint

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 4))
T = (X[:, 0] * X[:, 1] + 0.5 * RNG.standard_normal(120) > 0).astype(int)
HELD = X[90:], T[90:]
NOISY: Any = {"epochs": 20, "batch_size": 30}


def trainer(rule: Any = None, backend: Any = None, **options: Any) -> xpnet.Trainer:
    rule = rule or optim.Momentum(optim.plateau(1.0, 0.5, 2))
    return xpnet.Trainer(xpnet.mlp([4, 8, 2]), rule, backend=backend, **options)


class Rates:
    """A callback that notes the rate of each epoch."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def __call__(self, trainer: xpnet.Trainer, epoch: Any) -> None:
        self.found.append(trainer.rate)


def expected(values: list[Any], lr: float = 1.0, patience: int = 2, mode: str = "min") -> Any:
    """The rate of each epoch by PyTorch, from what was measured after each."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rule = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        rule, mode, factor=0.5, patience=patience - 1
    )
    rates = []
    for value in values:
        rates.append(rule.param_groups[0]["lr"])
        rule.step()
        theirs.step(value)
    return rates


def test_the_rates_of_a_training_are_pytorchs(backend: Any) -> None:
    rates = Rates()
    history = trainer(backend=backend, dtype="float64").fit(
        X[:90], T[:90], validation=HELD, callbacks=rates, **NOISY
    )
    assert rates.found == pytest.approx(expected(history.column("val_loss")), rel=1e-12)
    assert len({*rates.found}) > 3


def test_a_metric_is_watched_upwards() -> None:
    rates = Rates()
    history = trainer().fit(X[:90], T[:90], validation=HELD, metric="f1", callbacks=rates, **NOISY)
    wanted = expected(history.column("val_metric"), mode="max")
    assert rates.found == pytest.approx(wanted, rel=1e-6)
    assert wanted != expected(history.column("val_loss"))


def test_without_validation_the_training_loss_is_watched() -> None:
    rates = Rates()
    rule = optim.Adam(optim.plateau(0.5, patience=1))
    history = trainer(rule).fit(X, T, callbacks=rates, **NOISY)
    wanted = expected(history.column("train_loss"), 0.5, 1)
    assert rates.found == pytest.approx(wanted, rel=1e-6)
    assert len({*wanted}) > 2


def test_lower_rates_make_other_weights() -> None:
    """The rate reaches the step: until the first fall the run is that of a constant rate."""
    one, other = (trainer(optim.Momentum(lr)) for lr in (optim.plateau(1.0, 0.5, 2), 1.0))
    losses = [
        t.fit(X[:90], T[:90], validation=HELD, **NOISY).column("train_loss") for t in (one, other)
    ]
    same = [a == b for a, b in zip(*losses, strict=True)]
    assert same[:3] == [True] * 3
    assert not any(same[same.index(False) :])
    assert one.rate < other.rate == 1.0


@pytest.mark.parametrize("chunks", [1, 6, 9, 13, 26, 40])
def test_a_resumed_run_goes_on_to_the_same_bits(tmp_path: Path, chunks: int) -> None:
    """Stopped within an epoch and at its end, before and after falls."""
    options: Any = {"validation": HELD, "folder": tmp_path / "run", **NOISY}

    def patient() -> xpnet.Trainer:
        return trainer(optim.Adam(optim.plateau(0.1, 0.3, 2, cooldown=1, warmup=10)), l1=1e-3)

    whole = patient()
    history = whole.fit(X[:90], T[:90], validation=HELD, **NOISY)
    seen: list[int] = []

    def stop() -> bool:
        seen.append(1)
        return len(seen) == chunks

    patient().fit(X[:90], T[:90], stop=stop, **options)
    again = patient()
    resumed = again.fit(X[:90], T[:90], resume=True, **options)
    assert resumed.losses == history.losses
    assert again.rate == whole.rate < 0.1
    for name, p in whole.params.items():
        np.testing.assert_array_equal(again.params[name], p)


def test_a_run_may_take_up_a_plateau_and_change_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(lr: Any, epochs: int) -> xpnet.Trainer:
        made = trainer(optim.SGD(lr))
        made.fit(
            X[:90], T[:90], validation=HELD, folder=tmp_path, resume=True, epochs=epochs,
            batch_size=30,
        )  # fmt: skip
        return made

    run(0.3, 4)
    taken = run(optim.plateau(1e-9, 0.5, 2), 8)
    assert taken.rate == pytest.approx(1e-9 * 0.5**2)
    assert re.search("plateau's factor was None, is 0.5", capsys.readouterr().err)
    other = run(optim.plateau(2e-9, 0.1, 2), 10)
    assert other.rate == pytest.approx(2e-9 * 0.5**2 * 0.1)
    said = capsys.readouterr().err
    assert "plateau's factor was 0.5, is 0.1" in said
    assert "patience" not in said
    assert run(0.3, 11).rate == 0.3


def test_another_metric_begins_anew(tmp_path: Path) -> None:
    """What was measured before is no merit of the new one: neither the best one nor a wait."""

    def run(metric: str | None, epochs: int, rates: Rates | None = None) -> Any:
        made = trainer(optim.SGD(optim.plateau(1e-9, patience=3, threshold=0.5)))
        return made.fit(
            X[:90], T[:90], validation=HELD, folder=tmp_path, resume=True, epochs=epochs,
            batch_size=30, metric=metric, callbacks=rates or [],
        )  # fmt: skip

    assert run("accuracy", 3).column("val_metric") == [pytest.approx(0.5, abs=0.3)] * 3
    rates = Rates()
    found = run("log_loss", 8, rates).column("val_metric")
    assert found[:3] == [None] * 3
    assert None not in found[3:]
    assert rates.found == pytest.approx([1e-9] * 4 + [0.5e-9])


def test_a_loaded_trainer_keeps_its_moments_without_the_plateau(tmp_path: Path) -> None:
    one = trainer()
    one.fit(X, T, folder=tmp_path, **NOISY)
    newest = checkpoint.numbered(tmp_path)[0]
    constant = xpnet.Trainer.load(newest, optimizer=optim.Momentum(0.1))
    assert constant.rate == 0.1
    np.testing.assert_array_equal(constant.state["W1.v"], one.state["W1.v"])
    assert "level" not in constant.state
    anew = xpnet.Trainer.load(newest, optimizer=optim.Momentum(optim.plateau(0.1)))
    assert anew.rate == 0.1


def test_another_fit_goes_on_at_the_rate_that_is_left() -> None:
    one = trainer(optim.SGD(optim.plateau(1e-9, patience=1)))
    one.fit(X, T, epochs=3)
    assert one.rate == pytest.approx(0.25e-9)
    copied, revived = copy.deepcopy(one), pickle.loads(pickle.dumps(one))
    for each in (one, copied, revived):
        each.fit(X, T, epochs=2)
        assert each.rate == pytest.approx(0.125e-9)


def test_jax_compiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    traced: list[int] = []
    update = optim.update
    monkeypatch.setattr(optim, "update", lambda *args: traced.append(1) or update(*args))

    def traces(lr: Any) -> int:
        traced.clear()
        one = trainer(optim.SGD(lr), xpnet.select("cpu", "jax"))
        one.fit(X, T, epochs=6, batch_size=30)
        assert callable(lr) == (one.rate < 1e-9)
        return len(traced)

    assert traces(optim.plateau(1e-9, patience=1, warmup=3)) == traces(1e-9) == 1


def test_the_levels_of_many_models(backend: Any) -> None:
    """Each model has its plateau, in one stack, and follows the training that it has alone."""
    rates, arguments = [1.0, 0.5], {"validation": HELD, "dtype": "float64", "backend": backend}
    data = (X[:90], T[:90])
    models = xpnet.fit_many(
        xpnet.mlp([4, 8, 2]), data, optim.Momentum(optim.plateau(0.3, 0.5, 2, warmup=5)),
        grid={"lr": rates}, seeds=[0, 1, 2], **NOISY, **arguments,
    )  # fmt: skip
    assert models.notes == []
    for member, history in zip(models.members, models.histories, strict=True):
        lr = member.settings["lr"]
        alone = xpnet.Trainer(
            xpnet.mlp([4, 8, 2], seed=member.seed),
            optim.Momentum(optim.plateau(lr, 0.5, 2, warmup=5)),
            seed=member.seed, backend=backend, dtype="float64",
        )  # fmt: skip
        own = alone.fit(*data, validation=HELD, **NOISY)
        assert alone.rate < lr
        np.testing.assert_allclose(history.losses, own.losses, rtol=1e-9)


@pytest.mark.parametrize("chunks", [1, 5, 8, 15, 21])
def test_a_set_goes_on_to_the_same_bits(tmp_path: Path, chunks: int) -> None:
    """Also where models have left the arrays, down to one."""

    def fit(**options: Any) -> xpnet.ModelSet:
        return xpnet.fit_many(
            xpnet.mlp([4, 8, 2]), (X[:90], T[:90]), optim.Adam(optim.plateau(0.1, patience=1)),
            grid={"lr": [0.3, 0.1, 0.01], "l1": [0.0, 1e-3]}, validation=HELD, patience=6,
            **NOISY, **options,
        )  # fmt: skip

    whole, seen = fit(), []

    def stop() -> bool:
        seen.append(1)
        return len(seen) == chunks

    fit(folder=tmp_path / "run", stop=stop)
    again = fit(folder=tmp_path / "run", resume=True)
    for mine, theirs in zip(again.histories, whole.histories, strict=True):
        assert mine.losses == theirs.losses
        assert mine.reason == theirs.reason


def test_a_set_may_not_change_its_plateau(tmp_path: Path) -> None:
    def fit(lr: Any, **options: Any) -> Any:
        network, folder = xpnet.mlp([4, 2]), tmp_path / "run"
        return xpnet.fit_many(network, (X, T), optim.SGD(lr), seeds=2, folder=folder, **options)

    fit(optim.plateau(0.1), epochs=1)
    for name, other in (("factor", 0.1), ("patience", 3), ("min_lr", 0.01)):
        with pytest.raises(xpnet.errors.CheckpointError, match=r"model 0: rule was .*, is "):
            fit(optim.plateau(0.1, **{name: other}), epochs=1, resume=True)


def test_estimators_refuse_one() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    for lr in (optim.plateau(0.1), optim.plateau(0.1, warmup=3)):
        with pytest.raises(ValueError, match=r"^solver has a plateau schedule.*; expected [^\n]*$"):
            xpnet.MLPClassifier(solver=optim.SGD(lr)).fit(X, T)


def test_the_rate_is_in_the_lines_of_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(optim.SGD(optim.plateau(1e-6, patience=2))).fit(X, T, epochs=5, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert "sgd, lr 1e-06 plateau" in lines[2]
    rates = [re.findall(r"  lr (\S+)  ", line) for line in lines if line.startswith("epoch")]
    assert rates == [["1e-06"], ["1e-06"], ["1e-06"], ["5e-07"], ["5e-07"]]


def test_on_the_command_line(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--hidden", "5", "--schedule", "plateau", "--device", "cpu", "--val-fraction", "0.2"]
    args += ["--optimizer", "momentum", "--lr", "0.1", "--epochs", "12"]
    assert train.main([*args, "--patience", "5", "--out", "whole"]) == 0
    lines = capsys.readouterr().out
    assert "momentum, lr 0.1 plateau" in lines
    assert "  lr 0.1  " in lines
    assert "  lr 0.05  " in lines
    assert train.main([*args, "--patience", "5", "--out", "parts", "--epochs", "5"]) == 0
    assert train.main(["--resume", "parts", "--epochs", "12"]) == 0
    one, other = (xpnet.Model.load(f"{name}/model.npz").to_host() for name in ("whole", "parts"))
    for name, p in one.items():
        np.testing.assert_array_equal(p, other[name])
