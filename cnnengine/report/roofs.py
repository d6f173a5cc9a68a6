"""The roofs of a machine as result rows name them."""

from __future__ import annotations

from dataclasses import dataclass

# the roofs as contenders: their rows are the work of one burst and its time
MULTIPLY_ADDS, COPY = "peak: multiply-adds", "peak: copy past the caches"
MIXTURE = "peak: reads and writes past the caches in this operation's proportion"
ROOFS = (MULTIPLY_ADDS, COPY, MIXTURE)


@dataclass(frozen=True)
class Peaks:
    """``gflops``: float32 multiply-adds counted as 2. ``gbps``: bytes read plus bytes written, decimal."""

    gflops: float
    gbps: float
    how: str

    def milliseconds(self, flops: int, nbytes: int) -> float:
        """The roofline: no version of that much work runs faster."""
        return max(flops / self.gflops, nbytes / self.gbps) * 1e-6
