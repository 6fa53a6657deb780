"""Model files and checkpoints that are damaged, also with a checksum that is right again.

Each is refused with CheckpointError, in one line, in a second and 500 MB; what a right checksum
makes loadable answers with finite numbers, and a training goes on from it or refuses.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import math
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
from campaign import SCRATCH, Broken, Trial, answer, damaged, run

import xpnet
from xpnet.data import Encoder
from xpnet.data.table import Column, Table
from xpnet.errors import CheckpointError, DataError, UsageError
from xpnet.models import checkpoint

RNG = np.random.default_rng(0)
N = 40
X = Table(
    (
        Column("age", np.where(RNG.random(N) < 0.1, np.nan, RNG.normal(40, 10, N))),
        Column("sex", values=("f", "m"), codes=RNG.integers(-1, 2, N).astype(np.int32)),
        Column("alone", (RNG.random(N) < 0.5).astype(np.float64), boolean=True),
        Column("cabin", np.full(N, np.nan)),
        Column("port", values=(*"abcdef",), codes=(np.arange(N) % 6).astype(np.int32)),
    )
)
T = ["yes" if chosen else "no" for chosen in RNG.random(N) < 0.5]
ENCODER = Encoder.of(X, most=3)
# What JSON may hold in place of what belongs there.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 10**9, 2**63, 10**30, 0.5, -0.0, 1e308, "", "relu", "mlp",
    "é\n", [], [[]], [1], ["a"], [10**9, 10**9], {}, {"a": 1}, "../../etc/passwd", "x" * 10_000,
    "number", "categories", "left out", ["f", "f"], ["f", "m"], "age", 1e-320, "f1",
)  # fmt: skip
DTYPES = ("f4", "f8", "f2", ">f4", "i4", "i8", "u1", "?", "c8", "S3", "U2", "M8[s]", "V4")

LOADING: tuple[type[Exception], ...] = (CheckpointError,)
# What can be loaded may be of another network, for other samples or of another loss.
ANSWERING = (CheckpointError, DataError, UsageError)


def trainer() -> xpnet.Trainer:
    network = xpnet.mlp([ENCODER.width, 4, 2], dropout=0.1)
    return xpnet.Trainer(network, xpnet.optim.Adam(0.01), encoder=ENCODER)


@functools.cache
def intact(kind: str) -> bytes:
    """A saved model, or the checkpoint of a run."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        if kind == "model":
            trained = trainer()
            trained.fit(X, T, epochs=1)
            trained.model.threshold = 0.25
            trained.save(f"{folder}/model.npz")
            return Path(folder, "model.npz").read_bytes()
        trainer().fit(X, T, epochs=2, validation=(X, T), patience=1, metric="f1", folder=folder)
        return checkpoint.numbered(Path(folder))[0].read_bytes()


def signed(body: bytes) -> bytes:
    """A body with a right checksum."""
    return body + checkpoint.MAGIC + hashlib.sha256(body).digest()


def rewritten(content: bytes, trial: Trial) -> bytes:
    """A file that another program could have written: other meta data, or another array."""
    with np.load(io.BytesIO(content)) as archive:
        members = dict(archive)
    meta = json.loads(members.pop("meta").tobytes())
    name = trial.one_of(*members)
    if trial.rng.random() < 0.5:
        replace_one(meta, trial)
    else:
        members = altered(members, name, trial)
    text = json.dumps(meta).encode()
    with io.BytesIO() as file:
        np.savez(file, **members, meta=np.frombuffer(text, np.uint8))
        return signed(file.getvalue())


def replace_one(tree: Any, trial: Trial) -> None:
    """Put another value at a random place of nested dicts and lists, or take one away."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = trial.one_of(*keys)
    if isinstance(tree[key], dict | list) and tree[key] and trial.rng.random() < 0.7:
        replace_one(tree[key], trial)
    elif trial.rng.random() < 0.2:
        del tree[key]
    else:
        tree[key] = trial.one_of(*VALUES)


def altered(members: dict[str, Any], name: str, trial: Trial) -> dict[str, Any]:
    """Arrays of which one has another name, type, shape or value, or is missing."""
    members, array, rng = dict(members), members[name], trial.rng
    match rng.integers(5):
        case 0:
            del members[name]
        case 1:
            members[trial.one_of("x", "params/", "params/W9", "state/", "é", "a/b/c")] = array
        case 2:
            dtype = np.dtype(trial.one_of(*DTYPES))
            members[name] = np.zeros(array.shape, dtype)
        case 3:
            members[name] = np.resize(array, rng.integers(0, 4, size=rng.integers(0, 4)))
        case _:
            values = np.array(array, copy=True).reshape(-1)
            if values.size:
                with np.errstate(all="ignore"):
                    bad = trial.one_of(math.nan, math.inf, -math.inf, 1e300, -1.0, 0.0)
                    values[rng.integers(values.size)] = np.array(bad).astype(values.dtype)
            members[name] = values.reshape(array.shape)
    return members


def answers(path: Path) -> Any:
    """What a model says about some samples."""
    model = xpnet.Model.load(path)
    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of texts and gaps that the training did not have
        model.predict(X)
        return model.predict_proba(X) if model.classifies else model.predict(X)


def goes_on(path: Path) -> Any:
    """A training that goes on from a checkpoint."""
    return trainer().fit(
        X, T, epochs=3, validation=(X, T), patience=1, metric="f1", folder=path.parent, resume=True
    )


def attempt(trial: Trial) -> Iterator[str]:
    which, way = trial.one_of("model", "checkpoint"), trial.one_of("damaged", "signed", "rewritten")
    content, errors = intact(which), LOADING if way == "damaged" else ANSWERING
    if way == "damaged":
        kind = f"a damaged {which} is refused"
        content = damaged(content, trial)
    else:
        kind = f"a {way} {which} is refused or answers"
        if way == "signed":
            content = signed(damaged(content[: -checkpoint.FOOTER], trial))
        else:
            content = rewritten(content, trial)
    path = trial.folder / "step-00000099.npz"
    path.write_bytes(content)
    value = answer(kind, lambda: answers(path), *errors)
    if way == "damaged" and not isinstance(value, Exception) and content != intact(which):
        raise Broken(kind, f"is taken: {value!r}")
    if isinstance(value, np.ndarray) and not np.isfinite(value).all():
        raise Broken(kind, "loads, and predicts what is not finite")
    yield kind
    if which == "checkpoint" and trial.rng.random() < 0.2:
        kind = f"training goes on from a {way} checkpoint or refuses"
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            answer(kind, lambda: goes_on(path), CheckpointError, ArithmeticError)
        yield kind


if __name__ == "__main__":
    sys.exit(run(attempt))
