"""The errors that xpnet raises, with their exit statuses, and the checks of single settings.

The library and the command line check a setting with the same function. Each message is one line.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from itertools import islice
from numbers import Real
from typing import Any

__all__ = [
    "LARGEST", "CheckpointError", "DataError", "DeviceError", "NonFiniteLossError",
    "NotCapturedWarning", "RankError", "UsageError", "XpnetError", "counted", "listed", "one_line",
    "real", "shortened", "shown", "whole",
]  # fmt: skip


# -- Messages --------------------------------------------------------------------------

LONGEST_LINE = 1000
LONGEST_NAME = 60


def one_line(text: str) -> str:
    """Return text as one line that is safe to print, of at most 1,000 characters.

    A message quotes names, cells and paths, and whoever made them chose their characters: line
    breaks, or sequences that a terminal obeys. An escape stands for each character that is not
    printable. Of a longer text, the beginning and the end remain.

    Examples
    --------
    >>> print(one_line("a\\nb"))
    a\\nb
    """
    if len(text) > LONGEST_LINE:
        text = f"{text[: LONGEST_LINE // 2]} ... {text[-LONGEST_LINE // 3 :]}"
    if text.isprintable():
        return text
    return one_line("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))


# -- Errors ----------------------------------------------------------------------------


class XpnetError(Exception):
    """What xpnet refuses; the message is one line, whatever it quotes.

    Attributes
    ----------
    exit_status : int
        The status with which a command ends.
    """

    exit_status = 2

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class UsageError(XpnetError, ValueError):
    """An option or argument has an impossible value; exit status 2."""


class DataError(XpnetError, ValueError):
    """xpnet cannot use the data; the message names the file, row or key; exit status 2."""


class CheckpointError(XpnetError, ValueError):
    """A checkpoint is damaged or missing, or it belongs to another run; exit status 2."""


class RankError(XpnetError, RuntimeError):
    """Of several ranks, one was lost, or does not compute what the others do; exit status 6."""

    exit_status = 6


class DeviceError(XpnetError, RuntimeError):
    """xpnet cannot use a device or array library; the message says why; exit status 3."""

    exit_status = 3


class NonFiniteLossError(XpnetError, ArithmeticError):
    """The loss became infinite or not a number; exit status 5.

    Attributes
    ----------
    epoch, step : int
        The epoch counts from 1; the step counts over the whole run.
    """

    exit_status = 5

    def __init__(self, message: str, epoch: int, step: int) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.epoch, self.step)


class NotCapturedWarning(RuntimeWarning):
    """A step runs in the plain loop, because it cannot be captured into a CUDA graph."""


# -- Settings --------------------------------------------------------------------------

# The largest whole number on the command line: more makes no sense, and NumPy could overflow.
LARGEST = 1_000_000_000


def whole(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """Return a setting that counts something as an int; 3.0 counts as 3.

    Raises
    ------
    UsageError
        The value is not a whole number from `least` to `most`.

    Examples
    --------
    >>> whole("epochs", 3.0, 1)
    3
    """
    number = _number(value)
    if number is not None and number % 1 == 0:  # false for infinity
        count = int(number)
        if least <= count and (most is None or count <= most):
            return count
    limits = f"{least} or more" if most is None else f"from {least} to {most:,}"
    raise UsageError(f"{name} is {shown(value)}; expected a whole number, {limits}")


def real(name: str, value: Any, low: float, high: float = math.inf, ends: str = "[)") -> float:
    """Return a setting that must be a finite number in an interval as a float.

    Parameters
    ----------
    name : str
        The name of the setting, for the message.
    value : any
    low, high : float
    ends : {"[]", "[)", "(]", "()"}
        A square bracket means that `low` or `high` itself is allowed.

    Raises
    ------
    UsageError
        The value is not a finite number in the interval.

    Examples
    --------
    >>> real("dropout", 0, 0.0, 1.0)
    0.0
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
    """Return a real number, or the one in a 0-d array; return None for anything else."""
    if getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, bool):  # a bool inherits from int, but as a setting it is a mistake
        return None
    return value if isinstance(value, Real) else None


def shown(value: Any) -> str:
    """Return a wrong value as text for a message: one line of at most 60 characters."""
    text = one_line(" ".join(repr(value).split()))
    return text if len(text) <= 60 else f"{text[:57]}..."


def listed(names: Iterable[object], most: int = 20) -> str:
    """Names for a message, "a, b, c", in one line; of a long list the first ones and the count."""
    names = [*names]
    more = f", ... ({len(names):,} in all)" if len(names) > most else ""
    first = (shortened(str(name)) for name in islice(names, most))
    return ", ".join(name if name.isprintable() else repr(name) for name in first) + more


def counted(number: int, thing: str, things: str = "") -> str:
    """Return how many things there are: "1 class", "1,000 classes"; the plural is thing + s.

    Examples
    --------
    >>> counted(1000, "class", "classes")
    '1,000 classes'
    """
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def shortened(text: str) -> str:
    """Return a text of at most 60 characters; of a longer one, the beginning."""
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}..."
