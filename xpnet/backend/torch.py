"""PyTorch on the CPU or CUDA, without autograd, since the layers have their own backward.

On CUDA, the loop captures steps, as on CuPy.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from array_api_compat import torch as xp

from xpnet.arrays.dispatch import with_kernels
from xpnet.backend import torch_images
from xpnet.backend.captured import captured_loop
from xpnet.backend.cpu import cpu_memory, cpu_name, keep_freed_memory
from xpnet.backend.interface import (
    Agree,
    Array,
    Backend,
    Prepare,
    Ranks,
    Reduce,
    Run,
    Step,
    check_process,
    out_of_memory,
    unpacked,
)
from xpnet.backend.loop import FLUSH_BELOW, flushing, gathering, on_rows, plain_loop, within
from xpnet.backend.precision import check_capability, scaled_for_float16
from xpnet.backend.torch_ranks import nccl_sum
from xpnet.backend.torch_update import Many, for_each, update
from xpnet.errors import DeviceError

# NumPy aligns memory to 16 bytes, but MKL takes a fifth longer if weights do not begin at a cache
# line. Larger arrays are data sets: a step gathers their rows, so they need no aligned copy.
ALIGNMENT = 64
ALIGNED_BYTES = 16 << 20


def _add_scaled(y: Array, x: Array, factor: Any) -> Array:
    """Add in one pass instead of two if the factor is a number; a schedule's factor is an array."""
    if isinstance(factor, float):
        return y.add_scaled(x, factor) if isinstance(y, Many) else y.add_(x, alpha=factor)
    y += factor * x
    return y


def _matmul_cpu(a: Array, b: Array) -> Array:
    # With few columns, as in the last layer, MKL takes up to three times as long for a product as
    # for its transpose (benchmarks/RESULTS.md).
    if a.ndim == b.ndim == 2 and 1 < b.shape[1] < 16 and a.shape[0] >= 256:
        return (b.T @ a.T).T
    return a @ b


def _matmul_bfloat16(a: Array, b: Array) -> Array:
    # PyTorch sums in float32, then rounds the result to bfloat16.
    return (a.to(torch.bfloat16) @ b.to(torch.bfloat16)).to(a.dtype)


def _matmul_float16(a: Array, b: Array) -> Array:
    (a, down), (b, up) = (scaled_for_float16(x, a.shape[-1]) for x in (a, b))
    return (a.to(torch.float16) @ b.to(torch.float16)).to(a.dtype) * down * up


def _matmul_tf32(a: Array, b: Array) -> Array:
    before = _allow_tf32(True)
    try:
        return a @ b
    finally:
        _allow_tf32(before)


def _allow_tf32(allowed: bool) -> bool:
    """Set whether products of float32 may round to TF32; return the previous setting."""
    # PyTorch warns about this setting since 2.9. But its compiler reads it, and raises an error if
    # you use the new setting (fp32_precision).
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*TF32")
        before = bool(torch.backends.cuda.matmul.allow_tf32)
        torch.backends.cuda.matmul.allow_tf32 = allowed
    return before


_MATMUL = {"bfloat16": _matmul_bfloat16, "float16": _matmul_float16, "tf32": _matmul_tf32}
_PREFIXES = {"K": 10, "M": 20, "G": 30, "T": 40}


_KERNELS: dict[str, Callable[..., Array]] = {
    "sigmoid": torch.sigmoid,
    # Each of these takes one pass over the memory; our lines take three.
    "sigmoid_backward": lambda y, dout: torch.ops.aten.sigmoid_backward(dout, y),
    "tanh_backward": lambda y, dout: torch.ops.aten.tanh_backward(dout, y),
    "relu_backward": lambda y, dout: torch.ops.aten.threshold_backward(dout, y, 0.0),
    "add_scaled": _add_scaled,
    # `maximum` would turn the number into an array on the host, which ends a capture.
    "at_least": lambda x, low: torch.clamp(x, min=low),
    "at_most": lambda x, high: torch.clamp(x, max=high),
    "for_each": for_each,
    "update": update,
}


class Torch(Backend):
    library = "torch"
    xp: Any = xp

    def __init__(self, kind: str, index: int, precision: str = "float32") -> None:
        kernels = _KERNELS | torch_images.kernels(precision, kind == "cuda")
        if kind == "cuda":
            self._device, name, memory = _gpu(index, precision)
        else:
            self._device, name, memory = torch.device("cpu"), cpu_name(), cpu_memory()
            if torch.backends.mkl.is_available():
                kernels["matmul"] = _matmul_cpu
        if precision in _MATMUL:
            kernels["matmul"] = _MATMUL[precision]
        # On several ranks, there is a loop for each size of batch. They never run at the same time,
        # so their graphs share memory for temporaries.
        self._graphs: WeakValueDictionary[Agree, TorchGraphs] = WeakValueDictionary()
        super().__init__(
            torch.__version__, str(self._device), name, memory, kernels=kernels, precision=precision
        )

    def asarray(self, array: np.ndarray) -> Array:
        if self.device != "cpu" or torch.get_num_threads() > 1:
            check_process("torch")
        if not array.flags.writeable:  # torch warns about read-only memory
            array = array.copy()
        tensor = torch.from_numpy(np.asarray(array, order="C")).to(self._device)
        if tensor.data_ptr() % ALIGNMENT and tensor.nbytes < ALIGNED_BYTES:
            tensor = tensor.clone()  # torch aligns the memory that it allocates
        return tensor

    def to_numpy(self, array: Array) -> np.ndarray:
        return np.array(array.cpu().numpy())

    def loop(self, step: Step, prepare: Prepare, agree: Agree | None = None) -> Run:
        work = on_rows(step, gathering(_take, prepare))
        work = torch.no_grad()(with_kernels(work, self.kernels))
        if self.device == "cpu":
            keep_freed_memory()
            return plain_loop(flushing(work, _flush), torch.stack, agree)
        graphs = None if agree is None else self._graphs.get(agree)
        graphs = graphs or TorchGraphs(self._device)
        if agree is not None:
            self._graphs[agree] = graphs
        return within(self._on_device, captured_loop(work, graphs, self.fallbacks, agree))

    def reducer(self, ranks: Ranks) -> Reduce:
        if ranks.size == 1:
            return list
        if self.device != "cpu":
            with self._on_device():
                return nccl_sum(ranks, self._device)

        def reduce(arrays: Sequence[Array]) -> list[Array]:
            buffer = torch.cat([array.reshape(-1) for array in arrays])
            ranks.sum(buffer.numpy())
            return unpacked(buffer, arrays, torch.clone)

        return reduce

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        with torch.cuda.device(self._device):
            try:
                yield
            except torch.cuda.OutOfMemoryError as error:
                needed = re.search(r"allocate ([\d.]+) (\w)iB", str(error))
                size = float(needed[1]) * 2.0 ** _PREFIXES[needed[2]] if needed else 0
                free = self.free_memory()
                raise out_of_memory(self.device, int(size), free, self.memory) from None

    def free_memory(self) -> int:
        if self.device == "cpu":
            return 0
        device = self._device
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + held)


def _gpu(index: int, precision: str) -> tuple[Any, str, int]:
    """Return device, name and bytes of memory of a GPU; refuse one without this precision."""
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"built for CUDA {built}, finds no usable GPU" if built else "is a CPU build"
        advice = "see nvidia-smi" if built else "install a CUDA build (pytorch.org)"
        raise DeviceError(f"no CUDA in torch: torch {torch.__version__} {why}; {advice}")
    count = torch.cuda.device_count()
    if index >= count:
        raise DeviceError(f"cuda:{index} does not exist: torch sees {count} GPU(s), from cuda:0")
    device = torch.device("cuda", index)
    major, minor = torch.cuda.get_device_capability(device)
    check_capability(str(device), precision, f"{major}.{minor}")
    properties = torch.cuda.get_device_properties(device)
    return device, torch.cuda.get_device_name(device), properties.total_memory


def _flush(array: Array) -> None:
    if array.is_floating_point() and array.ndim:
        array.masked_fill_(array.abs() < FLUSH_BELOW * torch.finfo(array.dtype).tiny, 0.0)


def _take(array: Array, rows: Array) -> Array:
    return torch.index_select(array, 0, rows)


class TorchGraphs:
    """PyTorch's CUDA graphs; see `xpnet.backend.captured.Graphs`."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._last: Any = None

    def join(self, losses: list[Array]) -> Array:
        return torch.cat(losses)

    def stack(self, losses: list[Array], out: Array) -> None:
        torch.stack(losses, out=out)

    def copy(self, array: Array) -> Array:
        return array.clone()

    def empty(self, length: int, like: Array) -> Array:
        return torch.empty((length, *like.shape), dtype=like.dtype, device=like.device)

    def place(self, array: Array) -> Hashable:
        return int(array.data_ptr()), tuple(array.stride())

    def memory(self, array: Array) -> Hashable:
        return int(array.untyped_storage().data_ptr())

    def mark(self) -> Callable[[], None]:
        event = torch.cuda.Event()
        event.record()
        wait: Callable[[], None] = event.synchronize
        return wait

    @contextmanager
    def aside(self) -> Iterator[None]:
        # `torch.cuda.graph` has its own memory pool, so a separate stream is enough here.
        torch.cuda.synchronize(self._device)
        with torch.cuda.stream(self._stream):
            try:
                yield
            finally:
                self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # The graphs of a loop never run at the same time, so they can share memory for temporaries.
        # A pool lives as long as one of its graphs, so keep the last graph.
        pool = None if self._last is None else self._last.pool()
        reason: Exception | None = None
        try:
            # Other threads, such as those of NCCL, may go on asking for their own events.
            mode = "thread_local"
            with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode=mode):
                try:
                    work()
                except Exception as error:
                    reason = error
                    raise
        except Exception as error:  # the end of a failed capture fails too; raise the first error
            raise (reason or error) from None
        self._last = graph
        launch: Callable[[], None] = graph.replay
        return launch
