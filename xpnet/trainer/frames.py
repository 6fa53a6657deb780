"""Columns of numbers as a data frame of the library that is installed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from xpnet.errors import UsageError, shown

__all__ = ["LIBRARIES", "frame_of"]

# pandas first: most people who have several of them work with it, and its frames plot themselves.
LIBRARIES = ("pandas", "polars", "pyarrow")


def frame_of(
    columns: Mapping[str, Sequence[float | None]], whole: Collection[str], library: str | None
) -> Any:
    """Return columns as a data frame: those of whole numbers as int64, all others as float64.

    None becomes NaN in pandas, and null in polars and PyArrow.

    Parameters
    ----------
    columns : mapping of str to sequence
    whole : collection of str
        The names of the columns of whole numbers.
    library : {"pandas", "polars", "pyarrow"}, optional
        By default the first of them that is installed.

    Raises
    ------
    UsageError
        The library is not installed, or unknown; or none of them is installed.
    """
    if library is not None and library not in LIBRARIES:
        raise UsageError(f"library is {shown(library)}; expected {', '.join(LIBRARIES)}")
    for name in LIBRARIES if library is None else (library,):
        try:
            found = import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:  # installed, but something that it needs is not
                raise UsageError(f"to_frame: {name} cannot be imported: {error}") from error
            continue
        return _frame(found, name, columns, whole)
    wanted = library or "pandas, polars or pyarrow"
    raise UsageError(
        f"to_frame needs {wanted}: pip install {library or 'pandas'}; to_dict needs nothing"
    )


def _frame(
    library: Any, name: str, columns: Mapping[str, Sequence[float | None]], whole: Collection[str]
) -> Any:
    if name == "pandas":
        kinds = {key: np.int64 if key in whole else np.float64 for key in columns}
        return library.DataFrame({k: np.array(v, kinds[k]) for k, v in columns.items()})
    if name == "polars":
        schema = {key: library.Int64 if key in whole else library.Float64 for key in columns}
        return library.DataFrame(dict(columns), schema=schema)
    types = {key: library.int64() if key in whole else library.float64() for key in columns}
    return library.table({k: library.array(v, type=types[k]) for k, v in columns.items()})
