"""The pictures of a run and of its network: what is drawn, and which numbers stand there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.style import context

import xpnet
from xpnet.data.dataset import Dataset
from xpnet.errors import UsageError
from xpnet.show import plots
from xpnet.show.plots import figure as style
from xpnet.show.plots.network import remark
from xpnet.trainer.history import Epoch, History


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are written."""
    made: list[Any] = []
    save = Figure.savefig

    def keep(figure: Any, *args: Any, **options: Any) -> None:
        made.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return made


def history(
    epochs: int = 5, steps: int = 4, *, val: bool = True, metric: str = "", **columns: Any
) -> History:
    """A run whose loss falls as 1 / epoch, with its smallest validation loss in the middle."""
    made = History(metric=metric)
    for i in range(1, epochs + 1):
        made.unfinished.extend([1 / i] * steps)
        values = {
            "train_loss": 1 / i, "train_score": 1 - 0.5 / i,
            "val_loss": 1 / i + 0.1 * i if val else None, "val_score": 0.9 if val else None,
            "val_metric": 0.01 * i if metric else None,
        }  # fmt: skip
        values |= {name: column[i - 1] for name, column in columns.items()}
        record = Epoch(i, steps * i, seconds=1.0, samples_per_second=1.0, **values)
        made.close(record)
        if made.is_best(record):
            made.best_epoch = i
    return made


def words(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def lines(axes: Any) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


# -- Curves ----------------------------------------------------------------------------


def test_curves_with_validation_and_the_best_epoch() -> None:
    run = history()
    figure = plots.curves_figure(run, title="Network 2-3, relu")
    assert figure.get_suptitle() == "Network 2-3, relu: 5 epochs, 20 steps"
    left, right = figure.axes
    assert run.best_epoch == 3
    assert [axes.get_title() for axes in figure.axes] == [
        f"validation {1 / 3 + 0.3:.4g} in epoch 3", "validation 0.9 in epoch 3",
    ]  # fmt: skip
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
    drawn = lines(left)
    assert [*drawn] == ["train, each step", "train", "validation", "best epoch, by loss", "_best"]
    assert drawn["_best"].tolist() == [[3.0, pytest.approx(1 / 3 + 0.3)]]
    assert drawn["train"][:, 0].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert drawn["validation"][:, 0].tolist() == [1, 2, 3, 4, 5]
    assert len(drawn["train, each step"]) == 20
    assert "train, each step" not in lines(right)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*drawn][:4]


def test_curves_of_training_alone() -> None:
    figure = plots.curves_figure(history(val=False), "r2")
    assert [axes.get_title() for axes in figure.axes] == [
        "train 0.2 in epoch 5", "train 0.9 in epoch 5",
    ]  # fmt: skip
    assert [*lines(figure.axes[1])] == ["train"]
    assert figure.axes[1].get_ylabel() == "R²"
    assert figure.get_suptitle().startswith("Learning curves: ")


def test_the_watched_metric_has_a_panel() -> None:
    figure = plots.curves_figure(history(metric="average_precision"))
    *_, watched = figure.axes
    assert watched.get_ylabel() == "average precision"
    assert watched.get_title() == "validation 0.05 in epoch 5"
    assert [*lines(watched)] == ["validation", "best epoch, by average precision", "_best"]
    assert len(plots.curves_figure(history(metric="accuracy")).axes) == 2  # it is there already


@pytest.mark.parametrize("epochs", [1, 2, 1000])
def test_few_and_many_epochs(epochs: int, tmp_path: Path, figures: list[Any]) -> None:
    plots.curves(history(epochs, 1), tmp_path / "c.png")
    left = figures[0].axes[0]
    train = next(line for line in left.get_lines() if line.get_label() == "train")
    assert (train.get_marker() == "o") == (epochs < 1000)
    assert left.get_xlim()[0] == 0
    assert left.get_xlim()[1] > epochs
    assert "train, each step" not in lines(left)  # one step each: the same numbers twice
    counts = "1 epoch, 1 step" if epochs == 1 else f"{epochs:,} epochs, {epochs:,} steps"
    assert figures[0].get_suptitle().endswith(counts)


def test_losses_that_span_much_are_on_a_log_axis() -> None:
    losses = [10.0, 1.0, 0.1, 0.01, 0.001]
    run = history(train_loss=losses, val_loss=losses)
    assert plots.curves_figure(run).axes[0].get_yscale() == "log"
    run = history(train_loss=losses, val_loss=[-0.1, *losses[1:]])
    assert plots.curves_figure(run).axes[0].get_yscale() == "linear"
    assert plots.curves_figure(history()).axes[0].get_yscale() == "linear"
    # A step whose loss is nearly zero does not press the others together.
    run = history(train_loss=losses, val_loss=losses)
    run.kept[-1] = 1e-12
    assert plots.curves_figure(run).axes[0].get_ylim()[0] > 1e-5


def test_gaps_in_many_epochs_leave_no_epoch_unseen() -> None:
    scores = [0.5] * 100
    run = history(100, val_score=[None if i in (9, 11) else s for i, s in enumerate(scores)])
    line = next(
        line for line in plots.curves_figure(run).axes[1].get_lines()
        if line.get_label() == "validation"
    )  # fmt: skip
    assert np.isnan(line.get_ydata()[[9, 11]]).all()
    assert line.get_markevery() == [10]  # it has no neighbour to draw a line to
    missing = history(3, val_score=[None, None, None], train_score=[None, None, None])
    assert [axes.get_ylabel() for axes in plots.curves_figure(missing).axes] == ["loss"]


def test_r2_of_a_wild_start_does_not_hide_the_end() -> None:
    scores = [-500.0, -3.0, 0.5, 0.6, 0.7]
    axes = plots.curves_figure(history(val_score=scores), "r2").axes[1]
    assert axes.get_ylim()[0] == -1
    assert axes.get_ylabel() == "R² (the axis begins at -1)"


def test_no_epoch_is_refused() -> None:
    with pytest.raises(UsageError, match="the history has no finished epoch"):
        plots.curves_figure(History())


# -- Images ----------------------------------------------------------------------------


def images(shape: tuple[int, ...], n: int = 6, dtype: Any = np.float64) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, *shape)).astype(dtype)
    return Dataset(x, np.zeros(n, int), ("cat", "a very long name"), image_shape=shape)


def shown(figure: Any) -> list[Any]:
    return [axes.get_images()[0] for axes in figure.axes if axes.get_images()]


@pytest.mark.parametrize("shape", [(4, 5, 3), (3, 4, 5)])
def test_weights_of_colour_images(
    shape: tuple[int, ...], tmp_path: Path, figures: list[Any]
) -> None:
    W = np.random.default_rng(1).standard_normal((60, 3))
    W[:, 2] = 0.0
    assert plots.weights(W, tmp_path / "w.png", images(shape)) == 3
    drawn = [np.asarray(image.get_array()) for image in shown(figures[0])]
    assert [image.shape for image in drawn] == [(4, 5, 3)] * 3
    first = W[:, 0].reshape(shape)
    first = first if shape[-1] == 3 else first.transpose(1, 2, 0)
    np.testing.assert_allclose(2 * drawn[0] - 1, first / np.abs(first).max(), atol=1e-12)
    assert (drawn[2] == 0.5).all()
    assert words(figures[0].get_suptitle()).endswith("3 units, as colours: 0 is mid grey")
    assert figures[0].axes[0].get_title() == f"0:  ±{np.abs(first).max():.2g}"


def test_weights_of_grey_images_and_of_features(tmp_path: Path, figures: list[Any]) -> None:
    W = np.random.default_rng(1).standard_normal((20, 80))
    assert plots.weights(W, tmp_path / "w.png", images((4, 5))) == 64
    assert len(shown(figures[0])) == 64
    largest = np.abs(W).max(axis=0)
    units = np.sort(np.argsort(-largest)[:64])
    assert [image.get_clim()[1] for image in shown(figures[0])] == [*largest[units]]
    assert figures[0].get_suptitle().endswith("64 of 80 units")
    table = Dataset(W.T, np.zeros(80), columns=tuple(f"$c{i}" for i in range(20)))
    assert plots.weights(W, tmp_path / "w.png", table) == 64
    labels = [label.get_text() for label in figures[1].axes[0].get_yticklabels()]
    assert labels == [f"$c{i}" for i in range(20)]
    assert plots.weights(np.ones((65, 2)), tmp_path / "none.png", table) == 0
    assert not (tmp_path / "none.png").exists()


def test_filters_of_grey_images(tmp_path: Path, figures: list[Any]) -> None:
    W = np.random.default_rng(1).standard_normal((80, 1, 5, 3))
    assert plots.weights(W, tmp_path / "w.png") == 64
    largest = np.abs(W).max(axis=(1, 2, 3))
    filters = np.sort(np.argsort(-largest)[:64])
    drawn = shown(figures[0])
    np.testing.assert_array_equal(drawn[1].get_array(), W[filters[1], 0])
    assert [image.get_clim()[1] for image in drawn] == [*largest[filters]]
    title = figures[0].get_suptitle()
    assert title == "Filters of the first layer: 64 of 80 filters of 5 x 3"
    assert plots.weights(W[:1], tmp_path / "w.png") == 1
    assert words(figures[1].get_suptitle()).endswith("1 filter of 5 x 3")


def test_filters_of_colours_and_of_other_channels(tmp_path: Path, figures: list[Any]) -> None:
    W = np.random.default_rng(1).standard_normal((4, 3, 5, 5))
    assert plots.weights(W, tmp_path / "w.png") == 4
    assert plots.weights(W[:, :2], tmp_path / "w.png") == 4
    colours = np.asarray(shown(figures[0])[2].get_array())
    expected = W[2].transpose(1, 2, 0) / np.abs(W[2]).max()
    np.testing.assert_allclose(2 * colours - 1, expected, atol=1e-12)
    assert words(figures[0].get_suptitle()).endswith("of 5 x 5, as colours: 0 is mid grey")
    np.testing.assert_array_equal(shown(figures[1])[2].get_array(), W[2, 0])
    assert words(figures[1].get_suptitle()).endswith("of 5 x 5, channel 0 of 2")


def test_filters_of_one_pixel_are_columns(tmp_path: Path, figures: list[Any]) -> None:
    W = np.random.default_rng(1).standard_normal((6, 5, 1, 1))
    assert plots.weights(W, tmp_path / "w.png") == 6
    (image,) = shown(figures[0])[:1]
    np.testing.assert_array_equal(image.get_array(), W[:, :, 0, 0].T)
    labels = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert labels == [f"channel {i}" for i in range(5)]
    assert plots.weights(np.ones((2, 65, 1, 1)), tmp_path / "none.png") == 0


def test_feature_maps_are_the_strongest_of_each_layer(tmp_path: Path, figures: list[Any]) -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal((1, 12, 6, 5)).clip(0)
    first[0, 3] = 0.0
    hidden = {
        "ReLU1": first, "Tanh1": rng.standard_normal((1, 4, 3, 2)), "ReLU2": np.ones((1, 20)),
    }  # fmt: skip
    assert plots.feature_maps(rng.random((6, 5)), hidden, tmp_path / "m.png", "a 7") == 2
    (figure,) = figures
    assert figure.get_suptitle() == "What the filters find in one sample: a 7"
    sample, *maps = figure.axes
    assert sample.get_title() == "the sample"
    strongest = np.sort(np.argsort(-first[0].max(axis=(1, 2)))[:10])
    assert [int(axes.get_title().split(":")[0]) for axes in maps] == [*strongest, 0, 1, 2, 3]
    np.testing.assert_array_equal(maps[1].get_images()[0].get_array(), first[0, strongest[1]])
    assert maps[0].get_images()[0].get_clim()[0] == 0
    low, high = maps[-1].get_images()[0].get_clim()
    assert low == -high < 0  # tanh has two signs
    assert [maps[i].get_ylabel() for i in (0, 10)] == ["layer 1\n6 x 5", "layer 2\n3 x 2"]
    assert plots.feature_maps(rng.random((6, 5)), {"1": np.ones((1, 3))}, tmp_path / "no.png") == 0
    assert not (tmp_path / "no.png").exists()


def test_of_many_layers_six_have_feature_maps(tmp_path: Path, figures: list[Any]) -> None:
    hidden = {str(i): np.ones((1, 2, 3, 3)) for i in range(1, 12)}
    assert plots.feature_maps(np.ones((3, 3)), hidden, tmp_path / "m.png") == 6
    rows = [axes.get_ylabel() for axes in figures[0].axes if axes.get_ylabel()]
    assert rows == [f"layer {i}\n3 x 3" for i in (1, 3, 5, 7, 9, 11)]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (3, 4, 5)])
def test_mistakes(shape: tuple[int, ...], dtype: Any, tmp_path: Path, figures: list[Any]) -> None:
    data = images(shape, dtype=dtype)
    scores = np.array([[0.0, 3.0], [1.0, 0.0], [0.0, 9.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert plots.mistakes(data, scores, scores.argmax(axis=1), tmp_path / "m.png") == 3
    drawn = shown(figures[0])
    assert len(drawn) == 3
    worst = data.x[2].astype(float)
    if len(shape) == 3:
        worst = (worst if shape[-1] == 3 else worst.transpose(1, 2, 0)) / 255
    else:
        worst = (worst - worst.min()) / np.ptp(worst)
    np.testing.assert_allclose(np.asarray(drawn[0].get_array()), worst, rtol=1e-6)
    assert figures[0].axes[0].get_title() == "cat\n→ a very…ame"
    assert words(figures[0].get_suptitle()) == "All 3 mistakes among 6 samples: true → predicted"
    assert plots.mistakes(data, scores, scores.argmax(axis=1), tmp_path / "m.png", most=2) == 2
    assert figures[1].get_suptitle().startswith("The worst 2 of 3 mistakes")
    assert plots.mistakes(data, scores, np.zeros(6, int), tmp_path / "none.png") == 0


def test_digits_are_ink_and_photographs_are_not(tmp_path: Path, figures: list[Any]) -> None:
    data = images((4, 5))
    scores = np.tile([0.0, 1.0], (6, 1))
    plots.mistakes(data, scores, np.ones(6, int), tmp_path / "m.png")
    data.x[:, :3] = 0.0
    plots.mistakes(data, scores, np.ones(6, int), tmp_path / "m.png")
    assert [shown(figure)[0].get_cmap().name for figure in figures] == ["gray", "gray_r"]


# -- Activations -----------------------------------------------------------------------


def bars(axes: Any) -> np.ndarray:
    return np.array([patch.get_height() for patch in axes.patches[:50]])


def test_zeros_and_dead_units_are_numbers(tmp_path: Path, figures: list[Any]) -> None:
    y = np.random.default_rng(0).uniform(1.0, 2.0, (100, 8))
    y[:, :2] = 0.0  # dead
    y[:50, 2] = 0.0
    plots.activations({"ReLU1": y}, ["relu"], tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_title() == "layer 1: 8 relu\nzero: 31 %; dead units: 2 (25 %)"
    assert axes.get_xlabel() == "output of a unit, if not zero"
    assert bars(axes).sum() == pytest.approx(100 * 550 / 800)  # the zeros are no bar
    assert axes.get_xlim()[0] > 0.9


def test_channels_of_a_convolution_are_its_units(tmp_path: Path, figures: list[Any]) -> None:
    y = np.random.default_rng(0).uniform(1.0, 2.0, (10, 4, 3, 5))
    y[:, 1] = 0.0  # dead
    y[:5, 2] = 0.0
    y[:, 3, 0] = 0.0  # a row of each map, and not the channel
    plots.activations({"ReLU1": y, "ReLU2": y[:, :1]}, ["relu"] * 2, tmp_path / "a.png")
    first, second = figures[0].axes
    share = 100 * (1 + 1 / 2 + 1 / 3) / 4
    assert (
        first.get_title() == f"layer 1: 4 relu channels\nzero: {share:.0f} %; dead units: 1 (25 %)"
    )
    assert second.get_title().startswith("layer 2: 1 relu channel\n")
    assert bars(first).sum() == pytest.approx(100 - share)
    assert figures[0].get_suptitle() == "Outputs of the hidden units, 10 test samples"


def test_a_dead_layer(tmp_path: Path, figures: list[Any]) -> None:
    plots.activations({"ReLU1": np.zeros((9, 4))}, ["relu"], tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_title().endswith("zero: 100 %; dead units: 4 (100 %)")
    assert [text.get_text() for text in axes.texts] == ["all outputs are zero"]


@pytest.mark.parametrize(("kind", "low"), [("sigmoid", 0.0), ("tanh", -1.0)])
def test_saturation(kind: str, low: float, tmp_path: Path, figures: list[Any]) -> None:
    y = np.full((20, 4), 0.5)
    y[:, 0], y[:10, 1] = low, 1.0
    plots.activations({"1": y}, [kind], tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_title().endswith("saturated: 38 %; units always: 1 (25 %)")
    assert axes.get_xlim() == (low, 1.0)
    assert bars(axes).sum() == pytest.approx(100)
    assert len(axes.patches) == 50 + 2  # and the shaded ends


def test_a_spike_or_a_far_value_does_not_hide_the_others(
    tmp_path: Path, figures: list[Any]
) -> None:
    rng = np.random.default_rng(0)
    spike = rng.normal(size=(1000, 10))
    spike[:, :5] = 1e-3
    far = rng.normal(size=(1000, 10))
    far[0, 0] = 1e6
    hidden = {"1": spike, "2": far, "3": np.full((10, 2), 7.0)}
    plots.activations(hidden, ["leaky_relu", "identity", "identity"], tmp_path / "a.png")
    first, second, third, *_ = figures[0].axes
    assert (first.get_yscale(), first.get_ylabel()) == ("log", "% of all outputs, log")
    assert max(second.get_xlim()) < 10
    assert second.get_xlabel() == "output of a unit (0.1 % lie beyond)"
    assert bars(third).max() == pytest.approx(100)
    assert remark(np.array([[0.0, 2.0]]), "identity") == "mean 1, deviation 1"


# -- All of a run ----------------------------------------------------------------------


@pytest.fixture
def no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the plots of answers, which are the same for every network."""
    monkeypatch.setattr(plots, "draw_scores", lambda *_: [])
    monkeypatch.setattr(plots, "mistakes", lambda *_: 0)


@pytest.mark.usefixtures("no_scores")
def test_all_plots_of_a_convolution_network(
    tmp_path: Path, figures: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = xpnet.datasets.load("digits")
    x = data.x.reshape(-1, 64)  # rows; the network makes images of them
    made = xpnet.cnn((1, 8, 8), [[4, 5], 6], [7], batch_norm=True, activation="tanh")
    trainer = xpnet.Trainer(made, xpnet.optim.Adam(0.01))
    run = trainer.fit(x[:200], data.t[:200], epochs=2, batch_size=50)
    test = dataclasses.replace(data, x=x[200:500], t=data.t[200:500])
    monkeypatch.setattr(plots, "MOST_NUMBERS", 100 * (64 * 4 + 16 * 5 + 4 * 6 + 7))
    drawn = plots.draw_all(tmp_path, run, trainer.model, test)
    assert [path.stem for path in drawn] == ["curves", "weights", "activations", "maps"]
    curves, filters, histograms, maps = figures
    title = words(curves.get_suptitle())
    network = "Network 1x8x8 - conv 4 - conv 5 - pool - conv 6 - pool - 7 - 10, tanh, batch norm"
    assert title == f"{network}: 2 epochs, 8 steps"
    assert filters.get_suptitle() == "Filters of the first layer: 4 filters of 3 x 3"
    np.testing.assert_array_equal(
        shown(filters)[3].get_array(), trainer.model.to_host()["W1"][3, 0]
    )
    assert histograms.get_suptitle().endswith(" 100 test samples")  # every third of 300
    assert [axes.get_title().split("\n")[0] for axes in histograms.axes] == [
        "layer 1: 4 tanh channels", "layer 2: 5 tanh channels", "layer 3: 6 tanh channels",
        "layer 4: 7 tanh",
    ]  # fmt: skip
    first = trainer.model.hidden(x[200:201])["Tanh1"]
    sample, *panels = maps.axes
    np.testing.assert_allclose(sample.get_images()[0].get_array(), data.x[200].reshape(8, 8) / 16)
    np.testing.assert_array_equal(panels[0].get_images()[0].get_array(), first[0, 0])
    for figure in figures:  # every word stays on the paper
        inner, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(inner.x0, inner.y0) > 0.02
        assert inner.x1 < width - 0.02
        assert inner.y1 < height - 0.02


@pytest.mark.usefixtures("no_scores")
def test_images_of_many_channels_have_pictures_too(tmp_path: Path, figures: list[Any]) -> None:
    rng = np.random.default_rng(0)
    data = Dataset(rng.random((60, 2, 6, 6)), rng.integers(0, 2, 60), ("a", "b"))
    trainer = xpnet.Trainer(xpnet.cnn((2, 6, 6), [3], outputs=2, activation="identity"))
    run = trainer.fit(data.x, data.t, epochs=1)
    drawn = plots.draw_all(tmp_path, run, trainer.model, data)
    assert [path.stem for path in drawn] == ["curves", "weights", "activations", "maps"]
    sample = figures[3].axes[0].get_images()[0].get_array()
    first = data.x[0, 0]
    np.testing.assert_allclose(sample, (first - first.min()) / np.ptp(first))
    assert figures[2].axes[0].get_title().startswith("layer 1: 3 identity channels\n")


# -- Style -----------------------------------------------------------------------------


def test_your_style_and_ours_leave_each_other_alone(tmp_path: Path, figures: list[Any]) -> None:
    data, _ = xpnet.datasets.load("digits")
    trainer = xpnet.Trainer(xpnet.mlp([64, 12, 10], seed=0), xpnet.optim.Adam(0.01))
    run = trainer.fit(
        data.x[:500], data.t[:500], epochs=2, batch_size=50, validation=(data.x[500:], data.t[500:])
    )
    t = np.linspace(1.0, 2.0, 50)
    table = Dataset(t[:, None], t)

    def draw(folder: Path) -> list[bytes]:
        folder.mkdir()
        drawn = plots.draw_all(folder, run, trainer.model, data)
        drawn += plots.draw_scores(folder, t, t**2)
        plots.weights(np.eye(1, 3), folder / "columns.png", table)
        large = folder / "large.png"
        plots.confusion(np.eye(40, dtype=int), [str(i) for i in range(40)], large)
        return [path.read_bytes() for path in [*drawn, folder / "columns.png", large]]

    plain = draw(tmp_path / "plain")
    own = {"font.size": 30, "axes.grid": True, "lines.linewidth": 7, "savefig.facecolor": "red"}
    with context(["dark_background", own]):
        before = dict(mpl.rcParams)
        assert draw(tmp_path / "own") == plain
        assert dict(mpl.rcParams) == before
    assert [path.name for path in sorted((tmp_path / "own").iterdir())] == [
        "activations.png", "calibration.png", "columns.png", "confusion.png", "curves.png",
        "large.png", "mistakes.png", "precision_recall.png", "predictions.png", "residuals.png",
        "roc.png", "weights.png",
    ]  # fmt: skip
    assert figures[0].get_suptitle() == "Network 64-12-10, relu: 2 epochs, 20 steps"
    for figure in figures:  # every word stays on the paper
        assert figure.get_suptitle()
        inner = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert inner.x0 > 0.02
        assert inner.y0 > 0.02
        assert inner.x1 < width - 0.02
        assert inner.y1 < height - 0.02


def test_a_title_breaks_where_the_figure_ends() -> None:
    figure = style.new_figure(4, 3)
    style.heading(figure, "many words and a $ sign " * 6)
    assert figure.get_suptitle().count("\n") >= 2
    assert figure._suptitle.get_window_extent().x1 <= figure.bbox.x1


def test_the_colours_differ_also_in_grey() -> None:
    """Luminances of the two that are drawn together most often, after the formula of sRGB."""
    from matplotlib.colors import to_rgb

    def luminance(color: str) -> float:
        return float(np.dot([0.2126, 0.7152, 0.0722], np.array(to_rgb(color)) ** 2.2))

    assert abs(luminance(style.TRAIN) - luminance(style.VAL)) > 0.05
    assert len({*map(str, (style.style_of(i) for i in range(10)))}) == 10
