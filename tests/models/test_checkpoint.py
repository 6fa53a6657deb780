"""Checkpoints: whole or absent, whatever happens to the disk or to the process."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet.errors import CheckpointError
from xpnet.models import checkpoint

ARRAYS = {
    "params/W1": np.arange(12.0).reshape(3, 4),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "scalar": np.asarray(7, np.int32),
    "empty": np.zeros((0, 3), np.float32),
}
META = {"epoch": 3, "name": "größer", "nested": {"a": [1, None, 0.1]}}


def test_round_trip(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.npz", ARRAYS, META)
    arrays, meta = checkpoint.load(tmp_path / "c.npz")
    assert meta == META
    assert arrays.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        assert arrays[name].dtype == value.dtype
        np.testing.assert_array_equal(arrays[name], value)


def test_numpy_reads_it_too(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.npz", ARRAYS, META)
    with np.load(tmp_path / "c.npz") as archive:
        np.testing.assert_array_equal(archive["params/W1"], ARRAYS["params/W1"])


def test_every_damage_is_found(tmp_path: Path) -> None:
    """1,000 files: one bit flipped, cut short, tail zeroed, bytes appended."""
    path = tmp_path / "c.npz"
    checkpoint.save(path, ARRAYS, META)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for i in range(1000):
        damaged = bytearray(whole)
        at = int(rng.integers(0, len(whole)))
        match i % 4:
            case 0:
                damaged[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                del damaged[at:]
            case 2:
                damaged[at:] = bytes(len(whole) - at)
            case 3:
                damaged += rng.bytes(int(rng.integers(1, 50)))
        if damaged == whole:
            continue
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            checkpoint.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"c\.npz: cannot be read: No such file"):
        checkpoint.load(tmp_path / "c.npz")


def test_two_are_kept_and_the_newest_that_verifies_is_loaded(tmp_path: Path) -> None:
    for step in (5, 99_999_999, 100_000_000):  # the last has a digit more
        checkpoint.save_numbered(tmp_path, step, {"step": np.asarray(step)}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step-100000000.npz",
        "step-99999999.npz",
    ]
    arrays, _, path, skipped = checkpoint.load_latest(tmp_path)
    assert (int(arrays["step"]), skipped) == (100_000_000, [])
    path.write_bytes(path.read_bytes()[:-1])
    arrays, _, path, skipped = checkpoint.load_latest(tmp_path)
    assert int(arrays["step"]) == 99_999_999
    assert "step-100000000.npz" in str(skipped[0])
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step-100000000\.npz.*; .*step-99999999\.npz"):
        checkpoint.load_latest(tmp_path)


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        checkpoint.load_latest(tmp_path)


@pytest.mark.parametrize("failing", ["numpy.savez", "os.fsync", "os.replace"])
def test_a_full_disk_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    checkpoint.save(tmp_path / "c.npz", ARRAYS, {"old": True})

    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(failing, full)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(tmp_path / "c.npz", ARRAYS, {"new": True})
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]
    assert checkpoint.load(tmp_path / "c.npz")[1] == {"old": True}


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        checkpoint.save(tmp_path / "c.npz", {}, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "c.npz").stat().st_mode) == 0o640


def test_killed_while_it_writes(tmp_path: Path) -> None:
    """kill -9 at random moments of a process that does nothing but save."""
    program = (
        "import sys, numpy as np\n"
        "from xpnet.models import checkpoint\n"
        "for step in range(1, 10**6):\n"
        "    a = np.full(300_000, float(step))\n"
        "    checkpoint.save_numbered(sys.argv[1], step, {'a': a}, {'step': step})\n"
        "    print(step, flush=True)\n"
    )
    rng = np.random.default_rng(0)
    for i in range(4):
        folder = tmp_path / str(i)
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.01, 0.1))
        process.send_signal(signal.SIGKILL)
        told = [int(line) for line in process.stdout.read().split()]
        process.stdout.close()
        process.wait()
        arrays, meta, _, skipped = checkpoint.load_latest(folder)
        assert not skipped
        assert meta["step"] >= max(told, default=1)
        np.testing.assert_array_equal(arrays["a"], float(meta["step"]))
        # what the dead process may have left behind goes with the next save
        checkpoint.save_numbered(folder, 10**7, {}, {})
        assert not list(folder.glob(".*"))
