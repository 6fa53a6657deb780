"""CuPy on CUDA. It checks that the GPU is usable before any data is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import cupy
import numpy as np
from array_api_compat import cupy as xp

from xpnet.arrays.dispatch import with_kernels
from xpnet.backend.captured import captured_loop
from xpnet.backend.cuda.cublas import WORKSPACE_BYTES
from xpnet.backend.cuda.gather import Gather
from xpnet.backend.cuda.graphs import CupyGraphs
from xpnet.backend.cuda.kernels import image_kernels, make_kernels
from xpnet.backend.cuda.nccl import NcclSum
from xpnet.backend.cuda.sums import SumRows
from xpnet.backend.cuda.upload import Uploader
from xpnet.backend.interface import (
    Agree,
    Array,
    Backend,
    Prepare,
    Ranks,
    Reduce,
    Run,
    Step,
    Upload,
    out_of_memory,
)
from xpnet.backend.loop import on_rows, within
from xpnet.backend.precision import check_capability
from xpnet.errors import DeviceError

# cudaError codes that mean "no usable GPU", and what you can do about each.
_REASONS = {
    3: "the NVIDIA driver could not start; restart the machine or reinstall the driver",
    35: "the NVIDIA driver is missing or older than this CuPy needs; install a newer driver, "
    "or the CuPy wheel for yours (cupy-cuda12x, cupy-cuda13x)",
    46: "the GPU is in exclusive use by another process; wait for it or choose another one",
    100: "the driver sees no GPU; is CUDA_VISIBLE_DEVICES empty or wrong?",
    802: "the GPU system is not ready yet; is the fabric manager running?",
    803: "driver and kernel module are of different versions; restart the machine",
    804: "no forward compatibility on this GPU; install the CuPy wheel for the driver",
    999: "the NVIDIA driver failed; see the kernel log",
}


class CuPy(Backend):
    library = "cupy"
    xp: Any = xp

    def __init__(self, kind: str, index: int, precision: str = "float32") -> None:
        _check_driver(index)
        fallbacks: list[str] = []
        self._index = index
        self._device, kernels = _usable(index, precision, fallbacks)
        name = cupy.cuda.runtime.getDeviceProperties(index)["name"].decode()
        super().__init__(
            cupy.__version__, f"cuda:{index}", name, self._device.mem_info[1],
            kernels=kernels, precision=precision,
        )  # fmt: skip
        self.fallbacks = fallbacks
        # Outside a step: products in full precision, and nothing is captured.
        self._image_kernels = image_kernels(cupy.matmul, SumRows())
        # On several ranks, there is a loop for each size of batch. They never run at the same
        # time, so their graphs share memory for temporaries.
        self._graphs: WeakValueDictionary[Agree, CupyGraphs] = WeakValueDictionary()

    def asarray(self, array: np.ndarray) -> Array:
        with self._on_device():
            return cupy.asarray(array)

    def to_numpy(self, array: Array) -> np.ndarray:
        with self._on_device():
            values: np.ndarray = cupy.asnumpy(array)
            return values

    def loop(self, step: Step, prepare: Prepare, agree: Agree | None = None) -> Run:
        work = with_kernels(on_rows(step, Gather(prepare, self.fallbacks)), self.kernels)
        with self._on_device():
            graphs = None if agree is None else self._graphs.get(agree)
            graphs = graphs or CupyGraphs(self._index)
            if agree is not None:
                self._graphs[agree] = graphs
            captured = captured_loop(work, graphs, self.fallbacks, agree)
        return within(self._on_device, captured)

    def reducer(self, ranks: Ranks) -> Reduce:
        if ranks.size == 1:
            return list
        with self._on_device():
            return NcclSum(ranks, self._index)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        # The lines would copy the images once for each place of a filter, all samples at once.
        work = with_kernels(function, self._image_kernels)

        def call(*args: Any) -> Any:
            with self._on_device():
                return work(*args)

        return call

    def free_memory(self) -> int:
        with self._device:
            return int(self._device.mem_info[0] + cupy.get_default_memory_pool().free_bytes())

    def uploader(self) -> Upload:
        return Uploader(self._on_device).upload

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Make this device current; another thread or backend may have changed it."""
        with self._device:
            try:
                yield
            except cupy.cuda.memory.OutOfMemoryError as error:
                needed = re.search(r"allocating ([\d,]+) bytes", str(error))
                size = int(needed[1].replace(",", "")) if needed else 0
                raise out_of_memory(self.device, size, self.free_memory(), self.memory) from None


def _check_driver(index: int) -> None:
    """Refuse an old CuPy, a driver that does not answer, and a GPU that does not exist."""
    runtime = cupy.cuda.runtime
    if int(cupy.__version__.split(".")[0]) < 14:
        raise DeviceError(
            f"CuPy {cupy.__version__} is too old, expected 14 or newer: upgrade it with pip"
        )
    try:
        count = runtime.getDeviceCount()  # the first call that asks the driver
    except runtime.CUDARuntimeError as error:
        reason = _REASONS.get(error.status, str(error))
        raise DeviceError(
            f"no usable CUDA GPU: {reason} [driver {_cuda(runtime.driverGetVersion)}, "
            f"CuPy {cupy.__version__} built for CUDA {_cuda(runtime.runtimeGetVersion)}]"
        ) from error
    if count == 0:
        raise DeviceError(f"no usable CUDA GPU: {_REASONS[100]}")
    if index >= count:
        there = "cuda:0 only" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise DeviceError(f"cuda:{index} does not exist: this machine has {there}")


def _usable(index: int, precision: str, fallbacks: list[str]) -> tuple[Any, Any]:
    """Return the device and its kernels after a test product gave the right result."""
    runtime = cupy.cuda.runtime
    try:
        device = cupy.cuda.Device(index)
        device.use()  # Device(9) itself does not check that it exists
        capability = device.compute_capability
        check_capability(f"cuda:{index}", precision, f"{capability[:-1]}.{capability[-1]}")
        # A kernel, a product and a copy back show here, and not in the middle of the first step,
        # whether NVRTC, CUDA headers or cuBLAS are missing.
        kernels = make_kernels(precision, fallbacks)
        x = cupy.arange(4, dtype="float32").reshape(2, 2)
        result = float(kernels["matmul"](x + x, x).sum())
    except DeviceError:
        raise
    except cupy.cuda.memory.OutOfMemoryError:
        free, total = device.mem_info
        raise out_of_memory(f"cuda:{index}", WORKSPACE_BYTES, free, total) from None
    except Exception as error:  # DynamicLibNotFoundError, ImportError, CUDARuntimeError, ...
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        reason = _REASONS.get(getattr(error, "status", 0), f"{type(error).__name__}: {first}")
        if isinstance(error, ImportError) or re.search("lib|header", first):
            package = f"cupy-cuda{runtime.runtimeGetVersion() // 1000}x[ctk]"
            reason += f"; CuPy needs CUDA's own libraries: pip install '{package}'"
        raise DeviceError(f"cuda:{index} was found, but a first kernel failed: {reason}") from error
    if abs(result - 44.0) > 0.1:  # products below float32 round
        raise DeviceError(f"cuda:{index} computes wrong results: expected 44, got {result}")
    return device, kernels


def _cuda(version: Any) -> str:
    """Write the version 13020 as "13.2", and 0 as "none"."""
    try:
        number = version()
    except Exception:  # no failure here may hide the error that is being reported
        return "unknown"
    return f"{number // 1000}.{number % 1000 // 10}" if number else "none"
