"""``python -m xpnet.train``: from a data set to a trained network in a run folder.

Exit status: 0 done; 1 the result could not be written; 2 usage or bad data; 3 device; 4 the
target accuracy was missed; 5 the loss became infinite or NaN; 130 / 143 ended by SIGINT /
SIGTERM, saved.
"""

from __future__ import annotations

import json
import platform
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import xpnet
from xpnet import plots
from xpnet.backend import Backend, select
from xpnet.config import OPTIMIZERS, Config, parse, schedule_of, to_toml
from xpnet.errors import CheckpointError, DataError, DeviceError, NonFiniteLossError, UsageError
from xpnet.history import Epoch, History
from xpnet.models import mlp
from xpnet.parts import Parts, load_parts
from xpnet.trainer import Trainer

__all__ = ["build_trainer", "main"]


def build_trainer(config: Config, parts: Parts, backend: Backend) -> Trainer:
    """The network, optimizer and trainer that the settings ask for."""
    train = parts.train
    loss = config.loss
    if loss == "auto":
        loss = "squared" if train.classes is None else "softmax"
    if train.classes is None and loss != "squared":
        raise UsageError(f"--loss {loss} is for classes; a regression needs --loss squared")
    outputs = 1 if loss == "sigmoid" and train.outputs == 2 else train.outputs
    hidden = list(config.hidden)
    activation = (
        config.activation * len(hidden) if len(config.activation) == 1 else config.activation
    )
    network = mlp(
        [int(np.prod(train.x.shape[1:])), *hidden, outputs],
        list(activation),
        loss=loss,
        dropout=config.dropout,
        init=config.init,
        seed=config.seed,
    )
    steps = config.epochs * -(-len(train) // config.batch_size)
    decoupled = {"weight_decay": config.weight_decay} if config.optimizer == "adamw" else {}
    return Trainer(
        network,
        OPTIMIZERS[config.optimizer](lr=schedule_of(config, steps), **decoupled),
        backend=backend,
        dtype=config.dtype,
        scaling=train.scaling,
        weight_decay=0.0 if decoupled else config.weight_decay,
        clip_norm=config.clip_norm,
        seed=config.seed,
    )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM in a list; a second one ends the process at once."""
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        seen.append(number)
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Log:
    """The run's words on stdout and its metrics.jsonl."""

    def __init__(self, config: Config, folder: Path, metric: str) -> None:
        self.config, self.path, self.metric = config, folder / "metrics.jsonl", metric

    def say(self, text: str) -> None:
        if not self.config.quiet:
            tqdm.write(text)

    def write(self, epochs: Sequence[Epoch]) -> None:
        """Replace the file: one JSON object per epoch."""
        lines = "".join(json.dumps(self._fields(epoch)) + "\n" for epoch in epochs)
        _write(self.path, lines)

    def __call__(self, trainer: Trainer, epoch: Epoch) -> None:
        if self.path.exists():  # a run that was killed wrote epochs that are now done again
            kept = self.path.read_text().splitlines(keepends=True)[: epoch.epoch - 1]
        else:
            kept = []
        _write(self.path, "".join(kept) + json.dumps(self._fields(epoch)) + "\n")
        words = [f"epoch {epoch.epoch:3d}/{self.config.epochs}"]
        for name, value in self._fields(epoch).items():
            if name.startswith(("train_", "val_")) and value is not None:
                words.append(f"{name.replace('_', ' ')} {value:.4f}")
        self.say("  ".join([*words, f"{epoch.samples_per_second:,.0f} samples/s"]))

    def _fields(self, epoch: Epoch) -> dict[str, Any]:
        return {k.replace("score", self.metric): v for k, v in asdict(epoch).items()}


def _write(path: Path, text: str) -> None:
    """Whole or not at all, so that nobody reads half a file."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _folder(config: Config) -> Path:
    if config.resume is not None:
        return config.resume
    if config.out is None:
        name = config.dataset if config.data is None else config.data.stem
        return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if (config.out / "config.toml").exists():
        raise UsageError(
            f"--out {config.out}: holds a run already; go on with --resume, or name another"
        )
    return config.out


def _describe(config: Config, parts: Parts, trainer: Trainer) -> str:
    train = parts.train
    sizes = " + ".join(f"{len(part):,}" for part in parts if part is not None)
    names = "train + val + test" if parts.val is not None else "train + test"
    count = sum(p.size for p in trainer.network.params.values())
    spec = trainer.network.spec
    layers = " - ".join(map(str, spec["sizes"]))
    kinds = f"{len(train.classes)} classes" if train.classes is not None else "regression"
    source = config.dataset if config.data is None else str(config.data)
    return (
        f"data      {source}: {sizes} samples ({names}), {kinds}\n"
        f"network   {layers}, {', '.join(config.activation)}, {spec['loss']} loss, "
        f"{count:,} parameters\n"
        f"training  {config.optimizer}, {config.epochs} epochs, batch {config.batch_size}, "
        f"{config.dtype}\n"
        f"backend   {trainer.backend}"
    )


def _run(config: Config) -> int:
    if config.resume is not None and not (config.resume / "config.toml").exists():
        raise UsageError(f"--resume {config.resume}: is not the folder of a run")
    folder = _folder(config)
    if config.plot:
        plots.require()
    backend = select(
        config.device, None if config.backend == "auto" else config.backend, config.dtype
    )
    parts = load_parts(config)
    trainer = build_trainer(config, parts, backend)
    train, val, _ = parts
    metric = "accuracy" if train.classes is not None else "r2"
    if config.target_acc is not None and metric != "accuracy":
        raise UsageError("--target-acc needs classes; this is a regression")
    log = _Log(config, folder, metric)
    log.say(_describe(config, parts, trainer))
    if config.dry_run:
        return 0

    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "config.toml", to_toml(config))
    extra = {
        "classes": train.classes,
        "target_shift": np.asarray(train.target_scaling.shift).tolist(),
        "target_scale": np.asarray(train.target_scaling.scale).tolist(),
        "columns": train.columns,
        "label_column": train.label_column,
    }
    with _signals() as seen:
        history = trainer.fit(
            train.x,
            train.t,
            epochs=config.epochs,
            batch_size=config.batch_size,
            validation=None if val is None else (val.x, val.t),
            patience=config.patience,
            callbacks=[log],
            stop=lambda: bool(seen),
            folder=folder / "checkpoints",
            resume=config.resume is not None,
            extra=extra,
            progress=not config.quiet and sys.stderr.isatty(),
        )
    if history.reason == "stop":
        log.say(
            f"stopped in epoch {len(history.epochs) + 1}, step {len(history.losses)}, and saved; "
            f"go on with: python -m xpnet.train --resume {folder}"
        )
        return 128 + seen[0]
    return _finish(config, folder, trainer, parts, history, log, extra)


def _finish(
    config: Config,
    folder: Path,
    trainer: Trainer,
    parts: Parts,
    history: History,
    log: _Log,
    extra: dict[str, Any],
) -> int:
    """Test, and write model, metrics, summary and pictures."""
    result = trainer.evaluate(parts.test.x, parts.test.t)
    seconds = sum(epoch.seconds for epoch in history.epochs)
    summary = {
        **{f"test_{name}": value for name, value in result.items()},
        "epochs": len(history.epochs),
        "best_epoch": history.best_epoch or None,
        "ended_by": history.reason,
        "steps": len(history.losses),
        "train_seconds": seconds,
        "samples_per_second": len(parts.train) * len(history.epochs) / seconds,
        "backend": trainer.backend.library,
        "device": trainer.backend.device,
        "device_name": trainer.backend.device_name,
        "seed": config.seed,
        "versions": {
            "xpnet": xpnet.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            trainer.backend.library: trainer.backend.version,
        },
    }
    trainer.save(folder / "model.npz", extra)
    log.write(history.epochs)
    if config.plot:
        for path in plots.draw_all(folder, history, trainer, parts.test):
            log.say(f"drew      {path}")
    _write(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    if history.reason == "patience":
        log.say(f"stopped by --patience; the weights are those of epoch {history.best_epoch}")
    scores = ", ".join(f"{name} {value:.4f}" for name, value in result.items() if value is not None)
    log.say(f"test      {scores}\nrun       {folder}")
    accuracy = result.get("accuracy")
    if config.target_acc is not None and (accuracy is None or accuracy < config.target_acc):
        print(
            f"xpnet: test accuracy {accuracy:.4f}, the target was {config.target_acc}",
            file=sys.stderr,
        )
        return 4
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    warnings.showwarning = lambda message, *rest, **more: print(
        f"xpnet: warning: {message}", file=sys.stderr
    )
    try:
        config = parse(sys.argv[1:] if args is None else args)
        if config.print_config:
            sys.stdout.write(to_toml(config))
            return 0
        return _run(config)
    except (UsageError, DataError, CheckpointError, DeviceError, NonFiniteLossError) as error:
        print(f"xpnet: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"xpnet: cannot write the run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
