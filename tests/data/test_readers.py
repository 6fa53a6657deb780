"""Files: what they hold when they are right, one DataError when they are not."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet.data.csv import read_csv
from xpnet.data.readers import read_idx, read_npy, read_npz
from xpnet.datasets import load, load_file
from xpnet.errors import DataError, UsageError


def idx(array: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("packed", [False, True])
def test_idx_round_trip(tmp_path: Path, packed: bool) -> None:
    content = idx(IMAGES)
    (tmp_path / "f").write_bytes(gzip.compress(content, mtime=0) if packed else content)
    np.testing.assert_array_equal(read_idx(tmp_path / "f"), IMAGES)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected IDX"),
        (b"\x89PNG....", "expected IDX"),
        (b"\0\0\x0d\x02" + bytes(20), "expected IDX of unsigned bytes"),
        (idx(IMAGES)[:6], "ends in its header"),
        (idx(IMAGES)[:-1], "got 23 bytes, expected 24"),
        (idx(IMAGES) + b"x", "got more than 24 bytes, expected 24"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "more than the file can hold"),
        (gzip.compress(idx(IMAGES), mtime=0)[:-9], "cannot be read"),
        (gzip.compress(idx(IMAGES)[:-1], mtime=0), "got 23 bytes, expected 24"),
        (gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12, mtime=0), "more than the file can hold"),
    ],
)
def test_damaged_idx_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(DataError, match=re.escape(words)) as caught:
        read_idx(tmp_path / "f")
    assert str(tmp_path / "f") in str(caught.value)


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_npz_round_trip_in_both_orders(tmp_path: Path) -> None:
    x = np.arange(6.0).reshape(2, 3)
    np.savez(tmp_path / "plain.npz", x=x, f=np.asfortranarray(x), t=np.array([1, 2], np.uint8))
    np.savez_compressed(tmp_path / "packed.npz", x=x)
    got = read_npz(tmp_path / "plain.npz")
    np.testing.assert_array_equal(got["x"], x)
    np.testing.assert_array_equal(got["f"], x)
    assert got["t"].dtype == np.uint8
    np.testing.assert_array_equal(read_npz(tmp_path / "packed.npz")["x"], x)


def member(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def twice() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.npy", npy(np.ones(2)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", npy(np.zeros(2)))
    return stream.getvalue()


def objects() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{}], object), allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: b"", "is not an NPZ file"),
        (lambda: b"garbage" * 99, "is not an NPZ file"),
        (lambda: npz(x=np.ones(9))[:-30], "is not an NPZ file"),
        (lambda: member("x.npy", b"junk"), "x: is not an NPY array"),
        (lambda: member("x.npy", objects()), "x: got Python objects"),
        (lambda: member("x.npy", npy(np.ones(9))[:-8]), "x: got 64 bytes of values, expected 72"),
        # a smaller shape would stop reading before the checksum
        (
            lambda: member("x.npy", npy(np.ones(9)).replace(b"(9,)", b"(8,)")),
            "x: got 72 bytes of values, expected 64",
        ),
        (twice, "x: is there twice"),
    ],
)
def test_damaged_npz_is_refused(tmp_path: Path, make: Callable[[], bytes], words: str) -> None:
    (tmp_path / "f.npz").write_bytes(make())
    with pytest.raises(DataError, match=re.escape(words)):
        read_npz(tmp_path / "f.npz")


def test_npz_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    content = bytearray(npz(x=np.arange(1000.0)))
    content[4000] ^= 1
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(DataError, match="Bad CRC-32"):
        read_npz(tmp_path / "f.npz")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not an NPY array"),
        (b"\x93NUMPY", "is not an NPY array"),
        (npy(np.ones(9))[:-1], "got 71 bytes of values, expected 72"),
        (npy(np.ones(9)) + b"x", "got 73 bytes of values, expected 72"),
        (npy(np.ones(9)).replace(b"'<f8'", b"'|O8'"), "got Python objects"),
        (npy(np.ones(1)).replace(b"(1,), }          ", b"(9999999999999,),"), "NPY array"),
    ],
)
def test_damaged_npy_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "f.npy").write_bytes(content)
    with pytest.raises(DataError, match=re.escape(words)):
        read_npy(tmp_path / "f.npy")


def npy_header(descr: str, shape: str, version: int = 1) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    text += b" " * (-len(text) % 64) + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy_header("'|S0'", "(1000000000000,)"), "got values of type |S0, without any bytes"),
        (npy_header("'<U0'", "(5,)"), "without any bytes"),
        (npy_header("'<f8'", "(True, True)") + bytes(8), "header claims shape (True, True)"),
        (npy_header("'<f8'", "(-1, -1)") + bytes(8), "header claims shape (-1, -1)"),
        (npy_header("'<f8'", f"({10**30}, 0)"), "header claims shape"),
        (npy_header("'<f8'", f"({2**40}, {2**40}, 0)"), "samples without values"),
        (npy_header("'<f8'", f"({'1, ' * 70})") + bytes(8), "header claims shape"),
        (npy_header("[('a', '<f8'), ('b', '<f8')]", "(2,)") + bytes(32), "got records of several"),
        (npy_header("'<f8'", "(" * 3000 + ")" * 3000), "is not an NPY array"),
        # A header of 4 GB, of which the file has the first bytes.
        (b"\x93NUMPY\2\0\xff\xff\xff\xff" + b" " * 20_000, "is not an NPY array"),
    ],
)
def test_what_a_header_claims_is_checked_first(tmp_path: Path, content: bytes, words: str) -> None:
    """In an NPY file, and in a member of an NPZ file."""
    (tmp_path / "f.npy").write_bytes(content)
    (tmp_path / "f.npz").write_bytes(member("x.npy", content))
    with pytest.raises(DataError, match=re.escape(words)):
        read_npy(tmp_path / "f.npy")
    with pytest.raises(DataError, match=re.escape(words)):
        read_npz(tmp_path / "f.npz")


class Refused(Exception):
    pass


@pytest.fixture
def no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes memory for the values of a file fails."""

    def refuse(*args: Any) -> None:
        raise Refused

    monkeypatch.setattr("xpnet.data.readers._array", refuse)
    monkeypatch.setattr("xpnet.data.readers._fill", refuse)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((5000, 100)), "t": np.zeros(3, int)}, "got 3 targets for 5000 samples"),
        ({"x": np.zeros((5000, 100), complex), "t": np.zeros(5000)}, "values of type complex128"),
        ({"x": np.zeros((5000, 100)), "T": np.zeros(5000)}, "expected an array named t or y"),
    ],
)
def test_arrays_that_do_not_fit_are_not_unpacked(
    tmp_path: Path, no_values: None, arrays: dict[str, Any], words: str
) -> None:
    np.savez_compressed(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=words):
        load_file(tmp_path / "d.npz")


def test_what_is_not_asked_for_is_not_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=np.ones((3, 2)), bomb=np.zeros(10**6))
    content = bytearray((tmp_path / "d.npz").read_bytes())
    content[-1200] ^= 1  # within the bomb, whose checksum is now wrong
    (tmp_path / "d.npz").write_bytes(content)
    assert list(read_npz(tmp_path / "d.npz", ["x"])) == ["x"]
    with pytest.raises(DataError, match="is not an NPZ file"):
        read_npz(tmp_path / "d.npz")
    with pytest.raises(DataError, match="has x, bomb; expected y too"):
        read_npz(tmp_path / "d.npz", ["y"])


def test_more_than_half_of_the_free_memory_is_refused(
    tmp_path: Path, no_values: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xpnet.data.readers.available_memory", lambda: 1000)
    (tmp_path / "f.gz").write_bytes(gzip.compress(idx(np.zeros((30, 4, 5), np.uint8))))
    np.savez_compressed(tmp_path / "f.npz", x=np.zeros(100))
    for read, path in ((read_idx, "f.gz"), (read_npz, "f.npz")):
        with pytest.raises(DataError, match="more than half of the free memory"):
            read(tmp_path / path)  # type: ignore[operator]
    monkeypatch.setattr("xpnet.data.csv.available_memory", lambda: 10)
    (tmp_path / "f.csv").write_text(CSV)
    with pytest.raises(DataError, match="is larger than the free memory"):
        read_csv(tmp_path / "f.csv")


@pytest.mark.parametrize("read", [read_idx, read_npy, read_npz, read_csv])
def test_pipes_and_devices_are_refused(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match="is a pipe or a device; expected a file"):
            read(path)
    with pytest.raises(DataError, match="is a folder; expected a file"):
        read(tmp_path)


def test_a_large_npy_is_memory_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.ones((100, 2)))
    mapped = read_npy(tmp_path / "f.npy", resident_bytes=100)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, 1.0)
    assert not isinstance(read_npy(tmp_path / "f.npy", resident_bytes=10_000), np.memmap)
    np.save(tmp_path / "g.npy", np.asfortranarray(np.ones((100, 2))))
    with pytest.raises(DataError, match="Fortran order"):
        read_npy(tmp_path / "g.npy", resident_bytes=100)


CSV = "a,b,kind\n1,2.5,cat\n-3e1,4,dog\n\n0,1,cat\n"


@pytest.mark.parametrize(
    "text", [CSV, CSV.replace(",", ";"), CSV.replace(",", "\t"), "\ufeff" + CSV]
)
def test_csv(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.csv").write_text(text, encoding="utf-8")
    x, labels, columns, label_column, lines = read_csv(tmp_path / "f.csv")
    np.testing.assert_array_equal(x, [[1, 2.5], [-30, 4], [0, 1]])
    assert labels == ["cat", "dog", "cat"]
    assert columns == ("a", "b")
    assert label_column == "kind"
    assert list(lines) == [2, 3, 5]


def test_csv_label_column_by_name_number_and_absence(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("y,a,b\n7,1,2\n8,3,4\n")
    assert read_csv(tmp_path / "f.csv", "y").labels == ["7", "8"]
    assert read_csv(tmp_path / "f.csv", "0").columns == ("a", "b")
    assert read_csv(tmp_path / "f.csv", "-3").label_column == "y"
    assert read_csv(tmp_path / "f.csv", None).x.shape == (2, 3)
    # with two features asked for, three columns have a label and two have none
    assert read_csv(tmp_path / "f.csv", "y", features=2).labels == ["7", "8"]
    (tmp_path / "g.csv").write_text("1,2\n3,4\n")
    bare = read_csv(tmp_path / "g.csv", "y", features=2)
    assert bare.labels is None
    np.testing.assert_array_equal(bare.x, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got no rows"),
        ("a,b\n", "got no rows"),
        ("a,b,y\n1,2,x\n1,x,y\n", "line 3, column b: got 'x', expected a finite number"),
        ("a,b,y\n1,,0\n", "line 2, column b: got ''"),
        ("a,b,y\n1,nan,0\n", "line 2, column b: got ''"),
        ("1,inf,0\n", "line 1, column 1: got 'inf'"),
        ("y,a\nk,1\nk,oops\n", "line 2, column a"),
        ("a,b,y\n1,2\n", "line 2: got 2 columns, expected 3"),
        ("1\n2\n", "got one column"),
        ("a,a,y\n1,2,0\n", "has two columns named a"),
        (",a,y\n3,1,2\n", "line 1: column 0 has no name; if it is an index"),
        ("nan,nan,yes\n1,2,no\n", "line 1, column 0: got ''"),
        ("?,?,yes\n1,2,no\n", "line 1, column 0: got ''"),
        ('"a,b\n1,2', "is not CSV in UTF-8"),
    ],
)
def test_bad_csv_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "f.csv").write_text(text)
    if text.startswith("y,a"):
        with pytest.raises(DataError, match="column a: got 'oops'"):
            read_csv(tmp_path / "f.csv", "y")
        return
    with pytest.raises(DataError, match=re.escape(words)):
        read_csv(tmp_path / "f.csv")


# Two float columns, or whole numbers; and a label of each kind.
FLOATS, WHOLE = "{0}.5,{1}.5", "{0},{1}"
CLASSES, WORDS, REALS = ("0", "1"), ("u", "v"), ("0.5", "1.25")


def table(header: str, features: str = FLOATS, labels: tuple[str, ...] = CLASSES) -> str:
    lines = [f"{features.format(i, i % 7)},{labels[i % len(labels)]}" for i in range(40)]
    return "\n".join([header, *lines])


@pytest.mark.parametrize(
    ("header", "features", "labels"),
    [
        ("RI,Na,Type", FLOATS, CLASSES),
        ("inf,sup,y", WHOLE, REALS),
        ("none,high,y", FLOATS, WORDS),
        ("-,+,y", FLOATS, CLASSES),
        ("Na,NaN,y", WHOLE, CLASSES),
        ("0,1,2", FLOATS, CLASSES),
        ("0,1,2", FLOATS, WORDS),
        ("0,1,2", FLOATS, REALS),
        ("0,1,target", WHOLE, CLASSES),
        ("0,1,target", FLOATS, REALS),
        ("id,0,target", WHOLE, CLASSES),
        ("a,1999,target", WHOLE, REALS),
        ("a,b,u", FLOATS, WORDS),  # the label column is called like a class
        ('"0","1","2"', FLOATS, CLASSES),
    ],
)
def test_a_header_is_known_by_what_is_below(
    tmp_path: Path, header: str, features: str, labels: tuple[str, ...]
) -> None:
    (tmp_path / "f.csv").write_text(table(header, features, labels))
    read = read_csv(tmp_path / "f.csv")
    assert read.x.shape == (40, 2)
    assert (*read.columns, read.label_column) == tuple(header.replace('"', "").split(","))
    assert read.labels == [labels[i % 2] for i in range(40)]
    assert list(read.lines) == list(range(2, 42))


@pytest.mark.parametrize(
    ("first", "features", "labels"),
    [
        ("0,1,2", WHOLE, CLASSES),
        ("0,1,2", WHOLE, REALS),
        ("0.0,1.0,2.0", FLOATS, REALS),
        ("1,2,y", WHOLE, CLASSES),
        ("400.5,401.5,class", FLOATS, CLASSES),
        ("400.5,401.5,class", FLOATS, WORDS),
        ("2019,2020,2021", FLOATS, REALS),
        ("2019,2020,2021", WHOLE, CLASSES),
        ("1.5,2.O,0", FLOATS, CLASSES),
    ],
)
def test_a_first_line_that_could_be_either_is_refused(
    tmp_path: Path, first: str, features: str, labels: tuple[str, ...]
) -> None:
    (tmp_path / "f.csv").write_text(table(first, features, labels))
    with pytest.raises(DataError, match="line 1: is it a header line or a row"):
        read_csv(tmp_path / "f.csv")


@pytest.mark.parametrize(
    ("first", "features", "labels"),
    [
        ("5.1,3.5,u", FLOATS, WORDS),
        ("5,3,u", FLOATS, WORDS),
        ("0,1,1", WHOLE, CLASSES),
        ("7,8,9.5", WHOLE, tuple(map(str, np.arange(40) / 8))),
        ("1.5,2.5,new", FLOATS, ("u", "v", "w", *map(str, range(30)))),
    ],
)
def test_a_first_row_stays_a_row(
    tmp_path: Path, first: str, features: str, labels: tuple[str, ...]
) -> None:
    (tmp_path / "f.csv").write_text(table(first, features, labels))
    read = read_csv(tmp_path / "f.csv")
    assert read.columns == ()
    assert read.label_column == "2"
    assert read.x.shape == (41, 2)
    np.testing.assert_array_equal(read.x[0], np.float64(first.split(",")[:2]))
    assert (read.labels or [])[0] == first.split(",")[2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (table("a,,y"), "line 1: column 1 has no name"),
        (table(",0,1"), "line 1: column 0 has no name; if it is an index"),
        (table("1,y,z"), "'1' is the name of column 0 and the number of column"),
    ],
)
def test_a_header_without_one_meaning_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(DataError, match=re.escape(words)):
        read_csv(tmp_path / "f.csv", "1")


def test_what_a_file_has_is_cited_in_one_short_line(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text('"a\nb",c,y\n1,2,0\nx,4,1\n')
    with pytest.raises(DataError, match="line 4, column a b: got 'x'"):
        read_csv(tmp_path / "f.csv")
    long = "n" * 100_000
    for text, label in (
        (f"{long},b\nx,0\n", "-1"),
        (f"a,b\n1,{long}\n", "0"),
        ("a,b\n1,2\n", long),
    ):
        (tmp_path / "f.csv").write_text(text)
        with pytest.raises(DataError) as caught:
            load_file(tmp_path / "f.csv", label_column=label)
        assert len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)


# What a terminal obeys, breaks a line, hides, or is long.
FOREIGN = ("a\nb", "a\r", "\x1b[2J", "\x85", "\u2028", "\u202e", "\x0b\x00", "é" * 30_000)


@pytest.mark.parametrize("text", FOREIGN)
def test_names_from_files_and_of_files_make_one_printable_line(tmp_path: Path, text: str) -> None:
    def written(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    entry = text.replace("\0", "")
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(entry, b"no array")
        wrong = written("f.npz", file.getvalue())
    row = written("f.csv", f'"{text}",b\n1,2\n{text[::-1]}q,3\n'.encode())
    label = written("g.csv", f'a,b\n1,0.5\n2,"{text}q"\n'.encode())
    calls: list[Callable[[], Any]] = [
        lambda: read_npz(wrong),
        lambda: load_file(row, drop=[f"{text}q"]),
        lambda: load_file(label),
        lambda: load_file(label, label_column=text),
        lambda: load_file(label, labels=text),
        lambda: load_file(tmp_path / f"{entry[:50]}.npy", labels="t.npy"),
        lambda: load("mnist", tmp_path / entry[:50]),
        lambda: load(text),
    ]
    for call in calls:
        with pytest.raises((DataError, UsageError)) as caught:
            call()
        message = str(caught.value)
        assert message.isprintable(), message
        assert len(message) <= 1000


def test_half_of_a_surrogate_pair_is_no_label(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", x=np.ones((4, 2)), t=np.array(["a", "\ud800"] * 2))
    with pytest.raises(DataError, match=r"t: is not text in UTF-8: .*surrogates not allowed"):
        load_file(tmp_path / "f.npz")


def test_a_wide_table_is_read(tmp_path: Path) -> None:
    """In time that grows with the columns, not with their square."""
    count = 50_000
    names = [f"g{i}" for i in range(count)]
    rows = [",".join(["1.5"] * (count - 1) + [str(k % 2)]) for k in range(3)]
    (tmp_path / "f.csv").write_text("\n".join([",".join(names), *rows]))
    read = read_csv(tmp_path / "f.csv")
    assert read.x.shape == (3, count - 1)
    assert read.label_column == f"g{count - 1}"
    with pytest.raises(DataError, match=r"it has g0, g1, .*g19, \.\.\. \(50,000 in all\)"):
        read_csv(tmp_path / "f.csv", "nowhere")


def test_the_names_of_the_training_make_a_header(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("0,1\n5,6\n7,8\n")
    read = read_csv(tmp_path / "f.csv", "2", 2, ("0", "1"))
    np.testing.assert_array_equal(read.x, [[5, 6], [7, 8]])
    assert read.columns == ("0", "1")


ROWS = "".join(f"{i}.5;{i % 7}.5;{i % 2}\n" for i in range(40))


@pytest.mark.parametrize(
    "text",
    [
        '"Price, EUR";"Size, m2";y\n' + ROWS,
        "Price, EUR;Size, m2;y\n" + ROWS,
        '"a;b,c","d;e",y\n' + ROWS.replace(";", ","),
        "a b\tc,d\ty\n" + ROWS.replace(";", "\t"),
        "a;b,c,y\n" + ROWS.replace(";", ","),
        ROWS,
        '"x\ny";"u, v";"w, z"\n' + ROWS,
    ],
)
def test_the_separator_makes_a_table_of_numbers(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.csv").write_text(text)
    assert read_csv(tmp_path / "f.csv").x.shape == (40, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ROWS.replace(".", ","), "line 1, column 0: got '0,5', expected .*a decimal comma"),
        ("a;b;y\n" + ROWS.replace(".", ","), "line 2, column a: got '0,5', .*a decimal comma"),
        (ROWS.replace(";", " "), "got one column, .* separate them by comma, semicolon or tab"),
        (ROWS.replace(";", "|"), "separate them by comma"),
        ("a;b;y\n" + ROWS.replace(";0\n", ";0,25\n").replace(";1\n", ";1,5\n"), "decimal comma"),
        (ROWS.replace("3.5", "1_000"), "got '1_000', expected a finite number .*without _"),
        (ROWS.replace("3.5", "٣.5"), "got '٣.5', expected a finite number"),
    ],
)
def test_other_spellings_of_numbers_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "f.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        load_file(tmp_path / "f.csv")


def test_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes("a,b\n1,\xe9\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not CSV in UTF-8"):
        read_csv(tmp_path / "f.csv")


def test_missing_column_lists_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text(CSV)
    with pytest.raises(DataError, match="has no column 'target'; it has a, b, kind"):
        read_csv(tmp_path / "f.csv", "target")


def test_mutated_files_give_nothing_but_our_error(tmp_path: Path) -> None:
    """3,000 random damages: loaded, or DataError; nothing else, and nothing huge."""
    rng = np.random.default_rng(0)
    originals: list[tuple[str, bytes, Callable[[Path], Any]]] = [
        ("f.idx", idx(IMAGES), read_idx),
        ("f.idx.gz", gzip.compress(idx(IMAGES), mtime=0), read_idx),
        ("f.npy", npy(np.arange(12.0).reshape(3, 4)), read_npy),
        ("f.npz", npz(x=np.arange(12.0).reshape(3, 4), t=np.arange(3)), read_npz),
        ("f.csv", CSV.encode(), read_csv),
    ]
    refused = 0
    for name, content, read in originals:
        for _ in range(600):
            damaged = bytearray(content)
            for _ in range(rng.integers(1, 4)):
                damaged = damaged or bytearray(b"\0")
                match rng.integers(0, 4):
                    case 0:
                        damaged[rng.integers(0, len(damaged))] ^= 1 << rng.integers(0, 8)
                    case 1:
                        damaged[rng.integers(0, len(damaged))] = rng.integers(0, 256)
                    case 2:
                        del damaged[rng.integers(0, len(damaged)) :]
                    case 3:
                        damaged += rng.bytes(3)
            (tmp_path / name).write_bytes(damaged)
            with contextlib.suppress(DataError):
                read(tmp_path / name)
                continue
            refused += 1
    assert refused > 1500


# -- load_file -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "image", "words"),
    [
        ((6, 5), (6, 5), "grey images of 6 x 5"),
        ((1, 6, 5), (6, 5), "grey images of 6 x 5"),
        ((6, 5, 1), (6, 5), "grey images of 6 x 5"),
        ((6, 5, 3), (6, 5, 3), "images of 6 x 5, 3 channels (the last axis)"),
        ((3, 6, 5), (3, 6, 5), "images of 6 x 5, 3 channels (the first axis)"),
        ((3, 6, 3), (3, 6, 3), "images of 6 x 3, 3 channels (the first axis)"),
        ((6, 5, 4), None, "images of 6 x 5, 4 channels (the last axis)"),
        ((6, 5, 2), None, "samples of shape 6 x 5 x 2"),
        ((2, 6, 5, 3), None, "samples of shape 2 x 6 x 5 x 3"),
        ((7,), None, ""),
    ],
)
def test_shapes_of_images(
    tmp_path: Path, shape: tuple[int, ...], image: tuple[int, ...] | None, words: str
) -> None:
    from xpnet.data.images import layout

    file = tmp_path / "a.npz"
    np.savez(file, x=np.zeros((4, *shape), np.uint8), t=np.array([0, 1, 0, 1]))
    assert load_file(file).image_shape == image
    assert layout((4, *shape)) == words


def test_npz_of_images_and_labels(tmp_path: Path) -> None:
    x = np.zeros((30, 5, 4), np.uint8)
    np.savez(tmp_path / "d.npz", X=x, y=np.arange(30) % 3)
    data = load_file(tmp_path / "d.npz")
    assert data.x.dtype == np.uint8
    assert data.image_shape == (5, 4)
    assert data.scaling.scale == 1 / 255
    assert data.classes == ("0", "1", "2")


def test_csv_classes_are_sorted_as_numbers_or_as_text(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("".join(f"{i},{9 + i % 2}\n" for i in range(20)))
    data = load_file(tmp_path / "n.csv")
    assert data.classes == ("9", "10")
    np.testing.assert_array_equal(data.t[:3], [0, 1, 0])
    (tmp_path / "same.csv").write_text("1,0\n2,1\n3,1.0\n4,0.0\n")
    assert load_file(tmp_path / "same.csv").classes == ("0", "1")
    (tmp_path / "t.csv").write_text(CSV)
    assert load_file(tmp_path / "t.csv").classes == ("cat", "dog")


def test_labels_that_count_from_one_are_classes_by_their_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.ones((30, 2)), t=1 + np.arange(30) % 3)
    data = load_file(tmp_path / "d.npz")
    assert data.classes == ("1", "2", "3")
    np.testing.assert_array_equal(data.t[:4], [0, 1, 2, 0])
    np.savez(tmp_path / "e.npz", x=np.ones((2, 2)), t=np.array([3, 4]))
    with pytest.raises(DataError, match="row 1: got 4, expected one of 1, 2, 3"):
        load_file(tmp_path / "e.npz", classes=data.classes)


def test_whole_numbers_that_look_like_a_regression_have_to_be_said(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("".join(f"{i},{i % 90}\n" for i in range(600)))
    with pytest.raises(DataError, match="90 distinct labels in 600 rows; are they classes or"):
        load_file(tmp_path / "f.csv")
    assert load_file(tmp_path / "f.csv", task="regression").classes is None
    assert load_file(tmp_path / "f.csv", task="classification").outputs == 90


@pytest.mark.parametrize(
    ("cell", "advice"),
    [("", "a missing value"), ("1_x", "finite number"), ("Bern", "text: turn it into numbers")],
)
def test_what_to_do_about_a_cell(tmp_path: Path, cell: str, advice: str) -> None:
    (tmp_path / "f.csv").write_text(f"a,b,y\n1,2,0\n3,{cell},1\n")
    with pytest.raises(DataError, match=advice):
        read_csv(tmp_path / "f.csv")


def test_real_labels_are_a_regression(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("a,y\n1,0.5\n2,1.5\n3,2\n")
    data = load_file(tmp_path / "r.csv")
    assert data.classes is None
    np.testing.assert_array_equal(data.t, [[0.5], [1.5], [2.0]])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.ones(3)}, "has a; expected an array named x or X"),
        ({"x": np.ones((3, 2))}, "has x; expected an array named t or y"),
        ({"x": np.ones((3, 2)), "t": np.zeros(2, int)}, "got 2 targets for 3 samples"),
        ({"x": np.ones((3, 2), complex), "t": np.arange(3)}, "x: got values of type complex128"),
        ({"x": np.ones((3, 2)), "t": np.ones(3, "M8[s]")}, "t: got values of type datetime64"),
        ({"x": np.ones((3, 2)), "t": np.zeros(3, int)}, "got 1 class, expected at least two"),
        ({"x": np.ones((99, 2)), "t": np.arange(99) * 7}, "or --task regression"),
        ({"x": np.array([[1.0, np.nan]]), "t": np.zeros(1, int)}, "x: row 0, column 1: got nan"),
        ({"x": np.ones(3), "t": np.arange(3)}, "a single feature has shape (3, 1)"),
        ({"x": np.ones((3, 2)), "t": np.zeros((3, 0), int)}, "samples without values"),
        ({"x": np.ones((3, 2)), "t": np.zeros((3, 1, 2), int)}, "one target or one row"),
    ],
)
def test_bad_npz_data_is_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=re.escape(words)):
        load_file(tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        ("d.doc", {}, "expected a .csv, .tsv, .csv.gz, .parquet, .npz or .npy file"),
        ("x.npy", {}, "x.npy needs a .npy file with its targets: --labels"),
        ("d.npz", {"labels": "t.npy"}, "--labels goes with --data X.npy"),
        ("d.npz", {"label_column": "y"}, "--label-column goes with a .csv, .tsv or .parquet file"),
        ("d.csv", {"task": "classify"}, "task is 'classify'; expected auto, classification, reg"),
    ],
)
def test_misused_options_are_refused(path: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        load_file(path, **options)  # type: ignore[arg-type]


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: does not exist"):
        load_file("nowhere.csv")


def test_mnist_folder_without_its_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no train-images-idx3-ubyte\.gz"):
        load("mnist", tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        load("mnist", tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["{}", "{}.gz"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_mnist_files_under_the_names_that_unpackers_give(
    tmp_path: Path, name: str, dot: str
) -> None:
    for part, n in (("train", 20), ("t10k", 10)):
        arrays = {"images-idx3": np.zeros((n, 28, 28), np.uint8), "labels-idx1": np.arange(n) % 10}
        for kind, array in arrays.items():
            path = tmp_path / name.format(f"{part}-{kind}-ubyte".replace("-idx", f"{dot}idx"))
            content = idx(array.astype(np.uint8))
            path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    train, test = load("mnist", tmp_path)
    assert test is not None
    assert (len(train), len(test)) == (20, 10)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        ((20, 28, 29), (20,), "got images of shape (28, 29), expected (28, 28)"),
        ((20, 28, 28), (19,), "got labels of shape (19,), expected (20,)"),
        ((20, 28, 28), (20, 2), "got labels of shape (20, 2), expected (20,)"),
    ],
)
def test_mnist_headers_are_compared_before_the_images_are_read(
    tmp_path: Path, no_values: None, images: tuple[int, ...], labels: tuple[int, ...], words: str
) -> None:
    for part in ("train", "t10k"):
        for kind, shape in (("images-idx3", images), ("labels-idx1", labels)):
            array = np.zeros(shape, np.uint8)
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    with pytest.raises(DataError, match=re.escape(words)):
        load("mnist", tmp_path)


# -- Download, from a server on this machine -------------------------------------------------


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder served over HTTP, and a data set of four small files that names it."""
    import hashlib
    import http.server
    import threading
    from functools import partial

    from xpnet.data import catalog

    served, cache = tmp_path / "served", tmp_path / "cache"
    served.mkdir()
    rng = np.random.default_rng(0)
    files = []
    for part, n in zip(catalog._PARTS, (20, 20, 10, 10), strict=True):
        images = "images" in part
        array = rng.integers(0, 10, (n, 28, 28) if images else n).astype(np.uint8)
        content = gzip.compress(idx(array), mtime=0)
        (served / f"{part}.gz").write_bytes(content)
        files.append((len(content), hashlib.sha256(content).hexdigest()))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            hits.append(self.path)
            if conduct:
                conduct[0](self)
            else:
                super().do_GET()

    hits: list[str] = []
    conduct: list[Callable[[Any], None]] = []
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(served))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    good = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setitem(catalog._SOURCES, "mnist", ((good + "gone/", good), tuple(files)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    yield served, hits, conduct
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_from_the_second_mirror_once(mirror: Any) -> None:
    _, hits, _ = mirror
    train, test = load("mnist")
    assert train.x.shape == (20, 784)
    assert test is not None
    assert test.x.shape == (10, 784)
    assert len(hits) == 8  # each file: the first mirror does not have it, the second does
    load("mnist")
    assert len(hits) == 8


def test_an_altered_download_is_refused(mirror: Any) -> None:
    served, _, _ = mirror
    path = served / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=r"train-labels.*could not be downloaded.*--data-dir") as e:
        load("mnist")
    assert "\n" not in str(e.value)


def test_a_damaged_cache_is_fetched_anew(mirror: Any, tmp_path: Path) -> None:
    _, hits, _ = mirror
    load("mnist")
    (cached,) = (tmp_path / "cache").rglob("t10k-images-idx3-ubyte.gz")
    cached.write_bytes(b"damaged")
    load("mnist")
    assert len(hits) == 10


@pytest.mark.parametrize(
    ("status", "words"),
    [(200, "not the published content"), (302, "not the published content"), (404, "HTTP 404")],
)
def test_a_body_that_does_not_end_is_not_read_to_the_end(
    mirror: Any, status: int, words: str
) -> None:
    _, hits, conduct = mirror
    sent = []

    def endless(handler: Any) -> None:
        handler.send_response(status)
        handler.send_header("Location", "/elsewhere")
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                sent.append(handler.wfile.write(bytes(1 << 16)))

    conduct.append(endless)
    with pytest.raises(DataError, match=f"{words}, .*{words}"):
        load("mnist")
    assert len(hits) == 2
    assert sum(sent) < 64 << 20  # what fits into the buffers of two connections


def test_headers_that_do_not_end_are_not_read_to_the_end(mirror: Any) -> None:
    _, hits, conduct = mirror

    def endless(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers = lambda: None
        handler.flush_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b"X-Padding: " + b"x" * 50_000 + b"\r\n")

    conduct.append(endless)
    with pytest.raises(DataError, match=r"not reachable, .*not reachable"):
        load("mnist")
    assert len(hits) == 2


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_server_that_does_not_go_on_is_given_up_and_leaves_no_file(
    mirror: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, part: str
) -> None:
    import threading

    _, hits, conduct = mirror
    released = threading.Event()
    found: list[Path] = []

    def stalling(handler: Any) -> None:
        if part == "body":
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(b"the first bytes")
            handler.wfile.flush()
        # Whoever is killed now leaves what is there.
        found.extend(path for path in (tmp_path / "cache").rglob("*") if path.is_file())
        released.wait(30)

    conduct.append(stalling)
    monkeypatch.setattr("xpnet.data.catalog.START", 0.2)
    monkeypatch.setattr("xpnet.data.catalog.SLOWEST", 1e9)
    try:
        with pytest.raises(DataError, match=r"too slow, .*too slow"):
            load("mnist")
    finally:
        released.set()
    assert len(hits) == 2
    assert found == []
    conduct.clear()
    load("mnist")
    assert len(list((tmp_path / "cache").rglob("*ubyte*"))) == 4
