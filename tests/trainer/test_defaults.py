"""What a training does if you say nothing: one set of defaults, by the size of the data."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import Trainer, optim
from xpnet.commands import train
from xpnet.data import Scaling, standardize
from xpnet.errors import DataError, UsageError
from xpnet.models import Model
from xpnet.trainer.defaults import defaults

RNG = np.random.default_rng(5)
X = RNG.standard_normal((300, 4)) * [1.0, 10.0, 0.1, 1000.0] + [0.0, 50.0, 3.0, -2000.0]
T = (X[:, 0] + X[:, 1] / 10 > 5).astype(int) + (X[:, 3] > -2000)


@pytest.mark.parametrize(
    ("n", "batch", "epochs", "decay"),
    [
        (80, 16, 60, 1.0),
        (500, 16, 16, 1.0),
        (1437, 44, 44, 1.0),
        (6000, 128, 43, 0.5),
        (60_000, 128, 20, 0.05),
    ],
)
def test_sizes_by_hand(n: int, batch: int, epochs: int, decay: float) -> None:
    chosen = defaults(n)
    assert (chosen.batch_size, chosen.epochs, chosen.weight_decay) == (batch, epochs, decay)
    # With batches of another size, as many steps to within an epoch.
    steps = epochs * -(-n // batch)
    other = defaults(n, 50)
    assert abs(other.epochs * -(-n // 50) - steps) <= max(-(-n // 50), -(-n // batch))


def test_the_command_and_python_train_the_same_network(in_tmp: Path) -> None:
    np.savez("d.npz", x_train=X[:240], y_train=T[:240], x_test=X[240:], y_test=T[240:])
    assert train.main(["--data", "d.npz", "--quiet", "--device", "cpu", "--out", "run"]) == 0
    by_command = Model.load("run/model.npz")
    trainer = xpnet.fit(X[:240], T[:240])
    by_hand = Trainer(xpnet.mlp([4, 100, 100, 3]))
    by_hand.fit(X[:240], T[:240])
    for model in (trainer.model, by_hand.model):
        for name, value in by_command.to_host().items():
            np.testing.assert_array_equal(model.to_host()[name], value)
    assert trainer.history is not None
    assert len(trainer.history.epochs) == 20  # 300 steps of 16 samples
    assert trainer.evaluate(X[240:], T[240:])["accuracy"] > 0.9


def test_scalings_are_found_by_the_first_fit(backend: Any) -> None:
    y = X[:, 1] * 1e4
    found = Trainer(xpnet.mlp([4, 8, 1], loss="squared"), optim.Adam(0.01), backend=backend)
    given = Trainer(
        xpnet.mlp([4, 8, 1], loss="squared"), optim.Adam(0.01), backend=backend,
        scaling=standardize(X), target_scaling=standardize(y[:, None]),
    )  # fmt: skip
    losses = [trainer.fit(X, y, epochs=3, batch_size=50).losses for trainer in (found, given)]
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(found.predict(X[:5]), given.predict(X[:5]))
    found.fit(X * 100, y, epochs=1, batch_size=50)  # the model's unit is that of its first data
    np.testing.assert_array_equal(found.feed.scaling.shift, given.feed.scaling.shift)


def test_scalings_of_images_counts_and_classes() -> None:
    images = RNG.integers(0, 256, (50, 3, 3)).astype(np.float64)
    trainer = Trainer(xpnet.mlp([9, 4, 1], loss="poisson"))
    trainer.fit(images, np.arange(50), epochs=1)
    assert trainer.feed.target_scaling is None  # a mean of 0 would make negative targets
    assert trainer.feed.scaling == pytest.approx((images.mean(), 1 / images.std()))
    assert trainer.predict(images.reshape(50, 9)).shape == (50, 1)  # another shape, same unit
    trainer = Trainer(xpnet.mlp([9, 4, 2]))
    trainer.fit(images.astype(np.uint8), np.arange(50) % 2, epochs=1)
    assert trainer.feed.scaling is None
    trainer = Trainer(xpnet.mlp([9, 4, 2]))
    counts = images.astype(np.uint8).reshape(50, 9) // 3
    trainer.fit(counts, np.arange(50) % 2, epochs=1)  # no pixels: none is above 100
    np.testing.assert_array_equal(trainer.feed.scaling.shift, counts.mean(axis=0))
    trainer = Trainer(xpnet.mlp([4, 3]), scaling=None)
    trainer.fit(X / 1000, T, epochs=1)
    assert trainer.feed.scaling is None


def test_a_refused_fit_finds_no_scaling(tmp_path: Path) -> None:
    trainer = Trainer(xpnet.mlp([4, 3]))
    bad = X.copy()
    bad[7, 2] = np.nan
    with pytest.raises(DataError, match="row 7"):
        trainer.fit(bad, T)
    with pytest.raises(UsageError, match="epochs"):
        trainer.fit(X * 2, T, epochs=0)
    trainer.fit(X, T, epochs=1)
    np.testing.assert_array_equal(trainer.feed.scaling.shift, standardize(X).shift)


def test_each_fit_begins_its_own_schedule() -> None:
    trainer = Trainer(xpnet.mlp([4, 3]))
    trainer.fit(X, T, epochs=4, batch_size=100)
    before = trainer.model.to_host()
    assert trainer.optimizer == optim.AdamW(optim.cosine(0.01, 12), weight_decay=1.0, beta2=0.98)
    assert int(trainer.state["step"]) == 12
    trainer.fit(X, T, epochs=2, batch_size=100)  # at the old schedule's end nothing would move
    assert trainer.optimizer == optim.AdamW(optim.cosine(0.01, 6), weight_decay=1.0, beta2=0.98)
    assert not np.array_equal(before["W1"], trainer.model.to_host()["W1"])


def test_settings_of_your_own_replace_the_defaults() -> None:
    trainer = Trainer(xpnet.mlp([4, 3]), weight_decay=0.25)
    trainer.fit(X, T, epochs=1)
    assert trainer.optimizer.weight_decay == 0.25
    rule = optim.Momentum(0.1)
    trainer = Trainer(xpnet.mlp([4, 3]), rule)
    assert trainer.fit(X, T, batch_size=300).steps == 300
    assert trainer.optimizer is rule


def test_a_pickled_trainer_goes_on_as_the_original() -> None:
    trainer = Trainer(xpnet.mlp([4, 5, 3]))
    early = pickle.loads(pickle.dumps(trainer))
    first = trainer.fit(X, T, epochs=2).losses
    assert early.fit(X, T, epochs=2).losses == first
    revived = pickle.loads(pickle.dumps(trainer))
    assert revived.fit(X, T, epochs=2).losses == trainer.fit(X, T, epochs=2).losses


def test_resume_finds_scaling_and_schedule_again(tmp_path: Path) -> None:
    expected = Trainer(xpnet.mlp([4, 5, 3])).fit(X, T, epochs=6).losses
    calls: list[int] = []
    stop = lambda: calls.append(1) or len(calls) > 0  # noqa: E731
    Trainer(xpnet.mlp([4, 5, 3])).fit(X, T, epochs=6, folder=tmp_path, stop=stop)
    history = Trainer(xpnet.mlp([4, 5, 3])).fit(X, T, epochs=6, folder=tmp_path, resume=True)
    assert history.losses == expected


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([0, 1, 2], "iu"), ([1, 2, 3], "i"), ([-1, 0, 1], "i"), ([10.0, 20.0, 30.0], "f"),
        (["no", "perhaps", "yes"], "U"), ([3, 5, 2**40], "i"),
    ],
)  # fmt: skip
def test_one_call_answers_with_the_labels_that_it_was_given(
    labels: list[Any], kind: str, tmp_path: Path
) -> None:
    t = np.array(labels)[T]
    trainer = xpnet.fit(X, t, epochs=20, hidden=[20], validation=(X, t), class_weight="balanced")
    answers = trainer.predict(X)
    assert answers.dtype.kind in kind
    assert (answers == t).mean() == pytest.approx(trainer.evaluate(X, t)["accuracy"])
    assert (answers == t).mean() > 0.8
    trainer.save(tmp_path / "m.npz")
    np.testing.assert_array_equal(Model.load(tmp_path / "m.npz").predict(X), answers)


def test_one_call_finds_the_loss() -> None:
    def loss(t: Any, **options: Any) -> tuple[str, int]:
        network = xpnet.fit(X[:20], t[:20], epochs=1, hidden=[], **options).network
        assert network.outputs is not None
        return network.arguments["loss"], network.outputs

    assert loss(T) == ("softmax", 3)
    assert loss(np.eye(3)[T]) == ("softmax", 3)
    assert loss(T > 0, loss="sigmoid") == ("sigmoid", 1)
    assert loss(X[:, 1] / 7) == ("squared", 1)
    assert loss(X[:, :2] / 7) == ("squared", 2)
    assert loss(T, loss="squared") == ("squared", 1)
    assert loss(T, loss=("huber", {"delta": 2.0})) == (["huber", {"delta": 2.0}], 1)
    assert loss(T, loss=xpnet.losses.PoissonLoss()) == ("poisson", 1)


def test_true_and_false_come_back() -> None:
    trainer = xpnet.fit(X, T > 0, epochs=20)
    assert trainer.predict(X).dtype == bool
    assert (trainer.predict(X) == (T > 0)).mean() > 0.8


@pytest.mark.parametrize(
    ("x", "t", "options", "words"),
    [
        (X, T[:5], {}, "t"),
        (X, np.zeros(300, int), {}, "expected at least two"),
        (X, np.full(300, np.nan), {}, "t"),
        (X, T, {"loss": "softmac"}, "expected one of softmax"),
        (X, X[:, 0], {"loss": "softmax"}, "t"),
        (X, np.zeros((0,)), {}, "t: got shape"),
        (np.zeros((0, 4)), np.zeros((0,), int), {}, "t: got shape"),
        (X, 3, {}, "t"),
        ("abc", T, {}, "x"),
        (X, T, {"hidden": 5}, "expected a list"),
        (X, T, {"device": "gpu"}, "device"),
        (X, T, {"backend": "numpyy"}, "numpyy"),
    ],
)
def test_one_call_refuses_in_one_line(x: Any, t: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises((DataError, UsageError), match=words) as caught:
        xpnet.fit(x, t, **options)
    assert "\n" not in str(caught.value)


def test_frames_and_text(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    colour = np.where(X[:, 1] > 50, "red", "blue").astype(object)
    colour[::20] = None
    frame = pd.DataFrame({"a": X[:, 0], "colour": colour})
    trainer = xpnet.fit(frame, np.where(X[:, 1] > 50, "hot", "cold"))
    assert trainer.evaluate(frame, np.where(X[:, 1] > 50, "hot", "cold"))["accuracy"] > 0.9
    assert set(trainer.predict(frame[["colour", "a"]])) == {"hot", "cold"}
    assert trainer.feed.scaling.shift[0] == pytest.approx(X[:, 0].mean())
    # A trainer learns the encoding too, and scales.
    by_hand = Trainer(xpnet.mlp([trainer.model.encoder.width, 5, 2]))
    by_hand.fit(frame, np.where(X[:, 1] > 50, "hot", "cold"), epochs=1)
    np.testing.assert_array_equal(by_hand.feed.scaling.shift, trainer.feed.scaling.shift)


def test_the_presets_of_the_command(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--preset", "book", "--dry-run", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "64 - 50 - 10, sigmoid" in out
    assert "sgd, lr 0.1 constant, 17 epochs, batch 100" in out
    assert train.main(["--preset", "book", "--lr", "0.5", "--dry-run", "--device", "cpu"]) == 0
    assert "lr 0.5 constant, 17 epochs" in capsys.readouterr().out
    assert train.main(["--optimizer", "sgd", "--dry-run", "--device", "cpu"]) == 0
    assert "sgd, lr 0.1 cosine, 44 epochs, batch 44" in capsys.readouterr().out


def test_scaling_is_auto_none_or_a_pair() -> None:
    with pytest.raises(UsageError, match="scaling is"):
        Trainer(xpnet.mlp([4, 3]), scaling="off")  # type: ignore[arg-type]
    assert Trainer(xpnet.mlp([4, 3]), scaling=Scaling(1.0, 2.0)).feed.scaling == (1.0, 2.0)


def test_a_loss_says_what_many_whole_numbers_are() -> None:
    t = np.arange(300)
    with pytest.raises(DataError, match=r"classes or numbers\? .*in Python, loss="):
        xpnet.fit(X, t)
    assert xpnet.fit(X, t, loss="softmax", epochs=1, hidden=[4]).network.outputs == 300
    assert xpnet.fit(X, t, loss="squared", epochs=1, hidden=[4]).network.outputs == 1


@pytest.mark.parametrize(
    "labels", [(2**53 + 1, 5), (2**60, 2**60 + 1), (2**63 + 1, 7), (-(2**62) - 1, -(2**62))]
)
def test_long_whole_numbers_come_back_with_all_their_digits(labels: tuple[int, int]) -> None:
    dtype = np.uint64 if max(labels) > 2**63 else np.int64
    t = np.where(X[:, 0] > 0, *(np.array(label, dtype) for label in labels))
    trainer = xpnet.fit(X, t, epochs=20)
    assert set(trainer.predict(X).tolist()) == set(labels)
    assert (trainer.predict(X) == t).mean() == trainer.evaluate(X, t)["accuracy"]


def test_series_of_objects_and_categories_answer_with_numbers() -> None:
    pd = pytest.importorskip("pandas")
    for t in (
        pd.Series([2**60, 2**60 + 1] * 150, dtype=object),
        pd.Series(np.where(X[:, 0] > 0, 3, 7)).astype("category"),
    ):
        answers = xpnet.fit(X, t, epochs=3).predict(X)
        assert answers.dtype == np.int64
        assert set(answers.tolist()) <= set(t.to_list())


def test_a_regression_answers_in_the_shape_of_its_targets(tmp_path: Path) -> None:
    t = X[:, 1] / 7 + 0.5
    trainer = xpnet.fit(X, t)
    error = np.abs(trainer.predict(X) - t).mean()
    assert error == pytest.approx(trainer.evaluate(X, t)["mae"])
    trainer.save(tmp_path / "m.npz")
    assert Model.load(tmp_path / "m.npz").predict(X).shape == (300,)
    assert xpnet.fit(X, t[:, None], epochs=1).predict(X).shape == (300, 1)
    assert xpnet.fit(X, [f"{value:.3f}" for value in t], epochs=1).predict(X).shape == (300,)


def test_labels_in_a_column() -> None:
    trainer = xpnet.fit(X, T[:, None], epochs=20)
    assert trainer.predict(X).shape == (300,)
    assert trainer.evaluate(X, T[:, None]) == trainer.evaluate(X, T)


def test_the_rate_alone_can_be_set() -> None:
    trainer = xpnet.fit(X, T, lr=0.001, epochs=2, batch_size=100)
    assert trainer.optimizer == optim.AdamW(optim.cosine(0.001, 6), weight_decay=1.0, beta2=0.98)
    assert pickle.loads(pickle.dumps(trainer)).fit(X, T, epochs=2, batch_size=100)
    with pytest.raises(UsageError, match=r"lr is the optimizer's own: SGD\(0.1\)"):
        xpnet.fit(X, T, lr=0.1, optimizer=optim.SGD(1.0))
    with pytest.raises(UsageError, match="lr"):
        Trainer(xpnet.mlp([4, 3]), lr=-1.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "book", "--beta2", "0.9"], "--beta2 is for adam and adamw, not for sgd"),
        (["--resume", "run", "--preset", "book"], "--preset is for a new run"),
    ],
)
def test_presets_that_do_not_fit_are_refused(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert train.main(words) == 2
    assert message in capsys.readouterr().err
