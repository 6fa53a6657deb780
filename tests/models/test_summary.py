"""Summaries: layers, shapes and parameters, against counts from elsewhere."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import Graph, Model, Network, Trainer, functions, gates, layers, losses, optim
from xpnet.data import Encoder, standardize
from xpnet.data.dataset import Scaling
from xpnet.data.table import Column, Table
from xpnet.models.summary import Summary, in_words, loss_in_words, sized


def outputs(summary: Summary) -> dict[str, Any]:
    return {layer.name: layer.output for layer in summary.layers}


def counts(summary: Summary) -> dict[str, int]:
    return {layer.name: layer.parameters for layer in summary.layers}


def residual() -> Network:
    """x + W2 relu(W1 x), with the loss of classes."""
    graph = Graph()
    x, t, W1, b1, W2, b2 = graph.inputs("x t W1 b1 W2 b2")
    y = functions.affine(functions.relu(functions.affine(x, W1, b1)), W2, b2) + x
    params = {"W1": np.ones((4, 6)), "b1": np.ones(6), "W2": np.ones((6, 4)), "b2": np.ones(4)}
    return Network(graph, params, y, graph.apply(losses.SoftmaxWithLoss(), y, t), outputs=4)


# -- Parameters ------------------------------------------------------------------------


# Of Keras's and PyTorch's own tutorials: Dense(512) and Dense(10) upon 784 inputs, and so on.
KNOWN = [
    ([784, 512, 10], 407_050),
    ([784, 512, 512, 10], 669_706),
    ([784, 128, 10], 101_770),
    ([4, 1], 5),
]


@pytest.mark.parametrize(("sizes", "known"), KNOWN)
def test_totals_that_others_print(sizes: list[int], known: int) -> None:
    network = xpnet.mlp(sizes, dropout=0.2)
    summary = network.summary()
    assert summary.parameters == sum(counts(summary).values()) == network.size == known
    assert known == sum(value.size for value in Model(network).to_host().values())
    assert f"{known:,}" in str(summary)


@pytest.mark.parametrize(("sizes", "known"), KNOWN)
def test_totals_of_pytorch(sizes: list[int], known: int) -> None:
    nn = pytest.importorskip("torch.nn", reason="torch is not installed")
    theirs = [nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    ours = xpnet.mlp(sizes).summary()
    each = [sum(p.numel() for p in layer.parameters()) for layer in theirs]
    assert [layer.parameters for layer in ours.layers if layer.kind == "Affine"] == each
    assert ours.parameters == sum(each) == known


def test_what_gates_share_counts_once() -> None:
    """An autoencoder whose second layer is the first one's transpose."""
    graph = Graph()
    x, t, W, b, c = graph.inputs("x t W b c")
    y = functions.affine(functions.tanh(functions.affine(x, W, b)), W.T, c)
    params = {"W": np.ones((5, 3)), "b": np.ones(3), "c": np.ones(5)}
    network = Network(graph, params, y, graph.apply(losses.SquaredLoss(), y, t), outputs=5)
    summary = network.summary()
    assert sum(counts(summary).values()) == summary.parameters == 15 + 3 + 5
    assert outputs(summary) == {
        "x": ("N", 5), "Affine1": ("N", 3), "Tanh1": ("N", 3), "Transpose1": (3, 5),
        "Affine2": ("N", 5),
    }  # fmt: skip


def test_parameters_of_the_loss_have_a_line() -> None:
    graph = Graph()
    x, t, W, b, scale = graph.inputs("x t W b scale")
    y = functions.affine(x, W, b)
    loss = graph.apply(losses.SquaredLoss(), y, t) * functions.exp(scale)
    params = {"W": np.ones((3, 2)), "b": np.ones(2), "scale": np.ones(())}
    summary = Network(graph, params, y, loss).summary()
    assert counts(summary) == {"x": 0, "Affine1": 8, "Mul1": 1}
    assert summary.parameters == 9


@dataclass(frozen=True)
class Centred:
    """y = x - running, with the mean of the batches as statistics."""

    def forward(self, x: Any, running: Any) -> tuple[Any, Any]:
        return x - running, None

    def backward(self, cache: Any, dout: Any, needs: Any) -> tuple[Any, ...]:
        return dout, None

    def observed(self, cache: Any) -> tuple[Any, ...]:
        return (np.zeros(4),)


def test_statistics_are_no_parameters() -> None:
    graph = Graph()
    x, t, W, b, running = graph.inputs("x t W b running")
    y = functions.affine(graph.apply(Centred(), x, running), W, b)
    network = Network(
        graph, {"W": np.ones((4, 2)), "b": np.ones(2)}, y,
        graph.apply(losses.SoftmaxWithLoss(), y, t), outputs=2, input_shape=(4,),
        statistics={"running": np.zeros(4)},
    )  # fmt: skip
    summary = network.summary()
    assert counts(summary) == {"x": 0, "Centred1": 0, "Affine1": 10}
    assert dict(summary.facts)["statistics"].startswith("4,")
    assert "takes" not in str(summary)


# -- Shapes ----------------------------------------------------------------------------


def test_a_perceptron_with_dropout() -> None:
    network = xpnet.mlp([20, 7, 5, 3], ["relu", "tanh"], dropout=0.25)
    before = {name: value.copy() for name, value in network.params.items()}
    summary = network.summary()
    assert [layer.kind for layer in summary.layers] == [
        "input", "Affine", "ReLU", "Dropout(ratio=0.25)", "Affine", "Tanh", "Dropout(ratio=0.25)",
        "Affine",
    ]  # fmt: skip
    widths = [20, 7, 7, 7, 5, 5, 5, 3]
    assert [layer.output for layer in summary.layers] == [("N", width) for width in widths]
    assert summary.layers[2].inputs == ("Affine1",)
    for name, value in before.items():
        np.testing.assert_array_equal(network.params[name], value)


def test_shapes_are_those_of_a_forward_pass() -> None:
    """Images, whose channels a weight mixes, then flattened; also what is not of the batch."""
    graph = Graph()
    x, t, W1, b1, W2, b2 = graph.inputs("x t W1 b1 W2 b2")
    pixels = graph.apply(gates.Reshape((-1, 9)), x)  # (N · 2, 9)
    hidden = functions.relu(functions.affine(pixels, W1, b1))
    flat = graph.apply(gates.Reshape((-1, 8)), hidden)
    y = functions.affine(flat, W2, b2)
    params = {"W1": np.ones((9, 4)), "b1": np.ones(4), "W2": np.ones((8, 1)), "b2": np.ones(1)}
    loss = graph.apply(losses.SquaredLoss(), y, t)
    network = Network(graph, params, y, loss, outputs=1, input_shape=(2, 3, 3))
    summary = network.summary()
    assert outputs(summary)["Reshape1"] == ("2 N", 9)
    values, _ = graph.forward({**params, "x": np.ones((5, 2, 3, 3))}, *outputs(summary))
    found = {name: value.shape for name, value in zip(outputs(summary), values, strict=True)}
    for name, shape in outputs(summary).items():
        assert found[name] == tuple({"N": 5, "2 N": 10}.get(str(n), n) for n in shape)
    assert "(N, 2, 3, 3)" in str(summary)


def test_images_into_an_affine_layer() -> None:
    graph = Graph()
    x, t, W, b = graph.inputs("x t W b")
    y = functions.affine(x, W, b)
    params = {"W": np.ones((12, 2)), "b": np.ones(2)}
    loss = graph.apply(losses.SoftmaxWithLoss(), y, t)
    network = Network(graph, params, y, loss, outputs=2, input_shape=(3, 2, 2))
    assert outputs(network.summary()) == {"x": ("N", 3, 2, 2), "Affine1": ("N", 2)}
    # Where the network says nothing, the first weights do.
    flat = dataclasses.replace(network, input_shape=None).summary()
    assert outputs(flat) == {"x": ("N", 12), "Affine1": ("N", 2)}


def test_a_convolution_network() -> None:
    """Shapes and parameters as the book gives them, chapter 7; against PyTorch below."""
    network = xpnet.cnn((1, 28, 28), [30], [100], kernel=5, padding=0, batch_norm=True, dropout=0.5)
    summary = network.summary()
    assert [layer.kind for layer in summary.layers] == [
        "input", "Convolution(kernel=5)", "BatchNorm(momentum=0.9)", "MaxPool(size=2)", "ReLU",
        "Flatten", "Affine", "BatchNorm(momentum=0.9)", "ReLU", "Dropout(ratio=0.5)", "Affine",
    ]  # fmt: skip
    images = [("N", 1, 28, 28), *[("N", 30, 24, 24)] * 2, *[("N", 30, 12, 12)] * 2]
    assert [layer.output for layer in summary.layers] == [
        *images, ("N", 4320), *[("N", 100)] * 4, ("N", 10),
    ]  # fmt: skip
    assert summary.parameters == 30 * 25 + 60 + 4320 * 100 + 200 + 1010
    assert dict(summary.facts)["statistics"] == "260, not trained but measured"
    assert [layer.inputs for layer in summary.layers[1:3]] == [("x",), ("Convolution1",)]
    assert "takes" not in str(summary)


def test_a_convolution_network_has_the_shapes_and_parameters_of_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    nn = torch.nn
    network = xpnet.cnn((3, 17, 14), [[8, 8], 12], [20], 5, kernel=[[3, 1], 5], stride=[[2, 1], 1],
                        padding=[[1, 0], 2])  # fmt: skip
    theirs = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(8, 12, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
        nn.Linear(12 * 2 * 1, 20), nn.ReLU(), nn.Linear(20, 5),
    )  # fmt: skip
    x, shapes = torch.zeros(2, 3, 17, 14), []
    for layer in theirs:
        x = layer(x)
        shapes.append(("N", *x.shape[1:]))
    summary = network.summary()
    assert [layer.output for layer in summary.layers[1:]] == shapes
    assert summary.parameters == sum(p.numel() for p in theirs.parameters())
    kinds = [layer.kind for layer in summary.layers if layer.kind.startswith("Conv")]
    assert kinds == [
        "Convolution(kernel=3, stride=2, padding=1)", "Convolution(kernel=1)",
        "Convolution(kernel=5, padding=2)",
    ]  # fmt: skip


def test_filters_that_are_no_parameter_have_no_size() -> None:
    graph = Graph()
    x, t, W = graph.inputs("x t W")
    y = functions.flatten(functions.convolution(x, W * W, stride=(1, 2)))
    loss = functions.softmax_with_loss(y, t)
    network = Network(graph, {"W": np.ones((4, 1, 2, 2))}, y, loss, input_shape=(1, 2, 3))
    assert network.summary().layers[2].kind == "Convolution(stride=(1, 2))"
    assert network.first_weights is None


def test_whole_numbers_as_input() -> None:
    graph = Graph()
    x, t, table = graph.inputs("x t table")
    y = graph.apply(gates.Gather(), table, x)
    loss = graph.apply(losses.SoftmaxWithLoss(), y, t)
    network = Network(graph, {"table": np.ones((9, 3))}, y, loss, outputs=3)
    summary = network.summary()
    assert outputs(summary) == {"x": None, "Gather1": None}
    assert "input_shape=" in dict(summary.facts)["shapes"]
    summary = dataclasses.replace(network, input_shape=()).summary()
    assert outputs(summary) == {"x": ("N",), "Gather1": ("N", 3)}
    assert "(N,)" in str(summary)
    assert counts(summary)["Gather1"] == 27


class Moody:
    """A gate of a user's own that fails as no gate of ours does, after a warning."""

    def forward(self, x: Any) -> Any:
        np.log(np.zeros(1))
        raise AttributeError("no zeros, please")

    def backward(self, cache: Any, dout: Any, needs: Any) -> Any: ...


def test_a_gate_that_refuses_leaves_the_shapes_out() -> None:
    graph = Graph()
    x, t, W, b = graph.inputs("x t W b")
    y = functions.affine(graph.apply(Moody(), x), W, b)
    loss = graph.apply(losses.SoftmaxWithLoss(), y, t)
    params = {"W": np.ones((3, 2)), "b": np.ones(2)}
    summary = Network(graph, params, y, loss, outputs=2, input_shape=(3,)).summary()
    assert set(outputs(summary).values()) == {None}
    assert counts(summary)["Affine1"] == 8
    assert dict(summary.facts)["shapes"] == "unknown: a gate refuses a batch of zeros"


def test_a_network_that_is_its_input() -> None:
    graph = Graph()
    x, t = graph.inputs("x t")
    network = Network(graph, {}, x, graph.apply(losses.SquaredLoss(), x, t), input_shape=(2,))
    assert network.summary().parameters == 0
    assert "input" in str(network.summary())


# -- As text ---------------------------------------------------------------------------


def test_the_text_of_a_chain_and_of_a_graph() -> None:
    assert str(xpnet.mlp([784, 512, 10]).summary()).splitlines() == [
        "layer    kind    output    parameters",
        "-------  ------  --------  ----------",
        "x        input   (N, 784)",
        "Affine1  Affine  (N, 512)     401,920",
        "ReLU1    ReLU    (N, 512)           0",
        "Affine2  Affine  (N, 10)        5,130",
        "",
        "parameters  407,050",
        "loss        softmax",
    ]
    lines = str(residual().summary()).splitlines()
    assert lines[0].split() == ["layer", "kind", "takes", "output", "parameters"]
    assert lines[6] == "Add1     Add     Affine2, x  (N, 4)           0"


def test_repr_is_the_text_as_a_prompt_shows_it() -> None:
    summary = Model(residual()).summary()
    assert repr(summary) == str(summary)


class Cells(HTMLParser):
    """The rows of all tables; what is open at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_html_says_the_same_and_escapes() -> None:
    names = ["<b>1</b>", "a & b", '"', "<script>alert(1)</script>"]
    summary = Model(residual(), classes=names, columns=names).summary()
    html = summary._repr_html_()
    cells = Cells()
    cells.feed(html)
    assert not cells.open
    assert "<script" not in html
    assert "<b>" not in html
    table = summary.table()
    assert [tuple(row) for row in cells.rows] == [table.header, *table.rows, *summary.facts]


def test_names_cannot_break_a_line_or_fill_the_screen() -> None:
    graph = Graph()
    x, t, W, b = graph.inputs("x t W b")
    y = graph.apply(layers.Affine(), x, W, b, name="A" * 500)
    loss = graph.apply(losses.SoftmaxWithLoss(), y, t)
    network = Network(graph, {"W": np.ones((2, 2)), "b": np.ones(2)}, y, loss, outputs=2)
    lines = str(Model(network, classes=["a\nb", "\x1b[31m"]).summary()).splitlines()
    assert max(len(line) for line in lines) < 200
    assert all(line.isprintable() for line in lines)
    assert len(lines) == len(str(Model(network).summary()).splitlines()) + 1


# -- What else is in use ---------------------------------------------------------------


def facts(of: Model | Trainer) -> dict[str, str]:
    return dict(of.summary().facts)


def test_facts_of_a_model() -> None:
    model = Model(xpnet.mlp([3, 2]), dtype="float64", classes=["no", "yes"], threshold=0.3)
    found = facts(model)
    assert found["parameters"] == "8 (64 bytes in float64)"
    assert found["loss"] == "softmax"
    assert found["classes"] == "no, yes"
    assert found["threshold"].startswith("0.3")
    assert "uint8" in found["scaling"]
    assert found["backend"] == str(model.backend)
    assert "encoder" not in found


def test_facts_of_scalings() -> None:
    x = np.random.default_rng(0).normal(5.0, 2.0, (50, 3))
    model = Model(
        xpnet.mlp([3, 1], loss="squared"), scaling=standardize(x),
        target_scaling=Scaling(20.0, 0.5), columns=["a", "b", "c"],
    )  # fmt: skip
    found = facts(model)
    assert found["targets"] == "(t - 20) · 0.5"
    assert found["scaling"].startswith("(x - [")
    assert found["features"] == "a, b, c"
    wide = Model(xpnet.mlp([64, 2]), scaling=standardize(np.random.default_rng(0).random((9, 64))))
    assert facts(wide)["scaling"] == "(x - shift) · scale, for each of 64 values its own"


def test_facts_of_an_encoder() -> None:
    size = Column("size", np.array([1.0, np.nan, 3.0]))
    colour = Column("colour", values=("red", "blue"), codes=np.array([0, 1, 0], np.int32))
    encoder = Encoder.of(Table((size, colour)))
    model = Model(xpnet.mlp([encoder.width, 2]), encoder=encoder)
    assert facts(model)["encoder"] == "from 2 columns to 4 features: size, colour"


def test_facts_of_a_trainer() -> None:
    x, t = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2
    trainer = Trainer(xpnet.mlp([3, 2]), optim.Adam(0.005), weight_decay=0.1, clip_norm=2.0)
    assert facts(trainer)["optimizer"] == "Adam(lr=0.005), weight decay 0.1, gradients clipped to 2"
    assert "trained" not in facts(trainer)
    trainer.fit(x, t, epochs=3, batch_size=10)
    assert facts(trainer)["trained"] == "3 epochs, 12 steps"
    assert list(facts(trainer))[-1] == "backend"
    model = facts(trainer.model)
    assert {name: facts(trainer)[name] for name in model} == model


def test_what_the_first_fit_finds_is_not_said_before_it() -> None:
    x = np.random.default_rng(0).normal(5.0, 2.0, (40, 3))
    trainer = Trainer(xpnet.mlp([3, 1], loss="squared"))
    before = facts(trainer)
    assert before["scaling"] == "found by the first fit"
    assert before["targets"] == "scaling found by the first fit"
    assert before["optimizer"] == "AdamW, by the size of the data"
    trainer.fit(x, x.sum(axis=1), epochs=1)
    assert facts(trainer)["scaling"] == trainer.feed.scaling.in_words("x")  # type: ignore[union-attr]
    assert facts(trainer)["targets"] == trainer.feed.target_scaling.in_words("t")  # type: ignore[union-attr]
    assert facts(trainer)["optimizer"].startswith("AdamW(lr=Cosine(")
    plain = Trainer(xpnet.mlp([3, 2]), scaling=None)
    assert facts(plain)["scaling"] == facts(plain.model)["scaling"]
    assert "targets" not in facts(plain)


@pytest.mark.parametrize("library", ["torch", "jax", "strict"])
def test_summaries_on_other_libraries(library: str) -> None:
    names = {"strict": "array_api_strict"}
    pytest.importorskip(names.get(library, library), reason=f"{library} is not installed")
    model = Model(xpnet.mlp([4, 3, 2]), backend=xpnet.select("cpu", library))
    assert outputs(model.summary()) == outputs(Model(xpnet.mlp([4, 3, 2])).summary())
    assert facts(model)["backend"].startswith(library)


def test_a_loaded_model_has_the_same_summary(tmp_path: Any) -> None:
    model = Model(xpnet.mlp([4, 3, 2], dropout=0.1), classes=["a", "b"])
    model.save(tmp_path / "m.npz")
    assert Model.load(tmp_path / "m.npz").summary() == model.summary()


# -- Words -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (layers.ReLU(), "ReLU"),
        (layers.Affine(), "Affine"),
        (layers.LeakyReLU(0.2), "LeakyReLU(alpha=0.2)"),
        (layers.Dropout(0.3, seed=5, layer=2), "Dropout(ratio=0.3)"),
        (layers.Convolution(), "Convolution(stride=1)"),
        (layers.Convolution(1, (1, 2), 3), "Convolution(stride=1, padding=(1, 2), dilation=3)"),
        (layers.MaxPool(), "MaxPool(size=2)"),
        (layers.MaxPool((2, 3)), "MaxPool(size=(2, 3))"),
        (layers.AveragePool(3, 2, padding=1), "AveragePool(size=3, stride=2, padding=1)"),
        (layers.BatchNorm(0.99, 1e-3), "BatchNorm(momentum=0.99, eps=0.001)"),
        (layers.GlobalAveragePool(), "GlobalAveragePool"),
        (optim.SGD(), "SGD(lr=0.01)"),
        (optim.Adam(0.1, beta2=0.99), "Adam(lr=0.1, beta2=0.99)"),
        (optim.SGD(optim.cosine(0.1, 100)), "SGD(lr=Cosine(lr=0.1, steps=100, end=0))"),
        (optim.SGD(lambda k: 0.1), "SGD(lr=<lambda>)"),
        (Moody(), "Moody"),
        (None, "NoneType"),
    ],
)
def test_gates_and_rules_in_words(thing: Any, words: str) -> None:
    assert in_words(thing) == words


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("softmax", "softmax"),
        (("quantile", {"quantile": 0.9}), "quantile (0.9)"),
        (("huber", {"delta": 2.0}), "huber (delta 2)"),
        (losses.SoftmaxWithLoss("sum"), "softmax (reduction 'sum')"),
    ],
)
def test_losses_in_words(loss: Any, words: str) -> None:
    assert loss_in_words(xpnet.mlp([3, 2], loss=loss).loss_gate) == words


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (8, "32 bytes"),
        (255, "1020 bytes"),
        (256, "1.0 KiB"),
        (407_050, "1.6 MiB"),
        (2**40, "4096.0 GiB"),
    ],
)
def test_sizes(numbers: int, words: str) -> None:
    assert sized(numbers, "float32") == f"{numbers:,} ({words} in float32)"
