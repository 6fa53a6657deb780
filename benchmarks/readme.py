"""``python -m benchmarks.readme``: the newest committed results into README.md and RESULTS.md."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import results
from benchmarks.problems import NETWORKS
from benchmarks.results import Measurement, read

__all__ = ["TARGETS", "Target", "main", "newest", "pages"]

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- benchmark: begin -->\n", "<!-- benchmark: end -->\n"
SHORT = (
    "xpnet numpy", "xpnet torch", "xpnet jax", "book loop", "scikit-learn", "pytorch eager",
    "pytorch compile", "jax scan",
)  # fmt: skip


class Target(NamedTuple):
    """One of `ours`, the fastest, is to be so many times as fast as `theirs`."""

    ours: tuple[str, ...]
    theirs: str
    least: dict[str, float]


CPU = ("xpnet numpy", "xpnet torch", "xpnet jax")
TARGETS = (
    Target(("xpnet numpy",), "pytorch eager", {"S": 1.5, "M": 1.1, "L": 0.95}),
    Target(("xpnet numpy",), "scikit-learn", {"S": 1.9, "M": 1.8, "L": 1.8}),
    Target(("xpnet numpy",), "book loop", {"S": 1.3}),
    Target(CPU, "jax scan", {"S": 1.0, "M": 1.0, "L": 1.0, "D": 1.0}),
    Target(CPU, "pytorch eager", {"S": 1.4, "M": 1.4, "L": 1.15}),
    Target(("xpnet jax",), "jax scan", {"S": 0.95, "M": 0.95, "L": 0.95, "D": 0.95}),
    Target(("xpnet torch",), "pytorch eager", {"S": 1.0, "M": 1.0, "L": 1.0, "D": 1.0}),
    Target(
        ("xpnet torch bfloat16", "xpnet jax bfloat16"), "pytorch autocast",
        {"S": 1.2, "M": 1.2, "L": 1.2, "D": 1.2},
    ),
)  # fmt: skip


def newest(kind: str) -> dict[str, Any]:
    """The newest committed result that is one JSON object: of "mnist" or "documents"."""
    found: dict[str, Any] = json.loads(results.newest(kind, "json").read_text(encoding="utf-8"))
    return found


Steps = dict[tuple[str, str], Measurement]  # by network and contender


def steps(measurements: Sequence[Measurement], activation: str, optimizer: str) -> Steps:
    return {
        (m["case"]["network"], m["contender"]): m
        for m in measurements
        if (m["case"]["activation"], m["case"]["optimizer"]) == (activation, optimizer)
    }


def times(found: Steps, network: str, ours: str, theirs: str) -> float | None:
    """How many times as fast: the median of the rounds' ratios."""
    mine, other = found.get((network, ours)), found.get((network, theirs))
    if mine is None or other is None:
        return None
    rounds = zip(mine["values"], other["values"], strict=True)
    return float(statistics.median(b / a for a, b in rounds))


def step_table(found: Steps, contenders: Sequence[str] | None = None) -> list[str]:
    """µs a step, and in parentheses how many times as fast as PyTorch."""
    networks = list(dict.fromkeys(network for network, _ in found))
    names = [
        name
        for name in dict.fromkeys(name for _, name in found)
        if contenders is None or name in contenders
    ]
    lines = [
        "| µs a step (times PyTorch) | " + " | ".join(networks) + " |",
        "| --- |" + " ---: |" * len(networks),
    ]
    for name in names:
        cells = []
        for network in networks:
            m = found.get((network, name))
            ratio = times(found, network, name, "pytorch eager")
            cells.append("" if m is None else f"{m['median']:,.0f}")
            if m is not None and ratio is not None:
                cells[-1] += f" ({ratio:.2f})"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def target_table(found: Steps) -> list[str]:
    """What was asked for, and what was measured; bold where it does not hold."""
    lines = ["| | against | network | asked | measured |", "| --- | --- | --- | ---: | ---: |"]
    for target in TARGETS:
        for network, least in target.least.items():
            ratios = {name: times(found, network, name, target.theirs) for name in target.ours}
            measured = {name: ratio for name, ratio in ratios.items() if ratio is not None}
            if not measured:
                continue
            best = max(measured, key=lambda name: measured[name])
            value = f"{measured[best]:.2f}"
            if measured[best] < least:
                value = f"**{value}**"
            lines.append(f"| {best} | {target.theirs} | {network} | {least:.2f} | {value} |")
    return lines


def sizes() -> str:
    return ", ".join(
        f"{name} = {'-'.join(map(str, size.sizes))} batch {size.batch}"
        for name, size in NETWORKS.items()
    )


def used(machine: dict[str, Any]) -> str:
    versions = machine["versions"]
    packages = ("numpy", "torch", "jax", "scikit-learn")
    listed = [f"{name} {versions[name]}" for name in packages if name in versions]
    blas = [x for x in machine["blas"] if x["internal_api"] == "openblas"]
    kernels = f", OpenBLAS {blas[0]['version']} ({blas[0]['architecture']})" if blas else ""
    return f"{', '.join(listed)}, Python {machine['python']}{kernels}"


def readme_section(header: dict[str, Any], found: Steps, mnist: dict[str, Any]) -> list[str]:
    """The README's tables, with date and machine."""
    machine = header["machine"]
    trainings = [
        f"| {name} | {100 * run['test_accuracy']:.1f} % | {run['wall_seconds']:.1f} s "
        f"| {run['peak_resident_mib']} MiB |"
        for name, run in mnist["runs"].items()
    ]
    return [
        f"A whole training step (gather, forward, backward, update) on {machine['cores']} cores of "
        f"an {machine['cpu']}, {machine['date']}, on {header['data'].upper()}: sigmoid, SGD, "
        f"float32; {sizes()}. Median of {header['rounds']} rounds, contenders in turns, each in a "
        "process of its own, each written as its own users would write it fast; in parentheses "
        "how many times as fast as PyTorch. `python -m benchmarks.train_step` repeats it.",
        "",
        *step_table(found, SHORT),
        "",
        f'({used(machine)}. "book loop" is the book\'s training loop in plain NumPy, float32.)',
        "",
        f"Whole trainings by the command line on the same machine, {mnist['backend']}, "
        f"{mnist['machine']['date']} (`python -m benchmarks.mnist`):",
        "",
        "| | test accuracy | from start to end | resident memory |",
        "| --- | ---: | ---: | ---: |",
        *trainings,
        "",
    ]


def results_section(
    header: dict[str, Any], measurements: Sequence[Measurement], pinned: Path | None
) -> list[str]:
    """RESULTS.md's tables: targets, then every case."""
    machine = header["machine"]
    core = steps(measurements, "sigmoid", "sgd")
    lines = [
        f"{machine['date']}, {machine['cores']} cores of an {machine['cpu']} "
        f"({', '.join(machine['instructions'])}), {header['data'].upper()}, {header['rounds']} "
        f"rounds; {used(machine)}. {sizes()}.",
        "",
        "### Asked and measured (sigmoid, SGD; times as fast, bold where it does not hold)",
        "",
        *target_table(core),
        "",
    ]
    cases = dict.fromkeys((m["case"]["activation"], m["case"]["optimizer"]) for m in measurements)
    for activation, optimizer in cases:
        lines += [f"### {activation}, {optimizer.upper()}", ""]
        lines += [*step_table(steps(measurements, activation, optimizer)), ""]
    if pinned is not None:
        other, theirs = read(pinned)
        found = steps(theirs, "sigmoid", "sgd")
        variables = ", ".join(f"{k}={v}" for k, v in other["machine"]["variables"].items())
        lines += [
            f"### The same with {variables}, {other['machine']['date']}",
            "",
            "OpenBLAS as on a processor without AVX-512: NumPy's and scikit-learn's products take "
            "longer, those of PyTorch and JAX are what they were.",
            "",
            *step_table(found),
            "",
            *target_table(found),
            "",
        ]
    return lines


def pages() -> dict[Path, list[str]]:
    """What stands between the marks of each page."""
    header, measurements = read(results.newest("train_step"))
    pinned = sorted(results.FOLDER.glob("train_step-avx2-*.jsonl"))
    return {
        ROOT / "README.md": readme_section(
            header, steps(measurements, "sigmoid", "sgd"), newest("mnist")
        ),
        ROOT / "benchmarks/RESULTS.md": results_section(
            header, measurements, pinned[-1] if pinned else None
        ),
    }


def main() -> int:
    for page, lines in pages().items():
        before, rest = page.read_text(encoding="utf-8").split(BEGIN)
        _, after = rest.split(END)
        page.write_text(before + BEGIN + "\n".join(lines) + END + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
