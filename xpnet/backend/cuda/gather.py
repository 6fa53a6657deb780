"""Gather a batch in one CUDA kernel, which also prepares the samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import cupy
import numpy as np

from xpnet.backend.cuda.fuse import C_TYPES, Kind, Lines, Untraceable, not_fused, trace
from xpnet.backend.loop import gathering

__all__ = ["Gather", "gather_source"]

Array = Any
THREADS = 256  # at most, per block; a block copies one row at a time
BLOCKS = 4096  # at most


class Gather:
    """``gather(data, rows)`` returns these rows of each array, with the samples prepared.

    Parameters
    ----------
    prepare : callable
        Converts the samples; its lines become part of the kernel.
    fallbacks : list of str
        See `Backend.fallbacks`.
    """

    def __init__(self, prepare: Callable[[Array], Array], fallbacks: list[str]) -> None:
        self._prepare, self._fallbacks = prepare, fallbacks
        self._kernels: dict[Any, tuple[Any, str] | None] = {}
        self._one_by_one = gathering(lambda array, rows: cupy.take(array, rows, axis=0), prepare)

    def __call__(self, data: tuple[Array, ...], rows: Array) -> Sequence[Array]:
        dtypes = tuple(a.dtype.name for a in data)
        key = dtypes, data[0].ndim, rows.dtype.name
        if key not in self._kernels:
            self._kernels[key] = self._make(*key)
        made = self._kernels[key]
        sizes = [math.prod(a.shape[1:]) for a in data]  # elements per row
        if made is None or not rows.size or 0 in sizes or not all(map(_is_dense, (*data, rows))):
            return self._one_by_one(data, rows)
        kernel, dtype = made
        outputs = [
            cupy.empty((len(rows), *a.shape[1:]), a.dtype if k else dtype)
            for k, a in enumerate(data)
        ]
        arrays = [
            value
            for a, out, size in zip(data, outputs, sizes, strict=True)
            for value in (a, out, np.int64(size))
        ]
        threads = min(THREADS, 32 * -(-max(sizes) // 32))
        arguments = (rows, np.int64(len(rows)), np.int64(len(data[0])), *arrays)
        kernel((min(len(rows), BLOCKS),), (threads,), arguments)
        return outputs

    def _make(self, dtypes: tuple[str, ...], ndim: int, index: str) -> tuple[Any, str] | None:
        """Return the kernel and the dtype of the prepared samples, or None if there is none."""
        try:
            lines = trace(self._prepare, [None], [Kind(dtypes[0], ndim)])
            if lines.form != 0:
                raise Untraceable("it returns more than one result")
            source = gather_source(lines, dtypes, index)
        except Untraceable as reason:
            not_fused(self._prepare, reason, self._fallbacks)
            return None
        return cupy.RawKernel(source, "xpnet_gather"), lines.outputs[0].dtype


def _is_dense(array: Array) -> bool:
    dense: bool = array.flags.c_contiguous
    return dense


def gather_source(lines: Lines, dtypes: Sequence[str], index: str) -> str:
    """Write CUDA C of a gather: each block copies a row of the batch, array by array.

    Parameters
    ----------
    lines : Lines
        The preparation of an element x0 of the first array.
    dtypes : sequence of str
        Dtypes of the arrays.
    index : str
        Dtype of the row numbers. A row number out of range wraps around, as in CuPy.

    Raises
    ------
    Untraceable
        A dtype has no type in CUDA C.
    """
    missing = [dtype for dtype in (*dtypes, index) if dtype not in C_TYPES]
    if missing:
        raise Untraceable(f"a kernel cannot read {missing[0]}")
    parameters, loops = [], []
    for k, dtype in enumerate(dtypes):
        given = C_TYPES[dtype]
        made = C_TYPES[lines.outputs[0].dtype] if k == 0 else given
        parameters += [f"const {given}* a{k}", f"{made}* o{k}", f"long long d{k}"]
        prepared, result = (lines.statements, lines.outputs[0].name) if k == 0 else ([], "x0")
        body = [f"{given} x0 = a{k}[row * d{k} + j];", *prepared]
        body.append(f"o{k}[i * d{k} + j] = {result};")
        loops.append(
            f"        for (long long j = threadIdx.x; j < d{k}; j += blockDim.x) {{\n"
            + "".join(f"            {line}\n" for line in body)
            + "        }\n"
        )
    return (
        'extern "C" __global__ void xpnet_gather(\n'
        f"        const {C_TYPES[index]}* rows, long long n, long long samples,\n"
        f"        {', '.join(parameters)}) {{\n"
        "    for (long long i = blockIdx.x; i < n; i += gridDim.x) {\n"
        "        long long row = rows[i];\n"
        "        if (row < 0 || row >= samples) row = (row % samples + samples) % samples;\n"
        f"{''.join(loops)}"
        "    }\n}\n"
    )
