"""Graphs: gates applied to named values, run forward and backward."""

from xpnet.graph.autodiff import Tape
from xpnet.graph.graph import Graph
from xpnet.graph.node import Node, Trace

__all__ = ["Graph", "Node", "Tape", "Trace"]
