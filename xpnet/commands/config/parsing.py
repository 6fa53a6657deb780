"""Read the settings of a training: options, over a --config file, over those of a --resume run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import tyro

from xpnet.commands.config.checks import check
from xpnet.commands.config.defaults import LATER
from xpnet.commands.config.settings import CALL_ONLY, EXAMPLES, GROUPS, Config
from xpnet.commands.config.toml import read_toml, words_of
from xpnet.commands.exits import complain
from xpnet.commands.several import LISTS, SWEPT, is_sweep
from xpnet.commands.usage import read
from xpnet.errors import CheckpointError, UsageError
from xpnet.models import checkpoint, schema
from xpnet.models.kinds import OF_IMAGES

__all__ = ["PROG", "parse"]

PROG = "python -m xpnet.train"


def parse(args: Sequence[str], *, quiet: bool = False, prog: str = PROG) -> Config:
    """Read the settings; options override a --config file, which overrides a --resume run.

    Unless `quiet`, it prints a warning if the config.toml of a --resume run is out of date.

    Raises
    ------
    UsageError
        A file cannot be read or holds an unknown key, or a setting is impossible.
    SystemExit
        tyro explains a bad option and exits with 2; after --help it exits with 0.
    """
    args = list(args)
    given = read(Config, args, prog, groups=GROUPS, examples=EXAMPLES)
    if given.init_from is not None:
        if given.resume is not None:
            raise UsageError(
                "--init-from starts a new run from a model, --resume continues one: leave one out"
            )
        _refuse_another_network(args)
    if given.resume is not None and any(word.partition("=")[0] == "--preset" for word in args):
        raise UsageError("--preset is for a new run; --resume goes on with the settings of its own")
    # Put a file's settings in front of the user's options: one mechanism reads, checks and
    # overrides them.
    of_run = [] if given.resume is None else words_of(*_of_run(given.resume, quiet))
    from_files = [*of_run]
    if given.config is not None:
        from_files += words_of(read_toml(given.config), given.config)
    config = tyro.cli(Config, args=[*from_files, *args], prog=prog)
    if is_sweep(config) and config.folds is None and not config.val_fraction:
        config = replace(config, val_fraction=TO_CHOOSE)
    if given.resume is not None:
        _refuse_another_sweep(config, tyro.cli(Config, args=of_run, prog=prog))
    check(config)
    return config


# A sweep chooses by this share of the training part.
TO_CHOOSE = 0.1
# These may change when a sweep is resumed.
OPEN = (
    "out", "plot", "quiet", "resume", "config", "print_config", "dry_run", "target_acc", "device",
    "backend", "ensemble", "data", "labels", "test_data", "test_labels", "data_dir", "threshold",
    "rank_timeout",
)  # fmt: skip


def _refuse_another_sweep(config: Config, own: Config) -> None:
    """Refuse to resume a sweep with other settings: a model would be of two of them."""
    if not (is_sweep(config) or is_sweep(own)):
        return
    for field in fields(Config):
        was, now = getattr(own, field.name), getattr(config, field.name)
        if was == now or field.name in OPEN:
            continue
        if field.name == "val_fraction" and now == TO_CHOOSE and not was:
            continue  # set aside for the sweep that the other options would make
        flag = f"--{field.name.replace('_', '-')}"
        kind = "sweep" if is_sweep(own) else "training"
        raise UsageError(
            f"--resume continues the {kind} in {config.resume} as it is; leave out {flag}, or "
            f"start a new {'sweep' if is_sweep(config) else 'run'}"
        )


# What a model brings along that is trained on.
OF_THE_MODEL = (
    "--model", "--channels", "--kernel", "--padding", "--pool", "--batch-norm", "--no-batch-norm",
    "--hidden", "--activation", "--loss", "--quantile", "--dropout", "--init", "--dtype",
)  # fmt: skip


def _refuse_another_network(args: Sequence[str]) -> None:
    for word in args:
        if (flag := word.partition("=")[0]) in OF_THE_MODEL:
            raise UsageError(f"{flag} is the model's own with --init-from: leave it out")


def _has_several(settings: Mapping[str, Any]) -> bool:
    """Whether the settings in a file are those of a sweep."""
    for name in SWEPT:
        values = settings.get(name)
        one = values if name in LISTS else [values]
        if isinstance(one, list) and any(isinstance(value, list) for value in one):
            return True
    return "folds" in settings


def _of_run(folder: Path, quiet: bool) -> tuple[dict[str, Any], Path]:
    """Return the settings of a run, and the file that has them.

    The newest checkpoint has the right ones. If a run was resumed with other settings and then
    killed, its config.toml may be old; after a power cut, it may be empty.
    """
    file, checkpoints = folder / "config.toml", folder / "checkpoints"
    stored, path = None, file
    try:
        found = read_toml(file)
    except UsageError:
        found = {}
    if _has_several(found):
        return found, file  # a sweep is resumed as it is
    if checkpoint.numbered(checkpoints):
        try:
            _, meta, path, _ = checkpoint.load_latest(checkpoints, schema.load)
        except CheckpointError:
            if "run_of_set" in checkpoint.load_latest(checkpoints)[1]:
                raise UsageError(
                    f"{file}: lacks the settings of the sweep in this folder, and its checkpoints "
                    "do not hold them; start a new run"
                ) from None
            raise
        stored = meta["extra"].get("settings")
    if not isinstance(stored, dict):
        settings = read_toml(file)
        needed = {field.name for field in fields(Config) if field.default is not None} | {*LATER}
        # Not every rule has a beta2, and a run of version 0.2.0 has no preset and no l1.
        free = {
            *CALL_ONLY, *OF_IMAGES, "preset", "model", "batch_norm", "beta2", "ensemble", "l1"
        }  # fmt: skip
        if isinstance(settings.get("batch_size"), list):
            free.add("epochs")  # each size has its own
        if missing := sorted(needed - free - settings.keys()):
            raise UsageError(
                f"{file}: has no {missing[0]}, so it is not whole, and no checkpoint has the "
                "settings; start a new run"
            )
        return settings, file
    differing = sorted(k for k in stored | found if stored.get(k) != found.get(k))
    if differing and not quiet:
        what = f"another {', '.join(differing)}" if found else "no settings"
        complain(
            f"warning: {file} has {what}; the run continues with the settings in {path.name}, "
            "unless you give an option"
        )
    return stored, path
