"""Files of tables: CSV and its relatives, and Parquet."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from xpnet.data.csv import read_csv_table
from xpnet.data.frames import frame_table, series_texts
from xpnet.data.readers import available_memory, existing
from xpnet.data.roles import Layout, Wish, check_names, cleaned, roles
from xpnet.data.table import TableFile
from xpnet.errors import DataError, UsageError, XpnetError

__all__ = ["is_table_file", "read_table"]

TEXT = (".csv", ".tsv", ".txt")
PARQUET = ("pyarrow", "polars")  # who reads it, the first that is installed
PANDAS_INDEX = "__index_level_"


def is_table_file(path: str | os.PathLike[str]) -> bool:
    """Whether the name is one of a table: .csv, .tsv or .txt, maybe with .gz; .parquet; or "-".

    Examples
    --------
    >>> is_table_file("a.csv.gz"), is_table_file("a.npz")
    (True, False)
    """
    name = Path(path).name.lower()
    return name == "-" or name.removesuffix(".gz").endswith(TEXT) or name.endswith(".parquet")


def read_table(
    path: str | os.PathLike[str],
    *,
    label_column: str | None = None,
    header: str = "auto",
    drop: Collection[str] = (),
    only: Collection[str] = (),
    id_column: str | None = None,
    features: Collection[str] = (),
    width: int | None = None,
    id_required: bool = True,
    layout: Layout | None = None,
) -> TableFile:
    """Read a table: columns of numbers and text, and maybe labels and ids.

    Columns are called by name or by number, from 0, a negative one from the right.

    Parameters
    ----------
    path : path
        CSV in UTF-8, separated by comma, semicolon or tab, maybe gzipped; "-" is CSV on the
        standard input; .parquet, where PyArrow or polars is installed.
    label_column : str, optional
        By default the last column that is neither dropped nor the ids; "" for none.
    header : {"auto", "yes", "no"}
        Whether the first line has the names; "auto" tells by what is below.
    drop, only : collection of str
        Columns to leave out, and those that alone are features; these stay in the file's order.
    id_column : str, optional
        A column of texts that name the rows.
    features : collection of str
        Names of features that a training knows. A first line that has them all is a header, other
        columns are then left out, and the label column need not be there.
    width : int, optional
        How many features a file without a header line has; just as many columns have no labels.
    id_required : bool
        Whether a file without the id column is refused.
    layout : Layout, optional
        From the `TableFile` of a training file without a header line: its columns are found in this
        one, with or without the labels; label_column, drop and only do not count then.

    Returns
    -------
    TableFile

    Raises
    ------
    DataError
        The file is no table, or a column is not there; the message names line and column.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "f.csv"
    >>> _ = path.write_text("size,colour,y\\n1.5,red,a\\n,blue,b\\n")
    >>> file = read_table(path)
    >>> file.table["colour"].values, file.table["size"].numbers, file.labels
    (('red', 'blue'), array([1.5, nan]), ['a', 'b'])
    """
    wish = Wish(label_column, drop, only, id_column, features, width, id_required, layout)
    if Path(path).suffix.lower() != ".parquet":
        return read_csv_table(path, wish, header)
    if header == "no":
        raise UsageError(f"header is 'no', and {Path(path).name} has the names of its columns")
    return _read_parquet(existing(Path(path)), wish)


def _read_parquet(path: Path, wish: Wish) -> TableFile:
    library = next(filter(importlib.util.find_spec, PARQUET), None)
    if library is None:
        raise DataError(
            f"{path}: reading Parquet needs PyArrow or polars: pip install 'xpnet[parquet]'"
        )
    try:
        frame = _parquet_frame(path, library)
    except XpnetError:
        raise
    except Exception as error:  # each library raises its own
        words = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: is not Parquet that can be read: {words}") from error
    names = [cleaned(name) for name in frame.columns]
    index = [name for name in names if name.startswith(PANDAS_INDEX)]
    mentioned = set(wish.names()) | set(wish.features)
    notes = [
        f"{path}: left out column {name}, pandas' index" for name in index if name not in mentioned
    ]
    kept = [i for i, name in enumerate(names) if name not in index or name in mentioned]
    names = [names[i] for i in kept]
    series = [frame.get_column(frame.columns[i]) for i in kept]
    found = roles(names, wish, str(path))
    check_names(names, wish, found, str(path))
    table = frame_table(frame.select([series[i].name for i in found.features]), str(path))
    return TableFile(
        table,
        series_texts(series[found.label], str(path)) if found.label >= 0 else None,
        names[found.label] if found.label >= 0 else "",
        series_texts(series[found.id], str(path)) if found.id >= 0 else None,
        names[found.id] if found.id >= 0 else "",
        tuple(notes),
    )


def _parquet_frame(path: Path, library: Any) -> Any:
    """A Parquet file as a frame of narwhals; a few bytes may claim any number of rows."""
    import narwhals

    if library == "polars":
        polars = importlib.import_module("polars")
        lazy = polars.scan_parquet(path)
        cells = lazy.select(polars.len()).collect().item() * len(lazy.collect_schema())
    else:
        meta = importlib.import_module("pyarrow.parquet").read_metadata(path)
        cells = meta.num_rows * meta.num_columns
    if 8 * cells > available_memory():
        raise DataError(f"{path}: is larger than the free memory; save it as .npy files")
    return narwhals.read_parquet(str(path), backend=library)
