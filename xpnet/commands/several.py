"""Options with several values, which make a sweep: how a word holds them, and what they are.

Commas stand between values: ``--lr 0.1,0.01``. Seeds may be a range: ``--seed 0..9``. Where one
value has commas itself, a slash stands between the values: ``--hidden 50/100,50``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from xpnet.errors import LARGEST, counted

__all__ = [
    "LISTS", "MOST", "SWEPT", "Several", "combinations", "first", "in_words", "is_sweep", "joined",
    "numbers", "seeds", "several", "swept", "value_in_words",
]  # fmt: skip

C = TypeVar("C")

# The options that take several values, in the order of tables and plans.
SWEPT = (
    "channels", "hidden", "activation", "init", "dropout", "lr", "weight_decay", "l1", "beta2",
    "clip_norm", "batch_size", "epochs", "seed",
)  # fmt: skip
# Those whose values have commas themselves: a slash stands between two of them.
LISTS = ("channels", "hidden", "activation")
# The most models of a sweep, before folds.
MOST = 10_000


class Several(tuple[Any, ...]):
    """The values of an option in a sweep: two or more, each once."""

    __slots__ = ()


# -- Reading and writing -------------------------------------------------------------------


def several(read: Callable[[str], Any], between: str = ",") -> Callable[[str], Any]:
    """Return what reads one value as `read` does, and several ones as `Several`.

    The function that is returned raises ValueError for an empty value, and for one that stands
    there twice.

    Examples
    --------
    >>> several(int)("5"), several(int)("5,7")
    (5, (5, 7))
    """

    def read_all(word: str) -> Any:
        parts = word.split(between)
        if len(parts) == 1:
            return read(word)
        if not all(part.strip() for part in parts):
            raise ValueError(f"{word!r} has an empty value between two {_name(between)}")
        return _distinct([read(part) for part in parts])

    return read_all


def _name(between: str) -> str:
    return {",": "commas", "/": "slashes"}[between]


def _distinct(values: Sequence[Any]) -> Any:
    """Several values; one alone is no sweep."""
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{value_in_words(value)} stands there twice")
        seen.add(value)
    return Several(values) if len(values) > 1 else values[0]


def numbers(
    read: Callable[[str], Any], fits: Callable[[Any], bool], what: str
) -> Callable[[str], Any]:
    """Return what reads numbers with commas between them.

    A single one may be any number: the settings are checked later, and say more. Several ones must
    be possible, since ``0,1`` may also be one number, as other countries write it.

    Parameters
    ----------
    read : callable
        Reads one number.
    fits : callable
        Whether a value, of several ones, is possible.
    what : str
        What is possible, for the message: "a number above 0".
    """

    def among_others(word: str) -> Any:
        try:
            value = read(word)
        except ValueError:
            raise ValueError(f"{word!r} is not {what}; write 3,5,7 for three values") from None
        if not fits(value):
            raise ValueError(f"{word!r} is not {what}")
        return value

    return lambda word: several(among_others if "," in word else read)(word)


def seeds(word: str) -> Any:
    """Read seeds, and ranges of them: 0..9 has ten seeds.

    Examples
    --------
    >>> seeds("3"), seeds("0..3"), seeds("0..2,7")
    (3, (0, 1, 2, 3), (0, 1, 2, 7))
    """
    if "," not in word and ".." not in word:
        return int(word)
    found: list[int] = []
    for part in word.split(","):
        if not part.strip():
            raise ValueError(f"{word!r} has an empty value between two commas")
        low, dots, high = part.partition("..")
        try:
            begin, end = int(low), int(high) if dots else int(low)
        except ValueError:
            raise ValueError(
                f"{part!r} is not a seed; expected seeds, as in 0..9 or 1,2,5"
            ) from None
        if begin < 0 or end > LARGEST:
            raise ValueError(f"{part!r}: seeds are from 0 to {LARGEST:,}")
        if end < begin:
            raise ValueError(f"{part!r} goes down; expected the smaller seed first, {end}..{begin}")
        if len(found) + end - begin + 1 > MOST:
            raise ValueError(f"{word!r} are more than {MOST:,} seeds, the most of a sweep")
        found += range(begin, end + 1)
    return _distinct(found)


def joined(values: Sequence[Any]) -> str:
    """Return several values as a word that the readers split again.

    Examples
    --------
    >>> joined([0.1, 0.01]), joined([[50], [100, 50], []])
    ('0.1,0.01', '50/100,50/none')
    """
    if any(isinstance(value, list | tuple) for value in values):
        return "/".join(_plain(value) for value in values)
    return ",".join(map(_plain, values))


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


# -- What a sweep is -----------------------------------------------------------------------


def swept(config: Any) -> dict[str, Several]:
    """Return the options of which a config has several values, in the order of `SWEPT`."""
    found = {name: getattr(config, name) for name in SWEPT}
    return {name: value for name, value in found.items() if isinstance(value, Several)}


def is_sweep(config: Any) -> bool:
    """Whether a config makes several models: it has several values, or folds."""
    return bool(swept(config)) or config.folds is not None


def first(config: C, **values: Any) -> C:
    """Return the config with one value per option: those given, and the first of all others."""
    ones = {
        field.name: value[0]
        for field in fields(config)  # type: ignore[arg-type]
        if isinstance(value := getattr(config, field.name), Several)
    }
    changed: C = replace(config, **{**ones, **values})  # type: ignore[type-var]
    return changed


def combinations(config: Any, names: Sequence[str] = SWEPT) -> Iterator[dict[str, Any]]:
    """Yield every combination of the values of those options that have several."""
    values = {name: some for name, some in swept(config).items() if name in names}
    for chosen in itertools.product(*values.values()):
        yield dict(zip(values, chosen, strict=True))


# -- In words ------------------------------------------------------------------------------


def value_in_words(value: Any) -> str:
    """Return a value as a user writes it: 0.01, 100,50, none."""
    if isinstance(value, float):
        return f"{value:g}"
    return _plain(value)


def in_words(settings: Mapping[str, Any]) -> str:
    """Return settings in words.

    Examples
    --------
    >>> in_words({"lr": 0.1, "weight_decay": 1e-4, "hidden": (100, 50)})
    'lr 0.1, weight decay 0.0001, hidden 100,50'
    """
    return ", ".join(
        f"{name.replace('_', ' ')} {value_in_words(value)}" for name, value in settings.items()
    )


def sweep_in_words(config: Any) -> str:
    """Return what a sweep varies, and over how many models, in one line.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> one = SimpleNamespace(**dict.fromkeys(SWEPT), folds=5)
    >>> one.lr, one.seed = Several((0.1, 0.01)), Several(range(10))
    >>> sweep_in_words(one)
    'lr 0.1, 0.01; seeds 0 to 9; 5 folds: 100 models'
    """
    words, models = [], config.folds or 1
    for name, values in swept(config).items():
        models *= len(values)
        between = " / " if name in LISTS else ", "
        texts = between.join(map(value_in_words, values[:MANY]))
        if name == "seed":
            words.append(f"seeds {_range(values)}")
        elif len(values) > MANY:
            words.append(f"{name.replace('_', ' ')} {texts}, ... ({len(values):,} values)")
        else:
            words.append(f"{name.replace('_', ' ')} {texts}")
    if config.folds is not None:
        words.append(f"{config.folds} folds")
    return f"{'; '.join(words)}: {counted(models, 'model')}"


MANY = 8  # values of an option that a line shows


def _range(values: Sequence[int]) -> str:
    if len(values) > 2 and list(values) == [*range(values[0], values[-1] + 1)]:
        return f"{values[0]} to {values[-1]}"
    more = f", ... ({len(values):,} seeds)" if len(values) > MANY else ""
    return ", ".join(map(str, values[:MANY])) + more
