"""What the pretended GPU counts, and what a test may set. Real CuPy has no such module."""

import contextlib
import importlib
import os
import types

syncs = 0  # the host waited: reads, synchronize() of a stream, an event or the device
uploads = 0  # copies from the host
launches = 0  # kernels, products, fills, copies that were computed eagerly
graph_launches = 0

compute_capability = "90"
device_count = 1
memory = int(os.environ.get("XPNET_SIMULATED_MEMORY", 80 * 2**30))  # bytes of the pretended GPU

# Ranks that are threads share all that is simulated, so only the one whose turn it is works.
turn = None  # a lock, which a rank holds except where it waits for the others
nccl_timeout = 60.0
nccl_fails = ""  # "init", "sum" or "capture"
nccl_calls = {}  # rank -> its sums: ("captured" or "queued", count, dtype)


@contextlib.contextmanager
def others_turn():
    """Let the other ranks work within the context."""
    if turn is None:
        yield
        return
    turn.release()
    try:
        yield
    finally:
        turn.acquire()


def reset():
    """All counters to zero."""
    global syncs, uploads, launches, graph_launches
    syncs = uploads = launches = graph_launches = 0
    nccl_calls.clear()


def names():
    """The dotted names on offer that the real packages must have too."""
    found = []
    for package in ("cupy", "cupy.cuda", "cupy.cuda.device", "cupy.cuda.memory",
                    "cupy.cuda.runtime", "cupy.cuda.stream", "cupy.linalg", "cupy.fft",
                    "cupyx"):  # fmt: skip
        here = importlib.import_module(package)
        for name, thing in vars(here).items():
            if name.startswith("_") or thing is importlib.import_module(__name__):
                continue
            found.append(f"{package}.{name}")
            if isinstance(thing, type) and thing.__module__.startswith("cupy"):
                found += [f"{package}.{name}.{n}" for n in vars(thing) if not n.startswith("_")]
            assert not isinstance(thing, types.ModuleType) or thing.__name__.startswith("cupy")
    return sorted(found)
