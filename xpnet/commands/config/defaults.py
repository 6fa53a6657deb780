"""What the settings are that you leave open: by the number of samples, or by a model."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from xpnet import optim
from xpnet.commands.config.filters import filter_setting, filter_word, joined_block
from xpnet.commands.config.settings import Config
from xpnet.commands.config.types import LEARNING_RATES
from xpnet.commands.several import first, swept
from xpnet.models.kinds import OF_IMAGES, layers_of, takes_images
from xpnet.models.network import Network
from xpnet.optim import OPTIMIZERS
from xpnet.optim.schedules import Schedule
from xpnet.trainer.defaults import BOOK_OF, defaults

__all__ = ["LATER", "of_model", "schedule_of", "settled", "settled_sweep"]

# What `settled` fills in.
LATER = (
    "channels", "kernel", "padding", "pool", "hidden", "activation", "dropout", "init", "optimizer",
    "lr", "schedule", "weight_decay", "beta2", "batch_size", "epochs",
)  # fmt: skip


def settled(config: Config, n: int) -> Config:
    """Fill in what the preset says of a training part of `n` samples.

    The run's file then holds the values in use.
    """
    images = takes_images(config.model)
    by_size = asdict(defaults(n, config.batch_size, convolution=images))
    by_size["activation"] = (by_size["activation"],)
    layers = layers_of(config.model, config.channels)
    if config.channels is None and images:
        layers |= {
            "channels": tuple(map(joined_block, layers["channels"])),
            "padding": filter_word(layers["padding"]),
        }
    layers = {**dict.fromkeys(OF_IMAGES), **layers}
    by_size |= layers
    chosen = by_size
    if config.preset == "book":
        chosen = {**layers, **BOOK_OF[config.model]}
    rule = config.optimizer or chosen["optimizer"]
    if rule == by_size["optimizer"]:
        chosen = {**chosen, **{name: by_size[name] for name in ("lr", "weight_decay", "beta2")}}
    elif rule != chosen["optimizer"]:  # its rate and its decay are no good for another rule
        chosen = {**chosen, "lr": LEARNING_RATES[rule], "weight_decay": 0.0, "beta2": None}
        for name in ("weight_decay", "beta2"):
            chosen[name] = getattr(OPTIMIZERS[rule], name, chosen[name])
    given = {name: getattr(config, name) for name in LATER}
    return replace(
        config, **{name: chosen[name] if value is None else value for name, value in given.items()}
    )


def settled_sweep(config: Config, n: int) -> Config:
    """Fill in what all models of a sweep share, see `settled`.

    With several batch sizes, the epochs stay open if you name none: each size has its own.
    """
    shared = settled(first(config), n)
    open_ = {name for name in LATER if getattr(config, name) is None}
    if config.preset == "auto" and "batch_size" in swept(config):
        open_ -= {"epochs"}
    return replace(config, **{name: getattr(shared, name) for name in open_})


def of_model(config: Config, network: Network) -> Config:
    """Fill in the layers of a convolution network that is trained on, as far as words say them."""
    if network.builder != "cnn":
        return config
    own = network.arguments
    words: dict[str, Any] = {"channels": tuple(map(joined_block, own["channels"]))}
    for name in ("kernel", "padding"):
        word = filter_word(own[name])
        try:
            filter_setting(word)
        except ValueError:  # rows and columns differ
            continue
        words[name] = word
    return replace(
        config, model="cnn", **words, pool=own["pool"], hidden=tuple(own["hidden"]),
        activation=(own["activation"],), dropout=own["dropout"], batch_norm=own["batch_norm"],
    )  # fmt: skip


# --schedule plateau waits for so many epochs, unless --patience would end the run by then.
LONGEST_WAIT = 5


def schedule_of(config: Config, steps: int) -> float | Schedule:
    """Return the learning rate, or its schedule over a run of `steps` steps."""
    assert config.lr is not None  # it is settled
    lr = config.lr
    rest = max(1, steps - config.warmup)
    match config.schedule:
        case "step":
            return optim.step_decay(lr, -(-rest // 3), warmup=config.warmup)
        case "exponential":
            return optim.exponential(lr, rest, warmup=config.warmup)
        case "cosine":
            return optim.cosine(lr, rest, warmup=config.warmup)
        case "inverse":
            return optim.inverse_time(lr, 9 / rest, warmup=config.warmup)
        case "plateau":
            most = LONGEST_WAIT if config.patience is None else max(1, config.patience // 2)
            return optim.plateau(lr, patience=min(LONGEST_WAIT, most), warmup=config.warmup)
    return optim.constant(lr, warmup=config.warmup)
