"""Run batched matrix products in each library: the worker's side of ``benchmarks.matmul``.

A lane is a precision on a device: float32 and float64 everywhere, bfloat16 if the library has it,
tf32 and float16 on GPUs. On a GPU, CuPy takes part twice: with its own ``matmul``, which in CuPy 14
has no 16-bit batched product, and with a direct call of cuBLAS.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np

from benchmarks.pytorch_training import allow_tf32
from benchmarks.timing import calls_in, settle
from benchmarks.worker import Skipped

__all__ = ["LANES", "LIBRARIES", "Point", "serve"]

ITEM_BYTES = {"float64": 8, "float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}
# The largest relative error (Frobenius norm) against float64 with which a time counts. A product
# in tf32 instead of float32 has an error of 4e-4.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "tf32": 2e-3, "float16": 2e-3, "bfloat16": 2e-2}
LANES = {
    "cpu": ("float32", "float64", "bfloat16"),
    "cuda": ("float32", "float64", "tf32", "float16", "bfloat16"),
}
CHECKED_BATCH, CHECKED_ROWS = 4, 64  # the part of a product that is checked
# A product in float32 has a smaller error than this; a product in tf32 has 4e-4.
NOT_TF32 = 5e-5
# On a GPU, calls cycle through this many bytes of operands, more than the caches hold; but through
# at most this many sets of operands.
ROTATED_BYTES, LARGEST_ROTATION = 256 << 20, 1024
COPIED_BYTES = 256 << 20


class Point(NamedTuple):
    """(batch, m, k) @ (batch, k, n); "broadcast" has one right operand for the whole batch."""

    kind: str  # square, skinny, broadcast
    batch: int
    m: int
    k: int
    n: int

    @property
    def shape(self) -> str:
        return f"{self.m}x{self.k}x{self.n}"

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of the operands. A single product has no batch axis, as in layers."""
        lead = () if self.batch == 1 else (self.batch,)
        right = () if self.kind == "broadcast" else lead
        return (*lead, self.m, self.k), (*right, self.k, self.n)

    @property
    def flops(self) -> int:
        return 2 * self.batch * self.m * self.k * self.n

    def bytes(self, lane: str) -> int:
        """Bytes read and written if each operand moves once."""
        left, right = (math.prod(shape) for shape in self.shapes)
        return ITEM_BYTES[lane] * (left + right + self.batch * self.m * self.n)


class Product(NamedTuple):
    """The functions that a worker needs from a library, on a device, in one lane."""

    asarray: Callable[[np.ndarray], Any]  # converts float64 on the host to the lane's dtype
    multiply: Callable[[Any, Any], Any]
    to_numpy: Callable[[Any], np.ndarray]  # returns float64
    seconds: Callable[[Callable[[], Any], int], float]  # (call, calls) -> seconds per call
    copy_into: Callable[[Any, Any], Any] | None = None  # (out, array)


def _on_the_clock(wait: Callable[[Any], Any]) -> Callable[[Callable[[], Any], int], float]:
    def seconds(call: Callable[[], Any], calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            result = call()
        wait(result)
        return (time.perf_counter() - began) / calls

    return seconds


def _numpy(device: str, lane: str) -> Product:
    if device != "cpu" or lane not in ("float32", "float64"):
        raise Skipped("float32 and float64 on the CPU only")
    return Product(
        asarray=lambda a: a.astype(lane),
        multiply=np.matmul,
        to_numpy=lambda c: c.astype(np.float64),
        seconds=_on_the_clock(lambda c: c),
        copy_into=np.copyto,
    )


def _torch(device: str, lane: str) -> Product:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise Skipped("torch sees no usable GPU")
    if device == "cpu" and lane in ("tf32", "float16"):
        raise Skipped("on GPUs only")
    torch.set_grad_enabled(False)
    allow_tf32(torch, lane == "tf32")
    dtype = getattr(torch, "float32" if lane == "tf32" else lane)

    def by_events(call: Callable[[], Any], calls: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        milliseconds: float = start.elapsed_time(end)
        return milliseconds / 1e3 / calls

    return Product(
        asarray=lambda a: torch.from_numpy(a).to(device, dtype, copy=True),
        multiply=torch.matmul,
        to_numpy=lambda c: c.double().cpu().numpy(),
        seconds=by_events if device == "cuda" else _on_the_clock(lambda c: c),
        copy_into=lambda out, array: out.copy_(array),
    )


def _jax(device: str, lane: str) -> Product:
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"  # else JAX takes three quarters of a GPU's memory
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    if device == "cpu" and lane in ("tf32", "float16"):
        raise Skipped("on GPUs only")
    try:
        where = jax.devices("gpu" if device == "cuda" else "cpu")[0]
    except RuntimeError:
        raise Skipped("JAX sees no usable GPU") from None
    dtype = getattr(jnp, "float32" if lane == "tf32" else lane)
    precision = "tensorfloat32" if lane == "tf32" else "highest"

    def multiply(a: Any, b: Any) -> Any:
        with jax.default_matmul_precision(precision):
            return jnp.matmul(a, b)

    return Product(
        asarray=lambda a: jax.device_put(a.astype(dtype), where),
        multiply=jax.jit(multiply),
        to_numpy=lambda c: np.asarray(c, np.float64),
        seconds=_on_the_clock(lambda c: c.block_until_ready()),
    )


def _cupy_arrays(device: str, lane: str) -> tuple[Any, Product]:
    import cupy

    if device != "cuda":
        raise Skipped("on GPUs only")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise Skipped(f"no usable GPU: {error}") from None
    dtype: Any = "float32" if lane == "tf32" else lane
    if lane == "bfloat16":
        import ml_dtypes

        dtype = ml_dtypes.bfloat16

    def by_events(call: Callable[[], Any], calls: int) -> float:
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        milliseconds: float = cupy.cuda.get_elapsed_time(start, end)
        return milliseconds / 1e3 / calls

    return cupy, Product(
        asarray=lambda a: cupy.asarray(a.astype(dtype)),
        multiply=cupy.matmul,
        to_numpy=lambda c: cupy.asnumpy(c).astype(np.float64),
        seconds=by_events,
        copy_into=cupy.copyto,
    )


def _cupy(device: str, lane: str) -> Product:
    """Use CuPy's own matmul. CuPy 14 computes batched float16 in float32 and refuses bfloat16."""
    cupy, product = _cupy_arrays(device, lane)
    from cupy._core import _routines_linalg as linalg

    compute = linalg.COMPUTE_TYPE_TF32 if lane == "tf32" else linalg.COMPUTE_TYPE_DEFAULT
    cupy._core.set_compute_type(np.float32, compute)
    if lane != "bfloat16":
        return product

    def multiply(a: Any, b: Any) -> Any:
        try:
            return cupy.matmul(a, b)
        except TypeError as error:
            raise Skipped(f"CuPy {cupy.__version__}: {error}") from None

    return product._replace(multiply=multiply)


def _cublas(device: str, lane: str) -> Product:
    """Call cublasGemmStridedBatchedEx through CuPy's bindings, to show what the GPU can do."""
    cupy, product = _cupy_arrays(device, lane)
    from cupy_backends.cuda.libs import cublas

    handle = cupy.cuda.device.get_cublas_handle()
    # Values of cudaDataType and cublasComputeType_t.
    code = {"float32": 0, "tf32": 0, "float64": 1, "float16": 2, "bfloat16": 14}[lane]
    compute = {"float64": 70, "tf32": 77}.get(lane, 68)
    scalar = np.float64 if lane == "float64" else np.float32
    one, zero = np.array(1, scalar), np.array(0, scalar)

    def multiply(a: Any, b: Any) -> Any:
        batch = a.shape[0] if a.ndim == 3 else 1
        m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
        c = cupy.empty((*a.shape[:-1], n), a.dtype)
        # Row-major C = A B is column-major C' = B' A'.
        cublas.gemmStridedBatchedEx(
            handle, 0, 0, n, m, k,
            one.ctypes.data, b.data.ptr, code, n, k * n if b.ndim == 3 else 0,
            a.data.ptr, code, k, m * k, zero.ctypes.data, c.data.ptr, code, n, m * n,
            batch, compute, -1,
        )  # fmt: skip
        return c

    return product._replace(multiply=multiply)


LIBRARIES: dict[str, Callable[[str, str], Product]] = {
    "numpy": _numpy,
    "torch": _torch,
    "jax": _jax,
    "cupy": _cupy,
    "cublas": _cublas,
}


def _about(library: str) -> str:
    """Return the library's version, its BLAS and its threads."""
    if library == "torch":
        import torch

        lines = torch.__config__.show().splitlines()
        blas = next((line.strip(" -") for line in lines if "Math Kernel" in line), "no MKL")
        return f"torch {torch.__version__}, {torch.get_num_threads()} threads, {blas}"
    if library == "jax":
        import jax

        return f"jax {jax.__version__}, XLA"
    if library == "numpy":
        text = f"numpy {np.__version__}"
        try:
            import threadpoolctl
        except ModuleNotFoundError:
            return text
        for info in threadpoolctl.threadpool_info():
            if info["user_api"] == "blas":
                text += (
                    f", {info['internal_api']} {info['version']} ({info.get('architecture')}), "
                    f"{info['num_threads']} threads"
                )
        return text
    import cupy

    version = cupy.cuda.runtime.runtimeGetVersion()
    return f"cupy {cupy.__version__}, CUDA {version // 1000}.{version % 1000 // 10}"


def serve(setup: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Serve a library: "about", "copy", "prepare" a point in a lane, "time" it."""
    library, device = setup["library"], setup["device"]
    LIBRARIES[library](device, "float32")  # raises Skipped if the library does not run here
    rng = np.random.default_rng(0)
    call: Callable[[], Any]
    product: Product
    calls = 1

    def prepare(lane: str, point: Point, seconds: float, rotate: int) -> dict[str, Any]:
        nonlocal call, calls, product
        product = LIBRARIES[library](device, lane)
        left, right = (rng.standard_normal(shape) for shape in point.shapes)
        a, b = product.asarray(left), product.asarray(right)
        c = product.to_numpy(product.multiply(a, b))
        part = np.s_[:CHECKED_BATCH, :CHECKED_ROWS] if left.ndim == 3 else np.s_[:CHECKED_ROWS]
        expected = left[part] @ (right[:CHECKED_BATCH] if right.ndim == 3 else right)
        error = float(np.linalg.norm(c[part] - expected) / np.linalg.norm(expected))
        if not error < TOLERANCE[lane]:
            raise ArithmeticError(f"{lane}: the product is {error:.1e} off")
        if lane == "tf32" and error < NOT_TF32:
            raise Skipped("tf32 was computed in float32")
        copies = min(LARGEST_ROTATION, max(1, -(-rotate // point.bytes(lane))))
        operands = cycle(
            [(a, b)] + [(product.asarray(left), product.asarray(right)) for _ in range(copies - 1)]
        )
        multiply = product.multiply
        call = (lambda: multiply(a, b)) if copies == 1 else (lambda: multiply(*next(operands)))
        calls = calls_in(seconds, lambda calls: product.seconds(call, calls))
        return {"calls": calls, "error": error, "copies": copies}

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        match question["do"]:
            case "about":
                return {"about": _about(library)}
            case "copy":
                floats = LIBRARIES[library](device, "float32")
                copy_into = floats.copy_into
                if copy_into is None:
                    return {"bytes_per_second": None}
                out, array = (floats.asarray(np.ones(COPIED_BYTES // 4)) for _ in range(2))
                best = min(floats.seconds(lambda: copy_into(out, array), 1) for _ in range(6))
                return {"bytes_per_second": 2 * COPIED_BYTES / best}
            case "prepare":
                default = ROTATED_BYTES if device == "cuda" else 0
                rotate = default if question["rotate"] is None else question["rotate"]
                try:
                    return prepare(
                        question["lane"], Point(*question["point"]), question["seconds"], rotate
                    )
                except Skipped as reason:
                    return {"without": str(reason)}
        settle(lambda: product.seconds(call, max(1, calls // 8)))
        return {"seconds": product.seconds(call, calls)}

    return answer
