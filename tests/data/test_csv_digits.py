"""Plain numbers out of bytes: as float() reads them, bit by bit, or not at all."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from xpnet.data import digits
from xpnet.data.cells import number
from xpnet.data.digits import plain_numbers, split
from xpnet.data.table_files import read_table
from xpnet.errors import DataError


def read(cells: list[str]) -> tuple[np.ndarray, np.ndarray]:
    found = split("".join(f"{cell}\n" for cell in cells).encode(), ",", 1)
    assert found is not None
    return plain_numbers(found.data, *(places.ravel() for places in found[1:]))


PLAIN = [
    "0", "-0", "7", "-12.5", ".5", "5.", "00012.50", "9" * 18, "0." + "1" * 18,
    "9007199254740993", "9007199254740992.5", "0.1", "2.675", "0.30000000000000004",
]  # fmt: skip
OTHER = [
    "", "-", ".", "-.", "1.2.3", "1e5", "nan", "inf", "1_0", " 1", "1 ", "+1", "é", "٣", "--1",
    "5-3", "1-", "9" * 19, "0." + "1" * 19, "1:2", "/9", "\0", "1\0", "0x1", "1.-2", "x" * 50,
]  # fmt: skip


@pytest.mark.parametrize("extended", [True, False])
def test_known_cells(extended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "EXTENDED", extended and digits.EXTENDED)
    values, sure = read(PLAIN + OTHER)
    assert not sure[len(PLAIN) :].any()
    for cell, value, known in zip(PLAIN, values, sure, strict=False):
        if known:
            assert np.float64(value).tobytes() == np.float64(cell).tobytes(), cell
        else:
            digit_count = len(cell.lstrip("-0.").replace(".", ""))
            assert digit_count > 15, cell


def test_random_cells_are_what_float_says() -> None:
    rng = np.random.default_rng(0)
    cells = [repr(float(x)) for x in rng.standard_normal(20_000) * 10.0 ** rng.integers(-4, 12)]
    cells += [repr(float(x)) for x in rng.uniform(-1000, 1000, 20_000)]
    cells += [f"{x:.3f}" for x in rng.standard_normal(5000)]
    cells += [str(2**53 + k) + end for k in range(-50, 500) for end in ("", ".5", ".25", "5")]
    cells += [f"{m / 2**k:.18g}" for k in range(1, 11) for m in range(2**20 + 1, 2**20 + 99, 2)]
    for _ in range(20_000):
        text = "".join(rng.choice([*"0123456789"], rng.integers(0, 21)))
        point = rng.integers(0, len(text) + 1)
        cells.append(rng.choice(["", "-"]) + text[:point] + rng.choice(["", "."]) + text[point:])
    values, sure = read(cells)
    for cell, value, known in zip(cells, values, sure, strict=True):
        if known:
            expected = number(cell)
            assert expected is not None
            assert value == expected, cell
            assert math.copysign(1, value) == math.copysign(1, expected), cell
    assert sure[:40_000].mean() > 0.9 or not digits.EXTENDED


def test_lines_of_another_width_are_not_split() -> None:
    assert split(b"1,2\n3,4\n", ",", 2) is not None
    for data in (b"1,2\n3\n4,5\n", b"1\n2,3,4\n", b"1,2\n\n3,4\n", b"1,2,3\n4,5\n6\n", b"\n"):
        assert split(data, ",", 2) is None, data


CELLS = (
    "1", "-2.5", "0.1", "1e3", "1e-400", " 7", "", "NA", "nan", "-", "inf", "true", "False", "a",
    "é", "b c", "1_0", "007", "9007199254740993", "\0", "\x0b", "\u2028", "1" * 25, "none", "3.0.1",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_quotes_make_no_difference(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table, and the same with every cell in quotes, which the csv module reads."""
    monkeypatch.setattr("xpnet.data.csv.CHUNK", 64)
    rng = np.random.default_rng(seed)
    kinds = [
        list(rng.choice(CELLS, rng.integers(1, 4))) if rng.random() < 0.7 else ["1", "2.5", "-3"]
        for _ in range(6)
    ]
    table = [[str(rng.choice(kind)) for kind in kinds] for _ in range(30)]
    end = str(rng.choice(["\n", "\r\n", "\r"]))
    blank = [end if rng.random() < 0.05 else "" for _ in table]
    outcomes = []
    for quote in ("", '"', "some"):
        lines = [
            blanks + ",".join(f'"{c}"' if quote == '"' or (quote and k == 17) else c for c in row)
            for k, (row, blanks) in enumerate(zip(table, blank, strict=True))
        ]
        (tmp_path / "f.csv").write_bytes((end.join(lines) + end).encode())
        try:
            read = read_table(tmp_path / "f.csv", header="no", label_column="-1", id_column="0")
        except DataError as error:
            outcomes.append(str(error))
            continue
        columns = [
            (
                c.name, c.boolean, c.values,
                None if c.numbers is None else c.numbers.tobytes(),
                None if c.codes is None else c.codes.tolist(),
            )
            for c in read.table.columns
        ]  # fmt: skip
        outcomes.append(
            repr((columns, read.labels, read.ids, list(read.table.lines or []), read.notes))
        )
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_quoted_cell_may_end_far_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpnet.data.csv.CHUNK", 20)
    plain = "".join(f"{i},{i}.5,u\n" for i in range(20))
    quoted = '7,"' + "text\n" * 30 + '",v\n'
    (tmp_path / "f.csv").write_text("a,b,y\n" + plain + quoted + plain)
    file = read_table(tmp_path / "f.csv")
    assert len(file.table) == 41
    assert list(file.table.lines or [])[18:23] == [20, 21, 52, 53, 54]
    assert file.table["b"].values[20] == ("text\n" * 30).strip()
    (tmp_path / "f.csv").write_text("a,b,y\n" + plain + '7,"text\n' + plain)
    with pytest.raises(DataError, match="is not CSV in UTF-8: unexpected end of data"):
        read_table(tmp_path / "f.csv")
