"""Random bits that are the same on every library: a hash of (key, step, element) in int32."""

from __future__ import annotations

from typing import Any

from xpnet.arrays.dispatch import elementwise
from xpnet.arrays.ops import Array, device, namespace

__all__ = ["hash32", "random_bits"]

# The multipliers of the 32-bit mixer "lowbias32" (C. Wellons, "Prospecting for Hash Functions",
# 2018), as signed numbers: PyTorch cannot shift uint32, and int32 wraps to the same bits.
_MIX1 = 0x7FEB352D
_MIX2 = 0x846CA68B - (1 << 32)


def _mix(h: Array) -> Array:
    """Apply lowbias32 to an int32 array; it consumes `h`. Masks make the signed shifts logical."""
    h ^= (h >> 16) & 0xFFFF
    h *= _MIX1
    h ^= (h >> 15) & 0x1FFFF
    h *= _MIX2
    h ^= (h >> 16) & 0xFFFF
    return h


def hash32(*words: int) -> int:
    """Hash Python integers to one signed 32-bit integer, with the mixer of `random_bits`."""
    h = 0
    for word in words:
        h = (h + word) & 0xFFFFFFFF
        h = ((h ^ (h >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
        h = ((h ^ (h >> 15)) * 0x846CA68B) & 0xFFFFFFFF
        h ^= h >> 16
    return h - (1 << 32) if h >= 1 << 31 else h


def random_bits(n: int, key: int | Array, step: Array, first: int = 0) -> Array:
    """Return n pseudo-random 32-bit integers, a pure function of (key, step, element).

    Parameters
    ----------
    n : int
    key : int, or int32 array, shape=(K,)
        A signed 32-bit stream number, from `hash32`; or one for each of K models.
    step : int32 array with one element
        The training step. It stays on the device.
    first : int
        The number of the first element.

    Returns
    -------
    int32 array, shape=(n,) or (K, n)
        The bits are the same on every library. No generator has a state that a checkpoint must
        store or devices must share.

    Notes
    -----
    A 32-bit mixer runs twice over the element's number. Each round has its own key, made of
    (key, step), so the numbers of two steps are not shifted copies of each other.
    """
    xp = namespace(step)
    # The shape is (1,), since NumPy warns if a 0-d integer wraps around.
    step = xp.astype(xp.reshape(step, (1,)), xp.int32, copy=False)
    element = xp.arange(first, first + n, dtype=xp.int32, device=device(step))
    return _bits(element, step, key if isinstance(key, int) else key[:, None])


@elementwise
def _bits(element: Array, step: Array, key: Any) -> Array:
    first = _mix(step + key)
    second = _mix(first + key)
    return _mix(_mix(element + first) + second)
