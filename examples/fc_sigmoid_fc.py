"""Fully connected, sigmoid, fully connected; Euclidean loss; the gradient as δ, layer by layer.

After "機器學習 動手寫乙個全連線神經網路(一)": E = ½ Σ (y' - y)² over a batch, and the rules

    δ4 = y' - y                          of the output
    δ3 = x_sigᵀ δ4, Σ δ4, δ4 W_fc2ᵀ      dW, db and what goes up from fc2
    δ2 = x_sig .* (1 - x_sig) .* δup3    what goes up from the sigmoid
    δ1 = x_inputᵀ δup2, Σ δup2           dW and db of fc1
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from xpnet import Graph
from xpnet.functions import affine, sigmoid, squared_loss
from xpnet.graph.node import Trace


def network() -> Graph:
    """E as a graph; the nodes bear the document's names."""
    graph = Graph()
    x, t, W1, b1, W2, b2 = graph.inputs("x_input y W_fc1 b_fc1 W_fc2 b_fc2")
    x_sig = sigmoid(affine(x, W1, b1))
    squared_loss(affine(x_sig, W2, b2), t, reduction="sum")
    return graph


def data(n: int = 20) -> dict[str, np.ndarray]:
    """A batch of n samples with three features and one target; initial weights."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (n, 3))
    return {
        "x_input": x,
        "y": np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:],
        "W_fc1": rng.standard_normal((3, 5)),
        "b_fc1": np.zeros(5),
        "W_fc2": rng.standard_normal((5, 1)),
        "b_fc2": np.zeros(1),
    }


def deltas(trace: Trace) -> dict[str, np.ndarray]:
    """The document's rules, by hand, from the values of a run."""
    value = trace.values
    x_sig = value["Sigmoid1"]
    delta4 = value["Affine2"] - value["y"]
    up3 = delta4 @ value["W_fc2"].T
    up2 = x_sig * (1 - x_sig) * up3
    return {
        "Affine2": delta4,
        "W_fc2": x_sig.T @ delta4,
        "b_fc2": delta4.sum(axis=0),
        "Sigmoid1": up3,
        "Affine1": up2,
        "W_fc1": value["x_input"].T @ up2,
        "b_fc1": up2.sum(axis=0),
    }


def main(steps: int = 500, say: Callable[..., None] = print, draw: Path | None = None) -> float:
    graph, inputs = network(), data()
    trace = graph.trace(inputs)
    for name, hand in deltas(trace).items():
        error = np.abs(hand - trace.grads[name]).max()
        say(f"dE/d {name:9} shape {hand.shape!s:8} largest difference from δ {error:.1e}")
    if draw:
        graph.draw(draw, inputs, expand=True)
    losses = []
    for _ in range(steps):
        E, tape = graph.forward(inputs)
        losses.append(float(E))
        for name, gradient in graph.backward(tape, "W_fc1 b_fc1 W_fc2 b_fc2").items():
            inputs[name] = inputs[name] - 0.05 * gradient  # θ_new = θ_old - ε ∂E/∂θ
    say(f"E: {losses[0]:.4f} at first, {losses[-1]:.4f} after {steps} steps")
    return losses[-1] / losses[0]


if __name__ == "__main__":
    main()
