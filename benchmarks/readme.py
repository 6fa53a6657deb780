"""``python -m benchmarks.readme``: write the newest committed results into README.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["main", "newest", "section"]

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- benchmark: begin -->\n", "<!-- benchmark: end -->\n"


def newest(kind: str) -> dict[str, Any]:
    """The newest committed result of a benchmark; its file's name ends with the date."""
    path = max((ROOT / "benchmarks/results").glob(f"{kind}-*.json"))
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


def section(step: dict[str, Any], mnist: dict[str, Any]) -> str:
    """The README's tables, with date and machine."""
    machine = step["machine"]
    versions = machine["versions"]
    used = ", ".join(f"{name} {versions[name]}" for name in ("numpy", "torch", "jax"))
    speeds = [
        f"| {name} | {us['median']:.0f} | {100 / us['median'] * 1e6:,.0f} "
        f"| {step['times_faster_than_pytorch'][name]:.2f} |"
        for name, us in step["us_per_step"].items()
    ]
    trainings = [
        f"| {name} | {100 * run['test_accuracy']:.1f} % | {run['wall_seconds']:.1f} s "
        f"| {run['peak_resident_mib']} MiB |"
        for name, run in mnist["runs"].items()
    ]
    return "\n".join(
        [
            f"A training step ({step['network']}) on {machine['cores']} cores of an "
            f"{machine['cpu']}, {machine['date']}, on MNIST: median of {step['rounds']} rounds, "
            "contenders in turns, each in a process of its own. `python -m benchmarks.train_step` "
            "repeats it.",
            "",
            "| | µs a step | samples/s | times PyTorch |",
            "| --- | ---: | ---: | ---: |",
            *speeds,
            "",
            f"({used}, Python {machine['python']}. The book's loop is plain NumPy in float32 and "
            "computes, as the book does, the loss again after each update.)",
            "",
            f"Whole trainings by the command line on the same machine, {mnist['backend']}, "
            f"{mnist['machine']['date']} (`python -m benchmarks.mnist`):",
            "",
            "| | test accuracy | from start to end | resident memory |",
            "| --- | ---: | ---: | ---: |",
            *trainings,
            "",
        ]
    )


def main() -> int:
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    tables = section(newest("train_step"), newest("mnist"))
    readme.write_text(before + BEGIN + tables + END + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
