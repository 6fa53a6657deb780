"""Some networks, trained together by one step and one by one, for the tests of every backend."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

import xpnet
from xpnet import optim
from xpnet.backend import Backend
from xpnet.backend.interface import Run
from xpnet.many.step import ManyStep, make_many_step
from xpnet.models.network import Network
from xpnet.models.stack import form_of, masks
from xpnet.trainer.step import make_step

__all__ = ["CASES", "Stack", "alone", "together"]

SAMPLES, BATCH, STEPS = 60, 20, 30
LABELLED = ("softmax", "sigmoid", "hinge")


@dataclass(frozen=True)
class Stack:
    """Networks that differ in their numbers alone.

    Attributes
    ----------
    rules : tuple
        One optimizer for each network.
    varied : tuple of str
        What differs between them, see `xpnet.optim.PerModel`.
    loss, activation : str
        Of `xpnet.mlp`.
    dropout : tuple of float
        One for each network, or none.
    decay : tuple of float
        The weight decay of each network, or none.
    clip : tuple of float, or float, or None
        The norm at which each network's gradient is clipped, or that of all.
    weighted : bool or "each"
        Whether the samples have weights, or weights of each network.
    shared : bool
        Whether all networks see the same batches.
    """

    rules: tuple[Any, ...]
    varied: tuple[str, ...] = ("lr",)
    loss: str = "softmax"
    activation: str = "sigmoid"
    dropout: tuple[float, ...] = ()
    decay: tuple[float, ...] = ()
    clip: tuple[float, ...] | float | None = None
    weighted: bool | str = False
    shared: bool = False

    @property
    def networks(self) -> list[Network]:
        sizes = [5, 7, 3] if self.loss in LABELLED else [5, 7, 1]
        ratios = self.dropout or (0.0,) * len(self.rules)
        return [
            xpnet.mlp(sizes, self.activation, loss=self.loss, dropout=ratio, seed=k)
            for k, ratio in enumerate(ratios)
        ]

    @property
    def data(self) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng(1)
        x = rng.standard_normal((SAMPLES, 5))
        t = rng.integers(0, 3, SAMPLES).astype(np.int32)
        numbers = np.abs(rng.standard_normal((SAMPLES, 1)))
        data = (x, t if self.loss in LABELLED else numbers)
        if not self.weighted:
            return data
        shape = (len(self.rules), SAMPLES) if self.weighted == "each" else (SAMPLES,)
        return (*data, rng.integers(0, 3, shape).astype(float))

    @property
    def order(self) -> np.ndarray:
        """The rows of the batches, shape=(steps, K, batch), or (steps, batch) if all share them."""
        rng = np.random.default_rng(2)
        models = 1 if self.shared else len(self.rules)
        rows = [[rng.permutation(SAMPLES)[:BATCH] for _ in range(models)] for _ in range(STEPS)]
        return np.array(rows)[:, 0] if self.shared else np.array(rows)


RATES = (0.1, 0.03, 0.01)
SCHEDULED = tuple(
    optim.AdamW(optim.cosine(lr, steps, warmup=5), weight_decay=decay)
    for lr, steps, decay in zip(RATES, (20, 30, 40), (0.0, 0.1, 0.2), strict=True)
)
CASES = {
    **{
        kind.__name__: Stack(tuple(map(kind, RATES)))
        for kind in (
            optim.SGD, optim.Momentum, optim.Nesterov, optim.AdaGrad, optim.RMSProp, optim.Adam,
            optim.AdamW,
        )
    },
    **{
        loss: Stack(tuple(map(optim.SGD, RATES)), loss=loss, weighted=weighted, shared=shared)
        for loss, weighted, shared in (
            ("sigmoid", False, False), ("hinge", True, False), ("squared", "each", True),
            ("absolute", False, True), ("huber", "each", False), ("quantile", True, True),
            ("poisson", False, False),
        )
    },
    "betas": Stack(
        (optim.Adam(0.1, 0.9, 0.9), optim.Adam(0.1, 0.5, 0.99), optim.Adam(0.1, 0.0, 0.999)),
        ("beta1", "beta2"),
    ),
    "beta of AdamW": Stack((optim.AdamW(0.1, beta1=0.9), optim.AdamW(0.1, beta1=0.5)), ("beta1",)),
    "momenta": Stack((optim.Nesterov(0.1, 0.9), optim.Nesterov(0.1, 0.0)), ("momentum",)),
    "schedules": Stack(
        SCHEDULED, ("lr.lr", "lr.schedule.lr", "lr.schedule.steps", "weight_decay")
    ),
    "alike": Stack((optim.AdamW(0.1), optim.AdamW(0.1)), ()),
    "one": Stack((optim.Adam(0.1),)),
    "dropout": Stack(tuple(map(optim.Adam, RATES)), dropout=(0.1, 0.4, 0.7), activation="relu"),
    "dropout, shared": Stack(
        tuple(map(optim.Momentum, RATES)), dropout=(0.5, 0.4, 0.1), activation="tanh", shared=True
    ),
    "decayed": Stack(
        tuple(map(optim.SGD, RATES)), decay=(0.0, 1e-2, 0.1), activation="leaky_relu", clip=0.3
    ),
    "clipped": Stack(tuple(map(optim.Adam, RATES)), clip=(0.1, 0.5, 100.0)),
    "weighted": Stack(tuple(map(optim.Adam, RATES)), weighted="each"),
    "weighted, shared": Stack(tuple(map(optim.SGD, RATES)), weighted="each", shared=True),
    "shared": Stack(tuple(map(optim.Adam, RATES)), shared=True),
    "shared, one weight": Stack(tuple(map(optim.Adam, RATES)), shared=True, weighted=True),
}  # fmt: skip
Result = tuple[dict[str, np.ndarray], np.ndarray]


def alone(stack: Stack, dtype: str = "float64") -> list[Result]:
    """Train each network by itself on NumPy; return its parameters and its losses."""
    backend = xpnet.select("cpu", "numpy")
    results = []
    for k, (network, rule) in enumerate(zip(stack.networks, stack.rules, strict=True)):
        clip = stack.clip[k] if isinstance(stack.clip, tuple) else stack.clip
        decay = stack.decay[k] if stack.decay else 0.0
        step = make_step(network, rule, weight_decay=decay, clip_norm=clip)
        params = {name: np.array(p, dtype) for name, p in network.params.items()}
        x, t, *weights = stack.data
        own = [w[k] if w.ndim == 2 else w for w in weights]
        data = tuple(_real(a, dtype) for a in (x, t, *own))
        order = stack.order if stack.shared else np.ascontiguousarray(stack.order[:, k])
        run = backend.loop(step, _as_it_is)
        results.append(_trained(run, backend, params, optim.init(rule, params), data, order))
    return results


def together(
    stack: Stack, backend: Backend, dtype: str = "float64", run: Run | None = None
) -> Result:
    """Train all networks by one step; return their parameters and losses, (steps, K)."""
    networks = stack.networks
    params = {
        name: backend.asarray(np.array([n.params[name] for n in networks], dtype))
        for name in networks[0].params
    }
    rule = optim.PerModel(stack.rules[0], stack.varied)
    extra = masks(networks, dtype)
    state = optim.init(rule, params) | {k: backend.asarray(v) for k, v in extra.items()}
    each = {f"each.{path}": [_setting(r, path) for r in stack.rules] for path in stack.varied}
    if stack.decay:
        each["each.l2"] = list(stack.decay)
    if isinstance(stack.clip, tuple):
        each["each.clip_norm"] = list(stack.clip)
    state |= {name: backend.asarray(np.array(values, dtype)) for name, values in each.items()}
    data = tuple(_real(a, dtype) for a in stack.data)
    run = run or backend.loop(step_of(stack), _as_it_is)
    return _trained(run, backend, params, state, data, stack.order)


def step_of(stack: Stack) -> ManyStep:
    """Return the step that trains all of them."""
    networks = stack.networks
    form = form_of(networks[0])
    assert all(form_of(network) == form for network in networks)
    return make_many_step(
        networks[0], form, optim.PerModel(stack.rules[0], stack.varied),
        weight_decay=None if stack.decay else 0.0,
        clip_norm="each" if isinstance(stack.clip, tuple) else stack.clip,
        inputs=tuple(masks(networks, "float64")),
    )  # fmt: skip


def _as_it_is(x: Any) -> Any:
    return x


def _real(a: np.ndarray, dtype: str) -> np.ndarray:
    return a.astype(dtype) if a.dtype.kind == "f" else a


def _setting(rule: Any, path: str) -> float:
    return float(reduce(getattr, path.split("."), rule))


def _trained(
    run: Run, backend: Backend, params: Any, state: Any, data: Any, order: np.ndarray
) -> Result:
    arrays = tuple(map(backend.asarray, data))
    losses = []
    for new, _, chunk in run(params, state, arrays, backend.asarray(order)):
        params = new
        losses.append(backend.to_numpy(chunk))
    return {name: backend.to_numpy(p) for name, p in params.items()}, np.concatenate(losses)
