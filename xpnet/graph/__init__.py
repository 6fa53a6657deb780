"""Graphs apply gates to named values, and run them forward and backward."""

from xpnet.graph.autodiff import Tape
from xpnet.graph.graph import Graph
from xpnet.graph.node import Node, Trace

__all__ = ["Graph", "Node", "Tape", "Trace"]
