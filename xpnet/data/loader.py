"""The way of samples into the network: scale them, cut them into shards, bring them over."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpnet.arrays.dispatch import elementwise
from xpnet.arrays.ops import Array, is_real, namespace
from xpnet.backend.interface import Backend
from xpnet.data.dataset import Rows, Scaling, chunks, is_streamed, read_rows
from xpnet.errors import DataError, whole
from xpnet.parallel.group import ALONE, Group

__all__ = ["Feed"]

EVALUATION_BATCH = 1000
# A data set that stays on disk passes through memory in shards of about this size.
SHARD_BYTES = 32 << 20
# Of the memory that is free on a device, for the samples; activations need some too.
LARGEST_SHARE = 0.8


class Feed:
    """Brings host arrays to a backend, in one dtype and under one scaling.

    Bytes (uint8, int8, bool) stay bytes on the device, in a quarter of the memory of float32;
    `prepare` makes floats of them batch by batch. The host scales all other values in float64 and
    rounds once, so that large offsets (years, say) lose nothing.

    Parameters
    ----------
    backend : Backend
    dtype : str
        "float32" or "float64", the dtype that the network sees.
    scaling : Scaling, optional
    target_scaling : Scaling, optional
        The scaling of the targets of a regression.
    shape : tuple of int, optional
        The shape in which each sample enters the network: with (784,), (N, 1, 28, 28) becomes
        (N, 784). None leaves samples as they are.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        scaling: Scaling | None = None,
        target_scaling: Scaling | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        self.backend, self.dtype, self.shape = backend, dtype, shape
        self.scaling, self.target_scaling = scaling, target_scaling
        self._most = float(np.finfo(dtype).max)
        self._warned = False
        self._upload = backend.uploader()
        self.prepare = self._preparation()

    def _preparation(self) -> Preparation:
        """Bring the scaling to the device once: in a step it would leak a tracer into JAX."""
        found = {}
        for kind in ("uint8", "int8"):
            with np.errstate(over="ignore", under="ignore"):  # bytes may never come
                shift, scale = (np.asarray(v, self.dtype) for v in self.scaling_of(np.dtype(kind)))
            found[kind] = self._constant(shift, 0.0), self._constant(scale, 1.0)
        values = tuple(
            (a if a is None or isinstance(a, float) else (a.shape, a.dtype.str, a.tobytes()))
            for pair in found.values()
            for a in pair
        )
        asarray = self.backend.asarray
        on_device = {
            kind: tuple(asarray(a) if isinstance(a, np.ndarray) else a for a in pair)
            for kind, pair in found.items()
        }
        return Preparation(self.dtype, values, on_device)

    def _constant(self, value: np.ndarray, neutral: float) -> np.ndarray | float | None:
        """The value as a number or in a sample's shape; None if it changes nothing."""
        if np.all(value == neutral):
            return None
        if value.ndim == 0:
            return float(value)
        return value if self.shape is None else value.reshape(self.shape)

    def scaling_of(self, dtype: Any) -> Scaling:
        """The given scaling; without one, divide uint8 by 255 and leave other dtypes alone."""
        if self.scaling is not None:
            return self.scaling
        return Scaling(0.0, 1.0 / 255.0) if dtype == np.uint8 else Scaling()

    def samples(self, x: Any, *, own: bool = False) -> Array:
        """Bring samples to the device; with `own`, never in memory that the caller may change.

        Raises
        ------
        DataError
            A value is too large for the dtype.
        """
        values = self._host_samples(x)
        if own and self.backend.device == "cpu" and np.may_share_memory(values, x):
            values = values.copy()
        return self.backend.asarray(values)

    def _host_samples(self, x: Any) -> np.ndarray:
        """Samples as they go to the device: bytes as they are, other values scaled."""
        shift, scale = self.scaling_of(x.dtype)
        plain = np.all(np.equal(shift, 0.0)) and np.all(np.equal(scale, 1.0))
        if x.dtype.itemsize == 1 and max(np.abs(shift).max(), np.abs(scale).max()) > self._most:
            raise DataError(f"x: its scaling is too large for {self.dtype}; scale the data")
        if x.dtype.itemsize == 1 or (x.dtype == self.dtype and plain):
            out = np.asarray(x)
        else:
            out = np.empty(x.shape, self.dtype)
            for start, rows in chunks(x):
                with np.errstate(over="ignore", under="ignore"):
                    out[start : start + len(rows)] = (rows.astype(np.float64) - shift) * scale
                if not np.isfinite(part := out[start : start + len(rows)]).all():
                    bad = np.argwhere(~np.isfinite(part))[0]
                    raise DataError(
                        f"x: row {start + bad[0]}: got {rows[tuple(bad)]}, too large for "
                        f"{self.dtype}; scale the data"
                    )
        return out if self.shape is None else out.reshape(len(out), *self.shape)

    def samples_or_file(self, x: Any, *, own: bool = False, group: Group = ALONE) -> Any:
        """Bring samples to the device, or leave them to be streamed batch by batch.

        xpnet streams memory-mapped samples, and samples for which the device has no room; then a
        warning says so. If one rank of a group has no room, all stream, so that all of them take
        the same shards.
        """
        if is_streamed(x):
            return x
        size = x.nbytes if x.dtype.itemsize == 1 else x.size * np.dtype(self.dtype).itemsize
        free = self.backend.free_memory()
        full = bool(free) and size > LARGEST_SHARE * free
        if group.any(full):
            if full and not self._warned:
                warnings.warn(
                    f"the data needs {size / 2**20:,.0f} MiB, of {free / 2**20:,.0f} MiB free on "
                    f"{self.backend.device}: it stays on the host and is sent in shards",
                    RuntimeWarning,
                    stacklevel=3,
                )
            self._warned = True
            return Rows(x, np.arange(len(x)))
        return self.samples(x, own=own)

    def targets(self, t: np.ndarray, classes: bool) -> np.ndarray:
        """Class indices as int32, other targets scaled, in the run's dtype, on the host."""
        if classes and t.ndim == 1 and t.dtype.kind != "f":
            return t.astype(np.int32)
        if not classes and self.target_scaling is not None:
            shift, scale = self.target_scaling
            t = (t.astype(np.float64) - shift) * scale
        with np.errstate(over="ignore", under="ignore"):
            rounded: np.ndarray = t.astype(self.dtype)
        if not np.isfinite(rounded).all():
            row = int(np.argwhere(~np.isfinite(rounded))[0, 0])
            raise DataError(
                f"t: row {row}: got {t[row]}, too large for {self.dtype}; scale the targets"
            )
        return rounded

    def original(self, y: np.ndarray) -> np.ndarray:
        """Outputs of a regression in the units of its targets."""
        if self.target_scaling is None:
            return y
        shift, scale = self.target_scaling
        values: np.ndarray = y.astype(np.float64) / scale + shift
        return values

    def copies(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Array]:
        """Copy parameters or optimizer state to the device; an update may write to the copies."""
        with np.errstate(over="ignore", under="ignore"):  # an infinite weight will show in the loss
            return {
                name: self.backend.asarray(
                    np.array(value, dtype=self.dtype if value.dtype.kind == "f" else value.dtype)
                )
                for name, value in arrays.items()
            }

    def shards(
        self, data: tuple[Any, ...], order: np.ndarray, batch: int | None = None
    ) -> Iterator[tuple[tuple[Array, ...], Array]]:
        """Yield (data on the device, order into it): all at once, or shard by shard from a file.

        Parameters
        ----------
        data : tuple of arrays
            Samples, then targets and maybe weights. They are on the device already, unless xpnet
            streams the samples: then all are on the host.
        order : integer array, shape=(steps, batch)
        batch : int, optional
            The rows of the whole batch, if `order` holds this rank's: shards then end after the
            same steps on all ranks, whose shares may differ by a row.
        """
        if not len(order):
            return
        x = data[0]
        if not is_streamed(x):
            yield data, self.backend.asarray(order)
            return
        own = order.shape[1]
        steps = max(1, SHARD_BYTES // max(1, (batch or own) * x.nbytes // len(x)))
        orders: deque[np.ndarray] = deque()

        def parts() -> Iterator[tuple[np.ndarray, ...]]:
            for start in range(0, len(order), steps):
                # Sorted, so that the file is read in one direction.
                rows, places = np.unique(order[start : start + steps], return_inverse=True)
                orders.append(places.reshape(-1, own))
                yield self._host_samples(read_rows(x, rows)), *(a[rows] for a in data[1:])

        for part in self._upload(parts()):
            yield part, self.backend.asarray(orders.popleft())

    def batches(self, x: Any, group: Group = ALONE) -> Iterator[tuple[slice, Array]]:
        """Yield consecutive batches of samples on the device, for evaluation.

        Each rank of a group gets some that follow each other, in the order of the ranks.
        """
        n = x.shape[0]
        starts = range(0, n, EVALUATION_BATCH)
        first, end = (len(starts) * r // group.size for r in (group.rank, group.rank + 1))
        for start in starts[first:end]:
            part = slice(start, min(start + EVALUATION_BATCH, n))
            yield part, self.samples(read_rows(x, part)) if is_streamed(x) else x[part, ...]


@dataclass(frozen=True)
class Preparation:
    """``prepare(x)`` makes scaled floats of a batch of bytes on the device; floats stay.

    Two of them are equal if they compute the same; see `xpnet.trainer.step.Step`.
    """

    dtype: str
    values: tuple[Hashable, ...]  # what the constants hold
    constants: Mapping[str, tuple[Any, ...]] = field(compare=False, repr=False)

    def __call__(self, x: Array) -> Array:
        if is_real(x):
            return x
        xp = namespace(x)  # not the backend's: a kernel is made of what is done to a symbol
        dtype = getattr(xp, self.dtype)
        shift, scale = self.constants["uint8" if x.dtype == xp.uint8 else "int8"]
        if shift is None and scale is None:
            return xp.astype(x, dtype)
        if shift is None:
            return _scaled(x, dtype, scale)
        return _standardized(x, dtype, shift, 1.0 if scale is None else scale)


@elementwise
def _scaled(x: Array, dtype: Any, scale: Any) -> Array:
    x = namespace(x).astype(x, dtype)
    x *= scale
    return x


@elementwise
def _standardized(x: Array, dtype: Any, shift: Any, scale: Any) -> Array:
    x = namespace(x).astype(x, dtype)
    x -= shift
    x *= scale
    return x


def batch_order(n: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Draw the rows of each batch of an epoch, as a pure function of (seed, epoch).

    Returns
    -------
    list of integer arrays, shape=(steps, batch)
        First the full batches, then, if batch_size does not divide n, one of what is left:
        every sample is seen once. Drawn anew, not stored, when a run is resumed.

    Examples
    --------
    >>> [part.shape for part in batch_order(10, 4, seed=0, epoch=1)]  # 2 batches of 4, 1 of 2
    [(2, 4), (1, 2)]
    """
    batch_size = whole("batch_size", batch_size, 1)
    order = np.random.default_rng((seed, 3, epoch)).permutation(n)  # 1 and 2 draw the splits
    full = n // batch_size * batch_size
    parts = [order[:full].reshape(-1, batch_size), order[full:].reshape(1, -1)]
    return [part for part in parts if part.size]


def lane_order(n: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Draw the rows of each batch of an epoch from data that are in several files.

    The rows are cut, in their order, into batch_size lanes of consecutive rows, whose lengths
    differ by at most 1. Each batch takes one row of each lane, and each lane is shuffled by itself.
    So a rank, which computes some neighbouring rows of each batch, reads some neighbouring lanes
    only. The last, smaller batch takes what is left, one row of each longer lane. These are spread
    evenly, so a rank's share of it is in its own lanes or beside them.

    A batch is thus stratified by the place in the data: if the files are sorted, by class or by
    date, it has something of everything. A row is as likely in one batch as in another.

    Returns
    -------
    list of integer arrays, shape=(steps, batch)
        As by `batch_order`, a pure function of (n, batch_size, seed, epoch).

    Examples
    --------
    >>> full, last = lane_order(10, 4, seed=0, epoch=1)  # lanes from the rows 0, 2, 5 and 7
    >>> [np.searchsorted([2, 5, 7], rows, "right").tolist() for rows in (*full, *last)]
    [[0, 1, 2, 3], [0, 1, 2, 3], [1, 3]]
    """
    batch_size = whole("batch_size", batch_size, 1)
    random = np.random.default_rng((seed, 3, epoch))
    edges = np.arange(batch_size + 1, dtype=np.int64) * n // batch_size
    steps, left = divmod(n, batch_size)
    longer = np.diff(edges) > steps
    places = np.tile(np.arange(steps + 1), (batch_size, 1))
    places[~longer, :steps] = random.permuted(places[~longer, :steps], axis=1)
    places[longer] = random.permuted(places[longer], axis=1)
    rows = places + edges[:-1, None]
    parts = [np.ascontiguousarray(rows[:, :steps].T), rows[longer, steps].reshape(1, left)]
    return [part for part in parts if part.size]
