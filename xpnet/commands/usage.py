"""A command's words: read them with tyro, with advice about wrong ones, and help in groups."""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import tyro

from xpnet.commands.exits import emit
from xpnet.commands.options import Option, options_of
from xpnet.commands.suggest import suggest, wants_help
from xpnet.errors import UsageError

__all__ = ["help_text", "read"]

T = TypeVar("T")
INDENT = 26  # where the texts about the options begin
NARROWEST, WIDEST = 60, 100


def read(
    cls: type[T],
    args: Sequence[str] | None,
    prog: str,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    examples: Sequence[str] = (),
) -> T:
    """Read a command's words into its dataclass, or print its help.

    Parameters
    ----------
    cls : type
        A dataclass with the command's options.
    args : sequence of str or None
        The words after the command; None for those that this process was started with.
    prog : str
        What you type to start the command: "xpnet train".
    groups, examples
        For the help, see `help_text`.

    Raises
    ------
    UsageError
        A word is wrong, and `suggest` knows why.
    SystemExit
        With 0, after --help has printed the help; with 2, after tyro has explained a wrong value.
    """
    words = sys.argv[1:] if args is None else list(args)
    options = options_of(cls)
    if wants_help(words, options):
        emit(help_text(cls, prog, groups=groups, examples=examples), "replace")
        raise SystemExit(0)
    if (line := suggest(words, options)) is not None:
        raise UsageError(f"{line} (see {prog} --help)")
    return tyro.cli(cls, args=words, prog=prog)


def help_text(
    cls: type,
    prog: str,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    examples: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """Return the help of a command, its options in groups.

    Parameters
    ----------
    cls : type
        A dataclass with the command's options; its docstring is the description.
    prog : str
        What you type to start the command.
    groups : mapping from str to sequence of str, optional
        The fields of each group, by its title. What is in none comes last, under "Other options".
    examples : sequence of str
        The words after the command, one example each.
    width : int, optional
        Columns; by default the terminal's, from 60 to 100.

    Returns
    -------
    str

    Raises
    ------
    KeyError
        A group names a field that the dataclass does not have.
    """
    if width is None:
        width = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    options = {option.field: option for option in options_of(cls)}
    places = [option for option in options.values() if not option.flag]
    words = [f"{option.metavar}{' ...' * option.many}" for option in places]
    lines = [" ".join(["usage:", prog, *words, "[options]"]), ""]
    for paragraph in inspect.cleandoc(cls.__doc__ or "").split("\n\n"):
        lines += [*textwrap.wrap(" ".join(paragraph.split()), width), ""]
    blocks = {title: [options[name] for name in names] for title, names in (groups or {}).items()}
    placed = {option.field for block in blocks.values() for option in block}
    rest = [option for option in options.values() if option.field not in placed]
    blocks = {"Arguments": [option for option in rest if not option.flag], **blocks}
    blocks["Other options" if groups else "Options"] = [option for option in rest if option.flag]
    for title, block in blocks.items():
        if block:
            lines += [f"{title}:", *(line for o in block for line in _lines(o, width)), ""]
    if examples:
        lines += ["Examples:", *(f"  {prog} {example}" for example in examples), ""]
    return "\n".join(lines)


def _lines(option: Option, width: int) -> Iterator[str]:
    if not option.flag:
        head = option.metavar + " ..." * option.many
    elif option.metavar:
        head = f"{option.flag} {option.metavar}"
    else:
        head = option.flag if not option.default else f"--[no-]{option.flag[2:]}"
    head = f"  {head}"
    text = textwrap.wrap(
        f"{option.help} {option.default}".strip(), width - INDENT, break_on_hyphens=False
    )
    if text and len(head) <= INDENT - 2:
        yield head.ljust(INDENT) + text.pop(0)
    else:
        yield head
    yield from (" " * INDENT + line for line in text)
