"""Sweeps of `xpnet train`: many networks from one command, the best one as the run's."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import statistics
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet.commands import compare, evaluate, explain, predict, sweep, train
from xpnet.commands.config.parsing import parse
from xpnet.commands.config.settings import Config
from xpnet.commands.config.toml import to_toml
from xpnet.commands.several import SWEPT, Several, first, is_sweep, sweep_in_words, swept
from xpnet.commands.standings import failures, standings, table_lines
from xpnet.many import Member, ModelSet
from xpnet.models import Model
from xpnet.trainer.history import Epoch, History

FLAGS = {"batch_size": "--batch-size", "weight_decay": "--weight-decay"}


class Killed(BaseException):
    """In the place of kill -9: nothing of the program catches it."""


def write_data(path: str = "d.csv", n: int = 120, numbers: bool = False) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((n, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.8 * rng.standard_normal(n)
    labels = [f"{v:.4f}" for v in y] if numbers else ["yes" if v > 0 else "no" for v in y]
    rows = (",".join([*(f"{v:.6f}" for v in row), t]) for row, t in zip(x, labels, strict=True))
    Path(path).write_text("a,b,c,label\n" + "\n".join(rows) + "\n")


def run(*args: str, out: str = "run") -> int:
    quick = ["--data", "d.csv", "--device", "cpu", "--hidden", "5", "--epochs", "3"]
    return train.main([*quick, "--out", out, *args])


def table(folder: str = "run") -> list[dict[str, str]]:
    with open(f"{folder}/sweep.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def untimed(folder: str) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in table(folder)]


def summary(folder: str = "run") -> dict[str, Any]:
    return dict(json.loads(Path(folder, "summary.json").read_text()))


def params(folder: str) -> dict[str, np.ndarray]:
    return Model.load(Path(folder, "model.npz")).to_host()


# -- Words -------------------------------------------------------------------------------------


def test_one_value_is_no_sweep() -> None:
    for words in ("--lr 0.1", "--seed 3", "--seed 3..3", "--hidden 50,20", "--activation relu,tanh",
                  "--hidden none", "--clip-norm none", "--init 0.1"):  # fmt: skip
        config = parse(words.split())
        assert not is_sweep(config), words
        assert config == first(config)
        assert config.val_fraction == 0.0
    assert parse(["--seed", "3..3"]).seed == 3
    assert parse(["--hidden", "none"]).hidden == ()


def test_several_values_of_each_option() -> None:
    words = (
        "--hidden 50/100,50/none --activation relu/tanh --init he,0.1 --dropout 0,0.5 "
        "--lr 0.1,1e-3 --weight-decay 0,1e-4 --l1 0,0.1 --beta2 0.9,0.99 --clip-norm none,1 "
        "--batch-size 16,32 --epochs 3,5 --seed 0..1,7"
    )
    found = swept(parse(words.split()))
    assert found == {
        "hidden": ((50,), (100, 50), ()), "activation": (("relu",), ("tanh",)), "init": ("he", 0.1),
        "dropout": (0.0, 0.5), "lr": (0.1, 1e-3), "weight_decay": (0.0, 1e-4), "l1": (0.0, 0.1),
        "beta2": (0.9, 0.99),
        "clip_norm": (None, 1.0), "batch_size": (16, 32), "epochs": (3, 5), "seed": (0, 1, 7),
    }  # fmt: skip
    assert ["channels", *found] == [*SWEPT]
    found = swept(parse(["--model", "cnn", "--channels", "4/16-16,32/8,8"]))
    assert found == {"channels": ((4,), ("16-16", 32), (8, 8))}


def test_what_a_sweep_is_in_words() -> None:
    config = parse(["--model", "cnn", "--channels", "4/8-8,16"])
    assert sweep_in_words(config) == "channels 4 / 8-8,16: 2 models"
    config = parse(["--hidden", "50/100,50", "--lr", "0.1,0.01", "--seed", "0..9", "--folds", "5"])
    assert sweep_in_words(config) == (
        "hidden 50 / 100,50; lr 0.1, 0.01; seeds 0 to 9; 5 folds: 200 models"
    )
    rates = ",".join(f"0.{i}" for i in range(10, 30))
    assert "0.1, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.17, ... (19 values)" in sweep_in_words(
        parse(["--lr", rates.replace(",0.20", "")])
    )
    assert "seeds 5, 3: 2 models" in sweep_in_words(parse(["--seed", "5,3"]))


def random_sweep(rng: random.Random) -> Config:
    """A sweep of any kind, as `parse` allows it."""
    choices: dict[str, Any] = {
        "hidden": [(), (5,), (100, 50), (3, 3, 3)],
        "init": ["he", "auto", 0.01, 1e-300],
        "dropout": [0.0, 0.1, 1 / 3],
        "lr": [0.1, 5e-324, 1 / 3, 1e5],
        "weight_decay": [0.0, 1e-4, 2.0],
        "l1": [0.0, 1e-4, 2.0],
        "clip_norm": [None, 1.0, 0.5],
        "batch_size": [1, 16, 10**9],
        "epochs": [1, 7, 100],
        "seed": [0, 3, 10**9, 5],
    }
    values = {
        name: Several(rng.sample(some, rng.randint(2, len(some))))
        for name, some in choices.items()
        if rng.random() < 0.5
    }
    config = replace(Config(val_fraction=0.2), **values)
    if rng.random() < 0.3:
        filters = rng.sample([(30,), ("16-16", 32), (4, 8, "2-2-2"), ("7-7",)], 2)
        config = replace(config, model="cnn", channels=Several(filters))
        values["channels"] = config.channels
    return replace(config, lr=Several((0.1, 0.2))) if not values else config


def test_the_settings_of_a_sweep_are_read_back(tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(40):
        given = random_sweep(rng)
        (tmp_path / "c.toml").write_text(to_toml(given))
        found = replace(parse(["--config", str(tmp_path / "c.toml")]), config=None)
        assert found == given
        assert swept(found) == swept(given)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--folds 1", "--folds is 1; expected a whole number, from 2"),
        ("--folds 121", "--folds is 121, but the training part has 96 samples"),
        ("--folds 5 --val-fraction 0.1", "--folds takes its place: leave one out"),
        ("--folds 5 --patience 3", "--patience needs a validation part, and --folds takes"),
        ("--folds 5 --metric f1", "--metric needs a validation part, and --folds takes"),
        ("--folds 5 --threshold F1", "--threshold F1 needs --val-fraction"),
        ("--ensemble", "--ensemble needs several networks: --seed 0..9, or --folds 5"),
        ("--lr 0.1,0.2 --ensemble", "--ensemble needs several networks of each setting"),
        ("--seed 0,1 --ensemble --loss hinge", "--loss hinge gives none; take softmax"),
        ("--lr 0.1,0.2 --hidden 3/4 --seed 0..9999", "make 40,000 combinations; expected at most"),
        ("--beta2 0.9,0.99 --optimizer sgd", "--beta2 is for adam and adamw, not for sgd"),
        ("--hidden 5/3,3,3 --activation relu,tanh", "--activation has 2 names for 3 hidden layers"),
        ("--lr 0.1,0.2 --val-fraction 0.001", "leaves one side empty"),
        ("--lr 0.1,0.2 --class-weight x=3", "--class-weight: no class 'x'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    write_data()
    assert run(*words.split()) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert [path.name for path in in_tmp.iterdir()] == ["d.csv"]


def test_a_sweep_draws_new_networks(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--lr", "0.1,0.2", "--init-from", "run"]) == 2
    assert "--init-from trains one network on; a sweep draws new ones" in capsys.readouterr().err


def test_a_dry_run_counts_models_and_bytes(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data()
    assert run("--lr", "0.1,0.2", "--seed", "0..4", "--hidden", "5/4,3", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "sweep     hidden 5 / 4,3; lr 0.1, 0.2; seeds 0 to 4: 20 models\n" in out
    assert "plan      20 models; " in out
    assert "10 models of each of 2 forms, all at once\n" in out
    assert "network   3 - 5 - 2, relu" in out
    assert "network   3 - 4 - 3 - 2, relu" in out
    assert "chosen by the 10 validation samples (--val-fraction)" in out
    assert "column  kind" in out
    assert [path.name for path in in_tmp.iterdir()] == ["d.csv"]


# -- Files -------------------------------------------------------------------------------------


def test_the_folder_of_a_sweep(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    write_data()
    assert run("--lr", "0.1,0.001,1e-5", "--seed", "0..2", "--plot", "--ensemble") == 0
    assert {path.name for path in Path("run").iterdir()} == {
        "activations.png", "calibration.png", "checkpoints", "config.toml", "confusion.png",
        "curves.png", "metrics.jsonl", "model.npz", "models.npz", "precision_recall.png",
        "roc.png", "summary.json", "sweep.csv", "sweep.png", "weights.png",
    }  # fmt: skip
    assert Path("run/sweep.png").read_bytes().startswith(b"\x89PNG")
    rows = table()
    assert [(row["lr"], row["seed"]) for row in rows] == [
        (lr, seed) for lr in ("0.1", "0.001", "1e-05") for seed in "012"
    ]
    assert {row["epochs"] for row in rows} == {"3"}
    assert {row["ended_by"] for row in rows} == {"epochs"}
    # The best setting by its mean, and of it the best seed: by hand.
    means = {
        lr: statistics.fmean(float(row["val_accuracy"]) for row in rows if row["lr"] == lr)
        for lr in ("0.1", "0.001", "1e-05")
    }
    of_best = [row for row in rows if row["lr"] == max(means, key=lambda lr: means[lr])]
    best = max(of_best, key=lambda row: float(row["val_accuracy"]))
    assert [row["model"] for row in rows if row["best"] == "true"] == [best["model"]]
    told = summary()
    assert told["sweep"] == {
        "models": 9, "failed": 0, "settings": {"lr": float(best["lr"]), "seed": int(best["seed"])},
        "score": "accuracy", "mean": pytest.approx(max(means.values())),
        "deviation": pytest.approx(statistics.stdev(float(r["val_accuracy"]) for r in of_best)),
    }  # fmt: skip
    assert told["lr"] == float(best["lr"])
    assert told["seed"] == int(best["seed"])
    metrics = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [m["epoch"] for m in metrics] == [1, 2, 3]
    assert metrics[-1]["val_accuracy"] == float(best["val_accuracy"])
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    first_row = lines[lines.index(next(line for line in lines if line.startswith("lr "))) + 1]
    assert first_row.split()[0] == best["lr"]
    assert f"{max(means.values()):.4f} ± " in first_row
    assert any(
        line.startswith(f"best      lr {best['lr']}, seed {best['seed']}: ") for line in lines
    )
    assert any(line.startswith("epoch   3/3  9 models  train loss ") for line in lines)


def test_each_model_is_the_one_that_a_run_of_its_own_trains(in_tmp: Path) -> None:
    """Schedules, sizes and epochs of each setting are those of a single run with its settings."""
    write_data()
    lists = ["--hidden", "5/4,3", "--activation", "relu/tanh", "--lr", "0.1,0.01", "--batch-size",
             "16,40", "--dtype", "float64", "--ensemble"]  # fmt: skip
    words = ["--data", "d.csv", "--device", "cpu", "--quiet", "--weight-decay", "0.5",
             "--clip-norm", "0.1", "--dropout", "0.2", "--init", "0.3"]  # fmt: skip
    assert train.main([*words, *lists, "--seed", "0,1", "--out", "run"]) == 0
    found, rows = ModelSet.load("run/models.npz"), table()
    assert len(found) == len(rows) == 32
    assert len({row["epochs"] for row in rows}) == 2  # by default, as many steps for each size
    for k, row in enumerate(rows):
        if row["seed"] != "0" or (row["lr"] == "0.01") != (row["activation"] == "tanh"):
            continue  # other seeds split the data in another way; half of the rest will do
        own = [word for name in ("hidden", "activation", "lr", "batch_size")
               for word in (FLAGS.get(name, f"--{name}"), row[name])]  # fmt: skip
        single = [*words, *own, "--val-fraction", "0.1", "--dtype", "float64"]
        assert train.main([*single, "--out", f"single{k}"]) == 0
        alone = params(f"single{k}")
        for name, value in found[k].to_host().items():
            np.testing.assert_allclose(value, alone[name], rtol=0, atol=1e-10)
        last = json.loads(Path(f"single{k}/metrics.jsonl").read_text().splitlines()[-1])
        assert last["epoch"] == int(row["epochs"])
        assert last["val_loss"] == pytest.approx(float(row["val_loss"]), abs=1e-10)
        assert last["train_loss"] == pytest.approx(float(row["train_loss"]), abs=1e-10)


@pytest.mark.parametrize(
    ("optimizer", "schedule"), [("sgd", "step"), ("adam", "inverse"), ("adamw", "plateau")]
)
def test_decay_clipping_and_dropout_of_each_model(
    in_tmp: Path, optimizer: str, schedule: str
) -> None:
    """L2 of the trainer, decoupled decay and L1 follow their lists."""
    write_data()
    words = ["--data", "d.csv", "--device", "cpu", "--quiet", "--optimizer", optimizer, "--epochs",
             "4", "--schedule", schedule, "--dtype", "float64", "--warmup", "3"]  # fmt: skip
    lists = ["--weight-decay", "0,0.1", "--clip-norm", "none,0.1", "--l1", "0,0.01"]
    assert train.main([*words, *lists, "--seed", "0,1", "--ensemble", "--out", "run"]) == 0
    found, rows = ModelSet.load("run/models.npz"), table()
    for k, row in enumerate(rows):
        if row["seed"] != "0":
            continue
        own = ["--weight-decay", row["weight_decay"], "--clip-norm", row["clip_norm"],
               "--l1", row["l1"], "--val-fraction", "0.1"]  # fmt: skip
        assert train.main([*words, *own, "--out", f"single{k}"]) == 0
        for name, value in params(f"single{k}").items():
            np.testing.assert_allclose(found[k].to_host()[name], value, rtol=0, atol=1e-10)


def test_folds_choose_a_setting_which_is_then_trained_on_all_samples(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data()
    assert run("--lr", "0.1,1e-6", "--folds", "4", "--seed", "0,1") == 0
    out = capsys.readouterr().out
    rows = table()
    assert len(rows) == 16
    assert [row["fold"] for row in rows[:8]] == ["0", "1", "2", "3"] * 2
    assert {row["best"] for row in rows} == {"false"}
    assert "held-out accuracy, the best settings first" in out
    assert "over 2 seeds and 4 folds:" in out
    assert "best      lr 0.1: held-out accuracy 0." in out
    assert "now trained on all 96 samples (model.npz)" in out
    assert run("--lr", "0.1", "--quiet", out="single") == 0
    alone = params("single")
    assert all((value == alone[name]).all() for name, value in params("run").items())
    for name in ("test_loss", "test_accuracy", "steps", "epochs"):
        assert summary()[name] == summary("single")[name]


def test_the_test_part_does_not_choose(in_tmp: Path) -> None:
    write_data()
    write_data("test.csv", 40)
    text = Path("test.csv").read_text()
    wrong = text.replace("yes", "x").replace("no", "yes").replace("x", "no")
    Path("wrong.csv").write_text(wrong)
    words = ["--lr", "0.1,0.01,0.001", "--seed", "0..2", "--quiet"]
    assert run(*words, "--test-data", "test.csv") == 0
    assert run(*words, "--test-data", "wrong.csv", out="other") == 0
    assert untimed("run") == untimed("other")
    assert summary()["test_accuracy"] == pytest.approx(1 - summary("other")["test_accuracy"])
    assert all((v == params("other")[name]).all() for name, v in params("run").items())


def probabilities(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """A network of one hidden layer of relu, written out."""
    hidden = np.maximum(x @ weights["W1"] + weights["b1"], 0)
    scores = np.exp(hidden @ weights["W2"] + weights["b2"])
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def test_an_ensemble_is_the_mean_of_the_best_setting(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data()
    write_data("test.csv", 200)
    assert run("--lr", "0.1,1e-6", "--seed", "0..3", "--ensemble", "--test-data", "test.csv") == 0
    told = summary()["ensemble"]
    assert told["models"] == [0, 1, 2, 3]
    found = ModelSet.load("run/models.npz")
    assert len(found) == 8
    with open("test.csv", encoding="utf-8") as file:
        data = list(csv.DictReader(file))
    columns = {name: [float(row[name]) for row in data] for name in "abc"}
    t = np.array([row["label"] == "yes" for row in data])
    x = np.array([columns[name] for name in "abc"]).T
    shift, scale = found[0].encoder.scaling
    each = [probabilities(found[k].to_host(), (x - shift) * scale) for k in told["models"]]
    proba = np.mean(each, axis=0)
    assert told["test_accuracy"] == pytest.approx(np.mean((proba[:, 1] > 0.5) == t))
    loss = -np.mean(np.log(proba[np.arange(len(t)), t.astype(int)]))
    assert told["test_log_loss"] == pytest.approx(loss, rel=1e-4)
    assert "ensemble  accuracy " in (out := capsys.readouterr().out)
    assert "the mean of 4 networks on the test part (models.npz)" in out


def test_the_settings_file_repeats_the_sweep(in_tmp: Path) -> None:
    write_data()
    assert run("--lr", "0.1,0.01", "--seed", "0,1", "--batch-size", "16,32", "--quiet") == 0
    settings = tomllib.loads(Path("run/config.toml").read_text())
    expected = {"lr": [0.1, 0.01], "seed": [0, 1], "batch_size": [16, 32], "epochs": 3,
                "hidden": [5], "val_fraction": 0.1}  # fmt: skip
    assert expected.items() <= settings.items()
    assert train.main(["--config", "run/config.toml", "--quiet", "--out", "again"]) == 0
    assert untimed("again") == untimed("run")
    assert [*table()[0]][:4] == ["model", "lr", "batch_size", "seed"]
    assert Path("again/config.toml").read_text() == Path("run/config.toml").read_text()


def test_models_that_fail_are_named_and_the_others_go_on(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data()
    assert run("--optimizer", "sgd", "--lr", "1e30,0.1", "--seed", "0,1") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "failed    all 2 models of lr 1e+30; the first: " in out
    assert out.index("\n0.1 ") < out.index("\n1e+30 ")
    rows = table()
    assert [row["ended_by"] for row in rows] == ["failed", "failed", "epochs", "epochs"]
    assert [bool(row["failure"]) for row in rows] == [True, True, False, False]
    assert [bool(row["val_accuracy"]) for row in rows] == [False, False, True, True]
    assert summary()["sweep"]["failed"] == 2
    assert summary()["lr"] == 0.1
    assert run("--optimizer", "sgd", "--lr", "1e30,0.1", "--folds", "2", out="folds") == 0
    assert "failed    all 2 models of lr 1e+30" in capsys.readouterr().out
    assert run("--optimizer", "sgd", "--lr", "1e30,0.1", "--quiet", out="quiet") == 0
    said = "xpnet: warning: 1 of 2 models failed; quiet/sweep.csv names each\n"
    assert capsys.readouterr() == ("", said)
    assert run("--optimizer", "sgd", "--lr", "1e30,0.1", out="one") == 0
    assert "failed    model 0, lr 1e+30: the loss became" in capsys.readouterr().out


def test_a_sweep_of_which_all_models_fail_ends_with_5(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data()
    assert run("--optimizer", "sgd", "--lr", "1e30,1e31", "--quiet") == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("xpnet: all models failed: model 0 (")
    assert err.count("\n") == 1
    assert len(table()) == 2
    assert not Path("run/model.npz").exists()


def test_a_regression(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    write_data(numbers=True)
    words = ["--lr", "0.1,0.01", "--folds", "3", "--ensemble", "--plot"]
    assert run(*words) == 0
    out = capsys.readouterr().out
    assert "held-out r2, the best settings first" in out
    assert "ensemble  r2 " in out
    assert {"test_r2", "ensemble"} <= summary().keys()
    assert {"train_r2", "val_r2"} <= table()[0].keys()


def test_options_of_a_single_run_hold_for_the_best(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data()
    words = ["--lr", "0.1,0.01", "--patience", "2", "--metric", "f1", "--epochs", "40",
             "--threshold", "F1", "--class-weight", "balanced", "--target-acc", "1"]  # fmt: skip
    assert run(*words) == 4
    out, err = capsys.readouterr()
    assert "is below the target 1.0" in err
    assert "validation f1, the best settings first" in out
    rows = table()
    assert {row["ended_by"] for row in rows} <= {"patience", "epochs"}
    assert "val_f1" in rows[0]
    model = Model.load("run/model.npz")
    assert model.threshold == summary()["threshold"] is not None
    best = next(row for row in rows if row["best"] == "true")
    assert max(float(row["val_f1"]) for row in rows) == float(best["val_f1"])
    assert summary()["best_epoch"] == int(best["best_epoch"])


def test_what_trains_one_by_one_is_said(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data()
    assert run("--lr", "0.1,0.01", "--quiet", "--dtype", "float64", out="together") == 0
    monkeypatch.setattr("xpnet.many.planning.unstackable", lambda network: "it is odd")
    assert run("--lr", "0.1,0.01", "--dtype", "float64") == 0
    assert "          2 models one by one: it is odd\n" in capsys.readouterr().out
    for name, value in params("run").items():
        np.testing.assert_allclose(value, params("together")[name], rtol=0, atol=1e-12)


def made_up(
    scores: dict[float, list[float | None]], losses: float = 0.5, metric: str = ""
) -> ModelSet:
    """A set of two-seed settings by lr, whose models have these scores; None for a failure."""
    members, histories = [], []
    for lr, each in scores.items():
        for seed, score in enumerate(each):
            members.append(Member(len(members), {"lr": lr}, seed))
            history = History(reason="epochs" if score is not None else "failed", metric=metric)
            history.failure = "" if score is not None else "model 0 (x) ended: it broke; try less"
            loss = losses + seed / 10 + lr
            epoch = Epoch(1, 4, 0.1, 0.5, loss, score, 1.0, 1.0, score if metric else None)
            history.close(epoch)
            histories.append(history)
    return ModelSet(members, histories, [None] * len(members), metric or "accuracy")


def order(found: ModelSet) -> list[float]:
    return [row.settings["lr"] for row in standings(found, [m.settings for m in found.members])]


def test_settings_stand_by_their_mean_then_their_loss_and_failures_below() -> None:
    assert order(made_up({0.1: [0.5, 0.7], 0.2: [0.7, 0.8], 0.3: [0.1, 0.2]})) == [0.2, 0.1, 0.3]
    assert order(made_up({0.3: [0.5, 0.7], 0.1: [0.7, 0.5]})) == [0.1, 0.3]  # the smaller loss
    assert order(made_up({0.1: [0.9, None], 0.2: [0.4, 0.5], 0.3: [None, None]})) == [0.2, 0.1, 0.3]
    assert order(made_up({0.1: [3.0, 4.0], 0.2: [1.0, 2.0]}, metric="mae")) == [0.2, 0.1]


def test_of_the_best_setting_the_best_seed_is_kept() -> None:
    found = made_up({0.1: [0.5, 0.7], 0.2: [None, 0.1]})
    assert found.best_index == 1
    for equal in (made_up({0.1: [0.7, 0.7]}), made_up({0.1: [2.0, 3.0]}, metric="mae")):
        assert equal.best_index == 0


def test_a_long_table_and_many_failures_are_cut() -> None:
    found = made_up({i / 100: [i / 100, None] for i in range(1, 31)})
    settings = [member.settings for member in found.members]
    rows = standings(found, settings)
    lines = table_lines(rows, "validation accuracy", "2 seeds")
    assert lines[0].endswith("first; mean ± standard deviation over 2 seeds:")
    assert lines[2].split() == ["lr", "accuracy", "loss", "models", "failed"]
    assert lines[3].split() == ["0.3", "0.3000", "0.8000", "2", "1"]
    assert lines[-2] == "... and 10 settings more, in sweep.csv"
    named = failures(found, rows, [f"lr {s['lr']}" for s in settings])
    assert named[0] == "failed    model 59, lr 0.3: it broke"
    assert named[-1] == "failed    and 25 more, in sweep.csv"


# -- Stopping and going on ---------------------------------------------------------------------


def at_epoch(monkeypatch: pytest.MonkeyPatch, number: int, action: Any) -> None:
    def called(log: Any, progress: Any) -> None:
        if progress.epoch == number:
            action()

    monkeypatch.setattr(sweep._Log, "__call__", called)


def kill() -> None:
    raise Killed


@pytest.mark.parametrize("end", ["signal", "kill"])
def test_a_sweep_goes_on_to_the_same_numbers(
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    end: str,
) -> None:
    write_data()
    words = ["--lr", "0.1,0.01", "--seed", "0,1", "--batch-size", "16,20", "--dropout", "0.2",
             "--epochs", "6"]  # fmt: skip
    assert run(*words, "--quiet", out="whole") == 0
    with monkeypatch.context() as patch:
        if end == "signal":
            at_epoch(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
            assert run(*words) == 130
            assert "stopped in epoch 4, and saved; go on with: " in capsys.readouterr().out
        else:
            at_epoch(patch, 3, kill)
            with pytest.raises(Killed):
                run(*words)
            capsys.readouterr()
    assert not Path("run/summary.json").exists()
    for command, args in (
        (predict, ["run", "d.csv"]), (evaluate, ["run", "d.csv"]), (explain, ["--model", "run"]),
        (train, ["--init-from", "run", "--data", "d.csv", "--out", "new"]),
    ):  # fmt: skip
        assert command.main(args) == 2
        assert "holds the networks of a sweep that has not ended" in capsys.readouterr().err
    assert compare.main(["run", "whole"]) == 0
    out, err = capsys.readouterr()
    assert "run: has no summary.json; the run has not ended" in err
    assert "0.1,0.01" in out
    assert train.main(["--resume", "run", "--quiet"]) == 0
    assert untimed("run") == untimed("whole")
    assert all((value == params("whole")[name]).all() for name, value in params("run").items())
    assert train.main(["--resume", "run"]) == 0
    assert "nothing left to train\n" in capsys.readouterr().out
    assert untimed("run") == untimed("whole")


def test_a_last_training_that_is_stopped_is_done_again(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data()
    words = ["--lr", "0.1,0.01", "--folds", "2"]
    assert run(*words, "--quiet", out="whole") == 0
    build = sweep.build_trainer
    built = []

    def stopping(*args: Any, **options: Any) -> Any:
        built.append(1)
        if len(built) == 2:  # the first one describes the sweep
            os.kill(os.getpid(), signal.SIGTERM)
        return build(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "build_trainer", stopping)
        assert run(*words) == 143
    assert "stopped before the end, and saved" in capsys.readouterr().out
    assert not Path("run/model.npz").exists()
    assert train.main(["--resume", "run", "--quiet"]) == 0
    assert all((value == params("whole")[name]).all() for name, value in params("run").items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--lr 0.5,0.1", "--resume continues the sweep in run as it is; leave out --lr, or start"),
        ("--lr 0.1", "leave out --lr"),
        ("--folds 3", "leave out --folds"),
        ("--epochs 9", "leave out --epochs"),
        ("--seed 4", "leave out --seed"),
        ("--preset book", "--preset is for a new run"),
    ],
)
def test_another_sweep_is_not_resumed(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    write_data()
    assert run("--lr", "0.1,0.01", "--quiet") == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert train.main(["--resume", "run", *words.split()]) == 2
    assert message in capsys.readouterr().err
    assert {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()} == before


def test_a_single_run_does_not_become_a_sweep(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data()
    assert run("--quiet") == 0
    for words in ("--lr 0.1,0.2", "--seed 0..3", "--folds 3"):
        assert train.main(["--resume", "run", *words.split()]) == 2
        line = f"--resume continues the training in run as it is; leave out {words.split()[0]}"
        assert line in capsys.readouterr().err
    assert run("--lr", "0.1,0.2") == 2
    assert "holds a run already" in capsys.readouterr().err


def test_other_data_are_not_gone_on_with(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data()
    assert run("--lr", "0.1,0.01", "--quiet") == 0
    write_data(n=121)
    assert train.main(["--resume", "run"]) == 2
    assert "the samples have changed" in capsys.readouterr().err


def test_a_killed_sweep_with_a_lost_settings_file_says_so(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data()
    assert run("--lr", "0.1,0.01", "--quiet") == 0
    Path("run/config.toml").write_text("")
    assert train.main(["--resume", "run"]) == 2
    err = capsys.readouterr().err
    assert err == (
        "xpnet: run/config.toml: lacks the settings of the sweep in this folder, and its "
        "checkpoints do not hold them; start a new run\n"
    )


# -- Other commands ----------------------------------------------------------------------------


def test_the_other_commands_take_the_folder(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data()
    for words, out in (
        (["--seed", "0,1"], "plain"),
        (["--folds", "3", "--lr", "0.1,0.2"], "folds"),
    ):
        assert run(*words, "--hidden", "5/none", "--quiet", out=out) == 0
        assert predict.main([out, "d.csv", "--out", f"{out}.csv"]) == 0
        assert len(Path(f"{out}.csv").read_text().splitlines()) == 121
        assert evaluate.main([out, "d.csv"]) == 0
        assert explain.main(["--model", out]) == 0
        init = ["--init-from", out, "--data", "d.csv", "--epochs", "1", "--quiet"]
        assert train.main([*init, "--out", f"{out}-on"]) == 0
    capsys.readouterr()
    assert compare.main(["plain", "folds", "--csv", "-"]) == 0
    rows = {row["run"]: row for row in csv.DictReader(capsys.readouterr().out.splitlines())}
    assert rows["folds"]["lr"] in ("0.1", "0.2")  # of the best
    assert {row["hidden"] for row in rows.values()} <= {"5", ""}
    assert all(row["finished"] == "true" for row in rows.values())


def test_a_set_of_models_is_no_model(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data()
    assert run("--seed", "0,1", "--ensemble", "--quiet") == 0
    assert predict.main(["run/models.npz", "d.csv"]) == 2
    assert "holds many models, expected one; open it with xpnet.ModelSet" in capsys.readouterr().err
