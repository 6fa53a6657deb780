"""Write and read checkpoints that survive a crash: files with a checksum, renamed into place.

A checkpoint is an uncompressed NPZ file with a 40-byte footer, 8 bytes of magic and the
SHA-256 of all that precedes; ``numpy.load`` still reads it. Neither NPZ's own checksums nor
safetensors notice every flipped bit; a checksum over the whole file does.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xpnet.data.readers import available_memory
from xpnet.errors import CheckpointError, UsageError, shown
from xpnet.files import leftovers, make_folder, open_regular, replacing

__all__ = [
    "load", "load_latest", "model_file", "numbered", "plain", "save", "save_numbered", "section",
]  # fmt: skip

MAGIC = b"xpnetCK1"
FOOTER = len(MAGIC) + hashlib.sha256().digest_size
KEPT = 2
PIECE = 1 << 20
Path_ = str | os.PathLike[str]
Content = tuple[dict[str, np.ndarray], dict[str, Any]]


def save(path: Path_, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint; at any moment `path` holds the old file or the new one.

    Parameters
    ----------
    path : path
    arrays : mapping of str to array
    meta : mapping
        Whatever `plain` takes.

    Raises
    ------
    UsageError
        JSON cannot hold the meta data.
    OSError
        The disk is full, say: the old file is untouched and no temporary is left.
    """
    text = json.dumps(plain(meta)).encode()
    members = {**arrays, "meta": np.frombuffer(text, np.uint8)}
    with replacing(path) as file:
        np.savez(file, **members)  # type: ignore[arg-type]
        digest = _digest(file, file.seek(0, os.SEEK_END))
        file.write(MAGIC + digest)


def plain(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return meta data as `load` returns it: tuples become lists, NumPy's values Python's.

    Raises
    ------
    UsageError
        JSON cannot hold them.
    """
    try:
        text = json.dumps(meta, allow_nan=False, default=_from_numpy, ensure_ascii=False)
        text.encode()  # no output takes half of a surrogate pair
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"cannot be stored with a model: {error}; expected text, finite numbers, lists and "
            "dicts with text as keys"
        ) from error
    values: dict[str, Any] = json.loads(text)
    return values


def _from_numpy(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"got {type(value).__name__}")


def load(path: Path_) -> Content:
    """Read a checkpoint: (arrays, meta).

    The memory that this takes is at most about the file's own size, and nothing is read of a file
    that does not end as a checkpoint does.

    Raises
    ------
    CheckpointError
        It is missing, cut short, altered, larger than the free memory, or not a checkpoint at all.
    """
    if not isinstance(path, str | os.PathLike):
        raise CheckpointError(f"{shown(path)}: expected the path of a file")
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size - FOOTER
            file.seek(max(0, size))
            footer = file.read(FOOTER)
            if size < 0 or not footer.startswith(MAGIC):
                raise CheckpointError(f"{path}: is not an xpnet checkpoint, or was cut short")
            if size > (free := available_memory()):
                raise CheckpointError(
                    f"{path}: needs {size / 2**20:,.0f} MiB of memory; {free / 2**20:,.0f} are free"
                )
            if _digest(file, size) != footer[len(MAGIC) :]:
                raise CheckpointError(f"{path}: is damaged: its checksum does not match")
            return _content(file, size)
    except (MemoryError, CheckpointError):
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # zipfile, NumPy and json raise some ten kinds of error
        words = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: is not an xpnet checkpoint: {words}") from error


def _digest(file: BinaryIO, size: int) -> bytes:
    """Compute the checksum of the first `size` bytes, piece by piece to save memory."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0 and (piece := file.read(min(size, PIECE))):
        digest.update(piece)
        size -= len(piece)
    return digest.digest()


def _content(file: BinaryIO, size: int) -> Content:
    """Return (arrays, meta) of an archive; refuse one that claims more bytes than it has."""
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("its arrays are compressed")
        if any(member.compress_size != member.file_size for member in members):
            raise ValueError("its arrays have two sizes")
        if sum(member.file_size for member in members) > size:
            raise ValueError("its arrays are larger than the file")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in arrays:
                raise ValueError(f"has two arrays named {name}")
            arrays[name] = _array(archive.read(member))
    if "meta" not in arrays:
        raise ValueError("has no meta data")
    meta = json.loads(arrays.pop("meta").tobytes(), parse_constant=_finite, parse_float=_finite)
    if not isinstance(meta, dict):
        raise ValueError("its meta data is not an object")
    json.dumps(meta, ensure_ascii=False).encode()  # as in `plain`
    return arrays, meta


def _array(content: bytes) -> np.ndarray:
    """Read an NPY file: a header, then exactly the numbers that it announces."""
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("has an array of another version")
    shape, in_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    rest = len(content) - stream.tell()
    if dtype.kind not in "biuf" or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"has an array of {dtype}, shape {shape}")
    if math.prod(shape) * dtype.itemsize != rest:
        raise ValueError(f"has an array of shape {shape} in {rest} bytes")
    array = np.frombuffer(content, dtype, offset=stream.tell())
    return array.reshape(shape, order="F" if in_columns else "C")


def _finite(word: str) -> float:
    if not math.isfinite(value := float(word)):
        raise ValueError(f"its meta data has the number {word}")
    return value


def save_numbered(
    folder: Path_, step: int, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
) -> Path:
    """Save ``step-00001200.npz`` in `folder`; keep the checkpoint before it, remove all others.

    Those with a larger number too: they are of a future that did not come, because they
    were damaged and the run went on from before them. Where several processes could save, one
    holds the folder, see `xpnet.files.locked`.
    """
    folder = Path(folder)
    make_folder(folder)
    path = folder / f"step-{step:08d}.npz"
    save(path, arrays, meta)
    paths = numbered(folder)
    kept = paths[paths.index(path) :][:KEPT]
    for old in set(paths) - set(kept):
        old.unlink(missing_ok=True)
    for stale in leftovers(folder, "step-[0-9]*.npz"):
        stale.unlink(missing_ok=True)
    return path


def load_latest(
    folder: Path_, read: Callable[[Path], Content] = load
) -> tuple[dict[str, np.ndarray], dict[str, Any], Path, list[CheckpointError]]:
    """Read the newest checkpoint of `folder` that is whole: (arrays, meta, path, skipped).

    `skipped` holds what was wrong with newer ones, for the user to be told.

    Raises
    ------
    CheckpointError
        There is none, none that verifies, or the system refuses to read one.
    """
    skipped: list[CheckpointError] = []
    for path in numbered(Path(folder)):
        try:
            return *read(path), path, skipped
        except CheckpointError as error:
            if isinstance(error.__cause__, OSError):  # whole perhaps, and not to be trained over
                raise
            skipped.append(error)
    raise CheckpointError("; ".join(map(str, skipped)) or f"{folder}: has no checkpoint")


def section(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names start with `prefix`, under names without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def numbered(folder: Path_) -> list[Path]:
    """List the checkpoints of a folder by their number, newest first."""
    names = (path for path in Path(folder).glob("step-*.npz"))
    paths = [path for path in names if re.fullmatch(r"step-[0-9]+", path.stem)]
    return sorted(paths, key=lambda path: int(path.stem[5:]), reverse=True)


def model_file(path: Path) -> Path:
    """Return the model of a run's folder, or else its newest checkpoint that is whole."""
    if not path.is_dir():
        return path
    if (path / "model.npz").exists():
        return path / "model.npz"
    return load_latest(path / "checkpoints")[2]
