"""NumPy on the CPU; and array-api-strict, a NumPy that allows only the standard."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from array_api_compat import numpy as xp

from xpnet.backend.cpu import cpu_memory, cpu_name, keep_freed_memory
from xpnet.backend.interface import Array, Backend, Prepare, Run, Step
from xpnet.backend.loop import gathering, on_rows, plain_loop

# The trainer reports a loss that overflows, with its step, so NumPy need not warn.
_quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")


class NumPy(Backend):
    library = "numpy"
    xp: Any = xp

    def __init__(self, kind: str, index: int, precision: str = "float32") -> None:
        super().__init__(np.__version__, "cpu", cpu_name(), cpu_memory())

    def asarray(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(array)

    def loop(self, step: Step, prepare: Prepare) -> Run:
        keep_freed_memory()
        return plain_loop(_quiet(on_rows(step, gathering(_take, prepare))), np.array)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _quiet(function)


class Strict(Backend):
    library = "strict"

    def __init__(self, kind: str, index: int, precision: str = "float32") -> None:
        import array_api_strict

        self.xp = array_api_strict
        super().__init__(array_api_strict.__version__, "cpu", cpu_name(), cpu_memory())

    def asarray(self, array: np.ndarray) -> Array:
        return self.xp.asarray(array)

    def loop(self, step: Step, prepare: Prepare) -> Run:
        take = partial(self.xp.take, axis=0)
        return plain_loop(_quiet(on_rows(step, gathering(take, prepare))), self.xp.stack)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _quiet(function)


def _take(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return array.take(rows, axis=0)
