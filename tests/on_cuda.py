"""What the tests of CuPy share; CuPy is imported where it is used."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

from xpnet.arrays.dispatch import with_kernels
from xpnet.backend import Backend
from xpnet.backend.loop import gathering, on_rows, plain_loop

PAGE = (Path(__file__).resolve().parents[1] / "docs/gpu.md").read_text()


def rows_of(heading: str) -> list[list[str]]:
    """The table in docs/gpu.md whose first column has this heading."""
    table = PAGE.split(f"| {heading} |")[1].split("\n\n")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]
    ]


def taking(prepare: Any) -> Any:
    """CuPy's own gather, array by array."""
    import cupy

    return gathering(lambda array, rows: cupy.take(array, rows, axis=0), prepare)


def changed(backend: Backend, **attributes: Any) -> Backend:
    """A copy with other attributes or methods."""
    other = copy(backend)
    vars(other).update(attributes)
    return other


def uncaptured(backend: Backend) -> Backend:
    """The same kernels, one after the other."""
    import cupy

    def loop(step: Any, prepare: Any, agree: Any = None) -> Any:
        return plain_loop(
            with_kernels(on_rows(step, taking(prepare)), backend.kernels),
            lambda losses: cupy.asnumpy(cupy.stack(losses)),
            agree,
        )

    return changed(backend, loop=loop)


# Shapes of images and filters, stride, padding, dilation.
CONVOLUTIONS = [
    ((5, 2, 6, 7), (3, 2, 3, 3), (1, 1), (0, 0), (1, 1)),
    ((5, 2, 6, 7), (3, 2, 3, 3), (1, 1), (1, 1), (1, 1)),
    ((2, 1, 9, 8), (4, 1, 3, 2), (2, 3), (2, 1), (2, 1)),
    ((3, 4, 5, 5), (2, 4, 1, 1), (1, 1), (0, 0), (1, 1)),
    ((3, 4, 5, 5), (2, 4, 1, 1), (2, 2), (1, 1), (1, 1)),
    ((1, 1, 4, 4), (1, 1, 4, 4), (1, 1), (0, 0), (1, 1)),
    ((2, 2, 7, 7), (2, 2, 2, 2), (3, 3), (0, 0), (1, 1)),  # pixels that no window sees
]
