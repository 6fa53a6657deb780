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

    For K models, rows may be of shape (K, batch) and weights of shape (K, N), see `gathering`.

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
        # Weights of shape (K, N) are those of each model.
        per_model = tuple(k > 1 and a.ndim == 2 for k, a in enumerate(data))
        key = dtypes, data[0].ndim, rows.dtype.name, per_model
        if key not in self._kernels:
            self._kernels[key] = self._make(*key)
        made = self._kernels[key]
        # elements per row
        sizes = [1 if m else math.prod(a.shape[1:]) for a, m in zip(data, per_model, strict=True)]
        if made is None or not rows.size or 0 in sizes or not all(map(_is_dense, (*data, rows))):
            return self._one_by_one(data, rows)
        kernel, dtype = made
        shared = rows.ndim == 1
        outputs = [
            cupy.empty((len(a), *rows.shape) if shared else rows.shape, a.dtype)
            if per_model[k]
            else cupy.empty((*rows.shape, *a.shape[1:]), a.dtype if k else dtype)
            for k, a in enumerate(data)
        ]
        models = len(data[per_model.index(True)]) if shared and any(per_model) else 1
        arrays = [
            value
            for a, out, size in zip(data, outputs, sizes, strict=True)
            for value in (a, out, np.int64(size))
        ]
        threads = min(THREADS, 32 * -(-max(*sizes, models) // 32))
        numbers = rows.size, rows.shape[-1], models, len(data[0])
        kernel((min(rows.size, BLOCKS),), (threads,), (rows, *map(np.int64, numbers), *arrays))
        return outputs

    def _make(
        self, dtypes: tuple[str, ...], ndim: int, index: str, per_model: tuple[bool, ...]
    ) -> tuple[Any, str] | None:
        """Return the kernel and the dtype of the prepared samples, or None if there is none."""
        try:
            lines = trace(self._prepare, [None], [Kind(dtypes[0], ndim)])
            if lines.form != 0:
                raise Untraceable("it returns more than one result")
            source = gather_source(lines, dtypes, index, per_model)
        except Untraceable as reason:
            not_fused(self._prepare, reason, self._fallbacks)
            return None
        return cupy.RawKernel(source, "xpnet_gather"), lines.outputs[0].dtype


def _is_dense(array: Array) -> bool:
    dense: bool = array.flags.c_contiguous
    return dense


def gather_source(
    lines: Lines, dtypes: Sequence[str], index: str, per_model: Sequence[bool]
) -> str:
    """Write CUDA C of a gather: each block copies a row of the batch, array by array.

    Parameters
    ----------
    lines : Lines
        The preparation of an element x0 of the first array.
    dtypes : sequence of str
        Dtypes of the arrays.
    index : str
        Dtype of the row numbers. A row number out of range wraps around, as in CuPy.
    per_model : sequence of bool
        Which of the arrays hold one number for each model and sample, shape=(K, N). If the models
        share their rows, a block copies a row for all of them.

    Raises
    ------
    Untraceable
        A dtype has no type in CUDA C.
    """
    missing = [dtype for dtype in (*dtypes, index) if dtype not in C_TYPES]
    if missing:
        raise Untraceable(f"a kernel cannot read {missing[0]}")
    parameters, loops = [], []
    for k, (dtype, each) in enumerate(zip(dtypes, per_model, strict=True)):
        given = C_TYPES[dtype]
        made = C_TYPES[lines.outputs[0].dtype] if k == 0 else given
        parameters += [f"const {given}* a{k}", f"{made}* o{k}", f"long long d{k}"]
        prepared, result = (lines.statements, lines.outputs[0].name) if k == 0 else ([], "x0")
        there, here, count = f"row * d{k} + j", f"i * d{k} + j", f"d{k}"
        if each:
            there, here, count = "(i / batch + j) * samples + row", "j * n + i", "models"
        body = [f"{given} x0 = a{k}[{there}];", *prepared, f"o{k}[{here}] = {result};"]
        loops.append(
            f"        for (long long j = threadIdx.x; j < {count}; j += blockDim.x) {{\n"
            + "".join(f"            {line}\n" for line in body)
            + "        }\n"
        )
    return (
        'extern "C" __global__ void xpnet_gather(\n'
        f"        const {C_TYPES[index]}* rows, long long n, long long batch,\n"
        "        long long models, long long samples,\n"
        f"        {', '.join(parameters)}) {{\n"
        "    for (long long i = blockIdx.x; i < n; i += gridDim.x) {\n"
        "        long long row = rows[i];\n"
        "        if (row < 0 || row >= samples) row = (row % samples + samples) % samples;\n"
        f"{''.join(loops)}"
        "    }\n}\n"
    )
