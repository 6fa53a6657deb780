"""``python -m benchmarks.compare A.jsonl B.jsonl`` lists what got slower, beyond noise.

The command matches two files of one benchmark by case and contender. A difference counts if the
quartile ranges do not overlap and the medians differ by more than a threshold. The exit status is 1
if anything got slower, so that a script can check it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.results import Measurement, read
from benchmarks.timing import ratio

__all__ = ["Change", "changes", "main"]


@dataclass(frozen=True)
class Arguments:
    """List what got slower or faster from one file of results to another, beyond noise."""

    before: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="A.jsonl")]
    """Results that a benchmark wrote with --out."""
    after: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="B.jsonl")]
    """Later results of the same benchmark."""
    threshold: float = 0.05
    """The smallest relative change that counts."""
    relative_to: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Divide each time by the time of this contender (its name in quotes) in the same case and
    file, so that a change of the machine's speed cancels."""
    all: bool = False
    """Also list what did not change."""


@dataclass(frozen=True)
class Change:
    """One contender in one case."""

    label: str
    before: Measurement
    after: Measurement

    @property
    def ratio(self) -> float:
        """The new median over the old one; above 1, the contender got slower."""
        ratio: float = self.after["median"] / self.before["median"]
        return ratio

    def verdict(self, threshold: float) -> str:
        if self.ratio > 1 + threshold and self.after["q1"] > self.before["q3"]:
            return "slower"
        if self.ratio < 1 / (1 + threshold) and self.after["q3"] < self.before["q1"]:
            return "faster"
        return ""


Key = tuple[str, str]  # the case as JSON, and the contender


def _by_case(path: Path, relative_to: str | None) -> tuple[str, dict[Key, Measurement]]:
    header, measurements = read(path)
    found: dict[Key, Measurement] = {
        (json.dumps(m["case"]), m["contender"]): m for m in measurements
    }
    if relative_to is not None:
        if not any(contender == relative_to for _, contender in found):
            raise ValueError(f"{path} has no contender {relative_to!r}")
        found = {
            (case, name): {
                **m,
                **ratio(m["values"], found[case, relative_to]["values"]),
                "unit": "x",
            }
            for (case, name), m in found.items()
            if (case, relative_to) in found
        }
    return header["benchmark"], found


def changes(
    before: Path, after: Path, relative_to: str | None = None
) -> tuple[list[Change], list[str]]:
    """Return the changes of what both files have, and a line per measurement of only one file.

    Raises
    ------
    ValueError
        A file has no results, or the two files are of different benchmarks or share no case.
    """
    kind, old = _by_case(before, relative_to)
    other, new = _by_case(after, relative_to)
    if kind != other:
        raise ValueError(
            f"{before} has results of {kind}, {after} of {other}; expected one benchmark"
        )
    common = [Change(_label(key), old[key], new[key]) for key in old if key in new]
    if not common:
        raise ValueError(f"{before} and {after} have no case in common")
    single = [f"only in {before}: {_label(key)}" for key in old.keys() - new.keys()]
    single += [f"only in {after}: {_label(key)}" for key in new.keys() - old.keys()]
    return common, sorted(single)


def _label(key: Key) -> str:
    case, contender = key
    return f"{contender}: {' '.join(str(value) for value in json.loads(case).values())}"


def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.compare")
    try:
        found, single = changes(arguments.before, arguments.after, arguments.relative_to)
    except (OSError, ValueError) as error:
        print(f"python -m benchmarks.compare: {error}", file=sys.stderr)
        return 2
    print(*single, sep="\n", end="\n" if single else "")
    counts = {"slower": 0, "faster": 0, "": 0}
    for change in sorted(found, key=lambda change: -change.ratio):
        verdict = change.verdict(arguments.threshold)
        counts[verdict] += 1
        if verdict or arguments.all:
            print(
                f"{verdict:<7}{change.ratio:>6.2f} x  {change.before['median']:>10.5g} -> "
                f"{change.after['median']:<10.5g}{change.before['unit']:<8} {change.label}"
            )
    print(
        f"{len(found)} compared: {counts['slower']} slower, {counts['faster']} faster, "
        f"{counts['']} within noise (quartiles overlap, or medians differ by less than "
        f"{100 * arguments.threshold:g} %)"
    )
    return 1 if counts["slower"] else 0


if __name__ == "__main__":
    sys.exit(main())
