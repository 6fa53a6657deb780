"""``python -m xpnet.predict RUN_OR_CHECKPOINT FILE``: a trained network's answers, as CSV."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from xpnet import checkpoint
from xpnet.backend import select
from xpnet.data import Scaling
from xpnet.errors import CheckpointError, DataError, DeviceError, UsageError
from xpnet.readers import read_csv, read_idx, read_npy, read_npz
from xpnet.trainer import Trainer

__all__ = ["main"]


@dataclass(frozen=True)
class Arguments:
    """Predict with a trained network; one line of CSV per sample.

    For classes: the predicted one, then the probability of each (softmax and sigmoid loss).
    For a regression: the predicted values, in the units of the training data.
    """

    model: tyro.conf.Positional[Path]
    """Folder of a run, or a model.npz or checkpoint."""
    file: tyro.conf.Positional[Path]
    """.csv, .npz (its array x), .npy, or IDX images (.gz too)."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("-")
    """Where to write; - is the standard output."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto: cuda where it is usable."""
    backend: Literal["auto", "numpy", "cupy", "torch", "jax", "strict"] = "auto"
    """Array library; auto is numpy on the CPU and cupy on CUDA."""


def _model_file(path: Path) -> Path:
    """A run's finished model, or its newest checkpoint that verifies."""
    if not path.is_dir():
        return path
    if (path / "model.npz").exists():
        return path / "model.npz"
    return checkpoint.load_latest(path / "checkpoints")[2]


def _samples(file: Path, extra: dict[str, Any], features: int) -> Any:
    """The samples in a file. A CSV file may have the label column, or leave it out."""
    suffix = file.suffix.lower()
    if suffix == ".csv":
        table = read_csv(file, extra.get("label_column") or "-1", features)
        trained = tuple(extra.get("columns", ()))
        if table.columns and trained and table.columns != trained:
            raise DataError(
                f"{file}: got columns {', '.join(table.columns)}; "
                f"the network was trained on {', '.join(trained)}"
            )
        return table.x
    if suffix == ".npz":
        arrays = read_npz(file)
        for name in ("x", "X"):
            if name in arrays:
                return arrays[name]
        raise DataError(f"{file}: has {', '.join(arrays)}; expected an array named x")
    if suffix == ".npy":
        return read_npy(file)
    if suffix == ".gz" or "idx" in file.name:
        return read_idx(file)
    raise UsageError(f"{file}: expected a .csv, .npz, .npy or IDX file")


def _write(out: Path, header: list[str], rows: Any) -> None:
    def emit(stream: Any) -> None:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)

    if str(out) == "-":
        emit(sys.stdout)
        return
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as stream:
            emit(stream)
        temporary.replace(out)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def predict(arguments: Arguments) -> None:
    path = _model_file(arguments.model)
    arrays, meta = checkpoint.load(path)
    library = None if arguments.backend == "auto" else arguments.backend
    device = arguments.device
    backend = select(device, library, meta["dtype"])
    trainer = Trainer.unpacked(arrays, meta, path=path, backend=backend)
    extra = meta["extra"]
    sizes = trainer.network.spec["sizes"]
    x = _samples(arguments.file, extra, sizes[0])
    if not trainer.classifies:
        shift, scale = Scaling(
            np.asarray(extra.get("target_shift", 0.0)), np.asarray(extra.get("target_scale", 1.0))
        )
        values = trainer.scores(x).astype(np.float64) / scale + shift
        names = ["prediction"] if values.shape[1] == 1 else [
            f"prediction_{j}" for j in range(values.shape[1])
        ]  # fmt: skip
        _write(arguments.out, names, ([f"{v:.7g}" for v in row] for row in values))
        return
    scores = trainer.scores(x)
    gate = trainer.network.loss_gate
    chosen = gate.decide(scores)
    names = extra.get("classes") or [str(i) for i in range(max(sizes[-1], 2))]
    if not hasattr(gate, "probabilities"):
        _write(arguments.out, ["prediction"], ([names[i]] for i in chosen))
        return
    rows = (
        [names[i], *(f"{p:.6f}" for p in row)]
        for i, row in zip(chosen, gate.probabilities(scores), strict=True)
    )
    _write(arguments.out, ["prediction", *(f"p_{name}" for name in names)], rows)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command. Exit status: 0, 1 (cannot write), 2 (usage or bad data), 3 (device)."""
    try:
        predict(tyro.cli(Arguments, args=args, prog="python -m xpnet.predict"))
    except (UsageError, DataError, CheckpointError, DeviceError) as error:
        print(f"xpnet: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"xpnet: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
