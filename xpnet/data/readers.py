"""Files of arrays: IDX, NPY and NPZ, read so that nothing in them can do harm.

What a header claims is compared with the file's size, and with the memory that is free, before any
memory is taken. Pickles are never loaded. Whatever is wrong raises one `DataError` with the file,
the place, what the file has and what is expected.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from xpnet.errors import DataError, listed

__all__ = [
    "Header",
    "available_memory",
    "existing",
    "idx_shape",
    "map_npy",
    "npy_header",
    "npz_headers",
    "read_idx",
    "read_npy",
    "read_npz",
    "resident_limit",
]

# Deflate cannot make more than 1,032 bytes of one; a header that claims more is wrong.
DEFLATE_RATIO = 1032
# NumPy parses no longer header; its own check reads first, and a header may claim 4 GB.
LONGEST_HEADER = 10_000
BLOCK = 1 << 20
# Python 3.11 may fail where two threads parse at a time (python/cpython issue 106905).
_parsing = threading.Lock()


class Header(NamedTuple):
    """What an NPY file says about its array.

    Attributes
    ----------
    shape : tuple of int
    fortran : bool
        Whether the values are in Fortran order.
    dtype : dtype
    start : int
        Where the first value is, in bytes.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    start: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def existing(path: Path) -> Path:
    """The path, if it is a file that can be read; pipes and devices may have no end."""
    if not path.is_file():
        what = "does not exist"
        if path.is_dir():
            what = "is a folder"
        elif path.exists():
            what = "is a pipe or a device"
        raise DataError(f"{path}: {what}; expected a file")
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def available_memory() -> int:
    """The bytes of memory that are free, or can be freed; all memory where nobody says."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _check_room(size: int, where: str) -> None:
    if size > available_memory() // 2:
        raise DataError(
            f"{where}: needs {size:,} bytes, more than half of the free memory; save the samples "
            "as an .npy file, which is memory-mapped"
        )


def _words(error: Exception) -> str:
    """What a library says, in one line: zipfile cites whole headers."""
    return " ".join(str(error).split())[:200]


# -- IDX -----------------------------------------------------------------------------------


def idx_shape(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """The shape that the header of an IDX file claims.

    Raises
    ------
    DataError
    """
    with _idx_file(Path(path)) as (file, limit):
        return _idx_header(file, limit, Path(path))


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzipped: the format of MNIST.

    Returns
    -------
    array, uint8, of the shape in the header

    Raises
    ------
    DataError
    """
    path = Path(path)
    with _idx_file(path) as (file, limit):
        shape = _idx_header(file, limit, path)
        count = math.prod(shape)
        _check_room(count, str(path))
        values = np.empty(count, np.uint8)
        got = _fill(values, file)
        more = file.read(1)
    if got < count or more:
        raise DataError(
            f"{path}: got {'more than ' if more else ''}{got} bytes, expected {count} "
            f"for the shape {shape} in its header"
        )
    return values.reshape(shape)


@contextmanager
def _idx_file(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """(the file, unzipped; how many bytes can be in it)."""
    existing(path)
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            size = os.fstat(raw.fileno()).st_size
            if not zipped:
                yield raw, size
                return
            with gzip.GzipFile(fileobj=raw) as file:
                yield file, size * DEFLATE_RATIO  # type: ignore[misc]
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {_words(error)}") from error


def _idx_header(file: IO[bytes], limit: int, path: Path) -> tuple[int, ...]:
    head = file.read(4)
    if len(head) < 4 or head[:3] != b"\0\0\x08" or not 1 <= head[3] <= 4:
        raise DataError(f"{path}: got a file that starts {head!r}, expected IDX of unsigned bytes")
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DataError(f"{path}: ends in its header")
    shape = struct.unpack(f">{head[3]}I", sizes)
    if math.prod(shape) > limit:
        raise DataError(f"{path}: header claims shape {shape}, more than the file can hold")
    return shape


def _fill(values: np.ndarray, file: IO[bytes]) -> int:
    """Read into a flat array block by block; returns how many bytes there were."""
    view, got = values.view(np.uint8).data, 0
    while got < len(view) and (block := file.read(min(BLOCK, len(view) - got))):
        view[got : got + len(block)] = block
        got += len(block)
    return got


# -- NPY and NPZ ---------------------------------------------------------------------------


def _npy_header(file: IO[bytes], where: str) -> Header:
    head = io.BytesIO(file.read(LONGEST_HEADER + 12))
    try:
        version = np.lib.format.read_magic(head)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"format version {version}")
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        with _parsing:
            shape, fortran, dtype = read(head, max_header_size=LONGEST_HEADER)
    # A damaged header ends in one of half a dozen exceptions (it is Python source, parsed).
    except Exception as error:
        raise DataError(f"{where}: is not an NPY array: {_words(error)}") from error
    if dtype.hasobject:
        raise DataError(f"{where}: got Python objects, expected numbers")
    if dtype.fields is not None or dtype.subdtype is not None:
        raise DataError(f"{where}: got records of several values, expected numbers")
    if dtype.itemsize == 0:
        raise DataError(f"{where}: got values of type {dtype}, without any bytes")
    # True is an int to NumPy's check, and (2**40, 2**40, 0) an array without values.
    if any(type(n) is not int or not 0 <= n < 1 << 48 for n in shape) or len(shape) > 32:
        raise DataError(f"{where}: header claims shape {shape}")
    return Header(shape, fortran, dtype, head.tell())


def _check_size(size: int, header: Header, where: str) -> None:
    if size != header.nbytes:
        raise DataError(
            f"{where}: got {size} bytes of values, expected {header.nbytes} for {header.dtype} of "
            f"shape {header.shape}"
        )


def _array(header: Header, file: IO[bytes], where: str) -> np.ndarray:
    """The array whose values begin at the file's position."""
    if header.shape[:1] == (0,):
        raise DataError(f"{where}: got no samples, expected at least one")
    if header.nbytes == 0:
        raise DataError(f"{where}: got shape {header.shape}, samples without values")
    flat = np.empty(math.prod(header.shape), header.dtype)
    if (got := _fill(flat, file)) != header.nbytes:
        raise DataError(f"{where}: ends after {got} of {header.nbytes} bytes of values")
    file.read(1)  # to the end of a zipped file, where its checksum is compared
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def read_npy(path: str | os.PathLike[str], resident_bytes: int | None = None) -> np.ndarray:
    """Read an NPY file into memory if it has at most `resident_bytes`; memory-map it otherwise.

    Parameters
    ----------
    path : path
    resident_bytes : int, optional
        By default as `resident_limit`.

    Raises
    ------
    DataError
    """
    path = existing(Path(path))
    try:
        with open(path, "rb") as file:
            header = _npy_header(file, str(path))
            size = os.fstat(file.fileno()).st_size - header.start
            _check_size(size, header, str(path))
            if resident_bytes is None:
                resident_bytes = resident_limit()
            if size <= resident_bytes:
                file.seek(header.start)
                return _array(header, file, str(path))
        return map_npy(path, header)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def resident_limit() -> int:
    """Return how many bytes an NPY file may have to be read into memory.

    That is a quarter of the machine's memory, and no more than half of what is free.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(memory // 4, available_memory() // 2)


def npy_header(path: str | os.PathLike[str]) -> Header:
    """Return what an NPY file says about its array; its size must be the one that it claims.

    Raises
    ------
    DataError
    """
    path = existing(Path(path))
    try:
        with open(path, "rb") as file:
            header = _npy_header(file, str(path))
            _check_size(os.fstat(file.fileno()).st_size - header.start, header, str(path))
            return header
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def map_npy(path: str | os.PathLike[str], header: Header) -> np.memmap:
    """Memory-map an NPY file of this header.

    Raises
    ------
    DataError
        It is in Fortran order, or is not what it was when its header was read.
    """
    if header.fortran:
        raise DataError(
            f"{path}: is in Fortran order, whose rows are scattered; save it in C order"
        )
    if npy_header(path) != header:
        raise DataError(
            f"{path}: is another array now than when the training began; do not change a file "
            "while xpnet reads it"
        )
    try:
        return np.memmap(path, header.dtype, "r", header.start, header.shape)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def npz_headers(path: str | os.PathLike[str]) -> dict[str, Header]:
    """What an NPZ file says about its arrays, by name; no values are read.

    Raises
    ------
    DataError
        Also for a name that is there twice, and a header that does not match its length.
    """
    path = existing(Path(path))
    headers: dict[str, Header] = {}
    with _archive(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            where = f"{path}: {listed([name])}"
            if name in headers:
                raise DataError(f"{where}: is there twice")
            if member.file_size > max(member.compress_size, 1) * DEFLATE_RATIO:
                raise DataError(f"{where}: claims more than its bytes can hold")
            with archive.open(member) as file:
                headers[name] = _npy_header(file, where)
            _check_size(member.file_size - headers[name].start, headers[name], where)
    return headers


def read_npz(
    path: str | os.PathLike[str], names: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """Read arrays of an NPZ file.

    Parameters
    ----------
    path : path
    names : iterable of str, optional
        Which arrays; by default all. The others are not unpacked.

    Raises
    ------
    DataError
        As for `npz_headers`; also for a wrong checksum, and for arrays that would not fit into
        half of the free memory.
    """
    path = Path(path)
    headers = npz_headers(path)
    wanted = list(headers if names is None else names)
    if missing := [name for name in wanted if name not in headers]:
        raise DataError(f"{path}: has {listed(headers)}; expected {listed(missing)} too")
    _check_room(sum(headers[name].nbytes for name in wanted), str(path))
    arrays = {}
    with _archive(path) as archive:
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
        for name in wanted:
            with archive.open(members[name]) as file:
                file.read(headers[name].start)
                arrays[name] = _array(headers[name], file, f"{path}: {listed([name])}")
    return arrays


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DataError:
        raise
    # zipfile raises BadZipFile, EOFError, NotImplementedError, zlib.error, struct.error ...
    except Exception as error:
        raise DataError(f"{path}: is not an NPZ file that can be read: {_words(error)}") from error
