"""``python -m benchmarks.gpu_report FOLDER`` prints the results of ``benchmarks/gpu.sh``.

The command reads train_step-*.jsonl, many*.jsonl, convolution*.jsonl, matmul.jsonl, mnist.json and
estimators.jsonl in the folder, if they exist. It prints a line for each case and contender, then
each target beside its measurement, xpnet's estimators beside scikit-learn's, and last many networks
at once and convolution networks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.estimators import HEADING, pairs, row
from benchmarks.many import table, verdict_lines, verdicts
from benchmarks.readme import Steps, steps, times
from benchmarks.results import Measurement, read
from benchmarks.train_step import table as step_table

__all__ = ["main", "report"]

OURS, FLOOR = "xpnet cupy", "floor torch"
# Required speed relative to another library. LEVEL means as fast, up to the spread between runs.
LEVEL = 0.95
SCANS = ("jax scan", "jax scan unroll 4")
FASTER = (
    ("S", ("pytorch eager",), 5.0),
    ("S", ("pytorch compile",), 1.5),
    ("S", SCANS, 1.0),
    *((network, SCANS, LEVEL) for network in "MLD"),
)
MOST_US = 40.0  # for a step of S
OVER_FLOOR = (("L", 1.25), ("D", 1.25))
MOST_SECONDS = (
    ("S, first calls: compile, capture, run", "first_seconds", 3.0),
    ("a book training, 10,000 steps of S", "book_seconds", 1.0),
)


@dataclass(frozen=True)
class Arguments:
    """Print the results of benchmarks/gpu.sh: times, then each target beside its measurement."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder that gpu.sh wrote."""


def _times_line(m: Measurement) -> str:
    case = m["case"]
    lane = case.get("precision", "float32")
    faster = f"{m['times_pytorch']:>7.2f} x" if "times_pytorch" in m else ""
    rule = f"{case['activation']} {case['optimizer']}"
    single = "  (one turn, before the rounds)" if m.get("provisional") else ""
    line = f"{case['network']:<9}{lane:<9}{rule:<13}{m['contender']:<18}{m['median']:>9.1f}"
    return f"{line}{faster}{single}"


def _verdict(what: str, asked: str, measured: str, holds: bool) -> str:
    return f"{what:<48}{asked:>10}{measured:>11}  {'yes' if holds else 'NO'}"


def _ratio(files: Sequence[Steps], network: str, theirs: str) -> float | None:
    """Return how many times as fast xpnet is, from the rounds of the first file that has both."""
    ratios = (times(found, network, OURS, theirs) for found in files)
    return next((ratio for ratio in ratios if ratio is not None), None)


def _targets(files: Sequence[Steps]) -> Iterator[str]:
    """Yield the verdicts of one lane whose two sides were measured; each file is one run."""
    small: Measurement = next((f["S", OURS] for f in files if ("S", OURS) in f), {})
    if small:
        us = small["median"]
        yield _verdict(f"S, us a step, {OURS}", f"<= {MOST_US:g}", f"{us:.1f}", us <= MOST_US)
    for network, opponents, least in FASTER:
        known: dict[str, float] = {}
        for opponent in opponents:
            ratio = _ratio(files, network, opponent)
            if ratio is not None:
                known[opponent] = ratio
        if known:
            best = min(known, key=lambda opponent: known[opponent])  # the faster opponent
            yield _verdict(
                f"{network}, times as fast as {best}", f">= {least:g}", f"{known[best]:.2f}",
                known[best] >= least,
            )  # fmt: skip
    for network, most in OVER_FLOOR:
        faster = _ratio(files, network, FLOOR)
        if faster is not None:
            share = 1 / faster
            what = f"{network}, over its bare products"
            yield _verdict(what, f"<= {most:g}", f"{share:.2f}", share <= most)
    for what, key, most in MOST_SECONDS:
        if key in small:
            yield _verdict(what, f"< {most:g} s", f"{small[key]:.2f} s", small[key] < most)


def _machine_line(header: dict[str, Any]) -> str:
    machine = header["machine"]
    gpu = machine.get("gpu") or {"name": "no GPU", "driver": "none"}
    versions = machine.get("versions", {})
    packages = [name for name in versions if name.startswith(("cupy", "torch", "jax"))]
    listed = ", ".join(f"{name} {versions[name]}" for name in packages if name != "jaxlib")
    return f"{gpu['name']}, driver {gpu['driver']}; {listed}; {machine['date']}"


def report(folder: Path) -> list[str]:
    """Return the lines of the report.

    Raises
    ------
    FileNotFoundError
        The folder has no results.
    ValueError
        A file does not contain results.
    """
    # Files of the compiled contender come last: they repeat what other files measured first.
    files = sorted(folder.glob("train_step-*.jsonl"), key=lambda f: ("-compile-" in f.name, f))
    others = [folder / name for name in ("matmul.jsonl", "mnist.json", "estimators.jsonl")]
    stacks = sorted(folder.glob("many*.jsonl"))
    images = sorted(folder.glob("convolution*.jsonl"))
    if not any(path.exists() for path in (*files, *others, *stacks, *images)):
        names = (
            "train_step-*.jsonl, many*.jsonl, convolution*.jsonl, matmul.jsonl, mnist.json or "
            "estimators.jsonl"
        )
        raise FileNotFoundError(f"{folder} has no {names}")
    products, trainings, estimators = others
    lines: list[str] = []
    if products.exists():
        header, _ = read(products)
        for device, best in header["ceilings"].items():
            rates = [f"{k} {v:,.0f}" for k, v in best.items()]
            lines.append(f"ceilings of {device}, GFLOP/s (copy: GB/s): {', '.join(rates)}")
    if trainings.exists():
        runs = json.loads(trainings.read_text(encoding="utf-8"))["runs"]
        lines += [
            f"MNIST, {name}: {100 * run['test_accuracy']:.2f} %, {run['train_seconds']:.2f} s of "
            f"training, {run['wall_seconds']:.1f} s from start to end"
            for name, run in runs.items()
        ]
    measured: list[list[Measurement]] = []
    for path in files:
        header, own = read(path)
        measured.append(own)
        if path == files[0]:
            lines.insert(0, _machine_line(header))
    if any(measured):
        lines += ["", f"{'network':<9}{'products':<9}{'rule':<13}{'contender':<18}{'us/step':>9}"
                  f"{'x eager':>9}"]  # fmt: skip
    for path, own in zip(files, measured, strict=True):
        lines += [f"{path.stem}:", *map(_times_line, own)] if own else []
    cases = [m["case"] for own in measured for m in own]
    lanes = dict.fromkeys((c.get("device", "cpu"), c.get("precision", "float32")) for c in cases)
    for device, precision in lanes:
        files_of_lane = [steps(own, "sigmoid", "sgd", device, precision) for own in measured]
        asked = list(_targets(files_of_lane))
        if asked:
            title = f"{OURS}, {precision}, sigmoid, SGD"
            lines += ["", f"{title:<48}{'asked':>10}{'measured':>11}", *asked]
    if estimators.exists():
        header, own = read(estimators)
        if not files:
            lines.insert(0, _machine_line(header))
        lines += ["", HEADING, *map(row, pairs(own))]
    for path in (*stacks, *images):
        header, own = read(path)
        if path == (*stacks, *images)[0] and not files and not estimators.exists():
            lines.insert(0, _machine_line(header))
        lines += (_many_lines if path in stacks else _image_lines)(path.stem, own)
    return lines


def _many_lines(name: str, measured: Sequence[Measurement]) -> Iterator[str]:
    for case in {json.dumps(m["case"]): m["case"] for m in measured}.values():
        own = [m for m in measured if m["case"] == case]
        title = f"{name}: {case['network']} {case['optimizer']}, {case['models']} models"
        yield from ("", title, table(own))
    if asked := verdict_lines(verdicts(measured)):
        yield from ("", "many networks at once: what was asked, and measured", *asked)


def _image_lines(name: str, measured: Sequence[Measurement]) -> Iterator[str]:
    for case in {json.dumps(m["case"]): m["case"] for m in measured}.values():
        own = [m for m in measured if m["case"] == case]
        yield from ("", f"{name}: {case.get('network') or case['convolution']}", step_table(own))


def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.gpu_report")
    try:
        print("\n".join(report(arguments.folder)))
    except (OSError, ValueError) as error:
        print(f"python -m benchmarks.gpu_report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
