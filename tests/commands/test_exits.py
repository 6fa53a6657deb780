"""The edges of a process: signals, streams and threads, for every command."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet.commands import predict, train
from xpnet.commands.exits import STOPPING, run, say
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
    assert 'preset = "auto"' in result.stdout


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


@pytest.mark.parametrize("number", STOPPING)
def test_an_interrupt_whose_exception_is_replaced_is_one(number: int) -> None:
    """A failing import turns the exception of a handler into a TypeError."""

    def command() -> int:
        try:
            os.kill(os.getpid(), number)
            raise AssertionError("the signal did not arrive")
        except (KeyboardInterrupt, SystemExit):
            raise TypeError("expected a message argument") from None

    assert run(command) == 128 + number


def test_an_interrupt_while_a_line_is_printed_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(io.StringIO):
        def write(self, text: str) -> int:
            signal.raise_signal(signal.SIGINT)
            return len(text)

    def get_lock() -> None:
        pytest.fail("tqdm's lock was taken, and there is no bar")

    def words() -> int:
        say("text")
        return 0

    monkeypatch.setattr("tqdm.tqdm.get_lock", get_lock)
    monkeypatch.setattr(sys, "stdout", Interrupted())
    assert run(words) == 130


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
    assert "stopped in epoch 2, step 66, and saved; go on with" in capsys.readouterr().out
    assert not Path("run/summary.json").exists()
    assert train.main(["--resume", "run"]) == 0
    assert "nothing left to train" in capsys.readouterr().out
    assert Path("run/summary.json").exists()


# -- Streams -----------------------------------------------------------------------------------

RESULTS = ["train --help", "predict --help", "train --print-config", "predict run x.npy",
           "explain --inputs 4 --hidden 3"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, data and settings, whose names are not ASCII."""
    folder = tmp_path_factory.mktemp("trained")
    rows = (f"{i},{i % 7},{['été', '日本'][i % 2]}\n" for i in range(40))
    (folder / "données.csv").write_text("a,b,y\n" + "".join(rows), "utf-8")
    args = ["--data", str(folder / "données.csv"), "--epochs", "1", "--quiet", "--device", "cpu"]
    assert train.main([*args, "--out", str(folder / "classes")]) == 0
    args = ["--epochs", "1", "--quiet", "--device", "cpu", "--out", str(folder / "run")]
    assert train.main(args) == 0
    np.save(folder / "x.npy", np.zeros((2, 64), np.uint8))
    return folder


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device"), ("2>&-", "")],
)
def test_a_result_that_cannot_be_written_ends_with_1_and_one_line(
    trained: Path, redirection: str, reason: str
) -> None:
    for command in RESULTS:
        result = shell(f"cd {trained}; exec python -m xpnet.{command} {redirection}")
        assert result.returncode == (1 if reason else 0), command
        assert result.stderr.count("\n") == (1 if reason else 0), result.stderr
        assert reason in result.stderr


@pytest.mark.parametrize("redirection", [">/dev/full", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_training_whose_words_go_nowhere_keeps_its_model(in_tmp: Path, redirection: str) -> None:
    result = shell(f"exec python -m xpnet.train --epochs 1 --device cpu --out o {redirection}")
    assert result.returncode == 0
    warning = "xpnet: warning: cannot print (No space left on device); the work goes on in silence"
    assert result.stderr.splitlines() == [warning][: redirection == ">/dev/full"]
    assert xpnet.Model.load("o/model.npz").network.outputs == 10
    assert Path("o/summary.json").exists()


def test_a_terminal_that_goes_away_costs_no_model(in_tmp: Path) -> None:
    """Writing to it fails with EIO, also to the progress bar's stderr."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        ["bash", "-c", "trap '' HUP; exec \"$@\"", "", sys.executable, "-m", "xpnet.train",
         "--epochs", "60", "--device", "cpu", "--out", "o"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    while b"epoch   5/60" not in os.read(ours, 10_000):
        pass
    os.close(ours)
    assert process.wait(60) == 0
    assert Path("o/summary.json").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "shift-jis", "utf-8"])
def test_text_for_streams_in_other_encodings(trained: Path, encoding: str) -> None:
    """Predictions are right or refused; settings are TOML whatever the encoding is."""
    run = f"cd {trained}; exec python -m xpnet."
    result = shell(f"{run}predict classes données.csv >p.csv", PYTHONIOENCODING=encoding)
    lines = (trained / "p.csv").read_text("utf-8").splitlines()
    if encoding == "utf-8":
        assert result.returncode == 0
        assert lines[0] == "prediction,p_été,p_日本"
    else:
        assert result.returncode == 1
        assert "; write into a file, or set PYTHONIOENCODING=utf-8" in result.stderr
        assert result.stderr.count("\n") == 1
        assert lines == []
    settings = f"{run}train --data données.csv --label-column 日 --print-config >c.toml"
    assert shell(settings, PYTHONIOENCODING=encoding).returncode == 0
    found = tomllib.loads((trained / "c.toml").read_text("utf-8"))
    assert (found["data"], found["label_column"]) == (str(trained / "données.csv"), "日")


def test_a_backend_of_matplotlib_that_does_not_exist(in_tmp: Path) -> None:
    result = shell("exec python -m xpnet.train --plot --out o", MPLBACKEND="nonsense")
    assert result.returncode == 2
    assert "--plot: matplotlib cannot be imported: Key backend: 'nonsense'" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("o").exists()


def test_names_reach_a_terminal_as_text(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reports and messages escape them; predictions have them as they are."""
    odd = "a\x1b[2J"
    rows = "".join(f"{-i},{i % 2 * 'no'}{odd}\n" for i in range(40))
    Path(f"{odd}\n.csv").write_text(f"x,{odd}\n{rows}")
    args = ["--data", f"{odd}\n.csv", "--epochs", "1", "--device", "cpu", "--out", f"{odd}\nrun"]
    assert train.main(args) == 0
    assert train.main(args) == 2
    printed = capsys.readouterr()
    assert (printed.out + printed.err).replace("\n", "").isprintable()
    lines = printed.out.splitlines()
    assert lines[0].startswith(r"data      a\x1b[2J\n.csv: 32 + 8 samples")
    assert lines[1] == r"labels    column 'a\x1b[2J': 'a\x1b[2J', 'noa\x1b[2J' (header line)"
    assert lines[-1] == r"run       a\x1b[2J\nrun"
    assert printed.err.count("\n") == 1
    assert predict.main([f"{odd}\nrun", f"{odd}\n.csv"]) == 0
    assert capsys.readouterr().out.startswith(f"prediction,p_{odd},p_no{odd}\n")


def test_a_signal_in_a_callback_of_an_import_is_not_lost() -> None:
    """There an exception is printed and forgotten."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only")
    text = "os.kill(os.getpid(), signal.SIGTERM)\nfor _ in range(1000): pass"
    importing = compile(text, "<frozen importlib._bootstrap>", "exec")

    class Lock:
        pass

    def command() -> int:
        lock = Lock()
        kept = weakref.ref(lock, lambda _: exec(importing, {"os": os, "signal": signal}))
        del lock
        assert kept() is None
        time.sleep(5)
        return 0

    with pytest.raises(SystemExit) as ended:
        run(command)
    assert ended.value.code == 143
