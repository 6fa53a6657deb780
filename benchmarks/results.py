"""Results as JSON lines: first the machine, then a line per measurement, as it is taken.

A measurement is ``{"case": {...}, "contender": ..., "unit": ..., "q1": ..., "median": ...,
"q3": ..., "values": [...]}``, the values in the order of the rounds, and whatever else the
benchmark knows of it. A run that is broken off leaves what it has measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import machine

__all__ = ["FOLDER", "Measurement", "Recorder", "newest", "numbers", "read", "recording"]

FOLDER = Path(__file__).resolve().parent / "results"

Measurement = dict[str, Any]


class Recorder:
    """Takes measurements, and writes each at once where a file was asked for."""

    def __init__(self, header: dict[str, Any], path: Path | None) -> None:
        self.header, self.path = header, path
        self.measurements: list[Measurement] = []
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write("w", header)

    def add(self, measurement: Measurement) -> None:
        self.measurements.append(measurement)
        if self.path is not None:
            self._write("a", measurement)

    def _write(self, mode: str, line: dict[str, Any]) -> None:
        assert self.path is not None
        with self.path.open(mode, encoding="utf-8") as file:
            file.write(json.dumps(rounded(line)) + "\n")


@contextmanager
def recording(benchmark: str, path: Path | None, **settings: Any) -> Iterator[Recorder]:
    """A recorder with its header: benchmark, settings, machine; says where it wrote."""
    header = {"benchmark": benchmark, **settings, "machine": machine.record()}
    recorder = Recorder(header, path)
    yield recorder
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
