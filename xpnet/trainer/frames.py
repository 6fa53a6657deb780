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
    columns: Mapping[str, Sequence[Any]],
    whole: Collection[str],
    library: str | None,
    text: Collection[str] = (),
) -> Any:
    """Return columns as a data frame: whole numbers as int64, text as text, others as float64.

    None becomes NaN in pandas, and null in polars and PyArrow.

    Parameters
    ----------
    columns : mapping of str to sequence
    whole : collection of str
        The names of the columns of whole numbers.
    text : collection of str
        Those of text.
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
        return _frame(found, name, columns, whole, text)
    wanted = library or "pandas, polars or pyarrow"
    raise UsageError(
        f"to_frame needs {wanted}: pip install {library or 'pandas'}; to_dict needs nothing"
    )


def _frame(
    library: Any,
    name: str,
    columns: Mapping[str, Sequence[Any]],
    whole: Collection[str],
    text: Collection[str],
) -> Any:
    def kinds(real: Any, integer: Any, words: Any) -> dict[str, Any]:
        return {k: words if k in text else integer if k in whole else real for k in columns}

    if name == "pandas":
        dtypes = kinds(np.float64, np.int64, object)
        return library.DataFrame({k: np.array(v, dtypes[k]) for k, v in columns.items()})
    if name == "polars":
        schema = kinds(library.Float64, library.Int64, library.String)
        return library.DataFrame(dict(columns), schema=schema)
    types = kinds(library.float64(), library.int64(), library.string())
    return library.table({k: library.array(v, type=types[k]) for k, v in columns.items()})
