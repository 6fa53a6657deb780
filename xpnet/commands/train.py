"""``python -m xpnet.train``: from a data set to a trained network in a run folder.

Exit status: 0 the run is complete; 1 a file cannot be read or written; 2 a wrong option or bad
data; 3 the device cannot be used; 4 the test accuracy is below --target-acc; 5 the loss became
infinite or NaN, in a sweep that of every network; 6 one of several ranks was lost; 129 / 130 /
138 / 143 SIGHUP / SIGINT / SIGUSR1 / SIGTERM stopped the run, which is saved.
"""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from xpnet.backend.local import in_words, place_of
from xpnet.commands.build import backend_of, build_trainer, check_fits, class_weight_of, source_of
from xpnet.commands.config.defaults import of_model, settled
from xpnet.commands.config.parsing import PROG, parse
from xpnet.commands.config.settings import Config
from xpnet.commands.config.toml import settings_of, to_toml
from xpnet.commands.exits import complain, emit, run_on_ranks, say
from xpnet.commands.folder import check_folder, claimed, signals
from xpnet.commands.report import epoch_record, report, summary_of
from xpnet.commands.several import is_sweep
from xpnet.commands.splits import Parts, data_lines, load_parts
from xpnet.data.augmentation import Augmentation
from xpnet.data.description import aligned
from xpnet.errors import CheckpointError, DataError, DeviceError, RankError, UsageError
from xpnet.files import remove, sync, write_whole
from xpnet.metrics import best_threshold
from xpnet.models import checkpoint
from xpnet.parallel import Group
from xpnet.show import plots
from xpnet.trainer import words
from xpnet.trainer.history import Epoch, History
from xpnet.trainer.trainer import Trainer

__all__ = ["build_trainer", "main"]


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
        self.lines.epoch(trainer, epoch)

    def _append(self, epoch: Epoch) -> None:
        if not self.trimmed and self.path.exists():
            # A killed run may have written epochs that this run repeats.
            lines = self.path.read_text("utf-8", errors="replace").splitlines(keepends=True)
            write_whole(self.path, "".join(lines[: epoch.epoch - 1]))
        self.trimmed = True
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(self._line(epoch))

    def _line(self, epoch: Epoch) -> str:
        return epoch_record(epoch, self.lines.score, self.config.metric)


def _describe(config: Config, parts: Parts, trainer: Trainer) -> list[str]:
    start = "" if config.init_from is None else f", from {config.init_from}"
    assert config.epochs is not None  # settled
    assert config.batch_size is not None
    return [
        *data_lines(config, parts),
        words.network_line(trainer.network, start),
        words.training_line(
            trainer.optimizer, config.epochs, config.batch_size, trainer.feed.dtype,
            config.weight_decay, config.l1, Augmentation.of(config.augment),
        ),
        words.backend_line(trainer.backend, trainer.group.size),
        *_places(trainer),
    ]  # fmt: skip


# Of more ranks, the description names only the first.
SHOWN_RANKS = 8


def _places(trainer: Trainer) -> list[str]:
    """Say which rank has which GPU."""
    group = trainer.group
    if group.size == 1 or trainer.backend.device == "cpu":
        return []
    places = group.gather(place_of(trainer.backend))
    more = f" and {group.size - SHOWN_RANKS:,} more" if group.size > SHOWN_RANKS else ""
    return [f"ranks     {in_words(places[:SHOWN_RANKS])}{more}"]


def _run(config: Config, prog: str, group: Group) -> int:
    group.first(lambda: check_folder(config))
    if config.plot:
        plots.require()
    config, parts, trainer = group.together(lambda: _built(config, group))
    if config.dry_run:
        say(*_describe(config, parts, trainer))
        if parts.columns:
            say("", *aligned(parts.columns))
        return 0
    with ExitStack() as stack:
        folder = group.first(lambda: stack.enter_context(claimed(config)))
        return _train(config, prog, folder, parts, trainer)


def _built(config: Config, group: Group) -> tuple[Config, Parts, Trainer]:
    """Load the data, and build what is trained on it."""
    source = source_of(config, group)
    backend = source.model.backend if source else backend_of(config, config.dtype, group)
    parts = load_parts(config, source and source.model, group)
    if source is not None:
        config = of_model(config, source.model.network)
    config = settled(config, len(parts.train))
    trainer = build_trainer(config, parts, backend, source, group)
    check_fits(config, parts)
    return config, parts, trainer


def _train(config: Config, prog: str, folder: Path, parts: Parts, trainer: Trainer) -> int:
    train, val = parts.train, parts.val
    group = trainer.group
    writes = group.rank == 0
    log = _Log(config, folder, "accuracy" if train.classes is not None else "r2")
    log.say(*_describe(config, parts, trainer))
    if config.resume is None:
        group.first(lambda: write_whole(folder / "config.toml", to_toml(config)))
    extra = {
        "label_column": train.label_column,
        "id_column": train.id_column,
        "layout": None if train.layout is None else [*train.layout],
    }
    begun = False

    def stop() -> bool:
        """Say whether to stop, after each chunk of steps; the first chunk outdates the summary."""
        nonlocal begun
        if writes and not begun:
            remove(folder / "summary.json")  # it says that the run is complete
            write_whole(folder / "config.toml", to_toml(config))
        begun = True
        return bool(seen)

    try:
        with signals() as seen:
            history = trainer.fit(
                train.x,
                train.t,
                epochs=config.epochs,
                batch_size=config.batch_size,
                validation=None if val is None else (val.x, val.t),
                class_weight=class_weight_of(config, train),
                patience=config.patience,
                metric=config.metric,
                callbacks=[log] if writes else [],
                stop=stop,
                folder=folder / "checkpoints",
                resume=config.resume is not None,
                extra={**extra, "settings": settings_of(config)},
                progress=not config.quiet and sys.stderr.isatty(),
            )
    except (UsageError, DataError, CheckpointError, DeviceError, RankError, MemoryError, OSError):
        if writes and config.resume is None and not begun:  # refused: the folder is free again
            for path in checkpoint.numbered(folder / "checkpoints"):
                path.unlink()
            with suppress(OSError):
                (folder / "checkpoints").rmdir()
            (folder / "config.toml").unlink()
        raise
    if signal := max(map(max, filter(None, group.gather(seen))), default=0):
        # Maybe it came after the last step, when fit looked no more: then all epochs are done.
        epoch = len(history.epochs) + (history.reason == "stop")
        log.say(
            f"stopped in epoch {epoch}, step {history.steps}, and saved; "
            f"go on with: {prog} --resume {shlex.quote(str(folder))}"
        )
        return 128 + signal
    if not writes:
        return 0
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
    summary = summary_of(
        config, trainer.model, history, result, len(parts.train), trainer.group.size
    )
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

    def command(group: Group) -> int:
        config = parse(sys.argv[1:] if args is None else args, prog=prog)
        if config.print_config:
            emit(to_toml(config, getattr(sys.stdout, "encoding", None) or "utf-8"))
            return 0
        group.watch(config.rank_timeout)
        if is_sweep(config):
            from xpnet.commands.sweep import run_sweep  # what trains many, for those who ask

            return run_sweep(config, prog, group)
        return _run(config, prog, group)

    return run_on_ranks(command)
