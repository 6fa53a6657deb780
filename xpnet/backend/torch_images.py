"""PyTorch's own convolution and pooling, in each precision."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from xpnet.arrays.windows import Edges, Pair
from xpnet.backend.precision import scaled_for_float16

__all__ = ["kernels"]

Array = Any


def kernels(precision: str, on_gpu: bool) -> dict[str, Callable[..., Any]]:
    """Return the kernels for steps whose products have this precision."""
    narrow = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)

    def operands(a: Array, b: Array, terms: int) -> tuple[Array, Array, Any]:
        """Return both in the precision of the products, and what to multiply results by.

        A number of the result sums so many products.
        """
        if narrow is None:
            return a, b, None
        if narrow is torch.bfloat16:
            return a.to(narrow), b.to(narrow), None
        # One factor for all of an array, since a convolution sums over its samples or channels.
        (flat_a, down), (flat_b, up) = (
            scaled_for_float16(each.reshape(-1), terms) for each in (a, b)
        )
        return flat_a.view(a.shape).to(narrow), flat_b.view(b.shape).to(narrow), down * up

    def convolve(
        x: Array, W: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair
    ) -> Array:
        narrow_x, narrow_W, scale = operands(x, W, W[0].numel())
        with _tf32(precision == "tf32", on_gpu):
            if narrow is None:
                return torch.nn.functional.conv2d(x, W, b, stride, padding, dilation)
            y = torch.nn.functional.conv2d(narrow_x, narrow_W, None, stride, padding, dilation)
        y = y.to(x.dtype)
        if scale is not None:
            y = y * scale
        return y if b is None else y + b[:, None, None]

    def backward(
        dout: Array, x: Array, W: Array, settings: tuple[Pair, Pair, Pair], wanted: int
    ) -> Array:
        """Return dx (0) or dW (1)."""
        stride, padding, dilation = settings
        other, dtype = (W, dout.dtype) if wanted == 0 else (x, dout.dtype)
        terms = W[:, 0].numel() if wanted == 0 else dout[:, 0].numel()
        dout, other, scale = operands(dout, other, terms)
        x, W = (x.to(dout.dtype), other) if wanted == 0 else (other, W.to(dout.dtype))
        with _tf32(precision == "tf32", on_gpu):
            found = torch.ops.aten.convolution_backward(
                dout, x, W, None, stride, padding, dilation, False, [0, 0], 1,
                [wanted == 0, wanted == 1, False],
            )[wanted].to(dtype)  # fmt: skip
        return found if scale is None else found * scale

    def convolve_backward_input(
        dout: Array, W: Array, size: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> Array:
        # Only the shape of x counts here.
        x = torch.empty(1, dtype=dout.dtype, device=dout.device)
        x = x.expand(dout.shape[0], W.shape[1], *size)
        return backward(dout, x, W, (stride, padding, dilation), 0)

    def convolve_backward_weights(
        x: Array, dout: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> Array:
        W = torch.empty(1, dtype=x.dtype, device=x.device)
        W = W.expand(dout.shape[1], x.shape[1], *kernel)
        return backward(dout, x, W, (stride, padding, dilation), 1)

    return {
        "convolve": convolve,
        "convolve_backward_input": convolve_backward_input,
        "convolve_backward_weights": convolve_backward_weights,
        "max_pool": _max_pool,
        "max_pool_backward": _max_pool_backward,
    }


def _max_pool(x: Array, size: Pair, stride: Pair) -> tuple[Array, Array]:
    both: tuple[Array, Array] = torch.nn.functional.max_pool2d(x, size, stride, return_indices=True)
    return both


def _max_pool_backward(
    x: Array, y: Array, indices: Array, dout: Array, size: Pair, stride: Pair, edges: Edges
) -> Array:
    dx = torch.ops.aten.max_pool2d_with_indices_backward(
        dout, x, size, stride, [0, 0], [1, 1], False, indices
    )
    (top, bottom), (left, right) = edges
    return dx[:, :, top : dx.shape[2] - bottom, left : dx.shape[3] - right]


@contextmanager
def _tf32(allowed: bool, on_gpu: bool) -> Iterator[None]:
    """Set whether cuDNN may round float32 to TF32, which it does by default."""
    if not on_gpu:
        yield
        return
    with warnings.catch_warnings():  # PyTorch warns about this setting since 2.9
        warnings.filterwarnings("ignore", message=".*TF32")
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*TF32")
            torch.backends.cudnn.allow_tf32 = before
