"""A run on disk: what a checkpoint must hold for training to go on to the same bits."""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.arrays.ops import Array
from xpnet.errors import CheckpointError
from xpnet.models import checkpoint, schema
from xpnet.models.model import Model
from xpnet.optim import Optimizer
from xpnet.trainer.history import History

__all__ = ["SavedRun", "identity"]


def identity(
    model: Model, optimizer: Optimizer, x: Any, t: np.ndarray, batch_size: int, seed: int
) -> dict[str, Any]:
    """What must not differ between a run and its continuation, comparable after JSON.

    You may change the learning rate, its schedule, decay and clipping.
    It compares at most 1,000 evenly spaced rows of x.
    """
    some = np.asarray(x[np.linspace(0, len(x) - 1, min(len(x), 1000)).astype(np.int64)])
    scalings = (*(model.feed.scaling or ()), *(model.feed.target_scaling or ()))
    scaling = b"".join(np.asarray(value, np.float64).tobytes() for value in scalings)
    network = model.network.arguments or {
        name: list(p.shape) for name, p in model.network.params.items()
    }
    return {
        "network": network,
        "loss": type(model.network.loss_gate).__name__,
        "optimizer": type(optimizer).__name__,
        "samples": [list(x.shape), str(x.dtype), zlib.crc32(some.tobytes())],
        "scaling": zlib.crc32(scaling),
        "targets": zlib.crc32(t.tobytes()),
        "classes": None if model.classes is None else list(model.classes),
        "batch_size": batch_size,
        "seed": seed,
        "dtype": model.feed.dtype,
    }


@dataclass(frozen=True)
class SavedRun:
    """Saves a training in the middle of its work, and reads it back; without a folder, nothing."""

    folder: str | Path | None
    identity: dict[str, Any]
    extra: Mapping[str, Any]

    def save(
        self, model: Model, state: dict[str, Array], history: History, final: bool = False
    ) -> None:
        """Write a checkpoint, unless a parameter is not finite.

        If the disk is full during the training, a warning says so and the training goes on; for
        the final checkpoint, the error is raised.
        """
        if self.folder is None:
            return
        arrays, meta = model.packed()
        if not all(np.isfinite(value).all() for value in arrays.values()):
            return  # the next step will say so; the checkpoints before stay
        past, course = history.pack()
        for name, value in state.items():
            arrays[f"state/{name}"] = model.backend.to_numpy(value)
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

    def restore(
        self, params: dict[str, Array], state: dict[str, Array]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], History] | None:
        """(params, state, history) of the newest checkpoint that verifies; None without one.

        The arrays must have the shapes of those given.
        """
        if self.folder is None or not checkpoint.numbered(self.folder):
            return None
        arrays, meta, path, skipped = checkpoint.load_latest(self.folder, schema.load)
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
        found = {name: checkpoint.section(arrays, f"{name}/") for name in ("params", "state")}
        for name, here in (("params", params), ("state", state)):
            if _shapes(found[name]) != _shapes(here):
                raise CheckpointError(f"{path}: its {name} do not fit this network and optimizer")
        return found["params"], found["state"], History.unpack(arrays, meta["history"])


def _shapes(arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(a.shape) for name, a in arrays.items()}


def _change(name: str, was: Any, now: Any) -> str:
    """What has changed, in the words of the settings where it has some."""
    if name in ("samples", "targets", "scaling"):
        return f"the {name} have changed" if name != "scaling" else "the scaling has changed"
    if isinstance(was, dict) and isinstance(now, dict):
        return "; ".join(_change(k, was.get(k), v) for k, v in now.items() if was.get(k) != v)
    return f"{name} was {was}, is {now}"
