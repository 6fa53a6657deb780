"""A data set and its parts: samples, targets, scalings, and rows that stay in a file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from xpnet.data.roles import Layout
from xpnet.data.shards import Shards, read_mapped
from xpnet.data.table import Table
from xpnet.errors import counted, listed, shown

__all__ = [
    "Dataset",
    "Rows",
    "Scaling",
    "chunk_starts",
    "chunks",
    "in_several_files",
    "is_streamed",
    "read_rows",
    "select_rows",
]

# How many bytes of rows to read at a time.
CHUNK_BYTES = 16 << 20


class Scaling(NamedTuple):
    """x ↦ (x - shift) · scale; the network sees each sample scaled.

    Attributes
    ----------
    shift, scale : float, or array of the shape of one sample

    Examples
    --------
    >>> import numpy as np
    >>> x, scaling = np.array([10.0, 30.0]), Scaling(shift=20.0, scale=0.1)
    >>> ((x - scaling.shift) * scaling.scale).tolist()
    [-1.0, 1.0]
    """

    shift: Any = 0.0
    scale: Any = 1.0

    def __repr__(self) -> str:
        return f"Scaling(shift={_brief(self.shift)}, scale={_brief(self.scale)})"

    def in_words(self, name: str) -> str:
        """Return what it does to `name`: (x - 20) · 0.5, for example; or that it does nothing."""
        if np.all(np.equal(self.shift, 0.0)) and np.all(np.equal(self.scale, 1.0)):
            return f"{name} as it is"
        if sizes := [np.size(part) for part in self if np.size(part) > MOST_SHOWN]:
            return f"({name} - shift) · scale, for each of {max(sizes):,} values its own"
        shift, scale = (_brief(np.asarray(part)) for part in self)
        return f"({name} - {shift}) · {scale}" if np.any(self.shift) else f"{name} · {scale}"


# A scaling of at most so many values is written with all of them.
MOST_SHOWN = 4


def _brief(value: Any) -> str:
    """Write a number, or an array in a few words, whatever it is."""
    if not hasattr(value, "shape"):
        return shown(value)
    whole = f"array of {' x '.join(map(str, value.shape))}"
    if math.prod(value.shape) > MOST_SHOWN:
        return whole
    try:
        numbers = [f"{number:.6g}" for number in np.asarray(value, float).ravel()]
    except (TypeError, ValueError, RuntimeError):  # on a GPU, or no numbers
        return whole
    return numbers[0] if len(numbers) == 1 else f"[{', '.join(numbers)}]"


AS_IS = Scaling()


class Rows:
    """An index of some rows of an array that stays in its file; you read them batch by batch.

    Parameters
    ----------
    array : array or Shards, shape=(N, ...)
    rows : integer array, shape=(n,)

    Examples
    --------
    >>> import numpy as np
    >>> rows = Rows(np.array([[0.0], [1.0], [2.0]]), np.array([2, 0]))
    >>> len(rows), rows[:1].tolist()
    (2, [[2.0]])
    """

    def __init__(self, array: Any, rows: np.ndarray) -> None:
        self.array, self.rows = array, rows
        self.shape = (len(rows), *array.shape[1:])
        self.dtype = array.dtype
        self.ndim = array.ndim
        self.nbytes = math.prod(self.shape) * array.dtype.itemsize

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<Rows: {len(self):,} of {len(self.array):,}, {_described(self)}>"

    def __getitem__(self, index: Any) -> np.ndarray:
        return read_rows(self.array, self.rows[index])


@dataclass(frozen=True, repr=False)
class Dataset:
    """Samples with their targets.

    Attributes
    ----------
    x : array, shape=(N, ...)
        Features or images in the dtype of the file, or `Rows`; or a `Table`, still to be encoded.
    t : array
        Class indices, shape=(N,), int; or real targets, shape=(N, M).
    classes : tuple of str, or None
        The classes' names in the order of their indices; None means regression.
    scaling : Scaling
        How the network should see `x`.
    image_shape : (H, W), (H, W, 3), (3, H, W), or None
        The shape of an image, grey or of three colours, if each row of `x` is one.
    target_scaling : Scaling or None
        How the network should see `t`, for a regression.
    columns : tuple of str
        Names of the features, once a table is encoded.
    label_column, id_column : str
        The names or numbers of these columns of a table; "" if there is none.
    layout : Layout or None
        Where the columns of a table without names stand in its file.
    notes : tuple of str
        Sentences for the user about how the file was read.

    Examples
    --------
    >>> import numpy as np
    >>> data = Dataset(np.zeros((3, 4)), np.array([0, 1, 0]), classes=("no", "yes"))
    >>> len(data), data.outputs
    (3, 2)
    """

    x: Any
    t: np.ndarray
    classes: tuple[str, ...] | None = None
    scaling: Scaling = AS_IS
    image_shape: tuple[int, ...] | None = None
    target_scaling: Scaling | None = None
    columns: tuple[str, ...] = ()
    label_column: str = ""
    id_column: str = ""
    layout: Layout | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.t)

    def __repr__(self) -> str:
        if self.classes is None:
            targets = np.shape(self.t)[1] if np.ndim(self.t) > 1 else 1
            what = counted(targets, "target")
        else:
            classes = counted(len(self.classes), "class", "classes")
            what = f"{classes}: {listed(self.classes, 10)}"
        return f"<Dataset: {counted(len(self), 'sample')}, {_described(self.x)}; {what}>"

    @property
    def outputs(self) -> int:
        """The number of outputs that a network for it needs: classes, or columns of targets."""
        return len(self.classes) if self.classes is not None else self.t.shape[1]


def _described(x: Any) -> str:
    """Describe samples in a few words, without a look at their values."""
    if isinstance(x, Table):
        return f"a table of {counted(len(x.columns), 'column')}"
    kind = f" {x.dtype}" if hasattr(x, "dtype") else ""
    place = ", in its file" if is_streamed(x) else ""
    shape = " x ".join(f"{size:,}" for size in np.shape(x)[1:]) or "1"
    return f"{shape}{kind}{place}"


def is_streamed(x: Any) -> bool:
    """Whether `x` goes to the device part by part, as a file does.

    Examples
    --------
    >>> import numpy as np
    >>> is_streamed(np.zeros((3, 4)))
    False
    """
    return isinstance(x, np.memmap | Rows | Shards)


def select_rows(x: Any, rows: np.ndarray) -> Any:
    """Select rows: a copy if x is in memory, an index (`Rows`) if it stays in a file.

    Examples
    --------
    >>> import numpy as np
    >>> select_rows(np.array([[0.0], [1.0], [2.0]]), np.array([2, 0])).tolist()
    [[2.0], [0.0]]
    """
    if isinstance(x, Table):
        return x.rows(rows)
    if isinstance(x, Rows):
        return Rows(x.array, x.rows[rows])
    return Rows(x, rows) if is_streamed(x) else x[rows]


def in_several_files(x: Any) -> bool:
    """Whether `x` is read from several files, or some rows of what is.

    Examples
    --------
    >>> in_several_files(np.zeros((3, 4)))
    False
    """
    return isinstance(x.array if isinstance(x, Rows) else x, Shards)


def read_rows(x: Any, index: Any) -> np.ndarray:
    """Read x[index]; check first that a memory-mapped file is still whole, see `read_mapped`.

    Raises
    ------
    DataError
    """
    return read_mapped(x, index)


def chunk_starts(x: Any) -> range:
    """Return the first rows of the chunks of x, of about 16 MiB each."""
    return range(0, len(x), max(1, CHUNK_BYTES * len(x) // max(1, x.nbytes)))


def chunks(x: Any, starts: range | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, rows) for consecutive chunks; with `starts`, for some of them.

    Examples
    --------
    >>> import numpy as np
    >>> [(first, rows.shape) for first, rows in chunks(np.zeros((1000, 4)))]
    [(0, (1000, 4))]
    """
    starts = chunk_starts(x) if starts is None else starts
    for start in starts:
        yield start, read_rows(x, slice(start, start + starts.step))
