"""Occupancy and rooflines against values that were reckoned by hand."""

from __future__ import annotations

import pytest

from cnnengine.inspect.architectures import LIMITS
from cnnengine.inspect.gpus import find
from cnnengine.inspect.occupancy import occupancy
from cnnengine.inspect.roofline import bound, cpu_bound


@pytest.mark.parametrize(
    ("capability", "threads", "registers", "shared", "blocks", "limiters"),
    [
        (90, 256, 32, 0, 8, ("warps", "registers")),  # 64 warps of 8 a block; 32 * 32 registers a warp: 64 warps
        (90, 256, 128, 17408, 2, ("registers",)),  # 4096 a warp: 4 in each quarter of 16384, 16 warps
        (90, 256, 255, 17408, 1, ("registers",)),  # 8160, rounded up to 8192: 2 a quarter, 8 warps
        (90, 384, 168, 225 * 1024, 1, ("registers", "shared memory")),  # 5376 a warp: 3 a quarter, 12 warps
        (90, 128, 102, 32768, 4, ("registers",)),  # 3264 to 3328: 4 a quarter, 16 warps
        (90, 128, 32, 32768, 6, ("shared memory",)),  # 33 KB with the system's: 228 / 33
        (90, 32, 32, 0, 32, ("blocks",)),
        (80, 128, 32, 32768, 4, ("shared memory",)),  # 164 / 33
        (75, 128, 32, 32768, 2, ("shared memory",)),  # 64 / 32: nothing is the system's
        (75, 96, 64, 0, 10, ("warps", "registers")),  # 32 warps of 3 a block
        (86, 1024, 32, 0, 1, ("warps",)),  # 1536 threads
        (90, 33, 40, 100, 24, ("registers",)),  # 2 warps a block; 1280 a warp: 12 a quarter, 48 warps
        (90, 512, 255, 0, 0, ("registers",)),  # 16 warps of 8192 registers are twice what there is
        (90, 128, 32, 228 * 1024, 0, ("shared memory",)),  # a block may have 227 KB
        (90, 1056, 32, 0, 0, ("warps",)),  # more than 1024 threads
    ],
)
def test_occupancy(
    capability: int, threads: int, registers: int, shared: int, blocks: int, limiters: tuple[str, ...]
) -> None:
    limits = LIMITS[capability]
    found = occupancy(limits, threads, registers, shared)
    assert (found.blocks, found.limiters) == (blocks, limiters), found
    assert found.warps == blocks * -(-threads // 32)
    assert found.share == found.warps / limits.warps


def test_bounds() -> None:
    """An A100 of 19.5 TFLOP/s in float32 and 2039 GB/s: 9.56 FLOPs a byte."""
    a100 = find("A100")
    one = bound(a100, "float32", False, 19_500_000_000, 1_000_000)
    assert (one.arithmetic, one.bound, one.predicted) == (pytest.approx(1.0), "arithmetic", pytest.approx(1.0))
    assert one.ridge == pytest.approx(19500 / 2039)
    two = bound(a100, "float32", False, 1000, 2_039_000_000)
    assert (two.memory, two.bound) == (pytest.approx(1.0), "memory")
    assert bound(a100, "float16", True, 312 * 10**9, 1).arithmetic == pytest.approx(1.0)


@pytest.mark.parametrize(("blocks", "rounds"), [(108, 1.0), (216, 1.0), (109, 2 * 108 / 109), (54, 2.0)])
def test_whole_blocks(blocks: int, rounds: float) -> None:
    """108 multiprocessors: the busiest of them has a whole number of blocks."""
    one = bound(find("A100"), "float32", False, 19_500_000_000, 1, blocks)
    assert one.rounds == pytest.approx(rounds)
    assert one.predicted == one.rounds


def test_bound_of_a_cpu() -> None:
    one = cpu_bound("a CPU", 0.1, 10.0, 10**9, 10**9)
    assert (one.arithmetic, one.memory, one.bound) == (pytest.approx(10.0), pytest.approx(100.0), "memory")
    assert one.ridge == pytest.approx(10.0)
