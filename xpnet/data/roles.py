"""Which columns of a table are features, labels, ids or nothing, by what the user says."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from xpnet.data.cells import shown
from xpnet.errors import LONGEST_NAME, DataError, listed

__all__ = ["Layout", "Roles", "Wish", "check_names", "check_width", "cleaned", "like", "roles"]


class Layout(NamedTuple):
    """Where the columns of a training file without a header line stand, by number.

    Attributes
    ----------
    columns : int
        How many there are in all.
    features : tuple of int
    label, id : int
        -1 where there is none.
    """

    columns: int
    features: tuple[int, ...]
    label: int
    id: int

    def found_in(self, columns: int, where: str) -> Roles:
        """Find the same columns in a file of so many: all, all but the label, or features alone.

        Raises
        ------
        DataError
            It has more or fewer.
        """
        if columns == self.columns:
            return Roles(self.features, self.label, self.id)
        if columns == self.columns - 1 and self.label >= 0:
            features = tuple(i - (i > self.label) for i in self.features)
            return Roles(features, -1, self.id - (self.id > self.label))
        if columns == len(self.features):
            return Roles(tuple(range(columns)), -1, -1)
        raise DataError(
            f"{where}: got {columns} columns, expected {self.columns}, as the training file has, "
            f"or these without the label, or the {len(self.features)} features alone"
        )


@dataclass(frozen=True)
class Wish:
    """What the user says about the columns, each by name or by number.

    A number counts from 0; a negative one from the right.

    Attributes
    ----------
    label_column : str or None
        None: the last column that is neither left out nor the ids; "": no column.
    drop, only : collection of str
        The columns to leave out; the only ones that are features, where it is not empty.
    id_column : str or None
    features : collection of str
        Names that a training knows. In a table that has them all, these are the features.
    width : int, optional
        How many features a table without names must have; it may have labels after them.
    id_required : bool
        Whether a table without the id column is refused.
    layout : Layout, optional
        Where the columns of the training stand; it takes the place of all but `id_column`.
    """

    label_column: str | None = None
    drop: Collection[str] = ()
    only: Collection[str] = ()
    id_column: str | None = None
    features: Collection[str] = ()
    width: int | None = None
    id_required: bool = True
    layout: Layout | None = None

    def names(self) -> list[str]:
        """Every column that is mentioned as the user wrote it."""
        mentioned = [self.label_column, self.id_column, *self.drop, *self.only]
        return [name for name in mentioned if name]

    def trained(self, names: Collection[str]) -> bool:
        """Whether a table with these names has all that the training knows."""
        return bool(self.features) and set(self.features) <= set(names)

    def named(self, names: Collection[str]) -> bool:
        """Whether the user calls a column by one of these names, so that they are names."""
        known = set(names)
        return any(name in known and not _is_position(name) for name in self.names())


@dataclass(frozen=True)
class Roles:
    """The numbers of the columns: features, and label and id, -1 where there is none."""

    features: tuple[int, ...]
    label: int
    id: int

    @property
    def used(self) -> tuple[int, ...]:
        return (*self.features, *(i for i in (self.label, self.id) if i >= 0))


def roles(names: Sequence[str], wish: Wish, where: str, header: bool = True) -> Roles:
    """Find each column's role.

    Parameters
    ----------
    names : sequence of str
        The names of the columns, or the cells of a first line that may be a row.
    wish : Wish
    where : str
        The file, for messages.
    header : bool
        Whether the names are known to be names; for the message about a name that is not there.

    Raises
    ------
    DataError
        A column is not there, has two roles, or no feature is left.
    """
    places = {name: i for i, name in reversed([*enumerate(names)])}

    def place(wanted: str) -> int:
        return _place(wanted, names, places, where, header)

    if wish.layout is not None:
        found = wish.layout.found_in(len(names), where)
        return found if not wish.id_column else replace(found, id=place(wish.id_column))
    known = wish.trained(names)
    drop = dict.fromkeys(map(place, wish.drop))
    only = dict.fromkeys(map(place, wish.only))
    ids = -1
    if wish.id_column and (wish.id_required or _is_there(wish.id_column, places)):
        ids = place(wish.id_column)
    if ids in drop:
        raise DataError(f"{where}: column {listed([names[ids]])} is the ids and is left out")
    rest = [i for i in range(len(names)) if i not in drop and i != ids]
    wanted = wish.label_column
    label = -1
    if wanted is None:
        label = rest[-1] if rest and len(rest) != wish.width else -1
    elif wanted and not (len(rest) == wish.width or (known and not _is_there(wanted, places))):
        if not header and wish.width is not None and not _is_there(wanted, places):
            check_width(len(names), wish, len(rest) - 1, where)
        label = place(wanted)
    if known and label >= 0 and names[label] in wish.features:
        label = -1
    if known and ids >= 0 and names[ids] in wish.features:
        raise DataError(
            f"{where}: column {listed([names[ids]])} is a feature, which the model was trained "
            "with, and the ids; name another id column"
        )
    if label >= 0 and (label in drop or label == ids):
        raise DataError(
            f"{where}: column {listed([names[label]])} is the label and "
            f"{'the ids' if label == ids else 'is left out'}; name another label column"
        )
    features = tuple(i for i in rest if i != label and (not only or i in only))
    if known:
        trained = set(wish.features)
        features = tuple(i for i in features if names[i] in trained)
    if not features:
        what = "one column" if len(names) == 1 else "no column that is left"
        hint = "; separate them by comma, semicolon or tab" if len(names) == 1 else ""
        raise DataError(f"{where}: got {what}, expected features beside the label{hint}")
    return Roles(features, label, ids)


def check_names(names: Sequence[str], wish: Wish, found: Roles, where: str) -> None:
    """Refuse a column without a name, two with one name, and a number that is a name too.

    Raises
    ------
    DataError
    """
    used = [i for i in found.used if i != found.id]
    if unnamed := [i for i in used if not names[i]]:
        i = min(unnamed)
        raise DataError(
            f"{where}: column {i} has no name; if it is an index that was saved along, or nothing, "
            f"leave it out: --drop {i}"
        )
    counts = Counter(names[i] for i in used)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        raise DataError(
            f"{where}: has two columns named {listed(twice)}; rename one, or leave it out by its "
            "number: --drop NUMBER"
        )
    for wanted in wish.names():
        if _is_position(wanted) and wanted in names:
            i, place = names.index(wanted), int(wanted) % len(names)
            if i != place and -len(names) <= int(wanted) < len(names):
                raise DataError(
                    f"{where}: {shown(wanted)} is the name of column {i} and the number of "
                    f"column {place}; rename the column"
                )


def check_width(width: int, wish: Wish, features: int, where: str) -> None:
    """Refuse a table without names that has not as many features as it must have.

    Raises
    ------
    DataError
    """
    if wish.width not in (None, features):
        raise DataError(f"{where}: got {width} columns, expected {wish.width} features")


def cleaned(name: str) -> str:
    """A name without white space around it, such as messages and files can have in one line."""
    return (name if name.isprintable() else " ".join(name.split())).strip()


def like(wanted: str, names: Collection[str]) -> str:
    """A question for a message, " (did you mean 'a'?)"; empty if no name is near."""
    if len(wanted) > LONGEST_NAME:
        return ""
    lower = {name.lower(): name for name in names if len(name) <= LONGEST_NAME}
    near = [lower[name] for name in difflib.get_close_matches(wanted.lower(), lower)]
    return f" (did you mean {' or '.join(map(shown, near))}?)" if near else ""


def _place(
    wanted: str, names: Sequence[str], places: dict[str, int], where: str, header: bool
) -> int:
    width = len(names)
    if _is_position(wanted) and -width <= int(wanted) < width:
        return int(wanted) % width
    if wanted in places:
        return places[wanted]
    have = listed(names) if header else f"numbers 0 to {width - 1} and no header line"
    raise DataError(
        f"{where}: has no column {shown(wanted)}; it has {have}"
        f"{like(wanted, names) if header else ''}"
    )


def _is_there(wanted: str, places: dict[str, int]) -> bool:
    return wanted in places or (_is_position(wanted) and -len(places) <= int(wanted) < len(places))


def _is_position(column: str) -> bool:
    return re.fullmatch("-?[0-9]{1,18}", column) is not None
