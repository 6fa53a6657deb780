"""NumPy on the CPU, and array-api-strict, which is NumPy that allows the standard only."""

from __future__ import annotations

from functools import partial

import numpy as np
from array_api_compat import numpy as xp

from xpnet.backend.cpu import cpu_memory, cpu_name, keep_freed_memory
from xpnet.backend.interface import Backend, Prepare, Run, Step
from xpnet.backend.loop import gathering, on_rows, plain_loop

# A loss that overflows is reported by the trainer, with its step; NumPy need not warn too.
_quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")


def _take(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return array.take(rows, axis=0)


def _loop(step: Step, prepare: Prepare) -> Run:
    keep_freed_memory()
    return plain_loop(_quiet(on_rows(step, gathering(_take, prepare))), np.array)


def open(kind: str, index: int, precision: str = "float32") -> Backend:
    return Backend(
        library="numpy",
        version=np.__version__,
        device="cpu",
        device_name=cpu_name(),
        memory=cpu_memory(),
        xp=xp,
        asarray=np.asarray,
        to_numpy=np.array,
        loop=_loop,
        compile=_quiet,
    )


def open_strict(kind: str, index: int, precision: str = "float32") -> Backend:
    import array_api_strict as strict

    return Backend(
        library="strict",
        version=strict.__version__,
        device="cpu",
        device_name=cpu_name(),
        memory=cpu_memory(),
        xp=strict,
        asarray=strict.asarray,
        to_numpy=np.array,
        loop=lambda step, prepare: plain_loop(
            _quiet(on_rows(step, gathering(partial(strict.take, axis=0), prepare))),
            lambda losses: np.array(strict.stack(losses)),
        ),
        compile=_quiet,
    )
