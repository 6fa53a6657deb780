"""Initial weights, drawn on the host from one seeded NumPy Generator.

So a seed gives the same weights on every library and device. All functions return float64 arrays,
shape (fan_in, fan_out) unless you pass another `shape`; training in float32 rounds them. For
filters of shape (F, C, KH, KW), fan_in is C·KH·KW, and fan_out is F·KH·KW.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from xpnet.backend.cpu import cpu_memory
from xpnet.errors import UsageError, real, shown

__all__ = ["check_count", "check_memory", "he", "initializer", "normal", "xavier"]


def check_memory(sizes: Sequence[int]) -> None:
    """Refuse layers whose parameters this machine cannot hold, before any is drawn.

    Parameters
    ----------
    sizes : sequence of int
        Units of the input, the hidden layers and the output.

    Raises
    ------
    MemoryError
        See `check_count`.
    """
    count = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))
    check_count(count, f"layers of {', '.join(map(str, sizes))} units have")


def check_count(parameters: int, who: str) -> None:
    """Refuse so many parameters if this machine cannot hold them; `who` begins the message.

    The system would end the process without a word when the memory is used up.

    Raises
    ------
    MemoryError
        The parameters and their gradients, in float64, need more than all of the memory.
    """
    needed, memory = 16 * parameters, cpu_memory()
    if memory and needed > memory:
        raise MemoryError(
            f"{who} {parameters:,} parameters; with their gradients they need "
            f"{needed / 2**30:,.0f} GiB, of {memory / 2**30:,.0f} GiB"
        )


Shape = tuple[int, ...] | None


def normal(
    rng: np.random.Generator, fan_in: int, fan_out: int, shape: Shape = None, std: float = 0.01
) -> np.ndarray:
    """W ~ N(0, std²). The books start with std = 0.01, which is too small for deep networks."""
    return std * rng.standard_normal(shape or (fan_in, fan_out))


def xavier(rng: np.random.Generator, fan_in: int, fan_out: int, shape: Shape = None) -> np.ndarray:
    r"""W ~ N(0, 2 / (fan_in + fan_out)), for sigmoid, tanh and no activation.

    It keeps the variance of activations and gradients about equal from layer to layer.
    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward
    neural networks", 2010, eq. 12. (The book's "Xavier" is the one-sided 1 / fan_in.)
    """
    return math.sqrt(2.0 / (fan_in + fan_out)) * rng.standard_normal(shape or (fan_in, fan_out))


def he(rng: np.random.Generator, fan_in: int, fan_out: int, shape: Shape = None) -> np.ndarray:
    """W ~ N(0, 2 / fan_in), for ReLU, which sets half of its inputs to 0.

    Source: He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015, eq. 10.
    """
    return math.sqrt(2.0 / fan_in) * rng.standard_normal(shape or (fan_in, fan_out))


def initializer(
    name: str | float, activation: str
) -> Callable[[np.random.Generator, int, int, Shape], np.ndarray]:
    """Return the function for "he", "xavier", a standard deviation, or "auto".

    "auto" is he before a rectifier (relu, leaky_relu), else xavier.

    Raises
    ------
    UsageError
        The name is unknown, or the standard deviation is not a finite number >= 0.
    """
    if isinstance(name, int | float):
        std = real("init", name, 0.0)
        return lambda rng, fan_in, fan_out, shape: normal(rng, fan_in, fan_out, shape, std)
    if name == "auto":
        name = "he" if activation in ("relu", "leaky_relu") else "xavier"
    functions = {"he": he, "xavier": xavier}
    if name not in functions:
        raise UsageError(
            f"init is {shown(name)}; expected auto, he, xavier or a standard deviation"
        )
    return functions[name]
