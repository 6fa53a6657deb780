"""The simulator, checked: run with PYTHONPATH=tests/simulator, or there is nothing to check.

Not collected with the other tests, for which `cupy` must remain what is installed.
"""

import contextlib
import ctypes
import gc
import itertools
import re

import cupy
import cupyx
import numpy as np
import pytest
from array_api_compat import array_namespace
from cuda import pathfinder
from cupy import simulator

if not hasattr(cupy, "simulator"):
    raise RuntimeError("not the simulated CuPy")


def gpu(*shape, dtype="float32", seed=0):
    return cupy.asarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


@pytest.fixture
def pool():
    return cupy.cuda.MemoryPool()


@pytest.fixture
def capture(pool):
    """capture(function) -> graph; the stream leaves capture mode whatever happens."""

    def record(function, stream=None):
        stream = stream or cupy.cuda.Stream(non_blocking=True)
        cupy.cuda.Device().synchronize()
        with cupy.cuda.using_allocator(pool.malloc), stream:
            stream.begin_capture()
            try:
                function()
            except BaseException:
                assert stream.is_capturing()
                with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):  # invalidated
                    stream.end_capture()
                raise
            return stream.end_capture()

    return record


# --- Arrays ----------------------------------------------------------------------------------


def test_results_are_arrays_of_the_right_dtype():
    x = gpu(3, 4)
    total = x.sum()
    assert isinstance(total, cupy.ndarray)
    assert total.shape == ()
    assert isinstance(x[0, 0], cupy.ndarray)
    assert (x * 2.0).dtype == "float32"
    assert (x * np.float64(2)).dtype == "float64"
    assert (np.float32(2) * x).dtype == "float32"
    assert (x + cupy.zeros((), "float64")).dtype == "float64"
    assert isinstance(x == 0, cupy.ndarray)
    assert [a.shape for a in x] == [(4,)] * 3
    assert array_namespace(x).__name__ == "array_api_compat.cupy"
    assert not hasattr(x, "__array_namespace__")
    y = x
    y += 1
    assert y is x
    assert (-x).get().tolist() == (-x.get()).tolist()
    assert (2 - x).get().tolist() == (2 - x.get()).tolist()


def test_numpy_arrays_are_not_mixed_in():
    x = gpu(3)
    for bad in (
        lambda: x + np.ones(3),
        lambda: np.ones(3) + x,
        lambda: cupy.exp(np.ones(3)),
        lambda: cupy.where(x > 0, np.ones(3), x),
        lambda: cupy.sum([1.0, 2.0]),
        lambda: x.__setitem__(..., np.ones(3)),
    ):
        with pytest.raises(TypeError, match="Unsupported type"):
            bad()
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(x)
    with pytest.raises(TypeError):
        range(4)[cupy.asarray(1)]
    with pytest.raises(TypeError):
        x[cupy.asarray(0) : 2]
    with pytest.raises(TypeError):
        x += cupy.ones(3, "complex64")


def test_views_share_memory_and_indices_wrap():
    x = gpu(4, 3)
    x[1, :][...] = 7.0
    x.reshape(12)[0] = 5.0
    x.T[2, 3] = 4.0
    host = x.get()
    assert host[1].tolist() == [7, 7, 7]
    assert host[0, 0] == 5
    assert host[3, 2] == 4
    assert x[1:].base is not None
    index = cupy.asarray([-1, 4, 9])
    for taken in (cupy.take(x, index, axis=0), x[index], x[:, ...][index]):
        assert taken.get().tolist() == host[[3, 0, 1]].tolist()
    assert x[0, cupy.asarray([4, -1])].get().tolist() == host[0, [1, 2]].tolist()
    x[index] = 0.0
    assert x.get()[[3, 0, 1]].tolist() == [[0, 0, 0]] * 3
    x[x > 0] = 1.0
    block = cupy.zeros(10, "float32")
    window = cupy.ndarray((2, 2), "float32", block.data + 8)
    window[...] = 3.0
    assert block.get()[2:6].tolist() == [3] * 4


def test_counters():
    simulator.reset()
    x = cupy.asarray(np.ones((2, 2)))
    x + x.T
    float(x.sum())
    pinned = cupyx.empty_pinned((2, 2), "float64")
    x.get(out=pinned)
    x.set(pinned)
    assert (simulator.uploads, simulator.syncs, simulator.launches) == (2, 2, 2)
    cupy.cuda.Stream().synchronize()
    cupy.cuda.Event().synchronize()
    cupy.cuda.Device(0).synchronize()
    assert simulator.syncs == 5


def test_devices():
    assert cupy.cuda.Device(9).id == 9
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="invalid device ordinal") as e:
        cupy.cuda.Device(9).use()
    assert e.value.status == 101
    start, end = (cupy.cuda.Event() for _ in range(2))
    start.record()
    end.record()
    end.synchronize()
    assert cupy.cuda.get_elapsed_time(start, end) >= 0
    assert cupy.cuda.Device().compute_capability == "90"


# --- Capture ---------------------------------------------------------------------------------

REFUSED = {
    "float": (lambda x: float(x[0, 0]), RuntimeError, "so D2H transfers are disallowed"),
    "bool": (lambda x: bool((x > 0).all()), RuntimeError, "D2H"),
    "item": (lambda x: x[0, 0].item(), RuntimeError, "D2H"),
    "get": (lambda x: x.get(), RuntimeError, "D2H"),
    "asnumpy": (cupy.asnumpy, RuntimeError, "D2H"),
    "print": (str, RuntimeError, "D2H"),
    "mask": (lambda x: x[x > 0], RuntimeError, "D2H"),
    "write to a mask": (lambda x: x.__setitem__(x > 0, 0.0), RuntimeError, "D2H"),
    "nonzero": (cupy.nonzero, RuntimeError, "D2H"),
    "where": (cupy.where, RuntimeError, "D2H"),
    "unique": (cupy.unique, RuntimeError, "D2H"),
    "a list": (lambda x: cupy.asarray([1.0, 2.0]), RuntimeError, "so H2D transfers are disallowed"),
    "an array": (lambda x: cupy.asarray(np.ones(2)), RuntimeError, "H2D"),
    "a list as index": (lambda x: x[[0, 1]], RuntimeError, "H2D"),
    "set": (lambda x: x.set(np.ones((3, 3), "float32")), RuntimeError, "H2D"),
    "matmul": (lambda x: cupy.matmul(x, x), NotImplementedError, "calling cuBLAS API during"),
    "@": (lambda x: x @ x, NotImplementedError, "cuBLAS"),
    "dot": (lambda x: x.dot(x), NotImplementedError, "cuBLAS"),
    "tensordot": (lambda x: cupy.tensordot(x, x), NotImplementedError, "cuBLAS"),
    "inv": (cupy.linalg.inv, NotImplementedError, "cuBLAS"),
    "stream.synchronize": (
        lambda x: cupy.cuda.get_current_stream().synchronize(),
        cupy.cuda.runtime.CUDARuntimeError,
        "cudaErrorStreamCaptureUnsupported",
    ),
    "device.synchronize": (
        lambda x: cupy.cuda.Device().synchronize(),
        cupy.cuda.runtime.CUDARuntimeError,
        "cudaErrorStreamCaptureUnsupported",
    ),
    "event.synchronize": (
        lambda x: cupy.cuda.get_current_stream().record().synchronize(),
        cupy.cuda.runtime.CUDARuntimeError,
        "cudaErrorCapturedEvent",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_during_a_capture(capture, what):
    function, kind, words = REFUSED[what]
    x = gpu(3, 3)
    before = x.get()
    with pytest.raises(kind, match=re.escape(words)):
        capture(lambda: function(x))
    assert (x.get() == before).all()
    if kind is not cupy.cuda.runtime.CUDARuntimeError:
        function(x)


def test_a_synchronisation_invalidates_the_capture():
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError):
            stream.synchronize()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="Invalidated"):
            cupy.zeros(3)
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="Invalidated"):
            stream.end_capture()
        assert not stream.is_capturing()
        cupy.zeros(3)
    with pytest.raises(RuntimeError, match="cannot capture on the default"):
        cupy.cuda.Stream.null.begin_capture()


def test_record_and_replay(capture):
    x, w, rows = gpu(5, 3), gpu(3, seed=1), cupy.asarray([4, 0, 7])
    step, seen = cupy.zeros((1,), "int32"), {}

    def work():
        batch = cupy.take(x, rows, axis=0)
        seen["y"] = y = cupy.maximum(batch, 0.0) * w + cupy.asarray(0.5, dtype="float32")
        seen["view"] = y.T[1]
        seen["both"] = divmod(y, 2.0)
        w[...] = w - y.sum(axis=0) * 0.1
        x[0] = 0.5
        step.__iadd__(1)

    host_w, host_x = w.get(), x.get()
    graph = capture(work)
    assert graph.names == [
        "take", "maximum", "multiply", "fill", "add", "divmod", "sum", "multiply", "subtract",
        "copy", "fill", "add",
    ]  # fmt: skip
    assert graph.nodes == 12
    assert np.isnan(seen["y"].get()).all()
    assert np.isnan(seen["view"].get()).all()
    assert (w.get() == host_w).all()
    assert int(step[0]) == 0
    simulator.reset()
    for _ in range(3):
        graph.launch()
        y = np.maximum(host_x[[4, 0, 2]], 0.0) * host_w + np.float32(0.5)
        host_w = host_w - y.sum(axis=0) * np.float32(0.1)
        host_x[0] = 0.5
    assert (simulator.graph_launches, simulator.launches, simulator.syncs) == (3, 0, 0)
    np.testing.assert_array_equal(seen["y"].get(), y)
    np.testing.assert_array_equal(seen["view"].get(), y.T[1])
    np.testing.assert_array_equal(seen["both"][1].get(), y % 2)
    np.testing.assert_array_equal(w.get(), host_w)
    assert step.get().tolist() == [3]


def kinds(graph):
    """Of its nodes, as the text for Graphviz names them."""
    return re.findall(r'label="\{(\w+)', graph.debug_dot_str(1))


def test_a_graph_is_written_down(capture):
    x, y = gpu(4), gpu(4)

    def work():
        x.__iadd__(1.0)
        y[...] = x

    graph = capture(work)
    lines = graph.debug_dot_str(1).splitlines()
    assert lines[0] == "digraph dot {"
    assert lines.count("}") == 2
    assert sum(" label=" in line for line in lines) == graph.nodes == 2
    assert '"graph_1_node_0" -> "graph_1_node_1" [headlabel=0];' in lines
    assert any(line.startswith("| {ID | 0 (topoId: 1) | add") for line in lines)
    assert kinds(graph) == ["KERNEL", "MEMCPY"]


KINDS = {
    "a dense copy": (lambda x, y, z: y.__setitem__(..., x), ["MEMCPY"]),
    "of one element": (lambda x, y, z: y.__setitem__((0, 1, ...), x[1, 1, ...]), ["MEMCPY"]),
    "of a row": (lambda x, y, z: y.__setitem__(0, x[1]), ["MEMCPY"]),
    "into a column": (lambda x, y, z: y.__setitem__((..., 0), x[:, 0]), ["KERNEL"]),
    "turned over": (lambda x, y, z: y.__setitem__(..., x.T), ["KERNEL"]),
    "of another dtype": (lambda x, y, z: y.__setitem__(..., z), ["KERNEL"]),
    "broadcast": (lambda x, y, z: y.__setitem__(..., x[0]), ["KERNEL"]),
    "into one row of axes": (lambda x, y, z: y[:1].__setitem__(..., x[:1]), ["KERNEL"]),
    "onto itself": (lambda x, y, z: y.__setitem__(slice(1, None), y[1:]), []),
    "copy()": (lambda x, y, z: x.copy(), ["KERNEL"]),
    "copyto": (lambda x, y, z: cupy.copyto(y.T, x.T), ["MEMCPY"]),
    "copyto, turned over": (lambda x, y, z: cupy.copyto(y, x.T), ["KERNEL"]),
    "zeros": (lambda x, y, z: cupy.zeros((3, 3), order="F"), ["MEMSET"]),
    "zeros_like": (lambda x, y, z: cupy.zeros_like(x), ["MEMSET"]),
    "fill(0)": (lambda x, y, z: x.fill(0), ["MEMSET"]),
    "0.0 into a row": (lambda x, y, z: x.__setitem__(0, 0.0), ["MEMSET"]),
    "0.0 into a column": (lambda x, y, z: x.__setitem__((..., 0), 0.0), ["KERNEL"]),
    "fill(1)": (lambda x, y, z: x.fill(1), ["KERNEL"]),
    "full of zeros": (lambda x, y, z: cupy.full((3, 3), 0.0), ["KERNEL"]),
    "ones": (lambda x, y, z: cupy.ones(3), ["KERNEL"]),
    "a number": (lambda x, y, z: cupy.asarray(0.5), ["KERNEL"]),
    "mean": (lambda x, y, z: x.mean(), ["KERNEL"] * 2),
    "mean of rows": (lambda x, y, z: cupy.mean(x, axis=-1), ["KERNEL"] * 2),
    "mean of columns": (lambda x, y, z: x.mean(axis=0), ["KERNEL"]),
    "mean of a view": (lambda x, y, z: x[:, 1:].mean(), ["KERNEL"]),
    "mean of integers": (lambda x, y, z: z.mean(), ["KERNEL"]),
    "sum": (lambda x, y, z: x.sum(), ["KERNEL"]),
    "sum of columns": (lambda x, y, z: x.sum(axis=0), ["KERNEL"]),
    "three arrays": (lambda x, y, z: cupy.concat([x, y, x]), ["KERNEL"] * 3),
}


@pytest.mark.parametrize("what", KINDS)
def test_the_kinds_of_nodes(capture, what):
    function, expected = KINDS[what]
    x, y, z = gpu(3, 3), gpu(3, 3, seed=1), gpu(3, 3).astype("int32")
    kept = []
    graph = capture(lambda: kept.append(function(x, y, z)))
    assert kinds(graph) == expected
    assert graph.nodes == len(expected)
    graph.launch()
    results = [y.get(), kept[0]]
    y[...] = gpu(3, 3, seed=1)
    again = function(x, y, z)
    np.testing.assert_array_equal(results[0], y.get())
    if again is not None:
        np.testing.assert_array_equal(results[1].get(), again.get())


def test_means_are_numpy_s():
    x = gpu(4, 5, 6)
    for axis in (None, 0, -1, (1, 2)):
        for keep in (False, True):
            np.testing.assert_array_equal(
                x.mean(axis=axis, keepdims=keep).get(), x.get().mean(axis=axis, keepdims=keep)
            )
    assert cupy.asarray(np.arange(4)).mean().get() == 1.5


def test_many_arrays_are_joined_by_a_table_of_addresses(capture):
    """Which comes from the host."""
    x = gpu(4)
    for join in (cupy.concat, cupy.concatenate, cupy.stack):
        assert capture(lambda join=join: join([x] * 8)).nodes == 8
        with pytest.raises(RuntimeError, match="so H2D transfers are disallowed"):
            capture(lambda join=join: join([x] * 9))
    with pytest.raises(RuntimeError, match="so H2D transfers are disallowed"):
        capture(lambda: cupy.asarray([x] * 9))
    mixed = [x] * 8 + [x.astype("float64")]
    assert capture(lambda: cupy.concat(mixed)).nodes == 9
    wider = cupy.empty(36, "float64")
    assert capture(lambda: cupy.concatenate([x] * 9, out=wider)).nodes == 9
    # Of 2 MiB each and more, nine copies are as fast.
    assert capture(lambda: cupy.stack([cupy.empty(1 << 19, "float32")] * 9)).nodes == 9
    images = gpu(2, 3, 6, 6)
    slices = [images[..., i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    for arrays, tables in (([x] * 9, 1), (slices, 3), ([x] * 8 + [gpu(2)], 3)):
        simulator.reset()
        cupy.concat(arrays)
        assert simulator.uploads == tables


def test_work_on_another_stream_is_not_recorded(capture):
    x, other = gpu(3), cupy.cuda.Stream(non_blocking=True)

    def work():
        with other:
            y = x + 1.0
        assert not np.isnan(y.get(stream=other)).any()

    assert capture(work).nodes == 0


def test_a_blocking_stream_captures_everybody(capture):
    x, null = gpu(3), cupy.cuda.Stream.null

    def work():
        with null:
            x + 1.0

    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="Implicit"):
        capture(work, cupy.cuda.Stream())


def test_freed_memory_bites(capture, pool):
    x = gpu(3)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        x += x * 2.0
        graph = stream.end_capture()
    with pytest.raises(RuntimeError, match="memory of the default pool, which others reuse"):
        graph.launch()

    kept = []
    with stream:
        stream.begin_capture()
        kept.append(x * 2.0)
        graph = stream.end_capture()
    graph.launch()  # the array is alive, and so its memory is its own
    assert (kept[0].get() == x.get() * 2).all()

    early = gpu(3)
    with cupy.cuda.using_allocator(pool.malloc):
        late = gpu(3)

    def work():
        nonlocal late
        x.__iadd__(early)
        x.__iadd__(late)
        late = None

    with pytest.raises(RuntimeError, match="died during its capture"):
        capture(work).launch()
    graph = capture(lambda: x.__iadd__(early))
    early = None
    with pytest.raises(RuntimeError, match="default pool"):
        graph.launch()


def test_the_pool_of_a_graph_must_live():
    x, pool = gpu(3), cupy.cuda.MemoryPool()
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.synchronize()
    cupy.cuda.Device().synchronize()
    with cupy.cuda.using_allocator(pool.malloc), stream:
        stream.begin_capture()
        x += x * 2.0
        graph = stream.end_capture()
    graph.launch()
    del pool
    gc.collect()
    with pytest.raises(RuntimeError, match="the memory pool of this graph is gone"):
        graph.launch()


def test_unsynchronised_streams_race():
    side = cupy.cuda.Stream(non_blocking=True)
    x = gpu(3)
    with side, pytest.raises(RuntimeError, match="stream race"):
        x + 1.0
    event = cupy.cuda.get_current_stream().record()
    side.wait_event(event)
    with side:
        y = x + 1.0
    with pytest.raises(RuntimeError, match="stream race"):
        y.get()
    with pytest.raises(RuntimeError, match="stream race"):
        x += 1.0  # the other stream may still be reading
    side.synchronize()
    y.get()
    x += 1.0
    with cupy.cuda.Stream():  # a blocking one waits for the null stream, and it for them
        x += 1.0
    x.get()


def test_branches_of_a_graph(capture):
    x, y = gpu(3), gpu(3)
    main, side = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))

    def work(join):
        side.wait_event(main.record())
        with side:
            y.__iadd__(1.0)
        x.__iadd__(1.0)
        if join:
            main.wait_event(side.record())

    assert capture(lambda: work(True), main).nodes == 2
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="Unjoined"):
        capture(lambda: work(False), main)
    before = cupy.cuda.Stream.null.record()
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="Isolation"):
        capture(lambda: main.wait_event(before), main)


# --- Memory ----------------------------------------------------------------------------------


def test_memory_is_counted(pool, monkeypatch):
    default = cupy.get_default_memory_pool()
    before, (free, total) = default.used_bytes(), cupy.cuda.Device().mem_info
    x = cupy.zeros((1000, 250), "float32")
    view = x[5:].T
    assert default.used_bytes() - before == 1_000_000
    with cupy.cuda.using_allocator(pool.malloc):
        y = x + 1
    assert pool.used_bytes() == 1_000_000
    assert cupy.cuda.Device().mem_info == (free - 2_000_000, total)
    del x
    assert default.used_bytes() - before == 1_000_000
    del view, y
    assert default.used_bytes() == before
    assert pool.used_bytes() == 0
    pointer = cupy.cuda.alloc(4096)
    assert default.used_bytes() - before == 4096
    assert pointer.ptr
    monkeypatch.setattr(simulator, "memory", total - free + 500_000)
    for big in (
        lambda: cupy.empty(10**12),
        lambda: cupy.asarray(np.zeros(10**6)),
        lambda: cupy.ones(300_000, "uint8") * np.float64(1),
    ):
        with pytest.raises(MemoryError, match=r"Out of memory allocating [\d,]+ bytes \(alloc"):
            big()
    assert isinstance(simulator.names(), list)
    error = cupy.cuda.memory.OutOfMemoryError(1000, 500)
    assert str(error) == "Out of memory allocating 1,000 bytes (allocated so far: 500 bytes)."
    assert (error._size, error._total, error._limit) == (1000, 500, 0)


# --- cuBLAS ----------------------------------------------------------------------------------


class Blas:
    def __init__(self):
        self.lib = ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
        self.handle = ctypes.c_void_p()
        self.created = self.lib.cublasCreate_v2(ctypes.byref(self.handle))
        self.workspace = cupy.cuda.alloc(1024)

    def use(self, stream, workspace=True):
        assert self.lib.cublasSetStream_v2(self.handle, ctypes.c_void_p(stream.ptr)) == 0
        if workspace:
            size = ctypes.c_size_t(1024)
            pointer = ctypes.c_void_p(self.workspace.ptr)
            assert self.lib.cublasSetWorkspace_v2(self.handle, pointer, size) == 0

    def gemm(self, ta, tb, m, n, k, a, lda, b, ldb, c, ldc, alpha=1.0, beta=0.0, compute=68,
             types=(0, 0, 0)):  # fmt: skip
        number = ctypes.c_double if compute == 70 else ctypes.c_float
        one, zero = ctypes.byref(number(alpha)), ctypes.byref(number(beta))
        a, b, c = (ctypes.c_void_p(x.data.ptr) for x in (a, b, c))
        return self.lib.cublasGemmEx(
            self.handle, ta, tb, m, n, k, one, a, types[0], lda, b, types[1], ldb, zero,
            c, types[2], ldc, compute, -1,
        )  # fmt: skip


@pytest.fixture
def blas():
    return Blas()


@pytest.mark.parametrize(("ta", "tb"), list(itertools.product((0, 1), (0, 1))))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gemm_is_column_major(blas, ta, tb, dtype):
    m, n, k = 4, 3, 5
    # column-major X is row-major X.T
    a = gpu(*((m, k) if ta else (k, m)), dtype=dtype)
    b = gpu(*((k, n) if tb else (n, k)), dtype=dtype, seed=1)
    c = gpu(n, m, dtype=dtype, seed=2)
    op_a, op_b = (a.get() if ta else a.get().T), (b.get() if tb else b.get().T)
    expected = 2.0 * op_a @ op_b + 0.5 * c.get().T
    types, compute = ((0,) * 3, 68) if dtype == "float32" else ((1,) * 3, 70)
    sizes = (ta, tb, m, n, k, a, a.shape[1], b, b.shape[1], c, m)
    assert blas.gemm(*sizes, 2.0, 0.5, compute, types) == 0
    np.testing.assert_allclose(c.get().T, expected, rtol=1e-5)


def test_gemm_refuses(blas):
    x = gpu(4, 4)
    assert blas.gemm(0, 0, 4, 4, 4, x, 3, x, 4, x, 4) == 7
    assert blas.gemm(0, 1, 4, 3, 4, x, 4, x, 2, x, 4) == 7
    assert blas.gemm(0, 0, 4, 4, 4, x, 4, x, 4, x, 3) == 7
    assert blas.gemm(0, 0, 4, 4, 4, x, 4, x, 4, x, 4, compute=70) == 15
    assert blas.gemm(0, 0, 4, 4, 4, x, 4, x, 4, x, 4, compute=77, types=(1, 1, 1)) == 15
    assert blas.gemm(0, 0, 4, 4, 4, x, 4, x, 4, x, 4, types=(0, 2, 0)) == 15
    host = type("Host", (), {"data": type("Data", (), {"ptr": np.ones(16).ctypes.data})})
    assert blas.gemm(0, 0, 4, 4, 4, host, 4, x, 4, x, 4) == 13
    x[...] = np.nan
    y = cupy.ones((4, 4), "float32")
    assert blas.gemm(0, 0, 4, 4, 4, y, 4, y, 4, x, 4) == 0  # beta = 0: what was there is not read
    assert (x.get() == 4).all()


def test_gemm_of_stacks(blas):
    """Of many in one call; an operand that all of them share has the distance 0."""
    a, b, c = gpu(5, 3), gpu(4, 2, 5, seed=1), cupy.empty((4, 2, 3), "float32")

    def stack(apart_c, count=4):
        one, zero = (ctypes.byref(ctypes.c_float(v)) for v in (1.0, 0.0))
        x, y, z = ((ctypes.c_void_p(v.data.ptr), 0) for v in (a, b, c))
        return blas.lib.cublasGemmStridedBatchedEx(
            blas.handle, 0, 0, 3, 2, 5, one, *x, 3, ctypes.c_longlong(0), *y, 5,
            ctypes.c_longlong(10), zero, *z, 3, ctypes.c_longlong(apart_c), count, 68, -1,
        )  # fmt: skip

    assert stack(6) == 0
    np.testing.assert_allclose(c.get(), b.get() @ a.get(), rtol=1e-5, atol=1e-6)
    assert stack(5) == 7  # the results would overlap
    assert stack(6, -1) == 7
    assert stack(6, 5) == 13  # there is no fifth


def test_gemm_rounds_operands(blas):
    def product(value, dtype, types, compute=68, out="float32"):
        a, b = (cupy.asarray(np.array([[v]], dtype)) for v in (value, 1))
        if dtype == "uint16":  # bfloat16: the upper half of a float
            a, b = (
                cupy.asarray((np.array([[v]], "f4").view("u4") >> 16).astype("u2"))
                for v in (value, 1)
            )
        c = cupy.zeros((1, 1), out)
        assert blas.gemm(0, 0, 1, 1, 1, a, 1, b, 1, c, 1, compute=compute, types=types) == 0
        return c.get()[0, 0]

    fine = 1 + 2**-11 + 2**-20
    assert product(fine, "float32", (0, 0, 0)) == np.float32(fine)
    assert product(fine, "float32", (0, 0, 0), 77) == 1 + 2**-10
    assert product(1 + 2**-11, "float32", (0, 0, 0), 77) == 1  # a tie goes to even
    assert product(1.5, "float16", (2, 2, 0)) == 1.5
    assert product(1 + 2**-10, "float16", (2, 2, 2), out="float16") == np.float16(1 + 2**-10)
    assert product(1.5, "uint16", (14, 14, 0)) == 1.5
    assert product(1.5, "uint16", (14, 14, 14), out="uint16") == 0x3FC0


def test_gemm_in_a_capture(blas, capture):
    x, y, z = (cupy.ones((2, 2), "float32") for _ in range(3))
    stream = cupy.cuda.Stream(non_blocking=True)
    status = {}

    def product():
        return blas.gemm(0, 0, 2, 2, 2, x, 2, y, 2, z, 2, beta=1.0)

    def work():
        x.__iadd__(1.0)
        status["good"] = product()
        x.__iadd__(1.0)
        status["late"] = Blas().created

    blas.use(stream)
    graph = capture(work, stream)
    assert graph.names == ["add", "gemm", "add"]
    assert status == {"good": 0, "late": 1}
    assert (z.get() == 1).all()
    graph.launch()
    assert (z.get() == 5).all()
    graph.launch()
    assert (z.get() == 13).all()
    blas.use(stream, workspace=False)
    assert capture(lambda: status.update(bare=product()), stream).nodes == 0
    assert status["bare"]
    cupy.cuda.Device().synchronize()
    blas.use(stream)
    blas.workspace = None  # freed
    assert capture(lambda: status.update(freed=product()), stream).nodes == 0
    assert status["freed"]


# --- Kernels ---------------------------------------------------------------------------------


def test_elementwise_kernels(capture):
    scaled = cupy.ElementwiseKernel(
        "T x, T y, float32 f, raw int32 k",
        "T z",
        "z = x * (T)f + y + (T)k[i % 3]; if (i == n - 1) z = -1",
        "scaled",
    )
    x, y, k = gpu(4, 3), gpu(3, seed=1), cupy.asarray(np.arange(3, dtype="int32"))
    expected = x.get() * np.float32(2) + y.get() + k.get()
    expected[-1, -1] = -1
    np.testing.assert_array_equal(scaled(x, y, 2.0, k).get(), expected)
    out = cupy.zeros((4, 6), "float32")
    assert scaled(x, y, 2, k, out[:, ::2]) is not out
    np.testing.assert_array_equal(out.get()[:, ::2], expected)
    assert (out.get()[:, 1::2] == 0).all()
    again = scaled(x.T.copy().T, y, np.float32(2), k)
    np.testing.assert_array_equal(again.get(), expected)
    assert scaled(x.astype("float64"), y.astype("float64"), 2.0, k).dtype == "float64"
    with pytest.raises(TypeError, match="mismatched"):
        scaled(x, y.astype("float64"), 2.0, k)
    with pytest.raises(TypeError, match="mismatched"):
        scaled(x, y, y.astype("float64"), k)
    with pytest.raises(ValueError, match="Out shape"):
        scaled(x, y, 2.0, k, cupy.zeros((4, 4), "float32"))
    with pytest.raises(TypeError, match="Unsupported type"):
        scaled(np.ones(3), y, 2.0, k)
    with pytest.raises(ValueError, match="reserved"):
        cupy.ElementwiseKernel("float32 n", "float32 y", "y = n")

    both = cupy.ElementwiseKernel(
        "float32 x, bool c", "float32 s, uint16 h",
        "s = c ? tanh(x) : x; h = (unsigned short)(__float_as_uint(x) >> 16)", "both",
    )  # fmt: skip
    s, h = both(x, x > 0)
    host = x.get()
    np.testing.assert_allclose(s.get(), np.where(host > 0, np.tanh(host), host), rtol=1e-6)
    np.testing.assert_array_equal(h.get(), (host.view("u4") >> 16).astype("u2"))
    kept = []
    graph = capture(lambda: kept.append(scaled(x, y, 2.0, k)))
    assert graph.names == ["kernel scaled"]
    assert np.isnan(kept[0].get()).all()
    graph.launch()
    np.testing.assert_array_equal(kept[0].get(), expected)
    broken = cupy.ElementwiseKernel("float32 x", "float32 y", "y = nonsense", "broken")
    with pytest.raises(Exception, match="nonsense"):
        broken(x)


KERNELS = r"""
typedef float real;
__device__ __forceinline__ real twice(real x) { return 2.0f * x; }
extern "C" __global__ void plain(const real* __restrict__ x, real* __restrict__ y, int n, real f) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = twice(x[i]) * f;
}
// sums of blocks: a tree in shared memory
extern "C" __global__ void __launch_bounds__(256) tree(const float *x, float *y, int n) {
    __shared__ float part[256];
    extern __shared__ float spare[];
    int i = blockIdx.x * 256 + threadIdx.x;
    part[threadIdx.x] = i < n ? x[i] : 0.0f;
    __syncthreads();
    for (int o = 128; o; o >>= 1) {
        if (threadIdx.x < o) part[threadIdx.x] += part[threadIdx.x + o];
        __syncthreads();
    }
    spare[threadIdx.x] = part[0];
    if (threadIdx.x == 0) y[blockIdx.x] = spare[0];
}
// a row per warp; the last warp of the block may be without one
extern "C" __global__ void rows(const float *x, float *y, int count, int n) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) >> 5, lane = threadIdx.x & 31;
    if (row >= count) return;
    float s = 0.0f;
    for (int j = lane; j < n; j += 32) s += x[row * n + j];
    for (int o = 16; o; o >>= 1) s += __shfl_xor_sync(0xffffffffu, s, o);
    float low = s;
    for (int o = 16; o; o >>= 1) low = fminf(low, __shfl_down_sync(0xffffffffu, low, o));
    unsigned votes = __ballot_sync(0xffffffffu, lane % 2);
    if (lane == 0) y[row] = votes == 0xaaaaaaaau ? low : -1.0f;
}
extern "C" __global__ void divergent(float *x) {
    if (threadIdx.x < 5) __syncthreads();
    else __syncthreads();
    x[threadIdx.x] = 1.0f;
}
extern "C" __global__ void counting(int *hits, const unsigned char *x) {
    atomicAdd(&hits[x[blockIdx.x * blockDim.x + threadIdx.x]], 1);
}
"""


@pytest.fixture(scope="module")
def kernels():
    return cupy.RawModule(code=KERNELS)


def test_raw_kernels(kernels, capture):
    x = gpu(1000)
    y = cupy.zeros(1000, "float32")
    kernels.get_function("plain")((4,), (256,), (x, y, np.int32(1000), np.float32(0.5)))
    np.testing.assert_array_equal(y.get(), x.get())
    tree, sums = kernels.get_function("tree"), cupy.zeros(4, "float32")
    graph = capture(lambda: tree((4,), (256,), (x, sums, np.int32(1000)), shared_mem=1024))
    assert graph.names == ["kernel tree"]
    assert (sums.get() == 0).all()
    graph.launch()
    expected = np.pad(x.get().astype("f8"), (0, 24)).reshape(4, 256).sum(axis=1)
    np.testing.assert_allclose(sums.get(), expected, rtol=1e-5, atol=1e-5)
    z, out = gpu(7, 50), cupy.zeros(7, "float32")
    rows = kernels.get_function("rows")
    rows((2,), (128,), (z, out, np.int32(7), np.int32(50)))
    np.testing.assert_allclose(out.get(), z.get().sum(axis=1), rtol=1e-4, atol=1e-5)
    hits, bytes_ = cupy.zeros(4, "int32"), cupy.asarray(np.arange(64, dtype="uint8") % 4)
    kernels.get_function("counting")((2,), (32,), (hits, bytes_))
    assert hits.get().tolist() == [16] * 4
    alone = cupy.RawKernel(KERNELS, "plain")
    alone((4,), (256,), (x, y, np.int32(0), np.float32(0.5)))


def test_raw_kernels_are_strict(kernels):
    x, y = gpu(8, 4), cupy.zeros(32, "float32")
    plain = kernels.get_function("plain")
    n, f = np.int32(32), np.float32(1)
    for args, kind in (
        ((x, y, 32, f), TypeError),  # a long long
        ((x, y, n, 1.0), TypeError),  # a double
        ((x, y, np.float32(32), f), TypeError),
        ((x, y, n), TypeError),
        ((x.astype("float64"), y, n, f), TypeError),
        ((x, y.view("int32"), n, f), TypeError),
        ((x.get(), y, n, f), TypeError),
        ((x, y, n, x), TypeError),
        ((x.T, y, n, f), ValueError),
        ((x[:, 1:], y, n, f), ValueError),
    ):
        with pytest.raises(kind):
            plain((1,), (32,), args)
    plain((1,), (32,), (x, y.data, n, f))
    with pytest.raises(RuntimeError, match="INVALID_VALUE"):
        plain((1,), (2048,), (x, y, n, f))
    tree = kernels.get_function("tree")
    with pytest.raises(RuntimeError, match="INVALID_VALUE"):
        tree((1,), (256,), (x, y, n), shared_mem=100_000)
    tree.max_dynamic_shared_size_bytes = 100_000
    tree((1,), (256,), (x, y, n), shared_mem=100_000)
    # Kernels of one text are one function, so each sees the limit that another has set.
    cupy.RawKernel(KERNELS, "tree").max_dynamic_shared_size_bytes = 50_000
    with pytest.raises(RuntimeError, match="INVALID_VALUE"):
        tree((1,), (256,), (x, y, n), shared_mem=100_000)
    with pytest.raises(RuntimeError, match="different __syncthreads"):
        kernels.get_function("divergent")((1,), (32,), (y,))
    with pytest.raises(RuntimeError, match="NOT_FOUND"):
        kernels.get_function("absent")


COOPERATIVE = r"""
extern "C" __global__ void count(unsigned *arrived, int *seen) {
    if (threadIdx.x == 0) {
        atomicAdd(arrived, 1u);
        while (*(volatile unsigned *)arrived < gridDim.x) { }
    }
    __syncthreads();
    seen[blockIdx.x * blockDim.x + threadIdx.x] = *arrived;
}
"""


def test_cooperative_kernels_have_one_block():
    count = cupy.RawKernel(COOPERATIVE, "count", enable_cooperative_groups=True)
    arrived, seen = cupy.zeros(1, "uint32"), cupy.zeros(64, "int32")
    with pytest.raises(NotImplementedError, match="simulator: count: a cooperative kernel of 2 bl"):
        count((2,), (32,), (arrived, seen))
    count((1,), (32,), (arrived, seen))
    assert seen.get().tolist() == [1] * 32 + [0] * 32


def test_without_a_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    kernel = cupy.ElementwiseKernel("float32 x", "float32 y", "y = x /* never built */", "k")
    monkeypatch.setattr("cupy._build._folder", lambda: __import__("pathlib").Path("/nonexistent"))
    with pytest.raises(RuntimeError, match=r"g\+\+ is not installed"):
        kernel(gpu(3))


def test_many_blocks_are_fast(kernels):
    x, sums = gpu(100 * 256), cupy.zeros(100, "float32")
    tree = kernels.get_function("tree")
    began, end = cupy.cuda.Event(), cupy.cuda.Event()
    began.record()
    tree((100,), (256,), (x, sums, np.int32(100 * 256)), shared_mem=1024)
    end.record()
    assert cupy.cuda.get_elapsed_time(began, end) < 5000
