"""The contenders of `benchmarks.convolution`, each written as its own users would write fast code.

One that trains takes the problem and returns ``epoch(order) -> losses``, as in
`benchmarks.contenders`. One that runs a single convolution takes x, W, b, the gradient of the
output and the padding, and returns a function without arguments, which runs forward and backward
and returns the output and the gradients by x, W and b.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import xpnet
from benchmarks import im2col, pytorch_training
from benchmarks.contenders import Training
from benchmarks.image_problems import POOL, ImageProblem, Shape, layers
from benchmarks.jax_training import PRECISIONS, Step, adam_update, scanned, step_by_step
from benchmarks.problems import BETA1, BETA2, EPS, Epoch
from benchmarks.pytorch_training import Parts
from benchmarks.worker import Skipped
from xpnet.trainer import Trainer

__all__ = ["CONVOLUTIONS", "TRAININGS", "Call"]

# A convolution and its backward pass; returns y, dx, dW and db.
Call = Callable[[], tuple[Any, ...]]


# -- xpnet -----------------------------------------------------------------------------


def _xpnet(library: str, problem: ImageProblem) -> Epoch:
    form = problem.form
    network = xpnet.cnn(
        form.image,
        [[conv.filters for conv in block] for block in form.blocks],
        [form.hidden],
        form.outputs,
        kernel=[[conv.kernel for conv in block] for block in form.blocks],
        padding=[[conv.padding for conv in block] for block in form.blocks],
        pool=POOL,
        dropout=form.dropout,
        params=problem.params,
    )
    backend = xpnet.select(problem.case.device, library)
    trainer = Trainer(network, xpnet.optim.Adam(problem.lr), backend=backend)
    feed = trainer.feed
    targets = feed.targets(problem.t, classes=True)
    return Training(trainer, (feed.samples(problem.x), feed.backend.asarray(targets)))


def _xpnet_convolution(library: str, shape: Shape) -> Call:
    from xpnet.arrays.dispatch import with_kernels
    from xpnet.layers import Convolution

    backend = xpnet.select("cpu", library)
    x, W, b, dout = map(backend.asarray, shape.arrays())
    gate = Convolution(padding=shape.conv.padding)

    def run(x: Any, W: Any, b: Any, dout: Any) -> tuple[Any, ...]:
        y, cache = gate.forward(x, W, b)
        return y, *gate.backward(cache, dout, (True, True, True))

    run = with_kernels(run, backend.kernels)
    if library != "jax":
        return partial(run, x, W, b, dout)
    import jax

    compiled = jax.jit(run)
    return lambda: tuple(jax.block_until_ready(compiled(x, W, b, dout)))


# -- Plain NumPy -----------------------------------------------------------------------


def book_convolution(shape: Shape, dtype: Any = np.float32) -> Call:
    x, W, b, dout = (array.astype(dtype) for array in shape.arrays())
    layer = im2col.Convolution("1", {"W1": W, "b1": b}, shape.conv.padding)

    def call() -> tuple[Any, ...]:
        grads: dict[str, np.ndarray] = {}
        y = layer.forward(x)
        dx = layer.backward(dout, grads)
        return y, dx, grads["W1"], grads["b1"]

    return call


# -- PyTorch ---------------------------------------------------------------------------


def _parts(problem: ImageProblem, **options: Any) -> Parts:
    device = problem.case.device
    torch = pytorch_training.load(device)
    nn = torch.nn
    if device == "cuda":
        torch.backends.cudnn.benchmark = True  # the sizes never change
    modules: list[Any] = []
    for layer in layers(problem.form):
        match layer.kind:
            case "convolution":
                filters, channels, kernel, _ = layer.weights
                modules.append(nn.Conv2d(channels, filters, kernel, padding=layer.padding))
            case "affine":
                modules.append(nn.Linear(*layer.weights))
            case "pool":
                modules.append(nn.MaxPool2d(POOL))
            case "dropout":
                modules.append(nn.Dropout(problem.form.dropout))
            case kind:
                modules.append({"relu": nn.ReLU, "flatten": nn.Flatten}[kind]())
        if layer.number:
            W, b = (torch.from_numpy(problem.params[f"{name}{layer.number}"]) for name in "Wb")
            with torch.no_grad():
                # A Linear's weight is the transpose of W.
                modules[-1].weight.copy_(W.T if layer.kind == "affine" else W)
                modules[-1].bias.copy_(b)
    model = nn.Sequential(*modules).to(device)
    criterion = nn.CrossEntropyLoss()
    return Parts(
        x=torch.from_numpy(problem.x).to(device).float() / 255,
        t=torch.from_numpy(problem.t).to(device).long(),
        model=model,
        optimizer=torch.optim.Adam(
            model.parameters(), problem.lr, (BETA1, BETA2), EPS, fused=True, **options
        ),
        loss_of=lambda x, t: criterion(model(x), t),
    )


def torch_eager(problem: ImageProblem) -> Epoch:
    return pytorch_training.eager_loop(_parts(problem))


def torch_compiled(problem: ImageProblem) -> Epoch:
    return pytorch_training.compiled_loop(_parts(problem))


def torch_captured(problem: ImageProblem) -> Epoch:
    """Capture whole steps in a CUDA graph by hand."""
    parts = _parts(problem, capturable=True)
    return pytorch_training.captured_loop(parts, problem.form.batch)


def torch_convolution(shape: Shape) -> Call:
    import torch

    x, W, b, dout = map(torch.from_numpy, shape.arrays())
    inputs = [array.requires_grad_() for array in (x, W, b)]

    def call() -> tuple[Any, ...]:
        y = torch.nn.functional.conv2d(*inputs, padding=shape.conv.padding)
        return y.detach(), *torch.autograd.grad(y, inputs, dout)

    return call


# -- JAX -------------------------------------------------------------------------------

NCHW = ("NCHW", "OIHW", "NCHW")


def _jax(device: str) -> Any:
    import jax

    if device == "cuda":
        try:
            jax.devices("gpu")
        except RuntimeError:
            raise Skipped("JAX sees no usable GPU") from None
        jax.config.update("jax_default_matmul_precision", PRECISIONS["float32"])
    return jax


def _convolve(x: Any, W: Any, b: Any, padding: int) -> Any:
    import jax

    around = [(padding, padding)] * 2
    y = jax.lax.conv_general_dilated(x, W, (1, 1), around, dimension_numbers=NCHW)
    return y + b[:, None, None]


def _jax_parts(problem: ImageProblem) -> tuple[Step, Any, Any, Any]:
    """Write the network with `jax.lax`; return the step, its initial carry, x and t."""
    jax = _jax(problem.case.device)
    import jax.numpy as jnp

    x = jnp.asarray(problem.x.astype(np.float32) / np.float32(255))
    t = jnp.asarray(problem.t)
    params = {name: jnp.asarray(p, jnp.float32) for name, p in problem.params.items()}
    moments = [jax.tree.map(jnp.zeros_like, params) for _ in range(2)]
    carry: Any = (params, (*moments, jnp.float32(0.0)))
    kept, key = 1 - problem.form.dropout, jax.random.key(2)
    network = list(layers(problem.form))
    window = (1, 1, POOL, POOL)

    def loss_of(params: Any, x: Any, t: Any, count: Any) -> Any:
        for layer in network:
            W, b = (params.get(f"{name}{layer.number}") for name in "Wb")
            match layer.kind:
                case "convolution":
                    x = _convolve(x, W, b, layer.padding)
                case "affine":
                    x = x @ W + b
                case "pool":
                    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
                case "dropout":
                    own = jax.random.fold_in(key, count.astype(jnp.int32))
                    x = jnp.where(jax.random.bernoulli(own, kept, x.shape), x / kept, 0.0)
                case "relu":
                    x = jax.nn.relu(x)
                case "flatten":
                    x = x.reshape(len(x), -1)
        picked = jnp.take_along_axis(jax.nn.log_softmax(x), t[:, None], axis=1)
        return -jnp.mean(picked)

    def step(carry: Any, x: Any, t: Any, rows: Any) -> tuple[Any, Any]:
        params, state = carry
        loss, grads = jax.value_and_grad(loss_of)(params, x[rows], t[rows], state[2])
        return adam_update(params, grads, state, problem.lr), loss

    return step, carry, x, t


def jax_step(problem: ImageProblem) -> Epoch:
    return step_by_step(*_jax_parts(problem))


def jax_scan(problem: ImageProblem) -> Epoch:
    return scanned(*_jax_parts(problem))


def jax_convolution(shape: Shape) -> Call:
    jax = _jax("cpu")
    x, W, b, dout = map(jax.numpy.asarray, shape.arrays())

    def run(x: Any, W: Any, b: Any, dout: Any) -> tuple[Any, ...]:
        y, pull = jax.vjp(partial(_convolve, padding=shape.conv.padding), x, W, b)
        return y, *pull(dout)

    compiled = jax.jit(run)
    return lambda: tuple(jax.block_until_ready(compiled(x, W, b, dout)))


# Contenders by device; single convolutions run on the CPU only.
TRAININGS: dict[str, dict[str, Callable[[ImageProblem], Epoch]]] = {
    "cpu": {
        "xpnet numpy": partial(_xpnet, "numpy"),
        "xpnet torch": partial(_xpnet, "torch"),
        "xpnet jax": partial(_xpnet, "jax"),
        "book formulas": im2col.train,
        "pytorch eager": torch_eager,
        "pytorch compile": torch_compiled,
        "jax step": jax_step,
        "jax scan": jax_scan,
    },
    "cuda": {
        "xpnet cupy": partial(_xpnet, "cupy"),
        "pytorch eager": torch_eager,
        "xpnet torch": partial(_xpnet, "torch"),
        "jax scan": jax_scan,
        "xpnet jax": partial(_xpnet, "jax"),
        "pytorch graph": torch_captured,
    },
}
CONVOLUTIONS: dict[str, Callable[[Shape], Call]] = {
    "xpnet numpy": partial(_xpnet_convolution, "numpy"),
    "xpnet torch": partial(_xpnet_convolution, "torch"),
    "xpnet jax": partial(_xpnet_convolution, "jax"),
    "book formulas": book_convolution,
    "pytorch eager": torch_convolution,
    "jax step": jax_convolution,
}
