"""A model: answers without a trainer, files of both versions, pickles and copies."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.backend.interface import Backend
from xpnet.data import Scaling
from xpnet.errors import CheckpointError, DataError, DeviceError, UsageError
from xpnet.models import Model, checkpoint

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
T = (X.sum(axis=1) > 0).astype(int)


def trained(backend: Backend | None = None, **options: Any) -> xpnet.Trainer:
    trainer = xpnet.Trainer(
        xpnet.mlp([4, 6, 2], dropout=0.2), optim.Adam(0.05), backend=backend,
        scaling=Scaling(0.1, 2.0), classes=("no", "yes"), columns=("a", "b", "c", "d"), **options,
    )  # fmt: skip
    trainer.fit(X, T, epochs=3, batch_size=20)
    return trainer


def same(model: Model, other: Model) -> None:
    np.testing.assert_array_equal(model.scores(X), other.scores(X))
    assert (model.classes, model.columns) == (other.classes, other.columns)
    assert model.network.arguments == other.network.arguments
    assert model.classifies == other.classifies


def test_a_model_does_without_a_trainer_what_a_trainer_does_with_it(tmp_path: Path) -> None:
    trainer = trained()
    trainer.save(tmp_path / "m.npz")
    model = Model.load(tmp_path / "m.npz")
    same(model, trainer.model)
    assert model.evaluate(X, T) == trainer.evaluate(X, T)
    np.testing.assert_array_equal(model.predict(X), trainer.predict(X))
    np.testing.assert_array_equal(model.predict_proba(X), trainer.predict_proba(X))
    with pytest.raises(DataError, match="expected 4 features"):
        model.predict(X[:, :3])


def test_a_trainer_goes_on_with_a_model(tmp_path: Path) -> None:
    model = trained().model
    before = model.scores(X)
    trainer = xpnet.Trainer(model, optim.SGD(0.1))
    assert trainer.model is model
    trainer.fit(X, T, epochs=1)
    assert np.abs(model.scores(X) - before).max() > 1e-4
    for option in ({"dtype": "float64"}, {"classes": ("a", "b")}, {"scaling": Scaling()}):
        with pytest.raises(UsageError, match="the model's own"):
            xpnet.Trainer(model, **option)


def test_a_network_that_does_not_say_its_outputs() -> None:
    graph = xpnet.Graph()
    x, t, W = graph.inputs("x t W")
    y = x @ W
    loss = graph.apply(xpnet.losses.SquaredLoss(), y, t)
    with pytest.raises(UsageError, match="pass outputs="):
        Model(xpnet.Network(graph, {"W": np.ones((4, 2))}, y, loss))
    model = Model(xpnet.Network(graph, {"W": np.ones((4, 2))}, y, loss, outputs=2))
    np.testing.assert_allclose(model.predict(X), X.sum(axis=1)[:, None] * [1, 1], rtol=1e-5)


def test_samples_take_the_shape_that_the_network_names() -> None:
    graph = xpnet.Graph()
    x, t, W, b = graph.inputs("x t W b")
    y = graph.apply(xpnet.layers.Affine(), x[:, 0], W, b)
    loss = graph.apply(xpnet.losses.SoftmaxWithLoss(), y, t)
    params = {"W": RNG.standard_normal((3, 2)), "b": np.zeros(2)}
    network = xpnet.Network(graph, params, y, loss, outputs=2, input_shape=(2, 3))
    images = RNG.standard_normal((5, 2, 3))
    expected = images[:, 0] @ params["W"]
    for samples in (images, images.reshape(5, 6)):
        np.testing.assert_allclose(Model(network).scores(samples), expected, rtol=1e-5)
    with pytest.raises(DataError, match="expected 6 features"):
        Model(network).scores(images[:, 0])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_pickles_and_copies(backend: Backend, copied: Any) -> None:
    model = trained(backend).model
    twin = copied(model)
    same(model, twin)
    assert (twin.backend.library, twin.backend.device) == (backend.library, backend.device)
    name = next(iter(twin.params))
    twin.params = {**twin.params, name: twin.params[name] * 2.0}
    assert np.abs(model.scores(X) - twin.scores(X)).max() > 1e-3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copied_trainer_goes_on_as_the_first_does(backend: Backend, copied: Any) -> None:
    trainer = trained(backend, weight_decay=0.01, clip_norm=0.5, seed=4)
    twin = copied(trainer)
    losses = [each.fit(X, T, epochs=2, batch_size=20).losses for each in (trainer, twin)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
    np.testing.assert_allclose(twin.scores(X), trainer.scores(X), rtol=1e-5, atol=1e-6)


def test_a_pickle_of_a_network_built_by_hand() -> None:
    graph = xpnet.Graph()
    x, t, W = graph.inputs("x t W")
    y = x @ W
    loss = graph.apply(xpnet.losses.SquaredLoss(), y, t)
    network = xpnet.Network(graph, {"W": RNG.standard_normal((4, 2))}, y, loss, outputs=2)
    model = Model(network, dtype="float64")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).scores(X), model.scores(X))


def test_a_pickle_whose_backend_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import xpnet.models.model as module

    model = trained().model
    model.backend = xpnet.select("cpu", "strict")  # the name that the pickle keeps
    content = pickle.dumps(model)
    select = module.select

    def without(device: str, library: str | None = None, *rest: Any, **more: Any) -> Backend:
        if library == "strict":
            raise DeviceError("strict is not installed: pip install array-api-strict")
        return select(device, library, *rest, **more)

    monkeypatch.setattr(module, "select", without)
    with pytest.warns(
        RuntimeWarning, match="backend strict, cpu here.*is now on numpy, cpu"
    ) as warned:
        opened = pickle.loads(content)
    assert len(warned) == 1
    assert opened.backend.library == "numpy"
    same(opened, trained().model)


def test_files_of_version_1_are_read(tmp_path: Path) -> None:
    """As versions before 0.2.0 wrote them: no builder, and the columns among the extras."""
    model = trained().model
    arrays, meta = model.packed()
    for name in ("builder", "arguments", "columns"):
        del meta[name]
    meta |= {
        "format": 1, "spec": model.network.arguments,
        "extra": {"columns": model.columns, "label_column": "e"},
    }  # fmt: skip
    checkpoint.save(tmp_path / "old.npz", arrays, meta)
    same(Model.load(tmp_path / "old.npz"), model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 4}, "has format 4; this version of xpnet reads 1 to 3"),
        ({"builder": "transformer"}, "made by 'transformer'; this version of xpnet has mlp"),
        ({"builder": "", "arguments": {}}, "built by hand; pass network="),
    ],
)
def test_files_that_cannot_be_opened(tmp_path: Path, change: Any, message: str) -> None:
    arrays, meta = trained().model.packed()
    checkpoint.save(tmp_path / "m.npz", arrays, json.loads(json.dumps(meta | change)))
    with pytest.raises(CheckpointError, match=message):
        Model.load(tmp_path / "m.npz")


def test_predicting_makes_no_optimizer_state_and_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, meta = trained().model.packed()

    def never(*args: Any, **more: Any) -> Any:
        raise AssertionError("only a training needs this")

    monkeypatch.setattr("xpnet.backend.numpy.NumPy.loop", never)
    monkeypatch.setattr("xpnet.optim.init", never)
    Model.unpacked(arrays, meta, path="a file").predict(X)


@pytest.mark.parametrize(("kind", "other"), [("u1", "f4"), ("f8", "u1"), ("i2", "u1")])
def test_bytes_and_other_numbers_are_not_taken_for_each_other(
    tmp_path: Path, kind: str, other: str
) -> None:
    """Without a scaling only uint8 is divided by 255, which the dtype alone would decide."""
    x = np.random.default_rng(0).integers(0, 256, (60, 4), dtype=np.uint8)
    trainer = xpnet.Trainer(xpnet.mlp([4, 6, 2]), optim.Adam(0.01), scaling=None)
    with pytest.raises(DataError, match=r"x of the validation set: got .* trained on"):
        trainer.fit(x.astype(kind), T, epochs=1, validation=(x.astype(other), T))
    assert trainer.model.sample_dtype is None
    trainer.fit(x.astype(kind), T, epochs=1)
    trainer.save(tmp_path / "m.npz")
    opened = Model.load(tmp_path / "m.npz")
    revived = pickle.loads(pickle.dumps(trainer.model))
    for model in (trainer.model, opened, revived, copy.deepcopy(opened)):
        expected = model.scores(x.astype(kind))
        with pytest.raises(DataError, match=f"x: got {np.dtype(other)}, but the network was"):
            model.predict(x.astype(other))
        with pytest.raises(DataError, match="give x as"):
            model.evaluate(x.astype(other), T)
        if kind != "u1":  # other dtypes hold the same values
            np.testing.assert_array_equal(model.scores(x.astype("i8")), expected)
    with pytest.raises(DataError, match="was trained on"):
        trainer.fit(x.astype(other), T, epochs=1)


def test_a_scaling_of_its_own_holds_for_every_dtype() -> None:
    x = np.random.default_rng(0).integers(0, 256, (60, 4), dtype=np.uint8)
    trainer = xpnet.Trainer(xpnet.mlp([4, 6, 2]), scaling=Scaling(100.0, 0.01))
    trainer.fit(x, T, epochs=1)
    np.testing.assert_allclose(
        trainer.model.scores(x.astype(float)), trainer.model.scores(x), rtol=1e-5
    )


def test_given_parameters_stand_in_place_of_drawn_ones() -> None:
    given = {name: 2.0 * value for name, value in xpnet.mlp([4, 6, 2]).params.items()}
    network = xpnet.mlp([4, 6, 2], params=given)
    assert all(network.params[name] is value for name, value in given.items())
    assert network.arguments == xpnet.mlp([4, 6, 2]).arguments
    for odd in ({}, given | {"b2": np.zeros(3)}, given | {"W1": given["W1"].T}):
        with pytest.raises(ValueError, match=r"params: (W1|b2) is .*, expected shape"):
            xpnet.mlp([4, 6, 2], params=odd)


def test_layers_beyond_the_memory_are_refused_before_any_is_drawn() -> None:
    with pytest.raises(MemoryError, match="1000000000, 1 units have 5,000,000,001 parameters"):
        xpnet.mlp([3, 10**9, 1])
