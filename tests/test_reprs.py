"""What a prompt shows of an object: one line that is useful, never whole arrays, never an error."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import Graph, Model, Network, Trainer, functions, losses, optim
from xpnet.data import Encoder, standardize
from xpnet.data.dataset import Dataset, Rows, Scaling, select_rows
from xpnet.data.table import Column, Table

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
T = (X[:, 0] > 0).astype(int)


def line(thing: Any, most: int = 300) -> str:
    """Return the repr, which is one short line without addresses in memory."""
    text = repr(thing)
    assert text.isprintable(), text
    assert len(text) <= most, text
    assert "object at 0x" not in text
    assert "array([" not in text
    return text


def by_hand(outputs: int | None = 2) -> Network:
    graph = Graph()
    x, t, W, b = graph.inputs("x t W b")
    y = functions.affine(functions.tanh(x), W, b)
    params = {"W": np.ones((4, 2)), "b": np.zeros(2)}
    return Network(graph, params, y, graph.apply(losses.SoftmaxWithLoss(), y, t), outputs=outputs)


# -- Networks --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda: xpnet.mlp([64, 50, 10]), "64 - 50 - 10, relu, softmax loss, 3,760 parameters"),
        (lambda: xpnet.mlp([3, 2]), "3 - 2, softmax loss, 8 parameters"),
        (
            lambda: xpnet.mlp([4, 3, 3, 1], "tanh", loss="squared", dropout=0.2),
            "4 - 3 - 3 - 1, tanh, dropout 0.2, squared loss, 31 parameters",
        ),
        (
            lambda: xpnet.mlp([4, 3, 3, 2], ["tanh", "relu"]),
            "4 - 3 - 3 - 2, tanh, relu, identity, softmax loss, 35 parameters",
        ),
        (
            lambda: xpnet.mlp([4, 3, 2], ["tanh", "sigmoid"], loss=("huber", {"delta": 2.0})),
            "4 - 3 - 2, tanh, sigmoid, huber (delta 2) loss, 23 parameters",
        ),
        (by_hand, "3 gates, 2 outputs, softmax loss, 10 parameters"),
        (lambda: by_hand(None), "3 gates, softmax loss, 10 parameters"),
    ],
)
def test_networks(network: Any, words: str) -> None:
    assert line(network()) == f"<Network: {words}>"


def test_a_network_with_many_layers() -> None:
    assert "10 - 10 - ... (200 in all) - 10 - 10, " in line(xpnet.mlp([10] * 200, ["relu"] * 198))
    line(xpnet.mlp([10] * 200, ["relu", "tanh"] * 99))


def test_the_step_s_network_without_values() -> None:
    """A step keeps the names of the parameters alone."""
    trainer = Trainer(xpnet.mlp([3, 2]))
    from xpnet.trainer.step import make_step

    step = make_step(trainer.network, optim.SGD())
    assert "softmax" in line(step.network)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (
            xpnet.cnn((1, 28, 28), [30], [100], kernel=5, padding=0),
            "1x28x28 - conv 30 - pool - 100 - 10, relu, softmax loss, 433,890 parameters",
        ),
        (
            xpnet.cnn((3, 8, 8), [[4, 6], 8], (), 2, "tanh", batch_norm=True, pool=1,
                      global_pool=True, loss="hinge"),
            "3x8x8 - conv 4 - conv 6 - conv 8 - global mean - 2, tanh, batch norm, hinge loss, "
            "810 parameters",
        ),
        (
            xpnet.cnn((1, 9, 9), [2] * 9, [5, 5], pool=1, activation="identity", dropout=0.1),
            "1x9x9 - conv 2 - conv 2 - conv 2 - conv 2 - ... (13 in all) - 5 - 10, identity, "
            "dropout 0.1, softmax loss, 1,229 parameters",
        ),
        (
            xpnet.mlp([4, 3, 2], batch_norm=True),
            "4 - 3 - 2, relu, batch norm, softmax loss, 26 parameters",
        ),
    ],
)  # fmt: skip
def test_convolution_networks_in_words(network: xpnet.Network, words: str) -> None:
    assert line(network) == f"<Network: {words}>"
    assert network.size == int(words.split(", ")[-1].split()[0].replace(",", ""))


# -- Models and trainers ---------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: xpnet.mlp([4, 3, 2]), by_hand])
@pytest.mark.parametrize("library", ["numpy", "strict", "torch", "jax"])
def test_before_and_after_training(library: str, make: Any) -> None:
    module = {"strict": "array_api_strict"}.get(library, library)
    pytest.importorskip(module, reason=f"{library} is not installed")
    backend = xpnet.select("cpu", library)
    assert line(backend).startswith(f"<Backend: {library} ")
    trainer = Trainer(make(), optim.Adam(0.005), backend=backend)
    words = make().in_words
    assert line(trainer.model) == f"<Model: {words}; float32 on {library}, cpu>"
    rule = "Adam(lr=0.005)"
    assert line(trainer) == f"<Trainer: {words}; float32 on {library}, cpu; {rule}>"
    trainer.fit(X, T, epochs=2, batch_size=20)
    assert line(trainer).endswith(f"{rule}; 2 epochs, 6 steps>")
    assert line(trainer.model) == f"<Model: {words}; float32 on {library}, cpu>"


def test_after_loading_copying_and_pickling(tmp_path: Path) -> None:
    trainer = Trainer(xpnet.mlp([4, 3, 2]), optim.SGD(0.1), dtype="float64")
    trainer.fit(X, T, epochs=1, folder=tmp_path / "run")
    trainer.save(tmp_path / "m.npz")
    for path in (tmp_path / "m.npz", max((tmp_path / "run").iterdir())):
        assert line(Model.load(path)) == line(trainer.model)
        loaded = Trainer.load(path, optimizer=optim.SGD(0.1))
        assert line(trainer) == line(loaded).replace(">", "; 1 epoch, 4 steps>")
    for other in (copy.deepcopy(trainer), pickle.loads(pickle.dumps(trainer))):
        assert line(other) == line(trainer)


def test_a_trainer_says_what_a_step_does_beside_its_rule() -> None:
    rate = optim.cosine(0.1, 100, warmup=10)
    trainer = Trainer(xpnet.mlp([3, 2]), optim.AdamW(rate), weight_decay=0.01, clip_norm=1.0)
    assert "lr=0.1, steps=100" in line(trainer)
    assert line(trainer).endswith("weight decay 0.01, gradients clipped to 1>")


def test_a_trainer_that_chooses_says_so_until_it_has_chosen() -> None:
    trainer = Trainer(xpnet.mlp([4, 3, 2]))
    assert line(trainer).endswith("; AdamW, by the size of the data>")
    trainer.fit(X, T, epochs=2)
    assert "; AdamW(lr=Cosine(lr=0.01, steps=" in line(trainer)
    assert line(trainer).endswith(f"; 2 epochs, {trainer.history.steps} steps>")  # type: ignore[union-attr]


class Own:
    """A rule that is no dataclass, with a setting that is an array."""

    lr = 0.1
    slots = ()

    def __init__(self) -> None:
        self.settings = np.zeros(1000)

    def rule(self, p: Any, g: Any, lr: Any) -> Any:
        return (p - lr * g,)


def test_a_rule_of_one_s_own() -> None:
    assert line(Trainer(xpnet.mlp([3, 2]), Own())).endswith("; Own>")


# -- Backends --------------------------------------------------------------------------


def test_a_backend_says_where_it_is() -> None:
    backend = xpnet.select("cpu")
    assert line(backend) == f"<Backend: {backend}>"
    assert backend.device_name in line(backend)


# -- Data ------------------------------------------------------------------------------


def test_the_digits() -> None:
    data, _ = xpnet.datasets.load("digits")
    names = ", ".join("0123456789")
    assert line(data) == f"<Dataset: 1,797 samples, 64 uint8; 10 classes: {names}>"


def test_data_sets_of_every_kind(tmp_path: Path) -> None:
    many = tuple(f"class {i}" for i in range(500))
    assert line(Dataset(np.zeros((3, 28, 28), np.uint8), np.zeros(3, int), many)).startswith(
        "<Dataset: 3 samples, 28 x 28 uint8; 500 classes: class 0, "
    )
    assert line(Dataset(X, X[:, :2])) == "<Dataset: 60 samples, 4 float64; 2 targets>"
    assert line(Dataset(X[:1], X[:1, :1])) == "<Dataset: 1 sample, 4 float64; 1 target>"
    table = Table((Column("a", np.arange(3.0)),))
    assert line(Dataset(table, np.zeros(3, int), ("no", "yes"))) == (
        "<Dataset: 3 samples, a table of 1 column; 2 classes: no, yes>"
    )
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert "4 float64, in its file" in line(Dataset(mapped, X[:, :1]))
    rows = select_rows(mapped, np.arange(7))
    assert isinstance(rows, Rows)
    assert line(rows) == "<Rows: 7 of 60, 4 float64, in its file>"
    assert line(Dataset(rows, X[:7, :1])).startswith("<Dataset: 7 samples, 4 float64, in its")
    assert (
        line(Dataset(np.zeros(5), np.zeros((5, 1)))) == "<Dataset: 5 samples, 1 float64; 1 target>"
    )
    assert line(Dataset([[1, 2]], np.zeros((1, 1)))).startswith("<Dataset: 1 sample, 2;")


def test_names_of_a_file_s_author_stay_in_the_line() -> None:
    nasty = ("a\nb", "\x1b[31mred", "x" * 5000)
    line(Dataset(X[:3], np.arange(3), nasty))
    line(Table(tuple(Column(name, np.arange(2.0)) for name in nasty), name="t\n.csv"))
    line(Column("a\nb", values=nasty, codes=np.zeros(3, np.int32)))


def test_tables_and_columns() -> None:
    size = Column("size", np.arange(1000.0))
    port = Column("port", values=("here", "there"), codes=np.zeros(1000, np.int32))
    good = Column("good", np.ones(1000), boolean=True)
    day = Column("day", values=("2020-01-01",), codes=np.zeros(1000, np.int32), date=True)
    assert line(size) == "<Column size: 1,000 numbers>"
    assert line(port) == "<Column port: 1,000 texts: here, there>"
    assert line(good) == "<Column good: 1,000 truth values>"
    assert line(day) == "<Column day: 1,000 dates: 2020-01-01>"
    table = Table((size, port, good), "f.csv")
    assert line(table) == "<Table f.csv: 1,000 rows, 3 columns: size, port, good>"
    assert line(Table(())) == "<Table x: 0 rows, 0 columns>"
    wide = Table(tuple(Column(f"column {i}", np.zeros(2)) for i in range(10_000)))
    assert "10,000 columns: column 0," in line(wide)
    assert line(Encoder.of(Table((size,)))) == "<Encoder of 1 column into 1 feature>"


@pytest.mark.parametrize(
    ("scaling", "words"),
    [
        (Scaling(), "Scaling(shift=0.0, scale=1.0)"),
        (Scaling(0.0, 1 / 255), "Scaling(shift=0.0, scale=0.00392156862745098)"),
        (Scaling(np.array([20.0, 1e5]), 2.0), "Scaling(shift=[20, 100000], scale=2.0)"),
        (Scaling(np.float64(3.0), np.array(0.5)), "Scaling(shift=3, scale=0.5)"),
        (standardize(np.eye(64)), "Scaling(shift=array of 64, scale=array of 64)"),
        (Scaling(np.zeros((28, 28)), 1.0), "Scaling(shift=array of 28 x 28, scale=1.0)"),
        (Scaling("a", None), "Scaling(shift='a', scale=None)"),  # type: ignore[arg-type]
        (Scaling(np.array(["a"]), 1.0), "Scaling(shift=array of 1, scale=1.0)"),
    ],
)
def test_scalings(scaling: Scaling, words: str) -> None:
    assert line(scaling) == words


def test_small_scalings_in_words() -> None:
    assert Scaling().in_words("x") == "x as it is"
    assert Scaling(np.zeros(9), np.ones(9)).in_words("t") == "t as it is"
    assert Scaling(20.0, 0.5).in_words("x") == "(x - 20) · 0.5"
    assert Scaling(0.0, 0.5).in_words("x") == "x · 0.5"
    assert Scaling(np.array([1.0, 2.0]), 0.5).in_words("x") == "(x - [1, 2]) · 0.5"


# -- Graphs ----------------------------------------------------------------------------


def test_nodes() -> None:
    graph = Graph()
    x, y = graph.inputs("x y")
    step = graph.input("step", optional=True)
    assert line(x) == "<Node x: input>"
    assert line(step) == "<Node step: optional input>"
    assert line(x + y) == "<Node Add1 = Add(x, y)>"
    assert line(functions.sigmoid(x).named("z")) == "<Node z = Sigmoid(x)>"
