"""Advice about wrong words on the command line, in one line, before tyro reads them.

Most wrong words are right ones of another tool: --learning-rate, --n-epochs, --gpu. `suggest` knows
the usual names of Keras, PyTorch Lightning, scikit-learn and XGBoost, finds slips of the pen, and
says what to write. What it does not object to, tyro accepts as far as names go.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from xpnet.commands.options import Option
from xpnet.commands.several import SWEPT
from xpnet.errors import listed, shortened, shown

__all__ = ["suggest", "wants_help"]

# What other tools call an option, by what it is called here, or by what one writes here: the first
# word of an entry must be an option of the command. MODEL and FILE are words without an option.
ELSEWHERE = {
    "--lr": "learning-rate learning-rate-init base-lr eta step-size rate init-lr initial-lr",
    "--epochs": "n-epochs num-epochs max-epochs nb-epochs max-iter n-iter num-iter iterations "
    "num-boost-round n-estimators n-rounds num-rounds num-train-epochs",
    "--batch-size": "batch bs batchsize minibatch mini-batch minibatch-size train-batch-size "
    "per-device-train-batch-size",
    "--batch": "batch-size bs batchsize samples n",
    "--hidden": "layers hidden-layers hidden-layer-sizes hidden-sizes hidden-size hidden-units "
    "hidden-dim hidden-dims n-hidden num-hidden units neurons n-units width sizes layer-sizes "
    "num-layers n-layers",
    "--model": "architecture arch net network model-type network-type",
    "--channels": "filters n-filters num-filters conv convs conv-channels conv-filters "
    "n-channels num-channels out-channels conv-layers",
    "--kernel": "kernel-size filter-size kernels",
    "--padding": "pad border",
    "--pool": "pool-size pooling max-pool maxpool",
    "--batch-norm": "batchnorm bn batch-normalization batch-normalisation norm",
    "--augment": "augmentation data-augmentation aug augmentations transforms flip shift",
    "--activation": "act activations activation-function nonlinearity",
    "--loss": "objective criterion loss-fn loss-function",
    "--optimizer": "optim solver opt updater",
    "--schedule": "scheduler lr-scheduler lr-schedule lr-decay learning-rate-schedule "
    "lr-scheduler-type decay-schedule",
    "--warmup": "warmup-steps warm-up num-warmup-steps",
    "--weight-decay": "l2 wd alpha reg-lambda l2-reg l2-regularization l2-penalty penalty "
    "regularization weight-penalty lambda",
    "--l1": "lasso l1-reg l1-regularization l1-penalty reg-alpha l1-lambda l1-weight",
    "--clip-norm": "gradient-clip-val gradient-clip grad-clip clip clipnorm clip-grad "
    "clip-gradient clip-grad-norm max-grad-norm global-clipnorm grad-norm",
    "--dropout": "drop-rate dropout-rate drop-prob dropout-prob dropout-p",
    "--init": "initializer kernel-initializer weight-init initialization init-std",
    "--init-from": "pretrained finetune fine-tune init-model warm-start load load-model "
    "from-model start-from base-model initial-model weights-file",
    "--val-fraction": "val-split validation-split validation-fraction val-size validation-size "
    "valid-fraction valid-split eval-fraction eval-split dev-fraction val validation",
    "--test-fraction": "test-size test-split holdout hold-out test-ratio",
    "--patience": "early-stop early-stopping early-stopping-rounds early-stopping-patience "
    "n-iter-no-change stop-after",
    "--metric": "metrics eval-metric monitor scoring score",
    "--class-weight": "class-weights balance pos-weight scale-pos-weight class-balance",
    "--threshold": "cutoff cut-off decision-threshold",
    "--seed": "random-state random-seed rng-seed rng seed-everything manual-seed",
    "--folds": "cv k-folds k-fold kfold n-splits n-folds num-folds nfold cross-validate "
    "cross-validation",
    "--ensemble": "ensembles bagging n-models num-models",
    "--data": "train train-data train-file training-data file input input-file csv path data-file "
    "data-path dataset-path dataset-file",
    "--test-data": "test test-file test-set eval-data eval-file",
    "--label-column": "label target target-column targets y label-col label-name class-column "
    "response output-column dependent",
    "--drop": "drop-columns exclude ignore ignore-columns skip remove drop-cols without",
    "--columns": "cols usecols use-columns feature-columns features only include",
    "--id": "id-column id-col index index-col ids row-id key",
    "--standardize": "normalize normalise standardise scale scaling scaler",
    "--dtype": "float float-type data-type",
    "--precision": "amp fp16 half mixed-precision bf16",
    "--backend": "framework library engine lib",
    "--out": "output output-dir outdir out-dir save save-dir save-to save-path log-dir logdir "
    "output-file default-root-dir run-dir run-name name folder dest",
    "--resume": "continue restart checkpoint ckpt ckpt-path resume-from resume-from-checkpoint "
    "from-checkpoint",
    "--config": "cfg settings params-file config-file conf yaml",
    "--dry-run": "dryrun check test-run fast-dev-run validate-only",
    "--plot": "plots figures draw graph pictures figure",
    "--quiet": "silent no-verbose no-progress no-progress-bar disable-tqdm",
    "--task": "problem mode kind problem-type",
    "--header no": "no-header headerless without-header",
    "--device cuda": "gpu cuda use-gpu use-cuda gpus n-gpus num-gpus accelerator gpu-id",
    "--device cpu": "cpu no-gpu no-cuda use-cpu",
    "--class-weight balanced": "balanced is-unbalance",
    "MODEL": "model checkpoint run model-file model-path load-model load weights ckpt",
    "FILE": "data file input input-file csv path test-data data-file predict-file",
}

# Words that no option here replaces by itself.
ADVICE = {
    "--momentum": ("--optimizer", "--optimizer momentum or nesterov has a momentum of 0.9"),
    "--beta1": ("--optimizer", "--optimizer adam has the betas 0.9 and 0.999"),
    "--beta2": ("--optimizer", "--optimizer adam has the betas 0.9 and 0.999"),
    "--betas": ("--optimizer", "--optimizer adam has the betas 0.9 and 0.999"),
    "--sweep": ("--folds", "several values make a sweep: --lr 0.1,0.01 --seed 0..9"),
    "--grid": ("--folds", "several values make a sweep: --lr 0.1,0.01 --seed 0..9"),
    "--grid-search": ("--folds", "several values make a sweep: --lr 0.1,0.01 --seed 0..9"),
    "--param-grid": ("--folds", "several values make a sweep: --lr 0.1,0.01 --seed 0..9"),
    "--n-seeds": ("--folds", "--seed 0..9 trains ten networks"),
    "--repeats": ("--folds", "--seed 0..9 trains ten networks"),
    "--verbose": ("--quiet", "a run shows its progress anyway; --quiet turns that off"),
    "--shuffle": ("--epochs", "every epoch is shuffled anyway, by --seed"),
    "--no-shuffle": ("--epochs", "every epoch is shuffled, by --seed"),
    "--stratify": ("--test-fraction", "a split keeps the classes' shares anyway"),
    "--num-classes": ("--task", "the data says how many classes there are"),
    "--n-classes": ("--task", "the data says how many classes there are"),
    "--input-size": ("--task", "the data says how many inputs there are"),
    "--input-dim": ("--task", "the data says how many inputs there are"),
}

SHORT = {
    "-e": "--epochs", "-b": "--batch-size", "-o": "--out", "-d": "--data", "-i": "--data",
    "-q": "--quiet", "-s": "--seed", "-c": "--config", "-m": "--model", "-v": "--verbose",
    "-f": "--data", "-l": "--lr", "-n": "--epochs",
}  # fmt: skip

FILES = (
    ".csv", ".tsv", ".npz", ".npy", ".gz", ".parquet", ".txt", ".json", ".xlsx", ".feather",
)  # fmt: skip
# How the messages of int() and float() begin.
PYTHONS_OWN = ("could not convert", "invalid literal")
TRUTH = ("true", "false", "yes", "no", "on", "off", "1", "0")


@dataclass(frozen=True)
class _Word:
    """A word of the command line, and what it is."""

    text: str
    kind: str  # "flag", "unknown" flag, "value" of a flag, "plain", "none" (a value is missing)
    option: Option | None = None  # which flag it is or follows


def _swapped(word: str) -> str:
    """--batch_size=5 as --batch-size: tyro takes both spellings."""
    name = word.partition("=")[0]
    return name[:2] + name[2:].replace("_", "-")


def _flags(options: Sequence[Option]) -> dict[str, Option]:
    found = {}
    for option in options:
        if option.flag:
            found[option.flag] = option
            if not option.metavar:
                found["--no-" + option.flag[2:]] = option
    return found


def _looks_like_a_flag(word: str) -> bool:
    """As tyro sees it: a negative number is a value."""
    negative = word.startswith("-") and word[1:].lower() in ("inf", "infinity", "nan")
    return word.startswith("-") and word.lstrip("-")[:1].isalpha() and not negative


def _read(args: Sequence[str], options: Sequence[Option]) -> Iterator[_Word]:
    """Say of each word what it is, by tyro's rules."""
    flags = _flags(options)
    words = list(args)
    after: Option | None = None  # the flag before this word, if its value stands between them
    while words:
        word = words.pop(0)
        if word == "--":
            yield from (_Word(rest, "plain") for rest in words)
            return
        option = flags.get(_swapped(word)) if word.startswith("--") else None
        if option is None and word in ("-h", "--help"):
            yield _Word(word, "help")
        elif option is None:
            yield _Word(word, "unknown" if _looks_like_a_flag(word) else "plain", after)
            continue
        else:
            yield _Word(word, "flag", option)
            after = option
            if "=" in word:
                value = word.partition("=")[2]
                if option.metavar or value:
                    yield _Word(value, "value" if option.metavar else "plain", option)
            elif option.metavar:
                if not words or words[0] == "--" or _swapped(words[0]) in flags:
                    yield _Word("", "none", option)
                elif _looks_like_a_flag(words[0]) and words[0] not in option.choices:
                    yield _Word(words[0], "none", option)
                else:
                    yield _Word(words.pop(0), "value", option)
                while option.many and words and not _looks_like_a_flag(words[0]):
                    yield _Word(words.pop(0), "value", option)


def wants_help(args: Sequence[str], options: Sequence[Option]) -> bool:
    """Whether the words ask for help: -h or --help, but not as the value of an option.

    Examples
    --------
    >>> wants_help(["--help"], ())
    True
    """
    return any(word.kind == "help" for word in _read(args, options))


def suggest(args: Sequence[str], options: Sequence[Option]) -> str | None:
    """Return what is wrong with the first wrong word, and what to write; None if nothing is.

    Parameters
    ----------
    args : sequence of str
        The words after the command.
    options : sequence of Option
        What the command takes, see `xpnet.commands.options.options_of`.

    Returns
    -------
    str or None
        One line. None also where a word's value is wrong in a way that its reader explains better.

    Examples
    --------
    >>> suggest(["--learning-rate", "0.1"], [Option("lr", "--lr", "FLOAT")])
    'unknown option --learning-rate; did you mean --lr?'
    """
    if args and args[0].startswith("--tyro-"):  # completions for the shell
        return None
    read = [*_read(args, options)]
    places = [option for option in options if not option.flag]
    many = any(option.many for option in places)
    room = len(args) if many else len(places)
    for i, word in enumerate(read):
        line = None
        if word.kind == "unknown":
            line = _unknown(word, read[i + 1 :], options)
        elif word.kind == "none":
            line = _no_value(word)
        elif word.kind == "value":
            line = _wrong_value(word, read[i + 1 :], options)
        elif word.kind == "plain":
            room -= 1
            if room < 0:
                line = _stray(read, i, options)
            elif many and _stands_apart(read, i):
                line = f"{shown(word.text)} stands apart; write {_usage(places)} together"
        if line is not None:
            return line
    return _missing(places, sum(word.kind == "plain" for word in read))


def _stands_apart(read: Sequence[_Word], i: int) -> bool:
    """Whether an option stands between this word and others like it; tyro then loses it."""
    return any(w.kind == "plain" for w in read[:i]) and read[i - 1].kind != "plain"


def _no_value(word: _Word) -> str:
    option, text = word.option, word.text
    assert option is not None
    line = f"{option.flag} needs a value: {option.flag} {option.metavar}"
    if text:
        line += f"; if that is {shown(text)}, write {option.flag}={shortened(text)}"
    return line


def _missing(places: Sequence[Option], given: int) -> str | None:
    """Say that there are fewer words than the command needs."""
    needed = [option.metavar for option in places if option.needed]
    if given >= len(needed):
        return None
    return f"{needed[given]} is missing; the command takes {_usage(places)}"


def _usage(places: Sequence[Option]) -> str:
    return " ".join(option.metavar + "..." * option.many for option in places)


def _wrong_value(word: _Word, rest: Sequence[_Word], options: Sequence[Option]) -> str | None:
    """What is wrong with a value, as far as no other part of the run is asked."""
    option, value = word.option, word.text
    assert option is not None
    line = f"{option.flag} is {shown(value)}"
    if option.choices and value not in option.choices:
        if all(part in option.choices for part in value.split(",")):
            return _one_value(option, value, options)
        if option.field == "model" and "\0" not in value and Path(value).exists():
            return f"{line}; to train that model on, write --init-from {shown(value)}"
        close = _closest(value, option.choices)
        return (
            f"{line}; {f'did you mean {close}?' if close else f'expected {listed(option.choices)}'}"
        )
    if any(other.kind == "flag" and other.option is option for other in rest):
        return None  # the last value counts
    if option.metavar.startswith("N,") and not _are_sizes(value):
        sizes = _numbers([value, *(other.text for other in _plain(rest))])
        return f"{line}; {f'write {option.flag} {sizes}' if sizes else 'expected sizes: 50,20'}"
    kind, several, _ = option.metavar.partition(",")
    number = {"INT": int, "FLOAT": float}.get(kind)
    listed_here = (several and "," in value) or (".." in value and option.field == "seed")
    if number is not None and not (listed_here or value == "none" or _is(number, value)):
        if "," in value and (number is int or not _point(value)):
            return _one_value(option, value, options)
        if number is int:
            return f"{line}; expected a whole number"
        return f"{line}; expected a number{_point(value)}"
    return _refused(option, value, line)


def _refused(option: Option, value: str, line: str) -> str | None:
    """What the reader of an option says about a value; None if it takes it."""
    try:
        if option.read is not None:
            option.read(value)
    except ValueError as error:
        if type(error) is not ValueError or str(error).startswith(PYTHONS_OWN):
            return f"{line}; expected {option.metavar}"
        if option.metavar.startswith("FLOAT") and (point := _point(value)):
            return f"{line}; expected a number{point}"
        return f"{option.flag}: {error}"
    return None


def _point(value: str) -> str:
    """How to write a number with a decimal comma; "" if it is none."""
    point = value.replace(",", ".")
    return f", written {point}" if point != value and _is(float, point) else ""


def _are_sizes(value: str) -> bool:
    networks = [part for part in value.split("/") if part not in ("", "none")]
    return all(_is(int, size) for network in networks for size in network.split(","))


def _one_value(option: Option, value: str, options: Sequence[Option]) -> str:
    """Say of several values that the option takes one, and which options take several."""
    of_train = any(other.field == "folds" for other in options)
    several = [other.flag for other in options if other.field in SWEPT]
    where = f"; a sweep is over {', '.join(several)}" if of_train else ""
    return f"{option.flag} is {shown(value)}, but takes one value{where}"


def _is(kind: type[int] | type[float], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _closest(word: str, names: Sequence[str]) -> str | None:
    """The one of the names that a slip of the pen turns into the word."""
    by_lower = {name.lower(): name for name in names}
    found = difflib.get_close_matches(word.lower(), by_lower, 1, 0.75)
    return by_lower[found[0]] if found else None


def _unknown(word: _Word, rest: Sequence[_Word], options: Sequence[Option]) -> str:
    """What to write in place of an option that the command does not have."""
    given = word.text.partition("=")[0]
    line = f"unknown option {shortened(given)}"
    flags = _flags(options)
    places = {option.metavar for option in options if not option.flag}
    name = _swapped(given).lower()
    name = SHORT.get(name, "--" + name.lstrip("-"))
    if name in flags:
        return f"{line}; did you mean {name}?"
    needs, advice = ADVICE.get(name, ("", ""))
    if needs in flags:
        return f"{line}; {advice}"
    for here, elsewhere in ELSEWHERE.items():
        if name[2:] not in elsewhere.split():
            continue
        if here in places:
            return f"{line}; write the {here} without an option"
        if here.partition(" ")[0] in flags:
            if here == "--hidden" and (sizes := _sizes_after(word, rest)):
                return f"{line}; write --hidden {sizes}"
            if here == "--patience" and "--val-fraction" in flags:
                return f"{line}; did you mean --patience, with --val-fraction?"
            return f"{line}; did you mean {here}?"
    if (written := _as_choice(name[2:], options)) is not None:
        return f"{line}; did you mean {written}?"
    close = _closest(name, [*flags])
    return f"{line}; did you mean {close}?" if close else line


def _as_choice(word: str, options: Sequence[Option]) -> str | None:
    """--optimizer adam, for adam: what only one option takes."""
    found = [option.flag for option in options if option.flag and word.lower() in option.choices]
    return f"{found[0]} {word.lower()}" if len(found) == 1 else None


def _numbers(words: Sequence[str]) -> str:
    """50,20 for "50", "20" or "[50,", "20]" or "50x20"; "" if they are anything else."""
    text = ",".join(words).strip("()[]{}")
    parts = [part for part in re.split(r"[,;\s]+|(?<=\d)x(?=\d)", text) if part]
    return ",".join(parts) if parts and all(part.isdecimal() for part in parts) else ""


def _sizes_after(word: _Word, rest: Sequence[_Word]) -> str:
    """The sizes of layers that come after an option, as --hidden takes them; may be ""."""
    texts = [word.text.partition("=")[2]] if "=" in word.text else []
    sizes = _numbers([*texts, *(other.text for other in _plain(rest))])
    return sizes if "," in sizes else ""


def _stray(read: Sequence[_Word], i: int, options: Sequence[Option]) -> str:
    """What to do about a word that belongs to no option."""
    word, before = read[i], read[i].option
    flags = _flags(options)
    places = _usage([option for option in options if not option.flag])
    unexpected = f"unexpected {shown(word.text)}"
    if before is not None and not before.metavar and word.text.lower() in TRUTH:
        return f"{before.flag} takes no value: write {before.flag} or --no-{before.flag[2:]}"
    if before is not None and "," in before.metavar and not places:
        texts = _together(read, i)
        if _are_networks(texts, before):
            return f"write {before.flag} {shortened('/'.join(texts))} for {len(texts)} networks"
        sizes = (
            _numbers(texts) if before.metavar.startswith("N,") else ",".join(texts).strip("()[]")
        )
        number = before.metavar.startswith(("INT", "FLOAT"))
        if sizes and not (number and not all(_is(float, text) for text in sizes.split(","))):
            return f"write {before.flag} {re.sub(',+', ',', shortened(sizes))}, without spaces"
    name, equals, value = word.text.partition("=")
    bare = "--" + name.replace("_", "-").lower()
    if bare in flags:
        written = f"{bare} {shortened(value)}" if equals else bare
        return f"{unexpected}; did you mean {written}?"
    if "--data" in flags and word.text.lower().endswith(FILES):
        given = any(w.kind == "flag" and w.option is flags["--data"] for w in read)
        if given and "--test-data" in flags:
            return f"{unexpected}; --data takes one file, and --test-data another"
        return f"{unexpected}; write --data {shortened(word.text)}"
    if (choice := _as_choice(word.text, options)) is not None:
        return f"{unexpected}; did you mean {choice}?"
    if places:
        return f"{unexpected}; the command takes {places}"
    if before is not None:
        return f"{unexpected}; {before.flag} takes {'one' if before.metavar else 'no'} value"
    return f"{unexpected}; only options are expected here"


def _are_networks(texts: Sequence[str], option: Option) -> bool:
    """Whether the words after --hidden are several networks, one of which has several layers."""
    sizes = all(re.fullmatch(r"\d+(,\d+)*", text) for text in texts)
    return option.field == "hidden" and sizes and len(texts) > 1 and "," in "".join(texts)


def _together(read: Sequence[_Word], i: int) -> list[str]:
    """The words around number i that follow the same option."""
    first = i
    while read[first].kind != "flag":
        first -= 1
    value = [word.text for word in read[first + 1 : i] if word.kind == "value"]
    return value + [word.text for word in _plain(read[first + 1 + len(value) :])]


def _plain(words: Sequence[_Word]) -> Iterator[_Word]:
    """The words up to the next option."""
    return takewhile(lambda word: word.kind == "plain", words)
