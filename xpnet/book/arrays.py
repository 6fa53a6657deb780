"""What the book's classes ask of arrays: one library, one dtype, and the kernels of the library."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import numpy as np
from array_api_compat import is_cupy_array

from xpnet.arrays.dispatch import with_kernels
from xpnet.arrays.ops import Array, device, is_real, namespace
from xpnet.backend.cpu import keep_freed_memory
from xpnet.backend.select import select

__all__ = ["as_targets", "like", "real_arrays", "run"]


def real_arrays(owner: str, **arrays: Any) -> list[Array]:
    """Return arrays as real ones of one dtype, the widest; whole numbers take the others' dtype.

    The book mixes images of float32 with weights of float64, and NumPy promotes; other libraries
    refuse to.

    Raises
    ------
    ValueError
        One is no array, or they are of several libraries.
    """
    given = list(arrays.values())
    first = given[0]
    kind, dtype = type(first), getattr(first, "dtype", None)
    alike, mixed = dtype is not None, False
    for a in given:  # each layer asks this at each step
        if type(a) is not kind:
            alike = False
            break
        if alike and a.dtype != dtype:
            mixed = True
    if alike and not mixed and is_real(first):
        return given
    if not alike:
        _refuse_other_libraries(owner, arrays)
    xp = namespace(first)
    for name, a in arrays.items():
        if not is_real(a) and not xp.isdtype(a.dtype, ("bool", "integral")):
            raise ValueError(f"{owner} got {name} of dtype {a.dtype}; expected real numbers")
    reals = [a.dtype for a in given if is_real(a)]
    dtype = xp.result_type(*reals) if reals else xp.float64
    return [a if a.dtype == dtype else xp.astype(a, dtype) for a in given]


def _refuse_other_libraries(owner: str, arrays: Mapping[str, Any]) -> None:
    seen: dict[str, str] = {}
    for name, a in arrays.items():
        if not hasattr(a, "dtype") or not hasattr(a, "shape"):
            kind = type(a).__name__
            raise ValueError(
                f"{owner} got {name} of type {kind}; expected an array: np.array({name})"
            )
        seen.setdefault(namespace(a).__name__.split(".")[-1], name)
    if len(seen) > 1:
        (one, name), (other, second) = list(seen.items())[:2]
        raise ValueError(
            f"{owner} got {name} of {one} and {second} of {other}; expected one library: convert "
            "the parameters, or the data"
        )


def like(array: Any, other: Array) -> Array:
    """Return a NumPy array with the library, the dtype and the device of another array."""
    return namespace(other).asarray(array, dtype=other.dtype, device=device(other))


def as_targets(t: Array, scores: Array, owner: str) -> Array:
    """Return targets as labels, shape=(N,), or as one-hot rows of the scores' shape, (N, C).

    Labels may stand in a column, (N, 1), as in the book's chapter 7. Rows may be bool or whole
    numbers; NumPy computes with those, and other libraries get the dtype of the scores.

    Raises
    ------
    ValueError
        They have another shape, or are of another library.
    """
    numpys = isinstance(t, np.ndarray) and isinstance(scores, np.ndarray)
    if not numpys:
        _refuse_other_libraries(owner, {"scores": scores, "targets": t})
    given, shape = tuple(t.shape), tuple(scores.shape)
    if given == shape and not numpys and not is_real(t):
        return namespace(t).astype(t, scores.dtype)
    if given in (shape, shape[:-1]):
        return t
    if given == (*shape[:-1], 1):
        return t[..., 0]
    raise ValueError(
        f"{owner}: targets of shape {given}; expected labels, {shape[:-1]}, or one-hot rows, "
        f"{shape}"
    )


# The device of the pass that runs now, so that what it calls need not set up the kernels again.
_RUNNING: ContextVar[str | None] = ContextVar("running", default=None)


def run(function: Callable[..., Any], x: Array, *args: Any) -> Any:
    """Call a function of arrays as the backend of x's library does, outside a training step.

    NumPy and CuPy have kernels; the other libraries run the function as it is. A call within such
    a call, for the same device, costs nothing.
    """
    if isinstance(x, np.ndarray):
        # Its kernels know the dtypes of a training.
        device = "cpu" if x.dtype.itemsize in (4, 8) else None
    else:
        device = f"cuda:{x.device.id}" if is_cupy_array(x) else None
    running = _RUNNING.get()
    if device == running:
        return function(x, *args)
    token = _RUNNING.set(device)
    try:
        runner = _runner(device) if device else with_kernels(_call, {})
        return runner(function, x, *args)
    finally:
        _RUNNING.reset(token)


@functools.cache
def _runner(device: str) -> Callable[..., Any]:
    if device == "cpu":
        keep_freed_memory()  # as a training loop does
    return select(device).compile(_call)


def _call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)
