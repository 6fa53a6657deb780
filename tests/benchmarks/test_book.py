"""The benchmark of the book's scripts: both contenders train the same, and the command reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import book, readme, results
from benchmarks.book import CHAPTERS, OURS, PLAIN, Training, check, data, verdicts
from benchmarks.results import Measurement, read
from benchmarks.worker import Failed

STEPS = {"ch04": 12, "ch05": 12, "ch07": 4, "ch08": 2}


@pytest.mark.parametrize("chapter", list(CHAPTERS))
def test_both_contenders_train_the_same(chapter: str) -> None:
    losses = {}
    for name in (PLAIN, OURS):
        train, test = data(CHAPTERS[chapter], 0.005, "")
        training = Training(name, chapter, train, test, 5)
        training.run(STEPS[chapter], lambda: 0.0)
        losses[name] = [float(loss) for loss in training.losses]
        assert len(losses[name]) == STEPS[chapter]
    assert check(losses) < 1e-9


def test_another_training_fails() -> None:
    with pytest.raises(Failed, match=r"different networks: the losses are 1\.0e-01 apart"):
        check({PLAIN: [1.0, 2.0], OURS: [1.0, 2.2]})
    with pytest.raises(Failed):
        check({PLAIN: [1.0, 1.0], OURS: [1.0, 1.0]})  # nothing was learned


def test_a_training_draws_its_own_numbers() -> None:
    train, test = data(CHAPTERS["ch05"], 0.005, "")
    alone = Training(OURS, "ch05", train, test, 5)
    alone.run(4, lambda: 0.0)
    one, other = (Training(name, "ch05", train, test, 5) for name in (OURS, PLAIN))
    for _ in range(4):
        one.run(1, lambda: 0.0)
        other.run(1, lambda: 0.0)
    assert one.losses == alone.losses


def test_the_command_measures_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "book.jsonl"
    words = ["--chapters", "ch05", "--rounds", "2", "--share", "0.005", "--clock", "cpu"]
    assert book.main([*words, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "ch05: ReLU, 784-50-10, each in a process of its own\n" in printed
    assert "ch05, one process: xpnet.book, times as fast as plain NumPy" in printed
    header, measurements = read(out)
    assert header["benchmark"] == "book"
    assert len(measurements) == 4
    for m in measurements:
        assert len(m["values"]) == 2
        assert m["loss_error"] < 1e-9
    assert "| chapter 5: ReLU, 784-50-10 | " in "\n".join(book.section(header, measurements))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--chapters", "ch09"], "--chapters ch09: expected some of ch04, ch05, ch07, ch08"),
        (["--rounds", "0"], "--rounds 0: expected 1 or more"),
    ],
)
def test_the_command_refuses(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert book.main(words) == 2
    assert message in capsys.readouterr().err


def made_up(chapter: str, processes: int, plain: float, ours: float) -> list[Measurement]:
    case = {"chapter": chapter, "processes": processes}
    return [
        {"case": case, "contender": name, "median": value, "values": [value], "accuracy": 0.9}
        for name, value in ((PLAIN, plain), (OURS, ours))
    ]


def test_what_was_asked_is_held_against_what_was_measured() -> None:
    measurements = [
        *made_up("ch05", 2, 120.0, 100.0), *made_up("ch05", 1, 90.0, 100.0),
        *made_up("ch07", 2, 900.0, 200.0), *made_up("ch07", 1, 700.0, 200.0),
    ]  # fmt: skip
    found = list(verdicts(measurements))
    assert [v.measured for v in found] == [1.2, 0.9, 4.5, 3.5, 1.2, 0.9]
    assert [v.holds for v in found] == [True, False, True, False, True, False]
    table = "\n".join(book.lines(measurements))
    assert "| 1.20 (1.20 to 1.20) | **0.90 (0.90 to 0.90) MISSED** | 1.0 |" in table


def test_the_pages_show_the_committed_results() -> None:
    header, measurements = read(results.newest("book"))
    chapters: set[Any] = {m["case"]["chapter"] for m in measurements}
    assert chapters == set(CHAPTERS)
    assert all(np.isfinite(m["values"]).all() for m in measurements)
    section = "\n".join(book.section(header, measurements))
    page = readme.ROOT / "benchmarks/RESULTS.md"
    assert section in page.read_text(encoding="utf-8")
