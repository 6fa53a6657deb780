"""Store results as JSON lines: first the machine, then one line per measurement.

A measurement is ``{"case": {...}, "contender": ..., "unit": ..., "q1": ..., "median": ...,
"q3": ..., "values": [...]}``, with the values in the order of the rounds. A benchmark may add more
keys; "provisional" says that the only value was measured before the rounds. The file is complete at
any moment, so an interrupted run leaves what it has measured.
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
    """Collect measurements; the file at `path`, if any, always contains all of them."""

    def __init__(self, header: dict[str, Any], path: Path | None) -> None:
        self.header, self.path = header, path
        self._found: dict[tuple[str, str], tuple[Measurement, str]] = {}  # each with its line
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.write()

    @property
    def measurements(self) -> list[Measurement]:
        return [measurement for measurement, _ in self._found.values()]

    def put(self, *measurements: Measurement) -> None:
        """Add measurements; each replaces an earlier one of the same case and contender."""
        for m in measurements:
            self._found[json.dumps(m["case"]), m["contender"]] = m, _line(m)
        self.write()

    def write(self) -> None:
        """Replace the whole file, so that even a killed run leaves a readable file."""
        if self.path is not None:
            lines = [line for _, line in self._found.values()]
            write_whole(self.path, "".join([_line(self.header), *lines]))


def _line(value: dict[str, Any]) -> str:
    return json.dumps(rounded(value)) + "\n"


@contextmanager
def recording(benchmark: str, path: Path | None, **settings: Any) -> Iterator[Recorder]:
    """Give a recorder with a header of benchmark, settings and machine; print where it wrote."""
    header = {"benchmark": benchmark, **settings, "machine": machine.record()}
    recorder = Recorder(header, path)
    try:
        yield recorder
    except Interrupted:
        recorder.write()  # the signal may have come before the last measurement was written
        if path is not None:
            print(f"wrote {path}: {len(recorder.measurements)} measurements so far", flush=True)
        raise
    if path is not None:
        print(f"wrote {path}")


def rounded(value: Any) -> Any:
    """Round floats to five significant digits, since more would be noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def read(path: Path) -> tuple[dict[str, Any], list[Measurement]]:
    """Read a file of results; return the header and the measurements.

    Raises
    ------
    ValueError
        The file does not contain results; the message names the line.
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
        raise ValueError(f"{path} is empty")
    return lines[0], lines[1:]


def newest(kind: str, suffix: str = "jsonl") -> Path:
    """Return the newest committed result of a benchmark; its file's name ends with the date."""
    found = sorted(FOLDER.glob(f"{kind}-2*.{suffix}"))
    if not found:
        raise FileNotFoundError(f"no {kind}-DATE.{suffix} in {FOLDER}: write one with --out")
    return found[-1]


def numbers(arguments: Any) -> None:
    """Raise ValueError, with the option's name, for a count below 1 or a time of 0 or less."""
    for option, value in vars(arguments).items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float) or number > 0:
                continue
            if option != "rotate" or number < 0:
                least = "1 or more" if isinstance(number, int) else "more than 0"
                raise ValueError(f"--{option.replace('_', '-')} {number}: expected {least}")
