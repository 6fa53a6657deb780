"""What a training prints: Python and the command line say the same."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.commands import train
from xpnet.trainer import History, words
from xpnet.trainer.history import Epoch
from xpnet.trainer.progress import progress_bar, tqdm_auto


def task(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((n, 3))
    return x, (x.sum(axis=1) > 0).astype(int)


def trainer(**options: Any) -> xpnet.Trainer:
    return xpnet.Trainer(xpnet.mlp([3, 8, 2]), optim.Adam(0.01), **options)


def numbers(text: str) -> list[str]:
    """The epoch lines without their speed."""
    return [
        re.sub(r"  [\d,]+ samples/s", "", line)
        for line in text.splitlines()
        if line.startswith("epoch ")
    ]


def test_nothing_is_printed_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    trainer().fit(*task(), epochs=2)
    assert capsys.readouterr() == ("", "")


def test_python_prints_what_the_command_prints(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--val-fraction", "0.1", "--test-fraction", "0.2", "--epochs", "7"]
    assert train.main([*options, "--device", "cpu", "--hidden", "20", "--seed", "3"]) == 0
    command = capsys.readouterr().out
    data, _ = xpnet.datasets.load("digits")
    rest, _ = xpnet.data.split(data.t, 0.2, (3, 1), stratify=True)
    xpnet.fit(
        data.x[rest], data.t[rest], hidden=[20], seed=3, scaling=data.scaling,
        validation=0.1, epochs=7, verbose=True,
    )  # fmt: skip
    python = capsys.readouterr().out
    assert len(numbers(python)) == 7
    assert numbers(python) == numbers(command)
    for start in ("network ", "training ", "backend "):
        lines = [
            [line for line in text.splitlines() if line.startswith(start)]
            for text in (python, command)
        ]
        assert lines[0] == lines[1]
        assert len(lines[0]) == 1
    assert python.startswith("data      1,294 + 144 samples (train + val), 64 features, 10 classes")


def test_every_epoch_is_in_the_file_and_some_are_printed(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--epochs", "45", "--hidden", "5", "--device", "cpu", "--out", "run"]
    assert train.main(args) == 0
    shown = [int(re.findall(r"\d+", line)[0]) for line in numbers(capsys.readouterr().out)]
    assert shown == [1, *range(5, 46, 5)]
    lines = Path("run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 46))


@pytest.mark.parametrize("epochs", [1, 2, 19, 20, 21, 30, 41, 99, 100, 101, 999, 12_345, 10**6])
def test_at_most_some_twenty_lines(epochs: int) -> None:
    shown = [epoch for epoch in range(1, epochs + 1) if words.is_shown(epoch, epochs)]
    assert shown[0] == 1
    assert shown[-1] == epochs
    assert min(epochs, 8) <= len(shown) <= 22
    steps = np.diff(shown[1:-1])
    assert len(set(steps.tolist())) <= 1


def test_the_last_line_is_that_of_the_last_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that stops early has no line due."""
    x, t = task()
    history = trainer().fit(
        x, t, epochs=300, validation=(x[:50], 1 - t[:50]), patience=6, verbose=True
    )
    assert history.reason == "patience"
    assert len(history.epochs) % 20
    out = capsys.readouterr().out
    assert numbers(out)[-1].startswith(f"epoch {len(history.epochs):3d}/300")
    assert (
        f"stopped by patience; the model has the weights of epoch {history.best_epoch}, the best "
        "one" in out
    )


def test_how_a_training_ended(capsys: pytest.CaptureFixture[str]) -> None:
    x, t = task()
    trainer().fit(x, t, epochs=9, callbacks=lambda trainer, epoch: True, verbose=True)
    assert "\nstopped by a callback\n" in capsys.readouterr().out
    trainer().fit(x, t, epochs=9, stop=lambda: True, verbose=True)
    assert re.search(r"\nstopped in epoch 1, step \d+\n", capsys.readouterr().out)


def test_lines_of_regressions_images_and_networks_by_hand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    x = np.random.default_rng(0).random((60, 8, 8, 3))
    net = xpnet.mlp([192, 5, 2], "tanh", loss=("quantile", {"quantile": 0.9}))
    xpnet.Trainer(net, optim.SGD(lambda k: 0.01), weight_decay=0.1).fit(
        x, x[:, 0, :2, 0], epochs=1, verbose=True
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "data      60 samples, 8 x 8 x 3 values, regression of 2 targets"
    assert lines[1] == "samples   images of 8 x 8, 3 channels (the last axis)"
    assert lines[2] == "network   192 - 5 - 2, tanh, 0.9-quantile loss, 977 parameters"
    assert lines[3].startswith("training  sgd, lr by a function, weight decay 0.1, 1 epoch, batch ")
    assert re.match(
        r"epoch   1/1  train loss \d\.\d{4}  train r2 -?\d\.\d{4}  [\d,]+ samp", lines[5]
    )
    own = xpnet.Network(net.graph, net.params, net.scores, net.loss, outputs=2, input_shape=(192,))
    assert words.network_line(own) == "network   built by hand, 977 parameters in 4 arrays"


def test_rates_in_words() -> None:
    found = [
        words.rate(lr)
        for lr in (
            0.1, optim.constant(0.1, warmup=5), optim.step_decay(0.1, 10),
            optim.exponential(0.1, 9), optim.cosine(0.1, 9, warmup=1000),
            optim.inverse_time(0.1, 9), optim.plateau(0.1, warmup=3),
        )
    ]  # fmt: skip
    assert found == [
        "lr 0.1 constant", "lr 0.1 constant, warmup 5", "lr 0.1 step", "lr 0.1 exponential",
        "lr 0.1 cosine, warmup 1,000", "lr 0.1 inverse", "lr 0.1 plateau, warmup 3",
    ]  # fmt: skip


def test_numbers_that_are_missing_are_left_out() -> None:
    epoch = Epoch(3, 30, 0.5, None, None, None, 0.1, 1234.5)
    assert words.epoch_line(epoch, 9, "r2") == "epoch   3/9  train loss 0.5000  1,234 samples/s"
    watched = Epoch(3, 30, 0.5, 0.9, 0.6, 0.8, 0.1, 1.0, val_metric=0.7)
    assert words.fields(watched, "accuracy", "f1")["val_f1"] == 0.7
    assert "val_metric" not in words.fields(watched, "accuracy", None)


def test_a_stdout_that_is_full_costs_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.warns(UserWarning, match="cannot print .No space left on device.") as caught:
        history = trainer().fit(*task(), epochs=3, verbose=True)
    assert len(caught) == 1
    assert history.reason == "epochs"


def test_a_stdout_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert trainer().fit(*task(), epochs=2, verbose=True).reason == "epochs"


def test_names_are_printed_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    words.print_lines("a\x1b[2Jb", "c")
    assert capsys.readouterr().out == "a\\x1b[2Jb\nc\n"


def test_notes_are_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    history = History(notes=["no better than guessing", "few samples"])
    assert len(words.note_lines(history)) == 2
    history.failure = "no better than guessing"  # a warning has said it
    assert words.note_lines(history) == ["note      few samples"]


# -- The progress bar ------------------------------------------------------------------


def test_tqdm_is_imported_when_a_bar_is_asked_for() -> None:
    code = (
        "import sys, numpy, xpnet; x = numpy.ones((9, 2)); t = numpy.arange(9) % 2\n"
        "train = xpnet.Trainer(xpnet.mlp([2, 2])).fit\n"
        "train(x, t, epochs=1, verbose=True)\n"
        "assert 'tqdm' not in sys.modules\n"
        "train(x, t, epochs=1, progress=True)\n"
        "assert 'tqdm.auto' in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_lines_stand_above_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    history = trainer().fit(*task(), epochs=3, verbose=True, progress=True)
    out, err = capsys.readouterr()
    assert len(numbers(out)) == 3
    assert f"/{history.steps}" in err
    assert "loss" in err


def test_a_bar_counts_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(10, 4, True) as advance:
        advance(np.array([0.5, 0.25]))
    assert "4/10" in capsys.readouterr().err
    with progress_bar(10, 4, False) as advance:
        advance(np.array([0.5]))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("widgets", [False, True])
def test_a_notebook_gets_its_own_bar(monkeypatch: pytest.MonkeyPatch, widgets: bool) -> None:
    """And without ipywidgets the bar of text, without advice on Jupyter."""
    if widgets:
        pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")
    elif importlib.util.find_spec("ipywidgets"):
        monkeypatch.setitem(sys.modules, "ipywidgets", None)
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    for name in [*sys.modules]:
        if name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook"):
            monkeypatch.delitem(sys.modules, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = tqdm_auto()
    assert (found.__mro__[1].__module__ == "tqdm.notebook") == widgets or widgets
    for name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook"):
        sys.modules.pop(name, None)
