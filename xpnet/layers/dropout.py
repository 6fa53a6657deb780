"""Dropout. A hash gives the masks, so they are the same on every library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from xpnet.arrays.dispatch import elementwise
from xpnet.arrays.ops import Array, masked, namespace, unbroadcast
from xpnet.arrays.random import hash32, random_bits
from xpnet.arrays.ranks import place_in_batch
from xpnet.errors import real
from xpnet.gates.protocol import Grads

__all__ = ["Dropout", "DropoutPerModel"]


@dataclass(frozen=True)
class Dropout:
    """Inverted dropout: y = x m / (1 - ratio), where m is 0 with probability `ratio`, else 1.

    Inputs
    ------
    x : array, any shape
    step : int32 array with one element, or None
        The training step. None means inference: x passes unchanged.

    Parameters
    ----------
    ratio : float in [0, 1)
        Share of the elements that dropout sets to 0 in training.
    seed, layer : int
        These two, `step` and the element's position determine the mask. So every library draws
        the same mask, and a resumed run draws it again: no mask is stored.

    Notes
    -----
    Training divides by 1 - ratio to keep the expected value, so inference needs no scaling.
    Source: Srivastava et al., "Dropout", JMLR 15, 2014 (which scales at test time instead).
    """

    ratio: float = 0.5
    seed: int = 0
    layer: int = 0
    integers: ClassVar[tuple[int, ...]] = (1,)

    def __post_init__(self) -> None:
        real("ratio", self.ratio, 0.0, 1.0)

    @property
    def key(self) -> int:
        """The number of its stream of random bits."""
        return hash32(self.seed, self.layer)

    @property
    def limit(self) -> int:
        """An element is dropped where 24 random bits are below this."""
        return int(self.ratio * (1 << 24))

    @property
    def scale(self) -> float:
        """What a kept element is multiplied by."""
        return 1.0 / (1.0 - self.ratio)

    def forward(self, x: Array, step: Array | None = None) -> tuple[Array, Array | None]:
        if step is None or self.ratio == 0.0:
            return x, None
        each = math.prod(x.shape[1:])
        first, _ = place_in_batch(x.shape[0]) if x.ndim else (0, 1)
        bits = random_bits(math.prod(x.shape), self.key, step, first * each)
        bits = namespace(x).reshape(bits, x.shape)
        dropped: tuple[Array, Array] = _drop(x, bits, self.limit, self.scale)
        return dropped

    def backward(
        self, cache: Array | None, dout: Array, needs: Sequence[bool] = (True, False)
    ) -> Grads:
        if cache is None:
            return dout, None
        return _kept(dout, cache, self.scale), None


@dataclass(frozen=True)
class DropoutPerModel:
    """`Dropout` of K models at once: each has the mask that it has alone.

    Inputs
    ------
    x : array, shape=(K, N, M), or (N, M) for all models
    step : int32 array with one element, or None
    key, limit : int32 array, shape=(K,)
        Those of each model's `Dropout`.
    scale : array, shape=(K,)
    """

    integers: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def forward(
        self,
        x: Array,
        step: Array | None = None,
        key: Array | None = None,
        limit: Array | None = None,
        scale: Array | None = None,
    ) -> tuple[Array, Any]:
        if step is None or key is None or limit is None or scale is None:
            return x, None
        each = x.shape[-2:]
        bits = namespace(x).reshape(random_bits(math.prod(each), key, step), (-1, *each))
        scale = scale[:, None, None]
        y, keep = _drop(x, bits, limit[:, None, None], scale)
        return y, (keep, scale, x.shape)

    def backward(self, cache: Any, dout: Array, needs: Sequence[bool] = (True,)) -> Grads:
        if cache is None:
            return dout, None, None, None, None
        keep, scale, shape = cache
        return unbroadcast(_kept(dout, keep, scale), shape), None, None, None, None


@elementwise
def _drop(x: Array, bits: Array, limit: Any, scale: Any) -> tuple[Array, Array]:
    """Return the output and the mask."""
    # Compare 24 of the 32 bits with the ratio as integers: no rounding can then differ between
    # libraries.
    keep = (bits >> 8) & 0xFFFFFF >= limit
    return _kept(x, keep, scale), keep


@elementwise
def _kept(x: Array, keep: Array, scale: Any) -> Array:
    y = masked(x, keep)
    y *= scale
    return y
