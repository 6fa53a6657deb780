"""A history for people: a frame, a dict, a picture, a line."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import asdict, fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import Trainer, optim
from xpnet.errors import NonFiniteLossError, UsageError
from xpnet.trainer import Epoch, History
from xpnet.trainer.frames import LIBRARIES

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
T = (X.sum(axis=1) > 0).astype(int)
NUMBERS = [field.name for field in fields(Epoch)][:-1]


def trained(**options: Any) -> History:
    options = {"epochs": 5, "batch_size": 20, **options}
    return Trainer(xpnet.mlp([3, 8, 2]), optim.Adam(0.01)).fit(X, T, **options)


@pytest.fixture(scope="module")
def plain() -> History:
    return trained()


@pytest.fixture(scope="module")
def watched() -> History:
    return trained(validation=(X[:40], T[:40]), metric="roc_auc", patience=3)


# -- Dicts and frames ------------------------------------------------------------------


def test_a_dict_has_the_fields_of_the_epochs(plain: History, watched: History) -> None:
    for history in (plain, watched):
        made = history.to_dict()
        assert list(made)[: len(NUMBERS)] == NUMBERS
        for i, epoch in enumerate(history.epochs):
            expected = asdict(epoch)
            expected["val_roc_auc"] = expected.pop("val_metric")
            assert {name: made[name][i] for name in made} == {n: expected[n] for n in made}
    assert list(plain.to_dict()) == NUMBERS
    assert list(watched.to_dict()) == [*NUMBERS, "val_roc_auc"]
    json.dumps(watched.to_dict())


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_frame_has_a_row_an_epoch(library: str, plain: History, watched: History) -> None:
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    for history in (plain, watched):
        frame = history.to_frame(library)
        assert isinstance(frame, module.Table if library == "pyarrow" else module.DataFrame)
        columns = frame.column_names if library == "pyarrow" else list(frame.columns)
        assert columns == list(history.to_dict())
        for name, values in history.to_dict().items():
            column = np.array(frame[name], dtype=float)
            np.testing.assert_array_equal(column, np.array(values, dtype=float))
            kind = str(frame[name].type if library == "pyarrow" else frame[name].dtype).lower()
            assert kind in (("int64",) if name in ("epoch", "step") else ("float64", "double"))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_frame_of_no_epoch_has_the_same_columns(library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    frame = History().to_frame(library)
    assert len(frame) == 0
    assert list(frame.column_names if library == "pyarrow" else frame.columns) == NUMBERS


def test_missing_values_are_null_where_a_library_has_null(plain: History) -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    assert plain.to_frame("polars")["val_loss"].to_list() == [None] * 5
    assert plain.to_frame("polars").schema["val_loss"] == polars.Float64
    assert len(plain.to_frame("polars").drop_nulls("val_loss")) == 0


def test_frames_train_and_plot_as_others_do(watched: History) -> None:
    """A frame of a history is one that xpnet itself takes."""
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = watched.to_frame()
    assert type(frame).__module__.startswith("pandas")
    assert frame.set_index("epoch")["val_roc_auc"].idxmax() == watched.best_epoch


def test_the_first_library_that_is_there(monkeypatch: pytest.MonkeyPatch, plain: History) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "polars", None)
    assert type(plain.to_frame()).__module__.startswith("pyarrow")


def test_without_a_library_the_message_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, plain: History
) -> None:
    for name in LIBRARIES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match="needs pandas, polars or pyarrow: pip install pandas"):
        plain.to_frame()
    with pytest.raises(UsageError, match="to_frame needs polars: pip install polars"):
        plain.to_frame("polars")
    with pytest.raises(UsageError, match="library is 'arrow'; expected pandas, polars, pyarrow"):
        plain.to_frame("arrow")


def test_a_library_without_what_it_needs_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plain: History
) -> None:
    (tmp_path / "pandas.py").write_text("import nothing_of_this_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    with pytest.raises(UsageError, match=r"pandas cannot be imported: .*nothing_of_this_name"):
        plain.to_frame("pandas")


# -- The picture -----------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n"


def test_plot_without_a_path_is_a_picture_for_a_notebook(watched: History) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    picture = watched.plot()
    assert picture is not None
    assert picture._repr_png_()[:8] == PNG
    assert "PNG" in repr(picture) == str(picture)
    assert len(repr(picture)) < 120


def test_plot_writes_the_format_of_the_suffix(watched: History, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert watched.plot(tmp_path / "curves.png") is None
    assert (tmp_path / "curves.png").read_bytes() == watched.plot()
    assert watched.plot(str(tmp_path / "curves.svg")) is None
    text = (tmp_path / "curves.svg").read_text()
    assert "<svg" in text


def test_plot_names_the_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    asked = []
    monkeypatch.setattr(
        "xpnet.show.plots.curves", lambda history, path, metric: asked.append(metric)
    )
    trained().plot(tmp_path / "a.png")
    regression = Trainer(xpnet.mlp([3, 1], loss="squared"))
    regression.fit(X, X[:, 0], epochs=1).plot(tmp_path / "b.png")
    History(epochs=[Epoch(1, 1, 1.0, None, None, None, 1.0, 1.0)]).plot(tmp_path / "c.png")
    assert asked == ["accuracy", "r2", "score"]


def test_what_cannot_be_plotted_is_refused_in_a_line(plain: History, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    with pytest.raises(UsageError, match="no epoch is finished yet"):
        History().plot()
    with pytest.raises(UsageError, match=r"curves\.txt: .*png"):
        plain.plot(tmp_path / "curves.txt")
    with pytest.raises(FileNotFoundError):
        plain.plot(tmp_path / "nowhere" / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_message_is_for_python() -> None:
    script = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'matplotlib':\n"
        "            raise ModuleNotFoundError('No module named matplotlib', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from xpnet.trainer import Epoch, History\n"
        "history = History(epochs=[Epoch(1, 1, 1.0, None, None, None, 1.0, 1.0)])\n"
        "try:\n"
        "    history.plot()\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "plot() needs matplotlib: pip install 'xpnet[plot]'\n"


def test_a_history_is_made_without_matplotlib_and_frames() -> None:
    late = {"matplotlib", "pandas", "polars", "pyarrow", "narwhals"}
    script = f"import sys, xpnet\nxpnet.History\nassert not {late} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True)


# -- In a line, and as a table ---------------------------------------------------------


def test_repr_says_how_it_went(plain: History, watched: History) -> None:
    last = plain.epochs[-1]
    assert repr(plain) == (
        f"<History: 5 epochs, 30 steps; train loss {last.train_loss:.4g}, "
        f"train accuracy {last.train_score:.4g}>"
    )
    assert f"val roc auc {watched.epochs[-1].val_metric:.4g}; best epoch " in repr(watched)
    assert repr(History()) == "<History: no epoch yet, 0 steps>"
    stopped = trained(epochs=99, validation=(X[:40], 1 - T[:40]), patience=2)
    assert repr(stopped).endswith("best epoch 1; ended by patience>")
    called = trained(callbacks=lambda *_: True)
    assert repr(called).endswith("ended by a callback>")
    assert repr(trained(stop=lambda: True)).startswith("<History: no epoch yet, ")


def test_a_regression_has_r2() -> None:
    history = Trainer(xpnet.mlp([3, 1], loss="squared")).fit(X, X[:, 0], epochs=1)
    assert "train r2 " in repr(history)


def test_repr_is_short_after_a_long_run() -> None:
    epochs = [Epoch(i, 10**6 * i, 1 / i, 1.0, 2.0, 0.5, 1.0, 1.0) for i in range(1, 5001)]
    history = History(epochs=epochs, best_epoch=70, kept=np.zeros(100_000))
    history.best_params = {"W": np.zeros((1000, 1000))}
    assert len(repr(history)) < 200
    assert len(str(history).splitlines()) == 5
    assert "\n" not in repr(history)


def rows(history: History) -> list[list[str]]:
    return [line.split() for line in str(history).splitlines()[2:]]


def test_the_table_has_the_first_the_best_and_the_last_epoch(watched: History) -> None:
    watched = pickle.loads(pickle.dumps(watched))
    watched.best_epoch = 3
    found = rows(watched)
    assert [row[:2] for row in found] == [["first", "1"], ["best", "3"], ["last", "5"]]
    for row, i in zip(found, (0, 2, 4), strict=True):
        epoch = watched.epochs[i]
        values = (epoch.train_loss, epoch.train_score, epoch.val_loss, epoch.val_score)
        assert row[2:] == [f"{v:.4g}" for v in (*values, epoch.val_metric)]
    watched.best_epoch = 5
    assert [row[:3] for row in rows(watched)][1] == ["best,", "last", "5"]


def test_one_epoch_is_one_row() -> None:
    history = trained(epochs=1)
    assert rows(history)[0][:3] == ["first,", "last", "1"]
    assert len(rows(history)) == 1


def test_a_number_that_an_epoch_lacks_is_an_empty_cell() -> None:
    history = History(
        epochs=[
            Epoch(1, 1, 1.0, 0.5, None, None, 1.0, 1.0),
            Epoch(2, 2, 0.5, None, 0.7, None, 1.0, 1.0),
        ]
    )
    header, _, first, last = str(history).splitlines()
    assert header.split("  ")[-1].strip() == "val loss"
    assert first.split() == ["first", "1", "1", "0.5"]
    assert last.split() == ["last", "2", "0.5", "0.7"]


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def test_html_has_the_cells_of_the_text(watched: History) -> None:
    cells = Cells()
    html = watched._repr_html_()
    assert html is not None
    cells.feed(html)
    assert [" ".join(row).split() for row in cells.rows[1:]] == rows(watched)
    assert cells.rows[0][1:] == [
        "epoch", "train loss", "train accuracy", "val loss", "val accuracy", "val roc auc",
    ]  # fmt: skip
    assert History()._repr_html_() is None
    assert str(History()) == repr(History())


# -- What the trainer keeps ------------------------------------------------------------


def test_the_trainer_keeps_the_history_of_its_last_fit() -> None:
    trainer = Trainer(xpnet.mlp([3, 8, 2]))
    assert trainer.history is None
    seen = []

    def callback(trainer: Trainer, epoch: Epoch) -> None:
        assert trainer.history is not None
        seen.append(len(trainer.history.epochs))

    first = trainer.fit(X, T, epochs=2, callbacks=callback)
    assert trainer.history is first
    assert seen == [1, 2]
    second = trainer.fit(X, T, epochs=1)
    assert trainer.history is second is not first
    copied = pickle.loads(pickle.dumps(trainer))
    assert copied.history.epochs == second.epochs
    with pytest.raises(UsageError):
        trainer.fit(X, T, epochs=0)
    assert trainer.history is second


def test_a_training_that_diverges_leaves_what_there_is() -> None:
    trainer = Trainer(xpnet.mlp([3, 1], loss="squared"), optim.SGD(1e3))
    with pytest.raises(NonFiniteLossError), np.errstate(all="ignore"):
        trainer.fit(1e3 * X, X[:, 0], epochs=50)
    assert trainer.history is not None
    assert len(trainer.history.epochs) < 50
    assert "epoch" in repr(trainer)


def test_a_resumed_run_says_the_same(tmp_path: Path) -> None:
    part = {"batch_size": 20, "folder": tmp_path, "validation": (X[:40], T[:40])}
    Trainer(xpnet.mlp([3, 8, 2]), optim.Adam(0.01)).fit(X, T, epochs=2, **part)
    resumed = Trainer(xpnet.mlp([3, 8, 2]), optim.Adam(0.01))
    resumed.fit(X, T, epochs=5, resume=True, **part)
    whole = trained(validation=(X[:40], T[:40]))
    assert resumed.history is not None
    assert repr(resumed.history) == repr(whole)
    assert str(resumed.history) == str(whole)
