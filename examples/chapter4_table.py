"""Every variable of the book's first network, in code and in theory, from a real run.

After "深度学习入门:基于Python的理论与实现 第四章代码原理详细解析": a 784-50-10 network with
sigmoid and softmax, a batch of 100, and a table of its variables: name in the code, name in
the theory, shape, formula.
"""

from __future__ import annotations

import numpy as np

import xpnet
from xpnet.show.explain import Explanation


def main() -> Explanation:
    rng = np.random.default_rng(0)
    network = xpnet.two_layer_net(784, 50, 10)
    x = rng.random((100, 784))
    t = np.eye(10)[rng.integers(0, 10, 100)]  # one-hot, as in the book
    table = xpnet.explain(network, x, t)
    print(table)

    # The table's formulas, by hand.
    value = {row.name: row.value for row in table.variables}
    dy = (value["y"] - t) / 100
    by_hand = {
        "dy": dy,
        "grads['W2']": value["z1"].T @ dy,
        "grads['b2']": dy.sum(axis=0),
        "da1": dy @ value["W2"].T,
        "dz1": (dy @ value["W2"].T) * value["z1"] * (1 - value["z1"]),
    }
    by_hand["grads['W1']"] = x.T @ by_hand["dz1"]
    by_hand["grads['b1']"] = by_hand["dz1"].sum(axis=0)
    print()
    for name, hand in by_hand.items():
        print(f"{name:12} by hand: largest difference {np.abs(hand - value[name]).max():.1e}")
    return table


if __name__ == "__main__":
    main()
