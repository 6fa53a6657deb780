"""The commands, as a user types them: files, words, exit statuses, signals."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet.commands import predict, train
from xpnet.models import checkpoint
from xpnet.trainer import Trainer

QUICK = [
    "--device", "cpu", "--epochs", "2", "--quiet", "--out", "run", "--hidden", "50",
    "--batch-size", "100",
]  # fmt: skip


def run(*args: str) -> int:
    return train.main([*QUICK, *args])


def summary(folder: str = "run") -> dict[str, Any]:
    return dict(json.loads(Path(folder, "summary.json").read_text()))


def test_a_run_folder_has_what_was_promised(in_tmp: Path) -> None:
    assert run("--epochs", "30", "--val-fraction", "0.1", "--plot") == 0
    folder = in_tmp / "run"
    assert sorted(p.name for p in folder.iterdir()) == [
        "activations.png", "calibration.png", "checkpoints", "config.toml", "confusion.png",
        "curves.png", "metrics.jsonl", "mistakes.png", "model.npz", "precision_recall.png",
        "roc.png", "summary.json", "weights.png",
    ]  # fmt: skip
    result = summary()
    assert result["test_accuracy"] > 0.9
    assert result["epochs"] == 30
    assert result["steps"] == 30 * 13  # 1,294 samples in batches of 100
    assert result["backend"] == "numpy"
    assert result["device"] == "cpu"
    assert result["samples_per_second"] > 0
    assert result["versions"]["numpy"] == np.__version__
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 31))
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    assert lines[-1]["val_accuracy"] > 0.85
    settings = tomllib.loads((folder / "config.toml").read_text())
    assert settings["val_fraction"] == 0.1
    assert settings["lr"] == result["lr"] == 0.01  # the default, settled
    for picture in ("curves", "confusion", "mistakes", "weights", "activations"):
        assert (folder / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


def test_words_for_the_user(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--device", "cpu", "--epochs", "2", "--val-fraction", "0.1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "digits: 1,294 + 144 + 359 samples (train + val + test), 10 classes" in out
    assert "64 - 100 - 100 - 10, relu, softmax loss, 17,610 parameters" in out
    assert re.search(r"epoch   2/2  train loss \d\.\d{4}  train accuracy .* samples/s", out)
    assert re.search(r"run +runs/digits-\d{8}-\d{6}\n", out)
    assert len(list((in_tmp / "runs").iterdir())) == 1


def test_dry_run_and_print_config_leave_nothing_behind(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--dry-run", "--device", "cpu", "--out", "run"]) == 0
    assert "1,438 + 359 samples" in capsys.readouterr().out
    assert train.main(["--print-config", "--hidden", "30,20", "--lr", "0.5"]) == 0
    settings = tomllib.loads(capsys.readouterr().out)
    assert settings["hidden"] == [30, 20]
    assert settings["lr"] == 0.5
    assert list(in_tmp.iterdir()) == []


def test_settings_come_from_a_file_and_options_override_it(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.toml").write_text(
        'hidden = [7]\nactivation = ["tanh"]\nval-fraction = 0.2\nquiet = true\nlr = 1e-2\n'
    )
    args = ["--config", "c.toml", "--print-config", "--no-quiet", "--lr", "0.3"]
    assert train.main(args) == 0
    settings = tomllib.loads(capsys.readouterr().out)
    expected = {"hidden": [7], "activation": ["tanh"], "val_fraction": 0.2, "lr": 0.3}
    assert expected.items() <= settings.items()
    assert not {"quiet", "plot", "out", "resume"} & settings.keys()  # of a call, not of a run


def test_printed_settings_can_be_read_again(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = ["--hidden", "", "--init", "0.01", "--patience", "3", "--val-fraction", "0.5"]
    assert train.main([*odd, "--print-config"]) == 0
    first = capsys.readouterr().out
    Path("c.toml").write_text(first)
    assert train.main(["--config", "c.toml", "--print-config"]) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--epochs", "0"], "--epochs is 0; expected a whole number, from 1 to 1,000,000,000"),
        (["--val-fraction", "1.5"], "--val-fraction is 1.5; expected a finite number >= 0 and < 1"),
        (["--lr", "-1"], "--lr is -1.0; expected a finite number > 0"),
        (["--lr", "nan"], "--lr is nan; expected a finite number > 0"),
        (["--clip-norm", "inf"], "--clip-norm is inf; expected a finite number > 0"),
        (["--target-acc", "nan"], "--target-acc is nan; expected a finite number >= 0 and <= 1"),
        (["--target-acc", "95"], "--target-acc is 95.0; expected a finite number >= 0 and <= 1"),
        (["--task", "regression"], "--task needs --data"),
        (
            ["--batch-size", str(10**20)],
            "--batch-size is 1000000000000",
        ),
        (["--patience", "3"], "--patience needs --val-fraction"),
        (["--hidden", "5,4", "--activation", "relu,tanh,relu,tanh"], "has 4 names for 2 hidden"),
        (["--device", "gpu"], "device 'gpu': expected cpu, cuda, cuda:N or auto"),
        (["--data", "nowhere.csv"], "nowhere.csv: does not exist"),
        (["--data-dir", "x"], "--data-dir goes with --dataset mnist"),
        (["--dataset", "mnist", "--data-dir", "nowhere"], "--data-dir nowhere: is not a folder"),
        (["--config", "nowhere.toml"], "nowhere.toml: cannot be read: No such file"),
        (["--resume", "nowhere"], "nowhere/config.toml: cannot be read"),
        (["--device", "cuda", "--backend", "numpy"], "numpy runs on the CPU only"),
    ],
)
def test_bad_usage_ends_with_2_and_one_line(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    assert train.main(["--device", "cpu", "--out", "run", *args]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert err.startswith("xpnet: ")
    assert err.count("\n") == 1
    assert out == ""
    assert list(in_tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch = 3\n", "unknown key 'epoch'; expected activation, augment, backend"),
        ("epochs = \n", "is not TOML"),
    ],
)
def test_bad_settings_files_are_refused(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    Path("c.toml").write_text(text)
    assert train.main(["--config", "c.toml"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("args", [["--epochs", "many"], ["--optimizer", "sdg"]])
def test_options_that_cannot_be_read_end_with_2(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], args: list[str]
) -> None:
    assert train.main(args) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missed_target_ends_with_4(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--target-acc", "0.999") == 4
    assert "is below the target 0.999" in capsys.readouterr().err
    assert summary()["test_accuracy"] < 0.999


def test_a_loss_that_is_not_finite_ends_with_5(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--optimizer", "sgd", "--lr", "1e20", "--loss", "squared", "--hidden", "5,5"]
    assert run(*args, "--activation", "identity") == 5
    err = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"xpnet: the loss became (nan|inf) in epoch \d+, step \d+: try a smaller", err)
    assert not Path("run/summary.json").exists()


def test_an_old_run_is_not_overwritten(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    before = Path("run/summary.json").read_bytes()
    assert run("--seed", "1") == 2
    assert "holds a run already; continue it with --resume" in capsys.readouterr().err
    assert Path("run/summary.json").read_bytes() == before


def test_a_refused_override_leaves_the_run_as_it_was(in_tmp: Path) -> None:
    assert run() == 0
    before = Path("run/config.toml").read_bytes()
    for override in (["--batch-size", "7"], ["--hidden", "4"], ["--activation", "tanh"]):
        assert train.main(["--resume", "run", *override]) == 2
    assert Path("run/config.toml").read_bytes() == before
    assert train.main(["--resume", "run", "--epochs", "4"]) == 0
    assert summary()["epochs"] == 4


def test_a_refusal_to_resume_names_what_changed(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flowers(in_tmp / "f.csv")
    assert run("--data", "f.csv") == 0
    flowers(in_tmp / "f.csv", rows=130)
    assert train.main(["--resume", "run"]) == 2
    assert "the samples have changed" in capsys.readouterr().err
    flowers(in_tmp / "f.csv")
    assert train.main(["--resume", "run", "--dropout", "0.5"]) == 2
    assert "dropout was 0.0, is 0.5. Put that back" in capsys.readouterr().err


def test_a_finished_run_says_that_nothing_is_left(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    assert train.main(["--resume", "run"]) == 0
    assert "nothing left to train: 2 epochs are done; see --epochs" in capsys.readouterr().out


def test_what_was_taken_for_a_label_is_said(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flowers(in_tmp / "f.csv")
    assert train.main(["--data", "f.csv", "--device", "cpu", "--dry-run"]) == 0
    assert "labels    column kind: lily, rose (header line)" in capsys.readouterr().out


def test_a_run_can_be_resumed_from_anywhere_and_after_a_move(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flowers(in_tmp / "f.csv")
    assert run("--data", "f.csv") == 0
    assert train.main(["--resume", str(in_tmp / "run"), "--epochs", "3"]) == 0
    Path("run").rename("moved")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert train.main(["--resume", "../moved", "--epochs", "4"]) == 0
    assert summary("../moved")["epochs"] == 4


def test_runs_of_the_same_second_have_folders_of_their_own(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda form: "20260101-000000")
    for _ in range(3):
        assert train.main(["--epochs", "1", "--quiet", "--device", "cpu"]) == 0
    assert sorted(p.name for p in Path("runs").iterdir()) == [
        "digits-20260101-000000", "digits-20260101-000000-2", "digits-20260101-000000-3",
    ]  # fmt: skip


def test_class_names_that_look_like_formulas(in_tmp: Path) -> None:
    rows = "".join(f"{i % 7},{i % 2},{'$x$' if i % 2 else '$$'}\n" for i in range(60))
    Path("f.csv").write_text(rows)
    assert run("--data", "f.csv", "--plot") == 0
    assert Path("run/confusion.png").exists()


def test_large_regression_targets_are_predicted_with_their_digits(in_tmp: Path) -> None:
    rows = "".join(f"{i},{1_700_000_000 + 0.5 * i}\n" for i in range(100))
    Path("f.csv").write_text("a,y\n" + rows)
    args = ["--hidden", "", "--epochs", "300", "--lr", "0.05", "--optimizer", "sgd",
            "--schedule", "constant"]  # fmt: skip
    assert run("--data", "f.csv", *args) == 0
    assert predict.main(["run", "f.csv", "--out", "p.csv"]) == 0
    predicted = np.loadtxt("p.csv", skiprows=1)
    np.testing.assert_allclose(predicted, 1_700_000_000 + 0.5 * np.arange(100), rtol=0, atol=0.01)


def test_grey_images_with_a_channel_axis(in_tmp: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez("d.npz", x=rng.random((60, 1, 6, 6)), t=np.arange(60) % 3)
    assert run("--data", "d.npz") == 0
    assert predict.main(["run", "d.npz", "--out", "p.csv"]) == 0
    assert len(Path("p.csv").read_text().splitlines()) == 61


def test_test_targets_of_another_width_are_refused(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for name, width in (("a", 3), ("b", 1)):
        np.savez(f"{name}.npz", x=rng.random((40, 2)), t=rng.random((40, width)))
    assert run("--data", "a.npz", "--test-data", "b.npz") == 2
    assert "got 1 targets a sample, expected 3" in capsys.readouterr().err


def test_an_explosion_in_the_last_update_ends_with_5(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--batch-size", "5000", "--epochs", "1", "--lr", "1e38", "--optimizer", "sgd"]
    assert run(*args) == 5
    assert capsys.readouterr().err.startswith("xpnet: the loss became nan in epoch 1, step 1")
    assert not Path("run/model.npz").exists()


def test_plot_without_matplotlib_is_refused_before_training(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run("--plot") == 2
    assert "--plot needs matplotlib: pip install 'xpnet[plot]'" in capsys.readouterr().err
    assert not Path("run").exists()


@pytest.mark.parametrize("library", ["torch", "jax", "strict"])
def test_other_libraries_take_the_same_course(in_tmp: Path, library: str) -> None:
    package = "array_api_strict" if library == "strict" else library
    pytest.importorskip(package, reason=f"{package} is not installed")
    assert run() == 0
    assert run("--backend", library, "--out", "other") == 0
    ours, theirs = summary(), summary("other")
    assert theirs["backend"] == library
    assert theirs["test_accuracy"] == pytest.approx(ours["test_accuracy"], abs=5e-3)
    assert theirs["test_loss"] == pytest.approx(ours["test_loss"], rel=1e-4)


# -- A user's own data -----------------------------------------------------------------------


def flowers(path: Path, rows: int = 120, regression: bool = False) -> None:
    """Two measurements, far from 0 and of different size, that tell a kind or a number."""
    rng = np.random.default_rng(0)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["length", "weight", "kind"])
        for _ in range(rows):
            a, b = rng.uniform(1e4, 1.1e4), rng.uniform(0, 1e-3)
            value = 100 * a + 5e6 * b
            kind = f"{value:.6f}" if regression else ("rose" if value > 1.05e6 + 2500 else "lily")
            writer.writerow([repr(float(a)), repr(float(b)), kind])


def test_csv_of_text_classes_from_training_to_prediction(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flowers(in_tmp / "f.csv")
    assert run("--data", "f.csv", "--epochs", "200", "--lr", "0.01", "--plot") == 0
    assert summary()["test_accuracy"] > 0.9
    assert not Path("run/mistakes.png").exists()
    # with the label column, and without it
    assert predict.main(["run", "f.csv", "--out", "p.csv"]) == 0
    table = list(csv.reader(Path("f.csv").read_text().splitlines()))
    with open("bare.csv", "w", newline="") as file:
        csv.writer(file).writerows(row[:2] for row in table)
    capsys.readouterr()
    assert predict.main(["run", "bare.csv"]) == 0
    assert capsys.readouterr().out == Path("p.csv").read_text()
    rows = list(csv.DictReader(Path("p.csv").read_text().splitlines()))
    assert list(rows[0]) == ["prediction", "p_lily", "p_rose"]
    right = [row["prediction"] == line[2] for row, line in zip(rows, table[1:], strict=True)]
    assert np.mean(right) > 0.9
    for row in rows:
        assert float(row["p_lily"]) + float(row["p_rose"]) == pytest.approx(1, abs=2e-6)
        assert (float(row["p_rose"]) > 0.5) == (row["prediction"] == "rose")


def test_csv_regression_predicts_in_the_units_of_the_data(in_tmp: Path) -> None:
    flowers(in_tmp / "r.csv", regression=True)
    args = ["--epochs", "150", "--lr", "0.01", "--batch-size", "20", "--plot"]
    assert run("--data", "r.csv", *args) == 0
    assert summary()["test_r2"] > 0.99
    assert Path("run/predictions.png").exists()
    assert not Path("run/confusion.png").exists()
    # and from Python, by the same file
    table = np.loadtxt("r.csv", delimiter=",", skiprows=1)
    loaded = Trainer.load("run/model.npz")
    r2 = loaded.evaluate(table[:, :2], table[:, 2])["r2"]
    assert r2 is not None
    assert r2 > 0.99
    assert predict.main(["run", "r.csv", "--out", "p.csv"]) == 0
    predicted = np.loadtxt("p.csv", skiprows=1)
    true = np.loadtxt("r.csv", delimiter=",", skiprows=1)[:, 2]
    assert np.abs(predicted - true).mean() < 0.1 * true.std()
    np.testing.assert_allclose(loaded.predict(table[:, :2])[:, 0], predicted, rtol=1e-5)


def counts(n: int = 300) -> np.ndarray:
    """Write a CSV file of two features and a count with the rate exp(0.5 + a - b / 2)."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, (n, 2))
    t = rng.poisson(np.exp(0.5 + x @ [1.0, -0.5]))
    rows = [f"{a},{b},{count}" for (a, b), count in zip(x.tolist(), t.tolist(), strict=True)]
    Path("counts.csv").write_text("\n".join(["a,b,n", *rows]))
    return x


def predictions(file: str) -> np.ndarray:
    assert predict.main(["run", file, "--out", "p.csv"]) == 0
    return np.loadtxt("p.csv", skiprows=1, ndmin=1)


def test_poisson_predicts_rates(in_tmp: Path) -> None:
    x = counts()
    words = ["--data", "counts.csv", "--task", "regression", "--loss", "poisson", "--hidden", ""]
    assert run(*words, "--epochs", "200", "--lr", "0.05") == 0
    np.testing.assert_allclose(predictions("counts.csv"), np.exp(0.5 + x @ [1.0, -0.5]), rtol=0.35)
    assert Trainer.load("run/model.npz").feed.target_scaling is None
    assert train.main(["--resume", "run", "--quiet", "--epochs", "201"]) == 0


@pytest.mark.parametrize("loss", ["squared", "absolute", "huber", "quantile"])
def test_every_loss_of_a_regression_predicts_in_the_units_of_the_data(
    in_tmp: Path, loss: str
) -> None:
    x = np.linspace(-1.0, 1.0, 200)
    rows = [f"{value},{1e4 + 2e3 * value + 0.5}" for value in x]
    Path("line.csv").write_text("\n".join(["x,y", *rows]))
    words = ["--data", "line.csv", "--loss", loss, "--hidden", "", "--lr", "0.05"]
    words += ["--weight-decay", "0"]
    assert run(*words, "--epochs", "300") == 0
    np.testing.assert_allclose(predictions("line.csv"), 1e4 + 2e3 * x + 0.5, atol=150)


@pytest.mark.filterwarnings("ignore:no better than guessing")  # which is right
def test_a_quantile_lies_above_its_share_of_the_targets(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    t = np.random.default_rng(0).exponential(100.0, 400)
    Path("q.csv").write_text("\n".join(["x,y", *(f"{i % 7},{value}" for i, value in enumerate(t))]))
    words = ["--data", "q.csv", "--loss", "quantile", "--quantile", "0.9", "--hidden", ""]
    assert run(*words, "--dry-run") == 0
    assert "0.9-quantile loss" in capsys.readouterr().out
    assert run(*words, "--epochs", "200", "--lr", "0.05") == 0
    assert (t < predictions("q.csv")).mean() == pytest.approx(0.9, abs=0.03)
    assert train.main(["--resume", "run", "--quiet", "--epochs", "201"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--loss", "poisson"], "the labels are classes; if they are numbers, say --task regress"),
        (["--loss", "huber"], "--loss huber is for a regression, but the labels are classes"),
        (
            ["--loss", "poisson", "--task", "regression", "--label-column", "a"],
            "counts.csv: row 1: got [",
        ),
        (
            ["--class-weight", "balanced", "--task", "regression"],
            "--class-weight needs classes; this is a regression",
        ),
        (["--loss", "huber", "--quantile", "0.9"], "--quantile needs --loss quantile"),
        (["--loss", "quantile", "--quantile", "1"], "--quantile is 1.0; expected a finite number"),
        (
            ["--loss", "hinge", "--task", "regression"],
            "needs one of squared, absolute, huber, quantile, poisson",
        ),
    ],
)
def test_losses_and_weights_that_do_not_fit_the_labels(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    counts()
    assert run("--data", "counts.csv", *words, "--dry-run") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.filterwarnings("ignore:no better than guessing")  # which is right
def test_class_weights_are_of_the_training_part_and_of_the_run(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Features that say nothing: unweighted, the rare class is never the answer."""
    rng = np.random.default_rng(0)
    rows = [f"{a},{'rare' if i % 10 == 0 else 'often'}" for i, a in enumerate(rng.random(400))]
    Path("rare.csv").write_text("\n".join(["a,class", *rows]))
    words = ["--data", "rare.csv", "--hidden", "", "--epochs", "100", "--lr", "0.05"]
    mean = {}
    for weight in ("none", "balanced"):
        assert run(*words, "--class-weight", weight, "--out", f"run-{weight}") == 0
        model = Trainer.load(f"run-{weight}/model.npz")
        mean[weight] = model.predict_proba(rng.random((200, 1)))[:, 1].mean()
    assert mean == pytest.approx({"none": 0.1, "balanced": 0.5}, abs=0.04)
    assert tomllib.loads(Path("run-balanced/config.toml").read_text())["class_weight"] == "balanced"
    assert train.main(["--resume", "run-balanced", "--quiet", "--epochs", "101"]) == 0
    capsys.readouterr()
    resumed = ["--resume", "run-balanced", "--quiet", "--epochs", "102", "--class-weight", "none"]
    assert train.main(resumed) == 2
    assert "belongs to another run: the sample weights have changed" in capsys.readouterr().err


def test_npy_pair_and_a_test_set_of_its_own(in_tmp: Path) -> None:
    rng = np.random.default_rng(0)
    for name, n in (("a", 200), ("b", 70)):
        x = rng.standard_normal((n, 3))
        np.save(f"{name}x.npy", x)
        np.save(f"{name}t.npy", (x.sum(axis=1) > 0).astype(int))
    args = ["--data", "ax.npy", "--labels", "at.npy", "--test-data", "bx.npy"]
    assert run(*args, "--test-labels", "bt.npy", "--epochs", "100", "--loss", "sigmoid") == 0
    assert summary()["test_accuracy"] > 0.9
    assert summary()["steps"] == 200  # all 200 samples: none were set aside
    assert predict.main(["run", "bx.npy", "--out", "p.csv"]) == 0
    assert len(Path("p.csv").read_text().splitlines()) == 71


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,y\n1,2,0\n3,1e999,1\n", "f.csv: line 3, column b: got a number too large"),
        ("a,b,y\n1,2020-01-05,0\n3,2021-02-03,1\n4,2022-02-03,1\n", "'b' has dates or times"),
        ("a,b,y\n1,2,0\n3,1\n", "line 3: got 2 columns, expected 3"),
        ("a,b,y\n", "got no rows"),
    ],
)
def test_bad_data_ends_with_2_before_anything_is_written(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    Path("f.csv").write_text(text)
    assert run("--data", "f.csv") == 2
    assert words in capsys.readouterr().err
    assert not Path("run").exists()


def test_what_the_trainer_refuses_leaves_no_folder(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("d.npz", x=np.full((40, 2), 1e300), t=np.arange(40) % 2)
    assert run("--data", "d.npz", "--no-standardize") == 2
    assert "too large for float32; scale the data" in capsys.readouterr().err
    assert not Path("run").exists()


def test_prediction_refuses_what_does_not_fit(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flowers(in_tmp / "f.csv")
    assert run("--data", "f.csv") == 0
    Path("wide.csv").write_text("1.5,2.5,3,4,5\n" * 3)
    Path("other.csv").write_text("height,weight\n1,2\n")
    np.save("x.npy", np.ones((2, 7)))
    for args, words in [
        (["run", "wide.csv"], "has 5 columns, expected 2"),
        (["run", "other.csv"], "has no column 'length'"),
        (["run", "x.npy"], "expected 2 features"),
        (["run", "x.doc"], "expected a .csv, .tsv, .csv.gz, .parquet, .npz, .npy or IDX file"),
        (["run", "nowhere.csv"], "does not exist"),
        (["nowhere", "f.csv"], "nowhere: cannot be read"),
        (["f.csv", "f.csv"], "is not an xpnet checkpoint"),
    ]:
        assert predict.main([*args, "--out", "p.csv"]) == 2
        err = capsys.readouterr().err
        assert words in err
        assert not Path("p.csv").exists()


# -- Signals and kills -------------------------------------------------------------------------

LONG = ["--device", "cpu", "--epochs", "120", "--batch-size", "10", "--hidden", "50",
        "--dropout", "0.1", "--val-fraction", "0.1", "--schedule", "cosine"]  # fmt: skip


def start(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "xpnet.train", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def wait_for_epoch(process: subprocess.Popen[str], epoch: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"epoch {epoch:3d}/"):
            return
    raise AssertionError("ended before that epoch")


def test_signals_save_and_a_resumed_run_ends_with_the_same_bits(in_tmp: Path) -> None:
    whole = start(*LONG, "--out", "whole")
    for number, status, epoch in ((signal.SIGINT, 130, 10), (signal.SIGTERM, 143, 40)):
        args = ["--resume", "cut"] if Path("cut").exists() else [*LONG, "--out", "cut"]
        process = start(*args)
        wait_for_epoch(process, epoch)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, err
        assert "saved; go on with: python -m xpnet.train --resume cut" in out
        assert not Path("cut/summary.json").exists()
    process = start("--resume", "cut")
    process.communicate(timeout=60)
    assert process.returncode == 0
    whole.communicate(timeout=60)
    assert whole.returncode == 0
    expected, _ = checkpoint.load("whole/model.npz")
    got, _ = checkpoint.load("cut/model.npz")
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)

    def course(folder: str) -> list[tuple[Any, ...]]:
        lines = [
            json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()
        ]
        return [(v["epoch"], v["train_loss"], v["val_loss"], v["val_accuracy"]) for v in lines]

    assert course("cut") == course("whole")
    assert summary("cut")["test_accuracy"] == summary("whole")["test_accuracy"]


def test_killed_before_the_first_checkpoint_starts_again(in_tmp: Path) -> None:
    process = start(*LONG, "--out", "run")
    wait_for_epoch(process, 1)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    resumed = start("--resume", "run", "--epochs", "3")
    _, err = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, err
    lines = Path("run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


def test_a_second_interrupt_ends_at_once(in_tmp: Path) -> None:
    """Steps of this network, and saving it, take long; signals arrive in between."""
    process = start(*LONG, "--out", "run", "--hidden", "3000,3000", "--batch-size", "1000")
    while not Path("run/config.toml").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    deadline = time.monotonic() + 10
    # More than two: those that arrive within one product are one to Python.
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT


def test_a_reader_that_leaves_does_not_end_the_training(in_tmp: Path) -> None:
    process = start("--device", "cpu", "--epochs", "20", "--out", "run")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=30) == 0
    assert summary()["epochs"] == 20


@pytest.mark.parametrize("module", ["train", "predict", "gradcheck"])
def test_closed_streams_are_no_crash(in_tmp: Path, module: str) -> None:
    assert run() == 0
    np.save("x.npy", np.zeros((2, 64)))
    args = {"train": "--epochs 1 --out o --device cpu", "predict": "run x.npy", "gradcheck": ""}
    command = f"{sys.executable} -m xpnet.{module} {args[module]}"
    for redirection in ("| true", "2>&-", ">&-"):
        result = subprocess.run(
            ["bash", "-c", f"{command} {redirection}"], capture_output=True, text=True
        )
        assert "Traceback" not in result.stderr
        Path("o/config.toml").unlink(missing_ok=True)
        for path in Path("o").glob("checkpoints/*"):
            path.unlink()
        if Path("o/checkpoints").exists():
            Path("o/checkpoints").rmdir()


def test_the_package_names_its_commands() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "xpnet"], capture_output=True, text=True, check=True
    )
    assert "python -m xpnet.train" in result.stdout


def test_help_ends_with_0_and_names_every_option() -> None:
    for module in ("train", "predict", "gradcheck"):
        result = subprocess.run(
            [sys.executable, "-m", f"xpnet.{module}", "--help"], capture_output=True, text=True
        )
        assert result.returncode == 0
        assert result.stderr == ""
        assert f"python -m xpnet.{module}" in result.stdout
    for option in ("--device", "--resume", "--weight-decay", "--target-acc", "--print-config"):
        assert (
            option
            in subprocess.run(
                [sys.executable, "-m", "xpnet.train", "--help"], capture_output=True, text=True
            ).stdout
        )


def test_files_are_replaced_behind_links_and_devices_are_written_to(in_tmp: Path) -> None:
    from xpnet.files import write_whole

    Path("real.txt").write_text("old")
    Path("link.txt").symlink_to("real.txt")
    write_whole(Path("link.txt"), "new")
    assert Path("link.txt").is_symlink()
    assert Path("real.txt").read_text() == "new"
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(Path("pipe"), "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(Path("no/file.txt"), "text")
    assert caught.value.filename == "no/file.txt"
    assert {p.name for p in in_tmp.iterdir()} == {"real.txt", "link.txt", "pipe"}
