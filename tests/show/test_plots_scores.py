"""The pictures of scores: drawn for every number of classes, with the right numbers in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from matplotlib.image import imread

from xpnet import metrics
from xpnet.show import plots
from xpnet.show.plots import probabilities


def answers(classes: int, n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    t = rng.integers(0, classes, n)
    t[: min(classes, n)] = np.arange(classes)[:n]
    logits = rng.standard_normal((n, classes)) + 2.0 * np.eye(classes)[t]
    p = np.exp(logits)
    return t, (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are written, to read their texts and lines."""
    from matplotlib.figure import Figure

    made: list[Any] = []
    save = Figure.savefig

    def keep(figure: Any, *args: Any, **options: Any) -> None:
        made.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
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
    assert {"99 % of 100", ">99 % of 50,000", "no samples", "b\\n", "c" * 15 + "…" + "c" * 8} <= {
        *found
    }
    assert any(text == "Confusion matrix, exam: 49,949 of 50,100 right (99.7%)" for text in found)


def test_of_many_classes_the_lowest_recall_is_named(tmp_path: Path, figures: list[Any]) -> None:
    matrix = np.diag(np.full(40, 10))
    matrix[7] = matrix[:, 7] = 0
    matrix[9, :2], matrix[9, 9] = 4, 2
    plots.confusion(matrix, [f"k{i}" for i in range(40)], tmp_path / "c.png")
    caption = figures[0].get_supxlabel()
    assert caption.startswith("Lowest recall: k9: 20 %, k0: 100 %")  # k7 has no samples


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
    assert f"the share of the class, {t.mean():.1%}" in figures[1].get_supxlabel()


def test_of_many_curves_the_lowest_are_shown(tmp_path: Path, figures: list[Any]) -> None:
    t, p = answers(12)
    p[t == 3] = 1 / 12  # nothing known of this class
    assert plots.roc(t, p, [f"k{i}" for i in range(12)], tmp_path / "r.png") == 10
    assert any(line.endswith("  k3") for line in legend(figures[0]))
    assert "12 classes, each against the rest, mean AUC" in figures[0].get_suptitle()
    assert "the 10 of 12 classes with the lowest AUC" in figures[0].get_supxlabel()


def test_curves_in_a_corner_are_enlarged(tmp_path: Path, figures: list[Any]) -> None:
    t, p = answers(3, 1000)
    sure = np.eye(3)[t] + 0.01 * p
    for name, (draw, left) in enumerate(((plots.roc, 0.0), (plots.precision_recall, 0.75))):
        draw(t, p, list("abc"), tmp_path / f"{name}.png")
        draw(t, sure / sure.sum(axis=1, keepdims=True), list("abc"), tmp_path / f"{name}.png")
        whole, near = (figure.axes[0].get_xlim() for figure in figures[-2:])
        assert whole == pytest.approx((-0.02, 1.02))
        assert near == pytest.approx((left, left + 0.25), abs=0.01)
        assert "The axes show the best corner only" in figures[-1].get_supxlabel()


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
    low, high = probabilities._wilson(np.array([81 / 263]), np.array([263]))
    assert (low[0], high[0]) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(("n", "outputs"), [(1, 0), (50, 1), (9, 7), (30_000, 0)])
def test_values(outputs: int, n: int, tmp_path: Path, figures: list[Any]) -> None:
    rng = np.random.default_rng(0)
    t = rng.standard_normal((n, outputs) if outputs else n)
    y = t.reshape(n, -1) + 0.1
    drawn = plots.draw_scores(tmp_path, t, y, targets=["height $", "w" * 40])
    assert [path.name for path in drawn] == ["predictions.png", "residuals.png"]
    shown = min(max(outputs, 1), 6)
    predicted, residuals = (
        [axes for axes in figure.axes if axes.get_xlabel() in ("true", "predicted")]
        for figure in figures
    )
    assert len(predicted) == len(residuals) == shown
    for axes, offset in ((predicted[0], 0.1), (residuals[0], -0.1)):
        if n > 5000:  # shades of how many there are
            (cells,) = axes.collections
            assert cells.get_array().sum() == n
            assert "the darker" in axes.figure.get_supxlabel()
            continue
        x, y_ = axes.get_lines()[0].get_xydata().T
        assert len(x) == n
        np.testing.assert_allclose(y_ - (x if offset > 0 else 0), offset)
    assert predicted[0].get_xlim() == predicted[0].get_ylim()
    assert predicted[0].get_aspect() == 1
    score = 1 - n * 0.01 / np.sum((t - t.mean(axis=0)) ** 2, axis=0).ravel()[0] if n > 1 else None
    words = "undefined" if score is None else f"{score:.4g}"
    assert predicted[0].get_title() == f"height $: R² {words}, RMSE 0.1"
    assert residuals[0].get_title() == "height $: MAE 0.1, RMSE 0.1"
    if outputs == 7:
        assert predicted[1].get_title().startswith("w" * 15 + "…" + "w" * 8)
        assert predicted[2].get_title().startswith("target 2: ")
        assert "(the first 6 of 7 targets)" in figures[0].get_suptitle()


@pytest.mark.parametrize("t", [np.full(4, 7.0), np.full(6000, -1e9)])
def test_targets_that_do_not_vary(t: np.ndarray, tmp_path: Path, figures: list[Any]) -> None:
    plots.draw_scores(tmp_path, t, t, name="val")
    assert figures[0].axes[0].get_title() == "R² undefined, RMSE 0"
    assert figures[1].axes[0].get_title() == "MAE 0, RMSE 0"
    assert figures[1].get_suptitle() == f"Residuals, {len(t):,} val samples"


def test_shares_are_never_rounded_to_none_or_all() -> None:
    from xpnet.show.plots.confusion import _percent

    shares = [0.0, 1e-9, 0.005, 0.0051, 0.5, 0.9949, 0.995, 1 - 1e-9, 1.0]
    assert [*map(_percent, shares)] == ["0", "<1", "<1", "1", "50", "99", ">99", ">99", "100"]
