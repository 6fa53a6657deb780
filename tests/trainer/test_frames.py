"""Data frames, text labels, class weights and watched metrics in the trainer."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet import Model, Trainer, mlp, optim
from xpnet.data import Encoder, class_weights, standardize
from xpnet.errors import DataError, UsageError
from xpnet.models import checkpoint

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)).round(3)
NAMES = np.where(X[:, 0] + X[:, 1] > 0, "yes", "no")
T = (NAMES == "yes").astype(int)


@pytest.fixture(params=["pandas", "polars", "pyarrow"])
def frames(request: pytest.FixtureRequest) -> Any:
    """Make a data frame of a library from a dict of columns."""
    library = pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    return library.table if request.param == "pyarrow" else library.DataFrame


def columns(**more: Any) -> dict[str, Any]:
    return {"a": X[:, 0].tolist(), "b": X[:, 1].tolist(), "c": X[:, 2].tolist(), **more}


def mixed() -> dict[str, Any]:
    """Columns with gaps, text, and true / false, on which the labels depend."""
    colour = RNG.choice(["red", "green"], 300).tolist()
    size = [None if i % 7 == 0 else float(v) for i, v in enumerate(X[:, 0])]
    big = (X[:, 1] > 0).tolist()
    y = ["in" if c == "red" and b else "out" for c, b in zip(colour, big, strict=True)]
    return {"colour": colour, "size": size, "big": big, "y": y}


# -- Frames ----------------------------------------------------------------------------


def test_a_frame_of_numbers_trains_as_its_array_does(frames: Any) -> None:
    one, other = (Trainer(mlp([3, 8, 2]), optim.Adam(0.01)) for _ in range(2))
    one.fit(X, T, epochs=3)
    frame = frames(columns(y=T.tolist()))
    other.fit(frames(columns()), frame["y"], epochs=3)
    for name, value in one.model.to_host().items():
        np.testing.assert_array_equal(other.model.to_host()[name], value)
    # By name: in another order, with one more.
    turned = frames({"y": T.tolist(), **dict(reversed(columns().items()))})
    np.testing.assert_array_equal(other.predict(turned), one.predict(X))
    assert other.evaluate(turned, T) == one.evaluate(X, T)
    with pytest.raises(DataError, match="has no column 'b'"):
        other.predict(frames({"a": [1.0], "c": [2.0]}))


def test_text_gaps_and_truth_values_train(frames: Any, tmp_path: Path) -> None:
    frame = frames(mixed())
    encoder = Encoder.of(frames({k: v for k, v in mixed().items() if k != "y"}))
    trainer = Trainer(mlp([encoder.width, 16, 2]), optim.Adam(0.02), encoder=encoder)
    frame = frames(data := mixed())
    trainer.fit(frame, frame["y"], epochs=60, batch_size=50)
    assert trainer.model.columns == encoder.names
    assert (trainer.predict(frame) == np.array(data["y"])).mean() > 0.95
    accuracy = trainer.evaluate(frame, frame["y"])["accuracy"]
    assert accuracy == (trainer.predict(frame) == np.array(data["y"])).mean()
    trainer.save(tmp_path / "m.npz")
    expected = trainer.predict_proba(frame)
    for model in (
        Model.load(tmp_path / "m.npz"),
        pickle.loads(pickle.dumps(trainer.model)),
        copy.deepcopy(trainer.model),
    ):
        assert model.encoder == encoder
        assert model.predict(frame).tolist() == trainer.predict(frame).tolist()
        np.testing.assert_array_equal(model.predict_proba(frame), expected)


def test_a_frame_is_standardized_as_its_array(frames: Any) -> None:
    shift, scale = standardize(frames(columns()))
    np.testing.assert_array_equal(shift, standardize(X).shift)
    np.testing.assert_array_equal(scale, standardize(X).scale)


def test_several_targets_come_in_a_frame(frames: Any) -> None:
    one, other = (Trainer(mlp([3, 8, 2], loss="squared")) for _ in range(2))
    y = np.stack([X[:, 0] * 2, X[:, 1] - 1], axis=1)
    one.fit(X, y, epochs=2)
    other.fit(X, frames({"u": y[:, 0].tolist(), "v": y[:, 1].tolist()}), epochs=2)
    np.testing.assert_array_equal(other.predict(X), one.predict(X))


def test_what_a_frame_makes_must_fit_the_network(frames: Any) -> None:
    data = mixed()
    frame = frames({"colour": data["colour"], "size": data["size"]})
    with pytest.raises(DataError, match=r"the table's 2 columns make 4 features, but the network"):
        Trainer(mlp([3, 2])).fit(frame, data["y"], epochs=1)
    trainer = Trainer(mlp([3, 2]))
    trainer.fit(X, T, epochs=1)
    with pytest.raises(DataError, match="column text has text, expected numbers alone"):
        trainer.predict(frames({"a": [1.0], "b": [1.0], "text": ["u"]}))
    with pytest.raises(UsageError, match="encoder is 7; expected one"):
        Trainer(mlp([3, 2]), encoder=7)  # type: ignore[arg-type]


# -- Text labels -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [np.asarray, list, lambda t: np.asarray(t, object), np.char.encode]
)
def test_text_labels_come_back_as_text(kind: Any) -> None:
    one, other = (Trainer(mlp([3, 8, 2]), optim.Adam(0.01)) for _ in range(2))
    one.fit(X, T, epochs=5)
    other.fit(X, kind(NAMES), epochs=5, validation=(X[:50], kind(NAMES[:50])))
    assert other.classes == ("no", "yes")
    assert other.predict(X).tolist() == np.array(["no", "yes"])[one.predict(X)].tolist()
    assert other.evaluate(X, NAMES) == one.evaluate(X, T)
    assert one.predict(X).dtype.kind == "i"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.where(T, "yes", "NA"), "t: row .*: got 'NA', a missing label"),
        (["yes", None] * 150, "t: row 1: got .None.*, expected text"),
        (["a", "b", "c"] * 100, "has 3 different labels, expected 2"),
        (NAMES[:10], "t: got 10 targets for 300 samples"),
    ],
)
def test_bad_text_labels_are_refused(labels: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Trainer(mlp([3, 2])).fit(X, labels, epochs=1)
    trainer = Trainer(mlp([3, 2]))
    trainer.fit(X, NAMES, epochs=1)
    with pytest.raises(DataError, match="got 'maybe', expected one of no, yes"):
        trainer.evaluate(X, ["maybe"] * 300)
    with pytest.raises(DataError, match="the loss is that of a regression"):
        Trainer(mlp([3, 1], loss="squared")).fit(X, NAMES, epochs=1)


# -- Class weights, metrics, thresholds ------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "weights"),
    [(T, "balanced"), (T, {0: 1.0, 1: 5.0}), (NAMES, {"no": 1.0, "yes": 5.0})],
)
def test_class_weights_are_sample_weights(labels: Any, weights: Any) -> None:
    one, other = (Trainer(mlp([3, 8, 2])) for _ in range(2))
    each = RNG.uniform(0.5, 2, 300)
    by_class = class_weights(labels, weights, each if weights == "balanced" else None)
    one.fit(X, T, epochs=2, sample_weight=each * by_class)
    other.fit(X, labels, epochs=2, sample_weight=each, class_weight=weights)
    for name, value in one.model.to_host().items():
        np.testing.assert_array_equal(other.model.to_host()[name], value)


def test_a_metric_decides_which_epoch_is_the_best() -> None:
    noisy = np.where(RNG.random(300) < 0.3, 1 - T, T)
    trainer = Trainer(mlp([3, 30, 2]), optim.Adam(0.02))
    history = trainer.fit(
        X[:200], noisy[:200], epochs=25, validation=(X[200:], noisy[200:]), metric="f1", patience=8
    )
    values = history.column("val_metric")
    best = max(v for v in values if v is not None)
    assert history.best_epoch == values.index(best) + 1
    assert trainer.evaluate(X[200:], noisy[200:])["f1"] == pytest.approx(best)
    assert len(history.epochs) == min(25, history.best_epoch + 8)


def test_less_of_an_error_is_better(tmp_path: Path) -> None:
    trainer = Trainer(mlp([3, 8, 1], loss="squared"), optim.Adam(0.05))
    y = X @ [1.0, 2.0, 3.0]
    options: Any = {"validation": (X[200:], y[200:]), "metric": "mae", "batch_size": 50}
    history = trainer.fit(X[:200], y[:200], epochs=12, folder=tmp_path, **options)
    values = [v for v in history.column("val_metric") if v is not None]
    assert values[history.best_epoch - 1] == min(values)
    # A resumed run goes on with the values that it had.
    more = trainer.fit(X[:200], y[:200], epochs=14, folder=tmp_path, resume=True, **options)
    assert more.column("val_metric")[:12] == values
    other = trainer.fit(
        X[:200], y[:200], epochs=15, folder=tmp_path, resume=True, **options | {"metric": "rmse"}
    )
    assert other.best_epoch in (0, 15)  # what was best by another number counts no more


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"metric": "f2", "validation": (X, T)}, "there is no metric 'f2'; expected accuracy"),
        ({"metric": "rmse", "validation": (X, T)}, "metric rmse is for a regression"),
        ({"metric": "f1"}, "metric needs validation data"),
        ({"class_weight": "even"}, "class weights are 'even'"),
        ({"class_weight": {7: 1.0}}, "got one for 7, which is no class"),
    ],
)
def test_bad_metrics_and_weights_are_refused(arguments: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Trainer(mlp([3, 2])).fit(X, T, epochs=1, **arguments)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_a_threshold_decides_between_two_classes(loss: str, tmp_path: Path) -> None:
    trainer = Trainer(mlp([3, 2 if loss == "softmax" else 1], loss=loss))
    trainer.fit(X, T, epochs=3)
    trainer.model.threshold = 0.3
    chosen = trainer.predict_proba(X)[:, 1] >= 0.3
    np.testing.assert_array_equal(trainer.predict(X), chosen)
    assert trainer.evaluate(X, T)["accuracy"] == pytest.approx((chosen == T).mean())
    trainer.save(tmp_path / "m.npz")
    loaded = Model.load(tmp_path / "m.npz")
    assert loaded.threshold == 0.3
    np.testing.assert_array_equal(loaded.predict(X), chosen)


def test_a_threshold_needs_two_classes_and_probabilities() -> None:
    for network in (mlp([3, 3]), mlp([3, 1], loss="squared"), mlp([3, 2], loss="hinge")):
        with pytest.raises(UsageError, match="threshold: "):
            Model(network, threshold=0.5)
    with pytest.raises(UsageError, match=r"threshold is 1\.5"):
        Model(mlp([3, 2]), threshold=1.5)


# -- Training on -----------------------------------------------------------------------


def test_a_checkpoint_is_trained_on_with_its_optimizer_state(tmp_path: Path) -> None:
    whole = Trainer(mlp([3, 8, 2]), optim.Adam(0.01))
    whole.fit(X, T, epochs=2)
    part = Trainer(mlp([3, 8, 2]), optim.Adam(0.01))
    part.fit(X, T, epochs=1, folder=tmp_path)
    path = checkpoint.numbered(tmp_path)[0]
    on = Trainer.load(path, optimizer=optim.Adam(0.01))
    for name, value in part.state.items():
        np.testing.assert_array_equal(on.state[name], value)
    for other in (optim.SGD(0.1), optim.Adam(optim.cosine(0.01, 9))):
        assert int(Trainer.load(path, optimizer=other).state["step"]) == 0


def test_a_series_of_sample_weights() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    each = RNG.uniform(0.5, 2, 300)
    for options in ({}, {"class_weight": "balanced"}):
        one, other = (Trainer(mlp([3, 8, 2])) for _ in range(2))
        one.fit(X, NAMES, epochs=2, sample_weight=each, **options)
        series = pandas.Series(each, index=range(300, 0, -1))
        other.fit(X, NAMES, epochs=2, sample_weight=series, **options)
        for name, value in one.model.to_host().items():
            np.testing.assert_array_equal(other.model.to_host()[name], value)


@pytest.mark.parametrize("weights", ["balanced", {"no": 1.0, "yes": 5.0}])
def test_sample_weights_of_another_length_are_refused(weights: Any) -> None:
    with pytest.raises(DataError, match=r"sample_weight: got shape \(3,\), expected \(300,\)"):
        Trainer(mlp([3, 2])).fit(X, NAMES, sample_weight=np.ones(3), class_weight=weights)


def test_a_refused_fit_leaves_no_names(frames: Any) -> None:
    trainer = Trainer(mlp([3, 8, 2]))
    with pytest.raises(DataError, match="got 10 targets for 300 samples"):
        trainer.fit(frames(columns()), NAMES[:10])
    with pytest.raises(UsageError, match="a callback is 3"):
        trainer.fit(frames(columns()), NAMES, callbacks=[3])  # type: ignore[list-item]
    assert trainer.model.encoder is None
    assert trainer.model.columns == ()
    assert trainer.classes is None
    other = {name + name: value for name, value in columns().items()}
    trainer.fit(frames(other), T, epochs=1)
    assert trainer.model.columns == ("aa", "bb", "cc")
    assert trainer.predict(X).dtype.kind == "i"
