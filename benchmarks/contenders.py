"""Who trains: each as its own users would write it, fast.

A contender is a function of the problem that returns ``epoch(order) -> losses``: it trains one
pass over the batches whose rows `order`, shape=(steps, batch), names, and returns each step's
loss (or the mean of all, where a library tells no more). All start from the same weights and see
the same batches; x is uint8 on the host and may be brought to any form once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.problems import Problem, products
from benchmarks.worker import Skipped

__all__ = ["BFLOAT16", "CONTENDERS", "FLOORS", "reference"]

Epoch = Callable[[np.ndarray], np.ndarray]
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # Adam's, everywhere


# -- xpnet -----------------------------------------------------------------------------


def _xpnet(library: str, precision: str = "float32") -> Callable[[Problem], Epoch]:
    def contender(problem: Problem) -> Epoch:
        import xpnet
        from xpnet.trainer import Trainer

        network = xpnet.mlp(problem.sizes, problem.case.activation)
        adam = problem.case.optimizer == "adam"
        rule = xpnet.optim.Adam(problem.lr) if adam else xpnet.optim.SGD(problem.lr)
        trainer = Trainer(
            replace(network, params=problem.params),
            rule,
            backend=xpnet.select("cpu", library, precision=precision),
        )
        feed = trainer.feed
        targets = feed.targets(problem.t, classes=True)
        data = (feed.samples(problem.x), feed.backend.asarray(targets))

        def epoch(order: np.ndarray) -> np.ndarray:
            losses = []
            rows = feed.backend.asarray(order)
            for params, state, chunk in trainer.run(trainer.params, trainer.state, data, rows):
                trainer.params, trainer.state = params, state
                losses.append(chunk)
            return np.concatenate(losses)

        return epoch

    return contender


# -- Plain NumPy -----------------------------------------------------------------------


_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "relu": lambda a: np.maximum(a, 0),
    "tanh": np.tanh,
}
# The derivatives, from the outputs.
_SLOPES: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda y: (1 - y) * y,
    "relu": lambda y: y > 0,
    "tanh": lambda y: 1 - y * y,
}


def _book(problem: Problem, dtype: type) -> Epoch:
    """The book's training loop in plain NumPy: layers, one-hot targets, images scaled once.

    Its layers also compute the gradient of the images; and the loss that it records is the one
    after the update, a second forward pass. What is returned is the loss before it, as elsewhere.
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
    """What every contender's losses are held against: plain NumPy in float64."""
    return _book(problem, np.float64)


def book(problem: Problem) -> Epoch:
    return _book(problem, np.float32)


# -- PyTorch ---------------------------------------------------------------------------


def _pytorch(mode: str) -> Callable[[Problem], Epoch]:
    """nn.Sequential, autograd, torch.optim with its fused updates, data as tensors in memory.

    "compile" compiles forward, loss and backward as its tutorial does; "autocast" is the same
    as eager under torch.autocast in bfloat16.
    """

    def contender(problem: Problem) -> Epoch:
        import torch
        from torch import nn

        x = torch.from_numpy(problem.x).float() / 255
        t = torch.from_numpy(problem.t).long()
        activation = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}
        modules: list[Any] = []
        for i, (inputs, outputs) in enumerate(pairwise(problem.sizes), 1):
            linear = nn.Linear(inputs, outputs)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(problem.params[f"W{i}"].T))
                linear.bias.copy_(torch.from_numpy(problem.params[f"b{i}"]))
            modules += [linear, activation[problem.case.activation]()]
        model = nn.Sequential(*modules[:-1])
        optimizer: Any
        if problem.case.optimizer == "adam":
            optimizer = torch.optim.Adam(
                model.parameters(), lr=problem.lr, betas=(BETA1, BETA2), eps=EPS, fused=True
            )
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=problem.lr, fused=True)
        criterion = nn.CrossEntropyLoss()

        def loss_of(x: Any, t: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
                return criterion(model(x), t)

        forward = torch.compile(loss_of) if mode == "compile" else loss_of

        def epoch(order: np.ndarray) -> np.ndarray:
            losses = []
            for rows in torch.from_numpy(order):
                optimizer.zero_grad()
                loss = forward(x[rows], t[rows])
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())  # read back once an epoch, as xpnet does
            return np.asarray(torch.stack(losses).float().numpy())

        return epoch

    return contender


# -- JAX -------------------------------------------------------------------------------


def _jax(scan: bool) -> Callable[[Problem], Epoch]:
    """value_and_grad and the update under one jit, buffers donated; data in memory.

    With `scan` a whole epoch is one call; without, each step is, and the batch's rows are
    gathered in it.
    """

    def contender(problem: Problem) -> Epoch:
        import jax
        import jax.numpy as jnp

        x = jnp.asarray(problem.x.astype(np.float32) / np.float32(255))
        t = jnp.asarray(problem.t)
        params = {k: jnp.asarray(v, jnp.float32) for k, v in problem.params.items()}
        zeros = {k: jnp.zeros_like(v) for k, v in params.items()}
        adam = problem.case.optimizer == "adam"
        carry: Any = (params, (zeros, {k: v.copy() for k, v in zeros.items()}, jnp.float32(0.0)))
        if not adam:
            carry = (params, ())
        layers = len(problem.sizes) - 1
        activation = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu, "tanh": jnp.tanh}
        act = activation[problem.case.activation]

        def loss_of(params: Any, x: Any, t: Any) -> Any:
            for i in range(1, layers + 1):
                x = x @ params[f"W{i}"] + params[f"b{i}"]
                if i < layers:
                    x = act(x)
            picked = jnp.take_along_axis(jax.nn.log_softmax(x), t[:, None], axis=1)
            return -jnp.mean(picked)

        def step(carry: Any, x: Any, t: Any, rows: Any) -> tuple[Any, Any]:
            params, state = carry
            loss, grads = jax.value_and_grad(loss_of)(params, x[rows], t[rows])
            if adam:
                m, v, k = state
                k = k + 1
                m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grads)
                v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grads)
                lr = problem.lr * jnp.sqrt(1 - BETA2**k) / (1 - BETA1**k)
                params = jax.tree.map(
                    lambda p, m, v: p - lr * m / (jnp.sqrt(v) + EPS), params, m, v
                )
                return (params, (m, v, k)), loss
            return (jax.tree.map(lambda p, g: p - problem.lr * g, params, grads), ()), loss

        if scan:

            def run(carry: Any, x: Any, t: Any, order: Any) -> Any:
                return jax.lax.scan(lambda carry, rows: step(carry, x, t, rows), carry, order)

            compiled = jax.jit(run, donate_argnums=0)

            def epoch(order: np.ndarray) -> np.ndarray:
                nonlocal carry
                carry, losses = compiled(carry, x, t, order)
                return np.asarray(losses)
        else:
            compiled = jax.jit(step, donate_argnums=0)

            def epoch(order: np.ndarray) -> np.ndarray:
                nonlocal carry
                losses = []
                for rows in order:
                    carry, loss = compiled(carry, x, t, rows)
                    losses.append(loss)
                return np.array(jnp.stack(losses))

        return epoch

    return contender


# -- scikit-learn ----------------------------------------------------------------------


def sklearn(problem: Problem) -> Epoch:
    """MLPClassifier, a call of partial_fit for each epoch; tells the mean loss of the epoch."""
    from sklearn.neural_network import MLPClassifier

    x, t = problem.x.astype(np.float32) / np.float32(255), problem.t
    model = MLPClassifier(
        hidden_layer_sizes=tuple(problem.sizes[1:-1]),
        activation={"sigmoid": "logistic"}.get(problem.case.activation, problem.case.activation),
        solver=problem.case.optimizer, learning_rate_init=problem.lr, momentum=0.0, alpha=0.0,
        beta_1=BETA1, beta_2=BETA2, epsilon=EPS, batch_size=problem.batch, shuffle=False,
    )  # fmt: skip
    if problem.sizes[-1] < 3:
        raise Skipped("two classes are one output in scikit-learn: another network")

    def set_weights() -> None:
        # In place: the optimizer holds the same arrays, and starts anew with them.
        for i, (W, b) in enumerate(zip(model.coefs_, model.intercepts_, strict=True), 1):
            W[...], b[...] = problem.params[f"W{i}"], problem.params[f"b{i}"]

    classes = np.arange(problem.sizes[-1])
    started = False
    gathered: dict[int, np.ndarray] = {}

    def epoch(order: np.ndarray) -> np.ndarray:
        nonlocal started
        if len(order) not in gathered:
            gathered[len(order)] = np.empty((order.size, x.shape[1]), np.float32)
        # Into memory that is there: a new array of this size costs more than the gather.
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


def _floor(library: str) -> Callable[[Problem], Epoch]:
    """The step's matrix products alone, operands and results in memory that is there."""

    def contender(problem: Problem) -> Epoch:
        rng = np.random.default_rng(0)
        asarray: Callable[[np.ndarray], Any] = np.asarray
        matmul: Callable[..., Any] = np.matmul
        if library == "torch":
            import torch

            matmul = torch.mm

            def asarray(array: np.ndarray) -> Any:
                return torch.from_numpy(array).clone()  # aligned

        pairs = []
        for i, (inputs, outputs) in enumerate(pairwise(problem.sizes)):
            x, W, g = (
                asarray(rng.standard_normal(shape, dtype=np.float32))
                for shape in ((problem.batch, inputs), (inputs, outputs), (problem.batch, outputs))
            )
            pairs += [(x, W), (x.T, g)]
            if i:
                pairs.append((g, W.T))
        calls = [(a, b, a @ b) for a, b in pairs]
        assert len(calls) == len(products(problem.sizes, problem.batch))

        def epoch(order: np.ndarray) -> np.ndarray:
            for _ in range(len(order)):
                for a, b, c in calls:
                    matmul(a, b, out=c)
            return np.empty(0)

        return epoch

    return contender


CONTENDERS: dict[str, Callable[[Problem], Epoch]] = {
    "xpnet numpy": _xpnet("numpy"),
    "xpnet torch": _xpnet("torch"),
    "xpnet jax": _xpnet("jax"),
    "book loop": book,
    "pytorch eager": _pytorch("eager"),
    "pytorch compile": _pytorch("compile"),
    "jax step": _jax(scan=False),
    "jax scan": _jax(scan=True),
    "scikit-learn": sklearn,
    "xpnet torch bfloat16": _xpnet("torch", "bfloat16"),
    "xpnet jax bfloat16": _xpnet("jax", "bfloat16"),
    "pytorch autocast": _pytorch("autocast"),
    "floor numpy": _floor("numpy"),
    "floor torch": _floor("torch"),
}
# Products in bfloat16: a lane of their own.
BFLOAT16 = ("xpnet torch bfloat16", "xpnet jax bfloat16", "pytorch autocast")
# No training: the bare products.
FLOORS = ("floor numpy", "floor torch")
