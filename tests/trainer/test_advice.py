"""Words instead of silence: each case of advice, and one near it that needs none."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.data import Scaling, standardize
from xpnet.trainer.advice import few_of_a_class, guessing, overfitting, still_falling, unscaled
from xpnet.trainer.history import Epoch


def blobs(n: int = 200, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    t = np.arange(n) % classes
    return rng.standard_normal((n, 4)) + 3 * np.eye(classes, 4)[t], t


def noted(history: xpnet.History, words: str) -> bool:
    return any(words in note for note in history.notes)


# -- Was it long enough? ---------------------------------------------------------------


def noise(n: int, size: float, seed: int = 0) -> np.ndarray:
    return np.asarray(size * np.random.default_rng(seed).standard_normal(n))


def test_a_loss_that_falls_until_the_end_is_noticed() -> None:
    straight = np.linspace(2.0, 1.0, 300) + noise(300, 0.05)
    assert "20 or more" in still_falling(straight, epochs=10)
    settled = 1 + np.exp(-np.arange(300) / 30) + noise(300, 0.05)
    assert still_falling(settled) == ""
    # Noise alone is no fall, and nor is a tail near 0, which falls for ever.
    assert still_falling(1 + noise(300, 0.3)) == ""
    assert still_falling(2 * 0.98 ** np.arange(300)) == ""
    assert still_falling(np.linspace(1.0, 2.0, 300)) == ""


def test_a_schedule_that_ends_at_zero_does_not_hide_it() -> None:
    """A loss that falls in proportion to the rate would fall on at the same rate."""
    rates = (1 + np.cos(np.linspace(0, np.pi, 100))) / 2
    passed = np.cumsum(np.interp(np.linspace(0, 1, 250), np.linspace(0, 1, 100), rates))
    losses = 2 - passed / passed[-1] + noise(250, 0.02)
    assert still_falling(losses) == ""  # without the rates it looks flat
    assert "still falling" in still_falling(losses, rates=rates.tolist())
    done = 1 + np.exp(-10 * passed / passed[-1]) + noise(250, 0.02)
    assert still_falling(done, rates=rates.tolist()) == ""


def test_what_speaks_against_more_epochs() -> None:
    losses = np.linspace(2.0, 1.0, 300)
    assert still_falling(losses, score=0.9)
    assert still_falling(losses, score=0.995) == ""
    assert still_falling(losses, val_losses=[2.0, 1.5, 1.2])
    assert still_falling(losses, val_losses=[2.0, 1.2, 1.5]) == ""
    assert still_falling(losses, val_losses=[None, None])
    assert still_falling(losses[:40]) == ""  # has barely begun


def test_losses_below_zero_have_no_percentage() -> None:
    assert "%" not in still_falling(np.linspace(-1.0, -3.0, 300))


def test_thirty_epochs_of_two_steps_are_too_few_and_more_are_not() -> None:
    x, t = xpnet_iris()
    trainer = xpnet.Trainer(xpnet.mlp([4, 50, 3]), optim.Adam(0.001))
    assert noted(trainer.fit(x, t, epochs=30, batch_size=100), "still falling")
    trainer = xpnet.Trainer(xpnet.mlp([4, 50, 3]), optim.Adam(0.01))
    assert trainer.fit(x, t, epochs=200, batch_size=20).notes == []


def xpnet_iris() -> tuple[np.ndarray, np.ndarray]:
    """Three clouds as in iris: one apart, two that meet."""
    rng = np.random.default_rng(5)
    t = np.repeat([0, 1, 2], 50)
    centres = np.array([[5.0, 3.4, 1.5, 0.2], [5.9, 2.8, 4.3, 1.3], [6.6, 3.0, 5.5, 2.0]])
    return centres[t] + rng.standard_normal((150, 4)) * [0.5, 0.35, 0.45, 0.22], t


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("data", ["iris", "digits", "moons", "waves", "blobs"])
def test_a_training_by_the_defaults_gets_no_advice(data: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if data == "iris":
        x, t = xpnet_iris()
    elif data == "digits":
        found, _ = xpnet.datasets.load("digits")
        x, t = found.x / 16.0, found.t
    elif data == "moons":
        angle, t = np.pi * rng.random(500), np.arange(500) % 2
        x = np.stack([np.cos(angle) + t, np.sin(angle) * (1 - 2 * t) + t / 2], axis=1)
        x = x + 0.25 * rng.standard_normal(x.shape)
    elif data == "waves":
        x = rng.uniform([0, 0, 0], [1, 100, 1e4], (600, 3))
        t = 1e3 * np.sin(6 * x[:, 0]) + x[:, 1] + 50 * rng.standard_normal(600)
    else:
        x, t = blobs(300, 3, seed)
    rest, _ = xpnet.data.split(np.zeros(len(t)), 0.2, seed, stratify=False)
    trainer = xpnet.fit(x[rest], t[rest], seed=seed)
    assert trainer.history is not None
    assert trainer.history.notes == []
    trainer = xpnet.fit(x, t, seed=seed, validation=0.2)
    assert trainer.history is not None
    assert trainer.history.notes == []


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits", "diabetes"])
def test_real_data_by_the_defaults_get_no_advice(name: str) -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    x, t = getattr(datasets, f"load_{name}")(return_X_y=True)
    options: dict[str, Any] = {"loss": "squared"} if name == "diabetes" else {}
    trainer = xpnet.fit(x, t, **options)
    assert trainer.history is not None
    assert trainer.history.notes == []


def test_a_subset_of_mnist_by_the_defaults_gets_no_advice(mnist_dir: Path) -> None:
    data, _ = xpnet.datasets.load("mnist", mnist_dir)
    trainer = xpnet.fit(data.x[:2000], data.t[:2000], hidden=[50])
    assert trainer.history is not None
    assert trainer.history.notes == []


# -- Has it learned anything? ----------------------------------------------------------


def dead(outputs: int = 2, **net: Any) -> xpnet.Trainer:
    """Biases so low that no unit ever answers."""
    trainer = xpnet.Trainer(xpnet.mlp([4, 6, 5, outputs], **net, seed=0), optim.SGD(0.01))
    for name in ("b1", "b2"):
        trainer.params[name] = trainer.params[name] - 1e3
    return trainer


def test_a_dead_network_ends_with_a_warning_that_says_why() -> None:
    x, t = blobs()
    with pytest.warns(RuntimeWarning, match="no better than guessing") as caught:
        history = dead().fit(x, t, epochs=10, batch_size=20)
    words = str(caught[0].message)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "accuracy 0.5000 on the training part, where a constant answer has 0.5000" in words
    assert "11 of 11 hidden units give 0 for every sample" in words
    assert history.notes == [words]
    assert history.failure == words


def test_a_dead_regression_too() -> None:
    x, _ = blobs()
    with pytest.warns(RuntimeWarning, match=r"R² -?0.0\d+ .* constant answer has 0.0000; 11 of 11"):
        dead(1, loss="squared").fit(x, x[:, 0], epochs=10, batch_size=20)


def test_dead_channels_of_a_convolution_are_units() -> None:
    network = xpnet.cnn((1, 4, 4), [3], [5], 2, seed=0)
    for name in ("b1", "b2"):
        network.params[name] -= 1e3
    x = np.random.default_rng(0).random((40, 1, 4, 4))
    with pytest.warns(RuntimeWarning, match="8 of 8 hidden units give 0 for every sample"):
        xpnet.Trainer(network, optim.SGD(0.01)).fit(x, np.arange(40) % 2, epochs=30, batch_size=20)


def test_barely_begun_is_no_reason_to_warn() -> None:
    x, t = blobs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dead().fit(x, t, epochs=4, batch_size=20).notes == []
        assert dead().fit(x, t, epochs=100, batch_size=20, stop=lambda: True).notes == []


def test_a_network_that_learns_gets_no_warning() -> None:
    x, t = blobs()
    history = xpnet.Trainer(xpnet.mlp([4, 6, 2]), optim.Adam(0.01)).fit(x, t, epochs=30)
    assert not noted(history, "guessing")


def test_rare_classes_need_not_reach_half() -> None:
    """Accuracy at the share of the largest class, but probabilities that know more; and class
    weights, which cost accuracy."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 4))
    t = (rng.random(2000) < 0.02 + 0.2 * (x[:, 0] > 1)).astype(int)
    for weight in (None, "balanced"):
        trainer = xpnet.Trainer(xpnet.mlp([4, 2]), optim.Adam(0.02))
        history = trainer.fit(x, t, epochs=20, batch_size=50, class_weight=weight)
        score = history.epochs[-1].train_score
        assert score is not None
        assert score <= 1 - t.mean() + 1e-9
        assert not noted(history, "guessing")


def test_a_quantile_may_lie_far_from_the_mean() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 2))
    t = x[:, 0] + np.exp(rng.standard_normal(400))
    loss = ("quantile", {"quantile": 0.9})
    trainer = xpnet.Trainer(xpnet.mlp([2, 1], loss=loss), optim.Adam(0.05))
    history = trainer.fit(x, t, epochs=60, batch_size=20)
    assert history.epochs[-1].train_score is not None
    assert history.epochs[-1].train_score < 0
    assert not noted(history, "guessing")


def test_one_class_alone_cannot_be_guessed() -> None:
    x, t = blobs()
    history = xpnet.Trainer(xpnet.mlp([4, 2]), optim.Adam(0.01)).fit(x, 0 * t, epochs=20)
    assert not noted(history, "guessing")
    assert noted(history, "few samples in the training part of 1 (none)")


def test_the_warning_is_given_once(tmp_path: Path) -> None:
    x, t = blobs()
    options: dict[str, Any] = {"epochs": 10, "batch_size": 20, "folder": tmp_path}
    with pytest.warns(RuntimeWarning, match="guessing"):
        dead().fit(x, t, **options)
    history = dead().fit(x, t, **options, resume=True)  # nothing left to train
    assert history.failure == ""
    assert noted(history, "no better than guessing")


def test_the_command_says_it_once(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from xpnet.commands import train

    args = ["--optimizer", "sgd", "--lr", "50", "--epochs", "5", "--device", "cpu", "--out", "run"]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert train.main(args) == 0
    out, err = capsys.readouterr()
    assert err.startswith("xpnet: warning: no better than guessing: accuracy 0.")
    assert err.count("\n") == 1
    assert "guessing" not in out


def test_units_that_live_are_not_called_dead() -> None:
    assert "0 for every sample" in guessing(0.1, 0.1, "accuracy", dead=11, units=20)
    assert "hidden units" not in guessing(0.1, 0.1, "accuracy", dead=0, units=20)


# -- Data ------------------------------------------------------------------------------


def test_features_far_from_one_are_named() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 3)) * [1, 300, 1] + [0, 0, 2000]
    words = unscaled(x, ["a", "b", "c"])
    assert words.startswith("2 of 3 features are far from mean 0 and deviation 1 (c: mean 2000, de")
    assert unscaled(x[:, :1]) == ""
    assert unscaled(x[:, :2]).startswith("1 of 2 features is far")
    assert "(feature 1: " in unscaled(x[:, :2])
    constant = np.concatenate([x[:, :1], np.full((100, 1), 1e6)], axis=1)
    assert "mean 1e+06, deviation 0" in unscaled(constant)
    assert unscaled(1e-4 * x[:, :1]).startswith("all features are small")
    assert unscaled(0 * x) == ""


def test_pixels_flags_and_rare_categories_are_as_they_should_be() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.random((50, 8, 8))
    pixels[:, 0] = 0.0
    pixels[0, 0, 0] = 0.01
    assert unscaled(pixels) == ""
    assert "is far" not in unscaled(rng.standard_normal((50, 3)) * 4)
    assert unscaled(np.eye(1000)) == ""
    assert unscaled(rng.random((50, 3)) < 0.5) == ""
    assert unscaled(255 * pixels).startswith("56 of 64 features are far")


def test_bytes_with_small_values() -> None:
    bytes_ = np.random.default_rng(0).integers(0, 17, (50, 4)).astype(np.uint8)
    bytes_[7, 2] = 16
    assert "uint8 with values up to 16" in unscaled(bytes_)
    assert unscaled(bytes_ * 10) == ""
    assert unscaled(bytes_ * 0) == ""


def test_scaled_input_needs_no_words() -> None:
    x, t = blobs()
    x = 1e3 * x
    for options, said in (
        ({"scaling": None}, True), ({}, False), ({"scaling": Scaling(0.0, 1e-3)}, False),
        ({"scaling": standardize(x)}, False),
    ):  # fmt: skip
        trainer = xpnet.Trainer(xpnet.mlp([4, 6, 2]), optim.Adam(0.001), **options)  # type: ignore[arg-type]
        assert noted(trainer.fit(x, t, epochs=1), "nothing scales") == said


def test_a_mapped_file_is_looked_at_too(tmp_path: Path) -> None:
    x, t = blobs()
    np.save(tmp_path / "x.npy", 1e3 * x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    trainer = xpnet.Trainer(xpnet.mlp([4, 2]), optim.Adam(0.001), scaling=None)
    assert noted(trainer.fit(mapped, t, epochs=1, validation=0.1), "4 of 4 features")


def test_classes_with_few_samples() -> None:
    x, t = blobs(100)
    t[:4] = 2
    names = np.array(["a", "b", "c\n", "d"])
    trainer = xpnet.Trainer(xpnet.mlp([4, 4]), classes=names.tolist())
    history = trainer.fit(x, t, epochs=1)
    assert history.notes == [
        "few samples in the training part of 'c\\n (4)', d (none): collect more, or join or leave "
        "out these classes"
    ]
    t[4] = 2
    assert not noted(trainer.fit(x, t, epochs=1), "(4)")
    assert few_of_a_class([5, 5], ["a", "b"]) == ""
    assert few_of_a_class([0] * 9, "abcdefghi").count("none") == 5
    rows = np.eye(4)[t]
    assert noted(trainer.fit(x, rows, epochs=1), "d (none)")


# -- Overfitting -----------------------------------------------------------------------


def epochs(*course: tuple[float, float | None, float | None]) -> list[Epoch]:
    return [
        Epoch(i + 1, i + 1, train, 0.9, val, score, 0.1, 1.0)
        for i, (train, val, score) in enumerate(course)
    ]


def test_curves_that_part() -> None:
    parted = epochs((0.6, 0.7, 0.6), (0.4, 0.5, 0.8), (0.2, 0.7, 0.7), (0.1, 0.8, 0.7))
    assert "rose from 0.5 in epoch 2 to 0.8" in overfitting(parted)
    # A little; one epoch alone; while the training loss rose too; with a score that got better.
    assert not overfitting(
        epochs((0.6, 0.7, 0.6), (0.4, 0.5, 0.8), (0.2, 0.6, 0.7), (0.1, 0.6, 0.7))
    )
    assert not overfitting(
        epochs((0.6, 0.7, 0.6), (0.4, 0.5, 0.8), (0.2, 0.5, 0.7), (0.1, 0.9, 0.7))
    )
    assert not overfitting(
        epochs((0.6, 0.7, 0.6), (0.4, 0.5, 0.8), (0.7, 0.7, 0.7), (0.8, 0.8, 0.7))
    )
    assert not overfitting(
        epochs((0.6, 0.7, 0.6), (0.4, 0.5, 0.8), (0.2, 0.7, 0.9), (0.1, 0.8, 0.9))
    )
    assert overfitting(epochs((0.6, 0.7, 0.6), (0.4, 0.5, 0.8), (0.2, 1.2, 0.9), (0.1, 1.3, 0.9)))
    # Among 30 samples two or three more mistakes are chance, and a tiny loss doubles by chance too.
    assert "more data, weight decay or" in overfitting(parted)
    assert "more data, augmentation, weight decay or" in overfitting(parted, images=True)
    assert not overfitting(parted, 20)
    assert not overfitting(
        epochs((0.6, 0.7, 0.6), (0.4, 0.01, 0.98), (0.2, 0.02, 0.98), (0.1, 0.03, 0.98))
    )
    assert not overfitting(epochs((0.6, None, None), (0.4, None, None)))
    assert not overfitting(
        epochs((0.6, 0.7, 0.6), (0.4, 0.5, 0.8), (0.2, 0.7, 0.7), (0.1, None, 0.7))
    )


def test_labels_that_are_learned_by_heart() -> None:
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((120, 20)), rng.integers(0, 2, 120)
    history = xpnet.Trainer(xpnet.mlp([20, 100, 2]), optim.Adam(0.01)).fit(
        x, t, epochs=60, batch_size=16, validation=0.3
    )
    assert noted(history, "overfitting")
    # With patience the model has the best epoch's weights.
    history = xpnet.Trainer(xpnet.mlp([20, 100, 2]), optim.Adam(0.01)).fit(
        x, t, epochs=60, batch_size=16, validation=0.3, patience=50
    )
    assert not noted(history, "overfitting")


def test_images_that_are_learned_by_heart_may_be_augmented() -> None:
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((120, 1, 5, 4)), rng.integers(0, 2, 120)
    network = xpnet.cnn((1, 5, 4), [8], [50], 2)
    history = xpnet.Trainer(network, optim.Adam(0.01)).fit(
        x, t, epochs=40, batch_size=16, validation=0.3
    )
    assert noted(history, "more data, augmentation, ")


def test_advice_on_every_backend(backend: Any) -> None:
    x, t = blobs()
    trainer = xpnet.Trainer(
        xpnet.mlp([4, 6, 2]), optim.AdamW(optim.cosine(1e-2, 60)), backend=backend, scaling=None
    )
    history = trainer.fit(100 * x, t, epochs=6, batch_size=20)
    assert noted(history, "4 of 4 features are far")


def test_a_quantile_is_measured_by_its_own_loss() -> None:
    """A quantile far from the mean has R² below 0, however good it is."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (400, 2))
    t = 10 * x[:, 0] + rng.exponential(3, 400)
    loss = ("quantile", {"quantile": 0.98})
    trainer = xpnet.fit(x, t, loss=loss, epochs=20)
    assert trainer.evaluate(x, t)["r2"] < 0
    assert trainer.history is not None
    assert trainer.history.failure == ""
    with pytest.warns(RuntimeWarning, match=r"guessing: loss 0\.\d+ on the training part"):
        xpnet.fit(rng.uniform(0, 1, (400, 2)) * 0, t, loss=loss, epochs=20)
