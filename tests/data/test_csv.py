"""Tables in text: what a column is, which column is what, and what is refused."""

from __future__ import annotations

import csv as standard
import gzip
import io
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet.data.cells import is_missing
from xpnet.data.table import Column, TableFile
from xpnet.data.table_files import read_table
from xpnet.errors import DataError, UsageError


def read(folder: Path, text: str, **options: Any) -> TableFile:
    (folder / "f.csv").write_text(text, encoding="utf-8")
    return read_table(folder / "f.csv", **options)


def cells(column: Column) -> list[Any]:
    """The column's values as a list, None where one is missing."""
    if column.numbers is not None:
        values = [None if math.isnan(v) else v for v in column.numbers.tolist()]
        return [bool(v) if column.boolean and v is not None else v for v in values]
    assert column.codes is not None
    return [None if c < 0 else column.values[c] for c in column.codes.tolist()]


def contents(file: TableFile) -> dict[str, list[Any]]:
    return {column.name: cells(column) for column in file.table.columns}


TITANIC = """Name,Sex,Age,Alone,Ticket,Survived
"Braund, Mr. Owen",male,22,True,21171,0
"Heikkinen, Miss",female,,FALSE,PC 17,1
"Moran, Mr. J",male,-,true,330877,0

"Allen, Mr. W", male ,35.5,NA,NA,0
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_of_numbers_texts_and_truths(tmp_path: Path, end: str) -> None:
    (tmp_path / "t.csv").write_bytes(TITANIC.replace("\n", end).encode())
    file = read_table(tmp_path / "t.csv", id_column="Name")
    assert contents(file) == {
        "Sex": ["male", "female", "male", "male"],
        "Age": [22, None, None, 35.5],
        "Alone": [True, False, True, None],
        "Ticket": ["21171", "PC 17", "330877", None],
    }
    assert file.labels == ["0", "1", "0", "0"]
    assert file.label_column == "Survived"
    assert file.ids == ["Braund, Mr. Owen", "Heikkinen, Miss", "Moran, Mr. J", "Allen, Mr. W"]
    assert file.id_column == "Name"
    assert file.table.place(3) == f"{tmp_path / 't.csv'}: line 6"
    assert file.table["Sex"].codes is not None
    assert file.table["Sex"].codes.dtype == np.int32


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("1 2 3", [1, 2, 3]),
        ("1  NA ? nan -NaN null #N/A", [1, *[None] * 7]),
        ("1 none -inf - +Infinity ...", [1, *[None] * 5]),
        ("a none - NA", ["a", "none", "-", None]),
        ("+ - +", ["+", "-", "+"]),
        ("none NA", ["none", None]),
        ("NA NA", [None, None]),
        ("1 2 x", ["1", "2", "x"]),
        ("01 1.0 x", ["01", "1.0", "x"]),
        ("true False NA -", [True, False, None, None]),
        ("true 1", ["true", "1"]),
        ("yes no", ["yes", "no"]),
        ("1e999 x", ["1e999", "x"]),
        ("1,5 x", ["1,5", "x"]),
        ("0x10 2", ["0x10", "2"]),
        ("1e0003 2", [1000, 2]),
        ("1e-9999 NA", [0, None]),
    ],
)
@pytest.mark.parametrize("filler", [0, 300])
def test_a_column_is_what_all_its_cells_are(
    tmp_path: Path, column: str, expected: list[Any], filler: int
) -> None:
    """In one block, and where the kind shows only after blocks of numbers or gaps."""
    parts = column.split(" ")
    above = [parts[0]] * filler
    rows = "".join(f'{i},"{cell}",{"z" * 999}\n' for i, cell in enumerate([*above, *parts]))
    got = cells(read(tmp_path, f"a,b,c\n{rows}", label_column="").table["b"])
    assert got == [expected[0]] * filler + expected


@pytest.mark.parametrize("seed", range(20))
def test_columns_agree_with_the_rules_cell_by_cell(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random tables in blocks of three rows, against the rules written down naively."""
    monkeypatch.setattr("xpnet.data.csv.CHUNK", 40)
    monkeypatch.setattr("xpnet.data.csv.BLOCK_ROWS", 3)
    monkeypatch.setattr("xpnet.data.csv.BLOCK_CELLS", 1)
    rng = np.random.default_rng(seed)
    kinds = (
        ["1", "-2.5", "1e3", " 7 "],
        ["1", "2", "", "NA", "-", "inf"],
        ["true", "False", "", "?"],
        ["a", "b ", "", "none"],
        ["", "NA"],
        ["-", "none", ""],
        ["1", "x", "", "true", "-"],
    )
    table = [list(rng.choice(kinds[rng.integers(len(kinds))], 17)) for _ in range(8)]
    text = io.StringIO()
    standard.writer(text).writerows(zip(*table, strict=True))
    got = read(tmp_path, text.getvalue(), header="no", label_column="").table
    for column, expected in zip(got.columns, table, strict=True):
        assert cells(column) == naive([str(cell).strip() for cell in expected]), expected


def naive(column: list[str]) -> list[Any]:
    present = [c for c in column if not is_missing(c)]
    words = {"-", "none", "inf"}
    for known in ({"1": 1.0, "2": 2.0, "-2.5": -2.5, "1e3": 1000.0, "7": 7.0},
                  {"true": True, "False": False}):  # fmt: skip
        if all(c in known or c in words for c in present) and (
            any(c in known for c in present) or not present
        ):
            return [known.get(c) for c in column]
    return [None if is_missing(c) else c for c in column]


def test_texts_are_coded_in_the_order_in_which_they_come(tmp_path: Path) -> None:
    rows = "".join(f"{'abc'[i % 3]},1\n" for i in range(30))
    assert read(tmp_path, "k,y\n" + rows).table["k"].values == ("a", "b", "c")
    column = read(tmp_path, "b,1\n" + rows, header="no").table["0"]
    assert column.values == ("b", "a", "c")
    assert cells(column) == ["b", *"abc" * 10]
    column = read(tmp_path, "NA,1\n" + rows, header="no").table["0"]
    assert column.values == ("a", "b", "c")
    assert cells(column) == [None, *"abc" * 10]


@pytest.mark.parametrize("first", ["x", "1", "true", "-", "", "1e999"])
@pytest.mark.parametrize("below", ["1", "x", "true", "-", "NA"])
def test_a_first_row_counts_as_any_other(tmp_path: Path, first: str, below: str) -> None:
    text = f"{first},0\n{below},1\n{below},1\n"
    named = f"a,y\n{text}"
    if first == "1e999" and below in ("1", "-", "NA"):
        with pytest.raises(DataError, match="line 1, column 0: got a number too large"):
            read(tmp_path, text, header="no")
        return
    bare = read(tmp_path, text, header="no")
    assert contents(bare)["0"] == contents(read(tmp_path, named, header="yes"))["a"]
    assert bare.labels == ["0", "1", "1"]
    assert not bare.table.named
    assert list(bare.table.lines or []) == [1, 2, 3]


# -- Which column is what ------------------------------------------------------------------


WIDE = "id,a,b,c,y\nr1,1,2,u,0\nr2,3,4,v,1\n"


@pytest.mark.parametrize(
    ("options", "features", "label"),
    [
        ({}, "id a b c", "y"),
        ({"label_column": ""}, "id a b c y", ""),
        ({"label_column": "c"}, "id a b y", "c"),
        ({"label_column": "0"}, "a b c y", "id"),
        ({"drop": ["y"]}, "id a b", "c"),
        ({"drop": ["-1", "id"]}, "a b", "c"),
        ({"only": ["b", "a"]}, "a b", "y"),
        ({"only": ["b", "y"]}, "b", "y"),
        ({"only": ["1", "-2"]}, "a c", "y"),
        ({"id_column": "id"}, "a b c", "y"),
        ({"id_column": "-1"}, "id a b", "c"),
        ({"id_column": "id", "drop": ["b"], "label_column": "a"}, "c y", "a"),
        ({"features": ["a", "c"]}, "a c", "y"),
        ({"features": ["c", "y"]}, "c y", ""),
        ({"features": ["a"], "label_column": "nowhere"}, "a", ""),
        ({"features": ["a"], "label_column": "c"}, "a", "c"),
        ({"features": ["a", "zz"]}, "id a b c", "y"),
    ],
)
def test_roles(tmp_path: Path, options: dict[str, Any], features: str, label: str) -> None:
    file = read(tmp_path, WIDE, **options)
    assert file.table.names == tuple(features.split())
    assert file.label_column == label
    assert (file.labels is None) == (label == "")
    assert (file.ids is None) == ("id_column" not in options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_column": "C1"}, r"has no column 'C1'; it has id, a, b, c, y \(did you mean 'c'?"),
        ({"drop": ["ida"]}, r"has no column 'ida'; .* \(did you mean 'id'\?\)"),
        ({"only": ["A "]}, r"did you mean 'a'\?"),
        ({"id_column": "7"}, "has no column '7'; it has id, a, b, c, y$"),
        ({"drop": ["y"], "label_column": "y"}, "column y is the label and is left out"),
        ({"id_column": "y", "label_column": "y"}, "column y is the label and the ids"),
        ({"id_column": "y", "drop": ["y"]}, "column y is the ids and is left out"),
        ({"drop": ["id", "a", "b", "c"]}, "no column that is left"),
    ],
)
def test_impossible_roles(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(tmp_path, WIDE, **options)
    with pytest.raises(UsageError, match="header is 'maybe'; expected auto, yes, no"):
        read(tmp_path, WIDE, header="maybe")


def test_a_file_without_names_is_read_by_place(tmp_path: Path) -> None:
    text = "5,7.5,red,0\n6,8.5,blue,1\n7,9.5,red,0\n"
    file = read(tmp_path, text, width=3)
    assert file.table.names == ("0", "1", "2")
    assert file.label_column == "3"
    assert read(tmp_path, text, width=4).labels is None
    assert read(tmp_path, text, width=4, label_column="y").labels is None
    assert read(tmp_path, text, drop=["0"], width=2).table.names == ("1", "2")
    with pytest.raises(DataError, match="got 4 columns, expected 7 features"):
        read(tmp_path, text, width=7)
    with pytest.raises(DataError, match="it has numbers 0 to 3 and no header line"):
        read(tmp_path, text, drop=["age"])
    named = read(tmp_path, "b,a,y\n1,2,0\n", features=["a", "b"], width=2, label_column="t")
    assert named.table.names == ("b", "a")


def test_an_index_without_a_name_is_left_out(tmp_path: Path) -> None:
    for start in (0, 1):
        rows = "".join(f'"{i + start}",{i % 3}.5,{i % 2}\n' for i in range(9))
        file = read(tmp_path, ',"a","y"\n' + rows)
        assert file.table.names == ("a",)
        assert file.notes == (
            f"{tmp_path / 'f.csv'}: left out column 0, which has no name and counts the rows",
        )
        assert read(tmp_path, ",0,1\n" + rows).label_column == "1"
        assert not read(tmp_path, ',"a","y"\n' + rows, drop=["0"]).notes
        file = read(tmp_path, ',"a","y"\n' + rows, id_column="0")
        assert file.ids == [str(i + start) for i in range(9)]
        assert file.id_column == "0"
    with pytest.raises(DataError, match=r"column 0 has no name; .* --drop 0"):
        read(tmp_path, ",a,y\n5,1,0\n3,2,1\n")
    with pytest.raises(DataError, match=r"column 2 has no name; .* --drop 2"):
        read(tmp_path, "a,y,\n5,1,\n3,2,\n")
    assert read(tmp_path, "a,y,\n5,1,\n3,2,\n", drop=["2"]).label_column == "y"


def test_names_that_are_there_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"two columns named a; .*--drop NUMBER"):
        read(tmp_path, "a,a,y\n1,2,0\n")
    assert read(tmp_path, "a,a,y\n1,2,0\n", drop=["1"]).table.names == ("a",)


# -- Header lines --------------------------------------------------------------------------


def rows(*columns: str, count: int = 40) -> str:
    """Rows of columns: a format of i, or words to repeat."""
    made = []
    for i in range(count):
        row = [c.format(i=i, f=i + 0.5) if "{" in c else c.split()[i % len(c.split())]
               for c in columns]  # fmt: skip
        made.append(",".join(row) + "\n")
    return "".join(made)


@pytest.mark.parametrize(
    ("first", "below"),
    [
        ("name,sex,age,y", rows("n{i}", "m f", "{i}", "0 1")),
        ("name,sex,kind", rows("n{i}", "m f", "u v")),  # all text, some of it again and again
        ("sex,smoker,y", rows("m f", "true false", "0 1")),
        ("true,sex,y", rows("1 2", "m f", "u v")),
        ("city,area,2019,y", rows("n{i}", "{i}", "{f}", "0 1")),
        (",color,size,kind", rows("{i}", "red blue", "s m l", "u v")),
        ("empty,color,y", rows("NA", "red blue", "u v")),
    ],
)
def test_a_header_above_texts(tmp_path: Path, first: str, below: str) -> None:
    file = read(tmp_path, f"{first}\n{below}")
    assert file.table.named
    assert (*file.table.names, file.label_column) == tuple(first.strip(",").split(","))
    assert len(file.table) == 40
    for header, count in (("yes", 40), ("no", 41)):
        assert len(read(tmp_path, f"{first}\n{below}", header=header).table) == count


@pytest.mark.parametrize(
    ("first", "below"),
    [
        ("n77,m,22,1", rows("n{i}", "m f", "{i}", "0 1")),
        ("m,u", rows("m f", "u v")),
        ("m,true,0", rows("m f", "true false", "0 1")),
        ("red,,1.5,u", rows("red blue", "s m", "{f}", "u v")),
        (",red,1.5,u", rows("{i}", "red blue", "{f}", "u v")),
        ("22,1.5,true,u", rows("{i}", "{f}", "true false", "u v")),
        ("n77,1.5,3,u", rows("n{i}", "{f}", "{i}", "u v")),
    ],
)
def test_a_row_above_texts(tmp_path: Path, first: str, below: str) -> None:
    file = read(tmp_path, f"{first}\n{below}")
    assert not file.table.named
    assert len(file.table) == 41


@pytest.mark.parametrize(
    ("first", "below"),
    [
        ("name,comment,kind", rows("n{i}", "c{i}", "k{i}")),
        ("city,2019,2020,2021", rows("n{i}", "{i}", "{i}", "{i}")),
        ("x77,abc,5,u", rows("x{i}", "{i}", "{i}", "u v")),
    ],
)
def test_a_first_line_in_doubt(tmp_path: Path, first: str, below: str) -> None:
    with pytest.raises(DataError, match=r"line 1: is it a header .* --header yes or --header no"):
        read(tmp_path, f"{first}\n{below}")
    assert read(tmp_path, f"{first}\n{below}", header="yes").table.named
    assert not read(tmp_path, f"{first}\n{below}", header="no").table.named
    name = first.split(",")[0]
    assert read(tmp_path, f"{first}\n{below}", id_column=name).ids == [
        line.split(",")[0] for line in below.splitlines()
    ]


# -- What is refused, and what is noted ----------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,y\n1,0\n1e999,1\n2,0\n", "line 3, column a: got a number too large for a float64"),
        ("a,y\n1,0\n-1e400,1\n", "line 3, column a: got a number too large"),
        ("a,y\n1,0\n\n1,2,3\n", "line 4: got 3 columns, expected 2"),
        ("a,b;y\n1,5;0\n2,5;1\n", "line 2, column a,b: got '1,5', .*a decimal comma"),
        ("a;y\n1,5;0\nNA;1\n-;0\n", "line 2, column a: got '1,5', .*a decimal comma"),
        ("a,y\n1,0\n1_000,1\n", "line 3, column a: got '1_000', .*without _"),
        ("a,y\n1,0\n٣,1\n", "line 3, column a: got '٣', expected a finite number"),
        ("a,y\n", "got no rows"),
        ("", "got no rows"),
        ("\n\n", "got no rows"),
        ("a\n1\n2\n", "got one column, .* separate them by comma"),
    ],
)
def test_what_no_rule_covers_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(tmp_path, text)


def test_one_text_among_many_numbers_is_noted(tmp_path: Path) -> None:
    file = read(tmp_path, "a,y\n" + rows("{i}.5", "0 1") + "2.O,1\n")
    assert file.notes == (
        f"{tmp_path / 'f.csv'}: line 42, column a: got '2.O' among 40 numbers, so the column is "
        "taken for text",
    )
    assert not read(tmp_path, "a,y\n" + rows("{i} 2A", "0 1")).notes


def test_gzipped_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = read(tmp_path, TITANIC)
    packed = gzip.compress(TITANIC.encode())
    for name in ("f.csv.gz", "f.tsv.gz", "f.csv"):
        (tmp_path / name).write_bytes(packed)
        assert contents(read_table(tmp_path / name)) == contents(plain)
    for damaged in (packed[:-20], packed[:40] + b"\xff\xff\xff" + packed[43:], packed + b"\x1f"):
        (tmp_path / "d.csv.gz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot be read|is not CSV in UTF-8"):
            read_table(tmp_path / "d.csv.gz")
    bomb = gzip.compress(b"1,2\n" * 1_000_000)
    (tmp_path / "bomb.csv.gz").write_bytes(bomb)
    for room in (100_000, 5_000_000):  # less than the text, less than the numbers
        monkeypatch.setattr("xpnet.data.csv.available_memory", lambda room=room: room)
        with pytest.raises(DataError, match="is larger than the free memory"):
            read_table(tmp_path / "bomb.csv.gz")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Input:
        def __init__(self, content: bytes) -> None:
            self.buffer = io.BytesIO(content)

    monkeypatch.setattr(sys, "stdin", Input(TITANIC.encode()))
    file = read_table("-")
    assert file.table.name == "standard input"
    assert file.labels == ["0", "1", "0", "0"]
    monkeypatch.setattr(sys, "stdin", Input(gzip.compress(TITANIC.encode())))
    assert read_table(Path("-")).labels == file.labels
    monkeypatch.setattr(sys, "stdin", Input(b""))
    with pytest.raises(DataError, match="standard input: got no rows"):
        read_table("-")
    monkeypatch.setattr(sys, "stdin", Input(TITANIC.encode()))
    monkeypatch.setattr("xpnet.data.csv.available_memory", lambda: 10)
    with pytest.raises(DataError, match="standard input: is larger than the free memory"):
        read_table("-")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="standard input: is closed"):
        read_table("-")
