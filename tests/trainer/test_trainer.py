"""The trainer: it learns, resumes to the same bits, stops early, refuses bad input."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.data import Scaling
from xpnet.errors import CheckpointError, DataError, NonFiniteLossError, UsageError
from xpnet.models import checkpoint
from xpnet.trainer import Trainer


def digits(n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    data, _ = xpnet.datasets.load("digits")
    return data.x[:n], data.t[:n]


def trainer(**options: Any) -> Trainer:
    """One with all that a checkpoint has to bring back: dropout, moments, a schedule."""
    net = xpnet.mlp([64, 20, 10], dropout=0.2, seed=1)
    rule = optim.Adam(optim.cosine(0.01, 60, warmup=5))
    return Trainer(net, rule, scaling=Scaling(0.0, 1 / 16), seed=1, **options)


def plain(**net: Any) -> Trainer:
    return Trainer(
        xpnet.mlp([64, 20, 10], **net, seed=1), optim.Adam(0.01), scaling=Scaling(0.0, 1 / 16)
    )


@pytest.fixture
def each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of one step, so that a run can be stopped after any of them."""
    monkeypatch.setattr("xpnet.backend.loop.CHUNK_SECONDS", -1.0)


def test_learns_and_keeps_a_history() -> None:
    x, t = digits(1000)
    trained = plain()
    history = trained.fit(x[:800], t[:800], epochs=8, batch_size=100, validation=(x[800:], t[800:]))
    assert history.reason == "epochs"
    assert len(history.losses) == 8 * 8
    assert [e.epoch for e in history.epochs] == list(range(1, 9))
    assert [e.step for e in history.epochs] == list(range(8, 65, 8))
    last = history.epochs[-1]
    assert last.train_score is not None
    assert last.train_score > 0.9
    assert last.val_score is not None
    assert last.val_score > 0.85
    assert last.samples_per_second > 0
    result = trained.evaluate(x[800:], t[800:])
    assert {name: result[name] for name in ("loss", "accuracy")} == {
        "loss": last.val_loss, "accuracy": last.val_score,
    }  # fmt: skip


def test_train_loss_is_the_mean_over_samples_not_over_batches() -> None:
    """250 samples in batches of 100 end with one of 50, which counts half."""
    x, t = digits(250)
    history = trainer().fit(x, t, epochs=1, batch_size=100)
    a, b, c = history.losses
    assert history.epochs[0].train_loss == pytest.approx((100 * a + 100 * b + 50 * c) / 250)


def test_evaluate_agrees_with_plain_numpy() -> None:
    x, t = digits(1700)
    trained = trainer(dtype="float64")
    p = trained.params
    h = np.maximum(x / 16 @ p["W1"] + p["b1"], 0)
    z = h @ p["W2"] + p["b2"]
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(t)), t]
    result = trained.evaluate(x, t)
    assert result["loss"] == pytest.approx(losses.mean(), rel=1e-12)
    assert result["accuracy"] == (z.argmax(axis=1) == t).mean()
    np.testing.assert_allclose(trained.scores(x), z, rtol=1e-10)
    np.testing.assert_array_equal(trained.predict(x), z.argmax(axis=1))
    np.testing.assert_allclose(trained.predict_proba(x).sum(axis=1), 1)


def test_nothing_of_the_callers_is_written_to() -> None:
    x, t = digits(100)
    x, t = x / 16.0, t.copy()
    x.flags.writeable = t.flags.writeable = False
    net = xpnet.mlp([64, 5, 10])
    before = {k: v.copy() for k, v in net.params.items()}
    Trainer(net, optim.Momentum(0.1), dtype="float64").fit(x, t, epochs=2)
    for name, value in net.params.items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("stop_after", [1, 5, 10, 13, 24])
def test_resumes_to_the_same_bits_in_the_middle_of_an_epoch(
    tmp_path: Path, each_step: None, stop_after: int
) -> None:
    """10 full batches and a smaller one an epoch; stopped at 1, 5, at an epoch's last full
    batch, in the second and in the third epoch; then again one step later."""
    x, t = digits(525)
    options: dict[str, Any] = {"epochs": 4, "batch_size": 50, "validation": (x[:99], t[:99])}
    undisturbed = trainer()
    expected = undisturbed.fit(x, t, **options)

    steps = 0

    def stop(at: int) -> bool:
        nonlocal steps
        steps += 1
        return steps == at

    first = trainer().fit(x, t, **options, folder=tmp_path, stop=lambda: stop(stop_after))
    assert (first.reason, len(first.losses)) == ("stop", stop_after)
    steps = 0
    second = trainer().fit(x, t, **options, folder=tmp_path, resume=True, stop=lambda: stop(1))
    assert (second.reason, len(second.losses)) == ("stop", stop_after + 1)
    resumed = trainer()
    history = resumed.fit(x, t, **options, folder=tmp_path, resume=True)
    assert history.losses == expected.losses
    assert [(e.train_loss, e.val_loss, e.val_score) for e in history.epochs] == [
        (e.train_loss, e.val_loss, e.val_score) for e in expected.epochs
    ]
    for name, value in undisturbed.params.items():
        np.testing.assert_array_equal(resumed.params[name], value)
    for name, value in undisturbed.state.items():
        np.testing.assert_array_equal(resumed.state[name], value)


def test_resumes_on_every_backend(tmp_path: Path, backend: Any) -> None:
    x, t = digits(300)
    expected = trainer(backend=backend).fit(x, t, epochs=4, batch_size=50)
    calls: list[None] = []
    trainer(backend=backend).fit(
        x, t, epochs=4, batch_size=50, folder=tmp_path, stop=lambda: calls.append(None) is None
    )
    resumed = trainer(backend=backend).fit(
        x, t, epochs=4, batch_size=50, folder=tmp_path, resume=True
    )
    np.testing.assert_allclose(resumed.losses, expected.losses, rtol=1e-6)


def test_resume_of_a_finished_run_does_nothing_and_more_epochs_go_on(tmp_path: Path) -> None:
    x, t = digits(200)
    done = trainer().fit(x, t, epochs=2, folder=tmp_path)
    again = trainer().fit(x, t, epochs=2, folder=tmp_path, resume=True)
    assert again.losses == done.losses
    more = trainer().fit(x, t, epochs=3, folder=tmp_path, resume=True)
    assert more.losses == trainer().fit(x, t, epochs=3).losses


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 20}, "belongs to another run: batch_size was 16, is 20. Put that back"),
        ({"t": digits(200)[1][::-1]}, "the targets have changed"),
        ({"x": digits(200)[0].astype(np.float64)}, "samples"),
        ({"x": digits(200)[0][::-1]}, "samples"),
    ],
)
def test_resume_refuses_another_run(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    x, t = digits(200)
    trainer().fit(x, t, epochs=1, folder=tmp_path)
    arguments = {"x": x, "t": t, "epochs": 2, "folder": tmp_path, "resume": True, **change}
    with pytest.raises(CheckpointError, match=words):
        trainer().fit(**arguments)


@pytest.mark.parametrize(
    "other",
    [
        lambda: Trainer(xpnet.mlp([64, 20, 10], "tanh", dropout=0.2, seed=1), optim.Adam()),
        lambda: Trainer(xpnet.mlp([64, 20, 10], dropout=0.2, seed=1, loss="hinge"), optim.Adam()),
        lambda: Trainer(xpnet.mlp([64, 20, 10], dropout=0.2, seed=1), optim.AdamW()),
        lambda: Trainer(xpnet.mlp([64, 20, 10], dropout=0.2, seed=1), optim.Adam(), seed=1),
    ],
    ids=["activation", "loss", "optimizer", "scaling"],
)
def test_resume_refuses_another_network_of_the_same_shapes(tmp_path: Path, other: Any) -> None:
    x, t = digits(200)
    trainer().fit(x, t, epochs=1, folder=tmp_path)
    with pytest.raises(CheckpointError, match="belongs to another run"):
        other().fit(x, t, epochs=2, folder=tmp_path, resume=True)


def test_a_new_run_does_not_mix_with_an_old_one(tmp_path: Path) -> None:
    x, t = digits(200)
    trainer().fit(x, t, epochs=3, folder=tmp_path)
    with pytest.raises(CheckpointError, match="holds the checkpoints of another run"):
        trainer().fit(x, t, epochs=1, folder=tmp_path)


def test_a_saved_model_is_no_checkpoint_to_resume_from(tmp_path: Path) -> None:
    x, t = digits(200)
    trainer().save(tmp_path / "step-00000001.npz")
    with pytest.raises(CheckpointError, match="is a saved model"):
        trainer().fit(x, t, epochs=1, folder=tmp_path, resume=True)


def test_patience_that_comes_and_goes_with_a_resume(tmp_path: Path) -> None:
    """Best weights that were not kept cannot be restored; those of a dropped wish are not."""
    x, t = digits(300)
    options: dict[str, Any] = {"validation": (x[:50], 9 - t[:50]), "folder": tmp_path}
    trainer().fit(x, t, epochs=6, **options)
    added = trainer()
    history = added.fit(x, t, epochs=9, patience=2, resume=True, **options)
    assert history.best_epoch > 6
    val = history.column("val_loss")[history.best_epoch - 1]
    assert added.evaluate(*options["validation"])["loss"] == pytest.approx(val)
    dropped = trainer()
    history = dropped.fit(x, t, epochs=10, resume=True, **options)
    last = history.epochs[-1].val_loss
    assert dropped.evaluate(*options["validation"])["loss"] == pytest.approx(last)


def test_resume_of_a_run_that_ended_by_patience_does_nothing(tmp_path: Path) -> None:
    x, t = digits(300)
    options: dict[str, Any] = {"validation": (x[:50], 9 - t[:50]), "patience": 2, "epochs": 50}
    first = trainer()
    history = first.fit(x, t, folder=tmp_path, **options)
    assert history.reason == "patience"
    second = trainer()
    again = second.fit(x, t, folder=tmp_path, resume=True, **options)
    assert (again.reason, again.losses) == ("patience", history.losses)
    for name, value in first.params.items():
        np.testing.assert_array_equal(second.params[name], value)


def test_a_validation_loss_that_is_not_finite_is_no_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((50, 2)), rng.standard_normal((50, 1))
    far = (np.full((2, 2), 1e30), np.zeros((2, 1)))
    net = Trainer(xpnet.mlp([2, 3, 1], loss="squared"), optim.SGD(0.01))
    history = net.fit(x, t, epochs=2, validation=far, folder=tmp_path)
    assert history.epochs[-1].val_loss is None


def test_patience_counts_epochs_without_a_finite_validation_loss(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    t = x.sum(axis=1)
    outlier = np.full((3, 3), 1e25, np.float32), np.zeros(3)

    def trainer() -> Trainer:
        return Trainer(xpnet.mlp([3, 8, 1], loss="squared"), optim.SGD(1e-3))

    with pytest.warns(RuntimeWarning, match="no epoch had a finite validation loss"):
        history = trainer().fit(x, t, epochs=25, validation=outlier, patience=2)
    assert (len(history.epochs), history.reason, history.best_epoch) == (2, "patience", 0)
    # Where a run is resumed with early stopping, epochs before do not count; then they do.
    options: dict[str, Any] = {"validation": outlier, "folder": tmp_path, "resume": True}
    trainer().fit(x, t, epochs=4, **options)
    history = trainer().fit(x, t, epochs=5, patience=3, **options)
    assert (len(history.epochs), history.reason) == (5, "epochs")
    with pytest.warns(RuntimeWarning, match="no epoch had"):
        history = trainer().fit(x, t, epochs=25, patience=3, **options)
    assert (len(history.epochs), history.reason) == (7, "patience")


def test_memory_for_losses_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of finished epochs every step's loss is kept, then every second, fourth, ..."""
    x, t = digits(100)
    scaling = Scaling(0.0, 1 / 16)
    options: dict[str, Any] = {"batch_size": 10, "folder": tmp_path, "resume": True}
    net = {"network": xpnet.mlp([64, 10]), "optimizer": optim.SGD(0.01), "scaling": scaling}
    expected = Trainer(**net).fit(x, t, epochs=7, batch_size=10)
    assert expected.loss_steps.tolist() == list(range(1, 71))
    monkeypatch.setattr("xpnet.trainer.history.MOST_KEPT", 16)
    for epochs in (1, 4, 7):
        trainer = Trainer(**net)
        history = trainer.fit(x, t, epochs=epochs, **options)
    assert history.steps == 70
    assert history.loss_steps.tolist() == [8, 16, 24, 32, 40, 48, 56, 64]
    assert history.losses == [expected.losses[i - 1] for i in history.loss_steps]
    assert [e.train_loss for e in history.epochs] == [e.train_loss for e in expected.epochs]
    seen = []

    def stop() -> bool:
        seen.append(1)
        return len(seen) > 0

    stopped = trainer.fit(x, t, epochs=8, stop=stop, **options)
    assert 0 < len(stopped.unfinished) <= 10
    assert stopped.loss_steps[-1] == stopped.steps == 70 + len(stopped.unfinished)
    assert trainer.fit(x, t, epochs=8, **options).steps == 80


def test_an_explosion_in_the_very_last_update_is_noticed(tmp_path: Path) -> None:
    x, t = digits(100)
    net = Trainer(xpnet.mlp([64, 10]), optim.SGD(1e38), scaling=Scaling(0.0, 1 / 16))
    with pytest.raises(NonFiniteLossError, match="epoch 1, step 1"):
        net.fit(x, t, epochs=1, batch_size=100, folder=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000000.npz"]


@pytest.mark.parametrize("rule", [optim.Adam(0.01), optim.AdaGrad(0.01), optim.RMSProp(0.01)])
def test_state_that_overflows_is_never_written(rule: Any, backend: Any, tmp_path: Path) -> None:
    """g² of a gradient of 1e20 is infinite in float32, g / √h then 0: nothing would move."""
    x = np.full((20, 2), 1e20, np.float32)
    net = Trainer(
        xpnet.mlp([2, 1], loss="squared"), rule, backend=backend, scaling=None, target_scaling=None
    )
    net.params["W1"] *= 0  # the loss itself is finite
    t = np.ones(20)
    with pytest.raises(NonFiniteLossError, match=r"W1[.]\w became infinite .* by epoch 1, step 2"):
        net.fit(x, t, epochs=5, batch_size=10, folder=tmp_path, save_seconds=1e9)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000000.npz"]


def test_clipping_saves_what_would_overflow(backend: Any) -> None:
    x = np.full((20, 2), 1e20, np.float32)
    net = Trainer(
        xpnet.mlp([2, 1], loss="squared"), optim.SGD(1e-25), backend=backend, clip_norm=1.0,
        scaling=None, target_scaling=None,
    )  # fmt: skip
    net.params["W1"] *= 0
    net.fit(x, np.ones(20), epochs=1, batch_size=20)
    norm = float(np.linalg.norm(backend.to_numpy(net.params["W1"]).astype(float)))
    assert norm == pytest.approx(1e-25, rel=1e-5)


def test_two_parameters_that_share_a_gradient_move_alike(backend: Any) -> None:
    """Add hands one array to both of its inputs; an update in place would scale it twice."""
    from xpnet.gates import Add
    from xpnet.graph import Graph
    from xpnet.losses import SquaredLoss

    graph = Graph()
    a, b, t = graph.inputs("a b t")
    loss = graph.apply(SquaredLoss("sum"), graph.apply(Add(), a, b), t)
    params = {k: backend.asarray(np.ones((2, 2))) for k in "ab"}
    rule = optim.Momentum(0.1)
    state = optim.init(rule, params)
    _, tape = graph.forward({**params, "t": backend.asarray(np.zeros((2, 2)))}, loss)
    params, _ = optim.update(rule, graph.backward(tape, "a b"), state, params)
    np.testing.assert_allclose(backend.to_numpy(params["a"]), 0.8)
    np.testing.assert_allclose(backend.to_numpy(params["b"]), 0.8)


@pytest.mark.parametrize("shape", [(200, 1, 8, 8), (200, 8, 8), (200, 1, 64), (200, 64, 1, 1)])
def test_samples_of_any_shape_are_rows(shape: tuple[int, ...]) -> None:
    x, t = digits(200)
    flat, shaped = trainer(), trainer()
    expected = flat.fit(x, t, epochs=2).losses
    assert shaped.fit(x.reshape(shape), t, epochs=2).losses == expected
    np.testing.assert_array_equal(shaped.scores(x.reshape(shape)), flat.scores(x))


def test_arrays_of_any_library_are_taken(backend: Any) -> None:
    x, t = digits(100)
    expected = trainer().fit(x, t, epochs=1).losses
    got = trainer().fit(backend.asarray(x), backend.asarray(t), epochs=1).losses
    assert got == expected


def test_large_whole_targets_of_a_regression_do_not_wrap() -> None:
    x = np.arange(10.0)[:, None]
    t = np.full((10, 1), 3_000_000_000)
    net = Trainer(
        xpnet.mlp([1, 1], loss="squared"), optim.SGD(1e-9), dtype="float64", target_scaling=None
    )
    history = net.fit(x, t, epochs=1, batch_size=10)
    assert history.losses[0] == pytest.approx(0.5 * 9e18, rel=1e-6)


def test_soft_targets_of_a_single_output_are_scored_by_the_nearer_class() -> None:
    x = np.random.default_rng(0).standard_normal((100, 3))
    net = Trainer(xpnet.mlp([3, 1], loss="sigmoid"), optim.SGD(0.1))
    own = net.predict_proba(x)[:, 1:]
    assert net.evaluate(x, own)["accuracy"] == 1.0


def test_huge_sample_weights_only_mean_their_proportions() -> None:
    x, t = digits(100)
    weight = np.linspace(1, 2, 100)
    small = plain().fit(x, t, epochs=2, sample_weight=weight).losses
    huge = plain().fit(x, t, epochs=2, sample_weight=weight * 1e300).losses
    np.testing.assert_allclose(huge, small, rtol=1e-6)


def test_a_state_counter_stays_0d_after_a_resume(tmp_path: Path, backend: Any) -> None:
    x, t = digits(100)
    trainer(backend=backend).fit(x, t, epochs=1, folder=tmp_path)
    resumed = trainer(backend=backend)
    resumed.fit(x, t, epochs=1, folder=tmp_path, resume=True)
    assert tuple(resumed.state["step"].shape) == ()


def test_numbers_of_numpy_can_be_settings(tmp_path: Path) -> None:
    x, t = digits(100)
    net = xpnet.mlp([64, 5, 10], dropout=np.float32(0.5), seed=np.int64(3), init=np.float64(0.1))
    trained = Trainer(net, seed=np.int64(3))
    trained.fit(x, t, epochs=1, batch_size=np.int64(7), folder=tmp_path)
    trained.save(tmp_path / "m.npz")


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_used(
    tmp_path: Path, each_step: None
) -> None:
    x, t = digits(200)
    trainer().fit(x, t, epochs=3, folder=tmp_path, save_seconds=0.0)
    newest = max(tmp_path.iterdir())
    newest.write_bytes(b"damaged")
    resumed = trainer()
    with pytest.warns(UserWarning, match=re.escape(newest.name)):
        history = resumed.fit(x, t, epochs=3, folder=tmp_path, resume=True)
    assert history.losses == trainer().fit(x, t, epochs=3).losses


def test_a_full_disk_costs_a_checkpoint_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each_step: None
) -> None:
    x, t = digits(200)
    failing = False

    def savez(*args: Any, **options: Any) -> None:
        if failing:
            raise OSError(28, "No space left on device")
        real(*args, **options)

    real = np.savez
    monkeypatch.setattr("numpy.savez", savez)

    def mended(trainer: Trainer, epoch: Any) -> None:
        nonlocal failing
        failing = epoch.epoch == 1

    with pytest.warns(UserWarning, match="training continues"):
        trainer().fit(
            x, t, epochs=3, batch_size=100, folder=tmp_path, save_seconds=0.0, callbacks=[mended]
        )
    assert max(p.name for p in tmp_path.iterdir()) == "step-00000006.npz"
    failing = True
    with pytest.raises(OSError, match="No space left"):
        trainer().fit(x, t, epochs=2, folder=tmp_path / "final")


def test_early_stopping_restores_the_best_weights() -> None:
    x, t = digits(60)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 10, 200).astype(np.int32)  # a validation set that gets worse soon
    trained = Trainer(xpnet.mlp([64, 30, 10]), optim.Adam(0.01), scaling=Scaling(0.0, 1 / 16))
    kept = []

    def watch(trainer: Trainer, epoch: Any) -> None:
        kept.append({k: v.copy() for k, v in trainer.params.items()})

    x2 = rng.integers(0, 17, (200, 64)).astype(np.uint8)
    history = trained.fit(x, t, epochs=100, validation=(x2, noise), patience=3, callbacks=[watch])
    val = history.column("val_loss")
    best = int(np.argmin([v for v in val if v is not None]))
    assert history.reason == "patience"
    assert history.best_epoch == best + 1
    assert len(history.epochs) == best + 1 + 3
    for name, value in kept[best].items():
        np.testing.assert_array_equal(trained.params[name], value)
    assert trained.evaluate(x2, noise)["loss"] == pytest.approx(val[best])


def test_early_stopping_survives_a_resume(tmp_path: Path, each_step: None) -> None:
    x, t = digits(300)
    options: dict[str, Any] = {
        "epochs": 40, "validation": (x[:50], 9 - t[:50]), "patience": 4, "batch_size": 50,
    }  # fmt: skip
    expected = trainer()
    course = expected.fit(x, t, **options)
    steps = iter(range(10**6))
    trainer().fit(x, t, **options, folder=tmp_path, stop=lambda: next(steps) == 20)
    resumed = trainer()
    again = resumed.fit(x, t, **options, folder=tmp_path, resume=True)
    assert (again.reason, again.best_epoch) == (course.reason, course.best_epoch)
    for name, value in expected.params.items():
        np.testing.assert_array_equal(resumed.params[name], value)


def test_a_callback_ends_the_training() -> None:
    x, t = digits(100)
    history = trainer().fit(x, t, epochs=9, callbacks=[lambda _, e: e.epoch == 3, lambda *_: None])
    assert (history.reason, len(history.epochs)) == ("callback", 3)


def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path: Path, each_step: None) -> None:
    x, t = digits(300)
    broken = Trainer(xpnet.mlp([64, 10], loss="squared"), optim.SGD(1e6), dtype="float32")
    with pytest.raises(NonFiniteLossError, match=r"epoch 1, step .*smaller") as caught:
        broken.fit(x / 1.0, t, folder=tmp_path, save_seconds=0.0)
    assert caught.value.epoch == 1
    # the newest checkpoint is of before
    arrays = checkpoint.load_latest(tmp_path)[0]
    assert np.isfinite(arrays["losses"]).all()
    assert len(arrays["losses"]) == caught.value.step - 1


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_a_memory_map_trains_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr("xpnet.data.loader.SHARD_BYTES", 50_000)
    x, t = digits(500)
    x = x.astype(dtype)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected, trained = trainer(), trainer()
    losses = expected.fit(x, t, epochs=3, batch_size=30, validation=(x, t)).losses
    history = trained.fit(mapped, t, epochs=3, batch_size=30, validation=(mapped, t))
    assert history.losses == losses
    assert trained.evaluate(mapped, t) == expected.evaluate(x, t)
    np.testing.assert_array_equal(trained.scores(mapped), expected.scores(x))


def test_a_memory_map_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each_step: None
) -> None:
    """Stopped in the middle of a shard: the shards after the resume are cut elsewhere."""
    monkeypatch.setattr("xpnet.data.loader.SHARD_BYTES", 10_000)
    x, t = digits(500)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    options: dict[str, Any] = {"epochs": 2, "batch_size": 30}
    expected = trainer()
    losses = expected.fit(x, t, **options).losses
    steps = iter(range(1000))
    run = tmp_path / "run"
    trainer().fit(mapped, t, **options, folder=run, stop=lambda: next(steps) == 7)
    resumed = trainer()
    assert resumed.fit(mapped, t, **options, folder=run, resume=True).losses == losses
    for name, value in expected.params.items():
        np.testing.assert_array_equal(resumed.params[name], value)


def test_a_memory_map_is_never_loaded(tmp_path: Path) -> None:
    """128 MB on disk; at no time more than 2 shards of 32 MiB and little else in memory."""
    n = 500_000
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (n, 256))
    x[:, 0] = np.arange(n) % 2
    x.flush()
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    t = (np.arange(n) % 2).astype(np.int32)
    trained = Trainer(xpnet.mlp([256, 2]), optim.Adam(0.01), scaling=Scaling())
    tracemalloc.start()
    history = trained.fit(mapped, t, epochs=1, batch_size=10_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6 < mapped.nbytes
    assert history.epochs[0].train_score == 1.0


def test_bytes_stay_bytes_on_the_device(backend: Any) -> None:
    x, t = digits(100)
    trained = trainer(backend=backend)
    held = trained.feed.samples(x)
    assert str(held.dtype).endswith("uint8")
    ready = trained.backend.to_numpy(trained.feed.prepare(held))
    assert ready.dtype == np.float32
    np.testing.assert_allclose(ready, x / 16, rtol=1e-7)
    assert trained.fit(x, t, epochs=1).losses[0] < 4


def test_large_offsets_lose_nothing_in_float32() -> None:
    """Years, say: standardised in float64 before they are rounded to float32."""
    rng = np.random.default_rng(0)
    seconds = 1.7e9 + rng.uniform(0, 10, (200, 1))
    scaling = xpnet.data.standardize(seconds)
    trained = Trainer(xpnet.mlp([1, 1], loss="squared"), scaling=scaling)
    fed = trained.backend.to_numpy(trained.feed.samples(seconds))
    np.testing.assert_allclose(fed, (seconds - seconds.mean()) / seconds.std(), atol=1e-6)


def test_regression_learns_and_measures_r2() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (400, 2))
    t = np.stack([np.sin(x[:, 0]) + x[:, 1], 3 * x[:, 0] * x[:, 1]], axis=1)
    trained = Trainer(xpnet.mlp([2, 40, 2], "tanh", loss="squared"), optim.Adam(0.02))
    history = trained.fit(x, t, epochs=150, batch_size=50)
    y = trained.predict(x)
    errors, variation = ((y - t) ** 2).sum(axis=0), ((t - t.mean(axis=0)) ** 2).sum(axis=0)
    expected = 1 - (errors / variation).mean()
    result = trained.evaluate(x, t)
    assert result["r2"] == pytest.approx(expected, abs=1e-5)
    assert expected > 0.98
    assert history.epochs[-1].train_score == pytest.approx(expected, abs=1e-5)


def test_squared_loss_on_class_indices_decides() -> None:
    x, t = digits(300)
    trained = plain(loss="squared")
    trained.fit(x, t, epochs=40, batch_size=100)
    assert (trained.predict(x) == t).mean() == trained.evaluate(x, t)["accuracy"]
    assert (trained.predict(x) == t).mean() > 0.9


def test_sample_weights_reach_the_loss() -> None:
    """Weight on the even digits alone, nearly: the odd ones are not learned."""
    x, t = digits(500)
    weight = np.where(t % 2 == 0, 1.0, 1e-9)
    trained = plain()
    trained.fit(x, t, epochs=20, sample_weight=weight)
    even = t % 2 == 0
    accuracy = trained.predict(x) == t
    assert accuracy[even].mean() > 0.95
    assert accuracy[~even].mean() < 0.1


def test_lists_and_a_single_callback_will_do() -> None:
    x, t = digits(100)
    expected = trainer().fit(x / 1.0, t, epochs=1).losses
    history = trainer().fit((x / 1.0).tolist(), t.tolist(), epochs=9, callbacks=lambda *_: True)
    assert history.losses == expected


def test_a_regression_in_its_own_units(tmp_path: Path) -> None:
    """Scaled on the way in, brought back on the way out, and so from the file too."""
    rng = np.random.default_rng(0)
    x = 1e4 + 1e3 * rng.standard_normal((300, 2))
    t = 1e6 + 50 * x[:, 0] - 20 * x[:, 1]
    trained = Trainer(
        xpnet.mlp([2, 1], loss="squared"),
        optim.SGD(0.1),
        scaling=xpnet.data.standardize(x),
        target_scaling=xpnet.data.standardize(t[:, None]),
    )
    history = trained.fit(x, t, epochs=50, batch_size=50)
    assert history.losses[0] < 10
    assert trained.evaluate(x, t)["r2"] == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(trained.predict(x)[:, 0], t, rtol=1e-5)
    trained.save(tmp_path / "m.npz")
    loaded = Trainer.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(loaded.predict(x), trained.predict(x))
    assert loaded.evaluate(x, t) == trained.evaluate(x, t)


def test_class_names_are_kept_with_the_model(tmp_path: Path) -> None:
    Trainer(xpnet.mlp([3, 2]), classes=["lily", "rose"]).save(tmp_path / "m.npz")
    assert Trainer.load(tmp_path / "m.npz").classes == ("lily", "rose")


def test_histories_and_networks_print_in_a_line() -> None:
    x, t = digits(100)
    assert len(repr(plain().fit(x, t, epochs=3))) < 200
    assert len(repr(xpnet.mlp([64, 10]))) < 400


def test_save_and_load(tmp_path: Path) -> None:
    x, t = digits(300)
    trained = trainer()
    trained.fit(x, t, epochs=2, folder=tmp_path / "run")
    trained.save(tmp_path / "model.npz")
    newest = max((tmp_path / "run").iterdir())
    for path in (tmp_path / "model.npz", newest):
        loaded = Trainer.load(path)
        np.testing.assert_array_equal(loaded.scores(x), trained.scores(x))
        assert loaded.network.arguments == trained.network.arguments


def test_load_of_a_network_built_by_hand(tmp_path: Path) -> None:
    from dataclasses import replace

    net = replace(xpnet.mlp([64, 5, 10]), builder="", arguments={})
    Trainer(net).save(tmp_path / "m.npz")
    with pytest.raises(CheckpointError, match="pass network="):
        Trainer.load(tmp_path / "m.npz")
    assert Trainer.load(tmp_path / "m.npz", network=net).network is net
    with pytest.raises(CheckpointError, match="do not fit the network"):
        Trainer.load(tmp_path / "m.npz", network=xpnet.mlp([64, 6, 10]))


def test_a_model_trained_on_one_library_predicts_on_another(tmp_path: Path, backend: Any) -> None:
    x, t = digits(200)
    trained = trainer(backend=backend)
    trained.fit(x, t, epochs=1)
    trained.save(tmp_path / "m.npz")
    loaded = Trainer.load(tmp_path / "m.npz")
    np.testing.assert_allclose(loaded.scores(x), trained.scores(x), atol=1e-5)


X, T = digits(50)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Trainer(xpnet.mlp([64, 10]), dtype="float16"), UsageError, "expected float32"),
        (lambda: trainer().fit(X, T, epochs=0), UsageError, "epochs is 0; expected"),
        (lambda: trainer().fit(X, T, batch_size=0), UsageError, "batch_size is 0; expected"),
        (lambda: trainer().fit(X, T, patience=2), UsageError, "patience needs validation"),
        (lambda: trainer().fit(X, T, resume=True), UsageError, "resume needs the folder"),
        (lambda: trainer().fit(X[:, :5], T), DataError, "expected 64 features"),
        (lambda: trainer().fit(X[:9], T), DataError, "got 50 targets for 9 samples"),
        (lambda: trainer().fit(X, T + 5), DataError, "expected 0 to 9"),
        (lambda: trainer().fit(X, T, sample_weight=-T), DataError, "sample_weight"),
        (lambda: trainer().fit(X, T, sample_weight="x"), DataError, "sample_weight"),
        (lambda: trainer().fit(X, T, validation=(X,)), UsageError, "expected a pair (x, t)"),
        (lambda: trainer().fit("x", T), DataError, "x: got str, expected an array"),
        (lambda: trainer().fit([[1, 2], [3]], [0, 1]), DataError, "rows of different lengths"),
        (lambda: trainer().fit(X, T, validation=1.5), UsageError, "expected a pair (x, t)"),
        (lambda: trainer().fit(X, T / 1.0), DataError, "expected integers: t.astype(int)"),
        (lambda: Trainer(xpnet.mlp([64, 10]), "adam"), UsageError, "such as xpnet.optim.Adam"),  # type: ignore[arg-type]
        (
            lambda: Trainer(xpnet.mlp([64, 10]), scaling=Scaling(np.zeros(3))).fit(X, T),
            UsageError,
            "scaling: its shift has shape (3,), expected a number or shape (64,)",
        ),
        (lambda: trainer().predict(X * 1e300), DataError, "too large for float32"),
        (lambda: plain().fit(X[:, 0], T), DataError, "a single feature has shape (50, 1)"),
        (
            lambda: trainer().fit(X, T, validation=(X[:2], T)),
            DataError,
            "t of the validation set: got 50 targets",
        ),
        (lambda: trainer().predict(X * np.nan), DataError, "got nan"),
        (lambda: trainer().predict(X[:, 1:]), DataError, "expected 64 features"),
        (
            lambda: Trainer(xpnet.mlp([64, 10], loss="hinge")).predict_proba(X),
            UsageError,
            "HingeLoss gives scores, not probabilities",
        ),
        (lambda: xpnet.mlp([64]), ValueError, "at least two whole numbers"),
        (lambda: xpnet.mlp([64, 0, 10]), UsageError, "each of sizes is 0"),
        (lambda: xpnet.mlp([64, 10], loss="l2"), ValueError, "loss is 'l2'; expected one of"),
        (lambda: xpnet.mlp([6, 5, 4], ["relu"] * 3), ValueError, "3 activations for 2 layers"),
        (lambda: xpnet.mlp([6, 5, 4], init="zeros"), ValueError, "expected auto, he, xavier"),
    ],
)
def test_bad_input_is_refused_in_one_line(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_moments_of_dead_units_do_not_become_subnormal(library: str) -> None:
    """0.9^k is subnormal from k = 830 on, and every step is then many times as slow."""
    if library != "numpy":
        pytest.importorskip(library)
    x, t = digits(100)
    network = xpnet.mlp([64, 8, 10], seed=1)
    alive = Trainer(network, optim.Adam(1e-3), backend=xpnet.select("cpu", library))
    for dies in (False, True):
        if dies:
            alive.params["b1"][:4] = -1e6
        alive.fit(x, t, epochs=1100 if dies else 2, batch_size=100)
    for name, value in alive.state.items():
        size = np.abs(alive.backend.to_numpy(value))
        assert not ((size > 0) & (size < np.finfo(np.float32).tiny)).any(), name
    dead = alive.backend.to_numpy(alive.state["b1.m"])[:4]
    np.testing.assert_array_equal(dead, 0.0)
