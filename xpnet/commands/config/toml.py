"""Settings as TOML: write a run's settings, and read a file as words of the command line."""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import tomli_w

from xpnet.commands.config.settings import CALL_ONLY, FREE, Config
from xpnet.commands.config.types import joined_names
from xpnet.commands.several import joined
from xpnet.errors import UsageError, shown
from xpnet.files import open_regular

__all__ = ["read_toml", "settings_of", "to_toml", "words_of"]

# The largest settings file, in bytes.
LARGEST_FILE = 1 << 20


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
