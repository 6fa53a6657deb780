"""CuPy on CUDA: finding out, before any data is touched, whether the GPU can be used."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import cupy
from array_api_compat import cupy as xp

from xpnet.backend import Backend, Run, Step
from xpnet.backend.loop import plain_loop
from xpnet.errors import DeviceError

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
        # A kernel, a product and a copy back: NVRTC, CUDA headers or cuBLAS that are missing
        # are found here, not in the middle of the first step.
        x = cupy.arange(4, dtype="float32").reshape(2, 2)
        result = float(cupy.matmul(x + x, x).sum())
    except Exception as error:  # DynamicLibNotFoundError, ImportError, CUDARuntimeError, ...
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        reason = _REASONS.get(getattr(error, "status", 0), f"{type(error).__name__}: {first}")
        if isinstance(error, ImportError) or re.search("lib|header", first):
            reason += "; CuPy needs CUDA's own libraries: pip install 'cupy-cuda13x[ctk]'"
        raise DeviceError(f"cuda:{index} was found, but a first kernel failed: {reason}") from error
    if result != 44.0:
        raise DeviceError(f"cuda:{index} computes wrong results: expected 44, got {result}")

    def here(function: Callable[..., Any]) -> Callable[..., Any]:
        """On this device, whichever another thread or another backend has made current."""

        def call(*args: Any) -> Any:
            with device:
                return function(*args)

        return call

    def loop(step: Step) -> Run:
        # The place of the captured graph: whatever it needs to keep (graph, pool, workspace)
        # lives in the closure that is returned here.
        read = here(lambda losses: cupy.asnumpy(cupy.stack(losses)))
        return plain_loop(here(step), here(lambda a, rows: cupy.take(a, rows, axis=0)), read)

    return Backend(
        library="cupy",
        version=cupy.__version__,
        device=f"cuda:{index}",
        device_name=runtime.getDeviceProperties(index)["name"].decode(),
        memory=device.mem_info[1],
        xp=xp,
        asarray=here(cupy.asarray),
        to_numpy=here(cupy.asnumpy),
        loop=loop,
        compile=here,
    )


def _cuda(version: Any) -> str:
    """13020 as "13.2"; 0 as "none"."""
    try:
        number = version()
    except Exception:  # whatever it is, it must not hide the error that is being reported
        return "unknown"
    return f"{number // 1000}.{number % 1000 // 10}" if number else "none"
