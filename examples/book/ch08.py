"""Chapter 8: a deep convolution network, its mistakes, and half precision.

    python examples/book/ch08.py --out pictures --mnist FOLDER

Trains DeepConvNet, with six convolutions and dropout, for 8 epochs on 10,000 images: four
minutes. Then shows test images that the network gets wrong, and rounds its parameters to float16.
The book takes all 60,000 images and 20 epochs: --images 60000 --epochs 20, about an hour.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from chapter import Part, Size, accuracies, arguments, images, load, panels, save

from xpnet.book.ch08 import DeepConvNet
from xpnet.book.functions import softmax
from xpnet.book.trainer import Trainer

SIZES = {
    "images": Size(10_000, 200, "training images"),
    "epochs": Size(8, 4, "epochs of the training"),
    "batch_size": Size(100, 20, "images of a batch"),
    "evaluated": Size(1000, 100, "images of each part whose accuracy is taken each epoch"),
}


def train(options: argparse.Namespace, train: Part, test: Part) -> tuple[DeepConvNet, Trainer]:
    """Train with Adam; accuracies of some images of each part, once an epoch."""
    network = DeepConvNet()
    trainer = Trainer(
        network,
        train[0][: options.images],
        train[1][: options.images],
        test[0],
        test[1],
        epochs=options.epochs,
        mini_batch_size=options.batch_size,
        optimizer="Adam",
        optimizer_param={"lr": 0.001},
        evaluate_sample_num_per_epoch=options.evaluated,
        verbose=False,
    )
    trainer.train()
    return network, trainer


def probabilities(network: DeepConvNet, x: np.ndarray) -> np.ndarray:
    """Softmax of the scores, in batches of 100 images."""
    scores = [network.predict(x[i : i + 100], train_flg=False) for i in range(0, len(x), 100)]
    p: np.ndarray = softmax(np.concatenate(scores))
    return p


def draw_mistakes(options: argparse.Namespace, test: Part, p: np.ndarray) -> None:
    """The first twenty test images that the network gets wrong, with label and answer."""
    x_test, t_test = test
    answers = p.argmax(axis=1)
    wrong = np.flatnonzero(answers != t_test)[:20]
    figure, axes = panels(4, 5, (1.35, 1.5))
    titles = [f"label {t_test[i]}, answer {answers[i]}" for i in wrong]
    images(axes, [x_test[i, 0] for i in wrong], titles)
    save(figure, options, "ch08_mistakes")


def round_to_half(network: DeepConvNet) -> None:
    """Keep each parameter's array, with values that float16 can hold."""
    for param in network.params.values():
        param[...] = param.astype(np.float16)


def draw_half(options: argparse.Namespace, full: np.ndarray, half: np.ndarray) -> None:
    """How far the rounding moves the probability of each answer."""
    rows, answers = np.arange(len(full)), full.argmax(axis=1)
    moved = np.abs(half[rows, answers] - full[rows, answers])
    figure, axes = panels(size=(5.2, 3.3))
    bins = np.logspace(-10, 0, 41)
    axes[0, 0].hist(np.clip(moved, 1e-10, 1), bins, color="0.4")
    axes[0, 0].set(
        xscale="log",
        xlabel="change of the answer's probability",
        ylabel="test images",
        title="parameters rounded to float16",
    )
    save(figure, options, "ch08_half_precision")


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    options = arguments(__doc__, argv, SIZES)
    np.random.seed(0)
    parts = load(options, flatten=False)
    x_test, t_test = parts[1]
    network, trainer = train(options, *parts)
    figure, axes = panels()
    accuracies(axes[0, 0], trainer.train_acc_list, trainer.test_acc_list, "DeepConvNet")
    save(figure, options, "ch08_training")

    full = probabilities(network, x_test)
    draw_mistakes(options, parts[1], full)
    round_to_half(network)
    half = probabilities(network, x_test.astype(np.float16))
    draw_half(options, full, half)

    results = {
        "training accuracy": float(trainer.train_acc_list[-1]),
        "test accuracy": float((full.argmax(axis=1) == t_test).mean()),
        "test accuracy in half precision": float((half.argmax(axis=1) == t_test).mean()),
        "answers that change": float((half.argmax(axis=1) != full.argmax(axis=1)).sum()),
    }
    for name, value in results.items():
        print(f"{name}: {value:.4g}")
    return results


if __name__ == "__main__":
    main()
