"""Refuse settings that are impossible, whatever the data are."""

from __future__ import annotations

import math

from xpnet.commands.config.defaults import settled
from xpnet.commands.config.filters import filter_setting, nested, refuse_filters
from xpnet.commands.config.settings import Config
from xpnet.commands.several import LISTS, MOST, combinations, first, is_sweep, swept
from xpnet.errors import LARGEST, UsageError, real, whole
from xpnet.models.kinds import takes_images

__all__ = ["check"]


def check(config: Config) -> None:
    """Refuse settings that are impossible for any data, each value of a sweep.

    Raises
    ------
    UsageError
    """
    _check_sweep(config)
    for layers in combinations(config, LISTS):
        _check_one(first(config, **layers))
    for name, values in swept(config).items():
        for value in values:
            _check_one(first(config, **{name: value}))


def _check_sweep(config: Config) -> None:
    """Refuse what makes no sense of a sweep, and what makes one impossible."""
    if not is_sweep(config):
        if config.ensemble:
            raise UsageError("--ensemble needs several networks: --seed 0..9, or --folds 5")
        return
    some = swept(config)
    if config.folds is not None:
        whole("--folds", config.folds, 2, LARGEST)
        for name in ("val_fraction", "patience", "metric"):
            if getattr(config, name):
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{flag} needs a validation part, and --folds takes its place: leave one out"
                )
    models = math.prod(map(len, some.values()))
    if models > MOST:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in some)
        raise UsageError(
            f"{flags} make {models:,} combinations; expected at most {MOST:,}: name fewer values"
        )
    if config.init_from is not None:
        raise UsageError(
            "--init-from trains one network on; a sweep draws new ones: leave one of the two out"
        )
    if config.ensemble and "seed" not in some and config.folds is None:
        raise UsageError(
            "--ensemble needs several networks of each setting: --seed 0..9, or --folds 5"
        )


def _check_one(config: Config) -> None:
    """Refuse settings that are impossible for any data."""

    def need(holds: bool, message: str) -> None:
        if not holds:
            raise UsageError(message)

    for name, least in (
        ("epochs", 1), ("batch_size", 1), ("warmup", 0), ("seed", 0), ("patience", 1),
    ):  # fmt: skip
        if (count := getattr(config, name)) is not None:
            whole(f"--{name.replace('_', '-')}", count, least, LARGEST)
    for name, high, ends in (
        ("val_fraction", 1.0, "[)"), ("test_fraction", 1.0, "()"), ("dropout", 1.0, "[)"),
        ("lr", math.inf, "()"), ("clip_norm", math.inf, "()"), ("weight_decay", math.inf, "[)"),
        ("l1", math.inf, "[)"),
        ("target_acc", 1.0, "[]"), ("quantile", 1.0, "()"), ("beta2", 1.0, "[)"),
        ("rank_timeout", math.inf, "()"),
    ):  # fmt: skip
        if (value := getattr(config, name)) is not None:
            real(f"--{name.replace('_', '-')}", value, 0.0, high, ends)
    need(config.task == "auto" or config.data is not None, "--task needs --data")
    need(str(config.data) != "-", "--data - cannot be read again to resume; save it as a file")
    for name in ("label_column", "header", "columns", "drop", "id"):
        given = getattr(config, name) not in (None, (), "auto")
        need(not given or config.data is not None, f"--{name.replace('_', '-')} needs --data")
    need(
        config.metric is None or config.val_fraction > 0,
        "--metric needs --val-fraction, the share to measure it on",
    )
    need(
        config.threshold != "F1" or config.val_fraction > 0,
        "--threshold F1 needs --val-fraction, the share to find it on",
    )
    need(config.quantile is None or config.loss == "quantile", "--quantile needs --loss quantile")
    need(
        config.patience is None or config.val_fraction > 0,
        "--patience needs --val-fraction, the share to validate on",
    )
    network = settled(config, 1)
    need(
        network.beta2 is None or network.optimizer in ("adam", "adamw"),
        f"--beta2 is for adam and adamw, not for {network.optimizer}",
    )
    assert network.hidden is not None
    assert network.activation is not None
    names, layers = len(network.activation), len(network.hidden)
    if takes_images(config.model):
        need(
            len({*network.activation}) == 1,
            f"--activation has {names} names; expected one: all hidden layers of a "
            f"{config.model} share it",
        )
        if config.pool is not None:
            whole("--pool", config.pool, 0, LARGEST)
        _check_filters(network)
    else:
        need(
            names in (1, layers, layers + 1),
            f"--activation has {names} names for {layers} hidden layers",
        )
        refuse_filters(config, *(["augment"] if config.init_from is None else []))
    need(config.labels is None or config.data is not None, "--labels needs --data")
    need(
        config.test_labels is None or config.test_data is not None,
        "--test-labels needs --test-data",
    )
    need(config.test_data is None or config.data is not None, "--test-data needs --data")
    need(
        config.data_dir is None or config.data is None, "--data-dir goes with --dataset, not --data"
    )
    need(
        config.data_dir is None or config.dataset != "digits",
        "--data-dir goes with --dataset mnist or fashion-mnist; digits is built in",
    )
    need(
        config.resume is None or config.out is None,
        "--resume continues in the run's own folder; leave out --out",
    )


def _check_filters(config: Config) -> None:
    """Refuse a kernel or a padding for each convolution where the convolutions are others."""
    assert config.channels is not None  # it is settled
    blocks = nested(config.channels)
    for name in ("kernel", "padding"):
        found = filter_setting(getattr(config, name))
        if isinstance(found, list) and [*map(len, found)] != [*map(len, blocks)]:
            raise UsageError(
                f"--{name} {getattr(config, name)} does not fit the channels "
                f"{','.join(map(str, config.channels))}; expected one number, or one for each "
                "convolution in the same form"
            )
