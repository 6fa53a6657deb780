"""A simulated CuPy: NumPy underneath, and CuPy's refusals; see README.md beside this package."""

# ruff: noqa: F401 - everything here is for others
from cupy import cuda, fft, linalg, simulator
from cupy._array import (
    array,
    asanyarray,
    asarray,
    ascontiguousarray,
    asnumpy,
    astype,
    empty,
    empty_like,
    full,
    full_like,
    is_available,
    ndarray,
    ones,
    ones_like,
    zeros,
    zeros_like,
)
from cupy._array import namespace as _namespace
from cupy._kernels import ElementwiseKernel, RawKernel, RawModule
from cupy._memory import get_default_memory_pool

__version__ = "14.2.0"

globals().update(_namespace)  # the functions of NumPy's; no __all__: CuPy has none either
