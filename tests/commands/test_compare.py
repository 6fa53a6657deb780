"""`xpnet compare`: which runs, in which order, with which numbers."""

from __future__ import annotations

import csv
import json
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from xpnet.commands import compare, train
from xpnet.commands.compare import main, read_run
from xpnet.errors import DataError


def make(
    name: str,
    settings: dict[str, Any] | None = None,
    scores: dict[str, Any] | None = None,
    *,
    epochs: int = 3,
    score: str = "accuracy",
    val: bool = True,
    **summary: Any,
) -> Path:
    """A run's folder as train writes it; without scores, of a run that has not ended."""
    folder = Path(name)
    folder.mkdir(parents=True)
    text = tomli_w.dumps({"epochs": 3, "hidden": [50], **(settings or {})})
    (folder / "config.toml").write_text(text)
    lines = [
        {
            "epoch": e, "train_loss": 1.0 / e, f"train_{score}": 1 - 0.5 / e, "seconds": 0.5,
            "val_loss": 1.5 / e if val else None, f"val_{score}": 1 - 0.7 / e if val else None,
        }
        for e in range(1, epochs + 1)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if scores is not None:
        text = json.dumps(
            {
                **{f"test_{name}": value for name, value in scores.items()},
                "epochs": epochs, "best_epoch": 2, "train_seconds": 1.5, **summary,
            }
        )  # fmt: skip
        (folder / "summary.json").write_text(text)
    return folder


def table(out: str) -> list[list[str]]:
    """The words of the first table's lines."""
    return [line.split() for line in out.split("\n\n")[1].splitlines()]


def test_the_best_run_comes_first_with_the_settings_that_differ(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("runs/a", {"lr": 0.1, "hidden": [50, 20]}, {"loss": 0.5, "accuracy": 0.9})
    make("runs/b", {"lr": 0.01, "dropout": 0.5}, {"loss": 0.75, "accuracy": 0.95})
    make("runs/c", {"lr": 0.1}, {"loss": 0.25, "accuracy": 0.93})
    assert main(["runs/a", "runs/b", "runs/c"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert table(out) == [
        [
            "run",
            "hidden",
            "lr",
            "dropout",
            "epochs",
            "best",
            "epoch",
            "seconds",
            "accuracy",
            "loss",
        ],
        ["b", "50", "0.01", "0.5", "3", "2", "1.5", "0.9500", "0.7500"],
        ["c", "50", "0.1", "-", "3", "2", "1.5", "0.9300", "0.2500"],
        ["a", "50,20", "0.1", "-", "3", "2", "1.5", "0.9000", "0.5000"],
    ]
    assert out.startswith("scores on the test part, the best accuracy first:\n")
    assert main(["runs", "--metric", "test_loss"]) == 0
    assert [row[0] for row in table(capsys.readouterr().out)] == ["run", "c", "a", "b"]


def test_a_table_that_is_too_wide_for_the_terminal_is_split(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {f"a_long_name_{i}": i / 10 for i in range(8)}
    make("runs/a", {"lr": 0.1}, {"accuracy": 0.9, **scores})
    make("runs/b", {"lr": 0.2}, {"accuracy": 0.8, **scores})
    assert main(["runs"]) == 0
    whole = table(capsys.readouterr().out)
    assert len(whole) == 3
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 60
    parts = [[line.split() for line in part.splitlines()] for part in out.split("\n\n")[1:]]
    assert len(parts) > 2
    for i in range(3):
        assert all(part[i][0] == whole[i][0] for part in parts)
        assert [cell for part in parts for cell in part[i][1:]] == whole[i][1:]


@pytest.mark.parametrize(
    ("metric", "order"),
    [("r2", "ba"), ("rmse", "ab"), ("mae", "ab"), ("loss", "ab"), (None, "ba")],
)
def test_smaller_errors_are_better(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], metric: str | None, order: str
) -> None:
    make("a", {}, {"loss": 1.0, "r2": 0.1, "mae": 10.0, "rmse": 12.5}, score="r2")
    make("b", {}, {"loss": 2.0, "r2": 0.2, "mae": 20.0, "rmse": 22.5}, score="r2")
    assert main(["a", "b", *(["--metric", metric] if metric else [])]) == 0
    assert [row[0] for row in table(capsys.readouterr().out)[1:]] == [*order]


def test_what_counts_as_smaller_is_better() -> None:
    """As xpnet.metrics says, where it is there."""
    metrics = pytest.importorskip("xpnet.metrics.summary", reason="no xpnet.metrics yet")
    lower = {name for name, metric in metrics.METRICS.items() if metric.better == "lower"}
    assert lower <= {*compare.LOWER}
    assert not ({*metrics.METRICS} - lower) & {*compare.LOWER}


def test_runs_that_differ_in_their_seed_have_a_mean(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five rates, three seeds: the shell loop, and one command."""
    rng = np.random.default_rng(0)
    values = {}
    for lr in (0.001, 0.003, 0.01, 0.03, 0.1):
        values[lr] = [round(float(v), 4) for v in rng.uniform(0.5, 0.99, 3)]
        for seed, value in enumerate(values[lr]):
            make(f"runs/{lr}-{seed}", {"lr": lr, "seed": seed}, {"accuracy": value})
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    assert len(table(out)) == 16
    rows = [line.split() for line in out.split("\n\n")[3].splitlines()]
    assert rows[0] == ["runs", "lr", "accuracy", "best"]
    best = sorted(values, key=lambda lr: -statistics.fmean(values[lr]))
    assert [float(row[1]) for row in rows[1:]] == best
    for row in rows[1:]:
        found = values[float(row[1])]
        assert row[0] == "3"
        assert float(row[2]) == pytest.approx(np.mean(found), abs=1e-4)
        assert float(row[4]) == pytest.approx(np.std(found, ddof=1), abs=1e-4)
        assert float(row[5]) == pytest.approx(max(found), abs=1e-4)


def test_unfinished_and_damaged_runs_are_named_and_stay_in_the_table(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a", {}, {"accuracy": 0.9})
    make("b", {"lr": 0.5}, epochs=1)
    (make("c", {}, {"accuracy": 0.5}) / "summary.json").write_text('{"test_accuracy": 0.')
    (make("d", {}, {"accuracy": 0.7}) / "config.toml").write_text("lr = = 3")
    (make("e", {}, {"accuracy": 0.6}) / "metrics.jsonl").write_bytes(b'{"epoch": 1}\n\xff\n')
    Path("empty").mkdir()
    Path("file.txt").write_text("")
    assert main(["a", "b", "c", "d", "e", "empty", "file.txt", "nowhere"]) == 0
    out, err = capsys.readouterr()
    assert [row[0] for row in table(out)] == ["run", "a", "d", "e", "b", "c"]
    cells = {row[0]: row[1:] for row in table(out)[1:]}
    assert cells["b"] == ["0.5", "1,", "unfinished", "-", "0.5", "-"]
    assert cells["c"] == ["-", "3,", "unfinished", "-", "1.5", "-"]
    lines = err.splitlines()
    assert len(lines) == 7
    assert all(line.isprintable() and line.startswith("xpnet: ") for line in lines)
    assert "b: has no summary.json; the run has not ended" in lines[0]
    assert "c/summary.json: is damaged: " in lines[1]
    assert "d/config.toml: is damaged: " in lines[2]
    assert "e/metrics.jsonl: is damaged: " in lines[3]
    for line, name in zip(lines[4:], ("empty", "file.txt", "nowhere"), strict=True):
        assert f"{name}: is not the folder of a run" in line
        assert line.endswith("; left out")


def test_no_run_is_an_error(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert main(["empty"]) == 2
    assert "got no run, expected folders that xpnet train wrote" in capsys.readouterr().err
    assert main([]) == 2
    assert "RUN is missing; the command takes RUN..." in capsys.readouterr().err


def test_classes_and_numbers_are_not_mixed(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a", {}, {"accuracy": 0.9})
    make("b", {}, {"r2": 0.9}, score="r2")
    make("c", {}, score="r2")
    for other in "bc":
        assert main(["a", other]) == 2
        assert capsys.readouterr().err.splitlines()[-1] == (
            f"xpnet: a is a classification, {other} a regression; expected runs of one kind"
        )


def test_a_metric_that_no_run_has(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("a", {}, {"accuracy": 0.9, "f1": None, "note": "text", "table": [1], "yes": True})
    assert main(["a", "--metric", "recall"]) == 2
    assert capsys.readouterr().err == ("xpnet: --metric is 'recall'; the runs have accuracy, f1\n")
    assert main(["a", "--metric", "f1"]) == 0
    assert table(capsys.readouterr().out)[1] == ["a", "3", "2", "1.5", "-", "0.9000"]


def test_the_csv_has_all_digits(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("a", {"lr": 1 / 3, "hidden": [5, 4]}, {"accuracy": 2 / 3, "loss": 1e-9})
    make("b,$\n", {"lr": 0.5}, {"accuracy": 0.75, "loss": None})
    make("c", {"lr": 0.5})
    assert main(["a", "b,$\n", "c", "--csv", "out.csv"]) == 0
    assert capsys.readouterr().out.endswith("wrote out.csv\n")
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["b,$\n", "a", "c"]
    assert [row["finished"] for row in rows] == ["true", "true", "false"]
    assert rows[1]["hidden"] == "5,4"
    assert float(rows[1]["lr"]) == 1 / 3
    assert float(rows[1]["test_accuracy"]) == 2 / 3
    assert float(rows[1]["test_loss"]) == 1e-9
    assert (rows[0]["test_loss"], rows[2]["test_accuracy"]) == ("", "")
    assert main(["a", "b,$\n", "c", "--csv", "-"]) == 0
    assert capsys.readouterr().out == Path("out.csv").read_text()


def test_odd_names_and_values_stay_in_their_line(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a\x1b[2J\n", {"x\ny": "\x07" * 50, "lr": float("nan")}, {"accuracy": 0.5, "b\nc": 1.0})
    make("日本", {"x\ny": [["\n"]], "lr": 10**30}, {"accuracy": 10**400, "loss": float("inf")})
    (make("c", {}, {}) / "config.toml").write_text(f"lr = 0x{'f' * 9000}")
    assert main(["a\x1b[2J\n", "日本", "c"]) == 0
    out, err = capsys.readouterr()
    assert out.replace("\n", "").isprintable()
    assert len(table(out)) == 4
    assert "c/config.toml: is damaged: " in err


@pytest.mark.parametrize("name", ["config.toml", "summary.json", "metrics.jsonl"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"[" * 100_000, b"null", b"[]", b"3", b'"x"', b"{}\n{}", b"\n\n",
     b'{"epoch": "1"}\n', b'{"epoch": 1, "train_loss": "x", "seconds": [], "val_accuracy": {}}\n',
     b'{"test_accuracy": {"a": 1}, "epochs": [1], "best_epoch": {}, "train_seconds": "x"}\n'],
)  # fmt: skip
def test_no_content_of_a_file_ends_in_a_traceback(
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes,
) -> None:
    make("good", {}, {"accuracy": 0.9})
    (make("bad", {"lr": 0.1}, {"accuracy": 0.8}) / name).write_bytes(content)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)  # takes time
    plot = ["--plot", "x.png"] if name == "metrics.jsonl" else []
    assert main(["good", "bad", *plot]) == 0
    out, err = capsys.readouterr()
    assert table(out)[1][0] == "good"
    assert all(line.isprintable() for line in err.splitlines())


def test_files_that_are_pipes_folders_or_too_large_are_refused(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make("a", {}, {"accuracy": 0.9})
    (folder / "metrics.jsonl").unlink()
    os.mkfifo(folder / "metrics.jsonl")
    assert main(["a"]) == 0
    assert "a/metrics.jsonl: cannot be read: Not a regular file" in capsys.readouterr().err
    monkeypatch.setitem(compare.LARGEST_FILE, "summary.json", 10)
    found = read_run(folder)
    assert found.summary == {}
    assert "a/summary.json: is damaged: is larger than 10 bytes" in found.faults
    with pytest.raises(DataError, match="is not the folder of a run"):
        read_run(Path("nowhere"))


def test_a_line_that_a_killed_run_has_begun_is_left_out(in_tmp: Path) -> None:
    folder = make("a")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4, "tra')
    found = read_run(folder)
    assert [record["epoch"] for record in found.epochs] == [1, 2, 3]
    assert len(found.faults) == 1  # the summary


def test_a_run_counts_once(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("runs/a", {}, {"accuracy": 0.9})
    make("other/a", {}, {"accuracy": 0.8})
    assert main(["runs", "runs/a", "./runs/../runs/a/", "other/a"]) == 0
    names = [row[0] for row in table(capsys.readouterr().out)]
    assert names == ["run", "runs/a", "other/a"]


def test_real_runs(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in ("0", "1"):
        words = ["--device", "cpu", "--epochs", "2", "--quiet", "--seed", seed]
        assert train.main([*words, "--out", f"runs/{seed}"]) == 0
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    found = json.loads(Path("runs/0/summary.json").read_text())
    row = next(row for row in table(out) if row[0] == "0")
    assert row[:3] == ["0", "0", "2"]
    names = table(out)[0][6:]  # after run, seed, epochs, best, epoch, seconds
    assert names[:2] == ["accuracy", "loss"]
    assert {f"test_{name}" for name in names} == {n for n in found if n.startswith("test_")}
    assert row[5:] == [f"{found[f'test_{name}']:.4f}" for name in names]
    assert "over the seeds" in out
    values = [json.loads(p.read_text())["test_accuracy"] for p in Path("runs").glob("*/summ*")]
    assert f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" in out


# -- Picture -------------------------------------------------------------------------------


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are made."""
    import xpnet.show.plots.compare as plots

    made: list[Any] = []
    new_figure = plots.new_figure

    def keep(*size: float) -> Any:
        made.append(new_figure(*size))
        return made[-1]

    monkeypatch.setattr(plots, "new_figure", keep)
    return made


def drawn(axes: Any) -> dict[str, list[float]]:
    return {
        line.get_label(): list(line.get_ydata())
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


def test_the_picture_has_the_curves_of_ten_runs_with_a_legend(
    in_tmp: Path, figures: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(12):
        make(f"runs/{i}", {"lr": 0.1 * i, "dropout": 0.25}, {"accuracy": 0.5 + i / 100})
    assert main(["runs", "--plot", "x.png"]) == 0
    assert capsys.readouterr().out.endswith("drew x.png: 10 of 12 runs on their validation part\n")
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")
    (figure,) = figures
    left, right = figure.axes
    labels = [f"lr {0.1 * i:g}" for i in range(11, 1, -1)]
    assert [*drawn(left)] == [*drawn(right)] == labels
    assert drawn(left)["lr 0.5"] == [1.5, 0.75, 0.5]
    assert drawn(right)["lr 0.5"] == pytest.approx([0.3, 0.65, 1 - 0.7 / 3])
    looks = {
        (line.get_color(), line.get_linestyle())
        for line in left.get_lines()
        if not line.get_label().startswith("_")
    }
    assert len(looks) == 10
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == labels
    frame = legend.get_window_extent()
    assert 0 <= frame.x0 < frame.x1 <= figure.bbox.x1
    assert 0 <= frame.y0 < frame.y1 <= figure.bbox.y1
    for axes in (left, right):
        assert not axes.get_window_extent().overlaps(frame)


def test_the_picture_shows_the_metric_that_all_runs_watched(
    in_tmp: Path, figures: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        folder = make(name, {"lr": ord(name)}, {"accuracy": 0.9, "f1": 0.5})
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        records = [{**json.loads(line), "val_f1": 0.25} for line in lines]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    for metric, value in (("f1", 0.25), ("accuracy", pytest.approx(0.3))):
        assert main(["a", "b", "--metric", metric, "--plot", "x.png"]) == 0
        right = figures.pop().axes[1]
        assert right.get_ylabel() == metric
        assert drawn(right)["lr 97"][0] == value


def test_without_validation_the_picture_shows_the_training(
    in_tmp: Path, figures: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    make("a", {"seed": 1}, {"r2": 0.9}, score="r2")
    make("b$x$", {"seed": 1}, score="r2", val=False)
    assert main(["a", "b$x$", "--plot", "x.svg"]) == 0
    assert "drew x.svg: all runs on their training part" in capsys.readouterr().out
    left, right = figures[0].axes
    assert drawn(left) == {"a": [1.0, 0.5, 1 / 3], "b$x$": [1.0, 0.5, 1 / 3]}
    assert right.get_ylabel() == "R²"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--plot", "x.jpeg"], "expected a name that ends with one of .png, .svg, .pdf"),
        (["--plot", "no/x.png"], "the folder no does not exist"),
        (["--csv", "no/x.csv"], "the folder no does not exist"),
        (["--output", "x.csv"], "unknown option --output"),
    ],
)
def test_what_cannot_be_written_is_refused_first(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    make("a", {}, {"accuracy": 0.9})
    assert main(["a", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert reason in err
    assert err.count("\n") == 1


def test_at_most_ten_curves(in_tmp: Path) -> None:
    from xpnet.show.plots.compare import Curve, compared

    curve = Curve("a", [1], [0.5], [0.5])
    with pytest.raises(ValueError, match="got 11 curves, expected at most 10"):
        compared([curve] * 11, Path("x.png"), "accuracy", "")
    compared([curve], Path("x.png"), "accuracy", "")
