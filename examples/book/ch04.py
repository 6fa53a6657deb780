"""Chapter 4: gradients, gradient descent, and a network of two layers that learns MNIST.

    python examples/book/ch04.py --out pictures --mnist FOLDER

Draws the gradients of x0² + x1² and where gradient descent goes at three learning rates; checks
the gradients of the network against numerical ones; trains it as the book does, 10,000 batches of
100. That takes half a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from chapter import Part, Size, accuracies, arguments, load, panels, save

from xpnet.book.ch04 import TwoLayerNet
from xpnet.book.gradient import numerical_gradient, numerical_gradient_2d
from xpnet.book.util import smooth_curve

SIZES = {
    "iterations": Size(10_000, 2000, "batches of the training"),
}
BATCH_SIZE = 100
LEARNING_RATE = 0.1


def function_2(x: np.ndarray) -> np.ndarray:
    """x0² + x1², of one point or of many rows."""
    return np.asarray(np.sum(x**2, axis=-1))


def gradient_field(options: argparse.Namespace) -> None:
    """Arrows against the gradient: the way that the function falls most steeply."""
    grid = np.arange(-2, 2.25, 0.25)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    grad = numerical_gradient_2d(function_2, points)

    figure, axes = panels(size=(5, 4.6))
    ax = axes[0, 0]
    ax.quiver(points[:, 0], points[:, 1], -grad[:, 0], -grad[:, 1], angles="xy", color="0.35")
    ax.set(xlabel="$x_0$", ylabel="$x_1$", aspect="equal", title="$-\\nabla(x_0^2 + x_1^2)$")
    save(figure, options, "ch04_gradient")


def descent(options: argparse.Namespace) -> float:
    """Twenty steps from (-3, 4) at three learning rates; the distance that 0.1 ends at."""
    paths = {lr: gradient_descent(np.array([-3.0, 4.0]), lr, 20) for lr in (0.01, 0.1, 0.95)}

    figure, axes = panels(1, 3, (3.6, 3.9))
    x0, x1 = np.meshgrid(np.linspace(-5, 5, 101), np.linspace(-5, 5, 101))
    heights = function_2(np.stack([x0, x1], axis=-1))
    for ax, (lr, path) in zip(axes[0], paths.items(), strict=True):
        ax.contour(x0, x1, heights, np.arange(0.5, 5.5) ** 2, colors="0.8")
        ax.plot(*path.T, "o-", color="#0072b2", markersize=4, linewidth=1)
        ax.plot(0, 0, "k+", markersize=10)
        ax.set(xlabel="$x_0$", aspect="equal", title=f"learning rate {lr}")
    axes[0, 0].set_ylabel("$x_1$")
    save(figure, options, "ch04_descent")
    return float(np.linalg.norm(paths[0.1][-1]))


def gradient_descent(x: np.ndarray, lr: float, step_num: int) -> np.ndarray:
    """The points from x on, each a step against the gradient at the one before."""
    path = [x]
    for _ in range(step_num):
        path.append(path[-1] - lr * numerical_gradient(function_2, path[-1]))
    return np.array(path)


def gradient_check(part: Part) -> float:
    """Backpropagation against numerical gradients on three images; the largest mean difference."""
    x_batch, t_batch = part[0][:3], part[1][:3]
    network = TwoLayerNet(input_size=x_batch.shape[1], hidden_size=50, output_size=10)
    grad_numerical = network.numerical_gradient(x_batch, t_batch)
    grad_backprop = network.gradient(x_batch, t_batch)
    return max(
        float(np.mean(np.abs(grad_backprop[key] - grad_numerical[key]))) for key in grad_numerical
    )


def train(train: Part, test: Part, iters_num: int) -> tuple[list[float], list[float], list[float]]:
    """The chapter's loop: the loss of each batch, both accuracies once an epoch."""
    x_train, t_train = train
    network = TwoLayerNet(input_size=x_train.shape[1], hidden_size=50, output_size=10)
    iter_per_epoch = max(len(x_train) // BATCH_SIZE, 1)
    train_loss_list, train_acc_list, test_acc_list = [], [], []
    for i in range(iters_num):
        batch_mask = np.random.choice(len(x_train), BATCH_SIZE)
        x_batch, t_batch = x_train[batch_mask], t_train[batch_mask]
        grad = network.gradient(x_batch, t_batch)
        for key in ("W1", "b1", "W2", "b2"):
            network.params[key] -= LEARNING_RATE * grad[key]
        train_loss_list.append(float(network.loss(x_batch, t_batch)))
        if i % iter_per_epoch == 0:
            train_acc_list.append(float(network.accuracy(*train)))
            test_acc_list.append(float(network.accuracy(*test)))
    return train_loss_list, train_acc_list, test_acc_list


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    options = arguments(__doc__, argv, SIZES)
    np.random.seed(0)
    gradient_field(options)
    distance = descent(options)
    print(f"gradient descent at lr 0.1 ends {distance:.3f} from the minimum")

    parts = load(options, one_hot_label=True)
    difference = gradient_check(parts[0])
    print(f"gradient check: largest mean difference {difference:.1e}")

    losses, train_acc, test_acc = train(*parts, options.iterations)
    figure, axes = panels(1, 2)
    axes[0, 0].plot(losses, color="0.8", label="of each batch")
    axes[0, 0].plot(smooth_curve(np.array(losses)), color="#0072b2", label="smoothed")
    axes[0, 0].set(xlabel="iteration", ylabel="loss", ylim=(0, None), title="loss")
    axes[0, 0].legend()
    accuracies(axes[0, 1], train_acc, test_acc, "accuracy")
    save(figure, options, "ch04_training")
    print(f"accuracy: training {train_acc[-1]:.4f}, test {test_acc[-1]:.4f}")
    return {
        "distance": distance,
        "gradient check": difference,
        "first loss": losses[0],
        "last loss": float(np.mean(losses[-50:])),
        "training accuracy": train_acc[-1],
        "test accuracy": test_acc[-1],
    }


if __name__ == "__main__":
    main()
