"""Train in PyTorch as its users write fast code: nn.Sequential, autograd, torch.optim.

The data is on the device. On a GPU there are three contenders: eager; compiled, where Inductor
captures forward, backward and update into separate CUDA graphs; and whole steps captured by hand,
`STEPS_PER_GRAPH` of them in one graph. The host reads the losses once per epoch, as in xpnet.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from benchmarks.problems import (
    BETA1,
    BETA2,
    EPS,
    STEPS_PER_GRAPH,
    Epoch,
    Problem,
    operands,
)
from benchmarks.worker import Skipped

__all__ = [
    "Parts", "allow_tf32", "autocast", "captured_loop", "compiled", "compiled_loop", "eager",
    "eager_loop", "floor", "graph", "load",
]  # fmt: skip

# The initial scale of losses in float16 under autocast. PyTorch's default, 2 to the 16, may
# overflow in the first steps; PyTorch then skips them, so that the losses could not be checked.
LOSS_SCALE = 2.0**12
UNSCALED = "float16 needs its losses scaled: use pytorch eager, which does it"
WARM_UPS = 3  # as in PyTorch's documentation of whole-network capture


class Parts(NamedTuple):
    """The parts of every PyTorch training."""

    x: Any  # (N, D), float32
    t: Any  # (N,), int64
    model: Any
    optimizer: Any
    loss_of: Callable[[Any, Any], Any]  # takes the x and t of a batch


def load(device: str, lane: str = "float32") -> Any:
    """Return the module, set for the lane; raise `Skipped` if it sees no usable GPU."""
    import torch

    if device == "cuda":
        if not torch.cuda.is_available():
            raise Skipped("torch sees no usable GPU")
        allow_tf32(torch, lane == "tf32")
    return torch


def allow_tf32(torch: Any, allowed: bool) -> None:
    """Use the old setting: Inductor, at least that of PyTorch 2.9, fails under the new one.

    Some versions warn about the old setting once.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Please use the new API settings to control TF32", UserWarning
        )
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed  # of convolutions


def _parts(problem: Problem, lane: str, **options: Any) -> Parts:
    """Make the parts; `options` go to the optimizer."""
    case = problem.case
    torch = load(case.device, lane)
    nn = torch.nn
    activation = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}
    modules: list[Any] = []
    for i, (inputs, outputs) in enumerate(pairwise(problem.sizes), 1):
        linear = nn.Linear(inputs, outputs)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(problem.params[f"W{i}"].T))
            linear.bias.copy_(torch.from_numpy(problem.params[f"b{i}"]))
        modules += [linear, activation[case.activation]()]
    model = nn.Sequential(*modules[:-1]).to(case.device)
    if case.optimizer == "adam":
        rule, settings = torch.optim.Adam, {"betas": (BETA1, BETA2), "eps": EPS}
    else:
        rule, settings = torch.optim.SGD, {}
    criterion = nn.CrossEntropyLoss()

    def loss_of(x: Any, t: Any) -> Any:
        return criterion(model(x), t)

    def loss_cast(x: Any, t: Any) -> Any:
        with torch.autocast(case.device, getattr(torch, lane)):
            return criterion(model(x), t)

    return Parts(
        x=torch.from_numpy(problem.x).to(case.device).float() / 255,
        t=torch.from_numpy(problem.t).to(case.device).long(),
        model=model,
        optimizer=rule(model.parameters(), lr=problem.lr, **settings, **options),
        loss_of=loss_cast if lane in ("bfloat16", "float16") else loss_of,
    )


def _training(
    parts: Parts, forward: Callable[[Any, Any], Any], update: Callable[[Any], None]
) -> Epoch:
    """Return the loop of every tutorial; `update` takes the loss and also runs backward."""
    import torch

    def epoch(order: np.ndarray) -> np.ndarray:
        losses = []
        for rows in torch.from_numpy(order).to(parts.x.device):
            parts.optimizer.zero_grad()
            loss = forward(parts.x[rows], parts.t[rows])
            update(loss)
            losses.append(loss.detach())
        return np.asarray(torch.stack(losses).float().cpu().numpy())

    return epoch


def eager_loop(parts: Parts) -> Epoch:
    """Train eagerly."""

    def update(loss: Any) -> None:
        loss.backward()
        parts.optimizer.step()

    return _training(parts, parts.loss_of, update)


def _eager(problem: Problem, lane: str) -> Epoch:
    parts = _parts(problem, lane, fused=True)
    if lane != "float16":
        return eager_loop(parts)
    import torch

    scaler = torch.amp.GradScaler(problem.case.device, init_scale=LOSS_SCALE)

    def update_scaled(loss: Any) -> None:
        scaler.scale(loss).backward()
        scaler.step(parts.optimizer)
        scaler.update()

    return _training(parts, parts.loss_of, update_scaled)


def eager(problem: Problem) -> Epoch:
    """Train eagerly in the case's precision: PyTorch's setting for tf32, autocast for 16 bits."""
    return _eager(problem, problem.case.precision)


def autocast(problem: Problem) -> Epoch:
    """Train eagerly under autocast in bfloat16."""
    return _eager(problem, "bfloat16")


def compiled(problem: Problem) -> Epoch:
    """Compile forward and loss, and with them backward, as the tutorial of torch.compile does."""
    case = problem.case
    if case.precision == "float16":
        raise Skipped(UNSCALED)
    if case.device != "cpu":
        return _compiled_and_captured(problem)
    return compiled_loop(_parts(problem, case.precision, fused=True))


def compiled_loop(parts: Parts) -> Epoch:
    """Train with forward and backward compiled, without CUDA graphs."""
    import torch

    def update(loss: Any) -> None:
        loss.backward()
        parts.optimizer.step()

    return _training(parts, torch.compile(parts.loss_of), update)


def _compiled_and_captured(problem: Problem) -> Epoch:
    """Compile with "reduce-overhead", which turns forward, backward and update into CUDA graphs.

    The batch is gathered before the compiled function, since PyTorch copies each argument to the
    memory that its CUDA graph reads, and would copy the whole data set. The update is not PyTorch's
    fused one: Inductor writes its own.
    """
    parts = _parts(problem, problem.case.precision)
    import torch

    loss_of = torch.compile(parts.loss_of, mode="reduce-overhead")

    def forward(x: Any, t: Any) -> Any:
        # Forward, backward and update belong to one step, so the gradients stay alive within it.
        torch.compiler.cudagraph_mark_step_begin()
        return loss_of(x, t).clone()  # the next step overwrites the loss

    @torch.compile(mode="reduce-overhead")  # type: ignore[untyped-decorator]
    def step() -> None:
        parts.optimizer.step()

    def update(loss: Any) -> None:
        loss.backward()
        step()

    return _training(parts, forward, update)


# -- Captured by hand ------------------------------------------------------------------


@cache
def _side_stream() -> Any:
    """Return one stream for warm-up and capture: a gradient accumulates on its first stream."""
    import torch

    return torch.cuda.Stream()


def _warm_up(call: Callable[[], Any]) -> None:
    import torch

    stream = _side_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)


def _captured(call: Callable[[], Any]) -> Callable[[], None]:
    """Capture what `call` launches; return the replay, which runs on the current stream."""
    import torch

    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded, stream=_side_stream()):
        call()
    replay: Callable[[], None] = recorded.replay
    return replay


def steps_per_graph(steps: int) -> int:
    """Return the steps in one graph: all of a short order, otherwise `STEPS_PER_GRAPH`.

    Raises
    ------
    ValueError
        `STEPS_PER_GRAPH` does not divide the number of steps.
    """
    length = min(steps, STEPS_PER_GRAPH)
    if steps % length:
        raise ValueError(f"{steps} steps: expected up to {length}, or a multiple of {length}")
    return length


def graph(problem: Problem) -> Epoch:
    """Capture many whole steps in a CUDA graph: gather, forward, backward, fused update."""
    case = problem.case
    if case.precision == "float16":
        raise Skipped(UNSCALED)
    capturable = {"capturable": True} if case.optimizer == "adam" else {}  # SGD needs no option
    parts = _parts(problem, case.precision, fused=True, **capturable)
    return captured_loop(parts, problem.batch)


def captured_loop(parts: Parts, batch: int) -> Epoch:
    """Capture whole steps; Adam's steps can be captured if it was made with capturable=True."""
    import torch

    device = parts.x.device

    def step(rows: Any) -> Any:
        parts.optimizer.zero_grad()
        loss = parts.loss_of(parts.x[rows], parts.t[rows])
        loss.backward()
        parts.optimizer.step()
        return loss.detach()  # so that nothing keeps autograd's nodes and their stream alive

    # The warm-up trains, so restore the initial weights and the optimizer's initial state.
    weights = list(parts.model.parameters())
    first = [weight.detach().clone() for weight in weights]
    rows = torch.zeros(batch, dtype=torch.int64, device=device)
    _warm_up(lambda: [step(rows) for _ in range(WARM_UPS)])
    with torch.no_grad():
        for weight, value in zip(weights, first, strict=True):
            weight.copy_(value)
        for slots in parts.optimizer.state.values():
            for slot in slots.values():
                if isinstance(slot, torch.Tensor):
                    slot.zero_()

    @cache
    def recorded(steps: int) -> tuple[Any, Any, Callable[[], None]]:
        """Return the rows that a graph of these steps reads, its losses, and its replay."""
        rows = torch.zeros((steps, batch), dtype=torch.int64, device=device)
        losses = torch.empty(steps, device=device)
        parts.optimizer.zero_grad()  # so that the gradients are in the graph's own memory
        return rows, losses, _captured(lambda: torch.stack([step(r) for r in rows], out=losses))

    def epoch(order: np.ndarray) -> np.ndarray:
        rows, losses, replay = recorded(steps_per_graph(len(order)))
        found = []
        for chunk in torch.from_numpy(order).to(device).split(len(rows)):
            rows.copy_(chunk)
            replay()
            found.append(losses.clone())
        return np.asarray(torch.cat(found).cpu().numpy())

    return epoch


# -- The floor -------------------------------------------------------------------------


def floor(problem: Problem) -> Epoch:
    """Run only the step's matrix products, with operands and results in preallocated memory.

    On a GPU, a CUDA graph runs them, since launches would take longer than the products.
    """
    case = problem.case
    torch = load(case.device, case.precision)
    lane = "float32" if case.precision == "tf32" else case.precision

    def asarray(array: np.ndarray) -> Any:
        # Copy, since torch aligns its own memory.
        return torch.from_numpy(array).to(case.device, getattr(torch, lane), copy=True)

    calls = [(a, b, a @ b) for a, b in operands(problem.sizes, problem.batch, asarray)]

    def products(steps: int) -> None:
        for _ in range(steps):
            for a, b, c in calls:
                torch.mm(a, b, out=c)

    def epoch(order: np.ndarray) -> np.ndarray:
        products(len(order))
        return np.empty(0)

    if case.device == "cpu":
        return epoch
    _warm_up(lambda: products(WARM_UPS))
    recorded = cache(lambda steps: _captured(lambda: products(steps)))

    def epoch_replayed(order: np.ndarray) -> np.ndarray:
        steps = steps_per_graph(len(order))
        replay = recorded(steps)
        for _ in range(len(order) // steps):
            replay()
        torch.cuda.synchronize()
        return np.empty(0)

    return epoch_replayed
