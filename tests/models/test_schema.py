"""Files with a right checksum that xpnet has not written: refused whole, or the same answers."""

from __future__ import annotations

import copy
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import optim
from xpnet.data import Scaling
from xpnet.errors import CheckpointError, UsageError
from xpnet.files import replacing
from xpnet.models import Model, checkpoint, schema

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
T = (X.sum(axis=1) > 0).astype(int)


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some thousand files, none of which has to survive a power cut."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def trained(folder: Path | None = None, **options: Any) -> xpnet.Trainer:
    network = xpnet.mlp([4, 6, 2], dropout=0.2)
    scaling = Scaling(np.zeros(4), np.full(4, 2.0))
    trainer = xpnet.Trainer(
        network, optim.Adam(0.05), scaling=scaling, classes=["no", "yes"], columns=list("abcd")
    )
    trainer.fit(X, T, epochs=3, validation=(X, T), patience=5, folder=folder, **options)
    return trainer


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, checkpoint.Content]:
    """Contents of a model file and of a checkpoint with all that it can hold."""
    folder = tmp_path_factory.mktemp("run")
    trained(folder).save(folder / "model.npz", {"note": "of a test"})
    return {
        "model": checkpoint.load(folder / "model.npz"),
        "checkpoint": checkpoint.load(checkpoint.numbered(folder)[0]),
    }


# In the place of any value, right for none of them.
ODD: tuple[Any, ...] = (None, True, -1, 0.5, "x\ny\x1b[2J", [], {"a\nb": [None]})


def altered(meta: Any) -> Iterator[None]:
    """Change the meta data: one value replaced, left out, or one more, at every place of it."""
    for holder in list(places(meta)):
        for key in list(holder) if isinstance(holder, dict) else range(min(len(holder), 1)):
            value = holder[key]
            for odd in ODD:
                if type(odd) is not type(value) or odd != value:
                    holder[key] = odd
                    yield
            if isinstance(holder, dict):
                del holder[key]
                yield
            holder[key] = value
        if isinstance(holder, dict):
            holder["more"] = 1
            yield
            del holder["more"]


def places(value: Any) -> Iterator[Any]:
    """Each dict and list within a value, from the outside inwards."""
    if isinstance(value, dict | list):
        yield value
        for part in value.values() if isinstance(value, dict) else value[:1]:
            yield from places(part)


def refusal(path: Path) -> str:
    try:
        Model.load(path)
    except CheckpointError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
def test_odd_meta_data(tmp_path: Path, files: Any, kind: str) -> None:
    """Some hundred files: one error type, one line, or the answers of the file as it was."""
    arrays, meta = files[kind]
    path = tmp_path / "m.npz"
    checkpoint.save(path, arrays, meta)
    expected = Model.load(path).scores(X)
    refused = tried = 0
    meta = copy.deepcopy(meta)
    for _ in altered(meta if kind == "model" else meta["history"]):
        tried += 1
        checkpoint.save(path, arrays, meta)
        if message := refusal(path):
            refused += 1
            assert message.startswith(str(path))
            assert message.isprintable()
        else:  # another note, say, or other names of as many classes
            model = Model.load(path)
            np.testing.assert_array_equal(model.scores(X), expected)
            assert model.predict(X).dtype.kind in "iU"
    assert refused > 0.5 * tried > 50


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
def test_odd_arrays(tmp_path: Path, files: Any, kind: str) -> None:
    arrays, meta = files[kind]
    path = tmp_path / "m.npz"
    for name, array in arrays.items():
        others: list[dict[str, np.ndarray]] = [
            {name: np.stack([array] * 3)},
            {name: array.astype(np.float16)},
            {name: array.astype(array.dtype.newbyteorder(">"))},
            {f"{name}x": array},
            {name: array, "more": array},
            {name: array, "params/more": array},
            {},
        ]
        for bad in (np.nan, np.inf, -np.inf) if array.dtype.kind == "f" else ():
            holed = array.copy()
            holed.flat[-1] = bad
            others.append({name: holed})
        # Which slots an optimizer has, a model does not know; who resumes a run does.
        for other in others[:3] if name.startswith("state/") else others:
            rest = {key: value for key, value in arrays.items() if key != name}
            checkpoint.save(path, rest | other, meta)
            message = refusal(path)
            assert message.startswith(str(path)), (name, other)
            assert message.isprintable()


def test_counts_that_do_not_fit_each_other(tmp_path: Path, files: Any) -> None:
    arrays, meta = files["checkpoint"]
    levels = ({"state/level": np.asarray(v, "float32")} for v in (-0.5, 1.5, [1.0]))
    steps = {"state/step": np.asarray(-1, np.int32)}
    for changed in (steps, {"losses": np.zeros(2)}, *levels):
        checkpoint.save(tmp_path / "m.npz", {**arrays, **changed}, meta)
        assert "is not as xpnet writes it" in refusal(tmp_path / "m.npz")
    for changed in (
        {"best_epoch": 4},
        {"steps_in_epoch": 1},
        {"epochs": meta["history"]["epochs"][1:]},
    ):
        checkpoint.save(tmp_path / "m.npz", arrays, meta | {"history": meta["history"] | changed})
        assert "is not as xpnet writes it" in refusal(tmp_path / "m.npz")


def test_a_network_too_large_for_its_file_takes_no_memory(tmp_path: Path, files: Any) -> None:
    arrays, meta = files["model"]
    for sizes in ([4, 20_000, 20_000, 2], [4, 10**9, 2], [4, 10**18, 2], [4] + [9] * 10**5):
        activation = ["relu"] * (len(sizes) - 2) + ["identity"]
        arguments = meta["arguments"] | {"sizes": sizes, "activation": activation}
        checkpoint.save(tmp_path / "m.npz", arrays, meta | {"arguments": arguments})
        tracemalloc.start()
        with pytest.raises(CheckpointError, match="its network cannot be made: params: W1"):
            Model.load(tmp_path / "m.npz")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 50e6


def test_scalings_and_names_that_do_not_fit_the_network(tmp_path: Path, files: Any) -> None:
    arrays, meta = files["model"]
    for changed, words in (
        ({"scaling/shift": np.zeros(3)}, "its scaling does not fit"),
        ({"target_scaling/shift": np.zeros(2)}, "target_scaling/scale is missing"),
        ({"target_scaling/shift": np.zeros(()), "target_scaling/scale": np.zeros(2)}, "is 0"),
        ({"target_scaling/shift": np.zeros(()), "target_scaling/scale": np.ones(3)}, "not fit"),
    ):
        checkpoint.save(tmp_path / "m.npz", {**arrays, **changed}, meta)
        with pytest.raises(CheckpointError, match=words):
            Model.load(tmp_path / "m.npz")
    for names in ({"classes": ["a"]}, {"classes": ["a"] * 3}, {"columns": ["a"]}):
        with pytest.raises(UsageError, match=r"has \d (class|column) names, expected"):
            xpnet.Trainer(xpnet.mlp([4, 6, 2]), **names)
        checkpoint.save(tmp_path / "m.npz", arrays, meta | names)
        with pytest.raises(CheckpointError, match=r"has \d (class|column) names, expected"):
            Model.load(tmp_path / "m.npz")


def test_the_writer_holds_the_same_rule(tmp_path: Path) -> None:
    trainer = trained()
    trainer.save(tmp_path / "m.npz")
    before = (tmp_path / "m.npz").read_bytes()
    trainer.params["W1"][0, 0] = np.nan
    with pytest.raises(CheckpointError, match="params/W1 has a value that is not finite"):
        trainer.save(tmp_path / "m.npz")
    with pytest.raises(UsageError, match="cannot be stored with a model"):
        trained().save(tmp_path / "m.npz", {"what": object()})
    assert (tmp_path / "m.npz").read_bytes() == before


def test_classes_and_extras_of_numpy(tmp_path: Path) -> None:
    trainer = xpnet.Trainer(
        xpnet.mlp([4, 3, 2]), classes=np.unique(T), columns=np.array(list("abcd"))
    )
    trainer.fit(X, T, epochs=1, folder=tmp_path / "run", extra={"rate": np.float32(0.5)})
    trainer.save(tmp_path / "m.npz", {"counts": np.bincount(T)})
    assert Model.load(tmp_path / "m.npz").classes == ("0", "1")
    assert schema.load(tmp_path / "m.npz")[1]["extra"] == {"counts": np.bincount(T).tolist()}


def by_hand(gate: Any, loss: Any) -> xpnet.Network:
    graph = xpnet.Graph()
    x, t, W = graph.inputs("x t W")
    scores = graph.apply(gate, x @ W)
    params = {"W": np.ones((4, 3))}
    return xpnet.Network(graph, params, scores, graph.apply(loss, scores, t), outputs=3)


@pytest.mark.parametrize(
    ("saved", "other"),
    [
        (xpnet.mlp([4, 3, 3], "relu"), xpnet.mlp([4, 3, 3], "tanh")),
        (xpnet.mlp([4, 3, 3]), xpnet.mlp([4, 3, 3], loss="hinge")),
        (
            by_hand(xpnet.layers.ReLU(), xpnet.losses.SoftmaxWithLoss()),
            by_hand(xpnet.layers.Tanh(), xpnet.losses.SoftmaxWithLoss()),
        ),
        (
            by_hand(xpnet.layers.ReLU(), xpnet.losses.HingeLoss()),
            by_hand(xpnet.layers.ReLU(), xpnet.losses.HingeLoss(margin=2.0)),
        ),
        (
            by_hand(xpnet.layers.LeakyReLU(0.1), xpnet.losses.SoftmaxWithLoss()),
            by_hand(xpnet.layers.LeakyReLU(0.2), xpnet.losses.SoftmaxWithLoss()),
        ),
    ],
    ids=["activation", "loss", "by hand", "margin", "slope"],
)
def test_a_file_does_not_load_into_another_network(tmp_path: Path, saved: Any, other: Any) -> None:
    Model(saved).save(tmp_path / "m.npz")
    model = Model.load(tmp_path / "m.npz", network=saved)
    np.testing.assert_array_equal(model.scores(X), Model(saved).scores(X))
    with pytest.raises(CheckpointError, match="is of another network: it has"):
        Model.load(tmp_path / "m.npz", network=other)


def test_half_of_a_surrogate_pair_is_neither_stored_nor_read(tmp_path: Path, files: Any) -> None:
    arrays, meta = files["model"]
    path = tmp_path / "m.npz"
    with pytest.raises(UsageError, match="surrogates not allowed; expected text"):
        checkpoint.save(path, arrays, meta | {"classes": ["no", "\ud800"]})
    assert not path.exists()
    forged = json.dumps(meta | {"classes": ["no", "\ud800"]}).encode()
    with replacing(path) as file:
        np.savez(file, **arrays, meta=np.frombuffer(forged, np.uint8))
        digest = checkpoint._digest(file, file.seek(0, os.SEEK_END))
        file.write(checkpoint.MAGIC + digest)
    assert "surrogates not allowed" in refusal(path)
