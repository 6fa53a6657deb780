"""Augmentation: training sees each image in a new place, and maybe mirrored, at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xpnet.arrays.augmentation import draw_moves, moved
from xpnet.arrays.dispatch import Array
from xpnet.arrays.random import hash32
from xpnet.errors import UsageError, shown, whole

__all__ = ["SHIFT", "Augmentation"]

# The pixels of "shift" without a number: on images of 28 x 28, what moves still looks like a digit.
SHIFT = 2
# The stream of random bits; those of dropout have two words (seed, layer), not three.
STREAM = 0x73686966


@dataclass(frozen=True)
class Augmentation:
    """Move each image a few pixels, and mirror every other one, anew at every training step.

    Training then sees more images than there are, and learns that neither changes the class. Only
    training does this: scores, losses of the validation part and predictions are of the images as
    they are.

    Parameters
    ----------
    shift : int
        Move each image up to so many pixels up or down, and left or right: every distance is
        equally likely. Pixels of the edge are repeated, so this does not depend on the scaling.
    flip : bool
        Mirror each image left to right with probability 1/2. Good for photos, bad for digits.

    Raises
    ------
    UsageError

    Notes
    -----
    A hash of (seed, step, sample's place in the batch) gives the random numbers, as those of
    `xpnet.layers.Dropout`: they are the same on every library, nothing is stored, and a resumed run
    draws them again.

    Examples
    --------
    >>> import numpy as np
    >>> augmentation = Augmentation(shift=2)
    >>> x = np.arange(12).reshape(1, 1, 3, 4)
    >>> augmentation.applied(x, 0, np.array([3], np.int32))[0, 0].tolist()  # 2 up, 1 to the left
    [[9, 10, 11, 11], [9, 10, 11, 11], [9, 10, 11, 11]]
    """

    shift: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shift", whole("shift", self.shift, 0, (1 << 15) - 1))
        if not isinstance(self.flip, bool):
            raise UsageError(f"flip is {shown(self.flip)}; expected True or False")

    @classmethod
    def of(cls, given: Any) -> Augmentation | None:
        """Return the augmentation that a user gives: one, text such as "shift=2,flip", or None.

        Raises
        ------
        UsageError

        Examples
        --------
        >>> Augmentation.of("shift,flip"), Augmentation.of(None)
        (Augmentation(shift=2, flip=True), None)
        """
        if given is None or isinstance(given, cls):
            return given
        if given == "none":
            return None
        if not isinstance(given, str):
            raise UsageError(
                f"augment is {shown(given)}; expected xpnet.data.Augmentation(shift=2, flip=True), "
                'or "shift=2,flip"'
            )
        found: dict[str, Any] = {}
        for word in given.split(","):
            name, equals, number = word.strip().partition("=")
            if name not in ("shift", "flip") or name in found or (name == "flip" and equals):
                raise UsageError(
                    f"augment: {shown(word)} is not shift, shift=PIXELS or flip, each once; "
                    "expected such as shift=2,flip"
                )
            if name == "flip":
                found[name] = True
                continue
            if equals and not (number.isascii() and number.isdigit() and len(number) < 6):
                raise UsageError(f"augment: shift is {shown(number)}; expected pixels: shift=2")
            found[name] = int(number) if equals else SHIFT
        return cls(**found)

    def __str__(self) -> str:
        """Return the text that `of` reads; "none" if nothing changes."""
        words = [f"shift={self.shift}"] if self.shift else []
        return ",".join([*words, "flip"] if self.flip else words) or "none"

    def check(self, input_shape: Sequence[int] | None) -> None:
        """Refuse a network that takes no images, or too small ones.

        Raises
        ------
        UsageError
        """
        if input_shape is None or len(input_shape) != 3:
            takes = "samples of any shape"
            if input_shape is not None:
                takes = f"{math.prod(input_shape):,} features in a row"
            raise UsageError(
                f"augment moves pixels of images, and this network takes {takes}; build one with "
                "input_shape (channels, rows, columns): xpnet.cnn"
            )
        smallest = min(input_shape[1:])
        if self.shift >= smallest:
            raise UsageError(
                f"augment: shift is {self.shift} pixels of images of {input_shape[1]} x "
                f"{input_shape[2]}; expected fewer than {smallest}"
            )

    def applied(self, x: Array, seed: int, step: Array) -> Array:
        """Return a batch of images as this step sees it.

        Parameters
        ----------
        x : array, shape=(N, C, H, W)
        seed : int
        step : int32 array with one element
            The number of the training step.
        """
        if not self.shift and not self.flip:
            return x
        moves = draw_moves(x.shape[0], hash32(seed, STREAM, 0), step, self.shift, self.flip)
        return moved(x, *moves, self.shift)
