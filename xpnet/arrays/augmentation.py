"""Move and mirror images, each by its own random amount, with the same bits on every library."""

from __future__ import annotations

from typing import Any

from xpnet.arrays.dispatch import Array, elementwise, replaceable
from xpnet.arrays.ops import device, namespace, within
from xpnet.arrays.random import random_bits
from xpnet.arrays.ranks import place_in_batch

__all__ = ["draw_moves", "moved"]


def draw_moves(
    n: int, key: int, step: Array, reach: int, mirror: bool
) -> tuple[Array, Array, Array]:
    """Draw how each of n images moves, a pure function of (key, step, image).

    Parameters
    ----------
    n, key, step
        As for `xpnet.arrays.random.random_bits`.
    reach : int
        The most pixels, below 2¹⁵.
    mirror : bool
        Whether images are mirrored with probability 1/2.

    Returns
    -------
    down, right : int32 array, shape=(n,)
        From -reach to reach, all equally often to within 2⁻¹⁵.
    mirrored : int32 array, shape=(n,)
        1 where the image is mirrored, else 0.
    """
    first, _ = place_in_batch(n)
    bits = random_bits(n, key, step, first)
    moves: tuple[Array, Array, Array] = _moves(bits, 2 * reach + 1, reach, 1 if mirror else 0)
    return moves


@elementwise
def _moves(bits: Array, count: int, reach: int, mirror: int) -> tuple[Array, Array, Array]:
    # The high part of a product of 15 bits, not a remainder: it needs no division, and int32 holds
    # it.
    down = (((bits >> 1) & 0x7FFF) * count >> 15) - reach
    right = (((bits >> 16) & 0x7FFF) * count >> 15) - reach
    return down, right, bits & mirror


@replaceable
def moved(x: Array, down: Array, right: Array, mirrored: Array, reach: int) -> Array:
    """Return images moved down and to the right, then mirrored left to right where told.

    What moves in at an edge repeats the pixels of that edge, so it does not matter how the images
    are scaled.

    Parameters
    ----------
    x : array, shape=(N, C, H, W)
    down, right : integer array, shape=(N,)
        Pixels, at most `reach` in size; below 0 up and to the left.
    mirrored : integer array, shape=(N,)
        1 where an image is mirrored, else 0.
    reach : int

    Returns
    -------
    array, shape=(N, C, H, W)

    Examples
    --------
    >>> import numpy as np
    >>> one, zero = np.ones(1, np.int32), np.zeros(1, np.int32)
    >>> x = np.array([[[[1, 2, 3], [4, 5, 6]]]])
    >>> moved(x, zero, one, zero, 1).tolist(), moved(x, one, zero, one, 1).tolist()
    ([[[[1, 1, 2], [4, 4, 5]]]], [[[[3, 2, 1], [3, 2, 1]]]])
    """
    xp, where = namespace(x), device(x)
    n, channels, height, width = x.shape
    size = n * channels * height * width
    dtype = xp.int32 if size < 1 << 31 else xp.int64

    def counted(count: int, step: int, *shape: int) -> Array:
        numbers = xp.arange(0, count * step, step, dtype=dtype, device=where)
        return xp.reshape(numbers, shape)

    down, right, mirrored = (xp.reshape(a, (n, 1, 1, 1)) for a in (down, right, mirrored))
    rows = _rows(counted(height, 1, 1, 1, height, 1), down, height - 1, width)
    columns = _columns(counted(width, 1, 1, 1, 1, width), right, mirrored, width - 1)
    first = counted(n * channels, height * width, n, channels, 1, 1)
    places = xp.reshape(_sum(first, rows, columns), (size,))
    return xp.reshape(xp.take(xp.reshape(x, (size,)), places, axis=0), x.shape)


@elementwise
def _rows(row: Array, down: Array, last: int, width: int) -> Array:
    """Return where each row comes from, as the place of its first pixel in the image."""
    return within(row - down, 0, last) * width


@elementwise
def _columns(column: Array, right: Array, mirrored: Array, last: int) -> Array:
    """Return from which column each pixel of a row comes."""
    column = namespace(column).where(mirrored == 1, last - column, column)
    return within(column - right, 0, last)


@elementwise
def _sum(first: Array, rows: Array, columns: Array) -> Any:
    return (first + rows) + columns
