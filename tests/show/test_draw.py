"""Pictures of graphs: what they say, and that nothing in them overlaps or is cut off."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import Library

import xpnet
from xpnet import functions as fn
from xpnet import gates
from xpnet.graph import Graph
from xpnet.show.draw import picture
from xpnet.show.notes import NOTES

SVG = "{http://www.w3.org/2000/svg}"
RNG = np.random.default_rng(0)
CHARACTER = 0.602 * 13  # DejaVu Sans Mono at 13 pixels
Inputs = dict[str, Any]


class Rect(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float
    what: str

    def meets(self, other: Rect) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def holds(self, other: Rect) -> bool:
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )


class Parsed(NamedTuple):
    page: Rect
    texts: list[Rect]
    boxes: list[Rect]
    wires: list[list[tuple[float, float]]]


def _points(path: str) -> list[tuple[float, float]]:
    """A wire's path as many points, two pixels apart at the most."""
    x = y = 0.0
    corners: list[tuple[float, float]] = []
    for letter, numbers in re.findall(r"([MHVLC])([^MHVLC]*)", path):
        n = [float(v) for v in re.findall(r"-?[\d.]+", numbers)]
        if letter == "C":
            for s in np.linspace(0, 1, 30):
                weights = [(1 - s) ** 3, 3 * s * (1 - s) ** 2, 3 * s**2 * (1 - s), s**3]
                corners.append(tuple(np.dot(weights, [[x, y], *np.reshape(n, (3, 2))])))
            x, y = n[4:]
        else:
            x, y = {"H": (n[0], y), "V": (x, n[0])}.get(letter, (n[0], n[-1]))
        corners.append((x, y))
    points = corners[:1]
    for a, b in pairwise(corners):
        steps = max(1, int(np.hypot(b[0] - a[0], b[1] - a[1]) / 2))
        points += [
            (a[0] + (b[0] - a[0]) * k / steps, a[1] + (b[1] - a[1]) * k / steps)
            for k in range(1, steps + 1)
        ]
    return points


def parse(svg: str) -> Parsed:
    root = ET.fromstring(svg)
    page = Rect(0, 0, float(root.get("width", 0)), float(root.get("height", 0)), "page")
    texts, boxes = [], []
    for text in root.iter(SVG + "text"):
        x, y, words = float(text.get("x", 0)), float(text.get("y", 0)), text.text or ""
        wide = CHARACTER * len(words)
        left = x if "start" in text.get("style", "") else x - wide / 2
        texts.append(Rect(left, y - 9.5, left + wide, y + 2.5, words.replace("\xa0", " ")))
    for rect in root.iter(SVG + "rect"):
        if rect.get("class"):
            x, y, w, h = (float(rect.get(k, 0)) for k in ("x", "y", "width", "height"))
            boxes.append(Rect(x, y, x + w, y + h, rect.get("class", "")))
    wires = [_points(path.get("d", "")) for path in root.iter(SVG + "path")]
    return Parsed(page, texts, boxes, wires)


def assert_legible(svg: str) -> Parsed:
    """Nothing overlaps, nothing is cut off, no wire runs through a word or a foreign box."""
    page, texts, boxes, wires = parsed = parse(svg)
    for thing in [*texts, *boxes]:
        assert page.holds(thing), thing
    for a, b in [*combinations(texts, 2), *combinations(boxes, 2)]:
        assert not a.meets(b), (a, b)
    for text in texts:
        for box in boxes:
            assert box.holds(text) or not box.meets(text), (text, box)
    for wire in wires:
        for x, y in wire:
            assert page.left <= x <= page.right
            assert page.top <= y <= page.bottom
            for text in texts:
                inside = text.left < x < text.right and text.top < y < text.bottom
                assert not inside, (text, x, y)
        for x, y in wire[3:-3]:  # its ends touch its source and its target
            for box in boxes:
                # a gate's corners are round, so a wire may meet the frame around it
                rim = 12 if box.what == "gate" else 1
                inside = (
                    box.left + rim < x < box.right - rim and box.top + rim < y < box.bottom - rim
                )
                assert not inside, (box, x, y)
    return parsed


def lecture() -> tuple[Graph, Inputs]:
    graph = Graph()
    x, y, z = graph.inputs("x y z")
    (x + y) * z
    return graph, {"x": -2, "y": 5, "z": -4}


def neuron() -> tuple[Graph, Inputs]:
    graph = Graph()
    w0, x0, w1, x1, w2 = graph.inputs("w0 x0 w1 x1 w2")
    1 / (1 + fn.exp(-1 * (w0 * x0 + w1 * x1 + w2)))
    return graph, {"w0": 2, "x0": -1, "w1": -3, "x1": -2, "w2": -3}


def svm() -> tuple[Graph, Inputs]:
    graph = Graph()
    x, W1, W2, t = graph.inputs("x W1 W2 t")
    s = fn.relu(x @ W1) @ W2
    margins = fn.maximum(0, s - fn.reshape(fn.pick(s, t), (-1, 1)) + 1)
    regularizer = 0.1 * (fn.sum(W1 * W1) + fn.sum(W2 * W2))
    fn.mean(fn.sum(margins, axis=1) - 1) + regularizer
    shapes = {"x": (6, 4), "W1": (4, 5), "W2": (5, 3)}
    return graph, {
        **{name: RNG.standard_normal(shape) for name, shape in shapes.items()},
        "t": np.array([0, 1, 2, 0, 1, 2]),
    }


def mlp(*sizes: int, **options: Any) -> tuple[Graph, Inputs]:
    network = xpnet.mlp(sizes, **options)
    inputs = {"x": RNG.random((100, sizes[0])), "t": RNG.integers(0, sizes[-1], 100)}
    return network.graph, {**network.params, **inputs}


def fan() -> tuple[Graph, Inputs]:
    graph = Graph()
    x = graph.input("x")
    total = x
    for i in range(12):
        total = total + fn.tanh(x * (i + 1))
    return graph, {"x": 0.1}


def alone() -> tuple[Graph, Inputs]:
    graph = Graph()
    graph.input("x")
    return graph, {"x": 3.0}


def odd_words() -> tuple[Graph, Inputs]:
    graph = Graph()
    a, b = graph.inputs("<script>&\"' 権重")
    graph.apply(gates.Mul(), a, b, name="a_rather_long_name_of_a_product")
    return graph, {a.name: np.float64("nan"), b.name: -1.2345678e-300}


def late_input() -> tuple[Graph, Inputs]:
    """A layer in one box, one of whose later gates needs what comes after its first one."""
    graph = Graph()
    x, W, c = graph.inputs("x W c")
    fn.affine(x, W, fn.tanh(c))
    return graph, {"x": np.ones((2, 3)), "W": np.ones((3, 4)), "c": np.ones(4)}


def dropped() -> tuple[Graph, Inputs]:
    graph, inputs = mlp(6, 5, 4, 3, dropout=0.5)
    return graph, {**inputs, "step": np.array([1], np.int32)}


def cnn(**options: Any) -> tuple[Graph, Inputs]:
    """Two blocks of two convolutions; with batch normalization, in training."""
    network = xpnet.cnn((3, 8, 8), [[4, 4], [6, 6]], [9], 5, **options)
    inputs = {"x": RNG.random((10, 3, 8, 8)), "t": RNG.integers(0, 5, 10)}
    step = {"step": np.array([1], np.int32)} if options else {}
    return network.graph, {**network.values, **inputs, **step}


def recurrent() -> tuple[Graph, Inputs]:
    graph = Graph()
    W, U, b, h = graph.inputs("W U b h")
    inputs: Inputs = {
        "W": np.ones((4, 5)),
        "U": np.ones((5, 5)),
        "b": np.ones(5),
        "h": np.ones((9, 5)),
    }
    for i in range(6):
        x = graph.input(f"x{i}")
        inputs[x.name] = np.ones((9, 4))
        h = fn.tanh(x @ W + h @ U + b)
    fn.sum(h)
    return graph, inputs


def rng_graph(seed: int) -> Callable[[], tuple[Graph, Inputs]]:
    def make() -> tuple[Graph, Inputs]:
        rng = np.random.default_rng(seed)
        graph = Graph()
        nodes = graph.inputs("p q r s")
        for _ in range(int(rng.integers(6, 26))):
            a, b = (nodes[-1 - min(int(rng.geometric(0.25)), len(nodes)) + 1] for _ in "ab")
            kind = rng.integers(4)
            nodes.append([lambda a, b: a + b, lambda a, b: a * b, lambda a, b: fn.tanh(a),
                          lambda a, b: fn.maximum(a, b)][kind](a, b))  # fmt: skip
        for node in nodes[:-1]:
            if not any(node.name in other.inputs for other in graph.nodes.values()):
                nodes[-1] = nodes[-1] + node
        return graph, {name: float(rng.standard_normal()) for name in "pqrs"}

    return make


GRAPHS: dict[str, Callable[[], tuple[Graph, Inputs]]] = {
    "lecture": lecture,
    "neuron": neuron,
    "svm": svm,
    "two layers": lambda: mlp(784, 50, 10),
    "ten layers": lambda: mlp(784, *[100] * 9, 10),
    "a long vector": lambda: mlp(3, 2, 2),
    "fan": fan,
    "alone": alone,
    "odd words": odd_words,
    "late input": late_input,
    "dropout": dropped,
    "cnn": cnn,
    "cnn, normalized": lambda: cnn(batch_norm=True, dropout=0.5),
    "recurrent": recurrent,
    **{f"random {seed}": rng_graph(seed) for seed in range(12)},
}


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_overlaps(name: str, expand: bool) -> None:
    graph, inputs = GRAPHS[name]()
    nodes = graph.nodes_topologically_sorted()
    bare = assert_legible(picture(nodes, expand=expand))
    full = assert_legible(picture(nodes, graph.trace(inputs), expand=expand))
    assert len(bare.boxes) == len(full.boxes)
    assert len(full.texts) > len(bare.texts)


def test_the_lecture_s_circuit_says_what_the_slide_says(in_tmp: Path) -> None:
    graph, inputs = lecture()
    graph.draw("circuit.svg", inputs)
    root = ET.parse("circuit.svg").getroot()
    words: dict[str, list[str]] = {}
    for text in root.iter(SVG + "text"):
        words.setdefault(text.get("class", ""), []).append(text.text or "")
    assert sorted(words["value"]) == sorted(["-2", "5", "3", "-4", "-12"])
    assert sorted(words["grad"]) == sorted(["-4", "-4", "-4", "3", "1"])
    assert sorted(words["name"]) == sorted(["x", "y", "z", "+", "×"])
    # values above their wire, gradients below, from left to right
    value = next(t for t in root.iter(SVG + "text") if t.text == "-12")
    grad = next(t for t in root.iter(SVG + "text") if t.text == "1")
    assert value.get("x") == grad.get("x")
    assert float(value.get("y", 0)) < float(grad.get("y", 0))
    places = {t.text: float(t.get("x", 0)) for t in root.iter(SVG + "text")}
    assert places["x"] < places["+"] < places["3"] < places["×"] < places["-12"]


@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "ten layers"])
def test_rows_are_not_empty(name: str) -> None:
    """No band of a hundred pixels in which there is nothing but wires that pass, far apart."""
    graph, inputs = GRAPHS[name]()
    parsed = parse(picture(graph.nodes_topologically_sorted(), graph.trace(inputs), expand=True))
    things = sorted((r.top, r.bottom) for r in [*parsed.texts, *parsed.boxes])
    reached = things[0][1]
    for top, bottom in things:
        band = [y for wire in parsed.wires for _, y in wire if reached < y < top]
        assert top - reached < 100 + 15 * len(set(band)), (reached, top)
        reached = max(reached, bottom)


def test_fan_out_shows_the_sum() -> None:
    graph = Graph()
    x = graph.input("x")
    x * x + x
    svg = picture(graph.nodes_topologically_sorted(), graph.trace({"x": 3.0}))
    assert "Σ\xa07" in svg  # 3 + 3 + 1


def test_layers_collapse_and_expand() -> None:
    graph, inputs = mlp(784, 50, 10, activation="sigmoid", dropout=0.5)
    nodes, trace = graph.nodes_topologically_sorted(), graph.trace(inputs)
    few = parse(picture(nodes, trace))
    assert [box.what for box in few.boxes] == ["layer", "layer", "gate"]
    words = [text.what for text in few.texts]
    assert {"Affine1", "Sigmoid1", "Dropout1", "W1", "784×50", "b1"} <= set(words)
    assert "weight" not in words  # optional, and not given
    many = parse(picture(nodes, trace, expand=True))
    assert len(many.boxes) == 5


def test_a_convolution_layer_is_one_box_with_all_that_belongs_to_it() -> None:
    network = xpnet.cnn((1, 28, 28), [30], [100], kernel=5, padding=0, batch_norm=True, dropout=0.5)
    inputs = {"x": RNG.random((10, 1, 28, 28)), "t": RNG.integers(0, 10, 10)}
    inputs = {**network.values, **inputs, "step": np.array([1], np.int32)}
    nodes, trace = network.graph.nodes_topologically_sorted(), network.graph.trace(inputs)
    few = parse(picture(nodes, trace))
    assert [box.what for box in few.boxes] == ["layer", "layer", "layer", "gate"]
    first = [text.what for text in few.texts if few.boxes[0].holds(text)]
    assert [word for word in first if word[0].isupper()] == [
        "Convolution1", "BatchNorm1", "MaxPool1", "ReLU1", "Flatten1", "W1",
    ]  # fmt: skip
    assert {"30×1×5×5", "gamma1", "beta1", "mean1", "var1"} <= set(first)
    words = [text.what for text in few.texts]
    assert {"10×1×28×28", "10×4320"} <= set(words)
    assert words.count("[1]") == 2  # the step: into both layers, once each
    assert "step" not in first
    many = parse(picture(nodes, trace, expand=True))
    assert len(many.boxes) == 11


def test_one_normalized_layer_does_not_hide_the_step() -> None:
    graph = Graph()
    x, W, gamma, beta, mean, var = graph.inputs("x W gamma beta mean var")
    step = graph.input("step", optional=True)
    fn.batch_norm(fn.affine(x, W), gamma, beta, mean, var, step)
    values: Inputs = {name: np.ones(3) for name in ("gamma", "beta", "mean", "var")}
    values |= {"x": RNG.random((4, 2)), "W": np.ones((2, 3)), "step": np.array([1], np.int32)}
    parsed = parse(picture(graph.nodes_topologically_sorted(), graph.trace(values)))
    (box,) = parsed.boxes
    inside = {text.what: box.holds(text) for text in parsed.texts}
    assert inside["var"]
    assert not inside["step"]


def test_a_shared_parameter_is_not_hidden_in_one_layer() -> None:
    graph = Graph()
    x, W, b, t = graph.inputs("x W b t")
    fn.squared_loss(fn.affine(fn.tanh(fn.affine(x, W, b)), W, b), t)
    words = [text.what for text in parse(picture(graph.nodes_topologically_sorted())).texts]
    assert words.count("W") == 1
    assert "Tanh1" in words


def test_arrays_show_shape_and_norm_small_ones_their_numbers() -> None:
    graph = Graph()
    W, x = graph.inputs("W x")
    fn.squared_norm(W @ x)
    values = {"W": np.array([[0.1, 0.5], [-0.3, 0.8]]), "x": np.array([0.2, 0.4])}
    words = [t.what for t in parse(picture(list(graph.nodes.values()), graph.trace(values))).texts]
    assert {"[ 0.1  0.5]", "[-0.3  0.8]", "[0.088 0.176]", "[0.104 0.208]", "0.116"} <= set(words)
    values = {"W": np.ones((3, 100)), "x": np.ones(100)}
    words = [t.what for t in parse(picture(list(graph.nodes.values()), graph.trace(values))).texts]
    assert {"3×100", "norm 17.32", "100", "norm 10", "[100 100 100]"} <= set(words)


def test_the_norm_of_large_numbers_does_not_overflow() -> None:
    graph = Graph()
    -graph.input("x")
    svg = picture(graph.nodes_topologically_sorted(), graph.trace({"x": np.full(100, 1e200)}))
    assert "norm 1e+201" in [text.what for text in parse(svg).texts]


def test_arrays_of_every_library_are_drawn(library: Library) -> None:
    graph, inputs = mlp(6, 5, 3)
    arrays = {
        name: library.asarray(a.astype("float32") if a.dtype.kind == "f" else a)
        for name, a in inputs.items()
    }
    svg = picture(graph.nodes_topologically_sorted(), graph.trace(arrays))
    assert "100×6" in svg
    assert re.search("norm\xa0[1-9]", svg)


def test_structure_without_values(in_tmp: Path) -> None:
    graph, _ = lecture()
    graph.draw("bare.svg")
    classes = set(re.findall('<text class="([a-z]+)"', Path("bare.svg").read_text()))
    assert classes == {"name"}
    assert graph._repr_svg_() == Path("bare.svg").read_text()
    shown = graph.draw(inputs=lecture()[1])
    assert shown is not None
    graph.draw("full.svg", lecture()[1])
    assert shown._repr_svg_() == Path("full.svg").read_text()
    assert Graph()._repr_svg_() is None


def test_a_gate_without_inputs_and_an_optional_input_are_drawn() -> None:
    class Two:
        def forward(self, *inputs: Any) -> Any:
            return np.asarray(2.0), None

        def backward(self, cache: Any, dout: Any, needs: Any = ()) -> Any:
            return ()

    graph = Graph()
    graph.apply(Two(), name="two") * graph.input("x")
    parsed = assert_legible(picture(graph.nodes_topologically_sorted(), graph.trace({"x": 3.0})))
    assert {"two", "x", "6"} <= {text.what for text in parsed.texts}
    alone = Graph()
    alone.input("o", optional=True)
    assert "o" in [text.what for text in parse(picture(list(alone.nodes.values()))).texts]
    with pytest.raises(KeyError, match="input 'o' has no value"):
        alone.trace({})


@pytest.mark.parametrize(
    ("array", "norm"),
    [(np.ones((500, 500), np.float16), "500"), (np.full(100, 1e-40, np.float32), "1e-39")],
)
def test_norms_of_narrow_numbers(array: np.ndarray, norm: str) -> None:
    graph = Graph()
    -graph.input("x")
    svg = picture(graph.nodes_topologically_sorted(), graph.trace({"x": array}))
    assert f"norm {norm}" in [text.what for text in parse(svg).texts]


def test_every_elementary_gate_has_a_symbol() -> None:
    elementary = {getattr(gates, name) for name in gates.__all__}
    assert {kind for kind, note in NOTES.items() if note.symbol} == elementary - {gates.Gate}


@pytest.mark.parametrize("name", GRAPHS)
def test_dot_and_mermaid(name: str, in_tmp: Path) -> None:
    graph, inputs = GRAPHS[name]()
    graph.draw("g.dot", inputs)
    graph.draw("g.mmd", inputs)
    dot, mermaid = Path("g.dot").read_text("utf-8"), Path("g.mmd").read_text("utf-8")
    wires = dot.count(" -> ")
    assert wires == mermaid.count(" -->")
    assert wires == len(
        parse(picture(graph.nodes_topologically_sorted(), graph.trace(inputs))).wires
    )
    assert mermaid.startswith("flowchart LR\n")
    if name == "odd words":
        assert "&lt;script&gt;&amp;" in dot
        assert "<script>" not in mermaid
    if shutil.which("dot"):
        done = subprocess.run(["dot", "-Tsvg", "g.dot"], capture_output=True, check=True)
        assert done.stderr == b""


def test_graphviz_lays_out_if_it_is_asked_to(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, inputs = lecture()
    if shutil.which("dot"):
        graph.draw("g.svg", inputs, graphviz=True)
        assert "-12" in Path("g.svg").read_text()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="needs Graphviz's program dot; install it"):
        graph.draw("h.svg", inputs, graphviz=True)
    assert not Path("h.svg").exists()


def test_refused_pictures_leave_nothing(in_tmp: Path) -> None:
    graph, inputs = lecture()
    with pytest.raises(ValueError, match=re.escape("got a picture's suffix '.png'; expected .svg")):
        graph.draw("circuit.png", inputs)
    x = graph.nodes["x"]
    for _ in range(1000):
        x = -x
    with pytest.raises(ValueError, match=r"1,00\d boxes are too many to draw, 400 is the most"):
        graph.draw("circuit.svg")
    with pytest.raises(FileNotFoundError):
        graph.draw("missing/circuit.svg", output="Mul1")
    assert not list(in_tmp.iterdir())
