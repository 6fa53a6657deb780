"""The commands with images: what a user types, what is refused, and what runs keep."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet.commands import compare, evaluate, explain, gradcheck, predict, train
from xpnet.commands.config.defaults import settled
from xpnet.commands.config.filters import blocks_of, filter_setting
from xpnet.commands.config.parsing import parse
from xpnet.commands.config.settings import Config
from xpnet.commands.config.toml import to_toml
from xpnet.models import Model

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (80, 7, 6), dtype=np.uint8)
X[::2, :3] //= 4
T = np.arange(80) % 2
SMALL = ["--model", "cnn", "--channels", "3-3,2", "--hidden", "5"]
QUICK = ["--device", "cpu", "--epochs", "2", "--batch-size", "16", "--quiet"]


@pytest.fixture
def images(in_tmp: Path) -> Path:
    """A folder with images in every shape, and their labels."""
    colour = np.stack([X, 255 - X, X // 2], axis=1)
    for name, x in {
        "grey": X, "floats": X / 255, "channel": X[:, None], "last": X[..., None],
        "colour": colour, "colour_last": np.moveaxis(colour, 1, -1), "rows": X.reshape(80, 42),
        "larger": np.zeros((4, 9, 9), np.uint8), "none": X[:0],
    }.items():  # fmt: skip
        np.save(f"{name}.npy", x)
    np.save("t.npy", T)
    return in_tmp


def run(*words: str, data: str = "grey.npy", out: str = "run") -> int:
    return train.main(["--data", data, "--labels", "t.npy", "--out", out, *QUICK, *words])


def settings(folder: str = "run") -> dict[str, Any]:
    return tomllib.loads(Path(folder, "config.toml").read_text())


# -- Options -------------------------------------------------------------------------------


def test_filters_are_read_as_they_are_written() -> None:
    assert blocks_of("16-16, 032") == ("16-16", 32)
    assert [*map(filter_setting, ("3", 3, "same", "1-1,2", "0"))] == [
        3,
        3,
        "same",
        [[1, 1], [2]],
        0,
    ]
    for word in ("", "a", "3-", "-3", "3,,4", "0", "3.5", "3--3", "10000000000", "¹"):
        with pytest.raises(ValueError, match="is not numbers of filters"):
            blocks_of(word)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", {"channels": None, "kernel": None, "padding": None, "pool": None,
              "hidden": (100, 100), "dropout": 0.0, "lr": 0.01}),
        ("--model cnn", {"channels": (30,), "kernel": 5, "padding": 0, "pool": 2, "hidden": (100,),
                         "dropout": 0.0, "lr": 0.003, "optimizer": "adamw"}),
        ("--model deep-cnn", {"channels": ("16-16", "32-32", "64-64"), "kernel": 3,
                              "padding": "1-1,1-2,1-1", "hidden": (50,), "dropout": 0.5}),
        ("--model cnn --channels 8", {"channels": (8,), "kernel": 3, "padding": "same"}),
        ("--model deep-cnn --channels 8,8 --dropout 0", {"padding": "same", "dropout": 0.0}),
        ("--model cnn --preset book", {"optimizer": "adam", "lr": 0.001, "init": 0.01, "epochs": 20,
                                       "channels": (30,), "kernel": 5, "activation": ("relu",)}),
        ("--model deep-cnn --preset book", {"init": "auto", "hidden": (50,), "dropout": 0.5}),
    ],
)  # fmt: skip
def test_what_a_model_is_if_you_say_nothing(words: str, found: dict[str, Any]) -> None:
    config = settled(parse(words.split()), 60_000)
    assert {name: getattr(config, name) for name in found} == found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--channels 4", "--channels is for images: add --model cnn, or leave it out"),
        ("--kernel 4", "--kernel is for images"),
        ("--pool 2", "--pool is for images"),
        ("--augment flip", "--augment is for images"),
        (
            "--model cnn --channels x",
            "'x' is not numbers of filters, such as 16,32, or 16-16,32-32",
        ),
        ("--model cnn --kernel 3-3", "--kernel 3-3 does not fit the channels 30; expected one"),
        ("--model cnn --kernel same", "'same' is not a size"),
        ("--model cnn --padding -1", "neither a number nor one for each convolution"),
        ("--model cnn --pool -1", "--pool is -1; expected a whole number, from 0"),
        ("--model cnn --activation relu,tanh", "expected one: all hidden layers of a cnn share it"),
        ("--model cnn --augment turn", "'turn' is not shift, shift=PIXELS or flip"),
        ("--model cnn --augment shift=8", "shift is 8 pixels of images of 8 x 8; expected fewer"),
        ("--model cnn --kernel 9", "filters of 9 x 9 do not fit images of 8 x 8"),
        ("--model cnn --channels 4,4,4,4", "block 4: a pool of 2 x 2 does not fit images of 1 x 1"),
        ("--model vgg", "--model is 'vgg'; expected mlp, cnn, deep-cnn"),
        ("--model .", "--model is '.'; to train that model on, write --init-from '.'"),
    ],
)
def test_what_does_not_fit_ends_with_2_and_one_line(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    try:
        status: Any = train.main(["--device", "cpu", "--out", "run", *words.split()])
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert list(in_tmp.iterdir()) == []


def test_the_settings_file_holds_what_words_say(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    words = "--model cnn --channels 8-8,16 --kernel 5-3,3 --padding 2-1,1 --augment shift,flip"
    config = parse([*words.split(), "--batch-norm", "--pool", "1"])
    file.write_text(to_toml(config))
    plain = tomllib.loads(file.read_text())
    assert plain["channels"] == ["8-8", 16]
    assert (plain["kernel"], plain["padding"], plain["augment"]) == (
        "5-3,3",
        "2-1,1",
        "shift=2,flip",
    )
    again = parse(["--config", str(file)])
    assert {**vars(again), "config": None} == vars(config)
    file.write_text('model = "cnn"\nchannels = "8-8,16"\n')  # as on the command line
    assert parse(["--config", str(file)]).channels == ("8-8", 16)


def test_settings_of_older_runs_are_those_of_an_mlp(images: Path) -> None:
    assert train.main(["--out", "run", *QUICK, "--hidden", "4"]) == 0
    text = Path("run/config.toml").read_text()
    kept = [line for line in text.splitlines() if not line.startswith(("model", "batch_norm"))]
    Path("run/config.toml").write_text("\n".join(kept) + "\n")
    for path in Path("run/checkpoints").iterdir():
        path.unlink()
    assert parse(["--resume", "run"]).model == Config.model == "mlp"


# -- Training ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grey", "floats", "channel", "last", "colour"])
def test_images_in_every_shape(images: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SMALL, "--batch-norm", data=f"{name}.npy") == 0
    network = Model.load("run/model.npz").network
    assert network.input_shape == ((3 if name == "colour" else 1), 7, 6)
    assert {"gamma1", "beta2"} <= network.params.keys()
    capsys.readouterr()
    assert predict.main(["run", f"{name}.npy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "prediction,p_0,p_1"
    assert len(lines) == 81
    words = ["run", f"{name}.npy", "--labels", "t.npy", "--json"]
    assert evaluate.main(words) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 80


def test_what_is_no_image_is_refused(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("table.csv").write_text("a,b,kind\n" + "1.5,2,x\n2.5,3,y\n" * 20)
    for words, message in (
        (
            ["--data", "table.csv"],
            "table.csv: is a table of 2 features, and --model cnn takes images",
        ),
        (["--data", "rows.npy", "--labels", "t.npy"], "rows.npy: got rows of 42 values, and a"),
        (
            ["--data", "colour_last.npy", "--labels", "t.npy"],
            "colour_last.npy: got images of shape (7, 6, 3), which has the channels last; expected "
            "(channels, rows, columns): numpy.moveaxis(x, -1, 1)",
        ),
        (["--data", "none.npy", "--labels", "t.npy"], "none.npy: got no samples"),
    ):
        assert train.main([*words, *SMALL, *QUICK, "--out", "run"]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
        assert not Path("run").exists()


def test_images_of_another_kind_are_not_predicted(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*SMALL, data="colour.npy") == 0
    for name, message in (
        ("larger", "got images of shape (9, 9); expected images of shape (3, 7, 6)"),
        ("colour_last", "numpy.moveaxis(x, -1, 1)"),
        ("none", "none.npy: got no samples"),
    ):
        assert predict.main(["run", f"{name}.npy"]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_a_resumed_run_reaches_the_same_bits(images: Path) -> None:
    words = [*SMALL, "--batch-norm", "--dropout", "0.3", "--augment", "shift=1,flip"]
    words += ["--schedule", "constant", "--val-fraction", "0.2", "--patience", "9"]
    assert run(*words, "--epochs", "4", out="whole") == 0
    assert run(*words, "--epochs", "1") == 0
    assert train.main(["--resume", "run", "--epochs", "4", "--quiet"]) == 0
    whole, resumed = (Model.load(f"{name}/model.npz").to_host() for name in ("whole", "run"))
    assert {"mean1", "var2"} <= whole.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value)
    assert settings() == settings("whole")


def test_what_a_run_was_made_of_may_not_change(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*SMALL, "--augment", "shift=1") == 0
    for words, message in (
        (["--augment", "flip"], "augment was shift=1, is flip. Put that back"),
        (["--channels", "4"], "channels was [[3, 3], [2]], is [[4]]"),
        (["--batch-norm"], "batch_norm was"),
    ):
        assert train.main(["--resume", "run", "--epochs", "3", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_model_of_images_is_trained_on(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SMALL, "--batch-norm", out="first") == 0
    assert run("--init-from", "first", "--augment", "shift=1") == 0
    found = settings()
    assert (found["model"], found["channels"], found["hidden"]) == ("cnn", ["3-3", 2], [5])
    assert (found["batch_norm"], found["augment"], found["lr"]) == (True, "shift=1", 0.003)
    assert train.main(["--resume", "run", "--epochs", "3", "--quiet"]) == 0
    for flag in ("--model=cnn", "--channels=4", "--batch-norm", "--pool=1"):
        assert run("--init-from", "first", flag, out="other") == 2
        assert "is the model's own with --init-from" in capsys.readouterr().err
    assert train.main(["--out", "mlp", *QUICK]) == 0
    assert train.main(["--init-from", "mlp", "--augment", "flip", "--out", "other", *QUICK]) == 2
    assert "this network takes 64 features in a row" in capsys.readouterr().err


def test_a_sweep_of_channels(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "cnn", "--hidden", "5", "--channels", "3/2-2,3", "--seed", "0,1"]
    words += ["--data", "grey.npy", "--labels", "t.npy", *QUICK[:-1], "--augment", "shift=1"]
    assert train.main([*words, "--dry-run"]) == 0
    assert "4 models one by one: convolutions cannot be stacked" in capsys.readouterr().out
    assert train.main([*words, "--out", "run"]) == 0
    out = capsys.readouterr().out
    assert "augment shift=1" in out
    assert "channels 3 / 2-2,3; seeds 0, 1: 4 models" in out
    assert "epoch   2/2  model 3  train loss" in out
    rows = Path("run/sweep.csv").read_text().splitlines()
    found = [row.split(",")[1:3] for row in rows[1:]]
    assert found == [["3", "0"], ["3", "1"], ['"2-2', '3"'], ['"2-2', '3"']]
    best = next(row for row in rows if ",true," in row)
    index = int(best.split(",")[0])
    alone = ["--channels", ["3", "2-2,3"][index // 2], "--seed", str(index % 2)]
    # Alone it is split by its own seed; the sweep splits by the first one.
    if index % 2 == 0:
        one = ["--model", "cnn", "--hidden", "5", *alone, "--val-fraction", "0.1", "--augment"]
        assert run(*one, "shift=1", out="alone") == 0
        for name, value in Model.load("alone/model.npz").to_host().items():
            np.testing.assert_array_equal(Model.load("run/model.npz").to_host()[name], value)
    assert compare.main(["run"]) == 0


# -- The other commands --------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "--model cnn",
        "--model deep-cnn --batch-norm",
        "--model cnn --channels 3-3,2 --kernel 5 --padding 2 --image 2,7,6 --batch-norm",
        "--model cnn --activation relu --dropout 0.3 --pool 1",
        "--batch-norm --hidden 5,4",
    ],
)
def test_gradients_of_images(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gradcheck.main([*words.split(), "--entries", "50"]) == 0
    assert "passed: largest relative error" in capsys.readouterr().out


def test_explanations_of_images(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SMALL, out="cnn") == 0
    for words, shape in (
        (["--model", "deep-cnn", "--channels", "2-2,3"], "(2, 1, 28, 28)"),
        (["--model", "deep-cnn", "--channels", "2,3", "--image", "3,9,8"], "(2, 3, 9, 8)"),
        (["--model", "deep-cnn", "--channels", "2", "--dataset", "digits"], "(2, 1, 8, 8)"),
        (["--model", "cnn"], "(2, 1, 7, 6)"),  # the folder of that name
    ):
        assert explain.main([*words, "--batch-size", "2"]) == 0
        assert shape in capsys.readouterr().out
    for words, message in (
        (["--channels", "4"], "--channels is for images: add --model cnn"),
        (["--image", "4,4"], "--image is for images: add --model cnn"),
        (["--model", "cnn", "--kernel", "4"], "--model has its own kernel; leave out --kernel"),
        (
            ["--model", "deep-cnn", "--dataset", "digits", "--image", "8,8"],
            "leave out --inputs, --i",
        ),
    ):
        assert explain.main(words) == 2
        assert message in capsys.readouterr().err
