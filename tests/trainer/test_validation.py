"""A share of the data that is split off for validation."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.data import split, standardize
from xpnet.errors import CheckpointError, DataError, UsageError
from xpnet.trainer.validation import drawn


def classes(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, 4)) * [1, 10, 100, 1]
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 10)


def trainer(outputs: int = 3, **options: Any) -> xpnet.Trainer:
    loss = options.pop("loss", "softmax")
    net = xpnet.mlp([4, 8, outputs], loss=loss, seed=1)
    return xpnet.Trainer(net, optim.Adam(0.01), seed=7, **options)


def course(history: xpnet.History) -> list[Any]:
    return [(e.train_loss, e.train_score, e.val_loss, e.val_score) for e in history.epochs]


def by_hand(x: Any, t: np.ndarray, share: float = 0.2, stratify: bool = True) -> Any:
    rest, part = split(t, share, (7, 2), stratify=stratify)
    return x[rest], t[rest], (x[part], t[part]), rest


OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 32}


def test_it_is_the_split_of_the_seed_by_class() -> None:
    x, t = classes()
    a, b, held, _ = by_hand(x, t)
    expected = trainer().fit(a, b, validation=held, **OPTIONS)
    found = trainer()
    history = found.fit(x, t, validation=0.2, **OPTIONS)
    assert course(history) == course(expected)
    assert history.epochs[-1].val_loss is not None
    # The scaling is that of the training part.
    scaling = found.model.feed.scaling
    assert scaling is not None
    np.testing.assert_array_equal(scaling.shift, standardize(a).shift)


def test_every_class_has_its_share() -> None:
    t = np.repeat([0, 1, 2], [900, 90, 10])
    rest, part = drawn(t, 0.1, 0, True)
    assert np.bincount(t[part]).tolist() == [90, 9, 1]
    assert sorted([*rest, *part]) == list(range(1000))


def test_regressions_one_hot_rows_and_shares_of_classes() -> None:
    x, t = classes()
    a, b, held, _ = by_hand(x, x[:, 0], stratify=False)
    expected = trainer(1, loss="squared").fit(a, b, validation=held, **OPTIONS)
    history = trainer(1, loss="squared").fit(x, x[:, 0], validation=0.2, **OPTIONS)
    assert course(history) == course(expected)
    rows = np.eye(3)[t]
    rest, part = split(rows, 0.2, (7, 2), stratify=True)
    expected = trainer().fit(x[rest], rows[rest], validation=(x[part], rows[part]), **OPTIONS)
    assert course(trainer().fit(x, rows, validation=0.2, **OPTIONS)) == course(expected)
    soft = 0.8 * rows + 0.2 / 3  # probabilities are no classes to split by, but have a largest one
    history = trainer().fit(x, soft, validation=0.2, **OPTIONS)
    assert history.epochs[-1].val_score is not None


def test_weights_go_along() -> None:
    x, t = classes()
    weight = np.random.default_rng(2).random(len(t)) + 0.1
    a, b, held, rest = by_hand(x, t)
    for given in ("balanced", {0: 3.0, 1: 1.0, 2: 2.0}, None):
        options = {**OPTIONS, "class_weight": given}
        expected = trainer().fit(a, b, validation=held, sample_weight=weight[rest], **options)
        history = trainer().fit(x, t, validation=0.2, sample_weight=weight, **options)
        assert course(history) == course(expected)


def test_text_labels_and_weights_by_name() -> None:
    x, t = classes()
    names = np.array(["a", "b", "c"])[t]
    options = {**OPTIONS, "class_weight": {"a": 2.0, "b": 1.0, "c": 5.0}}
    a, b, held, _ = by_hand(x, t)
    expected = trainer().fit(a, b, validation=held, **OPTIONS, class_weight={0: 2.0, 1: 1.0, 2: 5})
    for labels in (names, names.tolist()):
        found = trainer()
        assert course(found.fit(x, labels, validation=0.2, **options)) == course(expected)
        assert found.model.classes == ("a", "b", "c")


def test_a_class_that_only_the_validation_part_has_keeps_its_name() -> None:
    x, t = classes(100)
    names = np.array(["a", "b"])[t % 2].tolist()
    names[0] = "c"
    for seed in range(6):
        found = xpnet.Trainer(xpnet.mlp([4, 3]), seed=seed)
        found.fit(x, names, validation=0.5, epochs=1)
        assert found.model.classes == ("a", "b", "c")


def test_a_mapped_file_stays_a_file(tmp_path: Path) -> None:
    x, t = classes()
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = course(trainer().fit(x, t, validation=0.2, **OPTIONS))
    found = course(trainer().fit(mapped, t, validation=0.2, **OPTIONS))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_arrays_of_other_libraries() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, t = classes()
    expected = course(trainer().fit(x, t, validation=0.2, **OPTIONS))
    given = torch.tensor(x), torch.tensor(t)
    assert course(trainer().fit(*given, validation=0.2, **OPTIONS)) == expected
    assert course(trainer().fit(x.tolist(), t.tolist(), validation=0.2, **OPTIONS)) == expected


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("one_call", [True, False])
def test_a_frame_is_encoded_by_the_training_part_alone(library: str, one_call: bool) -> None:
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    x, t = classes()
    colour = np.array(["red", "green", "blue"])[t]
    rest, part = split(t, 0.2, (7, 2), stratify=True)
    colour[part[0]] = "only"
    x[part[1], 1] = 1e6  # would change the scaling
    columns = {"size": x[:, 1], "colour": colour}
    make = module.table if library == "pyarrow" else module.DataFrame
    frame, some = make(columns), make({name: column[rest] for name, column in columns.items()})
    encoder = xpnet.data.Encoder.of(some)
    if one_call:
        train = partial(xpnet.fit, frame, t, seed=7)
    else:
        own = xpnet.Trainer(xpnet.mlp([encoder.width, 3], seed=1), optim.Adam(0.01), seed=7)
        train = partial(own.fit, frame, t)
    with pytest.warns(RuntimeWarning, match=r"value that the training did not have .only."):
        found = train(validation=0.2, **OPTIONS)
    found = found if one_call else own
    assert found.model.encoder is not None
    assert found.model.encoder.names == encoder.names
    assert found.model.feed.scaling is not None
    assert encoder.scaling is not None
    np.testing.assert_array_equal(found.model.feed.scaling.scale, encoder.scaling.scale)
    assert found.history is not None
    assert found.history.epochs[-1].val_score is not None


def test_patience_and_metric_take_a_share() -> None:
    x, t = classes()
    history = trainer().fit(x, 2 - t, validation=0.3, patience=2, metric="f1", epochs=200)
    assert history.metric == "f1"
    assert history.best_epoch > 0


def test_a_resumed_run_finds_the_same_split(tmp_path: Path) -> None:
    x, t = classes()
    options = {**OPTIONS, "validation": 0.2, "folder": tmp_path}
    expected = trainer().fit(x, t, validation=0.2, epochs=6, batch_size=32)
    trainer().fit(x, t, **options)
    again = trainer().fit(x, t, **{**options, "epochs": 6}, resume=True)
    assert course(again) == course(expected)
    with pytest.raises(CheckpointError, match=r"another run: .*validation_share was 0.2, is 0.3"):
        trainer().fit(x, t, **{**options, "validation": 0.3}, resume=True)
    with pytest.raises(CheckpointError, match=r"validation_share was 0.2, is None"):
        trainer().fit(x, t, **{**options, "validation": None}, resume=True)


@pytest.mark.parametrize(
    "value", [0, 0.0, 1.0, 1, -0.1, 1.5, True, "0.1", float("nan"), (1, 2, 3), [1], object(), 10]
)
def test_bad_values_get_one_line(value: Any) -> None:
    x, t = classes()
    with pytest.raises(UsageError, match=r"validation is .*; expected a pair") as caught:
        trainer().fit(x, t, validation=value)
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_shares_too() -> None:
    x, t = classes()
    expected = course(trainer().fit(x, t, validation=0.25, **OPTIONS))
    for share in (np.float64(0.25), np.float32(0.25), np.array(0.25)):
        assert course(trainer().fit(x, t, validation=share, **OPTIONS)) == expected


def test_a_part_that_would_be_empty_is_refused() -> None:
    x, t = classes(9)
    with pytest.raises(
        DataError, match=r"validation: a share of 0.05 of 9 samples leaves one part"
    ):
        trainer().fit(x, t, validation=0.05)
    with pytest.raises(DataError, match="leaves one part empty"):
        trainer().fit(x, t, validation=0.99)


def test_messages_name_the_rows_of_what_was_given() -> None:
    x, t = classes()
    _, part = split(t, 0.2, (7, 2), stratify=True)
    row = int(part[3])
    for bad in (row, (row + 1) % 300):
        broken = x.copy()
        broken[bad, 2] = np.nan
        with pytest.raises(DataError, match=f"x: row {bad}, column 2"):
            trainer().fit(broken, t, validation=0.2)
        wrong = t.copy()
        wrong[bad] = 5
        with pytest.raises(DataError, match=f"t: row {bad}: got 5"):
            trainer().fit(x, wrong, validation=0.2)
    with pytest.raises(DataError, match="expected 300 positive numbers"):
        trainer().fit(x, t, validation=0.2, sample_weight=np.ones(240))
    with pytest.raises(DataError, match="300 samples"):
        trainer().fit(x, t[:299], validation=0.2)


def test_a_refused_share_leaves_the_model_as_it_was() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    x, _ = classes(9)
    found = trainer()
    frame = pandas.DataFrame(x, columns=list("abcd"))
    with pytest.raises(DataError, match="leaves one part empty"):
        found.fit(frame, [*"abcabcabc"], validation=0.01)
    assert found.model.classes is None
    assert found.model.encoder is None


def test_a_metric_that_one_class_leaves_undefined_is_explained() -> None:
    t = np.zeros(300, int)
    t[:2] = 1
    x = np.random.default_rng(0).standard_normal((300, 4))
    with pytest.warns(RuntimeWarning, match="roc_auc .* check that the validation set has samples"):
        xpnet.fit(x, t, validation=0.1, patience=3, metric="roc_auc", epochs=10)
