"""Data frames and series of pandas, polars and PyArrow as tables, by the rules of the files.

narwhals asks each library in its own words; it is imported when the first frame comes. A library's
type says more than a file's cells: text that reads like numbers stays text, and what is a date is
known. Otherwise a frame and the CSV file that it writes are one table: null, NaN and the texts that
mean no value are missing, and texts stand without white space around them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from importlib import import_module
from numbers import Real
from typing import Any

import numpy as np

from xpnet.data.gather import text_column
from xpnet.data.roles import cleaned
from xpnet.data.table import Column, Table
from xpnet.errors import DataError, listed, shown

__all__ = ["frame_table", "is_frame", "is_series", "series_texts", "series_values"]

DATES = ("Date", "Datetime", "Duration", "Time")
TEXTS = ("String", "Categorical", "Enum")
# These are converted one by one: libraries round the last digit of a decimal in their own ways.
EXACT = ("Decimal", "Int128", "UInt128")
# What a column of objects, or of a type that narwhals does not know, may hold.
OBJECTS = ("Object", "Unknown")


def is_frame(x: Any) -> bool:
    """Whether x is a data frame: pandas, polars, PyArrow or another that narwhals knows.

    Examples
    --------
    >>> is_frame([[1, 2]])
    False
    """
    return _kind(x) in ("DataFrame", "LazyFrame")


def is_series(x: Any) -> bool:
    """Whether x is a column of a data frame."""
    return _kind(x) == "Series"


def frame_table(frame: Any, name: str = "x") -> Table:
    """Return a data frame's columns as a table; its index is no column.

    Parameters
    ----------
    frame : DataFrame
        Of numbers (also nullable, decimal), true / false, text and categories; dates are marked.
    name : str
        What messages call it.

    Raises
    ------
    DataError
        For infinite numbers, nested or mixed values, names that are there twice, and no rows.

    Examples
    --------
    >>> import polars  # doctest: +SKIP
    >>> frame = polars.DataFrame({"a": [1, None], "b": ["u", "v"]})  # doctest: +SKIP
    >>> frame_table(frame)["a"].numbers, frame_table(frame)["b"].values  # doctest: +SKIP
    (array([ 1., nan]), ('u', 'v'))
    """
    columns = _columns(frame, name)
    if not len(columns[0][1]):
        raise DataError(f"{name}: got no rows, expected at least one")
    return Table(tuple(_column(series, column, name) for column, series in columns), name)


def series_values(series: Any, name: str = "t") -> np.ndarray | list[str]:
    """Return the targets in a series, or in a frame of one column.

    Returns
    -------
    array or list of str
        Numbers and true / false as an array; text and categories as text, without white space
        around it.

    Raises
    ------
    DataError
        A label is missing, or the values are no labels.
    """
    if is_frame(series):
        columns = _columns(series, name)
        if len(columns) != 1:
            raise DataError(
                f"{name}: got {len(columns)} columns, expected one: {listed(c for c, _ in columns)}"
            )
        values = columns[0][1]
    else:
        values = _native(series)
    kind = _content(values, f"{name}: got")
    if kind == "date":
        raise DataError(f"{name}: got dates or times, expected labels")
    missing = _missing(values, kind)
    if missing.any():
        raise DataError(
            f"{name}: row {int(np.argmax(missing))}: got a missing label: fill it in, or leave the "
            "row out"
        )
    if kind == "text":
        return [str(value).strip() for value in values.to_list()]
    if kind == "truth":
        return np.array([bool(value) for value in values.to_list()], bool)
    if type(values.dtype).__name__.startswith(("Int", "UInt")) and _name(values) not in EXACT:
        return np.asarray(values.to_numpy())
    if type(values.dtype).__name__ == "Object" and all(type(v) is int for v in values.to_list()):
        return np.array(values.to_list())  # no label passes through a float
    return _numbers(values)


def series_texts(series: Any, name: str = "t") -> list[str]:
    """Return each value of a series as the text that stands for it; "" where it is missing."""
    values = _native(series)
    kind = _content(values, f"{name}: column {listed([values.name])} has")
    missing = _missing(values, kind)
    return [
        "" if gap else str(value).strip()
        for value, gap in zip(values.to_list(), missing, strict=True)
    ]


def _kind(x: Any) -> str:
    """The name of narwhals' class for x; empty where it has none."""
    if isinstance(x, np.ndarray | list | tuple | str | bytes | dict) or x is None:
        return ""
    words = ("columns", "to_frame", "chunks")
    if _library(x) not in ("pandas", "pyarrow") and not any(hasattr(type(x), w) for w in words):
        return ""
    from narwhals.exceptions import DuplicateError

    try:
        return type(_native(x)).__name__
    except DuplicateError:
        return "DataFrame"


def _native(x: Any) -> Any:
    import narwhals

    x = _whole(x)
    return narwhals.from_native(x, allow_series=True, pass_through=True)


def _library(x: Any) -> str:
    return type(x).__module__.partition(".")[0]


def _whole(x: Any) -> Any:
    """What narwhals knows for what it does not: an index, bare values, a piece of a table."""
    library, name = _library(x), type(x).__name__
    if library == "pandas" and name.endswith(("Index", "Array", "Categorical")):
        return x if getattr(x, "nlevels", 1) > 1 else import_module(library).Series(x)
    if library == "pyarrow" and name == "RecordBatch":
        return import_module(library).Table.from_batches([x])
    if library == "pyarrow" and name.endswith("Array") and name != "ChunkedArray":
        return import_module(library).chunked_array([x])
    return x


def _columns(frame: Any, name: str) -> list[tuple[str, Any]]:
    """(name, series) of each column."""
    import narwhals
    from narwhals.exceptions import DuplicateError

    try:
        wrapped = _native(frame)
        if not isinstance(wrapped, narwhals.DataFrame):
            raise DataError(
                f"{name}: got {type(frame).__name__}, expected a frame with its values: "
                f"{name}.collect()"
            )
        columns, series = list(wrapped.columns), [*wrapped.iter_columns()]
    except DuplicateError as error:
        words = " ".join(str(error).split())[:200]
        raise DataError(f"{name}: has two columns of one name: {words}") from error
    names = _unique(columns, name)
    if not names:
        raise DataError(f"{name}: got no columns, expected at least one")
    return list(zip(names, series, strict=True))


def _unique(columns: Sequence[Any], name: str) -> list[str]:
    """The columns' names as text; refused where they are none, or not different."""
    names = []
    for i, column in enumerate(columns):
        if isinstance(column, tuple):
            raise DataError(
                f"{name}: column {i} is named {shown(column)}, on several levels; expected one: "
                f"{name}.columns = [...]"
            )
        text = "" if column is None or column != column else cleaned(str(column))
        if not text:
            raise DataError(f"{name}: column {i} has no name; name it, or leave it out")
        _check_stored([text], f"{name}: the name of column {i}")
        names.append(text)
    if twice := sorted(text for text, count in Counter(names).items() if count > 1):
        raise DataError(f"{name}: has two columns named {listed(twice)}")
    return names


def _check_stored(texts: Sequence[str], where: str) -> None:
    """Refuse text with half of a surrogate pair, which no model file could hold."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where} is not text in UTF-8: {error}") from error


def _column(series: Any, column: str, name: str) -> Column:
    kind = _content(series, f"{name}: column {listed([column])} has")
    if kind in ("text", "date"):
        missing = _missing(series, kind)
        texts = (
            None if gap else str(value)
            for value, gap in zip(series.to_list(), missing, strict=True)
        )
        found = text_column(column, texts, date=kind == "date")
        _check_stored(found.values, f"{name}: column {listed([column])}")
        return found
    numbers = _numbers(series)
    if (infinite := np.isinf(numbers)).any():
        row = int(np.argmax(infinite))
        raise DataError(
            f"{name}: row {row}, column {listed([column])}: got {numbers[row]}, "
            "expected a finite number"
        )
    return Column(column, numbers, boolean=kind == "truth")


def _name(series: Any) -> str:
    return type(series.dtype).__name__


def _content(series: Any, where: str) -> str:
    """What a series has: "number", "truth", "text" or "date"."""
    dtype = _name(series)
    if series.dtype.is_numeric():
        return "number"
    if dtype == "Boolean":
        return "truth"
    if dtype in TEXTS:
        return "text"
    if dtype in DATES:
        return "date"
    if dtype in OBJECTS:
        return _content_of_objects(series, where)
    raise DataError(
        f"{where} values of type {shown(series.dtype)}, expected numbers, text or categories; "
        "take them apart into columns, or leave them out"
    )


def _content_of_objects(series: Any, where: str) -> str:
    """What the values themselves are, where the type does not say."""
    import datetime

    present = [
        value
        for value, gap in zip(series.to_list(), series.is_null().to_list(), strict=True)
        if not gap and not (isinstance(value, float) and math.isnan(value))
    ]
    types = set(map(type, present))
    dates = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)
    for kind, classes in (
        ("truth", (bool, np.bool_)),
        ("number", (Real, Decimal)),
        ("text", (str,)),
        ("date", dates),
    ):
        if all(issubclass(t, classes) for t in types):
            if kind == "truth" and not types:
                return "number"
            if kind != "number" or not any(issubclass(t, bool | np.bool_) for t in types):
                return kind
    names = listed(sorted({t.__name__ for t in types}))
    raise DataError(
        f"{where} values of several types or of none that fits, {names}; expected numbers, text "
        "or categories: turn them into one, or leave the column out"
    )


def _missing(series: Any, kind: str) -> np.ndarray:
    if kind in ("number", "truth"):
        return np.asarray(np.isnan(_numbers(series)))
    missing = series.is_null().to_list()
    if _name(series) in OBJECTS:
        missing = [
            gap or (isinstance(value, float) and math.isnan(value))
            for value, gap in zip(series.to_list(), missing, strict=True)
        ]
    return np.array(missing, bool)


def _numbers(series: Any) -> np.ndarray:
    """The numbers of a series, correctly rounded; NaN where one is missing."""
    import narwhals

    if _name(series) in (*EXACT, *OBJECTS):
        return np.array([*map(_float, series.to_list())])
    if series.dtype.is_integer():  # PyArrow does not round
        numbers = series.fill_null(0).to_numpy().astype(np.float64)
        numbers[series.is_null().to_numpy().astype(bool)] = math.nan
        return np.asarray(numbers)
    return np.array(series.cast(narwhals.Float64).to_numpy(), np.float64)


def _float(value: Any) -> float:
    """A value of a column of objects; what is too large for a float64 is infinite."""
    try:
        return float(value)
    except TypeError:  # None, pandas.NA
        return math.nan
    except OverflowError:
        return math.inf if value > 0 else -math.inf
