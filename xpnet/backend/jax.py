"""JAX: a chunk of steps is one compiled ``lax.scan``, its parameters donated."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from xpnet.arrays.dispatch import with_kernels
from xpnet.backend.cpu import cpu_memory, cpu_name
from xpnet.backend.interface import Array, Backend, Params, Prepare, Run, Step, out_of_memory
from xpnet.backend.loop import RowStep, gathering, on_rows, within
from xpnet.backend.precision import check_capability, scaled_for_float16
from xpnet.errors import DeviceError, UsageError

# Steps per compiled scan, at most. A call costs 25 us on a CPU, so this many make it vanish;
# more would only make Ctrl-C wait.
CHUNK_STEPS = 100


def open(kind: str, index: int, precision: str = "float32") -> Backend:
    try:
        devices = jax.devices("gpu" if kind == "cuda" else "cpu")
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"no CUDA in JAX: pip install 'jax[cuda13]' ({reason})") from error
    if index >= len(devices):
        raise DeviceError(
            f"cuda:{index} does not exist: JAX sees {len(devices)} GPU(s), from cuda:0"
        )
    device = devices[index]
    on_gpu = kind == "cuda"
    if on_gpu:
        known = getattr(device, "compute_capability", "99.0")
        check_capability(f"cuda:{index}", precision, known)
    name = f"cuda:{index}" if on_gpu else "cpu"

    def memory(key: str) -> int:
        return int((device.memory_stats() or {}).get(key, 0)) if on_gpu else 0

    def free_memory() -> int:
        return memory("bytes_limit") - memory("bytes_in_use")

    @contextmanager
    def explained() -> Iterator[None]:
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or not on_gpu:
                raise
            needed = re.search(r"allocat\w* (\d+) bytes", str(error))
            size = int(needed[1]) if needed else 0
            raise out_of_memory(name, size, free_memory(), memory("bytes_limit")) from None

    # On a GPU, JAX's default float32 product is TF32; every other library's is not.
    products = "tensorfloat32" if precision == "tf32" else "highest"
    kernels = {}
    if precision in ("bfloat16", "float16"):
        kernels["matmul"] = partial(_matmul_16, getattr(jnp, precision))

    def asarray(array: np.ndarray) -> Any:
        if array.dtype == np.float64 and not jax.config.jax_enable_x64:
            raise UsageError(
                "JAX would turn float64 into float32: set JAX_ENABLE_X64=1, "
                "or call jax.config.update('jax_enable_x64', True) first"
            )
        with explained():
            return jax.device_put(array, device)

    def loop(step: Step, prepare: Prepare) -> Run:
        work = with_kernels(on_rows(step, gathering(_take, prepare)), kernels)
        return within(explained, _loop(work, products))

    return Backend(
        library="jax",
        version=jax.__version__,
        device=name,
        device_name=device.device_kind if on_gpu else cpu_name(),
        memory=memory("bytes_limit") if on_gpu else cpu_memory(),
        xp=jnp,
        asarray=asarray,
        to_numpy=np.array,
        loop=loop,
        compile=_compile,
        kernels=kernels,
        precision=precision,
        free_memory=free_memory,
    )


def _matmul_16(dtype: Any, a: Array, b: Array) -> Array:
    if dtype == jnp.bfloat16:
        return jnp.matmul(a.astype(dtype), b.astype(dtype), preferred_element_type=a.dtype)
    (a, down), (b, up) = map(scaled_for_float16, (a, b))
    product = jnp.matmul(a.astype(dtype), b.astype(dtype), preferred_element_type=a.dtype)
    return product * down * up


def _take(array: Array, rows: Array) -> Array:
    # Rows are in range, so mode="clip" changes nothing; the default fills with NaN where they are
    # not, at the price of a pass over the batch.
    return jnp.take(array, rows, axis=0, mode="clip")


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled = jax.jit(function)

    def call(*args: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return compiled(*args)

    return call


def _loop(work: RowStep, products: str) -> Run:
    @partial(jax.jit, donate_argnums=(0, 1))
    def scan(
        params: Params, state: Params, data: tuple[Any, ...], order: Any
    ) -> tuple[Params, Params, Any]:
        def body(carry: tuple[Params, Params], rows: Any) -> tuple[tuple[Params, Params], Any]:
            params, state, loss = work(*carry, data, rows)
            return (params, state), loss

        (params, state), losses = lax.scan(body, (params, state), order)
        return params, state, losses

    def run(
        params: Params, state: Params, data: tuple[Any, ...], order: Any
    ) -> Iterator[tuple[Params, Params, np.ndarray]]:
        steps = order.shape[0]
        # Chunks of one length (the last may be shorter): each new length is compiled anew.
        length = -(-steps // max(1, -(-steps // CHUNK_STEPS)))
        for start in range(0, steps, length):
            with jax.default_matmul_precision(products):
                params, state, losses = scan(params, state, data, order[start : start + length])
            yield params, state, losses

    return run
