"""Timing on a GPU: device events around each call, the L2 cache overwritten before it."""

from __future__ import annotations

from collections.abc import Callable


class CudaTimer:
    """A sample is one call. Overwriting a buffer of twice the L2 empties the cache of the operands, and takes long
    enough that the launches queued behind it wait for the device and not the device for them."""

    name = "CUDA events, L2 flushed"

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        l2_bytes = int(cupy.cuda.Device().attributes["L2CacheSize"])
        self._flush = cupy.empty(2 * l2_bytes, cupy.uint8)
        self._start, self._end = cupy.cuda.Event(), cupy.cuda.Event()

    def calls(self, run: Callable[[], object]) -> int:
        run()
        self._cupy.cuda.Device().synchronize()
        return 1

    def seconds(self, run: Callable[[], object], calls: int) -> float:
        total = 0.0
        for _ in range(calls):
            self._flush.fill(0)
            self._start.record()
            run()
            self._end.record()
            self._end.synchronize()
            total += 1e-3 * float(self._cupy.cuda.get_elapsed_time(self._start, self._end))
        return total / calls
