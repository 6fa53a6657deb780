"""A sweep of ``xpnet train``: many networks at once, a table, and the best one as the run's."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xpnet.commands.build import (
    backend_of,
    build_trainer,
    check_fits,
    class_weight_of,
    network_of,
    predicts_names,
    rule_of,
)
from xpnet.commands.config.defaults import settled, settled_sweep
from xpnet.commands.config.settings import Config
from xpnet.commands.config.toml import settings_of, to_toml
from xpnet.commands.exits import complain, say
from xpnet.commands.folder import check_folder, claimed, signals
from xpnet.commands.report import epoch_record, figure, measured_lines, report, summary_of
from xpnet.commands.several import combinations, first, sweep_in_words, swept
from xpnet.commands.splits import Parts, data_lines, load_parts
from xpnet.commands.standings import (
    Standing,
    csv_of,
    failures,
    named,
    spread,
    standings,
    table_lines,
)
from xpnet.data.augmentation import Augmentation
from xpnet.data.description import aligned
from xpnet.errors import CheckpointError, DataError, DeviceError, UsageError, counted
from xpnet.files import remove, sync, write_whole
from xpnet.many import ModelSet, Plan, Progress, fit_many, plan
from xpnet.many.model_set import kept_epoch
from xpnet.metrics import best_threshold
from xpnet.models import checkpoint
from xpnet.models.model import Model
from xpnet.parallel import ALONE, Group
from xpnet.show import plots
from xpnet.show.plots.figure import short
from xpnet.trainer import words
from xpnet.trainer.history import Epoch, History, finite_or_none
from xpnet.trainer.trainer import Trainer

__all__ = ["run_sweep"]

# What makes another network, in the order of `_networks`; the rest of a sweep is a grid.
FORMS = ("channels", "hidden", "activation")
SHOWN_NETWORKS = 4


def run_sweep(config: Config, prog: str, group: Group = ALONE) -> int:
    """Train all networks of a sweep; return the exit status.

    The ranks of a group share the networks. Rank 0 alone makes the folder, writes files and prints.
    """
    group.first(lambda: check_folder(config))
    if config.plot:
        plots.require()
    sweep, found = group.together(lambda: _planned(config, group))
    if config.dry_run:
        if group.rank == 0:
            say(*sweep.described(found))
        if group.rank == 0 and sweep.parts.columns:
            say("", *aligned(sweep.parts.columns))
        return 0
    with ExitStack() as stack:
        folder = group.first(lambda: stack.enter_context(claimed(config)))
        return _train(sweep, found, prog, folder)


def _planned(config: Config, group: Group) -> tuple[Sweep, Plan]:
    """Load the data, and decide what is trained on it."""
    one = first(config)
    backend = backend_of(one, config.dtype, group)
    parts = load_parts(one, group=group)
    if config.folds is not None and config.folds > len(parts.train):
        raise UsageError(
            f"--folds is {config.folds:,}, but the training part has {len(parts.train):,} samples"
        )
    config = settled_sweep(config, len(parts.train))
    trainer = build_trainer(settled(first(config), len(parts.train)), parts, backend)
    sweep = Sweep(config, parts, trainer, group)
    check_fits(one, parts)
    if config.ensemble and not sweep.averages:
        raise UsageError(
            f"--ensemble averages probabilities, and --loss {config.loss} gives none; take softmax"
        )
    return sweep, plan(*sweep.networks_and_data(), **sweep.arguments())


@dataclass(frozen=True)
class Sweep:
    """The settings of a sweep, its data, and a trainer of its first network.

    Attributes
    ----------
    config : Config
        With `Several` values, settled.
    parts : Parts
    trainer : Trainer
    group : Group
        The ranks that share the networks.
    """

    config: Config
    parts: Parts
    trainer: Trainer
    group: Group = ALONE

    @property
    def one(self) -> Config:
        """The settings of the first network."""
        return self.settled({})

    def settled(self, settings: dict[str, Any]) -> Config:
        """Return the config of one setting, with the first seed."""
        return settled(first(self.config, **settings), len(self.parts.train))

    @property
    def averages(self) -> bool:
        """Whether the networks give what an ensemble averages."""
        model = self.trainer.model
        return not model.classifies or hasattr(model.network.loss_gate, "probabilities")

    @property
    def score(self) -> str:
        """What the scores are: accuracy or r2."""
        return "accuracy" if self.parts.train.classes is not None else "r2"

    # -- For `fit_many` ----------------------------------------------------------------

    def forms(self) -> list[dict[str, Any]]:
        """Return the settings that make each network."""
        return [*combinations(self.config, FORMS)]

    def networks_and_data(self) -> tuple[list[Any], tuple[Any, Any]]:
        networks = [network_of(self.settled(form), self.parts.train) for form in self.forms()]
        return networks, (self.parts.train.x, self.parts.train.t)

    def arguments(self) -> dict[str, Any]:
        """Return the options of `fit_many` and of `plan`."""
        config, one, train = self.config, self.one, self.parts.train
        some = swept(config)
        seeds = some.pop("seed", None)
        val = self.parts.val
        return {
            "optimizer": lambda steps: rule_of(one, steps)[0],
            "grid": {name: [*values] for name, values in some.items() if name not in FORMS},
            "seeds": [one.seed] if seeds is None else [*seeds],
            "folds": config.folds,
            "epochs": None if "epochs" in some else config.epochs,
            "batch_size": None if "batch_size" in some else one.batch_size,
            "validation": None if val is None else (val.x, val.t),
            "class_weight": class_weight_of(one, train),
            "weight_decay": None if "weight_decay" in some else rule_of(one, 1)[1],
            "l1": None if "l1" in some else one.l1,
            "clip_norm": None if "clip_norm" in some else one.clip_norm,
            "augment": config.augment,
            "metric": config.metric,
            "backend": self.trainer.backend,
            "dtype": config.dtype,
            "scaling": train.scaling,
            "target_scaling": train.target_scaling,
            "classes": train.classes,
            "columns": None if self.parts.encoder else train.columns,
            "encoder": self.parts.encoder,
            "group": self.group,
        }

    def settings_in(self, found: ModelSet) -> list[dict[str, Any]]:
        """Return the settings of each model of a set, by the names of options."""
        forms = self.forms()
        order = [name for name in swept(self.config) if name != "seed"]
        each = [{**member.settings, **forms[member.network]} for member in found.members]
        return [{name: settings[name] for name in order} for settings in each]

    # -- In words ----------------------------------------------------------------------

    def described(self, found: Plan) -> list[str]:
        """Return lines about data, networks and plan."""
        networks, _ = self.networks_and_data()
        lines = [words.network_line(network) for network in networks[:SHOWN_NETWORKS]]
        if len(networks) > SHOWN_NETWORKS:
            lines.append(f"          and {len(networks) - SHOWN_NETWORKS} more")
        return [
            *data_lines(self.config, self.parts),
            f"sweep     {sweep_in_words(self.config)}",
            *lines,
            self._training(),
            words.backend_line(self.trainer.backend, self.group.size),
            *plan_lines(found),
            *self._chosen_by(),
        ]

    def _training(self) -> str:
        """Return the line about the training, of what all networks share."""
        one, some = self.one, swept(self.config)
        assert one.epochs is not None  # it is settled
        assert one.batch_size is not None
        line = words.training_line(
            self.trainer.optimizer, one.epochs, one.batch_size, one.dtype, one.weight_decay,
            one.l1, Augmentation.of(one.augment),
        )  # fmt: skip
        shown = ("lr", "weight_decay", "l1", "batch_size", "epochs")
        of_first = [name for name in shown if name in some]
        return f"{line} (the first model)" if of_first else line

    def _chosen_by(self) -> list[str]:
        if self.config.folds is not None:
            how = f"measured on {self.config.folds} folds; the best is then trained on all"
            return [f"          {how} {len(self.parts.train):,} samples"]
        assert self.parts.val is not None  # `parse` sets some aside
        count = len(self.parts.val)
        return [
            f"          the best is chosen by the {count:,} validation samples (--val-fraction)"
        ]


def plan_lines(found: Plan) -> list[str]:
    """Return what is trained together, how much memory that takes, and what trains alone."""
    size = _bytes(found.bytes)
    stacks = []
    for (count, at_once), times in Counter(found.stacks).items():
        how = "all at once" if at_once >= count else f"{at_once:,} at a time"
        form = "of one form" if times == 1 else f"of each of {times:,} forms"
        stacks.append(f"{counted(count, 'model')} {form}, {how}")
    ranks = [f"          {found.ranks_in_words()}"] if found.ranks else []
    if len(found.stacks) == 1 and not found.one_by_one:
        return [f"plan      {stacks[0]}; {size}", *ranks]
    lines = [f"plan      {counted(found.models, 'model')}; {size}"]
    lines += [f"          {line}" for line in stacks]
    for reason, count in found.one_by_one.items():
        lines.append(f"          {counted(count, 'model')} one by one: {reason}")
    return lines + ranks


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"


# -- Training ------------------------------------------------------------------------------


class _Log:
    """Print the sweep's progress on stdout, on rank 0."""

    def __init__(self, sweep: Sweep, epochs: int) -> None:
        self.epochs, self.score = epochs, sweep.score
        self.speaks = not sweep.config.quiet and sweep.group.rank == 0
        self.told = 0  # the epoch whose line came last

    def say(self, *lines: str) -> None:
        if lines and self.speaks:
            say(*lines)

    def __call__(self, progress: Progress) -> None:
        """Print how all models stand after an epoch; of many epochs, after some."""
        if not words.is_shown(progress.epoch, self.epochs):
            return
        if len(progress.live) == 1 < len(progress.histories):
            index = progress.live[0]
            last = progress.histories[index].epochs[-1]
            self._say_epoch(progress.epoch, [last], f"model {index}")
        else:
            self.epoch(progress.epoch, progress.histories)

    def epoch(self, epoch: int, histories: Sequence[History]) -> None:
        done = [history.epochs[-1] for history in histories if len(history.epochs) == epoch > 0]
        if not done or epoch == self.told:
            return
        self.told = epoch
        self._say_epoch(epoch, done, counted(len(done), "model"))

    def _say_epoch(self, epoch: int, done: Sequence[Epoch], who: str) -> None:
        parts = [f"epoch {epoch:3d}/{self.epochs}  {who}"]
        for name, column in (("train loss", "train_loss"), (f"val {self.score}", "val_score")):
            values = [v for epoch in done if (v := getattr(epoch, column)) is not None]
            if values:
                low, high = figure(min(values)), figure(max(values))
                parts.append(f"{name} {low}" + (f" to {high}" if len(done) > 1 else ""))
        self.say("  ".join(parts))


def _train(sweep: Sweep, found: Plan, prog: str, folder: Path) -> int:
    config, group = sweep.config, sweep.group
    writes = group.rank == 0
    lengths = (
        sweep.settled(each).epochs for each in combinations(config, ("batch_size", "epochs"))
    )
    longest = max(epochs or 1 for epochs in lengths)
    log = _Log(sweep, longest)
    log.say(*sweep.described(found))
    if config.resume is None:
        group.first(lambda: write_whole(folder / "config.toml", to_toml(config)))
    begun = False
    progress = not config.quiet and sys.stderr.isatty()

    def outdate(*progress: Progress) -> None:
        """Remove the summary; rank 0 does it after an epoch too, which only others may train."""
        if writes:
            remove(folder / "summary.json")  # it says that the run is complete

    def stop() -> bool:
        """Say whether to stop, after each chunk of steps; the first chunk outdates the summary."""
        nonlocal begun
        if not begun:
            outdate()
        begun = True
        return bool(seen)

    def signalled() -> int:
        """Return the signal that a rank has got, the same number on all of them; 0 for none."""
        return max(map(max, filter(None, group.gather(seen))), default=0)

    def stopped(where: str, number: int) -> int:
        again = f"{prog} --resume {shlex.quote(str(folder))}"
        log.say(f"stopped {where}, and saved; go on with: {again}")
        return 128 + number

    networks, data = sweep.networks_and_data()
    try:
        with signals() as seen:
            models = _fitted(
                networks, data, **sweep.arguments(), patience=config.patience,
                callbacks=[log, outdate] if group.size > 1 else [log], stop=stop,
                folder=folder / "checkpoints", resume=config.resume is not None,
                progress=progress,
            )  # fmt: skip
            if number := signalled():
                epoch = max(len(h.epochs) for h in models.histories) + 1
                return stopped(f"in epoch {epoch}", number)
            if group.any(begun):  # no callback sees the last epoch
                log.epoch(max(len(h.epochs) for h in models.histories), models.histories)
            else:
                log.say("nothing left to train" + " on the folds" * (config.folds is not None))
            settings = sweep.settings_in(models)
            rows = standings(models, settings)
            log.say(*_standing_lines(sweep, models, settings, rows))
            # What was found is on the disk before more is trained.
            table = csv_of(models, settings, sweep.score, None)
            group.first(lambda: write_whole(folder / "sweep.csv", table))
            lost = sum(history.reason == "failed" for history in models.histories)
            if lost == len(models):
                if writes:
                    complain(
                        "all models failed: "
                        f"{models.histories[0].failure}; {folder / 'sweep.csv'} names each"
                    )
                return 5
            if config.quiet and lost and writes:
                said = f"{lost:,} of {counted(len(models), 'model')} failed"
                complain(f"warning: {said}; {folder / 'sweep.csv'} names each")
            outcome = _chosen(sweep, models, rows, stop, progress, log)
            if number := signalled():
                return stopped("before the end", number)
    except (UsageError, DataError, CheckpointError, DeviceError, MemoryError, OSError):
        if writes and config.resume is None and not begun:  # refused: the folder is free again
            _free(folder)
        raise
    return _finish(sweep, folder, models, settings, rows, outcome, log) if writes else 0


def _fitted(networks: Sequence[Any], data: Any, **options: Any) -> ModelSet:
    """Train; what failed is said in the command's own words."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"[0-9,]+ models? of [0-9,]+ failed", RuntimeWarning)
        return fit_many(networks, data, **options)


def _free(folder: Path) -> None:
    """Remove what a run has written before its first step."""
    # Networks that train one by one have folders of their own.
    alone = sorted((folder / "checkpoints").glob("model-*"))
    for checkpoints in (*alone, folder / "checkpoints"):
        for path in checkpoint.numbered(checkpoints):
            path.unlink()
        with suppress(OSError):
            checkpoints.rmdir()
    (folder / "config.toml").unlink()


# -- The best ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The model of the run.

    Attributes
    ----------
    index : int or None
        Its number in the set; None if it was trained again, on the samples of all folds.
    config : Config
        Its settings.
    model : Model
    history : History
    """

    index: int | None
    config: Config
    model: Model
    history: History


def _chosen(
    sweep: Sweep,
    models: ModelSet,
    rows: Sequence[Standing],
    stop: Callable[[], bool],
    progress: bool,
    log: _Log,
) -> Outcome:
    """Take the best model, or train the best setting on the samples of all folds.

    The ranks share the batches of that training, as of a single run.
    """
    config = sweep.settled(dict(rows[0].settings))
    if sweep.config.folds is None:
        index = models.best_index
        config = replace(config, seed=models.members[index].seed)
        model = models[index]
        _dressed(model, sweep, config)
        if config.threshold == "F1":
            val = sweep.parts.val
            assert val is not None  # refused by `parse`
            model.threshold = best_threshold(val.t, model.predict_proba(val.x)[:, 1])
        return Outcome(index, config, model, models.histories[index])
    train = sweep.parts.train
    what = named(rows[0].settings, None, None) or "the network"
    score = f"{_score_in_words(sweep, models)} {spread(rows[0])}"
    log.say(f"best      {what}: {score}; now trained on all {len(train):,} samples (model.npz)")
    trainer = build_trainer(config, sweep.parts, sweep.trainer.backend, group=sweep.group)
    history = trainer.fit(
        train.x, train.t, epochs=config.epochs, batch_size=config.batch_size,
        class_weight=class_weight_of(config, train), stop=stop, progress=progress,
    )  # fmt: skip
    return Outcome(None, config, trainer.model, history)


def _dressed(model: Model, sweep: Sweep, config: Config) -> None:
    """Give a model of the set what the model of a single run has."""
    model.predicts_names = predicts_names(sweep.parts)
    if config.threshold not in (None, "F1"):
        model.threshold = float(config.threshold)


def _score_in_words(sweep: Sweep, models: ModelSet) -> str:
    name = models.score_name.replace("_", " ")
    return f"held-out {name}" if sweep.config.folds is not None else f"validation {name}"


def _over(sweep: Sweep) -> str:
    """Return what the deviations are over: 3 seeds and 5 folds."""
    seeds = swept(sweep.config).get("seed", ())
    folds = sweep.config.folds
    words = [counted(len(seeds), "seed")] if seeds else []
    return " and ".join([*words, *([f"{folds} folds"] if folds else [])])


def _standing_lines(
    sweep: Sweep, models: ModelSet, settings: Sequence[dict[str, Any]], rows: Sequence[Standing]
) -> list[str]:
    lines = ["", *table_lines(rows, _score_in_words(sweep, models), _over(sweep))]
    return [*lines, *_failures(sweep, models, settings, rows)]


def _failures(
    sweep: Sweep, models: ModelSet, settings: Sequence[dict[str, Any]], rows: Sequence[Standing]
) -> list[str]:
    several = "seed" in swept(sweep.config)
    names = [
        named(each, member.seed if several else None, member.fold)
        for each, member in zip(settings, models.members, strict=True)
    ]
    return failures(models, rows, names)


# -- Files ---------------------------------------------------------------------------------


def _finish(
    sweep: Sweep,
    folder: Path,
    models: ModelSet,
    settings: Sequence[dict[str, Any]],
    rows: Sequence[Standing],
    outcome: Outcome,
    log: _Log,
) -> int:
    """Test the best model; write models, tables, summary and pictures."""
    config, test = sweep.config, sweep.parts.test
    train = sweep.parts.train
    extra = {
        "label_column": train.label_column,
        "id_column": train.id_column,
        "layout": None if train.layout is None else [*train.layout],
    }
    write_whole(folder / "config.toml", to_toml(config))  # a resumed sweep may have other options
    outcome.model.save(folder / "model.npz", extra)
    write_whole(folder / "sweep.csv", csv_of(models, settings, sweep.score, outcome.index))
    result = outcome.model.evaluate(test.x, test.t)
    summary = summary_of(
        outcome.config, outcome.model, outcome.history, result, len(train), sweep.group.size
    )
    failed = sum(history.reason == "failed" for history in models.histories)
    summary["sweep"] = {
        "models": len(models),
        "failed": failed,
        "settings": settings_of_best(config, outcome.config),
        "score": models.score_name,
        "mean": finite_or_none(rows[0].mean),
        "deviation": finite_or_none(rows[0].deviation),
    }
    together: dict[str, float | None] = {}
    if config.ensemble:
        for k in models.succeeded:
            _dressed(models[k], sweep, outcome.config)
        members = [k for k in rows[0].models if models.histories[k].reason != "failed"]
        for k in members:
            models[k].threshold = outcome.model.threshold
        models.save(folder / "models.npz")
        together = models.ensemble(members).evaluate(test.x, test.t)
        summary["ensemble"] = {
            "models": members,
            **{f"test_{name}": v and finite_or_none(v) for name, v in together.items()},
        }
    metrics = (epoch_record(e, sweep.score, config.metric) for e in outcome.history.epochs)
    write_whole(folder / "metrics.jsonl", "".join(metrics))
    drawn = []
    if config.plot:
        drawn = [_draw(sweep, folder, models, settings, rows, outcome)]
        drawn += plots.draw_all(folder, outcome.history, outcome.model, test)
    for path in drawn:
        sync(path)
    write_whole(folder / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    log.say(*_best_lines(sweep, models, rows, outcome))
    log.say(*report(outcome.model, test.x, test.t, result))
    if together:
        count = len(summary["ensemble"]["models"])
        log.say(*measured_lines(together, "ensemble"))
        log.say(f"          the mean of {counted(count, 'network')} on the test part (models.npz)")
    for path in drawn:
        log.say(f"drew      {path}")
    log.say(f"run       {folder}")
    accuracy = result.get("accuracy")
    if config.target_acc is not None and (accuracy is None or accuracy < config.target_acc):
        complain(f"test accuracy {accuracy:.4f} is below the target {config.target_acc}")
        return 4
    return 0


def settings_of_best(config: Config, best: Config) -> dict[str, Any]:
    """Return the values of the best model for what was swept, as config.toml writes them."""
    found = settings_of(best)
    return {name: found.get(name) for name in swept(config)}


def _best_lines(
    sweep: Sweep, models: ModelSet, rows: Sequence[Standing], outcome: Outcome
) -> list[str]:
    if outcome.index is None:
        return [*words.ended(outcome.history), *words.note_lines(outcome.history)]
    member, epoch = models.members[outcome.index], kept_epoch(outcome.history)
    seed = member.seed if len(rows[0].models) > 1 else None
    what = named(rows[0].settings, seed, None) or "the only model"
    score = models.scores[outcome.index]
    after = f" after epoch {epoch.epoch}" if epoch is not None else ""
    return [f"best      {what}: {_score_in_words(sweep, models)} {score:.4f}{after} (model.npz)"]


def _draw(
    sweep: Sweep,
    folder: Path,
    models: ModelSet,
    settings: Sequence[dict[str, Any]],
    rows: Sequence[Standing],
    outcome: Outcome,
) -> Path:
    path = folder / "sweep.png"
    dots = [
        plots.Dot(each, float(score), member.seed, member.fold)
        for each, score, member in zip(settings, models.scores, models.members, strict=True)
    ]
    source = sweep.config.dataset if sweep.config.data is None else sweep.config.data.name
    plots.sweep(
        dots, path, best=rows[0].settings, chosen=outcome.index, metric=models.score_name,
        part="held-out" if sweep.config.folds is not None else "validation",
        title=f"Sweep on {short(source, 40)}", falls=models.falls,
    )  # fmt: skip
    return path
