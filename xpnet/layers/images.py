"""Checks of what layers of images are given."""

from __future__ import annotations

from xpnet.arrays.ops import Array
from xpnet.arrays.windows import Pair
from xpnet.errors import UsageError, shown, whole

__all__ = ["check_images", "pair"]


def pair(name: str, value: int | Pair, low: int) -> Pair:
    """Return a setting of rows and of columns; one number stands for both.

    Raises
    ------
    UsageError
        It is neither a whole number >= `low` nor a pair of them.
    """
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise UsageError(f"{name} is {shown(value)}; expected one number, or (rows, columns)")
        return whole(name, value[0], low), whole(name, value[1], low)
    number = whole(name, value, low)
    return number, number


def check_images(x: Array, channels: int | None = None) -> None:
    """Refuse what is not a batch of images with so many channels.

    Raises
    ------
    ValueError
    """
    shape = tuple(x.shape)
    if len(shape) != 4:
        raise ValueError(f"x has shape {shape}; expected images, (N, C, H, W)")
    if channels is None or shape[1] == channels:
        return
    last = " (channels last?): xp.moveaxis(x, -1, 1)" if shape[3] == channels else ""
    raise ValueError(
        f"x has shape {shape}, {shape[1]} channels; expected {channels} channels, "
        f"(N, {channels}, H, W){last}"
    )
