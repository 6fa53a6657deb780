"""Data frames: the same tables as the files that they write, whatever the library calls a type."""

from __future__ import annotations

import datetime
import io
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet.data.frames import frame_table, is_frame, is_series, series_texts, series_values
from xpnet.data.table import Column
from xpnet.data.table_files import read_table
from xpnet.errors import DataError

pd: Any = pytest.importorskip("pandas", reason="pandas is not installed")
pl: Any = pytest.importorskip("polars", reason="polars is not installed")
pa: Any = pytest.importorskip("pyarrow", reason="PyArrow is not installed")

DAYS = [datetime.date(2020, 1, 1), None, datetime.date(2020, 1, 3)]


def cells(column: Column) -> list[Any]:
    if column.numbers is not None:
        values = [None if math.isnan(v) else v for v in column.numbers.tolist()]
        return [bool(v) if column.boolean and v is not None else v for v in values]
    assert column.codes is not None
    return [None if c < 0 else column.values[c] for c in column.codes.tolist()]


def arrow(values: list[Any], dtype: Any) -> Any:
    return pd.Series(values, dtype=pd.ArrowDtype(dtype))


THIRD = Decimal("0.3333333333333333333")
SERIES: list[tuple[Callable[[], Any], list[Any]]] = [
    (lambda: pd.Series([1, 2, 3]), [1, 2, 3]),
    (lambda: pd.Series([1.5, None, 3]), [1.5, None, 3]),
    (lambda: pd.Series(np.float16([1.5, np.nan, 3])), [1.5, None, 3]),
    (lambda: pd.Series(np.float32([0.1, 2, 3])), [float(np.float32(0.1)), 2, 3]),
    (lambda: pd.Series(np.uint64([2**64 - 1, 1, 2])), [2.0**64, 1, 2]),
    (lambda: pd.Series([2**53 + 1, None, 3], dtype="Int64"), [2.0**53, None, 3]),
    (lambda: pd.Series([1.5, None, math.nan], dtype="Float64"), [1.5, None, None]),
    (lambda: pd.Series([True, False, True]), [True, False, True]),
    (lambda: pd.Series([True, None, False], dtype="boolean"), [True, None, False]),
    (lambda: pd.Series([True, None, False], dtype=object), [True, None, False]),
    (lambda: pd.Series([1, None, 2.5], dtype=object), [1, None, 2.5]),
    (lambda: pd.Series([THIRD, None, Decimal(2)], dtype=object), [1 / 3, None, 2]),
    (lambda: pd.Series(["a", None, " b "]), ["a", None, "b"]),
    (lambda: pd.Series(["a", None, math.nan], dtype=object), ["a", None, None]),
    (lambda: pd.Series(["a", pd.NA, "NA"], dtype="string"), ["a", None, None]),
    (lambda: pd.Series(["1", "2", "x"]), ["1", "2", "x"]),
    (lambda: pd.Series(["01", "2", "3"]), ["01", "2", "3"]),
    (lambda: pd.Series([None, None, None], dtype=object), [None, None, None]),
    (lambda: pd.Series([None, None, None], dtype="string"), [None, None, None]),
    (lambda: pd.Series(["x", None, "y"], dtype="category"), ["x", None, "y"]),
    (lambda: pd.Series(pd.Categorical([2, None, 1])), ["2", None, "1"]),
    (lambda: pd.Series(pd.arrays.SparseArray([0, 0, 1.5])), [0, 0, 1.5]),
    (lambda: arrow([1, None, 3], pa.int64()), [1, None, 3]),
    (lambda: arrow([1.5, None, 3.0], pa.float32()), [1.5, None, 3]),
    (lambda: arrow([True, None, False], pa.bool_()), [True, None, False]),
    (lambda: arrow(["a", None, "b"], pa.string()), ["a", None, "b"]),
    (lambda: arrow(["a", "b", "a"], pa.dictionary(pa.int32(), pa.string())), ["a", "b", "a"]),
    (lambda: arrow([THIRD, None, Decimal(2)], pa.decimal128(30, 19)), [1 / 3, None, 2]),
    (lambda: pl.Series([1, None, 3]), [1, None, 3]),
    (lambda: pl.Series([1.5, math.nan, None]), [1.5, None, None]),
    (lambda: pl.Series([True, None, False]), [True, None, False]),
    (lambda: pl.Series(["a", None, "?"]), ["a", None, None]),
    (lambda: pl.Series(["a", None, "b"], dtype=pl.Categorical), ["a", None, "b"]),
    (lambda: pl.Series(["a", None, "b"], dtype=pl.Enum(["b", "a"])), ["a", None, "b"]),
    (lambda: pl.Series([THIRD, None, Decimal(2)]), [1 / 3, None, 2]),
    (lambda: pl.Series([2**100, None, 1], dtype=pl.Int128), [2.0**100, None, 1]),
    (lambda: pl.Series([None, None, None]), [None, None, None]),
    (lambda: pa.chunked_array([pa.array([1, None, 3])]), [1, None, 3]),
    (lambda: pa.chunked_array([pa.array(np.float16([1, 2, 3]))]), [1, 2, 3]),
    (lambda: pa.chunked_array([pa.array(["a"]), pa.array(["b", None])]), ["a", "b", None]),
]


def frame_of(series: Any, name: Any = "c") -> Any:
    """A frame of one column, in the library of the series."""
    if isinstance(series, pl.Series):
        return pl.DataFrame({name: series})
    if isinstance(series, pd.Series):
        return pd.DataFrame({name: series})
    return pa.table({name: series})


@pytest.mark.parametrize(("make", "expected"), SERIES)
def test_every_type_of_column(make: Callable[[], Any], expected: list[Any]) -> None:
    frame = frame_of(make())
    assert is_frame(frame)
    assert not is_series(frame)
    table = frame_table(frame)
    assert cells(table["c"]) == expected
    assert table["c"].boolean == any(isinstance(v, bool) for v in expected)
    if (numbers := table["c"].numbers) is not None:
        assert numbers.dtype == np.float64
    assert table.place(1) == "x: row 1"


@pytest.mark.parametrize(("make", "expected"), SERIES)
def test_every_type_of_label(make: Callable[[], Any], expected: list[Any]) -> None:
    series = make()
    assert is_series(series)
    texts = series_texts(series)
    assert [text == "" for text in texts][:2] == [v is None for v in expected][:2]
    if None in expected and "NA" not in texts and "?" not in texts:
        row = expected.index(None)
        for given in (series, frame_of(series)):
            with pytest.raises(DataError, match=f"t: row {row}: got a missing label"):
                series_values(given)
    elif None not in expected:
        got = series_values(series)
        assert [*got] == expected
        if isinstance(expected[0], str):
            assert type(got) is list
        else:
            assert isinstance(got, np.ndarray)
            assert (got.dtype.kind == "b") == isinstance(expected[0], bool)
        np.testing.assert_array_equal(got, series_values(frame_of(series)))


def test_whole_labels_stay_whole() -> None:
    for series in (
        pd.Series([2**53 + 1, 3]), pd.Series([2**53 + 1, 3], dtype="Int64"),
        pl.Series([2**53 + 1, 3]), pa.chunked_array([[2**53 + 1, 3]]),
        arrow([2**53 + 1, 3], pa.int64()),
    ):  # fmt: skip
        got = series_values(series)
        assert isinstance(got, np.ndarray)
        assert got.dtype == np.int64
        assert got[0] == 2**53 + 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: pd.Series(pd.to_datetime(DAYS)),
        lambda: pd.Series(DAYS, dtype=object),
        lambda: pd.Series(pd.to_timedelta([1, None, 3], unit="s")),
        lambda: arrow(DAYS, pa.date32()),
        lambda: pl.Series(DAYS),
        lambda: pl.Series(DAYS).cast(pl.Datetime),
        lambda: pl.Series([datetime.timedelta(1), None, datetime.timedelta(2)]),
        lambda: pl.Series([datetime.time(1), None, datetime.time(2)]),
        lambda: pa.chunked_array([pa.array(DAYS)]),
    ],
)
def test_dates_are_marked(make: Callable[[], Any]) -> None:
    column = frame_table(frame_of(make()))["c"]
    assert column.date
    assert column.missing.tolist() == [False, True, False]
    assert len(column.values) == 2
    with pytest.raises(DataError, match="t: got dates or times, expected labels"):
        series_values(make())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pd.DataFrame({"a": [1.0, -math.inf]}), "x: row 1, column a: got -inf, expected"),
        (lambda: pl.DataFrame({"a": [1.0, math.inf]}), "x: row 1, column a: got inf, expected"),
        (lambda: pd.DataFrame({"a": [Decimal("1e999"), 1]}), "column a: got inf"),
        (lambda: pd.DataFrame({"a": [1, "b"]}), "column a has values of several .*int, str"),
        (lambda: pd.DataFrame({"a": [True, 2]}, dtype=object), "of several .*bool, int"),
        (lambda: pd.DataFrame({"a": [[1], [2]]}), "column a has values .* list"),
        (lambda: pd.DataFrame({"a": [1j, 2]}), "column a has values .* complex"),
        (lambda: pd.DataFrame({"a": pd.interval_range(0, 3)}), "column a has values .* Interval"),
        (lambda: pl.DataFrame({"a": [[1], [2]]}), r"column a has values of type List\(Int64\)"),
        (lambda: pl.DataFrame({"a": [{"b": 1}]}), r"column a has values of type Struct"),
        (lambda: pl.DataFrame({"a": [b"1"]}), r"column a has values of type Binary"),
        (lambda: pa.table({"a": [[1]]}), r"column a has values of type List"),
        (lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]), "x: has two columns .*'?a"),
        (lambda: pd.DataFrame([[1, 2]], columns=[0, "0"]), "x: has two columns named 0"),
        (lambda: pd.DataFrame([[1, 2]], columns=["a", "a "]), "x: has two columns named a"),
        (lambda: pa.table([[1], [2]], ["a", "a"]), "x: has two columns .*'?a"),
        (lambda: pd.DataFrame([[1]], columns=[None]), "x: column 0 has no name"),
        (lambda: pd.DataFrame([[1]], columns=[math.nan]), "x: column 0 has no name"),
        (lambda: pl.DataFrame({"": [1]}), "x: column 0 has no name"),
        (
            lambda: pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])),
            r"x: column 0 is named \('a', 'b'\), on several levels",
        ),
        (lambda: pl.LazyFrame({"a": [1]}), r"x: got LazyFrame, .* x.collect\(\)"),
        (lambda: pd.DataFrame({"a": []}), "x: got no rows"),
        (lambda: pd.DataFrame(), "x: got no columns"),
    ],
)
def test_what_no_rule_covers_is_refused(make: Callable[[], Any], words: str) -> None:
    frame = make()
    assert is_frame(frame)
    with pytest.raises(DataError, match=words) as caught:
        frame_table(frame)
    assert str(caught.value).isprintable()


def test_what_is_no_frame() -> None:
    for x in (np.ones((2, 2)), [[1]], (1,), "ab", None, 5, {"a": [1]}, object(), pa.scalar(1)):
        assert not is_frame(x)
        assert not is_series(x)


def test_names_become_text() -> None:
    frame = pd.DataFrame([[1, 2, 3]], columns=[0, " b\nc ", 1.5], index=["r"])
    assert frame_table(frame).names == ("0", "b c", "1.5")
    with pytest.raises(DataError, match=r"t: got 3 columns, expected one: 0, b c, 1.5"):
        series_values(frame)


def mixed(seed: int, count: int = 50) -> dict[str, list[Any]]:
    """Columns of every kind that a CSV file keeps, a tenth of each missing."""
    rng = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {
        "float": (rng.standard_normal(count) * 10.0 ** rng.integers(-9, 9, count)).tolist(),
        "whole": rng.integers(-99, 99, count).tolist(),
        "large": rng.integers(2**60, 2**62, count).tolist(),
        "text": rng.choice(["red", "dark blue", 'a "b", c', "ü\nv"], count).tolist(),
        "codes": rng.choice(["01", "1E2", "x"], count).tolist(),
        "truth": rng.choice([True, False], count).tolist(),
        "nothing": [None] * count,
    }
    return {
        name: [None if rng.random() < 0.1 else value for value in values]
        for name, values in columns.items()
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("library", ["pandas", "pandas nullable", "polars", "pyarrow"])
def test_a_frame_is_the_table_that_it_writes(tmp_path: Path, seed: int, library: str) -> None:
    import pyarrow.csv

    data = mixed(seed)
    path = tmp_path / "f.csv"
    if library == "polars":
        frame = pl.DataFrame(data)
        frame.write_csv(path)
    elif library == "pyarrow":
        frame = pa.table(data)
        pyarrow.csv.write_csv(frame, path)
    else:
        data["large"] = [2**60 if v is None else v for v in data["large"]]  # pandas: float64
        frame = pd.DataFrame(data)
        if "nullable" in library:
            frame = frame.convert_dtypes()
        frame.to_csv(path, index=False)
    read = read_table(path, label_column="").table
    table = frame_table(frame)
    assert table.names == read.names
    for ours, theirs in zip(table.columns, read.columns, strict=True):
        assert cells(ours) == cells(theirs), ours.name
        assert (ours.values, ours.boolean) == (theirs.values, theirs.boolean)


# -- Parquet -------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["pyarrow", "polars"])
def test_parquet(tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpnet.data.table_files.PARQUET", (library,))
    frame = pd.DataFrame(
        {"id": [7, 8, 9], "a": [1.5, None, 2], "b": ["u", "v", None], "y": ["p", None, "q"]}
    )
    frame.to_parquet(tmp_path / "f.parquet", index=False)
    file = read_table(tmp_path / "f.parquet", id_column="id", drop=["b"])
    assert file.table.names == ("a",)
    assert cells(file.table["a"]) == [1.5, None, 2]
    assert file.labels == ["p", "", "q"]
    assert file.ids == ["7", "8", "9"]
    assert (file.label_column, file.id_column) == ("y", "id")
    assert file.table.place(2) == f"{tmp_path / 'f.parquet'}: row 2"
    bare = read_table(tmp_path / "f.parquet", label_column="").table
    assert bare.names == ("id", "a", "b", "y")
    frame.drop(columns="id").set_axis(list("rst")).to_parquet(tmp_path / "g.parquet")
    file = read_table(tmp_path / "g.parquet")
    assert file.table.names == ("a", "b")
    assert "left out column __index_level_0__" in file.notes[0]
    with pytest.raises(DataError, match="has no column 'z'; it has id, a, b, y"):
        read_table(tmp_path / "f.parquet", drop=["z"])
    content = bytearray((tmp_path / "f.parquet").read_bytes())
    for damaged in (b"", b"PAR1", content[:-9], content[: len(content) // 2], b"x" * 100):
        (tmp_path / "d.parquet").write_bytes(damaged)
        with pytest.raises(
            DataError, match=r"d\.parquet: is not Parquet that can be read"
        ) as caught:
            read_table(tmp_path / "d.parquet")
        assert str(caught.value).isprintable()
    pl.DataFrame({"a": [0]}).select(pl.col("a").repeat_by(1_000_000).explode()).write_parquet(
        tmp_path / "bomb.parquet"
    )
    monkeypatch.setattr("xpnet.data.table_files.available_memory", lambda: 1_000_000)
    with pytest.raises(DataError, match="is larger than the free memory"):
        read_table(tmp_path / "bomb.parquet", label_column="")


def test_parquet_needs_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr("xpnet.data.table_files.PARQUET", ("no_such_library",))
    with pytest.raises(DataError, match=r"pip install 'xpnet\[parquet\]'"):
        read_table(tmp_path / "f.parquet")


def test_io_is_not_needed() -> None:
    """A frame that reads like a file: pandas writes it into memory, and it comes back."""
    frame = pd.read_csv(io.StringIO("a,b\n1,x\n,y\n"))
    table = frame_table(frame)
    assert cells(table["a"]) == [1, None]
    assert cells(table["b"]) == ["x", "y"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (lambda: pa.array(["b", "a"]), ["b", "a"]),
        (lambda: pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
        (lambda: pa.array([3, 4]), [3, 4]),
        (lambda: pd.Index(["b", "a"]), ["b", "a"]),
        (lambda: pd.RangeIndex(2), [0, 1]),
        (lambda: pd.Categorical(["b", "a"], ["a", "b", "unused"]), ["b", "a"]),
        (lambda: pd.array([3, 4], dtype="Int64"), [3, 4]),
    ],
)
def test_values_of_a_series_without_the_series(
    labels: Callable[[], Any], expected: list[Any]
) -> None:
    assert is_series(labels())
    assert list(series_values(labels())) == expected


def test_a_piece_of_an_arrow_table() -> None:
    piece = pa.record_batch({"a": pa.array([1.5, None]), "b": pa.array(["u", "v"])})
    assert is_frame(piece)
    assert [cells(column) for column in frame_table(piece).columns] == [[1.5, None], ["u", "v"]]


def test_what_no_float64_and_no_file_could_hold() -> None:
    for values, words in (
        ([1, 10**400], "row 1, column a: got inf, expected a finite"),
        ([-(10**400), 1], "row 0, column a: got -inf, expected a finite"),
        (["\ud800", "b"], "x: column a is not text in UTF-8"),
    ):
        with pytest.raises(DataError, match=words):
            frame_table(pd.DataFrame({"a": pd.Series(values, dtype=object)}))
    frame = pd.DataFrame(np.ones((2, 1)), columns=pd.Index(["\ud800"], dtype=object))
    with pytest.raises(DataError, match="x: the name of column 0 is not text in UTF-8") as error:
        frame_table(frame)
    assert str(error.value).isprintable()
