"""Images: which samples are some, where their channels stand, and how a network takes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xpnet.errors import DataError

__all__ = ["channels_first", "image_shape", "layout", "misfit"]


# Images have one, three or four channels: grey, colours, colours and how opaque they are.
CHANNELS = (1, 3, 4)


def image_shape(shape: Sequence[int]) -> tuple[int, ...] | None:
    """Return the shape of an image, if samples of this shape (the axis of samples first) are some.

    It is (H, W) for grey images, with or without an axis for their channel; (H, W, 3) or (3, H, W)
    for colours.

    Examples
    --------
    >>> image_shape((60_000, 1, 28, 28)), image_shape((50_000, 32, 32, 3)), image_shape((150, 4))
    ((28, 28), (32, 32, 3), None)
    """
    match shape[1:]:
        case (height, width) | (1, height, width) | (height, width, 1):
            return height, width
    return tuple(shape[1:]) if _channels(shape)[0] == 3 else None


def layout(shape: Sequence[int]) -> str:
    """Say how samples of this shape are taken for images; "" if they are rows of features.

    A network without convolution takes the values of an image in the order of the file.

    Examples
    --------
    >>> layout((50_000, 32, 32, 3))
    'images of 32 x 32, 3 channels (the last axis)'
    """
    if (image := image_shape(shape)) and len(image) == 2:
        return f"grey images of {image[0]} x {image[1]}"
    channels, which, size = _channels(shape)
    if channels:
        return f"images of {size[0]} x {size[1]}, {channels} channels (the {which} axis)"
    return f"samples of shape {' x '.join(map(str, shape[1:]))}" if len(shape) > 2 else ""


def _channels(shape: Sequence[int]) -> tuple[int, str, Sequence[int]]:
    """Return the number of channels, 0 if these are no images; their axis, and (H, W)."""
    match shape[1:]:
        case (height, width, channels) if channels in CHANNELS and height not in CHANNELS:
            return channels, "last", (height, width)
        case (channels, height, width) if channels in CHANNELS:
            return channels, "first", (height, width)
    return 0, "", ()


def channels_first(
    shape: Sequence[int], image: Sequence[int] | None = None, name: str = "x"
) -> tuple[int, int, int]:
    """Return (channels, rows, columns), as which a convolution network takes samples.

    Parameters
    ----------
    shape : tuple of int
        Of the samples, their axis first: (N, H, W), (N, C, H, W), or (N, H, W, 1) for grey images.
    image : tuple of int, optional
        What `image_shape` says of the data set, if its samples stand in rows of pixels.
    name : str
        What x is called in messages.

    Raises
    ------
    DataError
        The channels are the last axis, or the samples are no images.

    Examples
    --------
    >>> channels_first((60_000, 28, 28)), channels_first((1797, 64), (8, 8))
    ((1, 28, 28), (1, 8, 8))
    """
    match shape[1:]:
        case (rows, columns) | (rows, columns, 1) if 1 not in (rows, columns) or len(shape) == 3:
            return 1, rows, columns
        case (channels, rows, columns):
            if _channels(shape)[1] == "last":
                raise DataError(f"{name}: {_last(shape[1:])}")
            return channels, rows, columns
        case (_,) if image is not None:
            return channels_first((shape[0], *image), None, name)
        case (count,):
            side = math.isqrt(count)
            how = f"x.reshape(-1, {side}, {side})" if side > 1 and side * side == count else ""
            if not how and count % 3 == 0 and (side := math.isqrt(count // 3)) ** 2 == count // 3:
                how = f"x.reshape(-1, 3, {side}, {side})" if side > 1 else ""
            raise DataError(
                f"{name}: got rows of {count:,} values, and a convolution network takes images, "
                f"(N, rows, columns) or (N, channels, rows, columns)"
                + (f"; if they are pixels, {how}" if how else "")
            )
    raise DataError(
        f"{name}: got samples of shape {tuple(shape[1:])}; expected images, (rows, columns) or "
        "(channels, rows, columns)"
    )


def misfit(shape: Sequence[int], expected: Sequence[int]) -> str:
    """Say why samples of this shape are no images for a network; "" if they are.

    The network takes (C, H, W). Rows of C·H·W pixels are taken too, in that order; and with one
    channel (H, W) and (H, W, 1).

    Parameters
    ----------
    shape : sequence of int
        Of one sample.
    expected : (int, int, int)

    Examples
    --------
    >>> misfit((28, 28), (1, 28, 28)), misfit((28, 14), (1, 28, 28)) == ""
    ('', False)
    """
    shape, (channels, rows, columns) = tuple(shape), expected
    fitting = [tuple(expected), (channels * rows * columns,)]
    if channels == 1:
        fitting += [(rows, columns), (rows, columns, 1)]
    if shape in fitting:
        return ""
    if shape == (rows, columns, channels):
        return _last(shape)
    wanted = f"images of shape {tuple(expected)}, (channels, rows, columns)"
    if len(shape) == 1:
        return (
            f"got rows of {shape[0]:,} values; expected {wanted}, or rows of "
            f"{channels * rows * columns:,}"
        )
    more = ""
    if len(shape) == 3 and shape[2] == channels != shape[0]:
        more = "; their channels seem to be last: numpy.moveaxis(x, -1, 1)"
    elif shape[-2:] != (rows, columns) and channels == (1 if len(shape) == 2 else shape[0]):
        more = f"; cut or scale them to {rows} x {columns}"
    return f"got images of shape {shape}; expected {wanted}{more}"


def _last(shape: Sequence[int]) -> str:
    return (
        f"got images of shape {tuple(shape)}, which has the channels last; expected (channels, "
        "rows, columns): numpy.moveaxis(x, -1, 1)"
    )
