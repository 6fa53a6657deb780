"""Draw the pictures of these pages, and write the tables into them.

    python docs/pictures.py [--train FOLDER_OF_THE_MNIST_FILES]

With --train, the book's 10,000 iterations and the lecture's 2,000 steps are run anew and their
curves stored in benchmarks/results, and the programs of examples/book run, about ten minutes;
without, the stored curves are drawn.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples"), str(ROOT / "examples/book")]

import chapter4_table  # noqa: E402
import fc_sigmoid_fc  # noqa: E402
import layer_by_layer  # noqa: E402
import lecture4_circuits  # noqa: E402

import xpnet  # noqa: E402
from benchmarks.readme import newest  # noqa: E402
from xpnet import Graph  # noqa: E402
from xpnet.data.dataset import Dataset, Scaling, select_rows  # noqa: E402
from xpnet.functions import affine, exp, softmax_with_loss  # noqa: E402
from xpnet.models.cnn import PRESETS  # noqa: E402
from xpnet.show import plots  # noqa: E402
from xpnet.show.plots.compare import Curve, compared  # noqa: E402

# The gallery: file, title, and what it shows.
GALLERY = {
    "curves.png": (
        "Learning curves",
        "Loss and accuracy of each epoch on the training and the validation part; the dotted line "
        "marks the best epoch.",
    ),
    "confusion.png": (
        "Confusion matrix",
        "How many samples of each true class got which answer, with percentages and the recall of "
        "each class.",
    ),
    "mistakes.png": (
        "Worst mistakes",
        "The images that the model got wrong, the surest mistake first.",
    ),
    "weights.png": (
        "Weights as images",
        "What each unit of the first layer looks for: red pixels raise its output, blue ones lower "
        "it.",
    ),
    "weights_colour.png": (
        "Weights of colour images",
        "The same for images of three colours: mid grey is zero, a red spot looks for red.",
    ),
    "filters.png": (
        "Filters as images",
        "What each filter of a first convolution looks for, wherever it stands: red pixels raise "
        "its output, blue ones lower it.",
    ),
    "maps.png": (
        "Feature maps",
        "What the strongest filters of each layer find in one image, place by place.",
    ),
    "activations_relu.png": (
        "Activations of ReLU layers",
        "How the outputs of the hidden units are spread, the share of zeros, and how many units "
        "are dead.",
    ),
    "activations_sigmoid.png": (
        "Activations of sigmoid layers",
        "How many outputs are saturated (shaded), where a unit hardly learns.",
    ),
    "roc.png": (
        "ROC curve",
        "The share of a class that is found against the share of false alarms, for every "
        "threshold; the dot is the model's own.",
    ),
    "precision_recall.png": (
        "Precision against recall",
        "How many alarms are right against how much is found: the better picture when the class "
        "is rare.",
    ),
    "calibration.png": (
        "Calibration",
        "Whether a probability of 0.8 comes true 8 times in 10, with 95 % intervals.",
    ),
    "predictions.png": (
        "Predicted against true values",
        "A regression's predictions, with R² and RMSE; a perfect one lies on the dashed diagonal.",
    ),
    "residuals.png": (
        "Residuals",
        "What is left of the target after the prediction: a trend or a funnel shows what the model "
        "has missed.",
    ),
    "compare.png": (
        "Runs compared",
        "The curves of several runs in one picture, as `xpnet compare --plot` draws them.",
    ),
}

# What docs/examples.md shows of the pictures that the programs of examples/book draw.
CHAPTERS = (
    "ch04_descent.png",
    "ch05_basket.svg",
    "ch06_optimizer_paths.png",
    "ch06_optimizer_losses.png",
    "ch06_activations_sigmoid.png",
    "ch06_batch_normalization.png",
    "ch06_dropout.png",
    "ch07_filters.png",
    "ch07_filtered.png",
    "ch08_mistakes.png",
)

BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def circuits(folder: Path) -> None:
    """Every circuit of the pages, as SVG."""
    for name, make in lecture4_circuits.CIRCUITS.items():
        graph, inputs = make()
        graph.draw(folder / f"{name}.svg", inputs)

    network, batch = book()
    network.graph.draw(folder / "two_layers.svg", {**network.params, **batch})
    network.graph.draw(folder / "two_layers_expanded.svg", {**network.params, **batch}, expand=True)

    rng = np.random.default_rng(0)
    network = xpnet.cnn((1, 28, 28), **PRESETS["cnn"])
    batch_of_images = {"x": rng.random((100, 1, 28, 28)), "t": rng.integers(0, 10, 100)}
    network.graph.draw(folder / "cnn.svg", {**network.values, **batch_of_images})

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


def chapters(folder: Path, mnist: Path) -> None:
    """Run the programs of the book's chapters, and keep those of their pictures that are shown."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        for name in sorted({picture.split("_")[0] for picture in CHAPTERS}):
            importlib.import_module(name).main(["--mnist", str(mnist), "--out", made])
        for picture in CHAPTERS:
            shutil.copy(Path(made, picture), folder)
    for path in folder.glob("*.png"):
        _shrink(path)


def gallery(folder: Path) -> None:
    """The gallery, from trainings of a few seconds; as with `--plot` of the command line."""
    digits, _ = xpnet.datasets.load("digits")
    runs = {}
    for activation in ("relu", "sigmoid", "tanh"):
        runs[activation] = _trained(digits, [64, 40, 20, 10], activation, 40)
    trainer, history, test = runs["relu"]
    plots.draw_all(folder, history, trainer.model, test)
    (folder / "activations.png").rename(folder / "activations_relu.png")
    trainer, _, test = runs["sigmoid"]
    plots.activations(
        trainer.model.hidden(test.x), ["sigmoid"] * 2, folder / "activations_sigmoid.png"
    )
    curves = [
        Curve(name, h.column("epoch"), h.column("val_loss"), h.column("val_score"), h.best_epoch)
        for name, (_, h, _) in runs.items()
    ]
    compared(curves, folder / "compare.png", "accuracy", "Three activations on the validation part")

    trainer, _, test = _trained(balls(), [432, 20, 4], "relu", 60, decay=3.0)
    plots.weights(trainer.model.to_host()["W1"], folder / "weights_colour.png", test)

    network = xpnet.cnn((1, 12, 12), [[16, 16], 32], [50], kernel=[[5, 3], 3], batch_norm=True)
    trainer, _, test = _trained(anywhere(), network, "relu", 20)
    plots.weights(trainer.model.to_host()["W1"], folder / "filters.png")
    plots.feature_maps(
        test.x[1].reshape(12, 12), trainer.model.hidden(test.x[1:2]), folder / "maps.png",
        f"a {test.t[1]} of digits at random places",
    )  # fmt: skip

    trainer, _, test = _trained(alarms(), [8, 20, 2], "relu", 15)
    p = trainer.predict_proba(test.x)
    (folder / "two").mkdir()
    plots.draw_scores(folder / "two", test.t, p.argmax(axis=1), p, test.classes)
    for name in ("roc.png", "precision_recall.png", "calibration.png"):
        (folder / "two" / name).replace(folder / name)
    (folder / "two" / "confusion.png").unlink()
    (folder / "two").rmdir()

    trainer, _, test = _trained(friedman(), [5, 50, 1], "tanh", 10)
    plots.draw_scores(folder, test.t, trainer.predict(test.x))
    for path in folder.iterdir():
        _shrink(path)


def _shrink(path: Path) -> None:
    """Store a large picture in 256 colours."""
    from PIL import Image  # matplotlib needs it, too

    if path.stat().st_size > 60_000:
        with Image.open(path) as picture:
            picture.convert("RGB").quantize(256).save(path, optimize=True, dpi=(120, 120))


def _trained(
    data: Dataset,
    network: list[int] | xpnet.Network,
    activation: str,
    epochs: int,
    decay: float = 0.0,
) -> tuple[xpnet.Trainer, Any, Dataset]:
    """Train a network, or an mlp of these sizes, on a half; the other half validates and tests."""
    loss = "softmax" if data.classes else "squared"
    if isinstance(network, list):
        network = xpnet.mlp(network, activation, loss=loss, seed=0)
    trainer = xpnet.Trainer(
        network,
        xpnet.optim.AdamW(0.005, decay),
        scaling=data.scaling,
        target_scaling=data.target_scaling,
    )
    order = np.random.default_rng(0).permutation(len(data))
    train, val, test = np.split(order, [len(data) // 2, 3 * len(data) // 4])
    x = data.x.reshape(len(data), -1)
    history = trainer.fit(
        x[train], data.t[train], epochs=epochs, batch_size=50, validation=(x[val], data.t[val])
    )
    return trainer, history, replace(data, x=select_rows(x, test), t=data.t[test])


def balls() -> Dataset:
    """Colour images, 12 x 12: a red, green, blue or yellow ball on a dim ground."""
    rng = np.random.default_rng(0)
    colours = np.array([[220, 50, 50], [50, 190, 70], [60, 70, 220], [210, 200, 50]])
    t = rng.integers(0, 4, 1600)
    x = rng.integers(20, 110, (1600, 12, 12, 3))
    rows, columns = np.mgrid[:12, :12]
    for image, kind in zip(x, t, strict=True):
        row, column = rng.integers(3, 9, 2)
        image[(rows - row) ** 2 + (columns - column) ** 2 < 8] = colours[kind]
    names = ("red", "green", "blue", "yellow")
    return Dataset(x.astype(np.uint8), t, names, Scaling(0.0, 1 / 255), (12, 12, 3))


def anywhere() -> Dataset:
    """The digits, each at a random place of an image of 12 x 12."""
    digits, _ = xpnet.datasets.load("digits")
    rng = np.random.default_rng(0)
    x = np.zeros((len(digits), 12, 12), np.uint8)
    for image, digit in zip(x, digits.x, strict=True):
        row, column = rng.integers(0, 5, 2)
        image[row : row + 8, column : column + 8] = digit.reshape(8, 8) * 15
    return replace(digits, x=x, image_shape=(12, 12), scaling=Scaling(0.0, 1 / 255))


def alarms() -> Dataset:
    """Two classes that overlap, the second one rare."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6000, 8))
    logit = 1.5 * x[:, 0] + x[:, 1] * x[:, 2] + np.abs(x[:, 3]) - 3.0
    t = (rng.random(6000) < 1 / (1 + np.exp(-logit))).astype(int)
    return Dataset(x, t, ("normal", "alarm"))


def friedman() -> Dataset:
    """Friedman's function of five features (1991), with noise."""
    rng = np.random.default_rng(2)
    x = rng.random((24_000, 5))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3]
    t = (y + 5 * x[:, 4] + rng.standard_normal(24_000))[:, None]
    return Dataset(x, t, target_scaling=xpnet.data.standardize(t))


def main() -> int:
    if "--train" in sys.argv:
        mnist = Path(sys.argv[sys.argv.index("--train") + 1])
        train(mnist)
        chapters(DOCS / "img/book", mnist)
    circuits(DOCS / "img")
    curves(DOCS / "img", newest("documents"))
    (DOCS / "img/gallery").mkdir(exist_ok=True)
    gallery(DOCS / "img/gallery")
    page = DOCS / f"{chapter4_table.__name__}.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(before + BEGIN + table() + END + rest.split(END)[1], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
