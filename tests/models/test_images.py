"""Convolution networks as models: what they take, what is refused, and what files keep of them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.data.images import channels_first
from xpnet.errors import CheckpointError, DataError, UsageError
from xpnet.models import Model, checkpoint, schema
from xpnet.models.kinds import network_of_kind

RNG = np.random.default_rng(0)
X = RNG.random((40, 6, 6), np.float32)
T = (X[:, :3].mean(axis=(1, 2)) > X[:, 3:].mean(axis=(1, 2))).astype(int)


def trained(**options: Any) -> xpnet.Trainer:
    network = xpnet.cnn((1, 6, 6), [[2, 3], 2], [4], 2, batch_norm=True, dropout=0.3)
    trainer = xpnet.Trainer(network, optim.Adam(0.02), augment="shift=1,flip")
    trainer.fit(X, T, **{"epochs": 3, "batch_size": 10, **options})
    return trainer


# -- Input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 6, 6), (40, 1, 6, 6), (40, 6, 6, 1), (40, 36)])
def test_grey_images_in_every_shape(shape: tuple[int, ...]) -> None:
    model = Model(xpnet.cnn((1, 6, 6), [2], [], 3))
    np.testing.assert_array_equal(model.scores(X.reshape(shape)), model.scores(X))
    assert model.scores(X[:1]).shape == (1, 3)


def test_rows_of_pixels_are_scaled_as_images_are() -> None:
    trainers = [xpnet.Trainer(xpnet.cnn((1, 6, 6), [2], [], 2)) for _ in range(2)]
    for trainer, x in zip(trainers, (X, X.reshape(40, 36)), strict=True):
        trainer.fit(x, T, epochs=1, batch_size=10)
    assert trainers[0].feed.scaling == trainers[1].feed.scaling
    np.testing.assert_array_equal(trainers[0].scores(X), trainers[1].scores(X))


def test_colours_as_they_are_or_in_rows() -> None:
    model = Model(xpnet.cnn((3, 6, 5), [2], [], 3))
    x = RNG.random((7, 3, 6, 5), np.float32)
    np.testing.assert_array_equal(model.scores(x.reshape(7, 90)), model.scores(x))


@pytest.mark.parametrize(
    ("network", "shape", "words"),
    [
        ((3, 6, 5), (6, 5, 3), "(6, 5, 3), which has the channels last; expected (channels, rows, "
         "columns): numpy.moveaxis(x, -1, 1)"),
        ((3, 6, 5), (5, 6, 3), "their channels seem to be last: numpy.moveaxis(x, -1, 1)"),
        ((3, 6, 5), (3, 5, 6), "got images of shape (3, 5, 6); expected images of shape (3, 6, 5)"),
        ((3, 6, 5), (6, 5), "got images of shape (6, 5); expected images of shape (3, 6, 5)"),
        ((3, 6, 5), (18, 5), "expected images of shape (3, 6, 5)"),
        ((3, 6, 5), (89,), "got rows of 89 values; expected images of shape (3, 6, 5), (channels, "
         "rows, columns), or rows of 90"),
        ((1, 6, 6), (8, 8), "got images of shape (8, 8); expected images of shape (1, 6, 6), "
         "(channels, rows, columns); cut or scale them to 6 x 6"),
        ((1, 6, 6), (6, 6, 3), "expected images of shape (1, 6, 6)"),
        ((1, 6, 6), (1, 36), "expected images of shape (1, 6, 6)"),
        ((1, 6, 6), (1, 6, 6, 1), "expected images of shape (1, 6, 6)"),
    ],
)  # fmt: skip
def test_other_images_are_refused(network: Any, shape: tuple[int, ...], words: str) -> None:
    x = np.zeros((5, *shape), np.float32)
    model = Model(xpnet.cnn(network, [2], [], 2))
    trainer = xpnet.Trainer(model)
    for call in (model.scores, model.predict, model.hidden, lambda x: trainer.fit(x, T[:5])):
        with pytest.raises(DataError) as caught:
            call(x)
        assert words in str(caught.value)


def test_a_batch_of_no_images_is_refused() -> None:
    model = Model(xpnet.cnn((1, 6, 6), [2], [], 2))
    with pytest.raises(DataError, match="x: got no samples, expected at least one"):
        model.predict(X[:0])


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((5, 32, 32, 3), "got images of shape (32, 32, 3), which has the channels last"),
        ((5, 2, 3, 4, 5), "got samples of shape (2, 3, 4, 5); expected images"),
        ((5, 784), "if they are pixels, x.reshape(-1, 28, 28)"),
        ((5, 3072), "if they are pixels, x.reshape(-1, 3, 32, 32)"),
        ((5, 7), "got rows of 7 values, and a convolution network takes images"),
    ],
)
def test_samples_that_are_no_images(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(DataError) as caught:
        channels_first(shape)
    assert words in str(caught.value)


def test_how_a_network_takes_images() -> None:
    for given, found in {
        (9, 6, 5): (1, 6, 5), (9, 6, 5, 1): (1, 6, 5), (9, 1, 6, 5): (1, 6, 5),
        (9, 1, 5): (1, 1, 5), (9, 3, 6, 5): (3, 6, 5),
        (9, 16, 8, 8): (16, 8, 8), (9, 1, 1, 1): (1, 1, 1),
    }.items():  # fmt: skip
        assert channels_first(given) == found


# -- Kinds ---------------------------------------------------------------------------------


def test_kinds_of_networks() -> None:
    book = network_of_kind("cnn", (1, 28, 28), 10)
    assert {k: v.shape for k, v in book.params.items()} == {
        "W1": (30, 1, 5, 5), "b1": (30,), "W2": (4320, 100), "b2": (100,), "W3": (100, 10),
        "b3": (10,),
    }  # fmt: skip
    deep = network_of_kind("deep-cnn", (1, 28, 28), 10)
    assert deep.params["W7"].shape == (64 * 4 * 4, 50)
    assert deep.arguments["dropout"] == 0.5
    own = network_of_kind("deep-cnn", (1, 28, 28), 10, channels=[8, [4, 4]], dropout=0.0)
    assert own.params["W4"].shape == (4 * 7 * 7, 50)  # 3 x 3 filters that keep the size
    assert own.arguments["dropout"] == 0.0
    assert network_of_kind("mlp", (4,), 2).arguments["sizes"] == [4, 100, 100, 2]
    for kind, options, words in (
        ("vgg", {}, "expected one of mlp, cnn, deep-cnn"),
        ("mlp", {"kernel": 3}, 'kernel is for images: say model="cnn"'),
        ("cnn", {"activation": ["relu", "tanh"]}, "expected one name"),
        ("cnn", {"kernel": 29}, "filters of 29 x 29 do not fit images of 28 x 28"),
    ):
        with pytest.raises(UsageError) as caught:
            network_of_kind(kind, (1, 28, 28), 10, **options)  # type: ignore[arg-type]
        assert words in str(caught.value)


def test_one_call_fits_images() -> None:
    options: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 10,
        "model": "cnn",
        "channels": [[3, 3], 2],
    }
    one = xpnet.fit(X, T, hidden=[5], augment="shift=1", **options)
    network = xpnet.cnn((1, 6, 6), [[3, 3], 2], [5], 2)
    other = xpnet.Trainer(network, augment="shift=1")
    other.fit(X, T, epochs=2, batch_size=10)
    for name, value in other.model.to_host().items():
        np.testing.assert_array_equal(one.model.to_host()[name], value)
    assert other.optimizer == optim.AdamW(optim.cosine(0.003, 8), weight_decay=1.0, beta2=0.98)
    labels = np.where(T == 1, "top", "bottom")
    named = xpnet.fit(np.round(255 * X).astype(np.uint8)[:, None], labels, **options)
    assert set(named.predict(np.zeros((2, 6, 6), np.uint8))) <= {"top", "bottom"}
    assert xpnet.fit(X, X.mean(axis=(1, 2)), **options).predict(X).shape == (40,)
    normed = xpnet.fit(X.reshape(40, 36), T, batch_norm=True, epochs=1)
    assert {"gamma1", "mean2"} <= normed.params.keys()


def test_one_call_refuses_what_is_no_image() -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    with pytest.raises(DataError, match="got a data frame, and model cnn takes images"):
        xpnet.fit(pd.DataFrame(X.reshape(40, 36)), T, model="cnn")
    with pytest.raises(DataError, match=r"x\.reshape\(-1, 6, 6\)"):
        xpnet.fit(X.reshape(40, 36), T, model="cnn")


# -- Files ---------------------------------------------------------------------------------


def test_files_pickles_and_copies_keep_filters_and_statistics(tmp_path: Path) -> None:
    model = trained().model
    model.save(tmp_path / "m.npz")
    for other in (
        Model.load(tmp_path / "m.npz"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model),
    ):  # fmt: skip
        assert other.network.arguments == model.network.arguments
        assert other.network.statistics.keys() == model.network.statistics.keys()
        np.testing.assert_array_equal(other.scores(X), model.scores(X))
        np.testing.assert_array_equal(other.to_host()["var1"], model.to_host()["var1"])
    assert model.to_host()["W1"].shape == (2, 1, 3, 3)
    assert (model.to_host()["var1"] != 1.0).all()


def test_a_file_trains_on(tmp_path: Path) -> None:
    first = trained(folder=tmp_path)
    path = checkpoint.numbered(tmp_path)[0]
    other = xpnet.Trainer.load(path, optimizer=optim.Adam(0.02), augment="shift=1,flip")
    np.testing.assert_array_equal(other.model.to_host()["mean2"], first.model.to_host()["mean2"])
    for trainer in (first, other):
        trainer.fit(X, T, epochs=1, batch_size=10)
    for name, value in first.model.to_host().items():
        np.testing.assert_array_equal(other.model.to_host()[name], value)


def test_early_stopping_restores_filters_and_statistics() -> None:
    network = xpnet.cnn((1, 6, 6), [[2, 3], 2], [4], 2, batch_norm=True)
    kept: dict[int, dict[str, np.ndarray]] = {}

    def keep(trainer: xpnet.Trainer, epoch: Any) -> None:
        kept[epoch.epoch] = trainer.model.to_host()

    trainer = xpnet.Trainer(network, optim.Adam(0.1))
    history = trainer.fit(
        X, T, epochs=20, batch_size=10, validation=(X, 1 - T), patience=2, callbacks=keep
    )
    assert history.best_epoch < len(history.epochs)
    for name, value in kept[history.best_epoch].items():
        np.testing.assert_array_equal(trainer.model.to_host()[name], value)
    assert not np.array_equal(kept[history.best_epoch]["mean1"], kept[len(history.epochs)]["mean1"])


ODD: tuple[Any, ...] = (None, True, -1, 0, 0.5, "x", [], [[]], [[0]], [[[1]]], {"a": 1}, 10**12)


def test_odd_arguments_of_a_file_are_refused_or_make_the_same_network(tmp_path: Path) -> None:
    model = trained(epochs=1).model
    path = tmp_path / "m.npz"
    model.save(path)
    arrays, meta = checkpoint.load(path)
    refused = 0
    for name in meta["arguments"]:
        for odd in ODD:
            checkpoint.save(path, arrays, {**meta, "arguments": {**meta["arguments"], name: odd}})
            try:
                other = Model.load(path)
            except CheckpointError:
                refused += 1
            else:
                assert other.network.gates == model.network.gates
    assert refused > 100


def test_a_negative_variance_is_refused(tmp_path: Path) -> None:
    trainer = trained(folder=tmp_path, epochs=1)
    path = checkpoint.numbered(tmp_path)[0]
    arrays, meta = schema.load(path)
    checkpoint.save(path, {**arrays, "params/var2": -arrays["params/var2"]}, meta)
    with pytest.raises(CheckpointError, match="var2 is negative; expected a variance"):
        Model.load(path)
    with pytest.raises(CheckpointError, match="var2 is negative; expected a variance"):
        trainer.fit(X, T, epochs=2, batch_size=10, folder=tmp_path, resume=True)
