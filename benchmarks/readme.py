"""``python -m benchmarks.readme``: write the newest committed results into README.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["main", "section"]

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- benchmark: begin -->\n", "<!-- benchmark: end -->\n"


def section(results: dict[str, Any]) -> str:
    """The table of a train_step result, with date and machine."""
    machine = results["machine"]
    versions = machine["versions"]
    rows = []
    for name, us in results["us_per_step"].items():
        ratio = results["times_faster_than_pytorch"][name]
        samples = 100 / us["median"] * 1e6
        rows.append(f"| {name} | {us['median']:.0f} | {samples:,.0f} | {ratio:.2f} |")
    used = ", ".join(f"{name} {versions[name]}" for name in ("numpy", "torch", "jax"))
    return "\n".join(
        [
            f"A training step of the book's network ({results['network']}) on "
            f"{machine['cores']} cores of an {machine['cpu']}, {machine['date']}: median of "
            f"{results['rounds']} rounds in turns, on MNIST. `python -m benchmarks.train_step` "
            "repeats it.",
            "",
            "| | µs a step | samples/s | times PyTorch |",
            "| --- | ---: | ---: | ---: |",
            *rows,
            "",
            f"({used}; Python {machine['python']}. The book's loop is plain NumPy in float32 and "
            "computes, as the book does, the loss again after each update.)",
            "",
        ]
    )


def main() -> int:
    newest = max((ROOT / "benchmarks/results").glob("train_step-*.json"))
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    new = before + BEGIN + section(json.loads(newest.read_text())) + END + after
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
