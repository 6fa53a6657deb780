"""Convolution networks for images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from xpnet.arrays.windows import Pair, stops
from xpnet.errors import UsageError, shown, whole
from xpnet.gates.protocol import Gate
from xpnet.layers.convolution import Convolution
from xpnet.layers.images import pair
from xpnet.layers.pooling import Flatten, GlobalAveragePool
from xpnet.models.building import Building, listed_of
from xpnet.models.initializers import check_count
from xpnet.models.network import Network

__all__ = ["PRESETS", "cnn"]

# The networks of "Deep Learning from Scratch", chapters 7 and 8, for images of 28 x 28.
PRESETS: dict[str, dict[str, Any]] = {
    "cnn": {"channels": [30], "kernel": 5, "padding": 0, "hidden": [100]},
    "deep-cnn": {
        "channels": [[16, 16], [32, 32], [64, 64]],
        "padding": [[1, 1], [1, 2], [1, 1]],  # 14 x 14 becomes 16 x 16, so that it halves twice
        "hidden": [50],
        "dropout": 0.5,
    },
}


class Filters(NamedTuple):
    """One convolution of a network: its place, its gate, and the shapes around it."""

    place: str
    gate: Convolution
    shape: tuple[int, int, int, int]
    last: bool  # of its block: a pool follows


def cnn(
    input_shape: Sequence[int],
    channels: Sequence[int | Sequence[int]],
    hidden: Sequence[int] = (),
    outputs: int = 10,
    activation: str = "relu",
    *,
    kernel: Any = 3,
    padding: Any = "same",
    stride: Any = 1,
    pool: int = 2,
    global_pool: bool = False,
    batch_norm: bool = False,
    loss: str | Gate | tuple[str, Mapping[str, Any]] = "softmax",
    dropout: float = 0.0,
    init: str | float = "auto",
    seed: int = 0,
    params: Mapping[str, np.ndarray] | None = None,
) -> Network:
    """A convolution network: blocks of convolutions and a max pool, then affine layers.

    Parameters
    ----------
    input_shape : sequence of int
        (C, H, W): channels, rows and columns of an image.
    channels : sequence of int, or of sequences of int
        One entry for each block: the number of filters of its convolution, or a list of several.
        ``[[16, 16], [32, 32]]`` are two blocks of two convolutions.
    hidden : sequence of int
        Sizes of the affine layers between the blocks and the output.
    outputs : int
    activation : str
        Of all layers but the last: sigmoid, tanh, relu, leaky_relu or identity.
    kernel : int, or (int, int)
        Size of the filters; a pair gives rows and columns. Or a list in the form of `channels`,
        with a value for each convolution: so for `padding` and `stride`.
    padding : "same", int, or (int, int)
        Zeros on each side of the images. "same" keeps their size (with stride 1), and needs an
        odd kernel.
    stride : int, or (int, int)
    pool : int
        Size and stride of the max pool at the end of each block; 1 means no pool. It stands before
        the activation: the result is the same, and the activation has less to compute.
    global_pool : bool
        Take the mean of each channel after the last block, instead of all its pixels.
    batch_norm : bool
        Normalize the inputs of each hidden activation over the batch, as `xpnet.mlp` does.
    loss, init, seed
        As for `xpnet.mlp`.
    dropout : float
        Ratio of the dropout after each hidden affine layer.
    params : mapping of str to array, optional
        Initial parameters and statistics; without them, `cnn` draws new ones.

    Returns
    -------
    Network
        Its parameters are W1, b1, W2, ..., counted through convolutions and affine layers.

    Raises
    ------
    ValueError
        A size or a setting is impossible or unknown; the filters or the pool of a block are larger
        than the images that reach it (the message says which, and their sizes); or one of `params`
        is missing or has a wrong shape.

    Examples
    --------
    >>> network = cnn((1, 28, 28), [30], [100], kernel=5, padding=0)
    >>> [network.params[name].shape for name in ("W1", "W2", "W3")]
    [(30, 1, 5, 5), (4320, 100), (100, 10)]
    """
    shape = tuple(whole("each of input_shape", n, 1) for n in listed_of("input_shape", input_shape))
    if len(shape) != 3:
        raise UsageError(f"input_shape is {shown(shape)}; expected (channels, rows, columns)")
    blocks = _blocks(channels)
    hidden = [whole("each of hidden", n, 1) for n in listed_of("hidden", hidden)]
    outputs, pool = whole("outputs", outputs, 1), max(whole("pool", pool), 1)
    size: Pair = shape[1], shape[2]
    steps: list[tuple[Filters, Pair]] = []
    for filters in _convolutions(shape[0], blocks, kernel, padding, stride):
        size = _convolved(filters, size)
        if filters.last and pool > 1:
            size = _pooled(filters.place.partition(",")[0], pool, size)
        steps.append((filters, size))
    features = steps[-1][0].shape[0] * (1 if global_pool else math.prod(size))
    sizes = [features, *hidden, outputs]
    if params is None:
        count = sum(math.prod(filters.shape) + filters.shape[0] for filters, _ in steps)
        count += sum((n + 1) * m for n, m in pairwise(sizes))
        check_count(count, f"a network of channels {shown(blocks)} and sizes {sizes} has")
    made = Building(loss, dropout, init, seed, params)
    for filters, _ in steps:
        after = pool if filters.last else 1
        made.convolution(filters.gate, filters.shape, activation, batch_norm, after)
    made.apply(GlobalAveragePool() if global_pool else Flatten())
    for fan_in, fan_out in pairwise(sizes[:-1]):
        made.affine(fan_in, fan_out, activation, batch_norm)
        made.drop()
    made.affine(sizes[-2], outputs, "identity")
    arguments = {
        "input_shape": list(shape), "channels": blocks, "hidden": hidden,
        "outputs": outputs, "activation": activation, "kernel": _plain("kernel", kernel, blocks),
        "padding": _plain("padding", padding, blocks),
        "stride": _plain("stride", stride, blocks), "pool": pool,
        "global_pool": bool(global_pool), "batch_norm": bool(batch_norm),
    }  # fmt: skip
    return made.network("cnn", arguments, shape, outputs)


def _blocks(channels: Any) -> list[list[int]]:
    """Return the numbers of filters, block by block."""
    blocks = [
        [block] if not isinstance(block, list | tuple) else list(block)
        for block in listed_of("channels", channels)
    ]
    if not blocks or not all(blocks):
        raise UsageError(f"channels is {shown(channels)}; expected a list of numbers of filters")
    return [[whole("each of channels", n, 1) for n in block] for block in blocks]


def _convolutions(
    channels: int, blocks: list[list[int]], kernel: Any, padding: Any, stride: Any
) -> Iterator[Filters]:
    """Yield each convolution."""
    kernels, paddings, strides = (
        _each(name, value, blocks)
        for name, value in (("kernel", kernel), ("padding", padding), ("stride", stride))
    )
    for b, block in enumerate(blocks):
        for i, filters in enumerate(block):
            place = f"block {b + 1}" + (f", convolution {i + 1}" if len(block) > 1 else "")
            window = pair("kernel", kernels[b][i], 1)
            edges = paddings[b][i]
            if edges == "same":
                if window[0] % 2 == 0 or window[1] % 2 == 0:
                    raise UsageError(
                        f"{place}: padding 'same' needs an odd kernel, got {_x(window)}; expected "
                        "an odd kernel, or padding as a number"
                    )
                edges = window[0] // 2, window[1] // 2
            elif isinstance(edges, str):
                raise UsageError(f"padding is {shown(edges)}; expected 'same' or a number")
            gate = Convolution(strides[b][i], edges)
            yield Filters(place, gate, (filters, channels, *window), i == len(block) - 1)
            channels = filters


def _each(name: str, value: Any, blocks: list[list[int]]) -> list[list[Any]]:
    """Return a setting for each convolution, from one for all or a list like `channels`."""
    if not isinstance(value, list):
        return [[value] * len(block) for block in blocks]
    found = [each if isinstance(each, list) else [each] for each in value]
    if [len(each) for each in found] != [len(block) for block in blocks]:
        raise UsageError(
            f"{name} is {shown(value)}; expected one value, or a list in the form of channels, "
            f"{blocks}"
        )
    return found


def _convolved(filters: Filters, size: Pair) -> Pair:
    """Return the size of the images after a convolution; refuse filters that do not fit."""
    stride, padding, _ = filters.gate.settings
    window = filters.shape[2], filters.shape[3]
    rows, columns = (stops(size[a], window[a], stride[a], padding[a]) for a in (0, 1))
    if rows < 1 or columns < 1:
        raise UsageError(
            f"{filters.place}: filters of {_x(window)} do not fit images of {_x(size)} with "
            f"padding {_x(padding)}; expected a smaller kernel, more padding, or fewer blocks"
        )
    return rows, columns


def _pooled(place: str, pool: int, size: Pair) -> Pair:
    """Return the size of the images after a pool; refuse one that does not fit."""
    rows, columns = (stops(n, pool, pool, 0) for n in size)
    if rows < 1 or columns < 1:
        raise UsageError(
            f"{place}: a pool of {_x((pool, pool))} does not fit images of {_x(size)}; expected "
            "fewer blocks, more padding, or pool=1"
        )
    return rows, columns


def _x(size: Pair) -> str:
    return f"{size[0]} x {size[1]}"


def _plain(name: str, value: Any, blocks: list[list[int]]) -> Any:
    """Return a setting as JSON holds it: one number or word, else one for each convolution."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        return int(value)
    each = _each(name, value, blocks)
    return [[v if isinstance(v, str) else list(pair(name, v, 0)) for v in block] for block in each]
