"""The commands on data in several files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from xpnet.commands import evaluate, predict, train

QUICK = ["--epochs", "2", "--hidden", "8", "--device", "cpu", "--backend", "numpy", "--quiet"]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for k in (0, 1, 2, 10):
        x = random.normal(size=(50 + k, 3))
        np.save(f"x-{k}.npy", x)
        np.save(f"t-{k}.npy", (x[:, 0] > 0).astype(int))


def test_train_evaluate_and_predict_take_a_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", "x-*.npy", "--labels", "t-*.npy", "--val-fraction", "0.2", *QUICK]
    assert train.main([*words, "--out", "run"]) == 0
    capsys.readouterr()
    assert evaluate.main(["run", "x-*.npy", "--labels", "t-*.npy", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["samples"] == 213
    assert measured["accuracy"] > 0.6
    whole = np.concatenate([np.load(f"x-{k}.npy") for k in (0, 1, 2, 10)])
    np.save("whole.npy", whole)
    assert predict.main(["run", "x-*.npy"]) == 0
    by_files = capsys.readouterr().out
    assert predict.main(["run", "whole.npy"]) == 0
    assert capsys.readouterr().out == by_files
    assert len(by_files.splitlines()) == 214


def test_test_data_may_be_a_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", "x-[01].npy", "--labels", "t-[01].npy", "--test-data", "x-[12]*.npy",
             "--test-labels", "t-[12]*.npy", *QUICK[:-1]]  # fmt: skip
    assert train.main(words) == 0  # 1, 2 and 10 are the test
    assert "101 + 163 samples (train + test)" in capsys.readouterr().out
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("x-01-")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "y-*.npy", "--labels", "t-*.npy"], "y-*.npy: the pattern has no .npy files"),
        (["--data", "x-*.npy"], "needs a .npy file with its targets: --labels"),
        (["--data", "x-*.npy", "--labels", "t-[01].npy"], "got 2 files of labels for 4 files of"),
        (["--data", "*-0.npy", "--labels", "t-0.npy"], "t-0.npy: got samples of shape (), int64"),
        (["--data", "x-*.npy", "--labels", "t-*.npy", "--id", "y"], "--id goes with a .csv"),
    ],
)  # fmt: skip
def test_what_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "*-0.npy" in words:
        Path("x-0.npy").rename("a-0.npy")  # it is the first one then
    assert train.main([*words, *QUICK]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.strip().splitlines()) == 1
