"""A run on disk: checkpoints from which a training continues with bit-identical results."""

from __future__ import annotations

import itertools
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.arrays.ops import Array
from xpnet.backend.interface import Backend
from xpnet.data.augmentation import Augmentation
from xpnet.data.dataset import Rows, in_several_files
from xpnet.errors import CheckpointError, one_line
from xpnet.files import locked, make_folder
from xpnet.models import checkpoint, schema
from xpnet.models.model import Model
from xpnet.optim import Optimizer, Watch
from xpnet.trainer.history import History, finite_or_none

__all__ = ["WORDS", "SavedRun", "digest", "identity", "optimizer_state", "rules"]

# Data of up to WHOLE bytes are compared completely, in blocks that fit the CPU's cache: this takes
# 0.1 to 0.4 s. Larger data, which may still be on a disk, are compared in PIECES pieces.
WHOLE, BLOCK = 256 << 20, 512 << 10
PIECES, PIECE = 1024, 16 << 10
# Two learning-rate schedules count as equal if they agree at these steps.
STEPS = (0, 10, 100, 1000, 10_000)
# Messages for values of `identity` that are checksums.
WORDS = {
    "samples": "the samples have changed",
    "targets": "the targets have changed",
    "validation": "the validation set has changed",
    "sample_weight": "the sample weights have changed",
    "scaling": "the scaling has changed",
}


def identity(
    model: Model,
    optimizer: Optimizer,
    x: Any,
    t: np.ndarray,
    *,
    validation: tuple[Any, np.ndarray] | None = None,
    sample_weight: np.ndarray | None = None,
    batch_size: int,
    seed: int,
    augmentation: Augmentation | None = None,
) -> dict[str, Any]:
    """Return what a run and its continuation must have in common, as values that JSON can hold."""
    network = model.network
    shapes = {name: list(p.shape) for name, p in network.params.items()}
    scalings = (*(model.feed.scaling or ()), *(model.feed.target_scaling or ()))
    return {
        "network": network.arguments or shapes,
        "gates": network.gates,
        "optimizer": type(optimizer).__name__,
        "samples": digest(x),
        "targets": digest(t),
        "validation": None if validation is None else [*map(digest, validation)],
        "sample_weight": None if sample_weight is None else digest(sample_weight),
        "scaling": [digest(np.atleast_1d(np.asarray(v, np.float64))) for v in scalings],
        "classes": model.classes,
        "columns": model.columns,
        "batch_size": batch_size,
        "seed": seed,
        "augment": None if augmentation is None else str(augmentation),
        "dtype": model.feed.dtype,
    }


def rules(
    optimizer: Optimizer,
    backend: Backend,
    *,
    weight_decay: float,
    l1: float,
    clip_norm: float | None,
) -> dict[str, Any]:
    """Return the numbers of an update, which you may change when you resume a run."""
    settings = dict(getattr(optimizer, "__dict__", {}))
    if callable(lr := settings.pop("lr", optimizer.lr)):
        steps = [backend.asarray(np.asarray(step, np.float32)) for step in STEPS]
        rates = [float(lr(step)) for step in steps]
        settings[f"lr at the steps {STEPS}"] = [finite_or_none(float(f"{r:.6g}")) for r in rates]
    else:
        settings["lr"] = float(lr)
    if (watch := Watch.of(lr)) is not None:
        settings |= {f"plateau's {k}": v for k, v in asdict(watch.schedule).items() if k != "lr"}
    plain = {k: v for k, v in settings.items() if isinstance(v, int | float | str | list)}
    return {"optimizer": plain, "weight_decay": weight_decay, "l1": l1, "clip_norm": clip_norm}


def optimizer_state(
    arrays: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    optimizer: Optimizer,
    state: Mapping[str, Array],
) -> dict[str, np.ndarray] | None:
    """Return the optimizer state of a checkpoint, if this optimizer can go on with it; else None.

    The rule must be the same, the state must have the shapes of `state`, and the rate must be a
    number: a schedule counts its steps from 0, and the state from the step of the checkpoint.
    """
    found = _state(arrays, state)
    same = meta.get("identity", {}).get("optimizer") == type(optimizer).__name__
    if not same or callable(optimizer.lr) or _shapes(found) != _shapes(state):
        return None
    return None if _negative(found, optimizer) else found


def _state(arrays: Mapping[str, np.ndarray], here: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """Return the state of a checkpoint; the level of a plateau comes and goes with the schedule."""
    found = checkpoint.section(arrays, "state/")
    level = found.pop("level", np.ones(()))
    return {**found, "level": level} if "level" in here else found


def _negative(state: Mapping[str, np.ndarray], optimizer: Any) -> str:
    """Return the name of a sum of squares that is negative; "" if there is none."""
    squares = getattr(optimizer, "squares", ())
    for name, array in state.items():
        if name.rpartition(".")[2] in squares and (array < 0).any():
            return name
    return ""


def digest(x: Any) -> list[Any]:
    """Return shape, dtype and checksum; of a large array, only evenly spaced pieces count."""
    if isinstance(x, Rows):
        return [*digest(x.array), *digest(x.rows)]
    several = in_several_files(x)
    if not several:
        x = np.asarray(x)  # a memory-mapped file stays on disk
    sample = max(1, x.nbytes // len(x))
    height = max(1, (BLOCK if x.nbytes <= WHOLE else PIECE) // sample)
    starts = np.arange(0, len(x), height)
    if x.nbytes > WHOLE:
        count = max(2, min(PIECES, PIECE * PIECES // sample))
        starts = np.linspace(0, len(x) - height, count).astype(np.int64)
    checksum = 0
    for start in starts:
        piece = np.ascontiguousarray(x[start : start + height])
        checksum = zlib.crc32(piece.data, checksum)
    # The same samples in one file have another order of batches.
    return [list(x.shape), str(x.dtype), checksum, *(["lanes"] if several else [])]


@dataclass
class SavedRun:
    """Save a running training and read it back; without a folder, do nothing."""

    folder: str | Path | None
    identity: dict[str, Any]
    rules: dict[str, Any]
    extra: Mapping[str, Any]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and lock it against other processes while the block runs.

        Raises
        ------
        UsageError
            Another process holds the folder.
        """
        if self.folder is None:
            yield
            return
        made = make_folder(self.folder)
        with locked(self.folder):  # if it is another process's, so are its folders
            try:
                yield
            finally:
                for folder in reversed(made):  # a refused run leaves no empty folder
                    with suppress(OSError):
                        folder.rmdir()

    def save(
        self, model: Model, state: dict[str, Array], history: History, required: bool = False
    ) -> None:
        """Write a checkpoint.

        If the system cannot write it, for example because the disk is full, `save` warns and the
        training continues. If the checkpoint is required (the first and the last one), `save`
        raises the OSError.
        """
        if self.folder is None:
            return
        arrays, meta = model.packed()
        past, course = history.pack()
        for name, value in state.items():
            arrays[f"state/{name}"] = model.backend.to_numpy(value)
        meta |= {"identity": self.identity, "rules": self.rules, "history": course}
        meta = checkpoint.plain(meta | {"extra": dict(self.extra)})
        schema.check(arrays | past, meta, self.folder)
        try:
            checkpoint.save_numbered(self.folder, history.steps, arrays | past, meta)
        except OSError as error:
            if required:
                raise
            warnings.warn(f"cannot write a checkpoint; training continues: {error}", stacklevel=3)

    def begin(self) -> History:
        """Return a new history; refuse a folder that holds the checkpoints of another run."""
        if self.folder is not None:
            # A checkpoint of step 0 holds no work: its run ended in its first step.
            steps = [path.name for path in checkpoint.numbered(self.folder)]
            if [name for name in steps if name != "step-00000000.npz"]:
                raise CheckpointError(
                    f"{self.folder}: holds the checkpoints of another run; "
                    "continue it (resume=True), or name another folder"
                )
        return History()

    def restore(
        self, params: dict[str, Array], state: dict[str, Array], optimizer: Optimizer
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], History] | None:
        """Return (params, state, history) of the newest valid checkpoint; None if there is none.

        The stored arrays must have the shapes of `params` and `state`, and the optimizer's sums of
        squares no negative value. `restore` prints each number of the update that has changed.

        Raises
        ------
        CheckpointError
            No checkpoint is valid, or the newest valid one belongs to another run.
        """
        if self.folder is None or not checkpoint.numbered(self.folder):
            return None
        arrays, meta, path, skipped = checkpoint.load_latest(self.folder, schema.load)
        for error in skipped:
            warnings.warn(f"{error}; going on from {path.name}", stacklevel=3)
        if "identity" not in meta:
            raise CheckpointError(f"{path}: is a saved model, not the checkpoint of a run")
        if not meta["rules"]:
            raise CheckpointError(
                f"{path}: is of a version before 0.2.0: its model can be used, but its training "
                "cannot go on"
            )
        if changed := self._changes(meta["identity"]):
            raise CheckpointError(
                f"{path}: belongs to another run: {changed}. Put that back, or start a new run"
            )
        found = {"params": checkpoint.section(arrays, "params/"), "state": _state(arrays, state)}
        for name, here in (("params", params), ("state", state)):
            if _shapes(found[name]) != _shapes(here):
                raise CheckpointError(f"{path}: its {name} do not fit this network and optimizer")
        if name := _negative(found["state"], optimizer):
            raise CheckpointError(f"{path}: {name} is negative; expected a sum of squares")
        then = {"l1": 0.0, **meta["rules"]}  # before 0.3.0, there was none
        if changed := _change("", then, checkpoint.plain(self.rules)):
            # The user asked for this change, so it is no warning.
            with suppress(OSError, ValueError):  # a full or closed stderr must not stop the run
                words = f"{path}: going on with other settings: {changed}"
                print(f"xpnet: {one_line(words)}", file=sys.stderr)
        return found["params"], found["state"], History.unpack(arrays, meta["history"])

    def _changes(self, then: dict[str, Any]) -> str:
        """Return how this run differs from the saved one; "" if it does not."""
        now = checkpoint.plain(self.identity)
        # You may leave out the validation set and give it again later: keep the old digest.
        kept = now["validation"] or then.get("validation")
        self.identity = {**self.identity, "validation": kept}
        if not then.get("validation"):
            then = {**then, "validation": kept}
        if now["network"] != then.get("network"):  # then the gates differ too: report one change
            then = {**then, "gates": now["gates"]}
        return _change("", then, {**now, "validation": kept})


def _shapes(arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(a.shape) for name, a in arrays.items()}


def _change(name: str, was: Any, now: Any) -> str:
    """Return what has changed, as text for the user; "" if nothing has."""
    if was == now:
        return ""
    if isinstance(was, dict) and isinstance(now, dict):
        parts = (_change(key, was.get(key), now.get(key)) for key in was | now)
        return "; ".join(filter(None, parts))
    if name == "gates" and isinstance(was, list) and isinstance(now, list):
        was, now = next(p for p in itertools.zip_longest(was, now) if p[0] != p[1])
    return WORDS.get(name, f"{name} was {was}, is {now}")
