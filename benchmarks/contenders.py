"""The contenders, each written as its own users would write fast code.

A contender is a function that takes the problem and returns ``epoch(order) -> losses``. This trains
on the batches whose rows `order`, shape=(steps, batch), lists. It returns each step's loss, or one
mean loss if the library reports no more. All contenders start from the same weights and see the
same batches. x is uint8 on the host; a contender may convert it once.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

import xpnet
from benchmarks import jax_training, pytorch_training
from benchmarks.problems import BETA1, BETA2, EPS, Epoch, Problem, operands
from benchmarks.worker import Skipped
from xpnet.backend import Backend
from xpnet.errors import UsageError
from xpnet.trainer import Trainer

__all__ = [
    "BFLOAT16", "CONTENDERS", "FLOORS", "Contender", "Training", "captured_by", "reference",
    "training",
]  # fmt: skip


# -- xpnet -----------------------------------------------------------------------------


@dataclass
class Training:
    """An epoch of xpnet's trainer; it also reports what its backend could not fuse."""

    trainer: Trainer
    data: tuple[Any, ...]

    @property
    def fallbacks(self) -> list[str]:
        """See `xpnet.backend.Backend`; each line once, although every graph may report it."""
        return list(dict.fromkeys(self.trainer.feed.backend.fallbacks))

    def __call__(self, order: np.ndarray) -> np.ndarray:
        trainer, losses = self.trainer, []
        rows = trainer.feed.backend.asarray(order)
        for params, state, chunk in trainer.run(trainer.params, trainer.state, self.data, rows):
            trainer.params, trainer.state = params, state
            losses.append(trainer.feed.backend.to_numpy(chunk))
        return np.concatenate(losses)


def training(problem: Problem, backend: Backend) -> Training:
    """Return a backend's training, without the calls around an epoch."""
    network = xpnet.mlp(problem.sizes, problem.case.activation)
    adam = problem.case.optimizer == "adam"
    rule = xpnet.optim.Adam(problem.lr) if adam else xpnet.optim.SGD(problem.lr)
    trainer = Trainer(replace(network, params=problem.params), rule, backend=backend)
    feed = trainer.feed
    targets = feed.targets(problem.t, classes=True)
    return Training(trainer, (feed.samples(problem.x), feed.backend.asarray(targets)))


def captured_by(graphs: Any, backend: Backend, *, fused: bool = True) -> Backend:
    """Return a CuPy backend whose steps `graphs` captures, fused or with a kernel per operation."""
    from xpnet.arrays.dispatch import with_kernels
    from xpnet.backend.captured import captured_loop
    from xpnet.backend.cuda.gather import Gather
    from xpnet.backend.loop import gathering, on_rows

    kernels = backend.kernels if fused else {"matmul": backend.kernels["matmul"]}

    def loop(step: Any, prepare: Any, agree: Any = None) -> Any:
        one_by_one = gathering(partial(backend.xp.take, axis=0), prepare)
        gather = Gather(prepare, backend.fallbacks) if fused else one_by_one
        work = with_kernels(on_rows(step, gather), kernels)
        return captured_loop(work, graphs, backend.fallbacks)

    other = copy(backend)
    vars(other).update(loop=loop)
    return other


def _xpnet(
    library: str, precision: str | None = None, *, fused: bool = True
) -> Callable[[Problem], Epoch]:
    """Return xpnet's contender on a library, by default in the case's precision.

    On CuPy, `fused=False` runs a kernel for each operation.
    """

    def contender(problem: Problem) -> Epoch:
        try:
            backend = xpnet.select(
                problem.case.device, library, precision=precision or problem.case.precision
            )
        except UsageError as error:  # the library does not have this precision
            raise Skipped(str(error)) from None
        if not fused:
            from xpnet.backend.cuda.graphs import CupyGraphs

            backend = captured_by(CupyGraphs(0), backend, fused=False)
        return training(problem, backend)

    return contender


# -- Plain NumPy -----------------------------------------------------------------------


_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "relu": lambda a: np.maximum(a, 0),
    "tanh": np.tanh,
}
# The derivatives as functions of the outputs.
_SLOPES: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda y: (1 - y) * y,
    "relu": lambda y: y > 0,
    "tanh": lambda y: 1 - y * y,
}


def _book(problem: Problem, dtype: type) -> Epoch:
    """Run the book's training loop in plain NumPy: layers, one-hot targets, images scaled once.

    Its layers also compute the gradient of the images. It records the loss after the update, which
    takes a second forward pass. This function returns the loss before the update, as all others.
    """
    x = problem.x.astype(dtype) / dtype(255)
    t = np.eye(problem.sizes[-1], dtype=dtype)[problem.t]
    params: dict[str, np.ndarray] = {k: v.astype(dtype) for k, v in problem.params.items()}
    layers = len(problem.sizes) - 1
    act, slope = _ACTIVATIONS[problem.case.activation], _SLOPES[problem.case.activation]
    adam = problem.case.optimizer == "adam"
    m = {k: np.zeros_like(v) for k, v in params.items()}
    v = {k: np.zeros_like(v) for k, v in params.items()}
    count = 0

    def forward(x: np.ndarray, t: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, float]:
        inputs = [x]
        for i in range(1, layers + 1):
            a = np.dot(inputs[-1], params[f"W{i}"]) + params[f"b{i}"]
            if i < layers:
                a = act(a)
            inputs.append(a)
        y = np.exp(a - np.max(a, axis=-1, keepdims=True))
        y /= np.sum(y, axis=-1, keepdims=True)
        return inputs, y, float(-np.sum(t * np.log(y + dtype(1e-7))) / len(x))

    def step(x: np.ndarray, t: np.ndarray) -> float:
        nonlocal count
        inputs, y, loss = forward(x, t)
        grads = {}
        dout = (y - t) / len(x)
        for i in range(layers, 0, -1):
            if i < layers:
                dout = dout * slope(inputs[i])
            grads[f"W{i}"] = np.dot(inputs[i - 1].T, dout)
            grads[f"b{i}"] = np.sum(dout, axis=0)
            dout = np.dot(dout, params[f"W{i}"].T)
        count += 1
        lr = problem.lr * float(np.sqrt(1 - BETA2**count)) / (1 - BETA1**count)
        for key in params:
            if adam:
                m[key] += (1 - BETA1) * (grads[key] - m[key])
                v[key] += (1 - BETA2) * (grads[key] ** 2 - v[key])
                params[key] -= lr * m[key] / (np.sqrt(v[key]) + dtype(EPS))
            else:
                params[key] -= problem.lr * grads[key]
        forward(x, t)
        return loss

    return lambda order: np.array([step(x[rows], t[rows]) for rows in order])


def reference(problem: Problem) -> Epoch:
    """Train in plain NumPy in float64; every contender must match these losses."""
    return _book(problem, np.float64)


def book(problem: Problem) -> Epoch:
    return _book(problem, np.float32)


# -- scikit-learn ----------------------------------------------------------------------


def sklearn(problem: Problem) -> Epoch:
    """Train MLPClassifier with one call of partial_fit per epoch; it reports the mean loss."""
    from sklearn.neural_network import MLPClassifier

    x, t = problem.x.astype(np.float32) / np.float32(255), problem.t
    model = MLPClassifier(
        hidden_layer_sizes=tuple(problem.sizes[1:-1]),
        activation={"sigmoid": "logistic"}.get(problem.case.activation, problem.case.activation),
        solver=problem.case.optimizer, learning_rate_init=problem.lr, momentum=0.0, alpha=0.0,
        beta_1=BETA1, beta_2=BETA2, epsilon=EPS, batch_size=problem.batch, shuffle=False,
    )  # fmt: skip
    if problem.sizes[-1] < 3:
        raise Skipped("scikit-learn has one output for two classes, which is another network")

    def set_weights() -> None:
        # Write in place, since the optimizer holds the same arrays.
        for i, (W, b) in enumerate(zip(model.coefs_, model.intercepts_, strict=True), 1):
            W[...], b[...] = problem.params[f"W{i}"], problem.params[f"b{i}"]

    classes = np.arange(problem.sizes[-1])
    started = False
    gathered: dict[int, np.ndarray] = {}

    def epoch(order: np.ndarray) -> np.ndarray:
        nonlocal started
        if len(order) not in gathered:
            gathered[len(order)] = np.empty((order.size, x.shape[1]), np.float32)
        # Reuse the memory: a new array of this size costs more than the gather.
        rows, part = order.ravel(), gathered[len(order)]
        np.take(x, rows, axis=0, out=part, mode="clip")
        if not started:
            model.partial_fit(x[: problem.batch], t[: problem.batch], classes=classes)
            set_weights()
            optimizer = model._optimizer
            if problem.case.optimizer == "adam":
                for moment in (*optimizer.ms, *optimizer.vs):
                    moment[...] = 0
                optimizer.t = 0
            started = True
        model.partial_fit(part, t[rows])
        return np.array([model.loss_])

    return epoch


# -- The floor -------------------------------------------------------------------------


def floor(problem: Problem) -> Epoch:
    """Run only the step's matrix products, with operands and results in preallocated memory."""
    calls = [(a, b, a @ b) for a, b in operands(problem.sizes, problem.batch, np.asarray)]

    def epoch(order: np.ndarray) -> np.ndarray:
        for _ in range(len(order)):
            for a, b, c in calls:
                np.matmul(a, b, out=c)
        return np.empty(0)

    return epoch


Contender = Callable[[Problem], Epoch]
# Contenders by device. On the GPU, a case has one precision for all; on the CPU, those that
# multiply in bfloat16 are separate contenders.
CONTENDERS: dict[str, dict[str, Contender]] = {
    "cpu": {
        "xpnet numpy": _xpnet("numpy"),
        "xpnet torch": _xpnet("torch"),
        "xpnet jax": _xpnet("jax"),
        "book loop": book,
        "pytorch eager": pytorch_training.eager,
        "pytorch compile": pytorch_training.compiled,
        "jax step": jax_training.step,
        "jax scan": jax_training.scan,
        "scikit-learn": sklearn,
        "xpnet torch bfloat16": _xpnet("torch", "bfloat16"),
        "xpnet jax bfloat16": _xpnet("jax", "bfloat16"),
        "pytorch autocast": pytorch_training.autocast,
        "floor numpy": floor,
        "floor torch": pytorch_training.floor,
    },
    "cuda": {
        "xpnet cupy": _xpnet("cupy"),
        "xpnet cupy unfused": _xpnet("cupy", fused=False),
        "xpnet torch": _xpnet("torch"),
        "xpnet jax": _xpnet("jax"),
        "pytorch eager": pytorch_training.eager,
        "pytorch compile": pytorch_training.compiled,
        "pytorch graph": pytorch_training.graph,
        "jax step": jax_training.step,
        "jax scan": jax_training.scan,
        "jax scan unroll 4": partial(jax_training.scan, unroll=4),
        "floor torch": pytorch_training.floor,
    },
}
# These multiply in bfloat16 on the CPU, which is a lane of its own.
BFLOAT16 = ("xpnet torch bfloat16", "xpnet jax bfloat16", "pytorch autocast")
# These do not train; they compute only the products.
FLOORS = ("floor numpy", "floor torch")
