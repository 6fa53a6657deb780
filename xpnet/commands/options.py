"""The options of a command, as plain data: read from the dataclass that tyro reads them from.

tyro shows its options in one list, and what it knows of them is private. So the help in groups
(`xpnet.commands.usage`) and the advice about wrong words (`xpnet.commands.suggest`) read the same
dataclass by themselves; a test holds what they find against tyro's own help.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

__all__ = ["Option", "options_of"]

METAVARS: dict[Any, str] = {bool: "", int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes
    ----------
    field : str
        The dataclass's name for it: batch_size.
    flag : str
        --batch-size; "" for what is given by its place.
    metavar : str
        What stands for the value in the help: INT. A switch has "": it takes no value.
    help : str
        What it does, in one line.
    default : str
        "(default: 100)", say; "" if there is nothing to say.
    choices : tuple of str
        The values that it takes; empty if they are not a list of words.
    many : bool
        Whether it takes any number of words.
    needed : bool
        Whether you must give it.
    read : function from str, or None
        What reads its word; a ValueError says what is wrong with it.
    """

    field: str
    flag: str = ""
    metavar: str = ""
    help: str = ""
    default: str = ""
    choices: tuple[str, ...] = ()
    many: bool = False
    needed: bool = False
    read: Callable[[str], Any] | None = None


def options_of(cls: type) -> tuple[Option, ...]:
    """Return the options of a command in the order of its dataclass's fields.

    Examples
    --------
    >>> @dataclass
    ... class Arguments:
    ...     batch_size: int = 100
    >>> options_of(Arguments)[0].flag
    '--batch-size'
    """
    hints, docs = get_type_hints(cls, include_extras=True), _docstrings(cls)
    return tuple(_option(field, hints[field.name], docs) for field in fields(cls))


def _option(field: Field[Any], hint: Any, docs: dict[str, str]) -> Option:
    extras = getattr(hint, "__metadata__", ())
    kind = get_args(hint)[0] if extras else hint
    said: dict[str, str] = {}  # by tyro.conf.arg(help=...), say; the last word counts
    for extra in extras:
        for name in ("metavar", "help", "help_behavior_hint"):
            if isinstance(text := getattr(extra, name, None), str):
                said[name] = text
    spec = next(
        (e for e in extras if isinstance(e, tyro.constructors.PrimitiveConstructorSpec)), None
    )
    choices = (spec.choices if spec is not None else None) or ()
    if get_origin(kind) is Literal:
        choices = tuple(map(str, get_args(kind)))
    metavar = "{" + ",".join(choices) + "}" if choices else _metavar(kind)
    placed = tyro.conf.Positional in extras
    if placed:
        metavar = field.name.upper()
    return Option(
        field=field.name,
        flag="" if placed else "--" + field.name.replace("_", "-"),
        metavar=said.get("metavar", metavar),
        help=" ".join(said.get("help", docs.get(field.name, "")).split()),
        default=said.get("help_behavior_hint", _default(field, spec)),
        choices=choices,
        many=spec is None and get_origin(kind) in (tuple, list),
        needed=field.default is MISSING and field.default_factory is MISSING,
        read=None if spec is None else lambda word: spec.instance_from_str([word]),
    )


def _metavar(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType, tuple, list):
        parts = [part for part in get_args(kind) if part not in (type(None), ...)]
        return "|".join(map(_metavar, parts))
    return METAVARS.get(kind, getattr(kind, "__name__", "VALUE").upper())


def _default(field: Field[Any], spec: Any) -> str:
    """ "(default: 100)"; nothing for None, for a switch that is off, and for what you must give."""
    value = field.default
    if field.default_factory is not MISSING:
        value = field.default_factory()
    if value is MISSING or value is None or value is False or value == ():
        return ""
    if spec is not None:
        value = " ".join(spec.str_from_instance(value))
    return f"(default: {'on' if value is True else value})"


def _docstrings(cls: type) -> dict[str, str]:
    """Return the text below each field of a dataclass; nothing where there is no source."""
    found: dict[str, str] = {}
    for part in reversed(cls.__mro__):
        if not is_dataclass(part):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(part))
        except (OSError, TypeError):
            continue
        body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
        for field, text in pairwise(body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                    value=ast.Constant(value=str(said))
                ):
                    found[name] = said
    return found
