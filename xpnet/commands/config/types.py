"""The types of options: how a word on the command line becomes a value.

Each says to tyro which word it takes and how to read it, and to --help what stands there by
default. A wrong word is a ValueError, which tyro explains.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from xpnet.backend.select import LIBRARIES
from xpnet.commands.config.filters import blocks_of, filter_setting
from xpnet.commands.several import numbers, seeds, several
from xpnet.data.augmentation import Augmentation
from xpnet.errors import LARGEST, UsageError
from xpnet.layers.activations import ACTIVATIONS
from xpnet.losses import LOSSES
from xpnet.metrics import METRICS
from xpnet.models.kinds import KINDS
from xpnet.optim import OPTIMIZERS

__all__ = [
    "LEARNING_RATES", "ActivationsOrNone", "Augment", "Beta", "Channels", "ChannelsOrNone",
    "ClassWeight", "Clip", "Column", "Columns", "Count", "Decay", "Dropout", "Dropped", "Fall",
    "File", "Float", "IdColumn", "Image", "Init", "Int", "Kernel", "Kind", "L1", "LearningRate",
    "Library", "Loss", "LossOrAuto", "Metric", "ModelOrKind", "OneActivations", "OneSizes",
    "Padding", "Pool", "Rule", "Seeds", "SizesOrNone", "Threshold", "joined_names", "weights_of",
]  # fmt: skip


def _one(metavar: str, read: Callable[[str], Any], show: Callable[[Any], str] = str) -> Any:
    """Tell tyro how to read an option that takes one word; None shows as "none"."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: ["none" if value is None else show(value)],
    )


def _choice(*names: str) -> Any:
    """Tell tyro how to read one of several names: a Literal whose names come from a table."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(names) + "}",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: value in names,
        str_from_instance=lambda value: [value],
        choices=names,
    )


def _or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda word: None if word == "none" else read(word)


def _names(word: str) -> tuple[str, ...]:
    names = tuple(word.split(","))
    for name in names:
        if name not in ACTIVATIONS:
            raise ValueError(f"{name!r} is not one of {', '.join(ACTIVATIONS)}")
    return names


def _sizes(word: str) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in word.split(",")) if word not in ("", "none") else ()
    if any(not 1 <= size <= LARGEST for size in sizes):
        raise ValueError(f"{word!r}: layer sizes are from 1 to {LARGEST:,}")
    return sizes


def _kernel(word: str) -> int | str:
    found = filter_setting(word)
    if found == "same":
        raise ValueError(f"{word!r} is not a size, such as 3")
    return found if isinstance(found, int) else word.replace(" ", "")


def _padding(word: str) -> int | str:
    found = filter_setting(word)
    return found if isinstance(found, int) else word.replace(" ", "")


def _image(word: str) -> tuple[int, ...]:
    sizes = _sizes(word)
    if len(sizes) not in (2, 3):
        raise ValueError(f"{word!r} is not the shape of an image: 28,28 or 3,32,32")
    return sizes if len(sizes) == 3 else (1, *sizes)


def _augment(word: str) -> str:
    try:
        return str(Augmentation.of(word))
    except UsageError as error:
        raise ValueError(str(error).removeprefix("augment: ")) from None


def _init(word: str) -> str | float:
    if word in ("auto", "he", "xavier"):
        return word
    std = float(word)
    if not (std >= 0 and math.isfinite(std)):
        raise ValueError(f"{word!r}: a standard deviation is 0 or more")
    return std


def _class_weight(word: str) -> str:
    if word != "balanced":
        weights_of(word)
    return word


def weights_of(word: str) -> dict[str, float]:
    """Return the weights in "a=1,b=5" by the names of the classes.

    Raises
    ------
    ValueError
    """
    weights: dict[str, float] = {}
    for part in _list(word):
        name, equals, number = part.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not equals or not 0 < weight < math.inf or name in weights:
            raise ValueError(f"{part!r} is not CLASS=WEIGHT; expected balanced, or a=1,b=5")
        weights[name] = weight
    return weights


def _threshold(word: str) -> str | float:
    if word.upper() == "F1":
        return "F1"
    if not 0 < (value := float(word)) < 1:
        raise ValueError(f"{word!r} is neither F1 nor between 0 and 1")
    return value


def _list(word: str) -> list[str]:
    """Split names at the commas that are not within double quotes."""
    word.encode()  # as in _file
    names = next(csv.reader([word], strict=True), [])
    if any(not name.strip() or "\n" in name for name in names):
        raise ValueError(f"{word!r} has an empty name")
    return names


def joined_names(names: Sequence[str]) -> str:
    """Return the names of columns as one word, which the option's type splits again.

    Examples
    --------
    >>> joined_names(["age", "height, cm"])
    'age,"height, cm"'
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()


def _metric(word: str) -> str:
    if word not in METRICS:
        raise ValueError(f"{word!r} is not one of {', '.join(METRICS)}")
    return word


def _text(word: str) -> str:
    word.encode()  # as in _file
    return word


def _file(word: str) -> Path:
    word.encode()  # a name that is not UTF-8 could not be written into config.toml
    if not word or "\0" in word:
        raise ValueError(f"{word!r} is not a file name")
    return Path(word)


def _chosen(words: str) -> Any:
    """What --help says of the default of an option that `settled` fills in."""
    return tyro.conf.arg(help_behavior_hint=f"({words})")


_EACH = f"{', '.join(ACTIVATIONS)}: one for all hidden layers, or one each."
OneSizes = Annotated[
    tuple[int, ...] | None,
    _one("N,N,...", _sizes, lambda v: ",".join(map(str, v))),
    _chosen("by default 50; for cnn 100, for deep-cnn 50"),
]
OneActivations = Annotated[
    tuple[str, ...] | None,
    _one("NAME,...", _names, ",".join),
    tyro.conf.arg(help=_EACH, help_behavior_hint="(by default sigmoid; for images relu)"),
]
# What has several values in a sweep is read as `Several`; only this package and the modules
# of sweeps see such a config. All others get one of `first`.
SizesOrNone = Annotated[
    tuple[int, ...] | None,
    _one("N,N,...", several(_sizes, "/")),
    _chosen("by default 100,100; for cnn 100, for deep-cnn 50"),
]
ActivationsOrNone = Annotated[
    tuple[str, ...] | None,
    _one("NAME,...", several(_names, "/")),
    tyro.conf.arg(help=_EACH, help_behavior_hint="(default: relu)"),
]
Kind = Annotated[str, _choice(*KINDS)]
ChannelsOrNone = Annotated[
    tuple[int | str, ...] | None,
    _one("N-N,N-N,...", several(blocks_of, "/")),
    _chosen("by default those of --model"),
]
Channels = Annotated[
    tuple[int | str, ...] | None,
    _one("N-N,N-N,...", _or_none(blocks_of)),
    _chosen("by default those of --model"),
]
Image = Annotated[
    tuple[int, ...] | None, _one("C,H,W", _or_none(_image), lambda v: ",".join(map(str, v)))
]
Kernel = Annotated[
    int | str | None,
    _one("N", _or_none(_kernel)),
    _chosen("by default 3, or that of --model without --channels"),
]
Padding = Annotated[
    int | str | None,
    _one("same|N", _or_none(_padding)),
    _chosen("by default same, or that of --model without --channels"),
]
Augment = Annotated[str | None, _one("shift[=PIXELS],flip", _or_none(_augment))]
Loss = Annotated[str, _choice(*LOSSES)]
LossOrAuto = Annotated[str, _choice("auto", *LOSSES)]
ClassWeight = Annotated[str | None, _one("balanced|CLASS=W,...", _or_none(_class_weight))]
Threshold = Annotated[str | float | None, _one("F1|FLOAT", _or_none(_threshold))]
Metric = Annotated[str | None, _one("NAME", _or_none(_metric))]
# Columns may be called none, so this word does not leave the option open.
Columns = Annotated[
    tuple[str, ...],
    _one("COLUMN,...", lambda word: tuple(_list(word)), joined_names),
    tyro.conf.arg(help_behavior_hint="(default: all)"),
]
Dropped = Annotated[
    tuple[str, ...],
    _one("COLUMN,...", lambda word: tuple(_list(word)), joined_names),
    tyro.conf.arg(help_behavior_hint="(default: none)"),
]
Rule = Annotated[str | None, _choice(*OPTIMIZERS), _chosen("default: adamw")]
Fall = Annotated[
    str | None,
    _choice("constant", "step", "exponential", "cosine", "inverse", "plateau"),
    _chosen("default: cosine"),
]
Init = Annotated[str | float | None, _one("NAME|STD,...", several(_init)), _chosen("default: auto")]


def _floats(fits: Callable[[float], bool], what: str, read: Callable[[str], Any] = float) -> Any:
    return _one("FLOAT,...", numbers(read, fits, f"a number {what}"))


def _is_share(value: float | None) -> bool:
    return value is not None and 0 <= value < 1


def _is_positive(value: float | None) -> bool:
    return value is not None and 0 < value < math.inf


def _is_count(value: int | None) -> bool:
    return value is not None and 1 <= value <= LARGEST


SHARE = "from 0 to below 1"
Count = Annotated[
    int | None,
    _one("INT,...", numbers(_or_none(int), _is_count, "a whole number above 0")),
    _chosen("by default chosen by the number of samples"),
]
Seeds = Annotated[int, _one("INT,...", seeds)]
Dropout = Annotated[
    float | None,
    _floats(_is_share, SHARE, _or_none(float)),
    _chosen("by default 0, for deep-cnn 0.5"),
]
Beta = Annotated[
    float | None,
    _floats(_is_share, SHARE, _or_none(float)),
    _chosen("by default 0.98 for adamw, 0.999 for adam"),
]
Decay = Annotated[
    float | None,
    _floats(lambda v: v == 0 or _is_positive(v), "from 0 on", _or_none(float)),
    _chosen("by default 0; for adamw chosen by the number of samples"),
]
L1 = Annotated[float, _floats(lambda v: v == 0 or _is_positive(v), "from 0 on")]
Clip = Annotated[
    float | None,
    _floats(lambda v: v is None or _is_positive(v), "above 0", _or_none(float)),
]
Float = Annotated[float | None, _one("FLOAT", _or_none(float))]
Pool = Annotated[int | None, _one("INT", _or_none(int)), _chosen("default: 2")]
Int = Annotated[int | None, _one("INT", _or_none(int))]
File = Annotated[Path | None, _one("PATH", _or_none(_file))]
ModelOrKind = Annotated[Path | None, _one("PATH|cnn|deep-cnn", _or_none(_file))]
# A column may be called none, so this word does not leave the option open.
Column = Annotated[
    str | None,
    _one("NAME", _text),
    tyro.conf.arg(help_behavior_hint="(default: the last one)"),
]
IdColumn = Annotated[
    str | None, _one("NAME", _text), tyro.conf.arg(help_behavior_hint="(default: none)")
]
Library = Annotated[str, _choice("auto", *LIBRARIES)]

# Each rule's own default, except where another rate suits more networks. Those of Adam fall to 0.
LEARNING_RATES: dict[str, float] = {
    **{name: rule.lr for name, rule in OPTIMIZERS.items()},
    "sgd": 0.1,
    "rmsprop": 0.001,
    "adam": 0.01,
    "adamw": 0.01,
}


def _rates() -> str:
    """0.1 (sgd), 0.01 (momentum, nesterov, adagrad), ..."""
    rates = sorted(set(LEARNING_RATES.values()), reverse=True)
    names = [", ".join(n for n, lr in LEARNING_RATES.items() if lr == rate) for rate in rates]
    return ", ".join(f"{rate:g} ({n})" for rate, n in zip(rates, names, strict=True))


LearningRate = Annotated[
    float | None,
    _floats(_is_positive, "above 0", _or_none(float)),
    tyro.conf.arg(help=f"Learning rate; by default {_rates()}."),
]
