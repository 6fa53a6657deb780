"""One training step, as a pure function."""

from __future__ import annotations

from xpnet import optim
from xpnet.arrays.ops import Array
from xpnet.backend.interface import Step
from xpnet.models.network import Network

__all__ = ["make_step"]


def make_step(
    network: Network,
    optimizer: optim.Optimizer,
    *,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
) -> Step:
    """The training step: ``step(params, state, x, t[, weight]) -> (params, state, loss)``.

    Gradients of the loss, plus weight decay, clipped, then the optimizer's rule. Shapes are
    fixed and nothing is read back to the host, so the same function is looped over, scanned
    by JAX, or captured into a CUDA graph. Consumes params and state.
    """

    counted = ("step",) if "step" in network.graph.nodes else ()

    def step(
        params: dict[str, Array], state: dict[str, Array], x: Array, t: Array, *weight: Array
    ) -> tuple[dict[str, Array], dict[str, Array], Array]:
        extra = {name: state[name] for name in counted}
        if weight:
            extra["weight"] = weight[0]
        loss, grads = network.gradient(params, x, t, **extra)
        if weight_decay:
            grads = optim.add_weight_decay(grads, params, weight_decay)
        if clip_norm is not None:
            grads = optim.clip_by_global_norm(grads, clip_norm)
        params, state = optim.update(optimizer, grads, state, params)
        return params, state, loss

    return step
