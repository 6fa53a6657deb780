"""Learning-rate schedules: the rate as a function of the finished steps.

Symbols: lr is the learning rate, and k = 0, 1, ... the number of finished steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xpnet.arrays.ops import Array, at_most, namespace
from xpnet.errors import real, whole

__all__ = [
    "RATES", "Schedule", "checked", "constant", "cosine", "exponential", "inverse_time",
    "rate_after", "step_decay", "warmed",
]  # fmt: skip

Schedule = Callable[[Array], Any]  # step (0-d array of the parameters' dtype, from 0) -> lr

RATES = (0.0, math.inf, "()")  # the interval of a rate


def constant(lr: float, *, warmup: int = 0) -> float | Schedule:
    """Return a constant learning rate.

    Here and in all other schedules, `warmup` is a number of steps: the rate grows linearly from
    lr / warmup to lr in these steps, and the schedule starts after them. Source: Goyal et al.,
    "Accurate, large minibatch SGD", 2017. All schedules raise `xpnet.errors.UsageError` for a
    number out of range. Two schedules with the same numbers are equal, and pickles keep them.

    Examples
    --------
    >>> import numpy as np
    >>> [round(float(constant(0.1, warmup=4)(np.array(k))), 3) for k in (0.0, 1.0, 5.0)]
    [0.025, 0.05, 0.1]
    """
    lr, warmup = checked(lr, warmup)
    return _Warm(_Constant(lr), lr, warmup) if warmup else lr


def step_decay(lr: float, every: int, factor: float = 0.1, *, warmup: int = 0) -> Schedule:
    """Return lr factor^⌊k / every⌋ at step k: multiply the rate by `factor` every `every` steps.

    Examples
    --------
    >>> import numpy as np
    >>> [round(float(step_decay(0.1, 10)(np.array(k))), 4) for k in (9.0, 10.0, 20.0)]
    [0.1, 0.01, 0.001]
    """
    lr, warmup = checked(lr, warmup)
    every = whole("every", every, 1)
    log = math.log(real("factor", factor, 0.0, 1.0, "(]"))
    return warmed(_StepDecay(lr, every, log), lr, warmup)


def exponential(lr: float, steps: int, end: float = 0.01, *, warmup: int = 0) -> Schedule:
    """Return lr end^(k / steps) at step k: the rate reaches lr · end after `steps` steps.

    Examples
    --------
    >>> import numpy as np
    >>> [round(float(exponential(0.1, 100)(np.array(k))), 4) for k in (0.0, 50.0, 100.0)]
    [0.1, 0.01, 0.001]
    """
    lr, warmup = checked(lr, warmup)
    rate = math.log(real("end", end, 0.0, 1.0, "(]")) / whole("steps", steps, 1)
    return warmed(_Exponential(lr, rate), lr, warmup)


def cosine(lr: float, steps: int, end: float = 0.0, *, warmup: int = 0) -> Schedule:
    """Return lr (end + (1 - end) (1 + cos(π k / steps)) / 2) at step k.

    The rate reaches lr · end after `steps` steps and stays there. Source: Loshchilov and Hutter,
    "SGDR", 2017, eq. 5, one period.

    Examples
    --------
    >>> import numpy as np
    >>> [round(float(cosine(0.1, 100)(np.array(k))), 3) for k in (0.0, 50.0, 100.0)]
    [0.1, 0.05, 0.0]
    """
    lr, warmup = checked(lr, warmup)
    steps, end = whole("steps", steps, 1), real("end", end, 0.0, 1.0, "[]")
    return warmed(_Cosine(lr, steps, end), lr, warmup)


def inverse_time(lr: float, decay: float, *, warmup: int = 0) -> Schedule:
    """Return lr / (1 + decay k) at step k: after 1 / decay steps, half the rate is left.

    Source: Robbins and Monro, 1951, whose conditions on the rates it meets; Bottou, "Stochastic
    gradient descent tricks", 2012, section 5.2.

    Examples
    --------
    >>> import numpy as np
    >>> [round(float(inverse_time(0.1, 0.01)(np.array(k))), 4) for k in (0.0, 100.0, 900.0)]
    [0.1, 0.05, 0.01]
    """
    lr, warmup = checked(lr, warmup)
    return warmed(_InverseTime(lr, real("decay", decay, 0.0)), lr, warmup)


def rate_after(lr: float | Schedule, level: Array | None, k: Array) -> Any:
    """Return the rate after k steps, at the level to which a plateau has lowered it."""
    rate = lr(k) if callable(lr) else lr
    return rate if level is None else rate * level


def checked(lr: float, warmup: int) -> tuple[float, int]:
    """Return the two settings of every schedule, or refuse them."""
    return real("lr", lr, *RATES), whole("warmup", warmup)


def warmed(schedule: Schedule, lr: float, warmup: int) -> Schedule:
    """Put the warmup before a schedule, if there is one."""
    return _Warm(schedule, lr, warmup) if warmup else schedule


# Classes and not closures: equal numbers make equal steps, which JAX compiles once, and a trainer
# with a schedule can be pickled.


@dataclass(frozen=True)
class _Constant:
    lr: float

    def __call__(self, k: Array) -> float:
        return self.lr


@dataclass(frozen=True)
class _StepDecay:
    lr: float
    every: int
    log: float

    def __call__(self, k: Array) -> Array:
        xp = namespace(k)
        # The 0.5 keeps k / every away from a whole number: XLA multiplies by a rounded reciprocal.
        return self.lr * xp.exp(xp.floor((k + 0.5) / self.every) * self.log)


@dataclass(frozen=True)
class _Exponential:
    lr: float
    rate: float

    def __call__(self, k: Array) -> Array:
        return self.lr * namespace(k).exp(k * self.rate)


@dataclass(frozen=True)
class _Cosine:
    lr: float
    steps: int
    end: float

    def __call__(self, k: Array) -> Array:
        xp = namespace(k)
        angle = at_most(k / self.steps, 1.0) * math.pi
        return (self.lr * self.end) + (0.5 * self.lr * (1.0 - self.end)) * (1.0 + xp.cos(angle))


@dataclass(frozen=True)
class _InverseTime:
    lr: float
    decay: float

    def __call__(self, k: Array) -> Array:
        return self.lr / (1.0 + self.decay * k)


@dataclass(frozen=True)
class _Warm:
    schedule: Schedule
    lr: float
    warmup: int

    def __call__(self, k: Array) -> Array:
        xp = namespace(k)
        warm = (k + 1.0) * (self.lr / self.warmup)
        return xp.where(k < self.warmup, warm, self.schedule(k - self.warmup))
