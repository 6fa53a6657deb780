"""Data sets by name: digits is built in; xpnet downloads mnist and fashion-mnist once."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import threading
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.data.checks import check_features, check_targets
from xpnet.data.dataset import Dataset, Scaling
from xpnet.data.readers import idx_shape, read_idx, read_npz
from xpnet.errors import DataError, UsageError, shown
from xpnet.files import make_folder, replacing

__all__ = ["NAMES", "load"]

NAMES = ("digits", "mnist", "fashion-mnist")

_PARTS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
          "t10k-labels-idx1-ubyte")  # fmt: skip
# Mirrors, then per file: size and SHA-256 of the .gz as published by the mirrors.
_SOURCES: dict[str, tuple[tuple[str, ...], tuple[tuple[int, str], ...]]] = {
    "mnist": (
        (
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        (
            (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
    ),
    "fashion-mnist": (
        (
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        (
            (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
    ),
}
# A download may take START seconds, and one more for every SLOWEST bytes of the published size.
START, SLOWEST = 60.0, 50_000
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
            "Bag", "Ankle boot")  # fmt: skip


def load(
    name: str = "digits", data_dir: str | os.PathLike[str] | None = None
) -> tuple[Dataset, Dataset | None]:
    """Load a data set by name: its training part, and its test part if it comes with one.

    Parameters
    ----------
    name : str
        "digits" (built in: 1,797 images of 8 x 8, no test part of its own), "mnist" or
        "fashion-mnist" (60,000 + 10,000 of 28 x 28).
    data_dir : path, optional
        Folder with the four IDX files, gzipped or not, under their published names or as
        ``train-images.idx3-ubyte``. By default xpnet downloads them once into your cache folder,
        from the first mirror that answers, and checks them.

    Returns
    -------
    train : Dataset
    test : Dataset or None

    Raises
    ------
    UsageError
        An unknown name.
    DataError
        A file is missing or damaged, or no mirror has sent it in time.

    Examples
    --------
    >>> data, test = load("digits")
    >>> data.x.shape, data.classes[:3], test
    ((1797, 64), ('0', '1', '2'), None)
    """
    if name == "digits":
        with resources.as_file(resources.files("xpnet.datasets") / "digits.npz") as path:
            arrays = read_npz(path)
        digits = tuple("0123456789")
        t = arrays["labels"].astype(np.int32)
        return Dataset(arrays["images"], t, digits, Scaling(0.0, 1 / 16), (8, 8)), None
    if name not in _SOURCES:
        raise UsageError(f"dataset {shown(name)}: expected one of {', '.join(NAMES)}")
    paths = _find(Path(data_dir)) if data_dir is not None else _download(name)
    classes = tuple("0123456789") if name == "mnist" else _FASHION
    train, test = (_images(x, t, classes) for x, t in (paths[:2], paths[2:]))
    return train, test


def _images(images: Path, labels: Path, classes: tuple[str, ...]) -> Dataset:
    shape, (n, *more) = idx_shape(images), idx_shape(labels)
    if shape[1:] != (28, 28):
        raise DataError(f"{images}: got images of shape {shape[1:]}, expected (28, 28)")
    if more or n != shape[0]:
        raise DataError(f"{labels}: got labels of shape {(n, *more)}, expected ({shape[0]},)")
    x, t = read_idx(images), read_idx(labels)
    check_features(x, str(images))
    check_targets(t, len(x), len(classes), "probabilities", str(labels))
    return Dataset(
        x.reshape(len(x), 784), t.astype(np.int32), classes, Scaling(0.0, 1 / 255), (28, 28)
    )


def _find(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"--data-dir {folder}: is not a folder")
    paths = []
    for part in _PARTS:
        dotted = part.replace("-idx", ".idx")  # as 7-Zip unpacks it
        names = (f"{part}.gz", part, f"{dotted}.gz", dotted)
        found = [folder / name for name in names if (folder / name).is_file()]
        if not found:
            raise DataError(f"--data-dir {folder}: has no {part}.gz; expected {', '.join(_PARTS)}")
        paths.append(found[0])
    return paths


# -- Downloads -----------------------------------------------------------------------------


def _download(name: str) -> list[Path]:
    import pooch  # here: it costs as much to import as all the rest

    mirrors, files = _SOURCES[name]
    folder = Path(pooch.os_cache("xpnet")) / name
    paths = []
    for part, (size, sha256) in zip(_PARTS, files, strict=True):
        path = folder / f"{part}.gz"
        if not (path.is_file() and path.stat().st_size == size and _sha256(path) == sha256):
            _store(_fetched([mirror + path.name for mirror in mirrors], size, sha256), path)
        paths.append(path)
    return paths


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetched(urls: list[str], size: int, sha256: str) -> bytes:
    """The content of a file from the first of `urls` that sends it whole, unaltered, in time."""
    failures = []
    for url in urls:
        try:
            content = _received(url, size)
            if hashlib.sha256(content).hexdigest() == sha256:
                return content
            raise ValueError
        except Exception as error:  # requests' and urllib3's own too; the next mirror may do
            kind = type(error).__name__
            reason = {
                "ConnectionError": "not reachable",
                "ConnectTimeout": "no answer",
                "ReadTimeout": "no answer",
                "TimeoutError": "too slow",
                "ValueError": "not the published content",
            }.get(kind, kind)
            code = getattr(getattr(error, "response", None), "status_code", None)
            failures.append(f"{url.split('/')[2]}: {f'HTTP {code}' if code else reason}")
    raise DataError(
        f"{urls[0].rsplit('/', 1)[1]} could not be downloaded ({', '.join(failures)}); "
        "give the folder of the four files with --data-dir (in Python: data_dir=), or use the "
        "data set digits"
    )


class _Body(io.BytesIO):
    """What a server has sent, in memory: after a kill, no temporary file is left.

    Raises ValueError when it grows beyond `limit` bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.limit:
            raise ValueError
        return super().write(data)


def _received(url: str, size: int) -> bytes:
    """What a server sends, at most `size` bytes in the time that START and SLOWEST allow.

    The thread lets us give up on a server that sends a byte now and then, in the headers too;
    the time-outs of sockets start again with every byte.
    """
    import pooch

    body = _Body(size)
    responses: list[Any] = []
    errors: list[Exception] = []

    def accept(response: Any, **_: Any) -> None:
        responses.append(response)
        if response.is_redirect:  # no mirror needs one, and requests would read its whole body
            raise ValueError

    receive = pooch.HTTPDownloader(
        progressbar=sys.stderr is not None and sys.stderr.isatty(),
        chunk_size=1 << 16,
        timeout=30,
        hooks={"response": accept},
    )

    def work() -> None:
        try:
            receive(url, body, None)
        except Exception as error:
            errors.append(error)
        finally:
            for response in responses:
                response.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        thread.join(START + size / SLOWEST)
        if thread.is_alive():
            raise TimeoutError
    finally:
        body.limit = 0  # ends the thread at the next byte, also after Ctrl-C
    if errors:
        raise errors.pop()
    return body.getvalue()


def _store(content: bytes, path: Path) -> None:
    """Write a file of the cache, whole or not at all."""
    make_folder(path.parent)
    with replacing(path) as file:
        file.write(content)
