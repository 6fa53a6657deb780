"""Calls of the public API with bad arguments.

A call returns, or raises an error of xpnet's, a TypeError, ValueError or KeyError, in one line. A
training that it allows ends in finite numbers. Legal numbers that are only huge are left out.
"""

from __future__ import annotations

import decimal
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from campaign import Broken, Trial, answer, run, start, status_of

import xpnet
from xpnet import optim
from xpnet.data import Encoder, Scaling, class_weights, split, standardize
from xpnet.errors import DeviceError, NonFiniteLossError

KIND = "a bad argument ends in one line"
RNG = np.random.default_rng(0)
X = RNG.standard_normal((20, 3))
T = (X[:, 0] > 0).astype(int)

RECURSIVE: list[Any] = []
RECURSIVE.append(RECURSIVE)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 2, 7, 0.5, -0.0, 2.7, math.nan, math.inf, -math.inf, 1 + 2j, "",
    "abc", "relu", "7", "\0", b"x", [], [1], [2.5], [[1], [1, 2]], ["a", 1], [None], RECURSIVE, (),
    (1, 2, 3), {}, {"a": 1}, {1: 2}, set(), range(3), range(0), object(), len, int, ...,
    NotImplemented, Path("/nonexistent/a"), decimal.Decimal("NaN"), date(2026, 1, 1),
    (i for i in range(3)), np.float32(np.nan), np.int8(-1), np.bool_(True), np.str_("a"),
    np.array(3), np.empty(0), np.empty((0, 3)), np.empty((3, 0)), np.ones((20, 4)),
    np.ones((20, 3, 1)), np.ones(19), np.full((20, 3), np.nan), np.full((20, 3), 1e300),
    np.ones((20, 3), complex), np.ones((20, 3), "U1"), np.ones((20, 3), object),
    np.array([None] * 20), np.ones(20, "M8[s]"), np.ones(20, "i4,f8"), np.ma.masked_array(X, X > 0),
    np.asmatrix(X), np.full(20, -1), np.full(20, 2**62), T[:, None],
    np.broadcast_to(np.float32(1), (20, 3)), X.astype(">f8"), X.astype(np.longdouble), X.T,
    Scaling(np.nan, 1.0), Scaling(0.0, 0.0), Scaling(np.zeros(9), 1.0), Scaling("a", None),
)  # fmt: skip


def make(network: Any = None, optimizer: Any = None, **options: Any) -> xpnet.Trainer:
    network = xpnet.mlp([3, 4, 2]) if network is None else network
    return xpnet.Trainer(network, optimizer, **options)


def fit(of: Callable[[], xpnet.Trainer] = make, **arguments: Any) -> xpnet.Trainer:
    """A training of which every parameter is finite."""
    trainer = of()
    trainer.fit(**arguments)
    if not all(np.isfinite(p).all() for p in trainer.params.values()):
        raise Broken(KIND, "fit returns with parameters that are not finite")
    return trainer


def with_optimizer(kind: str, **arguments: Any) -> xpnet.Trainer:
    return fit(lambda: make(None, optim.OPTIMIZERS[kind](**arguments)), x=X, t=T, epochs=1)


def with_trainer(**arguments: Any) -> xpnet.Trainer:
    return fit(lambda: make(**arguments), x=X, t=T, epochs=1)


def with_network(**arguments: Any) -> xpnet.Trainer:
    return fit(lambda: make(xpnet.mlp(**arguments)), x=X, t=T, epochs=1)


def with_schedule(kind: str, **arguments: Any) -> xpnet.Trainer:
    return with_optimizer("sgd", lr=getattr(optim, kind)(**arguments))


def with_graph(name: Any, other: Any, value: Any, output: Any, wrt: Any) -> Any:
    graph = xpnet.Graph()
    a, b = graph.input(name), graph.input(other)
    product = graph.rename(xpnet.functions.exp(a * b), "y")
    result, tape = graph.forward({name: value, other: 2.0}, product if output == "y" else output)
    return result, graph.backward(tape, wrt)


def with_jacobian(inputs: Any, output: Any, wrt: Any, diagonal: Any, batched: Any) -> Any:
    graph = xpnet.Graph()
    xpnet.functions.tanh(graph.input("a"))
    return xpnet.jacobian(graph, inputs, output, wrt, diagonal=diagonal, batched=batched)


def with_formula(value: Any, other: Any, axis: Any, shape: Any) -> Any:
    graph = xpnet.Graph()
    a = graph.input("a")
    total = xpnet.functions.sum(a * other, axis=axis)
    return graph.forward({"a": value}, total, xpnet.functions.reshape(a, shape))


# Each call with arguments that are right.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "Trainer.fit": (fit, {
        "x": X, "t": T, "epochs": 2, "batch_size": 5, "validation": (X, T), "patience": 1,
        "metric": "f1", "class_weight": "balanced", "sample_weight": np.ones(20),
        "callbacks": (), "stop": None, "folder": None,
        "resume": False, "save_seconds": 60.0, "extra": None, "progress": False,
    }),
    "Trainer": (with_trainer, {
        "network": None, "optimizer": None, "weight_decay": 0.0, "clip_norm": None, "seed": 0,
        "backend": None, "dtype": "float32", "scaling": Scaling(), "target_scaling": None,
        "classes": ("a", "b"), "columns": ("u", "v", "w"), "encoder": None,
    }),
    "Model": (lambda threshold, encoder: xpnet.Model(
        xpnet.mlp([3, 2]), threshold=threshold, encoder=encoder,
    ), {"threshold": 0.5, "encoder": None}),
    "Encoder.of": (lambda table, most, standardize: Encoder.of(
        table, most=most, standardize=standardize,
    ).encode(X), {"table": X, "most": 5, "standardize": True}),
    "metrics": (lambda name, t, predicted, probabilities: xpnet.metrics.measure(
        name, t, predicted, probabilities,
    ), {"name": "roc_auc", "t": T, "predicted": T, "probabilities": T * 0.5}),
    "best_threshold": (lambda t, p: xpnet.metrics.best_threshold(t, p), {"t": T, "p": T * 0.5}),
    "mlp": (with_network, {
        "sizes": [3, 4, 2], "activation": "relu", "loss": "softmax", "dropout": 0.1, "init": "auto",
        "seed": 0, "params": None,
    }),
    "regression": (fit, {
        "of": lambda: make(xpnet.mlp([3, 2], loss="squared")), "x": X, "t": X[:, :2], "epochs": 1,
        "sample_weight": None, "validation": None,
    }),
    "evaluate": (lambda x, t: make().evaluate(x, t), {"x": X, "t": T}),
    "predict": (lambda x: make().predict(x), {"x": X}),
    "predict_proba": (lambda x: make().predict_proba(x), {"x": X}),
    "hidden": (lambda x: make().hidden(x), {"x": X}),
    "Model.load": (lambda path: xpnet.Model.load(path), {"path": "nothing.npz"}),
    "select": (xpnet.select, {
        "device": "cpu", "library": None, "dtype": "float32", "quiet": True, "precision": "float32",
    }),
    "split": (split, {"t": T, "fraction": 0.2, "seed": 0, "stratify": True}),
    "standardize": (standardize, {"x": X}),
    "class_weights": (class_weights, {"t": T, "weights": "balanced"}),
    "PoissonLoss": (fit, {
        "of": lambda: make(xpnet.mlp([3, 2], loss="poisson")), "x": X, "t": np.abs(X[:, :2]),
        "epochs": 1, "sample_weight": None, "validation": None,
    }),
    "datasets.load": (xpnet.datasets.load, {"name": "digits", "data_dir": None}),
    "optim.SGD": (with_optimizer, {"kind": "sgd", "lr": 0.1}),
    "optim.Momentum": (with_optimizer, {"kind": "momentum", "lr": 0.1, "momentum": 0.9}),
    "optim.Adam": (with_optimizer, {
        "kind": "adam", "lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8,
    }),
    "optim.cosine": (with_schedule, {
        "kind": "cosine", "lr": 0.1, "steps": 9, "end": 0.0, "warmup": 2,
    }),
    "optim.inverse_time": (with_schedule, {
        "kind": "inverse_time", "lr": 0.1, "decay": 0.1, "warmup": 0,
    }),
    "optim.plateau": (with_schedule, {
        "kind": "plateau", "lr": 0.1, "factor": 0.5, "patience": 2, "min_lr": 0.0,
        "threshold": 0.0, "cooldown": 0, "warmup": 0,
    }),
    "optim.step_decay": (with_schedule, {
        "kind": "step_decay", "lr": 0.1, "every": 2, "factor": 0.1, "warmup": 0,
    }),
    "Graph": (with_graph, {"name": "a", "other": "b", "value": X, "output": "y", "wrt": ["a"]}),
    "formula": (with_formula, {"value": X, "other": 2.0, "axis": 0, "shape": (3, 20)}),
    "jacobian": (with_jacobian, {
        "inputs": {"a": X[:2]}, "output": "Tanh1", "wrt": "a", "diagonal": False, "batched": False,
    }),
}  # fmt: skip
# What says which of our own calls to make is no argument of xpnet's.
FIXED = ("kind", "of")
ALLOWED = (TypeError, ValueError, KeyError, DeviceError, NonFiniteLossError)


def short(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name}={' '.join(repr(v).split())[:60]}" for name, v in arguments.items())


def attempt(trial: Trial) -> Iterator[str]:
    name = trial.one_of(*CALLS)
    call, right = CALLS[name]
    names = [key for key in right if key not in FIXED]
    bad = {trial.one_of(*names): trial.one_of(*VALUES) for _ in range(trial.one_of(1, 1, 2))}

    def command() -> int:
        warnings.simplefilter("ignore")
        os.chdir(trial.folder)
        try:
            with np.errstate(all="ignore"):
                answer(KIND, lambda: call(**{**right, **bad}), *ALLOWED, seconds=3.0)
        except Broken as fault:
            (trial.folder / "fault").write_text(str(fault))
            return 1
        return 0

    # In a process of its own, which a call may end.
    if status := status_of(KIND, start(command, trial.folder)):
        words = (trial.folder / "fault").read_text() if status > 0 else f"ends in {status}"
        raise Broken(KIND, f"{name}({short(bad)}): {words}")
    yield KIND


if __name__ == "__main__":
    sys.exit(run(attempt))
