"""The book's helpers (``common/util.py``): smoothed curves, shuffled data, columns of images.

`im2col` and `col2im` run on any array library. Floating-point arrays keep their dtype: the book's
results are float64 whatever you give. Integers become float64, as in the book.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.arrays.convolution import both
from xpnet.arrays.ops import Array, device, namespace
from xpnet.arrays.windows import Pair, add_windows, stops, windows
from xpnet.arrays.windows import pad as padded
from xpnet.book.arrays import run
from xpnet.book.functions import floating
from xpnet.errors import whole
from xpnet.layers.images import check_images

__all__ = ["col2im", "conv_output_size", "im2col", "np", "shuffle_dataset", "smooth_curve"]

WINDOW = 11


def smooth_curve(x: Any) -> np.ndarray:
    """Return a curve of the same length, each value the mean of 11 under a Kaiser window, β = 2.

    The curve is reflected at its ends. One of fewer than 11 values has a shorter window, of as many
    values or one less: an odd number. (The book returns an empty or a shorter curve for it.)

    Parameters
    ----------
    x : sequence of number, or array, shape=(N,)
        A list may hold 0-d arrays of any library.

    Returns
    -------
    NumPy array, shape=(N,), float64

    Examples
    --------
    >>> smooth_curve([1.0, 5.0, 3.0]).round(2)  # a window of three: 0.23, 0.53, 0.23
    array([2.87, 3.6 , 3.47])
    """
    curve = np.asarray(x, float) if isinstance(x, np.ndarray) else np.array([float(v) for v in x])
    if curve.ndim != 1:
        raise ValueError(f"x has shape {curve.shape}; expected one number after another")
    count = len(curve)
    width = min(WINDOW, count - (count + 1) % 2)
    if width < 3:
        return curve.copy()
    weights = np.kaiser(width, 2)
    reach = width - 1
    reflected = np.concatenate([curve[reach:0:-1], curve, curve[: -reach - 1 : -1]])
    smooth: np.ndarray = np.convolve(reflected, weights / weights.sum(), mode="valid")
    return smooth[reach // 2 : reach // 2 + count]


def shuffle_dataset(x: Array, t: Array) -> tuple[Array, Array]:
    """Return samples and targets in one random order, drawn by ``np.random.permutation``.

    Parameters
    ----------
    x, t : array, shape=(N, ...)
        With any number of axes; the book's takes x with two or four.

    Raises
    ------
    ValueError
        There are not as many targets as samples.

    Examples
    --------
    >>> np.random.seed(0)
    >>> x, t = shuffle_dataset(np.arange(6.0).reshape(3, 2), np.arange(3))
    >>> x[:, 0].tolist(), t.tolist()
    ([4.0, 2.0, 0.0], [2, 1, 0])
    """
    if x.shape[0] != t.shape[0]:
        raise ValueError(f"{x.shape[0]} samples and {t.shape[0]} targets; expected as many of both")
    order = np.random.permutation(x.shape[0])
    return rows(x, order), rows(t, order)


def rows(x: Array, index: np.ndarray) -> Array:
    """Return some rows of an array of any library; the index is NumPy's.

    Examples
    --------
    >>> rows(np.array([1.0, 2.0, 3.0]), np.array([2, 0]))
    array([3., 1.])
    """
    if isinstance(x, np.ndarray):
        return x[index]
    xp = namespace(x)
    return xp.take(x, xp.asarray(index, device=device(x)), axis=0)


def conv_output_size(input_size: int, filter_size: int, stride: int = 1, pad: int = 0) -> float:
    """Return (input_size + 2 pad - filter_size) / stride + 1, a float: whole where a filter fits.

    Examples
    --------
    >>> conv_output_size(28, 5), conv_output_size(7, 3, stride=3)
    (24.0, 2.333333333333333)
    """
    return (input_size + 2 * pad - filter_size) / stride + 1


def im2col(input_data: Array, filter_h: int, filter_w: int, stride: int = 1, pad: int = 0) -> Array:
    """Return one row for each place of a filter over images: what the filter sees there.

    Parameters
    ----------
    input_data : array, shape=(N, C, H, W)
    filter_h, filter_w, stride, pad : int

    Returns
    -------
    array, shape=(N·OH·OW, C·filter_h·filter_w)

    Raises
    ------
    ValueError
        The input has another number of axes, or the filter is larger than the padded images.

    Examples
    --------
    >>> im2col(np.arange(9.0).reshape(1, 1, 3, 3), 2, 2)
    array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]])
    """
    check_images(input_data)
    x = floating(input_data)
    size = _stops(x.shape, (filter_h, filter_w), stride, pad)
    return run(_columns, x, size, (filter_h, filter_w), stride, pad)


def _columns(x: Array, size: Pair, kernel: Pair, stride: int, pad: int) -> Array:
    xp = namespace(x)
    shape = x.shape[0] * size[0] * size[1], x.shape[1] * kernel[0] * kernel[1]
    parts = xp.stack(windows(padded(x, both((pad, pad))), kernel, (stride, stride)), axis=2)
    return xp.reshape(xp.permute_dims(parts, (0, 3, 4, 1, 2)), shape)


def col2im(
    col: Array,
    input_shape: tuple[int, ...],
    filter_h: int,
    filter_w: int,
    stride: int = 1,
    pad: int = 0,
) -> Array:
    """Put the rows of `im2col` back into images, and add where places of the filter overlap.

    Parameters
    ----------
    col : array, shape=(N·OH·OW, C·filter_h·filter_w)
    input_shape : (N, C, H, W)
    filter_h, filter_w, stride, pad : int

    Returns
    -------
    array, shape=(N, C, H, W)

    Raises
    ------
    ValueError
        The filter is larger than the padded images, or `col` has another number of elements.

    Examples
    --------
    >>> col2im(np.ones((4, 4)), (1, 1, 3, 3), 2, 2)[0, 0]  # how many places see each pixel
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    shape = tuple(input_shape)
    size = _stops(shape, (filter_h, filter_w), stride, pad)
    expected = shape[0] * size[0] * size[1], shape[1] * filter_h * filter_w
    if math.prod(col.shape) != math.prod(expected):
        raise ValueError(f"col has shape {tuple(col.shape)}; expected {expected} for {shape}")
    col = floating(col)
    return run(_images, col, shape, size, (filter_h, filter_w), stride, pad)


def _images(
    col: Array, shape: tuple[int, ...], size: Pair, kernel: Pair, stride: int, pad: int
) -> Array:
    xp = namespace(col)
    n, channels, height, width = shape
    count = kernel[0] * kernel[1]
    parts = xp.reshape(col, (n, *size, channels, count))
    each = [xp.permute_dims(parts[..., k], (0, 3, 1, 2)) for k in range(count)]
    return add_windows(each, (height, width), kernel, (stride, stride), both((pad, pad)))


def _stops(shape: tuple[int, ...], kernel: Pair, stride: int, pad: int) -> Pair:
    """Return OH and OW, checked."""
    if len(shape) != 4:
        raise ValueError(f"the shape of the images is {shape}; expected four sizes, (N, C, H, W)")
    whole("filter_h", kernel[0], 1)
    whole("filter_w", kernel[1], 1)
    whole("stride", stride, 1)
    whole("pad", pad)
    size = stops(shape[2], kernel[0], stride, pad), stops(shape[3], kernel[1], stride, pad)
    if min(size) < 1:
        raise ValueError(
            f"a filter of {kernel[0]} x {kernel[1]} does not fit into images of {shape[2]} x "
            f"{shape[3]} with pad={pad}; expected a smaller filter, or a larger pad"
        )
    return size
