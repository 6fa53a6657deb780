"""Predictions from a user's file: which column is which, and what the values mean."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from xpnet import Trainer, mlp
from xpnet.commands import predict, train
from xpnet.data.dataset import Scaling


def write(path: str, rows: Sequence[Sequence[object]], header: str = "") -> None:
    with open(path, "w", newline="") as file:
        file.write(f"{header}\n" if header else "")
        csv.writer(file).writerows(rows)


def trained(data: str, *args: str) -> None:
    options = ["--device", "cpu", "--epochs", "3", "--quiet", "--out", "run"]
    assert train.main([*options, "--data", data, *args]) == 0


def predicted(file: str, run: str = "run") -> str:
    assert predict.main([run, file, "--out", "p.csv"]) == 0
    return Path("p.csv").read_text()


def refused(file: str, capsys: pytest.CaptureFixture[str]) -> str:
    Path("p.csv").unlink(missing_ok=True)
    assert predict.main(["run", file, "--out", "p.csv"]) == 2
    assert not Path("p.csv").exists()
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.fixture
def features(in_tmp: Path) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(60, 2)).round(3)


def labelled(x: np.ndarray, labels: Sequence[object]) -> list[list[object]]:
    return [[*row, labels[i % len(labels)]] for i, row in enumerate(x.tolist())]


@pytest.mark.parametrize("header", ["a,b,y", ""])
@pytest.mark.parametrize("labels", [("no", "yes"), (0, 1), (0.25, 1.75, 3.125)])
def test_labels_in_the_rows_to_predict_are_not_read(
    features: np.ndarray, header: str, labels: tuple[object, ...]
) -> None:
    """Blank, missing or known: the predictions are those without the column."""
    write("f.csv", labelled(features, labels), header)
    trained("f.csv")
    write("bare.csv", features.tolist(), header.removesuffix(",y"))
    expected = predicted("bare.csv")
    for filled in (labels, ("",), ("NA", labels[0]), ("?",)):
        write("new.csv", labelled(features, filled), header)
        assert predicted("new.csv") == expected


@pytest.mark.parametrize("labels", [("no", "yes"), (0, 1)])
def test_a_column_too_many_is_not_taken_for_the_label(
    features: np.ndarray, labels: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """An id in front would shift the features, and drop the last one."""
    with_id = [[100 + i, *row] for i, row in enumerate(features.tolist())]
    write("f.csv", labelled(features, labels))
    trained("f.csv")
    write("id.csv", with_id)
    assert "line 1, column 2: got '-0.132' as the label, expected one of" in refused(
        "id.csv", capsys
    )
    write("id.csv", with_id, "id,a,b")
    assert "leave out what is neither a feature nor the label" in refused("id.csv", capsys)
    write("f.csv", labelled(features, labels), "a,b,y")
    trained("f.csv", "--out", "named")
    expected = predicted("f.csv", "named")
    assert predicted("id.csv", "named") == expected  # by name, so an id does no harm


def test_a_model_without_names_knows_its_classes_by_their_numbers(
    features: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer(mlp([2, 3]))
    trainer.fit(features, np.arange(60) % 3, epochs=1)
    trainer.save("m.npz")
    write("f.csv", labelled(features, (0, 1, 2)))
    assert predict.main(["m.npz", "f.csv", "--out", "p.csv"]) == 0
    write("id.csv", [[100 + i, *row] for i, row in enumerate(features.tolist())])
    assert predict.main(["m.npz", "id.csv"]) == 2
    assert "got '-0.132' as the label, expected one of 0, 1, 2;" in capsys.readouterr().err


def test_a_regression_says_which_column_it_leaves_out(
    features: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    write("f.csv", labelled(features, (0.25, 1.75, 3.125)))
    trained("f.csv")
    capsys.readouterr()
    predicted("f.csv")
    assert capsys.readouterr().err == "xpnet: f.csv: left out column 2 as the label\n"


def test_features_are_found_by_name_and_a_missing_one_is_named(
    features: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    write("f.csv", labelled(features, (0, 1)), "a,b,y")
    trained("f.csv")
    expected = predicted("f.csv")
    write("new.csv", features[:, ::-1].tolist(), "b,a")
    assert predicted("new.csv") == expected
    write("new.csv", [["", "x", *row] for row in features.tolist()], "y,more,a,b")
    assert predicted("new.csv") == expected
    write("new.csv", features.tolist(), "a,c")
    assert "has no column 'b'" in refused("new.csv", capsys)


def test_the_shape_of_samples_is_checked_before_they_are_read(
    features: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    write("f.csv", labelled(features, (0, 1)))
    trained("f.csv")
    np.savez("x.npz", x=np.zeros((10, 3)), junk=np.zeros(10))
    assert "x: got samples of shape (3,), expected 2 features" in refused("x.npz", capsys)
    Path("x-idx3").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 3]) + bytes(3))
    assert "samples of shape (1, 3), expected 2 features" in refused("x-idx3", capsys)


def test_the_test_file_has_the_labels_where_the_header_says(
    features: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    write("f.csv", labelled(features, ("01", "1E2")), "a,b,y")
    write("t.csv", [[r[2], *r[:2]] for r in labelled(features[:20], ("01", "1E2"))], "y,a,b")
    trained("f.csv", "--test-data", "t.csv")
    write("t.csv", labelled(features[:20], ("1", "100")), "a,b,y")
    options = ["--device", "cpu", "--data", "f.csv", "--test-data", "t.csv"]
    assert train.main([*options, "--out", "other"]) == 2
    assert "line 2, column y: got '1', expected one of 01, 1E2" in capsys.readouterr().err
    assert not Path("other").exists()


def test_what_the_labels_are_is_printed_for_every_kind_of_file(
    features: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("d.npz", x=features, t=np.arange(60) % 3 + 5.0)
    assert train.main(["--device", "cpu", "--data", "d.npz", "--dry-run"]) == 0
    assert "\nlabels    5, 6, 7\n" in capsys.readouterr().out


@pytest.mark.filterwarnings("always")
def test_bytes_where_the_training_had_none_are_said(
    features: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.arange(120, dtype=np.uint8).reshape(60, 2)
    np.savez("d.npz", x=x.astype(float), t=np.arange(60) % 2)
    np.savez("bytes.npz", x=x, t=np.arange(60) % 2)
    trained("d.npz")
    expected = predicted("d.npz")
    assert capsys.readouterr().err == ""
    assert predicted("bytes.npz") == expected  # in the unit of the training
    words = "xpnet: warning: bytes.npz: got uint8, the training samples are float64; the values"
    assert words in capsys.readouterr().err
    trained("bytes.npz", "--test-data", "d.npz", "--out", "other")
    assert "d.npz: got float64, the training samples are uint8" in capsys.readouterr().err


def test_a_label_column_called_none(features: np.ndarray) -> None:
    write("f.csv", [[r[2], *r[:2]] for r in labelled(features, (0, 1))], "none,a,b")
    trained("f.csv", "--label-column", "none")
    write("new.csv", features.tolist(), "a,b")
    assert len(predicted("new.csv").splitlines()) == 61
    assert train.main(["--resume", "run", "--epochs", "4", "--quiet"]) == 0


# -- How numbers are written -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e-30, 1.6e-19, 3.7e-7, 2.5e-3, 0.5, 123.456, 1e9])
@pytest.mark.parametrize("spread", [None, 1e-25, 1e-6, 40.0, 1e12])
def test_no_prediction_loses_its_digits(
    in_tmp: Path, dtype: str, size: float, spread: float | None
) -> None:
    """Also where the targets were not scaled, or differ from 0 by less than their spread."""
    scaling = None if spread is None else Scaling(np.zeros(1), np.array([1 / spread]))
    network = mlp([1, 1], loss="squared", init=0.0)
    trainer = Trainer(network, dtype=dtype, target_scaling=scaling)
    trainer.params["W1"][...] = size / (spread or 1.0)
    trainer.save("m.npz")
    x = np.array([[1.0], [-2.0], [0.0]])
    np.save("x.npy", x)
    assert predict.main(["m.npz", "x.npy", "--out", "p.csv"]) == 0
    got = np.loadtxt("p.csv", skiprows=1)
    np.testing.assert_allclose(got, trainer.predict(x)[:, 0], rtol=1e-3, atol=0)


def test_numbers_of_usual_size_have_six_decimals_and_neighbours_do_not_matter() -> None:
    values = np.array([[0.125, 1e-9], [12.0, 0.25]])
    expected = [["0.125000", "1e-09"], ["12.000000", "0.250000"]]
    assert list(predict._numbers(values)) == expected
    assert list(predict._numbers(values[:1])) == expected[:1]
    assert list(predict._numbers(values, np.array([1e3, 1e6]))) == [
        ["0.125", "1e-09"], ["12.000", "0.25"],
    ]  # fmt: skip


def test_a_small_probability_is_not_0(in_tmp: Path) -> None:
    trainer = Trainer(mlp([1, 2], init=0.0), dtype="float64")
    trainer.params["W1"][...] = [[0.0, 1.0]]
    trainer.save("m.npz")
    x = np.array([[-1.0], [-20.0], [-300.0]])
    np.save("x.npy", x)
    assert predict.main(["m.npz", "x.npy", "--out", "p.csv"]) == 0
    got = np.loadtxt("p.csv", skiprows=1, delimiter=",")[:, 2]
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-x[:, 0])), rtol=1e-3, atol=0)
