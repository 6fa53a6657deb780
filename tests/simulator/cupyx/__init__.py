"""Simulated, as `cupy` beside it."""

import numpy as _np


def empty_pinned(shape, dtype=float, order="C"):
    return _np.empty(shape, dtype, order)
