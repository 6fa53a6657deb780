"""``python -m benchmarks.compare A.jsonl B.jsonl``: what got slower, beyond noise.

Two files of one benchmark are matched case by case, contender by contender. A difference counts
where the quartile ranges lie apart and the medians differ by more than a threshold. Ended with
status 1 if anything got slower: a script can ask.
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

__all__ = ["Change", "changes", "main"]


@dataclass(frozen=True)
class Arguments:
    """Say what got slower or faster from one file of results to another, beyond noise."""

    before: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="A.jsonl")]
    """From --out of a benchmark."""
    after: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="B.jsonl")]
    """From the same benchmark, later."""
    threshold: float = 0.05
    """The smallest relative change that counts."""
    relative_to: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Divide each time by this contender's in the same case and file, in quotes: what changed
    on the machine for all of them then cancels."""
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
        """Above 1: slower than before."""
        ratio: float = self.after["median"] / self.before["median"]
        return ratio

    def verdict(self, threshold: float) -> str:
        if self.ratio > 1 + threshold and self.after["q1"] > self.before["q3"]:
            return "slower"
        if self.ratio < 1 / (1 + threshold) and self.after["q3"] < self.before["q1"]:
            return "faster"
        return ""


def _by_case(path: Path, relative_to: str | None) -> tuple[str, dict[str, Measurement]]:
    header, measurements = read(path)
    found: dict[str, Measurement] = {}
    units: dict[str, float] = {}
    for m in measurements:
        case = " ".join(f"{value}" for value in m["case"].values())
        found[f"{m['contender']}: {case}"] = m
        if m["contender"] == relative_to:
            units[json.dumps(m["case"])] = m["median"]
    if relative_to is not None:
        if not units:
            raise ValueError(f"{path}: has no contender {relative_to!r}")
        found = {
            label: {**m, **{q: m[q] / units[json.dumps(m["case"])] for q in ("q1", "median", "q3")}}
            for label, m in found.items()
            if json.dumps(m["case"]) in units
        }
    return header["benchmark"], found


def changes(before: Path, after: Path, relative_to: str | None = None) -> list[Change]:
    """What both files have.

    Raises
    ------
    ValueError
        A file is none of results, or they are of different benchmarks, or have nothing in common.
    """
    kind, old = _by_case(before, relative_to)
    other, new = _by_case(after, relative_to)
    if kind != other:
        raise ValueError(f"{before} is of {kind}, {after} of {other}: nothing to compare")
    common = [Change(label, old[label], new[label]) for label in old if label in new]
    if not common:
        raise ValueError(f"{before} and {after} have no case in common")
    return common


def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.compare")
    try:
        found = changes(arguments.before, arguments.after, arguments.relative_to)
    except (OSError, ValueError) as error:
        print(f"python -m benchmarks.compare: {error}", file=sys.stderr)
        return 2
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
        f"{counts['']} within noise (quartiles overlap, or less than "
        f"{100 * arguments.threshold:g} %)"
    )
    return 1 if counts["slower"] else 0


if __name__ == "__main__":
    sys.exit(main())
