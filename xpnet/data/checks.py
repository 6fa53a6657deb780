"""Checks before the first step: each refuses what the network cannot train on, and says why."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj, to_device

from xpnet.arrays.ops import computes_its_own_way
from xpnet.data.dataset import Scaling, is_streamed
from xpnet.data.scans import scan
from xpnet.errors import DataError, UsageError, shown
from xpnet.parallel.group import ALONE, Group

__all__ = [
    "check_features",
    "check_headers",
    "check_nonnegative",
    "check_numbers",
    "check_scaling",
    "check_targets",
    "checked_scaling",
    "checked_weights",
    "host",
    "is_one_hot",
    "in_one_unit",
]


REAL = "buif"  # the kinds of dtypes that are real numbers


def host(array: Any, name: str = "x") -> Any:
    """An array of any library as NumPy's; what stays in a file stays as it is.

    Raises
    ------
    DataError
        It is no array, hides values behind a mask, or computes by rules of its own.
    """
    if is_streamed(array):
        return array
    if _hides_values(array):
        raise DataError(
            f"{name}: got masked values, expected numbers; put some in their place, "
            f"{name}.filled(...), or leave those rows out"
        )
    if isinstance(array, np.ndarray):
        known = isinstance(array, np.matrix | np.ma.MaskedArray)  # of which nothing is masked
        if computes_its_own_way(array) and not known:
            raise DataError(
                f"{name}: got {type(array).__name__}, an array with rules of its own; "
                f"expected a plain one: numpy.asarray({name})"
            )
        return np.asarray(array)
    if isinstance(array, list | tuple):
        try:
            return np.asarray(array)
        except ValueError:
            raise DataError(f"{name}: got a list of rows of different lengths") from None
    if not is_array_api_obj(array):
        raise DataError(f"{name}: got {type(array).__name__}, expected an array")
    try:
        return np.asarray(array)
    except (TypeError, ValueError, RuntimeError):
        pass  # CuPy and CUDA tensors do not leave their GPU unasked
    try:
        return np.asarray(to_device(array, "cpu"))
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{name}: NumPy cannot take this {type(array).__name__}: {reason} "
            f"(PyTorch: {name}.detach().to_dense().cpu().float())"
        ) from error


def _hides_values(array: Any, depth: int = 0) -> bool:
    if isinstance(array, list | tuple):
        # A list may contain itself; NumPy then says what is wrong with it.
        return depth < 64 and any(_hides_values(part, depth + 1) for part in array)
    return isinstance(array, np.ma.MaskedArray) and bool(np.ma.is_masked(array))


def check_features(x: Any, name: str = "x", group: Group = ALONE) -> None:
    """Refuse features that a network cannot train on; `DataError` names the row.

    The ranks of a group share the reading of what stays in a file.
    """
    if getattr(x, "ndim", 0) == 1:
        raise DataError(
            f"{name}: got shape {x.shape}, expected one row a sample; "
            f"a single feature has shape ({len(x)}, 1), a single sample (1, {len(x)})"
        )
    check_numbers(x, name, group)


def check_headers(x: Any, t: Any, x_name: str, t_name: str) -> None:
    """Refuse, before their values are read, samples and targets that cannot belong together.

    Parameters
    ----------
    x, t : anything with a shape and a dtype
    x_name, t_name : str

    Raises
    ------
    DataError
    """
    if x.dtype.kind not in REAL:
        raise DataError(f"{x_name}: got values of type {x.dtype}, expected real numbers")
    if t.dtype.kind not in REAL + "US":
        raise DataError(f"{t_name}: got values of type {t.dtype}, expected numbers or text")
    if x.shape and t.shape and x.shape[0] != t.shape[0]:
        raise DataError(
            f"{t_name}: got {t.shape[0]} targets for {x.shape[0]} samples, expected one each"
        )


def check_numbers(x: Any, name: str, group: Group = ALONE) -> None:
    """As `check_features`, for an array with any number of axes."""
    if not hasattr(x, "dtype") or x.ndim < 1:
        raise DataError(f"{name}: got {type(x).__name__}, expected an array with one row a sample")
    if x.dtype.kind not in REAL:
        raise DataError(f"{name}: got values of type {x.dtype}, expected real numbers")
    if len(x) == 0:
        raise DataError(f"{name}: got no samples, expected at least one")
    if 0 in x.shape:
        raise DataError(f"{name}: got shape {tuple(x.shape)}, samples without values")
    if x.dtype.kind != "f":
        return
    for fault in scan(x, _first_fault, group, bool):
        if fault:
            raise DataError(f"{name}: {fault}")


def _first_fault(part: Iterable[tuple[int, np.ndarray]]) -> str:
    """Say where the first value is that is not finite; "" if there is none."""
    for start, rows in part:
        if not np.isfinite(rows).all():
            bad = np.argwhere(~np.isfinite(rows))[0]
            where = "".join(f", column {i}" for i in bad[1:2])
            return f"row {start + bad[0]}{where}: got {rows[tuple(bad)]}, expected a finite number"
    return ""


def is_one_hot(t: np.ndarray) -> bool:
    """Whether t has several columns, with one 1 in each row and 0 elsewhere."""
    return bool(
        t.ndim == 2
        and t.shape[1] > 1
        and t.dtype.kind in REAL
        and ((t == 0) | (t == 1)).all()
        and (np.count_nonzero(t, axis=1) == 1).all()
    )


def check_targets(
    t: Any, n: int, outputs: int, targets: str, name: str = "t", *, nonnegative: bool = False
) -> None:
    """Refuse targets that do not fit n samples, a network of `outputs` outputs, and its loss.

    Parameters
    ----------
    t : array
        Class indices, shape=(N,); or one row per sample, shape=(N, outputs).
    n, outputs : int
    targets : {"probabilities", "unit", "real"}
        What the loss can be given, see `xpnet.losses`. Several "unit" outputs are classes
        here too: the trainer scores one answer per sample.
    nonnegative : bool
        Whether the loss refuses "real" targets below 0.

    Raises
    ------
    DataError
    """
    check_numbers(t, name)
    if len(t) != n:
        raise DataError(f"{name}: got {len(t)} targets for {n} samples, expected one each")
    if targets == "probabilities" and outputs < 2:
        raise DataError(f"{name}: this loss needs a network with at least 2 outputs, got {outputs}")
    if t.ndim == 1 and (outputs > 1 or targets == "unit"):
        _check_indices(t, max(outputs, 2), name)
        return
    if t.shape != (n, outputs) and t.shape != (n,):
        raise DataError(f"{name}: got shape {t.shape}, expected ({n},) or ({n}, {outputs})")
    if targets == "real":
        if nonnegative:
            check_nonnegative(t, name)
        return
    bad, what = ((t < 0) | (t > 1)).any(axis=1), "values from 0 to 1"
    if outputs > 1:
        bad, what = bad | (np.abs(t.sum(axis=1) - 1.0) > 1e-5), "probabilities that add up to 1"
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"{name}: row {row}: got {t[row].tolist()}, expected {what}")


def check_nonnegative(t: np.ndarray, name: str = "t") -> None:
    """Refuse targets below 0, for a loss that needs counts; `DataError` names the row."""
    if (bad := t < 0).any():
        row = int(np.argwhere(bad)[0, 0])
        raise DataError(
            f"{name}: row {row}: got {t[row].tolist()}, expected targets >= 0 for this loss"
        )


def _check_indices(t: np.ndarray, classes: int, name: str) -> None:
    if t.dtype.kind == "f":
        whole = t == np.floor(t)
        if not whole.all():
            row = int(np.argmin(whole))
            raise DataError(f"{name}: row {row}: got {t[row]}, expected a class index")
        raise DataError(f"{name}: got class indices as {t.dtype}, expected integers: t.astype(int)")
    if (bad := (t < 0) | (t >= classes)).any():
        row = int(np.argmax(bad))
        raise DataError(f"{name}: row {row}: got {t[row]}, expected 0 to {classes - 1}")


def checked_scaling(scaling: Any, name: str = "scaling") -> Scaling | None:
    """Check a scaling, and copy it: you may change your arrays later.

    Raises
    ------
    UsageError
    """
    if scaling is None:
        return None
    try:
        shift, scale = (np.array(value, np.float64) for value in scaling)
    except (TypeError, ValueError):
        raise UsageError(
            f"{name} is {shown(scaling)}; expected (shift, scale): xpnet.data.standardize(x), say"
        ) from None
    for what, value in (("shift", shift), ("scale", scale)):
        bad = ~np.isfinite(value)
        if name == "target_scaling" and what == "scale":
            bad |= value == 0  # predictions are divided by it
        if bad.any():
            where = f" at {np.argwhere(bad)[0].tolist()}" if value.ndim else ""
            raise UsageError(
                f"{name}: its {what} is {value[bad][0]}{where}; expected a finite number: "
                "xpnet.data.standardize gives 1 for a constant column"
            )
    return Scaling(*(float(v) if v.ndim == 0 else v for v in (shift, scale)))


def in_one_unit(x: Any, trained_on: str, name: str) -> Any:
    """Return x; warn if only one of x and the training samples is uint8: the unit must be the same.

    A network that was trained on floats takes no bytes unasked, so those in memory become floats.
    """
    if (x.dtype == np.uint8) != (trained_on == "uint8"):
        warnings.warn(
            f"{name}: got {x.dtype}, the training samples are {trained_on}; the values are taken "
            "to have the same unit",
            RuntimeWarning,
            stacklevel=2,
        )
    floats = x.dtype == np.uint8 and np.dtype(trained_on).kind == "f"
    return x.astype(trained_on) if floats and type(x) is np.ndarray else x


def check_scaling(scaling: Scaling | None, x: Any, name: str = "scaling") -> None:
    """Refuse a shift or scale that is not a number or of the shape of a sample.

    Raises
    ------
    UsageError
    """
    for part, value in zip(Scaling._fields, scaling or (), strict=False):
        if np.shape(value) not in ((), tuple(x.shape[1:])):
            raise UsageError(
                f"{name}: its {part} has shape {np.shape(value)}, expected a number or shape "
                f"{tuple(x.shape[1:])}"
            )


def checked_weights(weight: Any, n: int, mean: bool, dtype: str) -> np.ndarray:
    """Sample weights in the run's dtype; for a mean loss of mean 1, which changes nothing else.

    Raises
    ------
    DataError
        Also for a weight that the dtype would round to 0 or to infinity.
    """
    given = host(weight, "sample_weight")
    check_numbers(given, "sample_weight")
    weights: np.ndarray = given.astype(np.float64)
    if weights.shape != (n,) or not ((weights > 0) & np.isfinite(weights)).all():
        raise DataError(
            f"sample_weight: expected {n} positive numbers, one a sample; "
            "leave out those of weight 0"
        )
    with np.errstate(over="ignore", under="ignore"):
        if mean:
            weights = weights / weights.max()  # first, since a sum of huge weights is infinite
            weights = weights / weights.mean()
        rounded = weights.astype(dtype)
    limits = np.finfo(dtype)
    if (bad := (rounded < limits.tiny) | (rounded > limits.max)).any():
        row = int(np.argmax(bad))
        raise DataError(
            f"sample_weight: row {row}: got {given[row]}, which {dtype} cannot hold"
            f"{' beside the others' * mean}; leave out such a sample, or train in float64"
        )
    return rounded
