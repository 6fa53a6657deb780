"""What a user can get wrong: one class per exit status, and the checks of single settings.

The library and the command line check a setting by the same function. Each message is one line.
"""

from __future__ import annotations

import math
import sys
from numbers import Real
from typing import Any

__all__ = [
    "LARGEST", "CheckpointError", "DataError", "DeviceError", "NonFiniteLossError",
    "NotCapturedWarning", "UsageError", "real", "shown", "whole",
]  # fmt: skip


class UsageError(ValueError):
    """An option or argument is impossible; exit status 2."""

    exit_status = 2


class DataError(ValueError):
    """Data that cannot be trained on, naming file, row or key; exit status 2."""

    exit_status = 2


class CheckpointError(ValueError):
    """A checkpoint that is damaged, missing, or of another run; exit status 2."""

    exit_status = 2


class DeviceError(RuntimeError):
    """A device or array library that cannot be used, and what to install; exit status 3."""

    exit_status = 3


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number; exit status 5.

    Attributes
    ----------
    epoch, step : int
        Where, counted from 1 (epoch) and over the whole run (step).
    """

    exit_status = 5

    def __init__(self, message: str, epoch: int, step: int) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step


class NotCapturedWarning(RuntimeWarning):
    """A step runs in the plain loop, because it cannot be captured into a CUDA graph."""


# -- Settings --------------------------------------------------------------------------

# Of a whole number on the command line: beyond reason, and still far from where NumPy overflows.
LARGEST = 1_000_000_000


def whole(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """A setting that counts something, as an int; 3.0 counts as 3.

    Raises
    ------
    UsageError
        It is no whole number from `least` to `most`.
    """
    number = _number(value)
    if number is not None and number % 1 == 0:  # not so for infinity
        count = int(number)
        if least <= count and (most is None or count <= most):
            return count
    limits = f"{least} or more" if most is None else f"from {least} to {most:,}"
    raise UsageError(f"{name} is {shown(value)}; expected a whole number, {limits}")


def real(name: str, value: Any, low: float, high: float = math.inf, ends: str = "[)") -> float:
    """A setting that is a finite number in an interval, as a float.

    Parameters
    ----------
    name : str
        For the message.
    value : any
    low, high : float
    ends : {"[]", "[)", "(]", "()"}
        Whether `low` and `high` themselves belong to the interval, as in mathematics.

    Raises
    ------
    UsageError
    """
    number = _number(value)
    if number is not None and abs(number) <= sys.float_info.max:
        above = number > low or (ends[0] == "[" and number == low)
        below = number < high or (ends[1] == "]" and number == high)
        if above and below:
            return float(number)
    limits = []
    if low > -math.inf:
        limits.append(f"{'>=' if ends[0] == '[' else '>'} {low:g}")
    if high < math.inf:
        limits.append(f"{'<=' if ends[1] == ']' else '<'} {high:g}")
    expected = " ".join(["a finite number", " and ".join(limits)]).strip()
    raise UsageError(f"{name} is {shown(value)}; expected {expected}")


def _number(value: Any) -> Any:
    """A real number of Python or NumPy, or that in a 0-d array; None for anything else."""
    if getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, bool):  # a number too, by inheritance: as a setting it is a mistake
        return None
    return value if isinstance(value, Real) else None


def shown(value: Any) -> str:
    """A wrong value in a message: one line, and not all of a large array."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
