"""Damaged data files: CSV, plain and gzipped, NPZ, NPY, IDX; their headers above all.

Each is refused with DataError or UsageError, in one line, in a second and 500 MB, or is read as
samples and targets that are finite and as many as each other; of a table, once it is encoded.
"""

from __future__ import annotations

import functools
import gzip
import io
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from campaign import Broken, Trial, answer, damaged, run

from xpnet.data.dataset import Dataset
from xpnet.data.encoder import Encoder
from xpnet.data.readers import read_idx
from xpnet.data.table import Table
from xpnet.data.user_files import load_file
from xpnet.errors import DataError, UsageError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((30, 4)).astype(np.float32)
T = RNG.integers(0, 3, 30)
CELLS = (
    "", "nan", "NA", "?", "inf", "-inf", "1e999", "1_0", "0x1", "٣", "\ufeff1", '"', '"a,b"', "'",
    "\0", "1" * 5000, "x" * 200_000, "true", "1e-320", "--1", "1 2", ";", "\t", "\r", "\n\n",
    "é", "=1+1", "\x1b[2J", "a\u2028b", "\u202e1",
)  # fmt: skip
HEADERS = (
    "'|O'", "'<M8[s]'", "'<c8'", "'S0'", "'V8'", "'<U9'", "'<f2'", "[('a','<f4')]", "'<f16'",
    "None",
)  # fmt: skip
SHAPES = (
    "(True,True)", "(10**12,)", "(-1,4)", "(0,0)", "(0,10**18)", "()", "(120,)", "(30,4,1)",
    "(2.0,)", "(30,4),", "((30,4),)", "None", "(4,30)", "(9999999999999999999999,)",
)  # fmt: skip
NAMES = ("\n", "\x1b[2J", "\r", "\u202e", "é" * 30_000)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def idx(array: np.ndarray) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@functools.cache
def intact(kind: str) -> bytes:
    match kind:
        case "npy":
            return npy(X)
        case "npz" | "packed npz":
            with io.BytesIO() as file:
                (np.savez if kind == "npz" else np.savez_compressed)(file, x=X, t=T)
                return file.getvalue()
        case "idx":
            return idx(np.random.default_rng(0).integers(0, 256, (20, 28, 28)))
        case "idx.gz":
            return gzip.compress(intact("idx"))
        case "csv.gz":
            return gzip.compress(intact("csv"))
    rows = ["a,b,c,d,class", *(",".join(map(str, [*x, t])) for x, t in zip(X, T, strict=True))]
    return "\n".join(rows).encode()


def lying(kind: str, trial: Trial) -> bytes:
    """A file whose form is right, and whose header or cells are not."""
    if kind == "csv.gz":
        return gzip.compress(lying("csv", trial))
    if kind == "csv":
        lines = intact(kind).decode().split("\n")
        for _ in range(trial.rng.integers(1, 4)):
            row = int(trial.rng.integers(len(lines)))
            cells = lines[row].split(",")
            cells[trial.rng.integers(len(cells))] = trial.one_of(*CELLS)
            lines[row] = trial.one_of(",", ",", ",", ";").join(cells)
        return trial.one_of("\n", "\r\n", "\r").join(lines).encode()
    if kind.startswith("idx"):
        shape = [trial.one_of(0, 1, 20, 28, 2**31, 2**32 - 1) for _ in range(trial.rng.integers(5))]
        head = bytes([0, 0, trial.one_of(8, 8, 8, 9, 13), len(shape)])
        body = head + struct.pack(f">{len(shape)}I", *shape) + intact("idx")[16:]
        return body if kind == "idx" else gzip.compress(body)
    member = lying_npy(trial)
    if kind == "npy":
        return member
    way = zipfile.ZIP_STORED if kind == "npz" else zipfile.ZIP_DEFLATED
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", way) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are there twice
            archive.writestr(trial.one_of("x.npy", "t.npy", "X.npy", *NAMES), member)
            archive.writestr(trial.one_of("t.npy", "x.npy", "../t.npy", *NAMES), npy(T))
        return file.getvalue()


def lying_npy(trial: Trial) -> bytes:
    descr = trial.one_of("'<f4'", "'<f4'", *HEADERS)
    shape = trial.one_of("(30,4)", *SHAPES)
    order = trial.one_of("False", "False", "True", "2", "None")
    text = f"{{'descr':{descr},'fortran_order':{order},'shape':{shape}}}\n".encode()
    version, size = trial.one_of(b"\1\0", b"\2\0", b"\3\0", b"\7\0"), len(text)
    length = struct.pack("<H" if version == b"\1\0" else "<I", trial.one_of(size, size, 65535))
    return b"\x93NUMPY" + version + length + text + X.tobytes()


def loader(kind: str, path: Path) -> Callable[[], Any]:
    """The reader of a kind of file."""
    if kind.startswith("idx"):
        return lambda: read_idx(path)
    if kind != "npy":
        return lambda: encoded(load_file(path))
    labels = path.with_name("t.npy")
    labels.write_bytes(npy(T))
    return lambda: load_file(path, labels=labels)


def encoded(data: Dataset) -> Dataset:
    if not isinstance(data.x, Table):
        return data
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the encoder knows every value of these rows
        return replace(data, x=Encoder.of(data.x).encode(data.x))


def attempt(trial: Trial) -> Iterator[str]:
    kind = trial.one_of("csv", "csv.gz", "npz", "packed npz", "npy", "idx", "idx.gz")
    promise = f"a damaged {kind} file is refused or read"
    content = lying(kind, trial) if trial.rng.random() < 0.5 else damaged(intact(kind), trial)
    path = trial.folder / f"data.{kind.split()[-1]}"
    path.write_bytes(content)
    data = answer(promise, loader(kind, path), DataError, UsageError)
    if not isinstance(data, Exception | np.ndarray):
        if len(data.x) != len(data.t):
            raise Broken(promise, f"is read as {len(data.x)} samples and {len(data.t)} targets")
        if not (np.isfinite(data.x).all() and np.isfinite(data.t).all()):
            raise Broken(promise, "is read as numbers that are not finite")
    yield promise


if __name__ == "__main__":
    sys.exit(run(attempt))
