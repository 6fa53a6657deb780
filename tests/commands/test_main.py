"""`xpnet COMMAND`: which command starts, with which words, and how soon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import xpnet
from xpnet.commands.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """What reaches a command: a stand-in for each of them writes its words here."""
    before = signal.getsignal(signal.SIGINT)  # which the program sets for its process
    seen: list[tuple[Any, ...]] = []
    for name in COMMANDS:

        def stand_in(args: Any = None, prog: str = "", name: str = name) -> int:
            seen.append((name, args, prog))
            return 7

        module = ModuleType(f"xpnet.commands.{name}")
        module.main = stand_in  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield seen
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", [*COMMANDS])
def test_a_command_gets_its_words_and_how_it_was_called(
    name: str, calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([name, "--lr", "0.1", "train"]) == 7
    assert main([name], prog="python -m xpnet") == 7
    monkeypatch.setattr(sys, "argv", ["/usr/bin/xpnet", name, "-h"])
    assert main() == 7
    assert calls == [
        (name, ["--lr", "0.1", "train"], f"xpnet {name}"),
        (name, [], f"python -m xpnet {name}"),
        (name, ["-h"], f"xpnet {name}"),
    ]


def test_without_a_program_a_command_finds_its_words_itself(calls: list[tuple[Any, ...]]) -> None:
    """As `python -m xpnet.train` starts it: with the words and the name of its own default."""
    from xpnet.commands.exits import start

    assert start("train") == 7
    assert calls == [("train", None, "")]


def test_a_real_command_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradcheck", "--inputs", "3", "--hidden", "2", "--entries", "5"]) == 0
    assert "passed: largest relative error" in capsys.readouterr().out
    assert main(["gradcheck", "--batch-size", "3"]) == 2
    assert capsys.readouterr().err == (
        "xpnet: unknown option --batch-size; did you mean --batch? (see xpnet gradcheck --help)\n"
    )


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_help_has_a_line_for_each_command(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "usage: xpnet COMMAND ..."
    for name, what in COMMANDS.items():
        assert f"  {name:<10} {what}" in lines
    examples = lines[lines.index("Examples:") + 1 :]
    assert len(examples) == 3
    for example in examples:
        program, name = example.split()[:2]
        assert program == "xpnet"
        assert name in COMMANDS
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["trian"], "'trian' is not a command; did you mean train?"),
        (["Predict", "x"], "'Predict' is not a command; did you mean predict?"),
        (["eval"], "did you mean evaluate?"),
        (["fit"], "did you mean train?"),
        (["xpnet.train"], "did you mean train?"),
        (["qqq"], "expected train, predict, evaluate, compare, explain, gradcheck"),
        (["iris.csv"], "write xpnet train --data iris.csv"),
        (["--data", "x.csv"], "'--data' stands before the command; write xpnet train --data x.csv"),
        (["--quiet", "explain", "-h"], "write xpnet explain --quiet -h"),
        (["\x1b[2J\n"], r"'\x1b[2J\n' is not a command"),
        (["a" * 5000], "is not a command"),
        ([""], "'' is not a command"),
    ],
)
def test_a_wrong_command_gets_advice_in_one_line(
    words: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert advice in err
    assert err.endswith("(see xpnet --help)\n")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["trian"], []])
def test_numpy_is_not_imported_for_a_word(words: list[str]) -> None:
    script = (
        "import sys\nfrom xpnet.commands.main import main\n"
        f"status = main({words!r})\n"
        "assert not {'numpy', 'tyro', 'tqdm'} & {*sys.modules}, 'imported too much'\n"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == (2 if words == ["trian"] else 0), done.stderr
    if words == ["--version"]:
        assert (done.stdout, done.stderr) == (f"xpnet {xpnet.__version__}\n", "")


def test_python_m_names_itself() -> None:
    done = subprocess.run([sys.executable, "-m", "xpnet"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m xpnet COMMAND ...\n")
    done = subprocess.run([sys.executable, "-m", "xpnet", "trian"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith("did you mean train? (see python -m xpnet --help)\n")


def test_an_interrupt_while_a_command_is_imported_leaves_no_traceback(in_tmp: Path) -> None:
    Path("numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "xpnet", "gradcheck"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_a_help_that_cannot_be_written_ends_with_1() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "xpnet", "--version"], stdout=full, stderr=-1, text=True
        )
    assert done.returncode == 1
    assert done.stderr == "xpnet: standard output: No space left on device\n"


def test_pip_installs_the_program_and_python_m_has_each_command() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert [*scripts] == ["xpnet"]
    module, _, name = scripts["xpnet"].partition(":")
    assert getattr(import_module(module), name) is main
    for command in COMMANDS:
        text = (ROOT / "xpnet" / f"{command}.py").read_text()
        assert f'sys.exit(start("{command}"))' in text


def test_in_python_the_program_leaves_the_signals_as_they_are() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert main(["compare", "nowhere"]) == 2
    assert signal.getsignal(signal.SIGINT) is before
