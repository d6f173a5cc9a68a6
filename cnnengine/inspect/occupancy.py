"""How many blocks a multiprocessor holds at once, and what keeps it from holding more.

The rules of ``cuda_occupancy.h``: registers are handed out to warps, in units, by each of the multiprocessor's four
partitions; shared memory to blocks, in units, together with what the system keeps of each.
"""

from __future__ import annotations

from dataclasses import dataclass

from .architectures import PARTITIONS, WARP, Limits


@dataclass(frozen=True, slots=True)
class Occupancy:
    """``by``: the blocks that each resource alone would allow. ``limiters``: those with the fewest."""

    blocks: int
    warps: int
    share: float  # of the warps that the multiprocessor could hold
    limiters: tuple[str, ...]
    by: dict[str, int]


def occupancy(limits: Limits, threads: int, registers: int, shared_bytes: int) -> Occupancy:
    """Of blocks of ``threads`` threads with ``registers`` each and ``shared_bytes`` of static and dynamic shared memory
    together. No blocks where one is more than a multiprocessor has."""
    warps = _divided_up(threads, WARP)
    by = {
        "blocks": limits.blocks,
        "warps": limits.warps // warps if threads <= limits.threads_a_block else 0,
        "registers": _by_registers(limits, warps, registers),
        "shared memory": _by_shared_memory(limits, shared_bytes),
    }
    blocks = min(by.values())
    limiters = tuple(name for name, count in by.items() if count == blocks)
    return Occupancy(blocks, blocks * warps, blocks * warps / limits.warps, limiters, by)


def _by_registers(limits: Limits, warps: int, registers: int) -> int:
    a_warp = _rounded_up(registers * WARP, limits.register_unit)
    if registers > limits.registers_a_thread or a_warp * _rounded_up(warps, PARTITIONS) > limits.registers:
        return 0
    return limits.registers // PARTITIONS // a_warp * PARTITIONS // warps


def _by_shared_memory(limits: Limits, shared_bytes: int) -> int:
    if shared_bytes > limits.shared_memory_a_block:
        return 0
    a_block = _rounded_up(shared_bytes + limits.reserved_shared_memory, limits.shared_memory_unit)
    return limits.shared_memory // a_block if a_block else limits.blocks


def _divided_up(n: int, by: int) -> int:
    return -(-n // by)


def _rounded_up(n: int, unit: int) -> int:
    return _divided_up(n, unit) * unit
