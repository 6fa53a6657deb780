"""JAX compiles a chunk of steps into one ``lax.scan``, which consumes (donates) the parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import io_callback

from xpnet.arrays.dispatch import with_kernels
from xpnet.backend import jax_images
from xpnet.backend.cpu import cpu_memory, cpu_name
from xpnet.backend.interface import (
    Agree,
    Array,
    Backend,
    Params,
    Prepare,
    Ranks,
    Reduce,
    Run,
    Step,
    check_process,
    out_of_memory,
    unpacked,
)
from xpnet.backend.loop import gathering, on_rows, within
from xpnet.backend.precision import check_capability, scaled_for_float16
from xpnet.errors import DeviceError, UsageError

# The most steps per compiled scan. A call costs 25 µs on a CPU, which is negligible per 100 steps;
# with more steps, Ctrl-C would only wait longer.
CHUNK_STEPS = 100


# Keep at most this many compiled loops for later trainers. Each holds its graph and machine code.
KEPT_LOOPS = 8


class JAX(Backend):
    library = "jax"
    xp: Any = jnp

    def __init__(self, kind: str, index: int, precision: str = "float32") -> None:
        check_process("jax")
        self._device = _device(kind, index)
        self._on_gpu = kind == "cuda"
        if self._on_gpu:
            known = getattr(self._device, "compute_capability", "99.0")
            check_capability(f"cuda:{index}", precision, known)
        super().__init__(
            jax.__version__,
            f"cuda:{index}" if self._on_gpu else "cpu",
            self._device.device_kind if self._on_gpu else cpu_name(),
            self._bytes("bytes_limit") if self._on_gpu else cpu_memory(),
            kernels=_KERNELS.get(precision, {}) | jax_images.kernels(precision, self._on_gpu),
            precision=precision,
        )

    def asarray(self, array: np.ndarray) -> Array:
        if array.dtype == np.float64 and not jax.config.jax_enable_x64:
            raise UsageError(
                "JAX would turn float64 into float32: set JAX_ENABLE_X64=1, "
                "or call jax.config.update('jax_enable_x64', True) first"
            )
        with self._explained():
            return jax.device_put(array, self._device)

    def to_numpy(self, array: Array) -> np.ndarray:
        with self._explained():  # an error of the asynchronous computation appears here
            return np.array(array)

    def loop(self, step: Step, prepare: Prepare, agree: Agree | None = None) -> Run:
        """See `Backend.loop`; trainers with equal `step` and `prepare` share a compiled loop."""
        # On a GPU, JAX multiplies float32 in TF32 by default; the other libraries do not.
        products = "tensorfloat32" if self.precision == "tf32" else "highest"
        on_ranks = agree is not None
        key = step, prepare, self._device, frozenset(self.kernels.items()), products, on_ranks
        try:
            hash(key)
        except TypeError:  # for example, the rule holds an array
            return within(self._explained, _compiled_loop.__wrapped__(*key))
        return within(self._explained, _compiled_loop(*key))

    def reducer(self, ranks: Ranks) -> Reduce:
        """See `Backend.reducer`: the compiled loop calls back to the host for each sum.

        The calls are ordered, so that all ranks add up the same things, although XLA may run what
        does not depend on each other in any order.
        """
        if self._on_gpu:
            self.fallbacks.append("the sums over the ranks go through the host")
        return _summed_on_host(ranks)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """See `Backend.compile`; functions that are equal frozen dataclasses share the result."""
        kind = getattr(type(function), "__dataclass_params__", None)
        try:
            shared = kind is not None and kind.frozen and hash(function) is not None
        except TypeError:  # it holds an array, say
            shared = False
        compiled = _compiled(function) if shared else jax.jit(function)

        def call(*args: Any) -> Any:
            with jax.default_matmul_precision("highest"):
                return compiled(*args)

        return call

    def free_memory(self) -> int:
        return self._bytes("bytes_limit") - self._bytes("bytes_in_use")

    def _bytes(self, key: str) -> int:
        return int((self._device.memory_stats() or {}).get(key, 0)) if self._on_gpu else 0

    @contextmanager
    def _explained(self) -> Iterator[None]:
        check_process("jax")
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or not self._on_gpu:
                raise
            needed = re.search(r"allocat\w* (\d+) bytes", str(error))
            size = int(needed[1]) if needed else 0
            raise out_of_memory(self.device, size, self.free_memory(), self.memory) from None


def _device(kind: str, index: int) -> Any:
    try:
        devices = jax.devices("gpu" if kind == "cuda" else "cpu")
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"no CUDA in JAX: pip install 'jax[cuda13]' ({reason})") from error
    if index >= len(devices):
        raise DeviceError(
            f"cuda:{index} does not exist: JAX sees {len(devices)} GPU(s), from cuda:0"
        )
    return devices[index]


def _matmul_16(dtype: Any, a: Array, b: Array) -> Array:
    if dtype == jnp.bfloat16:
        return jnp.matmul(a.astype(dtype), b.astype(dtype), preferred_element_type=a.dtype)
    (a, down), (b, up) = map(scaled_for_float16, (a, b))
    product = jnp.matmul(a.astype(dtype), b.astype(dtype), preferred_element_type=a.dtype)
    return product * down * up


def _take(array: Array, rows: Array) -> Array:
    # All rows are in range, so mode="clip" changes nothing. The default mode would fill with NaN
    # where they are not, which costs a pass over the batch.
    return jnp.take(array, rows, axis=0, mode="clip")


_KERNELS = {
    name: {"matmul": partial(_matmul_16, getattr(jnp, name))} for name in ("bfloat16", "float16")
}


@cache
def _summed_on_host(ranks: Ranks) -> Reduce:
    """Return one function for all loops of a group, so that trainers can share them."""

    def on_host(buffer: Any) -> np.ndarray:
        total = np.array(buffer)
        ranks.sum(total)
        return total

    def reduce(arrays: Sequence[Array]) -> list[Array]:
        buffer = jnp.concatenate([array.reshape(-1) for array in arrays])
        like = jax.ShapeDtypeStruct(buffer.shape, buffer.dtype)
        return unpacked(io_callback(on_host, like, buffer, ordered=True), arrays)

    return reduce


_compiled = lru_cache(maxsize=KEPT_LOOPS)(jax.jit)


@lru_cache(maxsize=KEPT_LOOPS)
def _compiled_loop(
    step: Step,
    prepare: Prepare,
    device: Any,
    kernels: frozenset[Any],
    products: str,
    on_ranks: bool,
) -> Run:
    """Return the loop of one step; JAX compiles it when new shapes or dtypes first appear."""
    work = with_kernels(on_rows(step, gathering(_take, prepare)), dict(kernels))
    on_gpu = device.platform != "cpu"

    @partial(jax.jit, donate_argnums=(0, 1))
    def scan(
        params: Params, state: Params, data: tuple[Any, ...], order: Any
    ) -> tuple[Params, Params, Any]:
        def body(carry: tuple[Params, Params], rows: Any) -> tuple[tuple[Params, Params], Any]:
            params, state, loss = work(*carry, data, rows)
            return (params, state), loss

        if order.shape[0] == 1:  # a scan of one step is a loop too
            (params, state), loss = body((params, state), order[0])
            return params, state, loss[None]
        (params, state), losses = lax.scan(body, (params, state), order)
        return params, state, losses

    def run(
        params: Params, state: Params, data: tuple[Any, ...], order: Any
    ) -> Iterator[tuple[Params, Params, Array]]:
        steps = order.shape[0]
        most = CHUNK_STEPS
        # In a loop of its own, XLA computes a convolution on a CPU eight times as slowly as in a
        # single step (benchmarks/RESULTS.md). Networks with filters take single steps.
        if not on_gpu and any(p.ndim == 4 for p in params.values()):
            most = 1
        # All chunks but the last have one length, since JAX compiles the loop for each length.
        length = -(-steps // max(1, -(-steps // most)))
        for start in range(0, steps, length):
            rows = order[start : start + length]
            if on_ranks:
                # While an input is not there yet, XLA leaves the scan to a thread of its own. With
                # one processor that is its only one, and JAX copies what a callback gets there.
                jax.block_until_ready((params, state, data, rows))
            with jax.default_matmul_precision(products):
                params, state, losses = scan(params, state, data, rows)
            yield params, state, losses  # without waiting, since the old params are already gone

    return run
