"""The settings of ``python -m xpnet.train``: a dataclass, its command-line flags, its TOML file."""

from __future__ import annotations

import codecs
import csv
import io
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
import tyro

from xpnet import optim
from xpnet.backend.select import LIBRARIES
from xpnet.commands.exits import complain
from xpnet.commands.several import (
    LISTS,
    MOST,
    SWEPT,
    combinations,
    first,
    is_sweep,
    joined,
    numbers,
    seeds,
    several,
    swept,
)
from xpnet.commands.usage import read
from xpnet.data.augmentation import Augmentation
from xpnet.errors import LARGEST, CheckpointError, UsageError, real, shown, whole
from xpnet.files import open_regular
from xpnet.layers.activations import ACTIVATIONS
from xpnet.losses import LOSSES
from xpnet.metrics import METRICS
from xpnet.models import checkpoint, schema
from xpnet.models.kinds import KINDS, OF_IMAGES, layers_of, takes_images
from xpnet.models.network import Network
from xpnet.optim import OPTIMIZERS
from xpnet.parallel.group import TIMEOUT
from xpnet.trainer.defaults import BOOK_OF, defaults

__all__ = [
    "Config",
    "Kind",
    "blocks_of",
    "filters_of",
    "of_model",
    "parse",
    "refuse_filters",
    "schedule_of",
    "settings_of",
    "settled",
    "settled_sweep",
    "to_toml",
    "weights_of",
]


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


# The largest settings file, in bytes.
LARGEST_FILE = 1 << 20


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


def blocks_of(word: str) -> tuple[int | str, ...]:
    """Read blocks of filters: "30", or "16-16,32" with two convolutions in the first block.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> blocks_of("16-16,32")
    ('16-16', 32)
    """
    found: list[int | str] = []
    for block in word.split(","):
        numbers = block.strip().split("-")
        if not all(n.isascii() and n.isdigit() and 1 <= int(n) <= LARGEST for n in numbers):
            raise ValueError(
                f"{word!r} is not numbers of filters, such as 16,32, or 16-16,32-32 for blocks of "
                "two convolutions"
            )
        plain = "-".join(str(int(n)) for n in numbers)
        found.append(plain if len(numbers) > 1 else int(plain))
    return tuple(found)


def nested(blocks: Sequence[int | str]) -> list[list[int]]:
    """Return blocks as `xpnet.cnn` takes them.

    Examples
    --------
    >>> nested(("16-16", 32))
    [[16, 16], [32]]
    """
    return [[int(n) for n in str(block).split("-")] for block in blocks]


def filter_setting(word: Any) -> Any:
    """Return a setting of filters as `xpnet.cnn` takes it: a number, same, or one for each filter.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> filter_setting("3"), filter_setting("same"), filter_setting("1-1,1-2")
    (3, 'same', [[1, 1], [1, 2]])
    """
    parts = [part.strip().split("-") for part in str(word).split(",")]
    if parts == [["same"]]:
        return "same"
    if not all(n.isascii() and n.isdigit() and int(n) <= LARGEST for part in parts for n in part):
        raise ValueError(f"{word!r} is neither a number nor one for each convolution: 3-3,5-5")
    numbers = [[int(n) for n in part] for part in parts]
    return numbers[0][0] if numbers == [numbers[0][:1]] else numbers


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


def filters_of(settings: Any) -> dict[str, Any]:
    """Return --channels, --kernel, --padding and --pool as `network_of_kind` takes them."""
    channels = settings.channels
    found = {"channels": None if channels is None else nested(channels), "pool": settings.pool}
    for name in ("kernel", "padding"):
        word = getattr(settings, name)
        found[name] = None if word is None else filter_setting(word)
    return found


def refuse_filters(settings: Any, *others: str) -> None:
    """Refuse options of convolutions, and others of images, for a network that has none.

    Raises
    ------
    UsageError
    """
    for name in (*OF_IMAGES, *others):
        if getattr(settings, name) is not None:
            raise UsageError(f"--{name} is for images: add --model cnn, or leave it out")


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
# What has several values in a sweep is read as `Several`; only this file and those of sweeps see
# such a config. All others get one of `first`.
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


@dataclass(frozen=True)
class Config:
    """Train a network on the CPU or a GPU. Without options, train on the built-in digits.

    Several values make a sweep: --lr 0.1,0.01 --seed 0..9 trains a network for each combination,
    many at once, lists the settings, the best first, and keeps the best network. This is for
    --channels, --hidden and --activation (with a slash between two: 50/100,50), --init, --dropout,
    --lr, --weight-decay, --l1, --beta2, --clip-norm, --batch-size, --epochs and --seed.
    """

    device: str = "auto"
    """cpu, cuda, cuda:N, or auto: cuda if it is usable, else cpu."""
    backend: Library = "auto"
    """Array library; auto is numpy on the CPU and cupy on CUDA."""
    dataset: Literal["digits", "mnist", "fashion-mnist"] = "digits"
    """Data set by name: digits is built in; xpnet downloads the others once."""
    data_dir: File = None
    """Folder with the IDX files of mnist or fashion-mnist; xpnet then downloads nothing."""
    data: File = None
    """Your own data: a .csv, .tsv (.gz too) or .parquet table with a label column, .npz with x and
    t or x_train and y_train, or .npy with --labels: one file, a folder, or a pattern such as
    'part-*.npy'."""
    labels: File = None
    """.npy file with the targets for a --data file.npy, or a pattern: a file for each of --data."""
    label_column: Column = None
    """Label column of a table, by name or number."""
    header: Literal["auto", "yes", "no"] = "auto"
    """Whether the first line of a .csv or .tsv file has the names of the columns."""
    columns: Columns = ()
    """The columns of a table to use as features, by name or number."""
    drop: Dropped = ()
    """Columns of a table to leave out."""
    id: IdColumn = None
    """Column of a table that names each row: no feature; xpnet.predict prints it."""
    test_data: File = None
    """File to test on, like --data; by default xpnet sets a part of the data aside."""
    test_labels: File = None
    """.npy file with the targets for a --test-data file.npy."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """auto treats whole numbers and text as classes, and other numbers as regression targets."""
    standardize: bool = True
    """Scale your own float features (and regression targets) to mean 0, standard deviation 1."""
    test_fraction: float = 0.2
    """Share of the data to set aside for the test, if the data has no test part."""
    val_fraction: float = 0.0
    """Share of the training part to measure on after each epoch; 0 sets none aside. A sweep chooses
    by this part, and takes 0.1 if you name neither this nor --folds."""
    preset: Literal["auto", "book"] = "auto"
    """auto chooses network and training by the number of samples. book takes those of the book,
    K. Saitoh's Deep Learning from Scratch: 50 sigmoid units, SGD 0.1, batch 100, 17 epochs; with
    --model cnn and deep-cnn relu, Adam 0.001, batch 100, 20 epochs."""
    model: Kind = "mlp"
    """mlp takes rows of features; cnn and deep-cnn take images: convolutions, max pools, then
    hidden layers. Without --channels these are the networks of the book's chapters 7 and 8."""
    channels: ChannelsOrNone = None
    """Filters of the convolutions of a cnn: 16-16,32-32 has two blocks of two, and each block ends
    with a max pool."""
    kernel: Kernel = None
    """Size of the filters."""
    padding: Padding = None
    """Zeros around the images before each convolution; same keeps their size."""
    pool: Pool = None
    """Size of the max pool after each block; 1 for none."""
    batch_norm: bool = False
    """Normalize each hidden layer's values over the batch, before the activation."""
    hidden: SizesOrNone = None
    """Sizes of the hidden layers; "" for none."""
    activation: ActivationsOrNone = None
    loss: LossOrAuto = "auto"
    """auto is softmax for classes and squared for a regression; hinge is the loss of an SVM. The
    last four are for a regression; poisson is for counts, and the network then predicts rates."""
    quantile: Float = None
    """The quantile that --loss quantile predicts; by default 0.5, the median."""
    class_weight: ClassWeight = None
    """How much each class counts in the loss: balanced gives all classes the same total weight,
    and no=1,yes=5 says it by name."""
    threshold: Threshold = None
    """For two classes: predict the second where its probability is at least this. F1 finds the
    threshold with the best F1 on the validation part. By default the more probable class."""
    dropout: Dropout = None
    """Share of the hidden values that dropout sets to 0 in training; of a cnn those behind the
    blocks."""
    init: Init = None
    """Initial weights: he, xavier, a standard deviation, or auto: he for rectifiers."""
    optimizer: Rule = None
    """Update rule."""
    lr: LearningRate = None
    schedule: Fall = None
    """How the learning rate falls: step divides it by 10 after each third of the run, exponential
    lowers it to 1 %, cosine to 0, inverse as 1/t to 10 %. plateau halves it when the validation
    loss (or --metric; without a validation part the training loss) has not improved for 5 epochs,
    or for half of --patience if that is less."""
    warmup: int = 0
    """Steps in which the learning rate grows linearly before the schedule starts."""
    weight_decay: Decay = None
    """L2 penalty on the weights; adamw decouples it."""
    l1: L1 = 0.0
    """L1 penalty on the weights: many come close to 0."""
    beta2: Beta = None
    """How slowly adam and adamw forget the squares of old gradients."""
    clip_norm: Clip = None
    """Largest norm of the gradient."""
    augment: Augment = None
    """Move each image of a step up to so many pixels, 2 if you say none, and flip every other one
    left to right: shift,flip. For cnn and deep-cnn."""
    batch_size: Count = None
    """Samples per step."""
    epochs: Count = None
    """Passes through the training part."""
    patience: Int = None
    """Stop after this many epochs without a smaller validation loss, or a better --metric; keep the
    best weights."""
    metric: Metric = None
    """What --patience watches in place of the validation loss: f1, balanced_accuracy, roc_auc, mae
    and others."""
    init_from: File = None
    """Train on from this model, or folder of a run: with its network, weights, classes and encoding
    of the columns, and its optimizer's state if it fits."""
    target_acc: Float = None
    """End with status 4 if the test accuracy is below this."""
    seed: Seeds = 0
    """Random seed for split, initial weights, batch order and dropout; 0..9 are ten seeds. A sweep
    splits by the first one."""
    folds: Int = None
    """Cross-validate: split the training part into so many, hold each out once to measure every
    setting on it, then train the best setting on all of them."""
    ensemble: bool = False
    """Of a sweep, also measure the mean answer of the networks of the best setting, and keep all
    networks."""
    dtype: Literal["float32", "float64"] = "float32"
    """Data type of parameters and activations."""
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"
    """Precision of the matrix products in training. GPUs support all of them; some CPUs support
    bfloat16 with torch or jax."""
    out: File = None
    """Folder of the run; by default runs/DATASET-TIME."""
    resume: File = None
    """Continue the run in this folder with its settings; other options override them."""
    config: File = None
    """TOML file with settings, named as these options; the options you give override it."""
    print_config: bool = False
    """Print all settings as TOML and stop."""
    dry_run: bool = False
    """Check device, data and settings, describe the training, and stop."""
    plot: bool = False
    """Also draw curves, mistakes or predictions, weights and activations; needs matplotlib."""
    quiet: bool = False
    """Print only errors."""
    rank_timeout: float = TIMEOUT
    """Under mpirun: if one of the processes is lost, the others end within so many seconds."""


# The types of options that take any text.
FREE = ("File", "Column", "Columns", "Dropped", "IdColumn", "ClassWeight", "str")
# These options control one call and do not belong to the run. A file may set the first three.
CALL_ONLY = ("out", "plot", "quiet", "resume", "config", "print_config", "dry_run")


PROG = "python -m xpnet.train"
# The options in --help, in this order; a test holds that each is in one group.
GROUPS = {
    "Data": (
        "data", "labels", "label_column", "header", "columns", "drop", "id", "task", "dataset",
        "data_dir", "test_data", "test_labels", "test_fraction", "val_fraction", "standardize",
    ),
    "Network": (
        "preset", "model", "channels", "kernel", "padding", "pool", "batch_norm", "hidden",
        "activation", "loss", "quantile", "dropout", "init", "init_from", "threshold",
    ),
    "Training": (
        "epochs", "batch_size", "augment", "optimizer", "lr", "schedule", "warmup", "weight_decay",
        "l1",
        "beta2", "clip_norm", "class_weight", "patience", "metric", "seed", "folds", "ensemble",
    ),
    "Device": ("device", "backend", "dtype", "precision"),
    "Run": (
        "out", "resume", "config", "print_config", "dry_run", "plot", "target_acc", "quiet",
        "rank_timeout",
    ),
}  # fmt: skip
EXAMPLES = (
    "--data titanic.csv --label-column survived --drop name",
    "--data fraud.csv --class-weight balanced --plot",
    "--dataset mnist --hidden 512,256 --device cuda",
    "--dataset mnist --model cnn --channels 16-16,32-32 --augment shift",
    "--data titanic.csv --lr 0.03,0.01,0.003 --hidden 50/100,50 --seed 0..4",
)


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


def joined_block(block: Any) -> int | str:
    """Return a block of filters as `blocks_of` does.

    Examples
    --------
    >>> joined_block([16, 16]), joined_block([32]), joined_block(32)
    ('16-16', 32, 32)
    """
    if not isinstance(block, list):
        return int(block)
    words = [_joined_pair(each) for each in block]
    return "-".join(map(str, words)) if len(words) > 1 else words[0]


def _joined_pair(value: Any) -> int | str:
    """Return a size as a number; if rows and columns differ, as text that no option reads."""
    if not isinstance(value, list):
        return value if isinstance(value, str) else int(value)
    return int(value[0]) if len({*value}) == 1 else "x".join(map(str, value))


def filter_word(setting: Any) -> int | str:
    """Return a setting of filters as `filter_setting` reads it.

    Examples
    --------
    >>> filter_word(3), filter_word("same"), filter_word([[1, 1], [1, 2]])
    (3, 'same', '1-1,1-2')
    """
    return (
        setting if not isinstance(setting, list) else ",".join(map(str, map(joined_block, setting)))
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


# What a model brings along that is trained on.
OF_THE_MODEL = (
    "--model", "--channels", "--kernel", "--padding", "--pool", "--batch-norm", "--no-batch-norm",
    "--hidden", "--activation", "--loss", "--quantile", "--dropout", "--init", "--dtype",
)  # fmt: skip


def _refuse_another_network(args: Sequence[str]) -> None:
    for word in args:
        if (flag := word.partition("=")[0]) in OF_THE_MODEL:
            raise UsageError(f"{flag} is the model's own with --init-from: leave it out")


def read_toml(file: Path) -> dict[str, Any]:
    """Return the settings in a TOML file.

    Raises
    ------
    UsageError
        The file cannot be read, is too large, or is not TOML.
    """
    try:
        with open_regular(file) as stream:
            content = stream.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise UsageError(f"{file}: is larger than {LARGEST_FILE:,} bytes; expected settings")
        return tomllib.loads(content.decode("utf-8-sig"))  # Windows editors write a BOM
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: is not TOML: {' '.join(str(error).split())}") from error


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


def words_of(settings: Mapping[str, Any], file: Path) -> list[str]:
    """Return the settings of a file as command-line words.

    Parameters
    ----------
    settings : mapping from str to Any
        As `read_toml` returns them.
    file : Path
        Where they stand, for messages.

    Raises
    ------
    UsageError
        A key is no setting, or a value is no printable text.
    """
    known = {field.name for field in fields(Config)} - {*CALL_ONLY[3:]}
    free = {field.name for field in fields(Config) if field.type in FREE}
    words = []
    for key, value in settings.items():
        name = key.replace("-", "_")
        if name not in known:
            expected = ", ".join(sorted(known))
            raise UsageError(f"{file}: unknown key {shown(key)}; expected {expected}")
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
            continue
        word = str(value)
        if isinstance(value, list):
            nested = any(isinstance(part, list) for part in value)
            word = joined(value) if nested else joined_names(value) if value else ""
        # tyro prints a wrong word as it is; it finds none wrong where any text will do.
        if name not in free and not word.isprintable():
            raise UsageError(f"{file}: {key} is {shown(value)}; expected printable text")
        words.append(f"{flag}={word}")  # one word, because a value may begin with a dash
    return words


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


def settings_of(config: Config) -> dict[str, Any]:
    """Return the run's settings as plain values for --config, without those that are None."""
    settings: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in CALL_ONLY or value is None:
            continue
        if isinstance(value, Path):
            value = str(value.resolve())  # you may resume a run from another folder
        settings[field.name] = _listed(value) if isinstance(value, tuple) else value
    return settings


def _listed(values: Sequence[Any]) -> list[Any]:
    """TOML has lists, but no none."""
    return ["none" if v is None else _listed(v) if isinstance(v, tuple) else v for v in values]


def to_toml(config: Config, encoding: str = "utf-8") -> str:
    """Write the run's settings as TOML, which is UTF-8; escape for a stream in another encoding."""
    text = tomli_w.dumps(settings_of(config))
    if codecs.lookup(encoding).name == "utf-8":
        return text
    return "".join(c if c.isascii() else f"\\U{ord(c):08x}" for c in text)


# --schedule plateau waits for so many epochs, unless --patience would end the run by then.
LONGEST_WAIT = 5


def schedule_of(config: Config, steps: int) -> float | optim.Schedule:
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
