"""A run on disk: what a checkpoint must hold for training to go on to the same bits."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet import checkpoint
from xpnet.errors import CheckpointError
from xpnet.history import History

if TYPE_CHECKING:
    from xpnet.trainer import Trainer

__all__ = ["Run", "identity"]


def identity(trainer: Trainer, x: Any, t: np.ndarray, batch_size: int) -> dict[str, Any]:
    """What must not differ between a run and its continuation, comparable after JSON."""
    return {
        "network": {name: list(p.shape) for name, p in trainer.network.params.items()},
        "optimizer": type(trainer.optimizer).__name__,
        "samples": [list(x.shape), str(x.dtype)],
        "targets": zlib.crc32(t.tobytes()),
        "batch_size": batch_size,
        "seed": trainer.seed,
        "dtype": trainer.feed.dtype,
    }


@dataclass(frozen=True)
class Run:
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

    def restore(self) -> History:
        """Bring the trainer to where the newest checkpoint that verifies left it."""
        if self.folder is None or not checkpoint.numbered(self.folder):
            return History()
        arrays, meta, path, skipped = checkpoint.load_latest(self.folder)
        for error in skipped:
            warnings.warn(f"{error}; going on from {path.name}", stacklevel=3)
        for name, value in self.identity.items():
            if (was := meta["identity"].get(name)) != value:
                raise CheckpointError(f"{path}: was made with {name} = {was}, this run has {value}")
        trainer = self.trainer
        trainer.params = trainer.feed.copies(checkpoint.section(arrays, "params/"))
        trainer.state = trainer.feed.copies(checkpoint.section(arrays, "state/"))
        return History.unpack(arrays, meta["history"])
