"""Results as JSON lines: first the machine, then a line per measurement.

A measurement is ``{"case": {...}, "contender": ..., "unit": ..., "q1": ..., "median": ...,
"q3": ..., "values": [...]}``, the values in the order of the rounds, and whatever else the
benchmark knows of it; "provisional" says that its one value comes from before the rounds. The
file is whole at any moment, so that a run that is broken off leaves what it has measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.interrupts import Interrupted
from xpnet.files import write_whole

__all__ = ["FOLDER", "Measurement", "Recorder", "newest", "numbers", "read", "recording"]

FOLDER = Path(__file__).resolve().parent / "results"

Measurement = dict[str, Any]


class Recorder:
    """Takes measurements; the file that was asked for has all of them at any moment."""

    def __init__(self, header: dict[str, Any], path: Path | None) -> None:
        self.header, self.path = header, path
        self._found: dict[tuple[str, str], tuple[Measurement, str]] = {}  # with its line
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.write()

    @property
    def measurements(self) -> list[Measurement]:
        return [measurement for measurement, _ in self._found.values()]

    def put(self, *measurements: Measurement) -> None:
        """Add measurements; one of the same case and contender is replaced where it stands."""
        for m in measurements:
            self._found[json.dumps(m["case"]), m["contender"]] = m, _line(m)
        self.write()

    def write(self) -> None:
        """Replace the file whole, so that even a run that is killed leaves one to be read."""
        if self.path is not None:
            lines = [line for _, line in self._found.values()]
            write_whole(self.path, "".join([_line(self.header), *lines]))


def _line(value: dict[str, Any]) -> str:
    return json.dumps(rounded(value)) + "\n"


@contextmanager
def recording(benchmark: str, path: Path | None, **settings: Any) -> Iterator[Recorder]:
    """A recorder with its header: benchmark, settings, machine; says where it wrote."""
    header = {"benchmark": benchmark, **settings, "machine": machine.record()}
    recorder = Recorder(header, path)
    try:
        yield recorder
    except Interrupted:
        recorder.write()  # the signal may have come between a measurement and its line
        if path is not None:
            print(f"wrote {path}: {len(recorder.measurements)} measurements so far", flush=True)
        raise
    if path is not None:
        print(f"wrote {path}")


def rounded(value: Any) -> Any:
    """Floats to five digits: more would be noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def read(path: Path) -> tuple[dict[str, Any], list[Measurement]]:
    """(header, measurements) of a file.

    Raises
    ------
    ValueError
        It is not such a file; the message says in which line.
    """
    lines: list[Measurement] = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON: {error}") from None
        keys = ("case", "contender", "unit", "q1", "median", "q3", "values")
        for key in keys if lines else ("benchmark", "machine"):
            if not isinstance(line, dict) or key not in line:
                raise ValueError(f"{path}, line {number}: expected an object with {key!r}")
        lines.append(line)
    if not lines:
        raise ValueError(f"{path}: is empty")
    return lines[0], lines[1:]


def newest(kind: str, suffix: str = "jsonl") -> Path:
    """The newest committed result of a benchmark; its file's name ends with the date."""
    found = sorted(FOLDER.glob(f"{kind}-2*.{suffix}"))
    if not found:
        raise FileNotFoundError(f"no {kind}-DATE.{suffix} in {FOLDER}: write one with --out")
    return found[-1]


def numbers(arguments: Any) -> None:
    """Refuse counts below 1 and times that are not positive, by the options' names."""
    for option, value in vars(arguments).items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float) or number > 0:
                continue
            if option != "rotate" or number < 0:
                least = "1 or more" if isinstance(number, int) else "more than 0"
                raise ValueError(f"--{option.replace('_', '-')} {number}: expected {least}")
