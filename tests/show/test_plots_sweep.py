"""The picture of a sweep: which models are where, and what is said of those that are nowhere."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from xpnet.show.plots import Dot, sweep, sweep_figure

BEST = {"lr": 0.01, "hidden": (50,)}


def dots(score: Any = lambda lr, hidden, seed: 1 - lr - 0.01 * seed) -> list[Dot]:
    """Rates times sizes times seeds."""
    every = itertools.product((0.1, 0.01), ((100, 50), (50,), ()), range(3))
    return [Dot({"lr": lr, "hidden": h}, score(lr, h, seed), seed) for lr, h, seed in every]


def legend(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def notes(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_a_panel_for_each_setting_with_numbers_in_order() -> None:
    figure = sweep_figure(dots(), best=BEST, chosen=12, title="Sweep on d.csv")
    left, right = figure.axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("lr", "hidden")
    assert left.get_ylabel() == "validation accuracy"
    assert [text.get_text() for text in left.get_xticklabels()] == ["0.01", "0.1"]
    assert [text.get_text() for text in right.get_xticklabels()] == ["100,50", "50", "none"]
    assert figure.get_suptitle() == "Sweep on d.csv: 18 models"
    assert legend(figure) == [
        "other models", "models that differ from the best in this alone", "the run's model",
        "mean ± standard deviation over seeds",
    ]  # fmt: skip


def test_blue_are_the_models_beside_the_best_and_the_line_joins_their_means() -> None:
    left, right = sweep_figure(dots(), best=BEST, chosen=12).axes
    for axes, values in ((left, 2), (right, 3)):
        others, near = (len(group.get_offsets()) for group in axes.collections[:2])
        assert near == 3 * values
        assert others == 18 - near
    line = left.containers[0].lines[0]
    assert line.get_xdata().tolist() == [0, 1]
    assert line.get_ydata() == pytest.approx([0.98, 0.89])
    chosen = next(line for line in left.lines if line.get_label() == "the run's model")
    assert chosen.get_ydata() == pytest.approx([1 - 0.01])
    assert round(float(chosen.get_xdata()[0])) == 0


def test_every_model_is_drawn_once_or_counted() -> None:
    """A few bad models do not hide how the others differ; words say how many are not there."""

    def score(lr: float, hidden: Any, seed: int) -> float:
        return (
            math.nan if (hidden, seed) == ((), 2) else 0.1 if seed == 1 and lr == 0.1 else 0.9 + lr
        )

    found = dots(score)
    for axes in sweep_figure(found, best=BEST).axes:
        low, high = axes.get_ylim()
        assert low > 0.5
        points = np.concatenate([group.get_offsets() for group in axes.collections[:2]])
        inside = np.sum((points[:, 1] >= low) & (points[:, 1] <= high))
        words = [part.split() for note in notes(axes) for part in note.split(", ")]
        assert {word for _, word in words} == {"failed", "below"}
        assert inside + sum(int(count) for count, _ in words) == len(found)
    assert sweep_figure(found, best=BEST).get_suptitle() == "Sweep: 18 models, 2 failed"


def test_where_less_is_better_the_bad_ones_are_above() -> None:
    found = dots(lambda lr, hidden, seed: 90.0 if seed == 0 and lr == 0.1 else 1 + lr)
    left, right = sweep_figure(found, best=BEST, metric="mae", falls=True).axes
    assert notes(left) == ["3 above"]
    assert notes(right) == ["1 above"] * 3
    assert left.get_ylabel() == "validation MAE"


def test_seeds_or_folds_alone_have_one_panel() -> None:
    found = [Dot({}, 0.9 + 0.01 * seed, seed) for seed in range(5)]
    figure = sweep_figure(found, best={}, chosen=4)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "seed"
    assert legend(figure)[:1] == ["models"]
    mean = next(line for line in axes.lines if "mean" in line.get_label())
    assert mean.get_ydata() == pytest.approx([0.92, 0.92])
    folds = [Dot({}, 0.9, seed, fold) for seed in range(2) for fold in range(3)]
    figure = sweep_figure(folds, best={}, part="held-out")
    assert figure.axes[0].get_xlabel() == "fold"
    assert figure.axes[0].get_ylabel() == "held-out accuracy"
    assert "over seeds and folds" in legend(figure)[-1]


def test_after_folds_the_best_setting_is_marked() -> None:
    found = [Dot({"lr": lr}, lr, 0, fold) for lr in (0.1, 0.2) for fold in range(3)]
    figure = sweep_figure(found, best={"lr": 0.2})
    mark = next(line for line in figure.axes[0].lines if line.get_label() == "the best setting")
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (1, pytest.approx(0.2))


@pytest.mark.parametrize("score", [math.nan, 0.5, 1.0])
def test_scores_that_are_all_equal_or_all_missing(score: float, tmp_path: Path) -> None:
    sweep(dots(lambda *settings: score), tmp_path / "a.png", best=BEST)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_many_settings_values_and_odd_names_fit(tmp_path: Path) -> None:
    names = [f"setting_{i}" for i in range(8)]
    some = [Dot({**dict.fromkeys(names, 1), names[0]: i}, 0.5 + i / 100) for i in range(40)]
    some.append(Dot({**some[0].settings, names[1]: "$x_1$ of a long name that never ends"}, 0.7))
    figure = sweep_figure(some, best=some[0].settings, title="$a$ " * 30)
    assert sum(axes.get_visible() for axes in figure.axes) == 6
    assert len(figure.axes[0].get_xticks()) <= 12
    figure.savefig(tmp_path / "a.png")
