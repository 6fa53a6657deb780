"""PyTorch on the CPU or CUDA, without autograd: the layers bring their own backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from array_api_compat import torch as xp

from xpnet.backend import Array, Backend, Run, Step
from xpnet.backend.cpu import cpu_memory, cpu_name, keep_freed_memory
from xpnet.backend.loop import plain_loop
from xpnet.errors import DeviceError
from xpnet.ops import with_kernels

# NumPy's memory is aligned to 16 bytes; MKL takes a fifth longer over weights that do not begin
# with a cache line. Data sets, from which rows are gathered, are not copied for it.
ALIGNMENT = 64
ALIGNED_BYTES = 16 << 20


def _add_scaled(y: Array, x: Array, factor: Any) -> Array:
    """One pass over the arrays instead of two; a scheduled factor is an array, and is not read."""
    if isinstance(factor, float):
        return y.add_(x, alpha=factor)
    y += factor * x
    return y


def _matmul_cpu(a: Array, b: Array) -> Array:
    # With few columns, as the last layer has, MKL takes up to three times as long over a product
    # as over its transpose (benchmarks/RESULTS.md).
    if a.ndim == b.ndim == 2 and 1 < b.shape[1] < 16 and a.shape[0] >= 256:
        return (b.T @ a.T).T
    return a @ b


def _matmul_bfloat16(a: Array, b: Array) -> Array:
    # PyTorch sums in float32, and rounds the result to bfloat16 too.
    return (a.to(torch.bfloat16) @ b.to(torch.bfloat16)).to(a.dtype)


def open(kind: str, index: int, precision: str = "float32") -> Backend:
    if kind == "cuda":
        if not torch.cuda.is_available():
            built = torch.version.cuda
            why = f"built for CUDA {built}, finds no usable GPU" if built else "is a CPU build"
            raise DeviceError(f"no CUDA in torch: torch {torch.__version__} {why}")
        count = torch.cuda.device_count()
        if index >= count:
            raise DeviceError(
                f"cuda:{index} does not exist: torch sees {count} GPU(s), from cuda:0"
            )
        device = torch.device("cuda", index)
        name = torch.cuda.get_device_name(device)
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        device, name, memory = torch.device("cpu"), cpu_name(), cpu_memory()

    def asarray(array: np.ndarray) -> Any:
        if not array.flags.writeable:  # torch warns of memory that it could write to
            array = array.copy()
        tensor = torch.from_numpy(np.asarray(array, order="C")).to(device)
        if tensor.data_ptr() % ALIGNMENT and tensor.nbytes < ALIGNED_BYTES:
            tensor = tensor.clone()  # into memory of torch's own, which is aligned
        return tensor

    def to_numpy(array: Any) -> np.ndarray:
        return np.array(array.cpu().numpy())

    if kind == "cuda" and precision == "bfloat16" and not torch.cuda.is_bf16_supported(False):
        raise DeviceError(f"{name} has no instructions for bfloat16: use precision float32")
    kernels = {"sigmoid": torch.sigmoid, "add_scaled": _add_scaled}
    if kind == "cpu" and torch.backends.mkl.is_available():
        kernels["matmul"] = _matmul_cpu
    if precision == "bfloat16":
        kernels["matmul"] = _matmul_bfloat16

    def loop(step: Step) -> Run:
        if kind == "cpu":
            keep_freed_memory()
        return plain_loop(
            torch.no_grad()(with_kernels(step, kernels)),
            lambda array, rows: torch.index_select(array, 0, rows),
            lambda losses: to_numpy(torch.stack(losses)),
        )

    return Backend(
        library="torch",
        version=torch.__version__,
        device=str(device),
        device_name=name,
        memory=memory,
        xp=xp,
        asarray=asarray,
        to_numpy=to_numpy,
        loop=loop,
        kernels=kernels,
        precision=precision,
    )
