"""Columns of cells, gathered block by block into numbers or codes of texts.

1. A column is numbers if each of its cells is a number or says that there is none; true / false if
   each is one of these or missing. Any other column is text as a whole, its numbers as they are
   written.
2. What is missing in any column (empty, NA, ?) is missing; "-", "none" or "inf" are missing among
   numbers, and text among texts.
3. A column in which nothing is there is numbers, all missing.

Whole blocks are numbers at once, by `xpnet.data.digits` or float(). Only where that fails are
single cells looked at, each different one once.
"""

from __future__ import annotations

import array
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from xpnet.data.cells import MISSING, is_gap, is_missing, number, truth
from xpnet.data.table import Column

__all__ = ["Gathered", "Texts", "text_column"]

# How programs write that a value is missing; other spellings are found more slowly.
GAPS = {
    spelling: "nan"
    for word in MISSING
    for spelling in (word, word.upper(), word.capitalize(), word.replace("nan", "NaN"))
}
# Of a shorter block, sum() says sooner than NumPy whether it is finite.
SHORT = 100


class Texts(dict[str, int]):
    """The code of each cell, by the cell as it stands; -1 where it is missing.

    Attributes
    ----------
    index : dict
        The code of each text without white space around it, in the order in which they come.
    """

    def __init__(self) -> None:
        super().__init__()
        self.index: dict[str, int] = {}

    def __missing__(self, cell: str) -> int:
        text = cell.strip()
        code = -1 if is_missing(text) else self.index.setdefault(text, len(self.index))
        self[cell] = code
        return code


class Gathered:
    """One column while it is read.

    Attributes
    ----------
    kind : {"", "number", "truth", "text"}
        What the cells are so far; "" while all are missing.
    lost : bool
        Whether the column turned out to be text after numbers had been stored in place of cells.
        It takes no more cells: read them again, as text.
    overflow : int
        The row of the first number that is too large for a float64; -1 if there is none.
    """

    def __init__(self, text: bool = False) -> None:
        self.kind = "text" if text else ""
        self.lost = False
        self.overflow = -1
        self._odd = False  # whether a cell is missing among numbers, but a text among texts
        self._gaps = False
        self._numbers = array.array("d")
        self._texts = Texts()
        self._codes = array.array("i")

    def add(self, cells: Sequence[str]) -> None:
        """Add the cells of some more rows."""
        if self.lost:
            return
        if self.kind == "text":
            self._codes.extend(map(self._texts.__getitem__, cells))
        elif self.kind == "truth" or not (
            (not self._gaps and self._add_numbers(cells)) or self._add_numbers_and_gaps(cells)
        ):
            self._add_by_meaning(cells)

    def add_numbers(
        self, values: np.ndarray, unsure: np.ndarray, cell: Callable[[int], str]
    ) -> bool:
        """Add rows that have been read as numbers, NaN where a cell is empty.

        Parameters
        ----------
        values : array, float64, shape=(N,)
        unsure : array of int
            The rows whose cells are something else.
        cell : callable
            From one of these rows to its cell.

        Returns
        -------
        bool
            False if the column is no numbers, and nothing was added.
        """
        kind, odd, overflow = self.kind, self._odd, self.overflow
        if kind not in ("", "number"):
            return False
        for row in unsure.tolist():
            text = cell(row).strip()
            is_a, value = _meaning(text)
            if is_a not in ("", "number"):
                return False
            kind = kind or is_a
            odd = odd or (not is_a and not is_missing(text))
            if math.isinf(value):
                overflow = len(self._numbers) + row if overflow < 0 else overflow
                value = math.nan
            values[row] = value
        if not kind and not np.isnan(values).all():
            kind = "number"
        self.kind, self._odd, self.overflow = kind, odd, overflow
        self._numbers.frombytes(values.tobytes())
        return True

    def _add_numbers(self, cells: Sequence[str]) -> bool:
        """Add a block of nothing but finite numbers; returns whether it was one."""
        try:
            block = array.array("d", map(float, cells))
        except ValueError:
            return False
        if not (_are_finite(block) and _are_plain(cells)):
            return False
        self._numbers.extend(block)
        self.kind = "number"
        return True

    def _add_numbers_and_gaps(self, cells: Sequence[str]) -> bool:
        """Add a block of finite numbers and cells that are missing in a usual spelling."""
        try:
            block = array.array("d", map(float, map(GAPS.get, cells, cells)))
        except ValueError:
            return False
        missing = np.flatnonzero(~np.isfinite(np.frombuffer(block)))
        if not (all(cells[i] in GAPS for i in missing.tolist()) and _are_plain(cells)):
            return False
        self._numbers.extend(block)
        self._gaps = True
        if len(missing) < len(cells):
            self.kind = "number"
        return True

    def _add_by_meaning(self, cells: Sequence[str]) -> None:
        """Add a block by the meaning of each different cell."""
        kind, odd = self.kind, self._odd
        meaning: dict[str, float] = {}
        for cell in dict.fromkeys(cells):
            text = cell.strip()
            is_a, value = _meaning(text)
            if is_a == "text" or (is_a and kind and is_a != kind):
                self._become_text(cells)
                return
            kind = kind or is_a
            odd = odd or (not is_a and not is_missing(text))
            if math.isinf(value):
                if self.overflow < 0:
                    self.overflow = len(self._numbers) + cells.index(cell)
                value = math.nan
            meaning[cell] = value
        self.kind, self._odd = kind, odd
        self._numbers.extend(map(meaning.__getitem__, cells))

    def _become_text(self, cells: Sequence[str]) -> None:
        self.lost = bool(self.kind) or self._odd
        self.kind, self.overflow = "text", -1
        if not self.lost:
            self._codes = array.array("i", [-1]) * len(self._numbers)
            self._codes.extend(map(self._texts.__getitem__, cells))
        self._numbers = array.array("d")

    def end(self, first: str | None = None) -> None:
        """Say that there are no more cells, and maybe that `first` stands above them all."""
        is_a, value = ("", math.nan) if first is None else _meaning(first.strip())
        odd = first is not None and not is_a and not is_missing(first.strip())
        if not self.kind and not is_a and (self._odd or odd):  # + and - alone are no numbers
            self._become_text(())
            self.lost = self._odd
        if first is None or self.lost:
            return
        if self.kind == "text":
            self._put_first(first)
        elif is_a == "text" or (is_a and self.kind and is_a != self.kind):
            self.lost, self.kind = True, "text"
        else:
            self.kind = self.kind or is_a
            self.overflow = 0 if math.isinf(value) else self.overflow + (self.overflow >= 0)
            self._numbers.insert(0, math.nan if math.isinf(value) else value)

    def _put_first(self, cell: str) -> None:
        texts = Texts()
        first = array.array("i", [texts[cell]])
        for text in self._texts.index:
            texts[text]
        new = np.array([texts.index[text] for text in self._texts.index] + [-1], np.int32)
        first.frombytes(new[np.frombuffer(self._codes, np.int32)].tobytes())
        self._texts, self._codes = texts, first

    def counts(self) -> dict[str, int]:
        """How often each text is there; only of a column of text that is not lost."""
        codes = np.frombuffer(self._codes, np.int32)
        counts = np.bincount(codes[codes >= 0], minlength=len(self._texts.index))
        return dict(zip(self._texts.index, counts.tolist(), strict=True))

    def is_distinct(self) -> bool:
        """Whether nothing is missing, and no cell there twice; False if that is not known."""
        if self.lost:
            return False
        if self.kind == "text":
            return len(self._codes) == len(self._texts.index) and -1 not in self._codes
        values = set(self._numbers)
        return len(values) == len(self._numbers) and not any(map(math.isnan, values))

    @property
    def nbytes(self) -> int:
        """About how much memory the column takes."""
        return 8 * len(self._numbers) + 4 * len(self._codes) + 250 * len(self._texts)

    def column(self, name: str) -> Column:
        """The column, after `end`."""
        if self.kind == "text" and self._texts.index:
            codes = np.frombuffer(self._codes, np.int32)
            return Column(name, values=tuple(self._texts.index), codes=codes)
        if self.kind == "text":
            return Column(name, np.full(len(self._codes), math.nan))
        numbers = np.frombuffer(self._numbers, np.float64)
        return Column(name, numbers, boolean=self.kind == "truth")


def text_column(name: str, cells: Iterable[str | None], date: bool = False) -> Column:
    """A column of text from its cells, None where one is missing."""
    texts = Texts()
    codes = np.fromiter((-1 if cell is None else texts[cell] for cell in cells), np.int32)
    if not texts.index:
        return Column(name, np.full(len(codes), math.nan), date=date)
    return Column(name, values=tuple(texts.index), codes=codes, date=date)


def _meaning(text: str) -> tuple[str, float]:
    """(what a cell is: "number", "truth", "text" or "" for a gap; its number)."""
    if is_missing(text):
        return "", math.nan
    if (value := number(text)) is not None:
        return "number", value
    if (value := truth(text)) is not None:
        return "truth", value
    return "" if is_gap(text) else "text", math.nan


def _are_finite(block: array.array[float]) -> bool:
    if len(block) < SHORT:
        return math.isfinite(sum(block))
    return bool(np.isfinite(np.frombuffer(block)).all())


def _are_plain(cells: Sequence[str]) -> bool:
    """Whether no cell has what float() takes and our rules do not: 1_000, digits of any script."""
    text = "".join(cells)
    return "_" not in text and text.isascii()
