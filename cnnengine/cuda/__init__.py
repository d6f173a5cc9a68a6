"""What only a GPU has, and the emulator in its place: graphs of steps, and compilation ahead of the first step."""

from .graphs import Graph, graph
from .precompile import Precompiled, precompile

__all__ = ["Graph", "Precompiled", "graph", "precompile"]
