"""Loads the C library that stands in for cuBLAS, and records its products during a capture."""

import ctypes
import functools
import traceback

from cupy import _build
from cupy._memory import find
from cupy._stream import _captures, _streams, submit


class Call(ctypes.Structure):
    """`struct call` in cublas.c."""

    _fields_ = [
        (name, kind)
        for kind, names in {
            ctypes.c_void_p: "stream workspace a b c",
            ctypes.c_size_t: "workspace_size",
            ctypes.c_double: "alpha beta",
            ctypes.c_longlong: "apart_a apart_b apart_c",
            ctypes.c_int: "create ta tb m n k lda ldb ldc type_ab type_c compute count",
        }.items()
        for name in names.split()
    ]


_SUCCESS, _NOT_INITIALIZED, _EXECUTION_FAILED, _INTERNAL_ERROR = 0, 1, 13, 14
_SIZES = {0: 4, 1: 8, 2: 2, 14: 2}  # bytes, by cudaDataType
_RECORDER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Call))


@functools.cache
def _load():
    source = (_build.FOLDER / "cublas.c").read_text()
    path = _build.build(source, "gcc", ["-O3", "-ffp-contract=off", "-std=gnu11"])
    lib = ctypes.CDLL(path)

    def record(pointer):
        try:
            return _record(lib, pointer.contents)
        except Exception:  # it cannot pass through C; what a signal raises is told all the same
            traceback.print_exc()
            return _EXECUTION_FAILED

    callback = _RECORDER(record)
    lib.simulator_set_recorder(callback)
    return path, lib, callback  # the callback must live as long as the library


def _record(lib, call):
    if call.create:  # a new handle allocates
        return _NOT_INITIALIZED if _captures else _SUCCESS
    stream = _streams.get(call.stream or 0)
    if stream is None:
        return _EXECUTION_FAILED
    if stream._capture and not call.workspace:  # cuBLAS would allocate one inside the capture
        return _INTERNAL_ERROR
    memories = [find(pointer or 0) for pointer in (call.a, call.b, call.c)]
    if call.workspace:
        memories.append(find(call.workspace))
    if None in memories and call.m * call.n * call.k:
        return _EXECUTION_FAILED  # not memory of the device, or no longer
    memories = [m for m in memories if m]
    if call.m * call.n * call.k and not all(map(_holds, memories, _ends(call))):
        return _EXECUTION_FAILED  # a matrix reaches beyond its memory
    kept = Call.from_buffer_copy(call)
    roots = [m._root for m in memories]  # the bytes must be there when the graph is launched

    def compute(roots=roots):
        lib.simulator_compute(ctypes.byref(kept))

    reads = memories if call.beta else memories[:2]
    submit("gemm", compute, reads, memories[2:], stream)
    return _SUCCESS


def _ends(call):
    """The addresses behind the last elements of both operands and the result."""
    for name, rows, columns in (
        ("a", *((call.k, call.m) if call.ta else (call.m, call.k))),
        ("b", *((call.n, call.k) if call.tb else (call.k, call.n))),
        ("c", call.m, call.n),
    ):
        start, apart, lead = (getattr(call, n) for n in (name, f"apart_{name}", f"ld{name}"))
        size = _SIZES[call.type_c if name == "c" else call.type_ab]
        yield start + size * ((call.count - 1) * apart + (columns - 1) * lead + rows)


def _holds(memory, end):
    return end <= memory.ptr + memory.size


def library():
    return _load()[0]
