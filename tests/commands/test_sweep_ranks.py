"""Sweeps whose networks are spread over ranks: as threads, and under mpirun."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xpnet
from tests.commands.test_sweep import params, run, summary, table, write_data
from tests.ranks import on_ranks
from xpnet.commands import sweep
from xpnet.commands.config.parsing import parse
from xpnet.errors import UsageError

WORDS = ["--data", "d.csv", "--device", "cpu", "--hidden", "5", "--epochs", "3"]
ROOT = Path(xpnet.__file__).parent.parent


def on_threads(ranks: int, *words: str) -> list[int]:
    config = parse([*WORDS, *words] if "--resume" not in words else [*words])
    return on_ranks(ranks, lambda group: sweep.run_sweep(config, "xpnet train", group))


def same_table(folder: str, whole: str) -> None:
    """Assert that two sweeps have the same table but for their times, to rounding."""
    for mine, theirs in zip(table(folder), table(whole), strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine.keys() - {"seconds"}:
            try:
                assert float(mine[name]) == pytest.approx(float(theirs[name]), rel=1e-5)
            except ValueError:
                assert mine[name] == theirs[name]


def same_run(folder: str, whole: str, ranks: int) -> None:
    """Assert that a sweep on ranks left what one process leaves."""
    same_table(folder, whole)
    for name, value in params(whole).items():
        np.testing.assert_allclose(params(folder)[name], value, rtol=1e-4, atol=1e-6)
    assert summary(folder)["ranks"] == ranks
    assert summary(folder)["sweep"]["settings"] == summary(whole)["sweep"]["settings"]
    kept = {path.name for path in Path(folder).iterdir()}
    assert kept == {path.name for path in Path(whole).iterdir()}


@pytest.mark.parametrize(
    "words",
    [["--lr", "0.1,0.01", "--seed", "0..2", "--ensemble"], ["--lr", "0.1,0.01", "--folds", "3"]],
    ids=["seeds", "folds"],
)
def test_ranks_share_a_sweep(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    write_data()
    assert run(*words, out="whole") == 0
    alone = capsys.readouterr().out
    assert on_threads(2, *words, "--out", "run") == [0, 0]
    out = capsys.readouterr().out
    same_run("run", "whole", ranks=2)
    added = [line for line in out.splitlines() if line not in alone.splitlines()]
    assert any(line.startswith("backend ") and line.endswith(", 2 ranks") for line in added)
    assert "          2 ranks, 3 models each" in added
    # Rank 0 alone prints, and about all models.
    assert out.count("epoch   2/3  6 models") == out.count("run       run\n") == 1


def test_a_dry_run_and_a_refused_folder(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data()
    assert on_threads(3, "--seed", "0..4", "--dry-run") == [0, 0, 0]
    assert capsys.readouterr().out.count("          3 ranks, 1 to 2 models each\n") == 1
    Path("run").mkdir()
    Path("run/config.toml").touch()
    with pytest.raises(UsageError, match="holds a run already"):
        on_threads(2, "--seed", "0..4", "--out", "run")


def test_all_ranks_say_that_all_models_failed(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(numbers=True)
    words = ["--loss", "squared", "--optimizer", "sgd", "--lr", "1e30,1e31", "--out", "run"]
    assert on_threads(2, *words) == [5, 5]
    assert capsys.readouterr().err.count("all models failed: model 0 (lr 1e+30, seed 0)") == 1


def test_one_rank_goes_on_alone(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of rank 0 have ended: it removes the old summary all the same."""
    write_data()
    words = ["--lr", "0.1,0.01", "--epochs", "2,6", "--quiet"]
    assert run(*words, out="whole") == 0
    assert on_threads(2, *words, "--out", "run") == [0, 0]
    same_run("run", "whole", ranks=2)
    assert on_threads(3, "--resume", "run", "--quiet") == [0, 0, 0]  # nothing is left to train
    same_run("run", "whole", ranks=3)


@pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or shutil.which("mpirun") is None,
    reason="mpi4py or mpirun is not installed",
)
def test_a_sweep_under_mpirun_is_stopped_and_goes_on(in_tmp: Path) -> None:
    """SIGTERM to the launcher saves once; one process goes on, and reaches the same numbers."""
    write_data(n=400)
    words = ["--lr", "0.1,0.01", "--seed", "0..2", "--epochs", "150", "--batch-size", "8"]
    assert run(*words, "--quiet", out="whole") == 0
    command = [sys.executable, "-m", "xpnet.train"]
    launcher = ["mpirun", "--map-by", ":OVERSUBSCRIBE", "-n", "2"]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        [*launcher, *command, *WORDS, *words, "--out", "run"], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("epoch  10/150") or len(lines) > 99:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.communicate(timeout=60)[0]  # Open MPI passes on nothing of it
    assert process.returncode != 0, "".join(lines) + rest
    (last, first) = sorted(Path("run/checkpoints").iterdir(), reverse=True)
    assert first.name == "step-00000000.npz"
    assert last.name > "step-00002000.npz"  # 10 epochs of 36 steps, of 6 models
    assert not Path("run/summary.json").exists()
    assert run_alone("--resume", "run", "--quiet") == 0
    same_run("run", "whole", ranks=1)


def run_alone(*words: str) -> int:
    from xpnet.commands import train

    return train.main([*words])
