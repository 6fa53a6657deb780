"""Files that are written whole."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, text: str) -> None:
    """Replace a file whole or not at all, so that nobody ever reads half of it.

    What a link leads to is replaced; a device or a pipe is written to.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():  # a folder fails by itself
        target.write_text(text, encoding="utf-8")
        return
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # under the name that the user gave
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise
