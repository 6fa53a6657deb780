"""What computes for an estimator: a network on a backend, its step, scores and gradients.

The pieces compare by value: on JAX, all estimators of one form share what is compiled.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from scipy import sparse

from xpnet import optim
from xpnet.arrays.dispatch import along, elementwise
from xpnet.arrays.ops import Array, namespace, squares
from xpnet.backend.interface import Backend
from xpnet.models.mlp import mlp
from xpnet.models.network import Network
from xpnet.models.stack import masks, stacked
from xpnet.sklearn.arrays import dtype_name

__all__ = ["Engine", "Form", "Stack"]

Params = dict[str, Array]

# Samples of a sparse matrix become dense in parts of about this size.
PART_BYTES = 16 << 20
# On a CPU, predictions and the gradients of L-BFGS are computed for so many samples at a time: what
# the layers leave behind then mostly stays in the processor's cache.
PART_SAMPLES = 4000


@dataclass(frozen=True)
class Form:
    """All that a network depends on beside its parameters.

    Attributes
    ----------
    sizes : tuple of int
        Features, units of the hidden layers, outputs.
    activations : tuple of str
        One of xpnet's names per hidden layer.
    loss : gate
    dropout : float
    seed : int
        Of the dropout.
    """

    sizes: tuple[int, ...]
    activations: tuple[str, ...]
    loss: Any
    dropout: float = 0.0
    seed: int = 0

    def network(self, params: Mapping[str, Array]) -> Network:
        """Return the network; its loss is the sum over a batch, if the gate has that."""
        settings = getattr(self.loss, "__dataclass_fields__", {})
        loss = replace(self.loss, reduction="sum") if "reduction" in settings else self.loss
        return mlp(
            self.sizes, self.activations, loss=loss, dropout=self.dropout, seed=self.seed,
            params=params,
        )  # fmt: skip

    @property
    def key(self) -> Hashable:
        """Equal to another's if both compute the same; a gate that may change equals no other."""
        return self if _is_frozen(self.loss) else object()


def _is_frozen(value: Any) -> bool:
    """Say whether a gate or a rule can never change, so that two that are equal stay so."""
    kind = getattr(type(value), "__dataclass_params__", None)
    return kind is not None and bool(kind.frozen)


def _averages(network: Network) -> bool:
    """Say whether the loss is a mean, as that of a gate of the user's own may be."""
    return getattr(network.loss_gate, "reduction", "mean") == "mean"


@dataclass(frozen=True)
class _Function:
    """A function of a network's parameters that compares by what it computes."""

    key: Hashable
    network: Network = field(compare=False, repr=False)


class Scores(_Function):
    """``scores(params, x)``, shape=(N, outputs)."""

    def __call__(self, params: Params, x: Array) -> Array:
        return self.network.predict(params, x)


class Gradient(_Function):
    """``gradient(params, x, t[, weight]) -> (loss, grads)``, without the penalty."""

    def __call__(self, params: Params, x: Array, t: Array, *weight: Array) -> tuple[Array, Params]:
        return self.network.gradient(params, x, t, **dict(zip(["weight"], weight, strict=False)))


@dataclass(frozen=True)
class Step(_Function):
    r"""A training step whose L2 term is divided by the weight of its batch, as scikit-learn's.

    The loss is $\frac{1}{S} (\sum_i w_i l_i + \frac{\alpha}{2} \sum W^2)$ with
    $S = \sum_i w_i$; it penalizes weights, not biases. α is an array in the state, as the
    rate may be: neither is compiled into the step.
    """

    rule: optim.Optimizer

    def __call__(
        self, params: Params, state: Params, x: Array, t: Array, *weight: Array
    ) -> tuple[Params, Params, Array]:
        inputs = {"weight": weight[0]} if weight else {}
        loss, grads = self.network.gradient(params, x, t, step=state["step"], **inputs)
        alpha = state["alpha"]
        total: Any = namespace(weight[0]).sum(weight[0]) if weight else x.shape[0]
        if _averages(self.network):
            loss, grads = loss * total, {name: g * total for name, g in grads.items()}
        for name, p in params.items():
            if p.ndim > 1:
                grads[name] = _penalized(grads[name], p, alpha, total)
                loss = loss + 0.5 * alpha * squares(p)
            else:
                grads[name] = grads[name] / total
        loss = loss / total
        params, state = optim.update(self.rule, grads, state, params)
        state["alpha"] = alpha
        return params, state, loss


@dataclass(frozen=True)
class StackedStep(_Function):
    """The `Step` of K models at once: params, state and losses have a first axis of models.

    "alpha" in the state has shape=(K,), and so have the settings of the rule and `inputs`.
    """

    rule: optim.PerModel
    inputs: tuple[str, ...]  # of the dropout layers, in the state

    def __call__(
        self, params: Params, state: Params, x: Array, t: Array, *weight: Array
    ) -> tuple[Params, Params, Array]:
        kept = {name: state[name] for name in ("alpha", *self.inputs)}
        alpha, given = kept["alpha"], {name: state[name] for name in self.inputs}
        if weight:
            given["weight"] = weight[0]
        if self.inputs:
            given["step"] = state["step"]
        loss, grads = self.network.gradient(params, x, t, **given)
        xp = namespace(loss)
        total: Any = xp.sum(weight[0], axis=-1) if weight else x.shape[-2]
        for name, p in params.items():
            share = along(total, p)
            if p.ndim > 2:
                grads[name] = _penalized(grads[name], p, along(alpha, p), share)
                loss = loss + 0.5 * alpha * xp.sum(p * p, axis=(1, 2))
            else:
                grads[name] = grads[name] / share
        loss = loss / total
        params, state = optim.update(self.rule, grads, state, params)
        return params, {**state, **kept}, loss


class Stack:
    """A network on a backend, for K models at once.

    Parameters
    ----------
    backend : Backend
    forms : sequence of Form
        One for each model; they may differ in ratio and seed of the dropout.
    rule : PerModel
    """

    def __init__(self, backend: Backend, forms: Sequence[Form], rule: optim.PerModel) -> None:
        sizes = forms[0].sizes
        ends = list(enumerate(pairwise(sizes), 1))
        shapes = {f"W{i}": pair for i, pair in ends} | {f"b{i}": pair[1:] for i, pair in ends}
        empty = {name: np.empty(shape) for name, shape in shapes.items()}
        known: dict[Form, Network] = {}
        for form in forms:
            known[form] = known.get(form) or form.network(empty)
        # Names alone: what is compiled must not keep the arrays of these models alive.
        names: dict[str, Any] = dict.fromkeys(shapes)
        network = replace(stacked(known[forms[0]], names), params=names)
        self.backend, self.rule = backend, rule
        self._masks = masks([known[form] for form in forms], np.float64)
        inputs = tuple(self._masks)
        key = replace(forms[0], dropout=float(bool(self._masks)), seed=0)
        self._scores = backend.compile(Scores(("stacked", key), network))
        self._run = backend.loop(StackedStep(key, network, rule, inputs), _as_it_is)

    def begin(self, params: Params, values: Mapping[str, Sequence[float]]) -> Params:
        """Return the state before the first step.

        `values` holds "alpha", "each.lr" and the like, one number for each model.
        """
        state = optim.init(self.rule, params) | self.numbers(params, values)
        state |= self.numbers(params, {n: m for n, m in self._masks.items() if m.dtype.kind == "f"})
        whole = {n: m for n, m in self._masks.items() if m.dtype.kind != "f"}
        return state | {name: self.backend.asarray(mask) for name, mask in whole.items()}

    def numbers(self, params: Params, values: Mapping[str, Any]) -> Params:
        """Return numbers as arrays of the parameters' dtype."""
        dtype = dtype_name(next(iter(params.values())))
        return {name: self.backend.asarray(np.array(v, dtype)) for name, v in values.items()}

    def epoch(
        self, params: Params, state: Params, data: tuple[Any, ...], orders: list[np.ndarray]
    ) -> Iterator[tuple[Params, Params, Array]]:
        """Do what `Engine.epoch` does; losses have shape (steps, K).

        Orders are of shape (steps, K, batch), or (steps, batch) where all models share the batch.
        """
        for order in orders:
            for chunk in self._run(params, state, data, self.backend.asarray(order)):
                params, state, _ = chunk
                yield chunk

    def scores(self, params: Params, x: Array) -> np.ndarray:
        """Return the outputs before any softmax, shape=(K, N, outputs), on the host."""
        return self.backend.to_numpy(self._scores(params, x))


@elementwise
def _penalized(g: Array, p: Array, alpha: Array, total: Any) -> Array:
    """Return (g + α p) / S, in scikit-learn's order, so that the rounding is the same."""
    penalized = alpha * p
    penalized += g
    penalized /= total
    return penalized


class Engine:
    """A network on a backend.

    Parameters
    ----------
    backend : Backend
    form : Form
    params : mapping of str to array
        Only their shapes and their dtype matter.
    rule : Optimizer, optional
        Without one, there is no loop.
    """

    def __init__(
        self,
        backend: Backend,
        form: Form,
        params: Mapping[str, Array],
        rule: optim.Optimizer | None = None,
    ) -> None:
        self.backend, self.form, self.rule = backend, form, rule
        # Compiled functions must not keep the arrays alive.
        names: dict[str, Any] = dict.fromkeys(params)
        network = replace(form.network(params), params=names)
        self._mean = _averages(network)
        key = form.key if rule is None or _is_frozen(rule) else object()
        self._scores = backend.compile(Scores(key, network))
        self._gradient = backend.compile(Gradient(key, network))
        self._run = None if rule is None else backend.loop(Step(key, network, rule), _as_it_is)

    def serves(self, backend: Backend, form: Form, rule: optim.Optimizer | None) -> bool:
        """Say whether this engine computes just this."""
        same = self.form == form and self.rule == rule and str(self.backend) == str(backend)
        return same and form.key is form and (rule is None or _is_frozen(rule))

    def begin(
        self, params: Params, state: Params, *, alpha: float, lr: float | None = None
    ) -> Params:
        """Return the state before the first step, or an earlier one, with these numbers.

        A rate `lr` takes the place of the rule's.
        """
        assert self.rule is not None
        if not state:
            state = optim.init(self.rule, params)
        on_host = {name: v for name, v in state.items() if isinstance(v, np.ndarray)}
        state = state | {name: self.backend.asarray(v) for name, v in on_host.items()}
        rate = {} if lr is None else {"lr": lr}
        return state | self.numbers(params, alpha=alpha, **rate)

    def numbers(self, params: Params, **values: float) -> Params:
        """Return numbers as 0-d arrays of the parameters' dtype."""
        dtype = dtype_name(next(iter(params.values())))
        return {name: self.backend.asarray(np.array(v, dtype)) for name, v in values.items()}

    def epoch(
        self, params: Params, state: Params, data: tuple[Any, ...], orders: list[np.ndarray]
    ) -> Iterator[tuple[Params, Params, Array]]:
        """Run the steps of one epoch; yield as `xpnet.backend.interface.Run` does.

        Parameters
        ----------
        params, state : dict of str to array
            Consumed.
        data : (X, targets[, weights])
            On the backend, but a sparse X.
        orders : list of integer arrays, shape=(steps, batch)
        """
        assert self._run is not None
        for order in orders:
            for part, rows in self._parts(data, order):
                for chunk in self._run(params, state, part, rows):
                    params, state, _ = chunk
                    yield chunk

    def _parts(
        self, data: tuple[Any, ...], order: np.ndarray
    ) -> Iterator[tuple[tuple[Any, ...], Array]]:
        """Yield data with the order into it: all at once, or dense parts of a sparse X."""
        x, *rest = data
        if not sparse.issparse(x):
            yield data, self.backend.asarray(order)
            return
        steps = max(1, PART_BYTES // max(1, order.shape[1] * x.shape[1] * x.dtype.itemsize))
        for start in range(0, len(order), steps):
            rows = order[start : start + steps]
            flat = self.backend.asarray(rows.reshape(-1))
            dense = self.backend.asarray(x[rows.reshape(-1)].toarray())
            others = [namespace(a).take(a, flat, axis=0) for a in rest]
            places = np.arange(rows.size).reshape(rows.shape)
            yield (dense, *others), self.backend.asarray(places)

    def _slices(self, x: Any) -> Iterator[tuple[slice, Array]]:
        """Yield consecutive parts of the samples, dense and on the backend."""
        n = x.shape[0]
        size = PART_SAMPLES if self.backend.device == "cpu" else n
        if sparse.issparse(x):
            size = max(1, PART_BYTES // max(1, x.shape[1] * x.dtype.itemsize))
        for start in range(0, n, size):
            part = slice(start, min(start + size, n))
            if sparse.issparse(x):
                yield part, self.backend.asarray(x[part].toarray())
            else:
                yield part, x if size >= n else x[part, ...]

    def scores(self, params: Params, x: Any) -> Array:
        """Return the outputs before any softmax, shape=(N, outputs), on the backend."""
        parts = [self._scores(params, part) for _, part in self._slices(x)]
        return parts[0] if len(parts) == 1 else array_namespace(parts[0]).concat(parts, axis=0)

    def gradient(self, params: Params, data: tuple[Any, ...]) -> tuple[float, list[Array]]:
        """Return the sum of all samples' losses, and its gradients in the parameters' order."""
        x, *rest = data
        loss, sums = 0.0, None
        for part, dense in self._slices(x):
            others = [a[part, ...] for a in rest]
            part_loss, grads = self._gradient(params, dense, *others)
            total = 1.0
            if self._mean:
                weights = others[1:]
                total = float(namespace(weights[0]).sum(weights[0]) if weights else dense.shape[0])
            loss += total * float(part_loss)
            found = [grads[name] if total == 1.0 else grads[name] * total for name in params]
            sums = found if sums is None else [a + b for a, b in zip(sums, found, strict=True)]
        assert sums is not None
        return loss, sums


def _as_it_is(x: Array) -> Array:
    return x
