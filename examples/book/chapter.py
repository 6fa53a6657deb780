"""What the five programs share: the command line, the data, and the look of the pictures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import xpnet
from xpnet.book.mnist import load_mnist

# Colours that differ in lightness too, with lines and markers: a grey print stays legible.
STYLES: list[dict[str, Any]] = [
    {"color": "#0072b2", "linestyle": "-", "marker": "o"},
    {"color": "#d55e00", "linestyle": "--", "marker": "s"},
    {"color": "#000000", "linestyle": "-.", "marker": "^"},
    {"color": "#009e73", "linestyle": ":", "marker": "D"},
]

Part = tuple[np.ndarray, np.ndarray]


class Size(NamedTuple):
    """A number that the reader may change: its usual value, that of --quick, and its meaning."""

    usual: int
    quick: int
    meaning: str


def arguments(
    doc: str | None,
    argv: Sequence[str] | None,
    sizes: Mapping[str, Size],
    experiments: Sequence[str] = (),
) -> argparse.Namespace:
    """Read the command line; `doc` is the program's docstring, which --help prints."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("pictures"),
        metavar="FOLDER",
        help="where the pictures go (default: pictures)",
    )
    parser.add_argument(
        "--mnist",
        type=Path,
        metavar="FOLDER",
        help="where the four files of MNIST are (default: download them once)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a trial in seconds: few steps, on the digits that come with xpnet",
    )
    for name, (usual, quick, meaning) in sizes.items():
        told = f"{meaning} (default: {usual}; with --quick: {quick})"
        parser.add_argument(f"--{name.replace('_', '-')}", type=positive, metavar="N", help=told)
    if experiments:
        parser.add_argument(
            "--only", nargs="+", choices=experiments, metavar="NAME", default=experiments,
            help="run these only: " + ", ".join(experiments),
        )  # fmt: skip
    options = parser.parse_args(argv)
    if options.mnist and not options.mnist.is_dir():
        parser.error(f"--mnist {options.mnist}: no such folder; leave it out to download MNIST")
    for name, size in sizes.items():
        if getattr(options, name) is None:
            setattr(options, name, size.quick if options.quick else size.usual)
    return options


def positive(text: str) -> int:
    """The number that an option gives."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number above 0")
    return int(text)


def load(
    options: argparse.Namespace, flatten: bool = True, one_hot_label: bool = False
) -> tuple[Part, Part]:
    """Return MNIST as `load_mnist` does; with --quick the digits: 8 x 8, or 28 x 28 as images."""
    if not options.quick:
        parts: tuple[Part, Part] = load_mnist(
            flatten=flatten, one_hot_label=one_hot_label, folder=options.mnist
        )
        return parts
    digits, _ = xpnet.datasets.load("digits")
    x, t = digits.x.astype(np.float32) / 16, digits.t
    if not flatten:  # as large as MNIST's: each pixel three times as wide and high, and a margin
        x = np.kron(x.reshape(-1, 1, 8, 8), np.ones((1, 1, 3, 3), np.float32))
        x = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    t = np.eye(10)[t] if one_hot_label else t
    return (x[:-300], t[:-300]), (x[-300:], t[-300:])


def panels(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (4.4, 3.3), **shared: Any
) -> tuple[Figure, np.ndarray]:
    """Return a figure of rows x columns panels, each of this size in inches, and its axes."""
    figure = Figure((columns * size[0], rows * size[1]), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def curves(ax: Any, series: Mapping[str, Any], xlabel: str, ylabel: str, every: int = 1) -> None:
    """Draw each series against its index, with a marker at every so many values, and a legend."""
    for (name, values), style in zip(series.items(), STYLES, strict=False):
        ax.plot(values, label=name, markevery=every, markersize=4, linewidth=1.4, **style)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(alpha=0.3)
    ax.legend()


def accuracies(
    ax: Any, train: Sequence[float], test: Sequence[float], title: str, test_name: str = "test"
) -> None:
    """Draw the accuracies of each epoch on the training and the test part."""
    every = max(1, len(train) // 20)
    curves(ax, {"training": train, test_name: test}, "epoch", "accuracy", every)
    ax.set(ylim=(0, 1.02), title=title)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.legend(loc="lower right")


def images(axes: np.ndarray, pictures: Sequence[np.ndarray], titles: Sequence[str] = ()) -> None:
    """Show one grey picture in each of the axes; large values are dark."""
    for i, ax in enumerate(axes.flat):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(i < len(pictures))
        if i < len(pictures):
            ax.imshow(pictures[i], cmap="gray_r")
        if i < len(titles):
            ax.set_title(titles[i], fontsize=9)


def save(figure: Figure, options: argparse.Namespace, name: str) -> None:
    """Write the figure as a PNG file into the folder that the reader chose."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}.png"
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")
