"""Filters of convolution networks: as words on the command line, and as `xpnet.cnn` has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpnet.errors import LARGEST, UsageError
from xpnet.models.kinds import OF_IMAGES

__all__ = [
    "blocks_of", "filter_setting", "filter_word", "filters_of", "joined_block", "nested",
    "refuse_filters",
]  # fmt: skip


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
