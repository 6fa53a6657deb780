"""Update all parameters at once on PyTorch.

Adam and AdamW use PyTorch's fused kernels: one pass over the memory instead of our twelve. The
other rules run our lines once, on `Many`, whose operators act on all parameters in one call
(``torch._foreach_...``). This needs fewer Python calls and, on a GPU, fewer kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from xpnet import optim

__all__ = ["Many", "for_each", "update"]

Array = Any
Params = dict[str, Array]

# The lines of these rules use nothing that `Many` lacks. Other rules could fail half-way, after
# they have written some parameters.
KNOWN: Any = {
    kind.rule
    for kind in (
        optim.SGD, optim.Momentum, optim.Nesterov, optim.AdaGrad, optim.RMSProp, optim.Adam
    )
}  # fmt: skip


def update(optimizer: Any, grads: Params, state: Params, params: Params) -> Any:
    """Replace `xpnet.optim.update` for Adam and AdamW (see `xpnet.arrays.dispatch`)."""
    models = isinstance(optimizer, optim.PerModel)  # its parameters have one axis more
    if isinstance(optimizer, optim.PerModel) and not optimizer.varied:
        optimizer = optimizer.optimizer
    lr, level = state.get("lr", optimizer.lr), state.get("level")
    each = any(getattr(rate, "ndim", False) for rate in (lr, level))  # one for each model
    if type(optimizer) not in (optim.Adam, optim.AdamW) or each:
        return NotImplemented
    # The fused kernels ignore the layout of an array, and our products may be transposed.
    rows = [
        (p, grads[name].contiguous(), *(state[f"{name}.{slot}"] for slot in optimizer.slots))
        for name, p in params.items()
    ]
    if not all(_is_plain(a) and a.dtype == row[0].dtype for row in rows for a in row):
        return NotImplemented
    count = state["step"]
    if callable(lr):
        lr = lr(count.to(rows[0][0].dtype))
        lr = lr if level is None else lr * level
    # On a GPU, the kernels read the rate as float32.
    if isinstance(lr, torch.Tensor) and lr.is_cuda and lr.dtype != torch.float32:
        return NotImplemented
    count += 1
    step = count.to(torch.float32)  # the kernels require float32
    groups = [(0.0, rows)]
    if type(optimizer) is optim.AdamW:  # it decays weights, not biases
        weights = [row for row in rows if row[0].ndim - models > 1]
        biases = [row for row in rows if row[0].ndim - models <= 1]
        groups = [(optimizer.weight_decay, weights), (0.0, biases)]
    for decay, group in groups:
        if group:
            torch._fused_adamw_(
                *map(list, zip(*group, strict=True)), [], [step] * len(group), lr=lr,
                beta1=optimizer.beta1, beta2=optimizer.beta2, weight_decay=decay,
                eps=optimizer.eps, amsgrad=False, maximize=False,
            )  # fmt: skip
    return params, state


def _is_plain(array: Array) -> bool:
    return array.dtype in (torch.float32, torch.float64) and bool(array.is_contiguous())


def for_each(
    rule: Callable[..., tuple[Array, ...]],
    rates: Any,
    rows: Sequence[tuple[Array, ...]],
    count: Array,
) -> Any:
    """Replace `xpnet.arrays.dispatch.for_each`: apply the rule to all rows at once."""
    if getattr(rule, "__func__", None) not in KNOWN:
        return NotImplemented
    p, g, *slots = (Many(list(column)) for column in zip(*rows, strict=True))
    updated = rule(p, g, rates, *slots)
    count += 1
    return list(zip(*(many.tensors for many in updated), strict=True)), count


class Many:
    """One array per parameter; an operator acts on all of them, with a number or another `Many`."""

    __slots__ = ("tensors",)

    def __init__(self, tensors: Sequence[Array]) -> None:
        self.tensors = tensors

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return _Functions

    def _with(self, operation: Callable[..., Any], other: Any) -> Many:
        return Many(operation(self.tensors, other.tensors if isinstance(other, Many) else other))

    def _in_place(self, operation: Callable[..., Any], other: Any) -> Many:
        operation(self.tensors, other.tensors if isinstance(other, Many) else other)
        return self

    def __add__(self, other: Any) -> Many:
        return self._with(torch._foreach_add, other)

    def __mul__(self, other: Any) -> Many:
        return self._with(torch._foreach_mul, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Many:
        return self._with(torch._foreach_div, other)

    def __iadd__(self, other: Any) -> Many:
        return self._in_place(torch._foreach_add_, other)

    def __isub__(self, other: Many) -> Many:
        return self._in_place(torch._foreach_sub_, other)

    def __imul__(self, other: Any) -> Many:
        return self._in_place(torch._foreach_mul_, other)

    def add_scaled(self, x: Many, factor: float) -> Many:
        """Add factor x in place."""
        torch._foreach_add_(self.tensors, x.tensors, alpha=factor)
        return self


class _Functions:
    """The functions that `Many` has as its namespace."""

    @staticmethod
    def sqrt(x: Many) -> Many:
        return Many(torch._foreach_sqrt(x.tensors))
