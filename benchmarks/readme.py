"""``python -m benchmarks.readme`` writes the newest committed results into the pages.

The pages are README.md, benchmarks/RESULTS.md, docs/speed.md, docs/tables.md, docs/parallel.md and
docs/defaults.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import book, convolution, parallel, results
from benchmarks.defaults import section as scores_and_times
from benchmarks.estimator_cases import named
from benchmarks.estimators import BASELINE, Pair, pairs
from benchmarks.growth import slope
from benchmarks.many import Verdict, verdicts
from benchmarks.problems import NETWORKS
from benchmarks.results import Measurement, read
from benchmarks.tables import section as tables_section
from benchmarks.timing import ratio

__all__ = ["TARGETS", "Target", "main", "newest", "pages"]

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- benchmark: begin -->\n", "<!-- benchmark: end -->\n"
SHORT = (
    "xpnet numpy", "xpnet torch", "xpnet jax", "book loop", "scikit-learn", "pytorch eager",
    "pytorch compile", "jax scan",
)  # fmt: skip

# The tables show square products of these sizes and batches; the pictures show all.
SQUARE_SHOWN = ((32, 512), (128, 64), (1024, 1))


class Target(NamedTuple):
    """The fastest of `ours` should be at least `least` times as fast as `theirs`, by network."""

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
    """Read the newest committed result that is one JSON object: "mnist..." or "documents"."""
    found: dict[str, Any] = json.loads(results.newest(kind, "json").read_text(encoding="utf-8"))
    return found


Steps = dict[tuple[str, str], Measurement]  # by network and contender


def steps(
    measurements: Sequence[Measurement],
    activation: str,
    optimizer: str,
    device: str = "cpu",
    precision: str = "float32",
) -> Steps:
    """Select the measurements of one lane; a case without a device is float32 on the CPU."""
    wanted = {
        "activation": activation, "optimizer": optimizer, "device": device, "precision": precision,
    }  # fmt: skip
    return {
        (m["case"]["network"], m["contender"]): m
        for m in measurements
        if wanted.items() <= {"device": "cpu", "precision": "float32", **m["case"]}.items()
    }


def times(found: Steps, network: str, ours: str, theirs: str) -> float | None:
    """Return how many times as fast `ours` is: the median of the rounds' ratios."""
    mine, other = found.get((network, ours)), found.get((network, theirs))
    if mine is None or other is None:
        return None
    return float(ratio(other["values"], mine["values"])["median"])


def step_table(found: Steps, contenders: Sequence[str] | None = None) -> list[str]:
    """Write µs per step, and in parentheses how many times as fast as PyTorch this is."""
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
            faster = times(found, network, name, "pytorch eager")
            cells.append("" if m is None else f"{m['median']:,.0f}")
            if m is not None and faster is not None:
                cells[-1] += f" ({faster:.2f})"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def target_table(found: Steps) -> list[str]:
    """Write each target beside its measurement, bold if the target is missed."""
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
    """Write the README's few lines: a small and a large step, beside three libraries."""
    machine = header["machine"]
    accuracy, seconds = (mnist["runs"][TRAINING][key] for key in ("test_accuracy", "wall_seconds"))
    lines = ["| µs a training step | " + " | ".join(BESIDE) + " |", "| --- |" + " ---: |" * 5]
    for network in ("S", "L"):
        size = NETWORKS[network]
        cells = (f"{found[network, name]['median']:,.0f}" for name in BESIDE.values())
        name = f"{'-'.join(map(str, size.sizes))}, batch {size.batch}"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    folder, later = gpu_results()
    _, before = gpu_steps(folder)
    ours, eager, graph, scan = (
        f"{lane['S', name]['median']:,.0f}"
        for lane, name in (
            (later, "xpnet cupy"), (before, "pytorch eager"), (before, "pytorch graph"),
            (later, "jax scan unroll 4"),
        )
    )  # fmt: skip
    return [
        *lines,
        "",
        f"On {machine['cores']} cores of an {machine['cpu']}, {machine['date']}; sigmoid, SGD, "
        f"float32. On an NVIDIA H100 the first of these steps takes {ours} µs, beside {eager} of "
        f"PyTorch, {graph} of PyTorch in a CUDA graph and {scan} of JAX. A whole training on MNIST "
        f"({TRAINING}) takes {seconds:.1f} s on the CPU and reaches {100 * accuracy:.1f} %.",
        "",
        convolution.in_a_line(*read(results.newest("convolution"))),
        "",
    ]


# The README's columns, and a training of its own.
BESIDE = {
    "xpnet (NumPy)": "xpnet numpy",
    "xpnet (JAX)": "xpnet jax",
    "PyTorch": "pytorch eager",
    "JAX": "jax scan",
    "scikit-learn": "scikit-learn",
}
TRAINING = "784-50-10 relu, SGD, 17 epochs"


def training_steps_section(
    header: dict[str, Any], found: Steps, mnist: dict[str, Any]
) -> list[str]:
    """Write the tables of steps and of whole trainings, with date and machine."""
    machine = header["machine"]
    trainings = [
        f"| {name} | {100 * run['test_accuracy']:.1f} % | {run['wall_seconds']:.1f} s "
        f"| {run['peak_resident_mib']} MiB |"
        for name, run in mnist["runs"].items()
    ]
    return [
        "## A training step beside other libraries",
        "",
        f"A whole training step (gather, forward, backward, update) on {machine['cores']} cores of "
        f"an {machine['cpu']}, {machine['date']}, on {header['data'].upper()}: sigmoid, SGD, "
        f"float32; {sizes()}. Median of {header['rounds']} rounds, contenders in turns, each in a "
        "process of its own, each written as its own users would write it fast; in parentheses "
        "how many times as fast as PyTorch. `python -m benchmarks.train_step` repeats it.",
        "",
        *step_table(found, SHORT),
        "",
        f'({used(machine)}. "book loop" is the training loop of K. Saitoh\'s *Deep Learning from '
        "Scratch* in plain NumPy, float32; it also computes the gradient of the images, and the "
        "loss again after each update.)",
        "",
        f"Whole trainings by the command line on the same machine, {mnist['backend']}, "
        f"{mnist['machine']['date']} (`python -m benchmarks.mnist`):",
        "",
        "| | test accuracy | from start to end | resident memory |",
        "| --- | ---: | ---: | ---: |",
        *trainings,
        "",
        *gpu_section(),
    ]


def machine_line(header: dict[str, Any]) -> str:
    machine = header["machine"]
    chosen = {k: v for k, v in machine["variables"].items() if k.startswith("OPENBLAS")}
    variables = "".join(f", {k}={v}" for k, v in chosen.items())
    return (
        f"{machine['date']}, {machine['cores']} cores of an {machine['cpu']} "
        f"({', '.join(machine['instructions'])}); {used(machine)}{variables}."
    )


def steps_section() -> list[str]:
    """Write targets and measurements, then every case, then OpenBLAS without AVX-512."""
    header, measurements = read(results.newest("train_step"))
    lines = [
        f"{machine_line(header)} {header['data'].upper()}; {sizes()}.",
        "",
        "### Asked and measured",
        "",
        "Sigmoid, SGD; times as fast, bold where it does not hold.",
        "",
        *target_table(steps(measurements, "sigmoid", "sgd")),
        "",
    ]
    for kind in ("train_step", "train_step-relu", "train_step-adam"):
        header, measurements = read(results.newest(kind))
        cases = (m["case"] for m in measurements)
        for activation, optimizer in dict.fromkeys(
            (c["activation"], c["optimizer"]) for c in cases
        ):
            lines += [f"### {activation}, {optimizer.upper()} ({header['rounds']} rounds)", ""]
            lines += [*step_table(steps(measurements, activation, optimizer)), ""]
    header, measurements = read(results.newest("train_step-avx2"))
    found = steps(measurements, "sigmoid", "sgd")
    return [
        *lines,
        "### sigmoid, SGD, with OpenBLAS as on a processor without AVX-512",
        "",
        f"{machine_line(header)} NumPy's, the book's and scikit-learn's products then take longer, "
        "those of PyTorch and JAX are what they were.",
        "",
        *step_table(found),
        "",
        *target_table(found),
        "",
    ]


GPU_SHOWN = (
    "xpnet cupy", "xpnet torch", "xpnet jax", "pytorch eager", "pytorch compile", "pytorch graph",
    "jax step", "jax scan", "jax scan unroll 4", "floor torch",
)  # fmt: skip


def gpu_steps(folder: Path, precision: str = "float32") -> tuple[dict[str, Any], Steps]:
    """The header of a folder that gpu.sh wrote, and its steps: sigmoid and SGD."""
    found: Steps = {}
    header: dict[str, Any] = {}
    # The compiled opponent was measured by itself, beside another "xpnet cupy".
    files = folder.glob("train_step-*.jsonl")
    for path in sorted(files, key=lambda file: "-compile-" in file.name):
        header, measurements = read(path)
        found = {**steps(measurements, "sigmoid", "sgd", "cuda", precision), **found}
    return header, found


def gpu_table(found: Steps) -> list[str]:
    """µs a step; "~" where one turn was all that there was time for."""
    lines = ["| µs a step | " + " | ".join(NETWORKS) + " |", "| --- |" + " ---: |" * len(NETWORKS)]
    for name in GPU_SHOWN:
        row = [found.get((network, name)) for network in NETWORKS]
        cells = [
            "" if m is None else f"{'~' if m.get('provisional') else ''}{m['median']:,.1f}"
            for m in row
        ]
        if any(cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def gpu_results() -> tuple[Path, Steps]:
    """The folder of the newest day on a GPU, and the steps measured later on that day."""
    folder = sorted(results.FOLDER.glob("gpu-????-??-??"))[-1]
    return folder, gpu_steps(folder.with_name(f"{folder.name}-products"))[1]


def gpu_section() -> list[str]:
    """What the newest day on a GPU gave."""
    folder, later = gpu_results()
    header, found = gpu_steps(folder)
    machine, versions = header["machine"], header["machine"]["versions"]
    packages = ", ".join(f"{name} {versions[name]}" for name in ("cupy-cuda13x", "torch", "jax"))
    trainings = json.loads((folder / "mnist.json").read_text(encoding="utf-8"))["runs"]
    ours, scan, unrolled = (
        f"{later['S', name]['median']:.1f} µs"
        for name in ("xpnet cupy", "jax scan", "jax scan unroll 4")
    )
    return [
        f"The same steps on one {machine['gpu']['name']}, {machine['date']}, {packages}; ~ marks a "
        'single turn, where the time was up before the rounds. "floor torch" is a step\'s matrix '
        "products alone, by PyTorch in a CUDA graph. `benchmarks/gpu.sh` repeats it.",
        "",
        *gpu_table(found),
        "",
        "In this table xpnet leaves all matrix products to cuBLAS. Later that day xpnet computed "
        f"small products by its own kernel, as it does now: S then took {ours}, beside {scan} of "
        f"jax scan and {unrolled} of jax scan unroll 4.",
        "",
        "| on the GPU | test accuracy | training alone | from start to end |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {100 * run['test_accuracy']:.1f} % | {run['train_seconds']:.1f} s | "
            f"{run['wall_seconds']:.1f} s |"
            for name, run in trainings.items()
        ),
        "",
    ]


def accuracy_table() -> list[str]:
    """Write the test accuracy on MNIST in both precisions."""
    runs = [newest("mnist"), newest("mnist-bfloat16-torch"), newest("mnist-bfloat16-jax")]
    names = [f"{run['backend']} {run.get('precision', 'float32')}" for run in runs]
    return [
        "| test accuracy, % | " + " | ".join(names) + " |",
        "| --- |" + " ---: |" * len(names),
        *(
            f"| {name} | "
            + " | ".join(f"{100 * run['runs'][name]['test_accuracy']:.2f}" for run in runs)
            + " |"
            for name in runs[0]["runs"]
        ),
    ]


def products_section() -> list[str]:
    """Write the products of an MLP and some square ones, in each lane."""
    header, measurements = read(results.newest("matmul"))
    names = list(dict.fromkeys(m["contender"] for m in measurements))
    limits = "; ".join(
        f"{device}: "
        + ", ".join(f"{lane} {rate:,.0f} GFLOP/s" for lane, rate in best.items() if lane != "copy")
        + f", copy {best['copy']:.0f} GB/s"
        for device, best in header["ceilings"].items()
    )
    lines = [
        machine_line(header) + f" Ceilings measured in the same run: {limits}.",
        "",
        "GFLOP/s, and in parentheses the share of the ceiling; (batch, m, k) @ (batch, k, n), "
        "where broadcast has one right operand for the whole batch. Above 100 % the machine was "
        "faster than when its ceiling was taken.",
        "",
        "| | batch | m x k x n | " + " | ".join(names) + " |",
        "| --- | ---: | --- |" + " ---: |" * len(names),
    ]
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for m in measurements:
        case = m["case"]
        large = case["kind"] != "square" or (case["n"], case["batch"]) in SQUARE_SHOWN
        if large:
            key = (
                f"{case['kind']} {case['lane']}", str(case["batch"]),
                f"{case['m']}x{case['k']}x{case['n']}",
            )  # fmt: skip
            share = 100 * m["share_of_ceiling"]
            cells.setdefault(key, {})[m["contender"]] = f"{m['gflops']:,.0f} ({share:.0f} %)"
    for words, row in sorted(cells.items(), key=lambda item: item[0][0].split()[::-1]):
        lines.append("| " + " | ".join([*words, *(row.get(name, "") for name in names)]) + " |")
    return [*lines, ""]


def growth_section() -> list[str]:
    """Write the slopes and the start-up times."""
    header, measurements = read(results.newest("growth"))
    lines = [
        machine_line(header),
        "",
        "| axis | from | to | µs a step | slope (expected) | MiB beyond the imports | "
        "slope (expected) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for axis in dict.fromkeys(m["case"].get("axis") for m in measurements):
        own = [m for m in measurements if axis is not None and m["case"].get("axis") == axis]
        if own:
            values = [m["case"]["value"] for m in own]
            time = slope(values, [m["median"] for m in own])
            memory = slope(values, [m["peak_mib"] for m in own])
            first, last = own[0], own[-1]
            lines.append(
                f"| {axis} | {values[0]:,} | {values[-1]:,} | {first['median']:,.0f} to "
                f"{last['median']:,.0f} | {time:.2f} ({first['expected_slope']:g}) | "
                f"{first['peak_mib']:.0f} to {last['peak_mib']:.0f} | {memory:.2f} "
                f"({first['expected_memory_slope']:g}) |"
            )
    starts = [m for m in measurements if "start" in m["case"]]
    return [
        *lines,
        "",
        "| process | ms from start to end |",
        "| --- | ---: |",
        *(f"| {m['case']['start']} | {m['median']:.0f} |" for m in starts),
        "",
    ]


def pair_table(found: Sequence[Pair]) -> list[str]:
    """Write a row for each case and contender; in bold how many times as fast, if it is missed."""
    dtypes = [x for x in ("float64", "float32") if any(p.ours["case"]["dtype"] == x for p in found)]
    unit = found[0].ours["unit"]
    factor = "times as fast" if unit == "ms" else "times as little"
    lines = [
        "| |" + "".join(f" {dtype}, {unit} | {factor} | asked |" for dtype in dtypes),
        "| --- |" + " ---: | ---: | ---: |" * len(dtypes),
    ]
    rows: dict[tuple[str, str], dict[str, Pair]] = {}
    for pair in found:
        case = pair.ours["case"]
        rows.setdefault((case["case"], pair.ours["contender"]), {})[case["dtype"]] = pair
    for (case, contender), by_dtype in rows.items():
        words = f"{named(case)}, {contender.removeprefix('xpnet ')}"
        for dtype in dtypes:
            words += " | " + (_cells(by_dtype[dtype]) if dtype in by_dtype else " | | ")
        lines.append(f"| {words} |")
    return lines


def _cells(pair: Pair) -> str:
    times = pair.times
    factor = f"{times['median']:.2f}"
    if pair.missed:
        factor = f"**{factor}**"
    asked = "" if pair.asked is None else f"{pair.asked:.2f}"
    spread = f"({times['q1']:.2f} to {times['q3']:.2f})"
    return f"{pair.ours['median']:,.1f} | {factor} {spread} | {asked}"


def estimators_section() -> list[str]:
    """Write the estimators beside scikit-learn's; nothing before there are committed results."""
    on_cpu = sorted(results.FOLDER.glob("estimators-2*.jsonl"))[-1:]
    on_gpu = sorted(results.FOLDER.glob("gpu-????-??-??*/estimators.jsonl"))[-1:]
    lines = ["## Beside scikit-learn", ""] if on_cpu or on_gpu else []
    for path in on_cpu:
        header, measurements = read(path)
        found = pairs(measurements)
        lines += [
            f"xpnet's estimators and those of {BASELINE}, {machine_line(header)} Both run in one "
            "process, in turns, with the same data, settings and losses; how many times as fast "
            f"xpnet is, is the median of the ratios of up to {header['rounds']} rounds, with their "
            "quartiles. Bold marks what is below what was asked. `python -m benchmarks.estimators` "
            "repeats it.",
            "",
        ]
        for unit in ("ms", "MiB"):
            own = [pair for pair in found if pair.ours["unit"] == unit]
            lines += [*pair_table(own), ""] if own else []
        compiled = [p.ours for p in found if p.ours["case"]["backend"] != "numpy"]
        if compiled:
            firsts = ", ".join(
                f"{m['first_ms'] / 1e3:.1f} s in {m['case']['dtype']}" for m in compiled
            )
            lines += [f"The first fit with JAX, which compiles, takes {firsts}.", ""]
    for path in on_gpu:
        header, measurements = read(path)
        machine = header["machine"]
        lines += [
            f"On one {machine['gpu']['name']}, beside {BASELINE} on {machine['cores']} cores of "
            f"its host, {machine['date']} (`benchmarks/gpu.sh`):",
            "",
            *pair_table(pairs(measurements)),
            "",
        ]
    return lines


def many_table(measurements: Sequence[Measurement]) -> list[str]:
    """Write µs a model-step, and in parentheses how many times as fast as one by one."""
    networks = list(dict.fromkeys(m["case"]["network"] for m in measurements))
    counts = sorted({m["case"]["models"] for m in measurements})
    lines: list[str] = []
    for network in networks:
        own = {
            (m["contender"], m["case"]["models"]): m
            for m in measurements
            if m["case"]["network"] == network
        }
        lines += [
            f"| {network}, µs a model-step | " + " | ".join(f"{k:,}" for k in counts) + " |",
            "| --- |" + " ---: |" * len(counts),
        ]
        for name in dict.fromkeys(name for name, _ in own):
            cells = [_many_cell(own.get((name, models))) for models in counts]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def _many_cell(m: Measurement | None) -> str:
    if m is None:
        return ""
    digits = 0 if m["median"] >= 100 else 1 if m["median"] >= 10 else 2
    cell = f"{'~' if m.get('provisional') else ''}{m['median']:,.{digits}f}"
    return f"{cell} ({m['times_alone']:.2f})" if "times_alone" in m else cell


def verdict_table(found: Iterable[Verdict]) -> list[str]:
    """Write what was asked beside what was measured, bold where it does not hold."""
    lines = ["| | asked | measured |", "| --- | ---: | ---: |"]
    for v in found:
        value = f"{v.measured:.2f}" if v.holds else f"**{v.measured:.2f}**"
        lines.append(f"| {v.what} | {'< ' if v.most else ''}{v.asked:g} | {value} |")
    return lines if len(lines) > 2 else []


def many_section() -> list[str]:
    """Write the tables of many networks at once, on the CPU, and where there are some on a GPU."""
    header, measurements = read(results.newest("many"))
    cpu = header.get("clock") == "cpu"
    lines = [
        f"{machine_line(header)} {header['data']} data, sigmoid, float32; median of "
        f"{header['rounds']} rounds, in turns{', in seconds of one thread' if cpu else ''}; ~ is "
        "a single turn before the rounds. In parentheses: times as fast as the same networks "
        "one by one through xpnet's own loop on the same library. `python -m benchmarks.many`.",
        "",
    ]
    for optimizer in dict.fromkeys(m["case"]["optimizer"] for m in measurements):
        own = [m for m in measurements if m["case"]["optimizer"] == optimizer]
        lines += [f"### {optimizer.upper()}, by number of models", "", *many_table(own)]
    lines += ["Asked and measured, times as fast:", "", *verdict_table(verdicts(measurements)), ""]
    for folder in sorted(results.FOLDER.glob("gpu-????-??-??*")):
        found = [read(path) for path in sorted(folder.glob("many*.jsonl"))]
        own = [m for _, each in found for m in each]
        if own:
            machine = found[0][0]["machine"]
            gpu = (machine.get("gpu") or {"name": "GPU"})["name"]
            lines += [
                f"### On one {gpu}, {machine['date']}",
                "",
                *[line for _, each in found for line in many_table(each)],
                *verdict_table(verdicts(own)),
                "",
            ]
    return lines


def convolution_section() -> list[str]:
    """Write the machine, and then steps and single convolutions beside other libraries."""
    header, measurements = read(results.newest("convolution"))
    return [machine_line(header), "", *convolution.section(header, measurements)]


def convolution_verdicts() -> list[str]:
    """Write what was asked of the steps."""
    _, measurements = read(results.newest("convolution"))
    return ["Asked and measured:", "", *verdict_table(convolution.verdicts(measurements)), ""]


def book_section() -> list[str]:
    """Write the book's scripts through xpnet.book beside plain NumPy."""
    header, measurements = read(results.newest("book"))
    return [machine_line(header), "", *book.section(header, measurements)]


def book_verdicts() -> list[str]:
    """Write what was asked of the book's scripts."""
    _, measurements = read(results.newest("book"))
    return ["Asked and measured:", "", *verdict_table(book.verdicts(measurements)), ""]


def parallel_section() -> list[str]:
    """Write all tables of training on several ranks."""
    header, measurements = read(results.newest("parallel"))
    return [
        machine_line(header),
        "",
        *parallel.section(header, measurements),
        "Asked and measured, times as fast:",
        "",
        *verdict_table(parallel.verdicts(measurements)),
        "",
    ]


def ranks_page() -> list[str]:
    """Write what the page on many machines shows: the steps, and the model of their cost."""
    header, measurements = read(results.newest("parallel"))
    return [
        *parallel.steps_section(header, measurements),
        *parallel.model_section(header, measurements),
    ]


def defaults_section() -> list[str]:
    """Write the defaults beside other libraries'; the times only where they are known."""
    times = sorted(results.FOLDER.glob("defaults-times-2*.jsonl"))[-1:]
    measured = [m for path in times for m in read(path)[1]]
    return scores_and_times(*read(results.newest("defaults")), measured)


def pages() -> dict[Path, list[str]]:
    """Return the lines between the marks of each page."""
    header, measurements = read(results.newest("train_step"))
    core = steps(measurements, "sigmoid", "sgd")
    found = {
        ROOT / "README.md": readme_section(header, core, newest("mnist")),
        ROOT / "docs/speed.md": [
            *training_steps_section(header, core, newest("mnist")),
            "## Convolution networks",
            "",
            *convolution_section(),
            *estimators_section(),
        ],
        ROOT / "docs/defaults.md": defaults_section(),
        ROOT / "docs/parallel.md": ranks_page(),
        ROOT / "docs/tables.md": tables_section(*read(results.newest("tables"))),
        ROOT / "benchmarks/RESULTS.md": [
            "## Training steps",
            "",
            *steps_section(),
            "![time of a step by contender](results/train-step-sigmoid-sgd.png)",
            "",
            "### Accuracy in bfloat16",
            "",
            *accuracy_table(),
            "",
            "## Batched matrix products",
            "",
            *products_section(),
            "![throughput against size](results/throughput-float32.png)",
            "",
            "![share of the ceiling by batch and size](results/heat-map-float32.png)",
            "",
            "![roofline](results/roofline-cpu.png)",
            "",
            "## Growth and start-up",
            "",
            *growth_section(),
            "![time and memory against the sizes](results/growth.png)",
            "",
            "## Many networks at once",
            "",
            *many_section(),
            "![model-steps a second against the number of models](results/many-sgd.png)",
            "",
            "## Several ranks",
            "",
            *parallel_section(),
            "## Convolution networks",
            "",
            *convolution_section(),
            *convolution_verdicts(),
            "## The book's scripts",
            "",
            *book_section(),
            *book_verdicts(),
            "## Defaults",
            "",
            *defaults_section(),
        ],
    }
    guide = ROOT / "docs/book.md"
    if guide.exists() and BEGIN in guide.read_text(encoding="utf-8"):
        found[guide] = book_section()
    return found


def main() -> int:
    for page, lines in pages().items():
        before, rest = page.read_text(encoding="utf-8").split(BEGIN)
        _, after = rest.split(END)
        page.write_text(before + BEGIN + "\n".join(lines) + END + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
