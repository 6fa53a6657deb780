"""An array that counts what NumPy is asked to compute."""

from __future__ import annotations

from typing import Any

import numpy as np


class Counted(np.ndarray):
    """An array that counts the operations per element of NumPy's functions, comparisons apart."""

    count = 0

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(x) if isinstance(x, Counted) else x for x in inputs]
        out = options.pop("out", None)
        result = np.asarray(getattr(function, method)(*plain, **options))
        if result.dtype != bool:
            size = np.size(plain[0]) if method == "reduce" else result.size
            Counted.count += size
        if out:
            np.asarray(out[0])[...] = result
            return out[0]
        return result.view(Counted)

    def __array_function__(self, *call: Any) -> Any:
        return np.asarray(super().__array_function__(*call)).view(Counted)  # `where` forgets it
