"""What only a GPU has: compilation ahead of the first step. ``graph`` is ``cnnengine.graph``."""

from ..graphs import Graph, graph
from .precompile import Precompiled, precompile

__all__ = ["Graph", "Precompiled", "graph", "precompile"]
