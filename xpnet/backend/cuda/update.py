"""Compile an optimizer's rule, from its own lines, to one CUDA kernel for all parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cupy
import numpy as np

from xpnet.backend.cuda.fuse import C_TYPES, NUMBER, Kind, Lines, Untraceable, not_fused, trace

__all__ = ["Update", "update_source"]

Array = Any
THREADS = 256
BLOCKS = 528  # four on each of an H100's multiprocessors
# A kernel's parameters may take 4 KiB; the rest is for the rates and the count.
PARAMETER_BYTES = 3584
MOST_MODELS = 65535  # layers of blocks in a launch


class Update:
    """``for_each(rule, rates, rows, count)`` updates all parameters and the count in place.

    It launches one kernel, or several if the arrays do not fit into one kernel's parameters. Rates
    of shape (K,) are those of K models: a layer of blocks updates one of them.
    """

    def __init__(self, fallbacks: list[str]) -> None:
        self._fallbacks = fallbacks
        self._sources: dict[Any, str | None] = {}
        self._kernels: dict[str | None, Any] = {}

    def __call__(
        self,
        rule: Callable[..., tuple[Array, ...]],
        rates: Any,
        rows: Sequence[tuple[Array, ...]],
        count: Array,
    ) -> Any:
        leaves = _leaves(rates)
        if leaves is None or not _of_one_kind(rows, leaves) or count.dtype != np.int32:
            reason = "expected rates that are Python numbers or arrays, and rows of one dtype"
            not_fused(rule, reason, self._fallbacks)
            return NotImplemented
        size = PARAMETER_BYTES // (8 * (len(rows[0]) + 1))
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        # Find all kernels first: after one has written, the Python lines cannot take over.
        sources = [self._source(rule, rates, part) for part in parts]
        if None in sources:
            return NotImplemented
        models = max((v.size for v in leaves if getattr(v, "ndim", 0)), default=1)
        numbers = [v if isinstance(v, cupy.ndarray) else np.float64(v) for v in leaves]
        counts = [count, *[np.int64(0)] * (len(parts) - 1)]  # only the first kernel counts
        for part, source, where in zip(parts, sources, counts, strict=True):
            if source not in self._kernels:
                self._kernels[source] = cupy.RawKernel(source, "xpnet_update")
            arrays = [
                (np.int64(p.size // models), p, cupy.ascontiguousarray(g), *slots)
                for p, g, *slots in part
            ]
            largest = max(p.size for p, *_ in part) // models
            most = -(-BLOCKS // models)  # for each model
            grid = max(1, min(most, -(-largest // THREADS))), len(part), models
            arguments = (where, *(a for row in arrays for a in row), *numbers)
            self._kernels[source](grid, (THREADS,), arguments)
        return [(p, *slots) for p, _, *slots in rows], count

    def _source(self, rule: Any, rates: Any, rows: Sequence[tuple[Array, ...]]) -> str | None:
        """Return the kernel's source, cached by rule and numbers of axes; None if there is none."""
        dtype, slots = rows[0][0].dtype.name, len(rows[0]) - 2
        ndims = tuple(row[0].ndim for row in rows)
        given = tuple(_given(v) for v in _leaves(rates) or [])
        key = rule, dtype, ndims, given
        if key not in self._sources:
            try:
                lines = {n: _trace_rule(rule, rates, dtype, n, slots) for n in sorted(set(ndims))}
                self._sources[key] = update_source(lines, dtype, ndims, given)
            except Untraceable as reason:
                not_fused(rule, reason, self._fallbacks)
                self._sources[key] = None
        return self._sources[key]


def _of_one_kind(rows: Sequence[tuple[Array, ...]], rates: Sequence[Any]) -> bool:
    """Say whether all arrays have one real dtype, each row one shape, and its outputs are dense.

    Rates with an axis have one number for each model, and so have the parameters' first axes.
    """
    dtype = rows[0][0].dtype
    arrays = [r for r in rates if isinstance(r, cupy.ndarray)]
    known = dtype.name in ("float32", "float64") and all(
        r.dtype == dtype and r.ndim < 2 and r.flags.c_contiguous for r in arrays
    )
    each = {r.shape for r in arrays if r.ndim}
    if each and not (
        0 < max(each)[0] <= MOST_MODELS and all({row[0].shape[:1]} == each for row in rows)
    ):
        return False
    return known and all(
        a.dtype == dtype and a.shape == p.shape and (a is g or a.flags.c_contiguous)
        for p, g, *slots in rows
        for a in (p, g, *slots)
    )


def _given(rate: Any) -> str:
    """Say how a kernel gets a rate: by value, by address, or by address for each model."""
    if not isinstance(rate, cupy.ndarray):
        return "value"
    return "each" if rate.ndim else "address"


def _leaves(rates: Any) -> list[Any] | None:
    """Return the numbers and arrays in nested tuples, or None if they hold anything else."""
    if type(rates) is not tuple:
        known = type(rates) in (int, float) or isinstance(rates, cupy.ndarray)
        return [rates] if known else None
    parts = [_leaves(part) for part in rates]
    return None if None in parts else [leaf for part in parts for leaf in part or []]


def _trace_rule(rule: Any, rates: Any, dtype: str, ndim: int, slots: int) -> Lines:
    """Trace the rule; its parameters are x0 = p, x1 = g, then the rates, then the slots."""
    array = Kind(dtype, ndim)
    leaves = [
        Kind(dtype, 0) if isinstance(v, cupy.ndarray) else NUMBER for v in _leaves(rates) or []
    ]
    kinds = [array, array, *leaves, *[array] * slots]
    lines = trace(rule, [None, None, rates, *[None] * slots], kinds)
    if lines.form != tuple(range(1 + slots)) or any(o.dtype != dtype for o in lines.outputs):
        raise Untraceable("a rule must return p and its slots, in their dtype")
    return lines


def update_source(
    variants: Mapping[int, Lines], dtype: str, ndims: Sequence[int], given: Sequence[str]
) -> str:
    """Write CUDA C of an update, in which each row of blocks updates one parameter.

    Each layer of blocks updates one model, whose rates a thread so reads once.

    The compiler does not inline the rule. With 64 parameters, it needs 0.15 seconds instead of
    five.

    Parameters
    ----------
    variants : mapping of int to Lines
        The rule for each number of axes that a parameter has.
    dtype : str
    ndims : sequence of int
        The number of axes of each parameter.
    given : sequence of str
        For each rate: "address" if it is a number on the device, "each" if it is one of each model
        there, "value" if the kernel gets it by value.
    """
    real = C_TYPES[dtype]
    types = ["double" if how == "value" else real for how in given]
    rates = [
        f"double r{i}" if how == "value" else f"const {real}* r{i}" for i, how in enumerate(given)
    ]
    reading = {"value": "r{}", "address": "*r{}", "each": "r{}[blockIdx.z]"}
    numbered = [
        f"{c_type} x{2 + i} = {reading[how].format(i)};"
        for i, (c_type, how) in enumerate(zip(types, given, strict=True))
    ]
    source = []
    slots = 0
    for ndim, lines in variants.items():
        slots = len(lines.outputs) - 1
        names = ["p", *(f"s{i}" for i in range(slots))]
        numbers = [0, *range(2 + len(rates), 2 + len(rates) + slots)]
        arrays = [f"{real}* {name}" for name in names]
        reads = [f"{real} x{k} = {a}[i];" for a, k in zip(names, numbers, strict=True)]
        writes = [f"{a}[i] = {o.name};" for a, o in zip(names, lines.outputs, strict=True)]
        parameters = ["long long n", arrays[0], f"const {real}* g", *arrays[1:], *rates]
        body = "\n        ".join([*reads, f"{real} x1 = g[i];", *lines.statements, *writes])
        source.append(
            f"__device__ __noinline__ void rule_{ndim}({', '.join(parameters)}) {{\n"
            f"    {' '.join(numbered)}\n"
            "    long long first = blockIdx.z * n;\n"
            f"    {' '.join(f'{name} += first;' for name in ['g', *names])}\n"
            "    long long step = (long long)gridDim.x * blockDim.x;\n"
            "    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; "
            f"i += step) {{\n        {body}\n    }}\n}}\n"
        )
    parameters, calls = [], []
    for k, ndim in enumerate(ndims):
        names = [f"n_{k}", f"p_{k}", f"g_{k}", *(f"s{i}_{k}" for i in range(slots))]
        parameters += [
            f"long long {names[0]}", f"{real}* {names[1]}", f"const {real}* {names[2]}",
            *(f"{real}* {name}" for name in names[3:]),
        ]  # fmt: skip
        passed = ", ".join([*names, *(f"r{i}" for i in range(len(rates)))])
        calls.append(f"    if (blockIdx.y == {k}) rule_{ndim}({passed});\n")
    one = " && ".join(f"{index} == 0" for index in ("blockIdx.x", "blockIdx.y", "blockIdx.z"))
    counted = f"if (count && {one} && threadIdx.x == 0) *count += 1;"
    source.append(
        'extern "C" __global__ void xpnet_update('
        f"{', '.join(['int* count', *parameters, *rates])}) {{\n"
        f"{''.join(calls)}    {counted}\n}}\n"
    )
    return "\n".join(source)
