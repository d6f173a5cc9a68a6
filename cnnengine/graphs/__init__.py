"""Graphs of steps: what a step asks the kernels for is written down once and repeated without Python in between."""

from .graph import Graph, graph

__all__ = ["Graph", "graph"]
