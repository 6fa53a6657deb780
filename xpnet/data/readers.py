"""Files of arrays: IDX, NPY and NPZ, read so that nothing in them can do harm.

A header's claims are held against the file's size before memory is taken; pickles are never
loaded; whatever is wrong ends in one `DataError`: file, place, got, expected.
"""

from __future__ import annotations

import gzip
import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xpnet.errors import DataError

__all__ = ["existing", "read_idx", "read_npy", "read_npz"]

# Deflate cannot make more than 1,032 bytes of one; a header that claims more is wrong.
DEFLATE_RATIO = 1032


def existing(path: Path) -> Path:
    """The path, if it is a file that can be read."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path}: {what}; expected a file")
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """An IDX file of unsigned bytes, plain or gzipped: the format of MNIST.

    Returns
    -------
    array, uint8, of the shape in the header

    Raises
    ------
    DataError
    """
    path = existing(Path(path))
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            size = os.fstat(raw.fileno()).st_size
            if not zipped:
                return _idx(raw, size, path)
            with gzip.GzipFile(fileobj=raw) as file:
                return _idx(file, size * DEFLATE_RATIO, path)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _idx(file: BinaryIO, limit: int, path: Path) -> np.ndarray:
    head = file.read(4)
    if len(head) < 4 or head[:3] != b"\0\0\x08" or not 1 <= head[3] <= 4:
        raise DataError(f"{path}: got a file that starts {head!r}, expected IDX of unsigned bytes")
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DataError(f"{path}: ends in its header")
    shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
    count = math.prod(shape)
    if count > limit:
        raise DataError(f"{path}: header claims shape {shape}, more than the file can hold")
    values = np.empty(count, np.uint8)
    view, got = values.data, 0
    while got < count and (n := file.readinto(view[got : got + (1 << 20)])):  # type: ignore[attr-defined]
        got += n
    more = file.read(1)
    if got < count or more:
        raise DataError(
            f"{path}: got {'more than ' if more else ''}{got} bytes, expected {count} "
            f"for the shape {shape} in its header"
        )
    return values.reshape(shape)


def _npy_header(file: Any, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, dtype), with the file left at the first value."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"format version {version}")
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
    # A damaged header ends in one of half a dozen exceptions (it is Python source, parsed).
    except Exception as error:
        raise DataError(f"{where}: is not an NPY array: {error}") from error
    if dtype.hasobject:
        raise DataError(f"{where}: got Python objects, expected numbers")
    if any(n < 0 for n in shape):
        raise DataError(f"{where}: header claims shape {shape}")
    return shape, fortran, dtype


def read_npy(path: str | os.PathLike[str], resident_bytes: int | None = None) -> np.ndarray:
    """An NPY file: in memory if it is at most `resident_bytes` large, else memory-mapped.

    Parameters
    ----------
    path : path
    resident_bytes : int, optional
        By default a quarter of the machine's memory.

    Raises
    ------
    DataError
    """
    path = existing(Path(path))
    with open(path, "rb") as file:
        shape, fortran, dtype = _npy_header(file, str(path))
        size = os.fstat(file.fileno()).st_size - file.tell()
    expected = math.prod(shape) * dtype.itemsize
    if size != expected:
        raise DataError(
            f"{path}: got {size} bytes of values, expected {expected} for {dtype} of shape {shape}"
        )
    if size == 0:
        return np.empty(shape, dtype)
    if resident_bytes is None:
        resident_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    if size > resident_bytes:
        if fortran:
            raise DataError(
                f"{path}: is in Fortran order, whose rows are scattered; save it in C order"
            )
        mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped
    values: np.ndarray = np.load(path, allow_pickle=False)
    return values


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of an NPZ file.

    Raises
    ------
    DataError
        Also for duplicate names, a member whose header does not match its length, a wrong
        checksum, and arrays that would not fit into half of the machine's memory.
    """
    path = existing(Path(path))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > memory // 2:
                raise DataError(
                    f"{path}: claims {total} bytes, more than half of the memory; "
                    "save x and t as .npy files, which are memory-mapped"
                )
            for member in members:
                name = member.filename.removesuffix(".npy")
                where = f"{path}: {name}"
                if name in arrays:
                    raise DataError(f"{where}: is there twice")
                if member.file_size > max(member.compress_size, 1) * DEFLATE_RATIO:
                    raise DataError(f"{where}: claims more than its bytes can hold")
                with archive.open(member) as file:
                    arrays[name] = _npz_member(file, member.file_size, where)
    except DataError:
        raise
    # zipfile raises BadZipFile, EOFError, NotImplementedError, zlib.error, struct.error ...
    except Exception as error:
        raise DataError(f"{path}: is not an NPZ file that can be read: {error}") from error
    return arrays


def _npz_member(file: Any, file_size: int, where: str) -> np.ndarray:
    shape, fortran, dtype = _npy_header(file, where)
    size, expected = file_size - file.tell(), math.prod(shape) * dtype.itemsize
    if size != expected:
        raise DataError(
            f"{where}: got {size} bytes of values, expected {expected} for {dtype} of shape {shape}"
        )
    values = file.read(expected)
    file.read(1)  # to the end, where the checksum is compared
    return np.frombuffer(values, dtype).reshape(shape, order="F" if fortran else "C")
