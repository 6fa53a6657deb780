"""The circuits of Stanford's CS231n, lecture 4, with the numbers of its slides.

After "斯坦福深度学习课程笔记(三)": (x + y) z, the sigmoid neuron, the squared norm of W x, the
multiclass SVM loss with its regularizer, the Jacobian of max(0, x), and the net in 20 lines.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import xpnet
from xpnet import Graph
from xpnet.functions import (
    exp,
    maximum,
    mean,
    pick,
    reshape,
    sigmoid,
    square,
    squared_norm,
    sum,
)
from xpnet.graph.node import Trace


def circuit() -> tuple[Graph, dict[str, float]]:
    """f = (x + y) z at -2, 5, -4: -12, and the gradients -4, -4, 3."""
    graph = Graph()
    x, y, z = graph.inputs("x y z")
    q = x + y
    q * z
    return graph, {"x": -2.0, "y": 5.0, "z": -4.0}


def neuron() -> tuple[Graph, dict[str, float]]:
    """f = 1 / (1 + exp(-(w0 x0 + w1 x1 + w2))), gate by gate: 0.73."""
    graph = Graph()
    w0, x0, w1, x1, w2 = graph.inputs("w0 x0 w1 x1 w2")
    1 / (1 + exp(-1 * (w0 * x0 + w1 * x1 + w2)))
    return graph, {"w0": 2.0, "x0": -1.0, "w1": -3.0, "x1": -2.0, "w2": -3.0}


def neuron_as_one_gate() -> tuple[Graph, dict[str, float]]:
    """The same neuron, the last four gates being one: the gradient is (1 - f) f."""
    graph = Graph()
    w0, x0, w1, x1, w2 = graph.inputs("w0 x0 w1 x1 w2")
    sigmoid(w0 * x0 + w1 * x1 + w2)
    return graph, neuron()[1]


def l2() -> tuple[Graph, dict[str, np.ndarray]]:
    """f = ‖W x‖²: 0.116; ∇W = 2 q xᵀ and ∇x = 2 Wᵀ q."""
    graph = Graph()
    W, x = graph.inputs("W x")
    squared_norm(W @ x)
    return graph, {"W": np.array([[0.1, 0.5], [-0.3, 0.8]]), "x": np.array([0.2, 0.4])}


def svm() -> tuple[Graph, dict[str, np.ndarray]]:
    """L = mean over n of Σ_{j≠t} max(0, s_j - s_t + 1), plus λ ΣW², scores s = x W."""
    graph = Graph()
    x, W, t = graph.inputs("x W t")
    s = x @ W
    margins = maximum(0, s - reshape(pick(s, t), (-1, 1)) + 1)
    # The true class, whose margin is always 1, is taken away again.
    mean(sum(margins, axis=1) - 1) + 0.1 * sum(square(W))
    rng = np.random.default_rng(0)
    return graph, {
        "x": rng.standard_normal((5, 4)),
        "W": rng.standard_normal((4, 3)),
        "t": np.array([0, 2, 1, 1, 0]),
    }


def relu_jacobian(n: int = 4096) -> tuple[np.ndarray, bool]:
    """The diagonal of ∂max(0, x)/∂x, and whether there is nothing beside it."""
    graph = Graph()
    x = graph.input("x")
    y = maximum(0, x)
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal(n)}
    diagonal = xpnet.jacobian(graph, inputs, y, x, diagonal=True)
    # u J is u * diagonal for a random u only if all else in J is 0: one more pass says so.
    u = rng.standard_normal(n)
    _, tape = graph.forward(inputs, y)
    return diagonal, bool((graph.backward(tape, "x", [u])["x"] == u * diagonal).all())


def twenty_lines(steps: int = 2000, seed: int = 0) -> list[float]:
    """The two-layer net of 64, 1000, 100, 10; its loss at every step."""
    graph = Graph()
    x, y, w1, w2 = graph.inputs("x y w1 w2")
    h = sigmoid(x @ w1)
    y_pred = h @ w2
    loss = sum(square(y_pred - y))

    rng = np.random.default_rng(seed)
    N, D_in, H, D_out = 64, 1000, 100, 10
    shapes = {"x": (N, D_in), "y": (N, D_out), "w1": (D_in, H), "w2": (H, D_out)}
    values = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    losses = []
    for _ in range(steps):
        value, tape = graph.forward(values, loss)
        losses.append(float(value))
        for name, gradient in graph.backward(tape, "w1 w2").items():
            values[name] = values[name] - 1e-4 * gradient
    return losses


CIRCUITS: dict[str, Callable[[], tuple[Graph, Any]]] = {
    "circuit": circuit,
    "neuron": neuron,
    "neuron_as_one_gate": neuron_as_one_gate,
    "l2": l2,
    "svm": svm,
}


def main(
    folder: Path | None = None, steps: int = 2000, say: Callable[..., None] = print
) -> dict[str, Trace]:
    traces = {}
    for name, make in CIRCUITS.items():
        graph, inputs = make()
        traces[name] = graph.trace(inputs)
        say(f"{name}: {float(traces[name].values[traces[name].output]):.4g}")
        for variable in inputs:
            if variable in traces[name].grads:
                gradient = np.round(traces[name].grads[variable], 4).tolist()
                say(f"  gradient of {variable}: {gradient}")
        if folder:
            graph.draw(folder / f"{name}.svg", inputs)
    diagonal, alone = relu_jacobian()
    say(
        f"Jacobian of max(0, x), {len(diagonal)} inputs: {int(diagonal.sum())} ones on the "
        f"diagonal, {'nothing' if alone else 'something'} beside it"
    )
    losses = twenty_lines(steps)
    for i in [*range(0, steps, max(steps // 10, 1)), steps - 1]:
        say(i, losses[i])
    return traces


if __name__ == "__main__":
    main()
