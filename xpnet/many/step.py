"""The training step of many networks at once, a pure function that compares by value."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

from xpnet import optim
from xpnet.arrays.ops import Array
from xpnet.models.network import Network
from xpnet.models.stack import stacked

__all__ = ["ManyStep", "make_many_step"]

Params = dict[str, Array]


@dataclass(frozen=True)
class ManyStep:
    """``step(params, state, x, t[, weight]) -> (params, state, losses)`` for K networks.

    It is `xpnet.trainer.step.Step` with a first axis of models on every parameter and on the
    losses, shape=(K,). x, t and weight have that axis too, or all networks share a batch. What
    differs between the networks is in the state: "each.lr" and the like, see
    `xpnet.optim.PerModel`; the inputs of dropout, see `xpnet.models.stack.masks`; and, if they are
    not numbers of the step, "each.l2", "each.l1" and "each.clip_norm", shape=(K,).
    """

    form: Hashable
    network: Network = field(compare=False, repr=False)  # stacked
    rule: optim.PerModel
    weight_decay: float | None  # None: in the state
    l1: float | None  # as well
    clip_norm: float | str | None  # "each": in the state
    inputs: tuple[str, ...]  # of the graph, in the state

    def __call__(
        self, params: Params, state: Params, x: Array, t: Array, *weight: Array
    ) -> tuple[Params, Params, Array]:
        network = self.network
        extra = {name: state[name] for name in self.inputs}
        if "step" in network.graph.nodes:
            extra["step"] = state["step"]
        if weight:
            extra["weight"] = weight[0]
        losses, grads = network.gradient(params, x, t, **extra)
        kept = dict(extra)
        kept.pop("weight", None)
        kept.pop("step", None)
        for name, size, add in (
            ("each.l2", self.weight_decay, optim.add_weight_decay),
            ("each.l1", self.l1, optim.add_l1),
        ):
            if size is None:
                kept[name] = state[name]
            if size is None or size:
                size = state[name] if size is None else size
                grads = add(grads, params, size, per_model=True)
        if self.clip_norm == "each":
            kept["each.clip_norm"] = state["each.clip_norm"]
            grads = optim.clip_per_model(grads, state["each.clip_norm"])
        elif self.clip_norm is not None:
            grads = optim.clip_per_model(grads, self.clip_norm)
        params, state = optim.update(self.rule, grads, state, params)
        return params, {**state, **kept}, losses


def make_many_step(
    network: Network,
    form: Hashable,
    rule: optim.PerModel,
    *,
    weight_decay: float | None = 0.0,
    l1: float | None = 0.0,
    clip_norm: float | str | None = None,
    inputs: tuple[str, ...] = (),
) -> ManyStep:
    """Make the step of networks of one form.

    Parameters
    ----------
    network : Network
        One of them, not stacked.
    form : hashable
        From `xpnet.models.stack.form_of`: steps of equal forms share what is compiled.
    rule : PerModel
    weight_decay, l1 : float, or None for "each.l2" and "each.l1" in the state
    clip_norm : float or None, or "each" for "each.clip_norm" in the state
    inputs : tuple of str
        The names of the arrays from `xpnet.models.stack.masks`.
    """
    # A cached loop must not keep the initial values alive, so a step stores only their names.
    names: dict[str, Any] = dict.fromkeys(network.params)
    whole = replace(stacked(network, names), params=names)
    return ManyStep(form, whole, rule, weight_decay, l1, clip_norm, inputs)
