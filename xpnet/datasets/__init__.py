"""Data sets by name (digits, mnist, fashion-mnist), and data sets from a user's own files."""

from __future__ import annotations

import hashlib
import os
from importlib import resources
from pathlib import Path

import numpy as np

from xpnet.data import Dataset, Scaling, check_features, check_numbers, check_targets
from xpnet.errors import DataError, UsageError
from xpnet.readers import Table, read_csv, read_idx, read_npy, read_npz

__all__ = ["NAMES", "load", "load_file"]

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
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
            "Bag", "Ankle boot")  # fmt: skip


def load(
    name: str = "digits", data_dir: str | os.PathLike[str] | None = None
) -> tuple[Dataset, Dataset | None]:
    """A data set by name: its training part, and its test part if it comes with one.

    Parameters
    ----------
    name : str
        "digits" (built in: 1,797 images of 8 x 8, no test part of its own), "mnist" or
        "fashion-mnist" (60,000 + 10,000 of 28 x 28).
    data_dir : path, optional
        Folder with the four IDX files, gzipped or not. By default they are downloaded once
        into the user's cache folder, from the first mirror that answers, and checked.

    Returns
    -------
    train : Dataset
    test : Dataset or None

    Raises
    ------
    UsageError
        An unknown name.
    DataError
        A file is missing or damaged, or no mirror could be reached.
    """
    if name == "digits":
        with resources.as_file(resources.files("xpnet.datasets") / "digits.npz") as path:
            arrays = read_npz(path)
        digits = tuple("0123456789")
        t = arrays["labels"].astype(np.int32)
        return Dataset(arrays["images"], t, digits, Scaling(0.0, 1 / 16), (8, 8)), None
    if name not in _SOURCES:
        raise UsageError(f"--dataset {name!r}: expected one of {', '.join(NAMES)}")
    paths = _find(Path(data_dir)) if data_dir is not None else _download(name)
    classes = tuple("0123456789") if name == "mnist" else _FASHION
    train, test = (_images(x, t, classes) for x, t in (paths[:2], paths[2:]))
    return train, test


def _images(images: Path, labels: Path, classes: tuple[str, ...]) -> Dataset:
    x, t = read_idx(images), read_idx(labels)
    if x.shape[1:] != (28, 28):
        raise DataError(f"{images}: got images of shape {x.shape[1:]}, expected (28, 28)")
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
        found = [path for path in (folder / f"{part}.gz", folder / part) if path.is_file()]
        if not found:
            raise DataError(f"--data-dir {folder}: has no {part}.gz; expected {', '.join(_PARTS)}")
        paths.append(found[0])
    return paths


def _download(name: str) -> list[Path]:
    import pooch  # here: it costs as much to import as all the rest

    mirrors, files = _SOURCES[name]
    folder = Path(pooch.os_cache("xpnet")) / name
    paths = []
    for part, (size, sha256) in zip(_PARTS, files, strict=True):
        path = folder / f"{part}.gz"
        if not (path.is_file() and path.stat().st_size == size and _sha256(path) == sha256):
            _fetch(pooch, [mirror + path.name for mirror in mirrors], path, size, sha256)
        paths.append(path)
    return paths


def _fetch(pooch: object, urls: list[str], path: Path, size: int, sha256: str) -> None:
    """Retrieve a file from the first of `urls` that has it, whole and unaltered."""
    import sys

    failures = []
    for url in urls:
        downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=30)  # type: ignore[attr-defined]
        try:
            pooch.retrieve(  # type: ignore[attr-defined]
                url, f"sha256:{sha256}", path.name, path.parent, downloader=downloader
            )
            if path.stat().st_size != size:
                raise ValueError(f"got {path.stat().st_size} bytes, expected {size}")
            return
        except Exception as error:  # requests', urllib3's and pooch's own; the next mirror may do
            reason = str(error).splitlines()[0]
            failures.append(f"{url}: {reason[:160]}")
    raise DataError(
        f"{path.name} could not be downloaded ({'; '.join(failures)}); "
        "give its folder with --data-dir, or use --dataset digits"
    )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_file(
    path: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    label_column: str | None = None,
    task: str = "auto",
    classes: tuple[str, ...] | None = None,
    resident_bytes: int | None = None,
) -> Dataset:
    """A data set from a user's file.

    Parameters
    ----------
    path : path
        ``.npz`` with arrays ``x`` and ``t`` (or ``X`` and ``y``); ``.npy`` with the samples,
        beside `labels`; ``.csv`` with a label column.
    labels : path, optional
        ``.npy`` with one target per sample, or a row of them.
    label_column : str, optional
        Of a CSV file: its name or number; by default the last one.
    task : {"auto", "classification", "regression"}
        "auto": integer and text labels are classes, others are regression targets.
    classes : tuple of str, optional
        The classes of the data set that this one belongs to: labels outside are refused.
    resident_bytes : int, optional
        A larger ``.npy`` stays on disk, memory-mapped, and is read batch by batch; by
        default a quarter of the machine's memory.

    Raises
    ------
    DataError, UsageError
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if labels is not None and suffix != ".npy":
        raise UsageError(f"--labels goes with --data X.npy, not with {path.name}")
    if label_column is not None and suffix != ".csv":
        raise UsageError(f"--label-column goes with a .csv file, not with {path.name}")
    if suffix == ".csv":
        table = read_csv(path, "-1" if label_column is None else label_column)
        t, classes = _csv_targets(table, task, path, classes)
        return Dataset(table.x, t, classes, columns=table.columns, label_column=table.label_column)
    if suffix == ".npz":
        arrays = read_npz(path)
        x, x_name = _named(arrays, ("x", "X"), path)
        t, t_name = _named(arrays, ("t", "y"), path)
        x_name, t_name = f"{path}: {x_name}", f"{path}: {t_name}"
    elif suffix == ".npy":
        if labels is None:
            raise UsageError(
                f"{path.name} needs a .npy file with its targets: --labels, or --test-labels"
            )
        x, t = read_npy(path, resident_bytes), read_npy(labels)
        x_name, t_name = str(path), str(labels)
    else:
        raise UsageError(f"--data {path}: expected a .npz, .npy or .csv file")
    check_features(x, x_name)
    t, classes = _array_targets(t, len(x), task, t_name, classes)
    image = (x.shape[1], x.shape[2]) if x.ndim == 3 else None
    scaling = Scaling(0.0, 1 / 255) if x.dtype == np.uint8 else Scaling()
    return Dataset(x, t, classes, scaling, image)


def _named(
    arrays: dict[str, np.ndarray], names: tuple[str, ...], path: Path
) -> tuple[np.ndarray, str]:
    for name in names:
        if name in arrays:
            return arrays[name], name
    have = ", ".join(arrays) or "nothing"
    raise DataError(f"{path}: has {have}; expected an array named {' or '.join(names)}")


def _array_targets(
    t: np.ndarray, n: int, task: str, name: str, classes: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    check_numbers(t, name)
    if len(t) != n:
        raise DataError(f"{name}: got {len(t)} targets for {n} samples, expected one each")
    if t.ndim > 2:
        raise DataError(f"{name}: got shape {t.shape}, expected one target or one row a sample")
    if task == "auto":
        task = "regression" if t.dtype.kind == "f" else "classification"
    if task == "regression":
        return _columns(t), None
    if t.ndim == 2 and t.shape[1] > 1:  # one-hot rows
        if classes is not None and t.shape[1] != len(classes):
            raise DataError(f"{name}: got rows of {t.shape[1]}, expected {len(classes)} classes")
        check_targets(t, n, t.shape[1], "probabilities", name)
        return np.argmax(t, axis=1).astype(np.int32), tuple(map(str, range(t.shape[1])))
    t = t.reshape(n)
    if (bad := (t != np.floor(t)) | (t < 0)).any():
        row = int(np.argmax(bad))
        raise DataError(f"{name}: row {row}: got {t[row]}, expected a class index, 0 or more")
    highest = int(t.max())
    if classes is None:
        _check_class_count(np.unique(t).size, highest + 1, n, name)
        classes = tuple(map(str, range(highest + 1)))
    elif highest >= len(classes):
        row = int(np.argmax(t))
        raise DataError(f"{name}: row {row}: got {t[row]}, expected 0 to {len(classes) - 1}")
    return t.astype(np.int32), classes


def _csv_targets(
    table: Table, task: str, path: Path, classes: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    labels = table.labels or []
    name = f"{path}: column {table.label_column}"
    try:
        numbers = np.array([float(label) for label in labels])
    except ValueError:
        if task == "regression":
            raise DataError(f"{name}: got text, expected numbers for a regression") from None
        numbers = None
    if numbers is not None and not np.isfinite(numbers).all():
        numbers = None if task == "classification" else numbers
    if task == "auto":
        whole = numbers is not None and (numbers == np.floor(numbers)).all()
        task = "classification" if numbers is None or whole else "regression"
    if task == "regression":
        assert numbers is not None
        check_numbers(numbers, name)
        return _columns(numbers), None
    if numbers is not None:  # 1 and 1.0 are one class, and 10 comes after 9
        labels = [str(int(v)) if v.is_integer() else repr(v) for v in numbers.tolist()]
    if classes is None:
        classes = tuple(sorted(set(labels), key=None if numbers is None else float))
        _check_class_count(len(classes), len(classes), len(labels), name)
    index = {label: i for i, label in enumerate(classes)}
    for row, label in enumerate(labels):
        if label not in index:
            known = ", ".join(classes)
            raise DataError(f"{name}: row {row}: got {label!r}, expected one of {known}")
    return np.array([index[label] for label in labels], np.int32), classes


def _columns(t: np.ndarray) -> np.ndarray:
    return t.reshape(len(t), -1).astype(np.float64)


def _check_class_count(distinct: int, classes: int, n: int, name: str) -> None:
    """Numbers that were meant as regression targets make absurdly many classes."""
    if distinct < 2:
        raise DataError(f"{name}: got {distinct} class, expected at least two")
    if distinct > max(20, n // 2) or classes > max(1000, n):
        raise DataError(
            f"{name}: got {distinct} distinct labels up to class {classes - 1} in {n} rows; "
            "for a regression, say --task regression"
        )
