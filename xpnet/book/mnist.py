"""The book's MNIST (``dataset/mnist.py``), from the files that `xpnet.datasets` finds or downloads.

The files are read once per process: the bytes stay in memory, 55 MB, in place of the book's
``mnist.pkl``. Each call returns arrays of its own, so a script may change them.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np

from xpnet import datasets
from xpnet.arrays.ops import one_hot
from xpnet.data import Dataset
from xpnet.errors import DataError, UsageError, shown

__all__ = [
    "download_mnist",
    "img_dim",
    "img_size",
    "init_mnist",
    "load_mnist",
    "np",
    "test_num",
    "train_num",
]

train_num, test_num = 60000, 10000
img_dim, img_size = (1, 28, 28), 784

Part = tuple[np.ndarray, np.ndarray]


def load_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    *,
    folder: str | os.PathLike[str] | None = None,
) -> tuple[Part, Part]:
    """Return ((x_train, t_train), (x_test, t_test)), 60,000 and 10,000 images of digits.

    Parameters
    ----------
    normalize : bool
        Pixels from 0 to 1 in float32; else from 0 to 255 in uint8.
    flatten : bool
        Images of shape (N, 784); else (N, 1, 28, 28).
    one_hot_label : bool
        Labels as rows of float64, shape=(N, 10); else numbers in uint8, shape=(N,).
    folder : path, optional
        Where the four files are, gzipped or not. By default xpnet downloads them once into your
        cache folder, on Linux ``~/.cache/xpnet/mnist``. The book has no such argument.

    Raises
    ------
    DataError
        A file is missing or damaged, or no mirror has sent it in time.
    UsageError
        normalize, flatten or one_hot_label is not True or False: a path, say, without ``folder=``.

    Examples
    --------
    >>> (x_train, t_train), _ = load_mnist(one_hot_label=True)  # doctest: +SKIP
    >>> x_train.shape, t_train.shape  # doctest: +SKIP
    ((60000, 784), (60000, 10))
    """
    asked = {"normalize": normalize, "flatten": flatten, "one_hot_label": one_hot_label}
    for name, value in asked.items():
        if value not in (True, False):
            raise UsageError(
                f"{name} is {shown(value)}; expected True or False (for a folder, write "
                "load_mnist(folder=...))"
            )
    train, test = _read(None if folder is None else Path(folder).resolve())
    return (
        _as_asked(train, normalize, flatten, one_hot_label),
        _as_asked(test, normalize, flatten, one_hot_label),
    )


def init_mnist(*, folder: str | os.PathLike[str] | None = None) -> None:
    """Read the files, and download them if need be, so that `load_mnist` does not have to wait.

    Raises
    ------
    DataError
        As for `load_mnist`.
    """
    _read(None if folder is None else Path(folder).resolve())


def download_mnist() -> None:
    """Download the files into your cache folder, unless they are there; the same as `init_mnist`.

    Raises
    ------
    DataError
        As for `load_mnist`.
    """
    _read(None)


@functools.lru_cache(maxsize=1)
def _read(folder: Path | None) -> tuple[Dataset, Dataset]:
    try:
        train, test = datasets.load("mnist", folder)
    except DataError as error:
        # The words of the command line, in those of this function.
        words = str(error).replace("with --data-dir (in Python: data_dir=)", "as folder=...")
        raise DataError(words.replace("--data-dir", "folder")) from None
    assert test is not None
    return train, test


def _as_asked(data: Dataset, normalize: bool, flatten: bool, one_hot_label: bool) -> Part:
    x = np.array(data.x, np.float32 if normalize else np.uint8)  # a copy
    if normalize:
        np.divide(x, 255.0, out=x)
    t = one_hot(data.t, 10, np.float64) if one_hot_label else data.t.astype(np.uint8)
    return x if flatten else x.reshape(-1, *img_dim), t
