"""Convolution and its two gradients, by slices of images and matrix products.

In shapes, N is the number of samples, C that of the input's channels, F that of the filters, H x W
the size of an image, KH x KW that of a filter, and OH x OW that of the output.
"""

from __future__ import annotations

from xpnet.arrays.dispatch import Array, replaceable
from xpnet.arrays.ops import matmul, namespace
from xpnet.arrays.windows import Pair, pad, spread, stops, windows

__all__ = ["LEAST_ROW", "convolve", "convolve_backward_input", "convolve_backward_weights", "both"]

# One product for each row of the filters, where it sums at least so many products of numbers: it
# copies the images KW times instead of KH·KW times. With fewer, the products are too small.
LEAST_ROW = 16


def both(padding: Pair) -> tuple[Pair, Pair]:
    """Return equal edges on both sides."""
    return (padding[0], padding[0]), (padding[1], padding[1])


@replaceable
def convolve(
    x: Array, W: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair
) -> Array:
    r"""Slide filters over images, and add a bias to each channel.

    Parameters
    ----------
    x : array, shape=(N, C, H, W)
    W : array, shape=(F, C, KH, KW)
    b : array, shape=(F,), or None
    stride, padding, dilation : (int, int)

    Returns
    -------
    array, shape=(N, F, OH, OW)

    Notes
    -----
    $$y_{nfhw} = b_f + \sum_{cij} W_{fcij}\, x_{n,c,\,hs+id,\,ws+jd}$$

    with stride s and dilation d, in the padded images. (It is the cross-correlation of
    mathematics; the field calls it convolution.) A window's values in a column make one product of
    it, as in K. Chellapilla, S. Puri and P. Simard, "High performance convolutional neural networks
    for document processing", 2006. Here a column holds one row of the window where that is enough
    for a product: the other rows are then slices of the same columns.
    """
    xp = namespace(x)
    filters, channels, kh, kw = W.shape
    x = pad(x, both(padding))
    n = x.shape[0]
    oh = stops(x.shape[2], kh, stride[0], 0, dilation[0])
    ow = stops(x.shape[3], kw, stride[1], 0, dilation[1])
    if not by_rows(W.shape, stride):
        columns = xp.stack(windows(x, (kh, kw), stride, dilation), axis=2)
        columns = xp.reshape(columns, (n, channels * kh * kw, oh * ow))
        y = matmul(xp.reshape(W, (1, filters, channels * kh * kw)), columns)
    else:
        columns = _row_columns(x, kw, dilation[1])
        y = 0.0
        for i in range(kh):
            row = xp.reshape(W[:, :, i, :], (1, filters, channels * kw))
            part = matmul(row, _rows(columns, i * dilation[0], oh))
            part += y
            y = part
    if b is not None:
        y += b[:, None]
    return xp.reshape(y, (n, filters, oh, ow))


@replaceable
def convolve_backward_input(
    dout: Array, W: Array, size: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Array:
    """Return dx of `convolve`, for images of `size` = (H, W).

    Each pixel gets a sum over the filters, so it is a convolution too: of the gradient, with zeros
    between its pixels for a stride and around it, with the filters turned by 180 degrees. Nothing
    is scattered.
    """
    xp = namespace(dout)
    dout = spread(dout, stride)
    edges = []
    for axis in (0, 1):
        reach = dilation[axis] * (W.shape[2 + axis] - 1)
        before = reach - padding[axis]
        edges.append((before, size[axis] + reach - before - dout.shape[2 + axis]))
    turned = xp.permute_dims(xp.flip(W, axis=(2, 3)), (1, 0, 2, 3))
    (top, bottom), (left, right) = edges
    if min(top, bottom, left, right) >= 0 and top == bottom and left == right:
        return convolve(dout, turned, None, (1, 1), (top, left), dilation)
    return convolve(
        pad(dout, ((top, bottom), (left, right))), turned, None, (1, 1), (0, 0), dilation
    )


@replaceable
def convolve_backward_weights(
    x: Array, dout: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Array:
    """Return dW of `convolve`: the products of each place's slice with the gradient, summed."""
    xp = namespace(x)
    kh, kw = kernel
    n, filters, oh, ow = dout.shape
    channels = x.shape[1]
    x = pad(x, both(padding))
    dout = xp.reshape(dout, (n, filters, oh * ow))
    if not by_rows((filters, channels, kh, kw), stride):
        columns = xp.stack(windows(x, kernel, stride, dilation), axis=2)
        columns = xp.reshape(columns, (n, channels * kh * kw, oh * ow))
        dW = xp.sum(matmul(dout, columns.mT), axis=0)
        return xp.reshape(dW, (filters, channels, kh, kw))
    columns = _row_columns(x, kw, dilation[1])
    rows = [xp.sum(matmul(dout, _rows(columns, i * dilation[0], oh).mT), axis=0) for i in range(kh)]
    return xp.stack([xp.reshape(row, (filters, channels, kw)) for row in rows], axis=2)


def by_rows(W_shape: tuple[int, ...], stride: Pair) -> bool:
    """Say whether to take one product for each row of the filters."""
    _, channels, kh, kw = W_shape
    return stride == (1, 1) and kh > 1 and channels * kw >= LEAST_ROW


def _row_columns(x: Array, kw: int, dilation: int) -> Array:
    """Return what the places of a filter's row see, shape=(N, C·KW, H, OW)."""
    xp = namespace(x)
    n, channels, height, _ = x.shape
    parts = windows(x, (1, kw), (1, 1), (1, dilation))
    return xp.reshape(xp.stack(parts, axis=2), (n, channels * kw, height, parts[0].shape[3]))


def _rows(columns: Array, first: int, count: int) -> Array:
    """Return the columns of `count` rows of windows, shape=(N, C·KW, count·OW)."""
    n, depth, _, width = columns.shape
    part = columns[:, :, first : first + count, :]
    return namespace(columns).reshape(part, (n, depth, count * width))
