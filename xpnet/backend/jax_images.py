"""XLA's own convolution, which calls cuDNN on a GPU.

The gradients are convolutions of the same kind; those that JAX would derive are slow on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax.numpy as jnp
from jax import lax

from xpnet.arrays.windows import Pair
from xpnet.backend.precision import scaled_for_float16

__all__ = ["kernels"]

Array = Any
AXES = ("NCHW", "OIHW", "NCHW")


def _convolve(
    product: Callable[..., Array],
    x: Array,
    W: Array,
    b: Array | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Array:
    edges = [(p, p) for p in padding]
    y = product(
        x, W, window_strides=stride, padding=edges, rhs_dilation=dilation, dimension_numbers=AXES
    )
    return y if b is None else y + b[:, None, None]


def _convolve_backward_weights(
    product: Callable[..., Array],
    x: Array,
    dout: Array,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Array:
    # The sum over samples and stops is a convolution too: of the images with the gradient, where
    # samples are channels; stride and dilation change places.
    dW = product(
        x.swapaxes(0, 1),
        dout.swapaxes(0, 1),
        window_strides=dilation,
        padding=[(p, p) for p in padding],
        rhs_dilation=stride,
        dimension_numbers=AXES,
    )
    return dW[:, :, : kernel[0], : kernel[1]].swapaxes(0, 1)


def _product(dtype: Any, a: Array, b: Array, **options: Any) -> Array:
    """Convolve operands of 16 bits; the results are sums in float32."""
    scale = None
    if dtype == jnp.float16:
        (flat_a, down), (flat_b, up) = (scaled_for_float16(each.reshape(-1)) for each in (a, b))
        a, b, scale = flat_a.reshape(a.shape), flat_b.reshape(b.shape), down * up
    y = lax.conv_general_dilated(
        a.astype(dtype), b.astype(dtype), preferred_element_type=a.dtype, **options
    )
    return y if scale is None else y * scale


@cache  # one object for all backends, so that their trainers share compiled loops
def kernels(precision: str, on_gpu: bool) -> dict[str, Callable[..., Any]]:
    """Return the kernels for steps whose products have this precision."""
    product = lax.conv_general_dilated
    if precision in ("bfloat16", "float16"):
        product = partial(_product, getattr(jnp, precision))
    found: dict[str, Callable[..., Any]] = {"convolve": partial(_convolve, product)}
    if on_gpu:  # on a CPU, our products of matrices are faster: DeepConvNet 280 ms against 1,070
        found["convolve_backward_weights"] = partial(_convolve_backward_weights, product)
    return found
