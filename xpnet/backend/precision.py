"""Matrix products below float32: check the GPU, and scale operands into float16's range."""

from __future__ import annotations

import math

from xpnet.arrays.ops import Array, at_least, namespace
from xpnet.errors import DeviceError

__all__ = ["check_capability", "scaled_for_float16"]


# The least compute capability of a GPU that supports each precision.
LEAST_CAPABILITY = {"tf32": "8.0", "bfloat16": "8.0", "float16": "7.0"}


def check_capability(device: str, precision: str, capability: str) -> None:
    """Refuse a GPU that cannot multiply in this precision, or only without tensor cores.

    Raises
    ------
    DeviceError
        The compute capability, such as "8.0", is too low.
    """
    least = LEAST_CAPABILITY.get(precision, "0.0")
    if tuple(map(int, capability.split("."))) < tuple(map(int, least.split("."))):
        raise DeviceError(
            f"{device} has no instructions for {precision}: it has compute capability "
            f"{capability}, expected {least} or more; use precision float32"
        )


def scaled_for_float16(x: Array, terms: int = 1) -> tuple[Array, Array]:
    """Scale an array into the range of float16; return it and the factor that undoes the scaling.

    float16 ends at 65,504 and loses digits below 6e-5, but gradients are often smaller. So this
    scales the largest element to 32,768. Elsewhere, loss scaling does this job; here no scale has
    to be searched, and no step is skipped.

    Parameters
    ----------
    x : array
    terms : int
        Number of products in each sum, if the sums are float16 too and must stay in range.

    Returns
    -------
    scaled : array
        x / factor, in x's dtype.
    factor : 0-d array, or array, shape=(K, 1, 1)
        One for a matrix; of a stack, one for each, so that each model's product is what it is
        alone, and one that diverges spoils no other.
    """
    xp = namespace(x)
    most = xp.max(xp.abs(x), axis=(-2, -1), keepdims=True) if x.ndim > 2 else xp.max(xp.abs(x))
    largest = at_least(most, 1e-30)
    top = math.sqrt(32768.0 / terms) if terms > 1 else 32768.0
    return x * (top / largest), largest / top
