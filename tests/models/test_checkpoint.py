"""Checkpoints: whole or absent, whatever happens to the disk or to the process."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet.errors import CheckpointError, UsageError
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


def test_one_that_cannot_be_read_now_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be whole: who goes on from the one before would remove it."""
    for step in (1, 2):
        checkpoint.save_numbered(tmp_path, step, {}, {})

    def fail(path: Any) -> Any:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(checkpoint, "open_regular", fail)
    with pytest.raises(CheckpointError, match=r"step-00000002\.npz: cannot be read: Input/output"):
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


def npz(members: dict[str, bytes], **options: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def npy(descr: str, shape: str, content: bytes) -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-len(header) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


SMALL = npy("|u1", "(2,)", b"{}")
NAN = b'{"a": NaN}'
DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello" * 9,
        npz({}),
        npz({"meta.npy": b"no array"}),
        npz({"meta.npy": npy("|u1", "(2,)", b"[]")}),
        npz({"meta.npy": npy("|u1", "(2,)", b"\xff\xfe")}),
        npz({"meta.npy": npy("|u1", f"({len(NAN)},)", NAN)}),
        npz({"meta.npy": npy("|u1", "(11,)", b'{"a":1e999}')}),
        npz({"meta.npy": npy("|u1", f"({len(DEEP)},)", DEEP)}),
        npz({"meta.npy": npy("|u1", "(5006,)", b'{"a":' + b"9" * 5000 + b"}")}),
        npz({"meta.npy": SMALL, "a.npy": npy("|O", "(1,)", b"12345678")}),
        npz({"meta.npy": SMALL, "a.npy": npy("|S0", "(1000000000000,)", b"")}),
        npz({"meta.npy": SMALL, "a.npy": npy("<f8", "(1000000000000,)", b"")}),
        npz({"meta.npy": SMALL, "a.npy": npy("<f8", "(-1, -1)", b"12345678")}),
        npz({"meta.npy": SMALL, "a.npy": npy("<f8", "(True, True)", b"12345678")}),
        npz({"meta.npy": SMALL, "a.npy": npy("<f8", "(0, 1" + "0" * 30 + ")", b"")}),
        npz({"meta.npy": SMALL, "a.npy": npy("<f8", "(1,)", b"123456789")}),
        npz({"meta.npy": SMALL, "a.npy": npy("<c16", "(1,)", b"1234567812345678")}),
        npz({"meta.npy": SMALL, "a": SMALL, "a.npy": SMALL}),
        npz({"meta.npy": SMALL, "a.npy": bytes(10**7)}, compression=zipfile.ZIP_DEFLATED),
    ],
    ids=range(20),
)
def test_a_right_checksum_over_wrong_content(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(body + checkpoint.MAGIC + hashlib.sha256(body).digest())
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_members_that_overlap_are_no_bomb(tmp_path: Path) -> None:
    """A directory may name one member many times; all together are larger than the file."""
    path = tmp_path / "c.npz"
    body = bytearray(npz({"meta.npy": SMALL, "a.npy": npy("|u1", "(100000,)", bytes(100_000))}))
    at = body.rindex(b"PK\x01\x02")  # the entry of a.npy, again under other names
    entry, end = bytes(body[at : body.rindex(b"PK\x05\x06")]), body[body.rindex(b"PK\x05\x06") :]
    more = b"".join(entry.replace(b"a.npy", f"{i:05d}".encode()) for i in range(50))
    directory = int.from_bytes(end[12:16], "little") + len(more)
    end[8:16] = (52).to_bytes(2, "little") * 2 + directory.to_bytes(4, "little")
    body = bytes(body[: at + len(entry)]) + more + bytes(end)
    path.write_bytes(body + checkpoint.MAGIC + hashlib.sha256(body).digest())
    with pytest.raises(CheckpointError, match="larger than the file"):
        checkpoint.load(path)


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "link", "loop", "."):
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoint.load(tmp_path / name)


def test_a_large_file_is_judged_by_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "c.npz", "wb") as file:
        file.truncate(1 << 40)  # a hole: of a whole read, nothing would come back

    def never(*args: Any) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(checkpoint, "_digest", never)
    with pytest.raises(CheckpointError, match="is not an xpnet checkpoint"):
        checkpoint.load(tmp_path / "c.npz")
    with open(tmp_path / "c.npz", "ab") as file:
        file.write(checkpoint.MAGIC + bytes(32))
    with pytest.raises(CheckpointError, match=r"needs 1,048,576 MiB of memory; [\d,]+ are free"):
        checkpoint.load(tmp_path / "c.npz")


def test_values_of_numpy_are_stored_as_numbers(tmp_path: Path) -> None:
    meta = {"a": np.float32(0.5), "b": np.arange(3), "c": (np.int64(1), np.str_("x"), np.bool_(1))}
    checkpoint.save(tmp_path / "c.npz", {}, meta)
    assert checkpoint.load(tmp_path / "c.npz")[1] == {"a": 0.5, "b": [0, 1, 2], "c": [1, "x", True]}


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), np.array([np.inf]), {(1, 2): 3}])
def test_what_json_cannot_hold_is_refused_before_the_file_is_touched(
    tmp_path: Path, value: Any
) -> None:
    checkpoint.save(tmp_path / "c.npz", {}, {"old": True})
    with pytest.raises(UsageError, match="cannot be stored with a model"):
        checkpoint.save(tmp_path / "c.npz", {}, {"a": [value]})
    assert checkpoint.load(tmp_path / "c.npz")[1] == {"old": True}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("size", [0, 1, 0xFFFF_FF00])
def test_an_array_of_two_sizes_is_refused(tmp_path: Path, size: int) -> None:
    """zipfile reads as many bytes as the directory claims, 4 GB here."""
    path = tmp_path / "m.npz"
    checkpoint.save(path, {"W": np.ones(5)}, {})
    body = bytearray(path.read_bytes()[: -checkpoint.FOOTER])
    place = body.index(b"PK\x01\x02") + 20  # of the compressed size in the directory
    body[place : place + 4] = size.to_bytes(4, "little")
    path.write_bytes(body + checkpoint.MAGIC + hashlib.sha256(body).digest())
    with pytest.raises(CheckpointError, match="two sizes"):
        checkpoint.load(path)
