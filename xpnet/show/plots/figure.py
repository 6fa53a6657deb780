"""The style of all plots, and figures made with matplotlib, which is imported only to draw one.

Everything is passed to the figure itself, nothing to matplotlib's settings: your own pictures stay
as they are, and ours look the same in every session.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from xpnet.errors import UsageError, one_line

__all__ = [
    "COLORS", "GREY", "INK", "LIGHT", "MANY", "SHADES", "SIGNED", "SMALL", "TEXT", "TITLE", "TRAIN",
    "VAL", "caption", "color_bar", "dress", "dress_ticks", "heading", "new_figure", "note_legend",
    "number", "require", "said", "save", "short", "style_of",
]  # fmt: skip

# Colours that colour-blind readers can tell apart, too (Okabe and Ito, 2008).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
TRAIN, VAL = COLORS[:2]
INK, GREY, LIGHT = "black", "#5F5F5F", "#DDDDDD"
SHADES = "Blues"  # from none to all
SIGNED = "RdBu_r"  # from negative, blue, to positive, red
TITLE, TEXT, SMALL = 11.0, 9.5, 8.5  # points
DPI = 120
PADDING = 0.09  # inches around a figure
MANY = 5000  # from so many points on, a plot shows their density


def require(caller: str = "--plot") -> None:
    """Raise `UsageError` if matplotlib cannot draw. Call this before a training, not after it.

    `caller` is what needs it, in the words of who asked for a picture.
    """
    try:
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise UsageError(f"{caller}: matplotlib cannot be imported: {error}") from error
        raise UsageError(f"{caller} needs matplotlib: pip install 'xpnet[plot]'") from None
    except (ImportError, ValueError) as error:  # a broken installation, or MPLBACKEND=nonsense
        reason = " ".join(str(error).split())
        raise UsageError(f"{caller}: matplotlib cannot be imported: {reason}") from error


# -- Figures ---------------------------------------------------------------------------


def new_figure(width: float, height: float) -> Any:
    """Make an empty figure; `width` and `height` are in inches."""
    from matplotlib.figure import Figure  # pyplot would open windows and keep global state

    figure = Figure(figsize=(width, height), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=PADDING, h_pad=PADDING)
    return figure


def heading(figure: Any, title: str) -> None:
    """Write the title of the whole figure at the top left; it breaks where the figure ends."""
    text = figure.suptitle("", x=PADDING / figure.get_figwidth(), ha="left", fontsize=TITLE,
                           fontweight="bold", color=INK)  # fmt: skip
    _write(text, title)


def caption(figure: Any, text: str) -> None:
    """Write below the panels how to read them."""
    below = figure.supxlabel("", x=PADDING / figure.get_figwidth(), ha="left", fontsize=SMALL,
                             color=GREY)  # fmt: skip
    _write(below, text)


def _write(text: Any, words: str) -> None:
    """Break the lines of a text so that none leaves its figure."""
    text.set_parse_math(False)  # a name may contain a $
    figure = text.get_figure()
    text.set_text(words)
    room = figure.bbox.width - 2 * PADDING * figure.dpi
    most = len(words)
    while (width := text.get_window_extent().width) > room and most > 10:
        most = min(most - 1, int(len(max(text.get_text().splitlines(), key=len)) * room / width))
        text.set_text("\n".join(textwrap.fill(line, most) for line in words.splitlines()))


def dress(axes: Any, x: str = "", y: str = "", title: str = "", *, grid: bool = True) -> None:
    """Give axes their labels, title, fonts and grid."""
    options = {"fontsize": TEXT, "color": INK, "parse_math": False}
    axes.set_xlabel(x, **options)
    axes.set_ylabel(y, **options)
    axes.set_title(title, **options)
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.grid(False)
    if grid:
        axes.grid(color=LIGHT, linewidth=0.7, linestyle="-", alpha=1.0)
    for side, spine in axes.spines.items():
        spine.set(color=INK, visible=not grid or side in ("left", "bottom"))
    dress_ticks(axes)


def dress_ticks(axes: Any) -> None:
    """Give ticks their font and colour; once more after `set_yscale`, which makes new ones."""
    axes.tick_params(which="both", labelsize=SMALL, color=INK, labelcolor=INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_offset_text().set(fontsize=SMALL, color=INK)


def color_bar(figure: Any, image: Any, label: str, **options: Any) -> None:
    """Add the scale of an image's colours at its right."""
    bar = figure.colorbar(image, **options)
    dress(bar.ax, y=label, grid=False)
    bar.outline.set_edgecolor(INK)


def note_legend(owner: Any, title: str = "", **options: Any) -> Any:
    """Add a legend to axes or to a figure. A $ in a name is no mathematics."""
    options = {"fontsize": SMALL, "labelcolor": INK, "facecolor": "white", "edgecolor": LIGHT,
               "framealpha": 0.9, "frameon": True} | options  # fmt: skip
    if title:
        options |= {"title": title, "title_fontsize": SMALL, "alignment": "left"}
    legend = owner.legend(**options)
    legend.get_title().set_color(INK)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return legend


def save(figure: Any, path: Path) -> None:
    """Write the figure to a file; the suffix says the format."""
    figure.savefig(path, dpi=DPI, facecolor="white")


# -- Words and lines -------------------------------------------------------------------


def style_of(i: int, count: int = 2) -> dict[str, Any]:
    """Return colour, width and dashes that tell up to ten lines apart; one alone is bolder."""
    if count == 1:
        return {"color": TRAIN, "linewidth": 1.8}
    dashes = "-" if i < len(COLORS) else (0, (4, 1.5))
    return {"color": COLORS[i % len(COLORS)], "linewidth": 1.4, "linestyle": dashes}


def short(name: str, most: int = 24) -> str:
    """Return a name as one line of at most `most` characters; its end often tells it from others.

    Examples
    --------
    >>> short("income of the household last year")
    'income of the h…ast year'
    """
    name = one_line(str(name))
    end = most // 3
    return name if len(name) <= most else f"{name[: most - end - 1]}…{name[-end:]}"


def said(metric: str) -> str:
    """Return what an axis calls a metric: R² for r2, average precision for average_precision."""
    return {"r2": "R²", "mae": "MAE", "rmse": "RMSE"}.get(metric, metric.replace("_", " "))


def number(value: float | None) -> str:
    """Return a score with four digits; one that is missing is "undefined"."""
    return "undefined" if value is None else f"{value:.4g}"
