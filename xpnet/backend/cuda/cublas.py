"""Call cuBLAS through ctypes for matrix products that can be captured into a CUDA graph.

CuPy refuses its own products during a capture (https://github.com/cupy/cupy/issues/6290), although
cuBLAS allows them: with a workspace from the caller, it allocates nothing. This module needs six
functions of a library that CuPy has loaded anyway; nvmath-python would bring three more packages
for the same calls. It works on pointers, shapes and strides, and does not import CuPy.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any

__all__ = ["TYPES", "Cublas", "apart", "layout", "load"]

Array = Any

# Values of cudaDataType and cublasComputeType_t, from library_types.h and cublas_api.h.
TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77
DEFAULT_ALGORITHM = -1
_STATUS = {
    1: "it could not start; is the driver too old, or the GPU's memory used up?",
    3: "it has no memory for its own resources",
    7: "a size or a leading dimension is invalid",
    8: "this GPU does not support it",
    13: "the GPU failed",
    14: "cuBLAS itself failed",
    15: "it does not support these types",
}
# NVIDIA recommends this size for Hopper GPUs, and no larger one for any other.
WORKSPACE_BYTES = 32 << 20

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int
_MATRIX = [_POINTER, _INT, _INT]  # address, type, leading dimension
_MATRICES = [*_MATRIX, ctypes.c_longlong]  # and the distance between two of a stack
_ARGUMENTS = {
    "cublasCreate_v2": [ctypes.POINTER(_POINTER)],
    "cublasDestroy_v2": [_POINTER],
    "cublasSetStream_v2": [_POINTER, _POINTER],
    "cublasSetWorkspace_v2": [_POINTER, _POINTER, ctypes.c_size_t],
    "cublasGemmEx": [
        _POINTER, _INT, _INT, _INT, _INT, _INT,  # handle, two operations, n, m, k
        _POINTER, *_MATRIX, *_MATRIX,  # alpha, left, right
        _POINTER, *_MATRIX, _INT, _INT,  # beta, result, compute type, algorithm
    ],
    "cublasGemmStridedBatchedEx": [
        _POINTER, _INT, _INT, _INT, _INT, _INT,
        _POINTER, *_MATRICES, *_MATRICES,
        _POINTER, *_MATRICES, _INT, _INT, _INT,  # beta, results, count, compute type, algorithm
    ],
}  # fmt: skip


def load(major: int) -> Any:
    """Load cuBLAS of a CUDA version from where CuPy finds it.

    Raises
    ------
    ImportError, RuntimeError, OSError
        The library is missing.
    """
    from cuda.pathfinder import load_nvidia_dynamic_lib  # comes with CuPy 14

    path = load_nvidia_dynamic_lib("cublas").abs_path
    # The path may belong to another package's CUDA. CuPy has loaded its own under this name.
    version = re.search(r"\.so\.(\d+)", path)
    if version and int(version[1]) != major:
        path = f"libcublas.so.{major}"
    library = ctypes.CDLL(path)
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, _INT
    return library


def layout(array: Array) -> tuple[bool, int] | None:
    """Return (transposed, leading dimension) of a matrix, or None if no axis is dense.

    Parameters
    ----------
    array : array, shape=(R, C), or (K, R, C) for K matrices of one layout
        Its strides are in bytes, as in NumPy and CuPy.
    """
    rows, columns = array.shape[-2:]
    down, right = (stride // array.itemsize for stride in array.strides[-2:])
    if apart(array) < 0:
        return None
    # An axis of one element may have any stride.
    if (columns == 1 or right == 1) and (rows == 1 or down >= columns):
        return False, down if rows > 1 else columns
    if (rows == 1 or down == 1) and (columns == 1 or right >= rows):
        return True, right if columns > 1 else rows
    return None


def apart(array: Array) -> int:
    """Return the elements between two matrices of a stack; 0 for a matrix that all products share.

    Parameters
    ----------
    array : array, shape=(R, C) or (K, R, C)
    """
    stack = array.ndim == 3 and len(array) > 1  # an axis of one element may have any stride
    return int(array.strides[0] // array.itemsize) if stack else 0


class Cublas:
    """A cuBLAS handle with its own workspace; use it from one thread only.

    Parameters
    ----------
    library
        From `load`.
    workspace
        WORKSPACE_BYTES of device memory with an address ``ptr``. The handle keeps it alive.
    """

    def __init__(self, library: Any, workspace: Any) -> None:
        self._library, self._workspace = library, workspace
        self._handle = _POINTER()
        self._stream: int | None = None
        # This call allocates, so a capture would not allow it.
        _check(library.cublasCreate_v2(ctypes.byref(self._handle)), "cublasCreate")

    def __del__(self) -> None:
        if self._handle:
            self._library.cublasDestroy_v2(self._handle)

    def multiply(
        self, a: Array, b: Array, out: Array, kind: str, stream: int, tf32: bool = False
    ) -> Array:
        """Queue out = a b on a stream; of stacks, all products in one call.

        Parameters
        ----------
        a : array, shape=(M, K) or (L, M, K)
        b : array, shape=(K, N) or (L, K, N)
            Transposed views cost nothing; `layout` says which views are possible. All products of
            a stack share an operand that has two axes.
        out : array, shape=(M, N), or (L, M, N) if an operand is a stack
            C-contiguous; float64 for float64 operands, else float32.
        kind : str
            Type of the operands, a key of TYPES; cuBLAS sums in out's type.
        stream : int
            Address of the stream.
        tf32 : bool
            Round operands of float32 to TF32's ten bits.

        Returns
        -------
        array
            `out`.

        Raises
        ------
        ValueError
            An operand has no dense axis.
        RuntimeError
            cuBLAS failed.
        """
        if stream != self._stream:
            library, handle = self._library, self._handle
            _check(library.cublasSetStream_v2(handle, stream), "cublasSetStream")
            # Setting a stream makes cuBLAS use its own workspace again.
            status = library.cublasSetWorkspace_v2(handle, self._workspace.ptr, WORKSPACE_BYTES)
            _check(status, "cublasSetWorkspace")
            self._stream = stream
        left, right = layout(a), layout(b)
        if left is None or right is None:
            raise ValueError("neither the rows nor the columns of an operand are dense")
        (m, k), n = a.shape[-2:], b.shape[-1]
        number = ctypes.c_double if kind == "float64" else ctypes.c_float
        compute = COMPUTE_64F if kind == "float64" else COMPUTE_32F
        # cuBLAS is column-major, so it sees each matrix transposed: out' = b' a'.
        sizes = int(right[0]), int(left[0]), n, m, k  # 1: transposed
        one, zero = ctypes.byref(number(1.0)), ctypes.byref(number(0.0))
        first, second = (b.data.ptr, TYPES[kind], right[1]), (a.data.ptr, TYPES[kind], left[1])
        result = out.data.ptr, TYPES["float64" if kind == "float64" else "float32"], n
        how = COMPUTE_32F_FAST_TF32 if tf32 else compute, DEFAULT_ALGORITHM
        if out.ndim == 2:
            function, count = self._library.cublasGemmEx, ""
            status = function(self._handle, *sizes, one, *first, *second, zero, *result, *how)
        else:
            function, count = self._library.cublasGemmStridedBatchedEx, f"{len(out)} times "
            status = function(
                self._handle, *sizes, one, *first, apart(b), *second, apart(a),
                zero, *result, m * n, len(out), *how,
            )  # fmt: skip
        _check(status, f"{function.__name__} of {count}({m}, {k}) and ({k}, {n})")
        return out


def _check(status: int, what: str) -> None:
    if status:
        meaning = _STATUS.get(status, "")
        raise RuntimeError(f"{what} failed with cuBLAS status {status}{meaning and ': '}{meaning}")
