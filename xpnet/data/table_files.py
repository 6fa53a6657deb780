"""Files of tables: CSV and its relatives, and Parquet."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from xpnet.data.csv import read_csv_table
from xpnet.data.roles import Wish
from xpnet.data.table import TableFile

__all__ = ["is_table_file", "read_table"]

TEXT = (".csv", ".tsv", ".txt")


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
) -> TableFile:
    """Read a table: columns of numbers and text, and maybe labels and ids.

    Columns are called by name or by number, from 0, a negative one from the right.

    Parameters
    ----------
    path : path
        CSV in UTF-8, separated by comma, semicolon or tab, maybe gzipped; "-" is CSV on the
        standard input.
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
    wish = Wish(label_column, drop, only, id_column, features, width)
    return read_csv_table(path, wish, header)
