"""CuPy on CUDA: whether the GPU can be used, how steps are captured, how data gets there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import cupy
import cupyx
import numpy as np
from array_api_compat import cupy as xp

from xpnet.backend import Backend, Run, Step, out_of_memory
from xpnet.backend.captured import captured_loop
from xpnet.backend.cublas import WORKSPACE_BYTES
from xpnet.backend.cuda_kernels import make_kernels
from xpnet.backend.loop import within
from xpnet.errors import DeviceError
from xpnet.kernels import with_kernels

# Compute capabilities from which on the tensor cores multiply in these.
LEAST_CAPABILITY = {"tf32": 80, "bfloat16": 80, "float16": 70}

# cudaError codes that mean "no usable GPU", and what a user can do about each.
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


def open(kind: str, index: int, precision: str = "float32") -> Backend:
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()  # the first call that really asks the driver
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
    try:
        device = cupy.cuda.Device(index)
        device.use()  # Device(9) itself never fails
        least = LEAST_CAPABILITY.get(precision, 0)
        if int(device.compute_capability) < least:
            raise DeviceError(
                f"cuda:{index} has no instructions for {precision} (compute capability "
                f"{device.compute_capability}, {least} needed): use precision float32"
            )
        # A kernel, a product and a copy back: NVRTC, CUDA headers or cuBLAS that are missing
        # are found here, not in the middle of the first step.
        kernels = make_kernels(precision)
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
            reason += "; CuPy needs CUDA's own libraries: pip install 'cupy-cuda13x[ctk]'"
        raise DeviceError(f"cuda:{index} was found, but a first kernel failed: {reason}") from error
    if abs(result - 44.0) > 0.1:  # float16 rounds
        raise DeviceError(f"cuda:{index} computes wrong results: expected 44, got {result}")

    @contextmanager
    def on_device() -> Iterator[None]:
        """On this device, whichever another thread or another backend has made current."""
        with device:
            try:
                yield
            except cupy.cuda.memory.OutOfMemoryError as error:
                needed = re.search(r"allocating ([\d,]+) bytes", str(error))
                bytes_needed = int(needed[1].replace(",", "")) if needed else 0
                pool = cupy.get_default_memory_pool()
                free = device.mem_info[0] + pool.free_bytes()
                raise out_of_memory(f"cuda:{index}", bytes_needed, free, memory) from None

    def here(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with on_device():
                return function(*args)

        return call

    def loop(step: Step) -> Run:
        with on_device():
            captured = captured_loop(with_kernels(step, kernels), CupyGraphs(index))
        return within(on_device, captured)

    def free_memory() -> int:
        with device:
            return int(device.mem_info[0] + cupy.get_default_memory_pool().free_bytes())

    memory = device.mem_info[1]
    return Backend(
        library="cupy",
        version=cupy.__version__,
        device=f"cuda:{index}",
        device_name=runtime.getDeviceProperties(index)["name"].decode(),
        memory=memory,
        xp=xp,
        asarray=here(cupy.asarray),
        to_numpy=here(cupy.asnumpy),
        loop=loop,
        compile=here,
        kernels=kernels,
        precision=precision,
        free_memory=free_memory,
        uploader=lambda: _Uploader(device).upload,
    )


class CupyGraphs:
    """CUDA graphs of CuPy's; see `xpnet.backend.captured.Graphs`."""

    def __init__(self, index: int) -> None:
        self._device = cupy.cuda.Device(index)
        # The null stream cannot be captured, and a blocking one would be disturbed by it.
        self._stream = cupy.cuda.Stream(non_blocking=True)
        # Temporaries of a graph stay where they were: nobody else may be given their memory.
        self._pool = cupy.cuda.MemoryPool()

    def take(self, array: Any, rows: Any) -> Any:
        return cupy.take(array, rows, axis=0)

    def read(self, losses: list[Any]) -> np.ndarray:
        values: np.ndarray = cupy.asnumpy(cupy.concatenate(losses))
        return values

    def copy(self, array: Any) -> Any:
        return array.copy()

    def empty(self, length: int, like: Any) -> Any:
        return cupy.empty((length,), like.dtype)

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def mark(self) -> Callable[[], None]:
        event = cupy.cuda.Event(disable_timing=True)
        event.record()
        wait: Callable[[], None] = event.synchronize
        return wait

    @contextmanager
    def aside(self) -> Iterator[None]:
        self._device.synchronize()  # the stream would not wait for what is queued on others
        with cupy.cuda.using_allocator(self._pool.malloc), self._stream:
            yield
            self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        stream = self._stream
        stream.begin_capture()
        try:
            work()
        except BaseException:
            # Or everything that follows would be captured too; it may itself say that it failed.
            with suppress(Exception):
                stream.end_capture()
            raise
        graph = stream.end_capture()
        graph.upload(stream)
        return lambda: graph.launch()


class _Uploader:
    """Shards through pinned memory on a stream of its own, one ahead of those in use.

    Two halves of device memory take turns, at fixed addresses, as a captured graph wants it: what
    is yielded is a whole half, of which the last shard may fill a part.
    """

    def __init__(self, device: Any) -> None:
        self._device = device
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._halves: list[_Half | None] = [None, None]

    def upload(self, shards: Iterator[tuple[np.ndarray, ...]]) -> Iterator[tuple[Any, ...]]:
        with ThreadPoolExecutor(1) as reader:

            def fetch(turn: int) -> _Half | None:
                arrays = next(shards, None)
                if arrays is None:
                    return None
                with self._device:
                    half = self._halves[turn % 2]
                    if half is None or not half.holds(arrays):
                        half = self._halves[turn % 2] = _Half(arrays)
                    half.fill(arrays, self._stream)
                return half

            turn, coming = 1, reader.submit(fetch, 0)
            while (half := coming.result()) is not None:
                # Read, copied to pinned memory and sent while the GPU works on the half before.
                coming = reader.submit(fetch, turn)
                turn += 1
                with self._device:
                    cupy.cuda.get_current_stream().wait_event(half.sent)
                yield half.arrays
                with self._device:
                    half.used.record()


class _Half:
    """Pinned memory, device memory, and marks of when each may be written to again."""

    def __init__(self, arrays: tuple[np.ndarray, ...]) -> None:
        self.pinned = [cupyx.empty_pinned(a.shape, a.dtype) for a in arrays]
        self.arrays = tuple(cupy.empty(a.shape, a.dtype) for a in arrays)
        self.sent, self.used = (cupy.cuda.Event(disable_timing=True) for _ in range(2))
        # The copy stream would not wait for whoever had this memory before.
        cupy.cuda.get_current_stream().synchronize()

    def holds(self, arrays: tuple[np.ndarray, ...]) -> bool:
        return len(arrays) == len(self.pinned) and all(
            a.dtype == p.dtype and a.shape[1:] == p.shape[1:] and len(a) <= len(p)
            for a, p in zip(arrays, self.pinned, strict=True)
        )

    def fill(self, arrays: tuple[np.ndarray, ...], stream: Any) -> None:
        self.sent.synchronize()  # the last shard has left the pinned memory
        stream.wait_event(self.used)  # and the one on the device has been computed with
        for array, pinned, there in zip(arrays, self.pinned, self.arrays, strict=True):
            pinned[: len(array)] = array
            there[: len(array)].set(pinned[: len(array)], stream=stream)
        self.sent.record(stream)


def _cuda(version: Any) -> str:
    """13020 as "13.2"; 0 as "none"."""
    try:
        number = version()
    except Exception:  # whatever it is, it must not hide the error that is being reported
        return "unknown"
    return f"{number // 1000}.{number % 1000 // 10}" if number else "none"
