"""Data: what is trained on, how it is split and scaled, and in which order it is seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    "select_rows",
    "split",
    "standardize",
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
        return np.asarray(self.array[self.rows[index]])


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


def chunks(x: Any) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) of consecutive pieces of about 16 MiB."""
    size = max(1, CHUNK_BYTES * len(x) // max(1, x.nbytes))
    for start in range(0, len(x), size):
        yield start, np.asarray(x[start : start + size])


def split(
    t: np.ndarray, fraction: float, seed: int | Sequence[int], *, stratify: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of two parts, the second one `fraction` of the whole; both in rising order.

    Parameters
    ----------
    t : array, shape=(N, ...)
        Targets.
    fraction : float in [0, 1)
    seed : int or sequence of int
    stratify : bool
        Every class (t must then be class indices) is divided in the same proportion, to
        within one sample.

    Returns
    -------
    rest, part : integer arrays; len(part) is N · fraction, rounded

    Raises
    ------
    DataError
        One of the two would be empty although fraction > 0.
    """
    n = len(t)
    shuffled = np.random.default_rng(seed).permutation(n)
    if fraction == 0.0:
        return np.arange(n), np.arange(0)
    if stratify:
        shuffled = shuffled[np.argsort(t[shuffled], kind="stable")]
    # Along the list ordered by class, take each sample at which the running count that is
    # due passes the next whole number: in every class its share, over all exactly `fraction`.
    due = np.floor(np.arange(n + 1) * fraction + 0.5)
    taken = np.diff(due) > 0
    if not 0 < taken.sum() < n:
        raise DataError(
            f"a part of {fraction} (--test-fraction, --val-fraction) of {n} samples "
            "leaves one side empty"
        )
    return np.sort(shuffled[~taken]), np.sort(shuffled[taken])


def standardize(x: Any, name: str = "x") -> Scaling:
    """The scaling to mean 0 and standard deviation 1 per column, computed in float64.

    A constant column becomes 0: it is shifted and left at that.

    Raises
    ------
    DataError
        There is no row, or the values are so large that their squares are infinite.
    """
    if len(x) == 0:
        raise DataError(f"{name}: got no samples, expected at least one")
    count, mean, square = 0, np.float64(0.0), np.float64(0.0)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        # From the first row: a constant column is then 0 to the bit, and so is its deviation.
        first = np.asarray(x[0], np.float64)
        for _, rows in chunks(x):
            rows = rows.astype(np.float64) - first
            here = rows.mean(axis=0)
            delta, total = here - mean, count + len(rows)
            # Chan et al., 1979: means and squared deviations of two parts joined without loss.
            square = square + ((rows - here) ** 2).sum(axis=0)
            square = square + delta**2 * (count * len(rows) / total)
            mean, count = mean + delta * (len(rows) / total), total
        deviation = np.sqrt(square / count)
    if not np.isfinite(deviation).all():
        largest = max(np.abs(rows.astype(np.float64)).max() for _, rows in chunks(x))
        raise DataError(f"{name}: has values up to {largest:.1e}, too large to scale")
    return Scaling(first + mean, 1.0 / np.where(deviation > 0.0, deviation, 1.0))
