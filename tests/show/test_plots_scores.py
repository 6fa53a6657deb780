"""The pictures of scores: drawn for every number of classes, with the right numbers in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from matplotlib.image import imread

from xpnet import metrics
from xpnet.show.plots import scores as plots


def answers(classes: int, n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    t = rng.integers(0, classes, n)
    t[: min(classes, n)] = np.arange(classes)[:n]
    logits = rng.standard_normal((n, classes)) + 2.0 * np.eye(classes)[t]
    p = np.exp(logits)
    return t, (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn, to read their texts and lines."""
    made: list[Any] = []
    new = plots.new_figure
    monkeypatch.setattr(plots, "new_figure", lambda *size: made.append(new(*size)) or made[-1])
    return made


def texts(figure: Any) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def legend(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


@pytest.mark.parametrize("classes", [2, 12, 31])
def test_all_are_drawn(classes: int, tmp_path: Path, figures: list[Any]) -> None:
    t, p = answers(classes)
    names = [f"_class $ {i}" for i in range(classes)]  # neither hidden, nor mathematics
    drawn = plots.draw_scores(tmp_path, t, p.argmax(axis=1), p, names)
    assert [path.name for path in drawn] == [
        "confusion.png", "roc.png", "precision_recall.png", "calibration.png",
    ]  # fmt: skip
    for path in drawn:
        picture = imread(path)
        assert picture.std() > 0.05
        assert max(picture.shape) < 2500
    curves = min(classes, 10) if classes > 2 else 1
    assert sum("class $" in line for line in legend(figures[1])) == curves


def test_a_number_per_cell_and_the_recall(tmp_path: Path, figures: list[Any]) -> None:
    matrix = np.array([[99, 1, 0], [150, 49_850, 0], [0, 0, 0]])
    plots.confusion(matrix, ["a", "b\n", "c" * 30], tmp_path / "c.png", name="exam")
    found = texts(figures[0])
    assert {"99\n99 %", "1\n1 %", "150\n<1 %", "49,850\n>99 %"} <= {*found}
    assert {"99 % of 100", ">99 % of 50,000", "no samples", "b\\n", "c" * 23 + "…"} <= {*found}
    assert any(text.startswith("exam: 49,949 of 50,100 right (99.7%)") for text in found)


def test_of_many_classes_the_lowest_recall_is_named(tmp_path: Path, figures: list[Any]) -> None:
    matrix = np.diag(np.full(40, 10))
    matrix[7] = matrix[:, 7] = 0
    matrix[9, :2], matrix[9, 9] = 4, 2
    plots.confusion(matrix, [f"k{i}" for i in range(40)], tmp_path / "c.png")
    title = figures[0].axes[0].get_title()
    assert "lowest recall: k9: 20 %, k0: 100 %" in title  # k7 has no samples


def test_areas_are_in_the_legend(tmp_path: Path, figures: list[Any]) -> None:
    t, p = answers(2)
    y = (p[:, 1] > 0.7).astype(int)
    assert plots.roc(t, p, ["no", "yes"], tmp_path / "r.png", predicted=y) == 1
    assert plots.precision_recall(t, p[:, 1], ["no", "yes"], tmp_path / "p.png", predicted=y) == 1
    assert legend(figures[0])[0] == f"{metrics.roc_auc(t, p):.3f}  yes"
    assert legend(figures[1])[0] == f"{metrics.average_precision(t, p):.3f}  yes"
    # Dots of the answers, and the line of a guess.
    dots = [figure.axes[0].get_lines()[-1].get_xydata()[0].tolist() for figure in figures]
    no, yes = metrics.recall(t, y, average=None)
    assert dots[0] == [pytest.approx(1 - no), yes]
    assert dots[1] == [yes, metrics.precision(t, y)]
    assert legend(figures[1])[1] == f"{t.mean():.3g}  share of the class"


def test_of_many_curves_the_lowest_are_shown(tmp_path: Path, figures: list[Any]) -> None:
    t, p = answers(12)
    p[t == 3] = 1 / 12  # nothing known of this class
    assert plots.roc(t, p, [f"k{i}" for i in range(12)], tmp_path / "r.png") == 10
    assert any(line.endswith("  k3") for line in legend(figures[0]))
    assert "mean AUC" in figures[0].axes[0].get_title()
    assert "the 10 of 12 classes with the lowest AUC" in figures[0].axes[0].get_title()


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_alone_has_no_curve(only: int, tmp_path: Path) -> None:
    t, p = np.full(5, only), np.linspace(0.1, 0.9, 5)
    drawn = plots.draw_scores(tmp_path, t, (p > 0.5).astype(int), p, ["no", "yes"])
    expected = ["confusion.png", *["precision_recall.png"] * only, "calibration.png"]
    assert [path.name for path in drawn] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)


def test_without_probabilities(tmp_path: Path) -> None:
    drawn = plots.draw_scores(tmp_path, np.array([0, 1]), np.array([0, 0]), None, ["no", "yes"])
    assert drawn == [tmp_path / "confusion.png"]


def test_calibration_of_two_and_of_more(tmp_path: Path, figures: list[Any]) -> None:
    for classes in (2, 4):
        t, p = answers(classes, 1000)
        plots.calibration(t, p, list("abcd")[:classes], tmp_path / "c.png")
        curve = figures[-1].axes[0].get_lines()[-1].get_xydata()
        sure = p[:, 1] if classes == 2 else p.max(axis=1)
        hit = t == (1 if classes == 2 else p.argmax(axis=1))
        last = (sure > 0.9) & (sure <= 1.0)
        assert curve[-1] == pytest.approx([sure[last].mean(), hit[last].mean()], rel=1e-5)
    assert "probability of the predicted class" in texts(figures[-1])


def test_wilson_intervals() -> None:
    """81 of 263: Newcombe, 1998, table 1."""
    low, high = plots._wilson(np.array([81 / 263]), np.array([263]))
    assert (low[0], high[0]) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(("n", "outputs"), [(1, 0), (50, 1), (9, 7), (30_000, 0)])
def test_residuals(outputs: int, n: int, tmp_path: Path, figures: list[Any]) -> None:
    rng = np.random.default_rng(0)
    t = rng.standard_normal((n, outputs) if outputs else n)
    y = t.reshape(n, -1) + 0.1
    plots.residuals(t, y, tmp_path / "r.png", targets=["height $", "w" * 40])
    axes = figures[0].axes
    assert len(axes) == 2 * min(max(outputs, 1), 6)
    points = axes[0].get_lines()[0].get_xydata()
    assert 1 <= len(points) <= 20_000
    np.testing.assert_allclose(points[:, 1], -0.1)
    assert axes[0].get_title().startswith("test, height $: MAE 0.1, RMSE 0.1, R² ")


def test_a_regression_has_two_pictures(tmp_path: Path) -> None:
    t = np.arange(6.0).reshape(3, 2)
    drawn = plots.draw_scores(tmp_path, t, t + 1, targets=["a"])
    assert [path.name for path in drawn] == ["predictions.png", "residuals.png"]
    assert drawn == sorted(tmp_path.iterdir())


def test_targets_that_do_not_vary(tmp_path: Path, figures: list[Any]) -> None:
    plots.residuals(np.full(4, 7.0), np.full(4, 7.0), tmp_path / "r.png", name="val")
    assert figures[0].axes[0].get_title() == "val: MAE 0, RMSE 0, R² undefined"
