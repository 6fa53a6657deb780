"""Settings that cannot be are refused in one line, before any work; all others are taken."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet import Trainer, layers, losses, mlp, optim
from xpnet.data import batch_order, class_weights, split
from xpnet.errors import NonFiniteLossError, UsageError, real, whole

NAN, INF = math.nan, math.inf
X = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
T = (X.sum(axis=1) > 0).astype(int)


def fit(**options: Any) -> Callable[[], Any]:
    return lambda: Trainer(mlp([3, 2])).fit(X, T, **options)


def made(**options: Any) -> Callable[[], Any]:
    return lambda: Trainer(mlp([3, 2]), **options)


def net(*args: Any, **options: Any) -> Callable[[], Any]:
    return lambda: mlp(*(args or ([3, 2],)), **options)


BAD: dict[str, list[Callable[[], Any]]] = {
    "lr": [
        (lambda rule=rule, lr=lr: rule(lr))
        for rule in optim.OPTIMIZERS.values()
        for lr in (-0.1, 0.0, NAN, INF, "0.1", None, True, [0.1], 1j, 10**400)
    ],
    "momentum": [
        (lambda rule=rule, mu=mu: rule(0.1, mu))
        for rule in (optim.Momentum, optim.Nesterov)
        for mu in (1.1, -0.1, NAN, "0.9")
    ],
    "decay_rate": [lambda: optim.RMSProp(decay_rate=1.0), lambda: optim.RMSProp(decay_rate=-1)],
    "eps": [
        (lambda rule=rule, eps=eps: rule(eps=eps))
        for rule in (optim.AdaGrad, optim.RMSProp, optim.Adam, optim.AdamW)
        for eps in (0.0, -1e-8, NAN)
    ],
    "beta1": [lambda: optim.Adam(beta1=1.0), lambda: optim.AdamW(beta1=NAN)],
    "beta2": [lambda: optim.Adam(beta2=1.0), lambda: optim.AdamW(beta2=-0.1)],
    "weight_decay": [
        lambda: optim.AdamW(weight_decay=-1.0),
        *(made(weight_decay=v) for v in (-1.0, NAN, INF, "1", [0.1, 0.2])),
    ],
    "clip_norm": [made(clip_norm=v) for v in (-1.0, 0.0, NAN, INF, "1", True)],
    "seed": [
        *(made(seed=v) for v in (-1, 2.7, NAN, "0", None)),
        *(net(seed=v) for v in (-1, 2.7, INF, True)),
        *((lambda v=v: split(T, 0.5, v, stratify=False)) for v in (-1, 0.5)),
    ],
    "optimizer": [made(optimizer=v) for v in (optim.SGD, "sgd", 0.1)],
    "network": [lambda: Trainer("mlp"), lambda: Trainer([3, 2])],  # type: ignore[arg-type]
    "epochs": [fit(epochs=v) for v in (0, -1, 2.7, NAN, INF, -(10**400), "3", True, [3])],
    "batch_size": [
        *(fit(batch_size=v) for v in (0, -5, 1.5, NAN, "all")),
        lambda: batch_order(10, 0, 0, 0),
    ],
    "patience": [
        *(fit(patience=v, validation=(X, T)) for v in (0, -1, 1.5, "2")),
        *((lambda v=v: optim.plateau(0.1, patience=v)) for v in (0, -1, 1.5, NAN, None)),
        fit(patience=3),
    ],
    "save_seconds": [fit(save_seconds=v) for v in (-1.0, NAN, "60", None)],
    "a callback": [fit(callbacks=[3]), fit(callbacks=3), fit(callbacks="f"), fit(stop=True)],
    "sizes": [
        *(net(v) for v in (784, "784,10", None, [3], [], [2.7, 2], [3, 0, 2], [3, -1], [3, "5"])),
        *(net(v) for v in ([3, NAN], [3, None], [3, True, 2], [3, [4], 2])),
    ],
    "activation": [net([3, 4, 2], v) for v in ("swish", None, 3, [["relu"]], [None], "")],
    "loss": [
        *(net(loss=v) for v in ("l1", None, 3, losses.SquaredLoss, [], ["huber"], ("huber", 2.0))),
        *(net(loss=v) for v in (("l1", {}), (["huber"], {}), ("huber", {}, {}), {"huber": {}})),
        *(net(loss=("huber", v)) for v in ({"d": 1.0}, {1: 1.0}, {"delta": 1.0, "integers": ()})),
    ],
    "dropout": [net(dropout=v) for v in (1.0, -0.1, NAN, "0.5", 5.0, True)],
    "init": [net(init=v) for v in (-1.0, NAN, INF, None, "orthogonal", [0.1])],
    "ratio": [(lambda v=v: layers.Dropout(v)) for v in (1.0, -0.1, NAN, "0.5")],
    "alpha": [(lambda v=v: layers.LeakyReLU(v)) for v in (NAN, INF, "0.1", None)],
    "margin": [
        *((lambda v=v: losses.HingeLoss(v)) for v in (-1.0, NAN, "1")),
        net(loss=("hinge", {"margin": -1.0})),
    ],
    "delta": [
        *((lambda v=v: losses.HuberLoss(v)) for v in (0.0, -1.0, NAN, INF, "1", None, True)),
        net(loss=("huber", {"delta": 0.0})),
    ],
    "quantile": [(lambda v=v: losses.QuantileLoss(v)) for v in (0.0, 1.0, -0.1, NAN, "0.5", 90)],
    "reduction": [
        *(
            (lambda kind=kind, v=v: kind(reduction=v))
            for kind in losses.LOSSES.values()
            for v in ("Mean", None, 1, ["mean"], np.array(["mean", "sum"]))
        ),
        net(loss=("softmax", {"reduction": "none"})),
    ],
    "class weight": [
        *((lambda v=v: class_weights(T, v)) for v in ("even", None, 2.0, [1, 2], {7: 1.0})),
    ],
    "weight of class 1": [
        *((lambda v=v: class_weights(T, {1: v})) for v in (-1.0, NAN, INF, "2", None)),
    ],
    "fraction": [
        (lambda v=v: split(T, v, 0, stratify=False)) for v in (1.0, -0.1, NAN, "0.5", None)
    ],
    "factor": [
        *((lambda v=v: optim.step_decay(0.1, 5, v)) for v in (0.0, 1.5, NAN)),
        *((lambda v=v: optim.plateau(0.1, v)) for v in (0.0, 1.0, -1, NAN, "half")),
    ],
    "min_lr": [(lambda v=v: optim.plateau(0.1, min_lr=v)) for v in (-1.0, 0.2, NAN, None)],
    "threshold": [(lambda v=v: optim.plateau(0.1, threshold=v)) for v in (-1.0, 1.0, NAN)],
    "cooldown": [(lambda v=v: optim.plateau(0.1, cooldown=v)) for v in (-1, 1.5, NAN)],
    "decay": [(lambda v=v: optim.inverse_time(0.1, v)) for v in (-1.0, INF, NAN, None)],
    "l1": [
        *(made(l1=v) for v in (-1.0, NAN, INF, "0.1", True)),
        *((lambda v=v: xpnet.fit(X, T, epochs=1, l1=v)) for v in (-1.0, NAN)),
        *((lambda v=v: xpnet.fit_many(mlp([3, 2]), (X, T), l1=v)) for v in (-1.0, "x")),
        *((lambda v=v: xpnet.fit_many(mlp([3, 2]), (X, T), grid={"l1": [v]})) for v in (-1, NAN)),
    ],
    "every": [(lambda v=v: optim.step_decay(0.1, v)) for v in (0, 2.5, NAN, None)],
    "steps": [
        (lambda v=v, make=make: make(0.1, v))
        for make in (optim.cosine, optim.exponential)
        for v in (0, -3, 2.5, NAN)
    ],
    "end": [lambda: optim.cosine(0.1, 5, end=-1.0), lambda: optim.exponential(0.1, 5, end=NAN)],
    "warmup": [
        lambda: optim.constant(0.1, warmup=-1),
        lambda: optim.cosine(0.1, 5, warmup=2.5),
        lambda: optim.step_decay(0.1, 5, warmup=NAN),
        lambda: optim.inverse_time(0.1, 5, warmup=-1),
        lambda: optim.plateau(0.1, warmup=1.5),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "call"),
    [
        pytest.param(name, call, id=f"{name}{i}")
        for name, calls in BAD.items()
        for i, call in enumerate(calls)
    ],
)
def test_what_cannot_be_is_refused_by_name(name: str, call: Callable[[], Any]) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    message = str(caught.value)
    assert name in message
    assert "\n" not in message
    assert len(message) < 200


@pytest.mark.parametrize("number", [3, 3.0, np.int8(3), np.float32(3), np.array(3), Fraction(3)])
def test_whole_numbers_of_any_type_are_taken(number: Any) -> None:
    count = whole("n", number, 3, 3)
    assert (count, type(count)) == (3, int)


@pytest.mark.parametrize("number", [0.5, np.float32(0.5), np.array(0.5), Fraction(1, 2)])
def test_numbers_of_any_type_are_taken(number: Any) -> None:
    assert real("x", number, 0.5, 0.5, "[]") == 0.5


@pytest.mark.parametrize(
    ("ends", "taken"), [("[]", [0, 1]), ("[)", [0]), ("(]", [1]), ("()", list[int]())]
)
def test_the_ends_of_an_interval(ends: str, taken: list[int]) -> None:
    for end in (0, 1):
        if end in taken:
            assert real("x", end, 0.0, 1.0, ends) == end
        else:
            with pytest.raises(UsageError, match=f"x is {end}; expected a finite number [<>]"):
                real("x", end, 0.0, 1.0, ends)


def test_settings_of_every_right_kind_train() -> None:
    rule = optim.Momentum(np.float32(0.1), momentum=0)  # type: ignore[arg-type]
    trainer = Trainer(mlp([3.0, np.int64(4), 2], seed=2**40), rule, clip_norm=1)  # type: ignore[list-item]
    history = trainer.fit(X, T, epochs=np.int32(2), batch_size=5.0, save_seconds=INF)  # type: ignore[arg-type]
    assert len(history.epochs) == 2


def itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "call",
    [
        lambda value: xpnet.select(value),
        lambda value: xpnet.select("cpu", value),
        lambda value: xpnet.select("cpu", precision=value),
        lambda value: xpnet.Trainer(xpnet.mlp([3, 2]), backend=value),
        lambda value: xpnet.Trainer(xpnet.mlp([3, 2]), scaling=value),
        lambda value: xpnet.Model.load(value),
        lambda value: xpnet.Graph().input(value),
        lambda value: xpnet.data.split(np.arange(9), 0.5, seed=value),
        lambda value: xpnet.data.standardize([value, [1.0]]),
        lambda value: xpnet.jacobian(xpnet.Graph(), value, "x", "x"),
        lambda value: xpnet.jacobian(xpnet.Graph(), {}, "x", value),
    ],
)
@pytest.mark.parametrize(
    "value", [np.ones((30, 4)), 1.5, {1: 2}, itself(), b"x", {1.0}, object()], ids=type
)
def test_a_value_of_another_kind_is_refused_in_one_line(call: Any, value: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, UsageError)) as caught:
        call(value)
    assert "\n" not in str(caught.value)


def test_errors_pass_between_processes() -> None:
    """A pool of processes pickles what its workers raise."""
    found = pickle.loads(pickle.dumps(NonFiniteLossError("no\nnumber", 3, 40)))
    assert (str(found), found.epoch, found.step) == ("no\\nnumber", 3, 40)
    assert str(pickle.loads(pickle.dumps(UsageError("a\x1b[2J")))) == "a\\x1b[2J"
