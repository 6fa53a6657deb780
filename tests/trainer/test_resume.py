"""Runs on disk: what a continuation notices, and who may write into a folder."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.data import Scaling
from xpnet.errors import CheckpointError, UsageError
from xpnet.models import checkpoint, schema
from xpnet.trainer import Trainer, resume

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (5000, 4), dtype=np.uint8)
T = (X[:, 0] > 128).astype(int)
W = np.linspace(1.0, 2.0, 5000)


def by_hand(gate: Any = xpnet.layers.ReLU(), loss: Any = xpnet.losses.SoftmaxWithLoss()) -> Any:  # noqa: B008
    graph = xpnet.Graph()
    x, t, V = graph.inputs("x t V")
    weight = graph.input("weight", optional=True)
    scores = graph.apply(gate, x @ V)
    end = graph.apply(loss, scores, t, weight)
    params = {"V": np.ones((4, 2))}
    return xpnet.Network(graph, params, scores, end, outputs=2)


def fit(folder: Path, resume: bool = False, **change: Any) -> Any:
    """A run with all that can change, and a part of it changed."""
    given: dict[str, Any] = {
        "network": xpnet.mlp([4, 3, 2], dropout=0.1),
        "optimizer": optim.Momentum(0.01),
        "scaling": Scaling(0.0, 1 / 255),
        "weight_decay": 0.0, "clip_norm": None, "seed": 0, "dtype": "float32",
        "classes": ("a", "b"), "columns": tuple("abcd"),
        "x": X, "t": T, "validation": (X[:50], T[:50]), "sample_weight": W, "epochs": 1,
        "batch_size": 500, "folder": folder,
    } | change  # fmt: skip
    names = ("x", "t", "validation", "sample_weight", "epochs", "batch_size", "folder", "stop")
    of_fit = {name: given.pop(name) for name in names if name in given}
    trainer = Trainer(given.pop("network"), given.pop("optimizer"), **given)
    return trainer.fit(**of_fit, resume=resume)


def replaced(array: np.ndarray, rows: Any) -> np.ndarray:
    other = array.copy()
    other[rows] = 0 if array.dtype == np.uint8 else 1 - other[rows]
    return other


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": replaced(X, 4321)}, "the samples have changed"),
        ({"x": replaced(X, slice(0, 4000))}, "the samples have changed"),
        ({"x": X[::-1], "t": T[::-1]}, "the samples have changed"),
        ({"x": X.astype(np.int32)}, "the samples have changed"),
        ({"t": replaced(T, 17)}, "the targets have changed"),
        ({"validation": (X[50:100], T[50:100])}, "the validation set has changed"),
        ({"validation": (X[:50], replaced(T[:50], 3))}, "the validation set has changed"),
        ({"sample_weight": W[::-1]}, "the sample weights have changed"),
        ({"sample_weight": None}, "the sample weights have changed"),
        ({"scaling": Scaling(0.0, 1 / 256)}, "the scaling has changed"),
        ({"scaling": Scaling(np.zeros(4), np.full(4, 1 / 255))}, "the scaling has changed"),
        ({"scaling": None}, "the scaling has changed"),
        ({"network": xpnet.mlp([4, 3, 2], "tanh", dropout=0.1)}, "activation was .*relu"),
        ({"network": xpnet.mlp([4, 3, 2], dropout=0.1, loss="hinge")}, "loss was softmax, is h"),
        ({"network": xpnet.mlp([4, 3, 2], dropout=0.2)}, "dropout was 0.1, is 0.2"),
        ({"optimizer": optim.Nesterov(0.01)}, "optimizer was Momentum, is Nesterov"),
        ({"classes": ("a", "c")}, "classes was"),
        ({"columns": tuple("abce")}, "columns was"),
        ({"batch_size": 100}, "batch_size was 500, is 100"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"dtype": "float64"}, "dtype was float32, is float64"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    fit(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=f"belongs to another run: .*{words}") as caught:
        fit(tmp_path, resume=True, epochs=2, **change)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (by_hand(), by_hand(xpnet.layers.Tanh())),
        (by_hand(xpnet.layers.LeakyReLU(0.1)), by_hand(xpnet.layers.LeakyReLU(0.2))),
        (by_hand(), by_hand(loss=xpnet.losses.SoftmaxWithLoss("sum"))),
        (
            by_hand(loss=xpnet.losses.HingeLoss()),
            by_hand(loss=xpnet.losses.HingeLoss(margin=2.0)),
        ),
    ],
    ids=["activation", "slope", "reduction", "margin"],
)
def test_another_network_built_by_hand_is_refused(tmp_path: Path, was: Any, now: Any) -> None:
    fit(tmp_path, network=was)
    with pytest.raises(CheckpointError, match=r"belongs to another run: gates was .*, is "):
        fit(tmp_path, network=now, resume=True, epochs=2)
    assert len(fit(tmp_path, network=was, resume=True, epochs=2).epochs) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": optim.Momentum(0.02)}, "lr was 0.01, is 0.02$"),
        ({"optimizer": optim.Momentum(0.01, 0.5)}, "momentum was 0.9, is 0.5$"),
        ({"optimizer": optim.Momentum(0.02, 0.5)}, "momentum was 0.9, is 0.5; lr was 0.01, is 0.0"),
        ({"weight_decay": 0.1}, "weight_decay was 0.0, is 0.1$"),
        ({"l1": 0.1}, "l1 was 0.0, is 0.1$"),
        ({"clip_norm": 1.0}, "clip_norm was None, is 1.0$"),
        ({"optimizer": optim.Momentum(optim.cosine(0.01, 20))}, r"lr at .* is \[0.01, 0.005, 0.0,"),
    ],
)
def test_another_number_of_the_optimizer_is_said_and_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], words: str
) -> None:
    fit(tmp_path)
    assert capsys.readouterr().err == ""
    fit(tmp_path, resume=True, epochs=2, **change)
    said = capsys.readouterr().err.strip()
    assert re.search(f"going on with other settings: .*{words}", said)
    fit(tmp_path, resume=True, epochs=3, **change)  # those are its settings now
    assert capsys.readouterr().err == ""


def test_a_validation_set_may_come_and_go_but_not_change(tmp_path: Path) -> None:
    fit(tmp_path, validation=None)
    fit(tmp_path, resume=True, epochs=2)
    fit(tmp_path, resume=True, epochs=3, validation=None)
    with pytest.raises(CheckpointError, match="the validation set has changed"):
        fit(tmp_path, resume=True, epochs=4, validation=(X[9:99], T[9:99]))
    assert len(fit(tmp_path, resume=True, epochs=4).epochs) == 4


@pytest.mark.parametrize("kind", ["array", "strided", "file", "rows"])
def test_large_data_are_compared_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(resume, "WHOLE", 10_000)
    monkeypatch.setattr(resume, "PIECE", 40)
    monkeypatch.setattr(resume, "PIECES", 50)

    def data(x: np.ndarray) -> Any:
        if kind == "array":
            return x
        if kind == "strided":
            return np.repeat(x, 2, axis=0)[::2]
        np.save(tmp_path / "x.npy", x)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        return mapped if kind == "file" else xpnet.data.dataset.Rows(mapped, np.arange(len(x)))

    run = tmp_path / "run"
    fit(run, x=data(X))
    fit(run, x=data(X), resume=True, epochs=2)
    for other in (replaced(X, slice(0, 2500)), replaced(X, slice(4995, 5000)), X[:4900]):
        with pytest.raises(CheckpointError, match="the samples have changed"):
            fit(run, x=data(other), t=T[: len(other)], resume=True, epochs=3,
                sample_weight=W[: len(other)])  # fmt: skip


def test_data_are_not_looked_at_without_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(x: Any) -> None:
        raise AssertionError("only a resumed run compares data")

    monkeypatch.setattr(resume, "digest", never)
    Trainer(xpnet.mlp([4, 2])).fit(X, T, epochs=1)


def test_settings_are_on_the_disk_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Killed(BaseException):
        pass

    def kill() -> bool:
        raise Killed

    with pytest.raises(Killed):
        fit(tmp_path, stop=kill)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000000.npz"]
    fit(tmp_path)  # nothing was trained in it: a new run may begin here
    with pytest.raises(Killed):
        fit(tmp_path, resume=True, epochs=2, optimizer=optim.Momentum(0.5), stop=kill)
    assert "lr was 0.01, is 0.5" in capsys.readouterr().err
    fit(tmp_path, resume=True, epochs=2, optimizer=optim.Momentum(0.5))
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_written_to_is_said_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numpy.savez", full)
    with pytest.raises(OSError, match="No space left"):
        fit(tmp_path / "a" / "b", stop=lambda: pytest.fail("trained"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    for change in ({"x": X * np.float64(1e300)}, {"extra": {"a": object()}}):
        trainer = Trainer(xpnet.mlp([4, 2]))
        with pytest.raises(ValueError, match=r"too large|cannot be stored"):
            trainer.fit(**{"x": X, "t": T, "epochs": 1, "folder": tmp_path / "a" / "b"} | change)
    assert list(tmp_path.iterdir()) == []


def test_one_training_at_a_time_writes_into_a_folder(tmp_path: Path) -> None:
    fit(tmp_path)
    inside, done = threading.Event(), threading.Event()

    def wait() -> bool:
        inside.set()
        return not done.wait(20)

    thread = threading.Thread(target=lambda: fit(tmp_path, resume=True, epochs=2, stop=wait))
    thread.start()
    assert inside.wait(20)
    try:
        for resumed in (True, False):
            with pytest.raises(UsageError, match="another process trains into this folder"):
                fit(tmp_path, resume=resumed, epochs=2)
    finally:
        done.set()
        thread.join()
    assert len(fit(tmp_path, resume=True, epochs=2).epochs) == 2


def test_a_dead_process_holds_no_lock(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom xpnet.files import locked\n"
        "with locked(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match="another process"):
        fit(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(fit(tmp_path).epochs) == 1


def test_a_folder_keeps_what_is_not_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    names = (".notes.tmp", "step-one.npz", ".step-00000001.npz.tmp", ".step-00000010.npz", "x.npz")
    for name in names:
        (tmp_path / name).write_text("mine")
    (tmp_path / f".step-00000010.npz.{'0' * 31}.tmp").symlink_to("victim")
    mine = {path.name for path in tmp_path.iterdir()}
    fit(tmp_path, epochs=3)
    assert mine < {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "victim").read_text() == "precious"
    assert {(tmp_path / name).read_text() for name in names} == {"mine"}


REFUSALS = (errno.EINVAL, errno.ENOTSUP, errno.EPERM)


@pytest.mark.parametrize("number", REFUSALS)
def test_a_file_system_that_cannot_sync_or_change_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    for call in ("fsync", "chmod", "fchmod", "umask"):
        monkeypatch.setattr(os, call, refuse)
    fit(tmp_path)
    assert checkpoint.load_latest(tmp_path, schema.load)[2].name == "step-00000010.npz"


@pytest.mark.parametrize("number", REFUSALS)
def test_a_file_system_that_cannot_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.warns(RuntimeWarning, match="this file system cannot lock"):
        assert len(fit(tmp_path).epochs) == 1


def test_checkpoints_of_version_1_are_models_but_cannot_go_on(tmp_path: Path) -> None:
    fit(tmp_path)
    arrays, meta = checkpoint.load(checkpoint.numbered(tmp_path)[0])
    older = {k: v for k, v in meta.items() if k not in ("builder", "arguments", "gates", "rules")}
    older |= {"format": 1, "spec": meta["arguments"], "extra": {"columns": list("abcd")}}
    checkpoint.save_numbered(tmp_path, 10, arrays, older)
    assert xpnet.Model.load(tmp_path / "step-00000010.npz").columns == tuple("abcd")
    with pytest.raises(CheckpointError, match=r"of a version before 0\.2\.0"):
        fit(tmp_path, resume=True, epochs=2)


@pytest.mark.parametrize("rule", [optim.Adam(), optim.AdamW(), optim.AdaGrad(), optim.RMSProp()])
def test_a_negative_sum_of_squares_is_refused(tmp_path: Path, rule: Any) -> None:
    """Its root is not a number: the training would end at its first step."""
    fit(tmp_path, optimizer=rule)
    path = checkpoint.numbered(tmp_path)[0]
    arrays, meta = checkpoint.load(path)
    name = f"state/W1.{rule.squares[0]}"
    arrays[name] = -1.0 - arrays[name]
    checkpoint.save(path, arrays, meta)
    for older in checkpoint.numbered(tmp_path)[1:]:
        older.unlink()
    with pytest.raises(CheckpointError, match=rf"W1\.{rule.squares[0]} is negative"):
        fit(tmp_path, resume=True, epochs=2, optimizer=rule)
