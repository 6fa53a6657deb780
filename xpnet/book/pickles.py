"""The book's files of parameters: a pickled dict of arrays."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np

from xpnet.arrays.ops import Array
from xpnet.data.checks import host
from xpnet.errors import DataError
from xpnet.files import replacing

__all__ = ["load", "save"]

# What a pickled array is made of; older versions of NumPy have no underscore in the module's name.
_MODULES = ("numpy", "numpy._core.multiarray", "numpy.core.multiarray", "numpy._core.numeric",
            "numpy.core.numeric")  # fmt: skip
_NAMES = {
    *((module, name) for module in _MODULES for name in
      ("ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer")),
    ("collections", "OrderedDict"),
}  # fmt: skip


def _latin1(text: str, encoding: str) -> bytes:
    """Do what ``_codecs.encode`` does in protocols 0 to 2, which have no bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it names the codec {encoding}; expected arrays alone")
    return text.encode("latin-1")


class _ArraysOnly(pickle.Unpickler):
    """Any other name could run a program: a pickle may come from anywhere."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it names {module}.{name}; expected arrays alone")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def save(path: str | PathLike[str], params: Mapping[str, Array]) -> None:
    """Write parameters into a file that the book's scripts can read.

    Examples
    --------
    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "params.pkl")
    >>> save(path, {"b1": np.zeros(2)})
    >>> load(path)
    {'b1': array([0., 0.])}
    """
    arrays = {
        name: host(p.detach() if getattr(p, "requires_grad", False) else p, name)
        for name, p in params.items()
    }
    with replacing(path) as file:
        pickle.dump(arrays, file)


def load(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Read a file of the book or of `save`. It can hold arrays only; others are refused.

    Raises
    ------
    DataError
        The file is no pickle, or holds anything but a dict of arrays.
    """
    try:
        with open(path, "rb") as file:
            params = _ArraysOnly(file, encoding="latin1").load()  # also those of Python 2
    except OSError:
        raise
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise DataError(f"{path} is no file of parameters: {error}") from error
    arrays = isinstance(params, dict) and all(isinstance(p, np.ndarray) for p in params.values())
    if not arrays:
        raise DataError(f"{path} holds {type(params).__name__}; expected a dict of arrays")
    for name, p in params.items():
        if p.dtype.kind not in "fiub":
            raise DataError(f"{path} holds {name} of dtype {p.dtype}; expected real numbers")
    return dict(params)
