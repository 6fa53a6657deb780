"""The epoch loop of a GPU records many steps once as a CUDA graph and replays them.

A step of a small network runs some tens of kernels of about a microsecond each, and Python needs
ten times as long to launch them. One launch starts a whole graph, with no Python between its
kernels.

A graph works on fixed addresses. It keeps the parameters and the state of the first run, and the
loop copies later ones into them. The loop also copies the rows of the next steps into one array,
and reads the losses from another. Each combination of data arrays and shape of the rows has its own
recording. A recording freezes Python numbers, so everything that changes from step to step (the
learning rate, the step's number) is an array, as for JAX.

On several ranks, a step holds sums over the ranks, and a sum that one rank has recorded works with
those that the others recorded at the same time. So the ranks agree on all that decides what is
queued next: whether to record, how many steps, which recording, and where a chunk ends.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

from xpnet.backend.interface import Agree, Array, Params, Run
from xpnet.backend.loop import CHUNK_SECONDS, RowStep, next_length, plain_loop
from xpnet.errors import DeviceError, NotCapturedWarning

__all__ = ["Graphs", "captured_loop"]

# The most steps in a graph. The shortest step, of a single layer, has 8 kernels of more than a
# microsecond each. The GPU needs 300 µs for 32 such steps, and Python about 60 µs to launch them.
# So the GPU never waits, and the cost of a launch (two copies, the gap between two graphs) stays
# below a few per cent. With more steps, only the capture would take longer.
LONGEST = 32
# The number of graphs that may wait for the GPU. With two, the GPU never waits for Python, and
# signals and the progress bar are not far behind.
AHEAD = 2
# The first step compiles kernels, fills the memory pool and lets cuBLAS choose its algorithms. The
# shortest of the other steps counts, since an interruption would otherwise make all graphs short.
WARMUP_STEPS = 4
# Full batches and the last, smaller one, for the two halves of a streamed data set, twice.
KEPT_RECORDINGS = 8


class Graphs(Protocol):
    """The functions that a library must provide."""

    def join(self, losses: list[Array]) -> Array:
        """Concatenate arrays on the device, along their first axis."""

    def stack(self, losses: list[Array], out: Array) -> None:
        """Write arrays of one shape into the rows of a dense array."""

    def copy(self, array: Array) -> Array: ...

    def empty(self, length: int, like: Array) -> Array:
        """Make an array of `length` rows on the device, each with the shape and dtype of `like`."""

    def place(self, array: Array) -> Hashable:
        """Return an array's address and strides."""

    def memory(self, array: Array) -> Hashable:
        """Return the address of the allocation in which an array lies, or of which it is a view."""

    def mark(self) -> Callable[[], None]:
        """Mark the work queued so far; call the result to wait until it is done."""

    def aside(self) -> AbstractContextManager[None]:
        """Wait for the device, then use a separate stream and memory pool within the context."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` queues, within `aside`; call the result to launch it."""


class Recording(NamedTuple):
    """Two graphs, of many steps and of one, over fixed arrays."""

    number: int  # of this recording: the ranks made those of one number together
    most: int  # steps that fit into a chunk's time, at most LONGEST
    length: int  # steps in the long graph
    rows: Array  # (length, batch) or (length, K, batch): row numbers for the next launch
    losses: Array  # (length,) or (length, K): losses of the last launch
    launch_all: Callable[[], None]
    launch_one: Callable[[], None]


def captured_loop(
    work: RowStep, graphs: Graphs, fallbacks: list[str], agree: Agree | None = None
) -> Run:
    """Return a `Run` that replays recorded steps; see `Backend.loop`.

    The order has shape=(steps, batch), or (steps, K, batch) with a batch for each of K models. A
    step's loss is 0-d, or one number for each model, shape=(K,). A step that cannot be recorded
    runs in the plain loop; a warning and a line in `fallbacks` say why. With `agree`, all ranks
    record or none does, and they yield after the same steps.
    """
    plain = plain_loop(work, lambda losses: graphs.join([x[None] for x in losses]), agree)
    buffers: tuple[Params, Params] | None = None
    recordings: dict[Any, Recording] = {}
    refused = False
    made = 0  # recordings so far, the same on all ranks
    chunk = 1  # the least number of steps until the next yield, if the ranks agree on it

    def run(
        params: Params, state: Params, data: tuple[Any, ...], order: Any
    ) -> Iterator[tuple[Params, Params, Array]]:
        nonlocal buffers, refused, made, chunk
        steps = order.shape[0]
        if refused or steps == 0:
            yield from plain(params, state, data, order)
            return
        if buffers is None or not all(map(_same_form, buffers, (params, state))):
            buffers = dict(params), dict(state)
            recordings.clear()
        _write(graphs, buffers, (params, state))
        params, state = buffers
        places = [(graphs.place(a), tuple(a.shape), str(a.dtype)) for a in data]
        key = tuple(order.shape[1:]), *places
        # A recording of a few steps, such as the end of an epoch, is too short for many steps.
        if key in recordings and min(steps, recordings[key].most) > 2 * recordings[key].length:
            del recordings[key]
        if not _same_number(recordings.get(key), agree):
            recordings.pop(key, None)
            while len(recordings) >= KEPT_RECORDINGS:
                recordings.pop(next(iter(recordings)))
            try:
                made += 1
                recordings[key] = _record(work, graphs, params, state, data, order, made, agree)
            except NotCapturedError as error:
                refused = True
                recordings.clear()
                fallbacks.append(f"the step is not captured into a CUDA graph: {error}")
                warnings.warn(
                    f"cannot capture this step into a CUDA graph: {error}; it runs in the plain "
                    "loop: slower, same results (docs/gpu.md, Gates of your own)",
                    NotCapturedWarning,
                    stacklevel=2,
                )
                yield from plain(params, state, data, order)
                return
        recording = recordings[key]

        losses: list[Array] = []
        marks: deque[Callable[[], None]] = deque()
        began, done, taken = time.perf_counter(), 0, 0
        while done < steps:
            n = recording.length if steps - done >= recording.length else 1
            recording.rows[:n, ...] = order[done : done + n, ...]
            (recording.launch_all if n == recording.length else recording.launch_one)()
            losses.append(graphs.copy(recording.losses[:n]))
            done, taken = done + n, taken + n
            marks.append(graphs.mark())
            if len(marks) > AHEAD:
                marks.popleft()()
            if agree is None:
                full = time.perf_counter() - began > CHUNK_SECONDS
            elif full := taken >= chunk:
                chunk = agree(next_length(taken, time.perf_counter() - began))
            if full or done == steps:
                yield dict(params), dict(state), graphs.join(losses)
                losses, taken = [], 0
                began = time.perf_counter()

    return run


def _same_number(recording: Recording | None, agree: Agree | None) -> bool:
    """Whether there is a recording, and all ranks made it together.

    Each rank looks for its own by the addresses of its arrays, so what one of them finds says
    nothing of the others.
    """
    if agree is None:
        return recording is not None
    number = -1 if recording is None else recording.number
    return agree(number) == -agree(-number) >= 0


class NotCapturedError(Exception):
    """The step runs but cannot be captured."""


def _record(
    work: RowStep,
    graphs: Graphs,
    params: Params,
    state: Params,
    data: tuple[Any, ...],
    order: Any,
    number: int,
    agree: Agree | None,
) -> Recording:
    """Warm up on copies, then capture; parameters and state keep their values.

    The warm-up also uses what sums over the ranks before it is captured, as NCCL asks.
    """
    steps = order.shape[0]
    with graphs.aside():
        rows = order[0, ...]
        trial = {k: graphs.copy(v) for k, v in params.items()}
        trial_state = {k: graphs.copy(v) for k, v in state.items()}
        times = []
        for _ in range(WARMUP_STEPS):
            began = time.perf_counter()
            trial, trial_state, loss = work(trial, trial_state, data, rows)
            graphs.mark()()
            times.append(time.perf_counter() - began)
        _check_form((params, state), (trial, trial_state))
        _check_loss(loss, params)
        most = max(1, min(LONGEST, int(CHUNK_SECONDS / min(times[1:]))))
        if agree is not None:
            most = agree(most)
        length = _length(steps, most)
        losses = graphs.empty(length, loss)
        graphs.stack([loss], losses[:1])
        rows = graphs.copy(order[:length, ...])
        del trial, trial_state

        def steps_of(count: int) -> None:
            found = []
            for i in range(count):
                *new, loss = work(dict(params), dict(state), data, rows[i, ...])
                _write(graphs, (params, state), new)
                found.append(loss)
            graphs.stack(found, losses[:count])

        reason = ""
        failed: Exception | None = None
        try:
            with _no_collection():
                launch_all = graphs.capture(lambda: steps_of(length))
                launch_one = graphs.capture(lambda: steps_of(1)) if length > 1 else launch_all
        except (DeviceError, MemoryError):
            raise
        except Exception as error:  # the step ran in the warm-up, so the capture made it fail
            failed = error
            reason = (str(error) or type(error).__name__).splitlines()[0]
        if agree is not None and not agree(int(failed is None)):
            reason = reason or "another rank cannot"
        if reason:
            raise NotCapturedError(reason) from failed
    return Recording(number, most, length, rows, losses, launch_all, launch_one)


def _length(steps: int, most: int) -> int:
    """Return the number of steps in the long graph: more than half of `most`, at most `most`.

    It is the number that leaves the fewest steps at the end of an epoch, since each of these has
    its own launch; and the largest such number.
    """
    most = min(most, steps)
    return min(range(most, most // 2, -1), key=lambda length: steps % length)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Stop garbage collection: freeing an object such as a cuBLAS handle would end the capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _form(arrays: Params) -> dict[str, tuple[Any, ...]]:
    return {name: (tuple(a.shape), a.dtype) for name, a in arrays.items()}


def _same_form(a: Params, b: Params) -> bool:
    return _form(a) == _form(b)


def _check_form(old: Sequence[Params], new: Sequence[Params]) -> None:
    """Refuse a step whose results do not fit the arrays that it took, since it overwrites them."""
    for mine, given in zip(map(_form, old), map(_form, new), strict=True):
        changed = [name for name in {**mine, **given} if mine.get(name) != given.get(name)]
        if changed:
            name = changed[0]
            raise ValueError(
                f"the step returns {name} as {given.get(name, 'nothing')}; expected it as passed "
                f"in, {mine.get(name, 'nothing')}"
            )


def _check_loss(loss: Array, params: Params) -> None:
    """Refuse a loss that is neither 0-d nor one number for each model.

    The parameters of K models at once all have a first axis of that length.
    """
    shape = tuple(loss.shape)
    if shape and any(tuple(p.shape[:1]) != shape for p in params.values()):
        raise ValueError(
            f"the loss has shape {shape}; expected a 0-d array, or shape (K,) for K models, whose "
            "parameters all have a first axis of K"
        )


def _write(graphs: Graphs, old: Sequence[Params], new: Sequence[Params]) -> None:
    """Copy values into the arrays that a graph uses, except values that are these arrays."""
    moved = []
    for mine, given in zip(old, new, strict=True):
        moved += [(a, given[name]) for name, a in mine.items() if given[name] is not a]
    # A value may be the array of another name, or a view of it: copy those before you write any.
    held = {graphs.memory(a) for mine in old for a in mine.values()}
    values = [graphs.copy(v) if graphs.memory(v) in held else v for _, v in moved]
    for (array, _), value in zip(moved, values, strict=True):
        array[...] = value
