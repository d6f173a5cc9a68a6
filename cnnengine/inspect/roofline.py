"""What a GPU could make of a call at best: by its arithmetic, by its memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from .gpus import GPU


@dataclass(frozen=True, slots=True)
class Bound:
    """Milliseconds by the datasheet, of a CPU by what it was just measured to reach. ``rounds``: by arithmetic where
    the busiest multiprocessor has whole blocks to do, None where blocks are not known. ``bound``: "arithmetic" or
    "memory"."""

    gpu: str
    peak: float  # TFLOP/s
    ridge: float  # FLOPs a byte
    arithmetic: float
    memory: float
    rounds: float | None
    predicted: float
    bound: str


def bound(gpu: GPU, dtype: str, on_tensor_cores: bool, flops: int, nbytes: int, blocks: int | None = None) -> Bound:
    """The least time of ``flops`` and ``nbytes``. ``blocks`` share the arithmetic. Raises ValueError where
    the GPU lacks the tensor cores."""
    peak = gpu.peak(dtype, on_tensor_cores)
    arithmetic, memory = flops / peak * 1e-9, nbytes / gpu.bandwidth * 1e-6
    each = blocks / gpu.multiprocessors if blocks else 0.0
    rounds = arithmetic * ceil(each) / each if each else None
    longest = max(arithmetic if rounds is None else rounds, memory)
    which = "arithmetic" if longest > memory else "memory"
    return Bound(gpu.name, peak, gpu.ridge(dtype, on_tensor_cores), arithmetic, memory, rounds, longest, which)


def cpu_bound(name: str, tflops: float, gbps: float, flops: int, nbytes: int) -> Bound:
    """The least time on a CPU with these peaks."""
    arithmetic, memory = flops / tflops * 1e-9, nbytes / gbps * 1e-6
    which = "arithmetic" if arithmetic > memory else "memory"
    return Bound(name, tflops, 1000 * tflops / gbps, arithmetic, memory, None, max(arithmetic, memory), which)
