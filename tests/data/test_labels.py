"""What labels mean: the same in a CSV file, in a text array and in an array of numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from xpnet.data import Dataset
from xpnet.data.cells import canonical, is_gap, is_number
from xpnet.datasets import load_file
from xpnet.errors import DataError

N = 60


def x_of(n: int = N) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 2))


def from_csv(folder: Path, labels: Sequence[str], **options: object) -> Dataset:
    rows = [f'{a:.4f},{b:.4f},"{t}"' for (a, b), t in zip(x_of(len(labels)), labels, strict=True)]
    (folder / "d.csv").write_text("\n".join(["a,b,y", *rows]), encoding="utf-8")
    return load_file(folder / "d.csv", **options)  # type: ignore[arg-type]


def from_npz(folder: Path, t: np.ndarray, **options: object) -> Dataset:
    np.savez(folder / "d.npz", x=x_of(len(t)), t=t)
    return load_file(folder / "d.npz", **options)  # type: ignore[arg-type]


def from_npy(folder: Path, t: np.ndarray, **options: object) -> Dataset:
    np.save(folder / "x.npy", x_of(len(t)))
    np.save(folder / "t.npy", t)
    return load_file(folder / "x.npy", labels=folder / "t.npy", **options)  # type: ignore[arg-type]


def repeated(labels: Sequence[str], n: int = N) -> list[str]:
    return [labels[i % len(labels)] for i in range(n)]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["2", "10", "9"], ("2", "9", "10")),
        (["1.0", "2.0"], ("1", "2")),
        (["1", "1.0", "+1", "2"], ("1", "2")),
        (["-1", "+1"], ("-1", "1")),
        (["-0.0", "0", "1"], ("0", "1")),
        (["0.000000000000000000e+00", "1.000000000000000000e+00"], ("0", "1")),  # np.savetxt
        (["01", "02", "10"], ("01", "02", "10")),
        (["1E2", "1E3", "20"], ("20", "1E2", "1E3")),
        (["1_1", "11"], ("11", "1_1")),
        (["9007199254740993", "9007199254740992"], ("9007199254740992", "9007199254740993")),
        (["1.0", "2.0", "unknown"], ("1.0", "2.0", "unknown")),
        (["none", "mild"], ("mild", "none")),
        (["+", "-"], ("+", "-")),
        (["inf", "sup"], ("inf", "sup")),
        (["True", "False"], ("False", "True")),
        ([" a ", "b"], ("a", "b")),
    ],
)
def test_classes_and_their_names(
    tmp_path: Path, labels: list[str], classes: tuple[str, ...]
) -> None:
    """In a CSV file, and as an array of text."""
    column = repeated(labels)
    for data in (from_csv(tmp_path, column), from_npz(tmp_path, np.array(column)),
                 from_npy(tmp_path, np.array(column, "S24"))):  # fmt: skip
        assert data.classes == classes
        for label, i in zip(column, data.t, strict=True):
            assert classes[i] in (label.strip(), canonical(label.strip()))
        # The file is its own test file.
    again = from_csv(tmp_path, column, classes=classes)
    np.testing.assert_array_equal(again.t, data.t)


@pytest.mark.parametrize("kind", ["i1", "u1", "i8", "u8", "f2", "f4", "f8"])
def test_whole_numbers_are_classes_in_every_dtype_and_file(tmp_path: Path, kind: str) -> None:
    t = np.array([3, 1, 10])[np.arange(N) % 3]
    text = from_csv(tmp_path, list(map(str, t)))
    for data in (from_npz(tmp_path, t.astype(kind)), from_npy(tmp_path, t[:, None].astype(kind))):
        assert data.classes == text.classes == ("1", "3", "10")
        np.testing.assert_array_equal(data.t, text.t)


def test_numbers_that_a_float_cannot_tell_apart_are_two_classes(tmp_path: Path) -> None:
    t = np.array([2**63 + 1, 2**63], np.uint64)[np.arange(N) % 2]
    assert from_npz(tmp_path, t).classes == ("9223372036854775808", "9223372036854775809")


@pytest.mark.parametrize("kind", ["u1", "f4", "?"])
def test_one_hot_rows_are_classes_in_every_dtype(tmp_path: Path, kind: str) -> None:
    t = np.arange(N) % 3
    data = from_npz(tmp_path, np.eye(4)[t].astype(kind))
    assert data.classes == ("0", "1", "2", "3")  # the last one does not occur
    np.testing.assert_array_equal(data.t, t)


def test_rows_of_other_numbers_are_a_regression_or_have_to_be_said(tmp_path: Path) -> None:
    rows = np.arange(2.0 * N).reshape(N, 2)
    data = from_npz(tmp_path, rows + 0.5)
    assert data.classes is None
    np.testing.assert_array_equal(data.t, rows + 0.5)
    for whole in (rows, rows.astype(int), np.ones((N, 3), np.uint8)):
        with pytest.raises(DataError, match=r"not one-hot; .* say --task regression"):
            from_npz(tmp_path, whole)
    np.testing.assert_array_equal(from_npz(tmp_path, rows, task="regression").t, rows)


@pytest.mark.parametrize("missing", ["", "NA", "?", "nan", "NaN", "N/A", "null", "#N/A", "<NA>"])
@pytest.mark.parametrize("labels", [["0.25", "1.75"], ["0", "1"], ["01", "02"], ["cat", "dog"]])
def test_a_missing_label_is_refused_by_its_place(
    tmp_path: Path, labels: list[str], missing: str
) -> None:
    column = repeated(labels)
    column[9] = missing
    with pytest.raises(DataError, match=rf"line 11, column y: got '{re.escape(missing)}', a miss"):
        from_csv(tmp_path, column)
    with pytest.raises(DataError, match=r"t: row 9: got .*, a missing label"):
        from_npz(tmp_path, np.array(column))
    with pytest.raises(DataError, match="line 11"):
        from_csv(tmp_path, column, task="classification")


@pytest.mark.parametrize("gap", ["inf", "-Infinity", "None", "-", ".", "--"])
@pytest.mark.parametrize("labels", [["0.25", "1.75"], ["0", "1"]])
def test_what_may_be_a_class_is_missing_among_numbers(
    tmp_path: Path, labels: list[str], gap: str
) -> None:
    column = repeated(labels)
    column[9] = gap
    with pytest.raises(DataError, match="line 11, column y"):
        from_csv(tmp_path, column)


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_missing_number_is_refused_by_its_row(tmp_path: Path, kind: str, value: float) -> None:
    t = (np.arange(N) % 2).astype(kind)
    t[9] = value
    for rows in (t, t[:, None], np.stack([t, t], axis=1)):
        with pytest.raises(DataError, match=r"t.*: row 9.*: got -?(nan|inf)"):
            from_npy(tmp_path, rows)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["01", "1"], "got '01' and '1', one number in two spellings"),
        (["1E2", "100"], "'1E2' and '100', one number in two spellings"),
        (["1", "1.0", "x"], "'1' and '1.0', one number in two spellings"),
        (
            ["0.5", "oops"],
            "line 3, column y: got 'oops', expected a number; if",
        ),
        (["0,5", "1,5"], "a decimal comma: write a point"),
        (["617,543", "81,200"], "write no comma between thousands"),
        (["1e999", "0.5"], "got '1e999', expected a finite number"),
    ],
)
def test_a_column_that_contradicts_itself_is_refused(
    tmp_path: Path, labels: list[str], words: str
) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        from_csv(tmp_path, repeated(labels))


def test_labels_that_hardly_ever_occur_twice_have_to_be_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="300 distinct labels in 300 rows; are they"):
        from_csv(tmp_path, [f"name {i}" for i in range(300)])
    with pytest.raises(DataError, match="classes or numbers"):
        from_csv(tmp_path, [*map(str, range(299)), "unknown"])
    with pytest.raises(DataError, match="classes or numbers"):
        from_npz(tmp_path, np.arange(300.0))
    named = from_csv(tmp_path, [f"name {i}" for i in range(300)], task="classification")
    assert named.outputs == 300


def test_a_long_label_makes_a_short_message(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        from_csv(tmp_path, repeated(["0.5", "x" * 100_000]))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("training", "test"),
    [
        (["1.0", "2.0", "unknown"], ["1.0", "2.0"]),
        (["01", "02", "x"], ["01", "02"]),
        (["01", "02", "10"], ["01", "10"]),
        (["1", "2", "3"], ["1.0", "2.00"]),
        (["1E2", "1E3"], ["1E2"]),
    ],
)
def test_a_test_file_is_read_by_the_rules_of_the_training_file(
    tmp_path: Path, training: list[str], test: list[str]
) -> None:
    classes = from_csv(tmp_path, repeated(training)).classes
    assert classes is not None
    data = from_csv(tmp_path, repeated(test, 20), classes=classes)
    assert data.classes == classes
    for label, i in zip(repeated(test, 20), data.t, strict=True):
        assert classes[i] in (label, canonical(label))
    text = from_npz(tmp_path, np.array(repeated(test, 20)), classes=classes)
    np.testing.assert_array_equal(text.t, data.t)


@pytest.mark.parametrize(
    ("training", "test"),
    [(["1", "2"], "01"), (["01", "02"], "1"), (["100", "20"], "1E2"), (["11", "2"], "1_1"),
     (["a", "b"], "A"), (["1", "2"], "3")],
)  # fmt: skip
def test_a_label_that_training_does_not_know_is_refused(
    tmp_path: Path, training: list[str], test: str
) -> None:
    classes = from_csv(tmp_path, repeated(training)).classes or ()
    for read, column in ((from_csv, [test]), (from_npz, np.array([test]))):
        with pytest.raises(DataError, match=f"got '{test}', expected one of {', '.join(classes)}"):
            read(tmp_path, column, classes=classes)  # type: ignore[operator]


def test_numbers_in_an_array_meet_the_classes_of_a_text_file(tmp_path: Path) -> None:
    classes = from_csv(tmp_path, repeated(["7", "12"])).classes
    data = from_npz(tmp_path, np.array([12.0, 7.0]), classes=classes)
    np.testing.assert_array_equal(data.t, [1, 0])
    with pytest.raises(DataError, match="row 1: got 8, expected one of 7, 12"):
        from_npz(tmp_path, np.array([12, 8]), classes=classes)


def test_a_regression_is_the_same_in_every_file(tmp_path: Path) -> None:
    t = np.random.default_rng(1).normal(size=N).round(6)
    for data in (from_csv(tmp_path, list(map(str, t))), from_npz(tmp_path, t),
                 from_npy(tmp_path, t[:, None]), from_npz(tmp_path, t.astype(str))):  # fmt: skip
        assert data.classes is None
        np.testing.assert_array_equal(data.t, t[:, None])


def test_what_float_takes_and_a_number_is_not() -> None:
    for cell in ("1", "-2.5", ".5", "5.", "1e-3", "007", "+1E2"):
        assert is_number(cell)
        float(cell)
    for cell in ("1_000", "nan", "inf", "٣", "0x10", "1,5", "", " 1", "1e", "1.2.3"):
        assert not is_number(cell)
    assert not is_number("1" * 200_000 + "x")  # in linear time
    assert is_gap("NONE")
    assert not is_gap("Natrium")
