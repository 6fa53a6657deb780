"""A table: named columns of numbers or text, as a file or a data frame has them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from xpnet.data.roles import Layout
from xpnet.errors import DataError, counted, listed, shown

__all__ = ["Column", "Table", "TableFile"]


@dataclass(frozen=True, repr=False)
class Column:
    """One column of a table: numbers, or text as codes.

    Attributes
    ----------
    name : str
        "0", "1", ... where nobody named it.
    numbers : array, shape=(N,), float64, or None
        NaN where a value is missing; None for text.
    values : tuple of str
        The different texts, in the order in which they come; empty for numbers.
    codes : array, shape=(N,), int32, or None
        The number of each row's text in `values`; -1 where it is missing.
    boolean : bool
        Whether the numbers 0 and 1 stand for false and true.
    date : bool
        Whether the column holds dates or times, as a data frame says; their text is in `values`.
    """

    name: str
    numbers: np.ndarray | None = None
    values: tuple[str, ...] = ()
    codes: np.ndarray | None = None
    boolean: bool = False
    date: bool = False

    def __len__(self) -> int:
        return len(self.codes if self.numbers is None else self.numbers)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        if self.numbers is None:
            kind = f"{'dates' if self.date else 'texts'}: {listed(self.values, 3)}"
        else:
            kind = "truth values" if self.boolean else "numbers"
        return f"<Column {listed([self.name])}: {len(self):,} {kind}>"

    @property
    def missing(self) -> np.ndarray:
        """Return for each row whether its value is missing."""
        if self.numbers is not None:
            return np.asarray(np.isnan(self.numbers))
        assert self.codes is not None
        return np.asarray(self.codes < 0)

    def rows(self, index: Any) -> Column:
        """Return the column of some rows; all of `values` stay, in their order."""
        return replace(
            self,
            numbers=None if self.numbers is None else self.numbers[index],
            codes=None if self.codes is None else self.codes[index],
        )


@dataclass(frozen=True, repr=False)
class Table:
    """Columns of equal length, each with a name of its own.

    Attributes
    ----------
    columns : tuple of Column
    name : str
        What messages call the table: the path of its file, for example.
    named : bool
        Whether the columns have names; otherwise their places count.
    lines : sequence of int, or None
        The line of each row in the file, counted from 1.
    """

    columns: tuple[Column, ...]
    name: str = "x"
    named: bool = True
    lines: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def __repr__(self) -> str:
        rows, columns = counted(len(self), "row"), counted(len(self.columns), "column")
        names = f": {listed(self.names, 10)}" if self.columns else ""
        return f"<Table {listed([self.name])}: {rows}, {columns}{names}>"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def __getitem__(self, name: str) -> Column:
        """Return the column with this name.

        Raises
        ------
        DataError
            There is none; the message lists those that there are.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise DataError(f"{self.name}: has no column {shown(name)}; it has {listed(self.names)}")

    def rows(self, index: Any) -> Table:
        """Return a table of some rows: an integer array, or a slice."""
        lines = None if self.lines is None else np.asarray(self.lines)[index]
        return replace(self, columns=tuple(c.rows(index) for c in self.columns), lines=lines)

    def only(self, names: Collection[str]) -> Table:
        """Return a table of these columns, in this order.

        Raises
        ------
        DataError
            A column is not there.
        """
        return replace(self, columns=tuple(self[name] for name in names))

    def without(self, names: Collection[str]) -> Table:
        """Return a table without these columns.

        Raises
        ------
        DataError
            A column is not there.
        """
        for name in names:
            self[name]  # refuses one that is not there
        return replace(self, columns=tuple(c for c in self.columns if c.name not in names))

    def matrix(self, columns: Sequence[str] = ()) -> np.ndarray:
        """Return columns of plain numbers as an array, shape=(N, columns), float64.

        Parameters
        ----------
        columns : sequence of str
            Their names and order, if the table has names; by default all.

        Raises
        ------
        DataError
            A column is not there, holds text, or lacks a value.
        """
        table = self.only(columns) if columns and self.named else self
        parts = []
        for column in table.columns:
            if column.numbers is None or column.missing.any():
                what = "text" if column.numbers is None else "missing values"
                raise DataError(
                    f"{self.name}: column {listed([column.name])} has {what}, expected numbers "
                    "alone; make features of such a table: encoder=xpnet.data.Encoder.of(frame)"
                )
            parts.append(column.numbers)
        return np.stack(parts, axis=1)

    def place(self, row: int) -> str:
        """Return where a row is, for a message: "file.csv: line 7", or "x: row 6"."""
        if self.lines is None:
            return f"{self.name}: row {row}"
        return f"{self.name}: line {self.lines[row]}"


class TableFile(NamedTuple):
    """What a file of a table has: features, and maybe labels and ids.

    Attributes
    ----------
    table : Table
        The columns of the features.
    labels : list of str, or None
        The text in the label column, without white space around it; "" where a cell is empty.
    label_column : str
        The label column's name, or its number without a header line; "" without labels.
    ids : list of str, or None
        The text in the id column, without white space around it.
    id_column : str
        The id column's name, or its number where it has none; "" without ids.
    notes : tuple of str
        What a reader should be told, one sentence each: a column that was left out, for example.
    layout : Layout or None
        Where the columns stand in a file without a header line.
    """

    table: Table
    labels: list[str] | None = None
    label_column: str = ""
    ids: list[str] | None = None
    id_column: str = ""
    notes: tuple[str, ...] = ()
    layout: Layout | None = None
