"""The encoder of a table, against scikit-learn, pandas, and sums by hand."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from xpnet.data import Encoder, standardize
from xpnet.data.description import aligned
from xpnet.data.table import Column, Table
from xpnet.errors import DataError, UsageError


def text(name: str, cells: Sequence[str | None]) -> Column:
    """A column of text; None is missing."""
    values = tuple(dict.fromkeys(cell for cell in cells if cell is not None))
    codes = [-1 if cell is None else values.index(cell) for cell in cells]
    return Column(name, values=values, codes=np.array(codes, np.int32))


def numbers(name: str, cells: Sequence[float | None]) -> Column:
    return Column(name, np.array([np.nan if c is None else c for c in cells], np.float64))


def truth(name: str, cells: Sequence[bool | None]) -> Column:
    return Column(name, numbers(name, cells).numbers, boolean=True)


def table(*columns: Column, **options: Any) -> Table:
    return Table(columns, **options)


def titanic(n: int = 200, seed: int = 0) -> Table:
    """A table with a column of each kind, and some missing ones."""
    rng = np.random.default_rng(seed)
    ports = rng.choice(["S", "C", "Q", None], n, p=[0.7, 0.15, 0.1, 0.05])
    return table(
        Column("age", np.where(rng.random(n) < 0.2, np.nan, rng.uniform(0.4, 80, n).round(1))),
        text("sex", rng.choice(["male", "female"], n, p=[0.6, 0.4]).tolist()),
        Column("alone", (rng.random(n) < 0.6).astype(np.float64), boolean=True),
        text("port", ports.tolist()),
        Column("fare", rng.lognormal(3, 1, n)),
        name="titanic.csv",
        lines=range(2, n + 2),
    )


# -- What it makes ---------------------------------------------------------------------


def test_a_table_by_hand() -> None:
    train = table(
        numbers("age", [20, None, 40, 90]),
        truth("alone", [True, None, False, True]),
        text("sex", ["m", "f", "m", None]),
    )
    encoder = Encoder.of(train)
    assert encoder.names == (
        "age", "age missing", "alone", "alone missing", "sex = m", "sex = f", "sex missing",
    )  # fmt: skip
    assert encoder.width == 7
    assert encoder.columns == ("age", "alone", "sex")
    x = encoder.encode(train)
    assert x.tolist() == [
        [20, 0, 1, 0, 1, 0, 0],
        [40, 1, 1, 1, 0, 1, 0],
        [40, 0, 0, 0, 1, 0, 0],
        [90, 0, 1, 0, 0, 0, 1],
    ]
    assert x.dtype == np.float64
    assert x.flags.c_contiguous
    deviation = np.sqrt(((20 - 47.5) ** 2 + 2 * 7.5**2 + 42.5**2) / 4)
    np.testing.assert_allclose(encoder.scaling.shift, [47.5, 0, 0, 0, 0, 0, 0], rtol=1e-15)
    np.testing.assert_allclose(encoder.scaling.scale, [1 / deviation, *[1] * 6], rtol=1e-15)
    assert repr(encoder) == "<Encoder of 3 columns into 7 features>"


def test_against_scikit_learn() -> None:
    pytest.importorskip("sklearn", reason="compares with scikit-learn")
    from sklearn.impute import MissingIndicator, SimpleImputer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    train, test = titanic(300), titanic(100, seed=1)
    encoder = Encoder.of(train)
    x, names = encoder.encode(test), encoder.names

    def cells(t: Table, name: str) -> np.ndarray:
        column = t[name]
        if column.numbers is not None:
            return column.numbers[:, None]
        return np.array([[column.values[c] if c >= 0 else "missing"] for c in column.codes])

    def ours(*wanted: str) -> np.ndarray:
        return x[:, [names.index(name) for name in wanted]]

    imputer = SimpleImputer(strategy="median").fit(cells(train, "age"))
    np.testing.assert_array_equal(ours("age"), imputer.transform(cells(test, "age")))
    gaps = MissingIndicator().fit(cells(train, "age")).transform(cells(test, "age"))
    np.testing.assert_array_equal(ours("age missing"), gaps)
    for column in ("sex", "port"):
        one_hot = OneHotEncoder(sparse_output=False).fit(cells(train, column))
        found = [
            f"{column} missing" if value == "missing" else f"{column} = {value}"
            for value in one_hot.categories_[0]
        ]
        np.testing.assert_array_equal(ours(*found), one_hot.transform(cells(test, column)))
    shift, scale = encoder.scaling
    for name in ("age", "fare"):
        scaler = StandardScaler()
        scaler.fit(imputer.transform(cells(train, name)) if name == "age" else cells(train, name))
        i = names.index(name)
        np.testing.assert_allclose([shift[i], 1 / scale[i]], [scaler.mean_[0], scaler.scale_[0]])


def test_against_pandas() -> None:
    pandas = pytest.importorskip("pandas", reason="compares with pandas")
    train = titanic()
    port = train["port"]
    assert port.codes is not None
    series = pandas.Series([None if c < 0 else port.values[c] for c in port.codes])
    dummies = pandas.get_dummies(series, dummy_na=True, dtype=float)
    order = [*series.value_counts().index, np.nan]  # falling frequency
    encoder = Encoder.of(table(port))
    np.testing.assert_array_equal(encoder.encode(train), dummies[order].to_numpy())
    assert encoder.names[:3] == tuple(f"port = {value}" for value in order[:3])


def test_numbers_alone_are_left_as_they_are_and_scaled_as_standardize_does() -> None:
    x = np.random.default_rng(0).normal(5, 3, (5000, 7)) * 10.0 ** np.arange(7)
    encoder = Encoder.of(x)
    assert encoder.encode(x).tobytes() == x.tobytes()
    assert encoder.encode(x.tolist()).tobytes() == x.tobytes()
    for ours, theirs in zip(encoder.scaling, standardize(x), strict=True):
        assert ours.tobytes() == theirs.tobytes()
    shift, scale = Encoder.of(x, standardize=False).scaling
    assert shift.tolist() == [0.0] * 7
    assert scale.tolist() == [1.0] * 7


def test_the_median_of_huge_numbers_is_finite() -> None:
    column = numbers("a", [1.7e308, 1.6e308, None])
    x = Encoder.of(table(column), standardize=False).encode(table(column))
    assert x[2].tolist() == [1.7e308 / 2 + 1.6e308 / 2, 1.0]


def test_categories_come_by_frequency_then_by_name() -> None:
    encoder = Encoder.of(table(text("a", [*"ddbbbca"])))
    assert encoder.names == ("a = b", "a = d", "a = a", "a = c")


def test_rare_categories_share_a_feature() -> None:
    cells = [f"c{i:02}" for i in range(12) for _ in range(20 - i)]
    encoder = Encoder.of(table(text("a", cells)), most=10)
    assert encoder.names == (*(f"a = c{i:02}" for i in range(10)), "a = other")
    x = encoder.encode(table(text("a", ["c00", "c10", "c11", "new"])))
    assert np.argmax(x, axis=1).tolist() == [0, 10, 10, 10]
    assert x.sum() == 4
    assert Encoder.of(table(text("a", cells)), most=12).width == 12


def test_a_column_of_many_categories() -> None:
    """In a second; a search of each among all takes minutes."""
    values = tuple(f"c{i}" for i in range(100_000))
    codes = np.tile(np.arange(100_000, dtype=np.int32), 2)
    encoder = Encoder.of(table(Column("city", values=values, codes=codes)), most=3)
    assert encoder.names == ("city = c0", "city = c1", "city = c10", "city = other")


def test_names_are_unique_whatever_the_user_chose() -> None:
    train = table(
        numbers("a", [1, None]),
        numbers("a missing", [1, 2]),
        text("b", ["x = y", "other"]),
        text("b = x", ["y", "z"]),
    )
    assert Encoder.of(train, most=1).names == (
        "a", "a missing (2)", "a missing",
        "b = other", "b = other (2)", "b = x = y", "b = x = other",
    )  # fmt: skip
    assert len(set(Encoder.of(train).names)) == Encoder.of(train).width


# -- What carries nothing --------------------------------------------------------------


def test_columns_that_carry_nothing() -> None:
    train = table(
        numbers("empty", [None] * 3),
        text("same", ["x"] * 3),
        truth("no", [False] * 3),
        numbers("constant", [7] * 3),
        text("some", ["x", None, "x"]),
    )
    encoder = Encoder.of(train)
    assert encoder.names == ("constant", "some = x", "some missing")
    shift, scale = encoder.scaling
    assert ((encoder.encode(train) - shift) * scale)[:, 0].tolist() == [0.0] * 3
    assert encoder.notes == (
        "column 'empty' is left out: all missing",
        "column 'same' is left out: always 'x'",
        "column 'no' is left out: always false",
    )
    # They are not needed later.
    assert encoder.encode(table(train["constant"], train["some"])).shape == (3, 3)


def test_a_table_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"x: has no column to learn from: 'a' \(always 'x'\)"):
        Encoder.of(table(text("a", ["x", "x"])))
    with pytest.raises(DataError, match="x: has no rows"):
        Encoder.of(table())
    with pytest.raises(DataError, match="has no rows"):
        Encoder.of(table(numbers("a", [])))
    with pytest.raises(UsageError, match="most is 0"):
        Encoder.of(titanic(), most=0)


def test_a_selection_of_rows_counts_only_its_own_texts() -> None:
    """Table.rows keeps all texts."""
    whole = table(text("a", ["x", "y", "z", "y"]), numbers("b", [1, 2, 3, 4]))
    encoder = Encoder.of(whole.rows(np.array([0, 1, 3])))
    assert encoder.names == ("a = y", "a = x", "b")
    assert encoder.encode(whole.rows(slice(0, 2))).tolist() == [[0, 1, 1], [1, 0, 2]]
    assert Encoder.of(whole.rows(np.array([1, 3]))).names == ("b",)


# -- Columns by name and by place ------------------------------------------------------


def test_columns_are_found_by_name() -> None:
    train = titanic()
    encoder = Encoder.of(train)
    extra = numbers("extra", range(len(train)))
    shuffled = table(*reversed(train.columns), extra)
    assert encoder.encode(shuffled).tobytes() == encoder.encode(train).tobytes()
    with pytest.raises(
        DataError, match=r"titanic.csv: has no columns 'age', 'fare', which.*it has"
    ):
        encoder.encode(train.without(["age", "fare"]))
    renamed = table(*train.without(["age"]).columns, numbers("Age", range(len(train))))
    with pytest.raises(DataError, match=r"no column 'age' \(is it 'Age'\?\)"):
        encoder.encode(renamed)


def test_columns_without_names_are_found_by_place() -> None:
    train = titanic()
    x = Encoder.of(train).encode(train)
    unnamed = Table(train.columns, named=False)
    assert Encoder.of(unnamed).encode(train).tobytes() == x.tobytes()
    assert Encoder.of(train).encode(unnamed).tobytes() == x.tobytes()
    with pytest.raises(DataError, match="has 4 columns, expected 5: age, sex, alone, port, fare"):
        Encoder.of(train).encode(Table(train.columns[:4], named=False))
    # A column that is left out may be there or not.
    both = table(text("c", ["x", "x"]), numbers("a", [1, 2]), named=False)
    assert Encoder.of(both).encode(both).tolist() == [[1], [2]]
    assert Encoder.of(both).encode([[3.0], [4.0]]).tolist() == [[3], [4]]


def test_arrays_stand_for_numbers_only() -> None:
    encoder = Encoder.of(table(numbers("a", [1, 2, 3]), truth("b", [True, False, True])))
    assert encoder.encode(np.array([[5, 1]], np.uint8)).tolist() == [[5, 1]]
    with pytest.raises(DataError, match="has 3 columns, expected 2: a, b"):
        encoder.encode(np.zeros((4, 3)))
    with pytest.raises(DataError, match="shape \\(2,\\), expected a data frame, or numbers"):
        encoder.encode([1.0, 2.0])
    with pytest.raises(
        DataError, match=r"x: got list, expected a data frame.*column 'sex' has text"
    ):
        Encoder.of(titanic().only(["sex"])).encode([[1.0]])


# -- Surprises -------------------------------------------------------------------------


def test_a_text_that_the_training_did_not_have() -> None:
    encoder = Encoder.of(table(text("city", ["Rome", "Bonn"]), numbers("a", [1, 2])))
    new = table(
        text("city", ["Oslo", "Rome", "Oslo", "Kiel", "Graz", "Lyon"]),
        numbers("a", range(6)),
        name="new.csv",
    )
    with pytest.warns(RuntimeWarning) as caught:
        x = encoder.encode(new)
    assert [str(w.message) for w in caught] == [
        "new.csv: column 'city': 5 rows have a value that the training did not have "
        "(Oslo, Graz, Kiel, ...): they count as none"
    ]
    assert caught[0].filename == __file__
    assert x[:, :2].tolist() == [[0, 0], [0, 1], [0, 0], [0, 0], [0, 0], [0, 0]]


def test_a_value_missing_where_the_training_had_all() -> None:
    train = table(
        numbers("a", [1, 2, 9]), truth("b", [True, True, False]), text("c", ["x", "y", "x"])
    )
    new = table(numbers("a", [None]), truth("b", [None]), text("c", [None]), name="new.csv")
    with pytest.warns(RuntimeWarning) as caught:
        assert Encoder.of(train).encode(new).tolist() == [[2, 1, 0, 0]]
    message = str(caught[0].message)
    assert len(caught) == 1
    for part in (
        "column 'a': 1 row has no value, which the training always had: it counts as the median 2",
        "column 'b': 1 row has no value, which the training always had: it counts as true",
        "column 'c': 1 row has no value, which the training always had: it counts as none",
    ):
        assert part in message
    # A column of nothing is numbers, for the readers.
    with pytest.warns(RuntimeWarning, match="column 'c'"):
        Encoder.of(train).encode(table(*train.columns[:2], numbers("c", [None] * 3)))


def test_warnings_are_one_line() -> None:
    names = [f"column\n{i}" for i in range(9)]
    encoder = Encoder.of(table(*(text(name, ["a", "b"]) for name in names)))
    with pytest.warns(RuntimeWarning) as caught:
        encoder.encode(table(*(text(name, ["\x1b[31m" * 100]) for name in names)))
    message = str(caught[0].message)
    assert len(caught) == 1
    assert message.isprintable()
    assert len(message) <= 1100
    assert "and in 4 more" in message


def test_text_in_place_of_a_number() -> None:
    encoder = Encoder.of(titanic())
    n = 4
    wrong = table(
        text("age", ["20", "none", "3O", "-"]),
        text("sex", ["male"] * n),
        truth("alone", [True] * n),
        text("port", ["S"] * n),
        numbers("fare", [1] * n),
        name="new.csv",
        lines=[2, 3, 5, 6],
    )
    with pytest.raises(DataError, match=r"^new.csv: line 5: column 'age' has '3O', expected a num"):
        encoder.encode(wrong)
    fine = table(text("age", ["20", "none", " ", "-"]), *wrong.columns[1:])
    fill = encoder.codings[0].fill
    assert encoder.encode(fine)[:, 0].tolist() == [20, fill, fill, fill]
    infinite = table(numbers("age", [1, np.inf, 3, 4]), *wrong.columns[1:])
    with pytest.raises(DataError, match="x: row 1: column 'age' has inf, expected a finite"):
        encoder.encode(infinite)
    with pytest.raises(DataError, match="x: row 1: column 'age' has inf, expected a finite"):
        Encoder.of(infinite)


def test_numbers_in_place_of_true_and_false() -> None:
    encoder = Encoder.of(table(truth("a", [True, False, None])))
    assert encoder.encode(table(numbers("a", [1, 0, None])))[:, 0].tolist() == [1, 0, 0]
    assert encoder.encode(table(text("a", ["TRUE", "0", "False"])))[:, 0].tolist() == [1, 0, 0]
    with pytest.raises(DataError, match="row 1: column 'a' has 2, expected true or false"):
        encoder.encode(table(numbers("a", [1, 2])))
    with pytest.raises(DataError, match="row 0: column 'a' has 'yes', expected true or false"):
        encoder.encode(table(text("a", ["yes"])))
    # And truth values in place of numbers.
    encoder = Encoder.of(table(numbers("a", [1, 0, 5])))
    assert encoder.encode(table(truth("a", [True, False]))).tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("categories", "cells", "found"),
    [
        (["3", "4", "5more"], [4.0, 3.0], ["4", "3"]),
        (["1.0", "2.50", "unknown"], [1.0, 2.5], ["1.0", "2.50"]),
        (["01", "02", "x"], [1.0, 2.0], ["01", "02"]),
        (["01", "1", "x"], [1.0], ["1"]),
        (["1e+3", "x"], [1000.0], ["1e+3"]),
        (["123456789012", "x"], [123456789012.0], ["123456789012"]),
        (["0", "x"], [-0.0, 0.0], ["0", "0"]),
        (["0.1", "x"], [0.1], ["0.1"]),
    ],
)
def test_numbers_in_place_of_text(
    categories: list[str], cells: list[float], found: list[str]
) -> None:
    """A file of few rows may hold only the numbers among a column's texts."""
    encoder = Encoder.of(table(text("a", categories)))
    x = encoder.encode(table(numbers("a", cells)))
    assert [encoder.names[i] for i in np.argmax(x, axis=1)] == [f"a = {name}" for name in found]
    assert x.sum() == len(cells)


def test_truth_values_in_place_of_text() -> None:
    encoder = Encoder.of(table(text("a", ["True", "False", "unknown"])))
    x = encoder.encode(table(truth("a", [True, False])))
    assert x.tolist() == [[0, 1, 0], [1, 0, 0]]
    # Text is compared as it is.
    with pytest.warns(RuntimeWarning, match=r"1 row has a value .* \(TRUE\): it counts as none"):
        encoder.encode(table(text("a", ["TRUE"])))


# -- What is refused -------------------------------------------------------------------

DATES = (
    "2020-01-31", "2020/1/31", "2020-01-31T12:30:00Z", "2020-01-31 12:30:00.123456+01:00",
    "2020-01", "31.1.2020", "1/31/20", "31-01-2020 12:30", "3 Jan 2020", "3-Jan-20",
    "Jan 3, 2020", "January 3rd, 2020", "January 2020", "Fri, 03 Jan 2020 12:30:00 GMT",
    "12:30", "12:30:59.5", "9:15 pm", "2 days 01:30:00",
)  # fmt: skip
NO_DATES = (
    "2020", "1.2", "12-34-56", "2019-2020", "2020 Q1", "may be", "10-20", "1:2", "25:61", "0-5",
    "Jan", "31-13-13-1", "192.168.0.1", "march", "Monday", "3 x 4", "00-31-2020",
)  # fmt: skip


@pytest.mark.parametrize("cell", DATES)
def test_dates_and_times_are_refused(cell: str) -> None:
    train = table(text("when", [cell, "2021-05-06"]), numbers("a", [1, 2]), name="x.csv")
    with pytest.raises(DataError, match=r"x.csv: column 'when' has dates or times.*--drop when "):
        Encoder.of(train)
    assert Encoder.of(table(text("when", [cell, "unknown"]))).width == 2


@pytest.mark.parametrize("cell", NO_DATES)
def test_what_is_no_date(cell: str) -> None:
    assert Encoder.of(table(text("a", [cell, "2021-05-06"]))).width == 2


def test_a_frame_s_dates_are_refused() -> None:
    column = text("when", ["737425", "737426"])
    dates = Column("when", values=column.values, codes=column.codes, date=True)
    with pytest.raises(DataError, match="column 'when' has dates or times"):
        Encoder.of(table(dates, numbers("a", [1, 2])))


def test_ids_and_free_text_are_refused_at_once() -> None:
    n = 100
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]
    phrases = [f"{' '.join(np.roll(words, i)[:4])} {i}" for i in range(60)]
    train = table(
        text("name", [f"Mr. {i}" for i in range(n)]),
        numbers("age", range(0, 3 * n, 3)),
        text("nearly", [f"t{max(i, 5)}" for i in range(n)]),
        text("review", [phrases[i % 60] for i in range(n)]),
        text("the day", [f"2020-01-{1 + i % 30:02}" for i in range(n)]),
        text("ticket", [f"t{i % 80}" for i in range(n)]),
        name="x.csv",
    )
    message = re.escape(
        "x.csv: columns 'name', 'nearly' have a different text in (nearly) every row, as ids, "
        "names and free text have; column 'review' has free text; column 'the day' has dates or "
        "times (turn them into numbers, such as the year, or the days since one); leave out what "
        "you cannot turn into numbers or groups: --drop 'name,nearly,review,the day' "
    )
    with pytest.raises(DataError, match=message):
        Encoder.of(train)
    rest = train.without(["name", "nearly", "review", "the day"])
    assert Encoder.of(rest).columns == ("age", "ticket")


@pytest.mark.parametrize(
    ("rows", "distinct", "missing", "refused"),
    [(20, 19, 0, True), (19, 19, 0, False), (100, 94, 0, False), (100, 95, 0, True),
     (20, 20, 500, True), (19, 19, 500, False)],
)  # fmt: skip
def test_the_bounds_of_an_id(rows: int, distinct: int, missing: int, refused: bool) -> None:
    cells = [f"v{min(i, distinct - 1)}" for i in range(rows)] + [None] * missing
    if refused:
        with pytest.raises(DataError, match="a different text in"):
            Encoder.of(table(text("a", cells)))
    else:
        assert Encoder.of(table(text("a", cells)), most=100).width == distinct + bool(missing)


def test_a_column_that_counts_the_rows_is_noted() -> None:
    n = 100
    rng = np.random.default_rng(0)
    part = np.sort(rng.permutation(n)[:80])
    train = table(
        numbers("rownames", range(1, n + 1)),
        numbers("index", range(n)),
        numbers("mixed", rng.permutation(n).tolist()),
        numbers("halves", (np.arange(n) / 2).tolist()),
        numbers("gaps", [*range(n - 1), None]),
        numbers("squares", (np.arange(n) ** 2).tolist()),
    )
    for rows in (train, train.rows(part)):
        notes = Encoder.of(rows).notes
        assert [note.split("'")[1] for note in notes] == ["rownames", "index"]
    assert notes[0].endswith("counts the rows; if it is no more than their number: --drop rownames")
    assert not Encoder.of(train.rows(slice(0, 10))).notes


def test_too_large_to_scale_names_the_column() -> None:
    train = table(numbers("a", [1, 2]), numbers("b", [1e300, -1e300]), name="x.csv")
    with pytest.raises(DataError, match=r"x.csv: column 'b': has values up to 1.0e\+300"):
        Encoder.of(train)


# -- Plain data ------------------------------------------------------------------------


def test_plain_data_give_the_same_bits() -> None:
    train, test = titanic(), titanic(seed=1)
    train = table(*train.columns, numbers("empty", [None] * len(train)), name="t")
    encoder = Encoder.of(train, most=2)
    again = Encoder.from_plain(json.loads(json.dumps(encoder.plain())))
    assert again == encoder
    assert hash(again) == hash(encoder)
    assert again.names == encoder.names
    for ours, theirs in zip(again.scaling, encoder.scaling, strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert again.encode(test).tobytes() == encoder.encode(test).tobytes()
    assert encoder != Encoder.of(train, most=3)
    assert encoder != Encoder.of(titanic(seed=1), most=2)
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert other == encoder
    assert Encoder.of(train) == Encoder.of(train)


def test_the_form_of_plain_data() -> None:
    train = table(
        numbers("a", [1, None, 5]), truth("b", [True, True, False]), text("c", ["x", "y", "x"]),
        text("d", ["z"] * 3), named=False,
    )  # fmt: skip
    assert Encoder.of(train, most=1, standardize=False).plain() == {
        "named": False,
        "columns": [
            {
                "name": "a",
                "kind": "number",
                "fill": 3.0,
                "missing": True,
                "shift": 0.0,
                "scale": 1.0,
            },
            {"name": "b", "kind": "boolean", "fill": 1.0, "missing": False},
            {"name": "c", "kind": "categories", "values": ["x"], "other": True, "missing": False},
            {"name": "d", "kind": "left out", "reason": "always 'z'"},
        ],
    }


def changed(path: Sequence[str | int], value: Any) -> Any:
    """The plain data of an encoder in which the value at a path is another; `...` removes it."""
    plain = json.loads(json.dumps(Encoder.of(titanic()).plain()))
    if not path:
        return value
    place = plain
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return plain


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ([], None),
        ([], []),
        ([], {}),
        (["named"], 1),
        (["named"], ...),
        (["more"], 1),
        (["columns"], []),
        (["columns"], {"age": 1}),
        (["columns", 0], None),
        (["columns", 0], "age"),
        (["columns", 0, "name"], 1),
        (["columns", 0, "name"], "sex"),
        (["columns", 0, "name"], ...),
        (["columns", 0, "kind"], "pickle"),
        (["columns", 0, "kind"], []),
        (["columns", 0, "kind"], "categories"),
        (["columns", 0, "fill"], float("nan")),
        (["columns", 0, "fill"], "1"),
        (["columns", 0, "fill"], True),
        (["columns", 0, "fill"], 10**400),
        (["columns", 0, "missing"], 1),
        (["columns", 0, "shift"], float("inf")),
        (["columns", 0, "scale"], 0.0),
        (["columns", 0, "scale"], -1.0),
        (["columns", 0, "extra"], 1),
        (["columns", 1, "values"], []),
        (["columns", 1, "values"], "male"),
        (["columns", 1, "values"], ["male", "male"]),
        (["columns", 1, "values"], ["male", 1]),
        (["columns", 1, "values"], [str(i) for i in range(10_001)]),
        (["columns", 1, "other"], None),
        (["columns", 2, "fill"], 0.5),
    ],
)
def test_damaged_plain_data_are_refused(path: list[str | int], value: Any) -> None:
    """A checksum does not say who wrote a file."""
    with pytest.raises(ValueError, match=r"^[^\n]{10,150}$"):
        Encoder.from_plain(changed(path, value))


def test_plain_data_that_make_no_feature_are_refused() -> None:
    column = {"name": "a", "kind": "left out", "reason": "all missing"}
    with pytest.raises(ValueError, match="no column makes a feature"):
        Encoder.from_plain({"named": True, "columns": [column]})


# -- As text ---------------------------------------------------------------------------


def test_a_description() -> None:
    train = table(
        numbers("age", [20.25, None, 40]),
        numbers("n", [1, 2, 4]),
        truth("alone", [True, None, False]),
        text("sex", ["m", "f", "m"]),
        text("city", ["a", "b", None]),
        text("same\n", ["x"] * 3),
        numbers("seven", [7] * 3),
        numbers("empty", [None] * 3),
    )
    encoder = Encoder.of(train, most=1)
    assert encoder.describe(train) == [
        ("age", "number", "20.25 to 40", "1", "standardized; missing: 30.125, 1 column more"),
        ("n", "number", "1 to 4", "", "standardized"),
        ("alone", "true/false", "false, true", "1", "0 or 1; missing: false, 1 column more"),
        ("sex", "categories", "m, f", "", "1 column and other"),
        ("city", "categories", "a, b", "1", "1 column, other and missing"),
        ("'same\\n'", "constant", "x", "", "left out: always 'x'"),
        ("seven", "constant", "7", "", "0: it is constant"),
        ("empty", "empty", "", "3", "left out: all missing"),
    ]
    many = table(text("a", [f"v{i % 12}" for i in range(30)]))
    assert Encoder.of(many).describe(many) == [
        ("a", "categories", "v0, v1, v2, ... (12)", "", "12 columns")
    ]
    plain = Encoder.of(train, standardize=False)
    assert plain.describe(train)[1][-1] == "as it is"


def test_lines_are_aligned_and_fit() -> None:
    rows = Encoder.of(titanic()).describe(titanic())
    lines = aligned(rows)
    assert lines[0].split() == ["column", "kind", "values", "missing", "becomes"]
    starts = {line.index(cell) for line, cell in zip(lines[1:], [r[1] for r in rows], strict=True)}
    assert len(starts) == 1
    long = ("n" * 20, "categories", "v" * 200, "1", "standardized; missing: 1.5, 1 column more")
    heading, line = aligned([long])
    assert line.startswith(f"{'n' * 20}  categories  {'v' * 11}...  1 ")
    assert line.endswith(f"  {long[-1]}")
    assert len(line) == 100
    assert heading.index("becomes") == line.index("standardized")
    assert all(len(line) <= 100 for line in aligned([("n" * 300, *long[1:4], "b" * 300)]))


# -- Frames ----------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_is_encoded_as_its_table_is(library: str) -> None:
    pytest.importorskip("narwhals", reason="frames come through narwhals")
    pytest.importorskip("xpnet.data.frames", reason="reads frames")
    frames = pytest.importorskip(library, reason=f"frames of {library}")
    train = titanic()
    cells: dict[str, list[Any]] = {}
    for column in train.columns:
        if column.codes is not None:
            cells[column.name] = [None if c < 0 else column.values[c] for c in column.codes]
        else:
            assert column.numbers is not None
            kind = bool if column.boolean else float
            cells[column.name] = [None if np.isnan(n) else kind(n) for n in column.numbers]
    frame = frames.DataFrame(cells)
    assert Encoder.of(frame) == Encoder.of(train)
    backwards = frame[frame.columns[::-1]]
    expected = Encoder.of(train).encode(train)
    assert Encoder.of(frame).encode(backwards).tobytes() == expected.tobytes()
