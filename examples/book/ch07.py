"""Chapter 7: a convolution network, and what its filters look for.

    python examples/book/ch07.py --out pictures --mnist FOLDER

Checks the gradients of SimpleConvNet on a small image; trains it with Adam for 20 epochs on 5,000
images, a minute; shows the filters before and after, and what the strongest make of a digit. The
book takes all 60,000 images: --images 60000, a quarter of an hour.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from chapter import Part, Size, accuracies, arguments, images, load, panels, save
from matplotlib.figure import Figure

from xpnet.book.ch07 import SimpleConvNet
from xpnet.book.layers import Convolution
from xpnet.book.trainer import Trainer

SIZES = {
    "images": Size(5000, 600, "training images"),
    "epochs": Size(20, 4, "epochs of the training"),
    "filters": Size(30, 10, "filters of the network"),
}

# Large where there is more ink below than above; turned, where there is more on the right.
SOBEL = np.array([[-1.0, -2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]])


def gradient_check() -> float:
    """Backpropagation against numerical gradients on one image; the largest mean difference."""
    network = SimpleConvNet(
        input_dim=(1, 10, 10),
        conv_param={"filter_num": 10, "filter_size": 3, "pad": 0, "stride": 1},
        hidden_size=10,
        output_size=10,
        weight_init_std=0.1,  # with 0.01, a difference of 1e-4 would cross the kinks of ReLU
    )
    x, t = np.random.rand(1, 1, 10, 10), np.array([1])
    grad_num, grad = network.numerical_gradient(x, t), network.gradient(x, t)
    return max(float(np.mean(np.abs(grad_num[key] - grad[key]))) for key in grad_num)


def train(options: argparse.Namespace, train: Part, test: Part) -> tuple[SimpleConvNet, Trainer]:
    """Train with Adam; accuracies of 1,000 images of each part, once an epoch."""
    network = SimpleConvNet(
        input_dim=(1, 28, 28),
        conv_param={"filter_num": options.filters, "filter_size": 5, "pad": 0, "stride": 1},
        hidden_size=100,
        output_size=10,
        weight_init_std=0.01,
    )
    trainer = Trainer(
        network,
        train[0][: options.images],
        train[1][: options.images],
        test[0],
        test[1],
        epochs=options.epochs,
        mini_batch_size=100,
        optimizer="Adam",
        optimizer_param={"lr": 0.001},
        evaluate_sample_num_per_epoch=1000,
        verbose=False,
    )
    return network, trainer


def draw_filters(options: argparse.Namespace, before: np.ndarray, after: np.ndarray) -> None:
    """The filters of the first layer, dark where a weight is large."""
    rows = -(-len(before) // 6)
    figure = Figure((7.4, 0.5 + 0.58 * rows), layout="constrained")
    blocks: Any = figure.subfigures(1, 2, wspace=0.06)
    for block, name, filters in zip(blocks, ("before", "after"), (before, after), strict=True):
        block.suptitle(f"filters {name} training", fontsize=10)
        images(block.subplots(rows, 6, squeeze=False), list(filters[:, 0]))
    save(figure, options, "ch07_filters")


def apply_filters(options: argparse.Namespace, filters: np.ndarray, image: np.ndarray) -> None:
    """Two filters for edges by hand and the strongest learned ones, on one digit."""
    found = []
    for name, w in (("horizontal edges", SOBEL), ("vertical edges", SOBEL.T)):
        found.append((name, w, convolve(image, w)))
    learned = [(f"filter {i}", w[0], convolve(image, w[0])) for i, w in enumerate(filters)]
    learned.sort(key=lambda row: row[2].std(), reverse=True)
    found += learned[:5]

    figure, axes = panels(2, 1 + len(found), (1.5, 1.6))
    images(axes[:, 0], [image], ["the digit"])
    images(axes[0, 1:], [w for _, w, _ in found], [name for name, _, _ in found])
    images(axes[1, 1:], [out for _, _, out in found])
    save(figure, options, "ch07_filtered")


def convolve(image: np.ndarray, w: np.ndarray) -> np.ndarray:
    """One filter without bias on one grey image."""
    conv_layer = Convolution(w[None, None], np.zeros(1))
    return np.asarray(conv_layer.forward(image[None, None])[0, 0])


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    options = arguments(__doc__, argv, SIZES)
    np.random.seed(0)
    difference = gradient_check()
    print(f"gradient check: largest mean difference {difference:.1e}")

    parts = load(options, flatten=False)
    network, trainer = train(options, *parts)
    before = network.params["W1"].copy()
    trainer.train()
    figure, axes = panels()
    accuracies(axes[0, 0], trainer.train_acc_list, trainer.test_acc_list, "SimpleConvNet")
    save(figure, options, "ch07_training")
    draw_filters(options, before, network.params["W1"])
    apply_filters(options, network.params["W1"], parts[1][0][0, 0])

    test_acc = float(network.accuracy(*parts[1]))
    print(f"accuracy: training {trainer.train_acc_list[-1]:.4f}, test {test_acc:.4f}")
    return {
        "gradient check": difference,
        "training accuracy": float(trainer.train_acc_list[-1]),
        "test accuracy": test_acc,
    }


if __name__ == "__main__":
    main()
