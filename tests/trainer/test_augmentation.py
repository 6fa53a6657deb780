"""Augmentation: what a step sees, on every library, and what a run keeps of it."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Library

import xpnet
from xpnet import optim
from xpnet.arrays.augmentation import draw_moves, moved
from xpnet.arrays.dispatch import with_kernels
from xpnet.backend import Backend
from xpnet.data import Augmentation
from xpnet.errors import CheckpointError, UsageError
from xpnet.trainer.step import make_step

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (60, 2, 7, 5), dtype=np.uint8)
T = (X.mean(axis=(1, 2, 3)) > X.mean()).astype(int)


def network(**options: Any) -> xpnet.Network:
    return xpnet.cnn((2, 7, 5), [3], [4], 2, **options)


def step_of(number: int) -> np.ndarray:
    return np.array([number], np.int32)


def by_hand(x: np.ndarray, down: Any, right: Any, mirrored: Any) -> np.ndarray:
    """Pixel by pixel, from the definition."""
    y = np.empty_like(x)
    _, _, height, width = x.shape
    for n, _ in enumerate(x):
        for i in range(height):
            for j in range(width):
                row = min(max(i - down[n], 0), height - 1)
                column = width - 1 - j if mirrored[n] else j
                y[n, :, i, j] = x[n, :, row, min(max(column - right[n], 0), width - 1)]
    return y


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_images_move_and_are_mirrored(library: Library, dtype: str) -> None:
    x = X.astype(dtype)
    down, right, mirrored = (
        RNG.integers(a, b, 60).astype(np.int32) for a, b in ((-3, 4),) * 2 + ((0, 2),)
    )
    given = [library.asarray(a) for a in (x, down, right, mirrored)]
    got = library.jit(lambda *a: moved(*a, 3))(*given)
    assert str(got.dtype).endswith(dtype)
    np.testing.assert_array_equal(library.to_numpy(got), by_hand(x, down, right, mirrored))


def test_numpy_s_kernel_moves_them_in_the_same_way() -> None:
    kernels = xpnet.select("cpu").kernels
    for reach, mirror in ((2, True), (2, False), (0, True), (4, True)):
        moves = draw_moves(60, 7, step_of(3), reach, mirror)
        for x in (X.astype(np.float32), np.asfortranarray(X.astype(np.float64))):
            expected = moved(x, *moves, reach)
            got = with_kernels(moved, kernels)(x, *moves, reach)
            assert got.dtype == x.dtype
            np.testing.assert_array_equal(got, expected)


def test_every_library_draws_the_same(library: Library) -> None:
    def draw(step: Any) -> Any:
        return draw_moves(1000, -123456789, step, 2, True)

    for number in (0, 1, 77_777):
        got = [library.to_numpy(a) for a in library.jit(draw)(library.asarray(step_of(number)))]
        np.testing.assert_array_equal(got, draw(step_of(number)))


def test_every_move_is_equally_likely() -> None:
    drawn = [draw_moves(400, 5, step_of(number), 3, True) for number in range(100)]
    down, right, mirrored = (np.concatenate(each) for each in zip(*drawn, strict=True))
    # Chi square with 48 degrees of freedom: 84 is its 99.9th percentile.
    counts = np.histogram2d(down, right, bins=np.arange(-3.5, 4))[0]
    expected = len(down) / 49
    assert ((counts - expected) ** 2 / expected).sum() < 84
    assert abs(mirrored.mean() - 0.5) < 0.01
    for one, other in ((down, right), (down, mirrored), (right, mirrored)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.02
    # Nor does one step follow from the one before it.
    assert abs(np.corrcoef(down[:-400], down[400:])[0, 1]) < 0.02


def test_other_seeds_and_steps_draw_others_and_no_sample_sees_another() -> None:
    marked = np.arange(60.0).reshape(60, 1, 1, 1) + np.zeros((60, 2, 7, 5))
    augmentation = Augmentation(shift=2, flip=True)
    assert (augmentation.applied(marked, 0, step_of(1)) == marked).all()
    seen = [
        augmentation.applied(X, seed, step_of(number)) for seed in (0, 1) for number in (0, 1, 2)
    ]
    assert len({each.tobytes() for each in seen}) == 6
    assert Augmentation().applied(X, 0, step_of(0)) is X


def test_text_says_the_same() -> None:
    for text, made in {
        "shift": Augmentation(2), "shift=3": Augmentation(3), "flip": Augmentation(0, True),
        "flip,shift=1": Augmentation(1, True), "shift=4, flip": Augmentation(4, True),
    }.items():  # fmt: skip
        assert Augmentation.of(text) == made
        assert Augmentation.of(str(made)) == made


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "augment: '' is not shift"),
        ("rotate", "'rotate' is not shift, shift=PIXELS or flip"),
        ("flip=1", "'flip=1' is not"),
        ("shift,shift=2", "'shift=2' is not shift, shift=PIXELS or flip, each once"),
        ("shift=-1", "shift is '-1'; expected pixels"),
        ("shift=2.5", "shift is '2.5'; expected pixels"),
        ("shift=", "shift is ''; expected pixels"),
        (2, "augment is 2; expected xpnet.data.Augmentation"),
        (True, "augment is True; expected xpnet.data.Augmentation"),
    ],
)
def test_other_text_is_refused(given: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        xpnet.Trainer(network(), augment=given)
    assert words in str(caught.value)


def test_settings_and_networks_that_do_not_fit_are_refused() -> None:
    for wrong in ({"shift": -1}, {"shift": 1.5}, {"shift": 40_000}, {"flip": 1}):
        with pytest.raises(UsageError, match="expected"):
            Augmentation(**wrong)
    with pytest.raises(
        UsageError, match=r"this network takes 784 features in a row; .* xpnet\.cnn"
    ):
        xpnet.Trainer(xpnet.mlp([784, 10]), augment="shift")
    with pytest.raises(UsageError, match="shift is 5 pixels of images of 7 x 5; expected fewer"):
        xpnet.Trainer(network(), augment="shift=5")


def test_a_step_trains_on_what_it_sees(backend: Backend) -> None:
    """One step with augmentation is a step without, on images that were moved before."""
    rule, augmentation = optim.SGD(0.1), Augmentation(shift=2, flip=True)
    plain = xpnet.Trainer(network(), rule, backend=backend, dtype="float64", seed=3)
    moving = xpnet.Trainer(
        network(), rule, backend=backend, dtype="float64", seed=3, augment=augmentation
    )
    # The order of the batch's rows is that of the trainer.
    order = xpnet.data.batch_order(60, 60, 3, 0)[0][0]
    seen = np.empty_like(X)
    seen[order] = augmentation.applied(X[order], 3, step_of(0))
    plain.fit(seen, T, epochs=1, batch_size=60)
    moving.fit(X, T, epochs=1, batch_size=60)
    for name, value in plain.model.to_host().items():
        np.testing.assert_allclose(moving.model.to_host()[name], value, rtol=1e-9, atol=1e-12)


def test_scores_are_of_the_images_as_they_are() -> None:
    trainer = xpnet.Trainer(network(), optim.Adam(0.01), augment="shift,flip")
    history = trainer.fit(X, T, epochs=3, batch_size=20, validation=(X, T))
    last = history.epochs[-1]
    assert last.val_score == last.train_score == trainer.evaluate(X, T)["accuracy"]
    assert trainer.predict(X).tolist() == trainer.predict(X).tolist()


def test_steps_are_equal_if_they_augment_equally() -> None:
    def step(augment: str | None, seed: int = 0) -> Any:
        return make_step(
            network(), optim.SGD(0.1), augmentation=Augmentation.of(augment), seed=seed
        )

    assert step("shift=2,flip") == step("flip,shift")
    assert hash(step("shift")) == hash(step("shift=2"))
    assert step("shift") != step("flip")
    assert step("shift") != step("shift=1") != step(None)
    assert step("shift", seed=1) != step("shift", seed=2)
    assert step(None, seed=1) == step(None, seed=2)  # nothing is drawn by the step


def test_jax_shares_the_loops_of_equal_steps() -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    backend = xpnet.select("cpu", "jax")
    from xpnet.backend.jax import _compiled_loop

    def train(**options: Any) -> int:
        trainer = xpnet.Trainer(network(), optim.SGD(0.1), backend=backend, **options)
        trainer.fit(X, T, epochs=1, batch_size=20)
        return _compiled_loop.cache_info().hits

    train(augment="shift=2")
    before = train(augment="shift=2")
    assert train(augment="shift") > before
    hits = _compiled_loop.cache_info().misses
    train(augment="flip")
    assert _compiled_loop.cache_info().misses > hits


def fitted(augment: Any = "shift=1,flip", **options: Any) -> xpnet.Trainer:
    trainer = xpnet.Trainer(
        network(batch_norm=True, dropout=0.3), optim.Adam(0.01), seed=5, augment=augment
    )
    trainer.fit(X, T, batch_size=20, **options)
    return trainer


def test_a_resumed_run_reaches_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fitted(epochs=4)
    monkeypatch.setattr("xpnet.backend.loop.CHUNK_SECONDS", 0.0)
    calls = iter([False] * 4 + [True])
    stopped = fitted(epochs=4, folder=tmp_path, stop=lambda: next(calls))
    assert stopped.history is not None
    assert stopped.history.steps == 5  # in the middle of the second epoch
    resumed = fitted(epochs=4, folder=tmp_path, resume=True)
    assert {"mean1", "var1"} <= resumed.params.keys()
    for name, value in whole.model.to_host().items():
        np.testing.assert_array_equal(resumed.model.to_host()[name], value)


def test_another_augmentation_is_another_run(tmp_path: Path) -> None:
    fitted(epochs=1, folder=tmp_path)
    for other, words in ((None, "is None"), ("shift=2,flip", "is shift=2,flip")):
        with pytest.raises(CheckpointError, match=f"augment was shift=1,flip, {words}"):
            fitted(other, epochs=2, folder=tmp_path, resume=True)


def test_pickles_and_copies_go_on_augmenting() -> None:
    whole = fitted(epochs=1)
    for other in (copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
        assert "augmented by shift=1,flip" in repr(other)
        other.fit(X, T, batch_size=20, epochs=1)
    whole.fit(X, T, batch_size=20, epochs=1)
    np.testing.assert_array_equal(whole.model.to_host()["W1"], other.model.to_host()["W1"])


def test_what_is_printed_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    fitted(epochs=1, verbose=True)
    assert "augment shift=1,flip" in capsys.readouterr().out


@pytest.mark.gpu
def test_a_gpu_captures_it() -> None:
    from conftest import usable_cupy

    usable_cupy()
    backend = xpnet.select("cuda")
    graph = xpnet.Graph()
    x, t, W = graph.inputs("x t W")
    y = graph.apply(xpnet.layers.Affine(), graph.apply(xpnet.layers.Flatten(), x), W)
    params = {"W": np.random.default_rng(0).standard_normal((70, 2))}
    loss = graph.apply(xpnet.losses.SoftmaxWithLoss(), y, t)
    images = xpnet.Network(graph, params, y, loss, outputs=2, input_shape=(2, 7, 5))
    losses = []
    for where in (backend, xpnet.select("cpu")):
        trainer = xpnet.Trainer(images, optim.SGD(0.1), backend=where, augment="shift,flip")
        losses.append([epoch.train_loss for epoch in trainer.fit(X, T, epochs=3).epochs])
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert not backend.fallbacks
