"""CUDA C that is compiled for each real dtype, and for each setting that its loops depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cupy
import numpy as np

from xpnet.backend.cuda.fuse import C_TYPES

__all__ = ["REALS", "Source", "launch"]

Array = Any
REALS = ("float32", "float64")
THREADS = 256  # at most, per block


class Source:
    """A kernel's source with the type T, compiled when it is first needed.

    Parameters
    ----------
    text, name : str
        The source, and the kernel in it.
    """

    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name
        self._kernels: dict[Any, Any] = {}

    def get(self, dtype: str, **settings: int | str) -> Any:
        """Return the kernel, or None if the dtype is neither float32 nor float64.

        Each of `settings` is a constant of the source.
        """
        key = dtype, *settings.items()
        if key not in self._kernels and dtype in REALS:
            constants = {"T": C_TYPES[dtype], **settings}
            lines = [f"#define {name} {value}\n" for name, value in constants.items()]
            self._kernels[key] = cupy.RawKernel("".join(lines) + self._text, self._name)
        return self._kernels.get(key)


def launch(
    source: Source,
    dtype: Any,
    count: int,
    arrays: tuple[Any, ...],
    numbers: Sequence[Any],
    settings: Mapping[str, int | str],
) -> None:
    """Launch a kernel of one thread for each of `count` elements.

    Its parameters are the arrays, the count, then the numbers. INDEX is the type of its indices:
    int if the elements of all arrays can be counted by it, since its divisions are faster.
    """
    small = max(count, *(a.size for a in arrays)) < 1 << 31
    kernel = source.get(dtype.name, INDEX="int" if small else "long long", **settings)
    threads = min(THREADS, 32 * -(-count // 32))
    kernel((-(-count // threads),), (threads,), (*arrays, np.int64(count), *numbers))
