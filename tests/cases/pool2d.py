"""Pooling cases, of fixed and of adaptive windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cnnengine.shapes import Pool2dShape, adaptive_pool2d_shape, pool2d_shape


@dataclass(frozen=True)
class Pool2dCase:
    name: str
    tier: str
    kind: str
    x: tuple[int, int, int, int]  # N, H, W, C
    window: Any = 2  # of an adaptive pooling: the output size
    stride: Any = None
    padding: Any = 0
    dilation: Any = 1
    ceil_mode: bool = False
    count_include_pad: bool = True
    adaptive: bool = False
    divisor: int | None = None

    @property
    def shape(self) -> Pool2dShape:
        if self.adaptive:
            return adaptive_pool2d_shape("adaptive_avg_pool2d", self.x, self.window)
        ends = self.ceil_mode, self.count_include_pad, self.divisor
        return pool2d_shape(f"{self.kind}_pool2d", self.x, self.window, self.stride, self.padding, self.dilation, *ends)

    def __str__(self) -> str:
        return f"{self.kind}_{self.name}"


def _both(name: str, tier: str, x: tuple[int, int, int, int], *arguments: Any, **more: Any) -> list[Pool2dCase]:
    return [Pool2dCase(name, tier, kind, x, *arguments, **more) for kind in ("max", "avg")]


CASES = [
    *_both("one_element", "tiny", (1, 1, 1, 1), 1),
    *_both("2x2", "tiny", (2, 4, 6, 3)),
    *_both("3x3_stride_2_pad_1", "tiny", (1, 7, 5, 3), 3, 2, 1),
    *_both("overlapping", "tiny", (1, 5, 5, 2), 3, 1, 1),
    *_both("gaps", "tiny", (1, 7, 7, 2), 2, 3),
    *_both("ceil", "tiny", (1, 5, 6, 2), 2, 2, 0, ceil_mode=True),
    *_both("ceil_padded", "tiny", (1, 6, 5, 1), 3, 2, 1, ceil_mode=True),
    *_both("uneven", "tiny", (1, 5, 8, 2), (2, 3), (1, 2), (1, 1)),
    Pool2dCase("dilated", "tiny", "max", (1, 7, 7, 2), 2, 1, 1, 2),
    Pool2dCase("real_elements_only", "tiny", "avg", (1, 5, 5, 2), 3, 2, 1, count_include_pad=False),
    Pool2dCase("ceil_real_only", "tiny", "avg", (1, 6, 5, 1), 3, 2, 1, ceil_mode=True, count_include_pad=False),
    Pool2dCase("divisor", "tiny", "avg", (1, 6, 5, 2), 3, 2, 1, ceil_mode=True, divisor=7),
    Pool2dCase("divisor_of_tiles", "tiny", "avg", (2, 4, 6, 3), count_include_pad=False, divisor=3),
    *_both("adaptive", "tiny", (1, 5, 7, 3), (3, 2), adaptive=True),
    *_both("adaptive_larger", "tiny", (1, 2, 3, 2), (3, 5), adaptive=True),
    *_both("global", "tiny", (2, 4, 5, 3), 1, adaptive=True),
    *_both("lenet", "small", (2, 28, 28, 6)),
    *_both("primes", "small", (3, 13, 11, 7), 3, 2, 1),
    *_both("one_off_vector", "small", (1, 9, 9, 17), 3, 2, 1),
    *_both("2x2_of_16_channels", "small", (2, 8, 10, 16)),
    *_both("3x3_of_70_channels", "small", (1, 8, 9, 70), 3, 1, 1),
    *_both("17x17_window", "small", (1, 19, 18, 2), 17, 1, 8),
    Pool2dCase("divisor_of_70_channels", "small", "avg", (1, 8, 9, 70), 3, 1, 1, divisor=2),
    *_both("adaptive_7x7", "small", (1, 13, 10, 33), 7, adaptive=True),
    *_both("past_the_caches", "layer", (3, 128, 128, 64), 3, 1, 1),
    *_both("resnet", "layer", (2, 112, 112, 64), 3, 2, 1),
    *_both("alexnet", "layer", (2, 55, 55, 64), 3, 2),
    *_both("global_7x7", "layer", (2, 7, 7, 2048), 1, adaptive=True),
]
