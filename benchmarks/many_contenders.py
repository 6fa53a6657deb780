"""The contenders of `benchmarks.many`, each written as its own users would train many networks.

A contender takes the problem and returns ``epoch(order) -> losses``. `order`, shape=(steps, models,
batch), lists the rows of each model's batches; the losses have shape=(steps, models). All start
from the same weights, and each model has its own rate and batches. Where models train one after the
other, only the first train: one by one a single model, and of stacks the first.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import xpnet
from benchmarks.jax_training import PRECISIONS, adam_update
from benchmarks.problems import BETA1, BETA2, EPS, Epoch, Problem
from benchmarks.pytorch_training import allow_tf32
from benchmarks.worker import Skipped, Worker, stop
from xpnet import optim
from xpnet.many.chunks import even_chunks, models_at_once
from xpnet.many.step import make_many_step
from xpnet.models.stack import form_of
from xpnet.trainer import Trainer

__all__ = [
    "ALONE", "CONTENDERS", "STACKS", "TWO_PROCESSES", "ManyProblem", "at_once", "batches",
    "many_problem", "one_by_one", "reference",
]  # fmt: skip

HALVES = 2
TWO_PROCESSES = "xpnet numpy two processes"
SCAN_STEPS = 64  # in a call of JAX's scan on a GPU


class ManyProblem(NamedTuple):
    """K models of one form; their parameters have a first axis of models."""

    problem: Problem
    models: int
    params: dict[str, np.ndarray]  # float32, shape=(K, ...)
    lrs: np.ndarray  # float32, shape=(K,)

    def part(self, models: slice) -> ManyProblem:
        """Return the problem of some of the models."""
        params = {name: p[models] for name, p in self.params.items()}
        return ManyProblem(self.problem, len(self.lrs[models]), params, self.lrs[models])


def many_problem(problem: Problem, models: int) -> ManyProblem:
    """Draw the models' weights; their rates go from half the case's rate to the whole."""
    rng, params = np.random.default_rng(0), dict[str, np.ndarray]()
    for i, (fan_in, fan_out) in enumerate(pairwise(problem.sizes), 1):
        weights = rng.standard_normal((models, fan_in, fan_out), dtype=np.float32)
        params[f"W{i}"] = weights / np.float32(np.sqrt(fan_in))
        params[f"b{i}"] = np.zeros((models, fan_out), np.float32)
    return ManyProblem(
        problem, models, params, np.linspace(problem.lr, problem.lr / 2, models, dtype=np.float32)
    )


def batches(problem: Problem, models: int, steps: int) -> np.ndarray:
    """Return the rows of each model's batches, shape=(steps, models, batch)."""
    shape = (steps, models, problem.batch)
    return np.random.default_rng(1).integers(0, len(problem.x), shape, dtype=np.int32)


# -- xpnet -----------------------------------------------------------------------------


def _rule(many: ManyProblem) -> Any:
    rate = float(many.lrs[0])
    return optim.Adam(rate) if many.problem.case.optimizer == "adam" else optim.SGD(rate)


def _trainer(many: ManyProblem, library: str) -> Trainer:
    """Return the trainer of the first model, also for the feed that all of them share."""
    case = many.problem.case
    backend = xpnet.select(case.device, library, precision=case.precision)
    network = xpnet.mlp(many.problem.sizes, case.activation)
    params = {name: p[0].astype(np.float64) for name, p in many.params.items()}
    return Trainer(replace(network, params=params), _rule(many), backend=backend)


def _data(many: ManyProblem, trainer: Trainer) -> tuple[Any, ...]:
    targets = trainer.feed.targets(many.problem.t, classes=True)
    return trainer.feed.samples(many.problem.x), trainer.feed.backend.asarray(targets)


def one_by_one(many: ManyProblem, library: str) -> Epoch:
    """Train one model as xpnet does without stacks."""
    trainer = _trainer(many, library)
    data, backend = _data(many, trainer), trainer.feed.backend

    def epoch(order: np.ndarray) -> np.ndarray:
        rows, losses = backend.asarray(np.ascontiguousarray(order[:, 0])), []
        for params, state, chunk in trainer.run(trainer.params, trainer.state, data, rows):
            trainer.params, trainer.state = params, state
            losses.append(backend.to_numpy(chunk))
        return np.concatenate(losses)[:, None]

    return epoch


def at_once(many: ManyProblem, library: str) -> int:
    """Return how many of the models xpnet puts together."""
    case = many.problem.case
    backend = xpnet.select(case.device, library, precision=case.precision)
    network, slots = xpnet.mlp(many.problem.sizes, case.activation), len(_rule(many).slots)
    most = models_at_once(network, many.problem.batch, slots, "float32", backend)
    return max(even_chunks(many.models, most))


def stack(many: ManyProblem, library: str) -> Epoch:
    """Train one stack of all models."""
    trainer = _trainer(many, library)
    data, backend = _data(many, trainer), trainer.feed.backend
    network, rule = trainer.model.network, _rule(many)
    step = make_many_step(network, form_of(network), optim.PerModel(rule, ("lr",)))
    run = backend.loop(step, trainer.feed.prepare)
    params = {name: backend.asarray(p.copy()) for name, p in many.params.items()}
    state = optim.init(step.rule, params) | {"each.lr": backend.asarray(many.lrs.copy())}

    def epoch(order: np.ndarray) -> np.ndarray:
        nonlocal params, state
        rows, losses = backend.asarray(np.ascontiguousarray(order)), []
        for now, kept, chunk in run(params, state, data, rows):
            params, state = now, kept
            losses.append(backend.to_numpy(chunk))
        return np.concatenate(losses)

    return epoch


def stacks(many: ManyProblem, library: str) -> Epoch:
    """Train the first stack of as many models as xpnet puts together."""
    first = many.part(slice(at_once(many, library)))
    return one_by_one(first, library) if first.models == 1 else stack(first, library)


def two_processes(many: ManyProblem) -> Epoch:
    """Let two processes train one model each, at the same time."""
    if many.models < HALVES:
        raise Skipped("one model does not make two halves")
    setup = {"contender": "xpnet numpy one by one", "device": "cpu"}
    # As joblib does: two processes share two cores. This process has loaded its BLAS already.
    with mock.patch.dict(os.environ, {"OPENBLAS_NUM_THREADS": "1"}):
        workers = [Worker("benchmarks.many", setup) for _ in range(HALVES)]
    case = {"case": asdict(many.problem.case), "models": many.models}
    pool = ThreadPoolExecutor(HALVES)
    for worker in workers:
        worker.ready()

    def epoch(order: np.ndarray) -> np.ndarray:
        def ask(half: int) -> list[list[float]]:
            asked = {"do": "run", "steps": len(order), "model": half, **case}
            found: list[list[float]] = workers[half].ask(**asked)["losses"]
            return found

        return np.concatenate([*map(np.array, pool.map(ask, range(HALVES)))], axis=1)

    weakref.finalize(epoch, _end, pool, workers)
    return epoch


def _end(pool: ThreadPoolExecutor, workers: list[Worker]) -> None:
    pool.shutdown()
    stop(workers)


# -- Plain NumPy -----------------------------------------------------------------------


def _by_hand(many: ManyProblem, dtype: Any) -> Epoch:
    """Write the step of a stack in plain NumPy, in place wherever that is possible."""
    problem = many.problem
    x, t = problem.x.astype(dtype) / dtype(255), problem.t
    layers = len(problem.sizes) - 1
    W = [many.params[f"W{i}"].astype(dtype) for i in range(1, layers + 1)]
    b = [many.params[f"b{i}"].astype(dtype)[:, None] for i in range(1, layers + 1)]
    params = [*W, *b]
    rates = many.lrs.astype(dtype)[:, None, None]
    adam = problem.case.optimizer == "adam"
    m, v = ([np.zeros_like(p) for p in params] if adam else [] for _ in range(2))
    count, rows_of_one = 0, np.eye(problem.sizes[-1], dtype=dtype)

    def step(rows: np.ndarray) -> np.ndarray:
        nonlocal count
        inputs = [x[rows]]
        for i in range(layers):
            a = inputs[-1] @ W[i]
            a += b[i]
            if i < layers - 1:
                np.negative(a, out=a)
                np.exp(a, out=a)
                a += 1
                np.reciprocal(a, out=a)
            inputs.append(a)
        y = inputs.pop()
        y -= y.max(axis=-1, keepdims=True)
        labels = t[rows]
        true = np.take_along_axis(y, labels[..., None], axis=-1)[..., 0]
        np.exp(y, out=y)
        total = y.sum(axis=-1, keepdims=True)
        losses: np.ndarray = (np.log(total[..., 0]) - true).mean(axis=1)
        y /= total
        y -= rows_of_one[labels]
        y /= rows.shape[1]
        dW: list[Any] = [None] * layers
        db: list[Any] = [None] * layers
        for i in reversed(range(layers)):
            dW[i] = inputs[i].swapaxes(1, 2) @ y
            db[i] = y.sum(axis=1, keepdims=True)
            if i:
                dx = y @ W[i].swapaxes(1, 2)
                dx *= inputs[i]
                inputs[i] -= 1
                dx *= inputs[i]
                y = np.negative(dx, out=dx)
        count += 1
        for j, (p, g) in enumerate(zip(params, [*dW, *db], strict=True)):
            if adam:
                m[j] += (1 - BETA1) * (g - m[j])
                v[j] += (1 - BETA2) * (g * g - v[j])
                factor = dtype(np.sqrt(1 - BETA2**count) / (1 - BETA1**count))
                p -= rates * factor * m[j] / (np.sqrt(v[j]) + dtype(EPS))
            else:
                g *= rates
                p -= g
        return losses

    return lambda order: np.array([step(rows) for rows in order])


def by_hand(many: ManyProblem) -> Epoch:
    from xpnet.backend.cpu import keep_freed_memory

    keep_freed_memory()  # else each temporary array gets its pages anew, as in xpnet's loop
    return _by_hand(many, np.float32)


def reference(many: ManyProblem) -> Epoch:
    """Train in float64; every contender must match these losses."""
    return _by_hand(many, np.float64)


# -- JAX -------------------------------------------------------------------------------


def jax_vmap(many: ManyProblem) -> Epoch:
    """Map a step of one model, written by hand, over the models, inside a scan of the steps."""
    import jax
    import jax.numpy as jnp

    problem = many.problem
    if problem.case.device == "cuda":
        try:
            jax.devices("gpu")
        except RuntimeError:
            raise Skipped("JAX sees no usable GPU") from None
        jax.config.update("jax_default_matmul_precision", PRECISIONS[problem.case.precision])
    layers, adam = len(problem.sizes) - 1, problem.case.optimizer == "adam"
    x = jnp.asarray(problem.x.astype(np.float32) / np.float32(255))
    t = jnp.asarray(problem.t)
    params = {name: jnp.asarray(p) for name, p in many.params.items()}
    lrs = jnp.asarray(many.lrs)
    moments = [jax.tree.map(jnp.zeros_like, params) for _ in range(2)]
    carry: Any = (params, (*moments, jnp.zeros(many.models, jnp.float32)) if adam else ())

    def loss_of(params: Any, x: Any, t: Any) -> Any:
        for i in range(1, layers + 1):
            x = x @ params[f"W{i}"] + params[f"b{i}"]
            if i < layers:
                x = jax.nn.sigmoid(x)
        picked = jnp.take_along_axis(jax.nn.log_softmax(x), t[:, None], axis=1)
        return -jnp.mean(picked)

    def step(carry: Any, lr: Any, x: Any, t: Any, rows: Any) -> tuple[Any, Any]:
        params, state = carry
        loss, grads = jax.value_and_grad(loss_of)(params, x[rows], t[rows])
        if not adam:
            return (jax.tree.map(lambda p, g: p - lr * g, params, grads), ()), loss
        return adam_update(params, grads, state, lr), loss

    each = jax.vmap(step, in_axes=(0, 0, None, None, 0))

    def run(carry: Any, x: Any, t: Any, order: Any) -> Any:
        return jax.lax.scan(lambda carry, rows: each(carry, lrs, x, t, rows), carry, order)

    compiled = jax.jit(run, donate_argnums=0)
    length = SCAN_STEPS if problem.case.device == "cuda" else None

    def epoch(order: np.ndarray) -> np.ndarray:
        nonlocal carry
        losses = []
        for start in range(0, len(order), length or len(order)):
            carry, found = compiled(carry, x, t, order[start : start + (length or len(order))])
            losses.append(found)
        return np.concatenate([*map(np.asarray, losses)])

    return epoch


# -- PyTorch ---------------------------------------------------------------------------


def torch_func(many: ManyProblem) -> Epoch:
    """Train the ensemble of PyTorch's tutorial: stacked modules, vmap of grad, the update by hand.

    `torch.optim` has one rate for all models.
    """
    import torch
    from torch.func import functional_call, grad_and_value, stack_module_state, vmap

    problem, case = many.problem, many.problem.case
    if case.device == "cuda":
        if not torch.cuda.is_available():
            raise Skipped("torch sees no usable GPU")
        allow_tf32(torch, case.precision == "tf32")
    device = torch.device(case.device)

    def module() -> Any:
        parts: list[Any] = []
        for inputs, outputs in pairwise(problem.sizes):
            parts += [torch.nn.Linear(inputs, outputs), torch.nn.Sigmoid()]
        return torch.nn.Sequential(*parts[:-1])

    models = [module() for _ in range(many.models)]
    stacked, buffers = stack_module_state(models)
    base = models[0].to("meta")
    params: dict[str, Any] = {}
    for name in stacked:
        layer, what = name.split(".")
        value = many.params[f"{'W' if what == 'weight' else 'b'}{int(layer) // 2 + 1}"]
        # A Linear's weight is the transpose of W.
        value = value.swapaxes(1, 2).copy() if what == "weight" else value
        params[name] = torch.from_numpy(value.copy()).to(device)
    x = torch.from_numpy(problem.x).to(device).float() / 255
    t = torch.from_numpy(problem.t).to(device).long()
    lrs = torch.from_numpy(many.lrs).to(device)
    rates = {name: lrs.view(-1, *[1] * (p.ndim - 1)) for name, p in params.items()}
    adam, count = case.optimizer == "adam", 0
    m, v = ({k: torch.zeros_like(p) for k, p in params.items()} for _ in range(2))

    def loss_of(params: Any, x: Any, t: Any) -> Any:
        scores = functional_call(base, (params, buffers), (x,))
        return torch.nn.functional.cross_entropy(scores, t)

    gradients = vmap(grad_and_value(loss_of))

    def step(rows: Any) -> Any:
        nonlocal count
        grads, losses = gradients(params, x[rows], t[rows])
        count += 1
        factor = float(np.sqrt(1 - BETA2**count)) / (1 - BETA1**count)
        for name, p in params.items():
            g = grads[name]
            if adam:
                m[name].mul_(BETA1).add_(g, alpha=1 - BETA1)
                v[name].mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
                p.sub_(rates[name] * factor * m[name] / (v[name].sqrt().add_(EPS)))
            else:
                p.addcmul_(rates[name], g, value=-1.0)
        return losses

    def epoch(order: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            losses = [step(rows) for rows in torch.from_numpy(order).to(device).long()]
        return np.asarray(torch.stack(losses).cpu().numpy())

    return epoch


Contender = Callable[[ManyProblem], Epoch]
# By device, the most important first.
CONTENDERS: dict[str, dict[str, Contender]] = {
    "cpu": {
        "xpnet numpy": partial(stacks, library="numpy"),
        "xpnet numpy one by one": partial(one_by_one, library="numpy"),
        "by hand": by_hand,
        "xpnet jax": partial(stacks, library="jax"),
        "xpnet jax one by one": partial(one_by_one, library="jax"),
        "jax vmap": jax_vmap,
        "xpnet torch": partial(stacks, library="torch"),
        "xpnet torch one by one": partial(one_by_one, library="torch"),
        "torch func": torch_func,
        TWO_PROCESSES: two_processes,
        "xpnet numpy one stack": partial(stack, library="numpy"),
        "xpnet jax one stack": partial(stack, library="jax"),
    },
    "cuda": {
        "xpnet cupy": partial(stacks, library="cupy"),
        "jax vmap": jax_vmap,
        "xpnet cupy one by one": partial(one_by_one, library="cupy"),
        "xpnet torch": partial(stacks, library="torch"),
        "torch func": torch_func,
        "xpnet jax": partial(stacks, library="jax"),
    },
}
# Those that train stacks of as many models as xpnet puts together, with their library.
STACKS = {f"xpnet {library}": library for library in ("numpy", "torch", "jax", "cupy")}
# How many models these train, whatever K is.
ALONE = {
    **{f"xpnet {library} one by one": 1 for library in ("numpy", "torch", "jax", "cupy")},
    TWO_PROCESSES: HALVES,
}
