"""What a data set is made of: samples, targets, scalings, and rows that stay in a file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from xpnet.errors import DataError

__all__ = [
    "Dataset",
    "Rows",
    "Scaling",
    "chunks",
    "is_streamed",
    "read_rows",
    "select_rows",
]

# Rows are read this many bytes at a time.
CHUNK_BYTES = 16 << 20


class Scaling(NamedTuple):
    """x ↦ (x - shift) · scale, applied to each batch on its way into the network.

    Attributes
    ----------
    shift, scale : float, or array of the shape of one sample
    """

    shift: Any = 0.0
    scale: Any = 1.0


AS_IS = Scaling()


class Rows:
    """Some rows of an array that is streamed: an index, nothing is read until a batch is.

    Parameters
    ----------
    array : array, shape=(N, ...)
    rows : integer array, shape=(n,)
    """

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self.array, self.rows = array, rows
        self.shape = (len(rows), *array.shape[1:])
        self.dtype = array.dtype
        self.ndim = array.ndim
        self.nbytes = len(rows) * array[:1].nbytes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return read_rows(self.array, self.rows[index])


@dataclass(frozen=True)
class Dataset:
    """Samples with their targets.

    Attributes
    ----------
    x : array, shape=(N, ...)
        Features or images, in their own dtype (uint8 stays uint8), or `Rows`.
    t : array
        Class indices, shape=(N,), int; or real targets, shape=(N, M).
    classes : tuple of str, or None
        The classes' names in the order of their indices; None means regression.
    scaling : Scaling
        What the network should see of `x`.
    image_shape : (H, W), or None
        If a row of `x` is a grey image.
    target_scaling : Scaling or None
        Regression: what the network should see of `t`.
    columns, label_column : tuple of str, str
        Of a CSV file: the features' names, and the label column's name or number.
    """

    x: Any
    t: np.ndarray
    classes: tuple[str, ...] | None = None
    scaling: Scaling = AS_IS
    image_shape: tuple[int, int] | None = None
    target_scaling: Scaling | None = None
    columns: tuple[str, ...] = ()
    label_column: str = ""

    def __len__(self) -> int:
        return len(self.t)

    @property
    def outputs(self) -> int:
        """How many outputs a network for it has: classes, or target columns."""
        return len(self.classes) if self.classes is not None else self.t.shape[1]


def is_streamed(x: Any) -> bool:
    """Whether `x` is brought to the device part by part, as a file is, rather than whole."""
    return isinstance(x, np.memmap | Rows)


def select_rows(x: Any, rows: np.ndarray) -> Any:
    """x[rows]: a copy of what is in memory, an index into what is not."""
    if isinstance(x, Rows):
        return Rows(x.array, x.rows[rows])
    return Rows(x, rows) if isinstance(x, np.memmap) else x[rows]


def read_rows(x: Any, index: Any) -> np.ndarray:
    """x[index], and of a memory-mapped file only if it is still whole.

    Reading what has been cut off would end the process at once, with SIGBUS.

    Raises
    ------
    DataError
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


def chunks(x: Any) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) of consecutive pieces of about 16 MiB."""
    size = max(1, CHUNK_BYTES * len(x) // max(1, x.nbytes))
    for start in range(0, len(x), size):
        yield start, read_rows(x, slice(start, start + size))
