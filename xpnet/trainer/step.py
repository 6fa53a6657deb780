"""One training step, as a pure function that compares by value."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

from xpnet import optim
from xpnet.arrays.ops import Array
from xpnet.models.network import Network

__all__ = ["Step", "make_step"]

Params = dict[str, Array]


@dataclass(frozen=True)
class Step:
    """The training step: ``step(params, state, x, t[, weight]) -> (params, state, loss)``.

    It computes the gradients of the loss, adds weight decay, clips, and applies the optimizer's
    rule. Shapes are fixed and the host reads nothing back, so a Python loop, a scan of JAX or a
    CUDA graph runs the same function. Consumes params, which hold the network's statistics too,
    and state.

    Two steps are equal where they compute the same: a backend may compile them once. Make one
    with `make_step`.
    """

    form: Hashable
    network: Network = field(compare=False, repr=False)
    optimizer: optim.Optimizer
    weight_decay: float
    clip_norm: float | None

    def __call__(
        self, params: Params, state: Params, x: Array, t: Array, *weight: Array
    ) -> tuple[Params, Params, Array]:
        extra = {"step": state["step"]} if "step" in self.network.graph.nodes else {}
        if weight:
            extra["weight"] = weight[0]
        network = self.network
        loss, tape = network.graph.forward({**params, "x": x, "t": t, **extra}, network.loss)
        grads = network.graph.backward(tape, network.params)
        kept = {}
        if network.statistics:
            kept = {name: params[name] for name in network.statistics} | network.observed(tape)
            params = {name: params[name] for name in network.params}
        if self.weight_decay:
            grads = optim.add_weight_decay(grads, params, self.weight_decay)
        if self.clip_norm is not None:
            grads = optim.clip_by_global_norm(grads, self.clip_norm)
        params, state = optim.update(self.optimizer, grads, state, params)
        return {**params, **kept}, state, loss


def make_step(
    network: Network,
    optimizer: optim.Optimizer,
    *,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
) -> Step:
    """The `Step` of a network under a rule.

    If the optimizer is not a frozen dataclass, its values could change later: such a step never
    equals another, and shares no compiled loop.
    """
    kind = getattr(type(optimizer), "__dataclass_params__", None)
    form = network.form if kind is not None and kind.frozen else object()
    # A step knows the parameters' names: a loop that is kept must not keep their initial values.
    names: dict[str, Any] = dict.fromkeys(network.params)
    return Step(form, replace(network, params=names), optimizer, weight_decay, clip_norm)
