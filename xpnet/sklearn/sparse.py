"""Samples of a sparse matrix as a layer takes them on NumPy: never made dense."""

from __future__ import annotations

from typing import Any

from array_api_compat import numpy as np

__all__ = ["SparseSamples"]


class SparseSamples:
    """A SciPy matrix, shape=(N, D), with the little that an affine layer asks of its input.

    It can be multiplied from both sides, and a loop can take rows of it.
    """

    ndim = 2

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.shape, self.dtype = matrix.shape, matrix.dtype

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return _Functions

    def __array_ufunc__(self, ufunc: Any, method: str, a: Any, b: Any) -> Any:
        # The kernel of a step ends in NumPy's `matmul`.
        return _Functions.matmul(a, b) if ufunc.__name__ == "matmul" else NotImplemented

    @property
    def T(self) -> SparseSamples:  # noqa: N802
        return SparseSamples(self.matrix.T)

    def take(self, rows: Any, axis: int) -> SparseSamples:
        return SparseSamples(self.matrix[rows])

    def __getitem__(self, index: Any) -> SparseSamples:
        return SparseSamples(self.matrix[index[0] if isinstance(index, tuple) else index])


class _Functions:
    """The functions of `SparseSamples`'s namespace that layers and the graph call."""

    isdtype = staticmethod(np.isdtype)

    @staticmethod
    def matmul(a: Any, b: Any) -> Any:
        return (a.matrix if isinstance(a, SparseSamples) else a) @ b
