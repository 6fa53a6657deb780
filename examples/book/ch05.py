"""Chapter 5: layers with a forward and a backward pass, by hand and in a network.

    python examples/book/ch05.py --out pictures --mnist FOLDER

Buys two apples and three oranges through layers that multiply and add, and asks which price
changes the bill how much; checks the gradients of the network of two layers with ReLU; trains it
on 10,000 batches of 100. That takes half a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from chapter import Part, Size, accuracies, arguments, load, panels, save

import xpnet
from xpnet.book.ch05 import TwoLayerNet
from xpnet.book.layers import AddLayer, MulLayer

SIZES = {
    "iterations": Size(10_000, 600, "batches of the training"),
}
BATCH_SIZE = 100
LEARNING_RATE = 0.1

# Two apples at 100 yen and three oranges at 150 yen, with a tax of a tenth.
BASKET = {"apple": 100.0, "apple_num": 2.0, "orange": 150.0, "orange_num": 3.0, "tax": 1.1}


def buy(
    apple: float, apple_num: float, orange: float, orange_num: float, tax: float
) -> dict[str, float]:
    """The price of the basket, and how it changes with each number."""
    mul_apple_layer, mul_orange_layer, mul_tax_layer = MulLayer(), MulLayer(), MulLayer()
    add_apple_orange_layer = AddLayer()

    apple_price = mul_apple_layer.forward(apple, apple_num)
    orange_price = mul_orange_layer.forward(orange, orange_num)
    all_price = add_apple_orange_layer.forward(apple_price, orange_price)
    price = mul_tax_layer.forward(all_price, tax)

    dall_price, dtax = mul_tax_layer.backward(1)
    dapple_price, dorange_price = add_apple_orange_layer.backward(dall_price)
    dorange, dorange_num = mul_orange_layer.backward(dorange_price)
    dapple, dapple_num = mul_apple_layer.backward(dapple_price)
    found = [price, dapple, dapple_num, dorange, dorange_num, dtax]
    names = ["price", "dapple", "dapple_num", "dorange", "dorange_num", "dtax"]
    return dict(zip(names, map(float, found), strict=True))


def draw_basket(options: argparse.Namespace) -> None:
    """The same computation as a circuit: values in green, gradients in red."""
    graph = xpnet.Graph()
    apple, apple_num, orange, orange_num, tax = graph.inputs(" ".join(BASKET))
    (apple * apple_num + orange * orange_num) * tax
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "ch05_basket.svg"
    graph.draw(path, BASKET)
    print(f"wrote {path}")


def gradient_check(part: Part) -> float:
    """Backpropagation against numerical gradients on three images; the largest mean difference."""
    x_batch, t_batch = part[0][:3], part[1][:3]
    network = TwoLayerNet(input_size=x_batch.shape[1], hidden_size=50, output_size=10)
    grad_numerical = network.numerical_gradient(x_batch, t_batch)
    grad_backprop = network.gradient(x_batch, t_batch)
    worst = 0.0
    for key in grad_numerical:
        diff = np.average(np.abs(grad_backprop[key] - grad_numerical[key]))
        print(f"  {key}: {diff:.1e}")
        worst = max(worst, float(diff))
    return worst


def train(train: Part, test: Part, iters_num: int) -> tuple[list[float], list[float]]:
    """The chapter's loop; the accuracies on both parts, once an epoch."""
    x_train, t_train = train
    network = TwoLayerNet(input_size=x_train.shape[1], hidden_size=50, output_size=10)
    iter_per_epoch = max(len(x_train) // BATCH_SIZE, 1)
    train_acc_list, test_acc_list = [], []
    for i in range(iters_num):
        batch_mask = np.random.choice(len(x_train), BATCH_SIZE)
        grad = network.gradient(x_train[batch_mask], t_train[batch_mask])
        for key in ("W1", "b1", "W2", "b2"):
            network.params[key] -= LEARNING_RATE * grad[key]
        if i % iter_per_epoch == 0:
            train_acc_list.append(float(network.accuracy(*train)))
            test_acc_list.append(float(network.accuracy(*test)))
    return train_acc_list, test_acc_list


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    options = arguments(__doc__, argv, SIZES)
    np.random.seed(0)
    results = buy(**BASKET)
    print(f"the basket costs {results['price']:.0f} yen")
    print("  " + ", ".join(f"{k} {v:.4g}" for k, v in results.items() if k != "price"))
    draw_basket(options)

    parts = load(options, one_hot_label=True)
    print("gradient check, mean differences:")
    results["gradient check"] = gradient_check(parts[0])

    train_acc, test_acc = train(*parts, options.iterations)
    figure, axes = panels()
    accuracies(axes[0, 0], train_acc, test_acc, "two layers with ReLU")
    save(figure, options, "ch05_training")
    print(f"accuracy: training {train_acc[-1]:.4f}, test {test_acc[-1]:.4f}")
    return results | {"training accuracy": train_acc[-1], "test accuracy": test_acc[-1]}


if __name__ == "__main__":
    main()
