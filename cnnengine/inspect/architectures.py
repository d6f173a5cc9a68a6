"""What a multiprocessor holds, by compute capability.

Source: CUDA C++ Programming Guide 13.0, "Technical Specifications per Compute Capability"; the units in which registers
and shared memory are handed out are those of ``cuda_occupancy.h`` of the CUDA toolkit 13.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WARP = 32
PARTITIONS = 4  # of a multiprocessor, each with a quarter of its registers and warps
ARCHITECTURE = re.compile(r"sm_(\d+)(\d)[af]?")


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one multiprocessor; memory in bytes. ``*_unit`` is what allocations are rounded up to."""

    threads: int
    blocks: int
    shared_memory: int  # with the largest share of the L1 cache that may be shared memory
    fp32_lanes: int  # float32 multiply-adds a clock
    reserved_shared_memory: int = 1024  # of each block, for the system
    shared_memory_unit: int = 128
    registers: int = 64 * 1024
    register_unit: int = 256  # of a warp
    registers_a_thread: int = 255
    threads_a_block: int = 1024

    @property
    def warps(self) -> int:
        """That are resident at once."""
        return self.threads // WARP

    @property
    def shared_memory_a_block(self) -> int:
        """The most that a block may ask for."""
        return self.shared_memory - self.reserved_shared_memory


LIMITS: dict[int, Limits] = {  # compute capability 9.0 is 90
    75: Limits(1024, 16, 64 * 1024, 64, reserved_shared_memory=0, shared_memory_unit=256),
    80: Limits(2048, 32, 164 * 1024, 64),
    86: Limits(1536, 16, 100 * 1024, 128),
    87: Limits(1536, 16, 164 * 1024, 128),
    89: Limits(1536, 24, 100 * 1024, 128),
    90: Limits(2048, 32, 228 * 1024, 128),
    100: Limits(2048, 32, 228 * 1024, 128),
    103: Limits(2048, 32, 228 * 1024, 128),
    110: Limits(1536, 24, 228 * 1024, 128),
    120: Limits(1536, 24, 100 * 1024, 128),
    121: Limits(1536, 24, 100 * 1024, 128),
}


def capability(arch: str) -> int:
    """90 for ``sm_90`` and ``sm_90a``. Raises ValueError where it is written otherwise or not in the table."""
    match = ARCHITECTURE.fullmatch(arch)
    number = 10 * int(match[1]) + int(match[2]) if match else 0
    if number not in LIMITS:
        known = ", ".join(f"sm_{n}" for n in LIMITS)
        raise ValueError(f"arch must be one of {known}, with an a or f behind it or not; received {arch!r}")
    return number
