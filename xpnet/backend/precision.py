"""Products in less than float32: on which GPUs, and in range."""

from __future__ import annotations

import math

from xpnet.arrays.ops import Array, at_least, namespace
from xpnet.errors import DeviceError

__all__ = ["check_capability", "scaled_for_float16"]


# From which compute capabilities on GPUs do.
LEAST_CAPABILITY = {"tf32": "8.0", "bfloat16": "8.0", "float16": "7.0"}


def check_capability(device: str, precision: str, capability: str) -> None:
    """Refuse a GPU that would not multiply in a precision, or only without its tensor cores."""
    least = LEAST_CAPABILITY.get(precision, "0.0")
    if tuple(map(int, capability.split("."))) < tuple(map(int, least.split("."))):
        raise DeviceError(
            f"{device} has no instructions for {precision}: it has compute capability "
            f"{capability}, expected {least} or more; use precision float32"
        )


def scaled_for_float16(x: Array, terms: int = 1) -> tuple[Array, Array]:
    """An array brought into the range of float16, and the factor that brings a product back.

    float16 ends at 65,504 and has all its digits down to 6e-5, gradients are often smaller. So the
    largest element is brought to 32,768; that is what scaling the loss does elsewhere, without a
    scale that has to be searched for, and without a step that has to be left out.

    Parameters
    ----------
    x : array
    terms : int
        Where sums of so many products are themselves kept in float16, and must stay in range.
    """
    xp = namespace(x)
    largest = at_least(xp.max(xp.abs(x)), 1e-30)
    top = math.sqrt(32768.0 / terms) if terms > 1 else 32768.0
    return x * (top / largest), largest / top
