"""L layers, any activation for each, square loss; A, Z, W, b of every layer kept and shown.

After "深度学习的反向传播手动推导": Z = W A + b and A = g(Z) for the layers 1 to L, J = ½ (ŷ - y)²,
gradients summed over the batch and divided by its size, W := W - α dW until convergence.
The document writes samples as columns; here they are rows: A W + b, transposed throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

import xpnet
from xpnet.graph.node import Trace

LAYERS = (2, 8, 6, 4, 1)
ACTIVATIONS = ("tanh", "sigmoid", "leaky_relu", "identity")  # one for each layer


def data(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """A smooth function of two numbers."""
    x = np.random.default_rng(1).uniform(-1, 1, (n, 2))
    return x, np.sin(2 * x[:, :1]) * x[:, 1:]


def show(network: xpnet.Network, trace: Trace, say: Callable[..., None]) -> None:
    """What is kept of each layer."""
    say("at the first step:")
    say("l   g           Z          A          W         b       mean dZ²    mean dW²")
    nodes = network.graph.nodes
    heads = [node.name for node in nodes.values() if node.name.startswith("Affine")]
    outputs = [node.name for node in network.hidden] + [network.scores.name]
    kinds = network.arguments["activation"]
    for i, (Z, A, g) in enumerate(zip(heads, outputs, kinds, strict=True), 1):
        W, b = trace.values[f"W{i}"], trace.values[f"b{i}"]
        dZ, dW = trace.grads[Z], trace.grads[f"W{i}"]
        say(
            f"{i}   {g:10}  {trace.values[Z].shape!s:9}  {trace.values[A].shape!s:9}  "
            f"{W.shape!s:8}  {b.shape!s:6}  {(dZ**2).mean():.2e}    {(dW**2).mean():.2e}"
        )


def main(
    layers: Sequence[int] = LAYERS,
    activations: Sequence[str] = ACTIVATIONS,
    alpha: float = 0.05,  # 0.2 swings: rounding then decides on 12,000 or 25,000 steps
    say: Callable[..., None] = print,
) -> tuple[float, int]:
    x, y = data()
    network = xpnet.mlp(layers, activations, loss="squared", seed=0)
    params = dict(network.params)
    show(network, network.graph.trace({**params, "x": x, "t": y}, network.loss), say)
    step, largest = 0, np.inf
    while largest > 1e-3 and step < 100_000:  # until nothing pulls at any parameter any more
        step += 1
        J, grads = network.gradient(params, x, y)
        for name, dW in grads.items():
            params[name] = params[name] - alpha * dW  # W := W - α dW
        largest = max(np.abs(dW).max() for dW in grads.values())
    say(f"J = {float(J):.6f} after {step} steps")
    return float(J), step


if __name__ == "__main__":
    main()
