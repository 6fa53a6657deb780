"""Splits, order, scaling, and the refusal of what cannot be trained on."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet import Trainer, datasets, mlp
from xpnet.data import Rows, batch_order, select_rows, split, standardize
from xpnet.data.checks import check_features, check_targets, checked_scaling, checked_weights
from xpnet.data.dataset import read_rows
from xpnet.errors import DataError, UsageError


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_split_is_stratified_exact_and_complete(fraction: float) -> None:
    t = np.repeat([0, 1, 2], [7, 100, 893])
    rest, part = split(t, fraction, 3, stratify=True)
    assert len(part) == round(1000 * fraction)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, part])), np.arange(1000))
    for count, share in zip([7, 100, 893], np.bincount(t[part], minlength=3), strict=True):
        assert abs(share - count * fraction) <= 1


def test_split_takes_classes_in_every_form() -> None:
    t = np.repeat([0, 1, 2], [7, 100, 893])
    np.random.default_rng(0).shuffle(t)
    expected = split(t, 0.2, 3, stratify=True)
    forms = (t[:, None], t.astype("f4"), np.eye(3)[t], np.eye(3, dtype=bool)[t], t.tolist(),
             np.array(["a", "b", "c"])[t])  # fmt: skip
    for form in forms:
        for got, part in zip(split(form, 0.2, 3, stratify=True), expected, strict=True):
            np.testing.assert_array_equal(got, part)


@pytest.mark.parametrize(
    "t",
    [
        np.linspace(0, 1, 50),
        np.ones((50, 2)),
        np.full((50, 2), 0.5),
        np.full(50, np.nan),
        np.zeros((50, 1, 2)),
    ],
)
def test_what_has_no_classes_is_not_stratified(t: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"one-hot rows to stratify by; .* stratify=False"):
        split(t, 0.2, 0, stratify=True)
    assert len(split(t, 0.2, 0, stratify=False)[1]) == 10


@pytest.mark.parametrize(
    ("fraction", "seed", "words"),
    [
        (1.0, 0, "fraction is 1.0; expected a finite number >= 0 and < 1"),
        (-0.1, 0, "fraction is -0.1"),
        (math.nan, 0, "fraction is nan"),
        ("half", 0, "fraction is 'half'"),
        (0.5, -1, "seed is -1; expected a whole number, 0 or more"),
        (0.5, 1.5, "seed is 1.5"),
        (0.5, (0, -1), "seed is -1; expected a whole"),
    ],
)
def test_split_refuses_settings_out_of_range(fraction: Any, seed: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        split(np.arange(50) % 2, fraction, seed, stratify=True)


@pytest.mark.parametrize("t", [np.zeros(0, int), np.int64(3), []])
def test_split_refuses_what_has_no_rows(t: Any) -> None:
    with pytest.raises(DataError, match=r"one target a sample|got int64"):
        split(t, 0.5, 0, stratify=True)


def test_split_depends_on_the_seed_alone() -> None:
    t = np.arange(100) % 4
    first, again, other = (split(t, 0.3, seed, stratify=True)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_split_that_leaves_a_side_empty_is_refused() -> None:
    with pytest.raises(DataError, match="leaves one side empty"):
        split(np.zeros(3), 0.1, 0, stratify=False)


def test_an_epoch_sees_every_sample_once() -> None:
    full, rest = batch_order(1003, 100, seed=0, epoch=0)
    assert full.shape == (10, 100)
    assert rest.shape == (1, 3)
    seen = np.concatenate([full.ravel(), rest.ravel()])
    np.testing.assert_array_equal(np.sort(seen), np.arange(1003))


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> np.ndarray:
        return batch_order(100, 10, seed, epoch)[0]

    np.testing.assert_array_equal(order(1, 2), order(1, 2))
    assert not np.array_equal(order(1, 2), order(1, 3))
    assert not np.array_equal(order(1, 2), order(2, 2))


def test_batches_larger_than_the_data() -> None:
    (only,) = batch_order(5, 100, 0, 0)
    assert only.shape == (1, 5)


def test_standardize_agrees_with_numpy_over_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpnet.data.dataset.CHUNK_BYTES", 1000)
    x = np.random.default_rng(0).standard_normal((999, 3)) * [1e-3, 1, 1e3] + [0, 1e6, -5]
    shift, scale = standardize(x)
    np.testing.assert_allclose(shift, x.mean(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(1 / scale, x.std(axis=0), rtol=1e-9)


@pytest.mark.parametrize(("offset", "step"), [(0.0, 1e-14), (1.7e15, 10.0), (0.0, 1e150)])
def test_standardize_at_any_scale(offset: float, step: float) -> None:
    """A column of tiny numbers varies too; a large offset leaves what float64 can tell apart."""
    x = offset + step * np.arange(100.0)[:, None]
    shift, scale = standardize(x)
    np.testing.assert_allclose(((x - shift) * scale).std(), 1.0, rtol=1e-6)


def test_values_too_large_to_scale_are_refused() -> None:
    with pytest.raises(DataError, match=r"up to 1\.0e\+200, too large to scale"):
        standardize(np.array([[1e200], [1.0]]))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([[1.0, np.nan]], "x: row 0, column 1: got nan"),
        ([["a"]], "got values of type <U1"),
        (np.zeros((0, 2)), "got no samples"),
    ],
)
def test_what_has_no_scaling_is_refused(x: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        standardize(x)


def test_a_target_scaling_of_another_shape_is_refused() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    trainer = Trainer(mlp([3, 1], loss="squared"), target_scaling=standardize(x))
    with pytest.raises(UsageError, match=r"target_scaling: its shift has shape \(3,\), expected"):
        trainer.fit(x, x[:, 0], epochs=1)


@pytest.mark.parametrize("value", [0.1, -3e17, 6.02214076e23, 1e200, -1.7e308, 1e-300, 0.0])
def test_a_constant_column_becomes_0_whatever_its_size(value: float) -> None:
    x = np.random.default_rng(0).standard_normal((301, 2))
    x[:, 1] = value
    with np.errstate(all="raise"):
        scaling = standardize(x)
    seen = (x - scaling.shift) * scaling.scale
    np.testing.assert_array_equal(seen[:, 1], 0.0)
    np.testing.assert_allclose([seen[:, 0].mean(), seen[:, 0].std()], [0, 1], atol=1e-12)


def test_nothing_cannot_be_standardized() -> None:
    with pytest.raises(DataError, match="got no samples"):
        standardize(np.zeros((0, 3)))


@pytest.mark.parametrize("ratio", [1e-30, 1e30])
def test_weights_of_any_size_in_range_train(ratio: float) -> None:
    weights = checked_weights([1.0, ratio, 1.0], 3, True, "float32")
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights / weights[0], [1, ratio, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "mean", "dtype", "words"),
    [
        ([1.0, 1e-60], True, "float32", "row 1: got 1e-60, which float32 cannot hold"),
        ([1e60, 1.0], True, "float32", "row 1: got 1.0, which float32 cannot hold"),
        ([1.0, 1e-310], True, "float64", "row 1: got 1e-310"),
        ([1e60, 1.0], False, "float32", "row 0: got 1e[+]60, which float32 cannot hold;"),
        ([1.0, 0.0], True, "float32", "expected 2 positive numbers"),
        ([1.0, np.nan], True, "float32", "row 1: got nan"),
        ([1.0, 1j], True, "float32", "complex128, expected real numbers"),
        (["a", "b"], True, "float32", "expected real numbers"),
        ([[1.0], [2.0]], True, "float32", "expected 2 positive numbers"),
    ],
)
def test_bad_weights_are_refused(weights: Any, mean: bool, dtype: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        checked_weights(weights, 2, mean, dtype)


@pytest.mark.parametrize(
    ("scaling", "name", "words"),
    [
        ((0.0, np.inf), "scaling", "its scale is inf; expected a finite number"),
        ((0.0, [1.0, np.inf]), "scaling", r"its scale is inf at \[1\]"),
        (([np.nan, 0.0], 1.0), "scaling", r"its shift is nan at \[0\]"),
        ((0.0, [1.0, 0.0]), "target_scaling", r"its scale is 0.0 at \[1\]"),
        (3.0, "scaling", "scaling is 3.0; expected"),
        (("a", "b"), "scaling", "expected .shift, scale."),
        ((1.0, 1.0, 1.0), "scaling", "expected .shift, scale."),
    ],
)
def test_bad_scalings_are_refused(scaling: Any, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        checked_scaling(scaling, name)
    assert "\n" not in str(caught.value)


def test_rows_of_a_memory_map_are_an_index(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(40).reshape(20, 2))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    part = select_rows(select_rows(x, np.array([5, 7, 11])), np.array([2, 0]))
    assert isinstance(part, Rows)
    assert part.shape == (2, 2)
    np.testing.assert_array_equal(part[:], [[22, 23], [10, 11]])


@pytest.mark.parametrize("offset", [0, 128, 5000])
def test_a_memory_map_that_has_been_cut_is_not_read(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(offset + 8 * 200_000))
    x = np.memmap(path, np.float64, "r", offset, (100_000, 2))
    part = select_rows(x, np.arange(50_000, 100_000))
    assert read_rows(x[1000:], slice(0, 5)).shape == (5, 2)
    check_features(x)
    with open(path, "r+b") as file:
        file.truncate(offset + 8 * 100)
    for read in (lambda: check_features(x), lambda: check_features(part), lambda: part[3:5],
                 lambda: read_rows(x[1000:], [0]), lambda: standardize(x)):  # fmt: skip
        with pytest.raises(DataError, match=rf"x\.bin: has {offset + 800:,} bytes now, and had"):
            read()


def test_a_training_on_a_file_that_is_cut_ends_with_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(5000, 20)))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    trainer = Trainer(mlp([20, 2]))

    def cut(*_: Any) -> None:
        with open(tmp_path / "x.npy", "r+b") as file:
            file.truncate(4096)

    with pytest.raises(DataError, match="do not change a file while xpnet reads it"):
        trainer.fit(x, np.arange(5000) % 2, epochs=3, callbacks=cut)
    with pytest.raises(DataError, match="do not change a file"):
        trainer.predict(x)


def test_digits_are_those_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    x, t = sklearn.load_digits(return_X_y=True)
    data, test = datasets.load("digits")
    assert test is None
    np.testing.assert_array_equal(data.x, x)
    np.testing.assert_array_equal(data.t, t)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([[1.0]], "got list, expected an array"),
        (np.ones(()), "expected an array with one row a sample"),
        (np.ones((0, 3)), "got no samples"),
        (np.ones((3, 0)), "samples without values"),
        (
            np.ones(3),
            "got shape (3,), expected one row a sample; a single feature has shape (3, 1)",
        ),
        (np.array([["a"]]), "got values of type <U1, expected real numbers"),
        (np.ones((2, 2), complex), "got values of type complex128"),
        (np.array([[None]]), "got values of type object"),
        (np.array([[1, 2], [3, np.nan]]), "x: row 1, column 1: got nan, expected a finite"),
        (np.array([[1, np.inf]]), "x: row 0, column 1: got inf"),
    ],
)
def test_bad_features_are_refused(x: Any, words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        check_features(x)


def test_a_bad_value_is_found_in_a_later_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpnet.data.dataset.CHUNK_BYTES", 800)
    x = np.ones((1000, 2))
    x[777, 1] = -np.inf
    with pytest.raises(DataError, match="row 777, column 1: got -inf"):
        check_features(x)


@pytest.mark.parametrize(
    ("t", "loss", "words"),
    [
        (np.array([0, 1, -1]), "probabilities", "t: row 2: got -1, expected 0 to 3"),
        (np.array([0, 10, 1]), "probabilities", "t: row 1: got 10, expected 0 to 3"),
        (np.array([0, 1.5, 1]), "probabilities", "t: row 1: got 1.5, expected a class index"),
        (np.array([0.0, 1, 1]), "probabilities", "got class indices as float64"),
        (np.array([0, 1]), "probabilities", "got 2 targets for 3 samples"),
        (np.eye(4)[:3] * 0.5, "probabilities", "row 0: got [0.5, 0.0, 0.0, 0.0], expected probab"),
        (np.eye(4)[:3] * 2, "unit", "expected probabilities that add up to 1"),
        (np.ones((3, 2)), "real", "got shape (3, 2), expected (3,) or (3, 4)"),
        (np.array(["a", "b", "c"]), "probabilities", "got values of type <U1"),
        (np.full((3, 4), np.nan), "real", "row 0, column 0: got nan"),
    ],
)
def test_bad_targets_are_refused(t: np.ndarray, loss: str, words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        check_targets(t, 3, 4, loss)


def test_one_output_is_too_few_for_softmax() -> None:
    with pytest.raises(DataError, match="at least 2 outputs, got 1"):
        check_targets(np.zeros(3, int), 3, 1, "probabilities")


@pytest.mark.parametrize(
    ("t", "outputs", "loss"),
    [
        (np.array([0, 3, 1]), 4, "probabilities"),
        (np.eye(4)[:3], 4, "probabilities"),
        (np.eye(4, dtype=int)[:3], 4, "probabilities"),
        (np.array([0, 1, 1]), 1, "unit"),
        (np.full((3, 4), 0.25), 4, "unit"),
        (np.full((3, 1), 0.7), 1, "unit"),
        (np.full((3, 4), -7.5), 4, "real"),
        (np.full(3, -7.5), 1, "real"),
    ],
)
def test_good_targets_pass(t: np.ndarray, outputs: int, loss: str) -> None:
    check_targets(t, 3, outputs, loss)
