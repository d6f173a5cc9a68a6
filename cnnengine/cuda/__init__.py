"""What there is on NVIDIA GPUs alone: compilation ahead of the first step."""

from .precompile import Precompiled, precompile

__all__ = ["Precompiled", "precompile"]
