"""Pictures of a graph: the circuit with every value and every gradient."""

from __future__ import annotations

from xpnet.graph.node import Node, Trace
from xpnet.show.draw.diagram import diagram_of
from xpnet.show.draw.svg import to_svg
from xpnet.show.draw.text import to_dot, to_mermaid

__all__ = ["FORMATS", "Picture", "picture"]

FORMATS = {".svg": to_svg, ".dot": to_dot, ".mmd": to_mermaid}


class Picture(str):
    """The text of an SVG, which a notebook shows as a picture."""

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
    """A graph as SVG, DOT or Mermaid text.

    Parameters
    ----------
    nodes : list of Node
        In topological order; the last one is the output.
    trace : Trace, optional
        Values and gradients to write at the wires.
    suffix : str
        .svg, .dot or .mmd
    expand : bool
        Draw every gate, instead of one box for a layer.
    graphviz : bool
        Let the program ``dot`` lay out the SVG.

    Raises
    ------
    ValueError
        The suffix is another one, or there is too much to draw.
    FileNotFoundError, RuntimeError
        The program ``dot`` is not installed, or fails.
    """
    if suffix not in FORMATS:
        raise ValueError(f"got a picture's suffix {suffix!r}; expected {', '.join(FORMATS)}")
    drawing = diagram_of(nodes, trace, expand=expand)
    if not graphviz or suffix != ".svg":
        return FORMATS[suffix](drawing)
    import subprocess  # here: few draw, and importing it takes its time

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
