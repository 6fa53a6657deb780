"""The epoch loop of a GPU: many steps recorded once as a CUDA graph, and replayed.

A step of a small network is some tens of kernels of a microsecond each, and Python takes ten times
as long to launch them. A graph is launched at once, with no Python between its kernels.

What a graph computes with lies at fixed addresses: parameters and state are those of the first
run, and later ones are copied into them; the rows of the next steps are copied into one array, and
the losses come out of another. A recording belongs to its data arrays and batch size; for others
there is another one. Python numbers are frozen into it: whatever changes from step to step (the
learning rate, the step's number) is an array already, as for JAX.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

from xpnet.backend.interface import Array, Params, Run
from xpnet.backend.loop import CHUNK_SECONDS, RowStep, plain_loop
from xpnet.errors import DeviceError, NotCapturedWarning

__all__ = ["Graphs", "captured_loop"]

# Steps in a graph, at most. The shortest step, of a single layer, is 8 kernels of more than a
# microsecond each: 32 such steps take the GPU 300 us, and Python some 60 to launch. So the GPU
# never waits, and what each launch adds (two copies, the gap between two graphs) stays below a few
# per cent. More would only make capturing longer.
LONGEST = 32
# Graphs that may wait for the GPU: enough that it never waits for Python, few enough that a signal
# or a progress bar is not far behind.
AHEAD = 2
# The first step compiles kernels, fills the memory pool, lets cuBLAS choose. The others are timed,
# and the least counts: a step that was interrupted would make all graphs short.
WARMUP_STEPS = 4
# The full batches and what is left of them, for the two halves of a streamed data set, twice.
KEPT_RECORDINGS = 8


class Graphs(Protocol):
    """What a library brings."""

    def join(self, losses: list[Array]) -> Array:
        """1-d arrays to one, on the device."""

    def stack(self, losses: list[Array], out: Array) -> None:
        """0-d arrays into a 1-d one."""

    def copy(self, array: Array) -> Array: ...

    def empty(self, length: int, like: Array) -> Array:
        """A 1-d array of that dtype, on the device."""

    def place(self, array: Array) -> Hashable:
        """Where an array lies, and how: its address and strides."""

    def mark(self) -> Callable[[], None]:
        """A mark behind the work queued so far: call it to wait until the work is done."""

    def aside(self) -> AbstractContextManager[None]:
        """On a stream and with a memory pool of the graphs' own; waits for the device before."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` queues, within `aside`; to be launched on the current stream."""


class Recording(NamedTuple):
    """Graphs over fixed arrays."""

    most: int  # steps that a chunk has time for
    length: int  # steps in the long graph
    rows: Array  # (length, batch): the batches of the next launch
    losses: Array  # (length,): of the last
    launch_all: Callable[[], None]
    launch_one: Callable[[], None]


def captured_loop(work: RowStep, graphs: Graphs, fallbacks: list[str]) -> Run:
    """Replays of recorded steps; see `Backend.loop`.

    A step that cannot be recorded runs in the plain loop; a warning and a line in `fallbacks` say
    why.
    """
    plain = plain_loop(work, lambda losses: graphs.join([x[None] for x in losses]))
    buffers: tuple[Params, Params] | None = None
    recordings: dict[Any, Recording] = {}
    refused = False

    def run(
        params: Params, state: Params, data: tuple[Any, ...], order: Any
    ) -> Iterator[tuple[Params, Params, Array]]:
        nonlocal buffers, refused
        steps, batch = order.shape
        if refused or steps == 0:
            yield from plain(params, state, data, order)
            return
        if buffers is None or not all(map(_same_form, buffers, (params, state))):
            buffers = dict(params), dict(state)
            recordings.clear()
        _write(graphs, buffers, (params, state))
        params, state = buffers
        key = batch, *((graphs.place(a), tuple(a.shape), str(a.dtype)) for a in data)
        # One that was made for a few steps, to finish an epoch say, is too short for many.
        if key in recordings and min(steps, recordings[key].most) > 2 * recordings[key].length:
            del recordings[key]
        if key not in recordings:
            while len(recordings) >= KEPT_RECORDINGS:
                recordings.pop(next(iter(recordings)))
            try:
                recordings[key] = _record(work, graphs, params, state, data, order)
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
        began, done = time.perf_counter(), 0
        while done < steps:
            n = recording.length if steps - done >= recording.length else 1
            recording.rows[:n, :] = order[done : done + n, :]
            (recording.launch_all if n == recording.length else recording.launch_one)()
            losses.append(graphs.copy(recording.losses[:n]))
            done += n
            marks.append(graphs.mark())
            if len(marks) > AHEAD:
                marks.popleft()()
            if done == steps or time.perf_counter() - began > CHUNK_SECONDS:
                yield dict(params), dict(state), graphs.join(losses)
                losses = []
                began = time.perf_counter()

    return run


class NotCapturedError(Exception):
    """A step that runs, but cannot be captured."""


def _record(
    work: RowStep, graphs: Graphs, params: Params, state: Params, data: tuple[Any, ...], order: Any
) -> Recording:
    """Warm up on copies, then capture; parameters and state stay as they are."""
    steps = order.shape[0]
    with graphs.aside():
        rows = order[0, :]
        trial = {k: graphs.copy(v) for k, v in params.items()}
        trial_state = {k: graphs.copy(v) for k, v in state.items()}
        times = []
        for _ in range(WARMUP_STEPS):
            began = time.perf_counter()
            trial, trial_state, loss = work(trial, trial_state, data, rows)
            graphs.mark()()
            times.append(time.perf_counter() - began)
        _check_form((params, state), (trial, trial_state))
        if tuple(loss.shape):
            raise ValueError(f"the loss has shape {tuple(loss.shape)}; expected a 0-d array")
        most = max(1, min(LONGEST, int(CHUNK_SECONDS / min(times[1:]))))
        length = _length(steps, most)
        losses = graphs.empty(length, loss)
        graphs.stack([loss], losses[:1])
        rows = graphs.copy(order[:length, :])
        del trial, trial_state

        def steps_of(count: int) -> None:
            found = []
            for i in range(count):
                *new, loss = work(dict(params), dict(state), data, rows[i, :])
                _write(graphs, (params, state), new)
                found.append(loss)
            graphs.stack(found, losses[:count])

        try:
            with _no_collection():
                launch_all = graphs.capture(lambda: steps_of(length))
                launch_one = graphs.capture(lambda: steps_of(1)) if length > 1 else launch_all
        except (DeviceError, MemoryError):
            raise
        except Exception as error:  # warmed up, it ran: so it is the capture that it does not bear
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise NotCapturedError(reason) from error
    return Recording(most, length, rows, losses, launch_all, launch_one)


def _length(steps: int, most: int) -> int:
    """How many of these steps go into the long graph: at most `most`, at least half of that.

    The one of them that leaves the fewest steps over at the end of an epoch, each of which is
    launched alone; the longest of those.
    """
    most = min(most, steps)
    return min(range(most, most // 2, -1), key=lambda length: steps % length)


@contextmanager
def _no_collection() -> Iterator[None]:
    """What is collected now (a cuBLAS handle, say) would end the capture."""
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
    """What a step returns is written where it took it from: it has to fit."""
    for mine, given in zip(map(_form, old), map(_form, new), strict=True):
        changed = [name for name in {**mine, **given} if mine.get(name) != given.get(name)]
        if changed:
            name = changed[0]
            raise ValueError(
                f"the step returns {name} as {given.get(name, 'nothing')}; expected it as it was "
                f"given, {mine.get(name, 'not at all')}"
            )


def _write(graphs: Graphs, old: Sequence[Params], new: Sequence[Params]) -> None:
    """Values into the arrays that a graph knows; nothing where they are those arrays already."""
    moved = []
    for mine, given in zip(old, new, strict=True):
        moved += [(a, given[name]) for name, a in mine.items() if given[name] is not a]
    # A value may be another one's array: all are read before the first is written.
    values = [graphs.copy(value) for _, value in moved]
    for (array, _), value in zip(moved, values, strict=True):
        array[...] = value
