"""The edges of a process: signals, streams and threads, for every command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import xpnet
from xpnet.commands import train
from xpnet.commands.exits import run
from xpnet.errors import DataError

COMMANDS = ["train", "predict", "explain", "gradcheck"]
INTERRUPT = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which `python` is ours."""
    return subprocess.run(
        ["bash", "-c", line.replace("python", sys.executable)],
        capture_output=True, text=True, env={**os.environ, **environment}, check=False,
    )  # fmt: skip


# -- Signals -----------------------------------------------------------------------------------


def with_numpy(text: str) -> dict[str, str]:
    """An environment in which NumPy, which every command imports, is this text."""
    Path("numpy.py").write_text(text)
    return {"PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupt_during_imports_ends_without_a_traceback(in_tmp: Path, command: str) -> None:
    result = shell(f"exec python -m xpnet.{command}", **with_numpy(INTERRUPT))
    assert (result.returncode, result.stderr) == (-signal.SIGINT, "")


def test_an_interrupt_that_is_ignored_from_outside_stays_so(in_tmp: Path) -> None:
    environment = with_numpy(INTERRUPT + "raise SystemExit(7)")
    result = shell("trap '' INT; exec python -m xpnet.train", **environment)
    assert (result.returncode, result.stderr) == (7, "")


def test_an_interrupt_after_the_last_word_ends_without_a_traceback(in_tmp: Path) -> None:
    Path("late.py").write_text(
        "import atexit, os, runpy, signal, sys\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "sys.argv[1:] = ['--print-config']\n"
        "runpy.run_module('xpnet.train', run_name='__main__', alter_sys=True)\n"
    )
    result = shell("exec python late.py")
    assert (result.returncode, result.stderr) == (-signal.SIGINT, "")
    assert "epochs = 30" in result.stdout


@pytest.mark.parametrize("where", ["command", "message"])
def test_an_interrupt_within_a_command_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupted(*args: Any) -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    def refused() -> int:
        raise DataError("bad")

    monkeypatch.setattr("xpnet.commands.exits.complain", interrupted)
    assert run(interrupted if where == "command" else refused) == 130


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_after_the_last_step_stops_too(
    in_tmp: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    status: int,
) -> None:
    """When the last checkpoint is written, `fit` has asked for the last time."""
    save = xpnet.Trainer._save

    def at_the_end(trainer: Any, saved: Any, history: Any, **options: Any) -> None:
        save(trainer, saved, history, **options)
        if len(history.epochs) == 2:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr("xpnet.Trainer._save", at_the_end)
        assert train.main(["--epochs", "2", "--device", "cpu", "--out", "run"]) == status
    assert "stopped in epoch 2, step 30, and saved; go on with" in capsys.readouterr().out
    assert not Path("run/summary.json").exists()
    assert train.main(["--resume", "run"]) == 0
    assert "nothing was left to train" in capsys.readouterr().out
    assert Path("run/summary.json").exists()
