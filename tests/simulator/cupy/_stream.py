"""Streams, events, captured graphs, and the order of work.

`submit` is the one door that all work goes through. Outside a capture the work is done at once,
and the order that CUDA would guarantee is checked: every stream has a vector clock (how far it
has seen each stream's work), every allocation remembers who wrote and who read it last, and work
that is not ordered after them is a race, although here it would compute the right thing.
"""

import itertools
import threading
import time
import weakref

import numpy as np

from cupy import simulator
from cupy._errors import CUDARuntimeError

_local = threading.local()
_numbers = itertools.count()
_streams = weakref.WeakValueDictionary()  # ptr -> Stream
_captures = []  # those under way
_host = {}  # clock of what the host has waited for: ordered before all work to come
_blocking = {}  # clock of all blocking streams, for which the legacy stream waits
_issued = {}  # stream number -> number of its latest work


def _merge(clock, other):
    for stream, number in other.items():
        clock[stream] = max(number, clock.get(stream, 0))


class _Capture:
    def __init__(self, origin):
        self.origin, self.nodes, self.invalid = origin, [], False
        self.forked = set()  # streams that joined through an event and have not come back

    def node(self, name, function, reads, writes, kind):
        if self.invalid:
            raise CUDARuntimeError(901)
        # Weak references: a graph owns none of the memory that it works on.
        reads, writes = [weakref.ref(m) for m in reads], [weakref.ref(m) for m in writes]
        pools = {r: (r().private, r()._pool, r().capture is self) for r in (*reads, *writes)}
        self.nodes.append((name, function, reads, writes, pools, kind))


class Graph:
    """What a capture recorded. `nodes` and `names` are the simulator's, not CuPy's."""

    def __init__(self, capture):
        self._functions = [node[1] for node in capture.nodes]
        self._reads = [r for node in capture.nodes for r in node[2]]
        self._writes = [r for node in capture.nodes for r in node[3]]
        self._memory = {r: facts for node in capture.nodes for r, facts in node[4].items()}
        self._lost = any(r() is None and not facts[2] for r, facts in self._memory.items())
        self.names = [node[0] for node in capture.nodes]
        self._kinds = [node[5] for node in capture.nodes]
        self.nodes = len(self.names)

    def launch(self, stream=None):
        stream = stream or get_current_stream()
        if stream._capture:
            raise NotImplementedError("simulator: a graph within a graph")
        if self._lost:
            raise RuntimeError("simulator: an array that this graph uses died during its capture")
        for ref, (private, pool, _) in self._memory.items():
            if ref() is None and not private:
                raise RuntimeError(
                    "simulator: this graph uses memory of the default pool, which others reuse"
                )
            if ref() is None and pool() is None:
                raise RuntimeError("simulator: the memory pool of this graph is gone")
        _order(
            stream, [m for r in self._reads if (m := r())], [m for r in self._writes if (m := r())]
        )
        simulator.graph_launches += 1
        with np.errstate(all="ignore"):
            for function in self._functions:
                function()

    def upload(self, stream=None):
        pass

    def debug_dot_str(self, flags=0):
        """As cudaGraphDebugDotPrint words it with the flag "verbose", whatever the flags are; the
        edges are those of a graph without branches."""
        nodes = [
            f'"graph_1_node_{i}"[style="bold" shape="record" label="{{{kind}\n'
            f"| {{ID | {i} (topoId: {self.nodes - 1 - i}) | {name}\\<\\<\\<1,1,0\\>\\>\\>}}\n"
            '}"];'
            for i, (name, kind) in enumerate(zip(self.names, self._kinds, strict=True))
        ]
        edges = [
            f'"graph_1_node_{i - 1}" -> "graph_1_node_{i}" [headlabel=0];'
            for i in range(1, self.nodes)
        ]
        head = ["digraph dot {", "subgraph cluster_1 {", 'label="graph_1" graph[style="dashed"];']
        return "\n".join([*head, *nodes, *edges, "}", "}", ""])


class Stream:
    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self._number = next(_numbers)
        # Any number but those that CUDA gives to its own streams.
        self.ptr = 0 if null else 4096 + 16 * self._number
        self.is_non_blocking = non_blocking
        self._capture, self._clock, self._before = None, {}, []
        _streams[self.ptr] = self

    def __enter__(self):
        self._before.append(get_current_stream())
        _local.stream = self
        return self

    def __exit__(self, *error):
        _local.stream = self._before.pop()

    def __eq__(self, other):
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self):
        return hash(self.ptr)

    def _seen(self):
        """Its clock, with what the legacy stream and the blocking ones wait for of each other."""
        _merge(self._clock, _host)
        if self.ptr == 0:
            _merge(self._clock, _blocking)
        elif not self.is_non_blocking:
            _merge(self._clock, Stream.null._clock)
        return self._clock

    def _refuse_in_capture(self):
        if self._capture:
            self._capture.invalid = True
            raise CUDARuntimeError(900)

    def synchronize(self):
        self._refuse_in_capture()
        simulator.syncs += 1
        _merge(_host, self._seen())

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        if event._capture:
            if self._capture is None:
                self._capture = event._capture
                event._capture.forked.add(self)
            event._capture.forked.discard(event._stream)
        elif self._capture:
            self._capture.invalid = True
            raise CUDARuntimeError(905)
        else:
            _merge(self._clock, event._clock)

    def begin_capture(self, mode=None):
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self._capture:
            raise CUDARuntimeError(900)
        self._capture = _Capture(self)
        _captures.append(self._capture)

    def end_capture(self):
        capture = self._capture
        if capture is None or capture.origin is not self:
            raise CUDARuntimeError(1)
        for stream in list(_streams.values()):
            if stream._capture is capture:
                stream._capture = None
        _captures.remove(capture)
        if capture.invalid:
            raise CUDARuntimeError(901)
        if capture.forked - {self}:
            raise CUDARuntimeError(904)
        return Graph(capture)

    def is_capturing(self):
        return self._capture is not None


Stream.null = Stream(null=True)


def get_current_stream(device_id=-1):
    return getattr(_local, "stream", None) or Stream.null


class Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self._timed = not disable_timing
        self._stream, self._clock, self._capture, self._time = None, {}, None, None

    def record(self, stream=None):
        self._stream = stream or get_current_stream()
        self._capture, self._time = self._stream._capture, time.perf_counter()
        self._clock = dict(self._stream._seen())

    def synchronize(self):
        if self._capture in _captures:
            self._capture.invalid = True
            raise CUDARuntimeError(907)
        simulator.syncs += 1
        _merge(_host, self._clock)


def get_elapsed_time(start_event, end_event):
    if not (start_event._timed and end_event._timed and start_event._time and end_event._time):
        raise CUDARuntimeError(1)
    return 1e3 * (end_event._time - start_event._time)


def synchronize_device():
    for capture in _captures:
        capture.invalid = True
    if _captures:
        raise CUDARuntimeError(900)
    simulator.syncs += 1
    _merge(_host, _issued)


def _order(stream, reads, writes):
    """Check that work may start now on `stream`, and note what it touches."""
    if stream.ptr == 0 and any(not c.origin.is_non_blocking for c in _captures):
        raise CUDARuntimeError(906)
    clock = stream._seen()
    for memory in (*reads, *writes):
        uses = [memory.written] if memory.written else []
        uses += memory.read.items() if any(memory is m for m in writes) else []
        for other, number in uses:
            if clock.get(other, 0) < number:
                raise RuntimeError(
                    "simulator: stream race: another stream's work on this memory has not been "
                    "waited for (synchronize, or wait for an event)"
                )
    _issued[stream._number] = now = _issued.get(stream._number, 0) + 1
    clock[stream._number] = now
    if not stream.is_non_blocking:
        _merge(_blocking, clock)
    for memory in reads:
        memory.read[stream._number] = now
    for memory in writes:
        memory.written, memory.read = (stream._number, now), {}


def submit(name, function, reads=(), writes=(), stream=None, kind="KERNEL"):
    """Do a piece of work, or record it where the stream is capturing.

    Outside a capture `function` may be None: the caller has done the work itself. The kind is the
    node's: "KERNEL", "MEMCPY" or "MEMSET".
    """
    stream = stream or get_current_stream()
    if stream._capture:
        stream._capture.node(name, function, reads, writes, kind)
        return
    _order(stream, reads, writes)
    simulator.launches += 1
    if function:
        with np.errstate(all="ignore"):
            function()


def upload(write, memory, stream=None):
    """Copy from the host: `write()`."""
    stream = stream or get_current_stream()
    if stream._capture:
        raise RuntimeError("the current stream is capturing, so H2D transfers are disallowed")
    _order(stream, (), (memory,))
    simulator.uploads += 1
    write()


def download(memories, stream=None):
    """Copy to the host, and wait for it."""
    stream = stream or get_current_stream()
    if stream._capture:
        raise RuntimeError("the current stream is capturing, so D2H transfers are disallowed")
    _order(stream, memories, ())
    simulator.syncs += 1
    _merge(_host, stream._clock)
