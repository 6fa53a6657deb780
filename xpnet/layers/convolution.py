"""The convolution layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from xpnet.arrays.convolution import (
    convolve,
    convolve_backward_input,
    convolve_backward_weights,
)
from xpnet.arrays.ops import Array, sum_channels
from xpnet.arrays.windows import Pair, stops
from xpnet.gates.protocol import Grads
from xpnet.layers.images import check_images, pair

__all__ = ["Convolution"]


class ConvolutionCache(NamedTuple):
    x: Array
    W: Array


@dataclass(frozen=True)
class Convolution:
    r"""Filters slide over images: y = x * W + b.

    Inputs
    ------
    x : array, shape=(N, C, H, W)
        N images of C channels.
    W : array, shape=(F, C, KH, KW)
        F filters.
    b : array, shape=(F,), optional

    The output has the shape (N, F, OH, OW), with OH = (H + 2 padding - dilation (KH - 1) - 1) //
    stride + 1, and OW alike.

    Parameters
    ----------
    stride : int or (int, int)
        Pixels from one window to the next. A pair gives rows and columns.
    padding : int or (int, int)
        Zeros on each side of the images.
    dilation : int or (int, int)
        Pixels from one place of a filter to the next: 2 leaves out every other pixel.

    Raises
    ------
    ValueError
        The shapes do not fit, or the filters are larger than the padded images.

    Notes
    -----
    With G the gradient with respect to y, and stride s and dilation d in the padded images,

    $$y_{nfhw} = b_f + \sum_{cij} W_{fcij}\, x_{n,c,\,hs+id,\,ws+jd}$$

    $$dW_{fcij} = \sum_{nhw} G_{nfhw}\, x_{n,c,\,hs+id,\,ws+jd}, \quad db_f = \sum_{nhw} G_{nfhw}$$

    dx is the convolution of G, padded with zeros, with the filters turned by 180 degrees. Source:
    LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> Convolution().forward(x, np.ones((1, 1, 2, 2)))[0].tolist()
    [[[[8.0, 12.0], [20.0, 24.0]]]]
    """

    stride: int | Pair = 1
    padding: int | Pair = 0
    dilation: int | Pair = 1
    bias_input: ClassVar[int] = 2
    bias_axis: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name, low in (("stride", 1), ("padding", 0), ("dilation", 1)):
            object.__setattr__(self, name, pair(name, getattr(self, name), low))

    @property
    def settings(self) -> tuple[Pair, Pair, Pair]:
        """Stride, padding and dilation, each of rows and columns."""
        return self.stride, self.padding, self.dilation  # type: ignore[return-value]

    def forward(self, x: Array, W: Array, b: Array | None = None) -> tuple[Array, ConvolutionCache]:
        if len(W.shape) != 4 or (b is not None and b.shape != W.shape[:1]):
            given = "" if b is None else f" and b {tuple(b.shape)}"
            raise ValueError(f"W has shape {tuple(W.shape)}{given}; expected (F, C, KH, KW), (F,)")
        check_images(x, W.shape[1])
        for axis, what in ((0, "rows"), (1, "columns")):
            stride, padding, dilation = (setting[axis] for setting in self.settings)
            size, kernel = x.shape[2 + axis], W.shape[2 + axis]
            if stops(size, kernel, stride, padding, dilation) < 1:
                span = dilation * (kernel - 1) + 1
                raise ValueError(
                    f"filters of {span} {what} do not fit images of {size}, padded to "
                    f"{size + 2 * padding}; expected padding of at least "
                    f"{-(-(span - size) // 2)}, or smaller filters"
                )
        return convolve(x, W, b, *self.settings), ConvolutionCache(x, W)

    def backward(
        self, cache: ConvolutionCache, dout: Array, needs: Sequence[bool] = (True, True, True)
    ) -> Grads:
        x, W = cache
        dx = dW = db = None
        if needs[0]:
            dx = convolve_backward_input(dout, W, x.shape[2:], *self.settings)
        if needs[1]:
            dW = convolve_backward_weights(x, dout, W.shape[2:], *self.settings)
        if len(needs) > 2 and needs[2]:
            db = sum_channels(dout)
        return dx, dW, db
