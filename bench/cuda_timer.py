"""Timing on a GPU: device events around each call, the L2 cache overwritten before it."""

from __future__ import annotations

from collections.abc import Callable

from cnnengine.jit.device_timer import DeviceTimer


class CudaTimer:
    """A sample is one call."""

    name = "CUDA events, L2 flushed"

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self._timer = DeviceTimer()

    def calls(self, run: Callable[[], object]) -> int:
        run()
        self._cupy.cuda.Device().synchronize()
        return 1

    def seconds(self, run: Callable[[], object], calls: int) -> float:
        return sum(self._timer.seconds(run) for _ in range(calls)) / calls
