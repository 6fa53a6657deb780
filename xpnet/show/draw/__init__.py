"""Draw a graph as a circuit, with every value and every gradient."""

from __future__ import annotations

from xpnet.graph.node import Node, Trace
from xpnet.show.draw.diagram import diagram_of
from xpnet.show.draw.svg import to_svg
from xpnet.show.draw.text import to_dot, to_mermaid

__all__ = ["FORMATS", "Picture", "picture"]

FORMATS = {".svg": to_svg, ".dot": to_dot, ".mmd": to_mermaid}


class Picture(str):
    """The text of an SVG; a notebook shows it as a picture."""

    def _repr_svg_(self) -> str:
        return str(self)


def picture(
    nodes: list[Node],
    trace: Trace | None = None,
    suffix: str = ".svg",
    *,
    expand: bool = False,
    graphviz: bool = False,
) -> str:
    """Draw a graph as SVG, DOT or Mermaid text.

    Parameters
    ----------
    nodes : list of Node
        In topological order; the last node is the output.
    trace : Trace, optional
        Values and gradients to write at the wires.
    suffix : str
        .svg, .dot or .mmd
    expand : bool
        Draw every gate, instead of one box per layer.
    graphviz : bool
        Let Graphviz's program ``dot`` lay out the SVG.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        The suffix is unknown, or the picture would have too many boxes.
    FileNotFoundError, RuntimeError
        The program ``dot`` is not installed, or it fails.
    """
    if suffix not in FORMATS:
        raise ValueError(f"got a picture's suffix {suffix!r}; expected {', '.join(FORMATS)}")
    drawing = diagram_of(nodes, trace, expand=expand)
    if not graphviz or suffix != ".svg":
        return FORMATS[suffix](drawing)
    import subprocess  # imported here, since it loads slowly and is rarely needed

    try:
        done = subprocess.run(
            ["dot", "-Tsvg"], input=to_dot(drawing), capture_output=True, text=True, check=True
        )
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"dot failed: {error.stderr.strip()}") from error
    except FileNotFoundError:
        raise FileNotFoundError(
            "graphviz=True needs Graphviz's program dot; install it, or leave graphviz out"
        ) from None
    return done.stdout
