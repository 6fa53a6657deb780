"""The way of a user's arrays in and out: X decides the library and the device of all results.

`validate_data` of scikit-learn checks NumPy arrays, data frames and sparse matrices. Arrays of
other libraries stay where they are: a stand-in of their shape, which takes no memory, goes through
the same checks and gives the same messages.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import (
    array_namespace,
    is_array_api_obj,
    is_cupy_array,
    is_jax_array,
    is_numpy_array,
    is_torch_array,
    to_device,
)
from scipy import sparse
from sklearn.utils import assert_all_finite

from xpnet.arrays.ops import Array
from xpnet.backend.interface import Backend
from xpnet.errors import DataError

__all__ = [
    "NUMPY",
    "Origin",
    "dtype_name",
    "is_foreign",
    "numbers",
    "origin_of",
    "rows_of",
    "stand_in",
    "to_host",
]


class Origin(NamedTuple):
    """The library and the device of an array, under the names of `xpnet.select`.

    `device` is "cpu" or "cuda:N"; for array-api-strict, the name of one of its own devices.
    """

    library: str
    device: str

    def __str__(self) -> str:
        return f"{self.library} on {self.device}"

    def is_on(self, backend: Backend) -> bool:
        """Say whether these arrays are the backend's own, so that none has to be copied."""
        own = backend.device if self.library != "strict" else "CPU_DEVICE"
        return (self.library, self.device) == (backend.library, own)

    def take_in(self, array: Array, backend: Backend) -> Array:
        """Bring an array to the backend; one that is there already stays as it is."""
        if self.is_on(backend):
            return array
        return backend.asarray(to_host(array))

    def give_back(self, array: Array, backend: Backend) -> Array:
        """Return an array of the backend in this library, on this device."""
        return array if self.is_on(backend) else self.asarray(backend.to_numpy(array))

    def asarray(self, array: np.ndarray) -> Array:
        """Return a NumPy array in this library, on this device."""
        if self.library == "numpy":
            return array
        if self.library == "strict":
            import array_api_strict

            return array_api_strict.asarray(array, device=array_api_strict.Device(self.device))
        from xpnet.backend.select import select

        return select(self.device, self.library, str(array.dtype)).asarray(array)


NUMPY = Origin("numpy", "cpu")


def is_foreign(array: Any) -> bool:
    """Say whether an array is of a library beside NumPy, which scikit-learn's checks would copy."""
    return is_array_api_obj(array) and not is_numpy_array(array)


def origin_of(array: Any) -> Origin:
    """Return library and device of an array; lists, frames and sparse matrices count as NumPy.

    Raises
    ------
    DataError
        The array is of a library that xpnet does not know, or hides values behind a mask.
    """
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise DataError(
            "X: got masked values, expected numbers; fill them, X.filled(...), or leave rows out"
        )
    if not is_foreign(array):
        return NUMPY
    if is_torch_array(array):
        if str(array.layout) != "torch.strided" or array.device.type not in ("cpu", "cuda"):
            raise DataError(
                f"X: got a tensor of layout {array.layout} on {array.device}; expected a dense one "
                "on cpu or cuda"
            )
        return Origin("torch", str(array.device))
    if is_cupy_array(array):
        return Origin("cupy", f"cuda:{array.device.id}")
    if is_jax_array(array):
        devices = [] if "Tracer" in type(array).__name__ else list(array.devices())
        if len(devices) != 1:
            raise DataError(
                "X: got a JAX array that is traced, or lies on several devices; expected one on "
                "one device, outside of jax.jit"
            )
        device = devices[0]
        return Origin("jax", "cpu" if device.platform == "cpu" else f"cuda:{device.id}")
    if type(array).__module__.startswith("array_api_strict"):
        return Origin("strict", str(array.device).split("'")[1])
    raise DataError(
        f"X: got {type(array).__module__}.{type(array).__name__}; expected an array of NumPy, "
        "CuPy, PyTorch, JAX or array-api-strict, a data frame or a SciPy sparse matrix"
    )


def dtype_name(array: Any) -> str:
    """Return the name of an array's dtype, such as "float32", in any library."""
    return str(array.dtype).rpartition(".")[2]


def to_host(array: Any) -> Any:
    """Return an array of any library as NumPy's; what is no such array stays as it is."""
    if not is_foreign(array):
        return array
    if is_torch_array(array):
        tensor = array.detach().cpu()
        try:
            return tensor.numpy()
        except TypeError:  # bfloat16, which NumPy lacks
            return tensor.float().numpy()
    if is_cupy_array(array):
        return array.get()
    if type(array).__module__.startswith("array_api_strict"):
        import array_api_strict

        return np.asarray(to_device(array, array_api_strict.Device("CPU_DEVICE")))
    return np.asarray(array)


def stand_in(array: Array) -> np.ndarray:
    """Return an array of the same shape for scikit-learn's checks; all its elements are one."""
    complex_numbers = array_namespace(array).isdtype(array.dtype, "complex floating")
    value = np.zeros((), np.complex128 if complex_numbers else np.float64)
    return np.broadcast_to(value, tuple(array.shape))


def numbers(array: Array, dtype: str | None, owner: str) -> Array:
    """Return an array of another library as float64 or float32, and refuse what is not finite.

    `dtype` is the wanted one; None keeps float32 and float64, and makes of all others the more
    precise of the two that the device has, as scikit-learn does. `owner` is the name of the
    estimator, for the message.

    Raises
    ------
    ValueError
    """
    xp = array_namespace(array)
    name = dtype or dtype_name(array)
    if name not in ("float32", "float64"):
        real = xp.__array_namespace_info__().dtypes(kind="real floating", device=array.device)
        name = "float64" if "float64" in real else "float32"
    try:
        finite = bool(xp.all(xp.isfinite(array)))
    except (NotImplementedError, RuntimeError) as error:  # sparse or without memory, say
        raise DataError(
            f"X: {xp.__name__.rpartition('.')[2]} cannot compute with this "
            f"{type(array).__name__}: {str(error).splitlines()[0]}"
        ) from error
    if not finite:
        # scikit-learn's message, from its check of one number
        bad = np.nan if bool(xp.any(xp.isnan(array))) else np.inf
        assert_all_finite(np.array(bad, name), estimator_name=owner, input_name="X")
    if is_torch_array(array):
        array = array.detach()  # else autograd would record what is computed from it
    wanted = getattr(xp, name)
    return array if array.dtype == wanted else xp.astype(array, wanted)


def rows_of(X: Any, rows: np.ndarray) -> Any:
    """Return these rows of an array of any library, or of a sparse matrix."""
    if sparse.issparse(X) or is_numpy_array(X):
        return X[rows]
    xp = array_namespace(X)
    return xp.take(X, xp.asarray(rows, device=X.device), axis=0)
