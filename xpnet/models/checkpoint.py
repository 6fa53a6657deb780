"""Checkpoints that survive a crash: one checksummed file, written beside and renamed.

A checkpoint is an uncompressed NPZ file with a 40-byte footer, 8 bytes of magic and the
SHA-256 of all that precedes; ``numpy.load`` still reads it. Neither NPZ's own checksums nor
safetensors notice every flipped bit; a checksum over the whole file does.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.errors import CheckpointError

__all__ = ["load", "load_latest", "model_file", "numbered", "save", "save_numbered", "section"]

MAGIC = b"xpnetCK1"
FOOTER = len(MAGIC) + hashlib.sha256().digest_size
KEPT = 2
Path_ = str | os.PathLike[str]


def save(path: Path_, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint so that `path` holds, at any moment, the old file or the new one.

    Parameters
    ----------
    path : path
    arrays : mapping of str to array
    meta : mapping
        Whatever JSON can hold.

    Raises
    ------
    OSError
        The disk is full, say: the old file is untouched and no temporary is left.
    """
    path = Path(path)
    text = json.dumps(meta, allow_nan=False).encode()
    members = {**arrays, "meta": np.frombuffer(text, np.uint8)}
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with open(descriptor, "w+b") as file:
            np.savez(file, **members)  # type: ignore[arg-type]
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0, os.SEEK_END)
            file.write(MAGIC + digest)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's 0600 would hide it from the group
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def load(path: Path_) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a checkpoint: (arrays, meta).

    Raises
    ------
    CheckpointError
        It is missing, cut short, altered, or not a checkpoint at all.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    body, footer = content[:-FOOTER], content[-FOOTER:]
    if len(footer) < FOOTER or not footer.startswith(MAGIC):
        raise CheckpointError(f"{path}: is not an xpnet checkpoint, or was cut short")
    if hashlib.sha256(body).digest() != footer[len(MAGIC) :]:
        raise CheckpointError(f"{path}: is damaged: its checksum does not match")
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    meta: dict[str, Any] = json.loads(arrays.pop("meta").tobytes())
    return arrays, meta


def save_numbered(
    folder: Path_, step: int, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
) -> Path:
    """Save ``step-00001200.npz`` in `folder`, and keep the one before it; all others go.

    Those with a larger number too: they are of a future that did not come, because they
    were damaged and the run went on from before them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.npz"
    save(path, arrays, meta)
    paths = numbered(folder)
    kept = paths[paths.index(path) :][:KEPT]
    for old in set(paths) - set(kept):
        old.unlink(missing_ok=True)
    for stale in folder.glob(".*.tmp"):  # of a process that was killed while it wrote
        stale.unlink(missing_ok=True)
    return path


def load_latest(
    folder: Path_,
) -> tuple[dict[str, np.ndarray], dict[str, Any], Path, list[CheckpointError]]:
    """The newest checkpoint of `folder` that verifies: (arrays, meta, path, skipped).

    `skipped` holds what was wrong with newer ones, for the user to be told.

    Raises
    ------
    CheckpointError
        There is none, or none that verifies.
    """
    skipped: list[CheckpointError] = []
    for path in numbered(Path(folder)):
        try:
            return *load(path), path, skipped
        except CheckpointError as error:
            skipped.append(error)
    raise CheckpointError("; ".join(map(str, skipped)) or f"{folder}: has no checkpoint")


def section(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names start with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def numbered(folder: Path_) -> list[Path]:
    """The checkpoints of a folder, newest first: by number, since digits may differ."""
    names = (path for path in Path(folder).glob("step-*.npz"))
    paths = [path for path in names if re.fullmatch(r"step-[0-9]+", path.stem)]
    return sorted(paths, key=lambda path: int(path.stem[5:]), reverse=True)


def model_file(path: Path) -> Path:
    """Of a run's folder, the finished model, or the newest checkpoint that verifies."""
    if not path.is_dir():
        return path
    if (path / "model.npz").exists():
        return path / "model.npz"
    return load_latest(path / "checkpoints")[2]
