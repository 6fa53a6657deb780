"""Draw the pictures of these pages, and write the tables into them.

    python docs/pictures.py [--train FOLDER_OF_THE_MNIST_FILES]

With --train, the book's 10,000 iterations and the lecture's 2,000 steps are run anew and their
curves stored in benchmarks/results; without, the stored ones are drawn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

import chapter4_table  # noqa: E402
import fc_sigmoid_fc  # noqa: E402
import layer_by_layer  # noqa: E402
import lecture4_circuits  # noqa: E402

import xpnet  # noqa: E402
from benchmarks.readme import newest  # noqa: E402
from xpnet import Graph  # noqa: E402
from xpnet.functions import affine, exp, softmax_with_loss  # noqa: E402

BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def circuits(folder: Path) -> None:
    """Every circuit of the pages, as SVG."""
    for name, make in lecture4_circuits.CIRCUITS.items():
        graph, inputs = make()
        graph.draw(folder / f"{name}.svg", inputs)

    network, batch = book()
    network.graph.draw(folder / "two_layers.svg", {**network.params, **batch})
    network.graph.draw(folder / "two_layers_expanded.svg", {**network.params, **batch}, expand=True)

    graph, values = fc_sigmoid_fc.network(), fc_sigmoid_fc.data()
    graph.draw(folder / "fc_sigmoid_fc.svg", values, expand=True)

    x, y = layer_by_layer.data()
    network = xpnet.mlp(layer_by_layer.LAYERS, layer_by_layer.ACTIVATIONS, loss="squared", seed=0)
    network.graph.draw(folder / "layer_by_layer.svg", {**network.params, "x": x, "t": y})

    rng = np.random.default_rng(0)
    deep = xpnet.mlp([784, *[100] * 9, 10], "relu")
    deep.graph.draw(folder / "ten_layers.svg", {**deep.params, **batch})

    graph = Graph()
    z = graph.input("x")
    1 / (1 + exp(-1 * z))
    graph.draw(folder / "sigmoid_chain.svg", {"x": 0.5})

    graph = Graph()
    X, W, B, t = graph.inputs("X W B t")
    softmax_with_loss(affine(X, W, B), t)
    values = {
        "X": rng.standard_normal((2, 2)),
        "W": rng.standard_normal((2, 3)),
        "B": np.zeros(3),
        "t": np.array([0, 2]),
    }
    graph.draw(folder / "affine_softmax.svg", values, expand=True)


def book() -> tuple[xpnet.Network, dict[str, np.ndarray]]:
    """The book's network, and a batch as examples/chapter4_table.py draws it."""
    rng = np.random.default_rng(0)
    batch = {"x": rng.random((100, 784)), "t": np.eye(10)[rng.integers(0, 10, 100)]}
    return xpnet.two_layer_net(784, 50, 10), batch


def table() -> str:
    """The table of variables, in Markdown."""
    network, batch = book()
    return xpnet.explain(network, batch["x"], batch["t"]).markdown()


def train(mnist: Path) -> None:
    """Run the two trainings, and store their curves."""
    import chapter5_layers

    from benchmarks.machine import record as machine_record

    accuracies = chapter5_layers.train(*chapter5_layers.load_mnist(mnist))
    losses = lecture4_circuits.twenty_lines()
    record = {
        "machine": (machine := machine_record()),
        "book": {"every": 600, "accuracies": accuracies},
        "lecture": {"losses": losses},
    }
    path = ROOT / f"benchmarks/results/documents-{machine['date']}.json"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")


def curves(folder: Path, record: dict[str, Any]) -> None:
    """The stored curves."""
    from matplotlib.figure import Figure

    def draw(name: str, plot: Callable[[Any], None]) -> None:
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        plot(axes)
        axes.grid(alpha=0.3)
        figure.savefig(folder / f"{name}.png", dpi=120)

    def book(axes: Any) -> None:
        train, test = zip(*record["book"]["accuracies"], strict=True)
        iterations = np.arange(len(train)) * record["book"]["every"]
        axes.plot(iterations, train, marker="o", markersize=3, label="train")
        axes.plot(iterations, test, "--", marker="s", markersize=3, label="test")
        axes.set_xlabel("iteration")
        axes.set_ylabel("accuracy")
        axes.set_ylim(0, 1)
        axes.legend(loc="lower right")

    def lecture(axes: Any) -> None:
        axes.semilogy(record["lecture"]["losses"])
        axes.set_xlabel("step")
        axes.set_ylabel("loss")

    draw("chapter5_accuracy", book)
    draw("twenty_lines", lecture)


def main() -> int:
    if "--train" in sys.argv:
        train(Path(sys.argv[sys.argv.index("--train") + 1]))
    circuits(DOCS / "img")
    curves(DOCS / "img", newest("documents"))
    page = DOCS / f"{chapter4_table.__name__}.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(before + BEGIN + table() + END + rest.split(END)[1], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
