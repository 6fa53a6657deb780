"""The contenders of `benchmarks.parallel`, as a rank of a team runs them.

Each starts from the same weights, and its ranks share the same batches. The data is on the device
of every rank, as rows in the form that the library trains on fastest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

import xpnet
from benchmarks.problems import SAMPLES
from benchmarks.worker import Skipped
from xpnet.backend.interface import packed, unpacked
from xpnet.errors import UsageError
from xpnet.models.network import Network
from xpnet.parallel import Group
from xpnet.trainer import Trainer
from xpnet.trainer.share import Share
from xpnet.trainer.step import make_step

__all__ = ["CONVNET", "LR", "Form", "batches", "order_of", "serve"]

CONVNET = "SimpleConvNet"  # of the book's chapter 7
TINY = "tiny ConvNet"  # for tests
IMAGES = {CONVNET: ((1, 28, 28), 30, 5, 100), TINY: ((1, 8, 8), 2, 3, 5)}
LR = 0.05


@dataclass(frozen=True)
class Form:
    """A network of `IMAGES`, or affine layers with sigmoids such as 784-50-10; and its batch."""

    network: str
    batch: int  # of all ranks together
    samples: int = SAMPLES

    @property
    def inputs(self) -> tuple[int, ...]:
        if self.network in IMAGES:
            return IMAGES[self.network][0]
        return (int(self.network.split("-")[0]),)

    def made(self) -> Network:
        """Return xpnet's network, whose parameters all contenders start from."""
        if self.network in IMAGES:
            image, filters, kernel, hidden = IMAGES[self.network]
            return xpnet.cnn(image, [filters], [hidden], 10, kernel=kernel, padding=0)
        return xpnet.mlp([int(n) for n in self.network.split("-")], "sigmoid")

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return random images, uint8, and their classes."""
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (self.samples, *self.inputs), dtype=np.uint8)
        return x, rng.integers(0, 10, self.samples).astype(np.int32)


def order_of(form: Form, steps: int) -> np.ndarray:
    """Return the rows of each batch, shape=(steps, batch): the same on all ranks."""
    rng = np.random.default_rng(1)
    return rng.integers(0, form.samples, (steps, form.batch))


def batches(rank: int, size: int, batch: int) -> slice:
    """Return which rows of a batch are a rank's.

    Examples
    --------
    >>> batches(1, 2, 512)
    slice(256, 512, None)
    """
    return Share(rank, size, batch, list).rows


class Ranks(Protocol):
    """Trains on its part of batches, and waits for the others."""

    def train(self, order: np.ndarray) -> np.ndarray:
        """Train on these batches; return the losses of all ranks together, or of this one."""

    def wait(self) -> None:
        """Return when all ranks have called this."""


# -- xpnet -----------------------------------------------------------------------------


class OurTraining:
    """xpnet's trainer on the ranks of a group, without the calls around an epoch."""

    def __init__(self, library: str, form: Form, group: Group) -> None:
        self.form, self.group = form, group
        self.backend = _backend(library)
        self.trainer = Trainer(form.made(), xpnet.optim.SGD(LR), backend=self.backend, group=group)
        x, t = form.data()
        feed = self.trainer.feed
        targets = feed.targets(t, classes=True)
        self.data = feed.samples(x), self.backend.asarray(targets)
        self.rows, self.run = slice(None), self.trainer.run
        if group.size > 1:
            self.use(self.backend.reducer(group))

    def use(self, reduce: Callable[[Sequence[Any]], list[Any]]) -> None:
        """Add up over the ranks with this function from now on."""
        share = Share(self.group.rank, self.group.size, self.form.batch, reduce)
        step = make_step(self.trainer.network, self.trainer.optimizer, share=share)
        self.rows = share.rows
        self.run = self.backend.loop(step, self.trainer.feed.prepare, self.group.least)

    def train(self, order: np.ndarray) -> np.ndarray:
        trainer, losses = self.trainer, []
        rows = self.backend.asarray(np.ascontiguousarray(order[:, self.rows]))
        for params, state, chunk in self.run(trainer.params, trainer.state, self.data, rows):
            trainer.params, trainer.state = params, state
            losses.append(self.backend.to_numpy(chunk))
        return np.concatenate(losses)

    def wait(self) -> None:
        self.group.any(False)


def _backend(library: str) -> Any:
    try:
        return xpnet.select("cpu", library)
    except UsageError as error:
        raise Skipped(str(error)) from None


class Profile:
    """What a step on several ranks spends outside its own computation, in seconds."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.pack = self.wait = self.sum = self.unpack = 0.0

    def reduce(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Do what NumPy's `reducer` does; wait for the others before, to tell both times apart."""
        began = time.perf_counter()
        buffer = packed(arrays)
        ready = time.perf_counter()
        self.group.any(False)
        together = time.perf_counter()
        self.group.sum(buffer)
        added = time.perf_counter()
        found = unpacked(buffer, arrays)
        self.pack += ready - began
        self.wait += together - ready
        self.sum += added - together
        self.unpack += time.perf_counter() - added
        return found


# -- PyTorch ---------------------------------------------------------------------------


class Distributed(NamedTuple):
    """PyTorch's training: alone, or on ranks by DistributedDataParallel over gloo."""

    form: Form
    model: Any
    optimizer: Any
    x: Any
    t: Any
    rows: slice
    size: int

    def train(self, order: np.ndarray) -> np.ndarray:
        import torch

        criterion = torch.nn.CrossEntropyLoss()
        losses = []
        for rows in torch.from_numpy(np.ascontiguousarray(order[:, self.rows])):
            self.optimizer.zero_grad()
            x, t = (torch.index_select(array, 0, rows) for array in (self.x, self.t))
            loss = criterion(self.model(x), t)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return np.asarray(torch.stack(losses).numpy())

    def wait(self) -> None:
        if self.size > 1:
            import torch

            torch.distributed.barrier()


def their_training(form: Form, size: int) -> Distributed:
    """Return PyTorch's training, with the settings that its documentation recommends."""
    import torch

    nn = torch.nn
    rank = _join_gloo() if size > 1 else 0
    params = form.made().params
    modules: list[Any] = []
    count = sum(name.startswith("W") for name in params)
    for number in range(1, count + 1):
        W, b = (torch.from_numpy(np.asarray(params[f"{name}{number}"])).float() for name in "Wb")
        if W.ndim == 4:
            modules += [nn.Conv2d(W.shape[1], W.shape[0], W.shape[2]), nn.ReLU(), nn.MaxPool2d(2)]
            modules.append(nn.Flatten())
            layer, weight = modules[-4], W
        else:
            modules += [nn.Linear(*W.shape), nn.ReLU() if form.network in IMAGES else nn.Sigmoid()]
            layer, weight = modules[-2], W.T
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(b)
    model: Any = nn.Sequential(*modules[:-1])
    if size > 1:
        model = nn.parallel.DistributedDataParallel(
            model, gradient_as_bucket_view=True, broadcast_buffers=False, static_graph=True
        )
    x, t = form.data()
    return Distributed(
        form, model, torch.optim.SGD(model.parameters(), LR, fused=True),
        torch.from_numpy(x).float() / 255, torch.from_numpy(t).long(),
        batches(rank, size, form.batch), size,
    )  # fmt: skip


def _join_gloo() -> int:
    import torch

    torch.distributed.init_process_group("gloo")
    return int(torch.distributed.get_rank())


# -- Other work on the machine ---------------------------------------------------------

STAT = Path("/proc/stat")


def busy_seconds() -> float | None:
    """Return how long the processors have worked, for whomever; None where no one says."""
    try:
        first, *ticks = STAT.read_text(encoding="ascii").splitlines()[0].split()
        assert first == "cpu"
    except OSError:
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal
    each = [int(tick) for tick in ticks[:8]]
    return (sum(each) - each[3] - each[4]) / float(os.sysconf("SC_CLK_TCK"))


class Watched:
    """Measure a stretch of work: its wall time, this process's, and that of all processors.

    The parent compares them over all ranks, and so knows of other work on the machine.
    """

    def __enter__(self) -> Watched:
        self._busy, self._cpu = busy_seconds(), time.process_time()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        wall, cpu, busy = time.perf_counter(), time.process_time(), busy_seconds()
        self.found: dict[str, Any] = {"wall": wall - self._began, "cpu": cpu - self._cpu}
        self.found["busy"] = None if busy is None or self._busy is None else busy - self._busy


# -- The questions ---------------------------------------------------------------------


def serve(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Serve a rank: of a training, or of the all-reduce alone."""
    if setup["contender"] in ("mpi", "gloo"):
        return _serve_sums(setup["contender"])
    return _serve_training(setup)


def _serve_training(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """ "check" returns first losses, "time" seconds a step, "parts" those of a step's parts."""
    form, size = Form(**setup["form"]), setup["ranks"]
    library, _, name = setup["contender"].partition(" ")
    if name == "jax" and size == 1:  # as mpirun does with a rank; JAX would take all cores
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if library == "xpnet":
        if size > 1:
            group = xpnet.parallel.world()
            if group.size != size:
                raise RuntimeError(f"{group.size} ranks; expected {size}")
        else:
            group = Group()
        ours: Any = OurTraining(name, form, group)
        ranks: Ranks = ours
    else:
        import torch

        torch.set_num_threads(1)
        ranks = their_training(form, size)

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        order = order_of(form, question["steps"])
        if question["do"] == "check":
            return {"losses": ranks.train(order).astype(float).tolist()}
        ranks.train(order[: len(order) // 4 + 1])  # the data has left the caches
        if question["do"] == "parts":
            return _parts(ours, order)
        ranks.wait()
        with Watched() as watched:
            ranks.train(order)
        return {"seconds": watched.found["wall"] / len(order), **watched.found}

    return answer


def _parts(ours: OurTraining, order: np.ndarray) -> dict[str, Any]:
    found = Profile(ours.group)
    ours.use(found.reduce)
    ours.wait()
    with Watched() as watched:
        ours.train(order)
    ours.use(ours.backend.reducer(ours.group))
    named = {name: getattr(found, name) for name in ("pack", "wait", "sum", "unpack")}
    named["compute"] = watched.found["wall"] - sum(named.values())
    parts = {name: value / len(order) for name, value in named.items()}
    return {"parts": parts, "seconds": 0.0, **watched.found}


def _serve_sums(library: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """ "time" returns seconds of an all-reduce of so many bytes, each time after a barrier."""
    if library == "gloo":
        import torch

        torch.set_num_threads(1)
        _join_gloo()
        wait: Callable[[], Any] = torch.distributed.barrier
        sums: dict[str, Callable[[np.ndarray], Any]] = {
            "gloo": lambda buffer: torch.distributed.all_reduce(torch.from_numpy(buffer))
        }
    else:
        from mpi4py import MPI

        group = xpnet.parallel.world()
        wait = MPI.COMM_WORLD.Barrier
        sums = {
            "Group.sum": group.sum,
            "mpi4py": lambda buffer: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, buffer),
        }

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        buffer = np.zeros(question["bytes"] // 4, np.float32)
        call, each = sums[question["of"]], []
        with Watched() as watched:
            for k in range(question["calls"] + 2):
                wait()
                began = time.perf_counter()
                call(buffer)
                if k > 1:
                    each.append(time.perf_counter() - began)
        return {"seconds": float(np.median(each)), **watched.found}

    return answer
