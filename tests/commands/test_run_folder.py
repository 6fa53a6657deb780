"""The folder of a run: whose it is, what it says, and what is left after a crash."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest

from xpnet.commands import folder as run_folder
from xpnet.commands import train
from xpnet.files import locked
from xpnet.models import Model, checkpoint

QUICK = [
    "--device", "cpu", "--hidden", "50", "--batch-size", "100", "--epochs", "2", "--quiet"
]  # fmt: skip


class Killed(BaseException):
    """In the place of kill -9: nothing of the program catches it."""


def run(*args: str, out: str = "run") -> int:
    return train.main([*QUICK, "--out", out, *args])


def resume(*args: str) -> int:
    return train.main(["--resume", "run", "--quiet", *args])


def config() -> dict[str, Any]:
    return tomllib.loads(Path("run/config.toml").read_text())


def summary() -> dict[str, Any]:
    return dict(json.loads(Path("run/summary.json").read_text()))


def at_first_epoch(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    """Do something after the first epoch of a training."""

    def record(log: Any, trainer: Any, epoch: Any) -> None:
        action()

    monkeypatch.setattr(train._Log, "__call__", record)


def kill() -> None:
    raise Killed


# -- Whose folder it is ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in run_folder.FILES if n not in ("config.toml",)])
def test_files_of_others_are_not_overwritten(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    Path("run").mkdir()
    Path("run", name).write_text("mine")
    assert run() == 2
    err = capsys.readouterr().err
    assert "holds a run already" in err or f"has {name}, which the run would overwrite" in err
    assert [(p.name, p.read_text()) for p in Path("run").iterdir()] == [(name, "mine")]


def test_other_files_stay(in_tmp: Path) -> None:
    Path("run").mkdir()
    names = ("notes.txt", ".config.toml.tmp", ".notes.tmp", ".model.npz.0123456789abcdef.tmp")
    for name in names:
        Path("run", name).write_text("mine")
    assert run() == 0
    assert {Path("run", name).read_text() for name in names} == {"mine"}


def test_two_processes_do_not_write_into_one_folder(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    before = {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}
    with locked("run"):
        for status in (resume("--epochs", "3"), run(out="run")):
            assert status == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert "another process trains into this folder" in err[0]
    assert {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()} == before
    Path("new").mkdir()
    with locked("new"):
        assert run(out="new") == 2
    assert list(Path("new").iterdir()) == []
    assert resume("--epochs", "3") == 0


@pytest.mark.parametrize("error", [MemoryError("9 TB"), OSError(28, "No space left on device")])
def test_a_run_that_ends_before_its_first_step_does_not_block_the_next(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("xpnet.trainer.trainer.train_epoch", fail)
        assert run(out="a/b") in (1, 2)
        assert train.main(QUICK) in (1, 2)
    assert list(in_tmp.iterdir()) == []
    assert run(out="a/b") == 0


def test_what_a_killed_process_left_goes_and_what_only_looks_so_stays(in_tmp: Path) -> None:
    assert run() == 0
    left = [f".model.npz.{'0123456789abcdef' * 2}.tmp", f".summary.json.{'a' * 32}.tmp"]
    mine = [f".mine.npz.{'a' * 32}.tmp", f".model.npz.{'a' * 31}.tmp", f".model.npz.{'x' * 32}.tmp"]
    for name in left + mine:
        Path("run", name).write_text("text")
    assert resume("--epochs", "3") == 0
    assert sorted(path.name for path in Path("run").glob(".*")) == sorted(mine)


# -- What it says ------------------------------------------------------------------------------


def test_a_crash_keeps_the_settings_that_the_run_was_resumed_with(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    with monkeypatch.context() as patch:
        at_first_epoch(patch, kill)
        with pytest.raises(Killed):
            resume("--epochs", "4", "--lr", "0.0123", "--clip-norm", "3")
    assert not Path("run/summary.json").exists()  # the run is no longer complete
    assert "was [0.01, 0.0075, 0.0, 0.0, 0.0], is [0.0123, " in capsys.readouterr().err
    assert resume() == 0
    expected = {"lr": 0.0123, "clip_norm": 3.0, "epochs": 4}
    assert expected.items() <= config().items()
    assert (summary()["lr"], summary()["epochs"]) == (0.0123, 4)
    assert capsys.readouterr().err == ""


def test_settings_that_no_step_was_trained_with_are_not_stored(in_tmp: Path) -> None:
    assert run() == 0
    before = Path("run/config.toml").read_bytes()
    assert resume("--lr", "0.5", "--target-acc", "0.01") == 0
    assert summary()["lr"] == 0.01
    assert Path("run/config.toml").read_bytes() == before


@pytest.mark.parametrize("text", ["", "epochs = 2\n", "epochs = ", None, "lr = 0.5\n"])
def test_a_config_file_that_is_not_whole_is_noticed(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    assert run("--lr", "0.02", "--schedule", "cosine") == 0
    whole = Path("run/config.toml").read_text()
    Path("run/config.toml").unlink()
    if text is not None:
        Path("run/config.toml").write_text(text)
    assert resume("--epochs", "3") == 0
    said = capsys.readouterr().err
    assert said.count("continues with the settings in step-00000030.npz") == 1
    assert config() == tomllib.loads(whole) | {"epochs": 3}


@pytest.mark.parametrize("cut", [0, 40])
def test_without_a_checkpoint_the_defaults_do_not_stand_in_for_lost_settings(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], cut: int
) -> None:
    assert run() == 0
    for path in Path("run/checkpoints").iterdir():
        path.unlink()
    whole = Path("run/config.toml").read_text()
    Path("run/config.toml").write_text("\n".join(whole.splitlines()[: cut // 10]))
    assert resume() == 2
    assert "so it is not whole, and no checkpoint has the settings" in capsys.readouterr().err
    Path("run/config.toml").write_text(whole)
    assert resume() == 0


def test_the_model_is_written_before_the_pictures_and_the_summary_last(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device", "run/curves.png")

    with monkeypatch.context() as patch:
        patch.setattr("xpnet.show.plots.draw_all", fail)
        assert run("--plot") == 1
    assert capsys.readouterr().err == "xpnet: run/curves.png: No space left on device\n"
    assert Model.load("run/model.npz").network.outputs == 10
    assert not Path("run/summary.json").exists()
    assert resume() == 0
    assert summary()["epochs"] == 2


def test_all_that_a_finished_run_says_is_on_the_disk(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file and each folder is synced after its last change; the summary comes last."""
    events: list[tuple[str, str]] = []
    fsync, replace, mkdir = os.fsync, os.replace, Path.mkdir

    def synced(descriptor: int) -> None:
        events.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def replaced(source: Any, target: Any) -> None:
        assert events[-1] == ("sync", str(source))
        events.append(("replace", str(target)))
        replace(source, target)

    def made(path: Path, *args: Any, **options: Any) -> None:
        mkdir(path, *args, **options)
        events.append(("make", str(path.resolve())))

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(Path, "mkdir", made)
    assert run(out="a/run") == 0
    for number, (what, path) in enumerate(events):
        if what != "sync":
            assert events[number + 1] == ("sync", str(Path(path).parent)), path
    assert [Path(path).name for what, path in events if what == "replace"] == [
        "config.toml", "step-00000000.npz", "config.toml", "step-00000030.npz", "model.npz",
        "metrics.jsonl", "summary.json",
    ]  # fmt: skip


# -- Words that nobody can read, signals -------------------------------------------------------


@pytest.mark.parametrize("number", [5, 28, 32])
def test_words_that_cannot_be_printed_cost_no_model(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(sys, "stdout", Full())
    assert train.main([*QUICK, "--out", "run", "--no-quiet"]) == 0
    assert summary()["epochs"] == 2
    err = capsys.readouterr().err
    assert ("cannot print" in err) == (number != 32)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGTERM, 143)],
)
def test_a_signal_saves(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    with monkeypatch.context() as patch:
        at_first_epoch(patch, lambda: os.kill(os.getpid(), number))
        assert run("--epochs", "9") == status
    assert checkpoint.numbered("run/checkpoints")[0].name > "step-00000015.npz"
    assert resume() == 0
    assert summary()["epochs"] == 9


def test_a_signal_that_is_ignored_stays_so(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGHUP, signal.SIGINT)}
    try:
        at_first_epoch(monkeypatch, lambda: [os.kill(os.getpid(), n) for n in before] and None)
        assert run() == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_run_in_another_thread(in_tmp: Path) -> None:
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(run()))
    thread.start()
    thread.join()
    assert statuses == [0]


def test_an_error_of_reading_is_not_said_to_be_one_of_writing(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: Any) -> None:
        raise PermissionError(13, "Permission denied", "x.csv")

    monkeypatch.setattr(train, "load_parts", fail)
    assert run() == 1
    assert capsys.readouterr().err == "xpnet: x.csv: Permission denied\n"


# -- Files with settings -----------------------------------------------------------------------


def test_settings_from_what_never_ends_are_refused(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo("pipe")
    Path("large.toml").write_bytes(b"#" * (1 << 21))
    Path("digits.toml").write_text(f"epochs = {'9' * 5000}\n")
    for name in ("pipe", "/dev/zero", "large.toml", "digits.toml", "."):
        assert train.main(["--config", name]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"xpnet: {name}: ")
        assert err.count("\n") == 1


def test_settings_of_any_form_are_read_back(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.toml").write_bytes(b"\xef\xbb\xbfepochs = 7\n")
    given = ["--data", "d.csv", "--label-column=-d", "--hidden", "", "--config", "c.toml"]
    assert train.main([*given, "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert tomllib.loads(printed)["epochs"] == 7
    Path("again.toml").write_text(printed)
    assert train.main(["--config", "again.toml", "--print-config"]) == 0
    assert capsys.readouterr().out == printed


def test_a_refused_run_leaves_the_folder_to_the_one_that_holds_it(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This run makes the folder, and the other locks it before this one can."""
    holding: list[Any] = []
    make = run_folder.make_folder

    def make_and_lose(folder: Path) -> list[Path]:
        made = make(folder)
        holding.append(locked(folder))
        holding[0].__enter__()
        return made

    monkeypatch.setattr(run_folder, "make_folder", make_and_lose)
    assert run() == 2
    assert Path("run").is_dir()  # empty still, but the other's
    holding[0].__exit__(None, None, None)


def test_a_folder_that_was_removed_before_it_was_locked_is_not_trained_into(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    lock = fcntl.flock

    def after_it_is_gone(descriptor: int, kind: int) -> None:
        Path("run").rmdir()
        lock(descriptor, kind)

    monkeypatch.setattr("fcntl.flock", after_it_is_gone)
    assert run() == 2
    assert "another process trains into this folder" in capsys.readouterr().err
