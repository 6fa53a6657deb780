"""Train in JAX as its users write fast code: one jit of gradient and update, donated buffers.

The data is on the device. Each call either gathers a batch and trains one step, or scans a whole
epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.problems import BETA1, BETA2, EPS, Epoch, Problem
from benchmarks.worker import Skipped

__all__ = ["PRECISIONS", "Step", "adam_update", "scan", "scanned", "step", "step_by_step"]

# On a GPU, only JAX multiplies float32 in TF32 by default, so each lane sets the precision.
PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32"}

# ((parameters, optimizer's state), x, t, rows) -> (new (parameters, state), loss)
Step = Callable[[Any, Any, Any, Any], tuple[Any, Any]]


def _parts(problem: Problem) -> tuple[Step, Any, Any, Any]:
    """Return the step, its initial carry, x and t."""
    import jax
    import jax.numpy as jnp

    if problem.case.device == "cuda":
        if problem.case.precision not in PRECISIONS:
            raise Skipped(f"JAX has no autocast: {' and '.join(PRECISIONS)} only")
        try:
            jax.devices("gpu")
        except RuntimeError:
            raise Skipped("JAX sees no usable GPU") from None
        jax.config.update("jax_default_matmul_precision", PRECISIONS[problem.case.precision])

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
            return adam_update(params, grads, state, problem.lr), loss
        return (jax.tree.map(lambda p, g: p - problem.lr * g, params, grads), ()), loss

    return step, carry, x, t


def adam_update(params: Any, grads: Any, state: Any, lr: Any) -> tuple[Any, Any]:
    """Return the parameters after a step of Adam, and (first moments, second moments, steps)."""
    import jax
    import jax.numpy as jnp

    m, v, k = state
    k = k + 1
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grads)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grads)
    lr = lr * jnp.sqrt(1 - BETA2**k) / (1 - BETA1**k)
    params = jax.tree.map(lambda p, m, v: p - lr * m / (jnp.sqrt(v) + EPS), params, m, v)
    return params, (m, v, k)


def step(problem: Problem) -> Epoch:
    """Make one call per step."""
    return step_by_step(*_parts(problem))


def step_by_step(one: Step, carry: Any, x: Any, t: Any) -> Epoch:
    """Compile one step, and call it for each batch."""
    import jax
    import jax.numpy as jnp

    compiled = jax.jit(one, donate_argnums=0)

    def epoch(order: np.ndarray) -> np.ndarray:
        nonlocal carry
        losses = []
        for rows in order:
            carry, loss = compiled(carry, x, t, rows)
            losses.append(loss)
        return np.array(jnp.stack(losses))

    return epoch


def scan(problem: Problem, unroll: int = 1) -> Epoch:
    """Make one call per epoch; each turn of the compiled loop runs `unroll` steps."""
    return scanned(*_parts(problem), unroll=unroll)


def scanned(one: Step, carry: Any, x: Any, t: Any, unroll: int = 1) -> Epoch:
    """Compile the loop over the batches of an epoch."""
    import jax

    def run(carry: Any, x: Any, t: Any, order: Any) -> Any:
        return jax.lax.scan(lambda carry, rows: one(carry, x, t, rows), carry, order, unroll=unroll)

    compiled = jax.jit(run, donate_argnums=0)

    def epoch(order: np.ndarray) -> np.ndarray:
        nonlocal carry
        carry, losses = compiled(carry, x, t, order)
        return np.asarray(losses)

    return epoch
