"""Samples on their way into the network: scaled, brought to the device, cut into shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from xpnet.backend import Backend
from xpnet.data import Scaling, chunks, is_streamed
from xpnet.ops import Array

__all__ = ["Feed"]

EVALUATION_BATCH = 1000
# A data set that stays on disk passes through memory in shards of about this size.
SHARD_BYTES = 32 << 20


class Feed:
    """Brings host arrays to a backend, in one dtype and under one scaling.

    Bytes (uint8, int8, bool) travel and stay as they are, a quarter of the memory of
    float32, and become floats batch by batch, in `prepare`. All other values are scaled in
    float64 on the host and rounded once, so that large offsets (years, say) lose nothing.

    Parameters
    ----------
    backend : Backend
    dtype : str
        "float32" or "float64", of what the network sees.
    scaling : Scaling, optional
    """

    def __init__(self, backend: Backend, dtype: str, scaling: Scaling | None = None) -> None:
        self.backend, self.dtype, self.scaling = backend, dtype, scaling
        # Once, and not in a step: there it would cost time, and leak a tracer into JAX.
        self._constants = {kind: self._constants_of(np.dtype(kind)) for kind in ("uint8", "int8")}

    def _constants_of(self, kind: np.dtype[Any]) -> tuple[Any, Any]:
        """(shift, scale) for bytes: None where they change nothing, arrays as the backend's."""

        def constant(value: Any, neutral: float) -> Any:
            value = np.asarray(value, self.dtype)
            if np.all(value == neutral):
                return None
            return float(value) if value.ndim == 0 else self.backend.asarray(value)

        shift, scale = self.scaling_of(kind)
        return constant(shift, 0.0), constant(scale, 1.0)

    def scaling_of(self, dtype: Any) -> Scaling:
        """The given scaling; else uint8 is divided by 255, and all else left as it is."""
        if self.scaling is not None:
            return self.scaling
        return Scaling(0.0, 1.0 / 255.0) if dtype == np.uint8 else Scaling()

    def samples(self, x: Any) -> Array:
        """Samples to the device."""
        if x.dtype.itemsize == 1:
            return self.backend.asarray(np.asarray(x))
        shift, scale = self.scaling_of(x.dtype)
        if x.dtype == self.dtype and np.all(shift == 0.0) and np.all(scale == 1.0):
            return self.backend.asarray(np.asarray(x))
        out = np.empty(x.shape, self.dtype)
        for start, rows in chunks(x):
            out[start : start + len(rows)] = (rows.astype(np.float64) - shift) * scale
        return self.backend.asarray(out)

    def samples_or_file(self, x: Any) -> Any:
        """Samples to the device, unless they are memory-mapped: those follow batch by batch."""
        return x if is_streamed(x) else self.samples(x)

    def prepare(self, x: Array) -> Array:
        """A batch of bytes to scaled floats, on the device; a batch of floats is ready."""
        xp = self.backend.xp
        if xp.isdtype(x.dtype, "real floating"):
            return x
        unsigned = xp.isdtype(x.dtype, "unsigned integer")
        shift, scale = self._constants["uint8" if unsigned else "int8"]
        x = xp.astype(x, getattr(xp, self.dtype))
        if shift is not None:
            x -= shift
        if scale is not None:
            x *= scale
        return x

    def targets(self, t: np.ndarray) -> np.ndarray:
        """Targets in the run's dtype, class indices as int32; still on the host."""
        return t.astype(self.dtype if t.dtype.kind == "f" else np.int32)

    def copies(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Array]:
        """A dict of parameters or optimizer state to the device; an update may write to it."""
        return {
            name: self.backend.asarray(
                np.array(value, dtype=self.dtype if value.dtype.kind == "f" else value.dtype)
            )
            for name, value in arrays.items()
        }

    def shards(
        self, data: tuple[Any, ...], order: np.ndarray
    ) -> Iterator[tuple[tuple[Array, ...], Array]]:
        """(data on the device, order into it): all at once, or shard by shard from a file.

        Parameters
        ----------
        data : tuple of arrays
            Samples, then targets and maybe weights. On the device already, all of them,
            unless the samples are memory-mapped: then none is.
        order : integer array, shape=(steps, batch)
        """
        if not len(order):
            return
        x = data[0]
        if not is_streamed(x):
            yield data, self.backend.asarray(order)
            return
        batch = order.shape[1]
        steps = max(1, SHARD_BYTES // max(1, batch * x.nbytes // len(x)))
        for start in range(0, len(order), steps):
            # Sorted, so that the file is read in one direction.
            rows, places = np.unique(order[start : start + steps], return_inverse=True)
            part = (self.samples(x[rows]), *(self.backend.asarray(a[rows]) for a in data[1:]))
            yield part, self.backend.asarray(places.reshape(-1, batch))

    def batches(self, x: Any) -> Iterator[tuple[slice, Array]]:
        """Consecutive batches of samples, on the device, for evaluation."""
        n = x.shape[0]
        for start in range(0, n, EVALUATION_BATCH):
            part = slice(start, min(start + EVALUATION_BATCH, n))
            yield part, self.samples(x[part]) if is_streamed(x) else x[part, ...]
