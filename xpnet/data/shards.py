"""Samples in several NPY files, read as one array that is never in memory as a whole."""

from __future__ import annotations

import glob
import math
import mmap
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.data.readers import Header, map_npy, npy_header
from xpnet.errors import DataError, listed

__all__ = ["Shards", "files_of", "read_mapped"]

# So many files are mapped at a time: each holds a file descriptor, and there may be thousands.
MOST_MAPPED = 32
WILD = re.compile(r"[*?\[]")


class Shards:
    """The rows of several NPY files, in the order of the files; you read them batch by batch.

    A file is mapped when the first of its rows is read.

    Parameters
    ----------
    paths : sequence of path
        Files whose samples have one shape and one dtype.

    Raises
    ------
    DataError
        A file cannot be read, is empty, or does not fit the first one.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for k in range(2):
    ...         np.save(Path(folder, f"part-{k}.npy"), np.full((3, 2), k))
    ...     x = Shards(files_of(Path(folder, "part-*.npy")))
    ...     len(x), x[2:4].tolist()
    (6, [[0, 0], [1, 1]])
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        self.paths = tuple(Path(path) for path in paths)
        if not self.paths:
            raise DataError("got no files, expected at least one .npy file")
        self._headers = tuple(npy_header(path) for path in self.paths)
        _check_alike(self.paths, self._headers)
        first = self._headers[0]
        self.starts = np.cumsum([0, *(header.shape[0] for header in self._headers)])
        self.shape: tuple[int, ...] = (int(self.starts[-1]), *first.shape[1:])
        self.dtype, self.ndim = first.dtype, len(first.shape)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self._mapped = lru_cache(MOST_MAPPED)(self._map)

    def _map(self, number: int) -> np.memmap:
        return map_npy(self.paths[number], self._headers[number])

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        sizes = " x ".join(f"{size:,}" for size in self.shape)
        return f"<Shards: {len(self.paths):,} files, {sizes} {self.dtype}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Shards, (self.paths,)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError(f"{self!r} is not read as a whole; take rows of it: x[:1000]")

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read the rows of a slice or of an array of integers, file by file."""
        n = len(self)
        if isinstance(index, slice):
            start, stop, step = index.indices(n)
            if step == 1:
                return self._piece(start, max(start, stop))
            index = np.arange(start, stop, step)
        rows = np.asarray(index)
        if rows.dtype.kind not in "iu" and rows.size:
            raise IndexError(f"got {rows.dtype} as an index, expected a slice or integers")
        rows = rows.astype(np.int64)
        if ((rows < -n) | (rows >= n)).any():
            raise IndexError(f"got row {rows[(rows < -n) | (rows >= n)][0]} of {n:,} rows")
        flat = np.where(rows < 0, rows + n, rows).ravel()
        files = self.starts.searchsorted(flat, side="right") - 1
        out = np.empty((len(flat), *self.shape[1:]), self.dtype)
        for number in np.unique(files):
            here = files == number
            out[here] = read_mapped(self._mapped(int(number)), flat[here] - self.starts[number])
        return out.reshape(*rows.shape, *self.shape[1:])

    def _piece(self, start: int, stop: int) -> np.ndarray:
        """Read consecutive rows: a view of the file if they are all in one."""
        first, last = self.starts.searchsorted([start, max(start, stop - 1)], side="right") - 1
        parts = [
            read_mapped(
                self._mapped(number),
                slice(max(0, start - self.starts[number]), max(0, stop - self.starts[number])),
            )
            for number in range(first, min(last + 1, len(self.paths)))
        ]
        if not parts:
            return np.empty((0, *self.shape[1:]), self.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _check_alike(paths: Sequence[Path], headers: Sequence[Header]) -> None:
    """Refuse files that are not pieces of one array."""
    shape, dtype = headers[0].shape[1:], headers[0].dtype
    for path, header in zip(paths, headers, strict=True):
        if not header.shape:
            raise DataError(f"{path}: got a single value, expected an array with one row a sample")
        if header.shape[0] == 0:
            raise DataError(f"{path}: got no samples, expected at least one in each file")
        if header.nbytes == 0:
            raise DataError(f"{path}: got shape {header.shape}, samples without values")
        if (header.shape[1:], header.dtype) != (shape, dtype):
            raise DataError(
                f"{path}: got samples of shape {header.shape[1:]}, {header.dtype}; expected "
                f"{shape}, {dtype}, as in {paths[0]}: all files must be pieces of one array"
            )


def read_mapped(x: Any, index: Any) -> np.ndarray:
    """Read x[index]; check first that a memory-mapped file is still whole.

    If you read beyond the end of a mapped file, the system ends the process (SIGBUS).

    Raises
    ------
    DataError

    Examples
    --------
    >>> read_mapped(np.arange(4), slice(1, 3)).tolist()  # in memory: nothing to check
    [1, 2]
    """
    mapping = getattr(x, "_mmap", None)  # the array's only link to the open file
    if mapping is not None:
        size = x.offset - x.offset % mmap.ALLOCATIONGRANULARITY + len(mapping)
        if (found := mapping.size()) < size:
            raise DataError(
                f"{x.filename or 'x'}: has {found:,} bytes now, and had {size:,} when it was "
                "opened; do not change a file while xpnet reads it"
            )
    return np.asarray(x[index])


# -- Which files ---------------------------------------------------------------------------


def files_of(given: Any) -> list[Path] | None:
    """Return the NPY files that a pattern, a folder or a list names; None if it is one file.

    Those of a pattern or a folder are in natural order: part-2 before part-10.

    Raises
    ------
    DataError
        There is no such file, or one is not ``.npy``.

    Examples
    --------
    >>> files_of("flowers.csv") is None, files_of(["b.npy", "a.npy"])
    (True, [PosixPath('b.npy'), PosixPath('a.npy')])
    """
    if isinstance(given, list | tuple):
        files, name = [Path(path) for path in given], "the list of files"
    elif Path(given).is_dir():
        name = f"{given}: the folder"
        files = [path for path in Path(given).iterdir() if path.suffix.lower() == ".npy"]
        files = _sorted(path for path in files if not path.name.startswith("."))
    elif WILD.search(str(given)) and not Path(given).exists():
        name = f"{given}: the pattern"
        files = _sorted(map(Path, glob.glob(str(given))))
    else:
        return None
    if not files:
        raise DataError(f"{name} has no .npy files; expected at least one: 'parts/part-*.npy'")
    if others := [path for path in files if path.suffix.lower() != ".npy"]:
        kinds = listed(sorted({path.suffix.lower() or "no suffix" for path in files}))
        raise DataError(
            f"{name} has {others[0].name} ({kinds}); expected .npy files only: join tables and "
            ".npz files into one, or save their arrays as .npy"
        )
    return files


def _sorted(paths: Any) -> list[Path]:
    """Sort paths by name, numbers in them by value."""

    def key(path: Path) -> tuple[list[Any], str]:
        words = re.split(r"([0-9]+)", str(path))
        return [int(word) if word.isdecimal() else word for word in words], str(path)

    return sorted(paths, key=key)
