"""``python -m benchmarks.gpu_probe FOLDER`` checks a GPU in less than a minute.

Each check prints one line. A check that fails is reported and counted, and the others continue.
After each check, FOLDER/probe.json has all results so far. FOLDER/steps.dot has CUDA's description
of the graphs of one step.
"""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import importlib.metadata
import json
import re
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from benchmarks.contenders import captured_by, training
from benchmarks.interrupts import Interrupted, orderly
from benchmarks.mega import Mega, Shape, reference
from benchmarks.problems import Case, batches, operands
from benchmarks.results import numbers
from xpnet.files import write_whole

__all__ = ["main", "nodes_by_type"]

PACKAGES = (
    "xpnet", "numpy", "cupy-cuda13x", "cupy-cuda12x", "cuda-pathfinder", "cuda-bindings", "torch",
    "jax", "nvidia-cublas", "nvidia-cuda-nvrtc", "array-api-compat", "pytest", "pytest-xdist",
)  # fmt: skip
# Steps of the first call: at least as many as a graph holds, so that the timed call needs no other.
FIRST_STEPS = 100
LAUNCHES = 50  # launches of a graph of one step, in a row
# cublasComputeType_t for float32; the last three allow cuBLAS to round the operands first.
COMPUTE_TYPES = {68: "32F", 77: "FAST_TF32", 75: "FAST_16BF", 74: "FAST_16F"}
CHECKED_STEPS = 3  # steps of the single kernel that are compared with NumPy
VERBOSE = 1  # cudaGraphDebugDotFlagsVerbose
DOT_CHARACTERS = 400_000  # at most so much of a graph's description is kept


@dataclass(frozen=True)
class Arguments:
    """Check what works on this GPU, what a step's graph contains, and how long each part takes."""

    folder: tyro.conf.Positional[Path]
    """Folder for probe.json and steps.dot; the command makes it if it is missing."""
    networks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ("S", "M", "L", "D")
    """Networks by their names in benchmarks.train_step; the first is also measured part by part."""
    steps: int = 2000
    """Number of steps of a timed training."""
    chain: int = 200
    """Number of calls of each part of a step in one graph."""
    stacks: Annotated[tuple[int, ...], tyro.conf.arg(metavar="K ...")] = (4, 16, 64)
    """Numbers of networks that train together: the first network's products, as stacks of these."""
    images: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ("cnn", "deep-cnn")
    """Convolution networks by their names in xpnet.models.cnn.PRESETS."""
    images_batch: int = 100
    """Number of images of their batches."""
    images_size: int = 28
    """Rows and columns of an image."""
    mega: Annotated[tuple[str, ...], tyro.conf.arg(metavar="UxT ...")] = (
        "2x512", "4x512", "1x512", "2x1024",
    )  # fmt: skip
    """Hidden units and threads per block of the single kernel."""


class Report:
    """Print a line for each check, and write the whole file after each check."""

    def __init__(self, folder: Path) -> None:
        self.found: dict[str, Any] = {}
        self.failed = 0
        self.current = ""
        self._path = folder / "probe.json"
        self._began = time.perf_counter()

    def check(self, name: str, work: Callable[[], Any], under: str = "") -> None:
        """Run a check; keep its result or the words of its error."""
        began = time.perf_counter()
        self.current = f"{under}: {name}" if under else name
        try:
            value = work()
        except Exception as error:
            text = str(error).replace("\n", " ")[:300]
            value = f"FAILED {type(error).__name__}: {text}"
            self.failed += 1
            traceback.print_exc(limit=-4)
        (self.found.setdefault(under, {}) if under else self.found)[name] = value
        now = time.perf_counter()
        words = value if isinstance(value, str) else json.dumps(value, default=str)
        seconds = f"[{now - began:.1f} s, at {now - self._began:.0f}]"
        print(f"{self.current:<30} {words}  {seconds}", flush=True)
        self._write()

    def each(self, under: str, works: dict[str, Callable[[], Any]]) -> None:
        """Run several checks that belong together."""
        for name, work in works.items():
            self.check(name, work, under)

    def say_where(self) -> None:
        """Record and print the check in which the probe was stopped."""
        self.found["stopped"] = self.current
        print(f"probe: stopped during {self.current}", flush=True)
        self._write()

    def _write(self) -> None:
        write_whole(self._path, json.dumps(self.found, indent=1, default=str) + "\n")


# -- What is there ---------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Return the versions of the installed packages."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def libraries() -> dict[str, Callable[[], Any]]:
    """Return the checks of CUDA's libraries: their versions and their files."""

    def cupy() -> Any:
        return importlib.import_module("cupy")

    def cublas() -> int:
        library, handle = _cublas()
        version = ctypes.c_int()
        library.cublasGetVersion_v2(handle, ctypes.byref(version))
        library.cublasDestroy_v2(handle)
        return version.value

    def loaded() -> list[str]:
        words = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        files = {w[-1] for w in words if len(w) > 5}
        return sorted(f for f in files if re.search("cublas|nvrtc", Path(f).name))

    return {
        "driver": lambda: cupy().cuda.runtime.driverGetVersion(),
        "runtime": lambda: cupy().cuda.runtime.runtimeGetVersion(),
        "cublas": cublas,
        "nvrtc": lambda: cupy().cuda.nvrtc.getVersion(),
        "loaded": loaded,
    }


def _cublas() -> tuple[Any, ctypes.c_void_p]:
    """Load cuBLAS and make a handle."""
    import cupy

    from xpnet.backend.cuda.cublas import load

    library = load(cupy.cuda.runtime.runtimeGetVersion() // 1000)
    handle = ctypes.c_void_p()
    status = library.cublasCreate_v2(ctypes.byref(handle))
    if status:
        raise RuntimeError(f"cublasCreate failed with status {status}")
    return library, handle


def selected() -> str:
    import xpnet

    return str(xpnet.select("cuda"))


def trains() -> dict[str, dict[str, Any]]:
    """Train on the digits on both devices, and compare the losses."""
    import xpnet

    data, _ = xpnet.datasets.load("digits")
    found: dict[str, dict[str, Any]] = {}
    for device in ("cuda", "cpu"):
        began = time.perf_counter()
        trainer = xpnet.Trainer(
            xpnet.mlp([64, 30, 10]),
            xpnet.optim.Adam(0.01),
            backend=xpnet.select(device),
            scaling=data.scaling,
        )
        history = trainer.fit(data.x, data.t, epochs=2)
        found[device] = {
            "loss": history.losses[-1],
            "accuracy": trainer.evaluate(data.x, data.t)["accuracy"],
            "seconds": round(time.perf_counter() - began, 2),
        }
    if abs(found["cuda"]["loss"] - found["cpu"]["loss"]) > 0.01 * found["cpu"]["loss"]:
        raise RuntimeError(f"the devices do not agree: {found}")
    return found


# -- Graphs ----------------------------------------------------------------------------

# The words of cudaGraphDebugDotPrint, and the names that cudaGraphNodeGetType uses instead.
NODE_TYPES = {
    "KERNEL": "Kernel",
    "MEMCPY": "Memcpy",
    "MEMSET": "Memset",
    "HOST": "Host",
    "GRAPH": "Graph",
    "EMPTY": "Empty",
    "WAIT_EVENT": "WaitEvent",
    "EVENT_RECORD": "EventRecord",
    "MEM_ALLOC": "MemAlloc",
    "MEM_FREE": "MemFree",
    "CONDITIONAL": "Conditional",
}
# A node's statement up to the end of its label; an edge has an arrow after its first name.
NODE = re.compile(r'^\s*"\w+"\s*\[(?P<look>.*?)label="(?P<label>.*?)"\s*\];', re.M | re.S)


def nodes_by_type(dot: str) -> dict[str, int]:
    """Count a graph's nodes in the text that `cupy.cuda.Graph.debug_dot_str` returns.

    Parameters
    ----------
    dot : str
        With or without the flag "verbose", which names the kind of every node.

    Returns
    -------
    dict of str to int
        Counts of "Kernel", "Memcpy", "Memset", ...; "Unknown" counts nodes whose kind the text
        does not name.
    """
    counts: Counter[str] = Counter()
    for node in NODE.finditer(dot):
        # "{KERNEL | ...", "{\nMEMCPY | ...", "3\nMEMSET ...", or only the name of a kernel.
        words = re.sub(r"^[\s{]*(?:\d+\s)?\s*", "", node["label"]).split()
        word = words[0] if words else ""
        if word in NODE_TYPES:
            counts[NODE_TYPES[word]] += 1
        elif 'shape="octagon"' in node["look"]:
            counts["Kernel"] += 1
        else:
            counts["Graph" if re.fullmatch(r"graph_\d+", word) else "Unknown"] += 1
    return dict(counts)


def nodes_of(graph: Any) -> dict[str, int]:
    """Count a graph's nodes with the CUDA runtime's bindings, or else from its description."""
    try:
        from cuda.bindings import runtime

        _, _, count = runtime.cudaGraphGetNodes(graph.graph, 0)
        error, nodes, _ = runtime.cudaGraphGetNodes(graph.graph, count)
        if int(error):
            raise RuntimeError(f"cudaGraphGetNodes: {error}")
        types = [runtime.cudaGraphNodeGetType(node)[1].name for node in nodes[:count]]
    except Exception:  # the bindings are missing or of another version, or it is no CUDA graph
        return nodes_by_type(graph.debug_dot_str(VERBOSE))
    return dict(Counter(name.removeprefix("cudaGraphNodeType") for name in types))


def kept_graphs() -> tuple[Any, list[Any]]:
    """Return a `CupyGraphs`, and the list to which it adds the graphs that it captures."""
    from xpnet.backend.cuda.graphs import CupyGraphs

    graphs: list[Any] = []

    class Keeping(CupyGraphs):
        def capture(self, work: Callable[[], None]) -> Callable[[], None]:
            launch: Any = super().capture(work)
            graphs.append(launch.__self__)
            return launch  # type: ignore[no-any-return]

    return Keeping(0), graphs


def microseconds(work: Callable[[], Any], count: int, repeats: int = 5) -> float:
    """Return the median GPU time, in microseconds, of one of the `count` items of a call."""
    import cupy

    work()
    cupy.cuda.Device().synchronize()
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    times = []
    for _ in range(repeats):
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(1e3 * cupy.cuda.get_elapsed_time(start, end) / count)
    return round(float(np.median(times)), 2)


# -- Whole steps -----------------------------------------------------------------------


def lanes(networks: Sequence[str]) -> dict[str, tuple[Case, str]]:
    """Return each training by its name in the report: the case, and what it does without.

    "unfused" runs a kernel per operation; "cublas" multiplies small matrices with cuBLAS, too.
    """
    first = networks[0]
    cases = [
        (Case(first, device="cuda"), ""),
        (Case(first, device="cuda"), "unfused"),
        (Case(first, optimizer="adam", device="cuda"), ""),
        (Case(first, device="cuda", precision="tf32"), ""),
        (Case(first, device="cuda", precision="bfloat16"), ""),
        *((Case(network, device="cuda"), "") for network in networks[1:]),
        *((Case(network, device="cuda"), "cublas") for network in networks),
    ]
    return {
        f"{case.network} {case.optimizer} {case.precision} {without}".strip(): (case, without)
        for case, without in cases
    }


def step(name: str, case: Case, without: str, steps: int, dot: Path) -> dict[str, Any]:
    """Train; return microseconds per step, and the nodes of its graph."""
    import xpnet

    began = time.perf_counter()
    keeping, graphs = kept_graphs()
    backend = xpnet.select("cuda", "cupy", precision=case.precision)
    if without == "cublas":
        backend.kernels = with_products(backend.kernels, None)
    backend = captured_by(keeping, backend, fused=without != "unfused")
    epoch = training(case.problem(), backend)
    losses = epoch(batches(case, min(steps, FIRST_STEPS)))
    first = time.perf_counter() - began
    order = batches(case, steps)
    epoch(order)
    began = time.perf_counter()
    losses = epoch(order)
    seconds = time.perf_counter() - began
    found: dict[str, Any] = {
        "us": round(1e6 * seconds / steps, 1),
        "graph_of_one_us": None,
        "nodes": None,
        "first_s": round(first, 2),
        "loss": float(losses[-1]),
        "fallbacks": list(backend.fallbacks),
    }
    if graphs:  # the last one is the shortest
        graph = graphs[-1]
        text = graph.debug_dot_str(VERBOSE)
        with dot.open("a", encoding="utf-8") as file:
            file.write(f"// {name}\n{text[:DOT_CHARACTERS]}\n")
        found["nodes"] = nodes_of(graph)
        if nodes_by_type(text) != found["nodes"]:  # the text has an unexpected form
            found["nodes_in_dot"] = nodes_by_type(text)
        found["graph_of_one_us"] = microseconds(
            lambda: [graph.launch() for _ in range(LAUNCHES)], LAUNCHES
        )
    return found


# -- The parts of a step ---------------------------------------------------------------


def parts(case: Case) -> dict[str, Callable[[], Any]]:
    """Return a call for each part of a step, on arrays of the case's first and last layers."""
    import cupy

    import xpnet
    from xpnet.arrays import ops
    from xpnet.arrays.dispatch import for_each
    from xpnet.backend.cuda.gather import Gather
    from xpnet.backend.cuda.graphs import CupyGraphs
    from xpnet.data.loader import Feed
    from xpnet.graph.autodiff import add_bias_then
    from xpnet.layers import Affine, Sigmoid
    from xpnet.losses.classification import SoftmaxWithLoss, softmax_cross_entropy
    from xpnet.losses.samples import weighted_sum

    problem = case.problem()
    inputs, hidden, classes = problem.sizes[0], problem.sizes[1], problem.sizes[-1]
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return cupy.asarray(rng.standard_normal(shape, dtype=np.float32))

    X, T = cupy.asarray(problem.x), cupy.asarray(problem.t)
    rows = cupy.asarray(batches(case, 1)[0])
    as_bytes, t = X[: problem.batch], T[: problem.batch]
    x, h, z = (normal(problem.batch, width) for width in (inputs, hidden, classes))
    W1, W2, b1, b2 = (
        normal(*shape) for shape in ((inputs, hidden), (hidden, classes), (hidden,), (classes,))
    )
    tiny, one = cupy.zeros(32, "float32"), cupy.asarray(np.float32(1))
    each, many = normal(problem.batch), cupy.zeros(64, "float32")
    numbers = [cupy.asarray(np.float32(i)) for i in range(32)]
    count, factor = cupy.asarray(np.int32(0)), 1.0 / problem.batch
    feed = Feed(xpnet.select("cuda"), "float32")
    gather, graphs = Gather(feed.prepare, []), CupyGraphs(0)
    loss = SoftmaxWithLoss()
    rule = xpnet.optim.SGD(1e-6)
    pairs = [(p, normal(*p.shape)) for p in (W1, b1, W2, b2)]

    def both_ways() -> Any:
        value, cache = loss.forward(z, t)
        return value, loss.backward(cache, 1.0)

    return {
        "tiny add": lambda: cupy.add(tiny, 1, out=tiny),
        "batch": lambda: gather((X, T), rows),
        "take samples": lambda: cupy.take(X, rows, axis=0),
        "take labels": lambda: cupy.take(T, rows, axis=0),
        "scale": lambda: feed.prepare(as_bytes),
        "product x W1": lambda: ops.matmul(x, W1),
        "product xT dh": lambda: ops.matmul(x.T, h),
        "product h W2": lambda: ops.matmul(h, W2),
        "product dz W2T": lambda: ops.matmul(z, W2.T),
        "product hT dz": lambda: ops.matmul(h.T, z),
        "affine 1": lambda: Affine().forward(x, W1, b1),
        "bias and sigmoid": lambda: add_bias_then(h, b1, Sigmoid()),
        "bias": lambda: cupy.add(h, b1, out=h),
        "sigmoid": lambda: Sigmoid().forward(h),
        "sigmoid back": lambda: Sigmoid().backward(h, h),
        "softmax": lambda: softmax_cross_entropy(z, t, factor),
        "softmax with loss and back": both_ways,
        "mean": lambda: weighted_sum(each, factor),
        "mean by CuPy": lambda: each.mean(),
        "bias gradients": lambda: ops.sum_rows([h, z]),
        "sum of columns, hidden": lambda: h.sum(axis=0),
        "sum of columns, classes": lambda: z.sum(axis=0),
        "losses of a graph": lambda: graphs.stack(numbers, many[:32]),
        "ones 0-d": lambda: cupy.ones((), "float32"),
        "write 0-d": lambda: many[3, ...].__setitem__(..., one),
        "zeros": lambda: cupy.zeros(64, "float32"),
        "copy": lambda: h.copy(),
        "update": lambda: for_each(rule.rule, rule.lr, pairs, count),
    }


def chained(part: Callable[[], Any], kernels: Any, count: int) -> dict[str, Any]:
    """Return microseconds and nodes of one call, measured in a graph of many calls in a row."""
    from xpnet.arrays.dispatch import with_kernels

    keeping, graphs = kept_graphs()
    calls = with_kernels(lambda: [part() for _ in range(count)], kernels)
    with keeping.aside():
        calls()
        launch = keeping.capture(calls)
    nodes = {kind: round(n / count, 2) for kind, n in nodes_of(graphs[-1]).items()}
    return {"us": microseconds(launch, count), "nodes": nodes}


def chains(case: Case, count: int) -> dict[str, Callable[[], Any]]:
    """Return a check for each part, which measures it in its own chain."""
    import xpnet

    kernels = xpnet.select("cuda").kernels
    return {
        name: functools.partial(chained, part, kernels, count) for name, part in parts(case).items()
    }


# -- Convolution networks --------------------------------------------------------------

IMAGE_STEPS = 10  # a step takes some ten times as long as one of the other networks


def image_lanes(
    name: str, batch: int, size: int, steps: int, chain: int
) -> dict[str, Callable[[], Any]]:
    """Return the checks of a convolution network: its trainings, and the parts of its layers."""
    trainings = {
        f"{name} adam {precision}{' normalized' if normalized else ''}":
        functools.partial(image_step, name, precision, normalized, batch, size, steps)
        for precision, normalized in (
            ("float32", False), ("tf32", False), ("bfloat16", False), ("float32", True),
        )
    }  # fmt: skip
    return {**trainings, **image_chains(name, batch, size, chain)}


def image_step(
    name: str, precision: str, normalized: bool, batch: int, size: int, steps: int
) -> dict[str, Any]:
    """Train on random images; return microseconds per step, and the nodes of its graph."""
    import xpnet
    from xpnet.models.cnn import PRESETS

    began = time.perf_counter()
    keeping, graphs = kept_graphs()
    backend = captured_by(keeping, xpnet.select("cuda", "cupy", precision=precision))
    network = xpnet.cnn((1, size, size), batch_norm=normalized, **PRESETS[name])
    trainer = xpnet.Trainer(network, xpnet.optim.Adam(), backend=backend)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (10 * batch, 1, size, size), dtype=np.uint8)
    data = trainer.feed.samples(x), backend.asarray(np.arange(len(x), dtype=np.int32) % 10)

    def run(count: int) -> Any:
        order = backend.asarray(rng.integers(0, len(x), (count, batch)))
        chunks = list(trainer.run(trainer.params, trainer.state, data, order))
        return backend.to_numpy(chunks[-1][-1])  # waits for the device

    run(steps)
    first = time.perf_counter() - began
    began = time.perf_counter()
    losses = run(steps)
    seconds = time.perf_counter() - began
    found: dict[str, Any] = {
        "us": round(1e6 * seconds / steps, 1),
        "graph_of_one_us": None,
        "nodes": None,
        "first_s": round(first, 2),
        "loss": float(losses[-1]),
        "fallbacks": list(backend.fallbacks),
    }
    if graphs:
        found["nodes"] = nodes_of(graphs[-1])
        launches = min(LAUNCHES, steps)
        found["graph_of_one_us"] = microseconds(
            lambda: [graphs[-1].launch() for _ in range(launches)], launches
        )
    return found


def image_chains(name: str, batch: int, size: int, count: int) -> dict[str, Callable[[], Any]]:
    """Return a check for each part of each convolution, and of what follows it."""
    import cupy

    import xpnet
    from xpnet.arrays import ops, windows
    from xpnet.arrays.convolution import (
        convolve,
        convolve_backward_input,
        convolve_backward_weights,
    )
    from xpnet.models.cnn import PRESETS

    kernels = xpnet.select("cuda").kernels
    network = xpnet.cnn((1, size, size), **PRESETS[name])
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return cupy.asarray(rng.standard_normal(shape, dtype=np.float32))

    found: dict[str, Callable[[], Any]] = {}
    shape = batch, 1, size, size
    edges = ((0, 0), (0, 0))
    for node in network.graph.nodes.values():
        gate: Any = node.gate
        kind = type(gate).__name__
        if kind == "Convolution":
            x, W = normal(*shape), normal(*network.params[node.inputs[1]].shape)
            dout = gate.forward(x, W)[0]
            settings = gate.settings
            parts: dict[str, Callable[[], Any]] = {
                "forward": functools.partial(convolve, x, W, None, *settings),
                "by images": functools.partial(
                    convolve_backward_input, dout, W, x.shape[2:], *settings
                ),
                "by filters": functools.partial(
                    convolve_backward_weights, x, dout, W.shape[2:], *settings
                ),
                "bias gradient": functools.partial(ops.sum_channels, dout),
            }
        elif kind == "MaxPool":
            x = normal(*shape)
            y, hint = kernels["max_pool"](x, gate.size, gate.stride)
            dout = normal(*y.shape)
            parts = {
                "forward": functools.partial(windows.max_pool, x, gate.size, gate.stride),
                "backward": functools.partial(
                    windows.max_pool_backward, x, y, hint, dout, gate.size, gate.stride, edges
                ),
            }
        else:
            continue
        shape = dout.shape
        for part, work in parts.items():
            key = f"{name} {node.name} {part}"
            found[key] = functools.partial(chained, work, kernels, max(1, count // IMAGE_STEPS))
    return found


PRODUCTS_IN_GRAPH = 50
PRODUCT_THREADS = (64, 128, 256, 512)  # per block; each product is measured with all of them


def with_products(kernels: Any, small: Any) -> dict[str, Any]:
    """Replace the kernels for small products; None leaves all products to cuBLAS."""
    products = copy(kernels["matmul"])
    products.small = small
    return {**kernels, "matmul": products}


def product_times(case: Case, models: int = 0) -> dict[str, Callable[[], Any]]:
    """Return a check per product of a step: its microseconds by cuBLAS and by xpnet's kernel.

    With `models`, each is a stack of so many products, those of networks that train together.
    """
    import cupy

    import xpnet
    from xpnet.arrays import ops
    from xpnet.backend.cuda.products import SmallProducts

    kernels = xpnet.select("cuda").kernels
    ways = {
        "cublas": with_products(kernels, None),
        **{f"{n} threads": with_products(kernels, SmallProducts(n)) for n in PRODUCT_THREADS},
        "chosen": kernels,
    }
    problem = case.problem()

    def measure(a: Any, b: Any) -> dict[str, Any]:
        expected = a.get().astype(np.float64) @ b.get().astype(np.float64)
        for name, products in ways.items():
            off = np.linalg.norm(products["matmul"](a, b).get() - expected)
            if not off < 1e-5 * np.linalg.norm(expected):
                raise RuntimeError(f"{name}: the product is {off} from what it should be")
        return {
            name: chained(lambda: ops.matmul(a, b), products, PRODUCTS_IN_GRAPH)["us"]
            for name, products in ways.items()
        }

    def stack(x: Any) -> Any:
        below = x.T if turned(x) else x
        whole = cupy.concatenate([below[None]] * models)
        return whole.swapaxes(1, 2) if turned(x) else whole

    name = f"{models} of {case.network}" if models else case.network
    return {
        f"{name} {'x'.join(map(str, (*a.shape, b.shape[1])))}{turned(a)}{turned(b)}":
        functools.partial(measure, *((stack(a), stack(b)) if models else (a, b)))
        for a, b in operands(problem.sizes, problem.batch, cupy.asarray)
    }  # fmt: skip


def turned(x: Any) -> str:
    return "" if x.flags.c_contiguous else "T"


def rounding(compute: int) -> float:
    """Return the relative error of a float32 product against float64, for a cuBLAS compute type."""
    import cupy

    m, k, n = 64, 200, 32
    a, b = (
        cupy.asarray(np.random.default_rng(i).standard_normal(shape, dtype=np.float32))
        for i, shape in enumerate(((m, k), (k, n)))
    )
    out = cupy.empty((m, n), "float32")
    one, zero = (ctypes.byref(ctypes.c_float(number)) for number in (1.0, 0.0))
    library, handle = _cublas()
    # cuBLAS is column-major, so out' = b' a'; the zeros mean "not transposed" and float32.
    status = library.cublasGemmEx(
        handle, 0, 0, n, m, k, one, b.data.ptr, 0, n, a.data.ptr, 0, k, zero,
        out.data.ptr, 0, n, compute, -1,
    )  # fmt: skip
    cupy.cuda.Device().synchronize()
    library.cublasDestroy_v2(handle)
    if status:
        raise RuntimeError(f"cublasGemmEx refuses compute type {compute}: status {status}")
    exact = a.get().astype(np.float64) @ b.get().astype(np.float64)
    return float(np.linalg.norm(out.get() - exact) / np.linalg.norm(exact))


# -- One kernel for all steps ----------------------------------------------------------


def cut(text: str) -> tuple[int, int]:
    """Read units and threads of a block from a text such as "2x512"."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    units, threads = (int(n) for n in match.groups()) if match else (0, 0)
    if units < 1 or threads % 32 or not 32 <= threads <= 1024:
        raise ValueError(
            f"--mega {text}: expected units and threads of a block, such as 2x512, with a multiple "
            "of 32 threads, at most 1024"
        )
    return units, threads


def mega(case: Case, units: int, threads: int, steps: int) -> dict[str, Any]:
    """Compare the first steps with NumPy, then time all steps."""
    problem = case.problem()
    if len(problem.sizes) != 3:
        raise ValueError(f"network {case.network}: expected one hidden layer, as in S")
    inputs, hidden, classes = problem.sizes
    shape = Shape(inputs, hidden, classes, problem.batch, units, threads)
    order = batches(case, steps)
    kernel = Mega(shape, problem.x, problem.t, problem.params, order, problem.lr)
    count = min(CHECKED_STEPS, steps)
    kernel.run(count)
    losses, params = kernel.results(count)
    expected, trained = reference(problem.x, problem.t, problem.params, order[:count], problem.lr)
    errors = {
        "loss_error": float(np.max(np.abs(losses - expected) / expected)),
        # Relative to the change of the weight, not to the weight.
        "weight_error": max(
            float(np.max(np.abs(params[k] - w)) / np.max(np.abs(w - problem.params[k])))
            for k, w in trained.items()
        ),
    }
    if not max(errors.values()) < 1e-3:
        raise RuntimeError(f"the kernel trains something else: {errors}")
    found = {"us": microseconds(lambda: kernel.run(steps), steps, 3), "blocks": shape.blocks}
    losses, _ = kernel.results(steps)
    return {**found, **errors, "last_loss": float(losses[-1])}


# -- The command -----------------------------------------------------------------------


def probe(arguments: Arguments, report: Report) -> None:
    """Run all checks, the most important first."""
    folder, steps = arguments.folder, arguments.steps
    first = Case(arguments.networks[0], device="cuda")
    report.check("versions", versions)
    report.each("libraries", libraries())
    report.check("selected", selected)
    report.check("trains", trains)
    dot = folder / "steps.dot"
    dot.write_text("", encoding="utf-8")
    report.each(
        "steps",
        {
            name: functools.partial(step, name, case, without, steps, dot)
            for name, (case, without) in lanes(arguments.networks).items()
        },
    )
    parts_of = functools.partial(chains, first, arguments.chain)
    products_of = [
        functools.partial(product_times, Case(network, device="cuda"))
        for network in arguments.networks
    ]
    products_of += [functools.partial(product_times, first, models) for models in arguments.stacks]
    images_of = [
        functools.partial(
            image_lanes,
            name,
            arguments.images_batch,
            arguments.images_size,
            max(1, steps // IMAGE_STEPS),
            arguments.chain,
        )
        for name in arguments.images
    ]
    finding = [("chains", parts_of), *(("products", find) for find in products_of)]
    finding += [("images", find) for find in images_of]
    for under, find in finding:
        try:
            works = find()
        except Exception as error:  # without a GPU or memory, report this once
            works = {"all": functools.partial(_raise, error)}
        report.each(under, works)
    report.each(
        "fast_16bf",
        {f"{n} {name}": functools.partial(rounding, n) for n, name in COMPUTE_TYPES.items()},
    )
    report.each(
        "mega",
        {
            f"HL{units} TPB{threads}": functools.partial(mega, first, units, threads, steps)
            for units, threads in map(cut, arguments.mega)
        },
    )


def _raise(error: Exception) -> None:
    raise error


@orderly
def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.gpu_probe")
    try:
        numbers(arguments)
        for network in arguments.networks:
            _ = Case(network).size
        for text in arguments.mega:
            cut(text)
        arguments.folder.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"python -m benchmarks.gpu_probe: {error}", file=sys.stderr)
        return 2
    report = Report(arguments.folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            probe(arguments, report)
    except Interrupted:
        report.say_where()
        raise
    finally:
        print(f"probe: {report.failed} checks failed", flush=True)
    return int(report.failed > 0)


if __name__ == "__main__":
    faulthandler.enable()
    sys.exit(main())
