"""``python -m benchmarks.pictures FILE.jsonl FOLDER`` draws a file of results as PNG pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from benchmarks.results import Measurement, read
from xpnet.show.plots.figure import new_figure, require

__all__ = ["draw", "draw_growth", "draw_many", "draw_matmul", "draw_train_step", "main"]

# Okabe and Ito's colours, which colour-blind readers can tell apart; one per library everywhere.
COLORS = {
    "numpy": "#0072B2", "torch": "#D55E00", "jax": "#009E73", "cupy": "#CC79A7",
    "cublas": "#000000", "xpnet": "#0072B2", "pytorch": "#D55E00", "scikit-learn": "#E69F00",
    "book": "#56B4E9", "floor": "#999999",
}  # fmt: skip
Header = dict[str, Any]
MARKERS = {"cpu": "o", "cuda": "s"}


def color(contender: str) -> str:
    return COLORS.get(contender.split()[0], "#555555")


def caption(header: Header) -> str:
    machine = header["machine"]
    gpu = f", {machine['gpu']['name']}" if machine.get("gpu") else ""
    return f"{machine['cpu']}, {machine['cores']} cores{gpu}, {machine['date']}"


def _save(figure: Any, header: Header, path: Path) -> Path:
    figure.supxlabel(caption(header), fontsize=8, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _plain_numbers(axis: Any, values: Iterable[float] | None = None) -> None:
    """Label a log axis with 128 instead of 2 to the 7; if `values` are given, only at these."""
    if values is not None:
        values = list(values)
        axis.set_ticks(values, [f"{value:g}" for value in values], fontsize=8)
        axis.set_ticks([], minor=True)
        return
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


# -- Matrix products -------------------------------------------------------------------


def draw_matmul(header: Header, measurements: list[Measurement], folder: Path) -> list[Path]:
    """Draw throughput against size and a heat map per lane, and a roofline per device."""
    paths = []
    lanes = _distinct(m["case"]["lane"] for m in measurements)
    for lane in lanes:
        square = [
            m for m in measurements if m["case"]["lane"] == lane and m["case"]["kind"] == "square"
        ]
        if len(_distinct(m["case"]["n"] for m in square)) > 1:
            paths.append(_throughput(header, square, lane, folder / f"throughput-{lane}.png"))
        if len(_distinct(m["case"]["batch"] for m in square)) > 1:
            paths.append(_heat_map(header, square, lane, folder / f"heat-map-{lane}.png"))
    for device in _distinct(m["contender"].split()[1] for m in measurements):
        own = [m for m in measurements if m["contender"].endswith(f" {device}")]
        paths.append(_roofline(header, own, device, folder / f"roofline-{device}.png"))
    return paths


def _throughput(header: Header, square: list[Measurement], lane: str, path: Path) -> Path:
    batches = sorted(_distinct(m["case"]["batch"] for m in square))
    figure = new_figure(3.2 * len(batches) + 1, 3.8)
    panels = figure.subplots(1, len(batches), sharey=True, squeeze=False)[0]
    for batch, axes in zip(batches, panels, strict=True):
        for name in _distinct(m["contender"] for m in square):
            points = sorted(
                (m["case"]["n"], m["gflops"], m["gflops"] * m["median"] / m["q3"],
                 m["gflops"] * m["median"] / m["q1"])
                for m in square
                if m["contender"] == name and m["case"]["batch"] == batch
            )  # fmt: skip
            if points:
                n, middle, low, high = zip(*points, strict=True)
                marker = MARKERS[name.split()[1]]
                axes.plot(n, middle, marker=marker, color=color(name), label=name, markersize=4)
                axes.fill_between(n, low, high, color=color(name), alpha=0.2, linewidth=0)
        for device, best in header["ceilings"].items():
            if lane in best and any(m["contender"].endswith(f" {device}") for m in square):
                axes.axhline(best[lane], color="#555555", linestyle=":", linewidth=1)
                axes.annotate(f"ceiling {device}", (1.0, best[lane]), fontsize=7, color="#555555",
                              xycoords=("axes fraction", "data"), xytext=(-2, 2),
                              textcoords="offset points", ha="right")  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        sizes = _distinct(m["case"]["n"] for m in square if m["case"]["batch"] == batch)
        _plain_numbers(axes.xaxis, sorted(sizes))
        _plain_numbers(axes.yaxis)
        axes.set_title(f"batch {batch}")
        axes.set_xlabel("n")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("GFLOP/s")
    panels[0].legend(fontsize=8)
    figure.suptitle(f"{lane}: (batch, n, n) @ (batch, n, n), median and quartiles")
    return _save(figure, header, path)


def _heat_map(header: Header, square: list[Measurement], lane: str, path: Path) -> Path:
    """Draw the share of the ceiling by batch and size, one panel per library."""
    names = _distinct(m["contender"] for m in square)
    sizes = sorted(_distinct(m["case"]["n"] for m in square))
    batches = sorted(_distinct(m["case"]["batch"] for m in square))
    width = (0.62 * len(sizes) + 0.9) * len(names) + 1
    figure = new_figure(max(5.0, width), 0.5 * len(batches) + 2)
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for name, axes in zip(names, panels, strict=True):
        grid = np.full((len(batches), len(sizes)), np.nan)
        for m in square:
            if m["contender"] == name:
                place = batches.index(m["case"]["batch"]), sizes.index(m["case"]["n"])
                grid[place] = 100 * m.get("share_of_ceiling", np.nan)
        image = axes.imshow(grid, cmap="viridis", vmin=0, vmax=100, origin="lower", aspect="auto")
        for (i, j), value in np.ndenumerate(grid):
            if not np.isnan(value):
                shade = "white" if value < 60 else "black"
                axes.text(j, i, f"{value:.0f}", ha="center", va="center", color=shade, fontsize=8)
        axes.set_xticks(range(len(sizes)), [str(n) for n in sizes], fontsize=8)
        axes.set_yticks(range(len(batches)), [str(n) for n in batches], fontsize=8)
        axes.set_title(name)
        axes.set_xlabel("n")
    panels[0].set_ylabel("batch")
    figure.colorbar(image, ax=panels[-1], label="% of the ceiling")
    figure.suptitle(f"{lane}: (batch, n, n) @ (batch, n, n)")
    return _save(figure, header, path)


def _roofline(header: Header, own: list[Measurement], device: str, path: Path) -> Path:
    """Draw GFLOP/s against flops per byte, below the limit of memory and arithmetic."""
    limits = header["ceilings"][device]
    bandwidth = limits.get("copy", np.inf)
    lanes = [lane for lane in _distinct(m["case"]["lane"] for m in own) if lane in limits]
    figure = new_figure(4.4 * len(lanes) + 0.6, 4.2)
    panels = figure.subplots(1, len(lanes), sharey=True, squeeze=False)[0]
    marks = {"square": "o", "skinny": "^", "broadcast": "s"}
    for lane, axes in zip(lanes, panels, strict=True):
        points = [m for m in own if m["case"]["lane"] == lane]
        intensity = [m["flops_per_byte"] for m in points]
        line = np.geomspace(min(intensity) / 2, max(max(intensity), 40) * 2, 100)
        axes.plot(line, np.minimum(limits[lane], bandwidth * line), color="black")
        for name in _distinct(m["contender"] for m in points):
            for kind, marker in marks.items():
                chosen = [m for m in points if (m["contender"], m["case"]["kind"]) == (name, kind)]
                axes.scatter(
                    [m["flops_per_byte"] for m in chosen],
                    [m["gflops"] for m in chosen],
                    color=color(name),
                    marker=marker,
                    s=16,
                    alpha=0.7,
                    linewidth=0,
                )
            axes.scatter([], [], color=color(name), label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain_numbers(axes.xaxis)
        _plain_numbers(axes.yaxis)
        axes.set_title(f"{lane}: {limits[lane]:.0f} GFLOP/s, copy {bandwidth:.0f} GB/s",
                       fontsize=10)  # fmt: skip
        axes.set_xlabel("flops per byte, each operand moved once")
        axes.grid(alpha=0.3)
    for kind, marker in marks.items():
        panels[0].scatter([], [], color="#555555", marker=marker, s=16, label=kind)
    panels[0].set_ylabel("GFLOP/s")
    panels[0].legend(fontsize=8)
    figure.suptitle(f"Roofline of {device} (operands that fit the caches may lie above the slope)")
    return _save(figure, header, path)


# -- Training steps --------------------------------------------------------------------


def draw_train_step(header: Header, measurements: list[Measurement], folder: Path) -> list[Path]:
    """Draw each contender's time per step: one panel per network, one picture per activation and
    optimizer, and on a GPU per precision."""
    paths = []

    def rule(m: Measurement) -> tuple[str, ...]:
        case = m["case"]
        return tuple(
            case[key] for key in ("device", "precision", "activation", "optimizer") if key in case
        )

    for words in _distinct(rule(m) for m in measurements):
        own = [m for m in measurements if rule(m) == words]
        networks = _distinct(m["case"]["network"] for m in own)
        names = _distinct(m["contender"] for m in own)
        figure = new_figure(2.9 * len(networks) + 1.6, 0.3 * len(names) + 1.4)
        panels = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
        for network, axes in zip(networks, panels, strict=True):
            for m in own:
                if m["case"]["network"] == network:
                    place = names.index(m["contender"])
                    axes.barh(place, m["median"], color=color(m["contender"]),
                              alpha=0.6 if "floor" in m["contender"] else 1.0,
                              xerr=[[m["median"] - m["q1"]], [m["q3"] - m["median"]]],
                              error_kw={"linewidth": 1})  # fmt: skip
                    axes.annotate(
                        f"{m['median']:.{0 if m['median'] >= 100 else 1}f}",
                        (m["q3"], place),
                        fontsize=7,
                        xytext=(3, 0),
                        textcoords="offset points",
                        va="center",
                    )
            axes.set_xlim(0, 1.18 * max(m["q3"] for m in own if m["case"]["network"] == network))
            axes.set_title(network)
            axes.set_xlabel("µs a step")
        panels[0].set_yticks(range(len(names)), names, fontsize=8)
        panels[0].invert_yaxis()
        figure.suptitle(f"{', '.join(words[:-1])}, {words[-1].upper()}: median and quartiles")
        paths.append(_save(figure, header, folder / f"train-step-{'-'.join(words)}.png"))
    return paths


# -- Growth ----------------------------------------------------------------------------


def draw_growth(header: Header, measurements: list[Measurement], folder: Path) -> list[Path]:
    """Draw time and memory against each axis, with the expected slope."""
    axes_names = _distinct(m["case"]["axis"] for m in measurements if "axis" in m["case"])
    if not axes_names:
        raise ValueError("the results have only start-up times, no axis: nothing to draw")
    figure = new_figure(3.3 * len(axes_names) + 0.6, 5.6)
    panels = figure.subplots(2, len(axes_names), squeeze=False)
    for column, name in enumerate(axes_names):
        own = [m for m in measurements if m["case"].get("axis") == name]
        values = np.array([m["case"]["value"] for m in own], float)
        for row, key, label in ((0, "median", "µs a step"), (1, "peak_mib", "peak memory, MiB")):
            y = np.array([m[key] for m in own], float)
            axes = panels[row][column]
            axes.plot(values, y, marker="o", color=COLORS["xpnet"])
            slope = own[-1]["expected_slope" if row == 0 else "expected_memory_slope"]
            axes.plot(values, y[-1] * (values / values[-1]) ** slope, color="#555555",
                      linestyle=":", label=f"slope {slope:g}")  # fmt: skip
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_ylim(min(y) / 3, max(y) * 3)
            _plain_numbers(axes.xaxis, values)
            _plain_numbers(axes.yaxis)
            axes.set_xlabel(name)
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
            if column == 0:
                axes.set_ylabel(label)
    library = header["backend"]
    figure.suptitle(f"xpnet on {library}: growth of a step's time and of the process's memory")
    return [_save(figure, header, folder / "growth.png")]


# -- Many networks at once -------------------------------------------------------------


def draw_many(header: Header, measurements: list[Measurement], folder: Path) -> list[Path]:
    """Draw model-steps per second against the number of models: a panel per network, a picture per
    optimizer. xpnet's lines are solid, the same networks one by one dotted."""
    paths = []
    for optimizer in _distinct(m["case"]["optimizer"] for m in measurements):
        own = [m for m in measurements if m["case"]["optimizer"] == optimizer]
        networks = _distinct(m["case"]["network"] for m in own)
        figure = new_figure(3.6 * len(networks) + 1.6, 3.8)
        panels = figure.subplots(1, len(networks), squeeze=False)[0]
        for network, axes in zip(networks, panels, strict=True):
            here = [m for m in own if m["case"]["network"] == network]
            for name in _distinct(m["contender"] for m in own):
                found = sorted(
                    (m["case"]["models"], *(1e6 / m[key] for key in ("median", "q3", "q1")))
                    for m in here
                    if m["contender"] == name
                )
                if not found:
                    continue
                models, rate, low, high = (np.array(column) for column in zip(*found, strict=True))
                axes.errorbar(
                    models, rate, yerr=[rate - low, high - rate], label=name, linewidth=1.2,
                    markersize=4, **_many_style(name),
                )  # fmt: skip
            counts = sorted({m["case"]["models"] for m in here})
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            _plain_numbers(axes.xaxis, counts)
            axes.set_title(network)
            axes.set_xlabel("models")
            axes.grid(alpha=0.3)
        panels[0].set_ylabel("model-steps a second")
        handles, labels = panels[0].get_legend_handles_labels()
        panels[-1].legend(
            handles, labels, fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5)
        )
        figure.suptitle(f"Many networks at once, {optimizer.upper()}: median and quartiles")
        where = "" if "device" not in own[0]["case"] else f"-{own[0]['case']['device']}"
        paths.append(_save(figure, header, folder / f"many{where}-{optimizer}.png"))
    return paths


def _many_style(contender: str) -> dict[str, Any]:
    words = contender.split()
    library = {"by": "numpy"}.get(words[0], words[1] if words[0] == "xpnet" else words[0])
    if words[0] != "xpnet":
        line, marker = "--", "s"
    elif words[-3:] == ["one", "by", "one"]:
        line, marker = ":", "none"
    elif len(words) > 2:
        line, marker = "-.", "^"
    else:
        line, marker = "-", "o"
    return {"color": COLORS.get(library, "#555555"), "linestyle": line, "marker": marker}


DRAWINGS = {
    "matmul": draw_matmul, "train_step": draw_train_step, "growth": draw_growth, "many": draw_many,
}  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """Draw a file of results."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE.jsonl")]
    """Results that a benchmark wrote with --out."""
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder for the PNG pictures."""


def draw(file: Path, folder: Path) -> list[Path]:
    """Draw a file of results of any benchmark; return the paths of the pictures.

    Raises
    ------
    ValueError
        The file has no measurements, or there are no pictures for its benchmark.
    """
    header, measurements = read(file)
    if not measurements:
        raise ValueError(f"{file} has no measurements")
    if header["benchmark"] not in DRAWINGS:
        known = ", ".join(DRAWINGS)
        raise ValueError(f"{file} has results of {header['benchmark']!r}; expected one of {known}")
    return DRAWINGS[header["benchmark"]](header, measurements, folder)


def main(args: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=args, prog="python -m benchmarks.pictures")
    try:
        require()
        paths = draw(arguments.file, arguments.folder)
    except (OSError, ValueError) as error:
        print(f"python -m benchmarks.pictures: {error}", file=sys.stderr)
        return 2
    for path in paths:
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
