"""One training step: a pure function that compares by value."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

from xpnet import optim
from xpnet.arrays.dispatch import adding_kernels
from xpnet.arrays.ops import Array
from xpnet.arrays.ranks import sum_over_ranks
from xpnet.data.augmentation import Augmentation
from xpnet.errors import real
from xpnet.models.network import Network
from xpnet.trainer.share import Share

__all__ = ["Step", "make_step"]

Params = dict[str, Array]


@dataclass(frozen=True)
class Step:
    """The training step: ``step(params, state, x, t[, weight]) -> (params, state, loss)``.

    It augments the images, if told to, computes the gradients of the loss, sums them over the
    ranks, adds those of the penalties, clips them, and applies the optimizer's rule. Shapes are
    fixed and the step reads no values on the host, so a Python loop, a JAX scan or a CUDA graph can
    run it. It consumes state and params, which also hold the network's statistics.

    Two steps are equal if they compute the same, so that a backend may compile them once. Use
    `make_step` to make one.
    """

    form: Hashable
    network: Network = field(compare=False, repr=False)
    optimizer: optim.Optimizer
    weight_decay: float
    clip_norm: float | None
    l1: float = 0.0
    augmentation: Augmentation | None = None
    seed: int = 0  # of the augmentation
    share: Share | None = None

    def __call__(
        self, params: Params, state: Params, x: Array, t: Array, *weight: Array
    ) -> tuple[Params, Params, Array]:
        if self.share is None:
            return self._computed(params, state, x, t, *weight)
        computed: tuple[Params, Params, Array] = adding_kernels(self._computed, self.share.kernels)(
            params, state, x, t, *weight
        )
        return computed

    def _computed(
        self, params: Params, state: Params, x: Array, t: Array, *weight: Array
    ) -> tuple[Params, Params, Array]:
        extra = {"step": state["step"]} if "step" in self.network.graph.nodes else {}
        if weight:
            extra["weight"] = weight[0]
        if self.augmentation is not None:
            x = self.augmentation.applied(x, self.seed, state["step"])
        network = self.network
        loss, tape = network.graph.forward({**params, "x": x, "t": t, **extra}, network.loss)
        grads = network.graph.backward(tape, network.params)
        *sums, loss = sum_over_ranks([*grads.values(), loss])
        grads = dict(zip(grads, sums, strict=True))
        kept = {}
        if network.statistics:
            kept = {name: params[name] for name in network.statistics} | network.observed(tape)
            params = {name: params[name] for name in network.params}
        if self.weight_decay:
            grads = optim.add_weight_decay(grads, params, self.weight_decay)
        if self.l1:
            grads = optim.add_l1(grads, params, self.l1)
        if self.clip_norm is not None:
            grads = optim.clip_by_global_norm(grads, self.clip_norm)
        params, state = optim.update(self.optimizer, grads, state, params)
        return {**params, **kept}, state, loss


def make_step(
    network: Network,
    optimizer: optim.Optimizer,
    *,
    weight_decay: float = 0.0,
    l1: float = 0.0,
    clip_norm: float | None = None,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    share: Share | None = None,
) -> Step:
    """Make the `Step` of a network and an optimizer.

    An optimizer that is not a frozen dataclass could change later. Its step therefore equals no
    other step and shares no compiled loop.

    Parameters
    ----------
    network : Network
    optimizer : Optimizer
    weight_decay, l1 : float
        Coefficients of the L2 and the L1 penalty; see `xpnet.optim.add_weight_decay` and `add_l1`.
    clip_norm : float, optional
        Largest norm of all gradients together; None does not clip.
    augmentation : Augmentation, optional
        Applied to each batch of images.
    seed : int
        Random seed of the augmentation.
    share : Share, optional
        The rows of each batch that this process computes, and how it adds up with the others.

    Raises
    ------
    UsageError
        A setting is impossible, or there is an augmentation and the network takes no images.
    """
    weight_decay, l1 = real("weight_decay", weight_decay, 0.0), real("l1", l1, 0.0)
    if clip_norm is not None:
        clip_norm = real("clip_norm", clip_norm, 0.0, ends="()")
    if augmentation is not None:
        augmentation.check(network.input_shape)
    kind = getattr(type(optimizer), "__dataclass_params__", None)
    form = network.form if kind is not None and kind.frozen else object()
    # A cached loop must not keep the initial values alive, so a step stores only their names.
    names: dict[str, Any] = dict.fromkeys(network.params)
    return Step(
        form, replace(network, params=names), optimizer, weight_decay, clip_norm, l1,
        augmentation, 0 if augmentation is None else seed, share,
    )  # fmt: skip
