"""Plain numbers out of bytes, many at once: -12.5 as float() reads it, bit by bit.

Eight digits are one unsigned integer of 64 bits, and three multiplications make a number of them
(D. Lemire, "Number parsing at a gigabyte per second", 2021). A number of at most 18 digits is a
whole number m over a power of ten. If m < 2^53, one division rounds once, and is right. Otherwise
it is divided in x87's 64 bits and rounded to 53 afterwards. That is right too, unless the first
result lies exactly between two floats; such numbers, and all others, are left to float().
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Cells", "plain_numbers", "split"]

POINT, LINE_END, MINUS = b".\n-"
PAD = 24  # bytes of zeros before the first cell, so that the digits before it can be read
DIGITS = 18  # 10^18 < 2^63
POWERS = 10.0 ** np.arange(DIGITS + 1)
WHOLE_POWERS = 10 ** np.arange(DIGITS + 1)
# On machines without x87, numbers of more than 53 bits are left to float().
EXTENDED = np.finfo(np.longdouble).nmant == 63
LONG_POWERS = np.cumprod(np.array([1] + [10] * DIGITS, np.longdouble))


Read = tuple[np.ndarray, np.ndarray]


class Cells(NamedTuple):
    """Where the cells of some lines are.

    Attributes
    ----------
    data : array, uint8
        The lines, after `PAD` bytes.
    starts, ends, points : array, int64, shape=(N, D)
        The first byte of each cell, the byte after its last, and its decimal point: -1 where there
        is none, or where there are several.
    """

    data: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    points: np.ndarray


def split(data: bytes, separator: str, width: int) -> Cells | None:
    """Find the cells of whole lines without quotes.

    Parameters
    ----------
    data : bytes
        Ends with a line feed.
    separator : str
        One ASCII character.
    width : int
        How many cells each line must have.

    Returns
    -------
    Cells or None
        None if a line has not as many cells.
    """
    buffer = np.frombuffer(b"0" * PAD + data, np.uint8)
    marks = np.flatnonzero((buffer == ord(separator)) | (buffer == LINE_END) | (buffer == POINT))
    kinds = buffer[marks]
    which = np.flatnonzero(kinds != POINT)
    ends = marks[which]
    line_ends = kinds[which] == LINE_END
    if len(ends) % width or len(ends) != width * np.count_nonzero(line_ends):
        return None
    if not line_ends[width - 1 :: width].all():
        return None
    starts = np.empty_like(ends)
    starts[0], starts[1:] = PAD, ends[:-1] + 1
    between = np.diff(which, prepend=-1)
    points = np.where(between == 2, marks[which - 1], -1)
    shape = (-1, width)
    return Cells(buffer, starts.reshape(shape), ends.reshape(shape), points.reshape(shape))


def plain_numbers(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Read cells as numbers.

    Parameters
    ----------
    data, starts, ends, points : array
        As in `Cells`, but of shape (N,).

    Returns
    -------
    values : array, float64, shape=(N,)
    sure : array, bool, shape=(N,)
        Whether the value is what float() says; where it is False, ask float().
    """
    words = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
    negative = data[starts] == MINUS
    starts = starts + negative
    pointed = points >= 0
    whole_ends = np.where(pointed, points, ends)
    decimals = ends - whole_ends - pointed
    wholes = whole_ends - starts
    sure = (wholes + decimals > 0) & (np.maximum(wholes, decimals) <= DIGITS)
    decimals[~sure] = 0
    whole, good = _digits(words, whole_ends, np.where(sure, wholes, 0))
    sure &= good & ((whole == 0) | (wholes + decimals <= DIGITS))
    mantissa, good = _digits(words, ends, decimals)
    sure &= good
    mantissa += whole * WHOLE_POWERS[decimals]
    values = mantissa / POWERS[decimals]
    if len(long := np.flatnonzero(sure & (mantissa > 1 << 53))):
        values[long], sure[long] = _long_quotient(mantissa[long], decimals[long])
    np.negative(values, out=values, where=negative)
    return values, sure


def _digits(words: np.ndarray, ends: np.ndarray, count: np.ndarray) -> Read:
    """(the numbers in so many bytes before `ends`, whether the bytes are all digits)."""
    value, good = _eight(words, ends, count)
    for skipped in (8, 16):
        if not len(more := np.flatnonzero(count > skipped)):
            break
        high, also = _eight(words, ends[more] - skipped, count[more] - skipped)
        value[more] += high * 10**skipped
        good[more] &= also
    return value, good


def _eight(words: np.ndarray, ends: np.ndarray, count: np.ndarray) -> Read:
    """As `_digits`, of the last eight at most."""
    word = words[ends - 8] ^ np.uint64(0x3030303030303030)
    shift = (64 - 8 * np.minimum(count, 8)).astype(np.uint64)
    word = np.where(count > 0, (word >> shift) << shift, np.uint64(0))
    good = ((word + np.uint64(0x7676767676767676)) | word) & np.uint64(0x8080808080808080) == 0
    word = word * np.uint64(10) + (word >> np.uint64(8))
    mask = np.uint64(0x000000FF000000FF)
    word = (word & mask) * np.uint64(0x000F424000000064) + (
        (word >> np.uint64(16)) & mask
    ) * np.uint64(0x0000271000000001)
    return (word >> np.uint64(32)).astype(np.int64), good


def _long_quotient(mantissa: np.ndarray, decimals: np.ndarray) -> Read:
    """(mantissa / 10^decimals, whether it is rounded right)."""
    if not EXTENDED:
        return np.zeros(len(mantissa)), np.zeros(len(mantissa), bool)
    exact = mantissa.astype(np.longdouble) / LONG_POWERS[decimals]
    values = exact.astype(np.float64)
    rest = np.abs(exact - values)
    half = np.spacing(values).astype(np.longdouble) / 2
    return values, (rest != half) & (rest != half / 2)
