"""Timing on a GPU: device events around each call, the L2 cache overwritten before it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

from cnnengine.jit.device_timer import DeviceTimer

SMOKE_FLUSH_BYTES = 1 << 20


class CudaTimer:
    """A sample is one call."""

    name = "CUDA events, L2 flushed"

    def __init__(self, flush_bytes: int | None = None) -> None:
        import cupy

        self._cupy = cupy
        self._timer = DeviceTimer(flush_bytes)

    def calls(self, run: Callable[[], object]) -> int:
        run()
        self._cupy.cuda.Device().synchronize()
        return 1

    def seconds(self, run: Callable[[], object], calls: int) -> float:
        return sum(self._timer.seconds(run) for _ in range(calls)) / calls


class LaunchTimer:
    """What a call costs the host: the wall clock of calls that nobody waits for, few enough for the queue of launches.
    The device is idle before and after."""

    name = "wall clock, not waiting for the GPU"
    CALLS = 200

    def __init__(self) -> None:
        import cupy

        self._device = cupy.cuda.Device()

    def calls(self, run: Callable[[], object]) -> int:
        run()
        return self.CALLS

    def seconds(self, run: Callable[[], object], calls: int) -> float:
        self._device.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        taken = time.perf_counter() - start
        self._device.synchronize()
        return taken / calls


@cache
def _timers() -> list[CudaTimer]:
    return []


def cuda_timer(flush_bytes: int | None = None) -> CudaTimer:
    """One for the process, whose first call says how much is overwritten."""
    if not _timers():
        _timers().append(CudaTimer(flush_bytes))
    return _timers()[0]
