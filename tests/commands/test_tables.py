"""From a table to a model by command: the jobs that users bring."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet import Model
from xpnet.commands import evaluate, predict, train

QUICK = ("--device", "cpu", "--quiet", "--out", "run")


def write(path: str, header: str, rows: Any) -> None:
    with open(path, "w", newline="") as file:
        file.write(header + "\n")
        csv.writer(file).writerows(rows)


def titanic(n: int = 400) -> list[list[Any]]:
    """Ids, classes, names, categories, true / false, and ages of which a fifth is missing."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        sex, place = rng.choice(["male", "female"]), int(rng.integers(1, 4))
        age = "" if rng.random() < 0.2 else round(float(rng.uniform(1, 80)), 1)
        alone = "True" if rng.random() < 0.5 else "False"
        odds = 2.5 * (sex == "female") - 0.8 * (place - 2) - 1.0
        survived = "yes" if rng.random() < 1 / (1 + np.exp(-2 * odds)) else "no"
        rows.append([100 + i, f"Mr. X, the {i}th", sex, place, age, alone, survived])
    return rows


HEADER = "id,name,sex,place,age,alone,survived"


@pytest.fixture
def passengers(in_tmp: Path) -> list[list[Any]]:
    rows = titanic()
    write("titanic.csv", HEADER, rows)
    return rows


@pytest.fixture
def trained(passengers: list[list[Any]]) -> list[list[Any]]:
    args = ("--data", "titanic.csv", "--drop", "name", "--id", "id", "--epochs", "40")
    assert train.main([*QUICK, *args]) == 0
    return passengers


def summary(folder: str = "run") -> Any:
    return json.loads((Path(folder) / "summary.json").read_text())


def predicted(*args: str) -> list[dict[str, str]]:
    assert predict.main([*args, "--out", "p.csv"]) == 0
    with open("p.csv", newline="") as file:
        return [*csv.DictReader(file)]


# -- Training --------------------------------------------------------------------------


def test_a_column_of_names_is_refused_with_the_option_that_helps(
    passengers: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*QUICK, "--data", "titanic.csv"]) == 2
    err = capsys.readouterr().err
    assert "'name' has a different text in (nearly) every row" in err
    option = re.search("--drop [a-z,]+", err)
    assert option is not None
    assert train.main([*QUICK, "--data", "titanic.csv", *option[0].split(), "--epochs", "1"]) == 0


def test_text_gaps_and_truth_values_train(trained: Any) -> None:
    found = summary()
    assert found["test_accuracy"] > 0.7
    assert {"test_f1", "test_roc_auc", "test_balanced_accuracy", "test_log_loss"} <= found.keys()
    model = Model.load("run/model.npz")
    assert model.predicts_names  # the labels are text
    assert model.columns == (
        "sex = female", "sex = male", "place", "age", "age missing", "alone",
    ) or set(model.columns) == {"sex = female", "sex = male", "place", "age", "age missing",
                                "alone"}  # fmt: skip


def test_a_dry_run_shows_what_becomes_of_each_column(
    passengers: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--data", "titanic.csv", "--drop", "name", "--id", "id", "--dry-run")
    assert train.main([*QUICK, *args]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = {line.split()[0]: line for line in lines[lines.index("") :] if line}
    assert [*table] == ["column", "sex", "place", "age", "alone"]
    assert re.search(r"categories +(male, female|female, male) +2 columns", table["sex"])
    missing = sum(row[4] == "" for row in passengers)
    assert missing > int(table["age"].split()[5]) > 0.5 * missing  # of the training part
    assert not Path("run").exists()


@pytest.mark.parametrize("kind", ["tsv", "csv.gz", "semicolons"])
def test_every_kind_of_text_file_gives_the_same_model(
    in_tmp: Path, trained: list[list[Any]], kind: str
) -> None:
    delimiter = {"tsv": "\t", "csv.gz": ",", "semicolons": ";"}[kind]
    name = {"semicolons": "other.csv"}.get(kind, f"other.{kind}")
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([HEADER.split(","), *trained])
    content = text.getvalue().encode()
    Path(name).write_bytes(gzip.compress(content) if kind == "csv.gz" else content)
    args = ("--data", name, "--drop", "name", "--id", "id", "--epochs", "40")
    assert train.main([*QUICK[:-1], "other", *args]) == 0
    one, other = (Model.load(f"{folder}/model.npz").to_host() for folder in ("run", "other"))
    for parameter in one:
        np.testing.assert_array_equal(one[parameter], other[parameter])


def test_a_parquet_file_gives_the_same_model(trained: list[list[Any]]) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pandas.read_csv("titanic.csv").to_parquet("t.parquet")
    args = ("--data", "t.parquet", "--drop", "name", "--id", "id", "--epochs", "40")
    assert train.main([*QUICK[:-1], "other", *args]) == 0
    one, other = (Model.load(f"{folder}/model.npz").to_host() for folder in ("run", "other"))
    for parameter in one:
        np.testing.assert_array_equal(one[parameter], other[parameter])


def test_columns_are_chosen_and_left_out(trained: Any) -> None:
    args = ("--data", "titanic.csv", "--columns", "age,sex", "--epochs", "1")
    assert train.main([*QUICK[:-1], "two", *args]) == 0
    encoder = Model.load("two/model.npz").encoder
    assert encoder is not None
    assert encoder.columns == ("sex", "age")


def test_a_file_without_a_header_line_is_known_by_places(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row[2:] for row in titanic(200)]
    write("f.csv", ",".join(map(str, rows[0])), rows[1:])
    args = ("--data", "f.csv", "--header", "no", "--epochs", "20")
    assert train.main([*QUICK, *args]) == 0
    with_labels = predicted("run", "f.csv", "--header", "no")
    write("bare.csv", ",".join(map(str, rows[0][:-1])), [row[:-1] for row in rows[1:]])
    assert predicted("run", "bare.csv", "--header", "no") == with_labels
    assert len(with_labels) == 200


def test_numbers_of_columns_mean_those_of_the_training_file(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a dropped column stands right of the labels, which a new file leaves out."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3)).round(3)
    rows = [[1000.5 + i, int(a + b > 0), a, j, b] for i, (a, j, b) in enumerate(x.tolist())]
    write("f.csv", "0.5,0,0.5,0.5,0.25", rows)
    args = ("--data", "f.csv", "--label-column", "1", "--drop", "3", "--id", "0", "--epochs", "9")
    assert train.main([*QUICK, *args]) == 0
    expected = predicted("run", "f.csv")
    assert [row["0"] for row in expected][1:3] == ["1000.5", "1001.5"]
    write("bare.csv", "0.5,0.5,0.5,0.25", [[row[0], *row[2:]] for row in rows])
    assert predicted("run", "bare.csv") == expected
    write("features.csv", "0.5,0.25", [[row[2], row[4]] for row in rows])
    answers = [{k: v for k, v in row.items() if k != "0"} for row in expected]
    assert predicted("run", "features.csv") == answers
    write("more.csv", "1.5,2,3,4,5,6.5", [[*row, 7] for row in rows])
    capsys.readouterr()
    for command in (predict, evaluate):
        assert command.main(["run", "more.csv"]) == 2
        err = capsys.readouterr().err
        assert "got 6 columns, expected 5, as the training file has" in err
    assert evaluate.main(["run", "f.csv", "--json"]) == 0


def test_a_word_among_numbers_is_refused_wherever_it_falls(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for row in range(0, 100, 9):  # in the training part and in the test part
        rows = [[i * 37 % 101, i % 2] for i in range(100)]
        rows[row][0] = "free"  # type: ignore[call-overload]
        write("f.csv", "price,kind", rows)
        assert train.main([*QUICK, "--data", "f.csv"]) == 2
        err = capsys.readouterr().err
        assert f"line {row + 2}, column price: got 'free', but 99 of 100 values are numbers" in err


@pytest.mark.parametrize("layout", ["train and test", "train"])
def test_the_arrays_of_keras(in_tmp: Path, layout: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (120, 8, 8, 3)).astype(np.uint8)
    t = (x.mean(axis=(1, 2, 3)) > 127.5).astype(int)[:, None]
    more = {"x_test": x[:40], "y_test": t[:40]} if layout == "train and test" else {}
    np.savez("k.npz", x_train=x, y_train=t, **more)
    assert train.main([*QUICK, "--data", "k.npz", "--epochs", "3", "--batch-size", "100"]) == 0
    steps = 3 * (2 if more else 1)  # all 120 samples train where there is a test part
    assert summary()["steps"] == steps


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((28, 28), "grey images of 28 x 28"),
        ((1, 28, 28), "grey images of 28 x 28"),
        ((28, 28, 1), "grey images of 28 x 28"),
        ((32, 30, 3), "images of 32 x 30, 3 channels (the last axis)"),
        ((3, 32, 30), "images of 32 x 30, 3 channels (the first axis)"),
    ],
)
def test_it_is_said_how_images_are_taken(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], shape: tuple[int, ...], words: str
) -> None:
    np.savez("i.npz", x=np.zeros((40, *shape), np.uint8), t=np.arange(40) % 2)
    assert train.main(["--device", "cpu", "--data", "i.npz", "--dry-run"]) == 0
    assert f"samples   {words}\n" in capsys.readouterr().out


def test_numbers_or_classes_is_asked(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)).round(3)
    t = np.rint(100 + 40 * x[:, 0] + 5 * x[:, 1]).astype(int)
    write("d.csv", "a,b,c,progress", np.column_stack([x, t]).tolist())
    Path("d.csv").write_text(Path("d.csv").read_text().replace(".0\r\n", "\r\n"))
    assert train.main([*QUICK, "--data", "d.csv"]) == 2
    assert "are they classes or numbers? Say --task" in capsys.readouterr().err
    args = ("--data", "d.csv", "--task", "regression", "--epochs", "150", "--lr", "0.01")
    assert train.main([*QUICK, *args]) == 0
    found = summary()
    assert found["test_r2"] > 0.9
    assert found["test_mae"] < found["test_rmse"] < 12.0  # in the targets' own units


# -- Rare classes ----------------------------------------------------------------------


def fraud(n: int = 3000) -> list[list[Any]]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 3)).round(3)
    rare = x[:, 0] + x[:, 1] > 3.0
    return [[*row, "fraud" if r else "fair"] for row, r in zip(x.tolist(), rare, strict=True)]


@pytest.mark.filterwarnings("ignore:no better than guessing")  # which is right
def test_class_weights_and_a_threshold_find_the_rare_class(in_tmp: Path) -> None:
    write("f.csv", "a,b,c,kind", fraud())
    common = ("--data", "f.csv", "--epochs", "30", "--val-fraction", "0.25", "--metric", "f1")
    recall = {}
    for name, args in {
        "plain": ("--epochs", "2"),
        "balanced": ("--class-weight", "balanced", "--epochs", "3"),
        "named": ("--class-weight", "fraud=50", "--epochs", "3"),
        "threshold": ("--threshold", "F1"),
    }.items():
        assert train.main([*QUICK[:-1], name, *common, *args]) == 0
        recall[name] = summary(name)["test_recall"]
    assert recall["balanced"] >= 0.8
    assert recall["named"] >= 0.8
    assert recall["plain"] < 0.5
    model = Model.load("threshold/model.npz")
    assert model.threshold == pytest.approx(summary("threshold")["threshold"])
    lines = [json.loads(line) for line in Path("plain/metrics.jsonl").read_text().splitlines()]
    assert all({"val_loss", "val_accuracy", "val_f1"} <= line.keys() for line in lines)


def test_the_threshold_decides_in_predict_and_evaluate(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("f.csv", "a,b,c,kind", fraud(600))
    args = ("--data", "f.csv", "--epochs", "3", "--threshold", "0.05")
    assert train.main([*QUICK, *args]) == 0
    rows = predicted("run", "f.csv")
    assert any(float(row["p_fraud"]) < 0.5 for row in rows if row["prediction"] == "fraud")
    for row in rows:
        assert (float(row["p_fraud"]) >= 0.05) == (row["prediction"] == "fraud")
    capsys.readouterr()
    found = {}
    for threshold in ("0.05", "0.9"):
        assert evaluate.main(["run", "f.csv", "--json", "--threshold", threshold]) == 0
        found[threshold] = json.loads(capsys.readouterr().out)
    right = [row["prediction"] == cells[-1] for row, cells in zip(rows, fraud(600), strict=True)]
    assert found["0.05"]["accuracy"] == pytest.approx(np.mean(right))
    assert found["0.05"]["recall"] > found["0.9"]["recall"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--class-weight", "spam=2"], "no class 'spam'; there are fair, fraud"),
        (["--metric", "rmse", "--val-fraction", "0.2"], "metric rmse is for a regression"),
        (["--metric", "f1"], "--metric needs --val-fraction"),
        (["--threshold", "F1"], "--threshold F1 needs --val-fraction"),
        (["--loss", "hinge", "--threshold", "0.3"], "Hinge"),
        (["--drop", "colour"], "has no column 'colour'"),
        (["--id", "colour"], "has no column 'colour'"),
        (["--columns", "a,kind", "--drop", "a"], "a"),
    ],
)
def test_what_does_not_suit_the_data_is_refused_in_one_line(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    write("f.csv", "a,b,c,kind", fraud(200))
    assert train.main([*QUICK, "--data", "f.csv", *args]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not Path("run").exists()


# -- Predicting ------------------------------------------------------------------------


def test_rows_to_predict_come_in_any_order_with_ids(
    trained: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predicted("run", "titanic.csv")
    assert [row["id"] for row in expected] == [str(row[0]) for row in trained]
    write("new.csv", "alone,age,more,sex,place,id", [
        [row[5], row[4], "x", row[2], row[3], row[0]] for row in trained
    ])  # fmt: skip
    assert predicted("run", "new.csv") == expected
    text = Path("new.csv").read_text()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert predicted("run", "-") == expected
    write("bare.csv", "alone,age,sex,place", [[r[5], r[4], r[2], r[3]] for r in trained])
    assert predicted("run", "bare.csv") == [
        {key: row[key] for key in row if key != "id"} for row in expected
    ]
    named = predicted("run", "new.csv", "--id", "more")
    assert [row["more"] for row in named] == ["x"] * len(trained)


@pytest.mark.filterwarnings("default")
def test_what_the_training_did_not_have_is_counted_and_said(
    trained: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write("new.csv", "sex,place,age,alone", [["other", 1, 30, "True"], ["", 2, "", "False"]])
    assert len(predicted("run", "new.csv")) == 2
    err = capsys.readouterr().err
    assert "column 'sex': 1 row has a value that the training did not have (other)" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("sex,place,age", "male,1,30", "has no column 'alone'"),
        ("sex,place,age,alone", "male,first,30,True", "line 2: column 'place' has 'first'"),
        ("sex,place,age,alone,id", "male,1,30,True,7,8", "line 2: got 6 columns, expected 5"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    trained: Any, capsys: pytest.CaptureFixture[str], header: str, row: str, words: str
) -> None:
    Path("new.csv").write_text(f"{header}\n{row}\n")
    assert predict.main(["run", "new.csv"]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "option", "words"),
    [
        (predict, "--id", "column age is a feature, which the model was trained with, and the ids"),
        (evaluate, "--label-column", "column 'age' is a feature, which the model was trained with"),
    ],
)
def test_a_feature_has_no_other_role(
    trained: Any, capsys: pytest.CaptureFixture[str], command: Any, option: str, words: str
) -> None:
    assert command.main(["run", "titanic.csv", option, "age"]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_note_names_the_file_once(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"male,1,{age},False,no\n" for age in [*range(20, 90), "old"])
    Path("new.csv").write_text(f"sex,place,age,alone,survived\n{rows}")
    for command in (predict, evaluate):
        assert command.main(["run", "new.csv"]) == 2
        note, error = capsys.readouterr().err.splitlines()
        assert note.startswith("xpnet: new.csv: line 72, column age: got 'old' among 70 numbers")
        assert error.startswith("xpnet: new.csv: line 72: column 'age' has 'old', expected")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_refused_with_advice(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], encoding: str
) -> None:
    Path("f.csv").write_bytes("ä,b\n1,yes\n2,no\n".encode(encoding))
    assert train.main([*QUICK, "--data", "f.csv"]) == 2
    err = capsys.readouterr().err
    assert "f.csv: is not CSV in UTF-8" in err
    assert err.endswith("; save it as UTF-8\n")


# -- Evaluating ------------------------------------------------------------------------


def test_a_saved_model_is_scored(
    trained: list[list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert evaluate.main(["run", "titanic.csv", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = predicted("run", "titanic.csv")
    right = [row["prediction"] == cells[-1] for row, cells in zip(rows, trained, strict=True)]
    assert found["accuracy"] == pytest.approx(np.mean(right))
    assert found["samples"] == len(trained)
    assert evaluate.main(["run", "titanic.csv"]) == 0
    out = capsys.readouterr().out
    assert f"accuracy {found['accuracy']:.4f}" in out
    assert re.search(r"class +precision +recall +f1 +samples", out)


def test_the_pictures_of_a_score(trained: Any) -> None:
    pytest.importorskip("matplotlib")
    assert evaluate.main(["run", "titanic.csv", "--plot", "pictures"]) == 0
    names = sorted(path.name for path in Path("pictures").iterdir())
    assert names == ["calibration.png", "confusion.png", "precision_recall.png", "roc.png"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: [row[:-1] for row in rows], "has no column 'survived'"),
        (lambda rows: [[*row[:-1], "maybe"] for row in rows], "got 'maybe', expected one of no"),
        (lambda rows: [[*row[:-1], ""] for row in rows], "got '', a missing label"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    trained: list[list[Any]], capsys: pytest.CaptureFixture[str],
    change: Callable[[Any], Any], words: str,
) -> None:  # fmt: skip
    rows = change(trained)
    write("new.csv", ",".join(HEADER.split(",")[: len(rows[0])]), rows)
    assert evaluate.main(["run", "new.csv"]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


# -- Training on -----------------------------------------------------------------------


def test_a_model_is_trained_on_with_new_data(
    trained: list[list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Encoder, classes, weights, and Adam's moments: the loss goes on where it was."""
    write("more.csv", HEADER, [row for row in trained if row[2] == "male"])
    args = ("--data", "more.csv", "--drop", "name", "--init-from", "run", "--epochs", "2")
    args += ("--lr", "0.001")
    assert train.main([*QUICK[:-1], "on", *args]) == 0
    one, on = (Model.load(f"{folder}/model.npz") for folder in ("run", "on"))
    assert on.encoder == one.encoder
    assert on.classes == one.classes
    first = json.loads(Path("on/metrics.jsonl").read_text().splitlines()[0])
    began, *_, ended = map(json.loads, Path("run/metrics.jsonl").read_text().splitlines())
    assert first["train_loss"] < (began["train_loss"] + ended["train_loss"]) / 2
    # Resumed, it goes on from its own checkpoint: the model that it began with may be gone.
    Path("run").rename("elsewhere")
    assert train.main(["--resume", "on", "--epochs", "4", "--quiet"]) == 0
    assert summary("on")["epochs"] == 4


def test_a_network_cannot_be_changed_while_it_is_trained_on(
    trained: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--data", "titanic.csv", "--drop", "name", "--init-from", "run", "--hidden", "7")
    assert train.main([*QUICK[:-1], "on", *args]) == 2
    assert "--hidden is the model's own" in capsys.readouterr().err


def test_a_resumed_run_goes_on_from_no_other_model(
    trained: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path("run/config.toml").read_text()
    assert train.main(["--resume", "run", "--init-from", "run", "--epochs", "50"]) == 2
    assert "--init-from starts a new run" in capsys.readouterr().err
    assert Path("run/config.toml").read_text() == before


def test_a_finished_run_takes_another_threshold(trained: Any) -> None:
    assert train.main(["--resume", "run", "--threshold", "0.125", "--quiet"]) == 0
    assert Model.load("run/model.npz").threshold == summary()["threshold"] == 0.125
    assert "threshold = 0.125" in Path("run/config.toml").read_text()
