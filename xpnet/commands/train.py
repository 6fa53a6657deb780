"""``python -m xpnet.train``: from a data set to a trained network in a run folder.

Exit status: 0 the run is complete; 1 a file cannot be read or written; 2 a wrong option or bad
data; 3 the device cannot be used; 4 the test accuracy is below --target-acc; 5 the loss became
infinite or NaN; 129 / 130 / 143 SIGHUP / SIGINT / SIGTERM stopped the run, which is saved.
"""

from __future__ import annotations

import itertools
import json
import platform
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import xpnet
from xpnet.commands.build import backend_of, build_trainer, class_weight_of, source_of
from xpnet.commands.config import PROG, Config, parse, settings_of, settled, to_toml
from xpnet.commands.exits import complain, emit, handling, run, say
from xpnet.commands.report import report
from xpnet.commands.splits import Parts, load_parts
from xpnet.data.description import aligned
from xpnet.data.user_files import layout
from xpnet.errors import CheckpointError, DataError, DeviceError, UsageError, listed
from xpnet.files import leftovers, locked, make_folder, remove, sync, write_whole
from xpnet.metrics import best_threshold
from xpnet.models import checkpoint
from xpnet.show import plots
from xpnet.trainer import words
from xpnet.trainer.history import Epoch, History, finite_or_none
from xpnet.trainer.trainer import Trainer

__all__ = ["build_trainer", "main"]

# The files and folders that a run may write into its folder.
FILES = (
    "config.toml", "checkpoints", "metrics.jsonl", "summary.json", "model.npz", "curves.png",
    "confusion.png", "roc.png", "precision_recall.png", "calibration.png", "mistakes.png",
    "predictions.png", "residuals.png", "weights.png", "activations.png",
)  # fmt: skip


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP in a list; a second one ends the process at once."""
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        seen.append(number)
        signal.signal(number, signal.SIG_DFL)

    with handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), note):
        yield seen


class _Log:
    """Print the run's progress on stdout and write its metrics.jsonl."""

    def __init__(self, config: Config, folder: Path, score: str) -> None:
        self.config, self.path = config, folder / "metrics.jsonl"
        assert config.epochs is not None  # settled
        self.lines = words.Log(self.say, config.epochs, score, config.metric)
        self.trimmed = False

    def say(self, *lines: str) -> None:
        if lines and not self.config.quiet:
            say(*lines)

    def write(self, epochs: Sequence[Epoch]) -> None:
        """Replace the file: one JSON object per epoch."""
        write_whole(self.path, "".join(map(self._line, epochs)))

    def __call__(self, trainer: Trainer, epoch: Epoch) -> None:
        try:
            self._append(epoch)
        except OSError as error:  # the whole file is written again at the end
            warnings.warn(f"cannot write the metrics; training continues: {error}", stacklevel=2)
        self.lines.epoch(trainer.backend, epoch)

    def _append(self, epoch: Epoch) -> None:
        if not self.trimmed and self.path.exists():
            # A killed run may have written epochs that this run repeats.
            lines = self.path.read_text("utf-8", errors="replace").splitlines(keepends=True)
            write_whole(self.path, "".join(lines[: epoch.epoch - 1]))
        self.trimmed = True
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(self._line(epoch))

    def _line(self, epoch: Epoch) -> str:
        found = words.fields(epoch, self.lines.score, self.config.metric)
        return json.dumps(found, allow_nan=False) + "\n"


def _check_folder(config: Config) -> None:
    """Refuse a folder with files that the run would overwrite."""
    if config.resume is not None or config.out is None:
        return
    held = [name for name in FILES if (config.out / name).exists()]
    if "config.toml" in held or "checkpoints" in held:
        raise UsageError(
            f"--out {config.out}: holds a run already; continue it with --resume, or name another "
            "folder"
        )
    if held:
        raise UsageError(
            f"--out {config.out}: has {', '.join(held)}, which the run would overwrite; "
            "name another folder"
        )


@contextmanager
def _claimed(config: Config) -> Iterator[Path]:
    """Lock the run's folder against other processes; remove a new folder that stays empty."""
    folder, made = (config.resume, []) if config.resume is not None else _new_folder(config)
    with locked(folder):  # if it is another process's, so are its folders, though still empty
        try:
            _check_folder(config)  # again: now nobody else can fill it
            for path in (path for name in FILES for path in leftovers(folder, name)):
                path.unlink(missing_ok=True)
            yield folder
        finally:
            for path in reversed(made):
                with suppress(OSError):  # it is not empty
                    path.rmdir()


def _new_folder(config: Config) -> tuple[Path, list[Path]]:
    """Return (folder, new folders on its path); a folder that xpnet names is always new."""
    if config.out is not None:
        return config.out, make_folder(config.out)
    name = config.dataset if config.data is None else config.data.stem[:40]
    first = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    made = make_folder(first.parent)
    for number in itertools.count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
        if new := make_folder(folder):
            return folder, [*made, *new]
    raise AssertionError  # count has no end


def _describe(config: Config, parts: Parts, trainer: Trainer) -> list[str]:
    train = parts.train
    sizes = " + ".join(f"{len(part):,}" for part in parts[:3] if part is not None)
    names = "train + val + test" if parts.val is not None else "train + test"
    kinds = f"{len(train.classes)} classes" if train.classes is not None else "regression"
    source = config.dataset if config.data is None else str(config.data)
    start = "" if config.init_from is None else f", from {config.init_from}"
    assert config.epochs is not None  # settled
    assert config.batch_size is not None
    return [
        f"data      {source}: {sizes} samples ({names}), {kinds}",
        *(f"          {note}" for note in (*train.notes, *parts.notes)),
        *(_labels(parts) if config.data is not None else ()),
        *_features(parts),
        words.network_line(trainer.network, start),
        words.training_line(
            trainer.optimizer, config.epochs, config.batch_size, trainer.feed.dtype,
            config.weight_decay,
        ),
        words.backend_line(trainer.backend),
    ]  # fmt: skip


def _features(parts: Parts) -> list[str]:
    """Say what becomes of a table's columns, or how images are taken."""
    if parts.encoder is None:
        words = layout(parts.train.x.shape)
        return [f"samples   {words}"] if words else []
    encoder = parts.encoder
    features = "1 feature" if encoder.width == 1 else f"{encoder.width:,} features"
    return [f"columns   {listed(encoder.columns, 10)}: {features}"]


def _labels(parts: Parts) -> list[str]:
    """Say which labels xpnet found in your own file, so that you can check them."""
    data = parts.train
    names = listed(data.classes or (), 10)
    if not data.label_column:
        return [f"labels    {names}"] if names else []
    header = "header line" if parts.encoder and parts.encoder.named else "no header line"
    column = listed([data.label_column])
    return [f"labels    column {column}{names and f': {names}'} ({header})"]


def _run(config: Config, prog: str) -> int:
    _check_folder(config)
    if config.plot:
        plots.require()
    source = source_of(config)
    backend = backend_of(config, config.dtype) if source is None else source.model.backend
    parts = load_parts(config, source and source.model)
    config = settled(config, len(parts.train))
    trainer = build_trainer(config, parts, backend, source)
    for option, value in (
        ("--target-acc", config.target_acc), ("--class-weight", config.class_weight),
    ):  # fmt: skip
        if value is not None and parts.train.classes is None:
            raise UsageError(f"{option} needs classes; this is a regression")
    class_weight_of(config, parts.train)
    if config.threshold == "F1" and parts.val is not None and not np.any(parts.val.t):
        raise UsageError("--threshold F1 needs samples of the second class in the validation part")
    if config.dry_run:
        say(*_describe(config, parts, trainer))
        if parts.columns:
            say("", *aligned(parts.columns))
        return 0
    with _claimed(config) as folder:
        return _train(config, prog, folder, parts, trainer)


def _train(config: Config, prog: str, folder: Path, parts: Parts, trainer: Trainer) -> int:
    train, val = parts.train, parts.val
    log = _Log(config, folder, "accuracy" if train.classes is not None else "r2")
    log.say(*_describe(config, parts, trainer))
    if config.resume is None:
        write_whole(folder / "config.toml", to_toml(config))
    extra = {
        "label_column": train.label_column,
        "id_column": train.id_column,
        "layout": None if train.layout is None else [*train.layout],
    }
    begun = False

    def stop() -> bool:
        """Say whether to stop, after each chunk of steps; the first chunk outdates the summary."""
        nonlocal begun
        if not begun:
            remove(folder / "summary.json")  # it says that the run is complete
            write_whole(folder / "config.toml", to_toml(config))
        begun = True
        return bool(seen)

    try:
        with _signals() as seen:
            history = trainer.fit(
                train.x,
                train.t,
                epochs=config.epochs,
                batch_size=config.batch_size,
                validation=None if val is None else (val.x, val.t),
                class_weight=class_weight_of(config, train),
                patience=config.patience,
                metric=config.metric,
                callbacks=[log],
                stop=stop,
                folder=folder / "checkpoints",
                resume=config.resume is not None,
                extra={**extra, "settings": settings_of(config)},
                progress=not config.quiet and sys.stderr.isatty(),
            )
    except (UsageError, DataError, CheckpointError, DeviceError, MemoryError, OSError):
        if config.resume is None and not begun:  # refused: the folder is free again
            for path in checkpoint.numbered(folder / "checkpoints"):
                path.unlink()
            with suppress(OSError):
                (folder / "checkpoints").rmdir()
            (folder / "config.toml").unlink()
        raise
    if seen:  # maybe after the last step, when fit looked no more: then all epochs are done
        epoch = len(history.epochs) + (history.reason == "stop")
        log.say(
            f"stopped in epoch {epoch}, step {history.steps}, and saved; "
            f"go on with: {prog} --resume {shlex.quote(str(folder))}"
        )
        return 128 + seen[0]
    if not begun:  # no step used the given settings: keep those of the run
        own = parse(["--resume", str(folder)], quiet=True)
        own = replace(own, threshold=config.threshold)  # which the model gets without a step
        write_whole(folder / "config.toml", to_toml(own))
        config = replace(own, plot=config.plot, quiet=config.quiet, target_acc=config.target_acc)
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
    """Test the model; write model, metrics, summary and pictures."""
    if config.threshold == "F1":
        assert parts.val is not None  # refused by `parse`
        probabilities = trainer.predict_proba(parts.val.x)
        trainer.model.threshold = best_threshold(parts.val.t, probabilities[:, 1])
    trainer.save(folder / "model.npz", extra)
    result = trainer.evaluate(parts.test.x, parts.test.t)
    seconds = sum(epoch.seconds for epoch in history.epochs)
    summary = {
        **{f"test_{name}": finite_or_none(value) for name, value in result.items()},
        **({} if trainer.model.threshold is None else {"threshold": trainer.model.threshold}),
        "epochs": len(history.epochs),
        "lr": config.lr,
        "best_epoch": history.best_epoch or None,
        "ended_by": history.reason,
        "steps": history.steps,
        "train_seconds": seconds,
        "samples_per_second": len(parts.train) * len(history.epochs) / seconds if seconds else None,
        "backend": trainer.backend.library,
        "precision": trainer.backend.precision,
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
    log.write(history.epochs)
    drawn = plots.draw_all(folder, history, trainer.model, parts.test) if config.plot else []
    for path in drawn:
        sync(path)
    text = json.dumps(summary, indent=2, allow_nan=False)
    write_whole(folder / "summary.json", text + "\n")
    if not log.trimmed:
        log.say(f"nothing left to train: {len(history.epochs)} epochs are done; see --epochs")
    log.lines.close(history)
    log.say(*words.ended(history))
    log.say(*report(trainer.model, parts.test.x, parts.test.t, result))
    log.say(*words.note_lines(history))
    for path in drawn:
        log.say(f"drew      {path}")
    log.say(f"run       {folder}")
    accuracy = result.get("accuracy")
    if config.target_acc is not None and (accuracy is None or accuracy < config.target_acc):
        complain(f"test accuracy {accuracy:.4f} is below the target {config.target_acc}")
        return 4
    return 0


def main(args: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run the command; return the exit status."""

    def command() -> int:
        config = parse(sys.argv[1:] if args is None else args, prog=prog)
        if config.print_config:
            emit(to_toml(config, getattr(sys.stdout, "encoding", None) or "utf-8"))
            return 0
        return _run(config, prog)

    return run(command)
