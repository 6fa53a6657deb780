"""A run on disk: what a checkpoint must hold for training to go on to the same bits."""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.errors import CheckpointError
from xpnet.models import checkpoint
from xpnet.trainer.history import History

if TYPE_CHECKING:
    from xpnet.trainer.trainer import Trainer

__all__ = ["SavedRun", "identity"]


def identity(trainer: Trainer, x: Any, t: np.ndarray, batch_size: int) -> dict[str, Any]:
    """What must not differ between a run and its continuation, comparable after JSON.

    The learning rate, its schedule, decay and clipping may: whoever changes them means to.
    Of the samples, 1,000 rows stand for all.
    """
    some = np.asarray(x[np.linspace(0, len(x) - 1, min(len(x), 1000)).astype(np.int64)])
    scalings = (*(trainer.feed.scaling or ()), *(trainer.feed.target_scaling or ()))
    scaling = b"".join(np.asarray(value, np.float64).tobytes() for value in scalings)
    network = trainer.network.spec or {
        name: list(p.shape) for name, p in trainer.network.params.items()
    }
    return {
        "network": network,
        "loss": type(trainer.network.loss_gate).__name__,
        "optimizer": type(trainer.optimizer).__name__,
        "samples": [list(x.shape), str(x.dtype), zlib.crc32(some.tobytes())],
        "scaling": zlib.crc32(scaling),
        "targets": zlib.crc32(t.tobytes()),
        "classes": None if trainer.classes is None else list(trainer.classes),
        "batch_size": batch_size,
        "seed": trainer.seed,
        "dtype": trainer.feed.dtype,
    }


@dataclass(frozen=True)
class SavedRun:
    """Saves and restores a trainer in the middle of its work; does nothing without a folder."""

    trainer: Trainer
    folder: str | Path | None
    identity: dict[str, Any]
    extra: Mapping[str, Any]

    def save(self, history: History, final: bool = False) -> None:
        """Write a checkpoint. A disk that is full costs the final one, no other: it warns."""
        if self.folder is None:
            return
        trainer = self.trainer
        arrays, meta = trainer.packed()
        if not all(np.isfinite(value).all() for value in arrays.values()):
            return  # the next step will say so; the checkpoints before stay
        past, course = history.pack()
        for name, value in trainer.state.items():
            arrays[f"state/{name}"] = trainer.backend.to_numpy(value)
        meta |= {"identity": self.identity, "history": course, "extra": dict(self.extra)}
        try:
            checkpoint.save_numbered(self.folder, len(history.losses), arrays | past, meta)
        except OSError as error:
            if final:
                raise
            warnings.warn(f"checkpoint not written, training goes on: {error}", stacklevel=3)

    def begin(self) -> History:
        """Refuse to train into the folder of another run, whose checkpoints would mix."""
        if self.folder is not None and checkpoint.numbered(self.folder):
            raise CheckpointError(
                f"{self.folder}: holds the checkpoints of another run; "
                "go on with it (resume=True), or name another folder"
            )
        return History()

    def restore(self) -> History:
        """Bring the trainer to where the newest checkpoint that verifies left it."""
        if self.folder is None or not checkpoint.numbered(self.folder):
            return History()
        arrays, meta, path, skipped = checkpoint.load_latest(self.folder)
        for error in skipped:
            warnings.warn(f"{error}; going on from {path.name}", stacklevel=3)
        if "identity" not in meta:
            raise CheckpointError(f"{path}: is a saved model, not the checkpoint of a run")
        then = {**meta["identity"], **meta["extra"]}
        now = json.loads(json.dumps({**self.identity, **self.extra}))  # tuples become lists
        changed = [_change(k, then.get(k), v) for k, v in now.items() if then.get(k) != v]
        if changed:
            raise CheckpointError(
                f"{path}: belongs to another run: {'; '.join(changed)}. "
                "Put that back, or start a new run"
            )
        trainer = self.trainer
        params, state = (checkpoint.section(arrays, f"{name}/") for name in ("params", "state"))
        for name, here in (("params", trainer.params), ("state", trainer.state)):
            kept = params if name == "params" else state
            if {k: v.shape for k, v in kept.items()} != {
                k: tuple(v.shape) for k, v in here.items()
            }:
                raise CheckpointError(f"{path}: its {name} do not fit this network and optimizer")
        trainer.params, trainer.state = trainer.feed.copies(params), trainer.feed.copies(state)
        try:
            return History.unpack(arrays, meta["history"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: its history cannot be read: {error}") from error


def _change(name: str, was: Any, now: Any) -> str:
    """What has changed, in the words of the settings where it has some."""
    if name in ("samples", "targets", "scaling"):
        return f"the {name} have changed" if name != "scaling" else "the scaling has changed"
    if isinstance(was, dict) and isinstance(now, dict):
        return "; ".join(_change(k, was.get(k), v) for k, v in now.items() if was.get(k) != v)
    return f"{name} was {was}, is {now}"
